//! `parts`: long sums of few results, in parts that run beside each other.
//!
//! Takes a graph after `fuse`, for a GPU. A reduction whose results are too few to fill the machine becomes a stage of
//! partial results, each over one part of a reduced range, and the reduction of those, which keeps what was fused to it.
//! Parts are of one size, so that nothing is gated, and depend on the graph and the target alone. A half float's parts
//! are kept in f32, in which it is summed anyway. A part is a run of neighbouring terms; but where a row of a matrix times
//! a vector is summed and its terms are neighbours in memory, each part takes every so manyth term, so that threads beside
//! each other read what lies beside each other.

use super::fuse::Decision;
use crate::options::Products;
use crate::target::Gpu;
use rustc_hash::{FxHashMap, FxHashSet};
use winograph_ir::indexed::{BufId, Buffer, Def, Graph, Origin, Role, Scope, Source, Val, ValId};
use winograph_ir::int::{IntId, IntNode, RangeId, RangeRole};
use winograph_ir::op::{BinaryOp, ReduceOp, SumOrder};
use winograph_ir::{DType, Scalar};

/// Terms of a part, at least; of a product of two matrices, of the range that is cut, so that two chunks of 8 are copied to
/// shared memory in turns.
const LEAST_TERMS: i64 = 16;
/// Cycles from one term of a thread's sum to the next where too few threads hide what loads take; measured on an H100 by
/// sums of 256 to 4,608 terms and few results: 80 to 110.
const CYCLES_PER_TERM: f64 = 100.0;
/// The same on matrix units, which take many terms at a time from shared memory.
const CYCLES_PER_UNIT_TERM: f64 = 12.0;
/// Multiply-adds of f32 that a multiprocessor does a cycle: 0.6 of its 128.
const RATE: f64 = 77.0;
/// Those of half floats on its matrix units: 0.4 of 1,024 that `mma.sync` has.
const UNIT_RATE: f64 = 410.0;
/// Bytes of memory a cycle, and threads of a multiprocessor whose loads of 16 bytes keep it busy.
const BYTES: f64 = 1700.0;
const THREADS: f64 = 200.0;
/// Results of a thread: vectors of a row times a matrix, blocks of registers of a product of two matrices.
const RESULTS: [f64; 2] = [4.0, 16.0];
/// Cycles that one more launch takes.
const LAUNCH: f64 = 5000.0;
/// What a sum takes, at least, for one more launch to be worth it: of products of two matrices less, since their estimate is
/// the better one.
const LEAST: [f64; 2] = [8.0 * LAUNCH, 4.0 * LAUNCH];
/// What a sum in parts may take of what it took, at most: the estimate is rough.
const GAIN: f64 = 0.6;

/// Cuts sums into parts and tells of it in what `fuse` decided; gives what each of them writes, and its stage. `products` says
/// how those of what is written may be rounded.
pub fn parts(
    g: &mut Graph,
    gpu: &Gpu,
    products: &dyn Fn(BufId) -> Products,
    decisions: &mut Vec<Decision>,
) -> Vec<(BufId, BufId)> {
    let mut made: Vec<(BufId, BufId)> = Vec::new();
    // The estimate is of CUDA's GPUs from 8.0 on, which can copy and go on; others are not measured.
    if !gpu.copies {
        return made;
    }
    let mut i = 0;
    while i < g.defs.len() {
        if let Some(sum) = Sum::of(g, &g.defs[i], products(g.defs[i].buffer))
            && let Some(parts) = sum.best(g, gpu)
        {
            let reader = g.defs[i].buffer;
            // The sum of very many parts is cut again.
            let name = match made.iter().filter(|m| m.0 == reader).count() {
                0 => format!("{}.P", g.buffer(reader).name),
                n => format!("{}.P{}", g.buffer(reader).name, n + 1),
            };
            let stage = cut(g, i, &sum, &parts, name);
            let size = |r: &RangeId| g.ints.max_size(*r);
            decisions.push(Decision {
                stage: g.buffer(stage).name.clone(),
                kept: true,
                reason: format!(
                    "{} results of {} terms each do not fill the machine: the terms in {} parts beside each other",
                    sum.axes.iter().map(size).product::<i64>(),
                    sum.ranges.iter().map(size).product::<i64>(),
                    parts.count
                ),
            });
            made.push((reader, stage));
        }
        i += 1;
    }
    made
}

/// How terms are cut into parts.
struct Parts {
    /// The range that is cut.
    range: RangeId,
    count: i64,
    /// Whether neighbouring terms are in different parts.
    interleaved: bool,
}

