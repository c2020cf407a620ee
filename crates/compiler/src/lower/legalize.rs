//! Values in terms of operations that every backend has.

use super::math;
use rustc_hash::FxHashMap;
use winograph_ir::indexed::{Graph, Val, ValId};
use winograph_ir::op::ReduceOp;
use winograph_ir::{BinaryOp, DType};

/// Takes any value; leaves one of the same dtype without transcendental operations and powers, and in which no
/// operation but moves works on half floats.
///
/// - exp, log, sin, cos, tanh, erf and pow become polynomials: see [`math`].
/// - An operation on f16 or bf16 widens its operands to f32 and rounds its result back, as
///   [`DType::compute`] says. Loads, constants, selections and reinterpretations stay in the narrow type. A rounding is
///   never removed: a value that was narrowed and is widened again has been rounded in between.
/// - A reduction over half floats accumulates in f32 and rounds once at its end. Where it may fuse products into sums,
///   the product of two half floats, which f32 holds exactly, is not rounded before it is summed.
/// - Conversions between half floats and other types go through f32, but for those from f64, which would be rounded
///   twice.
///
/// Integers stay as they are.
pub fn legalize(g: &mut Graph, root: ValId) -> ValId {
    // Products of half floats by their rounded form.
    let mut products = FxHashMap::default();
    let mut memo = FxHashMap::default();
    g.rebuild(root, &mut memo, &mut |g, val| legal(g, val, &mut products))
}

fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

fn cast(g: &mut Graph, x: ValId, dtype: DType) -> ValId {
    g.add(Val::Cast { x, dtype })
}

/// A value in the type that its arithmetic is done in.
fn widen(g: &mut Graph, x: ValId) -> ValId {
    let dtype = g.dtype(x).compute();
    cast(g, x, dtype)
}

