//! Products whose operands are in panels compute the same bits as kernels of their own, for any number of threads.

mod common;

use common::{Conv, bytes, interpret};
use proptest::prelude::*;
use winograph_compiler::options::StageRule;
use winograph_compiler::{Algorithm, Options, Target, compile};

/// The bytes of the result and whether its operands were in panels.
fn run(conv: &Conv, stages: StageRule, vector_bytes: usize, threads: usize) -> (Vec<u8>, bool) {
    let target = Target { threads, ..Target::cpu(vector_bytes) };
    let options = Options { algorithm: Algorithm::Direct, stages, verify_each_pass: true, ..Options::default() };
    let (program, explanation) = compile(&conv.graph(), &target, &options).unwrap();
    let (x, w) = conv.inputs();
    let out = interpret(&program, &[bytes(&x), bytes(&w)]);
    (out[0].clone(), explanation.scopes.iter().any(|s| s.fused && s.reason.contains("panels")))
}

fn check(conv: &Conv, vector_bytes: usize) {
    let (wanted, _) = run(conv, StageRule::Global, vector_bytes, 1);
    for threads in 1..4 {
        let (found, panels) = run(conv, StageRule::Auto, vector_bytes, threads);
        assert!(panels, "{conv:?}");
        assert!(found == wanted, "{conv:?} with {threads} threads");
    }
}

#[test]
fn windows_of_any_kind_have_panels() {
    let plain = Conv::conv2d(1, 8, 14, 14, 16);
    let strided = Conv { stride: vec![2, 2], size: vec![23, 23], ..plain.clone() };
    let dilated = Conv { dilation: vec![2, 1], padding: vec![(2, 1), (0, 1)], ..plain.clone() };
    let grouped = Conv { groups: 2, c: 8, k: 32, n: 2, ..plain.clone() };
    let single = Conv { window: vec![1, 1], padding: vec![(0, 0); 2], c: 40, size: vec![7, 9], k: 56, ..plain.clone() };
    let ragged = Conv { k: 25, size: vec![13, 19], ..plain.clone() };
    let product = Conv {
        n: 60,
        c: 50,
        k: 70,
        size: vec![1],
        window: vec![1],
        padding: vec![(0, 0)],
        stride: vec![1],
        dilation: vec![1],
        ..plain.clone()
    };
    for conv in [plain, strided, dilated, grouped, single, ragged, product] {
        check(&conv, 64);
        check(&conv, 16);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn panels_change_no_bit(
        n in 1..3usize, c in 4..9usize, k in 8..20usize, h in 16..24usize, w in 16..24usize,
        r in 1..4usize, stride in 1..3usize, pad in 0..2usize,
    ) {
        let conv = Conv {
            n, c, k,
            size: vec![h, w],
            window: vec![r + 1, 3],
            padding: vec![(pad, pad); 2],
            stride: vec![1, stride],
            ..Conv::conv2d(1, 1, 1, 1, 1)
        };
        let (wanted, _) = run(&conv, StageRule::Global, 32, 1);
        let (found, _) = run(&conv, StageRule::Auto, 32, 2);
        prop_assert!(found == wanted);
    }
}
