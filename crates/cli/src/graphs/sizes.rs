//! Random graphs whose sizes are bounded parameters, on the CPU and in the interpreters.
//!
//! Their numbers are small integers that every dtype holds exactly, so that every comparison is of bits: the results
//! against the interpreter of the tensor graph, each kernel against the interpreter of linear code, for the least, the
//! greatest and some other values of the parameters. One plan serves them all.

use super::compare::check_step;
use super::generator::{DTYPES, Random};
use super::{Devices, chain};
use std::panic::{AssertUnwindSafe, catch_unwind};
use winograph::cpu::CheckedKernels;
use winograph::device::Device as _;
use winograph::{DType, Options, Scalar};
use winograph_compiler::{Algorithm, CompileError, Place, Program, compile};
use winograph_ir::interp::{self, Value};
use winograph_ir::linear::Code;
use winograph_ir::tensor::{InputKind, NodeId, TensorGraph, TensorOp};
use winograph_ir::text::print_tensor;
use winograph_ir::{BinaryOp, IntId, ReduceOp, SumOrder, UnaryOp};

/// Most elements of a tensor, with parameters at their greatest.
const MAX_ELEMENTS: i64 = 600;

/// Invariants that a graph may fail since something about its sizes is true but not proved.
const UNPROVED: [&str; 3] = ["bounds", "buffers", "sizes"];

/// Values of the parameters that each graph is run with.
const RUNS: usize = 4;

/// A graph, what bounds its numbers, and its program.
pub(super) struct Sized {
    seed: u64,
    graph: TensorGraph,
    /// Or why there is none.
    program: Result<Program, String>,
}

struct Maker {
    r: Random,
    g: TensorGraph,
    pool: Vec<(NodeId, f64)>,
}

/// The largest number up to which a dtype holds all integers, and a bit less.
fn exact(dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => 250.0,
        DType::F16 => 2000.0,
        DType::F32 => 1e7,
        DType::F64 => 1e15,
        // Integers wrap, by definition.
        _ => f64::INFINITY,
    }
}

impl Maker {
    fn new(seed: u64) -> Maker {
        let mut m = Maker { r: Random::new(seed ^ 0x5123), g: TensorGraph::new(), pool: vec![] };
        let mut sizes: Vec<IntId> = Vec::new();
        for name in ["n", "w"].into_iter().take(1 + m.r.below(2)) {
            let lo = 1 + m.r.below(4) as i64;
            let hi = lo + m.r.below(6) as i64;
            let p = m.g.ints.new_param(name, lo, hi);
            sizes.push(m.g.ints.param(p));
        }
        let inputs = 1 + m.r.below(2);
        for slot in 0..inputs {
            let rank = 1 + m.r.below(3);
            let shape: Vec<IntId> = (0..rank)
                .map(|_| match m.r.below(2) {
                    0 => sizes[m.r.below(sizes.len())],
                    _ => {
                        let s = [1, 2, 3, 4, 5, 8][m.r.below(6)];
                        m.g.ints.constant(s)
                    }
                })
                .collect();
            let dtype = DTYPES[m.r.below(DTYPES.len())];
            m.g.inputs.push(InputKind::Argument);
            m.add(TensorOp::Input { slot, dtype, shape }, 4.0);
        }
        let wanted = m.pool.len() + 3 + m.r.below(6);
        for _ in 0..100 {
            if m.pool.len() >= wanted {
                break;
            }
            m.step(&sizes);
        }
        let last = m.pool.len() - 1;
        m.g.outputs.push(m.pool[last].0);
        let other = m.r.below(last + 1);
        if m.r.below(2) == 0 && other != last {
            m.g.outputs.push(m.pool[other].0);
        }
        m
    }

    fn max(&self, s: IntId) -> i64 {
        self.g.ints.bounds(s).1
    }

