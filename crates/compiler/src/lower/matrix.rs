//! From a kernel with axes on a matrix unit to linear code.
//!
//! Takes a scheduled kernel that sums products with two map ranges and a reduce range on a unit; leaves a warp's code:
//! loops over the bits of a lane's number, which say where the lane's elements of each operand are; fragments gathered
//! from global memory, or from the shared memory that the workgroup's warps copy a chunk to, by rows where they lie so
//! (`rows.rs`) unless the unit reads them from there itself, by vectors where their places are linear and by pairs
//! otherwise; one accumulator per point of the unrolled map ranges; and the stores of what is
//! computed from the sums, by pairs of neighbours.

use super::emit::{Emit, loops};
use super::rows::Rows;
use super::shared;
use super::unroll::points;
use crate::optimize::matrix_unit;
use crate::optimize::plan::{MatrixRanges, Scheduled};
use winograph_ir::indexed::{BufId, Layout, LayoutDim, Origin, Scope, Source, Val, ValId};
use winograph_ir::int::{IntId, RangeId, RangeRole};
use winograph_ir::linear::{Access, Code, Fragment, Instr, LoopKind, Memory, MemoryDecl, Reg, Stmt, Tile};
use winograph_ir::{DType, Scalar};

/// Places of a fragment's elements: its rows and columns in terms of the lane's bits and the element's number.
struct Places {
    /// Counts the elements of a lane; `None` where there is one.
    element: Option<RangeId>,
    /// Counts the elements of a pair.
    pair: RangeId,
    elements: u32,
    row: IntId,
    col: IntId,
}

/// A point of the unrolled map ranges: what it stores, and its sum.
struct Point {
    buffer: BufId,
    index: Vec<IntId>,
    gate: Vec<IntId>,
    value: ValId,
    sum: ValId,
    factors: [ValId; 2],
}

/// Lowers a scheduled kernel with axes on a matrix unit.
pub fn lower(scheduled: &Scheduled, matrix: &MatrixRanges, name: String) -> Code {
    let mut staged = scheduled.clone();
    let stages = scheduled.shared.as_ref().map_or_else(Vec::new, |ranges| shared::stage(&mut staged, ranges));
    let scheduled = &staged;
    let mut e = Emit::new(scheduled);
    let unit = &matrix.unit;
    let two = e.g.ints.constant(2);
    // By bit: the lowest one is the innermost loop.
    let bits: Vec<RangeId> = (0..unit.a.thread_row.len()).map(|_| e.g.ints.new_range(two, RangeRole::Map)).collect();
    let lanes: Vec<RangeId> = bits.iter().rev().copied().collect();
    let nest = loops(scheduled, &lanes);
    let threads: Vec<RangeId> = scheduled.thread.iter().chain(&lanes).copied().collect();
    let mut copies = scheduled.shared.as_ref().map(|ranges| shared::copies(&mut e, &stages, ranges, &threads));
    let (pa, pb, pc) = (places(&mut e, &unit.a, &bits), places(&mut e, &unit.b, &bits), places(&mut e, &unit.c, &bits));
    for _ in &nest {
        e.push();
    }
    let work = gather(&mut e, scheduled, matrix);
    let zero = e.let_(DType::F32, 1, Instr::Const(Scalar::zero(DType::F32)));
    e.set_lane(pc.element, pc.elements);
    let sums: Vec<Reg> = work
        .iter()
        .map(|_| {
            let init = e.widen(zero, pc.elements);
            let reg = e.reg(DType::F32, pc.elements);
            e.stmt(Stmt::Var { reg, init });
            reg
        })
        .collect();
    sum_up(&mut e, scheduled, matrix, [&pa, &pb], &bits, &work, &sums);
    e.set_lane(pc.element, pc.elements);
    let mut locals = Vec::new();
    for (point, &sum) in work.iter().zip(&sums) {
        store(&mut e, matrix, point, sum, &pc, &mut locals);
    }
    e.close(&nest);
    let mut code = e.finish(scheduled, name);
    code.units.push(unit.clone());
    code.locals = locals;
    if let Some(ranges) = &scheduled.shared {
        // There is such a loop: a plan has one around a chunk.
        shared::put_in_front(&mut code.body, ranges.outer, &mut copies);
        shared::own(&mut code, &stages);
    }
    code
}

