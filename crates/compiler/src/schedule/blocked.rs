//! Blocked summation: long sums in any order become sums of the sums of blocks.
//!
//! Takes the indexed graph; leaves each float sum of many terms whose order is free as an outer sum over blocks of an
//! inner, sequential sum over one block. A path through n terms in blocks of b then meets about `b + n/b` roundings
//! instead of n, and the expected error falls with its square root. The blocks depend on the graph and the options alone,
//! so results do not depend on the number of threads.

use crate::winograd::rewrite::substitute_gated;
use rustc_hash::FxHashMap;
use winograph_ir::indexed::{Graph, Val, ValId};
use winograph_ir::int::{RangeId, RangeRole};
use winograph_ir::op::{ReduceOp, SumOrder};

/// Splits the sums that have at least two blocks of `terms` terms; gives the number of those that it split.
pub fn block_sums(g: &mut Graph, terms: usize) -> usize {
    let mut count = 0;
    let mut memo = FxHashMap::default();
    for def in 0..g.defs.len() {
        let value = g.defs[def].value;
        g.defs[def].value = g.rebuild(value, &mut memo, &mut |g, val| match val {
            Val::Reduce { op: ReduceOp::Add, ranges, order: SumOrder::Any, fused, x } if g.dtype(x).is_float() => {
                match outer_block(g, &ranges, terms as i64) {
                    Some((range, size)) => {
                        count += 1;
                        split(g, &ranges, range, size, fused, x)
                    }
                    None => g.add(Val::Reduce { op: ReduceOp::Add, ranges, order: SumOrder::Any, fused, x }),
                }
            }
            other => g.add(other),
        });
    }
    count
}

/// Which range to split, and how many of its values a block has: of the ranges the first that is long enough, so that the
/// terms of a block stay neighbours.
fn outer_block(g: &Graph, ranges: &[RangeId], terms: i64) -> Option<(RangeId, i64)> {
    let sizes: Vec<i64> = ranges.iter().map(|&r| g.ints.const_size(r)).collect::<Option<_>>()?;
    let all = sizes.iter().try_fold(1i64, |n, &s| n.checked_mul(s))?;
    if terms < 1 || all < terms.saturating_mul(2) {
        return None;
    }
    let longest = (0..sizes.len()).rev().max_by_key(|&i| sizes[i])?;
    let (range, size) = (ranges[longest], sizes[longest]);
    let most = (terms / (all / size)).max(1);
    if most >= size {
        return None;
    }
    // A divisor leaves no ragged block; one that is much too short would make many.
    let even = (most / 2 + 1..=most).rev().find(|b| size % b == 0);
    Some((range, even.unwrap_or(most)))
}

fn split(g: &mut Graph, ranges: &[RangeId], range: RangeId, size: i64, fused: bool, x: ValId) -> ValId {
    let old = g.ints.size(range);
    let up = g.ints.add_const(old, size - 1);
    let blocks = g.ints.div_const(up, size);
    let inner = g.ints.constant(size);
    let outer = g.ints.new_range(blocks, RangeRole::Reduce);
    let inner = g.ints.new_range(inner, RangeRole::Reduce);
    let (o, i) = (g.ints.range(outer), g.ints.range(inner));
    let at = g.ints.sum(&[(o, size), (i, 1)], 0);
    let inside = g.ints.sum(&[(old, 1), (at, -1)], -1);
    let x = substitute_gated(g, x, &FxHashMap::from_iter([(range, at)]), &[inside]);
    let ranges = ranges.iter().map(|&r| if r == range { inner } else { r }).collect();
    let x = g.add(Val::Reduce { op: ReduceOp::Add, ranges, order: SumOrder::Any, fused, x });
    g.add(Val::Reduce { op: ReduceOp::Add, ranges: [outer].into(), order: SumOrder::Any, fused, x })
}
