//! `scope`: where stages live.
//!
//! Takes kernels; leaves launches. A product that is summed in a loop, what computes its operands and what reads its
//! result become one launch under loops over blocks of the result where that is estimated to be faster: the operands
//! and the product of one block then stay in a core's cache. Elsewhere each kernel is a launch of its own, on request in
//! loops of the host: the launches of a chain for one chunk of the result, then those for the next one.

use super::block_cost::{self, Axis, Sizes};
use super::narrow::{Block, narrow};
use super::operands::Staged;
use super::requested;
use crate::kernel::{Kernel, Launch};
use crate::optimize::heuristic;
use crate::options::StageRule;
use crate::target::Target;
use crate::tune::{Staging, Sums};
use rustc_hash::FxHashMap;
use winograph_ir::indexed::{BufId, Origin, Source, Val};
use winograph_ir::int::{IntId, RangeId};

/// What was decided about one chain of kernels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The buffers that its kernels write, in order.
    pub buffers: Vec<String>,
    /// Whether they are one launch.
    pub fused: bool,
    /// The chunks of the result for which their launches are repeated, if they are.
    pub chunks: Option<i64>,
    /// Why.
    pub reason: String,
}

/// Groups kernels into launches, in an order in which writers come before readers. `constant` says which kernels
/// depend on constants alone, `staged` which products have been given operands for blocks of theirs, `sums` what is asked
/// for.
pub fn scope(
    kernels: &mut [Kernel],
    constant: &[bool],
    staged: &[Staged],
    target: &Target,
    rule: StageRule,
    sums: &mut Sums,
) -> (Vec<Launch>, Vec<Choice>) {
    let mut choices = Vec::new();
    let mut fused: Vec<Option<usize>> = vec![None; kernels.len()];
    let mut launches: Vec<Launch> = Vec::new();
    for product in staged {
        let names = product.chain.iter().map(|&k| kernels[k].output_name()).collect();
        match narrow(kernels, &product.chain, &product.blocks) {
            Ok(launch) => {
                for &k in &product.chain {
                    fused[k] = Some(launches.len());
                }
                launches.push(launch);
                choices.push(Choice { buffers: names, fused: true, chunks: None, reason: product.reason.clone() });
            }
            Err(e) => choices.push(Choice { buffers: names, fused: false, chunks: None, reason: e.to_string() }),
        }
    }
    if target.gpu.is_none() && rule == StageRule::Auto {
        let users = users(kernels);
        for n in 0..kernels.len() {
            if constant[n] || fused[n].is_some() {
                continue;
            }
            let Some(chain) = chain(kernels, &users, constant, n) else { continue };
            if chain.iter().any(|&k| fused[k].is_some()) {
                continue;
            }
            let names = |chain: &[usize]| chain.iter().map(|&k| kernels[k].output_name()).collect();
            let written = own_output(&kernels[n]);
            let asked = written.and_then(|b| sums.asked(b)).and_then(|t| t.stages);
            let found = sizes(kernels, &chain, n).map(|s| block_cost::choose(&s, target, asked));
            let staging = found.as_ref().map_or(Staging::Global, |chosen| chosen.staging);
            let (blocks, reason) = match found.and_then(|chosen| settled(chosen, written, sums)) {
                Ok(found) => found,
                Err(reason) => {
                    choices.push(Choice { buffers: names(&chain), fused: false, chunks: None, reason });
                    continue;
                }
            };
            let chain = within(&chain, staging);
            let names = names(chain);
            match narrow(kernels, chain, &blocks) {
                Ok(launch) => {
                    for &k in chain {
                        fused[k] = Some(launches.len());
                    }
                    launches.push(launch);
                    choices.push(Choice { buffers: names, fused: true, chunks: None, reason });
                }
                Err(e) => choices.push(Choice { buffers: names, fused: false, chunks: None, reason: e.to_string() }),
            }
        }
    }
    let mut repeated: Vec<Vec<Launch>> = launches.into_iter().map(|l| vec![l]).collect();
    if target.gpu.is_some() || matches!(rule, StageRule::Chunks(_)) {
        let users = users(kernels);
        for n in 0..kernels.len() {
            if constant[n] || fused[n].is_some() {
                continue;
            }
            let Some(chain) = chain(kernels, &users, constant, n).filter(|c| c.iter().all(|&k| fused[k].is_none()))
            else {
                continue;
            };
            let (choice, made) = requested::staged(kernels, &chain, n, repeated.len(), target, rule, sums);
            choices.extend(choice);
            if let Some(made) = made {
                chain.iter().for_each(|&k| fused[k] = Some(repeated.len()));
                repeated.push(made);
            }
        }
    }
    // Launches run where their last kernel did: what the others read has been written by then.
    let mut out = Vec::new();
    for (n, at) in fused.into_iter().enumerate() {
        match at {
            None => out.push(Launch::single(n)),
            Some(at) if repeated[at].last().and_then(|l| l.kernels.last()) == Some(&n) => {
                out.extend(repeated[at].iter().cloned());
            }
            Some(_) => {}
        }
    }
    (out, choices)
}

