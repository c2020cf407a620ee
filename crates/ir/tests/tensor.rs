//! Tensor graphs: the interpreter against results worked out by hand, the verifier against planted errors, and one
//! convolution in three forms.

use winograph_ir::indexed::{Buffer, Def, Graph, Origin, Role, Scope, Source, Val};
use winograph_ir::int::{IntId, RangeRole};
use winograph_ir::interp::{Value, indexed, tensor::run};
use winograph_ir::tensor::{NodeId, TensorGraph, TensorOp};
use winograph_ir::verify::{self, tensor::verify};
use winograph_ir::{BinaryOp, DType, ReduceOp, Scalar, SumOrder, UnaryOp};

fn f32s(shape: &[usize], data: &[f64]) -> Value {
    Value::from_f64s(DType::F32, shape, data)
}

fn sizes(g: &mut TensorGraph, shape: &[i64]) -> Vec<IntId> {
    shape.iter().map(|&s| g.ints.constant(s)).collect()
}

fn input(g: &mut TensorGraph, slot: usize, shape: &[i64]) -> NodeId {
    let shape = sizes(g, shape);
    g.add(TensorOp::Input { slot, dtype: DType::F32, shape })
}

/// Runs a graph of one output on `0, 1, 2, ...` in the given shape.
fn on_iota(shape: &[i64], build: impl Fn(&mut TensorGraph, NodeId) -> NodeId) -> Value {
    let mut g = TensorGraph::new();
    let x = input(&mut g, 0, shape);
    let out = build(&mut g, x);
    g.outputs.push(out);
    verify(&g).unwrap();
    let shape: Vec<usize> = shape.iter().map(|&s| s as usize).collect();
    let data: Vec<f64> = (0..shape.iter().product()).map(|v: usize| v as f64).collect();
    run(&g, &[f32s(&shape, &data)], &[]).unwrap().remove(0)
}

fn refused(shape: &[i64], build: impl Fn(&mut TensorGraph, NodeId) -> NodeId) -> &'static str {
    let mut g = TensorGraph::new();
    let x = input(&mut g, 0, shape);
    let out = build(&mut g, x);
    g.outputs.push(out);
    let shape: Vec<usize> = shape.iter().map(|&s| s as usize).collect();
    let n = shape.iter().product();
    // Whatever it says, it must not panic.
    let _ = run(&g, &[f32s(&shape, &vec![0.0; n])], &[]);
    verify(&g).unwrap_err().invariant
}

fn unfold(x: NodeId, axis: usize, size: usize, stride: usize, dilation: usize) -> TensorOp<NodeId> {
    TensorOp::Unfold { x, axis, size, stride, dilation }
}

