//! Operations that move elements and compute none: reshape, permute, expand, pad, flip, unfold.

use crate::error::{Error, Result};
use crate::tensor::node::{Op, State};
use crate::tensor::shape::{axes, axis, axis_in, broadcast, check_size, count};
use crate::tensor::{Number, Tensor};
use winograph_ir::Scalar;

impl Tensor {
    /// The same elements in row-major order under another shape. One size may be -1 and follows from the others.
    ///
    /// # Errors
    /// Another number of elements, several sizes of -1, negative sizes.
    pub fn reshape(&self, shape: &[isize]) -> Result<Tensor> {
        let name = "reshape";
        let mut sizes = vec![0usize; shape.len()];
        let mut free = None;
        for (i, &s) in shape.iter().enumerate() {
            match usize::try_from(s) {
                Ok(s) => sizes[i] = s,
                Err(_) if s == -1 && free.is_none() => free = Some(i),
                Err(_) => {
                    let expected = "sizes of at least 0, and at most one of -1 that follows from the others";
                    return Err(Error::argument(name, format!("the new shape {shape:?}"), &[self.shape()], expected));
                }
            }
        }
        if let Some(i) = free {
            sizes[i] = 1;
            let rest = check_size(name, self.dtype(), &sizes)?;
            if rest == 0 || !self.numel().is_multiple_of(rest) {
                let expected = format!("sizes whose product divides {}", self.numel());
                return Err(Error::argument(name, format!("the new shape {shape:?}"), &[self.shape()], expected));
            }
            sizes[i] = self.numel() / rest;
        }
        self.reshape_to(name, &sizes)
    }

    pub(crate) fn reshape_to(&self, name: &'static str, shape: &[usize]) -> Result<Tensor> {
        if check_size(name, self.dtype(), shape)? != self.numel() {
            let expected = format!("a shape of {} elements", self.numel());
            return Err(Error::argument(name, format!("the new shape {shape:?}"), &[self.shape()], expected));
        }
        if shape == self.shape() {
            return Ok(self.clone());
        }
        match self.0.state() {
            State::Ready(data) => return Ok(Tensor::ready(data, self.dtype(), shape.to_vec())),
            State::Lazy(op) => {
                if let Op::Full { value, .. } = *op {
                    return Tensor::full_scalar(name, value, shape);
                }
            }
            State::Argument => {}
        }
        Tensor::make(name, Op::Reshape { x: self.clone(), shape: shape.to_vec() }, self.dtype(), shape.to_vec())
    }

    /// Axes `start..=end` as one. A tensor without axes gets one.
    ///
    /// # Errors
    /// Axes that do not exist or are out of order.
    pub fn flatten(&self, start: isize, end: isize) -> Result<Tensor> {
        let name = "flatten";
        if self.rank() == 0 && matches!(start, -1 | 0) && matches!(end, -1 | 0) {
            return self.reshape_to(name, &[1]);
        }
        let (a, b) = (axis(name, self.shape(), start)?, axis(name, self.shape(), end)?);
        if a > b {
            let got = format!("the interval of axes {start}..={end}");
            return Err(Error::argument(name, got, &[self.shape()], "a first axis that is not after the last"));
        }
        let mut shape = self.shape()[..a].to_vec();
        shape.push(count(&self.shape()[a..=b]));
        shape.extend(&self.shape()[b + 1..]);
        self.reshape_to(name, &shape)
    }

    /// Axis `i` of the result is axis `order[i]` of `self`.
    ///
    /// # Errors
    /// A list that is not a permutation of the axes.
    pub fn permute(&self, order: &[isize]) -> Result<Tensor> {
        let name = "permute";
        let wrong = || {
            let expected = format!("each of {} axes once", self.rank());
            Error::argument(name, format!("the order {order:?}"), &[self.shape()], expected)
        };
        if order.len() != self.rank() {
            return Err(wrong());
        }
        let list = order.iter().map(|&a| axis(name, self.shape(), a)).collect::<Result<Vec<_>>>()?;
        let mut seen = vec![false; self.rank()];
        for &a in &list {
            if std::mem::replace(&mut seen[a], true) {
                return Err(wrong());
            }
        }
        self.permute_to(name, &list)
    }

