//! The a-priori bound on a convolution's rounding errors, evaluated for given data.
//!
//! For every output: `|y − ŷ| ≤ γ·[|Aᵀ|((|G||g||Gᵀ|) ⊙ (|Bᵀ||x||B|))|A|] + underflow`, summed over channels, with γ from
//! [`accuracy::bound_factor`]. A direct sum is the case of one output a tile and matrices of zeros and ones, so one
//! evaluation serves both. docs/winograd.md has the derivation.
//!
//! The evaluation is in f64 on numbers that are not negative, and rounded outward: what it gives is never less than the
//! bound. What is added after the sums (a bias) and roundings of the result to another type are not in it; for half
//! floats see [`Bound::stored`].

use super::accuracy;
use super::cook_toom::Transforms;
use super::cover::{Part, regions};
use super::split;
use crate::options::Products;
use crate::target::Target;
use std::sync::Arc;
use thiserror::Error;
use winograph_ir::DType;

/// Output channels that are evaluated at a time.
const BLOCK: usize = 8;

/// More than the relative error of the evaluation: each of its results is a sum of less than 2²⁶ roundings of 2⁻⁵³.
const OUTWARD: f64 = 1.0 + 1.0 / (1u64 << 26) as f64;

/// What there is no bound for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BoundError {
    /// Sizes that contradict each other.
    #[error("{0}")]
    Shape(String),
    /// Sums so long that rounding may leave nothing of them, or numbers that are not floats.
    #[error("sums of {terms} terms in {dtype} have no bound: it takes a float dtype and fewer than 1/u terms")]
    Terms {
        /// Terms of each sum.
        terms: usize,
        /// The type in which they are summed.
        dtype: DType,
    },
}

fn wrong<T>(what: impl Into<String>) -> Result<T, BoundError> {
    Err(BoundError::Shape(what.into()))
}

/// The sizes of a convolution over 1 to 3 spatial axes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    images: usize,
    groups: usize,
    /// Input channels of a group.
    c: usize,
    /// Output channels of a group.
    k: usize,
    axes: Vec<Axis>,
}

/// One spatial axis.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Axis {
    input: usize,
    window: usize,
    before: usize,
    stride: usize,
    dilation: usize,
    /// Outputs.
    out: usize,
    /// Those before them and all of the axis, where these are part of it.
    from: usize,
    whole: usize,
}

impl Sizes {
    /// A convolution of `input` `[n, c, spatial..]` with `weight` `[k, c/groups, window..]`, with `(before, after)` zeros,
    /// a stride and a dilation for each spatial axis.
    pub fn new(
        input: &[usize],
        weight: &[usize],
        padding: &[(usize, usize)],
        stride: &[usize],
        dilation: &[usize],
        groups: usize,
    ) -> Result<Sizes, BoundError> {
        let (&[images, channels, ref spatial @ ..], &[k, c, ref window @ ..]) = (input, weight) else {
            return wrong("an input has the axes [n, c, spatial..] and a weight [k, c/groups, window..]");
        };
        let rank = spatial.len();
        if !(1..=3).contains(&rank) || [window.len(), padding.len(), stride.len(), dilation.len()] != [rank; 4] {
            return wrong("a window, padding, stride and dilation for each of 1 to 3 spatial axes are needed");
        }
        if groups == 0 || c.checked_mul(groups) != Some(channels) || !k.is_multiple_of(groups) {
            return wrong(format!("{channels} and {k} channels do not fit {groups} groups of {c} input channels"));
        }
        let mut axes = Vec::with_capacity(rank);
        for i in 0..rank {
            let (before, after) = padding[i];
            let span = window[i].checked_sub(1).and_then(|r| r.checked_mul(dilation[i])).and_then(|s| s.checked_add(1));
            let padded = spatial[i].checked_add(before).and_then(|s| s.checked_add(after));
            match (padded, span) {
                (Some(padded), Some(span)) if padded >= span && stride[i] > 0 => {
                    let out = (padded - span) / stride[i] + 1;
                    axes.push(Axis {
                        input: spatial[i],
                        window: window[i],
                        before,
                        stride: stride[i],
                        dilation: dilation[i],
                        out,
                        from: 0,
                        whole: out,
                    });
                }
                _ => return wrong(format!("on spatial axis {i} the window does not fit the padded input")),
            }
        }
        Ok(Sizes { images, groups, c, k: k / groups, axes })
    }

