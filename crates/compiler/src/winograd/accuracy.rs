//! How much accuracy an algorithm costs: worst-case amplification, expected error, an a-priori bound.
//!
//! All three are for an n-D algorithm nested per axis, given as one [`Transforms`] per axis, the first transformed
//! first. `terms` is the number of products summed at each transform position: channels, times the taps of window axes
//! that are not transformed.

use super::cook_toom::{Matrix, Transforms};
use crate::lower::matvec::{Operand, RowPlan, Term, row_plan};
use winograph_ir::DType;

/// Worst-case amplification of rounding errors over the direct sum's, for data of one magnitude and adverse signs.
///
/// Per axis it is `max_k Σ_i |Aᵀ|[k][i] · (Σ_j |G|[i][j]) · (Σ_l |Bᵀ|[i][l]) / r`: the sum of the magnitudes that meet
/// in one output, over the r products of the direct sum; axes multiply. The choice of the output k is the worst.
/// Reproduces the last column of the project's measured table: for two axes F(2, 3) on 0, ±1 gives 7.1, F(4, 3) 256 on
/// 0, ±1, ±2 and 62.7 on 0, ±5/8, ±3/2, F(6, 3) 509 on 0, ±1, ±2, ±1/2.
pub fn amplification(axes: &[&Transforms]) -> f64 {
    let sum = |row: &[_]| row.iter().map(|x: &super::rational::Rational| x.to_f64().abs()).sum::<f64>();
    axes.iter()
        .map(|t| {
            let magnitudes: Vec<f64> = t.g.iter().zip(t.bt.iter()).map(|(g, b)| sum(g) * sum(b)).collect();
            let output = |row: &[super::rational::Rational]| {
                row.iter().zip(&magnitudes).map(|(a, m)| a.to_f64().abs() * m).sum::<f64>()
            };
            t.at.iter().map(output).fold(0.0, f64::max) / t.r as f64
        })
        .product()
}

/// Variance of one rounding's relative error in units of u², for results whose mantissas are spread as logarithms:
/// `u²/3 · E[s⁻²]` with the significand s in [1, 2) of density 1/(s·ln 2), and `E[s⁻²] = 3/(8·ln 2)`.
pub(super) const ROUNDING_VARIANCE: f64 = 1.0 / (8.0 * std::f64::consts::LN_2);

/// Expected relative L2 error of an algorithm, in units of the unit roundoff u of the type it computes in.
///
/// A model, not a bound: inputs and weights are independent with mean 0 and one variance each, every rounding is an
/// independent error in proportion to the value that is rounded, and the variances of values and errors are
/// propagated exactly through the transforms as [`row_plan`] orders them, through the sum over `terms` (sequential,
/// fused multiply-adds) and through the output transform. Ĝ is rounded once. Within a fifth of simulations in
/// f32 on such data (see the tests); data with many zeros or a mean has other errors, up to a third smaller for both
/// Winograd and direct sums.
pub fn expected_error(axes: &[&Transforms], terms: usize) -> f64 {
    // The partial sums 1..=n over terms, each over the n terms of the result.
    expected(axes, (terms as f64 + 1.0) / 2.0)
}

/// Expected error where a sum of products has so many times the variance of one rounding of it.
pub(super) fn expected(axes: &[&Transforms], sums: f64) -> f64 {
    let axes: Vec<AxisVariance> = axes.iter().map(|t| AxisVariance::new(t)).collect();
    let products: f64 = axes.iter().map(|a| a.positions).product();
    // Rounding of Ĝ, where there is one, and of the sums of products.
    let rounded = if axes.is_empty() { 0.0 } else { 1.0 };
    let mut variance = products * (rounded + sums);
    for (i, axis) in axes.iter().enumerate() {
        let others = axes.iter().enumerate().filter(|&(j, _)| j != i);
        variance += axis.input * others.map(|(_, a)| a.positions).product::<f64>();
        // Axes before this one are outputs already, with exactly r products each.
        let before: f64 = axes[..i].iter().map(|a| a.taps).product();
        let after: f64 = axes[i + 1..].iter().map(|a| a.positions).product();
        variance += axis.output * before * after;
    }
    let taps: f64 = axes.iter().map(|a| a.taps).product();
    (ROUNDING_VARIANCE * variance / taps).sqrt()
}

