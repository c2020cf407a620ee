//! Random graphs of tensor operations, computed by the CPU and by the interpreters.
//!
//! Two comparisons: the results of the compiled function against the interpreter of the tensor graph, within what the
//! dtypes' rounding allows (integers and everything that does not round exactly); and every kernel of the program
//! against the interpreter of linear code, bit for bit, on the same inputs.
//!
//! `WINOGRAPH_GRAPHS=3000` runs more of them, `WINOGRAPH_SEED=7000` others. A failure prints the seed and the graph.

mod generator;

use generator::{Item, Random, arguments, elements, graph, values};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use winograph::cpu::{Buffer, CpuDevice, CpuModule, CpuOptions};
use winograph::device::{Memory, Module};
use winograph::env::Env;
use winograph::function::trace;
use winograph::{ArgSpec, DType, FunctionOptions, Options, Scalar, Tensor, compile_with};
use winograph_compiler::{Algorithm, Place, Program};
use winograph_ir::interp::{self, Value};
use winograph_ir::linear::{Code, Stmt};
use winograph_ir::text::{print_linear, print_tensor};

/// Graphs whose results are compiled together: the C compiler is called once for all.
const BATCH: usize = 20;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{name}={v} is not a number")))
}

/// A random graph: what it takes and how to make it.
struct Case {
    seed: u64,
    args: Vec<ArgSpec>,
    inputs: Vec<Tensor>,
    items: Vec<Item>,
}

impl Case {
    fn new(seed: u64) -> Case {
        let mut r = Random::new(seed);
        let args = arguments(&mut r);
        let inputs = args.iter().map(|a| values(&mut r, a)).collect();
        let mut case = Case { seed, args, inputs, items: vec![] };
        trace(&case.args.clone(), |args| {
            case.items = case.make(args);
            Ok(vec![])
        })
        .unwrap();
        case
    }

    /// The same graph over any arguments.
    fn make(&self, args: &[Tensor]) -> Vec<Item> {
        graph(&mut Random::new(self.seed.wrapping_add(1 << 40)), args)
    }

    fn results(&self, args: &[Tensor]) -> Vec<Tensor> {
        self.make(args).into_iter().map(|i| i.t).collect()
    }

