//! ONNX files piece by piece: the elements of each initializer go straight to where its tensor keeps them, so that a model
//! takes no more memory while it is read than its weights do. All else is small; it is copied and decoded as usual.

use super::proto::{GraphProto, ModelProto, TensorProto};
use crate::tensor::storage::Storage;
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

/// Field numbers of the messages on the way to elements.
const MODEL_GRAPH: u64 = 7;
const GRAPH_INITIALIZER: u64 = 5;
const TENSOR_RAW_DATA: u64 = 9;

/// The wire type of fields that begin with their length.
const WITH_LENGTH: u64 = 2;

/// A file taken apart.
pub(super) struct Parts {
    /// Without the graph.
    pub(super) model: ModelProto,
    /// Without the initializers that are listed beside it; `None` if the file has none.
    pub(super) graph: Option<GraphProto>,
    /// Without `raw_data`, which is beside each.
    pub(super) initializers: Vec<(TensorProto, Option<Storage>)>,
}

/// Why a file cannot be taken apart.
pub(super) enum Cause {
    Io(io::Error),
    Text(String),
}

impl From<io::Error> for Cause {
    fn from(e: io::Error) -> Cause {
        Cause::Io(e)
    }
}

impl From<prost::DecodeError> for Cause {
    fn from(e: prost::DecodeError) -> Cause {
        Cause::Text(e.to_string())
    }
}

/// Elements of so many bytes are read by several threads.
const MANY: usize = 4 << 20;

/// Where a model is read from.
pub(crate) trait Source: BufRead {
    /// The next `len` bytes.
    fn elements(&mut self, len: usize) -> io::Result<Storage>;
}

impl Source for &[u8] {
    fn elements(&mut self, len: usize) -> io::Result<Storage> {
        Storage::read(self, len)
    }
}

impl Source for BufReader<File> {
    fn elements(&mut self, len: usize) -> io::Result<Storage> {
        if len < MANY {
            return Storage::read(self, len);
        }
        let at = self.stream_position()?;
        let elements = Storage::read_at(self.get_ref(), at, len)?;
        self.seek(SeekFrom::Start(at.saturating_add(len as u64)))?;
        Ok(elements)
    }
}

/// Takes a file of `bytes` bytes apart.
pub(super) fn read(from: impl Source, bytes: u64) -> Result<Parts, Cause> {
    let mut file = Stream { from };
    let (mut model, mut graph, mut initializers) = (Vec::new(), None, Vec::new());
    let mut left = bytes;
    while left > 0 {
        let key = file.varint(&mut left)?;
        if key != MODEL_GRAPH << 3 | WITH_LENGTH {
            file.keep(key, &mut left, &mut model)?;
            continue;
        }
        // A graph in pieces is one graph.
        let graph = graph.get_or_insert_with(Vec::new);
        let mut left = file.message(&mut left)?;
        while left > 0 {
            let key = file.varint(&mut left)?;
            match key == GRAPH_INITIALIZER << 3 | WITH_LENGTH {
                true => {
                    let size = file.message(&mut left)?;
                    initializers.push(file.tensor(size)?);
                }
                false => file.keep(key, &mut left, graph)?,
            }
        }
    }
    let graph = graph.map(|g| GraphProto::decode(&g[..])).transpose()?;
    Ok(Parts { model: ModelProto::decode(&model[..])?, graph, initializers })
}

struct Stream<R> {
    from: R,
}

