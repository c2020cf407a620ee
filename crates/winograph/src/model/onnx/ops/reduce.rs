//! Reductions, arg-extremes, sorting and running sums, and what is made of them.

use super::super::node::{Lowering, Node, one};
use crate::error::Result;
use crate::model::Value;
use crate::tensor::{Tensor, shape};
use winograph_ir::{BinaryOp, DType, ReduceOp, SumOrder};

pub(super) fn find(op: &str) -> Option<Lowering> {
    Some(match op {
        "ReduceSum" | "ReduceMean" | "ReduceMax" | "ReduceMin" | "ReduceProd" | "ReduceL1" | "ReduceL2"
        | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceSumSquare" => reduce,
        "ArgMax" | "ArgMin" => arg_extreme,
        "Softmax" | "LogSoftmax" | "Hardmax" => softmax,
        "CumSum" | "CumProd" => cumulative,
        "TopK" => top_k,
        _ => return None,
    })
}

fn reduce(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let list = n.ints_or_input("axes", 1)?.unwrap_or_default();
    if list.is_empty() && n.flag("noop_with_empty_axes") {
        // The reduced function of one element each.
        return one(over(n.op(), x, &[])?);
    }
    let axes = if list.is_empty() { (0..x.rank()).collect() } else { n.axes(&list, x.rank())? };
    let y = over(n.op(), x, &axes)?;
    if n.int("keepdims", 1) == 0 {
        return one(y);
    }
    let kept: Vec<usize> = (0..x.rank()).map(|i| if axes.contains(&i) { 1 } else { x.shape()[i] }).collect();
    one(y.reshape_to("reduce", &kept)?)
}

/// A reduction of a name in ONNX, in the tensor's dtype; the axes disappear.
pub(super) fn over(op: &str, x: &Tensor, axes: &[usize]) -> Result<Tensor> {
    let name = "reduce";
    if x.dtype() == DType::Bool {
        // The largest and smallest of truth values.
        return over(op, &x.cast(DType::U8)?, axes)?.cast(DType::Bool);
    }
    let sum = |x: &Tensor| x.reduce(name, ReduceOp::Add, axes, SumOrder::Any);
    x.computed(|x| match op {
        "ReduceSum" => sum(x),
        "ReduceMean" => {
            let count: f64 = axes.iter().map(|&a| x.shape()[a] as f64).product();
            let total = sum(x)?;
            match total.dtype().is_float() {
                true => total.div(count),
                false => total.binary(name, BinaryOp::Div, count as i64),
            }
        }
        "ReduceMax" => x.reduce(name, ReduceOp::Max, axes, SumOrder::Any),
        "ReduceMin" => x.reduce(name, ReduceOp::Min, axes, SumOrder::Any),
        "ReduceProd" => x.reduce(name, ReduceOp::Mul, axes, SumOrder::Any),
        "ReduceL1" => sum(&x.abs()?),
        "ReduceL2" if !x.dtype().is_float() => sum(&x.square()?)?.cast(DType::F64)?.sqrt()?.cast(x.dtype()),
        "ReduceL2" => sum(&x.square()?)?.sqrt(),
        "ReduceSumSquare" => sum(&x.square()?),
        "ReduceLogSum" => float_log(&sum(x)?, x.dtype()),
        _ => {
            if shape::count(x.shape()) == 0 {
                return sum(x)?.log();
            }
            // log(sum(e^x)) by distances to the largest, where that is finite.
            let work = if x.dtype().is_float() { x.clone() } else { x.cast(DType::F64)? };
            let kept: Vec<usize> = (0..x.rank()).map(|i| if axes.contains(&i) { 1 } else { x.shape()[i] }).collect();
            let most = work.reduce(name, ReduceOp::Max, axes, SumOrder::Any)?;
            let most = most.abs()?.eq(f64::INFINITY)?.where_(&most.full_like(0)?, &most)?;
            let shifted = work.sub(most.reshape_to(name, &kept)?)?.exp()?;
            shifted.reduce(name, ReduceOp::Add, axes, SumOrder::Any)?.log()?.add(&most)?.cast(x.dtype())
        }
    })
}

fn float_log(x: &Tensor, dtype: DType) -> Result<Tensor> {
    let wide = if dtype.is_float() { x.clone() } else { x.cast(DType::F64)? };
    wide.log()?.cast(dtype)
}

fn arg_extreme(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let axis = n.axis(n.int("axis", 0), x.rank())? as isize;
    let keep = n.int("keepdims", 1) != 0;
    let find = |x: &Tensor| {
        if n.op() == "ArgMax" { x.argmax(Some(axis), keep) } else { x.argmin(Some(axis), keep) }
    };
    if !n.flag("select_last_index") {
        return one(find(x)?);
    }
    // The last of equals is the first from the other end.
    let last = x.shape()[axis as usize] as i64 - 1;
    one(find(&x.flip(&[axis])?)?.neg()?.add(last)?)
}

fn softmax(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let function = |x: &Tensor, axis: usize| match n.op() {
        "Softmax" => x.softmax(axis as isize),
        "LogSoftmax" => x.log_softmax(axis as isize),
        _ => {
            // 1 at the first of the largest elements.
            let first = x.argmax(Some(axis as isize), true)?;
            Tensor::iota("hardmax", DType::I64, x.shape(), axis)?
                .eq(first.expand_as("hardmax", x.shape())?)?
                .cast(x.dtype())
        }
    };
    if n.opset >= 13 || x.rank() == 0 {
        return one(function(x, n.axis(n.int("axis", -1), x.rank().max(1))?)?);
    }
    // Before opset 13 all axes from this one on count as one.
    let axis = n.int("axis", 1);
    let axis = if axis == x.rank() as i64 { x.rank() } else { n.axis(axis, x.rank())? };
    if axis + 1 == x.rank() {
        return one(function(x, axis)?);
    }
    let (front, back) = x.shape().split_at(axis);
    let flat = x.reshape_to("softmax", &[shape::count(front), shape::count(back)])?;
    one(function(&flat, 1)?.reshape_to("softmax", x.shape())?)
}

fn cumulative(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let axis = n.host_ints(1)?.and_then(|a| a.first().copied()).unwrap_or(0);
    let axis = n.axis(axis, x.rank())?;
    let op = if n.op() == "CumSum" { ReduceOp::Add } else { ReduceOp::Mul };
    one(x.cumulate(op, axis, n.flag("exclusive"), n.flag("reverse"))?)
}

fn top_k(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let k = match n.attr("k") {
        Some(k) => Some(k.i),
        None if n.opset < 10 => return Err(n.wrong("its attribute k is missing")),
        None if n.opt(1).is_none() => return Err(n.wrong("its second input, k, is missing")),
        None => n.host_ints(1)?.and_then(|k| k.first().copied()),
    };
    let axis = n.axis(n.int("axis", -1), x.rank())?;
    let k = k.and_then(|k| usize::try_from(k).ok()).filter(|&k| k <= x.shape()[axis]);
    let k = k.ok_or_else(|| n.wrong(format!("k has to be at most the {} elements of the axis", x.shape()[axis])))?;
    let (values, indices) = x.topk(k, axis as isize, n.int("largest", 1) != 0)?;
    Ok(vec![values.into(), indices.into()])
}
