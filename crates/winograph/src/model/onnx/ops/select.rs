//! Operators whose results have as many elements as the data says: what there is, where it is, and how often.
//!
//! This is the boundary between the compiler and the host. The operand is computed by a compiled function of what comes
//! before it, the host decides here which places are taken, and these are constants for what follows, which is compiled
//! as another function; equal sizes share it. Elements are taken by lookups at those places, so that they are never
//! copied by the host. Where the operand depends on constants alone, all of it happens while importing, and the model
//! is compiled as a whole.

use super::super::node::{Lowering, Node, one};
use crate::error::Result;
use crate::model::Value;
use crate::tensor::{Tensor, shape};
use std::cmp::Ordering;
use winograph_ir::Scalar;
use winograph_ir::interp::Value as HostValue;

pub(super) fn find(op: &str) -> Option<Lowering> {
    Some(match op {
        "NonZero" => non_zero,
        "Compress" => compress,
        "Unique" => unique,
        "NonMaxSuppression" => non_max_suppression,
        _ => return None,
    })
}

fn places(list: &[usize]) -> Result<Tensor> {
    Tensor::from_slice(&list.iter().map(|&i| i as i64).collect::<Vec<_>>(), &[list.len()])
}

/// `[rank, count]`: the places of elements that are not 0, in order.
fn non_zero(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let value = n.elements_of(x)?;
    let count = value.data.iter().filter(|s| s.to_bool()).count();
    // The elements, where some are not 0, the places by axis and the result.
    let places = count.saturating_mul(size_of::<usize>() * (1 + 2 * x.rank()));
    n.host_memory(places.saturating_add(value.data.len().saturating_mul(size_of::<Scalar>())))?;
    let found: Vec<usize> = (0..value.data.len()).filter(|&i| value.data[i].to_bool()).collect();
    // Distance of neighbours along each axis.
    let step = |axis: usize| shape::count(&x.shape()[axis + 1..]);
    let along = |axis: usize| found.iter().map(move |&i| (i / step(axis) % x.shape()[axis]) as i64);
    let all: Vec<i64> = (0..x.rank()).flat_map(along).collect();
    one(Tensor::from_slice(&all, &[x.rank(), found.len()])?)
}

/// A tensor and the axis that an attribute names; without one, all elements in a row.
fn along_axis(n: &Node<'_>, x: &Tensor) -> Result<(Tensor, usize)> {
    match n.attr("axis") {
        Some(a) => Ok((x.clone(), n.axis(a.i, x.rank())?)),
        None => Ok((x.reshape_to("select", &[x.numel()])?, 0)),
    }
}

fn compress(n: &Node<'_>) -> Result<Vec<Value>> {
    let (x, axis) = along_axis(n, n.x(0)?)?;
    let condition = n.x(1)?;
    if condition.rank() != 1 || condition.numel() > x.shape()[axis] {
        let (given, size) = (condition.shape(), x.shape()[axis]);
        return Err(n.wrong(format!("a condition of shape {given:?} for an axis of {size}: one axis, and no longer")));
    }
    let condition = n.elements_of(condition)?;
    let kept: Vec<usize> = (0..condition.data.len()).filter(|&i| condition.data[i].to_bool()).collect();
    one(x.index_select(axis as isize, &places(&kept)?)?)
}

