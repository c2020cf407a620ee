//! Reductions, and what is made of them.
//!
//! Lists of axes may be empty, which stands for all axes. `keepdim` keeps reduced axes with size 1. Half floats are
//! accumulated in `f32` and rounded once.

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::tensor::node::Op;
use crate::tensor::shape::{axes, axis, count};
use winograph_ir::rule::WindowRule;
use winograph_ir::{BinaryOp, DType, ReduceOp, SumOrder};

/// Axes to reduce, sorted. As in PyTorch, a tensor without axes takes 0 and -1.
fn reduce_axes(name: &'static str, shape: &[usize], list: &[isize]) -> Result<Vec<usize>> {
    match (shape, list) {
        ([], [0 | -1]) => Ok(vec![]),
        _ => axes(name, shape, list),
    }
}

/// The shape with `axes` removed, or of size 1.
fn reduced_shape(shape: &[usize], axes: &[usize], keepdim: bool) -> Vec<usize> {
    let kept = shape.iter().enumerate();
    if keepdim {
        kept.map(|(i, &s)| if axes.contains(&i) { 1 } else { s }).collect()
    } else {
        kept.filter(|(i, _)| !axes.contains(i)).map(|(_, &s)| s).collect()
    }
}

impl Tensor {
    /// A reduction over sorted axes in the tensor's own dtype; they disappear.
    pub(crate) fn reduce(&self, name: &'static str, op: ReduceOp, axes: &[usize], order: SumOrder) -> Result<Tensor> {
        self.reduce_by(name, op, axes, order, &WindowRule::default())
    }

    /// [`reduce`](Tensor::reduce) with what is asked of a sliding-window sum.
    pub(crate) fn reduce_by(
        &self,
        name: &'static str,
        op: ReduceOp,
        axes: &[usize],
        order: SumOrder,
        rule: &WindowRule,
    ) -> Result<Tensor> {
        if axes.is_empty() {
            return Ok(self.clone());
        }
        let shape = reduced_shape(self.shape(), axes, false);
        if self.numel() == 0 {
            return Tensor::full_scalar(name, op.identity(self.dtype()), &shape);
        }
        let rule = (!rule.is_open()).then(|| Box::new(rule.clone()));
        let op = Op::Reduce { op, x: self.clone(), axes: axes.to_vec(), order, fused: true, rule };
        Tensor::make(name, op, self.dtype(), shape)
    }

    fn reduce_keep(&self, name: &'static str, op: ReduceOp, axes: &[usize], keepdim: bool) -> Result<Tensor> {
        let shape = reduced_shape(self.shape(), axes, keepdim);
        self.reduce(name, op, axes, SumOrder::Any)?.reshape_to(name, &shape)
    }

    /// A sum or product: of floats in their dtype, of everything else in `i64`.
    fn accumulate(&self, name: &'static str, op: ReduceOp, list: &[isize], keepdim: bool) -> Result<Tensor> {
        let axes = reduce_axes(name, self.shape(), list)?;
        if self.dtype().is_float() {
            self.computed(|x| x.reduce_keep(name, op, &axes, keepdim))
        } else {
            self.cast(DType::I64)?.reduce_keep(name, op, &axes, keepdim)
        }
    }

    /// The sum over axes; 0 over nothing. Sums of integers and `bool` are `i64`.
    ///
    /// ```
    /// # use winograph::{DType, Tensor};
    /// let x = Tensor::from_slice(&[true, true, false, true], &[2, 2])?;
    /// let n = x.sum(&[1], false)?;
    /// assert_eq!((n.dtype(), n.to_vec::<i64>()?), (DType::I64, vec![2, 1]));
    /// # Ok::<(), winograph::Error>(())
    /// ```
    ///
    /// # Errors
    /// Axes that do not exist or are listed twice.
    pub fn sum(&self, axes: &[isize], keepdim: bool) -> Result<Tensor> {
        self.accumulate("sum", ReduceOp::Add, axes, keepdim)
    }

    /// The product over axes; 1 over nothing. Products of integers and `bool` are `i64`.
    ///
    /// # Errors
    /// Axes that do not exist or are listed twice.
    pub fn prod(&self, axes: &[isize], keepdim: bool) -> Result<Tensor> {
        self.accumulate("prod", ReduceOp::Mul, axes, keepdim)
    }

    /// The mean over axes; NaN over nothing.
    ///
    /// # Errors
    /// Dtypes that are not floating, axes that do not exist or are listed twice.
    pub fn mean(&self, list: &[isize], keepdim: bool) -> Result<Tensor> {
        let name = "mean";
        self.require_float(name)?;
        let axes = reduce_axes(name, self.shape(), list)?;
        self.computed(|x| x.mean_over(name, &axes, keepdim))
    }

    fn mean_over(&self, name: &'static str, axes: &[usize], keepdim: bool) -> Result<Tensor> {
        let n = axes.iter().map(|&a| self.shape()[a] as f64).product::<f64>();
        self.reduce_keep(name, ReduceOp::Add, axes, keepdim)?.binary(name, BinaryOp::Div, n)
    }

