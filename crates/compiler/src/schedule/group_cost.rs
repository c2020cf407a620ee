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
/// six measured launches are estimated at 0.88 to 1.13 of what they took on an H100, launch included: the reference layer at
/// N = 1 and 16, and 64 channels at 56 x 56, in F(2,3) and F(4,3) (`gpu_layers ways 1+16 reference+res2 "f32 F2 fused"
/// "f32 F4 fused"`).
const TERM: f64 = 30.0;
/// Instructions that a scheduler issues for a term beside its multiply-adds.
const ISSUED: f64 = 4.0;
/// Schedulers of a multiprocessor, and workgroups that it has at a time at most.
const SCHEDULERS: f64 = 4.0;
const RESIDENT: f64 = 8.0;
/// Cycles of a microsecond.
const CLOCK: f64 = 1700.0;

/// Microseconds that a launch which follows another one costs, where launches are replayed as a graph: the reference layer in
/// three launches took 4.5 more of them than in one in F(2,3), 3.6 more in F(4,3) (`gpu_layers ways 1 reference`).
const NEXT_LAUNCH_US: f64 = 2.0;
/// Bytes a microsecond that kernels write for each other, and read: taken to be more than the second-level cache of an H100
/// gives, for a bound from below.
const BETWEEN_RATE: f64 = 5e6;
/// What one launch is estimated to take is so much of what others are, at most, for it to be taken: the measured ones took up to
/// 1.13 times what was estimated.
pub(crate) const MARGIN: f64 = 0.85;

/// A chain as one launch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Estimate {
    /// Its blocks.
    pub(crate) cut: Blocks,
    /// Microseconds beside those of a launch.
    pub(crate) us: f64,
    /// Microseconds beside those of a launch that launches of their own take at least.
    pub(crate) apart_us: f64,
}

impl Estimate {
    /// Whether it takes clearly less than launches of their own do at least.
    pub(crate) fn pays(&self) -> bool {
        self.us <= MARGIN * self.apart_us
    }
}

/// The launch of the blocks that are estimated to be the fastest, beside so many launches of their own; `None` where none fit
/// into shared memory.
pub(crate) fn estimate(sizes: &Sizes, launches: usize, gpu: &Gpu) -> Option<Estimate> {
    let apart_us = apart(sizes, launches, gpu);
    best(sizes, gpu).map(|cut| Estimate { cut, us: us(sizes, cut, gpu), apart_us })
}

