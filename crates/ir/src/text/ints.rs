//! Parser of symbolic integers, conditions, and the declarations of parameters and ranges.
//!
//! ```text
//! sum    := ["-"] term (("+" | "-") term)*
//! term   := factor (("*" | "/" | "%") factor)*        / is floor division, % its remainder
//! factor := NUMBER | NAME | "(" sum ")"
//! gate   := "true" | cond ("and" cond)*
//! cond   := sum (("<" | "<=" | ">" | ">=") sum)+
//! ```

use super::cursor::{Cursor, MAX_INT, MAX_RANK};
use super::lexer::{ParseError, Tok};
use crate::dtype::DType;
use crate::indexed::{Layout, LayoutDim};
use crate::int::{IntId, Ints, ParamId, ParamInfo, RangeId, RangeRole};
use rustc_hash::{FxHashMap, FxHashSet};

/// Most parentheses, divisions and remainders of one expression: the arena's operations recurse into them.
const MAX_NESTING: u32 = 128;

/// Most terms of a sum, and of a product of sums when it is multiplied out.
const MAX_TERMS: usize = 4096;

/// Most factors of a product.
const MAX_FACTORS: usize = 32;

/// The names of ranges and parameters.
#[derive(Default)]
pub(super) struct Scope {
    ranges: FxHashMap<String, RangeId>,
    params: FxHashMap<String, ParamId>,
    /// Parameters declared without quotes, whose names ranges cannot have.
    plain: FxHashSet<String>,
}

impl Scope {
    /// What follows `param`: `n 1..8`, or `chunk 0..3 host`.
    pub(super) fn param(&mut self, c: &mut Cursor, ints: &mut Ints) -> Result<(), ParseError> {
        let place = c.place();
        let (name, quoted) = c.name("the name of a parameter")?;
        if self.params.contains_key(&name) || !quoted && self.ranges.contains_key(&name) {
            return Err(c.error_at(place, format!("`{name}` again"), "another name"));
        }
        let place = c.place();
        let lo = c.natural(MAX_INT as usize, "the least value")? as i64;
        c.expect("..")?;
        let hi = c.natural(MAX_INT as usize, "the greatest value")? as i64;
        if hi < lo {
            return Err(c.error_at(place, format!("{lo}..{hi}"), "a greatest value that is not below the least"));
        }
        let host = c.accept_word("host");
        if host && lo != 0 {
            return Err(c.error_at(place, format!("{lo}..{hi} host"), "a loop of the host to begin with 0"));
        }
        let id = ints.declare_param(ParamInfo { name: name.clone(), lo, hi, host });
        if !quoted {
            self.plain.insert(name.clone());
        }
        self.params.insert(name, id);
        Ok(())
    }

    /// A range by name.
    pub(super) fn range(&self, c: &mut Cursor) -> Result<RangeId, ParseError> {
        let known = match c.peek() {
            Tok::Word(w) => self.ranges.get(*w).copied(),
            _ => None,
        };
        match known {
            Some(r) => {
                c.advance();
                Ok(r)
            }
            None => Err(c.error("a range declared before")),
        }
    }

    /// `r3:16`, a range that is new. The order of declarations is the order of creation, which the `creation` and
    /// `range-id` rules read.
    pub(super) fn new_range(&mut self, c: &mut Cursor, ints: &mut Ints, role: RangeRole) -> Result<(), ParseError> {
        let place = c.place();
        let (name, size) = self.range_head(c, ints)?;
        if self.ranges.contains_key(&name) {
            return Err(c.error_at(place, format!("`{name}` again"), "another name"));
        }
        let id = ints.new_range(size, role);
        self.ranges.insert(name, id);
        Ok(())
    }

    /// `r3:16`, with `reduce` where that is its role, after `between` has read what stands before the role: a range
    /// that is new, or one of that size and role.
    pub(super) fn same_range<T>(
        &mut self,
        c: &mut Cursor,
        ints: &mut Ints,
        between: impl FnOnce(&mut Cursor) -> Result<T, ParseError>,
    ) -> Result<(RangeId, T), ParseError> {
        let place = c.place();
        let (name, size) = self.range_head(c, ints)?;
        let extra = between(c)?;
        let role = if c.accept_word("reduce") { RangeRole::Reduce } else { RangeRole::Map };
        if let Some(&known) = self.ranges.get(&name) {
            let info = ints.range_info(known);
            if info.size != size || info.role != role {
                return Err(c.error_at(place, format!("`{name}` again"), "the size and role it had before"));
            }
            return Ok((known, extra));
        }
        let id = ints.new_range(size, role);
        self.ranges.insert(name, id);
        Ok((id, extra))
    }

