//! Kernels of blocks with several threads: shared memory and barriers, register tiles, gates, half floats.

use super::*;
use winograph_ir::BinaryOp;
use winograph_ir::linear::LoopKind;

fn nest(loops: &[(RangeId, LoopKind)], body: Vec<Stmt>) -> Stmt {
    let mut body = body;
    for &(range, kind) in loops.iter().rev() {
        body = vec![Stmt::Loop { range, kind, body }];
    }
    body.remove(0)
}

fn store(b: &Builder, mem: Mem, addr: IntId, lane: Option<RangeId>, value: Reg) -> Stmt {
    Stmt::Store { access: b.access(mem, addr, lane), value }
}

fn case(what: &str, b: Builder, inputs: Vec<Vec<Scalar>>, expected: Vec<Scalar>) -> Case {
    Case { what: what.into(), code: b.code, inputs, params: vec![], before: zeros(&expected), expected }
}

fn numbers(d: DType, n: i64) -> Vec<Scalar> {
    (0..n).map(|i| Scalar::from_f64(d, (i * 7 % 32) as f64 / 4.0 - 3.0)).collect()
}

/// Each block of 4 x 16 threads turns 128 numbers around by way of shared memory, two of them a thread and an access;
/// `len` elements of shared memory are declared.
fn reverse(d: DType, len: i64) -> Case {
    let mut b = Builder::new("E_3_4_16_2");
    let (grid, t0, t1, lane) = (b.range(3), b.range(4), b.range(16), b.range(2));
    let (input, shared) = (b.arg(d, 384, false), b.local_in(Scope::Shared, d, len));
    let out = b.arg(d, 384, true);
    let flat = b.int(&[(grid, 128), (t0, 32), (t1, 2), (lane, 1)], 0);
    let here = b.int(&[(t0, 32), (t1, 2), (lane, 1)], 0);
    let there = b.int(&[(t0, -32), (t1, -2), (lane, -1)], 127);
    let mut body = Vec::new();
    let access = b.access(input, flat, Some(lane));
    let x = b.load(d, 2, access, &mut body);
    body.push(store(&b, shared, here, Some(lane), x));
    body.push(Stmt::Barrier(Scope::Shared));
    let access = b.access(shared, there, Some(lane));
    let x = b.load(d, 2, access, &mut body);
    body.push(store(&b, out, flat, Some(lane), x));
    let loops = [(grid, LoopKind::Grid), (t0, LoopKind::Thread), (t1, LoopKind::Thread)];
    b.code.body.push(nest(&loops, body));
    let values = match d {
        DType::Bool => (0..384).map(|i| Scalar::from_bool(i * i % 7 < 3)).collect(),
        d if d.is_int() => (0..384).map(|i| Scalar::from_i64(d, i * i * 2_654_435_761)).collect(),
        d => numbers(d, 384),
    };
    let expected = values.chunks(128).flat_map(|c| c.iter().rev().copied()).collect();
    case(&format!("reverse {d} through {len}"), b, vec![values], expected)
}

