//! Arithmetic of shapes and axes, checked.

use crate::error::{Error, Result};
use winograph_ir::DType;

/// Most elements of a tensor: of the largest dtype too, their bytes can be counted in `i64`.
pub(crate) const MAX_ELEMENTS: usize = isize::MAX as usize / 8;

/// Most axes of a tensor: as many as the files have that this library reads and writes. What compiling does takes time in the
/// square of their number and more.
pub(crate) const MAX_RANK: usize = 64;

/// Number of elements of a shape that [`check_size`] has found to fit.
pub(crate) fn count(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Number of elements, or an error if there are more than [`MAX_ELEMENTS`], or more than [`MAX_RANK`] axes. Axes of size 0 count as 1 for the test, so
/// that strides fit too.
pub(crate) fn check_size(op: &'static str, dtype: DType, shape: &[usize]) -> Result<usize> {
    if shape.len() > MAX_RANK {
        return Err(Error::Rank { op, rank: shape.len() });
    }
    match shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s.max(1))) {
        Some(n) if n <= MAX_ELEMENTS => Ok(count(shape)),
        _ => Err(Error::TooLarge { op, shape: shape.to_vec(), dtype }),
    }
}

/// An axis counted from the front; negative ones count from the end.
pub(crate) fn axis(op: &'static str, shape: &[usize], axis: isize) -> Result<usize> {
    axis_in(op, shape, axis, shape.len())
}

/// Like [`axis`] for an axis among `rank`, which may differ from that of `shape`.
pub(crate) fn axis_in(op: &'static str, shape: &[usize], axis: isize, rank: usize) -> Result<usize> {
    let at = if axis < 0 { axis.checked_add_unsigned(rank) } else { Some(axis) };
    match at.and_then(|a| usize::try_from(a).ok()) {
        Some(a) if a < rank => Ok(a),
        _ => {
            let expected = if rank == 0 {
                "no axis, for there is none".to_string()
            } else {
                format!("an axis in {}..{}", -(rank as isize), rank)
            };
            Err(Error::argument(op, format!("axis {axis}"), &[shape], expected))
        }
    }
}

/// Sorted axes, counted from the front; none stands for all.
pub(crate) fn axes(op: &'static str, shape: &[usize], list: &[isize]) -> Result<Vec<usize>> {
    if list.is_empty() {
        return Ok((0..shape.len()).collect());
    }
    let mut out = list.iter().map(|&a| axis(op, shape, a)).collect::<Result<Vec<_>>>()?;
    out.sort_unstable();
    if out.windows(2).any(|w| w[0] == w[1]) {
        return Err(Error::argument(op, format!("the list of axes {list:?}"), &[shape], "each axis at most once"));
    }
    Ok(out)
}

/// NumPy's broadcasting: shapes are aligned at their ends, axes of size 1 are repeated.
pub(crate) fn broadcast(op: &'static str, shapes: &[&[usize]]) -> Result<Vec<usize>> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    let mut out = vec![1usize; rank];
    for s in shapes {
        for (o, &d) in out[rank - s.len()..].iter_mut().zip(s.iter()) {
            if *o == 1 {
                *o = d;
            } else if d != 1 && d != *o {
                return Err(Error::shape(op, shapes, "shapes that broadcast: from the last axis on, equal sizes or 1"));
            }
        }
    }
    Ok(out)
}
