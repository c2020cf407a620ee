//! `winograph bench overhead`: what a call costs beside its kernels.

use crate::args::BenchOverhead;
use crate::error::{Error, Result};
use crate::measure::median;
use crate::output;
use crate::progress::Progress;
use serde::Serialize;
use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use winograph::{
    ArgSpec, ConvOptions, DType, Function, FunctionOptions, Options, Tensor, TensorBuffer, compile_with,
    programs_planned, settings,
};
use winograph_compiler::Algorithm;
use winograph_compiler::options::StageRule;

/// Pause after which threads have gone to sleep.
const PAUSE: Duration = Duration::from_millis(3);

/// Calls after a pause.
const AFTER_PAUSE: usize = 100;

#[derive(Serialize)]
struct Report {
    threads: usize,
    functions: Vec<FunctionRow>,
    realize: Vec<RealizeRow>,
    /// Graphs that differ in bounded sizes alone.
    bounded: BoundedRow,
    tinygrad: Vec<TinygradRow>,
    /// Why there are no figures of tinygrad.
    no_tinygrad: Option<String>,
}

#[derive(Serialize)]
struct FunctionRow {
    name: &'static str,
    kernels: usize,
    call_us: f64,
    kernels_us: f64,
    overhead_us: f64,
    /// A call that finds the threads asleep.
    after_pause_us: f64,
}

#[derive(Serialize)]
struct RealizeRow {
    name: &'static str,
    /// From the operations on tensors to known elements.
    realize_us: f64,
    /// The program alone, as a compiled function.
    call_us: f64,
    overhead_us: f64,
}

#[derive(Serialize)]
struct BoundedRow {
    name: &'static str,
    realize_us: f64,
    /// Programs that were planned while it was measured.
    planned: u64,
}

#[derive(Serialize)]
struct TinygradRow {
    name: String,
    us: f64,
}

/// Runs the command.
pub(crate) fn run(args: &BenchOverhead) -> Result<()> {
    let report = measure(args).map_err(|e| Error::of("cannot measure", e))?;
    if args.json {
        let text = serde_json::to_string(&report).map_err(|e| Error::failure("cannot write JSON", e))?;
        return output::print(&format!("{text}\n"));
    }
    output::print(&text(&report))
}

fn measure(args: &BenchOverhead) -> winograph::Result<Report> {
    let calls = args.calls as usize;
    let mut progress = Progress::new(3);
    progress.step("calls of functions");
    let vectors = |shape: &[usize], seed| Tensor::randn(shape, DType::F32, seed);
    let small = vectors(&[8, 8], 1)?;
    let picture = vectors(&[1, 16, 64, 64], 2)?;
    let weight = vectors(&[16, 16, 3, 3], 3)?;
    let products = function(&small, Algorithm::Auto, |x| x.matmul(x)?.matmul(x)?.matmul(x))?;
    let conv = function(&picture, Algorithm::Winograd, |x| x.conv_direct(&weight, None, &ConvOptions::padding(1)))?;
    let functions = vec![
        function_row("x @ x @ x @ x, 8x8", &products, &small, calls)?,
        function_row("F(4,3) convolution, 16 channels, 64x64", &conv, &picture, calls)?,
    ];
    let (a, b, c) = (vectors(&[64, 64], 4)?, vectors(&[64, 64], 5)?, vectors(&[64, 64], 6)?);
    progress.step("computing graphs seen before");
    let mut step = 0f32;
    let mut number = || {
        step += 1.0;
        1.0 / step
    };
    let realize = vec![
        realize_row("relu(a * b + c).sum()", &[&a, &b, &c], calls, |t| {
            t[0].mul(&t[1])?.add(&t[2])?.relu()?.sum(&[], false)
        })?,
        realize_row("softmax(a @ b)", &[&a, &b], calls, |t| t[0].matmul(&t[1])?.softmax(-1))?,
        realize_row("a * k, another number k each time", &[&a], calls, |t| t[0].mul(number()))?,
        realize_row("a chain of 30 operations", &[&a, &b], calls, |t| {
            (0..15).try_fold(t[0].clone(), |x, i| x.add(&t[1])?.mul(1.0 / (i + 1) as f32))
        })?,
    ];
    let mut height = 0usize;
    let bounded = realize_bounded(
        &mut || {
            height = height % 63 + 2;
            vectors(&[height, 64], 7)?.bounded(0, 1, 64)
        },
        calls,
    )?;
    let threads =
        settings::env()?.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
    progress.step("tinygrad's calls");
    let (tinygrad, no_tinygrad) = match tinygrad(&args.python, calls) {
        Ok(rows) => (rows, None),
        Err(why) => (vec![], Some(why)),
    };
    Ok(Report { threads, functions, realize, bounded, tinygrad, no_tinygrad })
}

