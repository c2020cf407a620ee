//! Every instruction on every dtype and several vector widths, with what the definitions in `winograph_ir::op` say.

use super::*;
use winograph_ir::linear::LoopKind;
use winograph_ir::op::apply_fma;
use winograph_ir::{BinaryOp, ReduceOp, UnaryOp};

const LANES: [u32; 3] = [1, 4, 16];

/// Elementwise: `n` elements of each input, padded to whole vectors, are loaded, given to `make` and stored.
fn elementwise(
    what: String,
    lanes: u32,
    inputs: Vec<Vec<Scalar>>,
    expected: Vec<Scalar>,
    make: impl FnOnce(&mut Builder, &[Reg], &mut Vec<Stmt>) -> Reg,
) -> Case {
    let n = expected.len().next_multiple_of(lanes as usize);
    let pad = |v: Vec<Scalar>| {
        let last = *v.last().unwrap();
        let mut v = v;
        v.resize(n, last);
        v
    };
    let inputs: Vec<_> = inputs.into_iter().map(pad).collect();
    let expected: Vec<_> = pad(expected);
    let mut b = Builder::new("E");
    let (grid, lane) = (b.range(n as i64 / lanes as i64), b.range(lanes as i64));
    let addr = b.int(&[(grid, lanes as i64), (lane, 1)], 0);
    let mut body = Vec::new();
    let mut regs = Vec::new();
    for v in &inputs {
        let mem = b.arg(v[0].dtype(), n as i64, false);
        let access = b.access(mem, addr, Some(lane));
        regs.push(b.load(v[0].dtype(), lanes, access, &mut body));
    }
    let value = make(&mut b, &regs, &mut body);
    let out = b.arg(expected[0].dtype(), n as i64, true);
    let access = b.access(out, addr, Some(lane));
    body.push(Stmt::Store { access, value });
    b.code.body.push(Stmt::Loop { range: grid, kind: LoopKind::Grid, body });
    Case { what: format!("{what} x{lanes}"), code: b.code, inputs, params: vec![], before: zeros(&expected), expected }
}

fn renderable(d: DType) -> bool {
    !matches!(d, DType::F16 | DType::BF16)
}

fn pairs(d: DType) -> (Vec<Scalar>, Vec<Scalar>) {
    let v = interesting(d);
    v.iter().flat_map(|&a| v.iter().map(move |&b| (a, b))).unzip()
}

pub(crate) fn unary() -> Vec<Case> {
    let mut cases = Vec::new();
    for op in UnaryOp::ALL {
        for d in DType::ALL.into_iter().filter(|&d| renderable(d) && op.accepts(d) && !op.is_transcendental()) {
            for lanes in LANES {
                let v = interesting(d);
                let expected: Vec<_> = v.iter().map(|&x| op.apply(x)).collect();
                cases.push(elementwise(format!("{} {d}", op.name()), lanes, vec![v], expected, |b, r, body| {
                    b.emit(d, lanes, Instr::Unary { op, x: r[0] }, body)
                }));
            }
        }
    }
    cases
}

pub(crate) fn binary() -> Vec<Case> {
    let mut cases = Vec::new();
    for op in BinaryOp::ALL {
        for d in DType::ALL.into_iter().filter(|&d| renderable(d) && op.accepts(d) && op != BinaryOp::Pow) {
            for lanes in LANES {
                let (x, y) = pairs(d);
                let expected: Vec<_> = x.iter().zip(&y).map(|(&a, &b)| op.apply(a, b)).collect();
                cases.push(elementwise(format!("{} {d}", op.name()), lanes, vec![x, y], expected, |b, r, body| {
                    b.emit(op.result(d), lanes, Instr::Binary { op, a: r[0], b: r[1] }, body)
                }));
            }
        }
    }
    cases
}

