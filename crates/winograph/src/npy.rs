//! NumPy's `.npy` files: format versions 1 to 3, row- and column-major order, either byte order.
//!
//! The format is NumPy's NEP 1, "A simple file format for NumPy arrays".

use crate::error::{Error, Result};
use crate::files::{self, write_atomically};
use crate::tensor::Tensor;
use crate::tensor::shape::check_size;
use crate::tensor::storage::Storage;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use winograph_ir::DType;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// A header holds a dtype, a truth value and a shape; NumPy itself refuses ones beyond 10,000 bytes.
const MAX_HEADER: u32 = 1 << 16;
/// More axes than NumPy has.
const MAX_RANK: usize = 64;

/// What a header says.
struct Header {
    dtype: DType,
    /// Whether elements are in the other byte order than this machine's.
    swapped: bool,
    fortran: bool,
    shape: Vec<usize>,
}

impl Tensor {
    /// Reads the array of a `.npy` file.
    ///
    /// # Errors
    /// A file that cannot be read, is not a `.npy` array, is shorter or longer than its header says, or holds elements of
    /// a type that is none of this library's.
    pub fn load_npy(path: impl AsRef<Path>) -> Result<Tensor> {
        let path = path.as_ref();
        let io = |source| Error::Io { op: "load_npy", path: path.to_path_buf(), source };
        let (file, bytes) = files::open(path).map_err(io)?;
        let mut reader = BufReader::new(file).take(bytes);
        let in_file = |e: Error| match e {
            Error::Npy { cause } => Error::npy(format!("{}: {cause}", path.display())),
            other => other,
        };
        let tensor = Tensor::read_npy(&mut reader).map_err(in_file)?;
        let mut rest = [0u8];
        match reader.read(&mut rest).map_err(io)? {
            0 => Ok(tensor),
            _ => Err(in_file(Error::npy("there are more bytes than the header's shape and dtype account for"))),
        }
    }

    /// Reads an array in `.npy` format from a stream, and nothing beyond it. Never allocates much more than it has
    /// read, whatever the header says.
    ///
    /// # Errors
    /// A stream that cannot be read, is not a `.npy` array, ends before its header says, or holds elements of a type that
    /// is none of this library's.
    pub fn read_npy(reader: &mut impl Read) -> Result<Tensor> {
        let header = read_header(reader)?;
        let size = header.dtype.size();
        let count = check_size("read_npy", header.dtype, &header.shape)?;
        let mut bytes = Vec::new();
        let wanted = count * size;
        read_some(reader, wanted, &mut bytes)?;
        if bytes.len() < wanted {
            return Err(Error::npy(format!(
                "truncated: shape {:?} of {} takes {wanted} bytes, there are {}",
                header.shape,
                header.dtype,
                bytes.len()
            )));
        }
        if header.swapped {
            bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        if header.dtype == DType::Bool {
            bytes.iter_mut().for_each(|b| *b = (*b != 0) as u8);
        }
        let mut data = Storage::from_bytes(&bytes)?;
        if header.fortran && count > 0 {
            from_fortran(&bytes, data.bytes_mut(), &header.shape, size);
        }
        Ok(Tensor::ready(Arc::new(data), header.dtype, header.shape))
    }

    /// Writes the tensor as a `.npy` file, version 1, row-major; computes it if that has not been done. The file is
    /// there as a whole or not at all.
    ///
    /// # Errors
    /// bf16, which NumPy does not have; a file that cannot be written; those of [`realize`](Tensor::realize).
    pub fn save_npy(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let bytes = self.to_npy()?;
        write_atomically(path, &bytes).map_err(|source| Error::Io { op: "save_npy", path: path.to_path_buf(), source })
    }

    /// The tensor in `.npy` format: what [`save_npy`](Tensor::save_npy) writes.
    ///
    /// # Errors
    /// bf16, which NumPy does not have; those of [`realize`](Tensor::realize).
    pub fn to_npy(&self) -> Result<Vec<u8>> {
        let mut bytes = self.npy_header()?;
        self.realize()?;
        bytes.extend_from_slice(self.data("to_npy")?.bytes("to_npy")?);
        Ok(bytes)
    }

    fn npy_header(&self) -> Result<Vec<u8>> {
        let kind = match self.dtype() {
            DType::Bool => "b1",
            DType::U8 => "u1",
            DType::I8 => "i1",
            DType::I32 => "i4",
            DType::I64 => "i8",
            DType::F16 => "f2",
            DType::F32 => "f4",
            DType::F64 => "f8",
            DType::BF16 => {
                return Err(Error::dtype("save_npy", &[DType::BF16], "a dtype that NumPy has").hint("cast it to f32"));
            }
        };
        let order = match self.dtype().size() {
            1 => '|',
            _ if cfg!(target_endian = "big") => '>',
            _ => '<',
        };
        let sizes: String = self.shape().iter().map(|s| format!("{s}, ")).collect();
        // One axis needs its comma, more do not.
        let sizes = if self.rank() == 1 { sizes.trim_end() } else { sizes.trim_end_matches(", ") };
        let mut text = format!("{{'descr': '{order}{kind}', 'fortran_order': False, 'shape': ({sizes}), }}");
        // Data starts at a multiple of 64 bytes; the header ends in a newline.
        let used = MAGIC.len() + 4 + text.len() + 1;
        text.extend(std::iter::repeat_n(' ', used.next_multiple_of(64) - used));
        text.push('\n');
        let length = u16::try_from(text.len())
            .map_err(|_| Error::shape("save_npy", &[self.shape()], "fewer axes: the header holds 65535 bytes"))?;
        let mut out = MAGIC.to_vec();
        out.extend([1, 0]);
        out.extend(length.to_le_bytes());
        out.extend(text.as_bytes());
        Ok(out)
    }
}

/// Appends up to `wanted` bytes; fewer if the stream ends. Memory grows with what is there.
fn read_some(reader: &mut impl Read, wanted: usize, out: &mut Vec<u8>) -> Result<()> {
    match reader.take(wanted as u64).read_to_end(out) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::OutOfMemory => Err(Error::OutOfMemory { bytes: wanted }),
        Err(e) => Err(Error::npy(format!("cannot be read: {e}"))),
    }
}

