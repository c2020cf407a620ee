//! Printing of symbolic integers, and the numbers under which ranges appear in a text.

use crate::int::{IntId, IntNode, Ints, RangeId, RangeRole};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::fmt::Write;

/// Prints an expression with ranges named by their ids (`r3`), for messages and debugging.
pub fn print_int(ints: &Ints, id: IntId) -> String {
    Names::new(ints).int(id)
}

/// Prints a gate with ranges named by their ids, for messages and debugging.
pub fn print_gate(ints: &Ints, gate: &[IntId]) -> String {
    Names::new(ints).gate(gate)
}

/// Whether a name may stand in a text without quotes: an identifier that is no word of an expression and does not
/// look like the names that the printers give to ranges and tables.
pub(super) fn is_plain_name(name: &str) -> bool {
    let mut chars = name.chars();
    let Some(first) = chars.next() else { return false };
    let generated = matches!(first, 'r' | 't') && name.len() > 1 && name[1..].bytes().all(|b| b.is_ascii_digit());
    (first.is_ascii_alphabetic() || first == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !generated
        && !matches!(name, "lane" | "true" | "false" | "nan")
}

/// A name as it stands in a text: quoted where it has to be.
pub(super) fn quote_name(name: &str) -> String {
    if is_plain_name(name) { name.to_string() } else { format!("{name:?}") }
}

/// Comma-separated items.
pub(super) fn join<T>(items: impl IntoIterator<Item = T>, f: impl Fn(T) -> String) -> String {
    items.into_iter().map(f).collect::<Vec<_>>().join(", ")
}

/// The numbers given to ranges so far, and how expressions over them print.
///
/// Everything that the arena sorts by id is sorted again here, by numbers: the terms of a sum, the factors of a
/// product, the conditions of a gate.
pub(super) struct Names<'a> {
    ints: &'a Ints,
    numbers: FxHashMap<RangeId, u32>,
    order: Vec<RangeId>,
}

