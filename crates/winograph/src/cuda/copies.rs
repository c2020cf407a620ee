//! Copies between the host and a GPU, and between GPUs: through pinned memory on queues of their own, so that they run
//! while kernels do, and in order with what they depend on by events.

use super::driver::{Address, Device, Stream};
use super::events::Event;
use super::staging::{PIECE, Piece, Staging};
use crate::device::DeviceError;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// `CU_STREAM_NON_BLOCKING`: no order with the default queue but by events.
const APART: u32 = 1;

/// Pieces of one copy to the host that are under way at once.
const AHEAD: usize = 3;

/// Copies that a device has been asked for, since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyCounts {
    /// From the host to the device.
    pub to_device: u64,
    /// From the device to the host.
    pub to_host: u64,
    /// Within the device's memory.
    pub within: u64,
    /// To the device from another GPU.
    pub from_peers: u64,
}

#[derive(Default)]
struct Counters {
    to_device: AtomicU64,
    to_host: AtomicU64,
    within: AtomicU64,
    from_peers: AtomicU64,
}

/// A queue of copies.
struct Queue {
    device: Arc<Device>,
    stream: Stream,
}

// SAFETY: handles of the driver may be used from any thread with the context current, which every use sees to.
unsafe impl Send for Queue {}
// SAFETY: as above; the driver locks what threads share.
unsafe impl Sync for Queue {}

impl Queue {
    fn new(device: &Arc<Device>) -> Result<Queue, DeviceError> {
        let f = device.enter()?;
        let mut stream = std::ptr::null_mut();
        // SAFETY: the context is current; the pointer is to a handle that lives until the call returns.
        device.driver.check("create a queue", unsafe { (f.stream)(&mut stream, APART) })?;
        Ok(Queue { device: device.clone(), stream })
    }

    /// Lets what is queued later wait for an event.
    fn after(&self, event: &Event) -> Result<(), DeviceError> {
        event.before(&self.device, self.stream)
    }

    /// The end of what is queued now.
    fn end(&self) -> Result<Event, DeviceError> {
        let event = Event::new(&self.device)?;
        event.record(self.stream)?;
        Ok(event)
    }

    /// Waits for what is queued, after an error that nobody is to be told of again.
    fn drain(&self) {
        if let Ok(f) = self.device.enter() {
            // SAFETY: the stream was created in this context.
            unsafe { (f.wait_stream)(self.stream) };
        }
    }

    /// Queues a copy of the first bytes of a piece to the device.
    fn to_device(&self, at: Address, piece: &mut Piece, bytes: usize) -> Result<(), DeviceError> {
        let f = self.device.enter()?;
        // SAFETY: the caller knows that the device's memory has that many bytes there; the piece has them and lives
        // until its event, by `Piece::drop`, or until the queue is drained.
        let status = unsafe { (f.write)(at, piece.address().cast(), bytes, self.stream) };
        self.device.driver.check("copy to the device", status)
    }

    /// Queues a copy from the device to the first bytes of a piece.
    fn to_host(&self, piece: &mut Piece, at: Address, bytes: usize) -> Result<(), DeviceError> {
        let f = self.device.enter()?;
        // SAFETY: as above.
        let status = unsafe { (f.read)(piece.address().cast(), at, bytes, self.stream) };
        self.device.driver.check("copy from the device", status)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if let Ok(f) = self.device.enter() {
            // SAFETY: created in `new` and not destroyed before; the driver finishes what is queued.
            unsafe { (f.destroy_stream)(self.stream) };
        }
    }
}

/// The copies of a device.
pub(super) struct Copies {
    device: Arc<Device>,
    /// Before the queues: pieces are freed when their copies are over.
    staging: Staging,
    up: OnceLock<Queue>,
    down: OnceLock<Queue>,
    /// Contexts whose devices this one has been let reach the memory of, as far as the machine can.
    shared: Mutex<Vec<usize>>,
    counters: Counters,
}

impl Copies {
    /// No copies yet; queues and pinned memory come with the first.
    pub(super) fn new(device: Arc<Device>) -> Copies {
        Copies {
            device,
            staging: Staging::default(),
            up: OnceLock::new(),
            down: OnceLock::new(),
            shared: Mutex::default(),
            counters: Counters::default(),
        }
    }

    /// What has been asked for.
    pub(super) fn counts(&self) -> CopyCounts {
        let of = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let c = &self.counters;
        CopyCounts {
            to_device: of(&c.to_device),
            to_host: of(&c.to_host),
            within: of(&c.within),
            from_peers: of(&c.from_peers),
        }
    }

