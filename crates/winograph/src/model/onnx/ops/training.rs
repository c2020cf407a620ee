//! Operators of training, which have a domain of their own.

use super::super::node::{Lowering, Node};
use crate::error::Result;
use crate::model::Value;
use crate::tensor::gradient::gradients;
use crate::tensor::{State, Tensor};
use std::sync::Arc;

/// Operators of `ai.onnx.preview.training`.
pub(super) fn find(op: &str) -> Option<Lowering> {
    match op {
        "Gradient" => Some(gradient),
        _ => None,
    }
}

/// Gradients of the value named `y` with respect to those named `xs`, at the values that these have.
fn gradient(n: &Node<'_>) -> Result<Vec<Value>> {
    if n.is_eager() {
        return Err(n.unsupported("gradients in a model whose sizes depend on data"));
    }
    let xs = n.texts("xs").filter(|xs| !xs.is_empty()).ok_or_else(|| n.wrong("attribute xs is missing"))?;
    let names: Vec<String> = xs.iter().cloned().chain(n.texts("zs").unwrap_or_default()).collect();
    let given = n.all()?;
    if given.len() != names.len() {
        return Err(n.wrong(format!("{} inputs for the {} values of xs and zs", given.len(), names.len())));
    }
    let value = |name: &str| -> Result<&Tensor> {
        let found = n.value(name).and_then(Value::tensor);
        found.ok_or_else(|| n.wrong(format!("there is no tensor {name:?} before it")))
    };
    for (name, &input) in names.iter().zip(&given) {
        if !Arc::ptr_eq(&value(name)?.0, &input.0) {
            return Err(n.unsupported(format!("a gradient at another value than that of {name:?}")));
        }
    }
    let known = |t: &Tensor| t.full_value().is_some() || matches!(t.0.state(), State::Ready(_));
    if let Some(at) = given[..xs.len()].iter().position(|t| known(t)) {
        return Err(n.unsupported(format!("a gradient with respect to {:?}, which is constant", xs[at])));
    }
    let y = value(&n.text("y", ""))?;
    let of = &given[..xs.len()];
    if let Some(t) = of.iter().copied().chain([y]).find(|t| !t.dtype().is_float()) {
        return Err(n.wrong(format!("a gradient of or with respect to {}, which has none", t.dtype())));
    }
    Ok(gradients(y, of, &|| n.step())?.into_iter().map(Value::Tensor).collect())
}
