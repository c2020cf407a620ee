//! Computing: tensors realized one by one, and functions that are compiled once and called many times.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::execute::{CompileTimes, Compiled};
use crate::reuse;
use crate::search::PlanStore;
use crate::settings::settings;
use crate::tensor::storage::Storage;
use crate::tensor::structure::structure;
use crate::tensor::{Element, Leaves, State, Tensor, TensorBuffer, build_graph, shape};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use winograph_compiler::explain::Explanation;
use winograph_compiler::{Footprint, Options, Program, Target};
use winograph_ir::DType;
use winograph_ir::interp::Value;
use winograph_ir::tensor::{Node, TensorGraph, TensorOp};

/// Dtype and shape of an argument of a [`Function`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ArgSpec {
    /// Element type.
    pub dtype: DType,
    /// Size per axis.
    pub shape: Vec<usize>,
}

impl ArgSpec {
    /// An argument of this dtype and shape.
    pub fn new(dtype: DType, shape: &[usize]) -> ArgSpec {
        ArgSpec { dtype, shape: shape.to_vec() }
    }
}

/// A closure over tensors, traced and planned once. May be called from several threads at once.
///
/// ```
/// use winograph::{ArgSpec, DType, Tensor, compile};
/// let w = Tensor::from_slice(&[2f32, 3.0], &[2])?;
/// let f = compile(&[ArgSpec::new(DType::F32, &[2])], |args| Ok(vec![args[0].mul(&w)?.sum(&[], false)?]))?;
/// let y = f.call(&[&Tensor::from_slice(&[10f32, 1.0], &[2])?])?;
/// assert_eq!(y[0].to_vec::<f32>()?, [23.0]);
/// # Ok::<(), winograph::Error>(())
/// ```
pub struct Function {
    pub(crate) compiled: Arc<Compiled>,
    pub(crate) args: Vec<ArgSpec>,
    pub(crate) outputs: Vec<ArgSpec>,
}

/// How a function is compiled, where the defaults of the process will not do.
#[derive(Clone, Default)]
pub struct FunctionOptions {
    /// Where it runs; the process's default device if `None`.
    pub device: Option<Arc<dyn Device>>,
    /// The compiler's options; the process's defaults if `None`.
    pub compiler: Option<Options>,
    /// Whether the explanation keeps the form after each pass as text.
    pub dumps: bool,
}

/// Compiles a closure with default options: see [`compile_with`].
///
/// # Errors
/// Those of [`compile_with`].
pub fn compile(args: &[ArgSpec], f: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>) -> Result<Function> {
    compile_with(args, &FunctionOptions::default(), f)
}

/// Compiles a closure. It is called once, with placeholders that have no values; the tensors it returns are the
/// function's results. Every other tensor that it uses is a constant of the function, whose value is fixed now; what
/// depends on constants alone is computed now and not again.
///
/// # Errors
/// Those of the closure, an argument too large to count, a placeholder of another function among the results'
/// operands, and those of compiling.
pub fn compile_with(
    args: &[ArgSpec],
    options: &FunctionOptions,
    f: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>,
) -> Result<Function> {
    let (graph, constants, results) = traced(args, f)?;
    let (device, compiler) = match options {
        FunctionOptions { device: Some(d), compiler: Some(c), .. } => (d.clone(), c.clone()),
        _ => {
            let defaults = settings()?;
            let device = options.device.clone().unwrap_or_else(|| defaults.device.clone());
            (device, options.compiler.clone().unwrap_or_else(|| defaults.options.clone()))
        }
    };
    let compiled = Compiled::new("compile", &graph, constants, &device, &compiler, options.dumps)?;
    let outputs = results.iter().map(|t| ArgSpec::new(t.dtype(), t.shape())).collect();
    Ok(Function { compiled: Arc::new(compiled), args: args.to_vec(), outputs })
}

/// The graph of a closure, the values of its constants and its results.
fn traced(
    args: &[ArgSpec],
    f: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>,
) -> Result<(TensorGraph, Vec<Arc<Storage>>, Vec<Tensor>)> {
    let placeholders = args.iter().map(|a| Tensor::argument(a.dtype, a.shape.clone())).collect::<Result<Vec<_>>>()?;
    let results = f(&placeholders)?;
    let (graph, constants) = build_graph("compile", &results, &placeholders, Leaves::Constants)?;
    Ok((graph, constants, results))
}

