//! Linear code for GPUs: what CUDA C and Metal have in common.
//!
//! Grid loops become blocks: those of one nest flattened, the innermost fastest, as in [`frame`](super::frame); several
//! nests concatenate. Thread loops become the threads of a block. A vector register is one scalar variable per lane:
//! lanes of a GPU's threads are threads, and what vectors are for is memory. Accesses of 2 to 16 neighbouring bytes
//! become one where the address is proved to be a multiple of them.
//!
//! A [`Language`] says what the languages differ in.

mod access;
mod instr;
mod kernel;
mod shape;

pub(super) use kernel::render;
pub(super) use shape::Shape;

use super::clike::{Dialect, Elem};
use winograph_ir::linear::MatrixUnit;

/// Memory that a pointer points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// Of the device.
    Global,
    /// Of a block.
    Shared,
    /// Of a thread.
    Thread,
    /// A table that is read at one place by all threads together.
    Constant,
    /// A table that threads read at places of their own.
    Table,
}

/// An argument of a kernel.
pub(super) struct Arg<'a> {
    pub(super) elem: Elem,
    pub(super) name: &'a str,
    pub(super) written: bool,
}

/// A language for GPUs.
pub(super) trait Language: Dialect {
    /// The beginning of a kernel's function, to the opening brace.
    fn function(&self, symbol: &str, args: &[Arg<'_>], params: usize, shape: &Shape<'_>) -> String;

    /// The number of the block, as `u32`.
    fn block(&self) -> &'static str;

    /// The number of the thread in its block, as `u32`.
    fn thread(&self) -> &'static str;

    /// The statement that waits for all threads of a block and for what they wrote to shared memory; `tiles` says that
    /// matrix units read it.
    fn barrier(&self, tiles: bool) -> &'static str;

    /// A function `f(to, from, whether)` that begins to copy so many bytes from global to shared memory, or to write zeros
    /// there; `None` where the language has none for that size, and copies are done at once.
    fn copy(&mut self, bytes: usize, once: bool) -> Option<String>;

    /// The statement after the copies that are one [`Stmt::Async`](winograph_ir::linear::Stmt::Async).
    fn copied(&self) -> Option<&'static str>;

    /// The statement that waits until no more than so many of these are under way.
    fn wait(&self, pending: u32) -> Option<String>;

    /// The type that points to elements named `ty`.
    fn pointer(&self, space: Space, ty: &str, constant: bool) -> String;

    /// The declaration of an array, aligned to 16 bytes. Tables have initial values and are declared before functions.
    fn array(&self, space: Space, elem: Elem, name: &str, len: usize, values: Option<&str>) -> String;

    /// A function `f(d.., base, offset, thread)` that loads rows of small matrices, `offset` elements behind `base`, as
    /// [`Instr::Rows`](winograph_ir::linear::Instr::Rows) says.
    fn rows(&mut self, elem: Elem, matrices: usize, transposed: bool) -> String;

    /// A function `f(d.., a, b)` that adds to the elements of `d` the product of factors in shared memory, as
    /// [`Instr::Tiles`](winograph_ir::linear::Instr::Tiles) says; `None` where the language has no such unit.
    fn tiles(&mut self, unit: &MatrixUnit) -> Option<String>;

    /// A function `f(d.., a.., b.., c..)` that sets the elements of `d` to a matrix unit's result, operands by element;
    /// `None` where the language has no such unit.
    fn matrix(&mut self, unit: &MatrixUnit) -> Option<String>;
}
