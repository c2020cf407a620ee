//! Models in ONNX's format.
//!
//! Importing runs through the nodes in order and builds a tensor for each of their results: shapes, dtypes and
//! constants follow from building tensors, and there is no other form in between.

mod arity;
mod attributes;
mod import;
mod node;
mod ops;
pub(crate) mod proto;
mod stream;
pub(crate) mod tensors;

use crate::error::{Error, Result};
use crate::model::budget::{self, Budget};
use crate::model::{ModelError, Port, PortType, Value};
use crate::tensor::Tensor;
use crate::tensor::shape::MAX_RANK;
use crate::tensor::storage::Storage;
use import::Importer;
use proto::{DimensionProto, FunctionProto, GraphProto, NodeProto, TensorProto, TypeProto, ValueInfoProto};
use rustc_hash::{FxHashMap, FxHashSet};
use tensors::Folder;

/// The oldest and the newest version of ONNX's operators that models may use.
const OPSETS: std::ops::RangeInclusive<i64> = 1..=25;

/// The version of the format from which on inputs may have initializers as defaults. Before, all initializers are inputs.
const DEFAULTS_FROM: i64 = 4;

/// A model in ONNX's format.
#[derive(Debug)]
pub(crate) struct OnnxModel {
    /// The graph, without its initializers.
    graph: GraphProto,
    initializers: Vec<(String, Tensor)>,
    /// Initializers that there is no dtype for: names, what is wrong, numbers of elements. Nodes that read them cannot be
    /// imported.
    unheld: Vec<(String, String, usize)>,
    /// Places of inputs with initializers, where these are defaults and no constants: of files of the format's version 4 on.
    defaults: Vec<usize>,
    opsets: FxHashMap<String, i64>,
    functions: Vec<FunctionProto>,
    /// Where a function of a domain and a name is among them: the first of several.
    function_at: FxHashMap<String, FxHashMap<String, usize>>,
    /// Nodes in the file, those of graphs within nodes included.
    nodes: usize,
    metadata: Vec<(String, String)>,
    folder: Option<Folder>,
    /// Bytes of the file, or of the initializers, some of which may be in other files.
    bytes: u64,
}

impl OnnxModel {
    /// Decodes a file's bytes. `folder` is the file's, where elements kept in other files are looked for.
    pub(crate) fn decode(bytes: &[u8], folder: Option<Folder>) -> Result<OnnxModel> {
        OnnxModel::read(bytes, bytes.len() as u64, folder)
    }

