//! Models in ncnn's format: a `.param` file with a line for each layer, and a `.bin` file with their weights.
//!
//! Blobs are tensors without a batch axis, outermost axis first: `[w]`, `[h, w]`, `[c, h, w]` or `[c, d, h, w]`.

mod layers;
mod param;
mod weights;

use crate::error::{Error, Result};
use crate::model::budget::{self, Budget};
use crate::model::{ModelError, Port, PortType, Value};
use crate::tensor::{Tensor, noted};
use param::{Layer, NONE};
use rustc_hash::{FxHashMap, FxHashSet};
use winograph_ir::DType;

pub(crate) use param::MAGIC;

/// A model in ncnn's format.
#[derive(Debug)]
pub(crate) struct NcnnModel {
    layers: Vec<(Layer, Vec<Tensor>)>,
    /// Blobs that no layer reads.
    outputs: Vec<String>,
    /// Bytes of both files.
    bytes: u64,
}

impl NcnnModel {
    /// Decodes the bytes of both files.
    pub(crate) fn decode(param: &[u8], bin: &[u8]) -> Result<NcnnModel> {
        let layers = param::parse(param)?;
        let mut known: FxHashSet<&str> = FxHashSet::default();
        let mut read: FxHashSet<&str> = FxHashSet::default();
        for layer in &layers {
            for name in &layer.inputs {
                if !known.contains(name.as_str()) {
                    return Err(layer.wrong(format!("its input {name:?} is the result of no layer before it")).into());
                }
                read.insert(name);
            }
            for name in &layer.outputs {
                if !known.insert(name) {
                    return Err(layer.wrong(format!("its result {name:?} has the name of another blob")).into());
                }
            }
        }
        let free = layers.iter().flat_map(|l| &l.outputs).filter(|o| !read.contains(o.as_str()));
        let outputs: Vec<String> = free.cloned().collect();
        if outputs.is_empty() {
            return Err(ModelError::format("model", "it has no layers, and so no output").into());
        }
        let mut reader = weights::Reader::new(bin);
        let mut with_weights = Vec::with_capacity(layers.len());
        let mut last = None;
        for layer in layers {
            let blobs = layers::weights(&layer)?;
            if let Some(blob) = blobs.last() {
                last = Some(format!("{} ({}), {} of {} elements", layer.name, layer.kind, blob.field, blob.count));
            }
            let read = blobs.iter().map(|b| reader.read(&layer, b)).collect::<Result<Vec<_>>>()?;
            with_weights.push((layer, read));
        }
        if reader.left() > 0 {
            let last = last.unwrap_or_else(|| "none".into());
            let cause = format!(
                "{} bytes are left when all layers have their weights, of which the last is {last}: that size, or one before it, \
                 is too small, or the file is that of another model",
                reader.left()
            );
            return Err(ModelError::format("the .bin file", cause).into());
        }
        Ok(NcnnModel { layers: with_weights, outputs, bytes: param.len() as u64 + bin.len() as u64 })
    }

    fn input_layers(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().map(|(l, _)| l).filter(|l| l.kind == "Input")
    }

    pub(crate) fn inputs(&self) -> Vec<Port> {
        let port = |layer: &Layer| {
            let name = layer.outputs.first().cloned().unwrap_or_default();
            let shape = self.input_shape(layer, &name);
            Port { name, of: PortType::Tensor { dtype: DType::F32, shape } }
        };
        self.input_layers().map(port).collect()
    }

    /// What is known of an input's shape: what its layer says, else what the convolutions say that read it.
    fn input_shape(&self, layer: &Layer, name: &str) -> Option<Vec<Option<usize>>> {
        let given = |id: i64| layer.int(id, "size", 0).ok().and_then(|v| usize::try_from(v).ok()).filter(|&v| v > 0);
        let (w, h, d, c) = (given(0), given(1), given(11), given(2));
        match (w, h, d, c) {
            (_, _, Some(_), _) => return Some(vec![c, d, h, w]),
            (Some(_), None, _, None) => return Some(vec![w]),
            (_, Some(_), _, None) => return Some(vec![h, w]),
            (_, _, _, Some(_)) => return Some(vec![c, h, w]),
            _ => {}
        }
        let mut names: FxHashSet<&str> = [name].into_iter().collect();
        for (layer, weights) in &self.layers {
            if !layer.inputs.iter().any(|i| names.contains(i.as_str())) {
                continue;
            }
            match layer.kind.as_str() {
                "Split" | "Noop" | "Dropout" => names.extend(layer.outputs.iter().map(String::as_str)),
                "Convolution" => {
                    let channels = layers::input_channels(layer, weights.first()?)?;
                    return Some(vec![Some(channels), None, None]);
                }
                _ => {}
            }
        }
        None
    }

