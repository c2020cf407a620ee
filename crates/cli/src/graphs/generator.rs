//! Random graphs of tensor operations: the same ones for the same seed.
//!
//! A graph that rounds may differ in the last bits from its reference, and what is discontinuous makes much of little.
//! So each tensor carries whether its bits depend on nothing but its definition (`exact`), a bound on its elements, and
//! the precision that its values went through; comparisons, roundings, indices and conversions to integers are made of
//! exact values only.
#![allow(dead_code, unreachable_pub)]

use winograph::{ArgSpec, ConvOptions, DType, PoolOptions, SliceRange, Tensor, WindowRule, bf16, f16};
use winograph_ir::interp::Value;

/// Most elements of a tensor.
const MAX_ELEMENTS: usize = 200;
const MAX_RANK: usize = 5;

pub const DTYPES: [DType; 9] =
    [DType::F32, DType::F64, DType::F16, DType::BF16, DType::I8, DType::I32, DType::I64, DType::U8, DType::Bool];

pub struct Random(pub u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        let mut r = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d);
        r.next();
        r
    }

    fn next(&mut self) -> u64 {
        // Steele, Lea & Flood's splitmix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn axis(&mut self, t: &Tensor) -> Option<isize> {
        (t.rank() > 0).then(|| self.below(t.rank()) as isize)
    }

    /// Some axes, each at most once.
    fn axes(&mut self, t: &Tensor) -> Vec<isize> {
        (0..t.rank() as isize).filter(|_| self.one_in(2)).collect()
    }

    fn shape(&mut self) -> Vec<usize> {
        let rank = self.pick(&[0, 1, 1, 2, 2, 2, 3, 3, 4]);
        loop {
            let shape: Vec<usize> = (0..rank).map(|_| self.pick(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 17, 33])).collect();
            if shape.iter().product::<usize>() <= MAX_ELEMENTS {
                return shape;
            }
        }
    }
}

/// A tensor of a graph and what is known of it.
#[derive(Clone)]
pub struct Item {
    pub t: Tensor,
    /// Whether its bits do not depend on how it is computed.
    pub exact: bool,
    /// What no finite element exceeds, infinite where that is not known.
    pub bound: f64,
    /// Relative precision of what it went through.
    pub precision: f64,
    /// Whether every element is known to be finite.
    pub finite: bool,
}

fn precision(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-13,
        DType::F32 => 1e-6,
        DType::F16 => 2e-3,
        DType::BF16 => 1.6e-2,
        _ => 0.0,
    }
}

/// The dtypes and shapes of a graph's arguments.
pub fn arguments(r: &mut Random) -> Vec<ArgSpec> {
    let n = 1 + r.below(3);
    (0..n)
        .map(|i| {
            let dtype = if i == 0 {
                r.pick(&[DType::F32, DType::F32, DType::F64, DType::F16, DType::BF16])
            } else {
                r.pick(&DTYPES)
            };
            ArgSpec::new(dtype, &r.shape())
        })
        .collect()
}

/// Small numbers that every dtype but `bool` and `u8` holds exactly.
pub fn values(r: &mut Random, spec: &ArgSpec) -> Tensor {
    let n: usize = spec.shape.iter().product();
    let float = spec.dtype.is_float();
    let data: Vec<f64> = (0..n)
        .map(|_| match spec.dtype {
            DType::Bool => r.below(2) as f64,
            DType::U8 => r.below(9) as f64,
            _ if float => r.below(65) as f64 / 8.0 - 4.0,
            _ => r.below(11) as f64 - 5.0,
        })
        .collect();
    realized(&data, spec)
}

/// A tensor with known elements, without any kernel.
fn realized(data: &[f64], spec: &ArgSpec) -> Tensor {
    fn of<T: winograph::Element>(data: &[f64], shape: &[usize], f: impl Fn(f64) -> T) -> Tensor {
        Tensor::from_slice(&data.iter().map(|&x| f(x)).collect::<Vec<T>>(), shape).unwrap()
    }
    let shape = &spec.shape;
    match spec.dtype {
        DType::F64 => of(data, shape, |x| x),
        DType::F32 => of(data, shape, |x| x as f32),
        DType::F16 => of(data, shape, f16::from_f64),
        DType::BF16 => of(data, shape, bf16::from_f64),
        DType::I8 => of(data, shape, |x| x as i8),
        DType::U8 => of(data, shape, |x| x as u8),
        DType::I32 => of(data, shape, |x| x as i32),
        DType::I64 => of(data, shape, |x| x as i64),
        DType::Bool => of(data, shape, |x| x != 0.0),
    }
}

