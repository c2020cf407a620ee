//! Grids and layouts for GPUs: what they move, counted, and that the kernels are right on the virtual GPU.

mod common;

use common::{Conv, bytes, error, floats};
use winograph_compiler::options::{GridRule, LayoutRule};
use winograph_compiler::{Algorithm, Options, Place, Program, Target, compile};
use winograph_ir::indexed::Origin;
use winograph_ir::interp::gpu::{self, AccessKind, GpuModel, Space, sites};
use winograph_ir::interp::sectors;

fn program(conv: &Conv, target: &str, algorithm: Algorithm, layout: LayoutRule, grid: GridRule) -> Program {
    let options = Options { algorithm, layout, grid, verify_each_pass: true, ..Options::default() };
    compile(&conv.graph(), &Target::by_name(target).unwrap(), &options).unwrap().0
}

/// Sectors of global memory that one run moves: all of them, and those of stores to the compiler's own buffers with
/// the least that they could be.
fn moved(program: &Program) -> (u64, u64, u64) {
    let (mut all, mut own, mut least) = (0, 0, 0);
    for step in program.prepare.iter().chain(&program.run) {
        let code = &program.kernels[step.kernel];
        let counts = sectors::count(code, &[], &GpuModel::default()).unwrap();
        for (site, c) in sites(code).iter().zip(&counts) {
            if site.space != Space::Global {
                continue;
            }
            all += c.sectors;
            let winograph_ir::linear::Memory::Arg(at) = site.memory else { continue };
            if site.kind == AccessKind::Store && code.args[at as usize].origin == Origin::Internal {
                own += c.sectors;
                least += c.least_sectors;
            }
        }
    }
    (all, own, least)
}

