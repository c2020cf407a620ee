//! How much memory convolutions take: what the benchmarks' layers hold beside input, output and prepared weights is scratch
//! memory, at most 4 MiB a thread; of what threads share, each has its part.

use serde_json::Value;
use std::sync::Arc;
use winograph::cpu::{CpuDevice, CpuOptions};
use winograph::device::Device;
use winograph::env::Env;
use winograph::{
    ArgSpec, AxisTile, ConvOptions, DType, FunctionOptions, Options, Result, Tensor, TensorBuffer, compile_with, plan,
};
use winograph_compiler::{Explanation, Footprint, Target};

const MOST_SCRATCH: usize = 4 << 20;

struct Layer {
    name: String,
    input: Vec<usize>,
    weight: Vec<usize>,
    options: ConvOptions,
}

impl Layer {
    fn conv(&self, x: &Tensor, w: &Tensor) -> Result<Vec<Tensor>> {
        Ok(vec![x.conv2d(w, None, &self.options)?])
    }

    fn weights(&self) -> Tensor {
        TensorBuffer::new(DType::F32, &self.weight).unwrap().into_tensor()
    }

    fn spec(&self) -> [ArgSpec; 1] {
        [ArgSpec::new(DType::F32, &self.input)]
    }

    /// What Ĝ of F(4,3) or of any tile that is chosen by itself takes at most: 36 positions for 9 taps, 7 for 3, padded a
    /// little; the weights as they are otherwise. Where an axis has tiles of several sizes, each region has its own: the
    /// positions of all of them.
    fn most_weights(&self, explanation: &Explanation) -> usize {
        let weights = self.weight.iter().product::<usize>() * DType::F32.size();
        let tile = explanation.windows.first().map_or(&[][..], |w| &w.tile);
        if tile.iter().all(|t| t.single().is_some()) {
            return 5 * weights;
        }
        let window = self.weight[2..].iter().filter(|&&r| r > 1);
        let positions = |(t, r): (&AxisTile, &usize)| t.sizes().iter().map(|m| m + r - 1).sum::<usize>();
        let all: usize = tile.iter().zip(window.clone()).map(positions).product();
        weights / window.product::<usize>() * all * 17 / 16
    }
}

/// The convolutions of the benchmarks' lists.
fn layers() -> Vec<Layer> {
    let lists = [
        include_str!("../../../bench/layers.json"),
        include_str!("../../../bench/more_layers.json"),
        include_str!("../../../bench/window_layers.json"),
    ];
    let mut out = Vec::new();
    for list in lists {
        let list: Value = serde_json::from_str(list).unwrap();
        for layer in list["layers"].as_array().unwrap().iter().filter(|l| l.get("matmul").is_none()) {
            let number = |key: &str, default: u64| layer.get(key).map_or(default, |v| v.as_u64().unwrap()) as usize;
            let window: Vec<usize> = match layer.get("r").and_then(Value::as_array) {
                Some(sides) => sides.iter().map(|v| v.as_u64().unwrap() as usize).collect(),
                None => vec![number("r", 3); 2],
            };
            let (c, groups) = (number("c", 0), number("groups", 1));
            out.push(Layer {
                name: layer["name"].as_str().unwrap().to_string(),
                input: vec![number("n", 0), c, number("h", 0), number("w", 0)],
                weight: vec![number("k", 0), c / groups, window[0], window[1]],
                options: ConvOptions {
                    stride: vec![number("stride", 1)],
                    padding: window.iter().map(|r| (r / 2, r / 2)).collect(),
                    groups,
                    ..ConvOptions::default()
                },
            });
        }
    }
    out
}

#[track_caller]
fn check(layer: &Layer, footprint: Footprint, explanation: &Explanation, threads: usize, what: &str) {
    let scratch = footprint.scratch + footprint.arena / threads;
    assert!(scratch <= MOST_SCRATCH, "{} on {what}: {scratch} bytes of scratch memory", layer.name);
    // What threads share is the operand of a product whose result they have in their own memory.
    assert!(footprint.arena == 0 || footprint.scratch > 0, "{} on {what}: intermediates in memory", layer.name);
    let weights = footprint.prepared + footprint.constants;
    assert!(weights <= layer.most_weights(explanation), "{} on {what}: {weights} bytes of weights", layer.name);
}

#[test]
fn layers_take_scratch_memory_and_nothing_else() {
    let mut with_scratch = 0;
    for layer in layers() {
        let w = layer.weights();
        for vector_bytes in [16, 32, 64] {
            for l2 in [512 << 10, 1 << 20, 2 << 20] {
                for threads in [1, 2] {
                    let target = Target { l2, threads, ..Target::cpu(vector_bytes) };
                    let build = |args: &[Tensor]| layer.conv(&args[0], &w);
                    let (program, explanation) =
                        plan(&layer.spec(), &target, &Options::default(), false, build).unwrap();
                    let footprint = program.footprint().unwrap();
                    with_scratch += usize::from(footprint.scratch > 0);
                    let what = format!("{vector_bytes}-byte vectors, {l2} bytes of cache, {threads} threads");
                    check(&layer, footprint, &explanation, threads, &what);
                }
            }
        }
    }
    assert!(with_scratch > 0);
}

#[test]
fn functions_hold_what_their_programs_say() {
    for threads in [1, 2] {
        let options = CpuOptions { threads: Some(threads), ..CpuOptions::from_env(&Env::read().unwrap()) };
        let device: Arc<dyn Device> = Arc::new(CpuDevice::new(options).unwrap());
        for layer in layers().iter().filter(|l| ["reference", "res3", "5x5 48-64", "3x3 stride 2"].contains(&&*l.name))
        {
            let w = layer.weights();
            let options = FunctionOptions { device: Some(device.clone()), ..FunctionOptions::default() };
            let f = compile_with(&layer.spec(), &options, |args| layer.conv(&args[0], &w)).unwrap();
            let before = f.held();
            assert_eq!((before.arena, before.scratch), (0, 0), "{}", layer.name);
            f.call(&[&TensorBuffer::new(DType::F32, &layer.input).unwrap().into_tensor()]).unwrap();
            let held = f.held();
            check(layer, held, f.explanation(), threads, device.name());
            let build = |args: &[Tensor]| layer.conv(&args[0], &w);
            let (program, _) = plan(&layer.spec(), device.target(), &Options::default(), false, build).unwrap();
            let said = program.footprint().unwrap();
            assert_eq!(
                (held.prepared, held.constants, held.arena),
                (said.prepared, said.constants, said.arena),
                "{}",
                layer.name
            );
            // A thread's piece is in whole pages; what is small lies on the stack.
            assert!(held.scratch <= said.scratch.next_multiple_of(4096), "{}: {held:?} {said:?}", layer.name);
            assert!(held.scratch + (64 << 10) >= said.scratch, "{}: {held:?} {said:?}", layer.name);
        }
    }
}
