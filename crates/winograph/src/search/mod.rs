//! Search: neighbours of the heuristics' plan for a sum of products, run, checked and timed on the device at hand.
//!
//! What the compiler's heuristics decide is where a search begins. It tries tunings that differ from the best one so far
//! in one decision, compares their results, and has each run in turns with the best one. On a processor results are compared
//! bit for bit, since its schedules depend on the number of threads and results must not; on a GPU a schedule may sum in
//! another order, and the watcher is asked whether other bits are right. One that is faster beyond the noise takes its place. What is left at the end runs against the heuristics once more, and is the result only
//! if that, too, is beyond the noise.

mod race;
mod store;

pub use store::{PLAN_BYTES, PlanStore, StoreError};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::function::{ArgSpec, Function, FunctionOptions, compile_with};
use crate::settings::settings;
use crate::tensor::{Tensor, TensorBuffer};
use race::{FINAL, TRIAL, race};
use std::sync::Arc;
use std::time::{Duration, Instant};
use winograph_compiler::Options;
use winograph_compiler::explain::NestReport;
use winograph_compiler::tune::{Problem, SumReport, Tuning, TuningRule, neighbours};
use winograph_ir::rule::AxisTile;

/// How long a search goes on, and for what.
#[derive(Clone, Default)]
pub struct SearchOptions {
    /// How long candidates are tried, in seconds. Building the heuristics' program and the last comparison come on top.
    pub seconds: f64,
    /// Where it runs; the process's default device if `None`.
    pub device: Option<Arc<dyn Device>>,
    /// The compiler's options, of which `tuning` is not used; the process's defaults if `None`.
    pub compiler: Option<Options>,
}

/// What became of a candidate.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is faster than what was best before it, beyond the noise.
    Faster,
    /// It is not.
    NotFaster,
    /// It is a program that has been tried.
    Same,
    /// It does not fit, or does not compile.
    Unfit(String),
    /// Its schedule changes bits of the result, on a processor.
    OtherBits,
    /// The watcher refuses its result.
    Wrong(String),
}

impl Outcome {
    /// Name in JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Outcome::Faster => "faster",
            Outcome::NotFaster => "not faster",
            Outcome::Same => "same program",
            Outcome::Unfit(_) => "unfit",
            Outcome::OtherBits => "other bits",
            Outcome::Wrong(_) => "wrong",
        }
    }
}

/// One candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct Try {
    /// What was tried.
    pub tuning: Tuning,
    /// In which lines it differs from what was best before it.
    pub change: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Its time over that of what was best before it, the median of some rounds; not a number where it did not run.
    pub ratio: f64,
    /// Number of rounds.
    pub rounds: usize,
}

/// Who watches a search. All methods have defaults.
pub trait Watch {
    /// A candidate is about to be compiled; so many have been tried, and this part of the time is over.
    fn trying(&mut self, tried: usize, part: f64, change: &str) {
        let _ = (tried, part, change);
    }

    /// Whether a result of a tile, none for the direct sum, is right: what it says if not. It is asked about the first one;
    /// on a processor later ones of the tile must have the same bits, on a GPU it is asked about each that has others.
    fn check(&mut self, tile: &[AxisTile], results: &[TensorBuffer]) -> Result<(), String> {
        let _ = (tile, results);
        Ok(())
    }
}

/// A watcher that wants nothing.
pub struct Unwatched;

impl Watch for Unwatched {}

/// What a search found.
pub struct Found {
    /// The sum of products that was tuned: of several the one with the most multiply-adds.
    pub problem: Problem,
    /// The best tuning, complete; what the heuristics decide if nothing was faster beyond the noise.
    pub tuning: Tuning,
    /// What of it is to be stored: nothing if that is what the heuristics decide.
    pub gain: Tuning,
    /// The program with it.
    pub function: Function,
    /// Its time over that of the heuristics' program, the median of the last comparison's rounds; 1 if it is that program.
    pub ratio: f64,
    /// What was tried, in order.
    pub tried: Vec<Try>,
}

/// A program that can be called again and again.
struct Runner<'a> {
    function: Function,
    inputs: &'a [&'a Tensor],
    outputs: Vec<TensorBuffer>,
    host: bool,
}

