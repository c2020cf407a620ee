//! The frame of a kernel on a CPU: its work items and its own memory.
//!
//! Each chain of grid loops at the top of a kernel is a *nest*; its iterations, the innermost loop fastest, are work
//! items. Several nests one after another concatenate. A kernel without grid loops is one item. `Let`s before the first
//! nest are computed once a call.

use super::RenderError;
use winograph_ir::int::Ints;
use winograph_ir::linear::{Access, Code, Instr, LoopKind, Memory, MemoryDecl, Stmt};
use winograph_ir::{IntId, RangeId};

/// Bytes of a kernel's own memory that go on the stack; what does not fit there goes to scratch memory.
pub const STACK_BYTES: usize = 64 << 10;

/// Alignment of each piece of a kernel's own memory.
pub const LOCAL_ALIGNMENT: usize = 64;

/// The work items of a kernel.
#[derive(Clone, Debug)]
pub struct Frame<'a> {
    /// Statements before the first nest; `Let`s alone.
    pub prefix: &'a [Stmt],
    /// The nests in order. A kernel without grid loops has one nest without ranges.
    pub nests: Vec<Nest<'a>>,
}

/// One chain of grid loops.
#[derive(Clone, Debug)]
pub struct Nest<'a> {
    /// The loops, outermost first.
    pub ranges: Vec<RangeId>,
    /// What an item does.
    pub body: &'a [Stmt],
}

impl<'a> Frame<'a> {
    /// Finds the nests. Grid loops next to other statements at the top are malformed.
    pub fn of(code: &'a Code) -> Result<Frame<'a>, RenderError> {
        let is_grid = |s: &Stmt| matches!(s, Stmt::Loop { kind: LoopKind::Grid, .. });
        if !code.body.iter().any(is_grid) {
            return Ok(Frame { prefix: &[], nests: vec![Nest { ranges: Vec::new(), body: &code.body }] });
        }
        let lets = code.body.iter().take_while(|s| matches!(s, Stmt::Let { .. })).count();
        let (prefix, rest) = code.body.split_at(lets);
        let mut nests = Vec::new();
        for stmt in rest {
            let mut stmt = stmt;
            let mut ranges = Vec::new();
            loop {
                let Stmt::Loop { range, kind: LoopKind::Grid, body } = stmt else {
                    return Err(RenderError::Malformed {
                        kernel: code.name.clone(),
                        what: "statements next to grid loops at the top".into(),
                    });
                };
                ranges.push(*range);
                match &body[..] {
                    [inner] if is_grid(inner) => stmt = inner,
                    _ => {
                        nests.push(Nest { ranges, body });
                        break;
                    }
                }
            }
        }
        Ok(Frame { prefix, nests })
    }
}

/// Where a local buffer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the stack.
    Stack,
    /// At an offset in bytes in the thread's scratch memory.
    Scratch(usize),
}

/// The place and the greatest length in elements of each of [`Code::locals`], and the bytes of scratch memory they
/// take.
pub fn place_locals(code: &Code) -> Result<(Vec<(Place, usize)>, usize), RenderError> {
    let mut out = Vec::with_capacity(code.locals.len());
    let (mut stack, mut scratch) = (0usize, 0usize);
    for m in &code.locals {
        let too_large = || RenderError::Unsupported {
            kernel: code.name.clone(),
            what: format!("local buffer {} of unbounded size", m.name),
        };
        let len = usize::try_from(code.ints.bounds(m.layout.len).1.max(1)).map_err(|_| too_large())?;
        let bytes = len.checked_mul(m.dtype.size()).filter(|&b| b <= 1 << 40).ok_or_else(too_large)?;
        let bytes = bytes.next_multiple_of(LOCAL_ALIGNMENT);
        if stack + bytes <= STACK_BYTES {
            stack += bytes;
            out.push((Place::Stack, len));
        } else {
            out.push((Place::Scratch(scratch), len));
            scratch += bytes;
        }
    }
    Ok((out, scratch))
}

/// Bytes of scratch memory, aligned to [`LOCAL_ALIGNMENT`], that each thread running a kernel must pass to it.
pub fn scratch_bytes(code: &Code) -> Result<usize, RenderError> {
    place_locals(code).map(|(_, bytes)| bytes)
}

