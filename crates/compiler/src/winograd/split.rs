//! Accuracy of sums of products on matrix units of CUDA devices: how many roundings they stand for, and the expected error of
//! those in three terms of tf32 and of those of rounded half floats.
//!
//! A unit that adds to a sum cuts off what lies below its last bit. Where it adds up a whole reduction, each of thousands of
//! steps does that, and with losses of one sign the error grows with the number of terms and not with its root: 26 times
//! that of f32 was measured in direct sums of 2304 products. So a unit here adds 8 products from zero, and an addition in
//! f32, which rounds, joins what it gives to the sum.

use super::accuracy::{self, ROUNDING_VARIANCE, expected};
use super::cook_toom::Transforms;
use crate::options::Products;
use winograph_ir::DType;

/// Products that a tf32 unit sums before its sum is joined to the others by an addition in f32.
const SPLIT_STEP: f64 = 8.0;

/// Variance, in units of u² for each product of variance 1, of what a sum of products in three tf32 terms loses beyond the
/// f32 additions that join steps of [`SPLIT_STEP`]; with u = 2⁻²⁴ and u_t = 2⁻¹¹ = 2¹³u:
///
/// - *Splitting.* x = h + l + r with l the rounding error of h and r that of l. A rounding's variance relative to what is
///   rounded is v u_t², v = `ROUNDING_VARIANCE`; `l·l'`, which is left out, and `r·x'`, `x·r'` have v²·u_t⁴ = 0.52 u² each: 1.6.
/// - *Alignment.* A unit aligns the 8 products and what they are added to at the largest one, of exponent e, and cuts off
///   what is below 2^(e-23): up to 2u·2^e of each of 9 addends, in the direction of its sign. For products of normal numbers
///   4^e is about 2.7, so that independent signs give 9·4/3·2.7 = 32 u² a step, 4 a product.
/// - *Bias.* Signs are not independent of the sum: each step loses u·2^e·E|p| = 1.05 u of itself, and 0.72 u where its
///   result is cut off. That is one and the same part of all of the sum: (1.8 u)² = 3.2.
const SPLIT_VARIANCE: f64 = 1.6 + 4.0 + 3.2;

/// [`expected_error`](accuracy::expected_error) with the products in three terms of tf32.
///
/// Steps of 8 products are joined in f32, whose partial sums are over 8, 16, ... terms: `(n/8 + 1)/2` in place of
/// `(n + 1)/2`, and what units cut off comes on top. Units of a later generation keep more bits while they align, so that
/// this is more than they lose.
pub fn expected_error_split(axes: &[&Transforms], terms: usize) -> f64 {
    expected(axes, ((terms as f64 / SPLIT_STEP).ceil() + 1.0) / 2.0 + SPLIT_VARIANCE / ROUNDING_VARIANCE)
}

/// The expected error of an algorithm with products in three terms of tf32 as a multiple of that of the direct sum in f32 for
/// the same shape; without matrices, of the direct sum of `terms` products.
pub fn split_error_ratio(axes: &[&Transforms], terms: usize) -> f64 {
    let taps = axes.iter().fold(terms, |n, t| n.saturating_mul(t.r));
    expected_error_split(axes, terms) / accuracy::expected_error_direct(taps)
}

/// What a unit that adds up all of a sum of half floats loses of it, in u for each of its products: 0.9 u a step of 8 was measured
/// in direct sums of 2304 products in three terms (268 u, 26 times the error of f32); more products at a time lose no more.
const UNIT_LOSS: f64 = 0.9 / 8.0;

/// Expected relative L2 error of half floats' sums, in units of u = 2⁻²⁴, with factors that are half floats on a unit, and the
/// result rounded to them: in a rewrite X̂ and Ĝ are rounded as well, from f32 and f64.
///
/// With k = u_h/u each of these roundings has k² times the variance of one of f32; that of the result comes once, those of X̂ and Ĝ
/// once for each product. The rounding of Ĝ is in it.
pub fn expected_error_half(axes: &[&Transforms], terms: usize, dtype: DType) -> f64 {
    let k = units_of_f32(dtype);
    let sums = (UNIT_LOSS * terms as f64).powi(2) / ROUNDING_VARIANCE;
    let rounded = if axes.is_empty() { 0.0 } else { 2.0 * k * k - 1.0 };
    (expected(axes, sums + rounded).powi(2) + ROUNDING_VARIANCE * k * k).sqrt()
}

