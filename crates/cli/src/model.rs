//! `winograph bench model`: what loading, compiling and running a model take, for harnesses that compare.

use crate::args::BenchModel;
use crate::error::{Error, Result};
use crate::machine::{Machine, Name};
use crate::measure::median;
use crate::{output, quiet};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::io::BufRead as _;
use std::time::{Duration, Instant};
use winograph::Tensor;
use winograph::model::{Launch, Model};
use winograph_compiler::explain::WindowReport;

#[derive(Serialize)]
struct Report {
    device: String,
    threads: usize,
    load_ms: f64,
    /// Until the model can run on these inputs: import, plan, kernels, preparation of weights.
    compile_ms: f64,
    /// Of it: from tensors to linear code.
    plan_ms: f64,
    /// Of it: source text, C compiler or cache, loading.
    kernels_ms: f64,
    /// Of it: what depends on weights alone.
    prepare_ms: f64,
    first_ms: f64,
    min_ms: f64,
    median_ms: f64,
    runs: usize,
    /// Launches of a run, and kernels among them that differ.
    launches: usize,
    kernels: usize,
    arena_bytes: usize,
    prepared_bytes: usize,
    /// Most memory that this process has had.
    peak_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<Vec<Row>>,
    /// Sums of products, and whether they became Winograd.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    windows: Vec<Window>,
}

/// One launch of a run.
#[derive(Serialize)]
struct Row {
    kernel: String,
    role: &'static str,
    time_us: f64,
    /// Of all launches.
    share: f64,
    gflops: f64,
    bytes: u64,
    work: String,
    writes: String,
}

