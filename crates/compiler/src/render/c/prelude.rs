//! What a translation unit declares before its kernels: the vector types and helper functions that they use, and no
//! others, so that little is left for the C compiler to read.

use super::types::{CType, Elem};
use crate::render::clike::Dialect;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeSet;
use std::fmt::Write;
use winograph_ir::{DType, Scalar};

/// Types and helper functions asked for so far.
#[derive(Default)]
pub(super) struct Prelude {
    types: BTreeSet<CType>,
    known: FxHashSet<String>,
    shuffles: FxHashMap<(CType, Vec<u32>), usize>,
    fills: FxHashMap<(CType, String), usize>,
    helpers: String,
}

/// The vector sizes in bytes for which x86 has instructions, with the macro that says that the compiler may use them.
const X86_FMA: [(usize, &str); 3] = [(16, "__FMA__"), (32, "__FMA__"), (64, "__AVX512F__")];

impl Prelude {
    /// Asks for a type and gives its name.
    pub(super) fn ty(&mut self, t: CType) -> String {
        if t.lanes > 1 {
            self.types.insert(t);
        }
        t.name()
    }

    /// The name of a type in memory: with the alignment of an element.
    pub(super) fn memory_ty(&mut self, t: CType) -> String {
        if t.lanes > 1 { format!("{}m", self.ty(t)) } else { t.name() }
    }

    /// Defines a helper once; `build` writes its definition and may ask for others first.
    pub(super) fn helper(&mut self, name: String, build: impl FnOnce(&mut Prelude, &str) -> String) -> String {
        if self.known.insert(name.clone()) {
            let text = build(self, &name);
            self.helpers.push_str(&text);
        }
        name
    }

