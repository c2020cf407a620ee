//! The matrices of F(m, r) by the Cook–Toom construction.
//!
//! F(m, r) yields the m outputs `y[k] = Σ_j d[k + j]·g[j]` of an r-tap filter from a = m + r − 1 inputs with a
//! multiplications: `y = Aᵀ[(G·g) ⊙ (Bᵀ·d)]`. It is the transpose of Toom–Cook multiplication: a product of two
//! polynomials with r and m coefficients is evaluated at a − 1 finite points and at infinity, multiplied point by
//! point and interpolated (S. Winograd, *Arithmetic Complexity of Computations*, 1980; the matrices in the form of
//! A. Lavin and S. Gray, *Fast Algorithms for Convolutional Neural Networks*, 2016, and of B. Barabasz et al., *Error
//! Analysis and Improving the Accuracy of Winograd Convolution*, 2020).
//!
//! With points p_i, `M_i(x) = Π_{j≠i} (x − p_j)` and `M(x) = Π_j (x − p_j)`:
//!
//! | | finite point i | infinity |
//! |---|---|---|
//! | Aᵀ, column | `p_i^k` | `[k = m − 1]` |
//! | G, row | `p_i^j / M_i(p_i)` | `[j = r − 1]` |
//! | Bᵀ, row | coefficients of `M_i`, lowest first | coefficients of `M` |
//!
//! So Aᵀ and Bᵀ are dyadic where the points are, the last coefficient of each row of Bᵀ is 1, and all fractions are in
//! G, which meets constants. Lavin and Gray's F(4, 3) comes out as they print it, their F(2, 3) up to signs.

use super::rational::Rational;
use thiserror::Error;
use winograph_ir::{DType, Scalar};

/// A matrix of exact numbers, row by row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    data: Vec<Rational>,
}

impl Matrix {
    /// Builds a matrix from its elements; `None` as soon as one is.
    fn build(rows: usize, cols: usize, mut f: impl FnMut(usize, usize) -> Option<Rational>) -> Option<Matrix> {
        let mut data = Vec::with_capacity(rows * cols);
        for i in 0..rows {
            for j in 0..cols {
                data.push(f(i, j)?);
            }
        }
        Some(Matrix { rows, cols, data })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The element in row `i` and column `j`; zero outside of the matrix.
    pub fn get(&self, i: usize, j: usize) -> Rational {
        if j < self.cols { self.data.get(i * self.cols + j).copied().unwrap_or(Rational::ZERO) } else { Rational::ZERO }
    }

    /// Every row, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[Rational]> {
        self.data.chunks(self.cols.max(1))
    }

    /// The rows as `f64`, each element rounded once.
    pub fn to_f64(&self) -> Vec<Vec<f64>> {
        self.iter().map(|row| row.iter().map(|x| x.to_f64()).collect()).collect()
    }

    /// The rows as values of a float dtype. Elements go through `f64`, which is exact for those that `dtype` holds
    /// exactly.
    pub fn to_scalars(&self, dtype: DType) -> Vec<Vec<Scalar>> {
        self.iter().map(|row| row.iter().map(|x| Scalar::from_f64(dtype, x.to_f64())).collect()).collect()
    }

    /// Whether `dtype` holds every element exactly.
    pub fn is_exact_in(&self, dtype: DType) -> bool {
        self.data.iter().all(|x| {
            let v = x.to_f64();
            x.is_dyadic() && x.num().unsigned_abs() < 1 << 53 && Scalar::from_f64(dtype, v).to_f64() == v
        })
    }
}

/// The transforms of F(m, r): `y = Aᵀ[(G·g) ⊙ (Bᵀ·d)]`.
///
/// ```
/// use winograph_compiler::winograd::cook_toom::Transforms;
/// let points: Vec<_> = ["0", "1", "-1"].iter().map(|p| p.parse().unwrap()).collect();
/// let t = Transforms::new(2, 3, &points).unwrap();
/// assert_eq!(t.g.to_f64()[1], [0.5, 0.5, 0.5]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transforms {
    /// Outputs of a tile.
    pub m: usize,
    /// Taps of the filter.
    pub r: usize,
    /// The finite interpolation points; infinity comes last and is not listed.
    pub points: Vec<Rational>,
    /// Output transform Aᵀ, m × a.
    pub at: Matrix,
    /// Filter transform G, a × r.
    pub g: Matrix,
    /// Input transform Bᵀ, a × a.
    pub bt: Matrix,
}

