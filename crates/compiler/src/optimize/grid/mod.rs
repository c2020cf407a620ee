//! `grid`: which axes become threads, lanes and blocks on a GPU, by the addresses that a warp touches.
//!
//! Takes a kernel whose buffers have layouts; leaves a plan. Candidates are pairs of a fast and a slow thread axis with
//! their sizes. For each, every access's address is evaluated for the lanes of a few warps (first, middle and last
//! block: masks matter), distinct sectors are counted and weighted by how often the access runs. It works through
//! divisions, remainders and masks, since it evaluates and does not match. Ties go to the simpler candidate. Where a
//! thread computes several elements, so that loads are shared in registers, the best few are compared once more with
//! what each thread shares. Blocks are
//! ordered by the bytes that neighbours have in common: the axis along which they share the most is the fastest.

mod finish;

use super::access::{self, Touch};
use super::blocks;
use super::heuristic;
use super::matrix_unit::matrix_unit;
use super::plan::{Factor, Kind, Plan, PlanError};
use crate::kernel::Kernel;
use crate::lower::shared;
use crate::options::GridRule;
use crate::target::Gpu;
use rustc_hash::FxHashMap;
use winograph_ir::DType;
use winograph_ir::indexed::{Graph, Origin};
use winograph_ir::int::{IntId, IntNode, RangeId};

/// What was decided for one kernel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GridReport {
    /// The kernel's accesses in the order in which candidates list them: `load` or `store` and the buffer.
    pub accesses: Vec<String>,
    /// Assignments of threads that were evaluated, those that move the fewest sectors and lines first: at most twelve of
    /// them.
    pub candidates: Vec<Candidate>,
    /// How many there were.
    pub evaluated: usize,
    /// Which of them the plan has; `None` where its threads come from elsewhere.
    pub chosen: Option<usize>,
    /// Why the plan is as it is.
    pub reason: String,
    /// Axes that are cut into blocks, outermost first, and the bytes that a block's loads have in common with those of
    /// its neighbour along the axis.
    pub blocks: Vec<(usize, f64)>,
}

/// An assignment of threads to axes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Candidate {
    /// Axes and sizes, the fastest first, as `a3:8 then a4:4`.
    pub threads: String,
    /// Sectors that a launch would move with one element a thread, estimated from a few warps.
    pub sectors: f64,
    /// What each access adds to them, as often as it runs.
    pub accesses: Vec<f64>,
}

/// Threads along axes, the fastest first: place among the kernel's loops and size.
type Threads = Vec<(usize, i64)>;

/// Threads that a workgroup gets if the kernel has them.
const THREADS: i64 = 128;
/// Most threads of a workgroup that stores one run of memory.
const MAX_RUN: i64 = 512;
/// Elements of four bytes in a sector.
const ROW: i64 = 8;
/// Bytes of a cache line.
const LINE: usize = 128;
/// Candidates that a report lists.
const REPORTED: usize = 12;

/// What an access moves in a launch, estimated: sectors, and those of them beyond what its elements fill, where it stores
/// to a buffer of the compiler's own.
#[derive(Clone, Copy)]
struct Cost {
    sectors: f64,
    lines: f64,
    excess: f64,
}

/// What decides between assignments, estimated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Whether stores to the compiler's own buffers move more sectors than their elements fill.
    pub more: bool,
    /// Sectors that a launch moves.
    pub sectors: f64,
    /// Cache lines that they lie in, warp by warp, of kernels that unroll many accesses to planes, as transforms do; else 0.
    pub lines: f64,
}

impl Score {
    fn compare(&self, other: &Score) -> std::cmp::Ordering {
        self.more.cmp(&other.more).then(self.cost().total_cmp(&other.cost()))
    }

    /// Sectors, and lines beside them: sectors that lie in one line go to memory together. Input transforms on an H100 took
    /// 0.8 of the time with whole lines.
    fn cost(&self) -> f64 {
        self.sectors + self.lines
    }
}

struct Search<'a> {
    g: Graph,
    kernel: &'a Kernel,
    touches: Vec<Touch>,
    addresses: Vec<Option<IntId>>,
    unrolled: Vec<RangeId>,
    gpu: &'a Gpu,
}

