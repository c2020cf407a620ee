//! A pool of threads that share out the items of one launch at a time.
//!
//! The thread that calls [`Pool::run`] takes part, so that one item, or one thread, costs nothing. Workers wait for
//! work by spinning for some tens of microseconds, since the launches of a function follow each other closely, and
//! then sleep; how long they spin follows how soon work came last time, and where there are more threads than
//! processors they do not spin at all. Waking a sleeper is a call of the system that costs the caller microseconds:
//! no more are woken than there are pieces, each woken worker wakes two others, so that the caller wakes two at most,
//! and a launch that is done before a sleeper would have come wakes nobody. A call that finds the pool in use, by
//! another thread or by itself further up, runs all items on its own: no call ever waits for another.
//!
//! Each thread has a part of the items that it begins with, always the same one, so that what a launch left in its cache
//! is there for the next; whoever has finished helps the others piece by piece.
//!
//! The protocol is one word: a round number, whether the round is open, and how many workers are in it. The caller
//! writes the job while no round is open and nobody is in, then opens a round. A worker enters an open round by
//! counting itself in with one compare-and-swap, takes items until there are none, and counts itself out. When the
//! caller has run out of items it closes the round and waits until nobody is left in it, which is at most as long as
//! one chunk takes; workers that were still asleep find it closed and do not hold it up.

use crate::device::DeviceError;
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

const OPEN: u64 = 1 << 16;
const COUNT: u64 = OPEN - 1;
const ROUND: u64 = OPEN << 1;

/// How long a worker looks for the next round before it sleeps: at first, at least and at most.
const SPIN: Duration = Duration::from_micros(50);
const SPIN_LEAST: Duration = Duration::from_micros(5);
const SPIN_MOST: Duration = Duration::from_micros(100);

/// Work that comes this soon after a worker went to sleep should have found it spinning.
const SOON: Duration = Duration::from_micros(300);
/// Work that comes this late is not worth spinning for.
const LATE: Duration = Duration::from_millis(5);

/// How often a waiting thread looks before it asks for the time.
const LOOKS: u32 = 32;

/// Most threads of a pool.
const MAX_THREADS: usize = 4096;

/// What runs items `begin..end` as thread `thread` of the pool: `f(thread, begin, end)`.
type Work<'a> = dyn Fn(usize, i64, i64) + Sync + 'a;

/// How the items of a launch are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Least number of items of a piece, but for the last.
    pub grain: i64,
    /// Least number of items for which it is worth while to wake sleeping threads.
    pub wake: i64,
}

impl Share {
    /// Pieces of at least `grain` items, for which sleepers are always woken.
    pub fn grain(grain: i64) -> Share {
        Share { grain, wake: 0 }
    }
}

/// A pool of threads. Dropping it ends and joins them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the caller that uses the workers.
    busy: Mutex<()>,
}

/// A value with cache lines of its own, in pairs as processors fetch them.
#[repr(align(128))]
#[derive(Default)]
struct Apart<T>(T);