    /// Outputs per image and output channel.
    fn plane(&self) -> usize {
        self.axes.iter().map(|a| a.out).product()
    }
}

/// The arithmetic of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arithmetic {
    /// The dtype of the tensors. Half floats are computed in f32.
    pub dtype: DType,
    /// Whether values below the least normal number become 0; otherwise underflow is gradual.
    pub flush: bool,
    /// How products may be rounded.
    pub products: Products,
    /// Whether products of half floats may be on matrix units.
    pub units: bool,
}

impl Arithmetic {
    /// The arithmetic of this project's CPU kernels.
    pub fn gradual(dtype: DType) -> Arithmetic {
        Arithmetic { dtype, flush: false, products: Products::Exact, units: false }
    }

    /// The arithmetic of kernels for a target: with matrix units where it has them.
    pub fn of(target: &Target, dtype: DType, products: Products) -> Arithmetic {
        let units = target.gpu.as_ref().is_some_and(|gpu| !gpu.units.is_empty());
        Arithmetic { products, units, ..Arithmetic::gradual(dtype) }
    }

    /// Whether factors of products may be rounded to tf32.
    fn rounds_factors(&self) -> bool {
        self.dtype.compute() == DType::F32 && !matches!(self.products, Products::Exact | Products::Half)
    }

    /// The half float that X̂ and Ĝ of a rewrite may be rounded to.
    fn half_factors(&self) -> Option<DType> {
        let half = matches!(self.dtype, DType::F16 | DType::BF16);
        (half && self.units && matches!(self.products, Products::Half | Products::Auto)).then_some(self.dtype)
    }

    /// The most that a factor loses where it is rounded and is below the normal numbers: the distance of tf32's own
    /// below them, which has the exponents of f32; half of that of a half float, for factors of a rewrite.
    fn least_of_factor(&self, rewritten: bool) -> f64 {
        let tf32 = if self.rounds_factors() { 2f64.powi(-136) } else { 0.0 };
        self.half_factors().filter(|_| rewritten).map_or(0.0, half_of_least).max(tf32)
    }

    /// How many times [`least`](Arithmetic::least) underflow takes from a product and its addition: twice, three times where a
    /// unit adds it, and where a unit multiplies three times as often; one more pays for the evaluation.
    fn losses(&self) -> f64 {
        if self.rounds_factors() { 10.0 } else { 4.0 }
    }

    /// The most that one operation loses by underflow. For f64, in which this is evaluated, twice that.
    fn least(&self) -> f64 {
        match (self.dtype.compute(), self.flush) {
            (DType::F64, false) => f64::from_bits(1),
            (DType::F64, true) => f64::MIN_POSITIVE,
            (_, false) => 2f64.powi(-150),
            (_, true) => 2f64.powi(-126),
        }
    }
}

/// Matrices of magnitudes along one axis, and what underflow adds in them.
struct Magnitudes {
    m: usize,
    at: Vec<Vec<f64>>,
    g: Vec<Vec<f64>>,
    bt: Vec<Vec<f64>>,
    /// Operations that may underflow in each row, weighted with what multiplies their results.
    lost: [Vec<f64>; 3],
    /// Distance of tiles and of positions in the input.
    step: usize,
    dilation: usize,
}

