//! Elementwise arithmetic, comparisons, logic and casts.

use crate::error::{Error, Result};
use crate::tensor::node::Op;
use crate::tensor::shape::broadcast;
use crate::tensor::{Number, Operand, Tensor};
use winograph_ir::{BinaryOp, DType, Scalar, UnaryOp};

/// Tensors broadcast to their common shape.
pub(crate) fn broadcast_all<const N: usize>(op: &'static str, x: [&Tensor; N]) -> Result<[Tensor; N]> {
    let shape = broadcast(op, &x.map(|t| t.shape()))?;
    let mut out = x.map(Tensor::clone);
    for t in &mut out {
        *t = t.expand_as(op, &shape)?;
    }
    Ok(out)
}

impl Tensor {
    pub(crate) fn binary(&self, name: &'static str, op: BinaryOp, rhs: impl Operand) -> Result<Tensor> {
        let rhs = rhs.operand(name, self)?;
        self.same_dtype(name, &rhs)?;
        if !op.accepts(self.dtype()) {
            return Err(Error::dtype(name, &[self.dtype(), rhs.dtype()], format!("a dtype with `{}`", op.name())));
        }
        let [a, b] = broadcast_all(name, [self, &rhs])?;
        let shape = a.shape().to_vec();
        Tensor::make(name, Op::Binary { op, a, b }, op.result(self.dtype()), shape)
    }

    pub(crate) fn unary(&self, name: &'static str, op: UnaryOp) -> Result<Tensor> {
        if !op.accepts(self.dtype()) {
            return Err(Error::dtype(name, &[self.dtype()], format!("a dtype with `{}`", op.name())));
        }
        Tensor::make(name, Op::Unary { op, x: self.clone() }, self.dtype(), self.shape().to_vec())
    }

    /// `self + rhs`, broadcast. Integers wrap; on `bool` it is `or`.
    ///
    /// # Errors
    /// Different dtypes, or shapes that do not broadcast.
    pub fn add(&self, rhs: impl Operand) -> Result<Tensor> {
        self.binary("add", BinaryOp::Add, rhs)
    }

    /// `self - rhs`, broadcast. Integers wrap.
    ///
    /// # Errors
    /// Different dtypes, `bool`, or shapes that do not broadcast.
    pub fn sub(&self, rhs: impl Operand) -> Result<Tensor> {
        self.binary("sub", BinaryOp::Sub, rhs)
    }

    /// `self * rhs`, broadcast. Integers wrap; on `bool` it is `and`.
    ///
    /// # Errors
    /// Different dtypes, or shapes that do not broadcast.
    pub fn mul(&self, rhs: impl Operand) -> Result<Tensor> {
        self.binary("mul", BinaryOp::Mul, rhs)
    }

    /// The quotient, broadcast. As in PyTorch it is a true division: of integers and `bool` it is an `f32`. See
    /// [`div_trunc`](Tensor::div_trunc) and [`div_floor`](Tensor::div_floor).
    ///
    /// # Errors
    /// Different dtypes, or shapes that do not broadcast.
    pub fn div(&self, rhs: impl Operand) -> Result<Tensor> {
        if self.dtype().is_float() {
            return self.binary("div", BinaryOp::Div, rhs);
        }
        let rhs = rhs.operand("div", self)?;
        self.same_dtype("div", &rhs)?;
        self.cast(DType::F32)?.binary("div", BinaryOp::Div, rhs.cast(DType::F32)?)
    }

    /// The quotient rounded toward zero, broadcast, in the operands' dtype (PyTorch's `rounding_mode="trunc"`). An
    /// integer divided by 0 is 0.
    ///
    /// # Errors
    /// Different dtypes, `bool`, or shapes that do not broadcast.
    pub fn div_trunc(&self, rhs: impl Operand) -> Result<Tensor> {
        let q = self.binary("div_trunc", BinaryOp::Div, rhs)?;
        if q.dtype().is_float() { q.unary("div_trunc", UnaryOp::Trunc) } else { Ok(q) }
    }

    /// The quotient rounded down, broadcast, in the operands' dtype (PyTorch's `rounding_mode="floor"`). An integer
    /// divided by 0 is 0. Of floats it is Python's `//`, which goes with [`remainder`](Tensor::remainder): the exact
    /// quotient is rounded down, not the rounded one.
    ///
    /// # Errors
    /// Different dtypes, `bool`, or shapes that do not broadcast.
    pub fn div_floor(&self, rhs: impl Operand) -> Result<Tensor> {
        let name = "div_floor";
        let rhs = rhs.operand(name, self)?;
        let q = self.binary(name, BinaryOp::Div, &rhs)?;
        if q.dtype().is_float() {
            let compute = self.dtype().compute();
            return self.cast(compute)?.float_div_floor(name, &rhs.cast(compute)?)?.cast(self.dtype());
        }
        // Truncation rounded up where the remainder is not zero and has not the divisor's sign.
        let r = self.binary(name, BinaryOp::Rem, &rhs)?;
        let up = r.ne(0)?.logical_and(&r.lt(0)?.logical_xor(&rhs.lt(0)?)?)?;
        q.sub(up.cast(q.dtype())?)
    }

