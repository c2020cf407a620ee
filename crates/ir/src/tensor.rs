//! The tensor graph: what a program asks for, as operations on whole tensors.
//!
//! [`TensorOp`] is generic over its children and its sizes, so that a library can keep lazy tensors
//! (`TensorOp<Tensor, usize>`) and the compiler an interned graph (`TensorOp<NodeId, IntId>`) of the same operations.

use crate::dtype::{DType, Scalar};
use crate::int::{IntId, Ints};
use crate::op::{BinaryOp, ReduceOp, SumOrder, UnaryOp};
use crate::rule::WindowRule;
use rustc_hash::FxHashMap;

/// A node of a [`TensorGraph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// An operation on tensors. `T` names an operand, `D` is the type of sizes.
///
/// Shapes are row-major; axes count from 0. Every operand of an elementwise operation has the result's shape:
/// broadcasting is written out with [`Reshape`](TensorOp::Reshape) and [`Expand`](TensorOp::Expand).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TensorOp<T, D = IntId> {
    /// The graph's input number `slot`.
    Input {
        /// Which input, counted from 0.
        slot: usize,
        /// Element type.
        dtype: DType,
        /// Shape.
        shape: Vec<D>,
    },
    /// One value everywhere.
    Full {
        /// The value.
        value: Scalar,
        /// Shape.
        shape: Vec<D>,
    },
    /// A small constant tensor that is folded into the code that uses it, such as a transform matrix.
    Table {
        /// Elements in row-major order, all of one dtype.
        values: Vec<Scalar>,
        /// Element type.
        dtype: DType,
        /// Shape, constant.
        shape: Vec<usize>,
    },
    /// The index along one axis: `out[i] = i[axis]`.
    Iota {
        /// Element type.
        dtype: DType,
        /// Shape.
        shape: Vec<D>,
        /// The axis whose index is the value.
        axis: usize,
    },
    /// An elementwise operation on one tensor.
    Unary {
        /// Operation.
        op: UnaryOp,
        /// Operand.
        x: T,
    },
    /// An elementwise operation on two tensors of one dtype and shape.
    Binary {
        /// Operation.
        op: BinaryOp,
        /// First operand.
        a: T,
        /// Second operand.
        b: T,
    },
    /// `cond ? a : b`.
    Where {
        /// Condition, `bool`.
        cond: T,
        /// Value where it holds.
        a: T,
        /// Value where it does not.
        b: T,
    },
    /// Conversion, as [`Scalar::cast`].
    Cast {
        /// Operand.
        x: T,
        /// Element type of the result.
        dtype: DType,
    },
    /// The same elements in row-major order under another shape.
    Reshape {
        /// Operand.
        x: T,
        /// New shape, with as many elements.
        shape: Vec<D>,
    },
    /// Axis `i` of the result is axis `order[i]` of the operand.
    Permute {
        /// Operand.
        x: T,
        /// A permutation of the axes.
        order: Vec<usize>,
    },
    /// Axes of size 1 repeated.
    Expand {
        /// Operand.
        x: T,
        /// New shape, of the same rank.
        shape: Vec<D>,
    },
    /// A constant border.
    Pad {
        /// Operand.
        x: T,
        /// Elements added before each axis.
        before: Vec<D>,
        /// Elements added after each axis.
        after: Vec<D>,
        /// What they are.
        value: Scalar,
    },
    /// `out[i] = x[start + step * i]` per axis.
    Slice {
        /// Operand.
        x: T,
        /// First index per axis.
        start: Vec<D>,
        /// Step per axis; negative ones flip.
        step: Vec<i64>,
        /// Size of the result per axis.
        size: Vec<D>,
    },
    /// Sliding windows along an axis, with the place inside the window as a new last axis:
    /// `out[.., i, .., k] = x[.., i * stride + k * dilation, ..]`.
    Unfold {
        /// Operand.
        x: T,
        /// The axis that windows slide along.
        axis: usize,
        /// Taps of a window.
        size: usize,
        /// Distance of windows.
        stride: usize,
        /// Distance of taps.
        dilation: usize,
    },
    /// Tensors one after another along an axis.
    Cat {
        /// Operands; other axes agree.
        parts: Vec<T>,
        /// The axis.
        axis: usize,
    },
    /// `out[i] = x[i with i[axis] = clamp(index[i], 0, size - 1)]`; other axes of the index are at most `x`'s.
    Gather {
        /// Operand.
        x: T,
        /// The axis that is looked up.
        axis: usize,
        /// Integer tensor of the result's shape.
        index: T,
    },
    /// A reduction; reduced axes disappear.
    Reduce {
        /// Operation.
        op: ReduceOp,
        /// Operand.
        x: T,
        /// Sorted axes to reduce.
        axes: Vec<usize>,
        /// Permitted orders.
        order: SumOrder,
        /// Whether products may be fused into sums.
        fused: bool,
        /// What is asked of it should it be a sliding-window sum of products.
        rule: Option<Box<WindowRule>>,
    },
    /// The operand, materialised: it gets a buffer of its own.
    Contiguous {
        /// Operand.
        x: T,
    },
}

