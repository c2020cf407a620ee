//! ONNX models, written here byte by byte as protobuf: results by definition, and files that are wrong.

use winograph::model::{Model, Value};
use winograph::settings::settings;
use winograph::{ConvOptions, DType, Tensor};

/// A field of protobuf that holds bytes.
fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    let mut out = varint(field << 3 | 2);
    out.extend(varint(value.len() as u64));
    out.extend(value);
    out
}

fn int(field: u64, value: i64) -> Vec<u8> {
    let mut out = varint(field << 3);
    out.extend(varint(value as u64));
    out
}

fn varint(mut x: u64) -> Vec<u8> {
    let mut out = vec![];
    while x >= 0x80 {
        out.push(x as u8 | 0x80);
        x >>= 7;
    }
    out.push(x as u8);
    out
}

fn ints_attribute(name: &str, values: &[i64]) -> Vec<u8> {
    let mut out = bytes(1, name.as_bytes());
    values.iter().for_each(|&v| out.extend(int(8, v)));
    out.extend(int(20, 7));
    out
}

fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut out = vec![];
    inputs.iter().for_each(|i| out.extend(bytes(1, i.as_bytes())));
    outputs.iter().for_each(|o| out.extend(bytes(2, o.as_bytes())));
    out.extend(bytes(4, op.as_bytes()));
    attributes.iter().for_each(|a| out.extend(bytes(5, a)));
    out
}

/// The name and type of a value; sizes of 0 stand for any.
fn info(name: &str, dtype: i64, shape: &[i64]) -> Vec<u8> {
    let dims: Vec<u8> = shape.iter().flat_map(|&d| bytes(1, &if d == 0 { vec![] } else { int(1, d) })).collect();
    let tensor = [int(1, dtype), bytes(2, &dims)].concat();
    [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &tensor))].concat()
}

fn weights(name: &str, shape: &[i64], values: &[f32]) -> Vec<u8> {
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut out: Vec<u8> = shape.iter().flat_map(|&d| int(1, d)).collect();
    out.extend([int(2, 1), bytes(8, name.as_bytes()), bytes(9, &raw)].concat());
    out
}

fn model(nodes: &[Vec<u8>], initializers: &[Vec<u8>], inputs: &[Vec<u8>], outputs: &[Vec<u8>]) -> Vec<u8> {
    let mut graph = vec![];
    nodes.iter().for_each(|n| graph.extend(bytes(1, n)));
    initializers.iter().for_each(|t| graph.extend(bytes(5, t)));
    inputs.iter().for_each(|i| graph.extend(bytes(11, i)));
    outputs.iter().for_each(|o| graph.extend(bytes(12, o)));
    [int(1, 8), bytes(7, &graph), bytes(8, &int(2, 17))].concat()
}

fn run(model: &[u8], inputs: &[(&str, &Tensor)]) -> winograph::Result<Vec<(String, Tensor)>> {
    Model::from_onnx(model)?.compile(&settings()?.device)?.run(inputs)
}

#[test]
fn a_convolution_and_relu_give_what_the_tensor_library_gives() {
    let w = Tensor::randn(&[4, 3, 3, 3], DType::F32, 1).unwrap();
    let file = model(
        &[
            node("Conv", &["x", "w"], &["c"], &[ints_attribute("pads", &[1, 1, 1, 1])]),
            node("Relu", &["c"], &["y"], &[]),
        ],
        &[weights("w", &[4, 3, 3, 3], &w.to_vec::<f32>().unwrap())],
        &[info("x", 1, &[1, 3, 0, 0])],
        &[info("y", 1, &[1, 4, 0, 0])],
    );
    for size in [8, 13] {
        let x = Tensor::randn(&[1, 3, size, size], DType::F32, 2).unwrap();
        let got = run(&file, &[("x", &x)]).unwrap();
        let want = x.conv(&w, None, &ConvOptions::padding(1)).unwrap().relu().unwrap();
        assert_eq!(got[0].0, "y");
        let pairs = got[0].1.to_vec::<f32>().unwrap().into_iter().zip(want.to_vec::<f32>().unwrap());
        assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-4));
    }
}

