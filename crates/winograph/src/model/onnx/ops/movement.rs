//! Operators that move elements without computing.

use super::super::node::{Lowering, Node, one};
use crate::error::Result;
use crate::model::Value;
use crate::tensor::{SliceRange, Tensor, shape};
use winograph_ir::{DType, Scalar};

pub(super) fn find(op: &str) -> Option<Lowering> {
    Some(match op {
        "Identity" => |n| Ok(vec![n.inputs.first().cloned().unwrap_or_default()]),
        "Shape" => shape_of,
        "Size" => |n| one(Tensor::scalar(n.x(0)?.numel() as i64)),
        "Reshape" => reshape,
        "Flatten" => flatten,
        "Squeeze" => squeeze,
        "Unsqueeze" => unsqueeze,
        "Transpose" => transpose,
        "Concat" => concat,
        "Split" => split,
        "Slice" => slice,
        "Expand" => expand,
        "Tile" => tile,
        "Pad" => pad,
        "DepthToSpace" => depth_to_space,
        "SpaceToDepth" => space_to_depth,
        "CenterCropPad" => center_crop_pad,
        "Trilu" => trilu,
        "ReverseSequence" => reverse_sequence,
        _ => return None,
    })
}

fn int_list(values: &[i64]) -> Result<Tensor> {
    Tensor::from_slice(values, &[values.len()])
}

fn shape_of(n: &Node<'_>) -> Result<Vec<Value>> {
    let shape: Vec<i64> = n.x(0)?.shape().iter().map(|&s| s as i64).collect();
    let rank = shape.len() as i64;
    let place = |at: i64| (if at < 0 { at + rank } else { at }).clamp(0, rank) as usize;
    let (start, end) = (place(n.int("start", 0)), place(n.int("end", rank)));
    one(int_list(shape.get(start..end).unwrap_or(&[]))?)
}

fn reshape(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let target = n.ints_or_input("shape", 1)?.ok_or_else(|| n.wrong("the new shape is missing"))?;
    let keep_zero = n.flag("allowzero");
    let mut sizes = Vec::with_capacity(target.len());
    for (i, &s) in target.iter().enumerate() {
        sizes.push(match s {
            0 if !keep_zero => {
                let size = x.shape().get(i).copied();
                size.ok_or_else(|| n.wrong(format!("size 0 on axis {i} keeps one that the input does not have")))?
                    as isize
            }
            s => s as isize,
        });
    }
    // With no elements the size that is left open has to be 0.
    if x.numel() == 0
        && let Some(open) = sizes.iter().position(|&s| s == -1)
    {
        sizes[open] = 0;
    }
    one(x.reshape(&sizes)?)
}

fn flatten(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let axis = n.int("axis", 1);
    let at = if axis == x.rank() as i64 { x.rank() } else { n.axis(axis, x.rank().max(1))? };
    let (front, back) = x.shape().split_at(at.min(x.rank()));
    one(x.reshape_to("flatten", &[shape::count(front), shape::count(back)])?)
}

fn squeeze(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let Some(list) = n.ints_or_input("axes", 1)? else { return one(x.squeeze(&[])?) };
    let axes = n.axes(&list, x.rank())?;
    if let Some(a) = axes.iter().find(|&&a| x.shape()[a] != 1) {
        return Err(n.wrong(format!("axis {a} of {:?} is not of size 1", x.shape())));
    }
    let kept: Vec<usize> = (0..x.rank()).filter(|i| !axes.contains(i)).map(|i| x.shape()[i]).collect();
    one(x.reshape_to("squeeze", &kept)?)
}

fn unsqueeze(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let list = n.ints_or_input("axes", 1)?.ok_or_else(|| n.wrong("the axes are missing"))?;
    let rank = x.rank().saturating_add(list.len());
    if rank > shape::MAX_RANK {
        return Err(n.wrong(format!("a result of {rank} axes: expected at most {}", shape::MAX_RANK)));
    }
    let axes = n.axes(&list, rank)?;
    let mut sizes = x.shape().iter();
    let shape: Vec<usize> =
        (0..rank).map(|i| if axes.contains(&i) { 1 } else { sizes.next().copied().unwrap_or(1) }).collect();
    one(x.reshape_to("unsqueeze", &shape)?)
}

fn transpose(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let order: Vec<isize> = match n.ints("perm") {
        Some(p) => p.iter().map(|&a| a as isize).collect(),
        None => (0..x.rank() as isize).rev().collect(),
    };
    one(x.permute(&order)?)
}

