//! From the nodes of a graph to tensor operations.

use super::node::{Node, name_of, title_of};
use super::proto::{AttributeProto, FunctionProto, GraphProto, NodeProto};
use super::tensors::Folder;
use super::{OnnxModel, arity, attributes, ops, tensors};
use crate::error::{Error, Result};
use crate::model::budget::{self, Budget};
use crate::model::{ModelError, Port, PortType, Value, host, with_given};
use crate::tensor::{Tensor, noted};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cell::Cell;
use winograph_ir::Scalar;
use winograph_ir::interp::Value as HostValue;

/// Most nodes that one import may meet beyond those in the file, as bodies of loops and functions do each time: they become one
/// program, and compiling so many takes minutes. More is taken for a file that means harm.
const MAX_REPEATED: usize = 1 << 16;

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
    /// Elements that were computed on the way.
    folded: Cell<usize>,
    /// How often elements that follow from those of inputs were computed on the way.
    looked: Cell<usize>,
    /// For what follows from the file alone.
    pub(super) budget: Budget,
}

/// A value and where it comes from.
pub(super) struct Known {
    pub(super) value: Value,
    /// Whether it follows from the file alone.
    constant: bool,
    /// Whether it follows from elements of inputs that are not known while importing, or from any where elements are computed on
    /// the way. Neither is so for the number of an iteration.
    pub(super) from_data: bool,
    /// Whether it has been counted as a constant that has to be there when the model runs.
    kept: Cell<bool>,
}

impl Known {
    fn new(value: Value, constant: bool, from_data: bool) -> Known {
        Known { value, constant, from_data, kept: Cell::new(false) }
    }

    /// That a value which is there when the model runs has room.
    fn keep(&self, budget: &Budget, is_result: bool) -> Result<(), String> {
        match self.constant && !self.kept.replace(true) {
            true => self.value.tensors().iter().try_for_each(|t| budget.keep(t, is_result)),
            false => Ok(()),
        }
    }
}

/// Names and their values, with those of the graph around.
pub(crate) struct Scope<'a> {
    outer: Option<&'a Scope<'a>>,
    values: FxHashMap<&'a str, Known>,
    /// Arrays of the graph that there is no dtype for, and what is wrong with each.
    unheld: FxHashMap<&'a str, String>,
    /// Version of the operators by domain.
    opsets: &'a FxHashMap<String, i64>,
    /// Attributes of the function around.
    attributes: &'a [AttributeProto],
}

impl Scope<'_> {
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.known(name).map(|k| &k.value)
    }

    fn known(&self, name: &str) -> Option<&Known> {
        self.scopes().find_map(|scope| scope.values.get(name))
    }

    /// What is wrong with an array of the file that is not known.
    fn unheld(&self, name: &str) -> Option<&str> {
        self.scopes().find_map(|scope| scope.unheld.get(name)).map(String::as_str)
    }

    /// It and those around it.
    fn scopes(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |scope| scope.outer)
    }
}

