//! Lookups at places between elements that are computed, and grids of such places; columns back to pictures.

use super::super::node::{Lowering, Node, one};
use crate::error::Result;
use crate::model::Value;
use crate::tensor::{ConvOptions, Tensor, shape};
use winograph_ir::DType;

pub(super) fn find(op: &str) -> Option<Lowering> {
    Some(match op {
        "GridSample" => grid_sample,
        "AffineGrid" => affine_grid,
        "Col2Im" => col2im,
        _ => return None,
    })
}

/// What lies beyond the ends of an axis.
#[derive(Clone, Copy, PartialEq)]
enum Beyond {
    Zeros,
    Border,
    Reflection,
}

/// Coordinates reflected at `low` and `high` until they are between.
fn reflected(x: &Tensor, low: f64, high: f64) -> Result<Tensor> {
    let length = high - low;
    if length <= 0.0 {
        return x.full_like(low);
    }
    let there_and_back = x.sub(low)?.abs()?.fmod(2.0 * length)?;
    there_and_back.sub(length)?.abs()?.neg()?.add(length + low)
}

/// What a coordinate reads: places, all of which exist, and their weights; `None` for a weight of 1.
type Taps = Vec<(Tensor, Option<Tensor>)>;

/// The places and weights of one axis of `size`, for coordinates from -1 to 1.
fn taps(n: &Node<'_>, coordinate: &Tensor, size: usize, beyond: Beyond) -> Result<Taps> {
    let last = size as f64 - 1.0;
    let aligned = n.flag("align_corners");
    // -1 and 1 are the middles of the first and the last element, or their outer edges.
    let (low, high) = if aligned { (0.0, last) } else { (-0.5, last + 0.5) };
    let mut x = coordinate.add(1.0)?.mul((high - low) / 2.0)?.add(low)?;
    let mode = n.text("mode", "linear");
    if mode == "nearest" {
        x = x.round()?;
    }
    match beyond {
        Beyond::Zeros => {}
        Beyond::Border => x = x.clamp(Some(0.0), Some(last))?,
        Beyond::Reflection => x = reflected(&x, low, high)?,
    }
    // What is looked up for an element that does not exist.
    let place = |at: &Tensor, weight: Option<Tensor>| -> Result<(Tensor, Option<Tensor>)> {
        let (at, weight) = match beyond {
            Beyond::Zeros => {
                let inside = at.ge(0.0)?.logical_and(&at.le(last)?)?.cast(at.dtype())?;
                let weight = match weight {
                    Some(w) => w.mul(&inside)?,
                    None => inside,
                };
                (at.clone(), Some(weight))
            }
            Beyond::Border => (at.clone(), weight),
            Beyond::Reflection => (reflected(at, low, high)?, weight),
        };
        Ok((at.clamp(Some(0.0), Some(last))?.cast(DType::I64)?, weight))
    };
    if mode == "nearest" {
        return Ok(vec![place(&x, None)?]);
    }
    let floor = x.floor()?;
    let part = x.sub(&floor)?;
    if mode == "linear" || mode == "bilinear" {
        let weight = part.neg()?.add(1.0)?;
        return Ok(vec![place(&floor, Some(weight))?, place(&floor.add(1.0)?, Some(part))?]);
    }
    if mode != "cubic" && mode != "bicubic" {
        return Err(n.unsupported(format!("mode {mode:?}")));
    }
    // Keys' kernel: (a + 2) d³ - (a + 3) d² + 1 up to a distance of 1, a d³ - 5a d² + 8a d - 4a up to 2.
    let a = -0.75;
    let polynomial = |d: &Tensor, c: [f64; 4]| d.mul(c[0])?.add(c[1])?.mul(d)?.add(c[2])?.mul(d)?.add(c[3]);
    let near = |d: &Tensor| polynomial(d, [a + 2.0, -(a + 3.0), 0.0, 1.0]);
    let far = |d: &Tensor| polynomial(d, [a, -5.0 * a, 8.0 * a, -4.0 * a]);
    let rest = part.neg()?.add(1.0)?;
    Ok(vec![
        place(&floor.sub(1.0)?, Some(far(&part.add(1.0)?)?))?,
        place(&floor, Some(near(&part)?))?,
        place(&floor.add(1.0)?, Some(near(&rest)?))?,
        place(&floor.add(2.0)?, Some(far(&rest.add(1.0)?)?))?,
    ])
}

