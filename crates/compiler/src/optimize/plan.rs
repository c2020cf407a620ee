//! Plans: all schedule decisions of one kernel as plain data.
//!
//! Axes are canonical: a kernel's map loops in order are `a0`, `a1`, ..., its reduce ranges `r0`, `r1`, ... A plan splits
//! each into factors, outermost first, and orders the loops:
//!
//! ```text
//! a0=grid a1=grid*14,unroll:14 a2=grid,vector:16 r0=loop order=a2,a0,a1
//! ```
//!
//! A factor is a kind and a size; the first factor of an axis may leave its size out and takes what is left. Vector factors
//! of several axes share the lanes: `a0=loop,vector:2 a1=vector:7` are two rows of seven in 14 of 16 lanes. Where no map
//! axis has one, a reduce axis may: `r0=loop,vector:16` sums each lane's terms, then the lanes, which takes a sum in any
//! order.
//! `order` lists axes: their `grid` and `loop` factors nest in that order, grids outside of loops.
//!
//! Two map axes and a reduce axis may have `matrix` factors, each the innermost of its axis: these are on the matrix unit
//! that `unit=` names, with the unit's sizes, and a warp's lanes are the unit's. `r0=loop,shared:8` has a workgroup copy
//! what it needs of a product's factors for 8 terms at a time to shared memory, `r0=loop,shared:2,matrix` for twice the
//! unit's; with `stages=3` three chunks are there at a time, two of them being copied while one is used. A stored plan may leave out `order`, `threads` and `unit`; [`grid::complete`](super::grid::complete) fills
//! them in.

pub use super::chunks::SharedRanges;
use super::chunks::shared_ranges;
use super::matrix_unit::{factors, matrix_unit, product};
use crate::kernel::Kernel;
use rustc_hash::FxHashMap;
use std::fmt;
use thiserror::Error;
use winograph_ir::indexed::Val;
use winograph_ir::int::{IntId, IntNode, Ints, RangeId, RangeRole};
use winograph_ir::linear::MatrixUnit;
use winograph_ir::op::{ReduceOp, SumOrder};

/// Largest product of the inner factors of an axis.
const MAX_FACTORS: i64 = 1 << 24;

/// Most copies that a plan may make of a kernel's values: code grows with them.
const MAX_COPIES: i64 = 1 << 18;

/// What a factor of an axis becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Independent work items: blocks on a GPU.
    Grid,
    /// Threads of a workgroup.
    Thread,
    /// A loop within a work item.
    Loop,
    /// Expanded: register tiles, and ranges of constant tables.
    Unroll,
    /// Lanes of a vector.
    Vector,
    /// One side of a matrix unit's operands.
    Matrix,
    /// A chunk of a reduction whose factors a workgroup stages in shared memory.
    Shared,
}

impl Kind {
    const ALL: [Kind; 7] =
        [Kind::Grid, Kind::Thread, Kind::Loop, Kind::Unroll, Kind::Vector, Kind::Matrix, Kind::Shared];

    /// Name in the text of a plan.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Grid => "grid",
            Kind::Thread => "thread",
            Kind::Loop => "loop",
            Kind::Unroll => "unroll",
            Kind::Vector => "vector",
            Kind::Matrix => "matrix",
            Kind::Shared => "shared",
        }
    }
}

/// One factor of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Factor {
    /// What it becomes.
    pub kind: Kind,
    /// Its size; `None` for what the others leave, or what the matrix unit takes.
    pub size: Option<i64>,
}

/// All schedule decisions of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Plan {
    /// Factors of each map loop, outermost first.
    pub loops: Vec<Vec<Factor>>,
    /// Factors of each reduce range, outermost first.
    pub reduces: Vec<Vec<Factor>>,
    /// Map loops in nesting order.
    pub order: Vec<usize>,
    /// Map loops with thread factors, the slowest in the thread's number first.
    pub threads: Vec<usize>,
    /// The matrix unit of the `matrix` factors.
    pub unit: Option<String>,
    /// Chunks of a shared factor that are in shared memory at a time: those beyond the first are copied while it is
    /// computed from. 0 and 1 copy a chunk before it is used.
    pub stages: u32,
}

