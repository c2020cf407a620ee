//! `winograph explain model`: every launch of a model with the nodes that it computes, what was decided about it and why.
//! Nothing is compiled to machine code and nothing is run.

use crate::args::ExplainModel;
use crate::error::{Error, Result};
use crate::explain::{self, Kernel};
use crate::output;
use crate::planned::Planned;
use crate::report::list;
use crate::run::inputs;
use crate::shapes;
use serde::Serialize;
use std::fmt::Write as _;
use winograph::search::PlanStore;
use winograph::settings;
use winograph_compiler::explain::KernelReport;
use winograph_compiler::{Explanation, Options, Program, Step};
use winograph_ir::linear::{Code, Instr, Stmt};

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    target: String,
    #[serde(skip)]
    gpu: bool,
    vector_bytes: usize,
    threads: usize,
    inputs: Vec<Input>,
    /// Launches of each run, and of the one time that weights are prepared.
    launches: usize,
    prepare_launches: usize,
    /// Kernels among them that differ.
    kernels: usize,
    arena_bytes: usize,
    prepared_bytes: usize,
    /// Launches of each run that move elements and compute nothing, and the bytes that they write.
    copies: usize,
    copied_bytes: usize,
    /// Launches in order, those of `prepare` first; where `--only` asks for some, those.
    steps: Vec<Launch>,
}

#[derive(Debug, Serialize)]
struct Input {
    name: String,
    dtype: String,
    shape: Vec<usize>,
}

/// One launch.
#[derive(Debug, Serialize)]
struct Launch {
    /// Its place among the launches of each run, or among those of `prepare`.
    number: usize,
    /// The model's nodes that it computes, or parts of which.
    nodes: Vec<String>,
    /// `direct`, or `winograd` with its tile; nothing where no product is summed.
    algorithm: Option<String>,
    /// Whether it moves elements and computes nothing.
    copy: bool,
    /// Bytes of the buffers that it writes.
    bytes_written: usize,
    /// Why each sum of products in it is computed as it is.
    sums: Vec<Why>,
    /// Why its kernels are one launch, or chains that they are a part of are not.
    chains: Vec<Why>,
    /// How the compiler's own buffers lie that it writes, and why.
    layouts: Vec<Layout>,
    /// Plans of its loop nests that a search has found, or why one that is stored does not fit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    search: Vec<String>,
    #[serde(flatten)]
    kernel: Kernel,
}

/// A decision.
#[derive(Debug, Serialize)]
struct Why {
    /// The buffers that it is about.
    buffers: Vec<String>,
    what: String,
    reason: String,
}

#[derive(Debug, Serialize)]
struct Layout {
    buffer: String,
    shape: Vec<i64>,
    /// Axes by number, slowest first.
    order: Vec<usize>,
    /// The axis that is cut into blocks of contiguous elements, and their size.
    block: Option<(usize, i64)>,
    reason: String,
    /// For each axis what the kernels that touch the buffer would cost with it contiguous.
    candidates: Vec<(usize, f64)>,
}

/// Runs the command.
pub(crate) fn run(args: &ExplainModel) -> Result<()> {
    let model = Planned::load(&args.model, &args.shape)?;
    let Some(specs) = &model.specs else {
        let sizes = |p: &winograph::model::Port| match inputs::shape_of(p, &[]) {
            Some((_, Some(shape))) if shape.iter().all(Option::is_some) => None,
            _ => Some(format!("--shape {}=SIZES", p.name)),
        };
        let open: Vec<String> = model.ports.iter().filter_map(sizes).collect();
        return Err(Error::usage(format!("what is computed depends on sizes that are open: give {}", open.join(" "))));
    };
    let target = explain::target(&args.target)?;
    let tolerance = args.tolerance.as_deref().map(shapes::tolerance).transpose()?;
    let env = settings::env().map_err(|e| Error::of("cannot read the environment", e))?;
    let options = Options { tolerance, ..Options::default() };
    let (program, explanation) = model.plan(specs, &target, &PlanStore::new(env.plans()), &options)?;
    // The explanation lists steps in the program's order.
    let all = program.prepare.iter().chain(&program.run);
    let mut steps = Vec::new();
    let (mut copies, mut copied_bytes, mut numbers) = (0, 0, [0; 2]);
    for (report, step) in explanation.kernels.iter().zip(all) {
        let number = &mut numbers[usize::from(!report.prepare)];
        *number += 1;
        // What loops of the host repeat is told once.
        if !report.is_first() {
            continue;
        }
        let kernel = explain::kernel(report, &program, step, report.role.name(), &target);
        let Some(launch) = kernel.map(|k| launch(report, step, &program, &explanation, k, *number)) else { continue };
        if launch.copy && !report.prepare {
            copies += 1;
            copied_bytes += launch.bytes_written;
        }
        if launch.is_about(&args.only) {
            steps.push(launch);
        }
    }
    let input = |(p, spec): (&winograph::model::Port, &winograph::ArgSpec)| Input {
        name: p.name.clone(),
        dtype: spec.dtype.to_string(),
        shape: spec.shape.clone(),
    };
    let report = Report {
        model: args.model.display().to_string(),
        target: target.name.clone(),
        gpu: target.gpu.is_some(),
        vector_bytes: target.vector_bytes,
        threads: target.threads,
        inputs: model.ports.iter().zip(specs).map(input).collect(),
        launches: program.run.len(),
        prepare_launches: program.prepare.len(),
        kernels: program.kernels.len(),
        arena_bytes: program.arena_bytes,
        prepared_bytes: program.prepared_bytes,
        copies,
        copied_bytes,
        steps,
    };
    if args.json {
        let text = serde_json::to_string(&report).map_err(|e| Error::failure("cannot write JSON", e))?;
        return output::print(&format!("{text}\n"));
    }
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_text(&mut out, &report);
    output::print(&out)
}

