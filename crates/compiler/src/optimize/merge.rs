//! Several map axes of a kernel as one.

use crate::kernel::Kernel;
use rustc_hash::FxHashMap;
use winograph_ir::int::{IntId, RangeId};

/// How far a kernel's store moves in memory with each of its loops, in elements; `None` where that is not linear.
pub(super) fn store_steps(kernel: &Kernel) -> Vec<Option<i64>> {
    let mut g = kernel.graph.clone();
    let layout = kernel.stores.first().and_then(|s| Some((g.buffer(s.buffer).layout.clone()?, s.index.clone())));
    let Some((layout, index)) = layout else { return vec![None; kernel.loops.len()] };
    let address = g.flatten(&layout, &index);
    kernel.loops.iter().map(|&r| g.ints.split_linear(address, r).map(|s| s.0.abs())).collect()
}

/// Of some axes, those that follow each other in the memory of what is stored, down to the one that moves it least: the
/// slowest first. A walk along them all is a walk through one stretch of memory, or through equally spaced elements.
pub(super) fn stretch(kernel: &Kernel, axes: &[usize]) -> Vec<usize> {
    let steps = store_steps(kernel);
    let size = |a: usize| kernel.graph.ints.const_size(kernel.loops[a]);
    let mut known: Vec<(i64, usize)> = axes.iter().filter_map(|&a| Some((steps[a].filter(|&s| s > 0)?, a))).collect();
    known.sort_unstable();
    let mut out: Vec<usize> = Vec::new();
    let mut next = None;
    for (step, a) in known {
        let Some(n) = size(a) else { break };
        if next.is_some_and(|n| n != Some(step)) {
            break;
        }
        out.push(a);
        next = Some(step.checked_mul(n));
    }
    out.reverse();
    out
}

/// The kernel with axes, the slowest first, as one in the place of the first of them, and where each old axis is now.
/// Sizes must be constants.
pub(super) fn merged(kernel: &Kernel, axes: &[usize]) -> Option<(Kernel, Vec<usize>)> {
    let same = (0..kernel.loops.len()).collect();
    let [first, _, ..] = axes else { return Some((kernel.clone(), same)) };
    let mut out = kernel.clone();
    let ints = &mut out.graph.ints;
    let sizes: Vec<i64> = axes.iter().map(|&a| ints.const_size(kernel.loops[a])).collect::<Option<_>>()?;
    let all = sizes.iter().try_fold(1i64, |n, &s| n.checked_mul(s)).filter(|&n| n < 1 << 31)?;
    let size = ints.constant(all);
    let info = ints.range_info(kernel.loops[*first]).clone();
    let one = ints.new_range_with(size, info.role, info.ordinal);
    let number = ints.range(one);
    let mut map: FxHashMap<RangeId, IntId> = FxHashMap::default();
    let mut inner = 1;
    for (&a, &n) in axes.iter().zip(&sizes).rev() {
        let place = ints.div_const(number, inner);
        map.insert(kernel.loops[a], ints.rem_const(place, n));
        inner *= n;
    }
    out.replace_ranges(&map, &FxHashMap::default(), &[]);
    let mut places = vec![0; kernel.loops.len()];
    let mut loops = Vec::new();
    for (a, &r) in kernel.loops.iter().enumerate() {
        if a == *first || !axes.contains(&a) {
            places[a] = loops.len();
            loops.push(if a == *first { one } else { r });
        }
    }
    axes.iter().for_each(|&a| places[a] = places[*first]);
    out.loops = loops;
    Some((out, places))
}
