//! Convolutions, transposed ones, and products with a matrix.

use super::Node;
use super::activation::fused;
use crate::error::Result;
use crate::model::ModelError;
use crate::model::ncnn::param::Layer;
use crate::model::ncnn::weights::Blob;
use crate::tensor::{ConvOptions, Tensor};
use winograph_ir::Scalar;

/// Padding so that there are as many windows as elements divided by the stride.
const SAME_UPPER: i64 = -233;
/// The same, with the larger half before.
const SAME_LOWER: i64 = -234;

fn groups(layer: &Layer) -> Result<usize, ModelError> {
    match layer.kind.contains("DepthWise") {
        true => layer.positive(7, "group", 1),
        false => Ok(1),
    }
}

pub(super) fn weights(layer: &Layer) -> Result<Vec<Blob>, ModelError> {
    let outputs = layer.positive(0, "num_output", 0)?;
    let product = layer.kind == "InnerProduct";
    let (bias, count) = if product { (1, 2) } else { (5, 6) };
    layer.only_zero(8, "int8_scale_term", "weights of 8-bit integers")?;
    if !product {
        layer.only_zero(19, "dynamic_weight", "weights that are inputs")?;
        layer.only_zero(28, "dynamic_weight", "weights that are inputs")?;
    }
    let size = layer.positive(count, "weight_data_size", 0)?;
    // A size that is not meant would put the weights of all layers behind this one at wrong places.
    let window = match layer.kind.as_str() {
        "InnerProduct" => vec![],
        "Convolution1D" => vec![layer.positive(1, "kernel", 0)?],
        _ => pair(layer, 1, 11, "kernel", 0)?.to_vec(),
    };
    let each = window.iter().fold(outputs, |n, &k| n.saturating_mul(k));
    if !size.is_multiple_of(each) {
        let window = window.iter().map(|k| format!(" by {k}")).collect::<String>();
        return Err(layer.bad(
            count,
            "weight_data_size",
            &format!("a multiple of {each}: num_output {outputs}{window}"),
        ));
    }
    let mut out = vec![Blob::tagged("weight_data_size", size)];
    if layer.flag(bias, "bias_term")? {
        out.push(Blob::plain("num_output", outputs));
    }
    Ok(out)
}

/// Sizes of a window from parameters of both axes, where that of the second may be left out.
fn pair(layer: &Layer, first: i64, second: i64, field: &str, default: usize) -> Result<[usize; 2], ModelError> {
    let w = layer.positive(first, field, default)?;
    Ok([layer.positive(second, field, w)?, w])
}

/// The input channels of a convolution with these weights.
pub(in crate::model::ncnn) fn input_channels(layer: &Layer, weight: &Tensor) -> Option<usize> {
    let [h, w] = pair(layer, 1, 11, "kernel", 0).ok()?;
    let outputs = layer.positive(0, "num_output", 0).ok()?;
    let each = h.checked_mul(w)?.checked_mul(outputs)?;
    weight.numel().is_multiple_of(each).then(|| weight.numel() / each)
}

/// Windows of a layer.
struct Windows {
    kernel: [usize; 2],
    dilation: [usize; 2],
    stride: [usize; 2],
    /// Before and after each axis, height first; codes of "same" as they are.
    pads: [(i64, i64); 2],
}

impl Windows {
    fn new(layer: &Layer) -> Result<Windows, ModelError> {
        let left = layer.int(4, "pad_left", 0)?;
        let right = layer.int(15, "pad_right", left)?;
        let top = layer.int(14, "pad_top", left)?;
        let bottom = layer.int(16, "pad_bottom", top)?;
        Ok(Windows {
            kernel: pair(layer, 1, 11, "kernel", 0)?,
            dilation: pair(layer, 2, 12, "dilation", 1)?,
            stride: pair(layer, 3, 13, "stride", 1)?,
            pads: [(top, bottom), (left, right)],
        })
    }

    /// Elements from the first to the last tap of an axis.
    fn span(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1).saturating_mul(self.dilation[axis]).saturating_add(1)
    }

    /// The border of a convolution's input.
    fn padding(&self, layer: &Layer, spatial: &[usize]) -> Result<Vec<(usize, usize)>> {
        let of = |axis: usize| -> Result<(usize, usize)> {
            let (before, after) = self.pads[axis];
            if before == SAME_UPPER || before == SAME_LOWER {
                let last = spatial[axis].saturating_sub(1) / self.stride[axis] * self.stride[axis];
                let total = last.saturating_add(self.span(axis)).saturating_sub(spatial[axis]);
                let less = total / 2;
                return Ok(if before == SAME_UPPER { (less, total - less) } else { (total - less, less) });
            }
            match (usize::try_from(before), usize::try_from(after)) {
                (Ok(before), Ok(after)) => Ok((before, after)),
                _ => Err(layer.wrong(format!("pads {before} and {after} (parameters 4, 14, 15, 16)")).into()),
            }
        };
        (0..2).map(of).collect()
    }
}

/// The weights `[k, c/groups, window..]` of an input with `channels`.
fn weight(n: &Node<'_>, channels: usize, window: &[usize], groups: usize) -> Result<Tensor> {
    let outputs = n.layer.positive(0, "num_output", 0)?;
    let w = n.w(0)?;
    let mut shape = vec![outputs, channels / groups];
    shape.extend(window);
    let wanted = shape.iter().try_fold(1usize, |a, &b| a.checked_mul(b));
    let divides = channels.is_multiple_of(groups) && outputs.is_multiple_of(groups);
    if !divides || wanted != Some(w.numel()) {
        let cause = format!(
            "weight_data_size {} for {channels} input channels, {outputs} outputs, a window {window:?} and {groups} group(s)",
            w.numel()
        );
        return Err(n.layer.wrong(cause).into());
    }
    w.reshape_to("convolution", &shape)
}

