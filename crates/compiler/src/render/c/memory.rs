//! Helper functions of vector loads and stores: strided, and in some lanes alone.

use super::prelude::Prelude;
use super::types::CType;

/// `f(p, stride)`: elements `p[0], p[stride], ...`.
pub(super) fn gather(p: &mut Prelude, t: CType) -> String {
    p.helper(format!("wg_gather_{}", t.name()), |p, n| {
        let ty = p.ty(t);
        let xs: Vec<String> = (0..t.lanes).map(|l| format!("p[{l} * s]")).collect();
        format!("WG_INLINE {ty} {n}(const {} *p, i64 s) {{ return ({ty}){{{}}}; }}\n", t.elem.name(), xs.join(", "))
    })
}

/// `f(p, stride, v)`: the inverse of [`gather`].
pub(super) fn scatter(p: &mut Prelude, t: CType) -> String {
    p.helper(format!("wg_scatter_{}", t.name()), |p, n| {
        let ty = p.ty(t);
        let xs: Vec<String> = (0..t.lanes).map(|l| format!("p[{l} * s] = v[{l}];")).collect();
        format!("WG_INLINE void {n}({} *p, i64 s, {ty} v) {{ {} }}\n", t.elem.name(), xs.join(" "))
    })
}

/// `f(p, v, past)`: neighbouring elements, past the caches if `past`; `p` is a multiple of the vector's size then.
pub(super) fn streamed_store(p: &mut Prelude, t: CType) -> String {
    p.helper(format!("wg_stream_{}", t.name()), |p, n| {
        let (ty, m, e, bytes) = (p.ty(t), p.memory_ty(t), t.elem.name(), t.bytes());
        let (isa, builtin) = match bytes {
            64 => ("__AVX512F__", "movntps512"),
            32 => ("__AVX__", "movntps256"),
            _ => ("__SSE__", "movntps"),
        };
        format!(
            "WG_INLINE void {n}({e} *p, {ty} v, int past) {{\n  \
             if (!past) {{ *({m} *)p = v; return; }}\n\
             #if __has_builtin(__builtin_nontemporal_store)\n  __builtin_nontemporal_store(v, ({ty} *)p);\n\
             #elif defined({isa})\n  typedef float wg_lanes __attribute__((vector_size({bytes})));\n  \
             __builtin_ia32_{builtin}((float *)p, (wg_lanes)v);\n\
             #else\n  *({m} *)p = v;\n#endif\n}}\n"
        )
    })
}

/// `f()`: what was stored past the caches is there before what is stored after it.
pub(super) fn streamed_end(p: &mut Prelude) -> String {
    p.helper("wg_streamed".into(), |_, n| {
        format!(
            "WG_INLINE void {n}(void) {{\n#if defined(__SSE__)\n  __builtin_ia32_sfence();\n\
             #else\n  __atomic_thread_fence(__ATOMIC_SEQ_CST);\n#endif\n}}\n"
        )
    })
}

/// `f(p, offset, lo, hi, fill)`: neighbouring elements in lanes `lo..hi`, `fill` in the others.
pub(super) fn masked_load(p: &mut Prelude, t: CType) -> String {
    let name = format!("wg_load_{}", t.name());
    let e = t.elem.name();
    if t.bytes() > 64 {
        let (f, split, half) = (masked_load(p, t.half()), p.split(t), t.lanes / 2);
        return p.helper(name, |p, n| {
            let ty = p.ty(t);
            format!(
                "WG_INLINE {ty} {n}(const {e} *p, i64 off, i64 lo, i64 hi, {e} fill) {{\n  {split} r;\n  r.h[0] = {f}(p, off, lo, hi, fill);\n  r.h[1] = {f}(p, off + {half}, lo - {half}, hi - {half}, fill);\n  return r.v;\n}}\n"
            )
        });
    }
    let (splat, part) = (p.splat(t), load_part(p, t));
    let mask = lane_mask(p, t);
    let between = avx2_masked(t).map(|x| (x, between(p, t)));
    p.helper(name, |p, n| {
        let (ty, m) = (p.ty(t), p.memory_ty(t));
        let lanes = t.lanes;
        let loops = format!(
            "  if (lo <= 0 && hi >= {lanes}) return *(const {m} *)(p + off);\n  return {part}(p, off, 1, lo, hi, fill);\n"
        );
        let avx2 = |p: &mut Prelude| -> String {
            let Some((stem, between)) = &between else { return String::new() };
            let (m, bytes, v) = (p.ty(t.mask()), t.elem.bytes(), avx2_vector(t));
            format!(
                "#elif defined(__AVX2__)\n  {m} m = {between}(lo, hi);\n  {m} r = ({m})__builtin_ia32_maskload{stem}((const {v} *)((uptr)p + (uptr)off * {bytes}), ({v})m);\n  return ({ty})(r | (~m & ({m}){splat}(fill)));\n"
            )
        };
        let body = match x86_masked(t) {
            Some(x) => format!(
                "#ifdef {}\n  return ({ty})__builtin_ia32_load{}_mask((const {} *)((uptr)p + (uptr)off * {}), ({}){splat}(fill), {mask}(lo, hi));\n{}#else\n{loops}#endif\n",
                x.guard, x.stem, x.element, t.elem.bytes(), x.vector, avx2(p)
            ),
            None => loops,
        };
        format!("WG_INLINE {ty} {n}(const {e} *p, i64 off, i64 lo, i64 hi, {e} fill) {{\n{body}}}\n")
    })
}

