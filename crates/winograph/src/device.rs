//! What a device does: compile, allocate, copy, launch, synchronise.

use crate::image::KernelData;
pub use crate::image::{Image, Platform};
use crate::search::PlanStore;
use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use winograph_compiler::Target;
use winograph_compiler::render::RenderError;
use winograph_ir::interp::InterpError;
use winograph_ir::linear::Code;

/// A machine that runs kernels.
pub trait Device: Send + Sync {
    /// Name on the command line.
    fn name(&self) -> &str;

    /// What the compiler is to know about it.
    fn target(&self) -> &Target;

    /// Compiles kernels into a module; kernel numbers are places in `codes`.
    fn compile(&self, codes: &[Code]) -> Result<Arc<dyn Module>, DeviceError>;

    /// Memory of `bytes` bytes, all zero.
    fn allocate(&self, bytes: usize) -> Result<Box<dyn Memory>, DeviceError>;

    /// The same for what is written once and read by every call: a device may take time to make reading fast.
    fn allocate_prepared(&self, bytes: usize) -> Result<Box<dyn Memory>, DeviceError> {
        self.allocate(bytes)
    }

    /// Copies bytes to the device. Launches before it that use the memory have been run when it writes, and launches after it
    /// find the bytes there; launches on other memory may run meanwhile.
    fn write(&self, to: &mut dyn Memory, offset: usize, from: &[u8]) -> Result<(), DeviceError>;

    /// Memory of the device with these bytes.
    fn upload(&self, from: &[u8]) -> Result<Box<dyn Memory>, DeviceError> {
        let mut memory = self.allocate(from.len())?;
        self.write(&mut *memory, 0, from)?;
        Ok(memory)
    }

    /// Copies bytes from the device. Launches before it that use the memory have been run when it reads; launches on other
    /// memory may run meanwhile.
    fn read(&self, from: &dyn Memory, offset: usize, to: &mut [u8]) -> Result<(), DeviceError>;

    /// Adds the first `bytes` bytes of memory to the end of `to`, as [`read`](Device::read) copies them. Nothing is written
    /// there before, which for new memory takes longer than the copy.
    fn read_new(&self, from: &dyn Memory, bytes: usize, to: &mut Vec<u8>) -> Result<(), DeviceError> {
        if bytes > from.bytes() {
            return Err(DeviceError::OutOfBounds { offset: 0, bytes, len: from.bytes() });
        }
        to.try_reserve_exact(bytes).map_err(|_| DeviceError::OutOfMemory { bytes })?;
        let before = to.len();
        to.resize(before + bytes, 0);
        self.read(from, 0, &mut to[before..]).inspect_err(|_| to.truncate(before))
    }

    /// Copies as many bytes as both have to the device's memory from its own, or from other memory that it
    /// [reaches](Device::reaches). Launches before it that use the memory, on both devices where there are two, have been run
    /// when it does.
    fn copy(&self, to: &mut dyn Memory, from: &dyn Memory) -> Result<(), DeviceError> {
        let mut bytes = vec![0; from.bytes().min(to.bytes())];
        self.read(from, 0, &mut bytes)?;
        self.write(to, 0, &bytes)
    }

    /// New memory with the first `bytes` bytes of other memory, as [`copy`](Device::copy) copies them.
    fn duplicate(&self, from: &dyn Memory, bytes: usize) -> Result<Box<dyn Memory>, DeviceError> {
        if bytes > from.bytes() {
            return Err(DeviceError::OutOfBounds { offset: 0, bytes, len: from.bytes() });
        }
        let mut memory = self.allocate(bytes)?;
        self.copy(&mut *memory, from)?;
        Ok(memory)
    }

    /// Whether it copies from memory that another device has allocated, without the host's help.
    fn reaches(&self, memory: &dyn Memory) -> bool {
        let _ = memory;
        false
    }