    fn range_head(&self, c: &mut Cursor, ints: &mut Ints) -> Result<(String, IntId), ParseError> {
        let place = c.place();
        let name = c.word("the name of a range")?.to_string();
        if self.plain.contains(&name) {
            return Err(c.error_at(place, format!("the parameter `{name}`"), "another name for a range"));
        }
        c.expect(":")?;
        let place = c.place();
        let size = self.checked(c, ints, |reader| reader.factor())?;
        if ints.bounds(size).1 < 0 {
            return Err(c.error_at(place, "a negative size", "a size"));
        }
        Ok((name, size))
    }

    /// An expression.
    pub(super) fn int(&self, c: &mut Cursor, ints: &mut Ints) -> Result<IntId, ParseError> {
        self.checked(c, ints, |reader| reader.sum())
    }

    /// `[a, b, c]`.
    pub(super) fn list(&self, c: &mut Cursor, ints: &mut Ints) -> Result<Vec<IntId>, ParseError> {
        let place = c.place();
        let all = c.list(|c| self.int(c, ints))?;
        if all.len() > MAX_RANK {
            return Err(c.error_at(place, format!("{} axes", all.len()), format!("at most {MAX_RANK}")));
        }
        Ok(all)
    }

    /// `f32[1, 16]`.
    pub(super) fn tensor_type(&self, c: &mut Cursor, ints: &mut Ints) -> Result<(DType, Vec<IntId>), ParseError> {
        let dtype = c.dtype()?;
        Ok((dtype, self.list(c, ints)?))
    }

    /// Conditions `e >= 0`; the empty conjunction is `true`.
    pub(super) fn gate(&self, c: &mut Cursor, ints: &mut Ints) -> Result<Vec<IntId>, ParseError> {
        let mut out = Vec::new();
        if c.accept_word("true") {
            return Ok(out);
        }
        loop {
            let mut left = self.int(c, ints)?;
            let mut any = false;
            while let Some(sign) = ["<", "<=", ">", ">="].into_iter().find(|s| c.is_sign(s)) {
                c.advance();
                any = true;
                let right = self.int(c, ints)?;
                out.push(match sign {
                    "<" => ints.sum(&[(right, 1), (left, -1)], -1),
                    "<=" => ints.sub(right, left),
                    ">" => ints.sum(&[(left, 1), (right, -1)], -1),
                    _ => ints.sub(left, right),
                });
                left = right;
            }
            if !any {
                return Err(c.error("`<`, `<=`, `>` or `>=`"));
            }
            if !c.accept_word("and") {
                break;
            }
        }
        self.check(c, ints)?;
        Ok(out)
    }

    /// What follows `layout`: `[0:4096, 1/8%2:64] len 65536`.
    pub(super) fn layout(&self, c: &mut Cursor, ints: &mut Ints, rank: usize) -> Result<Layout, ParseError> {
        let place = c.place();
        let dims = c.list(|c| {
            let place = c.place();
            let axis = c.natural(MAX_RANK, "an axis")?;
            if axis >= rank {
                return Err(c.error_at(place, format!("axis {axis}"), format!("one of {rank}")));
            }
            let div = if c.accept("/") { positive(c)? } else { 1 };
            let modulus = if c.accept("%") { Some(positive(c)?) } else { None };
            c.expect(":")?;
            Ok(LayoutDim { axis, div, modulus, stride: self.int(c, ints)? })
        })?;
        if dims.len() > 4 * MAX_RANK {
            let found = format!("{} factors", dims.len());
            return Err(c.error_at(place, found, format!("at most {}", 4 * MAX_RANK)));
        }
        c.expect_word("len")?;
        Ok(Layout { dims, len: self.int(c, ints)? })
    }

