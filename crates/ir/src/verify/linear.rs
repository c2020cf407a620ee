//! Verifies linear code.
//!
//! # Invariants
//! - `integers`: no expression overflowed; each belongs to the code's arena.
//! - `memory`: the layout of each argument and local maps every index into `0..len`; arguments are global; a table
//!   has as many elements as its shape says, all of its dtype; what is swizzled is shared, of a constant multiple of
//!   [`SWIZZLE_BYTES`], for rows of 32, 64 or 128 bytes; what is streamed is global.
//! - `loops`: grid loops are outermost, a loop's range is not bound already, and sizes depend on no range.
//! - `threads`: where there are thread loops, the code is one perfect nest of grid loops, thread loops of constant sizes
//!   and a body; there are at most [`MAX_THREADS`] threads. Shared memory needs thread loops.
//! - `barriers`: between threads, barriers are of scope `shared` and under no condition that depends on a thread loop.
//! - `units`: a matrix unit's fragments hold each element once, of a dtype that it can multiply; all threads of a warp
//!   get to it, which means thread loops, a multiple of the unit's threads, and no condition that depends on a thread
//!   loop.
//! - `rows`: rows of small matrices are neighbours in shared memory that begin at a proved multiple of 16 bytes; all
//!   threads of whole warps get to them.
//! - `tiles`: factors that a matrix unit reads from shared memory are rows one after the other in memory that is swizzled
//!   for them, from a proved multiple of [`SWIZZLE_BYTES`] on; the threads that share the unit's matrices are neighbours
//!   and agree where they are.
//! - `bound`: expressions depend on ranges of enclosing loops and on the access's lane alone.
//! - `registers`: declared, assigned once, read after that and inside the same body; `set` changes variables only.
//! - `types`: operands fit their instruction; lanes are powers of two.
//! - `lanes`: an access's addresses, indices and gate are linear in the lane.
//! - `address`: `addr` is the layout's image of `index`.
//! - `bounds`: every index of every access is in `0..size` wherever its gate and the conditions of the enclosing `if`s
//!   hold. A dynamic axis is clamped; it must have an element to be clamped to.
//! - `written`: stores go to memory that is marked as written, never to tables.

use super::linear_types::{check_access, check_instr, check_unit, decl_of, operands, type_of};
use super::{VerifyError, check_layout, known, nonempty, prove_index, refuse, same, show};
use crate::indexed::{Layout, LayoutDim, Scope};
use crate::int::{IntId, Ints, RangeId};
use crate::interp::linear_in;
use crate::linear::{
    Access, Code, Instr, LoopKind, MAX_THREADS, Memory, MemoryDecl, ROW_BYTES, ROWS_WARP, Reg, SWIZZLE_BYTES, Stmt,
    TILE_ROW, Tile, Type,
};

/// Checks the invariants at the top of this file.
///
/// # Errors
/// The first invariant that does not hold.
pub fn verify(code: &Code) -> Result<(), VerifyError> {
    let mut ints = code.ints.clone();
    memories(code, &mut ints)?;
    let threads = threads(code)?;
    let mut v = Verifier {
        code,
        threads,
        diverged: false,
        ints,
        place: Vec::new(),
        ranges: Vec::new(),
        given: Vec::new(),
        assigned: vec![Assigned::Never; code.regs.len()],
        inside: Inside::Top,
    };
    for i in 0..code.regs.len() {
        if let Err(why) = type_of(code, Reg(i as u32)) {
            return refuse("types", &code.name, why);
        }
    }
    v.body(&code.body)?;
    if v.ints.overflowed() {
        return refuse("integers", &code.name, "an expression overflowed");
    }
    Ok(())
}