impl<'a> Importer<'a> {
    pub(crate) fn new(model: &'a OnnxModel, eager: bool, args: Vec<(String, Value)>) -> Importer<'a> {
        Importer {
            model,
            eager,
            args,
            steps: Cell::new(0),
            depth: Cell::new(0),
            folded: Cell::new(0),
            looked: Cell::new(0),
            budget: Budget::new(model.bytes),
        }
    }

    pub(super) fn is_eager(&self) -> bool {
        self.eager
    }

    /// How often elements that follow from those of inputs were computed so far, where they are.
    pub(super) fn looked(&self) -> usize {
        self.looked.get()
    }

    /// Counts that.
    pub(super) fn look(&self) {
        self.looked.set(self.looked.get() + 1);
    }

    pub(super) fn folder(&self) -> Option<&Folder> {
        self.model.folder.as_ref()
    }

    /// The results of the model.
    pub(crate) fn run(&self) -> Result<Vec<Value>> {
        let model = self.model;
        let unheld = model.unheld.iter().map(|(name, cause, _)| (name.as_str(), cause.clone())).collect();
        let mut scope =
            Scope { outer: None, values: FxHashMap::default(), unheld, opsets: &model.opsets, attributes: &[] };
        for (name, t) in &model.initializers {
            scope.values.insert(name, Known::new(Value::Tensor(t.clone()), true, false));
        }
        let inputs: FxHashSet<&str> = model.graph.input.iter().map(|i| i.name.as_str()).collect();
        for (name, value) in &self.args {
            if let Some(input) = inputs.get(name.as_str()) {
                // Elements that a compiled form is made for are known.
                let from_data = self.eager || !value.tensors().iter().all(Tensor::is_realized);
                scope.values.insert(input, Known::new(value.clone(), false, from_data));
            }
        }
        let outputs: Vec<&str> = model.graph.output.iter().map(|o| o.name.as_str()).collect();
        self.steps.set(model.graph.node.len());
        let values = self.nodes(&model.graph.node, &outputs, scope)?;
        let shapes = Shapes::of(&with_given(model.inputs(), || model.defaults(), &self.args), &self.args);
        for (port, known) in model.outputs().iter().zip(&values) {
            let wrong = |cause: String| ModelError::format(format!("output {:?}", port.name), cause);
            known.keep(&self.budget, true).map_err(wrong)?;
            let (PortType::Tensor { dtype, shape }, Some(t)) = (&port.of, known.value.tensor()) else { continue };
            if *dtype != t.dtype() {
                return Err(wrong(format!("the model declares it as {dtype} and computes {}", t.dtype())).into());
            }
            if let Some(declared) = shape.as_ref().filter(|declared| shapes.contradict(declared, t.shape())) {
                let sizes: Vec<String> = declared.iter().map(|s| s.map_or("?".into(), |s| s.to_string())).collect();
                let cause =
                    format!("the model declares its shape as [{}] and computes {:?}", sizes.join(", "), t.shape());
                return Err(wrong(cause).into());
            }
        }
        Ok(values.into_iter().map(|known| known.value).collect())
    }

    /// The results of a graph in an attribute, given its inputs by position and whether each follows from elements of the model's
    /// inputs. It sees the names around it.
    pub(super) fn graph(
        &self,
        graph: &GraphProto,
        inputs: Vec<(Value, bool)>,
        node: &Node<'_>,
    ) -> Result<Vec<(Value, bool)>> {
        self.steps(node.proto, graph.node.len())?;
        let outer = node.scope;
        let mut scope = Scope {
            outer: Some(outer),
            values: FxHashMap::default(),
            unheld: FxHashMap::default(),
            opsets: outer.opsets,
            attributes: outer.attributes,
        };
        for t in &graph.initializer {
            if let Err(dtype) = tensors::dtype(t.data_type) {
                scope.unheld.insert(&t.name, tensors::unheld(&dtype));
                continue;
            }
            scope.values.insert(&t.name, Known::new(Value::Tensor(tensors::tensor(t, self.folder())?), true, false));
        }
        for (input, (value, from_data)) in graph.input.iter().zip(inputs) {
            scope.values.insert(&input.name, Known::new(value, node.constant, from_data));
        }
        let outputs: Vec<&str> = graph.output.iter().map(|o| o.name.as_str()).collect();
        let results = self.nested(|| self.nodes(&graph.node, &outputs, scope))?;
        Ok(results.into_iter().map(|known| (known.value, known.from_data)).collect())
    }

    /// Counts what is done for a node, so that no file keeps the importer or the compiler busy for ever.
    pub(super) fn steps(&self, node: &NodeProto, count: usize) -> Result<()> {
        self.steps.set(self.steps.get().saturating_add(count));
        if self.steps.get() <= self.model.nodes.saturating_add(MAX_REPEATED) {
            return Ok(());
        }
        let cause = format!(
            "with it loops, sequences and functions repeat more than {MAX_REPEATED} nodes, each of which would be compiled: \
             repeat less in one model, and run it several times; a loop whose condition stays true never ends"
        );
        Err(ModelError::Node { node: name_of(node), op: node.op_type.clone(), cause }.into())
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
    fn nodes<'s>(&self, nodes: &'s [NodeProto], outputs: &[&'s str], mut scope: Scope<'s>) -> Result<Vec<Known>> {
        let (needed, names) = needed(nodes, outputs);
        for (node, needed) in nodes.iter().zip(needed) {
            if !needed {
                continue;
            }
            let Results { values: results, constant, from_data } = self.node(node, &scope)?;
            let read = |name: &&String| names.contains(name.as_str()) && !name.is_empty();
            if let Some(name) = node.output.iter().skip(results.len()).find(read) {
                let cause = format!(
                    "it names {} outputs and computes {} of them here: {name:?} is read and is none of these",
                    node.output.len(),
                    results.len()
                );
                return Err(ModelError::Node { node: name_of(node), op: node.op_type.clone(), cause }.into());
            }
            let results = results.into_iter().chain(std::iter::repeat(Value::None));
            for (name, value) in node.output.iter().zip(results).filter(|(name, _)| !name.is_empty()) {
                if scope.values.insert(name, Known::new(value, constant, from_data)).is_some() {
                    let cause = format!("its result {name:?} has the name of another value");
                    return Err(ModelError::Node { node: name_of(node), op: node.op_type.clone(), cause }.into());
                }
            }
        }
        let value = |name: &&str| {
            let copy = |known: &Known| Known::new(known.value.clone(), known.constant, known.from_data);
            let found = scope.known(name).map(copy);
            let cause = || scope.unheld(name).unwrap_or("no node computes it").to_string();
            found.ok_or_else(|| ModelError::format(format!("output {name:?}"), cause()).into())
        };
        outputs.iter().map(value).collect()
    }

    /// The results of a node.
    fn node(&self, proto: &NodeProto, scope: &Scope<'_>) -> Result<Results> {
        let wrong = |cause: String| ModelError::Node { node: name_of(proto), op: proto.op_type.clone(), cause };
        let mut inputs = Vec::with_capacity(proto.input.len());
        let mut data = Vec::with_capacity(proto.input.len());
        // The names that graphs in its attributes read may be of values around it.
        let mut names = FxHashSet::default();
        captured(proto, &mut names, 0);
        let mut operands: Vec<&Known> = names.into_iter().filter_map(|name| scope.known(name)).collect();
        for name in &proto.input {
            let (value, from_data) = match name.is_empty() {
                true => (Value::None, false),
                false => {
                    let known = scope.known(name).ok_or_else(|| match scope.unheld(name) {
                        Some(cause) => ModelError::Unsupported {
                            node: name_of(proto),
                            op: proto.op_type.clone(),
                            cause: format!("its input {name:?}: {cause}"),
                        },
                        None => {
                            wrong(format!("its input {name:?} is no input, initializer or result of a node before it"))
                        }
                    })?;
                    operands.push(known);
                    (known.value.clone(), known.from_data)
                }
            };
            inputs.push(value);
            data.push(from_data);
        }
        let constant = operands.iter().all(|known| known.constant);
        let from_data = operands.iter().any(|known| known.from_data);
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
        if let Some(f) = self.model.function(&proto.domain, &proto.op_type) {
            let inputs = inputs.into_iter().zip(data);
            let inputs = inputs.map(|(value, from_data)| Known::new(value, constant, from_data)).collect();
            return Ok(Results { values: self.function(f, proto, inputs)?, constant, from_data });
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
        attributes::check(proto).and_then(|()| arity::check(proto, opset)).map_err(wrong)?;
        if !constant {
            // It is computed when the model runs, from constants that have to be there.
            for known in operands {
                known.keep(&self.budget, false).map_err(|cause| wrong(format!("of what it reads: {cause}")))?;
            }
        }
        let node = Node { proto, opset, inputs, data, importer: self, scope, constant };
        let of_result = |name: Option<&String>| format!("its result {:?}", name.map_or("", String::as_str));
        let results = noted(&title_of(proto), || lower(&node)).map_err(|e| match e {
            Error::Model(e) => Error::Model(e),
            Error::OutOfMemory { bytes } => {
                let part = format!("node {} ({}), {}", name_of(proto), proto.op_type, of_result(proto.output.first()));
                ModelError::Memory { part, bytes }.into()
            }
            e @ Error::TooLarge { .. } => wrong(format!("{}: {e}", of_result(proto.output.first()))).into(),
            e => wrong(e.to_string()).into(),
        })?;
        for (i, value) in results.iter().enumerate() {
            let fits = value.tensors().iter().try_for_each(|t| self.fits(&node, t));
            fits.map_err(|cause| wrong(format!("{}: {cause}", of_result(proto.output.get(i)))))?;
        }
        Ok(Results { values: results, constant, from_data })
    }

    /// That there is room for a node's result; else why not.
    fn fits(&self, node: &Node<'_>, t: &Tensor) -> Result<(), String> {
        budget::fits(t)?;
        if !node.constant {
            return Ok(());
        }
        // The nodes of graphs in its attributes have been counted when they were met.
        match node.proto.attribute.iter().any(|a| a.g.is_some()) {
            true => self.budget.admit(budget::bytes(t)),
            false => {
                let operands: Vec<&Tensor> = node.inputs.iter().flat_map(Value::tensors).collect();
                self.budget.constant(&operands, t)
            }
        }
    }

    fn function(&self, f: &FunctionProto, call: &NodeProto, inputs: Vec<Known>) -> Result<Vec<Value>> {
        self.steps(call, f.node.len())?;
        let names = f.attribute.iter().chain(f.attribute_proto.iter().map(|a| &a.name)).map(String::as_str);
        let counts = || arity::check_counts(call, Some(f.input.len()), Some(f.output.len()));
        let checked = attributes::check_call(call, &names.collect::<Vec<_>>()).and_then(|()| counts());
        checked.map_err(|cause| ModelError::Node { node: name_of(call), op: call.op_type.clone(), cause })?;
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
        let (values, unheld) = (FxHashMap::default(), FxHashMap::default());
        let mut scope = Scope { outer: None, values, unheld, opsets: &opsets, attributes: &attributes };
        let constant = inputs.iter().all(|known| known.constant);
        let none = || Known::new(Value::None, constant, false);
        for (name, known) in f.input.iter().zip(inputs.into_iter().chain(std::iter::repeat_with(none))) {
            scope.values.insert(name, known);
        }
        let outputs: Vec<&str> = f.output.iter().map(String::as_str).collect();
        let results = self.nested(|| self.nodes(&f.node, &outputs, scope))?;
        Ok(results.into_iter().map(|known| known.value).collect())
    }

    /// Computes the elements of a tensor that follows from known ones.
    pub(super) fn fold(&self, t: &Tensor) -> Result<()> {
        host::constant_value("import", t, &self.folded).map(|_| ())
    }

    /// The elements of a tensor, which may follow from those of inputs.
    pub(super) fn host(&self, node: &Node<'_>, t: &Tensor, from_data: bool) -> Result<HostValue> {
        const NAME: &str = "import";
        node.host_memory(t.numel().saturating_mul(size_of::<Scalar>()))?;
        if self.eager {
            if from_data && !t.is_realized() {
                self.look();
            }
            t.realize()?;
            // What follows from inputs is as large as these are.
            let of_inputs = Cell::default();
            return host::constant_value(NAME, t, if node.constant { &self.folded } else { &of_inputs });
        }
        match host::constant_value(NAME, t, &self.folded) {
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

/// The results of a node, and where they come from.
struct Results {
    values: Vec<Value>,
    /// Whether they follow from the file alone.
    constant: bool,
    /// Whether they follow from elements of inputs.
    from_data: bool,
}

/// What a model's inputs say about the shapes that it declares.
enum Shapes {
    /// Inputs are as declared, and all sizes are.
    Stated,
    /// Some sizes of inputs are open: what is declared may be of those that the model was made with.
    Open,
    /// An input has another shape than is declared.
    Other,
}

impl Shapes {
    fn of(ports: &[Port], args: &[(String, Value)]) -> Shapes {
        let mut open = false;
        let args: FxHashMap<&str, &Value> = args.iter().map(|(name, value)| (name.as_str(), value)).collect();
        for port in ports {
            let PortType::Tensor { shape: Some(declared), .. } = &port.of else {
                open = true;
                continue;
            };
            open |= declared.contains(&None);
            let given = args.get(port.name.as_str()).and_then(|v| v.tensor());
            if given.is_some_and(|t| differ(declared, t.shape())) {
                return Shapes::Other;
            }
        }
        if open { Shapes::Open } else { Shapes::Stated }
    }

    /// Whether the shape that is declared for a result cannot be meant where it has this one. One without sizes says nothing.
    fn contradict(&self, declared: &[Option<usize>], computed: &[usize]) -> bool {
        match self {
            _ if declared.iter().all(Option::is_none) => false,
            Shapes::Stated => differ(declared, computed),
            Shapes::Open => declared.len() != computed.len(),
            Shapes::Other => false,
        }
    }
}

/// Whether a shape is not as declared; sizes that are not are any.
fn differ(declared: &[Option<usize>], shape: &[usize]) -> bool {
    declared.len() != shape.len() || declared.iter().zip(shape).any(|(d, &s)| d.is_some_and(|d| d != s))
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

/// Which nodes `outputs` depend on, others are not looked at; and the names that these read, `outputs` among them.
fn needed<'n>(nodes: &'n [NodeProto], outputs: &[&'n str]) -> (Vec<bool>, FxHashSet<&'n str>) {
    let mut names: FxHashSet<&'n str> = outputs.iter().copied().collect();
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
    (flags, names)
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