/// Expected relative L2 error of the direct sum of `products` products in sequential fused multiply-adds, in units of
/// u, under the assumptions of [`expected_error`].
pub fn expected_error_direct(products: usize) -> f64 {
    (ROUNDING_VARIANCE * (products as f64 + 1.0) / 2.0).sqrt()
}

/// The expected error of an algorithm as a multiple of that of the direct sum for the same shape.
///
/// ```
/// use winograph_compiler::winograd::{accuracy, points::default_transforms};
/// let f4 = default_transforms(4, 3).unwrap();
/// let cost = accuracy::error_ratio(&[&f4, &f4], 64);
/// assert!((1.3..2.7).contains(&cost));
/// ```
pub fn error_ratio(axes: &[&Transforms], terms: usize) -> f64 {
    let taps = axes.iter().fold(terms, |n, t| n.saturating_mul(t.r));
    expected_error(axes, terms) / expected_error_direct(taps)
}

/// Variances along one axis for inputs and weights of variance 1, averaged over the outputs of a tile.
struct AxisVariance {
    /// Σ_i Aᵀ² · var X̂ · var Ĝ: what an error in proportion to each product becomes.
    positions: f64,
    /// Roundings inside of Bᵀ·d as they arrive at the output.
    input: f64,
    /// Roundings inside of Aᵀ·M̂.
    output: f64,
    /// r, the variance of the output itself.
    taps: f64,
}

impl AxisVariance {
    fn new(t: &Transforms) -> AxisVariance {
        let (at, g, bt) = (t.at.to_f64(), t.g.to_f64(), t.bt.to_f64());
        let dot = |v: &[f64], w: &[f64]| v.iter().zip(w).map(|(x, y)| x * y).sum::<f64>();
        let squares = |v: &[f64]| dot(v, v);
        let var_g: Vec<f64> = g.iter().map(|row| squares(row)).collect();
        let var_x: Vec<f64> = bt.iter().map(|row| squares(row)).collect();
        let rounded_x: Vec<f64> =
            (0..bt.len()).map(|i| partial_sums(&bt, i).iter().map(|p| squares(p)).sum()).collect();
        let (mut positions, mut input, mut output) = (0.0, 0.0, 0.0);
        for (k, row) in at.iter().enumerate() {
            for (i, a) in row.iter().enumerate() {
                positions += a * a * var_x[i] * var_g[i];
                input += a * a * rounded_x[i] * var_g[i];
            }
            // A partial sum Σ c_i·M̂_i is the bilinear form Σ c_i·G_i ⊗ B_i of weights and inputs, whose variance is
            // the sum of its squared coefficients: Σ c_i·c_j·(G_i·G_j)·(B_i·B_j).
            for p in partial_sums(&at, k) {
                for (i, c) in p.iter().enumerate() {
                    output +=
                        p.iter().enumerate().map(|(j, d)| c * d * dot(&g[i], &g[j]) * dot(&bt[i], &bt[j])).sum::<f64>();
                }
            }
        }
        let m = t.m as f64;
        AxisVariance { positions: positions / m, input: input / m, output: output / m, taps: t.r as f64 }
    }
}

