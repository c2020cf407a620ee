//! The natural logarithm, and powers.

use super::Emit;
use super::exp::{EXP_RANGE, Reduced, exp_normal, exp_reduced, reduce};
use winograph_ir::indexed::ValId;
use winograph_ir::{BinaryOp, DType, UnaryOp};

/// ln 2 as a sum of two f32.
const LN2_F32: [f64; 2] = [0.6931471824645996, -1.9046542121259336e-9];
/// ln 2 as a sum of two f64, the first with 42 bits: products with exponents are exact.
const LN2_F64: [f64; 2] = [0.6931471805598903, 5.497923018708371e-14];

/// (ln(1 + f) − f + f²/2)/f³ for 1 + f between √½ and √2; relative error of the logarithm 2^-30.
const LOG_F32: [f64; 9] = [
    0.3333331250986941,
    -0.25000009617821817,
    0.20002126103860784,
    -0.16668001380635575,
    0.14219388708464503,
    -0.12405362050261047,
    0.11889240910952396,
    -0.11677654146359823,
    0.06746625431745144,
];
/// Σ 2·z^k/(2k + 3) for z = s², s = f/(2 + f); 2^-59 of ln(1 + f) = 2·artanh s.
const LOG_F64: [f64; 7] = [
    0.6666666666666735,
    0.39999999999411096,
    0.28571428743262606,
    0.22222198475992952,
    0.18183569739489244,
    0.15313903254223568,
    0.1479750763903558,
];
/// Σ z^k/(2k + 5), the series of (artanh s − s − s³/3)/s⁵; 2^-73 of artanh s.
const POW_F64: [f64; 8] = [
    0.1999999999999999,
    0.1428571428572261,
    0.11111111108755276,
    0.09090909436748744,
    0.07692278326798438,
    0.06668162897012271,
    0.058373241319836865,
    0.059952165166580425,
];
/// What 1/3 in f64 leaves out.
const THIRD_REST: f64 = 1.850371707708594e-17;

/// A positive x as `m·2^k`, m between √½ and √2: k as a float, and m − 1, which is exact.
fn decompose(e: &mut Emit, x: ValId) -> (ValId, ValId) {
    // Denormals are scaled up. So are zero and negative numbers, of which nothing is kept.
    let tiny = e.below(x, e.pick(f32::MIN_POSITIVE as f64, f64::MIN_POSITIVE));
    let shift = e.mantissa + 2;
    let scaled = e.scale(2f64.powi(shift as i32), x);
    let x = e.choose(tiny, scaled, x);
    let bits = e.bits(x);
    let half_root = e.int(e.pick(0x3f3504f3, 0x3fe6a09e667f3bcd));
    let above = e.sub(bits, half_root);
    let k = e.shr(above, e.mantissa);
    let whole = e.shl(k, e.mantissa);
    let m = e.sub(bits, whole);
    let m = e.unbits(m);
    let one = e.float(1.0);
    let f = e.sub(m, one);
    let k = e.cast(k, e.float);
    let (by, zero) = (e.float(-(shift as f64)), e.float(-0.0));
    let adjust = e.choose(tiny, by, zero);
    (e.add(k, adjust), f)
}

/// `ln x`.
pub(super) fn log(e: &mut Emit, x: ValId) -> ValId {
    let (k, f) = decompose(e, x);
    let ln2 = e.pick(LN2_F32, LN2_F64);
    let low = e.scale(ln2[1], k);
    // ln(1 + f) = f − (f²/2 − correction).
    let correction = if e.is_f32() {
        let p = e.poly(f, &LOG_F32);
        let f2 = e.mul(f, f);
        let f3 = e.mul(f2, f);
        e.fma(f3, p, low)
    } else {
        let two = e.float(2.0);
        let d = e.add(f, two);
        let s = e.bin(BinaryOp::Div, f, d);
        let z = e.mul(s, s);
        let p = e.poly(z, &LOG_F64);
        let zp = e.mul(z, p);
        let half = e.scale(0.5, f);
        let sum = e.fma(half, f, zp);
        e.fma(s, sum, low)
    };
    let minus_half = e.scale(-0.5, f);
    let tail = e.fma(minus_half, f, correction);
    let near = e.add(f, tail);
    let y = e.fma_const(ln2[0], k, near);
    log_specials(e, x, y)
}

