//! Convolutions through every pass, run by the interpreter and compared with f64 sums.

mod common;

use common::{
    Conv, as_floats, bytes, dims, error, floats, interpret, interpret_with, levels, noise, slice, stacked,
    sum_of_products, value,
};
use winograph_compiler::optimize::stored::StoredPlans;
use winograph_compiler::options::{AxisTile, StageRule, Tolerance};
use winograph_compiler::{Algorithm, Options, Program, Target, compile};
use winograph_ir::indexed::Role;
use winograph_ir::linear::Stmt;
use winograph_ir::tensor::{TensorGraph, TensorOp};
use winograph_ir::text::{parse_tensor, print_linear, print_tensor};
use winograph_ir::{BinaryOp, DType, ReduceOp, Scalar, SumOrder};

fn run(conv: &Conv, options: &Options) -> (Vec<f32>, bool) {
    let (program, explanation) = compile(&conv.graph(), &Target::cpu(64), options).unwrap();
    if std::env::var_os("SHOW").is_some() {
        for k in &explanation.kernels {
            println!("{} {:?} {:?} prepare={}", k.name, k.role, k.nests, k.prepare);
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
            tile: (algorithm == Algorithm::Winograd).then(|| vec![4.into()]),
            verify_each_pass: true,
            ..Options::default()
        };
        let (y, applied) = run(&conv, &options);
        assert_eq!(applied, wanted);
        let e = error(&y, &reference);
        assert!(e < limit, "{algorithm:?}: relative error {e:e}");
    }
}

/// A target without the instruction gets products and sums, in sums over channels and in transforms; where it has it, both
/// are fused.
#[test]
fn products_are_fused_into_sums_where_the_target_can() {
    let conv = Conv::conv2d(1, 16, 16, 16, 16);
    let (x, w) = conv.inputs();
    let reference = conv.reference(&x, &w);
    for (algorithm, tile) in [(Algorithm::Direct, None), (Algorithm::Winograd, Some(vec![4.into()]))] {
        for fma in [true, false] {
            let options = Options { algorithm, tile: tile.clone(), verify_each_pass: true, ..Options::default() };
            let target = Target { fma, ..Target::cpu(16) };
            let (program, _) = compile(&conv.graph(), &target, &options).unwrap();
            let text: String = program.kernels.iter().map(print_linear).collect();
            assert_eq!(text.contains(" fma "), fma, "{algorithm:?}\n{text}");
            let e = error(&floats(&interpret(&program, &[bytes(&x), bytes(&w)])[0]), &reference);
            assert!(e < 3e-6, "{algorithm:?}, fused {fma}: relative error {e:e}");
        }
    }
}

/// Kernels of one launch read what those before them wrote: what a stored plan says of a kernel inside is run in order.
#[test]
fn a_stored_plan_inside_of_a_launch_runs_in_order() {
    for conv in [Conv::conv2d(1, 16, 16, 16, 16), Conv::conv2d(1, 8, 20, 24, 16)] {
        let (x, w) = conv.inputs();
        let mut results = Vec::new();
        for plans in ["", "multiply: a0=grid a1=grid a2=grid r0=loop"] {
            let plans = StoredPlans::parse(plans).unwrap();
            let asked = !plans.plans.is_empty();
            let options = Options { plans, ..winograd_options(&[4]) };
            let (program, explanation) = compile(&conv.graph(), &Target::cpu(64), &options).unwrap();
            let nests = explanation.kernels.iter().flat_map(|k| &k.nests).filter(|n| n.role == Role::Multiply);
            for n in nests {
                assert_eq!(n.stored, asked.then_some(Ok(())));
            }
            assert!(explanation.scopes[0].fused, "{}", explanation.scopes[0].reason);
            results.push(interpret(&program, &[bytes(&x), bytes(&w)]));
        }
        assert_eq!(results[0], results[1]);
    }
}

