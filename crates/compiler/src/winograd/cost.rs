//! Direct or F(m, r), and which m: a first cost model and the limits on accuracy.

use super::accuracy;
use super::cook_toom::Transforms;
use super::cover::{self, Part};
use super::detect::{MAX_ALPHA, MAX_POSITIONS, Window};
use super::split;
use super::unit_cost::{Rewritten, Sizes, Units};
use crate::explain::BoundReport;
use crate::options::{Algorithm, Options, Products, Tolerance};
use crate::schedule::block_cost;
use crate::schedule::group_cost::{self, Estimate, MARGIN};
use crate::target::Gpu;
use winograph_ir::indexed::{Def, Graph};
use winograph_ir::rule::AxisTile;
use winograph_ir::{DType, RangeId};

/// Outputs per tile that a rewrite may have on an axis.
pub const TILES: [usize; 4] = [2, 3, 4, 6];

/// Those that are taken without being asked for: more outputs need more than good points to be accurate.
const DEFAULT_TILES: [usize; 3] = [2, 3, 4];

/// The worst of a number over the regions of a rewrite.
fn worst(axes: &[Vec<Part>], of: impl Fn(&[&Transforms]) -> f64) -> f64 {
    // Inside of a region the last window axis is transformed first.
    let mut regions = cover::matrices(axes);
    regions.iter_mut().for_each(|region| region.reverse());
    regions.iter().map(|region| of(region)).fold(0.0, f64::max)
}

/// The worst-case amplification of a rewrite: that of its worst region.
pub fn worst_amplification(axes: &[Vec<Part>]) -> f64 {
    worst(axes, accuracy::amplification)
}

/// The expected error of a rewrite as a multiple of the direct sum's: that of its worst region; 1 without axes.
pub fn worst_error_over_direct(axes: &[Vec<Part>], channels: usize) -> f64 {
    if axes.is_empty() { 1.0 } else { worst(axes, |region| accuracy::error_ratio(region, channels)) }
}

/// The worst-case amplification of a choice of matrices; axes in the window's order.
pub fn amplification(transforms: &[Transforms]) -> f64 {
    accuracy::amplification(&inner_first(transforms))
}

/// The expected error of a choice of matrices, axes in the window's order, as a multiple of the direct sum's; 1 without
/// matrices.
pub fn error_over_direct(transforms: &[Transforms], channels: usize) -> f64 {
    if transforms.is_empty() { 1.0 } else { accuracy::error_ratio(&inner_first(transforms), channels) }
}

/// [`worst_error_over_direct`] of a rewrite of half floats whose X̂ and Ĝ are rounded to them, like the results of both.
fn half_error_over_direct(axes: &[Vec<Part>], terms: usize, dtype: DType) -> f64 {
    worst(axes, |region| split::half_error_ratio(region, terms, dtype))
}

/// [`worst_error_over_direct`] with products in three terms of tf32, whose sums are joined by additions of f32; `terms`
/// products are summed at each position, or in all without matrices.
pub(super) fn split_error_over_direct(axes: &[Vec<Part>], terms: usize) -> f64 {
    worst(axes, |region| split::split_error_ratio(region, terms))
}

/// What is known before there are data of the error of a window's rewrite, whose X̂ and Ĝ are kept in `factors`; axes in the
/// window's order. It holds for every region.
pub fn bound(
    g: &Graph,
    window: &Window,
    axes: &[Vec<Part>],
    factors: DType,
    products: Products,
) -> Option<BoundReport> {
    let (terms, dtype) = (terms(g, &window.channels), g.dtype(window.reduce).compute());
    let terms = split::roundings(terms, factors, products).saturating_add(split::factor_roundings(factors));
    let known = |region: &[&Transforms]| accuracy::bound_factor(region, terms, dtype).unwrap_or(f64::INFINITY);
    let factor = Some(worst(axes, known)).filter(|f| f.is_finite())?;
    // The axes' matrices are applied one after the other; this is how two of them are written.
    let formula = "Σ_c [|Aᵀ|((|G||g||Gᵀ|) ⊙ (|Bᵀ||x||B|))|A|]";
    Some(BoundReport { factor, unit_roundoff: dtype.unit_roundoff()?, formula })
}