/// One or two results of a random graph over `args`, and what is known of them.
pub fn graph(r: &mut Random, args: &[Tensor]) -> Vec<Item> {
    let mut pool: Vec<Item> = args
        .iter()
        .map(|t| {
            let bound = if t.dtype() == DType::U8 { 8.0 } else { 5.0 };
            Item { t: t.clone(), exact: true, bound, precision: precision(t.dtype()), finite: true }
        })
        .collect();
    let wanted = pool.len() + 3 + r.below(8);
    for _ in 0..200 {
        if pool.len() >= wanted {
            break;
        }
        // What is new is used more.
        let at = pool.len() - 1 - r.below(pool.len()).min(r.below(pool.len()));
        let x = pool[at].clone();
        if let Some(made) = step(r, &pool, &x)
            && made.t.numel() <= MAX_ELEMENTS
            && made.t.rank() <= MAX_RANK
            && (made.t.numel() > 0 || r.one_in(4))
        {
            pool.push(made);
        }
    }
    let last = pool.len() - 1;
    let mut out = vec![pool[last].clone()];
    if r.one_in(2) {
        let at = r.below(last + 1);
        out.push(pool[at].clone());
    }
    out
}

fn step(r: &mut Random, pool: &[Item], x: &Item) -> Option<Item> {
    match r.below(20) {
        0..=3 => binary(r, pool, x),
        4..=6 => unary(r, x),
        7 => cast(r, x),
        8 => choice(r, pool, x),
        9..=13 => movement(r, pool, x),
        14 => lookup(r, pool, x),
        15..=17 => reduction(r, x),
        18 => product(r, pool, x),
        _ => window(r, x),
    }
}

/// An item made of others, with the precision of all of them.
fn made(t: winograph::Result<Tensor>, exact: bool, bound: f64, from: &[&Item]) -> Option<Item> {
    let t = t.ok()?;
    let of = from.iter().map(|i| i.precision).fold(precision(t.dtype()), f64::max);
    // Beyond what the dtype holds there is overflow, whose edge rounding may cross.
    let most = match t.dtype() {
        DType::F16 => 3e4,
        DType::F32 | DType::BF16 => 1e30,
        _ => 1e200,
    };
    if t.dtype().is_float() && !exact && bound > most {
        return None;
    }
    let finite = bound.is_finite() && from.iter().all(|i| i.finite);
    Some(Item { t, exact, bound, precision: of, finite })
}

/// An operand for `x`: another tensor of its dtype that can be broadcast with it, or a part of itself.
fn partner(r: &mut Random, pool: &[Item], x: &Item) -> Item {
    let fits = |i: &&Item| {
        let (a, b) = (i.t.shape(), x.t.shape());
        i.t.dtype() == x.t.dtype() && a.iter().rev().zip(b.iter().rev()).all(|(&a, &b)| a == b || a == 1 || b == 1)
    };
    let all: Vec<&Item> = pool.iter().filter(fits).collect();
    let y = all[r.below(all.len())];
    if x.t.rank() > 0 && x.t.numel() > 0 && r.one_in(3) {
        let axis = r.below(x.t.rank());
        let at = r.below(x.t.shape()[axis]);
        if let Ok(t) = x.t.narrow(axis as isize, at, 1) {
            return Item { t, ..x.clone() };
        }
    }
    y.clone()
}

