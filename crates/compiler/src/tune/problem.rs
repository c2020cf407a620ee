//! Which sum of products a definition is, as text that is the same wherever the sum stands.

use super::tuning::MOST_TEXT;
use crate::kernel::Kernel;
use crate::options::Options;
use crate::schedule::split;
use rustc_hash::{FxHashMap, FxHashSet};
use winograph_ir::Scalar;
use winograph_ir::indexed::{BufId, Buffer, Def, Graph, Origin, Role, Scope, Source, Val, ValId};
use winograph_ir::int::RangeId;
use winograph_ir::op::BinaryOp;

/// Multiply-adds below which there is nothing to gain.
const LEAST_WORK: f64 = (1u64 << 16) as f64;

/// A sum of products and what is asked of it. What reads its result, and how constant factors come about, is no part of
/// it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    /// The sum as a loop nest in text form.
    pub sum: String,
    /// Options that decide what may be computed, as text.
    pub options: String,
}

impl Problem {
    /// Both as one text.
    pub fn key(&self) -> String {
        format!("{}\n{}", self.options, self.sum)
    }

    /// The problem that a definition's reduction is under `options`, and its multiply-adds; `None` where it is too small,
    /// or none.
    pub(crate) fn of(
        g: &Graph,
        def: &Def,
        reduce: ValId,
        constant: &FxHashSet<BufId>,
        options: &Options,
    ) -> Option<(Problem, f64)> {
        let Val::Reduce { ranges, x, .. } = g.val(reduce) else { return None };
        let Val::Binary { op: BinaryOp::Mul, a, b } = *g.val(*x) else { return None };
        let work: f64 = def.axes.iter().chain(ranges.iter()).map(|&r| g.ints.max_size(r) as f64).product();
        let known = |v: ValId| is_constant(g, v, &|b| constant.contains(b));
        if work < LEAST_WORK || known(a) && known(b) {
            return None;
        }
        let mut k = split::nest(g, &def.axes, (def.buffer, reduce), None, Role::Other);
        let value = k.stores[0].value;
        if let Val::Reduce { ranges, x, .. } = k.graph.val(value).clone()
            && let Val::Binary { op: BinaryOp::Mul, a, b } = *k.graph.val(x)
        {
            let program = |b: &BufId| k.args.get(b.0 as usize).is_some_and(|b| constant.contains(b));
            let known: Vec<ValId> = [a, b].into_iter().filter(|&v| is_constant(&k.graph, v, &program)).collect();
            for v in known {
                stand_in(&mut k, v, &ranges);
            }
        }
        let mut k = renamed(&k);
        k.role = Role::Other;
        let sum = k.text();
        (sum.len() <= MOST_TEXT).then(|| (Problem { sum, options: asked(options) }, work))
    }
}

/// Whether a value depends on constants alone.
pub(crate) fn is_constant(g: &Graph, v: ValId, constant: &dyn Fn(&BufId) -> bool) -> bool {
    g.topological(&[v]).into_iter().all(|v| match g.val(v) {
        Val::Load { src: Source::Buffer(b), .. } => constant(b),
        _ => true,
    })
}

/// The buffers that depend on constants alone.
pub(crate) fn constants(g: &Graph) -> FxHashSet<BufId> {
    let all = (0..g.buffers.len() as u32).map(BufId);
    let mut out: FxHashSet<BufId> = all.filter(|&b| matches!(g.buffer(b).origin, Origin::Constant(_))).collect();
    for def in &g.defs {
        if is_constant(g, def.value, &|b| out.contains(b)) {
            out.insert(def.buffer);
        }
    }
    out
}

/// Reads a constant factor from a buffer of its own, over the ranges that it depends on.
fn stand_in(k: &mut Kernel, v: ValId, reduced: &[RangeId]) {
    let g = &mut k.graph;
    let axes: Vec<RangeId> = k.loops.iter().chain(reduced).copied().filter(|&r| g.depends_on(v, r)).collect();
    let dtype = g.dtype(v);
    let shape = axes.iter().map(|&r| g.ints.size(r)).collect();
    let origin = Origin::Constant(0);
    let buffer = g.add_buffer(Buffer { name: String::new(), dtype, shape, origin, scope: Scope::Global, layout: None });
    k.args.push(BufId(u32::MAX));
    let index = axes.iter().map(|&r| g.ints.range(r)).collect();
    let load = g.add(Val::Load {
        src: Source::Buffer(buffer),
        index,
        gate: [].into(),
        fill: Scalar::zero(dtype),
        dynamic: None,
    });
    let mut memo = FxHashMap::from_iter([(v, load)]);
    let store = &mut k.stores[0];
    store.value = g.rebuild(store.value, &mut memo, &mut |g, val| g.add(val));
}

/// The nest with those buffers alone that it touches, which are named by the order in which it meets them.
fn renamed(k: &Kernel) -> Kernel {
    let store = &k.stores[0];
    let mut k = split::nest(&k.graph, &k.loops, (store.buffer, store.value), Some(store), k.role);
    for (n, b) in k.graph.buffers.iter_mut().enumerate() {
        let letter = match b.origin {
            _ if n == 0 => 'y',
            Origin::Constant(_) => 'w',
            _ => 'x',
        };
        b.name = format!("{letter}{n}");
        b.origin = Origin::Internal;
        b.layout = None;
    }
    k
}

/// What is asked of a sum, as far as it decides what may be computed.
fn asked(options: &Options) -> String {
    let Options {
        algorithm,
        tile,
        points,
        tolerance,
        exact_nonfinite,
        sum_block,
        layout,
        grid,
        stages,
        products,
        // These are no wishes for a result.
        plans: _,
        tuning: _,
        verify_each_pass: _,
    } = options;
    format!(
        "algorithm {algorithm:?}, tile {tile:?}, points {points:?}, tolerance {:?}, exact_nonfinite {exact_nonfinite}, \
         sum_block {sum_block:?}, layout {}, grid {}, stages {}, products {}",
        tolerance.unwrap_or_default(),
        layout.name(),
        grid.name(),
        stages.name(),
        products.name()
    )
}
