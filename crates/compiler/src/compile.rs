//! The driver: runs the passes in order, times them through the caller's observer, keeps what they decided.

use crate::explain::{Explanation, KernelReport, NestReport, Observer, PassReport, Silent};
use crate::kernel::{HostLoops, Kernel, Launch, constant_kernels};
use crate::lower::link::{self, Part};
use crate::lower::{emit, in_place, legalize, neighbours, places, prefetch, shared, stream, whole};
use crate::optimize::blocks;
use crate::optimize::contract;
use crate::optimize::grid::{self, GridReport};
use crate::optimize::group;
use crate::optimize::heuristic;
use crate::optimize::plan::{Factor, Plan, PlanError, Scheduled};
use crate::optimize::stored;
use crate::optimize::units;
use crate::options::{GridRule, LayoutRule, Options, Products, StageRule};
use crate::parallel;
use crate::program::{Place, Program, ProgramBuffer, Step};
use crate::provenance::{self, Notes};
use crate::schedule::{
    blocked, canonical, factors, flatten, fuse, layout, memory, nest, operands, parts, rangeify, scope, split,
};
use crate::sketch::{self, Sketch};
use crate::target::{Gpu, Target};
use crate::tune::{Note, Origin as TuningOrigin, SumReport, Sums, Tuning, TuningRule};
use crate::winograd;
use rustc_hash::FxHashMap;
use thiserror::Error;
use winograph_ir::indexed::{BufId, Graph, Origin};
use winograph_ir::int::{Ints, RangeId};
use winograph_ir::linear::Code;
use winograph_ir::tensor::TensorGraph;
use winograph_ir::text;
use winograph_ir::verify::{self, VerifyError};

/// What a user can do about a refusal: what comes in may be wrong; what a pass leaves is not the user's fault.
fn advice(pass: &str) -> &'static str {
    match pass {
        "input" => "",
        _ => {
            "; this is a fault of the compiler, please report it with the graph; another algorithm, tile or target may avoid it"
        }
    }
}

/// Why a graph does not compile.
#[derive(Clone, Debug, Error)]
pub enum CompileError {
    /// The graph, or what a pass left of it, is not well-formed.
    #[error("after {pass}: {error}{}", advice(pass))]
    Verify {
        /// The pass whose result was refused; `input` for the graph itself.
        pass: &'static str,
        /// What does not hold.
        error: VerifyError,
    },
    /// A kernel whose accesses cannot be proved in bounds is not launched.
    #[error("kernel {kernel} is refused, since nothing unproved runs: {error}{}", advice("lower"))]
    Refused {
        /// The kernel.
        kernel: String,
        /// What does not hold.
        error: VerifyError,
    },
    /// A plan does not fit its kernel.
    #[error("kernel for {buffer}: {error}")]
    Plan {
        /// The buffer that the kernel writes.
        buffer: String,
        /// What does not fit.
        error: PlanError,
    },
    /// Options that no graph can be compiled with.
    #[error("{0}")]
    Options(String),
}

/// Compiles a graph for a target.
pub fn compile(
    tensors: &TensorGraph,
    target: &Target,
    options: &Options,
) -> Result<(Program, Explanation), CompileError> {
    compile_observed(tensors, target, options, &mut Silent)
}

/// A kernel's plan and where it is from.
struct Planned {
    kernel: Kernel,
    plan: Plan,
    grid: GridReport,
    stored: Option<Result<(), String>>,
    /// What else the kernel's plan could be, where its sum may be tuned.
    others: Vec<Plan>,
}

/// Plans of a kernel on a GPU that are listed for who measures.
const OTHERS: usize = 12;

struct Driver<'a> {
    /// Threads that work on kernels.
    workers: usize,
    observer: &'a mut dyn Observer,
    /// The tensor graph's notes, and which of them definitions serve.
    notes: (Vec<String>, Notes),
    explanation: Explanation,
}

