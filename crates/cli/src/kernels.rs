//! What linear code says about a kernel's accesses.

use serde::Serialize;
use winograph_compiler::optimize::grid::GridReport;
use winograph_compiler::target::Gpu;
use winograph_compiler::{Place, Program, Step};
use winograph_ir::indexed::{Role, Scope};
use winograph_ir::interp::gpu::{GpuModel, SiteCounts, sites};
use winograph_ir::interp::sectors;
use winograph_ir::linear::{Access, Code, Instr, Memory, Stmt};

/// How a kernel touches a buffer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Touch {
    /// The buffer.
    pub(crate) buffer: String,
    /// `load` or `store`.
    pub(crate) kind: &'static str,
    /// Where the buffer is.
    pub(crate) space: &'static str,
    /// Elements that one access moves as a vector: lanes at neighbouring addresses; else 1.
    pub(crate) vector: u32,
    /// Whether whole vectors are stored past the caches.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) streamed: bool,
    /// What a launch on a GPU moves.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) moved: Option<Moved>,
}

impl std::fmt::Display for Touch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let elements = match self.vector {
            1 => "single elements".to_string(),
            n => format!("vectors of {n}"),
        };
        write!(f, "{} {} ({}) by {elements}", self.kind, self.buffer, self.space)?;
        if self.streamed {
            write!(f, ", past the caches")?;
        }
        let Some(m) = &self.moved else { return Ok(()) };
        match self.space {
            "global" => write!(
                f,
                ": {} requests move {} sectors, at least {} ({:.2} times)",
                m.requests,
                m.sectors,
                m.least_sectors,
                m.sectors as f64 / m.least_sectors.max(1) as f64
            ),
            _ => write!(f, ": {} requests, {} bank conflicts", m.requests, m.bank_conflicts),
        }
    }
}

/// What the accesses of one kind move in a launch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Moved {
    /// Warp-wide requests.
    pub(crate) requests: u64,
    /// Sectors of global memory.
    pub(crate) sectors: u64,
    /// The least sectors that could hold the bytes of each request.
    pub(crate) least_sectors: u64,
    /// Cycles beyond the first that the banks of shared memory need.
    pub(crate) bank_conflicts: u64,
}

impl Moved {
    fn of(c: &SiteCounts) -> Moved {
        Moved {
            requests: c.requests,
            sectors: c.sectors,
            least_sectors: c.least_sectors,
            bank_conflicts: c.bank_conflicts,
        }
    }
}

/// What a kernel's accesses move in a launch on a GPU, exactly; `None` where an address depends on data or there are too
/// many kinds of warps to go through.
pub(crate) fn counts(code: &Code, gpu: &Gpu) -> Option<Vec<SiteCounts>> {
    let params: Vec<i64> = code.ints.params().iter().map(|p| p.typical()).collect();
    sectors::count(code, &params, &model(gpu))
}

/// A GPU's memory as the interpreter sees it.
pub(crate) fn model(gpu: &Gpu) -> GpuModel {
    GpuModel { lanes: gpu.lanes as u32, sector_bytes: gpu.sector as u32, ..GpuModel::default() }
}

/// Name of a scope.
pub(crate) fn space(scope: Scope) -> &'static str {
    match scope {
        Scope::Register => "register",
        Scope::Scratch => "scratch",
        Scope::Shared => "shared",
        Scope::Global => "global",
    }
}

/// Every way in which a step touches its buffers, once each, in the order of the code. Constant tables are not among
/// them. `moved` says what each access moves, on a GPU.
pub(crate) fn touches(program: &Program, step: &Step, moved: Option<&[SiteCounts]>) -> Vec<Touch> {
    let Some(code) = program.kernels.get(step.kernel) else { return vec![] };
    let mut site = 0;
    let all = sites(code);
    let mut ints = code.ints.clone();
    let mut out: Vec<Touch> = Vec::new();
    let mut add = |access: &Access, lanes: u32, kind: &'static str| {
        let mine = moved.and_then(|m| m.get(site)).map(Moved::of);
        let together = all.get(site).map_or(1, |s| s.width);
        site += 1;
        let (buffer, scope, streamed) = match access.mem {
            Memory::Arg(i) => {
                // Steps may share a kernel, so names come from the step's own buffers.
                let named = step.args.get(i as usize).and_then(|&b| program.buffers.get(b)).map(|b| b.name.clone());
                let decl = &code.args[i as usize];
                (named.unwrap_or_else(|| decl.name.clone()), decl.scope, decl.streamed && kind == "store")
            }
            Memory::Local(i) => {
                let decl = &code.locals[i as usize];
                (decl.name.clone(), decl.scope, false)
            }
            Memory::Table(_) => return,
        };
        let neighbours = access.lane.is_some_and(|lane| matches!(ints.split_linear(access.addr, lane), Some((1, _))));
        // A GPU's vectors are aligned, a CPU's need not be.
        let vector = match moved {
            Some(_) => together,
            None if neighbours => lanes,
            None => 1,
        };
        let touch = Touch { buffer, kind, space: space(scope), vector, streamed, moved: None };
        let same = |t: &&mut Touch| Touch { moved: None, ..(*t).clone() } == touch;
        match (out.iter_mut().find(same), mine) {
            (Some(Touch { moved: Some(sum), .. }), Some(m)) => {
                sum.requests += m.requests;
                sum.sectors += m.sectors;
                sum.least_sectors += m.least_sectors;
                sum.bank_conflicts += m.bank_conflicts;
            }
            (Some(_), _) => {}
            (None, mine) => out.push(Touch { moved: mine, ..touch }),
        }
    };
    code.for_each_stmt(&mut |s| match s {
        Stmt::Let { reg, instr: Instr::Load { access, .. } | Instr::Rows { access, .. } } => {
            add(access, code.ty(*reg).lanes, "load")
        }
        Stmt::Store { access, value } => add(access, code.ty(*value).lanes, "store"),
        _ => {}
    });
    out
}

