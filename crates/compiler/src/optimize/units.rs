//! Plans for products on matrix units: tiles of the unit in each warp, block tiles staged in shared memory.
//!
//! Takes a kernel that sums products which a unit of the target multiplies; leaves the kernel with the axes that move one
//! factor merged into one where they follow each other in memory, as an implicit matrix product has it, and a plan. Tiles
//! are compared by what they compute beyond ragged edges, by the time of their products, of the loads from shared memory
//! and of the copies into it, and by how evenly workgroups fill the machine.

use super::matrix_unit::{factor, from_shared, matrix_unit, product};
use super::merge::{merged, store_steps, stretch};
use super::plan::{Factor, Kind, Plan};
use crate::kernel::Kernel;
use crate::lower::shared::is_tiled;
use crate::options::Products;
use crate::target::Gpu;
use winograph_ir::DType;
use winograph_ir::int::RangeId;
use winograph_ir::linear::MatrixUnit;

/// Multiply-adds below which a launch is over before stages pay.
const LARGE: f64 = (1u64 << 20) as f64;
/// Accumulators of a thread, at most: beside them it needs registers for fragments and addresses.
const ACCUMULATORS: i64 = 128;
/// Bytes of a chunk's terms, at most: a line of the caches.
const ROW: i64 = 128;
/// Chunks in shared memory at a time, at most.
const STAGES: i64 = 4;
/// Bytes of a 16-byte access.
const WIDE: i64 = 16;

/// The merged kernel and its plan, without the order of blocks and threads; `None` where no unit multiplies what the
/// kernel sums, or where the kernel is small.
pub fn plan(kernel: &Kernel, gpu: &Gpu, products: Products) -> Option<(Kernel, Plan)> {
    let (merged, plans) = plans(kernel, gpu, products, 1)?;
    plans.into_iter().next().map(|plan| (merged, plan))
}

/// The merged kernel that a unit's plan is for, with the axes that the unit's rows and columns run along.
pub fn merge(kernel: &Kernel) -> Option<(Kernel, [usize; 2])> {
    let p = product(kernel)?;
    let sizes: Vec<i64> = kernel.loops.iter().map(|&r| kernel.graph.ints.const_size(r)).collect::<Option<_>>()?;
    let moves = |side: usize, r: RangeId| {
        kernel.graph.depends_on(p.factors[side], r) && !kernel.graph.depends_on(p.factors[1 - side], r)
    };
    let class = |side: usize| -> Vec<usize> {
        stretch(kernel, &(0..sizes.len()).filter(|&a| moves(side, kernel.loops[a])).collect::<Vec<_>>())
    };
    let sides = [class(0), class(1)];
    let (first, second) = (*sides[0].first()?, *sides[1].first()?);
    let (one, places) = merged(kernel, &sides[0])?;
    let (both, then) = merged(&one, &sides[1].iter().map(|&a| places[a]).collect::<Vec<_>>())?;
    let (x, y) = (then[places[first]], then[places[second]]);
    // Columns of the unit run along the axis that is contiguous in memory, as `Plan::apply` has it.
    let steps = store_steps(&both);
    let step = |a: usize| steps[a].unwrap_or(i64::MAX);
    let axes = if step(y) <= step(x) { [x, y] } else { [y, x] };
    Some((both, axes))
}

