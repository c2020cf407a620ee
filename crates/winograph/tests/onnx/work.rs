//! What a file of ONNX may ask the importer to do: files that ask for too much are refused before it is done.

use crate::proto::*;
use std::time::{Duration, Instant};
use winograph::{DType, Tensor};

/// Why a model is refused, which may not take long: what it asks for is not done.
fn refusal(model: &[u8], inputs: &[(&str, &Tensor)]) -> String {
    let start = Instant::now();
    let cause = run(model, inputs).unwrap_err().to_string();
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}: {cause}", start.elapsed());
    assert!(cause.len() < 600, "{cause}");
    cause
}

fn boxes_of_constants(count: i64) -> Vec<u8> {
    model(
        &[
            node("ConstantOfShape", &["boxes_shape"], &["boxes"], &[]),
            node("ConstantOfShape", &["scores_shape"], &["scores"], &[]),
            node("NonMaxSuppression", &["boxes", "scores", "most", "shared"], &["y"], &[]),
        ],
        &[
            longs("boxes_shape", &[3], &[1, count, 4]),
            longs("scores_shape", &[3], &[1, 1, count]),
            longs("most", &[1], &[count]),
            weights("shared", &[1], &[1.0]),
        ],
        &[],
        &[info("y", 7, &[0, 3])],
    )
}

#[test]
fn boxes_of_constants_are_not_compared_where_that_takes_more_than_a_file_may_ask_for() {
    let cause = refusal(&boxes_of_constants(200_000), &[]);
    assert!(cause.contains("(NonMaxSuppression)") && cause.contains("operations while importing"), "{cause}");
    assert!(cause.contains("640057600000"), "{cause}");
    let few = run(&boxes_of_constants(2_000), &[]).unwrap();
    assert_eq!(few[0].1.shape(), [2_000, 3]);
}

fn resized(count: usize, places: f32, mode: &[Vec<u8>]) -> Vec<u8> {
    let name = |i: usize| format!("y{i}");
    let nodes: Vec<Vec<u8>> = (0..count)
        .flat_map(|i| {
            let (wide, sum) = (format!("w{i}"), name(i));
            [
                node("Resize", &["x", "", "scales"], &[&wide], mode),
                node("ReduceMax", &[&wide], &[&sum], &[int_attribute("keepdims", 0)]),
            ]
        })
        .collect();
    let outputs: Vec<Vec<u8>> = (0..count).map(|i| info(&name(i), 1, &[])).collect();
    model(&nodes, &[weights("scales", &[2], &[1.0, places])], &[info("x", 1, &[1, 1])], &outputs)
}

#[test]
fn tables_of_resize_are_counted_and_those_too_large_are_refused_before_any_is_made() {
    let x = Tensor::ones(&[1, 1], DType::F32).unwrap();
    let places = (1 << 24) as f32;
    let cause = refusal(&resized(12, places, &[]), &[("x", &x)]);
    assert!(cause.contains("(Resize)") && cause.contains("operations while importing"), "{cause}");
    // 2 places of the input for each, which are more than one table may list.
    let cause = refusal(&resized(1, places, &[text_attribute("mode", "linear")]), &[("x", &x)]);
    assert!(cause.contains("Resize is not supported") && cause.contains("16777216 taps"), "{cause}");
    // A long axis that could be made does not come before one that cannot.
    let both = model(
        &[node("Resize", &["x", "", "", "sizes"], &["y"], &[])],
        &[longs("sizes", &[2], &[1 << 23, 1 << 50])],
        &[info("x", 1, &[1, 1])],
        &[info("y", 1, &[0, 0])],
    );
    let cause = refusal(&both, &[("x", &x)]);
    assert!(cause.contains("(Resize)"), "{cause}");
    assert_eq!(run(&resized(2, 1000.0, &[]), &[("x", &x)]).unwrap()[1].1.to_vec::<f32>().unwrap(), [1.0]);
}