    fn add(&mut self, op: TensorOp<NodeId>, bound: f64) -> NodeId {
        let id = self.g.add(op);
        let node = self.g.node(id);
        let count: i64 = node.shape.iter().map(|&s| self.g.ints.bounds(s).1).product();
        let bound = match node.dtype {
            DType::Bool => 1.0,
            DType::U8 => bound.max(255.0),
            _ => bound,
        };
        if count <= MAX_ELEMENTS && node.shape.len() <= 4 && bound <= exact(node.dtype) {
            self.pool.push((id, bound));
        }
        id
    }

    /// Adds one operation on what is there, or nothing where the one that was drawn does not fit.
    fn step(&mut self, sizes: &[IntId]) {
        let at = self.pool.len() - 1 - self.r.below(self.pool.len()).min(self.r.below(self.pool.len()));
        let (x, bound) = self.pool[at];
        let (dtype, shape) = (self.g.node(x).dtype, self.g.node(x).shape.clone());
        let same: Vec<(NodeId, f64)> = self
            .pool
            .iter()
            .copied()
            .filter(|p| self.g.node(p.0).dtype == dtype && self.g.node(p.0).shape == shape)
            .collect();
        let (y, other) = same[self.r.below(same.len())];
        let axis = self.r.below(shape.len().max(1));
        let number = dtype != DType::Bool;
        let largest = bound.max(other);
        let all = shape.clone();
        match self.r.below(17) {
            0 if number => drop(self.add(TensorOp::Binary { op: BinaryOp::Add, a: x, b: y }, bound + other)),
            1 if number => drop(self.add(TensorOp::Binary { op: BinaryOp::Mul, a: x, b: y }, bound * other)),
            2 => drop(self.add(TensorOp::Binary { op: BinaryOp::Max, a: x, b: y }, largest)),
            3 if number && dtype != DType::U8 => drop(self.add(TensorOp::Unary { op: UnaryOp::Neg, x }, bound)),
            4 => {
                let cond = self.g.add(TensorOp::Binary { op: BinaryOp::Lt, a: x, b: y });
                self.add(TensorOp::Where { cond, a: x, b: y }, largest);
            }
            5 => {
                let to = DTYPES[self.r.below(DTYPES.len())];
                if bound <= 100.0 {
                    self.add(TensorOp::Cast { x, dtype: to }, bound);
                }
            }
            _ if shape.is_empty() => {}
            6 => {
                let mut order: Vec<usize> = (0..shape.len()).collect();
                order.rotate_left(axis);
                self.add(TensorOp::Permute { x, order }, bound);
            }
            7 => {
                let zero = self.g.ints.constant(0);
                let (mut before, mut after) = (vec![zero; shape.len()], vec![zero; shape.len()]);
                before[axis] = self.constant(2);
                after[axis] = self.constant(3);
                let value = Scalar::from_f64(dtype, self.r.below(2) as f64);
                self.add(TensorOp::Pad { x, before, after, value }, bound);
            }
            8 => {
                let start = self.r.below(2) as i64;
                if self.g.ints.bounds(shape[axis]).0 > start {
                    let zero = self.g.ints.constant(0);
                    let (mut from, mut size) = (vec![zero; shape.len()], all);
                    from[axis] = self.g.ints.constant(start);
                    size[axis] = self.g.ints.add_const(size[axis], -start);
                    self.add(TensorOp::Slice { x, start: from, step: vec![1; shape.len()], size }, bound);
                }
            }
            9 => {
                let zero = self.g.ints.constant(0);
                let (mut start, mut step) = (vec![zero; shape.len()], vec![1; shape.len()]);
                start[axis] = self.g.ints.add_const(shape[axis], -1);
                step[axis] = -1;
                self.add(TensorOp::Slice { x, start, step, size: all }, bound);
            }
            10 => {
                let size = 2 + self.r.below(2);
                if self.g.ints.bounds(shape[axis]).0 >= size as i64 {
                    self.add(TensorOp::Unfold { x, axis, size, stride: 1, dilation: 1 }, bound);
                }
            }
            11 => {
                let one = self.g.ints.constant(1);
                let mut wide = all;
                wide.insert(axis, one);
                let view = self.g.add(TensorOp::Reshape { x, shape: wide.clone() });
                wide[axis] = sizes[self.r.below(sizes.len())];
                self.add(TensorOp::Expand { x: view, shape: wide }, bound);
            }
            12 => drop(self.add(TensorOp::Cat { parts: vec![x, y], axis }, largest)),
            13 => drop(self.add(TensorOp::Contiguous { x }, bound)),
            14 => {
                let op = if number && self.r.below(2) == 0 { ReduceOp::Add } else { ReduceOp::Max };
                let terms = if op == ReduceOp::Add { self.max(shape[axis]) as f64 } else { 1.0 };
                let reduce =
                    TensorOp::Reduce { op, x, axes: vec![axis], order: SumOrder::Any, fused: true, rule: None };
                self.add(reduce, bound * terms);
            }
            15 if shape.len() >= 2 => {
                let mut merged = all;
                let last = merged.remove(axis.max(1));
                let place = axis.max(1) - 1;
                merged[place] = self.g.ints.mul(merged[place], last);
                self.add(TensorOp::Reshape { x, shape: merged }, bound);
            }
            16 if shape.len() == 2 && number => {
                // x @ x^T, as the library writes it.
                let (m, k) = (shape[0], shape[1]);
                let one = self.g.ints.constant(1);
                let a = self.g.add(TensorOp::Reshape { x, shape: vec![m, one, k] });
                let b = self.g.add(TensorOp::Reshape { x, shape: vec![one, m, k] });
                let (a, b) =
                    (TensorOp::Expand { x: a, shape: vec![m, m, k] }, TensorOp::Expand { x: b, shape: vec![m, m, k] });
                let (a, b) = (self.g.add(a), self.g.add(b));
                let x = self.g.add(TensorOp::Binary { op: BinaryOp::Mul, a, b });
                let sum = TensorOp::Reduce {
                    op: ReduceOp::Add,
                    x,
                    axes: vec![2],
                    order: SumOrder::Any,
                    fused: true,
                    rule: None,
                };
                if bound * bound <= exact(dtype) {
                    self.add(sum, bound * bound * self.max(k) as f64);
                }
            }
            _ => {}
        }
    }