struct Shared {
    state: Apart<AtomicU64>,
    /// For each part of the items, the first that nobody has taken.
    next: Vec<Apart<AtomicI64>>,
    job: UnsafeCell<Job>,
    /// Workers that sleep, or are about to.
    sleeping: AtomicUsize,
    /// Whether each of them does.
    asleep: Vec<Apart<AtomicBool>>,
    /// The workers, to be woken; set before the first round.
    handles: OnceLock<Vec<Thread>>,
    /// Whether there is a processor for each thread, so that spinning takes none from another.
    spins: bool,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

#[derive(Clone, Copy)]
struct Job {
    work: Option<*const Work<'static>>,
    items: i64,
    chunk: i64,
    /// Number of parts that the items are in, at most one for each thread.
    parts: usize,
    /// Number of workers that have something to do; those with higher numbers are not woken.
    wanted: usize,
}

// SAFETY: `job` is written by the caller that holds `busy`, while no round is open and no worker is in one, and read
// by workers that are in a round; the operations on `state` order the two. The work it points to is `Sync` and
// outlives the round. All other fields are `Sync` themselves.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Pool {
    /// A pool of `threads` threads, at least 1, the callers' own among them.
    pub fn new(threads: usize) -> Result<Pool, DeviceError> {
        let error = |reason: String| DeviceError::Threads { threads, reason };
        if threads == 0 || threads > MAX_THREADS {
            return Err(error(format!("expected 1 to {MAX_THREADS}")));
        }
        let shared = Arc::new(Shared {
            state: Apart::default(),
            next: (0..threads).map(|_| Apart::default()).collect(),
            job: UnsafeCell::new(Job { work: None, items: 0, chunk: 1, parts: 0, wanted: 0 }),
            sleeping: AtomicUsize::new(0),
            asleep: (1..threads).map(|_| Apart::default()).collect(),
            handles: OnceLock::new(),
            spins: std::thread::available_parallelism().is_ok_and(|n| threads <= n.get()),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let mut pool = Pool { shared, workers: Vec::with_capacity(threads - 1), busy: Mutex::new(()) };
        for worker in 0..threads - 1 {
            let shared = pool.shared.clone();
            let builder = std::thread::Builder::new().name(format!("winograph-{}", worker + 1));
            // On failure the pool is dropped, which ends the threads that did start.
            pool.workers.push(builder.spawn(move || shared.work(worker)).map_err(|e| error(e.to_string()))?);
        }
        let handles = pool.workers.iter().map(|w| w.thread().clone()).collect();
        // Set once, here.
        let _ = pool.shared.handles.set(handles);
        Ok(pool)
    }

    /// Number of threads, the caller's among them.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `work(thread, begin, end)` over all of `0..items` in pieces, each item once, and returns when they have
    /// run. No two pieces that run at the same time have the same number `thread < threads()`. A panic in `work` is
    /// passed on to the caller, with some items possibly not run.
    pub fn run(&self, items: i64, share: Share, work: &Work<'_>) {
        if items <= 0 {
            return;
        }
        let threads = self.threads() as i64;
        // Some pieces for each thread, so that one that is late holds up little.
        let chunk = (items / (threads * 8)).max(share.grain).max(1);
        let shared = &*self.shared;
        let wakes = items >= share.wake;
        // `sleeping` may be out of date: then a worker that could have helped is left alone, or one is asked that does
        // not come. Both are right.
        let nobody = || shared.sleeping.load(Ordering::Relaxed) >= self.workers.len();
        if threads == 1 || chunk >= items || (!wakes && nobody()) {
            return work(0, 0, items);
        }
        let guard = match self.busy.try_lock() {
            Ok(guard) => guard,
            Err(std::sync::TryLockError::Poisoned(p)) => p.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return work(0, 0, items),
        };
        let work: *const Work<'_> = work;
        // SAFETY: only the lifetime changes. The pointer is used by workers in the round alone, and this function
        // does not return, nor unwind, before the round is closed and all workers have left it.
        let work = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) };
        let parts = job_pieces(items, chunk).min(threads) as usize;
        // The caller is one of the threads.
        let job = Job { work: Some(work), items, chunk, parts, wanted: if wakes { parts - 1 } else { 0 } };
        // SAFETY: `busy` is held, no round is open and nobody is in one: there is no other access.
        unsafe { *shared.job.get() = job };
        for (part, next) in shared.next.iter().enumerate().take(parts) {
            next.0.store(job.part(part).0, Ordering::Relaxed);
        }
        let closed = shared.state.0.load(Ordering::Relaxed);
        shared.state.0.store((closed + ROUND) | OPEN, Ordering::SeqCst);
        shared.wake_two(0, job.wanted);
        // SAFETY: the work is borrowed by this very call.
        let own = catch_unwind(AssertUnwindSafe(|| unsafe { shared.take_items(job, 0) }));
        if own.is_err() {
            shared.skip_rest();
        }
        shared.state.0.fetch_and(!OPEN, Ordering::SeqCst);
        shared.until_left();
        let other = lock(&shared.panic).take();
        drop(guard);
        if let Some(panic) = own.err().or(other) {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for w in self.workers.drain(..) {
            w.thread().unpark();
            // Workers catch the panics of what they run.
            let _ = w.join();
        }
    }
}

impl Shared {
    /// A worker's life.
    fn work(&self, worker: usize) {
        let (mut seen, mut spin) = (0, SPIN);
        while let Some(round) = self.wait(worker, seen, &mut spin) {
            seen = round | OPEN;
            if !self.enter(seen) {
                continue;
            }
            // SAFETY: in the round, so that the job is not written to.
            let job = unsafe { *self.job.get() };
            self.wake_two(2 * worker + 2, job.wanted);
            // SAFETY: in the round, so that the job's work lives until this worker leaves.
            let result = catch_unwind(AssertUnwindSafe(|| unsafe { self.take_items(job, worker + 1) }));
            if let Err(panic) = result {
                self.skip_rest();
                *lock(&self.panic) = Some(panic);
            }
            self.state.0.fetch_sub(1, Ordering::Release);
        }
    }

