//! Helper functions of conversions: floats to integers, half floats to and from `f32`.

use super::prelude::Prelude;
use super::types::{CType, Elem};
use winograph_ir::DType;

/// Least and greatest value of an integer type as C constants.
fn limits(e: Elem) -> (&'static str, &'static str) {
    match e {
        Elem::U8 => ("0", "255"),
        Elem::I8 => ("-128", "127"),
        Elem::I32 => ("(-2147483647 - 1)", "2147483647"),
        _ => ("(-9223372036854775807LL - 1)", "9223372036854775807LL"),
    }
}

/// The first float above the type's values and the least value, exact in both float types.
fn float_limits(e: Elem) -> (&'static str, &'static str) {
    match e {
        Elem::U8 => ("256.0", "0.0"),
        Elem::I8 => ("128.0", "-128.0"),
        Elem::I32 => ("2147483648.0", "-2147483648.0"),
        _ => ("9223372036854775808.0", "-9223372036854775808.0"),
    }
}

impl Prelude {
    /// Float to integer as Rust's `as`: truncated, saturated, NaN to 0.
    pub(super) fn float_to_int(&mut self, from: CType, to: Elem) -> String {
        let (min, max) = limits(to);
        let (over, least) = float_limits(to);
        let name = format!("wg_{}_to_{}", from.name(), to.name());
        let (f, e) = (from.elem.name(), to.name());
        if from.lanes == 1 {
            return self.helper(name, |_, n| {
                format!(
                    "WG_INLINE {e} {n}({f} x) {{\n  return x >= ({f}){over} ? {max} : x < ({f}){least} ? {min} : x == x ? ({e})x : 0;\n}}\n"
                )
            });
        }
        let sel_in = self.select(from);
        let splat_in = self.splat(from);
        let result = from.with(to);
        self.helper(name, |p, n| {
            let (ty, r) = (p.ty(from), p.ty(result));
            let m = p.ty(from.mask());
            // Small integers go by way of 32 bits, which is what machines convert to.
            let wide = from.with(if to.bytes() < 4 { Elem::I32 } else { to });
            let (w, sel_out, splat_out) = (p.ty(wide), p.select(wide), p.splat(wide));
            let wide_mask = p.ty(wide.mask());
            format!(
                "WG_INLINE {r} {n}({ty} x) {{\n  {m} hi = x >= {splat_in}({over}), lo = x < {splat_in}({least});\n  {m} in = ~(hi | lo) & (x == x);\n  {w} v = __builtin_convertvector({sel_in}(in, x, ({ty}){{}}), {w});\n  v = {sel_out}(__builtin_convertvector(hi, {wide_mask}), {splat_out}({max}), v);\n  v = {sel_out}(__builtin_convertvector(lo, {wide_mask}), {splat_out}({min}), v);\n  return __builtin_convertvector(v, {r});\n}}\n"
            )
        })
    }

    /// Half floats, as bits, to `f32`: exact.
    pub(super) fn half_to_f32(&mut self, half: DType, lanes: u32) -> String {
        let from = CType::new(Elem::U16, lanes);
        let to = CType::new(Elem::F32, lanes);
        let name = format!("wg_{}_to_{}", half.name(), to.name());
        if half == DType::BF16 {
            let bits = (lanes == 1).then(|| self.bits(Elem::U32, Elem::F32));
            return self.helper(name, |p, n| {
                let (h, f, u) = (p.ty(from), p.ty(to), p.ty(to.with(Elem::U32)));
                match bits {
                    Some(bits) => format!("WG_INLINE f32 {n}(u16 h) {{ return {bits}((u32)h << 16); }}\n"),
                    None => {
                        let sixteen = p.splat(to.with(Elem::U32));
                        format!(
                            "WG_INLINE {f} {n}({h} h) {{ return ({f})(__builtin_convertvector(h, {u}) << {sixteen}(16)); }}\n"
                        )
                    }
                }
            });
        }
        if lanes == 1 {
            let to_f = self.bits(Elem::U32, Elem::F32);
            let fp16 = self.bits_fp16();
            return self.helper(name, |p, n| {
                let v8 = p.ty(CType::new(Elem::I16, 8));
                format!(
                    "WG_INLINE f32 {n}(u16 h) {{\n#if defined(__F16C__)\n  return __builtin_ia32_vcvtph2ps(({v8}){{(i16)h}})[0];\n#elif defined(__FLT16_MANT_DIG__)\n  return {fp16}(h);\n#else\n  u32 s = (u32)(h & 0x8000) << 16, e = (h >> 10) & 31, m = h & 0x3ff;\n  if (e == 31) return {to_f}(s | 0x7f800000u | (m << 13));\n  if (e) return {to_f}(s | ((e + 112) << 23) | (m << 13));\n  f32 x = (f32)m * 0x1p-24f;\n  return s ? -x : x;\n#endif\n}}\n"
                )
            });
        }
        if lanes > 16 {
            return self.halved(&name, from, to, |p| p.half_to_f32(half, lanes / 2));
        }
        let scalar = self.half_to_f32(half, 1);
        self.helper(name, |p, n| {
            let (h, f) = (p.ty(from), p.ty(to));
            let s = p.ty(from.with(Elem::I16));
            let (guard, call) = match lanes {
                16 => (
                    "__AVX512F__",
                    format!("__builtin_ia32_vcvtph2ps512_mask(({s})h, ({f}){{}}, (u16)-1, 4)"),
                ),
                8 => ("__F16C__", format!("__builtin_ia32_vcvtph2ps256(({s})h)")),
                _ => ("WG_NEVER", "h".to_string()),
            };
            format!(
                "WG_INLINE {f} {n}({h} h) {{\n#ifdef {guard}\n  return {call};\n#else\n  {f} r;\n  for (int l = 0; l < {lanes}; l++) r[l] = {scalar}(h[l]);\n  return r;\n#endif\n}}\n"
            )
        })
    }