    fn constant(&mut self, below: usize) -> IntId {
        let c = self.r.below(below) as i64;
        self.g.ints.constant(c)
    }
}

impl Sized {
    /// A graph and its plan. Where an access or a size cannot be proved there is none: such a graph is refused,
    /// which is no fault.
    pub(super) fn new(seed: u64, devices: &Devices) -> Result<Sized, String> {
        let graph = Maker::new(seed).g;
        let at = |e: String| format!("seed {seed} with parameters: {e}\n{}", print_tensor(&graph));
        let options = Options { verify_each_pass: true, algorithm: Algorithm::Direct, ..Options::default() };
        let made = catch_unwind(AssertUnwindSafe(|| compile(&graph, devices.single.target(), &options)));
        let program = match made.map_err(|_| at("a panic".to_string()))? {
            Ok((program, _)) => Ok(program),
            Err(e @ CompileError::Refused { .. }) => Err(chain(&e)),
            Err(CompileError::Verify { pass, error }) if UNPROVED.contains(&error.invariant) => {
                Err(format!("after {pass}: {error}"))
            }
            Err(e) => return Err(at(chain(&e))),
        };
        Ok(Sized { seed, graph, program })
    }

    /// Why the graph is not computed, and its text.
    pub(super) fn refused(&self) -> Option<String> {
        let why = self.program.as_ref().err()?;
        Some(format!("seed {} is refused: {why}\n{}", self.seed, print_tensor(&self.graph)))
    }

    fn kernels(&self) -> &[Code] {
        self.program.as_ref().map_or(&[], |p| &p.kernels)
    }

    fn check(&self, kernels: &CheckedKernels, first: usize) -> Result<(), String> {
        let Ok(program) = &self.program else { return Ok(()) };
        let mut r = Random::new(self.seed ^ 0x77);
        let bounds: Vec<(i64, i64)> = self.graph.ints.params().iter().map(|p| (p.lo, p.hi)).collect();
        for run in 0..RUNS {
            let params: Vec<i64> = bounds
                .iter()
                .map(|&(lo, hi)| match run {
                    0 => lo,
                    1 => hi,
                    _ => lo + r.below((hi - lo + 1) as usize) as i64,
                })
                .collect();
            self.check_with(program, kernels, first, &params, &mut r).map_err(|e| {
                format!("seed {} with parameters {params:?}: {e}\n{}", self.seed, print_tensor(&self.graph))
            })?;
        }
        Ok(())
    }

