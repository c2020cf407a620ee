//! The inverse of lookups: elements written to places that an index says.

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::tensor::order::{bisected, combine};
use crate::tensor::shape::axis;
use crate::tensor::{Op, State};
use winograph_ir::{DType, ReduceOp, Scalar, SumOrder};

/// Updates along an axis that places always look through.
const FEW: usize = 512;

/// Steps of looking that take no longer than to sort: some tens of milliseconds.
const MANY: usize = 1 << 26;

impl Tensor {
    /// `self` with `updates[i]` written to the place `i` with `i[axis] = index[i]`; of several for one place the last
    /// counts, or with a reduction all of them and what was there. Places beyond the axis are left out. Each place looks
    /// through the updates along the axis; where these are many they are sorted before.
    ///
    /// ```
    /// # use winograph::Tensor;
    /// let x = Tensor::from_slice(&[1i32, 2, 3, 4], &[4])?;
    /// let index = Tensor::from_slice(&[2i64, 0], &[2])?;
    /// let updates = Tensor::from_slice(&[30i32, 10], &[2])?;
    /// assert_eq!(x.scatter(0, &index, &updates, None)?.to_vec::<i32>()?, [10, 2, 30, 4]);
    /// # Ok::<(), winograph::Error>(())
    /// ```
    ///
    /// # Errors
    /// A missing axis, dtypes that differ, an index that is not `i64`, an index and updates of different shapes, other
    /// axes than the scattered one larger than `self`'s.
    pub fn scatter(&self, along: isize, index: &Tensor, updates: &Tensor, reduce: Option<ReduceOp>) -> Result<Tensor> {
        let name = "scatter";
        let along = axis(name, self.shape(), along)?;
        self.same_dtype(name, updates)?;
        if index.dtype() != DType::I64 {
            return Err(Error::dtype(name, &[index.dtype()], "an index of dtype i64").hint("cast it"));
        }
        let rank = self.rank();
        let fits = index.shape() == updates.shape()
            && index.rank() == rank
            && (0..rank).all(|i| i == along || index.shape()[i] <= self.shape()[i]);
        if !fits {
            let shapes = [self.shape(), index.shape(), updates.shape()];
            return Err(Error::shape(name, &shapes, "index and updates of one shape, none of whose axes is larger"));
        }
        if index.numel() == 0 || self.numel() == 0 {
            return Ok(self.clone());
        }
        let (size, count) = (self.shape()[along], index.shape()[along]);
        let part = |t: &Tensor| {
            let mut out = t.clone();
            for a in (0..rank).filter(|&a| a != along && index.shape()[a] < self.shape()[a]) {
                out = out.narrow(a as isize, 0, index.shape()[a])?;
            }
            Ok::<_, Error>(out)
        };
        let before = part(self)?;
        let after = match count > FEW && index.numel().saturating_mul(size) > MANY {
            true => by_sorting(&before, along, index, updates, reduce)?,
            false => by_looking(&before, along, index, updates, reduce)?,
        };
        if after.shape() == self.shape() {
            return Ok(after);
        }
        // What the index does not reach along other axes stays.
        let amounts: Vec<(usize, usize)> = (0..rank).map(|a| (0, self.shape()[a] - after.shape()[a])).collect();
        let mut inside: Option<Tensor> = None;
        for (a, _) in amounts.iter().enumerate().filter(|(_, p)| p.1 > 0) {
            let here = Tensor::iota(name, DType::I64, self.shape(), a)?.lt(after.shape()[a] as i64)?;
            inside = Some(match inside {
                Some(i) => i.logical_and(&here)?,
                None => here,
            });
        }
        let wide = after.pad_to(name, &amounts, Scalar::zero(self.dtype()))?;
        match inside {
            Some(inside) => inside.where_(&wide, self),
            None => Ok(wide),
        }
    }
}

