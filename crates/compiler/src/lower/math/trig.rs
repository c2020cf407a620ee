//! Sine and cosine.

use super::{Emit, large};
use std::f64::consts::{FRAC_2_PI, FRAC_PI_2};
use winograph_ir::BinaryOp;
use winograph_ir::DType;
use winograph_ir::indexed::ValId;

/// π/2 as a sum of three f64.
const HALF_PI: [f64; 3] = [FRAC_PI_2, 6.123233995736766e-17, -1.4973849048591698e-33];

/// Largest magnitude that is reduced in floats.
const LIMIT: f64 = (1u64 << 45) as f64;

/// (sin r − r)/r³ in r² for |r| ≤ π/4; relative error of the sine 2^-28.
const SIN_F32: [f64; 3] = [-0.16666654873466674, 0.008332173542598693, -0.00019516655742553017];
/// (cos r − 1 + r²/2)/r⁴ in r² for |r| ≤ π/4; 2^-33.
const COS_F32: [f64; 3] = [0.04166664674779898, -0.0013887361451061639, 2.4437730176683917e-5];
/// As for f32; 2^-58.
const SIN_F64: [f64; 6] = [
    -0.16666666666666632,
    0.008333333333322316,
    -0.00019841269829725216,
    2.755731366206151e-6,
    -2.5050753265096286e-8,
    1.5896504975659858e-10,
];
/// As for f32; 2^-64.
const COS_F64: [f64; 6] = [
    0.0416666666666666,
    -0.001388888888887399,
    2.4801587289394903e-5,
    -2.7557314326023763e-7,
    2.087571955776305e-9,
    -1.1359448631276105e-11,
];

/// `sin x`.
pub(super) fn sin(e: &mut Emit, x: ValId) -> ValId {
    let (r, quadrant) = reduce(e, x);
    let y = quarter_wave(e, r, quadrant);
    // Of |x| so far.
    let sign = e.sign(x);
    e.flip_sign(y, sign)
}

/// `cos x = sin(|x| + π/2)`.
pub(super) fn cos(e: &mut Emit, x: ValId) -> ValId {
    let (r, quadrant) = reduce(e, x);
    let one = e.int(1);
    let next = e.add(quadrant, one);
    quarter_wave(e, r, next)
}

/// |x| as `q·π/2 + r` with |r| ≤ π/4: r, and q modulo 4 in the low bits of an integer.
///
/// All in f64, also for f32. Each multiple of a part of π/2 is subtracted in one rounding, and the first of them
/// exactly: the difference is a multiple of 2^-53 below 1. Magnitudes beyond [`LIMIT`] are reduced in integers, infinities
/// become NaN.
fn reduce(e: &mut Emit, x: ValId) -> (ValId, ValId) {
    let a = e.abs(x);
    let limit = e.float(LIMIT);
    let within = e.bin(BinaryOp::Le, a, limit);
    let nothing = e.sub(a, a);
    let whole = e.cast(a, DType::F64);
    let a = e.choose(within, a, nothing);
    let a = e.cast(a, DType::F64);
    let narrow = e.is_f32();
    let mut w = e.wide();
    let (far, far_quadrant) = large::reduce(&mut w, whole, narrow);
    let magic = w.float(1.5 * (1i64 << w.mantissa) as f64);
    let shifted = w.fma_const(FRAC_2_PI, a, magic);
    let n = w.sub(shifted, magic);
    let mut r = a;
    // Two parts leave less than 2^-60, of which f32 sees nothing.
    let parts = e.pick(2, 3);
    let mut w = e.wide();
    for part in HALF_PI.into_iter().take(parts) {
        r = w.fma_const(-part, n, r);
    }
    let quadrant = w.bits(shifted);
    // Of what is not within, r is 0 here, or NaN.
    let far = w.add(far, r);
    let (r, quadrant) = (w.choose(within, r, far), w.choose(within, quadrant, far_quadrant));
    (e.cast(r, e.float), e.cast(quadrant, e.int))
}

/// sin(q·π/2 + r).
fn quarter_wave(e: &mut Emit, r: ValId, quadrant: ValId) -> ValId {
    let z = e.mul(r, r);
    let p = e.poly_by_type(z, &SIN_F32, &SIN_F64);
    let rz = e.mul(r, z);
    let sin = e.fma(rz, p, r);
    let p = e.poly_by_type(z, &COS_F32, &COS_F64);
    let half = e.float(-0.5);
    let p = e.fma(z, p, half);
    let one = e.float(1.0);
    let cos = e.fma(z, p, one);
    let odd = e.and(quadrant, 1);
    let zero = e.int(0);
    let is_even = e.bin(BinaryOp::Eq, odd, zero);
    let y = e.choose(is_even, sin, cos);
    let bits = 8 * e.float.size() as i64;
    let high = e.and(quadrant, 2);
    let sign = e.shl(high, bits - 2);
    e.flip_sign(y, sign)
}
