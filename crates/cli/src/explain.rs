//! `winograph explain conv`: what the compiler decides about a convolution, and why. Nothing is compiled to machine code
//! and nothing is run.

use crate::args::{Algo, ExplainConv};
use crate::error::{Error, Result};
use crate::forms::{self, Verdict};
use crate::html::{self, Page, Side};
use crate::json::{self, Shape};
use crate::kernels;
use crate::machine::Name;
use crate::output;
use crate::plans;
use crate::report::list;
use crate::shapes::Case;
use serde::Serialize;
use std::fmt::Write as _;
use winograph::cpu::capped_target;
use winograph::search::PlanStore;
use winograph::{AxisTile, DType, TensorBuffer, settings};
use winograph_compiler::explain::{BoundReport, KernelReport, NestReport};
use winograph_compiler::optimize::plan::Factor;
use winograph_compiler::options::{GridRule, LayoutRule};
use winograph_compiler::render::{RenderError, render_c, render_cuda, render_metal};
use winograph_compiler::{Explanation, Options, Program, Step, Target};
use winograph_ir::indexed::Origin;
use winograph_ir::linear::{Code, LoopKind, MemoryDecl, Stmt};

#[derive(Debug, Serialize)]
struct Report {
    target: String,
    /// The rules asked for.
    layout: &'static str,
    grid: &'static str,
    stage_rule: String,
    vector_bytes: usize,
    shape: Shape,
    algo: &'static str,
    applied: bool,
    reason: String,
    #[serde(serialize_with = "crate::json::tile")]
    tile: Vec<AxisTile>,
    amplification: Option<f64>,
    passes: Vec<Pass>,
    windows: Vec<Window>,
    sums: Vec<Sum>,
    stages: Vec<Stage>,
    scopes: Vec<Scope>,
    layouts: Vec<Layout>,
    kernels: Vec<Kernel>,
    arena_bytes: usize,
    prepared_bytes: usize,
    /// On a CPU: what a call takes beside that, and in all.
    #[serde(flatten)]
    memory: Option<json::Memory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
}

#[derive(Debug, Serialize)]
struct Pass {
    name: &'static str,
    micros: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dump: Option<String>,
}

#[derive(Debug, Serialize)]
struct Window {
    buffer: String,
    applied: bool,
    reason: String,
    #[serde(serialize_with = "crate::json::tile")]
    tile: Vec<AxisTile>,
    taps: Vec<usize>,
    amplification: Option<f64>,
    bound: Option<Bound>,
}

/// A sum of products that can be tuned.
#[derive(Debug, Serialize)]
struct Sum {
    buffer: String,
    /// `heuristics` or `search`.
    plan_from: &'static str,
    /// What was decided, as a search stores it.
    plan: Vec<String>,
    /// Where the plan is from in words, and what of it was left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    search: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Bound {
    factor: f64,
    unit_roundoff: f64,
    formula: &'static str,
    text: String,
}

impl From<BoundReport> for Bound {
    fn from(b: BoundReport) -> Bound {
        Bound { factor: b.factor, unit_roundoff: b.unit_roundoff, formula: b.formula, text: b.to_string() }
    }
}

#[derive(Debug, Serialize)]
struct Stage {
    stage: String,
    kept: bool,
    reason: String,
}

#[derive(Debug, Serialize)]
struct Scope {
    /// Buffers that the chain's kernels write, in order.
    buffers: Vec<String>,
    /// Whether they are one launch.
    fused: bool,
    /// The chunks of the result for which their launches are repeated.
    #[serde(skip_serializing_if = "Option::is_none")]
    chunks: Option<i64>,
    reason: String,
}

/// What became of a chain of kernels, in words.
pub(crate) fn launched(fused: bool, chunks: Option<i64>) -> String {
    match chunks {
        Some(n) => format!("separate launches for each of {n} chunks"),
        None if fused => "one launch".to_string(),
        None => "separate launches".to_string(),
    }
}

#[derive(Debug, Serialize)]
struct Layout {
    buffer: String,
    /// Axes by number, slowest first.
    order: Vec<usize>,
    reason: String,
    /// What the kernels that touch the buffer cost with each of its axes contiguous.
    candidates: Vec<Contiguous>,
}

/// An axis that could be contiguous.
#[derive(Debug, Serialize)]
struct Contiguous {
    axis: usize,
    /// Sectors on a GPU, vector instructions on a CPU, estimated.
    cost: f64,
}

