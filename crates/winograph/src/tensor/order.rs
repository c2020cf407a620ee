//! What depends on the order of elements along an axis: running sums, sorting.

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::tensor::shape::axis;
use winograph_ir::{DType, ReduceOp, SumOrder};

impl Tensor {
    /// The sum of each element and those before it along an axis, in the tensor's dtype; half floats accumulate in
    /// `f32`. Takes time in the square of the axis' size.
    ///
    /// ```
    /// # use winograph::Tensor;
    /// assert_eq!(Tensor::from_slice(&[1i32, 2, 3], &[3])?.cumsum(0)?.to_vec::<i32>()?, [1, 3, 6]);
    /// # Ok::<(), winograph::Error>(())
    /// ```
    ///
    /// # Errors
    /// A missing axis.
    pub fn cumsum(&self, along: isize) -> Result<Tensor> {
        self.cumulate(ReduceOp::Add, axis("cumsum", self.shape(), along)?, false, false)
    }

    /// The reduction of each element and those before it (with `exclusive`: of those before it alone), or those after it
    /// with `reverse`, along an axis that there is.
    pub(crate) fn cumulate(&self, op: ReduceOp, along: usize, exclusive: bool, reverse: bool) -> Result<Tensor> {
        let name = "cumulate";
        let size = self.shape()[along];
        if self.numel() == 0 {
            return Ok(self.clone());
        }
        let x = if reverse { self.flip(&[along as isize])? } else { self.clone() };
        let y = x.computed(|x| {
            // Windows that end at each element, with the identity before the first.
            let mut amounts = vec![(0, 0); x.rank()];
            amounts[along] = if exclusive { (size, 0) } else { (size - 1, 0) };
            let x = x.pad_to(name, &amounts, op.identity(x.dtype()))?;
            let x = x.narrow(along as isize, 0, 2 * size - 1)?;
            let windows = x.unfold_to(name, along, size, 1, 1)?;
            windows.reduce(name, op, &[windows.rank() - 1], SumOrder::Any)
        })?;
        if reverse { y.flip(&[along as isize]) } else { Ok(y) }
    }

    /// The `k` largest (or smallest) elements along an axis in order, and their places as `i64`. Of equal elements the
    /// first comes first; NaN counts as the largest. Takes time in the square of the axis' size.
    ///
    /// ```
    /// # use winograph::Tensor;
    /// let (values, places) = Tensor::from_slice(&[3i32, 1, 4, 1, 5], &[5])?.topk(3, 0, true)?;
    /// assert_eq!((values.to_vec::<i32>()?, places.to_vec::<i64>()?), (vec![5, 4, 3], vec![4, 2, 0]));
    /// # Ok::<(), winograph::Error>(())
    /// ```
    ///
    /// # Errors
    /// A missing axis, or fewer elements along it than `k`.
    pub fn topk(&self, k: usize, along: isize, largest: bool) -> Result<(Tensor, Tensor)> {
        let name = "topk";
        let along = axis(name, self.shape(), along)?;
        let size = self.shape()[along];
        if k > size {
            let expected = format!("at most the {size} elements of axis {along}");
            return Err(Error::argument(name, format!("k = {k}"), &[self.shape()], expected));
        }
        // The rank of an element is the number of those that come before it: a new axis runs over these.
        let rank = self.rank();
        let mut full = self.shape().to_vec();
        full.push(size);
        let own = self.unsqueeze(rank as isize)?;
        let other = own.transpose(along as isize, rank as isize)?;
        let own = own.expand_as(name, &full)?;
        let other = other.expand_as(name, &full)?;
        let (mut before, mut equal) = (if largest { other.gt(&own)? } else { other.lt(&own)? }, other.eq(&own)?);
        if self.dtype().is_float() {
            let (own_nan, other_nan) = (own.isnan()?, other.isnan()?);
            equal = equal.logical_or(&own_nan.logical_and(&other_nan)?)?;
            let by_nan = if largest { other_nan.gt(&own_nan)? } else { own_nan.gt(&other_nan)? };
            before = before.logical_or(&by_nan)?;
        }
        let (mine, theirs) =
            (Tensor::iota(name, DType::I64, &full, along)?, Tensor::iota(name, DType::I64, &full, rank)?);
        before = before.logical_or(&equal.logical_and(&theirs.lt(&mine)?)?)?;
        let ranks = before.cast(DType::I64)?.reduce(name, ReduceOp::Add, &[rank], SumOrder::Any)?.contiguous()?;
        // The element of rank r is at the place i with ranks[i] = r.
        let mut wide = self.shape().to_vec();
        wide.insert(along, k);
        let ranks = ranks.unsqueeze(along as isize)?.expand_as(name, &wide)?;
        let hit = ranks.eq(Tensor::iota(name, DType::I64, &wide, along)?)?;
        let place = Tensor::iota(name, DType::I64, &wide, along + 1)?;
        let zero = Tensor::zeros(&wide, DType::I64)?;
        let places =
            hit.where_(&place, &zero)?.reduce(name, ReduceOp::Add, &[along + 1], SumOrder::Any)?.contiguous()?;
        Ok((self.gather(along as isize, &places)?, places))
    }
}
