//! Pooling.

use super::Node;
use crate::error::Result;
use crate::model::reach::{self, Slide};
use crate::tensor::{PoolOptions, Tensor};
use winograph_ir::{ReduceOp, Scalar};

/// Windows stick out at the end so that no element is left out.
const FULL: i64 = 0;
const SAME_UPPER: i64 = 2;
const SAME_LOWER: i64 = 3;

/// Most windows of adaptive pooling along an axis: each is an operation.
const MAX_ADAPTIVE: usize = 4096;

pub(super) fn pooling(n: &Node<'_>) -> Result<Tensor> {
    let x = n.x(0)?;
    if x.rank() != 3 {
        return Err(n.layer.wrong(format!("an input of shape {:?}, expected 3 axes", x.shape())).into());
    }
    let average = n.layer.flag(0, "pooling_type")?;
    if n.layer.flag(4, "global_pooling")? {
        return if average { x.mean(&[1, 2], false) } else { x.max(&[1, 2], false) };
    }
    if n.layer.flag(7, "adaptive_pooling")? {
        return adaptive(n, x, average);
    }
    let w = n.layer.positive(1, "kernel_w", 0)?;
    let kernel = [n.layer.positive(11, "kernel_h", w)?, w];
    let w = n.layer.positive(2, "stride_w", 1)?;
    let stride = [n.layer.positive(12, "stride_h", w)?, w];
    let left = n.layer.size(3, "pad_left", 0)?;
    let top = n.layer.size(13, "pad_top", left)?;
    let pads = [(top, n.layer.size(15, "pad_bottom", top)?), (left, n.layer.size(14, "pad_right", left)?)];
    let mode = n.layer.int(5, "pad_mode", FULL)?;
    let mut amounts = [(0, 0); 2];
    // What does not count in a mean.
    let mut outside = pads;
    for axis in 0..2 {
        let size = x.shape()[1 + axis];
        let (mut before, mut after) = pads[axis];
        match mode {
            FULL => {
                let padded = size.checked_add(before).and_then(|s| s.checked_add(after)?.checked_sub(kernel[axis]));
                let rest = padded.map_or(0, |room| room % stride[axis]);
                if rest > 0 {
                    after += stride[axis] - rest;
                }
                outside[axis].1 = after;
            }
            1 => {}
            // ncnn counts the border that it adds as if it were a part of the picture, and leaves out as many places as the
            // layer's own pads say, which it has not added.
            SAME_UPPER | SAME_LOWER => {
                let last = size.saturating_sub(1) / stride[axis] * stride[axis];
                let total = last.saturating_add(kernel[axis]).saturating_sub(size);
                let less = total / 2;
                (before, after) = if mode == SAME_UPPER { (less, total - less) } else { (total - less, less) };
            }
            other => return Err(n.layer.wrong(format!("pad_mode (parameter 5) {other}, expected 0 to 3")).into()),
        }
        amounts[axis] = (before, after);
    }
    let all_count = n.layer.flag(6, "avgpool_count_include_pad")? || outside == [(0, 0); 2];
    let x = if average && !all_count { without(n, x, &amounts, &outside)? } else { x.clone() };
    let whole = [0, 1].map(|a| x.shape()[1 + a].saturating_add(amounts[a].0).saturating_add(amounts[a].1));
    let slides = [0, 1].map(|a| Slide {
        size: x.shape()[1 + a],
        kernel: kernel[a],
        stride: stride[a],
        dilation: 1,
        before: amounts[a].0,
        out: whole[a].saturating_sub(kernel[a]) / stride[a] + 1,
    });
    let fits = (0..2).all(|a| kernel[a] <= whole[a]);
    let options = PoolOptions { stride: stride.to_vec(), ..PoolOptions::default() };
    let fill = if average { Scalar::zero(x.dtype()) } else { ReduceOp::Max.identity(x.dtype()) };
    if fits && slides.iter().any(|s| s.reaches_beyond()) {
        let clipped = slides.map(Slide::clipped);
        let kernel = clipped.map(|s| s.kernel);
        let padded = reach::bordered(&x, 1, &clipped, fill)?;
        if !average {
            return padded.max_pool(&kernel, &options);
        }
        let mut means = padded.avg_pool(&kernel, &options)?;
        for (a, s) in slides.iter().enumerate() {
            let within = if all_count { 0..whole[a] } else { outside[a].0..whole[a].saturating_sub(outside[a].1) };
            n.table(s.out)?;
            let mut shape = [1; 3];
            shape[1 + a] = s.out;
            let share: Vec<f64> = s.counts(within).iter().map(|c| kernel[a] as f64 / c).collect();
            means = means.mul(&Tensor::from_slice(&share, &shape)?.cast(x.dtype())?)?;
        }
        return Ok(means);
    }
    let pool = |x: &Tensor, borders: &[(usize, usize)]| -> Result<Tensor> {
        let padded = x.pad_to("Pooling", &[&[(0, 0)], borders].concat(), fill)?;
        if average { padded.avg_pool(&kernel, &options) } else { padded.max_pool(&kernel, &options) }
    };
    let pooled = pool(&x, &amounts)?;
    if !average || all_count {
        return Ok(pooled);
    }
    // The share of each window that counts: a constant.
    let counted = [0, 1].map(|a| whole[a].saturating_sub(outside[a].0.saturating_add(outside[a].1)));
    pooled.div(&pool(&Tensor::ones(&[1, counted[0], counted[1]], x.dtype())?, &outside)?)
}

