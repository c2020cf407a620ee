//! Resampling: each axis in turn is a weighted sum of lookups, with weights that are known while importing.

use super::super::node::{Lowering, Node, one};
use crate::error::Result;
use crate::model::resample::{self, Places};
use crate::model::{Value, budget};
use crate::tensor::{Tensor, shape};

pub(super) fn find(op: &str) -> Option<Lowering> {
    Some(match op {
        "Resize" | "Upsample" => resize,
        _ => return None,
    })
}

/// Most places of the input that the places of one axis of a result may read: 128 MiB of weights.
const MAX_TAPS: usize = 1 << 24;

/// How near the middle of two neighbours a place is in the middle.
const HALF: f32 = 1e-6;

/// How one axis is resampled.
struct Axis {
    size: usize,
    out: usize,
    scale: f64,
    /// The part of the axis that is looked at, for `tf_crop_and_resize`.
    crop: (f64, f64),
}

fn list(n: &Node<'_>, i: usize) -> Result<Option<Vec<f64>>> {
    match n.opt(i) {
        Some(t) if t.numel() > 0 => Ok(Some(n.host(i)?.data.iter().map(|s| s.to_f64()).collect())),
        _ => Ok(None),
    }
}

fn resize(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    // Resize of opset 11 on has a region of interest as second input.
    let (at_scales, at_sizes) = if n.op() == "Upsample" || n.opset < 11 { (1, 9) } else { (2, 3) };
    let scales = match n.floats("scales") {
        Some(s) => Some(s),
        None => list(n, at_scales)?,
    };
    let sizes = list(n, at_sizes)?;
    let roi = if at_scales == 2 { list(n, 1)? } else { None };
    let axes: Vec<usize> = match n.ints("axes") {
        Some(l) => l.iter().map(|&a| n.axis(a, x.rank())).collect::<Result<_>>()?,
        None => (0..x.rank()).collect(),
    };
    let given = sizes.as_ref().or(scales.as_ref()).ok_or_else(|| n.wrong("neither scales nor sizes are given"))?;
    if given.len() != axes.len() || given.iter().any(|s| !s.is_finite() || *s < 0.0) {
        return Err(n.wrong(format!("scales or sizes {given:?} for {} axes", axes.len())));
    }
    let mut plan = Vec::with_capacity(axes.len());
    for (i, &a) in axes.iter().enumerate() {
        let size = x.shape()[a];
        let crop = match &roi {
            Some(r) if r.len() == 2 * axes.len() => (r[i], r[i + axes.len()]),
            _ => (0.0, 1.0),
        };
        let (out, scale) = match (&sizes, &scales) {
            (Some(s), _) => (s[i], s[i] / size.max(1) as f64),
            // The product of two f32, as other runtimes and shapes that are inferred have it: ten by 0.7 are seven. A region of
            // interest makes the result no smaller there.
            (None, Some(s)) => (f64::from((size as f32 * s[i] as f32).floor()), s[i]),
            _ => (size as f64, 1.0),
        };
        plan.push(Axis { size, out: out as usize, scale, crop });
    }
    let policy = n.text("keep_aspect_ratio_policy", "stretch");
    if policy != "stretch" && sizes.is_some() {
        let by = plan.iter().map(|a| a.scale);
        let scale = if policy == "not_larger" { by.fold(f64::INFINITY, f64::min) } else { by.fold(0.0, f64::max) };
        for a in &mut plan {
            a.scale = scale;
            a.out = (a.size as f32 * scale as f32).round() as usize;
        }
    }
    let rule = Rule::new(n);
    let changed: Vec<(&Axis, usize)> = plan.iter().zip(axes).filter(|(a, _)| a.changes()).collect();
    // All of it is known to be possible before any table is made.
    let mut shape = x.shape().to_vec();
    for &(a, axis) in &changed {
        shape[axis] = a.out;
        shape::check_size("resize", x.dtype(), &shape)?;
        budget::fits_as(x.dtype(), &shape).map_err(|cause| n.wrong(cause))?;
        if a.size == 0 || a.out == 0 {
            return Err(n.unsupported("axes without elements"));
        }
        n.host_work(rule.reads(a)?, budget::PER_ENTRY)?;
    }
    let mut out = x.clone();
    for (a, axis) in changed {
        out = along(&rule, &out, axis, a)?;
    }
    one(out.cast(x.dtype())?)
}

impl Axis {
    fn changes(&self) -> bool {
        self.out != self.size || self.scale != 1.0 || self.crop != (0.0, 1.0)
    }
}

/// What the attributes say of places and weights.
struct Rule<'a> {
    n: &'a Node<'a>,
    /// Before opset 11.
    old: bool,
    coordinates: String,
    mode: String,
    nearest: String,
    antialias: bool,
    /// Coefficient of cubic interpolation.
    cubic: f64,
    exclude: bool,
}

