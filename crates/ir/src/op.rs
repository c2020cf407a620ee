//! Elementwise and reduction operations and what they compute: the one definition that constant folding, every
//! interpreter and every renderer must agree with.

use crate::dtype::{DType, Scalar};

/// An operation on one value. Results have the operand's dtype unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UnaryOp {
    /// `-x`; wraps on integers.
    Neg,
    /// `|x|`; wraps on integers.
    Abs,
    /// Correctly rounded square root.
    Sqrt,
    /// `e^x`.
    Exp,
    /// Natural logarithm.
    Log,
    /// Sine of radians.
    Sin,
    /// Cosine of radians.
    Cos,
    /// Hyperbolic tangent.
    Tanh,
    /// Gauss error function.
    Erf,
    /// Largest integer not above `x`.
    Floor,
    /// Smallest integer not below `x`.
    Ceil,
    /// `x` without its fraction.
    Trunc,
    /// Nearest integer, ties to even.
    Round,
    /// Logical not of a bool, bitwise not of an integer.
    Not,
}

/// An operation on two values of one dtype. Comparisons give `bool`, every other one the operands' dtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BinaryOp {
    /// Sum; wraps on integers, `or` on bool.
    Add,
    /// Difference; wraps on integers.
    Sub,
    /// Product; wraps on integers, `and` on bool.
    Mul,
    /// Quotient; truncates on integers, where division by zero gives 0.
    Div,
    /// Remainder with the sign of the dividend; 0 for an integer divisor of 0.
    Rem,
    /// Larger value; NaN if either is.
    Max,
    /// Smaller value; NaN if either is.
    Min,
    /// `a^b` on floats.
    Pow,
    /// `a < b`.
    Lt,
    /// `a <= b`.
    Le,
    /// `a == b`.
    Eq,
    /// `a != b`.
    Ne,
    /// Bitwise and; logical on bool.
    And,
    /// Bitwise or; logical on bool.
    Or,
    /// Bitwise exclusive or; logical on bool.
    Xor,
    /// Left shift of an integer; the amount is taken modulo its bits.
    Shl,
    /// Right shift of an integer, arithmetic if signed; the amount is taken modulo its bits.
    Shr,
}

/// The operation of a reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReduceOp {
    /// Sum, from 0.
    Add,
    /// Product, from 1.
    Mul,
    /// Maximum, from the dtype's least value.
    Max,
    /// Minimum, from the dtype's greatest value.
    Min,
}

/// In what order a reduction may combine its terms; a plan may use no more freedom than it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SumOrder {
    /// First to last, ranges nested in the order listed.
    Sequential,
    /// As a balanced binary tree over the flattened ranges.
    Tree,
    /// However it is convenient.
    Any,
}

impl UnaryOp {
    /// Every operation, in declaration order.
    pub const ALL: [UnaryOp; 14] = [
        UnaryOp::Neg,
        UnaryOp::Abs,
        UnaryOp::Sqrt,
        UnaryOp::Exp,
        UnaryOp::Log,
        UnaryOp::Sin,
        UnaryOp::Cos,
        UnaryOp::Tanh,
        UnaryOp::Erf,
        UnaryOp::Floor,
        UnaryOp::Ceil,
        UnaryOp::Trunc,
        UnaryOp::Round,
        UnaryOp::Not,
    ];

