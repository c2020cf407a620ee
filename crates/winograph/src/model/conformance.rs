//! ONNX's conformance cases: folders with a model, inputs and the outputs that they give.

use crate::error::{Error, Result};
use crate::function::{ArgSpec, FunctionOptions, compile_with};
use crate::model::onnx::proto::{OptionalProto, SequenceProto, TensorProto};
use crate::model::onnx::tensors;
use crate::model::session::{bindings, with_arguments};
use crate::model::{Model, ModelError, Port, PortType, Session, Value, host};
use crate::tensor::Tensor;
use prost::Message;
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use winograph_ir::DType;

/// Tolerances of ONNX's own runner: `|got - want| <= absolute + relative * |want|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Of the expected value's magnitude.
    pub relative: f64,
    /// Beside it.
    pub absolute: f64,
}

impl Default for Tolerance {
    fn default() -> Tolerance {
        Tolerance { relative: 1e-3, absolute: 1e-7 }
    }
}

/// What became of a case.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// All outputs are as expected.
    Passed,
    /// They are not, or there are none.
    Failed(String),
    /// The model has an operator or a dtype that this library does not have.
    Unsupported {
        /// The operator, or `dtype` and its name.
        what: String,
        /// What the importer says.
        cause: String,
    },
}

/// The folders at or below `root` that hold a case, in order of their names.
///
/// # Errors
/// A folder that cannot be read.
pub fn find(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(dir) = pending.pop() {
        if dir.join("model.onnx").is_file() {
            found.push(dir);
            continue;
        }
        let io = |source| ModelError::Io { path: dir.clone(), source };
        for entry in std::fs::read_dir(&dir).map_err(io)? {
            let entry = entry.map_err(io)?;
            if entry.file_type().map_err(io)?.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A case with its first data set of several, each a list of inputs and expected outputs.
struct Case {
    model: Model,
    sets: Vec<Set>,
}

struct Set {
    inputs: Vec<(String, Value)>,
    expected: Vec<Value>,
}

fn read(path: &Path) -> Result<Vec<u8>> {
    crate::files::read(path).map_err(|source| ModelError::Io { path: path.to_path_buf(), source }.into())
}

/// A value in a file, of the kind that the model says.
fn value(path: &Path, port: &Port) -> Result<Value> {
    let bytes = read(path)?;
    let wrong = |e: prost::DecodeError| Error::from(ModelError::format(path.display().to_string(), e.to_string()));
    let list = |s: SequenceProto| {
        s.tensor_values.iter().map(|t| tensors::tensor(t, None)).collect::<Result<Vec<_>>>().map(Value::Sequence)
    };
    match &port.of {
        PortType::Sequence => list(SequenceProto::decode(&bytes[..]).map_err(wrong)?),
        PortType::Optional => {
            let optional = OptionalProto::decode(&bytes[..]).map_err(wrong)?;
            match (optional.tensor_value, optional.sequence_value) {
                (Some(t), _) => Ok(Value::Tensor(tensors::tensor(&t, None)?)),
                (_, Some(s)) => list(s),
                _ => Ok(Value::None),
            }
        }
        _ => Ok(Value::Tensor(tensors::tensor(&TensorProto::decode(&bytes[..]).map_err(wrong)?, None)?)),
    }
}

fn load(dir: &Path) -> Result<Case> {
    if !dir.join("test_data_set_0").is_dir() {
        let cause = "it has a model and no test data: a folder test_data_set_0 with its inputs as input_0.pb, input_1.pb .. \
                     and what it gives as output_0.pb ..";
        return Err(ModelError::format(dir.display().to_string(), cause).into());
    }
    let model = Model::load(dir.join("model.onnx"))?;
    let (inputs, outputs) = (model.inputs(), model.outputs());
    let strange = |p: &&Port| matches!(&p.of, PortType::Other(_));
    if let Some(port) = inputs.iter().chain(&outputs).find(strange)
        && let PortType::Other(what) = &port.of
    {
        let (node, cause) = (format!("{:?}", port.name), format!("it is {what}"));
        return Err(ModelError::Unsupported { node, op: "dtype".into(), cause }.into());
    }
    let mut sets = Vec::new();
    for i in 0.. {
        let folder = dir.join(format!("test_data_set_{i}"));
        if !folder.is_dir() {
            break;
        }
        let mut set = Set { inputs: vec![], expected: vec![] };
        for (i, port) in inputs.iter().enumerate() {
            let file = folder.join(format!("input_{i}.pb"));
            if file.is_file() {
                set.inputs.push((port.name.clone(), value(&file, port)?));
            } else {
                set.inputs.push((port.name.clone(), Value::None));
            }
        }
        for (i, port) in outputs.iter().enumerate() {
            set.expected.push(value(&folder.join(format!("output_{i}.pb")), port)?);
        }
        sets.push(set);
    }
    Ok(Case { model, sets })
}

fn verdict_of(e: Error) -> Verdict {
    match e {
        Error::Model(e) => match *e {
            ModelError::Unsupported { op, cause, .. } => Verdict::Unsupported { what: op, cause },
            ModelError::Format { cause, .. } if cause.contains("elements of type") => {
                Verdict::Unsupported { what: "dtype".into(), cause }
            }
            e => Verdict::Failed(e.to_string()),
        },
        e => Verdict::Failed(e.to_string()),
    }
}

/// Cases that are compiled together: the C compiler is started once for all their kernels.
const BATCH: usize = 24;

/// Runs cases and calls `done` with each one's number and verdict, from several threads and in no order. Cases are
/// compiled in batches, and one by one where a batch cannot be compiled.
pub fn run(dirs: &[PathBuf], options: &FunctionOptions, tolerance: Tolerance, done: &(dyn Fn(usize, Verdict) + Sync)) {
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let start = next.fetch_add(BATCH, Ordering::Relaxed);
                    let Some(batch) = dirs.get(start..dirs.len().min(start + BATCH)).filter(|b| !b.is_empty()) else {
                        break;
                    };
                    run_batch(start, batch, options, tolerance, done);
                }
            });
        }
    });
}

