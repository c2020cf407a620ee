//! `operands`: sums of products whose operands are staged.
//!
//! Takes kernels; leaves, for each sum of products that is large enough, its operands as stages of their own, laid out for
//! the product: an operand that is constant becomes a panel that is prepared once, one that is not is copied block by
//! block in the launch of the product. A strided convolution's input is then read as a matrix, padding included, and the
//! product itself sees two matrices, whatever it was.

use super::block_cost::{self, Axis};
use super::narrow::Block;
use super::{flatten, layout, scope, split};
use crate::kernel::Kernel;
use crate::optimize::heuristic;
use crate::target::Target;
use crate::tune::{Staging, Sums};
use rustc_hash::FxHashMap;
use winograph_ir::indexed::{BufId, Buffer, Graph, Origin, Role, Scope, Source, Val, ValId};
use winograph_ir::int::{RangeId, RangeRole};
use winograph_ir::op::{BinaryOp, ReduceOp};
use winograph_ir::{DType, Scalar};

/// Multiply-adds below which a product stays as it is.
const LEAST_WORK: f64 = (1u64 << 16) as f64;
/// How often layouts are asked for what staging changed.
const ROUNDS: usize = 3;
/// Columns below which copying an operand costs as much as it saves.
const LEAST_COLUMNS: i64 = 8;

/// A product whose operands are staged, as kernels that become one launch.
#[derive(Clone, Debug)]
pub struct Staged {
    /// The copies of operands and the product last.
    pub chain: Vec<usize>,
    /// Blocks of the product's result.
    pub blocks: Vec<Block>,
    /// Why these blocks.
    pub reason: String,
}

/// A sum of products: which operand moves along which of the kernel's loops.
struct Product {
    reduced: Vec<RangeId>,
    /// The operand along whose axis lanes run, and the loops along which only it moves, by place.
    lanes: (ValId, Vec<usize>),
    /// The other one.
    other: (ValId, Vec<usize>),
    /// Loops along which both move.
    batch: Vec<usize>,
}

/// Stages the operands of products where that is estimated to be faster. New kernels and buffers are added; `constant`
/// says which kernels depend on constants alone, `sums` what is asked for.
///
/// Lanes run along either operand where nobody has said how the result lies: along the cheaper one at first, and along the
/// one that [`layout`] then makes contiguous.
pub fn stage(
    kernels: &mut Vec<Kernel>,
    buffers: &mut Graph,
    constant: &[bool],
    target: &Target,
    sums: &mut Sums,
    workers: usize,
) -> Vec<Staged> {
    let lanes = target.lanes(4);
    let free = |k: &Kernel| find(k, None, lanes).len() > 1;
    let mut open: Vec<BufId> = Vec::new();
    for (k, _) in kernels.iter().zip(constant).filter(|(k, c)| !**c && free(k)) {
        open.extend(k.stores.iter().map(|s| k.args[s.buffer.0 as usize]));
    }
    let mut inner = FxHashMap::default();
    for _ in 0..if open.is_empty() { 0 } else { ROUNDS } {
        let (mut kernels, mut buffers) = (kernels.clone(), buffers.clone());
        stage_along(&mut kernels, &mut buffers, constant, target, &mut sums.clone(), &inner);
        let axes = layout::contiguous(&kernels, &buffers.buffers, target, workers);
        let next = open.iter().map(|&b| (b, axes[b.0 as usize])).collect();
        if next == inner {
            break;
        }
        inner = next;
    }
    stage_along(kernels, buffers, constant, target, sums, &inner)
}

