//! The convolution in f64, as a plain sum: what results are compared with.

use crate::error::{Error, Result};
use crate::shapes::Case;
use std::sync::{Mutex, PoisonError};

/// Output channels that are summed at a time, so that inputs are read once for all of them.
const BLOCK: usize = 4;

/// Sizes of three spatial axes; missing ones come first and have size 1.
type Axes = [usize; 3];

fn three(list: &[usize], missing: usize) -> Axes {
    let mut out = [missing; 3];
    let start = 3 - list.len().min(3);
    out[start..].copy_from_slice(&list[list.len() - (3 - start)..]);
    out
}

fn zeros(len: usize) -> Result<Vec<f64>> {
    let mut out = Vec::new();
    let bytes = len.saturating_mul(8);
    out.try_reserve_exact(len)
        .map_err(|_| Error::failure("cannot compute the f64 convolution", format!("no memory for {bytes} bytes")))?;
    out.resize(len, 0.0);
    Ok(out)
}

/// The convolution `[n, k, out..]` of `x` `[n, c, spatial..]` and `w` `[k, c/groups, window..]` with every product exact
/// and sums in f64, on `threads` threads.
pub(crate) fn convolution(case: &Case, x: &[f32], w: &[f32], threads: usize) -> Result<Vec<f64>> {
    let (n, c) = (case.input[0], case.input[1]);
    let (k, c_group) = (case.weight[0], case.weight[1]);
    let spatial = three(&case.input[2..], 1);
    let padding = three(&case.padding, 0);
    let padded = [0, 1, 2].map(|i| spatial[i] + 2 * padding[i]);
    let volume: usize = padded.iter().product();
    let sum = Sum {
        window: three(case.window(), 1),
        stride: three(&case.stride, 1),
        dilation: three(&case.dilation, 1),
        out: three(&case.output[2..], 1),
        padded,
        c_group,
        w,
    };
    // The input as f64 with its padding.
    let mut data = zeros(n * c * volume)?;
    for (from, to) in x.chunks_exact(spatial.iter().product::<usize>().max(1)).zip(data.chunks_exact_mut(volume.max(1)))
    {
        for (row, from) in from.chunks_exact(spatial[2].max(1)).enumerate() {
            let (d, h) = (row / spatial[1] + padding[0], row % spatial[1] + padding[1]);
            let at = (d * padded[1] + h) * padded[2] + padding[2];
            for (to, &v) in to[at..at + spatial[2]].iter_mut().zip(from) {
                *to = v.into();
            }
        }
    }
    // Work items: blocks of output channels of one group and one image.
    let plane: usize = sum.out.iter().product();
    let mut y = zeros(n * k * plane)?;
    let mut items = Vec::new();
    let mut rest = y.as_mut_slice();
    let k_group = k / case.groups.max(1);
    for image in 0..n {
        for group in 0..case.groups {
            let input = (image * c + group * c_group) * volume;
            let input = data.get(input..input + c_group * volume).unwrap_or(&[]);
            for first in (0..k_group).step_by(BLOCK) {
                let block = BLOCK.min(k_group - first);
                let (mine, others) = std::mem::take(&mut rest).split_at_mut(block * plane);
                rest = others;
                items.push((input, group * k_group + first, mine));
            }
        }
    }
    if plane > 0 && c_group > 0 {
        let queue = Mutex::new(items.into_iter());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        std::thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                scope.spawn(|| {
                    while let Some((input, first, y)) = next() {
                        sum.block(input, first, y);
                    }
                });
            }
        });
    }
    Ok(y)
}

struct Sum<'a> {
    window: Axes,
    stride: Axes,
    dilation: Axes,
    out: Axes,
    padded: Axes,
    c_group: usize,
    w: &'a [f32],
}

impl Sum<'_> {
    /// Adds up the output channels from `first` on that `y` has room for.
    fn block(&self, input: &[f64], first: usize, y: &mut [f64]) {
        let [od, oh, ow] = self.out;
        let plane = od * oh * ow;
        let taps: usize = self.window.iter().product();
        let volume: usize = self.padded.iter().product();
        let mut sums = vec![0.0; BLOCK * ow];
        let channels = y.len() / plane;
        for d in 0..od {
            for h in 0..oh {
                sums.fill(0.0);
                for c in 0..self.c_group {
                    for tap in 0..taps {
                        let [_, r, s] = self.window;
                        let (i, j, l) = (tap / (r * s), tap / s % r, tap % s);
                        let at_d = d * self.stride[0] + i * self.dilation[0];
                        let at_h = h * self.stride[1] + j * self.dilation[1];
                        let at = c * volume + (at_d * self.padded[1] + at_h) * self.padded[2] + l * self.dilation[2];
                        let x = &input[at..at + (ow - 1) * self.stride[2] + 1];
                        let weight = |b: usize| -> f64 {
                            // Beyond the last channel anything will do: those sums are not used.
                            let b = first + b.min(channels - 1);
                            self.w[(b * self.c_group + c) * taps + tap].into()
                        };
                        add(&mut sums, ow, x, self.stride[2], [weight(0), weight(1), weight(2), weight(3)]);
                    }
                }
                for (b, row) in sums.chunks_exact(ow).take(channels).enumerate() {
                    let at = b * plane + (d * oh + h) * ow;
                    y[at..at + ow].copy_from_slice(row);
                }
            }
        }
    }
}