/// The kernels of a chain that become one launch: those behind an operand that threads share, where there is one.
fn within(chain: &[usize], staging: Staging) -> &[usize] {
    match staging {
        Staging::Shared(_) => &chain[chain.len().saturating_sub(2)..],
        _ => chain,
    }
}

/// The blocks of a choice, after it has been noted for the sum that a buffer belongs to.
pub(super) fn settled(
    chosen: block_cost::Chosen,
    written: Option<BufId>,
    sums: &mut Sums,
) -> Result<(Vec<Block>, String), String> {
    if let Some(buffer) = written {
        if let Some(why) = &chosen.refused {
            sums.refuse(buffer, "stages", why);
        }
        if let Some(sum) = sums.get_mut(buffer) {
            sum.used.stages = Some(chosen.staging);
            sum.extents = Some(chosen.extents);
        }
    }
    chosen.blocks
}

/// Whether a kernel sums products in a loop.
fn contracts(k: &Kernel) -> bool {
    let unrolled = heuristic::unrolled(k);
    k.reduce_ranges().iter().any(|r| !unrolled.contains(r))
}

/// The kernels that read or write each buffer of the program, in order.
pub(super) fn users(kernels: &[Kernel]) -> FxHashMap<BufId, Vec<usize>> {
    let mut out: FxHashMap<BufId, Vec<usize>> = FxHashMap::default();
    for (n, k) in kernels.iter().enumerate() {
        for &b in &k.args {
            let list = out.entry(b).or_default();
            if list.last() != Some(&n) {
                list.push(n);
            }
        }
    }
    out
}

/// The buffer a kernel writes, as its place in the program, if it is the compiler's own and still in global memory.
pub(super) fn own_output(k: &Kernel) -> Option<BufId> {
    let [store] = &k.stores[..] else { return None };
    let b = k.graph.buffer(store.buffer);
    (b.origin == Origin::Internal && k.outer.is_empty()).then(|| k.args[store.buffer.0 as usize])
}

/// The kernels around a contraction that could be one launch with it: the one that computes its largest operand for it
/// alone, and its only reader.
pub(super) fn chain(
    kernels: &[Kernel],
    users: &FxHashMap<BufId, Vec<usize>>,
    constant: &[bool],
    at: usize,
) -> Option<Vec<usize>> {
    let of = |buffer: &BufId| users.get(buffer).map_or(&[][..], |list| list);
    let readers = |buffer, writer| of(&buffer).iter().copied().filter(|&k| k != writer).collect::<Vec<usize>>();
    if !contracts(&kernels[at]) {
        return None;
    }
    let [reader] = readers(own_output(&kernels[at])?, at)[..] else { return None };
    if contracts(&kernels[reader]) {
        return None;
    }
    let elements =
        |k: usize| kernels[k].loops.iter().map(|&r| kernels[k].graph.ints.max_size(r) as f64).product::<f64>();
    let operand = kernels[at]
        .args
        .iter()
        .flat_map(|b| of(b).iter().copied())
        .filter(|&k| {
            k < at
                && !constant[k]
                && !contracts(&kernels[k])
                && own_output(&kernels[k]).is_some_and(|b| readers(b, k) == [at])
        })
        .max_by(|&a, &b| elements(a).total_cmp(&elements(b)).then(b.cmp(&a)));
    Some(operand.into_iter().chain([at, reader]).collect())
}