    /// Name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            UnaryOp::Neg => "neg",
            UnaryOp::Abs => "abs",
            UnaryOp::Sqrt => "sqrt",
            UnaryOp::Exp => "exp",
            UnaryOp::Log => "log",
            UnaryOp::Sin => "sin",
            UnaryOp::Cos => "cos",
            UnaryOp::Tanh => "tanh",
            UnaryOp::Erf => "erf",
            UnaryOp::Floor => "floor",
            UnaryOp::Ceil => "ceil",
            UnaryOp::Trunc => "trunc",
            UnaryOp::Round => "round",
            UnaryOp::Not => "not",
        }
    }

    /// Whether the operation is defined on this dtype.
    pub fn accepts(self, dtype: DType) -> bool {
        match self {
            UnaryOp::Neg | UnaryOp::Abs => dtype != DType::Bool,
            UnaryOp::Not => !dtype.is_float(),
            UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Trunc | UnaryOp::Round => dtype.is_float(),
            _ => dtype.is_float(),
        }
    }

    /// Whether lowering replaces the operation by a polynomial of simpler ones.
    pub const fn is_transcendental(self) -> bool {
        matches!(self, UnaryOp::Exp | UnaryOp::Log | UnaryOp::Sin | UnaryOp::Cos | UnaryOp::Tanh | UnaryOp::Erf)
    }

    /// The operation on one value. Half floats compute in f32 and round. Transcendental operations give the
    /// correctly rounded value or a neighbour of it; lowered code has its own stated error.
    pub fn apply(self, x: Scalar) -> Scalar {
        let d = x.dtype();
        match d {
            DType::Bool => Scalar::from_bool(if self == UnaryOp::Not { !x.to_bool() } else { x.to_bool() }),
            DType::F64 => Scalar::from_f64(d, self.apply_f64(x.to_f64())),
            DType::F32 | DType::F16 | DType::BF16 => {
                let v = x.to_f64() as f32;
                let r = match self {
                    UnaryOp::Neg => -v,
                    UnaryOp::Abs => v.abs(),
                    UnaryOp::Sqrt => v.sqrt(),
                    _ => self.apply_f64(v as f64) as f32,
                };
                // The bit pattern of a NaN must survive negation and abs, so f32 does not go through f64.
                if d == DType::F32 { Scalar::from_bits(d, r.to_bits() as u64) } else { Scalar::from_f64(d, r as f64) }
            }
            _ => {
                let v = x.to_i64();
                let r = match self {
                    UnaryOp::Neg => v.wrapping_neg(),
                    UnaryOp::Abs => v.wrapping_abs(),
                    UnaryOp::Not => !v,
                    _ => v,
                };
                Scalar::from_i64(d, r)
            }
        }
    }

    fn apply_f64(self, x: f64) -> f64 {
        match self {
            UnaryOp::Neg => -x,
            UnaryOp::Abs => x.abs(),
            UnaryOp::Sqrt => x.sqrt(),
            UnaryOp::Exp => libm::exp(x),
            UnaryOp::Log => libm::log(x),
            UnaryOp::Sin => libm::sin(x),
            UnaryOp::Cos => libm::cos(x),
            UnaryOp::Tanh => libm::tanh(x),
            UnaryOp::Erf => libm::erf(x),
            UnaryOp::Floor => x.floor(),
            UnaryOp::Ceil => x.ceil(),
            UnaryOp::Trunc => x.trunc(),
            UnaryOp::Round => x.round_ties_even(),
            UnaryOp::Not => x,
        }
    }
}

impl BinaryOp {
    /// Every operation, in declaration order.
    pub const ALL: [BinaryOp; 17] = [
        BinaryOp::Add,
        BinaryOp::Sub,
        BinaryOp::Mul,
        BinaryOp::Div,
        BinaryOp::Rem,
        BinaryOp::Max,
        BinaryOp::Min,
        BinaryOp::Pow,
        BinaryOp::Lt,
        BinaryOp::Le,
        BinaryOp::Eq,
        BinaryOp::Ne,
        BinaryOp::And,
        BinaryOp::Or,
        BinaryOp::Xor,
        BinaryOp::Shl,
        BinaryOp::Shr,
    ];

