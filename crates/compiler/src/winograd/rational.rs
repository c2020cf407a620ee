//! Exact rational numbers.
//!
//! Transform matrices are computed exactly, so that an algorithm can be proved right as a polynomial identity and each
//! constant is rounded once, when a dtype is known. Arithmetic is checked: a result whose parts do not fit `i128` is
//! `None`, never wrong.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// A rational number in lowest terms with a positive denominator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rational {
    num: i128,
    den: i128,
}

/// Why a text is not a rational number.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParseRationalError {
    /// Not of the form `-3`, `5/8` or `0.625`.
    #[error("`{0}` is not a number: write an integer, a fraction such as 5/8, or a decimal such as 0.625")]
    Syntax(String),
    /// A fraction over zero.
    #[error("`{0}` has a denominator of zero: write a fraction such as 5/8")]
    ZeroDenominator(String),
    /// Too many digits.
    #[error("`{0}` has too many digits: write a fraction of small numbers")]
    TooLong(String),
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

impl Rational {
    /// Zero.
    pub const ZERO: Rational = Rational { num: 0, den: 1 };
    /// One.
    pub const ONE: Rational = Rational { num: 1, den: 1 };

    /// `num / den` in lowest terms; `None` if `den` is zero or a part does not fit.
    ///
    /// ```
    /// use winograph_compiler::winograd::rational::Rational;
    /// assert_eq!(Rational::new(10, -16).unwrap().to_string(), "-5/8");
    /// assert_eq!(Rational::new(1, 0), None);
    /// ```
    pub fn new(num: i128, den: i128) -> Option<Rational> {
        if den == 0 {
            return None;
        }
        let g = gcd(num.unsigned_abs(), den.unsigned_abs());
        let n = i128::try_from(num.unsigned_abs() / g).ok()?;
        let d = i128::try_from(den.unsigned_abs() / g).ok()?;
        Some(Rational { num: if (num < 0) != (den < 0) { -n } else { n }, den: d })
    }

    /// The numerator.
    pub fn num(self) -> i128 {
        self.num
    }

    /// The denominator, positive.
    pub fn den(self) -> i128 {
        self.den
    }

    /// Whether the number is zero.
    pub fn is_zero(self) -> bool {
        self.num == 0
    }

    /// Whether the denominator is a power of two.
    pub fn is_dyadic(self) -> bool {
        self.den & (self.den - 1) == 0
    }

    /// Sum.
    pub fn checked_add(self, other: Rational) -> Option<Rational> {
        // Over the least common denominator, so that parts stay as small as they can.
        let g = i128::try_from(gcd(self.den.unsigned_abs(), other.den.unsigned_abs())).ok()?;
        let (left, right) = (other.den / g, self.den / g);
        let num = self.num.checked_mul(left)?.checked_add(other.num.checked_mul(right)?)?;
        Rational::new(num, self.den.checked_mul(left)?)
    }

    /// Difference.
    pub fn checked_sub(self, other: Rational) -> Option<Rational> {
        self.checked_add(-other)
    }

    /// Product.
    pub fn checked_mul(self, other: Rational) -> Option<Rational> {
        // Cancelling crosswise first keeps the products small.
        let (a, b) = (Rational::new(self.num, other.den)?, Rational::new(other.num, self.den)?);
        Rational::new(a.num.checked_mul(b.num)?, a.den.checked_mul(b.den)?)
    }

    /// Quotient; `None` also for a divisor of zero.
    pub fn checked_div(self, other: Rational) -> Option<Rational> {
        self.checked_mul(Rational::new(other.den, other.num)?)
    }

    /// Power, where `0^0` is 1.
    pub fn checked_pow(self, exponent: u32) -> Option<Rational> {
        Rational::new(self.num.checked_pow(exponent)?, self.den.checked_pow(exponent)?)
    }

    /// Absolute value.
    pub fn abs(self) -> Rational {
        Rational { num: self.num.abs(), den: self.den }
    }

    /// The nearest `f64` where numerator and denominator have at most 53 bits each; else within 3 units in the last
    /// place.
    pub fn to_f64(self) -> f64 {
        self.num as f64 / self.den as f64
    }

    /// Compares exactly; `None` if a cross product does not fit `i128`.
    pub fn checked_cmp(self, other: Rational) -> Option<Ordering> {
        Some(self.num.checked_mul(other.den)?.cmp(&other.num.checked_mul(self.den)?))
    }
}

impl std::ops::Neg for Rational {
    type Output = Rational;

    fn neg(self) -> Rational {
        // A numerator is never `i128::MIN`: `new` takes parts from absolute values that fit.
        Rational { num: -self.num, den: self.den }
    }
}

impl From<i64> for Rational {
    fn from(x: i64) -> Rational {
        Rational { num: x as i128, den: 1 }
    }
}

impl fmt::Display for Rational {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.den == 1 { write!(f, "{}", self.num) } else { write!(f, "{}/{}", self.num, self.den) }
    }
}