#[test]
fn movement() {
    let y = on_iota(&[2, 3], |g, x| g.add(TensorOp::Permute { x, order: vec![1, 0] }));
    assert_eq!((y.shape.clone(), y.to_f64s()), (vec![3, 2], vec![0., 3., 1., 4., 2., 5.]));
    let y = on_iota(&[2, 3], |g, x| {
        let x = g.add(TensorOp::Permute { x, order: vec![1, 0] });
        let shape = sizes(g, &[6]);
        g.add(TensorOp::Reshape { x, shape })
    });
    assert_eq!(y.to_f64s(), [0., 3., 1., 4., 2., 5.]);
    let y = on_iota(&[2, 1], |g, x| {
        let shape = sizes(g, &[2, 3]);
        g.add(TensorOp::Expand { x, shape })
    });
    assert_eq!(y.to_f64s(), [0., 0., 0., 1., 1., 1.]);
    let y = on_iota(&[2, 2], |g, x| {
        let (before, after) = (sizes(g, &[1, 0]), sizes(g, &[0, 1]));
        g.add(TensorOp::Pad { x, before, after, value: Scalar::from_f64(DType::F32, 9.0) })
    });
    assert_eq!((y.shape.clone(), y.to_f64s()), (vec![3, 3], vec![9., 9., 9., 0., 1., 9., 2., 3., 9.]));
    let y = on_iota(&[2, 5], |g, x| {
        let (start, size) = (sizes(g, &[1, 4]), sizes(g, &[1, 3]));
        g.add(TensorOp::Slice { x, start, step: vec![1, -2], size })
    });
    assert_eq!(y.to_f64s(), [9., 7., 5.]);
    let y = on_iota(&[7], |g, x| g.add(unfold(x, 0, 2, 2, 3)));
    assert_eq!((y.shape.clone(), y.to_f64s()), (vec![2, 2], vec![0., 3., 2., 5.]));
    let y = on_iota(&[2, 2], |g, x| {
        let f = g.add(TensorOp::Permute { x, order: vec![1, 0] });
        g.add(TensorOp::Cat { parts: vec![x, f], axis: 1 })
    });
    assert_eq!(y.to_f64s(), [0., 1., 0., 2., 2., 3., 1., 3.]);
    let y = on_iota(&[3, 2], |g, x| {
        let values = [-4, 2, 1, 9].map(|v| Scalar::from_i64(DType::I32, v)).to_vec();
        let index = g.add(TensorOp::Table { values, dtype: DType::I32, shape: vec![2, 2] });
        g.add(TensorOp::Gather { x, axis: 0, index })
    });
    assert_eq!(y.to_f64s(), [0., 5., 2., 5.]);
    let y = on_iota(&[2, 2], |g, x| {
        let shape = sizes(g, &[2, 2]);
        let i = g.add(TensorOp::Iota { dtype: DType::F32, shape: shape.clone(), axis: 1 });
        let one = g.add(TensorOp::Full { value: Scalar::one(DType::F32), shape });
        let cond = g.add(TensorOp::Binary { op: BinaryOp::Eq, a: i, b: one });
        let a = g.add(TensorOp::Unary { op: UnaryOp::Neg, x });
        g.add(TensorOp::Where { cond, a, b: x })
    });
    assert_eq!(y.to_f64s(), [0., -1., 2., -3.]);
}

#[test]
fn empty_tensors_are_legal() {
    let y = on_iota(&[2, 0], |g, x| {
        let x = g.add(TensorOp::Reduce {
            op: ReduceOp::Max,
            x,
            axes: vec![1],
            order: SumOrder::Any,
            fused: true,
            rule: None,
        });
        let s = sizes(g, &[2, 1]);
        g.add(TensorOp::Reshape { x, shape: s })
    });
    assert_eq!(y.to_f64s(), [f64::NEG_INFINITY; 2]);
    let y = on_iota(&[4], |g, x| {
        let (start, size) = (sizes(g, &[4]), sizes(g, &[0]));
        let e = g.add(TensorOp::Slice { x, start, step: vec![1], size });
        g.add(TensorOp::Cat { parts: vec![e, x, e], axis: 0 })
    });
    assert_eq!(y.data.len(), 4);
    assert_eq!(on_iota(&[3], |g, x| g.add(unfold(x, 0, 4, 1, 1))).shape, [0, 4]);
}

#[test]
fn planted_errors_are_refused() {
    let bin = |op, a, b| TensorOp::Binary { op, a, b };
    let wrong_shape = refused(&[2, 3], |g, x| {
        let b = g.add(TensorOp::Permute { x, order: vec![1, 0] });
        g.add(bin(BinaryOp::Add, x, b))
    });
    assert_eq!(wrong_shape, "sizes");
    let wrong_dtype = refused(&[2], |g, x| {
        let b = g.add(TensorOp::Cast { x, dtype: DType::F16 });
        g.add(bin(BinaryOp::Add, x, b))
    });
    assert_eq!(wrong_dtype, "types");
    assert_eq!(refused(&[2], |g, x| g.add(bin(BinaryOp::And, x, x))), "types");
    assert_eq!(refused(&[2, 3], |g, x| g.add(TensorOp::Permute { x, order: vec![0, 0] })), "axes");
    assert_eq!(refused(&[2, 3], |g, x| g.add(TensorOp::Permute { x, order: vec![0, 7] })), "axes");
    assert_eq!(refused(&[2], |g, x| g.add(unfold(x, 1, 2, 1, 1))), "axes");
    assert_eq!(refused(&[2], |g, x| g.add(unfold(x, 0, 0, 0, 0))), "axes");
    assert_eq!(refused(&[2], |g, x| g.add(unfold(x, 0, 9, 1, 1))), "sizes");
    assert_eq!(refused(&[2], |g, _| g.add(TensorOp::Cat { parts: vec![], axis: 0 })), "axes");
    assert_eq!(refused(&[2], |g, x| g.add(TensorOp::Gather { x, axis: 0, index: x })), "types");
    let reduce = |axes| {
        move |g: &mut TensorGraph, x| {
            g.add(TensorOp::Reduce { op: ReduceOp::Add, x, axes, order: SumOrder::Any, fused: true, rule: None })
        }
    };
    assert_eq!(refused(&[2, 2], |g, x| reduce(vec![1, 0])(g, x)), "axes");
    assert_eq!(refused(&[2, 2], |g, x| reduce(vec![2])(g, x)), "axes");
    for (start, step, size) in [(0, 1, 6), (1, 2, 3), (1, -1, 3), (5, 1, 1)] {
        let found = refused(&[5], |g, x| {
            let (start, size) = (sizes(g, &[start]), sizes(g, &[size]));
            g.add(TensorOp::Slice { x, start, step: vec![step], size })
        });
        assert_eq!(found, "bounds");
    }
    let reshape = |to: &'static [i64]| {
        move |g: &mut TensorGraph, x| {
            let shape = sizes(g, to);
            g.add(TensorOp::Reshape { x, shape })
        }
    };
    assert_eq!(refused(&[2, 3], reshape(&[5])), "sizes");
    let huge = refused(&[1, 1], |g, x| {
        let shape = sizes(g, &[1 << 31, 1 << 31]);
        g.add(TensorOp::Expand { x, shape })
    });
    assert_eq!(huge, "sizes");
}

