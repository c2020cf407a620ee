//! Runs the filetests of the passes: `filetests/<pass>/*.ir`.
//!
//! The header's options:
//! - `from=tensor` or `from=indexed`: the level of the input. From the tensor level every pass before the tested one
//!   runs too; from the indexed level (the default, but for `rangeify`) the text is what the tested pass takes, or
//!   for passes over kernels what `split` takes.
//! - `algorithm=auto|direct|winograd` (`winograd` unless given), `tile=4,2`, `points=0,1,-1`.
//! - `terms=64`, for `blocked`: terms of a block.
//! - `target=cuda:sm_80`: the target by name, for `canonical` and `grid`; else a CPU.
//! - `vector=16`: bytes of the target's vectors, 16 unless given.
//! - `target=metal`, `layout=creation`, `grid=range-id`, `plan=seed`, for `rules`, which plans the whole program: a GPU, the
//!   rules for layouts and grids, and a stored plan.
//! - `chain=0,1` and `blocks=1:4:grid,2:4:serial`, for `narrow` and `link`: which kernels become one launch, and blocks of
//!   the last one's loops by number, size and kind, outermost first. For `host`: which launches are repeated. With a GPU as
//!   `target=`, `link` has a workgroup run the kernels, with what is between them in shared memory.
//! - `stages=chunks:2`, for `scope` and `memory`: the rule for stages.
//!
//! `prefetch` takes linear code, for a first-level cache of 1 KiB; `neighbours` takes it for accesses of 16 bytes, and
//! makes conditions of whole vectors free of the lane too. `flatten` with a GPU as `target=` has all kernels walk along
//! flat axes.
//!
//! A line `; plan: a0=grid ...` in the input of a `lower` test is the plan of the next kernel; without any the
//! heuristic plans. After each pass the verifier of its level runs: what it refuses is the test's error.

use std::path::Path;
use winograph_compiler::kernel::{Kernel, Launch};
use winograph_compiler::lower::legalize;
use winograph_compiler::lower::link::{self, Part};
use winograph_compiler::lower::{neighbours, prefetch, whole};
use winograph_compiler::optimize::contract;
use winograph_compiler::optimize::grid;
use winograph_compiler::optimize::group;
use winograph_compiler::optimize::heuristic;
use winograph_compiler::optimize::plan::{Plan, Scheduled};
use winograph_compiler::optimize::stored::StoredPlans;
use winograph_compiler::options::{GridRule, LayoutRule, StageRule};
use winograph_compiler::schedule::narrow::{Block, narrow};
use winograph_compiler::schedule::{
    blocked, canonical, flatten, fuse, host, layout, operands, parts, rangeify, scope, split,
};
use winograph_compiler::target::Gpu;
use winograph_compiler::tune::Sums;
use winograph_compiler::winograd::rational::Rational;
use winograph_compiler::{Algorithm, Options, Target, compile, lower, winograd};
use winograph_ir::indexed::{Graph, Scope};
use winograph_ir::interp::gpu::{AccessKind, GpuModel, sites};
use winograph_ir::interp::sectors;
use winograph_ir::linear::{LoopKind, Memory};
use winograph_ir::text::filetest::{Header, run_dir};
use winograph_ir::text::{parse_indexed, parse_linear, parse_tensor, print_indexed, print_linear};
use winograph_ir::verify;

fn list<T: std::str::FromStr>(header: &Header, key: &str) -> Result<Option<Vec<T>>, String> {
    let Some(text) = header.get(key) else { return Ok(None) };
    let items = text.split(',').map(|t| t.parse().map_err(|_| format!("{key}={text}: `{t}` is not a number")));
    items.collect::<Result<Vec<T>, String>>().map(Some)
}

