//! Loads and stores whose lanes are not neighbours: contiguous accesses and shuffles.
//!
//! Takes the loads of a body whose lanes are a constant distance apart (every fourth element, rows of a few elements,
//! backwards) and that differ in constants alone: together they cover runs of neighbouring elements. Each run is loaded
//! by windows, ordinary vector accesses over a lane range of their own, and the wanted vectors are shuffled from them.
//! Stores are the mirror image where together they leave no hole.
//!
//! A window touches what its conditions let it touch: those of the accesses that do not depend on the lane, and the
//! bounds of the memory. Conditions of a load that these do not imply choose between the shuffled lane and the fill
//! value; stores are grouped only where the windows' conditions are exactly theirs.

use super::emit::Emit;
use super::permute::{Elem, From, Lanes, Network, network};
use crate::kernel::{in_bounds, with_bounds};
use rustc_hash::{FxHashMap, FxHashSet};
use winograph_ir::indexed::{BufId, Source, Val, ValId};
use winograph_ir::int::{IntId, RangeId, RangeRole};
use winograph_ir::linear::{Access, Instr, Reg, Stmt};
use winograph_ir::{DType, Scalar};

/// What is known of the groups of a kernel.
#[derive(Default)]
pub(super) struct LaneGroups {
    /// Conditions of all stores: lanes in which they do not hold are never seen.
    pub(super) context: Vec<IntId>,
    loads: Vec<LoadGroup>,
    of: FxHashMap<ValId, (usize, usize)>,
    /// The lanes of windows.
    window: Option<RangeId>,
}

/// Registers of vectors of groups, by group and vector.
pub(super) type Vectors = FxHashMap<(usize, usize), Reg>;

struct LoadGroup {
    network: Network,
    /// The access of each window; `None` where nothing of it is ever there.
    windows: Vec<Option<Access>>,
    dtype: DType,
    fill: Scalar,
    /// For each load, conditions in whose absence a lane holds the fill value.
    left: Vec<Vec<IntId>>,
}

/// A group of stores.
pub(super) struct StoreGroup {
    /// The stores, by their places in the list.
    pub(super) members: Vec<usize>,
    network: Network,
    windows: Vec<Access>,
}

/// A store of the body: buffer, index, gate, value.
pub(super) type Work = (BufId, Vec<IntId>, Box<[IntId]>, ValId);

/// Where the lanes of an access are.
struct Pattern {
    /// The axis along which elements are neighbours in memory.
    axis: usize,
    /// Index of lane 0, without the constant along `axis`.
    base: Vec<IntId>,
    /// Distances from `base` along the other axes, one list for each run.
    rows: Vec<Vec<i64>>,
    /// The run of each lane.
    run: Vec<usize>,
    /// The place of each lane along `axis`.
    place: Vec<i64>,
    /// Distance of neighbouring lanes, where it is the same for all.
    stride: Option<i64>,
}

/// An access that may be in a group.
struct Member {
    pattern: Pattern,
    index: Vec<IntId>,
    /// Conditions that do not depend on the lane.
    uniform: Vec<IntId>,
    /// Conditions that are the same in all lanes of a run, for each run.
    per_run: Vec<Vec<IntId>>,
    /// Conditions that depend on the lane.
    by_lane: Vec<IntId>,
    /// Lanes that somebody may see.
    live: Vec<bool>,
}

impl Member {
    fn like(&self, other: &Member) -> bool {
        let (p, q) = (&self.pattern, &other.pattern);
        (p.axis, &p.base, &p.rows, &p.run) == (q.axis, &q.base, &q.rows, &q.run)
            && (&self.uniform, &self.per_run) == (&other.uniform, &other.per_run)
    }

    /// The elements of the lanes that are seen.
    fn lanes(&self) -> Lanes {
        let p = &self.pattern;
        (0..self.live.len()).map(|l| self.live[l].then(|| (p.run[l], p.place[l]))).collect()
    }
}

/// Loads of one buffer with one fill value that differ in constants.
type Alike = (BufId, Scalar, Vec<(ValId, Member)>);

/// Whether so many windows and shuffles are few for `n` accesses of so many lanes: beyond, single elements are no worse.
fn worth(cost: usize, n: usize, lanes: usize) -> bool {
    cost <= n * lanes
}