fn concat(n: &Node<'_>) -> Result<Vec<Value>> {
    one(Tensor::cat(&n.all()?, n.int("axis", 1) as isize)?)
}

/// Sizes of the parts that an axis of `size` is split into.
pub(super) fn split_sizes(n: &Node<'_>, given: Option<Vec<i64>>, size: usize, parts: usize) -> Result<Vec<usize>> {
    if let Some(list) = given {
        let sizes = n.as_sizes("split", &list)?;
        if sizes.iter().try_fold(0usize, |sum, &s| sum.checked_add(s)) != Some(size) {
            return Err(n.wrong(format!("the parts {sizes:?} do not make up {size} elements")));
        }
        return Ok(sizes);
    }
    if parts == 0 {
        return Err(n.wrong("a split into no parts"));
    }
    // The last part may be smaller.
    let each = size.div_ceil(parts);
    Ok((0..parts).map(|i| size.saturating_sub(i * each).min(each)).collect())
}

fn split(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let axis = n.axis(n.int("axis", 0), x.rank())?;
    let parts = usize::try_from(n.int("num_outputs", n.outputs() as i64)).unwrap_or(0);
    if parts > n.outputs() {
        return Err(n.wrong(format!("num_outputs is {parts}, and it names {} results", n.outputs())));
    }
    let sizes = split_sizes(n, n.ints_or_input("split", 1)?, x.shape()[axis], parts)?;
    let mut start = 0;
    let mut out = Vec::with_capacity(sizes.len());
    for size in sizes {
        out.push(Value::Tensor(x.narrow(axis as isize, start, size)?));
        start += size;
    }
    Ok(out)
}

fn slice(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let missing = |what: &str| n.wrong(format!("the {what} are missing"));
    let starts = n.ints_or_input("starts", 1)?.ok_or_else(|| missing("starts"))?;
    let ends = n.ints_or_input("ends", 2)?.ok_or_else(|| missing("ends"))?;
    let axes = n.ints_or_input("axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = n.host_ints(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if starts.len() != ends.len() || starts.len() != axes.len() || starts.len() != steps.len() {
        return Err(n.wrong("starts, ends, axes and steps are not equally many"));
    }
    let mut ranges = vec![SliceRange::from(..); x.rank()];
    for (((&start, &end), &axis), &step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
        let axis = n.axis(axis, x.rank())?;
        let size = x.shape()[axis] as i64;
        // Python's -1 counts from the end; what lies before the first element stops a backward walk at it.
        let stop = if step < 0 && end < -size { None } else { Some(end as isize) };
        ranges[axis] = SliceRange { start: Some(start as isize), stop, step: step as isize };
    }
    one(x.slice(&ranges)?)
}

fn expand(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let target = n.host_ints(1)?.ok_or_else(|| n.wrong("the shape is missing"))?;
    let target = n.as_sizes("the shape", &target)?;
    one(x.broadcast_to(&shape::broadcast("expand", &[x.shape(), &target])?)?)
}

fn tile(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let repeats = n.host_ints(1)?.ok_or_else(|| n.wrong("the repeats are missing"))?;
    let repeats = n.as_sizes("repeats", &repeats)?;
    if repeats.len() != x.rank() {
        return Err(n.wrong(format!("{} repeats for {} axes", repeats.len(), x.rank())));
    }
    one(repeat(x, &repeats)?)
}

/// Each axis repeated as a whole.
pub(super) fn repeat(x: &Tensor, repeats: &[usize]) -> Result<Tensor> {
    let name = "tile";
    let (mut split, mut wide, mut last) = (Vec::new(), Vec::new(), Vec::new());
    for (&s, &r) in x.shape().iter().zip(repeats) {
        split.extend([1, s]);
        wide.extend([r, s]);
        last.push(s.saturating_mul(r));
    }
    shape::check_size(name, x.dtype(), &last)?;
    x.reshape_to(name, &split)?.expand_as(name, &wide)?.reshape_to(name, &last)
}

