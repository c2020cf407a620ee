//! From lazy tensors to the compiler's graph.

use crate::bounded::{Parameter, Size};
use crate::error::Result;
use crate::tensor::Tensor;
use crate::tensor::storage::Storage;
use crate::tensor::structure::{Step, Structure, structure};
use std::sync::Arc;
use winograph_ir::tensor::{InputKind, NodeId, TensorGraph, TensorOp};
use winograph_ir::{DType, IntId, Scalar};

/// What leaves with known elements are to the compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// Constants of a function: what depends on them alone is prepared once.
    Constants,
    /// Arguments: the program may run with others.
    Arguments,
}

/// The graph that computes `outputs`, and the elements of the leaves it reads. Inputs are numbered: first `args`,
/// which are placeholders, then the leaves in the order in which they are met, each once.
///
/// # Errors
/// A placeholder that is not among `args`.
pub(crate) fn build_graph(
    op: &'static str,
    outputs: &[Tensor],
    args: &[Tensor],
    leaves: Leaves,
) -> Result<(TensorGraph, Vec<Arc<Storage>>)> {
    let (structure, values) = structure(op, outputs, args)?;
    Ok((graph_of_sizes(&structure, leaves, Some(&values.constants), &[], &[], &values.notes), values.leaves))
}

/// The graph of a structure. Its inputs are the placeholders, then the leaves, then, where constants are not given,
/// one element for each constant.
pub(crate) fn graph_of(structure: &Structure, leaves: Leaves, constants: Option<&[Scalar]>) -> TensorGraph {
    graph_of_sizes(structure, leaves, constants, &[], &[], &[])
}

/// [`graph_of`] a structure that has places in `sizes` in the place of its sizes, which depend on parameters. Without
/// `sizes` they are what they are. `notes` says what the tensors of the steps were made for, as far as it is known.
pub(crate) fn graph_of_sizes(
    structure: &Structure,
    leaves: Leaves,
    constants: Option<&[Scalar]>,
    params: &[Parameter],
    sizes: &[Size],
    notes: &[Option<Arc<str>>],
) -> TensorGraph {
    let mut build = Build::default();
    let ints = &mut build.graph.ints;
    let params: Vec<IntId> = params
        .iter()
        .enumerate()
        .map(|(i, p)| {
            let p = ints.new_param(&format!("n{i}"), p.lo, p.hi);
            ints.param(p)
        })
        .collect();
    build.sizes = sizes.iter().map(|s| s.expression(ints, &params)).collect();
    let kind = match leaves {
        Leaves::Constants => InputKind::Constant,
        Leaves::Arguments => InputKind::Argument,
    };
    let count = |f: fn(&Step) -> bool| structure.steps.iter().filter(|s| f(s)).count();
    let args = count(|s| matches!(s, Step::Argument { .. }));
    let read = count(|s| matches!(s, Step::Leaf { .. }));
    build.graph.inputs = vec![InputKind::Argument; args];
    build.graph.inputs.resize(args + read, kind);
    let (mut leaf, mut constant) = (args, 0);
    let mut ids: Vec<NodeId> = Vec::with_capacity(structure.steps.len());
    for (n, step) in structure.steps.iter().enumerate() {
        let id = match step {
            Step::Argument { slot, dtype, shape } => build.input(*slot, *dtype, shape),
            Step::Leaf { dtype, shape } => {
                leaf += 1;
                build.input(leaf - 1, *dtype, shape)
            }
            Step::Constant { dtype, shape } => {
                constant += 1;
                match constants.map(|c| c.get(constant - 1).copied().unwrap_or(Scalar::zero(*dtype))) {
                    Some(value) => build.full(value, shape),
                    None => build.constant(args + read + constant - 1, *dtype, shape),
                }
            }
            Step::Op(op) => build.add(op, &ids),
        };
        // Numbers that many nodes of a model share are made for none of them.
        if let Some(Some(note)) = notes.get(n)
            && build.depends(id) != Depends::default()
        {
            build.graph.note(id, note);
        }
        ids.push(id);
    }
    for &at in &structure.outputs {
        let Some(&id) = ids.get(at as usize) else { continue };
        let prepared = build.prepared(id);
        // What is prepared is copied into the caller's memory at each call.
        let id = if prepared == id { id } else { build.graph.add(TensorOp::Contiguous { x: prepared }) };
        build.graph.outputs.push(id);
    }
    build.graph
}