/// Why there are no matrices.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CookToomError {
    /// A tile without outputs.
    #[error("a tile must have at least one output, F(0, {r}) has none")]
    EmptyTile {
        /// Taps of the filter.
        r: usize,
    },
    /// A filter of fewer than two taps has nothing to save.
    #[error("F(m, r) needs a filter of at least 2 taps, not {r}")]
    ShortFilter {
        /// Taps of the filter.
        r: usize,
    },
    /// Another number of points than m + r − 2.
    #[error("F({m}, {r}) needs {needed} finite interpolation points (infinity is implied), {given} were given")]
    PointCount {
        /// Outputs of a tile.
        m: usize,
        /// Taps of the filter.
        r: usize,
        /// Points needed.
        needed: usize,
        /// Points given.
        given: usize,
    },
    /// Two equal points.
    #[error("interpolation points must differ, {point} is there twice")]
    RepeatedPoint {
        /// The point.
        point: Rational,
    },
    /// An element does not fit a pair of `i128`.
    #[error(
        "the matrices of F({m}, {r}) on these points have numbers too large to compute exactly: take points such as 1/2 or 5/8"
    )]
    Overflow {
        /// Outputs of a tile.
        m: usize,
        /// Taps of the filter.
        r: usize,
    },
}

impl Transforms {
    /// The matrices of F(m, r) on m + r − 2 distinct finite points and infinity. Rows of G and Bᵀ and columns of Aᵀ
    /// keep the order of the points; infinity is last.
    pub fn new(m: usize, r: usize, points: &[Rational]) -> Result<Transforms, CookToomError> {
        if m == 0 {
            return Err(CookToomError::EmptyTile { r });
        }
        if r < 2 {
            return Err(CookToomError::ShortFilter { r });
        }
        // The subtraction comes last: `m + r` is at least 3.
        let needed = m.saturating_add(r) - 2;
        if points.len() != needed {
            return Err(CookToomError::PointCount { m, r, needed, given: points.len() });
        }
        for (i, &point) in points.iter().enumerate() {
            if points[..i].contains(&point) {
                return Err(CookToomError::RepeatedPoint { point });
            }
        }
        build(m, r, points).ok_or(CookToomError::Overflow { m, r })
    }

    /// Inputs of a tile, which is also the number of multiplications: a = m + r − 1.
    pub fn inputs(&self) -> usize {
        self.m + self.r - 1
    }

    /// Whether `dtype` holds Aᵀ and Bᵀ exactly, so that only sums are rounded at run time.
    pub fn is_exact_in(&self, dtype: DType) -> bool {
        self.at.is_exact_in(dtype) && self.bt.is_exact_in(dtype)
    }
}

fn build(m: usize, r: usize, points: &[Rational]) -> Option<Transforms> {
    let finite = points.len();
    let a = finite + 1;
    let power = |p: Rational, e: usize| p.checked_pow(u32::try_from(e).ok()?);
    let unit = |on: bool| Some(if on { Rational::ONE } else { Rational::ZERO });

    let at = Matrix::build(m, a, |k, i| match points.get(i) {
        Some(&p) => power(p, k),
        None => unit(k + 1 == m),
    })?;
    let mut denominators = Vec::with_capacity(finite);
    for (i, &p) in points.iter().enumerate() {
        let others = points.iter().enumerate().filter(|&(j, _)| j != i);
        denominators.push(others.map(|(_, &q)| p.checked_sub(q)).try_fold(Rational::ONE, |f, d| f.checked_mul(d?))?);
    }
    let g = Matrix::build(a, r, |i, j| match points.get(i) {
        Some(&p) => power(p, j)?.checked_div(denominators[i]),
        None => unit(j + 1 == r),
    })?;
    let mut polynomials = Vec::with_capacity(a);
    for i in 0..a {
        polynomials.push(product_of_roots(points.iter().enumerate().filter(|&(j, _)| j != i).map(|(_, &p)| p))?);
    }
    let bt = Matrix::build(a, a, |i, l| Some(polynomials[i].get(l).copied().unwrap_or(Rational::ZERO)))?;
    Some(Transforms { m, r, points: points.to_vec(), at, g, bt })
}

