//! Memory of a GPU.

use super::driver::{Address, Device};
use crate::device::{DeviceError, Memory};
use std::any::Any;
use std::sync::Arc;

/// Memory of a GPU, zero at first, from a pool in the order of the queue.
pub(super) struct CudaBuffer {
    device: Arc<Device>,
    at: Address,
    bytes: usize,
}

impl CudaBuffer {
    /// Memory of `bytes` bytes, all zero.
    pub(super) fn zeroed(device: Arc<Device>, bytes: usize) -> Result<CudaBuffer, DeviceError> {
        let mut buffer = CudaBuffer { device, at: 0, bytes };
        if bytes == 0 {
            return Ok(buffer);
        }
        buffer.at = buffer.device.zeroed(bytes)?;
        Ok(buffer)
    }
}

impl CudaBuffer {
    /// The device that it is of.
    pub(super) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// The address of a part; `None` where it is out of bounds.
    pub(super) fn part(&self, offset: usize, bytes: usize) -> Option<Address> {
        (offset.checked_add(bytes)? <= self.bytes).then(|| self.at.wrapping_add(offset as u64))
    }
}

impl Drop for CudaBuffer {
    fn drop(&mut self) {
        if self.at != 0 {
            self.device.free(self.at);
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