    /// The round that is open, if it is not `seen`.
    fn fresh(&self, seen: u64) -> Option<u64> {
        let state = self.state.0.load(Ordering::SeqCst);
        (state & OPEN != 0 && (state & !COUNT) != seen).then_some(state & !COUNT)
    }

    /// Waits for a round other than `seen`; `None` when the pool ends. Spins for `spin`, which is adapted, and sleeps.
    fn wait(&self, worker: usize, seen: u64, spin: &mut Duration) -> Option<u64> {
        let start = Instant::now();
        while self.spins && start.elapsed() < *spin {
            for _ in 0..LOOKS {
                if let Some(round) = self.fresh(seen) {
                    return Some(round);
                }
                spin_loop();
            }
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
        }
        let asleep = self.asleep.get(worker)?;
        let start = Instant::now();
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        let found = loop {
            // Said before looking: whoever opens a round later sees it and unparks this thread.
            asleep.0.store(true, Ordering::SeqCst);
            if self.stop.load(Ordering::SeqCst) {
                break None;
            }
            if let Some(round) = self.fresh(seen) {
                break Some(round);
            }
            std::thread::park();
        };
        asleep.0.store(false, Ordering::Relaxed);
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
        let slept = start.elapsed();
        if slept < SOON {
            *spin = (*spin * 2).min(SPIN_MOST);
        } else if slept > LATE {
            *spin = (*spin / 2).max(SPIN_LEAST);
        }
        found
    }

    /// Wakes workers `first` and `first + 1` if they sleep and are among the `wanted` ones.
    fn wake_two(&self, first: usize, wanted: usize) {
        for worker in first..wanted.min(first.saturating_add(2)) {
            if let (Some(asleep), Some(handles)) = (self.asleep.get(worker), self.handles.get())
                && asleep.0.load(Ordering::SeqCst)
                && asleep.0.swap(false, Ordering::SeqCst)
                && let Some(thread) = handles.get(worker)
            {
                thread.unpark();
            }
        }
    }

    /// Waits until no worker is in the round, which is closed.
    fn until_left(&self) {
        let mut since = None;
        while self.state.0.load(Ordering::Acquire) & COUNT != 0 {
            for _ in 0..LOOKS {
                spin_loop();
            }
            // A worker that does not finish its piece for so long may be waiting for this processor.
            let start = *since.get_or_insert_with(Instant::now);
            if !self.spins || start.elapsed() > SPIN {
                std::thread::yield_now();
            }
        }
    }

