//! A GPU that is not there: kernels of a GPU's target run in the interpreter, block by block and warp by warp. It
//! computes what a real one would, stops at a race, an access out of bounds or a barrier that some threads miss, and
//! counts what each access moves. For small sizes: it is some thousand times slower than the machine that it stands for.

use crate::cpu::Buffer;
use crate::device::{Arg, Device, DeviceError, Memory, Module, read_host, write_host};
use crate::launch::{Signature, arg_bytes, refuse};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use winograph_compiler::Target;
use winograph_compiler::render::{grid_items, item_cost, render_cuda, render_metal};
use winograph_ir::interp::gpu::{self, Counts, GpuModel};
use winograph_ir::linear::Code;

/// Most instructions of one launch, all threads together: some ten seconds.
pub const WORK_LIMIT: u64 = 1 << 29;
/// Launches whose counts are kept.
const KEPT_LAUNCHES: usize = 4096;

/// What one launch moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The kernel's name.
    pub kernel: String,
    /// Counts for each of [`sites`](winograph_ir::interp::gpu::sites).
    pub counts: Counts,
}

type Log = Arc<Mutex<VecDeque<Launch>>>;

/// A virtual GPU.
///
/// ```
/// use std::sync::Arc;
/// use winograph::virtual_gpu::VirtualGpu;
/// use winograph::{ArgSpec, DType, FunctionOptions, Tensor, compile_with};
///
/// let gpu = Arc::new(VirtualGpu::new("cuda:sm_90")?);
/// let options = FunctionOptions { device: Some(gpu.clone()), ..FunctionOptions::default() };
/// let double = compile_with(&[ArgSpec::new(DType::F32, &[64])], &options, |x| Ok(vec![x[0].add(&x[0])?]))?;
/// let y = double.call(&[&Tensor::ones(&[64], DType::F32)?])?;
/// assert_eq!(y[0].to_vec::<f32>()?, [2.0; 64]);
/// let moved: u64 = gpu.take_launches().iter().flat_map(|l| &l.counts.sites).map(|s| s.sectors).sum();
/// assert_eq!(moved, 2 * 64 * 4 / 32, "64 floats in and 64 out, in sectors of 32 bytes");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct VirtualGpu {
    name: String,
    target: Target,
    model: GpuModel,
    limit: u64,
    launches: Log,
}

impl VirtualGpu {
    /// The virtual GPU of a target: `cuda:sm_80`, `cuda:sm_90` or `metal`.
    ///
    /// # Errors
    /// There is no such target, or it is no GPU.
    pub fn new(target: &str) -> Result<VirtualGpu, DeviceError> {
        let missing = |reason: String| DeviceError::NoDevice { device: format!("virtual:{target}"), reason };
        let gpus = || {
            let is_gpu = |n: &&&str| Target::by_name(n).is_some_and(|t| t.gpu.is_some());
            Target::NAMES.iter().filter(is_gpu).copied().collect::<Vec<_>>().join(", ")
        };
        let found = Target::by_name(target)
            .ok_or_else(|| missing(format!("'{target}' is no target; a virtual device stands for {}", gpus())))?;
        VirtualGpu::of(found)
            .ok_or_else(|| missing(format!("{target} is no GPU; a virtual device stands for {}", gpus())))
    }

    /// The virtual GPU of any target that is a GPU.
    pub fn of(target: Target) -> Option<VirtualGpu> {
        let gpu = target.gpu.as_ref()?;
        let model = GpuModel { lanes: gpu.lanes as u32, sector_bytes: gpu.sector as u32, ..GpuModel::default() };
        let name = format!("virtual:{}", target.name);
        Some(VirtualGpu { name, model, target, limit: WORK_LIMIT, launches: Log::default() })
    }

    /// The same with another limit for the instructions of one launch.
    pub fn with_limit(self, limit: u64) -> VirtualGpu {
        VirtualGpu { limit, ..self }
    }

