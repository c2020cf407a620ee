//! From the nodes of a graph to tensor operations.

use super::node::{Node, name_of, title_of};
use super::proto::{AttributeProto, FunctionProto, GraphProto, NodeProto};
use super::{OnnxModel, ops, tensors};
use crate::error::{Error, Result};
use crate::model::{ModelError, PortType, Value, host};
use crate::tensor::{Tensor, noted};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cell::Cell;
use std::path::Path;
use winograph_ir::interp::Value as HostValue;

/// Most nodes that one import may meet, bodies of loops counted each time: more is taken for a file that means harm.
const MAX_STEPS: usize = 400_000;

/// How deeply graphs and functions may be nested.
const MAX_DEPTH: usize = 48;

/// Imports a model for given inputs.
pub(crate) struct Importer<'a> {
    model: &'a OnnxModel,
    /// Whether elements that are needed are computed, where inputs have elements.
    eager: bool,
    /// Inputs by name, to say which are needed.
    args: Vec<(String, Value)>,
    steps: Cell<usize>,
    depth: Cell<usize>,
}

/// Names and their values, with those of the graph around.
pub(crate) struct Scope<'a> {
    outer: Option<&'a Scope<'a>>,
    values: FxHashMap<&'a str, Value>,
    /// Version of the operators by domain.
    opsets: &'a FxHashMap<String, i64>,
    /// Attributes of the function around.
    attributes: &'a [AttributeProto],
}

impl Scope<'_> {
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        let mut scope = self;
        loop {
            if let Some(v) = scope.values.get(name) {
                return Some(v);
            }
            scope = scope.outer?;
        }
    }
}

impl<'a> Importer<'a> {
    pub(crate) fn new(model: &'a OnnxModel, eager: bool, args: Vec<(String, Value)>) -> Importer<'a> {
        Importer { model, eager, args, steps: Cell::new(0), depth: Cell::new(0) }
    }

    pub(super) fn is_eager(&self) -> bool {
        self.eager
    }

    pub(super) fn folder(&self) -> Option<&Path> {
        self.model.folder.as_deref()
    }

    /// The results of the model.
    pub(crate) fn run(&self) -> Result<Vec<Value>> {
        let model = self.model;
        let mut scope = Scope { outer: None, values: FxHashMap::default(), opsets: &model.opsets, attributes: &[] };
        for (name, t) in &model.initializers {
            scope.values.insert(name, Value::Tensor(t.clone()));
        }
        for (name, value) in &self.args {
            if let Some(input) = model.graph.input.iter().find(|i| i.name == *name) {
                scope.values.insert(&input.name, value.clone());
            }
        }
        let outputs: Vec<&str> = model.graph.output.iter().map(|o| o.name.as_str()).collect();
        let values = self.nodes(&model.graph.node, &outputs, scope)?;
        for (port, value) in model.outputs().iter().zip(&values) {
            if let (PortType::Tensor { dtype, .. }, Some(t)) = (&port.of, value.tensor())
                && *dtype != t.dtype()
            {
                let cause = format!("the model declares it as {dtype} and computes {}", t.dtype());
                return Err(ModelError::format(format!("output {:?}", port.name), cause).into());
            }
        }
        Ok(values)
    }

    /// The results of a graph in an attribute, given its inputs by position. It sees the names around it.
    pub(super) fn graph(&self, graph: &GraphProto, inputs: Vec<Value>, outer: &Scope<'_>) -> Result<Vec<Value>> {
        let mut scope = Scope {
            outer: Some(outer),
            values: FxHashMap::default(),
            opsets: outer.opsets,
            attributes: outer.attributes,
        };
        for t in &graph.initializer {
            scope.values.insert(&t.name, Value::Tensor(tensors::tensor(t, self.folder())?));
        }
        for (input, value) in graph.input.iter().zip(inputs) {
            scope.values.insert(&input.name, value);
        }
        let outputs: Vec<&str> = graph.output.iter().map(|o| o.name.as_str()).collect();
        self.nested(|| self.nodes(&graph.node, &outputs, scope))
    }

    /// Counts what is done, so that no file keeps the importer busy for ever.
    pub(super) fn step(&self) -> Result<()> {
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() > MAX_STEPS {
            return Err(ModelError::format("model", format!("more than {MAX_STEPS} nodes to import")).into());
        }
        Ok(())
    }

    fn nested<R>(&self, f: impl FnOnce() -> Result<R>) -> Result<R> {
        if self.depth.get() >= MAX_DEPTH {
            return Err(ModelError::format("model", format!("graphs nested more than {MAX_DEPTH} deep")).into());
        }
        self.depth.set(self.depth.get() + 1);
        let result = f();
        self.depth.set(self.depth.get() - 1);
        result
    }

    /// Imports nodes in order and gives the values of `outputs`.
    fn nodes<'s>(&self, nodes: &'s [NodeProto], outputs: &[&str], mut scope: Scope<'s>) -> Result<Vec<Value>> {
        let needed = needed(nodes, outputs);
        for (node, _) in nodes.iter().zip(needed).filter(|(_, needed)| *needed) {
            self.step()?;
            let results = self.node(node, &scope)?;
            let results = results.into_iter().chain(std::iter::repeat(Value::None));
            for (name, value) in node.output.iter().zip(results).filter(|(name, _)| !name.is_empty()) {
                if scope.values.insert(name, value).is_some() {
                    let cause = format!("its result {name:?} has the name of another value");
                    return Err(ModelError::Node { node: name_of(node), op: node.op_type.clone(), cause }.into());
                }
            }
        }
        let value = |name: &&str| {
            let found = scope.get(name).cloned();
            found.ok_or_else(|| ModelError::format(format!("output {name:?}"), "no node computes it").into())
        };
        outputs.iter().map(value).collect()
    }

