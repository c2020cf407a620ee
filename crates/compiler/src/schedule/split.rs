//! `split`: definitions -> kernels.
//!
//! Takes an indexed graph; leaves one [`Kernel`] per definition that is global, each in a graph of its own with ranges
//! numbered by its structure. A definition that is one sum or another by where along an axis an element is becomes a kernel for
//! each part of the axis: each computes its own sum alone, and they write parts of one buffer. Axes that are read through a division or remainder by a constant are split so that
//! these disappear: after a rewrite by tiles of 4, a row becomes tile and place in the tile.

use crate::kernel::{Kernel, Store};
use crate::parallel;
use rustc_hash::FxHashMap;
use winograph_ir::indexed::{BufId, Buffer, Def, Graph, Role, Source, Val, ValId};
use winograph_ir::int::{IntId, IntNode, Ints, RangeId};

/// Most kernels of a definition, and axes of it that are split.
const MOST_PARTS: usize = 64;
const MOST_SPLITS: usize = 64;

/// The kernels of each definition, in order, by so many threads.
pub fn split(g: &Graph, workers: usize) -> Vec<Kernel> {
    let of = |_: usize, def: &Def| {
        let mut whole = vec![(extract(g, def), 0)];
        let mut done = Vec::new();
        // Parts come first: an axis that is split is none of which a part can be taken.
        while let Some((mut kernel, splits)) = whole.pop() {
            let cut = if whole.len() + done.len() + 1 < MOST_PARTS { cut(&kernel) } else { None };
            match cut {
                Some((first, second)) => whole.extend([(second, splits), (first, splits)]),
                None if splits < MOST_SPLITS && split_axis(&mut kernel) => whole.push((kernel, splits + 1)),
                None => done.push(kernel),
            }
        }
        done
    };
    parallel::map(workers, &g.defs, of).into_iter().flatten().collect()
}

/// A kernel as two, each with a part of one loop, where its value is another sum in each.
fn cut(kernel: &Kernel) -> Option<(Kernel, Kernel)> {
    let (range, at) = turn(kernel)?;
    let part = |from: i64, size: i64| {
        let mut k = kernel.clone();
        let ints = &mut k.graph.ints;
        let info = ints.range_info(range).clone();
        let size = ints.constant(size);
        let new = ints.new_range_with(size, info.role, info.ordinal);
        let e = ints.range(new);
        let e = ints.add_const(e, from);
        k.replace_ranges(&FxHashMap::from_iter([(range, e)]), &FxHashMap::default(), &[]);
        let kept = (k.graph.ints.const_size(new) != Some(1)).then_some(new);
        k.loops = k.loops.iter().flat_map(|&r| if r == range { kept } else { Some(r) }).collect();
        // What the other part reads is no argument of this one.
        let store = &k.stores[0];
        let mut alone = nest(&k.graph, &k.loops, (store.buffer, store.value), Some(store), k.role);
        alone.args = alone.args.iter().map(|b| k.args[b.0 as usize]).collect();
        alone
    };
    let size = kernel.graph.ints.const_size(range)?;
    Some((part(0, at), part(at, size - at)))
}

/// A loop and its first value for which a choice between two sums has another outcome than for those before.
fn turn(kernel: &Kernel) -> Option<(RangeId, i64)> {
    let g = &kernel.graph;
    let sums = |v: ValId| g.topological(&[v]).into_iter().any(|v| matches!(g.val(v), Val::Reduce { .. }));
    let nodes = g.topological(&kernel.roots());
    if !nodes.iter().any(|&v| matches!(g.val(v), Val::Select { .. })) {
        return None;
    }
    let mut ints = g.ints.clone();
    for v in nodes {
        let Val::Select { gate, a, b } = g.val(v) else { continue };
        for &condition in gate.iter() {
            let [range] = *g.ints.free_ranges(condition) else { continue };
            let Some(size) = g.ints.const_size(range).filter(|_| kernel.loops.contains(&range)) else { continue };
            let Some((step, rest)) = ints.split_linear(condition, range) else { continue };
            let at = match (step, ints.as_const(rest)) {
                (1, Some(rest)) => -rest,
                (-1, Some(rest)) => rest + 1,
                _ => continue,
            };
            if (1..size).contains(&at) && sums(*a) && sums(*b) {
                return Some((range, at));
            }
        }
    }
    None
}

/// Copies what a definition needs into a graph of its own.
pub(super) fn extract(from: &Graph, def: &Def) -> Kernel {
    nest(from, &def.axes, (def.buffer, def.value), None, def.role)
}

