//! Products whose factors a workgroup stages in shared memory: right on the virtual GPU, free of races, and what is
//! planted into them is found.

mod common;

use common::{Conv, bytes, error, floats};
use winograph_compiler::optimize::stored::StoredPlans;
use winograph_compiler::{Algorithm, Options, Place, Program, Target, compile};
use winograph_ir::indexed::Scope;
use winograph_ir::interp::InterpError;
use winograph_ir::interp::gpu::{self, AccessKind, GpuModel, Site, SiteCounts, Space, sites};
use winograph_ir::interp::sectors;
use winograph_ir::linear::{Code, LoopKind, Memory, Stmt};
use winograph_ir::verify;

/// A convolution with a plan for its multiplication, and what became of the plan.
fn planned(conv: &Conv, target: &Target, plan: &str) -> (Program, Result<(), String>) {
    let plans = StoredPlans::parse(plan).unwrap();
    let options = Options {
        algorithm: Algorithm::Winograd,
        tile: Some(vec![4.into(), 4.into()]),
        plans,
        verify_each_pass: true,
        ..Options::default()
    };
    let (program, explanation) = compile(&conv.graph(), target, &options).unwrap();
    let stored = explanation.kernels.iter().flat_map(|k| &k.nests).find_map(|n| n.stored.clone());
    (program, stored.unwrap())
}

const BLOCKS: &str = "contraction: a0=grid a1=grid a2=grid,thread:8,unroll:2 a3=grid,unroll:2,thread:4 \
                      a4=grid,thread:2,vector:4 r0=loop,shared:8";

fn staged(program: &Program) -> &Code {
    program.kernels.iter().find(|k| k.locals.iter().any(|l| l.scope == Scope::Shared)).unwrap()
}

/// Runs a program on the virtual GPU, one of its kernels in another form.
fn run(program: &Program, instead: Option<&Code>, inputs: &[Vec<u8>]) -> Result<Vec<u8>, InterpError> {
    let mut memory: Vec<Vec<u8>> = program
        .buffers
        .iter()
        .map(|b| match b.place {
            Place::Argument(s) | Place::Constant(s) => inputs[s].clone(),
            _ => vec![0xcd; b.len * b.dtype.size()],
        })
        .collect();
    for step in program.prepare.iter().chain(&program.run) {
        let own = &program.kernels[step.kernel];
        let code = instead.filter(|c| c.name == own.name).unwrap_or(own);
        let mut args: Vec<Vec<u8>> = step.args.iter().map(|&a| std::mem::take(&mut memory[a])).collect();
        let counted = gpu::run(code, &mut args, &[], &GpuModel::default())?;
        assert_eq!(counted.sites, sectors::count(code, &[], &GpuModel::default()).unwrap(), "{}", code.name);
        for (&a, v) in step.args.iter().zip(args) {
            memory[a] = v;
        }
    }
    let out = program.buffers.iter().position(|b| b.place == Place::Output(0)).unwrap();
    Ok(memory.swap_remove(out))
}

#[test]
fn staged_products_are_right_and_move_less() {
    let mut ragged = Conv::conv2d(1, 16, 19, 25, 10);
    ragged.padding = vec![(0, 1), (2, 1)];
    for conv in [Conv::conv2d(1, 16, 32, 32, 16), Conv::conv2d(1, 24, 16, 32, 20), ragged] {
        let (x, w) = conv.inputs();
        let reference = conv.reference(&x, &w);
        for target in ["cuda:sm_80", "cuda:sm_90", "metal"] {
            let target = Target::by_name(target).unwrap();
            let (program, stored) = planned(&conv, &target, BLOCKS);
            assert_eq!(stored, Ok(()), "{conv:?}");
            let y = run(&program, None, &[bytes(&x), bytes(&w)]).unwrap();
            let e = error(&floats(&y), &reference);
            assert!(e < 5e-6, "{conv:?}: relative error {e:e}");
        }
    }
    // The same plan with and without a stage.
    let conv = Conv::conv2d(1, 16, 32, 32, 16);
    let target = Target::by_name("cuda:sm_90").unwrap();
    let loads = |plan: &str| {
        let (program, _) = planned(&conv, &target, plan);
        let code = program.kernels.iter().find(|k| k.role == winograph_ir::indexed::Role::Multiply).unwrap();
        let counts = sectors::count(code, &[], &GpuModel::default()).unwrap();
        let global = sites(code).into_iter().zip(counts).filter(|(s, _)| s.space == Space::Global);
        global.map(|(_, c)| c.sectors).sum::<u64>()
    };
    let (with, without) = (loads(BLOCKS), loads(&BLOCKS.replace("loop,shared:8", "loop")));
    assert!(with < without, "{with} sectors with stages, {without} without");
}

