//! What flows between the nodes of a model.

use crate::tensor::Tensor;

/// A value of a model: most are tensors.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// Nothing: an optional value that is missing.
    #[default]
    None,
    /// A tensor.
    Tensor(Tensor),
    /// A list of tensors.
    Sequence(Vec<Tensor>),
}

impl Value {
    /// The tensor, if it is one.
    pub fn tensor(&self) -> Option<&Tensor> {
        match self {
            Value::Tensor(t) => Some(t),
            _ => None,
        }
    }

    /// Its tensors: one, or those of a sequence.
    pub fn tensors(&self) -> &[Tensor] {
        match self {
            Value::None => &[],
            Value::Tensor(t) => std::slice::from_ref(t),
            Value::Sequence(list) => list,
        }
    }
}

impl From<Tensor> for Value {
    fn from(t: Tensor) -> Value {
        Value::Tensor(t)
    }
}