/// A data set that is compiled together with others.
struct Job {
    case: usize,
    set: usize,
    bound: Vec<String>,
}

fn run_batch(
    start: usize,
    dirs: &[PathBuf],
    options: &FunctionOptions,
    tolerance: Tolerance,
    done: &(dyn Fn(usize, Verdict) + Sync),
) {
    let verdicts: Vec<Mutex<Option<Verdict>>> = dirs.iter().map(|_| Mutex::new(None)).collect();
    // The first thing that goes wrong counts.
    let tell = |case: usize, verdict: Verdict| {
        if let Ok(mut v) = verdicts[case].lock()
            && matches!(*v, None | Some(Verdict::Passed))
        {
            *v = Some(verdict);
        }
    };
    let mut jobs = Vec::new();
    let mut cases: Vec<Option<Case>> = Vec::with_capacity(dirs.len());
    for (i, dir) in dirs.iter().enumerate() {
        let case = load(dir);
        let case = match case {
            Ok(case) => case,
            Err(e) => {
                tell(i, verdict_of(e));
                cases.push(None);
                continue;
            }
        };
        for (s, set) in case.sets.iter().enumerate() {
            match bindings(&case.model, &set.inputs) {
                Ok(Some(bound)) => jobs.push(Job { case: i, set: s, bound }),
                Ok(None) => {
                    let session = Session::new(case.model.clone(), options.clone());
                    tell(
                        i,
                        match session.run_values(&set.inputs) {
                            Ok(values) => judge(values.into_iter().map(|(_, v)| v), &set.expected, tolerance),
                            Err(e) => verdict_of(e),
                        },
                    );
                }
                Err(e) => tell(i, verdict_of(e)),
            }
        }
        cases.push(Some(case));
    }
    together(&jobs, &cases, options, tolerance, &tell);
    for (i, verdict) in verdicts.into_iter().enumerate() {
        let verdict = verdict.into_inner().ok().flatten();
        done(start + i, verdict.unwrap_or_else(|| Verdict::Failed("it was not run".into())));
    }
}

