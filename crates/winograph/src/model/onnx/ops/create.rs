//! Operators that make tensors from numbers.

use super::super::node::{Lowering, Node, one};
use super::super::tensors;
use crate::error::Result;
use crate::model::{Value, host};
use crate::tensor::{Tensor, shape};
use winograph_ir::interp::Value as HostValue;
use winograph_ir::{DType, Scalar};

pub(super) fn find(op: &str) -> Option<Lowering> {
    Some(match op {
        "Constant" => constant,
        "ConstantOfShape" => constant_of_shape,
        "Range" => range,
        "EyeLike" => eye_like,
        "OneHot" => one_hot,
        "HannWindow" | "HammingWindow" | "BlackmanWindow" => window,
        "MelWeightMatrix" => mel_weights,
        _ => return None,
    })
}

fn constant(n: &Node<'_>) -> Result<Vec<Value>> {
    if let Some(t) = n.tensor_attr("value")? {
        return one(t);
    }
    if let Some(s) = n.attr("sparse_value").and_then(|a| a.sparse_tensor.as_ref()) {
        let dense = tensors::sparse(s, n.importer.folder(), &n.importer.budget);
        return one(dense.map_err(|e| n.in_attribute("sparse_value", e))?);
    }
    if n.attr("value_float").is_some() {
        return one(Tensor::scalar(n.float("value_float", 0.0) as f32));
    }
    if n.attr("value_int").is_some() {
        return one(Tensor::scalar(n.int("value_int", 0)));
    }
    if let Some(list) = n.attr("value_floats") {
        return one(Tensor::from_slice(&list.floats, &[list.floats.len()])?);
    }
    if let Some(list) = n.ints("value_ints") {
        return one(Tensor::from_slice(&list, &[list.len()])?);
    }
    Err(n.unsupported("its value is a string or missing"))
}

fn constant_of_shape(n: &Node<'_>) -> Result<Vec<Value>> {
    let shape = n.host_ints(0)?.ok_or_else(|| n.wrong("the shape is missing"))?;
    let shape = n.as_sizes("the shape", &shape)?;
    let value = match n.tensor_attr("value")? {
        Some(t) => n.host_of(&t)?.data.first().copied(),
        None => Some(Scalar::zero(DType::F32)),
    };
    let value = value.ok_or_else(|| n.wrong("its value has no elements"))?;
    one(Tensor::full_scalar("constant_of_shape", value, &shape)?)
}

fn range(n: &Node<'_>) -> Result<Vec<Value>> {
    let dtype = n.x(0)?.dtype();
    let mut numbers = Vec::new();
    for i in 0..3 {
        let value = n.host(i)?;
        numbers.push(*value.data.first().ok_or_else(|| n.wrong(format!("input {i} has no elements")))?);
    }
    let [start, limit, delta] = [numbers[0], numbers[1], numbers[2]];
    if delta.to_f64() == 0.0 {
        return Err(n.wrong("its input `delta` is 0, with which a range has no end: give a step that is not 0"));
    }
    let count = if dtype.is_float() {
        ((limit.to_f64() - start.to_f64()) / delta.to_f64()).ceil().max(0.0)
    } else {
        let (a, b, d) = (start.to_i64() as i128, limit.to_i64() as i128, delta.to_i64() as i128);
        let steps = if d > 0 { (b - a + d - 1) / d } else { (a - b - d - 1) / -d };
        steps.max(0) as f64
    };
    if !count.is_finite() || count > shape::MAX_ELEMENTS as f64 {
        return Err(n.wrong(format!(
            "from its input `start` {start} to `limit` {limit} by `delta` {delta} there are more than {} steps, or they are \
             not numbers",
            shape::MAX_ELEMENTS
        )));
    }
    // Counted in i64, or in the compute dtype: start + i * delta.
    let compute = if dtype.is_float() { dtype.compute() } else { DType::I64 };
    let steps = Tensor::iota("range", DType::I64, &[count as usize], 0)?.cast(compute)?;
    let values = steps.mul(Tensor::constant(delta.cast(compute)))?.add(Tensor::constant(start.cast(compute)))?;
    one(values.cast(dtype)?)
}

fn eye_like(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let [rows, columns] = *x.shape() else { return Err(n.wrong("expected an input of two axes")) };
    let dtype = n.dtype_attr("dtype")?.unwrap_or(x.dtype());
    let row = Tensor::iota("eye_like", DType::I64, &[rows, columns], 0)?.add(n.int("k", 0))?;
    let column = Tensor::iota("eye_like", DType::I64, &[rows, columns], 1)?;
    one(row.eq(&column)?.cast(dtype)?)
}

