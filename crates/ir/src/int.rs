//! Symbolic integers: index arithmetic over ranges and parameters.
//!
//! Expressions are interned and kept in a normal form: a sum of integer multiples of *atoms* (a range, a parameter,
//! a product of atoms, a floor division, a remainder) plus a constant. Interval bounds and free ranges are
//! computed when a node is made. Division rounds toward negative infinity and the remainder has the divisor's sign;
//! divisors are positive.
//!
//! Coefficients are checked `i64`. Where a product or sum would overflow, the arena remembers it
//! ([`Ints::overflowed`]) and the verifiers refuse the program; bounds saturate.

mod corner;
mod divisor;

use rustc_hash::FxHashMap;

/// A symbolic integer in an [`Ints`] arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IntId(u32);

/// A loop variable: an id without meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RangeId(pub u32);

/// A bounded size that is known when a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId(pub u32);

/// What a range is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RangeRole {
    /// Each value gives its own result.
    Map,
    /// Values are combined by a reduction.
    Reduce,
}

/// A range's data. It takes the values `0..size`.
#[derive(Clone, Debug)]
pub struct RangeInfo {
    /// Number of values.
    pub size: IntId,
    /// What it is for.
    pub role: RangeRole,
    /// When it was made, counted from 0. Provenance: read by the `creation` and `range-id` rules alone, and no part
    /// of any node's identity.
    pub ordinal: u32,
}

/// A parameter's data: a name and the values it may take, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamInfo {
    /// Name in the text form and in generated code.
    pub name: String,
    /// Least value, at least 0.
    pub lo: i64,
    /// Greatest value.
    pub hi: i64,
    /// Whether it counts the launches of a loop of the host: the steps of a program give it, not who calls the program.
    pub host: bool,
}

impl ParamInfo {
    /// The value for which costs are estimated: sizes are as large as they get, and a loop of the host begins. The last of
    /// its launches may have less to do.
    pub fn typical(&self) -> i64 {
        if self.host { self.lo } else { self.hi }
    }
}

/// One node of the arena. Build nodes with the methods of [`Ints`], which keep the normal form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum IntNode {
    /// A constant.
    Const(i64),
    /// The value of a loop variable.
    Range(RangeId),
    /// The value of a parameter.
    Param(ParamId),
    /// `constant + sum of coefficient * atom`.
    Sum {
        /// Atoms with their non-zero coefficients, each atom once.
        terms: Box<[(IntId, i64)]>,
        /// The constant part.
        constant: i64,
    },
    /// A product of at least two atoms.
    Product(Box<[IntId]>),
    /// `floor(num / den)`.
    Div {
        /// Dividend.
        num: IntId,
        /// Positive divisor.
        den: IntId,
    },
    /// `num - den * floor(num / den)`.
    Mod {
        /// Dividend.
        num: IntId,
        /// Positive divisor.
        den: IntId,
    },
}

#[derive(Clone, Debug)]
struct Data {
    node: IntNode,
    lo: i64,
    hi: i64,
    ranges: Box<[RangeId]>,
}

/// The arena of symbolic integers, with the ranges and parameters they are made of.
#[derive(Clone, Debug, Default)]
pub struct Ints {
    data: Vec<Data>,
    ids: FxHashMap<IntNode, IntId>,
    ranges: Vec<RangeInfo>,
    params: Vec<ParamInfo>,
    overflowed: bool,
}

const FAR: i64 = i64::MAX / 4;

fn clamp_bound(x: i128) -> i64 {
    x.clamp(-(FAR as i128), FAR as i128) as i64
}

