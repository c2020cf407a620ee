//! `layout`: how the compiler's own buffers lie in memory.
//!
//! Takes kernels; leaves a layout for every internal buffer, chosen for its writer and its readers together: the axis
//! that is contiguous is the one that lets the kernels' best lanes load and store vectors, the ranges that kernels
//! unroll (transform positions) are slowest, and the rest keeps its order.

use crate::kernel::Kernel;
use crate::optimize::access::{self, Touch};
use crate::optimize::heuristic;
use crate::target::Target;
use winograph_ir::indexed::{BufId, Buffer, Layout, LayoutDim, Origin};
use winograph_ir::int::RangeId;

/// What was decided for one buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The buffer.
    pub buffer: String,
    /// Its axes by number, slowest first.
    pub order: Vec<usize>,
    /// Why.
    pub reason: String,
}

struct Facts {
    touches: Vec<Touch>,
    unrolled: Vec<RangeId>,
    lanes: i64,
    reach: f64,
}

/// Lays out the internal buffers of a program. `buffers` is the program's list, which kernels refer to.
pub fn layout(kernels: &mut [Kernel], buffers: &mut [Buffer], target: &Target) -> Vec<Choice> {
    let mut facts: Vec<Facts> = kernels
        .iter()
        .map(|k| {
            let unrolled = heuristic::unrolled(k);
            let touches = access::touches(k, &unrolled);
            Facts { touches, unrolled, lanes: heuristic::full_lanes(k, target), reach: 0.0 }
        })
        .collect();
    let mut inner: Vec<Option<usize>> = buffers.iter().map(|b| b.shape.len().checked_sub(1)).collect();
    for (i, b) in buffers.iter().enumerate() {
        if b.layout.is_some() {
            for k in kernels.iter() {
                if let Some(at) = k.args.iter().position(|a| a.0 as usize == i) {
                    inner[i] = access::inner_axis(&k.graph, BufId(at as u32));
                }
            }
        }
    }
    let own: Vec<usize> = (0..buffers.len())
        .filter(|&i| buffers[i].layout.is_none() && matches!(buffers[i].origin, Origin::Internal))
        .collect();
    for (k, f) in kernels.iter_mut().zip(&mut facts) {
        f.reach = cost(k, f, &inner);
    }
    // Two kinds of moves until none helps: one buffer's inner axis, and all buffers of a kernel for one lane of it.
    for _ in 0..4 {
        let mut improved = false;
        let mut moves: Vec<Vec<(usize, usize)>> = Vec::new();
        for (k, f) in kernels.iter().zip(&facts) {
            for &r in k.loops.iter().filter(|r| !f.unrolled.contains(r)) {
                moves.push(aligned(k, f, r, &own));
            }
        }
        for &b in &own {
            for axis in 0..buffers[b].shape.len() {
                moves.push(vec![(b, axis)]);
            }
        }
        for m in moves {
            if m.iter().all(|&(b, axis)| inner[b] == Some(axis)) {
                continue;
            }
            let mut trial = inner.clone();
            for &(b, axis) in &m {
                trial[b] = Some(axis);
            }
            let mut change = 0.0;
            let mut scale = 0.0;
            let mut updates = Vec::new();
            for (n, (k, f)) in kernels.iter_mut().zip(&facts).enumerate() {
                if !k.args.iter().any(|a| m.iter().any(|x| x.0 == a.0 as usize)) {
                    continue;
                }
                let new = cost(k, f, &trial);
                change += new - f.reach;
                scale += f.reach;
                updates.push((n, new));
            }
            if change < -1e-6 * scale {
                inner = trial;
                for (n, new) in updates {
                    facts[n].reach = new;
                }
                improved = true;
            }
        }
        if !improved {
            break;
        }
    }
    let mut out = Vec::new();
    for &b in &own {
        let (order, reason) = axis_order(kernels, &facts, b, buffers[b].shape.len(), inner[b]);
        out.push(Choice { buffer: buffers[b].name.clone(), order: order.clone(), reason });
        for k in kernels.iter_mut() {
            if let Some(at) = k.args.iter().position(|a| a.0 as usize == b) {
                let shape = k.graph.buffers[at].shape.clone();
                let mut stride = k.graph.ints.constant(1);
                let mut dims = Vec::with_capacity(order.len());
                for &axis in order.iter().rev() {
                    dims.push(LayoutDim { axis, div: 1, modulus: None, stride });
                    stride = k.graph.ints.mul(stride, shape[axis]);
                }
                dims.reverse();
                k.graph.buffers[at].layout = Some(Layout { dims, len: stride });
            }
        }
    }
    out
}

fn cost(k: &mut Kernel, f: &Facts, inner: &[Option<usize>]) -> f64 {
    let args = k.args.clone();
    let inner_of = |b: BufId| inner[args[b.0 as usize].0 as usize];
    let loops = k.loops.clone();
    heuristic::best_lane(&mut k.graph, &f.touches, &loops, &f.unrolled, f.lanes, &inner_of).1
}

/// The inner axes that make every own buffer of a kernel contiguous along a range.
fn aligned(k: &Kernel, f: &Facts, range: RangeId, own: &[usize]) -> Vec<(usize, usize)> {
    let mut out: Vec<(usize, usize)> = Vec::new();
    for t in &f.touches {
        let b = k.args[t.buffer.0 as usize].0 as usize;
        if !own.contains(&b) || out.iter().any(|x| x.0 == b) {
            continue;
        }
        if let Some(axis) = t.index.iter().position(|&i| k.graph.ints.depends_on(i, range)) {
            out.push((b, axis));
        }
    }
    out
}

/// The order of a buffer's axes, slowest first: unrolled ones, the others as they are, the contiguous one.
fn axis_order(
    kernels: &[Kernel],
    facts: &[Facts],
    buffer: usize,
    rank: usize,
    inner: Option<usize>,
) -> (Vec<usize>, String) {
    let mut unrolled = vec![false; rank];
    for (k, f) in kernels.iter().zip(facts) {
        for t in &f.touches {
            if k.args[t.buffer.0 as usize].0 as usize != buffer {
                continue;
            }
            for (axis, &i) in t.index.iter().enumerate() {
                if k.graph.ints.free_ranges(i).iter().any(|r| f.unrolled.contains(r)) {
                    unrolled[axis] = true;
                }
            }
        }
    }
    let mut order: Vec<usize> = (0..rank).collect();
    order.sort_by_key(|&a| (Some(a) == inner, !unrolled[a]));
    let reason = match inner {
        Some(a) => format!("axis {a} contiguous: writer and readers load and store vectors along it"),
        None => "a single element".to_string(),
    };
    (order, reason)
}
