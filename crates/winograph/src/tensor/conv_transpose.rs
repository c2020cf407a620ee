//! Transposed convolution, by phases: with a stride of `s` an element of the result meets every `s`-th tap alone, and
//! which these are depends on its place modulo `s`. Each phase is a small convolution of the input as it is; no zeros are
//! put between its elements. Where all phases have equally many taps (the window is a multiple of the stride) they are
//! output channels of one convolution.

use crate::error::{Error, Result};
use crate::tensor::conv::per_axis;
use crate::tensor::{ConvOptions, SliceRange, Tensor};

/// Most phases of all axes together.
const MAX_PHASES: usize = 4096;

/// One phase of an axis: every `step`-th tap from `tap` on, `count` of them, each `dilation` elements before the last.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Phase {
    tap: usize,
    step: usize,
    count: usize,
    /// Elements by which the window of the first result starts before the first element of the input.
    before: i64,
    dilation: usize,
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The phases of an axis with `window` taps; `from` is where the first result of phase 0 lies, a multiple of the
/// stride. `None` for one that meets no tap.
fn phases(window: usize, stride: usize, dilation: usize, from: i64) -> Vec<Option<Phase>> {
    let step = stride / gcd(dilation, stride);
    let phase = |p: usize| {
        let tap = (0..window.min(step)).find(|t| (t * dilation) % stride == p)?;
        let count = (window - tap).div_ceil(step);
        // A result at s * q + p meets tap t of the input's element q - (t * d - p) / s.
        let shift = |t: usize| (t * dilation - p) as i64 / stride as i64;
        let before = shift(tap + (count - 1) * step) - from / stride as i64;
        Some(Phase { tap, step, count, before, dilation: step * dilation / stride })
    };
    (0..stride).map(phase).collect()
}

impl Tensor {
    /// The gradient of [`conv`](Tensor::conv) by its input, also called deconvolution: each element of `self`,
    /// `[n, c, spatial..]` or `[c, spatial..]`, times the `weight` `[c, k/groups, window..]`, added up where windows
    /// overlap. `padding` is cut off the result, whose size is
    /// `(spatial - 1) * stride + dilation * (window - 1) + 1 - padding + output_padding`; `output_padding` has a number per
    /// spatial axis, or none.
    ///
    /// ```
    /// # use winograph::{ConvOptions, DType, Tensor};
    /// let x = Tensor::from_slice(&[1f32, 2.0], &[1, 1, 2])?;
    /// let w = Tensor::from_slice(&[1f32, 10.0, 100.0], &[1, 1, 3])?;
    /// let options = ConvOptions { stride: vec![2], ..ConvOptions::default() };
    /// assert_eq!(x.conv_transpose(&w, None, &options, &[])?.to_vec::<f32>()?, [1.0, 10.0, 102.0, 20.0, 200.0]);
    /// # Ok::<(), winograph::Error>(())
    /// ```
    ///
    /// # Errors
    /// Shapes or dtypes that do not fit each other, groups that do not divide the channels, a stride, dilation or number
    /// of groups of 0, lists of another length than there are axes, more padding than there is to cut off.
    pub fn conv_transpose(
        &self,
        weight: &Tensor,
        bias: Option<&Tensor>,
        options: &ConvOptions,
        output_padding: &[usize],
    ) -> Result<Tensor> {
        let name = "conv_transpose";
        let shapes = [self.shape(), weight.shape()];
        let rank = weight.rank().saturating_sub(2);
        if !(1..=3).contains(&rank) || !matches!(self.rank().checked_sub(rank), Some(1 | 2)) {
            let expected = "an input [n, c, spatial..] or [c, spatial..] and a weight [c, k/groups, window..] with 1 to 3 \
                            spatial axes";
            return Err(Error::shape(name, &shapes, expected));
        }
        let x = if self.rank() == rank + 1 { self.unsqueeze(0)? } else { self.clone() };
        let stride = per_axis(name, "stride", &options.stride, 1, &shapes, rank)?;
        let dilation = per_axis(name, "dilation", &options.dilation, 1, &shapes, rank)?;
        let padding = per_axis(name, "padding", &options.padding, (0, 0), &shapes, rank)?;
        let extra = per_axis(name, "output_padding", output_padding, 0, &shapes, rank)?;
        let mut ranges = Vec::with_capacity(rank);
        for i in 0..rank {
            let length = whole(x.shape()[2 + i], weight.shape()[2 + i], stride[i], dilation[i])
                .and_then(|w| w.checked_add(extra[i])?.checked_sub(padding[i].0)?.checked_sub(padding[i].1));
            match (length, i64::try_from(padding[i].0)) {
                (Some(length), Ok(before)) if length > 0 => ranges.push((before, length)),
                _ => {
                    let got = format!("padding {padding:?}");
                    return Err(Error::argument(name, got, &shapes, "less than the result has"));
                }
            }
        }
        let mut y = x.transposed(weight, &stride, &dilation, options.groups, &ranges)?;
        if let Some(bias) = bias {
            if bias.shape() != [y.shape()[1]] {
                let expected = format!("a bias of shape [{}]", y.shape()[1]);
                return Err(Error::shape(name, &[shapes[0], shapes[1], bias.shape()], expected));
            }
            let mut shape = vec![1; y.rank()];
            shape[1] = bias.numel();
            y = y.add(&bias.reshape_to(name, &shape)?)?;
        }
        if self.rank() == rank + 1 { y.squeeze(&[0]) } else { Ok(y) }
    }

