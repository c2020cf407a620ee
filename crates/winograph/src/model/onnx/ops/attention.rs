//! Attention and what is done to its operands.

use super::super::node::{Lowering, Node, one};
use crate::error::Result;
use crate::model::Value;
use crate::tensor::{SliceRange, Tensor};
use winograph_ir::{DType, Scalar};

pub(super) fn find(op: &str) -> Option<Lowering> {
    Some(match op {
        "Attention" => attention,
        "RotaryEmbedding" => rotary,
        _ => return None,
    })
}

const NAME: &str = "attention";

/// `[n, length, heads * size]` or `[n, heads, length, size]` as the latter.
fn by_heads(n: &Node<'_>, t: &Tensor, heads: &str) -> Result<Tensor> {
    match *t.shape() {
        [_, _, _, _] => Ok(t.clone()),
        [batch, length, width] => {
            let count = usize::try_from(n.int(heads, 0)).unwrap_or(0);
            if count == 0 || !width.is_multiple_of(count) {
                return Err(n.wrong(format!("{heads} is {count}, which does not divide an input {:?}", t.shape())));
            }
            t.reshape_to(NAME, &[batch, length, count, width / count])?.transpose(1, 2)
        }
        _ => Err(n.wrong(format!("an input {:?}, where 3 or 4 axes are expected", t.shape()))),
    }
}

/// Each head so many times in a row.
fn repeated(t: &Tensor, times: usize) -> Result<Tensor> {
    let [batch, heads, length, size] = *t.shape() else { return Ok(t.clone()) };
    if times == 1 {
        return Ok(t.clone());
    }
    let wide = t.unsqueeze(2)?.expand_as(NAME, &[batch, heads, times, length, size])?;
    wide.reshape_to(NAME, &[batch, heads.saturating_mul(times), length, size])
}

/// What is added to the scores `[n, heads, queries, keys]`: the mask, shorter ones filled up, and minus infinity where a
/// key comes after its query or is padding. `None` where nothing is.
fn bias(n: &Node<'_>, dtype: DType, scores: [usize; 4], past: usize) -> Result<Option<Tensor>> {
    let [batch, _, queries, keys] = scores;
    let lowest = Tensor::full_scalar(NAME, Scalar::from_f64(dtype, f64::NEG_INFINITY), &[])?;
    let zero = Tensor::full_scalar(NAME, Scalar::zero(dtype), &[])?;
    let closed = |allowed: &Tensor| allowed.where_(&zero, &lowest);
    let mut parts = Vec::new();
    if let Some(mask) = n.opt(3) {
        let rank = mask.rank();
        let length = mask.shape().last().copied().unwrap_or(0);
        if !(2..=4).contains(&rank) || length > keys {
            return Err(n.wrong(format!("a mask {:?} for scores {scores:?}", mask.shape())));
        }
        let mask = match mask.dtype() {
            DType::Bool => closed(mask)?,
            _ => mask.cast(dtype)?,
        };
        let mut amounts = vec![(0, 0); rank];
        amounts[rank - 1] = (0, keys - length);
        parts.push(mask.pad_to(NAME, &amounts, Scalar::from_f64(dtype, f64::NEG_INFINITY))?);
    }
    if n.flag("is_causal") {
        let query = Tensor::iota(NAME, DType::I64, &[queries, keys], 0)?.add(past as i64)?;
        parts.push(closed(&Tensor::iota(NAME, DType::I64, &[queries, keys], 1)?.le(&query)?)?);
    }
    if let Some(lengths) = n.opt(6) {
        let lengths = lengths.cast(DType::I64)?.reshape_to(NAME, &[batch, 1, 1, 1])?;
        parts.push(closed(&Tensor::iota(NAME, DType::I64, &[batch, 1, 1, keys], 3)?.lt(&lengths)?)?);
    }
    let mut parts = parts.into_iter();
    let Some(first) = parts.next() else { return Ok(None) };
    Ok(Some(parts.try_fold(first, |sum, part| sum.add(&part))?))
}