/// A picture whose outermost elements are 0 where what does not count is wider than the border.
fn without(n: &Node<'_>, x: &Tensor, border: &[(usize, usize); 2], outside: &[(usize, usize); 2]) -> Result<Tensor> {
    let mut y = x.clone();
    for a in 0..2 {
        let (first, last) = (outside[a].0.saturating_sub(border[a].0), outside[a].1.saturating_sub(border[a].1));
        if (first, last) == (0, 0) {
            continue;
        }
        let size = y.shape()[1 + a];
        let left = size.checked_sub(first.saturating_add(last)).filter(|&l| l > 0);
        let left =
            left.ok_or_else(|| n.layer.wrong(format!("pads {:?} leave nothing of {size} elements", outside[a])))?;
        let mut amounts = [(0, 0); 3];
        amounts[1 + a] = (first, last);
        y = y.narrow(1 + a as isize, first, left)?.pad_to("Pooling", &amounts, Scalar::zero(x.dtype()))?;
    }
    Ok(y)
}

/// As many windows as asked for, of sizes as equal as can be.
fn adaptive(n: &Node<'_>, x: &Tensor, average: bool) -> Result<Tensor> {
    let mut y = x.clone();
    let w = n.layer.int(8, "out_w", 0)?;
    let sizes = [n.layer.int(18, "out_h", w)?, w];
    let fields = ["out_h", "out_w"];
    for axis in 0..2 {
        let size = y.shape()[1 + axis];
        let Some(wanted) = crate::model::ncnn::given(sizes[axis]) else { continue };
        let out = usize::try_from(wanted).ok().filter(|&o| (1..=MAX_ADAPTIVE).contains(&o) && size > 0);
        let bad = || n.layer.wrong(format!("{} is {wanted}, expected 1 to {MAX_ADAPTIVE}", fields[axis]));
        let out = out.ok_or_else(bad)?;
        let mut parts = Vec::new();
        for i in 0..out {
            // Neither overflows: both numbers are sizes of 31 bits and of an axis in memory.
            let (start, end) = (size * i / out, (size * (i + 1)).div_ceil(out));
            let part = y.narrow(1 + axis as isize, start, end - start)?;
            let along = [1 + axis as isize];
            parts.push(if average { part.mean(&along, true)? } else { part.max(&along, true)? });
        }
        y = Tensor::cat(&parts.iter().collect::<Vec<_>>(), 1 + axis as isize)?;
    }
    Ok(y)
}