/// A logarithm of x with the values for 0, infinity, NaN and negative numbers put in.
fn log_specials(e: &mut Emit, x: ValId, y: ValId) -> ValId {
    let finite = e.below(x, f64::INFINITY);
    let y = e.choose(finite, y, x);
    let zero = e.float(0.0);
    let is_zero = e.bin(BinaryOp::Eq, x, zero);
    let least = e.float(f64::NEG_INFINITY);
    let y = e.choose(is_zero, least, y);
    let negative = e.lt(x, zero);
    let nan = e.float(f64::NAN);
    e.choose(negative, nan, y)
}

/// Powers to small constant exponents.
pub(super) fn small_power(e: &mut Emit, x: ValId, y: f64) -> Option<ValId> {
    if y == 0.0 {
        return Some(e.float(1.0));
    }
    if y == -1.0 {
        let one = e.float(1.0);
        return Some(e.bin(BinaryOp::Div, one, x));
    }
    if y == 0.5 {
        // The root of −0 is −0 and that of −∞ NaN; the powers are 0 and ∞.
        let zero = e.float(0.0);
        let plus = e.add(x, zero);
        let root = e.g.unary(UnaryOp::Sqrt, plus);
        let least = e.float(f64::NEG_INFINITY);
        let is_least = e.bin(BinaryOp::Eq, x, least);
        let infinity = e.float(f64::INFINITY);
        return Some(e.choose(is_least, infinity, root));
    }
    if y == 1.0 {
        return Some(x);
    }
    let square = e.mul(x, x);
    match y {
        2.0 => Some(square),
        3.0 => Some(e.mul(square, x)),
        4.0 => Some(e.mul(square, square)),
        _ => None,
    }
}

/// `x^y` as `e^(y·ln|x|)` with a sign: the logarithm in f64 for f32, and as a sum of two f64 for f64.
pub(super) fn pow(e: &mut Emit, x: ValId, y: ValId) -> ValId {
    let a = e.abs(x);
    let magnitude = if e.is_f32() {
        let (a, y) = (e.cast(a, DType::F64), e.cast(y, DType::F64));
        let mut w = e.wide();
        let log = log(&mut w, a);
        let product = w.mul(y, log);
        // Within, f64 is normal and f32 zero or infinite at the ends.
        let product = w.at_least(product, -200.0);
        let product = w.at_most(product, 200.0);
        let reduced = reduce(&mut w, product);
        let wide = exp_normal(&mut w, &reduced);
        e.cast(wide, DType::F32)
    } else {
        pow_f64(e, a, y)
    };
    pow_specials(e, x, y, a, magnitude)
}

fn pow_f64(e: &mut Emit, a: ValId, y: ValId) -> ValId {
    let (log, rest) = log_twofold(e, a);
    let log = log_specials(e, a, log);
    let product = e.mul(y, log);
    let low = e.fms(y, log, product);
    let low = e.fma(y, rest, low);
    // Where the product is large or infinite the lower part means nothing, and may be NaN.
    let size = e.abs(product);
    let in_range = e.below(size, 800.0);
    let zero = e.float(0.0);
    let low = e.choose(in_range, low, zero);
    let product = e.at_least(product, EXP_RANGE.1[0]);
    let product = e.at_most(product, EXP_RANGE.1[1]);
    let Reduced { shifted, r } = reduce(e, product);
    let r = e.add(r, low);
    exp_reduced(e, product, &Reduced { shifted, r })
}

