//! From a scheduled kernel to linear code.
//!
//! Takes a kernel whose ranges have kinds; leaves statements: loops, accumulators that stay in registers through their
//! reductions, vector accesses straight from affine lane addresses. Values are evaluated once per scope; reductions with
//! the same loops share them.

use super::lane_groups::{LaneGroups, Vectors, Work};
use super::unroll::{Unroller, points};
use crate::kernel::Store;
use crate::optimize::plan::Scheduled;
use rustc_hash::{FxHashMap, FxHashSet};
use winograph_ir::indexed::{BufId, Graph, Source, Val, ValId};
use winograph_ir::int::{IntId, RangeId};
use winograph_ir::linear::{Access, Code, Dynamic, Instr, LoopKind, Memory, MemoryDecl, Reg, Stmt, Type};
use winograph_ir::op::{BinaryOp, ReduceOp};
use winograph_ir::{DType, Scalar};

pub(super) struct Emit {
    pub(super) g: Graph,
    pub(super) unroller: Unroller,
    pub(super) unroll: Vec<RangeId>,
    pub(super) reduce_ranges: FxHashSet<RangeId>,
    pub(super) lane: Option<RangeId>,
    pub(super) lanes: u32,
    pub(super) regs: Vec<Type>,
    blocks: Vec<Vec<Stmt>>,
    memo: Vec<FxHashMap<ValId, Reg>>,
    splats: Vec<FxHashMap<Reg, Reg>>,
    pub(super) vectors: Vec<Vectors>,
    pub(super) groups: LaneGroups,
    pub(super) open: Vec<RangeId>,
    /// Buffers that are memory of the code's own, in the order of its locals.
    pub(super) locals: Vec<BufId>,
}

/// Lowers a scheduled kernel.
pub fn lower(scheduled: &Scheduled, name: String) -> Code {
    if let Some(matrix) = &scheduled.matrix {
        return super::matrix::lower(scheduled, matrix, name);
    }
    if let Some(ranges) = &scheduled.shared {
        return super::shared::lower(scheduled, ranges, name);
    }
    let mut e = Emit::new(scheduled);
    let loops = loops(scheduled, &[]);
    for _ in &loops {
        e.push();
    }
    if !e.by_axes(scheduled) {
        e.stores(scheduled);
    }
    e.close(&loops);
    e.finish(scheduled, name)
}

/// The loops around a kernel's body, outermost first. Those of a warp's lanes come last among the thread loops.
pub(super) fn loops(scheduled: &Scheduled, lanes: &[RangeId]) -> Vec<(RangeId, LoopKind)> {
    let grid = scheduled.grid.iter().map(|&r| (r, LoopKind::Grid));
    let thread = scheduled.thread.iter().chain(lanes).map(|&r| (r, LoopKind::Thread));
    grid.chain(thread).chain(scheduled.serial.iter().map(|&r| (r, LoopKind::Serial))).collect()
}

impl Emit {
    pub(super) fn new(scheduled: &Scheduled) -> Emit {
        let kernel = &scheduled.kernel;
        let g = kernel.graph.clone();
        let lanes = scheduled.lane.and_then(|l| g.ints.const_size(l)).unwrap_or(1) as u32;
        let reduce_ranges = kernel.reduce_ranges().into_iter().collect();
        Emit {
            g,
            unroller: Unroller::new(scheduled.fma),
            unroll: scheduled.unroll.clone(),
            reduce_ranges,
            lane: scheduled.lane,
            lanes,
            regs: Vec::new(),
            blocks: vec![Vec::new()],
            memo: vec![FxHashMap::default()],
            splats: vec![FxHashMap::default()],
            vectors: vec![Vectors::default()],
            groups: LaneGroups::default(),
            open: Vec::new(),
            locals: Vec::new(),
        }
    }

    /// Ends the loops for each of which a scope was opened.
    pub(super) fn close(&mut self, loops: &[(RangeId, LoopKind)]) {
        for &(range, kind) in loops.iter().rev() {
            let body = self.pop();
            self.stmt(Stmt::Loop { range, kind, body });
        }
    }