    /// The text: types, then helpers in the order in which they were asked for.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        for e in Elem::ALL {
            let _ = writeln!(out, "typedef {} {};", c_name(e), e.name());
        }
        out.push_str("typedef __UINTPTR_TYPE__ uptr;\n");
        out.push_str("#ifndef __has_builtin\n#define __has_builtin(x) 0\n#endif\n");
        out.push_str("#if defined(__AVX512BW__) && defined(__AVX512VL__)\n#define WG_AVX512BWVL\n#endif\n");
        out.push_str("#define WG_INLINE static inline __attribute__((always_inline))\n");
        out.push_str("#define WG_OUTLINE static __attribute__((noinline))\n");
        out.push_str(concat!(
            "#ifdef __clang__\n",
            "#define WG_ROLLED _Pragma(\"clang loop unroll(disable) vectorize(disable)\")\n",
            "#else\n",
            "#define WG_ROLLED _Pragma(\"GCC unroll 1\")\n",
            "#endif\n"
        ));
        for t in &self.types {
            let (e, n, bytes) = (t.elem.name(), t.name(), t.bytes());
            let _ = writeln!(out, "typedef {e} {n} __attribute__((vector_size({bytes})));");
            let align = t.elem.bytes();
            let _ =
                writeln!(out, "typedef {e} {n}m __attribute__((vector_size({bytes}), aligned({align}), may_alias));");
        }
        out.push_str(&self.helpers);
        out
    }

    /// A scalar in every lane.
    pub(super) fn splat(&mut self, t: CType) -> String {
        self.helper(format!("wg_splat_{}", t.name()), |p, n| {
            let ty = p.ty(t);
            let xs = vec!["x"; t.lanes as usize].join(", ");
            format!("WG_INLINE {ty} {n}({} x) {{ return ({ty}){{{xs}}}; }}\n", t.elem.name())
        })
    }

    /// An array of a vector's lanes that all hold a value.
    pub(super) fn fill(&mut self, t: CType, value: &str) -> String {
        let next = self.fills.len();
        let number = *self.fills.entry((t, value.to_string())).or_insert(next);
        self.helper(format!("wg_fill{number}_{}", t.name()), |_, n| {
            let (e, lanes, xs) = (t.elem.name(), t.lanes, vec![value; t.lanes as usize].join(", "));
            format!("static const {e} {n}[{lanes}] __attribute__((aligned(64))) = {{{xs}}};\n")
        })
    }

    /// `0, 1, 2, ...` in the lanes.
    pub(super) fn iota(&mut self, t: CType) -> String {
        let xs: Vec<String> = (0..t.lanes).map(|i| i.to_string()).collect();
        format!("({}){{{}}}", self.ty(t), xs.join(", "))
    }

    /// `wg_sel(mask, a, b)`: lanes of `a` where the mask is all ones, else of `b`.
    pub(super) fn select(&mut self, t: CType) -> String {
        self.helper(format!("wg_sel_{}", t.name()), |p, n| {
            let (ty, m) = (p.ty(t), p.ty(t.mask()));
            format!("WG_INLINE {ty} {n}({m} m, {ty} a, {ty} b) {{ return ({ty})((m & ({m})a) | (~m & ({m})b)); }}\n")
        })
    }

    /// `f(a, b)`: lanes of two vectors of type `t`, by their numbers in `a` and `b` put one after the other.
    pub(super) fn shuffle(&mut self, t: CType, pattern: &[u32]) -> String {
        let next = self.shuffles.len();
        let number = *self.shuffles.entry((t, pattern.to_vec())).or_insert(next);
        self.helper(format!("wg_shuffle{number}_{}", t.name()), |p, n| {
            let r = CType::new(t.elem, pattern.len() as u32);
            let (ty, result, index) = (p.ty(t), p.ty(r), p.ty(t.mask()));
            let numbers: Vec<String> = pattern.iter().map(|p| p.to_string()).collect();
            let numbers = numbers.join(", ");
            let lane = |&p: &u32| if p < t.lanes { format!("a[{p}]") } else { format!("b[{}]", p - t.lanes) };
            let lanes: Vec<String> = pattern.iter().map(lane).collect();
            // gcc before 12 has no function that changes the number of lanes.
            let otherwise = if r == t && t.lanes <= 128 {
                format!("  return __builtin_shuffle(a, b, ({index}){{{numbers}}});\n")
            } else {
                format!("  return ({result}){{{}}};\n", lanes.join(", "))
            };
            format!(
                "WG_INLINE {result} {n}({ty} a, {ty} b) {{\n#if __has_builtin(__builtin_shufflevector)\n  return __builtin_shufflevector(a, b, {numbers});\n#else\n{otherwise}#endif\n}}\n"
            )
        })
    }

    /// A function of `arity` arguments lane by lane: `lane` is its expression in `a`, `b`, `c`.
    pub(super) fn per_lane(&mut self, op: &str, t: CType, result: CType, arity: usize, lane: &str) -> String {
        self.helper(format!("wg_{op}_{}", t.name()), |p, n| {
            let (ty, r) = (p.ty(t), p.ty(result));
            let args: Vec<String> = ["a", "b", "c"][..arity].iter().map(|x| format!("{ty} {x}")).collect();
            format!(
                "WG_INLINE {r} {n}({}) {{\n  {r} r;\n  for (int l = 0; l < {}; l++) r[l] = {lane};\n  return r;\n}}\n",
                args.join(", "),
                t.lanes
            )
        })
    }

    /// A slow function of two arguments lane by lane: a loop that is kept one.
    pub(super) fn per_lane_slow(&mut self, op: &str, t: CType, lane: &str) -> String {
        self.helper(format!("wg_{op}_{}", t.name()), |p, n| {
            let ty = p.ty(t);
            format!(
                "WG_OUTLINE {ty} {n}({ty} a, {ty} b) {{\n  {ty} r;\n  WG_ROLLED for (int l = 0; l < {}; l++) r[l] = {lane};\n  return r;\n}}\n",
                t.lanes
            )
        })
    }

    /// Fused multiply-add of floats.
    pub(super) fn fma(&mut self, t: CType) -> String {
        let scalar = if t.elem == Elem::F32 { "__builtin_fmaf" } else { "__builtin_fma" };
        if t.lanes == 1 {
            return scalar.into();
        }
        if t.bytes() > 64 {
            return self.halves("fma", t, 3, Prelude::fma);
        }
        let loops = self.per_lane("fma_loop", t, t, 3, &format!("{scalar}(a[l], b[l], c[l])"));
        self.helper(format!("wg_fma_{}", t.name()), |p, n| {
            let ty = p.ty(t);
            let kind = if t.elem == Elem::F32 { "ps" } else { "pd" };
            let mut body =
                "#if __has_builtin(__builtin_elementwise_fma)\n  return __builtin_elementwise_fma(a, b, c);\n"
                    .to_string();
            if let Some((bytes, guard)) = X86_FMA.into_iter().find(|x| x.0 == t.bytes()) {
                let call = match bytes {
                    64 => {
                        let mask = if t.lanes == 16 { "(u16)-1" } else { "(u8)-1" };
                        format!("__builtin_ia32_vfmadd{kind}512_mask(a, b, c, {mask}, 4)")
                    }
                    32 => format!("__builtin_ia32_vfmadd{kind}256(a, b, c)"),
                    _ => format!("__builtin_ia32_vfmadd{kind}(a, b, c)"),
                };
                let _ = write!(body, "#elif defined({guard})\n  return {call};\n");
            }
            let _ = write!(body, "#else\n  return {loops}(a, b, c);\n#endif\n");
            format!("WG_INLINE {ty} {n}({ty} a, {ty} b, {ty} c) {{\n{body}}}\n")
        })
    }

    /// Square root of floats.
    pub(super) fn sqrt(&mut self, t: CType) -> String {
        let scalar = if t.elem == Elem::F32 { "__builtin_sqrtf" } else { "__builtin_sqrt" };
        if t.lanes == 1 {
            return scalar.into();
        }
        if t.bytes() > 64 {
            return self.halves("sqrt", t, 1, Prelude::sqrt);
        }
        let loops = self.per_lane("sqrt_loop", t, t, 1, &format!("{scalar}(a[l])"));
        self.helper(format!("wg_sqrt_{}", t.name()), |p, n| {
            let ty = p.ty(t);
            let kind = if t.elem == Elem::F32 { "ps" } else { "pd" };
            let mask = if t.lanes == 16 { "(u16)-1" } else { "(u8)-1" };
            // gcc turns the loop into one instruction; clang 14 does not.
            let builtin = match t.bytes() {
                16 => Some(("__SSE2__", format!("__builtin_ia32_sqrt{kind}(a)"))),
                32 => Some(("__AVX__", format!("__builtin_ia32_sqrt{kind}256(a)"))),
                64 => Some((
                    "__AVX512F__",
                    format!(
                        "\n#ifdef __clang__\n    __builtin_ia32_sqrt{kind}512(a, 4)\n#else\n    __builtin_ia32_sqrt{kind}512_mask(a, a, {mask}, 4)\n#endif\n  "
                    ),
                )),
                _ => None,
            };
            let body = match builtin {
                Some((guard, call)) => format!("#ifdef {guard}\n  return {call};\n#else\n  return {loops}(a);\n#endif\n"),
                None => format!("  return {loops}(a);\n"),
            };
            format!("WG_INLINE {ty} {n}({ty} a) {{\n{body}}}\n")
        })
    }

    /// Floor, ceil, trunc or round to even of floats, by the stem of the C function.
    pub(super) fn rounding(&mut self, stem: &str, t: CType) -> String {
        let suffix = if t.elem == Elem::F32 { "f" } else { "" };
        if t.lanes == 1 {
            return format!("__builtin_{stem}{suffix}");
        }
        self.per_lane(stem, t, t, 1, &format!("__builtin_{stem}{suffix}(a[l])"))
    }

    /// A function on a vector wider than any machine's, as the function on its halves.
    fn halves(&mut self, op: &str, t: CType, arity: usize, part: impl FnOnce(&mut Prelude, CType) -> String) -> String {
        let name = format!("wg_{op}_{}", t.name());
        let f = part(self, t.half());
        self.helper(name, |p, n| {
            let ty = p.ty(t);
            let split = p.split(t);
            let args = &["a", "b", "c"][..arity];
            let params: Vec<String> = args.iter().map(|x| format!("{ty} {x}")).collect();
            let decls: Vec<String> = args.iter().map(|x| format!("  {split} s{x} = {{{x}}};\n")).collect();
            let part = |i: usize| args.iter().map(|x| format!("s{x}.h[{i}]")).collect::<Vec<_>>().join(", ");
            format!(
                "WG_INLINE {ty} {n}({}) {{\n{}  {split} r;\n  r.h[0] = {f}({});\n  r.h[1] = {f}({});\n  return r.v;\n}}\n",
                params.join(", "),
                decls.concat(),
                part(0),
                part(1)
            )
        })
    }

    /// A union of a vector `v`, its halves `h` and its elements `e`.
    pub(super) fn split(&mut self, t: CType) -> String {
        let name = format!("wg_split_{}", t.name());
        self.helper(name, |p, n| {
            let (ty, half) = (p.ty(t), p.ty(t.half()));
            format!("typedef union {{ {ty} v; {half} h[2]; {} e[{}]; }} {n};\n", t.elem.name(), t.lanes)
        })
    }

    /// Minus zero, in a way that the compiler cannot see through: clang 14 for x86 takes it for plus zero where it makes
    /// a maximum or minimum of a comparison and a choice.
    pub(super) fn minus_zero(&mut self, e: Elem) -> String {
        let (f, u) = (e.name(), e.unsigned());
        let bits = self.bits(u, e);
        let sign = if e == Elem::F32 { "0x80000000u" } else { "0x8000000000000000u" };
        self.helper(format!("wg_minus_zero_{f}"), |_, n| {
            let u = u.name();
            format!(
                "WG_INLINE {f} {n}(void) {{\n  {u} x = {sign};\n  __asm__(\"\" : \"+r\"(x));\n  return {bits}(x);\n}}\n"
            )
        })
    }

    /// The bits of a scalar as another type of the same size.
    pub(super) fn bits(&mut self, from: Elem, to: Elem) -> String {
        let (f, t) = (from.name(), to.name());
        self.helper(format!("wg_bits_{f}_{t}"), |_, n| {
            format!("WG_INLINE {t} {n}({f} x) {{\n  {t} r;\n  __builtin_memcpy(&r, &x, sizeof r);\n  return r;\n}}\n")
        })
    }
}