fn binary(r: &mut Random, pool: &[Item], x: &Item) -> Option<Item> {
    let y = partner(r, pool, x);
    let (a, b, d) = (&x.t, &y.t, x.t.dtype());
    let both = x.exact && y.exact;
    let from = [x, &y];
    if r.one_in(6) && d != DType::Bool {
        let c = r.below(3) as i32 + 1;
        return match r.below(4) {
            0 => made(a.add(c), x.exact, x.bound + 3.0, &[x]),
            1 => made(a.mul(c), x.exact, x.bound * 3.0, &[x]),
            2 => made(a.sub(c), x.exact, x.bound + 3.0, &[x]),
            _ => made(a.maximum(c), x.exact, x.bound + 3.0, &[x]),
        };
    }
    match r.below(20) {
        0..=2 => made(a.add(b), both, x.bound + y.bound, &from),
        3 => made(a.sub(b), both, x.bound + y.bound, &from),
        4..=5 => made(a.mul(b), both, x.bound * y.bound, &from),
        6 => made(a.maximum(b), both, x.bound.max(y.bound), &from),
        7 => made(a.minimum(b), both, x.bound.max(y.bound), &from),
        8 if both => made(a.div(b), true, f64::INFINITY, &from),
        9 if both => made(a.div_trunc(b), true, f64::INFINITY, &from),
        10 if both => made(a.div_floor(b), true, f64::INFINITY, &from),
        11 if both => made(a.fmod(b), true, f64::INFINITY, &from),
        12 if both => made(a.remainder(b), true, f64::INFINITY, &from),
        13 if both && x.bound < 50.0 => {
            made(a.abs().and_then(|a| a.pow(b)), false, x.bound.max(1.0).powf(y.bound), &from)
        }
        14 if both => made(a.lt(b), true, 1.0, &from),
        15 if both => made(a.ge(b), true, 1.0, &from),
        16 if both => made(a.eq(b), true, 1.0, &from),
        17 if both => match r.below(3) {
            0 => made(a.logical_and(b), true, 1.0, &from),
            1 => made(a.logical_or(b), true, 1.0, &from),
            _ => made(a.logical_xor(b), true, 1.0, &from),
        },
        18 if !d.is_float() => match r.below(3) {
            0 => made(a.bitwise_and(b), true, f64::INFINITY, &from),
            1 => made(a.bitwise_or(b), true, f64::INFINITY, &from),
            _ => made(a.bitwise_xor(b), true, f64::INFINITY, &from),
        },
        19 if both => made(a.ne(b), true, 1.0, &from),
        _ => None,
    }
}

fn unary(r: &mut Random, x: &Item) -> Option<Item> {
    let t = &x.t;
    let (e, b) = (x.exact, x.bound);
    if !t.dtype().is_float() {
        return match r.below(6) {
            0 => made(t.neg(), true, b, &[x]),
            1 => made(t.abs(), true, b, &[x]),
            2 => made(t.bitwise_not(), true, f64::INFINITY, &[x]),
            3 => made(t.sign(), true, 1.0, &[x]),
            4 => made(t.logical_not(), true, 1.0, &[x]),
            _ => made(t.square(), true, b * b, &[x]),
        };
    }
    match r.below(30) {
        0 => made(t.neg(), e, b, &[x]),
        1 => made(t.abs(), e, b, &[x]),
        2 if b < 20.0 => made(t.exp(), false, b.exp(), &[x]),
        3 if e => made(t.abs().and_then(|t| t.add(0.5)).and_then(|t| t.log()), false, 750.0, &[x]),
        4 if e => made(t.log(), false, 750.0, &[x]).map(|i| Item { finite: false, ..i }),
        5 if e => made(t.sqrt(), true, b.sqrt(), &[x]).map(|i| Item { finite: false, ..i }),
        6 if e => made(t.abs().and_then(|t| t.add(0.25)).and_then(|t| t.rsqrt()), e, 2.0, &[x]),
        7 if e && b < 1e3 => made(t.sin(), false, 1.0, &[x]),
        8 if e && b < 1e3 => made(t.cos(), false, 1.0, &[x]),
        9 => made(t.tanh(), false, 1.0, &[x]),
        10 => made(t.erf(), false, 1.0, &[x]),
        11 => made(t.sigmoid(), false, 1.0, &[x]),
        12 => made(t.silu(), false, b.max(1.0), &[x]),
        13 => made(t.gelu(), false, b.max(1.0), &[x]),
        14 => made(t.gelu_tanh(), false, b.max(1.0), &[x]),
        15 | 16 => made(t.relu(), e, b, &[x]),
        17 => made(t.leaky_relu(0.125), e, b, &[x]),
        18 if e => made(t.floor(), true, b + 1.0, &[x]),
        19 if e => made(t.ceil(), true, b + 1.0, &[x]),
        20 if e => made(t.trunc(), true, b, &[x]),
        21 if e => made(t.round(), true, b + 1.0, &[x]),
        22 if e => made(t.sign(), true, 1.0, &[x]),
        23 => made(t.square(), e, b * b, &[x]),
        24 if e => made(t.reciprocal(), true, f64::INFINITY, &[x]),
        25 if e => made(t.isnan(), true, 1.0, &[x]),
        26 => made(t.clamp(Some(-1.5), Some(2.25)), e, 2.25, &[x]),
        27 => made(t.clamp(None, Some(1.0)), e, b.max(1.0), &[x]),
        28 if e => made(t.logical_not(), true, 1.0, &[x]),
        29 => made(t.prelu(&Tensor::full(&[1], 0.25f64).ok()?.cast(t.dtype()).ok()?), e, b, &[x]),
        _ => None,
    }
}

