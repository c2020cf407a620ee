//! What can go wrong, told so that a caller can act on it.

use crate::tensor::shape::{MAX_ELEMENTS, MAX_RANK};
use std::fmt;
use std::path::PathBuf;
use winograph_ir::DType;

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the library. Messages name the operation, the shapes it was given and what it expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Shapes that do not fit the operation or each other.
    #[error("{op}: cannot work on {}: expected {expected}{}", Shapes(shapes), Hint(hint))]
    Shape {
        /// The operation.
        op: &'static str,
        /// Shapes of its operands.
        shapes: Vec<Vec<usize>>,
        /// What would have been right.
        expected: String,
        /// A way out, if one is known.
        hint: Option<String>,
    },
    /// Element types that the operation does not take, or that differ.
    #[error("{op}: cannot work on dtype {}: expected {expected}{}", DTypes(dtypes), Hint(hint))]
    DType {
        /// The operation.
        op: &'static str,
        /// Element types of its operands.
        dtypes: Vec<DType>,
        /// What would have been right.
        expected: String,
        /// A way out, if one is known.
        hint: Option<String>,
    },
    /// An argument other than a tensor that makes no sense for these operands.
    #[error("{op}: {got} does not fit {}: expected {expected}{}", Shapes(shapes), Hint(hint))]
    Argument {
        /// The operation.
        op: &'static str,
        /// The argument and its value.
        got: String,
        /// Shapes of the operands; empty where there are none.
        shapes: Vec<Vec<usize>>,
        /// What would have been right.
        expected: String,
        /// A way out, if one is known.
        hint: Option<String>,
    },
    /// More elements than can be counted, axes of size 0 counting as 1.
    #[error(
        "{op}: a result of shape {shape:?} and dtype {dtype} would overflow: expected at most {MAX_ELEMENTS} elements"
    )]
    TooLarge {
        /// The operation.
        op: &'static str,
        /// Shape of the result.
        shape: Vec<usize>,
        /// Element type of the result.
        dtype: DType,
    },
    /// More axes than a tensor may have.
    #[error("{op}: a result of {rank} axes: expected at most {MAX_RANK}")]
    Rank {
        /// The operation.
        op: &'static str,
        /// Its number of axes.
        rank: usize,
    },
    /// The machine has no memory for a tensor.
    #[error("out of memory: cannot allocate {bytes} bytes: take smaller tensors, or work on them in parts")]
    OutOfMemory {
        /// What was asked for.
        bytes: usize,
    },
    /// An argument of a function that is being compiled was used outside of it.
    #[error(
        "{op}: a tensor of shape {shape:?} depends on an argument of a function under compilation and has no value: \
         expected it to be used only inside of the closure and returned from it"
    )]
    Unbound {
        /// The operation.
        op: &'static str,
        /// Shape of the argument.
        shape: Vec<usize>,
    },
    /// Bytes that are not a `.npy` array, or one that this library does not hold.
    #[error("npy: {cause}")]
    Npy {
        /// What is wrong with it.
        cause: String,
    },
    /// Bytes that are not in the safetensors format, or tensors that this library does not hold.
    #[error("safetensors: {cause}")]
    Safetensors {
        /// What is wrong.
        cause: String,
    },
    /// A file that could not be read or written.
    #[error("{op}: {}: {source}", path.display())]
    Io {
        /// The operation.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// An algorithm that these operands, which are right in themselves, leave no room for.
    #[error("{op}: it does not apply: {reason}")]
    Inapplicable {
        /// The operation.
        op: &'static str,
        /// Why.
        reason: String,
    },
    /// A model that is wrong or was used wrongly.
    #[error(transparent)]
    Model(Box<crate::model::ModelError>),
    /// An exported file that cannot be used here, or a function that cannot be exported.
    #[error("{file}: {cause}")]
    Exported {
        /// The file.
        file: String,
        /// What is wrong with it.
        cause: Box<crate::export::ExportError>,
    },
    /// Computing failed.
    #[error("{op}: {cause}")]
    Execution {
        /// The operation.
        op: &'static str,
        /// What happened.
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    pub(crate) fn shape(op: &'static str, shapes: &[&[usize]], expected: impl Into<String>) -> Error {
        Error::Shape { op, shapes: owned(shapes), expected: expected.into(), hint: None }
    }

    pub(crate) fn dtype(op: &'static str, dtypes: &[DType], expected: impl Into<String>) -> Error {
        Error::DType { op, dtypes: dtypes.to_vec(), expected: expected.into(), hint: None }
    }

    pub(crate) fn argument(
        op: &'static str,
        got: impl Into<String>,
        shapes: &[&[usize]],
        expected: impl Into<String>,
    ) -> Error {
        Error::Argument { op, got: got.into(), shapes: owned(shapes), expected: expected.into(), hint: None }
    }

    pub(crate) fn npy(cause: impl Into<String>) -> Error {
        Error::Npy { cause: cause.into() }
    }

    /// The error with a way out; errors without room for one stay as they are.
    pub(crate) fn hint(mut self, text: impl Into<String>) -> Error {
        if let Error::Shape { hint, .. } | Error::DType { hint, .. } | Error::Argument { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }
}

fn owned(shapes: &[&[usize]]) -> Vec<Vec<usize>> {
    shapes.iter().map(|s| s.to_vec()).collect()
}

struct Shapes<'a>(&'a [Vec<usize>]);

impl fmt::Display for Shapes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("this operation"),
            [one] => write!(f, "shape {one:?}"),
            many => {
                f.write_str("shapes ")?;
                for (i, s) in many.iter().enumerate() {
                    write!(f, "{}{s:?}", if i > 0 { " and " } else { "" })?;
                }
                Ok(())
            }
        }
    }
}

struct DTypes<'a>(&'a [DType]);

impl fmt::Display for DTypes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, d) in self.0.iter().enumerate() {
            write!(f, "{}{d}", if i > 0 { " and " } else { "" })?;
        }
        Ok(())
    }
}

struct Hint<'a>(&'a Option<String>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(text) => write!(f, " ({text})"),
            None => Ok(()),
        }
    }
}
