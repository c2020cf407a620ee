//! From a tensor graph to kernels.

pub mod block_cost;
pub mod blocked;
pub mod canonical;
pub mod factors;
pub mod flatten;
pub mod fuse;
pub(crate) mod group_cost;
pub mod host;
pub mod layout;
pub mod memory;
pub mod narrow;
pub mod nest;
pub mod operands;
pub mod parts;
pub mod rangeify;
mod requested;
pub mod scope;
pub mod split;