    /// A transposed convolution of `[n, c, spatial..]` with `[c, k/groups, window..]`. `ranges` says which part of the
    /// result is wanted per spatial axis: where it starts, counted from where the first tap of the first element lies,
    /// and its length. What no element reaches is 0.
    pub(crate) fn transposed(
        &self,
        weight: &Tensor,
        stride: &[usize],
        dilation: &[usize],
        groups: usize,
        ranges: &[(i64, usize)],
    ) -> Result<Tensor> {
        let name = "conv_transpose";
        let rank = stride.len();
        let shapes = [self.shape(), weight.shape()];
        self.same_dtype(name, weight)?;
        let positive = stride.iter().chain(dilation).chain(&weight.shape()[2..]).all(|&v| v > 0);
        let sizes = (0..rank).map(|i| whole(self.shape()[2 + i], weight.shape()[2 + i], stride[i], dilation[i]));
        let combinations = stride.iter().try_fold(1usize, |a, &s| a.checked_mul(s)).filter(|&n| n <= MAX_PHASES);
        if !positive || groups == 0 || combinations.is_none() || sizes.collect::<Option<Vec<_>>>().is_none() {
            let got = format!("stride {stride:?}, dilation {dilation:?}, groups {groups}");
            let expected =
                format!("positive numbers, sizes that can be counted, and strides of a product up to {MAX_PHASES}");
            return Err(Error::argument(name, got, &shapes, expected));
        }
        let (c, k) = (weight.shape()[0], weight.shape()[1]);
        if self.shape()[1] != c || !c.is_multiple_of(groups) {
            let expected = format!("as many input channels as the weight has on axis 0, in {groups} group(s)");
            return Err(Error::shape(name, &shapes, expected));
        }
        // [g * k/g, c/g, window..], as convolutions have it, the window turned around.
        let mut shape = vec![groups, c / groups, k];
        shape.extend(&weight.shape()[2..]);
        let w = weight.reshape_to(name, &shape)?.transpose(1, 2)?;
        let mut shape = vec![groups * k, c / groups];
        shape.extend(&weight.shape()[2..]);
        let w = w.reshape_to(name, &shape)?;

        // Whole periods around the wanted part of each axis.
        let from: Vec<i64> = (0..rank).map(|i| ranges[i].0.div_euclid(stride[i] as i64) * stride[i] as i64).collect();
        let lead: Vec<usize> = (0..rank).map(|i| (ranges[i].0 - from[i]) as usize).collect();
        let counts: Vec<usize> = (0..rank).map(|i| (lead[i] + ranges[i].1).div_ceil(stride[i])).collect();
        let axes: Vec<Vec<Option<Phase>>> =
            (0..rank).map(|i| phases(weight.shape()[2 + i], stride[i], dilation[i], from[i])).collect();
        // One for each combination of phases, the last axis fastest.
        let mut combined: Vec<Option<Vec<Phase>>> = vec![Some(vec![])];
        for axis in &axes {
            let longer = |list: &Option<Vec<Phase>>| {
                let with = |p: &Option<Phase>| Some([list.as_deref()?, &[(*p)?]].concat());
                axis.iter().map(with).collect::<Vec<_>>()
            };
            combined = combined.iter().flat_map(longer).collect();
        }
        let size = [self.shape()[0], groups * k];
        let y = match same_windows(&combined) {
            Some(window) if groups == 1 => {
                let parts = combined.iter().flatten().map(|p| taps(&w, p)).collect::<Result<Vec<_>>>()?;
                // [k * phases, c, window..]: the phases of a channel next to each other.
                let all = Tensor::stack(&parts.iter().collect::<Vec<_>>(), 1)?;
                let mut shape = vec![size[1] * parts.len(), c];
                shape.extend(&all.shape()[3..]);
                let y = self.windows(&all.reshape_to(name, &shape)?, window, groups, &counts)?;
                let mut shape = vec![size[0], size[1], parts.len()];
                shape.extend(&counts);
                y.reshape_to(name, &shape)?
            }
            _ => {
                let mut shape = size.to_vec();
                shape.extend(&counts);
                let part = |p: &Option<Vec<Phase>>| match p {
                    Some(p) => self.windows(&taps(&w, p)?, p, groups, &counts),
                    None => Tensor::zeros(&shape, self.dtype()),
                };
                let parts = combined.iter().map(part).collect::<Result<Vec<_>>>()?;
                Tensor::stack(&parts.iter().collect::<Vec<_>>(), 2)?
            }
        };
        // [n, k, phases, counts..] interleaved.
        let mut shape = size.to_vec();
        shape.extend(stride);
        shape.extend(&counts);
        let mut order = vec![0, 1];
        order.extend((0..rank).flat_map(|i| [2 + rank + i, 2 + i]));
        let mut y = y.reshape_to(name, &shape)?.permute_to(name, &order)?;
        let mut shape = size.to_vec();
        shape.extend((0..rank).map(|i| counts[i] * stride[i]));
        y = y.reshape_to(name, &shape)?;
        for i in 0..rank {
            y = y.narrow(2 + i as isize, lead[i], ranges[i].1)?;
        }
        Ok(y)
    }