/// Starts of windows that cover all elements of a run, given in order. One that is not full reaches back to the window
/// before it instead of beyond what is needed.
fn window_starts(places: &[i64], lanes: i64) -> Vec<i64> {
    let mut out: Vec<i64> = Vec::new();
    let mut at = 0;
    while let Some(&first) = places.get(at) {
        at = places.partition_point(|&p| p < first + lanes);
        let last = places[at - 1];
        let before = out.last().copied().filter(|b| first < b + 2 * lanes);
        out.push(before.map_or(first, |b| (last - lanes + 1).max(b).min(first)));
    }
    out
}

impl Emit {
    fn window_range(&mut self) -> RangeId {
        let lanes = self.lanes as i64;
        *self.groups.window.get_or_insert_with(|| {
            let size = self.g.ints.constant(lanes);
            self.g.ints.new_range(size, RangeRole::Map)
        })
    }

    /// Constant distances of the lanes of an access; `None` where there are none, where lanes are neighbours anyway or
    /// where too few of them share a run.
    fn pattern(&mut self, buffer: BufId, index: &[IntId]) -> Option<Pattern> {
        let lane = self.lane?;
        let lanes = self.lanes as i64;
        let layout = self.g.buffer(buffer).layout.clone()?;
        let contiguous = layout.dims.iter().find(|d| self.g.ints.as_const(d.stride) == Some(1))?;
        let axis = contiguous.axis;
        if contiguous.div != 1
            || contiguous.modulus.is_some()
            || layout.dims.iter().filter(|d| d.axis == axis).count() != 1
        {
            return None;
        }
        let mut base = Vec::with_capacity(index.len());
        let mut apart: Vec<Vec<i64>> = Vec::with_capacity(index.len());
        let mut stride = Some(0);
        for (a, &e) in index.iter().enumerate() {
            let first = self.unroller.int_at(&mut self.g, e, lane, 0);
            base.push(first);
            match self.g.ints.split_linear(e, lane) {
                Some((c, _)) => {
                    apart.push((0..lanes).map(|l| c * l).collect());
                    if a == axis {
                        stride = stride.map(|_| c);
                    } else if c != 0 {
                        stride = None;
                    }
                }
                None => {
                    stride = None;
                    let mut of = Vec::with_capacity(lanes as usize);
                    for l in 0..lanes {
                        let at = self.unroller.int_at(&mut self.g, e, lane, l);
                        let gap = self.g.ints.sub(at, first);
                        of.push(self.g.ints.as_const(gap)?);
                    }
                    apart.push(of);
                }
            }
        }
        let (terms, constant) = self.g.ints.as_sum(base[axis]);
        base[axis] = self.g.ints.sum(&terms, 0);
        let place: Vec<i64> = apart[axis].iter().map(|p| p + constant).collect();
        apart[axis] = vec![0; lanes as usize];
        let mut rows: Vec<Vec<i64>> = Vec::new();
        let mut run = Vec::with_capacity(lanes as usize);
        for l in 0..lanes as usize {
            let row: Vec<i64> = apart.iter().map(|a| a[l]).collect();
            run.push(rows.iter().position(|r| *r == row).unwrap_or_else(|| {
                rows.push(row);
                rows.len() - 1
            }));
        }
        let neighbours = rows.len() == 1 && place.iter().enumerate().all(|(l, &p)| p == place[0] + l as i64);
        if neighbours || rows.len() * 2 > lanes as usize {
            return None;
        }
        Some(Pattern { axis, base, rows, run, place, stride })
    }

    /// Conditions at one lane.
    fn at_lane(&mut self, conditions: &[IntId], l: usize) -> Vec<IntId> {
        match self.lane {
            Some(lane) => conditions.iter().map(|&e| self.unroller.int_at(&mut self.g, e, lane, l as i64)).collect(),
            None => conditions.to_vec(),
        }
    }

