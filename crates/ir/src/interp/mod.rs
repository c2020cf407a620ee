//! Interpreters: the oracle for every pass and every backend.
//!
//! [`tensor`] and [`indexed`] compute a graph's outputs from its inputs; [`linear`] runs one kernel's code on byte
//! buffers, and [`gpu`] runs it as a GPU would: blocks, warps, barriers, with counts of what each access moves, which
//! [`sectors`] gives without running anything. They translate to the same small machine, which checks every access and
//! never panics on bad input.

mod emit;
pub mod gpu;
pub mod indexed;
pub mod linear;
mod machine;
mod races;
mod requests;
pub mod sectors;
pub mod tensor;
mod threads;

use crate::dtype::{DType, Scalar};
use crate::int::Ints;
pub(crate) use emit::linear_in;

/// A tensor with its elements in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Element type.
    pub dtype: DType,
    /// Size per axis.
    pub shape: Vec<usize>,
    /// Elements, all of `dtype`.
    pub data: Vec<Scalar>,
}

impl Value {
    /// A tensor from `f64` elements, each converted by [`Scalar::from_f64`].
    pub fn from_f64s(dtype: DType, shape: &[usize], data: &[f64]) -> Value {
        Value { dtype, shape: shape.to_vec(), data: data.iter().map(|&x| Scalar::from_f64(dtype, x)).collect() }
    }

    /// The elements as `f64`.
    pub fn to_f64s(&self) -> Vec<f64> {
        self.data.iter().map(|s| s.to_f64()).collect()
    }

    /// The elements as little-endian bytes, each in its dtype's own size.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.data.len() * self.dtype.size());
        for s in &self.data {
            out.extend_from_slice(&s.bits().to_le_bytes()[..self.dtype.size()]);
        }
        out
    }

    /// A tensor from the bytes that [`to_bytes`](Value::to_bytes) gives; left-over bytes are dropped.
    pub fn from_bytes(dtype: DType, shape: &[usize], bytes: &[u8]) -> Value {
        let data = bytes
            .chunks_exact(dtype.size())
            .map(|chunk| {
                let mut raw = [0u8; 8];
                raw[..chunk.len()].copy_from_slice(chunk);
                Scalar::from_bits(dtype, u64::from_le_bytes(raw))
            })
            .collect();
        Value { dtype, shape: shape.to_vec(), data }
    }

    /// Checks that the number of elements fits the shape and that all have the dtype.
    fn check(&self, what: &str) -> Result<(), InterpError> {
        let wanted = element_count(&self.shape).unwrap_or(usize::MAX);
        if wanted != self.data.len() {
            return Err(InterpError::Length { what: what.to_string(), wanted, found: self.data.len() });
        }
        match self.data.iter().find(|s| s.dtype() != self.dtype) {
            Some(s) => Err(malformed(what, format!("an element is {}, the tensor {}", s.dtype(), self.dtype))),
            None => Ok(()),
        }
    }
}

/// Why a program could not be interpreted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InterpError {
    /// Another number of parameter values than the program has parameters.
    #[error("{wanted} parameter values are needed, {found} were given")]
    ParamCount {
        /// Parameters of the program.
        wanted: usize,
        /// Values given.
        found: usize,
    },
    /// A parameter's value is outside of its bounds.
    #[error("parameter `{name}` is {found}, but takes {lo}..={hi}")]
    ParamRange {
        /// Name of the parameter.
        name: String,
        /// Value given.
        found: i64,
        /// Least value.
        lo: i64,
        /// Greatest value.
        hi: i64,
    },
    /// Data of the wrong length.
    #[error("{what}: {wanted} are needed, {found} were given")]
    Length {
        /// What was given.
        what: String,
        /// Number needed.
        wanted: usize,
        /// Number found.
        found: usize,
    },
    /// An access beyond the end of memory.
    #[error("{kernel}: `{memory}` of {len} elements is accessed at {address}")]
    OutOfBounds {
        /// Kernel or definition.
        kernel: String,
        /// Memory.
        memory: String,
        /// Element address.
        address: i64,
        /// Number of elements.
        len: usize,
    },
    /// An index beyond its axis.
    #[error("{kernel}: axis {axis} of `{memory}` has size {size}, its index is {index}")]
    AxisOutOfBounds {
        /// Kernel or definition.
        kernel: String,
        /// Memory.
        memory: String,
        /// The axis.
        axis: usize,
        /// The index.
        index: i64,
        /// Size of the axis.
        size: i64,
    },
    /// An integer expression overflows or divides by zero.
    #[error("{place}: an integer expression has no value (overflow, or division by zero)")]
    NoInteger {
        /// Kernel, definition or node.
        place: String,
    },
    /// A register is read before it is set, or outside of the body that sets it.
    #[error("{kernel}: register r{reg} is read where it is not set")]
    RegisterUnset {
        /// Kernel.
        kernel: String,
        /// The register.
        reg: u32,
    },
    /// An expression depends on a range that nothing binds.
    #[error("{place}: range {range} has no value here")]
    UnboundRange {
        /// Kernel or definition.
        place: String,
        /// Id of the range.
        range: u32,
    },
    /// Two threads touch the same element, at least one of them writes it, and nothing orders them.
    #[error("{kernel}: a race on `{memory}` at {address}: {between}")]
    Race {
        /// Kernel.
        kernel: String,
        /// Memory.
        memory: String,
        /// Element address.
        address: i64,
        /// Who does what.
        between: String,
    },
    /// Some threads of a block wait at a barrier to which the others do not come.
    #[error("{kernel}: {waiting} of {threads} threads of a block wait at a barrier to which the others do not come")]
    BarrierDivergence {
        /// Kernel.
        kernel: String,
        /// Threads at the barrier.
        waiting: usize,
        /// Threads of the block.
        threads: usize,
    },
    /// Something that no verifier would have let through.
    #[error("{place}: {reason}")]
    Malformed {
        /// Kernel, definition or node.
        place: String,
        /// What is wrong.
        reason: String,
    },
}

/// Most bytes that an interpreter allocates for one memory.
const MAX_BYTES: usize = 1 << 34;

fn malformed(place: &str, reason: impl Into<String>) -> InterpError {
    InterpError::Malformed { place: place.to_string(), reason: reason.into() }
}

fn element_count(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s))
}

fn check_params(ints: &Ints, params: &[i64]) -> Result<(), InterpError> {
    if params.len() != ints.params().len() {
        return Err(InterpError::ParamCount { wanted: ints.params().len(), found: params.len() });
    }
    for (info, &found) in ints.params().iter().zip(params) {
        if found < info.lo || found > info.hi {
            return Err(InterpError::ParamRange { name: info.name.clone(), found, lo: info.lo, hi: info.hi });
        }
    }
    Ok(())
}