fn cast(r: &mut Random, x: &Item) -> Option<Item> {
    let to = r.pick(&DTYPES);
    let bound = match to {
        DType::Bool => 1.0,
        d if d.is_float() || x.bound < 100.0 => x.bound,
        _ => f64::INFINITY,
    };
    if !to.is_float() && !x.exact {
        return None;
    }
    made(x.t.cast(to), x.exact, bound, &[x])
}

fn choice(r: &mut Random, pool: &[Item], x: &Item) -> Option<Item> {
    let y = partner(r, pool, x);
    let masks: Vec<&Item> = pool.iter().filter(|i| i.t.dtype() == DType::Bool).collect();
    let mask = match masks.get(r.below(masks.len().max(1))) {
        Some(m) if r.one_in(2) => m.t.clone(),
        _ if x.exact && x.t.dtype() != DType::Bool => x.t.gt(1i32).ok()?,
        _ => return None,
    };
    match r.below(3) {
        0 => made(x.t.masked_fill(&mask, 1i32), x.exact, x.bound.max(1.0), &[x]),
        _ => made(mask.where_(&x.t, &y.t), x.exact && y.exact, x.bound.max(y.bound), &[x, &y]),
    }
}

fn movement(r: &mut Random, pool: &[Item], x: &Item) -> Option<Item> {
    let t = &x.t;
    let axis = r.axis(t);
    let same = |t: winograph::Result<Tensor>| made(t, x.exact, x.bound, &[x]);
    match r.below(17) {
        0 | 1 => {
            let mut shape = Vec::new();
            let mut left = t.numel();
            while left > 1 && shape.len() < 3 {
                let divisors: Vec<usize> = (1..=left).filter(|d| left.is_multiple_of(*d)).collect();
                let d = r.pick(&divisors);
                shape.push(d as isize);
                left /= d.max(1);
            }
            if !shape.is_empty() || left > 1 {
                shape.push(-1);
            }
            same(t.reshape(&shape))
        }
        2 => same(t.flatten(axis?, -1)),
        3 => {
            let mut order: Vec<isize> = (0..t.rank() as isize).collect();
            for i in (1..order.len()).rev() {
                order.swap(i, r.below(i + 1));
            }
            same(t.permute(&order))
        }
        4 => same(t.transpose(axis?, -1)),
        5 => {
            let at = r.below(t.rank() + 1);
            let wide = t.unsqueeze(at as isize).ok()?;
            let mut shape = wide.shape().to_vec();
            shape[at] = 1 + r.below(4);
            same(wide.broadcast_to(&shape))
        }
        6 => same(t.squeeze(&[])),
        7 | 8 => {
            let amounts: Vec<(isize, isize)> =
                (0..t.rank()).map(|_| (r.below(4) as isize - 1, r.below(4) as isize - 1)).collect();
            let value = if t.dtype() == DType::Bool || t.dtype() == DType::U8 {
                r.below(2) as i32
            } else {
                r.below(5) as i32 - 2
            };
            made(t.pad(&amounts, value), x.exact, x.bound.max(2.0), &[x])
        }
        9 | 10 => {
            let ranges: Vec<SliceRange> = t
                .shape()
                .iter()
                .map(|&s| {
                    let a = r.below(s + 1) as isize;
                    let range = if r.one_in(2) { SliceRange::from(a.min(1)..) } else { SliceRange::from(0..a) };
                    if r.one_in(3) { SliceRange::from(..).step(r.pick(&[-2, -1, 2, 3])) } else { range }
                })
                .collect();
            same(t.slice(&ranges))
        }
        11 => same(t.flip(&r.axes(t))),
        12 => {
            let y = partner(r, pool, x);
            let part = t.narrow(axis?, 0, t.shape()[axis? as usize].min(2)).ok()?;
            let parts = if y.t.rank() == t.rank() && r.one_in(2) { vec![t, &part, &y.t] } else { vec![&part, t] };
            let y = if parts.len() == 3 { &y } else { x };
            made(Tensor::cat(&parts, axis?), x.exact && y.exact, x.bound.max(y.bound), &[x, y])
        }
        13 => {
            // Slices that move along an axis, as windows made by hand.
            let (a, n) = (axis?, t.shape()[axis? as usize]);
            let parts: Vec<Tensor> = (0..3).map_while(|i| t.narrow(a, i, n.checked_sub(2)?).ok()).collect();
            if parts.len() < 3 {
                return None;
            }
            same(Tensor::stack(&parts.iter().collect::<Vec<_>>(), r.below(t.rank() + 1) as isize))
        }
        14 => same(t.unfold(axis?, 1 + r.below(3), 1 + r.below(2))),
        15 => same(t.unfold_dilated(axis?, 2, 1, 2)),
        _ => match r.below(3) {
            0 => same(t.tril(r.below(3) as i64 - 1)),
            1 => same(t.triu(r.below(3) as i64 - 1)),
            _ => same(t.contiguous()),
        },
    }
}

