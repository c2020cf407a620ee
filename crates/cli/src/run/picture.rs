//! Pictures: PNG and JPEG files, and what stands for them in tensors.

use crate::error::{Error, Result};
use std::fmt::Display;
use std::io::Cursor;
use std::path::Path;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Most pixels along an edge.
const MAX_EDGE: usize = 1 << 16;

/// Most bytes of a decoded picture.
const MAX_BYTES: usize = 1 << 31;

/// Rows of pixels with 1 (grey) or 3 (red, green, blue) numbers from 0 to 255 each: floats to compute with, bytes to be written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Picture<T = f32> {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) channels: usize,
    pub(crate) values: Vec<T>,
}

/// Whether a file's name is that of a picture.
pub(crate) fn is_picture(path: &Path) -> bool {
    let known = |e: &std::ffi::OsStr| ["png", "jpg", "jpeg"].iter().any(|k| e.eq_ignore_ascii_case(k));
    path.extension().is_some_and(known)
}

fn cannot(path: &Path, cause: impl Display) -> Error {
    Error::failure(format!("cannot read the picture {}", path.display()), cause)
}

/// Keeps the first 1 or 3 of the channels of 8-bit pixels: what follows is transparency.
fn picture(width: usize, height: usize, stored: usize, bytes: &[u8]) -> Result<Picture> {
    let channels = if stored < 3 { 1 } else { 3 };
    let pixels = bytes.chunks_exact(stored.max(1));
    let mut values = numbers(width.saturating_mul(height).saturating_mul(channels))?;
    values.extend(pixels.flat_map(|p| p.iter().take(channels).map(|&v| f32::from(v))));
    Ok(Picture { width, height, channels, values })
}

/// Room for so many numbers of a picture.
pub(super) fn numbers<T>(count: usize) -> Result<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(count)
        .map_err(|e| Error::failure(format!("cannot hold a picture of {count} numbers"), e))?;
    Ok(list)
}

impl Picture {
    /// Reads a PNG or JPEG file; which it is its first bytes tell.
    pub(crate) fn read(path: &Path) -> Result<Picture> {
        let bytes = winograph::files::read(path).map_err(|e| cannot(path, e))?;
        if bytes.starts_with(b"\x89PNG") { Picture::png(path, &bytes) } else { Picture::jpeg(path, bytes) }
    }

    fn png(path: &Path, bytes: &[u8]) -> Result<Picture> {
        let limits = png::Limits { bytes: MAX_BYTES };
        let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
        decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
        let mut reader = decoder.read_info().map_err(|e| cannot(path, e))?;
        let info = reader.info();
        let (width, height) = (info.width as usize, info.height as usize);
        let size = reader.output_buffer_size().filter(|&s| s <= MAX_BYTES && width.max(height) <= MAX_EDGE);
        let size = size.ok_or_else(|| cannot(path, format!("{width} x {height} pixels are too many")))?;
        let mut pixels = numbers(size)?;
        pixels.resize(size, 0);
        let frame = reader.next_frame(&mut pixels).map_err(|e| cannot(path, e))?;
        let stored = reader.output_color_type().0.samples();
        picture(width, height, stored, &pixels[..frame.buffer_size().min(size)])
    }

    fn jpeg(path: &Path, bytes: Vec<u8>) -> Result<Picture> {
        let options = DecoderOptions::default().set_max_width(MAX_EDGE).set_max_height(MAX_EDGE);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
        decoder.decode_headers().map_err(|e| cannot(path, format!("neither PNG nor JPEG that can be read: {e}")))?;
        let grey = matches!(decoder.input_colorspace(), Some(ColorSpace::Luma));
        let wanted = if grey { ColorSpace::Luma } else { ColorSpace::RGB };
        decoder.set_options(options.jpeg_set_out_colorspace(wanted));
        let pixels = decoder.decode().map_err(|e| cannot(path, e))?;
        let info = decoder.info().ok_or_else(|| cannot(path, "no size"))?;
        let (width, height) = (usize::from(info.width), usize::from(info.height));
        let channels = if grey { 1 } else { 3 };
        if pixels.len() != width * height * channels {
            return Err(cannot(path, "another number of pixels than its header says"));
        }
        picture(width, height, channels, &pixels)
    }

