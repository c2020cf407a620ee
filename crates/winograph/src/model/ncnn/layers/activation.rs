//! Functions of single elements, alone or at the end of a convolution.

use super::Node;
use crate::error::Result;
use crate::tensor::Tensor;

pub(super) fn find(kind: &str) -> Option<fn(&Node<'_>) -> Result<Tensor>> {
    Some(match kind {
        "ReLU" => |n| match n.layer.float(0, "slope", 0.0)? {
            0.0 => n.x(0)?.relu(),
            slope => n.x(0)?.leaky_relu(slope),
        },
        "PReLU" => prelu,
        "Sigmoid" => |n| n.x(0)?.sigmoid(),
        "TanH" => |n| n.x(0)?.tanh(),
        "Swish" => |n| n.x(0)?.silu(),
        "Mish" => |n| mish(n.x(0)?),
        "AbsVal" => |n| n.x(0)?.abs(),
        "GELU" => |n| match n.layer.flag(0, "fast_gelu")? {
            true => n.x(0)?.gelu_tanh(),
            false => n.x(0)?.gelu(),
        },
        "Clip" => |n| {
            let (min, max) = (n.layer.float(0, "min", f64::MIN)?, n.layer.float(1, "max", f64::MAX)?);
            clip(n.x(0)?, min, max)
        },
        "ELU" => |n| {
            let x = n.x(0)?;
            // Where the exponential does not count it may be infinite.
            let low = x.minimum(0)?.exp()?.sub(1)?.mul(n.layer.float(0, "alpha", 0.1)?)?;
            x.ge(0)?.where_(x, &low)
        },
        "HardSigmoid" => |n| hard_sigmoid(n.x(0)?, n.layer.float(0, "alpha", 0.2)?, n.layer.float(1, "beta", 0.5)?),
        "HardSwish" => |n| {
            let x = n.x(0)?;
            x.mul(&hard_sigmoid(x, n.layer.float(0, "alpha", 0.2)?, n.layer.float(1, "beta", 0.5)?)?)
        },
        _ => return None,
    })
}

/// Limits that no float is beyond are none.
fn clip(x: &Tensor, min: f64, max: f64) -> Result<Tensor> {
    let (least, most) = (f64::from(f32::MIN), f64::from(f32::MAX));
    x.clamp((min > least).then_some(min), (max < most).then_some(max))
}

fn hard_sigmoid(x: &Tensor, alpha: f64, beta: f64) -> Result<Tensor> {
    x.mul(alpha)?.add(beta)?.clamp(Some(0.0), Some(1.0))
}

/// `x * tanh(ln(1 + e^x))`.
fn mish(x: &Tensor) -> Result<Tensor> {
    // ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|)
    let soft = x.relu()?.add(&x.abs()?.neg()?.exp()?.add(1)?.log()?)?;
    x.mul(&soft.tanh()?)
}

fn prelu(n: &Node<'_>) -> Result<Tensor> {
    let (x, slope) = (n.x(0)?, n.w(0)?);
    let mut shape = vec![1; x.rank()];
    shape[0] = slope.numel();
    if slope.numel() != 1 && slope.numel() != x.shape()[0] {
        let cause = format!("{} slopes for a blob of shape {:?}", slope.numel(), x.shape());
        return Err(n.layer.wrong(cause).into());
    }
    let slope = slope.reshape_to("prelu", &shape)?;
    x.gt(0)?.where_(x, &x.mul(&slope)?)
}

/// The activation that a convolution or product ends with: its type is parameter 9, its numbers 10.
pub(super) fn fused(n: &Node<'_>, x: Tensor) -> Result<Tensor> {
    let kind = n.layer.int(9, "activation_type", 0)?;
    let numbers = n.layer.list(10, "activation_params")?.unwrap_or_default();
    let number = |i: usize| {
        let missing = || n.layer.wrong(format!("activation_params (parameter 10) has {} numbers", numbers.len()));
        numbers.get(i).copied().filter(|v| !v.is_nan()).ok_or_else(missing)
    };
    match kind {
        0 => Ok(x),
        1 => x.relu(),
        2 => x.leaky_relu(number(0)?),
        3 => clip(&x, number(0)?, number(1)?),
        4 => x.sigmoid(),
        5 => mish(&x),
        6 => x.mul(&hard_sigmoid(&x, number(0)?, number(1)?)?),
        other => Err(n.layer.unsupported(format!("activation_type (parameter 9) {other}")).into()),
    }
}
