//! `canonical`: kernels whose axes are numbered by what they mean.
//!
//! Takes kernels; leaves the same kernels with loops, and axes of the compiler's own buffers, in an order that follows
//! from the program's arguments and outputs alone, and with all of a kernel's numbering derived from that order. The
//! order in which a rewrite listed or made its ranges, and the numbers that anything had, leave no trace but the ordinals
//! of ranges. It is also what makes the axes of a plan (`a0`, `a1`, ...) mean the same for every way to write a program.
//!
//! An axis is named after the axis of an argument or output from which it comes: directly, by way of buffers in between,
//! or by way of a constant table that relates it to such an axis (the positions of a transform). Those that come by way
//! of tables are first, then the axes of outputs, then those of arguments.

use crate::kernel::{Kernel, Store};
use crate::parallel;
use rustc_hash::{FxHashMap, FxHasher};
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use winograph_ir::indexed::{BufId, Buffer, Graph, Origin, Source, Val, ValId};
use winograph_ir::int::{IntId, IntNode, Ints, RangeId};

/// Where an axis comes from; the least of all ways counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    /// Tables on the way.
    tables: u32,
    /// 0 for outputs, 1 for arguments, 2 for constants.
    class: u8,
    slot: usize,
    axis: usize,
    /// Distance of neighbours along that axis, negated: outer parts of a split axis come first.
    distance: i64,
}

/// The place of an axis among others: by way of tables first, then by name, then by size.
fn place(name: Option<Name>, size: i64) -> (bool, std::cmp::Reverse<u32>, Option<Name>, i64) {
    (name.is_none(), std::cmp::Reverse(name.map_or(0, |n| n.tables)), name, size)
}

/// Names of ranges and of the axes of the program's buffers.
#[derive(Default)]
struct Names {
    ranges: FxHashMap<(usize, RangeId), Name>,
    axes: FxHashMap<(usize, usize), Name>,
}

impl Names {
    fn better<K: Hash + Eq>(map: &mut FxHashMap<K, Name>, key: K, name: Name) -> bool {
        let old = map.get(&key);
        let better = old.is_none_or(|o| name < *o);
        if better {
            map.insert(key, name);
        }
        better
    }
}

/// Puts kernels into their canonical form. `own_axes`: the axes of the compiler's own buffers too, and those of size 1
/// are dropped; without it they keep the order in which their ranges were made. `workers`: threads that work on kernels.
pub fn canonical(kernels: &mut [Kernel], buffers: &mut [Buffer], own_axes: bool, workers: usize) {
    let names = names(kernels, buffers);
    if own_axes {
        let mut orders: FxHashMap<usize, Vec<usize>> = FxHashMap::default();
        for k in kernels.iter() {
            for (at, id) in k.args.iter().enumerate() {
                let b = id.0 as usize;
                let local = k.graph.buffer(BufId(at as u32));
                if !matches!(local.origin, Origin::Internal) || local.layout.is_some() || orders.contains_key(&b) {
                    continue;
                }
                let size = |a: usize| k.graph.ints.as_const(local.shape[a]);
                let mut order: Vec<usize> = (0..local.shape.len()).filter(|&a| size(a) != Some(1)).collect();
                order.sort_by_key(|&a| place(names.axes.get(&(b, a)).copied(), size(a).unwrap_or(i64::MAX)));
                orders.insert(b, order);
            }
        }
        for (b, order) in &orders {
            let shape = buffers[*b].shape.clone();
            buffers[*b].shape = order.iter().map(|&a| shape[a]).collect();
        }
        parallel::each(workers, kernels, |k| permute_axes(k, &orders));
    }
    let mut numbered: Vec<(usize, &mut Kernel)> = kernels.iter_mut().enumerate().collect();
    parallel::each(workers, &mut numbered, |(n, k)| {
        let size = |r: RangeId| k.graph.ints.const_size(r).unwrap_or(i64::MAX);
        let mut loops = k.loops.clone();
        loops.sort_by_key(|&r| place(names.ranges.get(&(*n, r)).copied(), size(r)));
        k.loops = loops;
        **k = rebuilt(k);
    });
}

