//! `rangeify`: tensor graph -> indexed graph.
//!
//! Takes a [`TensorGraph`]; leaves a [`Graph`] without movement operations: each one has become a line of index
//! arithmetic, masks included. A tensor that is read in more than one way or many times by one sum, reduced, or materialised
//! by request gets a definition of its own (a stage); whether it keeps it is decided later, by `fuse`.

use crate::kernel::with_bounds;
use crate::provenance::Notes;
use crate::winograd::Rules;
use rustc_hash::{FxHashMap, FxHashSet};
use winograph_ir::indexed::{BufId, Buffer, Def, Graph, Origin, Role, Scope, Source, Table, Val, ValId};
use winograph_ir::int::{IntId, RangeId, RangeRole};
use winograph_ir::tensor::{InputKind, NodeId, TensorGraph, TensorOp};
use winograph_ir::{DType, Scalar};

/// Longest chain of operations that becomes one value; a longer one is cut by a stage.
const MAX_DEPTH: u32 = 200;

struct Rangeify<'a> {
    tensors: &'a TensorGraph,
    graph: Graph,
    buffer_of: FxHashMap<NodeId, BufId>,
    /// Tensors that turned out to be no more than another way to read a buffer: axes and the load.
    views: FxHashMap<NodeId, (Vec<RangeId>, ValId)>,
    memo: FxHashMap<(NodeId, Vec<IntId>, Vec<IntId>), ValId>,
    rules: Rules,
    notes: Notes,
}

/// Turns a tensor graph into an indexed one; its inputs become buffers in order of their slots.
pub fn rangeify(tensors: &TensorGraph) -> Graph {
    ranged(tensors).graph
}

/// [`rangeify`], and what is asked of sums, by their reduce ranges.
pub fn rangeify_ruled(tensors: &TensorGraph) -> (Graph, Rules) {
    let ranged = ranged(tensors);
    (ranged.graph, ranged.rules)
}

/// An indexed graph, and what is known beside it.
pub(crate) struct Ranged {
    pub(crate) graph: Graph,
    /// What is asked of sums, by their reduce ranges.
    pub(crate) rules: Rules,
    /// What the tensor graph notes of the definitions.
    pub(crate) notes: Notes,
}

/// [`rangeify`], with all that is known beside the graph.
pub(crate) fn ranged(tensors: &TensorGraph) -> Ranged {
    let mut graph = Graph::new();
    graph.ints = tensors.ints.clone();
    let mut pass = Rangeify {
        tensors,
        graph,
        buffer_of: FxHashMap::default(),
        views: FxHashMap::default(),
        memo: FxHashMap::default(),
        rules: Rules::default(),
        notes: Notes::default(),
    };
    pass.run();
    Ranged { graph: pass.graph, rules: pass.rules, notes: pass.notes }
}

