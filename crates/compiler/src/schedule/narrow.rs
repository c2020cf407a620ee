//! Narrowing: stages move under loops of their reader.
//!
//! Takes a chain of kernels, each of which but the last writes a buffer that only later ones read, and blocks of axes of
//! the last one; leaves the same kernels under common loops over the blocks, with their buffers shrunk to what one block
//! needs, its footprint: where a reader's index is `s * block + e` with `lo <= e <= hi`, the writer's axis keeps
//! `hi - lo + 1` values from `s * block + lo` on. Nothing about the values changes; where footprints overlap, elements
//! are computed more than once.

use crate::kernel::{Kernel, Launch, with_bounds};
use rustc_hash::FxHashMap;
use winograph_ir::indexed::{BufId, Scope, Source, Val};
use winograph_ir::int::{IntId, RangeId};
use winograph_ir::linear::LoopKind;

/// A block of an axis of a chain's last kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Place among the kernel's loops.
    pub axis: usize,
    /// Values in a block.
    pub size: i64,
    /// How blocks are run.
    pub kind: LoopKind,
}

/// Why a chain cannot be narrowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NarrowError(String);

impl NarrowError {
    pub(super) fn new(why: impl Into<String>) -> NarrowError {
        NarrowError(why.into())
    }
}

fn no<T>(why: impl Into<String>) -> Result<T, NarrowError> {
    Err(NarrowError::new(why))
}

/// Narrows `chain`, places in `kernels` of writers before readers, to blocks of its last kernel, outermost first. On
/// an error nothing has changed.
pub fn narrow(kernels: &mut [Kernel], chain: &[usize], blocks: &[Block]) -> Result<Launch, NarrowError> {
    let Some((&last, writers)) = chain.split_last() else { return no("an empty chain") };
    let mut parts: Vec<Kernel> = chain.iter().map(|&n| kernels[n].clone()).collect();
    let mut kinds = Vec::new();
    let at = parts.len() - 1;
    // Conditions under which nothing of a kernel is stored, so that what it loads is of no consequence.
    let mut guards: Vec<Vec<IntId>> = vec![Vec::new(); parts.len()];
    guards[at] = cut(&mut parts[at], blocks, &mut kinds)?;
    // Grid loops are around everything: what does not use one is repeated under it.
    let grids = kinds.iter().filter(|k| **k == LoopKind::Grid).count();
    for n in (0..writers.len()).rev() {
        let (before, after) = parts.split_at_mut(n + 1);
        let outside = |k: usize, kernel: &Kernel, buffer: BufId| !chain.contains(&k) && kernel.args.contains(&buffer);
        let writer = &mut before[n];
        let Some(buffer) = written(writer) else { return no("a writer of several buffers") };
        if let Some(k) = (0..kernels.len()).find(|&k| outside(k, &kernels[k], buffer)) {
            return no(format!("kernel {k} outside of the chain reads the buffer too"));
        }
        let (own, others) = guards.split_at_mut(n + 1);
        own[n] = narrow_writer(writer, after, others, buffer, grids)?;
    }
    for (&n, part) in chain.iter().zip(parts) {
        kernels[n] = part;
    }
    debug_assert_eq!(kernels[last].outer.len(), kinds.len());
    Ok(Launch { outer: kinds, kernels: chain.to_vec(), host: None })
}

/// The program's buffer that a kernel writes, if it is one.
fn written(kernel: &Kernel) -> Option<BufId> {
    match &kernel.stores[..] {
        [store] => kernel.args.get(store.buffer.0 as usize).copied(),
        _ => None,
    }
}

/// Cuts axes of a kernel into blocks; the loops over the blocks become outer ranges. An axis of one block stays whole;
/// one that is listed again has its blocks cut further. Gives the conditions under which something is stored.
fn cut(kernel: &mut Kernel, blocks: &[Block], kinds: &mut Vec<LoopKind>) -> Result<Vec<IntId>, NarrowError> {
    let mut current: Vec<Option<RangeId>> = kernel.loops.iter().map(|&r| Some(r)).collect();
    let mut all = Vec::new();
    for b in blocks {
        let Some(&at) = current.get(b.axis) else { return no(format!("no axis {}", b.axis)) };
        let Some(range) = at.filter(|_| b.size >= 1) else { continue };
        let ints = &mut kernel.graph.ints;
        let info = ints.range_info(range).clone();
        let up = ints.add_const(info.size, b.size - 1);
        let count = ints.div_const(up, b.size);
        if ints.as_const(count) == Some(1) {
            continue;
        }
        if b.kind == LoopKind::Grid && kinds.last().is_some_and(|k| *k != LoopKind::Grid) {
            return no("a grid loop inside of a serial one");
        }
        let outer = ints.new_range_with(count, info.role, info.ordinal);
        let size = ints.constant(b.size);
        let part = ints.new_range_with(size, info.role, info.ordinal);
        let (o, i) = (ints.range(outer), ints.range(part));
        let e = ints.sum(&[(o, b.size), (i, 1)], 0);
        let room = ints.sum(&[(info.size, 1), (e, -1)], -1);
        let guard = if ints.prove_nonneg(room, &[]) { vec![] } else { vec![room] };
        kernel.replace_ranges(&FxHashMap::from_iter([(range, e)]), &FxHashMap::default(), &guard);
        // Conditions on blocks that are cut further are conditions on the parts.
        for c in &mut all {
            *c = kernel.graph.ints.substitute(*c, &|r| (r == range).then_some(e));
        }
        all.extend(guard);
        current[b.axis] = (b.size > 1).then_some(part);
        kernel.outer.push(outer);
        kinds.push(b.kind);
    }
    kernel.loops = current.into_iter().flatten().collect();
    Ok(all)
}

