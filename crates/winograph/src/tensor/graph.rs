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
        self.graph.add(op)
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
