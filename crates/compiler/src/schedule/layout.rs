//! `layout`: how the compiler's own buffers lie in memory.
//!
//! Takes kernels; leaves a layout for every internal buffer, chosen for its writer and its readers together: the axis
//! that is contiguous is the one that lets the kernels' best lanes load and store vectors, the ranges that kernels
//! unroll (transform positions) are slowest, and the rest keeps its order.

use crate::kernel::{Kernel, constant_kernels};
use crate::optimize::access::{self, Touch};
use crate::optimize::matrix_unit::product;
use crate::optimize::{blocks, contract, grid, heuristic, rows, units};
use crate::options::{LayoutRule, Products};
use crate::parallel;
use crate::target::{Gpu, Target};
use rustc_hash::{FxHashMap, FxHashSet};
use winograph_ir::indexed::{BufId, Buffer, Layout, LayoutDim, Origin, Scope};
use winograph_ir::int::{IntId, IntNode, Ints, RangeId};

/// What was decided for one buffer.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The buffer.
    pub buffer: String,
    /// Sizes of its axes (with parameters: at their greatest values).
    pub shape: Vec<i64>,
    /// Its axes by number, slowest first.
    pub order: Vec<usize>,
    /// The axis that is cut into blocks of contiguous elements, and their size.
    pub block: Option<(usize, i64)>,
    /// Why.
    pub reason: String,
    /// Axes that could be contiguous with what the kernels that touch the buffer cost then, each with its best lane and
    /// the other buffers as they are: in sectors on a GPU, in vector instructions on a CPU.
    pub candidates: Vec<(usize, f64)>,
}

/// What the choice needs to know of one kernel: the cost of every access for every lane and every axis of its buffer
/// that could be contiguous.
struct Facts {
    touches: Vec<Touch>,
    unrolled: Vec<RangeId>,
    /// The program's buffer of each access.
    buffers: Vec<usize>,
    /// `[lane option][access][contiguous axis]`, in vector instructions.
    costs: Vec<Vec<Vec<f64>>>,
    /// The arithmetic of sums that stay loops, `[lane option]`, in vector instructions: narrower lanes take more.
    arithmetic: Vec<f64>,
    /// How much its instructions count.
    weight: f64,
}

/// How much instructions count that run once, when constants are prepared, beside those of every run.
const ONCE: f64 = 0.01;
/// Bytes of a cache line.
pub(super) const LINE: i64 = 64;
/// Distances that are multiples of so many bytes fall into few sets of a first-level cache.
const SAME_SET: i64 = 1024;

/// Elements of a run that a workgroup's threads store one each.
const RUN: i64 = 128;

/// Most combinations of contiguous axes of one kernel's buffers that are tried together.
const MAX_COMBINATIONS: usize = 4096;

impl Facts {
    fn new(k: &mut Kernel, once: bool, target: &Target) -> Facts {
        let unrolled = heuristic::unrolled(k);
        let touches = access::touches(k, &unrolled);
        let max_lanes = heuristic::full_lanes(k, target);
        let options = heuristic::lane_options(target, &k.graph, &touches, &k.loops, &unrolled, max_lanes);
        let loops = |r: &RangeId| !unrolled.contains(r);
        let folded = match target.gpu.is_none() && !k.reduce_ranges().iter().any(loops) {
            true => rows::options(&k.graph, &k.loops, &unrolled, max_lanes),
            false => Vec::new(),
        };
        let g = &mut k.graph;
        let mut costs: Vec<Vec<Vec<f64>>> = options
            .iter()
            .map(|&lane| {
                touches
                    .iter()
                    .map(|t| {
                        (0..t.index.len().max(1))
                            .map(|axis| access::touch_cost(g, t, lane, Some(axis), target))
                            .collect()
                    })
                    .collect()
            })
            .collect();
        costs.extend(folded.iter().map(|&f| {
            let of = |t: &Touch| (0..t.index.len().max(1)).map(|axis| rows::touch_cost(g, t, f, axis)).collect();
            touches.iter().map(of).collect()
        }));
        let buffers = touches.iter().map(|t| k.args[t.buffer.0 as usize].0 as usize).collect();
        let terms = touches.iter().filter(|t| t.in_loop && !t.write).map(|t| t.runs).fold(0.0, f64::max);
        let arithmetic = match target.gpu {
            Some(_) => vec![0.0; options.len()],
            None => {
                let alone = options.iter().map(|lane| terms / lane.map_or(1, |l| l.1) as f64);
                alone.chain(folded.iter().map(|_| 0.0)).collect()
            }
        };
        let weight = if once && target.gpu.is_none() { ONCE } else { 1.0 };
        Facts { touches, unrolled, buffers, costs, arithmetic, weight }
    }