    /// `f32` to half floats, as bits: rounded to nearest, ties to even.
    pub(super) fn f32_to_half(&mut self, half: DType, lanes: u32) -> String {
        let from = CType::new(Elem::F32, lanes);
        let to = CType::new(Elem::U16, lanes);
        let name = format!("wg_{}_to_{}", from.name(), half.name());
        if half == DType::BF16 {
            if lanes == 1 {
                let to_u = self.bits(Elem::F32, Elem::U32);
                return self.helper(name, |_, n| {
                    format!(
                        "WG_INLINE u16 {n}(f32 x) {{\n  u32 u = {to_u}(x);\n  return x == x ? (u + 0x7fff + ((u >> 16) & 1)) >> 16 : (u >> 16) | 0x40;\n}}\n"
                    )
                });
            }
            let u32s = from.with(Elem::U32);
            let (splat, sel) = (self.splat(u32s), self.select(u32s));
            return self.helper(name, |p, n| {
                let (f, h, u) = (p.ty(from), p.ty(to), p.ty(u32s));
                let m = p.ty(u32s.mask());
                format!(
                    "WG_INLINE {h} {n}({f} x) {{\n  {u} u = ({u})x, s = {splat}(16);\n  {u} r = (u + {splat}(0x7fff) + ((u >> s) & {splat}(1))) >> s;\n  r = {sel}(({m})(x == x), r, (u >> s) | {splat}(0x40));\n  return __builtin_convertvector(r, {h});\n}}\n"
                )
            });
        }
        if lanes == 1 {
            let to_u = self.bits(Elem::F32, Elem::U32);
            let fp16 = self.fp16_bits();
            return self.helper(name, |p, n| {
                let v4 = p.ty(CType::new(Elem::F32, 4));
                format!(
                    "WG_INLINE u16 {n}(f32 x) {{\n#if defined(__F16C__)\n  return (u16)__builtin_ia32_vcvtps2ph(({v4}){{x}}, 0)[0];\n#elif defined(__FLT16_MANT_DIG__)\n  return {fp16}(x);\n#else\n  u32 u = {to_u}(x), s = (u >> 16) & 0x8000, a = u & 0x7fffffff;\n  if (a > 0x7f800000u) return s | 0x7e00 | ((a >> 13) & 0x3ff);\n  if (a >= 0x477ff000u) return s | 0x7c00;\n  if (a >= 0x38800000u) return s | ((a - 0x38000000u + 0xfff + ((a >> 13) & 1)) >> 13);\n  if (a < 0x33000000u) return s;\n  u32 m = (a & 0x7fffff) | 0x800000, d = 126 - (a >> 23), k = m >> d, r = m & ((1u << d) - 1), t = 1u << (d - 1);\n  return s | (k + (r > t || (r == t && (k & 1))));\n#endif\n}}\n"
                )
            });
        }
        if lanes > 16 {
            return self.halved(&name, from, to, |p| p.f32_to_half(half, lanes / 2));
        }
        let scalar = self.f32_to_half(half, 1);
        self.helper(name, |p, n| {
            let (f, h) = (p.ty(from), p.ty(to));
            let s = p.ty(to.with(Elem::I16));
            let (guard, call) = match lanes {
                16 => (
                    "__AVX512F__",
                    format!("({h})__builtin_ia32_vcvtps2ph512_mask(x, 0, ({s}){{}}, (u16)-1)"),
                ),
                8 => ("__F16C__", format!("({h})__builtin_ia32_vcvtps2ph256(x, 0)")),
                _ => ("WG_NEVER", "x".to_string()),
            };
            format!(
                "WG_INLINE {h} {n}({f} x) {{\n#ifdef {guard}\n  return {call};\n#else\n  {h} r;\n  for (int l = 0; l < {lanes}; l++) r[l] = {scalar}(x[l]);\n  return r;\n#endif\n}}\n"
            )
        })
    }

    /// Bits of a half float to `f32` by the compiler's own type.
    fn bits_fp16(&mut self) -> String {
        self.helper("wg_fp16_to_f32".into(), |_, n| {
            format!(
                "#ifdef __FLT16_MANT_DIG__\nWG_INLINE f32 {n}(u16 h) {{\n  _Float16 r;\n  __builtin_memcpy(&r, &h, sizeof r);\n  return (f32)r;\n}}\n#endif\n"
            )
        })
    }

    /// `f32` to the bits of a half float by the compiler's own type.
    fn fp16_bits(&mut self) -> String {
        self.helper("wg_f32_to_fp16".into(), |_, n| {
            format!(
                "#ifdef __FLT16_MANT_DIG__\nWG_INLINE u16 {n}(f32 x) {{\n  _Float16 h = (_Float16)x;\n  u16 r;\n  __builtin_memcpy(&r, &h, sizeof r);\n  return r;\n}}\n#endif\n"
            )
        })
    }

    /// A conversion of a wide vector by halves.
    fn halved(&mut self, name: &str, from: CType, to: CType, part: impl FnOnce(&mut Prelude) -> String) -> String {
        let f = part(self);
        let (a, b) = (self.split(from), self.split(to));
        self.helper(name.to_string(), |p, n| {
            let (x, r) = (p.ty(from), p.ty(to));
            format!(
                "WG_INLINE {r} {n}({x} x) {{\n  {a} s = {{x}};\n  {b} r;\n  r.h[0] = {f}(s.h[0]);\n  r.h[1] = {f}(s.h[1]);\n  return r.v;\n}}\n"
            )
        })
    }
}