/// Why a plan does not fit.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// The text is not a plan.
    #[error("plan: {0}")]
    Syntax(String),
    /// The plan is for another kernel.
    #[error("plan does not fit the kernel: {0}")]
    Mismatch(String),
}

/// A kernel whose ranges have kinds.
#[derive(Clone, Debug)]
pub struct Scheduled {
    /// The kernel over the new ranges; its `loops` are all map ranges.
    pub kernel: Kernel,
    /// Grid loops, outermost first.
    pub grid: Vec<RangeId>,
    /// Thread loops within them, the slowest in the thread's number first.
    pub thread: Vec<RangeId>,
    /// Serial loops within these, outermost first.
    pub serial: Vec<RangeId>,
    /// Unrolled ranges, map and reduce.
    pub unroll: Vec<RangeId>,
    /// The lane, if code is vectorised: a map range, or a reduce range whose lanes are partial results.
    pub lane: Option<RangeId>,
    /// What is on a matrix unit, if anything is.
    pub matrix: Option<MatrixRanges>,
    /// The reduction whose factors are staged in shared memory, if any are.
    pub shared: Option<SharedRanges>,
    /// Whether products are fused into sums where that is permitted.
    pub fma: bool,
}

/// The ranges that a matrix unit covers.
#[derive(Clone, Debug)]
pub struct MatrixRanges {
    /// The unit.
    pub unit: MatrixUnit,
    /// The map range along the unit's rows.
    pub row: RangeId,
    /// The map range along its columns.
    pub col: RangeId,
    /// The reduce range.
    pub k: RangeId,
}

/// Vector factors of several axes, which share the lanes: `vector:2` and `vector:7` are two rows of seven in the first 14
/// of 16 lanes. The last axis is the fastest.
struct Lanes {
    /// Sizes of the factors that have not been met.
    sizes: Vec<i64>,
    /// Whether one has been met.
    started: bool,
}

impl Lanes {
    /// Those of a plan; empty where there are fewer than two.
    fn of(axes: &[(RangeId, &Vec<Factor>, bool)]) -> Lanes {
        let maps = axes.iter().filter(|a| a.2);
        let factors = maps.flat_map(|a| a.1).filter(|f| f.kind == Kind::Vector && f.size != Some(1));
        let sizes: Option<Vec<i64>> = factors.map(|f| f.size).collect();
        Lanes { sizes: sizes.filter(|s| s.len() > 1).unwrap_or_default(), started: false }
    }

    fn product(&self) -> i64 {
        self.sizes.iter().fold(1i64, |n, &s| n.saturating_mul(s)).min(1 << 16)
    }

    /// The range of the lanes, a power of two, and the condition that a lane is one of an axis.
    fn range(&self, ints: &mut Ints) -> Option<(RangeId, Option<IntId>)> {
        if self.sizes.is_empty() {
            return None;
        }
        let used = self.product();
        let size = ints.constant((used as u64).next_power_of_two() as i64);
        let range = ints.new_range(size, RangeRole::Map);
        let lane = ints.range(range);
        let room = ints.sum(&[(lane, -1)], used - 1);
        Some((range, (!ints.prove_nonneg(room, &[])).then_some(room)))
    }

    /// What the next factor's axis is at a lane.
    fn next(&mut self, ints: &mut Ints, lane: RangeId) -> IntId {
        let all = self.product();
        let size = if self.sizes.is_empty() { 1 } else { self.sizes.remove(0) };
        let lane = ints.range(lane);
        // The first one needs no remainder: lanes beyond the last row are gated.
        let lane = if self.started { ints.rem_const(lane, all) } else { lane };
        self.started = true;
        ints.div_const(lane, all / size.max(1))
    }