/// The merged kernel and at most so many plans, those that are estimated to cost the least first; `None` as for [`plan`].
pub fn plans(kernel: &Kernel, gpu: &Gpu, products: Products, most: usize) -> Option<(Kernel, Vec<Plan>)> {
    let units = units(kernel, gpu, products);
    if units.is_empty() {
        return None;
    }
    let sizes: Vec<i64> = kernel.loops.iter().map(|&r| kernel.graph.ints.const_size(r)).collect::<Option<_>>()?;
    let (both, [row, col]) = merge(kernel)?;
    let ints = &both.graph.ints;
    let size = |a: usize| ints.const_size(both.loops[a]);
    let sums = both.reduce_ranges();
    let terms: Vec<i64> = sums.iter().map(|&r| ints.const_size(r)).collect::<Option<_>>()?;
    let work = sizes.iter().chain(&terms).map(|&s| s as f64).product::<f64>();
    if work < LARGE {
        return None;
    }
    let rest: f64 =
        (0..both.loops.len()).filter(|&a| a != row && a != col).filter_map(size).map(|s| s as f64).product();
    let all_terms = terms.iter().product::<i64>();
    let sides = [size(row)?, size(col)?];
    let mut choices: Vec<(f64, Choice)> = Vec::new();
    for unit in units {
        let Some((k, chunk)) = along(&terms, &unit) else { continue };
        let steps = all_terms as f64 / (chunk * unit.k as i64) as f64;
        let fits = tiles(&unit).into_iter().filter(|t| t.fits(&unit, chunk, gpu));
        let mut costs: Vec<(f64, Tile)> = fits.map(|t| (t.cost(&unit, chunk, sides, rest, steps, gpu), t)).collect();
        costs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let of = |(cost, tile)| (cost, Choice { unit: unit.clone(), tile, k, chunk });
        choices.extend(costs.into_iter().take(most).map(of));
    }
    choices.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Those whose factors lie as their unit reads them.
    let plans = choices.iter().filter_map(|(_, choice)| {
        let plan = choice.plan(&both, gpu, [row, col], &terms);
        (!from_shared(&choice.unit) || tiled(&both, &plan)).then_some(plan)
    });
    let plans: Vec<Plan> = plans.take(most).collect();
    (!plans.is_empty()).then_some((both, plans))
}

/// Whether a plan's factors lie in shared memory as its unit reads them.
fn tiled(kernel: &Kernel, plan: &Plan) -> bool {
    let order = (0..kernel.loops.len()).collect();
    let has_threads = |a: &usize| plan.loops[*a].iter().any(|f| f.kind == Kind::Thread);
    let threads = (0..plan.loops.len()).filter(has_threads).collect();
    Plan { order, threads, ..plan.clone() }.apply(kernel).is_ok_and(|s| is_tiled(&s))
}

/// A unit, and what each workgroup computes with it.
struct Choice {
    unit: MatrixUnit,
    tile: Tile,
    /// The reduce axis on the unit.
    k: usize,
    /// How many of the unit's terms are a chunk.
    chunk: i64,
}

impl Choice {
    fn plan(&self, kernel: &Kernel, gpu: &Gpu, [row, col]: [usize; 2], terms: &[i64]) -> Plan {
        let Choice { unit, tile, k, chunk } = self;
        let any = |kind: Kind| Factor { kind, size: None };
        let of = |kind: Kind, size: i64| Factor { kind, size: Some(size) };
        let chunks = (terms.iter().product::<i64>() / (chunk * unit.k as i64)).max(1);
        let stages = match gpu.copies {
            // Two workgroups on a multiprocessor hide each other's waits.
            true => (gpu.shared as i64 / 2 / tile.bytes(unit, *chunk)).clamp(2, STAGES.min(chunks.max(2))),
            false => 1,
        };
        let mut plan = Plan { unit: Some(unit.name.clone()), stages: stages as u32, ..Plan::default() };
        for a in 0..kernel.loops.len() {
            let mut factors = vec![any(Kind::Grid)];
            for (axis, warps, copies) in [(row, tile.warps[0], tile.copies[0]), (col, tile.warps[1], tile.copies[1])] {
                if a == axis {
                    factors.extend([of(Kind::Thread, warps), of(Kind::Unroll, copies)]);
                }
            }
            factors.retain(|f| f.size != Some(1));
            if a == row || a == col {
                factors.push(any(Kind::Matrix));
            }
            plan.loops.push(factors);
        }
        for n in 0..terms.len() {
            plan.reduces.push(match n == *k {
                true => vec![any(Kind::Loop), of(Kind::Shared, *chunk), any(Kind::Matrix)],
                false => vec![any(Kind::Loop)],
            });
        }
        plan
    }
}