impl Runner<'_> {
    /// The time of one call: on the host all of it, elsewhere by the device's clock.
    fn call(&mut self) -> Result<Duration> {
        let mut outputs: Vec<&mut TensorBuffer> = self.outputs.iter_mut().collect();
        if self.host {
            let start = Instant::now();
            self.function.call_into(self.inputs, &mut outputs)?;
            return Ok(start.elapsed());
        }
        Ok(self.function.call_timed(self.inputs, &mut outputs)?.into_iter().sum())
    }

    fn bits(&mut self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for b in &mut self.outputs {
            hasher.update(b.storage_mut().bytes_mut());
        }
        hasher.finalize()
    }

    /// The sum with the most work and its number.
    fn sum(&self) -> Option<(usize, &SumReport)> {
        let sums = self.function.explanation().sums.iter().enumerate();
        sums.max_by(|a, b| a.1.work.total_cmp(&b.1.work).then(b.0.cmp(&a.0)))
    }
}

struct Search<'a, 'w> {
    args: &'a [ArgSpec],
    inputs: &'a [&'a Tensor],
    device: Arc<dyn Device>,
    options: Options,
    f: &'a dyn Fn(&[Tensor]) -> Result<Vec<Tensor>>,
    watch: &'w mut dyn Watch,
    /// Sources of the programs that have been run.
    sources: Vec<blake3::Hash>,
    /// Tiles and the bits of results that are right.
    bits: Vec<(Vec<AxisTile>, blake3::Hash)>,
}

impl<'a> Search<'a, '_> {
    fn build(&self, given: Vec<(String, Tuning)>) -> Result<Runner<'a>> {
        let compiler = Options { tuning: TuningRule::Given(given), ..self.options.clone() };
        let how = FunctionOptions { device: Some(self.device.clone()), compiler: Some(compiler), dumps: false };
        let function = compile_with(self.args, &how, |args| (self.f)(args))?;
        let outputs = function.buffers()?;
        let takes = function.args().len().min(self.inputs.len());
        Ok(Runner {
            function,
            inputs: self.inputs.get(..takes).unwrap_or_default(),
            outputs,
            host: self.device.is_host(),
        })
    }

    /// Runs a program for the first time; says what is wrong with it, if anything is.
    fn first(&mut self, runner: &mut Runner<'_>) -> Result<Option<Outcome>> {
        let source = blake3::hash(runner.function.source().as_bytes());
        if self.sources.contains(&source) {
            return Ok(Some(Outcome::Same));
        }
        self.sources.push(source);
        runner.call()?;
        let bits = runner.bits();
        let tile = runner.sum().and_then(|s| s.1.used.tile.clone()).unwrap_or_default();
        if self.bits.contains(&(tile.clone(), bits)) {
            return Ok(None);
        }
        let ordered = self.device.target().gpu.is_none();
        if ordered && self.bits.iter().any(|b| b.0 == tile) {
            return Ok(Some(Outcome::OtherBits));
        }
        if let Err(why) = self.watch.check(&tile, &runner.outputs) {
            return Ok(Some(Outcome::Wrong(why)));
        }
        self.bits.push((tile, bits));
        Ok(None)
    }
}

/// Lines of a tuning that another one does not have.
fn change(from: &Tuning, to: &Tuning) -> String {
    let (from, to) = (from.to_string(), to.to_string());
    let new: Vec<&str> = to.lines().filter(|l| !from.lines().any(|f| f == *l)).collect();
    let gone = from.lines().filter(|l| !to.lines().any(|t| t.split(['=', ':']).next() == l.split(['=', ':']).next()));
    let without: Vec<String> = gone.map(|l| format!("without {l}")).collect();
    match new.is_empty() {
        true => without.join("; "),
        false => new.join("; "),
    }
}