/// The values that are rounded on the way to element `i` of `rows · v`, each as its coefficients of v.
fn partial_sums(rows: &[Vec<f64>], i: usize) -> Vec<Vec<f64>> {
    let width = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut rounded = Vec::new();
    let chain = |terms: &[Term], rounded: &mut Vec<Vec<f64>>| {
        let mut sum = vec![0.0; width];
        for (n, term) in terms.iter().enumerate() {
            let c = rows[term.coefficient.0][term.coefficient.1];
            let mut operand = vec![0.0; width];
            match term.operand {
                Operand::One(k) => operand[k] = 1.0,
                Operand::Sum(k, l) => (operand[k], operand[l]) = (1.0, 1.0),
                Operand::Difference(k, l) => (operand[k], operand[l]) = (1.0, -1.0),
            }
            sum.iter_mut().zip(&operand).for_each(|(s, x)| *s += c * x);
            if !matches!(term.operand, Operand::One(_)) {
                rounded.push(operand.iter().map(|x| x * c).collect());
            }
            if n > 0 || !is_power_of_two(c) {
                rounded.push(sum.clone());
            }
        }
        sum
    };
    if let RowPlan::EvenOdd { even, odd, negate } = row_plan(rows, i) {
        let (e, o) = (chain(&even, &mut rounded), chain(&odd, &mut rounded));
        rounded.push(e.iter().zip(&o).map(|(e, o)| if negate { e - o } else { e + o }).collect());
    } else if let RowPlan::Plain(terms) = row_plan(rows, i) {
        chain(&terms, &mut rounded);
    }
    rounded
}

/// Whether a product by `c` is exact.
fn is_power_of_two(c: f64) -> bool {
    c.is_normal() && c.to_bits() << 12 == 0
}

/// The factor c of the a-priori bound, for every output of an n-D algorithm (written here for two axes):
///
/// `|y − ŷ| ≤ c·u·[|Aᵀ|((|G||g||Gᵀ|) ⊙ (|Bᵀ||x||B|))|A|]`, summed over `terms`, plus underflow
///
/// where u is the unit roundoff of `dtype`, the type that values are computed in. No path from an input to an output
/// meets more than n roundings: those of the input transforms, of Ĝ (for f32: computed in f64 and rounded once, which
/// counts as two; for f64: the weight transform's own), one per term of the sum whatever its order, and those of the
/// output transforms; and one more for each matrix whose elements `dtype` does not hold exactly. So `c = n/(1 − n·u)`
/// (N. Higham, *Accuracy and Stability of Numerical Algorithms*, 2002, lemma 3.1). What underflow adds is not
/// counted here; [`bound`](super::bound) does. Without axes it is the factor of a direct sum of `terms` products, in any
/// order, fused or not.
///
/// `None` for a type without a unit roundoff and where n·u ≥ 1.
pub fn bound_factor(axes: &[&Transforms], terms: usize, dtype: DType) -> Option<f64> {
    let u = dtype.unit_roundoff()?;
    let path = |m: &Matrix| {
        let rows = m.to_f64();
        let steps = (0..rows.len()).map(|i| depth(&rows, i)).max().unwrap_or(0);
        steps + usize::from(!m.is_exact_in(dtype))
    };
    let mut roundings = terms;
    for t in axes {
        roundings = roundings.saturating_add(path(&t.bt) + path(&t.at));
        if dtype == DType::F64 {
            roundings = roundings.saturating_add(path(&t.g));
        }
    }
    if dtype != DType::F64 && !axes.is_empty() {
        roundings = roundings.saturating_add(2);
    }
    let n = roundings as f64;
    (n * u < 1.0).then(|| n / (1.0 - n * u))
}

/// The operations of element `i` of `rows · v` that may underflow, each weighted with what its result is multiplied by.
pub(super) fn operations(rows: &[Vec<f64>], i: usize) -> f64 {
    let chain = |terms: &[Term]| -> f64 {
        let one = |t: &Term| match t.operand {
            Operand::One(_) => 1.0,
            _ => 1.0 + rows[t.coefficient.0][t.coefficient.1].abs(),
        };
        terms.iter().map(one).sum()
    };
    match row_plan(rows, i) {
        RowPlan::Plain(terms) => chain(&terms),
        RowPlan::EvenOdd { even, odd, .. } => 1.0 + chain(&even) + chain(&odd),
    }
}

