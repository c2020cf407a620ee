//! A kernel's blocks, threads and memory of its own.

use crate::Target;
use crate::optimize::matrix_unit::from_shared;
use crate::render::RenderError;
use crate::render::frame::{Frame, Nest};
use winograph_ir::RangeId;
use winograph_ir::indexed::Scope;
use winograph_ir::linear::{Code, LoopKind, MAX_THREADS, SWIZZLE_BYTES, Stmt};

type Result<T> = std::result::Result<T, RenderError>;

/// Bytes of shared memory that a kernel may declare; more is asked for when it is launched.
const STATIC_SHARED: usize = 48 << 10;

/// Bytes of shared memory of a block, at most, for a target that is no GPU: those of compute capability 9.0.
const MAX_SHARED: usize = 227 << 10;

/// Bytes of a thread's own memory, at most.
const MAX_THREAD_BYTES: usize = 512 << 10;

/// Arrays of a thread up to so many bytes stay its own where the block has one thread.
const SMALL: usize = 1 << 10;

/// Alignment of pieces of shared memory.
const SHARED_ALIGNMENT: usize = 128;

/// Where a local buffer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::render) enum Home {
    /// In an array of each thread.
    Thread,
    /// In an array of the block.
    Shared,
    /// At an offset in bytes in the shared memory that a launch asks for.
    Dynamic(usize),
}

/// A kernel's blocks, threads and memory.
pub(in crate::render) struct Shape<'a> {
    /// `Let`s before the first nest.
    pub(in crate::render) prefix: &'a [Stmt],
    /// Nests of grid loops with what a block does in each, one after another in the numbers of blocks.
    pub(in crate::render) nests: Vec<Nest<'a>>,
    /// Thread loops with their sizes, outermost first.
    pub(in crate::render) threads: Vec<(RangeId, u32)>,
    /// Threads of a block.
    pub(in crate::render) count: u32,
    /// Place and length in elements of each local buffer.
    pub(in crate::render) locals: Vec<(Home, usize)>,
    /// Bytes of shared memory that a launch must ask for.
    pub(in crate::render) dynamic: usize,
    /// Blocks that registers are left for on a multiprocessor; 1 where nothing is known.
    pub(in crate::render) beside: u32,
}