impl Driver<'_> {
    fn new(observer: &mut dyn Observer) -> Driver<'_> {
        Driver { workers: observer.workers(), observer, notes: Default::default(), explanation: Explanation::default() }
    }

    /// Runs one pass, times it and keeps its result as text if wanted.
    fn pass<T>(&mut self, name: &'static str, run: impl FnOnce() -> T, dump: impl FnOnce(&T) -> String) -> T {
        let before = self.observer.now();
        let out = run();
        let micros = before.zip(self.observer.now()).map(|(a, b)| b - a);
        let dump = self.observer.wants_dumps().then(|| dump(&out));
        self.explanation.passes.push(PassReport { name, micros, dump, sketch: None });
        out
    }

    /// The sums of products that may be tuned, with what is given for each or found by the observer.
    fn sums(&mut self, g: &Graph, options: &Options, rules: &winograd::Rules) -> Sums {
        let mut sums = Sums::default();
        let wanted = match options.tuning {
            TuningRule::Off => false,
            // Plans that are asked for are what is to be used.
            TuningRule::Stored => options.plans.plans.is_empty() && self.observer.has_tunings(),
            TuningRule::Given(_) => true,
        };
        if !wanted {
            return sums;
        }
        for (buffer, problem, work) in winograd::problems(g, options, rules) {
            let mut refused = Vec::new();
            let found = match &options.tuning {
                TuningRule::Off => None,
                TuningRule::Stored => match self.observer.tuning(&problem) {
                    Some(Ok(tuning)) => Some((TuningOrigin::Stored, tuning)),
                    Some(Err(why)) => {
                        refused.push(why);
                        None
                    }
                    None => None,
                },
                TuningRule::Given(list) => {
                    let key = problem.key();
                    list.iter().find(|t| t.0 == key).map(|t| (TuningOrigin::Given, t.1.clone()))
                }
            };
            let (origin, asked) = found.unwrap_or((TuningOrigin::Heuristics, Tuning::default()));
            let report = SumReport {
                problem,
                buffer: g.buffer(buffer).name.clone(),
                work,
                origin,
                asked,
                refused,
                used: Tuning::default(),
                tiles: Vec::new(),
                extents: None,
                chunks: 1,
                fused: None,
            };
            sums.add(buffer, report);
        }
        sums
    }

    /// Keeps a picture of what the last pass left, if wanted.
    fn sketch(&mut self, sketch: impl FnOnce() -> Sketch) {
        if self.observer.wants_dumps()
            && let Some(last) = self.explanation.passes.last_mut()
        {
            last.sketch = Some(sketch());
        }
    }
}

/// Compiles a graph for a target and lets an observer watch.
pub fn compile_observed(
    tensors: &TensorGraph,
    target: &Target,
    options: &Options,
    observer: &mut dyn Observer,
) -> Result<(Program, Explanation), CompileError> {
    verify::tensor::verify(tensors).map_err(|error| CompileError::Verify { pass: "input", error })?;
    let mut driver = Driver::new(observer);
    let verifies = options.verify_each_pass || cfg!(debug_assertions);
    let check = |g: &Graph, pass: &'static str| match verifies {
        true => verify::indexed::verify(g).map_err(|error| CompileError::Verify { pass, error }),
        false => Ok(()),
    };
    let ranged = driver.pass("rangeify", || rangeify::ranged(tensors), |r| text::print_indexed(&r.graph));
    let (mut g, rules) = (ranged.graph, ranged.rules);
    driver.notes = (tensors.notes().to_vec(), ranged.notes);
    driver.sketch(|| Sketch::of_graph(&g));
    check(&g, "rangeify")?;
    let mut sums = driver.sums(&g, options, &rules);
    // On a GPU each stage is a launch of its own, or all of them are one.
    let machine = winograd::Machine::of(target.gpu.as_ref(), options);
    let (mut g, windows) = driver.pass(
        "winograd",
        || {
            let windows = winograd::run_tuned(&mut g, options, &rules, &mut sums, machine);
            (g, windows)
        },
        |r| text::print_indexed(&r.0),
    );
    driver.sketch(|| Sketch::of_graph(&g));
    driver.explanation.windows = windows.map_err(CompileError::Options)?;
    check(&g, "winograd")?;
    let before = g.defs.len();
    driver.pass(
        "block sums",
        || blocked::block_sums(&mut g, options.sum_block),
        |n| format!("{n} sums of {before} definitions\n"),
    );
    driver.sketch(|| Sketch::of_graph(&g));
    check(&g, "block sums")?;
    finish(driver, g, target, options, sums)
}

/// Compiles an indexed graph as it is: from `fuse` on.
///
/// # Errors
/// Those of [`compile`].
pub fn compile_indexed(
    graph: Graph,
    target: &Target,
    options: &Options,
) -> Result<(Program, Explanation), CompileError> {
    verify::indexed::verify(&graph).map_err(|error| CompileError::Verify { pass: "input", error })?;
    finish(Driver::new(&mut Silent), graph, target, options, Sums::default())
}

