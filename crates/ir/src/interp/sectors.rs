//! What each access of a kernel moves, counted without running it, at any size.
//!
//! Warps that touch memory in the same pattern are counted once. For each access, the loops around it fall into three
//! kinds:
//! - A range that no condition depends on and whose value only shifts the address: what counts is the shift modulo the
//!   pattern of memory (a sector, or a word of a bank). All such ranges together are one distribution of shifts.
//! - A range on which conditions depend, linearly: values at which these hold whatever the other ranges are shift the
//!   address likewise, and one stands for all with the same shift; values at which they never hold are left out; the
//!   others are looked at one by one.
//! - A range inside of a division or remainder of the address: each value is looked at.
//!
//! Thread loops outside of whole warps are such ranges too; the threads of the inner ones are all looked at.

use super::check_params;
use super::emit::Emitter;
use super::gpu::{GpuModel, Site, SiteCounts, Space, sites};
use super::machine::{Op, Place};
use super::requests::Meter;
use super::threads::{Threads, warps};
use crate::int::{IntId, IntNode, Ints, RangeId, gcd};
use crate::linear::{Access, Code, Instr, MAX_THREADS, SWIZZLE_BYTES, Stmt};
use rustc_hash::{FxHashMap, FxHashSet};

/// Most addresses that are looked at.
const MAX_LOOKS: u64 = 50_000_000;

/// Most values of a range that are not alike from the start.
const MAX_VALUES: i64 = 1 << 22;

/// Greatest bound that is one.
const FAR: i64 = i64::MAX / 4;

/// Counts what a launch moves: for each of [`sites`] what [`gpu::run`](super::gpu::run) would count. `None` where an
/// address depends on data, where the classes of warps are too many (more than 50 million addresses), and where the
/// code, the parameters or the model are such that nothing could be run.
pub fn count(code: &Code, params: &[i64], model: &GpuModel) -> Option<Vec<SiteCounts>> {
    if !model.is_valid() || check_params(&code.ints, params).is_err() {
        return None;
    }
    let nest = code.nest()?;
    let mut e = Emitter::new(&code.name, &code.ints, params);
    let known_range = |r: &RangeId| (r.0 as usize) < code.ints.range_count();
    if !nest.grid.iter().chain(&nest.threads).all(known_range) {
        return None;
    }
    let mut bound: Vec<RangeId> = nest.grid.iter().chain(&nest.threads).copied().collect();
    bound.sort_unstable();
    if bound.windows(2).any(|w| w[0] == w[1]) {
        return None;
    }
    let sizes: Option<Vec<i64>> = nest.threads.iter().map(|&r| e.known(code.ints.size(r)).ok()).collect();
    let sizes = sizes?;
    let total = sizes.iter().fold(1i64, |n, &s| n.saturating_mul(s));
    if !(1..=MAX_THREADS as i64).contains(&total) {
        return None;
    }
    // The inner thread loops that make up whole warps; those outside of them are the same for all lanes.
    let mut first = sizes.len();
    let mut count = 1;
    while first > 0 && count % model.lanes as i64 != 0 {
        first -= 1;
        count *= sizes[first];
    }
    let around: Vec<RangeId> = nest.grid.iter().chain(&nest.threads[..first]).copied().collect();
    let vars: Vec<u32> = nest.threads[first..].iter().map(|&r| e.open_loop(r)).collect();
    let mut planner = Planner { e, params, model, sites: sites(code), plans: Vec::new(), threads: count, looks: 0 };
    planner.body(nest.body, &around, &[])?;
    let Planner { mut e, sites, plans, .. } = planner;
    let thread_ops: Vec<Box<[Op]>> = vars.iter().map(|_| e.close()).collect();
    let once = e.close();
    let mut all: Vec<&[Op]> = vec![&once];
    all.extend(thread_ops.iter().rev().map(|ops| &**ops));
    let outer = all.len();
    all.extend(plans.iter().flat_map(|p| p.levels.iter().map(|l| &*l.ops)));
    let mut threads = Threads::new(&code.name, &e.machine.ints, count as usize, &vars, &all)?;
    threads.number(&vars, &sizes[first..]);
    for ops in &all[..outer] {
        integers(&mut threads, ops);
    }
    let mut counter = Counter {
        threads,
        meter: Meter::new(*model),
        lanes: model.lanes,
        everyone: (0..count as u32).collect(),
        touched: Vec::new(),
    };
    let mut out = vec![SiteCounts::default(); sites.len()];
    for plan in &plans {
        let n = plan.place.site as usize;
        counter.nest(&plan.levels, plan, &sites[n], 1, &mut out[n])?;
    }
    Some(out)
}

fn integers(threads: &mut Threads, ops: &[Op]) {
    for op in ops {
        if let Op::Int { dst, op } = op {
            threads.compute(*dst, op);
        }
    }
}