/// The graph that [`compile_with`] would compile, and the values of its constants, which are its inputs after the
/// arguments: what tests give to the interpreter.
///
/// # Errors
/// Those of the closure and of its graph.
#[doc(hidden)]
pub fn trace(args: &[ArgSpec], f: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>) -> Result<(TensorGraph, Vec<Value>)> {
    let (graph, constants, _) = traced(args, f)?;
    let mut values = Vec::with_capacity(constants.len());
    for (i, data) in constants.iter().enumerate() {
        let of_slot = |n: &&Node| matches!(n.op, TensorOp::Input { slot, .. } if slot == args.len() + i);
        let Some(node) = graph.nodes().iter().find(of_slot) else { continue };
        let shape: Vec<usize> = node.shape.iter().map(|&s| graph.ints.bounds(s).1.max(0) as usize).collect();
        values.push(Value::from_bytes(node.dtype, &shape, data.bytes("trace")?));
    }
    Ok((graph, values))
}

/// Traces and plans a closure as [`compile_with`] does, for any target and without a device: nothing is compiled to
/// machine code and nothing is run.
///
/// # Errors
/// Those of the closure and of planning.
pub fn plan(
    args: &[ArgSpec],
    target: &Target,
    options: &Options,
    dumps: bool,
    f: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>,
) -> Result<(Program, Explanation)> {
    plan_stored(args, target, &PlanStore::default(), options, dumps, f)
}

/// [`plan`] with the plans that searches have stored for the target, as compiling for a device takes them; the
/// explanation tells what was decided about each sum of products.
///
/// # Errors
/// Those of [`plan`].
pub fn plan_stored(
    args: &[ArgSpec],
    target: &Target,
    plans: &PlanStore,
    options: &Options,
    dumps: bool,
    f: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>,
) -> Result<(Program, Explanation)> {
    let placeholders = args.iter().map(|a| Tensor::argument(a.dtype, a.shape.clone())).collect::<Result<Vec<_>>>()?;
    let (graph, _) = build_graph("plan", &f(&placeholders)?, &placeholders, Leaves::Constants)?;
    let (program, explanation, _) = crate::execute::plan("plan", &graph, target, Some(plans), options, dumps)?;
    Ok((program, explanation))
}

impl Function {
    /// What the function takes.
    pub fn args(&self) -> &[ArgSpec] {
        &self.args
    }

    /// What the function gives.
    pub fn outputs(&self) -> &[ArgSpec] {
        &self.outputs
    }

    /// What the compiler decided and why; nothing for a function that was [loaded](Function::load). A program that was
    /// [kept](CompileTimes::kept) is planned for it now, once.
    pub fn explanation(&self) -> &Explanation {
        static NOTHING: LazyLock<Explanation> = LazyLock::new(Explanation::default);
        self.compiled.explanation().unwrap_or(&NOTHING)
    }

    /// The kernels, their order and the memory they use. Of the kernels of a function that was
    /// [loaded](Function::load) there are names and roles alone. A program that was [kept](CompileTimes::kept) is planned
    /// for them now, once.
    pub fn program(&self) -> &Program {
        self.compiled.program()
    }

    /// As [`program`](Function::program), and nothing is planned for it: of the kernels of a program that was
    /// [kept](CompileTimes::kept), too, there are names and roles alone.
    pub fn outline(&self) -> &Program {
        &self.compiled.outline
    }

    /// The memory that the function holds now: what is prepared and, after a call, what this and its threads worked on, kept for
    /// the next. [`Program::footprint`] says what it takes before there was one.
    pub fn held(&self) -> Footprint {
        self.compiled.held()
    }

    /// The source text of the kernels; none for a function that was [loaded](Function::load).
    pub fn source(&self) -> &str {
        self.compiled.source()
    }

    /// Where the time of compiling went.
    pub fn times(&self) -> CompileTimes {
        self.compiled.times
    }

    /// Calls the function with memory of the caller's for its results and gives the time that each step of
    /// [`Program::run`] took.
    ///
    /// # Errors
    /// Those of [`call_into`](Function::call_into).
    pub fn call_timed(&self, args: &[&Tensor], outputs: &mut [&mut TensorBuffer]) -> Result<Vec<Duration>> {
        let (args, mut outputs) = self.checked(args, outputs)?;
        self.compiled.run_timed("call", &args, &[], &mut outputs)
    }

