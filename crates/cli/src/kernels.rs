//! What linear code says about a kernel's accesses.

use serde::Serialize;
use winograph_compiler::{Place, Program, Step};
use winograph_ir::indexed::{Role, Scope};
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
/// them.
pub(crate) fn touches(program: &Program, step: &Step) -> Vec<Touch> {
    let Some(code) = program.kernels.get(step.kernel) else { return vec![] };
    let mut ints = code.ints.clone();
    let mut out: Vec<Touch> = Vec::new();
    let mut add = |access: &Access, lanes: u32, kind: &'static str| {
        let (buffer, scope) = match access.mem {
            Memory::Arg(i) => {
                // Steps may share a kernel, so names come from the step's own buffers.
                let named = step.args.get(i as usize).and_then(|&b| program.buffers.get(b)).map(|b| b.name.clone());
                let decl = &code.args[i as usize];
                (named.unwrap_or_else(|| decl.name.clone()), decl.scope)
            }
            Memory::Local(i) => {
                let decl = &code.locals[i as usize];
                (decl.name.clone(), decl.scope)
            }
            Memory::Table(_) => return,
        };
        let neighbours = access.lane.is_some_and(|lane| matches!(ints.split_linear(access.addr, lane), Some((1, _))));
        let touch = Touch { buffer, kind, space: space(scope), vector: if neighbours { lanes } else { 1 } };
        if !out.contains(&touch) {
            out.push(touch);
        }
    };
    code.for_each_stmt(&mut |s| match s {
        Stmt::Let { reg, instr: Instr::Load { access, .. } } => add(access, code.ty(*reg).lanes, "load"),
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
        for (decl, &at) in code.args.iter().zip(&step.args) {
            if !decl.written {
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

/// Sizes of a kernel's parallel loops, outermost first.
pub(crate) fn grid(code: &Code) -> Vec<i64> {
    code.grid().into_iter().map(|size| code.ints.bounds(size).1).collect()
}
