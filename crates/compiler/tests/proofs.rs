//! Graphs whose accesses are in bounds for a reason that takes some arithmetic: each was refused once. They compile,
//! and every level gives the same values.

mod common;

use common::{levels, noise};
use winograph_compiler::{Algorithm, Options, Target};
use winograph_ir::interp::Value;
use winograph_ir::tensor::TensorOp;
use winograph_ir::text::parse_tensor;

#[track_caller]
fn compiles(text: &str) {
    let g = parse_tensor(text).unwrap();
    let mut inputs: Vec<(usize, Value)> = Vec::new();
    for node in g.nodes() {
        if let TensorOp::Input { slot, dtype, .. } = node.op {
            let shape: Vec<usize> = node.shape.iter().map(|&s| g.ints.as_const(s).unwrap() as usize).collect();
            let data = noise(shape.iter().product(), slot as u64 + 1);
            let data: Vec<f64> = data.iter().map(|&x| (x * 16.0).round() as f64 / 2.0).collect();
            inputs.push((slot, Value::from_f64s(dtype, &shape, &data)));
        }
    }
    inputs.sort_by_key(|i| i.0);
    let inputs: Vec<Value> = inputs.into_iter().map(|i| i.1).collect();
    let options = Options { algorithm: Algorithm::Direct, verify_each_pass: true, ..Options::default() };
    for vector in [16, 32, 64] {
        let all = levels(&g, &options, &Target::cpu(vector), &inputs);
        for (level, outputs) in &all[1..] {
            assert_eq!(outputs, &all[0].1, "{level}\n{text}");
        }
    }
}

/// The border is on an axis that the reshape leaves alone.
#[test]
fn a_border_beside_a_new_axis() {
    compiles(
        "%0 = input 0 : f32[17, 9]
         %1 = reshape %0 : f32[1, 17, 9]
         %2 = pad %1 before [0, 0, 0] after [0, 0, 1] value 0.0f32
         %3 = unfold %2 axis 2 size 3 stride 1 dilation 1
         %4 = reduce add any fused [3] %3
         output %4",
    );
}

/// Axes are merged, then bordered: the quotient's bounds follow from those of the sum.
#[test]
fn a_border_around_merged_axes() {
    compiles(
        "%0 = input 0 : f32[13, 2]
         %1 = reshape %0 : f32[1, 26]
         %2 = pad %1 before [1, 1] after [2, 0] value 0.0f32
         %3 = unfold %2 axis 0 size 2 stride 1 dilation 1
         %4 = unfold %3 axis 1 size 2 stride 1 dilation 2
         %5 = reduce add any fused [2, 3] %4
         output %5, %0",
    );
}

/// Axes that do not line up: 9 * 4 * 3 as 27 * 4.
#[test]
fn a_border_around_axes_cut_anew() {
    compiles(
        "%0 = input 0 : i64[9, 4, 1, 3]
         %1 = reshape %0 : i64[27, 1, 4, 1]
         %2 = pad %1 before [0, 0, 1, 0] after [0, 0, 1, 2] value 0i64
         %3 = unfold %2 axis 2 size 3 stride 1 dilation 1
         %4 = unfold %3 axis 3 size 3 stride 2 dilation 1
         %5 = reduce add any [4, 5] %4
         output %5",
    );
}

/// Loops that were split are gated by a multiple of the outer one.
#[test]
fn a_part_of_split_loops() {
    compiles(
        "%0 = input 0 : f32[9]
         %1 = neg %0
         %2 = input 1 : i64[5, 4, 9]
         %3 = reshape %2 : i64[180]
         %4 = gather %1, %3 axis 0
         %5 = slice %4 start [0] step [1] size [2]
         %6 = slice %4 start [116] step [1] size [1]
         %7 = cat axis 0 %4, %5, %6
         output %7",
    );
}

/// Sums over windows that reach into a border on both sides of a merged axis.
#[test]
fn borders_of_borders() {
    compiles(
        "%0 = input 0 : f32[2, 3, 4]
         %1 = pad %0 before [0, 1, 0] after [0, 0, 1] value 1.0f32
         %2 = reshape %1 : f32[2, 20]
         %3 = pad %2 before [1, 2] after [0, 1] value 2.0f32
         %4 = reshape %3 : f32[3, 23]
         %5 = slice %4 start [2, 22] step [-1, -2] size [3, 12]
         output %5",
    );
}
