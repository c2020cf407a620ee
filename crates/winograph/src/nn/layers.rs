//! Layers.

use super::{Layer, Parameters};
use crate::error::{Error, Result};
use crate::tensor::{ConvOptions, Tensor};

/// A convolution over one to three axes.
#[derive(Clone, Debug)]
pub struct Conv {
    weight: Tensor,
    bias: Option<Tensor>,
    options: ConvOptions,
}

impl Conv {
    /// Of a weight `[k, c/groups, window..]` and a bias `[k]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>, options: ConvOptions) -> Conv {
        Conv { weight, bias, options }
    }

    /// Of the parameters `weight` and, if it is there, `bias`.
    ///
    /// # Errors
    /// No weight.
    pub fn load(from: &Parameters<'_>, options: ConvOptions) -> Result<Conv> {
        Ok(Conv::new(from.get("weight")?, from.find("bias"), options))
    }
}

impl Layer for Conv {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.conv(&self.weight, self.bias.as_ref(), &self.options)
    }
}

/// `x · weightᵀ + bias` over the last axis.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// Of a weight `[out, in]` and a bias `[out]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Linear {
        Linear { weight, bias }
    }

    /// Of the parameters `weight` and, if it is there, `bias`.
    ///
    /// # Errors
    /// No weight.
    pub fn load(from: &Parameters<'_>) -> Result<Linear> {
        Ok(Linear::new(from.get("weight")?, from.find("bias")))
    }
}

impl Layer for Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.linear(&self.weight, self.bias.as_ref())
    }
}

/// [`Tensor::batch_norm`], as in inference.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    mean: Tensor,
    variance: Tensor,
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    epsilon: f64,
}

impl BatchNorm {
    /// Of values for each channel, of shape `[c]`.
    pub fn new(
        mean: Tensor,
        variance: Tensor,
        weight: Option<Tensor>,
        bias: Option<Tensor>,
        epsilon: f64,
    ) -> BatchNorm {
        BatchNorm { mean, variance, weight, bias, epsilon }
    }

    /// Of the parameters `running_mean` and `running_var` and, if they are there, `weight` and `bias`.
    ///
    /// # Errors
    /// No mean or variance.
    pub fn load(from: &Parameters<'_>, epsilon: f64) -> Result<BatchNorm> {
        let (mean, variance) = (from.get("running_mean")?, from.get("running_var")?);
        Ok(BatchNorm::new(mean, variance, from.find("weight"), from.find("bias"), epsilon))
    }
}

impl Layer for BatchNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.batch_norm(&self.mean, &self.variance, self.weight.as_ref(), self.bias.as_ref(), self.epsilon)
    }
}

/// [`Tensor::layer_norm`] over the axes of its weight.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Option<Tensor>,
    epsilon: f64,
}

impl LayerNorm {
    /// Of a weight and a bias of the shape that is normalised.
    pub fn new(weight: Tensor, bias: Option<Tensor>, epsilon: f64) -> LayerNorm {
        LayerNorm { weight, bias, epsilon }
    }

    /// Of the parameters `weight` and, if it is there, `bias`.
    ///
    /// # Errors
    /// No weight.
    pub fn load(from: &Parameters<'_>, epsilon: f64) -> Result<LayerNorm> {
        Ok(LayerNorm::new(from.get("weight")?, from.find("bias"), epsilon))
    }
}

impl Layer for LayerNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.layer_norm(self.weight.shape(), Some(&self.weight), self.bias.as_ref(), self.epsilon)
    }
}

/// [`Tensor::group_norm`].
#[derive(Clone, Debug)]
pub struct GroupNorm {
    groups: usize,
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    epsilon: f64,
}

impl GroupNorm {
    /// Of so many groups, and values for each channel, of shape `[c]`.
    pub fn new(groups: usize, weight: Option<Tensor>, bias: Option<Tensor>, epsilon: f64) -> GroupNorm {
        GroupNorm { groups, weight, bias, epsilon }
    }

    /// Of the parameters `weight` and `bias`.
    ///
    /// # Errors
    /// One of them is missing, or no groups.
    pub fn load(from: &Parameters<'_>, groups: usize, epsilon: f64) -> Result<GroupNorm> {
        if groups == 0 {
            return Err(Error::argument("GroupNorm", "groups 0", &[], "at least one group"));
        }
        Ok(GroupNorm::new(groups, Some(from.get("weight")?), Some(from.get("bias")?), epsilon))
    }
}

impl Layer for GroupNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.group_norm(self.groups, self.weight.as_ref(), self.bias.as_ref(), self.epsilon)
    }
}

/// A function of each element, or along one axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// [`Tensor::relu`].
    Relu,
    /// [`Tensor::leaky_relu`] with its slope.
    LeakyRelu(f64),
    /// [`Tensor::sigmoid`].
    Sigmoid,
    /// [`Tensor::tanh`].
    Tanh,
    /// [`Tensor::silu`].
    Silu,
    /// [`Tensor::gelu`].
    Gelu,
    /// [`Tensor::gelu_tanh`].
    GeluTanh,
    /// [`Tensor::softmax`] along an axis.
    Softmax(isize),
}

impl Layer for Activation {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match *self {
            Activation::Relu => x.relu(),
            Activation::LeakyRelu(slope) => x.leaky_relu(slope),
            Activation::Sigmoid => x.sigmoid(),
            Activation::Tanh => x.tanh(),
            Activation::Silu => x.silu(),
            Activation::Gelu => x.gelu(),
            Activation::GeluTanh => x.gelu_tanh(),
            Activation::Softmax(axis) => x.softmax(axis),
        }
    }
}
