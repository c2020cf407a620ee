//! Operations on scalars, as `winograph_ir::op` defines them.

use super::{Dialect, Elem};
use winograph_ir::{BinaryOp, DType, UnaryOp};

/// An operation that an earlier pass should have replaced.
#[derive(Debug)]
pub(in crate::render) struct Unlowered(pub(in crate::render) String);

type Result<T> = std::result::Result<T, Unlowered>;

/// A scalar operand: a name, a constant or an expression in parentheses.
#[derive(Clone, Copy)]
pub(in crate::render) struct Operand<'a> {
    pub(in crate::render) text: &'a str,
    /// Whether it is known not to be NaN.
    pub(in crate::render) not_nan: bool,
}

fn no_half(dtype: DType, op: &str) -> Result<()> {
    match dtype {
        DType::F16 | DType::BF16 => Err(Unlowered(format!("{op} on {dtype}"))),
        _ => Ok(()),
    }
}

/// `op` on a scalar.
pub(in crate::render) fn unary(d: &mut dyn Dialect, op: UnaryOp, dtype: DType, x: &str) -> Result<String> {
    if op.is_transcendental() {
        return Err(Unlowered(format!("the operation {}", op.name())));
    }
    no_half(dtype, op.name())?;
    let e = Elem::of(dtype);
    let (name, w) = (e.name(), e.wrapping().name());
    Ok(match op {
        UnaryOp::Not if dtype == DType::Bool => format!("!{x}"),
        UnaryOp::Not => format!("({name})~{x}"),
        UnaryOp::Neg if e.is_float() => format!("-{x}"),
        UnaryOp::Neg => format!("({name})-({w}){x}"),
        UnaryOp::Abs if e.is_float() => format!("{}({x})", d.math("fabs", e)),
        UnaryOp::Abs if e == Elem::U8 => x.to_string(),
        UnaryOp::Abs => format!("{x} < 0 ? ({name})-({w}){x} : {x}"),
        UnaryOp::Sqrt => format!("{}({x})", d.math("sqrt", e)),
        UnaryOp::Floor => format!("{}({x})", d.math("floor", e)),
        UnaryOp::Ceil => format!("{}({x})", d.math("ceil", e)),
        UnaryOp::Trunc => format!("{}({x})", d.math("trunc", e)),
        UnaryOp::Round => format!("{}({x})", d.math("rint", e)),
        _ => return Err(Unlowered(format!("the operation {}", op.name()))),
    })
}

/// `op` on scalars of one dtype.
pub(in crate::render) fn binary(
    d: &mut dyn Dialect,
    op: BinaryOp,
    dtype: DType,
    a: Operand<'_>,
    b: Operand<'_>,
) -> Result<String> {
    let (x, y) = (a.text, b.text);
    if dtype == DType::Bool {
        return Ok(binary_truth(d, op, x, y));
    }
    no_half(dtype, op.name())?;
    let e = Elem::of(dtype);
    let (name, w) = (e.name(), e.wrapping().name());
    if op.is_comparison() {
        let sign = match op {
            BinaryOp::Lt => "<",
            BinaryOp::Le => "<=",
            BinaryOp::Eq => "==",
            _ => "!=",
        };
        return Ok(format!("({})({x} {sign} {y})", d.truth()));
    }
    Ok(match op {
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div if e.is_float() => {
            let sign = match op {
                BinaryOp::Add => "+",
                BinaryOp::Sub => "-",
                BinaryOp::Mul => "*",
                _ => "/",
            };
            format!("{x} {sign} {y}")
        }
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul => {
            let sign = match op {
                BinaryOp::Add => "+",
                BinaryOp::Sub => "-",
                _ => "*",
            };
            format!("({name})(({w}){x} {sign} ({w}){y})")
        }
        BinaryOp::Div | BinaryOp::Rem => format!("{}({x}, {y})", divide(d, op, e)),
        BinaryOp::Max | BinaryOp::Min => {
            let (sign, opposite) = if op == BinaryOp::Max { (">", "<=") } else { ("<", ">=") };
            // The first operand where it wins or is NaN. With a second operand that is no NaN, that is where it does
            // not lose.
            let cond = match (e.is_float(), a.not_nan, b.not_nan) {
                (true, false, true) => format!("!({x} {opposite} {y})"),
                (true, false, false) => format!("{x} {sign} {y} || {x} != {x}"),
                _ => format!("{x} {sign} {y}"),
            };
            format!("({cond}) ? {x} : {y}")
        }
        BinaryOp::And => format!("({name})({x} & {y})"),
        BinaryOp::Or => format!("({name})({x} | {y})"),
        BinaryOp::Xor => format!("({name})({x} ^ {y})"),
        BinaryOp::Shl => format!("({name})(({w}){x} << ({y} & {}))", 8 * e.bytes() - 1),
        BinaryOp::Shr => format!("({name})({x} >> ({y} & {}))", 8 * e.bytes() - 1),
        _ => return Err(Unlowered(format!("the operation {}", op.name()))),
    })
}

