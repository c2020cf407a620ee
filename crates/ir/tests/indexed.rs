//! Indexed graphs: the interpreter against results worked out by hand, and the verifier against planted errors.

use winograph_ir::indexed::{BufId, Buffer, Def, Graph, Origin, Role, Scope, Source, Table, Val, ValId};
use winograph_ir::int::{IntId, RangeId, RangeRole};
use winograph_ir::interp::{InterpError, Value, indexed::run};
use winograph_ir::verify::indexed::verify;
use winograph_ir::{BinaryOp, DType, ReduceOp, Scalar, SumOrder, UnaryOp};

fn buffer(g: &mut Graph, name: &str, dtype: DType, shape: &[IntId], origin: Origin) -> BufId {
    let (name, shape) = (name.to_string(), shape.to_vec());
    g.add_buffer(Buffer { name, dtype, shape, origin, scope: Scope::Global, layout: None })
}

fn def(g: &mut Graph, buffer: BufId, axes: &[RangeId], value: ValId) {
    g.defs.push(Def { buffer, axes: axes.to_vec(), value, keep: true, repeat: false, role: Role::Other });
}

fn map(g: &mut Graph, size: i64) -> (RangeId, IntId) {
    let size = g.ints.constant(size);
    let r = g.ints.new_range(size, RangeRole::Map);
    (r, g.ints.range(r))
}

fn sum(g: &mut Graph, ranges: &[RangeId], order: SumOrder, fused: bool, x: ValId) -> ValId {
    g.add(Val::Reduce { op: ReduceOp::Add, ranges: ranges.into(), order, fused, x })
}

fn zero() -> Scalar {
    Scalar::zero(DType::F32)
}

fn f32s(shape: &[usize], data: &[f64]) -> Value {
    Value::from_f64s(DType::F32, shape, data)
}

/// `y[i] = x[i + shift]`, gated to the elements that exist or not.
fn shifted(n: impl Fn(&mut Graph) -> IntId, shift: i64, gated: bool) -> Graph {
    let mut g = Graph::new();
    let n = n(&mut g);
    let x = buffer(&mut g, "x", DType::F32, &[n], Origin::Argument(0));
    let y = buffer(&mut g, "y", DType::F32, &[n], Origin::Output(0));
    let i = g.ints.new_range(n, RangeRole::Map);
    let iv = g.ints.range(i);
    let at = g.ints.add_const(iv, shift);
    let below = g.ints.sum(&[(n, 1), (at, -1)], -1);
    let gate = if gated { vec![at, below] } else { vec![] };
    let value = g.load(Source::Buffer(x), &[at], &gate, Scalar::from_f64(DType::F32, -1.0));
    def(&mut g, y, &[i], value);
    g
}

#[test]
fn gates_and_parameters() {
    let param = |g: &mut Graph| {
        let p = g.ints.new_param("n", 0, 8);
        g.ints.param(p)
    };
    for shift in -2..=2 {
        let g = shifted(param, shift, true);
        verify(&g).unwrap();
        for n in 0..=8usize {
            let x: Vec<f64> = (0..n).map(|v| v as f64).collect();
            let y = run(&g, &[f32s(&[n], &x)], &[n as i64]).unwrap();
            let wanted: Vec<f64> = (0..n as i64)
                .map(|i| i + shift)
                .map(|i| if i >= 0 && i < n as i64 { i as f64 } else { -1.0 })
                .collect();
            assert_eq!(y[0].to_f64s(), wanted);
        }
    }
    verify(&shifted(param, 0, false)).unwrap();
    let g = shifted(param, 1, false);
    assert_eq!(verify(&g).unwrap_err().invariant, "bounds");
    assert!(matches!(run(&g, &[f32s(&[2], &[0.0; 2])], &[2]), Err(InterpError::AxisOutOfBounds { index: 2, .. })));
    assert!(run(&g, &[f32s(&[3], &[0.0; 3])], &[2]).is_err());
    assert!(run(&g, &[], &[2]).is_err());
    assert_eq!(verify(&shifted(param, -1, false)).unwrap_err().invariant, "bounds");
}

