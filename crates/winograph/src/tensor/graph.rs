//! From lazy tensors to the compiler's graph.

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::tensor::node::{Op, State};
use crate::tensor::storage::Storage;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use winograph_ir::DType;
use winograph_ir::tensor::{InputKind, NodeId, TensorGraph, TensorOp};

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
    let mut build = Build::default();
    build.graph.inputs = vec![InputKind::Argument; args.len()];
    for (slot, arg) in args.iter().enumerate() {
        let id = build.input(slot, arg);
        build.ids.insert(arg.key(), id);
    }
    let kind = match leaves {
        Leaves::Constants => InputKind::Constant,
        Leaves::Arguments => InputKind::Argument,
    };
    for t in outputs {
        let id = build.visit(op, t, args.len(), kind)?;
        let prepared = build.prepared(id);
        // What is prepared is copied into the caller's memory at each call.
        let id = if prepared == id { id } else { build.graph.add(TensorOp::Contiguous { x: prepared }) };
        build.graph.outputs.push(id);
    }
    Ok((build.graph, build.data))
}

#[derive(Default)]
struct Build {
    graph: TensorGraph,
    /// By the address of the node. All of them stay alive meanwhile, through `held` and the outputs.
    ids: FxHashMap<usize, NodeId>,
    /// Another thread may realize a node meanwhile, so each is looked at once and its operation kept.
    held: Vec<Arc<Op>>,
    leaves: FxHashMap<(usize, DType, Vec<usize>), NodeId>,
    data: Vec<Arc<Storage>>,
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
    fn input(&mut self, slot: usize, t: &Tensor) -> NodeId {
        let shape = t.shape().iter().map(|&s| self.graph.ints.constant(s as i64)).collect();
        self.graph.add(TensorOp::Input { slot, dtype: t.dtype(), shape })
    }

    /// Adds what a tensor is made of, operands first, without recursion.
    fn visit(&mut self, name: &'static str, root: &Tensor, args: usize, kind: InputKind) -> Result<NodeId> {
        let mut stack: Vec<(Tensor, Option<Arc<Op>>)> = vec![(root.clone(), None)];
        while let Some((t, op)) = stack.pop() {
            if self.ids.contains_key(&t.key()) {
                continue;
            }
            let id = match op {
                Some(op) => {
                    let id = self.add(&op);
                    self.held.push(op);
                    id
                }
                None => match t.0.state() {
                    State::Argument => {
                        return Err(Error::Unbound { op: name, shape: t.shape().to_vec() });
                    }
                    State::Ready(data) => {
                        let key = (Arc::as_ptr(&data) as usize, t.dtype(), t.shape().to_vec());
                        match self.leaves.get(&key) {
                            Some(&id) => id,
                            None => {
                                let id = self.input(args + self.data.len(), &t);
                                self.data.push(data);
                                self.graph.inputs.push(kind);
                                self.leaves.insert(key, id);
                                id
                            }
                        }
                    }
                    State::Lazy(op) => {
                        let mut children: Vec<Tensor> = Vec::new();
                        op.for_each_child(|c| children.push(c.clone()));
                        stack.push((t, Some(op)));
                        stack.extend(children.into_iter().rev().map(|c| (c, None)));
                        continue;
                    }
                },
            };
            self.ids.insert(t.key(), id);
        }
        self.ids.get(&root.key()).copied().ok_or(Error::Execution { op: name, cause: "a tensor without a node".into() })
    }

    /// Adds an operation whose operands have been added.
    fn add(&mut self, op: &Op) -> NodeId {
        let (ids, ints) = (&self.ids, &mut self.graph.ints);
        let op = op.map(|t| ids.get(&t.key()).copied().unwrap_or(NodeId(u32::MAX)), |&d| ints.constant(d as i64));
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
    /// materialised, so that no call computes it again, and movements of it are read through.
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
