//! Launches recorded once and queued again as one: CUDA graphs.

use super::driver::{Device, Graph, GraphExec, Stream};
use crate::device::{DeviceError, Recording};
use std::cell::Cell;
use std::sync::Arc;

/// `CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`: what other threads do meanwhile is not recorded and not refused.
const THREAD_LOCAL: i32 = 1;
/// `CU_STREAM_NON_BLOCKING`: the default queue, which other threads use meanwhile, does not wait for what is recorded.
const APART: u32 = 1;

thread_local! {
    /// The queue that launches of this thread go to; null is the default one.
    static QUEUE: Cell<Stream> = const { Cell::new(std::ptr::null_mut()) };
}

/// The queue for launches of this thread.
pub(super) fn queue() -> Stream {
    QUEUE.get()
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
    device: Arc<Device>,
    exec: GraphExec,
}

// SAFETY: handles of the driver may be used from any thread with the context current, which every use sees to.
unsafe impl Send for Recorded {}
// SAFETY: as above; the driver locks what threads share.
unsafe impl Sync for Recorded {}

/// Records what `launch` queues, without running it.
pub(super) fn record(
    device: &Arc<Device>,
    launch: &mut dyn FnMut() -> Result<(), DeviceError>,
) -> Result<Box<dyn Recording>, DeviceError> {
    let (f, driver) = (device.enter()?, device.driver);
    let mut stream = std::ptr::null_mut();
    // SAFETY: the context is current; the pointer is to a handle that lives until the call returns.
    driver.check("create a queue", unsafe { (f.stream)(&mut stream, APART) })?;
    let recorder = Recorder { device, stream };
    // SAFETY: the stream was just created.
    driver.check("record launches", unsafe { (f.begin_capture)(stream, THREAD_LOCAL) })?;
    QUEUE.set(stream);
    let launched = launch();
    QUEUE.set(std::ptr::null_mut());
    let mut graph: Graph = std::ptr::null_mut();
    // SAFETY: the stream records; the pointer is to a handle that lives until the call returns.
    let ended = driver.check("record launches", unsafe { (f.end_capture)(stream, &mut graph) });
    drop(recorder);
    launched?;
    ended?;
    let mut exec: GraphExec = std::ptr::null_mut();
    // SAFETY: the graph was just recorded; the pointer is to a handle that lives until the call returns.
    let made = driver.check("make a graph of launches", unsafe { (f.instantiate)(&mut exec, graph, 0) });
    // SAFETY: the graph was recorded above; what was made of it does not need it.
    unsafe { (f.destroy_graph)(graph) };
    made?;
    Ok(Box::new(Recorded { device: device.clone(), exec }))
}

impl Recording for Recorded {
    unsafe fn replay(&self) -> Result<(), DeviceError> {
        let f = self.device.enter()?;
        // SAFETY: the caller promises that what the launches touch lives; null is the default queue.
        self.device.driver.check("launch a graph", unsafe { (f.launch_graph)(self.exec, std::ptr::null_mut()) })
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        // There is nobody to tell of a failure.
        let _ = self.device.synchronize();
        if let Ok(f) = self.device.enter() {
            // SAFETY: made in `record`; no launch of it runs.
            unsafe { (f.destroy_graph_exec)(self.exec) };
        }
    }
}