fn memories(code: &Code, ints: &mut Ints) -> Result<(), VerifyError> {
    if ints.overflowed() {
        return refuse("integers", &code.name, "an expression overflowed");
    }
    for decl in code.args.iter().chain(&code.locals) {
        let place = format!("{}: memory `{}`", code.name, decl.name);
        if let Err(why) = check_layout(ints, &decl.shape, &decl.layout) {
            return refuse("memory", &place, why);
        }
    }
    for decl in code.args.iter().chain(&code.locals).filter(|d| d.swizzle != 0) {
        let bytes = ints.as_const(decl.layout.len).and_then(|n| n.checked_mul(decl.dtype.size() as i64));
        let fits = matches!(decl.swizzle, 32 | 64 | 128) && decl.scope == Scope::Shared;
        if !fits || bytes.is_none_or(|b| b % SWIZZLE_BYTES as i64 != 0) {
            let found = format!("is swizzled for rows of {} bytes, {:?}, {bytes:?} bytes", decl.swizzle, decl.scope);
            return refuse("memory", &format!("{}: memory `{}`", code.name, decl.name), found);
        }
    }
    let streamed = |d: &&MemoryDecl| d.streamed && d.scope != Scope::Global;
    if let Some(decl) = code.args.iter().chain(&code.locals).find(streamed) {
        let found = format!("is streamed, {:?}", decl.scope);
        return refuse("memory", &format!("{}: memory `{}`", code.name, decl.name), found);
    }
    if let Some(decl) = code.args.iter().find(|d| d.scope != Scope::Global) {
        return refuse("memory", &format!("{}: argument `{}`", code.name, decl.name), format!("is {:?}", decl.scope));
    }
    for (i, t) in code.tables.iter().enumerate() {
        if let Err(why) = super::check_table(t) {
            return refuse("memory", &format!("{}: table {i}", code.name), why);
        }
    }
    Ok(())
}

/// The thread loops and the number of threads, where there are any.
fn threads(code: &Code) -> Result<Threads, VerifyError> {
    for (i, unit) in code.units.iter().enumerate() {
        if let Err(why) = check_unit(unit) {
            return refuse("units", &format!("{}: unit {i} `{}`", code.name, unit.name), why);
        }
    }
    let mut any = false;
    code.for_each_stmt(&mut |s| any |= matches!(s, Stmt::Loop { kind: LoopKind::Thread, .. }));
    if !any {
        return match code.locals.iter().find(|l| l.scope == Scope::Shared) {
            Some(l) => refuse("threads", &format!("{}: local `{}`", code.name, l.name), "is shared, without threads"),
            None => Ok(Threads::default()),
        };
    }
    let Some(nest) = code.nest() else {
        return refuse("threads", &code.name, "grid and thread loops are no perfect nest");
    };
    let mut count = 1i64;
    for &r in &nest.threads {
        let size = ((r.0 as usize) < code.ints.range_count()).then(|| code.ints.const_size(r)).flatten();
        let Some(size) = size.filter(|&s| s >= 1) else {
            return refuse("threads", &code.name, format!("thread range {} has no constant size above 0", r.0));
        };
        count = count.saturating_mul(size);
    }
    if count > MAX_THREADS as i64 {
        return refuse("threads", &code.name, format!("{count} threads in a workgroup, at most {MAX_THREADS}"));
    }
    Ok(Threads { ranges: nest.threads, count: count as u32 })
}

#[derive(Default)]
struct Threads {
    ranges: Vec<RangeId>,
    count: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Assigned {
    Never,
    Let,
    Var,
    /// In a body that is over.
    Gone,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Inside {
    Top,
    Grid,
    Thread,
    Serial,
}

struct Verifier<'a> {
    code: &'a Code,
    threads: Threads,
    /// Whether a condition around depends on the thread.
    diverged: bool,
    ints: Ints,
    /// Numbers of the enclosing statements.
    place: Vec<usize>,
    ranges: Vec<RangeId>,
    given: Vec<IntId>,
    assigned: Vec<Assigned>,
    inside: Inside,
}

/// What is no copy in a body of copies, if anything is.
fn not_a_copy(body: &[Stmt]) -> Option<&'static str> {
    body.iter().find_map(|s| match s {
        Stmt::Let { .. } | Stmt::Store { .. } => None,
        Stmt::If { body, .. } => not_a_copy(body),
        Stmt::Loop { .. } => Some("a loop"),
        Stmt::Var { .. } | Stmt::Set { .. } => Some("a variable"),
        Stmt::Async { .. } | Stmt::Wait(_) | Stmt::Barrier(_) => Some("a barrier, a wait or other copies"),
        Stmt::Prefetch { .. } => Some("a prefetch"),
    })
}