/// What the steps of `run` compute. The compiler knows this of the forms that it makes itself; of the tensor-level form
/// the flow of the data from the input and the weight tells.
pub(crate) fn roles(program: &Program, tensor_level: bool) -> Vec<&'static str> {
    let mut from: Vec<From> = program
        .buffers
        .iter()
        .map(|b| match b.place {
            Place::Argument(0) => From { x: true, ..From::default() },
            Place::Argument(_) | Place::Constant(_) | Place::Prepared(_) => From { w: true, ..From::default() },
            _ => From::default(),
        })
        .collect();
    let mut out = Vec::new();
    for step in &program.run {
        let Some(code) = program.kernels.get(step.kernel) else { continue };
        let mut all = From::default();
        for (n, (decl, &at)) in code.args.iter().zip(&step.args).enumerate() {
            // A result in the place of an operand is read, too.
            if !decl.written || code.loads(Memory::Arg(n as u32)) {
                all = From { x: all.x | from[at].x, w: all.w | from[at].w, product: all.product | from[at].product };
            }
        }
        let role = match all {
            From { product: true, x: false, w: false } => Role::OutputTransform,
            From { product: false, x: true, w: true } => Role::Multiply,
            From { product: false, x: true, w: false } => Role::InputTransform,
            From { product: false, x: false, w: true } => Role::WeightTransform,
            From { product: false, x: false, w: false } => Role::Other,
            From { product: true, .. } => Role::Fused,
        };
        if all.x && all.w {
            all = From { product: true, ..From::default() };
        }
        for (decl, &at) in code.args.iter().zip(&step.args) {
            if decl.written {
                from[at] = all;
            }
        }
        out.push(if tensor_level { role.name() } else { code.role.name() });
    }
    out
}

/// What a buffer's values come from.
#[derive(Clone, Copy, Default)]
struct From {
    x: bool,
    w: bool,
    product: bool,
}

/// What neighbouring blocks share, in words; `None` where an axis at most is cut into blocks.
pub(crate) fn block_order(grid: &GridReport) -> Option<String> {
    if grid.blocks.len() < 2 {
        return None;
    }
    let axes: Vec<String> = grid.blocks.iter().map(|(a, bytes)| format!("a{a} {bytes:.0}")).collect();
    Some(format!("bytes of loads that a block shares with its neighbour, slowest axis first: {}", axes.join(", ")))
}

/// Sizes of a kernel's thread loops, the slowest in the thread's number first; none on a CPU.
pub(crate) fn block(code: &Code) -> Vec<i64> {
    code.nest().map_or_else(Vec::new, |n| n.threads.iter().map(|&r| code.ints.max_size(r)).collect())
}

/// Sizes of a kernel's parallel loops, outermost first.
pub(crate) fn grid(code: &Code) -> Vec<i64> {
    code.grid().into_iter().map(|size| code.ints.bounds(size).1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use winograph_compiler::program::ProgramBuffer;
    use winograph_ir::DType;
    use winograph_ir::text::parse_linear;

    #[test]
    fn a_result_in_the_place_of_an_operand_comes_from_that_operand_too() {
        let kernel = |name: &str, other: &str, loaded: &str| {
            parse_linear(&format!(
                "kernel {name}
arg t: f32[4] output 0 global layout [0:1] len 4 written
arg {other}: f32[4] argument 0 global layout [0:1] len 4
body {{
  loop r0:4 grid {{
    %0: f32 = load {other}[r0] @ r0
    %1: f32 = load {loaded}[r0] @ r0
    %2: f32 = add %0, %1
    store %2, t[r0] @ r0
  }}
}}
"
            ))
            .unwrap()
        };
        let buffer = |name: &str, place| ProgramBuffer { name: name.to_string(), dtype: DType::F32, len: 4, place };
        let step = |kernel, args: [usize; 2]| Step { kernel, args: args.to_vec(), host: vec![] };
        let program = Program {
            kernels: vec![kernel("twice", "x", "x"), kernel("weigh", "w", "t")],
            buffers: vec![
                buffer("x", Place::Argument(0)),
                buffer("w", Place::Argument(1)),
                buffer("t", Place::Output(0)),
            ],
            prepare: vec![],
            run: vec![step(0, [2, 0]), step(1, [2, 1])],
            arena_bytes: 0,
            prepared_bytes: 0,
            prepare_arena_bytes: 0,
        };
        assert_eq!(roles(&program, true), [Role::InputTransform.name(), Role::Multiply.name()]);
    }
}
