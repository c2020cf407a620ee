//! Running models.

use crate::error::{Error, Result};
use crate::export::{self, About, ExportError, Exported, Names};
use crate::function::{ArgSpec, Function, FunctionOptions, compile_with};
use crate::model::profile::{Launch, profile};
use crate::model::{Model, ModelError, Port, PortType, Tiling, Value, with_given};
use crate::settings::settings;
use crate::tensor::{Tensor, shape};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use winograph_ir::DType;

/// Most elements of an input for whose elements a compiled form is made.
const MAX_BOUND: usize = 4096;

/// Most compiled forms that a session keeps.
const MAX_PLANS: usize = 64;

/// A model on a device. May be used from several threads.
pub struct Session {
    model: Model,
    options: FunctionOptions,
    plans: Mutex<Vec<Arc<Plan>>>,
}

/// A model compiled for some inputs.
pub(crate) struct Plan {
    inputs: Vec<Fixed>,
    /// `None` where the model cannot be compiled as a whole.
    function: Option<Function>,
    /// How the function's results are put together.
    outputs: Vec<Kind>,
}

impl Plan {
    /// The inputs that the function takes: those for whose elements it was not made.
    fn arguments<'a>(&self, inputs: &'a [(String, Value)]) -> Vec<&'a Tensor> {
        let free = inputs.iter().zip(&self.inputs).filter(|(_, f)| f.elements.is_none());
        free.flat_map(|((_, v), _)| v.tensors()).collect()
    }
}

/// What is fixed of one input.
#[derive(Clone, PartialEq)]
struct Fixed {
    name: String,
    tensors: Vec<ArgSpec>,
    kind: Kind,
    /// The elements, where the form is for these alone.
    elements: Option<Vec<Vec<u8>>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    None,
    Tensor,
    Sequence(usize),
}

impl Kind {
    fn of(value: &Value) -> Kind {
        match value {
            Value::None => Kind::None,
            Value::Tensor(_) => Kind::Tensor,
            Value::Sequence(list) => Kind::Sequence(list.len()),
        }
    }

    fn rebuild(self, from: &mut impl Iterator<Item = Tensor>) -> Option<Value> {
        Some(match self {
            Kind::None => Value::None,
            Kind::Tensor => Value::Tensor(from.next()?),
            Kind::Sequence(n) => Value::Sequence((0..n).map(|_| from.next()).collect::<Option<_>>()?),
        })
    }
}

impl Session {
    pub(crate) fn new(model: Model, options: FunctionOptions) -> Session {
        Session { model, options, plans: Mutex::default() }
    }

    /// Loads what a model that is compiled already was compiled to.
    ///
    /// # Errors
    /// Those of [`Exported::load`].
    pub(crate) fn load(&self, exported: &Exported) -> Result<Arc<Plan>> {
        let device = match &self.options.device {
            Some(device) => device.clone(),
            None => settings()?.device.clone(),
        };
        let function = exported.load(&device)?;
        let fixed = |(name, spec)| Fixed { name, tensors: vec![spec], kind: Kind::Tensor, elements: None };
        let inputs = exported.inputs().into_iter().map(fixed).collect();
        let outputs = vec![Kind::Tensor; function.outputs().len()];
        self.keep(Plan { inputs, function: Some(function), outputs })
    }

