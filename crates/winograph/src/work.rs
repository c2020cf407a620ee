//! What launches compute, as profiles tell it. Of a program that was compiled elsewhere there is nothing else than what its
//! file says.

use serde::{Deserialize, Serialize};
use winograph_compiler::Program;
use winograph_compiler::explain::{Explanation, KernelReport};
use winograph_compiler::program::{Place, ProgramBuffer, Step};
use winograph_ir::linear::Memory;

/// What is known of a launch beside its kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Work {
    /// Loops and sums of its nests: `[64 x 56 x 56] sum [64 x 3 x 3]`.
    pub(crate) nests: String,
    /// Multiplications and additions of its sums.
    pub(crate) flops: u64,
    /// `direct`, or `winograd` with its tile; nothing where no product is summed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) algorithm: Option<String>,
    /// Of the rounding errors by the rewrite, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) amplification: Option<f64>,
    /// The model's nodes that it computes, or parts of which.
    pub(crate) nodes: Vec<String>,
    /// What it does with each of its arguments.
    pub(crate) access: Vec<Access>,
}

/// What a launch does with the memory of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Access {
    #[serde(rename = "r")]
    Read,
    #[serde(rename = "w")]
    Written,
    /// A result in the place of an operand.
    #[serde(rename = "rw")]
    Both,
}

impl Work {
    /// That of each launch of a program, one after another; `None` where the explanation is not the program's.
    pub(crate) fn of(program: &Program, explanation: &Explanation) -> Option<Vec<Work>> {
        let reports: Vec<&KernelReport> = explanation.kernels.iter().filter(|k| !k.prepare).collect();
        let work = |(step, report): (&Step, &&KernelReport)| {
            let code = program.kernels.get(step.kernel)?;
            let access = code.args.iter().enumerate().map(|(n, decl)| match decl.written {
                true if code.loads(Memory::Arg(n as u32)) => Access::Both,
                true => Access::Written,
                false => Access::Read,
            });
            let (flops, nests) = sums(report);
            Some(Work {
                nests,
                flops,
                algorithm: explanation.algorithm(report),
                amplification: explanation.window(report).filter(|w| w.applied).and_then(|w| w.amplification),
                nodes: report.serves.clone(),
                access: access.collect(),
            })
        };
        (reports.len() == program.run.len()).then(|| program.run.iter().zip(&reports).map(work).collect()).flatten()
    }

    /// Whether it can be what a launch does; the error says what is wrong.
    pub(crate) fn check(&self, step: &Step, buffers: &[ProgramBuffer]) -> Result<(), String> {
        if self.access.len() != step.args.len() {
            return Err(format!("it tells of {} arguments where there are {}", self.access.len(), step.args.len()));
        }
        let inputs = self.buffers(step, buffers).find(|(access, buffer)| {
            *access != Access::Read && !matches!(buffer.place, Place::Output(_) | Place::Arena(_))
        });
        if let Some((_, buffer)) = inputs {
            return Err(format!("it writes {:?}, which is neither a result nor an intermediate", buffer.name));
        }
        if self.amplification.is_some_and(|a| !(a.is_finite() && a >= 0.0)) {
            return Err("its amplification is none".to_string());
        }
        Ok(())
    }

    /// The buffers of the launch's arguments, and what it does with them.
    pub(crate) fn buffers<'a>(
        &'a self,
        step: &'a Step,
        buffers: &'a [ProgramBuffer],
    ) -> impl Iterator<Item = (Access, &'a ProgramBuffer)> {
        self.access.iter().zip(&step.args).filter_map(|(&access, &at)| Some((access, buffers.get(at)?)))
    }
}

fn sizes(list: &[i64]) -> String {
    list.iter().map(i64::to_string).collect::<Vec<_>>().join(" x ")
}

/// Operations of a kernel's sums, and its loops as text.
fn sums(report: &KernelReport) -> (u64, String) {
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