/// Follows axes of arguments and outputs into kernels and through the buffers between them until nothing gets a better
/// name.
fn names(kernels: &[Kernel], buffers: &[Buffer]) -> Names {
    let mut names = Names::default();
    for (b, buffer) in buffers.iter().enumerate() {
        let (class, slot) = match buffer.origin {
            Origin::Output(slot) => (0, slot),
            Origin::Argument(slot) => (1, slot),
            Origin::Constant(slot) => (2, slot),
            Origin::Internal => continue,
        };
        for axis in 0..buffer.shape.len() {
            names.axes.insert((b, axis), Name { tables: 0, class, slot, axis, distance: 0 });
        }
    }
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); buffers.len()];
    for (n, k) in kernels.iter().enumerate() {
        k.args.iter().for_each(|b| users[b.0 as usize].push(n));
    }
    let mut waiting: VecDeque<usize> = (0..kernels.len()).collect();
    let mut waits = vec![true; kernels.len()];
    while let Some(n) = waiting.pop_front() {
        waits[n] = false;
        for b in through(&mut names, n, &kernels[n]) {
            for &user in users[b].iter().filter(|&&user| user != n) {
                if !std::mem::replace(&mut waits[user], true) {
                    waiting.push_back(user);
                }
            }
        }
    }
    names
}

/// Takes names through the accesses of a kernel; the program's buffers with axes that got better ones.
fn through(names: &mut Names, n: usize, k: &Kernel) -> Vec<usize> {
    let mut renamed = Vec::new();
    while step(names, n, k, &mut renamed) {}
    renamed.sort_unstable();
    renamed.dedup();
    renamed
}

/// One step of names through the accesses of a kernel; whether anything changed.
fn step(names: &mut Names, n: usize, k: &Kernel, renamed: &mut Vec<usize>) -> bool {
    let g = &k.graph;
    let mut changed = false;
    let mut access = |names: &mut Names, buffer: BufId, index: &[IntId]| {
        let b = k.args[buffer.0 as usize].0 as usize;
        let own = matches!(g.buffer(buffer).origin, Origin::Internal);
        for (axis, &i) in index.iter().enumerate() {
            for (r, coefficient) in parts(&g.ints, i) {
                if let Some(&name) = names.axes.get(&(b, axis)) {
                    // A single range along an axis of the compiler's own is that axis.
                    let distance = if own { name.distance } else { -coefficient };
                    changed |= Names::better(&mut names.ranges, (n, r), Name { distance, ..name });
                }
                if let (true, Some(&name)) = (own, names.ranges.get(&(n, r)))
                    && Names::better(&mut names.axes, (b, axis), name)
                {
                    changed = true;
                    renamed.push(b);
                }
            }
        }
    };
    for s in &k.stores {
        access(names, s.buffer, &s.index);
    }
    let mut tables = Vec::new();
    for v in g.topological(&k.roots()) {
        match g.val(v) {
            Val::Load { src: Source::Buffer(b), index, .. } => access(names, *b, index),
            Val::Load { src: Source::Table(_), index, .. } => tables.push(index.clone()),
            _ => {}
        }
    }
    for index in tables {
        let ranges: Vec<RangeId> = index.iter().flat_map(|&i| g.ints.free_ranges(i)).copied().collect();
        for &from in &ranges {
            let Some(&name) = names.ranges.get(&(n, from)) else { continue };
            for &to in ranges.iter().filter(|r| **r != from) {
                let name = Name { tables: name.tables + 1, distance: 0, ..name };
                changed |= Names::better(&mut names.ranges, (n, to), name);
            }
        }
    }
    changed
}