fn is_one(n: &usize) -> bool {
    *n == 1
}

#[derive(Debug, Serialize)]
pub(crate) struct Kernel {
    #[serde(flatten)]
    pub(crate) launch: json::Kernel,
    pub(crate) prepare: bool,
    /// Launches of one run: more than 1 where loops of the host repeat it.
    #[serde(skip_serializing_if = "is_one")]
    times: usize,
    output: String,
    /// What runs in it, in order.
    pub(crate) nests: Vec<Nest>,
    /// Loops within a work item, outermost first; branches of the code one after another.
    loops: Vec<i64>,
    stages: Vec<Local>,
    buffers: Vec<Buffer>,
}

/// One loop nest of a kernel.
#[derive(Debug, Serialize)]
pub(crate) struct Nest {
    name: String,
    role: &'static str,
    pub(crate) output: String,
    /// Sizes of the kernel's common loops that it sits under, outermost first.
    under: Vec<i64>,
    ranges: Vec<Range>,
    /// Threads that were considered on a GPU, the best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    assignments: Vec<Assignment>,
    /// Which of them is the plan's, from 0.
    assignment_chosen: Option<usize>,
    /// Why the threads are as they are.
    #[serde(skip_serializing_if = "String::is_empty")]
    threads_reason: String,
    /// What neighbouring blocks share.
    #[serde(skip_serializing_if = "Option::is_none")]
    block_order: Option<String>,
    plan: String,
    /// What became of a stored plan that names this kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    stored_plan: Option<String>,
}

/// An assignment of threads to axes, the fastest first.
#[derive(Debug, Serialize)]
struct Assignment {
    threads: String,
    /// Sectors that a launch would move with one element a thread, estimated from a few warps.
    sectors: f64,
}

/// One axis of the plan.
#[derive(Debug, Serialize)]
struct Range {
    name: String,
    role: &'static str,
    size: i64,
    /// Kinds, outermost first, with their sizes where the plan gives one.
    kinds: Vec<String>,
}

/// Memory within a kernel.
#[derive(Debug, Serialize)]
struct Local {
    name: String,
    scope: &'static str,
    dtype: String,
    shape: Vec<i64>,
}

/// An argument of a kernel.
#[derive(Debug, Serialize)]
struct Buffer {
    name: String,
    dtype: String,
    shape: Vec<i64>,
    /// Whose it is.
    origin: &'static str,
    written: bool,
    layout: String,
}

/// Runs the command.
pub(crate) fn conv(args: &ExplainConv) -> Result<()> {
    let case = Case::new(&args.conv)?;
    let target = target(&args.target)?;
    if case.device != Name::Cpu {
        return Err(Error::usage("explain runs nothing: name a machine with --target instead of --device"));
    }
    let options = Options { plans: plans::read(args.plan.as_deref())?, ..forms::options(args.algo, &case) };
    if let Some(file) = &args.html {
        return write_html(file, args.algo, &case, &target, &options);
    }
    let (verdict, program, explanation) = plan(args.algo, &case, &target, &options, args.passes)?;
    plans::check_used(args.plan.as_deref(), [&explanation])?;
    let source = match args.source {
        true => Some(text_of(&program.kernels, &target).map_err(|e| Error::failure("cannot write the kernels", e))?),
        false => None,
    };
    let memory = match target.gpu {
        Some(_) => None,
        None => {
            let found = program.footprint().map_err(|e| Error::failure("cannot tell what memory it takes", e))?;
            Some(json::Memory::new(&found, case.bytes(), target.threads))
        }
    };
    let report = report(args.algo, &case, &target, verdict, &program, explanation, source);
    let report = Report { memory, ..report };
    if args.json {
        let text = serde_json::to_string(&report).map_err(|e| Error::failure("cannot write JSON", e))?;
        return output::print(&format!("{text}\n"));
    }
    output::print(&text(&report, args.plan.as_deref() == Some("")))
}

/// The target of a name: `cpu` is this machine, as the environment has it.
pub(crate) fn target(name: &str) -> Result<Target> {
    match name {
        "cpu" => {
            let env = settings::env().map_err(|e| Error::of("cannot read the environment", e))?;
            let target = capped_target(env.vector_bytes);
            Ok(Target { threads: env.threads.unwrap_or(target.threads), ..target })
        }
        name => Target::by_name(name).ok_or_else(|| {
            let hint = match name.strip_prefix("virtual:") {
                Some(_) => "; a virtual GPU is a device: explain counts what it would without one",
                None => "",
            };
            Error::usage(format!("unknown target `{name}`: expected one of {}{hint}", Target::NAMES.join(", ")))
        }),
    }
}

