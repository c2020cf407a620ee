//! NVIDIA's run-time compiler: CUDA C to machine code, without a GPU or its driver.
//!
//! The library is loaded when it is asked for. It comes with the CUDA toolkit and in the Python package
//! `nvidia-cuda-nvrtc`.

use super::resources::{KernelResources, parse_resources};
use super::target;
use crate::device::DeviceError;
use crate::image::{CodeForm, GpuCode};
use libloading::Library;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use winograph_compiler::render::cuda::COMPILE_OPTIONS;

type Program = *mut c_void;
type Status = c_int;

/// Names of the library, newest first, as the dynamic loader takes them.
const NAMES: [&str; 6] =
    ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so", "nvrtc64_130_0.dll", "nvrtc64_120_0.dll"];

/// Where toolkits install the library, besides the folders of the dynamic loader.
const FOLDERS: [&str; 3] = ["/usr/local/cuda/lib64", "/opt/cuda/lib64", "/usr/lib/x86_64-linux-gnu"];

/// The library's functions. The pointers are valid as long as the library is loaded.
struct Functions {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status,
    arch_count: unsafe extern "C" fn(*mut c_int) -> Status,
    archs: unsafe extern "C" fn(*mut c_int) -> Status,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Status,
    destroy: unsafe extern "C" fn(*mut Program) -> Status,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    log: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    ptx_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    ptx: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    error: unsafe extern "C" fn(Status) -> *const c_char,
}

/// The loaded compiler. May be used from several threads at once.
pub struct Nvrtc {
    functions: Functions,
    path: PathBuf,
    version: (u32, u32),
    architectures: Vec<u32>,
    /// After the functions that point into it.
    _library: Library,
}

/// What machine to compile for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Machine code of a compute capability, as 90 for 9.0.
    Machine(u32),
    /// PTX of a compute capability, which the driver translates for the same or later devices.
    Virtual(u32),
}

/// A compiled translation unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    /// What the driver loads: machine code, or PTX as text with a zero byte at its end.
    pub image: Vec<u8>,
    /// Warnings of the compiler and its assembler's report.
    pub log: String,
    /// What each kernel takes, by its symbol; empty for PTX.
    pub resources: Vec<(String, KernelResources)>,
}

impl Binary {
    /// As one string of bytes: the length of the log, the log, the image.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = (self.log.len() as u64).to_le_bytes().to_vec();
        out.extend(self.log.as_bytes());
        out.extend(&self.image);
        out
    }

    /// What [`to_bytes`](Binary::to_bytes) wrote; `None` of anything else.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Binary> {
        let (length, rest) = bytes.split_at_checked(8)?;
        let (log, image) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?)?;
        let log = String::from_utf8(log.to_vec()).ok()?;
        Some(Binary { resources: parse_resources(&log), image: image.to_vec(), log })
    }
}

impl Nvrtc {
    /// Loads the library from a file or a folder, or, without one, from where it is usually installed.
    ///
    /// # Errors
    /// There is no such library, or one without a function that is needed: CUDA 11.2 and later have them.
    pub fn load(path: Option<&Path>) -> Result<Nvrtc, DeviceError> {
        let candidates: Vec<PathBuf> = match path {
            Some(p) if p.is_dir() => NAMES.iter().map(|n| p.join(n)).collect(),
            Some(p) => vec![p.to_path_buf()],
            None => {
                let folders = FOLDERS.iter().flat_map(|f| NAMES.iter().map(move |n| Path::new(f).join(n)));
                NAMES.iter().map(PathBuf::from).chain(folders).collect()
            }
        };
        let mut reason = String::new();
        for candidate in &candidates {
            // A path that is not there needs no attempt; its message would hide a better one.
            if candidate.is_absolute() && !candidate.exists() {
                continue;
            }
            // SAFETY: NVRTC's initialisers have no preconditions.
            match unsafe { Library::new(candidate) } {
                Ok(library) => return Nvrtc::from_library(library, candidate.clone()),
                Err(e) => reason = e.to_string(),
            }
        }
        Err(DeviceError::NoLibrary {
            library: "NVRTC, CUDA's run-time compiler",
            reason: if reason.is_empty() { "no such file".into() } else { reason },
            hint: "install the CUDA toolkit or the Python package nvidia-cuda-nvrtc, and name the folder of libnvrtc in \
                   WINOGRAPH_NVRTC if it is not found",
        })
    }

