//! Launches recorded once and queued again as one: CUDA graphs.

use super::driver::{Address, Device, Graph, GraphExec, Stream};
use super::fault::Names;
use super::launches::Launches;
use crate::device::{DeviceError, Recording};
use std::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex, PoisonError};

/// `CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`: what other threads do meanwhile is not recorded and not refused.
const THREAD_LOCAL: i32 = 1;
/// `CU_STREAM_NON_BLOCKING`: the default queue, which other threads use meanwhile, does not wait for what is recorded.
const APART: u32 = 1;

thread_local! {
    /// The queue that launches of this thread go to; null is the default one.
    static QUEUE: Cell<Stream> = const { Cell::new(std::ptr::null_mut()) };
    /// The memory that recorded launches of this thread use.
    static USES: RefCell<Vec<Address>> = const { RefCell::new(Vec::new()) };
    /// The kernels of recorded launches of this thread.
    static KERNELS: RefCell<Vec<Names>> = const { RefCell::new(Vec::new()) };
}

/// Held while a thread records: waiting for a context is refused then, in any thread, and ends the recording.
static RECORDING: Mutex<()> = Mutex::new(());

/// Runs what must not run while a thread records.
pub(super) fn apart<T>(run: impl FnOnce() -> T) -> T {
    // A thread that records would wait for itself; the driver has an error for it.
    let _held = QUEUE.get().is_null().then(|| RECORDING.lock().unwrap_or_else(PoisonError::into_inner));
    run()
}

/// Queues a launch of these kernels that uses memory at these addresses: on a device's queue of launches, or on what this thread records.
pub(super) fn launch(
    launches: &Launches,
    uses: &[Address],
    names: &Names,
    launch: impl FnOnce(Stream) -> Result<(), DeviceError>,
) -> Result<(), DeviceError> {
    let queue = QUEUE.get();
    if queue.is_null() {
        return launches.queue_kernels(uses, names, || launch(queue));
    }
    KERNELS.with_borrow_mut(|all| all.push(names.clone()));
    USES.with_borrow_mut(|all| all.extend(uses));
    launch(queue)
}

/// A queue of its own, which records.
struct Recorder<'a> {
    device: &'a Device,
    stream: Stream,
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        QUEUE.set(std::ptr::null_mut());
        if let Ok(f) = self.device.enter() {
            // SAFETY: created in `record` and not destroyed before; nothing runs on it.
            unsafe { (f.destroy_stream)(self.stream) };
        }
    }
}

/// A recorded graph of launches.
struct Recorded {
    launches: Arc<Launches>,
    exec: GraphExec,
    /// The memory that it uses.
    uses: Vec<Address>,
    names: Names,
}

// SAFETY: handles of the driver may be used from any thread with the context current, which every use sees to.
unsafe impl Send for Recorded {}
// SAFETY: as above; the driver locks what threads share.
unsafe impl Sync for Recorded {}

/// Records what `launch` queues, without running it.
pub(super) fn record(
    launches: &Arc<Launches>,
    launch: &mut dyn FnMut() -> Result<(), DeviceError>,
) -> Result<Box<dyn Recording>, DeviceError> {
    let device = &**launches.device();
    let f = device.enter()?;
    let mut stream = std::ptr::null_mut();
    // SAFETY: the context is current; the pointer is to a handle that lives until the call returns.
    device.check("create a queue", unsafe { (f.stream)(&mut stream, APART) })?;
    let recorder = Recorder { device, stream };
    let recording = RECORDING.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the stream was just created.
    device.check("record launches", unsafe { (f.begin_capture)(stream, THREAD_LOCAL) })?;
    QUEUE.set(stream);
    USES.take();
    KERNELS.take();
    let launched = launch();
    QUEUE.set(std::ptr::null_mut());
    let mut graph: Graph = std::ptr::null_mut();
    // SAFETY: the stream records; the pointer is to a handle that lives until the call returns.
    let ended = device.check("record launches", unsafe { (f.end_capture)(stream, &mut graph) });
    drop(recording);
    drop(recorder);
    let uses = launches.starts(USES.take());
    let names = KERNELS.take().iter().flat_map(|n| n.iter().cloned()).collect();
    launched?;
    ended?;
    let mut exec: GraphExec = std::ptr::null_mut();
    // SAFETY: the graph was just recorded; the pointer is to a handle that lives until the call returns.
    let made = device.check("make a graph of launches", unsafe { (f.instantiate)(&mut exec, graph, 0) });
    // SAFETY: the graph was recorded above; what was made of it does not need it.
    unsafe { (f.destroy_graph)(graph) };
    made?;
    Ok(Box::new(Recorded { launches: launches.clone(), exec, uses, names }))
}

impl Recording for Recorded {
    unsafe fn replay(&self) -> Result<(), DeviceError> {
        let device = self.launches.device();
        let f = device.enter()?;
        self.launches.queue_kernels(&self.uses, &self.names, || {
            // SAFETY: the caller promises that what the launches touch lives; null is the default queue.
            device.check("launch a graph", unsafe { (f.launch_graph)(self.exec, std::ptr::null_mut()) })
        })
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        // There is nobody to tell of a failure.
        let _ = self.launches.device().synchronize();
        if let Ok(f) = self.launches.device().enter() {
            // SAFETY: made in `record`; no launch of it runs.
            unsafe { (f.destroy_graph_exec)(self.exec) };
        }
    }
}
