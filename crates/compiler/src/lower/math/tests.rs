use super::reference::{self, Twofold};
use super::*;
use crate::lower::testing::{Function, argument};

fn unary(op: UnaryOp, dtype: DType) -> Function {
    let mut g = Graph::new();
    let x = argument(&mut g, dtype, 0);
    let root = expand(&mut g, op, x);
    without_transcendentals(Function::new(g, root))
}

fn pow(dtype: DType) -> Function {
    let mut g = Graph::new();
    let (x, y) = (argument(&mut g, dtype, 0), argument(&mut g, dtype, 1));
    let root = expand_pow(&mut g, x, y);
    without_transcendentals(Function::new(g, root))
}

fn without_transcendentals(f: Function) -> Function {
    for v in f.values() {
        if let Val::Unary { op, .. } = v {
            assert!(!op.is_transcendental());
        }
        assert!(!matches!(v, Val::Binary { op: BinaryOp::Pow, .. }));
    }
    f
}

/// Size of a unit in the last place of an f32 near a number: no less than the least denormal.
fn ulp32(x: f64) -> f64 {
    let exponent = (x.abs().to_bits() >> 52) as i32 - 1023;
    2f64.powi(exponent.clamp(-126, 127) - 23)
}

/// The same for f64, times 2^-scale to keep clear of denormals.
fn ulp64(x: f64) -> f64 {
    let exponent = ((x.abs().to_bits() >> 52) as i32).max(1) - 1023;
    2f64.powi(exponent / 2) * 2f64.powi(exponent - exponent / 2 - 52)
}

/// Error of an f32 in units in the last place; infinite where one of the two is NaN, or infinite beyond rounding.
fn error32(got: f32, want: f64) -> f64 {
    if want.is_nan() || got.is_nan() {
        return if want.is_nan() && got.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if got as f64 == want || (got.is_infinite() && want as f32 == got) {
        return 0.0;
    }
    // A finite result where infinity is due counts as 2^128.
    let want = want.clamp(-2f64.powi(128), 2f64.powi(128));
    let got = (got as f64).clamp(-2f64.powi(128), 2f64.powi(128));
    (got - want).abs() / ulp32(want)
}

fn error64(got: f64, want: Twofold) -> f64 {
    if got == want.0 && want.1 == 0.0 {
        return 0.0;
    }
    ((got - want.0) - want.1).abs() / ulp64(want.0)
}

struct Worst {
    error: f64,
    at: f64,
}

impl Worst {
    fn new() -> Worst {
        Worst { error: 0.0, at: 0.0 }
    }

    fn see(&mut self, error: f64, at: f64) {
        if error > self.error || error.is_nan() {
            *self = Worst { error, at };
        }
    }

    fn at_most(&self, name: &str, ops: usize, limit: f64) {
        println!("{name}: {:.3} ulp at {:e} ({ops} operations)", self.error, self.at);
        assert!(self.error <= limit, "{name}: {} ulp at {:e}", self.error, self.at);
    }
}

type Function64 = fn(f64) -> f64;

const REFERENCE: [(UnaryOp, Function64); 6] = [
    (UnaryOp::Exp, libm::exp),
    (UnaryOp::Log, libm::log),
    (UnaryOp::Sin, libm::sin),
    (UnaryOp::Cos, libm::cos),
    (UnaryOp::Tanh, libm::tanh),
    (UnaryOp::Erf, libm::erf),
];

#[test]
fn f32_sweep() {
    for (op, reference) in REFERENCE {
        let mut f = unary(op, DType::F32);
        let (mut worst, ops) = (Worst::new(), f.ops());
        for bits in (0..=u32::MAX).step_by(1009) {
            let x = f32::from_bits(bits);
            worst.see(error32(f.f32(x, 0.0), reference(x as f64)), x as f64);
        }
        let limit = match op {
            UnaryOp::Tanh => 1.5,
            UnaryOp::Erf => 1.25,
            UnaryOp::Sin | UnaryOp::Cos => 1.6,
            _ => 1.0,
        };
        worst.at_most(&format!("f32 {}", op.name()), ops, limit);
    }
}

/// Numbers of every size, where a function has its difficulties more often.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545f4914f6cdd1d)
    }

    /// In [0, 1).
    fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// In [lo, hi).
    fn between(&mut self, lo: f64, hi: f64) -> f64 {
        lo + (hi - lo) * self.unit()
    }

    /// Of a magnitude between 2^lo and 2^hi, of either sign.
    fn sized(&mut self, lo: f64, hi: f64) -> f64 {
        let x = self.between(lo, hi).exp2();
        if self.bits() & 1 == 0 { x } else { -x }
    }
}

