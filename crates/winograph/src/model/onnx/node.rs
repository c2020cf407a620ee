//! A node while it is imported: its operands, its attributes and the way to say what is wrong with it.

use super::import::{Importer, Scope};
use super::proto::{AttributeProto, GraphProto, NodeProto};
use super::tensors;
use crate::error::{Error, Result};
use crate::memory::may_fit;
use crate::model::{ModelError, Value, budget, host};
use crate::tensor::Tensor;
use winograph_ir::DType;
use winograph_ir::interp::Value as HostValue;

/// A node and its operands.
pub(crate) struct Node<'a> {
    pub(super) proto: &'a NodeProto,
    /// Version of the operators of its domain.
    pub(super) opset: i64,
    /// Operands; those left out are [`Value::None`].
    pub(super) inputs: Vec<Value>,
    /// Which of them follow from elements of the model's inputs.
    pub(super) data: Vec<bool>,
    pub(super) importer: &'a Importer<'a>,
    pub(super) scope: &'a Scope<'a>,
    /// Whether it follows from the file alone.
    pub(super) constant: bool,
}

/// How one operator becomes tensor operations.
pub(crate) type Lowering = fn(&Node<'_>) -> Result<Vec<Value>>;

/// The results of an operator that has one, a tensor.
pub(crate) fn one(t: Tensor) -> Result<Vec<Value>> {
    Ok(vec![Value::Tensor(t)])
}

impl Node<'_> {
    pub(crate) fn op(&self) -> &str {
        &self.proto.op_type
    }

    pub(crate) fn name(&self) -> String {
        name_of(self.proto)
    }

    /// An error that says what is wrong with the node.
    pub(crate) fn wrong(&self, cause: impl Into<String>) -> Error {
        ModelError::Node { node: self.name(), op: self.op().into(), cause: cause.into() }.into()
    }

    /// Counts a part of its work that is done again and again.
    pub(crate) fn step(&self) -> Result<()> {
        self.steps(1)
    }

    /// The same of a part that is as much as so many nodes.
    pub(crate) fn steps(&self, count: usize) -> Result<()> {
        self.importer.steps(self.proto, count)
    }

    /// An error that says what this library does not do.
    pub(crate) fn unsupported(&self, cause: impl Into<String>) -> Error {
        ModelError::Unsupported { node: self.name(), op: self.op().into(), cause: cause.into() }.into()
    }

    /// An operand that is a tensor.
    pub(crate) fn x(&self, i: usize) -> Result<&Tensor> {
        match self.inputs.get(i) {
            Some(Value::Tensor(t)) => Ok(t),
            Some(Value::Sequence(_)) => Err(self.wrong(format!("input {i} is a sequence, where a tensor is expected"))),
            _ => Err(self.wrong(format!("input {i} is missing"))),
        }
    }

    /// A value by its name in the graph.
    pub(crate) fn value(&self, name: &str) -> Option<&Value> {
        self.scope.get(name)
    }

    /// Whether elements that sizes depend on are computed while importing.
    pub(crate) fn is_eager(&self) -> bool {
        self.importer.is_eager()
    }

    /// An operand that may be missing.
    pub(crate) fn opt(&self, i: usize) -> Option<&Tensor> {
        self.inputs.get(i).and_then(Value::tensor)
    }

    /// All operands, which are tensors.
    pub(crate) fn all(&self) -> Result<Vec<&Tensor>> {
        (0..self.inputs.len()).map(|i| self.x(i)).collect()
    }

    /// The elements of an operand, while importing.
    pub(crate) fn host(&self, i: usize) -> Result<HostValue> {
        self.importer.host(self, self.x(i)?, self.depends_on_data(i))
    }

    /// The elements of a tensor, while importing.
    pub(crate) fn host_of(&self, t: &Tensor) -> Result<HostValue> {
        self.host_from(t, self.data.contains(&true))
    }

    /// The same of one that may follow from elements of the model's inputs.
    pub(crate) fn host_from(&self, t: &Tensor, from_data: bool) -> Result<HostValue> {
        self.importer.host(self, t, from_data)
    }

    /// Computes the elements of a tensor that follows from known ones, while importing.
    pub(crate) fn fold(&self, t: &Tensor) -> Result<()> {
        self.importer.fold(t)
    }

    /// That so many bytes may be had on the host for this node; asked before they are.
    pub(crate) fn host_memory(&self, bytes: usize) -> Result<()> {
        if may_fit(bytes) {
            return Ok(());
        }
        let part = format!("elements on the host, for node {} ({})", self.name(), self.op());
        Err(ModelError::Memory { part, bytes }.into())
    }

    /// Whether an operand follows from elements of the model's inputs.
    pub(crate) fn depends_on_data(&self, i: usize) -> bool {
        self.data.get(i).is_some_and(|&d| d)
    }

    /// The elements of a tensor from which the number of elements of the result follows. Where they depend on inputs, the
    /// model is run in pieces: no compiled form is made for each list of elements, as it is for shapes.
    pub(crate) fn elements_of(&self, t: &Tensor) -> Result<HostValue> {
        self.host_of(t).map_err(|e| match e {
            Error::Model(e) => match *e {
                ModelError::NeedsValue { node, op, .. } => ModelError::DataDependent { node, op }.into(),
                e => e.into(),
            },
            e => e,
        })
    }

    /// The elements of an operand of integers, while importing; `None` if it is missing.
    pub(crate) fn host_ints(&self, i: usize) -> Result<Option<Vec<i64>>> {
        match self.opt(i) {
            None => Ok(None),
            Some(_) => Ok(Some(host::ints(&self.host(i)?))),
        }
    }

    /// A list of integers that is an attribute in older opsets and operand `i` in newer ones.
    pub(crate) fn ints_or_input(&self, name: &str, i: usize) -> Result<Option<Vec<i64>>> {
        match self.ints(name) {
            Some(list) => Ok(Some(list)),
            None => self.host_ints(i),
        }
    }

    pub(crate) fn attr(&self, name: &str) -> Option<&AttributeProto> {
        self.proto.attribute.iter().find(|a| a.name == name)
    }

    pub(crate) fn int(&self, name: &str, default: i64) -> i64 {
        self.attr(name).map_or(default, |a| a.i)
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.int(name, 0) != 0
    }

    pub(crate) fn float(&self, name: &str, default: f32) -> f64 {
        self.attr(name).map_or(default, |a| a.f) as f64
    }

    pub(crate) fn ints(&self, name: &str) -> Option<Vec<i64>> {
        self.attr(name).map(|a| a.ints.clone())
    }

    pub(crate) fn floats(&self, name: &str) -> Option<Vec<f64>> {
        self.attr(name).map(|a| a.floats.iter().map(|&x| x as f64).collect())
    }

    pub(crate) fn text(&self, name: &str, default: &str) -> String {
        self.attr(name).map_or_else(|| default.to_string(), |a| String::from_utf8_lossy(&a.s).into_owned())
    }

    pub(crate) fn texts(&self, name: &str) -> Option<Vec<String>> {
        self.attr(name).map(|a| a.strings.iter().map(|s| String::from_utf8_lossy(s).into_owned()).collect())
    }

    /// A list of sizes, none of them negative.
    pub(crate) fn sizes(&self, name: &str) -> Result<Option<Vec<usize>>> {
        self.ints(name).map(|list| self.as_sizes(name, &list)).transpose()
    }

    pub(crate) fn as_sizes(&self, what: &str, list: &[i64]) -> Result<Vec<usize>> {
        let sizes = list.iter().map(|&x| usize::try_from(x).ok()).collect::<Option<Vec<_>>>();
        sizes.ok_or_else(|| self.wrong(format!("{what} {list:?} has a negative number")))
    }

    pub(crate) fn tensor_attr(&self, name: &str) -> Result<Option<Tensor>> {
        let proto = self.attr(name).and_then(|a| a.t.as_ref());
        proto.map(|t| tensors::tensor(t, self.importer.folder()).map_err(|e| self.in_attribute(name, e))).transpose()
    }

    /// An error of what an attribute holds.
    pub(crate) fn in_attribute(&self, name: &str, e: Error) -> Error {
        let Error::Model(e) = e else { return e };
        match *e {
            ModelError::Format { part, cause } => self.wrong(format!("its attribute {name:?}: {part}: {cause}")),
            e => e.into(),
        }
    }

    /// A graph in an attribute.
    pub(crate) fn graph(&self, name: &str) -> Result<&GraphProto> {
        let graph = self.attr(name).and_then(|a| a.g.as_deref());
        graph.ok_or_else(|| self.wrong(format!("attribute {name} is missing")))
    }

    /// A dtype that an attribute names by its number.
    pub(crate) fn dtype_attr(&self, name: &str) -> Result<Option<DType>> {
        self.attr(name).map(|a| self.dtype_of(a.i)).transpose()
    }

    pub(crate) fn dtype_of(&self, number: i64) -> Result<DType> {
        let found = tensors::dtype(i32::try_from(number).unwrap_or(-1));
        found.map_err(|name| self.unsupported(format!("elements of type {name}")))
    }

    /// An axis of `rank`, counted from the front.
    pub(crate) fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        let at = if axis < 0 { axis + rank as i64 } else { axis };
        match usize::try_from(at) {
            Ok(a) if a < rank => Ok(a),
            _ => Err(self.wrong(format!("axis {axis} of {rank}"))),
        }
    }

    /// Axes of `rank`, counted from the front, sorted, each once.
    pub(crate) fn axes(&self, list: &[i64], rank: usize) -> Result<Vec<usize>> {
        let mut axes = list.iter().map(|&a| self.axis(a, rank)).collect::<Result<Vec<_>>>()?;
        axes.sort_unstable();
        if axes.windows(2).any(|w| w[0] == w[1]) {
            return Err(self.wrong(format!("the axes {list:?} list one twice")));
        }
        Ok(axes)
    }

    /// That a table of so many entries may be made while importing.
    pub(crate) fn table(&self, entries: usize) -> Result<()> {
        match entries > host::MAX_ELEMENTS {
            true => {
                Err(self.unsupported(format!("a table of {entries} entries, at most {} are made", host::MAX_ELEMENTS)))
            }
            false => self.host_work(entries, budget::PER_ENTRY),
        }
    }

    /// That the host may compute so many entries while importing, each of which takes as long as so many operations.
    pub(crate) fn host_work(&self, entries: usize, each: u64) -> Result<()> {
        self.importer.budget.host((entries as u64).saturating_mul(each)).map_err(|cause| self.wrong(cause))
    }

    /// The same of elements that are compared, where these follow from the file alone. Of inputs there may be as many as are given.
    pub(crate) fn comparisons(&self, count: usize) -> Result<()> {
        if self.constant { self.host_work(count, budget::PER_COMPARISON) } else { Ok(()) }
    }

    /// Number of results that the node names, whether or not they are used.
    pub(crate) fn outputs(&self) -> usize {
        self.proto.output.len()
    }

    /// Whether result `i` is named.
    pub(crate) fn wants(&self, i: usize) -> bool {
        self.proto.output.get(i).is_some_and(|o| !o.is_empty())
    }
}

/// The name of a node; one without a name is called after its first result.
pub(crate) fn name_of(proto: &NodeProto) -> String {
    match (&proto.name[..], proto.output.first()) {
        ("", Some(output)) => format!("of {output:?}"),
        (name, _) => format!("{name:?}"),
    }
}

/// The name by which reports call a node: its own, or that of its first result.
pub(super) fn title_of(proto: &NodeProto) -> String {
    match (&proto.name[..], proto.output.first()) {
        ("", Some(output)) => output.clone(),
        (name, _) => name.to_string(),
    }
}
