//! NVIDIA's driver: the few functions that a device needs, loaded when they are first asked for.
//!
//! `cudarc` would declare them, too. It is not used because it panics where a driver lacks a function and reads the
//! driver's error codes as a Rust `enum`, which codes of later drivers do not fit in; here both are errors.

use super::fault::{self, Faults, is_fatal};
use crate::device::DeviceError;
use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

pub(super) type Status = c_int;
pub(super) type Context = *mut c_void;
pub(super) type Module = *mut c_void;
pub(super) type Function = *mut c_void;
pub(super) type Event = *mut c_void;
pub(super) type Stream = *mut c_void;
pub(super) type Pool = *mut c_void;
pub(super) type Graph = *mut c_void;
pub(super) type GraphExec = *mut c_void;
/// An address on the device.
pub(super) type Address = u64;

/// `CUmemAccessDesc`: which device may do what with a pool's memory.
#[repr(C)]
pub(super) struct Access {
    kind: c_int,
    device: c_int,
    flags: c_int,
}

/// `CU_MEM_LOCATION_TYPE_DEVICE` and `CU_MEM_ACCESS_FLAGS_PROT_READWRITE`.
const OF_DEVICE: c_int = 1;
const READ_AND_WRITE: c_int = 3;

/// The driver must know at least this version of CUDA: 11.4.
const LEAST_VERSION: c_int = 11040;

const NAMES: [&str; 2] = if cfg!(windows) { ["nvcuda.dll", "nvcuda"] } else { ["libcuda.so.1", "libcuda.so"] };

/// `CUDA_ERROR_OUT_OF_MEMORY`.
const OUT_OF_MEMORY: Status = 2;
/// `CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED` and `CU_MEMPOOL_ATTR_RELEASE_THRESHOLD`.
const MEMORY_POOLS: c_int = 115;
const RELEASE_THRESHOLD: c_int = 4;
/// `CUDA_ERROR_NO_DEVICE`.
const NO_DEVICE: Status = 100;

/// Declares the functions: field, symbol, types of the arguments. All of them return a status.
macro_rules! functions {
    ($($field:ident $symbol:literal ($($arg:ty),*);)*) => {
        /// The driver's functions. The pointers are valid as long as the library is loaded, which is for ever.
        pub(super) struct Functions {
            $(pub(super) $field: unsafe extern "C" fn($($arg),*) -> Status,)*
        }

        impl Functions {
            fn find(library: &Library) -> Result<Functions, String> {
                Ok(Functions {
                    $($field: {
                        // SAFETY: the type is that of cuda.h, which has not changed it since the function came.
                        let found = unsafe { library.get::<unsafe extern "C" fn($($arg),*) -> Status>($symbol) };
                        *found.map_err(|e| e.to_string())?
                    },)*
                })
            }
        }
    };
}