/// `sums[b][i] += w[b] * x[i * stride]`.
fn add(sums: &mut [f64], ow: usize, x: &[f64], stride: usize, w: [f64; BLOCK]) {
    let (s0, rest) = sums.split_at_mut(ow);
    let (s1, rest) = rest.split_at_mut(ow);
    let (s2, s3) = rest.split_at_mut(ow);
    let rows = s0.iter_mut().zip(s1).zip(s2).zip(s3);
    let one = |(((a, b), c), d): (((&mut f64, &mut f64), &mut f64), &mut f64), x: f64| {
        *a += w[0] * x;
        *b += w[1] * x;
        *c += w[2] * x;
        *d += w[3] * x;
    };
    if stride == 1 {
        rows.zip(x).for_each(|(row, &x)| one(row, x));
    } else {
        rows.zip(x.iter().step_by(stride)).for_each(|(row, &x)| one(row, x));
    }
}

/// Largest absolute error of so many outputs, spread over the result, by their sums in f64; NaN where one is not finite
/// or the result has another size.
pub(crate) fn sampled_error(case: &Case, x: &[f32], w: &[f32], result: &[f32], samples: usize) -> f64 {
    let spatial = three(&case.input[2..], 1);
    let (window, out) = (three(case.window(), 1), three(&case.output[2..], 1));
    let (stride, dilation, padding) = (three(&case.stride, 1), three(&case.dilation, 1), three(&case.padding, 0));
    let (c, c_group, k) = (case.input[1], case.weight[1], case.weight[0]);
    let taps: usize = window.iter().product();
    let (plane, volume): (usize, usize) = (out.iter().product(), spatial.iter().product());
    if result.len() != case.output.iter().product::<usize>() {
        return f64::NAN;
    }
    let mut max = 0f64;
    for sample in 0..samples.min(result.len()) {
        // An irrational step meets all rows and columns.
        let at = ((sample as f64 * 0.618_033_988_749_895).fract() * result.len() as f64) as usize;
        let (image, channel, place) = (at / plane / k, at / plane % k, at % plane);
        let place = [place / (out[1] * out[2]), place / out[2] % out[1], place % out[2]];
        let first = channel / (k / case.groups.max(1)).max(1) * c_group;
        let mut sum = 0f64;
        for tap in 0..taps {
            let tap_at = [tap / (window[1] * window[2]), tap / window[2] % window[1], tap % window[2]];
            let read = [0, 1, 2].map(|a| (place[a] * stride[a] + tap_at[a] * dilation[a]).wrapping_sub(padding[a]));
            if (0..3).any(|a| read[a] >= spatial[a]) {
                continue;
            }
            let offset = (read[0] * spatial[1] + read[1]) * spatial[2] + read[2];
            for i in 0..c_group {
                let value = x.get((image * c + first + i) * volume + offset);
                let weight = w.get((channel * c_group + i) * taps + tap);
                let (Some(&value), Some(&weight)) = (value, weight) else { return f64::NAN };
                sum += f64::from(value) * f64::from(weight);
            }
        }
        let error = result.get(at).map_or(f64::NAN, |&y| (f64::from(y) - sum).abs());
        if !error.is_finite() {
            return f64::NAN;
        }
        max = max.max(error);
    }
    max
}

/// Largest absolute difference and relative L2 difference of a result from the reference.
pub(crate) fn errors(result: &[f32], reference: &[f64]) -> (f64, f64) {
    let (mut max, mut difference, mut total) = (0f64, 0f64, 0f64);
    for (&y, &r) in result.iter().zip(reference) {
        let e = f64::from(y) - r;
        max = max.max(e.abs());
        difference += e * e;
        total += r * r;
    }
    // `max` passes over a NaN, a sum does not.
    match difference {
        d if d.is_nan() => (f64::NAN, f64::NAN),
        0.0 => (max, 0.0),
        d => (max, (d / total).sqrt()),
    }
}