/// The ranges of an expression with their coefficients; 0 where they are not linear.
fn parts(ints: &Ints, e: IntId) -> Vec<(RangeId, i64)> {
    let (terms, _) = ints.as_sum(e);
    let mut out = Vec::new();
    for (t, c) in terms {
        match ints.node(t) {
            IntNode::Range(r) => out.push((*r, c)),
            _ => out.extend(ints.free_ranges(t).iter().map(|&r| (r, 0))),
        }
    }
    out
}

/// Puts the axes of the program's own buffers into another order everywhere; axes that are not listed go.
fn permute_axes(k: &mut Kernel, orders: &FxHashMap<usize, Vec<usize>>) {
    let order_of = |args: &[BufId], b: BufId| orders.get(&(args[b.0 as usize].0 as usize)).cloned();
    for at in 0..k.args.len() {
        if let Some(order) = order_of(&k.args, BufId(at as u32)) {
            let b = &mut k.graph.buffers[at];
            b.shape = order.iter().map(|&a| b.shape[a]).collect();
        }
    }
    let mut memo = FxHashMap::default();
    let args = k.args.clone();
    for s in 0..k.stores.len() {
        let store = k.stores[s].clone();
        let value = k.graph.rebuild(store.value, &mut memo, &mut |g, val| match val {
            Val::Load { src: Source::Buffer(b), index, gate, fill, dynamic } => {
                let Some(order) = order_of(&args, b) else {
                    return g.add(Val::Load { src: Source::Buffer(b), index, gate, fill, dynamic });
                };
                let index = order.iter().map(|&a| index[a]).collect();
                // Along an axis of size 1, which goes, there is nothing to look up.
                let place = |axis: u32| order.iter().position(|&a| a == axis as usize);
                let dynamic = dynamic.and_then(|(axis, d)| Some((place(axis)? as u32, d)));
                g.add(Val::Load { src: Source::Buffer(b), index, gate, fill, dynamic })
            }
            other => g.add(other),
        });
        let index = match order_of(&args, store.buffer) {
            Some(order) => order.iter().map(|&a| store.index[a]).collect(),
            None => store.index,
        };
        k.stores[s] = Store { value, index, ..store };
    }
}