#[derive(Serialize)]
struct Window {
    buffer: String,
    applied: bool,
    taps: Vec<usize>,
    tile: Vec<usize>,
    amplification: Option<f64>,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    time: f64,
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Most memory that this process has had, as Linux counts it.
fn peak() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Runs the command.
pub(crate) fn run(args: &BenchModel) -> Result<()> {
    let machine = Machine::open(&Name::Cpu, args.threads)?;
    let mut tensors = Vec::new();
    for (name, file) in &args.input {
        let t = Tensor::load_npy(file).map_err(|e| Error::of(&format!("cannot read the input {name}"), e))?;
        tensors.push((name.as_str(), t));
    }
    let inputs: Vec<(&str, &Tensor)> = tensors.iter().map(|(n, t)| (*n, t)).collect();
    let start = Instant::now();
    let model = Model::load(&args.model).map_err(|e| Error::of("cannot read the model", e))?;
    let load_ms = ms(start.elapsed());
    let start = Instant::now();
    let compiled = model.compile(&machine.device).and_then(|s| s.compile_for(&inputs).map(|()| s));
    let session = compiled.map_err(|e| Error::of("cannot compile the model", e))?;
    let compile_ms = ms(start.elapsed());
    let failed = |e| Error::of("cannot run the model", e);
    let call = || -> Result<(f64, Vec<(String, Tensor)>)> {
        let start = Instant::now();
        let results = session.run(&inputs).map_err(failed)?;
        Ok((ms(start.elapsed()), results))
    };
    let (first_ms, results) = call()?;
    for (name, file) in &args.output {
        let Some((_, t)) = results.iter().find(|(n, _)| n == name) else {
            let names: Vec<&str> = results.iter().map(|(n, _)| n.as_str()).collect();
            return Err(Error::usage(format!("the model has no output {name:?}, only {}", names.join(", "))));
        };
        t.save_npy(file).map_err(|e| Error::of(&format!("cannot write the output {name}"), e))?;
    }
    drop(results);
    let mut times = (0..args.runs).map(|_| call().map(|c| c.0)).collect::<Result<Vec<f64>>>()?;
    times.sort_by(f64::total_cmp);
    let mut report = Report {
        device: machine.device.name().to_string(),
        threads: machine.threads,
        load_ms,
        compile_ms,
        plan_ms: f64::NAN,
        kernels_ms: f64::NAN,
        prepare_ms: f64::NAN,
        first_ms,
        min_ms: times.first().copied().unwrap_or(f64::NAN),
        median_ms: median(&times),
        runs: times.len(),
        launches: 0,
        kernels: 0,
        arena_bytes: 0,
        prepared_bytes: 0,
        peak_bytes: peak(),
        profile: None,
        windows: vec![],
    };
    let of_function = session.with_function(&inputs, |f| (f.times(), f.program().clone())).map_err(failed)?;
    if let Some((times, program)) = of_function {
        (report.plan_ms, report.kernels_ms, report.prepare_ms) = (ms(times.plan), ms(times.kernels), ms(times.prepare));
        (report.launches, report.kernels) = (program.run.len(), program.kernels.len());
        (report.arena_bytes, report.prepared_bytes) = (program.arena_bytes, program.prepared_bytes);
    }
    if args.profile {
        let launches = session.profile(&inputs, args.runs as usize).map_err(failed)?;
        report.profile = Some(rows(&launches));
        let found = session.with_function(&inputs, |f| f.explanation().windows.clone()).map_err(failed)?;
        let window = |w: WindowReport| Window {
            buffer: w.buffer,
            applied: w.applied,
            taps: w.taps,
            tile: w.tile,
            amplification: w.amplification,
            reason: w.reason,
        };
        report.windows = found.unwrap_or_default().into_iter().map(window).collect();
    }
    if args.json {
        let text = serde_json::to_string(&report).map_err(|e| Error::failure("cannot write JSON", e))?;
        output::print(&format!("{text}\n"))?;
    } else {
        output::print(&table(&report))?;
    }
    if args.serve { serve(machine.threads, call) } else { Ok(()) }
}

fn rows(launches: &[Launch]) -> Vec<Row> {
    let all: f64 = launches.iter().map(|l| l.time.as_secs_f64()).sum();
    let row = |l: &Launch| {
        let time = l.time.as_secs_f64();
        Row {
            kernel: l.kernel.clone(),
            role: l.role,
            time_us: time * 1e6,
            share: time / all,
            gflops: l.flops as f64 / time / 1e9,
            bytes: l.bytes,
            work: l.work.clone(),
            writes: l.writes.clone(),
        }
    };
    launches.iter().map(row).collect()
}

fn table(r: &Report) -> String {
    let mut out = format!(
        "{} with {} thread{}\nload {:.1} ms\ncompile {:.1} ms: plan {:.1}, kernels {:.1}, weights {:.1}\nfirst run {:.2} ms, then \
         {:.2} ms at least, {:.2} ms median of {}\n{} launches of {} kernels, arena {:.1} MB, prepared {:.1} MB\n",
        r.device,
        r.threads,
        if r.threads == 1 { "" } else { "s" },
        r.load_ms,
        r.compile_ms,
        r.plan_ms,
        r.kernels_ms,
        r.prepare_ms,
        r.first_ms,
        r.min_ms,
        r.median_ms,
        r.runs,
        r.launches,
        r.kernels,
        r.arena_bytes as f64 / 1e6,
        r.prepared_bytes as f64 / 1e6,
    );
    if let Some(peak) = r.peak_bytes {
        let _ = writeln!(out, "peak memory {:.1} MB", peak as f64 / 1e6);
    }
    let Some(rows) = &r.profile else { return out };
    let _ = writeln!(out, "\n{:>10} {:>6} {:>8} {:>9}  kernel", "us", "share", "GFLOP/s", "MB");
    for l in rows {
        let _ = writeln!(
            out,
            "{:10.1} {:5.1}% {:8.1} {:9.3}  {} {} {} -> {}",
            l.time_us,
            l.share * 100.0,
            l.gflops,
            l.bytes as f64 / 1e6,
            l.role,
            l.kernel,
            l.work,
            l.writes
        );
    }
    let _ = writeln!(out, "\nsums of products");
    for w in &r.windows {
        let _ = match w.applied {
            true => writeln!(out, "{:>10}  Winograd, taps {:?}, tile {:?}: {}", w.buffer, w.taps, w.tile, w.reason),
            false => writeln!(out, "{:>10}  direct, taps {:?}: {}", w.buffer, w.taps, w.reason),
        };
    }
    out
}

/// Answers requests on stdin until it ends.
fn serve<T>(threads: usize, call: impl Fn() -> Result<(f64, T)>) -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| Error::failure("cannot read the standard input", e))?;
        let answer = match serde_json::from_str::<Request>(&line) {
            Ok(Request { time }) if (0.0..=60.0).contains(&time) => {
                serde_json::to_string(&quiet::turn(time, threads, || call().map(|c| c.0))?)
            }
            Ok(_) => serde_json::to_string(&serde_json::json!({"error": "time has to be a number from 0 to 60"})),
            Err(e) => serde_json::to_string(&serde_json::json!({"error": format!("cannot read the request: {e}")})),
        };
        output::print(&(answer.map_err(|e| Error::failure("cannot write JSON", e))? + "\n"))?;
    }
    Ok(())
}
