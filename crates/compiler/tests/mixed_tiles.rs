//! Axes of outputs that tiles of several sizes cover: every combination of their parts is a region of the result with stages
//! of its own, and the result one buffer.

mod common;

use common::{Conv, bytes, error, floats, interpret};
use proptest::prelude::*;
use winograph_compiler::options::{AxisTile, StageRule, Tolerance};
use winograph_compiler::tune::{Tuning, TuningRule};
use winograph_compiler::winograd::bound::{Arithmetic, Bound, Sizes};
use winograph_compiler::winograd::cover;
use winograph_compiler::{Algorithm, Explanation, Options, Program, Target, compile};
use winograph_ir::indexed::Role;
use winograph_ir::tensor::{TensorGraph, TensorOp};
use winograph_ir::text::print_linear;
use winograph_ir::{BinaryOp, DType, Scalar};

fn mix(text: &str) -> Vec<AxisTile> {
    text.split(',').map(|t| t.parse().unwrap()).collect()
}

fn options(tile: &[AxisTile]) -> Options {
    Options { algorithm: Algorithm::Winograd, tile: Some(tile.to_vec()), verify_each_pass: true, ..Options::default() }
}

/// The a-priori bound of every output of a convolution with so many tiles of each size on each spatial axis.
fn bounds(conv: &Conv, tile: &[AxisTile], x: &[f32], w: &[f32]) -> Vec<f64> {
    let input = [&[conv.n, conv.c], &conv.size[..]].concat();
    let weight = [&[conv.k, conv.c / conv.groups], &conv.window[..]].concat();
    let sizes = Sizes::new(&input, &weight, &conv.padding, &conv.stride, &conv.dilation, conv.groups).unwrap();
    let mut tiles = tile.iter().cycle();
    let axes: Vec<_> = (conv.out_size().into_iter().zip(&conv.window))
        .map(|(out, &taps)| match out > 1 && taps > 1 {
            true => cover::parts(*tiles.next().unwrap(), out, taps, None).unwrap(),
            false => vec![],
        })
        .collect();
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
    Bound::mixed(&sizes, &wide(x), &wide(w), &axes, Arithmetic::gradual(DType::F32)).unwrap().all()
}

/// Compiles with these tiles, and checks that each result is within its bound and has the same bits for other numbers of
/// threads and stages in memory.
#[track_caller]
fn check(conv: &Conv, tile: &[AxisTile]) -> (Program, Explanation) {
    let (x, w) = conv.inputs();
    let mut found: Vec<(Program, Explanation)> = Vec::new();
    let mut results = Vec::new();
    for (threads, stages) in [(1, StageRule::Auto), (3, StageRule::Auto), (2, StageRule::Global)] {
        let target = Target { threads, ..Target::cpu(64) };
        let (program, explanation) = compile(&conv.graph(), &target, &Options { stages, ..options(tile) }).unwrap();
        results.push(interpret(&program, &[bytes(&x), bytes(&w)]));
        found.push((program, explanation));
    }
    assert!(results.iter().all(|r| *r == results[0]), "{conv:?} {tile:?}: other bits");
    let applied = found[0].1.windows.iter().any(|w| w.applied);
    assert!(applied, "{conv:?} {tile:?}: {:?}", found[0].1.windows);
    let (y, reference) = (floats(&results[0][0]), conv.reference(&x, &w));
    let bounds = bounds(conv, tile, &x, &w);
    assert_eq!((bounds.len(), reference.len()), (y.len(), y.len()));
    for (i, ((&y, &r), &b)) in y.iter().zip(&reference).zip(&bounds).enumerate() {
        let e = (f64::from(y) - r).abs();
        assert!(e <= b && b < 1.0, "{conv:?} {tile:?}: output {i} is {e:e} off, at most {b:e}");
    }
    found.swap_remove(0)
}

fn line(outputs: usize) -> Conv {
    Conv {
        size: vec![outputs],
        window: vec![3],
        padding: vec![(1, 1)],
        stride: vec![1],
        dilation: vec![1],
        ..square(1, 1)
    }
}

fn square(n: usize, side: usize) -> Conv {
    Conv::conv2d(n, 8, side, side, 16)
}