fn image<'a>(n: &Node<'a>, axes: usize) -> Result<&'a Tensor> {
    let x = n.x(0)?;
    match x.rank() == axes {
        true => Ok(x),
        false => Err(n.layer.wrong(format!("an input of shape {:?}, expected {axes} axes", x.shape())).into()),
    }
}

pub(super) fn convolution(n: &Node<'_>) -> Result<Tensor> {
    let x = image(n, 3)?;
    let windows = Windows::new(n.layer)?;
    let groups = groups(n.layer)?;
    let w = weight(n, x.shape()[0], &windows.kernel, groups)?;
    let mut padding = windows.padding(n.layer, &x.shape()[1..])?;
    let value = n.layer.float(18, "pad_value", 0.0)?;
    let mut padded = x.clone();
    if value != 0.0 {
        let amounts: Vec<(usize, usize)> = [(0, 0)].into_iter().chain(padding.iter().copied()).collect();
        padded = x.pad_to("convolution", &amounts, Scalar::from_f64(x.dtype(), value))?;
        padding = vec![(0, 0); 2];
    }
    let options = ConvOptions {
        stride: windows.stride.to_vec(),
        padding,
        dilation: windows.dilation.to_vec(),
        groups,
        ..ConvOptions::default()
    };
    let y = padded.conv(&w, n.weights.get(1), &options)?;
    fused(n, y)
}

/// A convolution along the rows of `[h, w]`, where `h` are the channels.
pub(super) fn convolution_1d(n: &Node<'_>) -> Result<Tensor> {
    let x = image(n, 2)?;
    let windows = Windows::new(n.layer)?;
    let w = weight(n, x.shape()[0], &windows.kernel[1..], 1)?;
    let padding = windows.padding(n.layer, &[1, x.shape()[1]])?;
    let options = ConvOptions {
        stride: vec![windows.stride[1]],
        padding: vec![padding[1]],
        dilation: vec![windows.dilation[1]],
        ..ConvOptions::default()
    };
    fused(n, x.conv(&w, n.weights.get(1), &options)?)
}

pub(super) fn deconvolution(n: &Node<'_>) -> Result<Tensor> {
    let name = "deconvolution";
    let x = image(n, 3)?;
    let windows = Windows::new(n.layer)?;
    let groups = groups(n.layer)?;
    let (channels, spatial) = (x.shape()[0], &x.shape()[1..]);
    // [k, c/g, window..] of ncnn as [c, k/g, window..].
    let w = weight(n, channels, &windows.kernel, groups)?;
    let outputs = w.shape()[0];
    let [h, wd] = windows.kernel;
    let w = w.reshape_to(name, &[groups, outputs / groups, channels / groups, h, wd])?.transpose(1, 2)?;
    let w = w.reshape_to(name, &[channels, outputs / groups, h, wd])?;
    let right = n.layer.size(18, "output_pad_right", 0)?;
    let extra = [n.layer.size(19, "output_pad_bottom", right)?, right];
    let width = n.layer.size(20, "output_w", 0)?;
    let wanted = [n.layer.size(21, "output_h", width)?, width];
    let mut ranges = Vec::with_capacity(2);
    for axis in 0..2 {
        let steps = spatial[axis].saturating_sub(1).checked_mul(windows.stride[axis]);
        let whole = steps.and_then(|s| s.checked_add(windows.span(axis))?.checked_add(extra[axis]));
        let whole = whole.and_then(|w| i64::try_from(w).ok()).ok_or_else(|| n.layer.wrong("sizes overflow"))?;
        let (before, after) = match windows.pads[axis] {
            (code @ (SAME_UPPER | SAME_LOWER), _) if wanted[0] > 0 && wanted[1] > 0 => {
                let cut = whole - wanted[axis] as i64;
                if code == SAME_UPPER { (cut / 2, cut - cut / 2) } else { (cut - cut / 2, cut / 2) }
            }
            (before, after) => (before.max(0), after.max(0)),
        };
        let length = usize::try_from(whole - before - after).ok().filter(|&l| l > 0);
        let length = length.ok_or_else(|| n.layer.wrong(format!("cuts {before} and {after} of {whole} elements")))?;
        ranges.push((before, length));
    }
    let y = x.unsqueeze(0)?.transposed(&w, &windows.stride, &windows.dilation, groups, &ranges)?.squeeze(&[0])?;
    let y = match n.weights.get(1) {
        Some(bias) => y.add(&bias.reshape_to(name, &[outputs, 1, 1])?)?,
        None => y,
    };
    fused(n, y)
}

pub(super) fn inner_product(n: &Node<'_>) -> Result<Tensor> {
    let name = "inner_product";
    let (x, w) = (n.x(0)?, n.w(0)?);
    let outputs = n.layer.positive(0, "num_output", 0)?;
    if !w.numel().is_multiple_of(outputs) {
        return Err(n.layer.wrong(format!("weight_data_size {} for {outputs} outputs", w.numel())).into());
    }
    let terms = w.numel() / outputs;
    let rows = match x.shape() {
        // Rows of a matrix are taken one by one.
        &[h, w] if w == terms && h > 1 => Some(h),
        _ => None,
    };
    if rows.is_none() && x.numel() != terms {
        return Err(n.layer.wrong(format!("an input of shape {:?}, expected {terms} elements", x.shape())).into());
    }
    let x = x.reshape_to(name, &[rows.unwrap_or(1), terms])?;
    let y = x.linear(&w.reshape_to(name, &[outputs, terms])?, n.weights.get(1))?;
    let y = if rows.is_none() { y.reshape_to(name, &[outputs])? } else { y };
    fused(n, y)
}
