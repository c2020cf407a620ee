//! Lookups and their inverses.

use super::super::node::{Lowering, Node, one};
use crate::error::Result;
use crate::model::Value;
use crate::tensor::{Tensor, shape};
use winograph_ir::{DType, ReduceOp};

pub(super) fn find(op: &str) -> Option<Lowering> {
    Some(match op {
        "Gather" => gather,
        "GatherElements" => gather_elements,
        "GatherND" => gather_nd,
        "Scatter" | "ScatterElements" => scatter_elements,
        "ScatterND" => scatter_nd,
        "TensorScatter" => tensor_scatter,
        _ => return None,
    })
}

/// Indices from the front: negative ones count from the end.
fn from_front(index: &Tensor, size: usize) -> Result<Tensor> {
    let index = index.cast(DType::I64)?;
    index.lt(0)?.where_(&index.add(size as i64)?, &index)
}

fn gather(n: &Node<'_>) -> Result<Vec<Value>> {
    let name = "gather";
    let (x, index) = (n.x(0)?, n.x(1)?);
    let axis = n.axis(n.int("axis", 0), x.rank())?;
    // One index that is known takes a slice, which is no lookup.
    if index.numel() == 1
        && let Ok(known) = n.host_of(index)
        && let Some(at) = known.data.first().map(|s| s.to_i64())
    {
        let one_row = x.select(axis as isize, at as isize)?;
        let mut shape = x.shape()[..axis].to_vec();
        shape.extend(index.shape());
        shape.extend(&x.shape()[axis + 1..]);
        return one(one_row.reshape_to(name, &shape)?);
    }
    let flat = from_front(index, x.shape()[axis])?.reshape_to(name, &[index.numel()])?;
    let mut shape = x.shape()[..axis].to_vec();
    shape.extend(index.shape());
    shape.extend(&x.shape()[axis + 1..]);
    one(x.index_select(axis as isize, &flat)?.reshape_to(name, &shape)?)
}

fn gather_elements(n: &Node<'_>) -> Result<Vec<Value>> {
    let (x, index) = (n.x(0)?, n.x(1)?);
    let axis = n.axis(n.int("axis", 0), x.rank())?;
    one(x.gather(axis as isize, &from_front(index, x.shape()[axis])?)?)
}

/// The last axis of an index, one component for each of the axes `sizes`, as one number.
fn flattened(name: &'static str, index: &Tensor, sizes: &[usize]) -> Result<Tensor> {
    let last = index.rank() as isize - 1;
    let mut flat: Option<Tensor> = None;
    for (i, &size) in sizes.iter().enumerate() {
        let part = from_front(&index.select(last, i as isize)?, size)?;
        flat = Some(match flat {
            None => part,
            Some(f) => f.mul(size as i64)?.add(&part)?,
        });
    }
    match flat {
        Some(f) => Ok(f),
        None => Tensor::full_scalar(name, winograph_ir::Scalar::zero(DType::I64), &index.shape()[..index.rank() - 1]),
    }
}

fn gather_nd(n: &Node<'_>) -> Result<Vec<Value>> {
    let name = "gather_nd";
    let (x, index) = (n.x(0)?, n.x(1)?);
    let batch = usize::try_from(n.int("batch_dims", 0)).unwrap_or(usize::MAX);
    let parts = index.shape().last().copied().unwrap_or(0);
    if index.rank() == 0 || batch >= index.rank() || batch.saturating_add(parts) > x.rank() {
        return Err(n.wrong(format!("an input {:?} and indices {:?}", x.shape(), index.shape())));
    }
    if x.shape()[..batch] != index.shape()[..batch] {
        return Err(n.wrong("axes in front that differ"));
    }
    let looked = &x.shape()[batch..batch + parts];
    let (front, rest) = (shape::count(&x.shape()[..batch]), shape::count(&x.shape()[batch + parts..]));
    let flat = flattened(name, index, looked)?;
    let places = flat.numel() / front.max(1);
    let flat = flat.reshape_to(name, &[front, places, 1])?.expand_as(name, &[front, places, rest])?;
    let table = x.reshape_to(name, &[front, shape::count(looked), rest])?;
    let mut out = index.shape()[..index.rank() - 1].to_vec();
    out.extend(&x.shape()[batch + parts..]);
    one(table.gather(1, &flat)?.reshape_to(name, &out)?)
}

fn reduction(n: &Node<'_>) -> Result<Option<ReduceOp>> {
    Ok(match n.text("reduction", "none").as_str() {
        "none" => None,
        "add" => Some(ReduceOp::Add),
        "mul" => Some(ReduceOp::Mul),
        "max" => Some(ReduceOp::Max),
        "min" => Some(ReduceOp::Min),
        other => return Err(n.unsupported(format!("reduction {other:?}"))),
    })
}

fn scatter_elements(n: &Node<'_>) -> Result<Vec<Value>> {
    let (x, index, updates) = (n.x(0)?, n.x(1)?, n.x(2)?);
    let axis = n.axis(n.int("axis", 0), x.rank())?;
    one(x.scatter(axis as isize, &from_front(index, x.shape()[axis])?, updates, reduction(n)?)?)
}

fn scatter_nd(n: &Node<'_>) -> Result<Vec<Value>> {
    let name = "scatter_nd";
    let (x, index, updates) = (n.x(0)?, n.x(1)?, n.x(2)?);
    let parts = index.shape().last().copied().unwrap_or(0);
    if index.rank() == 0 || parts > x.rank() {
        return Err(n.wrong(format!("an input {:?} and indices {:?}", x.shape(), index.shape())));
    }
    let (looked, rest) = x.shape().split_at(parts);
    let rest = shape::count(rest);
    let flat = flattened(name, index, looked)?;
    let places = flat.numel();
    let flat = flat.reshape_to(name, &[places, 1])?.expand_as(name, &[places, rest])?;
    let table = x.reshape_to(name, &[shape::count(looked), rest])?;
    let y = table.scatter(0, &flat, &updates.reshape_to(name, &[places, rest])?, reduction(n)?)?;
    one(y.reshape_to(name, x.shape())?)
}

/// A cache written to from a place of each batch on, round the end if it is circular.
fn tensor_scatter(n: &Node<'_>) -> Result<Vec<Value>> {
    let name = "tensor_scatter";
    let (past, update) = (n.x(0)?, n.x(1)?);
    let axis = n.axis(n.int("axis", -2), past.rank())?;
    let size = past.shape()[axis] as i64;
    let steps = Tensor::iota(name, DType::I64, update.shape(), axis)?;
    let mut index = match n.opt(2) {
        Some(from) => {
            let mut shape = vec![1; past.rank()];
            shape[0] = from.numel();
            steps.add(from.cast(DType::I64)?.reshape_to(name, &shape)?)?
        }
        None => steps,
    };
    if n.text("mode", "linear") == "circular" {
        index = index.remainder(size)?;
    }
    one(past.scatter(axis as isize, &index, update, None)?)
}
