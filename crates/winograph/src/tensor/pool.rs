//! Pooling: the maximum or mean of sliding windows.

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::tensor::conv::per_axis;
use crate::tensor::movement::window_span;
use winograph_ir::{BinaryOp, DType, ReduceOp, Scalar, SumOrder};

/// How a pooling window moves. An empty list stands for the default on every axis, a list of one number for that
/// number on every axis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolOptions {
    /// Distance of windows per spatial axis; the window's size by default.
    pub stride: Vec<usize>,
    /// Border `(before, after)` each spatial axis, at most half the window; none by default.
    pub padding: Vec<(usize, usize)>,
    /// Distance of taps per spatial axis; 1 by default. Of [`Tensor::max_pool`] alone.
    pub dilation: Vec<usize>,
    /// Whether a last window that sticks out beyond the padding counts, if it starts inside; no by
    /// default.
    pub ceil_mode: bool,
    /// Whether [`Tensor::avg_pool`] counts the padding's elements too; yes by default, as in PyTorch (not in ONNX).
    pub count_include_pad: bool,
}

impl Default for PoolOptions {
    fn default() -> PoolOptions {
        PoolOptions { stride: vec![], padding: vec![], dilation: vec![], ceil_mode: false, count_include_pad: true }
    }
}

/// Pooling along one axis.
#[derive(Clone, Copy)]
struct Axis {
    size: usize,
    window: usize,
    stride: usize,
    dilation: usize,
    before: usize,
    after: usize,
    out: usize,
    /// Border after the axis with which all windows are inside: `after`, or more with `ceil_mode`.
    cover: usize,
}

impl Axis {
    fn new(
        size: usize,
        window: usize,
        stride: usize,
        dilation: usize,
        pad: (usize, usize),
        ceil: bool,
    ) -> Option<Axis> {
        let (before, after) = pad;
        let span = window_span(window, dilation)?;
        let padded = size.checked_add(before)?.checked_add(after)?;
        let room = padded.checked_sub(span)?;
        let mut out = if ceil { room.checked_add(stride.checked_sub(1)?)? } else { room }.checked_div(stride)? + 1;
        if ceil && (out - 1).checked_mul(stride)? >= size + before {
            out -= 1;
        }
        let needed = out.checked_sub(1)?.checked_mul(stride)?.checked_add(span)?;
        let cover = after.max(needed.saturating_sub(size + before));
        Some(Axis { size, window, stride, dilation, before, after, out, cover })
    }

    /// Elements that the window number `i` averages over.
    fn counted(&self, i: usize, include_pad: bool) -> usize {
        let (start, limit) = (i * self.stride, self.before + self.size);
        let end = start + self.window;
        if include_pad {
            end.min(limit + self.after) - start
        } else {
            end.min(limit).saturating_sub(start.max(self.before))
        }
    }
}

impl Tensor {
    /// Checks the arguments of a pooling operation on the last `kernel.len()` axes.
    fn pool_axes(&self, name: &'static str, kernel: &[usize], options: &PoolOptions) -> Result<Vec<Axis>> {
        let shapes = [self.shape()];
        let rank = kernel.len();
        if !(1..=3).contains(&rank) || !matches!(self.rank().checked_sub(rank), Some(1 | 2)) {
            let got = format!("the window {kernel:?}");
            let expected = "1 to 3 spatial axes, and an input [n, c, spatial..] or [c, spatial..]";
            return Err(Error::argument(name, got, &shapes, expected));
        }
        let dilation = per_axis(name, "dilation", &options.dilation, 1, &shapes, rank)?;
        let padding = per_axis(name, "padding", &options.padding, (0, 0), &shapes, rank)?;
        let stride = match options.stride[..] {
            [] => kernel.to_vec(),
            _ => per_axis(name, "stride", &options.stride, 1, &shapes, rank)?,
        };
        for (what, list) in [("window", kernel), ("stride", &stride), ("dilation", &dilation)] {
            if list.contains(&0) {
                return Err(Error::argument(name, format!("{what} {list:?}"), &shapes, "positive numbers"));
            }
        }
        let spatial = &self.shape()[self.rank() - rank..];
        let mut out = Vec::with_capacity(rank);
        for i in 0..rank {
            if padding[i].0 > kernel[i] / 2 || padding[i].1 > kernel[i] / 2 {
                let expected = format!("at most half of the window {kernel:?} on either side");
                return Err(Error::argument(name, format!("padding {padding:?}"), &shapes, expected));
            }
            let axis = Axis::new(spatial[i], kernel[i], stride[i], dilation[i], padding[i], options.ceil_mode);
            let Some(axis) = axis else {
                let expected = format!("no larger than the padded input on spatial axis {i}");
                return Err(Error::argument(name, format!("the window {kernel:?}"), &shapes, expected));
            };
            out.push(axis);
        }
        Ok(out)
    }

