//! `nest`: products with constant matrices, one inside of the other.
//!
//! Takes a graph after `fuse`; leaves it without the stages between a product with a constant matrix and another one
//! along another axis. Ranges of constant matrices are expanded, so in one iteration of the reader's other loops each of
//! the stage's elements is still computed once, and stays in a register. On a GPU, where a stage is a launch, that is a
//! launch and a pass over memory less for each axis of a transform that was written axis by axis.

use super::fuse::{Decision, inline, loads_of};
use winograph_ir::indexed::{Def, Graph, Origin, Source, Val, ValId};
use winograph_ir::int::{IntNode, RangeId};

/// Most multiplications that two constant matrices, one inside of the other, may expand to.
const MAX_EXPANDED: i64 = 1 << 14;

/// Removes such stages and says so in what `fuse` decided about them.
pub fn nest(g: &mut Graph, decisions: &mut [Decision]) {
    let mut i = 0;
    while i < g.defs.len() {
        let def = &g.defs[i];
        let own = !def.keep && matches!(g.buffer(def.buffer).origin, Origin::Internal);
        let reads: Vec<(usize, ValId)> = (i + 1..g.defs.len())
            .filter(|_| own)
            .flat_map(|j| loads_of(g, g.defs[j].value, def.buffer).map(move |v| (j, v)))
            .collect();
        match reads[..] {
            [(reader, load)] if nests(g, def.value, &g.defs[reader], load) => {
                let stage = g.buffer(def.buffer).name.clone();
                inline(g, i, reader);
                g.defs.remove(i);
                if let Some(d) = decisions.iter_mut().find(|d| d.stage == stage) {
                    d.kept = false;
                    d.reason =
                        "a product with a constant matrix inside of another one: its elements stay in registers".into();
                }
            }
            _ => i += 1,
        }
    }
}

/// Whether a value and its only reader multiply by constant matrices alone, and the reader, those expanded, needs each of
/// its elements once.
fn nests(g: &Graph, value: ValId, reader: &Def, load: ValId) -> bool {
    let Val::Load { index, gate, dynamic: None, .. } = g.val(load) else { return false };
    let (own, outer) = (table_ranges(g, value), table_ranges(g, reader.value));
    let sums_alone = |value: ValId, tables: &[RangeId]| {
        let mut any = false;
        g.topological(&[value]).iter().all(|&v| match g.val(v) {
            Val::Reduce { ranges, .. } => {
                any = true;
                ranges.iter().all(|r| tables.contains(r))
            }
            _ => true,
        }) && any
    };
    if !gate.is_empty() || !sums_alone(value, &own) || !sums_alone(reader.value, &outer) {
        return false;
    }
    // Whole ranges, or quotients and remainders by a constant: each of them once, so that no element is read twice.
    let (mut seen, mut used) = (Vec::new(), Vec::new());
    for &i in index.iter() {
        let part = match *g.ints.node(i) {
            IntNode::Const(_) => continue,
            IntNode::Range(r) => (r, 0),
            IntNode::Div { num, den } | IntNode::Mod { num, den } => {
                let sign = if matches!(g.ints.node(i), IntNode::Div { .. }) { 1 } else { -1 };
                match (g.ints.node(num), g.ints.as_const(den)) {
                    (IntNode::Range(r), Some(d)) => (*r, sign * d),
                    _ => return false,
                }
            }
            _ => return false,
        };
        if seen.contains(&part) {
            return false;
        }
        if part.1 == 0 || seen.contains(&(part.0, -part.1)) {
            used.push(part.0);
        }
        seen.push(part);
    }
    let repeated = |r: &&RangeId| g.ints.const_size(**r) != Some(1) && !used.contains(r);
    let size = |ranges: &[RangeId]| ranges.iter().map(|&r| g.ints.max_size(r).max(1)).fold(1i64, i64::saturating_mul);
    reader.axes.iter().filter(repeated).all(|r| outer.contains(r))
        && size(&own).saturating_mul(size(&outer)) <= MAX_EXPANDED
}

/// The ranges of a value that index constant tables.
fn table_ranges(g: &Graph, value: ValId) -> Vec<RangeId> {
    let mut out = Vec::new();
    for v in g.topological(&[value]) {
        if let Val::Load { src: Source::Table(_), index, .. } = g.val(v) {
            out.extend(index.iter().flat_map(|&i| g.ints.free_ranges(i)).copied());
        }
    }
    out.sort_unstable();
    out.dedup();
    out
}
