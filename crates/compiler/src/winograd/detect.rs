//! Detection: which reductions are sums of products that slide a window over an array.
//!
//! Structural: for `Reduce(Add, R, Mul(a, b))` a reduce range `k` and an output range `o` form a window axis when `a`
//! depends on them only through `o + k`, in its addresses and its masks, and `b` depends on `k` and not on `o`. No
//! convolution metadata is consulted. Where that fails, a range of taps that is divided by a constant is taken as the
//! ranges into which it divides.

use crate::schedule::split::divided_range;
use winograph_ir::indexed::{Graph, Val, ValId};
use winograph_ir::int::{IntId, RangeId, RangeRole};
use winograph_ir::op::{BinaryOp, ReduceOp, SumOrder};

/// One axis of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowAxis {
    /// The output range `o`.
    pub output: RangeId,
    /// The window range `k`.
    pub tap: RangeId,
    /// The window's size `r`.
    pub size: i64,
}

/// A sliding-window sum of products.
#[derive(Clone, Debug)]
pub struct Window {
    /// The reduction.
    pub reduce: ValId,
    /// The operand that the window slides over.
    pub data: ValId,
    /// The operand that is the same at every place.
    pub weights: ValId,
    /// Window axes, in the order in which the reduction lists their taps.
    pub axes: Vec<WindowAxis>,
    /// The other reduce ranges ("channels"), in the reduction's order.
    pub channels: Vec<RangeId>,
    /// Whether products may be fused into the sum over channels.
    pub fused: bool,
}

/// Largest number of positions that a rewrite may have, all axes together.
pub const MAX_POSITIONS: i64 = 512;
/// Largest m + r - 1 on one axis.
pub const MAX_ALPHA: i64 = 8;

/// Why an axis with this many taps is not rewritten.
pub fn unsupported_taps(size: i64) -> Option<String> {
    (!matches!(size, 2..=5 | 7)).then(|| format!("a window of {size} taps has no rewrite (2 to 5 and 7 do)"))
}

/// Finds out whether a reduction is a sliding-window sum of products; if not, why.
pub fn detect(g: &mut Graph, reduce: ValId) -> Result<Window, String> {
    let Val::Reduce { op, ranges, order, fused, x } = g.val(reduce).clone() else {
        return Err("it is not a reduction".to_string());
    };
    if op != ReduceOp::Add {
        return Err(format!("it reduces by {}, not by a sum", op.name()));
    }
    let Val::Binary { op: BinaryOp::Mul, a, b } = *g.val(x) else {
        return Err("its terms are not products of two values".to_string());
    };
    if !g.dtype(x).is_float() {
        return Err(format!("its dtype {} is not a float", g.dtype(x)));
    }
    let first = window_axes(g, &ranges, a, b);
    let second = window_axes(g, &ranges, b, a);
    let (data, weights, axes) = match (first, second) {
        (Ok(axes), Err(_)) => (a, b, axes),
        (Err(_), Ok(axes)) => (b, a, axes),
        (Ok(one), Ok(two)) => {
            if one.len() >= two.len() {
                (a, b, one)
            } else {
                (b, a, two)
            }
        }
        // The more specific reason is the one about an operand that has a sliding axis at all.
        (Err(one), Err(two)) => return Err(if one.1 >= two.1 { one.0 } else { two.0 }),
    };
    if order != SumOrder::Any {
        return Err(format!("its summation order is {}: a rewrite sums in another order", order.name()));
    }
    if axes.len() > 3 {
        return Err(format!("it slides over {} axes, at most 3 are rewritten", axes.len()));
    }
    if has_dynamic_index(g, data, &axes) {
        return Err("its data is looked up by index values, not by index arithmetic".to_string());
    }
    let channels = ranges.iter().copied().filter(|r| axes.iter().all(|a| a.tap != *r)).collect();
    Ok(Window { reduce, data, weights, axes, channels, fused })
}