    /// What is known of an access that may be in a group. Lanes in which a condition of `seen` never holds are nobody's.
    fn member(&mut self, buffer: BufId, index: &[IntId], gate: &[IntId], seen: &[IntId]) -> Option<Member> {
        let lane = self.lane?;
        let pattern = self.pattern(buffer, index)?;
        let lanes = self.lanes as usize;
        let mut live = Vec::with_capacity(lanes);
        for l in 0..lanes {
            let at = self.at_lane(seen, l);
            live.push(at.iter().all(|&e| self.g.ints.bounds(e).1 >= 0));
        }
        let (mut uniform, mut by_lane) = (Vec::new(), Vec::new());
        let mut per_run: Vec<Vec<IntId>> = vec![Vec::new(); pattern.rows.len()];
        for &e in gate {
            if !self.g.ints.depends_on(e, lane) {
                uniform.push(e);
                continue;
            }
            // The same in all lanes of each run, as a condition on rows is. Canonical, `row <= 6` and `7 * row + lane <= 48`
            // are the same in seven lanes.
            let mut of_run: Vec<Option<IntId>> = vec![None; pattern.rows.len()];
            let mut same = true;
            for l in (0..lanes).filter(|&l| live[l]) {
                let at = self.unroller.int_at(&mut self.g, e, lane, l as i64);
                let at = match self.g.ints.conjunction(&[at]).as_deref() {
                    Some([one]) => *one,
                    Some(_) => self.g.ints.constant(0),
                    None => self.g.ints.constant(-1),
                };
                same &= *of_run[pattern.run[l]].get_or_insert(at) == at;
            }
            if same && pattern.rows.len() > 1 {
                for (all, one) in per_run.iter_mut().zip(of_run) {
                    all.extend(one.filter(|&c| self.g.ints.bounds(c).0 < 0));
                }
            } else {
                by_lane.push(e);
            }
        }
        Some(Member { pattern, index: index.to_vec(), uniform, per_run, by_lane, live })
    }

    /// The conditions that are known where the element of a lane is within bounds and what its run asks for holds.
    fn known_at(&mut self, buffer: BufId, m: &Member, lane: Option<usize>) -> Vec<IntId> {
        let size = self.g.buffer(buffer).shape[m.pattern.axis];
        let i = m.index[m.pattern.axis];
        let room = self.g.ints.sum(&[(size, 1), (i, -1)], -1);
        let mut given = self.groups.context.clone();
        given.extend([i, room]);
        if let Some(l) = lane {
            given = self.at_lane(&given, l);
            given.extend(&m.per_run[m.pattern.run[l]]);
        }
        given.extend(&m.uniform);
        given
    }

    /// The conditions of a load that its windows do not imply.
    fn left_over(&mut self, buffer: BufId, m: &Member) -> Vec<IntId> {
        let mut left = Vec::new();
        if m.pattern.stride.is_some() {
            let given = self.known_at(buffer, m, None);
            left.extend(m.by_lane.iter().copied().filter(|&c| !self.g.ints.prove_nonneg(c, &given)));
        } else {
            for l in (0..self.lanes as usize).filter(|&l| m.live[l]) {
                let given = self.known_at(buffer, m, Some(l));
                for &c in &m.by_lane {
                    let at = self.at_lane(&[c], l)[0];
                    if !left.contains(&c) && !self.g.ints.prove_nonneg(at, &given) {
                        left.push(c);
                    }
                }
            }
        }
        left
    }

    /// A window's access: `lanes` elements of a run from `start` on, where the conditions hold and the memory is.
    /// `Err` where it is not proved in bounds; `Ok(None)` where there is nothing.
    fn window(
        &mut self,
        buffer: BufId,
        m: &Member,
        (run, start): Elem,
        conditions: &[IntId],
        bounded: bool,
    ) -> Result<Option<Access>, ()> {
        let lane = self.window_range();
        let j = self.g.ints.range(lane);
        let p = &m.pattern;
        let mut index = Vec::with_capacity(p.base.len());
        for (a, &e) in p.base.iter().enumerate() {
            index.push(match a == p.axis {
                true => self.g.ints.sum(&[(e, 1), (j, 1)], start),
                false => self.g.ints.add_const(e, p.rows[run][a]),
            });
        }
        let mut gate: Vec<IntId> = m.uniform.iter().chain(&m.per_run[run]).chain(conditions).copied().collect();
        let shape = self.g.buffer(buffer).shape.clone();
        if bounded {
            gate = with_bounds(&mut self.g.ints, &shape, &index, gate);
        }
        let Some(gate) = self.g.ints.conjunction(&gate) else { return Ok(None) };
        if !in_bounds(&mut self.g.ints, &shape, &index, &gate) {
            return Err(());
        }
        self.access(Source::Buffer(buffer), &index, &gate, Some(lane)).map(Some).ok_or(())
    }

