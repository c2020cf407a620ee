//! Short rows as lanes: where the lane's axis fills half of a vector or less, several of its rows do better.
//!
//! A row of seven tiles leaves nine of sixteen lanes empty. Two rows are one vector, if what is stored or loaded along
//! the lane goes on in the next row (the flat number of a tile) or is a strided access, which lowering makes of a window
//! a row.

use super::access::Touch;
use winograph_ir::indexed::{BufId, Graph};
use winograph_ir::int::RangeId;

/// A loop and how many of its values share a vector with the whole of the lane's loop, which has `lane` lanes to itself.
pub(super) fn fold(
    g: &mut Graph,
    loops: &[RangeId],
    unrolled: &[RangeId],
    touches: &[Touch],
    lane: RangeId,
    most: i64,
) -> Option<(RangeId, i64)> {
    let row = g.ints.const_size(lane)?;
    if row < 2 || 2 * row > most {
        return None;
    }
    let candidates: Vec<RangeId> = loops
        .iter()
        .copied()
        .filter(|&r| r != lane && !unrolled.contains(&r) && g.ints.const_size(r) > Some(1))
        .collect();
    candidates.into_iter().find_map(|outer| {
        let mut flat = false;
        for t in touches {
            let inner = inner(g, t.buffer)?;
            match along(g, t, outer, lane, row, inner)? {
                Along::Flat => flat = true,
                Along::Other => {}
            }
        }
        let rows = (most / row).min(g.ints.const_size(outer)?);
        flat.then_some((outer, rows))
    })
}

/// Two loops that could share a vector: `rows` values of the outer one and the whole of the lane's, of `row` values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folded {
    outer: RangeId,
    lane: RangeId,
    row: i64,
    rows: i64,
}

/// The pairs of a kernel's loops that could share vectors of `most` lanes; plans take the first pair of which some access goes on from
/// row to row.
pub fn options(g: &Graph, loops: &[RangeId], unrolled: &[RangeId], most: i64) -> Vec<Folded> {
    let free = |r: &&RangeId| !unrolled.contains(r) && g.ints.const_size(**r) > Some(1);
    let pairs = loops.iter().filter(free).flat_map(|&lane| {
        let row = g.ints.const_size(lane).filter(|row| 2 * row <= most);
        let outers = loops.iter().filter(free).filter(move |r| **r != lane);
        outers.filter_map(move |&outer| {
            let row = row?;
            Some(Folded { outer, lane, row, rows: (most / row).min(g.ints.const_size(outer)?) })
        })
    });
    pairs.collect()
}

/// The cost of an access with lanes along two loops, in vector instructions over the whole kernel, if the buffer's axis
/// `inner` is the contiguous one; infinite where it would be one of single elements. A vector takes a window and a permute
/// of each of its rows where these do not follow each other.
pub fn touch_cost(g: &mut Graph, t: &Touch, folded: Folded, inner: usize) -> f64 {
    let Folded { outer, lane, row, rows } = folded;
    let vectors = t.runs / (row * rows) as f64;
    let moves = |r: RangeId| t.index.iter().any(|&e| g.ints.depends_on(e, r));
    let cost = match (moves(lane) || moves(outer), along(g, t, outer, lane, row, inner)) {
        (_, None) => return f64::INFINITY,
        (true, Some(Along::Other)) => rows as f64,
        _ => 1.0,
    };
    let gated = t.gate.iter().any(|&c| g.ints.depends_on(c, lane) || g.ints.depends_on(c, outer));
    vectors * (cost + if gated { 1.0 } else { 0.0 })
}

enum Along {
    /// The next row is where this one ends.
    Flat,
    /// Windows of each row.
    Other,
}

/// How an access goes along rows, if the buffer's axis `inner` is the contiguous one; `None` where it would be one of single
/// elements.
fn along(g: &mut Graph, t: &Touch, outer: RangeId, lane: RangeId, row: i64, inner: usize) -> Option<Along> {
    if t.dynamic {
        return None;
    }
    let mut kind = Along::Other;
    for (axis, &e) in t.index.iter().enumerate() {
        let ((c, rest), moved) = (g.ints.split_linear(e, lane)?, g.ints.depends_on(e, outer));
        if c != 0 && (axis != inner || c.abs() > 8) {
            return None;
        }
        if moved && axis == inner {
            let (d, _) = g.ints.split_linear(rest, outer)?;
            if d != c * row {
                return None;
            }
            kind = Along::Flat;
        } else if moved {
            g.ints.split_linear(e, outer)?;
        }
    }
    Some(kind)
}

/// The axis whose elements are neighbours, where it is in one piece.
fn inner(g: &Graph, buffer: BufId) -> Option<usize> {
    let layout = g.buffer(buffer).layout.as_ref()?;
    let dim = layout.dims.iter().find(|d| g.ints.as_const(d.stride) == Some(1))?;
    (dim.modulus.is_none()).then_some(dim.axis)
}