fn read_exact<const N: usize>(reader: &mut impl Read, what: &str) -> Result<[u8; N]> {
    let mut bytes = Vec::with_capacity(N);
    read_some(reader, N, &mut bytes)?;
    bytes.first_chunk().copied().ok_or_else(|| Error::npy(format!("truncated: it ends within its {what}")))
}

fn read_header(reader: &mut impl Read) -> Result<Header> {
    if read_exact::<6>(reader, "magic string")? != *MAGIC {
        return Err(Error::npy("not a .npy array: it does not start with \\x93NUMPY"));
    }
    let [major, minor] = read_exact(reader, "version")?;
    let length = match major {
        1 => u16::from_le_bytes(read_exact(reader, "header length")?) as u32,
        2 | 3 => u32::from_le_bytes(read_exact(reader, "header length")?),
        _ => return Err(Error::npy(format!("format version {major}.{minor} is not known, only 1 to 3"))),
    };
    if length > MAX_HEADER {
        return Err(Error::npy(format!("the header claims {length} bytes; more than {MAX_HEADER} are not believed")));
    }
    let mut bytes = Vec::new();
    read_some(reader, length as usize, &mut bytes)?;
    if bytes.len() < length as usize {
        return Err(Error::npy("truncated: it ends within its header"));
    }
    // Versions 1 and 2 are Latin-1, but nothing outside of ASCII has a meaning in any version.
    let text = String::from_utf8_lossy(&bytes);
    let mut parser = Parser { rest: &text };
    parser.header().map_err(|cause| Error::npy(format!("malformed header: {cause}")))
}

/// Reads the Python literal of a header: a dictionary with strings, truth values and a tuple of integers.
struct Parser<'a> {
    rest: &'a str,
}

type Parsed<T> = std::result::Result<T, String>;