/// Kernels in the language of their target: C, CUDA C or, to read, Metal's.
fn text_of(kernels: &[Code], target: &Target) -> std::result::Result<String, RenderError> {
    match target.gpu.is_some() {
        false => render_c(kernels, target).map(|s| s.text),
        true if target.name == "metal" => render_metal(kernels, target),
        true => render_cuda(kernels, target).map(|s| s.text),
    }
}

/// Writes the page: the program under the rules that are asked for beside the one under the old rules.
fn write_html(file: &std::path::Path, algo: Algo, case: &Case, target: &Target, options: &Options) -> Result<()> {
    let side = |layout: LayoutRule, grid: GridRule| -> Result<(Verdict, Side)> {
        let options = Options { layout, grid, ..options.clone() };
        let (verdict, program, explanation) = plan(algo, case, target, &options, true)?;
        Ok((verdict, Side { rules: (layout.name(), grid.name()), program, explanation }))
    };
    let (verdict, new) = side(options.layout, options.grid)?;
    let mut square = Vec::new();
    for layout in [LayoutRule::Creation, LayoutRule::Auto] {
        for grid in [GridRule::RangeId, GridRule::Auto] {
            square.push((layout.name(), grid.name(), html::sectors(&side(layout, grid)?.1.program, target)));
        }
    }
    let applied = if verdict.applied { "" } else { " does not apply, the direct form is shown" };
    let page = html::page(&Page {
        title: format!("A convolution on {}", target.name),
        about: format!(
            "input {}, weight {}, stride {}, padding {}, dilation {}, groups {}",
            list(&case.input),
            list(&case.weight),
            list(&case.stride),
            list(&case.padding),
            list(&case.dilation),
            case.groups
        ),
        verdict: format!("{}{applied}: {}", algo.name(), verdict.reason),
        target: target.clone(),
        old: side(LayoutRule::Creation, GridRule::RangeId)?.1,
        new,
        square,
    });
    std::fs::write(file, &page).map_err(|e| Error::failure(format!("cannot write {}", file.display()), e))?;
    output::print(&format!("{}: {} bytes\n", file.display(), page.len()))
}

/// Plans a form, or the direct one where that form does not apply.
fn plan(
    algo: Algo,
    case: &Case,
    target: &Target,
    options: &Options,
    dumps: bool,
) -> Result<(Verdict, Program, Explanation)> {
    let cannot = |e| Error::of("cannot plan the convolution", e);
    // What the weights are does not matter to the compiler.
    let w = TensorBuffer::new(DType::F32, &case.weight).map_err(cannot)?.into_tensor();
    let mut chosen = None;
    // Plans for another target than this machine's are those of a machine that the folder is shared with.
    let env = settings::env().map_err(|e| Error::of("cannot read the environment", e))?;
    let stored = PlanStore::new(env.plans());
    let planned = winograph::plan_stored(&forms::arguments(case), target, &stored, options, dumps, |args| {
        forms::write(algo, case, args, &w, &mut chosen)
    });
    match planned {
        Ok((program, explanation)) => Ok((forms::verdict(algo, chosen, &explanation), program, explanation)),
        Err(winograph::Error::Inapplicable { reason, .. }) => {
            let (_, program, explanation) = plan(Algo::Direct, case, target, options, dumps)?;
            Ok((Verdict { reason, ..Verdict::default() }, program, explanation))
        }
        Err(e) => Err(cannot(e)),
    }
}

