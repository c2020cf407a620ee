//! Quantised numbers: integers with a scale and a zero point.

use super::super::node::{Lowering, Node, one};
use crate::error::Result;
use crate::model::Value;
use crate::tensor::Tensor;
use winograph_ir::{BinaryOp, DType, ReduceOp, SumOrder};

pub(super) fn find(op: &str) -> Option<Lowering> {
    Some(match op {
        "QuantizeLinear" => quantize,
        "DequantizeLinear" => dequantize,
        "DynamicQuantizeLinear" => dynamic,
        "MatMulInteger" => matmul_integer,
        "QLinearMatMul" => qlinear_matmul,
        _ => return None,
    })
}

/// A list of one axis as that axis of `rank`; one value without axes stays.
pub(super) fn along(t: &Tensor, axis: usize, rank: usize) -> Result<Tensor> {
    if t.numel() == 1 {
        return t.reshape_to("quantize", &[]);
    }
    if t.rank() != 1 || axis >= rank {
        return Ok(t.clone());
    }
    let mut shape = vec![1; rank];
    shape[axis] = t.numel();
    t.reshape_to("quantize", &shape)
}

/// Integers less their zero point, as `i32`. A zero point of one axis belongs to `axis`.
pub(super) fn centered(x: &Tensor, zero: Option<&Tensor>, axis: usize) -> Result<Tensor> {
    let wide = x.cast(DType::I32)?;
    match zero {
        None => Ok(wide),
        Some(z) => wide.sub(along(&z.cast(DType::I32)?, axis, x.rank())?),
    }
}

fn range_of(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::I8 => (-128.0, 127.0),
        DType::U8 => (0.0, 255.0),
        _ => (i32::MIN as f64, i32::MAX as f64),
    }
}

/// Rounded to nearest even, moved by the zero point and limited to its dtype.
fn saturate(scaled: &Tensor, zero: &Tensor) -> Result<Tensor> {
    let to = zero.dtype();
    let (low, high) = range_of(to);
    let work = scaled.dtype().compute();
    scaled.cast(work)?.round()?.add(zero.cast(work)?)?.maximum(low)?.minimum(high)?.cast(to)
}

/// Sums `i32` times a scale, in other quantised numbers.
pub(super) fn requantize(sums: &Tensor, scale: &Tensor, to_scale: &Tensor, to_zero: &Tensor) -> Result<Tensor> {
    let (scale, to_scale) = (scale.cast(DType::F32)?, to_scale.cast(DType::F32)?);
    saturate(&sums.cast(DType::F32)?.mul(&scale)?.div(&to_scale)?, to_zero)
}

/// Scales or zero points as the shape of `x`: one value, one axis, or blocks of elements along an axis.
fn spread(n: &Node<'_>, x: &Tensor, t: &Tensor) -> Result<Tensor> {
    let axis = match x.rank() {
        0 => 0,
        rank => n.axis(n.int("axis", 1).min(rank as i64 - 1), rank)?,
    };
    let block = usize::try_from(n.int("block_size", 0)).unwrap_or(0);
    if block == 0 || t.rank() != x.rank() {
        return along(t, axis, x.rank());
    }
    let mut wide = t.shape().to_vec();
    wide.insert(axis + 1, block);
    let t = t.unsqueeze(axis as isize + 1)?.expand_as("quantize", &wide)?;
    wide.remove(axis + 1);
    wide[axis] = wide[axis].saturating_mul(block);
    t.reshape_to("quantize", &wide)?.narrow(axis as isize, 0, x.shape()[axis])
}

fn quantize(n: &Node<'_>) -> Result<Vec<Value>> {
    let (x, scale) = (n.x(0)?, n.x(1)?);
    let zero = match (n.opt(2), n.dtype_attr("output_dtype")?) {
        (Some(z), _) => z.clone(),
        (None, to) => Tensor::zeros(&[], to.unwrap_or(DType::U8))?,
    };
    let (scale, zero) = (spread(n, x, scale)?, spread(n, x, &zero)?);
    let work = if x.dtype().is_float() { x.dtype() } else { DType::F32 };
    one(saturate(&x.cast(work)?.div(scale.cast(work)?)?, &zero)?)
}

fn dequantize(n: &Node<'_>) -> Result<Vec<Value>> {
    let (x, scale) = (n.x(0)?, n.x(1)?);
    let centered = match n.opt(2) {
        Some(zero) => x.cast(DType::I32)?.sub(spread(n, x, zero)?.cast(DType::I32)?)?,
        None => x.cast(DType::I32)?,
    };
    let scale = spread(n, x, scale)?;
    let work = scale.dtype().compute();
    one(centered.cast(work)?.mul(scale.cast(work)?)?.cast(n.dtype_attr("output_dtype")?.unwrap_or(scale.dtype()))?)
}

fn dynamic(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let axes: Vec<usize> = (0..x.rank()).collect();
    let extreme = |op: ReduceOp| x.reduce("quantize", op, &axes, SumOrder::Any);
    let (low, high) = (extreme(ReduceOp::Min)?.minimum(0)?, extreme(ReduceOp::Max)?.maximum(0)?);
    let scale = high.sub(&low)?.div(255.0)?;
    let zero = low.neg()?.div(&scale)?.maximum(0.0)?.minimum(255.0)?.round()?.cast(DType::U8)?;
    Ok(vec![saturate(&x.div(&scale)?, &zero)?.into(), scale.into(), zero.into()])
}

fn matmul_integer(n: &Node<'_>) -> Result<Vec<Value>> {
    let (a, b) = (n.x(0)?, n.x(1)?);
    // Zero points of the first operand belong to rows, those of the second to columns.
    let a = centered(a, n.opt(2), a.rank().saturating_sub(2))?;
    let b = centered(b, n.opt(3), b.rank().saturating_sub(1))?;
    one(a.matmul(&b)?)
}

fn qlinear_matmul(n: &Node<'_>) -> Result<Vec<Value>> {
    let (a, b) = (n.x(0)?, n.x(3)?);
    let (row, column) = (a.rank().saturating_sub(2), b.rank().saturating_sub(1));
    let sums = centered(a, Some(n.x(2)?), row)?.matmul(&centered(b, Some(n.x(5)?), column)?)?;
    let rank = sums.rank();
    let left = along(n.x(1)?, rank.saturating_sub(2), rank)?.cast(DType::F32)?;
    let right = along(n.x(4)?, rank.saturating_sub(1), rank)?.cast(DType::F32)?;
    let scale = left.binary("quantize", BinaryOp::Mul, &right)?;
    let one_value = |t: &Tensor| along(t, rank.saturating_sub(2), rank);
    one(requantize(&sums, &scale, &one_value(n.x(6)?)?, &one_value(n.x(7)?)?)?)
}