    /// Says that a group of launches ends here: copies that wait for one of it need not wait for launches after it.
    fn mark(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    /// Waits for all launches so far.
    fn synchronize(&self) -> Result<(), DeviceError>;

    /// Whether its memory is the host's, so that launches may be given addresses of the host.
    fn is_host(&self) -> bool {
        false
    }

    /// Whether compiled kernels that need this run here; the error says why not.
    fn accepts(&self, platform: &Platform) -> Result<(), DeviceError> {
        let _ = platform;
        Err(DeviceError::NoExport { device: self.name().to_string() })
    }

    /// Plans that searches on this device have found.
    fn plans(&self) -> Option<&PlanStore> {
        None
    }

    /// Programs that it keeps from one process to the next.
    fn programs(&self) -> Option<&dyn ProgramStore> {
        None
    }

    /// Compiled kernels in a form that another process, on a machine like this one, can [`import`](Device::import).
    fn export(&self, codes: &[Code]) -> Result<Image, DeviceError> {
        let _ = codes;
        Err(DeviceError::NoExport { device: self.name().to_string() })
    }

    /// The kernels of an image. It is machine code: who calls this trusts whoever made it.
    fn import(&self, image: Image) -> Result<Arc<dyn Module>, DeviceError> {
        let _ = image;
        Err(DeviceError::NoExport { device: self.name().to_string() })
    }

    /// Records what `launch` launches, without running it, to be queued again as one; `None` where the device cannot.
    fn record(
        &self,
        launch: &mut dyn FnMut() -> Result<(), DeviceError>,
    ) -> Result<Option<Box<dyn Recording>>, DeviceError> {
        let _ = launch;
        Ok(None)
    }

    /// The time of what `launch` launches, by the device's own clock where it has one.
    fn timed(&self, launch: &mut dyn FnMut() -> Result<(), DeviceError>) -> Result<Duration, DeviceError> {
        self.synchronize()?;
        let start = Instant::now();
        launch()?;
        self.synchronize()?;
        Ok(start.elapsed())
    }
}

/// Programs that a device keeps, beside the kernels that they are made of. Whatever fails costs their reuse alone.
pub trait ProgramStore: Send + Sync {
    /// The key of what depends on these texts and on the compiler of the device's kernels; `None` where nothing is kept.
    fn key(&self, parts: &[&str]) -> Option<String>;

    /// What its kernels run on.
    fn platform(&self) -> Platform;

    /// What was written under a key, if it is whole.
    fn read(&self, key: &str) -> Option<Vec<u8>>;

    /// Keeps bytes under a key.
    fn write(&self, key: &str, bytes: &[u8]);

    /// The module of kernels that are kept; `None` where any is missing.
    fn module(&self, units: Vec<KeptUnit>) -> Option<Arc<dyn Module>>;
}

/// Kernels that were compiled together and are kept under a name.
#[derive(Clone, Debug)]
pub struct KeptUnit {
    pub(crate) name: String,
    pub(crate) kernels: Vec<KernelData>,
}

/// Launches that were recorded by [`Device::record`].
pub trait Recording: Send + Sync {
    /// Queues them again, with the arguments that they were recorded with.
    ///
    /// # Safety
    ///
    /// That of [`Module::launch`] for each of them; their module is alive.
    unsafe fn replay(&self) -> Result<(), DeviceError>;
}

/// Memory of a device; freed when dropped.
///
/// # Safety
///
/// From `address()` on, `bytes()` bytes can be read and written as long as the value lives and nothing else holds them:
/// by this process where `is_host()`, else by the device alone.
pub unsafe trait Memory: Send + Sync {
    /// Size in bytes.
    fn bytes(&self) -> usize;

    /// Its address on the device.
    fn address(&self) -> *mut u8;

    /// Whether this process can read and write it.
    fn is_host(&self) -> bool;

    /// Itself, for the device that has allocated it to know it by its type.
    fn any(&self) -> Option<&dyn Any> {
        None
    }

    /// A part of it as an argument of a launch; `None` where it is out of bounds.
    fn arg(&self, offset: usize, bytes: usize) -> Option<Arg> {
        (offset.checked_add(bytes)? <= self.bytes())
            .then(|| Arg { address: self.address().wrapping_add(offset), bytes })
    }
}

/// An argument of a launch: memory of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arg {
    /// Address on the device.
    pub address: *mut u8,
    /// Size in bytes.
    pub bytes: usize,
}