    fn check_with(
        &self,
        program: &Program,
        kernels: &CheckedKernels,
        first: usize,
        params: &[i64],
        r: &mut Random,
    ) -> Result<(), String> {
        let size = |s: IntId| self.graph.ints.eval(s, &|_| 0, &|p| params[p.0 as usize]).unwrap_or(0).max(0) as usize;
        let mut inputs: Vec<Value> = Vec::new();
        for slot in 0..self.graph.inputs.len() {
            let of_slot =
                |n: &&winograph_ir::tensor::Node| matches!(n.op, TensorOp::Input { slot: s, .. } if s == slot);
            let Some(node) = self.graph.nodes().iter().find(of_slot) else { continue };
            let shape: Vec<usize> = node.shape.iter().map(|&s| size(s)).collect();
            let lowest = if matches!(node.dtype, DType::U8 | DType::Bool) { 0.0 } else { -4.0 };
            let most = if node.dtype == DType::Bool { 2 } else { 5 };
            let data: Vec<f64> = (0..shape.iter().product::<usize>())
                .map(|_| (r.below(most) as f64) + if r.below(2) == 0 { lowest } else { 0.0 })
                .collect();
            inputs.push(Value::from_f64s(node.dtype, &shape, &data));
        }
        let wanted = interp::tensor::run(&self.graph, &inputs, params).map_err(|e| chain(&e))?;
        let mut memory: Vec<Option<Vec<u8>>> = program
            .buffers
            .iter()
            .map(|b| match b.place {
                Place::Argument(s) => Some(inputs[s].to_bytes()),
                _ => None,
            })
            .collect();
        for step in program.prepare.iter().chain(&program.run) {
            let code = &program.kernels[step.kernel];
            let params = &step.params(params)[..];
            let mut args: Vec<Vec<u8>> = Vec::new();
            for (decl, &at) in code.args.iter().zip(&step.args) {
                let len = code.ints.eval(decl.layout.len, &|_| 0, &|p| params[p.0 as usize]).unwrap_or(0).max(0);
                args.push(memory[at].clone().unwrap_or_else(|| vec![0; len as usize * decl.dtype.size()]));
            }
            check_step(kernels, first + step.kernel, code, &mut args, params)?;
            for (&at, bytes) in step.args.iter().zip(args) {
                memory[at] = Some(bytes);
            }
        }
        for (buffer, bytes) in program.buffers.iter().zip(&memory) {
            let (Place::Output(n), Some(bytes)) = (buffer.place, bytes) else { continue };
            let want = &wanted[n];
            let got = Value::from_bytes(want.dtype, &want.shape, bytes);
            for (i, (a, b)) in got.data.iter().zip(&want.data).enumerate() {
                // Which of two zeros a maximum gives is open.
                if a != b && a.to_f64() != b.to_f64() {
                    return Err(format!("element {i} of output {n} is {a}, expected {b}"));
                }
            }
        }
        Ok(())
    }
}

/// Graphs whose kernels are compiled together, run and compared; the failures.
pub(super) fn attempt(devices: &Devices, cases: &[Sized]) -> Vec<String> {
    let codes: Vec<Code> = cases.iter().flat_map(|c| c.kernels().iter().cloned()).collect();
    let kernels = match CheckedKernels::new(&devices.single, &codes) {
        Ok((kernels, _)) => kernels,
        Err(e) => {
            let seeds: Vec<u64> = cases.iter().map(|c| c.seed).collect();
            return vec![format!("seeds {seeds:?} with parameters: {}", chain(&e))];
        }
    };
    let mut first = 0;
    let mut failures = Vec::new();
    for case in cases {
        failures.extend(case.check(&kernels, first).err());
        first += case.kernels().len();
    }
    failures
}
