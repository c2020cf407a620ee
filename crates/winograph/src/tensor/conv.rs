//! Convolution, written as the sum of products that it is.

use crate::error::{Error, Result};
use crate::settings;
use crate::tensor::Tensor;
use crate::tensor::movement::{window_count, window_span};
use winograph_ir::rule::{AxisTile, WindowRule};
use winograph_ir::{BinaryOp, DType, ReduceOp, Scalar, SumOrder};

/// How a convolution's window moves. An empty list stands for the default on every axis, a list of one number for
/// that number on every axis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConvOptions {
    /// Distance of windows per spatial axis; 1 by default.
    pub stride: Vec<usize>,
    /// Zeros `(before, after)` each spatial axis; none by default.
    pub padding: Vec<(usize, usize)>,
    /// Distance of taps per spatial axis; 1 by default.
    pub dilation: Vec<usize>,
    /// Number of groups of channels that do not mix; 1 by default.
    pub groups: usize,
    /// What is asked of the way in which it is computed: algorithm, tile, tolerance, and whether a NaN or infinity must
    /// stay where the direct sum would have it. By default the options of the compilation decide.
    pub rule: WindowRule,
}

impl Default for ConvOptions {
    fn default() -> ConvOptions {
        ConvOptions { stride: vec![], padding: vec![], dilation: vec![], groups: 1, rule: WindowRule::default() }
    }
}

impl ConvOptions {
    /// As many zeros on each side of every axis.
    pub fn padding(amount: usize) -> ConvOptions {
        ConvOptions { padding: vec![(amount, amount)], ..ConvOptions::default() }
    }
}

/// One value per axis from a list with one for each, one for all or none.
pub(crate) fn per_axis<T: Copy + std::fmt::Debug>(
    name: &'static str,
    what: &str,
    list: &[T],
    default: T,
    shapes: &[&[usize]],
    rank: usize,
) -> Result<Vec<T>> {
    match list {
        [] => Ok(vec![default; rank]),
        [one] => Ok(vec![*one; rank]),
        many if many.len() == rank => Ok(many.to_vec()),
        _ => {
            let expected = format!("one value for each of {rank} spatial axes, or one for all");
            Err(Error::argument(name, format!("{what} {list:?}"), shapes, expected))
        }
    }
}

/// A convolution whose arguments have been checked, with an input that has a batch axis.
pub(crate) struct Checked {
    /// `[n, c, spatial..]`.
    pub(crate) x: Tensor,
    /// `[k, c/g, window..]`.
    pub(crate) weight: Tensor,
    /// `[k]`.
    pub(crate) bias: Option<Tensor>,
    pub(crate) stride: Vec<usize>,
    pub(crate) padding: Vec<(usize, usize)>,
    pub(crate) dilation: Vec<usize>,
    pub(crate) groups: usize,
    pub(crate) rule: WindowRule,
    /// Output size per spatial axis.
    pub(crate) out: Vec<usize>,
    /// Whether the input had no batch axis.
    unbatched: bool,
}

