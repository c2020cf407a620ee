//! Copies between the host and a GPU, and between GPUs: through pinned memory on queues of their own, so that they run
//! while kernels do. Each waits for what uses its memory, and what uses its memory next waits for it, by events; see
//! [`launches`](super::launches).

use super::driver::{Address, Device, Stream};
use super::events::Event;
use super::hands::{Hands, fill, overwrite};
use super::launches::{Before, Launches};
use super::memory::CudaBuffer;
use super::staging::{PIECE, Piece, Staging};
use crate::device::DeviceError;
use std::collections::VecDeque;
use std::mem::MaybeUninit;
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
        device.check("create a queue", unsafe { (f.stream)(&mut stream, APART) })?;
        Ok(Queue { device: device.clone(), stream })
    }

    /// Lets what is queued later wait for an event.
    fn after(&self, event: &Event) -> Result<(), DeviceError> {
        event.before(&self.device, self.stream)
    }

    /// Lets what is queued later wait for what uses memory.
    fn after_all(&self, before: &Before) -> Result<(), DeviceError> {
        before.launch.iter().chain(&before.copies).try_for_each(|event| self.after(event))
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
        self.device.check("copy to the device", status)
    }

    /// Queues a copy from the device to the first bytes of a piece.
    fn to_host(&self, piece: &mut Piece, at: Address, bytes: usize) -> Result<(), DeviceError> {
        let f = self.device.enter()?;
        // SAFETY: as above.
        let status = unsafe { (f.read)(piece.address().cast(), at, bytes, self.stream) };
        self.device.check("copy from the device", status)
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
    launches: Arc<Launches>,
    /// Before the queues: pieces are freed when their copies are over.
    staging: Staging,
    hands: Hands,
    /// Copies to the device, which wait for no launches where that can be helped: see [`write`](Copies::write).
    up: OnceLock<Queue>,
    /// Copies from other GPUs, which wait for launches of both.
    across: OnceLock<Queue>,
    /// Queues for copies to the host that no thread uses: one for each of those that are under way, so that none waits for
    /// the launches that another waits for.
    down: Mutex<Vec<Queue>>,
    /// Contexts whose devices this one has been let reach the memory of, as far as the machine can.
    shared: Mutex<Vec<usize>>,
    counters: Counters,
}

impl Copies {
    /// No copies yet; queues and pinned memory come with the first.
    pub(super) fn new(launches: Arc<Launches>) -> Copies {
        Copies {
            launches,
            staging: Staging::default(),
            hands: Hands::default(),
            up: OnceLock::new(),
            across: OnceLock::new(),
            down: Mutex::default(),
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

    fn device(&self) -> &Arc<Device> {
        self.launches.device()
    }

    fn queue<'a>(&self, kept: &'a OnceLock<Queue>) -> Result<&'a Queue, DeviceError> {
        if let Some(queue) = kept.get() {
            return Ok(queue);
        }
        let made = Queue::new(self.device())?;
        Ok(kept.get_or_init(|| made))
    }

    /// Copies to the device, where there are as many bytes. The bytes may change when it returns; launches that are
    /// queued later find them there. Where launches that are queued use the memory, the bytes go to other memory while these
    /// run, and from there to their place in the order of launches.
    pub(super) fn write(&self, at: Address, from: &[u8]) -> Result<(), DeviceError> {
        self.counters.to_device.fetch_add(1, Ordering::Relaxed);
        let up = self.queue(&self.up)?;
        let before = self.launches.before_write(at)?;
        if before.launch.is_some() && self.write_aside(up, at, from)? {
            return Ok(());
        }
        let sent = up.after_all(&before).and_then(|()| self.send(up, at, from)).and_then(|()| up.end());
        self.launches.copied(at, Arc::new(sent.inspect_err(|_| up.drain())?));
        Ok(())
    }