/// `f(p, offset, lo, hi, v)`: stores lanes `lo..hi`.
pub(super) fn masked_store(p: &mut Prelude, t: CType) -> String {
    let name = format!("wg_store_{}", t.name());
    let e = t.elem.name();
    if t.bytes() > 64 {
        let (f, split, half) = (masked_store(p, t.half()), p.split(t), t.lanes / 2);
        return p.helper(name, |p, n| {
            let ty = p.ty(t);
            format!(
                "WG_INLINE void {n}({e} *p, i64 off, i64 lo, i64 hi, {ty} v) {{\n  {split} s = {{v}};\n  {f}(p, off, lo, hi, s.h[0]);\n  {f}(p, off + {half}, lo - {half}, hi - {half}, s.h[1]);\n}}\n"
            )
        });
    }
    let (mask, part) = (lane_mask(p, t), store_part(p, t));
    let between = avx2_masked(t).map(|x| (x, between(p, t)));
    p.helper(name, |p, n| {
        let (ty, m) = (p.ty(t), p.memory_ty(t));
        let lanes = t.lanes;
        let loops = format!("    {part}(p, off, 1, lo, hi, v);\n");
        let avx2 = between.as_ref().map_or_else(String::new, |(stem, between)| {
            let (bytes, v) = (t.elem.bytes(), avx2_vector(t));
            format!(
                "#elif defined(__AVX2__)\n    __builtin_ia32_maskstore{stem}(({v} *)((uptr)p + (uptr)off * {bytes}), ({v}){between}(lo, hi), ({v})v);\n"
            )
        });
        let partly = match x86_masked(t) {
            Some(x) => format!(
                "#ifdef {}\n    __builtin_ia32_store{}_mask(({} *)((uptr)p + (uptr)off * {}), ({})v, {mask}(lo, hi));\n{avx2}#else\n{loops}#endif\n",
                x.guard, x.stem, x.element, t.elem.bytes(), x.vector
            ),
            None => loops,
        };
        format!(
            "WG_INLINE void {n}({e} *p, i64 off, i64 lo, i64 hi, {ty} v) {{\n  if (lo <= 0 && hi >= {lanes}) {{\n    *({m} *)(p + off) = v;\n  }} else {{\n{partly}  }}\n}}\n"
        )
    })
}

/// `f(p, offset, stride, lo, hi, fill)`: [`gather`] in lanes `lo..hi`, `fill` in the others.
pub(super) fn masked_gather(p: &mut Prelude, t: CType) -> String {
    let (whole, part) = (gather(p, t), load_part(p, t));
    p.helper(format!("wg_gather_some_{}", t.name()), |p, n| {
        let (ty, e, lanes) = (p.ty(t), t.elem.name(), t.lanes);
        format!(
            "WG_INLINE {ty} {n}(const {e} *p, i64 off, i64 s, i64 lo, i64 hi, {e} fill) {{\n  if (lo <= 0 && hi >= {lanes}) return {whole}(p + off, s);\n  return {part}(p, off, s, lo, hi, fill);\n}}\n"
        )
    })
}

/// `f(p, offset, stride, lo, hi, v)`: [`scatter`] of lanes `lo..hi`.
pub(super) fn masked_scatter(p: &mut Prelude, t: CType) -> String {
    let (whole, part) = (scatter(p, t), store_part(p, t));
    p.helper(format!("wg_scatter_some_{}", t.name()), |p, n| {
        let (ty, e, lanes) = (p.ty(t), t.elem.name(), t.lanes);
        format!(
            "WG_INLINE void {n}({e} *p, i64 off, i64 s, i64 lo, i64 hi, {ty} v) {{\n  if (lo <= 0 && hi >= {lanes}) {whole}(p + off, s, v);\n  else {part}(p, off, s, lo, hi, v);\n}}\n"
        )
    })
}

/// The rare case of loads: a loop over some lanes, neither unrolled nor repeated at each access.
fn load_part(p: &mut Prelude, t: CType) -> String {
    let split = p.split(t);
    p.helper(format!("wg_load_part_{}", t.name()), |p, n| {
        let (ty, e, lanes) = (p.ty(t), t.elem.name(), t.lanes);
        format!(
            "WG_OUTLINE {ty} {n}(const {e} *p, i64 off, i64 s, i64 lo, i64 hi, {e} fill) {{\n  {split} r;\n  WG_ROLLED for (i64 l = 0; l < {lanes}; l++) r.e[l] = fill;\n  lo = lo < 0 ? 0 : lo;\n  hi = hi > {lanes} ? {lanes} : hi;\n  WG_ROLLED for (i64 l = lo; l < hi; l++) r.e[l] = p[off + l * s];\n  return r.v;\n}}\n"
        )
    })
}

