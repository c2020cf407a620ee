//! Kernels with a matrix unit.

use super::*;
use winograph_compiler::render::cuda::{MATRIX_UNITS, matrix_unit};
use winograph_ir::linear::{Fragment, LoopKind};

/// The address of an element of a fragment in a row-major matrix: the thread's bits are loops, outermost first.
fn place(
    b: &mut Builder,
    f: &Fragment,
    threads: &[RangeId],
    element: u32,
    cols: i64,
    base: &[(RangeId, i64)],
) -> IntId {
    let (row, col) = f.place(0, element);
    let mut terms = base.to_vec();
    for (bit, &r) in threads.iter().rev().enumerate() {
        terms.push((r, f.thread_row[bit] as i64 * cols + f.thread_col[bit] as i64));
    }
    b.int(&terms, row as i64 * cols + col as i64)
}

/// `c + a · b` for three slices of both factors, two products a block, of numbers that every rounding keeps.
fn product(name: &str) -> Case {
    let unit = matrix_unit(name).unwrap();
    let (m, n, k, slices, blocks) = (unit.m as i64, unit.n as i64, unit.k as i64, 3i64, 2i64);
    let (d, f) = (unit.a.dtype, DType::F32);
    let mut b = Builder::new("r_2_32_4_3");
    let (grid, ks) = (b.range(blocks), b.range(slices));
    let threads: Vec<_> = (0..5).map(|_| b.range(2)).collect();
    let (a, w) = (b.arg(d, blocks * m * k * slices, false), b.arg(d, blocks * k * slices * n, false));
    let c = b.arg(f, blocks * m * n, true);
    b.code.units.push(unit.clone());
    let gather = |b: &mut Builder, mem, frag: &Fragment, cols, base: &[(RangeId, i64)], body: &mut Vec<Stmt>| {
        let mut parts = Vec::new();
        for e in 0..frag.elements() {
            let at = place(b, frag, &threads, e, cols, base);
            let access = b.access(mem, at, None);
            parts.push(b.load(frag.dtype, 1, access, body));
        }
        b.emit(frag.dtype, frag.elements(), Instr::Pack { lanes: parts.into() }, body)
    };
    let mut body = Vec::new();
    let start = gather(&mut b, c, &unit.c, n, &[(grid, m * n)], &mut body);
    let sum = b.reg(f, unit.c.elements());
    body.push(Stmt::Var { reg: sum, init: start });
    let mut inner = Vec::new();
    let x = gather(&mut b, a, &unit.a, k * slices, &[(grid, m * k * slices), (ks, k)], &mut inner);
    let y = gather(&mut b, w, &unit.b, n, &[(grid, k * slices * n), (ks, k * n)], &mut inner);
    let next = b.emit(f, unit.c.elements(), Instr::Matrix { unit: 0, a: x, b: y, c: sum }, &mut inner);
    inner.push(Stmt::Set { reg: sum, value: next });
    body.push(Stmt::Loop { range: ks, kind: LoopKind::Serial, body: inner });
    // The results two by two, as they lie in memory.
    let lane = b.range(2);
    for half in 0..2 {
        let at = place(&mut b, &unit.c, &threads, 2 * half, n, &[(grid, m * n), (lane, 1)]);
        let access = b.access(c, at, Some(lane));
        let pick = |b: &mut Builder, lane: u32, body: &mut Vec<Stmt>| {
            // One element: all others are masked out and the lanes added up.
            let one = b.emit(f, 1, Instr::Const(Scalar::one(f)), body);
            let zero = b.emit(f, 1, Instr::Const(Scalar::zero(f)), body);
            let lanes: Vec<_> = (0..4).map(|l| if l == lane { one } else { zero }).collect();
            let mask = b.emit(f, 4, Instr::Pack { lanes: lanes.into() }, body);
            let masked = b.emit(f, 4, Instr::Binary { op: winograph_ir::BinaryOp::Mul, a: sum, b: mask }, body);
            b.emit(f, 1, Instr::Fold { op: winograph_ir::ReduceOp::Add, x: masked }, body)
        };
        let pair = [pick(&mut b, 2 * half, &mut body), pick(&mut b, 2 * half + 1, &mut body)];
        let value = b.emit(f, 2, Instr::Pack { lanes: pair.into() }, &mut body);
        body.push(Stmt::Store { access, value });
    }
    for &range in threads.iter().rev() {
        body = vec![Stmt::Loop { range, kind: LoopKind::Thread, body }];
    }
    b.code.body.push(Stmt::Loop { range: grid, kind: LoopKind::Grid, body });
    let small = |n: i64, s: i64| (0..n).map(|i| ((i * i + s) * 5 % 11 - 5) as f64).collect::<Vec<_>>();
    let (x, y, z) = (small(blocks * m * k * slices, 1), small(blocks * k * slices * n, 2), small(blocks * m * n, 3));
    let mut expected = Vec::new();
    for g in 0..blocks {
        for i in 0..m {
            for j in 0..n {
                let term = |l: i64| {
                    x[(g * m * k * slices + i * k * slices + l) as usize] * y[(g * k * slices * n + l * n + j) as usize]
                };
                expected.push((0..k * slices).map(term).sum::<f64>() + z[((g * m + i) * n + j) as usize]);
            }
        }
    }
    let scalars = |d, v: Vec<f64>| v.into_iter().map(|x| Scalar::from_f64(d, x)).collect::<Vec<_>>();
    Case {
        what: format!("matrix unit {name}"),
        code: b.code,
        inputs: vec![scalars(d, x), scalars(d, y)],
        params: vec![],
        before: scalars(f, z),
        expected: scalars(f, expected),
    }
}

/// A product with each of CUDA's units.
pub(crate) fn products() -> Vec<Case> {
    MATRIX_UNITS.map(product).into()
}