    /// Copies to other memory, and from there in the order of launches; says whether there is such memory.
    fn write_aside(&self, up: &Queue, at: Address, from: &[u8]) -> Result<bool, DeviceError> {
        let device = self.device();
        if !device.has_pool() {
            return Ok(false);
        }
        let aside = match device.allocate_once(from.len(), up.stream) {
            Err(DeviceError::OutOfMemory { .. }) => return Ok(false),
            allocated => allocated?,
        };
        let sent = self.send(up, aside, from).and_then(|()| up.end());
        let end = sent.inspect_err(|_| {
            up.drain();
            device.free(aside, up.stream);
        })?;
        let copied = self.launches.queue(&[at], &[], || {
            end.before(device, std::ptr::null_mut())?;
            let f = device.enter()?;
            // SAFETY: the caller knows that as many bytes are at `at`; as many were just allocated aside, and the queue
            // comes to this after they were filled.
            let status = unsafe { (f.copy)(at, aside, from.len(), std::ptr::null_mut()) };
            device.check("copy on the device", status)
        });
        if copied.is_err() {
            up.drain();
        }
        device.free(aside, std::ptr::null_mut());
        copied.map(|()| true)
    }

    /// Memory with these bytes, more than 0; nothing that is queued is waited for. The bytes may change when it returns.
    pub(super) fn upload(&self, from: &[u8]) -> Result<CudaBuffer, DeviceError> {
        self.counters.to_device.fetch_add(1, Ordering::Relaxed);
        let up = self.queue(&self.up)?;
        let at = self.device().allocate(from.len(), up.stream)?;
        let sent = self.send(up, at, from).and_then(|()| up.end());
        let end = sent.inspect_err(|_| {
            up.drain();
            self.device().free(at, up.stream);
        })?;
        self.launches.adopt(at, from.len(), end);
        Ok(CudaBuffer::adopted(&self.launches, at, from.len()))
    }

    fn send(&self, up: &Queue, at: Address, from: &[u8]) -> Result<(), DeviceError> {
        for (i, part) in from.chunks(PIECE).enumerate() {
            let mut piece = self.staging.take(self.device())?;
            if let Some(to) = piece.bytes()?.get_mut(..part.len()) {
                self.hands.copy(to, part, overwrite);
            }
            let queued = up.to_device(at + (i * PIECE) as u64, &mut piece, part.len());
            queued.and_then(|()| piece.used.record(up.stream)).inspect_err(|_| up.drain())?;
            self.staging.give_back(piece);
        }
        Ok(())
    }

    /// Copies from the device, where there are as many bytes, after what writes the memory so far, and waits for it.
    pub(super) fn read(&self, at: Address, to: &mut [u8]) -> Result<(), DeviceError> {
        self.read_by(at, to, overwrite)
    }

    /// As [`read`](Copies::read), to memory that nobody has written yet.
    pub(super) fn read_new(&self, at: Address, to: &mut [MaybeUninit<u8>]) -> Result<(), DeviceError> {
        self.read_by(at, to, fill)
    }

    fn read_by<T: Send>(&self, at: Address, to: &mut [T], copy: fn(&mut [T], &[u8])) -> Result<(), DeviceError> {
        self.counters.to_host.fetch_add(1, Ordering::Relaxed);
        let before = self.launches.before_read(at)?;
        let kept = self.down.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let down = kept.map_or_else(|| Queue::new(self.device()), Ok)?;
        down.after_all(&before)?;
        self.receive(&down, at, to, copy)?;
        self.down.lock().unwrap_or_else(PoisonError::into_inner).push(down);
        Ok(())
    }

    /// `to` has one element a byte.
    fn receive<T: Send>(
        &self,
        down: &Queue,
        at: Address,
        to: &mut [T],
        copy: fn(&mut [T], &[u8]),
    ) -> Result<(), DeviceError> {
        let mut pending = VecDeque::new();
        let received: Result<(), DeviceError> = to.chunks_mut(PIECE).enumerate().try_for_each(|(i, part)| {
            if pending.len() >= AHEAD {
                self.finish(pending.pop_front(), copy)?;
            }
            let mut piece = self.staging.take(self.device())?;
            // Its last copy may be one of another queue.
            down.after(&piece.used)?;
            let queued = down.to_host(&mut piece, at + (i * PIECE) as u64, part.len());
            queued.and_then(|()| piece.used.record(down.stream)).inspect_err(|_| down.drain())?;
            pending.push_back((piece, part));
            Ok(())
        });
        received?;
        while !pending.is_empty() {
            self.finish(pending.pop_front(), copy)?;
        }
        Ok(())
    }

