//! Normalisation.

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use winograph_ir::DType;

/// One value for each channel of `[n, c, ..]`.
pub(crate) fn channels(t: &Tensor, rank: usize, dtype: DType) -> Result<Tensor> {
    let mut shape = vec![1; rank];
    if let Some(c) = shape.get_mut(1) {
        *c = t.numel();
    }
    t.cast(dtype)?.reshape_to("normalization", &shape)
}

/// The mean over axes that are kept; the tensor itself over none.
pub(crate) fn mean(x: &Tensor, axes: &[usize]) -> Result<Tensor> {
    let list: Vec<isize> = axes.iter().map(|&a| a as isize).collect();
    if list.is_empty() { Ok(x.clone()) } else { x.mean(&list, true) }
}

/// Distances from the mean over axes, divided by the standard deviation; and the mean and the inverse of the deviation.
pub(crate) fn standardized(x: &Tensor, axes: &[usize], epsilon: f64) -> Result<(Tensor, Tensor, Tensor)> {
    let center = mean(x, axes)?;
    let distance = x.sub(&center)?;
    let inverse = mean(&distance.square()?, axes)?.add(epsilon)?.sqrt()?.reciprocal()?;
    Ok((distance.mul(&inverse)?, center, inverse))
}

/// `(x - mean) / sqrt(variance + epsilon) * scale + bias`, of values for each channel in the dtype that `x` is computed
/// in: one product and one sum for each element, whose factors follow from constants where these are known.
pub(crate) fn batch_norm(x: &Tensor, moments: [&Tensor; 2], affine: [&Tensor; 2], epsilon: f64) -> Result<Tensor> {
    let [(mean, variance), (scale, bias)] = [moments, affine].map(|[a, b]| (a, b));
    let factor = scale.div(variance.add(epsilon)?.sqrt()?)?;
    let offset = bias.sub(mean.mul(&factor)?)?;
    x.computed(|x| x.mul(&factor)?.add(&offset))
}

/// Each group of channels standardized for itself; `affine` as for [`batch_norm`]. The groups divide the channels.
pub(crate) fn group_norm(x: &Tensor, groups: usize, affine: [&Tensor; 2], epsilon: f64) -> Result<Tensor> {
    let name = "group_norm";
    let batch = x.shape().first().copied().unwrap_or(1);
    // Where there are no channels, any number of groups divides them.
    let rest = x.numel() / batch.saturating_mul(groups).max(1);
    x.computed(|x| {
        let y = standardized(&x.reshape_to(name, &[batch, groups, rest])?, &[2], epsilon)?.0;
        y.reshape_to(name, x.shape())?.mul(affine[0])?.add(affine[1])
    })
}

impl Tensor {
    /// Values for each channel, checked, in a form that broadcasts; `default` everywhere where there are none.
    fn of_channels(&self, name: &'static str, t: Option<&Tensor>, what: &str, default: f64) -> Result<Tensor> {
        self.require_float(name)?;
        let Some(&c) = self.shape().get(1) else {
            return Err(Error::shape(name, &[self.shape()], "an input [n, c, ..]"));
        };
        let compute = self.dtype().compute();
        let Some(t) = t else { return Tensor::full(&[1], default)?.cast(compute) };
        self.same_dtype(name, t)?;
        if t.shape() != [c] {
            return Err(Error::shape(name, &[self.shape(), t.shape()], format!("{what} of shape [{c}]")));
        }
        channels(t, self.rank(), compute)
    }

    /// Normalises `[n, c, ..]` by a mean and a variance for each channel, then scales and shifts:
    /// `(x - mean) / sqrt(variance + epsilon) * weight + bias`, with 1 and 0 where these are not given. This is the form of
    /// inference: nothing is learnt of `x`. All others have shape `[c]`.
    ///
    /// # Errors
    /// A dtype that is no float's, dtypes that differ, other shapes.
    pub fn batch_norm(
        &self,
        mean: &Tensor,
        variance: &Tensor,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        epsilon: f64,
    ) -> Result<Tensor> {
        let of = |t, what, default| self.of_channels("batch_norm", t, what, default);
        let moments = [&of(Some(mean), "a mean", 0.0)?, &of(Some(variance), "a variance", 1.0)?];
        batch_norm(self, moments, [&of(weight, "a weight", 1.0)?, &of(bias, "a bias", 0.0)?], epsilon)
    }

    /// Normalises each of `groups` equal groups of the channels of `[n, c, ..]` by its own mean and variance, for each
    /// element of the batch, then scales and shifts by `weight` and `bias` of shape `[c]`. One group for each channel is
    /// instance normalisation.
    ///
    /// # Errors
    /// A dtype that is no float's, dtypes that differ, groups that do not divide the channels, other shapes.
    pub fn group_norm(
        &self,
        groups: usize,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        epsilon: f64,
    ) -> Result<Tensor> {
        let name = "group_norm";
        let affine = [&self.of_channels(name, weight, "a weight", 1.0)?, &self.of_channels(name, bias, "a bias", 0.0)?];
        if groups == 0 || !self.shape()[1].is_multiple_of(groups) {
            let expected = format!("groups that divide the {} channels", self.shape()[1]);
            return Err(Error::argument(name, format!("groups {groups}"), &[self.shape()], expected));
        }
        group_norm(self, groups, affine, epsilon)
    }

    /// Normalises over the last axes, whose sizes are `shape`, by their mean and variance, then scales and shifts by
    /// `weight` and `bias` of that shape.
    ///
    /// # Errors
    /// A dtype that is no float's, dtypes that differ, other shapes.
    pub fn layer_norm(
        &self,
        shape: &[usize],
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        epsilon: f64,
    ) -> Result<Tensor> {
        let name = "layer_norm";
        self.require_float(name)?;
        if shape.is_empty() || !self.shape().ends_with(shape) {
            return Err(Error::shape(name, &[self.shape()], format!("an input whose shape ends in {shape:?}")));
        }
        for t in [weight, bias].into_iter().flatten() {
            self.same_dtype(name, t)?;
            if t.shape() != shape {
                let expected = format!("a weight and a bias of shape {shape:?}");
                return Err(Error::shape(name, &[self.shape(), t.shape()], expected));
            }
        }
        let axes: Vec<usize> = (self.rank() - shape.len()..self.rank()).collect();
        self.computed(|x| {
            let mut y = standardized(x, &axes, epsilon)?.0;
            if let Some(w) = weight {
                y = y.mul(w.cast(x.dtype())?)?;
            }
            match bias {
                Some(b) => y.add(b.cast(x.dtype())?),
                None => Ok(y),
            }
        })
    }
}