fn report(
    algo: Algo,
    case: &Case,
    target: &Target,
    verdict: Verdict,
    program: &Program,
    explanation: Explanation,
    source: Option<String>,
) -> Report {
    // The explanation lists steps in the program's order.
    let steps = program.prepare.iter().chain(&program.run);
    let prepared = program.prepare.iter().filter_map(|s| Some(program.kernels.get(s.kernel)?.role.name()));
    let roles = prepared.chain(kernels::roles(program, algo == Algo::Tensor && verdict.applied));
    let kernels = explanation.kernels.iter().zip(steps).zip(roles);
    // What loops of the host repeat is told once.
    let kernels = kernels.filter(|((k, _), _)| k.is_first());
    let kernels = kernels.filter_map(|((k, step), role)| kernel(k, program, step, role, target)).collect();
    let passes = explanation.passes.into_iter();
    Report {
        target: target.name.clone(),
        layout: case.rules.layout.name(),
        grid: case.rules.grid.name(),
        stage_rule: case.rules.stages.name(),
        vector_bytes: target.vector_bytes,
        shape: case.into(),
        algo: algo.name(),
        applied: verdict.applied,
        reason: verdict.reason,
        tile: verdict.tile,
        amplification: verdict.amplification,
        passes: passes.map(|p| Pass { name: p.name, micros: p.micros, dump: p.dump }).collect(),
        windows: explanation
            .windows
            .into_iter()
            .map(|w| Window {
                buffer: w.buffer,
                applied: w.applied,
                reason: w.reason,
                tile: w.tile,
                taps: w.taps,
                amplification: w.amplification,
                bound: w.bound.map(Bound::from),
            })
            .collect(),
        sums: explanation
            .sums
            .into_iter()
            .map(|s| Sum {
                search: plans::searched(&s),
                plan_from: s.origin.name(),
                plan: s.used.to_string().lines().map(str::to_string).collect(),
                buffer: s.buffer,
            })
            .collect(),
        stages: explanation
            .stages
            .into_iter()
            .map(|s| Stage { stage: s.stage, kept: s.kept, reason: s.reason })
            .collect(),
        scopes: explanation
            .scopes
            .into_iter()
            .map(|c| Scope { buffers: c.buffers, fused: c.fused, chunks: c.chunks, reason: c.reason })
            .collect(),
        layouts: explanation
            .layouts
            .into_iter()
            .map(|l| {
                let candidates = l.candidates.into_iter().map(|(axis, cost)| Contiguous { axis, cost }).collect();
                Layout { buffer: l.buffer, order: l.order, reason: l.reason, candidates }
            })
            .collect(),
        kernels,
        arena_bytes: program.arena_bytes,
        prepared_bytes: program.prepared_bytes,
        memory: None,
        source,
    }
}

fn nest(k: &NestReport) -> Nest {
    let axis = |letter: char, role: &'static str| {
        move |(i, (factors, &size)): (usize, (&Vec<Factor>, &i64))| Range {
            name: format!("{letter}{i}"),
            role,
            size,
            kinds: factors
                .iter()
                .map(|f| match f.size {
                    Some(s) => format!("{}:{s}", f.kind.name()),
                    None => f.kind.name().to_string(),
                })
                .collect(),
        }
    };
    let maps = k.plan.loops.iter().zip(&k.loops).enumerate().map(axis('a', "map"));
    let reduces = k.plan.reduces.iter().zip(&k.reduces).enumerate().map(axis('r', "reduce"));
    Nest {
        name: k.name.clone(),
        role: k.role.name(),
        output: k.output.clone(),
        under: k.under.clone(),
        ranges: maps.chain(reduces).collect(),
        assignments: k
            .grid
            .candidates
            .iter()
            .take(6)
            .map(|c| Assignment { threads: c.threads.clone(), sectors: c.sectors })
            .collect(),
        assignment_chosen: k.grid.chosen,
        threads_reason: k.grid.reason.clone(),
        block_order: kernels::block_order(&k.grid),
        plan: k.plan.to_string(),
        stored_plan: k.stored.as_ref().map(|s| match s {
            Ok(()) => "replayed".to_string(),
            Err(why) => format!("replaced: {why}"),
        }),
    }
}