fn pad(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let rank = x.rank();
    let given = match n.ints("paddings") {
        Some(p) => p,
        None => n.ints_or_input("pads", 1)?.ok_or_else(|| n.wrong("the pads are missing"))?,
    };
    let axes: Vec<usize> = match n.host_ints(3)? {
        Some(list) => list.iter().map(|&a| n.axis(a, rank)).collect::<Result<_>>()?,
        None => (0..rank).collect(),
    };
    if given.len() != 2 * axes.len() {
        return Err(n.wrong(format!("{} pads for {} axes", given.len(), axes.len())));
    }
    let mut amounts = vec![(0isize, 0isize); rank];
    for (i, &a) in axes.iter().enumerate() {
        amounts[a] = (given[i] as isize, given[i + axes.len()] as isize);
    }
    let mode = n.text("mode", "constant");
    if mode == "constant" {
        let value = match n.attr("value") {
            Some(v) => Some(Scalar::from_f64(x.dtype(), v.f as f64)),
            None if n.opt(2).is_some_and(|t| t.numel() > 0) => n.host(2)?.data.first().map(|s| s.cast(x.dtype())),
            None => None,
        };
        return one(pad_constant(x, &amounts, value.unwrap_or(Scalar::zero(x.dtype())))?);
    }
    let mut out = x.clone();
    for (axis, &(before, after)) in amounts.iter().enumerate() {
        out = pad_axis(n, &out, axis, before, after, &mode)?;
    }
    one(out)
}

/// A border of one value; negative amounts cut off.
pub(super) fn pad_constant(x: &Tensor, amounts: &[(isize, isize)], value: Scalar) -> Result<Tensor> {
    let cut: Vec<(isize, isize)> = amounts.iter().map(|&(b, a)| (b.min(0), a.min(0))).collect();
    let x = if cut.iter().any(|&c| c != (0, 0)) { x.pad(&cut, false_or_zero(x.dtype()))? } else { x.clone() };
    let add: Vec<(usize, usize)> = amounts.iter().map(|&(b, a)| (b.max(0) as usize, a.max(0) as usize)).collect();
    x.pad_to("pad", &add, value)
}

fn false_or_zero(dtype: DType) -> crate::Number {
    if dtype == DType::Bool { crate::Number::Bool(false) } else { crate::Number::Int(0) }
}

/// One axis continued by what is inside of it.
fn pad_axis(n: &Node<'_>, x: &Tensor, axis: usize, before: isize, after: isize, mode: &str) -> Result<Tensor> {
    if (before, after) == (0, 0) {
        return Ok(x.clone());
    }
    let size = x.shape()[axis] as i64;
    // What is cut off does not come back at the other end.
    let cut = size.checked_add(before.min(0) as i64).and_then(|s| s.checked_add(after.min(0) as i64));
    if let (Some(left @ 1..), "wrap") = (cut, mode)
        && left < size
    {
        let x = x.narrow(axis as isize, before.min(0).unsigned_abs(), left as usize)?;
        return pad_axis(n, &x, axis, before.max(0), after.max(0), mode);
    }
    let total = size.checked_add(before as i64).and_then(|t| t.checked_add(after as i64));
    let total = total.and_then(|t| usize::try_from(t).ok()).filter(|_| size > 0);
    let total = total.ok_or_else(|| n.wrong(format!("pads {before} and {after} for an axis of size {size}")))?;
    n.table(total)?;
    // Parts beside each other are read by their places, which tables are not.
    let (b, a) = (before.max(0), after.max(0));
    if let (Ok(first), Ok(last)) = (usize::try_from(before), usize::try_from(after))
        && matches!(mode, "edge" | "reflect")
        && (mode == "edge" || b.max(a) < size as isize)
    {
        // As many elements of the border: copies of the outermost, or those inside, from one place down to another.
        let part = |count: usize, outer: isize, [from, to]: [isize; 2]| -> Result<Option<Tensor>> {
            if count == 0 {
                return Ok(None);
            }
            if mode == "reflect" {
                let range = SliceRange { start: Some(from), stop: (to > 0).then_some(to - 1), step: -1 };
                return Ok(Some(x.slice_axis(axis as isize, range)?));
            }
            let mut shape = x.shape().to_vec();
            shape[axis] = count;
            Ok(Some(x.slice_axis(axis as isize, outer..outer + 1)?.expand_as("pad", &shape)?))
        };
        let size = size as isize;
        let ends = [part(first, 0, [b, 1])?, part(last, size - 1, [size - 2, size - 1 - a])?];
        let parts: Vec<&Tensor> = [ends[0].as_ref(), Some(x), ends[1].as_ref()].into_iter().flatten().collect();
        return Tensor::cat(&parts, axis as isize);
    }
    let place = |i: i64| {
        let at = i - before as i64;
        Ok(match mode {
            "edge" => at.clamp(0, size - 1),
            "wrap" => at.rem_euclid(size),
            "reflect" if size == 1 => 0,
            "reflect" => {
                let period = 2 * (size - 1);
                let at = at.rem_euclid(period);
                at.min(period - at)
            }
            _ => return Err(n.unsupported(format!("mode {mode:?}"))),
        })
    };
    let index = (0..total as i64).map(place).collect::<Result<Vec<i64>>>()?;
    x.index_select(axis as isize, &int_list(&index)?)
}

