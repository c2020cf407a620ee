//! From assignments of threads to a plan: register tiles, vectors, threads that fill a workgroup, and which of the best
//! assignments moves the least once registers are counted.

use super::{Score, Search, THREADS, Threads, order_blocks, permutations};
use crate::optimize::access::{self, Stride, Touch};
use crate::optimize::plan::{Factor, Kind, Plan};
use crate::options::GridRule;
use winograph_ir::indexed::Graph;
use winograph_ir::int::RangeId;

/// Most accumulators of a thread.
const MAX_TILE: i64 = 4;
/// Assignments that are compared with what threads share in registers, at most.
const FINISHED: usize = 4;
/// How many times the sectors of the best such an assignment moves at most, with one element a thread: what keeps the
/// comparison short.
const WITHIN: f64 = 1.5;
/// What an assignment's sectors have to be of an earlier one's to be taken instead: they are estimates.
const CLEARLY: f64 = 0.98;

/// An assignment with what a plan adds to it.
pub(super) struct Finished {
    /// All threads of a workgroup.
    threads: Threads,
    /// Accumulators of a thread: place among the kernel's loops and number.
    tile: Option<(usize, i64)>,
    /// Elements of a vector.
    vector: Option<(usize, i64)>,
    /// With loads that a thread's elements share counted once.
    score: Score,
}

