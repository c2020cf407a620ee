//! Symbolic integers as expressions.
//!
//! Where a device computes in 64 bits as fast as in 32, everything has 64. A *narrow* writer gives loop variables 32
//! bits where their sizes fit, and computes an expression in 32 bits where no part of it, however its terms are added
//! up, can go beyond them.
//!
//! The text depends on the structure of an expression and on the names of loop variables, never on ids: sums list
//! their terms by falling size of the coefficient, then outer loops before inner ones, the constant last, so that
//! neighbouring accesses share as long a beginning as they can.

use super::{Dialect, floor_div, floor_mod, int_literal};
use winograph_ir::int::IntNode;
use winograph_ir::{IntId, Ints, RangeId};

/// The names of loop variables in scope: place in the nest and text, by range id.
#[derive(Default)]
pub(in crate::render) struct Scope {
    names: Vec<Option<usize>>,
    depth: usize,
}

impl Scope {
    /// Brings a loop variable into scope and gives its name.
    pub(in crate::render) fn enter(&mut self, range: RangeId) -> String {
        let at = range.0 as usize;
        if self.names.len() <= at {
            self.names.resize(at + 1, None);
        }
        self.names[at] = Some(self.depth);
        self.depth += 1;
        format!("i{}", self.depth - 1)
    }

    /// Takes the innermost loop variable out of scope.
    pub(in crate::render) fn leave(&mut self, range: RangeId) {
        if let Some(slot) = self.names.get_mut(range.0 as usize) {
            *slot = None;
        }
        self.depth = self.depth.saturating_sub(1);
    }

    fn position(&self, range: RangeId) -> Option<usize> {
        self.names.get(range.0 as usize).copied().flatten()
    }
}

/// `coef * lane + rest`, with `rest` as a sum free of the lane.
pub(in crate::render) struct Linear {
    pub(in crate::render) coef: i64,
    terms: Vec<(IntId, i64)>,
    constant: i64,
}

impl Linear {
    /// The terms of `rest`.
    pub(in crate::render) fn terms(&self) -> &[(IntId, i64)] {
        &self.terms
    }

    /// The constant of `rest`.
    pub(in crate::render) fn constant(&self) -> i64 {
        self.constant
    }
}

/// Writes expressions of one kernel.
pub(in crate::render) struct IntWriter<'a> {
    pub(in crate::render) ints: &'a Ints,
    pub(in crate::render) scope: Scope,
    /// Whether 32 bits are used where they do; otherwise everything has 64.
    pub(in crate::render) narrow: bool,
}

/// An expression uses a range that is not in scope.
pub(in crate::render) struct Unbound(pub(in crate::render) RangeId);

/// The integers in which an expression is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::render) enum Width {
    I32,
    I64,
}

impl Width {
    /// The type.
    pub(in crate::render) fn name(self) -> &'static str {
        match self {
            Width::I32 => "i32",
            Width::I64 => "i64",
        }
    }

    fn unsigned(self) -> &'static str {
        match self {
            Width::I32 => "u32",
            Width::I64 => "u64",
        }
    }
}

/// No value of an expression is this far from 0.
const FAR: i128 = 1 << 100;