impl Magnitudes {
    fn transformed(t: &Transforms) -> Magnitudes {
        let [at, g, bt] = [&t.at, &t.g, &t.bt].map(|m| m.to_f64());
        let lost = [&at, &g, &bt].map(|m| (0..m.len()).map(|i| accuracy::operations(m, i)).collect());
        let [at, g, bt] = [at, g, bt].map(|m| m.into_iter().map(|r| r.into_iter().map(f64::abs).collect()).collect());
        Magnitudes { m: t.m, at, g, bt, lost, step: t.m, dilation: 1 }
    }

    /// The direct sum: one output a tile, a position for each tap.
    fn direct(axis: &Axis) -> Magnitudes {
        let r = axis.window;
        let unit: Vec<Vec<f64>> = (0..r).map(|i| (0..r).map(|j| f64::from(u8::from(i == j))).collect()).collect();
        Magnitudes {
            m: 1,
            at: vec![vec![1.0; r]],
            g: unit.clone(),
            bt: unit,
            lost: [vec![0.0], vec![0.0; r], vec![0.0; r]],
            step: axis.stride,
            dilation: axis.dilation,
        }
    }

    fn positions(&self) -> usize {
        self.bt.len()
    }
}

/// The bound of one convolution for given data, ready to be evaluated block by block.
pub struct Bound {
    sizes: Sizes,
    arithmetic: Arithmetic,
    /// The parts of the result that have matrices of their own.
    regions: Vec<Region>,
}

impl Bound {
    /// The bound of the direct sum in any order, products fused or not.
    pub fn direct(sizes: &Sizes, x: &[f64], w: &[f64], arithmetic: Arithmetic) -> Result<Bound, BoundError> {
        Bound::winograd(sizes, x, w, &vec![None; sizes.axes.len()], arithmetic)
    }

    /// The bound of Winograd with these matrices per spatial axis; `None` stands for an axis that is not transformed, as
    /// those with one tap or one output are not.
    pub fn winograd(
        sizes: &Sizes,
        x: &[f64],
        w: &[f64],
        transforms: &[Option<&Transforms>],
        arithmetic: Arithmetic,
    ) -> Result<Bound, BoundError> {
        let axes: Vec<Vec<Part>> =
            transforms.iter().map(|t| t.iter().map(|&t| Part::whole(t.clone())).collect()).collect();
        Bound::mixed(sizes, x, w, &axes, arithmetic)
    }

    /// The bound of Winograd with tiles of several sizes along an axis: the parts of each spatial axis; an axis without parts
    /// is not transformed. Each output has the bound of its region.
    pub fn mixed(
        sizes: &Sizes,
        x: &[f64],
        w: &[f64],
        axes: &[Vec<Part>],
        arithmetic: Arithmetic,
    ) -> Result<Bound, BoundError> {
        if axes.len() != sizes.axes.len() {
            return wrong(format!("matrices for {} of {} spatial axes", axes.len(), sizes.axes.len()));
        }
        let axes: Vec<Vec<Option<&Part>>> =
            axes.iter().map(|a| if a.is_empty() { vec![None] } else { a.iter().map(Some).collect() }).collect();
        for (axis, parts) in sizes.axes.iter().zip(&axes) {
            let ends =
                |at: usize, p: &Part| (p.from == at).then(|| p.outputs.map_or(axis.out, |n| at.saturating_add(n)));
            if parts.iter().flatten().try_fold(0, |at, p| ends(at, p)).is_none_or(|at| at != axis.out && at != 0) {
                return wrong(format!("the parts of an axis do not cover its {} outputs", axis.out));
            }
        }
        let x = Arc::new(magnitudes(x));
        let region = |region: Vec<&Option<&Part>>| {
            let mut part = sizes.clone();
            for (axis, p) in part.axes.iter_mut().zip(&region) {
                (axis.from, axis.out) = p.map_or((0, axis.whole), |p| (p.from, p.outputs.unwrap_or(axis.whole)));
            }
            let transforms: Vec<Option<&Transforms>> = region.iter().map(|p| p.map(|p| &p.transforms)).collect();
            Region::new(&part, &x, w, &transforms, arithmetic)
        };
        let regions = regions(&axes).into_iter().map(region).collect::<Result<Vec<Region>, BoundError>>()?;
        Ok(Bound { sizes: sizes.clone(), arithmetic, regions })
    }

