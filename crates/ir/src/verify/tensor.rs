//! Verifies a tensor graph.
//!
//! # Invariants
//! - `integers`: no expression overflowed.
//! - `order`: operands come before their users; outputs are nodes.
//! - `sizes`: every size is proved to be at least 0 and depends on no range; at most 2^60 elements; elementwise operands
//!   have the result's shape, a reshape as many elements as its operand, an expanded axis size 1.
//! - `types`: dtypes fit the operation; a gather's index is an integer.
//! - `axes`: as many entries as axes; axes exist; permutations are permutations; reduced axes are sorted, each once.
//! - `bounds`: slices are within their operand wherever they have an element; a gather's other axes are at most its
//!   operand's, and the axis that is looked up has an element wherever the index has one.
//! - `inputs`: nodes of one input slot agree in dtype and shape.

use super::{MAX_ELEMENTS, VerifyError, known, refuse, same};
use crate::DType;
use crate::indexed::Table;
use crate::int::{IntId, Ints};
use crate::tensor::{Node, NodeId, TensorGraph, TensorOp};
use rustc_hash::FxHashMap;

/// Checks the invariants at the top of this file.
///
/// # Errors
/// The first invariant that does not hold.
pub fn verify(graph: &TensorGraph) -> Result<(), VerifyError> {
    let mut v = Verifier { g: graph, ints: graph.ints.clone(), inputs: FxHashMap::default() };
    for (i, node) in graph.nodes().iter().enumerate() {
        let id = NodeId(i as u32);
        if let Err((invariant, found)) = v.node(id, node) {
            return refuse(invariant, &format!("node {i} ({})", name(&node.op)), found);
        }
    }
    if let Some(o) = graph.outputs.iter().find(|o| o.0 as usize >= graph.nodes().len()) {
        return refuse("order", "outputs", format!("{o:?} does not exist"));
    }
    if v.ints.overflowed() {
        return refuse("integers", "graph", "an expression overflowed");
    }
    Ok(())
}

type Found = (&'static str, String);

fn fail<T>(invariant: &'static str, found: impl Into<String>) -> Result<T, Found> {
    Err((invariant, found.into()))
}

fn name<T, D>(op: &TensorOp<T, D>) -> &'static str {
    match op {
        TensorOp::Input { .. } => "input",
        TensorOp::Full { .. } => "full",
        TensorOp::Table { .. } => "table",
        TensorOp::Iota { .. } => "iota",
        TensorOp::Unary { .. } => "unary",
        TensorOp::Binary { .. } => "binary",
        TensorOp::Where { .. } => "where",
        TensorOp::Cast { .. } => "cast",
        TensorOp::Reshape { .. } => "reshape",
        TensorOp::Permute { .. } => "permute",
        TensorOp::Expand { .. } => "expand",
        TensorOp::Pad { .. } => "pad",
        TensorOp::Slice { .. } => "slice",
        TensorOp::Unfold { .. } => "unfold",
        TensorOp::Cat { .. } => "cat",
        TensorOp::Gather { .. } => "gather",
        TensorOp::Reduce { .. } => "reduce",
        TensorOp::Contiguous { .. } => "contiguous",
    }
}

struct Verifier<'a> {
    g: &'a TensorGraph,
    ints: Ints,
    inputs: FxHashMap<usize, NodeId>,
}