/// A half float's unit roundoff in those of f32.
fn units_of_f32(dtype: DType) -> f64 {
    dtype.unit_roundoff().unwrap_or(0.0) / DType::F32.unit_roundoff().unwrap_or(1.0)
}

/// The expected error of a rewrite whose factors are rounded to half floats as a multiple of that of the direct sum of the same
/// half floats, both with their results rounded.
pub fn half_error_ratio(axes: &[&Transforms], terms: usize, dtype: DType) -> f64 {
    let taps = axes.iter().fold(terms, |n, t| n.saturating_mul(t.r));
    expected_error_half(axes, terms, dtype) / expected_error_half(&[], taps, dtype)
}

/// Roundings of f32 that stand for those of X̂ and Ĝ where they are kept in a half float: one of each.
pub fn factor_roundings(dtype: DType) -> usize {
    if matches!(dtype, DType::F16 | DType::BF16) { 2 * units_of_f32(dtype) as usize } else { 0 }
}

/// How many roundings stand for those of `terms` products and their sum in [`bound_factor`](accuracy::bound_factor), where
/// products may be rounded so; of what kernels may do the most, since not every sum goes to a unit.
///
/// *Three terms.* With `|l| ≤ u_t|x|`, `|r| ≤ u_t²|x|` and u_t² = 4u, what splitting leaves out is at most 12u(1 + u_t) of a
/// product: 13u. An instruction, or each of two halves of it, cuts less than 2u of the largest addend off each of its at most
/// 9 addends and off its result: 20u of the magnitudes in it, or twice 12u in halves of 4 products, and 2⁻¹⁰ of that for the
/// small products: at most 25u. Each step is joined by an addition. Together `⌈terms/8⌉ + 40`; 2 of it pay for products of these.
///
/// *tf32.* A factor is rounded to 11 bits or cut off after them: at most 2⁻¹⁰ = 2¹⁴u of it, 2¹⁵u + 2⁴u of a product. The unit adds
/// all of the sum up: 24u a step of 8, and 40 as above.
///
/// *Half floats* (`dtype` is that of the factors as a unit reads them; where there is none they are computed in f32, and `dtype`
/// is that). Their products are exact in f32, and the unit adds all of the sum up. Of an instruction's products it adds so many
/// at a time, 4 (V100), 8 (A100) or 16 (H100) by Fasi, Higham, Mikaitis and Pranesh (*Numerical behavior of NVIDIA tensor
/// cores*, 2021) and Khattak and Mikaitis (2025): less than 2u of the largest addend off each of them, off the sum so far and off
/// the result, for 4 products 12u, 3u a product and no more for 8 or 16.
pub fn roundings(terms: usize, dtype: DType, products: Products) -> usize {
    let steps = terms.div_ceil(SPLIT_STEP as usize);
    match products {
        _ if matches!(dtype, DType::F16 | DType::BF16) => terms.saturating_mul(3),
        Products::Tf32x3 | Products::Auto if dtype == DType::F32 => terms.max(steps.saturating_add(40)),
        Products::Tf32 if dtype == DType::F32 => {
            terms.max(steps.saturating_mul(24)).saturating_add(40 + (1 << 15) + (1 << 4))
        }
        _ => terms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use accuracy::expected_error_direct;

    const U: f64 = 1.0 / (1u64 << 24) as f64;

    /// Independent normal values.
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

    /// Rounded to 11 significand bits, ties away from zero.
    fn tf32(x: f32) -> f32 {
        f32::from_bits(x.to_bits().wrapping_add(1 << 12) & !0x1fff)
    }

    /// The power of two below a number that is not 0.
    fn exponent(x: f64) -> f64 {
        f64::from_bits(x.abs().to_bits() & 0x7ff << 52)
    }

    /// Cut off below 2^-23 times `of`.
    fn cut(x: f64, of: f64) -> f64 {
        let quantum = of / (1u64 << 23) as f64;
        (x / quantum).trunc() * quantum
    }

    /// What a unit adds up, all addends aligned at the largest.
    fn unit(a: &[f32], b: &[f32], c: f64) -> f64 {
        let addends: Vec<f64> = a.iter().zip(b).map(|(&a, &b)| a as f64 * b as f64).chain([c]).collect();
        let most = addends.iter().fold(0f64, |m, x| m.max(x.abs()));
        if most == 0.0 {
            return 0.0;
        }
        let sum: f64 = addends.iter().map(|&x| cut(x, exponent(most))).sum();
        if sum == 0.0 { 0.0 } else { cut(sum, exponent(sum)) }
    }

    /// Relative L2 errors in u, of sums of steps and of a unit that adds everything up, and the most that is used of the bound.
    fn simulated(n: usize, tries: usize) -> (f64, f64, f64) {
        let mut normal = Normal(n as u64);
        let (mut steps, mut whole, mut all, mut used) = (0.0, 0.0, 0.0, 0f64);
        let factor = (n.div_ceil(8) + 40) as f64 * U;
        for _ in 0..tries {
            let [a, b]: [Vec<f32>; 2] = std::array::from_fn(|_| (0..n).map(|_| normal.next()).collect());
            let parts = |v: &[f32]| -> (Vec<f32>, Vec<f32>) { v.iter().map(|&x| (tf32(x), tf32(x - tf32(x)))).unzip() };
            let ((ah, al), (bh, bl)) = (parts(&a), parts(&b));
            let three = |from: usize, c: f64| {
                let s = from..(from + 8).min(n);
                let small = unit(&al[s.clone()], &bh[s.clone()], c);
                unit(&ah[s.clone()], &bh[s.clone()], unit(&ah[s.clone()], &bl[s], small))
            };
            let (mut sum, mut cut_off) = (0f32, 0f64);
            for from in (0..n).step_by(8) {
                sum += three(from, 0.0) as f32;
                cut_off = three(from, cut_off);
            }
            let exact: f64 = a.iter().zip(&b).map(|(&a, &b)| a as f64 * b as f64).sum();
            let magnitude: f64 = a.iter().zip(&b).map(|(&a, &b)| (a as f64 * b as f64).abs()).sum();
            steps += (sum as f64 - exact).powi(2);
            whole += (cut_off - exact).powi(2);
            all += exact * exact;
            used = used.max((sum as f64 - exact).abs() / (factor * magnitude));
        }
        ((steps / all).sqrt() / U, (whole / all).sqrt() / U, used)
    }

    #[test]
    fn the_model_is_no_less_than_a_simulated_unit_and_near_it() {
        for (n, tries) in [(16, 4000), (64, 2000), (576, 500), (2304, 200)] {
            let (steps, whole, used) = simulated(n, tries);
            let model = expected_error_split(&[], n);
            assert!(model > 0.9 * steps && model < 2.5 * steps, "{n}: model {model}, simulated {steps}");
            assert!(whole > 1.3 * steps, "{n}: {whole} in one sum, {steps} in steps");
            assert!(used > 0.0 && used < 1.0, "{n}: {used} of the bound");
        }
        // Adding up within the unit is what costs: no such error is left in long sums.
        let (steps, whole, _) = simulated(2304, 100);
        assert!(whole > 5.0 * steps && steps < expected_error_direct(2304), "{whole} {steps}");
    }

    #[test]
    fn long_sums_are_as_accurate_as_in_f32_and_short_ones_are_not() {
        assert!(split_error_ratio(&[], 2304) < 0.5 && split_error_ratio(&[], 256) < 1.0);
        assert!((2.0..3.0).contains(&split_error_ratio(&[], 16)));
        assert!(split_error_ratio(&[], 8) > 3.0);
        let f4 = crate::winograd::points::default_transforms(4, 3).unwrap();
        let of = |terms| split_error_ratio(&[&f4, &f4], terms) / accuracy::error_ratio(&[&f4, &f4], terms);
        assert!(of(512) < 1.0 && of(16) > 1.0, "{} {}", of(512), of(16));
    }

    #[test]
    fn what_may_be_rounded_more_has_a_larger_bound() {
        let of = |terms, products| roundings(terms, DType::F32, products);
        assert_eq!((of(8, Products::Exact), of(8, Products::Tf32x3), of(4608, Products::Auto)), (8, 41, 4608));
        assert_eq!(of(8, Products::Tf32), 32_768 + 16 + 40 + 24);
        assert_eq!(roundings(8, DType::F64, Products::Tf32), 8);
        assert_eq!(roundings(16, DType::F16, Products::Exact), 48);
        assert_eq!(accuracy::bound_factor(&[], of(usize::MAX, Products::Tf32x3), DType::F32), None);
    }
}
