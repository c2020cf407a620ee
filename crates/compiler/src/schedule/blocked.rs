//! Blocked summation: long sums in any order become sums of the sums of blocks.
//!
//! Takes the indexed graph; leaves each float sum of many terms whose order is free as an outer sum over blocks of an
//! inner, sequential sum over one block. A path through n terms in blocks of b then meets about `b + n/b` roundings
//! instead of n, and the expected error falls with its square root. The blocks depend on the graph and the options alone,
//! so results do not depend on the number of threads. Sums of products stay in sequence unless the options give a number
//! of terms: their plans hold accumulators in registers through one loop, and the error bounds' expectations speak of it.

use crate::winograd::rewrite::substitute_gated;
use rustc_hash::FxHashMap;
use winograph_ir::indexed::{Graph, Val, ValId};
use winograph_ir::int::{RangeId, RangeRole};
use winograph_ir::op::{BinaryOp, ReduceOp, SumOrder};

/// Terms of a block of a sum that is not of products, where the options say nothing.
const PLAIN_TERMS: usize = 128;
/// Fewer blocks than this of [`PLAIN_TERMS`] gain less than a digit in base two, and are left in sequence.
const PLAIN_BLOCKS: usize = 4;

/// Splits the sums that are long enough; gives the number of those that it split. With `terms`, these are the sums that
/// have at least two blocks of so many terms; without, those that are not of products and have four blocks of 128.
pub fn block_sums(g: &mut Graph, terms: Option<usize>) -> usize {
    let mut count = 0;
    let mut memo = FxHashMap::default();
    for def in 0..g.defs.len() {
        let value = g.defs[def].value;
        g.defs[def].value = g.rebuild(value, &mut memo, &mut |g, val| match val {
            Val::Reduce { op: ReduceOp::Add, ranges, order: SumOrder::Any, fused, x } if g.dtype(x).is_float() => {
                let (terms, blocks) = match terms {
                    Some(terms) => (terms, 2),
                    None if of_products(g, x) => (usize::MAX, 2),
                    None => (PLAIN_TERMS, PLAIN_BLOCKS),
                };
                let terms = i64::try_from(terms).unwrap_or(i64::MAX);
                match outer_block(g, &ranges, terms, blocks as i64) {
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

/// Whether the terms are products of two values, none of them a constant and not a square.
fn of_products(g: &Graph, x: ValId) -> bool {
    match *g.val(x) {
        Val::Cast { x, .. } => of_products(g, x),
        Val::Binary { op: BinaryOp::Mul, a, b } => {
            a != b && ![a, b].iter().any(|&v| matches!(g.val(v), Val::Const { .. }))
        }
        _ => false,
    }
}

/// Which range to split, and how many of its values a block has: of the ranges the first that is long enough, so that the
/// terms of a block stay neighbours.
fn outer_block(g: &Graph, ranges: &[RangeId], terms: i64, blocks: i64) -> Option<(RangeId, i64)> {
    let sizes: Vec<i64> = ranges.iter().map(|&r| g.ints.const_size(r)).collect::<Option<_>>()?;
    let all = sizes.iter().try_fold(1i64, |n, &s| n.checked_mul(s))?;
    if terms < 1 || all < terms.saturating_mul(blocks) {
        return None;
    }
    let longest = (0..sizes.len()).rev().max_by_key(|&i| sizes[i])?;
    let (range, size) = (ranges[longest], sizes[longest]);
    let most = (terms / (all / size)).max(1);
    if most >= size {
        return None;
    }
    // A divisor leaves no ragged block; one that is much too short would make many. Multiples of 8 fill vectors.
    let divisor = |least: i64, of: i64| (least..=most).rev().find(|b| size % b == 0 && b % of == 0);
    let even = divisor(most / 4 + 1, 8).or_else(|| divisor(most / 2 + 1, 1));
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