/// `softmax(q k^T scale + bias) v` per head. Opset 23 and later.
fn attention(n: &Node<'_>) -> Result<Vec<Value>> {
    let (query, key, value) = (n.x(0)?, n.x(1)?, n.x(2)?);
    let dtype = query.dtype();
    let q = by_heads(n, query, "q_num_heads")?;
    let grown = |t: Tensor, past: Option<&Tensor>| match past {
        Some(past) => Tensor::cat(&[past, &t], 2),
        None => Ok(t),
    };
    let past = n.opt(4).and_then(|t| t.shape().get(2).copied()).unwrap_or(0);
    let k = grown(by_heads(n, key, "kv_num_heads")?, n.opt(4))?;
    let v = grown(by_heads(n, value, "kv_num_heads")?, n.opt(5))?;
    let (&[batch, heads, queries, size], &[_, groups, keys, _], &[_, also, _, _]) = (q.shape(), k.shape(), v.shape())
    else {
        return Err(n.wrong("operands of another number of axes"));
    };
    if groups == 0 || groups != also || !heads.is_multiple_of(groups) || size == 0 {
        return Err(n.wrong(format!("{heads} heads of queries for {groups} of keys and {also} of values")));
    }
    let work = match n.dtype_attr("softmax_precision")? {
        Some(d) => d,
        None => dtype.compute(),
    };
    let scale = n.attr("scale").map_or(1.0 / (size as f64).sqrt(), |a| a.f as f64);
    let times = heads / groups;
    // Each operand takes the root of the scale: products of half floats stay small.
    let (left, right) = (q.mul(scale.sqrt())?, repeated(&k, times)?.mul(scale.sqrt())?);
    let mut scores = left.matmul(&right.transpose(2, 3)?)?;
    let mode = n.int("qk_matmul_output_mode", 0);
    let mut shown = scores.clone();
    if let Some(bias) = bias(n, dtype, [batch, heads, queries, keys], past)? {
        scores = scores.add(&bias)?;
    }
    if mode == 1 {
        shown = scores.clone();
    }
    let cap = n.float("softcap", 0.0);
    if cap > 0.0 {
        scores = scores.div(cap)?.tanh()?.mul(cap)?;
    }
    if mode == 2 {
        shown = scores.clone();
    }
    let weights = scores.cast(work)?.softmax(-1)?;
    if mode == 3 {
        shown = weights.cast(dtype)?;
    }
    let mut y = weights.matmul(&repeated(&v, times)?.cast(work)?)?.cast(dtype)?;
    if query.rank() == 3 {
        let width = heads.saturating_mul(v.shape()[3]);
        y = y.transpose(1, 2)?.reshape_to(NAME, &[batch, queries, width])?;
    }
    Ok(vec![y.into(), k.into(), v.into(), shown.into()])
}

/// Pairs of components of each head turned by an angle that depends on the position.
fn rotary(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let heads = by_heads(n, x, "num_heads")?;
    let [batch, _, length, size] = *heads.shape() else { return Err(n.wrong("an input of another number of axes")) };
    let turned = match usize::try_from(n.int("rotary_embedding_dim", 0)) {
        Ok(0) => size,
        Ok(d) if d <= size => d,
        _ => return Err(n.wrong(format!("rotary_embedding_dim is larger than a head, which has {size} components"))),
    };
    if !turned.is_multiple_of(2) {
        return Err(n.wrong(format!("{turned} components, which are no pairs")));
    }
    let half = turned / 2;
    let of_positions = |i: usize| -> Result<Tensor> {
        let table = n.x(i)?;
        let table = match n.opt(3) {
            Some(positions) => {
                let flat = positions.cast(DType::I64)?.reshape_to(NAME, &[positions.numel()])?;
                table.index_select(0, &flat)?
            }
            None => table.clone(),
        };
        table.reshape_to(NAME, &[batch, 1, length, half])
    };
    let (cos, sin) = (of_positions(1)?, of_positions(2)?);
    let part = heads.narrow(3, 0, turned)?;
    let interleaved = n.flag("interleaved");
    let (a, b) = match interleaved {
        true => {
            (part.slice_axis(3, SliceRange::from(0..).step(2))?, part.slice_axis(3, SliceRange::from(1..).step(2))?)
        }
        false => (part.narrow(3, 0, half)?, part.narrow(3, half, half)?),
    };
    let (real, imaginary) = (cos.mul(&a)?.sub(sin.mul(&b)?)?, sin.mul(&a)?.add(cos.mul(&b)?)?);
    let done = match interleaved {
        true => Tensor::stack(&[&real, &imaginary], 4)?.reshape_to(NAME, part.shape())?,
        false => Tensor::cat(&[&real, &imaginary], 3)?,
    };
    let y = Tensor::cat(&[&done, &heads.narrow(3, turned, size - turned)?], 3)?;
    one(if x.rank() == 3 { y.transpose(1, 2)?.reshape_to(NAME, x.shape())? } else { y })
}
