//! Symbolic integers as C expressions.
//!
//! The text depends on the structure of an expression and on the names of loop variables, never on ids: sums list
//! their terms by falling size of the coefficient, then outer loops before inner ones, the constant last, so that
//! neighbouring accesses share as long a beginning as they can.

use super::prelude::Prelude;
use super::types::int_literal;
use winograph_ir::int::IntNode;
use winograph_ir::{IntId, Ints, RangeId};

/// The names of loop variables in scope: place in the nest and text, by range id.
#[derive(Default)]
pub(super) struct Scope {
    names: Vec<Option<usize>>,
    depth: usize,
}

impl Scope {
    /// Brings a loop variable into scope and gives its name.
    pub(super) fn enter(&mut self, range: RangeId) -> String {
        let at = range.0 as usize;
        if self.names.len() <= at {
            self.names.resize(at + 1, None);
        }
        self.names[at] = Some(self.depth);
        self.depth += 1;
        format!("i{}", self.depth - 1)
    }

    /// Takes the innermost loop variable out of scope.
    pub(super) fn leave(&mut self, range: RangeId) {
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
pub(super) struct Linear {
    pub(super) coef: i64,
    terms: Vec<(IntId, i64)>,
    constant: i64,
}

/// Writes expressions of one kernel.
pub(super) struct IntWriter<'a> {
    pub(super) ints: &'a Ints,
    pub(super) scope: Scope,
}

/// An expression uses a range that is not in scope.
pub(super) struct Unbound(pub(super) RangeId);

impl IntWriter<'_> {
    /// Splits off the lane; `None` where the expression is not linear in it.
    pub(super) fn linear(&self, e: IntId, lane: Option<RangeId>) -> Option<Linear> {
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
    pub(super) fn rest(&self, l: &Linear, p: &mut Prelude) -> Result<String, Unbound> {
        self.sum(&l.terms, l.constant, p)
    }

    /// An expression as text: an atom or something in parentheses.
    pub(super) fn expr(&self, e: IntId, p: &mut Prelude) -> Result<String, Unbound> {
        Ok(match self.ints.node(e) {
            IntNode::Const(c) => int_literal(*c),
            IntNode::Range(r) => format!("i{}", self.scope.position(*r).ok_or(Unbound(*r))?),
            IntNode::Param(id) => format!("p{}", id.0),
            IntNode::Sum { terms, constant } => {
                let s = self.sum(terms, *constant, p)?;
                format!("({s})")
            }
            IntNode::Product(factors) => {
                let mut f = Vec::with_capacity(factors.len());
                for &x in factors.iter() {
                    f.push((self.depth_of(x), self.expr(x, p)?));
                }
                f.sort();
                let f: Vec<String> = f.into_iter().map(|x| x.1).collect();
                format!("({})", f.join(" * "))
            }
            IntNode::Div { num, den } => {
                let n = self.expr(*num, p)?;
                match self.ints.as_const(*den) {
                    Some(d) if d > 0 && d & (d - 1) == 0 => format!("({n} >> {})", d.trailing_zeros()),
                    Some(d) if d > 0 && self.ints.bounds(*num).0 >= 0 => {
                        format!("(i64)((u64){n} / {}u)", int_literal(d))
                    }
                    _ => {
                        let d = self.expr(*den, p)?;
                        format!("{}({n}, {d})", p.floor_div())
                    }
                }
            }
            IntNode::Mod { num, den } => {
                let n = self.expr(*num, p)?;
                match self.ints.as_const(*den) {
                    Some(d) if d > 0 && d & (d - 1) == 0 => format!("({n} & {})", int_literal(d - 1)),
                    Some(d) if d > 0 && self.ints.bounds(*num).0 >= 0 => {
                        format!("(i64)((u64){n} % {}u)", int_literal(d))
                    }
                    _ => {
                        let d = self.expr(*den, p)?;
                        format!("{}({n}, {d})", p.floor_mod())
                    }
                }
            }
        })
    }

    fn sum(&self, terms: &[(IntId, i64)], constant: i64, p: &mut Prelude) -> Result<String, Unbound> {
        let mut parts = Vec::with_capacity(terms.len());
        for &(t, c) in terms {
            parts.push((std::cmp::Reverse(c.unsigned_abs()), self.depth_of(t), self.expr(t, p)?, c));
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
