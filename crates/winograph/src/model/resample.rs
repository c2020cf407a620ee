//! Resampling along an axis: each place of the result is a weighted sum of neighbouring elements, with weights that
//! are known while importing.
//!
//! Where the pattern of places repeats, as it does for all ratios of small numbers, the result is computed phase by
//! phase from slices, so that no element is looked up by an index in memory.

use crate::error::Result;
use crate::tensor::{SliceRange, Tensor};

/// Longest period of places that are computed phase by phase.
const MAX_PHASES: usize = 8;

/// How far weights may differ by rounding, for each place.
const ROUNDING: f64 = 4e-15;

/// What the places of a result read along an axis: each `taps` elements from `first` on, with as many weights. Beyond the ends
/// are copies of the first and the last element.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Places {
    taps: usize,
    first: Vec<i64>,
    weights: Vec<f64>,
}

impl Places {
    /// None yet, each of which will read so many elements.
    pub(crate) fn new(taps: usize) -> Places {
        Places { taps, first: vec![], weights: vec![] }
    }

    /// A place more. Weights that are not given are 0.
    pub(crate) fn push(&mut self, first: i64, weights: impl IntoIterator<Item = f64>) {
        self.first.push(first);
        self.weights.extend(weights.into_iter().take(self.taps));
        self.weights.resize(self.first.len() * self.taps, 0.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.first.len()
    }

    pub(crate) fn taps(&self) -> usize {
        self.taps
    }

    /// Whether each is a copy of one element.
    pub(crate) fn copies(&self) -> bool {
        self.taps == 1 && self.weights.iter().all(|&w| w == 1.0)
    }

    /// The weights of a place.
    pub(crate) fn of(&self, place: usize) -> &[f64] {
        &self.weights[place * self.taps..][..self.taps]
    }

    /// Which element of an axis each place reads as its tap number `t`.
    pub(crate) fn index(&self, t: usize, size: usize) -> Vec<i64> {
        self.first.iter().map(|f| f.saturating_add(t as i64).clamp(0, size as i64 - 1)).collect()
    }

    /// The weights of tap number `t` of each place.
    pub(crate) fn weights(&self, t: usize) -> Vec<f64> {
        (0..self.len()).map(|i| self.of(i)[t]).collect()
    }
}

/// The places of one phase: the `k`-th reads elements from `step * k + first` on, all of which either exist or have no
/// weight.
#[derive(PartialEq)]
struct Phase {
    first: i64,
    /// For each tap the weights of all places.
    weights: Vec<Vec<f64>>,
}

/// Resamples an axis; there is a place for each element of the result.
pub(crate) fn along(x: &Tensor, axis: usize, places: &Places) -> Result<Tensor> {
    match phases(x.shape()[axis], places) {
        Some((step, phases)) => by_phases(x, axis, places.len(), step, &phases),
        None => by_lookup(x, axis, places),
    }
}

/// The period of the places, as the distance of elements after each and what its phases read.
fn phases(size: usize, places: &Places) -> Option<(usize, Vec<Phase>)> {
    let (taps, first_of) = (places.taps, &places.first);
    let fits = |q: usize, p: i64| first_of.iter().zip(&first_of[q..]).all(|(a, b)| b - a == p);
    let found = (1..=MAX_PHASES.min(places.len().checked_sub(1)?)).find_map(|q| {
        let p = first_of[q] - first_of[0];
        (p > 0 && fits(q, p)).then_some((q, usize::try_from(p).ok()?))
    });
    let (count, step) = found.unwrap_or((places.len(), 1));
    if count > MAX_PHASES {
        return None;
    }
    let length = places.len().div_ceil(count);
    let mut phases: Vec<Phase> = Vec::with_capacity(count);
    for q in 0..count {
        let first = first_of[q];
        let mut weights = vec![vec![0.0; length]; taps];
        let inside = |&p: &usize| first_of[p] >= 0 && first_of[p] + taps as i64 <= size as i64;
        let reference = (q..places.len()).step_by(count).find(inside);
        for k in 0..length {
            // Beyond the last place of the result nothing is wanted.
            let place = k * count + q;
            let Some(&from) = first_of.get(place) else { continue };
            // Those of one phase are the same but for rounding, which grows along the axis.
            let near = |&r: &usize| {
                let close = |(a, b): (&f64, &f64)| (a - b).abs() <= ROUNDING * places.len() as f64;
                places.of(r).iter().zip(places.of(place)).all(close)
            };
            let same = reference.filter(near).unwrap_or(place);
            for (t, &w) in places.of(same).iter().enumerate() {
                let at = (from + t as i64).clamp(0, size as i64 - 1) - from;
                *weights.get_mut(usize::try_from(at).ok()?)?.get_mut(k)? += w;
            }
        }
        phases.push(Phase { first, weights });
    }
    Some((step, phases))
}

fn by_phases(x: &Tensor, axis: usize, out: usize, step: usize, phases: &[Phase]) -> Result<Tensor> {
    let name = "resample";
    let length = out.div_ceil(phases.len());
    let parts = match phases {
        // Copies, as of nearest neighbours.
        [one, rest @ ..] if rest.iter().all(|p| p == one) => vec![phase(x, axis, step, length, one)?],
        _ => phases.iter().map(|p| phase(x, axis, step, length, p)).collect::<Result<Vec<_>>>()?,
    };
    let wide: Vec<Tensor> = parts.iter().map(|p| p.unsqueeze(axis as isize + 1)).collect::<Result<_>>()?;
    let mut shape = x.shape().to_vec();
    shape[axis] = length;
    shape.insert(axis + 1, phases.len());
    let all = match &wide[..] {
        [one] => one.expand_as(name, &shape)?,
        several => Tensor::cat(&several.iter().collect::<Vec<_>>(), axis as isize + 1)?,
    };
    shape.remove(axis + 1);
    shape[axis] = length * phases.len();
    all.reshape_to(name, &shape)?.narrow(axis as isize, 0, out)
}

fn phase(x: &Tensor, axis: usize, step: usize, length: usize, phase: &Phase) -> Result<Tensor> {
    let taps = phase.weights.len() as i64;
    let end = phase.first + step as i64 * (length as i64 - 1) + taps;
    // Elements that have no weight need not exist.
    let mut amounts = vec![(0, 0); x.rank()];
    let (before, after) = ((-phase.first).max(0), (end - x.shape()[axis] as i64).max(0));
    amounts[axis] = (before as isize, after as isize);
    let padded = x.pad(&amounts, 0.0)?;
    let mut sum: Option<Tensor> = None;
    for (t, weights) in phase.weights.iter().enumerate() {
        let Some(&first) = weights.first() else { continue };
        let equal = weights.iter().all(|&w| w == first);
        if equal && first == 0.0 {
            continue;
        }
        let start = (phase.first + before) as isize + t as isize;
        let range = SliceRange::from(start..start + (step * (length - 1)) as isize + 1).step(step as isize);
        let part = padded.slice_axis(axis as isize, range)?;
        let part = match equal {
            true if first == 1.0 => part,
            true => part.mul(first)?,
            false => {
                let mut shape = vec![1; x.rank()];
                shape[axis] = length;
                part.mul(&Tensor::from_slice(weights, &shape)?.cast(x.dtype())?)?
            }
        };
        sum = Some(match sum {
            Some(s) => s.add(&part)?,
            None => part,
        });
    }
    match sum {
        Some(s) => Ok(s),
        None => {
            let mut shape = x.shape().to_vec();
            shape[axis] = length;
            Tensor::zeros(&shape, x.dtype())
        }
    }
}

fn by_lookup(x: &Tensor, axis: usize, places: &Places) -> Result<Tensor> {
    let mut shape = vec![1; x.rank()];
    shape[axis] = places.len();
    let mut sum: Option<Tensor> = None;
    for t in 0..places.taps() {
        let index = places.index(t, x.shape()[axis]);
        let part = x.index_select(axis as isize, &Tensor::from_slice(&index, &[places.len()])?)?;
        if places.copies() {
            return Ok(part);
        }
        let weights = places.weights(t);
        let part = part.mul(&Tensor::from_slice(&weights, &shape)?.cast(x.dtype())?)?;
        sum = Some(match sum {
            Some(s) => s.add(&part)?,
            None => part,
        });
    }
    match sum {
        Some(s) => Ok(s),
        None => Ok(x.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_and_lookups_agree_with_the_definition() {
        let x: Vec<f32> = (0..7).map(|i| ((i * i) % 5) as f32 - 1.5).collect();
        let tensor = Tensor::from_slice(&x, &[1, 7]).unwrap();
        // (out, distance of places as a ratio of integers, offset, taps)
        for (out, p, q, offset, taps) in
            [(14, 1, 2, -1, 2), (3, 2, 1, -1, 4), (9, 7, 9, 0, 1), (10, 2, 3, -2, 4), (7, 1, 1, 0, 1)]
        {
            let mut places = Places::new(taps);
            for i in 0i64..out {
                places.push((i * p).div_euclid(q) + offset, (0..taps).map(|t| 0.25 * (t as i64 + 1 + i % q) as f64));
            }
            let element = |i: usize, t: usize| f64::from(x[(places.first[i] + t as i64).clamp(0, 6) as usize]);
            let want: Vec<f64> = (0..places.len())
                .map(|i| places.of(i).iter().enumerate().map(|(t, w)| w * element(i, t)).sum())
                .collect();
            for got in [along(&tensor, 1, &places), by_lookup(&tensor, 1, &places)] {
                let got = got.unwrap().to_vec::<f32>().unwrap();
                assert_eq!(got.len(), want.len());
                for (g, w) in got.iter().zip(&want) {
                    assert!((f64::from(*g) - w).abs() < 1e-5, "{out} {p}/{q}: {got:?} {want:?}");
                }
            }
        }
    }
}
