//! Makes a photo larger with a super-resolution network, tile by tile.
//!
//!     cargo run --release -p winograph-cli --example super_resolution -- MODEL PHOTO.png BIG.png
//!
//! The model (`.param` of ncnn or `.onnx`) takes and gives red, green and blue planes of numbers from 0 to 1, such as
//! realesr-animevideov3.

mod common;

use common::read;
use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use winograph::model::{Model, PictureAxes};
use winograph::{FunctionOptions, Tensor};

/// Rows and columns of a tile.
const TILE: usize = 256;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, photo, big] = &args[..] else { return Err("expected MODEL PHOTO.png BIG.png".into()) };

    let (width, height, pixels) = read(photo)?;
    let planes: Vec<f32> =
        (0..3).flat_map(|c| pixels.iter().skip(c).step_by(3).map(|&p| f32::from(p) / 255.0)).collect();
    let mut x = Tensor::from_slice(&planes, &[3, height, width])?;

    let session = Model::load(model)?.session(FunctionOptions::default());
    let input = session.model().inputs().into_iter().next().ok_or("the model has no input")?;
    // Models in ONNX's format have a batch axis, ncnn's have none.
    if model.ends_with(".onnx") {
        x = x.unsqueeze(0)?;
    }
    let axes = PictureAxes { height: x.rank() - 2, width: x.rank() - 1 };
    let (_, y) =
        session.run_tiled((&input.name, &x, axes), axes, TILE, &mut |done, all| eprintln!("{done} of {all}"))?;

    let &[.., rows, columns] = y.shape() else { return Err("the result is no picture".into()) };
    let values = y.to_vec::<f32>()?;
    let plane = rows * columns;
    let mut out = Vec::with_capacity(3 * plane);
    for i in 0..plane {
        out.extend((0..3).map(|c| (values[c * plane + i] * 255.0).round() as u8));
    }
    let mut encoder = png::Encoder::new(BufWriter::new(File::create(big)?), columns as u32, rows as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&out)?;
    println!("{photo}: {width} x {height} -> {big}: {columns} x {rows}");
    Ok(())
}
