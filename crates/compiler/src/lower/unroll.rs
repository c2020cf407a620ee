//! Unrolling: ranges that a plan expands become constants.
//!
//! Takes values over unrolled ranges; leaves one value per point of the unrolled map ranges, in which reductions over
//! unrolled ranges alone are chains. Values are interned, so what points have in common is there once.

use super::matvec::emit_row;
use rustc_hash::FxHashMap;
use winograph_ir::Scalar;
use winograph_ir::indexed::{Graph, Source, Val, ValId};
use winograph_ir::int::{IntId, RangeId};
use winograph_ir::op::{BinaryOp, ReduceOp};

/// Substitution of constants for ranges with a memory of what was substituted before.
pub struct Unroller {
    /// Whether products are fused into sums where that is permitted.
    pub(super) fma: bool,
    vals: FxHashMap<(RangeId, i64), FxHashMap<ValId, ValId>>,
    ints: FxHashMap<(RangeId, i64), FxHashMap<IntId, IntId>>,
    expanded: FxHashMap<ValId, ValId>,
}

impl Unroller {
    /// One that has substituted nothing; `fma` says whether products are fused into sums where that is permitted.
    pub fn new(fma: bool) -> Unroller {
        Unroller { fma, vals: FxHashMap::default(), ints: FxHashMap::default(), expanded: FxHashMap::default() }
    }

    /// The integer expression with a range set to a constant.
    pub fn int_at(&mut self, g: &mut Graph, e: IntId, range: RangeId, c: i64) -> IntId {
        if !g.ints.depends_on(e, range) {
            return e;
        }
        let at = g.ints.constant(c);
        let memo = self.ints.entry((range, c)).or_default();
        g.ints.substitute_memo(e, &|r| (r == range).then_some(at), memo)
    }

    /// The value with a range set to a constant.
    pub fn at(&mut self, g: &mut Graph, v: ValId, range: RangeId, c: i64) -> ValId {
        if !g.depends_on(v, range) {
            return v;
        }
        let mut stack = vec![(v, false)];
        while let Some((v, ready)) = stack.pop() {
            if !g.depends_on(v, range) || self.known(v, range, c).is_some() {
                continue;
            }
            if !ready {
                stack.push((v, true));
                stack.extend(g.operands(v).rev().map(|c| (c, false)));
                continue;
            }
            let new = self.rebuild_at(g, v, range, c);
            self.vals.entry((range, c)).or_default().insert(v, new);
        }
        self.known(v, range, c).unwrap_or(v)
    }

    fn known(&self, v: ValId, range: RangeId, c: i64) -> Option<ValId> {
        self.vals.get(&(range, c)).and_then(|m| m.get(&v)).copied()
    }

    fn rebuild_at(&mut self, g: &mut Graph, v: ValId, range: RangeId, c: i64) -> ValId {
        let child = |s: &Unroller, x: ValId| s.known(x, range, c).unwrap_or(x);
        match g.val(v).clone() {
            Val::Const(_) => v,
            Val::Index { value, dtype } => {
                let value = self.int_at(g, value, range, c);
                g.add(Val::Index { value, dtype })
            }
            Val::Load { src, index, gate, fill, dynamic } => {
                let index: Box<[IntId]> = index.iter().map(|&i| self.int_at(g, i, range, c)).collect();
                let gate: Vec<IntId> = gate.iter().map(|&i| self.int_at(g, i, range, c)).collect();
                let dynamic = dynamic.map(|(axis, d)| (axis, child(self, d)));
                match g.ints.conjunction(&gate) {
                    None => g.constant(fill),
                    Some(gate) => g.add(Val::Load { src, index, gate, fill, dynamic }),
                }
            }
            Val::Select { gate, a, b } => {
                let gate: Vec<IntId> = gate.iter().map(|&i| self.int_at(g, i, range, c)).collect();
                let (a, b) = (child(self, a), child(self, b));
                g.select(&gate, a, b)
            }
            Val::Unary { op, x } => {
                let x = child(self, x);
                g.unary(op, x)
            }
            Val::Binary { op, a, b } => {
                let (a, b) = (child(self, a), child(self, b));
                g.binary(op, a, b)
            }
            Val::Fma { a, b, c: z } => {
                let (a, b, z) = (child(self, a), child(self, b), child(self, z));
                g.add(Val::Fma { a, b, c: z })
            }
            Val::Where { cond, a, b } => {
                let (cond, a, b) = (child(self, cond), child(self, a), child(self, b));
                g.add(Val::Where { cond, a, b })
            }
            Val::Cast { x, dtype } => {
                let x = child(self, x);
                g.add(Val::Cast { x, dtype })
            }
            Val::Bitcast { x, dtype } => {
                let x = child(self, x);
                g.add(Val::Bitcast { x, dtype })
            }
            Val::Reduce { op, ranges, order, fused, x } => {
                let x = child(self, x);
                g.add(Val::Reduce { op, ranges, order, fused, x })
            }
        }
    }