fn options(header: &Header) -> Result<Options, String> {
    let algorithm = match header.get("algorithm").unwrap_or("winograd") {
        "auto" => Algorithm::Auto,
        "direct" => Algorithm::Direct,
        "winograd" => Algorithm::Winograd,
        other => return Err(format!("no algorithm `{other}`")),
    };
    let points = list::<Rational>(header, "points")?;
    let layout = match header.get("layout").unwrap_or("auto") {
        "auto" => LayoutRule::Auto,
        "creation" => LayoutRule::Creation,
        other => return Err(format!("no rule `{other}` for layouts")),
    };
    let grid = match header.get("grid").unwrap_or("auto") {
        "auto" => GridRule::Auto,
        "range-id" => GridRule::RangeId,
        other => return Err(format!("no rule `{other}` for grids")),
    };
    let plans = match header.get("plan") {
        Some(name) => StoredPlans::known(name).ok_or_else(|| format!("no stored plan `{name}`"))?,
        None => StoredPlans::default(),
    };
    let stages = header.get("stages").unwrap_or("auto");
    let stages = StageRule::parse(stages).ok_or_else(|| format!("no rule `{stages}` for stages"))?;
    Ok(Options { algorithm, tile: list(header, "tile")?, points, layout, grid, stages, plans, ..Options::default() })
}

fn checked(g: &Graph, pass: &str) -> Result<(), String> {
    verify::indexed::verify(g).map_err(|e| format!("after {pass}: {e}"))
}

/// What is known so far of a test's way through the passes.
struct Way {
    header: Header,
    target: Target,
    options: Options,
    graph: Graph,
    /// Whether passes before the tested one run.
    from_tensors: bool,
}

impl Way {
    fn new(header: &Header, input: &str) -> Result<Way, String> {
        let default = if header.pass == "rangeify" { "tensor" } else { "indexed" };
        let (graph, from_tensors) = match header.get("from").unwrap_or(default) {
            "tensor" => {
                let tensors = parse_tensor(input).map_err(|e| e.to_string())?;
                verify::tensor::verify(&tensors).map_err(|e| format!("input: {e}"))?;
                let graph = rangeify::rangeify(&tensors);
                checked(&graph, "rangeify")?;
                (graph, true)
            }
            "indexed" => {
                let graph = parse_indexed(input).map_err(|e| e.to_string())?;
                checked(&graph, "input")?;
                (graph, false)
            }
            other => return Err(format!("no level `{other}`")),
        };
        let vector = list::<usize>(header, "vector")?.and_then(|v| v.first().copied()).unwrap_or(16);
        let target = match header.get("target") {
            Some(name) => Target::by_name(name).ok_or_else(|| format!("no target `{name}`"))?,
            None => Target::cpu(vector),
        };
        let options = options(header)?;
        Ok(Way { header: header.clone(), target, options, graph, from_tensors })
    }

    fn winograd(&mut self) -> Result<String, String> {
        let reports = winograd::run(&mut self.graph, &self.options)?;
        checked(&self.graph, "winograd")?;
        let line = |r: &winograph_compiler::explain::WindowReport| match r.applied {
            true => format!("; {}: tile {:?} for {:?} taps: {}\n", r.buffer, r.tile, r.taps, r.reason),
            false => format!("; {}: refused: {}\n", r.buffer, r.reason),
        };
        Ok(reports.iter().map(line).collect())
    }

    fn fuse(&mut self) -> Result<String, String> {
        let decisions = fuse::fuse(&mut self.graph);
        checked(&self.graph, "fuse")?;
        let line =
            |d: &fuse::Decision| format!("; {}: {}: {}\n", d.stage, if d.kept { "stays" } else { "goes" }, d.reason);
        Ok(decisions.iter().map(line).collect())
    }

    fn kernels(&mut self) -> Result<Vec<Kernel>, String> {
        if self.from_tensors {
            self.winograd()?;
            self.fuse()?;
        }
        Ok(split::split(&self.graph, 1))
    }