/// The plan for a kernel on a GPU, and what else was considered.
pub fn plan(kernel: &Kernel, gpu: &Gpu, rule: GridRule) -> (Plan, GridReport) {
    let search = Search::new(kernel, gpu);
    let ranked = search.ranked(rule);
    let mut report = search.report(&ranked);
    if let Some(blocks) = blocks::plan(kernel, gpu)
        && let Ok(plan) = complete(kernel, &blocks, gpu, rule)
        && plan.apply(kernel).is_ok_and(|s| shared::bytes(&s) <= gpu.shared)
    {
        report.reason = format!(
            "a product of {:.0} million multiply-adds is staged in shared memory by blocks, whatever a warp's own accesses \
             would cost",
            multiply_adds(kernel) / 1e6
        );
        report.blocks = shared_bytes(kernel, gpu, &plan);
        return (plan, report);
    }
    report.reason = match &ranked[..] {
        [(_, a), (_, b), ..] if b.more && !a.more => {
            format!(
                "no other stores in whole sectors; it moves {:.2} times the sectors of the next",
                a.sectors / b.sectors
            )
        }
        [(_, a), (_, b), ..] if a.sectors < b.sectors => {
            format!("it moves the fewest sectors, {:.1} % below the next", (1.0 - a.sectors / b.sectors) * 100.0)
        }
        [(_, a), (_, b), ..] if a.compare(b).is_lt() => {
            format!(
                "what it stores lies in fewer lines of the caches: {:.0} where the next has {:.0}",
                a.lines, b.lines
            )
        }
        [(_, a), ..] => match ranked.iter().take_while(|r| r.1.compare(a).is_le()).count() {
            1 => "it is the only assignment".to_string(),
            ties => format!(
                "{ties} assignments move the fewest sectors; ties go to fewer axes, then to outer axes and smaller sizes"
            ),
        },
        [] => String::new(),
    };
    let mut search = search;
    let (chosen, finished, why) = search.choose(&ranked, rule);
    report.chosen = Some(chosen);
    if let Some(why) = why {
        report.reason = why;
    }
    let plan = search.build(&finished, rule);
    report.blocks = search.shared_by_blocks(&plan);
    (plan, report)
}

/// At most so many plans for a kernel besides the one that [`plan`] gives, those that are estimated to cost the least first:
/// products in blocks, then other assignments of threads, each with what finishes it.
pub fn others(kernel: &Kernel, gpu: &Gpu, rule: GridRule, most: usize) -> Vec<Plan> {
    let fits = |plan: &Plan| plan.apply(kernel).is_ok_and(|s| shared::bytes(&s) <= gpu.shared);
    let staged = blocks::plans(kernel, gpu, most).into_iter();
    let mut out: Vec<Plan> = staged.filter_map(|p| complete(kernel, &p, gpu, rule).ok()).filter(fits).collect();
    let mut search = Search::new(kernel, gpu);
    let room = if out.is_empty() { most } else { (most / 4).max(1) };
    for (threads, _) in search.ranked(rule).into_iter().take(room) {
        let finished = search.finish(threads, rule);
        out.push(search.build(&finished, rule));
    }
    out
}

/// The report on a plan whose threads come from elsewhere, with the assignments that there would be instead.
pub fn given(kernel: &Kernel, gpu: &Gpu, plan: &Plan, rule: GridRule, from: &str) -> GridReport {
    let search = Search::new(kernel, gpu);
    let blocks = search.shared_by_blocks(plan);
    GridReport { reason: from.to_string(), blocks, ..search.report(&search.ranked(rule)) }
}

/// What [`GridReport::blocks`] says of a plan.
pub fn shared_bytes(kernel: &Kernel, gpu: &Gpu, plan: &Plan) -> Vec<(usize, f64)> {
    Search::new(kernel, gpu).shared_by_blocks(plan)
}

/// The best that the kernel's threads can be, with one element a thread.
pub fn best(kernel: &Kernel, gpu: &Gpu) -> Score {
    let worst = Score { more: true, sectors: f64::INFINITY, lines: f64::INFINITY };
    Search::new(kernel, gpu).ranked(GridRule::Auto).first().map_or(worst, |c| c.1)
}