const SAMPLES: usize = 100_000;

#[test]
fn f64_random() {
    type Reference = fn(f64) -> Twofold;
    /// Operation, reference, exponents of magnitudes, a range of arguments, most error.
    type Case = (UnaryOp, Reference, [f64; 2], [f64; 2], f64);
    let cases: [Case; 6] = [
        (UnaryOp::Exp, |x| scaled(reference::exp_parts(Twofold::new(x))), [-60.0, 9.4], [-650.0, 709.7], 1.0),
        (UnaryOp::Log, reference::log, [-1070.0, 1023.0], [0.5, 2.0], 1.0),
        (UnaryOp::Sin, |x| signed(reference::sin_cos(x.abs(), false), x), [-30.0, 45.0], [-10.0, 10.0], 1.5),
        (UnaryOp::Cos, |x| reference::sin_cos(x.abs(), true), [-30.0, 45.0], [-10.0, 10.0], 1.5),
        (UnaryOp::Tanh, reference::tanh, [-60.0, 5.0], [-2.0, 2.0], 1.5),
        (UnaryOp::Erf, reference::erf, [-60.0, 3.0], [-2.0, 2.0], 1.5),
    ];
    for (op, reference, sizes, range, limit) in cases {
        let mut f = unary(op, DType::F64);
        let (mut worst, mut random, ops) = (Worst::new(), Random(42), f.ops());
        for n in 0..SAMPLES {
            let mut x = if n % 2 == 0 { random.sized(sizes[0], sizes[1]) } else { random.between(range[0], range[1]) };
            if op == UnaryOp::Log {
                x = x.abs();
            }
            if op == UnaryOp::Exp && !(-650.0..709.7).contains(&x) {
                continue;
            }
            worst.see(error64(f.f64(x, 0.0), reference(x)), x);
        }
        worst.at_most(&format!("f64 {}", op.name()), ops, limit);
    }
}

fn scaled((m, n): (Twofold, i32)) -> Twofold {
    let (a, b) = (2f64.powi(n / 2), 2f64.powi(n - n / 2));
    Twofold(m.0 * a * b, m.1 * a * b)
}

fn signed(x: Twofold, sign: f64) -> Twofold {
    if sign < 0.0 { Twofold(-x.0, -x.1) } else { x }
}

#[test]
fn pow_random() {
    let (mut f, mut g) = (pow(DType::F32), pow(DType::F64));
    let (mut worst, mut random) = (Worst::new(), Random(7));
    for n in 0..SAMPLES {
        let x = if n % 2 == 0 { random.sized(-149.0, 128.0) } else { random.between(0.5, 2.0) } as f32;
        // Results over the whole range and a little beyond.
        let mut y = (random.between(-108.0, 90.0) / (x.abs() as f64).ln()) as f32;
        if x < 0.0 {
            y = y.round();
        }
        worst.see(error32(f.f32(x, y), libm::pow(x as f64, y as f64)), x as f64);
    }
    worst.at_most("f32 pow", f.ops(), 0.6);
    let mut worst = Worst::new();
    for n in 0..SAMPLES {
        let x = if n % 2 == 0 { random.sized(-1070.0, 1023.0).abs() } else { random.between(0.5, 2.0) };
        let log = reference::log(x);
        let y = random.between(-640.0, 709.0) / log.0;
        let want = scaled(reference::exp_parts(log.mul(Twofold::new(y))));
        worst.see(error64(g.f64(x, y), want), x);
    }
    worst.at_most("f64 pow", g.ops(), 1.25);
}