/// Where the elements of a fragment are.
fn places(e: &mut Emit, f: &Fragment, bits: &[RangeId]) -> Places {
    let elements = f.elements();
    let ints = &mut e.g.ints;
    let two = ints.constant(2);
    let pair = ints.new_range(two, RangeRole::Map);
    let element = (elements > 1).then(|| {
        let size = ints.constant(elements as i64);
        ints.new_range(size, RangeRole::Map)
    });
    let mut place = |thread: &[u32], weights: &[u32]| {
        let mut terms: Vec<(IntId, i64)> = Vec::new();
        for (&r, &w) in bits.iter().zip(thread) {
            terms.push((ints.range(r), w as i64));
        }
        if let Some(r) = element {
            let r = ints.range(r);
            let first = weights.first().map_or(0, |&w| w as u64);
            if weights.iter().enumerate().all(|(i, &w)| w as u64 == first << i) {
                terms.push((r, first as i64));
            } else {
                for (i, &w) in weights.iter().enumerate() {
                    let bit = ints.div_const(r, 1 << i);
                    let bit = ints.rem_const(bit, 2);
                    terms.push((bit, w as i64));
                }
            }
        }
        ints.sum(&terms, 0)
    };
    let (row, col) = (place(&f.thread_row, &f.element_row), place(&f.thread_col, &f.element_col));
    Places { element, pair, elements, row, col }
}

/// What every point of the unrolled map ranges stores, and the sums in it.
fn gather(e: &mut Emit, scheduled: &Scheduled, matrix: &MatrixRanges) -> Vec<Point> {
    let kernel = &scheduled.kernel;
    let Ok(factors) = matrix_unit::factors(kernel, &matrix.unit, matrix.row, matrix.col) else { return Vec::new() };
    let Some(product) = matrix_unit::product(kernel) else { return Vec::new() };
    let maps: Vec<RangeId> = scheduled.unroll.iter().copied().filter(|r| kernel.loops.contains(r)).collect();
    let mut out = Vec::new();
    for store in &kernel.stores {
        for point in points(&e.g, &maps) {
            let (mut index, mut gate) = (store.index.clone(), store.gate.to_vec());
            for &(r, c) in &point {
                for i in index.iter_mut().chain(gate.iter_mut()) {
                    *i = e.unroller.int_at(&mut e.g, *i, r, c);
                }
            }
            let mut at = |v: ValId| e.unroller.at_point(&mut e.g, v, &point);
            let (value, sum) = (at(store.value), at(product.reduce));
            let factors = factors.map(&mut at);
            out.push(Point { buffer: store.buffer, index, gate, value, sum, factors });
        }
    }
    out
}

/// A fragment whose elements are values along the place's element: one vector where they are linear in its number, else
/// pairs, as far as these are.
fn fragment(e: &mut Emit, v: ValId, place: &Places) -> Reg {
    if let Some(known) = e.known(v) {
        return known;
    }
    let Some(element) = place.element.filter(|&r| e.g.depends_on(v, r)) else {
        e.set_lane(None, 1);
        let one = e.eval(v);
        return e.widen(one, place.elements);
    };
    e.set_lane(Some(element), place.elements);
    if place.elements == 2 || is_linear(e, v, element) {
        return e.eval(v);
    }
    e.set_lane(Some(place.pair), 2);
    let mut parts = Vec::new();
    for half in 0..place.elements as i64 / 2 {
        let pair = e.g.ints.range(place.pair);
        let number = e.g.ints.add_const(pair, 2 * half);
        let two = e.g.substitute(v, &|r| (r == element).then_some(number));
        let reg = e.eval(two);
        parts.push(e.widen(reg, 2));
    }
    let dtype = e.g.dtype(v);
    let mut lanes = 2;
    while parts.len() > 1 {
        lanes *= 2;
        let join = |two: &[Reg]| Instr::Shuffle { a: two[0], b: two[two.len() - 1], pattern: (0..lanes).collect() };
        parts = parts.chunks(2).map(|two| e.let_(dtype, lanes, join(two))).collect();
    }
    e.remember(v, parts[0]);
    parts[0]
}

/// Whether all that a value loads and depends on is linear in a range.
fn is_linear(e: &mut Emit, v: ValId, lane: RangeId) -> bool {
    e.g.topological(&[v]).into_iter().all(|v| match e.g.val(v).clone() {
        Val::Load { src, index, gate, .. } => e.access(src, &index, &gate, Some(lane)).is_some(),
        Val::Index { value, .. } => e.g.ints.split_linear(value, lane).is_some(),
        Val::Select { gate, .. } => gate.iter().all(|&c| e.g.ints.split_linear(c, lane).is_some()),
        _ => true,
    })
}

