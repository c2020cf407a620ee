//! Files of named tensors in the safetensors format: a header of JSON with dtypes, shapes and places, then the elements.
//!
//! ```
//! use winograph::{Tensor, safetensors::SafeTensors};
//! let w = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0], &[2, 2])?;
//! let file = SafeTensors::new(vec![("layer.weight".into(), w)])?.to_bytes()?;
//! let read = SafeTensors::from_bytes(&file)?;
//! assert_eq!(read.get("layer.weight").map(|t| t.shape()), Some(&[2, 2][..]));
//! # Ok::<(), winograph::Error>(())
//! ```
//!
//! The format is Hugging Face's; its description is the README of <https://github.com/huggingface/safetensors>. All that
//! it asks for is checked: places that follow each other without holes or overlaps and end where the file ends, sizes that
//! agree with dtypes and shapes, names that occur once. Nothing is allocated before it is known that the file has as many
//! bytes.

use crate::error::{Error, Result};
use crate::files::{self, replace};
use crate::tensor::Tensor;
use crate::tensor::shape::check_size;
use crate::tensor::storage::Storage;
use serde::de::{Deserializer as _, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;
use winograph_ir::DType;

/// Bytes of a header at most, as in the format's own implementation.
const MAX_HEADER: u64 = 100_000_000;

/// Most axes of a tensor.
const MAX_RANK: usize = 64;

/// The key of what is no tensor.
const METADATA: &str = "__metadata__";

/// Named tensors, with notes.
#[derive(Clone, Debug, Default)]
pub struct SafeTensors {
    tensors: BTreeMap<String, Tensor>,
    metadata: BTreeMap<String, String>,
}

/// What a header says of a tensor.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

/// What a header says.
#[derive(Default)]
struct Header {
    entries: Vec<(String, Entry)>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Visitor<'de> for Header {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a key for each tensor")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> std::result::Result<Header, A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!("{key:?} is there twice")));
            }
            match key.as_str() {
                METADATA => self.metadata = map.next_value()?,
                _ => self.entries.push((key, map.next_value()?)),
            }
        }
        Ok(self)
    }
}

fn wrong(cause: impl Into<String>) -> Error {
    Error::Safetensors { cause: cause.into() }
}

/// The name of a dtype in the format.
fn name(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "BOOL",
        DType::U8 => "U8",
        DType::I8 => "I8",
        DType::I32 => "I32",
        DType::I64 => "I64",
        DType::F16 => "F16",
        DType::BF16 => "BF16",
        DType::F32 => "F32",
        DType::F64 => "F64",
    }
}

impl SafeTensors {
    /// Tensors with their names.
    ///
    /// # Errors
    /// A name that is there twice, or that the format keeps for itself.
    pub fn new(tensors: Vec<(String, Tensor)>) -> Result<SafeTensors> {
        let mut out = SafeTensors::default();
        for (name, tensor) in tensors {
            if name == METADATA {
                return Err(wrong(format!("a tensor cannot have the name {METADATA:?}: expected any other")));
            }
            if out.tensors.contains_key(&name) {
                return Err(wrong(format!("two tensors have the name {name:?}: expected each name once")));
            }
            out.tensors.insert(name, tensor);
        }
        Ok(out)
    }

    /// The same with notes, by key.
    pub fn with_metadata(mut self, metadata: BTreeMap<String, String>) -> SafeTensors {
        self.metadata = metadata;
        self
    }