    fn is_over(&self) -> bool {
        self.sizes.is_empty()
    }
}

/// The condition `rest - lane / d >= 0` as one that is linear in the lane.
fn linear(ints: &mut Ints, condition: IntId, lane: RangeId) -> Option<IntId> {
    let lane = ints.range(lane);
    let (terms, c) = ints.as_sum(condition);
    let (quotient, d) = terms.iter().find_map(|&(t, k)| match *ints.node(t) {
        IntNode::Div { num, den } if num == lane && k == -1 => Some((t, ints.as_const(den)?)),
        _ => None,
    })?;
    let mut out: Vec<(IntId, i64)> = vec![(lane, -1)];
    for (t, k) in terms.into_iter().filter(|t| t.0 != quotient) {
        out.push((t, k.checked_mul(d)?));
    }
    Some(ints.sum(&out, c.checked_mul(d)?.checked_add(d - 1)?))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (letter, axes) in [("a", &self.loops), ("r", &self.reduces)] {
            for (n, factors) in axes.iter().enumerate() {
                write!(f, "{}{letter}{n}=", if first { "" } else { " " })?;
                first = false;
                for (i, factor) in factors.iter().enumerate() {
                    write!(f, "{}{}", if i > 0 { "," } else { "" }, factor.kind.name())?;
                    if let Some(s) = factor.size {
                        write!(f, ":{s}")?;
                    }
                }
            }
        }
        for (name, list) in [("order", &self.order), ("threads", &self.threads)] {
            if !list.is_empty() {
                write!(f, " {name}=")?;
                for (i, n) in list.iter().enumerate() {
                    write!(f, "{}a{n}", if i > 0 { "," } else { "" })?;
                }
            }
        }
        if let Some(unit) = &self.unit {
            write!(f, " unit={unit}")?;
        }
        match self.stages {
            0 | 1 => Ok(()),
            n => write!(f, " stages={n}"),
        }
    }
}

impl Plan {
    /// Reads the text that `Display` writes.
    pub fn parse(text: &str) -> Result<Plan, PlanError> {
        let bad = |what: String| PlanError::Syntax(what);
        let mut plan = Plan::default();
        for word in text.split_whitespace() {
            let (name, value) = word.split_once('=').ok_or_else(|| bad(format!("`{word}` is not `axis=factors`")))?;
            if name == "order" || name == "threads" {
                let list = if name == "order" { &mut plan.order } else { &mut plan.threads };
                for axis in value.split(',') {
                    let n = axis
                        .strip_prefix('a')
                        .and_then(|n| n.parse::<usize>().ok())
                        .ok_or_else(|| bad(format!("`{axis}` in {name}= is not a map axis like a0")))?;
                    list.push(n);
                }
                continue;
            }
            if name == "stages" {
                let n = value.parse().ok().filter(|n| (1..=8).contains(n));
                plan.stages = n.ok_or_else(|| bad(format!("`{value}` in stages= is not a number from 1 to 8")))?;
                continue;
            }
            if name == "unit" {
                plan.unit = Some(value.to_string());
                continue;
            }
            let (list, number) = match name.split_at_checked(1) {
                Some(("a", n)) => (&mut plan.loops, n),
                Some(("r", n)) => (&mut plan.reduces, n),
                _ => return Err(bad(format!("`{name}` is not an axis: a0, a1, ... or r0, r1, ..."))),
            };
            if number.parse() != Ok(list.len()) {
                return Err(bad(format!("axis `{name}` is out of order: {} comes next", list.len())));
            }
            let mut factors = Vec::new();
            for (i, text) in value.split(',').enumerate() {
                let (kind, size) = match text.split_once(':') {
                    None => (text, None),
                    Some((kind, size)) => {
                        let size = size
                            .parse::<i64>()
                            .ok()
                            .filter(|s| (1..=4096).contains(s))
                            .ok_or_else(|| bad(format!("factor `{text}`: a size is 1 to 4096")))?;
                        (kind, Some(size))
                    }
                };
                let kind = Kind::ALL.into_iter().find(|k| k.name() == kind).ok_or_else(|| {
                    bad(format!("`{kind}` is not a kind: grid, thread, loop, unroll, vector, matrix or shared"))
                })?;
                if size.is_none() && i > 0 && kind != Kind::Matrix {
                    return Err(bad(format!(
                        "factor `{text}` of {name}: only the first factor may leave its size out"
                    )));
                }
                factors.push(Factor { kind, size });
            }
            list.push(factors);
        }
        Ok(plan)
    }

