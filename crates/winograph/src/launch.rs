//! What every device checks before it launches a kernel.

use crate::device::{Arg, DeviceError};
use serde::{Deserialize, Serialize};
use winograph_compiler::render::{frame, grid_items};
use winograph_ir::linear::{Code, MemoryDecl};

/// What a kernel takes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Signature {
    name: String,
    sizes: Sizes,
    alignments: Vec<usize>,
}

/// What depends on parameters.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Sizes {
    /// Nothing: the number of items and the bytes of each argument.
    Fixed { items: i64, bytes: Vec<usize> },
    /// To be computed from the code.
    #[serde(skip)]
    Symbolic(Box<Code>),
}

/// The error of a launch that cannot be.
pub(crate) fn refuse(kernel: &str, reason: impl Into<String>) -> DeviceError {
    DeviceError::Launch { kernel: kernel.to_string(), reason: reason.into() }
}

/// Bytes that each argument must have.
pub(crate) fn arg_bytes(code: &Code, params: &[i64]) -> Option<Vec<usize>> {
    let bytes = |m: &MemoryDecl| {
        let len = usize::try_from(frame::eval_params(code, m.layout.len, params)?.max(0)).ok()?;
        len.checked_mul(m.dtype.size())
    };
    code.args.iter().map(bytes).collect()
}

impl Signature {
    /// What `code` takes. Arguments must be aligned to an element, and to `alignment` bytes.
    pub(crate) fn new(code: &Code, alignment: usize) -> Result<Signature, DeviceError> {
        let sizes = if code.ints.params().is_empty() {
            match grid_items(code, &[]).zip(arg_bytes(code, &[])) {
                Some((items, bytes)) => Sizes::Fixed { items, bytes },
                None => return Err(refuse(&code.name, "sizes overflow")),
            }
        } else {
            Sizes::Symbolic(Box::new(code.clone()))
        };
        let alignments = code.args.iter().map(|m| m.dtype.size().max(alignment)).collect();
        Ok(Signature { name: code.name.clone(), sizes, alignments })
    }

    /// The kernel's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Bytes that each argument must have; `None` where they depend on parameters.
    pub(crate) fn bytes(&self) -> Option<&[usize]> {
        match &self.sizes {
            Sizes::Fixed { bytes, .. } => Some(bytes),
            Sizes::Symbolic(_) => None,
        }
    }

    /// Whether there is one alignment for each argument, and it is one.
    pub(crate) fn is_sound(&self) -> bool {
        self.bytes().is_some_and(|b| b.len() == self.alignments.len())
            && self.alignments.iter().all(|a| a.is_power_of_two())
    }

    /// The number of items, once arguments and parameters are found to be right.
    pub(crate) fn check(&self, args: &[Arg], params: &[i64]) -> Result<i64, DeviceError> {
        if args.len() != self.alignments.len() {
            let reason = format!("{} arguments where {} are needed", args.len(), self.alignments.len());
            return Err(refuse(&self.name, reason));
        }
        let symbolic;
        let (items, bytes) = match &self.sizes {
            Sizes::Fixed { items, bytes } => {
                if !params.is_empty() {
                    return Err(refuse(&self.name, format!("{} parameters where none is needed", params.len())));
                }
                (*items, bytes)
            }
            Sizes::Symbolic(code) => {
                let infos = code.ints.params();
                if params.len() != infos.len() {
                    let reason = format!("{} parameters where {} are needed", params.len(), infos.len());
                    return Err(refuse(&self.name, reason));
                }
                for (p, &x) in infos.iter().zip(params) {
                    if x < p.lo || x > p.hi {
                        let reason = format!("parameter {} is {x}, not within {}..={}", p.name, p.lo, p.hi);
                        return Err(refuse(&self.name, reason));
                    }
                }
                let items = grid_items(code, params);
                symbolic = arg_bytes(code, params).ok_or_else(|| refuse(&self.name, "sizes overflow"))?;
                (items.ok_or_else(|| refuse(&self.name, "sizes overflow"))?, &symbolic)
            }
        };
        for (i, ((arg, &needed), &align)) in args.iter().zip(bytes).zip(&self.alignments).enumerate() {
            if arg.bytes < needed {
                let reason = format!("argument {i} has {} bytes where {needed} are needed", arg.bytes);
                return Err(refuse(&self.name, reason));
            }
            if needed > 0 && (arg.address.is_null() || !arg.address.addr().is_multiple_of(align)) {
                return Err(refuse(&self.name, format!("argument {i} is not aligned to {align} bytes")));
            }
        }
        Ok(items)
    }
}
