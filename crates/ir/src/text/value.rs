//! Words shared by the levels: scalars, tables, origins, scopes, layouts.

use super::cursor::{Cursor, MAX_SLOT};
use super::lexer::ParseError;
use super::names::{Names, join};
use crate::dtype::{DType, Scalar};
use crate::indexed::{Layout, Origin, Role, Scope, Table};

/// Every scope, in declaration order.
pub(super) const SCOPES: [Scope; 4] = [Scope::Register, Scope::Scratch, Scope::Shared, Scope::Global];

/// Word of the text form.
pub(super) fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Register => "register",
        Scope::Scratch => "scratch",
        Scope::Shared => "shared",
        Scope::Global => "global",
    }
}

/// `argument 0`.
pub(super) fn print_origin(origin: Origin) -> String {
    match origin {
        Origin::Argument(n) => format!("argument {n}"),
        Origin::Constant(n) => format!("constant {n}"),
        Origin::Output(n) => format!("output {n}"),
        Origin::Internal => "internal".to_string(),
    }
}

/// A value of a table without its dtype, `f32` with as few digits as tell it from its neighbours; a NaN keeps its
/// dtype, next to its bits.
fn print_element(dtype: DType, value: Scalar) -> String {
    if dtype == DType::F32 && value.dtype() == dtype && value.to_f64().is_finite() {
        return format!("{:?}", value.to_f64() as f32);
    }
    let text = value.to_string();
    if value.dtype() == dtype && !value.is_nan() {
        text.strip_suffix(dtype.name()).unwrap_or(&text).to_string()
    } else {
        text
    }
}

/// `[1.0, 0.0]`; with a shape of two axes or more, each row of the last one on its own line.
pub(super) fn print_table(dtype: DType, shape: &[usize], values: &[Scalar], indent: &str) -> String {
    let element = |v: &Scalar| print_element(dtype, *v);
    match shape.last() {
        Some(&row) if shape.len() > 1 && row > 0 && values.len() > row => {
            let rows: Vec<String> = values.chunks(row).map(|r| format!("{indent}  {}", join(r, element))).collect();
            format!("[\n{}\n{indent}]", rows.join(",\n"))
        }
        _ => format!("[{}]", join(values, element)),
    }
}

/// `layout [0:4096, 1/8%2:64] len 65536`: axis, divisor, modulus and stride of each factor.
pub(super) fn print_layout(names: &Names, layout: &Layout) -> String {
    let dims = join(&layout.dims, |d| {
        let div = if d.div == 1 { String::new() } else { format!("/{}", d.div) };
        let modulus = d.modulus.map(|m| format!("%{m}")).unwrap_or_default();
        format!("{}{div}{modulus}:{}", d.axis, names.int(d.stride))
    });
    format!("layout [{dims}] len {}", names.int(layout.len))
}

/// What follows the type of a buffer: `argument 0`, `internal`.
pub(super) fn parse_origin(c: &mut Cursor) -> Result<Origin, ParseError> {
    if c.accept_word("internal") {
        return Ok(Origin::Internal);
    }
    let make = c.known("`argument`, `constant`, `output` or `internal`", |w| match w {
        "argument" => Some(Origin::Argument as fn(usize) -> Origin),
        "constant" => Some(Origin::Constant),
        "output" => Some(Origin::Output),
        _ => None,
    })?;
    Ok(make(c.natural(MAX_SLOT, "a slot")?))
}

/// A scope by its word.
pub(super) fn scope_from(word: &str) -> Option<Scope> {
    SCOPES.into_iter().find(|s| scope_name(*s) == word)
}

/// A role by its word.
pub(super) fn role_from(word: &str) -> Option<Role> {
    Role::ALL.into_iter().find(|r| r.name() == word)
}

/// What follows the name of a table: `: f32[2] = [1.0, 2.0]`.
pub(super) fn parse_table(c: &mut Cursor) -> Result<Table, ParseError> {
    c.expect(":")?;
    let dtype = c.dtype()?;
    let (shape, count) = c.const_shape()?;
    c.expect("=")?;
    Ok(Table { shape, dtype, values: c.elements(dtype, count)? })
}
