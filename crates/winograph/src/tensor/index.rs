//! Parts of tensors and tensors put together: slices, cat and stack, lookups by index.

use crate::error::{Error, Result};
use crate::tensor::State;
use crate::tensor::Tensor;
use crate::tensor::node::Op;
use crate::tensor::shape::{axis, axis_in};
use rustc_hash::FxHashSet;
use std::ops::{Range, RangeFrom, RangeFull, RangeTo};
use winograph_ir::DType;
use winograph_ir::tensor::TensorOp;

/// A part of an axis, with Python's meaning of `start:stop:step`: negative places count from the end, places beyond
/// the axis are cut to it, a negative step goes backwards.
///
/// ```
/// # use winograph::{SliceRange, Tensor};
/// let x = Tensor::arange(0i32, 6, 1)?;
/// assert_eq!(x.slice(&[(1..-1).into()])?.to_vec::<i32>()?, [1, 2, 3, 4]);
/// assert_eq!(x.slice(&[SliceRange::from(..).step(-2)])?.to_vec::<i32>()?, [5, 3, 1]);
/// # Ok::<(), winograph::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceRange {
    /// First place; the end from which the step leads away if there is none.
    pub start: Option<isize>,
    /// The place before which it stops; beyond the other end if there is none.
    pub stop: Option<isize>,
    /// Distance of places.
    pub step: isize,
}

impl SliceRange {
    /// The same places with another distance.
    pub fn step(self, step: isize) -> SliceRange {
        SliceRange { step, ..self }
    }

    /// First place and number of places on an axis of `size`; `None` if the step is 0. As CPython's
    /// `PySlice_AdjustIndices`.
    fn resolve(self, size: usize) -> Option<(usize, usize)> {
        let (n, step) = (size as i128, self.step as i128);
        if step == 0 {
            return None;
        }
        let (lo, hi) = if step > 0 { (0, n) } else { (-1, n - 1) };
        let place = |p: Option<isize>, default: i128| match p {
            None => default,
            Some(p) => (if p < 0 { p as i128 + n } else { p as i128 }).clamp(lo, hi),
        };
        let (start, stop) = if step > 0 {
            (place(self.start, lo), place(self.stop, hi))
        } else {
            (place(self.start, hi), place(self.stop, lo))
        };
        let length = if step > 0 { stop - start } else { start - stop };
        let count = if length <= 0 { 0 } else { (length - 1) / step.abs() + 1 };
        Some((if count == 0 { 0 } else { start as usize }, count as usize))
    }
}

impl From<Range<isize>> for SliceRange {
    fn from(r: Range<isize>) -> SliceRange {
        SliceRange { start: Some(r.start), stop: Some(r.end), step: 1 }
    }
}

impl From<RangeFrom<isize>> for SliceRange {
    fn from(r: RangeFrom<isize>) -> SliceRange {
        SliceRange { start: Some(r.start), stop: None, step: 1 }
    }
}

impl From<RangeTo<isize>> for SliceRange {
    fn from(r: RangeTo<isize>) -> SliceRange {
        SliceRange { start: None, stop: Some(r.end), step: 1 }
    }
}

impl From<RangeFull> for SliceRange {
    fn from(_: RangeFull) -> SliceRange {
        SliceRange { start: None, stop: None, step: 1 }
    }
}

/// Most tensors that are put together at once. Each element of the result looks which one it is from: of more, some are put together
/// first, in memory.
const MOST_TOGETHER: usize = 32;

/// Of how many tensors these are parts and views: the slices that make up windows are of one.
fn sources(parts: &[Tensor]) -> usize {
    let of = |t: &Tensor| {
        let mut t = t.clone();
        while let State::Lazy(op) = t.0.state() {
            match &*op {
                TensorOp::Reshape { x, .. }
                | TensorOp::Permute { x, .. }
                | TensorOp::Expand { x, .. }
                | TensorOp::Pad { x, .. }
                | TensorOp::Slice { x, .. } => t = x.clone(),
                _ => break,
            }
        }
        t.key()
    };
    parts.iter().map(of).collect::<FxHashSet<usize>>().len()
}

