//! Two nests of grid loops, serial loops, buffers of a thread large and small, floor division, a parameter.

use super::*;
use winograph_ir::BinaryOp;
use winograph_ir::linear::LoopKind;

/// Two nests, the first of three loops with a size that is a parameter, with accumulation in a serial loop, a large
/// local buffer and divisions in addresses.
pub(crate) fn nested_kernel() -> Code {
    let mut b = Builder::new("r_2_n_3");
    let n = b.code.ints.new_param("n", 0, 9);
    let n = b.code.ints.param(n);
    let (g0, g1, g2, k) = (b.range(2), b.code.ints.new_range(n, RangeRole::Map), b.range(3), b.range(4));
    let (i0, i1, i2, ik) = (b.code.ints.range(g0), b.code.ints.range(g1), b.code.ints.range(g2), b.code.ints.range(k));
    let six = b.code.ints.scale(n, 6);
    let out_len = b.code.ints.add_const(six, 7);
    let (input, out) = (b.arg(DType::F32, 1, false), b.arg_of(DType::F32, out_len, true));
    let big = b.local(DType::F32, 20_000);
    let small = b.local(DType::F32, 8);
    // flat = (i0 * n + i1) * 3 + i2
    let ints = &mut b.code.ints;
    let a = ints.mul(i0, n);
    let a = ints.add(a, i1);
    let flat = ints.sum(&[(a, 3), (i2, 1)], 0);
    let far = ints.sum(&[(ik, 5000)], 1);
    let odd = ints.sum(&[(flat, 1), (ik, 1)], -3);
    let half = ints.div_const(odd, 3);
    let rest = ints.rem_const(odd, 3);
    let zero = ints.constant(0);
    let mut body = Vec::new();
    // big[5000 k + 1] = floor((flat + k - 3) / 3) + ((flat + k - 3) mod 3) * x
    let mut fill = Vec::new();
    let q = b.emit(DType::F32, 1, Instr::Index { value: half, lane: None }, &mut fill);
    let r = b.emit(DType::F32, 1, Instr::Index { value: rest, lane: None }, &mut fill);
    let at = b.access(input, zero, None);
    let x = b.load(DType::F32, 1, at, &mut fill);
    let v = b.emit(DType::F32, 1, Instr::Fma { a: r, b: x, c: q }, &mut fill);
    let to = b.access(big, far, None);
    fill.push(Stmt::Store { access: to, value: v });
    body.push(Stmt::Loop { range: k, kind: LoopKind::Serial, body: fill });
    // sum over k into a variable, by way of the small buffer
    let start = b.emit(DType::F32, 1, Instr::Const(Scalar::zero(DType::F32)), &mut body);
    let acc = b.reg(DType::F32, 1);
    body.push(Stmt::Var { reg: acc, init: start });
    let mut sum = Vec::new();
    let from = b.access(big, far, None);
    let v = b.load(DType::F32, 1, from, &mut sum);
    let to = b.access(small, ik, None);
    sum.push(Stmt::Store { access: to, value: v });
    let from = b.access(small, ik, None);
    let v = b.load(DType::F32, 1, from, &mut sum);
    let s = b.emit(DType::F32, 1, Instr::Binary { op: BinaryOp::Add, a: acc, b: v }, &mut sum);
    sum.push(Stmt::Set { reg: acc, value: s });
    body.push(Stmt::Loop { range: k, kind: LoopKind::Serial, body: sum });
    let to = b.access(out, flat, None);
    body.push(Stmt::Store { access: to, value: acc });
    let inner = Stmt::Loop { range: g2, kind: LoopKind::Grid, body };
    let middle = Stmt::Loop { range: g1, kind: LoopKind::Grid, body: vec![inner] };
    b.code.body.push(Stmt::Loop { range: g0, kind: LoopKind::Grid, body: vec![middle] });
    // second nest: out[6 n + j] = -1 where j is not 4
    let j = b.range(7);
    let ij = b.code.ints.range(j);
    let place = b.code.ints.add(six, ij);
    let gates = [b.int(&[(j, 1)], -5), b.int(&[(j, -1)], 3)];
    let mut body = Vec::new();
    let minus = b.emit(DType::F32, 1, Instr::Const(Scalar::from_f64(DType::F32, -1.0)), &mut body);
    for gate in gates {
        let to = b.access(out, place, None);
        let store = Stmt::Store { access: to, value: minus };
        body.push(Stmt::If { gate: [gate].into(), body: vec![store] });
    }
    b.code.body.push(Stmt::Loop { range: j, kind: LoopKind::Grid, body });
    b.code
}

/// The kernel with every value of its parameter.
pub(crate) fn nested() -> Vec<Case> {
    let f = |x| Scalar::from_f64(DType::F32, x);
    let case = |n: i64| {
        let mut expected = Vec::new();
        for flat in 0..6 * n {
            let term = |k: i64| {
                let odd = flat + k - 3;
                odd.div_euclid(3) as f64 + 0.5 * odd.rem_euclid(3) as f64
            };
            expected.push(f((0..4).map(term).sum::<f64>()));
        }
        expected.extend((0..7).map(|j| f(if j == 4 { 0.0 } else { -1.0 })));
        Case {
            what: format!("nests with n = {n}"),
            code: nested_kernel(),
            inputs: vec![vec![f(0.5)]],
            params: vec![n],
            before: zeros(&expected),
            expected,
        }
    };
    (0..=9).map(case).collect()
}
