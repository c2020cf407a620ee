//! `flatten`: axes of the compiler's own buffers that a reduction only walks along together become one.
//!
//! Takes kernels before `layout`; leaves buffers with fewer axes. Where a kernel with a reduction loop has two map loops
//! that index axes of each buffer they occur in, and nothing else, the two loops become one and so do the
//! axes: rows and columns of tiles become a single axis of tiles, of which vectors may be taken without regard to
//! where a row ends. Other kernels that touch the buffers compute the flat index.

use super::scope;
use crate::kernel::Kernel;
use crate::optimize::heuristic;
use rustc_hash::FxHashMap;
use winograph_ir::indexed::{BufId, Graph, Origin, Source, Val};
use winograph_ir::int::{IntId, Ints, RangeId};

/// The kernels that touch each buffer of the program.
type Users = FxHashMap<BufId, Vec<usize>>;

/// A buffer with its axes of two ranges, outer and inner.
type Axes = (BufId, usize, usize);

/// Two ranges of a kernel that may become one, and the two axes in each buffer: the program's.
struct Pair {
    kernel: usize,
    first: RangeId,
    second: RangeId,
    axes: Vec<Axes>,
}

/// Flattens those kernels that `which` names until nothing is left to flatten. Where either of two axes may become the
/// inner one, that is one that fills `lanes`: the vectors of kernels that know them as two then fit into its rows. With
/// `loops`, kernels that touch the buffers walk along the flat axis too, and divide for what they know as two: neighbouring
/// threads then have neighbouring elements, whatever the length of a row.
pub fn flatten(kernels: &mut [Kernel], lanes: i64, loops: bool, which: &dyn Fn(usize, &Kernel) -> bool) {
    let users = scope::users(kernels);
    for n in 0..kernels.len() {
        if !which(n, &kernels[n]) {
            continue;
        }
        let mut refused: Vec<(RangeId, RangeId)> = Vec::new();
        while let Some(pair) = find(kernels, n, Some((&users, lanes)), &refused) {
            let touched = touched(&pair, &users);
            let before: Vec<(usize, Kernel)> = touched.iter().map(|&i| (i, kernels[i].clone())).collect();
            touched.iter().for_each(|&i| apply(i, &mut kernels[i], &pair));
            // A flat index may be harder to prove than two.
            if before.iter().any(|(i, _)| kernels[*i].unproved().is_some()) {
                refused.push((pair.first, pair.second));
                before.into_iter().for_each(|(i, k)| kernels[i] = k);
            } else if loops {
                touched.iter().filter(|&&i| i != n).for_each(|&i| walk(&mut kernels[i], &pair));
            }
        }
    }
}

/// Merges those loops of one kernel that index nothing but memory whose layout is fixed: the kernel sees fewer axes.
pub fn views(kernel: &mut Kernel) {
    let mut kernels = [kernel.clone()];
    while let Some(pair) = find(&kernels, 0, None, &[]) {
        apply(0, &mut kernels[0], &pair);
    }
    if kernels[0].unproved().is_none() {
        let [k] = kernels;
        *kernel = k;
    }
}

/// Makes two loops of a kernel one where an axis that became flat is indexed by both, and the kernel can still be proved.
fn walk(kernel: &mut Kernel, pair: &Pair) {
    let unrolled = heuristic::unrolled(kernel);
    let free = |r: &RangeId| kernel.loops.contains(r) && !unrolled.contains(r);
    let both = |&(id, axis, inner): &Axes| -> Option<(RangeId, RangeId)> {
        let at = kernel.args.iter().position(|a| *a == id)?;
        let axis = if inner < axis { axis - 1 } else { axis };
        let index = indices(kernel, BufId(at as u32)).into_iter().map(|i| i.get(axis).copied());
        let mut ints = kernel.graph.ints.clone();
        let mut found = None;
        for e in index {
            let pair = two_ranges(&mut ints, e?).filter(|(a, b)| free(a) && free(b))?;
            if found.is_some_and(|f| f != pair) {
                return None;
            }
            found = Some(pair);
        }
        found
    };
    let Some((first, second)) = pair.axes.iter().find_map(both) else { return };
    let mut k = kernel.clone();
    let ints = &mut k.graph.ints;
    let Some(rows) = ints.const_size(second) else { return };
    let (a, b) = (ints.size(first), ints.size(second));
    let size = ints.mul(a, b);
    let info = ints.range_info(first).clone();
    let range = ints.new_range_with(size, info.role, info.ordinal);
    let flat = ints.range(range);
    let (outer, inner) = (ints.div_const(flat, rows), ints.rem_const(flat, rows));
    k.replace_ranges(&FxHashMap::from_iter([(first, outer), (second, inner)]), &FxHashMap::default(), &[]);
    k.loops = kernel.loops.iter().filter(|r| **r != second).map(|&r| if r == first { range } else { r }).collect();
    if k.unproved().is_none() {
        *kernel = k;
    }
}