/// Copies what a nest of loops needs into a graph of its own. It writes a value to a buffer, at the loops or where a
/// store says.
pub(crate) fn nest(
    from: &Graph,
    axes: &[RangeId],
    (buffer, value): (BufId, ValId),
    at: Option<&Store>,
    role: Role,
) -> Kernel {
    let mut g = Graph::new();
    g.ints = Ints::with_params_of(&from.ints);
    let nodes = from.topological(&[value]);
    let mut ranges: FxHashMap<RangeId, (RangeId, IntId)> = FxHashMap::default();
    let mut loops = Vec::new();
    let mut size_memo = FxHashMap::default();
    let mut declare = |g: &mut Graph, r: RangeId| {
        let info = from.ints.range_info(r);
        let size = g.ints.import(&from.ints, info.size, &|_| None, &mut size_memo);
        let new = g.ints.new_range_with(size, info.role, info.ordinal);
        let e = g.ints.range(new);
        ranges.insert(r, (new, e));
        new
    };
    for &axis in axes {
        loops.push(declare(&mut g, axis));
    }
    for &v in &nodes {
        if let Val::Reduce { ranges: bound, .. } = from.val(v) {
            for &r in bound.iter() {
                declare(&mut g, r);
            }
        }
    }
    let mut args = Vec::new();
    let mut ints: FxHashMap<IntId, IntId> = FxHashMap::default();
    let mut memo: FxHashMap<ValId, ValId> = FxHashMap::default();
    let out = import_buffer(from, &mut g, &mut args, buffer);
    for &v in &nodes {
        let mut int =
            |g: &mut Graph, e: IntId| g.ints.import(&from.ints, e, &|r| ranges.get(&r).map(|x| x.1), &mut ints);
        let new = match from.val(v).clone() {
            Val::Index { value, dtype } => {
                let value = int(&mut g, value);
                g.add(Val::Index { value, dtype })
            }
            Val::Load { src, index, gate, fill, dynamic } => {
                let src = match src {
                    Source::Buffer(b) => Source::Buffer(import_buffer(from, &mut g, &mut args, b)),
                    Source::Table(t) => Source::Table(g.add_table(from.table(t).clone())),
                };
                let index = index.iter().map(|&i| int(&mut g, i)).collect();
                let gate: Vec<IntId> = gate.iter().map(|&i| int(&mut g, i)).collect();
                match g.ints.conjunction(&gate) {
                    None => g.constant(fill),
                    Some(gate) => {
                        let dynamic = dynamic.map(|(axis, d)| (axis, memo[&d]));
                        g.add(Val::Load { src, index, gate, fill, dynamic })
                    }
                }
            }
            Val::Select { gate, a, b } => {
                let gate: Vec<IntId> = gate.iter().map(|&i| int(&mut g, i)).collect();
                g.select(&gate, memo[&a], memo[&b])
            }
            Val::Reduce { op, ranges: bound, order, fused, x } => {
                let bound = bound.iter().map(|r| ranges[r].0).collect();
                g.add(Val::Reduce { op, ranges: bound, order, fused, x: memo[&x] })
            }
            Val::Const(s) => g.constant(s),
            Val::Unary { op, x } => g.unary(op, memo[&x]),
            Val::Binary { op, a, b } => g.binary(op, memo[&a], memo[&b]),
            Val::Fma { a, b, c } => g.add(Val::Fma { a: memo[&a], b: memo[&b], c: memo[&c] }),
            Val::Where { cond, a, b } => g.add(Val::Where { cond: memo[&cond], a: memo[&a], b: memo[&b] }),
            Val::Cast { x, dtype } => g.add(Val::Cast { x: memo[&x], dtype }),
            Val::Bitcast { x, dtype } => g.add(Val::Bitcast { x: memo[&x], dtype }),
        };
        memo.insert(v, new);
    }
    let mut expressions = |g: &mut Graph, list: &[IntId]| -> Vec<IntId> {
        list.iter().map(|&e| g.ints.import(&from.ints, e, &|r| ranges.get(&r).map(|x| x.1), &mut ints)).collect()
    };
    let (index, gate) = match at {
        Some(store) => (expressions(&mut g, &store.index), expressions(&mut g, &store.gate).into()),
        None => (loops.iter().map(|&r| g.ints.range(r)).collect(), [].into()),
    };
    let loops = loops.into_iter().filter(|&r| g.ints.const_size(r) != Some(1)).collect();
    let stores = vec![Store { buffer: out, index, gate, value: memo[&value] }];
    Kernel { graph: g, args, outer: Vec::new(), loops, stores, role }
}

