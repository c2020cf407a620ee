//! Loads and stores with lanes, strides and gates, with what they should leave.

use super::*;
use winograph_ir::linear::LoopKind;

/// `scale * item + coef * lane + c`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Affine(pub(crate) i64, pub(crate) i64, pub(crate) i64);

impl Affine {
    pub(crate) fn at(self, g: i64, l: i64) -> i64 {
        self.0 * g + self.1 * l + self.2
    }

    pub(crate) fn int(self, b: &mut Builder, g: RangeId, l: RangeId) -> IntId {
        b.int(&[(g, self.0), (l, self.1)], self.2)
    }
}

pub(crate) const STEPS: i64 = 5;

/// Gates over 5 items and `n` lanes: none, uniform, from below, from above, both, with coefficients, empty.
pub(crate) fn gates(n: i64) -> Vec<Vec<Affine>> {
    vec![
        vec![],
        vec![Affine(1, 0, -2)],
        vec![Affine(-1, 0, 3), Affine(2, 0, -1)],
        vec![Affine(1, 1, -3)],
        vec![Affine(-2, -1, n)],
        vec![Affine(1, 1, -2), Affine(-1, -1, n - 1)],
        vec![Affine(1, 2, -5), Affine(-1, -3, 3 * n - 7), Affine(-1, 0, 3)],
        vec![Affine(4, -4, -1), Affine(-3, 5, 2)],
        vec![Affine(0, 1, -n - 1), Affine(1, 0, 0)],
    ]
}

pub(crate) fn number(d: DType, i: i64) -> Scalar {
    if d == DType::Bool { Scalar::from_bool(i * 7 % 5 > 2) } else { Scalar::from_i64(d, i % 100 + 1) }
}

/// Loads and stores of every stride under every gate.
pub(crate) fn access_cases(d: DType, lanes: u32) -> Vec<Case> {
    let n = lanes as i64;
    let mut out = Vec::new();
    // A padding of whole vectors keeps lanes aligned.
    for (stride, pad) in [(0i64, 3), (1, 3), (1, n), (2, 3), (-1, 3), (7, 3)] {
        for (g, gate) in gates(n).into_iter().enumerate() {
            let active = |i: i64, l: i64| gate.iter().all(|e| e.at(i, l) >= 0);
            let place = Affine(n * stride.abs() + pad, stride, if stride < 0 { n - 1 } else { 0 });
            let dense = Affine(n, 1, 0);
            let room = STEPS * (n * stride.abs() + pad) + n;
            for store in [false, true] {
                if store && stride == 0 && lanes > 1 {
                    continue;
                }
                let mut b = Builder::new(if store { "store" } else { "load" });
                let (grid, lane) = (b.range(STEPS), b.range(n));
                let gate: Vec<_> = gate.iter().map(|e| e.int(&mut b, grid, lane)).collect();
                let (from, to) = if store { (dense, place) } else { (place, dense) };
                let (fa, ta) = (from.int(&mut b, grid, lane), to.int(&mut b, grid, lane));
                let (in_len, out_len) = if store { (STEPS * n, room) } else { (room, STEPS * n) };
                let input = b.arg(d, in_len, false);
                let output = b.arg(d, out_len, true);
                let plain = [];
                let (lg, sg): (&[IntId], &[IntId]) = if store { (&plain, &gate) } else { (&gate, &plain) };
                let (read, write) = (b.gated(input, fa, Some(lane), lg), b.gated(output, ta, Some(lane), sg));
                let mut body = Vec::new();
                let fill = number(d, 41);
                let value = b.emit(d, lanes, Instr::Load { access: read, fill }, &mut body);
                body.push(Stmt::Store { access: write, value });
                b.code.body.push(Stmt::Loop { range: grid, kind: LoopKind::Grid, body });
                let input: Vec<_> = (0..in_len).map(|i| number(d, 3 * i + 1)).collect();
                let before: Vec<_> = (0..out_len).map(|i| number(d, i)).collect();
                let mut after = before.clone();
                for i in 0..STEPS {
                    for l in 0..n {
                        let v = || input[from.at(i, l) as usize];
                        match (store, active(i, l)) {
                            (_, true) => after[to.at(i, l) as usize] = v(),
                            (false, false) => after[to.at(i, l) as usize] = fill,
                            (true, false) => {}
                        }
                    }
                }
                let what = format!("{} {d} x{lanes} stride {stride} padding {pad} gate {g}", b.code.name);
                out.push(Case { what, code: b.code, inputs: vec![input], params: vec![], before, expected: after });
            }
        }
    }
    out
}

/// [`access_cases`] of several dtypes with up to so many lanes.
pub(crate) fn lanes_strides_and_gates(most: u32) -> Vec<Case> {
    let f32s = [1, 4, 16, 64].map(|lanes| (DType::F32, lanes));
    let others = [(DType::I64, 4), (DType::U8, 16), (DType::F16, 16), (DType::Bool, 1), (DType::Bool, 16)];
    f32s.into_iter().chain(others).filter(|c| c.1 <= most).flat_map(|(d, lanes)| access_cases(d, lanes)).collect()
}