/// Reads `-3`, `5/8`, `-3/2` and `0.625`, with optional spaces around.
///
/// ```
/// use winograph_compiler::winograd::rational::Rational;
/// assert_eq!("0.625".parse::<Rational>(), "5/8".parse());
/// ```
impl FromStr for Rational {
    type Err = ParseRationalError;

    fn from_str(text: &str) -> Result<Rational, ParseRationalError> {
        let trimmed = text.trim();
        let syntax = || ParseRationalError::Syntax(text.to_string());
        let too_long = || ParseRationalError::TooLong(text.to_string());
        let digits = |s: &str| -> Result<i128, ParseRationalError> {
            if s.is_empty() || !s.bytes().all(|b| b.is_ascii_digit()) {
                return Err(syntax());
            }
            s.parse().map_err(|_| too_long())
        };
        let (negative, body) = match trimmed.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, trimmed.strip_prefix('+').unwrap_or(trimmed)),
        };
        let magnitude = if let Some((num, den)) = body.split_once('/') {
            let (num, den) = (digits(num.trim_end())?, digits(den.trim_start())?);
            Rational::new(num, den).ok_or_else(|| ParseRationalError::ZeroDenominator(text.to_string()))?
        } else if let Some((whole, fraction)) = body.split_once('.') {
            let places = u32::try_from(fraction.len()).map_err(|_| too_long())?;
            let den = 10i128.checked_pow(places).ok_or_else(too_long)?;
            let whole = if whole.is_empty() && places > 0 { 0 } else { digits(whole)? };
            let fraction = if places == 0 { 0 } else { digits(fraction)? };
            let num = whole.checked_mul(den).and_then(|w| w.checked_add(fraction)).ok_or_else(too_long)?;
            Rational::new(num, den).ok_or_else(too_long)?
        } else {
            Rational { num: digits(body)?, den: 1 }
        };
        Ok(if negative { -magnitude } else { magnitude })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn q(text: &str) -> Rational {
        text.parse().unwrap()
    }

    #[test]
    fn reads_and_prints() {
        for (text, printed) in [
            ("1/2", "1/2"),
            ("-2", "-2"),
            ("0.625", "5/8"),
            (" -10/4 ", "-5/2"),
            ("+.5", "1/2"),
            ("3.", "3"),
            ("-0", "0"),
            ("6 / 3", "2"),
        ] {
            assert_eq!(q(text).to_string(), printed, "{text}");
        }
        for text in ["", "-", ".", "1/", "/2", "a", "1e3", "--1", "1/-2", "1.5/2", "1/2/3", "½"] {
            assert!(matches!(text.parse::<Rational>(), Err(ParseRationalError::Syntax(_))), "{text}");
        }
        assert!(matches!("1/0".parse::<Rational>(), Err(ParseRationalError::ZeroDenominator(_))));
        let long = "9".repeat(60);
        for text in [long.clone(), format!("0.{long}"), format!("1/{long}")] {
            assert!(matches!(text.parse::<Rational>(), Err(ParseRationalError::TooLong(_))), "{text}");
        }
    }

    #[test]
    fn overflow_is_none() {
        let big = Rational::new(i128::MAX, 1).unwrap();
        assert_eq!(big.checked_add(Rational::ONE), None);
        assert_eq!(big.checked_mul(q("2")), None);
        assert_eq!(big.checked_mul(q("1/2")), Rational::new(i128::MAX, 2));
        assert_eq!(q("3/2").checked_pow(200), None);
        assert_eq!(Rational::new(i128::MIN, 1), None);
        assert_eq!(q("-2").checked_pow(127), None);
        assert_eq!(Rational::new(i128::MIN, 2), Rational::new(-(1 << 126), 1));
        assert_eq!(Rational::ONE.checked_div(Rational::ZERO), None);
        assert_eq!(big.checked_cmp(q("1/3")), None);
    }

    proptest! {
        #[test]
        fn arithmetic_agrees_with_whole_numbers(a in -1000i64..1000, b in 1i64..1000, c in -1000i64..1000, d in 1i64..1000) {
            let (x, y) = (Rational::new(a as i128, b as i128).unwrap(), Rational::new(c as i128, d as i128).unwrap());
            let over = |n: i64| Rational::new(n as i128, (b * d) as i128);
            prop_assert_eq!(x.checked_add(y), over(a * d + c * b));
            prop_assert_eq!(x.checked_sub(y), over(a * d - c * b));
            prop_assert_eq!(x.checked_mul(y), over(a * c));
            prop_assert_eq!(x.checked_div(y), Rational::new((a * d) as i128, (b * c) as i128));
            prop_assert_eq!(x.checked_cmp(y), Some((a * d).cmp(&(c * b))));
            prop_assert_eq!(x.checked_pow(3), x.checked_mul(x).unwrap().checked_mul(x));
            prop_assert_eq!(x.to_f64(), a as f64 / b as f64);
            prop_assert_eq!(x.to_string().parse::<Rational>(), Ok(x));
        }
    }
}
