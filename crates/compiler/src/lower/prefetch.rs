//! Prefetching: inner loops ask for what they read of long arrays some kilobytes ahead.
//!
//! Takes linear code for a processor; leaves [`Stmt::Prefetch`] in innermost loops that go through an array of the
//! caller's line by line, as products go through panels of weights. Hardware follows such streams within a page of 4 KiB
//! and begins anew in the next one; a network's weights come from memory in every run, and loops over them wait there.

use rustc_hash::FxHashMap;
use std::collections::BTreeSet;
use winograph_ir::indexed::Scope;
use winograph_ir::int::{IntId, Ints, RangeId};
use winograph_ir::linear::{Code, Instr, LoopKind, Memory, Stmt};

/// Bytes of a cache line.
const LINE: i64 = 64;
/// Bytes ahead: what a core reads at 20 GB/s in 200 ns. Between 1 and 8 KiB resnet50 takes as long within the noise.
const AHEAD: i64 = 4096;

/// Reads of one array that move together: its place among the arguments, the elements that they move by in an iteration,
/// and where they begin, constants aside.
type Stream = (u32, i64, Vec<(IntId, i64)>);

/// Adds prefetches. Arrays that fit into the first-level cache of `l1` bytes are left alone.
pub fn prefetch(code: &mut Code, l1: usize) {
    let bytes = |n: usize| {
        let decl = &code.args[n];
        let read = decl.scope == Scope::Global && !decl.written;
        if read { code.ints.bounds(decl.layout.len).1.saturating_mul(decl.dtype.size() as i64) } else { 0 }
    };
    let long: Vec<Option<i64>> =
        (0..code.args.len()).map(|n| (bytes(n) > l1 as i64).then(|| code.args[n].dtype.size() as i64)).collect();
    if long.iter().any(Option::is_some) {
        body(&mut code.ints, &long, &mut code.body);
    }
}

fn body(ints: &mut Ints, long: &[Option<i64>], stmts: &mut [Stmt]) {
    for s in stmts {
        match s {
            Stmt::Loop { range, kind: LoopKind::Serial, body } if body.iter().all(is_plain) => {
                let asked = ahead(ints, long, *range, body);
                body.splice(0..0, asked);
            }
            Stmt::Loop { body: inner, .. } | Stmt::If { body: inner, .. } => body(ints, long, inner),
            _ => {}
        }
    }
}

fn is_plain(s: &Stmt) -> bool {
    matches!(s, Stmt::Let { .. } | Stmt::Set { .. } | Stmt::Var { .. } | Stmt::Store { .. })
}

/// The prefetches of a loop: one for each line that an iteration reads.
fn ahead(ints: &mut Ints, long: &[Option<i64>], range: RangeId, body: &[Stmt]) -> Vec<Stmt> {
    let mut streams: FxHashMap<Stream, BTreeSet<i64>> = FxHashMap::default();
    let mut found: Vec<Stream> = Vec::new();
    for s in body {
        let Stmt::Let { instr: Instr::Load { access, .. }, .. } = s else { continue };
        let Memory::Arg(n) = access.mem else { continue };
        if long[n as usize].is_none() || !access.gate.is_empty() || access.dynamic.is_some() {
            continue;
        }
        let (lanes, first) = match access.lane {
            None => (1, access.addr),
            Some(lane) => match ints.split_linear(access.addr, lane) {
                Some((1, first)) => (ints.max_size(lane), first),
                _ => continue,
            },
        };
        let Some((step, base)) = ints.split_linear(first, range).filter(|s| s.0 > 0) else { continue };
        let (terms, at) = ints.as_sum(base);
        let key = (n, step, terms);
        if !streams.contains_key(&key) {
            found.push(key.clone());
        }
        streams.entry(key).or_default().extend(at..at + lanes);
    }
    let mut out = Vec::new();
    for key in found {
        let reads = &streams[&key];
        let (n, step, terms) = &key;
        let Some(size) = long[*n as usize] else { continue };
        // Half of each line at least, and at least half of what lies between two iterations.
        if step * size < LINE / 2 || (reads.len() as i64) * 2 < *step {
            continue;
        }
        let i = ints.range(range);
        let base = ints.sum(terms, AHEAD / size);
        let now = ints.sum(&[(i, *step), (base, 1)], 0);
        // Lines are counted from the first element that no line before holds.
        let mut end = i64::MIN;
        for &at in reads {
            if at >= end {
                let addr = ints.add_const(now, at);
                out.push(Stmt::Prefetch { mem: Memory::Arg(*n), addr });
                end = at + LINE / size;
            }
        }
    }
    out
}