    /// Finds groups among the loads that values need, those of reductions' terms excepted: these are looked at where
    /// they run.
    pub(super) fn group_loads(&mut self, roots: &[ValId]) {
        let Some(lane) = self.lane.filter(|_| self.lanes >= 4) else { return };
        let mut stack: Vec<ValId> = roots.iter().rev().copied().collect();
        let mut seen = FxHashSet::default();
        let mut groups: Vec<Alike> = Vec::new();
        while let Some(v) = stack.pop() {
            if !seen.insert(v) || self.known(v).is_some() || self.groups.of.contains_key(&v) {
                continue;
            }
            match self.g.val(v).clone() {
                Val::Reduce { .. } => {}
                Val::Load { src: Source::Buffer(b), index, gate, fill, dynamic: None } => {
                    if fill.dtype() == DType::Bool || !index.iter().any(|&i| self.g.ints.depends_on(i, lane)) {
                        continue;
                    }
                    let context = self.groups.context.clone();
                    let Some(m) = self.member(b, &index, &gate, &context) else { continue };
                    let alike = |g: &&mut Alike| (g.0, g.1.bits()) == (b, fill.bits()) && g.2[0].1.like(&m);
                    match groups.iter_mut().find(alike) {
                        Some(group) => group.2.push((v, m)),
                        None => groups.push((b, fill, vec![(v, m)])),
                    }
                }
                _ => stack.extend(self.g.operands(v).rev()),
            }
        }
        for (buffer, fill, mut members) in groups {
            members.sort_by_key(|m| m.1.pattern.place[0]);
            self.load_group(buffer, fill, &members);
        }
    }

    fn load_group(&mut self, buffer: BufId, fill: Scalar, members: &[(ValId, Member)]) {
        let lanes = self.lanes as usize;
        let outputs: Vec<Lanes> = members.iter().map(|m| m.1.lanes()).collect();
        let first = &members[0].1;
        let mut sources = Vec::new();
        let mut windows = Vec::new();
        for run in 0..first.pattern.rows.len() {
            let mut places: Vec<i64> = outputs.iter().flatten().flatten().filter(|e| e.0 == run).map(|e| e.1).collect();
            places.sort_unstable();
            places.dedup();
            for start in window_starts(&places, lanes as i64) {
                let Ok(window) = self.window(buffer, first, (run, start), &[], true) else { return };
                windows.push(window);
                sources.push((0..lanes as i64).map(|l| Some((run, start + l))).collect());
            }
        }
        let Some(network) = network(lanes, &sources, &outputs) else { return };
        if !worth(network.cost(), members.len(), lanes) {
            return;
        }
        let left = members.iter().map(|m| self.left_over(buffer, &m.1)).collect();
        for (n, m) in members.iter().enumerate() {
            self.groups.of.insert(m.0, (self.groups.loads.len(), n));
        }
        self.groups.loads.push(LoadGroup { network, windows, dtype: fill.dtype(), fill, left });
    }

    /// The register of a load that is in a group.
    pub(super) fn grouped(&mut self, v: ValId) -> Option<Reg> {
        let &(group, n) = self.groups.of.get(&v)?;
        let lane = self.lane?;
        let node = *self.groups.loads[group].network.outputs.get(n)?;
        let (dtype, fill) = (self.groups.loads[group].dtype, self.groups.loads[group].fill);
        let reg = self.vector(group, node, dtype)?;
        let gate = self.groups.loads[group].left[n].clone();
        if gate.is_empty() {
            return Some(reg);
        }
        let fill = self.g.constant(fill);
        let b = self.operand(fill, self.lanes);
        let linear = gate.iter().all(|&e| self.g.ints.split_linear(e, lane).is_some());
        let instr = if linear {
            Instr::Select { gate: gate.into(), lane: Some(lane), a: reg, b }
        } else {
            Instr::Where { cond: self.gate_per_lane(&gate, lane), a: reg, b }
        };
        Some(self.let_(dtype, self.lanes, instr))
    }