    /// `(self - fmod) / rhs` is a whole number but for rounding; it is one too many where the remainder has not the
    /// divisor's sign. As CPython's `float_divmod`, but for a divisor of 0, which gives the quotient.
    fn float_div_floor(&self, name: &'static str, rhs: &Tensor) -> Result<Tensor> {
        let quotient = self.binary(name, BinaryOp::Div, rhs)?;
        let r = self.binary(name, BinaryOp::Rem, rhs)?;
        let above = r.ne(0)?.logical_and(&r.lt(0)?.logical_xor(&rhs.lt(0)?)?)?;
        let whole = self.sub(&r)?.binary(name, BinaryOp::Div, rhs)?;
        let whole = above.where_(&whole.sub(1)?, &whole)?;
        let down = whole.unary(name, UnaryOp::Floor)?;
        let down = whole.sub(&down)?.gt(0.5)?.where_(&down.add(1)?, &down)?;
        // A zero has the quotient's sign.
        let nearest = whole.eq(0)?.where_(&quotient.mul(0)?, &down)?;
        rhs.eq(0)?.where_(&quotient, &nearest)
    }

    /// The remainder with the sign of the dividend, broadcast. An integer divisor of 0 gives 0.
    ///
    /// # Errors
    /// Different dtypes, `bool`, or shapes that do not broadcast.
    pub fn fmod(&self, rhs: impl Operand) -> Result<Tensor> {
        self.binary("fmod", BinaryOp::Rem, rhs)
    }

    /// The remainder with the sign of the divisor, as Python's `%`, broadcast. An integer divisor of 0 gives 0.
    ///
    /// # Errors
    /// Different dtypes, `bool`, or shapes that do not broadcast.
    pub fn remainder(&self, rhs: impl Operand) -> Result<Tensor> {
        let name = "remainder";
        let rhs = rhs.operand(name, self)?;
        let r = self.binary(name, BinaryOp::Rem, &rhs)?;
        let other_sign = r.ne(0)?.logical_and(&r.lt(0)?.logical_xor(&rhs.lt(0)?)?)?;
        other_sign.where_(&r.add(&rhs)?, &r)
    }

    /// `self` to the power `rhs`, broadcast. As in PyTorch the constant exponents ±1/2, ±1, ±2 and 3 are computed by
    /// roots, products and quotients. Integers wrap; to a negative power from a tensor of exponents 1 and -1 give
    /// themselves or 1, and all others, 0 too, give 0.
    ///
    /// # Errors
    /// Different dtypes, `bool`, shapes that do not broadcast, integers to a constant negative power.
    pub fn pow(&self, rhs: impl Operand) -> Result<Tensor> {
        let name = "pow";
        let rhs = rhs.operand(name, self)?;
        self.same_dtype(name, &rhs)?;
        let constant = if rhs.rank() == 0 { rhs.full_value() } else { None };
        if self.dtype().is_int() {
            return match constant.map(Scalar::to_i64) {
                Some(n) if n >= 0 => self.integer_power(n),
                Some(_) => Err(Error::dtype(
                    name,
                    &[self.dtype(), rhs.dtype()],
                    "floats, or integers with a constant exponent of at least 0",
                )
                .hint("cast both to a floating dtype")),
                None => self.integer_powers(name, &rhs),
            };
        }
        match constant.filter(|_| self.dtype().is_float()).map(Scalar::to_f64) {
            Some(0.5) => self.sqrt(),
            Some(-0.5) => self.rsqrt(),
            Some(1.0) => Ok(self.clone()),
            Some(-1.0) => self.reciprocal(),
            Some(2.0) => self.square(),
            Some(-2.0) => self.square()?.reciprocal(),
            Some(3.0) => self.square()?.mul(self),
            _ => self.binary(name, BinaryOp::Pow, rhs),
        }
    }

    fn integer_power(&self, mut n: i64) -> Result<Tensor> {
        let mut result = self.full_like(1)?;
        let mut base = self.clone();
        while n > 0 {
            if n & 1 == 1 {
                result = result.mul(&base)?;
            }
            n >>= 1;
            if n > 0 {
                base = base.mul(&base)?;
            }
        }
        Ok(result)
    }

