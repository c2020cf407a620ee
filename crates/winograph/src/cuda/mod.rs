//! NVIDIA GPUs: kernels as CUDA C, compiled by NVRTC, launched through the driver. Both are libraries that are loaded
//! when they are first needed, so that the same program runs where there are none.

mod copies;
mod driver;
mod events;
mod fault;
mod hands;
mod launches;
mod memory;
mod module;
mod nvrtc;
mod recorded;
mod resources;
mod staging;
mod target;

pub use copies::CopyCounts;
pub use module::CudaModule;
pub use nvrtc::{Architecture, Binary, Nvrtc};
pub use resources::{KernelResources, parse_resources};

use crate::cpu::{CACHE_BYTES, Cache};
use crate::device::{Device, DeviceError, Memory, Module, Recording};
use crate::env::Env;
use crate::image::{GpuKernel, Image, KernelData, Platform};
use crate::search::PlanStore;
use copies::Copies;
use driver::Driver;
use launches::Launches;
use memory::CudaBuffer;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use winograph_compiler::Target;
use winograph_compiler::render::cuda::COMPILE_OPTIONS;
use winograph_compiler::render::{CudaSource, render_cuda};
use winograph_ir::linear::Code;

/// Numbers of attributes in cuda.h.
mod attribute {
    pub(super) const MAJOR: i32 = 75;
    pub(super) const MINOR: i32 = 76;
}

/// Options of a CUDA device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CudaOptions {
    /// File of NVRTC, or the folder it is in; `None` looks where it is usually installed.
    pub nvrtc: Option<PathBuf>,
    /// What the compiler is to know about the device; `None` asks the driver and NVRTC.
    pub target: Option<Target>,
    /// Folder of the kernel cache, which a CPU's kernels may share; `None` keeps no kernels.
    pub cache_dir: Option<PathBuf>,
    /// Bytes that the cache has at most; `None` takes [`CACHE_BYTES`].
    pub cache_bytes: Option<u64>,
    /// Folder of plans that searches have found; `None` has none.
    pub plan_dir: Option<PathBuf>,
}

impl CudaOptions {
    /// What the environment asks for.
    pub fn from_env(env: &Env) -> CudaOptions {
        CudaOptions {
            nvrtc: env.nvrtc.clone(),
            target: None,
            cache_dir: env.kernel_cache(),
            cache_bytes: env.cache_bytes,
            plan_dir: env.plans(),
        }
    }
}

/// One of this machine's NVIDIA GPUs.
///
/// NVRTC is looked for when something is to be compiled. Launches of all threads are queued on the device's default stream
/// and run in order. Copies go through pinned memory on streams of their own, and wait only for launches that use their
/// memory, as launches wait only for copies of theirs. Several devices, of one GPU or of several, may be used in one process, from any thread: each use makes its context current.
pub struct CudaDevice {
    name: String,
    description: String,
    capability: u32,
    memory: usize,
    /// What the card has.
    card: Target,
    /// What of it NVRTC compiles for, once that is known.
    target: OnceLock<Target>,
    options: CudaOptions,
    nvrtc: OnceLock<Nvrtc>,
    cache: Cache,
    plans: PlanStore,
    copies: Copies,
    launches: Arc<Launches>,
}

impl CudaDevice {
    /// Number of GPUs; 0 where the driver finds none.
    ///
    /// # Errors
    /// There is no driver, or it is too old or cannot be initialised.
    pub fn count() -> Result<usize, DeviceError> {
        Driver::get()?.device_count()
    }

    /// A GPU by its number, with default options.
    ///
    /// # Errors
    /// There is no driver or no such GPU, or it cannot be used.
    pub fn new(ordinal: usize) -> Result<CudaDevice, DeviceError> {
        CudaDevice::with_options(ordinal, CudaOptions::default())
    }

    /// A GPU by its number.
    ///
    /// # Errors
    /// There is no driver or no such GPU, or it cannot be used.
    pub fn with_options(ordinal: usize, options: CudaOptions) -> Result<CudaDevice, DeviceError> {
        let launches = Launches::of(driver::Device::open(ordinal)?);
        let device = launches.device().clone();
        // Another value of this GPU may have seen it fail.
        device.enter()?;
        let (major, minor) = (device.attribute(attribute::MAJOR)?, device.attribute(attribute::MINOR)?);
        let capability = u32::try_from(10 * major + minor).unwrap_or(0);
        let card = match &options.target {
            Some(t) => t.clone(),
            None => target::of_card(&device, capability)?,
        };
        Ok(CudaDevice {
            name: format!("cuda:{ordinal}"),
            description: device.name()?,
            capability,
            memory: device.memory()?,
            card,
            target: OnceLock::new(),
            cache: Cache::new(
                options.cache_dir.clone(),
                std::env::temp_dir(),
                options.cache_bytes.unwrap_or(CACHE_BYTES),
            ),
            plans: PlanStore::new(options.plan_dir.clone()),
            options,
            nvrtc: OnceLock::new(),
            copies: Copies::new(launches.clone()),
            launches,
        })
    }