    /// The register of a vector of a group of loads.
    fn vector(&mut self, group: usize, node: usize, dtype: DType) -> Option<Reg> {
        if let Some(r) = self.vectors.iter().rev().find_map(|m| m.get(&(group, node))) {
            return Some(*r);
        }
        let g = &self.groups.loads[group];
        let reg = match g.network.nodes[node].from.clone() {
            From::Source(n) => match g.windows[n].clone() {
                Some(access) => {
                    let fill = g.fill;
                    self.let_(dtype, self.lanes, Instr::Load { access, fill })
                }
                None => {
                    let fill = self.g.constant(g.fill);
                    self.operand(fill, self.lanes)
                }
            },
            From::Same(n) => self.vector(group, n, dtype)?,
            From::Shuffle { a, b, pattern } => {
                let (a, b) = (self.vector(group, a, dtype)?, self.vector(group, b, dtype)?);
                self.let_(dtype, self.lanes, Instr::Shuffle { a, b, pattern })
            }
        };
        self.vectors.last_mut()?.insert((group, node), reg);
        Some(reg)
    }

    /// Finds groups among the stores of a body.
    pub(super) fn group_stores(&mut self, work: &[Work]) -> Vec<StoreGroup> {
        let Some(lane) = self.lane.filter(|_| self.lanes >= 4) else { return Vec::new() };
        let mut groups: Vec<(BufId, Vec<(usize, Member)>)> = Vec::new();
        for (n, (buffer, index, gate, _)) in work.iter().enumerate() {
            if self.g.buffer(*buffer).dtype == DType::Bool || !index.iter().any(|&i| self.g.ints.depends_on(i, lane)) {
                continue;
            }
            let Some(m) = self.member(*buffer, index, gate, gate) else { continue };
            match groups.iter_mut().find(|g| g.0 == *buffer && g.1[0].1.like(&m)) {
                Some(group) => group.1.push((n, m)),
                None => groups.push((*buffer, vec![(n, m)])),
            }
        }
        groups.into_iter().filter_map(|(buffer, members)| self.store_group(buffer, &members)).collect()
    }

    fn store_group(&mut self, buffer: BufId, members: &[(usize, Member)]) -> Option<StoreGroup> {
        let lanes = self.lanes as usize;
        let sources: Vec<Lanes> = members.iter().map(|m| m.1.lanes()).collect();
        let mut elements: Vec<Elem> = sources.iter().flatten().flatten().copied().collect();
        elements.sort_unstable();
        let count = elements.len();
        elements.dedup();
        if elements.is_empty() || elements.len() != count {
            return None;
        }
        let conditions = self.window_conditions(buffer, members)?;
        let (mut windows, mut outputs) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < elements.len() {
            let (run, start) = elements[at];
            let here = |(n, e): &(usize, &Elem)| **e == (run, start + *n as i64);
            let len = elements[at..].iter().take(lanes).enumerate().take_while(here).count();
            at += len;
            let lane = self.window_range();
            let j = self.g.ints.range(lane);
            let mut gate = Vec::with_capacity(conditions.len() + 1);
            for &(c, rest) in &conditions {
                gate.push(self.g.ints.sum(&[(j, c), (rest, 1)], c * start));
            }
            if len < lanes {
                gate.push(self.g.ints.sum(&[(j, -1)], len as i64 - 1));
            }
            let window = self.window(buffer, &members[0].1, (run, start), &gate, false).ok()?;
            // One that is never written needs no store.
            let Some(window) = window else { continue };
            windows.push(window);
            let mut wanted: Lanes = (0..len as i64).map(|l| Some((run, start + l))).collect();
            wanted.resize(lanes, None);
            outputs.push(wanted);
        }
        let network = network(lanes, &sources, &outputs)?;
        if !worth(network.cost() + windows.len(), members.len(), lanes) {
            return None;
        }
        Some(StoreGroup { members: members.iter().map(|m| m.0).collect(), network, windows })
    }

