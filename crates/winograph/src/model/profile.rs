//! Where the time of a run goes.

use crate::error::Result;
use crate::function::Function;
use crate::tensor::{Tensor, TensorBuffer};
use std::time::Duration;
use winograph_compiler::explain::KernelReport;
use winograph_ir::linear::{Memory, MemoryDecl};

/// One launch of a run and what it took.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// The kernel's name.
    pub kernel: String,
    /// What it computes, as the compiler knows it.
    pub role: &'static str,
    /// The median over some runs, by the device's own clock where it has one.
    pub time: Duration,
    /// Multiplications and additions of its sums; other operations are not counted.
    pub flops: u64,
    /// Bytes of the buffers that it reads or writes, each once.
    pub bytes: u64,
    /// Loops and sums of its nests: `[64 x 56 x 56] sum [64 x 3 x 3]`.
    pub work: String,
    /// The buffers that it writes.
    pub writes: String,
    /// The model's nodes that it computes, or parts of which, in the model's order. Nodes that are equal to another one are
    /// computed with it.
    pub nodes: Vec<String>,
}

fn sizes(list: &[i64]) -> String {
    list.iter().map(i64::to_string).collect::<Vec<_>>().join(" x ")
}

/// Operations of a kernel's sums, and its loops as text.
fn work(report: &KernelReport) -> (u64, String) {
    let product = |list: &[i64]| list.iter().fold(1u64, |p, &s| p.saturating_mul(s.max(0) as u64));
    let (mut flops, mut text) = (0u64, Vec::new());
    for nest in &report.nests {
        let points = product(&nest.under).saturating_mul(product(&nest.loops));
        let mut line = match nest.under.is_empty() {
            true => format!("[{}]", sizes(&nest.loops)),
            false => format!("[{} | {}]", sizes(&nest.under), sizes(&nest.loops)),
        };
        if !nest.reduces.is_empty() {
            flops = flops.saturating_add(points.saturating_mul(product(&nest.reduces)).saturating_mul(2));
            line += &format!(" sum [{}]", sizes(&nest.reduces));
        }
        text.push(line);
    }
    (flops, text.join(", "))
}

/// Times each launch of a function, in `runs` runs.
pub(super) fn profile(function: &Function, args: &[&Tensor], runs: usize) -> Result<Vec<Launch>> {
    let mut buffers = function.buffers()?;
    let mut times: Vec<Vec<Duration>> = Vec::new();
    for _ in 0..runs.max(1) {
        let call = function.call_timed(args, &mut buffers.iter_mut().collect::<Vec<&mut TensorBuffer>>())?;
        times.resize(call.len(), vec![]);
        times.iter_mut().zip(call).for_each(|(list, time)| list.push(time));
    }
    let program = function.program();
    let reports = function.explanation().kernels.iter().filter(|k| !k.prepare);
    let mut launches = Vec::with_capacity(times.len());
    for ((step, report), mut times) in program.run.iter().zip(reports).zip(times) {
        times.sort_unstable();
        let (flops, work) = work(report);
        let code = program.kernels.get(step.kernel);
        let mut args = step.args.clone();
        args.sort_unstable();
        args.dedup();
        // A result in the place of an operand is read and written.
        let both = |(n, (_, d)): &(usize, (&usize, &MemoryDecl))| {
            d.written && code.is_some_and(|c| c.loads(Memory::Arg(*n as u32)))
        };
        let decls = step.args.iter().zip(code.into_iter().flat_map(|c| &c.args)).enumerate();
        args.extend(decls.filter(both).map(|(_, (&a, _))| a));
        let buffers = args.iter().filter_map(|&a| program.buffers.get(a));
        let written = step.args.iter().zip(code.into_iter().flat_map(|c| &c.args)).filter(|(_, d)| d.written);
        let writes: Vec<&str> = written.filter_map(|(&a, _)| program.buffers.get(a)).map(|b| b.name.as_str()).collect();
        launches.push(Launch {
            kernel: report.name.clone(),
            role: report.role.name(),
            time: times.get(times.len() / 2).copied().unwrap_or_default(),
            flops,
            bytes: buffers.map(|b| b.len.saturating_mul(b.dtype.size()) as u64).sum(),
            work,
            writes: writes.join(", "),
            nodes: report.serves.clone(),
        });
    }
    Ok(launches)
}