    /// `counts` results of a phase's convolution.
    fn windows(&self, w: &Tensor, phases: &[Phase], groups: usize, counts: &[usize]) -> Result<Tensor> {
        let mut amounts = vec![(0, 0); 2];
        for (i, p) in phases.iter().enumerate() {
            let size = self.shape()[2 + i] as i64;
            let after = counts[i] as i64 + ((p.count - 1) * p.dilation) as i64 - size - p.before;
            if p.before <= -size || after <= -size || p.before.min(0) + after.min(0) <= -size {
                // No window reaches an element.
                let mut shape = vec![self.shape()[0], w.shape()[0]];
                shape.extend(counts);
                return Tensor::zeros(&shape, self.dtype());
            }
            amounts.push((p.before as isize, after as isize));
        }
        let options =
            ConvOptions { dilation: phases.iter().map(|p| p.dilation).collect(), groups, ..ConvOptions::default() };
        self.pad(&amounts, 0)?.conv(w, None, &options)
    }
}

/// Size of a result of which nothing is cut off.
fn whole(size: usize, window: usize, stride: usize, dilation: usize) -> Option<usize> {
    let steps = size.checked_sub(1)?.checked_mul(stride)?;
    let whole = steps.checked_add(window.checked_sub(1)?.checked_mul(dilation)?.checked_add(1)?)?;
    i64::try_from(whole).ok().map(|_| whole)
}

/// The windows of all phases, if they have the same.
fn same_windows(combined: &[Option<Vec<Phase>>]) -> Option<&[Phase]> {
    let place = |p: &Phase| (p.count, p.before, p.dilation);
    let first = combined.first()?.as_ref()?;
    let same = |c: &Option<Vec<Phase>>| c.as_ref().is_some_and(|c| c.iter().map(place).eq(first.iter().map(place)));
    combined.iter().all(same).then_some(first)
}

/// The taps of a phase, last first, as a convolution meets them.
fn taps(w: &Tensor, phases: &[Phase]) -> Result<Tensor> {
    let mut out = w.clone();
    for (i, p) in phases.iter().enumerate() {
        let last = (p.tap + (p.count - 1) * p.step) as isize;
        let stop = p.tap as isize - 1;
        let range = SliceRange { start: Some(last), stop: (stop >= 0).then_some(stop), step: -(p.step as isize) };
        out = out.slice_axis(2 + i as isize, range)?;
    }
    Ok(out)
}