#[test]
fn sizes_that_are_parameters() {
    // The upper half of x[n, 2], flipped, for n in 2..=8 (rows n-1 and n-2).
    let mut g = TensorGraph::new();
    let p = g.ints.new_param("n", 2, 8);
    let (n, two) = (g.ints.param(p), g.ints.constant(2));
    let x = g.add(TensorOp::Input { slot: 0, dtype: DType::F32, shape: vec![n, two] });
    let (last, zero) = (g.ints.add_const(n, -1), g.ints.constant(0));
    let rows = g.add(TensorOp::Slice { x, start: vec![last, zero], step: vec![-1, 1], size: vec![two, two] });
    let all = g.ints.mul(n, two);
    let flat = g.add(TensorOp::Reshape { x, shape: vec![all] });
    g.outputs = vec![rows, flat];
    verify(&g).unwrap();
    let y = run(&g, &[f32s(&[3, 2], &[0., 1., 2., 3., 4., 5.])], &[3]).unwrap();
    assert_eq!(y[0].to_f64s(), [4., 5., 2., 3.]);
    let three = g.ints.constant(3);
    let rows = g.add(TensorOp::Slice { x, start: vec![last, zero], step: vec![-1, 1], size: vec![three, two] });
    g.outputs = vec![rows];
    assert_eq!(verify(&g).unwrap_err().invariant, "bounds");
}

const C: usize = 3;
const O: usize = 2;
const H: usize = 5;
const K: usize = 3;

fn conv_inputs() -> [Value; 2] {
    let noise = |n: usize, seed: u32| -> Vec<f64> {
        let mut s = seed;
        (0..n)
            .map(|_| {
                s = s.wrapping_mul(1664525).wrapping_add(1013904223);
                ((s >> 8) as f64 / (1 << 24) as f64 - 0.5) * 2.0
            })
            .collect()
    };
    [f32s(&[C, H, H], &noise(C * H * H, 1)), f32s(&[O, C, K, K], &noise(O * C * K * K, 2))]
}

/// `conv2d` with padding 1: pad, two unfolds, a product and a sum over (c, ky, kx).
fn conv_tensor() -> TensorGraph {
    let mut g = TensorGraph::new();
    let (x, w) = (input(&mut g, 0, &[3, 5, 5]), input(&mut g, 1, &[2, 3, 3, 3]));
    let border = sizes(&mut g, &[0, 1, 1]);
    let x = g.add(TensorOp::Pad { x, before: border.clone(), after: border, value: Scalar::zero(DType::F32) });
    let x = g.add(unfold(x, 1, K, 1, 1));
    let x = g.add(unfold(x, 2, K, 1, 1));
    // x: c, h, w, ky, kx -> h, w, o, c, ky, kx
    let x = g.add(TensorOp::Permute { x, order: vec![1, 2, 0, 3, 4] });
    let mut both = |x, from: &[i64]| {
        let shape = sizes(&mut g, from);
        let x = g.add(TensorOp::Reshape { x, shape });
        let shape = sizes(&mut g, &[5, 5, 2, 3, 3, 3]);
        g.add(TensorOp::Expand { x, shape })
    };
    let (a, b) = (both(x, &[5, 5, 1, 3, 3, 3]), both(w, &[1, 1, 2, 3, 3, 3]));
    let x = g.add(TensorOp::Binary { op: BinaryOp::Mul, a, b });
    let x = g.add(TensorOp::Reduce {
        op: ReduceOp::Add,
        x,
        axes: vec![3, 4, 5],
        order: SumOrder::Any,
        fused: true,
        rule: None,
    });
    let y = g.add(TensorOp::Permute { x, order: vec![2, 0, 1] });
    g.outputs.push(y);
    g
}

