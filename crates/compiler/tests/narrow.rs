//! Stages narrowed to blocks compute the same bits as stages in global memory, whatever the blocks.

mod common;

use common::{bytes, noise};
use proptest::prelude::*;
use winograph_compiler::kernel::{Kernel, Launch};
use winograph_compiler::lower::link::{self, Part};
use winograph_compiler::optimize::{contract, heuristic};
use winograph_compiler::schedule::narrow::{Block, narrow};
use winograph_compiler::schedule::{flatten, fuse, layout, rangeify, split};
use winograph_compiler::{Algorithm, Options, Target, lower, winograd};
use winograph_ir::indexed::{BufId, Origin};
use winograph_ir::interp::linear;
use winograph_ir::linear::{Code, LoopKind, Stmt};
use winograph_ir::text::parse_tensor;
use winograph_ir::verify;

/// A 3x3 convolution of `%x` (2 channels of 8 x 10) and the weights `%w`, numbered from `n` on.
fn convolution(n: usize, x: usize, w: usize) -> (String, usize) {
    let text = format!(
        "%{} = pad %{x} before [0, 0, 1, 1] after [0, 0, 1, 1] value 0.0f32\n\
         %{} = unfold %{n} axis 2 size 3 stride 1 dilation 1\n\
         %{} = unfold %{} axis 3 size 3 stride 1 dilation 1\n\
         %{} = reshape %{} : f32[1, 1, 2, 8, 10, 3, 3]\n\
         %{} = expand %{} : f32[1, 2, 2, 8, 10, 3, 3]\n\
         %{} = reshape %{w} : f32[1, 2, 2, 1, 1, 3, 3]\n\
         %{} = expand %{} : f32[1, 2, 2, 8, 10, 3, 3]\n\
         %{} = mul %{}, %{}\n\
         %{} = reduce add any fused [2, 5, 6] %{}\n",
        n,
        n + 1,
        n + 2,
        n + 1,
        n + 3,
        n + 2,
        n + 4,
        n + 3,
        n + 5,
        n + 6,
        n + 5,
        n + 7,
        n + 4,
        n + 6,
        n + 8,
        n + 7,
    );
    (text, n + 8)
}

/// Kernels of convolutions in a row, after `fuse`; constant ones last of the inputs.
fn kernels(convolutions: usize, algorithm: Algorithm) -> (Vec<Kernel>, Vec<winograph_ir::indexed::Buffer>) {
    let kinds = ["argument"].into_iter().chain(vec!["constant"; convolutions]).collect::<Vec<_>>().join(", ");
    let mut text = format!("inputs {kinds}\n%0 = input 0 : f32[1, 2, 8, 10]\n");
    for i in 1..=convolutions {
        text += &format!("%{i} = input {i} : f32[2, 2, 3, 3]\n");
    }
    let (mut next, mut x) = (convolutions + 1, 0);
    for w in 1..=convolutions {
        let (more, out) = convolution(next, x, w);
        text += &more;
        (x, next) = (out, out + 1);
    }
    text += &format!("output %{x}\n");
    let mut g = rangeify::rangeify(&parse_tensor(&text).unwrap());
    let tile = (algorithm == Algorithm::Winograd).then(|| vec![4.into(), 2.into()]);
    winograd::run(&mut g, &Options { algorithm, tile, ..Options::default() }).unwrap();
    fuse::fuse(&mut g);
    (split::split(&g, 1), g.buffers)
}

/// The code of a launch, with what its kernels are planned to be on a small processor, and its arguments; `of` numbers the
/// kernel of each region.
fn linked(kernels: &[Kernel], launch: &Launch, of: impl Fn(usize, usize) -> usize) -> (Code, Vec<BufId>) {
    let target = Target::cpu(16);
    let inside = launch.kernels.len() > 1;
    let mut scheduled = Vec::new();
    for &n in &launch.kernels {
        let k = &kernels[n];
        let whole = || vec![(k.clone(), heuristic::plan(k, &target))];
        let serial = || vec![(k.clone(), heuristic::plan(k, &target).serial())];
        let regions = match inside {
            true => contract::regions(k, &target, (None, None)).map_or_else(serial, |r| r.parts),
            false => whole(),
        };
        scheduled.extend(regions.into_iter().enumerate().map(|(i, (k, p))| (of(n, i), p.apply(&k).unwrap())));
    }
    let parts = scheduled.iter().map(|(of, s)| Part {
        kernel: &s.kernel,
        code: lower::emit::lower(s, "part".to_string()),
        of: *of,
    });
    link::link(launch, parts.collect(), "launch".to_string())
}

/// Kernels whose buffers have layouts.
fn laid_out(mut kernels: Vec<Kernel>, buffers: &[winograph_ir::indexed::Buffer]) -> Vec<Kernel> {
    let target = Target::cpu(16);
    flatten::flatten(&mut kernels, target.lanes(4), false, &|_, _| true);
    layout::layout(&mut kernels, buffers, &target, Default::default(), 1);
    kernels
}

