//! Memory of the caller's for results.

use crate::error::{Error, Result};
use crate::tensor::shape::check_size;
use crate::tensor::storage::Storage;
use crate::tensor::{Element, Tensor};
use std::sync::Arc;
use winograph_ir::DType;

/// Elements that a compiled function may write again and again: see
/// [`Function::call_into`](crate::Function::call_into).
#[derive(Debug)]
pub struct TensorBuffer {
    dtype: DType,
    shape: Vec<usize>,
    data: Storage,
}

impl TensorBuffer {
    /// Zeros of a dtype and shape.
    ///
    /// # Errors
    /// A shape with more elements than can be counted, or no memory.
    pub fn new(dtype: DType, shape: &[usize]) -> Result<TensorBuffer> {
        let count = check_size("TensorBuffer::new", dtype, shape)?;
        Ok(TensorBuffer { dtype, shape: shape.to_vec(), data: Storage::zeroed(count * dtype.size())? })
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Size per axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements in row-major order.
    ///
    /// # Errors
    /// Another dtype than `T`'s.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if T::DTYPE != self.dtype {
            return Err(Error::dtype("to_vec", &[self.dtype], format!("a buffer of {}", T::DTYPE)));
        }
        self.data.to_vec("to_vec")
    }

    /// The elements as a tensor; nothing is copied.
    pub fn into_tensor(self) -> Tensor {
        Tensor::ready(Arc::new(self.data), self.dtype, self.shape)
    }

    pub(crate) fn storage_mut(&mut self) -> &mut Storage {
        &mut self.data
    }
}