/// The same as one definition with a gated load; without the gate where `gated` is false.
fn conv_indexed(gated: bool) -> Graph {
    let mut g = Graph::new();
    let size = |g: &mut Graph, n: usize| g.ints.constant(n as i64);
    let mut ranges = Vec::new();
    for n in [O, H, H, C, K, K] {
        let s = size(&mut g, n);
        ranges.push(g.ints.new_range(s, RangeRole::Map));
    }
    let v: Vec<IntId> = ranges.iter().map(|&r| g.ints.range(r)).collect();
    let mut buffer = |name: &str, shape: &[usize], origin| {
        let shape = shape.iter().map(|&n| size(&mut g, n)).collect();
        let (name, scope) = (name.to_string(), Scope::Global);
        g.add_buffer(Buffer { name, dtype: DType::F32, shape, origin, scope, layout: None })
    };
    let x = buffer("x", &[C, H, H], Origin::Argument(0));
    let w = buffer("w", &[O, C, K, K], Origin::Constant(1));
    let y = buffer("y", &[O, H, H], Origin::Output(0));
    let at = [(1, 4), (2, 5)].map(|(o, k)| g.ints.sum(&[(v[o], 1), (v[k], 1)], -1));
    let mut gate = Vec::new();
    for i in at {
        gate.push(i);
        gate.push(g.ints.sum(&[(i, -1)], H as i64 - 1));
    }
    let gate = if gated { gate } else { vec![] };
    let zero = Scalar::zero(DType::F32);
    let a = g.load(Source::Buffer(x), &[v[3], at[0], at[1]], &gate, zero);
    let b = g.load(Source::Buffer(w), &[v[0], v[3], v[4], v[5]], &[], zero);
    let p = g.binary(BinaryOp::Mul, a, b);
    let bound = ranges[3..].into();
    let value = g.add(Val::Reduce { op: ReduceOp::Add, ranges: bound, order: SumOrder::Any, fused: true, x: p });
    let axes = ranges[..3].to_vec();
    g.defs.push(Def { buffer: y, axes, value, keep: true, repeat: false, role: Role::Direct });
    g
}

#[test]
fn a_convolution_in_three_forms() {
    let inputs = conv_inputs();
    let t = conv_tensor();
    verify(&t).unwrap();
    let i = conv_indexed(true);
    verify::indexed::verify(&i).unwrap();
    let from_tensor = run(&t, &inputs, &[]).unwrap().remove(0);
    let from_indexed = indexed::run(&i, &inputs, &[]).unwrap().remove(0);
    assert_eq!(from_tensor, from_indexed);
    let (x, w) = (inputs[0].to_f64s(), inputs[1].to_f64s());
    let mut n = 0;
    for o in 0..O {
        for h in 0..H {
            for l in 0..H {
                let mut acc = 0.0;
                for c in 0..C {
                    for ky in 0..K {
                        for kx in 0..K {
                            let (r, s) = (h + ky, l + kx);
                            if (1..=H).contains(&r) && (1..=H).contains(&s) {
                                acc += x[(c * H + r - 1) * H + s - 1] * w[((o * C + c) * K + ky) * K + kx];
                            }
                        }
                    }
                }
                assert!((from_tensor.data[n].to_f64() - acc).abs() < 1e-5);
                n += 1;
            }
        }
    }
    let ungated = conv_indexed(false);
    assert_eq!(verify::indexed::verify(&ungated).unwrap_err().invariant, "bounds");
    assert!(indexed::run(&ungated, &inputs, &[]).is_err());
}
