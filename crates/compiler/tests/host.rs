//! Launches repeated for chunks of the result compute the same bits as launches for the whole result, in less memory.

mod common;

use common::{Conv, bytes, error, floats};
use proptest::prelude::*;
use winograph_compiler::options::{GridRule, LayoutRule, Products, StageRule};
use winograph_compiler::{Algorithm, Explanation, Options, Place, Program, Target, compile};
use winograph_ir::interp::gpu::{self, GpuModel};
use winograph_ir::interp::{linear, sectors};
use winograph_ir::tensor::InputKind;
use winograph_ir::verify;

fn planned(conv: &Conv, target: &Target, stages: StageRule, tile: usize) -> (Program, Explanation) {
    planned_with(conv, target, stages, tile, Products::Exact)
}

fn planned_with(
    conv: &Conv,
    target: &Target,
    stages: StageRule,
    tile: usize,
    products: Products,
) -> (Program, Explanation) {
    let options = Options {
        algorithm: Algorithm::Winograd,
        tile: Some(vec![tile.into()]),
        stages,
        products,
        verify_each_pass: true,
        ..Options::default()
    };
    let (program, explanation) = compile(&conv.graph(), target, &options).unwrap();
    for code in &program.kernels {
        verify::linear::verify(code).unwrap();
    }
    (program, explanation)
}

/// Runs a program in arenas as large as it says, on the virtual GPU or one thread of a CPU, and gives its output.
fn run(program: &Program, target: &Target, inputs: &[Vec<u8>]) -> Vec<u8> {
    let mut prepared = vec![0xcd; program.prepared_bytes];
    let mut output = Vec::new();
    for (steps, arena_bytes) in [(&program.prepare, program.prepare_arena_bytes), (&program.run, program.arena_bytes)] {
        let mut arena = vec![0xcd; arena_bytes];
        for step in steps {
            let code = &program.kernels[step.kernel];
            let buffers: Vec<_> = step.args.iter().map(|&a| &program.buffers[a]).collect();
            let size = |b: &winograph_compiler::ProgramBuffer| b.len * b.dtype.size();
            let mut args: Vec<Vec<u8>> = buffers
                .iter()
                .map(|b| match b.place {
                    Place::Argument(n) | Place::Constant(n) => inputs[n].clone(),
                    Place::Output(_) if output.is_empty() => vec![0xcd; size(b)],
                    Place::Output(_) => output.clone(),
                    Place::Prepared(at) => prepared[at..at + size(b)].to_vec(),
                    Place::Arena(at) => arena[at..at + size(b)].to_vec(),
                })
                .collect();
            let params = step.params(&[]);
            match target.gpu.is_some() {
                true => {
                    let model = GpuModel::default();
                    let counted = gpu::run(code, &mut args, &params, &model).unwrap();
                    assert_eq!(counted.sites, sectors::count(code, &params, &model).unwrap(), "{}", code.name);
                }
                false => linear::run(code, &mut args, &params).unwrap(),
            }
            for ((decl, b), arg) in code.args.iter().zip(buffers).zip(args).filter(|((d, _), _)| d.written) {
                match b.place {
                    Place::Output(_) => output = arg,
                    Place::Prepared(at) => prepared[at..at + arg.len()].copy_from_slice(&arg),
                    Place::Arena(at) => arena[at..at + arg.len()].copy_from_slice(&arg),
                    _ => panic!("{} is written", decl.name),
                }
            }
        }
    }
    output
}

fn inputs(conv: &Conv) -> Vec<Vec<u8>> {
    let (x, w) = conv.inputs();
    vec![bytes(&x), bytes(&w)]
}

fn targets() -> Vec<Target> {
    ["cpu", "cuda:sm_80", "cuda:sm_90", "metal"].map(|t| Target::by_name(t).unwrap()).into()
}