/// The units of the target for a kernel's factors: where they are half floats, whose products are exact in f32, those for half
/// floats. One that rounds its factors has to be asked for.
pub(crate) fn units(kernel: &Kernel, gpu: &Gpu, products: Products) -> Vec<MatrixUnit> {
    let Some(p) = product(kernel) else { return Vec::new() };
    let fits = |u: &MatrixUnit| {
        let takes = p.factors.iter().all(|&f| factor(kernel, f, u.a.dtype).is_some());
        takes
            && match (u.a.dtype, products) {
                // What a tolerance admits is decided before: `auto` is one of the others by then.
                (DType::F32, Products::Exact | Products::Half | Products::Auto) => false,
                (DType::F32, Products::Tf32) => u.factor_bits == 11,
                (DType::F32, Products::Tf32x3) => u.factor_bits == 22,
                _ => true,
            }
    };
    let mut units: Vec<MatrixUnit> = gpu.units.iter().filter_map(|name| matrix_unit(name)).filter(fits).collect();
    // What takes half floats as they are is never slower than what takes them as f32.
    if units.iter().any(|u| u.a.dtype != DType::F32) {
        units.retain(|u| u.a.dtype != DType::F32);
    }
    units
}

/// The reduce axis on the unit, the longest that it divides, and how many of the unit's terms are a chunk.
fn along(terms: &[i64], unit: &MatrixUnit) -> Option<(usize, i64)> {
    let n = unit.k as i64;
    let k = (0..terms.len()).filter(|&a| terms[a] % n == 0).max_by_key(|&a| (terms[a], a))?;
    let most = (ROW / (n * unit.a.dtype.size() as i64)).max(1);
    let all: i64 = terms.iter().product();
    let chunk = (1..=most).rev().find(|&c| terms[k] % (c * n) == 0 && all / (c * n) >= 2)?;
    Some((k, chunk))
}

/// Warps and tiles of the unit in each, along rows and columns.
struct Tile {
    warps: [i64; 2],
    copies: [i64; 2],
}

impl Tile {
    fn block(&self, unit: &MatrixUnit) -> [i64; 2] {
        [self.warps[0] * self.copies[0] * unit.m as i64, self.warps[1] * self.copies[1] * unit.n as i64]
    }

    /// Bytes of shared memory of a chunk.
    fn bytes(&self, unit: &MatrixUnit, chunk: i64) -> i64 {
        let row = chunk * unit.k as i64 * unit.a.dtype.size() as i64;
        // Rows of other lengths are kept apart by padding.
        let row = if matches!(row, 64 | 128) { row } else { row + WIDE };
        self.block(unit).iter().map(|n| n * row).sum()
    }

    fn fits(&self, unit: &MatrixUnit, chunk: i64, gpu: &Gpu) -> bool {
        let threads = self.warps[0] * self.warps[1] * unit.c.threads() as i64;
        let bytes = self.bytes(unit, chunk) * if gpu.copies { 2 } else { 1 };
        let accumulators = self.copies[0] * self.copies[1] * unit.c.elements() as i64;
        accumulators <= ACCUMULATORS && threads <= gpu.max_threads.min(256) as i64 && bytes <= gpu.shared as i64
    }

