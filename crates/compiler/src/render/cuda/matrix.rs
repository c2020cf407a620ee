//! The matrix units of CUDA devices from compute capability 8.0 on: `mma.sync` on fragments in registers.

use super::prelude::Prelude;
use crate::optimize::matrix_unit::{CUDA_UNITS, from_shared};
use crate::render::clike::{Dialect, Elem};
use winograph_ir::linear::{Fragment, MatrixUnit};

/// Names of the units with factors in registers that can be rendered.
pub const MATRIX_UNITS: [&str; 4] = CUDA_UNITS;

/// A unit that can be rendered, by its name; see [`optimize::matrix_unit`](crate::optimize::matrix_unit::matrix_unit).
pub fn matrix_unit(name: &str) -> Option<MatrixUnit> {
    MATRIX_UNITS.contains(&name).then(|| crate::optimize::matrix_unit::matrix_unit(name)).flatten()
}

/// For each element of `hardware`, the one of `given` that is at the same place in every thread; `None` where there is
/// none.
fn order(hardware: &Fragment, given: &Fragment) -> Option<Vec<usize>> {
    if hardware.dtype != given.dtype || hardware.elements() != given.elements() {
        return None;
    }
    let same = |e: u32, g: u32| (0..32).all(|t| hardware.place(t, e) == given.place(t, g));
    (0..hardware.elements()).map(|e| (0..given.elements()).find(|&g| same(e, g)).map(|g| g as usize)).collect()
}

/// A function for a unit, its operands in the order of the unit's elements.
pub(super) fn helper(p: &mut Prelude, unit: &MatrixUnit) -> Option<String> {
    let hardware = matrix_unit(&unit.name).filter(|h| (h.m, h.n, h.k) == (unit.m, unit.n, unit.k))?;
    let (a, b, c) = (order(&hardware.a, &unit.a)?, order(&hardware.b, &unit.b)?, order(&hardware.c, &unit.c)?);
    let kind = unit.name.rsplit('.').next()?;
    // Names tell apart units that number their elements in other ways.
    let digits = |o: &[usize]| o.iter().map(|i| i.to_string()).collect::<String>();
    let name = format!("wg_{}_{}_{}_{}", unit.name.replace('.', "_"), digits(&a), digits(&b), digits(&c));
    let (shape, t) = (format!("m16n8k{}", unit.k), Elem::of(hardware.a.dtype).name());
    let params = |ty: &str, stem: &str, n: usize| (0..n).map(|i| format!("{ty}{stem}{i}")).collect::<Vec<_>>();
    let mut list = params("f32 &", "d", c.len());
    list.extend(params(&format!("{t} "), "a", a.len()));
    list.extend(params(&format!("{t} "), "b", b.len()));
    list.extend(params("f32 ", "c", c.len()));
    let split = kind == "3xtf32";
    // Registers of 32 bits: one tf32 number or two half floats, the first one lower.
    let mut lines = String::new();
    let mut registers = |stem: &str, order: &[usize]| -> Vec<String> {
        let per = if kind.ends_with("tf32") { 1 } else { 2 };
        let parts = order.chunks(per).enumerate().map(|(n, part)| {
            match part {
                [one] => {
                    let round = |to: &str, x: &str| {
                        format!("  u32 {to};\n  asm(\"cvt.rna.tf32.f32 %0, %1;\" : \"=r\"({to}) : \"f\"({x}));\n")
                    };
                    lines.push_str(&round(&format!("{stem}r{n}"), &format!("{stem}{one}")));
                    if split {
                        // What the rounding leaves is exact; of an infinity it is none.
                        lines.push_str(&format!("  f32 {stem}l{n} = {stem}{one} - __int_as_float((int){stem}r{n});\n"));
                        lines.push_str(&format!("  {stem}l{n} = {stem}l{n} == {stem}l{n} ? {stem}l{n} : 0.0f;\n"));
                        lines.push_str(&round(&format!("{stem}s{n}"), &format!("{stem}l{n}")));
                    }
                }
                [lo, hi] => {
                    lines.push_str(&format!("  const u32 {stem}r{n} = (u32){stem}{lo} | (u32){stem}{hi} << 16;\n"))
                }
                _ => {}
            }
            format!("\"r\"({stem}r{n})")
        });
        parts.collect()
    };
    let (ar, br) = (registers("a", &a), registers("b", &b));
    let mut at = 0;
    let mut places = |n: usize| {
        let all: Vec<String> = (at..at + n).map(|i| format!("%{i}")).collect();
        at += n;
        format!("{{{}}}", all.join(", "))
    };
    let operands = [places(c.len()), places(ar.len()), places(br.len()), places(c.len())].join(", ");
    let outputs: Vec<String> = c.iter().map(|i| format!("\"=f\"(d{i})")).collect();
    let unit_kind = if split { "tf32" } else { kind };
    let mma = format!("mma.sync.aligned.{shape}.row.col.f32.{unit_kind}.{unit_kind}.f32");
    let issue = |a: &[String], b: &[String], addend: &str| {
        let addends = c.iter().map(|i| format!("\"f\"({addend}{i})"));
        let inputs: Vec<String> = a.iter().chain(b).cloned().chain(addends).collect();
        format!("  asm volatile(\"{mma} {operands};\" : {} : {});\n", outputs.join(", "), inputs.join(", "))
    };
    let body = if split {
        // The small products first. The unit cuts off what it adds to, so that its sum is of these terms alone, and joins the
        // others by an addition that rounds.
        let rest = |of: &[String]| of.iter().map(|r| r.replace("(ar", "(as").replace("(br", "(bs")).collect::<Vec<_>>();
        let (al, bl) = (rest(&ar), rest(&br));
        let from_zero: String = c.iter().map(|i| format!("  d{i} = 0.0f;\n")).collect();
        let join: String = c.iter().map(|i| format!("  d{i} = c{i} + d{i};\n")).collect();
        [from_zero, issue(&al, &br, "d"), issue(&ar, &bl, "d"), issue(&ar, &br, "d"), join].concat()
    } else {
        issue(&ar, &br, "c")
    };
    Some(p.define(name, &|f| format!("WG_INLINE void {f}({}) {{\n{lines}{body}}}\n", list.join(", "))))
}

