//! Pooling.

use super::Node;
use crate::error::Result;
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
    let mut amounts = vec![(0, 0)];
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
            }
            1 => {}
            SAME_UPPER | SAME_LOWER => {
                let last = size.saturating_sub(1) / stride[axis] * stride[axis];
                let total = last.saturating_add(kernel[axis]).saturating_sub(size);
                let less = total / 2;
                (before, after) = if mode == SAME_UPPER { (less, total - less) } else { (total - less, less) };
            }
            other => return Err(n.layer.wrong(format!("pad_mode (parameter 5) {other}, expected 0 to 3")).into()),
        }
        amounts.push((before, after));
    }
    let options = PoolOptions { stride: stride.to_vec(), ..PoolOptions::default() };
    let pool = |x: &Tensor, fill: Scalar| -> Result<Tensor> {
        let padded = x.pad_to("Pooling", &amounts, fill)?;
        if average { padded.avg_pool(&kernel, &options) } else { padded.max_pool(&kernel, &options) }
    };
    if !average {
        return pool(x, ReduceOp::Max.identity(x.dtype()));
    }
    let zero = Scalar::zero(x.dtype());
    let means = pool(x, zero)?;
    if n.layer.flag(6, "avgpool_count_include_pad")? || amounts.iter().all(|&a| a == (0, 0)) {
        return Ok(means);
    }
    // The share of each window that lies inside: a constant.
    let inside = Tensor::ones(&[1, x.shape()[1], x.shape()[2]], x.dtype())?;
    means.div(&pool(&inside, zero)?)
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
