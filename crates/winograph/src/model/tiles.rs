//! Large pictures in overlapping tiles.
//!
//! A tile is a part of the picture, and the model runs on it as on a picture. What the edges of the tile have spoiled is
//! known from what each row of the result depends on, and is taken from the neighbouring tiles instead.
//!
//! Rows inside follow each other: what they depend on moves with them, and they reach the same borders of the operations between
//! (none, or those within each period). Rows at the picture's border are those of a tile at that border. How the model computes
//! the picture as a whole is known without a run: each row that is taken from a tile has to depend on the same elements there, and to be
//! computed by the same operations with the same numbers. Of a model or file that states its size a whole picture is as long but
//! for periods of rows; where rows at its border do not follow those inside, as where a model continues a picture by what is
//! within it, they are compared with those of a picture that is longer by a period.

use crate::error::Result;
use crate::function::ArgSpec;
use crate::model::field::{Field, Known, Needs, Span};
use crate::model::session::checked;
use crate::model::{Model, ModelError, Port, PortType, Session, Value};
use crate::tensor::storage::Storage;
use crate::tensor::{Tensor, shape};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use winograph_ir::DType;

/// Longest pattern of rows of a result after which it repeats.
const MAX_PERIOD: usize = 64;

/// The axes of a picture's rows and columns, of an input and of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureAxes {
    /// Axis of the rows.
    pub height: usize,
    /// Axis of the columns.
    pub width: usize,
}

/// One axis of a model on a tile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Axis {
    /// Elements of the result that no edge of the tile has spoiled.
    clean: (usize, usize),
    /// Elements of the result, and of the input, after which the pattern repeats.
    period: (usize, usize),
}

/// What is known of a model of one size, which can no more be asked when it has been compiled: how the results of tiles of
/// that size make up that of a picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tiling {
    input: PictureAxes,
    output: PictureAxes,
    rows: Axis,
    columns: Axis,
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
fn picture_of(result: &[usize], axes: PictureAxes) -> Result<()> {
    match axes.height.max(axes.width) < result.len() && axes.height != axes.width {
        true => Ok(()),
        false => Err(wrong(format!("a result of shape {result:?}"))),
    }
}

/// What a model states of an axis of its input.
fn stated(port: &Port, axis: usize) -> Option<usize> {
    match &port.of {
        PortType::Tensor { shape: Some(shape), .. } => shape.get(axis).copied().flatten(),
        _ => None,
    }
}

/// How long tiles of a picture are along its rows and columns, of which at most `tile` are wanted: as the model states it.
fn sides(port: &Port, axes: PictureAxes, picture: [usize; 2], tile: usize) -> Result<[usize; 2]> {
    let fixed = [axes.height, axes.width].map(|axis| stated(port, axis));
    if let Some(most) = fixed.into_iter().flatten().max().filter(|&most| most > tile) {
        return Err(wrong(format!(
            "of at most {tile}, and the model takes pictures of one size alone: ask for {most}"
        )));
    }
    let smaller = |(size, fixed): (usize, Option<usize>)| fixed.is_some_and(|f| f > size);
    if picture.into_iter().zip(fixed).any(smaller) {
        let [height, width] = picture;
        let of = |fixed: Option<usize>| fixed.map_or("any".to_string(), |f| f.to_string());
        return Err(wrong(format!(
            "a picture of {height} rows and {width} columns, where the model takes {} and {}: make the picture larger, or run \
             it without tiles",
            of(fixed[0]),
            of(fixed[1])
        )));
    }
    let [height, width] = picture.map(|size| tile.min(size));
    Ok([fixed[0].unwrap_or(height), fixed[1].unwrap_or(width)])
}

/// A model's result for a part of a picture, with nothing computed.
struct Part {
    input: Tensor,
    output: Tensor,
    field: Field,
}

/// What a row of a result depends on.
struct Row {
    /// Rows of the input.
    span: Span,
    needs: Needs,
}

/// Gives the part for another size along an axis.
type Trace<'a> = dyn Fn(usize) -> Result<Part> + 'a;

impl Part {
    fn new(model: &Model, input: Tensor, name: &str) -> Result<Part> {
        let output = traced(model, &input, name)?;
        let field = Field::new(&output);
        Ok(Part { input, output, field })
    }

