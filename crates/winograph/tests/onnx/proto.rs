//! Models as bytes of protobuf, and what is asked of them.

use winograph::model::{Model, Value};
use winograph::settings::settings;
use winograph::{DType, Tensor};

/// A field of protobuf that holds bytes.
pub(crate) fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    let mut out = varint(field << 3 | 2);
    out.extend(varint(value.len() as u64));
    out.extend(value);
    out
}

pub(crate) fn int(field: u64, value: i64) -> Vec<u8> {
    let mut out = varint(field << 3);
    out.extend(varint(value as u64));
    out
}

pub(crate) fn varint(mut x: u64) -> Vec<u8> {
    let mut out = vec![];
    while x >= 0x80 {
        out.push(x as u8 | 0x80);
        x >>= 7;
    }
    out.push(x as u8);
    out
}

pub(crate) fn ints_attribute(name: &str, values: &[i64]) -> Vec<u8> {
    let mut out = bytes(1, name.as_bytes());
    values.iter().for_each(|&v| out.extend(int(8, v)));
    out.extend(int(20, 7));
    out
}

pub(crate) fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut out = vec![];
    inputs.iter().for_each(|i| out.extend(bytes(1, i.as_bytes())));
    outputs.iter().for_each(|o| out.extend(bytes(2, o.as_bytes())));
    out.extend(bytes(4, op.as_bytes()));
    attributes.iter().for_each(|a| out.extend(bytes(5, a)));
    out
}

/// The name and type of a value; sizes of 0 stand for any.
pub(crate) fn info(name: &str, dtype: i64, shape: &[i64]) -> Vec<u8> {
    let dims: Vec<u8> = shape.iter().flat_map(|&d| bytes(1, &if d == 0 { vec![] } else { int(1, d) })).collect();
    let tensor = [int(1, dtype), bytes(2, &dims)].concat();
    [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &tensor))].concat()
}

pub(crate) fn weights(name: &str, shape: &[i64], values: &[f32]) -> Vec<u8> {
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut out: Vec<u8> = shape.iter().flat_map(|&d| int(1, d)).collect();
    out.extend([int(2, 1), bytes(8, name.as_bytes()), bytes(9, &raw)].concat());
    out
}

pub(crate) fn model(nodes: &[Vec<u8>], initializers: &[Vec<u8>], inputs: &[Vec<u8>], outputs: &[Vec<u8>]) -> Vec<u8> {
    let mut graph = vec![];
    nodes.iter().for_each(|n| graph.extend(bytes(1, n)));
    initializers.iter().for_each(|t| graph.extend(bytes(5, t)));
    inputs.iter().for_each(|i| graph.extend(bytes(11, i)));
    outputs.iter().for_each(|o| graph.extend(bytes(12, o)));
    [int(1, 8), bytes(7, &graph), bytes(8, &int(2, 17))].concat()
}

pub(crate) fn run(model: &[u8], inputs: &[(&str, &Tensor)]) -> winograph::Result<Vec<(String, Tensor)>> {
    Model::from_onnx(model)?.compile(&settings()?.device)?.run(inputs)
}

/// An attribute that is one integer.
pub(crate) fn int_attribute(name: &str, value: i64) -> Vec<u8> {
    [bytes(1, name.as_bytes()), int(3, value), int(20, 2)].concat()
}

pub(crate) fn text_attribute(name: &str, value: &str) -> Vec<u8> {
    [bytes(1, name.as_bytes()), bytes(4, value.as_bytes()), int(20, 3)].concat()
}

/// The first result of a model of one input, compiled as one function.
pub(crate) fn as_a_whole(file: &[u8], shape: &[usize], x: &Tensor) -> winograph::Result<Tensor> {
    let model = Model::from_onnx(file)?;
    let function = winograph::compile(&[winograph::ArgSpec::new(DType::F32, shape)], |args| {
        let values = model.trace(&[("x".to_string(), Value::Tensor(args[0].clone()))])?;
        Ok(values.iter().flat_map(|v| v.tensors().to_vec()).collect())
    })?;
    Ok(function.call(&[x])?.remove(0))
}

/// A node with a name.
pub(crate) fn named(name: &str, op: &str, inputs: &[&str], outputs: &[&str], attributes: &[Vec<u8>]) -> Vec<u8> {
    [node(op, inputs, outputs, attributes), bytes(3, name.as_bytes())].concat()
}

/// Two convolutions and a pool beside the first one, concatenated, with nodes of these names; where one is empty the node has
/// none.
pub(crate) fn branches(names: [&str; 5]) -> Vec<u8> {
    let w = |shape: &[i64]| {
        let n = shape.iter().product::<i64>() as usize;
        Tensor::randn(&[n], DType::F32, n as u64).unwrap().to_vec::<f32>().unwrap()
    };
    let pads = || ints_attribute("pads", &[1, 1, 1, 1]);
    let [first, relu, second, pool, cat] = names;
    model(
        &[
            named(first, "Conv", &["x", "w"], &["a"], &[pads()]),
            named(relu, "Relu", &["a"], &["b"], &[]),
            named(second, "Conv", &["b", "v"], &["c"], &[]),
            named(pool, "MaxPool", &["b"], &["d"], &[ints_attribute("kernel_shape", &[3, 3]), pads()]),
            named(cat, "Concat", &["c", "d"], &["y"], &[[bytes(1, b"axis"), int(3, 1), int(20, 2)].concat()]),
        ],
        &[weights("w", &[16, 16, 3, 3], &w(&[16, 16, 3, 3])), weights("v", &[24, 16, 1, 1], &w(&[24, 16, 1, 1]))],
        &[info("x", 1, &[1, 16, 20, 20])],
        &[info("y", 1, &[1, 40, 20, 20])],
    )
}

/// What is said of a model that is refused, with nothing for its inputs but `x`, where it takes one.
pub(crate) fn refused(file: &[u8], x: &Tensor) -> String {
    let run = |m: Model| {
        let takes = m.inputs().iter().any(|p| p.name == "x");
        m.session(Default::default()).run(&if takes { vec![("x", x)] } else { vec![] })
    };
    Model::from_onnx(file).and_then(run).unwrap_err().to_string()
}

pub(crate) fn assert_told(text: &str, parts: &[&str]) {
    assert!(parts.iter().all(|p| text.contains(p)), "{text}");
}

pub(crate) fn longs(name: &str, shape: &[i64], values: &[i64]) -> Vec<u8> {
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let dims: Vec<u8> = shape.iter().flat_map(|&d| int(1, d)).collect();
    [dims, int(2, 7), bytes(8, name.as_bytes()), bytes(9, &raw)].concat()
}

pub(crate) fn axis_0() -> Vec<Vec<u8>> {
    vec![int_attribute("axis", 0)]
}

/// `count` nodes, each of which concatenates a value with itself, from `c0` to `c{count}`.
pub(crate) fn doubled(count: usize) -> Vec<Vec<u8>> {
    let cat = |i: usize| {
        let (from, to) = (format!("c{i}"), format!("c{}", i + 1));
        named(&format!("cat{i}"), "Concat", &[&from, &from], &[&to], &axis_0())
    };
    (0..count).map(cat).collect()
}
