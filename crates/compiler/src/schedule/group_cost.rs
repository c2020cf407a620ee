//! What one launch of workgroups takes that run all kernels around a product: the blocks of such a launch, and microseconds.
//!
//! It saves launches and what is between them in global memory, and has no block tiles: factors come from a cache for each few
//! multiply-adds. So it wins where launches are what takes the time, and loses soon after.

use super::block_cost::Sizes;
use crate::optimize::group;
use crate::target::Gpu;
use crate::tune::Blocks;

/// Cycles of a workgroup's threads for one element each of what the chain's first and last kernel compute, per position.
const TRANSFORM: f64 = 10.0;
/// The same for a multiply-add whose factors come from shared memory and a cache, where blocks are compared.
const PRODUCT: f64 = 4.0;
/// Cycles that a workgroup waits for memory and for barriers beside that.
const WAITING: f64 = 3000.0;
/// Bytes a cycle that a multiprocessor gets from the second-level cache.
const CACHE_RATE: f64 = 24.0;

/// Cycles for a term of a thread's sums beside their multiply-adds: the loads of its factors, which few threads hide. With it
/// three measured launches are estimated within 0.75 to 1.25 of what they took on an H100, launch included: the reference layer
/// in F(2,3) and F(4,3), and 64 channels at 56 x 56 in F(4,3) (`gpu_layers quick 1 reference+res2 "f32 F2 fused+f32 F4 fused"`).
const TERM: f64 = 30.0;
/// Instructions that a scheduler issues for a term beside its multiply-adds.
const ISSUED: f64 = 4.0;
/// Schedulers of a multiprocessor, and workgroups that it has at a time at most.
const SCHEDULERS: f64 = 4.0;
const RESIDENT: f64 = 8.0;
/// Cycles of a microsecond.
const CLOCK: f64 = 1700.0;

/// Microseconds that a launch which follows another one costs at least, where launches are replayed as a graph: the reference
/// layer in three launches took 2.4 more of them than in one, each time (`gpu_layers quick 1 reference ...`).
pub(crate) const NEXT_LAUNCH_US: f64 = 2.0;
/// What one launch is estimated to take is so much of what others are, at most, for it to be taken: what three measurements say
/// of it is uncertain by about as much.
pub(crate) const MARGIN: f64 = 0.85;

/// A chain as one launch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Estimate {
    /// Its blocks.
    pub(crate) cut: Blocks,
    /// Microseconds beside those of a launch.
    pub(crate) us: f64,
}

impl Estimate {
    /// Whether it takes clearly less than the launches that it saves alone would, whatever they do.
    pub(crate) fn pays(&self, saved: f64) -> bool {
        self.us <= MARGIN * saved * NEXT_LAUNCH_US
    }
}

/// The launch of the blocks that are estimated to be the fastest; `None` where none fit into shared memory.
pub(crate) fn estimate(sizes: &Sizes, gpu: &Gpu) -> Option<Estimate> {
    best(sizes, gpu).map(|cut| Estimate { cut, us: us(sizes, cut, gpu) })
}

/// Sizes of the axes of rows, innermost first, as far as blocks go.
pub(super) fn extents(sizes: &Sizes) -> [i64; 3] {
    let mut of = [1; 3];
    of.iter_mut().zip(sizes.rows.iter().rev()).for_each(|(to, a)| *to = a.size);
    of
}

/// Bytes that layouts of what is between the kernels may add to it: planes begin at sectors.
pub(super) fn padding(sizes: &Sizes) -> f64 {
    sizes.batch * 128.0
}

/// Bytes of shared memory that a block of f32 takes.
fn shared(sizes: &Sizes, cut: Blocks) -> f64 {
    let rows = (cut.depth * cut.height * cut.width) as f64;
    let elements = rows * sizes.terms + rows * cut.columns as f64 * sizes.beside;
    sizes.batch * elements * 4.0 + padding(sizes)
}

/// Workgroups of a launch.
fn workgroups(sizes: &Sizes, cut: Blocks) -> f64 {
    let [w, h, d] = extents(sizes);
    let outer: i64 = sizes.rows.iter().rev().skip(3).map(|a| a.size).product();
    (cut.parts * (w / cut.width) * (h / cut.height) * (d / cut.depth) * outer) as f64
}

/// Elements of a block that a thread of `threads` computes one after the other.
fn rounds(items: f64, threads: f64) -> f64 {
    (items / threads).ceil()
}

/// Bytes of the other operand, and of what the first one is computed from, for a workgroup: short rows leave sectors half empty.
fn moved(sizes: &Sizes, cut: Blocks) -> f64 {
    let rows = (cut.height * cut.width * cut.depth) as f64;
    let input = rows * (1.0 + 2.0 / cut.width as f64);
    sizes.batch * sizes.terms * (cut.columns as f64 * sizes.beside + input) * 4.0
}