    /// The code of what was emitted, without matrix units.
    pub(super) fn finish(mut self, scheduled: &Scheduled, name: String) -> Code {
        let kernel = &scheduled.kernel;
        let body = self.blocks.pop().unwrap_or_default();
        let written: Vec<BufId> = kernel.stores.iter().map(|s| s.buffer).chain(self.locals.iter().copied()).collect();
        let declared = self.g.buffers.iter().enumerate().filter_map(|(i, b)| {
            let id = BufId(i as u32);
            let decl = MemoryDecl {
                name: b.name.clone(),
                dtype: b.dtype,
                shape: b.shape.clone(),
                layout: b.layout.clone()?,
                scope: b.scope,
                origin: b.origin,
                written: written.contains(&id),
                swizzle: 0,
                streamed: false,
            };
            Some((self.locals.contains(&id), decl))
        });
        let (locals, args): (Vec<_>, Vec<_>) = declared.partition(|d| d.0);
        Code {
            name,
            role: kernel.role,
            ints: self.g.ints,
            args: args.into_iter().map(|d| d.1).collect(),
            locals: locals.into_iter().map(|d| d.1).collect(),
            tables: self.g.tables,
            units: Vec::new(),
            regs: self.regs,
            body,
        }
    }

    /// Values from here on are vectors along another range. What was computed before stays.
    pub(super) fn set_lane(&mut self, lane: Option<RangeId>, lanes: u32) {
        (self.lane, self.lanes) = (lane, lanes);
        self.splats.iter_mut().for_each(FxHashMap::clear);
    }

    pub(super) fn push(&mut self) {
        self.blocks.push(Vec::new());
        self.memo.push(FxHashMap::default());
        self.splats.push(FxHashMap::default());
        self.vectors.push(Vectors::default());
    }

    pub(super) fn pop(&mut self) -> Vec<Stmt> {
        self.memo.pop();
        self.splats.pop();
        self.vectors.pop();
        self.blocks.pop().unwrap_or_default()
    }

    pub(super) fn stmt(&mut self, s: Stmt) {
        if let Some(block) = self.blocks.last_mut() {
            block.push(s);
        }
    }

    pub(super) fn reg(&mut self, dtype: DType, lanes: u32) -> Reg {
        self.regs.push(Type { dtype, lanes });
        Reg(self.regs.len() as u32 - 1)
    }

    pub(super) fn let_(&mut self, dtype: DType, lanes: u32, instr: Instr) -> Reg {
        let reg = self.reg(dtype, lanes);
        self.stmt(Stmt::Let { reg, instr });
        reg
    }

    pub(super) fn known(&self, v: ValId) -> Option<Reg> {
        self.memo.iter().rev().find_map(|m| m.get(&v)).copied()
    }

    pub(super) fn remember(&mut self, v: ValId, reg: Reg) {
        if let Some(m) = self.memo.last_mut() {
            m.insert(v, reg);
        }
    }

    fn is_vector(&self, v: ValId) -> bool {
        self.lane.is_some_and(|l| self.g.depends_on(v, l))
    }

    /// The register with `lanes` lanes: itself or a splat of it.
    pub(super) fn widen(&mut self, reg: Reg, lanes: u32) -> Reg {
        let ty = self.regs[reg.0 as usize];
        if ty.lanes == lanes {
            return reg;
        }
        if let Some(r) = self.splats.iter().rev().find_map(|m| m.get(&reg)) {
            return *r;
        }
        let wide = self.let_(ty.dtype, lanes, Instr::Splat { x: reg });
        if let Some(m) = self.splats.last_mut() {
            m.insert(reg, wide);
        }
        wide
    }

    /// Evaluates and stores every point of the unrolled map ranges.
    pub(super) fn stores(&mut self, scheduled: &Scheduled) {
        let maps: Vec<RangeId> = self.unroll.iter().copied().filter(|r| !self.reduce_ranges.contains(r)).collect();
        self.store_points(&scheduled.kernel.stores, &maps, &[]);
    }

