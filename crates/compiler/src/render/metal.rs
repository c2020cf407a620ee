//! Linear code as Metal Shading Language, for reading: how a kernel looks on a GPU of Apple's, beside CUDA C of the same
//! code. Nothing compiles or runs it; what Metal lacks (`double`, a bitwise guarantee for division) is written as if it
//! were there.

use super::RenderError;
use super::clike::{Dialect, Elem, identifier};
use super::gpu::{Arg, Language, Shape, Space, render};
use crate::Target;
use rustc_hash::FxHashSet;
use std::fmt::Write;
use winograph_ir::linear::{Code, MatrixUnit};
use winograph_ir::{DType, Scalar};

/// Renders kernels as text to read.
///
/// # Errors
/// Those of [`render_cuda`](super::render_cuda).
pub fn render_metal(codes: &[Code], target: &Target) -> Result<String, RenderError> {
    let mut metal = Metal::default();
    let mut bodies = String::new();
    for (i, code) in codes.iter().enumerate() {
        let symbol = format!("wg_{i}_{}", identifier(&code.name));
        bodies.push_str(&render(code, &symbol, &Shape::of(code, target)?, &mut metal)?);
    }
    let mut out = format!("/* {} */\n#include <metal_stdlib>\nusing namespace metal;\n", identifier(&target.name));
    for e in Elem::ALL {
        let _ = writeln!(out, "typedef {} {};", metal_name(e), e.name());
    }
    out.push_str("#define WG_INLINE static inline\n");
    Ok(out + &metal.helpers + &bodies)
}

/// Helper functions asked for so far.
#[derive(Default)]
struct Metal {
    known: FxHashSet<String>,
    helpers: String,
}

fn metal_name(e: Elem) -> &'static str {
    match e {
        Elem::I8 => "char",
        Elem::U8 => "uchar",
        Elem::I16 => "short",
        Elem::U16 => "ushort",
        Elem::I32 => "int",
        Elem::U32 => "uint",
        Elem::I64 => "long",
        Elem::U64 => "ulong",
        Elem::F32 => "float",
        Elem::F64 => "double",
    }
}

impl Dialect for Metal {
    fn define(&mut self, name: String, text: &dyn Fn(&str) -> String) -> String {
        if self.known.insert(name.clone()) {
            self.helpers.push_str(&text(&name));
        }
        name
    }

    fn truth(&self) -> &'static str {
        "bool"
    }

    fn non_finite(&self, s: Scalar) -> String {
        let (float, bits) = if s.dtype() == DType::F32 { ("float", "uint") } else { ("double", "ulong") };
        format!("as_type<{float}>(({bits}){:#x})", s.bits())
    }

    fn math(&self, stem: &str, _: Elem) -> String {
        format!("precise::{stem}")
    }

    fn float_to_int(&mut self, from: Elem, to: Elem) -> String {
        let (f, t) = (from.name(), to.name());
        // Conversions saturate; NaN gives 0.
        self.define(format!("wg_{f}_to_{t}"), &|n| {
            format!("WG_INLINE {t} {n}({f} x) {{ return isnan(x) ? ({t})0 : ({t})x; }}\n")
        })
    }

    fn half_to_f32(&mut self, half: DType) -> String {
        let ty = if half == DType::BF16 { "bfloat" } else { "half" };
        self.define(format!("wg_{}_to_f32", half.name()), &|n| {
            format!("WG_INLINE f32 {n}(u16 h) {{ return (f32)as_type<{ty}>(h); }}\n")
        })
    }

    fn f32_to_half(&mut self, half: DType) -> String {
        let ty = if half == DType::BF16 { "bfloat" } else { "half" };
        self.define(format!("wg_f32_to_{}", half.name()), &|n| {
            format!("WG_INLINE u16 {n}(f32 x) {{ return as_type<u16>(({ty})x); }}\n")
        })
    }

    fn bits(&mut self, _: Elem, to: Elem) -> String {
        format!("as_type<{}>", to.name())
    }
}

impl Language for Metal {
    fn function(&self, symbol: &str, args: &[Arg<'_>], params: usize, shape: &Shape<'_>) -> String {
        let mut list: Vec<String> = args
            .iter()
            .enumerate()
            .map(|(i, a)| {
                let qualifier = if a.written { "" } else { "const " };
                format!("device {qualifier}{} *{} [[buffer({i})]]", a.elem.name(), a.name)
            })
            .collect();
        list.extend((0..params).map(|i| format!("constant i64 &p{i} [[buffer({})]]", args.len() + i)));
        if shape.dynamic > 0 {
            list.push("threadgroup u8 *wg_shared [[threadgroup(0)]]".into());
        }
        list.push("uint block_index [[threadgroup_position_in_grid]]".into());
        list.push("uint thread_index [[thread_index_in_threadgroup]]".into());
        format!("[[max_total_threads_per_threadgroup({})]] kernel void {symbol}({}) {{", shape.count, list.join(", "))
    }

    fn block(&self) -> &'static str {
        "block_index"
    }