    fn from_library(library: Library, path: PathBuf) -> Result<Nvrtc, DeviceError> {
        /// SAFETY: the caller names the function's type.
        unsafe fn get<T: Copy>(library: &Library, path: &Path, name: &str) -> Result<T, DeviceError> {
            // SAFETY: promised by the caller.
            let found = unsafe { library.get::<T>(name.as_bytes()) };
            found.map(|f| *f).map_err(|e| DeviceError::Load { path: path.to_path_buf(), reason: e.to_string() })
        }
        // SAFETY: the types are those of nvrtc.h, which has not changed them since the functions came.
        let functions = unsafe {
            Functions {
                version: get(&library, &path, "nvrtcVersion")?,
                arch_count: get(&library, &path, "nvrtcGetNumSupportedArchs")?,
                archs: get(&library, &path, "nvrtcGetSupportedArchs")?,
                create: get(&library, &path, "nvrtcCreateProgram")?,
                destroy: get(&library, &path, "nvrtcDestroyProgram")?,
                compile: get(&library, &path, "nvrtcCompileProgram")?,
                log_size: get(&library, &path, "nvrtcGetProgramLogSize")?,
                log: get(&library, &path, "nvrtcGetProgramLog")?,
                cubin_size: get(&library, &path, "nvrtcGetCUBINSize")?,
                cubin: get(&library, &path, "nvrtcGetCUBIN")?,
                ptx_size: get(&library, &path, "nvrtcGetPTXSize")?,
                ptx: get(&library, &path, "nvrtcGetPTX")?,
                error: get(&library, &path, "nvrtcGetErrorString")?,
            }
        };
        let mut nvrtc = Nvrtc { functions, path, version: (0, 0), architectures: Vec::new(), _library: library };
        let (mut major, mut minor, mut count) = (0, 0, 0);
        let f = &nvrtc.functions;
        // SAFETY: both pointers are to integers that live until the call returns.
        nvrtc.check(unsafe { (f.version)(&mut major, &mut minor) }, "")?;
        // SAFETY: likewise.
        nvrtc.check(unsafe { (f.arch_count)(&mut count) }, "")?;
        let mut archs: Vec<c_int> = vec![0; usize::try_from(count).unwrap_or(0)];
        // SAFETY: there is room for as many integers as the library said.
        nvrtc.check(unsafe { (f.archs)(archs.as_mut_ptr()) }, "")?;
        nvrtc.version = (major.unsigned_abs(), minor.unsigned_abs());
        nvrtc.architectures = archs.iter().map(|a| a.unsigned_abs()).collect();
        Ok(nvrtc)
    }

    /// The file that was loaded.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Major and minor version.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// Compute capabilities that it compiles for, as 90 for 9.0, ascending.
    pub fn architectures(&self) -> &[u32] {
        &self.architectures
    }

    /// What to compile for a device of a compute capability: machine code of the device, else of an earlier one with
    /// the same major number, else PTX. `None` where the device is older than all.
    pub fn architecture_for(&self, capability: u32) -> Option<Architecture> {
        target::architecture(capability, &self.architectures)
    }

    /// Where what is compiled for an architecture runs.
    pub(crate) fn code(&self, architecture: Architecture) -> GpuCode {
        target::code(architecture, self.version)
    }

    /// What this compiler calls an architecture: `sm_90a` is machine code for 9.0 alone, `compute_90` is PTX.
    pub fn architecture_name(&self, architecture: Architecture) -> String {
        match architecture {
            Architecture::Machine(a) if self.code(architecture).form == CodeForm::Exact => format!("sm_{a}a"),
            Architecture::Machine(a) => format!("sm_{a}"),
            Architecture::Virtual(a) => format!("compute_{a}"),
        }
    }

