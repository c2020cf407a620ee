//! `winograph devices`: what this machine has.

use crate::args::DevicesArgs;
use crate::error::{Error, Result};
use crate::{machine, output};
use serde::Serialize;
use std::fmt::Write as _;
use winograph::cuda::{CudaDevice, CudaOptions};
use winograph::device::Device as _;
use winograph::settings;

#[derive(Debug, Serialize)]
struct Cpu {
    device: &'static str,
    name: String,
    vector_bytes: usize,
    threads: usize,
    l1_bytes: usize,
    l2_bytes: usize,
    l3_bytes: usize,
    /// Path of the C compiler.
    compiler: Option<String>,
    compiler_version: Option<String>,
    /// Why there is none.
    compiler_missing: Option<String>,
    /// Folder of the kernel cache; `None` where it is off.
    cache: Option<String>,
    /// Why no kernels are kept although a folder is named.
    cache_refused: Option<String>,
}

/// An NVIDIA GPU.
#[derive(Debug, Serialize)]
struct Cuda {
    device: String,
    name: String,
    /// As 9.0.
    compute_capability: String,
    memory_bytes: usize,
    /// File of NVRTC and its version.
    compiler: Option<String>,
    /// Why there is none.
    compiler_missing: Option<String>,
    /// What it makes for the GPU, as `sm_90a`; `None` where it can make nothing.
    compiles_for: Option<String>,
    /// Matrix units that kernels may use: those that the GPU has and the compiler knows.
    matrix_units: Vec<&'static str>,
}

/// The NVIDIA GPUs, each or why it cannot be used, or why there are none.
fn gpus() -> Result<std::result::Result<Vec<std::result::Result<Cuda, String>>, String>> {
    let options = CudaOptions::from_env(machine::env()?);
    let one = |n: usize| {
        let gpu = CudaDevice::with_options(n, options.clone()).map_err(|e| e.to_string())?;
        let capability = gpu.capability();
        let nvrtc = gpu.nvrtc();
        Ok(Cuda {
            device: gpu.name().to_string(),
            name: gpu.description().to_string(),
            compute_capability: format!("{}.{}", capability / 10, capability % 10),
            memory_bytes: gpu.memory(),
            compiler: nvrtc.as_ref().ok().map(|n| {
                let (major, minor) = n.version();
                format!("NVRTC {major}.{minor}, {}", n.path().display())
            }),
            compiles_for: nvrtc.as_ref().ok().and_then(|n| {
                let architecture = n.architecture_for(capability)?;
                Some(n.architecture_name(architecture))
            }),
            compiler_missing: nvrtc.err().map(|e| e.to_string()),
            matrix_units: gpu.target().gpu.as_ref().map_or(vec![], |g| g.units.to_vec()),
        })
    };
    Ok(match CudaDevice::count() {
        Ok(0) => Err("the driver finds no GPU".to_string()),
        Ok(count) => Ok((0..count).map(one).collect()),
        Err(e) => Err(e.to_string()),
    })
}

/// What the machine calls its processor.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_string(), |(_, name)| name.trim().to_string())
}

/// Runs the command.
pub(crate) fn devices(args: &DevicesArgs) -> Result<()> {
    let env = settings::env().map_err(|e| Error::of("cannot read the environment", e))?;
    let device = machine::cpu(None)?;
    let target = device.target();
    let compiler = device.compiler();
    let cpu = Cpu {
        device: "cpu",
        name: processor(),
        vector_bytes: target.vector_bytes,
        threads: device.threads(),
        l1_bytes: target.l1,
        l2_bytes: target.l2,
        l3_bytes: target.l3,
        compiler: compiler.as_ref().ok().map(|c| c.program().display().to_string()),
        compiler_version: compiler
            .as_ref()
            .ok()
            .and_then(|c| c.version().ok())
            .map(|v| v.lines().next().unwrap_or_default().to_string()),
        compiler_missing: compiler.as_ref().err().map(|e| e.to_string()),
        cache: env.kernel_cache().map(|p| p.display().to_string()),
        cache_refused: device.cache().folder().err(),
    };
    let gpus = gpus()?;
    if args.json {
        let mut devices = vec![serde_json::json!(cpu)];
        for (n, gpu) in gpus.iter().flatten().enumerate() {
            devices.push(match gpu {
                Ok(gpu) => serde_json::json!(gpu),
                Err(why) => serde_json::json!({ "device": format!("cuda:{n}"), "unusable": why }),
            });
        }
        let list = serde_json::json!({ "devices": devices, "cuda_missing": gpus.err() });
        return output::print(&format!("{list}\n"));
    }
    let mut out = String::new();
    let mut line = |what: &str, value: String| {
        let _ = writeln!(out, "{what:<14} {value}");
    };
    line("cpu", cpu.name);
    line("  vectors", format!("{} bytes", cpu.vector_bytes));
    line("  threads", cpu.threads.to_string());
    line("  caches", format!("L1 {}, L2 {}, L3 {}", size(cpu.l1_bytes), size(cpu.l2_bytes), size(cpu.l3_bytes)));
    line(
        "  C compiler",
        match (cpu.compiler, cpu.compiler_version) {
            (Some(path), Some(version)) => format!("{path} ({version})"),
            _ => format!("none found: {}", cpu.compiler_missing.unwrap_or_default()),
        },
    );
    let cache = cpu.cache.unwrap_or_else(|| "off".to_string());
    line("  kernel cache", cpu.cache_refused.map_or(cache, |why| format!("not used: {why}")));
    match gpus {
        Err(why) => line("cuda", format!("none: {why}")),
        Ok(gpus) => {
            for (n, gpu) in gpus.into_iter().enumerate() {
                match gpu {
                    Err(why) => line(&format!("cuda:{n}"), format!("cannot be used: {why}")),
                    Ok(gpu) => {
                        line(&gpu.device, gpu.name);
                        line("  capability", gpu.compute_capability);
                        line("  memory", size(gpu.memory_bytes));
                        let missing = gpu.compiler_missing.unwrap_or_default();
                        if gpu.compiler.is_some() {
                            let none = || "nothing that this GPU runs: it is too old for the compiler".to_string();
                            line("  compiles for", gpu.compiles_for.unwrap_or_else(none));
                        }
                        line("  compiler", gpu.compiler.unwrap_or_else(|| format!("none found: {missing}")));
                        let units = gpu.matrix_units.join(", ");
                        line("  matrix units", if units.is_empty() { "none".into() } else { units });
                    }
                }
            }
        }
    }
    output::print(&out)
}

fn size(bytes: usize) -> String {
    match bytes {
        b if b >= 1 << 20 && b % (1 << 20) == 0 => format!("{} MiB", b >> 20),
        b => format!("{} KiB", b >> 10),
    }
}