fn function(
    x: &Tensor,
    algorithm: Algorithm,
    f: impl FnOnce(&Tensor) -> winograph::Result<Tensor>,
) -> winograph::Result<Function> {
    // Three kernels are what is measured, not how few the compiler can make of them.
    let compiler = Some(Options { algorithm, stages: StageRule::Global, ..Options::default() });
    let options = FunctionOptions { compiler, ..Default::default() };
    compile_with(&[ArgSpec::new(x.dtype(), x.shape())], &options, |args| Ok(vec![f(&args[0])?]))
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The middle of the microseconds that `f` takes.
fn middle(calls: usize, mut f: impl FnMut() -> winograph::Result<f64>) -> winograph::Result<f64> {
    for _ in 0..calls.min(20) {
        f()?;
    }
    let mut all = (0..calls).map(|_| f()).collect::<winograph::Result<Vec<f64>>>()?;
    all.sort_by(f64::total_cmp);
    Ok(median(&all))
}

fn function_row(name: &'static str, f: &Function, x: &Tensor, calls: usize) -> winograph::Result<FunctionRow> {
    let mut buffers = f.buffers()?;
    let mut call = |pause: Duration| {
        let mut buffers: Vec<&mut TensorBuffer> = buffers.iter_mut().collect();
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
        let start = Instant::now();
        f.call_into(&[x], &mut buffers)?;
        Ok(micros(start.elapsed()))
    };
    let call_us = middle(calls, || call(Duration::ZERO))?;
    let after_pause_us = middle(calls.min(AFTER_PAUSE), || call(PAUSE))?;
    let kernels_us = middle(calls, || {
        let mut buffers: Vec<&mut TensorBuffer> = buffers.iter_mut().collect();
        Ok(f.call_timed(&[x], &mut buffers)?.into_iter().map(micros).sum())
    })?;
    let kernels = f.program().run.len();
    Ok(FunctionRow { name, kernels, call_us, kernels_us, overhead_us: call_us - kernels_us, after_pause_us })
}

/// `relu(a * k + b).sum()` of `a` with another number of rows, from 2 to 64, each time.
fn realize_bounded(a: &mut dyn FnMut() -> winograph::Result<Tensor>, calls: usize) -> winograph::Result<BoundedRow> {
    let mut step = 0f32;
    let mut once = |a: Tensor| {
        step += 1.0;
        let start = Instant::now();
        a.mul(1.0 / step)?.add(1.0)?.relu()?.sum(&[1], false)?.realize()?;
        Ok(micros(start.elapsed()))
    };
    // The first choice of sizes is compiled for itself, the second for all.
    for _ in 0..2 {
        once(a()?)?;
    }
    let before = programs_planned();
    let realize_us = middle(calls, || once(a()?))?;
    Ok(BoundedRow {
        name: "relu(a * k + 1).sum(1), another size each time",
        realize_us,
        planned: programs_planned() - before,
    })
}

fn realize_row(
    name: &'static str,
    args: &[&Tensor],
    calls: usize,
    mut f: impl FnMut(&[Tensor]) -> winograph::Result<Tensor>,
) -> winograph::Result<RealizeRow> {
    let tensors: Vec<Tensor> = args.iter().map(|&t| t.clone()).collect();
    let realize_us = middle(calls, || {
        let start = Instant::now();
        f(&tensors)?.realize()?;
        Ok(micros(start.elapsed()))
    })?;
    let specs: Vec<ArgSpec> = args.iter().map(|t| ArgSpec::new(t.dtype(), t.shape())).collect();
    let compiled = compile_with(&specs, &FunctionOptions::default(), |t| Ok(vec![f(t)?]))?;
    let mut buffers = compiled.buffers()?;
    let call_us = middle(calls, || {
        let mut buffers: Vec<&mut TensorBuffer> = buffers.iter_mut().collect();
        let start = Instant::now();
        compiled.call_into(args, &mut buffers)?;
        Ok(micros(start.elapsed()))
    })?;
    Ok(RealizeRow { name, realize_us, call_us, overhead_us: realize_us - call_us })
}

/// The same expressions by tinygrad on its CPU device, if this Python has it. Prints `name<TAB>microseconds`.
const SCRIPT: &str = "
import os, sys, time
os.environ.setdefault('DEV', 'CPU')
from tinygrad import Tensor, TinyJit
calls = int(sys.argv[1])
a, b, c = (Tensor.randn(64, 64).contiguous().realize() for _ in range(3))
s = Tensor.randn(8, 8).contiguous().realize()
def middle(f):
    times = []
    for i in range(calls + 5):
        start = time.perf_counter(); f(); times.append(time.perf_counter() - start)
    times = sorted(times[5:])
    return times[len(times) // 2] * 1e6
jit = TinyJit(lambda x: (x @ x @ x @ x).realize())
for name, f in (
    ('x @ x @ x @ x, 8x8, TinyJit', lambda: jit(s)),
    ('x @ x @ x @ x, 8x8, eager', lambda: (s @ s @ s @ s).realize()),
    ('relu(a * b + c).sum(), eager', lambda: (a * b + c).relu().sum().realize()),
    ('softmax(a @ b), eager', lambda: (a @ b).softmax(-1).realize()),
):
    print(f'{name}\\t{middle(f)}')
";

fn tinygrad(python: &str, calls: usize) -> std::result::Result<Vec<TinygradRow>, String> {
    let mut command = Command::new(python);
    command.args(["-c", SCRIPT, &calls.min(100).to_string()]).stdin(Stdio::null());
    let output = command.output().map_err(|e| format!("cannot run {python}: {e}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{python} says: {}", text.lines().last().unwrap_or("nothing").trim()));
    }
    let row = |line: &str| {
        let (name, us) = line.split_once('\t')?;
        Some(TinygradRow { name: name.to_string(), us: us.trim().parse().ok()? })
    };
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(row).collect())
}

