//! Layers: loops in f64 as references, parameters by their names, errors that say what is missing.

mod common;
use common::{Array, assert_error};
use winograph::nn::{Activation, BatchNorm, Conv, GroupNorm, Layer, LayerNorm, Linear, Parameters, Sequential};
use winograph::safetensors::SafeTensors;
use winograph::{ArgSpec, ConvOptions, DType, Tensor, compile};

/// Mean and variance of some elements.
fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n)
}

fn close(got: &Tensor, want: &Array) {
    let got = Array::of(got);
    assert_eq!(got.shape, want.shape);
    for (g, w) in got.data.iter().zip(&want.data) {
        assert!((g - w).abs() <= 2e-5 * (1.0 + w.abs()), "{g} {w}");
    }
}

fn positive(t: &Array) -> Array {
    Array { shape: t.shape.clone(), data: t.data.iter().map(|v| v.abs() + 0.5).collect() }
}

#[test]
fn norms_are_as_they_are_defined() {
    let x = Array::sample(&[2, 6, 3, 4]);
    let (w, b, m) = (Array::sample(&[6]), Array::sample(&[7]), Array::sample(&[11]));
    let b = Array { shape: vec![6], data: b.data[1..].to_vec() };
    let m = Array { shape: vec![6], data: m.data[5..].to_vec() };
    let v = positive(&w);
    let of = |a: &Array| a.to(DType::F32);
    let (tx, tw, tb) = (of(&x), of(&w), of(&b));
    let e = 1e-3;
    let want = Array::new(&x.shape, |i| {
        let c = i[1];
        (x.at(i) - m.data[c]) / (v.data[c] + e).sqrt() * w.data[c] + b.data[c]
    });
    close(&tx.batch_norm(&of(&m), &of(&v), Some(&tw), Some(&tb), e).unwrap(), &want);
    let plain = Array::new(&x.shape, |i| (x.at(i) - m.data[i[1]]) / (v.data[i[1]] + e).sqrt());
    close(&tx.batch_norm(&of(&m), &of(&v), None, None, e).unwrap(), &plain);
    for groups in [1, 2, 3, 6] {
        let size = 6 / groups * 12;
        let want = Array::new(&x.shape, |i| {
            let start = (i[0] * groups + i[1] / (6 / groups)) * size;
            let (mean, var) = moments(&x.data[start..start + size]);
            (x.at(i) - mean) / (var + e).sqrt() * w.data[i[1]] + b.data[i[1]]
        });
        close(&tx.group_norm(groups, Some(&tw), Some(&tb), e).unwrap(), &want);
    }
    let last = Array::sample(&[3, 4]);
    let want = Array::new(&x.shape, |i| {
        let start = (i[0] * 6 + i[1]) * 12;
        let (mean, var) = moments(&x.data[start..start + 12]);
        (x.at(i) - mean) / (var + e).sqrt() * last.at(&i[2..]) + last.at(&i[2..])
    });
    close(&tx.layer_norm(&[3, 4], Some(&of(&last)), Some(&of(&last)), e).unwrap(), &want);
}

#[test]
fn norms_refuse_what_does_not_fit() {
    let (x, c) = (Tensor::ones(&[2, 6, 4], DType::F32).unwrap(), Tensor::ones(&[6], DType::F32).unwrap());
    let four = Tensor::ones(&[4], DType::F32).unwrap();
    let half = c.cast(DType::F16).unwrap();
    assert_error(x.batch_norm(&four, &c, None, None, 0.0), &["batch_norm", "[4]", "a mean of shape [6]"]);
    assert_error(x.batch_norm(&c, &half, None, None, 0.0), &["batch_norm", "f16"]);
    assert_error(four.batch_norm(&c, &c, None, None, 0.0), &["[n, c, ..]"]);
    assert_error(x.group_norm(4, None, None, 0.0), &["group_norm", "groups 4", "6 channels"]);
    assert_error(x.group_norm(0, None, None, 0.0), &["groups 0"]);
    // Any number divides no channels, and no count of elements may overflow for it.
    let none = Tensor::ones(&[3, 0, 4], DType::F32).unwrap();
    assert_eq!(none.group_norm(7, None, None, 0.0).unwrap().shape(), [3, 0, 4]);
    assert!(none.group_norm(usize::MAX, None, None, 0.0).is_err());
    assert_error(x.layer_norm(&[5], None, None, 0.0), &["layer_norm", "ends in [5]"]);
    assert_error(x.layer_norm(&[4], Some(&c), None, 0.0), &["weight", "[4]", "[6]"]);
    assert_error(x.cast(DType::I32).unwrap().group_norm(1, None, None, 0.0), &["i32"]);
}

