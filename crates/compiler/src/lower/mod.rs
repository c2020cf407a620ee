//! From scheduled kernels to linear code.

pub mod matvec;
pub mod emit;
pub mod unroll;