    /// What the interpreter of the tensor graph makes of it, and the graph.
    fn expected(&self) -> (Vec<Value>, String) {
        let (graph, constants) = trace(&self.args, |args| Ok(self.results(args))).unwrap();
        let inputs: Vec<Value> = self.inputs.iter().map(elements).chain(constants).collect();
        let text = print_tensor(&graph);
        let out =
            interp::tensor::run(&graph, &inputs, &[]).unwrap_or_else(|e| panic!("seed {}: {e}\n{text}", self.seed));
        (out, text)
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
    let (expected, text) = case.expected();
    for (n, ((got, want), item)) in got.iter().zip(&expected).zip(&case.items).enumerate() {
        let got = elements(got);
        assert_eq!((got.dtype, &got.shape), (want.dtype, &want.shape), "seed {}\n{text}", case.seed);
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

/// Runs every step of a program on the CPU and by the interpreter, each step on the same memory, and compares bits.
fn check_kernels(program: &Program, module: &CpuModule, inputs: &[Value], what: &str) -> Result<(), String> {
    let mut memory: Vec<Vec<u8>> = program
        .buffers
        .iter()
        .map(|b| match b.place {
            Place::Argument(s) | Place::Constant(s) => inputs[s].to_bytes(),
            _ => vec![0; b.len * b.dtype.size()],
        })
        .collect();
    for step in program.prepare.iter().chain(&program.run) {
        let code = &program.kernels[step.kernel];
        let mut args: Vec<Vec<u8>> = step.args.iter().map(|&a| memory[a].clone()).collect();
        let buffers: Vec<Buffer> = args
            .iter()
            .map(|bytes| {
                let mut b = Buffer::zeroed(bytes.len()).unwrap();
                b.as_mut_slice().copy_from_slice(bytes);
                b
            })
            .collect();
        let launch: Vec<_> = buffers.iter().map(|b| b.arg(0, b.len()).unwrap()).collect();
        // SAFETY: the buffers live until the launch returns and have the sizes that the program states; its kernels
        // have passed the verifier.
        unsafe { module.launch(step.kernel, &launch, &[]) }.unwrap();
        interp::linear::run(code, &mut args, &[]).map_err(|e| format!("{what}: {e}\n{}", print_linear(code)))?;
        for ((n, decl), buffer) in code.args.iter().enumerate().zip(&buffers).filter(|((_, d), _)| d.written) {
            let values = |bytes: &[u8]| Value::from_bytes(decl.dtype, &[], bytes).data;
            let (got, want) = (values(buffer.as_slice()), values(&args[n]));
            for (i, (a, b)) in got.iter().zip(&want).enumerate() {
                let same = a == b || (a.is_nan() && b.is_nan()) || (rounds_its_own_way(code) && neighbours(*a, *b));
                if !same {
                    let found = format!("`{}`[{i}] is {a} on the CPU, {b} by the interpreter", decl.name);
                    return Err(format!("{what}: {found}\n{}", print_linear(code)));
                }
            }
            memory[step.args[n]] = buffer.as_slice().to_vec();
        }
    }
    Ok(())
}

/// Whether a kernel has operations whose last bit is the C library's: these are lowered to it, not to code of ours.
fn rounds_its_own_way(code: &Code) -> bool {
    use winograph_ir::linear::Instr;
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
fn attempt(device: &Arc<CpuDevice>, algorithm: Algorithm, cases: &[Case]) -> Result<(), String> {
    let what = format!("seeds {:?}", cases.iter().map(|c| c.seed).collect::<Vec<_>>());
    let compiler = Options {
        algorithm,
        tile: (algorithm == Algorithm::Winograd).then(|| vec![2]),
        verify_each_pass: true,
        ..Options::default()
    };
    let options =
        FunctionOptions { device: Some(device.clone()), compiler: Some(compiler), ..FunctionOptions::default() };
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
    let (graph, constants) = trace(&args, make).map_err(|e| format!("{what}: {}", chain(&e)))?;
    let function = catch_unwind(AssertUnwindSafe(|| compile_with(&args, &options, make)))
        .map_err(|_| "a panic".to_string())
        .and_then(|f| f.map_err(|e| chain(&e)))
        .map_err(|e| format!("{what}: {e}\n{}", print_tensor(&graph)))?;
    let inputs: Vec<&Tensor> = cases.iter().flat_map(|c| &c.inputs).collect();
    let results = function.call(&inputs).map_err(|e| format!("{what}: {}", chain(&e)))?;
    let (module, _) = device.load(&function.program().kernels).map_err(|e| format!("{what}: {}", chain(&e)))?;
    let values: Vec<Value> = inputs.into_iter().map(elements).chain(constants).collect();
    check_kernels(function.program(), &module, &values, &what)?;
    let mut at = 0;
    for case in cases {
        check(case, &results[at..at + case.items.len()])?;
        at += case.items.len();
    }
    Ok(())
}

fn run(algorithm: Algorithm, first: usize, count: usize) {
    let device = Arc::new(CpuDevice::new(CpuOptions::from_env(&Env::read().unwrap())).unwrap());
    let seeds: Vec<u64> = (first..first + count).map(|s| s as u64).collect();
    let mut failures = Vec::new();
    for batch in seeds.chunks(BATCH) {
        let cases: Vec<Case> = batch.iter().map(|&s| Case::new(s)).collect();
        if let Err(all) = attempt(&device, algorithm, &cases) {
            // One by one, to say which.
            let before = failures.len();
            failures.extend(cases.chunks(1).filter_map(|c| attempt(&device, algorithm, c).err()));
            if failures.len() == before {
                failures.push(format!("together, but not alone: {all}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {count} graphs fail\n{}", failures.len(), failures.join("\n"));
}

fn chain(e: &dyn std::error::Error) -> String {
    let mut out = e.to_string();
    let mut cause = e.source();
    while let Some(c) = cause {
        out = format!("{out}: {c}");
        cause = c.source();
    }
    out
}

#[test]
fn direct() {
    run(Algorithm::Direct, setting("WINOGRAPH_SEED", 0), setting("WINOGRAPH_GRAPHS", 240));
}

/// With convolutions rewritten wherever they can be.
#[test]
fn rewritten() {
    run(Algorithm::Winograd, setting("WINOGRAPH_SEED", 0) + 100_000, setting("WINOGRAPH_GRAPHS", 240) / 4);
}

/// The generator makes what it is there for: every operation on every dtype that it is defined for, in sizes with and
/// without elements.
#[test]
fn the_graphs_are_various() {
    let mut words = std::collections::BTreeSet::new();
    let (mut empty, mut inexact) = (0, 0);
    for seed in 0..600 {
        let case = Case::new(seed);
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
    for dtype in generator::DTYPES {
        let ops = words.iter().filter(|w| w.1 == dtype.name()).count();
        assert!(ops >= 15, "{ops} operations on {dtype}");
    }
    assert!(words.len() > 250, "{}", words.len());
    assert!(empty > 0 && inexact > 100, "{empty} empty results, {inexact} that round");
}
