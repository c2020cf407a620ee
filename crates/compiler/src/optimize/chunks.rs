//! The loop over the chunks of a reduction whose factors a workgroup stages in shared memory.

use super::matrix_unit::product;
use super::plan::Kind;
use crate::kernel::Kernel;
use rustc_hash::FxHashMap;
use winograph_ir::SumOrder;
use winograph_ir::indexed::Val;
use winograph_ir::int::{IntId, RangeId, RangeRole};

/// The ranges of a reduction in chunks.
#[derive(Clone, Debug)]
pub struct SharedRanges {
    /// The loop over chunks: those of all reduce axes, as one.
    pub outer: RangeId,
    /// The terms of a chunk; with a matrix unit, how often the unit's own terms are in a chunk.
    pub chunk: RangeId,
    /// Chunks in shared memory at a time, at least 1.
    pub stages: i64,
}

/// The chunks of a scheduled kernel, given the parts of its reduce axes. Loops over several axes become one over all of
/// their chunks, so that what comes next is a matter of adding one.
///
/// # Errors
/// Why there are none, though a part is shared.
pub(super) fn shared_ranges(
    kernel: &mut Kernel,
    sums: &[Vec<(RangeId, Kind)>],
    stages: u32,
) -> Result<Option<SharedRanges>, String> {
    let is_shared = |parts: &&Vec<(RangeId, Kind)>| parts.iter().any(|p| p.1 == Kind::Shared);
    let mut with = sums.iter().filter(is_shared);
    let Some(parts) = with.next() else { return Ok(None) };
    let inside = "a shared factor is inside of one loop factor, and nothing but a matrix factor is inside of it";
    let (outer, rest) = match parts.split_first() {
        Some((&(outer, Kind::Loop), rest)) => (Some(outer), rest),
        _ => (None, &parts[..]),
    };
    let chunk = match rest {
        [(chunk, Kind::Shared)] | [(chunk, Kind::Shared), (_, Kind::Matrix)] => *chunk,
        _ => return Err(inside.to_string()),
    };
    let others = sums.iter().filter(|p| !is_shared(p)).flatten();
    if with.next().is_some() || others.clone().any(|p| p.1 != Kind::Loop) {
        return Err("one reduce axis is shared, and the others are loops".to_string());
    }
    let stages = stages.max(1) as i64;
    // Neighbouring chunks differ along the other axes: taps of a window read the same lines of the caches.
    let loops: Vec<RangeId> = outer.into_iter().chain(others.map(|p| p.0)).collect();
    match loops[..] {
        [] => Err(inside.to_string()),
        [outer] => Ok(Some(SharedRanges { outer, chunk, stages })),
        _ => {
            let order = product(kernel).and_then(|p| match kernel.graph.val(p.reduce) {
                Val::Reduce { order, .. } => Some(*order),
                _ => None,
            });
            if order != Some(SumOrder::Any) {
                return Err("a shared factor changes the order of a sum, which is given".to_string());
            }
            let ints = &mut kernel.graph.ints;
            let sizes: Option<Vec<i64>> = loops.iter().map(|&r| ints.const_size(r)).collect();
            let sizes = sizes.ok_or("a shared factor beside a reduce axis whose size is a parameter")?;
            let all = sizes.iter().try_fold(1i64, |n, &s| n.checked_mul(s)).ok_or("very many chunks")?;
            let size = ints.constant(all);
            let outer = ints.new_range(size, RangeRole::Reduce);
            let number = ints.range(outer);
            let mut map: FxHashMap<RangeId, IntId> = FxHashMap::default();
            let mut inner = 1;
            for (&r, &n) in loops.iter().zip(&sizes).rev() {
                let place = ints.div_const(number, inner);
                map.insert(r, ints.rem_const(place, n));
                inner *= n;
            }
            // Where the sum lists the first of them: around what is inside of a chunk.
            let listed = kernel.reduce_ranges().into_iter().find(|r| loops.contains(r));
            let first = |r: &RangeId| if Some(*r) == listed { vec![outer] } else { vec![] };
            let bound = loops.iter().map(|r| (*r, first(r))).collect();
            kernel.replace_ranges(&map, &bound, &[]);
            Ok(Some(SharedRanges { outer, chunk, stages }))
        }
    }
}