    /// The kernels and the launches that `chain=` and `blocks=` ask for.
    fn narrowed(&mut self) -> Result<(Vec<Kernel>, Vec<Launch>), String> {
        let mut kernels = self.kernels()?;
        let (chain, blocks) = self.blocks(kernels.len())?;
        let launch = narrow(&mut kernels, &chain, &blocks).map_err(|e| e.to_string())?;
        if let Some(what) = kernels.iter().find_map(Kernel::unproved) {
            return Err(format!("after narrow: {what}"));
        }
        let others = (0..kernels.len()).filter(|n| !chain.contains(n)).map(Launch::single);
        let mut launches: Vec<Launch> = others.collect();
        launches.push(launch);
        Ok((kernels, launches))
    }

    /// What `chain=` and `blocks=` ask for, of so many kernels.
    fn blocks(&self, kernels: usize) -> Result<(Vec<usize>, Vec<Block>), String> {
        let chain = list::<usize>(&self.header, "chain")?.ok_or("chain= is missing")?;
        let text = self.header.get("blocks").ok_or("blocks= is missing")?;
        let mut blocks = Vec::new();
        for block in text.split(',') {
            let bad = || format!("blocks: `{block}` is not axis:size:grid or axis:size:serial");
            let [axis, size, kind] = block.split(':').collect::<Vec<_>>()[..] else { return Err(bad()) };
            let kind = match kind {
                "grid" => LoopKind::Grid,
                "serial" => LoopKind::Serial,
                _ => return Err(bad()),
            };
            let (axis, size) = axis.parse().ok().zip(size.parse().ok()).ok_or_else(bad)?;
            blocks.push(Block { axis, size, kind });
        }
        if let Some(n) = chain.iter().find(|n| **n >= kernels) {
            return Err(format!("chain: no kernel {n}"));
        }
        Ok((chain, blocks))
    }

    /// The kernels of the chain that `chain=` asks for, in loops of the host.
    fn repeated(&mut self) -> Result<String, String> {
        let mut kernels = self.kernels()?;
        let (chain, blocks) = self.blocks(kernels.len())?;
        let launches = host::repeat(&mut kernels, &chain, &blocks, 0).map_err(|e| e.to_string())?;
        if let Some(what) = kernels.iter().find_map(Kernel::unproved) {
            return Err(format!("after host: {what}"));
        }
        let loops = launches.first().and_then(|l| l.host.as_ref()).ok_or("no loops")?;
        let nests = chain.iter().map(|&n| kernels[n].text() + "\n");
        Ok(std::iter::once(format!("; loops {:?}\n", loops.sizes)).chain(nests).collect())
    }

    /// The code of the launch that `chain=` asks for.
    fn linked(&mut self) -> Result<String, String> {
        let (mut kernels, launches) = self.narrowed()?;
        if let Some(gpu) = self.target.gpu.clone() {
            return self.grouped(kernels, &launches, &gpu);
        }
        flatten::flatten(&mut kernels, self.target.lanes(4), false, &|_, _| true);
        layout::layout(&mut kernels, &self.graph.buffers, &self.target, Default::default(), 1);
        let launch = launches.last().ok_or("no launch")?;
        let mut scheduled = Vec::new();
        for &n in &launch.kernels {
            let k = &kernels[n];
            let regions = contract::regions(k, &self.target, (None, None)).map(|r| r.parts);
            let regions = regions.unwrap_or_else(|| vec![(k.clone(), heuristic::plan(k, &self.target).serial())]);
            for (kernel, plan) in regions {
                scheduled.push(plan.apply(&kernel).map_err(|e| e.to_string())?);
            }
        }
        let parts = scheduled.iter().enumerate().map(|(of, s)| Part {
            kernel: &s.kernel,
            code: lower::emit::lower(s, compile::name(s)),
            of,
        });
        let (code, _) = link::link(launch, parts.collect(), "linked".to_string());
        verify::linear::verify(&code).map_err(|e| format!("after link: {e}"))?;
        Ok(print_linear(&code))
    }

