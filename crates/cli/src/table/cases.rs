//! The kernels of the table: every layer of `bench/layers.json` in its three forms, and one case or more of each other
//! family of operations.

use crate::error::{Error, Result};
use serde::Deserialize;
use winograph::{ArgSpec, ConvOptions, DType, PoolOptions, Tensor, TensorBuffer};
use winograph_compiler::Algorithm;

/// Writes a program on its arguments.
type Write = dyn Fn(&[Tensor]) -> winograph::Result<Tensor>;

/// One program.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) args: Vec<ArgSpec>,
    pub(super) algorithm: Algorithm,
    pub(super) write: Box<Write>,
}

#[derive(Deserialize)]
struct Layers {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    name: String,
    n: usize,
    c: usize,
    h: usize,
    w: usize,
    k: usize,
}

/// A weight that is a constant of the program; its values do not matter to the compiler.
fn weight(shape: &[usize]) -> winograph::Result<Tensor> {
    Ok(TensorBuffer::new(DType::F32, shape)?.into_tensor())
}

/// A case of one argument or several of f32.
fn case(name: &str, shapes: &[&[usize]], write: impl Fn(&[Tensor]) -> winograph::Result<Tensor> + 'static) -> Case {
    Case {
        name: name.to_string(),
        args: shapes.iter().map(|s| ArgSpec::new(DType::F32, s)).collect(),
        algorithm: Algorithm::Direct,
        write: Box::new(write),
    }
}

/// A direct convolution with constant weights.
pub(super) fn conv(name: &str, input: &[usize], of: &[usize], options: ConvOptions) -> Case {
    let of = of.to_vec();
    case(name, &[input], move |x| x[0].conv_direct(&weight(&of)?, None, &options))
}

/// Normalises rows: mean, variance, scale and shift.
fn layer_norm(x: &Tensor, scale: &Tensor, shift: &Tensor) -> winograph::Result<Tensor> {
    let centred = x.sub(&x.mean(&[-1], true)?)?;
    let variance = centred.mul(&centred)?.mean(&[-1], true)?;
    centred.mul(&variance.add(1e-5)?.rsqrt()?)?.mul(scale)?.add(shift)
}

/// All of them.
pub(super) fn all() -> Result<Vec<Case>> {
    let text = include_str!("../../../../bench/layers.json");
    let layers: Layers = serde_json::from_str(text).map_err(|e| Error::failure("cannot read bench/layers.json", e))?;
    let mut out = Vec::new();
    for l in layers.layers {
        let (input, of) = ([l.n, l.c, l.h, l.w], vec![l.k, l.c, 3, 3]);
        let direct = conv(&format!("{} direct", l.name), &input, &of, ConvOptions::padding(1));
        let mut graph = conv(&format!("{} graph", l.name), &input, &of, ConvOptions::padding(1));
        graph.algorithm = Algorithm::Winograd;
        let tensor = case(&format!("{} tensor", l.name), &[&input], move |x| {
            Ok(x[0].conv_tensor_level(&weight(&of)?, None, &ConvOptions::padding(1), None, None)?.tensor)
        });
        out.extend([graph, tensor, direct]);
    }
    let strided = ConvOptions { stride: vec![2], ..ConvOptions::padding(1) };
    let depthwise = ConvOptions { groups: 64, ..ConvOptions::padding(1) };
    out.extend([
        conv("strided conv", &[1, 64, 56, 56], &[128, 64, 3, 3], strided),
        conv("depthwise conv", &[1, 64, 56, 56], &[64, 1, 3, 3], depthwise),
        conv("1x1 conv", &[1, 256, 14, 14], &[64, 256, 1, 1], ConvOptions::default()),
        case("matmul", &[&[256, 512], &[512, 384]], |x| x[0].matmul(&x[1])),
        case("matmul, ragged", &[&[100, 70], &[70, 130]], |x| x[0].matmul(&x[1])),
        case("transpose", &[&[1024, 768]], |x| x[0].transpose(0, 1)?.contiguous()),
        case("elementwise", &[&[512, 1000], &[512, 1000]], |x| x[0].mul(&x[1])?.add(1.0)?.relu()),
        case("exp, ragged rows", &[&[77, 53]], |x| x[0].exp()),
        case("broadcast add", &[&[128, 768], &[768]], |x| x[0].add(&x[1])),
        case("broadcast add along rows", &[&[128, 768], &[128, 1]], |x| x[0].add(&x[1])),
        case("concat", &[&[64, 300], &[64, 212]], |x| Tensor::cat(&[&x[0], &x[1]], 1)),
        case("concat of rows", &[&[64, 300], &[32, 300]], |x| Tensor::cat(&[&x[0], &x[1]], 0)),
        case("sum of rows", &[&[512, 1000]], |x| x[0].sum(&[1], false)),
        case("sum of columns", &[&[512, 1000]], |x| x[0].sum(&[0], false)),
        case("max of all", &[&[512, 1000]], |x| x[0].max(&[0, 1], false)),
        case("softmax, axis 0", &[&[128, 10, 64]], |x| x[0].softmax(0)),
        case("softmax, axis 1", &[&[128, 10, 64]], |x| x[0].softmax(1)),
        case("softmax, axis 2", &[&[128, 10, 64]], |x| x[0].softmax(2)),
        case("layer norm", &[&[128, 768], &[768], &[768]], |x| layer_norm(&x[0], &x[1], &x[2])),
        case("max pool", &[&[1, 64, 56, 56]], |x| x[0].max_pool(&[2, 2], &PoolOptions::default())),
        case("average pool, overlapping", &[&[1, 64, 57, 57]], |x| {
            x[0].avg_pool(&[3, 3], &PoolOptions { stride: vec![2], ..PoolOptions::default() })
        }),
    ]);
    Ok(out)
}