    /// [`permute`](Tensor::permute) by a list that is known to be a permutation.
    pub(crate) fn permute_to(&self, name: &'static str, order: &[usize]) -> Result<Tensor> {
        if order.iter().enumerate().all(|(i, &o)| i == o) {
            return Ok(self.clone());
        }
        let shape: Vec<usize> = order.iter().map(|&o| self.shape()[o]).collect();
        if let Some(value) = self.full_value() {
            return Tensor::full_scalar(name, value, &shape);
        }
        Tensor::make(name, Op::Permute { x: self.clone(), order: order.to_vec() }, self.dtype(), shape)
    }

    /// Two axes exchanged.
    ///
    /// # Errors
    /// Axes that do not exist.
    pub fn transpose(&self, a: isize, b: isize) -> Result<Tensor> {
        let name = "transpose";
        let (a, b) = (axis(name, self.shape(), a)?, axis(name, self.shape(), b)?);
        let mut order: Vec<usize> = (0..self.rank()).collect();
        order.swap(a, b);
        self.permute_to(name, &order)
    }

    /// Axes of size 1 repeated to `shape`, which may have more axes in front; -1 keeps a size.
    ///
    /// # Errors
    /// Sizes that `self` does not broadcast to, -1 for a new axis, other negative sizes.
    pub fn expand(&self, shape: &[isize]) -> Result<Tensor> {
        let name = "expand";
        let new = shape.len().checked_sub(self.rank());
        let sizes = shape.iter().enumerate().map(|(i, &s)| match (usize::try_from(s), new) {
            (Ok(s), _) => Some(s),
            (Err(_), Some(new)) if s == -1 && i >= new => Some(self.shape()[i - new]),
            _ => None,
        });
        match sizes.collect::<Option<Vec<_>>>() {
            Some(sizes) => self.expand_as(name, &sizes),
            None => Err(Error::argument(
                name,
                format!("the new shape {shape:?}"),
                &[self.shape()],
                "sizes of at least 0, or -1 for an axis that is there",
            )),
        }
    }

    /// Repeated along axes of size 1 and along new ones in front to `shape`, by NumPy's rules.
    ///
    /// # Errors
    /// A shape that `self` does not broadcast to.
    pub fn broadcast_to(&self, shape: &[usize]) -> Result<Tensor> {
        self.expand_as("broadcast_to", shape)
    }

    pub(crate) fn expand_as(&self, name: &'static str, shape: &[usize]) -> Result<Tensor> {
        if shape == self.shape() {
            return Ok(self.clone());
        }
        if shape.len() < self.rank() || broadcast(name, &[self.shape(), shape]).ok().as_deref() != Some(shape) {
            let expected = "a shape of which each axis, from the last on, is kept or grows from 1";
            return Err(Error::argument(name, format!("the new shape {shape:?}"), &[self.shape()], expected));
        }
        if let Some(value) = self.full_value() {
            return Tensor::full_scalar(name, value, shape);
        }
        let mut aligned = vec![1; shape.len() - self.rank()];
        aligned.extend(self.shape());
        let x = self.reshape_to(name, &aligned)?;
        if x.shape() == shape {
            return Ok(x);
        }
        let dtype = self.dtype();
        Tensor::make(name, Op::Expand { x, shape: shape.to_vec() }, dtype, shape.to_vec())
    }

    /// Without axes of size 1: without those listed (others than 1 stay), or without all if none is.
    ///
    /// # Errors
    /// Axes that do not exist.
    pub fn squeeze(&self, list: &[isize]) -> Result<Tensor> {
        let name = "squeeze";
        let list = axes(name, self.shape(), list)?;
        let shape = self.shape().iter().enumerate().filter(|(i, s)| **s != 1 || !list.contains(i)).map(|(_, s)| *s);
        self.reshape_to(name, &shape.collect::<Vec<_>>())
    }

