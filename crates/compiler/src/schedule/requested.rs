//! Where the stages around a product live on request: what no estimate decides.
//!
//! On a GPU a chain's kernels are launches of their own unless a rule or the sum's tuning asks for loops of the host around
//! them, or for one launch in which a workgroup keeps a block of what is between them in shared memory.

use super::block_cost::{Sizes, within};
use super::host;
use super::narrow::{Block, narrow};
use super::scope::{Choice, own_output, sizes};
use crate::kernel::{Kernel, Launch};
use crate::options::StageRule;
use crate::target::{Gpu, Target};
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
    let best = found.as_ref().ok().zip(target.gpu.as_ref()).and_then(|(s, gpu)| best(s, gpu));
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
    let told = (stages.is_some() || by_rule) && rule != StageRule::Global;
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
            (choice(fused, chunks, format!("as asked; {why}")), Some(launches))
        }
        Some(Err(why)) => (choice(false, None, why), None),
        None => {
            let why = format!(
                "what is between the kernels takes {before}; other plans are only taken where they are asked for"
            );
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

/// Bytes that layouts of what is between the kernels may add to it: planes begin at sectors.
fn padding(sizes: &Sizes) -> f64 {
    sizes.batch * 128.0
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

/// Sizes of the axes of rows, innermost first, as far as blocks go.
fn extents(sizes: &Sizes) -> [i64; 3] {
    let mut of = [1; 3];
    of.iter_mut().zip(sizes.rows.iter().rev()).for_each(|(to, a)| *to = a.size);
    of
}

/// Bytes of shared memory that a block of f32 takes.
fn shared(sizes: &Sizes, cut: Blocks) -> f64 {
    let rows = (cut.depth * cut.height * cut.width) as f64;
    let elements = rows * sizes.terms + rows * cut.columns as f64 * sizes.beside;
    sizes.batch * elements * 4.0 + padding(sizes)
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

/// Threads that a workgroup has at most.
const THREADS: f64 = 256.0;
/// Cycles of a thread for an element of what the chain's first and last kernel compute, per position; for a multiply-add whose
/// factors come from shared memory and a cache; and for waiting, once a workgroup. Guesses, all of these: nothing is decided by them but
/// the block that a request without one gets.
const TRANSFORM: f64 = 10.0;
const PRODUCT: f64 = 4.0;
const WAITING: f64 = 3000.0;
/// Bytes a cycle that a multiprocessor gets from the second-level cache.
const CACHE_RATE: f64 = 24.0;

/// The blocks that are guessed to be the fastest.
fn best(sizes: &Sizes, gpu: &Gpu) -> Option<Blocks> {
    let columns = sizes.columns.as_ref().map_or(1, |c| c.size);
    let [w, h, d] = extents(sizes);
    let divisors = |n: i64| (1..=n).filter(move |d| n % d == 0);
    let mut best: Option<(f64, Blocks)> = None;
    for parts in [1, 2, 4, 8].into_iter().filter(|p| columns % p == 0) {
        for width in divisors(w) {
            for height in divisors(h) {
                let cut = Blocks { depth: 1, height, width, columns: columns / parts, parts };
                // Two workgroups at a time hide some of each other's waiting.
                if 2.0 * shared(sizes, cut) > gpu.shared as f64 {
                    continue;
                }
                let rows = (height * width) as f64;
                let own = cut.columns as f64 * sizes.beside;
                let rounds = |items: f64| (items / THREADS).ceil();
                let transforms = rounds(rows * sizes.terms) + rounds(rows * own);
                let products = rounds(sizes.batch * rows * own) * sizes.terms;
                let block = transforms * sizes.batch * TRANSFORM + products * PRODUCT + WAITING;
                let outer: i64 = sizes.rows.iter().rev().skip(3).map(|a| a.size).product();
                let blocks = (parts * (w / width) * (h / height) * d * outer) as f64;
                let processors = gpu.processors as f64;
                // The other operand, and what the first one is computed from: short rows of it leave sectors half empty.
                let input = rows * (1.0 + 2.0 / width as f64);
                let moved = sizes.batch * sizes.terms * (own + input) * 4.0 / CACHE_RATE;
                let cycles = (blocks / (2.0 * processors)).ceil() * block + (blocks / processors).ceil() * moved;
                if best.is_none_or(|b| cycles < b.0) {
                    best = Some((cycles, cut));
                }
            }
        }
    }
    best.map(|b| b.1)
}
