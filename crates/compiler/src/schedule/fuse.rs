//! `fuse`: which stages stay.
//!
//! Takes an indexed graph in which every reduction and every tensor that is read in several ways is a definition of
//! its own; leaves only those whose removal would cost more than it saves, with a reason for each. Removing a stage puts
//! its value in place of every load of it.

use rustc_hash::FxHashMap;
use std::collections::BTreeSet;
use winograph_ir::indexed::{BufId, Graph, Origin, Role, Source, Val, ValId};
use winograph_ir::int::{IntId, RangeId};

/// Operations that may be repeated per read rather than stored and loaded again. A store and a load that leave the
/// cache cost about this many vector operations on the machines measured.
const CHEAP_OPS: usize = 8;

/// How often a sum's inner loop uses a value that it has loaded, at least: it computes several outputs at a time. What is
/// repeated for each load is repeated that much less often than for each term.
const TERMS_PER_LOAD: f64 = 6.0;

/// Operations that a lookup by index values costs, beside those of its index: the lanes of a vector one by one.
const LOOKUP_OPS: usize = 8;

/// What was decided about one stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The stage's buffer.
    pub stage: String,
    /// Whether it stays.
    pub kept: bool,
    /// Why.
    pub reason: String,
}

/// Who reads what, kept up while values change: looking through all definitions for each would take their number
/// squared.
struct Readers {
    /// Buffers that each definition loads from.
    reads: Vec<Vec<BufId>>,
    /// Definitions that load from each buffer.
    of: FxHashMap<BufId, BTreeSet<usize>>,
}

impl Readers {
    fn new(g: &Graph) -> Readers {
        let mut out = Readers { reads: vec![Vec::new(); g.defs.len()], of: FxHashMap::default() };
        (0..g.defs.len()).for_each(|i| out.look(g, i));
        out
    }

    /// Looks at a definition's value again.
    fn look(&mut self, g: &Graph, def: usize) {
        self.forget(def);
        let source = |v| match g.val(v) {
            Val::Load { src: Source::Buffer(b), .. } => Some(*b),
            _ => None,
        };
        let mut read: Vec<BufId> = g.topological(&[g.defs[def].value]).into_iter().filter_map(source).collect();
        read.sort_unstable();
        read.dedup();
        for &b in &read {
            self.of.entry(b).or_default().insert(def);
        }
        self.reads[def] = read;
    }

    /// A definition is gone.
    fn forget(&mut self, def: usize) {
        for b in std::mem::take(&mut self.reads[def]) {
            if let Some(of) = self.of.get_mut(&b) {
                of.remove(&def);
            }
        }
    }

    /// The definitions after `def` that load from a buffer.
    fn after(&self, def: usize, buffer: BufId) -> Vec<usize> {
        self.of.get(&buffer).map_or_else(Vec::new, |of| of.range(def + 1..).copied().collect())
    }
}

/// Removes stages by cost and definitions that nothing reads.
pub fn fuse(g: &mut Graph) -> Vec<Decision> {
    let mut decisions = Vec::new();
    let mut readers_of = Readers::new(g);
    let mut gone = vec![false; g.defs.len()];
    let is_output = |g: &Graph, i: usize| matches!(g.buffer(g.defs[i].buffer).origin, Origin::Output(_));
    let dead = |g: &Graph, i: usize| Decision {
        stage: g.buffer(g.defs[i].buffer).name.clone(),
        kept: false,
        reason: "nothing reads it".to_string(),
    };
    // Readers first: what only dead definitions read is dead too.
    for i in (0..g.defs.len()).rev() {
        if !is_output(g, i) && readers_of.after(i, g.defs[i].buffer).is_empty() {
            decisions.push(dead(g, i));
            readers_of.forget(i);
            gone[i] = true;
        }
    }
    // Producers first, so that a chain collapses into its last reader; each removal changes the readers' values.
    let mut i = 0;
    while i < g.defs.len() {
        let buffer = g.defs[i].buffer;
        if gone[i] || is_output(g, i) {
            i += 1;
            continue;
        }
        let stage = g.buffer(buffer).name.clone();
        let readers = readers_of.after(i, buffer);
        if readers.is_empty() {
            // Its loads were under conditions that hold nowhere.
            decisions.push(dead(g, i));
            readers_of.forget(i);
            gone[i] = true;
            // What it alone read is dead too; those definitions come before it.
            i = 0;
            decisions.retain(|d| !d.kept);
            continue;
        }
        let verdict = if g.defs[i].keep {
            Err("materialised by request of the graph or a rewrite".to_string())
        } else {
            removable(g, i, &readers)
        };
        match verdict {
            Ok(reason) => {
                readers_of.forget(i);
                for &j in &readers {
                    inline(g, i, j);
                    readers_of.look(g, j);
                }
                let role = g.defs[i].role;
                for &j in &readers {
                    if g.defs[j].role == Role::Other {
                        g.defs[j].role = role;
                    }
                }
                gone[i] = true;
                decisions.push(Decision { stage, kept: false, reason });
            }
            Err(reason) => decisions.push(Decision { stage, kept: true, reason }),
        }
        i += 1;
    }
    let mut gone = gone.into_iter();
    g.defs.retain(|_| !gone.next().unwrap_or(false));
    decisions
}