/// A reduction with the ranges split of which quotients and remainders are taken: a flat stack of nine slices has one
/// range of nine taps, and slides by its third and by what is left. `None` where there is nothing to split.
pub fn split_taps(g: &mut Graph, reduce: ValId) -> Option<ValId> {
    let Val::Reduce { op, ranges, order, fused, mut x } = g.val(reduce).clone() else { return None };
    let mut ranges = ranges.to_vec();
    let before = ranges.len();
    // Each split leaves one more range, none of one element.
    while ranges.len() < before + 8 {
        let may = |g: &Graph, r: RangeId, d: i64| {
            ranges.contains(&r) && g.ints.const_size(r).is_some_and(|size| d > 1 && d < size && size % d == 0)
        };
        let Some((range, d)) = divided_range(g, &[x], &may) else { break };
        let (rows, one_row) = (g.ints.const_size(range)? / d, g.ints.constant(d));
        let rows = g.ints.constant(rows);
        let parts = [rows, one_row].map(|size| g.ints.new_range(size, RangeRole::Reduce));
        let [row, at] = parts.map(|r| g.ints.range(r));
        let e = g.ints.sum(&[(row, d), (at, 1)], 0);
        x = g.substitute(x, &|r| (r == range).then_some(e));
        ranges = ranges.iter().flat_map(|&r| if r == range { parts.to_vec() } else { vec![r] }).collect();
    }
    (ranges.len() > before).then(|| g.add(Val::Reduce { op, ranges: ranges.into(), order, fused, x }))
}

/// The window axes for one assignment of the operands, or a reason and how close it came.
fn window_axes(
    g: &mut Graph,
    ranges: &[RangeId],
    data: ValId,
    weights: ValId,
) -> Result<Vec<WindowAxis>, (String, u32)> {
    let outputs: Vec<RangeId> =
        g.free_ranges(data).iter().copied().filter(|r| !ranges.contains(r) && !g.depends_on(weights, *r)).collect();
    let mut axes: Vec<WindowAxis> = Vec::new();
    let mut refusal: Option<(String, u32)> = None;
    for &tap in ranges {
        if !g.depends_on(data, tap) || !g.depends_on(weights, tap) {
            continue;
        }
        let Some(size) = g.ints.const_size(tap) else { continue };
        for &output in &outputs {
            if axes.iter().any(|a| a.output == output) {
                continue;
            }
            if slides(g, data, output, tap) {
                if let Some(reason) = unsupported_taps(size) {
                    refusal = Some((reason, 2));
                    continue;
                }
                axes.push(WindowAxis { output, tap, size });
                break;
            }
            if let Some((stride, dilation)) = coupled(g, data, output, tap) {
                let what = match (stride, dilation) {
                    (s, 1) => format!("its window moves with stride {s}, not 1"),
                    (1, d) => format!("its window has dilation {d}, not 1"),
                    (s, d) => format!("its window has stride {s} and dilation {d}, not 1"),
                };
                return Err((what, 3));
            }
        }
    }
    if axes.is_empty() {
        return Err(refusal.unwrap_or_else(|| ("it has no sliding window".to_string(), 1)));
    }
    match refusal {
        Some(r) => Err(r),
        None => Ok(axes),
    }
}

/// Whether a value depends on `output` and `tap` only through their sum.
fn slides(g: &mut Graph, data: ValId, output: RangeId, tap: RangeId) -> bool {
    let (so, st) = (g.ints.size(output), g.ints.size(tap));
    let size = g.ints.sum(&[(so, 1), (st, 1)], -1);
    let sum = g.ints.new_range(size, RangeRole::Map);
    let (s, k) = (g.ints.range(sum), g.ints.range(tap));
    let e = g.ints.sub(s, k);
    let v = g.substitute(data, &|r| (r == output).then_some(e));
    !g.depends_on(v, tap)
}

/// The stride and dilation of an axis on which some address has the form `s*o + d*k` with another pair than (1, 1).
fn coupled(g: &mut Graph, data: ValId, output: RangeId, tap: RangeId) -> Option<(i64, i64)> {
    for v in g.topological(&[data]) {
        let Val::Load { index, .. } = g.val(v).clone() else { continue };
        for &i in &index {
            if let (Some((s, _)), Some((d, _))) = (g.ints.split_linear(i, output), g.ints.split_linear(i, tap))
                && s != 0
                && d != 0
                && (s, d) != (1, 1)
            {
                return Some((s, d));
            }
        }
    }
    None
}

fn has_dynamic_index(g: &Graph, data: ValId, axes: &[WindowAxis]) -> bool {
    g.topological(&[data]).into_iter().any(|v| {
        matches!(g.val(v), Val::Load { dynamic: Some((_, d)), .. }
            if axes.iter().any(|a| g.depends_on(*d, a.output) || g.depends_on(*d, a.tap)))
    })
}

/// The conditions `e >= 0` under which `sum` stays in the footprint of the original window axis, where `sum` stands
/// for `o + k`.
pub fn footprint(g: &mut Graph, axis: &WindowAxis, sum: IntId) -> IntId {
    let size = g.ints.size(axis.output);
    g.ints.sum(&[(size, 1), (sum, -1)], axis.size - 2)
}
