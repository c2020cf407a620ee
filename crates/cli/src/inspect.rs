//! `winograph inspect`: what a model takes, gives and consists of, and how its sums would be computed.

use crate::args::InspectArgs;
use crate::error::{Error, Result};
use crate::planned::Planned;
use crate::run::inputs;
use crate::{output, shapes};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use winograph::export::{Exported, ExportedLaunch, Platform};
use winograph::model::{Port, PortType};
use winograph::search::PlanStore;
use winograph::{ArgSpec, AxisTile, settings};
use winograph_compiler::{Algorithm, Explanation, Options, Target};
use winograph_ir::indexed::Role;

/// Most inputs with defaults that are listed as text: exporters make all weights ones.
const MAX_DEFAULTS: usize = 16;

#[derive(Serialize)]
struct Report {
    model: String,
    inputs: Vec<PortReport>,
    /// Inputs that need not be given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    defaults: Vec<PortReport>,
    outputs: Vec<PortReport>,
    operators: BTreeMap<String, usize>,
    metadata: BTreeMap<String, String>,
    parameters: usize,
    /// `None` where the sizes of the inputs are open, and of a model that is compiled already.
    #[serde(skip_serializing_if = "Option::is_none")]
    sums: Option<Sums>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compiled: Option<Compiled>,
}

/// Of a file that `winograph export` wrote.
#[derive(Serialize)]
struct Compiled {
    /// Of the crate that wrote it.
    version: String,
    /// The machines it runs on.
    machine: Platform,
    launches: Vec<ExportedLaunch>,
}

impl Compiled {
    fn of(file: &Exported) -> Compiled {
        Compiled { version: file.version().to_string(), machine: file.machine().clone(), launches: file.launches() }
    }
}

#[derive(Serialize)]
struct PortReport {
    name: String,
    dtype: Option<String>,
    /// `None` for sizes that are open.
    shape: Option<Vec<Option<usize>>>,
    /// What it is where it is no tensor of such a dtype.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
}

/// Sums of products: convolutions and products of matrices.
#[derive(Serialize)]
struct Sums {
    /// Multiplications and additions of all as direct sums.
    flops: f64,
    /// How many Winograd can compute, and for how many it is chosen.
    eligible: usize,
    winograd: usize,
    list: Vec<Sum>,
}

/// One of them.
#[derive(Serialize)]
struct Sum {
    /// Taps of the window per axis; empty where nothing slides.
    taps: Vec<usize>,
    /// Its multiplications and additions as a direct sum.
    flops: f64,
    eligible: bool,
    /// Winograd's outputs per tile where it is chosen; empty for a direct sum.
    #[serde(serialize_with = "crate::json::tile")]
    tile: Vec<AxisTile>,
    reason: String,
}

fn port(p: Port) -> PortReport {
    match p.of {
        PortType::Tensor { dtype, shape } => {
            PortReport { name: p.name, dtype: Some(dtype.to_string()), shape, kind: None }
        }
        of => PortReport { name: p.name, dtype: None, shape: None, kind: Some(inputs::kind(&of)) },
    }
}

/// Runs the command.
pub(crate) fn run(args: &InspectArgs) -> Result<()> {
    let planned = Planned::load(&args.model, &args.shape)?;
    let tolerance = args.tolerance.as_deref().map(shapes::tolerance).transpose()?;
    let compiled = planned.model.exported().map(Compiled::of);
    let sums = match &planned.specs {
        Some(specs) if compiled.is_none() => Some(sums(&planned, specs, &Options { tolerance, ..Options::default() })?),
        _ => None,
    };
    let Planned { model, ports, .. } = planned;
    let mut defaults = model.defaults();
    defaults.retain(|d| !ports.iter().any(|p| p.name == d.name));
    let report = Report {
        model: args.model.display().to_string(),
        defaults: defaults.into_iter().map(port).collect(),
        inputs: ports.into_iter().map(port).collect(),
        outputs: model.outputs().into_iter().map(port).collect(),
        operators: model.operators().into_iter().collect(),
        metadata: model.metadata().iter().cloned().collect(),
        parameters: model.parameters(),
        sums,
        compiled,
    };
    if args.json {
        let text = serde_json::to_string(&report).map_err(|e| Error::failure("cannot write JSON", e))?;
        return output::print(&format!("{text}\n"));
    }
    output::print(&text(&report))
}