    /// The value at a point of several ranges.
    pub fn at_point(&mut self, g: &mut Graph, v: ValId, point: &[(RangeId, i64)]) -> ValId {
        point.iter().fold(v, |v, &(r, c)| self.at(g, v, r, c))
    }

    /// Expands the reductions of a value whose ranges are all unrolled.
    pub fn expand(&mut self, g: &mut Graph, v: ValId, unrolled: &[RangeId]) -> ValId {
        let mut stack = vec![(v, false)];
        while let Some((v, ready)) = stack.pop() {
            if self.expanded.contains_key(&v) {
                continue;
            }
            if !ready {
                stack.push((v, true));
                stack.extend(g.operands(v).rev().map(|c| (c, false)));
                continue;
            }
            let mut memo = std::mem::take(&mut self.expanded);
            // Operands are in the memo: this rebuilds one node.
            let new = g.rebuild(v, &mut memo, &mut |g, val| match val {
                Val::Reduce { op, ranges, fused, x, .. } if ranges.iter().all(|r| unrolled.contains(r)) => {
                    self.chain(g, op, &ranges, fused, x)
                }
                other => g.add(other),
            });
            self.expanded = memo;
            self.expanded.insert(v, new);
        }
        self.expanded[&v]
    }

    fn chain(&mut self, g: &mut Graph, op: ReduceOp, ranges: &[RangeId], fused: bool, x: ValId) -> ValId {
        if let Some(v) = self.matrix_row(g, op, ranges, fused, x) {
            return v;
        }
        let mut acc: Option<ValId> = None;
        for point in points(g, ranges) {
            let term = self.at_point(g, x, &point);
            acc = Some(match (acc, g.val(term)) {
                (None, _) => term,
                (Some(acc), &Val::Binary { op: BinaryOp::Mul, a, b }) if op == ReduceOp::Add && fused && self.fma => {
                    g.add(Val::Fma { a, b, c: acc })
                }
                (Some(acc), _) => g.binary(op.combine(), acc, term),
            });
        }
        acc.unwrap_or_else(|| {
            let identity = op.identity(g.dtype(x));
            g.constant(identity)
        })
    }

    /// `sum over k of T[i, k] * v(k)` with a constant table and a constant row.
    fn matrix_row(&mut self, g: &mut Graph, op: ReduceOp, ranges: &[RangeId], fused: bool, x: ValId) -> Option<ValId> {
        let ([k], ReduceOp::Add, true) = (ranges, op, fused) else { return None };
        let Val::Binary { op: BinaryOp::Mul, a, b } = *g.val(x) else { return None };
        for (table, vector) in [(a, b), (b, a)] {
            let Val::Load { src: Source::Table(t), index, gate, .. } = g.val(table).clone() else { continue };
            let ([row, column], true) = (&index[..], gate.is_empty()) else { continue };
            let (Some(row), Some((1, rest))) = (g.ints.as_const(*row), g.ints.split_linear(*column, *k)) else {
                continue;
            };
            if g.ints.as_const(rest) != Some(0) {
                continue;
            }
            let table = g.table(t);
            let width = table.shape[1];
            if g.ints.const_size(*k) != Some(width as i64) {
                continue;
            }
            let rows: Vec<Vec<Scalar>> = table.values.chunks(width).map(<[Scalar]>::to_vec).collect();
            let k = *k;
            return Some(emit_row(g, &rows, row as usize, self.fma, &mut |g, c| self.at(g, vector, k, c as i64)));
        }
        None
    }
}

/// All points of some ranges of constant size, the last one fastest.
pub fn points(g: &Graph, ranges: &[RangeId]) -> Vec<Vec<(RangeId, i64)>> {
    let mut out = vec![Vec::new()];
    for &r in ranges {
        let size = g.ints.const_size(r).unwrap_or(0);
        out = out
            .into_iter()
            .flat_map(|p: Vec<(RangeId, i64)>| {
                (0..size).map(move |c| {
                    let mut p = p.clone();
                    p.push((r, c));
                    p
                })
            })
            .collect();
    }
    out
}