    /// With a new axis of size 1 that becomes number `at`.
    ///
    /// # Errors
    /// A place beyond the end.
    pub fn unsqueeze(&self, at: isize) -> Result<Tensor> {
        let name = "unsqueeze";
        let at = axis_in(name, self.shape(), at, self.rank() + 1)?;
        let mut shape = self.shape().to_vec();
        shape.insert(at, 1);
        self.reshape_to(name, &shape)
    }

    /// A border of `value`: `(before, after)` for each axis. Negative amounts cut off, as in PyTorch.
    ///
    /// # Errors
    /// Another number of pairs than axes, a result of negative size, a value that the dtype cannot hold.
    pub fn pad(&self, amounts: &[(isize, isize)], value: impl Into<Number>) -> Result<Tensor> {
        let name = "pad";
        let value = value.into().in_dtype(name, self.dtype())?;
        let wrong =
            |expected: &str| Err(Error::argument(name, format!("the amounts {amounts:?}"), &[self.shape()], expected));
        if amounts.len() != self.rank() {
            return wrong("one pair (before, after) for each axis");
        }
        let (mut start, mut size) = (Vec::new(), Vec::new());
        for (&s, &(before, after)) in self.shape().iter().zip(amounts) {
            // What is cut off is cut before anything is added.
            let (cut, kept) = (before.min(0).unsigned_abs(), after.min(0).unsigned_abs());
            match s.checked_sub(cut).and_then(|s| s.checked_sub(kept)) {
                Some(left) => {
                    start.push(cut);
                    size.push(left);
                }
                None => return wrong("amounts that leave sizes of at least 0"),
            }
        }
        let step = vec![1; self.rank()];
        let x = self.slice_to(name, start, step, size)?;
        let add: Vec<(usize, usize)> =
            amounts.iter().map(|&(b, a)| (b.max(0).unsigned_abs(), a.max(0).unsigned_abs())).collect();
        x.pad_to(name, &add, value)
    }

    /// A border of `value`; there are as many amounts as axes.
    pub(crate) fn pad_to(&self, name: &'static str, amounts: &[(usize, usize)], value: Scalar) -> Result<Tensor> {
        if amounts.iter().all(|&p| p == (0, 0)) {
            return Ok(self.clone());
        }
        let (before, after): (Vec<usize>, Vec<usize>) = amounts.iter().copied().unzip();
        let sizes = self.shape().iter().zip(amounts).map(|(&s, &(b, a))| s.checked_add(b)?.checked_add(a));
        let Some(shape) = sizes.collect::<Option<Vec<_>>>() else {
            return Err(Error::argument(name, format!("the amounts {amounts:?}"), &[self.shape()], {
                "sizes that can be counted"
            }));
        };
        if self.numel() == 0 {
            return Tensor::full_scalar(name, value, &shape);
        }
        Tensor::make(name, Op::Pad { x: self.clone(), before, after, value }, self.dtype(), shape)
    }

    /// The order of elements reversed along the axes; none listed leaves all as they are.
    ///
    /// # Errors
    /// Axes that do not exist or are listed twice.
    pub fn flip(&self, list: &[isize]) -> Result<Tensor> {
        let name = "flip";
        if list.is_empty() || self.numel() == 0 {
            axes(name, self.shape(), list)?;
            return Ok(self.clone());
        }
        let (mut start, mut step) = (vec![0; self.rank()], vec![1i64; self.rank()]);
        for a in axes(name, self.shape(), list)? {
            start[a] = self.shape()[a] - 1;
            step[a] = -1;
        }
        self.slice_to(name, start, step, self.shape().to_vec())
    }