    /// What the driver calls the GPU.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Compute capability, as 90 for 9.0.
    pub fn capability(&self) -> u32 {
        self.capability
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// How many copies this value has been asked for; for tests that count what moves.
    pub fn copies(&self) -> CopyCounts {
        self.copies.counts()
    }

    /// The run-time compiler.
    ///
    /// # Errors
    /// It is not found.
    pub fn nvrtc(&self) -> Result<&Nvrtc, DeviceError> {
        if let Some(n) = self.nvrtc.get() {
            return Ok(n);
        }
        let found = Nvrtc::load(self.options.nvrtc.as_deref())?;
        Ok(self.nvrtc.get_or_init(|| found))
    }

    /// Compiles kernels, or takes them from the cache.
    ///
    /// # Errors
    /// No NVRTC, or one that does not know the GPU; kernels that cannot be written or compiled; too little of what they
    /// take.
    pub fn load(&self, codes: &[Code]) -> Result<CudaModule, DeviceError> {
        let (source, _, binary) = self.binary(codes)?;
        let kernels = GpuKernel::of(codes, source.kernels)?;
        CudaModule::new(self.launches.clone(), kernels, source.text, &binary.image, &binary.resources)
    }

    /// The text of kernels and what it is compiled to, for which GPUs.
    fn binary(&self, codes: &[Code]) -> Result<(CudaSource, Architecture, Binary), DeviceError> {
        let source = render_cuda(codes, self.target())?;
        let nvrtc = self.nvrtc()?;
        let architecture = nvrtc.architecture_for(self.capability).ok_or_else(|| DeviceError::NoDevice {
            device: self.name.clone(),
            reason: format!(
                "NVRTC {}.{} compiles for compute capability {} and later, and this GPU has {}",
                nvrtc.version().0,
                nvrtc.version().1,
                nvrtc.architectures().first().copied().unwrap_or(0),
                self.capability
            ),
        })?;
        let what = format!("NVRTC {:?} {architecture:?} {:?}", nvrtc.version(), COMPILE_OPTIONS);
        let (bytes, _) = self.cache.bytes_of(&[&what, &source.text], || {
            nvrtc.compile(&source.text, architecture).map(|binary| binary.to_bytes())
        })?;
        // One that does not read as it was written is of a damaged cache.
        let binary = Binary::from_bytes(&bytes).map_or_else(|| nvrtc.compile(&source.text, architecture), Ok)?;
        Ok((source, architecture, binary))
    }

    /// The times of `repeat` repetitions of what `launch` queues, by the GPU's own clock: from the start of the first
    /// launch to the end of the last. All are queued before the first is waited for.
    ///
    /// # Errors
    /// Those of `launch`, and of kernels that fail.
    pub fn time_launches(
        &self,
        repeat: usize,
        launch: &mut dyn FnMut() -> Result<(), DeviceError>,
    ) -> Result<Vec<Duration>, DeviceError> {
        let mut queued = 0;
        let times = events::time(self.launches.device(), repeat, &mut || {
            launch()?;
            queued = self.launches.queued();
            Ok(())
        })?;
        // What comes behind the last launch is over.
        self.launches.over(queued);
        Ok(times)
    }
}

impl Device for CudaDevice {
    fn name(&self) -> &str {
        &self.name
    }

    /// What the card has and NVRTC compiles for; what the card has as long as there is no NVRTC.
    fn target(&self) -> &Target {
        if self.options.target.is_some() {
            return &self.card;
        }
        let Ok(nvrtc) = self.nvrtc() else { return &self.card };
        self.target.get_or_init(|| {
            let code = nvrtc.architecture_for(self.capability).map(|a| nvrtc.code(a));
            target::supported(&self.card, self.capability, code.as_ref())
        })
    }

    fn compile(&self, codes: &[Code]) -> Result<Arc<dyn Module>, DeviceError> {
        Ok(Arc::new(self.load(codes)?))
    }

    fn allocate(&self, bytes: usize) -> Result<Box<dyn Memory>, DeviceError> {
        Ok(Box::new(CudaBuffer::zeroed(&self.launches, bytes)?))
    }

    fn write(&self, to: &mut dyn Memory, offset: usize, from: &[u8]) -> Result<(), DeviceError> {
        let at = self.part(to, offset, from.len())?;
        if from.is_empty() {
            return Ok(());
        }
        self.copies.write(at, from)
    }

    fn upload(&self, from: &[u8]) -> Result<Box<dyn Memory>, DeviceError> {
        match from.is_empty() {
            true => self.allocate(0),
            false => Ok(Box::new(self.copies.upload(from)?)),
        }
    }

    fn read(&self, from: &dyn Memory, offset: usize, to: &mut [u8]) -> Result<(), DeviceError> {
        let at = self.part(from, offset, to.len())?;
        if to.is_empty() {
            return Ok(());
        }
        self.copies.read(at, to)
    }