/// The passes after the rewrites.
fn finish(
    mut driver: Driver<'_>,
    mut g: Graph,
    target: &Target,
    options: &Options,
    mut sums: Sums,
) -> Result<(Program, Explanation), CompileError> {
    let workers = driver.workers;
    // What a workgroup of a GPU does a thread of a CPU does anyway.
    let rule = match options.stages {
        StageRule::Fused if target.gpu.is_none() => StageRule::Auto,
        stages => stages,
    };
    let verifies = options.verify_each_pass || cfg!(debug_assertions);
    let check_kernel = |k: &Kernel, pass: &'static str| match k.unproved() {
        Some(what) if verifies => {
            let kernel = format!("{} after {pass}", k.output_name());
            let error = VerifyError { invariant: "bounds", place: kernel.clone(), found: what };
            Err(CompileError::Refused { kernel, error })
        }
        _ => Ok(()),
    };
    // Only where somebody asks what became of a definition.
    let followed = !driver.notes.1.is_empty() || sums.has_any();
    let reads = if followed { provenance::reads(&g) } else { Vec::new() };
    let (mut g, stages) = driver.pass(
        "fuse",
        || {
            let mut stages = fuse::fuse(&mut g);
            if target.gpu.is_some() {
                nest::nest(&mut g, &mut stages);
            }
            (g, stages)
        },
        |r| text::print_indexed(&r.0),
    );
    driver.sketch(|| Sketch::of_graph(&g));
    driver.explanation.stages = stages;
    driver.notes.1 = provenance::merged(std::mem::take(&mut driver.notes.1), &reads, &g);
    sums.follow(&reads, &g);
    if verifies {
        verify::indexed::verify(&g).map_err(|error| CompileError::Verify { pass: "fuse", error })?;
    }
    // A plan that is asked for is of the whole sum.
    if let Some(gpu) = target.gpu.as_ref().filter(|_| options.plans.plans.is_empty()) {
        let mut decided = Vec::new();
        let made = driver.pass(
            "parts",
            || parts::parts(&mut g, gpu, &|b| sums.products(Some(b), options.products), &mut decided),
            |made| format!("{} sums\n", made.len()),
        );
        driver.sketch(|| Sketch::of_graph(&g));
        driver.explanation.stages.extend(decided);
        for (reader, stage) in made {
            if let Some(notes) = driver.notes.1.get(&reader).cloned() {
                driver.notes.1.insert(stage, notes);
            }
            sums.moved(reader, stage);
        }
    }
    if verifies {
        verify::indexed::verify(&g).map_err(|error| CompileError::Verify { pass: "parts", error })?;
    }
    let mut kernels =
        driver.pass("split", || split::split(&g, workers), |k| k.iter().map(|k| k.text() + "\n").collect());
    let plain = |_: usize| Vec::new();
    driver.sketch(|| Sketch::of_kernels(&kernels, None, &plain));
    kernels.iter().try_for_each(|k| check_kernel(k, "split"))?;
    driver.pass("legalize", || parallel::each(workers, &mut kernels, legalize), |()| String::new());
    driver.sketch(|| Sketch::of_kernels(&kernels, None, &plain));
    kernels.iter().try_for_each(|k| check_kernel(k, "legalize"))?;
    let auto = options.layout == LayoutRule::Auto;
    if auto || target.gpu.is_some() {
        driver.pass(
            "canonical",
            || canonical::canonical(&mut kernels, &mut g.buffers, auto, workers),
            |()| String::new(),
        );
        driver.sketch(|| Sketch::of_kernels(&kernels, None, &plain));
        kernels.iter().try_for_each(|k| check_kernel(k, "canonical"))?;
    }
    let mut staged = Vec::new();
    if target.gpu.is_none() && rule == StageRule::Auto && auto {
        let constant = constant_kernels(&kernels);
        staged = driver.pass(
            "operands",
            || operands::stage(&mut kernels, &mut g, &constant, target, &mut sums, workers),
            |staged| staged.iter().map(|s| format!("{s:?}\n")).collect(),
        );
        kernels.iter().try_for_each(|k| check_kernel(k, "operands"))?;
    }
    let constant = constant_kernels(&kernels);
    let (launches, scopes) = driver.pass(
        "scope",
        || scope::scope(&mut kernels, &constant, &staged, target, rule, &mut sums),
        |(launches, _)| launches.iter().map(|l| format!("{l:?}\n")).collect(),
    );
    driver.explanation.scopes = scopes;
    let prepared: Vec<bool> = launches.iter().map(|l| l.kernels.iter().all(|&n| constant[n])).collect();
    driver.sketch(|| Sketch::of_kernels(&kernels, Some(&launches), &plain));
    kernels.iter().try_for_each(|k| check_kernel(k, "scope"))?;
    let written = |k: &Kernel| k.stores.first().map(|s| k.args[s.buffer.0 as usize]);
    let products: Vec<Products> = kernels.iter().map(|k| sums.products(written(k), options.products)).collect();
    // On a GPU the products that are staged in shared memory by blocks; a plan that is asked for knows axes as they are.
    let staged = |n: usize, k: &Kernel| products[n] == Products::Exact && k.outer.is_empty() && blocks::is_large(k);
    let as_asked = options.plans.plans.is_empty() && options.grid == GridRule::Auto;
    if auto && (target.gpu.is_none() || as_asked) {
        driver.pass(
            "flatten",
            || match target.gpu {
                None => flatten::flatten(&mut kernels, target.lanes(4), false, &|_, _| true),
                Some(_) => flatten::flatten(&mut kernels, target.lanes(4), true, &staged),
            },
            |()| String::new(),
        );
        driver.sketch(|| Sketch::of_kernels(&kernels, Some(&launches), &plain));
        kernels.iter().try_for_each(|k| check_kernel(k, "flatten"))?;
    }
    let choices = driver.pass(
        "layout",
        || {
            let mut choices = layout::layout(&mut kernels, &g.buffers, target, options.layout, workers);
            if let (LayoutRule::Auto, Some(gpu)) = (options.layout, &target.gpu) {
                factors::turn_factors(&mut kernels, &g.buffers, gpu, &products, &constant, &mut choices);
                layout::turn_rows(&mut kernels, &g.buffers, gpu, &products, &mut choices);
                layout::pad_rows(&mut kernels, &g.buffers, gpu, &products, &mut choices);
                layout::turn_grouped(&mut kernels, &g.buffers, gpu, &mut choices);
            }
            choices
        },
        |choices| choices.iter().map(|c| format!("{}: {:?}\n", c.buffer, c.order)).collect(),
    );
    driver.sketch(|| Sketch::of_kernels(&kernels, Some(&launches), &plain));
    driver.explanation.layouts = choices;
    let mut inside = vec![false; kernels.len()];
    for launch in launches.iter().filter(|l| l.kernels.len() > 1 || !l.outer.is_empty()) {
        launch.kernels.iter().for_each(|&n| inside[n] = true);
    }
    let noted = driver.pass(
        "plan",
        || {
            parallel::map(workers, &kernels, |n, k| {
                let asked = written(k).and_then(|b| sums.asked(b));
                let mut notes = Vec::new();
                let options = &Options { products: products[n], ..options.clone() };
                let mut plans =
                    plans_of(k, inside[n], asked.unwrap_or(&Tuning::default()), target, options, &mut notes);
                // Only a search asks what else there is.
                let searched = asked.is_some() && matches!(options.tuning, TuningRule::Given(_));
                if let (Some(gpu), true, false, [one]) = (&target.gpu, searched, inside[n], &mut plans[..]) {
                    one.others = others_of(k, gpu, options);
                }
                (plans, notes)
            })
        },
        |plans| plans.iter().flat_map(|p| &p.0).map(|p| format!("{}\n", p.plan)).collect(),
    );
    let mut planned = Vec::with_capacity(noted.len());
    for (k, (plans, notes)) in kernels.iter().zip(noted) {
        if let Some(buffer) = written(k) {
            notes.into_iter().for_each(|note| sums.note(buffer, note));
        }
        planned.push(plans);
    }
    // Regions take the place of their kernels.
    let of: Vec<usize> = planned.iter().enumerate().flat_map(|(n, p)| vec![n; p.len()]).collect();
    let mut launches = launches;
    let mut first = 0;
    let places: Vec<std::ops::Range<usize>> = planned
        .iter()
        .map(|regions| {
            first += regions.len();
            first - regions.len()..first
        })
        .collect();
    for launch in &mut launches {
        launch.kernels = launch.kernels.iter().flat_map(|&n| places[n].clone()).collect();
    }
    let (mut kernels, mut plans, mut reports) = (Vec::new(), Vec::new(), Vec::new());
    for p in planned.into_iter().flatten() {
        kernels.push(p.kernel);
        plans.push(p.plan);
        reports.push((p.grid, p.stored, p.others));
    }
    driver.sketch(|| Sketch::of_kernels(&kernels, Some(&launches), &|n| plan_lines(&plans[n])));
    let scheduled = driver.pass(
        "schedule",
        || {
            let apply = |n: usize, k: &Kernel| {
                let applied = plans[n].apply(k).map(|s| Scheduled { fma: target.fma, ..s });
                applied.map_err(|error| CompileError::Plan { buffer: k.output_name(), error })
            };
            parallel::map(workers, &kernels, apply).into_iter().collect::<Result<Vec<Scheduled>, _>>()
        },
        |s| s.iter().flatten().map(|s| format!("{}\n", name(s))).collect(),
    )?;
    driver.sketch(|| Sketch::of_kernels(&kernels, Some(&launches), &|n| vec![name(&scheduled[n])]));
    scheduled.iter().try_for_each(|s| check_kernel(&s.kernel, "schedule"))?;
    let mut codes = driver.pass(
        "lower",
        || parallel::map(workers, &scheduled, |_, s| emit::lower(s, name(s))),
        |codes| codes.iter().map(text::print_linear).collect(),
    );
    driver.sketch(|| {
        let lines = |n: usize| [vec![name(&scheduled[n])], sketch::of_code(&codes[n])].concat();
        Sketch::of_kernels(&kernels, Some(&launches), &lines)
    });
    match &target.gpu {
        None => driver.pass(
            "prefetch",
            || parallel::each(workers, &mut codes, |c| prefetch::prefetch(c, target.l1)),
            |()| String::new(),
        ),
        Some(gpu) => driver.pass(
            "neighbours",
            || {
                parallel::each(workers, &mut codes, |c| {
                    neighbours::neighbours(c, gpu.access);
                    whole::whole(c);
                })
            },
            |()| String::new(),
        ),
    }
    let names: Vec<String> = codes.iter().map(|c| c.name.clone()).collect();
    let (mut codes, mut args): (Vec<Code>, Vec<Vec<BufId>>) = driver.pass(
        "link",
        || launched(&kernels, &scheduled, &launches, codes, &of).into_iter().unzip(),
        |_| String::new(),
    );
    if target.gpu.is_none() {
        let stored = driver.pass(
            "stream",
            || {
                let stored = codes.iter_mut().zip(&args).flat_map(|(code, args)| {
                    let sums = &sums;
                    args.iter().enumerate().filter_map(move |(n, &buffer)| {
                        let asked = sums.asked(buffer).and_then(|t| t.stores);
                        Some((buffer, stream::stream(code, n, target, asked)?))
                    })
                });
                stored.collect::<Vec<_>>()
            },
            |stored| stored.iter().map(|(b, s)| format!("{}: {}\n", g.buffer(*b).name, s.name())).collect(),
        );
        stored.into_iter().for_each(|(buffer, stores)| sums.note(buffer, Note::Stores(stores)));
        let repeated: Vec<bool> = launches.iter().map(|l| l.host.is_some()).collect();
        driver.pass(
            "in place",
            || in_place::in_place(&mut codes, &mut args, &prepared, &repeated),
            |merged| {
                let line =
                    |(from, to): &(BufId, BufId)| format!("{} in {}\n", g.buffer(*from).name, g.buffer(*to).name);
                merged.iter().map(line).collect()
            },
        );
    }
    let mut at = vec![Vec::new(); codes.len()];
    if target.gpu.is_none() {
        let repeated: Vec<bool> = launches.iter().map(|l| l.host.is_some()).collect();
        at = driver.pass(
            "places",
            || places::places(&mut codes, &repeated, workers, &canonical_text),
            |at| {
                let moved = at.iter().enumerate().filter(|(_, at)| !at.is_empty());
                moved.map(|(n, at)| format!("launch {}: {at:?}\n", n + 1)).collect()
            },
        );
    }
    let verified =
        driver.pass("verify", || parallel::map(workers, &codes, |_, c| verify::linear::verify(c)), |_| String::new());
    for (code, result) in codes.iter().zip(verified) {
        result.map_err(|error| CompileError::Refused { kernel: code.name.clone(), error })?;
    }
    let served = provenance::of_launches(&kernels, &launches, std::mem::take(&mut driver.notes.1));
    let (program, order) =
        driver.pass("memory", || assemble(&args, codes, &launches, &prepared, at, workers), |_| String::new());
    driver.sketch(|| Sketch::of_program(&program));
    let mut told: FxHashMap<usize, usize> = FxHashMap::default();
    for (prepare, at) in order {
        let steps = if prepare.is_some() { &program.prepare } else { &program.run };
        let step = &steps[prepare.unwrap_or(at.1)];
        let code = &program.kernels[step.kernel];
        let launch = &launches[at.0];
        // What a loop of the host repeats has been told.
        if let Some(first) = told.get(&at.0) {
            let first: &KernelReport = &driver.explanation.kernels[*first];
            let again = KernelReport { host: step.host.clone(), ..first.clone() };
            driver.explanation.kernels.push(again);
            continue;
        }
        told.insert(at.0, driver.explanation.kernels.len());
        let nests: Vec<NestReport> = launch
            .kernels
            .iter()
            .map(|&n| {
                let kernel = &kernels[n];
                let sizes = |ranges: &[RangeId]| ranges.iter().map(|&r| kernel.graph.ints.max_size(r)).collect();
                NestReport {
                    sum: kernel.stores.first().and_then(|s| sums.number(kernel.args[s.buffer.0 as usize])),
                    name: names[n].clone(),
                    role: kernel.role,
                    output: kernel.output_name(),
                    under: sizes(&kernel.outer),
                    plan: plans[n].clone(),
                    loops: sizes(&kernel.loops),
                    reduces: sizes(&kernel.reduce_ranges()),
                    stored: reports[n].1.clone(),
                    others: std::mem::take(&mut reports[n].2),
                    grid: std::mem::take(&mut reports[n].0),
                }
            })
            .collect();
        driver.explanation.kernels.push(KernelReport {
            name: code.name.clone(),
            role: code.role,
            kernel: step.kernel,
            prepare: prepare.is_some(),
            host: if launch.host.is_some() { step.host.clone() } else { Vec::new() },
            serves: served[at.0].iter().map(|&n| driver.notes.0[n as usize].clone()).collect(),
            nests,
        });
    }
    driver.explanation.sums = sums.reports;
    Ok((program, driver.explanation))
}