    /// Windows of the last axes: `[.., out.., window..]`, with `fill` around.
    fn pool_windows(&self, name: &'static str, axes: &[Axis], fill: Scalar) -> Result<Tensor> {
        let lead = self.rank() - axes.len();
        let mut amounts = vec![(0, 0); lead];
        amounts.extend(axes.iter().map(|a| (a.before, a.cover)));
        let mut x = self.pad_to(name, &amounts, fill)?;
        for (i, a) in axes.iter().enumerate() {
            // Without ceil_mode elements after the last window stay out of use, as does what ceil_mode cuts off.
            let used = (a.out - 1) * a.stride + (a.window - 1) * a.dilation + 1;
            x = x.narrow((lead + i) as isize, 0, used)?;
            x = x.unfold_to(name, lead + i, a.window, a.stride, a.dilation)?;
        }
        Ok(x)
    }

    /// The largest element of each window `kernel` on the last axes of `self`, `[n, c, spatial..]` or `[c, spatial..]`;
    /// NaN if there is one. The border counts as smaller than anything.
    ///
    /// # Errors
    /// Shapes that do not fit, numbers of 0, padding of more than half the window, a window larger than the padded input.
    pub fn max_pool(&self, kernel: &[usize], options: &PoolOptions) -> Result<Tensor> {
        let name = "max_pool";
        let axes = self.pool_axes(name, kernel, options)?;
        let windows = self.pool_windows(name, &axes, ReduceOp::Max.identity(self.dtype()))?;
        let reduced: Vec<usize> = (self.rank()..self.rank() + axes.len()).collect();
        windows.reduce(name, ReduceOp::Max, &reduced, SumOrder::Any)
    }

    /// The mean of each window `kernel` on the last axes of `self`, `[n, c, spatial..]` or `[c, spatial..]`. What
    /// sticks out beyond the padding is not counted; the padding is if `count_include_pad`.
    ///
    /// # Errors
    /// Dtypes that are not floating, shapes that do not fit, numbers of 0, a dilation other than 1, padding of more than
    /// half the window, a window larger than the padded input.
    pub fn avg_pool(&self, kernel: &[usize], options: &PoolOptions) -> Result<Tensor> {
        let name = "avg_pool";
        self.require_float(name)?;
        if options.dilation.iter().any(|&d| d != 1) {
            let got = format!("dilation {:?}", options.dilation);
            return Err(Error::argument(name, got, &[self.shape()], "1 on every axis"));
        }
        let axes = self.pool_axes(name, kernel, options)?;
        self.computed(|x| {
            let windows = x.pool_windows(name, &axes, Scalar::zero(x.dtype()))?;
            let reduced: Vec<usize> = (x.rank()..x.rank() + axes.len()).collect();
            let sums = windows.reduce(name, ReduceOp::Add, &reduced, SumOrder::Any)?;
            sums.binary(name, BinaryOp::Div, divisor(name, x, &axes, options.count_include_pad)?)
        })
    }
}

/// The number of elements in each window, broadcastable to the result: a product of one factor per axis.
fn divisor(name: &'static str, x: &Tensor, axes: &[Axis], include_pad: bool) -> Result<Tensor> {
    let lead = x.rank() - axes.len();
    let mut same = 1usize;
    let mut product: Option<Tensor> = None;
    for (i, a) in axes.iter().enumerate() {
        // Windows inside of the input count in full; only the first and the last few may not.
        if a.counted(0, include_pad) == a.window && a.counted(a.out - 1, include_pad) == a.window {
            same = same.saturating_mul(a.window);
            continue;
        }
        let mut shape = vec![1; x.rank()];
        shape[lead + i] = a.out;
        let start = Tensor::iota(name, DType::I64, &shape, lead + i)?.mul(a.stride as i64)?;
        let limit = (a.before + a.size + if include_pad { a.after } else { 0 }) as i64;
        let end = start.add(a.window as i64)?.minimum(limit)?;
        let start = if include_pad { start } else { start.maximum(a.before as i64)? };
        let factor = end.sub(&start)?.cast(x.dtype())?;
        product = Some(match product {
            Some(p) => p.mul(&factor)?,
            None => factor,
        });
    }
    let same = Tensor::constant(Scalar::from_f64(x.dtype(), same as f64));
    match product {
        Some(p) => p.mul(&same),
        None => Ok(same),
    }
}