    /// Name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            BinaryOp::Add => "add",
            BinaryOp::Sub => "sub",
            BinaryOp::Mul => "mul",
            BinaryOp::Div => "div",
            BinaryOp::Rem => "rem",
            BinaryOp::Max => "max",
            BinaryOp::Min => "min",
            BinaryOp::Pow => "pow",
            BinaryOp::Lt => "lt",
            BinaryOp::Le => "le",
            BinaryOp::Eq => "eq",
            BinaryOp::Ne => "ne",
            BinaryOp::And => "and",
            BinaryOp::Or => "or",
            BinaryOp::Xor => "xor",
            BinaryOp::Shl => "shl",
            BinaryOp::Shr => "shr",
        }
    }

    /// Whether the result is `bool` whatever the operands are.
    pub const fn is_comparison(self) -> bool {
        matches!(self, BinaryOp::Lt | BinaryOp::Le | BinaryOp::Eq | BinaryOp::Ne)
    }

    /// Whether `op(a, b)` and `op(b, a)` are the same bits. `Max` and `Min` are not: of two zeros or two NaNs the
    /// operand's place decides.
    pub const fn is_commutative(self) -> bool {
        matches!(
            self,
            BinaryOp::Add | BinaryOp::Mul | BinaryOp::Eq | BinaryOp::Ne | BinaryOp::And | BinaryOp::Or | BinaryOp::Xor
        )
    }

    /// Whether the operation is defined on operands of this dtype.
    pub fn accepts(self, dtype: DType) -> bool {
        match self {
            BinaryOp::Sub | BinaryOp::Div | BinaryOp::Rem => dtype != DType::Bool,
            BinaryOp::Pow => dtype.is_float(),
            BinaryOp::And | BinaryOp::Or | BinaryOp::Xor => !dtype.is_float(),
            BinaryOp::Shl | BinaryOp::Shr => dtype.is_int(),
            _ => true,
        }
    }

    /// The result's dtype for operands of `dtype`.
    pub fn result(self, dtype: DType) -> DType {
        if self.is_comparison() { DType::Bool } else { dtype }
    }

    /// The operation on two values of one dtype. Half floats compute in f32 and round.
    pub fn apply(self, a: Scalar, b: Scalar) -> Scalar {
        let d = a.dtype();
        match d {
            DType::F32 => {
                let (x, y) = (f32::from_bits(a.bits() as u32), f32::from_bits(b.bits() as u32));
                match self.apply_f32(x, y) {
                    Ok(r) => Scalar::from_bits(d, r.to_bits() as u64),
                    Err(c) => Scalar::from_bool(c),
                }
            }
            DType::F16 | DType::BF16 => match self.apply_f32(a.to_f64() as f32, b.to_f64() as f32) {
                Ok(r) => Scalar::from_f64(d, r as f64),
                Err(c) => Scalar::from_bool(c),
            },
            DType::F64 => {
                let (x, y) = (a.to_f64(), b.to_f64());
                let r = match self {
                    BinaryOp::Add => x + y,
                    BinaryOp::Sub => x - y,
                    BinaryOp::Mul => x * y,
                    BinaryOp::Div => x / y,
                    BinaryOp::Rem => libm::fmod(x, y),
                    BinaryOp::Max => {
                        if x > y || x.is_nan() {
                            x
                        } else {
                            y
                        }
                    }
                    BinaryOp::Min => {
                        if x < y || x.is_nan() {
                            x
                        } else {
                            y
                        }
                    }
                    BinaryOp::Pow => libm::pow(x, y),
                    _ => return Scalar::from_bool(self.compare(x.partial_cmp(&y))),
                };
                Scalar::from_bits(d, r.to_bits())
            }
            DType::Bool => {
                let (x, y) = (a.to_bool(), b.to_bool());
                Scalar::from_bool(match self {
                    BinaryOp::Add | BinaryOp::Or | BinaryOp::Max => x | y,
                    BinaryOp::Mul | BinaryOp::And | BinaryOp::Min => x & y,
                    BinaryOp::Xor => x ^ y,
                    _ => self.compare(Some(x.cmp(&y))),
                })
            }
            _ => {
                let (x, y) = (a.to_i64(), b.to_i64());
                let bits = 8 * d.size() as i64;
                let r = match self {
                    BinaryOp::Add => x.wrapping_add(y),
                    BinaryOp::Sub => x.wrapping_sub(y),
                    BinaryOp::Mul => x.wrapping_mul(y),
                    BinaryOp::Div => {
                        if y == 0 {
                            0
                        } else {
                            x.wrapping_div(y)
                        }
                    }
                    BinaryOp::Rem => {
                        if y == 0 {
                            0
                        } else {
                            x.wrapping_rem(y)
                        }
                    }
                    BinaryOp::Max => x.max(y),
                    BinaryOp::Min => x.min(y),
                    BinaryOp::And => x & y,
                    BinaryOp::Or => x | y,
                    BinaryOp::Xor => x ^ y,
                    BinaryOp::Shl => x.wrapping_shl((y & (bits - 1)) as u32),
                    BinaryOp::Shr => x.wrapping_shr((y & (bits - 1)) as u32),
                    BinaryOp::Pow => x,
                    _ => return Scalar::from_bool(self.compare(Some(x.cmp(&y)))),
                };
                Scalar::from_i64(d, r)
            }
        }
    }

    fn apply_f32(self, x: f32, y: f32) -> Result<f32, bool> {
        Ok(match self {
            BinaryOp::Add => x + y,
            BinaryOp::Sub => x - y,
            BinaryOp::Mul => x * y,
            BinaryOp::Div => x / y,
            BinaryOp::Rem => libm::fmodf(x, y),
            BinaryOp::Max => {
                if x > y || x.is_nan() {
                    x
                } else {
                    y
                }
            }
            BinaryOp::Min => {
                if x < y || x.is_nan() {
                    x
                } else {
                    y
                }
            }
            BinaryOp::Pow => libm::pow(x as f64, y as f64) as f32,
            _ => return Err(self.compare(x.partial_cmp(&y))),
        })
    }

    fn compare(self, ord: Option<std::cmp::Ordering>) -> bool {
        use std::cmp::Ordering::*;
        match self {
            BinaryOp::Lt => ord == Some(Less),
            BinaryOp::Le => matches!(ord, Some(Less | Equal)),
            BinaryOp::Eq => ord == Some(Equal),
            _ => ord != Some(Equal),
        }
    }
}

