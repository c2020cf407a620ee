//! The exponential function and what is made of it.

use super::Emit;
use std::f64::consts::LOG2_E;
use winograph_ir::BinaryOp;
use winograph_ir::indexed::ValId;

/// ln 2 as a sum of two f32.
const LN2_F32: [f64; 2] = [0.6931471824645996, -1.9046542121259336e-9];
/// ln 2 as a sum of two f64.
const LN2_F64: [f64; 2] = [std::f64::consts::LN_2, 2.3190468138462996e-17];

/// e^r for |r| ≤ ln 2 / 2; relative error of the fit 2^-28.
const EXP_F32: [f64; 7] =
    [1.0, 1.0, 0.500000009569829, 0.1666651830611607, 0.04166620414790149, 0.008368953504803206, 0.0013950601713674591];
/// e^r for |r| ≤ ln 2 / 2; 2^-58.
const EXP_F64: [f64; 12] = [
    1.0,
    1.0,
    0.5000000000000013,
    0.166666666666667,
    0.04166666666651432,
    0.00833333333330702,
    0.0013888888947331094,
    0.00019841269917792882,
    2.4801489590622948e-5,
    2.7557215929884194e-6,
    2.7631413791272013e-7,
    2.5117980059584315e-8,
];
/// (tanh(x) − x)/x³ in x² for |x| ≤ 5/8; 2^-28 of tanh(x).
const TANH_F32: [f64; 5] =
    [-0.3333328392509334, 0.13331491280968444, -0.05374349758895753, 0.02065058577481487, -0.0057170434533507985];
/// (tanh(x) − x)/x³ in x² for |x| ≤ 5/8; 2^-56 of tanh(x).
const TANH_F64: [f64; 11] = [
    -0.33333333333332876,
    0.13333333333264916,
    -0.053968253932482425,
    0.021869487601967504,
    -0.00886322131929287,
    0.0035919915709312624,
    -0.0014549704773034213,
    0.0005863524886793789,
    -0.00022863325127297184,
    7.721919134000544e-5,
    -1.6107552061206536e-5,
];
/// erf(x)/x − 1 in x² for |x| ≤ 7/8; 2^-27.
const ERF_F32: [f64; 6] = [
    0.12837915853974124,
    -0.3761255715236977,
    0.1128252418280608,
    -0.02679395491776572,
    0.005035872232830593,
    -0.0006222423017568896,
];
/// erf(x)/x − 1 in x² for |x| ≤ 1; 2^-57.
const ERF_F64: [f64; 12] = [
    0.12837916709551256,
    -0.3761263890318355,
    0.11283791670945252,
    -0.026866170643276035,
    0.005223977607422288,
    -0.0008548325989653283,
    0.00012055295319521354,
    -1.4924744649931631e-5,
    1.6447517567641667e-6,
    -1.6209175426580397e-7,
    1.3722975493826882e-8,
    -7.801189557567462e-10,
];
/// ln erfc(x) for 7/8 ≤ x ≤ 4; 2^-33 of erf(x).
const LOG_ERFC_F32: [f64; 8] = [
    0.000162024791774765,
    -1.1294531608346703,
    -0.6334734725677847,
    -0.10813903058466864,
    0.025027143265373326,
    -0.0041356452459325585,
    0.00042708304956089193,
    -2.0451365709511385e-5,
];
/// ln erfc(x) for 1 ≤ x ≤ 6; 2^-59 of erf(x).
const LOG_ERFC_F64: [f64; 19] = [
    -1.7960252637527003e-7,
    -1.128377329438121,
    -0.6366284881220567,
    -0.10274725436527374,
    0.019078159301441983,
    0.00028048368662205597,
    -0.0017689954441321197,
    0.0006411683612844878,
    -4.481960953027557e-5,
    -7.036810761508916e-5,
    4.503797194578622e-5,
    -1.6514132340493302e-5,
    4.327094106649048e-6,
    -8.505859476179918e-7,
    1.2570706962739544e-7,
    -1.3626990991413065e-8,
    1.0257277177515346e-9,
    -4.7961905314249304e-11,
    1.049661098076014e-12,
];

/// An argument x as `n·ln 2 + r` with a whole n.
pub(super) struct Reduced {
    /// n + 1.5·2^mantissa: its low bits are n in two's complement.
    pub(super) shifted: ValId,
    /// The rest.
    pub(super) r: ValId,
}