    /// The same of another size along an axis.
    fn of_size(&self, model: &Model, name: &str, axis: usize, size: usize) -> Result<Part> {
        let mut shape = self.input.shape().to_vec();
        shape[axis] = size;
        Part::new(model, Tensor::argument(self.input.dtype(), shape)?, name)
    }

    /// Of each row along an axis of the result what it depends on along one of the input.
    fn rows(&self, from: usize, to: usize) -> Result<Vec<Row>> {
        let Some(&rows) = self.output.shape().get(to) else { return Ok(vec![]) };
        let row = |row: i64| {
            let mut wanted: Vec<Span> = self.output.shape().iter().map(|&s| (0, s as i64)).collect();
            wanted[to] = (row, row + 1);
            let needs = self.field.needs(&wanted, &self.input)?;
            let found = needs.input.as_ref().and_then(|b| b.get(from).copied());
            let span = found.ok_or_else(|| wrong(format!("row {row} of the result does not depend on the input")))?;
            Ok(Row { span, needs })
        };
        (0..rows as i64).map(row).collect()
    }

    /// Whether a row depends on the same as one of another part, along which this one begins so many elements after the other: along
    /// the axis `from` of the input, and along all others at the same places.
    fn same(&self, row: &Row, other: (&Part, &Row), from: usize, shift: usize, known: &mut Known) -> Result<bool> {
        let (part, there) = other;
        let (Some(a), Some(b)) = (&row.needs.input, &there.needs.input) else { return Ok(false) };
        let moved = |(axis, (a, b)): (usize, (&Span, &Span))| {
            let by = if axis == from { shift as i64 } else { 0 };
            (a.0 + by, a.1 + by) == *b
        };
        let same =
            a.len() == b.len() && a.iter().zip(b).enumerate().all(moved) && row.needs.borders == there.needs.borders;
        Ok(same && self.field.same_constants_in(&row.needs, &part.field, &there.needs, known)?)
    }

    /// Whether results are as long along all axes but one.
    fn same_but(&self, other: &Part, axis: usize) -> bool {
        let (a, b) = (self.output.shape(), other.output.shape());
        a.len() == b.len() && (0..a.len()).all(|i| i == axis || a[i] == b[i])
    }
}

/// A picture's axis that is cut into tiles.
struct Along<'a> {
    model: &'a Model,
    name: &'a str,
    /// The picture, as long along the other axis as all that is looked at.
    shape: Vec<usize>,
    dtype: DType,
    /// The axes of the input and of the result.
    from: usize,
    to: usize,
    output: PictureAxes,
}

/// How many sizes of tiles are tried before one that no row of the picture agrees with is an error.
const TRIES: u32 = 6;

impl Along<'_> {
    fn part(&self, size: usize) -> Result<Part> {
        let mut shape = self.shape.clone();
        shape[self.from] = size;
        let part = Part::new(self.model, Tensor::argument(self.dtype, shape)?, self.name)?;
        picture_of(part.output.shape(), self.output).map(|()| part)
    }

    /// The length of tiles, at most `tile`, and the tiles of a picture whose size the model takes. Where a model's padding or its
    /// factors depend on the size, tiles are such that they come out as those of the picture: as long as it but for a multiple of
    /// a power of two, if not as they were asked for.
    fn open(&self, size: usize, tile: usize) -> Result<(usize, Vec<Piece>)> {
        let full = self.part(size)?;
        let rows = full.rows(self.from, self.to)?;
        let congruent = (1..TRIES).map(|n| 1usize << n).filter_map(|by| tile.checked_sub((tile + by - size % by) % by));
        let mut tried: Vec<usize> = Vec::new();
        let mut first = None;
        for tile in [tile].into_iter().chain(congruent).filter(|&t| t > 0) {
            if tried.contains(&tile) {
                continue;
            }
            tried.push(tile);
            match self.tiles(tile, size, &full, &rows) {
                Ok(pieces) => return Ok((tile, pieces)),
                Err(e) => first = first.or(Some(e)),
            }
        }
        Err(first.unwrap_or_else(|| wrong("tiles of no rows".into())))
    }

    /// The tiles of this length, if each row of them depends on what that of the whole picture does.
    fn tiles(&self, tile: usize, size: usize, full: &Part, rows: &[Row]) -> Result<Vec<Piece>> {
        let part = self.part(tile)?;
        let all = part.rows(self.from, self.to)?;
        let (axis, _) = Axis::inside(&part, &all, self.from, self.to)?;
        // The last tile is shorter where tiles may not start anywhere.
        let last = axis.last(size, tile);
        let end = match last == tile {
            true => None,
            false => {
                let part = self.part(last)?;
                let all = part.rows(self.from, self.to)?;
                Some((part, all))
            }
        };
        let of = |length: usize| match &end {
            Some((part, all)) if length != tile => (part, &all[..]),
            _ => (&part, &all[..]),
        };
        let pieces = axis.pieces(size, tile, rows.len(), |length| Ok(of(length).1.len()))?;
        let (mut known, mut known_of_last) = (Known::default(), Known::default());
        for p in &pieces {
            let (part, all) = of(p.length);
            let known = if p.length == tile { &mut known } else { &mut known_of_last };
            if !part.same_but(full, self.to) || !part.field.same_operations(&full.field) {
                return Err(wrong(format!(
                    "what the model computes for a tile of {} is not what it computes for a picture of {size}",
                    p.length
                )));
            }
            for n in 0..p.count {
                let (Some(row), Some(there)) = (all.get(p.from + n), rows.get(p.to + n)) else {
                    return Err(wrong(format!("tiles of {tile} leave a gap: take larger ones")));
                };
                if !part.same(row, (full, there), self.from, p.start, known)? {
                    return Err(wrong(format!(
                        "row {} of the result does not depend on a tile of {} as it does on a picture of {size}: padding, factors or \
                         what continues the picture depend on its size",
                        p.to + n,
                        p.length
                    )));
                }
            }
        }
        Ok(pieces)
    }
}

