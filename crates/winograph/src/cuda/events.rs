//! Points in queues: for the order between queues, and for times by the GPU's own clock.

use super::driver::{self, Device, Stream};
use super::fault::is_fatal;
use crate::device::DeviceError;
use std::sync::Arc;
use std::time::Duration;

/// `CU_EVENT_DISABLE_TIMING`.
const UNTIMED: u32 = 2;

/// A point in a queue.
pub(super) struct Event {
    device: Arc<Device>,
    handle: driver::Event,
}

// SAFETY: handles of the driver may be used from any thread with the context current, which every use sees to.
unsafe impl Send for Event {}
// SAFETY: as above; the driver locks what threads share.
unsafe impl Sync for Event {}

impl Event {
    /// One that is there to order queues, not recorded yet; waiting for it waits for nothing.
    pub(super) fn new(device: &Arc<Device>) -> Result<Event, DeviceError> {
        Event::with_flags(device, UNTIMED)
    }

    fn with_flags(device: &Arc<Device>, flags: u32) -> Result<Event, DeviceError> {
        let f = device.enter()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the context is current; the pointer is to a handle that lives until the call returns.
        device.check("create an event", unsafe { (f.event)(&mut handle, flags) })?;
        Ok(Event { device: device.clone(), handle })
    }

    /// The end of what a device's queue of launches holds now.
    pub(super) fn of_launches(device: &Arc<Device>) -> Result<Event, DeviceError> {
        let event = Event::new(device)?;
        event.record(std::ptr::null_mut())?;
        Ok(event)
    }

    /// Puts it at the end of a queue of its device; null is the queue of launches.
    pub(super) fn record(&self, queue: Stream) -> Result<(), DeviceError> {
        let f = self.device.enter()?;
        // SAFETY: event and queue were created in this context.
        self.device.check("record an event", unsafe { (f.record)(self.handle, queue) })
    }

    /// Lets what is queued later on a device's queue, null for that of launches, wait for it. The event may be another
    /// device's.
    pub(super) fn before(&self, device: &Device, queue: Stream) -> Result<(), DeviceError> {
        let f = device.enter()?;
        // The status may tell of a failure of the event's device, which is then its own.
        self.device.enter()?;
        device.enter()?;
        // SAFETY: the queue is of the current context; events may be of any.
        let status = unsafe { (f.queue_wait)(queue, self.handle, 0) };
        if is_fatal(status) && self.device.context() != device.context() {
            self.is_over();
            self.device.enter()?;
        }
        device.check("order queues", status)
    }

    /// Waits for it in this thread.
    pub(super) fn wait(&self) -> Result<(), DeviceError> {
        let f = self.device.enter()?;
        // SAFETY: the event was created in this context.
        self.device.check("run kernels", unsafe { (f.wait)(self.handle) })
    }

    /// Whether it is over.
    pub(super) fn is_over(&self) -> bool {
        let Ok(f) = self.device.enter() else { return false };
        // SAFETY: the event was created in this context.
        match unsafe { (f.query)(self.handle) } {
            0 => true,
            // Whoever uses the device next is told.
            status if is_fatal(status) => self.device.check("run kernels", status).is_ok(),
            _ => false,
        }
    }

    /// The time since an event before; both are over.
    fn since(&self, start: &Event) -> Result<Duration, DeviceError> {
        let f = self.device.enter()?;
        let mut milliseconds = 0f32;
        // SAFETY: both events were created in this context; the pointer is to a float that lives long enough.
        let status = unsafe { (f.elapsed)(&mut milliseconds, start.handle, self.handle) };
        self.device.check("read the time between events", status)?;
        // Not a number, or before the start, where the driver is broken.
        Ok(Duration::try_from_secs_f64(milliseconds as f64 / 1e3).unwrap_or_default())
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if let Ok(f) = self.device.enter() {
            // SAFETY: created in `with_flags` and not destroyed before.
            unsafe { (f.destroy_event)(self.handle) };
        }
    }
}

/// The times of repetitions; see [`CudaDevice::time_launches`](super::CudaDevice::time_launches).
pub(super) fn time(
    device: &Arc<Device>,
    repeat: usize,
    launch: &mut dyn FnMut() -> Result<(), DeviceError>,
) -> Result<Vec<Duration>, DeviceError> {
    let mut pairs = Vec::with_capacity(repeat);
    for _ in 0..repeat {
        pairs.push((Event::with_flags(device, 0)?, Event::with_flags(device, 0)?));
    }
    for (start, end) in &pairs {
        start.record(std::ptr::null_mut())?;
        launch()?;
        end.record(std::ptr::null_mut())?;
    }
    if let Some((_, last)) = pairs.last() {
        last.wait()?;
    }
    pairs.iter().map(|(start, end)| end.since(start)).collect()
}
