//! Linear code as CUDA C, for NVRTC and nvcc.
//!
//! Each kernel is a function
//!
//! ```c
//! extern "C" __global__ void symbol(float *a0_out, const float *a1_in, ..., long long p0, ...);
//! ```
//!
//! of the buffers of `Code::args`, each aligned to [`ALIGNMENT`] bytes and apart from the others, and of the parameters
//! in order. It is launched with as many blocks, all along x, as [`grid_items`](super::grid_items) says, and with the
//! threads and bytes of dynamic shared memory of its [`KernelLaunch`]. The text includes no header and is the same for
//! the same code, whatever the numbers of its ids are. It must be compiled with [`COMPILE_OPTIONS`], so that floats
//! round as in `winograph_ir::op`.

mod matrix;
mod prelude;

pub use matrix::{MATRIX_UNITS, matrix_unit};

use super::RenderError;
use super::clike::identifier;
use super::gpu::{Shape, render};
use crate::Target;
use winograph_ir::linear::Code;

/// Options without which the text means something else: no contraction of products and sums, division and square root
/// correctly rounded, no flushing of subnormal numbers.
pub const COMPILE_OPTIONS: [&str; 4] = ["--fmad=false", "--prec-div=true", "--prec-sqrt=true", "--ftz=false"];

/// Alignment in bytes that a kernel's arguments must have.
pub const ALIGNMENT: usize = 16;

/// A CUDA translation unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaSource {
    /// The text.
    pub text: String,
    /// The kernels, in order.
    pub kernels: Vec<KernelLaunch>,
}

/// How a kernel is launched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelLaunch {
    /// The function.
    pub symbol: String,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory; what a kernel declares itself is not among them.
    pub shared_bytes: u32,
}

/// Renders kernels as one translation unit.
///
/// The target names the machine in a comment at the top, so that the text of a kernel says what it was planned for.
/// Code with grid loops alone becomes blocks of one thread.
///
/// # Errors
/// Code that is malformed, not lowered, or beyond what blocks can be: more threads or shared memory than the target has,
/// more than 512 KiB of a thread's memory, an unknown matrix unit.
pub fn render_cuda(codes: &[Code], target: &Target) -> Result<CudaSource, RenderError> {
    let mut prelude = prelude::Prelude::default();
    let mut bodies = String::new();
    let mut kernels = Vec::with_capacity(codes.len());
    for (i, code) in codes.iter().enumerate() {
        let symbol = format!("wg_{i}_{}", identifier(&code.name));
        let shape = Shape::of(code, target)?;
        bodies.push_str(&render(code, &symbol, &shape, &mut prelude)?);
        kernels.push(KernelLaunch { symbol, threads: shape.count, shared_bytes: shape.dynamic as u32 });
    }
    let head = format!("/* {} */\n", identifier(&target.name));
    Ok(CudaSource { text: head + &prelude.text() + &bodies, kernels })
}