impl Tiling {
    /// What is known of tiles of one size, of a model that has one input and one output, both of which may be pictures: for
    /// each place that rows and columns can have among the axes where it is known how results depend on the picture.
    pub(crate) fn all(model: &Model, input: &ArgSpec, name: &str) -> Vec<Tiling> {
        let axes = |first: usize| PictureAxes { height: first, width: first + 1 };
        let Some(lead) = input.shape.len().checked_sub(3) else { return vec![] };
        let argument = Tensor::argument(input.dtype, input.shape.clone());
        let Ok(part) = argument.and_then(|x| Part::new(model, x, name)) else { return vec![] };
        if part.output.rank() != part.input.rank() {
            return vec![];
        }
        let along = |axis: usize| Axis::of(&part, axis, axis, &|size| part.of_size(model, name, axis, size)).ok();
        let of = |at: PictureAxes| {
            Some(Tiling { input: at, output: at, rows: along(at.height)?, columns: along(at.width)? })
        };
        [axes(lead), axes(lead + 1)].into_iter().filter_map(of).collect()
    }

    /// Whether these are the axes of the picture, and of the result.
    pub(crate) fn is_of(&self, input: PictureAxes, output: PictureAxes) -> bool {
        (self.input, self.output) == (input, output)
    }

    /// Whether it can be what is known of a model that takes and gives such arrays.
    pub(crate) fn is_sound(&self, input: &[usize], output: &[usize]) -> bool {
        let sound = |axis: &Axis, from: usize, to: usize| match (input.get(from), output.get(to)) {
            (Some(&size), Some(&rows)) => axis.is_sound(size, rows),
            _ => false,
        };
        let apart = self.input.height != self.input.width && self.output.height != self.output.width;
        apart
            && sound(&self.rows, self.input.height, self.output.height)
            && sound(&self.columns, self.input.width, self.output.width)
    }
}

impl Axis {
    /// What the rows of `output` depend on, of the rows of `input`, where nothing but parts of this size can be looked at, or is to be: `from`
    /// and `to` are the axes, and `traced` gives the part for another size along them.
    fn of(part: &Part, from: usize, to: usize, traced: &Trace) -> Result<Axis> {
        let all = part.rows(from, to)?;
        let (axis, whole) = Axis::inside(part, &all, from, to)?;
        if !whole {
            // What is beyond the picture follows from what is inside: it has to be the same whatever the picture's size.
            axis.same_borders(part, &all, [from, to], traced)?;
        }
        Ok(axis)
    }