/// The loops over the rest of the reduction, with a multiply-accumulate per point. Where fragments are loaded by rows,
/// those of the next step are loaded before the products of this one.
fn sum_up(
    e: &mut Emit,
    scheduled: &Scheduled,
    matrix: &MatrixRanges,
    places: [&Places; 2],
    bits: &[RangeId],
    work: &[Point],
    sums: &[Reg],
) {
    let chunk = scheduled.shared.as_ref().map(|s| s.chunk);
    let reduces: Vec<RangeId> = scheduled.kernel.reduce_ranges().into_iter().filter(|&r| r != matrix.k).collect();
    let (unrolled, looped): (Vec<RangeId>, Vec<RangeId>) =
        reduces.iter().partition(|r| scheduled.unroll.contains(r) || Some(**r) == chunk);
    for _ in &looped {
        e.push();
    }
    e.open.extend(&reduces);
    let mut loaded: Option<Vec<[Reg; 2]>> = None;
    for step in points(&e.g, &unrolled) {
        if matrix_unit::from_shared(&matrix.unit) && by_tiles(e, matrix, &step, work, sums) {
            continue;
        }
        let mut fragments = vec![[Reg(0); 2]; work.len()];
        let mut by_rows = true;
        for (side, place) in places.into_iter().enumerate() {
            let factors: Vec<ValId> =
                work.iter().map(|p| e.unroller.at_point(&mut e.g, p.factors[side], &step)).collect();
            let regs = match rows_of(e, matrix, side, &factors, bits) {
                Some(regs) => regs,
                None => {
                    by_rows = false;
                    factors.iter().map(|&v| elements_of(e, matrix, side, v, place)).collect()
                }
            };
            fragments.iter_mut().zip(regs).for_each(|(f, r)| f[side] = r);
        }
        let ready = if by_rows { loaded.replace(fragments) } else { Some(fragments) };
        products(e, matrix, ready.as_deref().unwrap_or_default(), sums);
    }
    products(e, matrix, loaded.as_deref().unwrap_or_default(), sums);
    for _ in &reduces {
        e.open.pop();
    }
    e.close(&looped.iter().map(|&r| (r, LoopKind::Serial)).collect::<Vec<_>>());
}

/// The products of a step of factors that the unit reads from shared memory; `false`, and nothing, where these do not lie
/// as it reads them.
fn by_tiles(e: &mut Emit, matrix: &MatrixRanges, step: &[(RangeId, i64)], work: &[Point], sums: &[Reg]) -> bool {
    let mut all = Vec::with_capacity(work.len());
    for point in work {
        let factors = point.factors.map(|v| e.unroller.at_point(&mut e.g, v, step));
        let a = tile(e, matrix, factors[0], matrix.row, matrix.unit.m);
        let b = tile(e, matrix, factors[1], matrix.col, matrix.unit.n);
        let (Some(a), Some(b)) = (a, b) else { return false };
        all.push(Box::new([a, b]));
    }
    for (tiles, &c) in all.into_iter().zip(sums) {
        let instr = Instr::Tiles { unit: 0, tiles, c };
        let value = e.let_(DType::F32, matrix.unit.c.elements(), instr);
        e.stmt(Stmt::Set { reg: c, value });
    }
    true
}

/// A factor in shared memory, `rows` of it along a range.
fn tile(e: &mut Emit, matrix: &MatrixRanges, v: ValId, along: RangeId, rows: u32) -> Option<Tile> {
    let Val::Load { src: Source::Buffer(buffer), index, gate, .. } = e.g.val(v).clone() else { return None };
    if e.g.buffer(buffer).scope != Scope::Shared || !gate.is_empty() {
        return None;
    }
    let ints = &mut e.g.ints;
    let [rows, terms] = [rows, matrix.unit.k].map(|n| ints.constant(n as i64));
    let [row, lane] = [rows, terms].map(|n| ints.new_range(n, RangeRole::Map));
    let [on_row, on_lane, zero] = [ints.range(row), ints.range(lane), ints.constant(0)];
    let mut at = |on_axis: IntId, on_k: IntId| {
        let place = |r: RangeId| if r == along { Some(on_axis) } else { (r == matrix.k).then_some(on_k) };
        let index: Vec<IntId> = index.iter().map(|&i| e.g.ints.substitute(i, &place)).collect();
        e.access(Source::Buffer(buffer), &index, &[], Some(lane))
    };
    let (access, base) = (at(on_row, on_lane)?, at(zero, zero)?.addr);
    let rest = e.g.ints.sum(&[(access.addr, 1), (base, -1), (on_row, -(matrix.unit.k as i64)), (on_lane, -1)], 0);
    (e.g.ints.as_const(rest) == Some(0)).then_some(Tile { access, row, base })
}

fn products(e: &mut Emit, matrix: &MatrixRanges, fragments: &[[Reg; 2]], sums: &[Reg]) {
    for (&[a, b], &c) in fragments.iter().zip(sums) {
        let value = e.let_(DType::F32, matrix.unit.c.elements(), Instr::Matrix { unit: 0, a, b, c });
        e.stmt(Stmt::Set { reg: c, value });
    }
}

