//! What CUDA C has words for, and the helper functions that a translation unit declares before its kernels.

use super::matrix;
use crate::render::clike::{Dialect, Elem};
use crate::render::gpu::{Arg, Language, Shape, Space};
use rustc_hash::FxHashSet;
use std::fmt::Write;
use winograph_ir::linear::MatrixUnit;
use winograph_ir::{DType, Scalar};

/// Helper functions asked for so far.
#[derive(Default)]
pub(super) struct Prelude {
    known: FxHashSet<String>,
    helpers: String,
}

/// The CUDA type behind the name.
fn cuda_name(e: Elem) -> &'static str {
    match e {
        Elem::I8 => "signed char",
        Elem::U8 => "unsigned char",
        Elem::I16 => "short",
        Elem::U16 => "unsigned short",
        Elem::I32 => "int",
        Elem::U32 => "unsigned int",
        Elem::I64 => "long long",
        Elem::U64 => "unsigned long long",
        Elem::F32 => "float",
        Elem::F64 => "double",
    }
}

impl Prelude {
    /// The text: types, then helpers in the order in which they were asked for.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        for e in Elem::ALL {
            let _ = writeln!(out, "typedef {} {};", cuda_name(e), e.name());
        }
        out.push_str("#pragma nv_diag_suppress 177 /* a register that nobody reads */\n");
        out.push_str("#define WG_INLINE static __device__ __forceinline__\n");
        out.push_str(&self.helpers);
        out
    }
}

impl Dialect for Prelude {
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
        // Calculation would quiet a NaN; a constant is quiet from the start, as in C.
        let quiet = |bit: u64| if s.is_nan() { s.bits() | bit } else { s.bits() };
        if s.dtype() == DType::F32 {
            format!("__int_as_float({:#x})", quiet(1 << 22))
        } else {
            format!("__longlong_as_double({:#x}ll)", quiet(1 << 51))
        }
    }

    fn math(&self, stem: &str, e: Elem) -> String {
        format!("{stem}{}", if e == Elem::F32 { "f" } else { "" })
    }

    fn float_to_int(&mut self, from: Elem, to: Elem) -> String {
        // The machine's conversions truncate and saturate; NaN gives 0 but for 64 bits on either side.
        let (f, t) = (from.name(), to.name());
        let stem = if from == Elem::F32 { "float" } else { "double" };
        let target = if to == Elem::I64 { "ll" } else { "int" };
        let converted = match (from, to) {
            (Elem::F32, to) if to != Elem::I64 => format!("__{stem}2{target}_rz(x)"),
            _ => format!("x == x ? __{stem}2{target}_rz(x) : 0"),
        };
        let body = match to {
            Elem::U8 => format!("  const int r = {converted};\n  return (u8)(r < 0 ? 0 : r > 255 ? 255 : r);\n"),
            Elem::I8 => format!("  const int r = {converted};\n  return (i8)(r < -128 ? -128 : r > 127 ? 127 : r);\n"),
            _ => format!("  return {converted};\n"),
        };
        self.define(format!("wg_{f}_to_{t}"), &|n| format!("WG_INLINE {t} {n}({f} x) {{\n{body}}}\n"))
    }

    fn half_to_f32(&mut self, half: DType) -> String {
        let body = match half {
            DType::BF16 => "  return __int_as_float((int)((u32)h << 16));\n",
            _ => "  f32 r;\n  asm(\"cvt.f32.f16 %0, %1;\" : \"=f\"(r) : \"h\"(h));\n  return r;\n",
        };
        self.define(format!("wg_{}_to_f32", half.name()), &|n| format!("WG_INLINE f32 {n}(u16 h) {{\n{body}}}\n"))
    }

    fn f32_to_half(&mut self, half: DType) -> String {
        let body = match half {
            DType::BF16 => concat!(
                "  const u32 u = (u32)__float_as_int(x);\n",
                "  return (u16)(x == x ? (u + 0x7fff + ((u >> 16) & 1)) >> 16 : (u >> 16) | 0x40);\n"
            ),
            _ => "  u16 r;\n  asm(\"cvt.rn.f16.f32 %0, %1;\" : \"=h\"(r) : \"f\"(x));\n  return r;\n",
        };
        self.define(format!("wg_f32_to_{}", half.name()), &|n| format!("WG_INLINE u16 {n}(f32 x) {{\n{body}}}\n"))
    }

    fn bits(&mut self, from: Elem, to: Elem) -> String {
        let (f, t) = (from.name(), to.name());
        let text = match (from.is_float(), to.is_float(), from.bytes()) {
            (false, true, 4) => "__int_as_float((int)x)".to_string(),
            (false, true, _) => "__longlong_as_double((long long)x)".to_string(),
            (true, false, 4) => format!("({t})__float_as_int(x)"),
            (true, false, _) => format!("({t})__double_as_longlong(x)"),
            _ => format!("({t})x"),
        };
        self.define(format!("wg_bits_{f}_{t}"), &|n| format!("WG_INLINE {t} {n}({f} x) {{ return {text}; }}\n"))
    }
}