    /// Decodes a file of `bytes` bytes while it is read, so that weights are in memory once.
    pub(crate) fn read(from: impl stream::Source, bytes: u64, folder: Option<Folder>) -> Result<OnnxModel> {
        let wrong = |cause: String| ModelError::format("model", cause);
        let parts = stream::read(from, bytes).map_err(|e| match e {
            stream::Cause::Io(e) => wrong(format!("it cannot be read to its end: {e}")),
            stream::Cause::Text(e) => wrong(format!("not an ONNX file: {e}")),
        })?;
        let model = parts.model;
        let mut graph = parts.graph.ok_or_else(|| wrong("it has no graph".into()))?;
        let mut opsets = FxHashMap::default();
        for set in &model.opset_import {
            let domain = if set.domain == "ai.onnx" { "" } else { &set.domain };
            opsets.insert(domain.to_string(), set.version);
        }
        if let Some(version) = opsets.get("").filter(|v| !OPSETS.contains(v)) {
            let (first, last) = (OPSETS.start(), OPSETS.end());
            return Err(wrong(format!("it uses operators of opset {version}; known are {first} to {last}")).into());
        }
        let mut names = FxHashSet::default();
        if let Some(twice) = graph.input.iter().find(|i| !names.insert(i.name.clone())) {
            return Err(ModelError::format(format!("input {:?}", twice.name), "its name occurs twice").into());
        }
        for (what, list) in [("input", &graph.input), ("output", &graph.output)] {
            for info in list {
                let rank = sizes_of(info).map_or(0, <[_]>::len);
                if rank > MAX_RANK {
                    let cause = format!("it is declared with {rank} axes: expected at most {MAX_RANK}");
                    return Err(ModelError::format(format!("{what} {:?}", info.name), cause).into());
                }
                // Exporters write -1 where any size will do.
                if let Some((axis, size)) = sizes(info).find(|&(_, size)| size < -1) {
                    let part = format!("{what} {:?}", info.name);
                    return Err(ModelError::format(part, format!("axis {axis} has size {size}")).into());
                }
            }
        }
        // Inputs with initializers have these as defaults.
        names.clear();
        let mut initializers = Vec::with_capacity(parts.initializers.len());
        let mut unheld = Vec::new();
        let others = std::mem::take(&mut graph.initializer).into_iter().map(|mut t| {
            let raw = std::mem::take(&mut t.raw_data);
            Ok::<_, Error>((t, (!raw.is_empty()).then(|| Storage::from_bytes(&raw)).transpose()?))
        });
        for part in parts.initializers.into_iter().map(Ok).chain(others) {
            let (t, raw) = part?;
            if !names.insert(t.name.clone()) {
                return Err(ModelError::format(format!("initializer {:?}", t.name), "its name occurs twice").into());
            }
            if let Err(dtype) = tensors::dtype(t.data_type) {
                let count = elements(&t);
                unheld.push((t.name, tensors::unheld(&dtype), count));
                continue;
            }
            let tensor = tensors::tensor_of(&t, raw, folder.as_ref())?;
            initializers.push((t.name, tensor));
        }
        let held = initializers.iter().fold(0u64, |n, (_, t)| n.saturating_add(budget::bytes(t)));
        let bytes = bytes.max(held);
        for s in std::mem::take(&mut graph.sparse_initializer) {
            let name = s.values.as_ref().map(|v| v.name.clone()).unwrap_or_default();
            names.insert(name.clone());
            if let Some(Err(dtype)) = s.values.as_ref().map(|v| tensors::dtype(v.data_type)) {
                unheld.push((name, tensors::unheld(&dtype), s.values.as_ref().map_or(0, elements)));
                continue;
            }
            let tensor = tensors::sparse(&s, folder.as_ref(), &Budget::new(bytes))?;
            initializers.push((name, tensor));
        }
        let given = |(i, info): (usize, &ValueInfoProto)| names.contains(&info.name).then_some(i);
        let defaults = match model.ir_version >= DEFAULTS_FROM {
            true => graph.input.iter().enumerate().filter_map(given).collect(),
            false => vec![],
        };
        let nodes = nodes(&graph.node) + model.functions.iter().map(|f| nodes(&f.node)).sum::<usize>();
        let mut function_at: FxHashMap<String, FxHashMap<String, usize>> = FxHashMap::default();
        for (i, f) in model.functions.iter().enumerate() {
            function_at.entry(f.domain.clone()).or_default().entry(f.name.clone()).or_insert(i);
        }
        Ok(OnnxModel {
            graph,
            function_at,
            nodes,
            initializers,
            unheld,
            defaults,
            opsets,
            functions: model.functions,
            metadata: model.metadata_props.into_iter().map(|e| (e.key, e.value)).collect(),
            folder,
            bytes,
        })
    }

    /// Inputs that may be given in place of their initializers.
    pub(crate) fn defaults(&self) -> Vec<Port> {
        self.defaults.iter().filter_map(|&i| self.graph.input.get(i)).map(port).collect()
    }

    /// Inputs that have no initializer.
    pub(crate) fn inputs(&self) -> Vec<Port> {
        let names = self.initializers.iter().map(|(n, _)| n).chain(self.unheld.iter().map(|(n, ..)| n));
        let names: FxHashSet<&str> = names.map(String::as_str).collect();
        let given = |i: &&ValueInfoProto| !names.contains(i.name.as_str());
        self.graph.input.iter().filter(given).map(port).collect()
    }