/// Compiled kernels.
pub trait Module: Send + Sync {
    /// Number of kernels.
    fn len(&self) -> usize;

    /// Whether there are no kernels.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The source text it was compiled from; none where its kernels were compiled by another process.
    fn source(&self) -> &str;

    /// Where its kernels are kept, in their order; `None` where any is not.
    fn kept(&self) -> Option<Vec<KeptUnit>> {
        None
    }

    /// Bytes of scratch memory that it keeps for each thread from one launch to the next.
    fn scratch(&self) -> usize {
        0
    }

    /// Runs a kernel, or queues it on a device that has a queue. Arguments and parameters must be as many as the code
    /// has, arguments large enough and aligned, parameters within their bounds: anything else is an error.
    ///
    /// # Safety
    ///
    /// Each argument is live memory of the device until the launch has run. Nothing else writes to it until then, or
    /// reads it where the kernel writes, and where arguments overlap the kernel was made for it. The code has passed
    /// its verifier.
    unsafe fn launch(&self, kernel: usize, args: &[Arg], params: &[i64]) -> Result<(), DeviceError>;
}

/// A part of memory that must be the host's.
fn host_part(device: &str, memory: &dyn Memory, offset: usize, bytes: usize) -> Result<Arg, DeviceError> {
    if !memory.is_host() {
        return Err(DeviceError::Foreign { device: device.to_string() });
    }
    memory.arg(offset, bytes).ok_or(DeviceError::OutOfBounds { offset, bytes, len: memory.bytes() })
}

/// The bytes of memory that is the host's.
pub(crate) fn host_bytes(memory: &mut dyn Memory) -> Option<&mut [u8]> {
    let (at, bytes) = (memory.address(), memory.bytes());
    // SAFETY: so many bytes can be read and written from there as long as the memory lives, which is borrowed as long
    // as the slice; `&mut` says that nobody else uses it.
    memory.is_host().then(|| unsafe { std::slice::from_raw_parts_mut(at, bytes) })
}

/// [`Device::write`] of a device whose memory is the host's.
pub(crate) fn write_host(device: &str, to: &mut dyn Memory, offset: usize, from: &[u8]) -> Result<(), DeviceError> {
    let arg = host_part(device, to, offset, from.len())?;
    // SAFETY: the memory has that many bytes there, borrowed for writing; `from` cannot overlap it.
    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), arg.address, from.len()) };
    Ok(())
}

/// [`Device::read`] of a device whose memory is the host's.
pub(crate) fn read_host(device: &str, from: &dyn Memory, offset: usize, to: &mut [u8]) -> Result<(), DeviceError> {
    let arg = host_part(device, from, offset, to.len())?;
    // SAFETY: the memory has that many bytes there; `to` is borrowed for writing and cannot overlap it.
    unsafe { std::ptr::copy_nonoverlapping(arg.address, to.as_mut_ptr(), to.len()) };
    Ok(())
}

