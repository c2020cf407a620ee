//! The CPU: kernels as C, compiled by the system's compiler, loaded into this process, run by a pool of threads.

pub(crate) mod buffer;
mod cache;
mod checked;
mod compiler;
pub(crate) mod folder;
mod machine;
mod module;
mod pool;

pub use buffer::{ALIGNMENT, Buffer};
pub use cache::{CACHE_BYTES, Cache, Fetched};
pub use checked::CheckedKernels;
pub use compiler::Compiler;
pub use machine::{Machine, capped_target, host_target};
pub(crate) use module::KernelData;
use module::Unit;
pub use module::{CpuModule, Loaded};
pub use pool::{Pool, Share};

use crate::device::{Device, DeviceError, KeptUnit, Memory, Module, ProgramStore, read_host, write_host};
use crate::env::Env;
use crate::image::{self, Image, Platform};
use crate::search::PlanStore;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use winograph_compiler::Target;
use winograph_compiler::render::render_c;
use winograph_ir::linear::Code;

/// Most kernels of one translation unit.
const UNIT_KERNELS: usize = 16;

/// Options of a CPU device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuOptions {
    /// The C compiler, a path or a name, with arguments of its own if need be; `None` takes clang, cc or gcc.
    pub cc: Option<OsString>,
    /// Where compilers are looked for, as in the variable `PATH`.
    pub path: Option<OsString>,
    /// Folder of the kernel cache; `None` keeps no kernels.
    pub cache_dir: Option<PathBuf>,
    /// Bytes that the cache has at most; `None` takes [`CACHE_BYTES`].
    pub cache_bytes: Option<u64>,
    /// Folder of plans that searches have found; `None` has none.
    pub plan_dir: Option<PathBuf>,
    /// Folder for temporary files.
    pub temp_dir: PathBuf,
    /// Number of threads; `None` takes as many as this process may use (affinity and cgroups are respected).
    pub threads: Option<usize>,
    /// Bytes of the widest vectors that kernels may use, where the machine has wider ones: 16 (on x86 SSE, without fused
    /// multiply-adds), 32 (AVX2) or 64 (AVX-512).
    pub vector_bytes: Option<usize>,
}

impl CpuOptions {
    /// What the environment asks for.
    pub fn from_env(env: &Env) -> CpuOptions {
        CpuOptions {
            cc: env.cc.clone(),
            path: env.path.clone(),
            cache_dir: env.kernel_cache(),
            cache_bytes: env.cache_bytes,
            plan_dir: env.plans(),
            temp_dir: env.temp_dir.clone(),
            threads: env.threads,
            vector_bytes: env.vector_bytes,
        }
    }
}

/// This machine's CPU.
///
/// The compiler is looked for when something is to be compiled, so that a machine without one has a device all the
/// same.
pub struct CpuDevice {
    options: CpuOptions,
    target: Target,
    cache: Cache,
    plans: PlanStore,
    machine: String,
    compiler: OnceLock<Compiler>,
    pool: Arc<Pool>,
}

impl CpuDevice {
    /// A device with threads of its own.
    pub fn new(options: CpuOptions) -> Result<CpuDevice, DeviceError> {
        let threads = match options.threads {
            Some(n) => n,
            None => std::thread::available_parallelism().map_or(1, |n| n.get()),
        };
        let target = Target { threads, ..capped_target(options.vector_bytes) };
        Ok(CpuDevice {
            target,
            plans: PlanStore::new(options.plan_dir.clone()),
            cache: Cache::new(
                options.cache_dir.clone(),
                options.temp_dir.clone(),
                options.cache_bytes.unwrap_or(CACHE_BYTES),
            ),
            machine: machine::fingerprint(),
            compiler: OnceLock::new(),
            pool: Arc::new(Pool::new(threads)?),
            options,
        })
    }

    /// Number of threads that share out a launch.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The cache of compiled kernels.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The C compiler.
    pub fn compiler(&self) -> Result<&Compiler, DeviceError> {
        if let Some(c) = self.compiler.get() {
            return Ok(c);
        }
        let (cc, path) = (self.options.cc.as_deref(), self.options.path.as_deref());
        let found = Compiler::find(cc, path, self.target.vector_bytes)?;
        Ok(self.compiler.get_or_init(|| found))
    }

