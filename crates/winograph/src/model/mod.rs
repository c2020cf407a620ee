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
//! A session compiles a model for the shapes of its inputs, once for each combination that it is given. Where shapes
//! of results follow from the elements of small integer inputs (a target shape, a number of results), the compiled form
//! is for these elements, too. Where they follow from other elements (`NonZero` of a computed tensor, a loop that ends
//! when a computed condition says so), nothing is compiled as a whole: what such an operator reads is compiled and
//! computed when it is met, the host decides how much there is (`onnx/ops/select.rs`, the boundary between the compiler
//! and the host), and what follows is compiled for that.

pub mod conformance;
mod error;
mod field;
pub(crate) mod host;
mod ncnn;
mod onnx;
mod profile;
mod resample;
mod session;
mod tiles;
mod value;

pub use error::ModelError;
pub use profile::Launch;
pub use session::Session;
pub use tiles::PictureAxes;
pub use value::Value;

use crate::device::Device;
use crate::error::Result;
use crate::export::{self, Exported};
use crate::files;
use crate::function::{ArgSpec, FunctionOptions};
use crate::tensor::Tensor;
use ncnn::NcnnModel;
use onnx::OnnxModel;
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
        let folder = match path.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
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

    /// What it takes.
    pub fn inputs(&self) -> Vec<Port> {
        match &*self.0 {
            Format::Onnx(m) => m.inputs(),
            Format::Ncnn(m) => m.inputs(),
            Format::Exported(m) => m.inputs().into_iter().map(Port::from).collect(),
        }
    }

    /// What it gives.
    pub fn outputs(&self) -> Vec<Port> {
        match &*self.0 {
            Format::Onnx(m) => m.outputs(),
            Format::Ncnn(m) => m.outputs(),
            Format::Exported(m) => m.outputs().into_iter().map(Port::from).collect(),
        }
    }

    /// Notes that its maker left in it, by key.
    pub fn metadata(&self) -> &[(String, String)] {
        match &*self.0 {
            Format::Onnx(m) => m.metadata(),
            Format::Ncnn(_) => &[],
            Format::Exported(m) => m.metadata(),
        }
    }

    /// Operators by name, and how often each occurs.
    pub fn operators(&self) -> Vec<(String, usize)> {
        match &*self.0 {
            Format::Onnx(m) => m.operators(),
            Format::Ncnn(m) => m.operators(),
            Format::Exported(m) => m.operators().to_vec(),
        }
    }

    /// Number of elements of its weights.
    pub fn parameters(&self) -> usize {
        match &*self.0 {
            Format::Onnx(m) => m.parameters(),
            Format::Ncnn(m) => m.parameters(),
            Format::Exported(m) => m.parameters(),
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
                let cause = "it is compiled already and has no operations any more: take the model it was made from";
                Err(ModelError::format("exported model", cause).into())
            }
        }
    }

    /// Compiles the model if the shapes of its inputs are known; else that is done when it is first run.
    ///
    /// # Errors
    /// What is wrong with the model, and those of compiling.
    pub fn compile(&self, device: &Arc<dyn Device>) -> Result<Session> {
        self.compile_with(FunctionOptions { device: Some(device.clone()), ..FunctionOptions::default() })
    }

    /// A session that has compiled nothing yet: it does so for the shapes that it meets.
    pub fn session(&self, options: FunctionOptions) -> Session {
        Session::new(self.clone(), options)
    }

    /// [`compile`](Model::compile) with options.
    ///
    /// # Errors
    /// Those of [`compile`](Model::compile).
    pub fn compile_with(&self, options: FunctionOptions) -> Result<Session> {
        if let Format::Exported(exported) = &*self.0 {
            return Session::of_exported(self, exported, options);
        }
        let session = Session::new(self.clone(), options);
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
}

fn read(path: &Path) -> Result<Vec<u8>> {
    files::read(path).map_err(|source| ModelError::Io { path: path.to_path_buf(), source }.into())
}