    /// The cost of the kernel with its best lane.
    fn cost(&self, inner: &[usize]) -> f64 {
        self.costs
            .iter()
            .zip(&self.arithmetic)
            .map(|(lane, &arithmetic)| {
                let accesses = lane.iter().zip(&self.buffers);
                accesses.map(|(axes, &b)| axes[inner[b].min(axes.len() - 1)]).sum::<f64>() + arithmetic
            })
            .fold(f64::INFINITY, f64::min)
            * self.weight
    }
}

/// The axes of a program's buffers that could be contiguous, and what its kernels think of that.
struct Axes {
    facts: Vec<Facts>,
    /// Axes of each buffer.
    ranks: Vec<usize>,
    /// Buffers whose layout is open.
    own: Vec<usize>,
    is_own: Vec<bool>,
    /// Kernels that touch each buffer, in order.
    users: Vec<Vec<usize>>,
    /// The contiguous axis of each buffer.
    inner: Vec<usize>,
}

impl Axes {
    fn new(kernels: &[Kernel], buffers: &[Buffer], target: &Target, rule: LayoutRule, workers: usize) -> Axes {
        let once = constant_kernels(kernels);
        let facts: Vec<Facts> = parallel::map(workers, kernels, |n, k| Facts::new(&mut k.clone(), once[n], target));
        // Kernels may see fewer axes than the program's list says.
        let mut ranks: Vec<usize> = buffers.iter().map(|b| b.shape.len()).collect();
        for k in kernels.iter() {
            for (b, id) in k.graph.buffers.iter().zip(&k.args) {
                ranks[id.0 as usize] = b.shape.len();
            }
        }
        let mut inner: Vec<usize> = ranks.iter().map(|r| r.saturating_sub(1)).collect();
        for k in kernels.iter() {
            for (at, id) in k.args.iter().enumerate() {
                if let Some(axis) = access::inner_axis(&k.graph, BufId(at as u32)) {
                    inner[id.0 as usize] = axis;
                }
            }
        }
        let own: Vec<usize> = (0..buffers.len())
            .filter(|&i| buffers[i].layout.is_none() && matches!(buffers[i].origin, Origin::Internal))
            .collect();
        let mut users: Vec<Vec<usize>> = vec![Vec::new(); buffers.len()];
        for (n, k) in kernels.iter().enumerate() {
            for a in &k.args {
                let list = &mut users[a.0 as usize];
                if list.last() != Some(&n) {
                    list.push(n);
                }
            }
        }
        let mut is_own = vec![false; buffers.len()];
        own.iter().for_each(|&b| is_own[b] = true);
        // All buffers of one kernel together, kernel by kernel, until nothing gets better.
        let rounds = if rule == LayoutRule::Auto { 4 } else { 0 };
        // Many kernels, such as the steps of a recurrent network, may have the same of them: those need no second look before anything
        // has changed.
        let (mut changes, mut settled) = (0, FxHashMap::<Vec<usize>, usize>::default());
        for _ in 0..rounds {
            let mut improved = false;
            for k in kernels.iter() {
                let open = |&b: &usize| is_own[b] && ranks[b] > 1;
                let mine: Vec<usize> = k.args.iter().map(|a| a.0 as usize).filter(open).collect();
                if mine.is_empty() || settled.get(&mine) == Some(&changes) {
                    continue;
                }
                let better = choose_together(&mine, &ranks, &facts, &users, &mut inner);
                changes += usize::from(better);
                improved |= better;
                settled.insert(mine, changes);
            }
            if !improved {
                break;
            }
        }
        Axes { facts, ranks, own, is_own, users, inner }
    }
}

