//! Scales and shifts per channel, with given or computed statistics.

use super::Node;
use crate::error::Result;
use crate::model::ModelError;
use crate::model::ncnn::param::{Layer, NONE};
use crate::model::ncnn::weights::Blob;
use crate::tensor::Tensor;

pub(super) fn weights(layer: &Layer) -> Result<Vec<Blob>, ModelError> {
    let affine = |id: i64, count: usize| -> Result<Vec<Blob>, ModelError> {
        Ok(match layer.int(id, "affine", 1)? {
            0 => vec![],
            _ => vec![Blob::plain("gamma", count), Blob::plain("beta", count)],
        })
    };
    match layer.kind.as_str() {
        "Scale" => {
            if layer.int(0, "scale_data_size", 0)? == NONE {
                return Ok(vec![]);
            }
            let count = layer.size(0, "scale_data_size", 0)?;
            let mut out = vec![Blob::plain("scale_data_size", count)];
            if layer.flag(1, "bias_term")? {
                out.push(Blob::plain("scale_data_size", count));
            }
            Ok(out)
        }
        "BatchNorm" => {
            let count = layer.size(0, "channels", 0)?;
            Ok(["slope", "mean", "variance", "bias"].map(|field| Blob::plain(field, count)).to_vec())
        }
        "InstanceNorm" => affine(2, layer.size(0, "channels", 0)?),
        "GroupNorm" => affine(3, layer.size(1, "channels", 0)?),
        _ => affine(2, layer.size(0, "affine_size", 0)?),
    }
}

/// One number for each part of the outermost axis.
fn along_first(n: &Node<'_>, list: &Tensor, x: &Tensor) -> Result<Tensor> {
    if list.numel() != x.shape()[0] {
        let cause = format!("{} numbers for a blob of shape {:?}", list.numel(), x.shape());
        return Err(n.layer.wrong(cause).into());
    }
    let mut shape = vec![1; x.rank()];
    shape[0] = list.numel();
    list.reshape_to("norm", &shape)
}

pub(super) fn scale(n: &Node<'_>) -> Result<Tensor> {
    let x = n.x(0)?;
    let (factor, bias) = match n.weights {
        [] => (n.x(1)?, None),
        [factor, rest @ ..] => (factor, rest.first()),
    };
    let y = x.mul(&along_first(n, factor, x)?)?;
    match bias {
        Some(b) => y.add(&along_first(n, b, x)?),
        None => Ok(y),
    }
}

pub(super) fn batch_norm(n: &Node<'_>) -> Result<Tensor> {
    let x = n.x(0)?;
    let (slope, mean, variance, bias) = (n.w(0)?, n.w(1)?, n.w(2)?, n.w(3)?);
    // Two numbers per channel, which follow from constants alone.
    let factor = slope.mul(&variance.add(n.layer.float(1, "eps", 0.0)?)?.rsqrt()?)?;
    let shift = bias.sub(&mean.mul(&factor)?)?;
    x.mul(&along_first(n, &factor, x)?)?.add(&along_first(n, &shift, x)?)
}

/// `(x - mean) / sqrt(variance + eps)` over some axes.
fn normalized(x: &Tensor, axes: &[isize], eps: f64) -> Result<Tensor> {
    let centered = x.sub(&x.mean(axes, true)?)?;
    let variance = centered.square()?.mean(axes, true)?;
    centered.mul(&variance.add(eps)?.rsqrt()?)
}

fn affine(n: &Node<'_>, x: &Tensor) -> Result<Tensor> {
    match n.weights {
        [gamma, beta, ..] => x.mul(&along_first(n, gamma, x)?)?.add(&along_first(n, beta, x)?),
        _ => Ok(x.clone()),
    }
}

pub(super) fn instance_norm(n: &Node<'_>) -> Result<Tensor> {
    let x = n.x(0)?;
    let axes: Vec<isize> = (1..x.rank() as isize).collect();
    affine(n, &normalized(x, &axes, n.layer.float(1, "eps", 1e-3)?)?)
}

pub(super) fn group_norm(n: &Node<'_>) -> Result<Tensor> {
    let x = n.x(0)?;
    let groups = n.layer.positive(0, "group", 1)?;
    let channels = x.shape()[0];
    if !channels.is_multiple_of(groups) {
        return Err(n.layer.wrong(format!("group (parameter 0) {groups} for {channels} channels")).into());
    }
    let flat = x.reshape_to("norm", &[groups, x.numel() / groups])?;
    let y = normalized(&flat, &[1], n.layer.float(2, "eps", 1e-3)?)?.reshape_to("norm", x.shape())?;
    affine(n, &y)
}

/// Over the last axis, or the last two, as many elements as there are weights.
pub(super) fn layer_norm(n: &Node<'_>) -> Result<Tensor> {
    let x = n.x(0)?;
    let size = n.layer.size(0, "affine_size", 0)?;
    let mut axes = vec![];
    let mut shape = vec![];
    let mut count = 1usize;
    for axis in (0..x.rank()).rev() {
        axes.push(axis as isize);
        shape.insert(0, x.shape()[axis]);
        count = count.saturating_mul(x.shape()[axis]);
        if count >= size {
            break;
        }
    }
    if count != size {
        let cause = format!("affine_size (parameter 0) {size} for a blob of shape {:?}", x.shape());
        return Err(n.layer.wrong(cause).into());
    }
    let y = normalized(x, &axes, n.layer.float(1, "eps", 1e-3)?)?;
    match n.weights {
        [gamma, beta, ..] => y.mul(&gamma.reshape_to("norm", &shape)?)?.add(&beta.reshape_to("norm", &shape)?),
        _ => Ok(y),
    }
}