/// The one reduction of a definition.
struct Sum {
    reduce: ValId,
    ranges: Box<[RangeId]>,
    /// The definition's axes on which the reduction depends.
    axes: Vec<RangeId>,
    /// Whether matrix units multiply the terms' factors.
    on_units: bool,
    /// Whether each factor moves along an axis of its own.
    is_product: bool,
    /// Bytes of the buffers that it reads.
    bytes: f64,
    /// The reduced range along which the largest of them is contiguous, where no axis moves along it as well.
    along: Option<RangeId>,
}

impl Sum {
    /// The reduction, if the definition has one outermost reduction over constant sizes whose terms may be combined in
    /// any order.
    fn of(g: &Graph, def: &Def, products: Products) -> Option<Sum> {
        let nodes = g.topological(&[def.value]);
        let reduces = || nodes.iter().copied().filter(|&v| matches!(g.val(v), Val::Reduce { .. }));
        let mut inner: FxHashSet<ValId> = FxHashSet::default();
        for r in reduces() {
            let terms = g.operands(r).collect::<Vec<_>>();
            inner.extend(g.topological(&terms).into_iter().filter(|&v| matches!(g.val(v), Val::Reduce { .. })));
        }
        let mut outermost = reduces().filter(|v| !inner.contains(v));
        let (Some(reduce), None) = (outermost.next(), outermost.next()) else { return None };
        let Val::Reduce { ranges, order: SumOrder::Any, x, .. } = g.val(reduce) else { return None };
        let constant = |r: &RangeId| g.ints.const_size(*r).is_some();
        if !def.axes.iter().chain(ranges.iter()).all(constant) {
            return None;
        }
        let free = g.free_ranges(reduce);
        if free.iter().any(|r| !def.axes.contains(r)) {
            return None;
        }
        let mut bytes = FxHashMap::default();
        let mut largest: (f64, Option<RangeId>) = (0.0, None);
        for &v in &g.topological(&[*x]) {
            match g.val(v) {
                // Products with constant matrices are unrolled.
                Val::Load { src: Source::Table(_), .. } => return None,
                Val::Load { src: Source::Buffer(b), index, .. } => {
                    let buffer = g.buffer(*b);
                    let sizes = buffer.shape.iter().map(|&s| g.ints.as_const(s).map(|s| s as f64));
                    let elements: Option<f64> = sizes.product();
                    let size = elements? * buffer.dtype.size() as f64;
                    bytes.insert(*b, size);
                    if size > largest.0 {
                        let moves = |(i, s): &(&IntId, &IntId)| {
                            g.ints.as_const(**s) != Some(1) || g.ints.as_const(**i).is_none()
                        };
                        let at = index.iter().zip(&buffer.shape).rfind(moves).map(|(&i, _)| g.ints.node(i));
                        largest = match at {
                            Some(IntNode::Range(r)) if ranges.contains(r) => (size, Some(*r)),
                            _ => (size, None),
                        };
                    }
                }
                _ => {}
            }
        }
        let moves = |v: ValId, other: ValId| free.iter().any(|&r| g.depends_on(v, r) && !g.depends_on(other, r));
        let (on_units, is_product) = match *g.val(*x) {
            Val::Binary { op: BinaryOp::Mul, a, b } => {
                let rounded = g.dtype(*x) == DType::F32 && matches!(products, Products::Tf32 | Products::Tf32x3);
                let both = moves(a, b) && moves(b, a);
                (both && (rounded || is_half(g, a) && is_half(g, b)), both)
            }
            _ => (false, false),
        };
        let axes = def.axes.iter().copied().filter(|r| free.contains(r)).collect();
        let bytes = bytes.values().sum();
        Some(Sum { reduce, ranges: ranges.clone(), axes, on_units, is_product, bytes, along: largest.1 })
    }

    /// The range to cut and into how many parts, if that is estimated to be clearly faster.
    fn best(&self, g: &Graph, gpu: &Gpu) -> Option<Parts> {
        let size = |r: &RangeId| g.ints.max_size(*r).max(1);
        let results: f64 = self.axes.iter().map(|r| size(r) as f64).product();
        let terms = self.ranges.iter().map(size).try_fold(1i64, i64::checked_mul)?;
        let cycles = |parts: i64| self.cycles(results, terms as f64, parts as f64, gpu);
        let least = |of: &[RangeId], multiple: i64, interleaved: bool| {
            let each = of.iter().flat_map(|r| {
                let counts = (2..=size(r)).filter(|p| size(r) % p == 0 && p % multiple == 0);
                let of_part = if self.is_product { size(r) } else { terms };
                let enough = move |p: &i64| of_part / p >= LEAST_TERMS;
                counts.filter(enough).map(|count| Parts { range: *r, count, interleaved })
            });
            each.min_by(|a, b| cycles(a.count).total_cmp(&cycles(b.count)))
        };
        if cycles(1) < LEAST[usize::from(self.is_product)] {
            return None;
        }
        let row = self.along.filter(|_| !self.is_product);
        // Whole warps of threads that read 16 bytes each.
        let rows = row.and_then(|r| least(&[r], (gpu.lanes * gpu.access / 4) as i64, true));
        rows.or_else(|| least(&self.ranges, 1, false)).filter(|p| cycles(p.count) < GAIN * cycles(1))
    }

