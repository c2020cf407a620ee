//! `winograph inspect`: what a model takes, gives and consists of, and how its sums would be computed.

use crate::args::InspectArgs;
use crate::error::{Error, Result};
use crate::run::inputs;
use crate::{output, shapes};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use winograph::model::{Model, Port, PortType, Value};
use winograph::{ArgSpec, settings};
use winograph_compiler::{Algorithm, Explanation, Options, Target};
use winograph_ir::indexed::Role;

#[derive(Serialize)]
struct Report {
    model: String,
    inputs: Vec<PortReport>,
    outputs: Vec<PortReport>,
    operators: BTreeMap<String, usize>,
    metadata: BTreeMap<String, String>,
    parameters: usize,
    /// `None` where the sizes of the inputs are open.
    #[serde(skip_serializing_if = "Option::is_none")]
    sums: Option<Sums>,
}

#[derive(Serialize)]
struct PortReport {
    name: String,
    dtype: Option<String>,
    /// `None` for sizes that are open.
    shape: Option<Vec<Option<usize>>>,
}

/// Sums of products: convolutions and products of matrices.
#[derive(Serialize)]
struct Sums {
    /// Multiplications and additions of all as direct sums.
    flops: f64,
    /// Of those that Winograd can compute.
    eligible_flops: f64,
    /// Of those for which it is chosen.
    winograd_flops: f64,
    list: Vec<Sum>,
}

/// One of them.
#[derive(Serialize)]
struct Sum {
    buffer: String,
    /// Sizes of the result's axes, and of those that are summed.
    loops: Vec<i64>,
    reduces: Vec<i64>,
    flops: f64,
    eligible: bool,
    /// Winograd's outputs per tile where it is chosen; empty for a direct sum.
    tile: Vec<usize>,
    reason: String,
}

fn port(p: Port) -> PortReport {
    match p.of {
        PortType::Tensor { dtype, shape } => PortReport { name: p.name, dtype: Some(dtype.to_string()), shape },
        _ => PortReport { name: p.name, dtype: None, shape: None },
    }
}

/// Runs the command.
pub(crate) fn run(args: &InspectArgs) -> Result<()> {
    let model = Model::load(&args.model).map_err(|e| Error::of("cannot load the model", e))?;
    let ports = model.inputs();
    let given = inputs::shapes(&args.shape, &ports)?;
    let specs: Option<Vec<ArgSpec>> = ports
        .iter()
        .map(|p| {
            let (dtype, shape) = inputs::shape_of(p, &given)?;
            Some(ArgSpec::new(dtype, &shape?.into_iter().collect::<Option<Vec<usize>>>()?))
        })
        .collect();
    let tolerance = args.tolerance.as_deref().map(shapes::tolerance).transpose()?;
    let sums = match &specs {
        Some(specs) => Some(sums(&model, &ports, specs, &Options { tolerance, ..Options::default() })?),
        None => None,
    };
    let report = Report {
        model: args.model.display().to_string(),
        inputs: ports.into_iter().map(port).collect(),
        outputs: model.outputs().into_iter().map(port).collect(),
        operators: model.operators().into_iter().collect(),
        metadata: model.metadata().iter().cloned().collect(),
        parameters: model.parameters(),
        sums,
    };
    if args.json {
        let text = serde_json::to_string(&report).map_err(|e| Error::failure("cannot write JSON", e))?;
        return output::print(&format!("{text}\n"));
    }
    output::print(&text(&report))
}