    /// Each integer to its own power: squares multiplied where the exponent has a bit.
    fn integer_powers(&self, name: &'static str, exponent: &Tensor) -> Result<Tensor> {
        let signed = self.dtype() != DType::U8;
        let bits = 8 * self.dtype().size() - usize::from(signed);
        let mut result = self.full_like(1)?;
        let mut base = self.clone();
        for bit in 0..bits {
            let set = exponent.bitwise_and(1i64 << bit)?.ne(0)?;
            result = set.where_(&result.binary(name, BinaryOp::Mul, &base)?, &result)?;
            if bit + 1 < bits {
                base = base.mul(&base)?;
            }
        }
        if !signed {
            return Ok(result);
        }
        // 1 to any power is 1, and -1 is 1 or -1; the reciprocal of any other integer rounds to 0.
        let odd = exponent.bitwise_and(1)?.ne(0)?;
        let unit = self.eq(1)?.logical_or(&self.eq(-1)?)?;
        let (zero, one) = (self.full_like(0)?, self.full_like(1)?);
        let below = unit.where_(&odd.where_(self, &one)?, &zero)?;
        exponent.lt(0)?.where_(&below, &result)
    }

    /// The larger value of each pair, broadcast; NaN if either is.
    ///
    /// # Errors
    /// Different dtypes, or shapes that do not broadcast.
    pub fn maximum(&self, rhs: impl Operand) -> Result<Tensor> {
        self.binary("maximum", BinaryOp::Max, rhs)
    }

    /// The smaller value of each pair, broadcast; NaN if either is.
    ///
    /// # Errors
    /// Different dtypes, or shapes that do not broadcast.
    pub fn minimum(&self, rhs: impl Operand) -> Result<Tensor> {
        self.binary("minimum", BinaryOp::Min, rhs)
    }

    /// `self < rhs`, broadcast, as `bool`.
    ///
    /// # Errors
    /// Different dtypes, or shapes that do not broadcast.
    pub fn lt(&self, rhs: impl Operand) -> Result<Tensor> {
        self.binary("lt", BinaryOp::Lt, rhs)
    }

    /// `self <= rhs`, broadcast, as `bool`.
    ///
    /// # Errors
    /// Different dtypes, or shapes that do not broadcast.
    pub fn le(&self, rhs: impl Operand) -> Result<Tensor> {
        self.binary("le", BinaryOp::Le, rhs)
    }

    /// `self > rhs`, broadcast, as `bool`.
    ///
    /// # Errors
    /// Different dtypes, or shapes that do not broadcast.
    pub fn gt(&self, rhs: impl Operand) -> Result<Tensor> {
        rhs.operand("gt", self)?.binary("gt", BinaryOp::Lt, self)
    }

    /// `self >= rhs`, broadcast, as `bool`.
    ///
    /// # Errors
    /// Different dtypes, or shapes that do not broadcast.
    pub fn ge(&self, rhs: impl Operand) -> Result<Tensor> {
        rhs.operand("ge", self)?.binary("ge", BinaryOp::Le, self)
    }

    /// `self == rhs`, broadcast, as `bool`. NaN equals nothing.
    ///
    /// # Errors
    /// Different dtypes, or shapes that do not broadcast.
    pub fn eq(&self, rhs: impl Operand) -> Result<Tensor> {
        self.binary("eq", BinaryOp::Eq, rhs)
    }

    /// `self != rhs`, broadcast, as `bool`.
    ///
    /// # Errors
    /// Different dtypes, or shapes that do not broadcast.
    pub fn ne(&self, rhs: impl Operand) -> Result<Tensor> {
        self.binary("ne", BinaryOp::Ne, rhs)
    }

    /// Whether each element is not zero; NaN is not.
    fn truth(&self) -> Result<Tensor> {
        self.cast(DType::Bool)
    }

    /// Whether both are not zero, broadcast, as `bool`; dtypes may differ.
    ///
    /// # Errors
    /// Shapes that do not broadcast.
    pub fn logical_and(&self, rhs: &Tensor) -> Result<Tensor> {
        self.truth()?.binary("logical_and", BinaryOp::And, rhs.truth()?)
    }

    /// Whether either is not zero, broadcast, as `bool`; dtypes may differ.
    ///
    /// # Errors
    /// Shapes that do not broadcast.
    pub fn logical_or(&self, rhs: &Tensor) -> Result<Tensor> {
        self.truth()?.binary("logical_or", BinaryOp::Or, rhs.truth()?)
    }

    /// Whether exactly one is not zero, broadcast, as `bool`; dtypes may differ.
    ///
    /// # Errors
    /// Shapes that do not broadcast.
    pub fn logical_xor(&self, rhs: &Tensor) -> Result<Tensor> {
        self.truth()?.binary("logical_xor", BinaryOp::Xor, rhs.truth()?)
    }

    /// Whether each element is zero, as `bool`.
    ///
    /// # Errors
    /// None beyond those of making a tensor.
    pub fn logical_not(&self) -> Result<Tensor> {
        self.truth()?.unary("logical_not", UnaryOp::Not)
    }

