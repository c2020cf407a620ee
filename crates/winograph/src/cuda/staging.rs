//! Memory of the host that GPUs copy from and to by themselves: pinned, in pieces of one size, used again.

use super::driver::Device;
use super::events::Event;
use crate::device::DeviceError;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a piece: long enough that starting a copy costs little of its time, short enough that the copy of one piece
/// runs while the next is filled or emptied.
pub(super) const PIECE: usize = 2 << 20;

/// Pieces that are kept; more are there only while more threads copy at once.
const KEPT: usize = 8;

/// `CU_MEMHOSTALLOC_PORTABLE`: pinned for the contexts of all devices.
const PORTABLE: u32 = 1;

/// A piece of pinned memory.
pub(super) struct Piece {
    device: Arc<Device>,
    at: *mut u8,
    /// The end of the last copy from it or to it.
    pub(super) used: Event,
}

// SAFETY: the piece owns its memory, which any thread may use.
unsafe impl Send for Piece {}

impl Piece {
    fn new(device: &Arc<Device>) -> Result<Piece, DeviceError> {
        let used = Event::new(device)?;
        let f = device.enter()?;
        let mut at = std::ptr::null_mut();
        // SAFETY: the context is current; the pointer is to a pointer that lives until the call returns.
        device.check_memory(PIECE, unsafe { (f.allocate_host)(&mut at, PIECE, PORTABLE) })?;
        // SAFETY: as many bytes were just allocated there; nobody has read them yet.
        unsafe { at.cast::<u8>().write_bytes(0, PIECE) };
        Ok(Piece { device: device.clone(), at: at.cast(), used })
    }

    /// Its address.
    pub(super) fn address(&mut self) -> *mut u8 {
        self.at
    }

    /// Its bytes; no copy from it or to it may be under way.
    pub(super) fn bytes(&mut self) -> Result<&mut [u8], DeviceError> {
        self.used.wait()?;
        // SAFETY: the piece owns so many bytes, which were filled in `new`; no copy is under way.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.at, PIECE) })
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // There is nobody to tell of a failure.
        let _ = self.used.wait();
        if let Ok(f) = self.device.enter() {
            // SAFETY: allocated in `new` and not freed before; no copy is under way.
            unsafe { (f.free_host)(self.at.cast()) };
        }
    }
}

/// The pieces of a device that no thread holds, those first whose last copy was queued first.
#[derive(Default)]
pub(super) struct Staging {
    free: Mutex<VecDeque<Piece>>,
}

impl Staging {
    /// A piece for this thread alone. Its last copy may still be under way where as many are kept as may be.
    pub(super) fn take(&self, device: &Arc<Device>) -> Result<Piece, DeviceError> {
        let kept = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let usable = free.len() >= KEPT || free.front().is_some_and(|p| p.used.is_over());
            usable.then(|| free.pop_front()).flatten()
        };
        kept.map_or_else(|| Piece::new(device), Ok)
    }

    /// Keeps a piece for the next copy.
    pub(super) fn give_back(&self, piece: Piece) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT {
            free.push_back(piece);
        } else {
            drop(free);
            drop(piece);
        }
    }
}
