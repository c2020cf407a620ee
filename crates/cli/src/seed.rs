//! `--protocol seed`: what the script of tinygrad's write-up printed for the two Winograd forms.

use crate::args::{Algo, Weights};
use crate::error::{Error, Result};
use crate::forms::{self, Data};
use crate::machine::{Machine, Name};
use crate::measure::Subject;
use crate::output;
use crate::progress::Progress;
use crate::shapes::Case;
use std::fmt::Write as _;
use std::sync::Arc;
use winograph::device::Device;
use winograph::settings;

/// Calls before the first timed one.
const WARM_UPS: usize = 5;
/// Timed calls, of which the fastest counts.
const RUNS: usize = 20;
/// How much slower the graph-level form may be.
const LIMIT: f64 = 1.2;

/// Runs the protocol: weights are transformed in each call.
pub(crate) fn run(mut case: Case, threads: Option<u32>) -> Result<()> {
    case.weights = Weights::EachCall;
    if let Name::Virtual(_) = case.device {
        return Err(Error::usage("--protocol seed measures times, and a virtual device has none"));
    }
    let device = Machine::open(&case.device, threads)?.device;
    let data = Data::new(&case)?;
    let mut progress = Progress::new(6);
    let old = fastest(Algo::Tensor, &case, &data, &device, &mut progress)?;
    let hybrid = fastest(Algo::Graph, &case, &data, &device, &mut progress)?;
    let mut out = String::new();
    let _ = writeln!(out, "OLD: {old:.3}ms (min of {RUNS} runs)");
    let _ = writeln!(out, "HYBRID: {hybrid:.3}ms (min of {RUNS} runs)");
    let within = if hybrid <= old * LIMIT { "within 20 %" } else { "not within 20 %" };
    let _ = writeln!(out, "HYBRID/OLD: {:.3}, {within}", hybrid / old);
    if let Some((variable, algo)) = asked()? {
        let time = fastest(algo, &case, &data, &device, &mut progress)?;
        let _ = writeln!(out, "{variable} ({}): {time:.3}ms (min of {RUNS} runs)", algo.name());
    }
    drop(progress);
    output::print(&out)
}

/// The form that the environment asks for, as it does of `Tensor::conv2d`.
fn asked() -> Result<Option<(&'static str, Algo)>> {
    let env = settings::env().map_err(|e| Error::of("cannot read the environment", e))?;
    Ok(match (env.wino_old, env.wino) {
        (true, _) => Some(("WINO_OLD=1", Algo::Tensor)),
        (_, Some(true)) => Some(("WINO=1", Algo::Graph)),
        (_, Some(false)) => Some(("WINO=0", Algo::Direct)),
        (_, None) => None,
    })
}

/// Milliseconds of the fastest call of a form.
fn fastest(algo: Algo, case: &Case, data: &Data, device: &Arc<dyn Device>, progress: &mut Progress) -> Result<f64> {
    progress.step(&format!("compiling {}", algo.name()));
    let form = forms::build(algo, case, &data.w, device)?;
    let Some(function) = form.function.as_ref().filter(|_| form.verdict.applied) else {
        return Err(Error::failure(
            format!("--protocol seed needs the {} form, which does not apply", algo.name()),
            form.verdict.reason,
        ));
    };
    progress.step(&format!("running {}", algo.name()));
    let mut subject = Subject::new(function, &data.x, &data.w)?;
    for _ in 1..WARM_UPS {
        subject.call()?;
    }
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        best = best.min(subject.call()?);
    }
    Ok(best)
}
