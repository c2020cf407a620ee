//! `scope`: where stages live.
//!
//! Takes kernels; leaves launches. A product that is summed in a loop, what computes its operands and what reads its
//! result become one launch under loops over blocks of the result where that is estimated to be faster: the operands
//! and the product of one block then stay in a core's cache. Elsewhere each kernel is a launch of its own.

use super::narrow::{Block, narrow};
use crate::kernel::{Kernel, Launch};
use crate::optimize::heuristic;
use crate::options::StageRule;
use crate::target::Target;
use rustc_hash::FxHashMap;
use winograph_ir::indexed::{BufId, Origin, Source, Val};
use winograph_ir::int::RangeId;
use winograph_ir::linear::LoopKind;

/// What was decided about one chain of kernels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The buffers that its kernels write, in order.
    pub buffers: Vec<String>,
    /// Whether they are one launch.
    pub fused: bool,
    /// Why.
    pub reason: String,
}

/// Groups kernels into launches, in an order in which writers come before readers. `constant` says which kernels
/// depend on constants alone.
pub fn scope(
    kernels: &mut [Kernel],
    constant: &[bool],
    target: &Target,
    rule: StageRule,
) -> (Vec<Launch>, Vec<Choice>) {
    let mut choices = Vec::new();
    let mut fused: Vec<Option<usize>> = vec![None; kernels.len()];
    let mut launches: Vec<Launch> = Vec::new();
    if target.gpu.is_none() && rule == StageRule::Auto {
        let users = users(kernels);
        for n in 0..kernels.len() {
            if constant[n] || fused[n].is_some() {
                continue;
            }
            let Some(chain) = chain(kernels, &users, constant, n) else { continue };
            if chain.iter().any(|&k| fused[k].is_some()) {
                continue;
            }
            let names = chain.iter().map(|&k| crate::compile::output_name(&kernels[k])).collect();
            let (blocks, reason) = match blocks(kernels, &chain, n, target) {
                Ok(found) => found,
                Err(reason) => {
                    choices.push(Choice { buffers: names, fused: false, reason });
                    continue;
                }
            };
            match narrow(kernels, &chain, &blocks) {
                Ok(launch) => {
                    for &k in &chain {
                        fused[k] = Some(launches.len());
                    }
                    launches.push(launch);
                    choices.push(Choice { buffers: names, fused: true, reason });
                }
                Err(e) => choices.push(Choice { buffers: names, fused: false, reason: e.to_string() }),
            }
        }
    }
    // A launch runs where its last kernel did: what the others read has been written by then.
    let mut out = Vec::new();
    for (n, at) in fused.into_iter().enumerate() {
        match at {
            None => out.push(Launch::single(n)),
            Some(at) if launches[at].kernels.last() == Some(&n) => out.push(launches[at].clone()),
            Some(_) => {}
        }
    }
    (out, choices)
}

/// Whether a kernel sums products in a loop.
fn contracts(k: &Kernel) -> bool {
    let unrolled = heuristic::unrolled(k);
    k.reduce_ranges().iter().any(|r| !unrolled.contains(r))
}

/// The kernels that read or write each buffer of the program, in order.
fn users(kernels: &[Kernel]) -> FxHashMap<BufId, Vec<usize>> {
    let mut out: FxHashMap<BufId, Vec<usize>> = FxHashMap::default();
    for (n, k) in kernels.iter().enumerate() {
        for &b in &k.args {
            let list = out.entry(b).or_default();
            if list.last() != Some(&n) {
                list.push(n);
            }
        }
    }
    out
}

/// The buffer a kernel writes, as its place in the program, if it is the compiler's own and still in global memory.
fn own_output(k: &Kernel) -> Option<BufId> {
    let [store] = &k.stores[..] else { return None };
    let b = k.graph.buffer(store.buffer);
    (b.origin == Origin::Internal && k.outer.is_empty()).then(|| k.args[store.buffer.0 as usize])
}

/// The kernels around a contraction that could be one launch with it: the one that computes its largest operand for it
/// alone, and its only reader.
fn chain(kernels: &[Kernel], users: &FxHashMap<BufId, Vec<usize>>, constant: &[bool], at: usize) -> Option<Vec<usize>> {
    let of = |buffer: &BufId| users.get(buffer).map_or(&[][..], |list| list);
    let readers = |buffer, writer| of(&buffer).iter().copied().filter(|&k| k != writer).collect::<Vec<usize>>();
    if !contracts(&kernels[at]) {
        return None;
    }
    let [reader] = readers(own_output(&kernels[at])?, at)[..] else { return None };
    if contracts(&kernels[reader]) {
        return None;
    }
    let elements =
        |k: usize| kernels[k].loops.iter().map(|&r| kernels[k].graph.ints.max_size(r) as f64).product::<f64>();
    let operand = kernels[at]
        .args
        .iter()
        .flat_map(|b| of(b).iter().copied())
        .filter(|&k| {
            k < at
                && !constant[k]
                && !contracts(&kernels[k])
                && own_output(&kernels[k]).is_some_and(|b| readers(b, k) == [at])
        })
        .max_by(|&a, &b| elements(a).total_cmp(&elements(b)).then(b.cmp(&a)));
    Some(operand.into_iter().chain([at, reader]).collect())
}

