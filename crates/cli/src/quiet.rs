//! Timing on a machine that others use too.
//!
//! What other programs take from a core is no property of the code that is timed. Linux tells for each thread how long it
//! was kept waiting for a core, and how many threads want one; calls are sorted by that, and the least disturbed count.
//! `bench/peer_worker.py` does the same for other libraries.

use crate::error::Result;
use crate::measure::median;
use serde::Serialize;
use std::fs;
use std::time::{Duration, Instant};

/// Fewest calls that a figure rests on.
const LEAST_CALLS: usize = 3;

/// Most wall time, as a multiple of the time asked for.
const PATIENCE: f64 = 8.0;

/// What a turn of calls took.
#[derive(Debug, Serialize)]
pub(crate) struct Turn {
    /// Milliseconds of the fastest call that counts.
    pub(crate) min: f64,
    /// Their median.
    pub(crate) median: f64,
    /// Which calls count: 0, those with a free core for each thread before and after and no thread kept waiting; 1, also
    /// those without a free core; 2, all.
    pub(crate) disturbed: usize,
    /// Number of calls of each kind.
    pub(crate) calls: [usize; 3],
}

/// Values of a file of each thread of this process; none where there is no such thing.
fn of_threads(file: &str, value: impl Fn(&str) -> Option<u64>) -> u64 {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return 0 };
    threads.flatten().filter_map(|t| value(&fs::read_to_string(t.path().join(file)).ok()?)).sum()
}

/// Time that threads of this process were ready to run and had no core, so far.
fn waited() -> Duration {
    Duration::from_nanos(of_threads("schedstat", |text| text.split_whitespace().nth(1)?.parse().ok()))
}

/// Number of threads of other processes that run or want to.
fn others() -> u64 {
    let own = of_threads("stat", |text| Some(text.rsplit_once(')')?.1.trim_start().starts_with('R').into()));
    let running = fs::read_to_string("/proc/loadavg").ok();
    let running = running.as_deref().and_then(|t| t.split_whitespace().nth(3)?.split_once('/')?.0.parse::<u64>().ok());
    running.unwrap_or(0).saturating_sub(own)
}

/// Times calls for so many seconds; `call` gives its milliseconds and uses `threads` threads.
pub(crate) fn turn(seconds: f64, threads: usize, mut call: impl FnMut() -> Result<f64>) -> Result<Turn> {
    let spare = std::thread::available_parallelism().map_or(1, |n| n.get()).saturating_sub(threads) as u64;
    let mut times: [Vec<f64>; 3] = Default::default();
    // The first call finds another process's data in the caches.
    call()?;
    let started = Instant::now();
    loop {
        let (busy, before) = (others(), waited());
        let ms = call()?;
        let kept_waiting = waited().saturating_sub(before).as_secs_f64() * 1e3 > (0.01 * ms).max(2e-3);
        let kind = if kept_waiting { 2 } else { usize::from(busy.max(others()) > spare) };
        times[kind].push(ms);
        let calls: usize = times.iter().map(Vec::len).sum();
        if times[0].len() >= LEAST_CALLS && times[0].iter().sum::<f64>() >= seconds * 1e3
            || calls >= LEAST_CALLS && started.elapsed().as_secs_f64() >= PATIENCE * seconds
        {
            return Ok(summary(times));
        }
    }
}

fn summary(times: [Vec<f64>; 3]) -> Turn {
    let calls = [times[0].len(), times[1].len(), times[2].len()];
    let disturbed = calls.iter().position(|&n| n >= LEAST_CALLS).unwrap_or(2);
    let mut kept: Vec<f64> = times.into_iter().take(disturbed + 1).flatten().collect();
    kept.sort_by(f64::total_cmp);
    Turn { min: kept.first().copied().unwrap_or(f64::NAN), median: median(&kept), disturbed, calls }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disturbed_calls_count_where_there_are_no_others() {
        let quiet = summary([vec![3.0, 1.0, 2.0], vec![0.5], vec![9.0]]);
        assert_eq!((quiet.min, quiet.median, quiet.disturbed, quiet.calls), (1.0, 2.0, 0, [3, 1, 1]));
        let busy = summary([vec![1.0], vec![4.0, 2.0, 3.0], vec![9.0]]);
        assert_eq!((busy.min, busy.median, busy.disturbed), (1.0, 2.5, 1));
        let all = summary([vec![], vec![2.0], vec![9.0, 8.0]]);
        assert_eq!((all.min, all.median, all.disturbed), (2.0, 8.0, 2));
    }

    #[test]
    fn turns_last_as_long_as_asked_for() {
        let turn = turn(0.01, 1, || {
            std::thread::sleep(Duration::from_millis(1));
            Ok(1.0)
        });
        let turn = turn.unwrap();
        assert!(turn.calls.iter().sum::<usize>() >= LEAST_CALLS);
        assert_eq!((turn.min, turn.median), (1.0, 1.0));
    }
}