/// A range whose values are looked at, each standing for so many.
struct Level {
    var: u32,
    values: Vec<(i64, u64)>,
    ops: Box<[Op]>,
}

/// One access: the ranges to look at, outermost first, and the shifts of the others.
struct Plan {
    levels: Vec<Level>,
    place: Place,
    shifts: Vec<(i64, u64)>,
}

struct Planner<'a> {
    e: Emitter,
    params: &'a [i64],
    model: &'a GpuModel,
    sites: Vec<Site>,
    plans: Vec<Plan>,
    threads: i64,
    looks: u64,
}

impl Planner<'_> {
    /// Plans the accesses of a body inside of loops and conditions.
    fn body(&mut self, body: &[Stmt], loops: &[RangeId], gate: &[IntId]) -> Option<()> {
        for s in body {
            match s {
                Stmt::Let { instr: Instr::Load { access, .. } | Instr::Rows { access, .. }, .. }
                | Stmt::Store { access, .. } => {
                    self.access(access, loops, gate)?;
                }
                Stmt::Loop { range, body, .. } => {
                    if range.0 as usize >= self.e.ints.range_count() || loops.contains(range) || self.e.binds(*range) {
                        return None;
                    }
                    let inside: Vec<RangeId> = loops.iter().chain([range]).copied().collect();
                    self.body(body, &inside, gate)?;
                }
                Stmt::Async { body } => self.body(body, loops, gate)?,
                Stmt::If { gate: more, body } => {
                    let both: Vec<IntId> = gate.iter().chain(more.iter()).copied().collect();
                    self.body(body, loops, &both)?;
                }
                _ => {}
            }
        }
        Some(())
    }

    fn access(&mut self, access: &Access, loops: &[RangeId], around: &[IntId]) -> Option<()> {
        let number = self.plans.len();
        let (space, size, steps, swizzle) = {
            let s = self.sites.get(number)?;
            (s.space, s.dtype.size() as i64, (s.lanes / s.step()).max(1), s.swizzle)
        };
        let gate: Vec<IntId> = around.iter().chain(access.gate.iter()).copied().collect();
        if access.dynamic.is_some() || !gate.iter().chain([&access.addr]).all(|&e| self.e.ints.contains(e)) {
            return None;
        }
        // Bytes after which the pattern repeats.
        let (mut addr, pattern) = match space {
            Space::Global => (access.addr, self.model.sector_bytes as i64),
            Space::Shared if swizzle > 0 => (access.addr, SWIZZLE_BYTES as i64),
            Space::Shared => (access.addr, self.model.bank_bytes as i64),
            Space::Private => (self.e.ints.constant(0), 1),
        };
        let address = affine(&self.e.ints, addr, self.params)?;
        let step = |r: RangeId| address.steps.get(&r).map_or(Some(0), |&c| c.checked_mul(size));
        let mut shifts = vec![0u64; pattern as usize];
        shifts[0] = 1;
        let mut levels = Vec::new();
        let mut looks = 1u64;
        for &r in loops {
            let n = self.e.known(self.e.ints.size(r)).ok()?.max(0);
            let bent = address.bent.contains(&r);
            let gated = gate.iter().any(|&g| self.e.ints.depends_on(g, r));
            if !bent && !gated {
                shifts = shifted(&shifts, step(r)?, n)?;
                let zero = self.e.ints.constant(0);
                addr = self.e.ints.substitute(addr, &|x| (x == r).then_some(zero));
                continue;
            }
            if n > MAX_VALUES {
                return None;
            }
            let period = if bent { 0 } else { pattern / gcd(step(r)?, pattern) };
            let values = values(&mut self.e.ints, r, n, &gate, period);
            looks = looks.saturating_mul(values.len() as u64);
            levels.push((r, values));
        }
        let shifts: Vec<(i64, u64)> = (0..).zip(shifts).filter(|s| s.1 != 0).collect();
        let each = (self.threads as u64).saturating_mul(steps as u64);
        let each = each.saturating_mul(shifts.len() as u64);
        self.looks = self.looks.saturating_add(looks.saturating_mul(each));
        if self.looks > MAX_LOOKS {
            return None;
        }
        let vars: Vec<u32> = levels.iter().map(|l| self.e.open_loop(l.0)).collect();
        let addr = self.e.lin(addr, access.lane).ok()?;
        let gate: Option<Box<[_]>> = gate.iter().map(|&g| self.e.lin(g, access.lane).ok()).collect();
        let place = Place { mem: 0, addr, axes: Box::new([]), gate: gate?, dynamic: None, site: number as u32 };
        let mut closed: Vec<Level> = Vec::with_capacity(levels.len());
        for ((_, values), var) in levels.into_iter().zip(vars).rev() {
            closed.push(Level { var, values, ops: self.e.close() });
        }
        closed.reverse();
        self.plans.push(Plan { levels: closed, place, shifts });
        Some(())
    }
}

