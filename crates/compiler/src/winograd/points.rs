//! The interpolation points to use where nobody asks for others.
//!
//! Points decide both accuracy and cost. Pairs ± p let transforms share sums of even and odd terms, 0 and infinity make
//! a row of zeros and ones, and fractions with a small power of two below make Aᵀ and Bᵀ exact. Among such sets the
//! default is the one of least *expected* error: worst-case amplification alone would take 0, ±1/2, ±2 for F(4, 3),
//! whose error on random data is 1.4 times that of 0, ±5/8, ±3/2.

use super::cook_toom::{CookToomError, Transforms};
use super::rational::Rational;

/// Most inputs of a tile, m + r − 1, for which there are default points. Beyond, f32 has no digits left.
pub const MAX_INPUTS: usize = 10;

/// A set of points: zero if `zero`, a pair for each of `pairs`, and 1 if `one`.
struct PointSet {
    zero: bool,
    one: bool,
    pairs: &'static [(i64, i64)],
}

/// The set of n points at place n. Up to three they are 0, 1, −1, whose transforms multiply by nothing; from four on
/// they are what a search over dyadic numbers finds, which a test repeats. The best sets hardly depend on how n is made
/// up of m and r, so they are the same for all.
const SETS: [PointSet; MAX_INPUTS] = [
    PointSet { zero: false, one: false, pairs: &[] },
    PointSet { zero: true, one: false, pairs: &[] },
    PointSet { zero: true, one: true, pairs: &[] },
    PointSet { zero: true, one: false, pairs: &[(1, 1)] },
    PointSet { zero: false, one: false, pairs: &[(3, 8), (5, 4)] },
    PointSet { zero: true, one: false, pairs: &[(5, 8), (3, 2)] },
    PointSet { zero: false, one: false, pairs: &[(1, 4), (7, 8), (7, 4)] },
    PointSet { zero: true, one: false, pairs: &[(1, 2), (1, 1), (2, 1)] },
    PointSet { zero: false, one: false, pairs: &[(1, 4), (5, 8), (5, 4), (2, 1)] },
    PointSet { zero: true, one: false, pairs: &[(3, 8), (7, 8), (5, 4), (5, 2)] },
];

/// The default points of F(m, r), m + r − 2 of them, infinity not listed: zero first if it is among them, then pairs
/// `p, −p` by ascending p. `None` if m is 0, r is less than 2, or m + r − 1 is more than [`MAX_INPUTS`].
///
/// ```
/// use winograph_compiler::winograd::points::default_points;
/// let names: Vec<String> = default_points(4, 3).unwrap().iter().map(|p| p.to_string()).collect();
/// assert_eq!(names, ["0", "5/8", "-5/8", "3/2", "-3/2"]);
/// ```
pub fn default_points(m: usize, r: usize) -> Option<Vec<Rational>> {
    if m == 0 || r < 2 {
        return None;
    }
    let set = SETS.get(m.checked_add(r)? - 2)?;
    let mut points = Vec::new();
    if set.zero {
        points.push(Rational::ZERO);
    }
    if set.one {
        points.push(Rational::ONE);
    }
    for &(num, den) in set.pairs {
        let p = Rational::new(num.into(), den.into())?;
        points.extend([p, -p]);
    }
    Some(points)
}

/// The matrices of F(m, r) on its [`default_points`]. `None` where there are no default points.
pub fn default_transforms(m: usize, r: usize) -> Option<Transforms> {
    Transforms::new(m, r, &default_points(m, r)?).ok()
}

/// The matrices of F(m, r) on points of the caller's choice, or on the default ones. Where there are none, the error
/// says how many points to give.
pub fn transforms(m: usize, r: usize, points: Option<&[Rational]>) -> Result<Transforms, CookToomError> {
    match points {
        Some(points) => Transforms::new(m, r, points),
        None => Transforms::new(m, r, &default_points(m, r).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::accuracy;
    use super::*;
    use winograph_ir::DType;

    /// Magnitudes that the search combines.
    const CANDIDATES: [(i128, i128); 14] = [
        (1, 4),
        (3, 8),
        (1, 2),
        (5, 8),
        (3, 4),
        (7, 8),
        (1, 1),
        (5, 4),
        (3, 2),
        (7, 4),
        (2, 1),
        (5, 2),
        (3, 1),
        (4, 1),
    ];

    fn names(points: &[Rational]) -> String {
        points.iter().map(|p| p.to_string()).collect::<Vec<_>>().join(" ")
    }

    /// The set of least expected error for two such axes and 64 terms, among pairs of candidates with zero (in an even
    /// set: without it, or with it and one sign of a candidate) for which f32 holds Aᵀ and Bᵀ exactly.
    fn search(m: usize, r: usize) -> Vec<Rational> {
        let n = m + r - 2;
        let candidates = CANDIDATES.map(|(num, den)| Rational::new(num, den).unwrap());
        let mut sets = Vec::new();
        for mask in 0u32..1 << candidates.len() {
            let chosen = || (0..candidates.len()).filter(|i| mask >> i & 1 == 1).map(|i| candidates[i]);
            let pairs: Vec<Rational> = chosen().flat_map(|p| [p, -p]).collect();
            let with_zero: Vec<Rational> = std::iter::once(Rational::ZERO).chain(pairs.iter().copied()).collect();
            if pairs.len() == n {
                sets.push(pairs);
            } else if with_zero.len() == n {
                sets.push(with_zero);
            } else if with_zero.len() + 1 == n {
                let singles = candidates.iter().filter(|p| !with_zero.contains(p));
                sets.extend(singles.map(|&p| with_zero.iter().copied().chain([p]).collect::<Vec<_>>()));
            }
        }
        let mut best = (f64::INFINITY, Vec::new());
        for points in sets {
            let t = Transforms::new(m, r, &points).unwrap();
            let error = accuracy::expected_error(&[&t, &t], 64);
            if t.is_exact_in(DType::F32) && error < best.0 {
                best = (error, points);
            }
        }
        best.1
    }

    #[test]
    fn sets_are_what_the_search_finds() {
        let mut different = String::new();
        for n in 3..SETS.len() {
            // With nine points one filter will do: the search takes a while.
            let filters = if n > 8 { 3..=3 } else { 2..=7 };
            for r in filters.filter(|&r| r <= n) {
                let m = n + 2 - r;
                let (found, have) = (search(m, r), default_points(m, r).unwrap());
                if found != have {
                    different += &format!("F({m}, {r}): {} instead of {}\n", names(&found), names(&have));
                }
            }
        }
        assert!(different.is_empty(), "{different}");
    }

    #[test]
    fn designs_points() {
        assert_eq!(names(&default_points(2, 3).unwrap()), "0 1 -1");
        assert_eq!(names(&default_points(4, 3).unwrap()), "0 5/8 -5/8 3/2 -3/2");
        assert_eq!(names(&default_points(6, 3).unwrap()), "0 1/2 -1/2 1 -1 2 -2");
    }

    #[test]
    fn limits() {
        assert_eq!(default_points(0, 3), None);
        assert_eq!(default_points(4, 1), None);
        assert_eq!(default_points(usize::MAX, 3), None);
        assert_eq!(default_points(MAX_INPUTS - 1, 3), None);
        for n in 1..MAX_INPUTS {
            for r in 2..=n + 1 {
                let t = default_transforms(n + 2 - r, r).unwrap();
                assert!(t.is_exact_in(DType::F32), "{:?}", t.points);
            }
        }
        assert!(matches!(transforms(20, 3, None), Err(CookToomError::PointCount { needed: 21, .. })));
    }
}
