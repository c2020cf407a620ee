//! Verifies an indexed graph.
//!
//! # Invariants
//! - `integers`: no expression overflowed.
//! - `buffers`: names are unique, sizes are at least 0 and depend on no range, at most 2^60 elements; a layout, where
//!   there is one, maps every index into `0..len`, and the caller's buffers are row-major.
//! - `tables`: as many elements as the shape says, all of the dtype.
//! - `order`: each output and each buffer that is read is defined once and before its readers; inputs are not.
//! - `axes`: a definition has one range per axis, each once, of the axis's size.
//! - `bound`: a range is bound once on the way to a value. A definition that sits under ranges has readers, all of them
//!   under those ranges, and is no output.
//! - `types`: operands fit their operation.
//! - `bounds`: every index of every load is in `0..size` wherever its gate holds. A dynamic axis is clamped; it must
//!   have an element to be clamped to.

use super::sits_under::SitsUnder;
use super::{MAX_ELEMENTS, VerifyError, check_layout, check_table, known, nonempty, prove_index, refuse, same};
use crate::DType;
use crate::indexed::{BufId, Def, Graph, Layout, Origin, Source, Val, ValId};
use crate::int::{IntId, Ints, RangeId};
use rustc_hash::{FxHashMap, FxHashSet};
use std::rc::Rc;

/// Checks the invariants at the top of this file.
///
/// # Errors
/// The first invariant that does not hold.
pub fn verify(graph: &Graph) -> Result<(), VerifyError> {
    if graph.ints.overflowed() {
        return refuse("integers", "graph", "an expression overflowed");
    }
    let mut v = Verifier {
        g: graph,
        ints: graph.ints.clone(),
        proved: FxHashSet::default(),
        bound: FxHashMap::default(),
        defined: vec![false; graph.buffers.len()],
        read: vec![false; graph.buffers.len()],
    };
    v.buffers()?;
    for (i, t) in graph.tables.iter().enumerate() {
        if let Err(why) = check_table(t) {
            return refuse("tables", &format!("table {i}"), why);
        }
    }
    for def in &graph.defs {
        v.def(def)?;
    }
    v.under()?;
    for (i, b) in graph.buffers.iter().enumerate() {
        if matches!(b.origin, Origin::Output(_)) && !v.defined[i] {
            return refuse("order", &b.name, "an output without definition");
        }
    }
    if v.ints.overflowed() {
        return refuse("integers", "graph", "an expression overflowed");
    }
    Ok(())
}

struct Verifier<'a> {
    g: &'a Graph,
    ints: Ints,
    /// Values that have been checked.
    proved: FxHashSet<ValId>,
    /// Ranges that reductions in a value bind.
    bound: FxHashMap<ValId, Rc<[RangeId]>>,
    defined: Vec<bool>,
    read: Vec<bool>,
}

