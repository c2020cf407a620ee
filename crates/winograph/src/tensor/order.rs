//! What depends on the order of elements along an axis: running sums, sorting.

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::tensor::shape::{MAX_RANK, axis, count};
use winograph_ir::{BinaryOp, DType, ReduceOp, Scalar, SumOrder};

/// Longest axis whose running sums are each summed on their own. On longer ones blocks are.
const SHORT_SCAN: usize = 64;

/// Elements of a block of running sums.
const SCAN_BLOCK: usize = 32;

/// Longest axis that is always sorted by comparing each element with all others. On longer ones blocks are, and merged.
const SHORT_SORT: usize = 512;

/// Comparisons that take about a millisecond: it takes longer to compile merges.
const FEW_COMPARISONS: usize = 1 << 22;

/// Elements of a block that is sorted in this way.
const SORT_BLOCK: usize = 128;

impl Tensor {
    /// The sum of each element and those before it along an axis, in the tensor's dtype; half floats accumulate in
    /// `f32`. A long axis is summed in blocks, each beginning with the sum of those before it.
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
        if self.numel() == 0 {
            return Ok(self.clone());
        }
        let x = if reverse { self.flip(&[along as isize])? } else { self.clone() };
        let y = x.computed(|x| {
            // Windows have an axis more.
            if x.shape()[along] <= SHORT_SCAN && x.rank() < MAX_RANK {
                return windows(x, op, along, exclusive);
            }
            scan(&flat(name, x, along)?, op, exclusive)?.reshape_to(name, x.shape())
        })?;
        if reverse { y.flip(&[along as isize]) } else { Ok(y) }
    }

    /// The `k` largest (or smallest) elements along an axis in order, and their places as `i64`. Of equal elements the
    /// first comes first; NaN counts as the largest. A long axis is sorted in blocks, of which the first `k` are merged.
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
        let few = self.numel().saturating_mul(size) <= FEW_COMPARISONS;
        match size > SHORT_SORT && !few && k > 0 {
            true => by_merging(self, k, along, largest),
            false => by_rank(self, k, along, largest),
        }
    }
}

/// As three axes, of which the one in the middle is this one.
fn flat(name: &'static str, x: &Tensor, along: usize) -> Result<Tensor> {
    let shape = x.shape();
    x.reshape_to(name, &[count(&shape[..along]), shape[along], count(&shape[along + 1..])])
}

/// Running reductions, each of its own window.
fn windows(x: &Tensor, op: ReduceOp, along: usize, exclusive: bool) -> Result<Tensor> {
    let name = "cumulate";
    let size = x.shape()[along];
    // Windows that end at each element, with the identity before the first.
    let mut amounts = vec![(0, 0); x.rank()];
    amounts[along] = if exclusive { (size, 0) } else { (size - 1, 0) };
    let x = x.pad_to(name, &amounts, op.identity(x.dtype()))?;
    let x = x.narrow(along as isize, 0, 2 * size - 1)?;
    let windows = x.unfold_to(name, along, size, 1, 1)?;
    windows.reduce(name, op, &[windows.rank() - 1], SumOrder::Any)
}

/// Running reductions along the middle one of three axes: within blocks, and with those of the blocks before.
fn scan(x: &Tensor, op: ReduceOp, exclusive: bool) -> Result<Tensor> {
    let name = "cumulate";
    let [outer, size, inner] = [x.shape()[0], x.shape()[1], x.shape()[2]];
    if size <= SHORT_SCAN {
        return windows(x, op, 1, exclusive);
    }
    let blocks = size.div_ceil(SCAN_BLOCK);
    let identity = op.identity(x.dtype());
    let rest = blocks * SCAN_BLOCK - size;
    let x = match exclusive {
        // Each element where the next one was.
        true => x.pad_to(name, &[(0, 0), (1, rest), (0, 0)], identity)?.narrow(1, 0, blocks * SCAN_BLOCK)?,
        false => x.pad_to(name, &[(0, 0), (0, rest), (0, 0)], identity)?,
    };
    let x = x.reshape_to(name, &[outer, blocks, SCAN_BLOCK, inner])?;
    let within = windows(&x, op, 2, false)?.contiguous()?;
    let sums = within.narrow(2, SCAN_BLOCK - 1, 1)?.reshape_to(name, &[outer, blocks, inner])?;
    let before = scan(&sums, op, true)?.contiguous()?;
    let before = before.reshape_to(name, &[outer, blocks, 1, inner])?.expand_as(name, within.shape())?;
    let all = before.binary(name, combine(op), &within)?;
    all.reshape_to(name, &[outer, blocks * SCAN_BLOCK, inner])?.narrow(1, 0, size)
}