impl Rangeify<'_> {
    fn run(&mut self) {
        let stages = stages(self.tensors);
        let mut outputs: FxHashMap<NodeId, Vec<usize>> = FxHashMap::default();
        for (slot, &node) in self.tensors.outputs.iter().enumerate() {
            outputs.entry(node).or_default().push(slot);
        }
        self.declare_inputs();
        for i in 0..self.tensors.nodes().len() {
            let id = NodeId(i as u32);
            let slots = outputs.remove(&id).unwrap_or_default();
            let keep = match stages.get(&id) {
                Some(&keep) => keep,
                None if slots.is_empty() => continue,
                None => true,
            };
            if self.is_empty(id) {
                continue;
            }
            let is_input = matches!(self.tensors.node(id).op, TensorOp::Input { .. });
            let mut slots = slots.into_iter();
            let mut first = None;
            if !is_input {
                let slot = slots.next();
                let origin = slot.map_or(Origin::Internal, Origin::Output);
                let name = slot.map_or_else(|| format!("t{}", self.graph.buffers.len()), |s| format!("out{s}"));
                let axes = self.fresh_axes(id);
                let index: Vec<IntId> = axes.iter().map(|&r| self.graph.ints.range(r)).collect();
                let value = self.compute(id, &index, &[]);
                // Nothing is saved by storing what is loaded, and a window that is built step by step stays whole.
                if !keep && slot.is_none() && matches!(self.graph.val(value), Val::Load { dynamic: None, .. }) {
                    self.views.insert(id, (axes, value));
                    continue;
                }
                let buffer = self.define(id, name, origin, axes, value, keep || slot.is_some());
                self.note(id, buffer);
                self.buffer_of.insert(id, buffer);
                first = Some(buffer);
            }
            for slot in slots {
                let source = first.or_else(|| self.buffer_of.get(&id).copied());
                let Some(source) = source else { continue };
                let axes = self.fresh_axes(id);
                let index: Vec<IntId> = axes.iter().map(|&r| self.graph.ints.range(r)).collect();
                let fill = Scalar::zero(self.tensors.node(id).dtype);
                let value = self.graph.load(Source::Buffer(source), &index, &[], fill);
                self.define(id, format!("out{slot}"), Origin::Output(slot), axes, value, true);
            }
        }
    }

    fn declare_inputs(&mut self) {
        let mut inputs: Vec<(usize, NodeId)> = Vec::new();
        for (i, n) in self.tensors.nodes().iter().enumerate() {
            if let TensorOp::Input { slot, .. } = n.op {
                inputs.push((slot, NodeId(i as u32)));
            }
        }
        inputs.sort_unstable();
        for (slot, id) in inputs {
            let node = self.tensors.node(id);
            let (origin, name) = match self.tensors.input_kind(slot) {
                InputKind::Argument => (Origin::Argument(slot), format!("x{slot}")),
                InputKind::Constant => (Origin::Constant(slot), format!("c{slot}")),
            };
            let shape = node.shape.clone();
            let layout = self.graph.row_major(&shape);
            let buffer = self.graph.add_buffer(Buffer {
                name,
                dtype: node.dtype,
                shape,
                origin,
                scope: Scope::Global,
                layout: Some(layout),
            });
            self.buffer_of.insert(id, buffer);
        }
    }

    fn fresh_axes(&mut self, id: NodeId) -> Vec<RangeId> {
        let shape = self.tensors.node(id).shape.clone();
        shape.into_iter().map(|s| self.graph.ints.new_range(s, RangeRole::Map)).collect()
    }

    fn define(
        &mut self,
        id: NodeId,
        name: String,
        origin: Origin,
        axes: Vec<RangeId>,
        value: ValId,
        keep: bool,
    ) -> BufId {
        let node = self.tensors.node(id);
        let shape = node.shape.clone();
        let layout = matches!(origin, Origin::Output(_)).then(|| self.graph.row_major(&shape));
        let dtype = node.dtype;
        let buffer = self.graph.add_buffer(Buffer { name, dtype, shape, origin, scope: Scope::Global, layout });
        self.graph.defs.push(Def { buffer, axes, value, keep, repeat: false, role: Role::Other });
        buffer
    }

    /// A definition is made for what the tensors are made for that are computed in it.
    fn note(&mut self, id: NodeId, buffer: BufId) {
        if self.tensors.notes().is_empty() {
            return;
        }
        let (mut notes, mut seen, mut stack) = (Vec::new(), FxHashSet::default(), vec![id]);
        while let Some(at) = stack.pop() {
            if seen.insert(at) {
                notes.extend(self.tensors.notes_of(at));
                let inside = |c: &NodeId| !self.buffer_of.contains_key(c);
                self.tensors.node(at).op.for_each_child(|c| stack.extend(Some(*c).filter(inside)));
            }
        }
        notes.sort_unstable();
        notes.dedup();
        if !notes.is_empty() {
            self.notes.insert(buffer, notes);
        }
    }

    fn is_empty(&self, id: NodeId) -> bool {
        self.tensors.node(id).shape.iter().any(|&s| self.tensors.ints.bounds(s).1 <= 0)
    }

    /// The value of a tensor's element: a load where the tensor has a buffer.
    fn element(&mut self, id: NodeId, index: &[IntId], gate: &[IntId]) -> ValId {
        let dtype = self.tensors.node(id).dtype;
        if self.is_empty(id) {
            return self.graph.constant(Scalar::zero(dtype));
        }
        if let Some(&buffer) = self.buffer_of.get(&id) {
            if gate.is_empty() {
                return self.graph.load(Source::Buffer(buffer), index, gate, Scalar::zero(dtype));
            }
            // What a gate implies may be beyond what can be proved, where a border has been reshaped: then it is said.
            let shape = self.tensors.node(id).shape.clone();
            let gate = with_bounds(&mut self.graph.ints, &shape, index, gate.to_vec());
            return self.graph.load(Source::Buffer(buffer), index, &gate, Scalar::zero(dtype));
        }
        if let Some((axes, value)) = self.views.get(&id) {
            let map: FxHashMap<RangeId, IntId> = axes.iter().copied().zip(index.iter().copied()).collect();
            let v = self.graph.substitute(*value, &|r| map.get(&r).copied());
            return self.load_under(v, gate);
        }
        let key = (id, index.to_vec(), gate.to_vec());
        if let Some(&v) = self.memo.get(&key) {
            return v;
        }
        let v = self.compute(id, index, gate);
        self.memo.insert(key, v);
        v
    }

    /// A load with more conditions; any other value as it is.
    fn load_under(&mut self, v: ValId, gate: &[IntId]) -> ValId {
        let Val::Load { src, index, gate: own, fill, dynamic } = self.graph.val(v).clone() else { return v };
        let all: Vec<IntId> = own.iter().chain(gate).copied().collect();
        match self.graph.ints.conjunction(&all) {
            None => self.graph.constant(fill),
            Some(gate) => self.graph.add(Val::Load { src, index, gate, fill, dynamic }),
        }
    }

    /// The value of a tensor's element from its operands. Where `gate` does not hold the value does not matter, but
    /// nothing may be read.
    fn compute(&mut self, id: NodeId, index: &[IntId], gate: &[IntId]) -> ValId {
        let tensors = self.tensors;
        let node = tensors.node(id);
        match &node.op {
            TensorOp::Input { dtype, .. } => {
                // Inputs have buffers; only an empty one is never read.
                self.graph.constant(Scalar::zero(*dtype))
            }
            TensorOp::Full { value, .. } => self.graph.constant(*value),
            TensorOp::Table { values, dtype, shape } => {
                let table = Table { shape: shape.clone(), dtype: *dtype, values: values.clone() };
                let table = self.graph.add_table(table);
                self.graph.load(Source::Table(table), index, gate, Scalar::zero(*dtype))
            }
            TensorOp::Iota { dtype, axis, .. } => {
                let as_int = if dtype.is_float() || *dtype == DType::Bool { DType::I64 } else { *dtype };
                let v = self.graph.add(Val::Index { value: index[*axis], dtype: as_int });
                self.graph.add(Val::Cast { x: v, dtype: *dtype })
            }
            TensorOp::Unary { op, x } => {
                let x = self.element(*x, index, gate);
                self.graph.unary(*op, x)
            }
            TensorOp::Binary { op, a, b } => {
                let a = self.element(*a, index, gate);
                let b = self.element(*b, index, gate);
                self.graph.binary(*op, a, b)
            }
            TensorOp::Where { cond, a, b } => {
                let cond = self.element(*cond, index, gate);
                let a = self.element(*a, index, gate);
                let b = self.element(*b, index, gate);
                self.graph.add(Val::Where { cond, a, b })
            }
            TensorOp::Cast { x, dtype } => {
                let x = self.element(*x, index, gate);
                self.graph.add(Val::Cast { x, dtype: *dtype })
            }
            TensorOp::Contiguous { x } => self.element(*x, index, gate),
            TensorOp::Reshape { x, shape } => {
                let from = tensors.node(*x).shape.clone();
                let index = self.reshape_index(index, shape, &from);
                self.element(*x, &index, gate)
            }
            TensorOp::Permute { x, order } => {
                let mut inner = vec![index[0]; order.len()];
                for (i, &o) in order.iter().enumerate() {
                    inner[o] = index[i];
                }
                self.element(*x, &inner, gate)
            }
            TensorOp::Expand { x, shape } => {
                let from = &tensors.node(*x).shape;
                let zero = self.graph.ints.constant(0);
                let inner: Vec<IntId> =
                    (0..shape.len()).map(|i| if from[i] == shape[i] { index[i] } else { zero }).collect();
                self.element(*x, &inner, gate)
            }
            TensorOp::Pad { x, before, value, .. } => {
                if self.is_empty(*x) {
                    return self.graph.constant(*value);
                }
                let from = tensors.node(*x).shape.clone();
                let mut inner = Vec::with_capacity(index.len());
                let mut inside = Vec::new();
                for i in 0..index.len() {
                    let at = self.graph.ints.sub(index[i], before[i]);
                    let room = self.graph.ints.sum(&[(from[i], 1), (at, -1)], -1);
                    inner.push(at);
                    inside.push(at);
                    inside.push(room);
                }
                let all: Vec<IntId> = gate.iter().chain(&inside).copied().collect();
                let v = self.element(*x, &inner, &all);
                self.masked(v, &all, &inside, *value)
            }
            TensorOp::Slice { x, start, step, .. } => {
                let inner: Vec<IntId> =
                    (0..index.len()).map(|i| self.graph.ints.sum(&[(start[i], 1), (index[i], step[i])], 0)).collect();
                self.element(*x, &inner, gate)
            }
            TensorOp::Unfold { x, axis, stride, dilation, .. } => {
                let last = index.len() - 1;
                let mut inner = index[..last].to_vec();
                inner[*axis] =
                    self.graph.ints.sum(&[(index[*axis], *stride as i64), (index[last], *dilation as i64)], 0);
                self.element(*x, &inner, gate)
            }
            TensorOp::Cat { parts, axis } => self.cat(parts, *axis, index, gate),
            TensorOp::Gather { x, axis, index: at } => {
                let chosen = self.element(*at, index, gate);
                let dtype = tensors.node(*x).dtype;
                let Some(&buffer) = self.buffer_of.get(x) else {
                    // A looked-up tensor is a stage; only an empty one has no buffer.
                    return self.graph.constant(Scalar::zero(dtype));
                };
                let mut inner = index.to_vec();
                inner[*axis] = self.graph.ints.constant(0);
                let fill = Scalar::zero(dtype);
                match self.graph.ints.conjunction(gate) {
                    None => self.graph.constant(fill),
                    Some(gate) => self.graph.add(Val::Load {
                        src: Source::Buffer(buffer),
                        index: inner.into(),
                        gate,
                        fill,
                        dynamic: Some((*axis as u32, chosen)),
                    }),
                }
            }
            TensorOp::Reduce { op, x, axes, order, fused, rule } => {
                let from = tensors.node(*x).shape.clone();
                if self.is_empty(*x) {
                    return self.graph.constant(op.identity(node.dtype));
                }
                let mut inner = Vec::with_capacity(from.len());
                let mut ranges = Vec::with_capacity(axes.len());
                let mut outer = index.iter();
                for (i, &size) in from.iter().enumerate() {
                    if axes.contains(&i) {
                        let r = self.graph.ints.new_range(size, RangeRole::Reduce);
                        if self.graph.ints.as_const(size) != Some(1) {
                            ranges.push(r);
                        }
                        inner.push(self.graph.ints.range(r));
                    } else if let Some(&i) = outer.next() {
                        inner.push(i);
                    }
                }
                let x = self.element(*x, &inner, gate);
                if ranges.is_empty() {
                    return x;
                }
                if let Some(rule) = rule {
                    self.rules.extend(ranges.iter().map(|&r| (r, (**rule).clone())));
                }
                self.graph.add(Val::Reduce { op: *op, ranges: ranges.into(), order: *order, fused: *fused, x })
            }
        }
    }

    /// `v` where `inside` holds, `value` elsewhere; a load takes the mask into its own gate. `all` is everything that
    /// `v` was computed under.
    fn masked(&mut self, v: ValId, all: &[IntId], inside: &[IntId], value: Scalar) -> ValId {
        let gate = self.graph.ints.conjunction(all);
        if let (Val::Load { src, index, gate: own, fill, dynamic }, Some(gate)) = (self.graph.val(v).clone(), gate)
            && (fill == value || own == gate)
        {
            return self.graph.add(Val::Load { src, index, gate: own, fill: value, dynamic });
        }
        let other = self.graph.constant(value);
        self.graph.select(inside, v, other)
    }

    /// Index under `from` of the element whose index under `to` is given; both are row-major.
    ///
    /// Runs of axes with the same number of elements on both sides are independent of each other: an axis that is the
    /// same on both sides keeps its index, which may be out of bounds where a gate does not hold.
    fn reshape_index(&mut self, index: &[IntId], to: &[IntId], from: &[IntId]) -> Vec<IntId> {
        let ints = &mut self.graph.ints;
        let (zero, one) = (ints.constant(0), ints.constant(1));
        let mut out = vec![zero; from.len()];
        let from_axes: Vec<usize> = (0..from.len()).filter(|&a| from[a] != one).collect();
        let to_axes: Vec<usize> = (0..to.len()).filter(|&a| to[a] != one).collect();
        let (mut i, mut j) = (0, 0);
        while i < from_axes.len() {
            let (first_from, first_to) = (i, j);
            let (mut count_from, mut count_to) = (one, one);
            loop {
                let fewer = match (ints.as_const(count_from), ints.as_const(count_to)) {
                    (Some(a), Some(b)) => a <= b,
                    _ => i - first_from <= j - first_to,
                };
                if (fewer || j == to_axes.len()) && i < from_axes.len() {
                    count_from = ints.mul(count_from, from[from_axes[i]]);
                    i += 1;
                } else if j < to_axes.len() {
                    count_to = ints.mul(count_to, to[to_axes[j]]);
                    j += 1;
                } else {
                    break;
                }
                if count_from == count_to {
                    break;
                }
            }
            let mut flat = zero;
            for &axis in &to_axes[first_to..j] {
                let scaled = ints.mul(flat, to[axis]);
                flat = ints.add(scaled, index[axis]);
            }
            for n in (first_from..i).rev() {
                let axis = from_axes[n];
                // The slowest axis takes what is left: no remainder.
                if n == first_from {
                    out[axis] = flat;
                } else {
                    out[axis] = ints.rem(flat, from[axis]);
                    flat = ints.div(flat, from[axis]);
                }
            }
        }
        out
    }

    fn cat(&mut self, parts: &[NodeId], axis: usize, index: &[IntId], gate: &[IntId]) -> ValId {
        let parts: Vec<NodeId> = parts.iter().copied().filter(|&p| !self.is_empty(p)).collect();
        let sizes: Vec<IntId> = parts.iter().map(|&p| self.tensors.node(p).shape[axis]).collect();
        if let Some(v) = self.cat_as_one(&parts, &sizes, axis, index, gate) {
            return v;
        }
        // From the last part backwards: a value for "this part or a later one".
        let mut ends = Vec::with_capacity(sizes.len());
        let mut end = self.graph.ints.constant(0);
        for &s in &sizes {
            end = self.graph.ints.add(end, s);
            ends.push(end);
        }
        let mut acc: Option<ValId> = None;
        for (n, &part) in parts.iter().enumerate().rev() {
            let begin = self.graph.ints.sub(ends[n], sizes[n]);
            let at = self.graph.ints.sub(index[axis], begin);
            let before_end = self.graph.ints.sum(&[(ends[n], 1), (index[axis], -1)], -1);
            let mut inner = index.to_vec();
            inner[axis] = at;
            let all: Vec<IntId> = gate.iter().copied().chain([at, before_end]).collect();
            let v = self.element(part, &inner, &all);
            acc = Some(match acc {
                None => v,
                Some(rest) => self.graph.select(&[before_end], v, rest),
            });
        }
        acc.unwrap_or_else(|| self.graph.constant(Scalar::zero(DType::F32)))
    }

    /// Parts of one size whose elements differ only by a multiple of the part's number are one value: a stack of
    /// shifted slices is a sliding window.
    fn cat_as_one(
        &mut self,
        parts: &[NodeId],
        sizes: &[IntId],
        axis: usize,
        index: &[IntId],
        gate: &[IntId],
    ) -> Option<ValId> {
        if parts.len() < 2 || sizes.iter().any(|s| *s != sizes[0]) {
            return None;
        }
        let size = self.graph.ints.as_const(sizes[0])?;
        let number = self.graph.ints.div_const(index[axis], size);
        let mut inner = index.to_vec();
        inner[axis] = self.graph.ints.rem_const(index[axis], size);
        let values: Vec<ValId> = parts.iter().map(|&p| self.element(p, &inner, gate)).collect();
        as_one(&mut self.graph, &values, number)
    }
}

