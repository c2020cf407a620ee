//! Residuals that are added to products lie where the sum goes, and nothing is lost by it.

use winograph::{ArgSpec, ConvOptions, DType, Options, Result, Tensor, compile, plan};
use winograph_compiler::Target;
use winograph_compiler::sketch::NodeKind;

fn noise(shape: &[usize], seed: usize, scale: f32) -> Tensor {
    let count = shape.iter().product::<usize>();
    let value = |n: usize| (((n * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0) * scale;
    Tensor::from_slice(&(0..count).map(value).collect::<Vec<f32>>(), shape).unwrap()
}

/// What is added to a residual: a convolution of one pixel.
fn step(x: &Tensor, channels: usize, n: usize) -> Result<Tensor> {
    x.conv2d(&noise(&[channels, channels, 1, 1], n, 0.1), None, &ConvOptions::default())
}

fn blocks(x: &Tensor, channels: usize) -> Result<Tensor> {
    let mut x = step(x, channels, 1)?.relu()?;
    for n in 2..5 {
        let y = step(&x, channels, n)?.relu()?;
        x = step(&y, channels, 10 * n)?.add(&x)?.relu()?;
    }
    step(&x, channels, 5)
}

#[test]
fn residuals_are_in_place_and_sums_are_what_they_are_one_by_one() {
    for (channels, side) in [(64, 16), (48, 14), (48, 9)] {
        let spec = [ArgSpec::new(DType::F32, &[2, channels, side, side])];
        let x = noise(&[2, channels, side, side], 3, 1.0);
        let target = Target { threads: 2, ..Target::cpu(64) };
        let build = |args: &[Tensor]| Ok(vec![blocks(&args[0], channels)?]);
        let (program, explanation) = plan(&spec, &target, &Options::default(), true, build).unwrap();
        // Memory that holds one value after the other leaves no kernel out of the picture.
        let sketch = explanation.passes.iter().rev().find_map(|p| p.sketch.as_ref()).unwrap();
        let kernels = sketch.nodes.iter().filter(|n| n.kind == NodeKind::Kernel).count();
        assert_eq!(kernels, program.prepare.len() + program.run.len());
        let activation = x.shape().iter().product::<usize>() * 4;
        let arena = program.footprint().unwrap().arena;
        assert!(arena < 3 * activation, "{arena} bytes for activations of {activation}");
        let all = compile(&spec, build).unwrap().call(&[&x]).unwrap();
        // One by one, nothing is there to take the place of.
        let alone = |t: Result<Tensor>| {
            let t = t.unwrap();
            t.realize().unwrap();
            t
        };
        let mut y = alone(step(&x, channels, 1).and_then(|y| y.relu()));
        for n in 2..5 {
            let z = alone(step(&y, channels, n).and_then(|z| z.relu()));
            let z = alone(step(&z, channels, 10 * n));
            y = alone(z.add(&y).and_then(|y| y.relu()));
        }
        let wanted = alone(step(&y, channels, 5)).to_vec::<f32>().unwrap();
        let found = all[0].to_vec::<f32>().unwrap();
        let scale = wanted.iter().fold(0f32, |a, b| a.max(b.abs()));
        assert!(found.iter().zip(&wanted).all(|(a, b)| (a - b).abs() <= 1e-4 * scale));
    }
}
