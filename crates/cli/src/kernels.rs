//! What linear code says about a kernel's accesses.

use serde::Serialize;
use winograph_compiler::{Program, Step};
use winograph_ir::indexed::Scope;
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

/// Sizes of a kernel's parallel loops, outermost first.
pub(crate) fn grid(code: &Code) -> Vec<i64> {
    code.grid().into_iter().map(|size| code.ints.bounds(size).1).collect()
}