/// [`anti_unify`], also of values that differ by multiples of the digits of their number: a stack of nine slices,
/// shifted by row and column, is `v(number / 3, number mod 3)`.
fn as_one(g: &mut Graph, values: &[ValId], number: IntId) -> Option<ValId> {
    if let Some(v) = anti_unify(g, values, number) {
        return Some(v);
    }
    let n = values.len();
    // The longest rows, so that an axis is not taken apart further than it must be.
    for row in (2..=n / 2).rev().filter(|row| n.is_multiple_of(*row)) {
        let (at, rest) = (g.ints.rem_const(number, row as i64), g.ints.div_const(number, row as i64));
        let rows: Option<Vec<ValId>> = values.chunks(row).map(|v| anti_unify(g, v, at)).collect();
        if let Some(v) = rows.and_then(|rows| as_one(g, &rows, rest)) {
            return Some(v);
        }
    }
    None
}

/// A value `v(number)` with `v(j) = values[j]`, where there is one whose indices are linear in `number`.
fn anti_unify(g: &mut Graph, values: &[ValId], number: IntId) -> Option<ValId> {
    if values.iter().all(|v| *v == values[0]) {
        return Some(values[0]);
    }
    let vals: Vec<Val> = values.iter().map(|&v| g.val(v).clone()).collect();
    match &vals[0] {
        Val::Load { src, index, fill, dynamic: None, .. } => {
            let mut steps = Vec::new();
            let mut out = Vec::with_capacity(index.len());
            let mut gates = Vec::with_capacity(vals.len());
            for v in &vals {
                let Val::Load { src: s, index: i, gate, fill: f, dynamic: None } = v else { return None };
                if s != src || f != fill || i.len() != index.len() {
                    return None;
                }
                gates.push(gate.to_vec());
            }
            for axis in 0..index.len() {
                let at = |v: &Val| if let Val::Load { index, .. } = v { index[axis] } else { index[axis] };
                let d = g.ints.sub(at(&vals[1]), at(&vals[0]));
                let step = g.ints.as_const(d)?;
                for (j, v) in vals.iter().enumerate() {
                    let d = g.ints.sub(at(v), at(&vals[0]));
                    if g.ints.as_const(d)? != step * j as i64 {
                        return None;
                    }
                }
                steps.push(step);
                out.push(g.ints.sum(&[(index[axis], 1), (number, step)], 0));
            }
            let gate = anti_unify_gates(g, &gates, &steps, number)?;
            let (src, fill) = (*src, *fill);
            Some(g.load(src, &out, &gate, fill))
        }
        Val::Unary { op, .. } => {
            let op = *op;
            let xs: Option<Vec<ValId>> = vals
                .iter()
                .map(|v| {
                    if let Val::Unary { op: o, x } = v
                        && *o == op
                    {
                        Some(*x)
                    } else {
                        None
                    }
                })
                .collect();
            let x = anti_unify(g, &xs?, number)?;
            Some(g.unary(op, x))
        }
        Val::Cast { dtype, .. } => {
            let dtype = *dtype;
            let xs: Option<Vec<ValId>> = vals
                .iter()
                .map(|v| {
                    if let Val::Cast { dtype: d, x } = v
                        && *d == dtype
                    {
                        Some(*x)
                    } else {
                        None
                    }
                })
                .collect();
            let x = anti_unify(g, &xs?, number)?;
            Some(g.add(Val::Cast { x, dtype }))
        }
        Val::Binary { op, .. } => {
            let op = *op;
            let pairs: Option<Vec<(ValId, ValId)>> = vals
                .iter()
                .map(|v| {
                    if let Val::Binary { op: o, a, b } = v
                        && *o == op
                    {
                        Some((*a, *b))
                    } else {
                        None
                    }
                })
                .collect();
            let (a, b): (Vec<ValId>, Vec<ValId>) = pairs?.into_iter().unzip();
            let a = anti_unify(g, &a, number)?;
            let b = anti_unify(g, &b, number)?;
            Some(g.binary(op, a, b))
        }
        _ => None,
    }
}