    /// The code of the last launch, run by the threads of a workgroup.
    fn grouped(&mut self, mut kernels: Vec<Kernel>, launches: &[Launch], gpu: &Gpu) -> Result<String, String> {
        let launch = launches.last().ok_or("no launch")?;
        for k in launch.kernels.iter().copied() {
            let scratch = kernels[k].graph.buffers.iter_mut().filter(|b| b.scope == Scope::Scratch);
            scratch.for_each(|b| b.scope = Scope::Shared);
        }
        layout::layout(&mut kernels, &self.graph.buffers, &self.target, Default::default(), 1);
        let mut scheduled = Vec::new();
        for &n in &launch.kernels {
            scheduled.push(group::plan(&kernels[n], gpu).apply(&kernels[n]).map_err(|e| e.to_string())?);
        }
        let part = |(of, s): (usize, &Scheduled)| lower::emit::lower(s, compile::name(&scheduled[of]));
        let codes: Vec<_> = scheduled.iter().enumerate().map(part).collect();
        let parts = scheduled.iter().zip(codes).enumerate();
        let parts = parts.map(|(of, (s, code))| Part { kernel: &s.kernel, code, of });
        let (code, _) = link::link(launch, parts.collect(), "linked".to_string());
        verify::linear::verify(&code).map_err(|e| format!("after link: {e}"))?;
        Ok(print_linear(&code))
    }

    /// Kernels with the operations that renderers know.
    fn legalized(&mut self) -> Result<Vec<Kernel>, String> {
        let mut kernels = self.kernels()?;
        for k in &mut kernels {
            for i in 0..k.stores.len() {
                k.stores[i].value = legalize::legalize(&mut k.graph, k.stores[i].value);
            }
        }
        Ok(kernels)
    }

    /// Kernels as GPUs get them: axes by what they mean, buffers laid out.
    fn canonical(&mut self) -> Result<Vec<Kernel>, String> {
        let mut kernels = self.kernels()?;
        canonical::canonical(&mut kernels, &mut self.graph.buffers, true, 2);
        Ok(kernels)
    }

    /// The whole program: where its buffers are and what its steps use.
    fn program(self) -> Result<String, String> {
        let (program, _) =
            compile::compile_indexed(self.graph, &self.target, &self.options).map_err(|e| e.to_string())?;
        let mut out = format!(
            "arena {} prepare arena {} prepared {} bytes\n",
            program.arena_bytes, program.prepare_arena_bytes, program.prepared_bytes
        );
        for b in &program.buffers {
            out += &format!("{}: {}[{}] {:?}\n", b.name, b.dtype, b.len, b.place);
        }
        for (list, steps) in [("prepare", &program.prepare), ("run", &program.run)] {
            for s in steps {
                let names: Vec<&str> = s.args.iter().map(|&a| program.buffers[a].name.as_str()).collect();
                let chunk = if s.host.is_empty() { String::new() } else { format!(" chunk {:?}", s.host) };
                out += &format!("{list} {} {}{chunk}\n", program.kernels[s.kernel].name, names.join(" "));
            }
        }
        Ok(out)
    }