    /// Number of blocks: each is some neighbouring output channels of one image. Together, in order, they are the
    /// elements of the result `[n, k, out..]`.
    pub fn blocks(&self) -> usize {
        self.sizes.images * self.sizes.groups * self.sizes.k.div_ceil(BLOCK)
    }

    /// The place in the result of a block's first element.
    pub fn first_element(&self, at: usize) -> usize {
        let s = &self.sizes;
        let per_group = s.k.div_ceil(BLOCK).max(1);
        (at / per_group * s.k + at % per_group * BLOCK) * s.plane()
    }

    /// The bound for each element of a block; nothing for a block that does not exist. Where data is not finite, or sums
    /// may overflow, it is infinite.
    pub fn block(&self, at: usize) -> Vec<f64> {
        if let [one] = &self.regions[..] {
            return one.block(at);
        }
        let outs: Vec<usize> = self.sizes.axes.iter().map(|a| a.out).collect();
        let plane = self.sizes.plane();
        let mut out: Vec<f64> = Vec::new();
        for region in &self.regions {
            let found = region.block(at);
            let own: Vec<usize> = region.sizes.axes.iter().map(|a| a.out).collect();
            let size = region.sizes.plane().max(1);
            out.resize(found.len() / size * plane, f64::INFINITY);
            for (channel, found) in found.chunks(size).enumerate() {
                for (p, b) in points(&own).zip(found) {
                    let place = p.iter().zip(&region.sizes.axes).zip(&outs);
                    let place = place.fold(0, |at, ((p, axis), &out)| at * out + axis.from + p);
                    out[channel * plane + place] = *b;
                }
            }
        }
        out
    }

    /// The bound for every element of the result.
    pub fn all(&self) -> Vec<f64> {
        (0..self.blocks()).flat_map(|b| self.block(b)).collect()
    }

    /// The bound for an element that is rounded to the tensors' dtype, from its bound and its exact value: half floats
    /// are computed in f32 and rounded once at the end.
    pub fn stored(&self, bound: f64, exact: f64) -> f64 {
        let dtype = self.arithmetic.dtype;
        if dtype == dtype.compute() {
            return bound;
        }
        let least = half_of_least(dtype);
        let value = (exact.abs() + bound) * OUTWARD;
        if value >= largest(dtype) {
            return f64::INFINITY;
        }
        (bound + dtype.unit_roundoff().unwrap_or(1.0) * value + least) * OUTWARD
    }
}

/// The bound for outputs that have the same matrices.
struct Region {
    sizes: Sizes,
    /// What no factor may reach.
    largest_factor: f64,
    arithmetic: Arithmetic,
    axes: Vec<Magnitudes>,
    factor: f64,
    /// |x|.
    x: Arc<Vec<f64>>,
    /// |G||g||Gᵀ|: `[k][c][positions]`.
    g: Vec<f64>,
    /// What underflow adds to each position of X̂ and of Ĝ, and to each output of a tile.
    lost_x: Vec<f64>,
    lost_g: Vec<f64>,
    lost_y: Vec<f64>,
}

