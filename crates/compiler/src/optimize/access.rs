//! What a kernel touches, and how: the facts on which layouts, lanes and tiles are chosen.

use crate::kernel::Kernel;
use crate::target::Target;
use winograph_ir::indexed::{BufId, Graph, Source, Val, ValId};
use winograph_ir::int::{IntId, RangeId};

/// One load or store of a kernel.
#[derive(Clone, Debug)]
pub struct Touch {
    /// A buffer of the kernel's graph.
    pub buffer: BufId,
    /// One index per axis.
    pub index: Vec<IntId>,
    /// Conditions.
    pub gate: Vec<IntId>,
    /// Whether it writes.
    pub write: bool,
    /// Whether an index depends on data.
    pub dynamic: bool,
    /// How often it runs, in elements, if each value is computed once per point of the loops it depends on.
    pub runs: f64,
    /// Whether it is inside a reduction that stays a loop.
    pub in_loop: bool,
}

/// How an access moves as one range counts up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stride {
    /// Not at all.
    Uniform,
    /// To the next element.
    Contiguous,
    /// By a number of bytes, where it is known.
    Strided(Option<i64>),
    /// In some other way.
    Irregular,
}

/// Ranges that index a constant table: unrolling them folds the table away.
pub fn table_ranges(kernel: &Kernel) -> Vec<RangeId> {
    let g = &kernel.graph;
    let mut out: Vec<RangeId> = Vec::new();
    for v in g.topological(&kernel.roots()) {
        if let Val::Load { src: Source::Table(_), index, .. } = g.val(v) {
            for &i in index.iter() {
                for &r in g.ints.free_ranges(i) {
                    if !out.contains(&r) && g.ints.const_size(r).is_some() {
                        out.push(r);
                    }
                }
            }
        }
    }
    out
}

/// Every load and store of a kernel's buffers. `unrolled` ranges are taken to be expanded.
pub fn touches(kernel: &Kernel, unrolled: &[RangeId]) -> Vec<Touch> {
    let g = &kernel.graph;
    let size = |r: RangeId| g.ints.max_size(r) as f64;
    let around = kernel.outer.iter().chain(kernel.loops.iter().filter(|r| !unrolled.contains(r)));
    let outer: f64 = around.map(|&r| size(r)).product();
    let looped: Vec<ValId> = kernel
        .reduces()
        .into_iter()
        .filter(|&v| matches!(g.val(v), Val::Reduce { ranges, .. } if ranges.iter().any(|r| !unrolled.contains(r))))
        .flat_map(|v| g.topological(&[v]))
        .collect();
    let reduce_ranges = kernel.reduce_ranges();
    let mut out = Vec::new();
    for v in kernel.loads() {
        let Val::Load { src: Source::Buffer(buffer), index, gate, dynamic, .. } = g.val(v) else { continue };
        let inner: f64 = g
            .free_ranges(v)
            .iter()
            .filter(|r| reduce_ranges.contains(r) || unrolled.contains(r))
            .map(|&r| size(r))
            .product();
        out.push(Touch {
            buffer: *buffer,
            index: index.to_vec(),
            gate: gate.to_vec(),
            write: false,
            dynamic: dynamic.is_some(),
            runs: outer * inner,
            in_loop: looped.contains(&v),
        });
    }
    for s in &kernel.stores {
        let inner: f64 = kernel.loops.iter().filter(|r| unrolled.contains(r)).map(|&r| size(r)).product();
        out.push(Touch {
            buffer: s.buffer,
            index: s.index.clone(),
            gate: s.gate.to_vec(),
            write: true,
            dynamic: false,
            runs: outer * inner,
            in_loop: false,
        });
    }
    out
}

/// How an access moves with a range, if the buffer's axis `inner` is the contiguous one.
pub fn stride(g: &mut Graph, touch: &Touch, range: RangeId, inner: Option<usize>) -> Stride {
    let mut moving = None;
    for (axis, &i) in touch.index.iter().enumerate() {
        if g.ints.depends_on(i, range) {
            if moving.is_some() {
                return Stride::Irregular;
            }
            moving = Some((axis, i));
        }
    }
    match moving {
        None if touch.dynamic => Stride::Irregular,
        None => Stride::Uniform,
        Some(_) if touch.dynamic => Stride::Irregular,
        Some((axis, i)) => match g.ints.split_linear(i, range) {
            Some((1, _)) if Some(axis) == inner => Stride::Contiguous,
            Some((c, _)) => {
                let b = g.buffer(touch.buffer);
                let along = b.layout.as_ref().and_then(|l| l.dims.iter().find(|d| d.axis == axis)).map(|d| d.stride);
                let elements = match along {
                    Some(s) => g.ints.as_const(s),
                    None if Some(axis) == inner => Some(1),
                    None => None,
                };
                Stride::Strided(elements.map(|s| (s * c).abs().saturating_mul(b.dtype.size() as i64)))
            }
            None => Stride::Irregular,
        },
    }
}

