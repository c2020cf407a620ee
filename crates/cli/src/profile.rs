//! What each launch of a model's run took: `--profile` of `run` and `bench model`.

use serde::Serialize;
use std::fmt::Write as _;
use winograph::model::Launch;

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
    /// Of the buffers that it reads, and of those that it writes.
    bytes: u64,
    /// `direct`, or `winograd` with its tile; nothing where no product is summed.
    algorithm: Option<String>,
    amplification: Option<f64>,
    /// The buffers that it writes, and which of them in place of what it reads there.
    writes: String,
    /// The model's nodes that it computes, or parts of which.
    nodes: Vec<String>,
}

/// What each launch took.
pub(crate) fn rows(launches: Vec<Launch>) -> Vec<Row> {
    let total: f64 = launches.iter().map(|l| l.time.as_secs_f64()).sum();
    let row = |launch: Launch| {
        let seconds = launch.time.as_secs_f64();
        Row {
            name: launch.kernel,
            role: launch.role,
            work: launch.work,
            time_us: seconds * 1e6,
            share: seconds / total,
            gflops: (launch.flops > 0).then(|| launch.flops as f64 / seconds / 1e9),
            bytes: launch.bytes,
            algorithm: launch.algorithm,
            amplification: launch.amplification,
            writes: launch.writes,
            nodes: launch.nodes,
        }
    };
    launches.into_iter().map(row).collect()
}

/// A table for people.
pub(crate) fn text(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "\nno launches to tell of: results depend on elements, so that parts are compiled as they are met\n"
            .to_string();
    }
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
