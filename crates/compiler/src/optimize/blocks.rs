//! Plans for large products on GPUs: block tiles staged in shared memory, register tiles and vectors in each thread.
//!
//! Takes a kernel that sums products; leaves a plan in which a workgroup has a tile of one axis that moves
//! one factor by one or two axes that move the other. Tiles are compared by what they compute beyond ragged edges, what
//! each multiply-add loads from shared and from global memory, and whether there are workgroups enough to be busy.

use super::matrix_unit::product;
use super::plan::{Factor, Kind, Plan};
use crate::kernel::Kernel;
use crate::target::Gpu;
use winograph_ir::indexed::{Graph, Origin, Source, Val, ValId};
use winograph_ir::int::RangeId;

/// Multiply-adds below which a launch is over before stages pay.
const LARGE: f64 = (1u64 << 23) as f64;
/// Terms of a chunk, the first that divides the sum and fits twice.
const CHUNKS: [i64; 2] = [16, 8];
/// Chunks in shared memory at a time, where copies are asynchronous.
const STAGES: u32 = 3;
/// Elements of a 16-byte access.
const WIDE: i64 = 4;
/// Most accumulators of a thread.
const ACCUMULATORS: i64 = 64;
/// What a load from shared memory costs in multiply-adds of a thread, beside them: of an H100, whose times for tiles of 8 x 8,
/// 8 x 4, 4 x 8 and 4 x 4 results are as 1, 1.09, 1.18 and 1.39.
const VECTOR: f64 = 4.0;
/// The same of a single element.
const ELEMENT: f64 = 1.5;
/// Multiply-adds of a multiprocessor in the time in which it copies an element from the second-level cache.
const COPY: f64 = 21.0;
/// The same where copies are of single elements, as those of a window's factors are: direct sums of 14 and 7 pixels a side took
/// twice as long in blocks of 128 channels by 16 pixels, which copy more, as in blocks of 64 by 112.
const COPY_ELEMENT: f64 = 30.0;
/// How much longer products take for copies beside them, if those are not of single elements.
const BESIDE: f64 = 0.25;
/// Threads of a multiprocessor with which its units wait half of the time.
const BUSY: f64 = 48.0;
/// Schedulers of a multiprocessor, each with warps of its own.
const SCHEDULERS: i64 = 4;
/// How much longer workgroups take that have fewer warps than these.
const FEW: f64 = 1.1;
/// Registers of a multiprocessor.
const REGISTERS: i64 = 1 << 16;
/// Registers of a thread beside its results.
const OTHERS: i64 = 56;

/// Whether a kernel sums products, enough of them to be staged.
pub fn is_large(kernel: &Kernel) -> bool {
    let sizes = kernel.loops.iter().copied().chain(kernel.reduce_ranges());
    let work: Option<f64> = sizes.map(|r| Some(kernel.graph.ints.const_size(r)? as f64)).product();
    work.is_some_and(|w| w >= LARGE) && product(kernel).is_some()
}

/// The plan, without the order of blocks and threads; `None` where the kernel is no product, or not a large one.
pub fn plan(kernel: &Kernel, gpu: &Gpu) -> Option<Plan> {
    plans(kernel, gpu, 1).into_iter().next()
}

/// At most so many plans, those that are estimated to cost the least first.
pub fn plans(kernel: &Kernel, gpu: &Gpu, most: usize) -> Vec<Plan> {
    candidates(kernel, gpu, most).unwrap_or_default()
}