pub(super) fn loads_of(g: &Graph, value: ValId, buffer: BufId) -> impl Iterator<Item = ValId> + '_ {
    g.topological(&[value])
        .into_iter()
        .filter(move |&v| matches!(g.val(v), Val::Load { src: Source::Buffer(b), .. } if *b == buffer))
}

/// Whether a stage can go and why, or why it stays.
fn removable(g: &Graph, stage: usize, readers: &[usize]) -> Result<String, String> {
    let def = &g.defs[stage];
    let nodes = g.topological(&[def.value]);
    let ops = nodes
        .iter()
        .filter(|&&v| !matches!(g.val(v), Val::Const(_) | Val::Index { .. } | Val::Load { .. }))
        .map(|&v| match g.val(v) {
            Val::Unary { op, .. } if op.is_transcendental() => 16,
            // Loads convert, matrix units take the narrow floats, and stored wide they take more memory.
            Val::Cast { x, dtype }
                if g.dtype(*x).is_float() && dtype.is_float() && g.dtype(*x).size() < dtype.size() =>
            {
                0
            }
            _ => 1,
        })
        .sum::<usize>();
    let lookups = nodes.iter().filter(|&&v| matches!(g.val(v), Val::Load { dynamic: Some(_), .. })).count();
    let reduces = nodes.iter().any(|&v| matches!(g.val(v), Val::Reduce { .. }));
    let mut reads = Vec::new();
    for &j in readers {
        for v in loads_of(g, g.defs[j].value, def.buffer) {
            if matches!(g.val(v), Val::Load { dynamic: Some(_), .. }) {
                return Err("it is looked up by index values".to_string());
            }
            reads.push((j, v));
        }
    }
    if reduces {
        let [(reader, load)] = reads[..] else {
            return Err(format!(
                "a reduction that is read in {} ways: repeating it costs more than storing it",
                reads.len()
            ));
        };
        let consumer = &g.defs[reader];
        let Val::Load { index, .. } = g.val(load) else { return Err("not a load".to_string()) };
        let mut used: Vec<RangeId> = index.iter().flat_map(|&i| g.ints.free_ranges(i)).copied().collect();
        used.sort_unstable();
        used.dedup();
        if used.iter().any(|r| !consumer.axes.contains(r)) {
            return Err("a reduction read inside another one: each element would be summed again".to_string());
        }
        if consumer.axes.iter().any(|r| g.ints.const_size(*r) != Some(1) && !used.contains(r)) {
            return Err("a reduction that is broadcast: each element would be summed again".to_string());
        }
        // Beside other parts of a concatenation, or within a border, it is read under a condition.
        if elements(g, &consumer.axes) > elements(g, &def.axes) {
            return Err(
                "a reduction that some elements of its reader read: it would be summed for all of them".to_string()
            );
        }
        if nodes.len() > 4000 {
            return Err("its value is large".to_string());
        }
        if g.topological(&[consumer.value]).iter().any(|&v| matches!(g.val(v), Val::Reduce { .. })) {
            return Err("its reader reduces too: the two have loops of their own".to_string());
        }
        return Ok("its only reader reads each element once".to_string());
    }
    let repeats = reads.len();
    if repeats == 1 && !inside_reduction(g, g.defs[reads[0].0].value, reads[0].1) {
        return Ok("elementwise with one reader that reads each element at most once per result".to_string());
    }
    // A transform takes each element into one or a few tiles, and shares what it loads between their places.
    let transform = |j: usize| g.defs[j].role == Role::InputTransform;
    let summed = reads.iter().filter(|&&(j, v)| !transform(j) && inside_reduction(g, g.defs[j].value, v));
    let terms = summed.map(|&(j, v)| terms_of(g, j, v)).fold(0.0, f64::max) / elements(g, &def.axes);
    let work = (ops + LOOKUP_OPS * lookups) as f64;
    if work * terms / TERMS_PER_LOAD > CHEAP_OPS as f64 {
        return Err(format!("{work} operations for each of {terms} terms: storing the result costs less"));
    }
    if ops <= CHEAP_OPS {
        return Ok(format!("{ops} operations: repeating them costs less than storing and loading the result"));
    }
    Err(format!("{ops} operations read in {repeats} ways: storing the result costs less than repeating them"))
}