/// Puts blocks that share the most next to each other: axes along which neighbours have more in common come later, which
/// is faster. Axes that share the same keep their order.
fn order_blocks(order: &mut [usize], shared: &[(usize, f64)]) {
    let of = |a: usize| shared.iter().find(|s| s.0 == a).map(|s| s.1);
    let places: Vec<usize> = (0..order.len()).filter(|&n| of(order[n]).is_some()).collect();
    let mut axes: Vec<(usize, f64)> = places.iter().filter_map(|&n| Some((order[n], of(order[n])?))).collect();
    axes.sort_by(|a, b| a.1.total_cmp(&b.1));
    for (place, axis) in places.into_iter().zip(axes) {
        order[place] = axis.0;
    }
}

/// Products that a kernel sums.
fn multiply_adds(kernel: &Kernel) -> f64 {
    let ranges = kernel.loops.iter().copied().chain(kernel.reduce_ranges());
    ranges.map(|r| kernel.graph.ints.max_size(r) as f64).product()
}

/// A stored plan with what it leaves out: the order of blocks and threads by the rule, and the target's matrix unit.
///
/// # Errors
/// Why the plan does not fit the kernel or the target.
pub fn complete(kernel: &Kernel, stored: &Plan, gpu: &Gpu, rule: GridRule) -> Result<Plan, PlanError> {
    let mut plan = stored.clone();
    let mismatch = |what: String| Err(PlanError::Mismatch(what));
    let kinds = |f: &[Factor], kind: Kind| f.iter().any(|f| f.kind == kind);
    let on_unit = plan.loops.iter().any(|f| kinds(f, Kind::Matrix));
    if on_unit && plan.unit.is_none() {
        // A unit that rounds factors changes results by more than their order: a plan has to ask for it by name.
        let exact = |name: &&&str| matrix_unit(name).is_some_and(|u| u.a.dtype == DType::F32 && u.factor_bits >= 24);
        plan.unit = gpu.units.iter().find(exact).map(|name| name.to_string());
        if plan.unit.is_none() {
            return mismatch("the target has no matrix unit for f32 that does not round its factors".to_string());
        }
    }
    if let Some(unit) = plan.unit.as_ref().filter(|u| !gpu.units.contains(&u.as_str())) {
        return mismatch(format!("the target has no matrix unit {unit}"));
    }
    let places = plan.loops.len().min(kernel.loops.len());
    let ordinal = |a: &usize| kernel.loops.get(*a).map(|&r| kernel.graph.ints.range_info(r).ordinal);
    if plan.order.is_empty() {
        plan.order = (0..places).collect();
        match rule {
            GridRule::RangeId => plan.order.sort_by_key(ordinal),
            GridRule::Auto => {
                let shared = shared_bytes(kernel, gpu, &plan);
                order_blocks(&mut plan.order, &shared);
            }
        }
    }
    if plan.threads.is_empty() {
        plan.threads = (0..places).filter(|&a| kinds(&plan.loops[a], Kind::Thread)).collect();
        match rule {
            GridRule::RangeId => plan.threads.sort_by_key(|a| std::cmp::Reverse(ordinal(a))),
            GridRule::Auto => {
                let search = Search::new(kernel, gpu);
                let size = |a: usize| plan.loops[a].iter().find(|f| f.kind == Kind::Thread).and_then(|f| f.size);
                let mut best: Option<((bool, f64), Vec<usize>)> = None;
                // Where factors are staged, neighbouring threads have neighbouring vectors, in shared memory as in the result.
                let lanes = |a: &usize| plan.loops[*a].iter().any(|f| f.kind == Kind::Vector);
                let staged = plan.reduces.iter().flatten().any(|f| f.kind == Kind::Shared);
                let fast = plan.threads.iter().copied().find(|a| staged && !on_unit && lanes(a));
                for order in permutations(&plan.threads) {
                    if fast.is_some() && order.last() != fast.as_ref() && plan.threads.len() <= 4 {
                        continue;
                    }
                    let fastest_first: Threads = order.iter().rev().map(|&a| (a, size(a).unwrap_or(1))).collect();
                    let broken = breaks_sectors(kernel, &plan, gpu, &fastest_first);
                    let score = (broken, search.sectors(&fastest_first));
                    if best.as_ref().is_none_or(|b| score < b.0) {
                        best = Some((score, order));
                    }
                }
                plan.threads = best.map(|b| b.1).unwrap_or_default();
            }
        }
    }
    let threads: i64 = plan.loops.iter().flatten().filter(|f| f.kind == Kind::Thread).filter_map(|f| f.size).product();
    let shared_by = plan.unit.as_deref().and_then(matrix_unit).map_or(gpu.lanes, |u| u.c.threads() as usize);
    let all = threads.saturating_mul(if on_unit { shared_by as i64 } else { 1 });
    if all > gpu.max_threads as i64 {
        return mismatch(format!("{all} threads in a workgroup, the target has at most {}", gpu.max_threads));
    }
    Ok(plan)
}