/// Runs launches of kernels by the interpreter and gives the bytes of the output.
fn run(kernels: Vec<Kernel>, buffers: &[winograph_ir::indexed::Buffer], launches: &[Launch]) -> Vec<u8> {
    let kernels = laid_out(kernels, buffers);
    let mut memory: Vec<Option<Vec<u8>>> = vec![None; buffers.len()];
    let mut output = Vec::new();
    for launch in launches {
        let (code, ids) = linked(&kernels, launch, |kernel, _| kernel);
        verify::linear::verify(&code).unwrap();
        let mut args: Vec<Vec<u8>> = Vec::new();
        for (decl, id) in code.args.iter().zip(&ids) {
            let len = code.ints.as_const(decl.layout.len).unwrap() as usize;
            let fresh = || match decl.origin {
                Origin::Argument(s) | Origin::Constant(s) => bytes(&noise(len, 1 + s as u64)),
                _ => bytes(&vec![f32::NAN; len]),
            };
            args.push(memory[id.0 as usize].take().unwrap_or_else(fresh));
        }
        linear::run(&code, &mut args, &[]).unwrap();
        for ((decl, id), arg) in code.args.iter().zip(&ids).zip(args) {
            if let Origin::Output(_) = decl.origin {
                output = arg.clone();
            }
            memory[id.0 as usize] = Some(arg);
        }
    }
    output
}

fn kind() -> impl Strategy<Value = LoopKind> {
    prop_oneof![Just(LoopKind::Grid), Just(LoopKind::Serial)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn convolutions_in_a_row_are_the_same_in_blocks(
        count in 2..4usize, rows in 1..9i64, columns in 1..11i64, channels in 1..3i64, a in kind(), b in kind(), c in kind(),
    ) {
        let (mut all, buffers) = kernels(count, Algorithm::Direct);
        let single: Vec<Launch> = (0..all.len()).map(Launch::single).collect();
        let wanted = run(all.clone(), &buffers, &single);
        let mut kinds = [a, b, c];
        kinds.sort();
        let blocks = [(1, rows), (2, columns), (0, channels)];
        let blocks: Vec<Block> =
            blocks.into_iter().zip(kinds).map(|((axis, size), kind)| Block { axis, size, kind }).collect();
        let chain: Vec<usize> = (0..all.len()).collect();
        let launch = narrow(&mut all, &chain, &blocks).unwrap();
        prop_assert_eq!(run(all, &buffers, &[launch]), wanted);
    }

    #[test]
    fn a_rewritten_convolution_is_the_same_in_blocks(
        rows in 1..4i64, columns in 1..7i64, channels in 1..3i64, a in kind(), b in kind(), c in kind(),
    ) {
        let (mut all, buffers) = kernels(1, Algorithm::Winograd);
        let single: Vec<Launch> = (0..all.len()).map(Launch::single).collect();
        let wanted = run(all.clone(), &buffers, &single);
        let name = |k: &Kernel| k.role.name();
        let at = |role: &str| all.iter().position(|k| name(k) == role).unwrap();
        let chain = [at("input_transform"), at("multiply"), at("output_transform")];
        let mut kinds = [a, b, c];
        kinds.sort();
        // The output's loops: channels, rows of tiles, rows in a tile, columns of tiles, columns in a tile.
        let blocks = [(1, rows), (3, columns), (0, channels)];
        let blocks: Vec<Block> =
            blocks.into_iter().zip(kinds).map(|((axis, size), kind)| Block { axis, size, kind }).collect();
        let launch = narrow(&mut all, &chain, &blocks).unwrap();
        let weights = Launch::single(at_weights(&all));
        prop_assert_eq!(run(all, &buffers, &[weights, launch]), wanted);
    }
}

/// Loops over positions, 24 of F(4,3)xF(2,3), and how many regions sum products inside of each.
fn positions(code: &Code) -> Vec<usize> {
    fn sums(body: &[Stmt]) -> usize {
        body.iter().map(|s| if let Stmt::Loop { body, .. } = s { sums(body).max(1) } else { 0 }).sum()
    }
    fn look(code: &Code, body: &[Stmt], out: &mut Vec<usize>) {
        for s in body {
            let Stmt::Loop { range, body, .. } = s else { continue };
            match code.ints.const_size(*range) {
                Some(24) => out.push(sums(body)),
                _ => look(code, body, out),
            }
        }
    }
    let mut out = Vec::new();
    look(code, &code.body, &mut out);
    out
}

#[test]
fn regions_of_a_product_share_the_loop_over_positions() {
    let (mut all, buffers) = kernels(1, Algorithm::Winograd);
    let at = |role: &str| all.iter().position(|k| k.role.name() == role).unwrap();
    let chain = [at("input_transform"), at("multiply"), at("output_transform")];
    // Ten tiles: two vectors of four and two tiles.
    let whole = [Block { axis: 1, size: 2, kind: LoopKind::Grid }];
    let launch = narrow(&mut all, &chain, &whole).unwrap();
    let all = laid_out(all, &buffers);
    let shared = linked(&all, &launch, |kernel, _| kernel).0;
    let apart = linked(&all, &launch, |kernel, region| 100 * kernel + region).0;
    let (shared, apart) = (positions(&shared), positions(&apart));
    assert!(apart.len() >= 2 && shared.len() == 1, "{shared:?} {apart:?}");
    assert_eq!(shared[0], apart.iter().sum::<usize>());
}

fn at_weights(kernels: &[Kernel]) -> usize {
    kernels.iter().position(|k| k.role.name() == "weight_transform").unwrap()
}
