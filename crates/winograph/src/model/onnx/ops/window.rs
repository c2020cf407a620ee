//! Windows that slide along the last axes: the arguments that convolutions and pools share.

use super::super::node::Node;
use crate::error::Result;
use crate::model::reach::Slide;

/// How windows slide.
pub(super) struct Window {
    /// Size per spatial axis.
    pub(super) kernel: Vec<usize>,
    pub(super) stride: Vec<usize>,
    pub(super) dilation: Vec<usize>,
    /// Border per spatial axis, which `auto_pad` may ask for.
    pub(super) padding: Vec<(usize, usize)>,
    /// Number of windows per spatial axis.
    pub(super) out: Vec<usize>,
}

/// One value per spatial axis.
fn per_axis(n: &Node<'_>, name: &str, rank: usize) -> Result<Vec<usize>> {
    let list = n.sizes(name)?.unwrap_or_else(|| vec![1; rank]);
    if list.len() != rank || list.contains(&0) {
        return Err(n.wrong(format!("{name} {list:?}, where {rank} positive numbers are expected")));
    }
    Ok(list)
}

impl Window {
    /// The windows of `kernel` on `spatial`.
    pub(super) fn new(n: &Node<'_>, kernel: Vec<usize>, spatial: &[usize]) -> Result<Window> {
        let rank = kernel.len();
        if kernel.contains(&0) || spatial.len() != rank {
            return Err(n.wrong(format!("a window {kernel:?} on spatial sizes {spatial:?}")));
        }
        let (stride, dilation) = (per_axis(n, "strides", rank)?, per_axis(n, "dilations", rank)?);
        let ceil = n.flag("ceil_mode");
        let mode = n.text("auto_pad", "NOTSET");
        let (mut padding, mut out) = (Vec::new(), Vec::new());
        let pads = n.sizes("pads")?.filter(|_| mode == "NOTSET").unwrap_or_else(|| vec![0; 2 * rank]);
        if pads.len() != 2 * rank {
            return Err(n.wrong(format!("pads {pads:?}, where {} numbers are expected", 2 * rank)));
        }
        for i in 0..rank {
            let too_large = || n.wrong(format!("a window of {} taps on {} elements", kernel[i], spatial[i]));
            let span = (kernel[i] - 1).checked_mul(dilation[i]).and_then(|s| s.checked_add(1)).ok_or_else(too_large)?;
            let (before, after) = match mode.as_str() {
                "SAME_UPPER" | "SAME_LOWER" => {
                    let count = spatial[i].div_ceil(stride[i]);
                    let needed = (count.saturating_sub(1) * stride[i]).saturating_add(span);
                    let total = needed.saturating_sub(spatial[i]);
                    let less = total / 2;
                    if mode == "SAME_UPPER" { (less, total - less) } else { (total - less, less) }
                }
                "NOTSET" | "VALID" => (pads[i], pads[i + rank]),
                _ => return Err(n.wrong(format!("auto_pad {mode:?}"))),
            };
            let padded = spatial[i].checked_add(before).and_then(|s| s.checked_add(after)).ok_or_else(too_large)?;
            let room = padded.checked_sub(span).ok_or_else(too_large)?;
            let mut count = if ceil { room.div_ceil(stride[i]) } else { room / stride[i] } + 1;
            // A window that would start beyond the input and the border before it does not count.
            if ceil && (count - 1) * stride[i] >= spatial[i] + before {
                count -= 1;
            }
            padding.push((before, after));
            out.push(count);
        }
        Ok(Window { kernel, stride, dilation, padding, out })
    }

    /// How they slide along each axis.
    pub(super) fn slides(&self, spatial: &[usize]) -> Vec<Slide> {
        let slide = |i: usize| Slide {
            size: spatial[i],
            kernel: self.kernel[i],
            stride: self.stride[i],
            dilation: self.dilation[i],
            before: self.padding[i].0,
            out: self.out[i],
        };
        (0..self.out.len()).map(slide).collect()
    }

    /// Border after each axis with which all windows are inside of it.
    pub(super) fn cover(&self, spatial: &[usize]) -> Vec<(usize, usize)> {
        (0..self.out.len())
            .map(|i| {
                let end = (self.out[i] - 1) * self.stride[i] + (self.kernel[i] - 1) * self.dilation[i] + 1;
                let (before, after) = self.padding[i];
                (before, after.max(end.saturating_sub(spatial[i] + before)))
            })
            .collect()
    }
}