impl Language for Prelude {
    fn function(&self, symbol: &str, args: &[Arg<'_>], params: usize, shape: &Shape<'_>) -> String {
        let mut list: Vec<String> = args
            .iter()
            .map(|a| format!("{}{} *__restrict__ {}", if a.written { "" } else { "const " }, a.elem.name(), a.name))
            .collect();
        list.extend((0..params).map(|i| format!("const i64 p{i}")));
        let dynamic = match shape.dynamic {
            0 => "",
            _ => "\n  extern __shared__ __align__(1024) u8 wg_shared[];",
        };
        let beside = if shape.beside > 1 { format!(", {}", shape.beside) } else { String::new() };
        format!(
            "extern \"C\" __global__ void __launch_bounds__({}{beside}) {symbol}({}) {{{dynamic}",
            shape.count,
            list.join(", ")
        )
    }

    fn block(&self) -> &'static str {
        "blockIdx.x"
    }

    fn thread(&self) -> &'static str {
        "threadIdx.x"
    }

    fn barrier(&self, tiles: bool) -> &'static str {
        match tiles {
            // Matrix units read by another way than threads write.
            true => "asm volatile(\"fence.proxy.async.shared::cta;\" ::: \"memory\"); __syncthreads();",
            false => "__syncthreads();",
        }
    }

    fn copy(&mut self, bytes: usize, once: bool) -> Option<String> {
        let way = match bytes {
            16 if once => "cg",
            // Through the first-level cache: the taps of a window read what their neighbours have read.
            4 | 8 | 16 => "ca",
            _ => return None,
        };
        Some(self.define(format!("wg_copy{bytes}{way}"), &|f| {
            format!(
                "WG_INLINE void {f}(void *to, const void *from, bool any) {{\n  asm volatile(\"cp.async.{way}.shared.global \
                 [%0], [%1], {bytes}, %2;\" :: \"r\"((u32)__cvta_generic_to_shared(to)), \"l\"(from), \"r\"(any ? \
                 {bytes} : 0) : \"memory\");\n}}\n"
            )
        }))
    }

    fn copied(&self) -> Option<&'static str> {
        Some("asm volatile(\"cp.async.commit_group;\" ::: \"memory\");")
    }

    fn wait(&self, pending: u32) -> Option<String> {
        Some(format!("asm volatile(\"cp.async.wait_group {pending};\" ::: \"memory\");"))
    }

    fn pointer(&self, _space: Space, ty: &str, constant: bool) -> String {
        format!("{}{ty} *", if constant { "const " } else { "" })
    }

    fn array(&self, space: Space, elem: Elem, name: &str, len: usize, values: Option<&str>) -> String {
        let space = match space {
            Space::Shared => "__shared__ ",
            Space::Constant => "static __constant__ const ",
            Space::Table => "static __device__ const ",
            Space::Global | Space::Thread => "",
        };
        let values = values.map_or(String::new(), |v| format!(" = {{{v}}}"));
        format!("{space}__align__(16) {} {name}[{len}]{values};", elem.name())
    }

    fn rows(&mut self, elem: Elem, matrices: usize, transposed: bool) -> String {
        let (e, trans) = (elem.name(), if transposed { ".trans" } else { "" });
        let list = |f: &dyn Fn(usize) -> String, n: usize| (0..n).map(f).collect::<Vec<_>>().join(", ");
        let part = 4 / elem.bytes();
        let outputs = list(&|i| format!("\"=r\"(r{i})"), matrices);
        let mut text = format!("  u32 {};\n", list(&|i| format!("r{i}"), matrices));
        text.push_str(&format!(
            "  asm volatile(\"ldmatrix.sync.aligned.m8n8.x{matrices}{trans}.shared.b16 {{{}}}, [%{matrices}];\" : {outputs} \
             : \"r\"((u32)__cvta_generic_to_shared(base + offset)));\n",
            list(&|i| format!("%{i}"), matrices)
        ));
        for i in 0..matrices {
            text.push_str(&match elem {
                Elem::F32 => format!("  d{i} = __int_as_float((int)r{i});\n"),
                _ if part == 1 => format!("  d{i} = ({e})r{i};\n"),
                _ => format!("  d{} = ({e})r{i}; d{} = ({e})(r{i} >> 16);\n", 2 * i, 2 * i + 1),
            });
        }
        let results = list(&|i| format!("{e} &d{i}"), matrices * part);
        let name = format!("wg_rows{matrices}{}_{e}", if transposed { "t" } else { "" });
        self.define(name, &|f| {
            format!("WG_INLINE void {f}({results}, const {e} *base, i32 offset, u32) {{\n{text}}}\n")
        })
    }

    fn tiles(&mut self, unit: &MatrixUnit) -> Option<String> {
        matrix::tiles(self, unit)
    }

    fn matrix(&mut self, unit: &MatrixUnit) -> Option<String> {
        matrix::helper(self, unit)
    }
}
