//! From a kernel whose factors a workgroup stages in shared memory to linear code.
//!
//! Takes a scheduled kernel that sums products along a reduce range in chunks; leaves code in which the threads of a
//! workgroup copy what all of them need of both factors for a chunk into shared memory, neighbours in memory by
//! neighbouring threads and 16 bytes at a time where that fits, and compute from there: each thread for itself, or a
//! warp on a matrix unit ([`matrix`](super::matrix)). Barriers follow from dependence.

use super::barriers;
use super::emit::{self, Emit, loops};
use super::rows;
use crate::optimize::matrix_unit::{factors, from_shared, product};
use crate::optimize::plan::{Scheduled, SharedRanges};
use winograph_ir::Scalar;
use winograph_ir::indexed::{BufId, Buffer, Graph, Layout, LayoutDim, Origin, Scope, Source, Val, ValId};
use winograph_ir::int::{IntId, Ints, RangeId, RangeRole};
use winograph_ir::linear::{Access, Code, Memory, SWIZZLE_BYTES, Stmt, TILE_ROW};

/// Bytes of the widest access.
const WIDE: i64 = 16;
/// Bytes of the smallest asynchronous copy.
const COPIED: usize = 4;
/// Words of 4 bytes between rows that the lanes of a matrix unit read from all banks at once, beyond a multiple of 32.
const APART: i64 = 8;

/// One factor in shared memory.
pub(super) struct Stage {
    /// In the rewritten kernel's graph.
    buffer: BufId,
    /// What is copied.
    value: ValId,
    /// The ranges that index it, with their sizes, in the order in which a copy counts them: the fastest first.
    dims: Vec<(RangeId, i64)>,
    /// The same ranges as the buffer's axes.
    axes: Vec<RangeId>,
    /// Whether neighbours of the fastest range are neighbours in global memory.
    contiguous: bool,
    /// Whether their first one lies at a multiple of the widest access.
    aligned: bool,
    /// Bytes of a row of terms, where rows are swizzled; else 0.
    swizzle: u32,
    /// What a workgroup copies only once from, each element.
    once: Vec<BufId>,
}

/// Bytes of shared memory that the stages of a scheduled kernel take.
pub fn bytes(scheduled: &Scheduled) -> usize {
    let mut s = scheduled.clone();
    let Some(ranges) = s.shared.clone() else { return 0 };
    let stages = stage(&mut s, &ranges);
    let g = &s.kernel.graph;
    let size = |b: BufId| g.buffer(b).layout.as_ref().map_or(0, |l| g.ints.bounds(l.len).1.max(0) as usize);
    stages.iter().map(|t| size(t.buffer) * g.buffer(t.buffer).dtype.size()).sum()
}

/// Whether a scheduled kernel's factors lie in shared memory as a unit reads them that does so itself.
pub fn is_tiled(scheduled: &Scheduled) -> bool {
    let mut s = scheduled.clone();
    let Some(ranges) = s.shared.clone() else { return false };
    let stages = stage(&mut s, &ranges);
    stages.len() == 2 && stages.iter().all(|t| t.swizzle as usize == TILE_ROW)
}

/// Lowers a scheduled kernel with staged factors.
pub fn lower(scheduled: &Scheduled, ranges: &SharedRanges, name: String) -> Code {
    let mut s = scheduled.clone();
    let stages = stage(&mut s, ranges);
    let mut e = Emit::new(&s);
    let mut copies = Some(copies(&mut e, &stages, ranges, &s.thread));
    e.set_lane(s.lane, s.lane.and_then(|l| e.g.ints.const_size(l)).unwrap_or(1) as u32);
    let nest = loops(&s, &[]);
    for _ in &nest {
        e.push();
    }
    e.stores(&s);
    e.close(&nest);
    let mut code = e.finish(&s, name.clone());
    put_in_front(&mut code.body, ranges.outer, &mut copies);
    if copies.is_some() {
        // No loop to put them into: the kernel as it was computes the same.
        let plain = Scheduled { shared: None, ..scheduled.clone() };
        return emit::lower(&plain, name);
    }
    own(&mut code, &stages);
    code
}

