//! Large pictures in overlapping tiles.
//!
//! A tile is a part of the picture, and the model runs on it as on a picture. What the edges of the tile have spoiled is
//! known from what each row of the result depends on, and is taken from the neighbouring tiles instead.

use crate::error::Result;
use crate::model::field::{Field, Span};
use crate::model::session::checked;
use crate::model::{Model, ModelError, Session, Value};
use crate::tensor::storage::Storage;
use crate::tensor::{Tensor, shape};
use std::sync::Arc;

/// Longest pattern of rows of a result after which it repeats.
const MAX_PERIOD: usize = 64;

/// The axes of a picture's rows and columns, of an input and of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureAxes {
    /// Axis of the rows.
    pub height: usize,
    /// Axis of the columns.
    pub width: usize,
}

/// One axis of a model on a tile.
#[derive(Clone, Debug, PartialEq)]
struct Axis {
    /// Elements of the result that no edge of the tile has spoiled.
    clean: (usize, usize),
    /// Elements of the result, and of the input, after which the pattern repeats.
    period: (usize, usize),
    /// Elements of the input that one of the result depends on.
    field: usize,
}

/// A tile along an axis: where its part of the picture starts and how long it is, which part of its result counts, and
/// where in the result of all that goes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Piece {
    start: usize,
    length: usize,
    from: usize,
    count: usize,
    to: usize,
}

fn wrong(cause: String) -> crate::Error {
    ModelError::format("tiles", cause).into()
}

/// The result of a model for an input of this shape, with nothing computed.
fn traced(model: &Model, input: &Tensor, name: &str) -> Result<Tensor> {
    let values = model.trace(&[(name.to_string(), Value::Tensor(input.clone()))])?;
    match &values[..] {
        [Value::Tensor(t)] => Ok(t.clone()),
        _ => Err(one_output()),
    }
}

fn one_output() -> crate::Error {
    wrong("they are for models with one output, a tensor".into())
}

/// Whether a result has the axes of a picture.
fn picture_of(result: &Tensor, axes: PictureAxes) -> Result<()> {
    match axes.height.max(axes.width) < result.rank() && axes.height != axes.width {
        true => Ok(()),
        false => Err(wrong(format!("a result of shape {:?}", result.shape()))),
    }
}

impl Axis {
    /// What the rows of `output` depend on, of the rows of `input`: `from` and `to` are the axes.
    fn of(field: &Field, input: &Tensor, output: &Tensor, from: usize, to: usize) -> Result<Axis> {
        let rows = output.shape()[to];
        let size = input.shape()[from] as i64;
        let mut spans: Vec<Span> = Vec::with_capacity(rows);
        for row in 0..rows as i64 {
            let mut wanted: Vec<Span> = output.shape().iter().map(|&s| (0, s as i64)).collect();
            wanted[to] = (row, row + 1);
            let found = field.needs(&wanted, input)?.and_then(|b| b.get(from).copied());
            spans.push(found.ok_or_else(|| wrong(format!("row {row} of the result does not depend on the input")))?);
        }
        let repeats = |p: &usize| {
            let by = spans[*p].0 - spans[0].0;
            let same = |(a, b): (&Span, &Span)| b.0 - a.0 == by && b.1 - a.1 == by;
            (by > 0 && spans.iter().zip(&spans[*p..]).all(same)).then_some((*p, by as usize))
        };
        let period = (1..=MAX_PERIOD.min(rows.saturating_sub(1))).find_map(|p| repeats(&p));
        let Some(period) = period.filter(|p| 2 * p.0 <= rows) else {
            let cause = "what a row of the result depends on does not move with it along the picture: the model looks at \
                         the picture as a whole, or the tile is too small";
            return Err(wrong(cause.into()));
        };
        let clean = |s: &Span| s.0 >= 0 && s.1 <= size;
        let start = spans.iter().position(clean);
        let end = spans.iter().rposition(clean).map(|e| e + 1);
        let widest = spans.iter().map(|s| s.1 - s.0).max().unwrap_or(0) as usize;
        match (start, end) {
            (Some(a), Some(b)) if spans[a..b].iter().all(clean) && b - a >= period.0 => {
                Ok(Axis { clean: (a, b), period, field: widest })
            }
            _ => {
                let cause = format!(
                    "a tile of {size}, where what a row of the result depends on is {widest} long: take tiles of at least {}",
                    2 * widest
                );
                Err(wrong(cause))
            }
        }
    }

