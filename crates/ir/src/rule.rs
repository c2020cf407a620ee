//! What a program may ask of one sliding-window sum: which algorithm computes it, and how accurately.
//!
//! A rule changes no value's meaning. It travels with the reduction of a tensor graph to the compiler's rewrite.

use std::fmt;
use std::str::FromStr;
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

/// How one axis of outputs is covered by tiles: their sizes, in order. The first one is repeated as often as it takes for
/// one tile of each of the others to cover what is left; a last tile that reaches beyond the axis is cut off.
///
/// ```
/// use winograph_ir::rule::AxisTile;
/// let parts = |tile: &str, outputs| tile.parse::<AxisTile>().unwrap().parts(outputs);
/// assert_eq!(parts("4", 14), [(4, 4)]);
/// assert_eq!(parts("4+2", 14), [(4, 3), (2, 1)]);
/// assert_eq!(parts("4+6", 14), [(4, 2), (6, 1)]);
/// assert_eq!(parts("4+3", 7), [(4, 1), (3, 1)]);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AxisTile {
    /// Sizes; those from the `len`th on are 0.
    sizes: [usize; AxisTile::MOST],
    len: usize,
}

/// What is no list of sizes of tiles.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a tile is the number of its outputs, or up to {} such numbers one after the other, as 4+2", AxisTile::MOST)]
pub struct AxisTileError;

impl AxisTile {
    /// Most sizes of an axis.
    pub const MOST: usize = 4;

    /// Tiles of one size.
    pub const fn new(size: usize) -> AxisTile {
        let mut sizes = [0; AxisTile::MOST];
        sizes[0] = size;
        AxisTile { sizes, len: 1 }
    }

    /// Tiles of these sizes, 1 to [`MOST`](AxisTile::MOST) of them.
    pub fn of(list: &[usize]) -> Option<AxisTile> {
        let mut sizes = [0; AxisTile::MOST];
        sizes.get_mut(..list.len()).filter(|s| !s.is_empty())?.copy_from_slice(list);
        Some(AxisTile { sizes, len: list.len() })
    }

    /// The sizes, in order.
    pub fn sizes(&self) -> &[usize] {
        &self.sizes[..self.len]
    }

    /// The only size, where there is one.
    pub fn single(&self) -> Option<usize> {
        match *self.sizes() {
            [size] => Some(size),
            _ => None,
        }
    }

    /// Sizes of tiles and how many of each cover so many outputs, in order. Sizes of 0 cover nothing and are left out.
    pub fn parts(&self, outputs: usize) -> Vec<(usize, usize)> {
        let mut out: Vec<(usize, usize)> = Vec::new();
        let rest = self.sizes()[1..].iter().fold(0usize, |sum, &s| sum.saturating_add(s));
        let first = outputs.saturating_sub(rest).div_ceil(self.sizes[0].max(1));
        let mut covered = 0usize;
        for (size, times) in self.sizes().iter().enumerate().map(|(n, &s)| (s, if n == 0 { first } else { 1 })) {
            if size == 0 || times == 0 || covered >= outputs {
                continue;
            }
            covered = covered.saturating_add(size.saturating_mul(times));
            match out.last_mut() {
                Some(last) if last.0 == size => last.1 += times,
                _ => out.push((size, times)),
            }
        }
        out
    }
}

impl From<usize> for AxisTile {
    fn from(size: usize) -> AxisTile {
        AxisTile::new(size)
    }
}

impl PartialEq<usize> for AxisTile {
    fn eq(&self, size: &usize) -> bool {
        self.single() == Some(*size)
    }
}

impl fmt::Display for AxisTile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, size) in self.sizes().iter().enumerate() {
            write!(f, "{}{size}", if n == 0 { "" } else { "+" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for AxisTile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AxisTile {
    type Err = AxisTileError;

    fn from_str(text: &str) -> Result<AxisTile, AxisTileError> {
        let plain = |size: &str| !size.is_empty() && size.bytes().all(|b| b.is_ascii_digit());
        let size = |size: &str| size.parse().ok().filter(|_| plain(size));
        let sizes: Option<Vec<usize>> = text.split('+').map(|s| size(s.trim())).collect();
        sizes.and_then(|s| AxisTile::of(&s)).ok_or(AxisTileError)
    }
}

/// What is asked of one sliding-window sum; what it leaves open is as the options of the whole compilation say.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct WindowRule {
    /// The algorithm.
    pub algorithm: Option<Algorithm>,
    /// Outputs per tile of a rewrite: one for all axes or one per axis; none leaves it open.
    pub tile: Vec<AxisTile>,
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

    #[test]
    fn parts_of_an_axis_cover_it_and_the_last_tile_alone_is_cut_off() {
        for sizes in [&[4][..], &[4, 2], &[4, 3], &[4, 6], &[2, 3, 4], &[4, 3, 3], &[6, 2, 2, 4], &[3, 4, 3]] {
            let tile = AxisTile::of(sizes).unwrap();
            assert_eq!(tile.to_string().parse(), Ok(tile));
            for outputs in 1..40 {
                let parts = tile.parts(outputs);
                let covered: usize = parts.iter().map(|p| p.0 * p.1).sum();
                let last = parts.last().unwrap().0;
                assert!(covered >= outputs && covered < outputs + last, "{tile} over {outputs}: {parts:?}");
                assert!(parts.windows(2).all(|w| w[0].0 != w[1].0), "{tile} over {outputs}: {parts:?}");
            }
            assert_eq!(tile.parts(0), []);
        }
    }

    #[test]
    fn what_is_no_tile_is_refused() {
        for bad in ["", "+", "4+", "+4", "4,2", "-4", "4+-2", "x", "4x2", "1+2+3+4+5", "99999999999999999999"] {
            assert_eq!(bad.parse::<AxisTile>(), Err(AxisTileError), "{bad}");
        }
        assert!(AxisTile::of(&[]).is_none() && AxisTile::of(&[2; 5]).is_none());
        assert_eq!((AxisTile::new(0).parts(5), AxisTile::of(&[0, 3]).unwrap().parts(3)), (vec![], vec![(3, 1)]));
    }
}