fn candidates(kernel: &Kernel, gpu: &Gpu, most: usize) -> Option<Vec<Plan>> {
    let p = product(kernel)?;
    let mut g = kernel.graph.clone();
    let sums: Vec<i64> = kernel.reduce_ranges().into_iter().map(|r| g.ints.const_size(r)).collect::<Option<_>>()?;
    let terms = sums.iter().try_fold(1i64, |n, &s| n.checked_mul(s))?;
    let (chunk, chunked) = CHUNKS.into_iter().filter(|c| terms >= 4 * c).find_map(|c| {
        let longest = sums.iter().enumerate().filter(|s| s.1 % c == 0).max_by_key(|s| s.1)?;
        (*longest.1 >= 2 * c).then_some((c, longest.0))
    })?;
    let sizes: Vec<i64> = kernel.loops.iter().map(|&r| g.ints.const_size(r)).collect::<Option<_>>()?;
    if sizes.iter().map(|&s| s as f64).product::<f64>() * (terms as f64) < LARGE {
        return None;
    }
    let moves = |side: usize, r: RangeId| g.depends_on(p.factors[side], r) && !g.depends_on(p.factors[1 - side], r);
    let class = |side: usize| (0..sizes.len()).filter(|&a| moves(side, kernel.loops[a])).collect::<Vec<usize>>();
    let classes = [class(0), class(1)];
    let store = kernel.stores.first()?;
    let layout = g.buffer(store.buffer).layout.clone()?;
    let address = g.flatten(&layout, &store.index);
    let step = |g: &mut Graph, a: usize| g.ints.split_linear(address, kernel.loops[a]).map_or(i64::MAX, |s| s.0.abs());
    let steps: Vec<i64> = (0..sizes.len()).map(|a| step(&mut g, a)).collect();
    // Lanes along the axis that is contiguous in the result; the axis next to it makes the tile larger.
    let v = *classes.iter().flatten().min_by_key(|&&a| steps[a])?;
    let side = usize::from(classes[1].contains(&v));
    let u = classes[1 - side].iter().copied().max_by_key(|&a| sizes[a])?;
    if sizes[v] < WIDE {
        return None;
    }
    // More of the lanes' axis, a second axis for either side, or none.
    let near = |side: usize, but: usize| {
        classes[side].iter().copied().filter(|&a| a != but).max_by_key(|&a| (sizes[a], std::cmp::Reverse(steps[a])))
    };
    let seconds = [
        Some(None),
        Some(Some((v, true))),
        near(side, v).map(|w| Some((w, true))),
        near(1 - side, u).map(|w| Some((w, false))),
    ];
    let mut found: Vec<(f64, Tile, Option<usize>)> = Vec::new();
    let wide = [(1 - side, u), (side, v)].map(|(of, a)| copied_wide(&mut g, p.factors[of], kernel.loops[a]));
    // A row of a buffer of the compiler's own is stored in whole sectors, or all of it at once.
    let own = g.buffer(store.buffer).origin == Origin::Internal;
    let sector = (gpu.sector / g.buffer(store.buffer).dtype.size().max(1)).max(1) as i64;
    for second in seconds.into_iter().flatten() {
        let same = second.is_some_and(|s| s.0 == v);
        for tile in tiles(second.is_some()) {
            let Tile { tu, ru, tv, tw, rw } = tile;
            let threads = tu * tv * tw;
            let (bu, bv, bw) = (tu * ru, tv * WIDE, tw * rw);
            if (own && bv % sector != 0 && bv < sizes[v]) || (same && (tw > 1 || rw == 1)) {
                continue;
            }
            let with_lanes = second.is_none_or(|s| s.1);
            // What a workgroup has of each factor, and what a thread's loads of them cost for a term: vectors of both axes,
            // or elements where a second axis lies between those that follow each other.
            let (rows, cols) = if with_lanes { (bu, bv * bw) } else { (bu * bw, bv) };
            let loads = match with_lanes {
                true => VECTOR * ((ru + WIDE - 1) / WIDE + 2 * rw) as f64,
                false => ELEMENT * (ru * rw + 2) as f64,
            };
            let shared = (rows + cols + 2 * WIDE) * chunk * 4 * if gpu.copies { STAGES as i64 } else { 1 };
            if !(64..=256).contains(&threads)
                || threads > gpu.max_threads as i64
                || WIDE * ru * rw > ACCUMULATORS
                || shared > gpu.shared as i64
            {
                continue;
            }
            let blocks = |size: i64, block: i64| ((size + block - 1) / block) as f64;
            let padded = |size: i64, block: i64| blocks(size, block) * block as f64 / size as f64;
            let (along_v, along_w) = if same { (bv * bw, 1) } else { (bv, bw) };
            let size_w = second.filter(|_| !same).map_or(1, |s| sizes[s.0]);
            let waste = padded(sizes[u], bu) * padded(sizes[v], along_v) * padded(size_w, along_w);
            let other = |a: &usize| *a != u && *a != v && second.is_none_or(|s| s.0 != *a);
            let rest: f64 = (0..sizes.len()).filter(other).map(|a| sizes[a] as f64).product();
            let all = rest * blocks(sizes[u], bu) * blocks(sizes[v], along_v) * blocks(size_w, along_w);
            // Vectors of 7 or 14 threads where they fill their axis.
            let odd = |t: i64, block: i64, size: i64| t % 7 == 0 && size % block != 0;
            if odd(tu, bu, sizes[u]) || odd(tv, along_v, sizes[v]) {
                continue;
            }
            // Products and copies from the second-level cache go on beside each other.
            let each = wide.map(|w| if w { COPY } else { COPY_ELEMENT });
            let copies = (rows as f64 * each[0] + cols as f64 * each[1]) / (rows * cols) as f64;
            let products = 1.0 + loads / (WIDE * ru * rw) as f64;
            // Factors with a second axis are copied by elements.
            let beside = if wide == [true; 2] && (second.is_none() || same) { BESIDE } else { 1.0 };
            let cost = waste * (products.max(copies) + beside * products.min(copies));
            let idle = idle(all, threads, WIDE * ru * rw, shared, wide != [false; 2], gpu);
            found.push((cost * idle, tile, second.map(|s| s.0)));
        }
    }
    if most == 1 {
        // The first of the cheapest, as sorting would have it.
        found = found.into_iter().reduce(|best, f| if f.0 < best.0 { f } else { best }).into_iter().collect();
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    found.truncate(most);
    let axes = Axes { sizes: sizes.len(), u, v, sums: sums.len(), chunked, chunk };
    Some(found.into_iter().map(|(_, tile, w)| axes.plan(tile, w, gpu)).collect())
}

/// Whether a factor's elements along an axis are copied 16 bytes at a time: they follow each other, from a multiple of that on.
fn copied_wide(g: &mut Graph, factor: ValId, axis: RangeId) -> bool {
    let Val::Load { src: Source::Buffer(buffer), ref index, .. } = *g.val(factor) else { return false };
    let (index, Some(layout)) = (index.clone(), g.buffer(buffer).layout.clone()) else { return false };
    let address = g.flatten(&layout, &index);
    let split = g.ints.split_linear(address, axis);
    split.is_some_and(|(step, rest)| step == 1 && g.ints.divisor(rest).is_multiple_of(WIDE as u64))
}

/// How much longer the machine takes for so many workgroups than it would if all of its multiprocessors had the same number
/// of them, with threads that hide each other's waits, at the same time. With `even_warps` workgroups wait for schedulers with
/// more of their warps than others have; those that copy single elements wait for copies.
fn idle(blocks: f64, threads: i64, accumulators: i64, shared: i64, even_warps: bool, gpu: &Gpu) -> f64 {
    let processors = gpu.processors as f64;
    // The one with the most workgroups is the last to end.
    let most = (blocks / processors).ceil();
    let lanes = gpu.lanes as i64;
    let warps = (threads + lanes - 1) / lanes;
    let registers = REGISTERS / (warps * lanes * (accumulators + OTHERS));
    let beside = registers.min(gpu.shared as i64 / shared.max(1)).max(1) as f64;
    let resident = most.min(beside) * threads as f64;
    // Warps that a scheduler has less than the others, and lanes that a warp has not: 112 threads took 1.2 times as long. Less
    // than a warp for each scheduler leaves it to other workgroups to come at the right time.
    let even = ((warps + SCHEDULERS - 1) / SCHEDULERS * SCHEDULERS.min(warps)) as f64;
    let run = if even_warps { even } else { warps as f64 };
    let uneven = (run * lanes as f64 / threads as f64).powf(1.5);
    let few = if warps < SCHEDULERS { FEW } else { 1.0 };
    most * processors / blocks * (1.0 + BUSY / resident) * uneven * few
}

/// What a plan is about: numbers of axes and which of them have parts.
struct Axes {
    sizes: usize,
    u: usize,
    v: usize,
    sums: usize,
    chunked: usize,
    chunk: i64,
}

impl Axes {
    fn plan(&self, tile: Tile, w: Option<usize>, gpu: &Gpu) -> Plan {
        let Axes { u, v, chunked, .. } = *self;
        let Tile { tu, ru, tv, tw, rw } = tile;
        let any = |kind: Kind| Factor { kind, size: None };
        let of = |kind: Kind, size: i64| Factor { kind, size: Some(size) };
        let mut plan = Plan { stages: if gpu.copies { STAGES } else { 1 }, ..Plan::default() };
        for a in 0..self.sizes {
            let mut factors = vec![any(Kind::Grid)];
            if a == u {
                factors.extend([of(Kind::Thread, tu), of(Kind::Unroll, ru)]);
            } else if a == v {
                let more = if w == Some(v) { rw } else { 1 };
                factors.extend([of(Kind::Unroll, more), of(Kind::Thread, tv), of(Kind::Vector, WIDE)]);
            } else if Some(a) == w {
                factors.extend([of(Kind::Unroll, rw), of(Kind::Thread, tw)]);
            }
            factors.retain(|f| f.size != Some(1));
            plan.loops.push(factors);
        }
        for n in 0..self.sums {
            let all = [any(Kind::Loop), of(Kind::Shared, self.chunk)];
            plan.reduces.push(all[..if n == chunked { 2 } else { 1 }].to_vec());
        }
        plan
    }
}

/// Threads and results of one along the first axis, threads along the lanes' axis, threads and results along a second one
/// of either side.
#[derive(Clone, Copy)]
struct Tile {
    tu: i64,
    ru: i64,
    tv: i64,
    tw: i64,
    rw: i64,
}

fn tiles(two: bool) -> Vec<Tile> {
    let mut out = Vec::new();
    for tu in [1, 2, 4, 7, 8, 14, 16] {
        for ru in [1, 2, 4, 8] {
            for tv in [1, 2, 4, 7, 8, 14, 16] {
                for tw in if two { vec![1, 2, 4, 7, 8] } else { vec![1] } {
                    for rw in if two { vec![1, 2, 4, 8] } else { vec![1] } {
                        out.push(Tile { tu, ru, tv, tw, rw });
                    }
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Target;

    #[test]
    fn the_multiprocessor_with_the_most_workgroups_is_the_last_to_end() {
        let gpu = Target::by_name("cuda:sm_90").unwrap().gpu.unwrap();
        // In workgroups' times, of 128 threads with 64 results each.
        let takes = |blocks: f64| blocks * idle(blocks, 128, 64, 37 << 10, true, &gpu);
        let (full, more) = (takes(14.0 * 132.0), takes(14.0 * 132.0 + 1.0));
        assert!((more / full - 15.0 / 14.0).abs() < 1e-9 && (takes(15.0 * 132.0) - more).abs() < 1e-6);
    }
}
