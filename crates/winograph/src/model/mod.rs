//! Whole networks: models in files, as tensors.
//!
//! ```no_run
//! use winograph::{DType, Tensor, model::Model};
//! let device = winograph::settings::settings()?.device.clone();
//! let session = Model::load("model.onnx")?.compile(&device)?;
//! let image = Tensor::rand(&[1, 3, 224, 224], DType::F32, 1)?;
//! let outputs = session.run(&[("x", &image)])?;
//! println!("{:?}", outputs[0].1.shape());
//! # Ok::<(), winograph::Error>(())
//! ```
//!
//! A session compiles a model for the shapes of its inputs, once for each combination that it is given. It holds what each of
//! these has prepared of the weights, and the weights themselves unless the model states all shapes. Where shapes
//! of results follow from the elements of small integer inputs (a target shape, a number of results), the compiled form
//! is for these elements, too. Where they follow from other elements (`NonZero` of a computed tensor, a loop that ends
//! when a computed condition says so), nothing is compiled as a whole: what such an operator reads is compiled and
//! computed when it is met, the host decides how much there is (`onnx/ops/select.rs`, the boundary between the compiler
//! and the host), and what follows is compiled for that.
//!
//! A file is not trusted with memory or time. What follows from it alone, before anybody has given an input, may take 512 MiB
//! and 16 times the bytes of the file, and 2^34 operations and 2^12 for each of these bytes (`budget.rs`), what the host does while
//! importing included, such as tables for `Resize`; more is an
//! error that names the node: make them an input, or compute them from one. What follows from inputs may be as large as they ask for;
//! a value that is larger than the machine's memory is refused by its node before anything is computed, and so is a run whose
//! results and intermediates together are more than the memory that is available. Tensors have at most 64 axes. Attributes that an operator
//! had in no version of ONNX, or that hold another type than it says, are errors, and so are outputs of another dtype or shape than the
//! model declares. (Of shapes that is said where all sizes of inputs are declared. Where some are open, the sizes of outputs
//! are often still those of the run that the model was made with, so that only the number of axes has to be right.)

mod budget;
pub mod conformance;
mod error;
mod field;
pub(crate) mod host;
mod ncnn;
mod onnx;
mod profile;
mod reach;
mod resample;
mod session;
mod tiles;
mod value;

pub use error::ModelError;
pub use profile::Launch;
pub use session::Session;
pub use tiles::PictureAxes;
pub(crate) use tiles::Tiling;
pub use value::Value;

use crate::device::Device;
use crate::error::Result;
use crate::export::{self, Exported};
use crate::files;
use crate::function::{ArgSpec, FunctionOptions};
use crate::tensor::Tensor;
use ncnn::NcnnModel;
use onnx::OnnxModel;
use onnx::tensors::Folder;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;
use winograph_ir::DType;

/// Bytes of a file that are read at a time, where they are not elements.
const READ: usize = 1 << 16;

/// A model that has been read. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Model(Arc<Format>);

/// There is one of a model, behind a pointer.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
enum Format {
    Onnx(OnnxModel),
    Ncnn(NcnnModel),
    /// Compiled already.
    Exported(Exported),
    /// Compiled by a session for the only shapes that it takes.
    Told(Told),
}

/// What is told of a model whose weights are not in memory any more.
#[derive(Debug)]
struct Told {
    inputs: Vec<Port>,
    defaults: Vec<Port>,
    outputs: Vec<Port>,
    metadata: Vec<(String, String)>,
    operators: Vec<(String, usize)>,
    parameters: usize,
}

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// What it is.
    pub of: PortType,
}

/// What an input or output is.
#[derive(Clone, Debug, PartialEq)]
pub enum PortType {
    /// A tensor.
    Tensor {
        /// Element type.
        dtype: DType,
        /// Size per axis, `None` where any will do; `None` if the number of axes is not known.
        shape: Option<Vec<Option<usize>>>,
    },
    /// A list of tensors.
    Sequence,
    /// A value that may be missing.
    Optional,
    /// Something that this library does not hold.
    Other(String),
}