/// Whether a product becomes one launch with what computes an operand for it and what reads its result.
pub(super) fn is_chained(
    kernels: &[Kernel],
    users: &FxHashMap<BufId, Vec<usize>>,
    constant: &[bool],
    at: usize,
    target: &Target,
    sums: &Sums,
) -> bool {
    let Some(chain) = chain(kernels, users, constant, at).filter(|chain| chain.len() > 2) else { return false };
    let asked = own_output(&kernels[at]).and_then(|b| sums.asked(b)).and_then(|t| t.stages);
    let Ok(chosen) = sizes(kernels, &chain, at).map(|s| block_cost::choose(&s, target, asked)) else { return false };
    let chain = within(&chain, chosen.staging);
    chosen.blocks.is_ok_and(|(blocks, _)| {
        let mut own: Vec<Kernel> = chain.iter().map(|&k| kernels[k].clone()).collect();
        let places: Vec<usize> = (0..own.len()).collect();
        narrow(&mut own, &places, &blocks).is_ok()
    })
}

/// What block costs are estimated from.
pub(super) fn sizes(kernels: &[Kernel], chain: &[usize], at: usize) -> Result<Sizes, String> {
    let reader = chain[chain.len() - 1];
    let buffer = own_output(&kernels[at]).ok_or("its result is not the compiler's own")?;
    let operands: Vec<BufId> = chain[..chain.len() - 2].iter().filter_map(|&k| own_output(&kernels[k])).collect();
    // Which of the reader's loops index which axis of the result, alone and one by one, and whether several do together.
    let (mut along, mut together): (Vec<Option<RangeId>>, Vec<bool>) = (Vec::new(), Vec::new());
    let k = &kernels[reader];
    for v in k.loads() {
        let Val::Load { src: Source::Buffer(b), index, .. } = k.graph.val(v) else { continue };
        if k.args[b.0 as usize] != buffer {
            continue;
        }
        let these: Vec<Option<RangeId>> = index
            .iter()
            .map(|&e| match k.graph.ints.free_ranges(e) {
                [r] if k.loops.contains(r) && k.graph.ints.bounds(e).1 + 1 == k.graph.ints.max_size(*r) => Some(*r),
                _ => None,
            })
            .collect();
        let several = |&e: &IntId| {
            let ranges = k.graph.ints.free_ranges(e);
            let values = ranges.iter().map(|&r| k.graph.ints.max_size(r)).product::<i64>();
            ranges.len() > 1 && ranges.iter().all(|r| k.loops.contains(r)) && k.graph.ints.bounds(e) == (0, values - 1)
        };
        let walked: Vec<bool> = index.iter().map(several).collect();
        (along, together) = match along.is_empty() {
            true => (these, walked),
            false => (
                along.iter().zip(&these).map(|(a, b)| if a == b { *a } else { None }).collect(),
                together.iter().zip(&walked).map(|(a, b)| *a && *b).collect(),
            ),
        };
    }
    let writer = &kernels[at];
    let store = &writer.stores[0];
    let unrolled = heuristic::unrolled(&kernels[reader]);
    let (mut rows, mut columns) = (Vec::new(), Vec::new());
    let (mut batch, mut beside) = (1.0, 1.0);
    for (axis, reads) in along.iter().enumerate() {
        let size = writer.graph.ints.bounds(store.index[axis]).1 + 1;
        if size == 1 {
            continue;
        }
        let ranges = writer.graph.ints.free_ranges(store.index[axis]).to_vec();
        let (mut computed, mut other) = (false, false);
        for v in writer.loads() {
            let Val::Load { src: Source::Buffer(b), index, .. } = writer.graph.val(v) else { continue };
            let moves = index.iter().any(|&e| ranges.iter().any(|&r| writer.graph.ints.depends_on(e, r)));
            if operands.contains(&writer.args[b.0 as usize]) {
                computed |= moves;
            } else {
                other |= moves;
            }
        }
        match reads {
            Some(r) if !unrolled.contains(r) && computed != other => {
                let reader = kernels[reader].loops.iter().position(|l| l == r).unwrap_or(0);
                let list = if computed { &mut rows } else { &mut columns };
                list.push(Axis { reader, size });
            }
            _ if together[axis] && other && !computed => beside *= size as f64,
            _ => batch *= size as f64,
        }
    }
    if columns.len() > 1 {
        return Err("its result has several axes of columns".into());
    }
    let reduced = writer.reduce_ranges();
    let terms = reduced.iter().map(|&r| writer.graph.ints.max_size(r) as f64).product();
    let constant = |k: &Kernel| k.loops.iter().chain(&k.reduce_ranges()).all(|&r| k.graph.ints.const_size(r).is_some());
    if !chain.iter().all(|&n| constant(&kernels[n])) {
        return Err("sizes are parameters".into());
    }
    Ok(Sizes { rows, columns: columns.pop(), beside, batch, terms, computed: !operands.is_empty() })
}
