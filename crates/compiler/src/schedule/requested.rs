//! Where the stages around a product live on a GPU, and on request.
//!
//! A chain's kernels are launches of their own unless a rule or the sum's tuning asks for loops of the host around them, or for
//! one launch in which a workgroup keeps a block of what is between them in shared memory; or unless that launch is estimated to
//! take less than launches of their own do at least, where the rewrite counted on it.

use super::block_cost::{Sizes, within};
use super::group_cost::{self, extents, padding};
use super::host;
use super::narrow::{Block, narrow};
use super::scope::{Choice, own_output, sizes};
use crate::kernel::{Kernel, Launch};
use crate::options::StageRule;
use crate::target::Target;
use crate::tune::{Blocks, Staging, Sums};
use winograph_ir::indexed::{BufId, Scope};
use winograph_ir::linear::LoopKind;

/// What is asked for.
#[derive(Clone, Copy)]
enum Wanted {
    Chunks(i64),
    /// In these blocks, or the best ones.
    Fused(Option<Blocks>),
}

/// What was made of it: launches, how that is told, and the chunks.
type Made = (Vec<Launch>, Staging, String);

/// Launches of a chain around the product of kernel `at`, where a rule or the sum's tuning asks for something; says why or
/// why not. `number` tells the chain's loops of the host from others.
pub(super) fn staged(
    kernels: &mut [Kernel],
    chain: &[usize],
    at: usize,
    number: usize,
    target: &Target,
    rule: StageRule,
    sums: &mut Sums,
) -> (Option<Choice>, Option<Vec<Launch>>) {
    let written = own_output(&kernels[at]);
    let stages = written.and_then(|b| sums.asked(b)).and_then(|t| t.stages);
    let wanted = match (rule, stages) {
        (StageRule::Global, _) => None,
        (_, Some(Staging::Chunks(n))) => Some(Wanted::Chunks(n)),
        (_, Some(Staging::Fused(blocks))) => Some(Wanted::Fused(Some(blocks))),
        (StageRule::Chunks(n), None) => Some(Wanted::Chunks(i64::from(n))),
        (StageRule::Fused, None) => Some(Wanted::Fused(None)),
        _ => None,
    };
    let found = sizes(kernels, chain, at).and_then(|s| match s.rows.is_empty() {
        true => Err("its result has no axis to cut".to_string()),
        false => Ok(s),
    });
    let most = found.as_ref().map_or(1, |s| s.rows.iter().map(|a| a.size).product::<i64>().min(host::MOST_CHUNKS));
    let estimated =
        found.as_ref().ok().zip(target.gpu.as_ref()).and_then(|(s, gpu)| group_cost::estimate(s, chain.len(), gpu));
    let best = estimated.map(|e| e.cut);
    let beside = estimated.map(|e| {
        format!("estimated at {:.1} us beside its launch, {} launches at {:.1} at least", e.us, chain.len(), e.apart_us)
    });
    let pays = written.is_some_and(|b| sums.is_gathered(b)) && estimated.is_some_and(|e| e.pays());
    let by_estimate = rule == StageRule::Auto && stages.is_none() && pays;
    let wanted = if by_estimate { Some(Wanted::Fused(None)) } else { wanted };
    let writers = &chain[..chain.len().saturating_sub(1)];
    let between = |kernels: &[Kernel]| writers.iter().map(|&k| bytes(&kernels[k])).sum::<f64>();
    let before = amount(between(kernels));
    let made: Option<Result<Made, String>> = wanted.map(|wanted| {
        let sizes = found?;
        match wanted {
            Wanted::Chunks(n) => {
                let axes: Vec<(usize, i64)> = sizes.rows.iter().map(|a| (a.reader, a.size)).collect();
                let blocks = host::blocks(&axes, n);
                let launches = host::repeat(kernels, chain, &blocks, number).map_err(|e| e.to_string())?;
                let each = amount(between(kernels));
                let why =
                    format!("what is between the kernels takes {each} for each chunk, {before} for the whole result");
                Ok((launches, Staging::Chunks(host::count(&axes, &blocks)), why))
            }
            Wanted::Fused(given) => {
                let Some(gpu) = &target.gpu else {
                    return Err("a launch of workgroups is a plan of a GPU".to_string());
                };
                let cut = given.or(best).ok_or("no block fits into shared memory")?;
                let blocks = cut_into(&sizes, cut)?;
                let launch = workgroups(kernels, chain, &blocks, gpu.shared as f64 - padding(&sizes))?;
                let why = format!(
                    "blocks of {}x{}x{} rows and {} columns, {} of shared memory",
                    cut.depth,
                    cut.height,
                    cut.width,
                    cut.columns,
                    amount(between(kernels))
                );
                Ok((vec![launch], Staging::Fused(cut), why))
            }
        }
    });
    let by_rule = matches!(rule, StageRule::Chunks(_) | StageRule::Fused);
    let told = (stages.is_some() || by_rule || by_estimate) && rule != StageRule::Global;
    if let Some(buffer) = written {
        if let (Some(Err(why)), Some(_)) = (&made, stages) {
            sums.refuse(buffer, "stages", why);
        }
        if let Some(sum) = sums.get_mut(buffer) {
            (sum.chunks, sum.fused) = (most, best);
            let used = made.as_ref().and_then(|m| m.as_ref().ok()).map_or(Staging::Global, |m| m.1);
            sum.used.stages = told.then_some(used);
        }
    }
    let buffers = chain.iter().map(|&k| kernels[k].output_name()).collect();
    let choice = |fused, chunks, reason| Some(Choice { buffers, fused, chunks, reason });
    match made {
        Some(Ok((launches, staging, why))) => {
            let (fused, chunks) = match staging {
                Staging::Chunks(n) => (false, Some(n)),
                _ => (true, None),
            };
            let because = match beside {
                Some(beside) if by_estimate => beside,
                _ => "as asked".to_string(),
            };
            (choice(fused, chunks, format!("{because}; {why}")), Some(launches))
        }
        Some(Err(why)) => (choice(false, None, why), None),
        None => {
            let one =
                beside.map_or_else(|| "one launch is none".to_string(), |beside| format!("one launch is {beside}"));
            let why = format!("what is between the kernels takes {before}; {one}");
            (choice(false, None, why).filter(|_| most > 1 && rule == StageRule::Auto), None)
        }
    }
}

