//! Tensor-level convolution with generated matrices, and the environment variable that asks for it.

use winograph::{ArgSpec, ConvOptions, DType, Error, FunctionOptions, Options, Tensor, compile_with};
use winograph_compiler::Algorithm;

fn pair(input: &[usize], weight: &[usize]) -> (Tensor, Tensor) {
    (Tensor::randn(input, DType::F32, 1).unwrap(), Tensor::randn(weight, DType::F32, 2).unwrap())
}

#[test]
fn it_agrees_with_the_direct_sum() {
    let options = ConvOptions { groups: 2, ..ConvOptions::padding(1) };
    let (x, w) = pair(&[1, 4, 9, 7], &[6, 2, 3, 3]);
    let form = x.conv_tensor_level(&w, None, &options, Some(&[4, 2]), None).unwrap();
    assert_eq!(form.transforms.iter().map(|t| (t.m, t.r)).collect::<Vec<_>>(), [(4, 3), (2, 3)]);
    let (a, b) = (form.tensor, x.conv_direct(&w, None, &options).unwrap());
    for (a, b) in a.to_vec::<f32>().unwrap().iter().zip(b.to_vec::<f32>().unwrap()) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
}

#[test]
fn it_takes_the_tile_that_the_rewrite_takes() {
    for (input, weight, padding) in [
        (vec![1, 16, 64, 64], vec![16, 16, 3, 3], 1),
        (vec![2, 8, 50], vec![8, 8, 5], 0),
        (vec![1, 4, 12, 12, 12], vec![4, 4, 3, 3, 3], 1),
        // Axes with one tap are left alone.
        (vec![2, 16, 20, 24], vec![16, 16, 1, 3], 1),
        (vec![1, 8, 6, 20, 24], vec![8, 8, 3, 1, 5], 0),
    ] {
        let (x, w) = pair(&input, &weight);
        let options = ConvOptions::padding(padding);
        let form = x.conv_tensor_level(&w, None, &options, None, None).unwrap();
        let winograd = Options { algorithm: Algorithm::Winograd, ..Options::default() };
        let target = winograph::cpu::host_target();
        let args = [ArgSpec::new(DType::F32, &input)];
        let (_, explanation) =
            winograph::plan(&args, &target, &winograd, false, |a| Ok(vec![a[0].conv_direct(&w, None, &options)?]))
                .unwrap();
        let tile: Vec<usize> = form.transforms.iter().map(|t| t.m).collect();
        assert_eq!(explanation.windows[0].tile, tile);
        assert_eq!(explanation.windows[0].reason, form.reason);
    }
}

#[test]
fn it_says_where_it_does_not_apply() {
    let (x, w) = pair(&[1, 2, 20, 20], &[2, 2, 3, 3]);
    let options = |stride: usize, dilation: usize| ConvOptions {
        stride: vec![stride],
        dilation: vec![dilation],
        ..ConvOptions::default()
    };
    let reason = |x: &Tensor, w: &Tensor, o: &ConvOptions, tile: Option<&[usize]>| match x
        .conv_tensor_level(w, None, o, tile, None)
    {
        Err(Error::Inapplicable { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason(&x, &w, &options(2, 1), None).contains("stride 2"));
    assert!(reason(&x, &w, &options(1, 2), None).contains("dilation 2"));
    assert!(reason(&x, &pair(&[1], &[2, 2, 1, 1]).1, &options(1, 1), None).contains("1 taps"));
    let one = pair(&[1], &[2, 2, 1, 3]).1;
    let form = x.conv_tensor_level(&one, None, &options(1, 1), Some(&[4, 2]), None).unwrap();
    assert_eq!(form.transforms.iter().map(|t| (t.m, t.r)).collect::<Vec<_>>(), [(2, 3)]);
    assert!(reason(&x, &w, &options(1, 1), Some(&[4, 4, 4])).contains("3 numbers for 2 window axes"));
    assert!(reason(&x, &pair(&[1], &[2, 2, 6, 6]).1, &options(1, 1), None).contains("6 taps"));
    assert!(reason(&x, &pair(&[1], &[2, 2, 5, 5]).1, &options(1, 1), Some(&[6])).contains("at most 8"));
    assert!(reason(&pair(&[0, 2, 9, 9], &[1]).0, &w, &options(1, 1), None).contains("no sum of products"));
    for tile in [&[0][..], &[5]] {
        let wrong = x.conv_tensor_level(&w, None, &options(1, 1), Some(tile), None);
        assert!(matches!(wrong, Err(Error::Argument { .. })), "{wrong:?}");
    }
}

/// Run by [`the_environment_asks`] in a process of its own.
#[test]
#[ignore = "needs WINO_OLD=1"]
fn conv2d_with_wino_old() {
    let (x, w) = pair(&[1, 2, 8, 8], &[2, 2, 3, 3]);
    let plan = FunctionOptions { compiler: Some(Options::default()), ..FunctionOptions::default() };
    let kernels = |stride: usize| {
        let options = ConvOptions { stride: vec![stride], ..ConvOptions::default() };
        let args = [ArgSpec::new(DType::F32, x.shape())];
        compile_with(&args, &plan, |a| Ok(vec![a[0].conv2d(&w, None, &options)?])).unwrap().program().run.len()
    };
    assert!(kernels(1) > 1, "several kernels");
    assert_eq!(kernels(2), 1, "where it does not apply, the direct sum");
}

#[test]
fn the_environment_asks() {
    let out = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "conv2d_with_wino_old"])
        .env("WINO_OLD", "1")
        .env("DEBUG", "4")
        .output()
        .unwrap();
    assert!(out.status.success(), "{out:?}");
    assert!(String::from_utf8_lossy(&out.stdout).contains("1 passed"), "{out:?}");
    assert!(String::from_utf8_lossy(&out.stderr).contains("typedef"), "DEBUG=4 shows source: {out:?}");
}
