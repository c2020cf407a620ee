//! Which blocks a chain around a product is cut into: estimated cycles of a core, for `scope`.
//!
//! Blocks are `depth` by `height` by `width` rows of the product and some of its columns: several of an outer axis only
//! where the inner ones are whole, so that rows of small arrays fill vectors together. A work item computes the product's
//! first operand for its rows once, and then, columns by columns, the product and what is read from it. Where the first
//! operand is *shared*, a launch before computes it once, and all threads read it.

use super::layout;
use super::narrow::Block;
use super::operands::Other;
use crate::target::Target;
use crate::tune::{Blocks, Staging};
use winograph_ir::linear::LoopKind;

/// A map axis of a product's result as its reader sees it.
pub(crate) struct Axis {
    /// Place among the reader's loops.
    pub(crate) reader: usize,
    pub(crate) size: i64,
}

/// Sizes of a chain, in elements.
pub(crate) struct Sizes {
    /// Rows of the result as axes, outermost first: the chain computes an operand that moves along them.
    pub(crate) rows: Vec<Axis>,
    /// Columns of the result: along them the other operand moves.
    pub(crate) columns: Option<Axis>,
    /// Columns along axes that stay whole, since the reader walks along them with several loops together.
    pub(crate) beside: f64,
    /// Positions: products of their own.
    pub(crate) batch: f64,
    /// Terms of each sum.
    pub(crate) terms: f64,
    /// Whether the chain computes an operand.
    pub(crate) computed: bool,
}

/// Cycles to compute a vector of the first operand, per position, and a vector of results from the product. Measured
/// where a vector is 16 tiles of F(4,3): 150 to 200 in and 75 to 113 out for 36 positions.
const COMPUTE_CYCLES: f64 = 170.0 / 36.0;
const RESULT_CYCLES: f64 = 120.0 / 36.0;
/// Cycles for a part of a row of tiles of one term of the first operand, per position: its rows of the input begin and end
/// within cache lines, and no prefetcher has seen them, while whole rows follow each other. 600 to 1300 for 36 positions
/// on an EPYC with AVX2, from blocks of 56 tiles in rows of 4, 14 and 28.
const ROW_CYCLES: f64 = 18.0;
/// Bytes a cycle at which a core reads the first operand again for each block of columns, where its second-level cache
/// holds it.
const AGAIN_RATE: f64 = 32.0;
/// Bytes a cycle that a core gets from its second-level cache and from behind it.
const NEAR_RATE: f64 = 48.0;
const FAR_RATE: f64 = 8.0;
/// The same where reads and writes take turns.
const SPILL_RATE: f64 = 4.0;
/// The same where weights leave no room for some of it: a guess between the two, since prefetchers follow its rows. By it 64 channels at
/// 224 x 224 are cut into smaller blocks, and at 180 x 320 columns are not shared out among threads (docs/performance.md).
const OUT_RATE: f64 = 12.0;
/// Cycles to begin another block of columns, and to launch a kernel.
const COLUMNS_CYCLES: f64 = 300.0;
const LAUNCH_CYCLES: f64 = 8000.0;
/// The share of the second-level cache that an item's own data may have.
const KEPT: f64 = 0.8;
/// Most bytes of scratch memory of a thread, with its part of what threads share.
const MOST_SCRATCH: f64 = (4 << 20) as f64;

impl Sizes {
    fn all_rows(&self) -> f64 {
        self.rows.iter().map(|a| a.size as f64).product()
    }
}

impl Blocks {
    fn rows(&self) -> i64 {
        self.depth * self.height * self.width
    }
}

/// Sizes of a launch around a product, for those who look for better blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extents {
    /// Axes of the rows, outermost first.
    pub rows: Vec<i64>,
    /// The axis of the columns that is cut.
    pub columns: i64,
    /// Whether an operand is computed that threads may share.
    pub shares: bool,
    /// Where stages live, and their blocks, that is estimated to be the fastest beside separate launches.
    pub best: Option<Staging>,
}

/// What was decided about the blocks of a launch.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chosen {
    /// The blocks and why, or why separate launches are better.
    pub(super) blocks: Result<(Vec<Block>, String), String>,
    /// The same as data.
    pub(super) staging: Staging,
    pub(super) extents: Extents,
    /// Estimated cycles of a thread, where there are blocks.
    pub(super) cycles: f64,
    /// Why what was asked for was not taken.
    pub(super) refused: Option<String>,
}