fn text(report: &Report) -> String {
    let mut out =
        format!("microseconds, medians, {} thread{}\n\n", report.threads, if report.threads == 1 { "" } else { "s" });
    let line = |out: &mut String, cells: [&str; 6]| {
        let [name, a, b, c, d, e] = cells;
        let _ = writeln!(out, "{}", format!("{name:<42}{a:>9}{b:>11}{c:>11}{d:>10}{e:>13}").trim_end());
    };
    line(&mut out, ["compiled function", "kernels", "call", "kernels", "overhead", "after pause"]);
    for r in &report.functions {
        let [a, b, c, d] = [r.call_us, r.kernels_us, r.overhead_us, r.after_pause_us].map(|x| format!("{x:.2}"));
        line(&mut out, [r.name, &r.kernels.to_string(), &a, &b, &c, &d]);
    }
    out.push('\n');
    line(&mut out, ["realize, structure seen before", "", "realize", "call", "overhead", ""]);
    for r in &report.realize {
        let [a, b, c] = [r.realize_us, r.call_us, r.overhead_us].map(|x| format!("{x:.2}"));
        line(&mut out, [r.name, "", &a, &b, &c, ""]);
    }
    let (b, us) = (&report.bounded, format!("{:.2}", report.bounded.realize_us));
    line(&mut out, [b.name, "", &us, "", "", ""]);
    let _ = writeln!(out, "  {} programs planned meanwhile", b.planned);
    out.push('\n');
    if let Some(why) = &report.no_tinygrad {
        let _ = writeln!(out, "no figures of tinygrad: {why}; --python names another Python");
        return out;
    }
    line(&mut out, ["tinygrad", "", "call", "", "", ""]);
    for r in &report.tinygrad {
        line(&mut out, [&r.name, "", &format!("{:.2}", r.us), "", "", ""]);
    }
    out
}