/// Microseconds that launches of their own take at least beside those of the first: what each adds, and what lies between them
/// written and read at the rate of a cache, or for the products their multiply-adds where those take longer.
fn apart(sizes: &Sizes, launches: usize, gpu: &Gpu) -> f64 {
    let rows = sizes.rows.iter().map(|a| a.size as f64).product::<f64>();
    let columns = sizes.columns.as_ref().map_or(1.0, |c| c.size as f64) * sizes.beside;
    let [before, after] = [sizes.terms, columns].map(|each| sizes.batch * rows * each * 4.0 / BETWEEN_RATE);
    let multiply_adds = sizes.batch * rows * columns * sizes.terms;
    let lanes = gpu.processors as f64 * gpu.lanes as f64 * SCHEDULERS;
    let products = (multiply_adds / lanes.max(1.0) / CLOCK).max(before + after);
    launches.saturating_sub(1) as f64 * NEXT_LAUNCH_US + before + products + after
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
    // No more rows than fit: axes may be long.
    let most = (gpu.shared as f64 / (2.0 * 4.0 * sizes.batch * sizes.terms).max(1.0)) as i64;
    let divisors = |n: i64, most: i64| (1..=n.min(most)).filter(move |d| n % d == 0);
    let mut best: Option<(f64, Blocks)> = None;
    for parts in [1, 2, 4, 8].into_iter().filter(|p| columns % p == 0) {
        for width in divisors(w, most) {
            for height in divisors(h, most / width) {
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
    use crate::winograd::cost::LAUNCH_US;

    /// A layer of `n` images with as many channels in as out, in F(m, 3).
    fn layer(n: i64, side: i64, channels: i64, m: i64) -> Sizes {
        let axis = |size| Axis { reader: 0, size };
        let images = (n > 1).then_some(n);
        Sizes {
            rows: images.into_iter().chain([(side + m - 1) / m; 2]).map(axis).collect(),
            columns: Some(axis(channels)),
            beside: 1.0,
            batch: ((m + 2) * (m + 2)) as f64,
            terms: channels as f64,
            computed: true,
        }
    }

    /// Microseconds of launches of their own on an H100: at N = 1 in F(2,3) and F(4,3), at N = 16 in the same, calls replayed as
    /// one graph (`gpu_layers ways 1+16 reference+vgg1.2+vgg2.2+vgg3.2+vgg4.2+vgg5.2+res2+res3+res4+res5 "f32 F2" "f32 F4"`).
    const APART: [(&str, i64, i64, [[f64; 2]; 2]); 10] = [
        ("reference", 64, 16, [[9.9, 9.7], [36.3, 22.0]]),
        ("vgg1.2", 224, 64, [[93.2, 57.4], [1352.4, 828.4]]),
        ("vgg2.2", 112, 128, [[63.9, 43.4], [932.9, 563.7]]),
        ("vgg3.2", 56, 256, [[61.8, 43.8], [730.7, 423.1]]),
        ("vgg4.2", 28, 512, [[61.5, 53.5], [616.7, 396.1]]),
        ("vgg5.2", 14, 512, [[29.1, 24.7], [178.6, 132.7]]),
        ("res2", 56, 64, [[13.0, 11.2], [88.4, 55.7]]),
        ("res3", 28, 128, [[13.2, 13.6], [60.6, 43.4]]),
        ("res4", 14, 256, [[13.6, 13.2], [60.5, 44.5]]),
        ("res5", 7, 512, [[14.0, 22.2], [60.4, 53.7]]),
    ];

    /// Microseconds on an H100, calls replayed as one graph (`gpu_layers ways 1+16 reference+res2 "f32 F2 fused" "f32 F4 fused"`).
    #[test]
    fn estimates_are_near_what_was_measured() {
        let gpu = Target::by_name("cuda:sm_90").unwrap().gpu.unwrap();
        for (n, side, channels, m, measured, pays) in [
            (1, 64, 16, 2, 5.4, true),
            (1, 64, 16, 4, 6.1, true),
            (16, 64, 16, 2, 14.9, true),
            (16, 64, 16, 4, 10.0, true),
            (1, 56, 64, 2, 14.4, false),
            (1, 56, 64, 4, 26.0, false),
        ] {
            let found = estimate(&layer(n, side, channels, m), 3, &gpu).unwrap();
            let ratio = (found.us + LAUNCH_US) / measured;
            assert!((0.75..1.25).contains(&ratio), "{n} {side} {channels} F({m},3): {:.1} for {measured}", found.us);
            assert_eq!(found.pays(), pays, "{n} {side} {channels} F({m},3): {found:?}");
        }
    }

    #[test]
    fn launches_of_their_own_took_longer_than_the_bound() {
        let gpu = Target::by_name("cuda:sm_90").unwrap().gpu.unwrap();
        for (name, side, channels, measured) in APART {
            for (n, measured) in [1, 16].into_iter().zip(measured) {
                for (m, measured) in [2, 4].into_iter().zip(measured) {
                    let bound = apart(&layer(n, side, channels, m), 3, &gpu) + LAUNCH_US;
                    assert!(bound < measured, "{name} N = {n} F({m},3): {bound:.1} for {measured}");
                }
            }
        }
    }

    /// Layers whose products take longer than what launches of their own add, or that fit nowhere, are never taken.
    #[test]
    fn what_is_no_question_of_launches_does_not_pay() {
        for name in ["cuda:sm_80", "cuda:sm_90", "metal"] {
            let gpu = Target::by_name(name).unwrap().gpu.unwrap();
            for (layer_name, side, channels, _) in APART.into_iter().skip(1) {
                for (n, m) in [1, 16].into_iter().flat_map(|n| [2, 4, 6].map(|m| (n, m))) {
                    let found = estimate(&layer(n, side, channels, m), 3, &gpu);
                    assert!(found.is_none_or(|f| !f.pays()), "{name} {layer_name} N = {n} F({m},3): {found:?}");
                }
            }
        }
    }
}