/// What is known before there are data of the error of a sum of products over `ranges`, in any order, of factors that a
/// matrix unit reads as `factors`, where there is one.
pub fn direct_bound(
    g: &Graph,
    ranges: &[RangeId],
    dtype: DType,
    factors: DType,
    products: Products,
) -> Option<BoundReport> {
    let dtype = dtype.compute();
    let factor = accuracy::bound_factor(&[], split::roundings(terms(g, ranges), factors, products), dtype)?;
    Some(BoundReport { factor, unit_roundoff: dtype.unit_roundoff()?, formula: "Σ |x||w|" })
}

/// The most terms that a sum over ranges has.
fn terms(g: &Graph, ranges: &[RangeId]) -> usize {
    ranges.iter().fold(1, |n, &r| n.saturating_mul(usize::try_from(g.ints.max_size(r)).unwrap_or(0)))
}

/// The last window axis is transformed first.
fn inner_first(transforms: &[Transforms]) -> Vec<&Transforms> {
    transforms.iter().rev().collect()
}

/// A rewrite that was chosen.
#[derive(Clone, Debug)]
pub struct Choice {
    /// How each axis is covered, in the window's order.
    pub tile: Vec<AxisTile>,
    /// The parts of each axis, with their matrices.
    pub axes: Vec<Vec<Part>>,
    /// Why.
    pub reason: String,
    /// Whether X̂ and Ĝ are rounded to the half floats that they are made of.
    pub rounded: bool,
    /// Whether it was chosen for what it takes as one launch.
    pub gathered: bool,
}

/// What a window is computed on, and with.
#[derive(Clone, Copy, Default)]
pub(crate) struct Means<'a> {
    /// Multiply-adds that fit into the time of a launch, 0 where stages share one.
    pub(crate) launch: f64,
    /// Units that multiply what is summed.
    pub(crate) units: Option<Units>,
    /// The GPU whose workgroups may run all stages in one launch.
    pub(crate) workgroups: Option<&'a Gpu>,
    /// Whether weights are arguments, which each call transforms.
    pub(crate) each_call: bool,
}

/// The rewrite of a window, or (inner error) why it stays direct. The outer error is a contradiction in the options.
pub(crate) fn choose(
    g: &Graph,
    def: &Def,
    window: &Window,
    options: &Options,
    means: Means<'_>,
) -> Result<Result<Choice, String>, String> {
    let Means { launch, units, each_call, .. } = means;
    let workgroups = means.workgroups.cloned();
    decide(&Problem { launch, units, workgroups, each_call, ..Problem::of(g, def, window) }, options)
}