/// The indices of all accesses to a buffer.
fn indices(k: &Kernel, buffer: BufId) -> Vec<Box<[IntId]>> {
    let loads = k.loads().into_iter().filter_map(|v| match k.graph.val(v) {
        Val::Load { src: Source::Buffer(b), index, .. } if *b == buffer => Some(index.clone()),
        _ => None,
    });
    let stores = k.stores.iter().filter(|s| s.buffer == buffer).map(|s| s.index.clone().into());
    loads.chain(stores).collect()
}

/// The ranges `a` and `b` of an index `a * (size of b) + b`.
fn two_ranges(ints: &mut Ints, e: IntId) -> Option<(RangeId, RangeId)> {
    let (terms, 0) = ints.as_sum(e) else { return None };
    let range = |t: IntId| match ints.node(t) {
        winograph_ir::int::IntNode::Range(r) => Some(*r),
        _ => None,
    };
    let inner = terms.iter().find(|t| t.1 == 1).and_then(|t| range(t.0))?;
    let outer = terms.iter().find(|t| t.1 != 1).and_then(|t| range(t.0))?;
    (terms.len() == 2 && flat_of(ints, e, outer, inner).is_some()).then_some((outer, inner))
}

/// The kernel itself and all others that read or write a buffer whose axes become one.
fn touched(pair: &Pair, users: &Users) -> Vec<usize> {
    let of = |x: &Axes| users.get(&x.0).cloned().unwrap_or_default();
    let mut all: Vec<usize> = pair.axes.iter().flat_map(of).chain([pair.kernel]).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Finds a pair in a kernel. Without `users`, one that changes nothing but how the kernel itself sees its memory.
fn find(kernels: &[Kernel], n: usize, users: Option<(&Users, i64)>, refused: &[(RangeId, RangeId)]) -> Option<Pair> {
    let k = &kernels[n];
    let unrolled = heuristic::unrolled(k);
    let reduces = k.reduce_ranges();
    if reduces.iter().all(|r| unrolled.contains(r)) {
        return None;
    }
    let maps: Vec<RangeId> = k.loops.iter().copied().filter(|r| !unrolled.contains(r)).collect();
    // Sums walk along reduced axes in order: only those that follow each other there may become one.
    let sums = reduces.windows(2).filter(|w| k.reduces().len() == 1 && w.iter().all(|r| !unrolled.contains(r)));
    let mut pairs: Vec<(RangeId, RangeId)> =
        maps.iter().flat_map(|&a| maps.iter().map(move |&b| (a, b))).filter(|(a, b)| a != b).collect();
    if let Some((_, lanes)) = users {
        pairs.sort_by_key(|&(_, inner)| k.graph.ints.max_size(inner) < lanes);
    }
    for (first, second) in pairs.into_iter().chain(sums.map(|w| (w[0], w[1]))) {
        // Vectors are taken of axes of known size.
        let known = |r: RangeId| k.graph.ints.const_size(r).is_some();
        if refused.contains(&(first, second)) || known(first) != known(second) {
            continue;
        }
        if let Some(axes) = together(k, first, second) {
            let fixed = |b: &BufId| {
                let at = k.args.iter().position(|a| a == b);
                at.is_some_and(|at| k.graph.buffers[at].layout.is_some())
            };
            let pair = Pair { kernel: n, first, second, axes };
            let fits = match users {
                None => pair.axes.iter().all(|x| fixed(&x.0)),
                Some((users, _)) => touched(&pair, users).iter().all(|&i| allows(&kernels[i], &pair)),
            };
            if fits {
                return Some(pair);
            }
        }
    }
    None
}

/// The axes that two ranges index in every access of a kernel, if they only occur as neighbours.
fn together(k: &Kernel, first: RangeId, second: RangeId) -> Option<Vec<Axes>> {
    let mut ints = k.graph.ints.clone();
    let g = &k.graph;
    let touches = |e: IntId| g.ints.depends_on(e, first) || g.ints.depends_on(e, second);
    let reduced = !k.loops.contains(&first);
    let mut axes: Vec<Axes> = Vec::new();
    let mut as_one = false;
    let mut access = |buffer: BufId, index: &[IntId], gate: &[IntId]| {
        let step = |ints: &mut Ints, e: IntId| {
            !ints.depends_on(e, second) && ints.split_linear(e, first).is_some_and(|(c, _)| c.abs() == 1)
        };
        if gate.iter().any(|&e| touches(e) && (reduced || !step(&mut ints, e))) {
            return false;
        }
        let used: Vec<usize> = (0..index.len()).filter(|&a| touches(index[a])).collect();
        match used[..] {
            [] => !gate.iter().any(|&e| touches(e)),
            [a] if reduced && flat_of(&mut ints, index[a], first, second).is_some() => {
                as_one = true;
                true
            }
            [a, b] if is_range(g, index[b], second) && step(&mut ints, index[a]) => {
                let whole = g.ints.size(second) == g.buffer(buffer).shape[b];
                let forward = ints.split_linear(index[a], first).is_some_and(|(c, _)| c == 1);
                // Axes of buffers that have no layout yet may be moved beside each other.
                let own = g.buffer(buffer).origin == Origin::Internal;
                let known = if own { g.buffer(buffer).layout.is_none() } else { b == a + 1 };
                let id = k.args[buffer.0 as usize];
                if axes.iter().all(|x| x.0 != id) {
                    axes.push((id, a, b));
                }
                whole && forward && known && axes.contains(&(id, a, b))
            }
            _ => false,
        }
    };
    for s in &k.stores {
        if !access(s.buffer, &s.index, &s.gate) {
            return None;
        }
    }
    for v in g.topological(&k.roots()) {
        let fits = match g.val(v) {
            Val::Load { src: Source::Buffer(b), index, gate, dynamic: None, .. } => access(*b, index, gate),
            Val::Load { index, gate, .. } => !index.iter().chain(gate.iter()).any(|&e| touches(e)),
            Val::Index { value, .. } => !touches(*value),
            Val::Select { gate, .. } => !gate.iter().any(|&e| touches(e)),
            _ => true,
        };
        if !fits {
            return None;
        }
    }
    (as_one || !axes.is_empty()).then_some(axes)
}

/// `(c, rest)` if an index is `c * (first * size of second + second) + rest`: it counts the two as one already.
fn flat_of(ints: &mut Ints, index: IntId, first: RangeId, second: RangeId) -> Option<(i64, IntId)> {
    let size = ints.const_size(second)?;
    let (inner, rest) = ints.split_linear(index, second)?;
    let (outer, rest) = ints.split_linear(rest, first)?;
    (inner != 0 && inner.checked_mul(size) == Some(outer)).then_some((inner, rest))
}

fn is_range(g: &Graph, e: IntId, r: RangeId) -> bool {
    matches!(g.ints.node(e), winograph_ir::int::IntNode::Range(x) if *x == r)
}

/// Whether no kernel looks the axes up by data.
fn allows(k: &Kernel, pair: &Pair) -> bool {
    k.loads().into_iter().all(|v| match k.graph.val(v) {
        Val::Load { src: Source::Buffer(b), dynamic: Some(_), .. } => {
            pair.axes.iter().all(|x| k.args[b.0 as usize] != x.0)
        }
        _ => true,
    })
}

/// Merges the axes in kernel `n`, and the loops if it is the pair's own.
fn apply(n: usize, k: &mut Kernel, pair: &Pair) {
    let g = &mut k.graph;
    let mut flat = None;
    if n == pair.kernel {
        let (a, b) = (g.ints.size(pair.first), g.ints.size(pair.second));
        let size = g.ints.mul(a, b);
        let info = g.ints.range_info(pair.first).clone();
        let range = g.ints.new_range_with(size, info.role, info.ordinal);
        flat = Some((range, g.ints.range(range), b));
        let at = k.loops.iter().position(|r| *r == pair.first);
        if let Some(at) = at {
            k.loops[at] = range;
        }
        k.loops.retain(|r| *r != pair.second);
    }
    // Elements are counted in the old shape. Memory whose layout is fixed is seen in another way by this kernel alone.
    let sizes: FxHashMap<BufId, (usize, usize, IntId)> = pair
        .axes
        .iter()
        .filter_map(|&(id, axis, inner)| {
            let at = k.args.iter().position(|a| *a == id)?;
            let mine = n == pair.kernel || k.graph.buffers[at].layout.is_none();
            mine.then(|| (BufId(at as u32), (axis, inner, k.graph.buffers[at].shape[inner])))
        })
        .collect();
    let (first, second) = (pair.first, pair.second);
    let merge = |g: &mut Graph, buffer: BufId, index: &[IntId]| -> Vec<IntId> {
        let Some(&(axis, inner, size)) = sizes.get(&buffer) else {
            let Some((_, flat, _)) = flat else { return index.to_vec() };
            let as_one = |e: &IntId| match flat_of(&mut g.ints, *e, first, second) {
                Some((c, rest)) => g.ints.sum(&[(flat, c), (rest, 1)], 0),
                None => *e,
            };
            return index.iter().map(as_one).collect();
        };
        let mut index = index.to_vec();
        let inner = index.remove(inner);
        let along = flat.and_then(|(_, flat, _)| Some((flat, g.ints.split_linear(index[axis], first)?)));
        index[axis] = match along {
            Some((flat, (1, rest))) if is_range(g, inner, second) => {
                let before = g.ints.mul(rest, size);
                g.ints.add(before, flat)
            }
            _ => {
                let outer = g.ints.mul(index[axis], size);
                g.ints.add(outer, inner)
            }
        };
        index
    };
    // `first >= t` says of the flat range that it is at least `t * size`, `first <= t` that it is below the next.
    let condition = |g: &mut Graph, gate: &[IntId]| -> Vec<IntId> {
        let Some((_, flat, size)) = flat else { return gate.to_vec() };
        gate.iter()
            .map(|&e| match g.ints.split_linear(e, first) {
                Some((1, rest)) => {
                    let rest = g.ints.mul(rest, size);
                    g.ints.add(rest, flat)
                }
                Some((-1, rest)) => {
                    let next = g.ints.add_const(rest, 1);
                    let next = g.ints.mul(next, size);
                    g.ints.sum(&[(next, 1), (flat, -1)], -1)
                }
                _ => e,
            })
            .collect()
    };
    let mut memo = FxHashMap::default();
    for n in 0..k.stores.len() {
        let g = &mut k.graph;
        let store = &mut k.stores[n];
        store.value = g.rebuild(store.value, &mut memo, &mut |g, val| match val {
            Val::Load { src: Source::Buffer(b), index, gate, fill, dynamic } => {
                let index = merge(g, b, &index);
                let gate = condition(g, &gate);
                // What held of both ranges holds of the flat one.
                let Some(gate) = g.ints.conjunction(&gate) else { return g.constant(fill) };
                g.add(Val::Load { src: Source::Buffer(b), index: index.into(), gate, fill, dynamic })
            }
            Val::Reduce { op, ranges, order, fused, x } => {
                let ranges = match flat {
                    Some((range, _, _)) => {
                        ranges.iter().filter(|r| **r != second).map(|&r| if r == first { range } else { r }).collect()
                    }
                    None => ranges,
                };
                g.add(Val::Reduce { op, ranges, order, fused, x })
            }
            other => g.add(other),
        });
        store.index = merge(g, store.buffer, &store.index);
        let gate = condition(g, &store.gate);
        store.gate = g.ints.conjunction(&gate).unwrap_or_else(|| [g.ints.constant(-1)].into());
    }
    for (buffer, (axis, inner, size)) in sizes {
        let b = &mut k.graph.buffers[buffer.0 as usize];
        let inner = b.shape.remove(inner);
        debug_assert_eq!(inner, size);
        let outer = b.shape[axis];
        let both = k.graph.ints.mul(outer, inner);
        let b = &mut k.graph.buffers[buffer.0 as usize];
        b.shape[axis] = both;
        if b.layout.is_some() {
            let shape = b.shape.clone();
            let layout = k.graph.row_major(&shape);
            k.graph.buffers[buffer.0 as usize].layout = Some(layout);
        }
    }
}
