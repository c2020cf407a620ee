//! Lazy tensors compiled to fused kernels, with convolution by Winograd as a graph rewrite.
//!
//! ```
//! use winograph::{ArgSpec, ConvOptions, DType, Tensor, compile};
//!
//! let weight = Tensor::randn(&[16, 3, 3, 3], DType::F32, 1)?;
//! let layer = compile(&[ArgSpec::new(DType::F32, &[1, 3, 8, 8])], |args| {
//!     Ok(vec![args[0].conv2d(&weight, None, &ConvOptions::padding(1))?.relu()?])
//! })?;
//! let image = Tensor::rand(&[1, 3, 8, 8], DType::F32, 2)?;
//! assert_eq!(layer.call(&[&image])?[0].shape(), [1, 16, 8, 8]);
//! # Ok::<(), winograph::Error>(())
//! ```

mod bounded;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod device;
pub mod env;
pub mod error;
mod execute;
pub mod export;
pub mod files;
pub mod function;
mod image;
mod kept;
mod launch;
mod memory;
pub mod model;
pub mod nn;
pub mod npy;
mod outline;
mod random;
mod reuse;
pub mod safetensors;
pub mod search;
pub mod settings;
pub mod temporary;
pub mod tensor;
pub mod virtual_gpu;
mod work;
mod workspace;

pub use error::{Error, Result};
pub use execute::{CompileTimes, programs_planned};
pub use function::{ArgSpec, Function, FunctionOptions, compile, compile_with, plan, plan_stored};
pub use half::{bf16, f16};
pub use model::Model;
pub use tensor::{
    ConvOptions, Element, Matrices, Number, Operand, PoolOptions, SliceRange, Tensor, TensorBuffer, TensorLevel,
};
pub use winograph_compiler::Options;
pub use winograph_ir::rule::{Algorithm, AxisTile, Tolerance, WindowRule};
pub use winograph_ir::{DType, Scalar};

/// The examples of the README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