/// Bytes of a kernel's own memory in one thread, on its stack or in scratch memory.
pub fn local_bytes(code: &Code) -> Result<usize, RenderError> {
    let (placed, _) = place_locals(code)?;
    let bytes =
        |(&(_, len), m): (&(Place, usize), &MemoryDecl)| (len * m.dtype.size()).next_multiple_of(LOCAL_ALIGNMENT);
    Ok(placed.iter().zip(&code.locals).map(bytes).fold(0, usize::saturating_add))
}

/// Which of [`Code::locals`] the statements touch.
pub fn used_locals(code: &Code, body: &[Stmt]) -> Vec<bool> {
    fn walk(body: &[Stmt], mark: &mut dyn FnMut(&Access)) {
        for s in body {
            match s {
                Stmt::Let { instr, .. } => {
                    instr.access().into_iter().chain(instr.tiles().iter().map(|t| &t.access)).for_each(&mut *mark)
                }
                Stmt::Store { access, .. } => mark(access),
                Stmt::Loop { body, .. } | Stmt::If { body, .. } | Stmt::Async { body } => walk(body, mark),
                _ => {}
            }
        }
    }
    let mut used = vec![false; code.locals.len()];
    walk(body, &mut |access| {
        if let Memory::Local(i) = access.mem
            && let Some(u) = used.get_mut(i as usize)
        {
            *u = true;
        }
    });
    used
}

/// The value of an expression of parameters alone; `None` on overflow or where it depends on anything else.
pub fn eval_params(code: &Code, e: IntId, params: &[i64]) -> Option<i64> {
    if params.len() != code.ints.params().len() || !code.ints.free_ranges(e).is_empty() {
        return None;
    }
    code.ints.eval(e, &|_| 0, &|p| params.get(p.0 as usize).copied().unwrap_or(0))
}

/// Number of work items of a kernel for given parameters, in the order of `Ints::params`. `None` where the parameters
/// are not as many as the code's, sizes overflow or the code is malformed.
pub fn grid_items(code: &Code, params: &[i64]) -> Option<i64> {
    let frame = Frame::of(code).ok()?;
    let mut total = 0i64;
    for nest in &frame.nests {
        let mut n = 1i64;
        for &r in &nest.ranges {
            n = n.checked_mul(eval_params(code, code.ints.size(r), params)?.max(0))?;
        }
        total = total.checked_add(n)?;
    }
    Some(total)
}

/// A rough count of the instructions that one work item executes, by which a runtime decides how many items to hand
/// out at a time and whether sleeping threads are worth waking. Loops count with their greatest sizes, lanes that lie
/// apart one by one; of several nests the dearest counts.
pub fn item_cost(code: &Code) -> u64 {
    fn walk(ints: &mut Ints, body: &[Stmt]) -> u64 {
        let mut sum = 0u64;
        for s in body {
            sum = sum.saturating_add(match s {
                Stmt::Let { instr: Instr::Const(_) | Instr::Index { .. }, .. } => 0,
                Stmt::Barrier(_) | Stmt::Wait(_) | Stmt::Prefetch { .. } => 0,
                Stmt::Async { body } => walk(ints, body),
                Stmt::Let { instr: Instr::Load { access, .. }, .. } | Stmt::Store { access, .. } => touch(ints, access),
                Stmt::Let { .. } | Stmt::Var { .. } | Stmt::Set { .. } => 1,
                Stmt::Loop { range, body, .. } => {
                    let trips = ints.max_size(*range).max(0) as u64;
                    walk(ints, body).saturating_add(1).saturating_mul(trips)
                }
                Stmt::If { body, .. } => walk(ints, body).saturating_add(1),
            });
        }
        sum
    }
    match Frame::of(code) {
        Ok(f) => f.nests.iter().map(|n| walk(&mut code.ints.clone(), n.body)).max().unwrap_or(0),
        Err(_) => 0,
    }
}

/// Instructions of a load or a store.
fn touch(ints: &mut Ints, access: &Access) -> u64 {
    let Some(lane) = access.lane else { return 1 };
    let gated = access.gate.iter().any(|&g| ints.depends_on(g, lane));
    match ints.split_linear(access.addr, lane) {
        Some((0 | 1, _)) => {
            if gated {
                4
            } else {
                1
            }
        }
        _ => ints.max_size(lane).max(1) as u64 + if gated { 4 } else { 0 },
    }
}