pub(crate) fn max_and_min_with_a_constant() -> Vec<Case> {
    let mut cases = Vec::new();
    for op in [BinaryOp::Max, BinaryOp::Min] {
        for d in [DType::F32, DType::F64, DType::I32] {
            for k in [0.0, -0.0, 6.0, f64::NAN] {
                for (lanes, first) in LANES.into_iter().flat_map(|l| [(l, true), (l, false)]) {
                    let (v, k) = (interesting(d), Scalar::from_f64(d, k));
                    let apply = |x| if first { op.apply(k, x) } else { op.apply(x, k) };
                    let expected: Vec<_> = v.iter().map(|&x| apply(x)).collect();
                    let what = format!("{} {d} with {k} {first}", op.name());
                    cases.push(elementwise(what, lanes, vec![v], expected, |b, r, body| {
                        let c = b.emit(d, 1, Instr::Const(k), body);
                        let c = b.emit(d, lanes, Instr::Splat { x: c }, body);
                        let (x, y) = if first { (c, r[0]) } else { (r[0], c) };
                        b.emit(d, lanes, Instr::Binary { op, a: x, b: y }, body)
                    }));
                }
            }
        }
    }
    cases
}

pub(crate) fn fma() -> Vec<Case> {
    let mut cases = Vec::new();
    for d in DType::ALL.into_iter().filter(|&d| renderable(d) && d != DType::Bool) {
        for lanes in LANES {
            let v = interesting(d);
            let (mut x, mut y, mut z, mut seed) = (vec![], vec![], vec![], 1u64);
            let mut pick = || {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                v[(seed >> 33) as usize % v.len()]
            };
            for _ in 0..2000 {
                x.push(pick());
                y.push(pick());
                z.push(pick());
            }
            let expected: Vec<_> = (0..x.len()).map(|i| apply_fma(x[i], y[i], z[i])).collect();
            cases.push(elementwise(format!("fma {d}"), lanes, vec![x, y, z], expected, |b, r, body| {
                b.emit(d, lanes, Instr::Fma { a: r[0], b: r[1], c: r[2] }, body)
            }));
        }
    }
    cases
}

pub(crate) fn casts() -> Vec<Case> {
    let mut cases = Vec::new();
    for from in DType::ALL {
        for to in DType::ALL {
            for lanes in [1, 4, 8, 16] {
                let v = interesting(from);
                let expected: Vec<_> = v.iter().map(|&x| x.cast(to)).collect();
                cases.push(elementwise(format!("cast {from} {to}"), lanes, vec![v], expected, |b, r, body| {
                    b.emit(to, lanes, Instr::Cast { x: r[0] }, body)
                }));
            }
        }
    }
    cases
}

pub(crate) fn bitcasts() -> Vec<Case> {
    let mut cases = Vec::new();
    for from in DType::ALL {
        for to in DType::ALL.into_iter().filter(|t| t.size() == from.size()) {
            for lanes in LANES {
                let v: Vec<_> = interesting(from).into_iter().filter(|x| !x.is_nan()).collect();
                let expected: Vec<_> = v.iter().map(|&x| Scalar::from_bits(to, x.bits())).collect();
                cases.push(elementwise(format!("bitcast {from} {to}"), lanes, vec![v], expected, |b, r, body| {
                    b.emit(to, lanes, Instr::Bitcast { x: r[0] }, body)
                }));
            }
        }
    }
    cases
}

/// Truth values from comparisons of one width choose between values of another, also after logic among widths.
pub(crate) fn where_of_all_widths() -> Vec<Case> {
    let mut cases = Vec::new();
    for compared in [DType::Bool, DType::U8, DType::F32, DType::I64] {
        for d in DType::ALL {
            for lanes in LANES {
                let (x, y) = pairs(compared);
                let v = interesting(d);
                let n = x.len();
                let p: Vec<_> = (0..n).map(|i| v[i % v.len()]).collect();
                let q: Vec<_> = (0..n).map(|i| v[(3 * i + 1) % v.len()]).collect();
                let flags: Vec<_> = (0..n).map(|i| Scalar::from_bool(i % 3 == 0)).collect();
                let expected: Vec<_> = (0..n)
                    .map(|i| {
                        let c = BinaryOp::Lt.apply(x[i], y[i]).to_bool() ^ flags[i].to_bool();
                        if c { p[i] } else { q[i] }
                    })
                    .collect();
                let inputs = vec![x, y, p, q, flags];
                cases.push(elementwise(format!("where {compared} {d}"), lanes, inputs, expected, |b, r, body| {
                    let lt = b.emit(DType::Bool, lanes, Instr::Binary { op: BinaryOp::Lt, a: r[0], b: r[1] }, body);
                    let c = b.emit(DType::Bool, lanes, Instr::Binary { op: BinaryOp::Xor, a: lt, b: r[4] }, body);
                    b.emit(d, lanes, Instr::Where { cond: c, a: r[2], b: r[3] }, body)
                }));
            }
        }
    }
    cases
}

