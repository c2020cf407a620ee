//! `winograph bench model`: what loading, compiling and running a model take, for harnesses that compare.

use crate::args::BenchModel;
use crate::error::{Error, Result};
use crate::machine::{Machine, Name};
use crate::measure::{median, ms};
use crate::{output, profile, quiet, serve};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::time::Instant;
use winograph::model::Model;
use winograph::{AxisTile, Function, Tensor};
use winograph_compiler::explain::{PassReport, WindowReport};

#[derive(Serialize)]
struct Report {
    device: String,
    threads: usize,
    load_ms: f64,
    /// Until the model can run on these inputs: import, plan, kernels, preparation of weights.
    compile_ms: f64,
    /// Whether an earlier process has kept the program, so that nothing was planned.
    kept: bool,
    /// Of it: from tensors to linear code.
    plan_ms: f64,
    /// Of it: each pass of the compiler; none where nothing was planned.
    passes: Vec<Pass>,
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
    profile: Option<Vec<profile::Row>>,
    /// Sums of products, and whether they became Winograd.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    windows: Vec<Window>,
}

#[derive(Serialize)]
struct Pass {
    name: &'static str,
    ms: f64,
}

#[derive(Serialize)]
struct Window {
    buffer: String,
    applied: bool,
    taps: Vec<usize>,
    #[serde(serialize_with = "crate::json::tile")]
    tile: Vec<AxisTile>,
    amplification: Option<f64>,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    time: f64,
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
    // The session may have no use for its weights any more.
    drop(model);
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
        kept: false,
        plan_ms: f64::NAN,
        passes: vec![],
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
    let pass = |p: &PassReport| Pass { name: p.name, ms: p.micros.unwrap_or(f64::NAN) / 1e3 };
    let passes = |f: &Function| match f.times().kept {
        true => vec![],
        false => f.explanation().passes.iter().map(pass).collect(),
    };
    let of_function =
        session.with_function(&inputs, |f| (f.times(), f.outline().clone(), passes(f))).map_err(failed)?;
    if let Some((times, program, passes)) = of_function {
        report.kept = times.kept;
        report.passes = passes;
        (report.plan_ms, report.kernels_ms, report.prepare_ms) = (ms(times.plan), ms(times.kernels), ms(times.prepare));
        (report.launches, report.kernels) = (program.run.len(), program.kernels.len());
        (report.arena_bytes, report.prepared_bytes) = (program.arena_bytes, program.prepared_bytes);
    }
    if args.profile {
        let launches = session.profile(&inputs, args.runs as usize).map_err(failed)?;
        report.profile = Some(profile::rows(launches));
        let of = |f: &Function| f.explanation().windows.clone();
        let found = session.with_function(&inputs, of).map_err(failed)?.unwrap_or_default();
        let window = |w: WindowReport| Window {
            buffer: w.buffer,
            applied: w.applied,
            taps: w.taps,
            tile: w.tile,
            amplification: w.amplification,
            reason: w.reason,
        };
        report.windows = found.into_iter().map(window).collect();
    }
    if args.json {
        let text = serde_json::to_string(&report).map_err(|e| Error::failure("cannot write JSON", e))?;
        output::print(&format!("{text}\n"))?;
    } else {
        output::print(&table(&report))?;
    }
    if args.serve { answer(machine.threads, call) } else { Ok(()) }
}

fn table(r: &Report) -> String {
    let mut out = format!(
        "{} with {} thread{}\nload {:.1} ms\ncompile {:.1} ms: {} {:.1}, kernels {:.1}, weights {:.1}\nfirst run {:.2} ms, then \
         {:.2} ms at least, {:.2} ms median of {}\n{} launches of {} kernels, arena {:.1} MB, prepared {:.1} MB\n",
        r.device,
        r.threads,
        if r.threads == 1 { "" } else { "s" },
        r.load_ms,
        r.compile_ms,
        if r.kept { "kept program" } else { "plan" },
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
    out.push_str(&profile::text(rows));
    if r.windows.is_empty() {
        return out;
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
fn answer<T>(threads: usize, call: impl Fn() -> Result<(f64, T)>) -> Result<()> {
    let mut lines = std::io::stdin().lock();
    while let Some(Request { time }) = serve::request(&mut lines)? {
        if (0.0..=60.0).contains(&time) {
            serve::answer(&quiet::turn(time, threads, || call().map(|c| c.0))?)?;
        } else {
            serve::fail("time has to be a number from 0 to 60")?;
        }
    }
    Ok(())
}
