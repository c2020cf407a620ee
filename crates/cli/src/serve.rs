//! `winograph bench serve`: builds and times what lines of its input ask for, so that a harness can let this process
//! take turns with other programs.
//!
//! Each line is a JSON object, and so is each answer:
//!
//! ```text
//! {"prepare": [["conv", "--input", "1,64,56,56", "--weight", "64,64,3,3"], ["matmul", "--size", "512,512,512"]]}
//! {"prepared": [{"applied": true, "reason": ..., "tile": [4, 4], "compile_ms": ..., "max_error": ...}, ..]}
//! {"time": 0, "seconds": 0.05}
//! {"min": ms, "median": ms, "disturbed": 0, "calls": [n, n, n]}
//! ```
//!
//! `time` names one of those prepared last. What fails is answered by `{"error": text}`.

use crate::args::{BenchServe, ServeJob, ServeJobs};
use crate::error::{Error, Result};
use crate::forms::{self, Data, Form};
use crate::machine::{Machine, Name};
use crate::measure::Subject;
use crate::shapes::Case;
use crate::{matmul, output, quiet, reference};
use clap::Parser as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, StdinLock};
use winograph::AxisTile;

/// Outputs of each form that are compared with their sums in f64.
const SAMPLES: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    prepare: Option<Vec<Vec<String>>>,
    time: Option<usize>,
    seconds: Option<f64>,
}

#[derive(Serialize)]
struct Prepared {
    /// Whether the form was built; nothing can be timed otherwise.
    applied: bool,
    reason: String,
    #[serde(serialize_with = "crate::json::tile")]
    tile: Vec<AxisTile>,
    kernels: usize,
    compile_ms: f64,
    prepare_ms: f64,
    /// Largest absolute error of some outputs.
    max_error: f64,
    flops: u64,
}

#[derive(Serialize)]
struct Failed {
    error: String,
}

/// Runs the command.
pub(crate) fn run(args: &BenchServe) -> Result<()> {
    let machine = Machine::open(&Name::Cpu, args.threads)?;
    let mut lines = std::io::stdin().lock();
    let mut next: Option<Request> = request(&mut lines)?;
    while let Some(asked) = next {
        next = match asked.prepare {
            Some(jobs) => serve(&jobs, &machine, &mut lines)?,
            None => {
                fail("nothing is prepared: send prepare first")?;
                request(&mut lines)?
            }
        };
    }
    Ok(())
}

/// The next request that can be read; `None` at the end of the input.
pub(crate) fn request<T: DeserializeOwned>(lines: &mut StdinLock<'_>) -> Result<Option<T>> {
    loop {
        let mut line = String::new();
        match lines.read_line(&mut line) {
            Ok(0) => return Ok(None),
            Ok(_) => match serde_json::from_str(&line) {
                Ok(asked) => return Ok(Some(asked)),
                Err(e) => fail(&format!("cannot read the request: {e}"))?,
            },
            Err(e) => return Err(Error::failure("cannot read the standard input", e)),
        }
    }
}

pub(crate) fn answer(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|e| Error::failure("cannot write JSON", e))?;
    output::print(&format!("{text}\n"))
}

pub(crate) fn fail(text: &str) -> Result<()> {
    answer(&Failed { error: text.to_string() })
}

/// Tells an error of a request; one of the output ends the command.
fn told(e: Error) -> Result<()> {
    match e {
        Error::Usage(text) => fail(&text),
        Error::Failure { what, cause } => fail(&format!("{what}: {cause}")),
        Error::Closed => Err(Error::Closed),
    }
}

struct Built {
    case: Case,
    data: Data,
    form: Form,
}

fn build(words: &[String], machine: &Machine) -> Result<Built> {
    let job = ServeJob::try_parse_from(words).map_err(|e| Error::usage(e.to_string()))?;
    match job.what {
        ServeJobs::Conv(args) => {
            let case = Case::new(&args.conv)?;
            if case.device != Name::Cpu {
                return Err(Error::usage("serve runs on the CPU: leave --device out"));
            }
            let data = Data::new(&case)?;
            let form = forms::build(args.algo, &case, &data.w, &machine.device)?;
            Ok(Built { case, data, form })
        }
        ServeJobs::Matmul(args) => {
            let (case, data) = matmul::case(&args.size)?;
            let form = matmul::build(&case, &data.w, &machine.device)?;
            Ok(Built { case, data, form })
        }
    }
}

/// Prepares jobs and answers until others are to be prepared.
fn serve(jobs: &[Vec<String>], machine: &Machine, lines: &mut StdinLock<'_>) -> Result<Option<Request>> {
    let built = match jobs.iter().map(|words| build(words, machine)).collect::<Result<Vec<Built>>>() {
        Ok(built) => built,
        Err(e) => {
            told(e)?;
            return request(lines);
        }
    };
    let mut subjects: Vec<Option<Subject<'_>>> = Vec::new();
    let mut prepared = Vec::new();
    for b in &built {
        let usable = b.form.function.as_ref().filter(|_| b.form.verdict.applied);
        let mut said = Prepared {
            applied: usable.is_some(),
            reason: b.form.verdict.reason.clone(),
            tile: b.form.verdict.tile.clone(),
            kernels: 0,
            compile_ms: f64::NAN,
            prepare_ms: f64::NAN,
            max_error: f64::NAN,
            flops: b.case.flops(),
        };
        subjects.push(None);
        if let Some(function) = usable {
            match Subject::new(function, &b.data.x, &b.data.w) {
                Ok(subject) => {
                    let times = function.times();
                    said.kernels = function.program().run.len();
                    said.compile_ms = (times.plan + times.kernels).as_secs_f64() * 1e3;
                    said.prepare_ms = times.prepare.as_secs_f64() * 1e3;
                    said.max_error =
                        reference::sampled_error(&b.case, &b.data.x_values, &b.data.w_values, &subject.result, SAMPLES);
                    subjects.pop();
                    subjects.push(Some(subject));
                }
                Err(e) => {
                    told(e)?;
                    return request(lines);
                }
            }
        }
        prepared.push(said);
    }
    answer(&serde_json::json!({ "prepared": prepared }))?;
    while let Some(asked) = request::<Request>(lines)? {
        if asked.prepare.is_some() {
            return Ok(Some(asked));
        }
        let seconds = asked.seconds.filter(|s| (0.0..=60.0).contains(s));
        let subject = asked.time.and_then(|i| subjects.get_mut(i)?.as_mut());
        match (subject, seconds) {
            (Some(subject), Some(seconds)) => match quiet::turn(seconds, machine.threads, || subject.call()) {
                Ok(turn) => answer(&turn)?,
                Err(e) => told(e)?,
            },
            (None, _) => fail("time has to be the number of a form that was prepared and applies")?,
            (_, None) => fail("seconds has to be a number from 0 to 60")?,
        }
    }
    Ok(None)
}