/// The plans of a kernel, region by region, and what they leave for the report of the sum that it belongs to. `asked` is that
/// sum's tuning; a kernel `inside` of a launch has no parallel loops of its own.
fn plans_of(
    k: &Kernel,
    inside: bool,
    asked: &Tuning,
    target: &Target,
    options: &Options,
    notes: &mut Vec<Note>,
) -> Vec<Planned> {
    // Threads of a workgroup that runs several kernels share no factors of one of them.
    let grouped = |plan: &Plan| match &target.gpu {
        Some(gpu) if inside => group::check(plan, gpu),
        _ => Ok(()),
    };
    let given = options.plans.plan(k, target, options.grid);
    let given = given.map(|fit| fit.and_then(|plan| grouped(&plan).map(|()| plan)));
    let stored = match (given, asked.plan(k.role)) {
        (None, Some(plan)) => {
            // Plans on a matrix unit are those of the kernel that `units` leaves.
            let unit = plan.unit.is_some().then(|| units::merge(k)).flatten().map(|m| m.0);
            let of = unit.as_ref().unwrap_or(k);
            let fit = grouped(plan)
                .and_then(|()| admitted(of, plan, target, options))
                .and_then(|()| stored::fit(of, plan, target, options.grid));
            notes.push(match &fit {
                Ok(_) => Note::Plan(k.role, plan.clone()),
                Err(why) => Note::Refused(format!("plan {}", k.role.name()), why.to_string()),
            });
            Some(fit.map(|plan| (of.clone(), plan)))
        }
        (given, _) => given.map(|fit| fit.map(|plan| (k.clone(), plan))),
    };
    // Only a launch's own loops are parallel: kernels inside of it read what those before them wrote.
    let settled = |plan: Plan| if inside { plan.serial() } else { plan };
    let of = |kernel, plan, grid, stored| vec![Planned { kernel, plan: settled(plan), grid, stored, others: vec![] }];
    let planned = |plan, grid, stored| of(k.clone(), plan, grid, stored);
    let refused = match stored {
        Some(Ok((kernel, plan))) if inside && target.gpu.is_some() => {
            return of(kernel, plan, GridReport::default(), Some(Ok(())));
        }
        Some(Ok((kernel, plan))) => {
            let given = |gpu| grid::given(&kernel, gpu, &plan, options.grid, "a stored plan");
            let report = target.gpu.as_ref().map(given).unwrap_or_default();
            return of(kernel, plan, report, Some(Ok(())));
        }
        Some(Err(why)) => Some(Err(why.to_string())),
        None => None,
    };
    if let Some(gpu) = target.gpu.as_ref().filter(|_| inside) {
        return planned(group::plan(k, gpu), GridReport::default(), refused);
    }
    if let Some(gpu) = &target.gpu {
        if let Some((kernel, plan)) = units::plan(k, gpu, options.products)
            && let Ok(plan) = grid::complete(&kernel, &plan, gpu, options.grid)
            && plan.apply(&kernel).is_ok_and(|s| shared::bytes(&s) <= gpu.shared)
        {
            let grid = grid::given(&kernel, gpu, &plan, options.grid, "a product on a matrix unit");
            return of(kernel, plan, grid, refused);
        }
        let (plan, grid) = grid::plan(k, gpu, options.grid);
        return planned(plan, grid, refused);
    }
    if !inside {
        return planned(heuristic::plan(k, target), GridReport::default(), refused);
    }
    let Some(regions) = contract::regions(k, target, (asked.registers, asked.ends)) else {
        return planned(heuristic::plan(k, target), GridReport::default(), refused);
    };
    notes.extend(regions.refused.map(|why| Note::Refused("registers".to_string(), why)));
    notes.push(Note::Registers(regions.registers, regions.ends));
    let region = |(kernel, plan)| {
        let stored = refused.clone();
        Planned { kernel, plan, grid: GridReport::default(), stored, others: vec![] }
    };
    regions.parts.into_iter().map(region).collect()
}