/// The operation of which a reduction is made.
pub(super) fn combine(op: ReduceOp) -> BinaryOp {
    match op {
        ReduceOp::Add => BinaryOp::Add,
        ReduceOp::Mul => BinaryOp::Mul,
        ReduceOp::Max => BinaryOp::Max,
        ReduceOp::Min => BinaryOp::Min,
    }
}

/// Where an element comes before another by its size, and where both are as large; NaN counts as the largest.
fn order(one: &Tensor, other: &Tensor, largest: bool) -> Result<(Tensor, Tensor)> {
    let (mut before, mut equal) = (if largest { one.gt(other)? } else { one.lt(other)? }, one.eq(other)?);
    if one.dtype().is_float() {
        let (one_nan, other_nan) = (one.isnan()?, other.isnan()?);
        equal = equal.logical_or(&one_nan.logical_and(&other_nan)?)?;
        let by_nan = if largest { one_nan.gt(&other_nan)? } else { other_nan.gt(&one_nan)? };
        before = before.logical_or(&by_nan)?;
    }
    Ok((before, equal))
}

/// The first `k` of an axis by the number of elements that come before each.
fn by_rank(x: &Tensor, k: usize, along: usize, largest: bool) -> Result<(Tensor, Tensor)> {
    let name = "topk";
    // The rank of an element is the number of those that come before it: a new axis runs over these.
    let rank = x.rank();
    let mut full = x.shape().to_vec();
    full.push(x.shape()[along]);
    let own = x.unsqueeze(rank as isize)?;
    let other = own.transpose(along as isize, rank as isize)?;
    let own = own.expand_as(name, &full)?;
    let other = other.expand_as(name, &full)?;
    let (mut before, equal) = order(&other, &own, largest)?;
    let (mine, theirs) = (Tensor::iota(name, DType::I64, &full, along)?, Tensor::iota(name, DType::I64, &full, rank)?);
    before = before.logical_or(&equal.logical_and(&theirs.lt(&mine)?)?)?;
    let ranks = before.cast(DType::I64)?.reduce(name, ReduceOp::Add, &[rank], SumOrder::Any)?.contiguous()?;
    // The element of rank r is at the place i with ranks[i] = r.
    let mut wide = x.shape().to_vec();
    wide.insert(along, k);
    let ranks = ranks.unsqueeze(along as isize)?.expand_as(name, &wide)?;
    let hit = ranks.eq(Tensor::iota(name, DType::I64, &wide, along)?)?;
    let place = Tensor::iota(name, DType::I64, &wide, along + 1)?;
    let zero = Tensor::zeros(&wide, DType::I64)?;
    let places = hit.where_(&place, &zero)?.reduce(name, ReduceOp::Add, &[along + 1], SumOrder::Any)?.contiguous()?;
    Ok((x.gather(along as isize, &places)?, places))
}

