//! A kernel before and while it is scheduled: one launch, in a graph of its own.

use rustc_hash::FxHashMap;
use winograph_ir::indexed::{BufId, Gate, Graph, Origin, Role, Source, Val, ValId};
use winograph_ir::int::{IntId, Ints, RangeId};
use winograph_ir::linear::LoopKind;
use winograph_ir::text::{NestStore, print_nest};

/// One launch: for all values of `loops`, `stores`.
///
/// The graph is the kernel's own: its buffers are what the kernel touches, in the order of `args`, and its ranges are
/// numbered by the kernel's structure, so that equal kernels are equal data.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Values, ranges and the buffers touched.
    pub graph: Graph,
    /// For each of the graph's buffers, which buffer of the program it is.
    pub args: Vec<BufId>,
    /// Ranges around the kernel, outermost first: a [`Launch`] binds them. A kernel that is a launch of its own has
    /// none.
    pub outer: Vec<RangeId>,
    /// Map ranges, outermost first.
    pub loops: Vec<RangeId>,
    /// What is written.
    pub stores: Vec<Store>,
    /// What the kernel computes.
    pub role: Role,
}

/// What is launched at once: kernels that run one after another under common loops.
///
/// A kernel sits under the first so many of the loops as it has [`outer`](Kernel::outer) ranges. Buffers that only
/// these kernels touch, of scope `scratch`, belong to one iteration of the loops around their writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The common loops, outermost first: grid loops, then serial ones.
    pub outer: Vec<LoopKind>,
    /// Places in the list of kernels, in the order in which they run.
    pub kernels: Vec<usize>,
    /// Loops of the host that it is repeated in.
    pub host: Option<HostLoops>,
}

/// Loops that span launches: those that follow each other in the same loops are repeated together. Each of their kernels
/// has a parameter for each loop, after the parameters of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLoops {
    /// Tells these loops from others.
    pub number: usize,
    /// Sizes, outermost first.
    pub sizes: Vec<i64>,
}

impl HostLoops {
    /// The values of the loops, in the order in which they run.
    pub fn values(&self) -> Vec<Vec<i64>> {
        let deeper = |all: Vec<Vec<i64>>, &size: &i64| -> Vec<Vec<i64>> {
            all.iter().flat_map(|v| (0..size).map(|i| [&v[..], &[i]].concat())).collect()
        };
        self.sizes.iter().fold(vec![Vec::new()], deeper)
    }
}

impl Launch {
    /// A kernel on its own.
    pub fn single(kernel: usize) -> Launch {
        Launch { outer: Vec::new(), kernels: vec![kernel], host: None }
    }
}

/// One element written per point of the loops.
#[derive(Clone, Debug)]
pub struct Store {
    /// A buffer of the kernel's graph.
    pub buffer: BufId,
    /// One index per axis of the buffer.
    pub index: Vec<IntId>,
    /// When it is written.
    pub gate: Gate,
    /// What is written.
    pub value: ValId,
}

impl Kernel {
    /// The values stored.
    pub fn roots(&self) -> Vec<ValId> {
        self.stores.iter().map(|s| s.value).collect()
    }

    /// The name of the buffer that it writes, the first of several.
    pub fn output_name(&self) -> String {
        self.stores.first().map(|s| self.graph.buffer(s.buffer).name.clone()).unwrap_or_default()
    }

    /// Every load of the kernel, each once, operands first.
    pub fn loads(&self) -> Vec<ValId> {
        self.graph
            .topological(&self.roots())
            .into_iter()
            .filter(|&v| matches!(self.graph.val(v), Val::Load { .. }))
            .collect()
    }

    /// Every reduction, operands first.
    pub fn reduces(&self) -> Vec<ValId> {
        self.graph
            .topological(&self.roots())
            .into_iter()
            .filter(|&v| matches!(self.graph.val(v), Val::Reduce { .. }))
            .collect()
    }

    /// The ranges that reductions bind, in the order of [`reduces`](Kernel::reduces).
    pub fn reduce_ranges(&self) -> Vec<RangeId> {
        let mut out: Vec<RangeId> = Vec::new();
        for v in self.reduces() {
            if let Val::Reduce { ranges, .. } = self.graph.val(v) {
                for &r in ranges.iter() {
                    if !out.contains(&r) {
                        out.push(r);
                    }
                }
            }
        }
        out
    }

