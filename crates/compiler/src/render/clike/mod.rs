//! What languages like C have in common: types, literals, integer expressions, and every operation on scalars.
//!
//! A [`Dialect`] says what they differ in. Texts use the type names of [`Elem`], which each dialect defines.

mod ints;
mod scalar;
mod types;

pub(super) use ints::{IntWriter, Linear, Unbound};
pub(super) use scalar::{Operand, Unlowered, binary, bitcast, cast, clamp, divide, floor_div, floor_mod, unary};
pub(super) use types::{Elem, comment, condition, identifier, int_literal, literal};

use winograph_ir::{DType, Scalar};

/// A language like C, and the helper functions that a text has asked for.
pub(super) trait Dialect {
    /// Defines a helper function, once, and gives its name; `text` is its definition.
    fn define(&mut self, name: String, text: &dyn Fn(&str) -> String) -> String;

    /// The type of a truth value in a register.
    fn truth(&self) -> &'static str;

    /// A float that is infinite or NaN.
    fn non_finite(&self, s: Scalar) -> String;

    /// A function of C's mathematical library, by the stem of its name.
    fn math(&self, stem: &str, e: Elem) -> String;

    /// A function that converts a float to an integer as Rust's `as`: truncated, saturated, NaN to 0.
    fn float_to_int(&mut self, from: Elem, to: Elem) -> String;

    /// A function that converts the bits of a half float to `f32`, exactly.
    fn half_to_f32(&mut self, half: DType) -> String;

    /// A function that converts `f32` to the bits of a half float, to the nearest, ties to even.
    fn f32_to_half(&mut self, half: DType) -> String;

    /// A function that gives the bits of a scalar as another type of the same size.
    fn bits(&mut self, from: Elem, to: Elem) -> String;
}