    /// As grey (ITU-R BT.601's weights) or colour.
    pub(crate) fn with_channels(self, channels: usize) -> Result<Picture> {
        let mut values = numbers(self.width * self.height * channels)?;
        match (self.channels, channels) {
            (3, 1) => values.extend(self.values.chunks_exact(3).map(|p| 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2])),
            (1, 3) => values.extend(self.values.iter().flat_map(|&v| [v; 3])),
            _ => return Ok(self),
        }
        Ok(Picture { channels, values, ..self })
    }

    /// Scaled by a triangle filter as wide as the larger of both distances of pixels: linear interpolation upwards,
    /// averages downwards.
    pub(crate) fn scaled(self, width: usize, height: usize) -> Result<Picture> {
        if (width, height) == (self.width, self.height) {
            return Ok(self);
        }
        if width.max(height) > MAX_EDGE {
            let most = format!("expected at most {MAX_EDGE} along an edge");
            return Err(Error::failure(format!("cannot scale a picture to {width} x {height} pixels"), most));
        }
        // First along rows, then along columns of what that gives.
        let wide = resample(&self.values, self.width, width, self.channels)?;
        let values = resample(&wide, self.height, height, width * self.channels)?;
        Ok(Picture { width, height, channels: self.channels, values })
    }
}

impl Picture<u8> {
    /// The bytes of a PNG file of it.
    pub(crate) fn to_png(&self) -> Result<Vec<u8>> {
        let wrong = |cause: String| Error::failure("cannot write a picture", cause);
        let side = |s: usize| u32::try_from(s).map_err(|e| wrong(e.to_string()));
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, side(self.width)?, side(self.height)?);
        encoder.set_color(if self.channels == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb });
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(|e| wrong(e.to_string()))?;
        writer.write_image_data(&self.values).map_err(|e| wrong(e.to_string()))?;
        drop(writer);
        Ok(out)
    }
}

/// Resamples an axis of `size` elements, each `inner` numbers that belong together.
fn resample(values: &[f32], size: usize, out: usize, inner: usize) -> Result<Vec<f32>> {
    let ratio = size as f32 / out as f32;
    let reach = ratio.max(1.0);
    let taps: Vec<Vec<(usize, f32)>> = (0..out)
        .map(|i| {
            let at = (i as f32 + 0.5) * ratio - 0.5;
            let (first, last) = ((at - reach).ceil().max(0.0) as usize, (at + reach).floor().max(0.0) as usize);
            let weight = |j: usize| (j, (1.0 - (j as f32 - at).abs() / reach).max(0.0));
            let mut taps: Vec<(usize, f32)> = (first..=last.min(size - 1)).map(weight).collect();
            let total: f32 = taps.iter().map(|t| t.1).sum();
            taps.iter_mut().for_each(|t| t.1 /= total);
            taps
        })
        .collect();
    let mut result = numbers((values.len() / size.max(1)).saturating_mul(out))?;
    for block in values.chunks_exact(size * inner) {
        for taps in &taps {
            for k in 0..inner {
                result.push(taps.iter().map(|&(j, w)| w * block[j * inner + k]).sum());
            }
        }
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(width: usize, height: usize) -> Picture {
        let value = |i: usize| [(i % width) as f32, (i / width) as f32, 7.0];
        Picture { width, height, channels: 3, values: (0..width * height).flat_map(value).collect() }
    }

    #[test]
    fn a_png_comes_back_as_it_was() {
        let dir = std::env::temp_dir().join(format!("winograph-picture-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for p in [ramp(5, 4), ramp(3, 7).with_channels(1).unwrap()] {
            let path = dir.join("p.png");
            let values = p.values.iter().map(|&v| v as u8).collect();
            let png = Picture { width: p.width, height: p.height, channels: p.channels, values }.to_png().unwrap();
            std::fs::write(&path, &png).unwrap();
            let read = Picture::read(&path).unwrap();
            assert_eq!((read.width, read.height, read.channels), (p.width, p.height, p.channels));
            assert!(read.values.iter().zip(&p.values).all(|(a, b)| (a - b).abs() < 1.0));
            for cut in [0, 10, 40] {
                std::fs::write(&path, &png[..cut]).unwrap();
                assert!(Picture::read(&path).is_err());
            }
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn scaling_keeps_constants_and_means() {
        let p = ramp(8, 6).scaled(4, 3).unwrap();
        assert_eq!((p.width, p.height, p.values.len()), (4, 3, 36));
        assert!(p.values.chunks_exact(3).all(|v| (v[2] - 7.0).abs() < 1e-5));
        // The inner columns of a ramp lie half-way between those that they replace.
        assert!((p.values[3] - 2.5).abs() < 1e-5 && (p.values[6] - 4.5).abs() < 1e-5, "{:?}", p.values);
        let up = ramp(4, 4).scaled(8, 8).unwrap();
        assert!((up.values[3 * 3] - 1.25).abs() < 1e-5, "{:?}", &up.values[..24]);
        assert!(ramp(3, 3).scaled(1 << 40, 3).is_err());
        assert_eq!(ramp(3, 3).scaled(3, 3).unwrap(), ramp(3, 3));
    }
}
