//! Compiled kernels in a form that can be kept in a file, and what they need of a machine.

use crate::cpu::{self, Machine};
use crate::device::DeviceError;
use crate::launch::Signature;
use serde::{Deserialize, Serialize};
use std::fmt;
use winograph_compiler::render::KernelLaunch;
use winograph_compiler::render::cuda::ALIGNMENT;
use winograph_ir::linear::Code;

/// Threads of a block at most, on every GPU that there is.
const MAX_THREADS: u32 = 1024;

/// What compiled kernels need of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Platform {
    /// They run on a processor.
    Cpu(Machine),
    /// They run on an NVIDIA GPU.
    Cuda(GpuCode),
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Platform::Cpu(machine) => write!(f, "{machine}"),
            Platform::Cuda(code) => write!(f, "{code}"),
        }
    }
}

/// What compiled kernels need of an NVIDIA GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuCode {
    /// Compute capability that they were compiled for, as 90 for 9.0.
    pub capability: u32,
    /// Whether they are PTX, which the driver translates for that and all later GPUs, and not machine code, which runs
    /// on those of the same major number alone.
    pub ptx: bool,
}

impl GpuCode {
    /// Whether a GPU of this compute capability (as 90 for 9.0) runs it; the error says what differs. Machine code runs
    /// where the major number is the same and the minor one no lower, PTX on all later GPUs (CUDA C++ Programming
    /// Guide, "Binary Compatibility" and "PTX Compatibility").
    ///
    /// # Errors
    /// An earlier GPU; one of another major number where it is machine code.
    pub fn check(&self, capability: u32) -> Result<(), String> {
        if capability >= self.capability && (self.ptx || capability / 10 == self.capability / 10) {
            return Ok(());
        }
        Err(format!("it needs {self}, and this one has {}.{}", capability / 10, capability % 10))
    }

    /// Whether the bytes can be code of this form: what the driver is given must say itself where it ends.
    pub(crate) fn check_bytes(&self, image: &[u8]) -> Result<(), String> {
        let right = match self.ptx {
            true => image.last() == Some(&0),
            false => image.starts_with(b"\x7fELF"),
        };
        right.then_some(()).ok_or_else(|| "its kernels are no code for a GPU".into())
    }
}

impl fmt::Display for GpuCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = (self.capability / 10, self.capability % 10);
        write!(f, "an NVIDIA GPU of compute capability {major}.{minor} or later")?;
        match self.ptx {
            true => Ok(()),
            false => write!(f, ", but not {}.0", major + 1),
        }
    }
}

/// Compiled kernels that can be kept in a file.
#[derive(Clone, Debug)]
pub struct Image {
    /// Where they run.
    pub(crate) platform: Platform,
    /// What launching each takes.
    pub(crate) kernels: Vec<KernelData>,
    /// Their machine code: a shared library, or what a GPU's driver loads.
    pub(crate) library: Vec<u8>,
}

/// All that launching a kernel takes beside its machine code.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KernelData {
    Cpu(cpu::KernelData),
    Cuda(GpuKernel),
}

impl KernelData {
    pub(crate) fn signature(&self) -> &Signature {
        match self {
            KernelData::Cpu(k) => &k.signature,
            KernelData::Cuda(k) => &k.signature,
        }
    }

    /// Whether it can be what a kernel of that platform takes; the error says what is wrong.
    pub(crate) fn check(&self, platform: &Platform) -> Result<(), String> {
        let symbol = match (self, platform) {
            (KernelData::Cpu(k), Platform::Cpu(_)) => &k.symbol,
            (KernelData::Cuda(k), Platform::Cuda(_)) => {
                k.check()?;
                &k.symbol
            }
            _ => return Err("it is of another kind of machine than the file".into()),
        };
        let c_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if symbol.is_empty() || !symbol.chars().all(c_name) {
            return Err(format!("{symbol:?} is no name of a function"));
        }
        match self.signature().is_sound() {
            true => Ok(()),
            false => Err("its arguments have no fixed sizes or no alignments".into()),
        }
    }
}

/// All that launching a kernel on a GPU takes beside its machine code.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GpuKernel {
    /// Its function.
    pub(crate) symbol: String,
    pub(crate) signature: Signature,
    /// Threads of a block.
    pub(crate) threads: u32,
    /// Bytes of dynamic shared memory.
    pub(crate) shared_bytes: u32,
}

impl GpuKernel {
    /// What launching each of `codes` takes.
    pub(crate) fn of(codes: &[Code], launches: Vec<KernelLaunch>) -> Result<Vec<GpuKernel>, DeviceError> {
        let one = |(code, launch): (&Code, KernelLaunch)| {
            Ok(GpuKernel {
                symbol: launch.symbol,
                signature: Signature::new(code, ALIGNMENT)?,
                threads: launch.threads,
                shared_bytes: launch.shared_bytes,
            })
        };
        codes.iter().zip(launches).map(one).collect()
    }

    /// Whether it can be what a kernel takes; the error says what is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        match (1..=MAX_THREADS).contains(&self.threads) {
            true => Ok(()),
            false => Err(format!("a block of {} threads, where there are 1 to {MAX_THREADS}", self.threads)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_code_runs_on_its_major_number_and_ptx_on_all_later_gpus() {
        let code = GpuCode { capability: 86, ptx: false };
        assert!(code.check(86).is_ok() && code.check(89).is_ok());
        assert!(code.check(80).is_err() && code.check(90).is_err());
        let text = GpuCode { capability: 86, ptx: true };
        assert!(text.check(86).is_ok() && text.check(90).is_ok() && text.check(120).is_ok());
        assert_eq!(
            text.check(80),
            Err("it needs an NVIDIA GPU of compute capability 8.6 or later, and this one has 8.0".into())
        );
    }

    #[test]
    fn bytes_that_do_not_say_where_they_end_are_refused() {
        let (code, text) = (GpuCode { capability: 90, ptx: false }, GpuCode { capability: 90, ptx: true });
        assert!(code.check_bytes(b"\x7fELF...").is_ok() && text.check_bytes(b".version 8.0\0").is_ok());
        assert!(code.check_bytes(b"").is_err() && code.check_bytes(b".version 8.0\0").is_err());
        assert!(text.check_bytes(b"").is_err() && text.check_bytes(b".version 8.0").is_err());
    }
}