    /// Which rows follow each other, and whether all of them do. What is told is of parts of this size.
    fn inside(part: &Part, all: &[Row], from: usize, to: usize) -> Result<(Axis, bool)> {
        let (rows, size) = (part.output.shape()[to], part.input.shape()[from]);
        let spans: Vec<Span> = all.iter().map(|row| row.span).collect();
        let repeats = |p: &usize| {
            let by = spans[*p].0 - spans[0].0;
            let same = |(a, b): (&Span, &Span)| b.0 - a.0 == by && b.1 - a.1 == by;
            (by > 0 && spans.iter().zip(&spans[*p..]).all(same)).then_some((*p, by as usize))
        };
        let periods = || 1..=MAX_PERIOD.min(rows / 2);
        // Where all rows follow each other what lies beyond the picture does, too: it is not looked at.
        let whole = periods().find_map(|p| repeats(&p)).map(|period| (period, 0..rows));
        let inner = || {
            let found = periods().filter_map(|p| Some((p, Axis::inner(&spans, p)?)));
            let longest = found.min_by_key(|(p, (_, inner))| (rows - inner.len(), *p));
            longest.map(|(p, (by, inner))| ((p, by), inner))
        };
        let found = whole.clone().or_else(inner).filter(|(period, inner)| 2 * period.0 <= inner.len());
        let Some((period, inner)) = found else {
            let cause = "what a row of the result depends on does not move with it along the picture: the model looks at \
                         the picture as a whole, or the tile is too small";
            return Err(wrong(cause.into()));
        };
        // Rows that reach the same borders as those in the middle: of each phase a row.
        let middle = (inner.start + inner.end) / 2;
        let like = |r: usize| {
            let r0 = middle + (r + period.0 * rows - middle) % period.0;
            all.get(r0.min(inner.end - 1)).is_some_and(|m| m.needs.borders == all[r].needs.borders)
        };
        let clean = |r: &usize| spans[*r].0 >= 0 && spans[*r].1 <= size as i64 && like(*r);
        let start = inner.clone().find(clean);
        let end = inner.clone().rfind(clean).map(|e| e + 1);
        let (a, b) = match (start, end) {
            // Two periods: sums of all rows before one leave a single clean row in a tile of any size.
            (Some(a), Some(b)) if (a..b).all(|r| clean(&r)) && b - a >= 2 * period.0 => (a, b),
            _ => {
                let widest = spans.iter().map(|s| s.1 - s.0).max().unwrap_or(0);
                let least = Axis::least(&spans[inner], period);
                let cause = match least <= size as i64 {
                    true => {
                        "rows of the result that no edge has spoiled do not follow each other, or are too few, which larger \
                             tiles may change"
                            .to_string()
                    }
                    false => format!(
                        "a tile of {size}, where what a row of the result depends on is {widest} long: take tiles of at least \
                         {least}, unless that grows with the tile"
                    ),
                };
                return Err(wrong(cause));
            }
        };
        for (one, other) in all[a..b].iter().zip(&all[a + period.0..b]) {
            // A number that is another one at another place would be that of the tile.
            if !part.field.same_constants(&one.needs, &other.needs)? {
                let cause = "rows of the result are computed with numbers that differ from place to place";
                return Err(wrong(cause.into()));
            }
        }
        Ok((Axis { clean: (a, b), period }, whole.is_some()))
    }

    /// The rows around the middle one that follow each other with a period, and the elements of the input after which they do.
    fn inner(spans: &[Span], period: usize) -> Option<(usize, Range<usize>)> {
        let middle = spans.len() / 2;
        let middle = middle.min(spans.len().checked_sub(period + 1)?);
        let by = spans[middle + period].0 - spans[middle].0;
        let same = |r: usize| {
            let (a, b) = (spans[r], spans[r + period]);
            b.0 - a.0 == by && b.1 - a.1 == by
        };
        if by <= 0 || !same(middle) {
            return None;
        }
        let start = (0..middle).rfind(|&r| !same(r)).map_or(0, |r| r + 1);
        let end = (middle..spans.len() - period).find(|&r| !same(r)).unwrap_or(spans.len() - period);
        Some((by as usize, start..end + period))
    }