fn import_buffer(from: &Graph, g: &mut Graph, args: &mut Vec<BufId>, id: BufId) -> BufId {
    if let Some(at) = args.iter().position(|&a| a == id) {
        return BufId(at as u32);
    }
    let b = from.buffer(id);
    let mut memo = FxHashMap::default();
    let shape: Vec<IntId> = b.shape.iter().map(|&s| g.ints.import(&from.ints, s, &|_| None, &mut memo)).collect();
    // Memory of the caller is row-major; the rest is decided by `layout`.
    let layout = b.layout.is_some().then(|| g.row_major(&shape));
    args.push(id);
    g.add_buffer(Buffer { name: b.name.clone(), dtype: b.dtype, shape, origin: b.origin, scope: b.scope, layout })
}

/// Splits an axis of which a quotient or remainder by a constant is taken, if there is one.
fn split_axis(kernel: &mut Kernel) -> bool {
    // A reduction's terms cannot be gated as a store can.
    let may = |g: &Graph, r: RangeId, d: i64| {
        kernel.loops.contains(&r) || g.ints.const_size(r).is_some_and(|size| size % d == 0)
    };
    let Some((range, d)) = divided_range(&kernel.graph, &kernel.roots(), &may) else { return false };
    let g = &mut kernel.graph;
    let info = g.ints.range_info(range).clone();
    let up = g.ints.add_const(info.size, d - 1);
    let outer_size = g.ints.div_const(up, d);
    let inner_size = g.ints.constant(d);
    let outer = g.ints.new_range_with(outer_size, info.role, info.ordinal);
    let inner = g.ints.new_range_with(inner_size, info.role, info.ordinal);
    let (o, i) = (g.ints.range(outer), g.ints.range(inner));
    let e = g.ints.sum(&[(o, d), (i, 1)], 0);
    let room = g.ints.sum(&[(info.size, 1), (e, -1)], -1);
    let guard = if g.ints.prove_nonneg(room, &[]) { vec![] } else { vec![room] };
    let parts: Vec<RangeId> = [outer, inner].into_iter().filter(|&r| g.ints.const_size(r) != Some(1)).collect();
    let map = FxHashMap::from_iter([(range, e)]);
    let bound = FxHashMap::from_iter([(range, parts.clone())]);
    kernel.replace_ranges(&map, &bound, &guard);
    kernel.loops = kernel.loops.iter().flat_map(|&r| if r == range { parts.clone() } else { vec![r] }).collect();
    true
}

/// A range of which some expression takes a quotient or remainder by a constant, with the smallest such constant, among
/// those that may be split.
pub(crate) fn divided_range(
    g: &Graph,
    roots: &[ValId],
    may: &dyn Fn(&Graph, RangeId, i64) -> bool,
) -> Option<(RangeId, i64)> {
    let mut found: Option<(RangeId, i64)> = None;
    let mut note = |e: IntId| {
        for_each_node(&g.ints, e, &mut |node| {
            if let IntNode::Div { num, den } | IntNode::Mod { num, den } = *node
                && let IntNode::Range(r) = *g.ints.node(num)
                && let Some(d) = g.ints.as_const(den)
                && may(g, r, d)
                && found.is_none_or(|f| f.0 != r || d < f.1)
            {
                found = Some((r, d));
            }
        })
    };
    for v in g.topological(roots) {
        match g.val(v) {
            Val::Load { index, gate, .. } => index.iter().chain(gate.iter()).for_each(|&e| note(e)),
            Val::Index { value, .. } => note(*value),
            Val::Select { gate, .. } => gate.iter().for_each(|&e| note(e)),
            _ => {}
        }
    }
    found
}

fn for_each_node(ints: &Ints, e: IntId, f: &mut dyn FnMut(&IntNode)) {
    f(ints.node(e));
    match ints.node(e) {
        IntNode::Sum { terms, .. } => terms.iter().for_each(|&(t, _)| for_each_node(ints, t, f)),
        IntNode::Product(factors) => factors.iter().for_each(|&t| for_each_node(ints, t, f)),
        IntNode::Div { num, den } | IntNode::Mod { num, den } => {
            for_each_node(ints, *num, f);
            for_each_node(ints, *den, f);
        }
        _ => {}
    }
}