#[derive(Default)]
struct Build {
    graph: TensorGraph,
    /// What places stand for; empty where sizes are numbers.
    sizes: Vec<IntId>,
    /// Per node, what it depends on.
    depends: Vec<Depends>,
}

/// Which inputs a node depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Depends {
    argument: bool,
    constant: bool,
}

impl Build {
    fn input(&mut self, slot: usize, dtype: DType, shape: &[usize]) -> NodeId {
        let shape = self.shape(shape);
        self.graph.add(TensorOp::Input { slot, dtype, shape })
    }

    /// A size, or what a place of one stands for.
    fn size(&mut self, s: usize) -> IntId {
        match self.sizes.get(s) {
            Some(&size) => size,
            None => self.graph.ints.constant(s as i64),
        }
    }

    fn shape(&mut self, shape: &[usize]) -> Vec<IntId> {
        shape.iter().map(|&s| self.size(s)).collect()
    }

    fn full(&mut self, value: Scalar, shape: &[usize]) -> NodeId {
        let shape = self.shape(shape);
        self.graph.add(TensorOp::Full { value, shape })
    }

    /// A value that is known when the program runs, repeated.
    fn constant(&mut self, slot: usize, dtype: DType, shape: &[usize]) -> NodeId {
        self.graph.inputs.push(InputKind::Argument);
        let x = self.input(slot, dtype, &[]);
        if shape.is_empty() {
            return x;
        }
        let ones = vec![self.graph.ints.constant(1); shape.len()];
        let x = self.graph.add(TensorOp::Reshape { x, shape: ones });
        let shape = self.shape(shape);
        self.graph.add(TensorOp::Expand { x, shape })
    }

    /// Adds an operation whose operands have been added.
    fn add(&mut self, op: &TensorOp<u32, usize>, ids: &[NodeId]) -> NodeId {
        let id = |&at: &u32| ids.get(at as usize).copied().unwrap_or(NodeId(u32::MAX));
        let op = op.map(id, |&d| self.size(d));
        let mut argument = false;
        op.for_each_child(|&c| argument |= self.depends(c).argument);
        let op = if argument { op.map(|&c| self.prepared(c), |&d| d) } else { op };
        self.graph.add(op)
    }

    fn depends(&mut self, id: NodeId) -> Depends {
        // Operands come before their users.
        while self.depends.len() <= id.0 as usize {
            let Some(node) = self.graph.nodes().get(self.depends.len()) else { return Depends::default() };
            let mut of = Depends::default();
            match node.op {
                TensorOp::Input { slot, .. } => match self.graph.input_kind(slot) {
                    InputKind::Argument => of.argument = true,
                    InputKind::Constant => of.constant = true,
                },
                _ => node.op.for_each_child(|c| {
                    let c = self.depends[c.0 as usize];
                    of = Depends { argument: of.argument | c.argument, constant: of.constant | c.constant };
                }),
            }
            self.depends.push(of);
        }
        self.depends[id.0 as usize]
    }