/// What begins the loop over chunks and each of its iterations.
pub(super) struct Copies {
    before: Vec<Stmt>,
    inside: Vec<Stmt>,
}

/// The copies of the threads that have these ranges, the slowest first. With one stage an iteration copies its chunk; with
/// more it begins to copy a later one and waits for its own.
pub(super) fn copies(e: &mut Emit, stages: &[Stage], ranges: &SharedRanges, threads: &[RangeId]) -> Copies {
    let threads: Vec<(RangeId, i64)> = threads.iter().map(|&r| (r, e.g.ints.const_size(r).unwrap_or(1))).collect();
    let count = e.g.ints.size(ranges.outer);
    let all = |e: &mut Emit, chunk: IntId| {
        e.push();
        // A chunk that there is not is not copied; that its number is one of a chunk wherever it is taken apart makes every
        // index provable.
        let within = if ranges.stages < 2 { chunk } else { e.g.ints.rem(chunk, count) };
        stages.iter().for_each(|t| copy(e, t, &threads, (ranges.outer, within), (chunk, ranges.stages)));
        e.pop()
    };
    let number = e.g.ints.range(ranges.outer);
    if ranges.stages < 2 {
        return Copies { before: Vec::new(), inside: all(e, number) };
    }
    let begun = |e: &mut Emit, chunk: IntId| {
        let room = e.g.ints.sum(&[(count, 1), (chunk, -1)], -1);
        if e.g.ints.bounds(room).1 < 0 {
            return Stmt::Async { body: Vec::new() };
        }
        let body = all(e, chunk);
        let body = match e.g.ints.prove_nonneg(room, &[]) {
            true => body,
            false => vec![Stmt::If { gate: [room].into(), body }],
        };
        Stmt::Async { body }
    };
    let ahead = ranges.stages - 1;
    let before = (0..ahead)
        .map(|n| {
            let chunk = e.g.ints.constant(n);
            begun(e, chunk)
        })
        .collect();
    let later = e.g.ints.add_const(number, ahead);
    let inside = vec![Stmt::Wait(ahead as u32 - 1), begun(e, later)];
    Copies { before, inside }
}

/// Makes the last arguments, which are `stages`, memory of the workgroup's own, and places the barriers.
pub(super) fn own(code: &mut Code, stages: &[Stage]) {
    let first = code.args.len() - stages.len();
    let place = code.locals.len() as u32;
    code.locals.extend(code.args.split_off(first));
    code.locals.iter_mut().for_each(|l| l.written = true);
    code.locals.iter_mut().skip(place as usize).zip(stages).for_each(|(l, t)| l.swizzle = t.swizzle);
    for b in stages.iter().flat_map(|t| &t.once) {
        code.args[b.0 as usize].streamed = true;
    }
    to_locals(&mut code.body, first as u32, place);
    barriers::place(code);
}