impl<'a> Verifier<'a> {
    fn get(&self, n: NodeId) -> &'a Node {
        self.g.node(n)
    }

    fn node(&mut self, id: NodeId, node: &'a Node) -> Result<(), Found> {
        let mut early = true;
        node.op.for_each_child(|c| early &= *c < id);
        if !early {
            return fail("order", "comes before an operand");
        }
        self.op(id, node)?;
        let mut elements = 1i128;
        for (axis, &s) in node.shape.iter().enumerate() {
            self.size(s, &format!("axis {axis}"))?;
            elements = elements.saturating_mul(self.ints.bounds(s).1 as i128);
        }
        if elements > MAX_ELEMENTS as i128 {
            return fail("sizes", "more than 2^60 elements");
        }
        Ok(())
    }

    fn size(&mut self, s: IntId, what: &str) -> Result<(), Found> {
        if !known(&self.ints, s) || !self.ints.free_ranges(s).is_empty() {
            return fail("sizes", format!("{what}: unknown, or depends on ranges"));
        }
        if !self.ints.prove_nonneg(s, &[]) {
            return fail("sizes", format!("{what}: {} is not proved to be at least 0", super::show(&self.ints, s)));
        }
        Ok(())
    }

    fn same_shape(&mut self, a: &Node, b: &Node) -> Result<(), Found> {
        if a.shape.len() != b.shape.len() {
            return fail("sizes", format!("{} axes against {}", a.shape.len(), b.shape.len()));
        }
        for (axis, (&x, &y)) in a.shape.iter().zip(&b.shape).enumerate() {
            if !same(&mut self.ints, x, y) {
                return fail("sizes", format!("axis {axis} of the operands is not proved to be equal"));
            }
        }
        Ok(())
    }

    fn ranks(&self, what: &str, found: usize, wanted: usize) -> Result<(), Found> {
        if found == wanted {
            return Ok(());
        }
        fail("axes", format!("{found} entries in {what} for {wanted} axes"))
    }

    fn axis(&self, axis: usize, rank: usize) -> Result<(), Found> {
        if axis < rank { Ok(()) } else { fail("axes", format!("axis {axis} of {rank}")) }
    }

    fn op(&mut self, id: NodeId, node: &'a Node) -> Result<(), Found> {
        let t = |n: &NodeId| self.g.node(*n).dtype;
        match &node.op {
            TensorOp::Full { .. } | TensorOp::Cast { .. } | TensorOp::Contiguous { .. } => Ok(()),
            TensorOp::Input { slot, .. } => {
                let first = *self.inputs.entry(*slot).or_insert(id);
                let first = self.get(first);
                if first.dtype != node.dtype || self.same_shape(first, node).is_err() {
                    return fail("inputs", format!("slot {slot} has two dtypes or shapes"));
                }
                Ok(())
            }
            TensorOp::Table { values, dtype, shape } => {
                let table = Table { shape: shape.clone(), dtype: *dtype, values: values.clone() };
                super::check_table(&table).or_else(|why| fail("sizes", why))
            }
            TensorOp::Iota { dtype: DType::Bool, .. } => fail("types", "an index cannot be bool"),
            TensorOp::Iota { shape, axis, .. } => self.axis(*axis, shape.len()),
            TensorOp::Unary { op, x } if !op.accepts(t(x)) => fail("types", format!("{} of {}", op.name(), t(x))),
            TensorOp::Unary { .. } => Ok(()),
            TensorOp::Binary { op, a, b } => {
                if t(a) != t(b) || !op.accepts(t(a)) {
                    return fail("types", format!("{} of {} and {}", op.name(), t(a), t(b)));
                }
                self.same_shape(self.get(*a), self.get(*b))
            }
            TensorOp::Where { cond, a, b } => {
                if t(cond) != DType::Bool || t(a) != t(b) {
                    return fail("types", format!("{} ? {} : {}", t(cond), t(a), t(b)));
                }
                self.same_shape(self.get(*a), self.get(*cond))?;
                self.same_shape(self.get(*a), self.get(*b))
            }
            TensorOp::Reshape { x, shape } => {
                for &s in shape {
                    self.size(s, "the new shape")?;
                }
                let mut product = |shape: &[IntId]| {
                    let one = self.ints.constant(1);
                    shape.iter().fold(one, |n, &s| self.ints.mul(n, s))
                };
                let (before, after) = (product(&self.g.node(*x).shape), product(shape));
                if !same(&mut self.ints, before, after) {
                    return fail("sizes", "the numbers of elements are not proved to be equal");
                }
                Ok(())
            }
            TensorOp::Permute { x, order } => {
                let rank = self.get(*x).shape.len();
                self.ranks("order", order.len(), rank)?;
                let mut sorted = order.clone();
                sorted.sort_unstable();
                if sorted.iter().enumerate().any(|(i, &o)| i != o) {
                    return fail("axes", format!("{order:?} is no permutation"));
                }
                Ok(())
            }
            TensorOp::Expand { x, shape } => {
                let from = self.get(*x).shape.clone();
                self.ranks("shape", shape.len(), from.len())?;
                for (axis, (&a, &b)) in from.iter().zip(shape).enumerate() {
                    self.size(b, "the new shape")?;
                    if self.ints.as_const(a) != Some(1) && !same(&mut self.ints, a, b) {
                        return fail("sizes", format!("axis {axis} is expanded but not of size 1"));
                    }
                }
                Ok(())
            }
            TensorOp::Pad { x, before, after, value } => {
                let rank = self.get(*x).shape.len();
                self.ranks("before", before.len(), rank)?;
                self.ranks("after", after.len(), rank)?;
                for &s in before.iter().chain(after) {
                    self.size(s, "a border")?;
                }
                if value.dtype() != node.dtype {
                    return fail("types", format!("a border of {} around {}", value.dtype(), node.dtype));
                }
                Ok(())
            }
            TensorOp::Slice { x, start, step, size } => self.slice(*x, start, step, size),
            TensorOp::Unfold { x, axis, size, stride, dilation } => {
                self.axis(*axis, self.get(*x).shape.len())?;
                if [*size, *stride, *dilation].iter().any(|&n| n == 0 || n > 1 << 31) {
                    return fail("axes", format!("size {size}, stride {stride}, dilation {dilation}"));
                }
                Ok(())
            }
            TensorOp::Cat { parts, axis } => {
                let Some(first) = parts.first().map(|p| self.get(*p)) else {
                    return fail("axes", "nothing to put together");
                };
                self.axis(*axis, first.shape.len())?;
                for p in parts {
                    let part = self.get(*p);
                    if part.dtype != first.dtype {
                        return fail("types", format!("{} after {}", part.dtype, first.dtype));
                    }
                    self.ranks("a part", part.shape.len(), first.shape.len())?;
                    for (i, (&a, &b)) in part.shape.iter().zip(&first.shape).enumerate() {
                        if i != *axis && !same(&mut self.ints, a, b) {
                            return fail("sizes", format!("axis {i} of the parts is not proved to be equal"));
                        }
                    }
                }
                Ok(())
            }
            TensorOp::Gather { x, axis, index } => self.gather(self.get(*x), *axis, self.get(*index)),
            TensorOp::Reduce { op, x, axes, .. } => {
                let rank = self.get(*x).shape.len();
                if axes.iter().any(|&a| a >= rank) || axes.windows(2).any(|w| w[0] >= w[1]) {
                    return fail("axes", format!("reduces axes {axes:?} of {rank}"));
                }
                if !op.combine().accepts(t(x)) {
                    return fail("types", format!("{} of {}", op.name(), t(x)));
                }
                Ok(())
            }
        }
    }

    fn slice(&mut self, x: NodeId, start: &[IntId], step: &[i64], size: &[IntId]) -> Result<(), Found> {
        let shape = self.get(x).shape.clone();
        self.ranks("start", start.len(), shape.len())?;
        self.ranks("step", step.len(), shape.len())?;
        self.ranks("size", size.len(), shape.len())?;
        for axis in 0..shape.len() {
            self.size(start[axis], "start")?;
            self.size(size[axis], "size")?;
            let more = self.ints.add_const(size[axis], -1);
            if self.ints.bounds(more).1 < 0 {
                continue;
            }
            // Wherever there is an element, the first and the last one are inside.
            let given = [more];
            let last = self.ints.sum(&[(start[axis], 1), (more, step[axis])], 0);
            for (what, i) in [("first", start[axis]), ("last", last)] {
                if let Err(why) = super::prove_index(&mut self.ints, i, shape[axis], &given) {
                    return fail("bounds", format!("{what} element along axis {axis}: {why}"));
                }
            }
        }
        Ok(())
    }

    fn gather(&mut self, x: &Node, axis: usize, index: &Node) -> Result<(), Found> {
        if !index.dtype.is_int() {
            return fail("types", format!("the index is {}", index.dtype));
        }
        self.ranks("the index", index.shape.len(), x.shape.len())?;
        self.axis(axis, x.shape.len())?;
        let mut given = Vec::new();
        for &s in &index.shape {
            let more = self.ints.add_const(s, -1);
            if self.ints.bounds(more).1 < 0 {
                return Ok(());
            }
            given.push(more);
        }
        for (i, (&have, &want)) in x.shape.iter().zip(&index.shape).enumerate() {
            let gap = if i == axis { self.ints.add_const(have, -1) } else { self.ints.sub(have, want) };
            if !self.ints.prove_nonneg(gap, &given) {
                return fail("bounds", format!("axis {i} of the operand is not proved to be large enough"));
            }
        }
        Ok(())
    }
}