/// Whether a block has no more rows along any axis than there are: axes of these sizes, innermost first.
pub(super) fn within(asked: Blocks, [width, height, depth]: [i64; 3]) -> Result<(), String> {
    let Blocks { depth: d, height: h, width: w, .. } = asked;
    match (1..=width).contains(&w) && (1..=height).contains(&h) && (1..=depth).contains(&d) {
        true => Ok(()),
        false => Err(format!("a block of {d}x{h}x{w} rows of {depth}x{height}x{width}")),
    }
}

/// Whether blocks that are asked for can be: of axes of these sizes, innermost first.
fn fits(asked: Blocks, sizes: [i64; 3], columns: i64) -> Result<(), String> {
    within(asked, sizes)?;
    let [width, height, _] = sizes;
    let Blocks { depth: d, height: h, width: w, columns: c, parts } = asked;
    if parts < 1 || columns % parts != 0 || c < 1 || (columns / parts) % c != 0 {
        return Err(format!("{c} columns at a time in {parts} parts do not divide {columns}"));
    }
    if d > 1 && (w, h) != (width, height) {
        return Err("several blocks of an outer axis where the inner ones are not whole".to_string());
    }
    Ok(())
}

/// Why chunks of launches are not taken where blocks can be.
fn chunks_refused(asked: Option<Staging>) -> Option<String> {
    matches!(asked, Some(Staging::Chunks(_) | Staging::Fused(_)))
        .then(|| "chunks of several launches and workgroups are plans of a GPU".to_string())
}

/// The blocks that are asked for, or the best ones; or why separate launches are better.
pub(super) fn choose(sizes: &Sizes, target: &Target, asked: Option<Staging>) -> Chosen {
    let columns = sizes.columns.as_ref().map_or(1, |c| c.size);
    let rows = sizes.rows.iter().map(|a| a.size).collect();
    let mut extents = Extents { rows, columns, shares: sizes.computed, best: None };
    let apart = |extents, why: String, refused| Chosen {
        blocks: Err(why),
        staging: Staging::Global,
        extents,
        cycles: f64::INFINITY,
        refused,
    };
    let Some((last, outer)) = sizes.rows.split_last() else {
        return apart(extents, "its result has no axis to cut".into(), None);
    };
    let mut outer = outer.iter().rev().map(|a| a.size);
    let (heights, depths) = (outer.next().unwrap_or(1), outer.next().unwrap_or(1));
    let mut refused = chunks_refused(asked);
    let mut given = None;
    let asked_here = asked.filter(|s| !matches!(s, Staging::Fused(_)));
    if let Some((staging, cut)) = asked_here.and_then(|s| Some((s, s.blocks()?))) {
        let bytes = scratch(sizes, staging, target);
        match fits(cut, [last.size, heights, depths], columns) {
            Ok(()) if staging == Staging::Shared(cut) && !sizes.computed => {
                refused = Some("no operand that threads could share".to_string());
            }
            Ok(()) if bytes <= MOST_SCRATCH => given = Some(staging),
            Ok(()) => refused = Some(format!("{bytes:.0} bytes of scratch memory")),
            Err(why) => refused = Some(why),
        }
    }
    let splits = [1, 2, 4, 8, 16].into_iter().filter(|&s| s == 1 || (s <= target.threads as i64 && columns % s == 0));
    let mut best: Option<(f64, Staging)> = None;
    for width in divisors(last.size) {
        let whole = |height: i64| width == last.size && height == heights;
        let areas = (1..=heights).flat_map(|h| (1..=if whole(h) { depths } else { 1 }).map(move |d| (d, h)));
        for (depth, height) in areas {
            for split in splits.clone() {
                let part = columns / split;
                for columns in divisors(part).into_iter().filter(|&b| b >= 8 || b == part) {
                    let cut = Blocks { depth, height, width, columns, parts: split };
                    // Rows of parts of an operand in memory do not follow each other, and fill no vectors together.
                    let all = sizes.computed && cut.rows() as f64 == sizes.all_rows();
                    let shared = all.then_some(Staging::Shared(cut));
                    for staging in [Some(Staging::Scratch(cut)), shared].into_iter().flatten() {
                        if scratch(sizes, staging, target) > MOST_SCRATCH {
                            continue;
                        }
                        let cycles = cycles(sizes, staging, target);
                        if best.is_none_or(|b| cycles < b.0 * 0.999) {
                            best = Some((cycles, staging));
                        }
                    }
                }
            }
        }
    }
    extents.best = best.map(|b| b.1);
    if asked == Some(Staging::Global) {
        return apart(extents, "separate launches, as the tuning has it".into(), None);
    }
    let separate = separate(sizes, target);
    let (cycles, staging) = match (given, best) {
        (Some(staging), _) => (cycles(sizes, staging, target), staging),
        (None, None) => return apart(extents, "no block fits into a core's scratch memory".into(), refused),
        (None, Some((cycles, _))) if cycles > separate => {
            let why = format!(
                "separate launches are estimated at {separate:.0} cycles a thread, the best blocks at {cycles:.0}"
            );
            return apart(extents, why, refused);
        }
        (None, Some(best)) => best,
    };
    let Some(cut) = staging.blocks() else { return apart(extents, "no blocks".into(), refused) };
    let mut blocks = Vec::new();
    if let (true, Some(c)) = (cut.parts > 1, &sizes.columns) {
        blocks.push(Block { axis: c.reader, size: columns / cut.parts, kind: LoopKind::Grid });
    }
    for (n, a) in sizes.rows.iter().enumerate() {
        let size = match sizes.rows.len() - n {
            1 => cut.width,
            2 => cut.height,
            3 => cut.depth,
            _ => 1,
        };
        blocks.push(Block { axis: a.reader, size, kind: LoopKind::Grid });
    }
    if let Some(c) = &sizes.columns {
        blocks.push(Block { axis: c.reader, size: cut.columns, kind: LoopKind::Serial });
    }
    let deep = if cut.depth > 1 { format!("{}x", cut.depth) } else { String::new() };
    let reason = format!(
        "{}blocks of {deep}{}x{} rows and {} columns, {:.0} KiB of scratch memory{}: estimated at {cycles:.0} cycles a thread, separate launches at {separate:.0}",
        if given.is_some() { "as the tuning has it, " } else { "" },
        cut.height,
        cut.width,
        cut.columns as f64 * sizes.beside,
        scratch(sizes, staging, target) / 1024.0,
        if staging == Staging::Shared(cut) { ", a thread's part of the operand that they share with it" } else { "" },
    );
    Chosen { blocks: Ok((blocks, reason)), staging, extents, cycles, refused }
}