/// A map axis of a contraction's result as its reader sees it.
struct Axis {
    /// Place among the reader's loops.
    reader: usize,
    size: i64,
    /// Whether the operands that are computed in the chain move along it.
    row: bool,
}

/// Sizes of a chain, in elements.
struct Sizes {
    /// Rows of the result as axes, outermost first.
    rows: Vec<Axis>,
    columns: Option<Axis>,
    /// Positions: axes of the contraction that are neither.
    batch: f64,
    terms: f64,
    row_writers: bool,
}

/// The best blocks and why, or why there are none.
fn blocks(kernels: &mut [Kernel], chain: &[usize], at: usize, target: &Target) -> Result<(Vec<Block>, String), String> {
    let sizes = sizes(kernels, chain, at)?;
    let lanes = target.lanes(4) as f64;
    let [.., last] = &sizes.rows[..] else { return Err("its result has no axis to cut".into()) };
    let before = sizes.rows.len().checked_sub(2).map(|n| &sizes.rows[n]);
    let k = sizes.columns.as_ref().map_or(1, |c| c.size);
    let threads = target.threads.max(1) as f64;
    let outer_count: f64 = sizes.rows[..sizes.rows.len().saturating_sub(2)].iter().map(|a| a.size as f64).product();
    let mut best: Option<(f64, i64, i64, i64, i64, f64)> = None;
    let widths = divisors(last.size);
    let heights: Vec<i64> = before.map_or(vec![1], |a| (1..=a.size).collect());
    let splits: Vec<i64> =
        [1, 2, 4, 8, 16].into_iter().filter(|&s| s == 1 || (s as f64 <= threads && k % s == 0)).collect();
    for &bc in &widths {
        for &br in &heights {
            for &split in &splits {
                let columns = k / split;
                for kb in divisors(columns).into_iter().filter(|&b| b >= 8 || b == columns) {
                    let rows = (br * bc) as f64;
                    let full = (rows / lanes).floor();
                    let rest = rows - full * lanes;
                    let tail = if rest == 0.0 { 0.0 } else { (rest / lanes + 0.25).min(1.0) };
                    let vectors = full + tail;
                    // Cycles: two multiply-adds at a time, loads included.
                    let efficiency = if vectors < 2.0 {
                        0.65
                    } else if vectors < 3.0 {
                        0.8
                    } else {
                        0.9
                    };
                    let fma = sizes.batch * sizes.terms * columns as f64 * vectors / 2.0 / efficiency;
                    let groups = if bc as f64 >= lanes {
                        br as f64 * (bc as f64 / lanes).ceil()
                    } else {
                        (br as f64 / (lanes / bc as f64).floor()).ceil()
                    };
                    // Vectors of many short rows take a window for each row and more shuffles, and rows' ends are read
                    // twice.
                    let per_vector = (lanes / bc as f64).floor().min(br as f64);
                    let spread = 1.0 + 0.12 * (per_vector - 2.0).max(0.0) + 0.25 / bc as f64;
                    let transform = sizes.batch / 36.0 * groups * spread;
                    let input = if sizes.row_writers { sizes.terms * transform * 170.0 } else { 0.0 };
                    let output = columns as f64 * transform * 120.0;
                    let x = sizes.batch * sizes.terms * rows * 4.0;
                    let m = sizes.batch * kb as f64 * rows * 4.0;
                    let w = sizes.batch * sizes.terms * k as f64 * 4.0;
                    let rate = |bytes: f64| if bytes < 0.5 * target.l2 as f64 { 48.0 } else { 8.0 };
                    let mut moved = w / split as f64 / rate(w / split as f64);
                    if x + m > 0.8 * target.l2 as f64 {
                        moved += (x * (2.0 + columns as f64 / kb as f64) + 2.0 * m * columns as f64 / kb as f64) / 4.0;
                    }
                    let item = fma.max(moved) + input + output + 300.0 * columns as f64 / kb as f64;
                    let up = |n: i64, d: i64| ((n + d - 1) / d) as f64;
                    let items = outer_count * up(last.size, bc) * before.map_or(1.0, |a| up(a.size, br)) * split as f64;
                    let total = (items / threads).ceil() * item;
                    if x + m > 4.0 * (1 << 20) as f64 {
                        continue;
                    }
                    if best.is_none_or(|b| total < b.0 * 0.999) {
                        best = Some((total, br, bc, kb, split, x + m));
                    }
                }
            }
        }
    }
    let Some((total, br, bc, kb, split, scratch)) = best else {
        return Err("no block fits into a core's scratch memory".into());
    };
    let apart = separate(&sizes, target);
    if total > apart {
        return Err(format!(
            "separate launches are estimated at {apart:.0} cycles a thread, the best blocks at {total:.0}"
        ));
    }
    let mut blocks = Vec::new();
    if let (true, Some(c)) = (split > 1, &sizes.columns) {
        blocks.push(Block { axis: c.reader, size: k / split, kind: LoopKind::Grid });
    }
    for (n, a) in sizes.rows.iter().enumerate() {
        let size = match sizes.rows.len() - n {
            1 => bc,
            2 => br,
            _ => 1,
        };
        blocks.push(Block { axis: a.reader, size, kind: LoopKind::Grid });
    }
    if let Some(c) = &sizes.columns {
        blocks.push(Block { axis: c.reader, size: kb, kind: LoopKind::Serial });
    }
    let reason = format!(
        "blocks of {br}x{bc} rows and {kb} columns, {:.0} KiB of scratch memory: estimated at {total:.0} cycles a thread, separate launches at {apart:.0}",
        scratch / 1024.0
    );
    Ok((blocks, reason))
}

