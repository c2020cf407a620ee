//! Linear code to source text.
//!
//! A renderer takes verified, legalised [`Code`](winograph_ir::linear::Code) and writes text; it decides nothing. What
//! it cannot write is a [`RenderError`]. [`frame`] holds what renderers and runtimes must agree on: what a work item is, how
//! many there are and where a kernel's own memory lies. The languages are all like C: `clike` holds what they share, `gpu`
//! what those for GPUs do.

pub mod c;
mod clike;
pub mod cuda;
pub mod frame;
mod gpu;
pub mod metal;

pub use c::{CSource, render_c};
pub use cuda::{CudaSource, KernelLaunch, render_cuda};
pub use frame::{grid_items, item_cost, local_bytes, scratch_bytes};
pub use metal::render_metal;

/// Why a kernel cannot be written as source text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// An operation that an earlier pass should have replaced.
    #[error("kernel {kernel}: {what} must be lowered to simpler operations before rendering")]
    NotLowered {
        /// Name of the kernel.
        kernel: String,
        /// The operation.
        what: String,
    },
    /// Code that breaks a rule of linear code; a verifier should have refused it.
    #[error("kernel {kernel}: malformed code: {what}")]
    Malformed {
        /// Name of the kernel.
        kernel: String,
        /// The rule and where it is broken.
        what: String,
    },
    /// Code that is right but that this renderer has no words for.
    #[error("kernel {kernel}: {what} is not supported by this renderer; another target may have it")]
    Unsupported {
        /// Name of the kernel.
        kernel: String,
        /// What it would take.
        what: String,
    },
}
