//! A kernel's blocks, threads and memory of its own.

use crate::render::RenderError;
use crate::render::frame::{Frame, Nest};
use winograph_ir::RangeId;
use winograph_ir::indexed::Scope;
use winograph_ir::linear::{Code, LoopKind, Stmt};

type Result<T> = std::result::Result<T, RenderError>;

/// Threads of a block, at most.
const MAX_THREADS: i64 = 1024;

/// Bytes of shared memory that a kernel may declare; more is asked for when it is launched.
const STATIC_SHARED: usize = 48 << 10;

/// Bytes of shared memory of a block, at most: those of compute capability 9.0. A device may have less; launching says
/// so.
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

/// A nest of grid loops with the threads that run an iteration of it.
pub(in crate::render) struct Block<'a> {
    /// Grid loops, outermost first.
    pub(in crate::render) grid: Vec<RangeId>,
    /// Thread loops with their sizes, outermost first.
    pub(in crate::render) threads: Vec<(RangeId, u32)>,
    /// Their product.
    pub(in crate::render) count: u32,
    /// What threads compute before the body; `Let`s alone.
    pub(in crate::render) lets: Vec<&'a [Stmt]>,
    /// What a thread does.
    pub(in crate::render) body: &'a [Stmt],
}

/// A kernel's blocks, threads and memory.
pub(in crate::render) struct Shape<'a> {
    /// `Let`s before the first nest.
    pub(in crate::render) prefix: &'a [Stmt],
    /// The nests, one after another in the numbers of blocks.
    pub(in crate::render) blocks: Vec<Block<'a>>,
    /// Threads of a block: as many as the nest with most of them needs.
    pub(in crate::render) threads: u32,
    /// Place and length in elements of each local buffer.
    pub(in crate::render) locals: Vec<(Home, usize)>,
    /// Bytes of shared memory that a launch must ask for.
    pub(in crate::render) dynamic: usize,
}

impl<'a> Shape<'a> {
    /// Finds the loops that become blocks and threads and places local buffers.
    pub(in crate::render) fn of(code: &'a Code) -> Result<Shape<'a>> {
        let frame = Frame::of(code)?;
        let blocks = frame.nests.iter().map(|n| block(code, n)).collect::<Result<Vec<_>>>()?;
        let threads = blocks.iter().map(|b| b.count).max().unwrap_or(1);
        let (locals, dynamic) = place(code, threads)?;
        Ok(Shape { prefix: frame.prefix, blocks, threads, locals, dynamic })
    }
}

fn block<'a>(code: &Code, nest: &Nest<'a>) -> Result<Block<'a>> {
    let mut out = Block { grid: nest.ranges.clone(), threads: vec![], count: 1, lets: vec![], body: nest.body };
    loop {
        let lets = out.body.iter().take_while(|s| matches!(s, Stmt::Let { .. })).count();
        let (before, rest) = out.body.split_at(lets);
        let [Stmt::Loop { range, kind: LoopKind::Thread, body }] = rest else { return Ok(out) };
        let size = code.ints.const_size(*range).filter(|&s| s >= 1);
        let count = size.and_then(|s| s.checked_mul(out.count as i64)).filter(|&n| n <= MAX_THREADS);
        let (Some(size), Some(count)) = (size, count) else {
            return Err(RenderError::Unsupported {
                kernel: code.name.clone(),
                what: format!("a block of other than 1 to {MAX_THREADS} threads"),
            });
        };
        out.threads.push((*range, size as u32));
        out.count = count as u32;
        out.lets.push(before);
        out.body = body;
    }
}

fn place(code: &Code, threads: u32) -> Result<(Vec<(Home, usize)>, usize)> {
    let unsupported = |what: String| RenderError::Unsupported { kernel: code.name.clone(), what };
    let mut sizes = Vec::with_capacity(code.locals.len());
    for m in &code.locals {
        let bytes = usize::try_from(code.ints.bounds(m.layout.len).1.max(1))
            .ok()
            .and_then(|len| Some((len, len.checked_mul(m.dtype.size())?.checked_next_multiple_of(SHARED_ALIGNMENT)?)))
            .filter(|&(_, bytes)| bytes <= MAX_SHARED.max(MAX_THREAD_BYTES));
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
            Scope::Register | Scope::Scratch if threads == 1 && bytes > SMALL && shared + bytes <= STATIC_SHARED => {
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
    if shared > MAX_SHARED {
        return Err(unsupported(format!("{shared} bytes of shared memory where a block has at most {MAX_SHARED}")));
    }
    if own > MAX_THREAD_BYTES {
        return Err(unsupported(format!("{own} bytes of memory of a thread, which has at most {MAX_THREAD_BYTES}")));
    }
    if shared <= STATIC_SHARED {
        return Ok((homes, 0));
    }
    let mut at = 0;
    for ((home, _), &(_, _, bytes)) in homes.iter_mut().zip(&sizes) {
        if *home == Home::Shared {
            *home = Home::Dynamic(at);
            at += bytes;
        }
    }
    Ok((homes, at))
}