/// The axis of each of a program's buffers that [`layout`] would make contiguous.
pub(super) fn contiguous(kernels: &[Kernel], buffers: &[Buffer], target: &Target, workers: usize) -> Vec<usize> {
    Axes::new(kernels, buffers, target, LayoutRule::Auto, workers).inner
}

/// Lays out the internal buffers of a program. `buffers` is the program's list, which kernels refer to.
pub fn layout(
    kernels: &mut [Kernel],
    buffers: &[Buffer],
    target: &Target,
    rule: LayoutRule,
    workers: usize,
) -> Vec<Choice> {
    let Axes { facts, ranks, own, is_own, users, inner } = Axes::new(kernels, buffers, target, rule, workers);
    let pads = rule == LayoutRule::Auto;
    let planes_of = |kernels: &[Kernel], b: usize, rank: usize| match pads {
        true => unrolled_axes(kernels, &facts, &users[b], b, rank),
        false => vec![false; rank],
    };
    let sector = target.gpu.as_ref().filter(|_| pads).map(|g| g.sector);
    let mut out = Vec::new();
    for &b in &own {
        if users[b].is_empty() {
            continue;
        }
        let rank = ranks[b];
        let (order, reason) = match rule {
            LayoutRule::Auto => {
                axis_order(&unrolled_axes(kernels, &facts, &users[b], b, rank), inner[b], target.gpu.is_some())
            }
            LayoutRule::Creation => ((0..rank).collect(), "the order in which its ranges were made".to_string()),
        };
        let candidates = (0..rank)
            .map(|axis| {
                let mut trial = inner.clone();
                trial[b] = axis;
                (axis, users[b].iter().map(|&n| facts[n].cost(&trial)).sum())
            })
            .collect();
        let shape = kernels[users[b][0]].args.iter().position(|a| a.0 as usize == b).map_or_else(Vec::new, |at| {
            let g = &kernels[users[b][0]].graph;
            g.buffers[at].shape.iter().map(|&s| g.ints.bounds(s).1).collect()
        });
        let (buffer, in_memory) = (buffers[b].name.clone(), order.clone());
        out.push(Choice { buffer, shape, order: in_memory, block: None, reason, candidates });
        let planes = planes_of(kernels, b, rank);
        for &n in &users[b] {
            set_layout(&mut kernels[n], b, &order, None, &planes, sector, 1);
        }
    }
    // Now that lanes are known: operands of products that are read element by element are packed.
    if rule == LayoutRule::Auto && target.gpu.is_none() {
        let packed = packing(kernels, &is_own, target);
        let used = own.iter().filter(|&&b| !users[b].is_empty());
        for (choice, &b) in out.iter_mut().zip(used) {
            let Some(&(axis, block)) = packed.get(&b) else { continue };
            let planes = planes_of(kernels, b, ranks[b]);
            let (order, reason) = axis_order(&unrolled_axes(kernels, &facts, &users[b], b, ranks[b]), axis, false);
            choice.order = order;
            choice.block = Some((axis, block));
            choice.reason = format!("{reason}; packed by {block} along it: a reduction reads that much at each step");
            for &n in &users[b] {
                set_layout(&mut kernels[n], b, &choice.order, choice.block, &planes, sector, 1);
            }
        }
    }
    out
}

