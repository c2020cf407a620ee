//! What `winograph run` prints.

use super::elements;
use crate::args::RunArgs;
use crate::machine::Machine;
use crate::profile;
use serde::Serialize;
use std::fmt::Write as _;
use winograph::Tensor;
use winograph::model::ModelError;

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    model: String,
    device: String,
    threads: usize,
    load_ms: f64,
    compile_ms: f64,
    first_ms: f64,
    pub(super) runs: usize,
    pub(super) min_ms: Option<f64>,
    pub(super) median_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tiles: Option<usize>,
    pub(super) inputs: Vec<Value>,
    pub(super) outputs: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kernels: Option<Vec<profile::Row>>,
}

/// An input or output.
#[derive(Debug, Serialize)]
pub(super) struct Value {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    /// Of the numbers that are finite; `None` where there are none.
    min: Option<f64>,
    max: Option<f64>,
    mean: Option<f64>,
    /// Elements that are no number or infinite.
    not_finite: usize,
    /// Width and height of the picture that was scaled to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scaled_from: Option<[usize; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

/// What is told of the elements of a tensor.
#[derive(Default)]
struct Summary {
    /// Least, greatest and sum of those that are finite.
    finite: Option<(f64, f64, f64)>,
    count: usize,
    not_finite: usize,
}

impl Summary {
    fn of(values: impl Iterator<Item = f64>) -> Summary {
        let mut summary = Summary::default();
        for v in values {
            if !v.is_finite() {
                summary.not_finite += 1;
                continue;
            }
            let (min, max, sum) = summary.finite.unwrap_or((v, v, 0.0));
            summary.finite = Some((min.min(v), max.max(v), sum + v));
            summary.count += 1;
        }
        summary
    }
}

impl Value {
    pub(super) fn of(name: &str, t: &Tensor, file: Option<String>) -> winograph::Result<Value> {
        let Summary { finite, count, not_finite } = elements::of(t, |all| Summary::of(all)).map_err(|e| match e {
            winograph::Error::OutOfMemory { bytes } => {
                ModelError::Memory { part: format!("a copy of {name:?} for the report"), bytes }.into()
            }
            e => e,
        })?;
        Ok(Value {
            name: name.to_string(),
            dtype: t.dtype().to_string(),
            shape: t.shape().to_vec(),
            min: finite.map(|f| f.0),
            max: finite.map(|f| f.1),
            mean: finite.map(|f| f.2 / count as f64),
            not_finite,
            scaled_from: None,
            file,
        })
    }

    fn text(&self, what: &str) -> String {
        let shape: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        let mut out = format!("{what} {}: {}[{}]", self.name, self.dtype, shape.join(","));
        if let (Some(min), Some(max), Some(mean)) = (self.min, self.max, self.mean) {
            let _ = write!(out, ", from {min:.6} to {max:.6}, mean {mean:.6}");
        }
        if self.not_finite > 0 {
            let _ = write!(out, ", {} of its elements are not finite", self.not_finite);
        }
        if let Some([width, height]) = self.scaled_from {
            let _ = write!(out, ", scaled from {width} x {height} pixels");
        }
        if let Some(file) = &self.file {
            let _ = write!(out, " -> {file}");
        }
        out
    }
}

impl Report {
    pub(super) fn new(args: &RunArgs, machine: &Machine, load_ms: f64, compile_ms: f64, first_ms: f64) -> Report {
        Report {
            model: args.model.display().to_string(),
            device: machine.device.name().to_string(),
            threads: machine.threads,
            load_ms,
            compile_ms,
            first_ms,
            runs: 0,
            min_ms: None,
            median_ms: None,
            tiles: None,
            inputs: vec![],
            outputs: vec![],
            kernels: None,
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        for v in &self.inputs {
            out.push_str(&v.text("input"));
            out.push('\n');
        }
        for v in &self.outputs {
            out.push_str(&v.text("output"));
            out.push('\n');
        }
        let _ = write!(
            out,
            "{}, {} thread{}: read in {:.1} ms, compiled in {:.1} ms, run in {:.3} ms",
            self.device,
            self.threads,
            if self.threads == 1 { "" } else { "s" },
            self.load_ms,
            self.compile_ms,
            self.first_ms
        );
        if let Some(tiles) = self.tiles {
            let _ = write!(out, " in {tiles} tile{}", if tiles == 1 { "" } else { "s" });
        }
        if let (Some(min), Some(middle)) = (self.min_ms, self.median_ms) {
            let _ = write!(out, "; {} more: at least {min:.3} ms, median {middle:.3} ms", self.runs);
        }
        out.push('\n');
        let Some(kernels) = &self.kernels else { return out };
        out.push_str(&profile::text(kernels));
        out
    }
}