#[test]
fn chunks_of_the_batch_give_the_bits_of_the_whole_batch() {
    for target in targets() {
        // Even chunks, and a last one of fewer images.
        for (images, asked, chunks) in [(4, 2, 2), (5, 2, 2), (5, 3, 3), (6, 6, 6), (7, 3, 3)] {
            let conv = Conv::conv2d(images, 8, 10, 12, 8);
            let (whole, _) = planned(&conv, &target, StageRule::Global, 4);
            let (chunked, why) = planned(&conv, &target, StageRule::Chunks(asked), 4);
            assert_eq!(why.scopes.len(), 1, "{:?}", why.scopes);
            assert_eq!(why.scopes[0].chunks, Some(chunks), "{}: {:?}", target.name, why.scopes);
            assert_eq!(chunked.run.len(), 3 * chunks as usize);
            // All chunks run the same code.
            assert_eq!(chunked.kernels.len(), whole.kernels.len());
            let (x, y) = (inputs(&conv), (chunked.arena_bytes, whole.arena_bytes));
            assert!(y.0 < y.1, "{}: {y:?} bytes", target.name);
            assert_eq!(run(&chunked, &target, &x), run(&whole, &target, &x), "{} {images} {asked}", target.name);
        }
    }
}

#[test]
fn products_on_matrix_units_are_of_chunks_too() {
    for target in ["cuda:sm_80", "cuda:sm_90"].map(|t| Target::by_name(t).unwrap()) {
        for images in [4, 5] {
            let conv = Conv::conv2d(images, 32, 28, 28, 64);
            let of = |stages| planned_with(&conv, &target, stages, 4, Products::Tf32x3).0;
            let (whole, chunked) = (of(StageRule::Global), of(StageRule::Chunks(2)));
            assert!(chunked.run.len() == 6 && chunked.kernels.iter().any(|k| !k.units.is_empty()));
            let (x, w) = conv.inputs();
            let reference = conv.reference(&x, &w);
            for program in [whole, chunked] {
                let e = error(&floats(&run(&program, &target, &inputs(&conv))), &reference);
                assert!(e < 5e-6, "{} {images}: relative error {e:e}", target.name);
            }
        }
    }
}

#[test]
fn more_chunks_than_images_are_rows_of_tiles() {
    for target in targets() {
        let conv = Conv::conv2d(2, 8, 19, 12, 8);
        let (whole, _) = planned(&conv, &target, StageRule::Global, 4);
        let (chunked, why) = planned(&conv, &target, StageRule::Chunks(6), 4);
        // Each image is three blocks of two rows of tiles, of which there are five.
        assert_eq!(why.scopes[0].chunks, Some(6), "{:?}", why.scopes);
        assert_eq!(chunked.run.last().map(|s| &s.host[..]), Some(&[1, 2][..]));
        let x = inputs(&conv);
        assert_eq!(run(&chunked, &target, &x), run(&whole, &target, &x), "{}", target.name);
    }
}

#[test]
fn memory_between_the_kernels_falls_with_the_chunks() {
    let conv = Conv::conv2d(16, 16, 16, 16, 16);
    for target in targets() {
        let bytes = |stages| planned(&conv, &target, stages, 4).0.arena_bytes;
        let whole = bytes(StageRule::Global);
        for chunks in [2, 4, 8, 16] {
            let (chunked, least) = (bytes(StageRule::Chunks(chunks)), whole / chunks as usize);
            // A CPU's rows are padded away from powers of two, short ones by more.
            let most = if target.gpu.is_some() { least } else { least + least / 4 };
            assert!(chunked <= most, "{} {chunks}: {chunked} of {whole} bytes", target.name);
        }
    }
}