impl Region {
    fn new(
        sizes: &Sizes,
        x: &Arc<Vec<f64>>,
        w: &[f64],
        transforms: &[Option<&Transforms>],
        arithmetic: Arithmetic,
    ) -> Result<Region, BoundError> {
        let product = |list: &[usize]| list.iter().try_fold(1usize, |n, &s| n.checked_mul(s));
        let inputs: Vec<usize> = sizes.axes.iter().map(|a| a.input).collect();
        let windows: Vec<usize> = sizes.axes.iter().map(|a| a.window).collect();
        let of_x = product(&inputs).and_then(|p| product(&[sizes.images, sizes.groups, sizes.c, p]));
        let of_w = product(&windows).and_then(|p| product(&[sizes.k, sizes.groups, sizes.c, p]));
        if of_x != Some(x.len()) || of_w != Some(w.len()) {
            return wrong(format!("{} inputs and {} weights are not as many as the sizes say", x.len(), w.len()));
        }
        let mut axes = Vec::new();
        let mut terms = sizes.c;
        for (axis, t) in sizes.axes.iter().zip(transforms) {
            match t {
                Some(t) if t.r != axis.window || axis.stride != 1 || axis.dilation != 1 => {
                    return wrong(format!("F({}, {}) does not fit a window of {} taps", t.m, t.r, axis.window));
                }
                Some(t) => axes.push(Magnitudes::transformed(t)),
                None => {
                    terms = terms.saturating_mul(axis.window);
                    axes.push(Magnitudes::direct(axis));
                }
            }
        }
        let dtype = arithmetic.dtype.compute();
        let used: Vec<&Transforms> = transforms.iter().rev().flatten().copied().collect();
        // Transforms leave f32, or half floats where those are asked for.
        let rewritten = !used.is_empty();
        let half = arithmetic.half_factors().filter(|_| rewritten);
        let as_given = arithmetic.units && !rewritten;
        let factors = if as_given { arithmetic.dtype } else { half.unwrap_or(dtype) };
        let roundings = split::roundings(terms, factors, arithmetic.products);
        // Where that is left to the compiler, they may as well be in f32.
        let roundings = match arithmetic.products {
            Products::Auto => roundings.max(split::roundings(terms, dtype, arithmetic.products)),
            _ => roundings,
        };
        let roundings = roundings.saturating_add(half.map_or(0, split::factor_roundings));
        let factor = accuracy::bound_factor(&used, roundings, dtype).ok_or(BoundError::Terms { terms, dtype })?;
        let factor = factor * dtype.unit_roundoff().unwrap_or(0.0);
        let (least, start) = (arithmetic.least(), if arithmetic.flush { arithmetic.least() } else { 0.0 });
        let lost = |which: usize| {
            let matrix = |a: &Magnitudes| [&a.at, &a.g, &a.bt][which].clone();
            let mut sizes: Vec<usize> = axes.iter().map(|a| matrix(a).first().map_or(0, Vec::len)).collect();
            let mut out = vec![start; sizes.iter().product()];
            for (i, a) in axes.iter().enumerate().rev() {
                let added: Vec<f64> = a.lost[which].iter().map(|n| n * least).collect();
                out = apply(&out, &mut sizes, i, 1, &matrix(a), &added);
            }
            // Where values below the normal ones are taken for 0, what was stored may be as well.
            out.iter_mut().for_each(|v| *v += start);
            out
        };
        let (lost_y, mut lost_x) = (lost(0), lost(2));
        // But for f64 weights are transformed in f64 and rounded once.
        let mut lost_g = if dtype == DType::F64 { lost(1) } else { vec![least + start; lost_x.len()] };
        lost_x.iter_mut().chain(&mut lost_g).for_each(|v| *v += arithmetic.least_of_factor(rewritten));
        let mut bound = Region {
            // What is near the largest may be infinite when it is rounded.
            largest_factor: half.map_or(f64::INFINITY, |half| largest(half) * (1.0 - 2f64.powi(-10))),
            sizes: sizes.clone(),
            arithmetic,
            axes,
            factor,
            x: x.clone(),
            g: vec![],
            lost_x,
            lost_g,
            lost_y,
        };
        for taps in w.chunks(windows.iter().product::<usize>().max(1)) {
            let mut sizes = windows.clone();
            let mut g = magnitudes(taps);
            for (i, a) in bound.axes.iter().enumerate().rev() {
                g = apply(&g, &mut sizes, i, 1, &a.g, &[]);
            }
            g.iter_mut().filter(|g| **g >= bound.largest_factor).for_each(|g| *g = f64::INFINITY);
            bound.g.extend(g);
        }
        Ok(bound)
    }