/// Pads rows that do not fill sectors, where the kernels that touch the buffer then move fewer: lanes that go on from one
/// row into the next begin it at a sector. Tells in the choices, which are [`layout`]'s, what it did. Products that go
/// by tiles through shared memory want rows that follow each other: what they touch stays as it is.
pub fn pad_rows(kernels: &mut [Kernel], buffers: &[Buffer], gpu: &Gpu, products: &[Products], choices: &mut [Choice]) {
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); buffers.len()];
    for (n, k) in kernels.iter().enumerate() {
        k.args.iter().for_each(|a| users[a.0 as usize].push(n));
    }
    users.iter_mut().for_each(|u| u.dedup());
    let is_own = |b: &usize| {
        buffers[*b].layout.is_none() && matches!(buffers[*b].origin, Origin::Internal) && !users[*b].is_empty()
    };
    let own: Vec<usize> = (0..buffers.len()).filter(is_own).collect();
    let tiled: Vec<bool> = {
        let by_tiles =
            |(k, &p): (&Kernel, &Products)| units::plan(k, gpu, p).is_some() || blocks::plan(k, gpu).is_some();
        kernels.iter().zip(products).map(by_tiles).collect()
    };
    let mut known: Vec<Option<grid::Score>> = vec![None; kernels.len()];
    for (choice, &b) in choices.iter_mut().zip(&own) {
        if users[b].iter().any(|&n| tiled[n]) {
            continue;
        }
        let Some(&inner) = choice.order.last() else { continue };
        let Some((at, user)) = users[b]
            .first()
            .and_then(|&n| Some((kernels[n].args.iter().position(|a| a.0 as usize == b)?, &kernels[n])))
        else {
            continue;
        };
        let buffer = &user.graph.buffers[at];
        if buffer.scope != Scope::Global {
            continue;
        }
        let elements = (gpu.sector / buffer.dtype.size()).max(1) as i64;
        let Some(size) = user.graph.ints.as_const(buffer.shape[inner]) else { continue };
        if size % elements == 0 || size < elements / 2 || choice.order.len() < 2 {
            continue;
        }
        let cost = |kernels: &[Kernel], known: &mut [Option<grid::Score>]| -> (usize, f64) {
            let each = users[b].iter().map(|&n| *known[n].get_or_insert_with(|| grid::best(&kernels[n], gpu)));
            each.fold((0, 0.0), |sum, s| (sum.0 + usize::from(s.more), sum.1 + s.sectors))
        };
        let before = cost(kernels, &mut known);
        let without: Vec<Option<Layout>> = users[b].iter().map(|&n| layout_of(&kernels[n], b).cloned()).collect();
        let kept: Vec<Option<grid::Score>> = users[b].iter().map(|&n| known[n].take()).collect();
        let planes = vec![false; choice.order.len()];
        for &n in &users[b] {
            set_layout(&mut kernels[n], b, &choice.order, None, &planes, Some(gpu.sector), elements);
        }
        let after = cost(kernels, &mut known);
        if after.0 < before.0 || (after.0 == before.0 && after.1 < before.1 * 0.999) {
            let to = (size + elements - 1) / elements * elements;
            choice.reason += &format!(
                "; rows of {size} padded to {to} to begin at sectors: its kernels move about {:.0} sectors instead of {:.0}",
                after.1, before.1
            );
            continue;
        }
        for ((&n, layout), cost) in users[b].iter().zip(without).zip(kept) {
            if let Some(at) = kernels[n].args.iter().position(|a| a.0 as usize == b) {
                kernels[n].graph.buffers[at].layout = layout;
            }
            known[n] = cost;
        }
    }
}