    fn node(&self, proto: &NodeProto, scope: &Scope<'_>) -> Result<Vec<Value>> {
        let wrong = |cause: String| ModelError::Node { node: name_of(proto), op: proto.op_type.clone(), cause };
        let mut inputs = Vec::with_capacity(proto.input.len());
        for name in &proto.input {
            let value = match name.is_empty() {
                true => Value::None,
                false => scope.get(name).cloned().ok_or_else(|| {
                    wrong(format!("its input {name:?} is no input, initializer or result of a node before it"))
                })?,
            };
            inputs.push(value);
        }
        // Attributes that refer to those of the function around get their values.
        let bound;
        let proto = if proto.attribute.iter().any(|a| !a.ref_attr_name.is_empty()) {
            bound = bind(proto, scope.attributes);
            &bound
        } else {
            proto
        };
        let domain = if proto.domain == "ai.onnx" { "" } else { &proto.domain };
        let opset = scope.opsets.get(domain).copied();
        if let Some(f) = self.model.functions.iter().find(|f| f.name == proto.op_type && f.domain == proto.domain) {
            return self.function(f, proto, inputs);
        }
        let unsupported = |cause: &str| {
            let op = if domain.is_empty() { proto.op_type.clone() } else { format!("{domain}.{}", proto.op_type) };
            Err(ModelError::Unsupported { node: name_of(proto), op, cause: cause.into() }.into())
        };
        let Some(lower) = ops::find(domain, &proto.op_type) else {
            return unsupported("there is no such operator here");
        };
        let Some(opset) = opset else {
            return unsupported(&format!("the model imports no operators of domain {domain:?}"));
        };
        let node = Node { proto, opset, inputs, importer: self, scope };
        noted(&title_of(proto), || lower(&node)).map_err(|e| match e {
            Error::Model(e) => Error::Model(e),
            Error::OutOfMemory { bytes } => Error::OutOfMemory { bytes },
            e => wrong(e.to_string()).into(),
        })
    }

