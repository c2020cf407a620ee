//! Proofs about products: expressions written around the corners of the box that their atoms' bounds make.

use super::{FAR, IntId, IntNode, Ints};
use rustc_hash::FxHashMap;

/// Most atoms of an expression: it has a corner for each subset of them.
const MOST_ATOMS: usize = 5;

/// Powers of each atom's distance from a corner.
type Powers = [u8; MOST_ATOMS];

impl Ints {
    /// Whether `e >= 0` follows from the bounds of its atoms alone: with every atom written as its distance from one
    /// end of its bounds (at least 0), some choice of ends leaves no negative coefficient. So `n*n - n >= 0` where
    /// `n >= 2`, since `(2 + s)² - (2 + s) = s² + 3s + 2`. Sums without products have exact bounds and are not tried.
    pub(super) fn nonneg_from_a_corner(&self, e: IntId) -> bool {
        let (terms, c0) = self.as_sum(e);
        if !terms.iter().any(|t| matches!(self.node(t.0), IntNode::Product(_))) {
            return false;
        }
        let monomials: Vec<(Vec<IntId>, i64)> = terms.iter().map(|&(t, c)| (self.factors(t), c)).collect();
        let mut atoms: Vec<IntId> = monomials.iter().flat_map(|m| &m.0).copied().collect();
        atoms.sort_unstable();
        atoms.dedup();
        let bounds: Vec<(i64, i64)> = atoms.iter().map(|&a| self.bounds(a)).collect();
        if atoms.len() > MOST_ATOMS || bounds.iter().any(|b| b.0 <= -FAR || b.1 >= FAR) {
            return false;
        }
        (0..1u32 << atoms.len()).any(|corner| {
            let ends: Vec<(i128, i128)> = bounds
                .iter()
                .enumerate()
                .map(|(i, b)| if corner >> i & 1 == 0 { (b.0 as i128, 1) } else { (b.1 as i128, -1) })
                .collect();
            let mut sum: FxHashMap<Powers, i128> = FxHashMap::from_iter([(Powers::default(), c0 as i128)]);
            let whole = monomials.iter().all(|(factors, c)| {
                let places = factors.iter().filter_map(|f| atoms.binary_search(f).ok());
                add_expanded(&mut sum, *c as i128, places, &ends).is_some()
            });
            whole && sum.values().all(|&k| k >= 0)
        })
    }
}

/// Adds `c` times the product of `end + sign * distance` over the atoms at `places`; `None` where it overflows.
fn add_expanded(
    sum: &mut FxHashMap<Powers, i128>,
    c: i128,
    places: impl Iterator<Item = usize>,
    ends: &[(i128, i128)],
) -> Option<()> {
    let mut product: Vec<(Powers, i128)> = vec![(Powers::default(), c)];
    for at in places {
        let (end, sign) = *ends.get(at)?;
        let mut next = Vec::with_capacity(2 * product.len());
        for (powers, k) in product {
            let mut higher = powers;
            let power = higher.get_mut(at)?;
            *power = power.checked_add(1)?;
            next.push((powers, k.checked_mul(end)?));
            next.push((higher, k.checked_mul(sign)?));
        }
        // A product of many factors would grow without end.
        if next.len() > 1 << 8 {
            return None;
        }
        product = next;
    }
    for (powers, k) in product {
        let at = sum.entry(powers).or_insert(0);
        *at = at.checked_add(k)?;
    }
    Some(())
}