    /// Evaluates and stores every point of some ranges. Where a condition of `seen` does not hold, nobody looks.
    pub(super) fn store_points(&mut self, stores: &[Store], maps: &[RangeId], seen: &[IntId]) {
        let unroll = self.unroll.clone();
        let points = points(&self.g, maps);
        let mut work = Vec::new();
        for store in stores {
            // Expanding first would leave tables with symbolic rows; points first.
            for point in &points {
                let mut index = store.index.clone();
                let mut gate = store.gate.to_vec();
                for &(r, c) in point {
                    for e in index.iter_mut().chain(gate.iter_mut()) {
                        *e = self.unroller.int_at(&mut self.g, *e, r, c);
                    }
                }
                let Some(gate) = self.g.ints.conjunction(&gate) else { continue };
                let value = self.unroller.at_point(&mut self.g, store.value, point);
                let value = self.unroller.expand(&mut self.g, value, &unroll);
                work.push((store.buffer, index, gate, value));
            }
        }
        let roots: Vec<ValId> = work.iter().map(|w| w.3).collect();
        let common = |e: &IntId| work.iter().all(|w: &Work| w.2.contains(e));
        self.groups.context = work.first().map_or(Vec::new(), |w| w.2.iter().copied().filter(common).collect());
        self.groups.context.extend(seen);
        self.group_loads(&roots);
        self.reduces(&roots);
        let groups = self.group_stores(&work);
        for (n, (buffer, index, gate, value)) in work.iter().enumerate() {
            match groups.iter().find(|g| g.members.contains(&n)) {
                None => self.store(*buffer, index, gate, *value),
                Some(group) if group.members.last() == Some(&n) => self.store_windows(group, &work),
                Some(_) => {}
            }
        }
    }

    fn store(&mut self, buffer: BufId, index: &[IntId], gate: &[IntId], value: ValId) {
        let lane = self.lane.filter(|&l| index.iter().chain(gate).any(|&e| self.g.ints.depends_on(e, l)));
        match self.access(Source::Buffer(buffer), index, gate, lane) {
            Some(access) => {
                let reg = self.eval(value);
                let reg = self.widen(reg, if lane.is_some() { self.lanes } else { 1 });
                self.stmt(Stmt::Store { access, value: reg });
            }
            None => {
                // An address that is not linear in the lane: one scalar store per lane.
                let Some(lane) = lane else { return };
                let dtype = self.g.dtype(value);
                // Sums are computed for all lanes at once, in one loop.
                let wide = self.sums_along(value, lane).then(|| self.operand(value, self.lanes));
                for l in 0..self.lanes as i64 {
                    let index: Vec<IntId> =
                        index.iter().map(|&e| self.unroller.int_at(&mut self.g, e, lane, l)).collect();
                    let gate: Vec<IntId> =
                        gate.iter().map(|&e| self.unroller.int_at(&mut self.g, e, lane, l)).collect();
                    let Some(gate) = self.g.ints.conjunction(&gate) else { continue };
                    let reg = match wide {
                        Some(x) => self.let_(dtype, 1, Instr::Shuffle { a: x, b: x, pattern: [l as u32].into() }),
                        None => {
                            let v = self.unroller.at(&mut self.g, value, lane, l);
                            self.reduces(&[v]);
                            self.eval(v)
                        }
                    };
                    if let Some(access) = self.access(Source::Buffer(buffer), &index, &gate, None) {
                        self.stmt(Stmt::Store { access, value: reg });
                    }
                }
            }
        }
    }

    /// Whether a value holds a reduction that has one result for each lane.
    fn sums_along(&self, value: ValId, lane: RangeId) -> bool {
        let sums = |&v: &ValId| matches!(self.g.val(v), Val::Reduce { .. }) && self.g.depends_on(v, lane);
        self.g.topological(&[value]).iter().any(sums)
    }