/// Bytes of the first operand, and of the product, of a block.
fn buffers(sizes: &Sizes, cut: Blocks) -> (f64, f64) {
    let rows = cut.rows() as f64;
    (sizes.batch * sizes.terms * rows * 4.0, sizes.batch * cut.columns as f64 * sizes.beside * rows * 4.0)
}

/// Bytes of both as they are laid out: rows and, where positions would fall into few sets of a cache, what is between these.
/// Of an operand that threads share, a thread's part counts.
fn scratch(sizes: &Sizes, staging: Staging, target: &Target) -> f64 {
    let Some(cut) = staging.blocks() else { return 0.0 };
    let gap = layout::LINE as f64 / 4.0;
    let row = layout::scratch_row(cut.rows(), 4) as f64;
    let operand = match staging {
        Staging::Shared(_) => (sizes.all_rows() * sizes.terms + gap) / target.threads.max(1) as f64,
        _ => row * sizes.terms + gap,
    };
    sizes.batch * (operand + row * cut.columns as f64 + gap) * 4.0
}

/// Vectors of multiply-adds that a core begins in a cycle.
fn multiply_rate(target: &Target) -> f64 {
    target.multiply_bytes as f64 / target.vector_bytes.max(1) as f64
}

/// Estimated cycles of a thread where the chain is one launch, or one beside that of an operand that threads share.
fn cycles(sizes: &Sizes, staging: Staging, target: &Target) -> f64 {
    let Some(cut) = staging.blocks() else { return f64::INFINITY };
    let shared = staging == Staging::Shared(cut);
    let threads = target.threads.max(1) as f64;
    let lanes = target.lanes(4) as f64;
    let (rows, height, width) = (cut.rows() as f64, cut.height as f64, cut.width as f64);
    let all = sizes.columns.as_ref().map_or(1, |c| c.size) as f64;
    let rounds = all / (cut.parts * cut.columns) as f64;
    let columns = all * sizes.beside / cut.parts as f64;

    // Whether the second-level cache holds all that an item works on, and whether weights may stay there for the next.
    let (x, m) = buffers(sizes, cut);
    let weights = sizes.batch * sizes.terms * columns * 4.0;
    let kept = KEPT * target.l2 as f64;
    let small = weights < 0.5 * target.l2 as f64;
    let near = !shared && x + m + weights <= kept;

    // The product: less than a core's multiply-adds where few vectors share what is loaded from far. Lanes run along the
    // columns where rows fill no vector, so that none is idle.
    let full = (rows / lanes).floor();
    let rest = rows - full * lanes;
    let vectors = full + if rest == 0.0 { 0.0 } else { (rest / lanes + 0.25).min(1.0) };
    let turned = rows < lanes && 2.0 * rows >= lanes && (cut.columns as f64 * sizes.beside) % lanes == 0.0;
    let (vectors, efficiency) = match vectors {
        _ if near && turned => (rows / lanes, 0.85),
        v if v < 2.0 => (v, if near { 0.8 } else { 0.65 }),
        v if v < 3.0 => (v, 0.8),
        v => (v, 0.9),
    };
    let multiply = sizes.batch * sizes.terms * columns * vectors / multiply_rate(target) / efficiency;

    // Several short rows share a vector. Many take a window for each row and more shuffles, and rows' ends are read
    // twice.
    let together = (lanes / width).floor();
    let groups = if width >= lanes { height * (width / lanes).ceil() } else { (height / together).ceil() };
    let spread = 1.0 + 0.12 * (together.min(height) - 2.0).max(0.0) + 0.25 / width;
    let transform = sizes.batch * cut.depth as f64 * groups * spread;
    let whole = sizes.rows.last().is_none_or(|a| a.size == cut.width);
    let parts = if whole { 0.0 } else { sizes.batch * height };
    let operand = match sizes.computed && !shared {
        true => sizes.terms * (transform * COMPUTE_CYCLES + parts * ROW_CYCLES),
        false => 0.0,
    };
    let results = columns * transform * RESULT_CYCLES;

    // The other operand comes by once an item; scratch memory that the cache does not hold, once a round.
    let rate = if near || small { NEAR_RATE } else { FAR_RATE };
    let beside = if small { weights } else { 0.0 };
    let mut moved = weights / rate;
    let mut again = 0.0;
    if shared {
        again = x * rounds / target.far_bytes.max(1) as f64;
        again += if m > kept { 2.0 * m * rounds / SPILL_RATE } else { 0.0 };
    } else if x + m > kept {
        moved += (x * (2.0 + rounds) + 2.0 * m * rounds) / SPILL_RATE;
    } else {
        // Weights that stay there push some of the scratch memory out.
        let out = ((x + m + beside - kept) / (x + m)).clamp(0.0, 1.0);
        again = x * (rounds - 1.0) / AGAIN_RATE + out * (x * (1.0 + rounds) + 2.0 * m * rounds) / OUT_RATE;
    }
    let item = multiply.max(moved) + again + operand + results + COLUMNS_CYCLES * rounds;

    let (mut items, mut axes) = (cut.parts as f64, sizes.rows.iter().rev());
    for block in [cut.width, cut.height, cut.depth] {
        items *= axes.next().map_or(1.0, |a| ((a.size + block - 1) / block) as f64);
    }
    items *= axes.map(|a| a.size as f64).product::<f64>();
    // All threads wait for the launch before.
    let before = if shared {
        let vectors = sizes.batch * (sizes.all_rows() / lanes).ceil() * sizes.terms;
        vectors * (COMPUTE_CYCLES + target.vector_bytes as f64 / FAR_RATE) / threads + LAUNCH_CYCLES
    } else {
        0.0
    };
    before + (items / threads).ceil() * item
}

