//! C types and literals.

use winograph_ir::{DType, Scalar};

/// Element types that generated C works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Elem {
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
    pub(super) const ALL: [Elem; 10] =
        [Elem::I8, Elem::U8, Elem::I16, Elem::U16, Elem::I32, Elem::U32, Elem::I64, Elem::U64, Elem::F32, Elem::F64];

    /// How values of a dtype are held: half floats as their bits, truth values as bytes 0 or 1.
    pub(super) fn of(dtype: DType) -> Elem {
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

    pub(super) fn name(self) -> &'static str {
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

    /// The C type behind the name, without any header.
    pub(super) fn c_name(self) -> &'static str {
        match self {
            Elem::I8 => "__INT8_TYPE__",
            Elem::U8 => "__UINT8_TYPE__",
            Elem::I16 => "__INT16_TYPE__",
            Elem::U16 => "__UINT16_TYPE__",
            Elem::I32 => "__INT32_TYPE__",
            Elem::U32 => "__UINT32_TYPE__",
            Elem::I64 => "__INT64_TYPE__",
            Elem::U64 => "__UINT64_TYPE__",
            Elem::F32 => "float",
            Elem::F64 => "double",
        }
    }

    pub(super) fn bytes(self) -> usize {
        match self {
            Elem::I8 | Elem::U8 => 1,
            Elem::I16 | Elem::U16 => 2,
            Elem::I32 | Elem::U32 | Elem::F32 => 4,
            Elem::I64 | Elem::U64 | Elem::F64 => 8,
        }
    }

    pub(super) fn is_float(self) -> bool {
        matches!(self, Elem::F32 | Elem::F64)
    }

    /// The signed integer of the same size: what comparing vectors gives.
    pub(super) fn signed(self) -> Elem {
        match self.bytes() {
            1 => Elem::I8,
            2 => Elem::I16,
            4 => Elem::I32,
            _ => Elem::I64,
        }
    }

    /// The unsigned integer of the same size, whose arithmetic wraps.
    pub(super) fn unsigned(self) -> Elem {
        match self.bytes() {
            1 => Elem::U8,
            2 => Elem::U16,
            4 => Elem::U32,
            _ => Elem::U64,
        }
    }

    /// The unsigned integer in which scalar arithmetic on this integer wraps: no smaller than C's promotions.
    pub(super) fn wrapping(self) -> Elem {
        if self.bytes() == 8 { Elem::U64 } else { Elem::U32 }
    }
}

/// A C type: a scalar or a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CType {
    pub(super) elem: Elem,
    pub(super) lanes: u32,
}

impl CType {
    pub(super) fn new(elem: Elem, lanes: u32) -> CType {
        CType { elem, lanes }
    }

    pub(super) fn name(self) -> String {
        if self.lanes == 1 { self.elem.name().to_string() } else { format!("{}x{}", self.elem.name(), self.lanes) }
    }

    pub(super) fn bytes(self) -> usize {
        self.elem.bytes() * self.lanes as usize
    }

    pub(super) fn with(self, elem: Elem) -> CType {
        CType { elem, lanes: self.lanes }
    }

    /// The type of a comparison's result.
    pub(super) fn mask(self) -> CType {
        self.with(self.elem.signed())
    }

    pub(super) fn half(self) -> CType {
        CType { elem: self.elem, lanes: self.lanes / 2 }
    }
}

/// A value as a C constant expression that gives its bits back exactly (a NaN is quieted).
pub(super) fn literal(s: Scalar) -> String {
    match s.dtype() {
        DType::F32 => {
            let x = f32::from_bits(s.bits() as u32);
            let sign = if x.is_sign_negative() { "-" } else { "" };
            if x.is_nan() {
                format!("({sign}__builtin_nanf(\"0x{:x}\"))", s.bits() & 0x3f_ffff)
            } else if x.is_infinite() {
                format!("({sign}__builtin_inff())")
            } else {
                parenthesize(format!("{x:?}f"))
            }
        }
        DType::F64 => {
            let x = f64::from_bits(s.bits());
            let sign = if x.is_sign_negative() { "-" } else { "" };
            if x.is_nan() {
                format!("({sign}__builtin_nan(\"0x{:x}\"))", s.bits() & 0x7_ffff_ffff_ffff)
            } else if x.is_infinite() {
                format!("({sign}__builtin_inf())")
            } else {
                parenthesize(format!("{x:?}"))
            }
        }
        DType::F16 | DType::BF16 => format!("0x{:04x}", s.bits()),
        _ => int_literal(s.to_i64()),
    }
}

/// An integer as a C constant of sufficient type.
pub(super) fn int_literal(x: i64) -> String {
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
pub(super) fn identifier(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}
