//! What the header of an exported file says.

use super::ExportError;
use crate::function::ArgSpec;
use crate::image::{KernelData, Platform};
use crate::memory::may_fit;
use crate::tensor::shape::check_size;
use serde::{Deserialize, Serialize};
use winograph_compiler::program::{ALIGNMENT, Place, Program, ProgramBuffer, Step};
use winograph_ir::DType;
use winograph_ir::indexed::Role;
use winograph_ir::int::Ints;
use winograph_ir::linear::Code;

/// What a file begins with. The byte beyond ASCII and the newline are changed by transfers that take it for text.
pub(super) const MAGIC: &[u8; 8] = b"\x89WGRAPH\n";

/// Bytes before the header.
pub(super) const PREAMBLE: usize = 48;

/// Bytes of a header at most: of a program of a million launches it has fewer.
pub(super) const MAX_HEADER: u32 = 256 << 20;

/// Bytes of the parts of a section that are hashed by themselves.
pub(super) const PART: usize = 1 << 20;

/// Most axes of an input or output.
const MAX_RANK: usize = 64;

/// Sections that are not constants: the library and the prepared memory.
pub(super) const FIXED_SECTIONS: usize = 2;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    /// Version of this crate that wrote the file.
    pub(super) version: String,
    pub(super) machine: Platform,
    /// Notes of the model's maker, by key.
    pub(super) metadata: Vec<(String, String)>,
    /// Operators of the model, and how often each occurs.
    pub(super) operators: Vec<(String, usize)>,
    /// Number of elements of the model's weights.
    pub(super) parameters: usize,
    pub(super) inputs: Vec<Named>,
    pub(super) outputs: Vec<Named>,
    pub(super) kernels: Vec<Kernel>,
    pub(super) buffers: Vec<Buffer>,
    pub(super) launches: Vec<Launch>,
    pub(super) arena_bytes: usize,
    /// The library, the prepared memory, then the constants.
    pub(super) sections: Vec<Section>,
}

