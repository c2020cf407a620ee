//! A pool of threads that share out the items of one launch at a time.
//!
//! The thread that calls [`Pool::run`] takes part, so that one item, or one thread, costs nothing. Workers wait for
//! work by spinning for some microseconds, since the launches of a function follow each other closely, and then
//! sleep. A call that finds the pool in use, by another thread or by itself further up, runs all items on its own:
//! no call ever waits for another.
//!
//! The protocol is one word: a round number, whether the round is open, and how many workers are in it. The caller
//! writes the job while no round is open and nobody is in, then opens a round. A worker enters an open round by
//! counting itself in with one compare-and-swap, takes items until there are none, and counts itself out. When the
//! caller has run out of items it closes the round and waits until nobody is left in it, which is at most as long as
//! one chunk takes; workers that were still asleep find it closed and do not hold it up.

use crate::device::DeviceError;
use std::any::Any;
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const OPEN: u64 = 1 << 16;
const COUNT: u64 = OPEN - 1;
const ROUND: u64 = OPEN << 1;

/// How long a worker looks for the next round before it sleeps.
const SPIN: Duration = Duration::from_micros(30);

/// How often a waiting thread looks before it asks for the time, or lets others run.
const LOOKS: u32 = 64;

/// Most threads of a pool.
const MAX_THREADS: usize = 4096;

/// What runs items `begin..end` as thread `thread` of the pool: `f(thread, begin, end)`.
type Work<'a> = dyn Fn(usize, i64, i64) + Sync + 'a;

/// A pool of threads. Dropping it ends and joins them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the caller that uses the workers.
    busy: Mutex<()>,
}

struct Shared {
    state: AtomicU64,
    job: UnsafeCell<Job>,
    next: AtomicI64,
    sleeping: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

#[derive(Clone, Copy)]
struct Job {
    work: Option<*const Work<'static>>,
    items: i64,
    chunk: i64,
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
            state: AtomicU64::new(0),
            job: UnsafeCell::new(Job { work: None, items: 0, chunk: 1 }),
            next: AtomicI64::new(0),
            sleeping: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let mut pool = Pool { shared, workers: Vec::with_capacity(threads - 1), busy: Mutex::new(()) };
        for thread in 1..threads {
            let shared = pool.shared.clone();
            let builder = std::thread::Builder::new().name(format!("winograph-{thread}"));
            // On failure the pool is dropped, which ends the threads that did start.
            pool.workers.push(builder.spawn(move || shared.work(thread)).map_err(|e| error(e.to_string()))?);
        }
        Ok(pool)
    }

    /// Number of threads, the caller's among them.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `work(thread, begin, end)` over all of `0..items` in pieces of at least `grain` items (but for the last),
    /// each once, and returns when they have run. No two pieces that run at the same time have the same number
    /// `thread < threads()`. A panic in `work` is passed on to the caller, with some items possibly not run.
    pub fn run(&self, items: i64, grain: i64, work: &Work<'_>) {
        if items <= 0 {
            return;
        }
        let threads = self.threads() as i64;
        // Some pieces for each thread, so that one that is late holds up little.
        let chunk = (items / (threads * 8)).max(grain).max(1);
        if threads == 1 || chunk >= items {
            return work(0, 0, items);
        }
        let guard = match self.busy.try_lock() {
            Ok(guard) => guard,
            Err(std::sync::TryLockError::Poisoned(p)) => p.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return work(0, 0, items),
        };
        let shared = &*self.shared;
        let work: *const Work<'_> = work;
        // SAFETY: only the lifetime changes. The pointer is used by workers in the round alone, and this function
        // does not return, nor unwind, before the round is closed and all workers have left it.
        let work = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) };
        let job = Job { work: Some(work), items, chunk };
        // SAFETY: `busy` is held, no round is open and nobody is in one: there is no other access.
        unsafe { *shared.job.get() = job };
        shared.next.store(0, Ordering::Relaxed);
        let closed = shared.state.load(Ordering::Relaxed);
        shared.state.store((closed + ROUND) | OPEN, Ordering::SeqCst);
        if shared.sleeping.load(Ordering::SeqCst) > 0 {
            // With the lock taken once, every sleeper either waits or will look at the state again.
            drop(lock(&shared.sleep));
            shared.wake.notify_all();
        }
        // SAFETY: the work is borrowed by this very call.
        let own = catch_unwind(AssertUnwindSafe(|| unsafe { shared.take_items(job, 0) }));
        if own.is_err() {
            shared.next.store(items, Ordering::Relaxed);
        }
        shared.state.fetch_and(!OPEN, Ordering::SeqCst);
        let mut spins = 0u32;
        while shared.state.load(Ordering::Acquire) & COUNT != 0 {
            spins = spins.wrapping_add(1);
            if spins.is_multiple_of(LOOKS) { std::thread::yield_now() } else { spin_loop() }
        }
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
        drop(lock(&self.shared.sleep));
        self.shared.wake.notify_all();
        for w in self.workers.drain(..) {
            // Workers catch the panics of what they run.
            let _ = w.join();
        }
    }
}

impl Shared {
    /// A worker's life.
    fn work(&self, thread: usize) {
        let mut seen = 0;
        while let Some(round) = self.wait(seen) {
            seen = round | OPEN;
            if !self.enter(seen) {
                continue;
            }
            // SAFETY: in the round, so that the job is not written to, and its work lives until this worker leaves.
            let result = catch_unwind(AssertUnwindSafe(|| unsafe { self.take_items(*self.job.get(), thread) }));
            if let Err(panic) = result {
                self.next.store(i64::MAX / 2, Ordering::Relaxed);
                *lock(&self.panic) = Some(panic);
            }
            self.state.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for a round other than `seen`; `None` when the pool ends.
    fn wait(&self, seen: u64) -> Option<u64> {
        let fresh = || {
            let state = self.state.load(Ordering::SeqCst);
            (state & OPEN != 0 && (state & !COUNT) != seen).then_some(state & !COUNT)
        };
        let start = Instant::now();
        while start.elapsed() < SPIN {
            for _ in 0..LOOKS {
                if let Some(state) = fresh() {
                    return Some(state);
                }
                if self.stop.load(Ordering::Relaxed) {
                    return None;
                }
                spin_loop();
            }
        }
        let mut guard = lock(&self.sleep);
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        let found = loop {
            if self.stop.load(Ordering::SeqCst) {
                break None;
            }
            if let Some(state) = fresh() {
                break Some(state);
            }
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        };
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
        found
    }

    /// Counts a worker into a round; `false` if it is closed already.
    fn enter(&self, round: u64) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        while state & !COUNT == round {
            match self.state.compare_exchange_weak(state, state + 1, Ordering::Acquire, Ordering::Relaxed) {
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
        loop {
            let begin = self.next.fetch_add(job.chunk, Ordering::Relaxed);
            if begin >= job.items {
                return;
            }
            work(thread, begin, begin.saturating_add(job.chunk).min(job.items));
        }
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
        pool.run(items, grain, &|thread, begin, end| {
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
    fn nested_calls_run_inline() {
        let pool = Pool::new(3).unwrap();
        let total = AtomicI64::new(0);
        pool.run(16, 1, &|_, begin, end| {
            for _ in begin..end {
                pool.run(10, 1, &|_, b, e| {
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
                pool.run(64, 1, &|_, begin, _| assert!(begin < 10, "planned"));
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
