//! Convolution in its direct and its tensor-level Winograd form against loops in `f64`.

mod common;
use common::{Array, Choice, assert_close, assert_error, conv_reference};
use winograph::{ConvOptions, DType, Matrices, Tensor};

/// Cook–Toom's matrices in `f64`: points and infinity; the products' scale goes to G.
fn cook_toom(m: usize, r: usize) -> Matrices {
    let n = m + r - 1;
    let points = &[0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0][..n - 1];
    let product = |skip: Option<usize>| {
        let mut p = vec![1.0];
        for (j, x) in points.iter().enumerate().filter(|(j, _)| Some(*j) != skip) {
            let _ = j;
            let mut next = vec![0.0; p.len() + 1];
            for (i, c) in p.iter().enumerate() {
                next[i + 1] += c;
                next[i] -= c * x;
            }
            p = next;
        }
        p.resize(n, 0.0);
        p
    };
    let scale =
        |j: usize| points.iter().enumerate().filter(|(l, _)| *l != j).map(|(_, p)| points[j] - p).product::<f64>();
    let powers = |rows: usize| {
        let mut out: Vec<Vec<f64>> = points.iter().map(|p| (0..rows).map(|i| p.powi(i as i32)).collect()).collect();
        out.push((0..rows).map(|i| (i == rows - 1) as u8 as f64).collect());
        out
    };
    let a = powers(m);
    let mut g = powers(r);
    for (j, row) in g.iter_mut().enumerate().take(n - 1) {
        row.iter_mut().for_each(|v| *v /= scale(j));
    }
    let mut bt: Vec<Vec<f64>> = (0..n - 1).map(|j| product(Some(j))).collect();
    bt.push(product(None));
    let at = (0..m).map(|i| a.iter().map(|row| row[i]).collect()).collect();
    Matrices { at, g, bt }
}

fn options(stride: &[usize], padding: &[(usize, usize)], dilation: &[usize], groups: usize) -> ConvOptions {
    ConvOptions {
        stride: stride.to_vec(),
        padding: padding.to_vec(),
        dilation: dilation.to_vec(),
        groups,
        ..ConvOptions::default()
    }
}

/// 500 convolutions of random shape, 1 to 3 axes, every option; unless `plain`, where stride and dilation are 1.
fn random_conv(c: &mut Choice, plain: bool) -> (Array, Array, Option<Array>, ConvOptions) {
    let rank = c.pick(1, 3);
    let groups = c.pick(1, 3);
    let (cg, kg) = (c.pick(1, 3), c.pick(1, 2));
    let (mut stride, mut padding, mut dilation, mut x, mut w) = (vec![], vec![], vec![], vec![c.pick(0, 2)], vec![]);
    x.push(groups * cg);
    w.extend([groups * kg, cg]);
    for _ in 0..rank {
        let window = c.pick(1, 3);
        stride.push(if plain { 1 } else { c.pick(1, 3) });
        dilation.push(if plain { 1 } else { c.pick(1, 2) });
        padding.push((c.pick(0, 2), c.pick(0, 2)));
        let span = dilation.last().unwrap() * (window - 1) + 1;
        x.push(span + c.pick(0, if rank == 3 { 2 } else { 5 }));
        w.push(window);
    }
    let bias = (c.pick(0, 1) == 1).then(|| Array::sample(&w[..1]));
    (Array::sample(&x), Array::sample(&w), bias, options(&stride, &padding, &dilation, groups))
}

#[test]
fn direct_against_loops() {
    let mut c = Choice(1);
    for case in 0..500 {
        let (x, w, bias, o) = random_conv(&mut c, false);
        let (dtype, tolerance) = [(DType::F32, 1e-5), (DType::F64, 1e-13)][case % 2];
        println!("{case}: {:?} {:?} {o:?}", x.shape, w.shape);
        let expected = conv_reference(&x, &w, bias.as_ref(), &o.stride, &o.padding, &o.dilation, o.groups);
        let b = bias.map(|b| b.to(dtype));
        assert_close(&x.to(dtype).conv(&w.to(dtype), b.as_ref(), &o).unwrap(), &expected, tolerance);
    }
}

