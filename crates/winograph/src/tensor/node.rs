//! The node behind a tensor: an operation that has not been computed, or the elements.

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::tensor::shape::check_size;
use crate::tensor::storage::Storage;
use std::cell::RefCell;
use std::sync::{Arc, PoisonError, RwLock};
use winograph_ir::tensor::TensorOp;
use winograph_ir::{DType, Scalar};

/// An operation on lazy tensors. `Input` does not occur: see [`State`].
pub(crate) type Op = TensorOp<Tensor, usize>;

thread_local! {
    static NOTE: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

/// Runs `f`; the tensors that it makes are noted to be made for `name`, a node of a model, which reports tell.
pub(crate) fn noted<R>(name: &str, f: impl FnOnce() -> R) -> R {
    struct Outer(Option<Arc<str>>);
    impl Drop for Outer {
        fn drop(&mut self) {
            NOTE.set(self.0.take());
        }
    }
    let _outer = Outer(NOTE.replace(Some(name.into())));
    f()
}

/// What is known of a tensor's value.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// How to compute it.
    Lazy(Arc<Op>),
    /// The elements in row-major order.
    Ready(Arc<Storage>),
    /// Nothing: an argument of a function that is being traced.
    Argument,
}

/// A tensor's dtype, shape and value.
pub(crate) struct Node {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    /// Axes whose size is a bounded parameter, with the least and the greatest size: of known elements alone.
    pub(crate) bounds: Vec<(usize, usize, usize)>,
    /// What it was made for, where somebody said so: see [`noted`]. No part of what it is.
    pub(crate) note: Option<Arc<str>>,
    state: RwLock<State>,
}

impl Node {
    /// The value as it is known now.
    pub(crate) fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps the computed elements and forgets how they came about, so that a long chain of realized tensors does not
    /// keep its history alive. The first of several concurrent results stays.
    pub(crate) fn set_ready(&self, data: Arc<Storage>) {
        let before = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            if !matches!(*state, State::Lazy(_)) {
                return;
            }
            std::mem::replace(&mut *state, State::Ready(data))
        };
        // Dropped after the lock is released: it may free many nodes.
        drop(before);
    }
}

/// Frees a chain of nodes in a loop: its depth must not become the stack's.
impl Drop for Node {
    fn drop(&mut self) {
        let mut pending: Vec<Arc<Op>> = Vec::new();
        let take = |node: &mut Node, pending: &mut Vec<Arc<Op>>| {
            let state = node.state.get_mut().unwrap_or_else(PoisonError::into_inner);
            if let State::Lazy(op) = std::mem::replace(state, State::Argument) {
                pending.push(op);
            }
        };
        take(self, &mut pending);
        while let Some(op) = pending.pop() {
            let Some(op) = Arc::into_inner(op) else { continue };
            let mut children: Vec<Tensor> = Vec::new();
            op.for_each_child(|c| children.push(c.clone()));
            drop(op);
            for child in children {
                if let Some(mut node) = Arc::into_inner(child.0) {
                    take(&mut node, &mut pending);
                }
            }
        }
    }
}

impl Tensor {
    /// A tensor that `op` computes. Sizes are checked; a tensor without elements needs no computation and forgets it.
    pub(crate) fn make(name: &'static str, op: Op, dtype: DType, shape: Vec<usize>) -> Result<Tensor> {
        let op = match check_size(name, dtype, &shape)? {
            0 => Op::Full { value: Scalar::zero(dtype), shape: shape.clone() },
            _ => op,
        };
        Ok(Tensor::with_state(State::Lazy(Arc::new(op)), dtype, shape))
    }

    /// One value without axes.
    pub(crate) fn constant(value: Scalar) -> Tensor {
        let op = Op::Full { value, shape: vec![] };
        Tensor::with_state(State::Lazy(Arc::new(op)), value.dtype(), vec![])
    }

    /// A tensor with known elements; the caller has checked that there are as many bytes as shape and dtype say.
    pub(crate) fn ready(data: Arc<Storage>, dtype: DType, shape: Vec<usize>) -> Tensor {
        Tensor::with_state(State::Ready(data), dtype, shape)
    }

    /// An argument of a function to be traced.
    pub(crate) fn argument(dtype: DType, shape: Vec<usize>) -> Result<Tensor> {
        check_size("compile", dtype, &shape)?;
        Ok(Tensor::with_state(State::Argument, dtype, shape))
    }

    fn with_state(state: State, dtype: DType, shape: Vec<usize>) -> Tensor {
        let note = NOTE.with_borrow(Clone::clone);
        Tensor(Arc::new(Node { dtype, shape, bounds: vec![], note, state: RwLock::new(state) }))
    }

    /// A tensor with known elements of which some sizes are bounded parameters.
    pub(crate) fn ready_bounded(
        data: Arc<Storage>,
        dtype: DType,
        shape: Vec<usize>,
        bounds: Vec<(usize, usize, usize)>,
    ) -> Tensor {
        Tensor(Arc::new(Node { dtype, shape, bounds, note: None, state: RwLock::new(State::Ready(data)) }))
    }

    /// The one value of a constant tensor, if it is known to be one.
    pub(crate) fn full_value(&self) -> Option<Scalar> {
        match self.0.state() {
            State::Lazy(op) => match *op {
                Op::Full { value, .. } => Some(value),
                _ => None,
            },
            _ => None,
        }
    }

    /// Identity of the node, for maps; never for order.
    pub(crate) fn key(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }

    /// An error unless the dtypes agree.
    pub(crate) fn same_dtype(&self, name: &'static str, other: &Tensor) -> Result<()> {
        if self.dtype() == other.dtype() {
            return Ok(());
        }
        Err(Error::dtype(name, &[self.dtype(), other.dtype()], "operands of one dtype")
            .hint("cast one of them; nothing is promoted implicitly"))
    }

    /// An error unless the dtype is a floating one.
    pub(crate) fn require_float(&self, name: &'static str) -> Result<()> {
        if self.dtype().is_float() {
            return Ok(());
        }
        Err(Error::dtype(name, &[self.dtype()], "a floating dtype").hint("cast it first"))
    }
}
