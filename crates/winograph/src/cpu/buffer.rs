//! Memory of the CPU device.

use crate::device::{DeviceError, Memory};
use crate::memory::may_fit;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// Alignment of buffers in bytes: a cache line and the widest vector.
pub const ALIGNMENT: usize = winograph_compiler::program::ALIGNMENT;

/// Bytes of a large page of x86-64 and, with small pages of 4 KiB, of AArch64.
#[cfg(target_os = "linux")]
const LARGE_PAGE: usize = 2 << 20;
/// From so many bytes on memory is mapped for itself, in large pages where there are such on request: what is left of the last one
/// is never more than this. Weights and scratch memory of a few megabytes are what a second-level cache holds, and pages of 4 KiB,
/// wherever the system finds them, leave parts of it unused.
#[cfg(target_os = "linux")]
const LARGE: usize = LARGE_PAGE / 2;

/// So many bytes behind a mapped buffer can be given pages by [`Buffer::touch_behind`].
#[cfg(target_os = "linux")]
const BEHIND: usize = 1 << 20;
/// Bytes between touches of what is behind: the smallest page.
#[cfg(target_os = "linux")]
const PAGE: usize = 4 << 10;

/// Memory, aligned to [`ALIGNMENT`], zero at first. Large buffers are mapped for themselves: the system gives them pages,
/// zero already, to the threads that first touch them, and takes them back when they are dropped. Where it has large pages on request
/// they have these, unless asked otherwise: weights of many megabytes are read through few entries of the translation buffers.
#[derive(Debug)]
pub struct Buffer {
    at: NonNull<u8>,
    len: usize,
    from: From,
}

/// Where the memory of a buffer is from.
#[derive(Debug)]
enum From {
    /// From nowhere: it has no bytes.
    Nothing,
    Heap(Layout),
    /// So many bytes were mapped from there on.
    #[cfg(target_os = "linux")]
    Mapped(NonNull<u8>, usize),
}

// SAFETY: a buffer owns its memory, which is plain bytes; access through `&self` only reads, or goes through raw
// pointers whose users promise to keep writers apart.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Memory of `bytes` bytes, all zero; an error where there is not so much.
    pub fn zeroed(bytes: usize) -> Result<Buffer, DeviceError> {
        Buffer::on_pages(bytes, true)
    }

    /// As [`zeroed`](Buffer::zeroed), on pages of ordinary size: for what is as large as a model and read from a file. A virtual
    /// machine may have few large pages at hand, and these are better spent on what is prepared.
    pub(crate) fn ordinary(bytes: usize) -> Result<Buffer, DeviceError> {
        Buffer::on_pages(bytes, false)
    }

    fn on_pages(bytes: usize, large: bool) -> Result<Buffer, DeviceError> {
        let error = || DeviceError::OutOfMemory { bytes };
        let layout = Layout::from_size_align(bytes, ALIGNMENT).ok().filter(|_| may_fit(bytes)).ok_or_else(error)?;
        #[cfg(target_os = "linux")]
        if bytes >= LARGE {
            return mapped(bytes, large).ok_or_else(error);
        }
        let (at, from) = match bytes {
            // A non-null address with the right alignment that is never read.
            0 => (NonNull::new(std::ptr::without_provenance_mut(ALIGNMENT)), From::Nothing),
            // SAFETY: the layout's size is not zero.
            _ => (NonNull::new(unsafe { alloc_zeroed(layout) }), From::Heap(layout)),
        };
        Ok(Buffer { at: at.ok_or_else(error)?, len: bytes, from })
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.len
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

    /// Has the system map what follows a buffer that is mapped for itself, to its page of zeros. Vectors of which no lane is
    /// wanted are asked for there, behind the last panel: they read nothing, but where there is no page that takes
    /// thousands of cycles each. It takes some 0.2 ms, which is for memory that is read again and again.
    pub(super) fn touch_behind(&self) {
        #[cfg(target_os = "linux")]
        if let From::Mapped(..) = self.from {
            for behind in (0..BEHIND).step_by(PAGE) {
                // SAFETY: `mapped` has mapped `BEHIND` bytes beyond the buffer, which nobody writes.
                unsafe { self.at.add(self.len + behind).read_volatile() };
            }
        }
    }
}