/// Stages operands. `inner` says which axis of each buffer is contiguous, where that is known.
fn stage_along(
    kernels: &mut Vec<Kernel>,
    buffers: &mut Graph,
    constant: &[bool],
    target: &Target,
    sums: &mut Sums,
    inner: &FxHashMap<BufId, usize>,
) -> Vec<Staged> {
    let users = scope::users(kernels);
    let chained: Vec<bool> =
        (0..kernels.len()).map(|n| scope::is_chained(kernels, &users, constant, n, target, sums)).collect();
    let lanes = target.lanes(4);
    let mut known: Vec<BufId> = Vec::new();
    for (k, _) in kernels.iter().zip(constant).filter(|(_, c)| **c) {
        known.extend(k.stores.iter().map(|s| k.args[s.buffer.0 as usize]));
    }
    let mut out = Vec::with_capacity(kernels.len());
    let mut staged = Vec::new();
    for (n, mut kernel) in std::mem::take(kernels).into_iter().enumerate() {
        if let Some((operand, axes)) = scattered(&kernel).filter(|_| !constant[n]) {
            out.push(copy(&mut kernel, operand, &axes, buffers));
            out.push(pruned(&kernel));
            continue;
        }
        if constant[n] || chained[n] || find(&kernel, None, lanes).is_empty() {
            out.push(kernel);
            continue;
        }
        let mut view = kernel.clone();
        flatten::views(&mut view);
        if !find(&view, None, lanes).is_empty() {
            kernel = view;
        }
        let written = kernel.stores.first().map(|s| kernel.args[s.buffer.0 as usize]);
        let asked = written.and_then(|b| sums.asked(b)).and_then(|t| t.stages);
        // What is asked for are blocks of the operand's rows that would have been chosen.
        let along = written.and_then(|b| inner.get(&b)).copied();
        let products = find(&kernel, along, lanes).into_iter().filter_map(|p| {
            let given = Given::of(&kernel, &p, &known);
            Some((blocks(&kernel, &p, given, target, None)?, p, given))
        });
        let best = products.min_by(|a, b| a.0.cycles.total_cmp(&b.0.cycles));
        let Some((chosen, product, given)) = best.and_then(|(chosen, p, given)| match asked {
            Some(_) => Some((blocks(&kernel, &p, given, target, asked)?, p, given)),
            None => Some((chosen, p, given)),
        }) else {
            out.push(kernel);
            continue;
        };
        let direct = given.other == Other::InPlace;
        let chosen = scope::settled(chosen, written, sums);
        let Ok((blocks, reason)) = chosen else {
            out.push(kernel);
            continue;
        };
        let mut chain = Vec::new();
        for (side, (operand, loops)) in [&product.lanes, &product.other].into_iter().enumerate() {
            if side == 1 && direct {
                continue;
            }
            let constant = is_constant(&kernel, *operand, &known);
            let place = |list: &[usize]| list.iter().map(|&a| kernel.loops[a]).collect::<Vec<RangeId>>();
            let axes = [place(&product.batch), product.reduced.clone(), place(loops)].concat();
            let copy = copy(&mut kernel, *operand, &axes, buffers);
            if !constant {
                chain.push(out.len());
            }
            out.push(copy);
        }
        chain.push(out.len());
        out.push(pruned(&kernel));
        staged.push(Staged { chain, blocks, reason });
    }
    *kernels = out;
    staged
}

/// The product that a kernel sums, if it is one: with lanes along either operand's axes, where memory leaves that open.
/// `inner` is the axis of the result that is contiguous. Where memory leaves open which axis of an operand is the last one, that
/// is one that fills `lanes`.
fn find(k: &Kernel, inner: Option<usize>, lanes: i64) -> Vec<Product> {
    let g = &k.graph;
    let ([store], [v]) = (&k.stores[..], &k.reduces()[..]) else { return Vec::new() };
    let Val::Reduce { op: ReduceOp::Add, ranges, x, .. } = g.val(*v) else { return Vec::new() };
    let Val::Binary { op: BinaryOp::Mul, a, b } = *g.val(*x) else { return Vec::new() };
    let sizes: Option<Vec<i64>> = k.loops.iter().chain(ranges.iter()).map(|&r| g.ints.const_size(r)).collect();
    let work = sizes.map_or(0.0, |sizes| sizes.iter().map(|&s| s as f64).product());
    if a == b || work < LEAST_WORK || g.dtype(*x) != DType::F32 || !heuristic::unrolled(k).is_empty() {
        return Vec::new();
    }
    if !ranges.iter().all(|&r| g.depends_on(a, r) && g.depends_on(b, r)) {
        return Vec::new();
    }
    let (mut only, mut batch) = ([Vec::new(), Vec::new()], Vec::new());
    for (n, &r) in k.loops.iter().enumerate() {
        match (g.depends_on(a, r), g.depends_on(b, r)) {
            (true, false) => only[0].push(n),
            (false, true) => only[1].push(n),
            (true, true) => batch.push(n),
            (false, false) => return Vec::new(),
        }
    }
    let fixed = g.buffer(store.buffer).layout.is_some();
    let [mut of_a, mut of_b] = only;
    if !fixed {
        for list in [&mut of_a, &mut of_b] {
            list.sort_by_key(|&l| g.ints.max_size(k.loops[l]) >= lanes);
        }
    }
    let size = |list: &[usize]| list.iter().map(|&a| g.ints.max_size(k.loops[a])).product::<i64>();
    if size(&of_a) < LEAST_COLUMNS || size(&of_b) < LEAST_COLUMNS {
        return Vec::new();
    }
    let product = |lanes: (ValId, &[usize]), other: (ValId, &[usize])| Product {
        reduced: ranges.to_vec(),
        lanes: (lanes.0, lanes.1.to_vec()),
        other: (other.0, other.1.to_vec()),
        batch: batch.clone(),
    };
    let (first, second) = (product((a, &of_a), (b, &of_b)), product((b, &of_b), (a, &of_a)));
    // Lanes run along the axis in which the result is contiguous, which is open where nobody has said how it lies.
    let moves = |axis: usize| k.loops.iter().position(|&l| g.ints.depends_on(store.index[axis], l));
    let along = match inner.filter(|&axis| !fixed && axis < store.index.len()) {
        Some(axis) => moves(axis),
        None => k.loops.len().checked_sub(1),
    };
    match along {
        Some(l) if of_a.contains(&l) && (fixed || inner.is_some()) => vec![first],
        Some(l) if of_b.contains(&l) && (fixed || inner.is_some()) => vec![second],
        _ if fixed => Vec::new(),
        Some(l) if of_b.contains(&l) => vec![second, first],
        _ => vec![first, second],
    }
}