/// What the readers of a buffer need of one of its axes in one iteration of the outer loops: from
/// `sum of coefficients * loops + lo` to the same `+ hi`.
#[derive(Clone, Debug)]
struct Footprint {
    coefficients: Vec<i64>,
    lo: i64,
    hi: i64,
}

/// The footprint of every axis, over all loads of a buffer. `None` for an axis that is needed whole.
fn footprints(readers: &mut [Kernel], buffer: BufId) -> Result<Vec<Option<Footprint>>, NarrowError> {
    let mut out: Option<Vec<Option<Footprint>>> = None;
    for k in readers.iter_mut() {
        let Some(at) = k.args.iter().position(|a| *a == buffer) else { continue };
        for v in k.loads() {
            let Val::Load { src: Source::Buffer(b), index, dynamic, .. } = k.graph.val(v).clone() else { continue };
            if b.0 as usize != at {
                continue;
            }
            if dynamic.is_some() {
                return no("the buffer is looked up by index values");
            }
            let mut axes = Vec::with_capacity(index.len());
            for &e in index.iter() {
                let mut rest = e;
                let mut coefficients = Vec::with_capacity(k.outer.len());
                for &o in &k.outer {
                    let Some((c, r)) = k.graph.ints.split_linear(rest, o) else {
                        return no("an index is not linear in a block");
                    };
                    coefficients.push(c);
                    rest = r;
                }
                while coefficients.last() == Some(&0) {
                    coefficients.pop();
                }
                let (lo, hi) = k.graph.ints.bounds(rest);
                axes.push((!coefficients.is_empty()).then_some(Footprint { coefficients, lo, hi }));
            }
            out = Some(match out {
                None => axes,
                Some(known) => known
                    .into_iter()
                    .zip(axes)
                    .map(|(a, b)| match (a, b) {
                        (Some(a), Some(b)) if a.coefficients == b.coefficients => {
                            Ok(Some(Footprint { lo: a.lo.min(b.lo), hi: a.hi.max(b.hi), ..a }))
                        }
                        (None, None) => Ok(None),
                        _ => no("reads move with the blocks in different ways"),
                    })
                    .collect::<Result<_, _>>()?,
            });
        }
    }
    match out {
        Some(axes) => Ok(axes),
        None => no("nothing in the chain reads the buffer"),
    }
}

