//! Lazy tensors compiled to fused kernels, with convolution by Winograd as a graph rewrite.

pub mod cpu;
pub mod device;
pub mod env;