/// Whether a tuning's plan may use the unit that it names: one that rounds factors more than the options admit may not be.
fn admitted(k: &Kernel, plan: &Plan, target: &Target, options: &Options) -> Result<(), PlanError> {
    let (Some(unit), Some(gpu)) = (&plan.unit, &target.gpu) else { return Ok(()) };
    match units::units(k, gpu, options.products).iter().any(|u| u.name == *unit) {
        true => Ok(()),
        false => Err(PlanError::Mismatch(format!("unit {unit} is none that the options admit for these products"))),
    }
}

/// Plans that a kernel of a sum could have on a GPU, the best by estimate first.
fn others_of(k: &Kernel, gpu: &Gpu, options: &Options) -> Vec<Plan> {
    match units::plans(k, gpu, options.products, OTHERS) {
        Some((kernel, plans)) => {
            let complete = |p: Plan| grid::complete(&kernel, &p, gpu, options.grid).ok();
            let fits = |p: &Plan| p.apply(&kernel).is_ok_and(|s| shared::bytes(&s) <= gpu.shared);
            plans.into_iter().filter_map(complete).filter(fits).collect()
        }
        None => grid::others(k, gpu, options.grid, OTHERS),
    }
}

/// A plan as short lines, for a picture: what it makes of each kind of axis.
fn plan_lines(plan: &Plan) -> Vec<String> {
    let axes = |letter: char, axes: &[Vec<Factor>]| -> Vec<String> {
        axes.iter()
            .enumerate()
            .map(|(i, factors)| {
                let kinds: Vec<String> = factors
                    .iter()
                    .map(|f| match f.size {
                        Some(s) => format!("{}:{s}", f.kind.name()),
                        None => f.kind.name().to_string(),
                    })
                    .collect();
                format!("{letter}{i} {}", kinds.join(" "))
            })
            .collect()
    };
    [axes('a', &plan.loops), axes('r', &plan.reduces)].concat()
}