/// Whether a warp stores more sectors of a buffer of the compiler's own than it fills, where factors are staged in shared
/// memory: copies into that go by threads whatever axes those stand for.
fn breaks_sectors(kernel: &Kernel, plan: &Plan, gpu: &Gpu, fastest_first: &Threads) -> bool {
    let staged = plan.reduces.iter().flatten().any(|f| f.kind == Kind::Shared);
    let [store] = &kernel.stores[..] else { return false };
    let buffer = kernel.graph.buffer(store.buffer);
    let Some(layout) = buffer.layout.clone().filter(|_| staged && buffer.origin == Origin::Internal) else {
        return false;
    };
    let mut g = kernel.graph.clone();
    let address = g.flatten(&layout, &store.index);
    let mut steps = Vec::with_capacity(fastest_first.len());
    let mut wide = 1;
    for &(a, size) in fastest_first {
        let Some((step, _)) = g.ints.split_linear(address, kernel.loops[a]) else { return false };
        // What follows the threads' factor is inside of a thread.
        let inner = plan.loops[a].iter().skip_while(|f| f.kind != Kind::Thread).skip(1).filter_map(|f| f.size);
        if step == 1 {
            wide = inner.clone().product::<i64>();
        }
        steps.push((step * inner.product::<i64>(), size));
    }
    let elements = (gpu.sector / buffer.dtype.size().max(1)).max(1) as i64;
    let mut sectors = Vec::new();
    for lane in 0..gpu.lanes as i64 {
        let (mut at, mut rest) = (0, lane);
        for &(step, size) in &steps {
            at += rest % size * step;
            rest /= size;
        }
        if rest == 0 {
            sectors.extend((at..at + wide).map(|e| e / elements));
        }
    }
    let filled = (sectors.len() as i64 + elements - 1) / elements;
    sectors.sort_unstable();
    sectors.dedup();
    sectors.len() as i64 > filled
}

/// All orders of a few axes; more than four keep theirs.
fn permutations(axes: &[usize]) -> Vec<Vec<usize>> {
    if axes.len() > 4 {
        return vec![axes.to_vec()];
    }
    let mut out = vec![vec![]];
    for _ in axes {
        out = out
            .into_iter()
            .flat_map(|p: Vec<usize>| {
                axes.iter().filter(|a| !p.contains(a)).map(|&a| [&p[..], &[a]].concat()).collect::<Vec<_>>()
            })
            .collect();
    }
    out
}