/// Gives results of products that go by tiles of registers another contiguous axis where the rows of theirs end within a
/// sector, as those of 7, 14 or 196 pixels: one along which tiles store whole sectors. Tells of it in the choices.
pub fn turn_rows(kernels: &mut [Kernel], buffers: &[Buffer], gpu: &Gpu, products: &[Products], choices: &mut [Choice]) {
    let internal = |b: usize| buffers[b].layout.is_none() && matches!(buffers[b].origin, Origin::Internal);
    for n in 0..kernels.len() {
        let k = &kernels[n];
        let [store] = &k.stores[..] else { continue };
        let b = k.args[store.buffer.0 as usize].0 as usize;
        let buffer = &k.graph.buffers[store.buffer.0 as usize];
        let Some(choice) = choices.iter_mut().find(|c| internal(b) && c.buffer == buffers[b].name) else { continue };
        let elements = (gpu.sector / buffer.dtype.size()).max(1) as i64;
        let size = |axis: usize| k.graph.ints.as_const(buffer.shape[axis]).unwrap_or(1);
        let Some(&inner) = choice.order.last() else { continue };
        if choice.block.is_some() || buffer.scope != Scope::Global || size(inner) % elements == 0 {
            continue;
        }
        let whole = |a: &usize| size(*a) % elements == 0 && moves_a_factor(k, store.index[*a]);
        let Some(to) = (0..buffer.shape.len()).filter(whole).max_by_key(|&a| size(a)) else { continue };
        let read_by_tiles = |(k, p): (&Kernel, &Products)| {
            k.stores.iter().all(|s| k.args[s.buffer.0 as usize].0 as usize != b)
                && k.args.iter().any(|a| a.0 as usize == b)
                && (units::plan(k, gpu, *p).is_some() || blocks::plan(k, gpu).is_some())
        };
        if units::plan(k, gpu, products[n]).is_some()
            || blocks::plan(k, gpu).is_none()
            || kernels.iter().zip(products).any(read_by_tiles)
        {
            continue;
        }
        let rows = size(inner);
        choice.order.retain(|&a| a != to);
        choice.order.push(to);
        choice.reason += &format!("; rows of {rows} end within a sector: axis {to} is contiguous instead");
        let planes = vec![false; choice.order.len()];
        for k in kernels.iter_mut().filter(|k| k.args.iter().any(|a| a.0 as usize == b)) {
            set_layout(k, b, &choice.order, None, &planes, Some(gpu.sector), 1);
        }
    }
}

/// Gives what a workgroup's product reads from global memory a contiguous axis that its results have, where the one there is is
/// summed along: the workgroup's threads go along results. Tells of it in the choices.
pub fn turn_grouped(kernels: &mut [Kernel], buffers: &[Buffer], gpu: &Gpu, choices: &mut [Choice]) {
    let internal = |b: usize| buffers[b].layout.is_none() && matches!(buffers[b].origin, Origin::Internal);
    for n in 0..kernels.len() {
        let k = &kernels[n];
        if k.outer.is_empty() {
            continue;
        }
        let unrolled = heuristic::unrolled(k);
        let summed: Vec<RangeId> = k.reduce_ranges().into_iter().filter(|r| !unrolled.contains(r)).collect();
        let mut turned = Vec::new();
        for t in access::touches(k, &unrolled).iter().filter(|t| !t.write) {
            let (b, buffer) = (k.args[t.buffer.0 as usize].0 as usize, k.graph.buffer(t.buffer));
            if !internal(b) || buffer.scope != Scope::Global {
                continue;
            }
            let Some(choice) = choices.iter().find(|c| c.buffer == buffers[b].name && c.block.is_none()) else {
                continue;
            };
            let moves = |axis: usize, ranges: &[RangeId]| {
                t.index.get(axis).is_some_and(|&i| ranges.iter().any(|&r| k.graph.ints.depends_on(i, r)))
            };
            let Some(inner) = choice.order.last().copied().filter(|&a| moves(a, &summed)) else { continue };
            let size = |axis: &usize| k.graph.ints.as_const(buffer.shape[*axis]).unwrap_or(1);
            let own = |axis: &usize| *axis != inner && moves(*axis, &k.loops) && !moves(*axis, &summed);
            let to = (0..buffer.shape.len()).filter(own).max_by_key(|a| (size(a), std::cmp::Reverse(*a)));
            turned.extend(to.map(|to| (b, inner, to)));
        }
        for (b, inner, to) in turned {
            let Some(choice) = choices.iter_mut().find(|c| c.buffer == buffers[b].name) else { continue };
            if choice.order.last() != Some(&inner) {
                continue;
            }
            choice.order.retain(|&a| a != to);
            choice.order.push(to);
            choice.reason += &format!("; a workgroup's threads read along axis {to}, which is contiguous instead");
            let planes = vec![false; choice.order.len()];
            for k in kernels.iter_mut().filter(|k| k.args.iter().any(|a| a.0 as usize == b)) {
                set_layout(k, b, &choice.order, None, &planes, Some(gpu.sector), 1);
            }
        }
    }
}