/// Removes the barrier number `n`, counted over the whole code.
fn without_barrier(body: &mut Vec<Stmt>, n: &mut usize) {
    let mut at = 0;
    while at < body.len() {
        match &mut body[at] {
            Stmt::Barrier(_) => {
                *n = n.wrapping_sub(1);
                if *n == usize::MAX {
                    body.remove(at);
                    continue;
                }
            }
            Stmt::Loop { body, .. } | Stmt::If { body, .. } => without_barrier(body, n),
            _ => {}
        }
        at += 1;
    }
}

fn barriers(code: &Code) -> usize {
    let mut n = 0;
    code.for_each_stmt(&mut |s| n += usize::from(matches!(s, Stmt::Barrier(_))));
    n
}

#[test]
fn each_barrier_is_needed_and_a_missing_one_is_found() {
    let conv = Conv::conv2d(1, 16, 32, 32, 16);
    let (x, w) = conv.inputs();
    let (program, _) = planned(&conv, &Target::by_name("cuda:sm_90").unwrap(), BLOCKS);
    let code = staged(&program);
    // Written after it was read in the iteration before; read after it was written.
    assert_eq!(barriers(code), 2);
    for n in 0..2 {
        let mut planted = code.clone();
        without_barrier(&mut planted.body, &mut { n });
        assert_eq!(barriers(&planted), 1);
        let found = run(&program, Some(&planted), &[bytes(&x), bytes(&w)]).unwrap_err();
        assert!(matches!(found, InterpError::Race { .. }), "{found}");
    }
}

/// Changes the first store to shared memory.
fn change_store(body: &mut [Stmt], change: &mut dyn FnMut(&mut Stmt)) -> bool {
    body.iter_mut().any(|s| match s {
        Stmt::Store { access, .. } if matches!(access.mem, Memory::Local(_)) => {
            change(s);
            true
        }
        Stmt::Loop { body, .. } | Stmt::If { body, .. } => change_store(body, change),
        _ => false,
    })
}

#[test]
fn a_race_and_a_wrong_index_are_found() {
    let conv = Conv::conv2d(1, 16, 32, 32, 16);
    let (x, w) = conv.inputs();
    let (program, _) = planned(&conv, &Target::by_name("cuda:sm_90").unwrap(), BLOCKS);
    let inputs = [bytes(&x), bytes(&w)];
    let code = staged(&program);
    let threads = code.nest().unwrap().threads;
    // All threads of the innermost thread loop store to one place.
    let mut planted = code.clone();
    let inner = *threads.last().unwrap();
    let zero = planted.ints.constant(0);
    let mut ints = planted.ints.clone();
    let mut fixed = |s: &mut Stmt| {
        let Stmt::Store { access, .. } = s else { return };
        let mut at = |e| ints.substitute(e, &|r| (r == inner).then_some(zero));
        access.index = access.index.iter().map(|&i| at(i)).collect();
        access.addr = at(access.addr);
    };
    assert!(change_store(&mut planted.body, &mut fixed));
    planted.ints = ints;
    verify::linear::verify(&planted).unwrap();
    let found = run(&program, Some(&planted), &inputs).unwrap_err();
    assert!(matches!(found, InterpError::Race { .. }), "{found}");
    // One row further than there is: the verifier refuses it, and the virtual GPU finds it in a run.
    let mut planted = code.clone();
    let mut ints = planted.ints.clone();
    let mut moved = |s: &mut Stmt| {
        let Stmt::Store { access, .. } = s else { return };
        access.index[0] = ints.add_const(access.index[0], 8);
        access.addr = ints.add_const(access.addr, 8 * 64);
    };
    assert!(change_store(&mut planted.body, &mut moved));
    planted.ints = ints;
    assert!(verify::linear::verify(&planted).is_err());
    let found = run(&program, Some(&planted), &inputs).unwrap_err();
    assert!(matches!(found, InterpError::AxisOutOfBounds { .. } | InterpError::OutOfBounds { .. }), "{found}");
}

