//! Plans of kernels that a workgroup runs one after another: its threads share what one of them computes with the next one
//! through shared memory, so that no axis is the grid's.

use super::access;
use super::heuristic;
use super::plan::{Factor, Kind, Plan, PlanError};
use crate::kernel::Kernel;
use crate::target::Gpu;
use winograph_ir::indexed::{Graph, Scope};
use winograph_ir::int::RangeId;

/// Threads of a workgroup at most, where kernels have as many elements.
pub(crate) const THREADS: i64 = 256;
/// Elements that a thread sums side by side, so that what they share is loaded once.
pub(crate) const BESIDE: i64 = 4;

/// The plan of a kernel inside of a workgroup. Threads go along the axes whose neighbours are the nearest in global memory
/// first; of a product each computes some elements that share what comes from global memory; what is left are loops.
pub fn plan(kernel: &Kernel, gpu: &Gpu) -> Plan {
    let unrolled = heuristic::unrolled(kernel);
    let factor = |kind, size| Factor { kind, size };
    let loops = kernel.loops.len();
    let mut plan =
        Plan { loops: vec![vec![]; loops], reduces: Vec::new(), order: (0..loops).collect(), ..Plan::default() };
    let reduces = kernel.reduce_ranges();
    let rolled = reduces.iter().any(|r| !unrolled.contains(r));
    plan.reduces = reduces
        .iter()
        .map(|r| vec![factor(if unrolled.contains(r) { Kind::Unroll } else { Kind::Loop }, None)])
        .collect();
    let size = |a: usize| kernel.graph.ints.const_size(kernel.loops[a]);
    let free: Vec<usize> = (0..loops).filter(|&a| !unrolled.contains(&kernel.loops[a]) && size(a).is_some()).collect();
    let mut g = kernel.graph.clone();
    let touches = access::touches(kernel, &unrolled);
    let mut near: Vec<(i64, usize)> = free.iter().map(|&a| (distance(&mut g, &touches, kernel.loops[a]), a)).collect();
    near.sort_unstable();
    // An axis along which nothing comes from global memory.
    let beside = near.iter().rev().filter(|_| rolled).map(|n| n.1).find(|&a| {
        let reads = |t: &&access::Touch| !t.write && g.buffer(t.buffer).scope == Scope::Global;
        let moves = |t: &access::Touch| t.index.iter().any(|&i| g.ints.depends_on(i, kernel.loops[a]));
        size(a).is_some_and(|n| n > 1) && !touches.iter().filter(reads).any(moves)
    });
    let mut left = THREADS.min(gpu.max_threads as i64).max(1);
    let mut fastest_first = Vec::new();
    for &(_, a) in &near {
        let all = size(a).unwrap_or(1).max(1);
        let tile = if beside == Some(a) { divisor(all, BESIDE) } else { 1 };
        let threads = divisor(all / tile, left);
        left /= threads;
        let factors = &mut plan.loops[a];
        if threads * tile < all || (threads == 1 && tile == 1) {
            factors.push(factor(Kind::Loop, None));
        }
        if threads > 1 {
            factors.push(factor(Kind::Thread, Some(threads)));
            fastest_first.push(a);
        }
        if tile > 1 {
            factors.push(factor(Kind::Unroll, Some(tile)));
        }
    }
    for a in (0..loops).filter(|a| !free.contains(a)) {
        let kind = if unrolled.contains(&kernel.loops[a]) { Kind::Unroll } else { Kind::Loop };
        plan.loops[a].push(factor(kind, None));
    }
    plan.threads = fastest_first.into_iter().rev().collect();
    plan
}

/// The largest divisor of a size up to a number.
pub(crate) fn divisor(size: i64, most: i64) -> i64 {
    (1..=most.min(size).max(1)).rev().find(|d| size % d == 0).unwrap_or(1)
}

/// How far apart neighbours along a range are in global memory: where they are stored, or else loaded.
fn distance(g: &mut Graph, touches: &[access::Touch], range: RangeId) -> i64 {
    let mut of = |write: bool| -> Option<i64> {
        let mine = touches.iter().filter(|t| t.write == write && !t.dynamic);
        mine.filter_map(|t| {
            let buffer = g.buffer(t.buffer);
            let layout = buffer.layout.clone().filter(|_| buffer.scope == Scope::Global)?;
            let address = g.flatten(&layout, &t.index);
            let (step, _) = g.ints.split_linear(address, range)?;
            (step != 0).then_some(step.abs())
        })
        .min()
    };
    of(true).or_else(|| of(false)).unwrap_or(i64::MAX)
}

/// Whether a plan is one of a kernel inside of a workgroup.
///
/// # Errors
/// Why it is none.
pub fn check(plan: &Plan, gpu: &Gpu) -> Result<(), PlanError> {
    let all = || plan.loops.iter().chain(&plan.reduces).flatten();
    if let Some(f) = all().find(|f| matches!(f.kind, Kind::Matrix | Kind::Shared)) {
        return Err(PlanError::Mismatch(format!("a {} factor inside of a workgroup", f.kind.name())));
    }
    let threads = all().filter(|f| f.kind == Kind::Thread).filter_map(|f| f.size).fold(1i64, i64::saturating_mul);
    match threads > gpu.max_threads as i64 {
        true => Err(PlanError::Mismatch(format!("{threads} threads, the target has at most {}", gpu.max_threads))),
        false => Ok(()),
    }
}
