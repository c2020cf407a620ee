//! What every device checks before it launches a kernel.

use crate::device::{Arg, DeviceError};
use serde::{Deserialize, Serialize};
use winograph_compiler::render::{frame, grid_items};
use winograph_ir::int::IntId;
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
    /// Nothing: the number of items, the bytes of each argument, and the least and greatest value of each parameter.
    Fixed {
        items: i64,
        bytes: Vec<usize>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        params: Vec<(i64, i64)>,
    },
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
        let infos = code.ints.params();
        let fixed = |e: IntId| code.ints.as_const(e).is_some();
        let sizes = if code.grid().into_iter().chain(code.args.iter().map(|m| m.layout.len)).all(fixed) {
            let least: Vec<i64> = infos.iter().map(|p| p.lo).collect();
            match grid_items(code, &least).zip(arg_bytes(code, &least)) {
                Some((items, bytes)) => {
                    Sizes::Fixed { items, bytes, params: infos.iter().map(|p| (p.lo, p.hi)).collect() }
                }
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

    /// Compares values of parameters with those that there may be; the error says what is wrong.
    pub(crate) fn check_params(&self, params: &[i64]) -> Result<(), String> {
        let check = |count: usize, bounds: &mut dyn Iterator<Item = (i64, i64)>| {
            if params.len() != count {
                return Err(format!("{} parameters where {count} are needed", params.len()));
            }
            let mut all = params.iter().zip(bounds).enumerate();
            match all.find(|(_, (x, (lo, hi)))| !(lo..=hi).contains(x)) {
                Some((n, (x, (lo, hi)))) => Err(format!("parameter {n} is {x}, not within {lo}..={hi}")),
                None => Ok(()),
            }
        };
        match &self.sizes {
            Sizes::Fixed { params, .. } => check(params.len(), &mut params.iter().copied()),
            Sizes::Symbolic(code) => {
                let infos = code.ints.params();
                check(infos.len(), &mut infos.iter().map(|p| (p.lo, p.hi)))
            }
        }
    }

    /// The number of items, once arguments and parameters are found to be right.
    pub(crate) fn check(&self, args: &[Arg], params: &[i64]) -> Result<i64, DeviceError> {
        if args.len() != self.alignments.len() {
            let reason = format!("{} arguments where {} are needed", args.len(), self.alignments.len());
            return Err(refuse(&self.name, reason));
        }
        self.check_params(params).map_err(|reason| refuse(&self.name, reason))?;
        let symbolic;
        let (items, bytes) = match &self.sizes {
            Sizes::Fixed { items, bytes, .. } => (*items, bytes),
            Sizes::Symbolic(code) => {
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