impl From<(String, ArgSpec)> for Port {
    fn from((name, spec): (String, ArgSpec)) -> Port {
        let shape = Some(spec.shape.into_iter().map(Some).collect());
        Port { name, of: PortType::Tensor { dtype: spec.dtype, shape } }
    }
}

impl Model {
    /// Reads a model. What it is follows from the file's first bytes: ONNX's format, or the text of a `.param` file of
    /// ncnn, whose weights are in the file of the same name that ends in `.bin`.
    /// A file whose name ends in `.wg` was [exported](Session::export) and is compiled already. Compiling one of these loads
    /// code of that file: **take only what you would run as a program**; see [`export`].
    ///
    /// # Errors
    /// A file that cannot be read, is a pipe or a device, or is not such a model.
    pub fn load(path: impl AsRef<Path>) -> Result<Model> {
        let path = path.as_ref();
        if path.extension().is_some_and(|e| e == export::EXTENSION) {
            return Ok(Model(Arc::new(Format::Exported(Exported::open(path)?))));
        }
        if path.extension().is_some_and(|e| e == "bin") {
            let cause = "weights of ncnn: name the .param file beside it";
            return Err(ModelError::format(path.display().to_string(), cause).into());
        }
        let io = |source| ModelError::Io { path: path.to_path_buf(), source };
        let (file, bytes) = files::open(path).map_err(io)?;
        let mut file = BufReader::with_capacity(READ, file);
        let first = file.fill_buf().map_err(io)?;
        if first.starts_with(ncnn::MAGIC.as_bytes()) || path.extension().is_some_and(|e| e == "param") {
            return Model::from_ncnn(&read(path)?, &read(&path.with_extension("bin"))?);
        }
        let folder = Folder::of(path).map_err(io)?;
        Ok(Model(Arc::new(Format::Onnx(OnnxModel::read(file, bytes, Some(folder))?))))
    }

    /// A model in ncnn's format that is in memory: the text of the `.param` file, and the bytes of the `.bin` file.
    ///
    /// # Errors
    /// Text and bytes that are not such a model.
    pub fn from_ncnn(param: &[u8], bin: &[u8]) -> Result<Model> {
        Ok(Model(Arc::new(Format::Ncnn(NcnnModel::decode(param, bin)?))))
    }

    /// A model in ONNX's format that is in memory. It may not refer to other files.
    ///
    /// # Errors
    /// Bytes that are not such a model.
    pub fn from_onnx(bytes: &[u8]) -> Result<Model> {
        Ok(Model(Arc::new(Format::Onnx(OnnxModel::decode(bytes, None)?))))
    }

    /// What it takes beside that, if it is given: inputs that the file has values for, which are taken where it is not. Those of
    /// files of ONNX's version 4 and newer; in older ones all constants are inputs, and they stay constants.
    ///
    /// What is computed from such values alone is computed once; given as an input, it is compiled for.
    pub fn defaults(&self) -> Vec<Port> {
        match &*self.0 {
            Format::Onnx(m) => m.defaults(),
            Format::Told(m) => m.defaults.clone(),
            Format::Ncnn(_) | Format::Exported(_) => vec![],
        }
    }

    /// What it takes, and has to be given.
    pub fn inputs(&self) -> Vec<Port> {
        match &*self.0 {
            Format::Onnx(m) => m.inputs(),
            Format::Ncnn(m) => m.inputs(),
            Format::Exported(m) => m.inputs().into_iter().map(Port::from).collect(),
            Format::Told(m) => m.inputs.clone(),
        }
    }

    /// What it gives.
    pub fn outputs(&self) -> Vec<Port> {
        match &*self.0 {
            Format::Onnx(m) => m.outputs(),
            Format::Ncnn(m) => m.outputs(),
            Format::Exported(m) => m.outputs().into_iter().map(Port::from).collect(),
            Format::Told(m) => m.outputs.clone(),
        }
    }