impl Verifier<'_> {
    fn refuse<T>(&self, invariant: &'static str, found: impl Into<String>) -> Result<T, VerifyError> {
        let at: Vec<String> = self.place.iter().map(|n| n.to_string()).collect();
        refuse(invariant, &format!("{}: statement {}", self.code.name, at.join(".")), found)
    }

    fn body(&mut self, body: &[Stmt]) -> Result<(), VerifyError> {
        let mut here = Vec::new();
        for (n, s) in body.iter().enumerate() {
            self.place.push(n);
            self.stmt(s, &mut here)?;
            self.place.pop();
        }
        for r in here {
            self.assigned[r as usize] = Assigned::Gone;
        }
        Ok(())
    }

    fn stmt(&mut self, s: &Stmt, here: &mut Vec<u32>) -> Result<(), VerifyError> {
        match s {
            Stmt::Let { reg, instr } => {
                let ty = self.ty(*reg)?;
                for r in operands(instr) {
                    self.read(r)?;
                }
                self.instr(ty, instr)?;
                self.assign(*reg, Assigned::Let, here)
            }
            Stmt::Var { reg, init } => {
                self.read(*init)?;
                self.same_type(*reg, *init)?;
                self.assign(*reg, Assigned::Var, here)
            }
            Stmt::Set { reg, value } => {
                self.read(*reg)?;
                self.read(*value)?;
                if self.assigned[reg.0 as usize] != Assigned::Var {
                    return self.refuse("registers", format!("r{} is set but is no variable", reg.0));
                }
                self.same_type(*reg, *value)
            }
            Stmt::Store { access, value } => {
                self.read(*value)?;
                let ty = self.ty(*value)?;
                if let Some(d) = access.dynamic {
                    self.read(d.index)?;
                }
                self.access(access, ty)?;
                match decl_of(self.code, access.mem) {
                    Ok(Some(decl)) if decl.written => Ok(()),
                    Ok(Some(decl)) => self.refuse("written", format!("a store into `{}`", decl.name)),
                    _ => self.refuse("written", "a store into a table"),
                }
            }
            Stmt::Loop { range, kind, body } => self.nest(*range, *kind, body),
            Stmt::If { gate, body } => {
                for &g in gate.iter() {
                    self.bound(g, None)?;
                }
                let before = (self.given.len(), self.inside, self.diverged);
                self.given.extend(gate.iter());
                self.inside = self.inside.max(Inside::Grid);
                self.diverged |= gate.iter().any(|&g| self.threads.ranges.iter().any(|&r| self.ints.depends_on(g, r)));
                self.body(body)?;
                self.given.truncate(before.0);
                (self.inside, self.diverged) = (before.1, before.2);
                Ok(())
            }
            Stmt::Async { body } => {
                if self.diverged {
                    return self.refuse("copies", "copies under a condition that depends on the thread");
                }
                if let Some(what) = not_a_copy(body) {
                    return self.refuse("copies", format!("{what} among copies"));
                }
                self.body(body)
            }
            Stmt::Prefetch { mem, addr } => {
                if !matches!(decl_of(self.code, *mem), Ok(Some(_))) {
                    return self.refuse("prefetches", "a prefetch of what is no argument or local");
                }
                self.bound(*addr, None)?;
                if !self.ints.prove_nonneg(*addr, &self.given) {
                    return self.refuse("prefetches", "an address that may be negative");
                }
                Ok(())
            }
            Stmt::Wait(_) if self.diverged => {
                self.refuse("copies", "a wait under a condition that depends on the thread")
            }
            Stmt::Wait(_) => Ok(()),
            Stmt::Barrier(_) if self.threads.count == 0 => Ok(()),
            Stmt::Barrier(Scope::Shared) if self.diverged => {
                self.refuse("barriers", "a barrier under a condition that depends on the thread")
            }
            Stmt::Barrier(Scope::Shared) => Ok(()),
            Stmt::Barrier(scope) => self.refuse("barriers", format!("a barrier of scope {scope:?} between threads")),
        }
    }

    fn nest(&mut self, range: RangeId, kind: LoopKind, body: &[Stmt]) -> Result<(), VerifyError> {
        if range.0 as usize >= self.ints.range_count() || self.ranges.contains(&range) {
            return self.refuse("loops", format!("range {} is unknown or bound already", range.0));
        }
        let size = self.ints.size(range);
        if !known(&self.ints, size) || !self.ints.free_ranges(size).is_empty() {
            return self.refuse("loops", format!("the size of range {} depends on ranges", range.0));
        }
        let inside = match kind {
            LoopKind::Grid => Inside::Grid,
            LoopKind::Thread => Inside::Thread,
            LoopKind::Serial => Inside::Serial,
        };
        if inside < self.inside {
            return self.refuse("loops", format!("a {kind:?} loop inside of others"));
        }
        let before = (self.given.len(), self.inside);
        self.inside = inside;
        self.ranges.push(range);
        if self.ints.bounds(size).0 < 1 {
            // The body runs only where the range has values.
            let condition = self.ints.add_const(size, -1);
            self.given.push(condition);
        }
        self.body(body)?;
        self.ranges.pop();
        self.given.truncate(before.0);
        self.inside = before.1;
        Ok(())
    }

    fn ty(&self, reg: Reg) -> Result<Type, VerifyError> {
        type_of(self.code, reg).or_else(|why| self.refuse("registers", why))
    }

    fn read(&self, reg: Reg) -> Result<(), VerifyError> {
        match self.assigned.get(reg.0 as usize) {
            Some(Assigned::Let | Assigned::Var) => Ok(()),
            Some(Assigned::Never) => self.refuse("registers", format!("r{} is read before it is assigned", reg.0)),
            Some(Assigned::Gone) => self.refuse("registers", format!("r{} is read outside of its body", reg.0)),
            None => self.refuse("registers", format!("r{} is not declared", reg.0)),
        }
    }

    fn assign(&mut self, reg: Reg, how: Assigned, here: &mut Vec<u32>) -> Result<(), VerifyError> {
        match self.assigned.get_mut(reg.0 as usize) {
            Some(a @ Assigned::Never) => *a = how,
            _ => return self.refuse("registers", format!("r{} is assigned twice or not declared", reg.0)),
        }
        here.push(reg.0);
        Ok(())
    }

    fn same_type(&self, a: Reg, b: Reg) -> Result<(), VerifyError> {
        if self.ty(a)? == self.ty(b)? {
            return Ok(());
        }
        self.refuse("types", format!("r{} and r{} have different types", a.0, b.0))
    }

    /// Checks that an expression depends on bound ranges alone.
    fn bound(&self, e: IntId, lane: Option<RangeId>) -> Result<(), VerifyError> {
        if !known(&self.ints, e) {
            return self.refuse("integers", format!("{e:?} is not in the arena"));
        }
        match self.ints.free_ranges(e).iter().find(|r| !self.ranges.contains(r) && lane != Some(**r)) {
            Some(r) => self.refuse("bound", format!("range {} is not bound here", r.0)),
            None => Ok(()),
        }
    }

    /// Checks that an expression is bound and linear in its lane.
    fn linear(&mut self, e: IntId, lane: Option<RangeId>) -> Result<(), VerifyError> {
        self.bound(e, lane)?;
        match lane {
            Some(l) if self.ranges.contains(&l) => self.refuse("lanes", format!("lane range {} is also a loop's", l.0)),
            Some(l) if linear_in(&mut self.ints, e, l).is_none() => {
                self.refuse("lanes", format!("an expression is not linear in lane {}", l.0))
            }
            _ => Ok(()),
        }
    }

    fn instr(&mut self, ty: Type, instr: &Instr) -> Result<(), VerifyError> {
        if let Err(why) = check_instr(self.code, ty, instr) {
            return self.refuse("types", why);
        }
        match instr {
            Instr::Index { value, lane } => self.linear(*value, *lane),
            Instr::Select { gate, lane, .. } => gate.iter().try_for_each(|&g| self.linear(g, *lane)),
            Instr::Load { access, .. } => self.access(access, ty),
            Instr::Rows { access, .. } => self.rows(access, ty),
            Instr::Matrix { unit, .. } => self.matrix(*unit),
            Instr::Tiles { unit, tiles, .. } => {
                self.matrix(*unit)?;
                tiles.iter().try_for_each(|t| self.tile(*unit, t))
            }
            _ => Ok(()),
        }
    }

    fn matrix(&self, unit: u32) -> Result<(), VerifyError> {
        let warp = self.code.units.get(unit as usize).map_or(0, |u| u.c.threads());
        if self.diverged {
            return self.refuse("units", "a matrix unit under a condition that depends on the thread");
        }
        if warp == 0 || self.threads.count == 0 || !self.threads.count.is_multiple_of(warp) {
            let found = format!("{} threads for a matrix unit of {warp}", self.threads.count);
            return self.refuse("units", found);
        }
        Ok(())
    }

    /// Every row of a factor is in bounds, of shared memory that is swizzled for it, and follows the one before.
    fn tile(&mut self, unit: u32, t: &Tile) -> Result<(), VerifyError> {
        let Some(u) = self.code.units.get(unit as usize) else { return self.refuse("types", "an unknown unit") };
        let (threads, k) = (u.c.threads() as i64, u.k as i64);
        let decl = decl_of(self.code, t.access.mem).ok().flatten();
        let Some(decl) = decl.filter(|d| d.scope == Scope::Shared && d.swizzle as usize == TILE_ROW) else {
            return self.refuse("tiles", format!("{} is not swizzled shared memory", self.name(t.access.mem)));
        };
        if self.ranges.contains(&t.row) || t.access.lane == Some(t.row) {
            return self.refuse("tiles", format!("row range {} is also a loop's or the lane", t.row.0));
        }
        self.ranges.push(t.row);
        let proved = self.access(&t.access, Type { dtype: decl.dtype, lanes: u.k });
        self.ranges.pop();
        proved?;
        self.bound(t.base, None)?;
        let lane = t.access.lane.map(|l| self.ints.range(l));
        let row = self.ints.range(t.row);
        let mut terms = vec![(t.base, 1), (row, k)];
        terms.extend(lane.map(|l| (l, 1)));
        let rows = self.ints.sum(&terms, 0);
        let multiple = SWIZZLE_BYTES as u64 / decl.dtype.size().max(1) as u64;
        if !same(&mut self.ints, rows, t.access.addr) || !self.ints.divisor(t.base).is_multiple_of(multiple) {
            let at = show(&self.ints, t.access.addr);
            return self.refuse("tiles", format!("address {at} is no row of a tile from {}", show(&self.ints, t.base)));
        }
        // The threads that share the matrices are neighbours: the innermost loops are theirs.
        let (mut count, mut inner) = (1, Vec::new());
        for &r in self.threads.ranges.iter().rev() {
            if count == threads {
                break;
            }
            count *= self.ints.const_size(r).unwrap_or(1);
            inner.push(r);
        }
        let own = inner.iter().any(|&r| self.ints.depends_on(t.base, r));
        if count != threads || own {
            return self.refuse("tiles", format!("{threads} threads do not agree where a tile is"));
        }
        Ok(())
    }

    /// Every row is in bounds, of shared memory, its elements are neighbours and its first one is where 16 bytes begin.
    fn rows(&mut self, access: &Access, ty: Type) -> Result<(), VerifyError> {
        if self.diverged {
            return self.refuse("rows", "rows under a condition that depends on the thread");
        }
        if self.threads.count == 0 || !self.threads.count.is_multiple_of(ROWS_WARP) {
            return self.refuse("rows", format!("{} threads, no whole warps of {ROWS_WARP}", self.threads.count));
        }
        let shared = |decl: Option<&crate::linear::MemoryDecl>| decl.is_some_and(|d| d.scope == Scope::Shared);
        if !decl_of(self.code, access.mem).is_ok_and(shared) {
            return self.refuse("rows", format!("rows of {}, which is not shared", self.name(access.mem)));
        }
        let elements = (ROW_BYTES / ty.dtype.size().max(1)) as u32;
        self.access(access, Type { lanes: elements, ..ty })?;
        let split = access.lane.and_then(|l| linear_in(&mut self.ints, access.addr, l));
        match split {
            Some((step, first))
                if self.ints.as_const(step) == Some(1) && self.ints.divisor(first).is_multiple_of(elements as u64) =>
            {
                Ok(())
            }
            _ => self.refuse("rows", format!("address {} is no row of 16 bytes", show(&self.ints, access.addr))),
        }
    }

    fn access(&mut self, access: &Access, ty: Type) -> Result<(), VerifyError> {
        if let Err(why) = check_access(self.code, access, ty) {
            return self.refuse("types", why);
        }
        if access.lane.is_none() && ty.lanes != 1 {
            return self.refuse("lanes", format!("an access of {} lanes has no lane range", ty.lanes));
        }
        let (shape, layout) = self.shape_and_layout(access.mem)?;
        if access.index.len() != shape.len() {
            let found = format!("{} indices for {} axes", access.index.len(), shape.len());
            return self.refuse("bounds", found);
        }
        for &e in access.index.iter().chain(access.gate.iter()).chain([&access.addr]) {
            self.linear(e, access.lane)?;
        }
        let mut given = self.given.clone();
        given.extend(access.gate.iter());
        nonempty(&mut self.ints, &access.index, &mut given);
        if let Some(d) = access.dynamic {
            self.dynamic(access, &shape, &layout, d, &given)?;
        }
        let flat = layout.flatten(&mut self.ints, &access.index);
        if !same(&mut self.ints, flat, access.addr) {
            let found =
                format!("address {} is not the layout's {}", show(&self.ints, access.addr), show(&self.ints, flat));
            return self.refuse("address", found);
        }
        for (axis, (&i, &size)) in access.index.iter().zip(&shape).enumerate() {
            if access.dynamic.is_some_and(|d| d.axis as usize == axis) {
                continue;
            }
            if let Err(why) = prove_index(&mut self.ints, i, size, &given) {
                return self.refuse("bounds", format!("axis {axis} of {}: {why}", self.name(access.mem)));
            }
        }
        Ok(())
    }

    fn dynamic(
        &mut self,
        access: &Access,
        shape: &[IntId],
        layout: &Layout,
        d: crate::linear::Dynamic,
        given: &[IntId],
    ) -> Result<(), VerifyError> {
        let axis = d.axis as usize;
        self.bound(d.size, None)?;
        self.bound(d.stride, None)?;
        let Some(&size) = shape.get(axis) else {
            return self.refuse("bounds", format!("dynamic axis {axis} of {}", shape.len()));
        };
        let zero = self.ints.constant(0);
        if access.index[axis] != zero || !same(&mut self.ints, size, d.size) {
            return self.refuse("bounds", "a dynamic axis has an index, or another size than its memory");
        }
        let factors: Vec<&LayoutDim> = layout.dims.iter().filter(|l| l.axis == axis).collect();
        let fits = match factors[..] {
            [LayoutDim { div: 1, modulus: None, stride, .. }] => same(&mut self.ints, *stride, d.stride),
            _ => false,
        };
        if !fits {
            return self.refuse("address", format!("the stride of dynamic axis {axis} is not the layout's"));
        }
        let last = self.ints.add_const(size, -1);
        if !self.ints.prove_nonneg(last, given) {
            return self.refuse("bounds", format!("dynamic axis {axis} is not proved to have an element"));
        }
        Ok(())
    }

    fn shape_and_layout(&mut self, mem: Memory) -> Result<(Vec<IntId>, Layout), VerifyError> {
        match decl_of(self.code, mem) {
            Ok(Some(decl)) => Ok((decl.shape.clone(), decl.layout.clone())),
            Ok(None) => {
                let Memory::Table(t) = mem else { return self.refuse("memory", "unknown memory") };
                let shape = &self.code.tables[t as usize].shape;
                let shape: Vec<IntId> = shape.iter().map(|&s| self.ints.constant(s as i64)).collect();
                let layout = Layout::row_major(&mut self.ints, &shape);
                Ok((shape, layout))
            }
            Err(why) => self.refuse("memory", why),
        }
    }

    fn name(&self, mem: Memory) -> String {
        match (decl_of(self.code, mem), mem) {
            (Ok(Some(decl)), _) => format!("`{}`", decl.name),
            (_, other) => format!("{other:?}"),
        }
    }
}