    /// The bound for each element of a block that is in the region.
    fn block(&self, at: usize) -> Vec<f64> {
        let s = &self.sizes;
        let per_group = s.k.div_ceil(BLOCK).max(1);
        let (image, group) = (at / per_group / s.groups, at / per_group % s.groups);
        let first = at % per_group * BLOCK;
        if image >= s.images || s.plane() == 0 {
            return vec![];
        }
        let count = BLOCK.min(s.k.saturating_sub(first));
        let tiles: Vec<usize> = s.axes.iter().zip(&self.axes).map(|(a, m)| a.out.div_ceil(m.m)).collect();
        let all_tiles: usize = tiles.iter().product();
        let positions: usize = self.axes.iter().map(Magnitudes::positions).product();
        let (least, largest) = (self.arithmetic.least(), largest(self.arithmetic.dtype.compute()));
        let mut sums = vec![0.0; count * positions * all_tiles];
        let mut of_x = vec![0.0; positions * all_tiles];
        let mut of_g = vec![0.0; count * positions];
        for c in 0..s.c {
            let mut x = self.input((image * s.groups + group) * s.c + c, &tiles);
            x.iter_mut().filter(|x| **x >= self.largest_factor).for_each(|x| *x = f64::INFINITY);
            of_x.iter_mut().zip(&x).for_each(|(sum, x)| *sum += x);
            for k in 0..count {
                let at = ((group * s.k + first + k) * s.c + c) * positions;
                for (p, g) in self.g[at..at + positions].iter().enumerate() {
                    of_g[k * positions + p] += g;
                    let at = (k * positions + p) * all_tiles;
                    let row = sums[at..at + all_tiles].iter_mut().zip(&x[p * all_tiles..]);
                    row.for_each(|(sum, x)| *sum += g * x);
                }
            }
        }
        let (c, more, losses) = (s.c as f64, 1.0 + self.factor, self.arithmetic.losses());
        let mut out = Vec::with_capacity(count * s.plane());
        for k in 0..count {
            let mut errors = Vec::with_capacity(positions * all_tiles);
            for p in 0..positions {
                let (lost_x, lost_g) = (self.lost_x[p], self.lost_g[p]);
                let here = lost_x * of_g[k * positions + p] + c * (lost_x * lost_g + losses * least);
                for t in 0..all_tiles {
                    let (sum, x) = (sums[(k * positions + p) * all_tiles + t], of_x[p * all_tiles + t]);
                    let error = self.factor * sum + more * (here + lost_g * x);
                    errors.push(if sum > largest || x > largest { f64::INFINITY } else { error });
                }
            }
            let mut sizes: Vec<usize> = self.axes.iter().map(Magnitudes::positions).collect();
            for (i, a) in self.axes.iter().enumerate().rev() {
                errors = apply(&errors, &mut sizes, i, all_tiles, &a.at, &[]);
            }
            self.plane(&errors, &tiles, &mut out);
        }
        let limit = self.factor * largest;
        out.iter_mut().for_each(|e| {
            *e *= OUTWARD;
            // `e` is at least the factor times the magnitudes that meet in an output; a NaN is not below it either.
            *e = if *e < limit { *e } else { f64::INFINITY };
        });
        out
    }