/// Numbers by size, those that are none last and equal to each other.
fn by_size(a: &Scalar, b: &Scalar) -> Ordering {
    if !a.dtype().is_float() {
        return a.to_i64().cmp(&b.to_i64());
    }
    let (a, b) = (a.to_f64(), b.to_f64());
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// Places of an axis in groups of equal slices, by the order of the slices' elements; places in a group from the first on.
fn groups(value: &HostValue, axis: usize) -> Vec<Vec<usize>> {
    let size = value.shape[axis];
    let (outer, inner) = (shape::count(&value.shape[..axis]), shape::count(&value.shape[axis + 1..]));
    let slice = |i: usize| {
        let row = move |o: usize| (o * size + i) * inner..(o * size + i + 1) * inner;
        (0..outer).flat_map(move |o| &value.data[row(o)])
    };
    let compare = |a: usize, b: usize| {
        slice(a).zip(slice(b)).map(|(p, q)| by_size(p, q)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
    };
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&a, &b| compare(a, b));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for i in order {
        match groups.last_mut() {
            Some(group) if compare(group[0], i).is_eq() => group.push(i),
            _ => groups.push(vec![i]),
        }
    }
    groups
}

/// The slices that occur, the place where each occurs first, which of them is at each place, and how often each occurs.
fn unique(n: &Node<'_>) -> Result<Vec<Value>> {
    let (x, axis) = along_axis(n, n.x(0)?)?;
    if x.numel() == 0 {
        return Err(n.unsupported("tensors without elements"));
    }
    let value = n.elements_of(&x)?;
    n.comparisons(x.numel().saturating_mul(x.shape()[axis].max(2).ilog2() as usize + 1))?;
    let mut groups = groups(&value, axis);
    if n.int("sorted", 1) == 0 {
        groups.sort_by_key(|g| g[0]);
    }
    let first: Vec<usize> = groups.iter().map(|g| g[0]).collect();
    let mut inverse = vec![0; x.shape()[axis]];
    for (number, group) in groups.iter().enumerate() {
        group.iter().for_each(|&i| inverse[i] = number);
    }
    let counts: Vec<usize> = groups.iter().map(Vec::len).collect();
    let first = places(&first)?;
    let y = x.index_select(axis as isize, &first)?;
    Ok(vec![y.into(), first.into(), places(&inverse)?.into(), places(&counts)?.into()])
}

/// A box by its edges, the smaller ones first: rows, columns.
type Edges = [f64; 4];

fn area(b: &Edges) -> f64 {
    (b[2] - b[0]) * (b[3] - b[1])
}

/// The area that two boxes share, of that which they cover together.
fn overlap(a: &Edges, b: &Edges) -> f64 {
    let side = |i: usize| (a[i + 2].min(b[i + 2]) - a[i].max(b[i])).max(0.0);
    let common = side(0) * side(1);
    let all = area(a) + area(b) - common;
    if common > 0.0 && all > 0.0 { common / all } else { 0.0 }
}

/// `[count, 3]`: batch, class and box of each that is kept, by falling score, unless it overlaps one kept before.
fn non_max_suppression(n: &Node<'_>) -> Result<Vec<Value>> {
    let (boxes, scores) = (n.x(0)?, n.x(1)?);
    let fits = boxes.rank() == 3
        && scores.rank() == 3
        && boxes.shape()[2] == 4
        && (boxes.shape()[0], boxes.shape()[1]) == (scores.shape()[0], scores.shape()[2]);
    if !fits {
        let (b, s) = (boxes.shape(), scores.shape());
        return Err(n.wrong(format!("boxes {b:?} and scores {s:?}: expected [batch, n, 4] and [batch, classes, n]")));
    }
    let (count, classes) = (scores.shape()[2], scores.shape()[1]);
    let number = |i: usize| match n.opt(i) {
        Some(t) => Ok(n.elements_of(t)?.data.first().copied()),
        None => Ok::<_, crate::Error>(None),
    };
    let most = number(2)?.map_or(0, |s| usize::try_from(s.to_i64()).unwrap_or(0));
    let shared = number(3)?.map_or(0.0, |s| s.to_f64());
    let least = number(4)?.map(|s| s.to_f64());
    let centers = n.flag("center_point_box");
    let (boxes, scores) = (n.elements_of(boxes)?, n.elements_of(scores)?);
    let edges = |b: &[Scalar]| -> Edges {
        let [p, q, r, s] = [0, 1, 2, 3].map(|i| b[i].to_f64());
        match centers {
            // Columns come first there.
            true => [q - s / 2.0, p - r / 2.0, q + s / 2.0, p + r / 2.0],
            false => [p.min(r), q.min(s), p.max(r), q.max(s)],
        }
    };
    let boxes: Vec<Edges> = boxes.data.chunks_exact(4).map(edges).collect();
    let mut kept: Vec<i64> = Vec::new();
    for (row, scores) in scores.data.chunks_exact(count.max(1)).enumerate() {
        let (batch, class) = (row / classes, row % classes);
        let boxes = &boxes[batch * count..][..count];
        let score = |i: usize| scores[i].to_f64();
        let mut order: Vec<usize> = (0..count).filter(|&i| least.is_none_or(|least| score(i) > least)).collect();
        // Sorted once, and each compared with those that are taken, of which there are none too many.
        let sorted = order.len().saturating_mul(order.len().max(2).ilog2() as usize + 1);
        n.comparisons(sorted.saturating_add(order.len().saturating_mul(order.len().min(most))))?;
        order.sort_by(|&a, &b| by_size(&scores[b], &scores[a]));
        let mut taken: Vec<usize> = Vec::new();
        for i in order {
            if taken.len() >= most {
                break;
            }
            if taken.iter().all(|&t| overlap(&boxes[i], &boxes[t]) <= shared) {
                taken.push(i);
                kept.extend([batch as i64, class as i64, i as i64]);
            }
        }
    }
    let rows = kept.len() / 3;
    one(Tensor::from_slice(&kept, &[rows, 3])?)
}
