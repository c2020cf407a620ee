//! Rust types that are elements of tensors, and numbers that may stand where a tensor does.

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use winograph_ir::{DType, Scalar};

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that can be an element of a tensor: `f32`, `f64`, [`half::f16`], [`half::bf16`], `i8`, `i32`, `i64`,
/// `u8` and `bool`.
pub trait Element: sealed::Sealed + Copy + Send + Sync + 'static {
    /// The dtype of such elements.
    const DTYPE: DType;

    /// The value with its dtype.
    fn to_scalar(self) -> Scalar;

    /// The value of a scalar, converted as [`Scalar::cast`] does if it is of another dtype.
    fn from_scalar(value: Scalar) -> Self;

    /// Writes the value in the machine's byte order; `out` has as many bytes as the dtype, or nothing happens.
    #[doc(hidden)]
    fn write(self, out: &mut [u8]);

    /// Reads a value in the machine's byte order; zero if `bytes` has another length.
    #[doc(hidden)]
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! element {
    ($t:ty, $dtype:ident, |$x:ident| $to_bits:expr, |$s:ident| $from_bits:expr) => {
        impl sealed::Sealed for $t {}
        impl Element for $t {
            const DTYPE: DType = DType::$dtype;

            fn to_scalar(self) -> Scalar {
                let $x = self;
                Scalar::from_bits(DType::$dtype, $to_bits)
            }

            fn from_scalar(value: Scalar) -> Self {
                let $s = value.cast(DType::$dtype).bits();
                $from_bits
            }

            fn write(self, out: &mut [u8]) {
                if let Some(out) = out.first_chunk_mut() {
                    *out = self.to_ne_bytes();
                }
            }

            fn read(bytes: &[u8]) -> Self {
                bytes.first_chunk().map_or_else(Default::default, |b| <$t>::from_ne_bytes(*b))
            }
        }
    };
}

element!(f32, F32, |x| x.to_bits() as u64, |b| f32::from_bits(b as u32));
element!(f64, F64, |x| x.to_bits(), |b| f64::from_bits(b));
element!(half::f16, F16, |x| x.to_bits() as u64, |b| half::f16::from_bits(b as u16));
element!(half::bf16, BF16, |x| x.to_bits() as u64, |b| half::bf16::from_bits(b as u16));
element!(i8, I8, |x| x as u8 as u64, |b| b as u8 as i8);
element!(i32, I32, |x| x as u32 as u64, |b| b as u32 as i32);
element!(i64, I64, |x| x as u64, |b| b as i64);
element!(u8, U8, |x| x as u64, |b| b as u8);

impl sealed::Sealed for bool {}
impl Element for bool {
    const DTYPE: DType = DType::Bool;

    fn to_scalar(self) -> Scalar {
        Scalar::from_bool(self)
    }

    fn from_scalar(value: Scalar) -> bool {
        value.to_bool()
    }

    fn write(self, out: &mut [u8]) {
        if let Some(out) = out.first_mut() {
            *out = self as u8;
        }
    }

    fn read(bytes: &[u8]) -> bool {
        bytes.first().is_some_and(|&b| b != 0)
    }
}

/// A number as a program writes it, before it takes a tensor's dtype.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
}

impl Number {
    /// The number in a dtype. A float does not become an integer, nor a number a bool; integers that the dtype cannot
    /// hold are errors. Floats round.
    pub(crate) fn in_dtype(self, op: &'static str, dtype: DType) -> Result<Scalar> {
        match self {
            Number::Bool(b) => Ok(Scalar::from_bool(b).cast(dtype)),
            Number::Int(i) if dtype.is_float() => Ok(Scalar::from_i64(dtype, i)),
            Number::Float(x) if dtype.is_float() => Ok(Scalar::from_f64(dtype, x)),
            Number::Int(i) if dtype.is_int() => {
                let s = Scalar::from_i64(dtype, i);
                if s.to_i64() == i {
                    Ok(s)
                } else {
                    Err(Error::argument(op, format!("the number {i}"), &[], format!("one that {dtype} can hold")))
                }
            }
            Number::Int(i) => Err(Error::dtype(op, &[dtype], format!("a number's dtype for {i}"))
                .hint("cast the tensor to it first; nothing is promoted implicitly")),
            Number::Float(x) => Err(Error::dtype(op, &[dtype], format!("a floating dtype for the number {x}"))
                .hint("cast the tensor to it first; nothing is promoted implicitly")),
        }
    }
}

macro_rules! number {
    ($t:ty, $kind:ident) => {
        impl From<$t> for Number {
            fn from(x: $t) -> Number {
                Number::$kind(x.into())
            }
        }

        impl Operand for $t {
            fn operand(&self, op: &'static str, like: &Tensor) -> Result<Tensor> {
                Ok(Tensor::constant(Number::from(*self).in_dtype(op, like.dtype())?))
            }
        }
    };
}

/// What may stand as the second operand of an elementwise operation: a tensor, or a number that takes the first
/// operand's dtype.
pub trait Operand {
    /// The operand as a tensor that goes with `like`; a number becomes a tensor without axes.
    ///
    /// # Errors
    /// If the number cannot be of that dtype.
    fn operand(&self, op: &'static str, like: &Tensor) -> Result<Tensor>;
}

impl Operand for Tensor {
    fn operand(&self, _: &'static str, _: &Tensor) -> Result<Tensor> {
        Ok(self.clone())
    }
}

impl<T: Operand + ?Sized> Operand for &T {
    fn operand(&self, op: &'static str, like: &Tensor) -> Result<Tensor> {
        (**self).operand(op, like)
    }
}

number!(bool, Bool);
number!(u8, Int);
number!(i8, Int);
number!(i32, Int);
number!(i64, Int);
number!(f32, Float);
number!(f64, Float);