    /// That rows near the picture's borders depend on the same elements, counted from the border, and are computed with the same
    /// numbers, in a picture that is longer by a period.
    fn same_borders(&self, part: &Part, all: &[Row], [from, to]: [usize; 2], traced: &Trace) -> Result<()> {
        let (per, by) = self.period;
        let size = part.input.shape()[from];
        let longer = traced(size + by)?;
        let rows = longer.rows(from, to)?;
        let mut known = Known::default();
        let mut same = |r: usize, there: usize, shift: usize| -> Result<bool> {
            let (Some(one), Some(other)) = (all.get(r), rows.get(there)) else { return Ok(false) };
            part.same(one, (&longer, other), from, shift, &mut known)
        };
        let mut sound =
            rows.len() == all.len() + per && part.same_but(&longer, to) && part.field.same_operations(&longer.field);
        for r in 0..self.clean.1 {
            sound = sound && same(r, r, 0)?;
        }
        for r in self.clean.0..all.len() {
            sound = sound && same(r, r + per, by)?;
        }
        match sound {
            true => Ok(()),
            false => Err(wrong(
                "what rows of the result at the picture's border depend on changes with the size of the picture".into(),
            )),
        }
    }

    /// The smallest tile of which two periods of rows are not spoiled.
    fn least(spans: &[Span], (per, by): (usize, usize)) -> i64 {
        let by = by as i64;
        let of = |rows: &[Span]| {
            let (from, to) = rows.iter().fold((i64::MAX, i64::MIN), |(a, b), s| (a.min(s.0), b.max(s.1)));
            from.rem_euclid(by) + to - from
        };
        spans.windows(2 * per).take(per).map(of).min().unwrap_or(0)
    }

    /// Whether it can be what is known of an axis: of `size` elements, whose result has `rows`.
    fn is_sound(&self, size: usize, rows: usize) -> bool {
        let (clean, (per, by)) = (self.clean, self.period);
        let whole = per > 0 && by > 0 && by <= size && per <= rows;
        whole && clean.0 <= clean.1 && clean.1 <= rows && (clean.1 - clean.0) / 2 >= per
    }

    /// How long the last tile of at most `tile` elements is along a picture's axis of `size`.
    fn last(&self, size: usize, tile: usize) -> usize {
        size - (size - tile).next_multiple_of(self.period.1).min(size - 1)
    }