    /// Compiles kernels, or takes them from the cache, and says which. Many are divided among translation units, which
    /// depend on the kernels alone and are compiled side by side.
    pub fn load(&self, codes: &[Code]) -> Result<(CpuModule, Fetched), DeviceError> {
        let compiler = self.compiler()?;
        let unit = |codes: &[Code]| {
            let source = render_c(codes, &self.target)?;
            let name = cache::key(&source.text, compiler, &self.machine);
            let (library, fetched) = self.cache.load_named(&name, &source.text, compiler)?;
            let kernels = KernelData::of(codes, source.symbols)?;
            let name = (fetched != Fetched::Compiled).then_some(name);
            Ok((Unit { library, name, source: source.text, kernels }, fetched))
        };
        let size = codes.len().div_ceil(codes.len().div_ceil(UNIT_KERNELS).max(1)).max(1);
        let parts: Vec<&[Code]> = codes.chunks(size).collect();
        let results: Vec<OnceLock<Result<(Unit, Fetched), DeviceError>>> =
            parts.iter().map(|_| OnceLock::new()).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some((part, result)) = at(&parts, &results, next.fetch_add(1, Ordering::Relaxed)) {
                let done = unit(part);
                // Nobody needs the others.
                if done.is_err() {
                    next.store(parts.len(), Ordering::Relaxed);
                }
                let _ = result.set(done);
            }
        };
        let workers = std::thread::available_parallelism().map_or(1, |n| n.get()).min(parts.len());
        std::thread::scope(|scope| {
            (1..workers).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        let (mut units, mut fetched) = (Vec::with_capacity(parts.len()), Fetched::Cached);
        for result in results.into_iter().filter_map(OnceLock::into_inner) {
            let (unit, how) = result?;
            units.push(unit);
            fetched = match (fetched, how) {
                (Fetched::Compiled, _) | (_, Fetched::Compiled) => Fetched::Compiled,
                (Fetched::Stored, _) | (_, Fetched::Stored) => Fetched::Stored,
                _ => Fetched::Cached,
            };
        }
        Ok((CpuModule::new(units, self.pool.clone())?, fetched))
    }
}

/// The part of a number and where its result goes.
fn at<'a, A: Copy, B>(parts: &[A], results: &'a [B], n: usize) -> Option<(A, &'a B)> {
    Some((*parts.get(n)?, results.get(n)?))
}

impl Device for CpuDevice {
    fn name(&self) -> &str {
        "cpu"
    }

    fn target(&self) -> &Target {
        &self.target
    }

    fn compile(&self, codes: &[Code]) -> Result<Arc<dyn Module>, DeviceError> {
        Ok(Arc::new(self.load(codes)?.0))
    }

    fn allocate(&self, bytes: usize) -> Result<Box<dyn Memory>, DeviceError> {
        Ok(Box::new(Buffer::zeroed(bytes)?))
    }

    fn allocate_prepared(&self, bytes: usize) -> Result<Box<dyn Memory>, DeviceError> {
        let buffer = Buffer::zeroed(bytes)?;
        buffer.touch_behind();
        Ok(Box::new(buffer))
    }

    fn write(&self, to: &mut dyn Memory, offset: usize, from: &[u8]) -> Result<(), DeviceError> {
        write_host(self.name(), to, offset, from)
    }

    fn read(&self, from: &dyn Memory, offset: usize, to: &mut [u8]) -> Result<(), DeviceError> {
        read_host(self.name(), from, offset, to)
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        // Launches have run when they return.
        Ok(())
    }

    fn is_host(&self) -> bool {
        true
    }

    fn accepts(&self, platform: &Platform) -> Result<(), DeviceError> {
        let checked = match platform {
            Platform::Cpu(machine) => machine.check(),
            Platform::Cuda(_) => Err(format!("it runs on {platform}, such as the device cuda:0")),
        };
        checked.map_err(|reason| DeviceError::OtherMachine { reason })
    }

    fn plans(&self) -> Option<&PlanStore> {
        Some(&self.plans)
    }

    fn programs(&self) -> Option<&dyn ProgramStore> {
        Some(self)
    }

    fn export(&self, codes: &[Code]) -> Result<Image, DeviceError> {
        let platform = Platform::Cpu(Machine::of(self.target.vector_bytes));
        if codes.is_empty() {
            return Ok(Image { platform, kernels: Vec::new(), library: Vec::new() });
        }
        let source = render_c(codes, &self.target)?;
        let kernels = KernelData::of(codes, source.symbols)?;
        Ok(Image {
            platform,
            library: self.cache.bytes(&source.text, self.compiler()?, &self.machine)?,
            kernels: kernels.into_iter().map(image::KernelData::Cpu).collect(),
        })
    }

    fn import(&self, image: Image) -> Result<Arc<dyn Module>, DeviceError> {
        self.accepts(&image.platform)?;
        let kernels = image.kernels.into_iter().map(image::KernelData::cpu).collect::<Result<_, _>>()?;
        let library = self.cache.open(&image.library)?;
        let unit = Unit { library, name: None, source: String::new(), kernels };
        Ok(Arc::new(CpuModule::new(vec![unit], self.pool.clone())?))
    }
}

impl ProgramStore for CpuDevice {
    fn key(&self, parts: &[&str]) -> Option<String> {
        // Without a folder there is no need to look for a compiler.
        self.cache.folder().ok()??;
        let identity = self.compiler().ok()?.identity();
        Some(folder::key(&[&[identity.as_str(), self.machine.as_str()], parts].concat()))
    }

    fn platform(&self) -> Platform {
        Platform::Cpu(Machine::of(self.target.vector_bytes))
    }

    fn read(&self, key: &str) -> Option<Vec<u8>> {
        self.cache.program(key)
    }

    fn write(&self, key: &str, bytes: &[u8]) {
        self.cache.keep_program(key, bytes);
    }

    fn module(&self, units: Vec<KeptUnit>) -> Option<Arc<dyn Module>> {
        let unit = |u: KeptUnit| {
            let kernels = u.kernels.into_iter().map(image::KernelData::cpu).collect::<Result<_, _>>().ok()?;
            Some(Unit { library: self.cache.find(&u.name)?, name: Some(u.name), source: String::new(), kernels })
        };
        let units = units.into_iter().map(unit).collect::<Option<Vec<_>>>()?;
        Some(Arc::new(CpuModule::new(units, self.pool.clone()).ok()?))
    }
}
