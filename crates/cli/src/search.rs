//! `bench conv --search`: a faster plan for one form, checked against f64, stored where later compiles find it.

use crate::args::Algo;
use crate::certificate;
use crate::error::{Error, Result};
use crate::forms::{self, Data, Form};
use crate::json::{Search, Try};
use crate::progress::Progress;
use crate::shapes::Case;
use std::cell::RefCell;
use std::sync::Arc;
use winograph::device::Device;
use winograph::search::{Found, Outcome, SearchOptions, Watch, search};
use winograph::{AxisTile, TensorBuffer};

/// Shows what is tried, and compares results with the convolution in f64.
struct Checker<'a> {
    case: &'a Case,
    data: &'a Data,
    exact: &'a [f64],
    threads: usize,
    progress: &'a mut Progress,
}

impl Watch for Checker<'_> {
    fn trying(&mut self, tried: usize, part: f64, change: &str) {
        let line = change.split(';').next().unwrap_or_default();
        let short: String = line.chars().take(60).collect();
        self.progress.now(&format!("searching, {:.0} %: {tried} tried, now {short}", 100.0 * part.clamp(0.0, 1.0)));
    }

    fn check(&mut self, tile: &[AxisTile], results: &[TensorBuffer]) -> std::result::Result<(), String> {
        let Some(y) = results.first() else { return Err("it has no result".to_string()) };
        let y = y.to_vec::<f32>().map_err(|e| e.to_string())?;
        let values = (&self.data.x_values[..], &self.data.w_values[..]);
        let used = certificate::certify(self.case, tile, values, &y, self.exact, self.threads).max_err_over_bound;
        match used <= 1.0 {
            true => Ok(()),
            false => Err(format!("its error is {used} times its a-priori bound")),
        }
    }
}

/// Searches for so many seconds; gives the form with the best plan and what was tried.
pub(crate) fn run(
    algo: Algo,
    case: &Case,
    data: &Data,
    device: &Arc<dyn Device>,
    (exact, threads): (&[f64], usize),
    seconds: f64,
    progress: &mut Progress,
) -> Result<(Form, Option<Search>)> {
    let chosen = RefCell::new(None);
    let write = |args: &[winograph::Tensor]| forms::write(algo, case, args, &data.w, &mut chosen.borrow_mut());
    let options = SearchOptions { seconds, device: Some(device.clone()), compiler: Some(forms::options(algo, case)) };
    let mut checker = Checker { case, data, exact, threads, progress };
    let args = forms::arguments(case);
    let found = match search(&args, &[&data.x, &data.w][..args.len().min(2)], &options, &mut checker, &write) {
        Ok(found) => found,
        Err(winograph::Error::Inapplicable { .. }) => return Ok((forms::build(algo, case, &data.w, device)?, None)),
        Err(e) => return Err(Error::of(&format!("cannot search for plans of the {} form", algo.name()), e)),
    };
    let (stored, not_stored) = match device.plans() {
        None => (vec![], Some(format!("the device {} keeps no plans", device.name()))),
        Some(plans) => match plans.store(&found.problem, device.target(), &found.gain) {
            Ok(files) => (files.iter().map(|f| f.display().to_string()).collect(), None),
            Err(e) => (vec![], Some(e.to_string())),
        },
    };
    let report = Search {
        seconds,
        found: !found.gain.is_empty(),
        time_over_heuristics: found.ratio,
        plan: found.tuning.to_string(),
        stored,
        not_stored,
        tried: tried(&found),
    };
    let verdict = forms::verdict(algo, chosen.into_inner(), found.function.explanation());
    Ok((Form { algo, verdict, function: Some(found.function) }, Some(report)))
}

fn tried(found: &Found) -> Vec<Try> {
    let of = |t: &winograph::search::Try| Try {
        change: t.change.clone(),
        outcome: t.outcome.name(),
        reason: match &t.outcome {
            Outcome::Unfit(why) | Outcome::Wrong(why) => Some(why.clone()),
            _ => None,
        },
        ratio: t.ratio,
        rounds: t.rounds,
    };
    found.tried.iter().map(of).collect()
}