/// Why a device could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// There is no C compiler.
    #[error("no C compiler found (tried {tried}); install clang or gcc, or name one in WINOGRAPH_CC")]
    NoCompiler {
        /// Names that were looked for.
        tried: String,
    },
    /// The compiler could not be started.
    #[error("cannot run the C compiler; WINOGRAPH_CC names another: {command}")]
    CompilerStart {
        /// The command.
        command: String,
        /// Why.
        source: std::io::Error,
    },
    /// The compiler refused the source.
    #[error("the C compiler failed ({status}); WINOGRAPH_CC names another: {command}\n{output}")]
    CompilerFailed {
        /// The command.
        command: String,
        /// Its exit status.
        status: String,
        /// What it wrote.
        output: String,
    },
    /// A kernel cannot be written as source.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// A compiled library cannot be loaded.
    #[error(
        "cannot load compiled kernels from {path}: {reason}; the folders in WINOGRAPH_CACHE_DIR and TMPDIR must allow that \
         programs are run from them"
    )]
    Load {
        /// The file.
        path: PathBuf,
        /// What the dynamic loader says.
        reason: String,
    },
    /// A library that a device needs is not there.
    #[error("{library} cannot be loaded: {reason}; {hint}")]
    NoLibrary {
        /// The library.
        library: &'static str,
        /// What the dynamic loader says.
        reason: String,
        /// A way out.
        hint: &'static str,
    },
    /// NVRTC refused a text or an option.
    #[error("NVRTC failed ({status}); WINOGRAPH_NVRTC names another\n{output}")]
    Nvrtc {
        /// Its error.
        status: String,
        /// What it wrote.
        output: String,
    },
    /// There is no such device, or it cannot be used.
    #[error("no device {device}: {reason}; `winograph devices` lists those that there are")]
    NoDevice {
        /// What was asked for.
        device: String,
        /// Why there is none.
        reason: String,
    },
    /// A call of the GPU's driver failed.
    #[error("the CUDA driver cannot {action}: {reason}")]
    Driver {
        /// What was tried.
        action: String,
        /// The driver's error.
        reason: String,
    },
    /// A kernel failed: by an illegal address, say. The driver refuses everything on the device from then on, which every use
    /// of it is told in the same words; other devices go on.
    #[error(
        "{device} failed while it ran {kernels}: {reason}; it cannot be used again before this process is started again"
    )]
    Fault {
        /// The device.
        device: String,
        /// The kernel, or those of which it was one.
        kernels: String,
        /// The driver's error.
        reason: String,
    },
    /// Kernels of this device cannot be kept in a file.
    #[error("compiled kernels of the device {device} can be neither exported nor imported; take cpu or cuda:N")]
    NoExport {
        /// The device.
        device: String,
    },
    /// Exported kernels are for another kind of machine.
    #[error("it was exported for another kind of machine: {reason}; export it on a machine like this one")]
    OtherMachine {
        /// In what they differ.
        reason: String,
    },
    /// Memory of one device was given to another.
    #[error("memory of another device was given to {device}: expected memory that it has allocated itself")]
    Foreign {
        /// The device.
        device: String,
    },
    /// Files could not be read or written.
    #[error("cannot {action} {path}; TMPDIR names another folder for temporary files")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is not enough memory.
    #[error("out of memory: cannot allocate {bytes} bytes: take smaller tensors, or work on them in parts")]
    OutOfMemory {
        /// What was asked for.
        bytes: usize,
    },
    /// A copy goes beyond the memory.
    #[error("a copy of {bytes} bytes at {offset} goes beyond a buffer of {len} bytes")]
    OutOfBounds {
        /// Where it starts.
        offset: usize,
        /// How long it is.
        bytes: usize,
        /// How long the buffer is.
        len: usize,
    },
    /// A launch that cannot be.
    #[error("cannot launch kernel {kernel}: {reason}")]
    Launch {
        /// The kernel.
        kernel: String,
        /// Why.
        reason: String,
    },
    /// The virtual GPU found what a real one would get wrong silently: a race, an access out of bounds, a barrier that
    /// some threads miss.
    #[error("the virtual GPU stopped: {0}")]
    Stopped(#[from] InterpError),
    /// A kernel that the virtual GPU would run for too long.
    #[error(
        "kernel {kernel} takes about {work} instructions, and the virtual GPU runs at most {limit} of one launch: take \
         a smaller size, or let `explain` count what it moves, which works at any size"
    )]
    TooMuchWork {
        /// The kernel.
        kernel: String,
        /// Its instructions, of all threads together.
        work: u64,
        /// Most that it may have.
        limit: u64,
    },
    /// Threads could not be started, or as many as asked for cannot be.
    #[error("cannot start {threads} threads: {reason}; WINOGRAPH_THREADS sets their number")]
    Threads {
        /// How many.
        threads: usize,
        /// Why.
        reason: String,
    },
}