#[test]
fn winograd_against_loops() {
    let mut c = Choice(2);
    for case in 0..150 {
        let (x, w, bias, o) = random_conv(&mut c, true);
        let tile: Vec<usize> = w.shape[2..].iter().map(|_| c.pick(1, 4)).collect();
        let m: Vec<Matrices> = tile.iter().zip(&w.shape[2..]).map(|(&m, &r)| cook_toom(m, r)).collect();
        let (dtype, tolerance) = [(DType::F32, 1e-4), (DType::F64, 1e-12)][case % 2];
        println!("{case}: {:?} {:?} {o:?} {tile:?}", x.shape, w.shape);
        let expected = conv_reference(&x, &w, bias.as_ref(), &o.stride, &o.padding, &o.dilation, o.groups);
        let largest = expected.data.iter().fold(1.0, |m: f64, v| m.max(v.abs()));
        let b = bias.map(|b| b.to(dtype));
        let y = x.to(dtype).conv_winograd(&w.to(dtype), b.as_ref(), &o, &tile, &m).unwrap();
        assert_close(&y, &expected, tolerance * largest);
    }
}

#[test]
fn half_floats_round_once() {
    let (x, w) = (Array::sample(&[1, 8, 7, 6]).map(|v| v / 8.0), Array::sample(&[4, 8, 3, 3]).map(|v| v / 8.0));
    let o = ConvOptions::padding(1);
    for (dtype, tolerance) in [(DType::F16, 1e-3), (DType::BF16, 8e-3)] {
        let (t, u) = (x.to(dtype), w.to(dtype));
        let pads = [(1, 1); 2];
        let expected = conv_reference(&Array::of(&t), &Array::of(&u), None, &[1, 1], &pads, &[1, 1], 1);
        let y = t.conv(&u, None, &o).unwrap();
        assert_eq!(y.dtype(), dtype);
        assert_close(&y, &expected, tolerance);
        let y = t.conv_winograd(&u, None, &o, &[2, 2], &[cook_toom(2, 3), cook_toom(2, 3)]).unwrap();
        assert_eq!(y.dtype(), dtype);
        assert_close(&y, &expected, tolerance);
    }
}

#[test]
fn without_batch_and_without_elements() {
    let x = Array::sample(&[2, 5, 5]);
    let w = Array::sample(&[3, 2, 3, 3]);
    let y = x.to(DType::F32).conv2d(&w.to(DType::F32), None, &ConvOptions::default()).unwrap();
    let z = x.to(DType::F32).unsqueeze(0).unwrap().conv(&w.to(DType::F32), None, &ConvOptions::default()).unwrap();
    assert_eq!(y.shape(), [3, 3, 3]);
    assert_eq!(Array::of(&y).data, Array::of(&z).data);
    let none = Tensor::zeros(&[0, 2, 5, 5], DType::F32).unwrap();
    let o = ConvOptions::default();
    assert_eq!(none.conv(&w.to(DType::F32), None, &o).unwrap().shape(), [0, 3, 3, 3]);
    let m = [cook_toom(2, 3), cook_toom(2, 3)];
    assert_eq!(none.conv_winograd(&w.to(DType::F32), None, &o, &[2, 2], &m).unwrap().shape(), [0, 3, 3, 3]);
    let no_channels = Tensor::zeros(&[1, 0, 5, 5], DType::F32).unwrap();
    let no_weight = Tensor::zeros(&[1, 0, 3, 3], DType::F32).unwrap();
    let b = Tensor::ones(&[1], DType::F32).unwrap();
    let y = no_channels.conv(&no_weight, Some(&b), &o).unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap(), [1.0; 9]);
    let y = no_channels.conv_winograd(&no_weight, Some(&b), &o, &[2, 2], &m).unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap(), [1.0; 9]);
}

#[test]
fn integers_convolve() {
    let x = Tensor::arange(0i32, 5, 1).unwrap().reshape(&[1, 1, 5]).unwrap();
    let w = Tensor::from_slice(&[1i32, 10], &[1, 1, 2]).unwrap();
    let y = x.conv1d(&w, None, &ConvOptions::default()).unwrap();
    assert_eq!(y.to_vec::<i32>().unwrap(), [10, 21, 32, 43]);
}

