//! From scheduled kernels to linear code.

pub mod emit;
pub mod matvec;
pub mod unroll;
