//! Runs graphs: compiles them for a device, prepares what depends on constants, launches.

use crate::device::{Device, DeviceError, Memory, Module};
use crate::error::{Error, Result};
use crate::image::Image;
use crate::kept::{self, Again};
use crate::memory::{give_back, is_available};
use crate::search::PlanStore;
use crate::settings;
use crate::tensor::storage::Storage;
use crate::work::{Access, Work};
use crate::workspace::{Constant, Workspace, Workspaces};
use std::borrow::Cow;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use winograph_compiler::explain::Explanation;
use winograph_compiler::tune::{Problem, Tuning};
use winograph_compiler::{Footprint, Observer, Options, Place, Program, Step, Target, compile_observed};
use winograph_ir::linear::Code;
use winograph_ir::tensor::{InputKind, TensorGraph};

/// A graph that is ready to run: planned, compiled, with its constants prepared.
pub(crate) struct Compiled {
    /// Launches and their memory; of the kernels names and roles alone where they were not planned here.
    pub(crate) outline: Program,
    origin: Origin,
    pub(crate) times: CompileTimes,
    /// Before the module: what is recorded launches its kernels.
    workspaces: Workspaces,
    device: Arc<dyn Device>,
    module: Option<Arc<dyn Module>>,
    /// Constants that `run` still reads, by input number after the arguments.
    constants: Vec<Option<Constant>>,
    first_constant: usize,
    prepared: Box<dyn Memory>,
    /// How much is printed to stderr, as `DEBUG` asks.
    debug: u32,
}

/// Why there is no code of a kept program.
const CHANGED: &str = "its program was kept, and what it was compiled with has changed since: compile it again";

/// Where a program is from.
enum Origin {
    /// It was planned here.
    Planned(Explanation),
    /// An earlier process has planned it and this device has kept it.
    Kept(Box<Again>),
    /// It was read from an exported file.
    Loaded(Vec<Work>),
}

/// Programs that this process has planned, or found where an earlier one has kept them, for [`realize`](crate::Tensor::realize) and [`compile`](crate::compile): a
/// loop that makes it grow compiles in every round.
pub fn programs_planned() -> u64 {
    PLANNED.load(Ordering::Relaxed)
}

static PLANNED: AtomicU64 = AtomicU64::new(0);

/// Nodes of a graph from which on planning takes so much memory, for a short time, that it is not kept for what comes: weights are
/// prepared next, and a process would have both.
const MANY_NODES: usize = 256;

/// What a [`Compiled`] is made of when nothing is left to be compiled or prepared.
pub(crate) struct Ready {
    pub(crate) program: Program,
    /// `None` where there are no kernels.
    pub(crate) module: Option<Arc<dyn Module>>,
    /// By input number after `first_constant`.
    pub(crate) constants: Vec<Option<Constant>>,
    pub(crate) first_constant: usize,
    pub(crate) prepared: Box<dyn Memory>,
    /// Of each launch.
    pub(crate) works: Vec<Work>,
}

/// Where the time of compiling went.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CompileTimes {
    /// From the graph to linear code.
    pub plan: Duration,
    /// From linear code to kernels that can be launched: source text, C compiler or cache, loading.
    pub kernels: Duration,
    /// Running what depends on constants alone.
    pub prepare: Duration,
    /// Whether the program was found where an earlier process has kept it, so that nothing was planned and no source written.
    pub kept: bool,
}

/// Times passes, keeps their dumps if asked, and looks for plans that searches have stored.
struct Watch<'a> {
    start: Instant,
    dumps: bool,
    plans: Option<(&'a PlanStore, &'a Target)>,
    /// Whether one was found.
    found: bool,
}