    /// Rows of the result of a picture of `size`, in tiles of `tile` whose results have `rows` and which are all as large.
    fn rows(&self, size: usize, tile: usize, rows: usize) -> Result<usize> {
        let (per, by) = self.period;
        let beyond = size.saturating_sub(tile);
        if !beyond.is_multiple_of(by) {
            return Err(wrong(format!(
                "a picture of {size} along an axis, where the model takes {tile} and its results repeat after {by}: make \
                 it {} or {}",
                size - beyond % by,
                size - beyond % by + by
            )));
        }
        let more = (beyond / by).checked_mul(per).and_then(|more| more.checked_add(rows));
        more.ok_or_else(|| wrong(format!("a picture of {size} along an axis")))
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
    /// A model that states the size of its input, as one that was exported does, is run in tiles of that size on pictures that
    /// are as large or larger; their results repeat after some rows, by which such a picture may be larger.
    ///
    /// The model has to treat all places of a picture alike, and the session has to have it still: see [`Model::session`].
    /// All of it is compiled before `progress` is first told how many tiles are done, of how many.
    ///
    /// # Errors
    /// A model that looks at the picture as a whole; a tile too small for what a place of the result depends on; a picture
    /// smaller than the model's; those of [`run`](Session::run).
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
        let [h, w] = sides(port, axes, [height, width], tile)?;
        let of_size = |height: usize, width: usize| {
            let mut shape = x.shape().to_vec();
            (shape[axes.height], shape[axes.width]) = (height, width);
            shape
        };
        checked(&inputs, &[(name.to_string(), Value::Tensor(Tensor::argument(x.dtype(), of_size(h, w))?))])?;
        if (h, w) == (height, width) {
            return self.whole(input, output, progress);
        }
        // Tiles of a size that the model or the file states: the picture may be larger by what results repeat after.
        let fixed = |along: &Axis, [size, tile]: [usize; 2], rows: usize| match size <= tile {
            true => along.pieces(size, tile, rows, |_| Ok(rows)),
            false => along.pieces(size, tile, along.rows(size, tile, rows)?, |_| Ok(rows)),
        };
        let (dtype, part, rows, columns) = match self.model().exported() {
            Some(exported) => {
                let Some((tiling, result)) = exported.tiling(axes, output) else {
                    return Err(wrong(
                        "the exported file does not say how its results depend on a picture: the model \
                                      looks at it as a whole, or was exported by a session that had let it go"
                            .into(),
                    ));
                };
                let rows = fixed(&tiling.rows, [height, h], result.shape[output.height])?;
                let columns = fixed(&tiling.columns, [width, w], result.shape[output.width])?;
                (result.dtype, result.shape.clone(), rows, columns)
            }
            None => {
                // Rows are those of tiles as wide as the picture, and columns then those of tiles of any height.
                let axis = |shape: Vec<usize>, [from, to]: [usize; 2]| Along {
                    model: self.model(),
                    name,
                    shape,
                    dtype: x.dtype(),
                    from,
                    to,
                    output,
                };
                let is_open = |axis: usize, size: usize, tile: usize| size > tile && stated(port, axis).is_none();
                let along = |along: Along, size: usize, tile: usize| {
                    if is_open(along.from, size, tile) {
                        return along.open(size, tile);
                    }
                    let part = along.part(tile)?;
                    let axis = match size <= tile {
                        true => Axis { clean: (0, part.output.shape()[along.to]), period: (1, 1) },
                        false => Axis::of(&part, along.from, along.to, &|size| along.part(size))?,
                    };
                    Ok((tile, fixed(&axis, [size, tile], part.output.shape()[along.to])?))
                };
                let wide = if stated(port, axes.width).is_some() { w } else { width };
                let vertical = axis(of_size(height, wide), [axes.height, output.height]);
                let (h, rows) = along(vertical, height, h)?;
                let horizontal = |h: usize| axis(of_size(h, width), [axes.width, output.width]);
                let (w, columns) = along(horizontal(h), width, w)?;
                if let Some(last) = rows.last().filter(|p| p.length != h && is_open(axes.width, width, w)) {
                    let last = horizontal(last.length);
                    let full = last.part(width)?;
                    if last.tiles(w, width, &full, &full.rows(axes.width, output.width)?)? != columns {
                        return Err(wrong("columns of the result that depend on how many rows there are".into()));
                    }
                }
                let part = traced(self.model(), &Tensor::argument(x.dtype(), of_size(h, w))?, name)?;
                (part.dtype(), part.shape().to_vec(), rows, columns)
            }
        };
        let count = |pieces: &[Piece]| pieces.iter().map(|p| p.count).sum::<usize>();
        let mut full = part;
        (full[output.height], full[output.width]) = (count(&rows), count(&columns));

        x.realize()?;
        let data = x.data("tiles")?;
        let picture = data.bytes("tiles")?;
        let size = dtype.size();
        let mut out = Storage::zeroed(shape::check_size("tiles", dtype, &full)? * size)?;
        let mut label = String::new();
        let total = rows.len() * columns.len();
        // Before the first of them runs: what compiling takes is not part of the first tile.
        let sizes = |pieces: &[Piece]| pieces.iter().map(|p| p.length).collect::<BTreeSet<usize>>();
        for &height in &sizes(&rows) {
            for &width in &sizes(&columns) {
                let mut shape = x.shape().to_vec();
                (shape[axes.height], shape[axes.width]) = (height, width);
                // In memory, and not computed: there may be no compiler.
                let zeros = Storage::zeroed(shape.iter().product::<usize>() * x.dtype().size())?;
                self.compile_for(&[(name, &Tensor::ready(Arc::new(zeros), x.dtype(), shape))])?;
            }
        }
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
                (out.bytes_mut(), &full, [row.to, column.to], output),
                [row.count, column.count],
                size,
            );
        }
        progress(total, total);
        Ok((label, Tensor::ready(Arc::new(out), dtype, full)))
    }

    /// Runs a model on a picture that is no larger than a tile.
    fn whole(
        &self,
        (name, x, _): (&str, &Tensor, PictureAxes),
        output: PictureAxes,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(String, Tensor)> {
        self.compile_for(&[(name, x)])?;
        progress(0, 1);
        let results = self.run(&[(name, x)])?;
        let Ok([(name, result)]) = <[_; 1]>::try_from(results) else { return Err(one_output()) };
        picture_of(result.shape(), output)?;
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
        let axis = Axis { clean: (8, 56), period: (2, 1) };
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
        let axis = Axis { clean: (1, 10), period: (1, 3) };
        let pieces = axis.pieces(100, 33, 34, |n| Ok(n.div_ceil(3))).unwrap();
        assert!(pieces.iter().all(|p| p.start % 3 == 0));
        assert_eq!(pieces.iter().map(|p| p.count).sum::<usize>(), 34);
    }
}
