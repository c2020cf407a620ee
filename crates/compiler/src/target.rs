//! Plain data about machines.

use crate::optimize::matrix_unit::{CUDA_UNITS, HOPPER_UNITS, METAL_UNITS};

/// What the compiler knows about a machine. Sizes are in bytes unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Name, as `--target` and explanations give it.
    pub name: String,
    /// Bytes of a vector register.
    pub vector_bytes: usize,
    /// Vector registers that code may use.
    pub vector_registers: usize,
    /// Bytes of vectors whose multiply-adds one core begins in a cycle.
    pub multiply_bytes: usize,
    /// Whether it has an instruction for fused multiply-adds. Without one, products and sums that might be fused are
    /// operations of their own: in software a fused one takes dozens of instructions.
    pub fma: bool,
    /// Bytes a cycle that one core reads from the cache behind its own, in long runs.
    pub far_bytes: usize,
    /// First-level data cache of one core.
    pub l1: usize,
    /// Second-level cache of one core.
    pub l2: usize,
    /// Last-level cache.
    pub l3: usize,
    /// Threads that share out a launch's work items, at least 1. It decides how work is cut up and never what is
    /// computed.
    pub threads: usize,
    /// What a GPU has beyond that; `None` for a CPU.
    pub gpu: Option<Gpu>,
}

/// What the compiler knows about a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gpu {
    /// Threads of a warp.
    pub lanes: usize,
    /// Multiprocessors.
    pub processors: usize,
    /// Bytes of a sector of global memory.
    pub sector: usize,
    /// Threads that a workgroup may have.
    pub max_threads: usize,
    /// Bytes that one thread may load or store at once.
    pub access: usize,
    /// Registers of 32 bits that one thread may have.
    pub registers: usize,
    /// Bytes of shared memory of a workgroup.
    pub shared: usize,
    /// Names of its matrix units, which [`matrix_unit`](crate::optimize::matrix_unit::matrix_unit) describes.
    pub units: &'static [&'static str],
    /// Whether threads can copy from global to shared memory and go on.
    pub copies: bool,
}

impl Target {
    /// A CPU with vectors of `vector_bytes` bytes: 64 for AVX-512, 32 for AVX2, 16 for SSE and NEON; its cores have two units
    /// for multiply-adds.
    pub fn cpu(vector_bytes: usize) -> Target {
        Target {
            name: "cpu".to_string(),
            vector_bytes,
            vector_registers: if vector_bytes >= 64 { 32 } else { 16 },
            multiply_bytes: 2 * vector_bytes,
            fma: true,
            far_bytes: 8,
            l1: 32 << 10,
            l2: 1 << 20,
            l3: 32 << 20,
            threads: 1,
            gpu: None,
        }
    }

    /// The target of this name: `cpu`, `cuda:sm_80`, `cuda:sm_90` or `metal`.
    pub fn by_name(name: &str) -> Option<Target> {
        let gpu = |processors: usize, shared: usize, units: &'static [&'static str]| {
            let gpu = Gpu {
                lanes: 32,
                processors,
                sector: 32,
                max_threads: 1024,
                access: 16,
                registers: 255,
                shared,
                units,
                copies: units.len() > 1,
            };
            Target {
                name: name.to_string(),
                vector_bytes: 16,
                vector_registers: 64,
                multiply_bytes: 32,
                fma: true,
                far_bytes: 32,
                l1: 128 << 10,
                l2: 40 << 20,
                l3: 40 << 20,
                threads: 1,
                gpu: Some(gpu),
            }
        };
        // Multiprocessors of an A100, an H100 and a large Apple GPU.
        match name {
            "cpu" => Some(Target::cpu(64)),
            "cuda:sm_80" => Some(gpu(108, 163 << 10, &CUDA_UNITS)),
            "cuda:sm_90" => Some(gpu(132, 227 << 10, &HOPPER_UNITS)),
            "metal" => Some(gpu(40, 32 << 10, &METAL_UNITS)),
            _ => None,
        }
    }

    /// The names that [`by_name`](Target::by_name) knows.
    pub const NAMES: [&'static str; 4] = ["cpu", "cuda:sm_80", "cuda:sm_90", "metal"];

    /// Lanes of a vector of elements of `size` bytes.
    pub fn lanes(&self, size: usize) -> i64 {
        (self.vector_bytes / size.max(1)).max(1) as i64
    }
}
