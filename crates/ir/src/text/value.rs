//! Words shared by the levels: scalars, tables, origins, scopes, layouts.

use super::names::{Names, join};
use crate::dtype::{DType, Scalar};
use crate::indexed::{Layout, Origin, Scope};

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

/// A value of a table without its dtype; a NaN keeps it, next to its bits.
fn print_element(dtype: DType, value: Scalar) -> String {
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