impl IntWriter<'_> {
    /// Splits off the lane; `None` where the expression is not linear in it.
    pub(in crate::render) fn linear(&self, e: IntId, lane: Option<RangeId>) -> Option<Linear> {
        let (terms, constant) = self.ints.as_sum(e);
        let Some(lane) = lane else { return Some(Linear { coef: 0, terms, constant }) };
        let mut coef = 0;
        let mut rest = Vec::with_capacity(terms.len());
        for (t, c) in terms {
            if *self.ints.node(t) == IntNode::Range(lane) {
                coef = c;
            } else if self.ints.depends_on(t, lane) {
                return None;
            } else {
                rest.push((t, c));
            }
        }
        Some(Linear { coef, terms: rest, constant })
    }

    /// The expression with `lane` at 0.
    pub(in crate::render) fn rest(&self, l: &Linear, d: &mut dyn Dialect) -> Result<String, Unbound> {
        self.sum(&l.terms, l.constant, self.width_of(&l.terms, l.constant), d)
    }

    /// The same in two parts, the first of which does not depend on `inner`; `None` unless both are sums of terms that
    /// are nowhere negative, so that the first lies between 0 and the whole.
    pub(in crate::render) fn parts(
        &self,
        l: &Linear,
        inner: RangeId,
        d: &mut dyn Dialect,
    ) -> Result<Option<(String, String)>, Unbound> {
        let negative = |&(t, c): &(IntId, i64)| c < 0 || self.ints.bounds(t).0 < 0;
        let (inside, outside): (Vec<_>, Vec<_>) = l.terms.iter().partition(|x| self.ints.depends_on(x.0, inner));
        if l.constant < 0 || inside.is_empty() || outside.is_empty() || l.terms.iter().any(negative) {
            return Ok(None);
        }
        let w = self.width_of(&l.terms, l.constant);
        Ok(Some((self.sum(&outside, 0, w, d)?, self.sum(&inside, l.constant, w, d)?)))
    }

    /// The expression at a lane.
    pub(in crate::render) fn at(&self, l: &Linear, lane: u32, d: &mut dyn Dialect) -> Result<String, Unbound> {
        let constant = l.constant.saturating_add(l.coef.saturating_mul(lane as i64));
        self.sum(&l.terms, constant, self.width_of(&l.terms, constant), d)
    }

    /// An expression as text: an atom or something in parentheses.
    pub(in crate::render) fn expr(&self, e: IntId, d: &mut dyn Dialect) -> Result<String, Unbound> {
        self.expr_in(e, self.width(e), d)
    }

    /// The integers in which an expression is computed.
    pub(in crate::render) fn width(&self, e: IntId) -> Width {
        if self.narrow && self.magnitude(e) <= i32::MAX as i128 { Width::I32 } else { Width::I64 }
    }

    /// The integers in which the terms of an expression are added up that has `lanes` lanes.
    pub(in crate::render) fn width_of_lanes(&self, l: &Linear, lanes: u32) -> Width {
        let reach = l.coef.unsigned_abs().saturating_mul(lanes as u64).min(i64::MAX as u64) as i64;
        self.width_of(&l.terms, l.constant.saturating_abs().saturating_add(reach))
    }

    /// The type of a loop variable.
    pub(in crate::render) fn variable(&self, range: RangeId) -> Width {
        if self.narrow && self.ints.max_size(range) <= i32::MAX as i64 { Width::I32 } else { Width::I64 }
    }

    fn width_of(&self, terms: &[(IntId, i64)], constant: i64) -> Width {
        if self.narrow && self.magnitude_of(terms, constant) <= i32::MAX as i128 { Width::I32 } else { Width::I64 }
    }

    /// What no part of an expression exceeds, whatever the order in which its terms are added up.
    fn magnitude(&self, e: IntId) -> i128 {
        let parts = match self.ints.node(e) {
            IntNode::Const(_) | IntNode::Range(_) | IntNode::Param(_) => 0,
            IntNode::Sum { terms, constant } => self.magnitude_of(terms, *constant),
            IntNode::Product(factors) => {
                let product = factors.iter().fold(1, |m, &f| (m * self.value(f).clamp(1, FAR >> 64)).min(FAR >> 64));
                factors.iter().fold(product, |m, &f| m.max(self.magnitude(f)))
            }
            IntNode::Div { num, den } | IntNode::Mod { num, den } => self.magnitude(*num).max(self.magnitude(*den)),
        };
        self.value(e).max(parts)
    }

    /// What an expression itself does not exceed.
    fn value(&self, e: IntId) -> i128 {
        let (lo, hi) = self.ints.bounds(e);
        (lo as i128).abs().max((hi as i128).abs())
    }

    fn magnitude_of(&self, terms: &[(IntId, i64)], constant: i64) -> i128 {
        let sum = terms.iter().fold((constant as i128).abs(), |m, &(t, c)| {
            // The factor itself is a constant of the text.
            let c = (c as i128).abs();
            m.saturating_add(self.value(t).saturating_mul(c).max(c).min(FAR))
        });
        terms.iter().fold(sum, |m, t| m.max(self.magnitude(t.0)))
    }

    fn expr_in(&self, e: IntId, w: Width, d: &mut dyn Dialect) -> Result<String, Unbound> {
        let cast = |from: Width, text: String| if from == w { text } else { format!("({}){text}", w.name()) };
        Ok(match self.ints.node(e) {
            IntNode::Const(c) => int_literal(*c),
            IntNode::Range(r) => {
                let at = self.scope.position(*r).ok_or(Unbound(*r))?;
                cast(self.variable(*r), format!("i{at}"))
            }
            IntNode::Param(id) => cast(Width::I64, format!("p{}", id.0)),
            IntNode::Sum { terms, constant } => {
                let s = self.sum(terms, *constant, w, d)?;
                format!("({s})")
            }
            IntNode::Product(factors) => {
                let mut f = Vec::with_capacity(factors.len());
                for &x in factors.iter() {
                    f.push((self.depth_of(x), self.expr_in(x, w, d)?));
                }
                f.sort();
                let f: Vec<String> = f.into_iter().map(|x| x.1).collect();
                format!("({})", f.join(" * "))
            }
            IntNode::Div { num, den } => {
                let n = self.expr_in(*num, w, d)?;
                match self.ints.as_const(*den) {
                    Some(k) if k > 0 && k & (k - 1) == 0 => format!("({n} >> {})", k.trailing_zeros()),
                    Some(k) if k > 0 && self.ints.bounds(*num).0 >= 0 => {
                        format!("({})(({}){n} / {}u)", w.name(), w.unsigned(), int_literal(k))
                    }
                    _ => {
                        let den = self.expr_in(*den, w, d)?;
                        format!("{}({n}, {den})", floor_div(d, w.name()))
                    }
                }
            }
            IntNode::Mod { num, den } => {
                let n = self.expr_in(*num, w, d)?;
                match self.ints.as_const(*den) {
                    Some(k) if k > 0 && k & (k - 1) == 0 => format!("({n} & {})", int_literal(k - 1)),
                    Some(k) if k > 0 && self.ints.bounds(*num).0 >= 0 => {
                        format!("({})(({}){n} % {}u)", w.name(), w.unsigned(), int_literal(k))
                    }
                    _ => {
                        let den = self.expr_in(*den, w, d)?;
                        format!("{}({n}, {den})", floor_mod(d, w.name()))
                    }
                }
            }
        })
    }

    fn sum(&self, terms: &[(IntId, i64)], constant: i64, w: Width, d: &mut dyn Dialect) -> Result<String, Unbound> {
        let mut parts = Vec::with_capacity(terms.len());
        for &(t, c) in terms {
            parts.push((std::cmp::Reverse(c.unsigned_abs()), self.depth_of(t), self.expr_in(t, w, d)?, c));
        }
        parts.sort();
        let mut out = String::new();
        for (_, _, text, c) in parts {
            match (out.is_empty(), c < 0) {
                (true, true) => out.push('-'),
                (true, false) => {}
                (false, true) => out.push_str(" - "),
                (false, false) => out.push_str(" + "),
            }
            out.push_str(&text);
            if c.unsigned_abs() != 1 {
                out.push_str(&format!(" * {}", int_literal(c.saturating_abs())));
            }
        }
        if out.is_empty() {
            return Ok(int_literal(constant));
        }
        match constant {
            0 => {}
            c if c < 0 => out.push_str(&format!(" - {}", int_literal(c.saturating_abs()))),
            c => out.push_str(&format!(" + {}", int_literal(c))),
        }
        Ok(out)
    }

    /// The place of the outermost loop that an expression depends on.
    fn depth_of(&self, e: IntId) -> usize {
        let ranges = self.ints.free_ranges(e);
        ranges.iter().filter_map(|&r| self.scope.position(r)).min().unwrap_or(usize::MAX)
    }
}
