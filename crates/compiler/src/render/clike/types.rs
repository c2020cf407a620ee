//! Element types, literals and identifiers.

use super::Dialect;
use winograph_ir::{DType, Scalar};

/// Element types that generated code works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::render) enum Elem {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F32,
    F64,
}

impl Elem {
    pub(in crate::render) const ALL: [Elem; 10] =
        [Elem::I8, Elem::U8, Elem::I16, Elem::U16, Elem::I32, Elem::U32, Elem::I64, Elem::U64, Elem::F32, Elem::F64];

    /// How values of a dtype are held: half floats as their bits, truth values as bytes 0 or 1.
    pub(in crate::render) fn of(dtype: DType) -> Elem {
        match dtype {
            DType::Bool | DType::U8 => Elem::U8,
            DType::I8 => Elem::I8,
            DType::I32 => Elem::I32,
            DType::I64 => Elem::I64,
            DType::F16 | DType::BF16 => Elem::U16,
            DType::F32 => Elem::F32,
            DType::F64 => Elem::F64,
        }
    }

    pub(in crate::render) fn name(self) -> &'static str {
        match self {
            Elem::I8 => "i8",
            Elem::U8 => "u8",
            Elem::I16 => "i16",
            Elem::U16 => "u16",
            Elem::I32 => "i32",
            Elem::U32 => "u32",
            Elem::I64 => "i64",
            Elem::U64 => "u64",
            Elem::F32 => "f32",
            Elem::F64 => "f64",
        }
    }

    pub(in crate::render) fn bytes(self) -> usize {
        match self {
            Elem::I8 | Elem::U8 => 1,
            Elem::I16 | Elem::U16 => 2,
            Elem::I32 | Elem::U32 | Elem::F32 => 4,
            Elem::I64 | Elem::U64 | Elem::F64 => 8,
        }
    }

    pub(in crate::render) fn is_float(self) -> bool {
        matches!(self, Elem::F32 | Elem::F64)
    }

    /// The signed integer of the same size: what comparing vectors gives.
    pub(in crate::render) fn signed(self) -> Elem {
        match self.bytes() {
            1 => Elem::I8,
            2 => Elem::I16,
            4 => Elem::I32,
            _ => Elem::I64,
        }
    }

    /// The unsigned integer of the same size, whose arithmetic wraps.
    pub(in crate::render) fn unsigned(self) -> Elem {
        match self.bytes() {
            1 => Elem::U8,
            2 => Elem::U16,
            4 => Elem::U32,
            _ => Elem::U64,
        }
    }

    /// The unsigned integer in which scalar arithmetic on this integer wraps: no smaller than C's promotions.
    pub(in crate::render) fn wrapping(self) -> Elem {
        if self.bytes() == 8 { Elem::U64 } else { Elem::U32 }
    }
}

/// A value as a constant expression that gives its bits back exactly (a NaN is quieted).
pub(in crate::render) fn literal<D: Dialect + ?Sized>(d: &D, s: Scalar) -> String {
    match s.dtype() {
        DType::F32 | DType::F64 if !s.to_f64().is_finite() => d.non_finite(s),
        DType::F32 => parenthesize(format!("{:?}f", f32::from_bits(s.bits() as u32))),
        DType::F64 => parenthesize(format!("{:?}", f64::from_bits(s.bits()))),
        DType::F16 | DType::BF16 => format!("0x{:04x}", s.bits()),
        _ => int_literal(s.to_i64()),
    }
}

/// An integer as a C constant of sufficient type.
pub(in crate::render) fn int_literal(x: i64) -> String {
    if x == i64::MIN {
        "(-9223372036854775807LL - 1)".to_string()
    } else if x == i32::MIN as i64 {
        "(-2147483647 - 1)".to_string()
    } else if i32::try_from(x).is_ok() {
        parenthesize(x.to_string())
    } else {
        parenthesize(format!("{x}LL"))
    }
}

fn parenthesize(s: String) -> String {
    if s.starts_with('-') { format!("({s})") } else { s }
}

/// The part of a name that C takes as an identifier.
pub(in crate::render) fn identifier(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// Text that cannot end a comment.
pub(in crate::render) fn comment(s: &str) -> String {
    s.chars().map(|c| if c.is_ascii_graphic() && c != '*' && c != '/' && c != '\\' { c } else { '_' }).collect()
}

/// The condition that numbers, given as atoms, are all at least 0: no sign bit is set among them. `None`: always.
pub(in crate::render) fn condition(mut numbers: Vec<String>) -> Option<String> {
    numbers.sort();
    (!numbers.is_empty()).then(|| format!("({}) >= 0", numbers.join(" | ")))
}