    pub(crate) fn outputs(&self) -> Vec<Port> {
        let port = |name: &String| Port { name: name.clone(), of: PortType::Tensor { dtype: DType::F32, shape: None } };
        self.outputs.iter().map(port).collect()
    }

    pub(crate) fn operators(&self) -> Vec<(String, usize)> {
        let mut counts: FxHashMap<&str, usize> = FxHashMap::default();
        for (layer, _) in self.layers.iter().filter(|(l, _)| l.kind != "Input") {
            *counts.entry(&layer.kind).or_default() += 1;
        }
        let mut list: Vec<(String, usize)> = counts.into_iter().map(|(n, c)| (n.to_string(), c)).collect();
        list.sort();
        list
    }

    pub(crate) fn parameters(&self) -> usize {
        self.layers.iter().flat_map(|(_, w)| w).map(Tensor::numel).sum()
    }

    /// Builds the tensors of the outputs from those of the inputs.
    pub(crate) fn trace(&self, inputs: &[(String, Value)]) -> Result<Vec<Value>> {
        // With whether they follow from the files alone.
        let mut values: FxHashMap<&str, (Tensor, bool)> = FxHashMap::default();
        let budget = Budget::new(self.bytes);
        let mut kept: FxHashSet<&str> = FxHashSet::default();
        for (layer, weights) in &self.layers {
            let mut given = Vec::with_capacity(layer.inputs.len());
            let mut constant = layer.kind != "Input";
            for name in &layer.inputs {
                // `decode` has seen that each is there.
                let found = values.get(name.as_str()).cloned();
                let (t, fixed) = found.ok_or_else(|| layer.wrong(format!("its input {name:?} is missing")))?;
                constant &= fixed;
                given.push(t);
            }
            if !constant {
                // It is computed when the model runs, from constants that have to be there.
                for name in &layer.inputs {
                    let fixed = values.get(name.as_str()).filter(|(_, fixed)| *fixed && kept.insert(name));
                    let kept = fixed.map_or(Ok(()), |(t, _)| budget.keep(t, false));
                    kept.map_err(|cause| layer.wrong(format!("of what it reads: {cause}")))?;
                }
            }
            let results = if layer.kind == "Input" {
                let name = layer.outputs.first().map_or("", String::as_str);
                let found = inputs.iter().find(|(n, _)| n == name).and_then(|(_, v)| v.tensor());
                vec![found.ok_or_else(|| layer.wrong("the input is missing"))?.clone()]
            } else {
                noted(&layer.name, || layers::lower(layer, &given, weights, &budget)).map_err(|e| match e {
                    Error::Model(e) => Error::Model(e),
                    Error::OutOfMemory { bytes } => {
                        ModelError::Memory { part: format!("node {} ({})", layer.name, layer.kind), bytes }.into()
                    }
                    e => layer.wrong(e.to_string()).into(),
                })?
            };
            if results.len() != layer.outputs.len() {
                let cause = format!("it has {} results, of which {} are named", results.len(), layer.outputs.len());
                return Err(layer.wrong(cause).into());
            }
            for (name, value) in layer.outputs.iter().zip(results) {
                if value.rank() == 0 || value.rank() > 4 {
                    return Err(layer
                        .wrong(format!("a result of shape {:?}, expected 1 to 4 axes", value.shape()))
                        .into());
                }
                let operands: Vec<&Tensor> = given.iter().chain(weights).collect();
                let fits = budget::fits(&value).and_then(|()| match constant {
                    true => budget.constant(&operands, &value),
                    false => Ok(()),
                });
                fits.map_err(|cause| layer.wrong(format!("its result {name:?}: {cause}")))?;
                values.insert(name, (value, constant));
            }
        }
        let missing = || Error::from(ModelError::format("model", "an output is missing"));
        let mut results = Vec::with_capacity(self.outputs.len());
        for name in &self.outputs {
            let (value, constant) = values.get(name.as_str()).cloned().ok_or_else(missing)?;
            if constant {
                let wrong = |cause| ModelError::format(format!("output {name:?}"), cause);
                budget.keep(&value, true).map_err(wrong)?;
            }
            results.push(Value::Tensor(value));
        }
        Ok(results)
    }
}

/// The size of a parameter that may be [`NONE`].
fn given(value: i64) -> Option<i64> {
    (value != NONE).then_some(value)
}
