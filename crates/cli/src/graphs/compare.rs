//! Random graphs on the CPU and in the interpreters.
//!
//! Three comparisons: the results of the compiled function against the interpreter of the tensor graph, within what the
//! dtypes' rounding allows (integers and everything that does not round exactly); every kernel of the program against
//! the interpreter of linear code, bit for bit, on the same inputs; and the function on several threads against its
//! kernels on one, bit for bit.

use super::generator::{Item, Random, arguments, elements, graph, values};
use super::{Devices, chain};
use std::panic::{AssertUnwindSafe, catch_unwind};
use winograph::cpu::CheckedKernels;
use winograph::function::trace;
use winograph::{ArgSpec, DType, FunctionOptions, Options, Scalar, Tensor, compile_with};
use winograph_compiler::{Algorithm, Place, Program};
use winograph_ir::interp::{self, Value};
use winograph_ir::linear::{Code, Instr, Stmt};
use winograph_ir::text::{print_linear, print_tensor};

/// A random graph: what it takes and how to make it.
pub(super) struct Case {
    pub(super) seed: u64,
    args: Vec<ArgSpec>,
    inputs: Vec<Tensor>,
    items: Vec<Item>,
}

impl Case {
    pub(super) fn new(seed: u64) -> Result<Case, String> {
        let mut r = Random::new(seed);
        let args = arguments(&mut r);
        let inputs = args.iter().map(|a| values(&mut r, a)).collect();
        let mut case = Case { seed, args, inputs, items: vec![] };
        trace(&case.args.clone(), |args| {
            case.items = case.make(args);
            Ok(vec![])
        })
        .map_err(|e| format!("seed {seed}: {}", chain(&e)))?;
        Ok(case)
    }

    /// The same graph over any arguments.
    fn make(&self, args: &[Tensor]) -> Vec<Item> {
        graph(&mut Random::new(self.seed.wrapping_add(1 << 40)), args)
    }

    fn results(&self, args: &[Tensor]) -> Vec<Tensor> {
        self.make(args).into_iter().map(|i| i.t).collect()
    }

    /// What the interpreter of the tensor graph makes of it, and the graph.
    fn expected(&self) -> Result<(Vec<Value>, String), String> {
        let (graph, constants) =
            trace(&self.args, |args| Ok(self.results(args))).map_err(|e| format!("seed {}: {e}", self.seed))?;
        let inputs: Vec<Value> = self.inputs.iter().map(elements).chain(constants).collect();
        let text = print_tensor(&graph);
        let out = interp::tensor::run(&graph, &inputs, &[]).map_err(|e| format!("seed {}: {e}\n{text}", self.seed))?;
        Ok((out, text))
    }
}

/// Whether a result is what it should be: the same for exact ones, else within the precision of what it went through.
fn close(got: Scalar, want: Scalar, item: &Item, scale: f64) -> bool {
    if got == want || (got.is_nan() && want.is_nan()) {
        return true;
    }
    let (a, b) = (got.to_f64(), want.to_f64());
    if item.exact {
        // Which of two zeros a maximum gives is open.
        return a == b && got.dtype().is_float();
    }
    if !a.is_finite() || !b.is_finite() {
        return false;
    }
    (a - b).abs() <= 50.0 * item.precision * scale.max(b.abs())
}

/// Compares results with what they should be.
fn check(case: &Case, got: &[Tensor]) -> Result<(), String> {
    let (expected, text) = case.expected()?;
    for (n, ((got, want), item)) in got.iter().zip(&expected).zip(&case.items).enumerate() {
        let got = elements(got);
        if (got.dtype, &got.shape) != (want.dtype, &want.shape) {
            return Err(format!("seed {}: output {n} is {}{:?}\n{text}", case.seed, got.dtype, got.shape));
        }
        let finite = want.to_f64s().into_iter().filter(|x| x.is_finite());
        let largest = finite.fold(0.0, |m: f64, x| m.max(x.abs()));
        let scale = largest.max(item.bound.min(1e3));
        for (i, (&a, &b)) in got.data.iter().zip(&want.data).enumerate() {
            if !close(a, b, item, scale) {
                let how = if item.exact { "exactly".to_string() } else { format!("at scale {scale}") };
                let what = format!("element {i} of output {n} is {a}, expected {b} {how}");
                return Err(format!("seed {}: {what}\n{text}", case.seed));
            }
        }
    }
    Ok(())
}