    /// Calls the function; its results are realized. Arguments that are lazy are realized first.
    ///
    /// On a device with memory of its own, such as a GPU, results stay there: this returns when the call is queued, functions
    /// on that device take the results from where they are, and reading the elements ([`to_vec`](Tensor::to_vec),
    /// [`to_host`](Tensor::to_host) and whatever else needs them on the host) waits for the call and copies them, once. Where
    /// the device has no memory left for results they are copied to the host at once.
    ///
    /// # Errors
    /// Another number of arguments, or other dtypes or shapes, than the function was compiled for; no memory. What a device
    /// runs into after this has returned is the error of whatever reads the results.
    pub fn call(&self, args: &[&Tensor]) -> Result<Vec<Tensor>> {
        let args = self.arguments(args)?;
        let sizes = self.outputs.iter().map(|o| Ok(shape::check_size("call", o.dtype, &o.shape)? * o.dtype.size()));
        let results = self.compiled.results("call", &args, &[], &sizes.collect::<Result<Vec<_>>>()?)?;
        let tensor = |(data, o): (Storage, &ArgSpec)| Tensor::ready(Arc::new(data), o.dtype, o.shape.clone());
        Ok(results.into_iter().zip(&self.outputs).map(tensor).collect())
    }

    /// Memory for the function's results, to be used with [`call_into`](Function::call_into) again and again.
    ///
    /// # Errors
    /// No memory.
    pub fn buffers(&self) -> Result<Vec<TensorBuffer>> {
        self.outputs.iter().map(|o| TensorBuffer::new(o.dtype, &o.shape)).collect()
    }

    /// Calls the function with memory of the caller's, on the host, for its results, which are there when it returns.
    /// Arguments that are lazy are realized first.
    ///
    /// # Errors
    /// Another number of arguments or results, or other dtypes or shapes, than the function was compiled for.
    pub fn call_into(&self, args: &[&Tensor], outputs: &mut [&mut TensorBuffer]) -> Result<()> {
        let (args, mut outputs) = self.checked(args, outputs)?;
        self.compiled.run("call", &args, &[], &mut outputs)
    }

    fn checked<'a>(
        &self,
        args: &[&Tensor],
        outputs: &'a mut [&mut TensorBuffer],
    ) -> Result<(Vec<Arc<Storage>>, Vec<&'a mut Storage>)> {
        check("call_into", "output", &self.outputs, outputs.iter().map(|b| (b.dtype(), b.shape())))?;
        Ok((self.arguments(args)?, outputs.iter_mut().map(|b| b.storage_mut()).collect()))
    }

    fn arguments(&self, args: &[&Tensor]) -> Result<Vec<Arc<Storage>>> {
        check("call", "argument", &self.args, args.iter().map(|t| (t.dtype(), t.shape())))?;
        Tensor::realize_all(args)?;
        args.iter().map(|t| t.data("call")).collect()
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Function").field("args", &self.args).field("outputs", &self.outputs).finish_non_exhaustive()
    }
}

/// Compares what a function is given with what it was compiled for.
fn check<'a>(
    op: &'static str,
    what: &str,
    specs: &[ArgSpec],
    given: impl ExactSizeIterator<Item = (DType, &'a [usize])>,
) -> Result<()> {
    if given.len() != specs.len() {
        let got = format!("{} {what}(s)", given.len());
        return Err(Error::argument(op, got, &[], format!("{}, as compiled", specs.len())));
    }
    for (i, ((dtype, shape), spec)) in given.zip(specs).enumerate() {
        if dtype != spec.dtype {
            return Err(Error::dtype(op, &[dtype], format!("{} for {what} {i}, as compiled", spec.dtype)));
        }
        if shape != spec.shape {
            return Err(Error::shape(op, &[shape], format!("{:?} for {what} {i}, as compiled", spec.shape)));
        }
    }
    Ok(())
}

impl Tensor {
    /// Computes the elements and keeps them, once; what they were computed from is forgotten.
    ///
    /// # Errors
    /// A placeholder of a function among its operands, no memory, and those of compiling.
    pub fn realize(&self) -> Result<()> {
        Tensor::realize_all(&[self])
    }

