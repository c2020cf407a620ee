//! Windows that reach far beyond what they slide along: taps that never meet an element are left out.
//!
//! A file of a few bytes can ask for windows of a million taps in a border as wide. What they see of a small input is small.

use crate::error::Result;
use crate::tensor::{SliceRange, Tensor};
use std::ops::Range;
use winograph_ir::Scalar;

/// How windows slide along an axis of `size` elements.
#[derive(Clone, Copy)]
pub(crate) struct Slide {
    pub(crate) size: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) dilation: usize,
    /// Border before the first element.
    pub(crate) before: usize,
    /// Number of windows, at least one.
    pub(crate) out: usize,
}

impl Slide {
    /// The same windows of the taps alone that some window has on an element, and perhaps one more at each end.
    pub(crate) fn clipped(self) -> Slide {
        let last = (self.out - 1).saturating_mul(self.stride);
        let first = (self.before.saturating_sub(last) / self.dilation).min(self.kernel - 1);
        let end =
            self.size.saturating_add(self.before).div_ceil(self.dilation).clamp(first + 1, self.kernel.max(first + 1));
        // The first tap is at most as far out as the border is wide.
        Slide { kernel: end - first, before: self.before - first * self.dilation, ..self }
    }

    /// Whether there are taps that no window needs.
    pub(crate) fn reaches_beyond(self) -> bool {
        self.clipped().kernel < self.kernel
    }

    /// Elements from the first window's start to the last one's end.
    pub(crate) fn used(self) -> usize {
        (self.out - 1) * self.stride + (self.kernel - 1) * self.dilation + 1
    }

    /// How many taps each window has within a range of places, the border included.
    pub(crate) fn counts(self, within: Range<usize>) -> Vec<f64> {
        let taps_before =
            |place: usize, start: usize| place.saturating_sub(start).div_ceil(self.dilation).min(self.kernel);
        let count = |i: usize| {
            let start = i.saturating_mul(self.stride);
            taps_before(within.end, start).saturating_sub(taps_before(within.start, start)) as f64
        };
        (0..self.out).map(count).collect()
    }
}

/// Axes from `from` on in borders of `fill`, exactly as long as their windows need.
pub(crate) fn bordered(x: &Tensor, from: usize, slides: &[Slide], fill: Scalar) -> Result<Tensor> {
    let mut amounts = vec![(0, 0); from];
    amounts.extend(slides.iter().map(|s| (s.before, s.used().saturating_sub(s.size + s.before))));
    let mut x = x.pad_to("pool", &amounts, fill)?;
    for (i, s) in slides.iter().enumerate() {
        x = x.slice_axis((from + i) as isize, SliceRange::from(0..s.used() as isize))?;
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipped_windows_meet_the_same_elements() {
        for size in 1..5 {
            for kernel in 1..9 {
                for (stride, dilation, before, out) in
                    [(1, 1, 0, 1), (1, 1, 4, 3), (2, 1, 7, 4), (3, 2, 9, 2), (1, 3, 5, 1), (4, 2, 1, 2), (1, 2, 20, 2)]
                {
                    let s = Slide { size, kernel, stride, dilation, before, out };
                    let meets = |s: Slide, i: usize| -> Vec<usize> {
                        let at = (0..s.kernel).map(|t| i * s.stride + t * s.dilation);
                        at.filter(|&p| (s.before..s.before + size).contains(&p)).map(|p| p - s.before).collect()
                    };
                    let c = s.clipped();
                    assert!(c.kernel <= kernel && c.kernel <= (size + (out - 1) * stride) / dilation + 2);
                    let counts = s.counts(before..before + size);
                    for (i, count) in counts.iter().enumerate() {
                        assert_eq!(meets(s, i), meets(c, i), "{size} {kernel} {stride} {dilation} {before} {out}");
                        assert_eq!(meets(s, i).len() as f64, *count);
                    }
                }
            }
        }
    }
}
