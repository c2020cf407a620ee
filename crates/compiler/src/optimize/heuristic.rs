//! The plan that a kernel gets without search.
//!
//! Ranges of constant tables are unrolled, the lane is the range that costs least by address evaluation, a kernel with
//! a reduction loop gets a register tile that minimises loads per multiply-add, and what is left becomes the grid, in
//! the order of the output's memory unless keeping an operand in cache asks for another one.

use super::access::{self, Stride, Touch};
use super::plan::{Factor, Kind, Plan, reorders};
use super::rows;
use crate::kernel::Kernel;
use crate::target::Target;
use winograph_ir::indexed::{Graph, Origin, Val};
use winograph_ir::int::RangeId;
use winograph_ir::op::BinaryOp;

/// Largest number of values that unrolling may make of one value.
const MAX_UNROLL: i64 = 1024;
/// Vector operations that a work item should have at least: below that, handing it out costs more than running it.
const MIN_ITEM_WORK: f64 = 2000.0;
/// What combining the lanes of a vector costs, in vector instructions.
const FOLD: f64 = 8.0;
/// Work items that a kernel should keep if it has them, so that threads share evenly.
const MIN_ITEMS: f64 = 32.0;

/// The ranges that the heuristic unrolls whatever else it does: those of constant tables, the innermost first where
/// all together would be too many.
pub fn unrolled(kernel: &Kernel) -> Vec<RangeId> {
    let g = &kernel.graph;
    let all = access::table_ranges(kernel);
    let reduces = kernel.reduce_ranges();
    let mut out: Vec<RangeId> = Vec::new();
    let (mut maps, mut terms) = (1i64, 1i64);
    // Later loops are the inner transforms: unroll those first.
    let mut sorted = all.clone();
    let position = |r: &RangeId| {
        let loops = kernel.loops.len();
        kernel
            .loops
            .iter()
            .position(|l| l == r)
            .unwrap_or_else(|| loops + reduces.iter().position(|l| l == r).unwrap_or(0))
    };
    sorted.sort_by_key(|r| std::cmp::Reverse(position(r)));
    for r in sorted {
        let size = g.ints.const_size(r).unwrap_or(i64::MAX);
        let is_map = kernel.loops.contains(&r);
        let count = if is_map { &mut maps } else { &mut terms };
        if count.saturating_mul(size) > MAX_UNROLL {
            continue;
        }
        *count *= size;
        out.push(r);
    }
    out
}

/// What could be the lane, with its width: first `None` for scalar code. A GPU's lanes store wherever they like.
pub fn lane_options(
    target: &Target,
    g: &Graph,
    touches: &[Touch],
    loops: &[RangeId],
    unrolled: &[RangeId],
    max_lanes: i64,
) -> Vec<Option<(RangeId, i64)>> {
    let mut out = vec![None];
    for &r in loops {
        let Some(size) = g.ints.const_size(r) else { continue };
        if unrolled.contains(&r) || size < 2 {
            continue;
        }
        // Stores need an address per lane that is linear in the lane.
        let irregular = |t: &&Touch| t.index.iter().filter(|&&i| g.ints.depends_on(i, r)).count() > 1;
        if target.gpu.is_none() && touches.iter().filter(|t| t.write).any(|t| irregular(&t)) {
            continue;
        }
        let mut lanes = max_lanes;
        while lanes >= 2 * size {
            lanes /= 2;
        }
        if lanes < 2 {
            continue;
        }
        out.push(Some((r, lanes)));
        // Half a vector that is full may beat a vector that is not.
        if size % lanes != 0 {
            out.extend([lanes / 2, lanes / 4].into_iter().filter(|&l| l >= 4 && l <= size).map(|l| Some((r, l))));
        }
    }
    out
}

/// The lane that costs least, with its width; `None` where scalar code is no worse.
pub(super) fn best_lane(
    g: &mut Graph,
    kernel: &Kernel,
    touches: &[Touch],
    unrolled: &[RangeId],
    target: &Target,
) -> Option<(RangeId, i64)> {
    let max_lanes = full_lanes(kernel, target);
    let mut best = (f64::INFINITY, None);
    for lane in lane_options(target, g, touches, &kernel.loops, unrolled, max_lanes) {
        let mut cost = 0.0;
        for t in touches {
            let inner = access::inner_axis(g, t.buffer);
            cost += access::touch_cost(g, t, lane, inner, target);
        }
        if cost < best.0 * 0.999 {
            best = (cost, lane);
        }
    }
    best.1
}