#[test]
fn edges_of_mel_weights_far_beyond_all_rows_are_not_walked_to() {
    let file = |rate: i64| {
        model(
            &[node("MelWeightMatrix", &["bins", "length", "rate", "low", "high"], &["y"], &[])],
            &[
                longs("bins", &[], &[8]),
                longs("length", &[], &[16]),
                longs("rate", &[], &[rate]),
                weights("low", &[], &[0.0]),
                weights("high", &[], &[1e30]),
            ],
            &[],
            &[info("y", 1, &[9, 8])],
        )
    };
    for rate in [0, 1, 8192] {
        let start = Instant::now();
        assert_eq!(run(&file(rate), &[]).unwrap()[0].1.shape(), [9, 8]);
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn more_than_64_axes_are_refused_by_the_name_of_what_has_them() {
    let x = Tensor::ones(&[4], DType::F32).unwrap();
    let out = [info("y", 1, &[])];
    let input = [info("x", 1, &[4])];
    let ones = |rank: usize| vec![1i64; rank];
    let unsqueeze = |rank: usize| {
        let axes: Vec<i64> = (0..rank as i64 - 1).collect();
        model(
            &[
                node("Unsqueeze", &["x", "axes"], &["u"], &[]),
                node("ReduceMax", &["u"], &["y"], &[int_attribute("keepdims", 0)]),
            ],
            &[longs("axes", &[axes.len() as i64], &axes)],
            &input,
            &out,
        )
    };
    assert_eq!(run(&unsqueeze(64), &[("x", &x)]).unwrap()[0].1.to_vec::<f32>().unwrap(), [1.0]);
    for rank in [65, 100_000] {
        let axes = format!("{rank} axes: expected at most 64");
        let cause = refusal(&unsqueeze(rank), &[("x", &x)]);
        assert!(cause.contains("(Unsqueeze)") && cause.contains(&axes), "{cause}");
        let shape = [ones(rank), vec![-1]].concat();
        for op in ["Reshape", "Expand"] {
            let list = if op == "Expand" { &shape[..rank] } else { &shape[1..] };
            let file =
                model(&[node(op, &["x", "shape"], &["y"], &[])], &[longs("shape", &[rank as i64], list)], &input, &out);
            let cause = refusal(&file, &[("x", &x)]);
            assert!(cause.contains(&format!("({op})")) && cause.contains(&axes), "{cause}");
        }
        let file = model(&[node("Add", &["x", "w"], &["y"], &[])], &[weights("w", &ones(rank), &[1.0])], &input, &out);
        let cause = refusal(&file, &[("x", &x)]);
        assert!(cause.contains("\"w\"") && cause.contains(&axes), "{cause}");
        for (inputs, outputs, name) in [
            ([info("x", 1, &ones(rank))], [info("y", 1, &[4])], "x"),
            ([info("x", 1, &[4])], [info("y", 1, &ones(rank))], "y"),
        ] {
            let cause = refusal(&model(&[node("Neg", &["x"], &["y"], &[])], &[], &inputs, &outputs), &[("x", &x)]);
            assert!(cause.contains(&format!("{name:?}")) && cause.contains(&axes), "{cause}");
        }
    }
    // As in the library.
    let cause = Tensor::zeros(&[1; 65], DType::F32).unwrap_err();
    assert!(matches!(cause, winograph::Error::Rank { rank: 65, .. }), "{cause}");
    assert!(Tensor::from_slice(&[1f32], &[1; 65]).is_err() && Tensor::from_slice(&[1f32], &[1; 64]).is_ok());
}

#[test]
fn bits_shifted_by_the_width_and_more_leave_zero() {
    for direction in ["LEFT", "RIGHT"] {
        let file = model(
            &[node("BitShift", &["x", "by"], &["y"], &[text_attribute("direction", direction)])],
            &[],
            &[info("x", 2, &[6]), info("by", 2, &[6])],
            &[info("y", 2, &[6])],
        );
        let x = Tensor::from_slice(&[255u8, 255, 255, 255, 255, 1], &[6]).unwrap();
        let by = Tensor::from_slice(&[0u8, 1, 7, 8, 9, 255], &[6]).unwrap();
        let want: [u8; 6] = if direction == "LEFT" { [255, 254, 128, 0, 0, 0] } else { [255, 127, 1, 0, 0, 0] };
        assert_eq!(run(&file, &[("x", &x), ("by", &by)]).unwrap()[0].1.to_vec::<u8>().unwrap(), want, "{direction}");
    }
}

#[test]
fn initializers_that_are_inputs_too_are_looked_up_by_name() {
    let count = 100_000;
    let names: Vec<String> = (0..count).map(|i| format!("w{i}")).collect();
    let initializers: Vec<Vec<u8>> = names.iter().map(|n| weights(n, &[1], &[2.0])).collect();
    let mut inputs: Vec<Vec<u8>> = names.iter().map(|n| info(n, 1, &[1])).collect();
    inputs.push(info("x", 1, &[1]));
    let file = model(&[node("Add", &["x", &names[7]], &["y"], &[])], &initializers, &inputs, &[info("y", 1, &[1])]);
    let start = Instant::now();
    let y = run(&file, &[("x", &Tensor::ones(&[1], DType::F32).unwrap())]).unwrap();
    assert_eq!(y[0].1.to_vec::<f32>().unwrap(), [3.0]);
    // One by one it would be minutes.
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
fn operators_along_a_long_axis_take_time_in_proportion_to_it_and_not_to_its_square() {
    let size = 2_000_000;
    let file = model(
        &[
            node("CumSum", &["x", "zero"], &["sums"], &[int_attribute("exclusive", 1), int_attribute("reverse", 1)]),
            node("TopK", &["x", "k"], &["values", "places"], &[int_attribute("axis", 0)]),
        ],
        &[longs("zero", &[], &[0]), longs("k", &[1], &[10])],
        &[info("x", 7, &[size])],
        &[info("sums", 7, &[size]), info("values", 7, &[10]), info("places", 7, &[10])],
    );
    let x: Vec<i64> = (0..size).map(|i| i * 48_271 % 1_000_003).collect();
    let start = Instant::now();
    let got = run(&file, &[("x", &Tensor::from_slice(&x, &[x.len()]).unwrap())]).unwrap();
    // Square, it would be an hour.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    let sums = got[0].1.to_vec::<i64>().unwrap();
    let mut sum = 0;
    for (x, got) in x.iter().zip(&sums).rev() {
        assert_eq!(*got, sum);
        sum += x;
    }
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(x[i]));
    let want: Vec<i64> = order[..10].iter().map(|&i| i as i64).collect();
    assert_eq!(got[2].1.to_vec::<i64>().unwrap(), want);
}

#[test]
#[cfg(target_os = "linux")]
fn results_that_are_too_much_for_the_memory_all_together_are_refused_before_any_is_computed() {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:")).unwrap();
    let machine = line.split_whitespace().next().unwrap().parse::<i64>().unwrap() * 1024;
    // Each of them fits.
    let each = machine / 16 * 6 / 12;
    let names: Vec<String> = (0..4).map(|i| format!("y{i}")).collect();
    let nodes: Vec<Vec<u8>> = names.iter().map(|name| node("Expand", &["x", "shape"], &[name], &[])).collect();
    let outputs: Vec<Vec<u8>> = names.iter().map(|name| info(name, 1, &[each, 3])).collect();
    let file = model(&nodes, &[longs("shape", &[2], &[each, 3])], &[info("x", 1, &[3])], &outputs);
    let cause = refusal(&file, &[("x", &Tensor::ones(&[3], DType::F32).unwrap())]);
    assert!(cause.contains("outputs y0, y1, y2, y3, of") && cause.contains("out of memory"), "{cause}");
}