    fn finish<T: Send>(
        &self,
        pending: Option<(Piece, &mut [T])>,
        copy: fn(&mut [T], &[u8]),
    ) -> Result<(), DeviceError> {
        if let Some((mut piece, part)) = pending {
            if let Some(from) = piece.bytes()?.get(..part.len()) {
                self.hands.copy(part, from, copy);
            }
            self.staging.give_back(piece);
        }
        Ok(())
    }

    /// Copies within the device's memory, in the order of launches.
    pub(super) fn within(&self, to: Address, from: Address, bytes: usize) -> Result<(), DeviceError> {
        self.counters.within.fetch_add(1, Ordering::Relaxed);
        let device = self.device();
        let f = device.enter()?;
        self.launches.queue(&[to], &[from], || {
            // SAFETY: the caller knows that both have that many bytes there; the copy is queued before whatever frees them.
            let status = unsafe { (f.copy)(to, from, bytes, std::ptr::null_mut()) };
            device.check("copy on the device", status)
        })
    }

    /// Copies from another GPU, where there are as many bytes, after what uses its memory and what writes that of the
    /// other so far, and before what is queued later and uses either: directly, or, where the driver cannot, through pinned memory.
    pub(super) fn copy_from_peer(
        &self,
        to: Address,
        peer: &Arc<Launches>,
        from: Address,
        bytes: usize,
    ) -> Result<(), DeviceError> {
        self.counters.from_peers.fetch_add(1, Ordering::Relaxed);
        self.share(peer.device());
        let across = self.queue(&self.across)?;
        across.after_all(&self.launches.before_write(to)?)?;
        let read = peer.before_read(from)?;
        across.after_all(&read)?;
        let f = self.device().enter()?;
        let (own, others) = (self.device().context(), peer.device().context());
        // SAFETY: the caller knows that both have that many bytes there; what uses or frees the memory later waits for the
        // copy, as noted below.
        let status = unsafe { (f.copy_peer)(to, own, from, others, bytes, across.stream) };
        let copied = if status == 0 { Ok(()) } else { self.through_host(across, to, peer, (from, read), bytes) };
        let end = copied.and_then(|()| across.end()).inspect_err(|_| across.drain())?;
        let end = Arc::new(end);
        peer.copied_from(from, end.clone());
        self.launches.copied(to, end);
        Ok(())
    }

    /// Copies from another GPU through pinned memory, piece by piece.
    fn through_host(
        &self,
        across: &Queue,
        to: Address,
        peer: &Arc<Launches>,
        (from, before): (Address, Before),
        bytes: usize,
    ) -> Result<(), DeviceError> {
        let down = Queue::new(peer.device())?;
        down.after_all(&before)?;
        for start in (0..bytes).step_by(PIECE) {
            let part = PIECE.min(bytes - start);
            let mut piece = self.staging.take(self.device())?;
            down.after(&piece.used)?;
            let queued = down.to_host(&mut piece, from + start as u64, part).and_then(|()| {
                across.after(&down.end()?)?;
                across.to_device(to + start as u64, &mut piece, part)?;
                piece.used.record(across.stream)
            });
            queued.inspect_err(|_| {
                down.drain();
                across.drain();
            })?;
            self.staging.give_back(piece);
        }
        Ok(())
    }

    /// Lets both devices reach each other's memory as far as the machine can, once. Where the driver fails at it, this copy
    /// goes another way and the next one tries again.
    fn share(&self, peer: &Device) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let context = peer.context().addr();
        if !shared.contains(&context)
            && peer.share_with(self.device()).and_then(|()| self.device().share_with(peer)).is_ok()
        {
            shared.push(context);
        }
    }
}