const SPECIAL: [f64; 30] = [
    0.0,
    1.0,
    2.0,
    3.0,
    4.0,
    0.5,
    0.25,
    1.5,
    2.5,
    1e-3,
    7.0,
    1e30,
    1e-30,
    1e-40,
    1e-45,
    16777215.0,
    16777216.0,
    1073741824.5,
    9007199254740991.0,
    9007199254740992.0,
    0.9999999,
    1.0000001,
    f32::MIN_POSITIVE as f64,
    f32::MAX as f64,
    f64::MAX,
    f64::MIN_POSITIVE,
    5e-324,
    f64::INFINITY,
    f64::NAN,
    35.0,
];

fn specials() -> impl Iterator<Item = f64> {
    SPECIAL.into_iter().flat_map(|x| [x, -x])
}

/// Same NaN, same zero, same infinity, or nearly the same number.
fn alike(got: f64, want: f64, tolerance: f64) -> bool {
    if want.is_nan() || want == 0.0 || want.is_infinite() {
        return (got.is_nan() && want.is_nan()) || got.to_bits() == want.to_bits();
    }
    (got - want).abs() <= tolerance * want.abs().max(f64::MIN_POSITIVE)
}

#[test]
fn pow_specials() {
    let (mut f, mut g) = (pow(DType::F32), pow(DType::F64));
    for x in specials() {
        for y in specials() {
            let (x32, y32) = (x as f32, y as f32);
            let (got, want) = (f.f32(x32, y32), libm::pow(x32 as f64, y32 as f64) as f32);
            assert!(error32(got, want as f64) <= 1.0, "f32 {x32}^{y32}: {got}, not {want}");
            assert!(alike(got as f64, want as f64, 1e-6) || want.abs() < f32::MIN_POSITIVE);
            assert!(want != 0.0 || got.to_bits() == want.to_bits(), "f32 {x32}^{y32}: {got}, not {want}");
            let (got, want) = (g.f64(x, y), libm::pow(x, y));
            assert!(alike(got, want, 1e-15), "f64 {x:e}^{y:e}: {got:e}, not {want:e}");
        }
    }
}

#[test]
fn pow_constants() {
    for dtype in [DType::F32, DType::F64] {
        for y in [0.0, 1.0, 2.0, 3.0, 4.0, -1.0, 0.5, -0.0] {
            let mut g = Graph::new();
            let x = argument(&mut g, dtype, 0);
            let exponent = g.constant(Scalar::from_f64(dtype, y));
            let root = expand_pow(&mut g, x, exponent);
            let mut f = Function::new(g, root);
            assert!(f.ops() <= 5);
            for x in specials() {
                let x = Scalar::from_f64(dtype, x);
                let got = f.eval(x, x);
                let want = Scalar::from_f64(dtype, libm::pow(x.to_f64(), y));
                let tolerance = 2.0 * dtype.unit_roundoff().unwrap();
                let least = if dtype == DType::F32 { 2f64.powi(-149) } else { 0.0 };
                let near = (got.to_f64() - want.to_f64()).abs() <= least;
                assert!(alike(got.to_f64(), want.to_f64(), tolerance) || near, "{x}^{y}: {got}, not {want}");
            }
        }
    }
}