/// What is chosen from sizes alone: what a rival of the rewrite needs to choose the same tile.
pub fn decide(work: &Problem, options: &Options) -> Result<Result<Choice, String>, String> {
    let n = work.taps.len();
    if let Some(points) = &options.points
        && (1..points.len()).any(|i| points[..i].contains(&points[i]))
    {
        return Err("points: a point is given twice, points must differ".to_string());
    }
    let forced = match &options.tile {
        None => None,
        Some(tile) => {
            if let Some(bad) = tile.iter().find(|t| t.sizes().iter().any(|m| !TILES.contains(m))) {
                return Err(format!("tile {bad}: a tile has 2, 3, 4 or 6 outputs per axis"));
            }
            match tile[..] {
                [t] => Some(work.covered(&vec![t; n])),
                _ if tile.len() == n => Some(work.covered(tile)),
                // Another window of the same program may have as many.
                _ => {
                    return Ok(Err(format!(
                        "the tile has {} numbers for {n} window axes; give one for all or one per axis",
                        tile.len()
                    )));
                }
            }
        }
    };
    let tolerance = options.tolerance.unwrap_or_default().get();
    let inaccurate_by = |tile: &[AxisTile], ratio: f64| {
        let tile = title(&work.taps, tile);
        format!(
            "{tile} would cost {ratio:.1} times the direct sum's expected error, more than {tolerance}, the tolerance"
        )
    };
    if let Some(tile) = forced {
        return match work.fits(&tile) {
            Err(reason) => Ok(Err(reason)),
            Ok(()) => {
                // Points fit the tile and the taps together: another window may have others.
                let axes = match work.build(&tile, options) {
                    Ok(axes) => axes,
                    Err(why) => return Ok(Err(why)),
                };
                let [kept, rounded] = [false, true].map(|rounded| {
                    let ratio = work.error_over_direct(&axes, rounded);
                    (rounded, ratio)
                });
                let admitted = |c: &(bool, f64)| options.tolerance.is_none() || c.1 <= tolerance;
                let faster = work.winograd(&tile, true) < work.winograd(&tile, false);
                let (rounded, ratio) = match options.products {
                    Products::Half if work.rounds(&tile) => rounded,
                    Products::Auto if work.rounds(&tile) && rounded.1 <= tolerance && faster => rounded,
                    _ => kept,
                };
                if !admitted(&(rounded, ratio)) {
                    return Ok(Err(inaccurate_by(&tile, ratio)));
                }
                let reason = format!(
                    "{} as asked for; {}expected error {ratio:.1} times the direct sum's{}",
                    title(&work.taps, &tile),
                    of_rounded(rounded),
                    work.over_padded(&tile, rounded)
                );
                Ok(Ok(Choice { tile, axes, reason, rounded, gathered: false }))
            }
        };
    }
    // With points of the caller's choice only tiles with that many points are candidates.
    let fits_points = |tile: &[AxisTile]| {
        let fit = |p: usize| move |(t, r): (&AxisTile, &usize)| t.sizes().iter().all(|m| m + r == p + 2);
        options.points.as_ref().is_none_or(|p| tile.iter().zip(&work.taps).all(fit(p.len())))
    };
    let direct = work.direct();
    let mut best: Option<(f64, f64, Choice)> = None;
    let mut inaccurate: Option<String> = None;
    // Points of the caller's choice are a wish for the tile that they fit, and a large tolerance is one for large tiles.
    let wished = options.points.is_some() || tolerance > Tolerance::default().get();
    let tiles: &[usize] = if wished { &TILES } else { &DEFAULT_TILES };
    // Tiles of one size first: a mix must be clearly better than the best of them. Where stages are launches of their own a
    // mix has those of each region, and on an H100 the mixes that the default tolerance admits took longer at N = 1 and 16
    // (docs/performance.md).
    let mixes = work.launch == 0.0 && work.units.is_none();
    for tile in work.candidates(tiles) {
        if work.fits(&tile).is_err() || !fits_points(&tile) || (is_mixed(&tile) && !mixes) {
            continue;
        }
        let margin = match tile.iter().filter(|t| t.single().is_none()).count() {
            0 => 1.0,
            1 => MIX_MARGIN,
            _ => MIXES_MARGIN,
        };
        let roundings: &[bool] = match options.products {
            Products::Half if work.rounds(&tile) => &[true],
            Products::Auto if work.rounds(&tile) => &[false, true],
            _ => &[false],
        };
        for &rounded in roundings {
            let separate = work.winograd(&tile, rounded) * margin;
            let one = work.gathered(&tile).filter(|&one| !rounded && one < separate);
            let cost = one.unwrap_or(separate);
            if best.as_ref().is_some_and(|b| b.0 <= cost) {
                continue;
            }
            let axes = match work.build(&tile, options) {
                Ok(axes) => axes,
                Err(why) => return Ok(Err(why)),
            };
            let ratio = work.error_over_direct(&axes, rounded);
            if ratio > tolerance {
                inaccurate = Some(inaccurate_by(&tile, ratio));
                continue;
            }
            best = Some((
                cost,
                ratio,
                Choice { tile: tile.clone(), axes, reason: String::new(), rounded, gathered: one.is_some() },
            ));
        }
    }
    let Some((best, ratio, choice)) = best else {
        return match (&options.points, inaccurate) {
            (Some(p), None) => Ok(Err(format!(
                "points: no tile of 2, 3, 4 or 6 outputs uses {} points with windows of {:?} taps (F(m, r) needs m + r - 2)",
                p.len(),
                work.taps
            ))),
            (_, Some(reason)) => Ok(Err(reason)),
            _ => Ok(Err(format!("no tile has at most {MAX_ALPHA} positions per axis and {MAX_POSITIONS} in all"))),
        };
    };
    let cost = if choice.gathered { best } else { work.winograd(&choice.tile, choice.rounded) };
    let gain = direct / cost;
    let numbers = format!(
        "{}estimated cost {:.3} of the direct sum's, expected error {ratio:.1} times{}{}",
        of_rounded(choice.rounded),
        cost / direct,
        work.over_padded(&choice.tile, choice.rounded),
        work.launches(&choice)
    );
    let title = title(&work.taps, &choice.tile);
    if options.algorithm == Algorithm::Auto && gain < 1.05 {
        return Ok(Err(format!("direct is estimated to be faster: {title} has {numbers}")));
    }
    Ok(Ok(Choice { reason: format!("{title}: {numbers}"), ..choice }))
}

/// What a reason says of the factors.
fn of_rounded(rounded: bool) -> &'static str {
    if rounded { "factors rounded to half floats, " } else { "" }
}