/// Conditions in `number` that for each part number say what that part's gate says. A condition that holds anyway
/// for some parts has been dropped there, so each one found is tried with every step that the indices take.
fn anti_unify_gates(g: &mut Graph, gates: &[Vec<IntId>], steps: &[i64], number: IntId) -> Option<Vec<IntId>> {
    let mut steps: Vec<i64> = steps.iter().flat_map(|&s| [s, -s]).chain([0]).collect();
    steps.sort_unstable();
    steps.dedup();
    let mut found: Vec<(IntId, i64)> = Vec::new();
    for (j, gate) in gates.iter().enumerate() {
        for &condition in gate {
            for &step in &steps {
                let base = g.ints.add_const(condition, -step * j as i64);
                if found.contains(&(base, step)) {
                    continue;
                }
                let fits = gates.iter().enumerate().all(|(n, own)| {
                    let e = g.ints.add_const(base, step * n as i64);
                    g.ints.conjunction(&[e]).is_some_and(|c| c.iter().all(|x| own.contains(x)))
                });
                if fits {
                    found.push((base, step));
                }
            }
        }
    }
    let mut says = |found: &[(IntId, i64)]| {
        gates.iter().enumerate().all(|(j, own)| {
            let at: Vec<IntId> = found.iter().map(|&(b, s)| g.ints.add_const(b, s * j as i64)).collect();
            g.ints.conjunction(&at).is_some_and(|c| c.to_vec() == *own)
        })
    };
    if !says(&found) {
        return None;
    }
    // A condition that says nothing which others do not say would tie an axis to the number of the part.
    for i in (0..found.len()).rev() {
        let condition = found.remove(i);
        if !says(&found) {
            found.insert(i, condition);
        }
    }
    Some(found.into_iter().map(|(b, s)| g.ints.sum(&[(b, 1), (number, s)], 0)).collect())
}