/// `c[m, n] = sum over k of a[m, k] * b[k, n]` for 20 x 24 x 18: tiles of 8 x 8 a block, of which each of 8 x 4 threads
/// has 1 x 2 in an array that is to be registers; slices of 4 of both factors in shared memory, gated at the edges.
fn matmul() -> Case {
    const M: i64 = 20;
    const N: i64 = 24;
    const K: i64 = 18;
    let f = DType::F32;
    let mut b = Builder::new("r_3_3_8_4_2_18");
    let (gm, gn, tm, tn) = (b.range(3), b.range(3), b.range(8), b.range(4));
    let (ks, ki, two, lane) = (b.range(5), b.range(4), b.range(2), b.range(2));
    let (a, w, c) = (b.arg(f, M * K, false), b.arg(f, K * N, false), b.arg(f, M * N, true));
    let (sa, sw) = (b.local_in(Scope::Shared, f, 32), b.local_in(Scope::Shared, f, 32));
    let acc = b.local_in(Scope::Register, f, 2);
    let mut body = Vec::new();
    let zero = b.emit(f, 1, Instr::Const(Scalar::zero(f)), &mut body);
    let at = b.int(&[(two, 1)], 0);
    body.push(nest(&[(two, LoopKind::Serial)], vec![store(&b, acc, at, None, zero)]));
    let mut slice = Vec::new();
    // sa[tm, tn] = a[8 gm + tm, 4 ks + tn], one element a thread.
    let from = b.int(&[(gm, 8 * K), (tm, K), (ks, 4), (tn, 1)], 0);
    let inside = [b.int(&[(gm, -8), (tm, -1)], M - 1), b.int(&[(ks, -4), (tn, -1)], K - 1)];
    let access = b.gated(a, from, None, &inside);
    let x = b.load(f, 1, access, &mut slice);
    let to = b.int(&[(tm, 4), (tn, 1)], 0);
    slice.push(store(&b, sa, to, None, x));
    // sw[tn, tm] = w[4 ks + tn, 8 gn + tm]
    let from = b.int(&[(ks, 4 * N), (tn, N), (gn, 8), (tm, 1)], 0);
    let inside = [b.int(&[(ks, -4), (tn, -1)], K - 1)];
    let access = b.gated(w, from, None, &inside);
    let x = b.load(f, 1, access, &mut slice);
    let to = b.int(&[(tn, 8), (tm, 1)], 0);
    slice.push(store(&b, sw, to, None, x));
    slice.push(Stmt::Barrier(Scope::Shared));
    let mut inner = Vec::new();
    let (from_a, from_w) = (b.int(&[(tm, 4), (ki, 1)], 0), b.int(&[(ki, 8), (tn, 2), (two, 1)], 0));
    let (xa, xw, xc) = (b.access(sa, from_a, None), b.access(sw, from_w, None), b.access(acc, at, None));
    let (x, y, z) = (b.load(f, 1, xa, &mut inner), b.load(f, 1, xw, &mut inner), b.load(f, 1, xc, &mut inner));
    let s = b.emit(f, 1, Instr::Fma { a: x, b: y, c: z }, &mut inner);
    inner.push(store(&b, acc, at, None, s));
    slice.push(nest(&[(ki, LoopKind::Serial), (two, LoopKind::Serial)], inner));
    slice.push(Stmt::Barrier(Scope::Shared));
    body.push(nest(&[(ks, LoopKind::Serial)], slice));
    let pair = b.int(&[(lane, 1)], 0);
    let access = b.access(acc, pair, Some(lane));
    let sums = b.load(f, 2, access, &mut body);
    let to = b.int(&[(gm, 8 * N), (tm, N), (gn, 8), (tn, 2), (lane, 1)], 0);
    let row = b.int(&[(gm, -8), (tm, -1)], M - 1);
    let stored = store(&b, c, to, Some(lane), sums);
    body.push(Stmt::If { gate: [row].into(), body: vec![stored] });
    let loops = [(gm, LoopKind::Grid), (gn, LoopKind::Grid), (tm, LoopKind::Thread), (tn, LoopKind::Thread)];
    b.code.body.push(nest(&loops, body));
    let (x, y) = (numbers(f, M * K), numbers(f, K * N));
    let mut expected = Vec::new();
    for m in 0..M {
        for n in 0..N {
            let term = |k: i64| x[(m * K + k) as usize].to_f64() * y[(k * N + n) as usize].to_f64();
            expected.push(Scalar::from_f64(f, (0..K).map(term).sum()));
        }
    }
    case("matmul", b, vec![x, y], expected)
}

