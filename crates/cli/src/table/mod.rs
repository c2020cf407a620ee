//! `winograph explain table`: what kernels of all kinds move on GPUs, under the old rules and under auto.

mod block;
mod cases;

use crate::args::ExplainTable;
use crate::error::{Error, Result};
use crate::html::mark::count;
use crate::kernels::{self, Touch};
use crate::output;
use crate::warp;
use cases::Case;
use std::fmt::Write as _;
use winograph_compiler::options::{GridRule, LayoutRule};
use winograph_compiler::target::Gpu;
use winograph_compiler::{Explanation, Options, Program, Step, Target};

/// How many times the least a launch may move before the table says why.
const NEAR: f64 = 1.25;

/// Runs the command.
pub(crate) fn run(args: &ExplainTable) -> Result<()> {
    let mut targets = Vec::new();
    for name in &args.target {
        let target = Target::by_name(name).filter(|t| t.gpu.is_some());
        let known: Vec<&str> = Target::NAMES.into_iter().filter(|n| *n != "cpu").collect();
        targets
            .push(target.ok_or_else(|| {
                Error::usage(format!("--target {name}: expected a GPU, one of {}", known.join(", ")))
            })?);
    }
    let wanted = |c: &Case| args.only.is_empty() || args.only.iter().any(|o| c.name.contains(o.as_str()));
    let cases: Vec<Case> = cases::all()?.into_iter().filter(wanted).collect();
    if cases.is_empty() {
        return Err(Error::usage(format!("--only {}: no case has that in its name", args.only.join(","))));
    }
    if args.times {
        return times(&cases, &targets);
    }
    output::print(&page(&cases, &targets)?)
}

/// The page of some cases on some GPUs.
fn page(cases: &[Case], targets: &[Target]) -> Result<String> {
    let mut out = String::from(HEAD);
    for target in targets {
        let Some(gpu) = &target.gpu else { continue };
        let _ = writeln!(out, "\n## {}\n\n{TITLES}", target.name);
        for case in cases {
            for row in rows(case, target, gpu)? {
                out.push_str(&row);
            }
        }
    }
    Ok(out)
}

const HEAD: &str = "# What kernels move

`winograph explain table` writes this page. For each launch: the sectors of global memory that it moves
under the old rules (`--layout creation --grid range-id`) and under `auto`, the least that could hold the bytes of each
request, how many times that `auto` moves, and the distinct sectors that the block in the middle touches. Weights of
convolutions are constants: their transform runs once. Where `auto` moves more than 1.25 times the least, the last column
says how a middle warp's addresses lie, and which part of what is moved the block asks for again, so that a cache that holds
a block's sectors would absorb it. `-`: addresses depend on data, or there are too many to go through.
";

const TITLES: &str =
    "| case | writes | kernel under auto | grid | block | vectors | old | auto | least | times | a block | why |
|---|---|---|---|---|---|---|---|---|---|---|---|";

fn compile(case: &Case, target: &Target, layout: LayoutRule, grid: GridRule) -> Result<(Program, Explanation)> {
    let options = Options { algorithm: case.algorithm, layout, grid, ..Options::default() };
    winograph::plan(&case.args, target, &options, false, |args| Ok(vec![(case.write)(args)?]))
        .map_err(|e| Error::of(&format!("cannot plan {}", case.name), e))
}

/// One launch: what it writes, what it moves.
struct Launch {
    outputs: String,
    moved: Option<(u64, u64)>,
    touches: Vec<Touch>,
}

fn launches(program: &Program, explanation: &Explanation, gpu: &Gpu) -> Vec<Launch> {
    let steps = program.prepare.iter().chain(&program.run);
    let one = |(report, step): (&winograph_compiler::explain::KernelReport, &Step)| {
        let counts = program.kernels.get(step.kernel).and_then(|code| kernels::counts(code, gpu));
        let touches = kernels::touches(program, step, counts.as_deref());
        let moved = touches.iter().filter(|t| t.space == "global").try_fold((0u64, 0u64), |sum, t| {
            let m = t.moved?;
            Some((sum.0 + m.sectors, sum.1 + m.least_sectors))
        });
        let outputs = report.nests.iter().map(|n| n.output.clone()).collect::<Vec<_>>().join(" ");
        Launch { outputs, moved, touches }
    };
    explanation.kernels.iter().zip(steps).map(one).collect()
}