/// Blocks of a batch of small images hold tiles of several of them, also where they do not divide the batch and where
/// channels are in groups; bits are those of separate kernels.
#[test]
fn tiles_of_small_images_are_in_blocks_together() {
    let small = Conv { size: vec![7, 7], ..Conv::conv2d(5, 16, 7, 7, 16) };
    let grouped = Conv { groups: 2, c: 8, ..small.clone() };
    for conv in [small.clone(), Conv { n: 9, size: vec![9, 5], ..small }, grouped] {
        let (x, w) = conv.inputs();
        let mut results = Vec::new();
        for (stages, threads) in [(StageRule::Global, 1), (StageRule::Auto, 1), (StageRule::Auto, 3)] {
            let target = Target { threads, ..Target::cpu(64) };
            let options = Options { stages, verify_each_pass: true, ..winograd_options(&[4]) };
            let (program, explanation) = compile(&conv.graph(), &target, &options).unwrap();
            if stages == StageRule::Auto {
                let choice = &explanation.scopes[0];
                assert!(choice.fused, "{}", choice.reason);
                let blocks = choice.reason.strip_prefix("blocks of ").and_then(|s| s.split(' ').next()).unwrap();
                assert_eq!(blocks.split('x').count(), 3, "{}", choice.reason);
            }
            results.push(interpret(&program, &[bytes(&x), bytes(&w)]));
        }
        assert!(results.iter().all(|r| *r == results[0]), "{conv:?}");
        let e = error(&floats(&results[0][0]), &conv.reference(&x, &w));
        assert!(e < 3e-6, "relative error {e:e}");
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
        let fits = (0..rank)
            .all(|i| conv.size[i] + conv.padding[i].0 + conv.padding[i].1 > conv.dilation[i] * (conv.window[i] - 1));
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
                tile: (algorithm == Algorithm::Winograd).then(|| vec![tile.into()]),
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

fn winograd_options(tile: &[usize]) -> Options {
    Options {
        algorithm: Algorithm::Winograd,
        tile: Some(tile.iter().map(|&m| m.into()).collect()),
        verify_each_pass: true,
        ..Options::default()
    }
}

fn direct_options() -> Options {
    Options { algorithm: Algorithm::Direct, verify_each_pass: true, ..Options::default() }
}

fn conv(sizes: &[usize], window: &[usize], channels: (usize, usize)) -> Conv {
    let rank = sizes.len();
    Conv {
        n: 1,
        groups: 1,
        c: channels.0,
        k: channels.1,
        size: sizes.to_vec(),
        window: window.to_vec(),
        padding: vec![(0, 0); rank],
        stride: vec![1; rank],
        dilation: vec![1; rank],
    }
}

/// Checks that a graph is rewritten on so many axes, and what comes out of the linear code.
#[track_caller]
fn check_rewritten(g: &TensorGraph, tile: &[usize], axes: usize, inputs: &[Vec<f32>], reference: &[f64], limit: f64) {
    let (program, explanation) = compile(g, &Target::cpu(32), &winograd_options(tile)).unwrap();
    let [window] = &explanation.windows[..] else { panic!("{:?}", explanation.windows) };
    assert!(window.applied, "{}", window.reason);
    assert_eq!(window.taps.len(), axes, "{window:?}");
    let inputs: Vec<Vec<u8>> = inputs.iter().map(|x| bytes(x)).collect();
    let y = floats(&interpret(&program, &inputs)[0]);
    let e = error(&y, reference);
    assert!(e < limit, "relative error {e:e}");
}

/// Largest error relative to an f64 sum, by number of positions on the axis with most of them.
fn limit(alpha: usize) -> f64 {
    match alpha {
        ..=4 => 3e-6,
        5..=6 => 1e-5,
        _ => 1e-4,
    }
}

#[test]
fn every_window_and_tile_is_right() {
    for r in [2, 3, 4, 5, 7] {
        for m in [2, 3, 4, 6] {
            let fits = m + r - 1 <= 8;
            let c = Conv { padding: vec![(1, 2)], ..conv(&[19], &[r], (3, 2)) };
            let (x, w) = c.inputs();
            let (y, applied) = run(&c, &winograd_options(&[m]));
            assert_eq!(applied, fits, "F({m},{r})");
            let e = error(&y, &c.reference(&x, &w));
            assert!(e < limit(m + r - 1), "F({m},{r}): relative error {e:e}");
        }
    }
}

#[test]
fn mixed_windows_and_tiles_are_right() {
    let cases: [(&[usize], &[usize], &[usize]); 8] = [
        (&[11, 13], &[3, 3], &[4, 2]),
        (&[11, 13], &[3, 3], &[2, 6]),
        (&[9, 10], &[2, 5], &[6, 3]),
        (&[9, 10], &[7, 2], &[2, 4]),
        (&[5, 6, 7], &[3, 3, 3], &[2, 2, 2]),
        (&[5, 6, 7], &[2, 3, 2], &[4, 2, 3]),
        (&[8, 5, 6], &[3, 2, 3], &[3, 4, 2]),
        (&[9, 9, 9], &[3, 3, 3], &[6, 6, 6]),
    ];
    for (size, window, tile) in cases {
        let c = conv(size, window, (2, 3));
        let (x, w) = c.inputs();
        let (y, applied) = run(&c, &winograd_options(tile));
        assert!(applied, "{window:?} {tile:?}");
        let e = error(&y, &c.reference(&x, &w));
        assert!(e < 1e-4, "{window:?} {tile:?}: relative error {e:e}");
    }
}

/// Without channels, batch or any library: windows of one line, weighted and summed.
#[test]
fn a_window_unfolded_by_hand_is_rewritten() {
    let mut g = TensorGraph::new();
    let shape = dims(&mut g, &[20]);
    let x = g.add(TensorOp::Input { slot: 0, dtype: DType::F32, shape });
    let shape = dims(&mut g, &[3]);
    let w = g.add(TensorOp::Input { slot: 1, dtype: DType::F32, shape });
    let windows = g.add(TensorOp::Unfold { x, axis: 0, size: 3, stride: 1, dilation: 1 });
    let (one, full) = (dims(&mut g, &[1, 3]), dims(&mut g, &[18, 3]));
    let w = g.add(TensorOp::Reshape { x: w, shape: one });
    let w = g.add(TensorOp::Expand { x: w, shape: full });
    // The weights come first here.
    let p = g.add(TensorOp::Binary { op: BinaryOp::Mul, a: w, b: windows });
    let y = g.add(TensorOp::Reduce {
        op: ReduceOp::Add,
        x: p,
        axes: vec![1],
        order: SumOrder::Any,
        fused: false,
        rule: None,
    });
    g.outputs = vec![y];
    let (x, w) = (noise(20, 1), noise(3, 2));
    let reference: Vec<f64> = (0..18).map(|i| (0..3).map(|k| x[i + k] as f64 * w[k] as f64).sum::<f64>()).collect();
    check_rewritten(&g, &[4], 1, &[x, w], &reference, 1e-5);
}

/// Windows as stacks of shifted slices, one stack per axis.
fn stacked_graph(c: &Conv) -> TensorGraph {
    let mut g = TensorGraph::new();
    let mut size: Vec<usize> = [&[c.c], &c.size[..]].concat();
    let shape = dims(&mut g, &size);
    let mut x = g.add(TensorOp::Input { slot: 0, dtype: DType::F32, shape });
    let shape = dims(&mut g, &[&[c.k, c.c], &c.window[..]].concat());
    let w = g.add(TensorOp::Input { slot: 1, dtype: DType::F32, shape });
    for (i, &taps) in c.window.iter().enumerate() {
        (x, size) = stacked(&mut g, x, &size, 1 + i, taps);
    }
    let y = sum_of_products(&mut g, x, w, (c.c, c.k), &c.out_size(), &c.window);
    g.outputs = vec![y];
    g
}

#[test]
fn stacked_slices_are_rewritten_on_every_axis() {
    for (size, window, tile) in [
        (vec![15], vec![3], vec![4]),
        (vec![12], vec![5], vec![2]),
        (vec![9, 10], vec![3, 3], vec![4, 2]),
        (vec![8, 9], vec![2, 4], vec![3, 4]),
        (vec![6, 5, 7], vec![3, 3, 3], vec![2, 2, 4]),
    ] {
        let c = conv(&size, &window, (3, 2));
        let (x, w) = c.inputs();
        let reference = c.reference(&x, &w);
        check_rewritten(&stacked_graph(&c), &tile, size.len(), &[x, w], &reference, 1e-5);
    }
}

/// One stack of slices shifted along all axes, times the weights with their window as one axis.
fn flat_stack_graph(c: &Conv) -> TensorGraph {
    let mut g = TensorGraph::new();
    let shape = dims(&mut g, &[&[c.c], &c.size[..]].concat());
    let x = g.add(TensorOp::Input { slot: 0, dtype: DType::F32, shape });
    let shape = dims(&mut g, &[&[c.k, c.c], &c.window[..]].concat());
    let w = g.add(TensorOp::Input { slot: 1, dtype: DType::F32, shape });
    let taps: usize = c.window.iter().product();
    let (out, one) = (c.out_size(), dims(&mut g, &[&[c.c, 1], &c.out_size()[..]].concat()));
    let parts = (0..taps)
        .map(|tap| {
            let mut at = vec![0; c.window.len()];
            let mut left = tap;
            for (a, &r) in c.window.iter().enumerate().rev() {
                (at[a], left) = (left % r, left / r);
            }
            let part = slice(&mut g, x, &[&[0], &at[..]].concat(), &[&[c.c], &out[..]].concat());
            g.add(TensorOp::Reshape { x: part, shape: one.clone() })
        })
        .collect();
    let x = g.add(TensorOp::Cat { parts, axis: 1 });
    let ones = vec![1; out.len()];
    let full = dims(&mut g, &[&[c.k, c.c, taps], &out[..]].concat());
    let of_x = dims(&mut g, &[&[1, c.c, taps], &out[..]].concat());
    let of_w = dims(&mut g, &[&[c.k, c.c, taps], &ones[..]].concat());
    let x = g.add(TensorOp::Reshape { x, shape: of_x });
    let w = g.add(TensorOp::Reshape { x: w, shape: of_w });
    let (a, b) = (g.add(TensorOp::Expand { x, shape: full.clone() }), g.add(TensorOp::Expand { x: w, shape: full }));
    let p = g.add(TensorOp::Binary { op: BinaryOp::Mul, a, b });
    let y = g.add(TensorOp::Reduce {
        op: ReduceOp::Add,
        x: p,
        axes: vec![1, 2],
        order: SumOrder::Any,
        fused: true,
        rule: None,
    });
    g.outputs = vec![y];
    g
}

#[test]
fn a_flat_stack_of_slices_is_rewritten_on_every_axis() {
    for (size, window, tile) in [
        (vec![15], vec![3], vec![4]),
        (vec![9, 10], vec![3, 3], vec![4, 2]),
        (vec![8, 9], vec![2, 4], vec![3, 4]),
        (vec![9, 9], vec![4, 4], vec![2, 3]),
        (vec![6, 5, 7], vec![3, 3, 3], vec![2, 2, 4]),
    ] {
        let c = conv(&size, &window, (3, 2));
        let (x, w) = c.inputs();
        let reference = c.reference(&x, &w);
        check_rewritten(&flat_stack_graph(&c), &tile, size.len(), &[x, w], &reference, 1e-5);
    }
}

/// The convolution of a part of an array in which everything else is NaN.
#[test]
fn what_lies_around_a_slice_is_not_read_into_results() {
    let mut r = Random(11);
    for n in 0..40 {
        let rank = 1 + r.below(2);
        let c = Conv {
            padding: (0..rank).map(|_| (r.below(3), r.below(3))).collect(),
            ..conv(
                &(0..rank).map(|_| 6 + r.below(7)).collect::<Vec<_>>(),
                &(0..rank).map(|_| r.pick(&[2, 3, 5])).collect::<Vec<_>>(),
                (2, 2),
            )
        };
        let tile: Vec<usize> = c.window.iter().map(|&r| if r == 5 { 2 } else { 4 - r % 2 }).collect();
        let start: Vec<usize> = (0..rank).map(|_| r.below(4)).collect();
        let whole: Vec<usize> = (0..rank).map(|i| start[i] + c.size[i] + r.below(9)).collect();
        let (x, w) = c.inputs();
        let (reference, plane) = (c.reference(&x, &w), c.size.iter().product::<usize>());

        // Whether windows are unfolded from the padded slice, or slices of the whole array are stacked.
        for stack in [false, true] {
            let c = if stack { Conv { padding: vec![(0, 0); rank], ..c.clone() } } else { c.clone() };
            let reference = if stack { c.reference(&x, &w) } else { reference.clone() };
            let mut g = TensorGraph::new();
            let mut size: Vec<usize> = [&[c.c], &c.size[..]].concat();
            let shape = dims(&mut g, &[&[c.c], &whole[..]].concat());
            let all = g.add(TensorOp::Input { slot: 0, dtype: DType::F32, shape });
            let shape = dims(&mut g, &[&[c.k, c.c], &c.window[..]].concat());
            let weights = g.add(TensorOp::Input { slot: 1, dtype: DType::F32, shape });
            let mut part = slice(&mut g, all, &[&[0], &start[..]].concat(), &size);
            if !stack {
                let (before, after): (Vec<usize>, Vec<usize>) = [(0, 0)].iter().chain(&c.padding).copied().unzip();
                let (before, after) = (dims(&mut g, &before), dims(&mut g, &after));
                part = g.add(TensorOp::Pad { x: part, before, after, value: Scalar::zero(DType::F32) });
            }
            for (i, &taps) in c.window.iter().enumerate() {
                if stack {
                    (part, size) = stacked(&mut g, part, &size, 1 + i, taps);
                } else {
                    part = g.add(TensorOp::Unfold { x: part, axis: 1 + i, size: taps, stride: 1, dilation: 1 });
                }
            }
            let y = sum_of_products(&mut g, part, weights, (c.c, c.k), &c.out_size(), &c.window);
            g.outputs = vec![y];

            let mut around = vec![f32::NAN; c.c * whole.iter().product::<usize>()];
            for (i, &v) in x.iter().enumerate() {
                let (channel, mut at) = (i / plane, i % plane);
                let (mut place, mut step) = (0, 1);
                for a in (0..rank).rev() {
                    place += (start[a] + at % c.size[a]) * step;
                    at /= c.size[a];
                    step *= whole[a];
                }
                around[channel * step + place] = v;
            }
            let inputs = [bytes(&around), bytes(&w)];
            for options in [direct_options(), winograd_options(&tile)] {
                let (program, explanation) = compile(&g, &Target::cpu(32), &options).unwrap();
                let wanted = options.algorithm == Algorithm::Winograd;
                assert_eq!(explanation.windows[0].applied, wanted, "{:?}", explanation.windows);
                let y = floats(&interpret(&program, &inputs)[0]);
                let e = error(&y, &reference);
                assert!(e < 1e-5, "case {n} {:?} stack {stack} tile {tile:?} {c:?}: {e:e}", options.algorithm);
            }
        }
    }
}

/// What the compiler says about the only window of a graph that it does not rewrite.
#[track_caller]
fn refusal(g: &TensorGraph, options: &Options) -> String {
    let (_, explanation) = compile(g, &Target::cpu(32), options).unwrap();
    let [window] = &explanation.windows[..] else { panic!("{:?}", explanation.windows) };
    assert!(!window.applied, "{window:?}");
    assert!(window.tile.is_empty() && window.amplification.is_none(), "{window:?}");
    window.reason.clone()
}

#[test]
fn what_is_not_rewritten_says_why() {
    let base = conv(&[9, 9], &[3, 3], (2, 2));
    let any = winograd_options(&[2]);
    let reason = |c: &Conv| refusal(&c.graph(), &any);
    assert_eq!(reason(&Conv { stride: vec![2, 2], ..base.clone() }), "its window moves with stride 2, not 1");
    assert_eq!(reason(&Conv { stride: vec![1, 3], ..base.clone() }), "its window moves with stride 3, not 1");
    assert_eq!(reason(&Conv { dilation: vec![2, 1], ..base.clone() }), "its window has dilation 2, not 1");
    let both = Conv { stride: vec![2, 2], dilation: vec![3, 3], ..base.clone() };
    assert_eq!(reason(&both), "its window has stride 2 and dilation 3, not 1");
    assert_eq!(reason(&conv(&[9, 9], &[1, 1], (2, 2))), "it has no sliding window");
    assert_eq!(reason(&conv(&[9], &[6], (2, 2))), "a window of 6 taps has no rewrite (2 to 5 and 7 do)");
    assert_eq!(reason(&conv(&[4; 4], &[2; 4], (1, 1))), "it slides over 4 axes, at most 3 are rewritten");
    let large = refusal(&conv(&[9], &[4], (2, 2)).graph(), &winograd_options(&[6]));
    assert_eq!(large, "F(6,4) has 9 positions on an axis, at most 8");
    assert_eq!(refusal(&base.graph(), &direct_options()), "the direct form was asked for");
    let auto = refusal(&conv(&[4, 4], &[2, 2], (1, 1)).graph(), &Options::default());
    assert!(auto.starts_with("direct is estimated to be faster: F("), "{auto}");
    let points = Some(["0", "1", "-1", "3", "-3"].map(|p| p.parse().unwrap()).to_vec());
    let wild = Options { points, algorithm: Algorithm::Winograd, ..Options::default() };
    let inaccurate = refusal(&conv(&[32, 32], &[3, 3], (64, 64)).graph(), &wild);
    assert!(inaccurate.contains("times the direct sum's expected error, more than 3"), "{inaccurate}");
}

/// Reductions that look like a convolution's up to one thing.
#[test]
fn other_reductions_are_not_rewritten() {
    let c = conv(&[9], &[3], (2, 2));
    let text = print_tensor(&c.graph());
    let reason = |from: &str, to: &str| {
        assert!(text.contains(from), "{text}");
        refusal(&parse_tensor(&text.replace(from, to)).unwrap(), &winograd_options(&[2]))
    };
    assert_eq!(reason("reduce add any", "reduce max any"), "it reduces by max, not by a sum");
    let ordered = "its summation order is sequential: a rewrite sums in another order";
    assert_eq!(reason("reduce add any", "reduce add sequential"), ordered);
    assert!(reason("reduce add any", "reduce add tree").starts_with("its summation order is tree"));
    assert_eq!(reason("= mul ", "= add "), "its terms are not products of two values");
    let text = text.replace("f32", "i32").replace("0.0i32", "0i32");
    let integers = refusal(&parse_tensor(&text).unwrap(), &winograd_options(&[2]));
    assert_eq!(integers, "its dtype i32 is not a float");
}

/// A window whose place in the data is itself data: not the sum of an output and a tap, or that sum in the index of a
/// lookup table.
#[test]
fn lookups_are_not_rewritten() {
    let text = |index: &str| {
        format!(
            "inputs argument, constant, argument
             %0 = input 0 : f32[16]
             %1 = input 1 : f32[3]
             %2 = input 2 : i64[12]
             {index}
             %6 = reshape %5 : i64[30]
             %7 = gather %0, %6 axis 0
             %8 = reshape %7 : f32[10, 3]
             %9 = reshape %1 : f32[1, 3]
             %10 = expand %9 : f32[10, 3]
             %11 = mul %8, %10
             %12 = reduce add any fused [1] %11
             output %12"
        )
    };
    let table = text("%5 = unfold %2 axis 0 size 3 stride 1 dilation 1");
    let shifted = text(
        "%3 = slice %2 start [0] step [1] size [10]
         %4 = reshape %3 : i64[10, 1]
         %13 = expand %4 : i64[10, 3]
         %14 = iota axis 1 : i64[10, 3]
         %5 = add %13, %14",
    );
    let (x, w) = (noise(16, 1), noise(3, 2));
    let at: Vec<i64> = (0..12).map(|i| (i * 7 + 3) % 16).collect();
    let inputs = [bytes(&x), bytes(&w), at.iter().flat_map(|v| v.to_le_bytes()).collect()];
    let place = |shift: bool, o: usize, k: usize| if shift { at[o] + k as i64 } else { at[o + k] };
    for (text, shift, wanted) in [
        (table, false, "its data is looked up by index values, not by index arithmetic"),
        (shifted, true, "it has no sliding window"),
    ] {
        let g = parse_tensor(&text).unwrap();
        let options = winograd_options(&[2]);
        assert_eq!(refusal(&g, &options), wanted);
        let (program, _) = compile(&g, &Target::cpu(32), &options).unwrap();
        let y = floats(&interpret(&program, &inputs)[0]);
        let reference: Vec<f64> = (0..10)
            .map(|o| (0..3).map(|k| x[place(shift, o, k).clamp(0, 15) as usize] as f64 * w[k] as f64).sum::<f64>())
            .collect();
        let e = error(&y, &reference);
        assert!(e < 1e-6, "relative error {e:e}");
    }
}

#[test]
fn nine_added_products_are_left_as_they_are() {
    let mut g = TensorGraph::new();
    let shape = dims(&mut g, &[8, 8]);
    let x = g.add(TensorOp::Input { slot: 0, dtype: DType::F32, shape });
    let shape = dims(&mut g, &[3, 3]);
    let w = g.add(TensorOp::Input { slot: 1, dtype: DType::F32, shape });
    let mut sum = None;
    for tap in 0..9 {
        let at = [tap / 3, tap % 3];
        let a = slice(&mut g, x, &at, &[6, 6]);
        let b = slice(&mut g, w, &at, &[1, 1]);
        let shape = dims(&mut g, &[6, 6]);
        let b = g.add(TensorOp::Expand { x: b, shape });
        let p = g.add(TensorOp::Binary { op: BinaryOp::Mul, a, b });
        sum = Some(sum.map_or(p, |s| g.add(TensorOp::Binary { op: BinaryOp::Add, a: s, b: p })));
    }
    g.outputs = vec![sum.unwrap()];
    let (program, explanation) = compile(&g, &Target::cpu(32), &winograd_options(&[2])).unwrap();
    let [window] = &explanation.windows[..] else { panic!("{:?}", explanation.windows) };
    assert!(!window.applied && window.reason.contains("9 added products"), "{window:?}");
    let c = conv(&[8, 8], &[3, 3], (1, 1));
    let (x, w) = c.inputs();
    let e = error(&floats(&interpret(&program, &[bytes(&x), bytes(&w)])[0]), &c.reference(&x, &w));
    assert!(e < 1e-6, "relative error {e:e}");
}

#[test]
fn options_that_contradict_themselves_are_errors() {
    let g = conv(&[9, 9], &[3, 3], (2, 2)).graph();
    let error = |tile: Option<&[usize]>, points: Option<&[&str]>| {
        let points = points.map(|p| p.iter().map(|p| p.parse().unwrap()).collect());
        let tile = tile.map(|t| t.iter().map(|&m| m.into()).collect());
        let options = Options { algorithm: Algorithm::Winograd, tile, points, ..Options::default() };
        compile(&g, &Target::cpu(32), &options).unwrap_err().to_string()
    };
    for (message, wanted) in [
        (error(Some(&[0]), None), "tile 0: a tile has 2, 3, 4 or 6 outputs per axis"),
        (error(Some(&[5]), None), "tile 5: a tile has 2, 3, 4 or 6 outputs per axis"),
        (error(None, Some(&["0", "1", "1", "2", "-2"])), "points: a point is given twice"),
    ] {
        assert!(message.contains(wanted), "`{message}` is not about `{wanted}`");
    }
}

/// A tile of two numbers is for windows of two axes; another window of the program stays direct and says why.
#[test]
fn a_tile_that_does_not_fit_a_window_leaves_that_window_direct() {
    let options = winograd_options(&[2, 4]);
    assert_eq!(
        refusal(&conv(&[9, 9, 9], &[3, 3, 3], (2, 2)).graph(), &options),
        "the tile has 2 numbers for 3 window axes; give one for all or one per axis"
    );
    let (_, explanation) = compile(&conv(&[9, 9], &[3, 3], (2, 2)).graph(), &Target::cpu(32), &options).unwrap();
    assert!(explanation.windows[0].applied, "{:?}", explanation.windows);
}

/// Points are for windows of so many taps; another window of the program stays direct and says why.
#[test]
fn points_that_do_not_fit_a_window_leave_that_window_direct() {
    let options = |points: &[&str], tile: Option<Vec<AxisTile>>| {
        let points = Some(points.iter().map(|p| p.parse().unwrap()).collect());
        Options { algorithm: Algorithm::Winograd, points, tile, ..Options::default() }
    };
    let (three, five) = (conv(&[9, 9], &[3, 3], (2, 2)).graph(), conv(&[9, 9], &[5, 5], (2, 2)).graph());
    for (g, options, wanted) in [
        (&three, options(&["0", "1", "-1"], Some(vec![4.into()])), "needs 5 finite interpolation points"),
        (&three, options(&["0", "1"], None), "points: no tile of 2, 3, 4 or 6 outputs uses 2 points"),
        (&five, options(&["0", "1", "-1"], None), "points: no tile of 2, 3, 4 or 6 outputs uses 3 points"),
    ] {
        let why = refusal(g, &options);
        assert!(why.contains(wanted), "`{why}` is not about `{wanted}`");
    }
    let (_, explanation) = compile(&three, &Target::cpu(32), &options(&["0", "1", "-1"], None)).unwrap();
    assert_eq!(explanation.windows[0].tile, [2, 2], "{:?}", explanation.windows);
}

/// Transforms over three axes are written axis by axis: what a C compiler gets stays small, whatever it has positions.
#[test]
fn transforms_of_many_positions_are_few_statements() {
    fn count(body: &[Stmt]) -> usize {
        let of = |s: &Stmt| match s {
            Stmt::Loop { body, .. } | Stmt::If { body, .. } => count(body),
            _ => 1,
        };
        body.iter().map(of).sum()
    }
    for (taps, tile, positions) in [(3, 4, 216), (2, 6, 343), (3, 6, 512), (7, 2, 512)] {
        let c = conv(&[12; 3], &[taps; 3], (4, 4));
        let (program, explanation) = compile(&c.graph(), &Target::cpu(64), &winograd_options(&[tile])).unwrap();
        assert_eq!(explanation.windows[0].tile, [tile; 3]);
        for code in &program.kernels {
            let statements = count(&code.body);
            assert!(statements < 10 * positions, "{}: {statements} statements for {positions} positions", code.name);
        }
        let (x, w) = c.inputs();
        let e = error(&floats(&interpret(&program, &[bytes(&x), bytes(&w)])[0]), &c.reference(&x, &w));
        assert!(e < 1e-4, "F({tile},{taps}): relative error {e:e}");
    }
}

/// The interpreters agree on what each pass leaves.
#[test]
fn every_pass_keeps_the_meaning() {
    let base = conv(&[9, 7], &[3, 3], (3, 4));
    let cases: Vec<(Conv, Vec<usize>)> = vec![
        (Conv::conv2d(1, 4, 8, 8, 4), vec![4]),
        (Conv { n: 2, padding: vec![(1, 0), (0, 2)], ..base.clone() }, vec![4, 2]),
        (Conv { groups: 2, c: 4, k: 6, padding: vec![(1, 1); 2], ..base.clone() }, vec![2]),
        (Conv { groups: 4, c: 4, k: 4, ..base.clone() }, vec![3]),
        (Conv { stride: vec![2, 1], dilation: vec![1, 2], ..base.clone() }, vec![2]),
        (Conv { padding: vec![(2, 2)], ..conv(&[17], &[5], (3, 2)) }, vec![4]),
        (Conv { padding: vec![(0, 1); 3], ..conv(&[4, 5, 6], &[3, 2, 3], (2, 2)) }, vec![2, 3, 4]),
        (conv(&[7, 7], &[1, 1], (5, 3)), vec![2]),
        (Conv { n: 3, ..conv(&[3, 3], &[3, 3], (1, 1)) }, vec![2]),
    ];
    let graphs = cases.iter().flat_map(|(c, tile)| {
        let shapes = [[&[c.n, c.c], &c.size[..]].concat(), [&[c.k, c.c / c.groups], &c.window[..]].concat()];
        let plain = c.groups == 1 && c.n == 1 && c.stride.iter().chain(&c.dilation).all(|&s| s == 1);
        let stacks = plain && c.padding.iter().all(|p| *p == (0, 0)) && c.window.iter().all(|&r| r > 1);
        let stacked = stacks.then(|| (stacked_graph(c), [shapes[0][1..].to_vec(), shapes[1].clone()]));
        [(c.graph(), shapes)].into_iter().chain(stacked).map(move |(g, s)| (g, s, c.inputs(), tile.clone()))
    });
    for (g, shapes, (x, w), tile) in graphs {
        let inputs = [value(&shapes[0], &x), value(&shapes[1], &w)];
        for options in [direct_options(), winograd_options(&tile)] {
            for vector in [16, 64] {
                let all = levels(&g, &options, &Target::cpu(vector), &inputs);
                let reference: Vec<f64> = all[0].1[0].to_f64s();
                for (level, outputs) in &all[1..] {
                    assert_eq!(outputs[0].shape, all[0].1[0].shape);
                    let e = error(&as_floats(&outputs[0]), &reference);
                    assert!(e < 1e-5, "{level} {:?} tile {tile:?}: {e:e}\n{}", options.algorithm, print_tensor(&g));
                    // Neither rangeify nor fuse reorders a sum.
                    if *level == "rangeify" {
                        assert_eq!(outputs[0], all[0].1[0], "{level} changes bits\n{}", print_tensor(&g));
                    }
                }
                assert_eq!(all[2].1, all[3].1, "fuse changes bits\n{}", print_tensor(&g));
            }
        }
    }
}

/// Ids and the order of creation mean nothing: the same graph made in another order, with nodes in it that nothing
/// needs, is the same program.
#[test]
fn the_order_of_creation_means_nothing() {
    let c = Conv { padding: vec![(1, 0), (0, 1)], ..conv(&[9, 10], &[3, 3], (4, 8)) };
    let text = print_tensor(&c.graph());
    let (inputs, ops): (Vec<&str>, Vec<&str>) =
        text.lines().filter(|l| l.starts_with('%')).partition(|l| l.contains("= input"));
    let output = text.lines().find(|l| l.starts_with("output")).unwrap();
    // Weights first, and what reads them as early as can be; dead nodes between.
    let (mut late, mut early): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let weight = inputs.iter().find(|l| l.contains("input 1")).unwrap();
    let mut known = vec![weight.split(' ').next().unwrap().to_string()];
    for line in &ops {
        let (name, rest) = line.split_once(" = ").unwrap();
        let operands: Vec<&str> = rest.split([' ', ',']).filter(|w| w.starts_with('%')).collect();
        if operands.iter().all(|o| known.iter().any(|k| k == o)) {
            known.push(name.to_string());
            early.push(line);
        } else {
            late.push(line);
        }
    }
    assert!(!early.is_empty() && !late.is_empty());
    let mut lines = vec!["inputs argument, constant", weight, "%90 = full 3.0f32 : f32[5]", "%91 = neg %90"];
    lines.extend(early);
    lines.push(inputs.iter().find(|l| l.contains("input 0")).unwrap());
    lines.extend(late);
    lines.extend(["%92 = exp %91", output]);
    let other = lines.join("\n");
    for options in [direct_options(), winograd_options(&[4]), Options::default()] {
        let [(a, ea), (b, eb)] =
            [&text, &other].map(|t| compile(&parse_tensor(t).unwrap(), &Target::cpu(64), &options).unwrap());
        let code = |p: &Program| p.kernels.iter().map(print_linear).collect::<Vec<String>>();
        assert_eq!(code(&a), code(&b));
        assert_eq!((&a.run, &a.prepare, &a.buffers), (&b.run, &b.prepare, &b.buffers));
        assert_eq!(format!("{:?}", (ea.windows, ea.stages)), format!("{:?}", (eb.windows, eb.stages)));
    }
}

/// One program for every batch: sizes that depend on a parameter stay symbolic through all passes.
#[test]
fn a_batch_that_is_a_parameter_is_right_for_every_value() {
    let c = Conv { n: 8, padding: vec![(1, 0), (0, 2)], ..conv(&[7, 9], &[3, 3], (3, 4)) };
    let text = print_tensor(&c.graph()).replace("[8, ", "[n, ");
    let g = parse_tensor(&format!("param n 1..8\n{text}")).unwrap();
    for options in [direct_options(), winograd_options(&[4, 2])] {
        for vector in [16, 64] {
            let (program, explanation) = compile(&g, &Target::cpu(vector), &options).unwrap();
            assert_eq!(explanation.windows[0].applied, options.algorithm == Algorithm::Winograd);
            for n in [1, 3, 8] {
                let c = Conv { n, ..c.clone() };
                let (x, w) = c.inputs();
                let y = floats(&interpret_with(&program, &[bytes(&x), bytes(&w)], &[n as i64])[0]);
                let e = error(&y, &c.reference(&x, &w));
                assert!(e < 1e-5, "n = {n} {:?}: relative error {e:e}", options.algorithm);
            }
        }
    }
}

/// Few outputs do not pay for an X̂ that no second-level cache holds, as that of 512 channels. `bench conv --threads 2 --runs 40`
/// of `--algo direct` and of `--algo graph --tile 4` on a Xeon, milliseconds: 512 channels to 16 in four groups at 80 x 106, N = 2, 2.7
/// and 9.1; 512 to 4 there 1.7 and 2.3; 64 to 4 at 256 x 256 1.5 and 1.0.
#[test]
fn auto_counts_a_transformed_operand_that_lies_in_memory() {
    let of = |channels: usize, k: usize, groups: usize| {
        let conv = Conv { groups, ..Conv::conv2d(2, channels, 80, 80, k) };
        let tolerance = Some(Tolerance::new(3.0).unwrap());
        let options = Options { tolerance, ..Options::default() };
        compile(&conv.graph(), &Target::cpu(64), &options).unwrap().1.windows[0].clone()
    };
    for (k, groups) in [(16, 4), (4, 1)] {
        let far = of(512, k, groups);
        assert!(!far.applied && far.reason.contains("direct is estimated to be faster"), "{}", far.reason);
    }
    assert!(of(512, 64, 4).applied, "16 outputs a group");
    assert!(of(64, 4, 1).applied, "64 channels");
}

/// Blocks of few rows multiply as well as many where the second-level cache holds all that they need, and are taken there
/// (64 channels at 56 x 56 in rows of 14 tiles); with weights from far behind it they are not.
#[test]
fn rows_that_fill_no_vector_are_blocks_where_their_weights_are_near() {
    let of = |channels: usize, size: usize| {
        let target = Target { l2: 2 << 20, threads: 2, ..Target::cpu(64) };
        let conv = Conv::conv2d(1, channels, size, size, channels);
        let (_, why) = compile(&conv.graph(), &target, &Options::default()).unwrap();
        why.scopes.iter().map(|s| s.reason.clone()).collect::<String>()
    };
    let near = of(64, 56);
    assert!(near.contains("blocks of 1x14 rows and 64 columns"), "{near}");
    let far = of(256, 56);
    assert!(far.contains("blocks of") && !far.contains("blocks of 1x14"), "{far}");
}