#[test]
fn planted_errors_are_refused() {
    let twelve = |g: &mut Graph| g.ints.constant(12);
    let refused = |g: &Graph| verify(g).unwrap_err().invariant;
    let mut g = shifted(twelve, 0, false);
    g.buffers[1].dtype = DType::F16;
    assert_eq!(refused(&g), "types");
    let mut g = shifted(twelve, 0, false);
    g.buffers[1].name = "x".to_string();
    assert_eq!(refused(&g), "buffers");
    let mut g = shifted(twelve, 0, false);
    g.buffers[0].origin = Origin::Internal;
    assert_eq!(refused(&g), "order");
    assert!(run(&g, &[], &[]).is_err());
    let mut g = shifted(twelve, 0, false);
    g.defs.clear();
    assert_eq!(refused(&g), "order");
    let mut g = shifted(twelve, 0, false);
    let (other, _) = map(&mut g, 12);
    g.defs[0].axes = vec![other];
    assert_eq!(refused(&g), "bound");
    assert!(run(&g, &[f32s(&[12], &[0.0; 12])], &[]).is_err());
    let (other, _) = map(&mut g, 11);
    g.defs[0].axes = vec![other];
    assert_eq!(refused(&g), "axes");
    let mut g = shifted(twelve, 0, false);
    let (v, c) = (g.defs[0].value, g.constant(Scalar::from_i64(DType::I32, 2)));
    g.defs[0].value = g.binary(BinaryOp::Mul, v, c);
    assert_eq!(refused(&g), "types");
    let mut g = shifted(twelve, 0, false);
    let (v, i) = (g.defs[0].value, g.defs[0].axes[0]);
    g.defs[0].value = sum(&mut g, &[i], SumOrder::Any, false, v);
    assert_eq!(refused(&g), "bound");
    let mut g = shifted(twelve, 0, false);
    let big = g.ints.constant(1 << 60);
    g.ints.scale(big, 1 << 10);
    assert_eq!(refused(&g), "integers");
}

/// `y[i] = sum_k a[i, k] * b[k]` in a dtype.
fn product(dtype: DType, k: i64, order: SumOrder, fused: bool) -> Graph {
    let mut g = Graph::new();
    let (i, iv) = map(&mut g, 2);
    let (r, rv) = map(&mut g, k);
    let sizes = [g.ints.constant(2), g.ints.constant(k)];
    let a = buffer(&mut g, "a", dtype, &sizes, Origin::Argument(0));
    let b = buffer(&mut g, "b", dtype, &sizes[1..], Origin::Argument(1));
    let y = buffer(&mut g, "y", dtype, &sizes[..1], Origin::Output(0));
    let x = g.load(Source::Buffer(a), &[iv, rv], &[], Scalar::zero(dtype));
    let w = g.load(Source::Buffer(b), &[rv], &[], Scalar::zero(dtype));
    let p = g.binary(BinaryOp::Mul, x, w);
    let v = sum(&mut g, &[r], order, fused, p);
    def(&mut g, y, &[i], v);
    g
}

#[test]
fn reductions_in_each_order() {
    let k = 7;
    let a: Vec<f64> = (0..2 * k).map(|v| 1.0 / (1.0 + v as f64)).collect();
    let b: Vec<f64> = (0..k).map(|v| (v as f64 - 3.0) / 3.0).collect();
    let f = |v: f64| v as f32;
    for (order, fused) in [(SumOrder::Sequential, true), (SumOrder::Any, false), (SumOrder::Tree, true)] {
        let g = product(DType::F32, k, order, fused);
        verify(&g).unwrap();
        let y = run(&g, &[f32s(&[2, k as usize], &a), f32s(&[k as usize], &b)], &[]).unwrap();
        for i in 0..2 {
            let terms: Vec<(f32, f32)> = (0..k as usize).map(|j| (f(a[i * k as usize + j]), f(b[j]))).collect();
            let p: Vec<f32> = terms.iter().map(|(x, w)| x * w).collect();
            let wanted = match order {
                SumOrder::Sequential => terms.iter().fold(0f32, |acc, (x, w)| x.mul_add(*w, acc)),
                SumOrder::Any => p.iter().fold(0f32, |acc, x| acc + x),
                SumOrder::Tree => ((p[0] + p[1]) + (p[2] + p[3])) + ((p[4] + p[5]) + p[6]),
            };
            assert_eq!(y[0].data[i], Scalar::from_bits(DType::F32, wanted.to_bits() as u64), "{order:?}");
        }
    }
}