    /// The plan without parallel loops: for a kernel inside of a launch's loops.
    pub fn serial(mut self) -> Plan {
        for factor in self.loops.iter_mut().flatten().filter(|f| f.kind == Kind::Grid) {
            factor.kind = Kind::Loop;
        }
        self
    }

    /// Replaces a kernel's ranges by the plan's factors. Where factors cover more than their axis, what lies beyond
    /// is gated.
    pub fn apply(&self, kernel: &Kernel) -> Result<Scheduled, PlanError> {
        let (plan, matrix) = self.on_unit(kernel)?;
        plan.apply_sized(kernel, matrix)
    }

    /// The axes on a matrix unit, and the plan with the unit's sizes in its `matrix` factors.
    fn on_unit(&self, kernel: &Kernel) -> Result<(Plan, Option<OnUnit>), PlanError> {
        let mismatch = |what: String| Err(PlanError::Mismatch(what));
        let has = |f: &Vec<Factor>| f.iter().any(|f| f.kind == Kind::Matrix);
        let with = |axes: &[Vec<Factor>]| (0..axes.len()).filter(|&a| has(&axes[a])).collect::<Vec<usize>>();
        let (maps, sums) = (with(&self.loops), with(&self.reduces));
        if maps.is_empty() && sums.is_empty() {
            return Ok((self.clone(), None));
        }
        let ([x, y], [k]) = (&maps[..], &sums[..]) else {
            return mismatch("matrix factors are those of two map axes and one reduce axis".to_string());
        };
        let (x, y, k) = (*x, *y, *k);
        for factors in [&self.loops[x], &self.loops[y], &self.reduces[k]] {
            if factors.iter().rev().skip(1).any(|f| f.kind == Kind::Matrix) {
                return mismatch("a matrix factor that is not the innermost of its axis".to_string());
            }
        }
        let Some(unit) = self.unit.as_deref().and_then(matrix_unit) else {
            let named = self.unit.as_ref().map_or("unit= is missing".to_string(), |u| format!("no unit `{u}`"));
            return mismatch(format!("matrix factors, but {named}"));
        };
        let reduces = kernel.reduce_ranges();
        if self.loops.len() != kernel.loops.len() || self.reduces.len() != reduces.len() {
            // Said in full where sizes are applied.
            return Ok((self.clone(), None));
        }
        let ints = &kernel.graph.ints;
        let fits = |name: String, factors: &[Factor], range: RangeId, n: u32| {
            let n = n as i64;
            if let Some(size) = factors.last().and_then(|f| f.size)
                && size != n
            {
                return Err(format!("{name} has matrix:{size}, unit {} takes {n}", unit.name));
            }
            let rest: i64 = factors[..factors.len() - 1].iter().filter_map(|f| f.size).product();
            match ints.const_size(range) {
                Some(s) if s % (n * rest) == 0 => Ok(()),
                // A ragged last block is gated; a register tile is full or there is none.
                Some(_) if factors[0] == (Factor { kind: Kind::Grid, size: None }) => Ok(()),
                Some(s) => Err(format!("{name} of {s} is no multiple of the {} of unit {}", n * rest, unit.name)),
                None => Err(format!("{name} has a size that is a parameter")),
            }
        };
        let sides = |row: usize, col: usize| {
            fits(format!("a{row}"), &self.loops[row], kernel.loops[row], unit.m)?;
            fits(format!("a{col}"), &self.loops[col], kernel.loops[col], unit.n)?;
            factors(kernel, &unit, kernel.loops[row], kernel.loops[col]).map(|_| (row, col))
        };
        // A lane's results are neighbours of a row: columns run along the axis that is contiguous in memory.
        let (row, col) = if stride_of(kernel, y) <= stride_of(kernel, x) { (x, y) } else { (y, x) };
        let (row, col) = match sides(row, col).or_else(|why| sides(col, row).map_err(|_| why)) {
            Ok(sides) => sides,
            Err(why) => return mismatch(why),
        };
        if let Err(why) = fits(format!("r{k}"), &self.reduces[k], reduces[k], unit.k) {
            return mismatch(why);
        }
        let mut plan = self.clone();
        let set = |factors: &mut Vec<Factor>, n: u32| {
            if let Some(last) = factors.last_mut() {
                last.size = Some(n as i64);
            }
        };
        set(&mut plan.loops[row], unit.m);
        set(&mut plan.loops[col], unit.n);
        set(&mut plan.reduces[k], unit.k);
        if plan.loops.iter().flatten().any(|f| f.kind == Kind::Vector) {
            return mismatch("vector and matrix factors exclude each other".to_string());
        }
        Ok((plan, Some(OnUnit { unit, row, col, k })))
    }