impl Checked {
    pub(crate) fn new(
        name: &'static str,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        options: &ConvOptions,
    ) -> Result<Checked> {
        let shapes = [x.shape(), weight.shape()];
        x.same_dtype(name, weight)?;
        if x.dtype() == DType::Bool {
            return Err(Error::dtype(name, &[DType::Bool], "a number's dtype").hint("cast the operands first"));
        }
        let [k, c_group, window @ ..] = weight.shape() else {
            return Err(Error::shape(name, &shapes, "a weight [k, c/groups, window..]"));
        };
        let rank = window.len();
        if !(1..=3).contains(&rank) || !matches!(x.rank().checked_sub(rank), Some(1 | 2)) {
            let expected = "an input [n, c, spatial..] or [c, spatial..] and a weight [k, c/groups, window..] with 1 to 3 \
                            spatial axes";
            return Err(Error::shape(name, &shapes, expected));
        }
        let unbatched = x.rank() == rank + 1;
        let channels = x.shape()[x.rank() - rank - 1];
        let spatial = &x.shape()[x.rank() - rank..];
        let groups = options.groups;
        if groups == 0 {
            return Err(Error::argument(name, "groups 0", &shapes, "at least one group"));
        }
        if !channels.is_multiple_of(groups) || !k.is_multiple_of(groups) {
            let expected = format!("groups that divide the {channels} input and the {k} output channels");
            return Err(Error::argument(name, format!("groups {groups}"), &shapes, expected));
        }
        if channels / groups != *c_group {
            let expected = format!(
                "a weight with {} channels on axis 1: {channels} input channels in {groups} group(s)",
                channels / groups
            );
            return Err(Error::shape(name, &shapes, expected));
        }
        if let Some(b) = bias {
            x.same_dtype(name, b)?;
            if b.shape() != [*k] {
                let shapes = [shapes[0], shapes[1], b.shape()];
                return Err(Error::shape(name, &shapes, format!("a bias of shape [{k}]")));
            }
        }
        let stride = per_axis(name, "stride", &options.stride, 1, &shapes, rank)?;
        let dilation = per_axis(name, "dilation", &options.dilation, 1, &shapes, rank)?;
        let padding = per_axis(name, "padding", &options.padding, (0, 0), &shapes, rank)?;
        for (what, list) in [("stride", &stride), ("dilation", &dilation)] {
            if list.contains(&0) {
                return Err(Error::argument(name, format!("{what} {list:?}"), &shapes, "positive numbers"));
            }
        }
        let mut out = Vec::with_capacity(rank);
        for i in 0..rank {
            let (before, after) = padding[i];
            let padded = spatial[i].checked_add(before).and_then(|s| s.checked_add(after));
            let Some(padded) = padded else {
                return Err(Error::argument(
                    name,
                    format!("padding {padding:?}"),
                    &shapes,
                    "sizes that can be counted",
                ));
            };
            let Some(count) = window_count(padded, window[i], stride[i], dilation[i]) else {
                let expected = match window_span(window[i], dilation[i]) {
                    Some(span) => format!(
                        "a window no larger than the padded input: on spatial axis {i} it spans {span} of {padded} elements"
                    ),
                    None => format!("a window of at least one tap on spatial axis {i}"),
                };
                return Err(Error::shape(name, &shapes, expected));
            };
            out.push(count);
        }
        let x = if unbatched { x.unsqueeze(0)? } else { x.clone() };
        Ok(Checked {
            x,
            weight: weight.clone(),
            bias: bias.cloned(),
            stride,
            padding,
            dilation,
            groups,
            rule: options.rule.clone(),
            out,
            unbatched,
        })
    }

    /// Number of spatial axes.
    pub(crate) fn rank(&self) -> usize {
        self.out.len()
    }

    /// The input with its padding, in the compute dtype.
    pub(crate) fn padded(&self, name: &'static str, padding: &[(usize, usize)]) -> Result<Tensor> {
        let amounts: Vec<(usize, usize)> = [(0, 0), (0, 0)].iter().chain(padding).copied().collect();
        let x = self.x.pad_to(name, &amounts, Scalar::zero(self.x.dtype()))?;
        x.cast(x.dtype().compute())
    }

    /// The result from its sums `[n, k, out..]` in the compute dtype: bias added, rounded once, batch axis as it was.
    pub(crate) fn finish(&self, name: &'static str, sums: &Tensor) -> Result<Tensor> {
        let mut y = sums.clone();
        if let Some(bias) = &self.bias {
            let mut shape = vec![1; y.rank()];
            shape[1] = bias.numel();
            y = y.binary(name, BinaryOp::Add, bias.cast(y.dtype())?.reshape_to(name, &shape)?)?;
        }
        y = y.cast(self.x.dtype())?;
        if self.unbatched { y.squeeze(&[0]) } else { Ok(y) }
    }