/// Tiles that the options admit and that are not estimated to cost more than [`FAR`] times the best, the best first; none
/// is the direct sum.
pub(crate) fn admitted(
    g: &Graph,
    def: &Def,
    window: &Window,
    options: &Options,
    units: Option<Units>,
) -> Vec<Vec<AxisTile>> {
    let work = Problem { units, ..Problem::of(g, def, window) };
    let tolerance = options.tolerance.unwrap_or_default().get();
    let mut all: Vec<(f64, Vec<AxisTile>)> = Vec::new();
    if options.algorithm == Algorithm::Auto {
        all.push((work.direct(), vec![]));
    }
    let mut mixes: Vec<(f64, Vec<AxisTile>)> = Vec::new();
    for tile in work.candidates(&TILES) {
        let rounded = options.products == Products::Half && work.rounds(&tile);
        let accurate = |t: Vec<Vec<Part>>| work.error_over_direct(&t, rounded) <= tolerance;
        if work.fits(&tile).is_ok() && work.build(&tile, options).is_ok_and(accurate) {
            let list = if is_mixed(&tile) { &mut mixes } else { &mut all };
            list.push((work.winograd(&tile, rounded), tile));
        }
    }
    mixes.sort_by(|a, b| a.0.total_cmp(&b.0));
    all.extend(mixes.into_iter().take(MOST_MIXES));
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let least = all.first().map_or(0.0, |a| a.0);
    all.retain(|a| a.0 <= FAR * least);
    all.into_iter().map(|a| a.1).collect()
}

fn title(taps: &[usize], tile: &[AxisTile]) -> String {
    let axes: Vec<String> = tile.iter().zip(taps).map(|(m, r)| format!("F({m},{r})")).collect();
    axes.join("x")
}

/// Whether an axis has tiles of several sizes.
fn is_mixed(tile: &[AxisTile]) -> bool {
    tile.iter().any(|t| t.single().is_none())
}

fn fits(taps: &[usize], tile: &[AxisTile], region: &[usize]) -> Result<(), String> {
    let alpha: Vec<i64> = region.iter().zip(taps).map(|(&m, &r)| (m + r) as i64 - 1).collect();
    if let Some(a) = alpha.iter().find(|a| **a > MAX_ALPHA) {
        return Err(format!("{} has {a} positions on an axis, at most {MAX_ALPHA}", title(taps, tile)));
    }
    let all: i64 = alpha.iter().product();
    if all > MAX_POSITIONS {
        return Err(format!("{} has {all} positions, at most {MAX_POSITIONS}", title(taps, tile)));
    }
    Ok(())
}

fn combinations<T: Copy>(axes: &[Vec<T>]) -> Vec<Vec<T>> {
    cover::regions(axes).into_iter().map(|of| of.into_iter().copied().collect()).collect()
}

/// A mix is taken where its estimated cost is this many times less than that of the best tiles of one size: the estimate knows
/// nothing of how regions with few tiles fill blocks.
const MIX_MARGIN: f64 = 1.0 / 0.96;

/// The same where more than one axis is mixed: 32 images of 14 x 14 in 256 channels took 0.97 times as long where 0.89 was
/// estimated, and 0.86 times with one axis where that was 0.93.
const MIXES_MARGIN: f64 = 1.0 / 0.84;

/// Most mixes that a search is told of.
const MOST_MIXES: usize = 4;

/// How many times the estimated cost of the best tile another may have and be worth a try.
const FAR: f64 = 1.5;

/// Cost of a multiply-add in a transform against one in a register-tiled product: transforms move and permute as much
/// as they compute.
const TRANSFORM_COST: f64 = 3.0;

/// Cost of loading a weight against a multiply-add: with few outputs the weights, which no cache holds, decide. A core
/// that computes 32 multiply-adds in the time in which 4 to 16 bytes arrive would have 8 to 32.
const WEIGHT_COST: f64 = 8.0;

/// Multiply-adds of a multiprocessor in the time of a launch, 4.2 us: half of what F(4,3) in three launches takes beyond the
/// direct sum in one, 16.1 and 7.7 us for the reference layer on an H100 (`gpu_layers`), at the 6 T multiply-adds a second of
/// its direct sums in f32.
pub(crate) const LAUNCH_COST: f64 = 190e3;

/// What another region of a result takes beyond its products, transforms and weights, in multiply-adds: launches of its own.
const REGION_COST: f64 = 250e3;