/// Leaves operations that renderers know: half floats compute in f32, transcendental functions are polynomials.
fn legalize(k: &mut Kernel) {
    for i in 0..k.stores.len() {
        k.stores[i].value = legalize::legalize(&mut k.graph, k.stores[i].value);
    }
}

/// The code of each launch and the program's buffers behind its arguments.
fn launched(
    kernels: &[Kernel],
    scheduled: &[Scheduled],
    launches: &[Launch],
    codes: Vec<Code>,
    of: &[usize],
) -> Vec<(Code, Vec<BufId>)> {
    let mut codes: Vec<Option<Code>> = codes.into_iter().map(Some).collect();
    launches
        .iter()
        .map(|launch| {
            if let [n] = launch.kernels[..]
                && kernels[n].outer.is_empty()
                && let Some(code) = codes[n].take()
            {
                return (code, kernels[n].args.clone());
            }
            let name = launch_name(launch, scheduled);
            let parts = launch
                .kernels
                .iter()
                .filter_map(|&n| Some(Part { kernel: &scheduled[n].kernel, code: codes[n].take()?, of: of[n] }))
                .collect();
            link::link(launch, parts, name)
        })
        .collect()
}

/// A launch's name: that of its kernel with the most work, after the sizes of the launch's loops.
fn launch_name(launch: &Launch, scheduled: &[Scheduled]) -> String {
    let work = |s: &Scheduled| -> f64 {
        let k = &s.kernel;
        k.outer.iter().chain(&k.loops).chain(&k.reduce_ranges()).map(|&r| k.graph.ints.max_size(r) as f64).product()
    };
    let most = launch.kernels.iter().map(|&n| &scheduled[n]).max_by(|a, b| work(a).total_cmp(&work(b)));
    most.map(name).unwrap_or_default()
}