    /// The shape `[n, k, out..]`.
    pub(crate) fn out_shape(&self) -> Vec<usize> {
        let mut shape = vec![self.x.shape()[0], self.weight.shape()[0]];
        shape.extend(&self.out);
        shape
    }

    /// The rule in terms of the window that the compiler sees: axes with one tap or one output have none.
    fn window_rule(&self) -> WindowRule {
        let mut rule = self.rule.clone();
        if rule.tile.len() == self.rank() && self.rank() > 1 {
            let slides = |i: &usize| self.weight.shape()[2 + i] > 1 && self.out[*i] > 1;
            let kept: Vec<AxisTile> = (0..self.rank()).filter(slides).map(|i| rule.tile[i]).collect();
            // With no axis left any tile will do: there is no window.
            rule.tile = if kept.is_empty() { vec![rule.tile[0]] } else { kept };
        }
        rule
    }

    /// The direct sum: windows unfolded, multiplied by the weights and summed over channels and taps.
    fn direct(&self, name: &'static str) -> Result<Tensor> {
        let rank = self.rank();
        let mut x = self.padded(name, &self.padding)?;
        let window = &self.weight.shape()[2..];
        for (i, &taps) in window.iter().enumerate() {
            x = x.unfold_to(name, 2 + i, taps, self.stride[i], self.dilation[i])?;
        }
        // x is now [n, c, out.., window..].
        let (n, k, g) = (x.shape()[0], self.weight.shape()[0], self.groups);
        let c = self.weight.shape()[1];
        let w = self.weight.cast(self.weight.dtype().compute())?;

        // [n, g, 1, out.., c, window..] * [1, g, k/g, 1.., c, window..]; without groups that axis is left out.
        let grouped: &[usize] = if g > 1 { &[g] } else { &[] };
        let lead = 2 + grouped.len();
        let mut split = vec![n];
        split.extend(grouped);
        split.push(c);
        split.extend(&x.shape()[2..]);
        let mut order: Vec<usize> = (0..lead - 1).collect();
        order.extend(lead..lead + rank);
        order.push(lead - 1);
        order.extend(lead + rank..lead + 2 * rank);
        let x = x.reshape_to(name, &split)?.permute_to(name, &order)?;

        let mut x_shape = vec![n];
        x_shape.extend(grouped);
        x_shape.push(1);
        x_shape.extend(&self.out);
        x_shape.push(c);
        x_shape.extend(window);
        let mut w_shape = vec![1];
        w_shape.extend(grouped);
        w_shape.push(k / g);
        w_shape.extend(vec![1; rank]);
        w_shape.push(c);
        w_shape.extend(window);
        let mut full = x_shape.clone();
        full[lead - 1] = k / g;

        let x = x.reshape_to(name, &x_shape)?.expand_as(name, &full)?;
        let w = w.reshape_to(name, &w_shape)?.expand_as(name, &full)?;
        let reduced: Vec<usize> = (lead + rank..full.len()).collect();
        let products = x.binary(name, BinaryOp::Mul, &w)?;
        let sums = products.reduce_by(name, ReduceOp::Add, &reduced, SumOrder::Any, &self.window_rule())?;
        self.finish(name, &sums.reshape_to(name, &self.out_shape())?)
    }
}

impl Checked {
    /// The form that the process's settings ask for: with `WINO_OLD=1` the tensor-level one where it applies.
    fn by_settings(&self, name: &'static str) -> Result<Tensor> {
        if settings::env()?.wino_old {
            match self.tensor_level(name, None, None) {
                Err(Error::Inapplicable { .. }) => {}
                chosen => return Ok(chosen?.tensor),
            }
        }
        self.direct(name)
    }
}