fn legal(g: &mut Graph, val: Val, products: &mut FxHashMap<ValId, ValId>) -> ValId {
    match val {
        Val::Unary { op, x } => {
            let dtype = g.dtype(x);
            let x = widen(g, x);
            let y = if op.is_transcendental() { math::expand(g, op, x) } else { g.unary(op, x) };
            cast(g, y, dtype)
        }
        Val::Binary { op, a, b } => {
            let dtype = op.result(g.dtype(a));
            let (a, b) = (widen(g, a), widen(g, b));
            let wide = if op == BinaryOp::Pow { math::expand_pow(g, a, b) } else { g.binary(op, a, b) };
            let y = cast(g, wide, dtype);
            if op == BinaryOp::Mul && y != wide {
                products.insert(y, wide);
            }
            y
        }
        Val::Fma { a, b, c } => {
            let dtype = g.dtype(a);
            let (a, b, c) = (widen(g, a), widen(g, b), widen(g, c));
            let y = g.add(Val::Fma { a, b, c });
            cast(g, y, dtype)
        }
        Val::Reduce { op, ranges, order, fused, x } => {
            let dtype = g.dtype(x);
            let x = match products.get(&x) {
                Some(&product) if fused && op == ReduceOp::Add => product,
                _ => widen(g, x),
            };
            let y = g.add(Val::Reduce { op, ranges, order, fused, x });
            cast(g, y, dtype)
        }
        Val::Cast { x, dtype } => {
            let from = g.dtype(x);
            let x = if is_half(from) || (is_half(dtype) && from != DType::F64) { cast(g, x, DType::F32) } else { x };
            cast(g, x, dtype)
        }
        Val::Const(_)
        | Val::Index { .. }
        | Val::Load { .. }
        | Val::Where { .. }
        | Val::Bitcast { .. }
        | Val::Select { .. } => g.add(val),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lower::testing::{Function, argument};
    use winograph_ir::indexed::{BufId, Source};
    use winograph_ir::int::RangeRole;
    use winograph_ir::op::{SumOrder, apply_fma};
    use winograph_ir::{Scalar, UnaryOp};

    const HALF: [DType; 2] = [DType::F16, DType::BF16];

    /// A legalised expression of two arguments, checked.
    fn function(dtype: DType, build: impl FnOnce(&mut Graph, ValId, ValId) -> ValId) -> Function {
        let mut g = Graph::new();
        let (x, y) = (argument(&mut g, dtype, 0), argument(&mut g, dtype, 1));
        let root = build(&mut g, x, y);
        let dtype = g.dtype(root);
        let legal = legalize(&mut g, root);
        assert_eq!(g.dtype(legal), dtype);
        let f = Function::new(g, legal);
        assert_legal(&f);
        f
    }

    fn assert_legal(f: &Function) {
        let g = f.graph();
        for val in f.values() {
            let operands: Vec<ValId> = match val {
                Val::Unary { op, x } => {
                    assert!(!op.is_transcendental());
                    vec![*x]
                }
                Val::Binary { op, a, b } => {
                    assert!(*op != BinaryOp::Pow);
                    vec![*a, *b]
                }
                Val::Fma { a, b, c } => vec![*a, *b, *c],
                Val::Reduce { x, .. } => vec![*x],
                _ => vec![],
            };
            assert!(operands.iter().all(|&x| !is_half(g.dtype(x))), "{val:?}");
        }
    }

    /// Every 97th bit pattern of a half float.
    fn patterns(dtype: DType) -> impl Iterator<Item = Scalar> {
        (0..=u16::MAX).step_by(97).map(move |bits| Scalar::from_bits(dtype, bits as u64))
    }

    fn same(a: Scalar, b: Scalar) -> bool {
        a == b || (a.is_nan() && b.is_nan())
    }

    #[test]
    fn exact_operations_round_as_defined() {
        for dtype in HALF {
            for op in UnaryOp::ALL.into_iter().filter(|op| op.accepts(dtype) && !op.is_transcendental()) {
                let mut f = function(dtype, |g, x, _| g.unary(op, x));
                for x in patterns(dtype) {
                    let (got, want) = (f.eval(x, x), op.apply(x));
                    assert!(same(got, want), "{} {x}: {got}, not {want}", op.name());
                }
            }
            for op in BinaryOp::ALL.into_iter().filter(|&op| op.accepts(dtype) && op != BinaryOp::Pow) {
                let mut f = function(dtype, |g, x, y| g.binary(op, x, y));
                for x in patterns(dtype) {
                    for y in patterns(dtype).step_by(7) {
                        let (got, want) = (f.eval(x, y), op.apply(x, y));
                        assert!(same(got, want), "{x} {} {y}: {got}, not {want}", op.name());
                    }
                }
            }
            let mut f = function(dtype, |g, x, y| g.add(Val::Fma { a: x, b: y, c: x }));
            for (x, y) in patterns(dtype).zip(patterns(dtype).skip(100)) {
                assert!(same(f.eval(x, y), apply_fma(x, y, x)));
            }
        }
    }

    #[test]
    fn functions_are_within_a_unit() {
        for dtype in HALF {
            for op in UnaryOp::ALL.into_iter().filter(|op| op.is_transcendental()) {
                let mut f = function(dtype, |g, x, _| g.unary(op, x));
                for x in patterns(dtype).filter(|x| x.to_f64().abs() < 1e10) {
                    let (got, want) = (f.eval(x, x), op.apply(x));
                    let near = (got.bits() as i64 - want.bits() as i64).abs() <= 1;
                    assert!(near || same(got, want), "{} {x}: {got}, not {want}", op.name());
                }
            }
            let mut f = function(dtype, |g, x, y| g.binary(BinaryOp::Pow, x, y));
            for (x, y) in patterns(dtype).zip(patterns(dtype).skip(211)) {
                let (got, want) = (f.eval(x, y), BinaryOp::Pow.apply(x, y));
                assert!((got.bits() as i64 - want.bits() as i64).abs() <= 1 || same(got, want), "{x}^{y}");
            }
        }
    }

    #[test]
    fn conversions() {
        for dtype in HALF {
            for to in DType::ALL {
                let mut f = function(dtype, |g, x, _| cast(g, x, to));
                for x in patterns(dtype) {
                    assert!(same(f.eval(x, x), x.cast(to)), "{x} to {to}");
                }
            }
        }
        for from in [DType::I32, DType::I64, DType::U8, DType::F64] {
            for to in HALF {
                let mut f = function(from, |g, x, _| cast(g, x, to));
                for n in [0.0, 1.0, 2047.0, 2049.0, 65519.0, 16777217.0, 1.0 + 1.0 / 2048.0 + 1e-9] {
                    let x = Scalar::from_f64(from, n);
                    assert!(same(f.eval(x, x), x.cast(to)), "{x} to {to}");
                }
            }
        }
    }

    #[test]
    fn roundings_stay() {
        let mut f = function(DType::F32, |g, x, _| {
            let narrow = cast(g, x, DType::BF16);
            cast(g, narrow, DType::F32)
        });
        assert_eq!(f.f32(1.01, 0.0), 1.0078125);
    }

    #[test]
    fn wide_values_and_integers_stay() {
        for dtype in [DType::F32, DType::F64, DType::I32, DType::U8] {
            let mut g = Graph::new();
            let (x, y) = (argument(&mut g, dtype, 0), argument(&mut g, dtype, 1));
            let sum = g.binary(BinaryOp::Add, x, y);
            let less = g.binary(BinaryOp::Lt, sum, x);
            let root = g.add(Val::Where { cond: less, a: sum, b: y });
            assert_eq!(legalize(&mut g, root), root);
        }
    }

    #[test]
    fn sums_are_wide() {
        for (fused, op) in [(true, ReduceOp::Add), (false, ReduceOp::Add), (true, ReduceOp::Max)] {
            let mut g = Graph::new();
            argument(&mut g, DType::F16, 0);
            let size = g.ints.constant(2);
            let range = g.ints.new_range(size, RangeRole::Reduce);
            let k = g.ints.range(range);
            let x = g.load(Source::Buffer(BufId(0)), &[k], &[], Scalar::zero(DType::F16));
            let product = g.binary(BinaryOp::Mul, x, x);
            let ranges: Box<[_]> = [range].into();
            let root = g.add(Val::Reduce { op, ranges, order: SumOrder::Any, fused, x: product });
            let legal = legalize(&mut g, root);
            let Val::Cast { x: sum, dtype: DType::F16 } = *g.val(legal) else { panic!() };
            let Val::Reduce { x: term, .. } = *g.val(sum) else { panic!() };
            assert_eq!(g.dtype(term), DType::F32);
            let unrounded = matches!(g.val(term), Val::Binary { op: BinaryOp::Mul, .. });
            assert_eq!(unrounded, fused && op == ReduceOp::Add);
        }
    }
}