/// `relu(x * s + y)` on half floats, 8 a thread and an access, computed in f32; the last block is gated.
fn half(d: DType) -> Case {
    const LEN: i64 = 32 * 8 * 2 + 24;
    let f = DType::F32;
    let mut b = Builder::new("E_3_32_8");
    let (grid, thread, lane) = (b.range(3), b.range(32), b.range(8));
    let (x, y, out) = (b.arg(d, LEN, false), b.arg(d, LEN, false), b.arg(d, LEN, true));
    let at = b.int(&[(grid, 256), (thread, 8), (lane, 1)], 0);
    let inside = b.int(&[(grid, -256), (thread, -8), (lane, -1)], LEN - 1);
    let mut body = Vec::new();
    let mut read = Vec::new();
    for mem in [x, y] {
        let access = b.gated(mem, at, Some(lane), &[inside]);
        let h = b.load(d, 8, access, &mut body);
        read.push(b.emit(f, 8, Instr::Cast { x: h }, &mut body));
    }
    let s = b.emit(f, 1, Instr::Const(Scalar::from_f64(f, 0.3)), &mut body);
    let s = b.emit(f, 8, Instr::Splat { x: s }, &mut body);
    let zero = b.emit(f, 1, Instr::Const(Scalar::zero(f)), &mut body);
    let zero = b.emit(f, 8, Instr::Splat { x: zero }, &mut body);
    let r = b.emit(f, 8, Instr::Fma { a: read[0], b: s, c: read[1] }, &mut body);
    let r = b.emit(f, 8, Instr::Binary { op: BinaryOp::Max, a: r, b: zero }, &mut body);
    let value = b.emit(d, 8, Instr::Cast { x: r }, &mut body);
    let access = b.gated(out, at, Some(lane), &[inside]);
    body.push(Stmt::Store { access, value });
    b.code.body.push(nest(&[(grid, LoopKind::Grid), (thread, LoopKind::Thread)], body));
    let (x, y) = (numbers(d, LEN), numbers(d, LEN).into_iter().rev().collect::<Vec<_>>());
    let apply = |(a, c): (&Scalar, &Scalar)| {
        let fma = winograph_ir::op::apply_fma(a.cast(f), Scalar::from_f64(f, 0.3), c.cast(f));
        BinaryOp::Max.apply(fma, Scalar::zero(f)).cast(d)
    };
    let expected = x.iter().zip(&y).map(apply).collect();
    case(&format!("half {d}"), b, vec![x, y], expected)
}

/// Each thread reads a table at a place of its own, and one that it shares with the others of its block.
fn tables() -> Case {
    let d = DType::F32;
    let mut b = Builder::new("E_4_32");
    let (grid, thread) = (b.range(4), b.range(32));
    let out = b.arg(d, 128, true);
    let values = numbers(d, 32);
    let few: Vec<_> = [1.5, f64::INFINITY, -0.0, f64::NAN].map(|x| Scalar::from_f64(d, x)).into();
    let (own, same) = (b.table(&values), b.table(&few));
    let (from_own, from_same) = (b.int(&[(thread, 1)], 0), b.int(&[(grid, 1)], 0));
    let mut body = Vec::new();
    let (x, y) = (b.access(own, from_own, None), b.access(same, from_same, None));
    let (x, y) = (b.load(d, 1, x, &mut body), b.load(d, 1, y, &mut body));
    let value = b.emit(d, 1, Instr::Binary { op: BinaryOp::Add, a: x, b: y }, &mut body);
    let at = b.int(&[(grid, 32), (thread, 1)], 0);
    body.push(store(&b, out, at, None, value));
    b.code.body.push(nest(&[(grid, LoopKind::Grid), (thread, LoopKind::Thread)], body));
    let expected = few.iter().flat_map(|&y| values.iter().map(move |&x| BinaryOp::Add.apply(x, y))).collect();
    case("tables", b, vec![], expected)
}

/// All of them.
pub(crate) fn threads() -> Vec<Case> {
    let mut out: Vec<_> = [DType::F32, DType::I64, DType::Bool, DType::F16, DType::U8].map(|d| reverse(d, 128)).into();
    // More than 48 KiB.
    out.push(reverse(DType::F32, 20_000));
    out.extend([matmul(), half(DType::F16), half(DType::BF16), tables()]);
    out
}