/// The operand of a sum of products along rows of memory that is the same for all rows and whose terms may lie in another
/// order: a picture that a fully connected layer reads. With it the axes that are summed, as the rows have them. Copied in
/// that order the operand is a row too, and the sum one along contiguous elements of both.
fn scattered(k: &Kernel) -> Option<(ValId, Vec<RangeId>)> {
    let mut g = k.graph.clone();
    let ([_], [v]) = (&k.stores[..], &k.reduces()[..]) else { return None };
    let Val::Reduce { op: ReduceOp::Add, ranges, x, .. } = g.val(*v).clone() else { return None };
    let Val::Binary { op: BinaryOp::Mul, a, b } = *g.val(x) else { return None };
    let sizes: Option<Vec<i64>> = ranges.iter().map(|&r| g.ints.const_size(r)).collect();
    let rows = k.loops.iter().fold(1i64, |n, &r| n.saturating_mul(g.ints.max_size(r)));
    let sizes = sizes.filter(|s| s.len() > 1 && rows >= LEAST_COLUMNS && heuristic::unrolled(k).is_empty())?;
    let plain = |g: &Graph, v: ValId| match g.val(v).clone() {
        Val::Load { src: Source::Buffer(b), index, gate, dynamic: None, .. } if gate.is_empty() => Some((b, index)),
        _ => None,
    };
    [(a, b), (b, a)].into_iter().find_map(|(row, other)| {
        let (rows, index) = plain(&g, row)?;
        let (open, _) = plain(&g, other)?;
        let layout = g.buffer(rows).layout.clone()?;
        if g.buffer(open).layout.is_some() || g.buffer(open).origin != Origin::Internal {
            return None;
        }
        let same = k.loops.iter().all(|&r| !g.depends_on(other, r)) && ranges.iter().all(|&r| g.depends_on(other, r));
        let addr = g.flatten(&layout, &index);
        let mut step = 1;
        let contiguous = ranges.iter().zip(&sizes).rev().all(|(&r, size)| {
            let found = g.ints.split_linear(addr, r).is_some_and(|s| s.0 == step);
            step *= size;
            found
        });
        (same && contiguous).then(|| (other, ranges.to_vec()))
    })
}

/// Where the second operand of a product is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Other {
    /// A panel that is prepared once.
    Prepared,
    /// A panel that each work item copies.
    Copied,
    /// Where it is.
    InPlace,
}

/// What there is of the operands of a product before its launch.
#[derive(Clone, Copy, Debug)]
struct Given {
    /// Whether the first operand's panel is prepared once.
    prepared: bool,
    other: Other,
}

impl Given {
    fn of(k: &Kernel, p: &Product, known: &[BufId]) -> Given {
        let other = match () {
            () if is_constant(k, p.other.0, known) => Other::Prepared,
            () if is_plain(k, p.other.0) => Other::InPlace,
            () => Other::Copied,
        };
        Given { prepared: is_constant(k, p.lanes.0, known), other }
    }
}