/// The most roundings between an element of v and element `i` of `rows · v`, products fused or not: what is summed first
/// has been a product, and so has what is added to it.
fn depth(rows: &[Vec<f64>], i: usize) -> usize {
    let chain = |terms: &[Term]| {
        let pairs = terms.iter().any(|t| !matches!(t.operand, Operand::One(_)));
        let rounded = |t: &Term| !is_power_of_two(rows[t.coefficient.0][t.coefficient.1]);
        terms.len().saturating_sub(1) + usize::from(pairs) + usize::from(terms.iter().take(2).any(rounded))
    };
    match row_plan(rows, i) {
        RowPlan::Plain(terms) => chain(&terms),
        RowPlan::EvenOdd { even, odd, .. } => 1 + chain(&even).max(chain(&odd)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transforms(m: usize, r: usize, points: &str) -> Transforms {
        let points: Vec<_> = points.split_whitespace().map(|p| p.parse().unwrap()).collect();
        Transforms::new(m, r, &points).unwrap()
    }

    fn f2() -> Transforms {
        transforms(2, 3, "0 1 -1")
    }

    fn f4(p: &str) -> Transforms {
        transforms(4, 3, p)
    }

    const F6: &str = "0 1 -1 2 -2 1/2 -1/2";

    #[test]
    fn amplifications_are_the_tables() {
        for (t, want) in [
            (f2(), 7.0),
            (f4("0 1 -1 2 -2"), 256.0),
            (f4("0 1 -1 1/2 -2"), 97.0),
            (f4("0 5/8 -5/8 3/2 -3/2"), 63.0),
            (transforms(6, 3, F6), 509.0),
            (transforms(6, 3, "0 1 -1 2 -2 3 -3"), 52517.0),
        ] {
            assert_eq!(amplification(&[&t, &t]).round(), want, "{:?}", t.points);
        }
    }

    /// Measured on half-rectified inputs, which have a third less error: see WINOGRAD.md's table.
    #[test]
    fn expected_errors_are_near_the_tables() {
        let u = 2f64.powi(-24);
        let near = |model: f64, measured: f64| {
            let ratio = model * u / measured;
            assert!((0.5..2.0).contains(&ratio), "model {:.2e} measured {measured:.2e}", model * u);
        };
        near(expected_error_direct(9 * 256), 5.9e-7);
        for (t, measured) in [
            (f2(), 3.8e-7),
            (f4("0 1 -1 2 -2"), 2.3e-6),
            (f4("0 1 -1 1/2 -2"), 1.4e-6),
            (f4("0 5/8 -5/8 3/2 -3/2"), 1.0e-6),
            (transforms(6, 3, F6), 4.2e-6),
        ] {
            near(expected_error(&[&t, &t], 256), measured);
        }
    }

    /// Independent values of mean 0 and variance 1.
    struct Normal(u64);

    impl Normal {
        fn uniform(&mut self) -> f64 {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((self.0 >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        }

        fn next(&mut self) -> f32 {
            ((-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()) as f32
        }
    }

    /// Rows times a vector in f32, as `emit_row` builds it.
    fn product(rows: &[Vec<f64>], plans: &[RowPlan], v: &[f32]) -> Vec<f32> {
        let chain = |terms: &[Term]| {
            let mut sum = None;
            for t in terms {
                let c = rows[t.coefficient.0][t.coefficient.1] as f32;
                let x = match t.operand {
                    Operand::One(k) => v[k],
                    Operand::Sum(k, l) => v[k] + v[l],
                    Operand::Difference(k, l) => v[k] - v[l],
                };
                sum = Some(sum.map_or(c * x, |s| c.mul_add(x, s)));
            }
            sum.unwrap_or(0.0)
        };
        let row = |plan: &RowPlan| match plan {
            RowPlan::Plain(terms) => chain(terms),
            RowPlan::EvenOdd { even, odd, negate: false } => chain(even) + chain(odd),
            RowPlan::EvenOdd { even, odd, negate: true } => chain(even) - chain(odd),
        };
        plans.iter().map(row).collect()
    }

    /// `T · X · Tᵀ` for a square X, rows first.
    fn two_d(t: &Matrix, x: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let rows = t.to_f64();
        let plans: Vec<RowPlan> = (0..rows.len()).map(|i| row_plan(&rows, i)).collect();
        let columns: Vec<Vec<f32>> =
            (0..x.len()).map(|j| product(&rows, &plans, &x.iter().map(|row| row[j]).collect::<Vec<_>>())).collect();
        (0..rows.len()).map(|i| product(&rows, &plans, &columns.iter().map(|c| c[i]).collect::<Vec<_>>())).collect()
    }

    struct Simulated {
        winograd: f64,
        direct: f64,
        /// Largest error over its a-priori bound.
        bound_use: f64,
    }

    #[allow(clippy::needless_range_loop)]
    fn simulate(t: &Transforms, terms: usize, tiles: usize, input: impl Fn(f32) -> f32) -> Simulated {
        let (a, m, r) = (t.inputs(), t.m, t.r);
        let mut normal = Normal(terms as u64 * 977 + a as u64);
        let (at, g, bt) = (t.at.to_f64(), t.g.to_f64(), t.bt.to_f64());
        let c = bound_factor(&[t, t], terms, DType::F32).unwrap() * 2f64.powi(-24);
        let (mut err, mut err_direct, mut total, mut bound_use) = (0.0, 0.0, 0.0, 0f64);
        for _ in 0..tiles {
            let mut products = vec![vec![0f32; a]; a];
            let mut magnitudes = vec![vec![0f64; a]; a];
            let mut exact = vec![vec![0f64; m]; m];
            let mut direct = vec![vec![0f32; m]; m];
            for _ in 0..terms {
                let x: Vec<Vec<f32>> = (0..a).map(|_| (0..a).map(|_| input(normal.next())).collect()).collect();
                let w: Vec<Vec<f32>> = (0..r).map(|_| (0..r).map(|_| normal.next()).collect()).collect();
                let xh = two_d(&t.bt, &x);
                for p in 0..a {
                    for q in 0..a {
                        let (mut gh, mut gabs, mut xabs) = (0.0, 0.0, 0.0);
                        for i in 0..r {
                            for j in 0..r {
                                gh += g[p][i] * w[i][j] as f64 * g[q][j];
                                gabs += (g[p][i] * w[i][j] as f64 * g[q][j]).abs();
                            }
                        }
                        for i in 0..a {
                            for j in 0..a {
                                xabs += (bt[p][i] * x[i][j] as f64 * bt[q][j]).abs();
                            }
                        }
                        products[p][q] = xh[p][q].mul_add(gh as f32, products[p][q]);
                        magnitudes[p][q] += gabs * xabs;
                    }
                }
                for k in 0..m {
                    for l in 0..m {
                        for i in 0..r {
                            for j in 0..r {
                                exact[k][l] += x[k + i][l + j] as f64 * w[i][j] as f64;
                                direct[k][l] = x[k + i][l + j].mul_add(w[i][j], direct[k][l]);
                            }
                        }
                    }
                }
            }
            let y = two_d(&t.at, &products);
            for k in 0..m {
                for l in 0..m {
                    let e = (y[k][l] as f64 - exact[k][l]).abs();
                    let mut magnitude = 0.0;
                    for p in 0..a {
                        for q in 0..a {
                            magnitude += (at[k][p] * magnitudes[p][q] * at[l][q]).abs();
                        }
                    }
                    bound_use = bound_use.max(e / (c * magnitude));
                    err += e * e;
                    err_direct += (direct[k][l] as f64 - exact[k][l]).powi(2);
                    total += exact[k][l].powi(2);
                }
            }
        }
        Simulated { winograd: (err / total).sqrt(), direct: (err_direct / total).sqrt(), bound_use }
    }

    #[test]
    fn expected_errors_are_near_simulations() {
        let u = 2f64.powi(-24);
        for (t, tiles) in
            [(f2(), 64), (f4("0 1 -1 2 -2"), 16), (f4("0 5/8 -5/8 3/2 -3/2"), 16), (transforms(6, 3, F6), 8)]
        {
            for terms in [16, 64, 256, 1024] {
                let s = simulate(&t, terms, tiles * 1024 / terms.max(128), |x| x);
                let model = (expected_error(&[&t, &t], terms) * u, expected_error_direct(9 * terms) * u);
                println!(
                    "F({}, {}) C {terms}: {:.2e} / model {:.2e}, direct {:.2e} / {:.2e}, bound used {:.4}",
                    t.m, t.r, s.winograd, model.0, s.direct, model.1, s.bound_use
                );
                // Few tiles: an eighth of noise.
                assert!((0.7..1.4).contains(&(s.winograd / model.0)));
                assert!((0.7..1.4).contains(&(s.direct / model.1)));
                assert!(s.bound_use < 1.0);
            }
        }
    }

    /// Rectified inputs have a mean and many zeros, which the model knows nothing of.
    #[test]
    fn expected_errors_are_within_twice_on_rectified_inputs() {
        let u = 2f64.powi(-24);
        let six = super::super::points::default_transforms(6, 3).unwrap();
        for (t, tiles) in [(f2(), 48), (f4("0 5/8 -5/8 3/2 -3/2"), 12), (six, 6)] {
            for terms in [16, 64, 256, 1024] {
                let s = simulate(&t, terms, tiles * 1024 / terms.max(128), |x| x.max(0.0));
                let found = [
                    s.winograd / (expected_error(&[&t, &t], terms) * u),
                    s.direct / (expected_error_direct(9 * terms) * u),
                    s.winograd / s.direct / error_ratio(&[&t, &t], terms),
                ];
                println!("F({}, {}) C {terms}: measured / expected {found:.2?}", t.m, t.r);
                assert!(found.iter().all(|f| (0.55..1.8).contains(f)), "{found:?}");
            }
        }
    }

    #[test]
    fn default_tolerance_admits_what_it_says() {
        let [f4, six] = [4, 6].map(|m| super::super::points::default_transforms(m, 3).unwrap());
        for terms in [1, 3, 16, 64, 256, 1024, 4096] {
            assert!(error_ratio(&[&f2(), &f2()], terms) < 3.0, "F(2,3) at {terms}");
            assert_eq!(error_ratio(&[&f4, &f4], terms) < 3.0, terms >= 16, "F(4,3) at {terms}");
            assert!(error_ratio(&[&six, &six], terms) > 3.0, "F(6,3) at {terms}");
            println!("{terms}: {:?}", [&f2(), &f4, &six].map(|t| error_ratio(&[t, t], terms)));
        }
    }

    #[test]
    fn bound_holds_with_a_large_offset() {
        for t in [f2(), f4("0 1 -1 2 -2"), transforms(6, 3, F6)] {
            for terms in [1, 3] {
                let s = simulate(&t, terms, 200, |x| x + 1000.0);
                assert!(s.bound_use > 1e-4 && s.bound_use < 1.0, "{}", s.bound_use);
            }
        }
    }

    #[test]
    fn factors_count_roundings() {
        let t = f2();
        // Each row of Bᵀ is one sum; Aᵀ has m1 ± m2 and one more sum; Ĝ counts as two.
        let n = 5.0 + 2.0 * (1.0 + 2.0) + 2.0;
        let c = bound_factor(&[&t, &t], 5, DType::F32).unwrap();
        assert!((c - n).abs() < 1e-4, "{c}");
        assert_eq!(bound_factor(&[&t], 1 << 24, DType::F32), None);
        assert_eq!(bound_factor(&[&t], 1, DType::I32), None);
    }
}