    /// `out[i] = self[start + step * i]` per axis, for values that are known to be within the shape.
    pub(crate) fn slice_to(
        &self,
        name: &'static str,
        start: Vec<usize>,
        step: Vec<i64>,
        size: Vec<usize>,
    ) -> Result<Tensor> {
        if size == self.shape() && step.iter().all(|&s| s == 1) {
            return Ok(self.clone());
        }
        if let Some(value) = self.full_value() {
            return Tensor::full_scalar(name, value, &size);
        }
        let op = Op::Slice { x: self.clone(), start, step, size: size.clone() };
        Tensor::make(name, op, self.dtype(), size)
    }

    /// Windows of `size` elements at every `step`-th place of an axis; the place inside the window is a new last axis.
    ///
    /// ```
    /// # use winograph::Tensor;
    /// let x = Tensor::arange(0i32, 5, 1)?.unfold(0, 3, 2)?;
    /// assert_eq!((x.shape(), x.to_vec::<i32>()?), (&[2, 3][..], vec![0, 1, 2, 2, 3, 4]));
    /// # Ok::<(), winograph::Error>(())
    /// ```
    ///
    /// # Errors
    /// A missing axis, a size or step of 0, a window larger than the axis.
    pub fn unfold(&self, along: isize, size: usize, step: usize) -> Result<Tensor> {
        self.unfold_dilated(along, size, step, 1)
    }

    /// [`unfold`](Tensor::unfold) with taps `dilation` elements apart.
    ///
    /// # Errors
    /// A missing axis, a size, step or dilation of 0, a window larger than the axis.
    pub fn unfold_dilated(&self, along: isize, size: usize, step: usize, dilation: usize) -> Result<Tensor> {
        let name = "unfold";
        let along = axis(name, self.shape(), along)?;
        self.unfold_to(name, along, size, step, dilation)
    }

    pub(crate) fn unfold_to(
        &self,
        name: &'static str,
        along: usize,
        size: usize,
        stride: usize,
        dilation: usize,
    ) -> Result<Tensor> {
        let length = self.shape()[along];
        let Some(windows) = window_count(length, size, stride, dilation) else {
            let got = format!("a window of size {size}, step {stride} and dilation {dilation} along axis {along}");
            let expected = format!("positive numbers and a window no larger than the axis' {length} elements");
            return Err(Error::argument(name, got, &[self.shape()], expected));
        };
        let mut shape = self.shape().to_vec();
        shape[along] = windows;
        shape.push(size);
        if let Some(value) = self.full_value() {
            return Tensor::full_scalar(name, value, &shape);
        }
        // With one window or one tap the distances mean nothing, and might be too large to count with.
        let (stride, dilation) = (stride.min(length), if size == 1 { 1 } else { dilation });
        let op = Op::Unfold { x: self.clone(), axis: along, size, stride, dilation };
        Tensor::make(name, op, self.dtype(), shape)
    }

    /// The tensor, materialised: compiled functions give it a buffer of its own.
    ///
    /// # Errors
    /// None beyond those of making a tensor.
    pub fn contiguous(&self) -> Result<Tensor> {
        if matches!(self.0.state(), State::Ready(_)) {
            return Ok(self.clone());
        }
        Tensor::make("contiguous", Op::Contiguous { x: self.clone() }, self.dtype(), self.shape().to_vec())
    }
}

/// Elements that a window spans; `None` if one of the numbers is 0 or it cannot be counted.
pub(crate) fn window_span(size: usize, dilation: usize) -> Option<usize> {
    if dilation == 0 { None } else { size.checked_sub(1)?.checked_mul(dilation)?.checked_add(1) }
}

/// Places of a window along `length` elements; `None` if there is none.
pub(crate) fn window_count(length: usize, size: usize, stride: usize, dilation: usize) -> Option<usize> {
    length.checked_sub(window_span(size, dilation)?)?.checked_div(stride)?.checked_add(1)
}
