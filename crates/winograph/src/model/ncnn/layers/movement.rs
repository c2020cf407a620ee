//! Layers that move elements, and constants.

use super::Node;
use crate::error::Result;
use crate::model::ModelError;
use crate::model::ncnn::given;
use crate::model::ncnn::param::{Layer, NONE};
use crate::model::ncnn::weights::Blob;
use crate::tensor::Tensor;
use winograph_ir::Scalar;

pub(super) fn find(kind: &str) -> Option<fn(&Node<'_>) -> Result<Tensor>> {
    Some(match kind {
        "Concat" => concat,
        "Crop" => crop,
        "Padding" => padding,
        "PixelShuffle" => pixel_shuffle,
        "Reshape" => reshape,
        "Permute" => permute,
        "Flatten" => |n| n.x(0)?.reshape_to("Flatten", &[n.x(0)?.numel()]),
        "Squeeze" => squeeze,
        "ExpandDims" => expand_dims,
        _ => return None,
    })
}

/// Shape of a `MemoryData` layer.
fn memory_shape(layer: &Layer) -> Result<Vec<usize>, ModelError> {
    let sizes = [(2, "c"), (11, "d"), (1, "h"), (0, "w")].map(|(id, field)| layer.size(id, field, 0));
    let mut shape = Vec::new();
    for size in sizes {
        shape.push(size?);
    }
    shape.retain(|&s| s > 0);
    Ok(if shape.is_empty() { vec![1] } else { shape })
}

pub(super) fn memory_weights(layer: &Layer) -> Result<Vec<Blob>, ModelError> {
    let count = memory_shape(layer)?.iter().try_fold(1usize, |a, &b| a.checked_mul(b));
    let count = count.ok_or_else(|| layer.wrong("w, h, d and c: more elements than can be counted"))?;
    Ok(vec![match layer.int(21, "load_type", 1)? {
        0 => Blob::tagged("data", count),
        _ => Blob::plain("data", count),
    }])
}

pub(super) fn memory(n: &Node<'_>) -> Result<Tensor> {
    n.w(0)?.reshape_to("MemoryData", &memory_shape(n.layer)?)
}

fn concat(n: &Node<'_>) -> Result<Tensor> {
    let axis = n.axis(n.layer.int(0, "axis", 0)?, n.x(0)?.rank())?;
    Tensor::cat(&n.inputs.iter().collect::<Vec<_>>(), axis as isize)
}

pub(super) fn slice(n: &Node<'_>) -> Result<Vec<Tensor>> {
    let x = n.x(0)?;
    let axis = n.axis(n.layer.int(1, "axis", 0)?, x.rank())?;
    let size = x.shape()[axis] as i64;
    let results = n.layer.outputs.len();
    let bad = |list: &[i64]| {
        let part: Vec<String> = list.iter().take(8).map(i64::to_string).collect();
        n.layer.wrong(format!("slices {} of an axis of {size} for {results} results", part.join(",")))
    };
    let mut ends = Vec::with_capacity(results);
    if let Some(list) = n.layer.ints(2, "indices")? {
        // Where to cut, from the end if negative.
        ends.extend(list.iter().map(|&i| if i < 0 { i + size } else { i }));
        ends.push(size);
        if ends.len() != results {
            return Err(bad(&list).into());
        }
    } else {
        let list = n.layer.ints(0, "slices")?.unwrap_or_default();
        if list.len() != results {
            return Err(bad(&list).into());
        }
        let mut at = 0;
        for (i, &s) in list.iter().enumerate() {
            // What is left is shared out evenly among the parts without a size.
            at += if s == NONE { (size - at) / (results - i) as i64 } else { s };
            ends.push(at);
        }
    }
    let mut out = Vec::with_capacity(results);
    let mut start = 0;
    for &end in &ends {
        match (usize::try_from(start), usize::try_from(end - start)) {
            (Ok(from), Ok(length)) if length > 0 && end <= size => out.push(x.narrow(axis as isize, from, length)?),
            _ => return Err(bad(&ends).into()),
        }
        start = end;
    }
    Ok(out)
}