    /// The node as something that depends on arguments reads it: what is computed from constants alone is
    /// materialised, so that no call computes it again, and movements and the widening of it are read through.
    fn prepared(&mut self, id: NodeId) -> NodeId {
        if self.depends(id) != (Depends { argument: false, constant: true }) {
            return id;
        }
        let (mut moves, mut at) = (Vec::new(), id);
        let computed = loop {
            let op = self.graph.node(at).op.clone();
            match op {
                TensorOp::Reshape { x, .. }
                | TensorOp::Permute { x, .. }
                | TensorOp::Expand { x, .. }
                | TensorOp::Pad { x, .. }
                | TensorOp::Slice { x, .. }
                | TensorOp::Unfold { x, .. } => {
                    moves.push(op);
                    at = x;
                }
                // Half floats that are widened are kept as they are: half of the memory, and what matrix units multiply.
                TensorOp::Cast { x, dtype: DType::F32 }
                    if matches!(self.graph.node(x).dtype, DType::F16 | DType::BF16) =>
                {
                    moves.push(op);
                    at = x;
                }
                TensorOp::Input { .. } | TensorOp::Contiguous { .. } => return id,
                _ => break at,
            }
        };
        let mut out = self.graph.add(TensorOp::Contiguous { x: computed });
        for op in moves.into_iter().rev() {
            out = self.graph.add(op.map(|_| out, |&d| d));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::ConvOptions;

    fn leaf(n: usize) -> Tensor {
        Tensor::from_slice(&vec![1f32; n], &[n]).unwrap()
    }

    #[test]
    fn arguments_come_first_and_leaves_once() {
        let (a, b) = (Tensor::argument(DType::F32, vec![3]).unwrap(), Tensor::argument(DType::F32, vec![3]).unwrap());
        let (c, d) = (leaf(3), leaf(3));
        let y = d.add(&b).unwrap().mul(&c).unwrap().add(&d).unwrap().sub(1).unwrap();
        let (graph, data) = build_graph("test", &[y.clone(), y], &[a, b], Leaves::Constants).unwrap();
        assert_eq!(data.len(), 2, "the leaves d and c, in the order in which they are met");
        use InputKind::{Argument, Constant};
        assert_eq!(graph.inputs, [Argument, Argument, Constant, Constant]);
        assert_eq!(graph.outputs[0], graph.outputs[1]);
        winograph_ir::verify::tensor::verify(&graph).unwrap();
    }

    #[test]
    fn what_constants_alone_give_is_materialised() {
        let x = Tensor::argument(DType::F32, vec![3, 4]).unwrap();
        let scaled = leaf(4).exp().unwrap().mul(2).unwrap();
        let y = x.mul(&scaled).unwrap().add(leaf(4)).unwrap().add(1).unwrap();
        let (graph, _) = build_graph("test", &[y], &[x], Leaves::Constants).unwrap();
        let kept: Vec<_> = graph.nodes().iter().filter(|n| matches!(n.op, TensorOp::Contiguous { .. })).collect();
        let [node] = kept[..] else { panic!("the scale once, neither the leaf nor the number: {kept:?}") };
        assert_eq!(node.shape.len(), 1, "before it is repeated");
        winograph_ir::verify::tensor::verify(&graph).unwrap();
    }

    #[test]
    fn one_storage_under_one_shape_is_one_input() {
        let x = leaf(6);
        let (p, q) = (x.reshape(&[2, 3]).unwrap(), x.reshape(&[2, 3]).unwrap());
        let (graph, data) = build_graph("test", &[p.add(&q).unwrap()], &[], Leaves::Arguments).unwrap();
        assert_eq!((data.len(), graph.nodes().len()), (1, 2));
    }

    /// The compiler finds the structure by itself; this is the form that it finds it in.
    #[test]
    fn a_convolution_is_one_sum_of_products() {
        let x = Tensor::argument(DType::F32, vec![1, 4, 8, 8]).unwrap();
        let w = Tensor::argument(DType::F32, vec![6, 2, 3, 3]).unwrap();
        let options = ConvOptions { groups: 2, ..ConvOptions::padding(1) };
        let y = x.conv2d(&w, None, &options).unwrap();
        let (graph, _) = build_graph("test", &[y], &[x, w], Leaves::Constants).unwrap();
        let reduces: Vec<_> = graph.nodes().iter().filter(|n| matches!(n.op, TensorOp::Reduce { .. })).collect();
        let [TensorOp::Reduce { x, axes, fused: true, .. }] = reduces.iter().map(|n| &n.op).collect::<Vec<_>>()[..]
        else {
            panic!("one fused reduction: {reduces:?}")
        };
        let sizes: Vec<_> = graph.node(*x).shape.iter().map(|&s| graph.ints.as_const(s)).collect();
        assert_eq!(sizes, [1, 2, 3, 8, 8, 2, 3, 3].map(Some), "n, g, k/g, h, w, c/g, r, s");
        assert_eq!(*axes, [5, 6, 7]);
        winograph_ir::verify::tensor::verify(&graph).unwrap();
    }
}