fn rows(case: &Case, target: &Target, gpu: &Gpu) -> Result<Vec<String>> {
    let (old, old_explanation) = compile(case, target, LayoutRule::Creation, GridRule::RangeId)?;
    let (new, explanation) = compile(case, target, LayoutRule::Auto, GridRule::Auto)?;
    let (old, all) = (launches(&old, &old_explanation, gpu), launches(&new, &explanation, gpu));
    let steps = new.prepare.iter().chain(&new.run);
    let mut out = Vec::new();
    for (launch, step) in all.iter().zip(steps) {
        let Some(code) = new.kernels.get(step.kernel) else { continue };
        let sizes = |list: &[i64]| match list {
            [] => "1".to_string(),
            _ => list.iter().map(i64::to_string).collect::<Vec<_>>().join("×"),
        };
        let grid = kernels::grid(code);
        let number = |n: Option<u64>| n.map_or_else(|| "-".to_string(), count);
        let before = old.iter().find(|o| o.outputs == launch.outputs).and_then(|o| o.moved);
        let distinct = block::distinct(code, gpu);
        let vectors: Vec<String> = launch
            .touches
            .iter()
            .filter(|t| t.space == "global" && t.vector > 1)
            .map(|t| format!("{} {} {}", t.kind, t.buffer, t.vector))
            .collect();
        let times = launch.moved.map(|m| m.0 as f64 / m.1.max(1) as f64);
        let why = match (times, launch.moved) {
            (Some(t), Some(m)) if t > NEAR => why(&new, step, launch, gpu, m, &grid, distinct),
            _ => String::new(),
        };
        out.push(format!(
            "| {} | {} | `{}` | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            case.name,
            launch.outputs,
            code.name,
            sizes(&grid),
            sizes(&kernels::block(code)),
            if vectors.is_empty() { "none".to_string() } else { vectors.join(", ") },
            number(before.map(|m| m.0)),
            number(launch.moved.map(|m| m.0)),
            number(launch.moved.map(|m| m.1)),
            times.map_or_else(|| "-".to_string(), |t| format!("{t:.2}")),
            number(distinct),
            why
        ));
    }
    Ok(out)
}

/// Why a launch moves more than the least: which accesses, how their addresses lie, what a cache would absorb.
fn why(
    program: &Program,
    step: &Step,
    launch: &Launch,
    gpu: &Gpu,
    moved: (u64, u64),
    grid: &[i64],
    distinct: Option<u64>,
) -> String {
    let mut reasons = Vec::new();
    let pictures = warp::pictures(program, step, gpu);
    for t in launch.touches.iter().filter(|t| t.space == "global") {
        let Some(m) = t.moved.filter(|m| m.sectors as f64 > m.least_sectors as f64 * NEAR) else { continue };
        let pattern = pictures
            .iter()
            .find(|p| p.buffer == t.buffer && p.kind == t.kind)
            .map_or_else(String::new, |p| format!(": {}", p.pattern(gpu.sector as i64)));
        let times = m.sectors as f64 / m.least_sectors.max(1) as f64;
        reasons.push(format!("{} {} {times:.2}{pattern}", t.kind, t.buffer));
    }
    let blocks = grid.iter().map(|&n| n as u64).product::<u64>().max(1);
    if let Some(once) = distinct.map(|d| d.saturating_mul(blocks)).filter(|&once| once < moved.0) {
        let share = 100.0 * (1.0 - once as f64 / moved.0 as f64);
        reasons.push(format!("{share:.0} % is asked for again by its block, which a cache absorbs"));
    }
    reasons.join("; ")
}

/// How long the two passes take.
fn times(cases: &[Case], targets: &[Target]) -> Result<()> {
    let mut out = String::from(
        "| case | target | kernels | layout, us | plan, us | both, a kernel |\n|---|---|---|---|---|---|\n",
    );
    let mut most = (0.0f64, String::new());
    for target in targets {
        for case in cases {
            // The least of three: a machine that does something else adds to all of them.
            let (mut layout, mut plan, mut kernels) = (f64::INFINITY, f64::INFINITY, 1);
            for _ in 0..3 {
                let explanation = compile(case, target, LayoutRule::Auto, GridRule::Auto)?.1;
                let of = |name: &str| {
                    explanation.passes.iter().find(|p| p.name == name).and_then(|p| p.micros).unwrap_or(f64::NAN)
                };
                layout = layout.min(of("layout"));
                plan = plan.min(of("plan"));
                kernels = explanation.kernels.len().max(1);
            }
            let each = (layout + plan) / kernels as f64;
            if each > most.0 {
                most = (each, format!("{} on {}", case.name, target.name));
            }
            let _ =
                writeln!(out, "| {} | {} | {kernels} | {layout:.0} | {plan:.0} | {each:.0} |", case.name, target.name);
        }
    }
    let _ = writeln!(out, "\nAt most {:.0} us a kernel: {}.", most.0, most.1);
    output::print(&out)
}

#[cfg(test)]
mod tests;