    /// What launches have moved since this was last asked, in their order; the last 4096 of them.
    pub fn take_launches(&self) -> Vec<Launch> {
        std::mem::take(&mut *self.launches.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

impl Device for VirtualGpu {
    fn name(&self) -> &str {
        &self.name
    }

    fn target(&self) -> &Target {
        &self.target
    }

    fn compile(&self, codes: &[Code]) -> Result<Arc<dyn Module>, DeviceError> {
        let kernels = codes.iter().map(|code| {
            if code.ints.params().is_empty() {
                check_work(code, &[], self.limit)?;
            }
            Ok((Signature::new(code, 1)?, code.clone()))
        });
        let kernels = kernels.collect::<Result<Vec<_>, DeviceError>>()?;
        let text = match self.target.name.starts_with("metal") {
            true => render_metal(codes, &self.target),
            false => render_cuda(codes, &self.target).map(|s| s.text),
        };
        // The text is for reading alone: what has none runs all the same.
        let source = text.unwrap_or_else(|e| format!("/* no text for {}: {e} */\n", self.target.name));
        let (model, limit, launches) = (self.model, self.limit, self.launches.clone());
        Ok(Arc::new(VirtualModule { kernels, source, model, limit, launches }))
    }

    fn allocate(&self, bytes: usize) -> Result<Box<dyn Memory>, DeviceError> {
        Ok(Box::new(Buffer::zeroed(bytes)?))
    }

    fn write(&self, to: &mut dyn Memory, offset: usize, from: &[u8]) -> Result<(), DeviceError> {
        write_host(&self.name, to, offset, from)
    }

    fn read(&self, from: &dyn Memory, offset: usize, to: &mut [u8]) -> Result<(), DeviceError> {
        read_host(&self.name, from, offset, to)
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        // Launches have run when they return.
        Ok(())
    }

    fn is_host(&self) -> bool {
        true
    }
}

fn check_work(code: &Code, params: &[i64], limit: u64) -> Result<(), DeviceError> {
    let items = grid_items(code, params).unwrap_or(i64::MAX).max(0) as u64;
    let work = items.saturating_mul(item_cost(code).max(1));
    if work > limit {
        return Err(DeviceError::TooMuchWork { kernel: code.name.clone(), work, limit });
    }
    Ok(())
}

struct VirtualModule {
    kernels: Vec<(Signature, Code)>,
    source: String,
    model: GpuModel,
    limit: u64,
    launches: Log,
}

impl Module for VirtualModule {
    fn len(&self) -> usize {
        self.kernels.len()
    }

    fn source(&self) -> &str {
        &self.source
    }

    unsafe fn launch(&self, kernel: usize, args: &[Arg], params: &[i64]) -> Result<(), DeviceError> {
        let Some((signature, code)) = self.kernels.get(kernel) else {
            return Err(refuse(&kernel.to_string(), format!("the module has {} kernels", self.kernels.len())));
        };
        signature.check(args, params)?;
        let bytes = arg_bytes(code, params).ok_or_else(|| refuse(&code.name, "sizes overflow"))?;
        check_work(code, params, self.limit)?;
        // The interpreter has memory of its own, so that a kernel that is stopped leaves none of it behind.
        let mut memory: Vec<Vec<u8>> = Vec::with_capacity(args.len());
        for (arg, &len) in args.iter().zip(&bytes) {
            if len == 0 {
                memory.push(Vec::new());
                continue;
            }
            // SAFETY: the argument has at least `len` bytes, which the caller promises are live and not written by
            // anything else meanwhile.
            memory.push(unsafe { std::slice::from_raw_parts(arg.address, len) }.to_vec());
        }
        let counts = gpu::run(code, &mut memory, params, &self.model)?;
        for ((decl, arg), data) in code.args.iter().zip(args).zip(&memory) {
            if decl.written && !data.is_empty() {
                // SAFETY: as above; the kernel writes this argument, so nothing else reads it meanwhile.
                unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), arg.address, data.len()) };
            }
        }
        let mut log = self.launches.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() >= KEPT_LAUNCHES {
            log.pop_front();
        }
        log.push_back(Launch { kernel: code.name.clone(), counts });
        Ok(())
    }
}