pub(crate) fn folds() -> Vec<Case> {
    let mut cases = Vec::new();
    for op in ReduceOp::ALL {
        for d in DType::ALL.into_iter().filter(|&d| renderable(d) && op.combine().accepts(d)) {
            for lanes in [1u32, 2, 4, 16, 64] {
                let v = interesting(d);
                // Each vector's fold is splatted and stored.
                let n = v.len().next_multiple_of(lanes as usize);
                let v: Vec<_> = (0..n).map(|i| v[i % v.len()]).collect();
                let mut expected = Vec::new();
                for chunk in v.chunks(lanes as usize) {
                    let mut c = chunk.to_vec();
                    while c.len() > 1 {
                        let (lo, hi) = c.split_at(c.len() / 2);
                        c = lo.iter().zip(hi).map(|(&a, &b)| op.combine().apply(a, b)).collect();
                    }
                    expected.extend(vec![c[0]; lanes as usize]);
                }
                cases.push(elementwise(format!("fold {} {d}", op.name()), lanes, vec![v], expected, |b, r, body| {
                    let s = b.emit(d, 1, Instr::Fold { op, x: r[0] }, body);
                    b.emit(d, lanes, Instr::Splat { x: s }, body)
                }));
            }
        }
    }
    cases
}

pub(crate) fn index_and_select() -> Vec<Case> {
    let mut cases = Vec::new();
    for d in DType::ALL.into_iter().filter(|&d| d != DType::Bool) {
        for lanes in LANES {
            for (scale, coef, c0) in [(5i64, 1i64, -20i64), (7, -3, 50), (100, 0, 3), (1 << 20, 1 << 33, -5)] {
                let steps = 6i64;
                let at = |g: i64, l: i64| scale * g + coef * l + c0;
                let all = (0..steps).flat_map(|g| (0..lanes as i64).map(move |l| (g, l)));
                let chosen = |g: i64, l: i64| 2 * l - 3 * g + 1 >= 0 && 9 - l + g >= 0 && g != 5;
                let (a, b): (Vec<_>, Vec<_>) =
                    all.map(|(g, l)| (Scalar::from_i64(d, at(g, l)), if chosen(g, l) { 1i64 } else { 0 })).unzip();
                let expected: Vec<_> =
                    a.iter().zip(&b).map(|(&x, &c)| if c == 1 { x } else { Scalar::one(d) }).collect();
                let mut b = Builder::new("index");
                let (grid, lane) = (b.range(steps), b.range(lanes as i64));
                let addr = b.int(&[(grid, lanes as i64), (lane, 1)], 0);
                let value = b.int(&[(grid, scale), (lane, coef)], c0);
                let gate: Vec<_> = vec![
                    b.int(&[(lane, 2), (grid, -3)], 1),
                    b.int(&[(lane, -1), (grid, 1)], 9),
                    b.int(&[(grid, -1)], 4),
                ];
                let mut body = Vec::new();
                let x = b.emit(d, lanes, Instr::Index { value, lane: Some(lane) }, &mut body);
                let one = b.emit(d, 1, Instr::Const(Scalar::one(d)), &mut body);
                let one = b.emit(d, lanes, Instr::Splat { x: one }, &mut body);
                let select = Instr::Select { gate: gate.into(), lane: Some(lane), a: x, b: one };
                let r = b.emit(d, lanes, select, &mut body);
                let out = b.arg(d, steps * lanes as i64, true);
                let access = b.access(out, addr, Some(lane));
                body.push(Stmt::Store { access, value: r });
                b.code.body.push(Stmt::Loop { range: grid, kind: LoopKind::Grid, body });
                cases.push(Case {
                    what: format!("index {d} {coef} x{lanes}"),
                    code: b.code,
                    inputs: vec![],
                    params: vec![],
                    before: zeros(&expected),
                    expected,
                });
            }
        }
    }
    cases
}