#[test]
fn auto_moves_no_more_than_the_old_rules_and_stores_the_least() {
    // Rows of 64 tiles down to 2, most of which fill no sectors.
    let squares = [8, 14, 20, 24, 28, 40, 48, 56, 64, 72, 96, 112, 224].map(|size| Conv::conv2d(1, 16, size, size, 16));
    let deep = [
        Conv::conv2d(1, 64, 224, 224, 64),
        Conv::conv2d(1, 128, 112, 112, 128),
        Conv::conv2d(1, 256, 56, 56, 256),
        Conv::conv2d(1, 512, 28, 28, 512),
        Conv::conv2d(1, 256, 14, 14, 256),
        Conv::conv2d(1, 512, 7, 7, 512),
        Conv::conv2d(2, 32, 20, 24, 48),
        Conv::conv2d(1, 3, 30, 50, 20),
    ];
    let mut wrong = Vec::new();
    for conv in squares.iter().chain(&deep) {
        for target in ["cuda:sm_90", "metal"] {
            for tile in [Some(vec![4.into()]), None] {
                let of = |layout, grid| {
                    let options = Options {
                        algorithm: Algorithm::Winograd,
                        tile: tile.clone(),
                        layout,
                        grid,
                        verify_each_pass: true,
                        ..Options::default()
                    };
                    compile(&conv.graph(), &Target::by_name(target).unwrap(), &options).unwrap().0
                };
                let program = of(LayoutRule::Auto, GridRule::Auto);
                let in_blocks = program.kernels.iter().any(|code| !code.locals.is_empty());
                let of = |layout, grid| moved(&of(layout, grid));
                let auto = moved(&program);
                let old = of(LayoutRule::Creation, GridRule::RangeId);
                let same_layouts = of(LayoutRule::Auto, GridRule::RangeId);
                // Where its stores fill no sectors, as with rows of 5 tiles, it may load less. Products in blocks of shared memory,
                // whose axes of tiles are one under `auto` alone, are planned for time and may load a little more.
                let most = if in_blocks { 1.05 } else { 1.0 };
                let fewer = same_layouts.1 == same_layouts.2 && (same_layouts.0 as f64) * most < auto.0 as f64;
                if fewer || auto.0 > old.0 || auto.1 != auto.2 {
                    wrong.push(format!(
                        "{target} {:?} {:?} tile {tile:?}: {} sectors under auto, {} under the old rules, {} under the old rule of \
                         threads with the new layouts; stores of own buffers {}, at least {}",
                        conv.size, conv.c, auto.0, old.0, same_layouts.0, auto.1, auto.2
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Runs a program on the virtual GPU and compares what is counted with what was predicted.
fn run_virtual(program: &Program, inputs: &[Vec<u8>]) -> Vec<u8> {
    let mut memory: Vec<Vec<u8>> = program
        .buffers
        .iter()
        .map(|b| match b.place {
            Place::Argument(s) | Place::Constant(s) => inputs[s].clone(),
            _ => vec![0xcd; b.len * b.dtype.size()],
        })
        .collect();
    for step in program.prepare.iter().chain(&program.run) {
        let code = &program.kernels[step.kernel];
        let mut args: Vec<Vec<u8>> = step.args.iter().map(|&a| std::mem::take(&mut memory[a])).collect();
        let counted = gpu::run(code, &mut args, &[], &GpuModel::default()).unwrap();
        let predicted = sectors::count(code, &[], &GpuModel::default()).unwrap();
        assert_eq!(counted.sites, predicted, "{}", code.name);
        for (&a, v) in step.args.iter().zip(args) {
            memory[a] = v;
        }
    }
    let out = program.buffers.iter().position(|b| b.place == Place::Output(0)).unwrap();
    memory.swap_remove(out)
}

#[test]
fn kernels_are_right_on_the_virtual_gpu_and_move_what_was_predicted() {
    let mut ragged = Conv::conv2d(2, 6, 9, 11, 10);
    ragged.padding = vec![(0, 1), (2, 1)];
    let mut strided = Conv::conv2d(1, 4, 12, 12, 8);
    strided.stride = vec![2, 2];
    for conv in [Conv::conv2d(1, 16, 16, 16, 16), ragged, strided] {
        let (x, w) = conv.inputs();
        let reference = conv.reference(&x, &w);
        for target in ["cuda:sm_90", "metal"] {
            for algorithm in [Algorithm::Direct, Algorithm::Winograd] {
                for (layout, grid) in [(LayoutRule::Auto, GridRule::Auto), (LayoutRule::Creation, GridRule::RangeId)] {
                    let p = program(&conv, target, algorithm, layout, grid);
                    let y = run_virtual(&p, &[bytes(&x), bytes(&w)]);
                    let e = error(&floats(&y), &reference);
                    assert!(e < 5e-6, "{target} {algorithm:?} {layout:?} {grid:?} {conv:?}: relative error {e:e}");
                }
            }
        }
    }
}

/// A program of one definition or a few, from text, planned by both rules for grids; sectors of a run by each.
fn by_rule(text: &str, target: &str) -> [(Program, u64, u64); 2] {
    let tensors = winograph_ir::text::parse_tensor(text).unwrap();
    [GridRule::Auto, GridRule::RangeId].map(|grid| {
        let options = Options { algorithm: Algorithm::Direct, grid, verify_each_pass: true, ..Options::default() };
        let p = compile(&tensors, &Target::by_name(target).unwrap(), &options).unwrap().0;
        let (mut all, mut least) = (0, 0);
        for step in &p.run {
            for c in sectors::count(&p.kernels[step.kernel], &[], &GpuModel::default()).unwrap() {
                all += c.sectors;
                least += c.least_sectors;
            }
        }
        (p, all, least)
    })
}

/// Under auto a program moves at most so many times the least, and fewer sectors than by the numbers of ranges; both
/// give the same results on the virtual GPU as in the interpreter of linear code.
fn finds_lanes(text: &str, sizes: &[usize], most: f64, gain: f64) {
    for target in ["cuda:sm_90", "metal"] {
        let [(auto, moved, least), (old, before, _)] = by_rule(text, target);
        assert!(moved as f64 <= most * least as f64, "{target}: {moved} sectors, least {least}\n{text}");
        assert!(before as f64 >= gain * moved as f64, "{target}: {moved} under auto, {before} by range-id\n{text}");
        let inputs: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(n, &s)| bytes(&common::noise(s, n as u64))).collect();
        let wanted = common::interpret(&auto, &inputs);
        for p in [&auto, &old] {
            assert_eq!(floats(&run_virtual(p, &inputs)), floats(&wanted[0]), "{target}\n{text}");
        }
    }
}

#[test]
fn lanes_are_found_through_divisions_where_no_stride_is_known() {
    let text =
        "%0 = input 0 : f32[96, 60]\n%1 = permute %0 [1, 0]\n%2 = reshape %1 : f32[64, 90]\n%3 = neg %2\noutput %3\n";
    // Nothing matches: neither axis of the result moves the load by a known distance.
    let tensors = winograph_ir::text::parse_tensor(text).unwrap();
    let mut kernel =
        winograph_compiler::schedule::split::split(&winograph_compiler::schedule::rangeify::rangeify(&tensors), 1)
            .remove(0);
    let touches = winograph_compiler::optimize::access::touches(&kernel, &[]);
    let load = touches.iter().find(|t| !t.write).unwrap().clone();
    for r in kernel.loops.clone() {
        let inner = winograph_compiler::optimize::access::inner_axis(&kernel.graph, load.buffer);
        let stride = winograph_compiler::optimize::access::stride(&mut kernel.graph, &load, r, inner);
        assert_eq!(stride, winograph_compiler::optimize::access::Stride::Irregular);
    }
    // Loads go along columns of the argument: at least a sector for each element of the load or of the store.
    finds_lanes(text, &[96 * 60], 4.6, 1.0);
}

#[test]
fn lanes_are_found_behind_masks() {
    let text = "%0 = input 0 : f32[40, 12, 5]\n%1 = input 1 : f32[40, 12, 3]\n%2 = cat axis 2 %0, %1\n\
                %3 = pad %2 before [3, 0, 0] after [1, 0, 0] value 0.0f32\n%4 = neg %3\noutput %4\n";
    finds_lanes(text, &[40 * 12 * 5, 40 * 12 * 3], 1.8, 1.3);
}

#[test]
fn lanes_are_found_with_reductions_inside() {
    // A rule that leaves kernels with a reduction as their axes were made loses on each of these.
    let middle = "%0 = input 0 : f32[16, 32, 10, 8]\n%1 = reduce add any [2] %0\noutput %1\n";
    finds_lanes(middle, &[16 * 32 * 10 * 8], 1.0, 1.9);
    let scaled = "%0 = input 0 : f32[8, 16, 12, 8]\n%1 = input 1 : f32[12, 8]\n%2 = reshape %1 : f32[1, 1, 12, 8]\n\
                  %3 = expand %2 : f32[8, 16, 12, 8]\n%4 = mul %0, %3\n%5 = reduce add any [2] %4\noutput %5\n";
    finds_lanes(scaled, &[8 * 16 * 12 * 8, 12 * 8], 1.5, 1.5);
    let divided = "%0 = input 0 : f32[8, 12, 4, 8]\n%1 = permute %0 [1, 0, 2, 3]\n%2 = reshape %1 : f32[16, 6, 4, 8]\n\
                   %3 = reduce add any [1] %2\noutput %3\n";
    finds_lanes(divided, &[8 * 12 * 4 * 8], 1.0, 1.5);
}