    /// [Realizes](Tensor::realize) several tensors in one program, so that they share what they have in common.
    ///
    /// # Errors
    /// Those of [`realize`](Tensor::realize).
    pub fn realize_all(tensors: &[&Tensor]) -> Result<()> {
        let op = "realize";
        let pending: Vec<Tensor> = tensors.iter().filter(|t| !t.is_realized()).map(|&t| t.clone()).collect();
        if pending.is_empty() {
            return Ok(());
        }
        let (structure, values) = structure(op, &pending, &[])?;
        let sizes: Vec<usize> = pending.iter().map(|t| t.numel() * t.dtype().size()).collect();
        let ready = reuse::program(op, structure, values)?;
        let results = ready.compiled.results(op, &ready.args, &ready.params, &sizes)?;
        for (t, data) in pending.iter().zip(results) {
            t.0.set_ready(Arc::new(data));
        }
        Ok(())
    }

    /// The same elements, of which the size along an axis is a *bounded parameter*: graphs that are realized later and
    /// differ from each other in the sizes of such axes alone, each from `least` to `greatest`, share one plan. The
    /// first choice of sizes is compiled for itself; the second is compiled for all, if their accesses can be proved; what
    /// follows compiles and plans nothing. Code for any size may be slower than code for one. Realizes the tensor.
    ///
    /// ```
    /// # use winograph::Tensor;
    /// for n in 2..6 {
    ///     let x = Tensor::arange(0f32, n as f32, 1.0)?.bounded(0, 1, 100)?;
    ///     assert_eq!(x.mul(&x)?.sum(&[], false)?.item::<f32>()?, (0..n).map(|i| (i * i) as f32).sum::<f32>());
    /// }
    /// # Ok::<(), winograph::Error>(())
    /// ```
    ///
    /// # Errors
    /// A missing axis, a size that is not within the bounds, bounds of more elements than can be counted, and those of
    /// [`realize`](Tensor::realize).
    pub fn bounded(&self, along: isize, least: usize, greatest: usize) -> Result<Tensor> {
        let op = "bounded";
        let axis = shape::axis(op, self.shape(), along)?;
        let size = self.shape()[axis];
        if !(least..=greatest).contains(&size) {
            let got = format!("the bounds {least}..={greatest} of axis {axis}");
            return Err(Error::argument(
                op,
                got,
                &[self.shape()],
                format!("bounds with the axis' size {size} between them"),
            ));
        }
        let mut largest = self.shape().to_vec();
        largest[axis] = greatest;
        shape::check_size(op, self.dtype(), &largest)?;
        self.realize()?;
        let mut bounds = self.0.bounds.clone();
        bounds.retain(|b| b.0 != axis);
        bounds.push((axis, least, greatest));
        Ok(Tensor::ready_bounded(self.data(op)?, self.dtype(), self.shape().to_vec(), bounds))
    }

    /// The elements of a tensor that has been realized.
    pub(crate) fn data(&self, op: &'static str) -> Result<Arc<Storage>> {
        match self.0.state() {
            State::Ready(data) => Ok(data),
            State::Argument => Err(Error::Unbound { op, shape: self.shape().to_vec() }),
            State::Lazy(_) => Err(Error::Execution { op, cause: "the tensor has not been realized".into() }),
        }
    }

    /// The elements in row-major order; computes them if that has not been done.
    ///
    /// # Errors
    /// Another dtype than `T`'s, and those of [`realize`](Tensor::realize).
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        let op = "to_vec";
        if T::DTYPE != self.dtype() {
            return Err(Error::dtype(op, &[self.dtype()], format!("a tensor of {}", T::DTYPE)).hint("cast it first"));
        }
        self.realize()?;
        self.data(op)?.to_vec(op)
    }

    /// The only element, of a tensor that has one.
    ///
    /// # Errors
    /// Another number of elements, another dtype than `T`'s, and those of [`realize`](Tensor::realize).
    pub fn item<T: Element>(&self) -> Result<T> {
        if shape::count(self.shape()) != 1 {
            return Err(Error::shape("item", &[self.shape()], "exactly one element"));
        }
        let values = self.to_vec::<T>()?;
        values.first().copied().ok_or_else(|| Error::shape("item", &[self.shape()], "exactly one element"))
    }
}