    /// The tensor of a name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Names and tensors, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, t)| (name.as_str(), t))
    }

    /// Notes, by key.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read, is not in the format, is shorter or longer than its header says, or has elements of a
    /// type that is none of this library's.
    pub fn load(path: impl AsRef<Path>) -> Result<SafeTensors> {
        let path = path.as_ref();
        let io = |source| Error::Io { op: "safetensors", path: path.to_path_buf(), source };
        let (file, bytes) = files::open(path).map_err(io)?;
        read(&mut BufReader::new(file), bytes).map_err(|e| match e {
            Error::Safetensors { cause } => wrong(format!("{}: {cause}", path.display())),
            other => other,
        })
    }

    /// Reads what is in memory.
    ///
    /// # Errors
    /// Those of [`load`](SafeTensors::load).
    pub fn from_bytes(bytes: &[u8]) -> Result<SafeTensors> {
        read(&mut &bytes[..], bytes.len() as u64)
    }

    /// Writes a file, which is whole or is not there; computes tensors where that has not been done.
    ///
    /// # Errors
    /// A file that cannot be written, and those of [`realize`](Tensor::realize).
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let (header, data) = self.parts()?;
        let written = replace(path, |out| {
            out.write_all(&header)?;
            data.iter().try_for_each(|d| out.write_all(d.fetched().map_err(std::io::Error::other)?))
        });
        written.map_err(|source| Error::Io { op: "safetensors", path: path.to_path_buf(), source })
    }

    /// The bytes that [`save`](SafeTensors::save) writes.
    ///
    /// # Errors
    /// Those of [`realize`](Tensor::realize).
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let (mut out, data) = self.parts()?;
        for d in &data {
            out.extend_from_slice(d.bytes("safetensors")?);
        }
        Ok(out)
    }

    /// The header with its length, and the elements in the order in which they are written: wide elements first, so that
    /// all are aligned.
    fn parts(&self) -> Result<(Vec<u8>, Vec<Arc<Storage>>)> {
        if cfg!(target_endian = "big") {
            return Err(wrong("files are written on machines with little-endian numbers alone"));
        }
        Tensor::realize_all(&self.tensors.values().collect::<Vec<_>>())?;
        let mut order: Vec<(&str, &Tensor)> = self.tensors().collect();
        order.sort_by_key(|(_, t)| std::cmp::Reverse(t.dtype().size()));
        let (mut header, mut data, mut at) = (BTreeMap::new(), Vec::with_capacity(order.len()), 0u64);
        for (key, t) in order {
            let storage = t.data("safetensors")?;
            let end = at + storage.bytes("safetensors")?.len() as u64;
            header.insert(
                key,
                Entry { dtype: name(t.dtype()).into(), shape: t.shape().to_vec(), data_offsets: [at, end] },
            );
            (at, _) = (end, data.push(storage));
        }
        let json = |e: serde_json::Error| wrong(format!("the header cannot be written: {e}"));
        let mut text = serde_json::to_string(&header).map_err(json)?;
        if !self.metadata.is_empty() {
            let notes = serde_json::to_string(&self.metadata).map_err(json)?;
            let comma = if header.is_empty() { "" } else { "," };
            text.insert_str(1, &format!("\"{METADATA}\":{notes}{comma}"));
        }
        text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
        let mut out = (text.len() as u64).to_le_bytes().to_vec();
        out.extend(text.into_bytes());
        Ok((out, data))
    }
}

/// Reads a file of so many bytes.
fn read(from: &mut impl Read, bytes: u64) -> Result<SafeTensors> {
    let mut fill = |to: &mut [u8]| from.read_exact(to).map_err(|e| wrong(format!("it cannot be read: {e}")));
    let mut length = [0; 8];
    if bytes < 8 {
        return Err(wrong("truncated: it ends within the length of its header"));
    }
    fill(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        return Err(wrong(format!(
            "not a safetensors file: its header would have {length} bytes, and more than {MAX_HEADER} are not believed"
        )));
    }
    let Some(rest) = (bytes - 8).checked_sub(length) else {
        return Err(wrong(format!("truncated: its header has {length} bytes, and {} are there", bytes - 8)));
    };
    let mut text = vec![0; usize::try_from(length).unwrap_or(0)];
    fill(&mut text)?;
    let mut json = serde_json::Deserializer::from_slice(&text);
    let header = json.deserialize_map(Header::default()).and_then(|h| json.end().map(|()| h));
    let Header { mut entries, metadata } = header.map_err(|e| wrong(format!("its header is wrong: {e}")))?;
    entries.sort_by_key(|(_, e)| e.data_offsets);
    let (mut at, mut tensors) = (0, BTreeMap::new());
    for (key, entry) in entries {
        let wrong = |cause: String| wrong(format!("tensor {key:?}: {cause}"));
        let dtype = DType::ALL.into_iter().find(|&d| name(d) == entry.dtype).ok_or_else(|| {
            let known: Vec<&str> = DType::ALL.into_iter().map(name).collect();
            wrong(format!("elements of type {:?} are not supported, only {}", entry.dtype, known.join(", ")))
        })?;
        if entry.shape.len() > MAX_RANK {
            return Err(wrong(format!("{} axes: expected at most {MAX_RANK}", entry.shape.len())));
        }
        let count = check_size("safetensors", dtype, &entry.shape).map_err(|e| wrong(e.to_string()))?;
        let [begin, end] = entry.data_offsets;
        let size = (count * dtype.size()) as u64;
        if begin != at {
            return Err(wrong(format!("it begins at byte {begin}: expected {at}, where the one before it ends")));
        }
        if end.checked_sub(begin) != Some(size) {
            let shape = &entry.shape;
            return Err(wrong(format!("it ends at byte {end}: expected {size} bytes for shape {shape:?} of {dtype}")));
        }
        if end > rest {
            return Err(wrong(format!("truncated: it ends at byte {end} of {rest}")));
        }
        let mut data = Storage::zeroed(count * dtype.size())?;
        fill(data.bytes_mut())?;
        if dtype == DType::Bool {
            data.bytes_mut().iter_mut().for_each(|b| *b = (*b != 0) as u8);
        }
        if cfg!(target_endian = "big") {
            data.bytes_mut().chunks_exact_mut(dtype.size()).for_each(<[u8]>::reverse);
        }
        tensors.insert(key, Tensor::ready(Arc::new(data), dtype, entry.shape));
        at = end;
    }
    if at != rest {
        return Err(wrong(format!("its tensors have {at} bytes: expected as many as follow the header, {rest}")));
    }
    Ok(SafeTensors { tensors, metadata })
}