functions! {
    init b"cuInit" (c_uint);
    count b"cuDeviceGetCount" (*mut c_int);
    device b"cuDeviceGet" (*mut c_int, c_int);
    name b"cuDeviceGetName" (*mut c_char, c_int, c_int);
    attribute b"cuDeviceGetAttribute" (*mut c_int, c_int, c_int);
    total_memory b"cuDeviceTotalMem_v2" (*mut usize, c_int);
    retain b"cuDevicePrimaryCtxRetain" (*mut Context, c_int);
    release b"cuDevicePrimaryCtxRelease_v2" (c_int);
    set_current b"cuCtxSetCurrent" (Context);
    synchronize b"cuCtxSynchronize" ();
    allocate b"cuMemAlloc_v2" (*mut Address, usize);
    free b"cuMemFree_v2" (Address);
    fill b"cuMemsetD8_v2" (Address, u8, usize);
    write b"cuMemcpyHtoDAsync_v2" (Address, *const c_void, usize, Stream);
    read b"cuMemcpyDtoHAsync_v2" (*mut c_void, Address, usize, Stream);
    copy b"cuMemcpyDtoDAsync_v2" (Address, Address, usize, Stream);
    copy_peer b"cuMemcpyPeerAsync" (Address, Context, Address, Context, usize, Stream);
    can_access_peer b"cuDeviceCanAccessPeer" (*mut c_int, c_int, c_int);
    share_pool b"cuMemPoolSetAccess" (Pool, *const Access, usize);
    allocate_host b"cuMemHostAlloc" (*mut *mut c_void, usize, c_uint);
    free_host b"cuMemFreeHost" (*mut c_void);
    load b"cuModuleLoadData" (*mut Module, *const c_void);
    unload b"cuModuleUnload" (Module);
    function b"cuModuleGetFunction" (*mut Function, Module, *const c_char);
    function_attribute b"cuFuncGetAttribute" (*mut c_int, c_int, Function);
    set_function_attribute b"cuFuncSetAttribute" (Function, c_int, c_int);
    allocate_ordered b"cuMemAllocAsync" (*mut Address, usize, Stream);
    free_ordered b"cuMemFreeAsync" (Address, Stream);
    fill_ordered b"cuMemsetD8Async" (Address, u8, usize, Stream);
    default_pool b"cuDeviceGetDefaultMemPool" (*mut Pool, c_int);
    set_pool b"cuMemPoolSetAttribute" (Pool, c_int, *mut c_void);
    trim_pool b"cuMemPoolTrimTo" (Pool, usize);
    stream b"cuStreamCreate" (*mut Stream, c_uint);
    destroy_stream b"cuStreamDestroy_v2" (Stream);
    wait_stream b"cuStreamSynchronize" (Stream);
    queue_wait b"cuStreamWaitEvent" (Stream, Event, c_uint);
    begin_capture b"cuStreamBeginCapture_v2" (Stream, c_int);
    end_capture b"cuStreamEndCapture" (Stream, *mut Graph);
    instantiate b"cuGraphInstantiateWithFlags" (*mut GraphExec, Graph, u64);
    launch_graph b"cuGraphLaunch" (GraphExec, Stream);
    destroy_graph b"cuGraphDestroy" (Graph);
    destroy_graph_exec b"cuGraphExecDestroy" (GraphExec);
    launch b"cuLaunchKernel" (
        Function, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, *mut c_void, *mut *mut c_void, *mut *mut c_void
    );
    event b"cuEventCreate" (*mut Event, c_uint);
    record b"cuEventRecord" (Event, *mut c_void);
    wait b"cuEventSynchronize" (Event);
    query b"cuEventQuery" (Event);
    elapsed b"cuEventElapsedTime" (*mut f32, Event, Event);
    destroy_event b"cuEventDestroy_v2" (Event);
    error_name b"cuGetErrorName" (Status, *mut *const c_char);
    error_string b"cuGetErrorString" (Status, *mut *const c_char);
}

/// The loaded driver, initialised.
pub(super) struct Driver {
    pub(super) functions: Functions,
    /// Why it could not be initialised, though it is there.
    start: Status,
    _library: Library,
}