impl<'a> Rule<'a> {
    fn new(n: &'a Node<'a>) -> Rule<'a> {
        let old = n.op() == "Upsample" || n.opset < 11;
        Rule {
            n,
            old,
            coordinates: n.text("coordinate_transformation_mode", if old { "asymmetric" } else { "half_pixel" }),
            mode: n.text("mode", "nearest"),
            nearest: n.text("nearest_mode", ""),
            antialias: n.flag("antialias"),
            cubic: n.float("cubic_coeff_a", -0.75),
            exclude: n.flag("exclude_outside"),
        }
    }

    /// How far a place reads, and what its distances are multiplied by; `None` for one neighbour.
    fn width(&self, a: &Axis) -> Result<Option<(f64, f64)>> {
        let reach = match self.mode.as_str() {
            "nearest" => return Ok(None),
            "linear" | "bilinear" => 1.0,
            "cubic" => 2.0,
            other => return Err(self.n.unsupported(format!("mode {other:?}"))),
        };
        // Scaling down with antialias widens the kernel.
        let stretch = if self.antialias { a.scale.min(1.0) } else { 1.0 };
        let width = reach / stretch;
        // With at least one place in the result, 1 / scale is at most the size. NaN does not hold either.
        match width <= 2.0 * reach * a.size as f64 {
            true => Ok(Some((width, stretch))),
            false => {
                Err(self.n.wrong(format!("its scale {} makes places of an axis of {} read too much", a.scale, a.size)))
            }
        }
    }

    /// The weight of an element at a distance.
    fn weight(&self, d: f64) -> f64 {
        let (d, cubic) = (d.abs(), self.cubic);
        match self.mode.as_str() {
            "cubic" if d <= 1.0 => ((cubic + 2.0) * d - (cubic + 3.0)) * d * d + 1.0,
            "cubic" if d < 2.0 => ((cubic * d - 5.0 * cubic) * d + 8.0 * cubic) * d - 4.0 * cubic,
            "cubic" => 0.0,
            _ => (1.0 - d).max(0.0),
        }
    }

    /// Most places of the input that one of an axis of the result reads: those within the width, which both ends bound.
    fn taps(&self, a: &Axis) -> Result<usize> {
        Ok(self.width(a)?.map_or(1, |(width, _)| ((2.0 * width).ceil() as usize).max(1)))
    }

    /// The same of all of them together.
    fn reads(&self, a: &Axis) -> Result<usize> {
        let all = a.out.saturating_mul(self.taps(a)?);
        match all > MAX_TAPS {
            true => {
                Err(self.n.unsupported(format!("a result of {} places, which takes more than {MAX_TAPS} taps", a.out)))
            }
            false => Ok(all),
        }
    }
}

/// The place of the input that place `i` of the result is at, for weights.
fn place(rule: &Rule<'_>, a: &Axis, i: usize) -> Result<f64> {
    let (x, size, out) = (i as f64, a.size as f64, a.out as f64);
    Ok(match rule.coordinates.as_str() {
        "half_pixel" => (x + 0.5) / a.scale - 0.5,
        "half_pixel_symmetric" => {
            let adjustment = out / (a.scale * size);
            size / 2.0 * (1.0 - adjustment) + (x + 0.5) / a.scale - 0.5
        }
        "pytorch_half_pixel" if a.out <= 1 => 0.0,
        "pytorch_half_pixel" => (x + 0.5) / a.scale - 0.5,
        "align_corners" if a.out <= 1 => 0.0,
        // By the size before it is rounded down, as the definition has it.
        "align_corners" => x * (size - 1.0) / (a.scale * size - 1.0),
        "asymmetric" => x / a.scale,
        "tf_half_pixel_for_nn" => (x + 0.5) / a.scale,
        "tf_crop_and_resize" if a.out <= 1 => 0.5 * (a.crop.0 + a.crop.1) * (size - 1.0),
        "tf_crop_and_resize" => a.crop.0 * (size - 1.0) + x * (a.crop.1 - a.crop.0) * (size - 1.0) / (out - 1.0),
        other => return Err(rule.n.unsupported(format!("coordinate_transformation_mode {other:?}"))),
    })
}