/// How many times as long transforms take in regions of one tile a row, whose vectors lie in several pictures or channels: 64
/// pictures of 7 x 7 in 128 channels took 1.18 times the padded tiles with both axes in two parts, 0.94 times with one.
const NARROW: f64 = 3.0;

/// Transformed weights beyond which those of a mix, each of whose regions has its own, do not stay in a last-level cache, 64 MiB;
/// and what each beyond that costs every [`FAR_ROWS`] rows of a region, in multiply-adds. That is how much longer 8 to 64 images
/// of 14 x 14 in 512 channels took with both axes in two parts, 105 MiB of weights, than what else is counted
/// (`bench/mixed_tiles.py`).
const KEPT_WEIGHTS: f64 = 16.8e6;
const FAR_WEIGHT_COST: f64 = 20.0;
const FAR_ROWS: f64 = 64.0;

/// The same in microseconds.
pub(crate) const LAUNCH_US: f64 = 4.2;

/// Cost of copying an element of what a direct sum is of into a panel, against a multiply-add, and columns of a product from
/// which it is copied. With 6 the direct sum of 8 to 48 channels in two groups at 56 x 74 is not taken, which took 1.78 times
/// as long as Winograd's on an EPYC with AVX2.
const COPY_COST: f64 = 6.0;
const LEAST_COLUMNS: f64 = 8.0;
/// Cost of an element of X̂ that no second-level cache holds until it is read, against a multiply-add: 4 bytes written and read at 8
/// a cycle, by a core that computes 32 multiply-adds in one. Fewer columns than those do not pay for it.
const FAR_ELEMENT_COST: f64 = 32.0;
/// Elements of X̂, of a vector of tiles and all channels, that leave no room in half of a second-level cache of 1 MiB, where the other half is for
/// the input, products and weights: 512 channels in any tile, 228 in F(4,3).
const FULL_ELEMENTS: f64 = (1 << 17) as f64;

/// Rows of a product that are computed together whether there are so many or not.
const VECTOR: f64 = 16.0;

/// A sliding-window sum of products as the cost model sees it: sizes alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Taps per window axis.
    taps: Vec<usize>,
    /// Outputs per window axis.
    windowed: Vec<f64>,
    /// Outputs in all.
    outputs: f64,
    /// Outputs per place of the window.
    others: f64,
    /// Arrays that the window slides over.
    data: f64,
    /// Terms per tap.
    channels: f64,
    /// Arrays side by side that share weights: images of a batch, not groups of channels.
    sharing: f64,
    /// Multiply-adds that fit into the time of a launch, where stages are launches of their own.
    launch: f64,
    /// Matrix units for what is summed.
    units: Option<Units>,
    /// Why an axis may not have tiles of several sizes, where that is so.
    unmixed: Option<&'static str>,
    /// The GPU whose workgroups may run all stages in one launch.
    workgroups: Option<Gpu>,
    /// Whether each call transforms the weights, in a launch of its own where stages are that.
    each_call: bool,
}

/// A part of the result with tiles of one size on each axis: how many there are and what they have.
struct Region {
    /// Tiles, and outputs that they cover.
    tiles: f64,
    outputs: f64,
    positions: f64,
    /// Whether there is one tile in a row.
    narrow: bool,
}

impl Problem {
    /// A convolution of `[n, c, spatial..]` that leaves `[n, k, out..]`.
    pub fn convolution(n: usize, c: usize, k: usize, groups: usize, out: &[usize], taps: &[usize]) -> Problem {
        let windowed: Vec<f64> = out.iter().map(|&o| o as f64).collect();
        let others = n as f64 * k as f64;
        Problem {
            taps: taps.to_vec(),
            outputs: others * windowed.iter().product::<f64>(),
            windowed,
            others,
            data: n as f64 * c as f64,
            channels: (c / groups.max(1)) as f64,
            sharing: n as f64,
            launch: 0.0,
            units: None,
            unmixed: None,
            workgroups: None,
            each_call: false,
        }
    }

    /// The same for who cannot have tiles of several sizes on an axis, and why.
    pub fn unmixed(self, why: &'static str) -> Problem {
        Problem { unmixed: Some(why), ..self }
    }