/// Estimated cycles of a thread where each kernel is a launch.
fn separate(sizes: &Sizes, target: &Target) -> f64 {
    let threads = target.threads.max(1) as f64;
    let rows: f64 = sizes.rows.iter().map(|a| a.size as f64).product();
    let k = sizes.columns.as_ref().map_or(1.0, |c| c.size as f64);
    let lanes = target.lanes(4) as f64;
    let fma = sizes.batch * sizes.terms * k * (rows / lanes).ceil() / 2.0 / 0.7;
    let bytes = sizes.batch * 4.0 * (2.0 * rows * (sizes.terms + k) + sizes.terms * k);
    let transforms = sizes.batch / 36.0 * (rows / lanes).ceil() * (170.0 * sizes.terms + 120.0 * k);
    (fma + transforms + bytes / 8.0) / threads + 3.0 * 8000.0
}

fn divisors(n: i64) -> Vec<i64> {
    (1..=n.max(1)).filter(|d| n % d == 0).collect()
}

fn sizes(kernels: &mut [Kernel], chain: &[usize], at: usize) -> Result<Sizes, String> {
    let reader = chain[chain.len() - 1];
    let buffer = own_output(&kernels[at]).ok_or("its result is not the compiler's own")?;
    let operands: Vec<BufId> = chain[..chain.len() - 2].iter().filter_map(|&k| own_output(&kernels[k])).collect();
    // Which of the reader's loops index which axis of the result, alone and one by one.
    let mut along: Vec<Option<RangeId>> = Vec::new();
    let k = &kernels[reader];
    for v in k.loads() {
        let Val::Load { src: Source::Buffer(b), index, .. } = k.graph.val(v) else { continue };
        if k.args[b.0 as usize] != buffer {
            continue;
        }
        let these: Vec<Option<RangeId>> = index
            .iter()
            .map(|&e| match k.graph.ints.free_ranges(e) {
                [r] if k.loops.contains(r) && k.graph.ints.bounds(e).1 + 1 == k.graph.ints.max_size(*r) => Some(*r),
                _ => None,
            })
            .collect();
        along = match along.is_empty() {
            true => these,
            false => along.iter().zip(&these).map(|(a, b)| if a == b { *a } else { None }).collect(),
        };
    }
    let writer = &kernels[at];
    let store = &writer.stores[0];
    let unrolled = heuristic::unrolled(&kernels[reader]);
    let (mut rows, mut columns) = (Vec::new(), Vec::new());
    let mut batch = 1.0;
    for (axis, reads) in along.iter().enumerate() {
        let size = writer.graph.ints.bounds(store.index[axis]).1 + 1;
        if size == 1 {
            continue;
        }
        let ranges = writer.graph.ints.free_ranges(store.index[axis]).to_vec();
        let (mut computed, mut other) = (false, false);
        for v in writer.loads() {
            let Val::Load { src: Source::Buffer(b), index, .. } = writer.graph.val(v) else { continue };
            let moves = index.iter().any(|&e| ranges.iter().any(|&r| writer.graph.ints.depends_on(e, r)));
            if operands.contains(&writer.args[b.0 as usize]) {
                computed |= moves;
            } else {
                other |= moves;
            }
        }
        match reads {
            Some(r) if !unrolled.contains(r) && computed != other => {
                let reader = kernels[reader].loops.iter().position(|l| l == r).unwrap_or(0);
                let found = Axis { reader, size, row: computed };
                if found.row { rows.push(found) } else { columns.push(found) }
            }
            _ => batch *= size as f64,
        }
    }
    if columns.len() > 1 {
        return Err("its result has several axes of columns".into());
    }
    let reduced = writer.reduce_ranges();
    let terms = reduced.iter().map(|&r| writer.graph.ints.max_size(r) as f64).product();
    let constant = |k: &Kernel| k.loops.iter().chain(&k.reduce_ranges()).all(|&r| k.graph.ints.const_size(r).is_some());
    if !chain.iter().all(|&n| constant(&kernels[n])) {
        return Err("sizes are parameters".into());
    }
    Ok(Sizes { rows, columns: columns.pop(), batch, terms, row_writers: !operands.is_empty() })
}
