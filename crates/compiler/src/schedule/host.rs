//! `host`: launches that a program repeats for chunks of the result.
//!
//! Takes a chain of kernels as [`narrow`] does; leaves the same kernels, each a launch of its own under loops of the host:
//! what runs the program launches one after another for the first chunk, then for the second one. The buffers between them
//! hold one chunk, so that they may stay in a cache from launch to launch, and are less memory in any case. The number of
//! the chunk is a parameter of each kernel: all chunks run the same code, of which the last may have less to do.

use super::narrow::{Block, NarrowError, narrow};
use crate::kernel::{HostLoops, Kernel, Launch};
use rustc_hash::FxHashMap;
use winograph_ir::indexed::Scope;
use winograph_ir::linear::LoopKind;

/// Most launches that a kernel is repeated for.
pub const MOST_CHUNKS: i64 = 1024;

/// Blocks of axes with these places among a kernel's loops and these sizes, outermost first, in about so many chunks: of
/// the first axis alone, unless that has fewer values.
pub fn blocks(axes: &[(usize, i64)], chunks: i64) -> Vec<Block> {
    let mut out = Vec::new();
    let mut left = chunks.clamp(1, MOST_CHUNKS);
    for &(axis, size) in axes {
        if left <= 1 || size < 1 {
            break;
        }
        let of = (size + left - 1) / left;
        let count = (size + of - 1) / of;
        out.push(Block { axis, size: of, kind: LoopKind::Grid });
        if of > 1 {
            break;
        }
        left = (left + count - 1) / count;
    }
    out
}

/// The number of chunks that blocks of axes of these sizes make.
pub fn count(axes: &[(usize, i64)], blocks: &[Block]) -> i64 {
    let size = |b: &Block| axes.iter().find(|a| a.0 == b.axis).map_or(1, |a| a.1);
    blocks.iter().map(|b| (size(b) + b.size - 1) / b.size.max(1)).product()
}

/// Puts `chain`, places in `kernels` of writers before readers, under loops of the host over blocks of its last kernel,
/// outermost first. `number` tells these loops from those of other chains. On an error nothing has changed.
///
/// # Errors
/// Those of [`narrow`], and blocks that leave the result whole.
pub fn repeat(
    kernels: &mut [Kernel],
    chain: &[usize],
    blocks: &[Block],
    number: usize,
) -> Result<Vec<Launch>, NarrowError> {
    // Grid loops are around everything, as the host's are.
    let blocks: Vec<Block> = blocks.iter().map(|b| Block { kind: LoopKind::Grid, ..*b }).collect();
    let before: Vec<Kernel> = chain.iter().map(|&n| kernels[n].clone()).collect();
    let loops = narrow(kernels, chain, &blocks)?.outer.len();
    let mut sizes = Vec::new();
    let bound = chain.iter().all(|&n| match bind(&mut kernels[n]) {
        Some(own) if own.len() == loops && (sizes.is_empty() || sizes == own) => {
            sizes = own;
            true
        }
        _ => false,
    });
    if !bound || sizes.is_empty() {
        chain.iter().zip(before).for_each(|(&n, k)| kernels[n] = k);
        return Err(NarrowError::new(if bound {
            "one chunk is the whole result"
        } else {
            "kernels under other loops"
        }));
    }
    let host = HostLoops { number, sizes };
    Ok(chain.iter().map(|&n| Launch { host: Some(host.clone()), ..Launch::single(n) }).collect())
}

/// Makes the loops around a kernel parameters, and what it shares with others memory that all of them see. Gives the
/// loops' sizes.
fn bind(kernel: &mut Kernel) -> Option<Vec<i64>> {
    let outer = std::mem::take(&mut kernel.outer);
    let ints = &mut kernel.graph.ints;
    let sizes = outer.iter().map(|&r| ints.const_size(r)).collect::<Option<Vec<i64>>>()?;
    let mut map = FxHashMap::default();
    for (&r, &size) in outer.iter().zip(&sizes) {
        let param = ints.new_host_param(size);
        map.insert(r, ints.param(param));
    }
    kernel.replace_ranges(&map, &FxHashMap::default(), &[]);
    for b in kernel.graph.buffers.iter_mut().filter(|b| b.scope == Scope::Scratch) {
        b.scope = Scope::Global;
    }
    Some(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_of_the_first_axis_as_long_as_it_lasts() {
        let cut = |axes: &[(usize, i64)], chunks| {
            let blocks = blocks(axes, chunks);
            (blocks.iter().map(|b| (b.axis, b.size)).collect::<Vec<_>>(), count(axes, &blocks))
        };
        assert_eq!(cut(&[(0, 64), (2, 14)], 4), (vec![(0, 16)], 4));
        assert_eq!(cut(&[(0, 7), (2, 14)], 3), (vec![(0, 3)], 3));
        assert_eq!(cut(&[(0, 9)], 8), (vec![(0, 2)], 5));
        assert_eq!(cut(&[(0, 4), (2, 14)], 8), (vec![(0, 1), (2, 7)], 8));
        assert_eq!(cut(&[(0, 4), (2, 14)], 4), (vec![(0, 1)], 4));
        assert_eq!(cut(&[(1, 5)], 1), (vec![], 1));
        assert_eq!(cut(&[(1, 5)], i64::MAX), (vec![(1, 1)], 5));
    }
}
