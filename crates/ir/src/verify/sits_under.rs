//! Which ranges values and definitions sit under, those of the stages that they load included.

use crate::indexed::{BufId, Graph, Source, Val, ValId};
use crate::int::RangeId;
use rustc_hash::FxHashMap;
use std::rc::Rc;

/// Ranges per value and per definition, sorted.
#[derive(Debug, Default)]
pub(crate) struct SitsUnder {
    vals: FxHashMap<ValId, Rc<[RangeId]>>,
    defs: FxHashMap<BufId, Rc<[RangeId]>>,
}

impl SitsUnder {
    /// Goes through the definitions in order; a buffer that is read before its definition counts as under nothing.
    pub(crate) fn new(g: &Graph) -> SitsUnder {
        let mut out = SitsUnder::default();
        for d in &g.defs {
            for v in g.topological(&[d.value]) {
                out.add(g, v);
            }
            let under = out.val(d.value).iter().copied().filter(|r| !d.axes.contains(r)).collect();
            out.defs.insert(d.buffer, under);
        }
        out
    }

    fn add(&mut self, g: &Graph, v: ValId) {
        if self.vals.contains_key(&v) {
            return;
        }
        let mut ranges = g.free_ranges(v).to_vec();
        for c in g.children(v) {
            ranges.extend(self.val(c));
        }
        match g.val(v) {
            Val::Load { src: Source::Buffer(b), .. } => ranges.extend(self.def(*b)),
            Val::Reduce { ranges: bound, .. } => ranges.retain(|r| !bound.contains(r)),
            _ => {}
        }
        ranges.sort_unstable();
        ranges.dedup();
        self.vals.insert(v, ranges.into());
    }

    /// The ranges that a value depends on, itself or through the stages it loads.
    pub(crate) fn val(&self, v: ValId) -> &[RangeId] {
        self.vals.get(&v).map_or(&[], |r| r)
    }

    /// The ranges that a definition sits under.
    pub(crate) fn def(&self, b: BufId) -> &[RangeId] {
        self.defs.get(&b).map_or(&[], |r| r)
    }
}