    fn checked(
        &self,
        c: &mut Cursor,
        ints: &mut Ints,
        read: impl FnOnce(&mut Reader) -> Result<IntId, ParseError>,
    ) -> Result<IntId, ParseError> {
        let id = read(&mut Reader { c, ints, scope: self, nesting: 0 })?;
        self.check(c, ints)?;
        Ok(id)
    }

    /// Refuses expressions that went beyond `i64`.
    pub(super) fn check(&self, c: &Cursor, ints: &Ints) -> Result<(), ParseError> {
        if ints.overflowed() {
            return Err(c.error_here("an expression beyond 64 bits before this", "smaller numbers"));
        }
        Ok(())
    }
}

fn positive(c: &mut Cursor) -> Result<i64, ParseError> {
    let place = c.place();
    match c.natural(MAX_INT as usize, "a divisor")? {
        0 => Err(c.error_at(place, "`0`", "a positive number")),
        n => Ok(n as i64),
    }
}

struct Reader<'a, 'b, 'c> {
    c: &'a mut Cursor<'b>,
    ints: &'a mut Ints,
    scope: &'c Scope,
    nesting: u32,
}

impl Reader<'_, '_, '_> {
    fn nest(&mut self) -> Result<(), ParseError> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(self.c.error_here("a deeply nested expression", "a simpler one"));
        }
        Ok(())
    }

    fn sum(&mut self) -> Result<IntId, ParseError> {
        let mut sign = if self.c.accept("-") { -1 } else { 1 };
        let mut terms = Vec::new();
        loop {
            terms.push((self.term()?, sign));
            if terms.len() > MAX_TERMS {
                return Err(self.c.error_here("a very long sum", format!("at most {MAX_TERMS} terms")));
            }
            sign = match (self.c.accept("+"), self.c.is_sign("-")) {
                (true, _) => 1,
                (false, true) => {
                    self.c.advance();
                    -1
                }
                (false, false) => break,
            };
        }
        Ok(self.ints.sum(&terms, 0))
    }

    fn term(&mut self) -> Result<IntId, ParseError> {
        let mut acc = self.factor()?;
        let mut factors = 1;
        loop {
            if self.c.accept("*") {
                let b = self.factor()?;
                let size = |ints: &Ints, id| ints.as_sum(id).0.len().max(1);
                factors += 1;
                if factors > MAX_FACTORS || size(self.ints, acc) * size(self.ints, b) > MAX_TERMS {
                    return Err(self.c.error_here("a very long product", "a shorter one"));
                }
                acc = self.ints.mul(acc, b);
            } else if self.c.is_sign("/") || self.c.is_sign("%") {
                let quotient = self.c.is_sign("/");
                self.c.advance();
                self.nest()?;
                let place = self.c.place();
                let b = self.factor()?;
                if self.ints.bounds(b).1 < 1 {
                    return Err(self.c.error_at(place, "a divisor below 1", "a positive one"));
                }
                acc = if quotient { self.ints.div(acc, b) } else { self.ints.rem(acc, b) };
            } else {
                return Ok(acc);
            }
        }
    }

    fn factor(&mut self) -> Result<IntId, ParseError> {
        match self.c.peek() {
            Tok::Number(_) => {
                let n = self.c.integer()?;
                Ok(self.ints.constant(n))
            }
            Tok::Word(w) => {
                if let Some(&r) = self.scope.ranges.get(*w) {
                    self.c.advance();
                    return Ok(self.ints.range(r));
                }
                match self.scope.params.get(*w) {
                    Some(&p) => {
                        self.c.advance();
                        Ok(self.ints.param(p))
                    }
                    None => Err(self.c.error("a range or parameter declared before")),
                }
            }
            Tok::Quoted(q) => match self.scope.params.get(q) {
                Some(&p) => {
                    self.c.advance();
                    Ok(self.ints.param(p))
                }
                None => Err(self.c.error("a parameter declared before")),
            },
            Tok::Sign("(") => {
                self.nest()?;
                self.c.advance();
                let inner = self.sum()?;
                self.c.expect(")")?;
                Ok(inner)
            }
            _ => Err(self.c.error("a number, a name or `(`")),
        }
    }
}