    /// Cycles of the sums in so many parts, about.
    fn cycles(&self, results: f64, terms: f64, parts: f64, gpu: &Gpu) -> f64 {
        let processors = gpu.processors as f64;
        let (per_term, rate) = if self.on_units { (CYCLES_PER_UNIT_TERM, UNIT_RATE) } else { (CYCLES_PER_TERM, RATE) };
        let threads = results * parts / RESULTS[usize::from(self.is_product)];
        let busy = (threads / (processors * THREADS)).clamp(f64::MIN_POSITIVE, 1.0);
        let chain = per_term * terms / parts;
        let most = chain.max(results * terms / (processors * rate)).max(self.bytes / BYTES / busy);
        let more = if parts > 1.0 { LAUNCH + 2.0 * results * parts * 4.0 / BYTES } else { 0.0 };
        most + more
    }
}

/// Whether a factor is a half float, before it is widened.
fn is_half(g: &Graph, v: ValId) -> bool {
    let half = |v: ValId| matches!(g.dtype(v), DType::F16 | DType::BF16);
    match *g.val(v) {
        Val::Cast { x, .. } => half(v) || half(x),
        _ => half(v),
    }
}

/// Puts a stage of partial results in front of a definition and leaves their reduction in it.
fn cut(g: &mut Graph, def: usize, sum: &Sum, parts: &Parts, name: String) -> BufId {
    let Val::Reduce { op, ranges, order, fused, x } = g.val(sum.reduce).clone() else { unreachable!("a reduction") };
    let dtype = g.dtype(sum.reduce);
    let wide = dtype.compute();
    let range = parts.range;
    let count = g.ints.constant(parts.count);
    let part_size = g.ints.max_size(range) / parts.count;

    let mut map: FxHashMap<RangeId, IntId> = FxHashMap::default();
    let mut axes: Vec<RangeId> = Vec::with_capacity(sum.axes.len() + 1);
    for &r in &sum.axes {
        let size = g.ints.size(r);
        let new = g.ints.new_range(size, RangeRole::Map);
        map.insert(r, g.ints.range(new));
        axes.push(new);
    }
    let part = g.ints.new_range(count, RangeRole::Map);
    axes.push(part);
    let size = g.ints.constant(part_size);
    let inner: Vec<RangeId> = ranges
        .iter()
        .map(|&r| {
            let size = if r == range { size } else { g.ints.size(r) };
            let new = g.ints.new_range(size, RangeRole::Reduce);
            let at = g.ints.range(new);
            let at = if r == range {
                let part = g.ints.range(part);
                let steps = if parts.interleaved { (1, parts.count) } else { (part_size, 1) };
                g.ints.sum(&[(part, steps.0), (at, steps.1)], 0)
            } else {
                at
            };
            map.insert(r, at);
            new
        })
        .collect();
    let terms = match *g.val(x) {
        // As `legalize` has it: the product of two half floats is not rounded before it is summed.
        Val::Binary { op: BinaryOp::Mul, a, b } if fused && op == ReduceOp::Add && wide != dtype => {
            let [a, b] = [a, b].map(|x| g.add(Val::Cast { x, dtype: wide }));
            g.binary(BinaryOp::Mul, a, b)
        }
        _ => g.add(Val::Cast { x, dtype: wide }),
    };
    let terms = g.substitute(terms, &|r| map.get(&r).copied());
    let value = g.add(Val::Reduce { op, ranges: inner.into(), order, fused, x: terms });

    let shape = axes.iter().map(|&r| g.ints.size(r)).collect();
    let origin = Origin::Internal;
    let stage = g.add_buffer(Buffer { name, dtype: wide, shape, origin, scope: Scope::Global, layout: None });
    let role = std::mem::replace(&mut g.defs[def].role, Role::Other);
    g.defs.insert(def, Def { buffer: stage, axes, value, keep: true, repeat: false, role });

    let outer = g.ints.new_range(count, RangeRole::Reduce);
    let index: Vec<IntId> = sum.axes.iter().chain([&outer]).map(|&r| g.ints.range(r)).collect();
    let partial = g.load(Source::Buffer(stage), &index, &[], Scalar::zero(wide));
    let all = g.add(Val::Reduce { op, ranges: [outer].into(), order, fused: false, x: partial });
    let all = g.add(Val::Cast { x: all, dtype });
    let mut memo = FxHashMap::from_iter([(sum.reduce, all)]);
    let old = g.defs[def + 1].value;
    g.defs[def + 1].value = g.rebuild(old, &mut memo, &mut |g, val| g.add(val));
    stage
}
