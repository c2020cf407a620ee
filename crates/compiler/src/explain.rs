//! What the compiler decided and why.

use crate::optimize::grid::GridReport;
use crate::optimize::plan::Plan;
use crate::schedule::fuse::Decision;
use crate::schedule::layout::Choice;
use crate::schedule::scope;
use crate::sketch::Sketch;
use crate::tune::{Problem, SumReport, Tuning};
use std::fmt;
use winograph_ir::indexed::Role;
use winograph_ir::rule::AxisTile;

/// Everything that was decided in one compilation.
#[derive(Clone, Debug, Default)]
pub struct Explanation {
    /// Passes in the order in which they ran.
    pub passes: Vec<PassReport>,
    /// Every sliding-window candidate and what became of it.
    pub windows: Vec<WindowReport>,
    /// Sums of products that are large enough to be tuned, and what was decided about each.
    pub sums: Vec<SumReport>,
    /// Stages kept or removed.
    pub stages: Vec<Decision>,
    /// Chains of kernels, and whether they became one launch.
    pub scopes: Vec<scope::Choice>,
    /// Layouts of the compiler's own buffers.
    pub layouts: Vec<Choice>,
    /// Kernels in program order: steps of `prepare`, then steps of `run`.
    pub kernels: Vec<KernelReport>,
}

impl Explanation {
    /// What became of the sum of products that a kernel computes, or computes a stage of.
    pub fn window(&self, kernel: &KernelReport) -> Option<&WindowReport> {
        let writes = |name: &String| kernel.nests.iter().any(|nest| nest.output == *name);
        let whole = self.windows.iter().find(|w| writes(&w.buffer));
        // The stage that writes the sum itself may be fused into what reads it.
        whole.or_else(|| self.windows.iter().find(|w| w.stages.iter().any(writes)))
    }

    /// `direct`, or `winograd` with its tile; nothing where no product is summed.
    pub fn algorithm(&self, kernel: &KernelReport) -> Option<String> {
        let has = |roles: &[Role]| kernel.nests.iter().any(|nest| roles.contains(&nest.role));
        match self.window(kernel) {
            Some(w) if w.applied => {
                let tile: Vec<String> = w.tile.iter().map(ToString::to_string).collect();
                Some(format!("winograd {}", tile.join("x")))
            }
            _ if has(&[Role::InputTransform, Role::Multiply, Role::OutputTransform]) => Some("winograd".to_string()),
            Some(_) => Some("direct".to_string()),
            None if has(&[Role::Direct]) => Some("direct".to_string()),
            None => None,
        }
    }
}

/// One pass.
#[derive(Clone, Debug)]
pub struct PassReport {
    /// Its name.
    pub name: &'static str,
    /// Time it took in microseconds, if the observer measures.
    pub micros: Option<f64>,
    /// What it left, if the observer asked for it.
    pub dump: Option<String>,
    /// What it left as a picture, if the observer asked for it; where a pass changes nothing that shows, there is none.
    pub sketch: Option<Sketch>,
}

/// What became of one reduction that multiplies.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowReport {
    /// The buffer whose definition holds it.
    pub buffer: String,
    /// Whether it was rewritten.
    pub applied: bool,
    /// Why.
    pub reason: String,
    /// The buffers of X̂, Ĝ and M̂, if rewritten: of each region.
    pub stages: Vec<String>,
    /// How each window axis is covered by tiles, if rewritten.
    pub tile: Vec<AxisTile>,
    /// Taps per window axis.
    pub taps: Vec<usize>,
    /// Multiplications and additions of it as a direct sum (with parameters: at their greatest sizes); 0 where it sums no
    /// products.
    pub flops: f64,
    /// Worst-case amplification of the tile's matrices relative to the direct sum, if rewritten.
    pub amplification: Option<f64>,
    /// The a-priori bound of its result, where it is a sum of products of floats.
    pub bound: Option<BoundReport>,
}

/// What `|error|` is at most, by data that are not known yet: `factor · unit_roundoff · formula`, and what underflow
/// adds. docs/winograd.md derives it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoundReport {
    /// c, from the roundings on a path from an input to an output.
    pub factor: f64,
    /// u of the dtype in which the sum is computed.
    pub unit_roundoff: f64,
    /// What c·u multiplies.
    pub formula: &'static str,
}

impl fmt::Display for BoundReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (c, u) = (self.factor, self.unit_roundoff.log2());
        write!(f, "|error| <= c·u·{} + underflow, with c = {c:.1} and u = 2^{u}", self.formula)
    }
}

/// One step of the program.
#[derive(Clone, Debug)]
pub struct KernelReport {
    /// The kernel's name.
    pub name: String,
    /// What it computes.
    pub role: Role,
    /// Place in the program's kernels.
    pub kernel: usize,
    /// Whether it runs once, in `prepare`.
    pub prepare: bool,
    /// Values of the loops of the host that repeat it, as in [`Step::host`](crate::Step::host).
    pub host: Vec<i64>,
    /// What the tensors were made for that it computes, as the tensor graph's notes call it: the nodes of a model.
    pub serves: Vec<String>,
    /// What runs in it, in order: one loop nest, or several under common loops.
    pub nests: Vec<NestReport>,
}

impl KernelReport {
    /// Whether it is the first of those that loops of the host repeat, or none of them.
    pub fn is_first(&self) -> bool {
        self.host.iter().all(|&n| n == 0)
    }
}

/// One loop nest of a kernel.
#[derive(Clone, Debug)]
pub struct NestReport {
    /// The number of the sum that it belongs to.
    pub sum: Option<usize>,
    /// Whether the plan is a stored one; where a stored one does not fit, why another took its place.
    pub stored: Option<Result<(), String>>,
    /// On a GPU, where its sum may be tuned: plans that it could have, those that are estimated to cost the least first.
    pub others: Vec<Plan>,
    /// Its name.
    pub name: String,
    /// What it computes.
    pub role: Role,
    /// The buffer it writes.
    pub output: String,
    /// Sizes of the common loops it sits under, outermost first.
    pub under: Vec<i64>,
    /// Its schedule.
    pub plan: Plan,
    /// Sizes of the plan's map axes `a0`, `a1`, ... (with parameters: at their greatest values).
    pub loops: Vec<i64>,
    /// Sizes of the plan's reduce axes `r0`, `r1`, ...
    pub reduces: Vec<i64>,
    /// Assignments of threads that were considered, on a GPU.
    pub grid: GridReport,
}

/// What a caller wants to know while compiling; all methods have empty defaults.
pub trait Observer {
    /// A clock in microseconds, if passes are to be timed.
    fn now(&mut self) -> Option<f64> {
        None
    }

    /// Whether the form after each pass is to be kept, as text and as a picture.
    fn wants_dumps(&self) -> bool {
        false
    }

    /// Threads that may work on kernels side by side. Their number changes nothing but time.
    fn workers(&self) -> usize {
        1
    }

    /// Whether sums are to be asked for, and to be told of in the explanation.
    fn has_tunings(&self) -> bool {
        false
    }

    /// What a search has found for a sum, or why what it left cannot be used; asked where the options leave tuning to the
    /// observer.
    fn tuning(&mut self, problem: &Problem) -> Option<Result<Tuning, String>> {
        let _ = problem;
        None
    }
}

/// An observer that wants nothing.
pub struct Silent;

impl Observer for Silent {}