/// Whether a value depends on constants alone.
fn is_constant(k: &Kernel, v: ValId, known: &[BufId]) -> bool {
    k.graph.topological(&[v]).into_iter().all(|v| match k.graph.val(v) {
        Val::Load { src: Source::Buffer(b), .. } => {
            matches!(k.graph.buffer(*b).origin, Origin::Constant(_)) || known.contains(&k.args[b.0 as usize])
        }
        _ => true,
    })
}

/// Whether a value is read from memory as it is, each axis along one range.
fn is_plain(k: &Kernel, v: ValId) -> bool {
    match k.graph.val(v) {
        Val::Load { src: Source::Buffer(_), index, gate, dynamic: None, .. } => {
            gate.is_empty() && index.iter().all(|&e| k.graph.ints.free_ranges(e).len() <= 1)
        }
        _ => false,
    }
}

/// The blocks of a product.
fn blocks(
    k: &Kernel,
    p: &Product,
    given: Given,
    target: &Target,
    asked: Option<Staging>,
) -> Option<block_cost::Chosen> {
    let axes = |list: &[usize]| -> Vec<Axis> {
        list.iter().map(|&a| Axis { reader: a, size: k.graph.ints.max_size(k.loops[a]) }).collect()
    };
    let sizes = block_cost::Product {
        rows: axes(&p.lanes.1),
        columns: axes(&p.other.1),
        batch: axes(&p.batch),
        terms: p.reduced.iter().map(|&r| k.graph.ints.max_size(r) as f64).product(),
        copied: !given.prepared,
        other: given.other,
    };
    block_cost::product(&sizes, target, asked)
}

/// Makes an operand a buffer of its own over `axes`; gives the kernel that computes it. The product reads the buffer.
fn copy(kernel: &mut Kernel, operand: ValId, axes: &[RangeId], program: &mut Graph) -> Kernel {
    let mut g = kernel.graph.clone();
    let mut map = FxHashMap::default();
    let mut own = Vec::new();
    for &r in axes {
        let info = g.ints.range_info(r).clone();
        let new = g.ints.new_range_with(info.size, RangeRole::Map, info.ordinal);
        map.insert(r, g.ints.range(new));
        own.push(new);
    }
    let value = g.substitute(operand, &|r| map.get(&r).copied());
    let dtype = g.dtype(value);
    let sizes: Vec<i64> = axes.iter().map(|&r| g.ints.max_size(r)).collect();
    let name = g
        .topological(&[operand])
        .into_iter()
        .find_map(|v| match g.val(v) {
            Val::Load { src: Source::Buffer(b), .. } => Some(format!("{}.panel", g.buffer(*b).name)),
            _ => None,
        })
        .unwrap_or_else(|| "panel".to_string());
    let add = |g: &mut Graph| {
        let shape = sizes.iter().map(|&s| g.ints.constant(s)).collect();
        let (name, origin) = (name.clone(), Origin::Internal);
        g.add_buffer(Buffer { name, dtype, shape, origin, scope: Scope::Global, layout: None })
    };
    let buffer = add(&mut g);
    add(&mut kernel.graph);
    kernel.args.push(add(program));
    let out = renamed(split::nest(&g, &own, (buffer, value), None, Role::Other), &kernel.args);
    let g = &mut kernel.graph;
    let index = axes.iter().map(|&r| g.ints.range(r)).collect();
    let fill = Scalar::zero(dtype);
    let load = g.add(Val::Load { src: Source::Buffer(buffer), index, gate: [].into(), fill, dynamic: None });
    let mut memo = FxHashMap::from_iter([(operand, load)]);
    let store = &mut kernel.stores[0];
    store.value = g.rebuild(store.value, &mut memo, &mut |g, val| g.add(val));
    out
}

/// A kernel with those buffers alone that it touches.
fn pruned(kernel: &Kernel) -> Kernel {
    let store = &kernel.stores[0];
    let to = (store.buffer, store.value);
    renamed(split::nest(&kernel.graph, &kernel.loops, to, Some(store), kernel.role), &kernel.args)
}

/// A kernel taken out of another one's graph, whose buffers are those of the program that `args` says.
fn renamed(mut kernel: Kernel, args: &[BufId]) -> Kernel {
    for arg in &mut kernel.args {
        *arg = args[arg.0 as usize];
    }
    kernel
}
