//! The text form of the three levels: deterministic, readable one line a node, and round-tripping.
//!
//! Ids and the order of creation do not show: values, ranges and registers are numbered in the order in which they
//! appear when the graph is walked from its outputs or statements. `docs/ir.md` has the grammar.
//!
//! ```
//! use winograph_ir::text::{parse_tensor, print_tensor};
//!
//! let text = "\
//! param n 1..8
//! inputs argument
//! %0 = input 0 : f32[n, 16]
//! %1 = reduce add any fused [1] %0 : f32[n]
//! output %1
//! ";
//! assert_eq!(print_tensor(&parse_tensor(text)?), text);
//! # Ok::<(), winograph_ir::text::ParseError>(())
//! ```

mod cursor;
pub mod filetest;
mod indexed_parse;
mod indexed_print;
mod ints;
mod lexer;
mod linear_parse;
mod linear_print;
mod names;
mod tensor_parse;
mod tensor_print;
mod value;

pub use cursor::parse_scalar;
pub use indexed_parse::parse_indexed;
pub use indexed_print::{NestStore, print_indexed, print_nest};
pub use lexer::ParseError;
pub use linear_parse::parse_linear;
pub use linear_print::print_linear;
pub use names::{print_gate, print_int};
pub use tensor_parse::parse_tensor;
pub use tensor_print::print_tensor;
