//! Convolutions as tensor graphs, and programs run by the interpreter.
#![allow(dead_code)]

use winograph_compiler::schedule::{fuse, rangeify};
use winograph_compiler::{Options, Place, Program, Target, compile, winograd};
use winograph_ir::interp::{Value, linear};
use winograph_ir::tensor::{InputKind, NodeId, TensorGraph, TensorOp};
use winograph_ir::{BinaryOp, DType, IntId, ReduceOp, Scalar, SumOrder};

/// A convolution of any number of axes.
#[derive(Clone, Debug)]
pub(crate) struct Conv {
    pub(crate) n: usize,
    pub(crate) groups: usize,
    pub(crate) c: usize,
    pub(crate) k: usize,
    pub(crate) size: Vec<usize>,
    pub(crate) window: Vec<usize>,
    pub(crate) padding: Vec<(usize, usize)>,
    pub(crate) stride: Vec<usize>,
    pub(crate) dilation: Vec<usize>,
}

impl Conv {
    pub(crate) fn conv2d(n: usize, c: usize, h: usize, w: usize, k: usize) -> Conv {
        Conv {
            n,
            groups: 1,
            c,
            k,
            size: vec![h, w],
            window: vec![3, 3],
            padding: vec![(1, 1); 2],
            stride: vec![1; 2],
            dilation: vec![1; 2],
        }
    }

    pub(crate) fn out_size(&self) -> Vec<usize> {
        (0..self.size.len())
            .map(|i| {
                let padded = self.size[i] + self.padding[i].0 + self.padding[i].1;
                (padded - self.dilation[i] * (self.window[i] - 1) - 1) / self.stride[i] + 1
            })
            .collect()
    }

    /// `x` [n, c, size..] and `w` [k, c/groups, window..]; weights are a constant.
    pub(crate) fn graph(&self) -> TensorGraph {
        let mut g = TensorGraph::new();
        let rank = self.size.len();
        let dims =
            |g: &mut TensorGraph, v: &[usize]| -> Vec<IntId> { v.iter().map(|&d| g.ints.constant(d as i64)).collect() };
        let shape: Vec<usize> = [self.n, self.c].into_iter().chain(self.size.clone()).collect();
        let shape = dims(&mut g, &shape);
        let x = g.add(TensorOp::Input { slot: 0, dtype: DType::F32, shape });
        let cg = self.c / self.groups;
        let kg = self.k / self.groups;
        let wshape: Vec<usize> = [self.k, cg].into_iter().chain(self.window.clone()).collect();
        let wshape = dims(&mut g, &wshape);
        let w = g.add(TensorOp::Input { slot: 1, dtype: DType::F32, shape: wshape });
        g.inputs = vec![InputKind::Argument, InputKind::Constant];
        let before: Vec<usize> = [0, 0].into_iter().chain(self.padding.iter().map(|p| p.0)).collect();
        let after: Vec<usize> = [0, 0].into_iter().chain(self.padding.iter().map(|p| p.1)).collect();
        let (before, after) = (dims(&mut g, &before), dims(&mut g, &after));
        let mut t = g.add(TensorOp::Pad { x, before, after, value: Scalar::zero(DType::F32) });
        for i in 0..rank {
            t = g.add(TensorOp::Unfold {
                x: t,
                axis: 2 + i,
                size: self.window[i],
                stride: self.stride[i],
                dilation: self.dilation[i],
            });
        }
        let out = self.out_size();
        // [n, g, 1, c, out.., window..]
        let s: Vec<usize> =
            [self.n, self.groups, 1, cg].into_iter().chain(out.clone()).chain(self.window.clone()).collect();
        let s = dims(&mut g, &s);
        let t = g.add(TensorOp::Reshape { x: t, shape: s });
        let full: Vec<usize> =
            [self.n, self.groups, kg, cg].into_iter().chain(out.clone()).chain(self.window.clone()).collect();
        let full = dims(&mut g, &full);
        let t = g.add(TensorOp::Expand { x: t, shape: full.clone() });
        let ws: Vec<usize> =
            [1, self.groups, kg, cg].into_iter().chain(vec![1; rank]).chain(self.window.clone()).collect();
        let ws = dims(&mut g, &ws);
        let w = g.add(TensorOp::Reshape { x: w, shape: ws });
        let w = g.add(TensorOp::Expand { x: w, shape: full });
        let p = g.add(TensorOp::Binary { op: BinaryOp::Mul, a: t, b: w });
        let axes: Vec<usize> = [3].into_iter().chain(4 + rank..4 + 2 * rank).collect();
        let y =
            g.add(TensorOp::Reduce { op: ReduceOp::Add, x: p, axes, order: SumOrder::Any, fused: true, rule: None });
        let ys: Vec<usize> = [self.n, self.k].into_iter().chain(out).collect();
        let ys = dims(&mut g, &ys);
        let y: NodeId = g.add(TensorOp::Reshape { x: y, shape: ys });
        g.outputs = vec![y];
        g
    }