    /// Bitwise and of integers, logical of `bool`, broadcast.
    ///
    /// # Errors
    /// Different or floating dtypes, or shapes that do not broadcast.
    pub fn bitwise_and(&self, rhs: impl Operand) -> Result<Tensor> {
        self.binary("bitwise_and", BinaryOp::And, rhs)
    }

    /// Bitwise or of integers, logical of `bool`, broadcast.
    ///
    /// # Errors
    /// Different or floating dtypes, or shapes that do not broadcast.
    pub fn bitwise_or(&self, rhs: impl Operand) -> Result<Tensor> {
        self.binary("bitwise_or", BinaryOp::Or, rhs)
    }

    /// Bitwise exclusive or of integers, logical of `bool`, broadcast.
    ///
    /// # Errors
    /// Different or floating dtypes, or shapes that do not broadcast.
    pub fn bitwise_xor(&self, rhs: impl Operand) -> Result<Tensor> {
        self.binary("bitwise_xor", BinaryOp::Xor, rhs)
    }

    /// Bitwise not of integers, logical of `bool`.
    ///
    /// # Errors
    /// Floating dtypes.
    pub fn bitwise_not(&self) -> Result<Tensor> {
        self.unary("bitwise_not", UnaryOp::Not)
    }

    /// `a` where `self` holds and `b` elsewhere, all broadcast: PyTorch's `torch.where(self, a, b)`.
    ///
    /// # Errors
    /// A condition that is not `bool`, different dtypes of `a` and `b`, or shapes that do not broadcast.
    pub fn where_(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let name = "where";
        if self.dtype() != DType::Bool {
            return Err(Error::dtype(name, &[self.dtype()], "a condition of dtype bool").hint("compare it with 0"));
        }
        a.same_dtype(name, b)?;
        let [cond, a, b] = broadcast_all(name, [self, a, b])?;
        let (dtype, shape) = (a.dtype(), a.shape().to_vec());
        Tensor::make(name, Op::Where { cond, a, b }, dtype, shape)
    }

    /// `self` with `value` where `mask` holds, broadcast.
    ///
    /// # Errors
    /// A mask that is not `bool`, a value that the dtype cannot hold, or shapes that do not broadcast.
    pub fn masked_fill(&self, mask: &Tensor, value: impl Into<Number>) -> Result<Tensor> {
        let value = Tensor::constant(value.into().in_dtype("masked_fill", self.dtype())?);
        mask.where_(&value, self)
    }

    /// `self` limited from below and above; where `min > max` everything is `max`. NaN stays.
    ///
    /// # Errors
    /// Neither bound given, or bounds that the dtype cannot hold.
    pub fn clamp(&self, min: Option<f64>, max: Option<f64>) -> Result<Tensor> {
        let name = "clamp";
        if min.is_none() && max.is_none() {
            return Err(Error::argument(name, "neither bound", &[self.shape()], "at least one of min and max"));
        }
        // Bounds of integers may be written as floats when they are whole.
        let bound = |v: f64| -> Result<Tensor> {
            let n = if self.dtype().is_float() || v != v.trunc() || v.abs() >= 2f64.powi(63) {
                Number::Float(v)
            } else {
                Number::Int(v as i64)
            };
            Ok(Tensor::constant(n.in_dtype(name, self.dtype())?))
        };
        let mut out = self.clone();
        if let Some(v) = min {
            out = out.binary(name, BinaryOp::Max, bound(v)?)?;
        }
        if let Some(v) = max {
            out = out.binary(name, BinaryOp::Min, bound(v)?)?;
        }
        Ok(out)
    }

    /// The same values in another dtype: floats to integers truncate and saturate (NaN becomes 0), integers wrap,
    /// anything but zero is `true`.
    ///
    /// # Errors
    /// A result of more elements than can be counted.
    pub fn cast(&self, dtype: DType) -> Result<Tensor> {
        if dtype == self.dtype() {
            return Ok(self.clone());
        }
        if let Some(value) = self.full_value() {
            return Tensor::full_scalar("cast", value.cast(dtype), self.shape());
        }
        Tensor::make("cast", Op::Cast { x: self.clone(), dtype }, dtype, self.shape().to_vec())
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident) => {
        /// The operation of the same name, with its errors.
        impl std::ops::$trait<&Tensor> for &Tensor {
            type Output = Result<Tensor>;

            fn $method(self, rhs: &Tensor) -> Result<Tensor> {
                Tensor::$method(self, rhs)
            }
        }
    };
}

operator!(Add, add);
operator!(Sub, sub);
operator!(Mul, mul);
operator!(Div, div);

/// [`Tensor::neg`] with its errors.
impl std::ops::Neg for &Tensor {
    type Output = Result<Tensor>;

    fn neg(self) -> Result<Tensor> {
        Tensor::neg(self)
    }
}