    /// The access to an element, or `None` if some part of it is not linear in the lane.
    pub(super) fn access(
        &mut self,
        src: Source,
        index: &[IntId],
        gate: &[IntId],
        lane: Option<RangeId>,
    ) -> Option<Access> {
        let (mem, layout) = match src {
            Source::Buffer(b) => {
                let local = self.locals.iter().position(|&l| l == b);
                let mem = local.map_or(Memory::Arg(b.0), |i| Memory::Local(i as u32));
                (mem, self.g.buffer(b).layout.clone()?)
            }
            Source::Table(t) => {
                let shape: Vec<usize> = self.g.table(t).shape.clone();
                let shape: Vec<IntId> = shape.iter().map(|&s| self.g.ints.constant(s as i64)).collect();
                (Memory::Table(t.0), self.g.row_major(&shape))
            }
        };
        let addr = self.g.flatten(&layout, index);
        let mut gate: Box<[IntId]> = gate.into();
        if let Some(l) = lane {
            for &e in index.iter().chain([&addr]) {
                self.g.ints.split_linear(e, l)?;
            }
            // Rows of a ragged block that share a vector: a condition on the row is one on the lane.
            for e in &mut gate {
                *e = self.g.ints.linear_condition(*e, l)?;
            }
        }
        Some(Access { mem, index: index.into(), addr, gate, lane, dynamic: None })
    }

    /// Emits the loops of every reduction that the values need and that can run here.
    fn reduces(&mut self, roots: &[ValId]) {
        let reachable = self.g.topological(roots);
        let mut pending: Vec<ValId> = reachable
            .iter()
            .copied()
            .filter(|&v| matches!(self.g.val(v), Val::Reduce { .. }) && self.known(v).is_none() && self.can_run(v))
            .collect();
        while let Some(&first) = pending.first() {
            let ranges_of = |g: &Graph, v: ValId| match g.val(v) {
                Val::Reduce { ranges, .. } => ranges.clone(),
                _ => [].into(),
            };
            let ranges = ranges_of(&self.g, first);
            // Operands come first, so the first one is ready; take along all with the same loops that are ready too.
            let nested: bool = pending.len() > 1 && {
                let heads: FxHashSet<ValId> = pending.iter().copied().collect();
                pending.iter().any(|&v| self.g.topological(&[v]).iter().any(|u| *u != v && heads.contains(u)))
            };
            let group: Vec<ValId> = if nested {
                let heads: FxHashSet<ValId> = pending.iter().copied().collect();
                pending
                    .iter()
                    .copied()
                    .filter(|&v| {
                        ranges_of(&self.g, v) == ranges
                            && self.g.topological(&[v]).iter().all(|u| *u == v || !heads.contains(u))
                    })
                    .collect()
            } else {
                pending.iter().copied().filter(|&v| ranges_of(&self.g, v) == ranges).collect()
            };
            self.reduce_group(&ranges, &group);
            pending.retain(|v| !group.contains(v));
        }
    }

    /// Whether everything that a value depends on has a value here.
    fn can_run(&self, v: ValId) -> bool {
        self.g.free_ranges(v).iter().all(|r| !self.reduce_ranges.contains(r) || self.open.contains(r))
    }

