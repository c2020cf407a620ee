//! Convolutions and transposed ones, quantised ones among them.

use super::super::node::{Lowering, Node, one};
use super::quant;
use super::window::Window;
use crate::error::Result;
use crate::model::Value;
use crate::tensor::{ConvOptions, SliceRange, Tensor};
use winograph_ir::Scalar;

pub(super) fn find(op: &str) -> Option<Lowering> {
    Some(match op {
        "Conv" => |n| one(conv(n, n.x(0)?, n.x(1)?, n.opt(2))?),
        "ConvTranspose" => conv_transpose,
        "ConvInteger" => conv_integer,
        "QLinearConv" => qlinear_conv,
        _ => return None,
    })
}

fn conv(n: &Node<'_>, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if w.rank() < 3 || x.rank() != w.rank() {
        return Err(n.wrong(format!("an input {:?} and a weight {:?}", x.shape(), w.shape())));
    }
    let window = Window::new(n, w.shape()[2..].to_vec(), &x.shape()[2..])?;
    let options = ConvOptions {
        stride: window.stride,
        padding: window.padding,
        dilation: window.dilation,
        groups: usize::try_from(n.int("group", 1)).map_err(|_| n.wrong("a negative group"))?,
        ..ConvOptions::default()
    };
    x.conv(w, bias, &options)
}

fn conv_integer(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = quant::centered(n.x(0)?, n.opt(2), 1)?;
    let w = quant::centered(n.x(1)?, n.opt(3), 0)?;
    one(conv(n, &x, &w, None)?)
}

fn qlinear_conv(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = quant::centered(n.x(0)?, Some(n.x(2)?), 1)?;
    let w = quant::centered(n.x(3)?, Some(n.x(5)?), 0)?;
    let y = conv(n, &x, &w, n.opt(8))?;
    let scale = n.x(1)?.mul(quant::along(n.x(4)?, 1, y.rank())?)?;
    one(quant::requantize(&y, &scale, n.x(6)?, n.x(7)?)?)
}

fn conv_transpose(n: &Node<'_>) -> Result<Vec<Value>> {
    let name = "conv_transpose";
    let (x, w) = (n.x(0)?, n.x(1)?);
    let rank = x.rank().saturating_sub(2);
    if rank == 0 || w.rank() != x.rank() {
        return Err(n.wrong(format!("an input {:?} and a weight {:?}", x.shape(), w.shape())));
    }
    let list = |name: &str, default: usize| -> Result<Vec<usize>> {
        let list = n.sizes(name)?.unwrap_or_else(|| vec![default; rank]);
        match list.len() == rank {
            true => Ok(list),
            false => Err(n.wrong(format!("{name} {list:?}, where {rank} numbers are expected"))),
        }
    };
    let (stride, dilation, extra) = (list("strides", 1)?, list("dilations", 1)?, list("output_padding", 0)?);
    let groups = usize::try_from(n.int("group", 1)).unwrap_or(0);
    let (c, k) = (w.shape()[0], w.shape()[1]);
    if groups == 0 || !c.is_multiple_of(groups) || c != x.shape()[1] || stride.contains(&0) || dilation.contains(&0) {
        return Err(n.wrong(format!("an input {:?}, a weight {:?}, {groups} groups", x.shape(), w.shape())));
    }
    let mode = n.text("auto_pad", "NOTSET");
    let target = n.sizes("output_shape")?;
    let pads = n.sizes("pads")?.unwrap_or_else(|| vec![0; 2 * rank]);
    if pads.len() != 2 * rank || target.as_ref().is_some_and(|t| t.len() < rank) {
        return Err(n.wrong("pads or output_shape of another length than there are spatial axes"));
    }
    // Sizes without any border cut off, and what is cut off.
    let mut cut = Vec::with_capacity(rank);
    for i in 0..rank {
        let span = (w.shape()[2 + i] - 1).saturating_mul(dilation[i]) + 1;
        let whole = (x.shape()[2 + i].saturating_sub(1)).saturating_mul(stride[i]).saturating_add(span);
        let wanted = match (&target, mode.as_str()) {
            (Some(t), _) => Some(t[t.len() - rank + i]),
            (None, "SAME_UPPER" | "SAME_LOWER") => Some(x.shape()[2 + i].saturating_mul(stride[i])),
            _ => None,
        };
        cut.push(match wanted {
            Some(size) => {
                let total = (whole + extra[i]).saturating_sub(size) as isize;
                // What is missing is added at the end.
                let less = total / 2;
                let grown = size as isize - (whole as isize - total);
                if mode == "SAME_UPPER" { (less, total - less - grown) } else { (total - less, less - grown) }
            }
            None if mode == "VALID" => (0, -(extra[i] as isize)),
            None => (pads[i] as isize, pads[i + rank] as isize - extra[i] as isize),
        });
    }
    let y = transposed(x, w, &stride, &dilation, groups)?;
    let mut amounts = vec![(0, 0); 2];
    amounts.extend(cut.iter().map(|&(b, a)| (-b, -a)));
    let y = super::movement::pad_constant(&y, &amounts, Scalar::zero(y.dtype()))?;
    let Some(bias) = n.opt(2) else { return one(y) };
    let mut shape = vec![1; y.rank()];
    shape[1] = k * groups;
    one(y.add(bias.reshape_to(name, &shape)?)?)
}

/// The transposed convolution of `[n, c, spatial..]` with `[c, k/groups, window..]`, nothing cut off: zeros between
/// the elements of the input, and the convolution with the window turned around.
fn transposed(x: &Tensor, w: &Tensor, stride: &[usize], dilation: &[usize], groups: usize) -> Result<Tensor> {
    let name = "conv_transpose";
    let rank = stride.len();
    let zero = Scalar::zero(x.dtype());
    let mut spread = x.clone();
    for (i, &s) in stride.iter().enumerate().filter(|(_, s)| **s > 1) {
        let axis = 2 + i;
        let size = spread.shape()[axis];
        let mut amounts = vec![(0, 0); spread.rank() + 1];
        amounts[axis + 1] = (0, s - 1);
        let wide = spread.unsqueeze(axis as isize + 1)?.pad_to(name, &amounts, zero)?;
        let mut shape = spread.shape().to_vec();
        shape[axis] = size * s;
        spread =
            wide.reshape_to(name, &shape)?.slice_axis(axis as isize, 0..((size * s + 1).saturating_sub(s)) as isize)?;
    }
    let mut ranges = vec![SliceRange::from(..); 2];
    ranges.extend(vec![SliceRange::from(..).step(-1); rank]);
    // [g, c/g, k/g, window..] to [g * k/g, c/g, window..]
    let (c, k) = (w.shape()[0], w.shape()[1]);
    let mut shape = vec![groups, c / groups, k];
    shape.extend(&w.shape()[2..]);
    let turned = w.slice(&ranges)?.reshape_to(name, &shape)?.transpose(1, 2)?;
    let mut shape = vec![groups * k, c / groups];
    shape.extend(&w.shape()[2..]);
    let turned = turned.reshape_to(name, &shape)?;
    let border = |i: usize| (w.shape()[2 + i] - 1) * dilation[i];
    let options = ConvOptions {
        stride: vec![],
        padding: (0..rank).map(|i| (border(i), border(i))).collect(),
        dilation: dilation.to_vec(),
        groups,
        ..ConvOptions::default()
    };
    spread.conv(&turned, None, &options)
}