#[test]
fn special_values() {
    for (op, reference) in REFERENCE {
        let (mut f, mut g) = (unary(op, DType::F32), unary(op, DType::F64));
        for x in specials().chain([88.73, -87.5, -103.9, -104.1, 709.79, -708.5, -744.0, -745.2, 9.0, 19.0, 5.9]) {
            let (got, want) = (f.f32(x as f32, 0.0), reference(x as f32 as f64));
            assert!(error32(got, want) <= 2.0, "f32 {}({x:e}): {got:e}, not {want:e}", op.name());
            // Signs of zeros too.
            assert!(want as f32 != 0.0 || got.to_bits() == (want as f32).to_bits(), "f32 {}({x:e})", op.name());
            let (got, want) = (g.f64(x, 0.0), reference(x));
            assert!(alike(got, want, 1e-15), "f64 {}({x:e}): {got:e}, not {want:e}", op.name());
        }
    }
}

#[test]
fn f64_exp_underflows_gradually() {
    let mut f = unary(UnaryOp::Exp, DType::F64);
    for n in 0..10_000 {
        let x = -708.0 - 38.0 * n as f64 / 10_000.0;
        let (got, want) = (f.f64(x, 0.0), libm::exp(x));
        assert!((got.to_bits() as i64 - want.to_bits() as i64).abs() <= 1, "{x}: {got:e}, not {want:e}");
    }
}

#[test]
fn f64_sin_near_multiples_of_pi() {
    let (mut sin, mut cos) = (unary(UnaryOp::Sin, DType::F64), unary(UnaryOp::Cos, DType::F64));
    let mut worst = Worst::new();
    for k in (1..2_000).chain((1..40).flat_map(|e| [(1 << e) - 1, (1i64 << e) + 1])) {
        let x = k as f64 * std::f64::consts::FRAC_PI_2;
        worst.see(error64(sin.f64(x, 0.0), reference::sin_cos(x, false)), x);
        worst.see(error64(cos.f64(x, 0.0), reference::sin_cos(x, true)), x);
    }
    worst.at_most("f64 sin and cos near multiples of π/2", 0, 1.5);
}

/// libm's own error is at most 1.
#[test]
fn f64_sin_of_large_arguments() {
    let (mut sin, mut cos) = (unary(UnaryOp::Sin, DType::F64), unary(UnaryOp::Cos, DType::F64));
    let mut random = Random(7);
    let mut worst = Worst::new();
    for _ in 0..20_000 {
        let x = random.sized(44.5, 1024.0);
        worst.see(error64(sin.f64(x, 0.0), Twofold::new(libm::sin(x))), x);
        worst.see(error64(cos.f64(x, 0.0), Twofold::new(libm::cos(x))), x);
    }
    worst.at_most("f64 sin and cos of large arguments", sin.ops(), 2.5);
    // In 3000 bits; the first is the f64 that is closest to a multiple of π/2.
    let closest = 6381956970095103.0 * 2f64.powi(797);
    for (x, s, c) in [(closest, 1.0, -4.687165924254628e-19), (f64::MAX, 0.004961954789184062, -0.9999876894265599)] {
        assert!(alike(sin.f64(x, 0.0), s, 4e-16) && alike(cos.f64(x, 0.0), c, 4e-16), "{x:e}");
    }
}

/// Payloads and signs of NaN must not leak into the integer parts.
#[test]
fn every_nan_is_nan() {
    for op in REFERENCE.map(|r| r.0) {
        let (mut f, mut g) = (unary(op, DType::F32), unary(op, DType::F64));
        let mut random = Random(3);
        for _ in 0..1000 {
            let bits = random.bits();
            let x = f32::from_bits(0x7f800001 | bits as u32);
            assert!(f.f32(x, 0.0).is_nan(), "{}", op.name());
            let x = f64::from_bits(0x7ff0000000000001 | bits);
            assert!(g.f64(x, 0.0).is_nan(), "{}", op.name());
        }
    }
}

#[test]
fn other_operations_stay() {
    let mut g = Graph::new();
    let x = argument(&mut g, DType::F16, 0);
    let y = expand(&mut g, UnaryOp::Exp, x);
    assert_eq!(*g.val(y), Val::Unary { op: UnaryOp::Exp, x });
    let y = expand_pow(&mut g, x, x);
    assert_eq!(*g.val(y), Val::Binary { op: BinaryOp::Pow, a: x, b: x });
}
