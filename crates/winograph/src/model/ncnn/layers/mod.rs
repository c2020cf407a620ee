//! Layers, as tensor operations. What each takes is in ncnn's table of operators.

mod activation;
mod arithmetic;
mod conv;
mod movement;
mod norm;
mod pool;
mod resize;

use super::param::Layer;
use super::weights::Blob;
use crate::error::Result;
use crate::model::ModelError;
use crate::model::budget::{self, Budget};
use crate::tensor::Tensor;

pub(super) use conv::input_channels;

/// A layer, its inputs and its weights.
struct Node<'a> {
    layer: &'a Layer,
    inputs: &'a [Tensor],
    weights: &'a [Tensor],
    budget: &'a Budget,
}

impl<'a> Node<'a> {
    /// Input `i`.
    fn x(&self, i: usize) -> Result<&'a Tensor> {
        self.inputs.get(i).ok_or_else(|| {
            let given = self.inputs.len();
            self.layer.wrong(format!("it has {given} input(s), at least {} are needed", i + 1)).into()
        })
    }

    /// Weights number `i`; [`weights`] has said that there are as many.
    fn w(&self, i: usize) -> Result<&'a Tensor> {
        self.weights.get(i).ok_or_else(|| self.layer.wrong("its weights are missing").into())
    }

    /// That a table of so many entries may be made while importing.
    fn table(&self, entries: usize) -> Result<()> {
        let work = (entries as u64).saturating_mul(budget::PER_ENTRY);
        self.budget.host(work).map_err(|cause| self.layer.wrong(cause).into())
    }

    /// The axis that a parameter names, which may count from the end.
    fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        let at = if axis < 0 { axis + rank as i64 } else { axis };
        match usize::try_from(at).ok().filter(|&a| a < rank) {
            Some(a) => Ok(a),
            None => Err(self.layer.wrong(format!("axis {axis} of a blob with {rank} axes")).into()),
        }
    }
}

/// What a layer reads from the `.bin` file.
pub(super) fn weights(layer: &Layer) -> Result<Vec<Blob>, ModelError> {
    match layer.kind.as_str() {
        "Convolution"
        | "ConvolutionDepthWise"
        | "Deconvolution"
        | "DeconvolutionDepthWise"
        | "InnerProduct"
        | "Convolution1D" => conv::weights(layer),
        "PReLU" => Ok(vec![Blob::plain("num_slope", layer.size(0, "num_slope", 0)?)]),
        "Scale" | "BatchNorm" | "InstanceNorm" | "GroupNorm" | "LayerNorm" => norm::weights(layer),
        "MemoryData" => movement::memory_weights(layer),
        _ => Ok(vec![]),
    }
}

/// The results of a layer.
pub(super) fn lower(layer: &Layer, inputs: &[Tensor], weights: &[Tensor], budget: &Budget) -> Result<Vec<Tensor>> {
    let n = Node { layer, inputs, weights, budget };
    let one = |t: Result<Tensor>| Ok(vec![t?]);
    match layer.kind.as_str() {
        "Split" => Ok(vec![n.x(0)?.clone(); layer.outputs.len()]),
        "Noop" => Ok(inputs.to_vec()),
        "Dropout" => one(n.x(0)?.mul(layer.float(0, "scale", 1.0)?)),
        "Slice" => movement::slice(&n),
        "MemoryData" => one(movement::memory(&n)),
        "Convolution" | "ConvolutionDepthWise" => one(conv::convolution(&n)),
        "Convolution1D" => one(conv::convolution_1d(&n)),
        "Deconvolution" | "DeconvolutionDepthWise" => one(conv::deconvolution(&n)),
        "InnerProduct" => one(conv::inner_product(&n)),
        "Pooling" => one(pool::pooling(&n)),
        "Interp" => one(resize::interp(&n)),
        "BinaryOp" => one(arithmetic::binary(&n)),
        "UnaryOp" => one(arithmetic::unary(&n)),
        "Eltwise" => one(arithmetic::eltwise(&n)),
        "Softmax" => one(n.x(0)?.softmax(n.axis(layer.int(0, "axis", 0)?, n.x(0)?.rank())? as isize)),
        "Reduction" => one(arithmetic::reduction(&n)),
        "Scale" => one(norm::scale(&n)),
        "BatchNorm" => one(norm::batch_norm(&n)),
        "InstanceNorm" => one(norm::instance_norm(&n)),
        "GroupNorm" => one(norm::group_norm(&n)),
        "LayerNorm" => one(norm::layer_norm(&n)),
        kind => {
            if let Some(f) = activation::find(kind).or_else(|| movement::find(kind)) {
                return one(f(&n));
            }
            Err(layer.unsupported("there is no such layer here").into())
        }
    }
}
