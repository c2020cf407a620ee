//! Tensors from nothing, from numbers and from slices.

use crate::error::{Error, Result};
use crate::random;
use crate::tensor::node::Op;
use crate::tensor::shape::check_size;
use crate::tensor::storage::Storage;
use crate::tensor::{Element, Number, Tensor};
use std::sync::Arc;
use winograph_ir::{BinaryOp, DType, Scalar};

impl Tensor {
    /// A copy of `values` in row-major order.
    ///
    /// ```
    /// # use winograph::Tensor;
    /// assert_eq!(Tensor::from_slice(&[1i32, 2, 3, 4, 5, 6], &[2, 3])?.shape(), [2, 3]);
    /// assert!(Tensor::from_slice(&[1i32, 2, 3], &[2, 2]).is_err());
    /// # Ok::<(), winograph::Error>(())
    /// ```
    ///
    /// # Errors
    /// Another number of values than the shape has elements, or no memory.
    pub fn from_slice<T: Element>(values: &[T], shape: &[usize]) -> Result<Tensor> {
        let count = check_size("from_slice", T::DTYPE, shape)?;
        if count != values.len() {
            return Err(Error::argument("from_slice", format!("a slice of {} values", values.len()), &[shape], {
                format!("{count} values, one for each element")
            }));
        }
        Ok(Tensor::ready(Arc::new(Storage::from_slice(values)?), T::DTYPE, shape.to_vec()))
    }

    /// One value without axes.
    pub fn scalar<T: Element>(value: T) -> Tensor {
        Tensor::constant(value.to_scalar())
    }

    /// `value` everywhere.
    ///
    /// # Errors
    /// A shape with more elements than can be counted.
    pub fn full<T: Element>(shape: &[usize], value: T) -> Result<Tensor> {
        Tensor::full_scalar("full", value.to_scalar(), shape)
    }

    /// 0 (or `false`) everywhere.
    ///
    /// # Errors
    /// A shape with more elements than can be counted.
    pub fn zeros(shape: &[usize], dtype: DType) -> Result<Tensor> {
        Tensor::full_scalar("zeros", Scalar::zero(dtype), shape)
    }

    /// 1 (or `true`) everywhere.
    ///
    /// # Errors
    /// A shape with more elements than can be counted.
    pub fn ones(shape: &[usize], dtype: DType) -> Result<Tensor> {
        Tensor::full_scalar("ones", Scalar::one(dtype), shape)
    }

    /// `value` everywhere, in this tensor's shape and dtype.
    ///
    /// # Errors
    /// A value that the dtype cannot hold.
    pub fn full_like(&self, value: impl Into<Number>) -> Result<Tensor> {
        Tensor::full_scalar("full_like", value.into().in_dtype("full_like", self.dtype())?, self.shape())
    }

    pub(crate) fn full_scalar(name: &'static str, value: Scalar, shape: &[usize]) -> Result<Tensor> {
        Tensor::make(name, Op::Full { value, shape: shape.to_vec() }, value.dtype(), shape.to_vec())
    }

    /// A constant that is folded into the code that uses it; `values` are as many as the shape has elements.
    pub(crate) fn table(name: &'static str, dtype: DType, values: Vec<Scalar>, shape: Vec<usize>) -> Result<Tensor> {
        Tensor::make(name, Op::Table { values, dtype, shape: shape.clone() }, dtype, shape)
    }

    /// The index along `axis`, which the shape has.
    pub(crate) fn iota(name: &'static str, dtype: DType, shape: &[usize], axis: usize) -> Result<Tensor> {
        Tensor::make(name, Op::Iota { dtype, shape: shape.to_vec(), axis }, dtype, shape.to_vec())
    }

    /// `start`, `start + step`, .. up to but without `end`, of shape `[ceil((end - start) / step)]`. Floats are computed
    /// as `start + i * step` in `f64` and rounded once.
    ///
    /// ```
    /// # use winograph::Tensor;
    /// assert_eq!(Tensor::arange(1i64, 8, 3)?.to_vec::<i64>()?, [1, 4, 7]);
    /// assert_eq!(Tensor::arange(1f32, 0.0, -0.5)?.to_vec::<f32>()?, [1.0, 0.5]);
    /// # Ok::<(), winograph::Error>(())
    /// ```
    ///
    /// # Errors
    /// A step of 0 or away from `end`, numbers that are not finite, `bool`, more elements than can be held.
    pub fn arange<T: Element>(start: T, end: T, step: T) -> Result<Tensor> {
        let name = "arange";
        let [start, end, step] = [start, end, step].map(T::to_scalar);
        let dtype = T::DTYPE;
        let wrong = |expected: &str| {
            Err(Error::argument(name, format!("start {start}, end {end}, step {step}"), &[], expected))
        };
        if dtype == DType::Bool {
            return Err(Error::dtype(name, &[dtype], "a number's dtype"));
        }
        let (from, to, by) = (start.to_f64(), end.to_f64(), step.to_f64());
        if ![from, to, by].iter().all(|x| x.is_finite()) {
            return wrong("finite numbers");
        }
        if by == 0.0 {
            return wrong("a step that is not 0");
        }
        if (by > 0.0 && from > to) || (by < 0.0 && from < to) {
            return wrong("a step that leads from start to end");
        }
        let count = if dtype.is_float() {
            let n = ((to - from) / by).ceil();
            // Above 2^62 the conversion saturates, and the size check refuses what is left.
            n as u64
        } else {
            let (a, b, s) = (start.to_i64() as i128, end.to_i64() as i128, step.to_i64() as i128);
            let n = ((b - a).abs() + s.abs() - 1) / s.abs();
            u64::try_from(n).unwrap_or(u64::MAX)
        };
        let shape = [usize::try_from(count).unwrap_or(usize::MAX)];
        check_size(name, dtype, &shape)?;
        if dtype.is_float() {
            let mut data = Storage::zeroed(shape[0] * dtype.size())?;
            for (i, out) in data.bytes_mut().chunks_exact_mut(dtype.size()).enumerate() {
                T::from_scalar(Scalar::from_f64(dtype, from + i as f64 * by)).write(out);
            }
            return Ok(Tensor::ready(Arc::new(data), dtype, shape.to_vec()));
        }
        let steps = Tensor::iota(name, dtype, &shape, 0)?.mul(Tensor::constant(step))?;
        steps.add(Tensor::constant(start))
    }