    fn reduce_group(&mut self, ranges: &[RangeId], group: &[ValId]) {
        // Lanes along a reduced range are partial results, which are folded at the end.
        let folded = self.lane.is_some_and(|l| ranges.contains(&l));
        let looped: Vec<RangeId> =
            ranges.iter().copied().filter(|r| !self.unroll.contains(r) && self.lane != Some(*r)).collect();
        let unrolled: Vec<RangeId> = ranges.iter().copied().filter(|r| self.unroll.contains(r)).collect();
        let mut accumulators = Vec::with_capacity(group.len());
        for &v in group {
            let Val::Reduce { op, fused, x, .. } = *self.g.val(v) else { continue };
            let dtype = self.g.dtype(v);
            let lanes = if folded || self.is_vector(v) { self.lanes } else { 1 };
            let identity = self.g.constant(op.identity(dtype));
            let init = self.eval(identity);
            let init = self.widen(init, lanes);
            let reg = self.reg(dtype, lanes);
            self.stmt(Stmt::Var { reg, init });
            accumulators.push((reg, op, fused, x, lanes));
        }
        for _ in &looped {
            self.push();
        }
        self.open.extend(ranges);
        let points = points(&self.g, &unrolled);
        let unroll = self.unroll.clone();
        let mut terms = Vec::with_capacity(points.len() * accumulators.len());
        for point in &points {
            for &(reg, op, fused, x, lanes) in &accumulators {
                let x = self.unroller.at_point(&mut self.g, x, point);
                let x = self.unroller.expand(&mut self.g, x, &unroll);
                terms.push((reg, op, fused, x, lanes));
            }
        }
        let roots: Vec<ValId> = terms.iter().map(|t| t.3).collect();
        self.group_loads(&roots);
        self.reduces(&roots);
        for (acc, op, fused, x, lanes) in terms {
            let dtype = self.g.dtype(x);
            let product = match *self.g.val(x) {
                Val::Binary { op: BinaryOp::Mul, a, b }
                    if fused && self.unroller.fma && op == ReduceOp::Add && dtype.is_float() =>
                {
                    Some((a, b))
                }
                _ => None,
            };
            let value = match product {
                Some((a, b)) => {
                    let (a, b) = (self.eval(a), self.eval(b));
                    let (a, b) = (self.widen(a, lanes), self.widen(b, lanes));
                    self.let_(dtype, lanes, Instr::Fma { a, b, c: acc })
                }
                None => {
                    let b = self.eval(x);
                    let b = self.widen(b, lanes);
                    self.let_(dtype, lanes, Instr::Binary { op: op.combine(), a: acc, b })
                }
            };
            self.stmt(Stmt::Set { reg: acc, value });
        }
        for _ in ranges {
            self.open.pop();
        }
        for &range in looped.iter().rev() {
            let body = self.pop();
            self.stmt(Stmt::Loop { range, kind: LoopKind::Serial, body });
        }
        for (&v, &(acc, op, ..)) in group.iter().zip(&accumulators) {
            let dtype = self.g.dtype(v);
            let reg = if folded { self.let_(dtype, 1, Instr::Fold { op, x: acc }) } else { acc };
            self.remember(v, reg);
        }
    }

    /// The register that holds a value, computed here if it is not known.
    pub(super) fn eval(&mut self, root: ValId) -> Reg {
        let mut stack = vec![(root, false)];
        while let Some((v, ready)) = stack.pop() {
            if self.known(v).is_some() {
                continue;
            }
            if !ready && !matches!(self.g.val(v), Val::Reduce { .. }) {
                stack.push((v, true));
                stack.extend(self.g.operands(v).rev().map(|c| (c, false)));
                continue;
            }
            let reg = self.compute(v);
            self.remember(v, reg);
        }
        match self.known(root) {
            Some(r) => r,
            // Every value on the stack has been computed.
            None => self.compute(root),
        }
    }

    pub(super) fn operand(&mut self, v: ValId, lanes: u32) -> Reg {
        let reg = self.eval(v);
        self.widen(reg, lanes)
    }

