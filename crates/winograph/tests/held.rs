//! Register blocks under each compiler: vectors that several multiply-adds share stay in registers, and no bit depends on
//! that.

mod kernels;

use kernels::*;
use winograph_compiler::Target;
use winograph_compiler::render::render_c;
use winograph_ir::linear::{Code, Instr, LoopKind, Stmt, Type};
use winograph_ir::{DType, Scalar};

const TERMS: i64 = 37;
const VECTORS: i64 = 3;

/// `out[column][row] = sum over t of left[t][row] * right[t][column]`, rows in three vectors, as one block.
fn block(dtype: DType, lanes: u32, columns: i64) -> Code {
    let mut b = Builder::new("block");
    let rows = VECTORS * i64::from(lanes);
    let (term, lane) = (b.range(TERMS), b.range(i64::from(lanes)));
    let left = b.arg(dtype, TERMS * rows, false);
    let right = b.arg(dtype, TERMS * columns, false);
    let out = b.arg(dtype, columns * rows, true);
    let mut body = Vec::new();
    let zero = b.emit(dtype, lanes, Instr::Const(Scalar::zero(dtype)), &mut body);
    let mut sums = Vec::new();
    for _ in 0..columns * VECTORS {
        let reg = b.reg(dtype, lanes);
        body.push(Stmt::Var { reg, init: zero });
        sums.push(reg);
    }
    let mut inner = Vec::new();
    let mut vectors = Vec::new();
    for v in 0..VECTORS {
        let at = b.int(&[(term, rows), (lane, 1)], v * i64::from(lanes));
        let access = b.access(left, at, Some(lane));
        vectors.push(b.load(dtype, lanes, access, &mut inner));
    }
    for column in 0..columns {
        let at = b.int(&[(term, columns)], column);
        let access = b.access(right, at, None);
        let x = b.load(dtype, 1, access, &mut inner);
        let factor = b.emit(dtype, lanes, Instr::Splat { x }, &mut inner);
        for (v, &vector) in vectors.iter().enumerate() {
            let sum = sums[column as usize * VECTORS as usize + v];
            let value = b.emit(dtype, lanes, Instr::Fma { a: vector, b: factor, c: sum }, &mut inner);
            inner.push(Stmt::Set { reg: sum, value });
        }
    }
    body.push(Stmt::Loop { range: term, kind: LoopKind::Serial, body: inner });
    for column in 0..columns {
        for v in 0..VECTORS {
            let to = b.int(&[(lane, 1)], column * rows + v * i64::from(lanes));
            let access = b.access(out, to, Some(lane));
            let value = sums[(column * VECTORS + v) as usize];
            body.push(Stmt::Store { access, value });
        }
    }
    assert_eq!(b.code.regs[zero.0 as usize], Type { dtype, lanes });
    b.code.body = body;
    b.code
}

/// Values that no sum of products rounds alike.
fn numbers(dtype: DType, count: i64, seed: u64) -> Vec<Scalar> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            Scalar::from_f64(dtype, (state >> 40) as f64 / f64::from(1 << 23) - 1.0)
        })
        .collect()
}

fn expected(dtype: DType, rows: i64, columns: i64, left: &[Scalar], right: &[Scalar]) -> Vec<Scalar> {
    let mut out = Vec::new();
    for column in 0..columns {
        for row in 0..rows {
            let terms = (0..TERMS).map(|t| (left[(t * rows + row) as usize], right[(t * columns + column) as usize]));
            out.push(match dtype {
                DType::F32 => {
                    let sum = terms.fold(0f32, |sum, (a, b)| (a.to_f64() as f32).mul_add(b.to_f64() as f32, sum));
                    Scalar::from_f64(dtype, f64::from(sum))
                }
                _ => Scalar::from_f64(dtype, terms.fold(0f64, |sum, (a, b)| a.to_f64().mul_add(b.to_f64(), sum))),
            });
        }
    }
    out
}

#[test]
fn blocks_are_the_same_bits_under_each_compiler() {
    for cc in compilers() {
        for dtype in [DType::F32, DType::F64] {
            // Up to vectors that are wider than any register.
            for (lanes, columns) in [(2, 2), (4, 4), (8, 3), (8, 4), (16, 8), (32, 2)] {
                let rows = VECTORS * i64::from(lanes);
                let left = numbers(dtype, TERMS * rows, 1);
                let right = numbers(dtype, TERMS * columns, 2);
                let (module, _) = device(Some(&cc), 1).load(&[block(dtype, lanes, columns)]).unwrap();
                let before = vec![Scalar::zero(dtype); (columns * rows) as usize];
                let (a, b, out) = (buffer(&left), buffer(&right), buffer(&before));
                launch(&module, 0, &[&a, &b, &out], &[]);
                let case = Case {
                    what: format!("a block of {columns} columns by 3 vectors of {lanes} {dtype}"),
                    code: block(dtype, lanes, columns),
                    expected: expected(dtype, rows, columns, &left, &right),
                    inputs: vec![left, right],
                    params: vec![],
                    before,
                };
                assert_eq!(case.differences(&cc, &values(&out, dtype)), 0, "{cc}: {}", case.what);
            }
        }
    }
}

#[test]
fn what_is_multiplied_once_is_not_held() {
    let text = |dtype, lanes, columns| render_c(&[block(dtype, lanes, columns)], &Target::cpu(32)).unwrap().text;
    let held = |text: &str, name: &str| text.lines().filter(|l| l.contains(&format!("; {name}("))).count();
    assert_eq!(held(&text(DType::F32, 4, 4), "WG_HOLD16"), 3);
    assert_eq!(held(&text(DType::F32, 8, 4), "WG_HOLD32"), 3);
    assert_eq!(held(&text(DType::F64, 8, 2), "WG_HOLD64"), 3);
    for text in [text(DType::F32, 8, 1), text(DType::F32, 32, 4), text(DType::F32, 2, 4)] {
        assert!(!text.contains("WG_HOLD"), "{text}");
    }
}