/// Number of elements of axes (with parameters: at their greatest sizes).
fn elements(g: &Graph, axes: &[RangeId]) -> f64 {
    axes.iter().map(|&r| g.ints.max_size(r).max(1) as f64).product()
}

/// How often a definition evaluates one of its loads: for each of its elements, and for each term of the reductions
/// around the load.
fn terms_of(g: &Graph, def: usize, load: ValId) -> f64 {
    let around = |v: &ValId| match g.val(*v) {
        Val::Reduce { x, ranges, .. } if g.topological(&[*x]).contains(&load) => elements(g, ranges),
        _ => 1.0,
    };
    elements(g, &g.defs[def].axes) * g.topological(&[g.defs[def].value]).iter().map(around).product::<f64>()
}

/// Whether some reduction of a definition contains the load and so may evaluate it many times.
fn inside_reduction(g: &Graph, value: ValId, load: ValId) -> bool {
    g.topological(&[value])
        .into_iter()
        .any(|v| matches!(g.val(v), Val::Reduce { x, .. } if g.topological(&[*x]).contains(&load)))
}

/// Puts the value of one definition in place of the loads of its buffer in another.
pub(super) fn inline(g: &mut Graph, stage: usize, reader: usize) {
    let def = g.defs[stage].clone();
    let mut memo = FxHashMap::default();
    let value = g.defs[reader].value;
    let value = g.rebuild(value, &mut memo, &mut |g, val| match val {
        Val::Load { src: Source::Buffer(b), index, gate, fill, dynamic: None } if b == def.buffer => {
            value_at(g, &def.axes, def.value, &index, &gate, fill)
        }
        other => g.add(other),
    });
    g.defs[reader].value = value;
}

/// The value of a definition at an index, as a load under a gate would see it.
fn value_at(
    g: &mut Graph,
    axes: &[RangeId],
    value: ValId,
    index: &[IntId],
    gate: &[IntId],
    fill: winograph_ir::Scalar,
) -> ValId {
    let map: FxHashMap<RangeId, IntId> = axes.iter().copied().zip(index.iter().copied()).collect();
    let v = g.substitute(value, &|r| map.get(&r).copied());
    if gate.is_empty() {
        return v;
    }
    let mut memo = FxHashMap::default();
    let v = g.rebuild(v, &mut memo, &mut |g, val| match val {
        Val::Load { src, index, gate: own, fill, dynamic } => {
            let all: Vec<IntId> = own.iter().chain(gate).copied().collect();
            match g.ints.conjunction(&all) {
                None => g.constant(fill),
                Some(gate) => g.add(Val::Load { src, index, gate, fill, dynamic }),
            }
        }
        other => g.add(other),
    });
    if let Val::Load { fill: f, gate: own, src, index, dynamic } = g.val(v).clone() {
        if f == fill {
            return v;
        }
        if *own == *gate {
            return g.add(Val::Load { src, index, gate: own, fill, dynamic });
        }
    }
    let other = g.constant(fill);
    g.select(gate, v, other)
}