    fn apply_sized(&self, kernel: &Kernel, on_unit: Option<OnUnit>) -> Result<Scheduled, PlanError> {
        let mut kernel = kernel.clone();
        let reduces = kernel.reduce_ranges();
        let mismatch = |what: String| Err(PlanError::Mismatch(what));
        if self.loops.len() != kernel.loops.len() || self.reduces.len() != reduces.len() {
            return mismatch(format!(
                "it has {} map axes and {} reduce axes, the kernel {} and {}",
                self.loops.len(),
                self.reduces.len(),
                kernel.loops.len(),
                reduces.len()
            ));
        }
        let mut seen = self.order.clone();
        seen.sort_unstable();
        if seen != (0..self.loops.len()).collect::<Vec<_>>() {
            return mismatch("order= does not list every map axis once".to_string());
        }
        let old_loops = kernel.loops.clone();
        let mut parts_of: Vec<Vec<(RangeId, Kind)>> = Vec::new();
        let mut unroll = Vec::new();
        // Vectors beside each other come last: what one element of the other operand meets is then computed together,
        // and few of those elements need a register at a time.
        let mut beside = Vec::new();
        let mut lane = None;
        let all: Vec<(RangeId, &Vec<Factor>, bool)> = old_loops
            .iter()
            .zip(&self.loops)
            .map(|(&r, f)| (r, f, true))
            .chain(reduces.iter().zip(&self.reduces).map(|(&r, f)| (r, f, false)))
            .collect();
        let free: Vec<RangeId> = reduces.iter().copied().filter(|&r| reorders(&kernel, r)).collect();
        let mut copies = 1i64;
        let mut map = FxHashMap::default();
        let mut bound = FxHashMap::default();
        let mut guard = Vec::new();
        let mut lanes = Lanes::of(&all);
        let of_several = lanes.range(&mut kernel.graph.ints);
        if let Some((range, beyond)) = of_several {
            lane = Some(range);
            guard.extend(beyond);
        }
        for (range, factors, is_map) in all {
            let g = &mut kernel.graph;
            let info = g.ints.range_info(range).clone();
            if factors.is_empty() {
                return mismatch("an axis without factors".to_string());
            }
            let sizes = factors[1..].iter().map(|f| f.size.unwrap_or(1));
            let Some(inner) = sizes.into_iter().try_fold(1i64, i64::checked_mul).filter(|&n| n <= MAX_FACTORS) else {
                return mismatch(format!("the factors of an axis have a product of more than {MAX_FACTORS}"));
            };
            let mut parts = Vec::new();
            let mut e = g.ints.constant(0);
            for (n, factor) in factors.iter().enumerate() {
                let size = match factor.size {
                    Some(s) => g.ints.constant(s),
                    None if n == 0 => {
                        let up = g.ints.add_const(info.size, inner - 1);
                        g.ints.div_const(up, inner)
                    }
                    None => return mismatch("a factor without a size that is not the first".to_string()),
                };
                let is_lane = factor.kind == Kind::Vector && is_map && factor.size != Some(1);
                let shared = of_several.map(|l| l.0).filter(|_| is_lane);
                let part = match shared {
                    Some(lane) => lane,
                    None if factors.len() == 1 && factor.size.is_none() => range,
                    None => g.ints.new_range_with(size, info.role, info.ordinal),
                };
                let p = match shared {
                    Some(lane) => lanes.next(&mut g.ints, lane),
                    None => g.ints.range(part),
                };
                let scaled = g.ints.mul(e, size);
                e = g.ints.add(scaled, p);
                if g.ints.as_const(size) == Some(1) && !matches!(factor.kind, Kind::Matrix | Kind::Shared) {
                    continue;
                }
                if g.ints.as_const(size).is_none() && matches!(factor.kind, Kind::Unroll | Kind::Vector | Kind::Thread)
                {
                    return mismatch(format!("a {} factor of an axis whose size is a parameter", factor.kind.name()));
                }
                if factor.kind == Kind::Unroll {
                    copies = copies.saturating_mul(g.ints.max_size(part));
                    if copies > MAX_COPIES {
                        return mismatch(format!("its unroll factors make more than {MAX_COPIES} copies"));
                    }
                }
                match factor.kind {
                    Kind::Unroll if factors.iter().any(|f| f.kind == Kind::Vector) => beside.push(part),
                    Kind::Unroll => unroll.push(part),
                    // Lanes are the last axis's part.
                    Kind::Vector if shared.is_some() && !lanes.is_over() => continue,
                    Kind::Vector if shared.is_none() && lane.is_some() => {
                        return mismatch("two vector factors, of which one has no size".to_string());
                    }
                    Kind::Vector if !is_map && !free.contains(&range) => {
                        return mismatch("a vector factor of a reduction whose order is given".to_string());
                    }
                    Kind::Vector => lane = Some(part),
                    Kind::Grid | Kind::Thread if !is_map => {
                        return mismatch(format!("a {} factor of a reduce axis", factor.kind.name()));
                    }
                    Kind::Shared if is_map => return mismatch("a shared factor of a map axis".to_string()),
                    Kind::Grid | Kind::Thread | Kind::Loop | Kind::Matrix | Kind::Shared => {}
                }
                parts.push((part, factor.kind));
            }
            let size = g.ints.sum(&[(info.size, 1), (e, -1)], -1);
            if !g.ints.prove_nonneg(size, &[]) {
                if !is_map {
                    return mismatch("factors of a reduce axis do not divide it".to_string());
                }
                let lane = of_several.map(|l| l.0);
                guard.push(lane.and_then(|l| linear(&mut g.ints, size, l)).unwrap_or(size));
            }
            // Too small a product would leave elements out.
            let total = factors.iter().try_fold(1i64, |acc, f| f.size.map(|s| acc.saturating_mul(s)));
            if let Some(total) = total
                && total < g.ints.bounds(info.size).1
            {
                return mismatch(format!("factors cover {total} of {} values", g.ints.bounds(info.size).1));
            }
            map.insert(range, e);
            if !is_map {
                bound.insert(range, parts.iter().map(|p| p.0).collect::<Vec<_>>());
            }
            parts_of.push(parts);
        }
        unroll.extend(beside);
        kernel.replace_ranges(&map, &bound, &guard);
        let mut with_threads: Vec<usize> =
            (0..old_loops.len()).filter(|&a| self.loops[a].iter().any(|f| f.kind == Kind::Thread)).collect();
        let mut listed = self.threads.clone();
        listed.sort_unstable();
        with_threads.sort_unstable();
        if listed != with_threads {
            return mismatch("threads= does not list every axis with a thread factor once".to_string());
        }
        let thread: Vec<RangeId> = self
            .threads
            .iter()
            .flat_map(|&a| parts_of[a].iter().filter(|p| p.1 == Kind::Thread).map(|p| p.0))
            .collect();
        let mut grid = Vec::new();
        let mut serial = Vec::new();
        for &axis in &self.order {
            for &(part, kind) in &parts_of[axis] {
                match kind {
                    Kind::Grid => grid.push(part),
                    Kind::Loop => serial.push(part),
                    _ => {}
                }
            }
        }
        kernel.loops = parts_of[..old_loops.len()].iter().flatten().map(|p| p.0).collect();
        let part = |axis: usize| parts_of[axis].iter().find(|p| p.1 == Kind::Matrix).map(|p| p.0);
        let matrix = match on_unit {
            None => None,
            Some(OnUnit { unit, row, col, k }) => match (part(row), part(col), part(old_loops.len() + k)) {
                (Some(row), Some(col), Some(k)) => Some(MatrixRanges { unit, row, col, k }),
                _ => return mismatch("a matrix factor without a range".to_string()),
            },
        };
        let shared =
            shared_ranges(&mut kernel, &parts_of[old_loops.len()..], self.stages).map_err(PlanError::Mismatch)?;
        if lane.is_some_and(|l| !kernel.loops.contains(&l)) && (shared.is_some() || matrix.is_some()) {
            return mismatch("a vector factor of a reduce axis beside matrix or shared factors".to_string());
        }
        if shared.is_some() && (thread.is_empty() && matrix.is_none() || !serial.is_empty()) {
            return mismatch("factors are shared by the threads of a workgroup, with no other loops".to_string());
        }
        if shared.is_none() && self.stages > 1 {
            return mismatch("stages= without a shared factor".to_string());
        }
        if shared.is_some() && product(&kernel).is_none() {
            return mismatch("a shared factor, but the kernel is no sum of products of f32".to_string());
        }
        let width = lane.and_then(|l| kernel.graph.ints.const_size(l)).unwrap_or(1);
        if !(width as u64).is_power_of_two() {
            return mismatch(format!("vectors of {width} lanes, which is no power of two"));
        }
        Ok(Scheduled { kernel, grid, thread, serial, unroll, lane, matrix, shared, fma: true })
    }
}

/// Whether the terms along a range may be combined in any order.
pub(super) fn reorders(kernel: &Kernel, range: RangeId) -> bool {
    kernel.reduces().into_iter().all(|v| match kernel.graph.val(v) {
        Val::Reduce { op, ranges, order, .. } if ranges.contains(&range) => {
            *order == SumOrder::Any || matches!(op, ReduceOp::Max | ReduceOp::Min)
        }
        _ => true,
    })
}

/// Axes on a matrix unit, by their places in the plan.
struct OnUnit {
    unit: MatrixUnit,
    row: usize,
    col: usize,
    k: usize,
}

/// How far a kernel's store moves in memory with a map axis, in elements.
fn stride_of(kernel: &Kernel, axis: usize) -> i64 {
    let Some(store) = kernel.stores.first() else { return i64::MAX };
    let mut g = kernel.graph.clone();
    let Some(layout) = g.buffer(store.buffer).layout.clone() else { return i64::MAX };
    let address = g.flatten(&layout, &store.index);
    match g.ints.split_linear(address, kernel.loops[axis]) {
        Some((c, _)) => c.abs(),
        None => i64::MAX,
    }
}