fn amount(bytes: f64) -> String {
    match bytes {
        1e6.. => format!("{:.1} MB", bytes / 1e6),
        _ => format!("{:.1} kB", bytes / 1e3),
    }
}

/// Bytes of what a kernel writes.
fn bytes(k: &Kernel) -> f64 {
    let of = |b: BufId| {
        let buffer = k.graph.buffer(b);
        let elements: f64 = buffer.shape.iter().map(|&s| k.graph.ints.bounds(s).1 as f64).product();
        elements * buffer.dtype.size() as f64
    };
    k.stores.first().map_or(0.0, |s| of(s.buffer))
}

/// Makes a chain one launch of workgroups over blocks, with what is between its kernels in shared memory, of which there are
/// `most` bytes. On an error nothing has changed.
fn workgroups(kernels: &mut [Kernel], chain: &[usize], blocks: &[Block], most: f64) -> Result<Launch, String> {
    let before: Vec<Kernel> = chain.iter().map(|&k| kernels[k].clone()).collect();
    let launch = narrow(kernels, chain, blocks).map_err(|e| e.to_string())?;
    let taken: f64 = chain[..chain.len().saturating_sub(1)].iter().map(|&k| bytes(&kernels[k])).sum();
    if launch.outer.is_empty() || taken > most {
        chain.iter().zip(before).for_each(|(&k, kernel)| kernels[k] = kernel);
        return Err(format!("a block takes {taken:.0} bytes of shared memory, {most:.0} are left for it"));
    }
    for &k in chain {
        for b in kernels[k].graph.buffers.iter_mut().filter(|b| b.scope == Scope::Scratch) {
            b.scope = Scope::Shared;
        }
    }
    Ok(launch)
}

/// The loops over blocks.
fn cut_into(sizes: &Sizes, cut: Blocks) -> Result<Vec<Block>, String> {
    let columns = sizes.columns.as_ref().map_or(1, |c| c.size);
    let Blocks { depth, height, width, columns: own, parts } = cut;
    within(cut, extents(sizes))?;
    if parts < 1 || columns % parts != 0 || own != columns / parts {
        return Err(format!("{own} columns in {parts} parts are not the {columns} that there are"));
    }
    let mut blocks = Vec::new();
    if let (true, Some(c)) = (parts > 1, &sizes.columns) {
        blocks.push(Block { axis: c.reader, size: own, kind: LoopKind::Grid });
    }
    for (n, a) in sizes.rows.iter().enumerate() {
        let size = [width, height, depth].get(sizes.rows.len() - 1 - n).copied().unwrap_or(1);
        blocks.push(Block { axis: a.reader, size, kind: LoopKind::Grid });
    }
    Ok(blocks)
}