/// Removes the first wait.
fn without_wait(body: &mut Vec<Stmt>) -> bool {
    if let Some(at) = body.iter().position(|s| matches!(s, Stmt::Wait(_))) {
        body.remove(at);
        return true;
    }
    body.iter_mut().any(|s| match s {
        Stmt::Loop { body, .. } | Stmt::If { body, .. } => without_wait(body),
        _ => false,
    })
}

#[test]
fn copies_ahead_are_right_and_a_wait_or_a_barrier_less_is_found() {
    let conv = Conv::conv2d(1, 40, 16, 32, 16);
    let (x, w) = conv.inputs();
    let inputs = [bytes(&x), bytes(&w)];
    let reference = conv.reference(&x, &w);
    for target in ["cuda:sm_80", "metal"] {
        for stages in [2, 3, 8] {
            let plan = format!("{BLOCKS} stages={stages}");
            let (program, stored) = planned(&conv, &Target::by_name(target).unwrap(), &plan);
            assert_eq!(stored, Ok(()));
            let e = error(&floats(&run(&program, None, &inputs).unwrap()), &reference);
            assert!(e < 5e-6, "{target}, {stages} stages: relative error {e:e}");
            let code = staged(&program);
            // A chunk is waited for by all threads before it is used, and that is when another one's place is free.
            assert_eq!(barriers(code), 1, "{stages} stages");
            let mut planted = code.clone();
            without_barrier(&mut planted.body, &mut 0);
            let found = run(&program, Some(&planted), &inputs).unwrap_err();
            assert!(matches!(found, InterpError::Race { .. }), "{found}");
            let mut planted = code.clone();
            assert!(without_wait(&mut planted.body));
            let found = run(&program, Some(&planted), &inputs).unwrap_err();
            assert!(
                matches!(&found, InterpError::Race { between, .. } if between.contains("before a wait")),
                "{found}"
            );
            // One copy more under way than there may be.
            let mut planted = code.clone();
            let mut waits = 0;
            more_pending(&mut planted.body, &mut waits);
            assert_eq!(waits, 1);
            let found = run(&program, Some(&planted), &inputs).unwrap_err();
            assert!(matches!(found, InterpError::Race { .. }), "{found}");
        }
    }
}

#[test]
fn copies_ahead_move_no_more_than_copies_at_once() {
    let conv = Conv::conv2d(1, 40, 16, 32, 16);
    let target = Target::by_name("cuda:sm_90").unwrap();
    let loads = |plan: &str| {
        let (program, stored) = planned(&conv, &target, plan);
        assert_eq!(stored, Ok(()));
        let code = staged(&program);
        let counts = sectors::count(code, &[], &GpuModel::default()).unwrap();
        let global = |k: &(Site, SiteCounts)| k.0.space == Space::Global && k.0.kind == AccessKind::Load;
        let each = sites(code).into_iter().zip(counts).filter(global);
        each.fold((0, 0), |sum, (_, c)| (sum.0 + c.sectors, sum.1 + c.bytes))
    };
    let (at_once, ahead) = (loads(BLOCKS), loads(&format!("{BLOCKS} stages=3")));
    assert_eq!(at_once.1, ahead.1, "bytes");
    assert!(ahead.0 <= at_once.0, "{} sectors ahead, {} at once", ahead.0, at_once.0);
}

