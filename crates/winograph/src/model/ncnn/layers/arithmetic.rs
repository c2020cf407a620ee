//! Operations on elements of one or two blobs, and reductions.

use super::Node;
use crate::error::Result;
use crate::tensor::Tensor;

/// Gives the blob with fewer axes those that it lacks. It is aligned with the outermost axis, except for a vector that
/// has another size than that.
fn widen(small: &Tensor, large: &Tensor) -> Result<Tensor> {
    let rank = large.rank();
    if small.rank() >= rank {
        return Ok(small.clone());
    }
    let mut shape = vec![1; rank];
    match small.shape() {
        [w] if *w != large.shape()[0] => shape[rank - 1] = *w,
        sizes => shape[..sizes.len()].copy_from_slice(sizes),
    }
    small.reshape_to("BinaryOp", &shape)
}

pub(super) fn binary(n: &Node<'_>) -> Result<Tensor> {
    let a = n.x(0)?;
    let b = match n.layer.flag(1, "with_scalar")? {
        true => a.full_like(n.layer.float(2, "b", 0.0)?)?,
        false => n.x(1)?.clone(),
    };
    let (a, b) = (widen(a, &b)?, widen(&b, a)?);
    match n.layer.int(0, "op_type", 0)? {
        0 => a.add(&b),
        1 => a.sub(&b),
        2 => a.mul(&b),
        3 => a.div(&b),
        4 => a.maximum(&b),
        5 => a.minimum(&b),
        6 => a.pow(&b),
        7 => b.sub(&a),
        8 => b.div(&a),
        9 => b.pow(&a),
        other => Err(n.layer.unsupported(format!("op_type (parameter 0) {other}")).into()),
    }
}

pub(super) fn unary(n: &Node<'_>) -> Result<Tensor> {
    let x = n.x(0)?;
    match n.layer.int(0, "op_type", 0)? {
        0 => x.abs(),
        1 => x.neg(),
        2 => x.floor(),
        3 => x.ceil(),
        4 => x.square(),
        5 => x.sqrt(),
        6 => x.rsqrt(),
        7 => x.exp(),
        8 => x.log(),
        9 => x.sin(),
        10 => x.cos(),
        11 => x.tan(),
        12 => x.asin(),
        13 => x.acos(),
        14 => x.atan(),
        15 => x.reciprocal(),
        16 => x.tanh(),
        17 => x.log()?.mul(std::f64::consts::LOG10_E),
        18 => x.round(),
        19 => x.trunc(),
        other => Err(n.layer.unsupported(format!("op_type (parameter 0) {other}")).into()),
    }
}

pub(super) fn eltwise(n: &Node<'_>) -> Result<Tensor> {
    let coefficients = n.layer.list(1, "coeffs")?.unwrap_or_default();
    if !coefficients.is_empty() && coefficients.len() != n.inputs.len() {
        let cause = format!("coeffs (parameter 1) has {} numbers for {} inputs", coefficients.len(), n.inputs.len());
        return Err(n.layer.wrong(cause).into());
    }
    let kind = n.layer.int(0, "op_type", 0)?;
    let mut sum: Option<Tensor> = None;
    for (i, x) in n.inputs.iter().enumerate() {
        let x = match coefficients.get(i) {
            Some(&c) if kind == 1 => x.mul(c)?,
            _ => x.clone(),
        };
        sum = Some(match (sum, kind) {
            (None, _) => x,
            (Some(s), 0) => s.mul(&x)?,
            (Some(s), 1) => s.add(&x)?,
            (Some(s), 2) => s.maximum(&x)?,
            _ => return Err(n.layer.unsupported(format!("op_type (parameter 0) {kind}")).into()),
        });
    }
    match sum {
        Some(s) => Ok(s),
        None => Err(n.layer.wrong("it has no input").into()),
    }
}

pub(super) fn reduction(n: &Node<'_>) -> Result<Tensor> {
    let x = n.x(0)?;
    let all = n.layer.int(1, "reduce_all", 1)? != 0;
    let axes: Vec<isize> = match n.layer.ints(3, "axes")? {
        Some(list) if !all => list.iter().map(|&a| Ok(n.axis(a, x.rank())? as isize)).collect::<Result<_>>()?,
        _ => (0..x.rank() as isize).collect(),
    };
    let keep = n.layer.flag(4, "keepdims")?;
    let y = match n.layer.int(0, "operation", 0)? {
        0 => x.sum(&axes, keep)?,
        1 => x.abs()?.sum(&axes, keep)?,
        2 => x.square()?.sum(&axes, keep)?,
        3 => x.mean(&axes, keep)?,
        4 => x.max(&axes, keep)?,
        5 => x.min(&axes, keep)?,
        6 => x.prod(&axes, keep)?,
        7 => x.abs()?.sum(&axes, keep)?,
        8 => x.square()?.sum(&axes, keep)?.sqrt()?,
        9 => x.sum(&axes, keep)?.log()?,
        10 => x.exp()?.sum(&axes, keep)?.log()?,
        other => return Err(n.layer.unsupported(format!("operation (parameter 0) {other}")).into()),
    };
    let y = y.mul(n.layer.float(2, "coeff", 1.0)?)?;
    if y.rank() == 0 { y.reshape_to("Reduction", &[1]) } else { Ok(y) }
}