fn size_name(ints: &Ints, r: RangeId) -> String {
    match ints.const_size(r) {
        Some(s) => s.to_string(),
        None => format!("p{}", ints.max_size(r)),
    }
}

/// A kernel's name: `r_` or `E_`, then the sizes of grid, thread and serial loops, lanes, unrolled axes and last the
/// reduction. On a matrix unit the lanes are the unit's, and the results in each of them come first among the unrolled.
pub fn name(s: &Scheduled) -> String {
    let ints = &s.kernel.graph.ints;
    let matrix = s.matrix.as_ref();
    let reduces: Vec<RangeId> =
        s.kernel.reduce_ranges().into_iter().filter(|&r| matrix.is_none_or(|m| m.k != r)).collect();
    let sizes = |ranges: &[RangeId]| ranges.iter().map(|&r| size_name(ints, r)).collect::<Vec<_>>();
    let maps: Vec<RangeId> = s.unroll.iter().copied().filter(|r| !reduces.contains(r)).collect();
    let (warp, results) = match matrix {
        Some(m) => (vec![m.unit.c.threads().to_string()], vec![m.unit.c.elements().to_string()]),
        None => (vec![], sizes(s.lane.as_slice())),
    };
    let parts = [
        sizes(&s.kernel.outer),
        sizes(&s.grid),
        sizes(&s.thread),
        warp,
        sizes(&s.serial),
        results,
        sizes(&maps),
        sizes(&reduces),
    ];
    let kind = if s.kernel.reduce_ranges().is_empty() { "E" } else { "r" };
    [vec![kind.to_string()], parts.concat()].concat().join("_")
}