/// How a tensor is read, where a definition has one value for it all.
#[derive(Clone, Copy, Default)]
struct Reads {
    /// By a sum, or another reduction.
    summed: bool,
    /// And each element in many of its terms: by sliding windows, or repeated along an axis.
    repeated: bool,
}

impl std::ops::BitOrAssign for Reads {
    fn bitor_assign(&mut self, other: Reads) {
        self.summed |= other.summed;
        self.repeated |= other.repeated;
    }
}

/// Which tensors get a definition of their own, and whether it must stay.
fn stages(tensors: &TensorGraph) -> FxHashMap<NodeId, bool> {
    let nodes = tensors.nodes();
    let mut live = vec![false; nodes.len()];
    for o in &tensors.outputs {
        live[o.0 as usize] = true;
    }
    for i in (0..nodes.len()).rev() {
        if live[i] {
            nodes[i].op.for_each_child(|c| live[c.0 as usize] = true);
        }
    }
    let mut out: FxHashMap<NodeId, bool> = FxHashMap::default();
    // How a tensor is read, as a hash of the movement operations between it and the definition that reads it.
    let mut paths: Vec<FxHashSet<u64>> = vec![FxHashSet::default(); nodes.len()];
    for (slot, o) in tensors.outputs.iter().enumerate() {
        paths[o.0 as usize].insert(slot as u64);
    }
    let outputs: FxHashSet<NodeId> = tensors.outputs.iter().copied().collect();
    let mut reads: Vec<Reads> = vec![Reads::default(); nodes.len()];
    for i in (0..nodes.len()).rev() {
        if !live[i] {
            continue;
        }
        let id = NodeId(i as u32);
        let op = &nodes[i].op;
        let leaf = matches!(
            op,
            TensorOp::Input { .. } | TensorOp::Full { .. } | TensorOp::Table { .. } | TensorOp::Iota { .. }
        );
        let movement = matches!(
            op,
            TensorOp::Reshape { .. }
                | TensorOp::Permute { .. }
                | TensorOp::Expand { .. }
                | TensorOp::Pad { .. }
                | TensorOp::Slice { .. }
                | TensorOp::Unfold { .. }
        );
        if matches!(op, TensorOp::Contiguous { .. }) {
            out.insert(id, true);
        } else if matches!(op, TensorOp::Reduce { .. })
            || (!leaf && !movement && (paths[i].len() > 1 || reads[i].repeated))
        {
            out.entry(id).or_insert(false);
        }
        if let TensorOp::Gather { x, .. } = op
            && !matches!(nodes[x.0 as usize].op, TensorOp::Input { .. })
        {
            out.insert(*x, true);
        }
        let root = out.contains_key(&id) || outputs.contains(&id);
        let own: Vec<u64> = if root { vec![hash(&[i as u64, 1 << 40])] } else { paths[i].iter().copied().collect() };
        let elementwise = matches!(
            op,
            TensorOp::Unary { .. }
                | TensorOp::Binary { .. }
                | TensorOp::Where { .. }
                | TensorOp::Cast { .. }
                | TensorOp::Contiguous { .. }
        );
        let within = match op {
            TensorOp::Reduce { .. } => Reads { summed: true, repeated: false },
            // What is looked up in is stored anyway; where to look is a matter of indices.
            TensorOp::Gather { .. } => Reads::default(),
            _ if root => Reads::default(),
            TensorOp::Expand { .. } | TensorOp::Unfold { .. } => Reads { repeated: reads[i].summed, ..reads[i] },
            _ => reads[i],
        };
        let mut nth = 0u64;
        op.for_each_child(|c| {
            reads[c.0 as usize] |= within;
            for &p in &own {
                let path = if elementwise { p } else { hash(&[p, i as u64, nth]) };
                // More than a handful of ways is as good as many.
                if paths[c.0 as usize].len() < 8 {
                    paths[c.0 as usize].insert(path);
                }
            }
            nth += 1;
        });
    }
    // Cut long chains.
    let mut depth = vec![0u32; nodes.len()];
    for i in 0..nodes.len() {
        let id = NodeId(i as u32);
        let mut d = 0;
        nodes[i].op.for_each_child(|c| {
            let cut = out.contains_key(c) || outputs.contains(c);
            d = d.max(if cut { 1 } else { depth[c.0 as usize] + 1 });
        });
        if d > MAX_DEPTH && live[i] {
            out.insert(id, true);
            d = 0;
        }
        depth[i] = d;
    }
    out.retain(|id, _| live[id.0 as usize]);
    out
}

fn hash(parts: &[u64]) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut h = rustc_hash::FxHasher::default();
    parts.hash(&mut h);
    h.finish()
}