    /// The function of a domain and a name.
    fn function(&self, domain: &str, name: &str) -> Option<&FunctionProto> {
        self.functions.get(*self.function_at.get(domain)?.get(name)?)
    }

    pub(crate) fn outputs(&self) -> Vec<Port> {
        self.graph.output.iter().map(port).collect()
    }

    pub(crate) fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    /// Operators and how often each occurs in the main graph.
    pub(crate) fn operators(&self) -> Vec<(String, usize)> {
        let mut counts: FxHashMap<&str, usize> = FxHashMap::default();
        for n in &self.graph.node {
            *counts.entry(&n.op_type).or_default() += 1;
        }
        let mut list: Vec<(String, usize)> = counts.into_iter().map(|(n, c)| (n.to_string(), c)).collect();
        list.sort();
        list
    }

    /// Number of elements of the initializers, and of tensors that are nodes of their own.
    pub(crate) fn parameters(&self) -> usize {
        let constants = self.graph.node.iter().filter(|n| n.op_type == "Constant");
        let tensors = constants.flat_map(|n| &n.attribute).filter_map(|a| a.t.as_ref());
        let unheld = self.unheld.iter().map(|(.., count)| *count);
        let held = self.initializers.iter().map(|(_, t)| t.numel());
        held.chain(unheld).chain(tensors.map(elements)).fold(0, usize::saturating_add)
    }

    /// Builds the tensors of the outputs from those of the inputs. With `eager`, elements that shapes depend on are
    /// computed on the way, else they have to be constants.
    pub(crate) fn trace(&self, inputs: &[(String, Value)], eager: bool) -> Result<Vec<Value>> {
        Importer::new(self, eager, inputs.to_vec()).run()
    }
}

/// How many elements an array says that it has.
fn elements(t: &TensorProto) -> usize {
    t.dims.iter().map(|&d| usize::try_from(d).unwrap_or(0)).fold(1, usize::saturating_mul)
}

/// How many nodes there are, those of graphs within them included: decoding has bounded how deep these are.
fn nodes(list: &[NodeProto]) -> usize {
    let within = list.iter().flat_map(|n| &n.attribute).filter_map(|a| a.g.as_ref());
    list.len() + within.map(|g| nodes(&g.node)).sum::<usize>()
}

/// The axes that are declared of an input or output.
fn sizes_of(info: &ValueInfoProto) -> Option<&[DimensionProto]> {
    Some(&info.r#type.as_ref()?.tensor_type.as_ref()?.shape.as_ref()?.dim)
}

/// The sizes that are declared of an input or output, by axis.
fn sizes(info: &ValueInfoProto) -> impl Iterator<Item = (usize, i64)> {
    sizes_of(info).into_iter().flatten().enumerate().filter_map(|(axis, d)| Some((axis, d.dim_value?)))
}

fn port(info: &ValueInfoProto) -> Port {
    let unknown = PortType::Other("a value without a type".into());
    Port { name: info.name.clone(), of: info.r#type.as_ref().map_or(unknown, port_type) }
}

fn port_type(t: &TypeProto) -> PortType {
    if let Some(t) = &t.tensor_type {
        let dims =
            t.shape.as_ref().map(|s| s.dim.iter().map(|d| d.dim_value.and_then(|v| usize::try_from(v).ok())).collect());
        match tensors::dtype(t.elem_type) {
            Ok(dtype) => PortType::Tensor { dtype, shape: dims },
            Err(name) => PortType::Other(format!("a tensor of {name}")),
        }
    } else if t.sequence_type.is_some() {
        PortType::Sequence
    } else if t.optional_type.is_some() {
        PortType::Optional
    } else {
        PortType::Other("a value of another kind".into())
    }
}