    /// The kernel as text: its role, then [`print_nest`]'s form. The same kernel prints the same whatever its ids.
    pub fn text(&self) -> String {
        let stores: Vec<NestStore<'_>> = self
            .stores
            .iter()
            .map(|s| NestStore { buffer: s.buffer, index: &s.index, gate: &s.gate, value: s.value })
            .collect();
        format!("kernel {}\n{}", self.role.name(), print_nest(&self.graph, &self.outer, &self.loops, &stores))
    }

    /// An access that is not proved in bounds, in words; axes looked up by data are clamped and need no proof.
    pub fn unproved(&self) -> Option<String> {
        let mut ints = self.graph.ints.clone();
        let mut check = |what: &str, buffer: BufId, index: &[IntId], gate: &[IntId]| {
            let b = self.graph.buffer(buffer);
            (!in_bounds(&mut ints, &b.shape, index, gate))
                .then(|| format!("a {what} of {} is not proved in bounds", b.name))
        };
        for s in &self.stores {
            if let Some(found) = check("store", s.buffer, &s.index, &s.gate) {
                return Some(found);
            }
        }
        for v in self.loads() {
            if let Val::Load { src: Source::Buffer(b), index, gate, .. } = self.graph.val(v)
                && let Some(found) = check("load", *b, index, gate)
            {
                return Some(found);
            }
        }
        None
    }

    /// Replaces ranges by expressions of new ones everywhere. `bound` gives the ranges that take the place of a
    /// reduce range. Conditions in `guard` are added to the gates of stores, and of loads that are not in bounds
    /// without them.
    pub fn replace_ranges(
        &mut self,
        map: &FxHashMap<RangeId, IntId>,
        bound: &FxHashMap<RangeId, Vec<RangeId>>,
        guard: &[IntId],
    ) {
        let f = |r: RangeId| map.get(&r).copied();
        let mut ints = FxHashMap::default();
        let mut memo = FxHashMap::default();
        for n in 0..self.stores.len() {
            let store = self.stores[n].clone();
            let g = &mut self.graph;
            let value = g.rebuild(store.value, &mut memo, &mut |g, val| match val {
                Val::Index { value, dtype } => {
                    let value = g.ints.substitute_memo(value, &f, &mut ints);
                    g.add(Val::Index { value, dtype })
                }
                Val::Load { src, index, gate, fill, dynamic } => {
                    let index: Vec<IntId> = index.iter().map(|&i| g.ints.substitute_memo(i, &f, &mut ints)).collect();
                    let gate: Vec<IntId> = gate.iter().map(|&i| g.ints.substitute_memo(i, &f, &mut ints)).collect();
                    let gate = guarded(g, src, &index, gate, guard);
                    match g.ints.conjunction(&gate) {
                        None => g.constant(fill),
                        Some(gate) => g.add(Val::Load { src, index: index.into(), gate, fill, dynamic }),
                    }
                }
                Val::Select { gate, a, b } => {
                    let gate: Vec<IntId> = gate.iter().map(|&i| g.ints.substitute_memo(i, &f, &mut ints)).collect();
                    g.select(&gate, a, b)
                }
                Val::Reduce { op, ranges, order, fused, x } => {
                    let ranges: Vec<RangeId> =
                        ranges.iter().flat_map(|r| bound.get(r).cloned().unwrap_or_else(|| vec![*r])).collect();
                    g.add(Val::Reduce { op, ranges: ranges.into(), order, fused, x })
                }
                other => g.add(other),
            });
            let g = &mut self.graph;
            let index = store.index.iter().map(|&i| g.ints.substitute_memo(i, &f, &mut ints)).collect();
            let mut gate: Vec<IntId> = store.gate.iter().map(|&i| g.ints.substitute_memo(i, &f, &mut ints)).collect();
            gate.extend(guard);
            // A gate that can never hold leaves nothing to store; an impossible condition says so.
            let gate = g.ints.conjunction(&gate).unwrap_or_else(|| [g.ints.constant(-1)].into());
            self.stores[n] = Store { buffer: store.buffer, index, gate, value };
        }
    }
}