/// The same place in f32, step by step as ONNX Runtime has it. Which neighbour is nearest, and what lies outside, depends on how
/// it is rounded: 3 / 0.6 is 5 in f32, but less for the number that 0.6 is there.
fn single(rule: &Rule<'_>, a: &Axis, i: usize) -> Result<f32> {
    let (x, size, out, scale) = (i as f32, a.size as f32, a.out as f32, a.scale as f32);
    let (from, to) = (a.crop.0 as f32, a.crop.1 as f32);
    Ok(match rule.coordinates.as_str() {
        "half_pixel" => (x + 0.5) / scale - 0.5,
        "half_pixel_symmetric" => {
            let offset = size / 2.0 * (1.0 - out / (scale * size));
            (f64::from(offset) + (f64::from(x) + 0.5) / f64::from(scale) - 0.5) as f32
        }
        "pytorch_half_pixel" if a.out > 1 => (x + 0.5) / scale - 0.5,
        "asymmetric" => x / scale,
        "tf_half_pixel_for_nn" => (x + 0.5) / scale,
        // By the size of the result, where weights follow the size before it is rounded down.
        "align_corners" if a.out > 1 => x * (size - 1.0) / (out - 1.0),
        "tf_crop_and_resize" if a.out > 1 => from * (size - 1.0) + x * (to - from) * (size - 1.0) / (out - 1.0),
        _ => place(rule, a, i)? as f32,
    })
}

/// Adds what a place of the result reads; `false` where it lies outside, so that it reads anything.
fn read(rule: &Rule<'_>, a: &Axis, i: usize, places: &mut Places) -> Result<bool> {
    let last = a.size as i64 - 1;
    if rule.coordinates == "tf_crop_and_resize" && !(0.0..=last as f32).contains(&single(rule, a, i)?) {
        places.push(0, []);
        return Ok(false);
    }
    let Some((width, stretch)) = rule.width(a)? else {
        // Before opset 11 the definition leaves it open; ONNX Runtime and OpenVINO round up where an axis becomes shorter.
        let usual = match rule.old {
            true if a.scale < 1.0 => "ceil",
            true => "floor",
            false => "round_prefer_floor",
        };
        let x = single(rule, a, i)?;
        // How far beyond the middle of two: none where it is that but for rounding, as ONNX Runtime has it.
        let beyond = x - x.floor() - 0.5;
        let beyond = if beyond.abs() <= HALF { 0.0 } else { beyond };
        let at = match if rule.nearest.is_empty() { usual } else { &rule.nearest } {
            "round_prefer_floor" => x.floor() + f32::from(beyond > 0.0),
            "round_prefer_ceil" => x.floor() + f32::from(beyond >= 0.0),
            "floor" => x.floor(),
            _ => x.ceil(),
        };
        places.push(at as i64, [1.0]);
        return Ok(true);
    };
    let x = place(rule, a, i)?;
    // NaN does not hold either.
    let sane = x.abs() <= 1e15;
    if !sane {
        return Err(rule.n.wrong(format!("its scale {} puts places of an axis of {} at {x}", a.scale, a.size)));
    }
    let (mut first, end) = ((x - width).floor() as i64 + 1, (x + width).ceil() as i64);
    let mut end = end.max(first + 1);
    if rule.exclude {
        (first, end) = (first.max(0), end.min(last + 1));
    }
    let weights = |scale: f64| (first..end).map(move |at| rule.weight((at as f64 - x) * stretch) / scale);
    let total: f64 = if rule.exclude || stretch < 1.0 { weights(1.0).sum() } else { 1.0 };
    places.push(first, weights(if total != 0.0 { total } else { 1.0 }));
    Ok(true)
}

fn along(rule: &Rule<'_>, x: &Tensor, axis: usize, a: &Axis) -> Result<Tensor> {
    let n = rule.n;
    let mut places = Places::new(rule.taps(a)?);
    let mut inside = Vec::new();
    for i in 0..a.out {
        inside.push(read(rule, a, i, &mut places)?);
    }
    let all_inside = inside.iter().all(|&i| i);
    let nearest = all_inside && places.copies();
    let work = if x.dtype().is_float() { x.dtype().compute() } else { winograph_ir::DType::F32 };
    // Copies take any dtype, and are moved or looked up as they are.
    if nearest && x.dtype().is_float() || !nearest && all_inside {
        let x = if nearest { x.clone() } else { x.cast(work)? };
        return resample::along(&x, axis, &places);
    }
    let lookup = |t: usize| x.index_select(axis as isize, &Tensor::from_slice(&places.index(t, a.size), &[a.out])?);
    if nearest {
        return lookup(0);
    }
    let mut wide = vec![1; x.rank()];
    wide[axis] = a.out;
    let mut sum: Option<Tensor> = None;
    for t in 0..places.taps() {
        let weights = Tensor::from_slice(&places.weights(t), &wide)?.cast(work)?;
        let part = lookup(t)?.cast(work)?.mul(&weights)?;
        sum = Some(match sum {
            Some(s) => s.add(&part)?,
            None => part,
        });
    }
    let mut y = sum.ok_or_else(|| n.wrong("no taps"))?;
    if !all_inside {
        let outside = y.full_like(n.float("extrapolation_value", 0.0))?;
        y = Tensor::from_slice(&inside, &wide)?.expand_as("resize", y.shape())?.where_(&y, &outside)?;
    }
    Ok(y)
}