    /// Writes what was compiled to a file that [`Model::load`] reads, on machines of this kind, without a compiler; by
    /// custom its name ends in `.wg`. See [`export`](crate::export). The file is whole or is not there.
    ///
    /// A model of pictures can be [run in tiles](Session::run_tiled) from such a file, too, if this session still
    /// has the model: one that [`Model::session`] has made, or one of a model that leaves sizes open.
    ///
    /// # Errors
    /// A session that has not been compiled for exactly one combination of shapes (see
    /// [`compile_for`](Session::compile_for)), for one that is for the elements of an input, or whose inputs and outputs
    /// are not all tensors; a virtual device; a file that cannot be written.
    pub fn export(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let unsuitable = |cause: String| ExportError::Unsuitable { cause }.of(&path.display().to_string());
        if self.model.exported().is_some() {
            return Err(unsuitable("it was loaded from such a file: copy that file".into()));
        }
        let plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let [plan] = &plans[..] else {
            let cause = format!("it is compiled for {} combinations of input shapes: give one", plans.len());
            return Err(unsuitable(cause));
        };
        let Some(function) = &plan.function else {
            return Err(unsuitable("shapes within the model depend on what it computes".into()));
        };
        if let Some(bound) = plan.inputs.iter().find(|f| f.elements.is_some()) {
            return Err(unsuitable(format!("shapes within the model depend on the elements of {:?}", bound.name)));
        }
        let tensors = plan.inputs.iter().map(|f| f.kind).chain(plan.outputs.iter().copied());
        if tensors.into_iter().any(|kind| kind != Kind::Tensor) {
            return Err(unsuitable("an input or output is no tensor".into()));
        }
        let model = &self.model;
        let names = Names {
            inputs: plan.inputs.iter().map(|f| f.name.clone()).collect(),
            outputs: model.outputs().into_iter().map(|p| p.name).collect(),
        };
        let tilings = match (&plan.inputs[..], &plan.outputs[..]) {
            ([Fixed { name, tensors, .. }], [_]) => tensors.first().map(|t| Tiling::all(model, t, name)),
            _ => None,
        };
        let about = About {
            metadata: model.metadata().to_vec(),
            operators: model.operators(),
            parameters: model.parameters(),
            tilings: tilings.unwrap_or_default(),
        };
        export::write(path, function, names, about)
    }

    /// The model. Where it states the shapes of all inputs and could be compiled as a whole, [`Model::compile`] has [let its weights
    /// go](Model::compile): it tells what it is, and can be neither traced nor compiled again.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Runs the model. Its results come with their names, in the model's order. On a device with memory of its own they
    /// stay there until they are read: see [`Function::call`].
    ///
    /// # Errors
    /// Inputs that are missing, unknown, or of another dtype or shape than the model says; results that are not
    /// tensors; those of compiling and running.
    pub fn run(&self, inputs: &[(&str, &Tensor)]) -> Result<Vec<(String, Tensor)>> {
        let inputs: Vec<(String, Value)> =
            inputs.iter().map(|(n, t)| (n.to_string(), Value::Tensor((*t).clone()))).collect();
        let outputs = self.run_values(&inputs)?;
        outputs
            .into_iter()
            .map(|(name, value)| match value {
                Value::Tensor(t) => Ok((name, t)),
                _ => Err(ModelError::format(format!("output {name:?}"), "it is not a tensor").into()),
            })
            .collect()
    }

    /// [`run`](Session::run) with values of all kinds.
    ///
    /// # Errors
    /// Those of [`run`](Session::run).
    pub fn run_values(&self, inputs: &[(String, Value)]) -> Result<Vec<(String, Value)>> {
        let inputs = self.checked(inputs)?;
        let plan = self.plan_for(&inputs)?;
        let values = match &plan.function {
            Some(function) => {
                let called = function.call(&plan.arguments(&inputs)).map_err(|e| self.without_memory(function, e));
                let mut results = called?.into_iter();
                let missing = || Error::Execution { op: "run", cause: "a result is missing".into() };
                plan.outputs.iter().map(|k| k.rebuild(&mut results).ok_or_else(missing)).collect::<Result<Vec<_>>>()?
            }
            None => {
                let values = self.model.import(&inputs, true)?;
                let computed = Tensor::realize_all(&values.iter().flat_map(Value::tensors).collect::<Vec<_>>());
                let names: Vec<String> = self.model.outputs().into_iter().map(|p| p.name).collect();
                computed.map_err(|e| memory_for(format!("outputs {}", names.join(", ")), e))?;
                values
            }
        };
        Ok(self.model.outputs().into_iter().map(|p| p.name).zip(values).collect())
    }

