//! What the header of an exported file says.

use super::ExportError;
use crate::function::ArgSpec;
use crate::image::Platform;
use crate::memory::may_fit;
use crate::model::Tiling;
use crate::outline::{Buffer, Kernel, Launch, Outline, Room};
use crate::tensor::shape::check_size;
use crate::work::Work;
use serde::{Deserialize, Serialize};
use winograph_compiler::program::Program;
use winograph_ir::DType;

/// What a file begins with. The byte beyond ASCII and the newline are changed by transfers that take it for text.
pub(super) const MAGIC: &[u8; 8] = b"\x89WGRAPH\n";

/// Bytes before the header.
pub(super) const PREAMBLE: usize = 48;

/// Bytes of a header at most: of a program of a million launches it has fewer.
pub(super) const MAX_HEADER: u32 = 256 << 20;

/// Sections of so many bytes and more begin at a multiple of [`PAGE`].
pub(super) const MAPPED: u64 = 8 << 20;

/// A multiple of the pages of every system.
const PAGE: u64 = 64 << 10;

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
    /// How a picture is run in tiles of the input's size, for each place of rows and columns where that can be done.
    pub(super) tilings: Vec<Tiling>,
    pub(super) inputs: Vec<Named>,
    pub(super) outputs: Vec<Named>,
    pub(super) kernels: Vec<Kernel>,
    pub(super) buffers: Vec<Buffer>,
    pub(super) launches: Vec<Launch>,
    /// What is told of each launch.
    pub(super) works: Vec<Work>,
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
pub(super) struct Section {
    pub(super) bytes: u64,
    /// In hexadecimal digits.
    pub(super) hash: String,
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

    /// Where each section is in the file, whose sections begin at `start`, and where the file ends. Those of `mapped` bytes
    /// and more begin where they can be mapped.
    pub(super) fn places(&self, start: u64, mapped: u64) -> Result<(Vec<u64>, u64), ExportError> {
        let mut end = Some(start);
        let place = |s: &Section| {
            let at = end.and_then(|end| place(end, s.bytes, mapped));
            end = at.and_then(|at| at.checked_add(s.bytes));
            at
        };
        let places: Option<Vec<u64>> = self.sections.iter().map(place).collect();
        places.zip(end).ok_or_else(|| ExportError::header("sections", "their sizes overflow"))
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
        let bytes = |list: &[(ArgSpec, usize)]| list.iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>();
        let room = Room {
            inputs: &bytes(&inputs),
            outputs: &bytes(&outputs),
            constant: &|n| n.checked_add(FIXED_SECTIONS).and_then(|at| self.bytes_of(at)),
            prepared: self.bytes_of(1).unwrap_or(0),
            arenas: [0, self.arena_bytes],
        };
        let kernels = self.kernels.iter().collect();
        let outline = Outline { kernels, buffers: &self.buffers, prepare: &[], run: &self.launches };
        let program = outline.check(&self.machine, &room).map_err(|(part, cause)| ExportError::header(part, cause))?;
        self.check_works(&program)?;
        self.check_tilings()?;
        let specs = |list: Vec<(ArgSpec, usize)>| list.into_iter().map(|(spec, _)| spec).collect();
        Ok(Sound { program, inputs: specs(inputs), outputs: specs(outputs) })
    }
}

impl Header {
    /// Whether what it says of tiles can be.
    fn check_tilings(&self) -> Result<(), ExportError> {
        let sound = |t: &Tiling| match (&self.inputs[..], &self.outputs[..]) {
            ([input], [output]) => t.is_sound(&input.shape, &output.shape),
            _ => false,
        };
        match self.tilings.iter().position(|t| !sound(t)) {
            Some(n) => Err(ExportError::header(format!("tiling {n}"), "no result can depend on a picture like that")),
            None => Ok(()),
        }
    }

    /// Whether it tells of each launch what that can do.
    fn check_works(&self, program: &Program) -> Result<(), ExportError> {
        let (told, launches) = (self.works.len(), program.run.len());
        if told != launches {
            return Err(ExportError::header("works", format!("{told} where there are {launches} launches")));
        }
        for (i, (work, step)) in self.works.iter().zip(&program.run).enumerate() {
            work.check(step, &program.buffers).map_err(|cause| ExportError::header(format!("work {i}"), cause))?;
        }
        Ok(())
    }
}

/// Where a section of so many bytes is that comes after `end`: one of `mapped` and more where memory can be mapped to it.
pub(super) fn place(end: u64, bytes: u64, mapped: u64) -> Option<u64> {
    match bytes >= mapped {
        true => end.checked_next_multiple_of(PAGE),
        false => Some(end),
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
