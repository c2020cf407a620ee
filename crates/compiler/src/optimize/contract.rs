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
use crate::tune::{Ends, Registers};
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
    let candidates: Vec<RangeId> = kernel.loops.iter().copied().filter(own).collect();
    // What copies read at once lies side by side where the operand is contiguous along their axis.
    let tile = candidates.into_iter().rev().max_by_key(|&r| {
        let size = g.ints.const_size(r).unwrap_or(0);
        let side_by_side = others.iter().any(|t| {
            let inner = access::inner_axis(&g, t.buffer);
            access::stride(&mut g, t, r, inner) == Stride::Contiguous
        });
        (size.min(FEW_COPIES), side_by_side, size)
    })?;
    Some(Product { lane, tile, others, along })
}

/// Copies that are enough for accumulators to hide what a multiply-add waits.
const FEW_COPIES: i64 = 7;

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

/// The regions of a kernel, and what they were made by.
pub struct Regions {
    /// Kernels with their plans.
    pub parts: Vec<(Kernel, Plan)>,
    /// The register block of most of them, if vectors fill the lanes' axis at all.
    pub registers: Option<Registers>,
    /// What became of the rows that do not fill a vector, if there are any and either would do.
    pub ends: Option<Ends>,
    /// Why the registers that were asked for are not taken.
    pub refused: Option<String>,
}

