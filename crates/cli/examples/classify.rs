//! Says what a picture shows, by a network that gives a number for each class, such as squeezenet or resnet50 in ONNX's
//! format.
//!
//!     cargo run --release -p winograph-cli --example classify -- MODEL.onnx PICTURE.png [LABELS.txt]
//!
//! The picture is scaled to the model's input, `1 x 3 x height x width`, and normalised as torchvision's models want it.

mod common;

use common::read;
use std::error::Error;
use winograph::model::{Model, PortType};
use winograph::settings::settings;
use winograph::{DType, Tensor};

/// Means and deviations of ImageNet's channels.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (model, picture, labels) = match &args[..] {
        [m, p] => (m, p, None),
        [m, p, l] => (m, p, Some(String::from_utf8(winograph::files::read(l)?)?)),
        _ => return Err("expected MODEL.onnx PICTURE.png [LABELS.txt]".into()),
    };
    let model = Model::load(model)?;
    let input = model.inputs().into_iter().next().ok_or("the model has no input")?;
    let PortType::Tensor { shape: Some(shape), .. } = &input.of else { return Err("the input is no tensor".into()) };
    let size = |axis: usize| shape.get(axis).copied().flatten().unwrap_or(224);
    let (rows, columns) = (size(2), size(3));

    let (width, height, pixels) = read(picture)?;
    let mut values = Vec::with_capacity(3 * rows * columns);
    for c in 0..3 {
        for (i, j) in (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))) {
            // The mean of the pixels that one of the input's stands for.
            let (top, left) = (i * height / rows, j * width / columns);
            let (bottom, right) = (((i + 1) * height / rows).max(top + 1), ((j + 1) * width / columns).max(left + 1));
            let (mut sum, mut count) = (0.0, 0.0);
            for (y, x) in (top..bottom).flat_map(|y| (left..right).map(move |x| (y, x))) {
                sum += f32::from(pixels[3 * (y * width + x) + c]) / 255.0;
                count += 1.0;
            }
            values.push((sum / count - MEAN[c]) / DEVIATION[c]);
        }
    }
    let x = Tensor::from_slice(&values, &[1, 3, rows, columns])?;
    let outputs = model.compile(&settings()?.device)?.run(&[(&input.name, &x)])?;
    let (_, scores) = outputs.first().ok_or("the model has no output")?;
    let scores = scores.cast(DType::F32)?.to_vec::<f32>()?;

    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let names: Vec<&str> = labels.as_deref().map(|l| l.lines().collect()).unwrap_or_default();
    for &class in order.iter().take(5) {
        println!("{:10.4}  {class:4} {}", scores[class], names.get(class).unwrap_or(&""));
    }
    Ok(())
}