/// Gives the kernel shared buffers for its factors and reads them from there.
pub(super) fn stage(s: &mut Scheduled, ranges: &SharedRanges) -> Vec<Stage> {
    let Some(p) = product(&s.kernel) else { return Vec::new() };
    let mut inside: Vec<RangeId> = vec![ranges.chunk];
    inside.extend(s.thread.iter().chain(&s.unroll).chain(&s.lane));
    let matrix = s.matrix.clone();
    let mut values = p.factors;
    if let Some(m) = &matrix {
        inside.extend([m.k, m.row, m.col]);
        if let Ok(raw) = factors(&s.kernel, &m.unit, m.row, m.col) {
            values = raw;
        }
    }
    let is_term = |r: RangeId| r == ranges.chunk || matrix.as_ref().is_some_and(|m| m.k == r);
    let mut terms = s.kernel.reduce_ranges();
    terms.extend(matrix.iter().map(|m| m.k).chain([ranges.chunk, ranges.outer]));
    let results: Vec<RangeId> = inside.iter().copied().filter(|r| !terms.contains(r)).collect();
    let mut out: Vec<Stage> = Vec::new();
    for (side, value) in values.into_iter().enumerate() {
        let k = &mut s.kernel;
        let mut staged = inside.iter().filter(|&&r| is_term(r));
        if !staged.any(|&r| k.graph.depends_on(value, r)) || out.iter().any(|t| t.value == value) {
            continue;
        }
        let address = address(k, value);
        let steps = address.map_or_else(Vec::new, |a| address_steps(&mut k.graph.ints, a, &inside));
        let mut axes: Vec<RangeId> = inside.iter().copied().filter(|&r| k.graph.depends_on(value, r)).collect();
        let step = |r: RangeId| steps.iter().find(|x| x.0 == r).map_or(i64::MAX, |x| x.1);
        let size = |r: RangeId| k.graph.ints.const_size(r).unwrap_or(1);
        let mut dims: Vec<(RangeId, i64)> = axes.iter().map(|&r| (r, size(r))).collect();
        dims.sort_by_key(|d| step(d.0));
        let contiguous = dims.first().is_some_and(|d| step(d.0) == 1);
        let along_terms = contiguous && dims.first().is_some_and(|d| is_term(d.0));
        // As in global memory, but for the terms: a thread walks along them and takes lanes at once; a matrix unit takes
        // neighbours of whichever are neighbours in global memory.
        let terms_last = matrix.is_some() && along_terms;
        axes.sort_by_key(|&r| (is_term(r) == terms_last, s.lane == Some(r), std::cmp::Reverse(step(r))));
        let dtype = k.graph.dtype(value);
        let wide = WIDE / dtype.size().max(1) as i64;
        let first = dims.first().zip(address).and_then(|(d, a)| k.graph.ints.split_linear(a, d.0));
        let aligned = first.is_some_and(|(_, rest)| k.graph.ints.divisor(rest).is_multiple_of(wide as u64));
        let ints = &mut k.graph.ints;
        let row = dims.iter().filter(|d| is_term(d.0)).map(|d| d.1).product::<i64>() * dtype.size() as i64;
        let by_rows = matrix.as_ref().is_some_and(|m| match side {
            _ if from_shared(&m.unit) => true,
            0 => rows::fits(&m.unit.a, true),
            _ => rows::fits(&m.unit.b, false),
        });
        // Rows of other lengths are kept apart by padding.
        let swizzle = if by_rows && terms_last && matches!(row, 64 | 128) { row as u32 } else { 0 };
        let (mut stride, mut layout) = (1i64, Vec::new());
        for (axis, &r) in axes.iter().enumerate().rev() {
            let after = axes.get(axis + 1).copied();
            if matrix.is_some() && after.is_some_and(|a| is_term(a) != is_term(r)) {
                // Lanes of a unit read a few terms of several rows.
                let words = 32 * 4 / dtype.size().max(1) as i64;
                stride += if swizzle > 0 {
                    0
                } else if terms_last {
                    wide
                } else {
                    (APART * words / 32 - stride).rem_euclid(words)
                };
            } else if matrix.is_none() && axis == 0 && dims.first().is_some_and(|d| is_term(d.0)) {
                // Threads that copy along the chunk would all write to one bank.
                stride += wide;
            }
            layout.push(LayoutDim { axis, div: 1, modulus: None, stride: ints.constant(stride) });
            stride *= ints.const_size(r).unwrap_or(1);
        }
        layout.reverse();
        let mut shape: Vec<IntId> = axes.iter().map(|&r| ints.size(r)).collect();
        let mut index: Vec<IntId> = axes.iter().map(|&r| ints.range(r)).collect();
        // A chunk's place among those that are there at a time.
        let multiple = if swizzle > 0 { SWIZZLE_BYTES as i64 / dtype.size().max(1) as i64 } else { wide };
        let step = (stride + multiple - 1) / multiple * multiple;
        let mut len = if swizzle > 0 { step } else { stride };
        if ranges.stages > 1 {
            len = step * ranges.stages;
            layout.insert(0, LayoutDim { axis: axes.len(), div: 1, modulus: None, stride: ints.constant(step) });
            shape.push(ints.constant(ranges.stages));
            let number = ints.range(ranges.outer);
            index.push(ints.rem_const(number, ranges.stages));
        }
        let len = ints.constant(len);
        let buffer = k.graph.add_buffer(Buffer {
            name: format!("stage{}", out.len()),
            dtype,
            shape,
            origin: Origin::Internal,
            scope: Scope::Shared,
            layout: Some(Layout { dims: layout, len }),
        });
        let once = copied_once(&k.graph, value, &terms, &results);
        out.push(Stage { buffer, value, dims, axes, contiguous, aligned, swizzle, once });
        let load = k.graph.load(Source::Buffer(buffer), &index, &[], Scalar::zero(dtype));
        let mut memo = rustc_hash::FxHashMap::from_iter([(value, load)]);
        for n in 0..k.stores.len() {
            k.stores[n].value = k.graph.rebuild(k.stores[n].value, &mut memo, &mut |g, v| g.add(v));
        }
    }
    out
}