/// Whether an index goes along an axis of one factor of a kernel's product alone.
fn moves_a_factor(k: &Kernel, index: IntId) -> bool {
    let (Some(p), IntNode::Range(r)) = (product(k), k.graph.ints.node(index)) else { return false };
    k.graph.depends_on(p.factors[0], *r) != k.graph.depends_on(p.factors[1], *r)
}

fn layout_of(k: &Kernel, buffer: usize) -> Option<&Layout> {
    let at = k.args.iter().position(|a| a.0 as usize == buffer)?;
    k.graph.buffers[at].layout.as_ref()
}

/// Which of the program's own buffers are to be packed: axis and block. Those that other kernels reach in vectors that would
/// lie in two blocks, as rows of 28 elements do in blocks of 8, stay as they are.
fn packing(kernels: &[Kernel], is_own: &[bool], target: &Target) -> FxHashMap<usize, (usize, i64)> {
    let mut out: FxHashMap<usize, (usize, i64)> = FxHashMap::default();
    let mut asking: FxHashSet<(usize, usize)> = FxHashSet::default();
    // Kernels that only move elements, or run once, may as well write panels.
    let once = constant_kernels(kernels);
    let moves = |n: usize, k: &Kernel| once[n] || (k.reduces().is_empty() && heuristic::unrolled(k).is_empty());
    let copied = |b: usize| {
        let writes = |k: &Kernel| k.stores.iter().any(|s| k.args[s.buffer.0 as usize].0 as usize == b);
        kernels.iter().enumerate().filter(|(_, k)| writes(k)).all(|(n, k)| moves(n, k))
    };
    for (n, k) in kernels.iter().enumerate() {
        let panels = contract::panels(k, target);
        let panels = panels.into_iter().filter(|p| copied(k.args[p.0.0 as usize].0 as usize));
        for (buffer, axis, block) in contract::packing(k, target).into_iter().chain(panels) {
            let b = k.args[buffer.0 as usize].0 as usize;
            let size = k.graph.buffer(buffer).shape.get(axis).and_then(|&s| k.graph.ints.as_const(s));
            let scratch = k.graph.buffer(buffer).scope != Scope::Global;
            let divides = size.is_some_and(|s| s % block == 0 && s > block);
            if is_own[b] && divides && !scratch {
                out.entry(b).or_insert((axis, block));
                asking.insert((n, b));
            }
        }
    }
    for (n, k) in kernels.iter().enumerate() {
        let unrolled = heuristic::unrolled(k);
        for touch in access::touches(k, &unrolled) {
            let b = k.args[touch.buffer.0 as usize].0 as usize;
            if let Some(&(axis, block)) = out.get(&b)
                && !asking.contains(&(n, b))
                && touch.index.get(axis).is_some_and(|&i| tears(&k.graph.ints, i, block))
            {
                out.remove(&b);
            }
        }
    }
    out
}