/// The fragments of a side's factors, loaded by rows together: each of them once.
fn rows_of(e: &mut Emit, matrix: &MatrixRanges, side: usize, factors: &[ValId], bits: &[RangeId]) -> Option<Vec<Reg>> {
    let (fragment, ranges) = match side {
        0 => (&matrix.unit.a, [matrix.row, matrix.k]),
        _ => (&matrix.unit.b, [matrix.k, matrix.col]),
    };
    let mut distinct: Vec<ValId> = Vec::new();
    for &v in factors {
        if !distinct.contains(&v) {
            distinct.push(v);
        }
    }
    let rows: Vec<Rows> = distinct.iter().map(|&v| Rows::of(e, fragment, v, ranges, bits)).collect::<Option<_>>()?;
    let regs = Rows::load(e, &rows, bits)?;
    factors.iter().map(|v| distinct.iter().position(|d| d == v).map(|n| regs[n])).collect()
}

/// A factor's fragment, element by element.
fn elements_of(e: &mut Emit, matrix: &MatrixRanges, side: usize, v: ValId, place: &Places) -> Reg {
    let (along, on_axis, on_k) =
        if side == 0 { (matrix.row, place.row, place.col) } else { (matrix.col, place.col, place.row) };
    let v = e.g.substitute(v, &|r| if r == along { Some(on_axis) } else { (r == matrix.k).then_some(on_k) });
    fragment(e, v, place)
}

/// Computes what a point stores from its sum, and stores it: as one vector where the places of a lane's elements are
/// linear, by pairs of neighbours through registers otherwise.
fn store(e: &mut Emit, matrix: &MatrixRanges, point: &Point, sum: Reg, places: &Places, locals: &mut Vec<MemoryDecl>) {
    let f = |r: RangeId| {
        if r == matrix.row { Some(places.row) } else { (r == matrix.col).then_some(places.col) }
    };
    let sum_value = e.g.substitute(point.sum, &f);
    e.remember(sum_value, sum);
    let value = e.g.substitute(point.value, &f);
    let index: Vec<IntId> = point.index.iter().map(|&i| e.g.ints.substitute(i, &f)).collect();
    let gate: Vec<IntId> = point.gate.iter().map(|&i| e.g.ints.substitute(i, &f)).collect();
    let reg = e.eval(value);
    let reg = e.widen(reg, places.elements);
    let source = Source::Buffer(point.buffer);
    if let Some(access) = e.access(source, &index, &gate, places.element) {
        return e.stmt(Stmt::Store { access, value: reg });
    }
    let Some(element) = places.element else { return };
    // Lanes of a register are reached through memory with constant addresses, which compilers keep in registers.
    let dtype = e.g.dtype(value);
    let size = e.g.ints.constant(places.elements as i64);
    let one = e.g.ints.constant(1);
    let dims = vec![LayoutDim { axis: 0, div: 1, modulus: None, stride: one }];
    let mem = Memory::Local(locals.len() as u32);
    locals.push(MemoryDecl {
        name: format!("fragment{}", locals.len()),
        dtype,
        shape: vec![size],
        layout: Layout { dims, len: size },
        scope: Scope::Register,
        origin: Origin::Internal,
        written: true,
        swizzle: 0,
        streamed: false,
    });
    let at = |addr: IntId, lane: Option<RangeId>| Access {
        mem,
        index: [addr].into(),
        addr,
        gate: [].into(),
        lane,
        dynamic: None,
    };
    let all = e.g.ints.range(element);
    e.stmt(Stmt::Store { access: at(all, Some(element)), value: reg });
    let two = e.g.ints.constant(2);
    for pair in 0..places.elements as i64 / 2 {
        let lane = e.g.ints.new_range(two, RangeRole::Map);
        let lane_value = e.g.ints.range(lane);
        let number = e.g.ints.add_const(lane_value, 2 * pair);
        let fill = Scalar::zero(dtype);
        let (paired, gates) = (moved(e, &index, element, number), moved(e, &gate, element, number));
        if let Some(access) = e.access(source, &paired, &gates, Some(lane)) {
            let half = e.let_(dtype, 2, Instr::Load { access: at(number, Some(lane)), fill });
            e.stmt(Stmt::Store { access, value: half });
            continue;
        }
        // Not linear in two neighbours: one by one.
        for n in [2 * pair, 2 * pair + 1] {
            let number = e.g.ints.constant(n);
            let (index, gate) = (moved(e, &index, element, number), moved(e, &gate, element, number));
            let Some(gate) = e.g.ints.conjunction(&gate) else { continue };
            if let Some(access) = e.access(source, &index, &gate, None) {
                let value = e.let_(dtype, 1, Instr::Load { access: at(number, None), fill });
                e.stmt(Stmt::Store { access, value });
            }
        }
    }
}

/// Expressions with the number of an element in place of the range that counts them.
fn moved(e: &mut Emit, list: &[IntId], element: RangeId, number: IntId) -> Vec<IntId> {
    list.iter().map(|&i| e.g.ints.substitute(i, &|r| (r == element).then_some(number))).collect()
}