fn grid_sample(n: &Node<'_>) -> Result<Vec<Value>> {
    let name = "grid_sample";
    let (x, grid) = (n.x(0)?, n.x(1)?);
    let axes = x.rank().saturating_sub(2);
    let fits = axes > 0 && grid.rank() == x.rank() && grid.shape()[0] == x.shape()[0] && grid.shape()[axes + 1] == axes;
    if !fits {
        return Err(n.wrong(format!("an input {:?} and a grid {:?}", x.shape(), grid.shape())));
    }
    if x.numel() == 0 {
        return Err(n.unsupported("axes without elements"));
    }
    let beyond = match n.text("padding_mode", "zeros").as_str() {
        "zeros" => Beyond::Zeros,
        "border" => Beyond::Border,
        "reflection" => Beyond::Reflection,
        other => return Err(n.unsupported(format!("padding_mode {other:?}"))),
    };
    let (batch, channels, spatial) = (x.shape()[0], x.shape()[1], &x.shape()[2..]);
    let points = shape::count(&grid.shape()[1..=axes]);
    let work = x.dtype().compute();
    let grid = grid.cast(work)?.reshape_to(name, &[batch, 1, points, axes])?;
    // All combinations of the axes' places: a flat place and a product of weights. The grid's last coordinate is that of
    // the first axis.
    let mut all: Taps = vec![(Tensor::zeros(&[batch, 1, points], DType::I64)?, None)];
    for (axis, &size) in spatial.iter().enumerate() {
        let axis_taps = taps(n, &grid.select(3, (axes - 1 - axis) as isize)?, size, beyond)?;
        let mut next = Vec::with_capacity(all.len() * axis_taps.len());
        for (flat, weight) in &all {
            for (at, w) in &axis_taps {
                let weight = match (weight, w) {
                    (Some(a), Some(b)) => Some(a.mul(b)?),
                    (a, b) => a.clone().or(b.clone()),
                };
                next.push((flat.mul(size as i64)?.add(at)?, weight));
            }
        }
        all = next;
    }
    let table = x.reshape_to(name, &[batch, channels, shape::count(spatial)])?;
    let mut sum: Option<Tensor> = None;
    for (flat, weight) in all {
        let found = table.gather(2, &flat.expand_as(name, &[batch, channels, points])?)?.cast(work)?;
        let part = match weight {
            Some(w) => found.mul(&w)?,
            None => found,
        };
        sum = Some(match sum {
            Some(s) => s.add(&part)?,
            None => part,
        });
    }
    let mut out = x.shape()[..2].to_vec();
    out.extend(&n.x(1)?.shape()[1..=axes]);
    let sum = sum.ok_or_else(|| n.wrong("no taps"))?;
    one(sum.cast(x.dtype())?.reshape_to(name, &out)?)
}

