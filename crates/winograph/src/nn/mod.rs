//! Networks in Rust: layers with parameters from safetensors files.
//!
//! Names are those of PyTorch's `state_dict`, so that files saved from there load as they are.
//!
//! ```
//! use winograph::nn::{Activation, BatchNorm, Conv, Linear, Layer, Parameters, Sequential};
//! use winograph::safetensors::SafeTensors;
//! use winograph::{ArgSpec, ConvOptions, DType, Tensor, compile};
//!
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("net.safetensors");
//! # let random = |shape: &[usize], seed| Tensor::rand(shape, DType::F32, seed);
//! # SafeTensors::new(vec![
//! #     ("features.0.weight".into(), random(&[8, 3, 3, 3], 1)?), ("features.0.bias".into(), random(&[8], 2)?),
//! #     ("features.1.weight".into(), random(&[8], 3)?), ("features.1.bias".into(), random(&[8], 4)?),
//! #     ("features.1.running_mean".into(), random(&[8], 5)?), ("features.1.running_var".into(), random(&[8], 6)?),
//! #     ("features.1.num_batches_tracked".into(), Tensor::zeros(&[], DType::I64)?),
//! #     ("classifier.weight".into(), random(&[10, 8], 7)?), ("classifier.bias".into(), random(&[10], 8)?),
//! # ])?.save(&path)?;
//! let file = SafeTensors::load(&path)?;
//! let parameters = Parameters::new(&file);
//! let features = parameters.sub("features");
//! let net = Sequential::new()
//!     .with(Conv::load(&features.sub("0"), ConvOptions::padding(1))?)
//!     .with(BatchNorm::load(&features.sub("1"), 1e-5)?)
//!     .with(Activation::Relu)
//!     .with(|x: &Tensor| x.mean(&[2, 3], false))
//!     .with(Linear::load(&parameters.sub("classifier"))?)
//!     .with(Activation::Softmax(-1));
//!
//! // The batch norm becomes part of the convolution's weights and bias, once.
//! let f = compile(&[ArgSpec::new(DType::F32, &[1, 3, 32, 32])], |x| Ok(vec![net.forward(&x[0])?]))?;
//! let y = f.call(&[&Tensor::rand(&[1, 3, 32, 32], DType::F32, 9)?])?;
//! assert_eq!(y[0].shape(), [1, 10]);
//! assert!((y[0].sum(&[], false)?.item::<f32>()? - 1.0).abs() < 1e-5);
//! # Ok::<(), winograph::Error>(())
//! ```

mod layers;

pub use layers::{Activation, BatchNorm, Conv, GroupNorm, LayerNorm, Linear};

use crate::error::{Error, Result};
use crate::safetensors::SafeTensors;
use crate::tensor::Tensor;

/// A function of one tensor, with parameters of its own. Closures and functions `&Tensor -> Result<Tensor>` are layers, too.
pub trait Layer: Send + Sync {
    /// Its result for an input, lazily.
    ///
    /// # Errors
    /// An input that it does not take.
    fn forward(&self, x: &Tensor) -> Result<Tensor>;
}

impl<F: Fn(&Tensor) -> Result<Tensor> + Send + Sync> Layer for F {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self(x)
    }
}

/// Layers one after another.
#[derive(Default)]
pub struct Sequential(Vec<Box<dyn Layer>>);

impl Sequential {
    /// No layer: what is given is the result.
    pub fn new() -> Sequential {
        Sequential::default()
    }

    /// The same with a layer after it.
    pub fn with(mut self, layer: impl Layer + 'static) -> Sequential {
        self.0.push(Box::new(layer));
        self
    }
}

impl Layer for Sequential {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.iter().try_fold(x.clone(), |x, layer| layer.forward(&x))
    }
}

/// The tensors of a file whose names begin in some way.
#[derive(Clone, Debug)]
pub struct Parameters<'a> {
    file: &'a SafeTensors,
    prefix: String,
}

impl<'a> Parameters<'a> {
    /// All tensors of a file.
    pub fn new(file: &'a SafeTensors) -> Parameters<'a> {
        Parameters { file, prefix: String::new() }
    }

    /// Those whose names go on with `name` and a dot.
    pub fn sub(&self, name: &str) -> Parameters<'a> {
        Parameters { file: self.file, prefix: format!("{}{name}.", self.prefix) }
    }

    /// The tensor of a name, if there is one.
    pub fn find(&self, name: &str) -> Option<Tensor> {
        self.file.get(&format!("{}{name}", self.prefix)).cloned()
    }

    /// The tensor of a name.
    ///
    /// # Errors
    /// There is none: the error says which names there are.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        self.find(name).ok_or_else(|| {
            let all = self.file.tensors().map(|(name, _)| name);
            let near: Vec<&str> = all.filter(|n| n.starts_with(&self.prefix)).take(8).collect();
            let there = match near.is_empty() {
                true => format!("no name that begins with {:?}", self.prefix),
                false => near.join(", "),
            };
            let cause = format!("there is no tensor {:?}: the file has {there}", format!("{}{name}", self.prefix));
            Error::Safetensors { cause }
        })
    }
}