/// The regions of a kernel with their plans; `None` where it is not a product of two operands that differ in their axes.
/// What is not asked for is chosen.
pub fn regions(kernel: &Kernel, target: &Target, asked: (Option<Registers>, Option<Ends>)) -> Option<Regions> {
    let Product { lane: (lane, lanes), tile, along, others } = product(kernel, target)?;
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
    let alone = kernel.loops.len() == 2;
    let fits = |r: &Registers| r.vectors >= 1 && r.copies >= 1 && r.vectors * (r.copies + 1) < registers;
    let given = asked.0.filter(fits);
    let refused = match (asked.0, given) {
        (Some(r), None) => Some(format!("{}x{} accumulators in {registers} registers", r.vectors, r.copies)),
        _ => None,
    };
    let moves =
        |touches: &[Touch], r: RangeId| touches.iter().any(|t| t.index.iter().any(|&i| g.ints.depends_on(i, r)));
    let is_position = |r: &&RangeId| ![lane, tile].contains(r) && moves(&along, **r) && moves(&others, **r);
    let long = terms >= LONG && !kernel.loops.iter().any(|r| is_position(&r));
    let chosen = groups_of(vectors, beside(columns, registers, alone), registers, long);
    let most = |vectors: i64| copies(vectors, columns, registers, alone).first().map_or(1, |c| c.0);
    let block = chosen.first().map(|&vectors| Registers { vectors, copies: most(vectors) });
    // Loops that move the other operand alone are inside of those over groups of vectors where that reads less again:
    // all of the other operand for each group, instead of all vectors for each step of theirs.
    let beside_others = |r: &RangeId| *r != lane && *r != tile && !moves(&along, *r) && moves(&others, *r);
    let mut inside: Vec<RangeId> = kernel.loops.iter().copied().filter(beside_others).collect();
    if size <= columns.saturating_mul(chosen.len() as i64) {
        inside.clear();
    }
    // What would be chosen is chosen, with groups of which the last may be larger.
    let given = given.filter(|g| Some(*g) != block);
    let asked_groups = given.map(|Registers { vectors: group, .. }| {
        let mut out = vec![group; (vectors / group) as usize];
        out.extend((vectors % group > 0).then_some(vectors % group));
        out
    });
    for nv in asked_groups.unwrap_or(chosen) {
        match groups.last_mut() {
            Some((n, count)) if *n == nv => *count += 1,
            _ => groups.push((nv, 1)),
        }
    }
    let whole = |start: i64, len: i64, nv: i64, lanes: i64, out: &mut Vec<(Kernel, Plan)>| -> Option<()> {
        let mut at = 0;
        let parts = match given.filter(|g| g.vectors == nv).map(|g| g.copies.min(columns)) {
            Some(n) if columns % n > 0 => vec![(n, columns / n), (columns % n, 1)],
            Some(n) => vec![(n, columns / n)],
            None => copies(nv, columns, registers, alone),
        };
        for (n, count) in parts {
            let (k, l, t) = region(kernel, lane, Part { start, len }, tile, Part { start: at, len: n * count });
            out.push(plan(k, l, t, &[(nv, lanes)], n, &inside, false));
            at += n * count;
        }
        Some(())
    };
    for &(nv, count) in &groups {
        whole(start, nv * count * lanes, nv, lanes, &mut out)?;
        start += nv * count * lanes;
    }
    let rest = size - start;
    let used = groups.first().map(|&(vectors, _)| match given.filter(|g| g.vectors == vectors) {
        Some(given) => Registers { vectors, copies: given.copies.min(columns) },
        None => Registers { vectors, copies: most(vectors) },
    });
    let mut ends = None;
    if rest > 0 {
        // Cycles for all columns, two multiply-adds at a time, four cycles for one that waits for the one before.
        let masked = (columns * terms) as f64 / 2.0;
        let turned_vectors = (columns / full).min((registers - 2) / (rest + 1)).clamp(1, 6);
        let accumulators = rest * turned_vectors;
        let slow = (8.0 / accumulators as f64).max(1.0);
        let turned_cost = (rest * columns / full * terms) as f64 / 2.0 * slow + 2.0 * (rest * columns) as f64;
        let turned = turned && rest * 2 + 3 <= registers;
        let better = if turned_cost < masked { Ends::Turned } else { Ends::Masked };
        let end = asked.1.unwrap_or(better);
        ends = turned.then_some(end);
        if turned && end == Ends::Turned {
            let mut at = 0;
            let all = columns / full;
            while at < all {
                let n = turned_vectors.min(all - at);
                let span = (all - at) / n * n;
                let part = Part { start: at * full, len: span * full };
                let (k, l, t) = region(kernel, lane, Part { start, len: rest }, tile, part);
                out.push(plan(k, t, l, &[(n, full)], rest, &[], true));
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
    Some(Regions { parts: out, registers: used, ends, refused })
}

/// Terms of a sum from which on two vectors by fourteen columns beat four by four: 256 and 512 take 0.87 to 0.96 of the time in
/// resnet50 on a Xeon with AVX-512 (`winograph run --profile`), 64 take 1.02 to 1.11, where storing more accumulators tells. In
/// products of many positions two by twelve take 1.2 to 1.3 times as long.
const LONG: i64 = 256;

/// Registers from which on three vectors beside each other have copies enough.
const MANY_REGISTERS: i64 = 32;

/// Vectors that blocks of accumulators have beside each other. With 32 registers three, whose eight copies make up 24
/// accumulators. With 16 registers three have four copies; two have six, which take two thirds as much of the operand along
/// the lanes a multiply-add, the one that comes from further away, and leave a register free, without which clang
/// may spill. Where six or five do not divide the columns there are two regions, each of which reads that operand once:
/// that pays where the product is `alone` and a pass finds it in cache, not where all positions are between two passes.
fn beside(columns: i64, registers: i64, alone: bool) -> i64 {
    if registers < MANY_REGISTERS && (alone || columns % 6 == 0 || columns % 5 == 0) { 2 } else { 3 }
}

/// Vectors side by side, in groups of `most` where there are that many. One that is left joins the last group;
/// with few registers, or sums of many terms, four are two groups of two, which load as much and take half as much of the
/// operand along the lanes.
fn groups_of(vectors: i64, most: i64, registers: i64, long: bool) -> Vec<i64> {
    let mut out = vec![most; (vectors / most) as usize];
    match (vectors % most, out.last_mut()) {
        (0, _) => {}
        (1, Some(last)) => *last += 1,
        (rest, _) => out.push(rest),
    }
    if (registers < MANY_REGISTERS || long) && out.last() == Some(&4) {
        out.pop();
        out.extend([2, 2]);
    }
    out
}

/// Copies along an axis of `columns` beside `vectors` vectors, and how often: as many as registers allow, dividing the axis
/// where that costs few, and otherwise of two sizes that differ by one.
fn copies(vectors: i64, columns: i64, registers: i64, alone: bool) -> Vec<(i64, i64)> {
    let most = ((registers - 1 - vectors) / vectors).clamp(1, 16).min(columns);
    let least = if registers < MANY_REGISTERS && alone { (4 * most + 4) / 5 } else { most / 2 + 1 };
    if let Some(n) = (least..=most).rev().find(|&n| columns % n == 0) {
        return vec![(n, columns / n)];
    }
    let count = (columns + most - 1) / most;
    let small = columns / count;
    let larger = columns % count;
    [(small + 1, larger), (small, count - larger)].into_iter().filter(|p| p.1 > 0).collect()
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

/// The plan with lanes along one axis and copies along another. `inside` are loops inside of the lanes' loop,
/// `lanes_inside` nests that inside of the copies'.
fn plan(
    kernel: Kernel,
    lane: Option<RangeId>,
    tile: Option<RangeId>,
    block: &[(i64, i64)],
    copies: i64,
    inside: &[RangeId],
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
            _ if r == lane => 1 + 2 * lanes_inside as u8,
            _ if r == tile => 3 - 2 * lanes_inside as u8,
            _ if inside.contains(&kernel.loops[n]) => 2,
            _ => 0,
        }
    };
    plan.order.sort_by_key(|&n| last(n));
    (kernel, plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_copies_cover_an_axis_and_fit_the_registers() {
        for registers in [16, 32] {
            for alone in [false, true] {
                for columns in 1..=130 {
                    let most = beside(columns, registers, alone);
                    for vectors in 0..40 {
                        let groups = groups_of(vectors, most, registers, columns % 2 == 0);
                        assert_eq!(groups.iter().sum::<i64>(), vectors);
                        for nv in groups {
                            let copies = copies(nv, columns, registers, alone);
                            assert_eq!(copies.iter().map(|p| p.0 * p.1).sum::<i64>(), columns);
                            assert!(copies.iter().all(|p| p.0 >= 1 && p.1 >= 1), "{copies:?}");
                            assert!(copies.iter().all(|p| p.0 * nv + nv < registers), "{nv} x {copies:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn few_registers_take_two_vectors_where_nothing_is_read_twice() {
        let blocks = |columns, registers, alone| {
            let groups = groups_of(6, beside(columns, registers, alone), registers, false);
            (groups.clone(), copies(groups[0], columns, registers, alone))
        };
        assert_eq!([false, true].map(|long| groups_of(4, 3, 32, long)), [vec![4], vec![2, 2]]);
        assert_eq!(blocks(64, 32, false), (vec![3, 3], vec![(8, 8)]));
        assert_eq!(blocks(64, 16, false), (vec![3, 3], vec![(4, 16)]));
        assert_eq!(blocks(64, 16, true), (vec![2, 2, 2], vec![(6, 9), (5, 2)]));
        assert_eq!(blocks(96, 16, false), (vec![2, 2, 2], vec![(6, 16)]));
    }
}