type Order = Vec<(Option<usize>, (usize, usize))>;

/// Puts launches into program order: those that are `prepared` run once, those in loops of the host again and again; equal
/// kernels are there once.
fn assemble(
    launch_args: &[Vec<BufId>],
    codes: Vec<Code>,
    launches: &[Launch],
    prepared: &[bool],
    places: Vec<Vec<i64>>,
    workers: usize,
) -> (Program, Order) {
    let mut program = Program::default();
    let mut index: FxHashMap<usize, usize> = FxHashMap::default();
    let mut constant: FxHashMap<usize, bool> = FxHashMap::default();
    // Only kernels of one name can be equal.
    let mut names: FxHashMap<&str, usize> = FxHashMap::default();
    codes.iter().for_each(|c| *names.entry(&c.name).or_default() += 1);
    let texts =
        parallel::map(workers, &codes, |_, c| names.get(&*c.name).is_some_and(|&n| n > 1).then(|| canonical_text(c)));
    let mut known: FxHashMap<String, usize> = FxHashMap::default();
    let mut steps = Vec::with_capacity(codes.len());
    for (((n, (ids, code)), text), host) in launch_args.iter().zip(codes).enumerate().zip(texts).zip(places) {
        let mut args = Vec::with_capacity(ids.len());
        for (decl, &id) in code.args.iter().zip(ids) {
            let id = id.0 as usize;
            let at = *index.entry(id).or_insert_with(|| {
                let place = match decl.origin {
                    Origin::Argument(s) => Place::Argument(s),
                    Origin::Constant(s) => Place::Constant(s),
                    Origin::Output(s) => Place::Output(s),
                    Origin::Internal => Place::Arena(0),
                };
                program.buffers.push(ProgramBuffer {
                    name: decl.name.clone(),
                    dtype: decl.dtype,
                    len: code.ints.bounds(decl.layout.len).1.max(0) as usize,
                    place,
                });
                program.buffers.len() - 1
            });
            args.push(at);
        }
        let prepare = prepared[n];
        for (decl, &at) in code.args.iter().zip(&args) {
            if decl.written {
                constant.insert(at, prepare);
            }
        }
        let next = program.kernels.len();
        let kernel = text.map_or(next, |text| *known.entry(text).or_insert(next));
        if kernel == next {
            program.kernels.push(code);
        }
        steps.push(Step { kernel, args, host });
    }
    let mut order = Vec::new();
    let mut next = 0;
    for together in launches.chunk_by(|a, b| a.host.is_some() && a.host == b.host) {
        let values = together.first().and_then(|l| l.host.as_ref()).map_or_else(|| vec![vec![]], HostLoops::values);
        let places = next..next + together.len();
        next = places.end;
        for host in values {
            for (n, step) in places.clone().zip(&steps[places.clone()]) {
                let prepare = prepared[n];
                let list = if prepare { &mut program.prepare } else { &mut program.run };
                list.push(Step { host: [&step.host[..], &host].concat(), ..step.clone() });
                let at = list.len() - 1;
                order.push((prepare.then_some(at), (n, at)));
            }
        }
    }
    let mut used_by_run = vec![false; program.buffers.len()];
    program.run.iter().flat_map(|s| &s.args).for_each(|&i| used_by_run[i] = true);
    let prepared = |at: usize| constant.get(&at).copied().unwrap_or(false);
    let is_own = |b: &ProgramBuffer| matches!(b.place, Place::Arena(_));
    let own: Vec<bool> = program.buffers.iter().map(is_own).collect();
    program.arena_bytes = memory::plan(&mut program.buffers, &program.run, &|i| own[i] && !prepared(i), &Place::Arena);
    program.prepare_arena_bytes = memory::plan(
        &mut program.buffers,
        &program.prepare,
        &|i| own[i] && prepared(i) && !used_by_run[i],
        &Place::Arena,
    );
    // Prepared memory lives on: nothing in it may share a place.
    let mut offset = 0;
    for i in 0..program.buffers.len() {
        if own[i] && prepared(i) && used_by_run[i] {
            let b = &mut program.buffers[i];
            b.place = Place::Prepared(offset);
            let bytes = b.len * b.dtype.size();
            offset += bytes.div_ceil(crate::program::ALIGNMENT).max(1) * crate::program::ALIGNMENT;
        }
    }
    program.prepared_bytes = offset;
    order.sort_by_key(|o| (o.0.is_none(), o.1.1));
    (program, order)
}

/// The code without the names of its buffers: what decides whether two kernels are one.
fn canonical_text(code: &Code) -> String {
    let mut code = code.clone();
    for (i, arg) in code.args.iter_mut().enumerate() {
        arg.name = format!("b{i}");
        arg.origin = Origin::Internal;
    }
    text::print_linear(&code)
}
