//! `winograph check`: ONNX's conformance cases.

use crate::args::CheckOnnx;
use crate::error::{Error, Result};
use crate::output;
use crate::progress::Progress;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use winograph::model::conformance::{self, Tolerance, Verdict};
use winograph::model::{Model, Port, PortType};
use winograph::settings::settings;
use winograph::{DType, FunctionOptions};

#[derive(Debug, Default, Serialize)]
struct Report {
    device: String,
    passed: usize,
    failed: Vec<Failure>,
    /// Cases by the operator or dtype that is missing.
    unsupported: BTreeMap<String, usize>,
    seconds: f64,
    /// Names of the cases that are not supported.
    #[serde(skip)]
    skipped: Vec<(String, String)>,
}

#[derive(Debug, Serialize)]
struct Failure {
    case: String,
    cause: String,
}

/// Runs the command.
pub(crate) fn run(args: &CheckOnnx) -> Result<()> {
    let start = Instant::now();
    let mut dirs: Vec<PathBuf> = Vec::new();
    for root in &args.dirs {
        dirs.extend(conformance::find(root).map_err(|e| Error::of("cannot look for cases", e))?);
    }
    if let Some(part) = &args.only {
        dirs.retain(|d| name(d).contains(part.as_str()));
    }
    if let Some(dtype) = args.only_dtype.as_deref().map(dtype).transpose()? {
        dirs.retain(|d| is_of(d, dtype));
    }
    if dirs.is_empty() {
        return Err(Error::usage("there is no case: a folder with model.onnx and test_data_set_0 is one"));
    }
    let device = settings().map_err(|e| Error::of("cannot open the CPU", e))?.device.clone();
    let mut report = Report { device: device.name().to_string(), ..Report::default() };
    let options = FunctionOptions { device: Some(device), ..FunctionOptions::default() };
    let verdicts: Vec<Mutex<Option<Verdict>>> = dirs.iter().map(|_| Mutex::new(None)).collect();
    let progress = Mutex::new(Progress::new(dirs.len() as u64));
    let tolerance = Tolerance { relative: args.rtol, absolute: args.atol };
    conformance::run(&dirs, &options, tolerance, &|i, verdict| {
        progress.lock().unwrap_or_else(PoisonError::into_inner).step(&name(&dirs[i]));
        *verdicts[i].lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
    });
    drop(progress);
    for (dir, verdict) in dirs.iter().zip(verdicts) {
        match verdict.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(Verdict::Passed) => report.passed += 1,
            Some(Verdict::Unsupported { what, cause }) => {
                *report.unsupported.entry(what.clone()).or_default() += 1;
                report.skipped.push((name(dir), format!("{what}: {cause}")));
            }
            Some(Verdict::Failed(cause)) => report.failed.push(Failure { case: name(dir), cause }),
            None => report.failed.push(Failure { case: name(dir), cause: "it was not run".into() }),
        }
    }
    report.seconds = start.elapsed().as_secs_f64();
    if args.json {
        let text = serde_json::to_string(&report).map_err(|e| Error::failure("cannot write JSON", e))?;
        output::print(&format!("{text}\n"))?;
    } else {
        output::print(&text(&report, args.list))?;
    }
    let enough = args.min_passed.is_none_or(|n| report.passed >= n);
    match (enough, report.failed.is_empty() || args.min_passed.is_some()) {
        (true, true) => Ok(()),
        (false, _) => {
            let wanted = args.min_passed.unwrap_or_default();
            Err(Error::failure("too few cases passed", format!("{} of at least {wanted}", report.passed)))
        }
        _ => Err(Error::failure("cases failed", format!("{} of {}", report.failed.len(), dirs.len()))),
    }
}

fn dtype(name: &str) -> Result<DType> {
    DType::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = DType::ALL.into_iter().map(DType::name).collect();
        Error::usage(format!("--only-dtype {name}: expected one of {}", names.join(", ")))
    })
}

/// Whether all that a case takes and gives is tensors of one dtype. One that cannot be read counts, so that it is told.
fn is_of(dir: &Path, dtype: DType) -> bool {
    let Ok(model) = Model::load(dir.join("model.onnx")) else { return true };
    let fits = |p: &Port| matches!(p.of, PortType::Tensor { dtype: d, .. } if d == dtype);
    model.inputs().iter().chain(&model.outputs()).all(fits)
}

fn name(dir: &Path) -> String {
    dir.file_name().map_or_else(|| dir.display().to_string(), |n| n.to_string_lossy().into_owned())
}

fn text(report: &Report, list: bool) -> String {
    let mut out = String::new();
    for f in &report.failed {
        let _ = writeln!(out, "failed {}: {}", f.case, f.cause);
    }
    if list {
        for (case, cause) in &report.skipped {
            let _ = writeln!(out, "unsupported {case}: {cause}");
        }
    }
    let unsupported: usize = report.unsupported.values().sum();
    if unsupported > 0 {
        let _ = write!(out, "unsupported:");
        for (what, count) in &report.unsupported {
            let _ = write!(out, " {what} {count}");
        }
        out.push('\n');
    }
    let _ = writeln!(
        out,
        "{}: passed {}, failed {}, unsupported {unsupported}, in {:.1} s",
        report.device,
        report.passed,
        report.failed.len(),
        report.seconds
    );
    out
}
