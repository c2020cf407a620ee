//! Lazy tensors, compiled to fused kernels.

pub mod error;
pub mod npy;
mod random;
pub mod tensor;

pub use error::{Error, Result};
pub use tensor::{ConvOptions, Element, Matrices, Number, Operand, PoolOptions, SliceRange, Tensor};
pub use winograph_ir::{DType, Scalar};
