//! From a tensor graph to kernels.

pub mod rangeify;
pub mod fuse;
pub mod split;
pub mod layout;
pub mod memory;
