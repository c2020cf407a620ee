//! Plans for sums of products inside of a launch: register blocks, and what is left at the ends of axes.
//!
//! Takes a kernel with a reduction loop whose buffers have layouts; leaves it in *regions*, each with a plan. Lanes run
//! along an axis of one operand, vectors beside each other along it and copies along an axis of the other operand
//! make up a block of accumulators that stay in registers through the reduction. Where vectors do not fill the lanes'
//! axis, the rest is either a partial vector or, with lanes along the other axis, a block of its own, whichever is
//! cheaper; where copies do not divide theirs, the rest has fewer copies.

use super::access::{self, Stride, Touch};
use super::heuristic;
use super::plan::{Factor, Kind, Plan};
use crate::kernel::Kernel;
use crate::target::Target;
use rustc_hash::FxHashMap;
use winograph_ir::indexed::BufId;
use winograph_ir::int::RangeId;

/// A part of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    start: i64,
    len: i64,
}

/// A product of two operands as a plan sees it.
struct Product {
    /// The axis along which lanes run, and their number.
    lane: (RangeId, i64),
    /// The axis of the other operand along which accumulators are copied.
    tile: RangeId,
    /// The accesses of the operand that does not move along the lanes.
    others: Vec<Touch>,
    /// Those of the operand that does.
    along: Vec<Touch>,
}

fn product(kernel: &Kernel, target: &Target) -> Option<Product> {
    let mut g = kernel.graph.clone();
    let unroll = heuristic::unrolled(kernel);
    if kernel.reduce_ranges().is_empty() || !unroll.is_empty() {
        return None;
    }
    let touches = access::touches(kernel, &unroll);
    let lane = heuristic::best_lane(&mut g, kernel, &touches, &unroll, target)?;
    let depends = |t: &Touch, r: RangeId| t.index.iter().any(|&i| g.ints.depends_on(i, r));
    let (along, others): (Vec<Touch>, Vec<Touch>) =
        touches.into_iter().filter(|t| t.in_loop && !t.write).partition(|t| depends(t, lane.0));
    if along.is_empty() {
        return None;
    }
    // The other operand's own axis; of several the longest.
    let own = |r: &RangeId| others.iter().any(|t| depends(t, *r)) && !along.iter().any(|t| depends(t, *r));
    let candidates = kernel.loops.iter().copied().filter(own);
    let tile = candidates.rev().max_by_key(|&r| g.ints.const_size(r).unwrap_or(0))?;
    Some(Product { lane, tile, others, along })
}

/// How operands of a kernel that are read element by element are to be packed: buffer, axis, elements of the axis that
/// are neighbours in memory.
pub fn packing(kernel: &Kernel, target: &Target) -> Vec<(BufId, usize, i64)> {
    let Some(p) = product(kernel, target) else { return Vec::new() };
    let full = heuristic::full_lanes(kernel, target);
    let g = &kernel.graph;
    let axis = |t: &Touch| t.index.iter().position(|&i| g.ints.depends_on(i, p.tile));
    p.others.iter().filter_map(|t| Some((t.buffer, axis(t)?, full))).collect()
}

/// The same for the operand along whose axis lanes run: vectors of a panel follow each other.
pub fn panels(kernel: &Kernel, target: &Target) -> Vec<(BufId, usize, i64)> {
    let Some(p) = product(kernel, target) else { return Vec::new() };
    let full = heuristic::full_lanes(kernel, target);
    let g = &kernel.graph;
    let axis = |t: &Touch| t.index.iter().position(|&i| g.ints.depends_on(i, p.lane.0));
    p.along.iter().filter_map(|t| Some((t.buffer, axis(t)?, full))).collect()
}

/// The regions of a kernel with their plans; `None` where it is not a product of two operands that differ in their axes.
pub fn regions(kernel: &Kernel, target: &Target) -> Option<Vec<(Kernel, Plan)>> {
    let Product { lane: (lane, lanes), tile, others, .. } = product(kernel, target)?;
    let g = &kernel.graph;
    let full = heuristic::full_lanes(kernel, target);
    let (size, columns) = (g.ints.const_size(lane)?, g.ints.const_size(tile)?);
    let terms: i64 = kernel.reduce_ranges().iter().map(|&r| g.ints.max_size(r)).product();
    // Whether lanes may run along the other axis.
    let turned = columns % full == 0
        && others.iter().all(|t| {
            let mut g = kernel.graph.clone();
            let inner = access::inner_axis(&g, t.buffer);
            !t.index.iter().any(|&i| g.ints.depends_on(i, tile))
                || access::stride(&mut g, t, tile, inner) == Stride::Contiguous
        });
    let registers = target.vector_registers as i64;

    let mut out = Vec::new();
    let vectors = size / lanes;
    let mut start = 0;
    let mut groups: Vec<(i64, i64)> = Vec::new();
    for nv in groups_of(vectors) {
        match groups.last_mut() {
            Some((n, count)) if *n == nv => *count += 1,
            _ => groups.push((nv, 1)),
        }
    }
    let whole = |start: i64, len: i64, nv: i64, lanes: i64, out: &mut Vec<(Kernel, Plan)>| -> Option<()> {
        let copies = copies(nv, columns, registers);
        let mut at = 0;
        while at < columns {
            let n = copies.min(columns - at);
            let span = (columns - at) / n * n;
            let (k, l, t) = region(kernel, lane, Part { start, len }, tile, Part { start: at, len: span });
            out.push(plan(k, l, t, &[(nv, lanes)], n, false));
            at += span;
        }
        Some(())
    };
    for &(nv, count) in &groups {
        whole(start, nv * count * lanes, nv, lanes, &mut out)?;
        start += nv * count * lanes;
    }
    let rest = size - start;
    if rest > 0 {
        // Cycles for all columns, two multiply-adds at a time, four cycles for one that waits for the one before.
        let masked = (columns * terms) as f64 / 2.0;
        let turned_vectors = (columns / full).min((registers - 2) / (rest + 1)).clamp(1, 6);
        let accumulators = rest * turned_vectors;
        let slow = (8.0 / accumulators as f64).max(1.0);
        let turned_cost = (rest * columns / full * terms) as f64 / 2.0 * slow + 2.0 * (rest * columns) as f64;
        if turned && rest * 2 + 3 <= registers && turned_cost < masked {
            let mut at = 0;
            let all = columns / full;
            while at < all {
                let n = turned_vectors.min(all - at);
                let span = (all - at) / n * n;
                let part = Part { start: at * full, len: span * full };
                let (k, l, t) = region(kernel, lane, Part { start, len: rest }, tile, part);
                out.push(plan(k, t, l, &[(n, full)], rest, true));
                at += span;
            }
        } else {
            let mut lanes = lanes;
            while lanes / 2 >= rest && lanes > 4 {
                lanes /= 2;
            }
            whole(start, rest, 1, lanes, &mut out)?;
        }
    }
    Some(out)
}