    /// Counts a worker into a round; `false` if it is closed already.
    fn enter(&self, round: u64) -> bool {
        let mut state = self.state.0.load(Ordering::Relaxed);
        while state & !COUNT == round {
            match self.state.0.compare_exchange_weak(state, state + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    /// Runs pieces of the job until none is left.
    ///
    /// # Safety
    ///
    /// The job's work is alive.
    unsafe fn take_items(&self, job: Job, thread: usize) {
        let Some(work) = job.work else { return };
        // SAFETY: the caller promises that it is alive.
        let work = unsafe { &*work };
        for part in (0..job.parts).map(|i| (thread + i) % job.parts) {
            let (_, end) = job.part(part);
            let Some(next) = self.next.get(part) else { continue };
            // Looked at first, so that parts that are done are not written to.
            while next.0.load(Ordering::Relaxed) < end {
                let begin = next.0.fetch_add(job.chunk, Ordering::Relaxed);
                if begin >= end {
                    break;
                }
                work(thread, begin, begin.saturating_add(job.chunk).min(end));
            }
        }
    }

    /// Has nobody take another piece of the job.
    fn skip_rest(&self) {
        self.next.iter().for_each(|next| next.0.store(i64::MAX / 2, Ordering::Relaxed));
    }
}

/// Number of pieces of `chunk` items, the last of which may be smaller.
fn job_pieces(items: i64, chunk: i64) -> i64 {
    (items - 1) / chunk + 1
}

impl Job {
    /// First item of a part and the one after its last: whole pieces, but for the last of all.
    fn part(&self, part: usize) -> (i64, i64) {
        let pieces = job_pieces(self.items, self.chunk) as i128;
        let place = |part: usize| {
            let piece = pieces * part as i128 / self.parts.max(1) as i128;
            (piece * self.chunk as i128).min(self.items as i128) as i64
        };
        (place(part), place(part + 1))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    fn check_each_once(pool: &Pool, items: i64, grain: i64) {
        let counts: Vec<AtomicU32> = (0..items).map(|_| AtomicU32::new(0)).collect();
        pool.run(items, Share::grain(grain), &|thread, begin, end| {
            assert!(thread < pool.threads() && begin < end);
            for i in begin..end {
                counts[i as usize].fetch_add(1, Ordering::Relaxed);
            }
        });
        assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn runs_each_item_once() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads).unwrap();
            for items in [0, 1, 2, 3, 7, 64, 1000] {
                for grain in [0, 1, 5, 100, 5000] {
                    check_each_once(&pool, items, grain);
                }
            }
        }
    }

    #[test]
    fn many_rounds() {
        let pool = Pool::new(4).unwrap();
        for i in 0..20_000 {
            check_each_once(&pool, 1 + i % 33, 1);
        }
    }

    #[test]
    fn wakes_sleepers() {
        let pool = Pool::new(3).unwrap();
        for _ in 0..20 {
            std::thread::sleep(std::time::Duration::from_millis(2));
            check_each_once(&pool, 100, 1);
        }
    }

    #[test]
    fn launches_that_are_not_worth_it_wake_nobody() {
        let pool = Pool::new(3).unwrap();
        for _ in 0..5 {
            while pool.shared.sleeping.load(Ordering::SeqCst) < 2 {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            let share = Share { grain: 1, wake: 101 };
            let caller = std::thread::current().id();
            let count = AtomicI64::new(0);
            pool.run(100, share, &|thread, begin, end| {
                assert_eq!((thread, std::thread::current().id()), (0, caller), "all others sleep");
                count.fetch_add(end - begin, Ordering::Relaxed);
            });
            assert_eq!(count.load(Ordering::Relaxed), 100);
        }
    }

    #[test]
    fn long_launches_meet_many_threads() {
        // More threads than processors, woken by each other.
        let pool = Pool::new(9).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2));
        let met = Mutex::new(std::collections::BTreeSet::new());
        pool.run(9 * 8, Share::grain(1), &|thread, _, _| {
            std::thread::sleep(std::time::Duration::from_millis(2));
            lock(&met).insert(thread);
        });
        assert_eq!(lock(&met).len(), 9);
    }

    #[test]
    fn nested_calls_run_inline() {
        let pool = Pool::new(3).unwrap();
        let total = AtomicI64::new(0);
        pool.run(16, Share::grain(1), &|_, begin, end| {
            for _ in begin..end {
                pool.run(10, Share::grain(1), &|_, b, e| {
                    total.fetch_add(e - b, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 160);
    }

    #[test]
    fn several_callers() {
        let pool = Pool::new(3).unwrap();
        std::thread::scope(|s| {
            for _ in 0..6 {
                s.spawn(|| {
                    for i in 0..2000 {
                        check_each_once(&pool, 1 + i % 50, 1);
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(3).unwrap();
        for _ in 0..50 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(64, Share::grain(1), &|_, begin, _| assert!(begin < 10, "planned"));
            }));
            assert!(result.is_err());
            check_each_once(&pool, 64, 1);
        }
    }

    #[test]
    fn no_threads_is_an_error() {
        assert!(matches!(Pool::new(0), Err(DeviceError::Threads { .. })));
        assert!(matches!(Pool::new(1 << 20), Err(DeviceError::Threads { .. })));
    }
}