    fn queue<'a>(&self, kept: &'a OnceLock<Queue>) -> Result<&'a Queue, DeviceError> {
        if let Some(queue) = kept.get() {
            return Ok(queue);
        }
        let made = Queue::new(&self.device)?;
        Ok(kept.get_or_init(|| made))
    }

    /// Copies to the device, where there are as many bytes. The bytes may change when it returns; launches that are
    /// queued later find them there. Runs after `after`, or after the launches so far.
    pub(super) fn write(&self, at: Address, from: &[u8], after: Option<&Event>) -> Result<(), DeviceError> {
        self.counters.to_device.fetch_add(1, Ordering::Relaxed);
        let up = self.queue(&self.up)?;
        match after {
            Some(event) => up.after(event)?,
            None => up.after(&Event::of_launches(&self.device)?)?,
        }
        let sent = self.send(up, at, from).and_then(|()| up.end()?.before(&self.device, std::ptr::null_mut()));
        sent.inspect_err(|_| up.drain())
    }

    fn send(&self, up: &Queue, at: Address, from: &[u8]) -> Result<(), DeviceError> {
        for (i, part) in from.chunks(PIECE).enumerate() {
            let mut piece = self.staging.take(&self.device)?;
            if let Some(to) = piece.bytes()?.get_mut(..part.len()) {
                to.copy_from_slice(part);
            }
            let queued = up.to_device(at + (i * PIECE) as u64, &mut piece, part.len());
            queued.and_then(|()| piece.used.record(up.stream)).inspect_err(|_| up.drain())?;
            self.staging.give_back(piece);
        }
        Ok(())
    }

    /// Copies from the device, where there are as many bytes, after the launches so far, and waits for it.
    pub(super) fn read(&self, at: Address, to: &mut [u8]) -> Result<(), DeviceError> {
        self.counters.to_host.fetch_add(1, Ordering::Relaxed);
        let down = self.queue(&self.down)?;
        down.after(&Event::of_launches(&self.device)?)?;
        let mut pending = VecDeque::new();
        let received: Result<(), DeviceError> = to.chunks_mut(PIECE).enumerate().try_for_each(|(i, part)| {
            if pending.len() >= AHEAD {
                self.finish(pending.pop_front())?;
            }
            let mut piece = self.staging.take(&self.device)?;
            // Its last copy may be one of another queue.
            down.after(&piece.used)?;
            let queued = down.to_host(&mut piece, at + (i * PIECE) as u64, part.len());
            queued.and_then(|()| piece.used.record(down.stream)).inspect_err(|_| down.drain())?;
            pending.push_back((piece, part));
            Ok(())
        });
        received?;
        while !pending.is_empty() {
            self.finish(pending.pop_front())?;
        }
        Ok(())
    }

    fn finish(&self, pending: Option<(Piece, &mut [u8])>) -> Result<(), DeviceError> {
        if let Some((mut piece, part)) = pending {
            if let Some(from) = piece.bytes()?.get(..part.len()) {
                part.copy_from_slice(from);
            }
            self.staging.give_back(piece);
        }
        Ok(())
    }

    /// Copies within the device's memory, in the order of launches.
    pub(super) fn within(&self, to: Address, from: Address, bytes: usize) -> Result<(), DeviceError> {
        self.counters.within.fetch_add(1, Ordering::Relaxed);
        let f = self.device.enter()?;
        // SAFETY: the caller knows that both have that many bytes there; the copy is queued before whatever frees them.
        let status = unsafe { (f.copy)(to, from, bytes, std::ptr::null_mut()) };
        self.device.driver.check("copy on the device", status)
    }

    /// Copies from another GPU, where there are as many bytes, after the launches so far of both and before those that are
    /// queued later on both: directly, or, where the driver cannot, through pinned memory.
    pub(super) fn copy_from_peer(
        &self,
        to: Address,
        peer: &Arc<Device>,
        from: Address,
        bytes: usize,
    ) -> Result<(), DeviceError> {
        self.counters.from_peers.fetch_add(1, Ordering::Relaxed);
        self.share(peer);
        let up = self.queue(&self.up)?;
        up.after(&Event::of_launches(&self.device)?)?;
        up.after(&Event::of_launches(peer)?)?;
        let f = self.device.enter()?;
        // SAFETY: the caller knows that both have that many bytes there; launches of both that come later, and what frees
        // the memory in their order, wait for the copy, as ordered below.
        let status = unsafe { (f.copy_peer)(to, self.device.context(), from, peer.context(), bytes, up.stream) };
        let copied = if status == 0 { Ok(()) } else { self.through_host(up, to, peer, from, bytes) };
        let ordered = copied.and_then(|()| {
            let end = up.end()?;
            end.before(&self.device, std::ptr::null_mut())?;
            end.before(peer, std::ptr::null_mut())
        });
        ordered.inspect_err(|_| up.drain())
    }

    /// Copies from another GPU through pinned memory, piece by piece.
    fn through_host(
        &self,
        up: &Queue,
        to: Address,
        peer: &Arc<Device>,
        from: Address,
        bytes: usize,
    ) -> Result<(), DeviceError> {
        let down = Queue::new(peer)?;
        down.after(&Event::of_launches(peer)?)?;
        for start in (0..bytes).step_by(PIECE) {
            let part = PIECE.min(bytes - start);
            let mut piece = self.staging.take(&self.device)?;
            down.after(&piece.used)?;
            let queued = down.to_host(&mut piece, from + start as u64, part).and_then(|()| {
                up.after(&down.end()?)?;
                up.to_device(to + start as u64, &mut piece, part)?;
                piece.used.record(up.stream)
            });
            queued.inspect_err(|_| {
                down.drain();
                up.drain();
            })?;
            self.staging.give_back(piece);
        }
        Ok(())
    }

    /// Lets both devices reach each other's memory, once.
    fn share(&self, peer: &Device) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let context = peer.context().addr();
        if !shared.contains(&context) {
            shared.push(context);
            peer.share_with(&self.device);
            self.device.share_with(peer);
        }
    }
}
