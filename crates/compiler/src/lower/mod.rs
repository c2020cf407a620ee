//! From scheduled kernels to linear code.

mod axes;
pub mod barriers;
pub mod emit;
pub mod in_place;
mod lane_groups;
pub mod legalize;
pub mod link;
pub mod math;
pub mod matrix;
pub mod matvec;
pub mod neighbours;
mod permute;
pub mod places;
pub mod prefetch;
mod rows;
pub mod shared;
pub mod stream;
#[cfg(test)]
mod testing;
pub mod unroll;
pub mod whole;
