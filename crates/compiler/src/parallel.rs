//! Work on many kernels at once. Kernels have graphs of their own, so that what is done to one does not depend on what
//! is done to another, and results come in the order of the items: the number of threads changes nothing but time.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Fewest items that are worth a thread of their own.
const LEAST: usize = 4;

/// `f` of each item, in order, by `workers` threads; by this one alone where there are few items.
pub(crate) fn map<T: Sync, R: Send>(workers: usize, items: &[T], f: impl Fn(usize, &T) -> R + Sync) -> Vec<R> {
    let workers = workers.min(items.len() / LEAST);
    if workers <= 1 {
        return items.iter().enumerate().map(|(n, item)| f(n, item)).collect();
    }
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let work = || {
        let mut mine = Vec::new();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(n) else { break };
            mine.push((n, f(n, item)));
        }
        done.lock().unwrap_or_else(PoisonError::into_inner).append(&mut mine);
    };
    std::thread::scope(|scope| {
        // Where no thread can be had this one does all of it.
        for _ in 1..workers {
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    let mut all = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    all.sort_unstable_by_key(|r| r.0);
    all.into_iter().map(|r| r.1).collect()
}

/// `f` on each item in its place, by `workers` threads.
pub(crate) fn each<T: Send>(workers: usize, items: &mut [T], f: impl Fn(&mut T) + Sync) {
    let cells: Vec<Mutex<&mut T>> = items.iter_mut().map(Mutex::new).collect();
    map(workers, &cells, |_, cell| f(&mut cell.lock().unwrap_or_else(PoisonError::into_inner)));
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_are_in_order_whatever_the_number_of_threads() {
        let items: Vec<usize> = (0..1000).collect();
        // Items take different times, so that threads overtake each other.
        let slow =
            |n: usize, &x: &usize| (0..(x * 37) % 101).fold(n as u64, |a, b| a.wrapping_mul(31).wrapping_add(b as u64));
        let want = super::map(1, &items, slow);
        for workers in [2, 3, 8, 2000] {
            assert_eq!(super::map(workers, &items, slow), want, "{workers} threads");
            let mut changed = items.clone();
            super::each(workers, &mut changed, |x| *x += 1);
            assert_eq!(changed, (1..1001).collect::<Vec<_>>(), "{workers} threads");
        }
        assert_eq!(super::map(4, &[] as &[usize], slow), []);
    }
}
