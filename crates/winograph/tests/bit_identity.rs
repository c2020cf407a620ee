//! The two forms of Winograd give the same bits: convolutions in terms of tensor operations
//! ([`Tensor::conv_winograd`]) and convolutions that the compiler rewrites, with the same tile and matrices.
//!
//! What this rests on: the same order of axes and the same factoring of the transforms, Ĝ in f64 and rounded once,
//! channels summed one after another with fused multiply-adds. Another form of kernel, lane or layout must not change
//! any of it.

use winograph::{ArgSpec, ConvOptions, DType, Function, FunctionOptions, Matrices, Options, Tensor, compile_with};
use winograph_compiler::Algorithm;
use winograph_compiler::winograd::points;

/// One convolution.
#[derive(Clone, Debug)]
struct Shape {
    n: usize,
    c: usize,
    k: usize,
    groups: usize,
    size: Vec<usize>,
    window: Vec<usize>,
    padding: Vec<(usize, usize)>,
    bias: bool,
    /// Whether the weights are an argument, not a constant.
    weights_vary: bool,
}

impl Shape {
    fn options(&self) -> ConvOptions {
        ConvOptions { padding: self.padding.clone(), groups: self.groups, ..ConvOptions::default() }
    }

    fn input(&self) -> Vec<usize> {
        [&[self.n, self.c], &self.size[..]].concat()
    }

