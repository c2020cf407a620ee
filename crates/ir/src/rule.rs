//! What a program may ask of one sliding-window sum: which algorithm computes it, and how accurately.
//!
//! A rule changes no value's meaning. It travels with the reduction of a tensor graph to the compiler's rewrite.

use std::fmt;
use thiserror::Error;

/// How sliding-window sums of products are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Algorithm {
    /// The cost model decides.
    #[default]
    Auto,
    /// The sum as it stands.
    Direct,
    /// Winograd wherever the rewrite applies.
    Winograd,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Algorithm; 3] = [Algorithm::Auto, Algorithm::Direct, Algorithm::Winograd];

    /// Name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Auto => "auto",
            Algorithm::Direct => "direct",
            Algorithm::Winograd => "winograd",
        }
    }
}

/// How many times the expected relative L2 error of a direct sum in sequential fused multiply-adds a rewrite may cost: a
/// number of 0 or more, infinity among them. 1 means the direct sum or something at least as accurate.
///
/// ```
/// use winograph_ir::rule::Tolerance;
/// assert_eq!(Tolerance::default().get(), 3.0);
/// assert!(Tolerance::new(f64::NAN).is_err() && Tolerance::new(-1.0).is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tolerance(u64);

/// A tolerance that is none.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[error(
    "tolerance {0}: it is how many times the direct sum's expected error a rewrite may cost, a number of 0 or more"
)]
pub struct ToleranceError(f64);

impl Tolerance {
    /// A tolerance. An error for NaN and for numbers below 0.
    pub fn new(times: f64) -> Result<Tolerance, ToleranceError> {
        // The sum turns -0 into 0, so that equal tolerances are equal bits.
        if times >= 0.0 { Ok(Tolerance((times + 0.0).to_bits())) } else { Err(ToleranceError(times)) }
    }

    /// The number.
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

/// Three times: F(2,3) always passes, F(4,3) on good points from 16 channels up, F(6,3) does not.
impl Default for Tolerance {
    fn default() -> Tolerance {
        Tolerance(3f64.to_bits())
    }
}

impl fmt::Debug for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tolerance({})", self.get())
    }
}

impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// What is asked of one sliding-window sum; what it leaves open is as the options of the whole compilation say.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct WindowRule {
    /// The algorithm.
    pub algorithm: Option<Algorithm>,
    /// Outputs per tile of a rewrite: one for all axes or one per axis; none leaves it open.
    pub tile: Vec<usize>,
    /// The expected error that a rewrite may cost.
    pub tolerance: Option<Tolerance>,
    /// Whether a NaN or an infinity must reach no output but those whose sums read it: the sum then stays direct.
    pub exact_nonfinite: bool,
}

impl WindowRule {
    /// Whether nothing is asked.
    pub fn is_open(&self) -> bool {
        *self == WindowRule::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerances_are_numbers_of_zero_or_more() {
        for bad in [f64::NAN, -f64::NAN, -1.0, -1e-300, f64::NEG_INFINITY] {
            assert!(Tolerance::new(bad).unwrap_err().to_string().contains("0 or more"), "{bad}");
        }
        for good in [0.0, 1.0, 2.5, f64::INFINITY] {
            assert_eq!(Tolerance::new(good).unwrap().get(), good);
        }
        assert_eq!(Tolerance::new(-0.0), Tolerance::new(0.0));
    }
}