    /// Notes that its maker left in it, by key.
    pub fn metadata(&self) -> &[(String, String)] {
        match &*self.0 {
            Format::Onnx(m) => m.metadata(),
            Format::Ncnn(_) => &[],
            Format::Exported(m) => m.metadata(),
            Format::Told(m) => &m.metadata,
        }
    }

    /// Operators by name, and how often each occurs.
    pub fn operators(&self) -> Vec<(String, usize)> {
        match &*self.0 {
            Format::Onnx(m) => m.operators(),
            Format::Ncnn(m) => m.operators(),
            Format::Exported(m) => m.operators().to_vec(),
            Format::Told(m) => m.operators.clone(),
        }
    }

    /// Number of elements of its weights: of all tensors that are in the file.
    pub fn parameters(&self) -> usize {
        match &*self.0 {
            Format::Onnx(m) => m.parameters(),
            Format::Ncnn(m) => m.parameters(),
            Format::Exported(m) => m.parameters(),
            Format::Told(m) => m.parameters,
        }
    }

    /// The file that it is, where it is compiled already.
    pub fn exported(&self) -> Option<&Exported> {
        match &*self.0 {
            Format::Exported(m) => Some(m),
            _ => None,
        }
    }

    /// Builds the tensors of the outputs from those of the inputs, which may be arguments of a function that is being
    /// [compiled](crate::compile): nothing is computed.
    ///
    /// # Errors
    /// Missing inputs, and what is wrong with the model. [`ModelError::NeedsValue`] if shapes depend on the elements of
    /// inputs that are arguments or have not been computed.
    pub fn trace(&self, inputs: &[(String, Value)]) -> Result<Vec<Value>> {
        self.import(inputs, false)
    }

    pub(crate) fn import(&self, inputs: &[(String, Value)], eager: bool) -> Result<Vec<Value>> {
        match &*self.0 {
            Format::Onnx(m) => m.trace(inputs, eager),
            Format::Ncnn(m) => m.trace(inputs),
            Format::Exported(_) => {
                let cause = "it is compiled already and has no operations any more: take the model it was made from, or see by \
                             `winograph inspect` what it was compiled to";
                Err(ModelError::format("exported model", cause).into())
            }
            Format::Told(_) => {
                let cause = "a session has compiled it for the shapes that it states and has let its weights go: load it \
                             again (and take Model::session, which keeps them)";
                Err(ModelError::format("model of a session", cause).into())
            }
        }
    }

    /// Compiles the model if the shapes of its inputs are known; else that is done when it is first run. Where the model
    /// states all shapes the session has no more use for the weights as they are in the file, and lets them go: they are
    /// freed when the last `Model` that was loaded with them is dropped. Else it keeps them for the shapes to come, beside
    /// those that it has prepared. Inputs with [`defaults`](Model::defaults) are constants in the former case: to give such an
    /// input take [`session`](Model::session).
    ///
    /// # Errors
    /// What is wrong with the model, and those of compiling.
    pub fn compile(&self, device: &Arc<dyn Device>) -> Result<Session> {
        self.compile_with(FunctionOptions { device: Some(device.clone()), ..FunctionOptions::default() })
    }

    /// A session that has compiled nothing yet: it does so for the shapes that it meets, and keeps the model's weights. Of a
    /// model that was exported it loads the code when it is first asked for.
    pub fn session(&self, options: FunctionOptions) -> Session {
        Session::new(self.clone(), options)
    }