/// Runs one step on the CPU and by the interpreter and compares bits; `args` are then what the CPU left.
pub(super) fn check_step(
    kernels: &CheckedKernels,
    number: usize,
    code: &Code,
    args: &mut [Vec<u8>],
    params: &[i64],
) -> Result<(), String> {
    if let Some(gate) = needless_gate(code) {
        return Err(gate);
    }
    let mut wanted = args.to_vec();
    let found = kernels.run(number, args, params).map_err(|e| chain(&e))?;
    interp::linear::run(code, &mut wanted, params).map_err(|e| format!("{e}\n{}", print_linear(code)))?;
    let own = rounds_its_own_way(code);
    for (n, bytes) in found {
        let decl = &code.args[n];
        let values = |bytes: &[u8]| Value::from_bytes(decl.dtype, &[], bytes).data;
        let (got, want) = (values(&bytes), values(&wanted[n]));
        for (i, (a, b)) in got.iter().zip(&want).enumerate() {
            if !(a == b || (a.is_nan() && b.is_nan()) || (own && neighbours(*a, *b))) {
                let found = format!("`{}`[{i}] is {a} on the CPU, {b} by the interpreter", decl.name);
                return Err(format!("{found}\n{}", print_linear(code)));
            }
        }
        args[n] = bytes;
    }
    Ok(())
}

/// Runs every step of a program, each on the memory that those before it left; gives all buffers.
fn check_kernels(program: &Program, kernels: &CheckedKernels, inputs: &[Value]) -> Result<Vec<Vec<u8>>, String> {
    let mut memory: Vec<Vec<u8>> = program
        .buffers
        .iter()
        .map(|b| match b.place {
            Place::Argument(s) | Place::Constant(s) => inputs[s].to_bytes(),
            _ => vec![0; b.len * b.dtype.size()],
        })
        .collect();
    for step in program.prepare.iter().chain(&program.run) {
        let mut args: Vec<Vec<u8>> = step.args.iter().map(|&a| memory[a].clone()).collect();
        check_step(kernels, step.kernel, &program.kernels[step.kernel], &mut args, &step.host)?;
        for (&at, bytes) in step.args.iter().zip(args) {
            memory[at] = bytes;
        }
    }
    Ok(memory)
}

/// A condition of an access that holds everywhere, and so need not be asked at every access.
pub(super) fn needless_gate(code: &Code) -> Option<String> {
    let mut ints = code.ints.clone();
    let mut found = None;
    code.for_each_stmt(&mut |s| {
        if let Some(access) = s.access()
            && access.gate.iter().any(|&g| ints.prove_nonneg(g, &[]))
        {
            found = Some(format!("{access:?} is gated although its condition always holds"));
        }
    });
    found.map(|f| format!("{f}\n{}", print_linear(code)))
}

/// Whether a kernel has operations whose last bit is the C library's: these are lowered to it, not to code of ours.
fn rounds_its_own_way(code: &Code) -> bool {
    let mut found = false;
    code.for_each_stmt(&mut |s| {
        if let Stmt::Let { instr, .. } = s {
            found |= match instr {
                Instr::Unary { op, .. } => op.is_transcendental(),
                Instr::Binary { op, .. } => *op == winograph_ir::BinaryOp::Pow,
                _ => false,
            };
        }
    });
    found
}

fn neighbours(a: Scalar, b: Scalar) -> bool {
    let tolerance = match a.dtype() {
        DType::F64 => 1e-13,
        DType::F32 => 1e-5,
        DType::F16 => 4e-3,
        DType::BF16 => 3e-2,
        _ => return false,
    };
    let (a, b) = (a.to_f64(), b.to_f64());
    (a - b).abs() <= tolerance * b.abs().max(1.0)
}

