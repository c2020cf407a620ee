//! `flatten`: axes of the compiler's own buffers that a reduction only walks along together become one.
//!
//! Takes kernels before `layout`; leaves buffers with fewer axes. Where a kernel with a reduction loop has two map loops
//! that index neighbouring axes of each buffer they occur in, and nothing else, the two loops become one and so do the
//! axes: rows and columns of tiles become a single axis of tiles, of which vectors may be taken without regard to
//! where a row ends. Other kernels that touch the buffers compute the flat index.

use crate::kernel::Kernel;
use crate::optimize::heuristic;
use rustc_hash::FxHashMap;
use winograph_ir::indexed::{BufId, Graph, Origin, Source, Val};
use winograph_ir::int::{IntId, RangeId};

/// Two loops of a kernel that may become one, and the first of the two axes in each buffer: the program's.
struct Pair {
    kernel: usize,
    first: RangeId,
    second: RangeId,
    axes: Vec<(BufId, usize)>,
}

/// Flattens until nothing is left to flatten.
pub fn flatten(kernels: &mut [Kernel]) {
    for n in 0..kernels.len() {
        while let Some(pair) = find(kernels, n) {
            apply(kernels, &pair);
        }
    }
}

fn find(kernels: &[Kernel], n: usize) -> Option<Pair> {
    let k = &kernels[n];
    let unrolled = heuristic::unrolled(k);
    if k.reduce_ranges().iter().all(|r| unrolled.contains(r)) {
        return None;
    }
    let candidates: Vec<RangeId> = k.loops.iter().copied().filter(|r| !unrolled.contains(r)).collect();
    for &first in &candidates {
        for &second in candidates.iter().filter(|&&r| r != first) {
            if let Some(axes) = together(k, first, second) {
                let pair = Pair { kernel: n, first, second, axes };
                if kernels.iter().all(|k| allows(k, &pair)) {
                    return Some(pair);
                }
            }
        }
    }
    None
}

/// The axes that two loops index in every access of a kernel, if they only occur as neighbours.
fn together(k: &Kernel, first: RangeId, second: RangeId) -> Option<Vec<(BufId, usize)>> {
    let g = &k.graph;
    let touches = |e: IntId| g.ints.depends_on(e, first) || g.ints.depends_on(e, second);
    let mut axes: Vec<(BufId, usize)> = Vec::new();
    let mut access = |buffer: BufId, index: &[IntId], gate: &[IntId]| {
        if gate.iter().any(|&e| touches(e)) {
            return false;
        }
        let used: Vec<usize> = (0..index.len()).filter(|&a| touches(index[a])).collect();
        match used[..] {
            [] => true,
            [a, b] if b == a + 1 && is_range(g, index[a], first) && is_range(g, index[b], second) => {
                let whole = |axis: usize, r: RangeId| g.ints.size(r) == g.buffer(buffer).shape[axis];
                let own = matches!(g.buffer(buffer).origin, Origin::Internal) && g.buffer(buffer).layout.is_none();
                let id = k.args[buffer.0 as usize];
                if axes.iter().all(|x| x.0 != id) {
                    axes.push((id, a));
                }
                own && whole(a, first) && whole(b, second) && axes.contains(&(id, a))
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
    (!axes.is_empty()).then_some(axes)
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

fn apply(kernels: &mut [Kernel], pair: &Pair) {
    for (n, k) in kernels.iter_mut().enumerate() {
        let g = &mut k.graph;
        let mut flat = None;
        if n == pair.kernel {
            let (a, b) = (g.ints.size(pair.first), g.ints.size(pair.second));
            let size = g.ints.mul(a, b);
            let info = g.ints.range_info(pair.first).clone();
            let range = g.ints.new_range_with(size, info.role, info.ordinal);
            flat = Some(g.ints.range(range));
            let at = k.loops.iter().position(|r| *r == pair.first);
            if let Some(at) = at {
                k.loops[at] = range;
            }
            k.loops.retain(|r| *r != pair.second);
        }
        // Elements are counted in the old shape.
        let sizes: FxHashMap<BufId, (usize, IntId)> = pair
            .axes
            .iter()
            .filter_map(|&(id, axis)| {
                let at = k.args.iter().position(|a| *a == id)?;
                Some((BufId(at as u32), (axis, k.graph.buffers[at].shape[axis + 1])))
            })
            .collect();
        let first = pair.first;
        let merge = |g: &mut Graph, buffer: BufId, index: &[IntId]| -> Vec<IntId> {
            let Some(&(axis, size)) = sizes.get(&buffer) else { return index.to_vec() };
            let mut index = index.to_vec();
            let inner = index.remove(axis + 1);
            index[axis] = match flat {
                Some(flat) if is_range(g, index[axis], first) => flat,
                _ => {
                    let outer = g.ints.mul(index[axis], size);
                    g.ints.add(outer, inner)
                }
            };
            index
        };
        let mut memo = FxHashMap::default();
        for n in 0..k.stores.len() {
            let g = &mut k.graph;
            let store = &mut k.stores[n];
            store.value = g.rebuild(store.value, &mut memo, &mut |g, val| match val {
                Val::Load { src: Source::Buffer(b), index, gate, fill, dynamic } if sizes.contains_key(&b) => {
                    let index = merge(g, b, &index);
                    g.add(Val::Load { src: Source::Buffer(b), index: index.into(), gate, fill, dynamic })
                }
                other => g.add(other),
            });
            store.index = merge(g, store.buffer, &store.index);
        }
        for (buffer, (axis, size)) in sizes {
            let shape = &mut k.graph.buffers[buffer.0 as usize].shape;
            let inner = shape.remove(axis + 1);
            debug_assert_eq!(inner, size);
            shape[axis] = k.graph.ints.mul(shape[axis], inner);
        }
    }
}