fn binary_truth(d: &mut dyn Dialect, op: BinaryOp, x: &str, y: &str) -> String {
    let text = match op {
        BinaryOp::Add | BinaryOp::Or | BinaryOp::Max => format!("{x} | {y}"),
        BinaryOp::Lt => format!("!{x} & {y}"),
        BinaryOp::Le => format!("!{x} | {y}"),
        BinaryOp::Xor | BinaryOp::Ne => format!("{x} ^ {y}"),
        BinaryOp::Eq => format!("!({x} ^ {y})"),
        _ => format!("{x} & {y}"),
    };
    format!("({})({text})", d.truth())
}

/// A function for integer division, or for the remainder of integers or floats.
pub(in crate::render) fn divide(d: &mut dyn Dialect, op: BinaryOp, e: Elem) -> String {
    if e.is_float() {
        return d.math("fmod", e);
    }
    let (n, u) = (e.name(), e.wrapping().name());
    let (stem, minus, sign) =
        if op == BinaryOp::Div { ("div", format!("({n})-({u})a"), "/") } else { ("rem", "0".into(), "%") };
    // The least value by -1 is beyond the type.
    let guard = if e == Elem::U8 { String::new() } else { format!("b == -1 ? {minus} : ") };
    d.define(format!("wg_{stem}_{n}"), &|name| {
        format!("WG_INLINE {n} {name}({n} a, {n} b) {{ return b == 0 ? 0 : {guard}({n})(a {sign} b); }}\n")
    })
}

/// A function for floor division in a signed type; 0 where the divisor is not positive.
pub(in crate::render) fn floor_div(d: &mut dyn Dialect, ty: &str) -> String {
    d.define(in_type("wg_floor_div", ty), &|n| {
        format!(
            "WG_INLINE {ty} {n}({ty} a, {ty} b) {{\n  if (b <= 0) return 0;\n  {ty} q = a / b;\n  return q - (a % b < 0);\n}}\n"
        )
    })
}

/// A function for the remainder of floor division in a signed type; 0 where the divisor is not positive.
pub(in crate::render) fn floor_mod(d: &mut dyn Dialect, ty: &str) -> String {
    d.define(in_type("wg_floor_mod", ty), &|n| {
        format!(
            "WG_INLINE {ty} {n}({ty} a, {ty} b) {{\n  if (b <= 0) return 0;\n  {ty} r = a % b;\n  return r < 0 ? r + b : r;\n}}\n"
        )
    })
}

fn in_type(name: &str, ty: &str) -> String {
    if ty == "i64" { name.to_string() } else { format!("{name}_{ty}") }
}

/// A function that clamps `x` to `0..=size - 1`.
pub(in crate::render) fn clamp(d: &mut dyn Dialect) -> String {
    d.define("wg_clamp".into(), &|n| {
        format!("WG_INLINE i64 {n}(i64 x, i64 size) {{\n  x = x >= size ? size - 1 : x;\n  return x < 0 ? 0 : x;\n}}\n")
    })
}

/// A scalar converted to another dtype.
pub(in crate::render) fn cast(d: &mut dyn Dialect, from: DType, to: DType, x: &str) -> String {
    if from == to {
        return x.to_string();
    }
    let is_half = |d: DType| matches!(d, DType::F16 | DType::BF16);
    if to == DType::Bool {
        let bits = if is_half(from) { format!("({x} & 0x7fff)") } else { x.to_string() };
        return format!("({})({bits} != 0)", d.truth());
    }
    if is_half(from) {
        let single = format!("{}({x})", d.half_to_f32(from));
        return cast(d, DType::F32, to, &single);
    }
    if is_half(to) {
        let single = cast(d, from, DType::F32, x);
        return format!("{}({single})", d.f32_to_half(to));
    }
    if from.is_float() && to.is_int() {
        return format!("{}({x})", d.float_to_int(Elem::of(from), Elem::of(to)));
    }
    format!("({}){x}", Elem::of(to).name())
}

/// A scalar's bits as another dtype of the same size.
pub(in crate::render) fn bitcast(d: &mut dyn Dialect, from: DType, to: DType, x: &str) -> String {
    let (a, b) = (Elem::of(from), Elem::of(to));
    if from == to {
        x.to_string()
    } else if from == DType::Bool || to == DType::Bool {
        // Truth values are bytes 0 and 1 to all others, and any other byte than 0 is true.
        cast(d, from, to, x)
    } else if a == b {
        x.to_string()
    } else {
        format!("{}({x})", d.bits(a, b))
    }
}