    /// Uniform numbers in `[0, 1)`: element `i` depends on `seed`, `dtype` and `i` alone, on every machine.
    ///
    /// # Errors
    /// A dtype that is not floating, or no memory.
    pub fn rand(shape: &[usize], dtype: DType, seed: u64) -> Result<Tensor> {
        Tensor::random("rand", shape, dtype, seed, random::uniform)
    }

    /// Normally distributed numbers of mean 0 and variance 1: element `i` depends on `seed`, `dtype` and `i` alone, on
    /// every machine.
    ///
    /// # Errors
    /// A dtype that is not floating, or no memory.
    pub fn randn(shape: &[usize], dtype: DType, seed: u64) -> Result<Tensor> {
        Tensor::random("randn", shape, dtype, seed, random::normal)
    }

    fn random(
        name: &'static str,
        shape: &[usize],
        dtype: DType,
        seed: u64,
        fill: fn(DType, u64, &mut [u8]),
    ) -> Result<Tensor> {
        if !dtype.is_float() {
            return Err(Error::dtype(name, &[dtype], "a floating dtype").hint("use randint, or cast the result"));
        }
        let count = check_size(name, dtype, shape)?;
        let mut data = Storage::zeroed(count * dtype.size())?;
        fill(dtype, seed, data.bytes_mut());
        Ok(Tensor::ready(Arc::new(data), dtype, shape.to_vec()))
    }

    /// Uniform integers in `low..high`: element `i` depends on the arguments and `i` alone, on every machine.
    ///
    /// # Errors
    /// An empty interval or one that the dtype cannot hold, a dtype that is not an integer, or no memory.
    pub fn randint(low: i64, high: i64, shape: &[usize], dtype: DType, seed: u64) -> Result<Tensor> {
        let name = "randint";
        if !dtype.is_int() {
            return Err(Error::dtype(name, &[dtype], "an integer dtype").hint("cast the result"));
        }
        if low >= high || Scalar::from_i64(dtype, low).to_i64() != low || {
            Scalar::from_i64(dtype, high - 1).to_i64() != high - 1
        } {
            let expected = format!("low < high and both within {dtype}");
            return Err(Error::argument(name, format!("the interval {low}..{high}"), &[], expected));
        }
        let count = check_size(name, dtype, shape)?;
        let mut data = Storage::zeroed(count * dtype.size())?;
        random::integers(low, high, dtype, seed, data.bytes_mut());
        Ok(Tensor::ready(Arc::new(data), dtype, shape.to_vec()))
    }

    /// A matrix `[n, m]` with 1 on its diagonal and 0 elsewhere.
    ///
    /// # Errors
    /// A shape with more elements than can be counted.
    pub fn eye(n: usize, m: usize, dtype: DType) -> Result<Tensor> {
        diagonal("eye", &[n, m], 0)?.0.cast(dtype)
    }

    /// The lower triangles of matrices `[.., n, m]`, 0 above the diagonal number `diagonal` (0 is the main one, positive
    /// ones lie above it).
    ///
    /// # Errors
    /// Fewer than two axes.
    pub fn tril(&self, diagonal_: i64) -> Result<Tensor> {
        let at = diagonal("tril", self.shape(), diagonal_)?;
        at.0.binary("tril", BinaryOp::Or, at.1)?.where_(self, &self.zero_like()?)
    }

    /// The upper triangles of matrices `[.., n, m]`, 0 below the diagonal number `diagonal` (0 is the main one, positive
    /// ones lie above it).
    ///
    /// # Errors
    /// Fewer than two axes.
    pub fn triu(&self, diagonal_: i64) -> Result<Tensor> {
        let at = diagonal("triu", self.shape(), diagonal_)?;
        at.1.where_(&self.zero_like()?, self)
    }

    pub(crate) fn zero_like(&self) -> Result<Tensor> {
        Tensor::full_scalar("zeros", Scalar::zero(self.dtype()), self.shape())
    }
}

/// Masks of the last two axes: what is on a diagonal, and what is below it.
fn diagonal(name: &'static str, shape: &[usize], number: i64) -> Result<(Tensor, Tensor)> {
    let [.., n, m] = *shape else {
        return Err(Error::shape(name, &[shape], "at least two axes"));
    };
    // Beyond the matrix all diagonals are alike; this keeps the sum below from wrapping.
    let (n_, m_) = (n as i64, m as i64);
    let number = number.clamp(-n_ - 1, m_ + 1);
    let shape = [n, m];
    let row = Tensor::iota(name, DType::I64, &shape, 0)?.add(number)?;
    let column = Tensor::iota(name, DType::I64, &shape, 1)?;
    Ok((column.eq(&row)?, column.lt(&row)?))
}
