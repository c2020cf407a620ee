//! Long sums in blocks are right, closer to the exact ones than sums in sequence, and the same for any number of threads.

use std::sync::Arc;
use winograph::cpu::{CpuDevice, CpuOptions};
use winograph::env::Env;
use winograph::{Algorithm, ArgSpec, ConvOptions, DType, FunctionOptions, Options, Result, Tensor, compile_with};

/// No sum has two blocks of so many terms.
const SEQUENCE: Option<usize> = Some(usize::MAX);

type Written = fn(&[Tensor]) -> Result<Tensor>;

/// The result with sums in blocks of so many terms, and the f64 one.
fn results(
    shapes: &[&[usize]],
    algorithm: Algorithm,
    sum_block: Option<usize>,
    threads: usize,
    f: Written,
) -> [Vec<f64>; 2] {
    let args: Vec<Tensor> =
        shapes.iter().zip(1..).map(|(s, seed)| Tensor::randn(s, DType::F32, seed).unwrap()).collect();
    let run = |dtype: DType, compiler: Options| {
        let specs: Vec<ArgSpec> = shapes.iter().map(|s| ArgSpec::new(dtype, s)).collect();
        let device =
            CpuDevice::new(CpuOptions { threads: Some(threads), ..CpuOptions::from_env(&Env::read().unwrap()) })
                .unwrap();
        let how =
            FunctionOptions { device: Some(Arc::new(device)), compiler: Some(compiler), ..FunctionOptions::default() };
        let function = compile_with(&specs, &how, |args| Ok(vec![f(args)?])).unwrap();
        let args: Vec<Tensor> = args.iter().map(|a| a.cast(dtype).unwrap()).collect();
        let out = function.call(&args.iter().collect::<Vec<_>>()).unwrap();
        out[0].cast(DType::F64).unwrap().to_vec::<f64>().unwrap()
    };
    let direct = Options { algorithm: Algorithm::Direct, ..Options::default() };
    [run(DType::F32, Options { algorithm, sum_block, ..Options::default() }), run(DType::F64, direct)]
}

fn relative([y, exact]: &[Vec<f64>; 2]) -> f64 {
    let squares = |of: &mut dyn Iterator<Item = f64>| of.map(|v| v * v).sum::<f64>();
    (squares(&mut y.iter().zip(exact).map(|(a, b)| a - b)) / squares(&mut exact.iter().copied())).sqrt()
}

/// Prints both errors; blocks must at least halve that of sequences of this length.
fn compare(what: &str, shapes: &[&[usize]], algorithm: Algorithm, block: usize, most: f64, f: Written) {
    let sequence = results(shapes, algorithm, SEQUENCE, 1, f);
    let blocked = results(shapes, algorithm, Some(block), 1, f);
    let (before, after) = (relative(&sequence), relative(&blocked));
    println!("{what}: relative L2 error {before:.2e} in sequence, {after:.2e} in blocks of {block}");
    assert!(after < most * before, "{what}: {after:e}, in sequence {before:e}");
    assert_eq!(blocked[0], results(shapes, algorithm, Some(block), 2, f)[0], "{what}: threads change it");
}

fn product(args: &[Tensor]) -> Result<Tensor> {
    args[0].matmul(&args[1])
}

/// Of columns: rows would be summed in the lanes of vectors.
fn mean(args: &[Tensor]) -> Result<Tensor> {
    args[0].add(1)?.mean(&[0], false)
}

fn conv(args: &[Tensor]) -> Result<Tensor> {
    args[0].conv2d(&args[1], None, &ConvOptions::padding(1))
}

#[test]
fn long_products_gain() {
    compare("4096 terms", &[&[16, 4096], &[4096, 24]], Algorithm::Auto, 64, 0.4, product);
    compare("1031 terms, a prime", &[&[16, 1031], &[1031, 24]], Algorithm::Auto, 64, 0.5, product);
}

#[test]
fn convolutions_gain() {
    let shapes: [&[usize]; 2] = [&[1, 1024, 6, 6], &[8, 1024, 3, 3]];
    compare("direct, 1024 channels", &shapes, Algorithm::Direct, 128, 0.4, conv);
    compare("Winograd, 1024 channels", &shapes, Algorithm::Winograd, 64, 0.8, conv);
}

#[test]
fn plain_sums_gain() {
    compare("a mean", &[&[9000, 40]], Algorithm::Auto, 128, 0.5, mean);
}

#[test]
fn plain_sums_are_in_blocks_unless_told_otherwise_and_products_are_not() {
    let at = |shapes: &[&[usize]], block, f: Written| results(shapes, Algorithm::Auto, block, 1, f)[0].clone();
    let long: [&[usize]; 1] = [&[9000, 40]];
    assert_eq!(at(&long, None, mean), at(&long, Some(128), mean));
    assert_ne!(at(&long, None, mean), at(&long, SEQUENCE, mean));
    let short: [&[usize]; 1] = [&[511, 40]];
    assert_eq!(at(&short, None, mean), at(&short, SEQUENCE, mean));
    let squares: Written = |args| args[0].var(&[0], true, false);
    assert!(relative(&results(&long, Algorithm::Auto, None, 1, squares)) < 4e-7);
    let factors: [&[usize]; 2] = [&[16, 4096], &[4096, 24]];
    assert_eq!(at(&factors, None, product), at(&factors, SEQUENCE, product));
}

#[test]
fn sums_shorter_than_two_blocks_stay() {
    let shapes: [&[usize]; 2] = [&[16, 127], &[127, 24]];
    let [a, b] = [SEQUENCE, Some(64)].map(|block| results(&shapes, Algorithm::Auto, block, 1, product)[0].clone());
    assert_eq!(a, b);
}