fn launch(
    report: &KernelReport,
    step: &Step,
    program: &Program,
    explanation: &Explanation,
    kernel: Kernel,
    number: usize,
) -> Launch {
    let writes = |buffer: &String| report.nests.iter().any(|n| n.output == *buffer);
    let code = program.kernels.get(step.kernel);
    let written = step.args.iter().zip(code.into_iter().flat_map(|c| &c.args)).filter(|(_, decl)| decl.written);
    let written = written.filter_map(|(&at, _)| program.buffers.get(at));
    let sums = explanation.windows.iter().filter(|w| writes(&w.buffer)).map(|w| Why {
        buffers: vec![w.buffer.clone()],
        what: match (w.applied, w.taps.is_empty()) {
            (true, _) => format!("Winograd, tile {}, taps {}", list(&w.tile), list(&w.taps)),
            (false, true) => "direct".to_string(),
            (false, false) => format!("direct, taps {}", list(&w.taps)),
        },
        reason: w.reason.clone(),
    });
    let chains = explanation.scopes.iter().filter(|c| c.buffers.iter().any(writes)).map(|c| Why {
        buffers: c.buffers.clone(),
        what: explain::launched(c.fused, c.chunks),
        reason: c.reason.clone(),
    });
    let layouts = explanation.layouts.iter().filter(|l| writes(&l.buffer)).map(|l| Layout {
        buffer: l.buffer.clone(),
        shape: l.shape.clone(),
        order: l.order.clone(),
        block: l.block,
        reason: l.reason.clone(),
        candidates: l.candidates.clone(),
    });
    let mut found: Vec<usize> = report.nests.iter().filter_map(|n| n.sum).collect();
    found.sort_unstable();
    found.dedup();
    let found = found.into_iter().filter_map(|n| explanation.sums.get(n));
    Launch {
        number,
        nodes: report.serves.clone(),
        algorithm: explanation.algorithm(report),
        copy: code.is_some_and(only_moves),
        bytes_written: written.map(|b| b.len.saturating_mul(b.dtype.size())).sum(),
        sums: sums.collect(),
        chains: chains.collect(),
        layouts: layouts.collect(),
        search: found.flat_map(crate::plans::searched).collect(),
        kernel,
    }
}

/// Whether a kernel moves elements and computes nothing.
fn only_moves(code: &Code) -> bool {
    let mut moves = true;
    code.for_each_stmt(&mut |s| {
        if let Stmt::Let { instr, .. } = s {
            moves &= matches!(
                instr,
                Instr::Load { .. }
                    | Instr::Rows { .. }
                    | Instr::Const(_)
                    | Instr::Splat { .. }
                    | Instr::Pack { .. }
                    | Instr::Shuffle { .. }
            );
        }
    });
    moves
}

impl Launch {
    /// Whether its nodes, its kernel or a buffer that it writes have one of these texts in their names; all do where there
    /// is none.
    fn is_about(&self, only: &[String]) -> bool {
        let outputs = self.kernel.nests.iter().map(|n| &n.output);
        let names = self.nodes.iter().chain(outputs).chain([&self.kernel.launch.name]);
        only.is_empty() || names.into_iter().any(|name| only.iter().any(|text| name.contains(text.as_str())))
    }
}

fn write_text(out: &mut String, r: &Report) -> std::fmt::Result {
    let threads = if r.threads == 1 { "1 thread".to_string() } else { format!("{} threads", r.threads) };
    writeln!(out, "{} on {} with vectors of {} bytes and {threads}", r.model, r.target, r.vector_bytes)?;
    for i in &r.inputs {
        writeln!(out, "input {}: {}[{}]", i.name, i.dtype, list(&i.shape))?;
    }
    writeln!(
        out,
        "{} launches, and {} once, for weights, of {} kernels that differ; arena {:.1} MB, prepared {:.1} MB",
        r.launches,
        r.prepare_launches,
        r.kernels,
        r.arena_bytes as f64 / 1e6,
        r.prepared_bytes as f64 / 1e6
    )?;
    writeln!(out, "copies that are left: {} launches that write {:.1} MB", r.copies, r.copied_bytes as f64 / 1e6)?;
    for s in &r.steps {
        let when = if s.kernel.prepare { "prepare " } else { "" };
        let nodes = if s.nodes.is_empty() { "no node of the model".to_string() } else { s.nodes.join(", ") };
        let how = match (&s.algorithm, s.copy) {
            (Some(a), _) => format!("{a}: "),
            (None, true) => "copy: ".to_string(),
            (None, false) => String::new(),
        };
        writeln!(out, "\n{when}{}  {how}{nodes}", s.number)?;
        for w in s.sums.iter().chain(&s.chains) {
            writeln!(out, "    {}: {}: {}", w.buffers.join(", "), w.what, w.reason)?;
        }
        for l in &s.layouts {
            let block = l.block.map_or(String::new(), |(axis, size)| format!(", axis {axis} in blocks of {size}"));
            writeln!(
                out,
                "    layout of {} [{}]: axes {}{block}: {}",
                l.buffer,
                list(&l.shape),
                list(&l.order),
                l.reason
            )?;
            let costs: Vec<String> = l.candidates.iter().map(|(a, cost)| format!("axis {a} about {cost:.0}")).collect();
            if costs.len() > 1 {
                writeln!(out, "      {} with each axis contiguous: {}", explain::cost_unit(r.gpu), costs.join(", "))?;
            }
        }
        for line in &s.search {
            writeln!(out, "    {line}")?;
        }
        explain::write_kernel(out, &s.kernel, true)?;
    }
    Ok(())
}
