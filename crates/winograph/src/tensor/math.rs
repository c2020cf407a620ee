//! Elementwise functions of one tensor, and activations.

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use winograph_ir::{BinaryOp, DType, UnaryOp};

macro_rules! float_function {
    ($(#[$doc:meta])* $name:ident, $op:ident) => {
        $(#[$doc])*
        /// Integers and `bool` become `f32` first, as in PyTorch.
        ///
        /// # Errors
        /// None beyond those of making a tensor.
        pub fn $name(&self) -> Result<Tensor> {
            self.to_float()?.unary(stringify!($name), UnaryOp::$op)
        }
    };
}

macro_rules! rounding {
    ($(#[$doc:meta])* $name:ident, $op:ident) => {
        $(#[$doc])*
        /// Integers stay as they are.
        ///
        /// # Errors
        /// `bool`.
        pub fn $name(&self) -> Result<Tensor> {
            if self.dtype().is_int() { Ok(self.clone()) } else { self.unary(stringify!($name), UnaryOp::$op) }
        }
    };
}

impl Tensor {
    /// The tensor in a floating dtype: `f32` for integers and `bool`.
    fn to_float(&self) -> Result<Tensor> {
        if self.dtype().is_float() { Ok(self.clone()) } else { self.cast(DType::F32) }
    }

    /// `f` computed in the dtype's [compute type](DType::compute) and rounded once.
    pub(crate) fn computed(&self, f: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        f(&self.cast(self.dtype().compute())?)?.cast(self.dtype())
    }

    /// `-self`; integers wrap.
    ///
    /// # Errors
    /// `bool`.
    pub fn neg(&self) -> Result<Tensor> {
        self.unary("neg", UnaryOp::Neg)
    }

    /// `|self|`; integers wrap.
    ///
    /// # Errors
    /// `bool`.
    pub fn abs(&self) -> Result<Tensor> {
        self.unary("abs", UnaryOp::Abs)
    }

    float_function! {
        /// `e^x`.
        exp, Exp
    }
    float_function! {
        /// Natural logarithm.
        log, Log
    }
    float_function! {
        /// Square root.
        sqrt, Sqrt
    }
    float_function! {
        /// Sine of radians of any magnitude; NaN of infinities.
        sin, Sin
    }
    float_function! {
        /// Cosine of radians of any magnitude; NaN of infinities.
        cos, Cos
    }
    float_function! {
        /// Hyperbolic tangent.
        tanh, Tanh
    }
    float_function! {
        /// Gauss error function.
        erf, Erf
    }
    rounding! {
        /// Largest integer not above.
        floor, Floor
    }
    rounding! {
        /// Smallest integer not below.
        ceil, Ceil
    }
    rounding! {
        /// Without the fraction.
        trunc, Trunc
    }
    rounding! {
        /// Nearest integer, ties to even.
        round, Round
    }

    /// `1 / sqrt(self)`. Integers and `bool` become `f32` first.
    ///
    /// # Errors
    /// None beyond those of making a tensor.
    pub fn rsqrt(&self) -> Result<Tensor> {
        self.to_float()?.computed(|x| x.sqrt()?.reciprocal())
    }

    /// `1 / self`. Integers and `bool` become `f32` first.
    ///
    /// # Errors
    /// None beyond those of making a tensor.
    pub fn reciprocal(&self) -> Result<Tensor> {
        let x = self.to_float()?;
        x.full_like(1)?.binary("reciprocal", BinaryOp::Div, &x)
    }

    /// `self * self`; of `bool` it is an `i64`, as in PyTorch.
    ///
    /// # Errors
    /// None beyond those of making a tensor.
    pub fn square(&self) -> Result<Tensor> {
        match self.dtype() {
            DType::Bool => self.cast(DType::I64),
            _ => self.binary("square", BinaryOp::Mul, self),
        }
    }

    /// -1, 0 or 1 as the element is below, at or above zero, in its dtype; NaN gives 0. `bool` stays as it is.
    ///
    /// # Errors
    /// None beyond those of making a tensor.
    pub fn sign(&self) -> Result<Tensor> {
        if self.dtype() == DType::Bool {
            return Ok(self.clone());
        }
        self.gt(0)?.cast(self.dtype())?.sub(self.lt(0)?.cast(self.dtype())?)
    }

    /// Whether each element is NaN, as `bool`.
    ///
    /// # Errors
    /// None beyond those of making a tensor.
    pub fn isnan(&self) -> Result<Tensor> {
        self.binary("isnan", BinaryOp::Ne, self)
    }

    /// `max(self, 0)`; NaN stays.
    ///
    /// # Errors
    /// `bool`.
    pub fn relu(&self) -> Result<Tensor> {
        if self.dtype() == DType::Bool {
            return Err(Error::dtype("relu", &[DType::Bool], "a number's dtype"));
        }
        self.binary("relu", BinaryOp::Max, 0)
    }

    /// `self` where it is positive and `self * slope` elsewhere.
    ///
    /// # Errors
    /// Dtypes that are not floating.
    pub fn leaky_relu(&self, slope: f64) -> Result<Tensor> {
        self.require_float("leaky_relu")?;
        // The slope is not rounded to a half float.
        self.computed(|x| x.gt(0)?.where_(x, &x.mul(slope)?))
    }

    /// Like [`leaky_relu`](Tensor::leaky_relu) with a slope per channel: `self` is `[n, c, ..]` (or has no axis or
    /// one, with one slope), `weight` is `[c]` or `[1]`.
    ///
    /// # Errors
    /// Dtypes that differ or are not floating, or another number of slopes.
    pub fn prelu(&self, weight: &Tensor) -> Result<Tensor> {
        let name = "prelu";
        self.require_float(name)?;
        self.same_dtype(name, weight)?;
        let channels = if self.rank() >= 2 { self.shape()[1] } else { 1 };
        let count = weight.numel();
        if weight.rank() > 1 || (count != 1 && count != channels) {
            let expected = format!("a weight of shape [{channels}] or [1], one slope per channel or one for all");
            return Err(Error::shape(name, &[self.shape(), weight.shape()], expected));
        }
        let mut shape = vec![1; self.rank()];
        if count != 1 {
            shape[1] = count;
        }
        let slope = weight.reshape_to(name, &shape)?;
        self.gt(0)?.where_(self, &self.mul(slope)?)
    }

    /// `1 / (1 + e^-x)`. Integers and `bool` become `f32` first.
    ///
    /// # Errors
    /// None beyond those of making a tensor.
    pub fn sigmoid(&self) -> Result<Tensor> {
        self.to_float()?.computed(|x| x.neg()?.exp()?.add(1)?.reciprocal())
    }

    /// `x * sigmoid(x)`.
    ///
    /// # Errors
    /// Dtypes that are not floating.
    pub fn silu(&self) -> Result<Tensor> {
        self.require_float("silu")?;
        self.computed(|x| x.binary("silu", BinaryOp::Div, x.neg()?.exp()?.add(1)?))
    }

    /// `x * Φ(x)`, Φ the normal distribution's function, through [`erf`](Tensor::erf).
    ///
    /// # Errors
    /// Dtypes that are not floating.
    pub fn gelu(&self) -> Result<Tensor> {
        self.require_float("gelu")?;
        self.computed(|x| {
            let phi = x.mul(std::f64::consts::FRAC_1_SQRT_2)?.erf()?.add(1)?;
            x.mul(0.5)?.mul(phi)
        })
    }

    /// [`gelu`](Tensor::gelu) approximated by `x/2 * (1 + tanh(sqrt(2/π) * (x + 0.044715 x³)))`, PyTorch's
    /// `approximate="tanh"`.
    ///
    /// # Errors
    /// Dtypes that are not floating.
    pub fn gelu_tanh(&self) -> Result<Tensor> {
        self.require_float("gelu_tanh")?;
        self.computed(|x| {
            let cubic = x.square()?.mul(x)?.mul(0.044715)?;
            let inner = x.add(cubic)?.mul(std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2)?;
            x.mul(0.5)?.mul(inner.tanh()?.add(1)?)
        })
    }
}
