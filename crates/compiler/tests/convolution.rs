//! Convolutions through every pass, run by the interpreter and compared with f64 sums.

mod common;

use common::{Conv, bytes, error, floats, interpret};
use winograph_compiler::{Algorithm, Options, Target, compile};

fn run(conv: &Conv, options: &Options) -> (Vec<f32>, bool) {
    let (program, explanation) = compile(&conv.graph(), &Target::cpu(64), options).unwrap();
    if std::env::var_os("SHOW").is_some() {
        for k in &explanation.kernels {
            println!("{} {:?} {} {} prepare={}", k.name, k.role, k.output, k.plan, k.prepare);
        }
        for k in &program.kernels {
            println!("{}", winograph_ir::text::print_linear(k));
        }
        println!("{:?}", explanation.windows);
        println!("{:?}", explanation.layouts);
    }
    let (x, w) = conv.inputs();
    let out = interpret(&program, &[bytes(&x), bytes(&w)]);
    (floats(&out[0]), explanation.windows.iter().any(|w| w.applied))
}

#[test]
fn the_reference_shape_is_right_in_both_forms() {
    let conv = Conv::conv2d(1, 16, 16, 16, 16);
    let (x, w) = conv.inputs();
    let reference = conv.reference(&x, &w);
    for (algorithm, wanted, limit) in [(Algorithm::Direct, false, 1e-6), (Algorithm::Winograd, true, 3e-6)] {
        let options = Options {
            algorithm,
            tile: (algorithm == Algorithm::Winograd).then(|| vec![4]),
            verify_each_pass: true,
            ..Options::default()
        };
        let (y, applied) = run(&conv, &options);
        assert_eq!(applied, wanted);
        let e = error(&y, &reference);
        assert!(e < limit, "{algorithm:?}: relative error {e:e}");
    }
}

/// A small generator of shapes: the same ones at every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }

    fn pick(&mut self, from: &[usize]) -> usize {
        from[self.below(from.len())]
    }
}

fn random_conv(r: &mut Random) -> Conv {
    loop {
        let rank = 1 + r.below(3);
        let groups = r.pick(&[1, 1, 1, 2, 3]);
        let largest = [40, 14, 7][rank - 1];
        let conv = Conv {
            n: r.pick(&[1, 1, 2, 3]),
            groups,
            c: groups * r.pick(&[1, 2, 3, 8, 17]),
            k: groups * r.pick(&[1, 2, 5, 16]),
            size: (0..rank).map(|_| 1 + r.below(largest)).collect(),
            window: (0..rank).map(|_| r.pick(&[1, 2, 3, 3, 4, 5])).collect(),
            padding: (0..rank).map(|_| (r.below(3), r.below(3))).collect(),
            stride: (0..rank).map(|_| r.pick(&[1, 1, 1, 2])).collect(),
            dilation: (0..rank).map(|_| r.pick(&[1, 1, 1, 2])).collect(),
        };
        let fits = (0..rank).all(|i| {
            conv.size[i] + conv.padding[i].0 + conv.padding[i].1 >= conv.dilation[i] * (conv.window[i] - 1) + 1
        });
        let work =
            conv.n * conv.c * conv.k * conv.size.iter().product::<usize>() * conv.window.iter().product::<usize>();
        if fits && work < 300_000 {
            return conv;
        }
    }
}

#[test]
fn random_convolutions_are_right_in_both_forms() {
    let mut r = Random(7);
    let mut rewritten = 0;
    for n in 0..150 {
        let conv = random_conv(&mut r);
        let (x, w) = conv.inputs();
        let reference = conv.reference(&x, &w);
        let tile = r.pick(&[2, 2, 3, 4]);
        for algorithm in [Algorithm::Direct, Algorithm::Winograd] {
            let options = Options {
                algorithm,
                tile: (algorithm == Algorithm::Winograd).then(|| vec![tile]),
                verify_each_pass: true,
                ..Options::default()
            };
            let (y, applied) = run(&conv, &options);
            rewritten += applied as usize;
            let e = error(&y, &reference);
            assert!(e < 2e-5, "case {n} {algorithm:?} tile {tile} {conv:?}: relative error {e:e}");
        }
    }
    assert!(rewritten > 30, "only {rewritten} were rewritten");
}
