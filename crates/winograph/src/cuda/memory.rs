//! Memory of a GPU.

use super::driver::{Address, Device};
use crate::device::{DeviceError, Memory};
use std::sync::Arc;

/// Memory of a GPU, zero at first.
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
        let f = buffer.device.enter()?;
        let mut at = 0;
        // SAFETY: the context is current, and the pointer is to an integer that lives until the call returns.
        buffer.device.driver.check_memory(bytes, unsafe { (f.allocate)(&mut at, bytes) })?;
        buffer.at = at;
        // SAFETY: as many bytes were just allocated there.
        buffer.device.driver.check("fill memory", unsafe { (f.fill)(at, 0, bytes) })?;
        Ok(buffer)
    }
}

impl Drop for CudaBuffer {
    fn drop(&mut self) {
        if self.at == 0 {
            return;
        }
        // There is nobody to tell of a failure.
        if let Ok(f) = self.device.enter() {
            // SAFETY: allocated in `zeroed` and not freed before; the driver waits for kernels that use it.
            unsafe { (f.free)(self.at) };
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
}