impl<'a> Parser<'a> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn accept(&mut self, text: &str) -> bool {
        self.skip();
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, text: &str) -> Parsed<()> {
        if self.accept(text) { Ok(()) } else { Err(format!("expected `{text}` at `{}`", self.here())) }
    }

    /// The beginning of what is left, for messages.
    fn here(&self) -> String {
        self.rest.chars().take(20).collect()
    }

    fn string(&mut self) -> Parsed<&'a str> {
        let quote = if self.accept("'") {
            '\''
        } else if self.accept("\"") {
            '"'
        } else {
            return Err(format!("expected a string at `{}`", self.here()));
        };
        let (text, rest) = self.rest.split_once(quote).ok_or("a string does not end")?;
        self.rest = rest;
        Ok(text)
    }

    fn truth(&mut self) -> Parsed<bool> {
        if self.accept("True") {
            Ok(true)
        } else if self.accept("False") {
            Ok(false)
        } else {
            Err(format!("expected True or False at `{}`", self.here()))
        }
    }

    fn size(&mut self) -> Parsed<usize> {
        self.skip();
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        let size = digits.parse().map_err(|_| format!("expected a size of at least 0 at `{}`", self.here()))?;
        // Python 2 wrote long integers with an L.
        self.rest = rest.strip_prefix('L').unwrap_or(rest);
        Ok(size)
    }

    fn shape(&mut self) -> Parsed<Vec<usize>> {
        self.expect("(")?;
        let mut out = Vec::new();
        while !self.accept(")") {
            out.push(self.size()?);
            if out.len() > MAX_RANK {
                return Err(format!("more than {MAX_RANK} axes"));
            }
            if !self.accept(",") {
                self.expect(")")?;
                if out.len() == 1 {
                    return Err("the shape is a number in parentheses, not a tuple".into());
                }
                break;
            }
        }
        Ok(out)
    }

    fn header(&mut self) -> Parsed<Header> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.expect("{")?;
        while !self.accept("}") {
            let key = self.string()?;
            self.expect(":")?;
            let again = match key {
                "descr" => descr.replace(self.string()?).is_some(),
                "fortran_order" => fortran.replace(self.truth()?).is_some(),
                "shape" => shape.replace(self.shape()?).is_some(),
                _ => return Err(format!("the key `{key}` is not known")),
            };
            if again {
                return Err(format!("the key `{key}` occurs twice"));
            }
            if !self.accept(",") {
                self.expect("}")?;
                break;
            }
        }
        self.skip();
        if !self.rest.is_empty() {
            return Err(format!("there is more after it: `{}`", self.here()));
        }
        let (dtype, swapped) = dtype(descr.ok_or("the key `descr` is missing")?)?;
        Ok(Header {
            dtype,
            swapped,
            fortran: fortran.ok_or("the key `fortran_order` is missing")?,
            shape: shape.ok_or("the key `shape` is missing")?,
        })
    }
}

/// The dtype that a description such as `<f4` names, and whether its bytes are in the other order.
fn dtype(descr: &str) -> Parsed<(DType, bool)> {
    let unknown = || format!("elements of type `{descr}` are not supported, only b1, i1, u1, i4, i8, f2, f4 and f8");
    let order = descr.chars().next().ok_or_else(unknown)?;
    let (order, kind) = match order {
        '<' | '>' | '=' | '|' => (order, &descr[1..]),
        _ => ('=', descr),
    };
    let dtype = match kind {
        "b1" | "?" => DType::Bool,
        "u1" => DType::U8,
        "i1" => DType::I8,
        "i4" => DType::I32,
        "i8" => DType::I64,
        "f2" => DType::F16,
        "f4" => DType::F32,
        "f8" => DType::F64,
        _ => return Err(unknown()),
    };
    if dtype.size() > 1 && order == '|' {
        return Err(format!("`{descr}` lacks a byte order"));
    }
    let other = if cfg!(target_endian = "big") { '<' } else { '>' };
    Ok((dtype, order == other))
}

/// Copies elements of `size` bytes from column-major to row-major order.
fn from_fortran(from: &[u8], to: &mut [u8], shape: &[usize], size: usize) {
    let mut stride = vec![1; shape.len()];
    for i in 1..shape.len() {
        stride[i] = stride[i - 1] * shape[i - 1];
    }
    let mut index = vec![0usize; shape.len()];
    let mut at = 0;
    for out in to.chunks_exact_mut(size) {
        out.copy_from_slice(&from[at * size..(at + 1) * size]);
        for a in (0..shape.len()).rev() {
            index[a] += 1;
            at += stride[a];
            if index[a] < shape[a] {
                break;
            }
            at -= stride[a] * shape[a];
            index[a] = 0;
        }
    }
}