/// Moves a writer under the loops of its readers, at least the first `least`, and shrinks its buffer in all of them.
fn narrow_writer(
    writer: &mut Kernel,
    readers: &mut [Kernel],
    guards: &[Vec<IntId>],
    buffer: BufId,
    least: usize,
) -> Result<Vec<IntId>, NarrowError> {
    let axes = footprints(readers, buffer)?;
    let Some(most) = readers.iter().max_by_key(|k| k.outer.len()) else { return no("no reader") };
    let under = axes.iter().flatten().map(|f| f.coefficients.len()).max().unwrap_or(0).max(least);
    let sizes: Vec<_> = most.outer[..under]
        .iter()
        .map(|&r| {
            let info = most.graph.ints.range_info(r);
            (most.graph.ints.as_const(info.size), info.role, info.ordinal)
        })
        .collect();
    for (size, role, ordinal) in sizes {
        let Some(size) = size else { return no("a number of blocks that is a parameter") };
        let size = writer.graph.ints.constant(size);
        writer.outer.push(writer.graph.ints.new_range_with(size, role, ordinal));
    }
    let store = writer.stores[0].clone();
    let (mut map, mut guard) = (FxHashMap::default(), Vec::new());
    let mut renamed: FxHashMap<RangeId, RangeId> = FxHashMap::default();
    // Per axis: where the footprint begins, as coefficients of the loops and a constant, and its size.
    let mut starts: Vec<Option<(Vec<i64>, i64, i64)>> = vec![None; axes.len()];
    for (axis, footprint) in axes.iter().enumerate() {
        let Some(f) = footprint else { continue };
        let Some((range, d)) = unit(writer, store.index[axis]) else {
            return no(format!("axis {axis} is not written along one range"));
        };
        let ints = &mut writer.graph.ints;
        if map.contains_key(&range) || f.coefficients.iter().any(|c| c % d != 0) {
            return no(format!("axis {axis} is written in units that blocks do not respect"));
        }
        let (lo, hi) = (f.lo.div_euclid(d), f.hi.div_euclid(d));
        let info = ints.range_info(range).clone();
        let size = ints.constant(hi - lo + 1);
        let part = ints.new_range_with(size, info.role, info.ordinal);
        let mut terms: Vec<(IntId, i64)> = Vec::new();
        for (n, &c) in f.coefficients.iter().enumerate() {
            terms.push((ints.range(writer.outer[n]), c / d));
        }
        terms.push((ints.range(part), 1));
        let e = ints.sum(&terms, lo);
        guard.extend(with_bounds(ints, &[info.size], &[e], Vec::new()));
        map.insert(range, e);
        renamed.insert(range, part);
        starts[axis] = Some((f.coefficients.clone(), d * lo, d * (hi - lo + 1)));
    }
    writer.replace_ranges(&map, &FxHashMap::default(), &guard);
    let loops: Vec<RangeId> = writer.loops.iter().map(|r| renamed.get(r).copied().unwrap_or(*r)).collect();
    writer.loops = loops.into_iter().filter(|&r| writer.graph.ints.const_size(r) != Some(1)).collect();
    shrink(writer, buffer, &starts, &[]);
    for (k, guard) in readers.iter_mut().zip(guards) {
        shrink(k, buffer, &starts, guard);
    }
    Ok(guard)
}

/// The range along which an index moves in steps of `d`, where the rest of it stays in `0..d`.
fn unit(writer: &mut Kernel, e: IntId) -> Option<(RangeId, i64)> {
    let g = &mut writer.graph;
    let mut found = None;
    for r in g.ints.free_ranges(e).to_vec() {
        let Some((d, rest)) = g.ints.split_linear(e, r) else { continue };
        let (lo, hi) = g.ints.bounds(rest);
        if d > 0 && lo == 0 && hi < d && writer.loops.contains(&r) {
            found = Some((r, d));
        }
    }
    found
}

/// Shifts a buffer's indices to the beginning of its footprint and gives it the footprint's size.
///
/// Loads are freed of conditions of the kernel's `guard`: what they protected from is now in bounds.
fn shrink(kernel: &mut Kernel, buffer: BufId, starts: &[Option<(Vec<i64>, i64, i64)>], guard: &[IntId]) {
    let Some(at) = kernel.args.iter().position(|a| *a == buffer) else { return };
    let at = BufId(at as u32);
    let outer = kernel.outer.clone();
    let shift = |g: &mut winograph_ir::indexed::Graph, index: &[IntId]| -> Vec<IntId> {
        index
            .iter()
            .zip(starts)
            .map(|(&e, start)| {
                let Some((coefficients, lo, _)) = start else { return e };
                let mut terms = vec![(e, 1)];
                for (&o, &c) in outer.iter().zip(coefficients) {
                    terms.push((g.ints.range(o), -c));
                }
                g.ints.sum(&terms, -lo)
            })
            .collect()
    };
    let mut dropped: Vec<IntId> = Vec::new();
    for &c in guard {
        dropped.extend(kernel.graph.ints.conjunction(&[c]).into_iter().flatten());
    }
    let mut memo = FxHashMap::default();
    for n in 0..kernel.stores.len() {
        let g = &mut kernel.graph;
        let store = &mut kernel.stores[n];
        store.value = g.rebuild(store.value, &mut memo, &mut |g, val| match val {
            Val::Load { src: Source::Buffer(b), index, gate, fill, dynamic } if b == at => {
                let index = shift(g, &index);
                let gate = gate.iter().copied().filter(|c| !dropped.contains(c)).collect();
                g.add(Val::Load { src: Source::Buffer(b), index: index.into(), gate, fill, dynamic })
            }
            other => g.add(other),
        });
        if store.buffer == at {
            store.index = shift(g, &store.index);
        }
    }
    let g = &mut kernel.graph;
    for (axis, start) in starts.iter().enumerate() {
        if let Some((_, _, size)) = start {
            g.buffers[at.0 as usize].shape[axis] = g.ints.constant(*size);
        }
    }
    g.buffers[at.0 as usize].scope = Scope::Scratch;
}