/// `left` is always what is left of the message around.
impl<R: Source> Stream<R> {
    fn varint(&mut self, left: &mut u64) -> Result<u64, Cause> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            *left = left.checked_sub(1).ok_or_else(|| Cause::Text("a number goes beyond its message".into()))?;
            let mut byte = [0];
            self.from.read_exact(&mut byte)?;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                return Ok(value);
            }
        }
        Err(Cause::Text("a number has more than ten bytes".into()))
    }

    /// Begins a message or a list of bytes; gives its size.
    fn message(&mut self, left: &mut u64) -> Result<u64, Cause> {
        let size = self.varint(left)?;
        let beyond = || Cause::Text(format!("a field of {size} bytes where {left} are left of its message"));
        *left = left.checked_sub(size).ok_or_else(beyond)?;
        Ok(size)
    }

    /// Copies a field whose key has been read.
    fn keep(&mut self, key: u64, left: &mut u64, to: &mut Vec<u8>) -> Result<(), Cause> {
        to.reserve(encoded_len_varint(key));
        encode_varint(key, to);
        let count = match key & 7 {
            0 => {
                encode_varint(self.varint(left)?, to);
                return Ok(());
            }
            1 => 8,
            5 => 4,
            WITH_LENGTH => {
                let size = self.message(left)?;
                encode_varint(size, to);
                return self.copy(size, to);
            }
            // Fields without a size: the rest is left to who knows them.
            _ => *left,
        };
        let beyond = || Cause::Text(format!("a field of {count} bytes where {left} are left of its message"));
        *left = left.checked_sub(count).ok_or_else(beyond)?;
        self.copy(count, to)
    }

    fn copy(&mut self, count: u64, to: &mut Vec<u8>) -> Result<(), Cause> {
        let copied = (&mut self.from).take(count).read_to_end(to)?;
        match copied as u64 == count {
            true => Ok(()),
            false => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }

    /// An array of `left` bytes.
    fn tensor(&mut self, mut left: u64) -> Result<(TensorProto, Option<Storage>), Cause> {
        let (mut proto, mut elements) = (Vec::new(), None);
        while left > 0 {
            let key = self.varint(&mut left)?;
            if key != TENSOR_RAW_DATA << 3 | WITH_LENGTH {
                self.keep(key, &mut left, &mut proto)?;
                continue;
            }
            let size = self.message(&mut left)?;
            let size = usize::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
            elements = Some(self.from.elements(size)?);
        }
        Ok((TensorProto::decode(&proto[..])?, elements.filter(|e| e.len() > 0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(unix)]
    use std::os::unix::fs::FileExt as _;

    fn model() -> ModelProto {
        let floats = TensorProto {
            name: "a".into(),
            dims: vec![2],
            data_type: 1,
            float_data: vec![1.0, 2.0],
            ..Default::default()
        };
        let raw = TensorProto {
            name: "b".into(),
            dims: vec![3],
            data_type: 2,
            raw_data: vec![7, 8, 9],
            ..Default::default()
        };
        let graph = GraphProto { initializer: vec![floats, raw], ..Default::default() };
        ModelProto { ir_version: 8, graph: Some(graph), ..Default::default() }
    }

    #[test]
    fn parts_are_what_decoding_the_whole_gives() {
        let model = model();
        let bytes = model.encode_to_vec();
        let parts = read(&bytes[..], bytes.len() as u64).ok().unwrap();
        let mut whole = parts.model;
        let mut graph = parts.graph.unwrap();
        for (mut t, raw) in parts.initializers {
            t.raw_data = raw.map(|r| r.bytes("load").unwrap().to_vec()).unwrap_or_default();
            graph.initializer.push(t);
        }
        whole.graph = Some(graph);
        assert_eq!(whole, model);
    }

    #[cfg(unix)]
    #[test]
    fn what_several_threads_read_is_what_one_reads() {
        let mut model = model();
        let elements = (0..MANY as u32 / 4 * 3 + 5).flat_map(u32::to_le_bytes).collect::<Vec<u8>>();
        let large = TensorProto { name: "c".into(), data_type: 1, raw_data: elements, ..Default::default() };
        let list = &mut model.graph.as_mut().unwrap().initializer;
        list.insert(1, large);
        let bytes = model.encode_to_vec();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let read_from = |size: u64| {
            file.set_len(size).unwrap();
            let mut from = &file;
            from.seek(SeekFrom::Start(0)).unwrap();
            read(BufReader::new(file.try_clone().unwrap()), bytes.len() as u64)
        };
        let parts = read_from(bytes.len() as u64).ok().unwrap();
        let raw = |parts: Parts| {
            let bytes = |(t, raw): (TensorProto, Option<Storage>)| (t, raw.map(|r| r.bytes("load").unwrap().to_vec()));
            parts.initializers.into_iter().map(bytes).collect::<Vec<_>>()
        };
        assert_eq!(raw(parts), raw(read(&bytes[..], bytes.len() as u64).ok().unwrap()));
        assert!(read_from(MANY as u64).is_err(), "the file ends among the elements");
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let bytes = model().encode_to_vec();
        for end in 0..bytes.len() {
            let cut = &bytes[..end];
            // Of the file as it says, and of the file as it is.
            assert!(read(cut, bytes.len() as u64).is_err(), "{end} bytes");
            let parts = read(cut, end as u64).ok();
            assert_eq!(parts.is_some(), ModelProto::decode(cut).is_ok(), "{end} bytes");
        }
    }
}