/// An input or output.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) dtype: String,
    pub(super) shape: Vec<usize>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kernel {
    pub(super) role: String,
    pub(super) launch: KernelData,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Buffer {
    pub(super) name: String,
    pub(super) dtype: String,
    pub(super) len: usize,
    pub(super) place: At,
}

/// [`Place`] in a file.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum At {
    Argument(usize),
    Constant(usize),
    Output(usize),
    Prepared(usize),
    Arena(usize),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Launch {
    pub(super) kernel: usize,
    pub(super) args: Vec<usize>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    pub(super) bytes: u64,
    /// In hexadecimal digits.
    pub(super) hash: String,
}

impl From<Place> for At {
    fn from(place: Place) -> At {
        match place {
            Place::Argument(n) => At::Argument(n),
            Place::Constant(n) => At::Constant(n),
            Place::Output(n) => At::Output(n),
            Place::Prepared(n) => At::Prepared(n),
            Place::Arena(n) => At::Arena(n),
        }
    }
}

impl From<At> for Place {
    fn from(at: At) -> Place {
        match at {
            At::Argument(n) => Place::Argument(n),
            At::Constant(n) => Place::Constant(n),
            At::Output(n) => Place::Output(n),
            At::Prepared(n) => Place::Prepared(n),
            At::Arena(n) => Place::Arena(n),
        }
    }
}

impl Named {
    pub(super) fn new(name: String, spec: &ArgSpec) -> Named {
        Named { name, dtype: spec.dtype.name().to_string(), shape: spec.shape.clone() }
    }

    /// Its dtype and shape, and the bytes they take.
    fn spec(&self, what: &str) -> Result<(ArgSpec, usize), ExportError> {
        let part = || format!("{what} {:?}", self.name);
        let dtype = dtype(&self.dtype).ok_or_else(|| ExportError::header(part(), unknown_dtype(&self.dtype)))?;
        if self.shape.len() > MAX_RANK {
            return Err(ExportError::header(part(), format!("more than {MAX_RANK} axes")));
        }
        let count = check_size("load", dtype, &self.shape).map_err(|e| ExportError::header(part(), e.to_string()))?;
        Ok((ArgSpec::new(dtype, &self.shape), count * dtype.size()))
    }
}

fn dtype(name: &str) -> Option<DType> {
    DType::from_name(name)
}

fn unknown_dtype(name: &str) -> String {
    format!("there is no dtype {name:?}")
}

/// What a header describes, found to be sound. Constants are numbered from 0.
#[derive(Debug)]
pub(super) struct Sound {
    pub(super) program: Program,
    pub(super) inputs: Vec<ArgSpec>,
    pub(super) outputs: Vec<ArgSpec>,
}

impl Header {
    /// Reads a header's text.
    pub(super) fn parse(text: &[u8]) -> Result<Header, ExportError> {
        serde_json::from_slice(text).map_err(|e| ExportError::header("JSON", e.to_string()))
    }

    /// Bytes of all sections, if they can be counted.
    pub(super) fn section_bytes(&self) -> Result<u64, ExportError> {
        let total = self.sections.iter().try_fold(0u64, |n, s| n.checked_add(s.bytes));
        total.ok_or_else(|| ExportError::header("sections", "their sizes overflow"))
    }

    /// Bytes of a section.
    fn bytes_of(&self, section: usize) -> Option<usize> {
        usize::try_from(self.sections.get(section)?.bytes).ok()
    }

    /// Compares its numbers with each other: afterwards each launch has what its kernel takes, within the memory that
    /// there is.
    pub(super) fn check(&self) -> Result<Sound, ExportError> {
        if self.sections.len() < FIXED_SECTIONS {
            let cause = format!("{} where there are at least {FIXED_SECTIONS}", self.sections.len());
            return Err(ExportError::header("sections", cause));
        }
        let all = |list: &[Named], what: &str| list.iter().map(|n| n.spec(what)).collect::<Result<Vec<_>, _>>();
        let (inputs, outputs) = (all(&self.inputs, "input")?, all(&self.outputs, "output")?);
        for (list, what) in [(&self.inputs, "inputs"), (&self.outputs, "outputs")] {
            let mut names: Vec<&str> = list.iter().map(|n| n.name.as_str()).collect();
            names.sort_unstable();
            if let Some(two) = names.windows(2).find(|w| w[0] == w[1]) {
                return Err(ExportError::header(what, format!("two have the name {:?}", two[0])));
            }
        }
        if !may_fit(self.arena_bytes) {
            return Err(ExportError::OutOfMemory { bytes: self.arena_bytes as u64 });
        }
        let prepared_bytes = self.bytes_of(1).unwrap_or(0);
        let mut buffers = Vec::with_capacity(self.buffers.len());
        for (i, buffer) in self.buffers.iter().enumerate() {
            let wrong = |cause: String| ExportError::header(format!("buffer {i} ({})", buffer.name), cause);
            let dtype = dtype(&buffer.dtype).ok_or_else(|| wrong(unknown_dtype(&buffer.dtype)))?;
            let bytes = buffer.len.checked_mul(dtype.size()).ok_or_else(|| wrong("its size overflows".into()))?;
            let of = |list: &[(ArgSpec, usize)], n: usize| list.get(n).map(|(_, bytes)| *bytes);
            let room = match buffer.place {
                At::Argument(n) => of(&inputs, n).ok_or_else(|| wrong(format!("there is no input {n}")))?,
                At::Output(n) => of(&outputs, n).ok_or_else(|| wrong(format!("there is no output {n}")))?,
                At::Constant(n) => {
                    let there = n.checked_add(FIXED_SECTIONS).and_then(|at| self.bytes_of(at));
                    there.ok_or_else(|| wrong(format!("there is no constant {n}")))?
                }
                At::Prepared(offset) | At::Arena(offset) => {
                    let whole = match buffer.place {
                        At::Prepared(_) => prepared_bytes,
                        _ => self.arena_bytes,
                    };
                    if offset % ALIGNMENT != 0 {
                        return Err(wrong(format!("its offset {offset} is not a multiple of {ALIGNMENT}")));
                    }
                    whole.checked_sub(offset).ok_or_else(|| wrong(format!("its offset {offset} is out of bounds")))?
                }
            };
            if bytes > room {
                return Err(wrong(format!("it takes {bytes} bytes where there are {room}")));
            }
            buffers.push(ProgramBuffer {
                name: buffer.name.clone(),
                dtype,
                len: buffer.len,
                place: buffer.place.into(),
            });
        }
        for (i, kernel) in self.kernels.iter().enumerate() {
            kernel.launch.check(&self.machine).map_err(|cause| ExportError::header(format!("kernel {i}"), cause))?;
        }
        let mut run = Vec::with_capacity(self.launches.len());
        for (i, launch) in self.launches.iter().enumerate() {
            let wrong = |cause: String| ExportError::header(format!("launch {i}"), cause);
            let kernel = self.kernels.get(launch.kernel);
            let kernel = kernel.ok_or_else(|| wrong(format!("there is no kernel {}", launch.kernel)))?;
            let needed = kernel.launch.signature().bytes().unwrap_or_default();
            if needed.len() != launch.args.len() {
                return Err(wrong(format!("{} arguments where {} are needed", launch.args.len(), needed.len())));
            }
            for (&at, &needed) in launch.args.iter().zip(needed) {
                let buffer = buffers.get(at).ok_or_else(|| wrong(format!("there is no buffer {at}")))?;
                let bytes = buffer.len * buffer.dtype.size();
                if bytes < needed {
                    return Err(wrong(format!("buffer {at} has {bytes} bytes where {needed} are needed")));
                }
            }
            run.push(Step { kernel: launch.kernel, args: launch.args.clone() });
        }
        let kernels = self.kernels.iter().map(Kernel::outline).collect::<Result<_, _>>()?;
        let program = Program {
            kernels,
            buffers,
            prepare: Vec::new(),
            run,
            arena_bytes: self.arena_bytes,
            prepared_bytes,
            prepare_arena_bytes: 0,
        };
        let specs = |list: Vec<(ArgSpec, usize)>| list.into_iter().map(|(spec, _)| spec).collect();
        Ok(Sound { program, inputs: specs(inputs), outputs: specs(outputs) })
    }
}

impl Kernel {
    /// Name and role of its code.
    fn outline(&self) -> Result<Code, ExportError> {
        let name = self.launch.signature().name().to_string();
        let role = Role::ALL.into_iter().find(|r| r.name() == self.role).ok_or_else(|| {
            ExportError::header(format!("kernel {name}"), format!("there is no role {:?}", self.role))
        })?;
        Ok(Code {
            name,
            role,
            ints: Ints::default(),
            args: Vec::new(),
            locals: Vec::new(),
            tables: Vec::new(),
            units: Vec::new(),
            regs: Vec::new(),
            body: Vec::new(),
        })
    }
}

/// The hash of a section from those of its parts.
pub(super) fn digest(parts: impl Iterator<Item = blake3::Hash>) -> String {
    let mut hasher = blake3::Hasher::new();
    parts.for_each(|h| {
        hasher.update(h.as_bytes());
    });
    hasher.finalize().to_hex().to_string()
}
