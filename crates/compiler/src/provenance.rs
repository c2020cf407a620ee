//! Which notes of the tensor graph each kernel serves: which nodes of a model, where the graph was made from one.
//!
//! Notes are no part of the identity of anything. They are taken along beside the passes, by the buffers that definitions
//! write, and nothing that a pass decides depends on them.

use crate::kernel::{Kernel, Launch};
use rustc_hash::{FxHashMap, FxHashSet};
use winograph_ir::indexed::{BufId, Graph, Source, Val};

/// Notes by buffer: places in the tensor graph's list of notes, ascending.
pub(crate) type Notes = FxHashMap<BufId, Vec<u32>>;

/// What each definition writes, and the buffers that it reads, ascending.
pub(crate) type Reads = Vec<(BufId, Vec<BufId>)>;

/// What the definitions of a graph read, before some of them are merged.
pub(crate) fn reads(g: &Graph) -> Reads {
    let source = |v| match g.val(v) {
        Val::Load { src: Source::Buffer(b), .. } => Some(*b),
        _ => None,
    };
    let read = |value| sorted(g.topological(&[value]).into_iter().filter_map(source).collect());
    g.defs.iter().map(|d| (d.buffer, read(d.value))).collect()
}

/// The notes of the definitions that are left of those that read `reads`: they serve what those that were put into them
/// served, too, and what rewrites have added serves what the definitions that read it serve.
pub(crate) fn merged(mut notes: Notes, reads: &Reads, left: &Graph) -> Notes {
    let known: FxHashSet<BufId> = notes.keys().copied().collect();
    let left: FxHashSet<BufId> = left.defs.iter().map(|d| d.buffer).collect();
    let gone: FxHashSet<BufId> = reads.iter().map(|d| d.0).filter(|b| !left.contains(b)).collect();
    for (buffer, reads) in reads {
        for read in reads.iter().filter(|b| gone.contains(b)) {
            let merged = notes.get(read).cloned().unwrap_or_default();
            add(&mut notes, *buffer, &merged);
        }
    }
    for (buffer, reads) in reads.iter().rev() {
        let Some(own) = notes.get(buffer).cloned() else { continue };
        for read in reads.iter().filter(|b| !known.contains(b)) {
            add(&mut notes, *read, &own);
        }
    }
    notes
}

/// What each launch serves. Copies of operands, which passes have added, serve what the kernels that read them serve.
pub(crate) fn of_launches(kernels: &[Kernel], launches: &[Launch], mut notes: Notes) -> Vec<Vec<u32>> {
    let known: FxHashSet<BufId> = notes.keys().copied().collect();
    let written = |k: &Kernel| k.stores.iter().map(|s| k.args[s.buffer.0 as usize]).collect::<Vec<BufId>>();
    let served = |k: &Kernel, notes: &Notes| {
        sorted(written(k).iter().flat_map(|b| notes.get(b).cloned().unwrap_or_default()).collect())
    };
    if !notes.is_empty() {
        for k in kernels.iter().rev() {
            let own = served(k, &notes);
            let written = written(k);
            for read in k.args.iter().filter(|b| !known.contains(b) && !written.contains(b)) {
                add(&mut notes, *read, &own);
            }
        }
    }
    launches.iter().map(|l| sorted(l.kernels.iter().flat_map(|&n| served(&kernels[n], &notes)).collect())).collect()
}

fn add(notes: &mut Notes, buffer: BufId, more: &[u32]) {
    if !more.is_empty() {
        let list = notes.entry(buffer).or_default();
        list.extend(more);
        *list = sorted(std::mem::take(list));
    }
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort_unstable();
    list.dedup();
    list
}