fn lookup(r: &mut Random, pool: &[Item], x: &Item) -> Option<Item> {
    let axis = r.axis(&x.t)?;
    let indices: Vec<&Item> = pool.iter().filter(|i| i.exact && i.t.dtype() != DType::Bool).collect();
    let index = indices.get(r.below(indices.len().max(1)))?;
    let at = index.t.cast(r.pick(&[DType::I32, DType::I64])).ok()?;
    match r.below(3) {
        0 => made(x.t.gather(axis, &x.t.argmax(Some(axis), true).ok().filter(|_| x.exact)?), x.exact, x.bound, &[x]),
        1 if at.rank() == x.t.rank() => made(x.t.gather(axis, &at), x.exact, x.bound, &[x]),
        _ => made(x.t.index_select(axis, &at.flatten(0, -1).ok()?), x.exact, x.bound, &[x]),
    }
}

fn reduction(r: &mut Random, x: &Item) -> Option<Item> {
    let t = &x.t;
    let (axes, keep) = (r.axes(t), r.one_in(2));
    let n = t.numel().max(1) as f64;
    let float = t.dtype().is_float();
    match r.below(12) {
        0..=2 => made(t.sum(&axes, keep), !float, x.bound * n, &[x]),
        3 if x.bound <= 1.5 || !float => {
            made(t.prod(&axes, keep), !float, if float { 1.5f64.powf(n) } else { f64::INFINITY }, &[x])
        }
        4 => made(t.mean(&axes, keep), false, x.bound, &[x]),
        5 => made(t.var(&axes, r.one_in(2), keep), false, 4.0 * x.bound * x.bound * n, &[x]),
        6 | 7 => made(t.max(&axes, keep), x.exact, x.bound, &[x]),
        8 => made(t.min(&axes, keep), x.exact, x.bound, &[x]),
        9 if x.exact => {
            let along = r.axis(t).filter(|_| r.one_in(2));
            made(if r.one_in(2) { t.argmax(along, keep) } else { t.argmin(along, keep) }, true, n, &[x])
        }
        10 => made(t.softmax(r.axis(t)?), false, 1.0, &[x]),
        11 if x.bound < 50.0 => made(t.log_softmax(r.axis(t)?), false, 2.0 * x.bound + 10.0, &[x]),
        _ => None,
    }
}

fn product(r: &mut Random, pool: &[Item], x: &Item) -> Option<Item> {
    let t = &x.t;
    let exact = !t.dtype().is_float();
    if t.dtype() == DType::Bool {
        return None;
    }
    let n = t.numel().max(1) as f64;
    if r.one_in(2) && t.rank() >= 2 {
        return made(t.matmul(&t.transpose(-1, -2).ok()?), exact, x.bound * x.bound * n, &[x]);
    }
    let fits = |i: &&Item| i.t.dtype() == t.dtype() && i.t.rank() > 0 && t.matmul(&i.t).is_ok();
    let all: Vec<&Item> = pool.iter().filter(fits).collect();
    let y = all.get(r.below(all.len().max(1)))?;
    made(t.matmul(&y.t), exact, x.bound * y.bound * n, &[x, y])
}