impl<T, D> TensorOp<T, D> {
    /// Calls `f` for each operand, in order.
    pub fn for_each_child<'a>(&'a self, mut f: impl FnMut(&'a T)) {
        match self {
            TensorOp::Input { .. } | TensorOp::Full { .. } | TensorOp::Table { .. } | TensorOp::Iota { .. } => {}
            TensorOp::Unary { x, .. }
            | TensorOp::Cast { x, .. }
            | TensorOp::Reshape { x, .. }
            | TensorOp::Permute { x, .. }
            | TensorOp::Expand { x, .. }
            | TensorOp::Pad { x, .. }
            | TensorOp::Slice { x, .. }
            | TensorOp::Unfold { x, .. }
            | TensorOp::Reduce { x, .. }
            | TensorOp::Contiguous { x } => f(x),
            TensorOp::Binary { a, b, .. } => {
                f(a);
                f(b);
            }
            TensorOp::Where { cond, a, b } => {
                f(cond);
                f(a);
                f(b);
            }
            TensorOp::Cat { parts, .. } => parts.iter().for_each(f),
            TensorOp::Gather { x, index, .. } => {
                f(x);
                f(index);
            }
        }
    }

    /// The same operation with operands and sizes replaced.
    pub fn map<U, E>(&self, mut t: impl FnMut(&T) -> U, mut d: impl FnMut(&D) -> E) -> TensorOp<U, E> {
        let mut dims = |v: &Vec<D>| v.iter().map(&mut d).collect::<Vec<E>>();
        match self {
            TensorOp::Input { slot, dtype, shape } => {
                TensorOp::Input { slot: *slot, dtype: *dtype, shape: dims(shape) }
            }
            TensorOp::Full { value, shape } => TensorOp::Full { value: *value, shape: dims(shape) },
            TensorOp::Table { values, dtype, shape } => {
                TensorOp::Table { values: values.clone(), dtype: *dtype, shape: shape.clone() }
            }
            TensorOp::Iota { dtype, shape, axis } => TensorOp::Iota { dtype: *dtype, shape: dims(shape), axis: *axis },
            TensorOp::Unary { op, x } => TensorOp::Unary { op: *op, x: t(x) },
            TensorOp::Binary { op, a, b } => TensorOp::Binary { op: *op, a: t(a), b: t(b) },
            TensorOp::Where { cond, a, b } => TensorOp::Where { cond: t(cond), a: t(a), b: t(b) },
            TensorOp::Cast { x, dtype } => TensorOp::Cast { x: t(x), dtype: *dtype },
            TensorOp::Reshape { x, shape } => TensorOp::Reshape { x: t(x), shape: dims(shape) },
            TensorOp::Permute { x, order } => TensorOp::Permute { x: t(x), order: order.clone() },
            TensorOp::Expand { x, shape } => TensorOp::Expand { x: t(x), shape: dims(shape) },
            TensorOp::Pad { x, before, after, value } => {
                TensorOp::Pad { x: t(x), before: dims(before), after: dims(after), value: *value }
            }
            TensorOp::Slice { x, start, step, size } => {
                TensorOp::Slice { x: t(x), start: dims(start), step: step.clone(), size: dims(size) }
            }
            TensorOp::Unfold { x, axis, size, stride, dilation } => {
                TensorOp::Unfold { x: t(x), axis: *axis, size: *size, stride: *stride, dilation: *dilation }
            }
            TensorOp::Cat { parts, axis } => TensorOp::Cat { parts: parts.iter().map(t).collect(), axis: *axis },
            TensorOp::Gather { x, axis, index } => TensorOp::Gather { x: t(x), axis: *axis, index: t(index) },
            TensorOp::Reduce { op, x, axes, order, fused, rule } => TensorOp::Reduce {
                op: *op,
                x: t(x),
                axes: axes.clone(),
                order: *order,
                fused: *fused,
                rule: rule.clone(),
            },
            TensorOp::Contiguous { x } => TensorOp::Contiguous { x: t(x) },
        }
    }
}

/// What an input holds, as far as compiling is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InputKind {
    /// Another value at every run.
    Argument,
    /// The same value at every run: what depends on constants alone is prepared once.
    Constant,
}

/// A node: operation, dtype and shape.
#[derive(Clone, Debug)]
pub struct Node {
    /// The operation.
    pub op: TensorOp<NodeId>,
    /// Element type of the result.
    pub dtype: DType,
    /// Shape of the result.
    pub shape: Vec<IntId>,
}

/// An interned graph of tensor operations. Operands come before their users.
#[derive(Clone, Debug, Default)]
pub struct TensorGraph {
    /// Sizes.
    pub ints: Ints,
    nodes: Vec<Node>,
    ids: FxHashMap<TensorOp<NodeId>, NodeId>,
    /// What each input slot holds; slots beyond the list are arguments.
    pub inputs: Vec<InputKind>,
    /// The results, in order.
    pub outputs: Vec<NodeId>,
    /// What nodes were made for, by the caller's names, and the places of each node's in that list: outside of their identity.
    notes: Vec<String>,
    note_ids: FxHashMap<String, u32>,
    notes_of: FxHashMap<NodeId, Vec<u32>>,
}