/// Identifiers of the parameters of one axis: offset at the start, size, offset at the end; outermost axis first.
fn crop_fields(rank: usize) -> &'static [(i64, i64, i64)] {
    const W: (i64, i64, i64) = (0, 3, 6);
    const H: (i64, i64, i64) = (1, 4, 7);
    const D: (i64, i64, i64) = (13, 14, 15);
    const C: (i64, i64, i64) = (2, 5, 8);
    match rank {
        1 => &[W],
        2 => &[H, W],
        3 => &[C, H, W],
        _ => &[C, D, H, W],
    }
}

fn crop(n: &Node<'_>) -> Result<Tensor> {
    let mut x = n.x(0)?.clone();
    let cut = |x: &Tensor, axis: usize, start: i64, end: i64| -> Result<Tensor> {
        match (usize::try_from(start), usize::try_from(end - start)) {
            (Ok(from), Ok(length)) if length > 0 && from + length <= x.shape()[axis] => {
                x.narrow(axis as isize, from, length)
            }
            _ => {
                let cause = format!("elements {start} to {end} of axis {axis} of a blob of shape {:?}", x.shape());
                Err(n.layer.wrong(cause).into())
            }
        }
    };
    if let Some(starts) = n.layer.ints(9, "starts")?.filter(|l| !l.is_empty()) {
        let ends = n.layer.ints(10, "ends")?.unwrap_or_default();
        let axes = n.layer.ints(11, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        if ends.len() != starts.len() || axes.len() != starts.len() {
            let (s, e, a) = (starts.len(), ends.len(), axes.len());
            return Err(n.layer.wrong(format!("{s} starts, {e} ends and {a} axes (parameters 9 to 11)")).into());
        }
        for ((&start, &end), &axis) in starts.iter().zip(&ends).zip(&axes) {
            let axis = n.axis(axis, x.rank())?;
            let size = x.shape()[axis] as i64;
            let place = |i: i64| if i < 0 { i + size } else { i.min(size) };
            let (start, end) = (given(start).map_or(0, place), given(end).map_or(size, place));
            x = cut(&x, axis, start, end)?;
        }
        return Ok(x);
    }
    for (axis, &(offset, size, rest)) in crop_fields(x.rank()).iter().enumerate() {
        let whole = x.shape()[axis] as i64;
        let start = n.layer.int(offset, "offset", 0)?;
        let length = match n.inputs.get(1) {
            // As large as the second blob, which may have fewer axes.
            Some(like) => match (axis + like.rank()).checked_sub(x.rank()) {
                Some(a) => like.shape()[a] as i64,
                None => whole,
            },
            None => {
                let room = whole - start - n.layer.int(rest, "offset2", 0)?;
                given(n.layer.int(size, "size", 0)?).map_or(room, |s| s.min(room))
            }
        };
        x = cut(&x, axis, start, start + length)?;
    }
    Ok(x)
}

/// Copies along one axis of what is at given places.
fn select(x: &Tensor, axis: usize, places: &[i64]) -> Result<Tensor> {
    x.index_select(axis as isize, &Tensor::from_slice(places, &[places.len()])?)
}

fn padding(n: &Node<'_>) -> Result<Tensor> {
    let x = n.x(0)?;
    n.layer.only_zero(6, "per_channel_pad_data_size", "a value for each channel")?;
    let amount = |id: i64, field: &str| n.layer.size(id, field, 0);
    let (top, bottom) = (amount(0, "top")?, amount(1, "bottom")?);
    let (left, right) = (amount(2, "left")?, amount(3, "right")?);
    let (front, behind) = (amount(7, "front")?, amount(8, "behind")?);
    let amounts: Vec<(usize, usize)> = match x.rank() {
        1 => vec![(left, right)],
        2 => vec![(top, bottom), (left, right)],
        3 => vec![(front, behind), (top, bottom), (left, right)],
        _ => vec![(0, 0), (front, behind), (top, bottom), (left, right)],
    };
    let kind = n.layer.int(4, "type", 0)?;
    if kind == 0 {
        let value = n.layer.float(5, "value", 0.0)?;
        return x.pad_to("Padding", &amounts, Scalar::from_f64(x.dtype(), value));
    }
    let mut y = x.clone();
    for (axis, &(before, after)) in amounts.iter().enumerate().filter(|(_, a)| **a != (0, 0)) {
        let size = y.shape()[axis];
        let last = size as i64 - 1;
        let total = before.checked_add(size).and_then(|s| s.checked_add(after)).filter(|&s| s <= MAX_PLACES);
        let total = total.ok_or_else(|| n.layer.wrong(format!("{before} and {after} elements around {size}")))?;
        n.table(total)?;
        let place = |i: usize| i as i64 - before as i64;
        let places: Vec<i64> = match kind {
            1 => (0..total).map(|i| place(i).clamp(0, last)).collect(),
            2 if (before.max(after) as i64) <= last => {
                (0..total).map(|i| last - (last - place(i).abs()).abs()).collect()
            }
            2 => return Err(n.layer.wrong(format!("a mirror of {before} and {after} around {size} elements")).into()),
            other => return Err(n.layer.wrong(format!("type (parameter 4) {other}, expected 0, 1 or 2")).into()),
        };
        y = select(&y, axis, &places)?;
    }
    Ok(y)
}

/// Most places along an axis that are listed one by one.
pub(super) const MAX_PLACES: usize = 1 << 20;

fn pixel_shuffle(n: &Node<'_>) -> Result<Tensor> {
    let name = "PixelShuffle";
    let x = n.x(0)?;
    let r = n.layer.positive(0, "upscale_factor", 1)?;
    let &[channels, h, w] = x.shape() else {
        return Err(n.layer.wrong(format!("an input of shape {:?}, expected 3 axes", x.shape())).into());
    };
    let square = r.checked_mul(r).filter(|&s| channels.is_multiple_of(s));
    let square = square.ok_or_else(|| {
        n.layer
            .wrong(format!("upscale_factor (parameter 0) {r} for {channels} channels, expected r with r * r a divisor"))
    })?;
    let c = channels / square;
    let parts = match n.layer.int(1, "mode", 0)? {
        0 => x.reshape_to(name, &[c, r, r, h, w])?.permute_to(name, &[0, 3, 1, 4, 2])?,
        _ => x.reshape_to(name, &[r, r, c, h, w])?.permute_to(name, &[2, 3, 0, 4, 1])?,
    };
    parts.reshape_to(name, &[c, h * r, w * r])
}

fn reshape(n: &Node<'_>) -> Result<Tensor> {
    let x = n.x(0)?;
    n.layer.only_zero(3, "permute", "elements in another order")?;
    let mut sizes = Vec::new();
    for (id, field) in [(2, "c"), (11, "d"), (1, "h"), (0, "w")] {
        if let Some(size) = given(n.layer.int(id, field, NONE)?) {
            sizes.push((field, size));
        }
    }
    let mut shape = Vec::with_capacity(sizes.len());
    let rank = sizes.len();
    for (i, &(field, size)) in sizes.iter().enumerate() {
        shape.push(match size {
            // As it was: axes are counted from the innermost, except for channels.
            0 => {
                let from_end = rank - 1 - i;
                let at = if field == "c" { Some(0) } else { x.rank().checked_sub(1 + from_end) };
                let found = at.and_then(|a| x.shape().get(a));
                *found.ok_or_else(|| n.layer.wrong(format!("{field} as in a blob of shape {:?}", x.shape())))? as isize
            }
            -1 => -1,
            s => isize::try_from(s).ok().filter(|&s| s > 0).ok_or_else(|| n.layer.wrong(format!("{field} is {s}")))?,
        });
    }
    if shape.is_empty() {
        return Err(n.layer.wrong("no size is given (parameters 0, 1, 2, 11)").into());
    }
    x.reshape(&shape)
}

fn permute(n: &Node<'_>) -> Result<Tensor> {
    let x = n.x(0)?;
    let order = n.layer.int(0, "order_type", 0)?;
    // Orders are numbered in lexical order of the axes, outermost first.
    let orders = orders(x.rank());
    let chosen = usize::try_from(order).ok().and_then(|o| orders.get(o));
    let chosen = chosen.ok_or_else(|| {
        n.layer.wrong(format!("order_type (parameter 0) {order}, expected 0 to {}", orders.len().saturating_sub(1)))
    })?;
    x.permute_to("Permute", chosen)
}

/// All orders of so many axes, in lexical order.
fn orders(rank: usize) -> Vec<Vec<usize>> {
    if rank == 0 {
        return vec![vec![]];
    }
    let mut out: Vec<Vec<usize>> = vec![vec![]];
    for _ in 0..rank {
        let longer = |o: &Vec<usize>| {
            let free = (0..rank).filter(|a| !o.contains(a)).collect::<Vec<_>>();
            free.into_iter().map(|a| [o.as_slice(), &[a]].concat()).collect::<Vec<_>>()
        };
        out = out.iter().flat_map(longer).collect();
    }
    out
}

fn squeeze(n: &Node<'_>) -> Result<Tensor> {
    let x = n.x(0)?;
    let mut axes: Vec<usize> = match n.layer.ints(3, "axes")? {
        Some(list) => list.iter().map(|&a| n.axis(a, x.rank())).collect::<Result<_>>()?,
        None => {
            let flags = [(2, "squeeze_c"), (11, "squeeze_d"), (1, "squeeze_h"), (0, "squeeze_w")];
            let of_rank = flags.iter().filter(|f| x.rank() == 4 || f.0 != 11).skip(3usize.saturating_sub(x.rank()));
            let mut out = Vec::new();
            for (axis, (id, field)) in of_rank.enumerate() {
                if n.layer.flag(*id, field)? {
                    out.push(axis);
                }
            }
            out
        }
    };
    axes.retain(|&a| x.shape()[a] == 1);
    if axes.len() == x.rank() {
        axes.pop();
    }
    let shape: Vec<usize> = (0..x.rank()).filter(|a| !axes.contains(a)).map(|a| x.shape()[a]).collect();
    x.reshape_to("Squeeze", &shape)
}

fn expand_dims(n: &Node<'_>) -> Result<Tensor> {
    let x = n.x(0)?;
    let list = n.layer.ints(3, "axes")?.ok_or_else(|| n.layer.unsupported("axes (parameter 3) are not given"))?;
    let rank = x.rank() + list.len();
    let mut axes: Vec<usize> = list.iter().map(|&a| n.axis(a, rank)).collect::<Result<_>>()?;
    axes.sort_unstable();
    let mut shape = x.shape().to_vec();
    for a in axes {
        shape.insert(a.min(shape.len()), 1);
    }
    x.reshape_to("ExpandDims", &shape)
}

#[cfg(test)]
mod tests {
    #[test]
    fn orders_are_numbered_as_ncnn_numbers_them() {
        // What ncnn makes of a blob of 2 x 3 x 4, order by order.
        let shapes: Vec<Vec<usize>> =
            super::orders(3).iter().map(|o| o.iter().map(|&a| [2, 3, 4][a]).collect()).collect();
        assert_eq!(shapes, [[2, 3, 4], [2, 4, 3], [3, 2, 4], [3, 4, 2], [4, 2, 3], [4, 3, 2]]);
        assert_eq!(super::orders(4).len(), 24);
    }
}