/// Searches for a faster program of a closure, which is traced once for each candidate. `inputs` are what it is timed
/// with.
///
/// # Errors
/// Those of compiling and calling the heuristics' program, a result of it that the watcher refuses, no sum of products
/// that is large enough to be tuned, and a number of seconds that is none.
pub fn search(
    args: &[ArgSpec],
    inputs: &[&Tensor],
    options: &SearchOptions,
    watch: &mut dyn Watch,
    f: &dyn Fn(&[Tensor]) -> Result<Vec<Tensor>>,
) -> Result<Found> {
    let op = "search";
    let Some(budget) = Duration::try_from_secs_f64(options.seconds).ok().filter(|d| !d.is_zero()) else {
        let got = format!("{} seconds", options.seconds);
        return Err(Error::argument(op, got, &[], "a number of seconds above 0".to_string()));
    };
    let (device, compiler) = match options {
        SearchOptions { device: Some(d), compiler: Some(c), .. } => (d.clone(), c.clone()),
        _ => {
            let defaults = settings()?;
            let device = options.device.clone().unwrap_or_else(|| defaults.device.clone());
            (device, options.compiler.clone().unwrap_or_else(|| defaults.options.clone()))
        }
    };
    let failed = |why: String| Error::Execution { op, cause: why.into() };
    let mut search =
        Search { args, inputs, device, options: compiler, f, watch, sources: Vec::new(), bits: Vec::new() };
    let mut base = search.build(Vec::new())?;
    let Some((_, sum)) = base.sum() else {
        return Err(failed("there is no sum of products of 65536 multiply-adds or more to be tuned".to_string()));
    };
    let (problem, heuristics) = (sum.problem.clone(), sum.used.clone());
    let key = problem.key();
    if let Some(Outcome::Wrong(why)) = search.first(&mut base)? {
        return Err(failed(format!("the heuristics' program is wrong: {why}")));
    }
    let start = Instant::now();
    let deadline = start.checked_add(budget);
    let over = || deadline.is_some_and(|d| Instant::now() >= d);
    let mut best: Option<Runner<'_>> = None;
    let mut used = heuristics.clone();
    let mut tried: Vec<Try> = Vec::new();
    let mut queue: Vec<Tuning> = Vec::new();
    // What an earlier search has stored comes first.
    if let Some(Ok(stored)) = search.device.plans().and_then(|p| p.find(&problem, search.device.target())) {
        queue.push(stored);
    }
    queue.extend(next(&base, search.device.target()));
    let mut at = 0;
    while let Some(tuning) = queue.get(at).cloned().filter(|_| !over()) {
        at += 1;
        if tried.iter().any(|t| t.tuning == tuning) {
            continue;
        }
        let change = change(&used, &tuning);
        search.watch.trying(tried.len(), start.elapsed().as_secs_f64() / options.seconds, &change);
        let mut this = Try { tuning: tuning.clone(), change, outcome: Outcome::NotFaster, ratio: f64::NAN, rounds: 0 };
        let mut runner = match search.build(vec![(key.clone(), tuning)]) {
            Ok(runner) => runner,
            Err(e) => {
                this.outcome = Outcome::Unfit(e.to_string());
                tried.push(this);
                continue;
            }
        };
        let refused = runner.sum().map(|s| s.1.refused.join("; ")).filter(|r| !r.is_empty());
        if let Some(why) = refused {
            this.outcome = Outcome::Unfit(why);
        } else if let Some(wrong) = search.first(&mut runner)? {
            this.outcome = wrong;
        } else {
            let incumbent = best.as_mut().unwrap_or(&mut base);
            let found = race(&mut || incumbent.call(), &mut || runner.call(), TRIAL, deadline)?;
            (this.ratio, this.rounds) = (found.median(), found.ratios.len());
            if found.faster {
                this.outcome = Outcome::Faster;
                used = runner.sum().map(|s| s.1.used.clone()).unwrap_or_default();
                queue = next(&runner, search.device.target());
                at = 0;
                best = Some(runner);
            }
        }
        tried.push(this);
    }
    if let Some(mut best) = best {
        let found = race(&mut || base.call(), &mut || best.call(), FINAL, None)?;
        if found.faster {
            let gain =
                Tuning { tile: used.tile.clone().filter(|t| Some(t) != heuristics.tile.as_ref()), ..used.clone() };
            let ratio = found.median();
            return Ok(Found { problem, tuning: used, gain, function: best.function, ratio, tried });
        }
    }
    let gain = Tuning::default();
    Ok(Found { problem, tuning: heuristics, gain, function: base.function, ratio: 1.0, tried })
}

/// What to try after a program.
fn next(runner: &Runner<'_>, target: &winograph_compiler::Target) -> Vec<Tuning> {
    let explanation = runner.function.explanation();
    let nests: Vec<&NestReport> =
        explanation.kernels.iter().filter(|k| !k.prepare && k.is_first()).flat_map(|k| &k.nests).collect();
    runner.sum().map(|(n, sum)| neighbours(sum, n, &nests, target)).unwrap_or_default()
}