fn one_hot(n: &Node<'_>) -> Result<Vec<Value>> {
    let name = "one_hot";
    let indices = n.x(0)?.cast(DType::I64)?;
    let depth = n.host_ints(1)?.and_then(|d| d.first().copied()).ok_or_else(|| n.wrong("the depth is missing"))?;
    let values = n.x(2)?.reshape_to(name, &[2])?;
    let depth = usize::try_from(depth).map_err(|_| n.wrong(format!("depth {depth}")))?;
    let axis = n.axis(n.int("axis", -1), indices.rank() + 1)?;
    let mut shape = indices.shape().to_vec();
    shape.insert(axis, depth);
    let indices = indices.unsqueeze(axis as isize)?.expand_as(name, &shape)?;
    let indices = indices.lt(0)?.where_(&indices.add(depth as i64)?, &indices)?;
    let hit = Tensor::iota(name, DType::I64, &shape, axis)?.eq(&indices)?;
    one(hit.where_(&values.select(0, 1)?, &values.select(0, 0)?)?)
}

/// Cosine windows of signal processing.
fn window(n: &Node<'_>) -> Result<Vec<Value>> {
    let size = n.host_ints(0)?.and_then(|s| s.first().copied()).unwrap_or(0);
    let size = usize::try_from(size).map_err(|_| n.wrong(format!("size {size}")))?;
    let dtype = n.dtype_attr("output_datatype")?.unwrap_or(DType::F32);
    let last = if n.int("periodic", 1) != 0 { size } else { size.saturating_sub(1) }.max(1) as f64;
    let (a0, a1, a2) = match n.op() {
        "HannWindow" => (0.5, 0.5, 0.0),
        "HammingWindow" => (25.0 / 46.0, 1.0 - 25.0 / 46.0, 0.0),
        _ => (0.42, 0.5, 0.08),
    };
    n.table(size)?;
    let at = |i: usize| {
        let phase = std::f64::consts::TAU * i as f64 / last;
        Scalar::from_f64(dtype, a0 - a1 * phase.cos() + a2 * (2.0 * phase).cos())
    };
    one(host::to_tensor(&HostValue { dtype, shape: vec![size], data: (0..size).map(at).collect() })?)
}

/// Triangles on the mel scale, as ONNX's definition computes them.
fn mel_weights(n: &Node<'_>) -> Result<Vec<Value>> {
    let number = |i: usize| -> Result<f64> {
        n.host(i)?.data.first().map(|s| s.to_f64()).ok_or_else(|| n.wrong(format!("input {i} has no elements")))
    };
    let (bins, length, rate) = (number(0)?, number(1)?, number(2)?);
    let (low, high) = (number(3)?, number(4)?);
    if !(0.0..=1e6).contains(&bins) || !(0.0..=1e8).contains(&length) {
        return Err(n.wrong("sizes out of bounds"));
    }
    let (bins, length) = (bins as usize, length as usize);
    let dtype = n.dtype_attr("output_datatype")?.unwrap_or(DType::F32);
    let rows = length / 2 + 1;
    n.table(rows.saturating_mul(bins))?;
    let mel = |hz: f64| 2595.0 * (1.0 + hz / 700.0).log10();
    let step = (mel(high) - mel(low)) / (bins + 2) as f64;
    let edges: Vec<i64> = (0..bins + 2)
        .map(|i| {
            let hz = 700.0 * (10f64.powf((i as f64 * step + mel(low)) / 2595.0) - 1.0);
            ((length + 1) as f64 * hz / rate).floor() as i64
        })
        .collect();
    let mut data = vec![Scalar::zero(dtype); rows * bins];
    let mut set = |row: i64, column: usize, v: f64| {
        if let Some(slot) =
            usize::try_from(row).ok().filter(|&r| r < rows).and_then(|r| data.get_mut(r * bins + column))
        {
            *slot = Scalar::from_f64(dtype, v);
        }
    };
    for i in 0..bins {
        let (lower, center, upper) = (edges[i], edges[i + 1], edges[i + 2]);
        // Edges may lie beyond all rows.
        let within = |j: i64| j.clamp(0, rows as i64);
        let part = |j: i64, from: i64, to: i64| (j as f64 - from as f64) / (to as f64 - from as f64);
        if center == lower {
            set(center, i, 1.0);
        } else {
            for j in within(lower)..within(center.saturating_add(1)) {
                set(j, i, part(j, lower, center));
            }
        }
        for j in within(center)..within(upper) {
            set(j, i, part(j, upper, center));
        }
    }
    one(host::to_tensor(&HostValue { dtype, shape: vec![rows, bins], data })?)
}