    /// Cycles of a launch, about, by what was measured on an H100: of the products at half of the unit's rate, which is
    /// what `mma.sync` reaches; of loads from shared memory at 128 bytes; of copies into it from the second-level cache at
    /// 28. What is less than the most is hidden for the better part.
    fn cost(&self, unit: &MatrixUnit, chunk: i64, sizes: [i64; 2], rest: f64, steps: f64, gpu: &Gpu) -> f64 {
        let processors = gpu.processors as f64;
        if from_shared(unit) {
            return self.cost_from_shared(unit, chunk, sizes, rest, steps, processors);
        }
        let [rows, cols] = self.block(unit);
        let blocks = |n: i64, block: i64| ((n + block - 1) / block) as f64;
        let all = rest * blocks(sizes[0], rows) * blocks(sizes[1], cols);
        let bytes = unit.a.dtype.size() as f64;
        let k = (unit.k as i64 * chunk) as f64;
        let warps = (self.warps[0] * self.warps[1]) as f64;
        // A workgroup with many accumulators is alone on a multiprocessor, or few are in the launch.
        let accumulators = warps * (self.copies[0] * self.copies[1] * unit.c.elements() as i64) as f64;
        let beside = (all / processors).clamp(1.0, if accumulators > 512.0 { 1.0 } else { 8.0 / warps.min(4.0) });
        // A multiprocessor has four units, and a warp uses one.
        let busy = (warps * beside / 4.0).min(1.0);
        let times = if unit.factor_bits == 22 { 3.0 } else { 1.0 };
        let products = (rows * cols) as f64 * k / 1024.0 * (bytes / 2.0) * times / busy;
        let [m, n] = [unit.m as f64 * self.copies[0] as f64, unit.n as f64 * self.copies[1] as f64];
        let loads = warps * (m + n) * k * bytes / 128.0;
        let copies = (rows + cols) as f64 * k * bytes / 28.0;
        let most = products.max(loads).max(copies);
        // Waiting for the first copies, and for the last at a barrier.
        let step = (most + 0.25 * (products + loads + copies - most) + 150.0).max(500.0);
        // Nobody runs while it waits.
        let alone = beside < 2.0;
        let waves = (all / processors).ceil();
        waves * (if alone { 1.25 } else { 1.0 } * step * steps + (rows * cols) as f64 / 16.0)
    }

    /// Cycles of a launch on a unit that reads its factors from shared memory: products at the unit's rate, factors read
    /// from there by each group of warps, copies from the second-level cache at 40 bytes a cycle, which is what was
    /// measured on an H100 where the taps of a window share lines of the first-level cache.
    fn cost_from_shared(
        &self,
        unit: &MatrixUnit,
        chunk: i64,
        sizes: [i64; 2],
        rest: f64,
        steps: f64,
        processors: f64,
    ) -> f64 {
        let [rows, cols] = self.block(unit);
        let blocks = |n: i64, block: i64| ((n + block - 1) / block) as f64;
        let all = rest * blocks(sizes[0], rows) * blocks(sizes[1], cols);
        let bytes = unit.a.dtype.size() as f64;
        let k = (unit.k as i64 * chunk) as f64;
        let groups = (self.warps[0] * self.warps[1]) as f64;
        let products = (rows * cols) as f64 * k / 2048.0 * (bytes / 2.0);
        let loads = groups * (unit.m + unit.n) as f64 * k * bytes / 128.0;
        let copies = (rows + cols) as f64 * k * bytes / 40.0;
        let most = products.max(loads).max(copies);
        let step = most + 0.25 * (products + loads + copies - most);
        // As many workgroups are on a multiprocessor as it has registers for, and the launch has workgroups.
        let registers = groups * 128.0 * (unit.c.elements() as f64 + 56.0);
        let beside = (65536.0 / registers).floor().min((all / processors).ceil()).max(1.0);
        let waits = if beside < 2.0 { 150.0 + 0.25 * step } else { 0.0 };
        (all / processors).ceil() * ((step + waits) * steps + (rows * cols) as f64 / 16.0)
    }
}

fn tiles(unit: &MatrixUnit) -> Vec<Tile> {
    let mut out = Vec::new();
    if from_shared(unit) {
        // Each group of warps has one product, whose columns the unit's name says.
        for w0 in [1, 2] {
            for w1 in [1, 2] {
                out.push(Tile { warps: [w0, w1], copies: [1, 1] });
            }
        }
        return out;
    }
    for w0 in [1, 2, 4] {
        for w1 in [1, 2, 4] {
            for c0 in [1, 2, 4] {
                for c1 in [1, 2, 4, 8] {
                    out.push(Tile { warps: [w0, w1], copies: [c0, c1] });
                }
            }
        }
    }
    out
}