impl Verifier<'_> {
    fn buffers(&mut self) -> Result<(), VerifyError> {
        let mut names = FxHashSet::default();
        for (i, b) in self.g.buffers.iter().enumerate() {
            if !names.insert(&b.name) {
                return refuse("buffers", &b.name, "the name is taken");
            }
            let mut elements = 1i128;
            for &s in &b.shape {
                if !known(&self.ints, s) || !self.ints.free_ranges(s).is_empty() {
                    return refuse("buffers", &b.name, "a size is unknown or depends on ranges");
                }
                if !self.ints.prove_nonneg(s, &[]) {
                    return refuse("buffers", &b.name, "a size is not proved to be at least 0");
                }
                elements = elements.saturating_mul(self.ints.bounds(s).1 as i128);
            }
            if elements > MAX_ELEMENTS as i128 {
                return refuse("buffers", &b.name, "more than 2^60 elements");
            }
            if let Some(layout) = &b.layout {
                if let Err(why) = check_layout(&mut self.ints, &b.shape, layout) {
                    return refuse("buffers", &b.name, why);
                }
                if b.origin != Origin::Internal && *layout != Layout::row_major(&mut self.ints, &b.shape) {
                    return refuse("buffers", &b.name, "the caller's buffer is not row-major");
                }
            }
            self.defined[i] = matches!(b.origin, Origin::Argument(_) | Origin::Constant(_));
        }
        Ok(())
    }

    fn def(&mut self, def: &Def) -> Result<(), VerifyError> {
        let Some(b) = self.g.buffers.get(def.buffer.0 as usize) else {
            return refuse("order", "definitions", format!("{:?} does not exist", def.buffer));
        };
        if self.defined[def.buffer.0 as usize] {
            return refuse("order", &b.name, "an input, or defined twice");
        }
        if def.axes.len() != b.shape.len() {
            return refuse("axes", &b.name, format!("{} ranges for {} axes", def.axes.len(), b.shape.len()));
        }
        for (i, (&r, &size)) in def.axes.iter().zip(&b.shape).enumerate() {
            if def.axes[..i].contains(&r) || r.0 as usize >= self.ints.range_count() {
                return refuse("axes", &b.name, format!("range {} is used twice or unknown", r.0));
            }
            let found = self.ints.size(r);
            if !same(&mut self.ints, found, size) {
                return refuse("axes", &b.name, format!("the size of axis {i} is not that of range {}", r.0));
            }
        }
        if def.value.0 as usize >= self.g.val_count() || self.g.dtype(def.value) != b.dtype {
            return refuse("types", &b.name, format!("its value is unknown or not {}", b.dtype));
        }
        for v in self.g.topological(&[def.value]) {
            self.val(v, &b.name)?;
        }
        if let Some(r) = self.bound_in(def.value).iter().find(|r| def.axes.contains(r)) {
            return refuse("bound", &b.name, format!("a reduction binds range {}, an axis", r.0));
        }
        self.defined[def.buffer.0 as usize] = true;
        Ok(())
    }

    /// Checks that definitions under ranges are read, and only where the ranges are bound.
    fn under(&self) -> Result<(), VerifyError> {
        let under = SitsUnder::new(self.g);
        for def in &self.g.defs {
            let b = self.g.buffer(def.buffer);
            let Some(r) = under.def(def.buffer).first() else { continue };
            if matches!(b.origin, Origin::Output(_)) {
                return refuse("bound", &b.name, format!("an output sits under range {}", r.0));
            }
            if !self.read[def.buffer.0 as usize] {
                return refuse("bound", &b.name, format!("nothing binds range {}", r.0));
            }
            // A reader that does not bind the range sits under it as well, and so on to one that nobody reads.
            if let Some(r) = under.def(def.buffer).iter().find(|r| self.bound_in(def.value).contains(r)) {
                return refuse("bound", &b.name, format!("range {} is bound and free", r.0));
            }
        }
        Ok(())
    }

    fn bound_in(&self, v: ValId) -> &[RangeId] {
        self.bound.get(&v).map_or(&[], |r| r)
    }

    fn bind(&mut self, v: ValId, place: &str) -> Result<(), VerifyError> {
        let children = self.g.children(v);
        let mut all: Rc<[RangeId]> = children.first().and_then(|c| self.bound.get(c)).cloned().unwrap_or_default();
        for c in children.iter().skip(1) {
            let more = self.bound_in(*c);
            if more.iter().any(|r| !all.contains(r)) {
                let mut merged: Vec<RangeId> = all.iter().chain(more).copied().collect();
                merged.sort_unstable();
                merged.dedup();
                all = merged.into();
            }
        }
        if let Val::Reduce { ranges, .. } = self.g.val(v) {
            for (i, r) in ranges.iter().enumerate() {
                if r.0 as usize >= self.ints.range_count() || all.contains(r) || ranges[..i].contains(r) {
                    return refuse("bound", place, format!("range {} is unknown or bound twice", r.0));
                }
                let size = self.ints.size(*r);
                if !self.ints.free_ranges(size).is_empty() {
                    return refuse("bound", place, format!("the size of range {} depends on ranges", r.0));
                }
            }
            let mut merged: Vec<RangeId> = all.iter().chain(ranges.iter()).copied().collect();
            merged.sort_unstable();
            all = merged.into();
        }
        if !all.is_empty() {
            self.bound.insert(v, all);
        }
        Ok(())
    }

    fn val(&mut self, v: ValId, place: &str) -> Result<(), VerifyError> {
        if !self.proved.insert(v) {
            return Ok(());
        }
        self.bind(v, place)?;
        if let Err(why) = self.types(v) {
            return refuse("types", place, format!("{v:?}: {why}"));
        }
        if let Val::Load { src, index, gate, dynamic, .. } = self.g.val(v) {
            let (name, shape) = match *src {
                Source::Buffer(b) => {
                    self.reads(b, place)?;
                    (self.g.buffer(b).name.clone(), self.g.buffer(b).shape.clone())
                }
                Source::Table(t) => {
                    let shape = self.g.table(t).shape.iter().map(|&s| self.ints.constant(s as i64)).collect();
                    (format!("table {}", t.0), shape)
                }
            };
            let place = format!("{place}: {v:?} of `{name}`");
            self.load(&shape, index, gate, *dynamic, &place)?;
        }
        Ok(())
    }

    fn reads(&mut self, b: BufId, place: &str) -> Result<(), VerifyError> {
        if self.defined.get(b.0 as usize) != Some(&true) {
            return refuse("order", place, format!("{b:?} is read before its definition"));
        }
        self.read[b.0 as usize] = true;
        Ok(())
    }

    fn load(
        &mut self,
        shape: &[IntId],
        index: &[IntId],
        gate: &[IntId],
        dynamic: Option<(u32, ValId)>,
        place: &str,
    ) -> Result<(), VerifyError> {
        if index.len() != shape.len() {
            return refuse("bounds", place, format!("{} indices for {} axes", index.len(), shape.len()));
        }
        let mut given = gate.to_vec();
        nonempty(&mut self.ints, index, &mut given);
        nonempty(&mut self.ints, gate, &mut given);
        if dynamic.is_some_and(|d| d.0 as usize >= shape.len()) {
            return refuse("bounds", place, "a dynamic axis that does not exist");
        }
        for (axis, (&i, &size)) in index.iter().zip(shape).enumerate() {
            // A dynamic axis holds 0, to which the empty clamp would lead as well.
            if dynamic.is_some_and(|d| d.0 as usize == axis) && self.ints.as_const(i) != Some(0) {
                return refuse("bounds", place, format!("dynamic axis {axis} has an index"));
            }
            if let Err(why) = prove_index(&mut self.ints, i, size, &given) {
                return refuse("bounds", place, format!("axis {axis}: {why}"));
            }
        }
        Ok(())
    }

    fn types(&self, v: ValId) -> Result<(), String> {
        let t = |v: ValId| self.g.dtype(v);
        let of = t(v);
        let same = |what: &str, found: DType, wanted: DType| {
            if found == wanted { Ok(()) } else { Err(format!("{what} is {found}, wanted {wanted}")) }
        };
        match self.g.val(v) {
            Val::Const(_) => Ok(()),
            Val::Index { .. } if of == DType::Bool => Err("an index cannot be bool".to_string()),
            Val::Index { .. } => Ok(()),
            Val::Load { fill, dynamic, .. } => {
                same("fill", fill.dtype(), of)?;
                match dynamic {
                    Some((_, i)) if !t(*i).is_int() => Err(format!("a dynamic index is {}", t(*i))),
                    _ => Ok(()),
                }
            }
            Val::Unary { op, x } if !op.accepts(t(*x)) => Err(format!("{} of {}", op.name(), t(*x))),
            Val::Unary { .. } | Val::Cast { .. } => Ok(()),
            Val::Binary { op, a, .. } if !op.accepts(t(*a)) => Err(format!("{} of {}", op.name(), t(*a))),
            Val::Binary { a, b, .. } => same("the second operand", t(*b), t(*a)),
            Val::Fma { .. } if of == DType::Bool => Err("fma of bool".to_string()),
            Val::Fma { a, b, c } => [a, b, c].into_iter().try_for_each(|x| same("an operand", t(*x), of)),
            Val::Where { cond, a, b } => {
                same("the condition", t(*cond), DType::Bool)?;
                same("the second branch", t(*b), t(*a))
            }
            Val::Select { a, b, .. } => same("the second branch", t(*b), t(*a)),
            Val::Bitcast { x, dtype } if t(*x).size() != dtype.size() => {
                Err(format!("{} and {dtype} differ in size", t(*x)))
            }
            Val::Bitcast { .. } => Ok(()),
            Val::Reduce { op, x, .. } if !op.combine().accepts(t(*x)) => Err(format!("{} of {}", op.name(), t(*x))),
            Val::Reduce { .. } => Ok(()),
        }
    }
}
