//! From scheduled kernels to linear code.

pub mod emit;
pub mod legalize;
pub mod link;
pub mod math;
pub mod matvec;
#[cfg(test)]
mod testing;
pub mod unroll;