/// The buffers of which a workgroup reads each element for one term alone: along each axis the value moves with the terms or with the
/// workgroup's results, not with both, as the taps of a window do.
fn copied_once(g: &Graph, value: ValId, terms: &[RangeId], results: &[RangeId]) -> Vec<BufId> {
    let mixed = |&e: &IntId| {
        let moves = |list: &[RangeId]| list.iter().any(|&r| g.ints.depends_on(e, r));
        moves(terms) && moves(results)
    };
    let loads = g.topological(&[value]).into_iter().filter_map(|v| match g.val(v) {
        Val::Load { src: Source::Buffer(b), index, .. } => Some((*b, index.iter().any(mixed))),
        _ => None,
    });
    let (again, once): (Vec<_>, Vec<_>) = loads.partition(|l| l.1);
    once.into_iter().map(|l| l.0).filter(|b| again.iter().all(|l| l.0 != *b)).collect()
}

/// Where a value's first load reads.
fn address(k: &mut crate::kernel::Kernel, value: ValId) -> Option<IntId> {
    let loads = k.graph.topological(&[value]).into_iter().find_map(|v| match k.graph.val(v) {
        Val::Load { src: Source::Buffer(b), index, .. } => Some((*b, index.clone())),
        _ => None,
    });
    let (b, index) = loads?;
    let layout = k.graph.buffer(b).layout.clone()?;
    Some(k.graph.flatten(&layout, &index))
}

/// How far an address moves in memory with each range, where that is known.
fn address_steps(ints: &mut Ints, address: IntId, ranges: &[RangeId]) -> Vec<(RangeId, i64)> {
    let step = |&r: &RangeId| match ints.split_linear(address, r) {
        Some((c, _)) if c != 0 => Some((r, c.abs())),
        _ => None,
    };
    ranges.iter().filter_map(step).collect()
}