    /// [`compile`](Model::compile) with options.
    ///
    /// # Errors
    /// Those of [`compile`](Model::compile).
    pub fn compile_with(&self, options: FunctionOptions) -> Result<Session> {
        let mut session = Session::new(self.clone(), options);
        if let Format::Exported(exported) = &*self.0 {
            session.load(exported)?;
            return Ok(session);
        }
        let fixed = self.inputs().into_iter().map(|p| match p.of {
            PortType::Tensor { dtype, shape: Some(shape) } => {
                let shape = shape.into_iter().collect::<Option<Vec<usize>>>()?;
                Some((p.name, Tensor::argument(dtype, shape).ok()?))
            }
            _ => None,
        });
        if let Some(fixed) = fixed.collect::<Option<Vec<_>>>() {
            session.prepare(&fixed)?;
        }
        Ok(session)
    }

    /// The same without operations and weights.
    fn told(&self) -> Model {
        Model(Arc::new(Format::Told(Told {
            inputs: self.inputs(),
            defaults: self.defaults(),
            outputs: self.outputs(),
            metadata: self.metadata().to_vec(),
            operators: self.operators(),
            parameters: self.parameters(),
        })))
    }
}

/// The inputs that a model has to be given, and those of its others that it is given.
fn with_given(mut inputs: Vec<Port>, defaults: impl FnOnce() -> Vec<Port>, given: &[(String, Value)]) -> Vec<Port> {
    // Most models are given what they have to be given; some have thousands of constants that they could be given.
    if given.iter().any(|(name, _)| !inputs.iter().any(|p| p.name == *name)) {
        inputs.extend(defaults().into_iter().filter(|p| given.iter().any(|(name, _)| p.name == *name)));
    }
    inputs
}

fn read(path: &Path) -> Result<Vec<u8>> {
    files::read(path).map_err(|source| ModelError::Io { path: path.to_path_buf(), source }.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::settings;

    #[test]
    fn a_session_keeps_weights_only_for_shapes_that_may_come() {
        let device = &settings().unwrap().device;
        let bin = [&[0; 4][..], &[0f32, 1.0, 2.0].map(f32::to_le_bytes).concat()].concat();
        let x = Tensor::ones(&[3, 4, 5], DType::F32).unwrap();
        for (input, keeps) in [(" 0=5 1=4 2=3", false), ("", true)] {
            let text = format!("7767517\n2 2\nInput i 0 1 x{input}\nConvolution c 1 1 x y 0=1 1=1 6=3\n");
            let model = Model::from_ncnn(text.as_bytes(), &bin).unwrap();
            let (inputs, weak) = (model.inputs(), Arc::downgrade(&model.0));
            let session = model.compile(device).unwrap();
            session.compile_for(&[("x", &x)]).unwrap();
            drop(model);
            assert_eq!(weak.upgrade().is_some(), keeps);
            assert_eq!(session.run(&[("x", &x)]).unwrap()[0].1.to_vec::<f32>().unwrap(), [3.0; 20]);
            let told = session.model();
            assert_eq!((told.inputs(), told.parameters(), told.operators().len()), (inputs, 3, 1));
            let traced = told.trace(&[("x".to_string(), Value::Tensor(x.clone()))]).map_err(|e| e.to_string());
            assert_eq!(traced.is_ok(), keeps);
            assert!(keeps || traced.unwrap_err().contains("load it again"));
            let wide = Tensor::ones(&[3, 4, 6], DType::F32).unwrap();
            let other = session.run(&[("x", &wide)]).map_err(|e| e.to_string());
            assert!(if keeps { other.is_ok() } else { other.unwrap_err().contains("expected a tensor f32[3,4,5]") });
            // In tiles: one is the picture, smaller ones are other shapes.
            let axes = PictureAxes { height: 1, width: 2 };
            let tiled =
                |tile| session.run_tiled(("x", &x, axes), axes, tile, &mut |_, _| {}).map_err(|e| e.to_string());
            assert_eq!(tiled(5).unwrap().1.to_vec::<f32>().unwrap(), [3.0; 20]);
            match keeps {
                true => assert_eq!(tiled(2).unwrap().1.to_vec::<f32>().unwrap(), [3.0; 20]),
                false => assert!(tiled(2).unwrap_err().contains("pictures of one size alone: ask for 5")),
            }
        }
    }
}
