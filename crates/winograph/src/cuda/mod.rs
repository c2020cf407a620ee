//! NVIDIA GPUs: kernels as CUDA C, compiled by NVRTC, launched through the driver. Both are libraries that are loaded
//! when they are first needed, so that the same program runs where there are none.

mod nvrtc;
mod resources;

pub use nvrtc::{Architecture, Binary, Nvrtc};
pub use resources::{KernelResources, parse_resources};