/// `[batch, size.., axes]`: the places of a grid from -1 to 1, mapped by a matrix for each batch.
fn affine_grid(n: &Node<'_>) -> Result<Vec<Value>> {
    let name = "affine_grid";
    let theta = n.x(0)?;
    let size = n.host_ints(1)?.ok_or_else(|| n.wrong("the size is missing"))?;
    let size = n.as_sizes("the size", &size)?;
    let axes = size.len().saturating_sub(2);
    if !(2..=3).contains(&axes) || theta.shape() != [size[0], axes, axes + 1] {
        return Err(n.wrong(format!("matrices {:?} for a size {size:?}", theta.shape())));
    }
    let work = theta.dtype().compute();
    let spatial = &size[2..];
    shape::check_size(name, work, spatial)?;
    // [points, axes + 1]: x, y, z and 1.
    let points = shape::count(spatial);
    let mut columns = Vec::with_capacity(axes + 1);
    for (axis, &count) in spatial.iter().enumerate().rev() {
        let i = Tensor::iota(name, DType::I64, spatial, axis)?.cast(work)?;
        let last = count as f64 - 1.0;
        columns.push(match n.flag("align_corners") {
            true if count > 1 => i.mul(2.0 / last)?.sub(1.0)?,
            true => i,
            false => i.mul(2.0)?.sub(last)?.div(count as f64)?,
        });
    }
    columns.push(Tensor::ones(spatial, work)?);
    let columns = columns.iter().map(|c| c.reshape_to(name, &[points])).collect::<Result<Vec<_>>>()?;
    let places = Tensor::stack(&columns.iter().collect::<Vec<_>>(), 1)?;
    let grid = places.matmul(&theta.cast(work)?.transpose(1, 2)?)?;
    let mut out = vec![size[0]];
    out.extend(spatial);
    out.push(axes);
    one(grid.cast(theta.dtype())?.reshape_to(name, &out)?)
}

/// Columns of blocks added up where the blocks lie in a picture: a transposed convolution whose windows hold one 1 each.
fn col2im(n: &Node<'_>) -> Result<Vec<Value>> {
    let name = "col2im";
    let x = n.x(0)?;
    let picture = n.host_ints(1)?.ok_or_else(|| n.wrong("the picture's shape is missing"))?;
    let block = n.host_ints(2)?.ok_or_else(|| n.wrong("the block's shape is missing"))?;
    let (picture, block) = (n.as_sizes("the picture's shape", &picture)?, n.as_sizes("the block's shape", &block)?);
    let axes = block.len();
    let dilation = n.sizes("dilations")?.unwrap_or_else(|| vec![1; axes]);
    let stride = n.sizes("strides")?.unwrap_or_else(|| vec![1; axes]);
    let pads = n.sizes("pads")?.unwrap_or_else(|| vec![0; 2 * axes]);
    shape::check_size(name, x.dtype(), &block)?;
    shape::check_size(name, x.dtype(), &picture)?;
    let elements = shape::count(&block);
    let fits = x.rank() == 3
        && axes > 0
        && (picture.len(), dilation.len(), stride.len(), pads.len()) == (axes, axes, axes, 2 * axes)
        && elements > 0
        && stride.iter().chain(&dilation).all(|&s| s > 0)
        && x.shape()[1] % elements == 0;
    if !fits {
        return Err(n.wrong(format!("columns {:?} for blocks {block:?} of a picture {picture:?}", x.shape())));
    }
    // Blocks along each axis, and how far the last one is from the padded picture's end.
    let (mut counts, mut rest, mut padding) = (vec![], vec![], vec![]);
    for a in 0..axes {
        let padded = picture[a].saturating_add(pads[a]).saturating_add(pads[a + axes]);
        let span = (block[a] - 1).saturating_mul(dilation[a]).saturating_add(1);
        let room = padded.checked_sub(span);
        let room = room.ok_or_else(|| n.wrong(format!("blocks {block:?} do not fit a picture {picture:?}")))?;
        counts.push(room / stride[a] + 1);
        rest.push(room % stride[a]);
        padding.push((pads[a], pads[a + axes]));
    }
    let blocks = counts.iter().fold(1usize, |p, &c| p.saturating_mul(c));
    if blocks != x.shape()[2] {
        return Err(n.wrong(format!("{} columns, expected {blocks}", x.shape()[2])));
    }
    let channels = x.shape()[1] / elements;
    let mut shape_of = vec![x.shape()[0], x.shape()[1]];
    shape_of.extend(&counts);
    let mut window = vec![x.shape()[1], 1];
    window.extend(&block);
    let weight = Tensor::eye(elements, elements, x.dtype())?;
    let weight = weight.unsqueeze(0)?.expand_as(name, &[channels, elements, elements])?.reshape_to(name, &window)?;
    let options = ConvOptions { stride, padding, dilation, groups: channels, ..ConvOptions::default() };
    one(x.reshape_to(name, &shape_of)?.conv_transpose(&weight, None, &options, &rest)?)
}