#[test]
fn wrong_arguments() {
    let t = |s: &[usize]| Tensor::ones(s, DType::F32).unwrap();
    let x = t(&[1, 16, 8, 8]);
    let d = ConvOptions::default();
    assert_error(
        x.conv(&t(&[4, 8, 3, 3]), None, &d),
        &["conv", "[1, 16, 8, 8]", "[4, 8, 3, 3]", "16 channels on axis 1", "1 group"],
    );
    let o = options(&[], &[], &[], 3);
    assert_error(x.conv(&t(&[6, 5, 3, 3]), None, &o), &["conv", "groups 3", "16 input", "6 output"]);
    let o = options(&[], &[], &[], 0);
    assert_error(x.conv(&t(&[6, 5, 3, 3]), None, &o), &["conv", "groups 0"]);
    assert_error(x.conv(&t(&[4, 16, 9, 9]), None, &d), &["conv", "[4, 16, 9, 9]", "no larger", "9 of 8"]);
    let o = options(&[], &[], &[4], 1);
    assert_error(x.conv(&t(&[4, 16, 3, 3]), None, &o), &["conv", "spans 9 of 8"]);
    assert_error(x.conv(&t(&[4, 16, 0, 3]), None, &d), &["conv", "[4, 16, 0, 3]", "at least one tap"]);
    let o = options(&[0], &[], &[], 1);
    assert_error(x.conv(&t(&[4, 16, 3, 3]), None, &o), &["conv", "stride [0, 0]", "positive"]);
    let o = options(&[], &[], &[1, 0], 1);
    assert_error(x.conv(&t(&[4, 16, 3, 3]), None, &o), &["conv", "dilation [1, 0]"]);
    let o = options(&[1, 1, 1], &[], &[], 1);
    assert_error(x.conv(&t(&[4, 16, 3, 3]), None, &o), &["conv", "stride [1, 1, 1]", "2 spatial axes"]);
    let o = options(&[], &[(usize::MAX, 1)], &[], 1);
    assert_error(x.conv(&t(&[4, 16, 3, 3]), None, &o), &["conv", "padding", "counted"]);
    let o = options(&[], &[(usize::MAX / 64, 1)], &[], 1);
    assert_error(x.conv(&t(&[4, 16, 3, 3]), None, &o), &["conv", "overflow"]);
    assert_error(x.conv(&t(&[4, 16, 3]), None, &d), &["conv", "[4, 16, 3]", "1 to 3 spatial"]);
    assert_error(x.conv(&t(&[4]), None, &d), &["conv", "[4]", "[k, c/groups, window..]"]);
    assert_error(x.conv1d(&t(&[4, 16, 3, 3]), None, &d), &["conv1d", "3 axes"]);
    assert_error(x.conv(&t(&[4, 16, 3, 3]), Some(&t(&[3])), &d), &["conv", "[3]", "bias of shape [4]"]);
    let double = Tensor::ones(&[4, 16, 3, 3], DType::F64).unwrap();
    assert_error(x.conv(&double, None, &d), &["conv", "f32 and f64", "cast"]);
    let b = x.cast(DType::Bool).unwrap();
    assert_error(b.conv(&b, None, &d), &["conv", "bool"]);

    let w = t(&[4, 16, 3, 3]);
    let m = [cook_toom(2, 3), cook_toom(2, 3)];
    let wino = |o: &ConvOptions, tile: &[usize]| x.conv_winograd(&w, None, o, tile, &m);
    assert_error(wino(&options(&[2], &[], &[], 1), &[2, 2]), &["conv_winograd", "stride [2, 2]", "use conv"]);
    assert_error(wino(&options(&[], &[], &[2], 1), &[2, 2]), &["conv_winograd", "dilation [2, 2]"]);
    assert_error(wino(&d, &[2, 0]), &["conv_winograd", "tile [2, 0]", "positive"]);
    assert_error(wino(&d, &[2]), &["conv_winograd", "each of 2"]);
    assert_error(wino(&d, &[2, 4]), &["conv_winograd", "F(4, 3)"]);
    assert_error(wino(&d, &[2, usize::MAX]), &["conv_winograd"]);
    let i = x.cast(DType::I32).unwrap();
    assert_error(i.conv_winograd(&w, None, &d, &[2, 2], &m), &["conv_winograd", "i32", "floating"]);
}
