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