/// The C type behind the name, without any header.
fn c_name(e: Elem) -> &'static str {
    match e {
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

impl Dialect for Prelude {
    fn define(&mut self, name: String, text: &dyn Fn(&str) -> String) -> String {
        self.helper(name, |_, n| text(n))
    }

    fn truth(&self) -> &'static str {
        "u8"
    }

    fn non_finite(&self, s: Scalar) -> String {
        let x = s.to_f64();
        let (suffix, payload) = if s.dtype() == DType::F32 { ("f", 0x3f_ffff) } else { ("", 0x7_ffff_ffff_ffff) };
        let sign = if x.is_sign_negative() { "-" } else { "" };
        if x.is_nan() {
            format!("({sign}__builtin_nan{suffix}(\"0x{:x}\"))", s.bits() & payload)
        } else {
            format!("({sign}__builtin_inf{suffix}())")
        }
    }

    fn math(&self, stem: &str, e: Elem) -> String {
        format!("__builtin_{stem}{}", if e == Elem::F32 { "f" } else { "" })
    }

    fn float_to_int(&mut self, from: Elem, to: Elem) -> String {
        Prelude::float_to_int(self, CType::new(from, 1), to)
    }

    fn half_to_f32(&mut self, half: DType) -> String {
        Prelude::half_to_f32(self, half, 1)
    }

    fn f32_to_half(&mut self, half: DType) -> String {
        Prelude::f32_to_half(self, half, 1)
    }

    fn bits(&mut self, from: Elem, to: Elem) -> String {
        Prelude::bits(self, from, to)
    }
}