/// What is told of a step; `None` where its kernel is not there.
pub(crate) fn kernel(
    k: &KernelReport,
    program: &Program,
    step: &Step,
    role: &'static str,
    target: &Target,
) -> Option<Kernel> {
    let code = program.kernels.get(step.kernel)?;
    let buffers = code.args.iter().enumerate().map(|(i, decl)| {
        let named = step.args.get(i).and_then(|&b| program.buffers.get(b));
        Buffer {
            name: named.map_or_else(|| decl.name.clone(), |b| b.name.clone()),
            dtype: decl.dtype.to_string(),
            shape: shape(code, decl),
            origin: match decl.origin {
                Origin::Argument(_) => "argument",
                Origin::Constant(_) => "constant",
                Origin::Output(_) => "output",
                Origin::Internal => "internal",
            },
            written: decl.written,
            layout: layout(code, decl),
        }
    });
    let stages = code.locals.iter().map(|decl| Local {
        name: decl.name.clone(),
        scope: kernels::space(decl.scope),
        dtype: decl.dtype.to_string(),
        shape: shape(code, decl),
    });
    let counts = target.gpu.as_ref().and_then(|gpu| kernels::counts(code, gpu));
    let again = |s: &&Step| s.kernel == step.kernel && s.args == step.args;
    let times = if k.host.is_empty() { 1 } else { program.run.iter().filter(again).count().max(1) };
    Some(Kernel {
        // Nothing is run.
        launch: json::Kernel::new(program, step, role, f64::NAN, counts.as_deref())?,
        prepare: k.prepare,
        times,
        output: k.nests.last().map(|n| n.output.clone()).unwrap_or_default(),
        nests: k.nests.iter().map(nest).collect(),
        loops: loops(code),
        stages: stages.collect(),
        buffers: buffers.collect(),
    })
}

/// Sizes of the loops that run within a work item.
fn loops(code: &Code) -> Vec<i64> {
    let mut out = Vec::new();
    code.for_each_stmt(&mut |s| {
        if let Stmt::Loop { range, kind: LoopKind::Serial, .. } = s {
            out.push(code.ints.max_size(*range));
        }
    });
    out
}

fn shape(code: &Code, decl: &MemoryDecl) -> Vec<i64> {
    decl.shape.iter().map(|&s| code.ints.bounds(s).1).collect()
}

/// What costs of layouts are counted in.
pub(crate) fn cost_unit(on_a_gpu: bool) -> &'static str {
    if on_a_gpu { "sectors" } else { "vector instructions" }
}

/// A layout as text: its factors with their strides, slowest first.
fn layout(code: &Code, decl: &MemoryDecl) -> String {
    let factors: Vec<String> = decl
        .layout
        .dims
        .iter()
        .map(|d| {
            let mut index = format!("i{}", d.axis);
            if d.div != 1 {
                let _ = write!(index, "/{}", d.div);
            }
            if let Some(m) = d.modulus {
                let _ = write!(index, "%{m}");
            }
            format!("{index}*{}", code.ints.bounds(d.stride).1)
        })
        .collect();
    if factors.is_empty() { "0".to_string() } else { factors.join(" + ") }
}

fn text(report: &Report, with_plans: bool) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_text(&mut out, report, with_plans);
    out
}

fn write_text(out: &mut String, r: &Report, with_plans: bool) -> std::fmt::Result {
    let s = &r.shape;
    writeln!(
        out,
        "{} with vectors of {} bytes: input {}, weight {}, stride {}, padding {}, dilation {}, groups {}",
        r.target,
        r.vector_bytes,
        list(&s.input),
        list(&s.weight),
        list(&s.stride),
        list(&s.padding),
        list(&s.dilation),
        s.groups
    )?;
    let applied = if r.applied { "" } else { " does not apply, the direct form is explained" };
    writeln!(out, "{}{applied}: {}", r.algo, r.reason)?;

    writeln!(out, "\nPasses")?;
    for p in &r.passes {
        match p.micros {
            Some(t) => writeln!(out, "  {:<10} {t:9.1} us", p.name)?,
            None => writeln!(out, "  {}", p.name)?,
        }
        if let Some(dump) = p.dump.as_deref().filter(|d| !d.is_empty()) {
            for line in dump.lines() {
                writeln!(out, "    {line}")?;
            }
        }
    }
    writeln!(out, "\nWindows (winograd): sums of products and what became of them")?;
    for w in &r.windows {
        let verdict = if w.applied { "rewritten" } else { "kept" };
        writeln!(out, "  {}: {verdict}: {}", w.buffer, w.reason)?;
        if let Some(a) = w.amplification {
            writeln!(out, "    tile {}, taps {}, worst-case amplification {a:.1}", list(&w.tile), list(&w.taps))?;
        }
        if let Some(b) = &w.bound {
            writeln!(out, "    {}", b.text)?;
        }
    }
    if r.sums.iter().any(|s| !s.search.is_empty()) {
        writeln!(out, "\nSearch (bench conv --search): plans that were stored for these sums")?;
    }
    for line in r.sums.iter().flat_map(|s| &s.search) {
        writeln!(out, "  {line}")?;
    }
    writeln!(out, "\nStages (fuse)")?;
    for s in &r.stages {
        writeln!(out, "  {}: {}: {}", s.stage, if s.kept { "kept" } else { "removed" }, s.reason)?;
    }
    if !r.scopes.is_empty() {
        writeln!(out, "\nLaunches (scope): chains of kernels around a sum of products")?;
    }
    for s in &r.scopes {
        let what = launched(s.fused, s.chunks);
        writeln!(out, "  {}: {what}: {}", s.buffers.join(", "), s.reason)?;
    }
    writeln!(out, "\nLayouts (layout): axes from slowest to contiguous")?;
    let what = cost_unit(r.kernels.iter().any(|k| !k.launch.block.is_empty()));
    for l in &r.layouts {
        writeln!(out, "  {}: {}: {}", l.buffer, list(&l.order), l.reason)?;
        let costs: Vec<String> = l.candidates.iter().map(|c| format!("axis {} about {:.0}", c.axis, c.cost)).collect();
        if costs.len() > 1 {
            writeln!(out, "    {what} with each axis contiguous: {}", costs.join(", "))?;
        }
    }
    writeln!(out, "\nMemory (memory): arena of {} bytes, prepared {} bytes", r.arena_bytes, r.prepared_bytes)?;
    if let Some(memory) = &r.memory {
        writeln!(out, "  {memory}")?;
    }
    writeln!(out, "\nKernels (plan, schedule, lower)")?;
    for k in &r.kernels {
        write_kernel(out, k, with_plans)?;
    }
    if let Some(source) = &r.source {
        writeln!(out, "\nSource\n{source}")?;
    }
    Ok(())
}