impl Search<'_> {
    /// The assignment to take of those that were ranked, its place among them, and why where it is not the first.
    pub(super) fn choose(&mut self, ranked: &[(Threads, Score)], rule: GridRule) -> (usize, Finished, Option<String>) {
        let first = self.finish(ranked.first().map(|r| r.0.clone()).unwrap_or_default(), rule);
        let (Some((axis, n)), GridRule::Auto) = (first.tile, rule) else { return (0, first, None) };
        let (before, mut best) = (first.score, (0, first));
        let near = |s: &Score| s.more == ranked[0].1.more && s.sectors <= WITHIN * ranked[0].1.sectors;
        let others = ranked.iter().enumerate().take(FINISHED).skip(1).filter(|(_, r)| near(&r.1));
        for (place, (threads, _)) in others {
            let other = self.finish(threads.clone(), rule);
            let of = best.1.score;
            let nearly = Score { sectors: of.sectors * CLEARLY, lines: of.lines * CLEARLY, ..of };
            if other.score.compare(&nearly).is_lt() {
                best = (place, other);
            }
        }
        let why = (best.0 > 0).then(|| {
            let (ours, its) = (best.1.score.sectors, before.sectors);
            let (axis, n) = best.1.tile.unwrap_or((axis, n));
            format!(
                "with {n} elements a thread along a{axis} the assignment numbered {} moves the fewest sectors: about {ours:.0} \
                 where the first moves {its:.0}, lanes without work weighed in",
                best.0 + 1
            )
        });
        (best.0, best.1, why)
    }

    /// What a plan adds to an assignment: vectors where every access along the fast axis is contiguous, a register tile
    /// where a reduction loop reuses operands, more threads until a workgroup is worth starting.
    pub(super) fn finish(&mut self, threads: Threads, rule: GridRule) -> Finished {
        let loops = &self.kernel.loops;
        let reduces = self.kernel.reduce_ranges();
        let looped = reduces.iter().any(|r| !self.unrolled.contains(r));
        let mut threads = threads;
        let mut tile: Option<(usize, i64)> = None;
        if looped {
            let depends = |g: &Graph, t: &Touch, r: RangeId| t.index.iter().any(|&i| g.ints.depends_on(i, r));
            let mut best = 0;
            for a in self.free_axes() {
                let r = loops[a];
                let saved = self.touches.iter().filter(|t| t.in_loop && !t.write && !depends(&self.g, t, r)).count();
                let used: i64 = threads.iter().filter(|t| t.0 == a).map(|t| t.1).product();
                let rest = self.size(a).map_or(1, |s| s / used.max(1));
                let n = (2..=MAX_TILE)
                    .rev()
                    .find(|n| rest % n == 0 && self.size(a).is_some_and(|s| s % (n * used.max(1)) == 0));
                if let (true, Some(n)) = (saved > best, n) {
                    best = saved;
                    tile = Some((a, n));
                }
            }
        }
        let mut vector: Option<(usize, i64)> = None;
        if let Some(&(fast, n)) = threads.first() {
            let size = self.size(fast).unwrap_or(1);
            let widest = self.gpu.access as i64
                / self.touches.iter().map(|t| self.g.buffer(t.buffer).dtype.size() as i64).max().unwrap_or(4);
            let r = loops[fast];
            let mut fits = tile.is_none_or(|t| t.0 != fast);
            for i in 0..self.touches.len() {
                let t = self.touches[i].clone();
                let inner = access::inner_axis(&self.g, t.buffer);
                fits &= matches!(access::stride(&mut self.g, &t, r, inner), Stride::Contiguous | Stride::Uniform)
                    && !t.gate.iter().any(|&c| self.g.ints.depends_on(c, r));
            }
            if fits {
                vector = [4, 2]
                    .into_iter()
                    .find(|v| *v <= widest && size % (v * n) == 0 && (size / v >= n))
                    .map(|v| (fast, v));
            }
        }
        let mut total: i64 = threads.iter().map(|t| t.1).product();
        for a in self.free_axes().into_iter().rev() {
            if total >= THREADS || threads.iter().any(|t| t.0 == a) || tile.is_some_and(|t| t.0 == a) {
                continue;
            }
            let want = (THREADS / total.max(1)).max(1);
            let size = self.size(a).unwrap_or(1);
            if let Some(n) = (2..=want.min(size)).rev().find(|n| size % n == 0) {
                threads.push((a, n));
                total *= n;
            }
        }
        // More of a transform's slowest axis where its workgroup is small still.
        let transform = !self.unrolled.is_empty();
        if let Some((a, n)) = threads.last_mut().filter(|t| transform && tile.is_none_or(|x| x.0 != t.0)) {
            let of_vector = vector.filter(|v| v.0 == *a).map_or(1, |v| v.1);
            let size = self.size(*a).unwrap_or(1) / of_vector;
            if let Some(m) = (2..=THREADS / total.max(1)).rev().find(|m| size % (*n * m) == 0) {
                *n *= m;
            }
        }
        let elements: Vec<(usize, i64)> = tile.into_iter().chain(vector).collect();
        let mut best = (self.score_sharing(&threads, &elements), threads.clone());
        // With the threads that came later another order may put better neighbours into a warp.
        if rule == GridRule::Auto && threads.len() > 1 {
            let axes: Vec<usize> = (0..threads.len()).collect();
            for order in permutations(&axes) {
                let trial: Threads = order.iter().map(|&n| threads[n]).collect();
                let score = self.score_sharing(&trial, &elements);
                let nearly = Score { sectors: best.0.sectors * 0.999, lines: best.0.lines * 0.999, ..best.0 };
                if score.compare(&nearly).is_lt() {
                    best = (score, trial);
                }
            }
        }
        Finished { threads: best.1, tile, vector, score: best.0 }
    }

    /// The plan for a finished assignment.
    pub(super) fn build(&self, finished: &Finished, rule: GridRule) -> Plan {
        let Finished { threads, tile, vector, .. } = finished;
        let loops = &self.kernel.loops;
        let reduces = self.kernel.reduce_ranges();
        let any = |kind: Kind| Factor { kind, size: None };
        let of = |kind: Kind, size: i64| Factor { kind, size: Some(size) };
        let mut plan = Plan::default();
        for (a, r) in loops.iter().enumerate() {
            if self.unrolled.contains(r) {
                plan.loops.push(vec![any(Kind::Unroll)]);
                continue;
            }
            let mut factors = vec![any(Kind::Grid)];
            factors.extend(tile.filter(|t| t.0 == a).map(|t| of(Kind::Unroll, t.1)));
            factors.extend(threads.iter().filter(|t| t.0 == a).map(|t| of(Kind::Thread, t.1)));
            factors.extend(vector.filter(|t| t.0 == a).map(|t| of(Kind::Vector, t.1)));
            plan.loops.push(factors);
        }
        for r in &reduces {
            plan.reduces.push(vec![any(if self.unrolled.contains(r) { Kind::Unroll } else { Kind::Loop })]);
        }
        plan.order = (0..loops.len()).collect();
        if rule == GridRule::Auto {
            let shared = self.shared_by_blocks(&plan);
            order_blocks(&mut plan.order, &shared);
        }
        plan.threads = threads.iter().rev().map(|t| t.0).collect();
        if rule == GridRule::RangeId {
            let ordinal = |a: &usize| self.g.ints.range_info(loops[*a]).ordinal;
            // Outermost first: blocks ascend, so that the last one made is fastest; threads descend.
            plan.order.sort_by_key(ordinal);
            plan.threads.sort_by_key(|a| std::cmp::Reverse(ordinal(a)));
        }
        plan
    }
}
