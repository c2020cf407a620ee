//! Times by the GPU's own clock.

use super::driver::{self, Device};
use crate::device::DeviceError;
use std::time::Duration;

/// A point in the queue.
struct Event<'a> {
    device: &'a Device,
    handle: driver::Event,
}

impl Event<'_> {
    fn new(device: &Device) -> Result<Event<'_>, DeviceError> {
        let f = device.enter()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the context is current; the pointer is to a handle that lives until the call returns.
        device.driver.check("create an event", unsafe { (f.event)(&mut handle, 0) })?;
        Ok(Event { device, handle })
    }

    fn record(&self) -> Result<(), DeviceError> {
        let f = self.device.enter()?;
        // SAFETY: the event was created in this context; null is the default stream.
        self.device.driver.check("record an event", unsafe { (f.record)(self.handle, std::ptr::null_mut()) })
    }

    fn wait(&self) -> Result<(), DeviceError> {
        let f = self.device.enter()?;
        // SAFETY: the event was created in this context.
        self.device.driver.check("run kernels", unsafe { (f.wait)(self.handle) })
    }

    /// The time since an event before; both are over.
    fn since(&self, start: &Event<'_>) -> Result<Duration, DeviceError> {
        let f = self.device.enter()?;
        let mut milliseconds = 0f32;
        // SAFETY: both events were created in this context; the pointer is to a float that lives long enough.
        let status = unsafe { (f.elapsed)(&mut milliseconds, start.handle, self.handle) };
        self.device.driver.check("read the time between events", status)?;
        // Not a number, or before the start, where the driver is broken.
        Ok(Duration::try_from_secs_f64(milliseconds as f64 / 1e3).unwrap_or_default())
    }
}

impl Drop for Event<'_> {
    fn drop(&mut self) {
        if let Ok(f) = self.device.enter() {
            // SAFETY: created in `new` and not destroyed before.
            unsafe { (f.destroy_event)(self.handle) };
        }
    }
}

/// The times of repetitions; see [`CudaDevice::time_launches`](super::CudaDevice::time_launches).
pub(super) fn time(
    device: &Device,
    repeat: usize,
    launch: &mut dyn FnMut() -> Result<(), DeviceError>,
) -> Result<Vec<Duration>, DeviceError> {
    let mut pairs = Vec::with_capacity(repeat);
    for _ in 0..repeat {
        pairs.push((Event::new(device)?, Event::new(device)?));
    }
    for (start, end) in &pairs {
        start.record()?;
        launch()?;
        end.record()?;
    }
    if let Some((_, last)) = pairs.last() {
        last.wait()?;
    }
    pairs.iter().map(|(start, end)| end.since(start)).collect()
}
