//! Convolutions and transposed ones, quantised ones among them.

use super::super::node::{Lowering, Node, one};
use super::quant;
use super::window::Window;
use crate::error::Result;
use crate::model::Value;
use crate::tensor::{ConvOptions, Tensor};

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
    kernel_shape(n, w)?;
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

/// That the attribute of this name, where there is one, says what the weight has.
fn kernel_shape(n: &Node<'_>, w: &Tensor) -> Result<()> {
    match n.sizes("kernel_shape")? {
        Some(told) if told != w.shape()[2..] => {
            Err(n.wrong(format!("kernel_shape {told:?} and a weight {:?}", w.shape())))
        }
        _ => Ok(()),
    }
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
    kernel_shape(n, w)?;
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
    let mut ranges = Vec::with_capacity(rank);
    for (i, &(before, after)) in cut.iter().enumerate() {
        let span = (w.shape()[2 + i] - 1).saturating_mul(dilation[i]) + 1;
        let whole = (x.shape()[2 + i].saturating_sub(1)).saturating_mul(stride[i]).saturating_add(span);
        let length = isize::try_from(whole).ok().and_then(|w| w.checked_sub(before)?.checked_sub(after));
        let length = length.and_then(|l| usize::try_from(l).ok());
        let length = length.ok_or_else(|| n.wrong(format!("pads {pads:?} cut off more than there is")))?;
        ranges.push((before as i64, length));
    }
    let y = x.transposed(w, &stride, &dilation, groups, &ranges)?;
    let Some(bias) = n.opt(2) else { return one(y) };
    let mut shape = vec![1; y.rank()];
    shape[1] = k * groups;
    one(y.add(bias.reshape_to(name, &shape)?)?)
}
