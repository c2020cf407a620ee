//! `winograph check graphs`: random graphs, computed by the CPU and by the interpreters.

mod compare;
mod generator;
mod sizes;

use crate::args::CheckGraphs;
use crate::error::{Error, Result};
use crate::output;
use crate::progress::Progress;
use compare::Case;
use sizes::Sized;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use winograph::cpu::{CpuDevice, CpuOptions};
use winograph::settings;
use winograph_compiler::Algorithm;

/// Graphs whose kernels are compiled together: the C compiler is called once for all.
const BATCH: usize = 25;

/// Failures that are printed.
const SHOWN: usize = 10;

/// Two devices that give the same bits.
struct Devices {
    single: CpuDevice,
    several: Arc<CpuDevice>,
}

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Devices {
    /// Devices that share the kernels in `folder`, compiled at an optimisation level of the C compiler.
    fn new(folder: &Folder, level: u8) -> Result<Devices> {
        let env = settings::env().map_err(|e| Error::of("cannot read the environment", e))?;
        let options = CpuOptions { cache_dir: Some(folder.0.clone()), threads: Some(1), ..CpuOptions::from_env(env) };
        let open = |o| CpuDevice::new(o).map_err(|e| Error::failure("cannot open the device", e));
        let found = open(options.clone())?;
        let found = found.compiler().map_err(|e| Error::failure("cannot compile kernels", e))?;
        let mut cc: OsString = options.cc.clone().unwrap_or_else(|| found.program().into());
        cc.push(format!(" -O{level}"));
        let options = CpuOptions { cc: Some(cc), ..options };
        Ok(Devices {
            single: open(options.clone())?,
            several: Arc::new(open(CpuOptions { threads: Some(3), ..options })?),
        })
    }
}

/// What a graph of a number is: one in ten has sizes that are parameters, of the others one in five has its
/// convolutions rewritten.
fn kind(seed: u64) -> (bool, Algorithm) {
    (seed % 10 == 9, if seed % 5 == 3 { Algorithm::Winograd } else { Algorithm::Direct })
}

/// Runs the command.
pub(crate) fn run(args: &CheckGraphs) -> Result<()> {
    let seeds: Vec<u64> = (0..u64::from(args.count)).map(|i| args.seed.wrapping_add(i)).collect();
    let sized: Vec<u64> = seeds.iter().copied().filter(|&s| kind(s).0).collect();
    let of = |a: Algorithm| seeds.iter().copied().filter(|&s| kind(s) == (false, a)).collect::<Vec<u64>>();
    let (direct, rewritten) = (of(Algorithm::Direct), of(Algorithm::Winograd));
    // The dearest first.
    let mut batches: Vec<(Option<Algorithm>, &[u64])> = Vec::new();
    batches.extend(rewritten.chunks(BATCH).map(|b| (Some(Algorithm::Winograd), b)));
    batches.extend(direct.chunks(BATCH).map(|b| (Some(Algorithm::Direct), b)));
    batches.extend(sized.chunks(BATCH).map(|b| (None, b)));
    let env = settings::env().map_err(|e| Error::of("cannot read the environment", e))?;
    let folder = Folder(env.temp_dir.join(format!("winograph-check-{}", std::process::id())));
    let next = AtomicUsize::new(0);
    let (failures, refused) = (Mutex::<Vec<String>>::default(), Mutex::<Vec<String>>::default());
    let jobs = match args.jobs {
        Some(n) => n as usize,
        None => std::thread::available_parallelism().map_or(1, |n| n.get()),
    };
    let progress = Mutex::new(Progress::new(batches.len() as u64));
    let work = || -> Result<()> {
        let devices = Devices::new(&folder, args.optimize)?;
        while let Some(&(algorithm, seeds)) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
            let what = format!("graphs {} and on", seeds[0]);
            progress.lock().unwrap_or_else(PoisonError::into_inner).step(&what);
            let found = match algorithm {
                Some(algorithm) => batch(&devices, algorithm, seeds),
                None => {
                    let made = seeds.iter().map(|&s| Sized::new(s, &devices));
                    let (cases, wrong): (Vec<_>, Vec<_>) = made.partition(|c| c.is_ok());
                    let cases: Vec<Sized> = cases.into_iter().flatten().collect();
                    let unproved = cases.iter().filter_map(Sized::refused);
                    refused.lock().unwrap_or_else(PoisonError::into_inner).extend(unproved);
                    wrong.into_iter().filter_map(|w| w.err()).chain(sizes::attempt(&devices, &cases)).collect()
                }
            };
            failures.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
        }
        Ok(())
    };
    let done = std::thread::scope(|s| {
        let threads: Vec<_> = (0..jobs.max(1)).map(|_| s.spawn(work)).collect();
        let ended = |t: std::thread::ScopedJoinHandle<'_, Result<()>>| {
            t.join().unwrap_or_else(|_| Err(Error::failure("cannot check the graphs", "a panic")))
        };
        threads.into_iter().map(ended).collect::<Result<Vec<()>>>()
    });
    drop(progress);
    done?;
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    if failures.is_empty() {
        let refused = refused.into_inner().unwrap_or_else(PoisonError::into_inner);
        if args.refused {
            for text in &refused {
                output::print(&format!("{text}\n"))?;
            }
        }
        return output::print(&format!(
            "{} random graphs agree ({} with sizes that are parameters, of which {} have an access that cannot be proved and were refused)\n",
            args.count,
            sized.len(),
            refused.len(),
        ));
    }
    let shown: Vec<&str> = failures.iter().take(SHOWN).map(String::as_str).collect();
    Err(Error::failure(format!("{} of {} random graphs fail", failures.len(), args.count), shown.join("\n\n")))
}

/// The failures among graphs that are compiled together.
fn batch(devices: &Devices, algorithm: Algorithm, seeds: &[u64]) -> Vec<String> {
    let mut cases = Vec::new();
    let mut failures = Vec::new();
    for &seed in seeds {
        match Case::new(seed) {
            Ok(case) => cases.push(case),
            Err(e) => failures.push(e),
        }
    }
    if let Err(all) = compare::attempt(devices, algorithm, &cases) {
        // One by one, to say which.
        let alone: Vec<String> =
            cases.chunks(1).filter_map(|c| compare::attempt(devices, algorithm, c).err()).collect();
        if alone.is_empty() {
            failures.push(format!("together, but not alone: {all}"));
        }
        failures.extend(alone);
    }
    failures
}

/// An error and what caused it.
fn chain(e: &dyn std::error::Error) -> String {
    let mut out = e.to_string();
    let mut cause = e.source();
    while let Some(c) = cause {
        out = format!("{out}: {c}");
        cause = c.source();
    }
    out
}
