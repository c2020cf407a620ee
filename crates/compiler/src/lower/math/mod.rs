//! exp, log, sin, cos, tanh, erf and pow as polynomials of simpler operations.
//!
//! Lowering replaces these functions in the IR, so that they vectorise and give the same bits on every device. What is
//! left are sums, products, fused multiply-adds, a few divisions, comparisons, selections and integer operations on the
//! bits of floats: no table, no branch, no conversion of a float that its integer type cannot hold. Special values
//! follow C99's Annex F, rounding is to nearest, results underflow gradually.
//!
//! Errors in units in the last place of the result against a reference of higher precision: f32 against libm's f64,
//! f64 against twofold arithmetic. "Measured" is the most seen once in every 61st bit pattern of f32 and in 10^6 random
//! arguments of f64 and of pow; the tests beside this file hold fewer arguments to the "stated" figure.
//!
//! | | f32 stated | measured | operations | f64 stated | measured | operations |
//! |---|---|---|---|---|---|---|
//! | exp | 1 | 0.90 | 21 | 1 | 0.91 | 26 |
//! | log | 1 | 0.75 | 33 | 1 | 0.74 | 35 |
//! | sin, cos | 1.6 | 1.53 | 120 | 1.5 | 1.44 | 187 |
//! | tanh | 1.5 | 1.34 | 31 | 1.5 | 1.32 | 42 |
//! | erf | 1.25 | 1.08 | 35 | 1.5 | 1.12 | 57 |
//! | pow | 0.6 | 0.50 | 85 | 1.25 | 1.06 | 123 |
//!
//! sin and cos reduce magnitudes beyond 2^45 in integers (`large`). As there is no branch, every argument pays for it:
//! without it they would take 28 and 32 operations. Constant exponents 0 to 4, −1 and 1/2 become products, a quotient or
//! a root. Reinterpretations are not counted as operations.
//!
//! f32 versions of sin, cos and pow compute partly in f64. A target without f64 needs others.
//!
//! Polynomials were fitted by Remez' algorithm in 60 digits for the functions and intervals named beside them; the
//! figure is the largest error of the fit itself. Argument reductions are W. Cody and W. Waite's (*Software Manual for
//! the Elementary Functions*, 1980) with fused multiply-adds; the rearranged logarithm is that of FDLIBM (Sun, 1993).

mod exp;
mod large;
mod log;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
mod trig;

use winograph_ir::indexed::{Graph, Val, ValId};
use winograph_ir::{BinaryOp, DType, Scalar, UnaryOp};

/// The value of a transcendental operation on an f32 or f64 value, built of simpler operations. Any other operation,
/// and any operation on another type, is added as it is: half floats are the business of
/// [`legalize`](super::legalize::legalize).
pub fn expand(g: &mut Graph, op: UnaryOp, x: ValId) -> ValId {
    let Some(mut e) = Emit::new(g, x) else { return g.unary(op, x) };
    match op {
        UnaryOp::Exp => exp::exp(&mut e, x),
        UnaryOp::Log => log::log(&mut e, x),
        UnaryOp::Sin => trig::sin(&mut e, x),
        UnaryOp::Cos => trig::cos(&mut e, x),
        UnaryOp::Tanh => exp::tanh(&mut e, x),
        UnaryOp::Erf => exp::erf(&mut e, x),
        _ => g.unary(op, x),
    }
}

/// `a^b` for f32 or f64 operands of one type, built of simpler operations; of other types it is added as it is.
///
/// A constant exponent of 0, 1, 2, 3, 4, −1 or 1/2 gives products, a quotient or a root with at most one rounding per
/// operation: up to 1 unit in the last place for the cube and 1.5 for the fourth power.
pub fn expand_pow(g: &mut Graph, a: ValId, b: ValId) -> ValId {
    let exponent = g.as_const(b).map(|s| s.to_f64());
    match Emit::new(g, a) {
        Some(mut e) => exponent.and_then(|y| log::small_power(&mut e, a, y)).unwrap_or_else(|| log::pow(&mut e, a, b)),
        None => g.binary(BinaryOp::Pow, a, b),
    }
}

/// Builds operations on one float type and the integer type of its size.
struct Emit<'a> {
    g: &'a mut Graph,
    /// F32 or F64.
    float: DType,
    /// I32 or I64.
    int: DType,
    /// Bits of the mantissa that are stored.
    mantissa: i64,
    /// Exponent field of 1.
    bias: i64,
}