/// The first `k` of an axis: of its blocks, which are merged by twos.
fn by_merging(x: &Tensor, k: usize, along: usize, largest: bool) -> Result<(Tensor, Tensor)> {
    let name = "topk";
    let line = flat(name, x, along)?.permute_to(name, &[0, 2, 1])?;
    let (outer, inner, size) = (line.shape()[0], line.shape()[1], line.shape()[2]);
    let mut runs = size.div_ceil(SORT_BLOCK);
    let mut length = SORT_BLOCK;
    // What fills the last block comes behind all others: it is no smaller in the order, and stands behind them.
    let fill = match largest {
        true => ReduceOp::Max.identity(x.dtype()),
        false if x.dtype().is_float() => Scalar::from_f64(x.dtype(), f64::NAN),
        false => ReduceOp::Min.identity(x.dtype()),
    };
    let filled = line.pad_to(name, &[(0, 0), (0, 0), (0, runs * length - size)], fill)?;
    let blocks = filled.reshape_to(name, &[outer * inner, runs, length])?;
    let (values, places) = by_rank(&blocks, k.min(length), 2, largest)?;
    length = k.min(length);
    let first = Tensor::iota(name, DType::I64, places.shape(), 1)?.mul(SORT_BLOCK as i64)?;
    let (mut values, mut places) = (values.contiguous()?, places.add(&first)?.contiguous()?);
    while runs > 1 {
        if runs % 2 == 1 {
            values = values.pad_to(name, &[(0, 0), (0, 1), (0, 0)], fill)?.contiguous()?;
            places = places.pad_to(name, &[(0, 0), (0, 1), (0, 0)], Scalar::zero(DType::I64))?.contiguous()?;
        }
        runs = runs.div_ceil(2);
        let pairs = [outer * inner, runs, 2 * length];
        let (two, two_places) = (values.reshape_to(name, &pairs)?, places.reshape_to(name, &pairs)?);
        let merged = merge(&two, k.min(2 * length), largest)?.contiguous()?;
        values = two.gather(2, &merged)?.contiguous()?;
        places = two_places.gather(2, &merged)?.contiguous()?;
        length = k.min(2 * length);
    }
    let shaped = |t: Tensor| -> Result<Tensor> {
        let mut shape = x.shape().to_vec();
        shape[along] = k;
        t.narrow(2, 0, k)?.reshape_to(name, &[outer, inner, k])?.permute_to(name, &[0, 2, 1])?.reshape_to(name, &shape)
    };
    Ok((shaped(values)?, shaped(places)?))
}

/// The least number from `low` to `high`, which are at most `length` apart, that is not `before`: those that are come first.
pub(super) fn bisected(
    mut low: Tensor,
    mut high: Tensor,
    length: usize,
    before: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    for _ in 0..=length.ilog2() {
        let middle = low.add(&high)?.binary("bisected", BinaryOp::Shr, 1)?;
        let open = low.lt(&high)?;
        let is_before = before(&middle)?;
        low = open.logical_and(&is_before)?.where_(&middle.add(1)?, &low)?;
        high = open.logical_and(&is_before.logical_not()?)?.where_(&middle, &high)?;
    }
    Ok(low)
}

/// For the first `out` elements of two sorted halves of the last axis: where each is.
fn merge(two: &Tensor, out: usize, largest: bool) -> Result<Tensor> {
    let name = "topk";
    let half = (two.shape()[2] / 2) as i64;
    let shape = [two.shape()[0], two.shape()[1], out];
    let at = Tensor::iota(name, DType::I64, &shape, 2)?;
    // How many of the elements before this one are of the first half: no fewer than `low`, no more than `high`.
    let (low, high) = (at.sub(half)?.maximum(0)?, at.minimum(half)?);
    // Whether the element `i` of the first half comes before the element `j` of the second one.
    let first_of = |i: &Tensor, j: &Tensor| {
        let one = two.gather(2, &i.minimum(half - 1)?)?;
        let other = two.gather(2, &j.maximum(0)?.minimum(half - 1)?.add(half)?)?;
        order(&other, &one, largest)?.0.logical_not()
    };
    let low = bisected(low, high, half as usize, |middle| first_of(middle, &at.sub(middle)?.sub(1)?))?;
    let other = at.sub(&low)?;
    let first = low.lt(half)?.logical_and(&other.ge(half)?.logical_or(&first_of(&low, &other)?)?)?;
    first.where_(&low, &other.add(half)?)
}
