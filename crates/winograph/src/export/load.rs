//! Reading an exported file.

use super::format::{FIXED_SECTIONS, Header, MAGIC, MAPPED, MAX_HEADER, Named, PREAMBLE, Section, Sound, digest};
use super::{ExportError, FORMAT};
#[cfg(target_os = "linux")]
use crate::cpu::buffer::Buffer;
use crate::device::{Device, Memory, host_bytes};
use crate::error::Result;
use crate::execute::{Compiled, Ready};
use crate::files::{self, PART, in_parts};
use crate::function::{ArgSpec, Function};
use crate::image::{Image, Platform};
use crate::memory::may_fit;
use crate::model::{PictureAxes, Tiling};
use crate::work::Work;
use crate::workspace::Constant;
use serde::Serialize;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use winograph_compiler::Step;

/// An exported file whose header has been read and checked. Nothing of it has been run. On Linux it must stay as it is until functions
/// that are loaded from it are dropped: see [`export`](crate::export).
#[derive(Debug)]
pub struct Exported {
    name: String,
    source: Source,
    header: Header,
    sound: Sound,
    /// Where the sections begin, one by one.
    places: Vec<u64>,
    /// Bytes of the file.
    length: u64,
    /// Sections of so many bytes and more are mapped, where the system maps files.
    mapped: u64,
}

/// What is told of a launch of an exported program.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ExportedLaunch {
    /// The kernel's name.
    pub kernel: String,
    /// Multiplications and additions of its sums; other operations are not counted.
    pub flops: u64,
    /// Loops and sums of its nests: `[64 x 56 x 56] sum [64 x 3 x 3]`.
    pub work: String,
    /// `direct`, or `winograd` with its tile; `None` where no product is summed.
    pub algorithm: Option<String>,
    /// Worst-case amplification of rounding errors relative to the direct sum, where it became Winograd.
    pub amplification: Option<f64>,
    /// The model's nodes that it computes, or parts of which.
    pub nodes: Vec<String>,
}

/// Where the bytes are.
#[derive(Debug)]
enum Source {
    #[cfg(unix)]
    File(File),
    Bytes(Vec<u8>),
}

impl Source {
    fn open(path: &Path) -> io::Result<Source> {
        #[cfg(unix)]
        return files::open(path).map(|(file, _)| Source::File(file));
        #[cfg(not(unix))]
        return files::read(path).map(Source::Bytes);
    }

    fn len(&self) -> io::Result<u64> {
        match self {
            #[cfg(unix)]
            Source::File(file) => file.metadata().map(|m| m.len()),
            Source::Bytes(bytes) => Ok(bytes.len() as u64),
        }
    }

    /// A part of a file as memory of the host, where the system maps files.
    fn map(&self, at: u64, bytes: usize) -> Option<Box<dyn Memory>> {
        match self {
            #[cfg(target_os = "linux")]
            Source::File(file) => Some(Box::new(Buffer::of_file(file, at, bytes)?)),
            _ => None,
        }
    }