/// The blocks that are guessed to be the fastest.
fn best(sizes: &Sizes, gpu: &Gpu) -> Option<Blocks> {
    let columns = sizes.columns.as_ref().map_or(1, |c| c.size);
    let [w, h, _] = extents(sizes);
    let threads = group::THREADS as f64;
    let divisors = |n: i64| (1..=n).filter(move |d| n % d == 0);
    let mut best: Option<(f64, Blocks)> = None;
    for parts in [1, 2, 4, 8].into_iter().filter(|p| columns % p == 0) {
        for width in divisors(w) {
            for height in divisors(h) {
                let cut = Blocks { depth: 1, height, width, columns: columns / parts, parts };
                // Two workgroups at a time hide some of each other's waiting.
                if 2.0 * shared(sizes, cut) > gpu.shared as f64 {
                    continue;
                }
                let rows = (height * width) as f64;
                let own = cut.columns as f64 * sizes.beside;
                let transforms = rounds(rows * sizes.terms, threads) + rounds(rows * own, threads);
                let products = rounds(sizes.batch * rows * own, threads) * sizes.terms;
                let block = transforms * sizes.batch * TRANSFORM + products * PRODUCT + WAITING;
                let (blocks, processors) = (workgroups(sizes, cut), gpu.processors as f64);
                let from_cache = moved(sizes, cut) / CACHE_RATE;
                let cycles = (blocks / (2.0 * processors)).ceil() * block + (blocks / processors).ceil() * from_cache;
                if best.is_none_or(|b| cycles < b.0) {
                    best = Some((cycles, cut));
                }
            }
        }
    }
    best.map(|b| b.1)
}

/// Microseconds of a launch in such blocks, beside those that any launch takes.
fn us(sizes: &Sizes, cut: Blocks, gpu: &Gpu) -> f64 {
    let rows = (cut.depth * cut.height * cut.width) as f64;
    let own = cut.columns as f64 * sizes.beside;
    // As `group::plan` has it: threads along columns and positions, and results beside each other along the rows.
    let most = group::THREADS.min(gpu.max_threads as i64).max(1);
    let along = group::divisor(own as i64, most);
    let threads = (along * group::divisor(sizes.batch as i64, most / along)) as f64;
    let side = [cut.width, cut.height, cut.depth].into_iter().find(|&s| s > 1).unwrap_or(1);
    let beside = group::divisor(side, group::BESIDE) as f64;
    let terms = rounds(sizes.batch * rows * own, threads * beside) * sizes.terms;
    let transforms = rounds(rows * sizes.terms, most as f64) + rounds(rows * own, most as f64);
    // Workgroups that are on a multiprocessor at a time share what it issues and what it gets from the cache.
    let wave = |resident: f64| {
        let issued = resident * threads / gpu.lanes.max(1) as f64 / SCHEDULERS * (beside + ISSUED);
        let products = terms * issued.max(TERM + beside);
        let from_cache = resident * moved(sizes, cut) / CACHE_RATE;
        resident * transforms * sizes.batch * TRANSFORM + products.max(from_cache)
    };
    let (blocks, processors) = (workgroups(sizes, cut), gpu.processors.max(1) as f64);
    let resident = (gpu.shared as f64 / shared(sizes, cut)).floor().clamp(1.0, RESIDENT);
    let full = (blocks / (processors * resident)).floor();
    let rest = blocks - full * processors * resident;
    let last = if rest > 0.0 { wave((rest / processors).ceil()) } else { 0.0 };
    let waves = full + if rest > 0.0 { 1.0 } else { 0.0 };
    // What the first wave waits for is part of any launch.
    (full * wave(resident) + last + (waves - 1.0).max(0.0) * WAITING) / CLOCK
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::block_cost::Axis;
    use crate::target::Target;

    /// A layer with as many channels in as out, N = 1, in F(m, 3).
    fn layer(side: i64, channels: i64, m: i64) -> Sizes {
        let axis = || Axis { reader: 0, size: (side + m - 1) / m };
        Sizes {
            rows: vec![axis(), axis()],
            columns: Some(Axis { reader: 0, size: channels }),
            beside: 1.0,
            batch: ((m + 2) * (m + 2)) as f64,
            terms: channels as f64,
            computed: true,
        }
    }

    /// Microseconds that `gpu_layers quick 1 reference+res2 ...` measured on an H100, calls replayed as one graph.
    #[test]
    fn estimates_are_near_what_was_measured() {
        let gpu = Target::by_name("cuda:sm_90").unwrap().gpu.unwrap();
        for (side, channels, m, measured, pays) in
            [(64, 16, 2, 4.9, true), (64, 16, 4, 5.8, true), (56, 64, 4, 25.9, false)]
        {
            let found = estimate(&layer(side, channels, m), &gpu).unwrap();
            let ratio = (found.us + crate::winograd::cost::LAUNCH_US) / measured;
            assert!((0.75..1.25).contains(&ratio), "{side} {channels} F({m},3): {:.1} for {measured}", found.us);
            assert_eq!(found.pays(2.0), pays, "{side} {channels} F({m},3): {:.1}", found.us);
        }
    }

    /// Layers that take longer than the launches that are saved, or fit nowhere, are never taken.
    #[test]
    fn what_is_no_question_of_launches_does_not_pay() {
        for name in ["cuda:sm_80", "cuda:sm_90", "metal"] {
            let gpu = Target::by_name(name).unwrap().gpu.unwrap();
            for (side, channels) in
                [(224, 64), (112, 128), (56, 256), (28, 512), (14, 512), (14, 256), (7, 512), (56, 64)]
            {
                for m in [2, 4, 6] {
                    let found = estimate(&layer(side, channels, m), &gpu);
                    assert!(found.is_none_or(|f| !f.pays(2.0)), "{name} {side} {channels} {m}: {found:?}");
                }
            }
        }
    }
}
