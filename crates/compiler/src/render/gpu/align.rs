//! What addresses are multiples of.

use crate::render::clike::Linear;
use winograph_ir::int::IntNode;
use winograph_ir::{IntId, Ints};

/// Greatest common divisor; 0 is a multiple of everything.
fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// A number that the part of an expression that does not depend on the lane is a multiple of, whatever ranges and
/// parameters are; 0 where it is always 0.
pub(super) fn divisor(ints: &Ints, l: &Linear) -> u64 {
    of_terms(ints, l.terms(), l.constant())
}

/// A number that an expression is a multiple of.
pub(super) fn divisor_of(ints: &Ints, e: IntId) -> u64 {
    match ints.node(e) {
        IntNode::Const(c) => c.unsigned_abs(),
        IntNode::Range(_) | IntNode::Param(_) | IntNode::Div { .. } => 1,
        IntNode::Sum { terms, constant } => of_terms(ints, terms, *constant),
        // A product beyond 64 bits cannot be in an address; any factor's divisor divides it.
        IntNode::Product(factors) => factors.iter().fold(1u64, |p, &f| {
            let d = divisor_of(ints, f);
            p.checked_mul(d).unwrap_or(d)
        }),
        IntNode::Mod { num, den } => gcd(divisor_of(ints, *num), divisor_of(ints, *den)),
    }
}

fn of_terms(ints: &Ints, terms: &[(IntId, i64)], constant: i64) -> u64 {
    terms.iter().fold(constant.unsigned_abs(), |g, &(t, c)| {
        let c = c.unsigned_abs();
        gcd(g, divisor_of(ints, t).checked_mul(c).unwrap_or(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use winograph_ir::RangeRole;

    #[test]
    fn sums_products_and_remainders() {
        let mut ints = Ints::new();
        let n = ints.new_param("n", 1, 100);
        let n = ints.param(n);
        let size = ints.constant(40);
        let r = ints.new_range(size, RangeRole::Map);
        let r = ints.range(r);
        let four_r = ints.scale(r, 4);
        let rn = ints.mul(r, n);
        for (terms, c, d) in [
            (vec![(r, 4)], 8, 4),
            (vec![(r, 4)], 2, 2),
            (vec![(rn, 6), (r, 4)], 0, 2),
            (vec![(r, 1)], 8, 1),
            (vec![], 0, 0),
            (vec![], 12, 12),
        ] {
            let e = ints.sum(&terms, c);
            assert_eq!(divisor_of(&ints, e), d);
        }
        let m = ints.rem_const(four_r, 6);
        assert_eq!(divisor_of(&ints, m) % 2, 0);
        let q = ints.div_const(four_r, 3);
        assert_eq!(divisor_of(&ints, q), 1);
    }
}