#[test]
fn a_network_is_what_its_layers_are() {
    let random = |shape: &[usize], seed| Tensor::randn(shape, DType::F32, seed).unwrap();
    let (cw, cb) = (random(&[6, 4, 3, 3], 1), random(&[6], 2));
    let (bw, bb, bm, bv) = (random(&[6], 3), random(&[6], 4), random(&[6], 5), random(&[6], 6).square().unwrap());
    let (gw, gb) = (random(&[6], 7), random(&[6], 8));
    let (lw, nw) = (random(&[5, 6], 9), random(&[5], 10));
    let names = ["conv.weight", "conv.bias", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "gn.weight"];
    let names = names.into_iter().chain(["gn.bias", "fc.weight", "ln.weight"]).map(String::from);
    let all = [&cw, &cb, &bw, &bb, &bm, &bv, &gw, &gb, &lw, &nw].map(Clone::clone);
    let file = SafeTensors::new(names.zip(all).collect()).unwrap().to_bytes().unwrap();
    let file = SafeTensors::from_bytes(&file).unwrap();
    let p = Parameters::new(&file);
    let net = Sequential::new()
        .with(Conv::load(&p.sub("conv"), ConvOptions::padding(1)).unwrap())
        .with(BatchNorm::load(&p.sub("bn"), 1e-5).unwrap())
        .with(Activation::LeakyRelu(0.1))
        .with(GroupNorm::load(&p.sub("gn"), 3, 1e-5).unwrap())
        .with(|x: &Tensor| x.mean(&[2, 3], false))
        .with(Linear::load(&p.sub("fc")).unwrap())
        .with(LayerNorm::load(&p.sub("ln"), 1e-5).unwrap())
        .with(Activation::Gelu);
    let x = random(&[2, 4, 9, 8], 11);
    let y = x.conv(&cw, Some(&cb), &ConvOptions::padding(1)).unwrap();
    let y = y.batch_norm(&bm, &bv, Some(&bw), Some(&bb), 1e-5).unwrap().leaky_relu(0.1).unwrap();
    let y = y.group_norm(3, Some(&gw), Some(&gb), 1e-5).unwrap().mean(&[2, 3], false).unwrap();
    let y = y.linear(&lw, None).unwrap().layer_norm(&[5], Some(&nw), None, 1e-5).unwrap().gelu().unwrap();
    let f = compile(&[ArgSpec::new(DType::F32, x.shape())], |a| Ok(vec![net.forward(&a[0])?])).unwrap();
    close(&f.call(&[&x]).unwrap()[0], &Array::of(&y));
    assert_error(Conv::load(&p.sub("fv"), ConvOptions::default()), &["\"fv.weight\"", "begins with \"fv.\""]);
    assert_error(BatchNorm::load(&p.sub("gn"), 0.0), &["\"gn.running_mean\"", "gn.bias, gn.weight"]);
    assert_error(GroupNorm::load(&p.sub("gn"), 0, 0.0), &["groups 0"]);
    assert_error(net.forward(&lw), &["conv"]);
}

#[test]
fn activations_are_the_tensors_own() {
    let x = Array::sample(&[3, 5]).to(DType::F32);
    let all: [(Activation, winograph::Result<Tensor>); 7] = [
        (Activation::Relu, x.relu()),
        (Activation::Sigmoid, x.sigmoid()),
        (Activation::Tanh, x.tanh()),
        (Activation::Silu, x.silu()),
        (Activation::Gelu, x.gelu()),
        (Activation::GeluTanh, x.gelu_tanh()),
        (Activation::Softmax(-1), x.softmax(-1)),
    ];
    let (got, want): (Vec<Tensor>, Vec<Tensor>) =
        all.into_iter().map(|(a, want)| (a.forward(&x).unwrap(), want.unwrap())).unzip();
    let both: Vec<&Tensor> = got.iter().chain(&want).collect();
    Tensor::realize_all(&both).unwrap();
    for (g, w) in got.iter().zip(&want) {
        assert_eq!(g.to_vec::<f32>().unwrap(), w.to_vec::<f32>().unwrap());
    }
    assert_ne!(got[4].to_vec::<f32>().unwrap(), got[5].to_vec::<f32>().unwrap());
}