    /// Tiles of at most `tile` elements along a picture's axis of `size`, whose result has `rows`.
    fn pieces(
        &self,
        size: usize,
        tile: usize,
        rows: usize,
        rows_of: impl Fn(usize) -> Result<usize>,
    ) -> Result<Vec<Piece>> {
        if size <= tile {
            return Ok(vec![Piece { start: 0, length: size, from: 0, count: rows, to: 0 }]);
        }
        let (per, by) = self.period;
        // Where tiles may start: whole periods.
        let step = (self.clean.1 - self.clean.0) / per * by;
        let last = (size - tile).next_multiple_of(by);
        if last >= size {
            return Err(wrong(format!(
                "tiles of {tile}, less than the {by} after which results repeat: take larger ones"
            )));
        }
        let mut starts: Vec<usize> = (0..last).step_by(step).collect();
        starts.push(last);
        let mut pieces: Vec<Piece> = Vec::with_capacity(starts.len());
        let mut done = 0;
        for (i, &start) in starts.iter().enumerate() {
            let length = tile.min(size - start);
            let offset = start / by * per;
            let end = match i + 1 == starts.len() {
                true => offset + rows_of(length)?,
                false => offset + self.clean.1,
            };
            let first = if i == 0 { 0 } else { offset + self.clean.0 };
            if first > done || end < done {
                return Err(wrong(format!("tiles of {tile} leave a gap: take larger ones")));
            }
            pieces.push(Piece { start, length, from: done - offset, count: end - done, to: done });
            done = end;
        }
        match done == rows {
            true => Ok(pieces),
            false => Err(wrong(format!("tiles of {tile} give {done} rows of a result that has {rows}"))),
        }
    }
}

/// Copies a block of rows and columns between arrays; other axes are copied whole.
fn copy(
    from: (&[u8], &[usize], [usize; 2], PictureAxes),
    to: (&mut [u8], &[usize], [usize; 2], PictureAxes),
    count: [usize; 2],
    size: usize,
) {
    let (source, source_shape, source_at, source_axes) = from;
    let (target, target_shape, target_at, target_axes) = to;
    let stride = |shape: &[usize], axis: usize| shape[axis + 1..].iter().product::<usize>();
    // Lists of places of the axes that are neither rows nor columns, in the same order on both sides.
    let others = |shape: &[usize], axes: PictureAxes| {
        let mut places = vec![0usize];
        for a in (0..shape.len()).filter(|a| *a != axes.height && *a != axes.width) {
            let s = stride(shape, a);
            places = places.iter().flat_map(|p| (0..shape[a]).map(move |i| p + i * s)).collect();
        }
        places
    };
    let lists = others(source_shape, source_axes).into_iter().zip(others(target_shape, target_axes));
    for (a, b) in lists {
        for i in 0..count[0] {
            for j in 0..count[1] {
                let place = |base: usize, shape: &[usize], at: [usize; 2], axes: PictureAxes| {
                    let row = (at[0] + i) * stride(shape, axes.height);
                    (base + row + (at[1] + j) * stride(shape, axes.width)) * size
                };
                let f = place(a, source_shape, source_at, source_axes);
                let t = place(b, target_shape, target_at, target_axes);
                let (Some(f), Some(t)) = (source.get(f..f + size), target.get_mut(t..t + size)) else { continue };
                t.copy_from_slice(f);
            }
        }
    }
}