impl Emit<'_> {
    fn new(g: &mut Graph, x: ValId) -> Option<Emit<'_>> {
        match g.dtype(x) {
            DType::F32 => Some(Emit { g, float: DType::F32, int: DType::I32, mantissa: 23, bias: 127 }),
            DType::F64 => Some(Emit { g, float: DType::F64, int: DType::I64, mantissa: 52, bias: 1023 }),
            _ => None,
        }
    }

    /// The same for f64 values.
    fn wide(&mut self) -> Emit<'_> {
        Emit { g: self.g, float: DType::F64, int: DType::I64, mantissa: 52, bias: 1023 }
    }

    fn is_f32(&self) -> bool {
        self.float == DType::F32
    }

    /// One of two numbers, by type.
    fn pick<T>(&self, f32: T, f64: T) -> T {
        if self.is_f32() { f32 } else { f64 }
    }

    fn float(&mut self, x: f64) -> ValId {
        let s = Scalar::from_f64(self.float, x);
        self.g.constant(s)
    }

    fn int(&mut self, x: i64) -> ValId {
        let s = Scalar::from_i64(self.int, x);
        self.g.constant(s)
    }

    fn bin(&mut self, op: BinaryOp, a: ValId, b: ValId) -> ValId {
        self.g.binary(op, a, b)
    }

    fn add(&mut self, a: ValId, b: ValId) -> ValId {
        self.bin(BinaryOp::Add, a, b)
    }

    fn sub(&mut self, a: ValId, b: ValId) -> ValId {
        self.bin(BinaryOp::Sub, a, b)
    }

    fn mul(&mut self, a: ValId, b: ValId) -> ValId {
        self.bin(BinaryOp::Mul, a, b)
    }

    /// `c · x`.
    fn scale(&mut self, c: f64, x: ValId) -> ValId {
        let c = self.float(c);
        self.mul(c, x)
    }

    fn fma(&mut self, a: ValId, b: ValId, c: ValId) -> ValId {
        self.g.add(Val::Fma { a, b, c })
    }

    /// `k · b + c`.
    fn fma_const(&mut self, k: f64, b: ValId, c: ValId) -> ValId {
        let k = self.float(k);
        self.fma(k, b, c)
    }

    /// `c − a · b`.
    fn fnma(&mut self, a: ValId, b: ValId, c: ValId) -> ValId {
        let a = self.g.unary(UnaryOp::Neg, a);
        self.fma(a, b, c)
    }

    /// `a · b − c`.
    fn fms(&mut self, a: ValId, b: ValId, c: ValId) -> ValId {
        let c = self.g.unary(UnaryOp::Neg, c);
        self.fma(a, b, c)
    }

    fn lt(&mut self, a: ValId, b: ValId) -> ValId {
        self.bin(BinaryOp::Lt, a, b)
    }

    /// `x < c`.
    fn below(&mut self, x: ValId, c: f64) -> ValId {
        let c = self.float(c);
        self.lt(x, c)
    }

    fn choose(&mut self, cond: ValId, a: ValId, b: ValId) -> ValId {
        self.g.add(Val::Where { cond, a, b })
    }

    /// `min(x, c)`, where NaN stays NaN.
    fn at_most(&mut self, x: ValId, c: f64) -> ValId {
        let c = self.float(c);
        let over = self.lt(c, x);
        self.choose(over, c, x)
    }

    /// `max(x, c)`, where NaN stays NaN.
    fn at_least(&mut self, x: ValId, c: f64) -> ValId {
        let c = self.float(c);
        let under = self.lt(x, c);
        self.choose(under, c, x)
    }

    fn abs(&mut self, x: ValId) -> ValId {
        self.g.unary(UnaryOp::Abs, x)
    }

    fn cast(&mut self, x: ValId, dtype: DType) -> ValId {
        self.g.add(Val::Cast { x, dtype })
    }

    /// The bits of a float.
    fn bits(&mut self, x: ValId) -> ValId {
        let dtype = self.int;
        self.g.add(Val::Bitcast { x, dtype })
    }

    /// The float of some bits.
    fn unbits(&mut self, x: ValId) -> ValId {
        let dtype = self.float;
        self.g.add(Val::Bitcast { x, dtype })
    }

    fn shl(&mut self, x: ValId, amount: i64) -> ValId {
        let amount = self.int(amount);
        self.bin(BinaryOp::Shl, x, amount)
    }

    fn shr(&mut self, x: ValId, amount: i64) -> ValId {
        let amount = self.int(amount);
        self.bin(BinaryOp::Shr, x, amount)
    }

    fn and(&mut self, x: ValId, mask: i64) -> ValId {
        let mask = self.int(mask);
        self.bin(BinaryOp::And, x, mask)
    }

    /// The sign bit of a float, in place.
    fn sign(&mut self, x: ValId) -> ValId {
        let bits = self.bits(x);
        let mask = self.pick(i32::MIN as i64, i64::MIN);
        self.and(bits, mask)
    }

    /// A float with its sign flipped where a sign bit is set.
    fn flip_sign(&mut self, x: ValId, sign: ValId) -> ValId {
        let bits = self.bits(x);
        let flipped = self.bin(BinaryOp::Xor, bits, sign);
        self.unbits(flipped)
    }

    /// [`poly`](Emit::poly) with one of two lists of coefficients.
    fn poly_by_type(&mut self, x: ValId, f32: &[f64], f64: &[f64]) -> ValId {
        if self.is_f32() { self.poly(x, f32) } else { self.poly(x, f64) }
    }

    /// `Σ c[k]·x^k` by Horner's rule in fused multiply-adds.
    fn poly(&mut self, x: ValId, c: &[f64]) -> ValId {
        let mut coefficients = c.iter().rev();
        let mut acc = self.float(coefficients.next().copied().unwrap_or(0.0));
        for &k in coefficients {
            let k = self.float(k);
            acc = self.fma(acc, x, k);
        }
        acc
    }
}
