//! Writing an exported file.

use super::format::{Header, MAGIC, MAPPED, MAX_HEADER, Named, Section, digest, place};
use super::{ExportError, FORMAT};
use crate::error::Result;
use crate::files::{PART, replace};
use crate::function::{ArgSpec, Function};
use crate::image::Image;
use crate::model::Tiling;
use crate::outline::{At, Buffer, Kernel, Launch};
use crate::work::Work;
use std::borrow::Cow;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

/// Names of a program's arguments and results.
pub(crate) struct Names {
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: Vec<String>,
}

/// What is known of the model a program was made from.
#[derive(Default)]
pub(crate) struct About {
    pub(crate) metadata: Vec<(String, String)>,
    pub(crate) operators: Vec<(String, usize)>,
    pub(crate) parameters: usize,
    pub(crate) tilings: Vec<Tiling>,
}

/// Writes a function to a file that takes the place of what has that name.
pub(crate) fn write(path: &Path, function: &Function, names: Names, about: About) -> Result<()> {
    let in_file = |e: ExportError| e.of(&path.display().to_string());
    let compiled = &function.compiled;
    let codes = compiled.codes().map_err(|cause| in_file(ExportError::Unsuitable { cause: cause.into() }))?;
    let image = compiled.image(codes).map_err(|e| in_file(e.into()))?;
    let works = compiled.works("export")?.into_owned();
    let (prepared, constants) = compiled.memory().map_err(|e| in_file(e.into()))?;
    let slots: Vec<usize> = constants.iter().map(|(slot, _)| *slot).collect();
    let mut sections = vec![Cow::Borrowed(&image.library[..]), Cow::Owned(prepared)];
    sections.extend(constants.into_iter().map(|(_, bytes)| bytes));
    let header = header(function, &image, names, about, works, &slots, &sections);
    let text = serde_json::to_vec(&header)
        .map_err(|e| in_file(ExportError::Unsuitable { cause: format!("sizes are not constants: {e}") }))?;
    let preamble =
        preamble(&text).ok_or_else(|| in_file(ExportError::Unsuitable { cause: "it has too many launches".into() }))?;
    let written = replace(path, |out| {
        out.write_all(&preamble)?;
        out.write_all(&text)?;
        let mut end = (preamble.len() + text.len()) as u64;
        for s in &sections {
            let at = place(end, s.len() as u64, MAPPED).unwrap_or(end);
            io::copy(&mut io::repeat(0).take(at - end), out)?;
            out.write_all(s)?;
            end = at + s.len() as u64;
        }
        Ok(())
    });
    written.map_err(|source| in_file(ExportError::Io { action: "written", source }))
}

/// What comes before a header; `None` where the header is too long.
fn preamble(text: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(text.len()).ok().filter(|&n| n <= MAX_HEADER)?;
    Some([&MAGIC[..], &FORMAT.to_le_bytes(), &length.to_le_bytes(), blake3::hash(text).as_bytes()].concat())
}

/// A file with any header and the hash that belongs to it, then any bytes: what tests show that hashes do not catch.
#[doc(hidden)]
pub fn seal(header: &[u8], sections: &[u8]) -> Vec<u8> {
    [&preamble(header).unwrap_or_default(), header, sections].concat()
}

fn header(
    function: &Function,
    image: &Image,
    names: Names,
    about: About,
    works: Vec<Work>,
    constants: &[usize],
    sections: &[Cow<'_, [u8]>],
) -> Header {
    let program = &function.compiled.outline;
    // Buffers that `prepare` alone used are left out.
    let mut number = vec![None; program.buffers.len()];
    let mut buffers = Vec::new();
    let mut launches = Vec::with_capacity(program.run.len());
    for step in &program.run {
        let mut args = Vec::with_capacity(step.args.len());
        for &at in &step.args {
            let Some(buffer) = program.buffers.get(at) else { continue };
            let new = *number[at].get_or_insert_with(|| {
                let place = match At::from(buffer.place) {
                    // Those that calls do not read are not there any more.
                    At::Constant(n) => At::Constant(constants.binary_search(&n).unwrap_or(n)),
                    other => other,
                };
                buffers.push(Buffer::new(buffer, place));
                buffers.len() - 1
            });
            args.push(new);
        }
        launches.push(Launch::new(step, args));
    }
    let kernels = program.kernels.iter().zip(&image.kernels);
    let named = |names: Vec<String>, specs: &[ArgSpec]| {
        names.into_iter().zip(specs).map(|(name, spec)| Named::new(name, spec)).collect()
    };
    let section = |bytes: &Cow<'_, [u8]>| Section {
        bytes: bytes.len() as u64,
        hash: digest(bytes.chunks(PART).map(blake3::hash)),
    };
    Header {
        version: env!("CARGO_PKG_VERSION").to_string(),
        machine: image.platform.clone(),
        metadata: about.metadata,
        operators: about.operators,
        parameters: about.parameters,
        tilings: about.tilings,
        inputs: named(names.inputs, &function.args),
        outputs: named(names.outputs, &function.outputs),
        kernels: kernels
            .map(|(code, launch)| Kernel { role: code.role.name().to_string(), launch: launch.clone() })
            .collect(),
        buffers,
        launches,
        works,
        arena_bytes: program.arena_bytes,
        sections: sections.iter().map(section).collect(),
    }
}