    /// What the rules for layouts and grids decide, and what each access then moves.
    fn ruled(&mut self) -> Result<String, String> {
        let gpu = self.target.gpu.clone().ok_or("target= is missing, or no GPU")?;
        self.winograd()?;
        let (program, why) =
            compile::compile_indexed(self.graph.clone(), &self.target, &self.options).map_err(|e| e.to_string())?;
        let mut out = String::new();
        for c in &why.layouts {
            out += &format!("; {}{:?}: axes {:?}: {}\n", c.buffer, c.shape, c.order, c.reason);
        }
        let model = GpuModel { lanes: gpu.lanes as u32, sector_bytes: gpu.sector as u32, ..GpuModel::default() };
        for (report, step) in why.kernels.iter().zip(program.prepare.iter().chain(&program.run)) {
            for n in &report.nests {
                out += &format!("{} {}\n  {}\n", n.name, n.role.name(), n.plan);
                match &n.stored {
                    Some(Ok(())) => out += "  replayed\n",
                    Some(Err(why)) => out += &format!("  replaced: {why}\n"),
                    None => out += &format!("  {}\n", n.grid.reason),
                }
                let blocks: Vec<String> = n.grid.blocks.iter().map(|(a, b)| format!("a{a} {b:.0}")).collect();
                if blocks.len() > 1 {
                    out += &format!("  bytes shared with the next block: {}\n", blocks.join(", "));
                }
            }
            let code = &program.kernels[step.kernel];
            let counts = sectors::count(code, &[], &model).ok_or("cannot be counted")?;
            let mut sums: Vec<(String, [u64; 3])> = Vec::new();
            for (site, c) in sites(code).iter().zip(&counts) {
                let Memory::Arg(at) = site.memory else { continue };
                let kind = if site.kind == AccessKind::Load { "load" } else { "store" };
                let name = format!("{kind} {}", program.buffers[step.args[at as usize]].name);
                let more = [c.requests, c.sectors, c.least_sectors];
                match sums.iter_mut().find(|s| s.0 == name) {
                    Some(s) => s.1.iter_mut().zip(more).for_each(|(a, b)| *a += b),
                    None => sums.push((name, more)),
                }
            }
            for (name, [requests, moved, least]) in sums {
                out += &format!("  {name}: {requests} requests, {moved} sectors, least {least}\n");
            }
        }
        Ok(out)
    }

    fn laid_out(&mut self) -> Result<(Vec<Kernel>, Vec<layout::Choice>), String> {
        let mut kernels = self.kernels()?;
        let choices = layout::layout(&mut kernels, &self.graph.buffers, &self.target, Default::default(), 1);
        Ok((kernels, choices))
    }

    fn scheduled(&mut self, plans: &[Plan]) -> Result<Vec<(Plan, Scheduled)>, String> {
        let (kernels, _) = self.laid_out()?;
        if !plans.is_empty() && plans.len() != kernels.len() {
            return Err(format!("{} plans for {} kernels", plans.len(), kernels.len()));
        }
        let mut out = Vec::new();
        for (n, k) in kernels.iter().enumerate() {
            let plan = plans.get(n).cloned().unwrap_or_else(|| heuristic::plan(k, &self.target));
            let scheduled = plan.apply(k).map_err(|e| e.to_string())?;
            out.push((plan, scheduled));
        }
        Ok(out)
    }
}