    fn thread(&self) -> &'static str {
        "thread_index"
    }

    fn barrier(&self, _tiles: bool) -> &'static str {
        "threadgroup_barrier(mem_flags::mem_device | mem_flags::mem_threadgroup);"
    }

    fn copy(&mut self, _bytes: usize, _once: bool) -> Option<String> {
        None
    }

    fn copied(&self) -> Option<&'static str> {
        None
    }

    fn wait(&self, _pending: u32) -> Option<String> {
        None
    }

    fn pointer(&self, space: Space, ty: &str, constant: bool) -> String {
        let space = match space {
            Space::Global => "device",
            Space::Shared => "threadgroup",
            Space::Thread => "thread",
            Space::Constant | Space::Table => "constant",
        };
        format!("{space} {}{ty} *", if constant { "const " } else { "" })
    }

    fn array(&self, space: Space, elem: Elem, name: &str, len: usize, values: Option<&str>) -> String {
        let space = match space {
            Space::Shared => "threadgroup ",
            Space::Constant | Space::Table => "constant ",
            Space::Global | Space::Thread => "",
        };
        let values = values.map_or(String::new(), |v| format!(" = {{{v}}}"));
        format!("{space}alignas(16) {} {name}[{len}]{values};", elem.name())
    }

    fn rows(&mut self, elem: Elem, matrices: usize, transposed: bool) -> String {
        // Every thread asks the one that names a row where it is.
        let (e, part) = (elem.name(), 4 / elem.bytes());
        let list: Vec<String> = (0..matrices * part).map(|i| format!("thread {e} &d{i}")).collect();
        let mut text = String::from("  const u32 along = thread_index % 4, across = thread_index % 32 / 4;\n");
        for i in 0..matrices {
            for n in 0..part {
                let (row, element) = match transposed {
                    false => ("across".to_string(), format!("{part} * along + {n}")),
                    true => (format!("{part} * along + {n}"), "across".to_string()),
                };
                let d = i * part + n;
                text.push_str(&format!("  d{d} = base[simd_shuffle(offset, {} + {row}) + {element}];\n", 8 * i));
            }
        }
        let name = format!("wg_rows{matrices}{}_{e}", if transposed { "t" } else { "" });
        self.define(name, &|f| {
            let list = list.join(", ");
            format!(
                "WG_INLINE void {f}({list}, threadgroup const {e} *base, u32 offset, u32 thread_index) {{\n{text}}}\n"
            )
        })
    }

    fn tiles(&mut self, _unit: &MatrixUnit) -> Option<String> {
        None
    }

    fn matrix(&mut self, unit: &MatrixUnit) -> Option<String> {
        // Two elements a thread of each 8 × 8 matrix.
        let (m, n, k, ty) = (unit.m, unit.n, unit.k, Elem::of(unit.a.dtype));
        if (m, n, k) != (8, 8, 8) || [&unit.a, &unit.b, &unit.c].iter().any(|f| f.elements() != 2) {
            return None;
        }
        let (t, fragment) = match unit.a.dtype {
            DType::F32 => (ty.name(), "simdgroup_float8x8"),
            DType::F16 => (ty.name(), "simdgroup_half8x8"),
            DType::BF16 => (ty.name(), "simdgroup_bfloat8x8"),
            _ => return None,
        };
        Some(self.define(format!("wg_8x8x8_{}", unit.a.dtype.name()), &|f| {
            format!(
                "WG_INLINE void {f}(thread f32 &d0, thread f32 &d1, {t} a0, {t} a1, {t} b0, {t} b1, f32 c0, f32 c1) {{\n  {fragment} a, b;\n  simdgroup_float8x8 c, d;\n  /* The elements that each thread holds. */\n  a.thread_elements() = {{a0, a1}};\n  b.thread_elements() = {{b0, b1}};\n  c.thread_elements() = {{c0, c1}};\n  simdgroup_multiply_accumulate(d, a, b, c);\n  d0 = d.thread_elements()[0];\n  d1 = d.thread_elements()[1];\n}}\n"
            )
        }))
    }
}