    pub(crate) fn inputs(&self) -> (Vec<f32>, Vec<f32>) {
        let nx = self.n * self.c * self.size.iter().product::<usize>();
        let nw = self.k * (self.c / self.groups) * self.window.iter().product::<usize>();
        (noise(nx, 1), noise(nw, 2))
    }

    /// The convolution in f64, by its definition.
    pub(crate) fn reference(&self, x: &[f32], w: &[f32]) -> Vec<f64> {
        let out = self.out_size();
        let (cg, kg) = (self.c / self.groups, self.k / self.groups);
        let points = |s: &[usize]| -> Vec<Vec<usize>> {
            s.iter().fold(vec![vec![]], |acc, &d| {
                acc.into_iter()
                    .flat_map(|p: Vec<usize>| (0..d).map(move |i| p.iter().copied().chain([i]).collect()))
                    .collect()
            })
        };
        let (outs, taps) = (points(&out), points(&self.window));
        let plane: usize = self.size.iter().product();
        let mut y = Vec::new();
        for n in 0..self.n {
            for k in 0..self.k {
                for o in &outs {
                    let mut acc = 0.0;
                    for c in 0..cg {
                        for (t, tap) in taps.iter().enumerate() {
                            let mut flat = Some(0usize);
                            for i in 0..out.len() {
                                let at = (o[i] * self.stride[i] + tap[i] * self.dilation[i]) as i64
                                    - self.padding[i].0 as i64;
                                flat = flat
                                    .filter(|_| at >= 0 && at < self.size[i] as i64)
                                    .map(|f| f * self.size[i] + at as usize);
                            }
                            if let Some(f) = flat {
                                let channel = k / kg * cg + c;
                                acc += x[(n * self.c + channel) * plane + f] as f64
                                    * w[(k * cg + c) * taps.len() + t] as f64;
                            }
                        }
                    }
                    y.push(acc);
                }
            }
        }
        y
    }
}

