//! Devices by their names on the command line.

use crate::error::{Error, Result};
use std::sync::Arc;
use winograph::cpu::{CpuDevice, CpuOptions};
use winograph::cuda::{CudaDevice, CudaOptions};
use winograph::device::{Device, DeviceError};
use winograph::settings;
use winograph::virtual_gpu::VirtualGpu;
use winograph_compiler::Target;

/// What `--device` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Cpu,
    /// An NVIDIA GPU by its number.
    Cuda(usize),
    /// The target that a virtual GPU stands for.
    Virtual(String),
}

impl Name {
    /// Reads a name. Whether there is such a device is another matter.
    pub(crate) fn parse(text: &str) -> Result<Name> {
        let unknown = || {
            Error::usage(format!(
                "unknown device '{text}': expected cpu, cuda:N with the number of a GPU, or virtual:TARGET with one of {}",
                gpus().join(", ")
            ))
        };
        match text.split_once(':') {
            None if text == "cpu" => Ok(Name::Cpu),
            Some(("cuda", n)) => n.parse().map(Name::Cuda).map_err(|_| unknown()),
            Some(("virtual", target)) if gpus().contains(&target) => Ok(Name::Virtual(target.to_string())),
            _ => Err(unknown()),
        }
    }
}

/// Targets that are GPUs.
pub(crate) fn gpus() -> Vec<&'static str> {
    Target::NAMES.into_iter().filter(|n| Target::by_name(n).is_some_and(|t| t.gpu.is_some())).collect()
}

/// A device that is open.
pub(crate) struct Machine {
    pub(crate) device: Arc<dyn Device>,
    /// Threads of the CPU that share out a launch; 1 where another machine runs it.
    pub(crate) threads: usize,
    /// The same device, where it counts what launches move.
    pub(crate) virtual_gpu: Option<Arc<VirtualGpu>>,
}

impl Machine {
    /// Opens a device, with as many threads as asked for if it is the CPU.
    pub(crate) fn open(name: &Name, threads: Option<u32>) -> Result<Machine> {
        if threads.is_some() && *name != Name::Cpu {
            return Err(Error::usage("--threads is about the CPU: leave it out with another --device"));
        }
        let failed = |e: DeviceError| Error::failure("cannot open the device", e);
        match name {
            Name::Cpu => {
                let device = cpu(threads)?;
                // Looking for the compiler is not part of compiling. Where there is none, exported models run all the same,
                // and what has to be compiled says that it cannot be.
                let _ = device.compiler();
                Ok(Machine { threads: device.threads(), device, virtual_gpu: None })
            }
            Name::Cuda(n) => {
                let device = CudaDevice::with_options(*n, CudaOptions::from_env(env()?)).map_err(failed)?;
                // As for the CPU's compiler.
                let _ = device.nvrtc();
                Ok(Machine { device: Arc::new(device), threads: 1, virtual_gpu: None })
            }
            Name::Virtual(target) => {
                let gpu = Arc::new(VirtualGpu::new(target).map_err(failed)?);
                Ok(Machine { device: gpu.clone(), threads: 1, virtual_gpu: Some(gpu) })
            }
        }
    }
}

/// The environment of this process.
pub(crate) fn env() -> Result<&'static winograph::env::Env> {
    settings::env().map_err(|e| Error::of("cannot read the environment", e))
}

/// The CPU, with as many threads as asked for.
pub(crate) fn cpu(threads: Option<u32>) -> Result<Arc<CpuDevice>> {
    let mut options = CpuOptions::from_env(env()?);
    if let Some(n) = threads {
        options.threads = Some(n as usize);
    }
    CpuDevice::new(options).map(Arc::new).map_err(|e| Error::failure("cannot open the device", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(Name::parse("cpu").ok(), Some(Name::Cpu));
        assert_eq!(Name::parse("cuda:1").ok(), Some(Name::Cuda(1)));
        for target in ["cuda:sm_80", "cuda:sm_90", "metal"] {
            assert_eq!(Name::parse(&format!("virtual:{target}")).ok(), Some(Name::Virtual(target.to_string())));
        }
        for bad in ["", "cuda", "cuda:", "cuda:x", "virtual", "virtual:", "virtual:cpu", "virtual:cuda", "cpu:0"] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
    }
}