pub(crate) fn write_kernel(out: &mut String, k: &Kernel, with_plan: bool) -> std::fmt::Result {
    let when = match (k.prepare, k.times) {
        (true, _) => ", once, in prepare".to_string(),
        (false, 1) => String::new(),
        (false, n) => format!(", for each of {n} chunks"),
    };
    writeln!(out, "  {} ({}{when}) writes {}", k.launch.name, k.launch.role, k.output)?;
    let sizes = |list: &[i64]| match list {
        [] => "none".to_string(),
        _ => list.iter().map(i64::to_string).collect::<Vec<_>>().join(" x "),
    };
    for n in &k.nests {
        if k.nests.len() > 1 {
            writeln!(out, "    nest {} ({}) writes {}, under {}", n.name, n.role, n.output, sizes(&n.under))?;
        }
        for r in &n.ranges {
            writeln!(out, "    range {} {} of {}: {}", r.name, r.role, r.size, r.kinds.join(", "))?;
        }
    }
    let grid = if k.launch.grid.is_empty() { "1".to_string() } else { sizes(&k.launch.grid) };
    match &k.launch.block[..] {
        [] => writeln!(out, "    grid {grid}, loops {}", sizes(&k.loops))?,
        block => writeln!(out, "    grid {grid}, block {}, loops {}", sizes(block), sizes(&k.loops))?,
    }
    if k.stages.is_empty() {
        writeln!(out, "    stages: none but registers")?;
    }
    for s in &k.stages {
        writeln!(out, "    stage {} {}[{}] in {}", s.name, s.dtype, list(&s.shape), s.scope)?;
    }
    for b in &k.buffers {
        writeln!(out, "    buffer {} {}[{}] {}, at {}", b.name, b.dtype, list(&b.shape), b.origin, b.layout)?;
    }
    for a in &k.launch.accesses {
        writeln!(out, "    {a}")?;
    }
    for nest in &k.nests {
        for (n, a) in nest.assignments.iter().enumerate() {
            let which = if Some(n) == nest.assignment_chosen { "best" } else { "instead" };
            writeln!(out, "    {which} threads {}: about {:.0} sectors at one element a thread", a.threads, a.sectors)?;
        }
        if !nest.threads_reason.is_empty() {
            writeln!(out, "    threads: {}", nest.threads_reason)?;
        }
        if let Some(order) = &nest.block_order {
            writeln!(out, "    blocks: {order}")?;
        }
        if let Some(stored) = &nest.stored_plan {
            writeln!(out, "    stored plan {stored}")?;
        }
        if with_plan {
            writeln!(out, "    plan {}: {}", nest.output, nest.plan)?;
        }
    }
    Ok(())
}