impl Tensor {
    /// A part of each axis; axes beyond the list stay whole.
    ///
    /// # Errors
    /// More ranges than axes, or a step of 0.
    pub fn slice(&self, ranges: &[SliceRange]) -> Result<Tensor> {
        let name = "slice";
        if ranges.len() > self.rank() {
            let got = format!("a list of {} ranges", ranges.len());
            return Err(Error::argument(name, got, &[self.shape()], format!("at most {} ranges", self.rank())));
        }
        let (mut start, mut step) = (vec![0; self.rank()], vec![1i64; self.rank()]);
        let mut size = self.shape().to_vec();
        for (i, r) in ranges.iter().enumerate() {
            let Some((first, count)) = r.resolve(self.shape()[i]) else {
                return Err(Error::argument(name, "a step of 0", &[self.shape()], "a step that is not 0"));
            };
            start[i] = first;
            size[i] = count;
            // With one place or none the step means nothing, and might be out of any bounds.
            step[i] = if count > 1 { r.step as i64 } else { 1 };
        }
        self.slice_to(name, start, step, size)
    }

    /// A part of one axis.
    ///
    /// # Errors
    /// A missing axis, or a step of 0.
    pub fn slice_axis(&self, along: isize, range: impl Into<SliceRange>) -> Result<Tensor> {
        let along = axis("slice", self.shape(), along)?;
        let mut ranges = vec![SliceRange::from(..); along];
        ranges.push(range.into());
        self.slice(&ranges)
    }

    /// `length` elements of an axis from `start` on, all of which are there.
    ///
    /// # Errors
    /// A missing axis, or elements beyond its end.
    pub fn narrow(&self, along: isize, start: usize, length: usize) -> Result<Tensor> {
        let name = "narrow";
        let along = axis(name, self.shape(), along)?;
        let whole = self.shape()[along];
        if start.checked_add(length).is_none_or(|end| end > whole) {
            let got = format!("start {start} and length {length} along axis {along}");
            return Err(Error::argument(name, got, &[self.shape()], format!("at most {whole} elements")));
        }
        let (mut from, mut size) = (vec![0; self.rank()], self.shape().to_vec());
        from[along] = start;
        size[along] = length;
        self.slice_to(name, from, vec![1; self.rank()], size)
    }

    /// The elements at one place of an axis, which disappears. Negative places count from the end.
    ///
    /// # Errors
    /// A missing axis or place.
    pub fn select(&self, along: isize, index: isize) -> Result<Tensor> {
        let name = "select";
        let along = axis(name, self.shape(), along)?;
        let size = self.shape()[along];
        let at = if index < 0 { index.checked_add_unsigned(size) } else { Some(index) };
        let Some(at) = at.and_then(|i| usize::try_from(i).ok()).filter(|&i| i < size) else {
            let expected = format!("an index in {}..{}", -(size as i128), size);
            return Err(Error::argument(name, format!("index {index}"), &[self.shape()], expected));
        };
        let part = self.narrow(along as isize, at, 1)?;
        let mut shape = self.shape().to_vec();
        shape.remove(along);
        part.reshape_to(name, &shape)
    }

    /// Tensors one after another along an axis that they have. Those of shape `[0]` are left out, whatever the others'
    /// shapes.
    ///
    /// # Errors
    /// No tensor, different dtypes or ranks, other axes of different sizes, a missing axis.
    pub fn cat(parts: &[&Tensor], along: isize) -> Result<Tensor> {
        let name = "cat";
        let Some(any) = parts.first() else {
            return Err(Error::argument(name, "an empty list", &[], "at least one tensor"));
        };
        let first = parts.iter().find(|p| p.shape() != [0]).unwrap_or(any);
        let along = axis(name, first.shape(), along)?;
        let mut shape = first.shape().to_vec();
        shape[along] = 0;
        for p in parts {
            first.same_dtype(name, p)?;
            if p.shape() == [0] {
                continue;
            }
            let fits =
                p.rank() == first.rank() && (0..first.rank()).all(|i| i == along || p.shape()[i] == first.shape()[i]);
            if !fits {
                let expected = format!("shapes that differ at most in axis {along}");
                return Err(Error::shape(name, &[first.shape(), p.shape()], expected));
            }
            shape[along] = shape[along].saturating_add(p.shape()[along]);
        }
        let mut parts: Vec<Tensor> = parts.iter().filter(|p| p.numel() > 0).map(|&p| p.clone()).collect();
        match parts.len() {
            0 => first.reshape_to(name, &shape),
            1 => Ok(parts.remove(0)),
            n if n <= MOST_TOGETHER || sources(&parts) <= MOST_TOGETHER => {
                Tensor::make(name, Op::Cat { parts, axis: along }, first.dtype(), shape)
            }
            _ => {
                let some = parts.chunks(MOST_TOGETHER).map(|some| {
                    let some = Tensor::cat(&some.iter().collect::<Vec<_>>(), along as isize)?;
                    some.contiguous()
                });
                let some = some.collect::<Result<Vec<_>>>()?;
                Tensor::cat(&some.iter().collect::<Vec<_>>(), along as isize)
            }
        }
    }