/// The reduce range along which vectors of partial results cost less than any lane along a map range, with its width.
///
/// That is where what is summed lies contiguous along it and nowhere else: rows that are summed, a matrix times few
/// columns. Products of buffers that the compiler owns are left to `layout`, which can have them otherwise.
fn summed_lane(
    g: &mut Graph,
    kernel: &Kernel,
    touches: &[Touch],
    unrolled: &[RangeId],
    target: &Target,
) -> Option<(RangeId, i64)> {
    if target.gpu.is_some() {
        return None;
    }
    let outputs: f64 = touches.iter().filter(|t| t.write).map(|t| t.runs).sum();
    let cost = |g: &mut Graph, lane: Option<(RangeId, i64)>, reduced: bool| -> f64 {
        let of = |t: &Touch| {
            let inner = access::inner_axis(g, t.buffer);
            access::touch_cost(g, t, if reduced && !t.in_loop { None } else { lane }, inner, target)
        };
        touches.iter().map(of).sum()
    };
    let max_lanes = full_lanes(kernel, target);
    let options = lane_options(target, g, touches, &kernel.loops, unrolled, max_lanes);
    let least = options.into_iter().map(|lane| cost(g, lane, false)).fold(f64::INFINITY, f64::min);
    let own = |t: &Touch| kernel.graph.buffer(t.buffer).origin == Origin::Internal;
    let product = kernel.reduces().iter().any(|&v| match kernel.graph.val(v) {
        Val::Reduce { x, .. } => matches!(kernel.graph.val(*x), Val::Binary { op: BinaryOp::Mul, .. }),
        _ => false,
    });
    let mut best = (least, None);
    for r in kernel.reduce_ranges().into_iter().filter(|r| !unrolled.contains(r)) {
        let Some(size) = g.ints.const_size(r) else { continue };
        let Some(lanes) = (0..6).map(|n| max_lanes >> n).take_while(|l| *l >= 4).find(|l| size % l == 0) else {
            continue;
        };
        if !reorders(kernel, r) {
            continue;
        }
        let mut contiguous = touches.iter().filter(|t| {
            let inner = access::inner_axis(g, t.buffer);
            t.in_loop && access::stride(g, t, r, inner) == Stride::Contiguous
        });
        if contiguous.all(|t| product && own(t)) {
            continue;
        }
        let cost = cost(g, Some((r, lanes)), true) + FOLD * outputs;
        if cost < best.0 * 0.999 {
            best = (cost, Some((r, lanes)));
        }
    }
    best.1
}

/// Lanes of a full vector of the widest float or integer type that a kernel computes with.
pub fn full_lanes(kernel: &Kernel, target: &Target) -> i64 {
    let g = &kernel.graph;
    let widest = g
        .topological(&kernel.roots())
        .into_iter()
        .filter(|&v| !matches!(g.val(v), Val::Const(_)))
        .map(|v| g.dtype(v).compute().size())
        .max()
        .unwrap_or(4);
    target.gpu.as_ref().map_or_else(|| target.lanes(widest.max(4)), |gpu| gpu.lanes as i64)
}

/// The plan for a kernel whose buffers have layouts.
pub fn plan(kernel: &Kernel, target: &Target) -> Plan {
    let mut g = kernel.graph.clone();
    let unroll = unrolled(kernel);
    let touches = access::touches(kernel, &unroll);
    let reduces = kernel.reduce_ranges();
    let summed = summed_lane(&mut g, kernel, &touches, &unroll, target);
    let lane = match summed {
        Some(_) => None,
        None => best_lane(&mut g, kernel, &touches, &unroll, target),
    };
    let looped: Vec<RangeId> = reduces.iter().copied().filter(|r| !unroll.contains(r)).collect();

    let mut vectors = 1i64;
    let mut tile: Vec<Tile> = Vec::new();
    if !looped.is_empty() {
        (vectors, tile) = register_tile(&mut g, kernel, target, &touches, &unroll, lane, summed);
    }

    // Without a reduction loop, short rows share a vector.
    let rows = lane.filter(|_| looped.is_empty() && target.gpu.is_none()).and_then(|(r, _)| {
        let rows = rows::fold(&mut g, &kernel.loops, &unroll, &touches, r, full_lanes(kernel, target))?;
        Some((rows, g.ints.const_size(r)?))
    });

    let any = |kind: Kind| Factor { kind, size: None };
    let of = |kind: Kind, size: i64| Factor { kind, size: Some(size) };
    let mut plan = Plan::default();
    for &r in &kernel.loops {
        let mut factors = Vec::new();
        if unroll.contains(&r) {
            factors.push(any(Kind::Unroll));
        } else if let Some(((_, n), _)) = rows.filter(|x| x.0.0 == r) {
            factors.push(any(Kind::Grid));
            factors.push(of(Kind::Vector, n));
        } else if let (Some((_, row)), true) = (rows, lane.is_some_and(|x| x.0 == r)) {
            factors.push(of(Kind::Vector, row));
        } else if let Some((_, l)) = lane.filter(|x| x.0 == r) {
            factors.push(any(Kind::Grid));
            if vectors > 1 {
                factors.push(of(Kind::Unroll, vectors));
            }
            factors.push(of(Kind::Vector, l));
        } else if let Some(&(_, n)) = tile.iter().find(|x| x.0 == r) {
            factors.push(any(Kind::Grid));
            factors.push(of(Kind::Unroll, n));
        } else {
            factors.push(any(Kind::Grid));
        }
        plan.loops.push(factors);
    }
    for r in &reduces {
        plan.reduces.push(match summed.filter(|x| x.0 == *r) {
            Some((_, l)) => vec![any(Kind::Loop), of(Kind::Vector, l)],
            None => vec![any(if unroll.contains(r) { Kind::Unroll } else { Kind::Loop })],
        });
    }
    plan.order = loop_order(&mut g, kernel, &touches, &unroll, lane, &tile);
    grid_to_loops(&g, kernel, &mut plan, &looped, &unroll);
    plan
}