/// The rare case of stores.
fn store_part(p: &mut Prelude, t: CType) -> String {
    let split = p.split(t);
    p.helper(format!("wg_store_part_{}", t.name()), |p, n| {
        let (ty, e, lanes) = (p.ty(t), t.elem.name(), t.lanes);
        format!(
            "WG_OUTLINE void {n}({e} *p, i64 off, i64 s, i64 lo, i64 hi, {ty} v) {{\n  {split} r = {{v}};\n  lo = lo < 0 ? 0 : lo;\n  hi = hi > {lanes} ? {lanes} : hi;\n  WG_ROLLED for (i64 l = lo; l < hi; l++) p[off + l * s] = r.e[l];\n}}\n"
        )
    })
}

/// `f(lo, hi)`: bits `lo..hi` of as many as there are lanes.
fn lane_mask(p: &mut Prelude, t: CType) -> String {
    let lanes = t.lanes;
    p.helper(format!("wg_mask_{lanes}"), |_, n| {
        let ty = mask_type(lanes);
        // Bits below a place between 0 and the number of lanes, which may be as many as the type has.
        let below = |x: &str| {
            if lanes >= 64 { format!("({x} >= 64 ? ~0ull : (1ull << {x}) - 1)") } else { format!("((1ull << {x}) - 1)") }
        };
        format!(
            "WG_INLINE {ty} {n}(i64 lo, i64 hi) {{\n  lo = lo < 0 ? 0 : lo > {lanes} ? {lanes} : lo;\n  hi = hi < 0 ? 0 : hi > {lanes} ? {lanes} : hi;\n  return ({ty})({} & ~{});\n}}\n",
            below("hi"),
            below("lo")
        )
    })
}

fn mask_type(lanes: u32) -> &'static str {
    match lanes {
        0..=8 => "u8",
        9..=16 => "u16",
        17..=32 => "u32",
        _ => "u64",
    }
}

/// How x86 names a masked access.
struct X86Masked {
    guard: &'static str,
    stem: String,
    element: &'static str,
    vector: String,
}

/// AVX-512's masked loads and stores for a vector of 16, 32 or 64 bytes, in the integer types of its builtins.
fn x86_masked(t: CType) -> Option<X86Masked> {
    let bits = match t.bytes() {
        16 => 128,
        32 => 256,
        64 => 512,
        _ => return None,
    };
    let (stem, element, words) = match t.elem.bytes() {
        1 => ("dquqi", "char", true),
        2 => ("dquhi", "short", true),
        4 => ("dqusi", "int", false),
        _ => ("dqudi", "long long", false),
    };
    let guard = match (words, bits) {
        (false, 512) => "__AVX512F__",
        (true, 512) => "__AVX512BW__",
        (false, _) => "__AVX512VL__",
        // Needs BW too, but nothing has VL and not BW.
        (true, _) => "WG_AVX512BWVL",
    };
    Some(X86Masked {
        guard,
        stem: format!("{stem}{bits}"),
        element,
        vector: format!("{element} __attribute__((vector_size({})))", t.bytes()),
    })
}

/// How AVX2 names masked accesses of 16 or 32 bytes of elements of 4 or 8.
fn avx2_masked(t: CType) -> Option<&'static str> {
    match (t.elem.bytes(), t.bytes()) {
        (4, 16) => Some("d"),
        (4, 32) => Some("d256"),
        (8, 16) => Some("q"),
        (8, 32) => Some("q256"),
        _ => None,
    }
}

/// The type that AVX2's masked accesses take.
fn avx2_vector(t: CType) -> String {
    let element = if t.elem.bytes() == 8 { "long long" } else { "int" };
    format!("{element} __attribute__((vector_size({})))", t.bytes())
}

/// `f(lo, hi)`: integers as wide as the elements, all ones in lanes `lo..hi`.
pub(super) fn between(p: &mut Prelude, t: CType) -> String {
    let n = t.mask();
    p.helper(format!("wg_between_{}", n.name()), |p, name| {
        let (ty, splat, iota) = (p.ty(n), p.splat(n), p.iota(n));
        let lanes = n.lanes;
        format!(
            "WG_INLINE {ty} {name}(i64 lo, i64 hi) {{\n  lo = lo < 0 ? 0 : lo > {lanes} ? {lanes} : lo;\n  hi = hi < 0 ? 0 : hi > {lanes} ? {lanes} : hi;\n  return ({ty})(({iota} >= {splat}(lo)) & ({iota} < {splat}(hi)));\n}}\n"
        )
    })
}