/// The coefficients of `Π (x − p)`, lowest first.
fn product_of_roots(roots: impl Iterator<Item = Rational>) -> Option<Vec<Rational>> {
    let mut coefficients = vec![Rational::ONE];
    for p in roots {
        let mut next = vec![Rational::ZERO; coefficients.len() + 1];
        for (l, &c) in coefficients.iter().enumerate() {
            next[l + 1] = next[l + 1].checked_add(c)?;
            next[l] = next[l].checked_sub(c.checked_mul(p)?)?;
        }
        coefficients = next;
    }
    Some(coefficients)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(text: &str) -> Vec<Rational> {
        text.split_whitespace().map(|p| p.parse().unwrap()).collect()
    }

    fn matrix(text: &str) -> Vec<Vec<Rational>> {
        text.split(';').map(points).collect()
    }

    fn rows(m: &Matrix) -> Vec<Vec<Rational>> {
        m.iter().map(|r| r.to_vec()).collect()
    }

    /// `y[k]` for basis vectors g = e_j, d = e_l is `Σ_i Aᵀ[k][i]·G[i][j]·Bᵀ[i][l]`, and has to be `[l = k + j]`.
    fn assert_filters(t: &Transforms) {
        for k in 0..t.m {
            for j in 0..t.r {
                for l in 0..t.inputs() {
                    let terms = (0..t.inputs()).map(|i| {
                        t.at.get(k, i).checked_mul(t.g.get(i, j)).unwrap().checked_mul(t.bt.get(i, l)).unwrap()
                    });
                    let y = terms.fold(Rational::ZERO, |acc, x| acc.checked_add(x).unwrap());
                    let want = if l == k + j { Rational::ONE } else { Rational::ZERO };
                    assert_eq!(y, want, "F({}, {}) on {:?}, k {k} j {j} l {l}", t.m, t.r, t.points);
                }
            }
        }
    }

    #[test]
    fn filters_exactly() {
        for all in ["0 1 -1 2 -2 1/2 -1/2 3", "0 5/8 -5/8 3/2 -3/2 1 -1 7/4", "3 -1/3 2/7 0 1 -5 1/2 -2"] {
            let all = points(all);
            for r in 2..=7 {
                for m in 1..=7usize {
                    if m + r - 1 <= 9 {
                        assert_filters(&Transforms::new(m, r, &all[..m + r - 2]).unwrap());
                    }
                }
            }
        }
    }

    #[test]
    fn lavins_f4() {
        let t = Transforms::new(4, 3, &points("0 1 -1 2 -2")).unwrap();
        assert_eq!(
            rows(&t.bt),
            matrix("4 0 -5 0 1 0; 0 -4 -4 1 1 0; 0 4 -4 -1 1 0; 0 -2 -1 2 1 0; 0 2 -1 -2 1 0; 0 4 0 -5 0 1")
        );
        assert_eq!(rows(&t.g), matrix("1/4 0 0; -1/6 -1/6 -1/6; -1/6 1/6 -1/6; 1/24 1/12 1/6; 1/24 -1/12 1/6; 0 0 1"));
        assert_eq!(rows(&t.at), matrix("1 1 1 1 1 0; 0 1 -1 2 -2 0; 0 1 1 4 4 0; 0 1 -1 8 -8 1"));
        assert!(t.is_exact_in(DType::F32) && !t.g.is_exact_in(DType::F64));
    }

    #[test]
    fn lavins_f2_up_to_signs() {
        let t = Transforms::new(2, 3, &points("0 1 -1")).unwrap();
        assert_eq!(rows(&t.bt), matrix("-1 0 1 0; 0 1 1 0; 0 -1 1 0; 0 -1 0 1"));
        assert_eq!(rows(&t.g), matrix("-1 0 0; 1/2 1/2 1/2; 1/2 -1/2 1/2; 0 0 1"));
        assert_eq!(rows(&t.at), matrix("1 1 1 0; 0 1 -1 1"));
    }

    #[test]
    fn errors_say_what_is_needed() {
        let err = |m, r, p: &str| Transforms::new(m, r, &points(p)).unwrap_err();
        assert_eq!(err(0, 3, "0"), CookToomError::EmptyTile { r: 3 });
        assert_eq!(err(2, 1, "0"), CookToomError::ShortFilter { r: 1 });
        assert_eq!(
            err(4, 3, "0 1 -1").to_string(),
            "F(4, 3) needs 5 finite interpolation points (infinity is implied), 3 were given"
        );
        assert_eq!(err(2, 3, "0 1/2 0.5"), CookToomError::RepeatedPoint { point: "1/2".parse().unwrap() });
        let huge = "170141183460469231731687303715884105727";
        assert_eq!(err(2, 3, &format!("0 1 {huge}")), CookToomError::Overflow { m: 2, r: 3 });
        assert!(matches!(err(usize::MAX, usize::MAX, "0"), CookToomError::PointCount { .. }));
    }
}
