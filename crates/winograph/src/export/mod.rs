//! Exported programs: one file with prepared weights and compiled kernels, for machines without a compiler.
//!
//! ```no_run
//! use winograph::{ArgSpec, DType, Function, Tensor, compile, settings::settings};
//! let weight = Tensor::randn(&[64, 64], DType::F32, 1)?;
//! let f = compile(&[ArgSpec::new(DType::F32, &[1, 64])], |a| Ok(vec![a[0].matmul(&weight)?.relu()?]))?;
//! f.export("layer.wg")?;
//!
//! // Elsewhere: nothing is compiled.
//! let f = Function::load("layer.wg", &settings()?.device)?;
//! let y = f.call(&[&Tensor::ones(&[1, 64], DType::F32)?])?;
//! # Ok::<(), winograph::Error>(())
//! ```
//!
//! **Loading such a file is trusting whoever made it**: it holds machine code that runs in this process with all that
//! the process may do. Hashes tell damage and truncation from what was written; they do not say who wrote it. Load files
//! that you have made yourself or have from a source that you would run a program from, and no others. Import
//! ([`Model::load`](crate::Model::load) of a network in another format) runs no code of the file.
//!
//! A file says which machines it runs on. One that was exported on a CPU needs a processor architecture, operating system, byte order, and the extensions of
//! the instruction set that its kernels may use; one that was exported on a GPU (`cuda:0`) needs an NVIDIA GPU of its
//! compute capability and a driver, and no NVRTC. Any other machine refuses it. Kernels made with narrower vectors
//! (`WINOGRAPH_VECTOR_BYTES=32`) run on more machines; those of 16 bytes on x86 without AVX as well, with products and sums rounded apart. It does not depend on the number of threads.
//!
//! What is in it is what a [`Function`] keeps after compiling: the launches, their memory, the bytes of what was
//! prepared and of the constants that calls read, and the kernels: a shared library, or machine code for a GPU. A loaded function is a function like
//! any other. `winograph export` writes such files of models, and [`Model::load`](crate::Model::load) and
//! `winograph run` take them.
//!
//! # Format
//!
//! All numbers are little-endian. Sections of 8 MiB and more begin at multiples of 64 KiB, with zeros before them; there is no other
//! padding.
//!
//! | bytes | |
//! |---|---|
//! | 8 | `\x89WGRAPH\n` |
//! | 4 | version of the format, [`FORMAT`] |
//! | 4 | bytes of the header |
//! | 32 | BLAKE3 of the header |
//! | | the header, JSON: the version of this crate that wrote it, the machine, inputs and outputs with names, dtypes and shapes, kernels, buffers, launches, what profiles tell of each launch, how tiles of a picture depend on it, and bytes and hash of each section |
//! | | the sections one after another: the library, the prepared memory, the constants |
//!
//! The hash of a section is BLAKE3 of the BLAKE3 hashes of its parts of 2²⁰ bytes, so that parts are checked side by side.
//! Everything is checked before anything is used: the header before it is parsed, its sizes against the file's before
//! memory is allocated, its numbers against each other, the machine before a section is read, and all sections before
//! the library is loaded.
//!
//! On Linux such sections are not copied but mapped, so that processes share them and 815 MB in the system's cache are ready in 0.1 s. The file
//! must then stay as it is from opening it on, while functions that were loaded from it live; give a new one another name and rename it, as exporting does, and
//! never write into one that is in use: what is changed there changes results, and a file that is cut off ends the process.

mod format;
mod load;
mod write;

pub use crate::image::{CodeForm, GpuCode, Platform};
pub use load::{Exported, ExportedLaunch};
#[doc(hidden)]
pub use write::seal;
pub(crate) use write::{About, Names, write};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::function::Function;
use std::path::Path;
use std::sync::Arc;

/// Version of the format that this crate writes, and the only one it reads.
pub const FORMAT: u32 = 5;

/// Extension of the names of exported files. [`Model::load`](crate::Model::load) takes a file of another name for
/// something else, so that code is loaded only where it is asked for.
pub const EXTENSION: &str = "wg";

/// Why an exported file cannot be written or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The file cannot be read or written.
    #[error("it cannot be {action}: {source}")]
    Io {
        /// Read or written.
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It is something else.
    #[error("it is not an exported program: it does not begin as `winograph export` writes it")]
    NotExported,
    /// It has another format.
    #[error("it has format {found}, and winograph {} reads format {FORMAT}: export it again", env!("CARGO_PKG_VERSION"))]
    Format {
        /// The format's version.
        found: u32,
    },
    /// It is shorter or longer than its header says.
    #[error("it is truncated or has been added to: it has {found} bytes where there should be {expected}")]
    Length {
        /// Bytes it has.
        found: u64,
        /// Bytes it should have.
        expected: u64,
    },
    /// A part of it does not have its hash.
    #[error("it is damaged: {part} is not what was written")]
    Altered {
        /// The part.
        part: String,
    },
    /// It says something that cannot be.
    #[error("its header is wrong: {part}: {cause}")]
    Header {
        /// The field.
        part: String,
        /// What is wrong.
        cause: String,
    },
    /// It is for another kind of machine, or its kernels cannot be loaded.
    #[error(transparent)]
    Device(#[from] crate::device::DeviceError),
    /// There is not enough memory.
    #[error("there is no memory for its {bytes} bytes")]
    OutOfMemory {
        /// What was asked for.
        bytes: u64,
    },
    /// Something that is not one program with tensors as arguments.
    #[error("it cannot be exported: {cause}")]
    Unsuitable {
        /// Why.
        cause: String,
    },
}

impl ExportError {
    pub(crate) fn header(part: impl Into<String>, cause: impl Into<String>) -> ExportError {
        ExportError::Header { part: part.into(), cause: cause.into() }
    }

    pub(crate) fn of(self, file: &str) -> Error {
        Error::Exported { file: file.to_string(), cause: Box::new(self) }
    }
}

impl Function {
    /// Writes the function to a file that [`load`](Function::load) reads without a compiler; see [`export`](crate::export).
    /// The file is whole or is not there: it takes the place of one of that name when all of it has been written.
    ///
    /// # Errors
    /// A virtual device, a compiler that fails, a file that cannot be written.
    pub fn export(&self, path: impl AsRef<Path>) -> Result<()> {
        let number = |what: &str, n: usize| (0..n).map(|i| format!("{what}{i}")).collect();
        let names = Names { inputs: number("arg", self.args.len()), outputs: number("out", self.outputs.len()) };
        write(path.as_ref(), self, names, About::default())
    }

    /// Reads a function from a file that was [exported](Function::export) or written by `winograph export`. It runs code
    /// of that file: **load only what you would run as a program**; see [`export`](crate::export).
    ///
    /// # Errors
    /// A file that cannot be read, is damaged, is for another kind of machine or another version of the format; no memory.
    pub fn load(path: impl AsRef<Path>, device: &Arc<dyn Device>) -> Result<Function> {
        Exported::open(path)?.load(device)
    }
}