/// The model's sums as the compiler meets them: how large they are as direct sums, which of them Winograd can compute,
/// and for which it is chosen.
fn sums(model: &Model, ports: &[Port], specs: &[ArgSpec], options: &Options) -> Result<Sums> {
    let target: Target = {
        let device = &settings::settings().map_err(|e| Error::of("cannot read the environment", e))?.device;
        device.target().clone()
    };
    let plan = |algorithm: Algorithm| -> Result<Explanation> {
        let options = Options { algorithm, ..options.clone() };
        let traced = winograph::plan(specs, &target, &options, false, |args| {
            let named =
                ports.iter().zip(args).map(|(p, t)| (p.name.clone(), Value::Tensor(t.clone()))).collect::<Vec<_>>();
            let values = model.trace(&named)?;
            Ok(values.iter().flat_map(|v| v.tensors().iter().cloned()).collect())
        });
        traced.map(|(_, explanation)| explanation).map_err(|e| Error::of("cannot compile the model", e))
    };
    let (direct, able, chosen) = (plan(Algorithm::Direct)?, plan(Algorithm::Winograd)?, plan(Algorithm::Auto)?);
    let window = |of: &Explanation, buffer: &str| of.windows.iter().find(|w| w.buffer == buffer).cloned();
    let mut list = Vec::new();
    for nest in direct.kernels.iter().filter(|k| !k.prepare).flat_map(|k| &k.nests) {
        if nest.role != Role::Direct || nest.reduces.is_empty() {
            continue;
        }
        let size = |list: &[i64]| list.iter().map(|&v| v as f64).product::<f64>();
        let found = window(&chosen, &nest.output);
        list.push(Sum {
            buffer: nest.output.clone(),
            loops: nest.loops.clone(),
            reduces: nest.reduces.clone(),
            flops: 2.0 * size(&nest.under) * size(&nest.loops) * size(&nest.reduces),
            eligible: window(&able, &nest.output).is_some_and(|w| w.applied),
            tile: found.as_ref().filter(|w| w.applied).map(|w| w.tile.clone()).unwrap_or_default(),
            reason: found.map_or_else(|| "nothing slides over anything".to_string(), |w| w.reason),
        });
    }
    let total = |keep: &dyn Fn(&Sum) -> bool| list.iter().filter(|s| keep(s)).map(|s| s.flops).sum();
    Ok(Sums {
        flops: total(&|_| true),
        eligible_flops: total(&|s| s.eligible),
        winograd_flops: total(&|s| !s.tile.is_empty()),
        list,
    })
}

fn times(list: &[i64]) -> String {
    list.iter().map(i64::to_string).collect::<Vec<_>>().join("x")
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    for (what, list) in [("input", &report.inputs), ("output", &report.outputs)] {
        for p in list {
            let shape = p.shape.as_ref().map_or("[..]".to_string(), |s| inputs::sizes(s));
            let _ = writeln!(out, "{what} {}: {}{shape}", p.name, p.dtype.as_deref().unwrap_or("no tensor "));
        }
    }
    for (key, value) in &report.metadata {
        let short: String = value.chars().take(100).collect();
        let _ = writeln!(out, "{key}: {}", short.replace('\n', " "));
    }
    let operators: Vec<String> = report.operators.iter().map(|(op, n)| format!("{op} {n}")).collect();
    let _ = writeln!(out, "operators: {}", operators.join(", "));
    let _ = writeln!(out, "parameters: {}", report.parameters);
    let Some(sums) = &report.sums else {
        let open: Vec<&str> = report.inputs.iter().filter(|p| is_open(p)).map(|p| p.name.as_str()).collect();
        let _ = writeln!(
            out,
            "sizes are open: --shape {}=SIZES tells what is computed, and how",
            open.join("=SIZES --shape ")
        );
        return out;
    };
    let share = |part: f64| if sums.flops > 0.0 { 100.0 * part / sums.flops } else { 0.0 };
    let _ = writeln!(
        out,
        "sums of products: {}, {:.3} GFLOP; Winograd can compute {:.1} % of it and is chosen for {:.1} %\n",
        sums.list.len(),
        sums.flops / 1e9,
        share(sums.eligible_flops),
        share(sums.winograd_flops)
    );
    for s in &sums.list {
        let how = match (s.tile.is_empty(), s.eligible) {
            (false, _) => format!("winograd {}", s.tile.iter().map(usize::to_string).collect::<Vec<_>>().join("x")),
            (true, true) => "direct, by choice".to_string(),
            (true, false) => "direct".to_string(),
        };
        let _ = writeln!(
            out,
            "{:>9.4} GFLOP  {:<18} [{}] sum [{}]: {}",
            s.flops / 1e9,
            how,
            times(&s.loops),
            times(&s.reduces),
            s.reason
        );
    }
    out
}

fn is_open(p: &PortReport) -> bool {
    p.shape.as_ref().is_none_or(|s| s.contains(&None))
}