/// Cost of one lane of a strided access, in vector instructions. Neighbouring lanes that share cache lines are cheap;
/// distances that are multiples of a large power of two fall into few sets of the first-level cache and evict each
/// other.
fn strided_lane_cost(bytes: Option<i64>) -> f64 {
    match bytes {
        Some(b) if b <= 64 => 0.8,
        Some(b) if b % 4096 == 0 => 4.0,
        Some(b) if b % 1024 == 0 => 2.0,
        _ => 1.2,
    }
}

/// The axis of a buffer whose neighbours are neighbours in memory, where its layout is known.
pub fn inner_axis(g: &Graph, buffer: BufId) -> Option<usize> {
    let b = g.buffer(buffer);
    let layout = b.layout.as_ref()?;
    layout.dims.iter().rev().find(|d| g.ints.as_const(b.shape[d.axis]) != Some(1)).map(|d| d.axis)
}

/// The cost of an access with lanes along a range (`None`: scalar code), in vector instructions over the whole kernel.
/// `inner` is the contiguous axis of its buffer.
/// On a GPU the lanes are those of a warp and the cost is in sectors.
pub fn touch_cost(
    g: &mut Graph,
    t: &Touch,
    lane: Option<(RangeId, i64)>,
    inner: Option<usize>,
    target: &Target,
) -> f64 {
    let Some((range, lanes)) = lane else {
        return t.runs * if target.gpu.is_some() { 32.0 } else { 1.5 };
    };
    if let Some(gpu) = &target.gpu {
        let up = |bytes: i64| (bytes + gpu.sector as i64 - 1) / gpu.sector as i64;
        let sectors = match stride(g, t, range, inner) {
            Stride::Uniform => 1,
            Stride::Contiguous => up(lanes * g.buffer(t.buffer).dtype.size() as i64),
            Stride::Strided(Some(bytes)) => up(lanes * bytes).clamp(1, lanes),
            Stride::Strided(None) => lanes,
            Stride::Irregular => sectors(g, t, range, lanes, gpu.sector as i64).unwrap_or(lanes),
        };
        // A range that does not fill a warp leaves room for another one; it still costs a little more.
        return t.runs / lanes as f64 * (sectors as f64 + 0.01 * (gpu.lanes as i64 - lanes) as f64);
    }
    let size = g.ints.max_size(range);
    // In a reduction loop what vectors do not fill becomes a region of its own, and registers hold what is read more
    // than once.
    let (filled, reused) = match t.in_loop && size >= lanes {
        true => (1.0, 0.15),
        false => (size as f64 / ((size + lanes - 1) / lanes * lanes) as f64, 1.0),
    };
    let l = lanes as f64;
    let mut cost = match stride(g, t, range, inner) {
        Stride::Uniform if t.write => l,
        Stride::Uniform | Stride::Contiguous => 1.0,
        // A few elements apart: contiguous vectors and permutes.
        Stride::Strided(Some(bytes)) if bytes <= 8 * g.buffer(t.buffer).dtype.size() as i64 => 3.5,
        Stride::Strided(bytes) => strided_lane_cost(bytes) * l,
        Stride::Irregular => 2.0 * l,
    };
    if t.gate.iter().any(|&c| g.ints.depends_on(c, range)) {
        cost += 1.0;
    }
    t.runs / (l * filled) * cost * reused
}

/// Sectors that lanes in the middle of a range touch, of memory whose layout is known.
fn sectors(g: &mut Graph, t: &Touch, range: RangeId, lanes: i64, sector: i64) -> Option<i64> {
    let layout = g.buffer(t.buffer).layout.clone().filter(|_| !t.dynamic)?;
    let bytes = g.buffer(t.buffer).dtype.size() as i64;
    let address = g.flatten(&layout, &t.index);
    let ints = &g.ints;
    let first = (ints.max_size(range) - lanes).max(0) / 2;
    let param = |p: winograph_ir::ParamId| ints.param_info(p).typical();
    let mut touched = Vec::with_capacity(lanes as usize);
    for lane in 0..lanes {
        let at = |r: RangeId| if r == range { first + lane } else { ints.max_size(r) / 2 };
        touched.push((ints.eval(address, &at, &param)? * bytes).div_euclid(sector));
    }
    touched.sort_unstable();
    touched.dedup();
    Some(touched.len() as i64)
}