/// Estimated cycles of a thread where each kernel is a launch.
fn separate(sizes: &Sizes, target: &Target) -> f64 {
    let rows = sizes.all_rows();
    let columns = sizes.columns.as_ref().map_or(1.0, |c| c.size as f64) * sizes.beside;
    let vectors = (rows / target.lanes(4) as f64).ceil();
    let multiply = sizes.batch * sizes.terms * columns * vectors / multiply_rate(target) / 0.7;
    let bytes = sizes.batch * 4.0 * (2.0 * rows * (sizes.terms + columns) + sizes.terms * columns);
    let transforms = sizes.batch * vectors * (COMPUTE_CYCLES * sizes.terms + RESULT_CYCLES * columns);
    (multiply + transforms + bytes / FAR_RATE) / target.threads.max(1) as f64 + 3.0 * LAUNCH_CYCLES
}

fn divisors(n: i64) -> Vec<i64> {
    (1..=n.max(1)).filter(|d| n % d == 0).collect()
}

/// A product whose operands are staged, in elements.
pub(super) struct Product {
    /// Axes of the operand along which lanes run, outermost first.
    pub(super) rows: Vec<Axis>,
    /// Axes of the other operand.
    pub(super) columns: Vec<Axis>,
    /// Axes of both.
    pub(super) batch: Vec<Axis>,
    /// Terms of each sum.
    pub(super) terms: f64,
    /// Whether the first operand is copied block by block; it is a prepared panel otherwise.
    pub(super) copied: bool,
    /// Where the other one is.
    pub(super) other: Other,
}