#[test]
fn one_chunk_and_sums_that_no_chain_is_around_are_left_whole() {
    let target = Target::by_name("cuda:sm_90").unwrap();
    let conv = Conv::conv2d(2, 8, 10, 12, 8);
    let (program, why) = planned(&conv, &target, StageRule::Chunks(1), 4);
    assert_eq!((program.run.len(), why.scopes[0].chunks), (3, None));
    let direct = Options { algorithm: Algorithm::Direct, stages: StageRule::Chunks(2), ..Options::default() };
    let (program, why) = compile(&conv.graph(), &target, &direct).unwrap();
    assert!(program.run.iter().all(|s| s.host.is_empty()) && why.scopes.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_chunks_give_the_bits_of_the_whole_result(
        images in 1..6usize, channels in 1..9usize, height in 3..15usize, width in 3..15usize, outputs in 1..9usize,
        chunks in 2..9u32, tile in prop_oneof![Just(2usize), Just(4)], target in 0..4usize,
    ) {
        let target = &targets()[target];
        let conv = Conv::conv2d(images, channels, height, width, outputs);
        let (whole, _) = planned(&conv, target, StageRule::Global, tile);
        let (chunked, _) = planned(&conv, target, StageRule::Chunks(chunks), tile);
        let x = inputs(&conv);
        let wanted = run(&whole, target, &x);
        prop_assert_eq!(&run(&chunked, target, &x), &wanted);
        if target.gpu.is_some() {
            let (fused, _) = planned(&conv, target, StageRule::Fused, tile);
            prop_assert_eq!(run(&fused, target, &x), wanted);
        }
    }
}

/// Kernels of a chain as one launch of workgroups, which share what is between them.
#[test]
fn workgroups_that_run_all_kernels_give_the_same_bits() {
    for target in ["cuda:sm_80", "cuda:sm_90", "metal"].map(|t| Target::by_name(t).unwrap()) {
        for (conv, tile) in [
            (Conv::conv2d(1, 16, 32, 32, 16), 4),
            (Conv::conv2d(2, 5, 11, 14, 7), 2),
            (Conv::conv2d(1, 8, 19, 12, 24), 4),
        ] {
            let (whole, _) = planned(&conv, &target, StageRule::Global, tile);
            let (fused, why) = planned(&conv, &target, StageRule::Fused, tile);
            assert!(why.scopes[0].fused, "{}: {:?}", target.name, why.scopes);
            assert_eq!((fused.run.len(), fused.arena_bytes), (1, 0), "{:?}", why.scopes);
            let x = inputs(&conv);
            assert_eq!(run(&fused, &target, &x), run(&whole, &target, &x), "{} {conv:?}", target.name);
        }
    }
}

/// `auto` takes one launch of workgroups where launches are what takes the time, with the bits of the same tiles in three.
#[test]
fn small_layers_are_one_launch_by_estimate() {
    for (n, name) in [(1, "cuda:sm_80"), (1, "cuda:sm_90"), (16, "cuda:sm_90")] {
        let (conv, target) = (Conv::conv2d(n, 16, 64, 64, 16), Target::by_name(name).unwrap());
        let (auto, why) = compile(&conv.graph(), &target, &Options::default()).unwrap();
        let scope = &why.scopes[0];
        assert!(
            scope.fused && scope.reason.contains("us beside its launch, 3 launches at"),
            "{}: {:?}",
            target.name,
            why.scopes
        );
        assert!(why.windows[0].reason.contains("as one launch of workgroups"), "{}", why.windows[0].reason);
        assert_eq!((auto.run.len(), auto.arena_bytes), (1, 0));
        let tile = Some(why.windows[0].tile.clone());
        let same = Options { algorithm: Algorithm::Winograd, tile, ..Options::default() };
        let (whole, apart) = compile(&conv.graph(), &target, &same).unwrap();
        assert_eq!((whole.run.len(), why.windows[0].bound), (3, apart.windows[0].bound));
        let x = inputs(&conv);
        assert_eq!(run(&auto, &target, &x), run(&whole, &target, &x), "{}", target.name);
    }
}

/// What a rewrite is chosen for is what becomes of it: tiles that are chosen as one launch are one, with weights that each call
/// transforms too.
#[test]
fn tiles_that_are_chosen_as_one_launch_become_one() {
    let target = Target::by_name("cuda:sm_90").unwrap();
    let mut chosen = [0; 2];
    for (n, channels, side) in [1, 2, 16].into_iter().flat_map(|n| {
        [4, 16, 32].into_iter().flat_map(move |c| [16, 30, 64, 96].into_iter().map(move |side| (n, c, side)))
    }) {
        for kind in [InputKind::Constant, InputKind::Argument] {
            let mut graph = Conv::conv2d(n, channels, side, side, channels).graph();
            graph.inputs[1] = kind;
            let (_, why) = compile(&graph, &target, &Options::default()).unwrap();
            let as_one = why.windows[0].applied && why.windows[0].reason.contains("chosen as one launch");
            assert_eq!(as_one, why.scopes.iter().any(|s| s.fused), "{n} {channels} {side} {kind:?}: {why:?}");
            chosen[usize::from(kind == InputKind::Argument)] += usize::from(as_one);
        }
    }
    assert!(chosen.iter().all(|&n| n > 2), "{chosen:?}");
}

/// What is asked for is not overruled, and products that take longer than launches stay in launches of their own.
#[test]
fn one_launch_is_left_where_something_else_is_asked_for_or_faster() {
    let target = Target::by_name("cuda:sm_90").unwrap();
    let auto = Options::default();
    for (conv, options) in [
        (Conv::conv2d(1, 16, 64, 64, 16), Options { stages: StageRule::Global, ..auto.clone() }),
        (Conv::conv2d(1, 16, 64, 64, 16), Options { layout: LayoutRule::Creation, ..auto.clone() }),
        (Conv::conv2d(1, 16, 64, 64, 16), Options { grid: GridRule::RangeId, ..auto.clone() }),
        (Conv::conv2d(1, 64, 56, 56, 64), auto.clone()),
        (Conv::conv2d(16, 64, 56, 56, 64), auto.clone()),
        (Conv::conv2d(1, 256, 14, 14, 256), auto),
    ] {
        let (_, why) = compile(&conv.graph(), &target, &options).unwrap();
        assert!(why.scopes.iter().all(|s| !s.fused), "{conv:?}: {:?}", why.scopes);
    }
}

/// Weights that are arguments are transformed in each call, in a launch more: the direct sum is one.
#[test]
fn weights_that_are_arguments_count_as_a_launch() {
    let mut graph = Conv::conv2d(1, 16, 64, 64, 16).graph();
    graph.inputs.iter_mut().for_each(|kind| *kind = InputKind::Argument);
    let target = Target::by_name("cuda:sm_90").unwrap();
    let (program, why) = compile(&graph, &target, &Options::default()).unwrap();
    assert!(program.run.len() == 1 && why.scopes.is_empty(), "{:?}", why.scopes);
    assert!(why.windows[0].reason.contains("not as one launch of workgroups"), "{}", why.windows[0].reason);
}

/// Weights that workgroups read lie along their results, whatever is cheapest for a kernel of its own.
#[test]
fn workgroups_read_whole_sectors_of_weights() {
    let target = Target::by_name("cuda:sm_90").unwrap();
    for (conv, tile) in [(Conv::conv2d(1, 64, 56, 56, 64), 2), (Conv::conv2d(16, 16, 64, 64, 16), 4)] {
        let (program, _) = planned(&conv, &target, StageRule::Fused, tile);
        let code = &program.kernels[program.run[0].kernel];
        let sites = sectors::count(code, &[], &GpuModel::default()).unwrap();
        let (moved, least) = sites.iter().fold((0, 0), |sum, s| (sum.0 + s.sectors, sum.1 + s.least_sectors));
        assert!(moved <= 2 * least, "{conv:?}: {moved} sectors, at least {least}");
    }
}
