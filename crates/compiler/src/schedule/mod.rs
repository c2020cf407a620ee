//! From a tensor graph to kernels.

pub mod fuse;
pub mod layout;
pub mod memory;
pub mod rangeify;
pub mod split;
