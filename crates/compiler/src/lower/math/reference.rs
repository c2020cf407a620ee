//! Functions in twofold f64 arithmetic (about 100 bits), to measure errors of f64 versions against.

/// An unevaluated sum of two f64, the second at most half a unit in the last place of the first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Twofold(pub(super) f64, pub(super) f64);

const LN2: Twofold = Twofold(std::f64::consts::LN_2, 2.3190468138462996e-17);
/// π/2 in four parts.
const HALF_PI: [f64; 4] =
    [std::f64::consts::FRAC_PI_2, 6.123233995736766e-17, -1.4973849048591698e-33, 5.562271104311117e-50];
/// 2/√π.
const TWO_OVER_ROOT_PI: Twofold = Twofold(std::f64::consts::FRAC_2_SQRT_PI, 1.533545961316588e-17);

impl Twofold {
    fn sum(a: f64, b: f64) -> Twofold {
        let s = a + b;
        let t = s - a;
        Twofold(s, (a - (s - t)) + (b - t))
    }

    pub(super) fn new(a: f64) -> Twofold {
        Twofold(a, 0.0)
    }

    fn product(a: f64, b: f64) -> Twofold {
        let p = a * b;
        Twofold(p, a.mul_add(b, -p))
    }

    fn add(self, b: Twofold) -> Twofold {
        let (s, t) = (Twofold::sum(self.0, b.0), Twofold::sum(self.1, b.1));
        let u = Twofold::sum(s.0, s.1 + t.0);
        Twofold::sum(u.0, u.1 + t.1)
    }

    fn neg(self) -> Twofold {
        Twofold(-self.0, -self.1)
    }

    pub(super) fn mul(self, b: Twofold) -> Twofold {
        let p = Twofold::product(self.0, b.0);
        Twofold::sum(p.0, p.1 + (self.0 * b.1 + self.1 * b.0))
    }

    fn div(self, b: Twofold) -> Twofold {
        let q = self.0 / b.0;
        let r = self.add(b.mul(Twofold::new(q)).neg());
        let q2 = r.0 / b.0;
        let r = r.add(b.mul(Twofold::new(q2)).neg());
        Twofold::sum(q, q2).add(Twofold::new(r.0 / b.0))
    }

    fn scale(self, exponent: i32) -> Twofold {
        let (a, b) = (2f64.powi(exponent / 2), 2f64.powi(exponent - exponent / 2));
        Twofold(self.0 * a * b, self.1 * a * b)
    }
}

/// e^x − 1 for small x, by its series.
fn expm1_series(x: Twofold) -> Twofold {
    let mut term = x;
    let mut sum = x;
    for k in 2..30 {
        term = term.mul(x).div(Twofold::new(k as f64));
        sum = sum.add(term);
    }
    sum
}

/// (m, n) with e^x = m·2^n, m near 1.
pub(super) fn exp_parts(x: Twofold) -> (Twofold, i32) {
    let n = (x.0 / LN2.0).round();
    let r = x.add(LN2.mul(Twofold::new(-n)));
    // (e^(r/4))^4.
    let e = Twofold::new(1.0).add(expm1_series(r.scale(-2)));
    let e = e.mul(e);
    (e.mul(e), n as i32)
}

fn exp(x: Twofold) -> Twofold {
    let (m, n) = exp_parts(x);
    m.scale(n)
}

pub(super) fn log(x: f64) -> Twofold {
    // Scaled so that no part of the iteration is denormal.
    let (x, k) = if x < 1e-200 { (x * 2f64.powi(600), -600.0) } else { (x, 0.0) };
    let (x, k) = if x > 1e200 { (x * 2f64.powi(-600), 600.0 + k) } else { (x, k) };
    let mut y = Twofold::new(libm::log(x));
    for _ in 0..2 {
        let e = exp(y.neg()).mul(Twofold::new(x)).add(Twofold::new(-1.0));
        y = y.add(e);
    }
    y.add(LN2.mul(Twofold::new(k)))
}

/// sin or cos of |x| < 2^50.
pub(super) fn sin_cos(x: f64, cos: bool) -> Twofold {
    let n = (x / HALF_PI[0]).round();
    let mut r = Twofold::new(x);
    for part in HALF_PI {
        r = r.add(Twofold::product(-n, part));
    }
    let quadrant = (n.rem_euclid(4.0) as i64 + cos as i64) % 4;
    let z = r.mul(r).neg();
    let even = quadrant % 2 == 1;
    let mut term = if even { Twofold::new(1.0) } else { r };
    let mut sum = term;
    for k in 1..20 {
        let k = (2 * k - even as i64) as f64;
        term = term.mul(z).div(Twofold::new(k * (k + 1.0)));
        sum = sum.add(term);
    }
    if quadrant >= 2 { sum.neg() } else { sum }
}

pub(super) fn tanh(x: f64) -> Twofold {
    let twice = Twofold::new(2.0 * x.abs().min(40.0));
    let m = if twice.0 < 0.5 { expm1_series(twice) } else { exp(twice).add(Twofold::new(-1.0)) };
    let y = m.div(m.add(Twofold::new(2.0)));
    if x < 0.0 { y.neg() } else { y }
}

/// 2/√π·e^(−x²)·Σ 2^k·x^(2k+1)/(2k+1)!!, all of one sign.
pub(super) fn erf(x: f64) -> Twofold {
    if x.abs() > 7.0 {
        return Twofold::new(x.signum());
    }
    let z = Twofold::product(x, x);
    let mut term = Twofold::new(x);
    let mut sum = term;
    for k in 1..250 {
        term = term.mul(z).scale(1).div(Twofold::new(2.0 * k as f64 + 1.0));
        sum = sum.add(term);
    }
    TWO_OVER_ROOT_PI.mul(exp(z.neg())).mul(sum)
}