    fn of(g: &Graph, def: &Def, window: &Window) -> Problem {
        let size = |r: &winograph_ir::RangeId| g.ints.max_size(*r) as f64;
        let windowed = |r: &&winograph_ir::RangeId| window.axes.iter().any(|a| a.output == **r);
        let outputs = def.axes.iter().map(size).product();
        let others: f64 = def.axes.iter().filter(|r| !windowed(r)).map(size).product();
        let data = g
            .free_ranges(window.data)
            .iter()
            .filter(|r| !windowed(r) && window.axes.iter().all(|a| a.tap != **r))
            .map(size)
            .product();
        let channels: f64 = window.channels.iter().map(size).product();
        let weights: f64 = g
            .free_ranges(window.weights)
            .iter()
            .filter(|r| window.axes.iter().all(|a| a.tap != **r))
            .map(size)
            .product();
        let taps = window.axes.iter().map(|a| a.size as usize).collect();
        let windowed = window.axes.iter().map(|a| size(&a.output)).collect();
        let sharing = (channels * others / weights.max(1.0)).max(1.0);
        let known = window.axes.iter().all(|a| g.ints.const_size(a.output).is_some());
        let unmixed = (!known).then_some("the number of outputs is no constant");
        let (launch, units, workgroups, each_call) = (0.0, None, None, false);
        Problem {
            taps,
            windowed,
            outputs,
            others,
            data,
            channels,
            sharing,
            launch,
            units,
            unmixed,
            workgroups,
            each_call,
        }
    }

    /// Tiles as they come to be: those of one size where one size covers all of an axis.
    fn covered(&self, tile: &[AxisTile]) -> Vec<AxisTile> {
        let axis = |(&t, &outputs): (&AxisTile, &f64)| match cover::uniform(t, outputs as usize) {
            Some(m) if self.unmixed.is_none() => AxisTile::new(m),
            _ => t,
        };
        tile.iter().zip(&self.windowed).map(axis).collect()
    }

    /// Sizes of tiles and how many there are in each part of each axis.
    fn parts(&self, tile: &[AxisTile]) -> Vec<Vec<(usize, usize)>> {
        tile.iter().zip(&self.windowed).map(|(t, &outputs)| t.parts(outputs as usize)).collect()
    }

    fn regions(&self, tile: &[AxisTile]) -> Vec<Region> {
        // Of each part its outputs, too.
        let with_outputs = |(parts, &outputs): (Vec<(usize, usize)>, &f64)| {
            let mut left = outputs;
            let each = parts.into_iter().map(|(m, tiles)| {
                let covered = ((m * tiles) as f64).min(left);
                left -= covered;
                (m as f64, tiles as f64, covered)
            });
            each.collect::<Vec<_>>()
        };
        let axes: Vec<Vec<(f64, f64, f64)>> =
            self.parts(tile).into_iter().zip(&self.windowed).map(with_outputs).collect();
        let region = |of: Vec<&(f64, f64, f64)>| Region {
            tiles: of.iter().map(|p| p.1).product(),
            outputs: of.iter().map(|p| p.2).product(),
            positions: of.iter().zip(&self.taps).map(|(p, &r)| p.0 + r as f64 - 1.0).product(),
            narrow: of.last().is_some_and(|p| p.1 == 1.0),
        };
        cover::regions(&axes).into_iter().map(region).collect()
    }

    /// Whether there are such tiles, and if not, why.
    fn fits(&self, tile: &[AxisTile]) -> Result<(), String> {
        if let Some(why) = self.unmixed.filter(|_| is_mixed(tile)) {
            return Err(format!("{} has tiles of several sizes on an axis, but {why}", title(&self.taps, tile)));
        }
        let sizes: Vec<Vec<usize>> = tile.iter().map(|t| t.sizes().to_vec()).collect();
        combinations(&sizes).iter().try_for_each(|region| fits(&self.taps, tile, region))
    }

    fn build(&self, tile: &[AxisTile], options: &Options) -> Result<Vec<Vec<Part>>, String> {
        let points = options.points.as_deref();
        let axes = tile.iter().zip(&self.windowed).zip(&self.taps);
        axes.map(|((&t, &outputs), &r)| cover::parts(t, outputs as usize, r, points)).collect()
    }