impl Observer for Watch<'_> {
    fn has_tunings(&self) -> bool {
        self.plans.is_some()
    }

    fn tuning(&mut self, problem: &Problem) -> Option<Result<Tuning, String>> {
        let (plans, target) = self.plans?;
        let found = plans.find(problem, target)?;
        self.found |= found.is_ok();
        Some(found)
    }

    fn now(&mut self) -> Option<f64> {
        Some(self.start.elapsed().as_secs_f64() * 1e6)
    }

    fn wants_dumps(&self) -> bool {
        self.dumps
    }

    fn workers(&self) -> usize {
        std::thread::available_parallelism().map_or(1, |n| n.get())
    }
}

fn failed(op: &'static str, cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Execution { op, cause: Box::new(cause) }
}

/// An error of a device that an operation ran into.
pub(crate) fn on_device(op: &'static str) -> impl Fn(DeviceError) -> Error {
    move |e| match e {
        DeviceError::OutOfMemory { bytes } => Error::OutOfMemory { bytes },
        e => failed(op, e),
    }
}

/// A line of what `DEBUG` asks for; where nobody listens it is lost.
fn to_stderr(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// From the graph to linear code, with the passes timed; says whether plans that searches have stored were used. A stored
/// plan is never a reason for an error: where a program cannot be compiled with those that there are, it is without.
pub(crate) fn plan(
    op: &'static str,
    graph: &TensorGraph,
    target: &Target,
    plans: Option<&PlanStore>,
    options: &Options,
    dumps: bool,
) -> Result<(Program, Explanation, bool)> {
    let mut watch = Watch { start: Instant::now(), dumps, plans: plans.map(|p| (p, target)), found: false };
    match compile_observed(graph, target, options, &mut watch) {
        Ok((program, explanation)) => Ok((program, explanation, watch.found)),
        Err(_) if watch.found => plan(op, graph, target, None, options, dumps),
        Err(e) => Err(failed(op, e)),
    }
}

/// [`plan`] for a device, with the plans that searches have stored for it.
pub(crate) fn planned_with(
    graph: &TensorGraph,
    device: &dyn Device,
    options: &Options,
) -> Result<(Program, Explanation)> {
    let plans = device.plans().filter(|p| p.is_there());
    plan("compile", graph, device.target(), plans, options, false)
        .map(|(program, explanation, _)| (program, explanation))
}

impl Compiled {
    /// Compiles a graph whose last inputs are `constants`, and runs what depends on these alone.
    pub(crate) fn new(
        op: &'static str,
        graph: &TensorGraph,
        constants: Vec<Arc<Storage>>,
        device: &Arc<dyn Device>,
        options: &Options,
        dumps: bool,
    ) -> Result<Compiled> {
        let debug = settings::env().map_or(0, |env| env.debug);
        let start = Instant::now();
        PLANNED.fetch_add(1, Ordering::Relaxed);
        let first_constant = graph.inputs.iter().position(|k| *k == InputKind::Constant).unwrap_or(graph.inputs.len());
        // Where somebody wants to see what is made it has to be made; of tensors that are realized there are too many.
        let wanted = op == "compile" && !dumps && debug < 4;
        let place = wanted.then(|| kept::Place::of(graph, &**device, options)).flatten();
        let sizes: Vec<usize> = constants.iter().map(|c| c.len()).collect();
        let found = place.as_ref().and_then(|p| Some((p, p.find(graph, first_constant, &sizes)?)));
        let (outline, origin, module, planned) = match found {
            Some((place, (program, module))) => {
                let again = Again::new(graph, device, options, place);
                (program, Origin::Kept(Box::new(again)), Some(module), Instant::now())
            }
            None => {
                // As long as nothing was stored no compile looks at what its sums are.
                let plans = device.plans().filter(|p| p.is_there());
                let (mut program, mut explanation, tuned) = plan(op, graph, device.target(), plans, options, dumps)?;
                let mut planned = Instant::now();
                let build = |program: &Program| match program.kernels.is_empty() {
                    true => Ok(None),
                    false => device.compile(&program.kernels).map(Some),
                };
                let mut module = build(&program);
                if module.is_err() && tuned {
                    (program, explanation, _) = plan(op, graph, device.target(), None, options, dumps)?;
                    planned = Instant::now();
                    module = build(&program);
                } else if let (Some(place), Ok(Some(module))) = (place, &module) {
                    place.keep(&program, &**module);
                }
                (program, Origin::Planned(explanation), module.map_err(|e| failed(op, e))?, planned)
            }
        };
        if matches!(origin, Origin::Planned(_)) && graph.nodes().len() >= MANY_NODES {
            give_back();
        }
        let built = Instant::now();
        if let Some(module) = &module
            && debug >= 4
        {
            to_stderr(module.source());
        }
        let constants = constants.into_iter().map(|c| Constant::new(&**device, c).map(Some));
        let mut compiled = Compiled {
            first_constant,
            constants: constants.collect::<Result<_, _>>().map_err(on_device(op))?,
            prepared: device.allocate_prepared(outline.prepared_bytes).map_err(on_device(op))?,
            workspaces: Workspaces::new(&outline, &**device),
            device: device.clone(),
            times: CompileTimes::default(),
            outline,
            origin,
            module,
            debug,
        };
        let workspace = Workspace::arena(&**device, compiled.outline.prepare_arena_bytes).map_err(on_device(op))?;
        for step in &compiled.outline.prepare {
            let start = Instant::now();
            compiled.launch(op, step, &[], &[], &mut [], &workspace)?;
            compiled.show("prepare", step, start.elapsed());
        }
        device.synchronize().map_err(on_device(op))?;
        let used = |slot: usize| {
            let program = &compiled.outline;
            program.run.iter().flat_map(|s| &s.args).any(|&a| program.buffers[a].place == Place::Constant(slot))
        };
        // Raw weights that only `prepare` reads are freed.
        let first = compiled.first_constant;
        let keep: Vec<bool> = (0..compiled.constants.len()).map(|i| used(first + i)).collect();
        for (constant, keep) in compiled.constants.iter_mut().zip(keep) {
            if !keep {
                *constant = None;
            }
        }
        compiled.times = CompileTimes {
            plan: planned - start,
            kernels: built - planned,
            prepare: built.elapsed(),
            kept: matches!(compiled.origin, Origin::Kept(_)),
        };
        Ok(compiled)
    }

    /// A program whose kernels are compiled and whose memory is prepared, as [`export`](crate::export) keeps it.
    pub(crate) fn ready(parts: Ready, device: &Arc<dyn Device>) -> Compiled {
        Compiled {
            workspaces: Workspaces::new(&parts.program, &**device),
            outline: parts.program,
            origin: Origin::Loaded(parts.works),
            times: CompileTimes::default(),
            device: device.clone(),
            module: parts.module,
            constants: parts.constants,
            first_constant: parts.first_constant,
            prepared: parts.prepared,
            debug: settings::env().map_or(0, |env| env.debug),
        }
    }

    /// Kernels in a form that can be kept.
    pub(crate) fn image(&self, codes: &[Code]) -> Result<Image, DeviceError> {
        self.device.export(codes)
    }

    /// The code of its kernels.
    ///
    /// # Errors
    /// Why it is not here.
    pub(crate) fn codes(&self) -> Result<&[Code], &'static str> {
        let planned = match &self.origin {
            Origin::Planned(_) => Some(&self.outline),
            Origin::Loaded(_) => return Err("it was loaded from such a file: copy that file"),
            Origin::Kept(again) => again.planned(&self.outline).map(|(program, _)| program),
        };
        planned.map(|program| &program.kernels[..]).ok_or(CHANGED)
    }

    /// The program, with the code of its kernels where there is a way to it.
    pub(crate) fn program(&self) -> &Program {
        match &self.origin {
            Origin::Kept(again) => again.planned(&self.outline).map_or(&self.outline, |(program, _)| program),
            Origin::Planned(_) | Origin::Loaded(_) => &self.outline,
        }
    }

    /// What each launch of `run` computes, for reports.
    ///
    /// # Errors
    /// What a kept program depends on has changed since.
    pub(crate) fn works(&self, op: &'static str) -> Result<Cow<'_, [Work]>> {
        if let Origin::Loaded(works) = &self.origin {
            return Ok(Cow::Borrowed(works));
        }
        let works = self.explanation().and_then(|explanation| Work::of(self.program(), explanation));
        works.map(Cow::Owned).ok_or_else(|| Error::Execution { op, cause: CHANGED.into() })
    }

    /// Bytes of the largest intermediate of a run, and the model's nodes that the launch which writes it computes; `None`
    /// where there is none, or it is not known.
    pub(crate) fn largest(&self) -> Option<(Vec<String>, usize)> {
        let works = self.works("run").ok()?;
        let buffers = &self.outline.buffers;
        let intermediate = |&a: &usize| buffers.get(a).filter(|b| matches!(b.place, Place::Arena(_)));
        let written = self.outline.run.iter().zip(works.iter()).flat_map(|(step, work)| {
            let args = step.args.iter().zip(&work.access).filter(|(_, access)| **access != Access::Read);
            args.filter_map(|(a, _)| intermediate(a)).map(|b| (&work.nodes, b.len.saturating_mul(b.dtype.size())))
        });
        written.max_by_key(|(_, bytes)| *bytes).map(|(nodes, bytes)| (nodes.clone(), bytes))
    }

    /// What was decided; `None` where that was elsewhere, or what a kept program depends on has changed since.
    pub(crate) fn explanation(&self) -> Option<&Explanation> {
        match &self.origin {
            Origin::Kept(again) => again.planned(&self.outline).map(|(_, explanation)| explanation),
            Origin::Planned(explanation) => Some(explanation),
            Origin::Loaded(_) => None,
        }
    }

    /// The bytes of what `prepare` filled, and those of each constant that `run` reads, with its input number.
    #[allow(clippy::type_complexity)]
    pub(crate) fn memory(&self) -> Result<(Vec<u8>, Vec<(usize, Cow<'_, [u8]>)>), DeviceError> {
        let copy = |from: &dyn Memory| {
            let mut out = Vec::new();
            let bytes = from.bytes();
            out.try_reserve_exact(bytes).map_err(|_| DeviceError::OutOfMemory { bytes })?;
            out.resize(bytes, 0);
            self.device.read(from, 0, &mut out).map(|()| out)
        };
        let mut constants = Vec::new();
        for (i, constant) in self.constants.iter().enumerate() {
            let bytes = match constant {
                None => continue,
                Some(Constant::Host(storage)) => Cow::Borrowed(storage.fetched()?),
                Some(Constant::Copy(memory)) => Cow::Owned(copy(&**memory)?),
            };
            constants.push((self.first_constant + i, bytes));
        }
        Ok((copy(&*self.prepared)?, constants))
    }

    /// The memory that it holds between calls.
    pub(crate) fn held(&self) -> Footprint {
        Footprint {
            prepared: self.prepared.bytes(),
            constants: self.constants.iter().flatten().map(Constant::bytes).sum(),
            arena: self.workspaces.kept(),
            scratch: self.module.as_ref().map_or(0, |m| m.scratch()),
        }
    }

    /// The source text of the kernels.
    pub(crate) fn source(&self) -> &str {
        match &self.origin {
            Origin::Kept(again) => again.source(&self.outline),
            Origin::Planned(_) | Origin::Loaded(_) => self.module.as_ref().map_or("", |m| m.source()),
        }
    }

    /// Computes the outputs from arguments that have the sizes the graph states, with these values of its parameters. They
    /// are there when it returns. May be called from several threads at once.
    pub(crate) fn run(
        &self,
        op: &'static str,
        args: &[Arc<Storage>],
        params: &[i64],
        outputs: &mut [&mut Storage],
    ) -> Result<()> {
        if self.debug >= 2 {
            return self.run_timed(op, args, params, outputs).map(|_| ());
        }
        self.with_workspace(op, args, |workspace| {
            self.queue(op, args, params, outputs, workspace)?;
            self.download(op, outputs, workspace)
        })
    }

    /// As [`run`](Compiled::run), into new memory for so many bytes of each output: of the device, where its memory is not
    /// the host's. Launches may still be queued when it returns.
    pub(crate) fn results(
        &self,
        op: &'static str,
        args: &[Arc<Storage>],
        params: &[i64],
        sizes: &[usize],
    ) -> Result<Vec<Storage>> {
        if self.device.is_host() {
            // Before any of it is had: the system would grant it, and end the process when it is used.
            let arena = self.workspaces.missing();
            let bytes = sizes.iter().fold(arena, |sum, &n| sum.saturating_add(n));
            if !is_available(bytes) {
                return Err(Error::OutOfMemory { bytes });
            }
            let mut results = sizes.iter().map(|&n| Storage::zeroed(n)).collect::<Result<Vec<_>>>()?;
            self.run(op, args, params, &mut results.iter_mut().collect::<Vec<_>>())?;
            return Ok(results);
        }
        self.with_workspace(op, args, |workspace| {
            match self.debug {
                2.. => self.queue_timed(op, args, params, &mut [], workspace).map(|_| ())?,
                _ => self.queue(op, args, params, &mut [], workspace)?,
            }
            let result = |(slot, &len): (usize, &usize)| workspace.result(&self.device, slot, len);
            let results = sizes.iter().enumerate().map(result).collect::<Result<Vec<_>, _>>().map_err(on_device(op))?;
            // Whoever reads these waits for this call, not for later ones.
            self.device.mark().map_err(on_device(op))?;
            Ok(results)
        })
    }

    /// As [`run`](Compiled::run), and the time that each step took, by the device's own clock where it has one.
    pub(crate) fn run_timed(
        &self,
        op: &'static str,
        args: &[Arc<Storage>],
        params: &[i64],
        outputs: &mut [&mut Storage],
    ) -> Result<Vec<Duration>> {
        self.with_workspace(op, args, |workspace| {
            let times = self.queue_timed(op, args, params, outputs, workspace)?;
            self.download(op, outputs, workspace).map(|()| times)
        })
    }

    /// Copies results to the host, where its memory is not the device's.
    fn download(&self, op: &'static str, outputs: &mut [&mut Storage], workspace: &Workspace) -> Result<()> {
        // It waits for this call, not for later ones.
        let marked = self.device.mark();
        marked.and_then(|()| workspace.download(&*self.device, outputs)).map_err(on_device(op))
    }

    /// Runs or queues the launches of a call.
    fn queue(
        &self,
        op: &'static str,
        args: &[Arc<Storage>],
        params: &[i64],
        outputs: &mut [&mut Storage],
        workspace: &mut Workspace,
    ) -> Result<()> {
        if let Some(recording) = workspace.recording.as_ref().filter(|_| params.is_empty()) {
            // SAFETY: it was recorded on this workspace, whose memory belongs to this call alone; prepared memory,
            // constants and the module live as long as `self`.
            return unsafe { recording.replay() }.map_err(|e| failed(op, e));
        }
        let mut steps = self.outline.run.iter();
        let all = |workspace: &Workspace, outputs: &mut [&mut Storage]| {
            steps.clone().try_for_each(|step| self.launch(op, step, args, params, outputs, workspace))
        };
        // The first call loads kernels; from the second on their launches are worth keeping.
        if workspace.calls == 1 && params.is_empty() && steps.len() > 1 && !self.device.is_host() {
            let mut result = Ok(());
            let recorded = self.device.record(&mut || {
                result = all(workspace, outputs);
                Ok(())
            });
            result?;
            if let Some(recording) = recorded.map_err(on_device(op))? {
                // SAFETY: as above.
                let replayed = unsafe { recording.replay() };
                workspace.recording = Some(recording);
                return replayed.map_err(|e| failed(op, e));
            }
        }
        workspace.calls = workspace.calls.saturating_add(1);
        steps.try_for_each(|step| self.launch(op, step, args, params, outputs, workspace))
    }

    /// Runs the launches of a call, each for itself, and gives their times.
    fn queue_timed(
        &self,
        op: &'static str,
        args: &[Arc<Storage>],
        params: &[i64],
        outputs: &mut [&mut Storage],
        workspace: &Workspace,
    ) -> Result<Vec<Duration>> {
        let mut times = Vec::with_capacity(self.outline.run.len());
        for step in &self.outline.run {
            let mut result = Ok(());
            let time = self.device.timed(&mut || {
                result = self.launch(op, step, args, params, outputs, workspace);
                Ok(())
            });
            result?;
            times.push(time.map_err(on_device(op))?);
        }
        for (step, &time) in self.outline.run.iter().zip(&times) {
            self.show("run", step, time);
        }
        Ok(times)
    }

    /// Calls `f` with memory that no other call uses meanwhile, and with arguments in it.
    fn with_workspace<R>(
        &self,
        op: &'static str,
        args: &[Arc<Storage>],
        f: impl FnOnce(&mut Workspace) -> Result<R>,
    ) -> Result<R> {
        let device = &*self.device;
        let mut workspace = self.workspaces.take(device).map_err(on_device(op))?;
        let result = workspace.upload(device, args).map_err(on_device(op)).and_then(|()| f(&mut workspace));
        // Launches on this memory may still be queued: later ones, and copies, come after them.
        self.workspaces.give_back(workspace);
        result
    }

    /// With `DEBUG=2` or more, one line to stderr about a launch.
    fn show(&self, list: &str, step: &Step, time: Duration) {
        if self.debug < 2 {
            return;
        }
        let Some(code) = self.outline.kernels.get(step.kernel) else { return };
        let micros = time.as_secs_f64() * 1e6;
        to_stderr(&format!("*** {list:<7} {micros:10.2} us  {:<16} {}", code.role.name(), code.name));
    }

    fn launch(
        &self,
        op: &'static str,
        step: &Step,
        args: &[Arc<Storage>],
        params: &[i64],
        outputs: &mut [&mut Storage],
        workspace: &Workspace,
    ) -> Result<()> {
        let Some(module) = &self.module else { return Ok(()) };
        let missing = || Error::Execution { op, cause: "a kernel's argument is missing".into() };
        let mut launch_args = Vec::with_capacity(step.args.len());
        for &at in &step.args {
            let buffer = &self.outline.buffers[at];
            let bytes = buffer.len * buffer.dtype.size();
            let arg = match buffer.place {
                Place::Argument(slot) => workspace.argument(slot, args),
                Place::Constant(slot) => slot
                    .checked_sub(self.first_constant)
                    .and_then(|i| self.constants.get(i))
                    .and_then(|c| c.as_ref())
                    .and_then(|c| c.arg()),
                Place::Output(slot) => workspace.output(slot, outputs),
                Place::Prepared(offset) => self.prepared.arg(offset, bytes),
                Place::Arena(offset) => workspace.intermediate(offset, bytes),
            };
            launch_args.push(arg.ok_or_else(missing)?);
        }
        // SAFETY: on the host, arguments and constants are borrowed by the caller and live until the launch returns, and
        // outputs are borrowed for writing. On another device, what the launch touches lives until it has run: memory
        // is freed and results are read only after that. The workspace belongs to this call alone; prepared memory is
        // written by `new` alone. The program's memory plan keeps buffers that are in use together apart, and its
        // kernels have passed the verifier of linear code.
        unsafe { module.launch(step.kernel, &launch_args, &step.params(params)) }.map_err(|e| failed(op, e))
    }
}