/// The greatest number that divides both, not negative.
pub fn gcd(a: i64, b: i64) -> i64 {
    let (mut a, mut b) = (a.unsigned_abs(), b.unsigned_abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a as i64
}

impl Ints {
    /// An empty arena.
    pub fn new() -> Ints {
        Ints::default()
    }

    /// Whether some coefficient went beyond `i64`; the expressions are then wrong and a verifier refuses them.
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// A new range of a size that does not depend on other ranges.
    pub fn new_range(&mut self, size: IntId, role: RangeRole) -> RangeId {
        let ordinal = self.ranges.len() as u32;
        self.new_range_with(size, role, ordinal)
    }

    /// A new range with a given creation ordinal.
    pub fn new_range_with(&mut self, size: IntId, role: RangeRole, ordinal: u32) -> RangeId {
        self.ranges.push(RangeInfo { size, role, ordinal });
        RangeId(self.ranges.len() as u32 - 1)
    }

    /// A new parameter with values `lo..=hi`.
    pub fn new_param(&mut self, name: &str, lo: i64, hi: i64) -> ParamId {
        self.declare_param(ParamInfo { name: name.to_string(), lo, hi, host: false })
    }

    /// A parameter as it is described; names are told apart by who declares them.
    pub(crate) fn declare_param(&mut self, info: ParamInfo) -> ParamId {
        self.params.push(info);
        ParamId(self.params.len() as u32 - 1)
    }

    /// A new parameter for a loop of the host, with values `0..count`. Its name is one that no other parameter has.
    pub fn new_host_param(&mut self, count: i64) -> ParamId {
        let mut name = "chunk".to_string();
        for n in 1.. {
            if self.params.iter().all(|p| p.name != name) {
                break;
            }
            name = format!("chunk{n}");
        }
        self.declare_param(ParamInfo { name, lo: 0, hi: count.max(1) - 1, host: true })
    }

    /// A range's data.
    pub fn range_info(&self, range: RangeId) -> &RangeInfo {
        &self.ranges[range.0 as usize]
    }

    /// Number of ranges made so far; ids count from 0.
    pub fn range_count(&self) -> usize {
        self.ranges.len()
    }

    /// A parameter's data.
    pub fn param_info(&self, param: ParamId) -> &ParamInfo {
        &self.params[param.0 as usize]
    }

    /// All parameters, in order of id.
    pub fn params(&self) -> &[ParamInfo] {
        &self.params
    }

    /// The size of a range.
    pub fn size(&self, range: RangeId) -> IntId {
        self.ranges[range.0 as usize].size
    }

    /// The size of a range where it is a constant.
    pub fn const_size(&self, range: RangeId) -> Option<i64> {
        self.as_const(self.size(range))
    }

    /// The greatest size a range can have.
    pub fn max_size(&self, range: RangeId) -> i64 {
        self.bounds(self.size(range)).1
    }

    /// The node behind an id.
    pub fn node(&self, id: IntId) -> &IntNode {
        &self.data[id.0 as usize].node
    }

    /// Whether an id was made by this arena, or by one that it is a copy of.
    pub fn contains(&self, id: IntId) -> bool {
        (id.0 as usize) < self.data.len()
    }

    /// Interval bounds, both ends included.
    pub fn bounds(&self, id: IntId) -> (i64, i64) {
        let d = &self.data[id.0 as usize];
        (d.lo, d.hi)
    }

    /// The ranges an expression depends on, sorted by id.
    pub fn free_ranges(&self, id: IntId) -> &[RangeId] {
        &self.data[id.0 as usize].ranges
    }

    /// Whether an expression depends on a range.
    pub fn depends_on(&self, id: IntId, range: RangeId) -> bool {
        self.data[id.0 as usize].ranges.binary_search(&range).is_ok()
    }

    /// The value of a constant expression.
    pub fn as_const(&self, id: IntId) -> Option<i64> {
        match self.data[id.0 as usize].node {
            IntNode::Const(c) => Some(c),
            _ => None,
        }
    }

    fn intern(&mut self, node: IntNode) -> IntId {
        if let Some(&id) = self.ids.get(&node) {
            return id;
        }
        let (lo, hi) = self.compute_bounds(&node);
        let ranges = self.compute_ranges(&node);
        let id = IntId(self.data.len() as u32);
        self.data.push(Data { node: node.clone(), lo, hi, ranges });
        self.ids.insert(node, id);
        id
    }

    fn compute_bounds(&self, node: &IntNode) -> (i64, i64) {
        match node {
            IntNode::Const(c) => (*c, *c),
            IntNode::Range(r) => (0, (self.max_size(*r) - 1).max(0)),
            IntNode::Param(p) => (self.params[p.0 as usize].lo, self.params[p.0 as usize].hi),
            IntNode::Sum { terms, constant } => {
                let (mut lo, mut hi) = (*constant as i128, *constant as i128);
                for &(t, c) in terms {
                    let (a, b) = self.bounds(t);
                    let (x, y) = (a as i128 * c as i128, b as i128 * c as i128);
                    lo += x.min(y);
                    hi += x.max(y);
                }
                (clamp_bound(lo), clamp_bound(hi))
            }
            IntNode::Product(factors) => {
                let (mut lo, mut hi) = (1i128, 1i128);
                for &f in factors {
                    let (a, b) = self.bounds(f);
                    let all = [lo * a as i128, lo * b as i128, hi * a as i128, hi * b as i128];
                    lo = clamp_bound(all.into_iter().min().unwrap_or(0)) as i128;
                    hi = clamp_bound(all.into_iter().max().unwrap_or(0)) as i128;
                }
                (lo as i64, hi as i64)
            }
            IntNode::Div { num, den } => {
                let (a, b) = self.bounds(*num);
                let (d0, d1) = self.bounds(*den);
                let (d0, d1) = (d0.max(1), d1.max(1));
                let all = [a.div_euclid(d0), a.div_euclid(d1), b.div_euclid(d0), b.div_euclid(d1)];
                // A saturated bound stands for anything beyond it, and so does its quotient.
                let lo = if a <= -FAR { -FAR } else { all.into_iter().min().unwrap_or(0) };
                let hi = if b >= FAR { FAR } else { all.into_iter().max().unwrap_or(0) };
                (lo, hi)
            }
            IntNode::Mod { num, den } => {
                let (a, b) = self.bounds(*num);
                let d = self.bounds(*den).1.max(1);
                if a >= 0 { (0, (d - 1).min(b)) } else { (0, d - 1) }
            }
        }
    }

    fn compute_ranges(&self, node: &IntNode) -> Box<[RangeId]> {
        let mut all: Vec<RangeId> = Vec::new();
        match node {
            IntNode::Const(_) | IntNode::Param(_) => {}
            IntNode::Range(r) => all.push(*r),
            IntNode::Sum { terms, .. } => {
                for (t, _) in terms {
                    all.extend(self.free_ranges(*t));
                }
            }
            IntNode::Product(factors) => {
                for f in factors {
                    all.extend(self.free_ranges(*f));
                }
            }
            IntNode::Div { num, den } | IntNode::Mod { num, den } => {
                all.extend(self.free_ranges(*num));
                all.extend(self.free_ranges(*den));
            }
        }
        all.sort_unstable();
        all.dedup();
        all.into()
    }

    /// A constant.
    pub fn constant(&mut self, c: i64) -> IntId {
        self.intern(IntNode::Const(c))
    }

    /// A range's value. A range of size one is the constant 0.
    pub fn range(&mut self, range: RangeId) -> IntId {
        if self.const_size(range) == Some(1) {
            return self.constant(0);
        }
        self.intern(IntNode::Range(range))
    }

    /// A parameter's value.
    pub fn param(&mut self, param: ParamId) -> IntId {
        let info = &self.params[param.0 as usize];
        if info.lo == info.hi {
            let c = info.lo;
            return self.constant(c);
        }
        self.intern(IntNode::Param(param))
    }

    /// The terms and the constant of an expression seen as a sum.
    pub fn as_sum(&self, id: IntId) -> (Vec<(IntId, i64)>, i64) {
        match self.node(id) {
            IntNode::Const(c) => (Vec::new(), *c),
            IntNode::Sum { terms, constant } => (terms.to_vec(), *constant),
            _ => (vec![(id, 1)], 0),
        }
    }

    fn add_checked(&mut self, a: i64, b: i64) -> i64 {
        a.checked_add(b).filter(|x| x.unsigned_abs() <= FAR as u64).unwrap_or_else(|| {
            self.overflowed = true;
            0
        })
    }

    fn mul_checked(&mut self, a: i64, b: i64) -> i64 {
        a.checked_mul(b).filter(|x| x.unsigned_abs() <= FAR as u64).unwrap_or_else(|| {
            self.overflowed = true;
            0
        })
    }

    /// A sum from terms (atoms or any expressions, with coefficients) and a constant.
    pub fn sum(&mut self, terms: &[(IntId, i64)], constant: i64) -> IntId {
        let mut flat: Vec<(IntId, i64)> = Vec::with_capacity(terms.len());
        let mut c0 = constant;
        for &(t, c) in terms {
            match self.node(t).clone() {
                IntNode::Const(x) => {
                    let p = self.mul_checked(x, c);
                    c0 = self.add_checked(c0, p);
                }
                IntNode::Sum { terms: inner, constant: k } => {
                    for (u, d) in inner {
                        let p = self.mul_checked(c, d);
                        flat.push((u, p));
                    }
                    let p = self.mul_checked(k, c);
                    c0 = self.add_checked(c0, p);
                }
                _ => flat.push((t, c)),
            }
        }
        flat.sort_unstable_by_key(|t| t.0);
        let mut merged: Vec<(IntId, i64)> = Vec::with_capacity(flat.len());
        for (t, c) in flat {
            match merged.last_mut() {
                Some(last) if last.0 == t => {
                    let s = last.1;
                    last.1 = self.add_checked(s, c);
                }
                _ => merged.push((t, c)),
            }
        }
        merged.retain(|t| t.1 != 0);
        if let Some((together, k)) = self.find_div_mod_pair(&merged) {
            c0 = self.add_checked(c0, k);
            return self.sum(&together, c0);
        }
        if merged.is_empty() {
            return self.constant(c0);
        }
        if c0 == 0 && merged.len() == 1 && merged[0].1 == 1 {
            return merged[0].0;
        }
        self.intern(IntNode::Sum { terms: merged.into(), constant: c0 })
    }

    /// Finds `c * (e % d)` and `c * d * (e / d)` among the terms: together they are `c * e`. The quotient may have become
    /// a sum, or a division of what is left of `e` without a common factor. Gives the terms with `c * e`, and a constant.
    fn find_div_mod_pair(&mut self, terms: &[(IntId, i64)]) -> Option<(Vec<(IntId, i64)>, i64)> {
        for (i, &(m, c)) in terms.iter().enumerate() {
            let IntNode::Mod { num, den } = *self.node(m) else { continue };
            let Some(step) = self.as_const(den).and_then(|d| c.checked_mul(d)) else { continue };
            // Without a term of the quotient there is no need to know it.
            if !terms.iter().any(|t| t.1 % step == 0) {
                continue;
            }
            let d = step / c;
            let quotient = self.div_const(num, d);
            let (parts, k) = self.as_sum(quotient);
            let found = |&(q, n): &(IntId, i64)| {
                let cq = n.checked_mul(step)?;
                terms.iter().position(|&t| t == (q, cq))
            };
            let Some(places) = parts.iter().map(found).collect::<Option<Vec<usize>>>() else { continue };
            let Some(k) = k.checked_mul(step).filter(|_| !places.is_empty()) else { continue };
            let rest = terms.iter().enumerate().filter(|(n, _)| *n != i && !places.contains(n));
            let rest = rest.map(|(_, &t)| t).chain([(num, c)]).collect();
            return Some((rest, k.checked_neg()?));
        }
        None
    }

    /// `a + b`.
    pub fn add(&mut self, a: IntId, b: IntId) -> IntId {
        self.sum(&[(a, 1), (b, 1)], 0)
    }

    /// `a + c`.
    pub fn add_const(&mut self, a: IntId, c: i64) -> IntId {
        self.sum(&[(a, 1)], c)
    }

    /// `a - b`.
    pub fn sub(&mut self, a: IntId, b: IntId) -> IntId {
        self.sum(&[(a, 1), (b, -1)], 0)
    }

    /// `a * c`.
    pub fn scale(&mut self, a: IntId, c: i64) -> IntId {
        self.sum(&[(a, c)], 0)
    }

    /// `a * b`.
    pub fn mul(&mut self, a: IntId, b: IntId) -> IntId {
        if let Some(c) = self.as_const(b) {
            return self.scale(a, c);
        }
        if let Some(c) = self.as_const(a) {
            return self.scale(b, c);
        }
        let (ta, ca) = self.as_sum(a);
        let (tb, cb) = self.as_sum(b);
        let mut out: Vec<(IntId, i64)> = Vec::new();
        for &(x, p) in &ta {
            for &(y, q) in &tb {
                let xy = self.product(x, y);
                let pq = self.mul_checked(p, q);
                out.push((xy, pq));
            }
            let p = self.mul_checked(p, cb);
            out.push((x, p));
        }
        for &(y, q) in &tb {
            let q = self.mul_checked(q, ca);
            out.push((y, q));
        }
        let c = self.mul_checked(ca, cb);
        self.sum(&out, c)
    }

    fn factors(&self, atom: IntId) -> Vec<IntId> {
        match self.node(atom) {
            IntNode::Product(f) => f.to_vec(),
            _ => vec![atom],
        }
    }

    fn product(&mut self, x: IntId, y: IntId) -> IntId {
        let mut f = self.factors(x);
        f.extend(self.factors(y));
        self.product_of(f)
    }

    fn product_of(&mut self, mut f: Vec<IntId>) -> IntId {
        match f.len() {
            0 => self.constant(1),
            1 => f[0],
            _ => {
                f.sort_unstable();
                self.intern(IntNode::Product(f.into()))
            }
        }
    }

    /// `floor(a / b)` for `b > 0`.
    pub fn div(&mut self, a: IntId, b: IntId) -> IntId {
        match self.as_const(b) {
            Some(d) if d > 0 => self.div_const(a, d),
            Some(_) => {
                self.overflowed = true;
                self.constant(0)
            }
            None => self.div_symbolic(a, b),
        }
    }

    /// `floor(a / d)` for a constant `d > 0`.
    pub fn div_const(&mut self, a: IntId, d: i64) -> IntId {
        if d < 1 {
            self.overflowed = true;
            return self.constant(0);
        }
        let (lo, hi) = self.bounds(a);
        if d == 1 {
            return a;
        }
        if lo.div_euclid(d) == hi.div_euclid(d) && hi < FAR && lo > -FAR {
            return self.constant(lo.div_euclid(d));
        }
        if let IntNode::Div { num, den } = *self.node(a)
            && let Some(e) = self.as_const(den)
        {
            let de = self.mul_checked(d, e);
            return self.div_const(num, de.max(1));
        }
        if let IntNode::Mod { num, den } = *self.node(a)
            && let Some(e) = self.as_const(den)
            && e % d == 0
        {
            let q = self.div_const(num, d);
            return self.rem_const(q, e / d);
        }
        let (terms, c0) = self.as_sum(a);
        // A quotient and a constant are the quotient of a sum.
        if let [(t, 1)] = terms[..]
            && let IntNode::Div { num, den } = *self.node(t)
            && let Some(e) = self.as_const(den)
        {
            let (ce, de) = (self.mul_checked(c0, e), self.mul_checked(d, e));
            let all = self.add_const(num, ce);
            return self.div_const(all, de.max(1));
        }
        let (whole, part): (Vec<_>, Vec<_>) = terms.into_iter().partition(|t| t.1 % d == 0);
        let (cq, cr) = (c0.div_euclid(d), c0.rem_euclid(d));
        let quotient: Vec<(IntId, i64)> = whole.iter().map(|&(t, c)| (t, c / d)).collect();
        if !quotient.is_empty() || cq != 0 {
            let rest = self.sum(&part, cr);
            let inner = self.div_const(rest, d);
            let mut all = quotient;
            all.push((inner, 1));
            return self.sum(&all, cq);
        }
        if let Some((coarse, g)) = self.split_by_common_factor(&part, cr, d) {
            return self.div_const(coarse, d / g);
        }
        let den = self.constant(d);
        self.intern(IntNode::Div { num: a, den })
    }

    /// Writes `sum(terms) + c` as `g * coarse + fine` with `0 <= fine < g` for a divisor `g > 1` of `d`, where the
    /// terms allow it; gives `(coarse, g)`.
    fn split_by_common_factor(&mut self, terms: &[(IntId, i64)], c: i64, d: i64) -> Option<(IntId, i64)> {
        let mut candidates: Vec<i64> = terms.iter().map(|t| gcd(t.1, d)).filter(|&g| g > 1).collect();
        candidates.sort_unstable();
        candidates.dedup();
        for g in candidates.into_iter().rev() {
            let (coarse, fine): (Vec<_>, Vec<_>) = terms.iter().copied().partition(|t| t.1 % g == 0);
            let rest = self.sum(&fine, c.rem_euclid(g));
            let (lo, hi) = self.bounds(rest);
            if lo >= 0 && hi < g {
                let scaled: Vec<(IntId, i64)> = coarse.iter().map(|&(t, k)| (t, k / g)).collect();
                return Some((self.sum(&scaled, c.div_euclid(g)), g));
            }
        }
        None
    }

    /// `a mod b` for `b > 0`, with a result in `0..b`.
    pub fn rem(&mut self, a: IntId, b: IntId) -> IntId {
        match self.as_const(b) {
            Some(d) if d > 0 => self.rem_const(a, d),
            Some(_) => {
                self.overflowed = true;
                self.constant(0)
            }
            None => {
                if self.is_within(a, b) {
                    return a;
                }
                let q = self.div_symbolic(a, b);
                if let IntNode::Div { num, den } = *self.node(q)
                    && num == a
                    && den == b
                {
                    return self.intern(IntNode::Mod { num: a, den: b });
                }
                let back = self.mul(q, b);
                self.sub(a, back)
            }
        }
    }

    /// `a mod d` for a constant `d > 0`.
    pub fn rem_const(&mut self, a: IntId, d: i64) -> IntId {
        if d < 1 {
            self.overflowed = true;
            return self.constant(0);
        }
        if d == 1 {
            return self.constant(0);
        }
        let (lo, hi) = self.bounds(a);
        if lo.div_euclid(d) == hi.div_euclid(d) && hi < FAR && lo > -FAR {
            let shift = -lo.div_euclid(d) * d;
            return self.add_const(a, shift);
        }
        if let IntNode::Mod { num, den } = *self.node(a)
            && let Some(e) = self.as_const(den)
            && e % d == 0
        {
            return self.rem_const(num, d);
        }
        let (terms, c0) = self.as_sum(a);
        let part: Vec<(IntId, i64)> = terms.iter().copied().filter(|t| t.1 % d != 0).collect();
        let cr = c0.rem_euclid(d);
        if part.len() != terms.len() || cr != c0 {
            let rest = self.sum(&part, cr);
            return self.rem_const(rest, d);
        }
        if let Some((coarse, g)) = self.split_by_common_factor(&part, cr, d) {
            let scaled = self.scale(coarse, g);
            let fine = self.sub(a, scaled);
            let high = self.rem_const(coarse, d / g);
            return self.sum(&[(high, g), (fine, 1)], 0);
        }
        let den = self.constant(d);
        self.intern(IntNode::Mod { num: a, den })
    }

    /// Whether `0 <= a < b` can be proved.
    pub fn is_within(&mut self, a: IntId, b: IntId) -> bool {
        let gap = self.sum(&[(b, 1), (a, -1)], -1);
        self.prove_nonneg(a, &[]) && self.prove_nonneg(gap, &[])
    }

    fn div_symbolic(&mut self, a: IntId, b: IntId) -> IntId {
        if self.is_within(a, b) {
            return self.constant(0);
        }
        if a == b && self.bounds(b).0 >= 1 {
            return self.constant(1);
        }
        // Only a product of atoms divides terms; a sum as divisor stays as it is.
        let (tb, cb) = self.as_sum(b);
        if tb.len() == 1 && cb == 0 && self.bounds(b).0 >= 1 {
            let (atom, coef) = tb[0];
            let wanted = self.factors(atom);
            let (terms, c0) = self.as_sum(a);
            let (mut quotient, mut rest) = (Vec::new(), Vec::new());
            for (t, c) in terms {
                match (c % coef == 0).then(|| self.remove_factors(t, &wanted)).flatten() {
                    Some(left) => {
                        let left = self.product_of(left);
                        quotient.push((left, c / coef));
                    }
                    None => rest.push((t, c)),
                }
            }
            if !quotient.is_empty() {
                let rest = self.sum(&rest, c0);
                let inner = self.div_symbolic(rest, b);
                quotient.push((inner, 1));
                return self.sum(&quotient, 0);
            }
        }
        self.intern(IntNode::Div { num: a, den: b })
    }

    fn remove_factors(&self, atom: IntId, wanted: &[IntId]) -> Option<Vec<IntId>> {
        let mut left = self.factors(atom);
        for w in wanted {
            let at = left.iter().position(|f| f == w)?;
            left.remove(at);
        }
        Some(left)
    }

    /// Replaces ranges by expressions; a range for which `f` gives `None` stays.
    pub fn substitute(&mut self, id: IntId, f: &dyn Fn(RangeId) -> Option<IntId>) -> IntId {
        let mut memo = FxHashMap::default();
        self.substitute_memo(id, f, &mut memo)
    }

    /// [`substitute`](Ints::substitute) that shares its memo between calls with the same `f`.
    pub fn substitute_memo(
        &mut self,
        id: IntId,
        f: &dyn Fn(RangeId) -> Option<IntId>,
        memo: &mut FxHashMap<IntId, IntId>,
    ) -> IntId {
        if self.free_ranges(id).iter().all(|&r| f(r).is_none()) {
            return id;
        }
        if let Some(&done) = memo.get(&id) {
            return done;
        }
        let out = match self.node(id).clone() {
            IntNode::Const(_) | IntNode::Param(_) => id,
            IntNode::Range(r) => f(r).unwrap_or(id),
            IntNode::Sum { terms, constant } => {
                let terms: Vec<_> = terms.iter().map(|&(t, c)| (self.substitute_memo(t, f, memo), c)).collect();
                self.sum(&terms, constant)
            }
            IntNode::Product(factors) => {
                let mut acc = self.constant(1);
                for x in factors {
                    let x = self.substitute_memo(x, f, memo);
                    acc = self.mul(acc, x);
                }
                acc
            }
            IntNode::Div { num, den } => {
                let num = self.substitute_memo(num, f, memo);
                let den = self.substitute_memo(den, f, memo);
                self.div(num, den)
            }
            IntNode::Mod { num, den } => {
                let num = self.substitute_memo(num, f, memo);
                let den = self.substitute_memo(den, f, memo);
                self.rem(num, den)
            }
        };
        memo.insert(id, out);
        out
    }

    /// Builds an expression of another arena in this one. Parameters keep their ids (see
    /// [`with_params_of`](Ints::with_params_of)); `range` gives the expression that stands for each range.
    pub fn import(
        &mut self,
        from: &Ints,
        id: IntId,
        range: &dyn Fn(RangeId) -> Option<IntId>,
        memo: &mut FxHashMap<IntId, IntId>,
    ) -> IntId {
        if let Some(&done) = memo.get(&id) {
            return done;
        }
        let out = match from.node(id) {
            IntNode::Const(c) => self.constant(*c),
            IntNode::Param(p) => self.param(*p),
            IntNode::Range(r) => range(*r).unwrap_or_else(|| {
                self.overflowed = true;
                self.constant(0)
            }),
            IntNode::Sum { terms, constant } => {
                let terms: Vec<_> = terms.iter().map(|&(t, c)| (self.import(from, t, range, memo), c)).collect();
                self.sum(&terms, *constant)
            }
            IntNode::Product(factors) => {
                let mut acc = self.constant(1);
                for &x in factors {
                    let x = self.import(from, x, range, memo);
                    acc = self.mul(acc, x);
                }
                acc
            }
            IntNode::Div { num, den } => {
                let num = self.import(from, *num, range, memo);
                let den = self.import(from, *den, range, memo);
                self.div(num, den)
            }
            IntNode::Mod { num, den } => {
                let num = self.import(from, *num, range, memo);
                let den = self.import(from, *den, range, memo);
                self.rem(num, den)
            }
        };
        memo.insert(id, out);
        out
    }

    /// An arena without expressions and ranges, with the parameters of another one.
    pub fn with_params_of(from: &Ints) -> Ints {
        Ints { params: from.params.clone(), overflowed: from.overflowed, ..Ints::default() }
    }

    /// Writes an expression as `c * range + rest` with `rest` free of the range, where it has that form.
    pub fn split_linear(&mut self, id: IntId, range: RangeId) -> Option<(i64, IntId)> {
        if !self.depends_on(id, range) {
            return Some((0, id));
        }
        let (terms, c0) = self.as_sum(id);
        let mut coef = 0;
        let mut rest = Vec::with_capacity(terms.len());
        for (t, c) in terms {
            if *self.node(t) == IntNode::Range(range) {
                coef = c;
            } else if self.depends_on(t, range) {
                return None;
            } else {
                rest.push((t, c));
            }
        }
        let rest = self.sum(&rest, c0);
        Some((coef, rest))
    }

    /// The value of an expression for given ranges and parameters; `None` on overflow.
    pub fn eval(&self, id: IntId, range: &dyn Fn(RangeId) -> i64, param: &dyn Fn(ParamId) -> i64) -> Option<i64> {
        Some(match self.node(id) {
            IntNode::Const(c) => *c,
            IntNode::Range(r) => range(*r),
            IntNode::Param(p) => param(*p),
            IntNode::Sum { terms, constant } => {
                let mut acc = *constant;
                for &(t, c) in terms {
                    acc = acc.checked_add(self.eval(t, range, param)?.checked_mul(c)?)?;
                }
                acc
            }
            IntNode::Product(factors) => {
                let mut acc = 1i64;
                for &f in factors {
                    acc = acc.checked_mul(self.eval(f, range, param)?)?;
                }
                acc
            }
            IntNode::Div { num, den } => {
                let d = self.eval(*den, range, param)?;
                let n = self.eval(*num, range, param)?;
                if d <= 0 { return None } else { n.div_euclid(d) }
            }
            IntNode::Mod { num, den } => {
                let d = self.eval(*den, range, param)?;
                let n = self.eval(*num, range, param)?;
                if d <= 0 { return None } else { n.rem_euclid(d) }
            }
        })
    }

    /// Proves `e >= 0` for all values of ranges and parameters for which every expression of `given` is at least 0.
    /// `false` means "not proved".
    pub fn prove_nonneg(&mut self, e: IntId, given: &[IntId]) -> bool {
        if self.bounds(e).0 >= 0 || given.contains(&e) {
            return true;
        }
        if self.lower_bound_is_nonneg(e) {
            return true;
        }
        if self.follows_from(e, given, 2) {
            return true;
        }
        if let Some(least) = self.without_remainders(e)
            && self.prove_nonneg(least, given)
        {
            return true;
        }
        // Between whole numbers there is room: e >= 0 where k*e + k - 1 >= 0, which a condition with k times e's
        // coefficients may give.
        for k in self.coefficient_ratios(e, given) {
            let scaled = self.sum(&[(e, k)], k - 1);
            if self.follows_from(scaled, given, 1) {
                return true;
            }
        }
        // A range that no condition is about may as well be where e is least.
        let apart = |r: &RangeId| !given.iter().any(|&c| self.depends_on(c, *r));
        let ranges: Vec<RangeId> = self.free_ranges(e).iter().copied().filter(apart).collect();
        for r in ranges {
            if let (Some(sign), Some(size)) = (self.monotone_sign(e, r), self.const_size(r)) {
                let at = self.constant(if sign > 0 { 0 } else { (size - 1).max(0) });
                let least = self.substitute(e, &|x| (x == r).then_some(at));
                return self.prove_nonneg(least, given);
            }
        }
        let (terms, c0) = self.as_sum(e);
        let g = terms.iter().fold(0, |g, t| gcd(g, t.1));
        if g > 1 {
            let divided: Vec<_> = terms.iter().map(|&(t, c)| (t, c / g)).collect();
            let e = self.sum(&divided, c0.div_euclid(g));
            return self.prove_nonneg(e, given);
        }
        // c * floor(n/d) + k >= 0 follows from a condition on n.
        if let [(t, c)] = terms[..]
            && let IntNode::Div { num, den } = *self.node(t)
            && let Some(d) = self.as_const(den)
        {
            let condition = if c > 0 {
                // floor(n/d) >= ceil(-k/c)
                let least = -(c0.div_euclid(c));
                self.add_const(num, least.saturating_mul(-d))
            } else {
                // floor(n/d) <= floor(k/-c) = q, that is n <= q*d + d - 1
                let q = c0.div_euclid(-c);
                self.sum(&[(num, -1)], q.saturating_mul(d).saturating_add(d - 1))
            };
            return self.prove_nonneg(condition, given);
        }
        if let Some(condition) = self.quotient_into_rest(e)
            && self.prove_nonneg(condition, given)
        {
            return true;
        }
        if let Some(condition) = self.symbolic_quotient_into_rest(e)
            && self.prove_nonneg(condition, given)
        {
            return true;
        }
        self.without_quotients(e).is_some_and(|relaxed| self.prove_nonneg(relaxed, given))
    }

    /// As [`quotient_into_rest`](Ints::quotient_into_rest), for a divisor that is symbolic and at least 1.
    fn symbolic_quotient_into_rest(&mut self, e: IntId) -> Option<IntId> {
        let (mut terms, c0) = self.as_sum(e);
        let (at, num, den) = terms.iter().enumerate().find_map(|(at, &(t, c))| match *self.node(t) {
            IntNode::Div { num, den } if c.abs() == 1 && self.as_const(den).is_none() && self.bounds(den).0 >= 1 => {
                Some((at, num, den))
            }
            _ => None,
        })?;
        let (_, c) = terms.remove(at);
        let rest = self.sum(&terms, c0);
        let scaled = self.mul(rest, den);
        let sum = self.sum(&[(num, c), (scaled, 1)], 0);
        if c > 0 { Some(sum) } else { Some(self.sum(&[(sum, 1), (den, 1)], -1)) }
    }

    /// A condition that is at least 0 exactly where `e` is and in which the range appears linearly, where quotients are
    /// all that keeps it from that: `row - floor(lane/7) >= 0` where `lane <= 7 * row + 6`.
    pub fn linear_condition(&mut self, mut e: IntId, range: RangeId) -> Option<IntId> {
        while self.split_linear(e, range).is_none() {
            e = self.quotient_into_rest(e)?;
        }
        Some(e)
    }

    /// A condition without `e`'s first quotient of coefficient 1 or -1 that is at least 0 exactly where `e` is:
    /// `floor(n/d) + rest = floor((n + d * rest)/d)`, and `rest - floor(n/d) >= 0` where `n <= d * rest + d - 1`.
    fn quotient_into_rest(&mut self, e: IntId) -> Option<IntId> {
        const SMALL: i64 = 1 << 24;
        let (terms, c0) = self.as_sum(e);
        let (at, num, d) = terms.iter().enumerate().find_map(|(at, &(t, c))| match *self.node(t) {
            IntNode::Div { num, den } if c.abs() == 1 => self.as_const(den).map(|d| (at, num, d)),
            _ => None,
        })?;
        let small = |x: i64| x.abs() <= SMALL;
        if !small(d) || !small(c0) || !terms.iter().all(|t| small(t.1)) {
            return None;
        }
        let c = terms[at].1;
        let mut out = vec![(num, c)];
        out.extend(terms.iter().enumerate().filter(|t| t.0 != at).map(|(_, &(t, k))| (t, k * d)));
        Some(self.sum(&out, c0 * d + if c < 0 { d - 1 } else { 0 }))
    }

    /// An expression without `e`'s first quotient, which is at least 0 only where `e` is: with
    /// `n - d + 1 <= d * floor(n/d) <= n`, `e = c * floor(n/d) + rest` is bounded from below by
    /// `(c * n + d * rest) / d` for `c < 0`, and with `n - d + 1` in the place of `n` for `c > 0`.
    fn without_quotients(&mut self, e: IntId) -> Option<IntId> {
        const SMALL: i64 = 1 << 24;
        let (terms, c0) = self.as_sum(e);
        let (at, num, d) = terms.iter().enumerate().find_map(|(at, &(t, _))| match *self.node(t) {
            IntNode::Div { num, den } => self.as_const(den).map(|d| (at, num, d)),
            _ => None,
        })?;
        let (inner, k0) = self.as_sum(num);
        let small = |x: i64| x.abs() <= SMALL;
        if !small(d) || !small(c0) || !small(k0) || !terms.iter().chain(&inner).all(|t| small(t.1)) {
            return None;
        }
        let c = terms[at].1;
        let mut out = vec![(num, c)];
        out.extend(terms.iter().enumerate().filter(|t| t.0 != at).map(|(_, &(t, k))| (t, k * d)));
        Some(self.sum(&out, c0 * d + if c > 0 { c * (1 - d) } else { 0 }))
    }

    /// Factors larger than 1 by which a given condition has more of one of `e`'s terms.
    fn coefficient_ratios(&self, e: IntId, given: &[IntId]) -> Vec<i64> {
        const SMALL: i64 = 1 << 24;
        let (terms, c0) = self.as_sum(e);
        if c0.abs() > SMALL || terms.iter().any(|t| t.1.abs() > SMALL) {
            return Vec::new();
        }
        let mut out: Vec<i64> = Vec::new();
        for &g in given {
            let (of_g, _) = self.as_sum(g);
            for &(t, c) in &terms {
                out.extend(
                    of_g.iter()
                        .filter(|u| u.0 == t && u.1 % c == 0 && (2..=SMALL).contains(&(u.1 / c)))
                        .map(|u| u.1 / c),
                );
            }
        }
        out.sort_unstable();
        out.dedup();
        out
    }

    /// Whether `e` is at least a sum of positive multiples of up to `depth` given conditions.
    fn follows_from(&mut self, e: IntId, given: &[IntId], depth: u32) -> bool {
        let (terms, _) = self.as_sum(e);
        for &g in given {
            let (of_g, _) = self.as_sum(g);
            // Multiples that cancel one of the terms.
            let mut factors: Vec<i64> = terms
                .iter()
                .flat_map(|&(t, c)| of_g.iter().filter(move |u| u.0 == t).map(move |u| (c, u.1)))
                .filter(|&(c, d)| c % d == 0 && c / d > 0)
                .map(|(c, d)| c / d)
                .collect();
            factors.sort_unstable();
            factors.dedup();
            for f in factors {
                let d = self.sum(&[(e, 1), (g, -f)], 0);
                if self.bounds(d).0 >= 0
                    || self.lower_bound_is_nonneg(d)
                    || (depth > 1 && self.follows_from(d, given, depth - 1))
                {
                    return true;
                }
            }
        }
        false
    }

    /// Puts each range at the end of its interval that makes `e` least and looks at what is left: parameters alone.
    fn lower_bound_is_nonneg(&mut self, e: IntId) -> bool {
        let mut e = e;
        for _ in 0..8 {
            let mut ranges: Vec<RangeId> = self.free_ranges(e).to_vec();
            if ranges.is_empty() {
                break;
            }
            // Constants first: the end of a symbolic range may hide the sign of another one's slope, and what can be
            // proved must not depend on ids.
            ranges.sort_by_key(|&r| self.const_size(r).is_none());
            let mut changed = false;
            for r in ranges {
                if !self.depends_on(e, r) {
                    continue;
                }
                let Some(sign) = self.monotone_sign(e, r) else { continue };
                let at = if sign > 0 {
                    self.constant(0)
                } else {
                    let size = self.size(r);
                    self.add_const(size, -1)
                };
                e = self.substitute(e, &|x| (x == r).then_some(at));
                changed = true;
            }
            if !changed {
                break;
            }
        }
        if self.bounds(e).0 >= 0 {
            return true;
        }
        self.nonneg_from_a_corner(e)
    }

    /// Something that is at most `e`, without its first remainder by a symbolic divisor that is subtracted: a remainder is
    /// less than its divisor.
    fn without_remainders(&mut self, e: IntId) -> Option<IntId> {
        let (mut terms, c0) = self.as_sum(e);
        let (at, den) = terms.iter().enumerate().find_map(|(at, &(t, c))| match *self.node(t) {
            IntNode::Mod { den, .. } if c < 0 && self.as_const(den).is_none() && self.bounds(den).0 >= 1 => {
                Some((at, den))
            }
            _ => None,
        })?;
        let c = terms[at].1;
        terms[at].0 = den;
        Some(self.sum(&terms, c0.checked_sub(c)?))
    }

    /// The sign of `e`'s slope in a range: `1`, `-1`, or `None` where it is not known.
    fn monotone_sign(&self, e: IntId, r: RangeId) -> Option<i32> {
        let (terms, _) = self.as_sum(e);
        let mut sign = 0;
        for (t, c) in terms {
            if !self.depends_on(t, r) {
                continue;
            }
            let s = match self.node(t) {
                IntNode::Range(_) => 1,
                IntNode::Product(f) if f.iter().all(|&x| self.bounds(x).0 >= 0 && self.atom_increases(x, r)) => 1,
                IntNode::Div { .. } if self.atom_increases(t, r) => 1,
                _ => return None,
            };
            let s = if c > 0 { s } else { -s };
            if sign != 0 && sign != s {
                return None;
            }
            sign = s;
        }
        Some(sign)
    }

    /// Whether an atom never falls as a range grows.
    fn atom_increases(&self, atom: IntId, r: RangeId) -> bool {
        if !self.depends_on(atom, r) {
            return true;
        }
        match self.node(atom) {
            IntNode::Range(_) => true,
            IntNode::Div { num, den } => {
                let (terms, _) = self.as_sum(*num);
                !self.depends_on(*den, r)
                    && terms.iter().all(|&(t, c)| c > 0 && self.atom_increases(t, r) || !self.depends_on(t, r))
            }
            _ => false,
        }
    }

    /// Makes a conjunction of conditions `e >= 0` canonical: drops those that always hold or follow from another one
    /// with the same terms, divides by common factors, sorts. `None` if one of them can never hold.
    pub fn conjunction(&mut self, conditions: &[IntId]) -> Option<Box<[IntId]>> {
        let mut out: Vec<IntId> = Vec::with_capacity(conditions.len());
        for &e in conditions {
            let (lo, hi) = self.bounds(e);
            if hi < 0 {
                return None;
            }
            if lo >= 0 || self.prove_nonneg(e, &[]) {
                continue;
            }
            let (terms, c0) = self.as_sum(e);
            let g = terms.iter().fold(0, |g, t| gcd(g, t.1));
            let e = if g > 1 {
                let scaled: Vec<_> = terms.iter().map(|&(t, c)| (t, c / g)).collect();
                self.sum(&scaled, c0.div_euclid(g))
            } else {
                e
            };
            if self.bounds(e).1 < 0 {
                return None;
            }
            out.push(e);
        }
        out.sort_unstable();
        out.dedup();
        // Of conditions that differ in their constants alone the strongest is enough.
        if out.len() > 1 {
            let parts: Vec<(Vec<(IntId, i64)>, i64)> = out.iter().map(|&e| self.as_sum(e)).collect();
            let weaker = |i: usize| parts.iter().any(|p| p.0 == parts[i].0 && p.1 < parts[i].1);
            let mut at = 0..out.len();
            out.retain(|_| at.next().is_none_or(|i| !weaker(i)));
        }
        Some(out.into())
    }
}