    /// What may be chosen of tiles of these sizes: those of one size, and then those with a part of each axis by another
    /// size where one alone would reach beyond it.
    fn candidates(&self, sizes: &[usize]) -> Vec<Vec<AxisTile>> {
        let plain: Vec<AxisTile> = sizes.iter().map(|&m| m.into()).collect();
        let mut out = combinations(&vec![plain.clone(); self.taps.len()]);
        if self.unmixed.is_some() {
            return out;
        }
        // Of two that cost the same the one with the larger tiles first.
        let largest_first: Vec<usize> = sizes.iter().copied().rev().collect();
        let with_mixes = |&outputs: &f64| {
            let outputs = outputs as usize;
            let beyond = |m: usize| outputs.div_ceil(m) * m - outputs;
            let pairs = combinations(&[largest_first.clone(), sizes.to_vec()]);
            let two = pairs.into_iter().filter_map(|of| {
                let tile = AxisTile::of(&of)?;
                let parts = tile.parts(outputs);
                let covered: usize = parts.iter().map(|p| p.0 * p.1).sum();
                (parts.len() == 2 && covered - outputs < beyond(of[0].max(of[1]))).then_some(tile)
            });
            plain.iter().copied().chain(two).collect::<Vec<AxisTile>>()
        };
        let axes: Vec<Vec<AxisTile>> = self.windowed.iter().map(with_mixes).collect();
        out.extend(combinations(&axes).into_iter().filter(|tile| is_mixed(tile)));
        out
    }

    /// What tiles of several sizes are estimated to cost over those of the first size alone, in words.
    fn over_padded(&self, tile: &[AxisTile], rounded: bool) -> String {
        if !is_mixed(tile) {
            return String::new();
        }
        let plain: Vec<AxisTile> = tile.iter().map(|t| t.sizes().iter().copied().max().unwrap_or(1).into()).collect();
        let products = |tile: &[AxisTile]| self.regions(tile).iter().map(|r| r.tiles * r.positions).sum::<f64>();
        format!(
            "; {} regions with {:.3} of the products and {:.3} of the estimated cost of {} with the last tiles padded",
            self.regions(tile).len(),
            products(tile) / products(&plain),
            self.winograd(tile, rounded) / self.winograd(&plain, rounded),
            title(&self.taps, &plain)
        )
    }

    /// The expected error of a rewrite over the direct sum's.
    fn error_over_direct(&self, axes: &[Vec<Part>], rounded: bool) -> f64 {
        match self.units.and_then(Units::half).filter(|_| rounded) {
            Some(half) => half_error_over_direct(axes, self.channels as usize, half),
            None => worst_error_over_direct(axes, self.channels as usize),
        }
    }

    /// Whether rounding X̂ and Ĝ to half floats lets a unit multiply them.
    fn rounds(&self, tile: &[AxisTile]) -> bool {
        let take = |u: Units| {
            let regions = self.regions(tile);
            u.half().is_some()
                && regions.iter().all(|r| u.take(self.channels, self.rewritten(r).products(self.channels)))
        };
        self.units.is_some_and(take)
    }

    fn sizes(&self) -> Sizes {
        let places = self.outputs / self.others;
        let taps = self.taps.iter().map(|&r| r as f64).product();
        Sizes {
            elements: [places * self.data, self.weights(), self.outputs],
            taps,
            channels: self.channels,
            sharing: self.sharing,
            others: self.others,
        }
    }

    fn rewritten(&self, region: &Region) -> Rewritten {
        let &Region { tiles, positions, .. } = region;
        let results = tiles * positions * self.others;
        let elements = [tiles * positions * self.data, positions * self.weights(), results];
        Rewritten { elements, tiles, positions }
    }

    /// What the direct sum costs: in multiply-adds, with the loads of weights and the copies of what it is of, tap by tap; in
    /// microseconds where there are units for its products.
    fn direct(&self) -> f64 {
        if let Some(units) = self.units {
            return units.direct(&self.sizes());
        }
        let taps = self.taps.iter().map(|&r| r as f64).product::<f64>();
        let places = self.outputs / self.others;
        let copied = if self.columns() >= LEAST_COLUMNS { places * self.data * COPY_COST } else { 0.0 };
        taps * (self.filled(places) * self.others * self.channels + self.weights() * WEIGHT_COST + copied)
    }

    /// So many rows of a product, of each array in `others`, with those that fill up the last vector.
    fn filled(&self, rows: f64) -> f64 {
        (rows * self.sharing / VECTOR).ceil() * VECTOR / self.sharing
    }