/// The kernel in a graph of its own, everything numbered in the order of its loops and of a walk through its values that
/// takes the operands of commutative operations in an order of their structure.
fn rebuilt(k: &Kernel) -> Kernel {
    let from = &k.graph;
    let mut number: FxHashMap<RangeId, u64> = FxHashMap::default();
    for &r in k.outer.iter().chain(&k.loops) {
        let next = number.len() as u64;
        number.entry(r).or_insert(next);
    }
    let hashes = hashes(k, &number);
    let nodes = walk(k, &hashes);
    let mut g = Graph::new();
    g.ints = Ints::with_params_of(&from.ints);
    let mut ranges: FxHashMap<RangeId, IntId> = FxHashMap::default();
    let mut new_id: FxHashMap<RangeId, RangeId> = FxHashMap::default();
    let mut ints: FxHashMap<IntId, IntId> = FxHashMap::default();
    let mut declare = |g: &mut Graph, r: RangeId| {
        if new_id.contains_key(&r) {
            return;
        }
        let info = from.ints.range_info(r);
        let size = g.ints.import(&from.ints, info.size, &|_| None, &mut FxHashMap::default());
        let new = g.ints.new_range_with(size, info.role, info.ordinal);
        ranges.insert(r, g.ints.range(new));
        new_id.insert(r, new);
    };
    for &r in k.outer.iter().chain(&k.loops) {
        declare(&mut g, r);
    }
    // Reductions from the outermost in: the walk has operands first.
    for &v in nodes.iter().rev() {
        if let Val::Reduce { ranges: bound, .. } = from.val(v) {
            bound.iter().for_each(|&r| declare(&mut g, r));
        }
    }
    // Size-1 loops are no loops, but their ranges may be named.
    for s in &k.stores {
        for &i in s.index.iter().chain(s.gate.iter()) {
            from.ints.free_ranges(i).iter().for_each(|&r| declare(&mut g, r));
        }
    }
    for &v in &nodes {
        from.free_ranges(v).iter().for_each(|&r| declare(&mut g, r));
    }
    let mut args: Vec<BufId> = Vec::new();
    let mut buffer = |g: &mut Graph, b: BufId| {
        let program = k.args[b.0 as usize];
        if let Some(at) = args.iter().position(|&a| a == program) {
            return BufId(at as u32);
        }
        let mut decl = from.buffer(b).clone();
        let mut memo = FxHashMap::default();
        decl.shape = decl.shape.iter().map(|&s| g.ints.import(&from.ints, s, &|_| None, &mut memo)).collect();
        // Layouts of what is not the compiler's own are row-major; its own have none yet.
        decl.layout = decl.layout.is_some().then(|| g.row_major(&decl.shape));
        args.push(program);
        g.add_buffer(decl)
    };
    let stored: Vec<BufId> = k.stores.iter().map(|s| buffer(&mut g, s.buffer)).collect();
    let mut memo: FxHashMap<ValId, ValId> = FxHashMap::default();
    let mut int = |g: &mut Graph, e: IntId| g.ints.import(&from.ints, e, &|r| ranges.get(&r).copied(), &mut ints);
    for &v in &nodes {
        let new = match from.val(v).clone() {
            Val::Load { src, index, gate, fill, dynamic } => {
                let src = match src {
                    Source::Buffer(b) => Source::Buffer(buffer(&mut g, b)),
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
            Val::Index { value, dtype } => {
                let value = int(&mut g, value);
                g.add(Val::Index { value, dtype })
            }
            Val::Select { gate, a, b } => {
                let gate: Vec<IntId> = gate.iter().map(|&i| int(&mut g, i)).collect();
                g.select(&gate, memo[&a], memo[&b])
            }
            Val::Reduce { op, ranges: bound, order, fused, x } => {
                let bound = bound.iter().map(|r| new_id[r]).collect();
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
    let stores = k
        .stores
        .iter()
        .zip(stored)
        .map(|(s, buffer)| Store {
            buffer,
            index: s.index.iter().map(|&i| int(&mut g, i)).collect(),
            gate: s.gate.iter().map(|&i| int(&mut g, i)).collect(),
            value: memo[&s.value],
        })
        .collect();
    let renumbered = |list: &[RangeId]| list.iter().map(|r| new_id[r]).collect();
    Kernel { graph: g, args, outer: renumbered(&k.outer), loops: renumbered(&k.loops), stores, role: k.role }
}

fn hashed(f: impl FnOnce(&mut FxHasher)) -> u64 {
    let mut h = FxHasher::default();
    f(&mut h);
    h.finish()
}

/// A hash of what each value computes, free of all numbers of values, ranges and buffers.
fn hashes(k: &Kernel, number: &FxHashMap<RangeId, u64>) -> FxHashMap<ValId, u64> {
    let g = &k.graph;
    let int = |e: IntId| int_hash(&g.ints, e, number);
    let ints = |list: &[IntId], h: &mut FxHasher| list.iter().for_each(|&i| int(i).hash(h));
    // Conditions hold together in any order.
    let gates = |list: &[IntId], h: &mut FxHasher| {
        let mut all: Vec<u64> = list.iter().map(|&i| int(i)).collect();
        all.sort_unstable();
        all.hash(h);
    };
    let mut out: FxHashMap<ValId, u64> = FxHashMap::default();
    for v in g.topological(&k.roots()) {
        let of = |x: ValId| out.get(&x).copied().unwrap_or_default();
        let hash = hashed(|h| {
            std::mem::discriminant(g.val(v)).hash(h);
            g.dtype(v).hash(h);
            match g.val(v) {
                Val::Const(s) => s.bits().hash(h),
                Val::Index { value, .. } => int(*value).hash(h),
                Val::Load { src, index, gate, fill, dynamic } => {
                    match src {
                        Source::Buffer(b) => match g.buffer(*b).origin {
                            Origin::Output(n) => (0, n).hash(h),
                            Origin::Argument(n) => (1, n).hash(h),
                            Origin::Constant(n) => (2, n).hash(h),
                            // Known by what it is indexed with.
                            Origin::Internal => 3.hash(h),
                        },
                        Source::Table(t) => g.table(*t).values.iter().for_each(|s| s.bits().hash(h)),
                    }
                    ints(index, h);
                    gates(gate, h);
                    fill.bits().hash(h);
                    dynamic.map(|(axis, d)| (axis, of(d))).hash(h);
                }
                Val::Unary { op, x } => (*op, of(*x)).hash(h),
                Val::Binary { op, a, b } => {
                    let (a, b) = (of(*a), of(*b));
                    let (a, b) = if op.is_commutative() { (a.min(b), a.max(b)) } else { (a, b) };
                    (*op, a, b).hash(h);
                }
                Val::Fma { a, b, c } => (of(*a).min(of(*b)), of(*a).max(of(*b)), of(*c)).hash(h),
                Val::Where { cond, a, b } => (of(*cond), of(*a), of(*b)).hash(h),
                Val::Select { gate, a, b } => {
                    gates(gate, h);
                    (of(*a), of(*b)).hash(h);
                }
                Val::Cast { x, .. } | Val::Bitcast { x, .. } => of(*x).hash(h),
                Val::Reduce { op, ranges, x, .. } => {
                    (*op, of(*x)).hash(h);
                    ranges.iter().for_each(|&r| g.ints.max_size(r).hash(h));
                }
            }
        });
        out.insert(v, hash);
    }
    out
}

/// A hash of an expression: loops by number, other ranges by size.
fn int_hash(ints: &Ints, e: IntId, number: &FxHashMap<RangeId, u64>) -> u64 {
    if let IntNode::Range(r) = *ints.node(e) {
        return hashed(|h| match number.get(&r) {
            Some(n) => (1u8, *n).hash(h),
            None => (2u8, ints.max_size(r)).hash(h),
        });
    }
    match ints.node(e) {
        IntNode::Div { num, den } => {
            hashed(|h| (3u8, int_hash(ints, *num, number), int_hash(ints, *den, number)).hash(h))
        }
        IntNode::Mod { num, den } => {
            hashed(|h| (4u8, int_hash(ints, *num, number), int_hash(ints, *den, number)).hash(h))
        }
        IntNode::Product(factors) => {
            let mut all: Vec<u64> = factors.iter().map(|&f| int_hash(ints, f, number)).collect();
            all.sort_unstable();
            hashed(|h| (5u8, all).hash(h))
        }
        IntNode::Sum { terms, constant } => {
            let mut all: Vec<(u64, i64)> = terms.iter().map(|&(t, c)| (int_hash(ints, t, number), c)).collect();
            all.sort_unstable();
            hashed(|h| (6u8, all, *constant).hash(h))
        }
        other => hashed(|h| format!("{other:?}").hash(h)),
    }
}

/// Values with their operands first; those of commutative operations in the order of their hashes.
fn walk(k: &Kernel, hashes: &FxHashMap<ValId, u64>) -> Vec<ValId> {
    let g = &k.graph;
    let mut out = Vec::new();
    let mut seen: FxHashMap<ValId, ()> = FxHashMap::default();
    let mut stack: Vec<(ValId, bool)> = k.roots().into_iter().rev().map(|v| (v, false)).collect();
    while let Some((v, ready)) = stack.pop() {
        if seen.contains_key(&v) {
            continue;
        }
        if ready {
            seen.insert(v, ());
            out.push(v);
            continue;
        }
        stack.push((v, true));
        let mut children = g.children(v);
        match g.val(v) {
            Val::Binary { op, .. } if op.is_commutative() => children.sort_by_key(|c| hashes.get(c).copied()),
            Val::Fma { a, b, .. } if hashes.get(a) > hashes.get(b) => children.swap(0, 1),
            _ => {}
        }
        stack.extend(children.into_iter().rev().map(|c| (c, false)));
    }
    out
}