fn depth_to_space(n: &Node<'_>) -> Result<Vec<Value>> {
    let (x, block) = image_and_block(n)?;
    let [b, c, h, w] = x;
    let deep = block.checked_mul(block).filter(|d| c.is_multiple_of(*d));
    let rest = c / deep.ok_or_else(|| n.wrong(format!("{c} channels are no multiple of the square of {block}")))?;
    let x = n.x(0)?;
    let (split, order) = match n.text("mode", "DCR").as_str() {
        "CRD" => ([b, rest, block, block, h, w], [0, 1, 4, 2, 5, 3]),
        _ => ([b, block, block, rest, h, w], [0, 3, 4, 1, 5, 2]),
    };
    let y = x.reshape_to("depth_to_space", &split)?.permute_to("depth_to_space", &order)?;
    one(y.reshape_to("depth_to_space", &[b, rest, h * block, w * block])?)
}

fn space_to_depth(n: &Node<'_>) -> Result<Vec<Value>> {
    let (x, block) = image_and_block(n)?;
    let [b, c, h, w] = x;
    if !h.is_multiple_of(block) || !w.is_multiple_of(block) {
        return Err(n.wrong(format!("sizes {h} and {w} are no multiples of {block}")));
    }
    let (h, w) = (h / block, w / block);
    let y = n.x(0)?.reshape_to("space_to_depth", &[b, c, h, block, w, block])?;
    let y = y.permute_to("space_to_depth", &[0, 3, 5, 1, 2, 4])?;
    one(y.reshape_to("space_to_depth", &[b, c * block * block, h, w])?)
}

fn image_and_block(n: &Node<'_>) -> Result<([usize; 4], usize)> {
    let x = n.x(0)?;
    let sizes: [usize; 4] = x.shape().try_into().map_err(|_| n.wrong("expected an input of four axes"))?;
    let block = usize::try_from(n.int("blocksize", 0)).ok().filter(|&b| b > 0);
    Ok((sizes, block.ok_or_else(|| n.wrong("blocksize has to be positive"))?))
}

fn center_crop_pad(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let target = n.host_ints(1)?.ok_or_else(|| n.wrong("the shape is missing"))?;
    let target = n.as_sizes("the shape", &target)?;
    let axes: Vec<usize> = match n.ints("axes") {
        Some(list) => list.iter().map(|&a| n.axis(a, x.rank())).collect::<Result<_>>()?,
        None => (0..x.rank()).collect(),
    };
    if axes.len() != target.len() {
        return Err(n.wrong("axes and shape are not equally many"));
    }
    let mut amounts = vec![(0isize, 0isize); x.rank()];
    for (&a, &want) in axes.iter().zip(&target) {
        let have = x.shape()[a];
        amounts[a] = if want >= have {
            let more = (want - have) as isize;
            (more / 2, more - more / 2)
        } else {
            let less = (have - want) as isize;
            (-(less / 2), -(less - less / 2))
        };
    }
    one(pad_constant(x, &amounts, Scalar::zero(x.dtype()))?)
}

fn trilu(n: &Node<'_>) -> Result<Vec<Value>> {
    let k = n.host_ints(1)?.and_then(|k| k.first().copied()).unwrap_or(0);
    let x = n.x(0)?;
    one(if n.int("upper", 1) != 0 { x.triu(k)? } else { x.tril(k)? })
}

fn reverse_sequence(n: &Node<'_>) -> Result<Vec<Value>> {
    let name = "reverse_sequence";
    let (x, lengths) = (n.x(0)?, n.x(1)?);
    let (batch, time) = (n.axis(n.int("batch_axis", 1), x.rank())?, n.axis(n.int("time_axis", 0), x.rank())?);
    let mut shape = vec![1; x.rank()];
    shape[batch] = lengths.numel();
    let lengths = lengths.cast(DType::I64)?.reshape_to(name, &shape)?.expand_as(name, x.shape())?;
    let at = Tensor::iota(name, DType::I64, x.shape(), time)?;
    let index = at.lt(&lengths)?.where_(&lengths.sub(1)?.sub(&at)?, &at)?;
    one(x.gather(time as isize, &index)?)
}