    /// Tensors of one shape, one after another along a new axis.
    ///
    /// # Errors
    /// No tensor, different dtypes or shapes, a place beyond the end.
    pub fn stack(parts: &[&Tensor], at: isize) -> Result<Tensor> {
        let name = "stack";
        let Some(first) = parts.first() else {
            return Err(Error::argument(name, "an empty list", &[], "at least one tensor"));
        };
        let at = axis_in(name, first.shape(), at, first.rank() + 1)? as isize;
        if let Some(other) = parts.iter().find(|p| p.shape() != first.shape()) {
            return Err(Error::shape(name, &[first.shape(), other.shape()], "equal shapes"));
        }
        let parts = parts.iter().map(|p| p.unsqueeze(at)).collect::<Result<Vec<_>>>()?;
        Tensor::cat(&parts.iter().collect::<Vec<_>>(), at)
    }

    /// `out[i] = self[i with i[axis] = index[i]]`. Indices are limited to the axis (PyTorch refuses others).
    ///
    /// # Errors
    /// A missing axis, another rank, other axes larger than `self`'s, an index that is not `i32` or `i64`, lookups in an
    /// axis without elements.
    pub fn gather(&self, along: isize, index: &Tensor) -> Result<Tensor> {
        let name = "gather";
        let along = axis(name, self.shape(), along)?;
        require_index(name, index)?;
        let fits = index.rank() == self.rank()
            && (0..self.rank()).all(|i| i == along || index.shape()[i] <= self.shape()[i])
            && (index.numel() == 0 || self.shape()[along] > 0);
        if !fits {
            let expected = format!("an index of {} axes, none larger but axis {along}", self.rank());
            return Err(Error::shape(name, &[self.shape(), index.shape()], expected));
        }
        let op = Op::Gather { x: self.clone(), axis: along, index: index.clone() };
        Tensor::make(name, op, self.dtype(), index.shape().to_vec())
    }

    /// The elements at the places of an axis that `index`, of shape `[k]` or `[]`, lists. Indices are limited to the axis
    /// (PyTorch refuses others).
    ///
    /// # Errors
    /// A missing axis, an index of other rank or that is not `i32` or `i64`, lookups in an axis without elements.
    pub fn index_select(&self, along: isize, index: &Tensor) -> Result<Tensor> {
        let name = "index_select";
        let along = axis(name, self.shape(), along)?;
        require_index(name, index)?;
        if index.rank() > 1 || (index.numel() > 0 && self.shape()[along] == 0) {
            let expected = "an index of at most one axis, and elements to look up";
            return Err(Error::shape(name, &[self.shape(), index.shape()], expected));
        }
        let mut shape = vec![1; self.rank()];
        shape[along] = index.numel();
        let index = index.reshape_to(name, &shape)?;
        let mut shape = self.shape().to_vec();
        shape[along] = index.numel();
        let index = index.expand_as(name, &shape)?;
        let op = Op::Gather { x: self.clone(), axis: along, index };
        Tensor::make(name, op, self.dtype(), shape)
    }
}

fn require_index(name: &'static str, index: &Tensor) -> Result<()> {
    if matches!(index.dtype(), DType::I32 | DType::I64) {
        return Ok(());
    }
    Err(Error::dtype(name, &[index.dtype()], "an index of dtype i32 or i64").hint("cast it"))
}