struct Counter {
    threads: Threads,
    meter: Meter,
    lanes: u32,
    everyone: Vec<u32>,
    touched: Vec<Vec<(u32, i64)>>,
}

impl Counter {
    fn nest(&mut self, levels: &[Level], plan: &Plan, site: &Site, times: u64, out: &mut SiteCounts) -> Option<()> {
        if let [level, inner @ ..] = levels {
            for &(value, n) in &level.values {
                self.threads.set(level.var, value);
                integers(&mut self.threads, &level.ops);
                self.nest(inner, plan, site, times.saturating_mul(n), out)?;
            }
            return Some(());
        }
        for warp in warps(&self.everyone, self.lanes) {
            let warp = &warp[..warp.len().min(site.threads as usize)];
            let steps = (0..site.lanes).step_by(site.step() as usize);
            self.touched.resize_with(steps.len(), Vec::new);
            for (l, touched) in steps.zip(&mut self.touched) {
                self.threads.gather(&plan.place, warp, l, touched).ok()?;
            }
            self.meter.access(site, &self.touched, &plan.shifts, times, out);
        }
        Some(())
    }
}

/// An address as a function of ranges: how far a step of each goes, and those that do more than shift it.
#[derive(Default)]
struct Affine {
    steps: FxHashMap<RangeId, i64>,
    bent: FxHashSet<RangeId>,
}

fn affine(ints: &Ints, e: IntId, params: &[i64]) -> Option<Affine> {
    let mut out = Affine::default();
    for (t, c) in ints.as_sum(e).0 {
        match ints.node(t) {
            IntNode::Range(r) => add_step(&mut out, *r, c)?,
            IntNode::Product(factors) => {
                let (with, without): (Vec<IntId>, Vec<IntId>) =
                    factors.iter().partition(|&&f| !ints.free_ranges(f).is_empty());
                match with[..] {
                    [f] if matches!(ints.node(f), IntNode::Range(_)) => {
                        let mut step = c;
                        for f in without {
                            let value = ints.eval(f, &|_| 0, &|p| params.get(p.0 as usize).copied().unwrap_or(0))?;
                            step = step.checked_mul(value)?;
                        }
                        if let IntNode::Range(r) = ints.node(f) {
                            add_step(&mut out, *r, step)?;
                        }
                    }
                    _ => out.bent.extend(ints.free_ranges(t)),
                }
            }
            _ => out.bent.extend(ints.free_ranges(t)),
        }
    }
    Some(out)
}

fn add_step(out: &mut Affine, r: RangeId, step: i64) -> Option<()> {
    let s = out.steps.entry(r).or_insert(0);
    *s = s.checked_add(step)?;
    Some(())
}

/// A distribution of shifts, moved by `0..n` steps: how often each shift modulo the pattern happens.
fn shifted(shifts: &[u64], step: i64, n: i64) -> Option<Vec<u64>> {
    let pattern = shifts.len() as i64;
    let period = pattern / gcd(step, pattern);
    let step = step.rem_euclid(pattern);
    let mut out = vec![0u64; shifts.len()];
    for k in 0..period.min(n) {
        let times = (n / period + (k < n % period) as i64) as u64;
        for (at, &before) in (0..).zip(shifts) {
            let to = &mut out[((at + k * step) % pattern) as usize];
            *to = to.checked_add(before.checked_mul(times)?)?;
        }
    }
    Some(out)
}

/// The values of a range with `n` values to look at, each with the number of values that it stands for. Where the range
/// only shifts the address, the shift's `period` in values says which ones are alike; 0 stands for none.
fn values(ints: &mut Ints, r: RangeId, n: i64, gate: &[IntId], period: i64) -> Vec<(i64, u64)> {
    let mut conditions = Vec::new();
    let mut linear = period > 0;
    for &g in gate {
        if !ints.depends_on(g, r) {
            continue;
        }
        match ints.split_linear(g, r).map(|(step, rest)| (step, ints.bounds(rest))) {
            // Bounds saturate far out, where they are none.
            Some((step, (lo, hi))) if lo > -FAR && hi < FAR => conditions.push((step as i128, (lo, hi))),
            _ => linear = false,
        }
    }
    let mut out: Vec<(i64, u64)> = Vec::new();
    let mut alike: FxHashMap<i64, usize> = FxHashMap::default();
    for v in 0..n {
        let least = |c: &(i128, (i64, i64))| c.0 * v as i128 + c.1.0 as i128;
        let most = |c: &(i128, (i64, i64))| c.0 * v as i128 + c.1.1 as i128;
        if conditions.iter().any(|c| most(c) < 0) {
            continue;
        }
        if linear && conditions.iter().all(|c| least(c) >= 0) {
            match alike.get(&(v % period)) {
                Some(&at) => out[at].1 += 1,
                None => {
                    alike.insert(v % period, out.len());
                    out.push((v, 1));
                }
            }
        } else {
            out.push((v, 1));
        }
    }
    out
}