fn more_pending(body: &mut [Stmt], waits: &mut usize) {
    for s in body {
        match s {
            Stmt::Wait(n) => {
                *n += 1;
                *waits += 1;
            }
            Stmt::Loop { body, .. } | Stmt::If { body, .. } => more_pending(body, waits),
            _ => {}
        }
    }
}

#[test]
fn copies_are_of_16_bytes_and_no_loop_but_the_reduction_is_left() {
    let conv = Conv::conv2d(1, 16, 32, 32, 16);
    let (program, _) = planned(&conv, &Target::by_name("cuda:sm_90").unwrap(), BLOCKS);
    let code = staged(&program);
    let wide = |space: Space| sites(code).iter().filter(|s| s.space == space).map(|s| s.lanes).max();
    assert_eq!((wide(Space::Global), wide(Space::Shared)), (Some(4), Some(4)));
    let mut serial = 0;
    code.for_each_stmt(&mut |s| serial += usize::from(matches!(s, Stmt::Loop { kind: LoopKind::Serial, .. })));
    assert_eq!(serial, 2);
}

#[test]
fn what_a_workgroup_copies_once_is_streamed_and_what_windows_share_is_not() {
    let target = Target::by_name("cuda:sm_90").unwrap();
    let streamed = |conv: &Conv, algorithm: Algorithm| {
        let options = Options { algorithm, verify_each_pass: true, ..Options::default() };
        let (program, _) = compile(&conv.graph(), &target, &options).unwrap();
        staged(&program).args.iter().filter(|a| !a.written).map(|a| a.streamed).collect::<Vec<_>>()
    };
    // X̂ and Ĝ; an image, whose pixels windows share, and weights; a window of one pixel shares none.
    let conv = Conv::conv2d(4, 64, 28, 28, 64);
    assert_eq!(streamed(&conv, Algorithm::Winograd), [true, true]);
    let mut direct = streamed(&conv, Algorithm::Direct);
    direct.sort();
    assert_eq!(direct, [false, true]);
    let mut pointwise = Conv::conv2d(4, 64, 28, 28, 256);
    (pointwise.window, pointwise.padding) = (vec![1, 1], vec![(0, 0); 2]);
    assert_eq!(streamed(&pointwise, Algorithm::Direct), [true, true]);
}

#[test]
fn plans_that_do_not_fit_are_replaced_and_say_why() {
    let conv = Conv::conv2d(1, 16, 32, 32, 16);
    let mut small = Target::by_name("cuda:sm_90").unwrap();
    if let Some(gpu) = &mut small.gpu {
        gpu.shared = 1024;
    }
    let all = [
        (BLOCKS.to_string(), &small, "bytes of shared memory, the target has at most 1024"),
        (BLOCKS.replace("shared:8", "shared:5"), &Target::by_name("metal").unwrap(), "do not divide"),
        (BLOCKS.replace("loop,shared:8", "shared:16"), &Target::by_name("metal").unwrap(), "inside of one loop"),
        (BLOCKS.replace("loop,shared:8", "loop") + " stages=2", &Target::by_name("metal").unwrap(), "without a shared"),
        (BLOCKS.replace("vector:4", "shared:4"), &Target::by_name("metal").unwrap(), "a shared factor of a map axis"),
        (BLOCKS.replace("thread:8", "thread:1024"), &Target::by_name("metal").unwrap(), "threads in a workgroup"),
    ];
    let (x, w) = conv.inputs();
    let reference = conv.reference(&x, &w);
    for (plan, target, why) in all {
        let (program, stored) = planned(&conv, target, &plan);
        let got = stored.unwrap_err();
        assert!(got.contains(why), "{plan}: {got}");
        let y = run(&program, None, &[bytes(&x), bytes(&w)]).unwrap();
        assert!(error(&floats(&y), &reference) < 5e-6, "{plan}");
    }
    let target = Target::by_name("cpu").unwrap();
    let (_, stored) = planned(&conv, &target, BLOCKS);
    assert!(stored.unwrap_err().contains("for GPUs"));
}