impl Driver {
    /// The driver of this machine, loaded once.
    pub(super) fn get() -> Result<&'static Driver, DeviceError> {
        static DRIVER: OnceLock<Result<Driver, String>> = OnceLock::new();
        match DRIVER.get_or_init(Driver::load) {
            Ok(driver) => Ok(driver),
            Err(reason) => Err(DeviceError::NoLibrary {
                library: "the CUDA driver",
                reason: reason.clone(),
                hint: "it comes with NVIDIA's driver for the graphics card; version 470 (CUDA 11.4) or later is needed",
            }),
        }
    }

    fn load() -> Result<Driver, String> {
        let mut reason = String::new();
        for name in NAMES {
            // SAFETY: the driver's initialisers have no preconditions.
            match unsafe { Library::new(name) } {
                Ok(library) => return Driver::start(library),
                Err(e) if reason.is_empty() => reason = e.to_string(),
                Err(_) => {}
            }
        }
        Err(reason)
    }

    fn start(library: Library) -> Result<Driver, String> {
        let mut known = 0;
        // Before anything else is looked for, which an old driver does not have.
        // SAFETY: the type is that of cuda.h, which has not changed it since the function came.
        let version = unsafe { library.get::<unsafe extern "C" fn(*mut c_int) -> Status>(b"cuDriverGetVersion") };
        let version = version.map_err(|e| e.to_string())?;
        // SAFETY: the pointer is to an integer that lives until the call returns; this needs no initialisation.
        let status = unsafe { version(&mut known) };
        if status == 0 && known < LEAST_VERSION {
            let (major, minor) = (known / 1000, known % 1000 / 10);
            return Err(format!("it is too old: it knows CUDA {major}.{minor}"));
        }
        let functions = Functions::find(&library)?;
        // SAFETY: called before any other function that needs it; the flags must be 0.
        let start = unsafe { (functions.init)(0) };
        Ok(Driver { functions, start, _library: library })
    }

    /// Number of devices; 0 where there is none.
    pub(super) fn device_count(&self) -> Result<usize, DeviceError> {
        if self.start == NO_DEVICE {
            return Ok(0);
        }
        self.check("be initialised", self.start)?;
        let mut count = 0;
        // SAFETY: the pointer is to an integer that lives until the call returns.
        self.check("count devices", unsafe { (self.functions.count)(&mut count) })?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// A status as a result.
    pub(super) fn check(&self, action: &str, status: Status) -> Result<(), DeviceError> {
        match status {
            0 => Ok(()),
            _ => Err(DeviceError::Driver { action: action.to_string(), reason: self.describe(status) }),
        }
    }

    fn describe(&self, status: Status) -> String {
        let text = |f: unsafe extern "C" fn(Status, *mut *const c_char) -> Status| {
            let mut at = std::ptr::null();
            // SAFETY: any number may be given; the pointer is to a pointer that lives until the call returns.
            let found = unsafe { f(status, &mut at) } == 0 && !at.is_null();
            // SAFETY: the driver gives static texts that end in a zero byte.
            found.then(|| unsafe { CStr::from_ptr(at) }.to_string_lossy().into_owned())
        };
        match (text(self.functions.error_name), text(self.functions.error_string)) {
            (Some(name), Some(what)) => format!("{what} ({name})"),
            _ => format!("error {status}"),
        }
    }
}

/// The primary context of a device, kept as long as the value lives.
pub(super) struct Device {
    pub(super) driver: &'static Driver,
    handle: c_int,
    context: Context,
    /// Where memory is taken from in the order of the queue; `None` where the device has no such pools.
    pool: Option<Pool>,
    /// What runs on it, and whether it has failed.
    pub(super) faults: Faults,
}

// SAFETY: contexts may be used from any thread; every use makes the context current in its thread first.
unsafe impl Send for Device {}
// SAFETY: as above; the driver locks what threads share.
unsafe impl Sync for Device {}

impl Device {
    /// A device by its number.
    pub(super) fn open(ordinal: usize) -> Result<Device, DeviceError> {
        let none = |reason: String| DeviceError::NoDevice { device: format!("cuda:{ordinal}"), reason };
        let driver = Driver::get()?;
        let count = driver.device_count()?;
        if ordinal >= count {
            return Err(none(match count {
                0 => "the driver finds no GPU".into(),
                1 => "there is one GPU, number 0".into(),
                n => format!("there are {n} GPUs, numbered from 0"),
            }));
        }
        let number = c_int::try_from(ordinal).map_err(|e| none(e.to_string()))?;
        let f = &driver.functions;
        let (mut handle, mut context) = (0, std::ptr::null_mut());
        // SAFETY: the pointer is to an integer that lives until the call returns.
        driver.check("open a device", unsafe { (f.device)(&mut handle, number) })?;
        // SAFETY: likewise; the handle is a device's.
        match unsafe { (f.retain)(&mut context, handle) } {
            status if is_fatal(status) => return Err(fault::cannot_open(ordinal, driver.describe(status))),
            status => driver.check("open a device's context", status)?,
        }
        let mut device = Device { driver, handle, context, pool: None, faults: Faults::new(ordinal) };
        device.pool = device.find_pool()?;
        Ok(device)
    }

