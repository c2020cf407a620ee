//! What is known of a result's error: its a-priori bound, and how much of it was used.

use crate::shapes::Case;
use std::sync::atomic::{AtomicUsize, Ordering};
use winograph::{AxisTile, DType};
use winograph_compiler::winograd::bound::{Arithmetic, Bound, Sizes};
use winograph_compiler::winograd::cost;
use winograph_compiler::winograd::cover::{self, Part};

/// The greatest bound of an element, the greatest |error|/bound, and the expected error as a multiple of the direct sum's.
/// NaN where there is no bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Certificate {
    pub(crate) error_bound: f64,
    pub(crate) max_err_over_bound: f64,
    pub(crate) expected_err_over_direct: f64,
}

const NONE: Certificate =
    Certificate { error_bound: f64::NAN, max_err_over_bound: f64::NAN, expected_err_over_direct: f64::NAN };

/// The parts of each spatial axis of a form with this tile, none where it is not transformed; no tile is the direct sum.
fn parts(case: &Case, tile: &[AxisTile]) -> Option<Vec<Vec<Part>>> {
    let rank = case.window().len();
    let slides = |i: usize| case.window()[i] > 1 && case.output[2 + i] > 1;
    // The tensor-level form has a tile on every axis, the rewrite on those that have a window.
    let mut left = tile.iter();
    let all = tile.len() == rank;
    let per_axis = (0..rank).map(|i| match if all || slides(i) { left.next() } else { None } {
        Some(&t) => cover::parts(t, case.output[2 + i], case.window()[i], case.points.as_deref()).ok(),
        None => Some(vec![]),
    });
    let found = per_axis.collect::<Option<Vec<_>>>()?;
    left.next().is_none().then_some(found)
}

/// The certificate of a result computed in f32 with this tile per axis, against `exact`, on so many threads.
pub(crate) fn certify(
    case: &Case,
    tile: &[AxisTile],
    (x, w): (&[f32], &[f32]),
    result: &[f32],
    exact: &[f64],
    threads: usize,
) -> Certificate {
    let Some(axes) = parts(case, tile) else { return NONE };
    let padding: Vec<(usize, usize)> = case.padding.iter().map(|&p| (p, p)).collect();
    let sizes = Sizes::new(&case.input, &case.weight, &padding, &case.stride, &case.dilation, case.groups);
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
    let arithmetic = Arithmetic { products: case.rules.products, ..Arithmetic::gradual(DType::F32) };
    let Ok(bound) = sizes.and_then(|s| Bound::mixed(&s, &wide(x), &wide(w), &axes, arithmetic)) else {
        return NONE;
    };
    let next = AtomicUsize::new(0);
    let bounded = &bound;
    let mine = || {
        let (mut greatest, mut used) = (0f64, 0f64);
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= bounded.blocks() {
                return (greatest, used);
            }
            let elements = bounded.block(at);
            let from = bounded.first_element(at);
            for (b, (y, want)) in elements.iter().zip(result.iter().zip(exact).skip(from)) {
                let e = (f64::from(*y) - want).abs();
                greatest = greatest.max(*b);
                used = match e {
                    // `max` passes over a NaN.
                    e if e.is_nan() || used.is_nan() => f64::NAN,
                    0.0 => used,
                    e => used.max(e / b),
                };
            }
        }
    };
    let found: Vec<(f64, f64)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(mine)).collect();
        workers.into_iter().map(|w| w.join().unwrap_or((f64::NAN, f64::NAN))).collect()
    });
    let greatest = |of: fn(&(f64, f64)) -> f64| {
        found.iter().map(of).fold(0f64, |a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) })
    };
    let untransformed = case.window().iter().zip(&axes).filter(|(_, parts)| parts.is_empty()).map(|(r, _)| r);
    let used: Vec<Vec<Part>> = axes.iter().filter(|parts| !parts.is_empty()).cloned().collect();
    let channels = case.weight[1] * untransformed.product::<usize>();
    Certificate {
        error_bound: greatest(|f| f.0),
        max_err_over_bound: greatest(|f| f.1),
        expected_err_over_direct: cost::worst_error_over_direct(&used, channels),
    }
}