pub(crate) fn pack_constants_and_tables() -> Vec<Case> {
    let mut cases = Vec::new();
    for d in DType::ALL {
        for lanes in LANES {
            let v = interesting(d);
            let n = lanes as usize;
            let v: Vec<_> = (0..2 * n.max(v.len())).map(|i| v[i % v.len()]).collect();
            let mut b = Builder::new("pack");
            let lane = b.range(lanes as i64);
            let mut body = Vec::new();
            let consts: Vec<_> = v[..n].iter().map(|&s| b.emit(d, 1, Instr::Const(s), &mut body)).collect();
            let packed = b.emit(d, lanes, Instr::Pack { lanes: consts.into() }, &mut body);
            let table = b.table(&v);
            let out = b.arg(d, 2 * lanes as i64, true);
            let lower = b.int(&[(lane, 1)], 0);
            let upper = b.int(&[(lane, 1)], lanes as i64);
            let read = b.access(table, upper, Some(lane));
            let loaded = b.load(d, lanes, read, &mut body);
            for (addr, value) in [(lower, packed), (upper, loaded)] {
                let access = b.access(out, addr, Some(lane));
                body.push(Stmt::Store { access, value });
            }
            b.code.body = body;
            let expected: Vec<_> = v[..2 * n].to_vec();
            cases.push(Case {
                what: format!("pack {d} x{lanes}"),
                code: b.code,
                inputs: vec![],
                params: vec![],
                before: zeros(&expected),
                expected,
            });
        }
    }
    cases
}

/// Shuffles that interleave, reverse, shift, repeat, widen and narrow.
pub(crate) fn shuffles() -> Vec<Case> {
    let mut cases = Vec::new();
    for d in DType::ALL {
        for from in LANES {
            for to in LANES {
                let v = interesting(d);
                let count = 2 * from as usize;
                let v: Vec<_> = (0..count).map(|i| v[i % v.len()]).collect();
                let patterns: [fn(u32, u32) -> u32; 5] = [
                    |i, n| i / 2 % n + i % 2 * n,
                    |i, n| 2 * n - 1 - i % (2 * n),
                    |i, n| (i + 1) % (2 * n),
                    |i, n| i * i % n,
                    |i, n| 4 * i % (2 * n),
                ];
                for (which, pattern) in patterns.into_iter().enumerate() {
                    let pattern: Vec<u32> = (0..to).map(|i| pattern(i, from)).collect();
                    let mut b = Builder::new("shuffle");
                    let (lane, wide) = (b.range(from as i64), b.range(to as i64));
                    let x = b.arg(d, count as i64, false);
                    let out = b.arg(d, to as i64, true);
                    let mut body = Vec::new();
                    let mut halves = Vec::new();
                    for half in 0..2 {
                        let addr = b.int(&[(lane, 1)], half * from as i64);
                        let read = b.access(x, addr, Some(lane));
                        halves.push(b.load(d, from, read, &mut body));
                    }
                    let shuffle = Instr::Shuffle { a: halves[0], b: halves[1], pattern: pattern.clone().into() };
                    let value = b.emit(d, to, shuffle, &mut body);
                    let addr = b.int(&[(wide, 1)], 0);
                    let access = b.access(out, addr, Some(wide));
                    body.push(Stmt::Store { access, value });
                    b.code.body = body;
                    let expected: Vec<_> = pattern.iter().map(|&p| v[p as usize]).collect();
                    cases.push(Case {
                        what: format!("shuffle {which} {d} x{from} to x{to}"),
                        code: b.code,
                        inputs: vec![v.clone()],
                        params: vec![],
                        before: zeros(&expected),
                        expected,
                    });
                }
            }
        }
    }
    cases
}