fn buffers(explanation: &Explanation, role: Role) -> Vec<&str> {
    let nests = explanation.kernels.iter().flat_map(|k| &k.nests);
    let mut names: Vec<&str> = nests.filter(|n| n.role == role).map(|n| &*n.output).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The number of different sets of matrices whose products are summed.
fn regions(explanation: &Explanation) -> usize {
    buffers(explanation, Role::Multiply).len()
}

#[test]
fn seven_outputs_are_four_and_three() {
    let (_, explanation) = check(&line(7), &mix("4+3"));
    assert_eq!(explanation.windows[0].tile, mix("4+3"));
    assert!(
        explanation.windows[0].reason.contains("2 regions with 0.917 of the products"),
        "{:?}",
        explanation.windows
    );
    assert_eq!(buffers(&explanation, Role::Multiply), ["t2.M", "t2.M1"]);
    assert_eq!(buffers(&explanation, Role::OutputTransform), ["out0"]);
}

#[test]
fn every_combination_of_parts_is_a_region() {
    for (side, tile, wanted) in [
        (14, "4+2", 4),
        (14, "4+6", 4),
        (14, "4+2,4", 2),
        (14, "4,4+2", 2),
        (7, "4+3", 4),
        (9, "4+3+2", 9),
        (16, "4+2", 1),
    ] {
        let (_, explanation) = check(&square(2, side), &mix(tile));
        assert_eq!(regions(&explanation), wanted, "{side} as {tile}");
    }
}

/// Tiles of one size where one covers all of the axis: nothing is mixed.
#[test]
fn tiles_that_one_size_covers_are_those_of_that_size() {
    for (outputs, tile, used) in [(16, "4+2", "4"), (3, "4+3", "3"), (2, "4+2", "2"), (13, "4+2", "4+2")] {
        let (_, explanation) = check(&line(outputs), &mix(tile));
        assert_eq!(explanation.windows[0].tile, mix(used), "{outputs} as {tile}");
    }
}

/// Regions with the same matrices share transformed weights.
#[test]
fn tiles_of_a_size_that_comes_again_share_transformed_weights() {
    let (_, explanation) = check(&line(11), &mix("4+3+4"));
    assert_eq!(regions(&explanation), 3);
    assert_eq!(buffers(&explanation, Role::WeightTransform), ["t2.W", "t2.W1"]);
}

#[test]
fn three_axes_groups_and_other_windows_are_right() {
    for (size, window, groups, tile) in [
        (vec![5, 6, 7], vec![3, 3, 3], 1, "3+2,2,4+3"),
        (vec![10, 9], vec![5, 2], 2, "4+2,6+3"),
        (vec![9, 7], vec![1, 3], 3, "4+3"),
        (vec![11], vec![7], 1, "2+2"),
        (vec![8, 10], vec![4, 3], 2, "3+2,4+2"),
    ] {
        let rank = size.len();
        let conv = Conv {
            n: 2,
            groups,
            c: 2 * groups,
            k: 3 * groups,
            size,
            window,
            padding: vec![(1, 2); rank],
            stride: vec![1; rank],
            dilation: vec![1; rank],
        };
        check(&conv, &mix(tile));
    }
}

/// A dilated window has no rewrite, with tiles of several sizes as with one.
#[test]
fn dilated_windows_stay_direct() {
    let conv = Conv { dilation: vec![1, 2], ..square(1, 14) };
    let (_, explanation) = compile(&conv.graph(), &Target::cpu(64), &options(&mix("4+2"))).unwrap();
    let window = &explanation.windows[0];
    assert!(!window.applied && window.reason.contains("dilation 2"), "{window:?}");
}

/// What follows a sum is in the output transform of each region; nothing is put together.
#[test]
fn a_bias_and_a_relu_are_in_every_output_transform() {
    let conv = square(2, 14);
    let mut g = conv.graph();
    let y = g.outputs[0];
    let shape = g.node(y).shape.clone();
    let [bias, zero] = [0.25, 0.0].map(|v| {
        let value = Scalar::from_f64(DType::F32, v);
        g.add(TensorOp::Full { value, shape: shape.clone() })
    });
    let sum = g.add(TensorOp::Binary { op: BinaryOp::Add, a: y, b: bias });
    let relu = g.add(TensorOp::Binary { op: BinaryOp::Max, a: sum, b: zero });
    g.outputs = vec![relu];
    let (program, explanation) = compile(&g, &Target::cpu(64), &options(&mix("4+2"))).unwrap();
    assert_eq!(regions(&explanation), 4);
    assert_eq!(buffers(&explanation, Role::OutputTransform), ["out0"]);
    assert_eq!(buffers(&explanation, Role::Other), [""; 0]);
    // The launch is told as the sum's, though what it writes bears another name.
    let launch = explanation.kernels.iter().find(|k| !k.prepare).unwrap();
    assert_eq!(explanation.algorithm(launch).as_deref(), Some("winograd 4+2x4+2"));
    assert!(explanation.window(launch).is_some_and(|w| w.amplification.is_some_and(|a| a > 1.0) && w.buffer != "out0"));
    let (x, w) = conv.inputs();
    let want: Vec<f64> = conv.reference(&x, &w).into_iter().map(|y| (y + 0.25).max(0.0)).collect();
    let e = error(&floats(&interpret(&program, &[bytes(&x), bytes(&w)])[0]), &want);
    assert!(e < 3e-6, "relative error {e:e}");
}

/// A reader that walks along rows and columns as one axis still has each region computed once, by itself.
#[test]
fn a_reader_of_flat_pictures_has_every_region_by_itself() {
    let conv = square(2, 7);
    let mut g: TensorGraph = conv.graph();
    let shape = [2, 16 * 49].map(|n| g.ints.constant(n)).to_vec();
    let x = g.outputs[0];
    let flat = g.add(TensorOp::Reshape { x, shape });
    g.outputs = vec![flat];
    let (program, explanation) = compile(&g, &Target::cpu(64), &options(&mix("4+3"))).unwrap();
    let transforms = explanation.kernels.iter().flat_map(|k| &k.nests).filter(|n| n.role == Role::OutputTransform);
    let each: i64 = transforms.map(|n| n.under.iter().chain(&n.loops).product::<i64>()).sum();
    assert!(each < 2 * 2 * 16 * 49, "{each} outputs are computed");
    let (x, w) = conv.inputs();
    let e = error(&floats(&interpret(&program, &[bytes(&x), bytes(&w)])[0]), &conv.reference(&x, &w));
    assert!(e < 3e-6, "relative error {e:e}");
}

#[test]
fn the_tolerance_counts_the_worst_region() {
    let conv = Conv::conv2d(1, 64, 14, 14, 64);
    let reason = |tile: &str, times: f64| {
        let tolerance = Tolerance::new(times).ok();
        let (_, e) = compile(&conv.graph(), &Target::cpu(64), &Options { tolerance, ..options(&mix(tile)) }).unwrap();
        (e.windows[0].applied, e.windows[0].reason.clone())
    };
    assert!(reason("4+2", 3.0).0 && reason("4", 3.0).0);
    let (applied, why) = reason("4+6", 3.0);
    assert!(!applied && why.starts_with("F(4+6,3)xF(4+6,3) would cost 7.6 times"), "{why}");
    let ((mixed, _), (plain, _)) = (reason("6+2", 4.0), reason("6", 4.0));
    assert_eq!((mixed, plain), (false, false));
    // The amplification is that of the worst region, too.
    let worst = |tile: &str| {
        let (_, e) = compile(&conv.graph(), &Target::cpu(64), &options(&mix(tile))).unwrap();
        (e.windows[0].amplification.unwrap(), e.windows[0].bound.unwrap().factor)
    };
    assert_eq!(worst("4+2"), worst("4"));
    assert_eq!(worst("2+6").0, worst("6").0);
}

#[test]
fn auto_takes_a_mix_where_it_is_estimated_to_be_clearly_cheaper() {
    let auto = |conv: &Conv| {
        let options = Options::default();
        compile(&conv.graph(), &Target::cpu(64), &options).unwrap().1.windows[0].clone()
    };
    let many = auto(&Conv::conv2d(32, 256, 14, 14, 256));
    assert_eq!(many.tile, mix("4+2,4"), "{}", many.reason);
    assert!(many.reason.contains("2 regions with 0.917 of the products and 0.9"), "{}", many.reason);
    for conv in [Conv::conv2d(1, 256, 14, 14, 256), Conv::conv2d(8, 512, 7, 7, 512), Conv::conv2d(4, 64, 28, 28, 64)] {
        let few = auto(&conv);
        assert!(few.tile.iter().all(|t| t.single().is_some()), "{:?}: {}", few.tile, few.reason);
    }
}

/// On GPUs the only mixes that took less time have a 6 in them, which the default tolerance refuses.
#[test]
fn on_gpus_auto_takes_tiles_of_one_size() {
    let target = Target::by_name("cuda:sm_90").unwrap();
    let of = |n, tile: Option<&str>, tolerance: Option<f64>| {
        let tolerance = tolerance.map(|t| Tolerance::new(t).unwrap());
        let options = Options { tile: tile.map(mix), tolerance, ..Options::default() };
        compile(&Conv::conv2d(n, 512, 14, 14, 512).graph(), &target, &options).unwrap().1.windows[0].clone()
    };
    for n in [1, 64] {
        assert_eq!(of(n, None, None).tile, mix("4,4"));
    }
    assert_eq!(of(64, Some("4+6,4"), None).tile, mix("4+6,4"), "what is asked for is taken");
    let refused = of(64, Some("4+6,4"), Some(3.0));
    assert!(!refused.applied && refused.reason.contains("more than 3, the tolerance"), "{}", refused.reason);
}

/// What was decided is text, and given back it is the same program.
#[test]
fn a_tuning_has_the_mix_and_gives_the_same_program() {
    let graph = Conv::conv2d(32, 32, 14, 14, 32).graph();
    let target = Target::cpu(64);
    let of = |tuning: Vec<(String, Tuning)>| {
        let options =
            Options { algorithm: Algorithm::Winograd, tuning: TuningRule::Given(tuning), ..Options::default() };
        let (program, explanation) = compile(&graph, &target, &options).unwrap();
        let [sum] = &explanation.sums[..] else { panic!("{:?}", explanation.sums) };
        (program.kernels.iter().map(print_linear).collect::<String>(), sum.clone())
    };
    let (_, first) = of(vec![]);
    assert!(first.tiles.contains(&mix("4+2,4")), "a search is told of mixes: {:?}", first.tiles);
    let asked = Tuning::parse("tile=4+2,4\n").unwrap();
    let (one, sum) = of(vec![(first.problem.key(), asked)]);
    assert_eq!((sum.used.tile.clone(), &sum.refused[..]), (Some(mix("4+2,4")), &[][..]));
    let again = Tuning::parse(&sum.used.to_string()).unwrap();
    assert_eq!(again, sum.used);
    let (two, given) = of(vec![(first.problem.key(), again)]);
    assert_eq!((two == one, &given.refused[..]), (true, &[][..]));
    // One that the tolerance does not admit is left out.
    let (_, refused) = of(vec![(first.problem.key(), Tuning::parse("tile=6+2,6+2\n").unwrap())]);
    assert!(refused.refused.iter().any(|r| r.contains("the tolerance")), "{:?}", refused.refused);
}

fn sizes() -> impl Strategy<Value = AxisTile> {
    prop::collection::vec(prop::sample::select(vec![2usize, 3, 4, 6]), 1..=3).prop_map(|s| AxisTile::of(&s).unwrap())
}

/// Convolutions with tiles for each axis: odd sizes, uneven borders, batches and groups.
fn convolutions() -> impl Strategy<Value = (Conv, Vec<AxisTile>)> {
    (1usize..=2, 1usize..=3, 1usize..=2).prop_flat_map(|(rank, n, groups)| {
        let largest = [30usize, 12][rank - 1];
        let axis = (2..=largest, prop::sample::select(vec![2usize, 3, 3, 5]), (0usize..3, 0usize..3), sizes());
        (Just((n, groups)), 1usize..4, prop::sample::select(vec![1usize, 3, 16]), prop::collection::vec(axis, rank))
            .prop_filter_map("no window slides", |((n, groups), c, k, axes)| {
                let conv = Conv {
                    n,
                    groups,
                    c: c * groups,
                    k: k * groups,
                    size: axes.iter().map(|a| a.0).collect(),
                    window: axes.iter().map(|a| a.1).collect(),
                    padding: axes.iter().map(|a| a.2).collect(),
                    stride: vec![1; axes.len()],
                    dilation: vec![1; axes.len()],
                };
                let fits = |a: &(usize, usize, (usize, usize), AxisTile)| {
                    a.0 + a.2.0 + a.2.1 > a.1 && a.3.sizes().iter().all(|m| m + a.1 <= 9)
                };
                axes.iter().all(fits).then(|| (conv, axes.iter().map(|a| a.3).collect()))
            })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn results_are_within_the_bound_of_their_region((conv, tile) in convolutions()) {
        check(&conv, &tile);
    }
}
