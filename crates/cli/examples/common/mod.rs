//! Pictures for the examples.

use std::error::Error;
use std::io::Cursor;

/// Width, height, and red, green and blue of each pixel.
pub(crate) fn read(path: &str) -> Result<(usize, usize, Vec<u8>), Box<dyn Error>> {
    let mut decoder = png::Decoder::new(Cursor::new(winograph::files::read(path)?));
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info()?;
    let mut bytes = vec![0; reader.output_buffer_size().ok_or("too large a picture")?];
    let frame = reader.next_frame(&mut bytes)?;
    bytes.truncate(frame.buffer_size());
    let pixels = match frame.color_type.samples() {
        n @ (1 | 2) => bytes.chunks_exact(n).flat_map(|p| [p[0]; 3]).collect(),
        n => bytes.chunks_exact(n).flat_map(|p| [p[0], p[1], p[2]]).collect(),
    };
    Ok((frame.width as usize, frame.height as usize, pixels))
}