/// Cycles to copy a vector of an operand: windows and shuffles where it is strided.
const COPY_CYCLES: f64 = 3.0;
/// The same of a part of a row that fills no vector, with the masks of its ends; about what is left of the time of 512 channels
/// at 7 x 7 beside the multiply-adds (`winograph run --profile`).
const ROW_COPY_CYCLES: f64 = 12.0;
/// Widths of blocks that are tried beside the divisors of an axis are multiples of so many vectors.
const GROUP: i64 = 3;

/// The blocks of a product that are asked for, or the best ones; `None` where it has no axes to cut.
pub(super) fn product(p: &Product, target: &Target, asked: Option<Staging>) -> Option<Chosen> {
    let (last, outer) = p.rows.split_last()?;
    let (column, others) = p.columns.split_first()?;
    let rows = p.rows.iter().map(|a| a.size).collect();
    let mut extents = Extents { rows, columns: column.size, shares: false, best: None };
    let beside: f64 = others.iter().map(|a| a.size as f64).product();
    let heights = outer.last().map_or(1, |a| a.size);
    // Rows of the result follow each other in memory where they are whole.
    let too_large = |cut: Blocks| {
        let first = if p.copied { layout::scratch_row(cut.rows(), 4) as f64 } else { 0.0 };
        let all = (column.size / cut.parts) as f64 * beside;
        let second = if p.other == Other::Copied { all } else { 0.0 };
        p.terms * (first + second) * 4.0 > MOST_SCRATCH
    };
    let (mut refused, mut given) = (None, None);
    if matches!(asked, Some(Staging::Shared(_))) {
        refused = Some("no operand that threads could share".to_string());
    }
    refused = refused.or_else(|| chunks_refused(asked));
    if let Some(Staging::Scratch(cut)) = asked {
        match fits(cut, [last.size, heights, 1], column.size) {
            Ok(()) if cut.height > 1 && cut.width != last.size => {
                refused = Some("several rows that are not whole".to_string());
            }
            Ok(()) if too_large(cut) => refused = Some("its panel is too large for scratch memory".to_string()),
            Ok(()) => given = Some(cut),
            Err(why) => refused = Some(why),
        }
    }
    let group = GROUP * target.lanes(4);
    let mut widths = divisors(last.size);
    widths.extend((1..=16).map(|n| n * group).filter(|w| *w < last.size));
    let splits = [1, 2, 4, 8, 16]
        .into_iter()
        .filter(|&s| s == 1 || (s <= target.threads as i64 && column.size % s == 0 && column.size / s >= 8));
    let mut best: Option<(f64, Blocks)> = None;
    for width in widths {
        for height in 1..=if width == last.size { heights } else { 1 } {
            for split in splits.clone() {
                let part = column.size / split;
                for columns in divisors(part).into_iter().filter(|&b| b >= 8 || b == part) {
                    let cut = Blocks { depth: 1, height, width, columns, parts: split };
                    if too_large(cut) {
                        continue;
                    }
                    let cycles = product_cycles(p, cut, column.size as f64, beside, target);
                    if best.is_none_or(|b| cycles < b.0 * 0.999) {
                        best = Some((cycles, cut));
                    }
                }
            }
        }
    }
    extents.best = best.map(|b| Staging::Scratch(b.1));
    let apart = |extents, why: &str, refused| {
        let (blocks, cycles) = (Err(why.to_string()), f64::INFINITY);
        Some(Chosen { blocks, staging: Staging::Global, extents, cycles, refused })
    };
    if asked == Some(Staging::Global) {
        return apart(extents, "no panels, as the tuning has it", None);
    }
    let (cycles, cut) = match (given, best) {
        (Some(cut), _) => (product_cycles(p, cut, column.size as f64, beside, target), cut),
        (None, Some(best)) => best,
        (None, None) => return apart(extents, "no block fits into a core's scratch memory", refused),
    };
    let grid = |a: &Axis, size: i64| Block { axis: a.reader, size, kind: LoopKind::Grid };
    let mut blocks: Vec<Block> = p.batch.iter().map(|a| grid(a, 1)).collect();
    if cut.parts > 1 {
        blocks.push(grid(column, column.size / cut.parts));
    }
    for (n, a) in p.rows.iter().enumerate() {
        let size = match p.rows.len() - n {
            1 => cut.width,
            2 => cut.height,
            _ => 1,
        };
        blocks.push(grid(a, size));
    }
    blocks.push(Block { axis: column.reader, size: cut.columns, kind: LoopKind::Serial });
    let reason = format!(
        "{}operands in panels, blocks of {}x{} rows and {} columns: estimated at {cycles:.0} cycles a thread",
        if given.is_some() { "as the tuning has it, " } else { "" },
        cut.height,
        cut.width,
        cut.columns
    );
    Some(Chosen { blocks: Ok((blocks, reason)), staging: Staging::Scratch(cut), extents, cycles, refused })
}

