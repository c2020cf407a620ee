//! The object that `bench conv --json` prints, and what others have in common with it.

use crate::kernels::{self, Touch};
use serde::{Serialize, Serializer};
use winograph_compiler::{Footprint, Program, Step};
use winograph_ir::interp::gpu::SiteCounts;
use winograph_ir::rule::AxisTile;

/// Tiles per axis: a number each or, where an axis has tiles of several sizes, a text such as `4+2`.
pub(crate) fn tile<S: Serializer>(tile: &[AxisTile], to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Axis {
        One(usize),
        Several(String),
    }
    to.collect_seq(tile.iter().map(|t| t.single().map_or_else(|| Axis::Several(t.to_string()), Axis::One)))
}

/// The whole of it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) device: String,
    pub(crate) threads: usize,
    pub(crate) shape: Shape,
    /// Operations of the direct sum.
    pub(crate) flops: u64,
    pub(crate) results: Vec<Row>,
}

/// The convolution.
#[derive(Debug, Serialize)]
pub(crate) struct Shape {
    pub(crate) input: Vec<usize>,
    pub(crate) weight: Vec<usize>,
    pub(crate) stride: Vec<usize>,
    pub(crate) padding: Vec<usize>,
    pub(crate) dilation: Vec<usize>,
    pub(crate) groups: usize,
}

impl From<&crate::shapes::Case> for Shape {
    fn from(case: &crate::shapes::Case) -> Shape {
        Shape {
            input: case.input.clone(),
            weight: case.weight.clone(),
            stride: case.stride.clone(),
            padding: case.padding.clone(),
            dilation: case.dilation.clone(),
            groups: case.groups,
        }
    }
}

/// What a convolution takes on a CPU.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Memory {
    #[serde(skip)]
    threads: usize,
    /// Of one thread.
    scratch_bytes: usize,
    /// Between launches, for all threads: operands that they share among them.
    intermediate_bytes: usize,
    /// Input, output, prepared weights, intermediates and the scratch memory of all threads.
    peak_bytes: usize,
}

impl Memory {
    /// With so many bytes of input and output.
    pub(crate) fn new(held: &Footprint, io: usize, threads: usize) -> Memory {
        Memory {
            threads,
            scratch_bytes: held.scratch,
            intermediate_bytes: held.arena,
            peak_bytes: held.total(threads).saturating_add(io),
        }
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let s = if self.threads == 1 { "" } else { "s" };
        write!(f, "{} bytes of scratch memory a thread, ", self.scratch_bytes)?;
        if self.intermediate_bytes > 0 {
            write!(f, "{} bytes of intermediates that threads share, ", self.intermediate_bytes)?;
        }
        write!(f, "{} bytes in all ", self.peak_bytes)?;
        write!(f, "with input, output and {} thread{s}", self.threads)
    }
}

/// One algorithm. Numbers that are not finite become `null`.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) algo: &'static str,
    pub(crate) applied: bool,
    pub(crate) reason: String,
    #[serde(serialize_with = "tile")]
    pub(crate) tile: Vec<AxisTile>,
    pub(crate) compile_ms: f64,
    pub(crate) prepare_ms: f64,
    pub(crate) first_ms: f64,
    pub(crate) min_ms: f64,
    pub(crate) median_ms: f64,
    pub(crate) gflops: f64,
    pub(crate) max_abs_err: f64,
    pub(crate) rel_l2_err: f64,
    pub(crate) amplification: Option<f64>,
    /// The greatest a-priori bound of an element's error.
    pub(crate) error_bound: f64,
    pub(crate) max_err_over_bound: f64,
    pub(crate) expected_err_over_direct: f64,
    pub(crate) bitwise_equal_to_tensor: Option<bool>,
    /// What was allocated, on a CPU.
    #[serde(flatten)]
    pub(crate) memory: Option<Memory>,
    /// What became of stored plans.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) plans: Vec<String>,
    /// What `--search` tried and found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) search: Option<Search>,
    pub(crate) kernels: Vec<Kernel>,
}

/// What a search found.
#[derive(Debug, Serialize)]
pub(crate) struct Search {
    pub(crate) seconds: f64,
    /// Whether it found a plan that is faster than the heuristics' beyond the noise.
    pub(crate) found: bool,
    /// Time with the plan over the time with the heuristics', the median of the last comparison; 1 where it is theirs.
    pub(crate) time_over_heuristics: f64,
    /// The best plan as text, complete.
    pub(crate) plan: String,
    /// Files that hold it.
    pub(crate) stored: Vec<String>,
    /// Why it is not stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) not_stored: Option<String>,
    pub(crate) tried: Vec<Try>,
}

/// A candidate of a search.
#[derive(Debug, Serialize)]
pub(crate) struct Try {
    /// In what it differs from the best before it.
    pub(crate) change: String,
    /// `faster`, `not faster`, `same program`, `unfit`, `other bits` or `wrong`.
    pub(crate) outcome: &'static str,
    /// Why it is unfit or wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// Its time over that of the best before it, the median of some rounds; `null` where it was not timed.
    pub(crate) ratio: f64,
    pub(crate) rounds: usize,
}

/// One launch of each call. `explain --json` has the same entries with more in each.
#[derive(Debug, Serialize)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    pub(crate) role: &'static str,
    pub(crate) grid: Vec<i64>,
    /// Threads of a block, the slowest in their number first.
    pub(crate) block: Vec<i64>,
    /// Not a number where nothing was timed.
    pub(crate) time_us: f64,
    pub(crate) accesses: Vec<Touch>,
}

impl Kernel {
    /// The entry of a step; `counts` says what each of its accesses moves.
    pub(crate) fn new(
        program: &Program,
        step: &Step,
        role: &'static str,
        time_us: f64,
        counts: Option<&[SiteCounts]>,
    ) -> Option<Kernel> {
        let code = program.kernels.get(step.kernel)?;
        Some(Kernel {
            name: code.name.clone(),
            role,
            grid: kernels::grid(code),
            block: kernels::block(code),
            time_us,
            accesses: kernels::touches(program, step, counts),
        })
    }
}
