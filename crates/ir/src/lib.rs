//! The graph of the Winograph tensor compiler.
//!
//! Three levels, each with a text form, a verifier and an interpreter:
//! - [`tensor`]: operations on whole tensors, as a program states them;
//! - [`indexed`]: loop ranges, index expressions, reductions and stages;
//! - [`linear`]: ordered code with explicit vectors, gates and registers, ready for a renderer.

pub mod dtype;
pub mod indexed;
pub mod int;
pub mod interp;
pub mod linear;
pub mod op;
pub mod rule;
pub mod tensor;
pub mod text;
pub mod verify;

pub use dtype::{DType, Scalar};
pub use int::{IntId, IntNode, Ints, ParamId, RangeId, RangeRole};
pub use op::{BinaryOp, ReduceOp, SumOrder, UnaryOp};