pub(crate) fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut s = seed.wrapping_mul(0x9e3779b97f4a7c15) | 1;
    (0..n)
        .map(|_| {
            s ^= s << 13;
            s ^= s >> 7;
            s ^= s << 17;
            (s >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

pub(crate) fn bytes(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|v| v.to_le_bytes()).collect()
}

pub(crate) fn floats(x: &[u8]) -> Vec<f32> {
    x.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect()
}

/// Runs a program with the interpreter of linear code; every buffer has memory of its own.
pub(crate) fn interpret(program: &Program, inputs: &[Vec<u8>]) -> Vec<Vec<u8>> {
    interpret_with(program, inputs, &[])
}

/// As [`interpret`], with values of the program's parameters.
pub(crate) fn interpret_with(program: &Program, inputs: &[Vec<u8>], params: &[i64]) -> Vec<Vec<u8>> {
    let mut memory: Vec<Vec<u8>> = program
        .buffers
        .iter()
        .map(|b| match b.place {
            Place::Argument(s) | Place::Constant(s) => inputs[s].clone(),
            _ => vec![0xcd; b.len * b.dtype.size()],
        })
        .collect();
    for step in program.prepare.iter().chain(&program.run) {
        let code = &program.kernels[step.kernel];
        let params = &step.params(params)[..];
        let mut args: Vec<Vec<u8>> = step.args.iter().map(|&a| std::mem::take(&mut memory[a])).collect();
        for (arg, decl) in args.iter_mut().zip(&code.args) {
            // Program buffers have their greatest length, a run uses what its parameters ask for.
            let len = code.ints.eval(decl.layout.len, &|_| 0, &|p| params[p.0 as usize]).unwrap();
            arg.truncate(len as usize * decl.dtype.size());
        }
        linear::run(code, &mut args, params).unwrap();
        for (&a, v) in step.args.iter().zip(args) {
            memory[a] = v;
        }
    }
    let mut outputs: Vec<(usize, Vec<u8>)> = program
        .buffers
        .iter()
        .enumerate()
        .filter_map(|(i, b)| match b.place {
            Place::Output(s) => Some((s, memory[i].clone())),
            _ => None,
        })
        .collect();
    outputs.sort();
    outputs.into_iter().map(|o| o.1).collect()
}

/// Relative L2 error.
pub(crate) fn error(y: &[f32], reference: &[f64]) -> f64 {
    assert_eq!(y.len(), reference.len());
    let (mut d, mut n) = (0.0, 0.0);
    for (&a, &b) in y.iter().zip(reference) {
        d += (a as f64 - b).powi(2);
        n += b * b;
    }
    (d / n.max(1e-300)).sqrt()
}

/// Sizes as constants of a graph.
pub(crate) fn dims(g: &mut TensorGraph, sizes: &[usize]) -> Vec<IntId> {
    sizes.iter().map(|&d| g.ints.constant(d as i64)).collect()
}

/// `sum over c and window of windows[c, out.., window..] * weights[k, c, window..]`, as `[k, out..]`.
pub(crate) fn sum_of_products(
    g: &mut TensorGraph,
    windows: NodeId,
    weights: NodeId,
    sizes: (usize, usize),
    out: &[usize],
    window: &[usize],
) -> NodeId {
    let ((c, k), rank) = (sizes, out.len());
    let one = dims(g, &[&[1, c], out, window].concat());
    let full = dims(g, &[&[k, c], out, window].concat());
    let weight_shape = dims(g, &[&[k, c], &vec![1; rank][..], window].concat());
    let x = g.add(TensorOp::Reshape { x: windows, shape: one });
    let x = g.add(TensorOp::Expand { x, shape: full.clone() });
    let w = g.add(TensorOp::Reshape { x: weights, shape: weight_shape });
    let w = g.add(TensorOp::Expand { x: w, shape: full });
    let p = g.add(TensorOp::Binary { op: BinaryOp::Mul, a: x, b: w });
    let axes: Vec<usize> = [1].into_iter().chain(2 + rank..2 + 2 * rank).collect();
    g.add(TensorOp::Reduce { op: ReduceOp::Add, x: p, axes, order: SumOrder::Any, fused: true, rule: None })
}

/// A part of a tensor.
pub(crate) fn slice(g: &mut TensorGraph, x: NodeId, start: &[usize], size: &[usize]) -> NodeId {
    let (start, size) = (dims(g, start), dims(g, size));
    let step = vec![1; start.len()];
    g.add(TensorOp::Slice { x, start, step, size })
}

/// `taps` slices, each shifted by one along an axis, stacked on a new last axis.
pub(crate) fn stacked(
    g: &mut TensorGraph,
    x: NodeId,
    shape: &[usize],
    axis: usize,
    taps: usize,
) -> (NodeId, Vec<usize>) {
    let mut size = shape.to_vec();
    size[axis] -= taps - 1;
    let mut with_one = size.clone();
    with_one.push(1);
    let parts = (0..taps)
        .map(|k| {
            let mut start = vec![0; size.len()];
            start[axis] = k;
            let part = slice(g, x, &start, &size);
            let shape = dims(g, &with_one);
            g.add(TensorOp::Reshape { x: part, shape })
        })
        .collect();
    let last = size.len();
    size.push(taps);
    (g.add(TensorOp::Cat { parts, axis: last }), size)
}

/// What each level of the compiler makes of a graph: the graph itself, the indexed graph after each pass, and the
/// linear code, each run by its interpreter.
pub(crate) fn levels(
    g: &TensorGraph,
    options: &Options,
    target: &Target,
    inputs: &[Value],
) -> Vec<(&'static str, Vec<Value>)> {
    let mut out = vec![("tensor", winograph_ir::interp::tensor::run(g, inputs, &[]).unwrap())];
    let run = |g: &winograph_ir::indexed::Graph| {
        winograph_ir::verify::indexed::verify(g).unwrap();
        winograph_ir::interp::indexed::run(g, inputs, &[]).unwrap()
    };
    let (mut indexed, rules) = rangeify::rangeify_ruled(g);
    out.push(("rangeify", run(&indexed)));
    winograd::run_ruled(&mut indexed, options, &rules).unwrap();
    out.push(("winograd", run(&indexed)));
    fuse::fuse(&mut indexed);
    out.push(("fuse", run(&indexed)));
    let (program, _) = compile(g, target, options).unwrap();
    let bytes: Vec<Vec<u8>> = inputs.iter().map(Value::to_bytes).collect();
    let outputs = interpret(&program, &bytes).into_iter().zip(&out[0].1);
    let values = outputs.map(|(b, v)| Value::from_bytes(v.dtype, &v.shape, &b)).collect();
    out.push(("linear", values));
    out
}

/// The floats of a value.
pub(crate) fn as_floats(v: &Value) -> Vec<f32> {
    v.to_f64s().into_iter().map(|x| x as f32).collect()
}

/// An `f32` tensor.
pub(crate) fn value(shape: &[usize], data: &[f32]) -> Value {
    Value::from_f64s(DType::F32, shape, &data.iter().map(|&x| x as f64).collect::<Vec<_>>())
}
