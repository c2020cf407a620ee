//! Memory of the CPU device.

use crate::device::{DeviceError, Memory};
use crate::memory::may_fit;
use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// Alignment of buffers in bytes: a cache line and the widest vector.
pub const ALIGNMENT: usize = winograph_compiler::program::ALIGNMENT;

/// Bytes of a large page of x86-64 and, with small pages of 4 KiB, of AArch64.
const LARGE_PAGE: usize = 2 << 20;
/// From so many bytes on large pages are asked for.
const LARGE: usize = 4 * LARGE_PAGE;

/// Heap memory, aligned to [`ALIGNMENT`], zero at first. Where the system has large pages on request, large buffers have
/// them: weights of many megabytes are read through few entries of the translation buffers.
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
        let alignment = if bytes < LARGE { ALIGNMENT } else { LARGE_PAGE };
        let layout = Layout::from_size_align(bytes, alignment).ok().filter(|_| may_fit(bytes)).ok_or_else(error)?;
        let at = if bytes == 0 {
            // A non-null address with the right alignment that is never read.
            NonNull::new(std::ptr::without_provenance_mut(ALIGNMENT))
        } else if bytes >= LARGE {
            // SAFETY: the layout's size is not zero.
            let at = NonNull::new(unsafe { alloc(layout) });
            if let Some(at) = at {
                ask_for_large_pages(at, bytes);
                // SAFETY: `at` points to `bytes` bytes that nobody else has.
                unsafe { at.write_bytes(0, bytes) }
            }
            at
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

/// Asks for large pages where memory begins at a multiple of them. A refusal changes nothing but speed.
fn ask_for_large_pages(at: NonNull<u8>, bytes: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: the advice changes how the range is mapped, not what is in it.
    unsafe {
        libc::madvise(at.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (at, bytes);
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
