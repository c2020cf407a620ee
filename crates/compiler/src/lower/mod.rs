//! From scheduled kernels to linear code.

pub mod emit;
mod lane_groups;
pub mod legalize;
pub mod link;
pub mod math;
pub mod matrix;
pub mod matvec;
mod permute;
#[cfg(test)]
mod testing;
pub mod unroll;