impl<'a> Shape<'a> {
    /// Finds the loops that become blocks and threads, and places local buffers. Code with thread loops is one perfect
    /// nest; other code may have several nests, run by blocks of one thread.
    pub(in crate::render) fn of(code: &'a Code, target: &Target) -> Result<Shape<'a>> {
        let mut any = false;
        code.for_each_stmt(&mut |s| any |= matches!(s, Stmt::Loop { kind: LoopKind::Thread, .. }));
        if !any {
            let frame = Frame::of(code)?;
            let (locals, dynamic) = place(code, 1, target)?;
            return Ok(Shape {
                prefix: frame.prefix,
                nests: frame.nests,
                threads: vec![],
                count: 1,
                locals,
                dynamic,
                beside: 1,
            });
        }
        let Some(nest) = code.nest() else {
            return Err(RenderError::Malformed {
                kernel: code.name.clone(),
                what: "grid and thread loops are no perfect nest".into(),
            });
        };
        let most = target.gpu.as_ref().map_or(MAX_THREADS, |g| g.max_threads.min(MAX_THREADS as usize) as u32);
        let (mut threads, mut count) = (Vec::with_capacity(nest.threads.len()), 1u32);
        for r in nest.threads {
            let size = code.ints.const_size(r).and_then(|s| u32::try_from(s).ok()).filter(|&s| s >= 1);
            let all = size.and_then(|s| s.checked_mul(count)).filter(|&n| n <= most);
            let (Some(size), Some(all)) = (size, all) else {
                return Err(RenderError::Unsupported {
                    kernel: code.name.clone(),
                    what: format!("a block of other than 1 to {most} threads"),
                });
            };
            threads.push((r, size));
            count = all;
        }
        let (locals, dynamic) = place(code, count, target)?;
        let nests = vec![Nest { ranges: nest.grid, body: nest.body }];
        let shared = locals.iter().zip(&code.locals).filter(|(l, _)| l.0 != Home::Thread);
        let shared: usize = shared.map(|(l, m)| l.1.saturating_mul(m.dtype.size())).sum();
        let beside = beside(code, count, shared, target);
        Ok(Shape { prefix: &[], nests, threads, count, locals, dynamic, beside })
    }
}

/// Registers of a multiprocessor.
const REGISTERS: usize = 1 << 16;
/// Registers of a thread beside its results.
const OTHERS: usize = 56;

/// Results of a thread from which on registers, and not threads, say how many blocks there is room for.
const MANY: usize = 32;

/// Blocks of products of factors in shared memory that shared memory and registers have room for: while one waits for its
/// copies and products, another one runs.
fn beside(code: &Code, threads: u32, shared: usize, target: &Target) -> u32 {
    let results = match code.units.iter().find(|u| from_shared(u)) {
        Some(unit) => unit.c.elements() as usize,
        None if code.units.is_empty() && shared > 0 => accumulators(code),
        None => 0,
    };
    if results < MANY {
        return 1;
    }
    let most = target.gpu.as_ref().map_or(MAX_SHARED, |g| g.shared);
    let by_memory = (most + 1024) / (shared + 1024);
    let by_registers = REGISTERS / (threads.next_multiple_of(32) as usize * (results + OTHERS)).max(1);
    by_memory.min(by_registers).clamp(1, 8) as u32
}

/// Lanes of all variables.
fn accumulators(code: &Code) -> usize {
    let mut all = 0;
    code.for_each_stmt(&mut |s| {
        if let Stmt::Var { reg, .. } = s {
            all += code.regs.get(reg.0 as usize).map_or(0, |t| t.lanes as usize);
        }
    });
    all
}

fn place(code: &Code, threads: u32, target: &Target) -> Result<(Vec<(Home, usize)>, usize)> {
    let most = target.gpu.as_ref().map_or(MAX_SHARED, |g| g.shared);
    let unsupported = |what: String| RenderError::Unsupported { kernel: code.name.clone(), what };
    let mut sizes = Vec::with_capacity(code.locals.len());
    for m in &code.locals {
        let bytes = usize::try_from(code.ints.bounds(m.layout.len).1.max(1))
            .ok()
            .and_then(|len| {
                let alignment = if m.swizzle > 0 { SWIZZLE_BYTES as usize } else { SHARED_ALIGNMENT };
                Some((len, len.checked_mul(m.dtype.size())?.checked_next_multiple_of(alignment)?))
            })
            .filter(|&(_, bytes)| bytes <= most.max(MAX_THREAD_BYTES));
        let Some((len, bytes)) = bytes else {
            return Err(unsupported(format!("local buffer {} beyond shared and thread memory", m.name)));
        };
        sizes.push((m.scope, len, bytes));
    }
    let asked: usize = sizes.iter().filter(|s| s.0 == Scope::Shared).map(|s| s.2).sum();
    let (mut shared, mut own) = (asked, 0);
    let mut homes = Vec::with_capacity(sizes.len());
    for (m, &(scope, len, bytes)) in code.locals.iter().zip(&sizes) {
        let home = match scope {
            Scope::Shared => Home::Shared,
            // A block of one thread has the block's memory to itself.
            Scope::Register | Scope::Scratch
                if threads == 1 && bytes > SMALL && shared + bytes <= STATIC_SHARED.min(most) =>
            {
                shared += bytes;
                Home::Shared
            }
            Scope::Register | Scope::Scratch => {
                own += bytes;
                Home::Thread
            }
            Scope::Global => return Err(unsupported(format!("local buffer {} in global memory", m.name))),
        };
        homes.push((home, len));
    }
    if shared > most {
        return Err(unsupported(format!("{shared} bytes of shared memory where a block has at most {most}")));
    }
    if own > MAX_THREAD_BYTES {
        return Err(unsupported(format!("{own} bytes of memory of a thread, which has at most {MAX_THREAD_BYTES}")));
    }
    let swizzled = code.locals.iter().any(|m| m.swizzle > 0);
    if shared <= STATIC_SHARED && !swizzled {
        return Ok((homes, 0));
    }
    // What is swizzled comes first, at multiples of what swizzles permute.
    let mut at = 0;
    for first in [true, false] {
        for (((home, _), &(_, _, bytes)), m) in homes.iter_mut().zip(&sizes).zip(&code.locals) {
            if *home == Home::Shared && (m.swizzle > 0) == first {
                *home = Home::Dynamic(at);
                at += bytes;
            }
        }
    }
    Ok((homes, at))
}