/// The copy of one factor's chunk, whose number takes the place of the loop over chunks, by all threads. Its turn among
/// the chunks says where it lies.
fn copy(
    e: &mut Emit,
    t: &Stage,
    threads: &[(RangeId, i64)],
    (outer, chunk): (RangeId, IntId),
    (turn, stages): (IntId, i64),
) {
    let all: i64 = threads.iter().map(|x| x.1).product();
    let total: i64 = t.dims.iter().map(|d| d.1).product();
    let most = WIDE / e.g.dtype(t.value).size().max(1) as i64;
    let copied = e.g.dtype(t.value).size() >= COPIED;
    // An asynchronous copy moves what is contiguous on both sides.
    let apart = stages > 1 && t.axes.last() != t.dims.first().map(|d| &d.0);
    // What does not go by vectors is taken in turn by neighbouring threads, one element each.
    let wide = t.contiguous && t.dims[0].1 % most == 0 && !(copied && (apart || !t.aligned));
    let width = if wide { most } else { 1 };
    let lane = wide.then(|| {
        let size = e.g.ints.constant(width);
        e.g.ints.new_range(size, RangeRole::Map)
    });
    e.set_lane(lane, width as u32);
    let mut thread = e.g.ints.constant(0);
    for &(r, n) in threads {
        let scaled = e.g.ints.scale(thread, n);
        let r = e.g.ints.range(r);
        thread = e.g.ints.add(scaled, r);
    }
    let units = total / width;
    for pass in 0..(units + all - 1) / all {
        let number = e.g.ints.add_const(thread, pass * all);
        let inside = e.g.ints.sum(&[(number, -1)], units - 1);
        let some = (pass + 1) * all > units;
        if some {
            e.push();
        }
        let mut rest = number;
        let mut places: Vec<(RangeId, IntId)> = Vec::new();
        for (n, &(r, size)) in t.dims.iter().enumerate() {
            let size = if n == 0 { size / width } else { size };
            let mut place = e.g.ints.rem_const(rest, size);
            rest = e.g.ints.div_const(rest, size);
            if let (0, Some(lane)) = (n, lane) {
                let l = e.g.ints.range(lane);
                place = e.g.ints.sum(&[(place, width), (l, 1)], 0);
            }
            places.push((r, place));
        }
        places.push((outer, chunk));
        let at = |r: RangeId| places.iter().find(|p| p.0 == r).map(|p| p.1);
        let value = e.g.substitute(t.value, &at);
        let mut index: Vec<IntId> = t.axes.iter().filter_map(|&r| at(r)).collect();
        if stages > 1 {
            index.push(e.g.ints.rem_const(turn, stages));
        }
        let reg = e.eval(value);
        let reg = e.widen(reg, width as u32);
        // Places are linear in the lane: it counts within one range.
        if let Some(access) = e.access(Source::Buffer(t.buffer), &index, &[], lane) {
            e.stmt(Stmt::Store { access, value: reg });
        }
        if some {
            let body = e.pop();
            e.stmt(Stmt::If { gate: [inside].into(), body });
        }
    }
}

/// Puts copies in front of the loop over a range and of its body; they are taken where there is such a loop.
pub(super) fn put_in_front(body: &mut Vec<Stmt>, range: RangeId, copies: &mut Option<Copies>) {
    let mut at = 0;
    while at < body.len() {
        match &mut body[at] {
            Stmt::Loop { range: r, body: inner, .. } if *r == range => {
                if let Some(Copies { before, inside }) = copies.take() {
                    inner.splice(0..0, inside);
                    body.splice(at..at, before);
                }
                return;
            }
            Stmt::Loop { body, .. } | Stmt::If { body, .. } => put_in_front(body, range, copies),
            _ => {}
        }
        at += 1;
    }
}

/// Arguments from `first` on are memory of the kernel's own.
fn to_locals(body: &mut [Stmt], first: u32, place: u32) {
    let own = |a: &mut Access| {
        if let Memory::Arg(n) = a.mem
            && n >= first
        {
            a.mem = Memory::Local(n - first + place);
        }
    };
    for s in body {
        match s {
            Stmt::Let { instr, .. } => instr.accesses_mut().into_iter().for_each(own),
            Stmt::Store { access, .. } => own(access),
            Stmt::Loop { body, .. } | Stmt::If { body, .. } | Stmt::Async { body } => to_locals(body, first, place),
            _ => {}
        }
    }
}
