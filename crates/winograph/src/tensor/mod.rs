//! Lazy tensors.
//!
//! A [`Tensor`] is a handle to a node of a graph; operations add nodes and compute nothing. [`Tensor::realize`],
//! [`Tensor::to_vec`] and [`compile`](crate::compile) compute.
//!
//! Semantics are those of PyTorch's operation of the same name, with these differences throughout: axes may be
//! negative and are `isize`; nothing is promoted implicitly, so operands of different dtypes are an error; every
//! operation that can be given wrong arguments returns a [`Result`](crate::Result).

mod buffer;
mod conv;
mod conv_transpose;
mod create;
mod element;
mod elementwise;
pub(crate) mod gradient;
mod graph;
mod index;
mod math;
mod matmul;
mod movement;
mod node;
pub(crate) mod norm;
mod order;
mod pool;
mod reduce;
pub(crate) mod resident;
mod scatter;
pub(crate) mod shape;
pub(crate) mod storage;
pub(crate) mod structure;
mod trig;
mod winograd;

pub use buffer::TensorBuffer;
pub use conv::ConvOptions;
pub use element::{Element, Number, Operand};
pub(crate) use graph::{Leaves, build_graph, graph_of, graph_of_sizes};
pub use index::SliceRange;
pub(crate) use node::{Op, State, noted};
pub use pool::PoolOptions;
pub use winograd::{Matrices, TensorLevel};

use node::Node;
use std::fmt;
use std::sync::Arc;
use winograph_ir::DType;

/// A lazy, immutable, row-major array of one dtype. Cheap to clone; may be used from several threads.
///
/// ```
/// use winograph::Tensor;
/// let x = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0], &[2, 2])?;
/// let y = x.mul(2.0)?.add(&x.transpose(0, 1)?)?;
/// assert_eq!(y.to_vec::<f32>()?, [3.0, 7.0, 8.0, 12.0]);
/// # Ok::<(), winograph::Error>(())
/// ```
#[derive(Clone)]
pub struct Tensor(pub(crate) Arc<Node>);

impl Tensor {
    /// Size per axis.
    pub fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.0.shape.len()
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        shape::count(&self.0.shape)
    }

    /// Whether the elements have been computed or given.
    pub fn is_realized(&self) -> bool {
        matches!(self.0.state(), State::Ready(_))
    }
}

/// Shows dtype and shape, never elements: showing computes nothing.
impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({}{:?})", self.dtype(), self.shape())
    }
}
