//! Lanes that are no neighbours in memory, compiled: strided loads and stores, rows of lanes, lanes backwards and pixels
//! shuffled, bit for bit what the interpreter makes of the same code, with each C compiler of this machine.

mod kernels;

use kernels::*;
use winograph::device::Module;
use winograph_compiler::lower::emit::lower;
use winograph_compiler::optimize::plan::Plan;
use winograph_compiler::schedule::{layout, rangeify, split};
use winograph_compiler::{Options, Target};
use winograph_ir::interp::linear::run;
use winograph_ir::linear::{Code, Instr, Stmt};
use winograph_ir::text::parse_tensor;
use winograph_ir::verify::linear::verify;
use winograph_ir::{DType, Scalar};

/// A graph of one kernel and the plans it is run with.
const CASES: [(&str, &[&str]); 5] = [
    (
        "%0 = input 0 : f32[3, 13, 58]
         %1 = pad %0 before [0, 1, 1] after [0, 1, 1] value -1.5f32
         %2 = unfold %1 axis 1 size 3 stride 2 dilation 1
         %3 = unfold %2 axis 2 size 5 stride 2 dilation 1
         %4 = reduce max any [3, 4] %3
         output %4",
        &[
            "a0=grid a1=grid a2=grid,vector:16 r0=loop r1=unroll order=a0,a1,a2",
            "a0=grid a1=grid a2=grid,vector:8 r0=unroll r1=unroll order=a0,a1,a2",
            "a0=grid a1=grid a2=grid,unroll:2,vector:4 r0=loop r1=loop order=a0,a1,a2",
        ],
    ),
    (
        "%0 = input 0 : f32[2, 9, 21]
         %1 = unfold %0 axis 1 size 3 stride 1 dilation 1
         %2 = unfold %1 axis 2 size 3 stride 3 dilation 1
         %3 = reduce add sequential [3, 4] %2
         output %3",
        &[
            "a0=grid a1=grid,vector:2 a2=vector:7 r0=unroll r1=unroll order=a0,a1,a2",
            "a0=grid a1=grid,vector:4 a2=grid,vector:4 r0=loop r1=unroll order=a0,a1,a2",
        ],
    ),
    (
        "%0 = input 0 : f32[4, 6, 20]
         %1 = reshape %0 : f32[2, 2, 6, 20]
         %2 = permute %1 [2, 0, 3, 1]
         %3 = reshape %2 : f32[12, 40]
         output %3",
        &[
            "a0=grid a1=grid a2=grid a3=unroll order=a0,a1,a2,a3",
            "a0=grid a1=grid a2=grid,vector:8 a3=unroll order=a0,a1,a2,a3",
            "a0=grid a1=grid a2=grid,vector:16 a3=unroll order=a0,a1,a2,a3",
            "a0=grid a1=grid a2=grid,vector:8 a3=vector:2 order=a0,a1,a2,a3",
        ],
    ),
    (
        "%0 = input 0 : i32[5, 40]
         %1 = slice %0 start [0, 39] step [1, -1] size [5, 40]
         %2 = add %1, %1
         output %2",
        &["a0=grid a1=grid,vector:16 order=a0,a1", "a0=grid a1=grid,vector:4 order=a0,a1"],
    ),
    (
        "%0 = input 0 : f64[5, 45]
         %1 = slice %0 start [0, 2] step [1, 4] size [5, 11]
         %2 = mul %1, %1
         output %2",
        &["a0=grid a1=grid,vector:8 order=a0,a1"],
    ),
];

fn code(text: &str, plan: &str) -> Code {
    let graph = rangeify::rangeify(&parse_tensor(text).unwrap());
    let mut kernels = split::split(&graph, 1);
    layout::layout(&mut kernels, &graph.buffers, &Target::cpu(64), Options::default().layout, 1);
    let [k] = &kernels[..] else { panic!("{} kernels", kernels.len()) };
    let scheduled = Plan::parse(plan).unwrap().apply(k).unwrap_or_else(|e| panic!("{e}\n{}", k.text()));
    let code = lower(&scheduled, "k".into());
    verify(&code).unwrap_or_else(|e| panic!("{plan}: {e}"));
    code
}

#[test]
fn strided_lanes_and_rows_agree_with_the_interpreter() {
    let pairs: Vec<(&str, &str)> = CASES.iter().flat_map(|c| c.1.iter().map(|p| (c.0, *p))).collect();
    let codes: Vec<Code> = pairs.iter().map(|(text, plan)| code(text, plan)).collect();
    for (code, what) in codes.iter().zip(&pairs) {
        let (mut shuffles, mut single) = (0, 0);
        code.for_each_stmt(&mut |s| match s {
            Stmt::Let { instr: Instr::Shuffle { .. }, .. } => shuffles += 1,
            Stmt::Let { instr: Instr::Load { access, .. }, .. } | Stmt::Store { access, .. } => {
                single += access.lane.is_none() as usize;
            }
            _ => {}
        });
        let vector = what.1.contains("vector");
        assert_eq!((shuffles > 0, single == 0), (vector, vector), "{}", what.1);
    }
    for cc in compilers() {
        let (module, _) = device(Some(&cc), 2).load(&codes).unwrap_or_else(|e| panic!("{cc}: {e}"));
        for (n, (code, what)) in codes.iter().zip(&pairs).enumerate() {
            check(&module, n, code, &format!("{cc}: {}", what.1));
        }
    }
}

fn check(module: &dyn Module, n: usize, code: &Code, what: &str) {
    let mut args: Vec<Vec<Scalar>> = Vec::new();
    for decl in &code.args {
        let count = code.ints.as_const(decl.layout.len).unwrap();
        let value = |i: i64| match decl.dtype {
            DType::I32 => Scalar::from_i64(decl.dtype, (i * 7919) % 1000 - 500),
            d => Scalar::from_f64(d, ((i * 7919) % 1000) as f64 / 64.0 - 7.0),
        };
        args.push((0..count).map(|i| value(if decl.written { 3 } else { i })).collect());
    }
    let as_bytes = |v: &[Scalar]| -> Vec<u8> {
        v.iter().flat_map(|s| s.bits().to_le_bytes().into_iter().take(s.dtype().size())).collect()
    };
    let mut expected: Vec<Vec<u8>> = args.iter().map(|v| as_bytes(v)).collect();
    run(code, &mut expected, &[]).unwrap();
    let buffers: Vec<_> = args.iter().map(|v| buffer(v)).collect();
    launch(module, n, &buffers.iter().collect::<Vec<_>>(), &[]);
    for (b, want) in buffers.iter().zip(&expected) {
        assert!(b.as_slice() == &want[..], "{what}");
    }
}