/// Convolutions and pooling of an item seen as `[n, c, spatial..]`; convolutions of bounded values only: one form may
/// spread an infinity where the other does not.
fn window(r: &mut Random, x: &Item) -> Option<Item> {
    let d = x.t.dtype();
    let rank = 1 + r.below(2);
    let mut shape = x.t.shape().to_vec();
    while shape.len() < rank + 2 {
        shape.insert(0, 1);
    }
    if shape.len() != rank + 2 || d == DType::Bool || x.t.numel() == 0 {
        return None;
    }
    let wanted: Vec<isize> = shape.iter().map(|&s| s as isize).collect();
    let t = x.t.reshape(&wanted).ok()?;
    let padding: Vec<(usize, usize)> = (0..rank).map(|_| (r.below(2), r.below(3))).collect();
    let window: Vec<usize> = (0..rank).map(|_| r.pick(&[1, 2, 3, 3, 4])).collect();
    let stride: Vec<usize> = (0..rank).map(|_| r.pick(&[1, 1, 1, 2])).collect();
    let dilation: Vec<usize> = (0..rank).map(|_| r.pick(&[1, 1, 1, 2])).collect();
    if r.one_in(3) {
        let ceil_mode = r.one_in(3);
        let padding = window.iter().zip(padding).map(|(&w, (a, b))| (a.min(w / 2), b.min(w / 2))).collect();
        let options =
            PoolOptions { stride, padding, ceil_mode, count_include_pad: r.one_in(2), ..PoolOptions::default() };
        return match d.is_float() && r.one_in(2) {
            true => made(t.avg_pool(&window, &options), false, x.bound, &[x]),
            false => made(t.max_pool(&window, &options), x.exact, x.bound, &[x]),
        };
    }
    if x.bound > 1e3 {
        return None;
    }
    let c = shape[1];
    let groups = if r.one_in(3) { c } else { 1 };
    let k = groups * (1 + r.below(3));
    let weight_shape = [&[k, c / groups], &window[..]].concat();
    let taps: usize = weight_shape.iter().product();
    let data: Vec<f64> = (0..taps).map(|_| r.below(17) as f64 / 4.0 - 2.0).collect();
    let weight = Tensor::from_slice(&data, &weight_shape).ok()?.cast(d).ok()?;
    let bias = r.one_in(2).then(|| Tensor::from_slice(&data[..k.min(taps)], &[k]).and_then(|b| b.cast(d)));
    let bias = bias.and_then(|b| b.ok());
    // What is not finite may spread over its tile of a rewritten convolution, and not over the direct sum.
    let rule = WindowRule { exact_nonfinite: !x.finite, ..WindowRule::default() };
    let options = ConvOptions { stride, padding, dilation, groups, rule };
    let bound = (x.bound * 2.0) * (c * window.iter().product::<usize>()) as f64 + 2.0;
    let mut item = made(t.conv(&weight, bias.as_ref(), &options), !d.is_float(), bound, &[x])?;
    // Winograd's sums are of larger terms.
    item.precision *= 4.0;
    Some(item)
}

/// The elements of a tensor with known values.
pub fn elements(t: &Tensor) -> Value {
    fn of<T: winograph::Element>(t: &Tensor, bits: impl Fn(T) -> u64) -> Value {
        let data = t.to_vec::<T>().unwrap();
        let data = data.into_iter().map(|v| winograph::Scalar::from_bits(t.dtype(), bits(v))).collect();
        Value { dtype: t.dtype(), shape: t.shape().to_vec(), data }
    }
    match t.dtype() {
        DType::F64 => of::<f64>(t, f64::to_bits),
        DType::F32 => of::<f32>(t, |v| v.to_bits() as u64),
        DType::F16 => of::<f16>(t, |v| v.to_bits() as u64),
        DType::BF16 => of::<bf16>(t, |v| v.to_bits() as u64),
        DType::I8 => of::<i8>(t, |v| v as u8 as u64),
        DType::U8 => of::<u8>(t, |v| v as u64),
        DType::I32 => of::<i32>(t, |v| v as u32 as u64),
        DType::I64 => of::<i64>(t, |v| v as u64),
        DType::Bool => of::<bool>(t, |v| v as u64),
    }
}