#[test]
fn a_shape_that_is_an_input_is_bound_when_the_model_runs() {
    let file = model(
        &[node("Reshape", &["x", "s"], &["y"], &[])],
        &[],
        &[info("x", 1, &[2, 3]), info("s", 7, &[2])],
        &[info("y", 1, &[0, 0])],
    );
    let session = Model::from_onnx(&file).unwrap().compile(&settings().unwrap().device).unwrap();
    let x = Tensor::arange(0f32, 6.0, 1.0).unwrap().reshape(&[2, 3]).unwrap();
    for shape in [[3i64, 2], [6, 1], [3, 2]] {
        let s = Tensor::from_slice(&shape, &[2]).unwrap();
        let y = session.run(&[("x", &x), ("s", &s)]).unwrap();
        assert_eq!(y[0].1.shape(), shape.map(|s| s as usize));
        assert_eq!(y[0].1.to_vec::<f32>().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    }
}

#[test]
fn wrong_models_and_inputs_are_told_by_name() {
    let good = model(&[node("Relu", &["x"], &["y"], &[])], &[], &[info("x", 1, &[2])], &[info("y", 1, &[2])]);
    let x = Tensor::zeros(&[3], DType::F32).unwrap();
    let told = |e: winograph::Error, parts: &[&str]| {
        let text = e.to_string();
        assert!(parts.iter().all(|p| text.contains(p)), "{text}");
    };
    told(run(&good, &[("x", &x)]).unwrap_err(), &["\"x\"", "f32[3]", "f32[2]"]);
    told(run(&good, &[]).unwrap_err(), &["\"x\"", "nothing"]);
    told(run(&good, &[("z", &x)]).unwrap_err(), &["\"z\""]);
    for cut in 1..good.len() {
        // Each prefix is an error or another model; none panics.
        if let Ok(m) = Model::from_onnx(&good[..cut]) {
            let _ = m.trace(&[("x".to_string(), Value::None)]);
        }
    }
    let outputs = [info("y", 1, &[2])];
    let dangling = model(&[node("Relu", &["q"], &["y"], &[])], &[], &[], &outputs);
    told(run(&dangling, &[]).unwrap_err(), &["\"q\"", "Relu"]);
    let strange = model(&[node("Frobnicate", &[], &["y"], &[])], &[], &[], &outputs);
    told(run(&strange, &[]).unwrap_err(), &["Frobnicate", "not supported"]);
    let short = model(&[], &[weights("w", &[4], &[1.0])], &[], &outputs);
    told(Model::from_onnx(&short).unwrap_err(), &["\"w\"", "4 bytes"]);
}

#[test]
fn inverse_functions_and_orders_follow_their_definitions() {
    let x: Vec<f64> = (-40..=40).map(|i| i as f64 / 40.0).collect();
    let t = Tensor::from_slice(&x, &[x.len()]).unwrap();
    let close = |got: Tensor, f: fn(f64) -> f64| {
        for (g, &x) in got.to_vec::<f64>().unwrap().iter().zip(&x) {
            let want = f(x);
            assert!(*g == want || (g - want).abs() <= 1e-12 * want.abs().max(1e-3), "{x}: {g}, {want}");
        }
    };
    close(t.atan().unwrap(), f64::atan);
    close(t.asin().unwrap(), f64::asin);
    close(t.acos().unwrap(), f64::acos);
    close(t.sinh().unwrap(), f64::sinh);
    close(t.asinh().unwrap(), f64::asinh);
    close(t.atanh().unwrap(), f64::atanh);
    let y = Tensor::randint(-5, 5, &[3, 7], DType::I32, 3).unwrap();
    let rows = y.to_vec::<i32>().unwrap();
    let (values, places) = y.topk(4, 1, true).unwrap();
    for (r, row) in rows.chunks(7).enumerate() {
        let mut order: Vec<usize> = (0..7).collect();
        order.sort_by_key(|&i| (-row[i], i));
        let want: Vec<i64> = order[..4].iter().map(|&i| i as i64).collect();
        assert_eq!(places.to_vec::<i64>().unwrap()[r * 4..r * 4 + 4], want);
        assert_eq!(values.to_vec::<i32>().unwrap()[r * 4], row[order[0]]);
    }
}
