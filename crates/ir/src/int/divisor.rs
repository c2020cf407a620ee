//! What expressions are multiples of.

use super::{IntId, IntNode, Ints};

impl Ints {
    /// A number that an expression is a multiple of, whatever ranges and parameters are; 0 where it is always 0.
    pub fn divisor(&self, e: IntId) -> u64 {
        match self.node(e) {
            IntNode::Const(c) => c.unsigned_abs(),
            IntNode::Range(_) | IntNode::Param(_) | IntNode::Div { .. } => 1,
            IntNode::Sum { terms, constant } => self.divisor_of_sum(terms, *constant),
            // A product beyond 64 bits cannot be in an address; any factor's divisor divides it.
            IntNode::Product(factors) => factors.iter().fold(1u64, |p, &f| {
                let d = self.divisor(f);
                p.checked_mul(d).unwrap_or(d)
            }),
            IntNode::Mod { num, den } => gcd(self.divisor(*num), self.divisor(*den)),
        }
    }

    /// The same of a sum of scaled expressions and a constant.
    pub fn divisor_of_sum(&self, terms: &[(IntId, i64)], constant: i64) -> u64 {
        terms.iter().fold(constant.unsigned_abs(), |g, &(t, c)| {
            let c = c.unsigned_abs();
            gcd(g, self.divisor(t).checked_mul(c).unwrap_or(c))
        })
    }
}

/// Greatest common divisor; 0 is a multiple of everything.
fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::int::RangeRole;

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
            assert_eq!(ints.divisor(e), d);
        }
        let m = ints.rem_const(four_r, 6);
        assert_eq!(ints.divisor(m) % 2, 0);
        let q = ints.div_const(four_r, 3);
        assert_eq!(ints.divisor(q), 1);
    }
}
