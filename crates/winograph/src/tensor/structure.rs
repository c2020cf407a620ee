//! What lazy tensors are made of, apart from values: what decides whether two graphs are one.

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::tensor::node::{Op, State};
use crate::tensor::storage::Storage;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use winograph_ir::tensor::TensorOp;
use winograph_ir::{DType, Scalar};

/// A node of a [`Structure`]; operands are places in its list and come before their users.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// A placeholder, by its number.
    Argument { slot: usize, dtype: DType, shape: Vec<usize> },
    /// Known elements: the next of the leaves.
    Leaf { dtype: DType, shape: Vec<usize> },
    /// One value everywhere: the next of the constants.
    Constant { dtype: DType, shape: Vec<usize> },
    /// An operation.
    Op(TensorOp<u32, usize>),
}

/// Steps and the places of the results among them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Structure {
    pub(crate) steps: Vec<Step>,
    pub(crate) outputs: Vec<u32>,
}

/// Values that fill a [`Structure`], in the order of its steps.
#[derive(Default)]
pub(crate) struct Values {
    pub(crate) leaves: Vec<Arc<Storage>>,
    pub(crate) constants: Vec<Scalar>,
    /// What the tensors of the steps were made for, one entry for each step.
    pub(crate) notes: Vec<Option<Arc<str>>>,
    /// Sizes that are bounded parameters.
    pub(crate) bounded: Vec<Bounded>,
}

/// A size of a leaf that may be any from `lo` to `hi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Bounded {
    pub(crate) step: usize,
    pub(crate) axis: usize,
    pub(crate) lo: usize,
    pub(crate) hi: usize,
}

/// Takes the graph that computes `outputs` apart. `args` are its placeholders; leaves are listed in the order in which
/// they are met, each once.
///
/// # Errors
/// A placeholder that is not among `args`.
pub(crate) fn structure(op: &'static str, outputs: &[Tensor], args: &[Tensor]) -> Result<(Structure, Values)> {
    let mut walk = Walk::default();
    for (slot, arg) in args.iter().enumerate() {
        let step = Step::Argument { slot, dtype: arg.dtype(), shape: arg.shape().to_vec() };
        let at = walk.push(step, None);
        walk.places.insert(arg.key(), at);
    }
    for t in outputs {
        let at = walk.visit(op, t)?;
        walk.structure.outputs.push(at);
    }
    Ok((walk.structure, walk.values))
}

#[derive(Default)]
struct Walk {
    structure: Structure,
    values: Values,
    /// By the address of the node. All of them stay alive meanwhile, through `held` and the outputs.
    places: FxHashMap<usize, u32>,
    /// Another thread may realize a node meanwhile, so each is looked at once and its operation kept.
    held: Vec<Arc<Op>>,
    /// By the address of the elements; few have several shapes.
    leaves: FxHashMap<(usize, DType), Vec<u32>>,
}

impl Walk {
    fn push(&mut self, step: Step, note: Option<Arc<str>>) -> u32 {
        self.structure.steps.push(step);
        self.values.notes.push(note);
        self.structure.steps.len() as u32 - 1
    }

    fn leaf(&mut self, t: &Tensor, data: Arc<Storage>) -> u32 {
        let key = (Arc::as_ptr(&data) as usize, t.dtype());
        let steps = &self.structure.steps;
        let same = |&at: &u32| matches!(steps.get(at as usize), Some(Step::Leaf { shape, .. }) if shape == t.shape());
        if let Some(found) = self.leaves.get(&key).and_then(|all| all.iter().copied().find(same)) {
            return found;
        }
        self.values.leaves.push(data);
        let at = self.push(Step::Leaf { dtype: t.dtype(), shape: t.shape().to_vec() }, None);
        self.leaves.entry(key).or_default().push(at);
        let bounds = t.0.bounds.iter().map(|&(axis, lo, hi)| Bounded { step: at as usize, axis, lo, hi });
        self.values.bounded.extend(bounds);
        at
    }

    /// Adds what a tensor is made of, operands first, without recursion.
    fn visit(&mut self, name: &'static str, root: &Tensor) -> Result<u32> {
        let mut stack: Vec<(Tensor, Option<Arc<Op>>)> = vec![(root.clone(), None)];
        while let Some((t, op)) = stack.pop() {
            if self.places.contains_key(&t.key()) {
                continue;
            }
            let at = match op {
                Some(op) => {
                    let step = self.step(&op);
                    self.held.push(op);
                    self.push(step, t.0.note.clone())
                }
                None => match t.0.state() {
                    State::Argument => return Err(Error::Unbound { op: name, shape: t.shape().to_vec() }),
                    State::Ready(data) => self.leaf(&t, data),
                    State::Lazy(op) => {
                        stack.push((t, Some(op.clone())));
                        let first = stack.len();
                        op.for_each_child(|c| stack.push((c.clone(), None)));
                        stack[first..].reverse();
                        continue;
                    }
                },
            };
            self.places.insert(t.key(), at);
        }
        self.places
            .get(&root.key())
            .copied()
            .ok_or(Error::Execution { op: name, cause: "a tensor without a node".into() })
    }

    /// An operation whose operands have been added.
    fn step(&mut self, op: &Op) -> Step {
        match op {
            // A tensor without elements is nothing to compute.
            TensorOp::Full { value, shape } if !shape.contains(&0) => {
                self.values.constants.push(*value);
                Step::Constant { dtype: value.dtype(), shape: shape.clone() }
            }
            op => Step::Op(op.map(|t| self.places.get(&t.key()).copied().unwrap_or(u32::MAX), |&d| d)),
        }
    }
}