impl<'a> Search<'a> {
    fn new(kernel: &'a Kernel, gpu: &'a Gpu) -> Search<'a> {
        let mut g = kernel.graph.clone();
        let unrolled = heuristic::unrolled(kernel);
        let touches = access::touches(kernel, &unrolled);
        let addresses = touches
            .iter()
            .map(|t| {
                let layout = g.buffer(t.buffer).layout.clone()?;
                (!t.dynamic).then(|| g.flatten(&layout, &t.index))
            })
            .collect();
        Search { g, kernel, touches, addresses, unrolled, gpu }
    }

    fn size(&self, axis: usize) -> Option<i64> {
        self.g.ints.const_size(self.kernel.loops[axis])
    }

    fn free_axes(&self) -> Vec<usize> {
        (0..self.kernel.loops.len())
            .filter(|&a| !self.unrolled.contains(&self.kernel.loops[a]) && self.size(a).is_some())
            .collect()
    }

    /// All assignments worth comparing with the sectors that a launch would move, the best first: under `auto` those that
    /// store the compiler's own buffers in as few sectors as can be, and of them those that move the fewest.
    fn ranked(&self, rule: GridRule) -> Vec<(Threads, Score)> {
        let mut candidates = self.candidates();
        if rule == GridRule::Auto {
            for t in self.runs() {
                if !candidates.contains(&t) {
                    candidates.push(t);
                }
            }
        }
        let mut all: Vec<(Threads, Score)> = candidates
            .into_iter()
            .map(|t| {
                let score = self.score(&t);
                (t, Score { more: score.more && rule == GridRule::Auto, ..score })
            })
            .collect();
        all.sort_by(|a, b| a.1.compare(&b.1).then_with(|| (a.0.len(), &a.0).cmp(&(b.0.len(), &b.0))));
        all
    }

    fn score(&self, threads: &Threads) -> Score {
        self.score_sharing(threads, &[])
    }

    /// The score where each thread computes so many elements along axes, and loads what they share once.
    fn score_sharing(&self, threads: &Threads, elements: &[(usize, i64)]) -> Score {
        let mut costs = self.costs(threads);
        for &(axis, n) in elements {
            let range = self.kernel.loops[axis];
            let ints = &self.g.ints;
            let reads = |t: &Touch| t.index.iter().chain(&t.gate).any(|&i| ints.depends_on(i, range));
            for (cost, t) in costs.iter_mut().zip(&self.touches) {
                if !t.write && t.in_loop && !reads(t) {
                    cost.sectors /= n as f64;
                    cost.lines /= n as f64;
                }
            }
        }
        let more = costs.iter().any(|c| c.excess > 0.0);
        let sum = |of: &dyn Fn(&Cost) -> f64| costs.iter().map(of).sum();
        Score { more, sectors: sum(&|c| c.sectors), lines: sum(&|c| c.lines) }
    }

    /// What a report says of ranked assignments.
    fn report(&self, ranked: &[(Threads, Score)]) -> GridReport {
        let name = |t: &Threads| match t[..] {
            [] => "one thread".to_string(),
            _ => t.iter().map(|(a, n)| format!("a{a}:{n}")).collect::<Vec<_>>().join(" then "),
        };
        GridReport {
            accesses: self
                .touches
                .iter()
                .map(|t| {
                    let kind = if t.write { "store" } else { "load" };
                    format!("{kind} {}", self.g.buffer(t.buffer).name)
                })
                .collect(),
            candidates: ranked
                .iter()
                .take(REPORTED)
                .map(|(t, s)| Candidate { threads: name(t), sectors: s.sectors, accesses: self.sectors_by_access(t) })
                .collect(),
            evaluated: ranked.len(),
            chosen: None,
            reason: String::new(),
            blocks: Vec::new(),
        }
    }

    /// All assignments worth comparing.
    fn candidates(&self) -> Vec<Threads> {
        let warp = self.gpu.lanes as i64;
        let axes = self.free_axes();
        let mut all: Vec<Threads> = vec![vec![]];
        for &a in &axes {
            let Some(size) = self.size(a) else { continue };
            let mut sizes = vec![size.min(warp)];
            sizes.extend([8, 16].into_iter().filter(|n| *n < size && size % n == 0));
            // Rows that do not fill sectors: some lanes idle, and every row begins at a sector if it is padded.
            if size < warp && size % ROW != 0 && size > ROW / 2 {
                sizes.push((size + ROW - 1) / ROW * ROW);
            }
            for first in sizes {
                all.push(vec![(a, first)]);
                if first >= warp {
                    continue;
                }
                for &b in axes.iter().filter(|&&b| b != a) {
                    let Some(other) = self.size(b) else { continue };
                    all.push(vec![(a, first), (b, other.min((warp + first - 1) / first))]);
                }
            }
        }
        all
    }

    /// Assignments under which a workgroup stores one run of memory that begins and ends at sectors, however short the
    /// rows are: all of the axes that are neighbours in a buffer of the compiler's own, and so much of the next one.
    fn runs(&self) -> Vec<Threads> {
        let ints = &self.g.ints;
        let free = self.free_axes();
        let mut out = Vec::new();
        for t in self.touches.iter().filter(|t| t.write) {
            let buffer = self.g.buffer(t.buffer);
            let Some(layout) = buffer.layout.as_ref().filter(|_| buffer.origin == Origin::Internal) else { continue };
            let sector = (self.gpu.sector / buffer.dtype.size()).max(1) as i64;
            let axis = |i: IntId| match ints.node(i) {
                IntNode::Range(r) => free.iter().copied().find(|&a| self.kernel.loops[a] == *r),
                _ => None,
            };
            let strides: Vec<Option<i64>> = layout.dims.iter().rev().map(|d| ints.as_const(d.stride)).collect();
            let (mut run, mut threads): (i64, Threads) = (1, Vec::new());
            for (n, d) in layout.dims.iter().rev().enumerate() {
                let Some(a) = axis(t.index[d.axis]).filter(|_| strides[n] == Some(run)) else { break };
                let Some(size) = self.size(a).filter(|_| d.div == 1 && d.modulus.is_none()) else { break };
                let whole = |s: &Option<i64>| s.is_some_and(|s| s % sector == 0);
                let aligned = strides[n + 1..].iter().all(whole);
                let most = MAX_RUN.min(self.gpu.max_threads as i64) / run;
                // All of the axis, and the fewest of it that make a workgroup.
                let part = (2..size.min(most)).find(|k| k * run % sector == 0 && k * run >= THREADS);
                for k in part.into_iter().chain((size <= most).then_some(size)).filter(|_| aligned) {
                    out.push([&threads[..], &[(a, k)]].concat());
                }
                threads.push((a, size));
                run *= size;
                if run >= MAX_RUN {
                    break;
                }
            }
        }
        out
    }

    /// For each axis that a plan cuts into several blocks, in the plan's order: bytes that the loads of a block in the
    /// middle have in common with those of the next block along the axis.
    ///
    /// What a block reads of a buffer's axis is taken to be an interval, from the index's values at both ends of each
    /// range: exact for sums of ranges, an estimate where an index divides.
    fn shared_by_blocks(&self, plan: &Plan) -> Vec<(usize, f64)> {
        let ints = &self.g.ints;
        // For each map range: elements of a block, number of blocks.
        let cut: Vec<(i64, i64)> = (0..self.kernel.loops.len())
            .map(|a| {
                let size = ints.max_size(self.kernel.loops[a]).max(1);
                let Some(factors) = plan.loops.get(a) else { return (size, 1) };
                if !factors.iter().any(|f| f.kind == Kind::Grid) {
                    return (size, 1);
                }
                // A side of a matrix unit is 8 or 16 where the plan does not say so.
                let of = |f: &Factor| f.size.unwrap_or(if f.kind == Kind::Matrix { 8 } else { 1 });
                let inner: i64 = factors.iter().filter(|f| f.kind != Kind::Grid).map(of).product::<i64>().max(1);
                (inner.min(size), (size + inner - 1) / inner)
            })
            .collect();
        let axis_of = |r: RangeId| self.kernel.loops.iter().position(|&l| l == r);
        let first = |r: RangeId| axis_of(r).map_or(0, |a| (cut[a].1 - 1) / 2 * cut[a].0);
        let span = |r: RangeId| axis_of(r).map_or_else(|| ints.max_size(r), |a| cut[a].0).max(1);
        let param = |p: winograph_ir::ParamId| ints.param_info(p).typical();
        // The value of an index at the block's start, with one range further on.
        let at = |i: IntId, moved: Option<(RangeId, i64)>| {
            let range = |r: RangeId| first(r) + moved.filter(|m| m.0 == r).map_or(0, |m| m.1);
            ints.eval(i, &range, &param)
        };
        let mut order: Vec<usize> = plan.order.iter().copied().filter(|&a| a < cut.len()).collect();
        order.extend((0..cut.len()).filter(|a| !plan.order.contains(a)));
        let mut out = Vec::new();
        for a in order.into_iter().filter(|&a| cut[a].1 > 1) {
            let mut bytes = 0.0;
            for t in self.touches.iter().filter(|t| !t.write && !t.dynamic) {
                let mut common = self.g.buffer(t.buffer).dtype.size() as f64;
                for &i in &t.index {
                    let Some(start) = at(i, None) else { continue };
                    let mut extent = 1;
                    for &r in ints.free_ranges(i) {
                        extent += at(i, Some((r, span(r) - 1))).map_or(0, |e| (e - start).abs());
                    }
                    let shift = at(i, Some((self.kernel.loops[a], cut[a].0))).map_or(0, |e| (e - start).abs());
                    common *= (extent - shift).max(0) as f64;
                }
                bytes += common;
            }
            out.push((a, bytes));
        }
        out
    }

    /// Sectors that a launch moves with these threads, estimated from a few warps.
    fn sectors(&self, threads: &Threads) -> f64 {
        self.sectors_by_access(threads).iter().sum()
    }

    /// The same, access by access.
    fn sectors_by_access(&self, threads: &Threads) -> Vec<f64> {
        self.costs(threads).iter().map(|c| c.sectors).collect()
    }

    fn costs(&self, threads: &Threads) -> Vec<Cost> {
        let ints = &self.g.ints;
        let warp = self.gpu.lanes as i64;
        let total: i64 = threads.iter().map(|t| t.1).product::<i64>().max(1);
        let warps = (total + warp - 1) / warp;
        let mut sums = Vec::with_capacity(self.touches.len());
        let planes = !self.unrolled.is_empty() && !self.touches.iter().any(|t| t.in_loop);
        // Lanes that a warp does not fill, or that are beyond the end of an axis, do nothing.
        let filled = |&(a, n): &(usize, i64)| {
            let size = ints.max_size(self.kernel.loops[a]).max(1);
            size as f64 / ((size + n - 1) / n * n) as f64
        };
        let idle = ((warps * warp) as f64 / (total as f64 * threads.iter().map(filled).product::<f64>())).sqrt();
        for (t, &address) in self.touches.iter().zip(&self.addresses) {
            let (mut sectors, mut lines, mut least, mut active) = (0usize, 0usize, 0usize, 0usize);
            let bytes = self.g.buffer(t.buffer).dtype.size() as i64;
            let own = t.write && self.g.buffer(t.buffer).origin == Origin::Internal;
            // The first block, the middle one and the last one, and a warp of each; of the last one two.
            for (sample, warp_sample) in [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (1.0, 0.0)] {
                let mut base: FxHashMap<RangeId, i64> = FxHashMap::default();
                let at = |size: i64| (((size - 1) as f64) * sample) as i64;
                let mut ranges: Vec<RangeId> = t.index.iter().flat_map(|&i| ints.free_ranges(i)).copied().collect();
                ranges.extend(t.gate.iter().flat_map(|&i| ints.free_ranges(i)));
                for r in ranges {
                    base.insert(r, at(ints.max_size(r).max(1)));
                }
                let first = ((warps - 1) as f64 * warp_sample) as i64 * warp;
                let mut elements = 0usize;
                let mut seen: Vec<i64> = Vec::with_capacity(warp as usize);
                for lane in first..(first + warp).min(total) {
                    let mut rest = lane;
                    for &(axis, n) in threads {
                        let r = self.kernel.loops[axis];
                        let block = at((ints.max_size(r) + n - 1) / n);
                        base.insert(r, block * n + rest % n);
                        rest /= n;
                    }
                    let outside = threads
                        .iter()
                        .any(|&(a, _)| base[&self.kernel.loops[a]] >= ints.max_size(self.kernel.loops[a]));
                    let range = |r: RangeId| base.get(&r).copied().unwrap_or(0);
                    let param = |p: winograph_ir::ParamId| ints.param_info(p).typical();
                    if outside || t.gate.iter().any(|&c| ints.eval(c, &range, &param).is_none_or(|x| x < 0)) {
                        continue;
                    }
                    elements += 1;
                    match address.and_then(|a| ints.eval(a, &range, &param)) {
                        Some(a) => {
                            let sector = a * bytes / self.gpu.sector as i64;
                            if !seen.contains(&sector) {
                                seen.push(sector);
                            }
                        }
                        // Looked up by data: every lane for itself.
                        None => seen.push(-1 - lane),
                    }
                }
                sectors += seen.len();
                seen.iter_mut().for_each(|s| *s = s.div_euclid((LINE / self.gpu.sector.max(1)).max(1) as i64));
                seen.sort_unstable();
                seen.dedup();
                lines += seen.len();
                // Threads store to places of their own. A workgroup of less than a warp has only what it fills.
                let fills = elements * bytes as usize;
                let sector = self.gpu.sector.max(1);
                least += if total < warp { fills / sector } else { fills.div_ceil(sector) };
                active += elements;
            }
            let each = if active > 0 { t.runs / active as f64 * idle } else { 0.0 };
            let excess = if own { sectors.saturating_sub(least) } else { 0 };
            let lines = if planes { lines as f64 } else { 0.0 };
            let (sectors, excess) = (sectors as f64, excess as f64);
            sums.push(Cost { sectors: sectors * each, lines: lines * each, excess: excess * each });
        }
        sums
    }
}