fn run(header: &Header, input: &str) -> Result<String, String> {
    if header.pass == "prefetch" {
        let mut code = parse_linear(input).map_err(|e| e.to_string())?;
        prefetch::prefetch(&mut code, 1024);
        verify::linear::verify(&code).map_err(|e| format!("after prefetch: {e}"))?;
        return Ok(print_linear(&code));
    }
    if header.pass == "neighbours" {
        let mut code = parse_linear(input).map_err(|e| e.to_string())?;
        neighbours::neighbours(&mut code, 16);
        whole::whole(&mut code);
        verify::linear::verify(&code).map_err(|e| format!("after neighbours: {e}"))?;
        return Ok(print_linear(&code));
    }
    let mut way = Way::new(header, input)?;
    match way.header.pass.as_str() {
        "rangeify" => Ok(print_indexed(&way.graph)),
        "winograd" => {
            let report = way.winograd()?;
            Ok(report + &print_indexed(&way.graph))
        }
        "fuse" => {
            if way.from_tensors {
                way.winograd()?;
            }
            let report = way.fuse()?;
            Ok(report + &print_indexed(&way.graph))
        }
        "split" => Ok(way.kernels()?.iter().map(|k| k.text() + "\n").collect()),
        "blocked" => {
            let terms = list::<usize>(header, "terms")?.and_then(|t| t.first().copied());
            let n = blocked::block_sums(&mut way.graph, terms);
            checked(&way.graph, "block sums")?;
            Ok(format!("; {n} sums\n{}", print_indexed(&way.graph)))
        }
        "parts" => {
            let gpu = way.target.gpu.clone().ok_or("target= names no GPU")?;
            let mut decisions = Vec::new();
            parts::parts(&mut way.graph, &gpu, &|_| Default::default(), &mut decisions);
            checked(&way.graph, "parts")?;
            let report: String = decisions.iter().map(|d| format!("; {}: {}\n", d.stage, d.reason)).collect();
            Ok(report + &print_indexed(&way.graph))
        }
        "legalize" => Ok(way.legalized()?.iter().map(|k| k.text() + "\n").collect()),
        "canonical" => Ok(way.canonical()?.iter().map(|k| k.text() + "\n").collect()),
        "grid" => {
            let mut kernels = way.canonical()?;
            layout::layout(&mut kernels, &way.graph.buffers, &way.target, Default::default(), 1);
            let gpu = way.target.gpu.clone().ok_or("target= names no GPU")?;
            let line = |k: &Kernel| {
                let (plan, _) = grid::plan(k, &gpu, Default::default());
                let s = plan.apply(k).map_err(|e| e.to_string())?;
                Ok(format!("{} {}\n  {plan}\n", compile::name(&s), k.role.name()))
            };
            kernels.iter().map(line).collect()
        }
        "scope" => {
            let mut kernels = way.legalized()?;
            // Weights are arguments here, so that nothing is prepared.
            let constant = vec![false; kernels.len()];
            let (launches, choices) =
                scope::scope(&mut kernels, &constant, &[], &way.target, way.options.stages, &mut Sums::default());
            if let Some(what) = kernels.iter().find_map(Kernel::unproved) {
                return Err(format!("after scope: {what}"));
            }
            let fused = |c: &scope::Choice| match c.chunks {
                Some(n) => format!("; {}: {n} chunks: {}\n", c.buffers.join(", "), c.reason),
                None => format!("; {}: one launch: {}\n", c.buffers.join(", "), c.fused),
            };
            let launched = |l: &Launch| {
                let names: Vec<String> = l.kernels.iter().map(|&n| kernels[n].output_name()).collect();
                match &l.host {
                    Some(host) => format!("launch {} for each of {:?}\n", names.join(", "), host.sizes),
                    None => format!("launch {} under {} loops\n", names.join(", "), l.outer.len()),
                }
            };
            Ok(choices.iter().map(fused).chain(launches.iter().map(launched)).collect())
        }
        "schedule" => {
            let plans = input.lines().filter_map(|l| l.strip_prefix("; plan:")).map(|l| Plan::parse(l.trim()));
            let plans = plans.collect::<Result<Vec<Plan>, _>>().map_err(|e| e.to_string())?;
            let scheduled = way.scheduled(&plans)?;
            Ok(scheduled.iter().map(|(_, s)| format!("{}\n{}\n", compile::name(s), s.kernel.text())).collect())
        }
        "memory" => way.program(),
        "host" => way.repeated(),
        "narrow" => {
            let (kernels, launches) = way.narrowed()?;
            let chain = &launches[launches.len() - 1].kernels;
            Ok(chain.iter().map(|&n| kernels[n].text() + "\n").collect())
        }
        "operands" => {
            let mut kernels = way.legalized()?;
            let constant = vec![false; kernels.len()];
            let staged = operands::stage(&mut kernels, &mut way.graph, &constant, &way.target, &mut Sums::default(), 1);
            let constant = vec![false; kernels.len()];
            let (launches, _) =
                scope::scope(&mut kernels, &constant, &staged, &way.target, Default::default(), &mut Sums::default());
            flatten::flatten(&mut kernels, way.target.lanes(4), false, &|_, _| true);
            if let Some(what) = kernels.iter().find_map(Kernel::unproved) {
                return Err(format!("after operands: {what}"));
            }
            let launched = |l: &Launch| format!("; one launch: {:?}\n", l.kernels);
            let nests = kernels.iter().map(|k| k.text() + "\n");
            Ok(launches.iter().map(launched).chain(nests).collect())
        }
        "flatten" => {
            let mut kernels = way.kernels()?;
            let loops = way.target.gpu.is_some();
            flatten::flatten(&mut kernels, way.target.lanes(4), loops, &|_, _| true);
            Ok(kernels.iter().map(|k| k.text() + "\n").collect())
        }
        "link" => way.linked(),
        "rules" => way.ruled(),
        "layout" => {
            let (kernels, choices) = way.laid_out()?;
            let choices: String =
                choices.iter().map(|c| format!("; {}: axes {:?}: {}\n", c.buffer, c.order, c.reason)).collect();
            // The declarations are enough: the rest is `split`'s.
            let declarations = |k: &Kernel| -> String {
                let text = k.text();
                let lines = text.lines().filter(|l| l.starts_with("kernel ") || l.starts_with("buffer "));
                lines.map(|l| format!("{l}\n")).collect()
            };
            Ok(kernels.iter().fold(choices, |out, k| out + &declarations(k)))
        }
        "plan" => {
            let scheduled = way.scheduled(&[])?;
            let line = |(plan, s): &(Plan, Scheduled)| -> Result<String, String> {
                let text = plan.to_string();
                let read = Plan::parse(&text).map_err(|e| format!("{text}: {e}"))?;
                if read != *plan {
                    return Err(format!("{text} reads as {read}"));
                }
                Ok(format!("{} {}\n  {text}\n", compile::name(s), s.kernel.role.name()))
            };
            scheduled.iter().map(line).collect()
        }
        "lower" => {
            let plans = input.lines().filter_map(|l| l.strip_prefix("; plan:")).map(|l| Plan::parse(l.trim()));
            let plans = plans.collect::<Result<Vec<Plan>, _>>().map_err(|e| e.to_string())?;
            let mut out = String::new();
            for (_, s) in way.scheduled(&plans)? {
                let code = lower::emit::lower(&s, compile::name(&s));
                verify::linear::verify(&code).map_err(|e| format!("after lower: {e}"))?;
                out += &print_linear(&code);
            }
            Ok(out)
        }
        other => Err(format!("no pass `{other}`")),
    }
}