/// Whether neighbours along a range may lie in two blocks: elements that an index reaches are not whole blocks from where
/// it starts.
fn tears(ints: &Ints, index: IntId, block: i64) -> bool {
    let (terms, start) = ints.as_sum(index);
    let mut along = terms.iter().filter(|t| t.1 % block != 0);
    match (along.next(), along.next()) {
        (None, _) => false,
        (Some(&(r, 1)), None) => start % block != 0 || !matches!(ints.node(r), IntNode::Range(_)),
        _ => true,
    }
}

/// Gives a buffer of a kernel a layout: axes in order, slowest first, one of them in blocks whose elements are
/// contiguous.
///
/// Elements from one row of a core's own memory to the next: rows of `elements`, each of so many bytes.
pub(super) fn scratch_row(elements: i64, bytes: i64) -> i64 {
    let line = LINE / bytes.max(1);
    if elements <= line { elements } else { (elements + line - 1) / line * line }
}

/// Rows, the elements along the last axis in order, begin at multiples of `row` elements.
///
/// `planes` says which axes kernels unroll. Their elements are read or written together, so where the distance between
/// them is a multiple of a large power of two, which would put all of them into one set of the first-level cache, a
/// cache line is added to it. On a GPU, where `sector` says how many bytes a sector has, they begin at sectors, and
/// so does what follows a run of [`RUN`] elements or more.
pub(super) fn set_layout(
    k: &mut Kernel,
    buffer: usize,
    order: &[usize],
    block: Option<(usize, i64)>,
    planes: &[bool],
    sector: Option<usize>,
    row: i64,
) {
    let Some(at) = k.args.iter().position(|a| a.0 as usize == buffer) else { return };
    let shape = k.graph.buffers[at].shape.clone();
    let element = k.graph.buffers[at].dtype.size() as i64;
    let local = k.graph.buffers[at].scope == Scope::Scratch;
    let ints = &mut k.graph.ints;
    let elements = sector.map_or(1, |s| (s as i64 / element.max(1)).max(1));
    let rounded = |ints: &mut Ints, stride: IntId| {
        if elements == 1 || ints.as_const(stride).is_none() {
            return stride;
        }
        let up = ints.add_const(stride, elements - 1);
        let sectors = ints.div_const(up, elements);
        ints.scale(sectors, elements)
    };
    let mut stride = ints.constant(1);
    let mut padded = false;
    let mut dims = Vec::with_capacity(order.len() + 1);
    for (n, &axis) in order.iter().rev().enumerate() {
        let packed = block.filter(|b| b.0 == axis && n == 0);
        if n > 0 && planes[axis] && !padded {
            padded = true;
            if sector.is_some() {
                stride = rounded(ints, stride);
            } else if ints.as_const(stride).is_some_and(|s| s * element % SAME_SET == 0) {
                stride = ints.add_const(stride, LINE / element);
            }
        }
        dims.push(LayoutDim { axis, div: 1, modulus: packed.map(|b| b.1), stride });
        let size = packed.map_or(shape[axis], |b| ints.constant(b.1));
        stride = ints.mul(stride, size);
        if n == 0 && row > 1 {
            let up = ints.add_const(stride, row - 1);
            let rows = ints.div_const(up, row);
            stride = ints.scale(rows, row);
        }
        if n + 1 < order.len() && ints.as_const(stride).is_some_and(|s| s >= RUN) {
            stride = rounded(ints, stride);
        }
        // Rows of a core's own memory begin at cache lines, so that no vector lies in two.
        if let Some(s) = ints.as_const(stride).filter(|_| n == 0 && local) {
            stride = ints.constant(scratch_row(s, element));
        }
        // The blocks of the contiguous axis come outside of the axis that a reduction walks along.
        if let Some((axis, b)) = block.filter(|_| n == 1 || (n == 0 && order.len() == 1)) {
            dims.push(LayoutDim { axis, div: b, modulus: None, stride });
            let blocks = ints.div_const(shape[axis], b);
            stride = ints.mul(stride, blocks);
        }
    }
    dims.reverse();
    k.graph.buffers[at].layout = Some(Layout { dims, len: stride });
}