/// The natural logarithm of a positive f64 as a sum of two: about 68 bits.
fn log_twofold(e: &mut Emit, x: ValId) -> (ValId, ValId) {
    let (k, f) = decompose(e, x);
    let one = e.float(1.0);
    // s = f/(2 + f) in two parts. The divisor is d + d_rest.
    let two = e.float(2.0);
    let d = e.add(f, two);
    let back = e.sub(d, two);
    let d_rest = e.sub(f, back);
    let inverse = e.bin(BinaryOp::Div, one, d);
    let s = e.mul(f, inverse);
    let rest = e.fnma(s, d, f);
    let rest = e.fnma(s, d_rest, rest);
    let s_rest = e.mul(rest, inverse);
    // z = s².
    let z = e.mul(s, s);
    let z_rest = e.fms(s, s, z);
    let twice = e.add(s, s);
    let z_rest = e.fma(twice, s_rest, z_rest);
    // c = 1/3 + z/5 + z²/7 + …
    let series = e.poly(z, &POW_F64);
    let p = e.mul(z, series);
    let third = e.float(1.0 / 3.0);
    let c = e.add(third, p);
    let c_rest = e.sub(third, c);
    let c_rest = e.add(c_rest, p);
    let third_rest = e.float(THIRD_REST);
    let c_rest = e.add(c_rest, third_rest);
    // t = s·z·c, so that artanh s = s + t.
    let (w, w_rest) = twofold_product(e, (z, z_rest), (c, c_rest));
    let (t, t_rest) = twofold_product(e, (s, s_rest), (w, w_rest));
    let u = e.add(s, t);
    let u_rest = e.sub(s, u);
    let u_rest = e.add(u_rest, t);
    let more = e.add(t_rest, s_rest);
    let u_rest = e.add(u_rest, more);
    // k·ln 2 + 2u; the first product is exact.
    let base = e.scale(LN2_F64[0], k);
    let near = e.add(u, u);
    let sum = e.add(base, near);
    let rest = e.sub(base, sum);
    let rest = e.add(rest, near);
    let low = e.scale(LN2_F64[1], k);
    let low = e.fma_const(2.0, u_rest, low);
    (sum, e.add(rest, low))
}

fn twofold_product(e: &mut Emit, (a, a_rest): (ValId, ValId), (b, b_rest): (ValId, ValId)) -> (ValId, ValId) {
    let product = e.mul(a, b);
    let rest = e.fms(a, b, product);
    let rest = e.fma(a, b_rest, rest);
    (product, e.fma(a_rest, b, rest))
}

/// The sign of a power, and C99's special cases (Annex F.9.4.4).
fn pow_specials(e: &mut Emit, x: ValId, y: ValId, a: ValId, magnitude: ValId) -> ValId {
    let (zero, one) = (e.float(0.0), e.float(1.0));
    let whole = e.g.unary(UnaryOp::Trunc, y);
    let is_whole = e.bin(BinaryOp::Eq, whole, y);
    let half = e.scale(0.5, y);
    let half_whole = e.g.unary(UnaryOp::Trunc, half);
    let is_fraction = e.bin(BinaryOp::Ne, half_whole, half);
    let is_odd = e.bin(BinaryOp::And, is_whole, is_fraction);
    // 1 to any power, −1 to an infinite one.
    let is_unit = e.bin(BinaryOp::Eq, a, one);
    let y_is_number = e.bin(BinaryOp::Eq, y, y);
    let unit = e.bin(BinaryOp::And, is_unit, y_is_number);
    let result = e.choose(unit, one, magnitude);
    // Odd powers take the sign of the base, that of −0 too.
    let sign = e.sign(x);
    let none = e.int(0);
    let sign = e.choose(is_odd, sign, none);
    let result = e.flip_sign(result, sign);
    // A negative finite base to a broken power.
    let negative = e.lt(x, zero);
    let finite = e.below(a, f64::INFINITY);
    let yes = e.g.constant(winograph_ir::Scalar::from_bool(true));
    let is_broken = e.bin(BinaryOp::Xor, is_whole, yes);
    let outside = e.bin(BinaryOp::And, negative, finite);
    let outside = e.bin(BinaryOp::And, outside, is_broken);
    let nan = e.float(f64::NAN);
    let result = e.choose(outside, nan, result);
    // Whatever comes, NaN included: 1^y and x^0.
    let base_one = e.bin(BinaryOp::Eq, x, one);
    let power_zero = e.bin(BinaryOp::Eq, y, zero);
    let always_one = e.bin(BinaryOp::Or, base_one, power_zero);
    e.choose(always_one, one, result)
}
