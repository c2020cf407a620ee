//! From scheduled kernels to linear code.

pub mod matvec;