impl<'a> Names<'a> {
    /// No numbers yet: a range without one prints its id.
    pub(super) fn new(ints: &'a Ints) -> Names<'a> {
        Names { ints, numbers: FxHashMap::default(), order: Vec::new() }
    }

    /// Numbers given from outside, not necessarily different ones.
    pub(super) fn with_numbers(ints: &'a Ints, numbers: FxHashMap<RangeId, u32>) -> Names<'a> {
        Names { ints, numbers, order: Vec::new() }
    }

    /// Gives a range the next number, unless it has one. Says whether it was new.
    pub(super) fn introduce(&mut self, range: RangeId) -> bool {
        let next = self.order.len() as u32;
        let new = *self.numbers.entry(range).or_insert(next) == next;
        if new {
            self.order.push(range);
        }
        new
    }

    /// The ranges in order of their numbers.
    pub(super) fn order(&self) -> &[RangeId] {
        &self.order
    }

    /// The number a range has, or its id.
    pub(super) fn range_number(&self, range: RangeId) -> u32 {
        self.numbers.get(&range).copied().unwrap_or(range.0)
    }

    /// `r3`.
    pub(super) fn range(&self, range: RangeId) -> String {
        format!("r{}", self.range_number(range))
    }

    /// `r3:16`.
    pub(super) fn declaration(&self, range: RangeId) -> String {
        format!("{}:{}", self.range(range), self.factor(self.ints.size(range)))
    }

    /// ` reduce` for reduce ranges, nothing for others.
    pub(super) fn role_suffix(&self, range: RangeId) -> &'static str {
        match self.ints.range_info(range).role {
            RangeRole::Map => "",
            RangeRole::Reduce => " reduce",
        }
    }

    /// An expression.
    pub(super) fn int(&self, id: IntId) -> String {
        match self.ints.node(id) {
            IntNode::Const(c) => c.to_string(),
            IntNode::Range(r) => self.range(*r),
            IntNode::Param(p) => quote_name(&self.ints.param_info(*p).name),
            IntNode::Sum { terms, constant } => self.sum(&self.sorted(terms), *constant),
            IntNode::Product(factors) => {
                let mut all: Vec<IntId> = factors.to_vec();
                all.sort_by_cached_key(|&f| self.atom_key(f));
                all.into_iter().map(|f| self.factor(f)).collect::<Vec<_>>().join("*")
            }
            IntNode::Div { num, den } => format!("{}/{}", self.factor(*num), self.factor(*den)),
            IntNode::Mod { num, den } => format!("{}%{}", self.factor(*num), self.factor(*den)),
        }
    }

    /// An expression that may stand next to an operator: in parentheses unless it is a single word.
    pub(super) fn factor(&self, id: IntId) -> String {
        match self.ints.node(id) {
            IntNode::Const(c) if *c >= 0 => c.to_string(),
            IntNode::Range(_) | IntNode::Param(_) => self.int(id),
            _ => format!("({})", self.int(id)),
        }
    }

    /// `[a, b, c]`.
    pub(super) fn list(&self, ids: &[IntId]) -> String {
        format!("[{}]", join(ids, |&i| self.int(i)))
    }

    fn atom_key(&self, atom: IntId) -> (u8, u32, String) {
        match self.ints.node(atom) {
            IntNode::Range(r) => (0, self.range_number(*r), String::new()),
            IntNode::Param(p) => (1, p.0, String::new()),
            IntNode::Product(_) => (2, 0, self.int(atom)),
            IntNode::Div { .. } => (3, 0, self.int(atom)),
            IntNode::Mod { .. } => (4, 0, self.int(atom)),
            IntNode::Const(_) | IntNode::Sum { .. } => (5, 0, self.int(atom)),
        }
    }

    fn sorted(&self, terms: &[(IntId, i64)]) -> Vec<(IntId, i64)> {
        let mut terms = terms.to_vec();
        terms.sort_by_cached_key(|&(t, c)| (Reverse(c), self.atom_key(t)));
        terms
    }

    fn sum(&self, terms: &[(IntId, i64)], constant: i64) -> String {
        let mut out = String::new();
        for &(t, c) in terms {
            let sign = match (out.is_empty(), c < 0) {
                (true, false) => "",
                (true, true) => "-",
                (false, false) => " + ",
                (false, true) => " - ",
            };
            let atom = match self.ints.node(t) {
                // A coefficient binds to the first factor of a quotient, so that one needs parentheses.
                IntNode::Div { .. } | IntNode::Mod { .. } if c.unsigned_abs() != 1 => self.factor(t),
                _ => self.int(t),
            };
            // Writing to a string does not fail.
            let _ = match c.unsigned_abs() {
                1 => write!(out, "{sign}{atom}"),
                c => write!(out, "{sign}{c}*{atom}"),
            };
        }
        if out.is_empty() {
            return constant.to_string();
        }
        if constant != 0 {
            let _ = write!(out, " {} {}", if constant < 0 { '-' } else { '+' }, constant.unsigned_abs());
        }
        out
    }

    /// A conjunction; the empty one is `true`.
    pub(super) fn gate(&self, gate: &[IntId]) -> String {
        if gate.is_empty() {
            return "true".to_string();
        }
        let mut all: Vec<_> = gate.iter().map(|&e| self.condition(e)).collect();
        all.sort();
        all.into_iter().map(|c| c.2).collect::<Vec<_>>().join(" and ")
    }

    /// `e >= 0` with the constant on the other side, after what it is sorted by: the ranges it is about, and lower
    /// bounds before upper ones.
    fn condition(&self, e: IntId) -> (Vec<u32>, bool, String) {
        let mut ranges: Vec<u32> = self.ints.free_ranges(e).iter().map(|&r| self.range_number(r)).collect();
        ranges.sort_unstable();
        let (terms, constant) = self.ints.as_sum(e);
        let (plus, minus): (Vec<_>, Vec<_>) = terms.into_iter().partition(|t| t.1 > 0);
        let minus: Vec<_> = minus.into_iter().map(|(t, c)| (t, c.saturating_neg())).collect();
        let side = |terms: &[(IntId, i64)], constant: i64| self.sum(&self.sorted(terms), constant);
        let has_range = |terms: &[(IntId, i64)]| terms.iter().any(|t| !self.ints.free_ranges(t.0).is_empty());
        // What varies stands on the left, the constant where it is positive.
        let upper = if minus.is_empty() { false } else { plus.is_empty() || has_range(&minus) || !has_range(&plus) };
        let (left, right, signs) = if upper { (&minus, &plus, ["<", "<="]) } else { (&plus, &minus, [">", ">="]) };
        let text = if left.is_empty() {
            format!("{constant} >= 0")
        } else if right.is_empty() {
            format!("{} {} {}", side(left, 0), signs[1], if upper { constant } else { constant.saturating_neg() })
        } else if constant == -1 {
            format!("{} {} {}", side(left, 0), signs[0], side(right, 0))
        } else {
            let (more_plus, more_minus) = (constant.max(0), constant.saturating_neg().max(0));
            let (more_left, more_right) = if upper { (more_minus, more_plus) } else { (more_plus, more_minus) };
            format!("{} {} {}", side(left, more_left), signs[1], side(right, more_right))
        };
        (ranges, upper, text)
    }

    /// Numbers the ranges of expressions that have none yet, in the given order of preference.
    pub(super) fn introduce_free(&mut self, ids: &[IntId], rank: &dyn Fn(RangeId) -> u32) {
        let mut new: Vec<RangeId> = Vec::new();
        for &id in ids {
            new.extend(self.ints.free_ranges(id).iter().filter(|r| !self.numbers.contains_key(r)));
        }
        new.sort_by_key(|&r| (rank(r), r));
        for r in new {
            self.introduce(r);
        }
    }
}

/// `param n 1..8` and `param chunk 0..3 host` lines, in order of declaration: parameters are part of a program's interface.
pub(super) fn print_params(out: &mut String, ints: &Ints) {
    for p in ints.params() {
        let host = if p.host { " host" } else { "" };
        let _ = writeln!(out, "param {} {}..{}{host}", quote_name(&p.name), p.lo, p.hi);
    }
}