    /// The variance over axes: squared distances from the mean, summed and divided by the number of elements, less one
    /// if `unbiased`. NaN where that divisor is 0 or less.
    ///
    /// # Errors
    /// Dtypes that are not floating, axes that do not exist or are listed twice.
    pub fn var(&self, list: &[isize], unbiased: bool, keepdim: bool) -> Result<Tensor> {
        let name = "var";
        self.require_float(name)?;
        let axes = reduce_axes(name, self.shape(), list)?;
        let n = axes.iter().map(|&a| self.shape()[a] as f64).product::<f64>();
        let divisor = (n - unbiased as u8 as f64).max(0.0);
        self.computed(|x| {
            let distance = x.binary(name, BinaryOp::Sub, x.mean_over(name, &axes, true)?)?;
            distance.square()?.reduce_keep(name, ReduceOp::Add, &axes, keepdim)?.binary(name, BinaryOp::Div, divisor)
        })
    }

    /// The largest element over axes (PyTorch's `amax`); NaN if there is one.
    ///
    /// # Errors
    /// Axes that do not exist, are listed twice, or have no elements.
    pub fn max(&self, axes: &[isize], keepdim: bool) -> Result<Tensor> {
        self.extreme("max", ReduceOp::Max, axes, keepdim)
    }

    /// The smallest element over axes (PyTorch's `amin`); NaN if there is one.
    ///
    /// # Errors
    /// Axes that do not exist, are listed twice, or have no elements.
    pub fn min(&self, axes: &[isize], keepdim: bool) -> Result<Tensor> {
        self.extreme("min", ReduceOp::Min, axes, keepdim)
    }

    fn extreme(&self, name: &'static str, op: ReduceOp, list: &[isize], keepdim: bool) -> Result<Tensor> {
        let axes = reduce_axes(name, self.shape(), list)?;
        self.require_elements(name, &axes)?;
        self.reduce_keep(name, op, &axes, keepdim)
    }

    fn require_elements(&self, name: &'static str, axes: &[usize]) -> Result<()> {
        match axes.iter().find(|&&a| self.shape()[a] == 0) {
            None => Ok(()),
            Some(a) => Err(Error::shape(name, &[self.shape()], format!("at least one element along axis {a}"))),
        }
    }

    /// The index of the largest element along an axis, or of the flattened tensor, as `i64`: the first of equals; NaN
    /// counts as the largest.
    ///
    /// # Errors
    /// A missing axis, or one without elements.
    pub fn argmax(&self, along: Option<isize>, keepdim: bool) -> Result<Tensor> {
        self.arg_extreme("argmax", ReduceOp::Max, along, keepdim)
    }

    /// The index of the smallest element along an axis, or of the flattened tensor, as `i64`: the first of equals; NaN
    /// counts as the smallest.
    ///
    /// # Errors
    /// A missing axis, or one without elements.
    pub fn argmin(&self, along: Option<isize>, keepdim: bool) -> Result<Tensor> {
        self.arg_extreme("argmin", ReduceOp::Min, along, keepdim)
    }

    fn arg_extreme(&self, name: &'static str, op: ReduceOp, along: Option<isize>, keepdim: bool) -> Result<Tensor> {
        let (x, along) = match along {
            Some(a) if self.rank() > 0 || !matches!(a, 0 | -1) => (self.clone(), axis(name, self.shape(), a)?),
            _ => (self.reshape_to(name, &[self.numel()])?, 0),
        };
        x.require_elements(name, &[along])?;
        let extreme = x.reduce_keep(name, op, &[along], true)?;
        let mut hit = x.eq(&extreme)?;
        if x.dtype().is_float() {
            // If there is a NaN then it is the extreme, and equals nothing.
            hit = hit.logical_or(&x.isnan()?)?;
        }
        let place = Tensor::iota(name, DType::I64, x.shape(), along)?;
        let beyond = Tensor::full_scalar(name, ReduceOp::Min.identity(DType::I64), x.shape())?;
        let first = hit.where_(&place, &beyond)?.reduce(name, ReduceOp::Min, &[along], SumOrder::Any)?;
        let shape = match keepdim {
            true if x.shape() == self.shape() => reduced_shape(x.shape(), &[along], true),
            true => vec![1; self.rank()],
            false => return Ok(first),
        };
        first.reshape_to(name, &shape)
    }

    /// `e^x` along an axis divided by its sum, computed from the distances to the largest element.
    ///
    /// # Errors
    /// Dtypes that are not floating, a missing axis.
    pub fn softmax(&self, along: isize) -> Result<Tensor> {
        self.shifted("softmax", along, |x, axes| {
            let e = x.exp()?;
            e.div(e.reduce_keep("softmax", ReduceOp::Add, axes, true)?)
        })
    }

    /// The logarithm of [`softmax`](Tensor::softmax), computed without it.
    ///
    /// # Errors
    /// Dtypes that are not floating, a missing axis.
    pub fn log_softmax(&self, along: isize) -> Result<Tensor> {
        self.shifted("log_softmax", along, |x, axes| {
            x.sub(x.exp()?.reduce_keep("log_softmax", ReduceOp::Add, axes, true)?.log()?)
        })
    }

    /// `f` of the distances to the largest element along an axis, in the compute dtype.
    fn shifted(
        &self,
        name: &'static str,
        along: isize,
        f: impl FnOnce(&Tensor, &[usize]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        self.require_float(name)?;
        let axes = reduce_axes(name, self.shape(), &[along])?;
        if count(self.shape()) == 0 {
            return Ok(self.clone());
        }
        self.computed(|x| f(&x.sub(x.reduce_keep(name, ReduceOp::Max, &axes, true)?)?, &axes))
    }
}