/// Estimated cycles of a thread for a product in blocks. `beside` is what the columns' other axes multiply to.
fn product_cycles(p: &Product, cut: Blocks, columns: f64, beside: f64, target: &Target) -> f64 {
    let lanes = target.lanes(4) as f64;
    let rows = (cut.height * cut.width) as f64;
    let columns = columns / cut.parts as f64;
    let rounds = columns / cut.columns as f64;
    let full = (rows / lanes).floor();
    let rest = rows - full * lanes;
    let vectors = full + if rest == 0.0 { 0.0 } else { (rest / lanes + 0.25).min(1.0) };
    let efficiency = match vectors {
        v if v < 2.0 => 0.65,
        v if v < 3.0 => 0.8,
        v if (v - full).abs() > 0.0 || full % GROUP as f64 != 0.0 => 0.86,
        _ => 0.9,
    };
    let multiply = p.terms * columns * beside * vectors / multiply_rate(target) / efficiency;
    let (l2, groups) = (target.l2 as f64, (vectors / GROUP as f64).ceil());
    let panel = p.terms * rows * 4.0;
    let block = p.terms * cut.columns as f64 * beside * 4.0;
    let other = p.terms * columns * beside * 4.0;
    // Vectors side by side pass over the block's columns once each, and a panel comes by once for each block. Panels are
    // read in long runs, which caches fetch ahead; rows of a matrix as it is are not.
    let passes = if block < 0.5 * l2 { 1.0 } else { groups };
    let far = if other < 0.5 * l2 { 0.0 } else { other * passes };
    let mut hidden = other * groups / NEAR_RATE;
    let mut exposed = 0.0;
    match p.other {
        Other::InPlace => exposed += far / SPILL_RATE,
        Other::Prepared => hidden = hidden.max(far / FAR_RATE),
        // A panel of all columns, which the item writes first.
        Other::Copied => {
            hidden = hidden.max(far / FAR_RATE);
            let row = p.columns.last().map_or(1.0, |a| a.size as f64);
            let vectors = p.terms * columns * beside / row * (row / lanes).ceil();
            exposed += other / FAR_RATE + vectors * ROW_COPY_CYCLES;
        }
    }
    let micro = panel / groups.max(1.0);
    hidden += rounds * panel * (cut.columns as f64 * beside / 8.0).ceil() / NEAR_RATE;
    if panel + block > 0.8 * l2 {
        exposed += rounds * panel / SPILL_RATE;
    }
    if micro + block > 0.8 * l2 {
        exposed += rounds * panel * (cut.columns as f64 / 8.0).ceil() / FAR_RATE;
    }
    let first = panel / FAR_RATE + if p.copied { p.terms * vectors * COPY_CYCLES } else { 0.0 };
    let result = rows * columns * beside * 4.0 / FAR_RATE / 2.0;
    let item = multiply.max(hidden) + exposed + first + result + COLUMNS_CYCLES * rounds;
    let mut items = cut.parts as f64 * p.batch.iter().map(|a| a.size as f64).product::<f64>();
    let mut axes = p.rows.iter().rev();
    for block in [cut.width, cut.height] {
        items *= axes.next().map_or(1.0, |a| ((a.size + block - 1) / block) as f64);
    }
    items *= axes.map(|a| a.size as f64).product::<f64>();
    (items / target.threads.max(1) as f64).ceil() * item
}