/// A function for a unit that reads its factors from shared memory: `wgmma.mma_async` for each 32 bytes of the rows, begun
/// and waited for in one piece, so that no register is touched while it is under way.
pub(super) fn tiles(p: &mut Prelude, unit: &MatrixUnit) -> Option<String> {
    let known = crate::optimize::matrix_unit::matrix_unit(&unit.name)?;
    if known != *unit || !from_shared(unit) {
        return None;
    }
    let kind = unit.name.rsplit('.').next()?;
    let (t, size, count) = (Elem::of(unit.a.dtype).name(), unit.a.dtype.size(), unit.c.elements());
    // In the order in which the instruction lists a thread's results: columns of 8 one after the other.
    let results: Vec<String> = (0..count).map(|i| format!("d{i}")).collect();
    let places: Vec<String> = (0..count).map(|i| format!("%{i}")).collect();
    let step = 32 / size as u32;
    let mut text = String::from("wgmma.fence.sync.aligned;\\n\"\n");
    for n in 0..unit.k / step {
        // In units of 16 bytes.
        let (x, y) = (count + 2 * n, count + 2 * n + 1);
        let transposed = if kind == "tf32" { "" } else { ", 0, 0" };
        text.push_str(&format!(
            "    \"wgmma.mma_async.sync.aligned.m64n{}k{step}.f32.{kind}.{kind} {{{}}}, %{x}, %{y}, 1, 1, 1{transposed};\\n\"\n",
            unit.n,
            places.join(", ")
        ));
    }
    text.push_str("    \"wgmma.commit_group.sync.aligned;\\n\"\n    \"wgmma.wait_group.sync.aligned 0;");
    let outputs: Vec<String> = results.iter().map(|d| format!("\"+f\"({d})")).collect();
    let inputs: Vec<String> = (0..unit.k / step).map(|n| format!("\"l\"(x + {0}), \"l\"(y + {0})", 2 * n)).collect();
    let list: Vec<String> = results.iter().map(|d| format!("f32 &{d}")).collect();
    let describe = p.define("wg_tile".into(), &|f| {
        // Rows of 128 bytes, swizzled, eight of them 1024 bytes before the next eight.
        format!(
            "WG_INLINE u64 {f}(const void *p) {{\n  return (u64)((u32)__cvta_generic_to_shared(p) >> 4 & 0x3fff) | \
             1ull << 16 | 64ull << 32 | 1ull << 62;\n}}\n"
        )
    });
    let name = format!("wg_{}", unit.name.replace('.', "_"));
    Some(p.define(name, &|f| {
        format!(
            "WG_INLINE void {f}({}, const {t} *a, const {t} *b) {{\n  const u64 x = {describe}(a), y = {describe}(b);\n  \
             asm volatile(\"{text}\"\n    : {}\n    : {}\n    : \"memory\");\n}}\n",
            list.join(", "),
            outputs.join(", "),
            inputs.join(", ")
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_may_be_numbered_otherwise_but_not_placed_otherwise() {
        let hardware = matrix_unit("m16n8k8.tf32").unwrap();
        let mut given = hardware.clone();
        given.a.element_row.reverse();
        given.a.element_col.reverse();
        assert_eq!(order(&hardware.a, &given.a), Some(vec![0, 2, 1, 3]));
        given.a.thread_row[2] = 2;
        given.a.thread_row[3] = 1;
        assert_eq!(order(&hardware.a, &given.a), None);
        assert_eq!(helper(&mut Prelude::default(), &given), None);
    }
}