/// The model's sums as the compiler meets them: how large they are as direct sums, which of them Winograd can compute,
/// and for which it is chosen.
fn sums(model: &Planned, specs: &[ArgSpec], options: &Options) -> Result<Sums> {
    let target: Target = {
        let device = &settings::settings().map_err(|e| Error::of("cannot read the environment", e))?.device;
        device.target().clone()
    };
    let plan = |algorithm: Algorithm| -> Result<Explanation> {
        let options = Options { algorithm, ..options.clone() };
        model.plan(specs, &target, &PlanStore::default(), &options).map(|(_, explanation)| explanation)
    };
    let (direct, able, chosen) = (plan(Algorithm::Direct)?, plan(Algorithm::Winograd)?, plan(Algorithm::Auto)?);
    // The same sums in the same order, whatever becomes of them: names of buffers depend on that.
    if direct.windows.len() != able.windows.len() || direct.windows.len() != chosen.windows.len() {
        return Err(Error::failure("cannot compare the algorithms", "they were asked for different sums"));
    }
    let nests = direct.kernels.iter().filter(|k| !k.prepare).flat_map(|k| &k.nests);
    let sums = nests.filter(|n| n.role == Role::Direct && !n.reduces.is_empty());
    let size = |list: &[i64]| list.iter().map(|&v| v as f64).product::<f64>();
    let flops = sums.fold(0.0, |sum, n| sum + 2.0 * size(&n.under) * size(&n.loops) * size(&n.reduces));
    // Maxima over windows sum no products.
    let list: Vec<Sum> = (able.windows.iter().zip(chosen.windows).filter(|(able, _)| able.flops > 0.0))
        .map(|(able, chosen)| Sum {
            taps: able.taps.clone(),
            flops: able.flops,
            eligible: able.applied,
            tile: chosen.tile,
            reason: chosen.reason,
        })
        .collect();
    let eligible = list.iter().filter(|s| s.eligible).count();
    let winograd = list.iter().filter(|s| !s.tile.is_empty()).count();
    Ok(Sums { flops, eligible, winograd, list })
}

fn times<T: ToString>(list: &[T]) -> String {
    list.iter().map(T::to_string).collect::<Vec<_>>().join("x")
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    let write = |out: &mut String, what: &str, p: &PortReport, more: &str| {
        let _ = match (&p.kind, &p.dtype) {
            (Some(kind), _) => writeln!(out, "{what} {}: {kind}{more}", p.name),
            (None, dtype) => {
                let shape = p.shape.as_ref().map_or("[..]".to_string(), |s| inputs::sizes(s));
                writeln!(out, "{what} {}: {}{shape}{more}", p.name, dtype.as_deref().unwrap_or_default())
            }
        };
    };
    report.inputs.iter().for_each(|p| write(&mut out, "input", p, ""));
    report.defaults.iter().take(MAX_DEFAULTS).for_each(|p| write(&mut out, "input", p, ", which need not be given"));
    if let Some(more) = report.defaults.len().checked_sub(MAX_DEFAULTS).filter(|&more| more > 0) {
        let _ = writeln!(out, "{more} more inputs that need not be given");
    }
    report.outputs.iter().for_each(|p| write(&mut out, "output", p, ""));
    for (key, value) in &report.metadata {
        let short: String = value.chars().take(100).collect();
        let _ = writeln!(out, "{key}: {}", short.replace('\n', " "));
    }
    let operators: Vec<String> = report.operators.iter().map(|(op, n)| format!("{op} {n}")).collect();
    let _ = writeln!(out, "operators: {}", operators.join(", "));
    let _ = writeln!(out, "parameters: {}", report.parameters);
    if let Some(compiled) = &report.compiled {
        // Writing to a string cannot fail.
        let _ = write_compiled(&mut out, compiled);
        return out;
    }
    let Some(sums) = &report.sums else {
        let open: Vec<&str> = report.inputs.iter().filter(|p| is_open(p)).map(|p| p.name.as_str()).collect();
        let _ = writeln!(
            out,
            "sizes are open: --shape {}=SIZES tells what is computed, and how",
            open.join("=SIZES --shape ")
        );
        return out;
    };
    let _ = writeln!(
        out,
        "sums of products: {}, {:.3} GFLOP; Winograd can compute {} of them and is chosen for {}\n",
        sums.list.len(),
        sums.flops / 1e9,
        sums.eligible,
        sums.winograd
    );
    let _ = writeln!(out, "{:<18} {:<8} {:>10}  why", "algorithm", "taps", "MFLOP");
    for s in &sums.list {
        let how = match (s.tile.is_empty(), s.eligible) {
            (false, _) => format!("winograd {}", times(&s.tile)),
            (true, true) => "direct, by choice".to_string(),
            (true, false) => "direct".to_string(),
        };
        let _ = writeln!(
            out,
            "{:<18} {:<8} {:>10.3}  {}",
            how,
            if s.taps.is_empty() { "-".to_string() } else { times(&s.taps) },
            s.flops / 1e6,
            s.reason
        );
    }
    out
}

fn write_compiled(out: &mut String, c: &Compiled) -> std::fmt::Result {
    writeln!(out, "compiled by winograph {}, runs on {}", c.version, c.machine)?;
    writeln!(
        out,
        "{} launch{}\n\n{:<24} {:>10}  loops and sums: nodes",
        c.launches.len(),
        if c.launches.len() == 1 { "" } else { "es" },
        "algorithm",
        "MFLOP"
    )?;
    for l in &c.launches {
        let how = l.algorithm.as_deref().unwrap_or("-");
        writeln!(out, "{how:<24} {:>10.3}  {}: {}", l.flops as f64 / 1e6, l.work, l.nodes.join(", "))?;
    }
    Ok(())
}

fn is_open(p: &PortReport) -> bool {
    p.shape.as_ref().is_none_or(|s| s.contains(&None))
}