/// Copies along a map range.
type Tile = (RangeId, i64);

/// Vectors along the lane and copies along up to two other map ranges that need the fewest loads per multiply-add and
/// fit the registers.
fn register_tile(
    g: &mut Graph,
    kernel: &Kernel,
    target: &Target,
    touches: &[Touch],
    unroll: &[RangeId],
    lane: Option<(RangeId, i64)>,
    summed: Option<(RangeId, i64)>,
) -> (i64, Vec<Tile>) {
    let loads: Vec<&Touch> = touches.iter().filter(|t| t.in_loop && !t.write).collect();
    let registers = target.vector_registers as i64;
    let depends = |t: &Touch, r: RangeId| t.index.iter().any(|&i| g.ints.depends_on(i, r));
    let lane_size = lane.and_then(|(r, l)| g.ints.const_size(r).map(|s| ((s + l - 1) / l, s % l == 0)));
    let mut single: Vec<Vec<Tile>> = Vec::new();
    // Of two axes that save the same, the inner one: its copies lie closer together.
    for &r in kernel.loops.iter().rev().filter(|r| !unroll.contains(r) && lane.is_none_or(|l| l.0 != **r)) {
        if let Some(s) = g.ints.const_size(r) {
            single.push((2..=16).filter(|n| s % n == 0).map(|n| (r, n)).collect());
        }
    }
    let mut tiles: Vec<Vec<Tile>> = vec![vec![]];
    for (i, options) in single.iter().enumerate() {
        for &a in options {
            tiles.push(vec![a]);
            for &b in single[i + 1..].iter().flatten().filter(|b| a.1 * b.1 < registers) {
                tiles.push(vec![a, b]);
            }
        }
    }
    let mut best = (f64::INFINITY, 1i64, Vec::new());
    for vectors in 1..=4i64 {
        match lane_size {
            Some((n, true)) if n % vectors == 0 => {}
            _ if vectors == 1 => {}
            _ => continue,
        }
        for tile in &tiles {
            let copies: i64 = tile.iter().map(|t| t.1).product();
            // One register per accumulator, one per vector operand, one for a broadcast.
            if vectors * copies + vectors + 1 > registers {
                continue;
            }
            let mut cost = 0.0;
            for t in &loads {
                let along_lane = lane.or(summed).is_some_and(|(r, _)| depends(t, r));
                let along_tile: i64 = tile.iter().filter(|x| depends(t, x.0)).map(|x| x.1).product();
                let count = if along_lane { vectors } else { 1 } * along_tile;
                // A scalar operand is broadcast on the way from memory and costs less than a vector load.
                cost += count as f64 * if along_lane { 1.0 } else { 0.6 };
            }
            let accumulators = vectors * copies;
            // A chain of dependent multiply-adds needs about eight of them in flight.
            let latency = if accumulators < 8 { 8.0 / accumulators as f64 } else { 1.0 };
            let score = (1.0 + cost / accumulators as f64) * latency * (1.0 + 0.02 * tile.len() as f64);
            if score < best.0 * 0.999 {
                best = (score, vectors, tile.clone());
            }
        }
    }
    (best.1, best.2)
}

