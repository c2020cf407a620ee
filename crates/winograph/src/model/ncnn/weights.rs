//! The numbers of a `.bin` file: those of all layers, one after another, in the order of the layers.

use super::param::Layer;
use crate::error::Result;
use crate::tensor::Tensor;
use half::f16;

/// Before numbers that are half floats.
const F16: u32 = 0x0130_6B47;
/// Before numbers that are bytes with scales of their own.
const I8: u32 = 0x000D_4B38;
/// Before numbers that are floats, as is 0.
const F32: u32 = 0x0002_C056;

/// What a layer reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blob {
    /// What it is, for messages.
    pub(crate) field: &'static str,
    /// Number of elements.
    pub(crate) count: usize,
    /// Whether a tag before it says how its elements are stored; else they are floats.
    pub(crate) tagged: bool,
}

impl Blob {
    /// Floats.
    pub(crate) fn plain(field: &'static str, count: usize) -> Blob {
        Blob { field, count, tagged: false }
    }

    /// Numbers with a tag.
    pub(crate) fn tagged(field: &'static str, count: usize) -> Blob {
        Blob { field, count, tagged: true }
    }
}

/// Reads a file from its start.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// Bytes that have not been read.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, layer: &Layer, blob: &Blob, bytes: Option<usize>) -> Result<&'a [u8]> {
        let found = bytes.and_then(|n| self.bytes.get(self.at..self.at.checked_add(n)?));
        let Some(found) = found else {
            let cause = format!(
                "{} of {} elements goes beyond the end of the .bin file: {} bytes are left",
                blob.field,
                blob.count,
                self.left()
            );
            return Err(layer.wrong(cause).into());
        };
        self.at += found.len();
        Ok(found)
    }

    /// The elements of one blob as a tensor `[count]` of f32.
    pub(crate) fn read(&mut self, layer: &Layer, blob: &Blob) -> Result<Tensor> {
        let tag = match blob.tagged {
            true => u32::from_le_bytes(self.take(layer, blob, Some(4))?.try_into().unwrap_or_default()),
            false => 0,
        };
        let padded = |size: usize| blob.count.checked_mul(size).and_then(|n| n.checked_next_multiple_of(4));
        let floats =
            |bytes: &[u8]| -> Vec<f32> { bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect() };
        let values = match tag {
            0 | F32 => floats(self.take(layer, blob, padded(4))?),
            F16 => {
                let bytes = self.take(layer, blob, padded(2))?;
                let halves = bytes.as_chunks::<2>().0.iter().take(blob.count);
                halves.map(|b| f16::from_le_bytes(*b).to_f32()).collect()
            }
            I8 => return Err(layer.unsupported(format!("{} as 8-bit integers", blob.field)).into()),
            // A table of 256 numbers, and places in it.
            _ if tag.to_le_bytes().iter().any(|&b| b != 0) && tag < 0x0100_0000 => {
                let table = floats(self.take(layer, blob, Some(1024))?);
                let places = self.take(layer, blob, padded(1))?;
                places.iter().take(blob.count).filter_map(|&p| table.get(usize::from(p)).copied()).collect()
            }
            _ => {
                let cause = format!("the tag {tag:#010x} before {}: expected 0 (f32) or {F16:#010x} (f16)", blob.field);
                return Err(layer.wrong(cause).into());
            }
        };
        Tensor::from_slice(&values, &[blob.count])
    }
}