    fn read_new(&self, from: &dyn Memory, bytes: usize, to: &mut Vec<u8>) -> Result<(), DeviceError> {
        let at = self.part(from, 0, bytes)?;
        if bytes == 0 {
            return Ok(());
        }
        to.try_reserve_exact(bytes).map_err(|_| DeviceError::OutOfMemory { bytes })?;
        self.copies.read_new(at, &mut to.spare_capacity_mut()[..bytes])?;
        // SAFETY: there is room for so many bytes more, which were copied there.
        unsafe { to.set_len(to.len() + bytes) };
        Ok(())
    }

    fn copy(&self, to: &mut dyn Memory, from: &dyn Memory) -> Result<(), DeviceError> {
        let bytes = from.bytes().min(to.bytes());
        let to = self.part(to, 0, bytes)?;
        let from = buffer(from).ok_or_else(|| self.foreign())?;
        let at = from.part(0, bytes).ok_or(DeviceError::OutOfBounds { offset: 0, bytes, len: from.bytes() })?;
        match bytes {
            0 => Ok(()),
            _ if self.owns(from) => self.copies.within(to, at, bytes),
            _ => self.copies.copy_from_peer(to, from.launches(), at, bytes),
        }
    }

    fn duplicate(&self, from: &dyn Memory, bytes: usize) -> Result<Box<dyn Memory>, DeviceError> {
        if bytes > from.bytes() {
            return Err(DeviceError::OutOfBounds { offset: 0, bytes, len: from.bytes() });
        }
        let mut memory = CudaBuffer::new(&self.launches, bytes)?;
        self.copy(&mut memory, from)?;
        Ok(Box::new(memory))
    }

    fn reaches(&self, memory: &dyn Memory) -> bool {
        buffer(memory).is_some()
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        self.launches.synchronize()
    }

    fn mark(&self) -> Result<(), DeviceError> {
        self.launches.mark()
    }

    fn accepts(&self, platform: &Platform) -> Result<(), DeviceError> {
        let reason = match platform {
            Platform::Cuda(code) => match code.check(self.capability) {
                Ok(()) => return Ok(()),
                Err(reason) => reason,
            },
            Platform::Cpu(_) => format!("it runs on a processor ({platform}), which is the device cpu"),
        };
        Err(DeviceError::OtherMachine { reason })
    }

    fn export(&self, codes: &[Code]) -> Result<Image, DeviceError> {
        let (source, architecture, binary) = self.binary(codes)?;
        let kernels = GpuKernel::of(codes, source.kernels)?;
        Ok(Image {
            platform: Platform::Cuda(self.nvrtc()?.code(architecture)),
            kernels: kernels.into_iter().map(KernelData::Cuda).collect(),
            library: binary.image,
        })
    }

    fn import(&self, image: Image) -> Result<Arc<dyn Module>, DeviceError> {
        self.accepts(&image.platform)?;
        if let Platform::Cuda(code) = &image.platform {
            code.check_bytes(&image.library).map_err(|reason| DeviceError::OtherMachine { reason })?;
        }
        let kernels = image.kernels.into_iter().map(KernelData::cuda).collect::<Result<_, _>>()?;
        Ok(Arc::new(CudaModule::new(self.launches.clone(), kernels, String::new(), &image.library, &[])?))
    }

    fn plans(&self) -> Option<&PlanStore> {
        Some(&self.plans)
    }

    fn record(
        &self,
        launch: &mut dyn FnMut() -> Result<(), DeviceError>,
    ) -> Result<Option<Box<dyn Recording>>, DeviceError> {
        recorded::record(&self.launches, launch).map(Some)
    }

    fn timed(&self, launch: &mut dyn FnMut() -> Result<(), DeviceError>) -> Result<Duration, DeviceError> {
        Ok(self.time_launches(1, launch)?.first().copied().unwrap_or_default())
    }
}

impl CudaDevice {
    /// The address of a part of memory, which must be this GPU's.
    fn part(&self, memory: &dyn Memory, offset: usize, bytes: usize) -> Result<u64, DeviceError> {
        let own = buffer(memory).filter(|b| self.owns(b));
        let own = own.ok_or_else(|| self.foreign())?;
        own.part(offset, bytes).ok_or(DeviceError::OutOfBounds { offset, bytes, len: memory.bytes() })
    }

    fn owns(&self, memory: &CudaBuffer) -> bool {
        memory.device().context() == self.launches.device().context()
    }

    fn foreign(&self) -> DeviceError {
        DeviceError::Foreign { device: self.name.clone() }
    }
}

/// Memory as a GPU's, if it is one's.
fn buffer(memory: &dyn Memory) -> Option<&CudaBuffer> {
    memory.any()?.downcast_ref()
}

impl std::fmt::Debug for CudaDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CudaDevice").field("name", &self.name).field("gpu", &self.description).finish_non_exhaustive()
    }
}
