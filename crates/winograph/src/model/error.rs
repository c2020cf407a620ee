//! What can be wrong with a model or its use.

use std::path::PathBuf;

/// An error of reading, importing or running a model: names the file, or the node and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file that is not a model, or one whose parts contradict each other.
    #[error("{part}: {cause}")]
    Format {
        /// The part of the file: `model`, `initializer x`, `line 7`.
        part: String,
        /// What is wrong.
        cause: String,
    },
    /// A node that is not as its operator's definition says.
    #[error("node {node} ({op}): {cause}")]
    Node {
        /// Name of the node.
        node: String,
        /// Its operator.
        op: String,
        /// What is wrong.
        cause: String,
    },
    /// A node that this library cannot compute.
    #[error("node {node}: {op} is not supported: {cause}")]
    Unsupported {
        /// Name of the node.
        node: String,
        /// Its operator.
        op: String,
        /// Why.
        cause: String,
    },
    /// The machine, or the device, has no memory for a part of a model.
    #[error("{part}: out of memory: cannot allocate {bytes} bytes: take smaller inputs, or work on them in parts")]
    Memory {
        /// What it was to hold: `tensor w`, a node and its result, `output y`.
        part: String,
        /// What was asked for.
        bytes: usize,
    },
    /// A node whose result's shape depends on the elements of inputs, while only their shapes are known.
    #[error(
        "node {node} ({op}): the shape of what follows depends on elements that are not known while compiling, of {}: \
         give these inputs when compiling, or run the model without compiling it first",
        inputs.join(", ")
    )]
    NeedsValue {
        /// Name of the node.
        node: String,
        /// Its operator.
        op: String,
        /// Names of the model's inputs.
        inputs: Vec<String>,
    },
    /// A node whose result has as many elements as the data says, where the model would have to be compiled as a whole.
    #[error(
        "node {node} ({op}): the number of its results follows from data that is computed, so that the model cannot be \
         compiled as a whole: run it in a session, which compiles what is before and behind this node"
    )]
    DataDependent {
        /// Name of the node.
        node: String,
        /// Its operator.
        op: String,
    },
    /// An input that does not fit the model.
    #[error("input {name}: got {given}: expected {expected}")]
    Input {
        /// The input.
        name: String,
        /// What it was given.
        given: String,
        /// What would have been right.
        expected: String,
    },
}

impl ModelError {
    pub(crate) fn format(part: impl Into<String>, cause: impl Into<String>) -> ModelError {
        ModelError::Format { part: part.into(), cause: cause.into() }
    }
}

impl From<ModelError> for crate::Error {
    fn from(e: ModelError) -> crate::Error {
        crate::Error::Model(Box::new(e))
    }
}
