//! Compiled kernels on a GPU.

use super::driver::{Device, Function, Module as Handle};
use super::fault::Names;
use super::launches::Launches;
use super::recorded;
use super::resources::KernelResources;
use crate::device::{Arg, DeviceError, Module};
use crate::image::GpuKernel;
use crate::launch::refuse;
use std::ffi::{CString, c_int, c_uint, c_void};
use std::sync::Arc;

/// `CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES`, `..._LOCAL_SIZE_BYTES`, `..._NUM_REGS` and
/// `..._MAX_DYNAMIC_SHARED_SIZE_BYTES`.
const SHARED: c_int = 1;
const LOCAL: c_int = 3;
const REGISTERS: c_int = 4;
const DYNAMIC_SHARED: c_int = 8;

/// Bytes of dynamic shared memory that a launch may ask for without having announced it.
const UNANNOUNCED: u32 = 48 << 10;

/// Blocks of a launch, at most.
const MAX_BLOCKS: i64 = i32::MAX as i64;

struct Kernel {
    data: GpuKernel,
    function: Function,
    names: Names,
    resources: KernelResources,
}

/// Compiled kernels on a GPU.
pub struct CudaModule {
    kernels: Vec<Kernel>,
    source: String,
    handle: Handle,
    launches: Arc<Launches>,
}

// SAFETY: handles of the driver may be used from any thread with the context current, which every use sees to.
unsafe impl Send for CudaModule {}
// SAFETY: as above; nothing is changed through `&self`.
unsafe impl Sync for CudaModule {}

impl CudaModule {
    /// Loads machine code, or PTX with a zero byte at its end, that has these kernels and was compiled from `source`.
    /// `reported` is what the compiler says that they take.
    pub(super) fn new(
        launches: Arc<Launches>,
        kernels: Vec<GpuKernel>,
        source: String,
        image: &[u8],
        reported: &[(String, KernelResources)],
    ) -> Result<CudaModule, DeviceError> {
        let device = launches.device();
        let f = device.enter()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the context is current; the image is one that NVRTC made here, or that an exported file holds, whose maker
        // the caller trusts. PTX has a zero byte at its end; machine code says how long it is.
        let status = unsafe { (f.load)(&mut handle, image.as_ptr().cast()) };
        device.check("load compiled kernels", status)?;
        let mut module = CudaModule { kernels: Vec::with_capacity(kernels.len()), source, handle, launches };
        for data in kernels {
            let kernel = module.kernel(data, reported)?;
            module.kernels.push(kernel);
        }
        Ok(module)
    }

    fn device(&self) -> &Device {
        self.launches.device()
    }

    fn kernel(&self, data: GpuKernel, reported: &[(String, KernelResources)]) -> Result<Kernel, DeviceError> {
        let device = self.device();
        let f = device.enter()?;
        let name = data.signature.name();
        let symbol = CString::new(data.symbol.as_str()).map_err(|e| refuse(name, e.to_string()))?;
        let mut function = std::ptr::null_mut();
        // SAFETY: the module is loaded, and the name ends in a zero byte.
        let status = unsafe { (f.function)(&mut function, self.handle, symbol.as_ptr()) };
        device.check(&format!("find the kernel {}", data.symbol), status)?;
        let attribute = |number: c_int| -> Result<u32, DeviceError> {
            let mut value = 0;
            // SAFETY: the function belongs to a loaded module; the pointer is to an integer that lives long enough.
            let status = unsafe { (f.function_attribute)(&mut value, number, function) };
            device.check("read what a kernel takes", status)?;
            Ok(u32::try_from(value).unwrap_or(0))
        };
        let reported = reported.iter().find(|r| r.0 == data.symbol);
        let resources = KernelResources {
            registers: attribute(REGISTERS)?,
            spill_bytes: reported.map_or(0, |r| r.1.spill_bytes),
            stack_bytes: attribute(LOCAL)?,
            shared_bytes: attribute(SHARED)?,
        };
        if data.shared_bytes > UNANNOUNCED {
            let bytes = c_int::try_from(data.shared_bytes).unwrap_or(c_int::MAX);
            // SAFETY: the function belongs to a loaded module.
            let status = unsafe { (f.set_function_attribute)(function, DYNAMIC_SHARED, bytes) };
            device.check(&format!("give {name} {bytes} bytes of shared memory"), status)?;
        }
        let names = [name.to_string()].into();
        Ok(Kernel { data, function, names, resources })
    }

    /// What a kernel takes of the GPU.
    pub fn resources(&self, kernel: usize) -> Option<KernelResources> {
        self.kernels.get(kernel).map(|k| k.resources)
    }

    /// Threads of a block of a kernel, and bytes of dynamic shared memory that it has.
    pub fn launch_shape(&self, kernel: usize) -> Option<(u32, u32)> {
        self.kernels.get(kernel).map(|k| (k.data.threads, k.data.shared_bytes))
    }
}

impl Drop for CudaModule {
    fn drop(&mut self) {
        // Kernels that are still queued need their code. There is nobody to tell of a failure.
        let _ = self.device().synchronize();
        if let Ok(f) = self.device().enter() {
            // SAFETY: loaded in `new`; no kernel runs, and nothing refers to its functions any more.
            unsafe { (f.unload)(self.handle) };
        }
    }
}

impl Module for CudaModule {
    fn len(&self) -> usize {
        self.kernels.len()
    }

    fn source(&self) -> &str {
        &self.source
    }

    unsafe fn launch(&self, kernel: usize, args: &[Arg], params: &[i64]) -> Result<(), DeviceError> {
        let Some(k) = self.kernels.get(kernel) else {
            return Err(refuse(&kernel.to_string(), format!("the module has {} kernels", self.kernels.len())));
        };
        let blocks = k.data.signature.check(args, params)?;
        if blocks <= 0 {
            return Ok(());
        }
        if blocks > MAX_BLOCKS {
            return Err(refuse(
                k.data.signature.name(),
                format!("{blocks} blocks where a launch has at most {MAX_BLOCKS}"),
            ));
        }
        let mut addresses: Vec<u64> = args.iter().map(|a| a.address.addr() as u64).collect();
        let uses = addresses.clone();
        let mut params = params.to_vec();
        let mut pointers: Vec<*mut c_void> = addresses.iter_mut().map(|a| std::ptr::from_mut(a).cast()).collect();
        pointers.extend(params.iter_mut().map(|p| std::ptr::from_mut(p).cast::<c_void>()));
        let device = self.device();
        let f = device.enter()?;
        recorded::launch(&self.launches, &uses, &k.names, |queue| {
            // SAFETY: the function takes as many addresses, then as many 64-bit integers, as there are pointers, and the
            // driver copies them before it returns. Arguments are large enough for all that the kernel's verified accesses
            // may reach, by `Signature::check`; the caller promises that they are live memory of the device and that
            // nothing interferes. The number of blocks fits in 31 bits.
            let status = unsafe {
                (f.launch)(
                    k.function,
                    blocks as c_uint,
                    1,
                    1,
                    k.data.threads,
                    1,
                    1,
                    k.data.shared_bytes,
                    queue,
                    pointers.as_mut_ptr(),
                    std::ptr::null_mut(),
                )
            };
            match status {
                0 => Ok(()),
                _ => device.check(&format!("launch {}", k.data.signature.name()), status),
            }
        })
    }
}
