//! What each launch of a model's run took: `--profile` of `run` and `bench model`.

use serde::Serialize;
use std::fmt::Write as _;
use winograph::model::Launch;
use winograph_compiler::Explanation;
use winograph_compiler::explain::{KernelReport, WindowReport};
use winograph_ir::indexed::Role;

/// One launch of each run.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    name: String,
    role: &'static str,
    /// Loops and sums of its nests.
    work: String,
    time_us: f64,
    /// Of the time of all launches.
    share: f64,
    /// Of its sums, as they are computed; `None` where it has none.
    gflops: Option<f64>,
    /// Of the buffers that it reads and writes, each counted once.
    bytes: u64,
    /// `direct`, or `winograd` with its tile; nothing where no product is summed.
    algorithm: Option<String>,
    amplification: Option<f64>,
    /// The buffers that it writes.
    writes: String,
    /// The model's nodes that it computes, or parts of which.
    nodes: Vec<String>,
}

/// What each launch took, and which algorithm it belongs to.
pub(crate) fn rows(launches: &[Launch], explanation: &Explanation) -> Vec<Row> {
    let total: f64 = launches.iter().map(|l| l.time.as_secs_f64()).sum();
    let reports = explanation.kernels.iter().filter(|k| !k.prepare);
    let row = |(launch, report): (&Launch, &KernelReport)| {
        let seconds = launch.time.as_secs_f64();
        Row {
            name: launch.kernel.clone(),
            role: launch.role,
            work: launch.work.clone(),
            time_us: seconds * 1e6,
            share: seconds / total,
            gflops: (launch.flops > 0).then(|| launch.flops as f64 / seconds / 1e9),
            bytes: launch.bytes,
            algorithm: algorithm(report, explanation),
            amplification: window(report, explanation).filter(|w| w.applied).and_then(|w| w.amplification),
            writes: launch.writes.clone(),
            nodes: launch.nodes.clone(),
        }
    };
    launches.iter().zip(reports).map(row).collect()
}

/// What became of the sum of products that a kernel computes, or computes the last part of.
fn window<'a>(report: &KernelReport, explanation: &'a Explanation) -> Option<&'a WindowReport> {
    explanation.windows.iter().find(|w| report.nests.iter().any(|nest| nest.output == w.buffer))
}

/// `direct`, or `winograd` with its tile; nothing where no product is summed.
pub(crate) fn algorithm(report: &KernelReport, explanation: &Explanation) -> Option<String> {
    let has = |roles: &[Role]| report.nests.iter().any(|nest| roles.contains(&nest.role));
    match window(report, explanation) {
        Some(w) if w.applied => {
            let tile: Vec<String> = w.tile.iter().map(ToString::to_string).collect();
            Some(format!("winograd {}", tile.join("x")))
        }
        _ if has(&[Role::InputTransform, Role::Multiply, Role::OutputTransform]) => Some("winograd".to_string()),
        Some(_) => Some("direct".to_string()),
        None if has(&[Role::Direct]) => Some("direct".to_string()),
        None => None,
    }
}

/// A table for people.
pub(crate) fn text(rows: &[Row]) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "\n{:>10} {:>6} {:>8} {:>10}  {:<16} {:>6}  kernel -> what it writes  nodes of the model",
        "us", "%", "GFLOP/s", "KiB", "algorithm", "ampl."
    );
    let number = |v: Option<f64>| v.map_or("-".to_string(), |v| format!("{v:.1}"));
    for k in rows {
        let _ = writeln!(
            out,
            "{:>10.1} {:>6.1} {:>8} {:>10}  {:<16} {:>6}  {} ({}) -> {}  {}",
            k.time_us,
            k.share * 100.0,
            number(k.gflops),
            k.bytes / 1024,
            k.algorithm.as_deref().unwrap_or("-"),
            number(k.amplification),
            k.name,
            k.role,
            k.writes,
            nodes(&k.nodes)
        );
    }
    out
}

/// Most names of nodes in a line of the table; `--json` has all.
const NAMES: usize = 4;

/// Names of nodes for a line.
fn nodes(all: &[String]) -> String {
    match all.len().checked_sub(NAMES) {
        None | Some(0) => all.join(", "),
        Some(more) => format!("{} and {more} more", all[..NAMES].join(", ")),
    }
}