    fn weight(&self) -> Vec<usize> {
        [&[self.k, self.c / self.groups], &self.window[..]].concat()
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A shape of so many axes that a tile fits: at most 8 positions an axis, at least two outputs.
    fn shape(&mut self, rank: usize, tile: &[usize]) -> Shape {
        let m = |i: usize| tile[i % tile.len()];
        let groups = self.pick(&[1, 1, 1, 2, 3]);
        let window: Vec<usize> = (0..rank)
            .map(|i| {
                let fits: Vec<usize> = [2, 3, 3, 3, 4, 5, 7].into_iter().filter(|r| m(i) + r <= 9).collect();
                // The three-dimensional transforms unroll into much code.
                if rank == 3 { self.pick(&fits[..1.max(fits.len().min(2))]) } else { self.pick(&fits) }
            })
            .collect();
        let largest = [30, 11, 5][rank - 1];
        Shape {
            n: self.pick(&[1, 1, 2]),
            c: groups * self.pick(&[1, 2, 3, 7, 16]),
            k: groups * self.pick(&[1, 2, 5, 16]),
            groups,
            size: window.iter().map(|r| r + 1 + self.below(largest)).collect(),
            padding: (0..rank).map(|_| (self.below(3), self.below(3))).collect(),
            window,
            bias: self.below(3) == 0,
            weights_vary: self.below(3) == 0,
        }
    }
}

fn matrices(window: &[usize], tile: &[usize]) -> Vec<Matrices> {
    let of = |(i, &r): (usize, &usize)| {
        let t = points::transforms(tile[i % tile.len()], r, None).unwrap();
        Matrices { at: t.at.to_f64(), g: t.g.to_f64(), bt: t.bt.to_f64() }
    };
    window.iter().enumerate().map(of).collect()
}

/// All the convolutions as one function, in one form.
fn function(shapes: &[Shape], dtype: DType, tile: &[usize], weights: &[Tensor], tensor_level: bool) -> Function {
    let mut args: Vec<ArgSpec> = shapes.iter().map(|s| ArgSpec::new(dtype, &s.input())).collect();
    args.extend(shapes.iter().filter(|s| s.weights_vary).map(|s| ArgSpec::new(dtype, &s.weight())));
    let algorithm = if tensor_level { Algorithm::Direct } else { Algorithm::Winograd };
    let compiler = Options {
        algorithm,
        tile: Some(tile.iter().map(|&m| m.into()).collect()),
        verify_each_pass: true,
        ..Options::default()
    };
    let options = FunctionOptions { compiler: Some(compiler), ..FunctionOptions::default() };
    let function = compile_with(&args, &options, |args| {
        let (inputs, mut varying) = (&args[..shapes.len()], args[shapes.len()..].iter());
        let conv = |(i, s): (usize, &Shape)| {
            let weight = if s.weights_vary { varying.next().unwrap() } else { &weights[i] };
            let bias = s.bias.then(|| Tensor::randn(&[s.k], dtype, i as u64).unwrap());
            match tensor_level {
                true => {
                    let tile: Vec<usize> = (0..s.window.len()).map(|a| tile[a % tile.len()]).collect();
                    let m = matrices(&s.window, &tile);
                    inputs[i].conv_winograd(weight, bias.as_ref(), &s.options(), &tile, &m)
                }
                false => inputs[i].conv(weight, bias.as_ref(), &s.options()),
            }
        };
        shapes.iter().enumerate().map(conv).collect()
    });
    function.unwrap()
}

fn bits(t: &Tensor) -> Vec<u64> {
    match t.dtype() {
        DType::F64 => t.to_vec::<f64>().unwrap().into_iter().map(f64::to_bits).collect(),
        // Exact for half floats.
        _ => t.cast(DType::F32).unwrap().to_vec::<f32>().unwrap().into_iter().map(|x| x.to_bits() as u64).collect(),
    }
}

/// Compares the two forms of some convolutions with one tile; gives how many there were.
#[track_caller]
fn compare(shapes: &[Shape], dtype: DType, tile: &[usize]) -> usize {
    let weights: Vec<Tensor> =
        shapes.iter().enumerate().map(|(i, s)| Tensor::randn(&s.weight(), dtype, 100 + i as u64).unwrap()).collect();
    let inputs: Vec<Tensor> =
        shapes.iter().enumerate().map(|(i, s)| Tensor::randn(&s.input(), dtype, 200 + i as u64).unwrap()).collect();
    let varying = shapes.iter().zip(&weights).filter(|(s, _)| s.weights_vary).map(|x| x.1);
    let args: Vec<&Tensor> = inputs.iter().chain(varying).collect();
    let [tensor, graph] = [true, false].map(|tensor_level| function(shapes, dtype, tile, &weights, tensor_level));
    let applied = graph.explanation().windows.iter().filter(|w| w.applied).count();
    assert_eq!(applied, shapes.len(), "tile {tile:?}: {:?}", graph.explanation().windows);
    let (a, b) = (tensor.call(&args).unwrap(), graph.call(&args).unwrap());
    for (s, (a, b)) in shapes.iter().zip(a.iter().zip(&b)) {
        let (x, y) = (bits(a), bits(b));
        assert!(x.iter().any(|b| *b != 0), "all results are zero: {s:?}");
        let different = x.iter().zip(&y).filter(|(a, b)| a != b).count();
        assert!(different == 0, "{different} of {} results differ: {dtype} tile {tile:?} {s:?}", x.len());
    }
    shapes.len()
}

#[test]
fn many_shapes() {
    let mut r = Random(3);
    let mut count = 0;
    for (m, ranks) in [(2, [6, 6, 3]), (3, [3, 4, 1]), (4, [6, 7, 1]), (6, [3, 4, 1])] {
        let shapes: Vec<Shape> = (0..3).flat_map(|i| vec![i + 1; ranks[i]]).map(|rank| r.shape(rank, &[m])).collect();
        count += compare(&shapes, DType::F32, &[m]);
    }
    for tile in [&[4, 2][..], &[2, 6], &[3, 4], &[2, 3, 4]] {
        let shapes: Vec<Shape> = (0..if tile.len() == 3 { 2 } else { 5 }).map(|_| r.shape(tile.len(), tile)).collect();
        count += compare(&shapes, DType::F32, tile);
    }
    assert!(count >= 60, "{count}");
}

/// The layers of networks, cut down: more channels than a register tile, tiles that fill whole vectors.
#[test]
fn layers() {
    let layer = |c: usize, k: usize, size: usize| Shape {
        n: 1,
        c,
        k,
        groups: 1,
        size: vec![size; 2],
        window: vec![3; 2],
        padding: vec![(1, 1); 2],
        bias: false,
        weights_vary: false,
    };
    let shapes = [layer(16, 16, 64), layer(64, 64, 14), layer(3, 32, 28), layer(96, 80, 7)];
    compare(&shapes, DType::F32, &[4]);
    compare(&shapes, DType::F32, &[2]);
}

#[test]
fn other_floats() {
    let mut r = Random(5);
    for dtype in [DType::F64, DType::F16, DType::BF16] {
        let shapes: Vec<Shape> = [1, 2, 2].into_iter().map(|rank| r.shape(rank, &[2])).collect();
        compare(&shapes, dtype, &[2]);
    }
}