    fn read(&self, at: u64, to: &mut [u8]) -> io::Result<()> {
        match self {
            #[cfg(unix)]
            Source::File(file) => std::os::unix::fs::FileExt::read_exact_at(file, to, at),
            Source::Bytes(bytes) => {
                let from = usize::try_from(at).ok().and_then(|at| bytes.get(at..)?.get(..to.len()));
                to.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}

impl Exported {
    /// Reads and checks the header of a file.
    ///
    /// # Errors
    /// A file that cannot be read, is no exported file, has another format, is truncated, or whose header is damaged or
    /// wrong.
    pub fn open(path: impl AsRef<Path>) -> Result<Exported> {
        Exported::open_mapping(path, MAPPED)
    }

    /// As [`open`](Exported::open), of a file whose sections of `mapped` bytes and more lie where they are mapped: tests map
    /// small ones.
    #[doc(hidden)]
    pub fn open_mapping(path: impl AsRef<Path>, mapped: u64) -> Result<Exported> {
        let name = path.as_ref().display().to_string();
        let opened = Source::open(path.as_ref()).map_err(|source| ExportError::Io { action: "read", source });
        opened.and_then(|source| Exported::new(name.clone(), source, mapped)).map_err(|e| e.of(&name))
    }

    /// As [`open`](Exported::open), of bytes in memory.
    ///
    /// # Errors
    /// Those of [`open`](Exported::open).
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Exported> {
        let name = "exported program".to_string();
        Exported::new(name.clone(), Source::Bytes(bytes), MAPPED).map_err(|e| e.of(&name))
    }

    fn new(name: String, source: Source, mapped: u64) -> Result<Exported, ExportError> {
        let io = |source| ExportError::Io { action: "read", source };
        let found = source.len().map_err(io)?;
        let mut preamble = [0; PREAMBLE];
        let there = found.min(PREAMBLE as u64) as usize;
        source.read(0, preamble.get_mut(..there).unwrap_or_default()).map_err(io)?;
        let (magic, rest) = preamble.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(ExportError::NotExported);
        }
        if there < PREAMBLE {
            return Err(ExportError::Length { found, expected: PREAMBLE as u64 });
        }
        let (numbers, hash) = rest.split_at(8);
        let number = |at: usize| numbers.get(at..).and_then(|n| n.first_chunk()).map_or(0, |n| u32::from_le_bytes(*n));
        let (format, length) = (number(0), number(4));
        if format != FORMAT {
            return Err(ExportError::Format { found: format });
        }
        let start = PREAMBLE as u64 + u64::from(length);
        if found < start {
            return Err(ExportError::Length { found, expected: start });
        }
        if length > MAX_HEADER {
            return Err(ExportError::header(
                "length",
                format!("{length} bytes; more than {MAX_HEADER} are not believed"),
            ));
        }
        let mut text = zeros(u64::from(length))?;
        source.read(PREAMBLE as u64, &mut text).map_err(io)?;
        if blake3::hash(&text).as_bytes() != hash {
            return Err(ExportError::Altered { part: "its header".into() });
        }
        let header = Header::parse(&text)?;
        let sound = header.check()?;
        let (places, expected) = header.places(start, mapped)?;
        if found != expected {
            return Err(ExportError::Length { found, expected });
        }
        let exported = Exported { name, source, header, sound, places, length: expected, mapped };
        exported.check_padding(start)?;
        Ok(exported)
    }

    /// The machines it runs on.
    pub fn machine(&self) -> &Platform {
        &self.header.machine
    }

    /// The version of this crate that wrote it.
    pub fn version(&self) -> &str {
        &self.header.version
    }

    /// Names, dtypes and shapes of its inputs.
    pub fn inputs(&self) -> Vec<(String, ArgSpec)> {
        named(&self.header.inputs, &self.sound.inputs)
    }

    /// Names, dtypes and shapes of its outputs.
    pub fn outputs(&self) -> Vec<(String, ArgSpec)> {
        named(&self.header.outputs, &self.sound.outputs)
    }

    /// Notes of the model's maker, by key.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.header.metadata
    }

    /// Operators of the model it was made from, and how often each occurs.
    pub fn operators(&self) -> &[(String, usize)] {
        &self.header.operators
    }

    /// Number of elements of the weights of the model it was made from.
    pub fn parameters(&self) -> usize {
        self.header.parameters
    }

    /// How its results depend on pictures with these axes, and what its result is.
    pub(crate) fn tiling(&self, input: PictureAxes, output: PictureAxes) -> Option<(&Tiling, &ArgSpec)> {
        let found = self.header.tilings.iter().find(|t| t.is_of(input, output))?;
        Some((found, self.sound.outputs.first()?))
    }

    /// Its launches in order.
    pub fn launches(&self) -> Vec<ExportedLaunch> {
        let launch = |(work, step): (&Work, &Step)| ExportedLaunch {
            kernel: self
                .header
                .kernels
                .get(step.kernel)
                .map(|k| k.launch.signature().name().to_string())
                .unwrap_or_default(),
            flops: work.flops,
            work: work.nests.clone(),
            algorithm: work.algorithm.clone(),
            amplification: work.amplification,
            nodes: work.nodes.clone(),
        };
        self.header.works.iter().zip(&self.sound.program.run).map(launch).collect()
    }

    /// Reads and checks the rest and loads the kernels. This runs code of the file: see [`export`](crate::export).
    ///
    /// # Errors
    /// Another kind of machine or device, damage, no memory, kernels that cannot be loaded.
    pub fn load(&self, device: &Arc<dyn Device>) -> Result<Function> {
        self.ready(device).map_err(|e| e.of(&self.name))
    }

    /// Reads and checks all of it, for the machine that it is for, and loads nothing.
    ///
    /// # Errors
    /// Those of [`load`](Exported::load) but for the last.
    pub fn check(&self, device: &Arc<dyn Device>) -> Result<()> {
        self.read(device).map(drop).map_err(|e| e.of(&self.name))
    }

    fn ready(&self, device: &Arc<dyn Device>) -> Result<Function, ExportError> {
        let Read { library, prepared, constants } = self.read(device)?;
        let kernels = self.header.kernels.iter().map(|k| k.launch.clone()).collect::<Vec<_>>();
        let module = match kernels.is_empty() {
            true => None,
            false => Some(device.import(Image { platform: self.header.machine.clone(), kernels, library })?),
        };
        let constants = constants.into_iter().map(|memory| Some(Constant::Copy(memory))).collect();
        let (program, works) = (self.sound.program.clone(), self.header.works.clone());
        let parts = Ready { program, module, constants, first_constant: 0, prepared, works };
        let compiled = Arc::new(Compiled::ready(parts, device));
        Ok(Function { compiled, args: self.sound.inputs.clone(), outputs: self.sound.outputs.clone() })
    }

    /// The sections, with the machine and their hashes checked.
    fn read(&self, device: &Arc<dyn Device>) -> Result<Read, ExportError> {
        device.accepts(&self.header.machine)?;
        self.check_length()?;
        let mut sections = self.header.sections.iter().zip(&self.places);
        let mut library = zeros(sections.next().map_or(0, |s| s.0.bytes))?;
        let memory = |(s, &at): (&Section, &u64)| match usize::try_from(s.bytes) {
            Ok(bytes) => Ok(match (s.bytes >= self.mapped).then(|| self.source.map(at, bytes)).flatten() {
                Some(mapped) => Held { memory: mapped, mapped: true },
                None => Held { memory: device.allocate(bytes)?, mapped: false },
            }),
            Err(_) => Err(ExportError::OutOfMemory { bytes: s.bytes }),
        };
        let (mut others, mut staged) = (Vec::new(), Vec::new());
        match device.is_host() {
            true => others = sections.map(memory).collect::<Result<Vec<Held>, ExportError>>()?,
            false => staged = sections.map(|s| zeros(s.0.bytes)).collect::<Result<_, _>>()?,
        }
        let mut targets = vec![(&mut library[..], false)];
        targets.extend(others.iter_mut().filter_map(|h| Some((host_bytes(&mut *h.memory)?, h.mapped))));
        targets.extend(staged.iter_mut().map(|bytes: &mut Vec<u8>| (&mut bytes[..], false)));
        self.fill(targets)?;
        self.check_length()?;
        let mut others: Vec<Box<dyn Memory>> = others.into_iter().map(|h| h.memory).collect();
        for bytes in staged {
            others.push(device.upload(&bytes)?);
        }
        let mut others = others.into_iter();
        match others.next() {
            Some(prepared) => Ok(Read { library, prepared, constants: others.collect() }),
            None => Err(ExportError::header("sections", "there is no prepared memory")),
        }
    }

    /// Whether nothing but zeros is between the sections.
    fn check_padding(&self, start: u64) -> Result<(), ExportError> {
        let mut end = start;
        for (section, &at) in self.header.sections.iter().zip(&self.places) {
            let mut gap = zeros(at.saturating_sub(end))?;
            let read = self.source.read(end, &mut gap);
            read.map_err(|source| ExportError::Io { action: "read", source })?;
            if gap.iter().any(|&b| b != 0) {
                return Err(ExportError::Altered { part: "the padding of a section".to_string() });
            }
            end = at.saturating_add(section.bytes);
        }
        Ok(())
    }

    /// Whether the file is as long as it was: one that is cut off meanwhile has pages that end the process when they are read.
    fn check_length(&self) -> Result<(), ExportError> {
        let found = self.source.len().map_err(|source| ExportError::Io { action: "read", source })?;
        match found == self.length {
            true => Ok(()),
            false => Err(ExportError::Length { found, expected: self.length }),
        }
    }

    /// Reads the sections to where they belong, but for those that are mapped there, and checks them, several parts at a time.
    fn fill(&self, targets: Vec<(&mut [u8], bool)>) -> Result<(), ExportError> {
        let mut tasks = Vec::new();
        let mut hashes = Vec::new();
        for (section, ((target, mapped), &place)) in targets.into_iter().zip(&self.places).enumerate() {
            let mut at = place;
            for part in target.chunks_mut(PART) {
                let bytes = part.len() as u64;
                tasks.push((hashes.len(), (!mapped).then_some(at), part));
                hashes.push((section, None));
                at = at.saturating_add(bytes);
            }
        }
        let hashes = Mutex::new(hashes);
        let done = in_parts(tasks, |(number, from, part): (usize, Option<u64>, &mut [u8])| {
            if let Some(at) = from {
                self.source.read(at, part)?;
            }
            let hash = blake3::hash(part);
            if let Some(to) = hashes.lock().unwrap_or_else(PoisonError::into_inner).get_mut(number) {
                to.1 = Some(hash);
            }
            Ok(())
        });
        done.map_err(|source| ExportError::Io { action: "read", source })?;
        let hashes = hashes.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut hashes = hashes.into_iter().peekable();
        for (i, section) in self.header.sections.iter().enumerate() {
            let parts = std::iter::from_fn(|| hashes.next_if(|(of, _)| *of == i)).filter_map(|(_, hash)| hash);
            if digest(parts) != section.hash {
                let part = match i.checked_sub(FIXED_SECTIONS) {
                    Some(constant) => format!("constant {constant}"),
                    None if i == 0 => "the library of its kernels".to_string(),
                    None => "its prepared memory".to_string(),
                };
                return Err(ExportError::Altered { part });
            }
        }
        Ok(())
    }
}

/// Memory for a section.
struct Held {
    memory: Box<dyn Memory>,
    /// Whether the section is there already.
    mapped: bool,
}

/// What the sections hold.
struct Read {
    library: Vec<u8>,
    prepared: Box<dyn Memory>,
    constants: Vec<Box<dyn Memory>>,
}

fn named(list: &[Named], specs: &[ArgSpec]) -> Vec<(String, ArgSpec)> {
    list.iter().map(|n| n.name.clone()).zip(specs.iter().cloned()).collect()
}

/// Bytes for what is known to be in the file.
fn zeros(bytes: u64) -> Result<Vec<u8>, ExportError> {
    let error = || ExportError::OutOfMemory { bytes };
    let len = usize::try_from(bytes).ok().filter(|&n| may_fit(n)).ok_or_else(error)?;
    let mut out = Vec::new();
    out.try_reserve_exact(len).map_err(|_| error())?;
    out.resize(len, 0);
    Ok(out)
}
