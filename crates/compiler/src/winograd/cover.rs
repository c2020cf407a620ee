//! How the outputs of a window are covered by tiles: each axis in parts, each part by tiles of one size; each combination of
//! parts is a region of the result with matrices of its own.

use super::cook_toom::Transforms;
use super::points;
use super::rational::Rational;
use winograph_ir::rule::AxisTile;

/// Outputs of an axis that tiles of one size cover.
#[derive(Clone, Debug)]
pub struct Part {
    /// The first one.
    pub from: usize,
    /// How many there are; all of the axis where it is not said.
    pub outputs: Option<usize>,
    /// The matrices.
    pub transforms: Transforms,
}

impl Part {
    /// All of an axis.
    pub fn whole(transforms: Transforms) -> Part {
        Part { from: 0, outputs: None, transforms }
    }
}

/// The parts of an axis of so many outputs and taps.
///
/// # Errors
/// Matrices that there are not.
pub fn parts(tile: AxisTile, outputs: usize, taps: usize, points: Option<&[Rational]>) -> Result<Vec<Part>, String> {
    let matrices = |m: usize| points::transforms(m, taps, points).map_err(|e| e.to_string());
    if let Some(m) = uniform(tile, outputs) {
        return Ok(vec![Part::whole(matrices(m)?)]);
    }
    let mut from = 0;
    let mut out = Vec::new();
    for (m, tiles) in tile.parts(outputs) {
        let covered = (m * tiles).min(outputs - from);
        out.push(Part { from, outputs: Some(covered), transforms: matrices(m)? });
        from += covered;
    }
    Ok(out)
}

/// The size of all tiles of an axis, where they have one.
pub fn uniform(tile: AxisTile, outputs: usize) -> Option<usize> {
    match tile.parts(outputs)[..] {
        [(m, _)] => Some(m),
        [] => tile.sizes().first().copied(),
        _ => None,
    }
}

/// Every combination of one part of each axis, those of the last axis first in turn.
pub fn regions<T>(axes: &[Vec<T>]) -> Vec<Vec<&T>> {
    axes.iter().fold(vec![Vec::new()], |all, parts| {
        all.into_iter()
            .flat_map(|of: Vec<&T>| parts.iter().map(move |p| of.iter().copied().chain([p]).collect()))
            .collect()
    })
}

/// The matrices of every region, axes in order.
pub fn matrices(axes: &[Vec<Part>]) -> Vec<Vec<&Transforms>> {
    regions(axes).into_iter().map(|region| region.into_iter().map(|p| &p.transforms).collect()).collect()
}