    /// The device's pool of memory, told to keep what is freed for the next allocation.
    fn find_pool(&self) -> Result<Option<Pool>, DeviceError> {
        if self.attribute(MEMORY_POOLS)? == 0 {
            return Ok(None);
        }
        let f = self.enter()?;
        let (mut pool, mut most) = (std::ptr::null_mut(), u64::MAX);
        // SAFETY: the pointer is to a handle that lives until the call returns.
        self.check("find a device's pool of memory", unsafe { (f.default_pool)(&mut pool, self.handle) })?;
        // SAFETY: the pool is the device's; this attribute is a 64-bit number, which lives until the call returns.
        let status = unsafe { (f.set_pool)(pool, RELEASE_THRESHOLD, std::ptr::from_mut(&mut most).cast()) };
        self.check("keep a pool's memory", status)?;
        Ok(Some(pool))
    }

    /// Whether memory comes from a pool in the order of queues.
    pub(super) fn has_pool(&self) -> bool {
        self.pool.is_some()
    }

    /// Memory of `bytes` bytes, more than 0, that is there once the queue has come to it; null is the queue of launches.
    /// With what the pool has and the device has left.
    pub(super) fn allocate_once(&self, bytes: usize, queue: Stream) -> Result<Address, DeviceError> {
        let f = self.enter()?;
        let mut at = 0;
        let status = match self.pool {
            // SAFETY: the context is current, the pointer is to an integer that lives until the call returns, and the queue
            // is one of this context.
            Some(_) => unsafe { (f.allocate_ordered)(&mut at, bytes, queue) },
            // SAFETY: likewise.
            None => unsafe { (f.allocate)(&mut at, bytes) },
        };
        self.check_memory(bytes, status)?;
        Ok(at)
    }

    /// As [`allocate_once`](Device::allocate_once); where that does not suffice, with what the pool keeps for later.
    pub(super) fn allocate(&self, bytes: usize, queue: Stream) -> Result<Address, DeviceError> {
        match (self.allocate_once(bytes, queue), self.pool) {
            (Err(DeviceError::OutOfMemory { .. }), Some(pool)) => {
                // What the pool keeps may be in pieces that do not fit: given back, it may.
                self.synchronize()?;
                // SAFETY: the pool is the device's.
                unsafe { (self.driver.functions.trim_pool)(pool, 0) };
                self.allocate_once(bytes, queue)
            }
            (done, _) => done,
        }
    }

    /// Memory of `bytes` bytes, more than 0, zero once the queue of launches has come to it.
    pub(super) fn zeroed(&self, bytes: usize) -> Result<Address, DeviceError> {
        let queue = std::ptr::null_mut();
        let at = self.allocate(bytes, queue)?;
        let f = self.enter()?;
        let status = match self.pool {
            // SAFETY: as many bytes are there when the queue comes to it.
            Some(_) => unsafe { (f.fill_ordered)(at, 0, bytes, queue) },
            // SAFETY: as many bytes were just allocated there.
            None => unsafe { (f.fill)(at, 0, bytes) },
        };
        self.check("fill memory", status).inspect_err(|_| self.free(at, queue))?;
        Ok(at)
    }