/// The gate of an access with those conditions of `guard` added without which it is not proved in bounds. Where these
/// are not enough for the proof, the bounds themselves are conditions: the access is one that stays in them wherever
/// `gate` and `guard` hold.
pub fn guarded(g: &mut Graph, src: Source, index: &[IntId], gate: Vec<IntId>, guard: &[IntId]) -> Vec<IntId> {
    let Source::Buffer(b) = src else { return gate };
    if (guard.is_empty() && gate.is_empty()) || in_bounds(&mut g.ints, &g.buffers[b.0 as usize].shape, index, &gate) {
        return gate;
    }
    let mut ranges: Vec<RangeId> = index.iter().flat_map(|&i| g.ints.free_ranges(i)).copied().collect();
    ranges.sort_unstable();
    let mut gate = gate;
    gate.extend(guard.iter().filter(|&&c| g.ints.free_ranges(c).iter().any(|r| ranges.contains(r))));
    let shape = g.buffers[b.0 as usize].shape.clone();
    with_bounds(&mut g.ints, &shape, index, gate)
}

/// A gate with those bounds of an access added that it does not prove.
pub fn with_bounds(ints: &mut Ints, shape: &[IntId], index: &[IntId], mut gate: Vec<IntId>) -> Vec<IntId> {
    for (&i, &size) in index.iter().zip(shape) {
        let room = ints.sum(&[(size, 1), (i, -1)], -1);
        for bound in [i, room] {
            if !ints.prove_nonneg(bound, &gate) {
                gate.push(bound);
            }
        }
    }
    gate
}

/// Whether every index is proved to lie within its axis where the gate holds.
pub fn in_bounds(ints: &mut Ints, shape: &[IntId], index: &[IntId], gate: &[IntId]) -> bool {
    index.iter().zip(shape).all(|(&i, &size)| {
        let room = ints.sum(&[(size, 1), (i, -1)], -1);
        ints.prove_nonneg(i, gate) && ints.prove_nonneg(room, gate)
    })
}

/// Which kernels depend on constants alone, and write no output: they are prepared. Of several that write parts of one buffer
/// all are, or none.
pub fn constant_kernels(kernels: &[Kernel]) -> Vec<bool> {
    let written = |k: &Kernel| k.stores.iter().map(|s| k.args[s.buffer.0 as usize]).collect::<Vec<BufId>>();
    let mut alone: Vec<bool> = vec![true; kernels.len()];
    loop {
        let constant = constant_beside(kernels, &alone);
        let (mut of, mut differ) = (FxHashMap::default(), false);
        for (k, &c) in kernels.iter().zip(&constant) {
            written(k).into_iter().for_each(|b| *of.entry(b).or_insert(true) &= c);
        }
        for ((k, &c), alone) in kernels.iter().zip(&constant).zip(&mut alone) {
            if c && written(k).iter().any(|b| !of[b]) {
                (*alone, differ) = (false, true);
            }
        }
        if !differ {
            return constant;
        }
    }
}

/// Which kernels depend on constants alone among those that `may`.
fn constant_beside(kernels: &[Kernel], may: &[bool]) -> Vec<bool> {
    let mut known: FxHashMap<BufId, bool> = FxHashMap::default();
    kernels
        .iter()
        .zip(may)
        .map(|(k, may)| {
            let (mut reads_any, mut all) = (false, true);
            let written: Vec<BufId> = k.stores.iter().map(|s| s.buffer).collect();
            for (i, b) in k.graph.buffers.iter().enumerate().filter(|(i, _)| !written.contains(&BufId(*i as u32))) {
                reads_any = true;
                all &= match b.origin {
                    Origin::Constant(_) => true,
                    Origin::Internal => known.get(&k.args[i]).copied().unwrap_or(false),
                    _ => false,
                };
            }
            let to_output = written.iter().any(|&b| matches!(k.graph.buffer(b).origin, Origin::Output(_)));
            let constant = reads_any && all && !to_output && *may;
            for b in &written {
                *known.entry(k.args[b.0 as usize]).or_insert(true) &= constant;
            }
            constant
        })
        .collect()
}
