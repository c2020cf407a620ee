//! Lazy tensors compiled to fused kernels, with convolution by Winograd as a graph rewrite.

pub mod cpu;
pub mod device;
pub mod env;
pub mod error;
mod execute;
pub mod function;
pub mod npy;
mod random;
pub mod settings;
pub mod tensor;

pub use error::{Error, Result};
pub use execute::CompileTimes;
pub use function::{ArgSpec, Function, FunctionOptions, compile, compile_with};
pub use tensor::{ConvOptions, Element, Matrices, Number, Operand, PoolOptions, SliceRange, Tensor, TensorBuffer};
pub use winograph_compiler::Options;
pub use winograph_ir::{DType, Scalar};