#[test]
fn half_floats_accumulate_in_f32() {
    // 2048 + 1 + 1 + ... is stuck at 2048 where each sum is rounded to f16.
    let g = product(DType::F16, 5, SumOrder::Any, true);
    let a = [2048., 1., 1., 1., 1., 1., 1., 1., 1., 1.];
    let inputs = [Value::from_f64s(DType::F16, &[2, 5], &a), Value::from_f64s(DType::F16, &[5], &[1.0; 5])];
    assert_eq!(run(&g, &inputs, &[]).unwrap()[0].to_f64s(), [2052.0, 5.0]);
}

/// A stage `t[j] = 10 * i + j` under the range `i`, and `y[i] = sum_j t[j] * t[j]`.
fn staged(escape: bool) -> Graph {
    let mut g = Graph::new();
    let (i, iv) = map(&mut g, 3);
    let (j, jv) = map(&mut g, 4);
    let (k, kv) = map(&mut g, 4);
    let [three, four] = [3, 4].map(|c| g.ints.constant(c));
    let t = buffer(&mut g, "t", DType::F32, &[four], Origin::Internal);
    let y = buffer(&mut g, "y", DType::F32, &[three], Origin::Output(0));
    let e = g.ints.sum(&[(iv, 10), (jv, 1)], 0);
    let v = g.add(Val::Index { value: e, dtype: DType::F32 });
    def(&mut g, t, &[j], v);
    let x = g.load(Source::Buffer(t), &[kv], &[], zero());
    let p = g.binary(BinaryOp::Mul, x, x);
    let s = sum(&mut g, &[k], SumOrder::Any, true, p);
    let (other, _) = map(&mut g, 3);
    def(&mut g, y, &[if escape { other } else { i }], s);
    g
}

#[test]
fn stages_under_ranges() {
    let g = staged(false);
    verify(&g).unwrap();
    let y = run(&g, &[], &[]).unwrap();
    let wanted: Vec<f64> = (0..3).map(|i| (0..4).map(|j| f64::powi((10 * i + j) as f64, 2)).sum()).collect();
    assert_eq!(y[0].to_f64s(), wanted);
    let g = staged(true);
    assert_eq!(verify(&g).unwrap_err().invariant, "bound");
    assert!(run(&g, &[], &[]).is_err());
}

#[test]
fn tables_selects_and_dynamic_indices() {
    let mut g = Graph::new();
    let (i, iv) = map(&mut g, 4);
    let four = g.ints.constant(4);
    let at = buffer(&mut g, "i", DType::I64, &[four], Origin::Argument(0));
    let y = buffer(&mut g, "y", DType::F32, &[four], Origin::Output(0));
    let values = (0..3).map(|v| Scalar::from_i64(DType::F32, 5 * v)).collect();
    let t = g.add_table(Table { shape: vec![3], dtype: DType::F32, values });
    let index = g.load(Source::Buffer(at), &[iv], &[], Scalar::zero(DType::I64));
    let origin = g.ints.constant(0);
    let (src, fill) = (Source::Table(t), zero());
    let looked = g.add(Val::Load { src, index: [origin].into(), gate: [].into(), fill, dynamic: Some((0, index)) });
    let late = g.ints.add_const(iv, -2);
    let minus = g.unary(UnaryOp::Neg, looked);
    let v = g.select(&[late], minus, looked);
    def(&mut g, y, &[i], v);
    verify(&g).unwrap();
    let out = run(&g, &[Value::from_f64s(DType::I64, &[4], &[1.0, 9.0, -7.0, 2.0])], &[]).unwrap();
    assert_eq!(out[0].to_f64s(), [5.0, 10.0, -0.0, -10.0]);
}

#[test]
fn deep_graphs_do_not_overflow_the_stack() {
    let mut g = Graph::new();
    let (i, iv) = map(&mut g, 2);
    let two = g.ints.constant(2);
    let x = buffer(&mut g, "x", DType::F32, &[two], Origin::Argument(0));
    let y = buffer(&mut g, "y", DType::F32, &[two], Origin::Output(0));
    let one = g.load(Source::Buffer(x), &[iv], &[], zero());
    let mut v = one;
    for _ in 0..20_000 {
        v = g.binary(BinaryOp::Add, v, one);
    }
    def(&mut g, y, &[i], v);
    verify(&g).unwrap();
    assert_eq!(run(&g, &[f32s(&[2], &[1.0, 2.0])], &[]).unwrap()[0].to_f64s(), [20_001.0, 40_002.0]);
}
