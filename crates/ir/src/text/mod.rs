//! The text form of the three levels: deterministic, readable one line a node, and round-tripping.
//!
//! Ids and the order of creation do not show: values, ranges and registers are numbered in the order in which they
//! appear when the graph is walked from its outputs or statements. `docs/ir.md` has the grammar.

mod indexed_print;
mod linear_print;
mod names;
mod tensor_print;
mod value;

pub use indexed_print::print_indexed;
pub use linear_print::print_linear;
pub use names::{print_gate, print_int};
pub use tensor_print::print_tensor;