pub(super) fn reduce(e: &mut Emit, x: ValId) -> Reduced {
    let magic = e.float(1.5 * (1i64 << e.mantissa) as f64);
    let shifted = e.fma_const(LOG2_E, x, magic);
    let n = e.sub(shifted, magic);
    let ln2 = e.pick(LN2_F32, LN2_F64);
    let r = e.fma_const(-ln2[0], n, x);
    let r = e.fma_const(-ln2[1], n, r);
    Reduced { shifted, r }
}

/// 2^(n + offset) from the low bits of a shifted n; the exponent must be that of a normal number.
fn power_of_two(e: &mut Emit, shifted: ValId, exponent_field: ValId) -> ValId {
    let bits = e.bits(shifted);
    let n = e.shl(bits, e.mantissa);
    let field = e.bin(BinaryOp::Add, n, exponent_field);
    e.unbits(field)
}

/// e^x for n within the exponents of normal numbers.
pub(super) fn exp_normal(e: &mut Emit, reduced: &Reduced) -> ValId {
    let p = e.poly_by_type(reduced.r, &EXP_F32, &EXP_F64);
    let one = e.int(e.bias << e.mantissa);
    let s = power_of_two(e, reduced.shifted, one);
    e.mul(p, s)
}

/// e^x for an x within [`EXP_RANGE`] and its reduction: overflows to infinity and underflows gradually.
pub(super) fn exp_reduced(e: &mut Emit, x: ValId, reduced: &Reduced) -> ValId {
    let p = e.poly_by_type(reduced.r, &EXP_F32, &EXP_F64);
    // 2^n is a product of two powers, since n reaches beyond the exponents of normal numbers at both ends. The first
    // product is exact.
    let small = e.below(x, e.pick(-80.0, -700.0));
    let (up, down) = (e.int((e.bias + 64) << e.mantissa), e.int((e.bias - 1) << e.mantissa));
    let field = e.choose(small, up, down);
    let s = power_of_two(e, reduced.shifted, field);
    let (tiny, two) = (e.float(2f64.powi(-64)), e.float(2.0));
    let rest = e.choose(small, tiny, two);
    let ps = e.mul(p, s);
    e.mul(ps, rest)
}

/// Arguments within which e^x is neither 0 nor infinity after rounding, and a little more.
pub(super) const EXP_RANGE: ([f64; 2], [f64; 2]) = ([-104.0, 89.0], [-746.0, 710.0]);

/// `e^x`.
pub(super) fn exp(e: &mut Emit, x: ValId) -> ValId {
    let [lo, hi] = e.pick(EXP_RANGE.0, EXP_RANGE.1);
    let x = e.at_least(x, lo);
    let x = e.at_most(x, hi);
    let reduced = reduce(e, x);
    exp_reduced(e, x, &reduced)
}

/// `tanh x`: an odd polynomial near zero, `1 − 2/(e^2x + 1)` further out.
pub(super) fn tanh(e: &mut Emit, x: ValId) -> ValId {
    let a = e.abs(x);
    let z = e.mul(a, a);
    let p = e.poly_by_type(z, &TANH_F32, &TANH_F64);
    let cube = e.mul(a, z);
    let near = e.fma(cube, p, a);
    // Beyond, the result rounds to 1.
    let far = e.at_most(a, e.pick(9.125, 20.0));
    let twice = e.add(far, far);
    let reduced = reduce(e, twice);
    let power = exp_normal(e, &reduced);
    let (one, minus_two) = (e.float(1.0), e.float(-2.0));
    let d = e.add(power, one);
    let quotient = e.bin(BinaryOp::Div, minus_two, d);
    let far = e.add(quotient, one);
    let is_near = e.below(a, 0.625);
    let y = e.choose(is_near, near, far);
    let sign = e.sign(x);
    e.flip_sign(y, sign)
}

/// `erf x`: an odd polynomial near zero, `1 − e^p(x)` further out.
pub(super) fn erf(e: &mut Emit, x: ValId) -> ValId {
    let a = e.abs(x);
    let z = e.mul(a, a);
    let q = e.poly_by_type(z, &ERF_F32, &ERF_F64);
    let near = e.fma(a, q, a);
    // Beyond, the result rounds to 1.
    let far = e.at_most(a, e.pick(4.0, 6.0));
    let p = e.poly_by_type(far, &LOG_ERFC_F32, &LOG_ERFC_F64);
    let reduced = reduce(e, p);
    let erfc = exp_normal(e, &reduced);
    let one = e.float(1.0);
    let far = e.sub(one, erfc);
    let is_near = e.below(a, e.pick(0.875, 1.0));
    let y = e.choose(is_near, near, far);
    let sign = e.sign(x);
    e.flip_sign(y, sign)
}