    /// The same of F(m, r): multiply-adds, with those of the transforms weighted and the loads of weights, or microseconds, with
    /// X̂ and Ĝ rounded to half floats or as they are.
    fn winograd(&self, tile: &[AxisTile], rounded: bool) -> f64 {
        let regions = self.regions(tile);
        let each: f64 = regions.iter().map(|r| self.region(r, rounded)).sum();
        if regions.len() <= 1 || self.units.is_some() {
            return each;
        }
        let weights = regions.iter().map(|r| r.positions).sum::<f64>() * self.weights();
        let rows = regions.iter().map(|r| r.tiles * self.sharing).sum::<f64>() / regions.len() as f64;
        let far = (weights - KEPT_WEIGHTS).max(0.0) * FAR_WEIGHT_COST * (rows / FAR_ROWS).max(1.0);
        let narrow = regions.iter().filter(|r| r.narrow).map(|r| (NARROW - 1.0) * self.transforms(r)).sum::<f64>();
        each + far + narrow + (regions.len() as f64 - 1.0) * (REGION_COST + self.launch)
    }

    /// The same of a region.
    fn region(&self, region: &Region, rounded: bool) -> f64 {
        if let Some(units) = self.units {
            let [x, w, y] = self.sizes().elements;
            let part = region.outputs / (self.outputs / self.others);
            let sizes = Sizes { elements: [x * part, w, y * part], ..self.sizes() };
            return units.rewritten(&sizes, &self.rewritten(region), rounded);
        }
        let &Region { tiles, positions, .. } = region;
        let multiply = self.filled(tiles) * positions * self.others * self.channels;
        let launches = 2.0 + f64::from(u8::from(self.each_call));
        let few = self.launch == 0.0 && self.columns() < LEAST_COLUMNS;
        let far = match few && VECTOR * positions * self.data / self.sharing >= FULL_ELEMENTS {
            true => tiles * positions * self.data * FAR_ELEMENT_COST,
            false => 0.0,
        };
        multiply + self.transforms(region) + far + positions * self.weights() * WEIGHT_COST + launches * self.launch
    }

    /// Tiles of one size each as one launch of workgroups, where that may be.
    fn one_launch(&self, tile: &[AxisTile]) -> Option<Estimate> {
        let gpu = self.workgroups.as_ref().filter(|_| self.units.is_none() && self.launch > 0.0)?;
        let [region] = &self.regions(tile)[..] else { return None };
        let axis = |size: i64| block_cost::Axis { reader: 0, size };
        let along = self.parts(tile).into_iter().flatten().map(|p| p.1 as i64);
        let images = Some(self.sharing as i64).filter(|&n| n > 1);
        let groups = self.groups();
        let sizes = block_cost::Sizes {
            rows: images.into_iter().chain(along).map(axis).collect(),
            columns: Some(axis(self.columns() as i64)),
            beside: 1.0,
            batch: region.positions * groups,
            terms: self.channels,
            computed: true,
        };
        group_cost::estimate(&sizes, 3, gpu)
    }

    /// What tiles cost as one launch where that clearly pays beside launches of their own and the direct sum: in multiply-adds,
    /// without what any launch takes. Where each call transforms the weights that is a launch before.
    fn gathered(&self, tile: &[AxisTile]) -> Option<f64> {
        let one = self.one_launch(tile).filter(Estimate::pays)?;
        let before = if self.each_call { self.launch } else { 0.0 };
        let cost = one.us * self.launch / LAUNCH_US + before;
        (self.launch + cost <= MARGIN * (self.launch + self.direct())).then_some(cost)
    }

    /// What a choice is estimated to take in one launch, in several and as a direct sum, in words, where one may be.
    fn launches(&self, choice: &Choice) -> String {
        let Some(one) = self.one_launch(&choice.tile) else { return String::new() };
        let us = |cost: f64| LAUNCH_US * (1.0 + cost / self.launch);
        let before = if self.each_call { LAUNCH_US } else { 0.0 };
        format!(
            "; {}one launch of workgroups, estimated at {:.1} us, launches of their own at {:.1}, the direct sum at {:.1}",
            if choice.gathered { "chosen as " } else { "not as " },
            LAUNCH_US + one.us + before,
            us(self.winograd(&choice.tile, choice.rounded)),
            us(self.direct())
        )
    }

    /// Columns of a product: outputs along the weights' own axis in a group.
    fn columns(&self) -> f64 {
        self.others / self.sharing / self.groups()
    }

    /// Groups of channels.
    fn groups(&self) -> f64 {
        (self.data / self.channels / self.sharing).max(1.0)
    }

    /// Transforms of inputs and outputs in a region.
    fn transforms(&self, region: &Region) -> f64 {
        let per_element = TRANSFORM_COST * (self.taps.len() as f64 + 1.0);
        region.tiles * region.positions * (self.data + self.others) * per_element
    }

    /// Weights of one tap.
    fn weights(&self) -> f64 {
        self.channels * self.others / self.sharing
    }
}
