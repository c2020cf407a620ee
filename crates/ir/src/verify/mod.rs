//! Verifiers: what must hold of each level, checked after every pass in tests and debug builds.
//!
//! Each file lists its invariants at the top. A program that a verifier refuses is not launched.

pub mod indexed;
pub mod linear;
pub(crate) mod linear_types;
pub(crate) mod sits_under;
pub mod tensor;

use crate::indexed::{Layout, Table};
use crate::int::{IntId, Ints, RangeRole};

/// What a verifier refuses, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {found} (invariant `{invariant}`)")]
pub struct VerifyError {
    /// Name of the invariant that does not hold, as listed at the top of the verifier's file.
    pub invariant: &'static str,
    /// The node, buffer, definition or statement.
    pub place: String,
    /// What was found there.
    pub found: String,
}

fn refuse<T>(invariant: &'static str, place: &str, found: impl Into<String>) -> Result<T, VerifyError> {
    Err(VerifyError { invariant, place: place.to_string(), found: found.into() })
}

/// Greatest number of elements of a tensor or memory: bytes and sums of addresses then fit an `i64`.
const MAX_ELEMENTS: i64 = 1 << 60;

/// Checks a table's number of elements and their dtypes.
fn check_table(t: &Table) -> Result<(), String> {
    let count = t.shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s));
    if count != Some(t.values.len()) {
        return Err(format!("{} elements for shape {:?}", t.values.len(), t.shape));
    }
    match t.values.iter().find(|s| s.dtype() != t.dtype) {
        Some(s) => Err(format!("element {s} in a table of {}", t.dtype)),
        None => Ok(()),
    }
}

/// Whether two expressions are equal for all values of ranges and parameters, as far as the normal form shows.
fn same(ints: &mut Ints, a: IntId, b: IntId) -> bool {
    a == b || {
        let d = ints.sub(a, b);
        ints.as_const(d) == Some(0)
    }
}

/// Whether an expression belongs to the arena, so that looking at it cannot panic.
fn known(ints: &Ints, e: IntId) -> bool {
    ints.contains(e)
}

/// Proves `0 <= index < size` where the conditions hold; gives what is not proved.
fn prove_index(ints: &mut Ints, index: IntId, size: IntId, given: &[IntId]) -> Result<(), String> {
    if !ints.prove_nonneg(index, given) {
        return Err(format!("index {} is not proved to be at least 0", show(ints, index)));
    }
    let gap = ints.sum(&[(size, 1), (index, -1)], -1);
    if !ints.prove_nonneg(gap, given) {
        return Err(format!("index {} is not proved to be below {}", show(ints, index), show(ints, size)));
    }
    Ok(())
}

/// Conditions that hold wherever the expressions have a value: each of their ranges has at least one.
fn nonempty(ints: &mut Ints, exprs: &[IntId], given: &mut Vec<IntId>) {
    let mut ranges: Vec<_> = exprs.iter().flat_map(|&e| ints.free_ranges(e).to_vec()).collect();
    ranges.sort_unstable();
    ranges.dedup();
    for r in ranges {
        let size = ints.size(r);
        if ints.bounds(size).0 < 1 {
            let condition = ints.add_const(size, -1);
            if !given.contains(&condition) {
                given.push(condition);
            }
        }
    }
}

/// An expression for a message.
fn show(ints: &Ints, e: IntId) -> String {
    let (lo, hi) = ints.bounds(e);
    match ints.as_const(e) {
        Some(c) => c.to_string(),
        None => format!("in {lo}..={hi} over ranges {:?}", ints.free_ranges(e).iter().map(|r| r.0).collect::<Vec<_>>()),
    }
}

/// Checks a memory's shape and that its layout maps every index into `0..len`.
fn check_layout(ints: &mut Ints, shape: &[IntId], layout: &Layout) -> Result<(), String> {
    let all = shape.iter().chain([&layout.len]).chain(layout.dims.iter().map(|d| &d.stride));
    if let Some(e) = all.copied().find(|&e| !known(ints, e) || !ints.free_ranges(e).is_empty()) {
        return Err(format!("{e:?} in a shape or layout is unknown or depends on ranges"));
    }
    if let Some(d) = layout.dims.iter().find(|d| d.axis >= shape.len() || d.div < 1 || d.modulus.is_some_and(|m| m < 1))
    {
        return Err(format!("layout factor {d:?} of {} axes", shape.len()));
    }
    if !ints.prove_nonneg(layout.len, &[]) || ints.bounds(layout.len).1 > MAX_ELEMENTS {
        return Err(format!("length {} is not in 0..=2^60", show(ints, layout.len)));
    }
    // Where an axis is empty, no index exists.
    if shape.iter().any(|&s| ints.bounds(s).1 <= 0) {
        return Ok(());
    }
    let mut index = Vec::with_capacity(shape.len());
    let mut given = Vec::new();
    for &s in shape {
        let r = ints.new_range(s, RangeRole::Map);
        index.push(ints.range(r));
        if ints.bounds(s).0 < 1 {
            given.push(ints.add_const(s, -1));
        }
    }
    if factors_fit(ints, shape, layout, &given) {
        return Ok(());
    }
    let addr = layout.flatten(ints, &index);
    prove_index(ints, addr, layout.len, &given).map_err(|why| format!("layout: {why}"))
}

/// Proves the layout's bounds from its factors, each at its greatest: `sum of (count - 1) * stride < len`.
fn factors_fit(ints: &mut Ints, shape: &[IntId], layout: &Layout, given: &[IntId]) -> bool {
    let mut greatest = ints.constant(0);
    for d in &layout.dims {
        let count = match d.modulus {
            Some(m) => ints.constant(m),
            None => {
                let up = ints.add_const(shape[d.axis], d.div - 1);
                ints.div_const(up, d.div)
            }
        };
        if !ints.prove_nonneg(d.stride, given) {
            return false;
        }
        let last = ints.add_const(count, -1);
        let term = ints.mul(last, d.stride);
        greatest = ints.add(greatest, term);
    }
    let gap = ints.sum(&[(layout.len, 1), (greatest, -1)], -1);
    ints.prove_nonneg(gap, given)
}