    fn function(&self, f: &FunctionProto, call: &NodeProto, inputs: Vec<Value>) -> Result<Vec<Value>> {
        let mut opsets = FxHashMap::default();
        for set in &f.opset_import {
            let domain = if set.domain == "ai.onnx" { "" } else { &set.domain };
            opsets.insert(domain.to_string(), set.version);
        }
        let mut attributes = call.attribute.clone();
        for default in &f.attribute_proto {
            if attributes.iter().all(|a| a.name != default.name) {
                attributes.push(default.clone());
            }
        }
        let mut scope = Scope { outer: None, values: FxHashMap::default(), opsets: &opsets, attributes: &attributes };
        for (name, value) in f.input.iter().zip(inputs.into_iter().chain(std::iter::repeat(Value::None))) {
            scope.values.insert(name, value);
        }
        let outputs: Vec<&str> = f.output.iter().map(String::as_str).collect();
        self.nested(|| self.nodes(&f.node, &outputs, scope))
    }

    /// The elements of a tensor.
    pub(super) fn host(&self, node: &Node<'_>, t: &Tensor) -> Result<HostValue> {
        const NAME: &str = "import";
        if self.eager {
            t.realize()?;
            return host::constant_value(NAME, t);
        }
        match host::constant_value(NAME, t) {
            Err(Error::Unbound { .. }) => {
                let args: Vec<(&str, &Tensor)> =
                    self.args.iter().flat_map(|(n, v)| v.tensors().iter().map(|t| (n.as_str(), t))).collect();
                let tensors: Vec<&Tensor> = args.iter().map(|a| a.1).collect();
                let flags = host::depends_on(t, &tensors);
                let mut inputs: Vec<String> =
                    args.iter().zip(flags).filter(|(_, f)| *f).map(|(a, _)| a.0.to_string()).collect();
                inputs.dedup();
                Err(ModelError::NeedsValue { node: node.name(), op: node.op().into(), inputs }.into())
            }
            value => value,
        }
    }
}

/// A node with the attributes that refer to those of a function replaced by them.
fn bind(proto: &NodeProto, attributes: &[AttributeProto]) -> NodeProto {
    let mut out = proto.clone();
    out.attribute = (proto.attribute.iter())
        .filter_map(|a| {
            if a.ref_attr_name.is_empty() {
                return Some(a.clone());
            }
            let found = attributes.iter().find(|b| b.name == a.ref_attr_name)?;
            Some(AttributeProto { name: a.name.clone(), ref_attr_name: String::new(), ..found.clone() })
        })
        .collect();
    out
}

/// Which nodes `outputs` depend on: others are not looked at.
fn needed(nodes: &[NodeProto], outputs: &[&str]) -> Vec<bool> {
    let mut names: FxHashSet<&str> = outputs.iter().copied().collect();
    let mut flags = vec![false; nodes.len()];
    for (node, flag) in nodes.iter().zip(&mut flags).rev() {
        if node.output.iter().any(|o| names.contains(o.as_str())) {
            *flag = true;
            names.extend(node.input.iter().map(String::as_str));
            // `Gradient` names what it is of.
            let named = node.attribute.iter().filter(|a| node.op_type == "Gradient" && a.name == "y");
            names.extend(named.filter_map(|a| std::str::from_utf8(&a.s).ok()));
            captured(node, &mut names, 0);
        }
    }
    flags
}

/// The names that graphs in a node's attributes may take from around.
fn captured<'a>(node: &'a NodeProto, names: &mut FxHashSet<&'a str>, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    for graph in node.attribute.iter().filter_map(|a| a.g.as_deref()) {
        names.extend(graph.output.iter().map(|o| o.name.as_str()));
        for inner in &graph.node {
            names.extend(inner.input.iter().map(String::as_str));
            captured(inner, names, depth + 1);
        }
    }
}
