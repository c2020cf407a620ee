//! Kernels run on bytes of the caller's, for tests and tools: nothing that the verifier has not passed.

use super::buffer::Buffer;
use super::module::CpuModule;
use super::{CpuDevice, Fetched};
use crate::device::{DeviceError, Memory as _, Module as _};
use crate::launch::refuse;
use winograph_ir::linear::Code;
use winograph_ir::verify;

/// Verified kernels that are compiled for the CPU.
pub struct CheckedKernels {
    codes: Vec<Code>,
    module: CpuModule,
}

impl CheckedKernels {
    /// Verifies and compiles kernels, many of them in several calls of the C compiler.
    ///
    /// # Errors
    /// A kernel that the verifier refuses, and those of compiling.
    pub fn new(device: &CpuDevice, codes: &[Code]) -> Result<(CheckedKernels, Fetched), DeviceError> {
        for code in codes {
            verify::linear::verify(code).map_err(|e| refuse(&code.name, format!("the verifier refuses it: {e}")))?;
        }
        let (module, fetched) = device.load(codes)?;
        Ok((CheckedKernels { codes: codes.to_vec(), module }, fetched))
    }

    /// Runs a kernel on copies of its arguments and gives back those that it writes, by their numbers.
    ///
    /// # Errors
    /// No such kernel, arguments that are too few or too short, parameters that are not within their bounds.
    pub fn run(&self, kernel: usize, args: &[Vec<u8>], params: &[i64]) -> Result<Vec<(usize, Vec<u8>)>, DeviceError> {
        let Some(code) = self.codes.get(kernel) else {
            return Err(refuse(&kernel.to_string(), format!("there are {} kernels", self.codes.len())));
        };
        let mut buffers = Vec::with_capacity(args.len());
        for bytes in args {
            let mut buffer = Buffer::zeroed(bytes.len())?;
            buffer.as_mut_slice().copy_from_slice(bytes);
            buffers.push(buffer);
        }
        let launch: Vec<_> = buffers.iter().filter_map(|b| b.arg(0, b.len())).collect();
        // SAFETY: the buffers live until the launch returns, nothing else has them, and they are as large as the module
        // finds that it needs; its kernels have passed the verifier in `new`.
        unsafe { self.module.launch(kernel, &launch, params) }?;
        let written = code.args.iter().zip(&buffers).enumerate().filter(|(_, (decl, _))| decl.written);
        Ok(written.map(|(n, (_, buffer))| (n, buffer.as_slice().to_vec())).collect())
    }
}
