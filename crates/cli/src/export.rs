//! `winograph export`: a model as one file for machines without a compiler.

use crate::args::ExportArgs;
use crate::error::{Error, Result};
use crate::machine::{self, Machine, Name};
use crate::output;
use crate::progress::Progress;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use winograph::cpu::{CpuDevice, CpuOptions};
use winograph::device::Device;
use winograph::export::{EXTENSION, Exported, Platform};
use winograph::model::{Model, Port, PortType};
use winograph::{ArgSpec, FunctionOptions, Tensor};

#[derive(Serialize)]
struct Report {
    file: PathBuf,
    bytes: u64,
    /// The machines it runs on.
    machine: Platform,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
}

#[derive(Serialize)]
struct Value {
    name: String,
    dtype: String,
    shape: Vec<usize>,
}

impl Value {
    fn new((name, spec): (String, ArgSpec)) -> Value {
        Value { name, dtype: spec.dtype.name().to_string(), shape: spec.shape }
    }
}

/// Runs the command.
pub(crate) fn run(args: &ExportArgs) -> Result<()> {
    let file = args.output.clone().unwrap_or_else(|| args.model.with_extension(EXTENSION));
    if file.extension().is_none_or(|e| e != EXTENSION) {
        let name = file.display();
        return Err(Error::usage(format!("--output {name}: expected a name that ends in .{EXTENSION}")));
    }
    let mut progress = Progress::new(3);
    progress.step("reading the model");
    let model = Model::load(&args.model).map_err(|e| Error::of("cannot read the model", e))?;
    let mut ports = model.inputs();
    ports.extend(model.defaults().into_iter().filter(|p| args.shape.iter().any(|(name, _)| *name == p.name)));
    let inputs = inputs(&ports, &args.shape)?;
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
    progress.step("compiling");
    let options = FunctionOptions { device: Some(device(args)?), ..FunctionOptions::default() };
    // It keeps the model, so that it can tell of tiles.
    let session = model.session(options);
    session.compile_for(&inputs).map_err(|e| Error::of("cannot compile the model", e))?;
    progress.step("writing");
    session.export(&file).map_err(|e| Error::of("cannot export the model", e))?;
    drop(progress);
    let written = Exported::open(&file).map_err(|e| Error::of("cannot read what was written", e))?;
    let report = Report {
        bytes: file.metadata().map_or(0, |m| m.len()),
        file,
        machine: written.machine().clone(),
        inputs: written.inputs().into_iter().map(Value::new).collect(),
        outputs: written.outputs().into_iter().map(Value::new).collect(),
    };
    if args.json {
        let text = serde_json::to_string(&report).map_err(|e| Error::failure("cannot write JSON", e))?;
        return output::print(&format!("{text}\n"));
    }
    output::print(&text(&report))
}

/// The device that the file is made on.
fn device(args: &ExportArgs) -> Result<Arc<dyn Device>> {
    match Name::parse(&args.device)? {
        Name::Cpu => {
            let mut options = CpuOptions::from_env(machine::env()?);
            options.vector_bytes = args.vector_bytes.as_ref().and_then(|n| n.parse().ok()).or(options.vector_bytes);
            Ok(Arc::new(CpuDevice::new(options).map_err(|e| Error::failure("cannot open the CPU", e))?))
        }
        Name::Virtual(_) => {
            let what =
                format!("--device {}: nothing can be exported for a virtual GPU: take cpu or cuda:N", args.device);
            Err(Error::usage(what))
        }
        Name::Cuda(_) if args.vector_bytes.is_some() => {
            Err(Error::usage("--vector-bytes is about the CPU: leave it out with another --device"))
        }
        name => Ok(Machine::open(&name, None)?.device),
    }
}

/// Placeholders of the shapes that the model states or the caller gives.
fn inputs(ports: &[Port], shapes: &[(String, Vec<usize>)]) -> Result<Vec<(String, Tensor)>> {
    for (i, (name, _)) in shapes.iter().enumerate() {
        if !ports.iter().any(|p| p.name == *name) {
            let names: Vec<&str> = ports.iter().map(|p| p.name.as_str()).collect();
            return Err(Error::usage(format!("--shape {name}: the model has no such input, but {}", names.join(", "))));
        }
        if shapes[..i].iter().any(|(n, _)| n == name) {
            return Err(Error::usage(format!("--shape {name} is there twice")));
        }
    }
    let mut out = Vec::with_capacity(ports.len());
    for port in ports {
        let PortType::Tensor { dtype, shape } = &port.of else {
            let what = format!("the input {} is no tensor", port.name);
            return Err(Error::failure("cannot export the model", what));
        };
        let given = shapes.iter().find(|(n, _)| *n == port.name).map(|(_, shape)| shape.clone());
        let stated = || shape.clone()?.into_iter().collect::<Option<Vec<usize>>>();
        let Some(shape) = given.or_else(stated) else {
            let name = &port.name;
            return Err(Error::usage(format!(
                "the model leaves sizes of the input {name} open: give --shape {name}=SIZES"
            )));
        };
        let zeros = Tensor::zeros(&shape, *dtype).map_err(|e| Error::of("cannot export the model", e))?;
        out.push((port.name.clone(), zeros));
    }
    Ok(out)
}

fn text(r: &Report) -> String {
    let mut out = format!("{}: {:.1} MB\nruns on {}\n", r.file.display(), r.bytes as f64 / 1e6, r.machine);
    for (what, list) in [("input", &r.inputs), ("output", &r.outputs)] {
        for v in list {
            let sizes: Vec<String> = v.shape.iter().map(|s| s.to_string()).collect();
            let _ = writeln!(out, "{what} {} {}[{}]", v.name, v.dtype, sizes.join(","));
        }
    }
    out
}