/// Finds the contiguous axes of some buffers that cost least for all kernels that touch them; whether that changed
/// anything.
fn choose_together(
    mine: &[usize],
    ranks: &[usize],
    facts: &[Facts],
    users: &[Vec<usize>],
    inner: &mut [usize],
) -> bool {
    let mut mine: Vec<usize> = mine.to_vec();
    let combinations = |mine: &[usize]| mine.iter().map(|&b| ranks[b].max(1)).product::<usize>();
    while combinations(&mine) > MAX_COMBINATIONS {
        mine.pop();
    }
    let mut affected: Vec<usize> = mine.iter().flat_map(|&b| users[b].iter().copied()).collect();
    affected.sort_unstable();
    affected.dedup();
    let set = |inner: &mut [usize], axes: &[usize]| mine.iter().zip(axes).for_each(|(&b, &axis)| inner[b] = axis);
    // Most kernels touch few of these buffers: what each costs is looked up by the axes of those that it does touch.
    let mut known = Vec::with_capacity(affected.len());
    for &n in &affected {
        let (mut touched, mut size) = (Vec::new(), 1);
        for (at, b) in mine.iter().enumerate().filter(|(_, b)| facts[n].buffers.contains(b)) {
            touched.push((at, size));
            size *= ranks[*b].max(1);
        }
        known.push((touched, vec![f64::NAN; size]));
    }
    let mut total = |inner: &mut [usize], axes: &[usize]| {
        set(inner, axes);
        let costs = affected.iter().zip(&mut known).map(|(&n, (touched, costs))| {
            let cost = &mut costs[touched.iter().map(|&(at, step)| axes[at] * step).sum::<usize>()];
            if cost.is_nan() {
                *cost = facts[n].cost(inner);
            }
            *cost
        });
        costs.sum::<f64>()
    };
    let before: Vec<usize> = mine.iter().map(|&b| inner[b]).collect();
    let mut best = (total(inner, &before), before.clone());
    let mut trial = before.clone();
    for n in 0..combinations(&mine) {
        let mut rest = n;
        for (axis, &b) in trial.iter_mut().zip(&mine) {
            let rank = ranks[b].max(1);
            *axis = rest % rank;
            rest /= rank;
        }
        let cost = total(inner, &trial);
        if cost < best.0 * (1.0 - 1e-9) {
            best = (cost, trial.clone());
        }
    }
    set(inner, &best.1);
    best.1 != before
}

/// Which axes of a buffer some of its users unrolls.
fn unrolled_axes(kernels: &[Kernel], facts: &[Facts], users: &[usize], buffer: usize, rank: usize) -> Vec<bool> {
    let mut unrolled = vec![false; rank];
    for (k, f) in users.iter().map(|&n| (&kernels[n], &facts[n])) {
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
    unrolled
}

/// The order of a buffer's axes, slowest first: unrolled ones, those after the contiguous one, those in front of it, the
/// contiguous one.
fn axis_order(unrolled: &[bool], inner: usize, gpu: bool) -> (Vec<usize>, String) {
    let rank = unrolled.len();
    let mut order: Vec<usize> = (0..rank).collect();
    // Axes in front of the contiguous one stay next to it: rows of tiles follow each other, and lanes may run on from one
    // row into the next.
    order.sort_by_key(|&a| (a == inner, !unrolled[a], a < inner));
    let reason = match gpu {
        _ if rank == 0 => "a single element".to_string(),
        true => format!("axis {inner} contiguous: writer and readers together move the fewest sectors with it"),
        false => format!("axis {inner} contiguous: writer and readers load and store vectors along it"),
    };
    (order, reason)
}