    /// Compiles for inputs like these, unless that has been done; [`run`](Session::run) does it where it has not.
    ///
    /// # Errors
    /// Those of [`run`](Session::run) but for those of running.
    pub fn compile_for(&self, inputs: &[(&str, &Tensor)]) -> Result<()> {
        let values: Vec<(String, Value)> =
            inputs.iter().map(|(n, t)| (n.to_string(), Value::Tensor((*t).clone()))).collect();
        self.plan_for(&self.checked(&values)?).map(|_| ())
    }

    fn checked(&self, inputs: &[(String, Value)]) -> Result<Vec<(String, Value)>> {
        checked(&with_given(self.model.inputs(), || self.model.defaults(), inputs), inputs)
    }

    fn plan_for(&self, inputs: &[(String, Value)]) -> Result<Arc<Plan>> {
        Tensor::realize_all(&inputs.iter().flat_map(|(_, v)| v.tensors()).collect::<Vec<_>>())?;
        match self.find(inputs)? {
            Some(plan) => Ok(plan),
            None => self.plan(inputs),
        }
    }

    /// The compiled function for inputs of these shapes, if [`run`](Session::run) has used one.
    ///
    /// # Errors
    /// Inputs that do not fit the model.
    pub fn with_function<R>(&self, inputs: &[(&str, &Tensor)], f: impl FnOnce(&Function) -> R) -> Result<Option<R>> {
        let values: Vec<(String, Value)> =
            inputs.iter().map(|(n, t)| (n.to_string(), Value::Tensor((*t).clone()))).collect();
        let plan = self.find(&self.checked(&values)?)?;
        Ok(plan.and_then(|p| p.function.as_ref().map(f)))
    }

    /// Runs the model so many times and gives what each launch took; nothing where it is not compiled as a whole.
    ///
    /// # Errors
    /// Those of [`run`](Session::run).
    pub fn profile(&self, inputs: &[(&str, &Tensor)], runs: usize) -> Result<Vec<Launch>> {
        let values: Vec<(String, Value)> =
            inputs.iter().map(|(n, t)| (n.to_string(), Value::Tensor((*t).clone()))).collect();
        let values = self.checked(&values)?;
        let plan = self.plan_for(&values)?;
        match &plan.function {
            Some(function) => {
                let launches = profile(function, &plan.arguments(&values), runs);
                launches.map_err(|e| self.without_memory(function, e))
            }
            None => Ok(vec![]),
        }
    }