/// The nesting order of map loops.
///
/// Without a register tile: the output's memory order, but for a range along which strided accesses of the lane are
/// contiguous, which goes innermost so that a cache line is used up before it is evicted. With one: ranges that both
/// operands of the reduction share are outermost, then those of the larger operand, so that the one that is read again
/// and again is the smaller.
fn loop_order(
    g: &mut Graph,
    kernel: &Kernel,
    touches: &[Touch],
    unroll: &[RangeId],
    lane: Option<(RangeId, i64)>,
    tile: &[Tile],
) -> Vec<usize> {
    let mut order: Vec<usize> = (0..kernel.loops.len()).collect();
    if let Some(store) = kernel.stores.first()
        && let Some(layout) = g.buffer(store.buffer).layout.clone()
    {
        let addr = g.flatten(&layout, &store.index);
        let weight: Vec<i64> = kernel
            .loops
            .iter()
            .map(|&r| g.ints.split_linear(addr, r).map_or(i64::MAX, |(c, _)| if c == 0 { i64::MAX } else { c.abs() }))
            .collect();
        order.sort_by_key(|&i| std::cmp::Reverse(weight[i]));
    }
    let depends = |g: &Graph, t: &Touch, r: RangeId| t.index.iter().any(|&i| g.ints.depends_on(i, r));
    if let (Some((lane, _)), Some(&(tile, _))) = (lane, tile.first()) {
        let operand = |with: RangeId, without: RangeId| -> Vec<&Touch> {
            touches.iter().filter(|t| t.in_loop && !t.write && depends(g, t, with) && !depends(g, t, without)).collect()
        };
        let (along_lane, along_tile) = (operand(lane, tile), operand(tile, lane));
        let only = |mine: &[&Touch], other: &[&Touch], r: RangeId| {
            mine.iter().any(|t| depends(g, t, r)) && !other.iter().any(|t| depends(g, t, r))
        };
        let is_lane: Vec<bool> = kernel.loops.iter().map(|&r| only(&along_lane, &along_tile, r)).collect();
        let is_tile: Vec<bool> = kernel.loops.iter().map(|&r| only(&along_tile, &along_lane, r)).collect();
        let size = |of: &[bool]| -> f64 {
            (0..of.len()).filter(|&i| of[i]).map(|i| g.ints.max_size(kernel.loops[i]) as f64).product()
        };
        let lane_outside = size(&is_lane) >= size(&is_tile);
        order.sort_by_key(|&i| match (is_lane[i], is_tile[i]) {
            (true, _) => 1 + !lane_outside as u8,
            (_, true) => 1 + lane_outside as u8,
            _ => 0,
        });
    } else if let Some((lane, _)) = lane {
        let mut best = (0.0, None);
        for (i, &r) in kernel.loops.iter().enumerate().filter(|(_, r)| **r != lane && !unroll.contains(r)) {
            let mut reused = 0.0;
            for t in touches {
                let inner = access::inner_axis(g, t.buffer);
                let apart = match access::stride(g, t, lane, inner) {
                    Stride::Strided(bytes) => bytes.is_none_or(|b| b > 64),
                    Stride::Irregular => true,
                    _ => false,
                };
                if apart && access::stride(g, t, r, inner) == Stride::Contiguous {
                    reused += t.runs;
                }
            }
            if reused > best.0 {
                best = (reused, Some(i));
            }
        }
        if let Some(inner) = best.1 {
            order.retain(|&i| i != inner);
            order.push(inner);
        }
    }
    // Unrolled axes have no loops; their place is of no consequence, but the plan is read by people.
    order.sort_by_key(|&i| unroll.contains(&kernel.loops[i]));
    order
}

/// Turns inner grid loops into loops within an item until an item is worth handing out.
fn grid_to_loops(g: &Graph, kernel: &Kernel, plan: &mut Plan, looped: &[RangeId], unroll: &[RangeId]) {
    let terms: f64 = looped.iter().map(|&r| g.ints.max_size(r) as f64).product();
    let nodes = g
        .topological(&kernel.roots())
        .into_iter()
        .filter(|&v| !matches!(g.val(v), Val::Const(_) | Val::Index { .. }))
        .count() as f64;
    let copies: f64 = unroll.iter().map(|&r| g.ints.max_size(r) as f64).product();
    let tile: f64 =
        plan.loops.iter().flatten().filter(|f| f.kind == Kind::Unroll).filter_map(|f| f.size).product::<i64>() as f64;
    let mut work = terms * nodes * copies.max(1.0) * tile;
    let count = |plan: &Plan, axis: usize| -> f64 {
        let size = g.ints.max_size(kernel.loops[axis]);
        let inner: i64 = plan.loops[axis][1..].iter().filter_map(|f| f.size).product();
        ((size + inner - 1) / inner) as f64
    };
    let mut items: f64 =
        (0..plan.loops.len()).filter(|&a| plan.loops[a][0].kind == Kind::Grid).map(|a| count(plan, a)).product();
    for &axis in plan.order.clone().iter().rev() {
        if plan.loops[axis][0].kind != Kind::Grid {
            continue;
        }
        let n = count(plan, axis);
        if work >= MIN_ITEM_WORK || items / n < MIN_ITEMS {
            break;
        }
        plan.loops[axis][0].kind = Kind::Loop;
        work *= n;
        items /= n;
    }
}
