//! Compiled kernels in this process.

use super::buffer::Buffer;
use super::pool::{Pool, Share};
use crate::device::{Arg, DeviceError, KeptUnit, Module};
use crate::image;
use crate::launch::{Signature, refuse};
use libloading::Library;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use winograph_compiler::render::{item_cost, scratch_bytes};
use winograph_ir::linear::Code;

/// A kernel's function; see `winograph_compiler::render::c`.
type Function = unsafe extern "C" fn(*const *mut u8, *const i64, *mut u8, i64, i64);

/// Instructions that a thread takes at a time, at least: some microseconds.
const GRAIN: u64 = 4096;

/// Instructions that a launch has, at least, where sleeping threads are woken for it: some ten microseconds. Waking
/// one costs the caller a few, and it takes about as long again until the thread runs.
const WAKE: u64 = 8 * GRAIN;

/// A shared library.
pub struct Loaded(Library);

impl Loaded {
    /// Loads the library in a file.
    pub fn open(path: &Path) -> Result<Loaded, DeviceError> {
        // SAFETY: the library was compiled from a renderer's text, which has no initialisers, by this process, by one
        // that kept it where this user alone can write, or by who made an exported file that the caller trusts.
        let library = unsafe { Library::new(path) };
        library.map(Loaded).map_err(|e| DeviceError::Load { path: path.to_path_buf(), reason: e.to_string() })
    }

    fn function(&self, symbol: &str) -> Result<Function, DeviceError> {
        // SAFETY: all functions of a renderer's text have this type, and the library stays loaded as long as the
        // module that holds the pointer.
        let found = unsafe { self.0.get::<Function>(symbol.as_bytes()) };
        found.map(|f| *f).map_err(|e| DeviceError::Load { path: symbol.into(), reason: e.to_string() })
    }
}

/// All that launching a kernel takes beside its machine code.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KernelData {
    /// Its function in the library.
    pub(crate) symbol: String,
    pub(crate) signature: Signature,
    /// Bytes of scratch memory that a thread has.
    scratch: usize,
    share: Share,
}

impl KernelData {
    /// What launching each of `codes` takes, `symbols` being their functions.
    pub(super) fn of(codes: &[Code], symbols: Vec<String>) -> Result<Vec<KernelData>, DeviceError> {
        let one = |(code, symbol): (&Code, String)| {
            let items = |cost: u64| cost.div_ceil(item_cost(code).max(1)) as i64;
            Ok(KernelData {
                symbol,
                signature: Signature::new(code, 1)?,
                scratch: scratch_bytes(code)?,
                share: Share { grain: items(GRAIN), wake: items(WAKE) },
            })
        };
        codes.iter().zip(symbols).map(one).collect()
    }
}

struct Kernel {
    data: KernelData,
    function: Function,
}

/// Compiled kernels on the CPU.
pub struct CpuModule {
    kernels: Vec<Kernel>,
    /// For each of its libraries the name that it is kept under, if it is, and how many kernels it has.
    units: Vec<(Option<String>, usize)>,
    source: String,
    pool: Arc<Pool>,
    /// Scratch memory that no launch is using.
    scratch: Mutex<Vec<Buffer>>,
    /// After all that points into them.
    _libraries: Vec<Loaded>,
}

/// Kernels that were compiled together.
pub(super) struct Unit {
    pub(super) library: Loaded,
    /// What the cache has it under, if it has.
    pub(super) name: Option<String>,
    pub(super) source: String,
    pub(super) kernels: Vec<KernelData>,
}

impl CpuModule {
    /// The module of kernels that units hold one after another.
    pub(super) fn new(units: Vec<Unit>, pool: Arc<Pool>) -> Result<CpuModule, DeviceError> {
        let (mut kernels, mut libraries, mut sources) = (Vec::new(), Vec::new(), Vec::new());
        let mut names = Vec::with_capacity(units.len());
        for unit in units {
            names.push((unit.name, unit.kernels.len()));
            for data in unit.kernels {
                kernels.push(Kernel { function: unit.library.function(&data.symbol)?, data });
            }
            libraries.push(unit.library);
            sources.push(unit.source);
        }
        let source = sources.join("\n");
        Ok(CpuModule { kernels, units: names, source, pool, scratch: Mutex::new(Vec::new()), _libraries: libraries })
    }

    fn take_scratch(&self, bytes: usize) -> Result<Buffer, DeviceError> {
        let mut free = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = free.iter().position(|b| b.len() >= bytes) {
            return Ok(free.swap_remove(at));
        }
        // Smaller ones would never be used again.
        free.clear();
        drop(free);
        Buffer::zeroed(bytes)
    }
}

/// Pointers that threads of a launch share.
struct Shared {
    args: Vec<*mut u8>,
    scratch: *mut u8,
}

// SAFETY: kernels write to disjoint places from different items, and each thread has a scratch piece of its own; who
// launches promises the rest.
unsafe impl Sync for Shared {}

impl Module for CpuModule {
    fn len(&self) -> usize {
        self.kernels.len()
    }

    fn source(&self) -> &str {
        &self.source
    }

    fn kept(&self) -> Option<Vec<KeptUnit>> {
        let mut kernels = self.kernels.iter().map(|k| image::KernelData::Cpu(k.data.clone()));
        let unit = |(name, count): &(Option<String>, usize)| {
            Some(KeptUnit { name: name.clone()?, kernels: kernels.by_ref().take(*count).collect() })
        };
        self.units.iter().map(unit).collect()
    }

    fn scratch(&self) -> usize {
        let free = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        free.iter().map(Buffer::len).sum::<usize>() / self.pool.threads().max(1)
    }

    unsafe fn launch(&self, kernel: usize, args: &[Arg], params: &[i64]) -> Result<(), DeviceError> {
        let Some(k) = self.kernels.get(kernel) else {
            return Err(refuse(&kernel.to_string(), format!("the module has {} kernels", self.kernels.len())));
        };
        let items = k.data.signature.check(args, params)?;
        let too_much = DeviceError::OutOfMemory { bytes: k.data.scratch };
        let stride = k.data.scratch.checked_next_multiple_of(4096).ok_or(too_much)?;
        let scratch = match stride {
            0 => None,
            _ => {
                let bytes = stride.checked_mul(self.pool.threads());
                Some(self.take_scratch(bytes.ok_or(DeviceError::OutOfMemory { bytes: usize::MAX })?)?)
            }
        };
        let shared = Shared {
            args: args.iter().map(|a| a.address).collect(),
            scratch: scratch.as_ref().map_or(std::ptr::null_mut(), |b| b.as_ptr()),
        };
        let shared = &shared;
        self.pool.run(items, k.data.share, &|thread, begin, end| {
            let scratch = shared.scratch.wrapping_add(thread * stride);
            // SAFETY: the function belongs to a library that is loaded. Arguments and parameters are as many as it
            // takes, arguments as large as its accesses (proved by the verifier) may reach, by `Signature::check`; the caller
            // promises that they are live and that nothing interferes. The thread's scratch piece is as large as the
            // code's locals, and no other running piece has its number.
            unsafe { (k.function)(shared.args.as_ptr(), params.as_ptr(), scratch, begin, end) }
        });
        if let Some(b) = scratch {
            self.scratch.lock().unwrap_or_else(PoisonError::into_inner).push(b);
        }
        Ok(())
    }
}
