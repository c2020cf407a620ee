//! `winograph bench compile`: how compile time grows with the size of a graph, without the C compiler.

use crate::args::BenchCompile;
use crate::error::{Error, Result};
use crate::output;
use crate::progress::Progress;
use serde::Serialize;
use std::fmt::Write as _;
use std::time::Instant;
use winograph::{ArgSpec, ConvOptions, DType, Options, Tensor, cpu, plan};

#[derive(Serialize)]
struct Row {
    graph: &'static str,
    nodes: usize,
    kernels: usize,
    ms: f64,
    us_per_node: f64,
    /// Milliseconds of each pass.
    passes: Vec<(&'static str, f64)>,
    arena_bytes: usize,
}

/// Runs the command.
pub(crate) fn run(args: &BenchCompile) -> Result<()> {
    let mut rows = Vec::new();
    let graphs =
        [("elementwise chain", &[64, 64][..]), ("elementwise, stored", &[64, 64]), ("convolutions", &[1, 4, 8, 8])];
    let mut progress = Progress::new((args.nodes.len() * graphs.len()) as u64);
    for &n in &args.nodes {
        for (graph, shape) in graphs {
            progress.step(&format!("{graph}, {n} nodes"));
            rows.push(row(graph, shape, n as usize).map_err(|e| Error::of("cannot compile the graph", e))?);
        }
    }
    drop(progress);
    if args.json {
        let text = serde_json::to_string(&rows).map_err(|e| Error::failure("cannot write JSON", e))?;
        return output::print(&format!("{text}\n"));
    }
    output::print(&text(&rows))
}

/// A graph of `n` nodes of a kind, each of which reads the one before it.
fn row(graph: &'static str, shape: &[usize], n: usize) -> winograph::Result<Row> {
    let target = cpu::host_target();
    let weight = Tensor::from_slice(&[0.1f32; 4 * 4 * 9], &[4, 4, 3, 3])?;
    let args = [ArgSpec::new(DType::F32, shape), ArgSpec::new(DType::F32, shape)];
    let start = Instant::now();
    let (program, explanation) = plan(&args, &target, &Options::default(), false, |args| {
        let mut x = args[0].clone();
        for i in 0..n {
            x = match graph {
                "convolutions" => x.conv2d(&weight, None, &ConvOptions::padding(1))?,
                _ if i % 2 == 0 => x.add(&args[1])?,
                _ => x.mul(0.5f32)?,
            };
            if graph == "elementwise, stored" {
                x = x.contiguous()?;
            }
        }
        Ok(vec![x])
    })?;
    let ms = start.elapsed().as_secs_f64() * 1e3;
    let passes = explanation.passes.iter().filter_map(|p| Some((p.name, p.micros? / 1e3))).collect();
    let (kernels, arena_bytes) = (program.run.len(), program.arena_bytes);
    Ok(Row { graph, nodes: n, kernels, ms, us_per_node: ms * 1e3 / n.max(1) as f64, passes, arena_bytes })
}

fn text(rows: &[Row]) -> String {
    let mut out =
        format!("{:<20}{:>8}{:>9}{:>11}{:>13}  dearest passes\n", "graph", "nodes", "kernels", "ms", "us per node");
    for r in rows {
        let mut passes = r.passes.clone();
        passes.sort_by(|a, b| b.1.total_cmp(&a.1));
        let dearest: Vec<String> = passes.iter().take(4).map(|(name, ms)| format!("{name} {ms:.1}")).collect();
        let _ = writeln!(
            out,
            "{:<20}{:>8}{:>9}{:>11.2}{:>13.2}  {}",
            r.graph,
            r.nodes,
            r.kernels,
            r.ms,
            r.us_per_node,
            dearest.join(", ")
        );
    }
    out
}