    /// |Bᵀ||x||B| of one channel: `[positions][tiles]`.
    fn input(&self, channel: usize, tiles: &[usize]) -> Vec<f64> {
        let s = &self.sizes;
        let len: usize = s.axes.iter().map(|a| a.input).product();
        let x = &self.x[channel * len..(channel + 1) * len];
        // Where along each axis a position of a tile reads, if it does.
        let reads: Vec<Vec<Vec<Option<usize>>>> = (s.axes.iter().zip(&self.axes).zip(tiles))
            .map(|((a, m), &tiles)| {
                let extent = (a.whole - 1) * a.stride + (a.window - 1) * a.dilation + 1;
                let read = |t: usize, p: usize| {
                    let at = a.from * a.stride + t * m.step + p * m.dilation;
                    at.checked_sub(a.before).filter(|&i| i < a.input && at < extent)
                };
                (0..m.positions()).map(|p| (0..tiles).map(|t| read(t, p)).collect()).collect()
            })
            .collect();
        let mut sizes: Vec<usize> = self.axes.iter().map(Magnitudes::positions).collect();
        let mut data = Vec::with_capacity(sizes.iter().product::<usize>() * tiles.iter().product::<usize>());
        for p in points(&sizes) {
            for t in points(tiles) {
                let place = (0..p.len()).try_fold(0, |at, i| Some(at * s.axes[i].input + reads[i][p[i]][t[i]]?));
                data.push(place.map_or(0.0, |at| x[at]));
            }
        }
        for (i, a) in self.axes.iter().enumerate().rev() {
            data = apply(&data, &mut sizes, i, tiles.iter().product(), &a.bt, &[]);
        }
        data
    }

    /// Puts `[outputs of a tile][tiles]` in the order of the result, with what output transforms lose.
    fn plane(&self, errors: &[f64], tiles: &[usize], out: &mut Vec<f64>) {
        let all_tiles: usize = tiles.iter().product();
        let outs: Vec<usize> = self.sizes.axes.iter().map(|a| a.out).collect();
        let more = 1.0 + self.factor;
        for o in points(&outs) {
            let (mut place, mut tile) = (0, 0);
            for (i, a) in self.axes.iter().enumerate() {
                place = place * a.m + o[i] % a.m;
                tile = tile * tiles[i] + o[i] / a.m;
            }
            out.push(errors[place * all_tiles + tile] + more * self.lost_y[place]);
        }
    }
}

/// Half of the least positive number of a half float.
fn half_of_least(dtype: DType) -> f64 {
    if dtype == DType::F16 { 2f64.powi(-25) } else { 2f64.powi(-134) }
}

fn magnitudes(values: &[f64]) -> Vec<f64> {
    values.iter().map(|v| v.abs()).collect()
}

fn largest(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 65504.0,
        DType::F64 => f64::MAX,
        _ => f32::MAX.into(),
    }
}

/// Every point of a box, the last axis fastest.
fn points(sizes: &[usize]) -> impl Iterator<Item = Vec<usize>> + '_ {
    let all: usize = sizes.iter().product();
    (0..all).map(move |mut n| {
        let mut at = vec![0; sizes.len()];
        for (place, &size) in at.iter_mut().zip(sizes).rev() {
            (*place, n) = (n % size, n / size);
        }
        at
    })
}

/// A matrix applied to one axis of `[sizes..][inner]`, and `added[row]` added.
fn apply(data: &[f64], sizes: &mut [usize], axis: usize, inner: usize, matrix: &[Vec<f64>], added: &[f64]) -> Vec<f64> {
    let after: usize = sizes[axis + 1..].iter().product::<usize>() * inner;
    let columns = sizes[axis];
    let mut out = Vec::with_capacity(data.len() / columns.max(1) * matrix.len());
    for block in data.chunks((columns * after).max(1)) {
        for (i, row) in matrix.iter().enumerate() {
            let at = out.len();
            out.resize(at + after, added.get(i).copied().unwrap_or(0.0));
            for (&c, from) in row.iter().zip(block.chunks(after.max(1))).filter(|(c, _)| **c != 0.0) {
                out[at..].iter_mut().zip(from).for_each(|(sum, x)| *sum += c * x);
            }
        }
    }
    sizes[axis] = matrix.len();
    out
}