    /// Conditions `c * place + rest >= 0` on places along the contiguous axis that hold exactly where those conditions
    /// of the stores do that depend on the lane.
    fn window_conditions(&mut self, buffer: BufId, members: &[(usize, Member)]) -> Option<Vec<(i64, IntId)>> {
        let lane = self.lane?;
        let p = &members[0].1.pattern;
        let (axis, base) = (p.axis, p.base[p.axis]);
        if members.iter().all(|m| m.1.by_lane.is_empty()) {
            return Some(Vec::new());
        }
        let size = self.g.buffer(buffer).shape[axis];
        let mut candidates = vec![(1, base), (-1, self.g.ints.sum(&[(size, 1), (base, -1)], -1))];
        for (_, m) in members {
            let Some(s) = m.pattern.stride.filter(|&s| s > 0) else { continue };
            for &e in &m.by_lane {
                let Some((k, rest)) = self.g.ints.split_linear(e, lane) else { continue };
                let first = m.pattern.place[0];
                // lane <= rest and lane >= -rest, for places s * lane + first.
                let lo = members.iter().map(|m| m.1.pattern.place[0]).min().unwrap_or(first);
                let (scaled, shifts) = match k {
                    -1 => (s, [s + lo - 1, first]),
                    1 => (s, [-lo, -first]),
                    k if k.abs() == s => (1, [-k.signum() * first; 2]),
                    _ => continue,
                };
                for shift in shifts {
                    candidates.push((k.signum(), self.g.ints.sum(&[(rest, scaled)], shift)));
                }
            }
        }
        candidates.sort_unstable();
        candidates.dedup();
        // In each lane that is there, every condition of a window must follow from the store's, and the other way.
        let whole = members.iter().all(|m| m.1.pattern.stride.is_some());
        let lanes: Vec<Option<usize>> = if whole { vec![None] } else { (0..self.lanes as usize).map(Some).collect() };
        let mut holds = vec![true; candidates.len()];
        let mut cases = Vec::new();
        for (_, m) in members {
            for &l in lanes.iter().filter(|l| l.is_none_or(|l| m.live[l])) {
                let mut place = self.g.ints.sum(&[(m.index[axis], 1), (base, -1)], 0);
                let mut gate = m.by_lane.clone();
                let mut given = m.uniform.clone();
                if let Some(l) = l {
                    place = self.at_lane(&[place], l)[0];
                    gate = self.at_lane(&gate, l);
                    given.extend(&m.per_run[m.pattern.run[l]]);
                }
                let at: Vec<IntId> =
                    candidates.iter().map(|&(c, rest)| self.g.ints.sum(&[(place, c), (rest, 1)], 0)).collect();
                let all: Vec<IntId> = given.iter().chain(&gate).copied().collect();
                for (ok, &e) in holds.iter_mut().zip(&at) {
                    *ok = *ok && self.g.ints.prove_nonneg(e, &all);
                }
                cases.push((given, gate, at));
            }
        }
        for (given, gate, at) in cases {
            let window: Vec<IntId> = at.iter().zip(&holds).filter(|x| *x.1).map(|x| *x.0).chain(given).collect();
            if !gate.iter().all(|&c| self.g.ints.prove_nonneg(c, &window)) {
                return None;
            }
        }
        Some(candidates.into_iter().zip(holds).filter(|x| x.1).map(|x| x.0).collect())
    }

    /// Evaluates the values of a group of stores and stores its windows.
    pub(super) fn store_windows(&mut self, group: &StoreGroup, work: &[Work]) {
        let mut regs: Vec<Option<Reg>> = vec![None; group.network.nodes.len()];
        for (n, &m) in group.members.iter().enumerate() {
            let reg = self.eval(work[m].3);
            regs[n] = Some(self.widen(reg, self.lanes));
        }
        for (access, &node) in group.windows.iter().zip(&group.network.outputs) {
            if let Some(value) = self.made(&group.network, node, &mut regs) {
                self.stmt(Stmt::Store { access: access.clone(), value });
            }
        }
    }

    fn made(&mut self, network: &Network, node: usize, regs: &mut [Option<Reg>]) -> Option<Reg> {
        if let Some(r) = regs[node] {
            return Some(r);
        }
        let reg = match &network.nodes[node].from {
            From::Source(n) => regs[*n]?,
            From::Same(n) => self.made(network, *n, regs)?,
            From::Shuffle { a, b, pattern } => {
                let (a, b) = (self.made(network, *a, regs)?, self.made(network, *b, regs)?);
                let dtype = self.regs[a.0 as usize].dtype;
                self.let_(dtype, self.lanes, Instr::Shuffle { a, b, pattern: pattern.clone() })
            }
        };
        regs[node] = Some(reg);
        Some(reg)
    }
}
