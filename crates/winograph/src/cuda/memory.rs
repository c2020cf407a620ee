//! Memory of a GPU.

use super::driver::{Address, Device};
use super::launches::Launches;
use crate::device::{DeviceError, Memory};
use std::any::Any;
use std::sync::Arc;

/// Memory of a GPU, from a pool in the order of its queues.
pub(super) struct CudaBuffer {
    launches: Arc<Launches>,
    at: Address,
    bytes: usize,
}

impl CudaBuffer {
    /// Memory of `bytes` bytes, all zero.
    pub(super) fn zeroed(launches: &Arc<Launches>, bytes: usize) -> Result<CudaBuffer, DeviceError> {
        let at = if bytes == 0 { 0 } else { launches.allocate(bytes, Device::zeroed)? };
        Ok(CudaBuffer { launches: launches.clone(), at, bytes })
    }

    /// Memory of `bytes` bytes that somebody is about to fill.
    pub(super) fn new(launches: &Arc<Launches>, bytes: usize) -> Result<CudaBuffer, DeviceError> {
        let of_launches = |device: &Device, bytes| device.allocate(bytes, std::ptr::null_mut());
        let at = if bytes == 0 { 0 } else { launches.allocate(bytes, of_launches)? };
        Ok(CudaBuffer { launches: launches.clone(), at, bytes })
    }

    /// Memory that the queue of launches knows; nobody else frees it.
    pub(super) fn adopted(launches: &Arc<Launches>, at: Address, bytes: usize) -> CudaBuffer {
        CudaBuffer { launches: launches.clone(), at, bytes }
    }

    /// The device that it is of.
    pub(super) fn device(&self) -> &Arc<Device> {
        self.launches.device()
    }

    /// The launches that use it.
    pub(super) fn launches(&self) -> &Arc<Launches> {
        &self.launches
    }

    /// The address of a part; `None` where it is out of bounds.
    pub(super) fn part(&self, offset: usize, bytes: usize) -> Option<Address> {
        (offset.checked_add(bytes)? <= self.bytes).then(|| self.at.wrapping_add(offset as u64))
    }
}

impl Drop for CudaBuffer {
    fn drop(&mut self) {
        if self.at != 0 {
            self.launches.free(self.at);
        }
    }
}

// SAFETY: the buffer owns `bytes` bytes at `at` on its device.
unsafe impl Memory for CudaBuffer {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn address(&self) -> *mut u8 {
        std::ptr::without_provenance_mut(usize::try_from(self.at).unwrap_or(0))
    }

    fn is_host(&self) -> bool {
        false
    }

    fn any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}