impl Tensor {
    /// Convolution over 1 to 3 spatial axes (cross-correlation, as in every library of neural networks): `self` is
    /// `[n, c, spatial..]` or `[c, spatial..]`, `weight` `[k, c/groups, window..]`, `bias` `[k]`; the result is
    /// `[n, k, out..]` with `out = (spatial + padding - dilation * (window - 1) - 1) / stride + 1`, rounded down.
    /// Half floats are accumulated in `f32` and rounded once, after the bias.
    ///
    /// It is written as the sum of products that it is, and the compiler decides how to compute it; with the environment
    /// variable `WINO_OLD=1` it is written in its tensor-level Winograd form where that applies
    /// ([`conv_tensor_level`](Tensor::conv_tensor_level)).
    ///
    /// ```
    /// # use winograph::{ConvOptions, DType, Tensor};
    /// let x = Tensor::ones(&[1, 2, 5, 5], DType::F32)?;
    /// let w = Tensor::ones(&[4, 2, 3, 3], DType::F32)?;
    /// let y = x.conv(&w, None, &ConvOptions::padding(1))?;
    /// assert_eq!(y.shape(), [1, 4, 5, 5]);
    /// # Ok::<(), winograph::Error>(())
    /// ```
    ///
    /// # Errors
    /// Shapes or dtypes that do not fit each other, groups that do not divide the channels, a window of no taps or
    /// larger than the padded input, a stride, dilation or number of groups of 0, lists of another length than there
    /// are spatial axes, an environment variable with a value it cannot have.
    pub fn conv(&self, weight: &Tensor, bias: Option<&Tensor>, options: &ConvOptions) -> Result<Tensor> {
        Checked::new("conv", self, weight, bias, options)?.by_settings("conv")
    }

    /// [`conv`](Tensor::conv) as a sum of products, whatever the environment asks for.
    ///
    /// # Errors
    /// As [`conv`](Tensor::conv).
    pub fn conv_direct(&self, weight: &Tensor, bias: Option<&Tensor>, options: &ConvOptions) -> Result<Tensor> {
        Checked::new("conv", self, weight, bias, options)?.direct("conv")
    }

    /// [`conv`](Tensor::conv) with one spatial axis: `self` `[n, c, l]`, `weight` `[k, c/groups, r]`.
    ///
    /// # Errors
    /// As [`conv`](Tensor::conv), and another number of spatial axes.
    pub fn conv1d(&self, weight: &Tensor, bias: Option<&Tensor>, options: &ConvOptions) -> Result<Tensor> {
        self.conv_nd("conv1d", 1, weight, bias, options)
    }

    /// [`conv`](Tensor::conv) with two spatial axes: `self` `[n, c, h, w]`, `weight` `[k, c/groups, r, s]`.
    ///
    /// # Errors
    /// As [`conv`](Tensor::conv), and another number of spatial axes.
    pub fn conv2d(&self, weight: &Tensor, bias: Option<&Tensor>, options: &ConvOptions) -> Result<Tensor> {
        self.conv_nd("conv2d", 2, weight, bias, options)
    }

    /// [`conv`](Tensor::conv) with three spatial axes: `self` `[n, c, d, h, w]`, `weight` `[k, c/groups, q, r, s]`.
    ///
    /// # Errors
    /// As [`conv`](Tensor::conv), and another number of spatial axes.
    pub fn conv3d(&self, weight: &Tensor, bias: Option<&Tensor>, options: &ConvOptions) -> Result<Tensor> {
        self.conv_nd("conv3d", 3, weight, bias, options)
    }

    fn conv_nd(
        &self,
        name: &'static str,
        rank: usize,
        weight: &Tensor,
        bias: Option<&Tensor>,
        options: &ConvOptions,
    ) -> Result<Tensor> {
        if weight.rank() != rank + 2 {
            let expected = format!("a weight of {} axes: [k, c/groups] and {rank} of the window", rank + 2);
            return Err(Error::shape(name, &[self.shape(), weight.shape()], expected));
        }
        Checked::new(name, self, weight, bias, options)?.by_settings(name)
    }
}