/// Some graphs compiled together, run and compared.
pub(super) fn attempt(devices: &Devices, algorithm: Algorithm, cases: &[Case]) -> Result<(), String> {
    let what = format!("seeds {:?}", cases.iter().map(|c| c.seed).collect::<Vec<_>>());
    let failed = |e: &dyn std::error::Error| format!("{what}: {}", chain(e));
    let compiler = Options {
        algorithm,
        tile: (algorithm == Algorithm::Winograd).then(|| vec![2.into()]),
        verify_each_pass: true,
        ..Options::default()
    };
    let options = FunctionOptions {
        device: Some(devices.several.clone()),
        compiler: Some(compiler),
        ..FunctionOptions::default()
    };
    let args: Vec<ArgSpec> = cases.iter().flat_map(|c| c.args.clone()).collect();
    let make = |args: &[Tensor]| {
        let mut at = 0;
        let mut out = Vec::new();
        for c in cases {
            out.extend(c.results(&args[at..at + c.args.len()]));
            at += c.args.len();
        }
        Ok(out)
    };
    let (graph, constants) = trace(&args, make).map_err(|e| failed(&e))?;
    let function = catch_unwind(AssertUnwindSafe(|| compile_with(&args, &options, make)))
        .map_err(|_| "a panic".to_string())
        .and_then(|f| f.map_err(|e| chain(&e)))
        .map_err(|e| format!("{what}: {e}\n{}", print_tensor(&graph)))?;
    let inputs: Vec<&Tensor> = cases.iter().flat_map(|c| &c.inputs).collect();
    let results = function.call(&inputs).map_err(|e| failed(&e))?;
    let (kernels, _) = CheckedKernels::new(&devices.single, &function.program().kernels).map_err(|e| failed(&e))?;
    let values: Vec<Value> = inputs.into_iter().map(elements).chain(constants).collect();
    let memory = check_kernels(function.program(), &kernels, &values).map_err(|e| format!("{what}: {e}"))?;
    for (buffer, bytes) in function.program().buffers.iter().zip(&memory) {
        if let Place::Output(n) = buffer.place
            && elements(&results[n]).to_bytes() != *bytes
        {
            return Err(format!("{what}: result {n} is another one on several threads than on one"));
        }
    }
    let mut at = 0;
    for case in cases {
        check(case, &results[at..at + case.items.len()])?;
        at += case.items.len();
    }
    Ok(())
}

/// The generator makes what it is there for: every operation on every dtype that it is defined for, in sizes with and
/// without elements.
#[test]
fn the_graphs_are_various() {
    let mut words = std::collections::BTreeSet::new();
    let (mut empty, mut inexact) = (0, 0);
    for seed in 0..600 {
        let case = Case::new(seed).unwrap();
        empty += case.items.iter().filter(|i| i.t.numel() == 0).count();
        inexact += case.items.iter().filter(|i| !i.exact).count();
        let (graph, _) = trace(&case.args, |args| Ok(case.results(args))).unwrap();
        for line in print_tensor(&graph).lines().filter(|l| l.starts_with('%')) {
            let (_, rest) = line.split_once(" = ").unwrap();
            let op = rest.split(' ').next().unwrap().to_string();
            let dtype = rest.rsplit_once(" : ").and_then(|t| t.1.split('[').next()).unwrap_or("").to_string();
            words.insert((op, dtype));
        }
    }
    let missing: Vec<&str> = "input full iota where cast reshape permute expand pad slice unfold cat gather reduce contiguous \
         neg abs sqrt exp log sin cos tanh erf floor ceil trunc round not add sub mul div rem max min pow lt le eq ne and \
         or xor"
        .split_whitespace()
        .filter(|op| !words.iter().any(|w| w.0 == *op))
        .collect();
    assert!(missing.is_empty(), "{missing:?} do not occur");
    for dtype in super::generator::DTYPES {
        let ops = words.iter().filter(|w| w.1 == dtype.name()).count();
        assert!(ops >= 15, "{ops} operations on {dtype}");
    }
    assert!(words.len() > 250, "{}", words.len());
    assert!(empty > 0 && inexact > 100, "{empty} empty results, {inexact} that round");
}