impl Session {
    /// Runs a model with one input and one output, both pictures, in overlapping tiles of at most `tile` rows and
    /// columns, so that the memory of its intermediate results does not grow with the picture. The result is that of
    /// [`run`](Session::run): how far tiles overlap follows from what the model's results depend on. Between tiles
    /// rounding may differ, since tiles of Winograd lie elsewhere.
    ///
    /// The model has to treat all places of a picture alike. `progress` is told how many tiles are done, of how many.
    ///
    /// # Errors
    /// A model that looks at the picture as a whole; a tile too small for what a place of the result depends on; those
    /// of [`run`](Session::run).
    pub fn run_tiled(
        &self,
        input: (&str, &Tensor, PictureAxes),
        output: PictureAxes,
        tile: usize,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(String, Tensor)> {
        let (name, x, axes) = input;
        let inputs = self.model().inputs();
        let [port] = &inputs[..] else {
            return Err(wrong(format!("they are for models with one input, this one has {}", inputs.len())));
        };
        if tile == 0 {
            return Err(wrong("tiles of 0 rows and columns".into()));
        }
        if port.name != name || axes.height.max(axes.width) >= x.rank() || axes.height == axes.width {
            return Err(wrong(format!(
                "input {name:?} with rows along axis {} and columns along {}",
                axes.height, axes.width
            )));
        }
        let (height, width) = (x.shape()[axes.height], x.shape()[axes.width]);
        let (h, w) = (tile.min(height), tile.min(width));
        let mut shape = x.shape().to_vec();
        (shape[axes.height], shape[axes.width]) = (h, w);
        // A model that takes pictures of one size alone is not there any more to be asked about others.
        checked(&inputs, &[(name.to_string(), Value::Tensor(Tensor::argument(x.dtype(), shape)?))])?;
        if (h, w) == (height, width) {
            return self.whole(input, output, progress);
        }
        let of_size = |height: usize, width: usize| -> Result<(Tensor, Tensor)> {
            let mut shape = x.shape().to_vec();
            (shape[axes.height], shape[axes.width]) = (height, width);
            let input = Tensor::argument(x.dtype(), shape)?;
            let result = traced(self.model(), &input, name)?;
            picture_of(&result, output)?;
            Ok((input, result))
        };
        let (tile_input, tile_result) = of_size(h, w)?;
        let field = Field::new(&tile_result);
        let (_, result) = of_size(height, width)?;
        let rows_of = |rows: usize| Ok(of_size(rows, w)?.1.shape()[output.height]);
        let columns_of = |columns: usize| Ok(of_size(h, columns)?.1.shape()[output.width]);
        let full = result.shape();
        // An axis that fits into a tile needs no analysis.
        let along = |size: usize, tile: usize, from: usize, to: usize| -> Result<Axis> {
            match size <= tile {
                true => Ok(Axis { clean: (0, full[to]), period: (1, 1), field: size }),
                false => Axis::of(&field, &tile_input, &tile_result, from, to),
            }
        };
        let rows = along(height, h, axes.height, output.height)?.pieces(height, h, full[output.height], rows_of)?;
        let columns = along(width, w, axes.width, output.width)?.pieces(width, w, full[output.width], columns_of)?;

        x.realize()?;
        let data = x.data("tiles")?;
        let picture = data.bytes("tiles")?;
        let size = result.dtype().size();
        let mut out = Storage::zeroed(shape::check_size("tiles", result.dtype(), full)? * size)?;
        let mut label = String::new();
        let total = rows.len() * columns.len();
        for (n, (row, column)) in rows.iter().flat_map(|r| columns.iter().map(move |c| (r, c))).enumerate() {
            progress(n, total);
            let mut shape = x.shape().to_vec();
            (shape[axes.height], shape[axes.width]) = (row.length, column.length);
            let mut part = Storage::zeroed(shape.iter().product::<usize>() * x.dtype().size())?;
            copy(
                (picture, x.shape(), [row.start, column.start], axes),
                (part.bytes_mut(), &shape, [0, 0], axes),
                [row.length, column.length],
                x.dtype().size(),
            );
            let part = Tensor::ready(Arc::new(part), x.dtype(), shape);
            let mut results = self.run(&[(name, &part)])?;
            let Some((found, y)) = results.pop() else { return Err(wrong("a result is missing".into())) };
            label = found;
            copy(
                (y.data("tiles")?.bytes("tiles")?, y.shape(), [row.from, column.from], output),
                (out.bytes_mut(), full, [row.to, column.to], output),
                [row.count, column.count],
                size,
            );
        }
        progress(total, total);
        Ok((label, Tensor::ready(Arc::new(out), result.dtype(), full.to_vec())))
    }

    /// Runs a model on a picture that is no larger than a tile.
    fn whole(
        &self,
        (name, x, _): (&str, &Tensor, PictureAxes),
        output: PictureAxes,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(String, Tensor)> {
        progress(0, 1);
        let results = self.run(&[(name, x)])?;
        let Ok([(name, result)]) = <[_; 1]>::try_from(results) else { return Err(one_output()) };
        picture_of(&result, output)?;
        progress(1, 1);
        Ok((name, result))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_a_result_once() {
        // Twice as large, four rows of the input on either side.
        let axis = Axis { clean: (8, 56), period: (2, 1), field: 9 };
        for size in [20, 32, 33, 47, 56, 57, 100, 1000] {
            let pieces = axis.pieces(size, 32, 2 * size, |n| Ok(2 * n)).unwrap();
            let mut at = 0;
            for p in &pieces {
                assert_eq!(p.to, at);
                assert!(p.start + p.length <= size && p.from + p.count <= 2 * p.length, "{p:?}");
                assert_eq!(2 * p.start + p.from, p.to);
                let inside = |row: usize, at: usize| row >= at || p.start == 0;
                assert!(inside(p.from, 8) && (p.from + p.count <= 56 || p.start + p.length == size), "{p:?}");
                at += p.count;
            }
            assert_eq!(at, 2 * size);
        }
        // Every third row, in steps of three.
        let axis = Axis { clean: (1, 10), period: (1, 3), field: 5 };
        let pieces = axis.pieces(100, 33, 34, |n| Ok(n.div_ceil(3))).unwrap();
        assert!(pieces.iter().all(|p| p.start % 3 == 0));
        assert_eq!(pieces.iter().map(|p| p.count).sum::<usize>(), 34);
    }
}
