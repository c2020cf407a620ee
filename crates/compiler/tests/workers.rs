//! The number of threads that work on kernels changes no byte of a program.

use winograph_compiler::{Observer, Options, Program, Target, compile_observed};
use winograph_ir::tensor::{InputKind, TensorGraph, TensorOp};
use winograph_ir::text::print_linear;
use winograph_ir::{BinaryOp, DType, IntId, ReduceOp, SumOrder};

struct Workers(usize);

impl Observer for Workers {
    fn workers(&self) -> usize {
        self.0
    }
}

/// Products of matrices in a row, of three sizes in turn, so that some kernels are equal and some differ.
fn products(count: usize) -> TensorGraph {
    let mut g = TensorGraph::new();
    let dims =
        |g: &mut TensorGraph, v: &[usize]| -> Vec<IntId> { v.iter().map(|&d| g.ints.constant(d as i64)).collect() };
    let mut size = 8;
    let shape = dims(&mut g, &[8, size]);
    let mut y = g.add(TensorOp::Input { slot: 0, dtype: DType::F32, shape });
    for slot in 1..=count {
        let next = [8, 24, 40][slot % 3];
        let shape = dims(&mut g, &[next, size]);
        let w = g.add(TensorOp::Input { slot, dtype: DType::F32, shape });
        let (rows, columns) = (dims(&mut g, &[8, 1, size]), dims(&mut g, &[1, next, size]));
        let full = dims(&mut g, &[8, next, size]);
        let a = g.add(TensorOp::Reshape { x: y, shape: rows });
        let a = g.add(TensorOp::Expand { x: a, shape: full.clone() });
        let b = g.add(TensorOp::Reshape { x: w, shape: columns });
        let b = g.add(TensorOp::Expand { x: b, shape: full });
        let x = g.add(TensorOp::Binary { op: BinaryOp::Mul, a, b });
        let (op, axes, order) = (ReduceOp::Add, vec![2], SumOrder::Any);
        y = g.add(TensorOp::Reduce { op, x, axes, order, fused: true, rule: None });
        size = next;
    }
    g.inputs = [InputKind::Argument].into_iter().chain((0..count).map(|_| InputKind::Constant)).collect();
    g.outputs = vec![y];
    g
}

/// All of a program that somebody could tell from another one.
fn text(p: &Program) -> String {
    let kernels: String = p.kernels.iter().map(print_linear).collect();
    format!("{kernels}{:?}{:?}{:?}{}", p.buffers, p.prepare, p.run, p.arena_bytes)
}

#[test]
fn any_number_of_threads_compiles_the_same_program() {
    let graph = products(24);
    for target in ["cpu", "cuda:sm_80"] {
        let target = Target::by_name(target).unwrap();
        let compiled = |workers| {
            let (program, explanation) =
                compile_observed(&graph, &target, &Options::default(), &mut Workers(workers)).unwrap();
            assert!(program.run.len() >= 24, "{} launches", program.run.len());
            (text(&program), format!("{:?}", explanation.kernels))
        };
        let alone = compiled(1);
        for workers in [2, 3, 16] {
            assert_eq!(compiled(workers), alone, "{workers} threads for {}", target.name);
        }
    }
}