/// Vectors side by side, in groups of three where there are that many: three vectors and eight copies make up 24
/// accumulators.
fn groups_of(vectors: i64) -> Vec<i64> {
    match vectors {
        0 => vec![],
        1 => vec![1],
        2 => vec![2],
        4 => vec![4],
        n => {
            let mut out = vec![3; (n / 3) as usize];
            match n % 3 {
                1 => out[(n / 3 - 1) as usize] = 4,
                2 => out.push(2),
                _ => {}
            }
            out
        }
    }
}

/// Copies along an axis of `columns` beside `vectors` vectors: as many as registers allow, dividing the axis where that
/// costs few.
fn copies(vectors: i64, columns: i64, registers: i64) -> i64 {
    let most = ((registers - 1 - vectors) / vectors).clamp(1, 16).min(columns);
    (1..=most).rev().find(|&n| columns % n == 0 && 2 * n > most).unwrap_or(most)
}

/// The kernel over parts of two axes; gives the ranges of the parts, where they are not single elements.
fn region(
    kernel: &Kernel,
    a: RangeId,
    part_a: Part,
    b: RangeId,
    part_b: Part,
) -> (Kernel, Option<RangeId>, Option<RangeId>) {
    let mut k = kernel.clone();
    let mut ranges = [None, None];
    for (n, (range, part)) in [(a, part_a), (b, part_b)].into_iter().enumerate() {
        let ints = &mut k.graph.ints;
        let info = ints.range_info(range).clone();
        if part.start == 0 && ints.as_const(info.size) == Some(part.len) {
            ranges[n] = Some(range);
            continue;
        }
        let size = ints.constant(part.len);
        let new = ints.new_range_with(size, info.role, info.ordinal);
        let e = ints.range(new);
        let e = ints.add_const(e, part.start);
        k.replace_ranges(&FxHashMap::from_iter([(range, e)]), &FxHashMap::default(), &[]);
        let keep = part.len > 1;
        ranges[n] = keep.then_some(new);
        k.loops = k.loops.iter().filter_map(|&r| if r == range { keep.then_some(new) } else { Some(r) }).collect();
    }
    (k, ranges[0], ranges[1])
}

/// The plan with lanes along one axis and copies along another. `lanes_inside` nests the lanes' loop inside of the
/// copies'.
fn plan(
    kernel: Kernel,
    lane: Option<RangeId>,
    tile: Option<RangeId>,
    block: &[(i64, i64)],
    copies: i64,
    lanes_inside: bool,
) -> (Kernel, Plan) {
    let any = |kind: Kind| Factor { kind, size: None };
    let of = |kind: Kind, size: i64| Factor { kind, size: Some(size) };
    let (vectors, lanes) = block.first().copied().unwrap_or((1, 1));
    let mut plan = Plan::default();
    for &r in &kernel.loops {
        plan.loops.push(if Some(r) == lane {
            let mut f = vec![any(Kind::Loop)];
            if vectors > 1 {
                f.push(of(Kind::Unroll, vectors));
            }
            f.push(of(Kind::Vector, lanes));
            f
        } else if Some(r) == tile {
            vec![any(Kind::Loop), of(Kind::Unroll, copies)]
        } else {
            vec![any(Kind::Loop)]
        });
    }
    plan.reduces = kernel.reduce_ranges().iter().map(|_| vec![any(Kind::Loop)]).collect();
    plan.order = (0..kernel.loops.len()).collect();
    let last = |n: usize| -> u8 {
        let r = Some(kernel.loops[n]);
        match () {
            _ if r == lane => 1 + lanes_inside as u8,
            _ if r == tile => 2 - lanes_inside as u8,
            _ => 0,
        }
    };
    plan.order.sort_by_key(|&n| last(n));
    (kernel, plan)
}