impl Buffer {
    /// So many bytes of a file from `at` on, mapped: nothing is copied, and what is written stays in this process. `None` where
    /// the system does not map them, as where `at` is no multiple of a page. The file must have them as long as the buffer lives.
    #[cfg(target_os = "linux")]
    pub(crate) fn of_file(file: &std::fs::File, at: u64, bytes: usize) -> Option<Buffer> {
        use std::os::fd::AsRawFd as _;
        let offset = libc::off_t::try_from(at).ok()?;
        let buffer = mapped(bytes, false)?;
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_FIXED);
        // SAFETY: it takes the place of the first pages of the buffer, which nobody has touched; what is behind them stays as
        // it was.
        let there = unsafe { libc::mmap(buffer.at.as_ptr().cast(), bytes, access, kind, file.as_raw_fd(), offset) };
        if there != buffer.at.as_ptr().cast() {
            // The system may have taken the old pages away, and given the place to somebody else: it is not ours to free.
            std::mem::forget(buffer);
            return None;
        }
        buffer.touch_behind();
        Some(buffer)
    }
}

/// Memory that the system maps, beginning at a multiple of large pages, and on such if `large`. That they are refused changes
/// nothing but speed.
#[cfg(target_os = "linux")]
fn mapped(bytes: usize, large: bool) -> Option<Buffer> {
    let advised = bytes.checked_add(LARGE)? / LARGE_PAGE * LARGE_PAGE;
    let whole = bytes.max(advised).checked_add(LARGE_PAGE + BEHIND)?;
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: it maps new memory, wherever the system likes.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), whole, access, kind, -1, 0) };
    let base = NonNull::new(base.cast::<u8>()).filter(|_| base != libc::MAP_FAILED)?;
    let skipped = base.as_ptr().align_offset(LARGE_PAGE).min(LARGE_PAGE);
    // SAFETY: `skipped` and `bytes` or `advised` together are at most `whole`; the advice changes how the range is mapped, not what is
    // in it.
    let at = unsafe {
        let at = base.add(skipped);
        if large {
            libc::madvise(at.as_ptr().cast(), advised, libc::MADV_HUGEPAGE);
        }
        at
    };
    Some(Buffer { at, len: bytes, from: From::Mapped(base, whole) })
}

impl Drop for Buffer {
    fn drop(&mut self) {
        match self.from {
            From::Nothing => {}
            // SAFETY: allocated in `zeroed` with this layout and not freed before.
            From::Heap(layout) => unsafe { dealloc(self.at.as_ptr(), layout) },
            #[cfg(target_os = "linux")]
            // SAFETY: mapped in `mapped`, so many bytes, and not unmapped before.
            From::Mapped(base, bytes) => unsafe {
                libc::munmap(base.as_ptr().cast(), bytes);
            },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_sizes_around_those_of_pages_are_zero_aligned_and_can_be_written_to_their_ends()
    -> Result<(), DeviceError> {
        let around = |n: usize| [n - 1, n, n + 1];
        for bytes in [0, 1, 4095].into_iter().chain([1 << 20, 2 << 20, 3 << 20, 8 << 20].into_iter().flat_map(around)) {
            for mut buffer in [Buffer::zeroed(bytes)?, Buffer::ordinary(bytes)?] {
                assert_eq!((buffer.len(), buffer.as_ptr() as usize % ALIGNMENT), (bytes, 0));
                assert!(buffer.as_slice().iter().all(|&b| b == 0), "{bytes}");
                buffer.touch_behind();
                buffer.as_mut_slice().fill(7);
                assert!(buffer.as_slice().iter().all(|&b| b == 7), "{bytes}");
            }
        }
        Ok(())
    }
}