    /// Compiles a renderer's text.
    ///
    /// # Errors
    /// An architecture that the compiler does not know; text that it refuses, with its messages.
    pub fn compile(&self, text: &str, architecture: Architecture) -> Result<Binary, DeviceError> {
        let mut options: Vec<String> = COMPILE_OPTIONS.iter().map(|o| o.to_string()).collect();
        options.push("--std=c++17".into());
        options.push(format!("--gpu-architecture={}", self.architecture_name(architecture)));
        if matches!(architecture, Architecture::Machine(_)) {
            options.push("--ptxas-options=--verbose".into());
        }
        self.compile_with(text, &options, matches!(architecture, Architecture::Virtual(_)))
    }

    fn compile_with(&self, text: &str, options: &[String], ptx: bool) -> Result<Binary, DeviceError> {
        let refuse = |output: String| DeviceError::Nvrtc { status: "invalid text".into(), output };
        let text = CString::new(text).map_err(|e| refuse(e.to_string()))?;
        let options: Vec<CString> = options
            .iter()
            .map(|o| CString::new(o.as_str()).map_err(|e| refuse(e.to_string())))
            .collect::<Result<_, _>>()?;
        let pointers: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();
        let count = c_int::try_from(pointers.len()).map_err(|e| refuse(e.to_string()))?;
        let f = &self.functions;
        let mut program = std::ptr::null_mut();
        // SAFETY: the texts end in a zero byte and live until the call returns; no headers are given.
        let status = unsafe {
            (f.create)(&mut program, text.as_ptr(), c"winograph.cu".as_ptr(), 0, std::ptr::null(), std::ptr::null())
        };
        self.check(status, "")?;
        let guard = Guard { nvrtc: self, program };
        // SAFETY: the program was created and not destroyed; as many options as said, each ending in a zero byte.
        let status = unsafe { (f.compile)(guard.program, count, pointers.as_ptr()) };
        // SAFETY: the functions fit together, and the program is there.
        let log = unsafe { self.output(guard.program, f.log_size, f.log) }.unwrap_or_default();
        let log = String::from_utf8_lossy(&log).trim_end_matches('\0').trim_end().to_string();
        self.check(status, &log)?;
        let (size, get) = if ptx { (f.ptx_size, f.ptx) } else { (f.cubin_size, f.cubin) };
        // SAFETY: as above.
        let image = unsafe { self.output(guard.program, size, get) }?;
        let resources = parse_resources(&log);
        Ok(Binary { image, log, resources })
    }

    /// What a pair of functions, one for the size and one for the bytes, gives of a program.
    ///
    /// # Safety
    /// The second function writes as many bytes as the first one says, and the program has not been destroyed.
    unsafe fn output(
        &self,
        program: Program,
        size: unsafe extern "C" fn(Program, *mut usize) -> Status,
        get: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    ) -> Result<Vec<u8>, DeviceError> {
        let mut bytes = 0usize;
        // SAFETY: promised by the caller; the pointer is to an integer that lives until the call returns.
        self.check(unsafe { size(program, &mut bytes) }, "")?;
        let mut out = vec![0u8; bytes];
        // SAFETY: promised by the caller; there is room for as many bytes as the library said.
        self.check(unsafe { get(program, out.as_mut_ptr().cast()) }, "")?;
        Ok(out)
    }

    fn check(&self, status: Status, output: &str) -> Result<(), DeviceError> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: any number may be given.
        let text = unsafe { (self.functions.error)(status) };
        let name = if text.is_null() {
            "unknown error".to_string()
        } else {
            // SAFETY: the library gives static texts that end in a zero byte.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        };
        Err(DeviceError::Nvrtc { status: format!("{name}, code {status}"), output: output.to_string() })
    }
}

impl std::fmt::Debug for Nvrtc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nvrtc").field("path", &self.path).field("version", &self.version).finish_non_exhaustive()
    }
}

/// Destroys a program at the end.
struct Guard<'a> {
    nvrtc: &'a Nvrtc,
    program: Program,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // SAFETY: the program was created by this library and is not used after this. What the call says does not
        // matter any more.
        unsafe { (self.nvrtc.functions.destroy)(&mut self.program) };
    }
}