/// Each place looks through all updates.
fn by_looking(
    before: &Tensor,
    along: usize,
    index: &Tensor,
    updates: &Tensor,
    reduce: Option<ReduceOp>,
) -> Result<Tensor> {
    let name = "scatter";
    let rank = before.rank();
    // [.., place along the axis, .., number of the update]
    let mut full = index.shape().to_vec();
    full[along] = before.shape()[along];
    full.push(index.shape()[along]);
    let spread = |t: &Tensor| -> Result<Tensor> {
        t.unsqueeze(rank as isize)?.transpose(along as isize, rank as isize)?.expand_as(name, &full)
    };
    let hit = spread(index)?.eq(Tensor::iota(name, DType::I64, &full, along)?)?;
    match reduce {
        None => {
            let number = Tensor::iota(name, DType::I64, &full, rank)?;
            let none = Tensor::full(&full, -1i64)?;
            let last = hit.where_(&number, &none)?.reduce(name, ReduceOp::Max, &[rank], SumOrder::Any)?;
            // Read twice: which update it is, and whether there is one.
            let last = last.contiguous()?;
            last.ge(0)?.where_(&updates.gather(along as isize, &last.maximum(0)?)?, before)
        }
        Some(op) => before.computed(|before| {
            let updates = spread(&updates.cast(before.dtype())?)?;
            let nothing = Tensor::full_scalar(name, op.identity(before.dtype()), &full)?;
            let all = hit.where_(&updates, &nothing)?.reduce(name, op, &[rank], SumOrder::Any)?;
            before.binary(name, combine(op), &all)
        }),
    }
}

/// Each place searches the updates, which are sorted by where they go: those for one place are beside each other, in order.
fn by_sorting(
    before: &Tensor,
    along: usize,
    index: &Tensor,
    updates: &Tensor,
    reduce: Option<ReduceOp>,
) -> Result<Tensor> {
    let name = "scatter";
    let axis = along as isize;
    let (size, count) = (before.shape()[along], index.shape()[along]);
    // What is repeated is sorted once.
    let index_once = match index.0.state() {
        State::Lazy(op) => match &*op {
            Op::Expand { x, .. } if x.rank() == index.rank() && x.shape()[along] == count => x.clone(),
            _ => index.clone(),
        },
        _ => index.clone(),
    };
    let (sorted, numbers) = index_once.topk(count, axis, false)?;
    let (sorted, numbers) = (sorted.contiguous()?, numbers.contiguous()?);
    // How many updates are for this place or one before it: no fewer than `low`, no more than `high`.
    let mut places = sorted.shape().to_vec();
    places[along] = size;
    let at = Tensor::iota(name, DType::I64, &places, along)?;
    let (low, high) = (Tensor::zeros(&places, DType::I64)?, Tensor::full(&places, count as i64)?);
    let low = bisected(low, high, count, |middle| sorted.gather(axis, &middle.minimum(count as i64 - 1)?)?.le(&at))?;
    let last = low.sub(1)?.maximum(0)?.contiguous()?;
    let hit = sorted.gather(axis, &last)?.eq(&at)?.expand_as(name, before.shape())?;
    match reduce {
        None => {
            let number = numbers.gather(axis, &last)?.expand_as(name, before.shape())?;
            hit.where_(&updates.gather(axis, &number)?, before)
        }
        Some(op) => before.computed(|before| {
            let updates = updates.cast(before.dtype())?;
            let mut sums = updates.gather(axis, &numbers.expand_as(name, updates.shape())?)?.contiguous()?;
            // After each step an update stands for twice as many before it that are for the same place.
            let mut distance = 1;
            while distance < count {
                let mut amounts = vec![(0, 0); sums.rank()];
                amounts[along] = (distance, 0);
                let earlier = |t: &Tensor, fill: Scalar| t.pad_to(name, &amounts, fill)?.narrow(axis, 0, count);
                let same = earlier(&sorted, Scalar::zero(DType::I64))?.eq(&sorted)?.expand_as(name, sums.shape())?;
                let more = earlier(&sums, op.identity(sums.dtype()))?.binary(name, combine(op), &sums)?;
                sums = same.where_(&more, &sums)?.contiguous()?;
                distance *= 2;
            }
            let all = sums.gather(axis, &last.expand_as(name, before.shape())?)?;
            hit.where_(&before.binary(name, combine(op), &all)?, before)
        }),
    }
}
