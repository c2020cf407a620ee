//! Compiled kernels in a form that can be kept in a file, and what they need of a machine.

use crate::cpu::{self, Machine};
use crate::device::DeviceError;
use crate::launch::{Signature, refuse};
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
    /// What they are.
    pub form: CodeForm,
}

/// What kernels for an NVIDIA GPU are, which says where else they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodeForm {
    /// Machine code with what GPUs of that compute capability alone have (`sm_90a`): it runs on no other.
    Exact,
    /// Machine code: it runs on those of the same major number whose minor number is no lower, too.
    Machine,
    /// PTX, which the driver translates: it runs on all later ones, too.
    Ptx,
}

/// Compute capabilities of GPUs on a system on a chip: Tegra X1 and X2, Xavier, Orin and Thor (under both of its numbers).
/// "Binary compatibility is supported only for the desktop. It is not supported for Tegra. Also, the binary compatibility
/// between desktop and Tegra is not supported." (CUDA C++ Programming Guide)
pub(crate) const ON_A_CHIP: [u32; 7] = [53, 62, 72, 87, 88, 101, 110];

impl GpuCode {
    /// Whether a GPU of this compute capability (as 90 for 9.0) runs it; the error says what differs. CUDA C++
    /// Programming Guide, "Binary Compatibility", "PTX Compatibility" and "Architecture-Specific Features".
    ///
    /// # Errors
    /// A GPU that is none of those its [`form`](CodeForm) runs on.
    pub fn check(&self, capability: u32) -> Result<(), String> {
        let runs = match self.form {
            CodeForm::Exact => capability == self.capability,
            CodeForm::Machine => {
                let on_a_chip = [capability, self.capability].iter().any(|c| ON_A_CHIP.contains(c));
                capability == self.capability
                    || capability > self.capability && capability / 10 == self.capability / 10 && !on_a_chip
            }
            CodeForm::Ptx => capability >= self.capability,
        };
        if runs {
            return Ok(());
        }
        Err(format!("it needs {self}, and this one has {}.{}", capability / 10, capability % 10))
    }

    /// Whether the bytes can be code of this form: what the driver is given must say itself where it ends.
    pub(crate) fn check_bytes(&self, image: &[u8]) -> Result<(), String> {
        let right = match self.form {
            CodeForm::Ptx => image.last() == Some(&0),
            CodeForm::Exact | CodeForm::Machine => image.starts_with(b"\x7fELF"),
        };
        right.then_some(()).ok_or_else(|| "its kernels are no code for a GPU".into())
    }
}

impl fmt::Display for GpuCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = (self.capability / 10, self.capability % 10);
        write!(f, "an NVIDIA GPU of compute capability {major}.{minor}")?;
        match self.form {
            CodeForm::Exact => Ok(()),
            CodeForm::Machine => write!(f, " or later, but not {}.0", major + 1),
            CodeForm::Ptx => write!(f, " or later"),
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
    /// That of a kernel for a processor.
    pub(crate) fn cpu(self) -> Result<cpu::KernelData, DeviceError> {
        match self {
            KernelData::Cpu(data) => Ok(data),
            KernelData::Cuda(data) => Err(refuse(data.signature.name(), "it is a kernel for a GPU")),
        }
    }

    /// That of a kernel for an NVIDIA GPU.
    #[cfg(feature = "cuda")]
    pub(crate) fn cuda(self) -> Result<GpuKernel, DeviceError> {
        match self {
            KernelData::Cuda(data) => Ok(data),
            KernelData::Cpu(data) => Err(refuse(data.signature.name(), "it is a kernel for a processor")),
        }
    }

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
    fn each_form_runs_where_it_says() {
        let on = |form, capabilities: [u32; 4]| {
            let code = GpuCode { capability: 86, form };
            capabilities.map(|c| code.check(c).is_ok())
        };
        assert_eq!(on(CodeForm::Exact, [80, 86, 89, 90]), [false, true, false, false]);
        assert_eq!(on(CodeForm::Machine, [80, 86, 89, 90]), [false, true, true, false]);
        assert_eq!(on(CodeForm::Ptx, [80, 86, 89, 120]), [false, true, true, true]);
        let orin = GpuCode { capability: 87, form: CodeForm::Machine };
        assert_eq!([86, 87, 89].map(|c| orin.check(c).is_ok()), [false, true, false]);
        assert!(GpuCode { capability: 86, form: CodeForm::Machine }.check(87).is_err());
        let said = GpuCode { capability: 86, form: CodeForm::Machine }.check(80).unwrap_err();
        assert_eq!(
            said,
            "it needs an NVIDIA GPU of compute capability 8.6 or later, but not 9.0, and this one has 8.0"
        );
    }

    #[test]
    fn bytes_that_do_not_say_where_they_end_are_refused() {
        let of = |form| GpuCode { capability: 90, form };
        let (code, text) = (of(CodeForm::Exact), of(CodeForm::Ptx));
        assert!(code.check_bytes(b"\x7fELF...").is_ok() && text.check_bytes(b".version 8.0\0").is_ok());
        assert!(code.check_bytes(b"").is_err() && code.check_bytes(b".version 8.0\0").is_err());
        assert!(text.check_bytes(b"").is_err() && text.check_bytes(b".version 8.0").is_err());
    }
}