    /// Compiles for the inputs of a model that states their dtypes and shapes, which is all that it will be asked for, so
    /// that its weights may go. Nothing is done if elements are needed, too.
    pub(crate) fn prepare(&mut self, inputs: &[(String, Tensor)]) -> Result<()> {
        let inputs: Vec<(String, Value)> = inputs.iter().map(|(n, t)| (n.clone(), Value::Tensor(t.clone()))).collect();
        match self.attempt(&inputs, &[]) {
            Ok(plan) => {
                self.keep(plan)?;
                self.model = self.model.told();
                Ok(())
            }
            Err(Error::Model(e)) if matches!(*e, ModelError::NeedsValue { .. } | ModelError::DataDependent { .. }) => {
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    fn find(&self, inputs: &[(String, Value)]) -> Result<Option<Arc<Plan>>> {
        let plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        for plan in plans.iter() {
            let mut fits = plan.inputs.len() == inputs.len();
            for (fixed, (name, value)) in plan.inputs.iter().zip(inputs) {
                fits = fits && *fixed == Fixed::new(name, value, fixed.elements.is_some())?;
            }
            if fits {
                return Ok(Some(plan.clone()));
            }
        }
        Ok(None)
    }

    fn keep(&self, plan: Plan) -> Result<Arc<Plan>> {
        let plan = Arc::new(plan);
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if plans.len() >= MAX_PLANS {
            plans.remove(0);
        }
        plans.push(plan.clone());
        Ok(plan)
    }

    /// Compiles for inputs, with the elements of those that shapes depend on.
    fn plan(&self, inputs: &[(String, Value)]) -> Result<Arc<Plan>> {
        if let Some(exported) = self.model.exported() {
            return self.load(exported);
        }
        match bindings(&self.model, inputs)? {
            Some(bound) => self.keep(self.attempt(inputs, &bound)?),
            None => {
                let fixed = inputs.iter().map(|(n, v)| Fixed::new(n, v, false)).collect::<Result<Vec<_>>>()?;
                self.keep(Plan { inputs: fixed, function: None, outputs: vec![] })
            }
        }
    }

    /// An error of a call; one for want of memory says for what.
    fn without_memory(&self, function: &Function, e: Error) -> Error {
        let Error::OutOfMemory { bytes } = e else { return e };
        let is_it = |spec: &ArgSpec| shape::count(&spec.shape).checked_mul(spec.dtype.size()) == Some(bytes);
        let ports = self.model.outputs();
        let tensors = ports.len() == function.outputs().len();
        let sizes = function.outputs().iter().map(|spec| shape::count(&spec.shape).saturating_mul(spec.dtype.size()));
        let outputs = sizes.fold(0usize, usize::saturating_add);
        let output = function.outputs().iter().zip(&ports).find(|(spec, _)| tensors && is_it(spec));
        let part = match output {
            // All that a run takes.
            None if outputs > bytes / 2 => {
                let names: Vec<&str> = ports.iter().map(|p| p.name.as_str()).collect();
                format!("outputs {}, of {outputs} bytes, and the intermediates of a run", names.join(", "))
            }
            Some((_, port)) => format!("output {:?}", port.name),
            None => match function.compiled.largest() {
                Some((nodes, bytes)) => format!(
                    "the intermediates of a run, of which the largest has {bytes} bytes and is of nodes {}",
                    nodes.join(", ")
                ),
                None => "the intermediates of a run".to_string(),
            },
        };
        memory_for(part, e)
    }

    fn attempt(&self, inputs: &[(String, Value)], bound: &[String]) -> Result<Plan> {
        let fixed = inputs.iter().map(|(n, v)| Fixed::new(n, v, bound.contains(n))).collect::<Result<Vec<_>>>()?;
        let free = fixed.iter().filter(|f| f.elements.is_none());
        let specs: Vec<ArgSpec> = free.flat_map(|f| f.tensors.iter().cloned()).collect();
        let mut outputs = Vec::new();
        let function = compile_with(&specs, &self.options, |args| {
            let results = self.model.import(&with_arguments(inputs, bound, &mut args.iter().cloned()), false)?;
            outputs = results.iter().map(Kind::of).collect();
            Ok(results.iter().flat_map(|v| v.tensors().iter().cloned()).collect())
        });
        let function = function.map_err(|e| memory_for("what is prepared of the model's constants".into(), e))?;
        Ok(Plan { inputs: fixed, function: Some(function), outputs })
    }
}

/// An error for want of memory with what it was to hold; others as they are.
fn memory_for(part: String, e: Error) -> Error {
    match e {
        Error::OutOfMemory { bytes } => ModelError::Memory { part, bytes }.into(),
        e => e,
    }
}

/// The inputs with all but `bound` replaced by arguments of a function.
pub(super) fn with_arguments(
    inputs: &[(String, Value)],
    bound: &[String],
    args: &mut impl Iterator<Item = Tensor>,
) -> Vec<(String, Value)> {
    let replaced = |(name, value): &(String, Value)| {
        let value = match bound.contains(name) {
            true => value.clone(),
            false => Kind::of(value).rebuild(args).unwrap_or_default(),
        };
        (name.clone(), value)
    };
    inputs.iter().map(replaced).collect()
}

/// The names of the inputs for whose elements a compiled form has to be made, since shapes depend on them; `None` if
/// there are some that are not small lists of integers, so that the model cannot be compiled as a whole.
///
/// # Errors
/// What is wrong with the model or its inputs.
pub(super) fn bindings(model: &Model, inputs: &[(String, Value)]) -> Result<Option<Vec<String>>> {
    let mut bound: Vec<String> = Vec::new();
    loop {
        let specs = inputs.iter().filter(|(n, _)| !bound.contains(n)).flat_map(|(_, v)| v.tensors());
        let args = specs.map(|t| Tensor::argument(t.dtype(), t.shape().to_vec())).collect::<Result<Vec<_>>>()?;
        let error = match model.import(&with_arguments(inputs, &bound, &mut args.into_iter()), false) {
            Ok(_) => return Ok(Some(bound)),
            Err(e) => e,
        };
        let Error::Model(cause) = &error else { return Err(error) };
        let needed = match &**cause {
            ModelError::NeedsValue { inputs, .. } => inputs,
            ModelError::DataDependent { .. } => return Ok(None),
            _ => return Err(error),
        };
        let small = |name: &String| {
            let value = inputs.iter().find(|(n, _)| n == name).map(|(_, v)| v);
            value.is_some_and(|v| v.tensors().iter().all(|t| !t.dtype().is_float() && t.numel() <= MAX_BOUND))
        };
        let fresh: Vec<String> = needed.iter().filter(|n| !bound.contains(n)).cloned().collect();
        if fresh.is_empty() || !fresh.iter().all(small) {
            return Ok(None);
        }
        bound.extend(fresh);
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("model", &self.model).finish_non_exhaustive()
    }
}

impl Fixed {
    fn new(name: &str, value: &Value, elements: bool) -> Result<Fixed> {
        let tensors = value.tensors();
        let elements = match elements {
            true => Some(tensors.iter().map(|t| Ok(t.data("run")?.bytes("run")?.to_vec())).collect::<Result<_>>()?),
            false => None,
        };
        Ok(Fixed {
            name: name.to_string(),
            tensors: tensors.iter().map(|t| ArgSpec::new(t.dtype(), t.shape())).collect(),
            kind: Kind::of(value),
            elements,
        })
    }
}

/// The inputs in the model's order, compared with what it says of them.
pub(super) fn checked(ports: &[Port], inputs: &[(String, Value)]) -> Result<Vec<(String, Value)>> {
    let wrong = |name: &str, given: String, expected: String| {
        Error::from(ModelError::Input { name: format!("{name:?}"), given, expected })
    };
    for (i, (name, _)) in inputs.iter().enumerate() {
        let names = || ports.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
        if !ports.iter().any(|p| p.name == *name) {
            return Err(wrong(name, "a name the model does not have".into(), format!("one of {}", names())));
        }
        if inputs[..i].iter().any(|(n, _)| n == name) {
            return Err(wrong(name, "two values".into(), "one".into()));
        }
    }
    let mut out = Vec::with_capacity(ports.len());
    for port in ports {
        let found = inputs.iter().find(|(n, _)| *n == port.name).map(|(_, v)| v.clone());
        let expected = || match &port.of {
            PortType::Tensor { dtype, shape } => format!("a tensor {}", describe(*dtype, shape.as_deref())),
            PortType::Sequence => "a sequence of tensors".to_string(),
            PortType::Optional => "a value or none".to_string(),
            PortType::Other(what) => what.clone(),
        };
        let value = match (found, &port.of) {
            (Some(value), _) => value,
            (None, PortType::Optional) => Value::None,
            (None, _) => return Err(wrong(&port.name, "nothing".into(), expected())),
        };
        if let PortType::Tensor { dtype, shape } = &port.of {
            let Some(t) = value.tensor() else {
                return Err(wrong(&port.name, "no tensor".into(), expected()));
            };
            let fits = shape.as_ref().is_none_or(|s| {
                s.len() == t.rank() && s.iter().zip(t.shape()).all(|(want, &got)| want.is_none_or(|w| w == got))
            });
            if t.dtype() != *dtype || !fits {
                let sizes: Vec<Option<usize>> = t.shape().iter().map(|&s| Some(s)).collect();
                return Err(wrong(&port.name, describe(t.dtype(), Some(&sizes)), expected()));
            }
        }
        out.push((port.name.clone(), value));
    }
    Ok(out)
}

fn describe(dtype: DType, shape: Option<&[Option<usize>]>) -> String {
    let Some(shape) = shape else { return format!("of {dtype}") };
    let sizes: Vec<String> = shape.iter().map(|s| s.map_or("?".to_string(), |s| s.to_string())).collect();
    format!("{dtype}[{}]", sizes.join(","))
}
