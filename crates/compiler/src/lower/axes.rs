//! Nested transforms of many points, one axis after the other.
//!
//! Takes a kernel whose unrolled points are so many that their statements in a row would take the C compiler seconds:
//! transforms over three axes, as `sum over p of T[u, p] * inner(p, v, w)` for all u, v, w. Leaves a loop over `p` that
//! evaluates `inner` for all v and w into memory of the code's own, then loops over all but the last of these that sum
//! over `p`. Each sum has the terms and the order that it has unrolled, so that no bit of any result changes.

use super::emit::Emit;
use crate::kernel::Store;
use crate::optimize::plan::Scheduled;
use rustc_hash::{FxHashMap, FxHashSet};
use winograph_ir::Scalar;
use winograph_ir::indexed::{Buffer, Origin, Scope, Source, Val, ValId};
use winograph_ir::int::{IntId, RangeId};
use winograph_ir::linear::{LoopKind, Stmt};
use winograph_ir::op::BinaryOp;

/// Most points of unrolled ranges that are written out in a row: those of a transform over two axes of 8 positions.
const MOST_POINTS: i64 = 64;

/// The outermost sum of nested transforms.
struct Outer {
    /// What it sums over.
    over: RangeId,
    /// What it sums, without its coefficient.
    inner: ValId,
    /// Unrolled map ranges that `inner` depends on.
    maps: Vec<RangeId>,
}

impl Emit {
    /// Evaluates and stores a kernel's points axis by axis, where there are many and they are nested transforms.
    pub(super) fn by_axes(&mut self, scheduled: &Scheduled) -> bool {
        let [store] = &scheduled.kernel.stores[..] else { return false };
        if !scheduled.thread.is_empty() {
            // On GPUs memory of a thread's own is registers only where its addresses are constants.
            return false;
        }
        let maps: Vec<RangeId> = self.unroll.iter().copied().filter(|r| !self.reduce_ranges.contains(r)).collect();
        let Some(outer) = self.outer_transform(store.value, &maps) else { return false };
        let lane = self.lane.filter(|&l| self.g.depends_on(outer.inner, l));
        let dtype = self.g.dtype(outer.inner);
        let ranges: Vec<RangeId> = [outer.over].into_iter().chain(outer.maps.iter().copied()).chain(lane).collect();
        let shape: Vec<IntId> = ranges.iter().map(|&r| self.g.ints.size(r)).collect();
        let index: Vec<IntId> = ranges.iter().map(|&r| self.g.ints.range(r)).collect();
        let layout = Some(self.g.row_major(&shape));
        let name = format!("{}.axis", self.g.buffer(store.buffer).name);
        let local =
            self.g.add_buffer(Buffer { name, dtype, shape, origin: Origin::Internal, scope: Scope::Register, layout });
        self.locals.push(local);

        let anywhere = |e: &IntId| maps.iter().all(|&r| !self.g.ints.depends_on(*e, r));
        let seen: Vec<IntId> = store.gate.iter().copied().filter(anywhere).collect();
        self.push();
        self.open.push(outer.over);
        let first = Store { buffer: local, index: index.clone(), gate: [].into(), value: outer.inner };
        self.store_points(&[first], &outer.maps, &seen);
        self.open.pop();
        let body = self.pop();
        self.stmt(Stmt::Loop { range: outer.over, kind: LoopKind::Serial, body });

        let load = self.g.load(Source::Buffer(local), &index, &[], Scalar::zero(dtype));
        let mut memo = FxHashMap::from_iter([(outer.inner, load)]);
        let value = self.g.rebuild(store.value, &mut memo, &mut |g, v| g.add(v));
        let looped = &outer.maps[..outer.maps.len() - 1];
        let loops: Vec<(RangeId, LoopKind)> = looped.iter().map(|&r| (r, LoopKind::Serial)).collect();
        let left: Vec<RangeId> = maps.into_iter().filter(|r| !looped.contains(r)).collect();
        for _ in &loops {
            self.push();
        }
        self.store_points(&[Store { value, ..store.clone() }], &left, &[]);
        self.close(&loops);
        true
    }

    /// The only outermost sum of a value, if it is a transform of transforms with too many points.
    fn outer_transform(&self, value: ValId, maps: &[RangeId]) -> Option<Outer> {
        let g = &self.g;
        let points =
            |ranges: &[RangeId]| ranges.iter().try_fold(1i64, |n, &r| Some(n.saturating_mul(g.ints.const_size(r)?)));
        let summed: Vec<RangeId> = self.unroll.iter().copied().filter(|r| self.reduce_ranges.contains(r)).collect();
        let (stored, terms) = (points(maps)?, points(&summed)?);
        if stored.max(terms) <= MOST_POINTS {
            return None;
        }
        let mut sums = Vec::new();
        let mut seen = FxHashSet::default();
        let mut stack = vec![value];
        while let Some(v) = stack.pop() {
            match g.val(v) {
                _ if !seen.insert(v) => {}
                Val::Reduce { ranges, x, .. } => sums.push((ranges.clone(), *x)),
                _ => stack.extend(g.operands(v)),
            }
        }
        let [(ranges, x)] = &sums[..] else { return None };
        let ([over], &Val::Binary { op: BinaryOp::Mul, a, b }) = (&ranges[..], g.val(*x)) else { return None };
        let table = |v: ValId| matches!(g.val(v), Val::Load { src: Source::Table(_), .. });
        let inner = if table(a) { b } else { table(b).then_some(a)? };
        let unrolled = |v: &ValId| match g.val(*v) {
            Val::Reduce { ranges, .. } => Some(ranges.iter().all(|r| self.unroll.contains(r))),
            _ => None,
        };
        let nested: Vec<bool> = g.topological(&[inner]).iter().filter_map(unrolled).collect();
        let on: Vec<RangeId> = maps.iter().copied().filter(|&r| g.depends_on(inner, r)).collect();
        let splits = !nested.is_empty() && nested.iter().all(|&n| n) && !on.is_empty() && on.len() < maps.len();
        (self.unroll.contains(over) && splits).then_some(Outer { over: *over, inner, maps: on })
    }
}