fn together(
    jobs: &[Job],
    cases: &[Option<Case>],
    options: &FunctionOptions,
    tolerance: Tolerance,
    tell: &dyn Fn(usize, Verdict),
) {
    if jobs.is_empty() {
        return;
    }
    let set_of = |job: &Job| cases.get(job.case)?.as_ref().and_then(|c| Some((&c.model, c.sets.get(job.set)?)));
    let attempt = || -> Result<Vec<Vec<Value>>> {
        let mut args: Vec<&Tensor> = Vec::new();
        for job in jobs {
            let Some((_, set)) = set_of(job) else { continue };
            args.extend(set.inputs.iter().filter(|(n, _)| !job.bound.contains(n)).flat_map(|(_, v)| v.tensors()));
        }
        let specs: Vec<ArgSpec> = args.iter().map(|t| ArgSpec::new(t.dtype(), t.shape())).collect();
        let mut shapes: Vec<Vec<Value>> = Vec::new();
        let function = compile_with(&specs, options, |args| {
            let mut args = args.iter().cloned();
            let mut all = Vec::new();
            for job in jobs {
                let Some((model, set)) = set_of(job) else { continue };
                let results = model.trace(&with_arguments(&set.inputs, &job.bound, &mut args))?;
                all.extend(results.iter().flat_map(|v| v.tensors().iter().cloned()));
                shapes.push(results);
            }
            Ok(all)
        })?;
        let mut results = function.call(&args)?.into_iter();
        let mut take = || results.next().ok_or(Error::Execution { op: "check", cause: "a result is missing".into() });
        for value in shapes.iter_mut().flatten() {
            match value {
                Value::None => {}
                Value::Tensor(t) => *t = take()?,
                Value::Sequence(list) => {
                    for t in list {
                        *t = take()?;
                    }
                }
            }
        }
        Ok(shapes)
    };
    match attempt() {
        Ok(results) => {
            for (job, values) in jobs.iter().zip(results) {
                if let Some((_, set)) = set_of(job) {
                    tell(job.case, judge(values.into_iter(), &set.expected, tolerance));
                }
            }
        }
        Err(e) if jobs.len() == 1 => tell(jobs[0].case, verdict_of(e)),
        Err(_) => {
            let (a, b) = jobs.split_at(jobs.len() / 2);
            together(a, cases, options, tolerance, tell);
            together(b, cases, options, tolerance, tell);
        }
    }
}

fn judge(got: impl Iterator<Item = Value>, want: &[Value], tolerance: Tolerance) -> Verdict {
    for (i, (got, want)) in got.zip(want).enumerate() {
        let (got, want) = (got.tensors(), want.tensors());
        if got.len() != want.len() {
            return Verdict::Failed(format!("output {i} has {} tensors, expected {}", got.len(), want.len()));
        }
        for (got, want) in got.iter().zip(want) {
            match difference(got, want, tolerance) {
                Ok(None) => {}
                Ok(Some(cause)) => return Verdict::Failed(format!("output {i}: {cause}")),
                Err(e) => return Verdict::Failed(e.to_string()),
            }
        }
    }
    Verdict::Passed
}

/// How a tensor differs from another beyond a tolerance.
///
/// # Errors
/// Tensors that cannot be computed.
pub fn difference(got: &Tensor, want: &Tensor, tolerance: Tolerance) -> Result<Option<String>> {
    if got.dtype() != want.dtype() || got.shape() != want.shape() {
        return Ok(Some(format!("{got:?}, expected {want:?}")));
    }
    Tensor::realize_all(&[got, want])?;
    let elements = |t| host::constant_value("check", t, &Cell::default());
    let (a, b) = (elements(got)?, elements(want)?);
    for (i, (x, y)) in a.data.iter().zip(&b.data).enumerate() {
        let (x, y) = match got.dtype() {
            DType::I64 if x == y => continue,
            _ => (x.to_f64(), y.to_f64()),
        };
        let near = x == y || (x.is_nan() && y.is_nan()) || {
            (x - y).abs() <= tolerance.absolute + tolerance.relative * y.abs()
        };
        if !near {
            return Ok(Some(format!("element {i} of {:?} is {x}, expected {y}", got.shape())));
        }
    }
    Ok(None)
}
