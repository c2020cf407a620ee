//! Activations.

use super::super::node::{Lowering, Node, one};
use crate::error::Result;
use crate::model::Value;
use crate::tensor::Tensor;

pub(super) fn find(op: &str) -> Option<Lowering> {
    Some(match op {
        "Relu" => |n| one(n.x(0)?.relu()?),
        "Sigmoid" => |n| one(n.x(0)?.sigmoid()?),
        "LeakyRelu" => |n| one(n.x(0)?.leaky_relu(n.float("alpha", 0.01))?),
        "PRelu" => prelu,
        "Elu" | "Celu" | "Selu" | "HardSigmoid" | "HardSwish" | "Softplus" | "Softsign" | "Mish" | "Shrink"
        | "ThresholdedRelu" | "Swish" => computed,
        "Gelu" => {
            |n| one(if n.text("approximate", "none") == "tanh" { n.x(0)?.gelu_tanh()? } else { n.x(0)?.gelu()? })
        }
        "Affine" | "ScaledTanh" => computed,
        _ => return None,
    })
}

/// The slope broadcasts to the input.
fn prelu(n: &Node<'_>) -> Result<Vec<Value>> {
    let (x, slope) = (n.x(0)?, n.x(1)?);
    // Before opset 7 a slope of one axis belongs to the channels.
    let slope = match slope.rank() {
        1 if n.opset < 7 && x.rank() > 2 && slope.numel() > 1 => {
            let mut shape = vec![1; x.rank() - 1];
            shape[0] = slope.numel();
            slope.reshape_to("prelu", &shape)?
        }
        _ => slope.clone(),
    };
    one(x.lt(0)?.where_(&x.mul(slope)?, x)?)
}

fn computed(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    x.require_float("activation")?;
    let alpha = |default: f32| n.attr("alpha").map(|_| n.float("alpha", default));
    one(x.computed(|x| {
        by_name(n.op(), x, alpha(0.0), n.attr("beta").map(|_| n.float("beta", 0.0)), &|name, d| n.float(name, d))
    })?)
}

/// An activation by its name in ONNX, `alpha` and `beta` by default as its operator has them.
pub(super) fn by_name(
    op: &str,
    x: &Tensor,
    alpha: Option<f64>,
    beta: Option<f64>,
    other: &dyn Fn(&str, f32) -> f64,
) -> Result<Tensor> {
    let a = |default: f64| alpha.unwrap_or(default);
    let b = |default: f64| beta.unwrap_or(default);
    match op {
        "Relu" => x.relu(),
        "Tanh" => x.tanh(),
        "Sigmoid" => x.sigmoid(),
        "LeakyRelu" => x.leaky_relu(a(0.01)),
        "Affine" => x.mul(a(1.0))?.add(b(0.0)),
        "ScaledTanh" => x.mul(b(1.0))?.tanh()?.mul(a(1.0)),
        "Elu" => x.lt(0)?.where_(&x.exp()?.sub(1)?.mul(a(1.0))?, x),
        // max(0, x) + min(0, alpha * (exp(x / alpha) - 1))
        "Celu" => x.relu()?.add(x.div(a(1.0))?.exp()?.sub(1)?.mul(a(1.0))?.minimum(0)?),
        "Selu" => {
            let (alpha, gamma) = (a(1.673_263_192_176_818_8), other("gamma", 1.050_701));
            x.gt(0)?.where_(x, &x.exp()?.sub(1)?.mul(alpha)?)?.mul(gamma)
        }
        "HardSigmoid" => x.mul(a(0.2))?.add(b(0.5))?.maximum(0)?.minimum(1),
        "HardSwish" => x.mul(x.div(6.0)?.add(0.5)?.maximum(0)?.minimum(1)?),
        // log(1 + e^x), written so that large x does not overflow.
        "Softplus" => softplus(x),
        "Softsign" => x.div(x.abs()?.add(1)?),
        "Mish" => x.mul(softplus(x)?.tanh()?),
        "Swish" => x.mul(x.mul(a(1.0))?.sigmoid()?),
        "Shrink" => {
            let (bias, lambda) = (other("bias", 0.0), other("lambd", 0.5));
            let inner = x.gt(lambda)?.where_(&x.sub(bias)?, &x.full_like(0)?)?;
            x.lt(-lambda)?.where_(&x.add(bias)?, &inner)
        }
        "ThresholdedRelu" => x.gt(a(1.0))?.where_(x, &x.full_like(0)?),
        _ => Err(crate::Error::Inapplicable { op: "activation", reason: format!("{op:?} is not an activation") }),
    }
}

fn softplus(x: &Tensor) -> Result<Tensor> {
    x.relu()?.add(x.abs()?.neg()?.exp()?.add(1)?.log()?)
}
