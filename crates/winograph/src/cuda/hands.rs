//! Copies between ordinary memory of the host and pinned memory. One thread copies some 10 GB a second, a fifth of what the
//! link to a GPU does, and takes the faults of new pages one by one, so that several share a copy out.

use crate::cpu::{Pool, Share};
use std::mem::MaybeUninit;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Threads that copy, at most, and no more than half of the processors: beyond that a link to an H100 is no busier.
const THREADS: usize = 8;
/// Bytes that a thread copies at a time.
const PART: usize = 128 << 10;
/// Bytes below which a copy is not shared out.
const LEAST: usize = 512 << 10;

/// Threads for the copies of a device; they come with the first large one.
#[derive(Default)]
pub(super) struct Hands {
    pool: OnceLock<Option<Pool>>,
}

impl Hands {
    fn pool(&self) -> Option<&Pool> {
        let new = || {
            let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
            let threads = (processors / 2).min(THREADS);
            // A pool that cannot be started is done without.
            (threads > 1).then(|| Pool::new(threads).ok()).flatten()
        };
        self.pool.get_or_init(new).as_ref()
    }

    /// Copies as many bytes as both have, part by part, by `copy`.
    pub(super) fn copy<T: Send>(&self, to: &mut [T], from: &[u8], copy: fn(&mut [T], &[u8])) {
        let bytes = to.len().min(from.len());
        let (to, from) = (&mut to[..bytes], &from[..bytes]);
        let Some(pool) = (bytes >= LEAST).then(|| self.pool()).flatten() else { return copy(to, from) };
        let parts: Vec<_> = to.chunks_mut(PART).zip(from.chunks(PART)).map(Mutex::new).collect();
        pool.run(parts.len() as i64, Share::grain(1), &|_, begin, end| {
            for part in &parts[begin as usize..end as usize] {
                let (to, from) = &mut *part.lock().unwrap_or_else(PoisonError::into_inner);
                copy(to, from);
            }
        });
    }
}

/// Copies to memory that has been written before; both have as many bytes.
pub(super) fn overwrite(to: &mut [u8], from: &[u8]) {
    to.copy_from_slice(from);
}

/// Copies to memory that nobody has written yet; both have as many bytes.
pub(super) fn fill(to: &mut [MaybeUninit<u8>], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        to.write(*from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_copied_once() {
        let hands = Hands::default();
        for bytes in [0, 1, PART - 1, LEAST - 1, LEAST, LEAST + 1, 3 * LEAST + 77] {
            let from: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
            let mut to = vec![0; bytes + 3];
            hands.copy(&mut to, &from, overwrite);
            assert!(to[..bytes] == from && to[bytes..] == [0; 3], "{bytes}");
            let mut new = vec![MaybeUninit::uninit(); bytes];
            hands.copy(&mut new, &from, fill);
            // SAFETY: as many bytes were copied there.
            assert!(new.iter().zip(&from).all(|(a, b)| unsafe { a.assume_init() } == *b), "{bytes}");
        }
    }
}
