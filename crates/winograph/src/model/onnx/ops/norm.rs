//! Normalisation.

use super::super::node::{Lowering, Node, one};
use crate::error::Result;
use crate::model::Value;
use crate::tensor::Tensor;
use crate::tensor::norm::{self, channels, mean, standardized};
use winograph_ir::{DType, ReduceOp, Scalar, SumOrder};

pub(super) fn find(op: &str) -> Option<Lowering> {
    Some(match op {
        "BatchNormalization" => batch_norm,
        "InstanceNormalization" => instance_norm,
        "LayerNormalization" => layer_norm,
        "RMSNormalization" | "SimplifiedLayerNormalization" => rms_norm,
        "GroupNormalization" => group_norm,
        "LRN" => lrn,
        "LpNormalization" => lp_norm,
        "MeanVarianceNormalization" => mean_variance,
        "Dropout" => dropout,
        _ => return None,
    })
}

fn batch_norm(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    // Until opset 9.
    if n.int("spatial", 1) == 0 {
        return Err(n.unsupported("statistics for each place (spatial = 0)"));
    }
    let epsilon = n.float("epsilon", 1e-5);
    let compute = x.dtype().compute();
    let of = |i: usize| channels(n.x(i)?, x.rank(), compute);
    let (scale, bias) = (of(1)?, of(2)?);
    if n.flag("training_mode") {
        let momentum = n.float("momentum", 0.9);
        let axes: Vec<usize> = (0..x.rank()).filter(|&a| a != 1).collect();
        let wide = x.cast(compute)?;
        let center = mean(&wide, &axes)?;
        let variance = mean(&wide.sub(&center)?.square()?, &axes)?;
        let y = wide.sub(&center)?.div(variance.add(epsilon)?.sqrt()?)?.mul(&scale)?.add(&bias)?.cast(x.dtype())?;
        let blend = |old: &Tensor, new: &Tensor| -> Result<Tensor> {
            let new = new.reshape_to("batch_norm", old.shape())?.cast(old.dtype())?;
            old.mul(momentum)?.add(new.mul(1.0 - momentum)?)
        };
        let (running_mean, running_var) = (blend(n.x(3)?, &center)?, blend(n.x(4)?, &variance)?);
        return Ok(vec![y.into(), running_mean.into(), running_var.into()]);
    }
    one(norm::batch_norm(x, [&of(3)?, &of(4)?], [&scale, &bias], epsilon)?)
}

fn instance_norm(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let axes: Vec<usize> = (2..x.rank()).collect();
    let compute = x.dtype().compute();
    let (scale, bias) = (channels(n.x(1)?, x.rank(), compute)?, channels(n.x(2)?, x.rank(), compute)?);
    one(x.computed(|x| standardized(x, &axes, n.float("epsilon", 1e-5))?.0.mul(&scale)?.add(&bias))?)
}

fn layer_norm(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let axis = n.axis(n.int("axis", -1), x.rank())?;
    let axes: Vec<usize> = (axis..x.rank()).collect();
    let stash = n.dtype_attr("stash_type")?.unwrap_or(DType::F32);
    let work = if x.dtype() == DType::F64 { DType::F64 } else { stash };
    let (y, center, inverse) = standardized(&x.cast(work)?, &axes, n.float("epsilon", 1e-5))?;
    let mut y = y.cast(x.dtype())?.mul(n.x(1)?)?;
    if let Some(bias) = n.opt(2) {
        y = y.add(bias)?;
    }
    Ok(vec![y.into(), center.into(), inverse.into()])
}

fn rms_norm(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let axis = n.axis(n.int("axis", -1), x.rank())?;
    let axes: Vec<usize> = (axis..x.rank()).collect();
    let stash = n.dtype_attr("stash_type")?.unwrap_or(DType::F32);
    let wide = x.cast(if x.dtype() == DType::F64 { DType::F64 } else { stash })?;
    let inverse = mean(&wide.square()?, &axes)?.add(n.float("epsilon", 1e-5))?.sqrt()?.reciprocal()?;
    one(wide.mul(&inverse)?.cast(x.dtype())?.mul(n.x(1)?)?)
}

fn group_norm(n: &Node<'_>) -> Result<Vec<Value>> {
    let name = "group_norm";
    let x = n.x(0)?;
    let groups = usize::try_from(n.int("num_groups", 0)).unwrap_or(0);
    let Some(&c) = x.shape().get(1) else {
        return Err(n.wrong("an input without channels"));
    };
    if groups == 0 || !c.is_multiple_of(groups) {
        return Err(n.wrong(format!("{groups} groups of {c} channels")));
    }
    let compute = x.dtype().compute();
    // Before opset 21 scale and bias belong to groups.
    let of = |i: usize| -> Result<Tensor> {
        let t = n.x(i)?;
        let t = match t.numel() == groups && c != groups {
            true => t.reshape_to(name, &[groups, 1])?.expand_as(name, &[groups, c / groups])?.reshape_to(name, &[c])?,
            false => t.clone(),
        };
        channels(&t, x.rank(), compute)
    };
    one(norm::group_norm(x, groups, [&of(1)?, &of(2)?], n.float("epsilon", 1e-5))?)
}

fn lrn(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let size = usize::try_from(n.int("size", 1)).unwrap_or(0);
    if size == 0 || x.rank() < 2 {
        return Err(n.wrong(format!("size {size} for an input {:?}", x.shape())));
    }
    let (alpha, beta, bias) = (n.float("alpha", 1e-4), n.float("beta", 0.75), n.float("bias", 1.0));
    one(x.computed(|x| {
        let mut amounts = vec![(0, 0); x.rank()];
        amounts[1] = ((size - 1) / 2, size - 1 - (size - 1) / 2);
        let near = x.square()?.pad_to("lrn", &amounts, Scalar::zero(x.dtype()))?.unfold_to("lrn", 1, size, 1, 1)?;
        let total = near.reduce("lrn", ReduceOp::Add, &[x.rank()], SumOrder::Any)?;
        x.div(total.mul(alpha / size as f64)?.add(bias)?.pow(beta)?)
    })?)
}

fn lp_norm(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let axis = n.axis(n.int("axis", -1), x.rank())? as isize;
    let p = n.int("p", 2);
    one(x.computed(|x| {
        x.div(match p {
            1 => x.abs()?.sum(&[axis], true)?,
            2 => x.square()?.sum(&[axis], true)?.sqrt()?,
            p => return Err(n.wrong(format!("p = {p}, which is neither 1 nor 2"))),
        })
    })?)
}

fn mean_variance(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let axes = n.axes(&n.ints("axes").unwrap_or_else(|| vec![0, 2, 3]), x.rank())?;
    one(x.computed(|x| {
        let distance = x.sub(mean(x, &axes)?)?;
        distance.div(mean(&distance.square()?, &axes)?.sqrt()?.add(1e-9)?)
    })?)
}

/// While not training, nothing is dropped.
fn dropout(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    if n.opt(2).is_some() && n.host(2)?.data.first().is_some_and(|t| t.to_bool()) {
        let ratio = match n.opt(1) {
            Some(_) => n.host(1)?.data.first().map_or(0.5, |r| r.to_f64()),
            None => 0.5,
        };
        if ratio != 0.0 {
            return Err(n.unsupported("training draws random numbers"));
        }
    }
    Ok(vec![x.clone().into(), Tensor::full(x.shape(), true)?.into()])
}