/// `a * b + c` rounded once, on floats of one dtype (half floats: an f32 fused multiply-add, then rounded);
/// wrapping on integers.
pub fn apply_fma(a: Scalar, b: Scalar, c: Scalar) -> Scalar {
    let d = a.dtype();
    match d {
        DType::F32 => {
            let [x, y, z] = [a, b, c].map(|s| f32::from_bits(s.bits() as u32));
            Scalar::from_bits(d, x.mul_add(y, z).to_bits() as u64)
        }
        DType::F64 => {
            let [x, y, z] = [a, b, c].map(|s| f64::from_bits(s.bits()));
            Scalar::from_bits(d, x.mul_add(y, z).to_bits())
        }
        DType::F16 | DType::BF16 => {
            let [x, y, z] = [a, b, c].map(|s| s.to_f64() as f32);
            Scalar::from_f64(d, x.mul_add(y, z) as f64)
        }
        _ => BinaryOp::Add.apply(BinaryOp::Mul.apply(a, b), c),
    }
}

impl ReduceOp {
    /// Every operation, in declaration order.
    pub const ALL: [ReduceOp; 4] = [ReduceOp::Add, ReduceOp::Mul, ReduceOp::Max, ReduceOp::Min];

    /// Name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            ReduceOp::Add => "add",
            ReduceOp::Mul => "mul",
            ReduceOp::Max => "max",
            ReduceOp::Min => "min",
        }
    }

    /// The elementwise operation that combines two terms.
    pub const fn combine(self) -> BinaryOp {
        match self {
            ReduceOp::Add => BinaryOp::Add,
            ReduceOp::Mul => BinaryOp::Mul,
            ReduceOp::Max => BinaryOp::Max,
            ReduceOp::Min => BinaryOp::Min,
        }
    }

    /// What a reduction over nothing gives: the value from which accumulation starts.
    pub fn identity(self, dtype: DType) -> Scalar {
        match self {
            ReduceOp::Add => Scalar::zero(dtype),
            ReduceOp::Mul => Scalar::one(dtype),
            ReduceOp::Max if dtype.is_float() => Scalar::from_f64(dtype, f64::NEG_INFINITY),
            ReduceOp::Min if dtype.is_float() => Scalar::from_f64(dtype, f64::INFINITY),
            ReduceOp::Max | ReduceOp::Min => {
                let (lo, hi) = match dtype {
                    DType::Bool => (0, 1),
                    DType::U8 => (0, 255),
                    DType::I8 => (-128, 127),
                    DType::I32 => (i32::MIN as i64, i32::MAX as i64),
                    _ => (i64::MIN, i64::MAX),
                };
                Scalar::from_i64(dtype, if self == ReduceOp::Max { lo } else { hi })
            }
        }
    }
}

impl SumOrder {
    /// Every order, in declaration order.
    pub const ALL: [SumOrder; 3] = [SumOrder::Sequential, SumOrder::Tree, SumOrder::Any];

    /// Name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            SumOrder::Sequential => "sequential",
            SumOrder::Tree => "tree",
            SumOrder::Any => "any",
        }
    }
}