impl TensorGraph {
    /// An empty graph.
    pub fn new() -> TensorGraph {
        TensorGraph::default()
    }

    /// All nodes; operands come before their users.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// One node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// Notes that a node was made for something, as the caller calls it: a node of a model, for one. Where equal nodes have
    /// become one, it has several notes. Reports tell them; nothing depends on them.
    pub fn note(&mut self, id: NodeId, name: &str) {
        let at = match self.note_ids.get(name) {
            Some(&at) => at,
            None => {
                let at = self.notes.len() as u32;
                self.notes.push(name.to_string());
                self.note_ids.insert(name.to_string(), at);
                at
            }
        };
        let of = self.notes_of.entry(id).or_default();
        if !of.contains(&at) {
            of.push(at);
        }
    }

    /// All that nodes were made for.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What a node was made for: places in [`notes`](TensorGraph::notes).
    pub fn notes_of(&self, id: NodeId) -> &[u32] {
        self.notes_of.get(&id).map_or(&[], |list| list)
    }

    /// What an input slot holds.
    pub fn input_kind(&self, slot: usize) -> InputKind {
        self.inputs.get(slot).copied().unwrap_or(InputKind::Argument)
    }

    /// Adds an operation, or finds it. Shapes and dtypes of the operands are taken as given: the verifier checks
    /// that they fit. Operands must be nodes of this graph.
    pub fn add(&mut self, op: TensorOp<NodeId>) -> NodeId {
        if let Some(&id) = self.ids.get(&op) {
            return id;
        }
        let (dtype, shape) = self.infer(&op);
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(Node { op: op.clone(), dtype, shape });
        self.ids.insert(op, id);
        id
    }

    fn infer(&mut self, op: &TensorOp<NodeId>) -> (DType, Vec<IntId>) {
        let dtype_of = |g: &TensorGraph, id: &NodeId| g.node(*id).dtype;
        let shape_of = |g: &TensorGraph, id: &NodeId| g.node(*id).shape.clone();
        match op {
            TensorOp::Input { dtype, shape, .. } | TensorOp::Iota { dtype, shape, .. } => (*dtype, shape.clone()),
            TensorOp::Full { value, shape } => (value.dtype(), shape.clone()),
            TensorOp::Table { dtype, shape, .. } => {
                (*dtype, shape.iter().map(|&s| self.ints.constant(s as i64)).collect())
            }
            TensorOp::Unary { x, .. } | TensorOp::Contiguous { x } => (dtype_of(self, x), shape_of(self, x)),
            TensorOp::Binary { op, a, .. } => (op.result(dtype_of(self, a)), shape_of(self, a)),
            TensorOp::Where { a, .. } => (dtype_of(self, a), shape_of(self, a)),
            TensorOp::Cast { x, dtype } => (*dtype, shape_of(self, x)),
            TensorOp::Reshape { x, shape } | TensorOp::Expand { x, shape } => (dtype_of(self, x), shape.clone()),
            TensorOp::Permute { x, order } => {
                let shape = shape_of(self, x);
                (dtype_of(self, x), order.iter().filter_map(|&o| shape.get(o).copied()).collect())
            }
            TensorOp::Pad { x, before, after, .. } => {
                let shape = shape_of(self, x);
                let sizes = shape.iter().zip(before).zip(after);
                let out = sizes.map(|((&s, &b), &a)| self.ints.sum(&[(s, 1), (b, 1), (a, 1)], 0)).collect();
                (dtype_of(self, x), out)
            }
            TensorOp::Slice { x, size, .. } => (dtype_of(self, x), size.clone()),
            TensorOp::Unfold { x, axis, size, stride, dilation } => {
                let mut shape = shape_of(self, x);
                if let Some(s) = shape.get_mut(*axis) {
                    let span = dilation.saturating_mul(size.saturating_sub(1)).saturating_add(1);
                    let room = self.ints.add_const(*s, -i64::try_from(span).unwrap_or(i64::MAX));
                    let q = self.ints.div_const(room, i64::try_from(*stride).unwrap_or(i64::MAX));
                    *s = self.ints.add_const(q, 1);
                }
                let taps = self.ints.constant(*size as i64);
                shape.push(taps);
                (dtype_of(self, x), shape)
            }
            TensorOp::Cat { parts, axis } => {
                // No parts, or parts without the axis, are for the verifier to refuse.
                let Some(first) = parts.first() else { return (DType::F32, Vec::new()) };
                let mut shape = shape_of(self, first);
                let all: Vec<(IntId, i64)> =
                    parts.iter().filter_map(|p| Some((*self.node(*p).shape.get(*axis)?, 1))).collect();
                if let Some(s) = shape.get_mut(*axis) {
                    *s = self.ints.sum(&all, 0);
                }
                (dtype_of(self, first), shape)
            }
            TensorOp::Gather { x, index, .. } => (dtype_of(self, x), shape_of(self, index)),
            TensorOp::Reduce { x, axes, .. } => {
                let shape = shape_of(self, x);
                let out = shape.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, s)| *s).collect();
                (dtype_of(self, x), out)
            }
        }
    }
}