    /// Frees memory once a queue has come to it, null for that of launches; all uses of it come before that.
    pub(super) fn free(&self, at: Address, queue: Stream) {
        // There is nobody to tell of a failure.
        let Ok(f) = self.enter() else { return };
        match self.pool {
            // SAFETY: allocated here and not freed before; the queue comes to it after whatever uses it.
            Some(_) => unsafe { (f.free_ordered)(at, queue) },
            // SAFETY: likewise; the driver waits for kernels that use it.
            None => unsafe { (f.free)(at) },
        };
    }

    /// A status of a call for this device as a result.
    pub(super) fn check(&self, action: &str, status: Status) -> Result<(), DeviceError> {
        match is_fatal(status) {
            true => Err(self.faults.fail(self.driver.describe(status))),
            false => self.driver.check(action, status),
        }
    }

    /// A status of an allocation as a result.
    pub(super) fn check_memory(&self, bytes: usize, status: Status) -> Result<(), DeviceError> {
        match status {
            OUT_OF_MEMORY => Err(DeviceError::OutOfMemory { bytes }),
            _ => self.check("allocate memory", status),
        }
    }

    /// The driver's functions, with the context current in this thread; an error where the device has failed.
    pub(super) fn enter(&self) -> Result<&'static Functions, DeviceError> {
        self.faults.check()?;
        let f = &self.driver.functions;
        // SAFETY: the context is retained as long as `self` lives.
        self.check("make a context current", unsafe { (f.set_current)(self.context) })?;
        Ok(f)
    }

    /// The context, which the devices of a process with the same number share.
    pub(super) fn context(&self) -> Context {
        self.context
    }

    /// Lets another device reach this one's memory directly, where the machine can.
    pub(super) fn share_with(&self, other: &Device) -> Result<(), DeviceError> {
        let f = self.enter()?;
        let mut can = 0;
        // SAFETY: the pointer is to an integer that lives until the call returns; both handles are devices'.
        let status = unsafe { (f.can_access_peer)(&mut can, other.handle, self.handle) };
        self.check("ask whether devices reach each other", status)?;
        let (true, Some(pool)) = (can != 0, self.pool) else { return Ok(()) };
        let access = Access { kind: OF_DEVICE, device: other.handle, flags: READ_AND_WRITE };
        // SAFETY: the pool is this device's; one description is given, which lives until the call returns.
        self.check("share a pool of memory", unsafe { (f.share_pool)(pool, &access, 1) })
    }

    /// An attribute by its number in cuda.h.
    pub(super) fn attribute(&self, number: c_int) -> Result<usize, DeviceError> {
        let mut value = 0;
        // SAFETY: the pointer is to an integer that lives until the call returns.
        let status = unsafe { (self.driver.functions.attribute)(&mut value, number, self.handle) };
        self.driver.check("read an attribute of a device", status)?;
        Ok(usize::try_from(value).unwrap_or(0))
    }

    /// The device's name.
    pub(super) fn name(&self) -> Result<String, DeviceError> {
        let mut text = [0u8; 256];
        // SAFETY: there is room for as many bytes as said, and the last one stays 0.
        let status = unsafe { (self.driver.functions.name)(text.as_mut_ptr().cast(), 255, self.handle) };
        self.driver.check("read a device's name", status)?;
        Ok(CStr::from_bytes_until_nul(&text).map(|t| t.to_string_lossy().into_owned()).unwrap_or_default())
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> Result<usize, DeviceError> {
        let mut bytes = 0;
        // SAFETY: the pointer is to an integer that lives until the call returns.
        let status = unsafe { (self.driver.functions.total_memory)(&mut bytes, self.handle) };
        self.driver.check("read the size of a device's memory", status)?;
        Ok(bytes)
    }

    /// Waits for everything that was queued.
    pub(super) fn synchronize(&self) -> Result<(), DeviceError> {
        let f = self.enter()?;
        // SAFETY: the context is current.
        self.check("run kernels", super::recorded::apart(|| unsafe { (f.synchronize)() }))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: retained in `open`; what belongs to the context holds the device and is gone.
        unsafe { (self.driver.functions.release)(self.handle) };
    }
}
