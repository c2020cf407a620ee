//! Element types and single values of them.

use std::fmt;

/// The element type of a tensor, buffer or value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// Truth value, one byte, 0 or 1.
    Bool,
    /// Unsigned 8-bit integer.
    U8,
    /// Signed 8-bit integer.
    I8,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer.
    I64,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of a binary32.
    BF16,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
}

impl DType {
    /// Every dtype, in declaration order.
    pub const ALL: [DType; 9] =
        [DType::Bool, DType::U8, DType::I8, DType::I32, DType::I64, DType::F16, DType::BF16, DType::F32, DType::F64];

    /// Size of one element in bytes.
    pub const fn size(self) -> usize {
        match self {
            DType::Bool | DType::U8 | DType::I8 => 1,
            DType::F16 | DType::BF16 => 2,
            DType::I32 | DType::F32 => 4,
            DType::I64 | DType::F64 => 8,
        }
    }

    /// Whether this is a floating-point type.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
    }

    /// Whether this is an integer type; `bool` is not.
    pub const fn is_int(self) -> bool {
        matches!(self, DType::U8 | DType::I8 | DType::I32 | DType::I64)
    }

    /// The lower-case name used in the text form, in messages and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::U8 => "u8",
            DType::I8 => "i8",
            DType::I32 => "i32",
            DType::I64 => "i64",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::F32 => "f32",
            DType::F64 => "f64",
        }
    }

    /// The dtype with this [`name`](DType::name), if there is one.
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|d| d.name() == name)
    }

    /// The type in which arithmetic on this dtype is done: half floats compute in `f32` and round after each
    /// operation, every other type computes in itself.
    pub const fn compute(self) -> DType {
        match self {
            DType::F16 | DType::BF16 => DType::F32,
            other => other,
        }
    }

    /// Unit roundoff `u` of a floating type (half the spacing of floats around 1), `None` for the others.
    pub fn unit_roundoff(self) -> Option<f64> {
        match self {
            DType::F16 => Some(2f64.powi(-11)),
            DType::BF16 => Some(2f64.powi(-8)),
            DType::F32 => Some(2f64.powi(-24)),
            DType::F64 => Some(2f64.powi(-53)),
            _ => None,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One value with its dtype. Bits are kept in the dtype's own format, so equality is bit equality: `0.0` and
/// `-0.0` differ, and a NaN equals itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scalar {
    dtype: DType,
    bits: u64,
}

impl Scalar {
    /// A value from its raw little-endian bits; bits beyond the dtype's size are dropped.
    pub fn from_bits(dtype: DType, bits: u64) -> Scalar {
        let mask = match dtype.size() {
            8 => u64::MAX,
            n => (1u64 << (8 * n)) - 1,
        };
        let bits = if dtype == DType::Bool { (bits & 0xff != 0) as u64 } else { bits & mask };
        Scalar { dtype, bits }
    }

    /// The value rounded to nearest-even in a float dtype (half floats: to f32 first), truncated toward zero and saturated in an integer one
    /// (NaN becomes 0), and `x != 0` in `bool`.
    pub fn from_f64(dtype: DType, x: f64) -> Scalar {
        let bits = match dtype {
            DType::Bool => (x != 0.0) as u64,
            DType::U8 => x as u8 as u64,
            DType::I8 => x as i8 as u8 as u64,
            DType::I32 => x as i32 as u32 as u64,
            DType::I64 => x as i64 as u64,
            // By way of f32, as C and PyTorch do: `half`'s own conversions from f64 drop the lower half of the
            // mantissa, and with it the side of a tie that a value lies on.
            DType::F16 => half::f16::from_f32(x as f32).to_bits() as u64,
            DType::BF16 => half::bf16::from_f32(x as f32).to_bits() as u64,
            DType::F32 => (x as f32).to_bits() as u64,
            DType::F64 => x.to_bits(),
        };
        Scalar { dtype, bits }
    }

    /// The value wrapped into an integer dtype, rounded to nearest-even in a float one, `x != 0` in `bool`.
    pub fn from_i64(dtype: DType, x: i64) -> Scalar {
        match dtype {
            DType::Bool => Scalar { dtype, bits: (x != 0) as u64 },
            DType::F32 => Scalar { dtype, bits: (x as f32).to_bits() as u64 },
            DType::F16 | DType::BF16 => Scalar::from_f64(dtype, (x as f32) as f64),
            DType::F64 => Scalar::from_f64(dtype, x as f64),
            d => Scalar::from_bits(d, x as u64),
        }
    }

    /// A truth value.
    pub fn from_bool(x: bool) -> Scalar {
        Scalar { dtype: DType::Bool, bits: x as u64 }
    }

    /// Zero of a dtype (`false` for `bool`).
    pub fn zero(dtype: DType) -> Scalar {
        Scalar { dtype, bits: 0 }
    }

    /// One of a dtype (`true` for `bool`).
    pub fn one(dtype: DType) -> Scalar {
        Scalar::from_i64(dtype, 1)
    }

    /// The value's dtype.
    pub fn dtype(self) -> DType {
        self.dtype
    }

    /// The raw bits, zero-extended.
    pub fn bits(self) -> u64 {
        self.bits
    }

    /// The value as `f64`: exact but for large `i64`.
    pub fn to_f64(self) -> f64 {
        match self.dtype {
            DType::F16 => half::f16::from_bits(self.bits as u16).to_f64(),
            DType::BF16 => half::bf16::from_bits(self.bits as u16).to_f64(),
            DType::F32 => f32::from_bits(self.bits as u32) as f64,
            DType::F64 => f64::from_bits(self.bits),
            _ => self.to_i64() as f64,
        }
    }

    /// The value as `i64`: exact for integers, truncated and saturated for floats.
    pub fn to_i64(self) -> i64 {
        match self.dtype {
            DType::Bool | DType::U8 => self.bits as i64,
            DType::I8 => self.bits as u8 as i8 as i64,
            DType::I32 => self.bits as u32 as i32 as i64,
            DType::I64 => self.bits as i64,
            _ => self.to_f64() as i64,
        }
    }

    /// Whether the value is not zero; NaN counts as true, as in C and PyTorch.
    pub fn to_bool(self) -> bool {
        if self.dtype.is_float() { self.to_f64() != 0.0 } else { self.bits != 0 }
    }

    /// The value converted to another dtype: floats to integers truncate and saturate, integers wrap.
    pub fn cast(self, to: DType) -> Scalar {
        if to == self.dtype {
            self
        } else if to == DType::Bool {
            Scalar::from_bool(self.to_bool())
        } else if self.dtype.is_float() {
            Scalar::from_f64(to, self.to_f64())
        } else if matches!(to, DType::F16 | DType::BF16) {
            // Legalised code goes through f32, so the oracle does too.
            Scalar::from_f64(to, (self.to_i64() as f32) as f64)
        } else {
            Scalar::from_i64(to, self.to_i64())
        }
    }

    /// Whether the value is NaN.
    pub fn is_nan(self) -> bool {
        self.dtype.is_float() && self.to_f64().is_nan()
    }
}

impl fmt::Debug for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Prints as the text form does: `1.5f32`, `-3i64`, `true`, `nan:7fc00000f32` for a NaN with its bits.
impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dtype {
            DType::Bool => write!(f, "{}", self.bits != 0),
            d if d.is_int() => write!(f, "{}{}", self.to_i64(), d),
            d => {
                let x = self.to_f64();
                if x.is_nan() {
                    write!(f, "nan:{:x}{}", self.bits, d)
                } else if x.is_infinite() {
                    write!(f, "{}inf{}", if x < 0.0 { "-" } else { "" }, d)
                } else {
                    write!(f, "{x:?}{d}")
                }
            }
        }
    }
}
