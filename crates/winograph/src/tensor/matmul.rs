//! Products of matrices.

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::tensor::shape::broadcast;
use winograph_ir::{DType, ReduceOp, SumOrder};

impl Tensor {
    /// The product of vectors and matrices: `[.., m, k] x [.., k, n]` gives `[.., m, n]` with the axes in front
    /// broadcast. A first operand `[k]` counts as a row, a second one as a column, and that axis is dropped from the
    /// result. Integers wrap in their dtype; half floats are accumulated in `f32`.
    ///
    /// ```
    /// # use winograph::{DType, Tensor};
    /// let a = Tensor::ones(&[7, 2, 3], DType::F32)?;
    /// let b = Tensor::ones(&[3, 4], DType::F32)?;
    /// assert_eq!(a.matmul(&b)?.shape(), [7, 2, 4]);
    /// # Ok::<(), winograph::Error>(())
    /// ```
    ///
    /// # Errors
    /// Different dtypes, `bool`, operands without axes, inner sizes that differ, axes in front that do not broadcast.
    pub fn matmul(&self, rhs: &Tensor) -> Result<Tensor> {
        let name = "matmul";
        self.same_dtype(name, rhs)?;
        if self.dtype() == DType::Bool {
            return Err(Error::dtype(name, &[DType::Bool], "a number's dtype").hint("cast the operands first"));
        }
        let shapes = [self.shape(), rhs.shape()];
        if self.rank() == 0 || rhs.rank() == 0 {
            return Err(Error::shape(name, &shapes, "at least one axis in each operand").hint("use mul"));
        }
        let (row, column) = (self.rank() == 1, rhs.rank() == 1);
        let a = if row { self.unsqueeze(0)? } else { self.clone() };
        let b = if column { rhs.unsqueeze(1)? } else { rhs.clone() };
        let ([a_front @ .., m, k], [b_front @ .., k2, n]) = (a.shape(), b.shape()) else {
            return Err(Error::shape(name, &shapes, "vectors or matrices"));
        };
        if k != k2 {
            let expected = format!("equal inner sizes, where there are {k} and {k2}");
            return Err(Error::shape(name, &shapes, expected));
        }
        let front = broadcast(name, &[a_front, b_front])
            .map_err(|_| Error::shape(name, &shapes, "axes in front of the matrices that broadcast"))?;

        // [.., m, 1, k] * [.., 1, n, k], summed over k.
        let compute = self.dtype().compute();
        let full: Vec<usize> = front.iter().copied().chain([*m, *n, *k]).collect();
        let a_shape: Vec<usize> = a_front.iter().copied().chain([*m, 1, *k]).collect();
        let b_shape: Vec<usize> = b_front.iter().copied().chain([1, *n, *k]).collect();
        let x = a.cast(compute)?.reshape_to(name, &a_shape)?.expand_as(name, &full)?;
        let y = b.cast(compute)?.transpose(-1, -2)?.reshape_to(name, &b_shape)?.expand_as(name, &full)?;
        let sum = x.mul(&y)?.reduce(name, ReduceOp::Add, &[full.len() - 1], SumOrder::Any)?;

        let mut shape = front;
        shape.extend((!row).then_some(*m));
        shape.extend((!column).then_some(*n));
        sum.cast(self.dtype())?.reshape_to(name, &shape)
    }

    /// `self · weightᵀ + bias` for `self` `[.., in]`, `weight` `[out, in]` (or `[in]`) and `bias` `[out]`.
    ///
    /// # Errors
    /// Different dtypes, `bool`, sizes that do not fit.
    pub fn linear(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let name = "linear";
        let shapes = [self.shape(), weight.shape()];
        let inner = weight.shape().last();
        if self.rank() == 0 || !matches!(weight.rank(), 1 | 2) || self.shape().last() != inner {
            return Err(Error::shape(name, &shapes, "an input [.., in] and a weight [out, in] or [in]"));
        }
        let product = if weight.rank() == 2 { self.matmul(&weight.transpose(0, 1)?)? } else { self.matmul(weight)? };
        let Some(bias) = bias else { return Ok(product) };
        let fits = bias.numel() == 1 || (weight.rank() == 2 && bias.shape() == [weight.shape()[0]]);
        if bias.rank() > 1 || !fits {
            let shapes = [shapes[0], shapes[1], bias.shape()];
            return Err(Error::shape(name, &shapes, "a bias [out], one value for each output"));
        }
        product.binary(name, winograph_ir::BinaryOp::Add, bias)
    }
}