    fn compute(&mut self, v: ValId) -> Reg {
        let dtype = self.g.dtype(v);
        let lanes = if self.is_vector(v) { self.lanes } else { 1 };
        let lane = if lanes > 1 { self.lane } else { None };
        if let Some(r) = self.grouped(v) {
            return r;
        }
        let instr = match self.g.val(v).clone() {
            Val::Const(s) => Instr::Const(s),
            Val::Index { value, .. } => {
                if let Some(l) = lane
                    && self.g.ints.split_linear(value, l).is_none()
                {
                    return self.per_lane(v);
                }
                Instr::Index { value, lane }
            }
            Val::Load { src, index, gate, fill, dynamic } => {
                // A lane that moves only the looked-up index is as irregular as it gets.
                if dynamic.is_some() && lane.is_some() {
                    return self.per_lane(v);
                }
                let Some(mut access) = self.access(src, &index, &gate, lane) else { return self.per_lane(v) };
                if let (Some((axis, d)), Source::Buffer(b)) = (dynamic, src) {
                    let index = self.eval(d);
                    let buffer = self.g.buffer(b);
                    let size = buffer.shape[axis as usize];
                    let stride = buffer
                        .layout
                        .as_ref()
                        .and_then(|l| l.dims.iter().find(|d| d.axis == axis as usize))
                        .map(|d| d.stride);
                    let stride = stride.unwrap_or_else(|| self.g.ints.constant(1));
                    access.dynamic = Some(Dynamic { axis, index, size, stride });
                }
                Instr::Load { access, fill }
            }
            Val::Unary { op, x } => Instr::Unary { op, x: self.operand(x, lanes) },
            Val::Binary { op, a, b } => {
                let (a, b) = (self.operand(a, lanes), self.operand(b, lanes));
                Instr::Binary { op, a, b }
            }
            Val::Fma { a, b, c } => {
                let (a, b, c) = (self.operand(a, lanes), self.operand(b, lanes), self.operand(c, lanes));
                Instr::Fma { a, b, c }
            }
            Val::Where { cond, a, b } => {
                let (cond, a, b) = (self.operand(cond, lanes), self.operand(a, lanes), self.operand(b, lanes));
                Instr::Where { cond, a, b }
            }
            Val::Cast { x, .. } => Instr::Cast { x: self.operand(x, lanes) },
            Val::Bitcast { x, .. } => Instr::Bitcast { x: self.operand(x, lanes) },
            Val::Select { gate, a, b } => {
                let (a, b) = (self.operand(a, lanes), self.operand(b, lanes));
                if let Some(l) = lane
                    && gate.iter().any(|&e| self.g.ints.split_linear(e, l).is_none())
                {
                    let cond = self.gate_per_lane(&gate, l);
                    Instr::Where { cond, a, b }
                } else {
                    let lane = lane.filter(|&l| gate.iter().any(|&e| self.g.ints.depends_on(e, l)));
                    Instr::Select { gate, lane, a, b }
                }
            }
            Val::Reduce { .. } => {
                // Not emitted yet: it depends on nothing that is open elsewhere.
                self.reduces(&[v]);
                if let Some(r) = self.known(v) {
                    return r;
                }
                Instr::Const(Scalar::zero(dtype))
            }
        };
        self.let_(dtype, lanes, instr)
    }

    /// A value computed lane by lane.
    fn per_lane(&mut self, v: ValId) -> Reg {
        let dtype = self.g.dtype(v);
        let Some(lane) = self.lane else { return self.eval(v) };
        let mut parts = Vec::with_capacity(self.lanes as usize);
        for l in 0..self.lanes as i64 {
            let s = self.unroller.at(&mut self.g, v, lane, l);
            self.reduces(&[s]);
            parts.push(self.eval(s));
        }
        self.let_(dtype, self.lanes, Instr::Pack { lanes: parts.into() })
    }

    pub(super) fn gate_per_lane(&mut self, gate: &[IntId], lane: RangeId) -> Reg {
        let (yes, no) = (self.g.constant(Scalar::from_bool(true)), self.g.constant(Scalar::from_bool(false)));
        let mut parts = Vec::with_capacity(self.lanes as usize);
        for l in 0..self.lanes as i64 {
            let gate: Vec<IntId> = gate.iter().map(|&e| self.unroller.int_at(&mut self.g, e, lane, l)).collect();
            let s = self.g.select(&gate, yes, no);
            parts.push(self.eval(s));
        }
        self.let_(DType::Bool, self.lanes, Instr::Pack { lanes: parts.into() })
    }
}