#[track_caller]
fn folder(pass: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../filetests").join(pass);
    let failures = run_dir(&dir, &|header, input| match header.pass == pass {
        true => run(header, input),
        false => Err(format!("a test of `{}` in the folder of `{pass}`", header.pass)),
    });
    let messages: Vec<String> = failures.iter().map(|f| f.to_string()).collect();
    assert!(messages.is_empty(), "{}", messages.join("\n"));
}

#[test]
fn rangeify() {
    folder("rangeify");
}

#[test]
fn winograd() {
    folder("winograd");
}

#[test]
fn fuse() {
    folder("fuse");
}

#[test]
fn split() {
    folder("split");
}

#[test]
fn narrow_to_blocks() {
    folder("narrow");
}

#[test]
fn host_loops_around_launches() {
    folder("host");
}

#[test]
fn operands_in_panels() {
    folder("operands");
}

#[test]
fn flatten_axes() {
    folder("flatten");
}

#[test]
fn link_nests() {
    folder("link");
}

#[test]
fn block_sums() {
    folder("blocked");
}

#[test]
fn parts_of_sums() {
    folder("parts");
}

#[test]
fn legalize_operations() {
    folder("legalize");
}

#[test]
fn canonical_axes() {
    folder("canonical");
}

#[test]
fn grid_of_gpus() {
    folder("grid");
}

#[test]
fn rules_for_layouts_and_grids() {
    folder("rules");
}

#[test]
fn scope_of_stages() {
    folder("scope");
}

#[test]
fn schedule() {
    folder("schedule");
}

#[test]
fn memory() {
    folder("memory");
}

#[test]
fn layout() {
    folder("layout");
}

#[test]
fn plan() {
    folder("plan");
}

#[test]
fn lower() {
    folder("lower");
}

#[test]
fn neighbours_in_memory() {
    folder("neighbours");
}

#[test]
fn prefetching() {
    folder("prefetch");
}
