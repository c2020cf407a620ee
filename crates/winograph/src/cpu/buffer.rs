//! Memory of the CPU device.

use crate::device::{DeviceError, Memory};
use crate::memory::may_fit;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// Alignment of buffers in bytes: a cache line and the widest vector.
pub const ALIGNMENT: usize = winograph_compiler::program::ALIGNMENT;

/// Heap memory, aligned to [`ALIGNMENT`], zero at first.
#[derive(Debug)]
pub struct Buffer {
    at: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a buffer owns its memory, which is plain bytes; access through `&self` only reads, or goes through raw
// pointers whose users promise to keep writers apart.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Memory of `bytes` bytes, all zero; an error where there is not so much.
    pub fn zeroed(bytes: usize) -> Result<Buffer, DeviceError> {
        let error = || DeviceError::OutOfMemory { bytes };
        let layout = Layout::from_size_align(bytes, ALIGNMENT).ok().filter(|_| may_fit(bytes)).ok_or_else(error)?;
        let at = if bytes == 0 {
            // A non-null address with the right alignment that is never read.
            NonNull::new(std::ptr::without_provenance_mut(ALIGNMENT))
        } else {
            // SAFETY: the layout's size is not zero.
            NonNull::new(unsafe { alloc_zeroed(layout) })
        };
        Ok(Buffer { at: at.ok_or_else(error)?, layout })
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.layout.size()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `at` points to `len` initialised bytes that live as long as `self`; writers through raw pointers
        // have promised that nobody reads meanwhile.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len()) }
    }

    /// The bytes, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as for `as_slice`, and `&mut self` is the only access.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len()) }
    }

    /// The address. Writing through it is `unsafe` and needs to be kept apart from all other access.
    pub fn as_ptr(&self) -> *mut u8 {
        self.at.as_ptr()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.layout.size() != 0 {
            // SAFETY: allocated in `zeroed` with this layout and not freed before.
            unsafe { dealloc(self.at.as_ptr(), self.layout) }
        }
    }
}

// SAFETY: the buffer owns `len` bytes at `at`.
unsafe impl Memory for Buffer {
    fn bytes(&self) -> usize {
        self.len()
    }

    fn address(&self) -> *mut u8 {
        self.as_ptr()
    }

    fn is_host(&self) -> bool {
        true
    }
}
