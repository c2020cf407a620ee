//! From the codes of a launch's kernels to the code of the launch.
//!
//! Takes one code per kernel, in which the ranges around it are free; leaves one code in which each kernel's statements
//! stand inside of the launch's loops that it sits under, in order. Regions of one kernel that begin with the same loops, as a
//! product's over positions, share these: what they read stays in a cache from one region to the next. Buffers of scope
//! `scratch` or `shared` become memory of the code's own.

use super::barriers;
use crate::kernel::{Kernel, Launch};
use rustc_hash::FxHashMap;
use winograph_ir::indexed::{BufId, Gate, Layout, LayoutDim, Role, Scope, Table};
use winograph_ir::int::{IntId, Ints, RangeId, RangeRole};
use winograph_ir::linear::{Access, Code, Instr, LoopKind, Memory, MemoryDecl, Reg, Stmt, Tile};

/// A kernel, its code, and the program's buffer behind each of the code's arguments.
pub struct Part<'a> {
    /// The kernel: its `outer` ranges are free in the code.
    pub kernel: &'a Kernel,
    /// Its code.
    pub code: Code,
    /// The number of the kernel that it is a region of, or is.
    pub of: usize,
}

/// The code of a launch, and the program's buffer behind each of its arguments.
pub fn link(launch: &Launch, parts: Vec<Part<'_>>, name: String) -> (Code, Vec<BufId>) {
    let mut linker = Linker::new(&parts, name);
    let outer = linker.outer(&parts);
    if parts.iter().any(|p| p.code.args.iter().any(|a| a.scope == Scope::Shared)) {
        return linker.group(launch, &parts, &outer);
    }
    let mut pieces: Vec<(usize, Vec<Stmt>)> = Vec::with_capacity(parts.len());
    // The region before, its ranges, and how many loops all regions of its kernel share.
    let mut before: Option<(&Part<'_>, Vec<RangeId>, usize)> = None;
    for part in &parts {
        let under = part.kernel.outer.len();
        let shared = before.as_ref().filter(|b| b.0.of == part.of && b.0.kernel.outer.len() == under);
        let common: Vec<RangeId> =
            shared.map(|(p, _, most)| leading(p, part).into_iter().take(*most).collect()).unwrap_or_default();
        let known = common.iter().filter_map(|&r| Some((r, shared?.1[r.0 as usize]))).collect();
        let (body, ranges) = linker.part(part, &outer[..under], known);
        let last = pieces.last_mut().filter(|_| !common.is_empty());
        match last {
            Some(last) => merge(&mut last.1, body, common.len()),
            None => pieces.push((under, body)),
        }
        before = Some((part, ranges, if common.is_empty() { usize::MAX } else { common.len() }));
    }
    let roles: Vec<Role> = parts.iter().map(|p| p.kernel.role).collect();
    let mut code = linker.code;
    code.role = match roles[..] {
        [first, ref rest @ ..] if rest.iter().all(|r| *r == first) => first,
        _ => Role::Fused,
    };
    code.body = nest(&launch.outer, &outer, 0, pieces);
    (code, linker.args)
}

/// Serial loops with which two regions begin, the outermost first, and outside of which they have nothing.
fn leading(a: &Part<'_>, b: &Part<'_>) -> Vec<RangeId> {
    let (mut out, mut bodies) = (Vec::new(), (&a.code.body[..], &b.code.body[..]));
    while let (
        [Stmt::Loop { range: r, kind: LoopKind::Serial, body: x }],
        [Stmt::Loop { range: s, kind: LoopKind::Serial, body: y }],
    ) = bodies
    {
        let sizes = [(&a.code, *r), (&b.code, *s)].map(|(code, r)| code.ints.const_size(r));
        if r != s || !a.kernel.loops.contains(r) || sizes[0].is_none() || sizes[0] != sizes[1] {
            break;
        }
        out.push(*r);
        bodies = (x, y);
    }
    out
}

/// Puts a region's statements into the loops that it shares with those before.
fn merge(all: &mut Vec<Stmt>, mut region: Vec<Stmt>, shared: usize) {
    match (&mut all[..], region.pop()) {
        ([Stmt::Loop { body: all, .. }], Some(Stmt::Loop { body, .. })) if shared > 0 => merge(all, body, shared - 1),
        (_, last) => all.extend(region.into_iter().chain(last)),
    }
}

/// Statements inside of the loops they sit under, from loop number `depth` on.
fn nest(kinds: &[LoopKind], ranges: &[RangeId], depth: usize, pieces: Vec<(usize, Vec<Stmt>)>) -> Vec<Stmt> {
    let mut out = Vec::new();
    let mut inside: Vec<(usize, Vec<Stmt>)> = Vec::new();
    let close = |inside: &mut Vec<(usize, Vec<Stmt>)>, out: &mut Vec<Stmt>| {
        if let (false, Some(&range)) = (inside.is_empty(), ranges.get(depth)) {
            let body = nest(kinds, ranges, depth + 1, std::mem::take(inside));
            out.push(Stmt::Loop { range, kind: kinds.get(depth).copied().unwrap_or(LoopKind::Serial), body });
        }
    };
    for (under, body) in pieces {
        if under > depth {
            inside.push((under, body));
        } else {
            close(&mut inside, &mut out);
            out.extend(body);
        }
    }
    close(&mut inside, &mut out);
    out
}

/// Threads of a workgroup at least: fewer leave lanes of a warp idle in any case.
const WARP: i64 = 32;

struct Linker {
    code: Code,
    args: Vec<BufId>,
    /// Where each of the program's buffers is.
    places: FxHashMap<BufId, Memory>,
    tables: FxHashMap<Table, u32>,
}

/// What changes from a kernel's code to the launch's.
struct Renaming<'a> {
    from: &'a Code,
    ranges: Vec<RangeId>,
    /// Thread loops of the kernel's own, as expressions of the launch's.
    threads: FxHashMap<RangeId, IntId>,
    ints: FxHashMap<IntId, IntId>,
    regs: u32,
    units: u32,
    memories: FxHashMap<Memory, Memory>,
}

impl Linker {
    fn new(parts: &[Part<'_>], name: String) -> Linker {
        let ints = parts.first().map(|p| Ints::with_params_of(&p.code.ints)).unwrap_or_default();
        let code = Code::new(name, Role::Other, ints);
        Linker { code, args: Vec::new(), places: FxHashMap::default(), tables: FxHashMap::default() }
    }

    /// The launch's loops, with the sizes that the kernel under most of them gives.
    fn outer(&mut self, parts: &[Part<'_>]) -> Vec<RangeId> {
        let Some(most) = parts.iter().max_by_key(|p| p.kernel.outer.len()) else { return Vec::new() };
        let from = &most.code.ints;
        let mut memo = FxHashMap::default();
        most.kernel
            .outer
            .iter()
            .map(|&r| {
                let info = from.range_info(r);
                let size = self.code.ints.import(from, info.size, &|_| None, &mut memo);
                self.code.ints.new_range_with(size, info.role, info.ordinal)
            })
            .collect()
    }

    /// The code of kernels that a workgroup runs one after another: its threads are as many as the kernel with the most has, and
    /// those of each kernel are the first of them. Between two kernels threads wait for each other where the second one reads
    /// what the first one wrote.
    fn group(mut self, launch: &Launch, parts: &[Part<'_>], outer: &[RangeId]) -> (Code, Vec<BufId>) {
        let sizes = |p: &Part<'_>| -> Vec<(RangeId, i64)> {
            let threads = p.code.nest().map(|n| n.threads).unwrap_or_default();
            threads.into_iter().map(|r| (r, p.code.ints.max_size(r).max(1))).collect()
        };
        let count = |p: &Part<'_>| sizes(p).iter().map(|t| t.1).product::<i64>();
        let all = parts.iter().map(count).fold(WARP, i64::max);
        let size = self.code.ints.constant(all);
        let thread = self.code.ints.new_range(size, RangeRole::Map);
        let number = self.code.ints.range(thread);
        let mut body = Vec::new();
        for part in parts {
            let ints = &mut self.code.ints;
            let (mut threads, mut inner) = (FxHashMap::default(), 1);
            for (range, size) in sizes(part).into_iter().rev() {
                let rest = ints.div_const(number, inner);
                threads.insert(range, ints.rem_const(rest, size));
                inner *= size;
            }
            let own = part.code.nest().map_or(&part.code.body[..], |n| n.body);
            let outer = &outer[..part.kernel.outer.len()];
            let (stmts, _) = self.statements(part, own, outer, FxHashMap::default(), threads);
            if inner < all {
                let gate = [self.code.ints.sum(&[(number, -1)], inner - 1)].into();
                body.push(Stmt::If { gate, body: stmts });
            } else {
                body.extend(stmts);
            }
        }
        let mut code = self.code;
        code.role = Role::Fused;
        code.body = vec![Stmt::Loop { range: thread, kind: LoopKind::Thread, body }];
        for (&range, &kind) in outer.iter().zip(&launch.outer).rev() {
            code.body = vec![Stmt::Loop { range, kind, body: code.body }];
        }
        barriers::place(&mut code);
        (code, self.args)
    }

    /// Takes over a kernel's statements; gives its ranges as well. `known` are some of them as they are already.
    fn part(
        &mut self,
        part: &Part<'_>,
        outer: &[RangeId],
        known: FxHashMap<RangeId, RangeId>,
    ) -> (Vec<Stmt>, Vec<RangeId>) {
        self.statements(part, &part.code.body, outer, known, FxHashMap::default())
    }

    /// Takes over some of a kernel's statements, with its thread loops as expressions where they are given.
    fn statements(
        &mut self,
        part: &Part<'_>,
        body: &[Stmt],
        outer: &[RangeId],
        known: FxHashMap<RangeId, RangeId>,
        threads: FxHashMap<RangeId, IntId>,
    ) -> (Vec<Stmt>, Vec<RangeId>) {
        let from = &part.code;
        let mut memo = FxHashMap::default();
        let ranges: Vec<RangeId> = (0..from.ints.range_count())
            .map(|r| {
                let r = RangeId(r as u32);
                if let Some(at) = part.kernel.outer.iter().position(|&o| o == r) {
                    return outer[at];
                }
                if let Some(&known) = known.get(&r) {
                    return known;
                }
                let info = from.ints.range_info(r);
                let size = self.code.ints.import(&from.ints, info.size, &|_| None, &mut memo);
                self.code.ints.new_range_with(size, info.role, info.ordinal)
            })
            .collect();
        let mut renaming = Renaming {
            from,
            ranges,
            threads,
            ints: FxHashMap::default(),
            regs: self.code.regs.len() as u32,
            units: self.code.units.len() as u32,
            memories: FxHashMap::default(),
        };
        self.code.regs.extend(&from.regs);
        self.code.units.extend(from.units.iter().cloned());
        for (i, decl) in from.args.iter().enumerate() {
            let id = part.kernel.args[i];
            let mem = match self.places.get(&id) {
                Some(&mem) => mem,
                None => {
                    let decl = self.declare(decl, &mut renaming);
                    let mem = if decl.scope == Scope::Global {
                        self.args.push(id);
                        self.code.args.push(decl);
                        Memory::Arg(self.code.args.len() as u32 - 1)
                    } else {
                        self.code.locals.push(decl);
                        Memory::Local(self.code.locals.len() as u32 - 1)
                    };
                    self.places.insert(id, mem);
                    mem
                }
            };
            let known = match mem {
                Memory::Arg(n) => &mut self.code.args[n as usize],
                Memory::Local(n) => &mut self.code.locals[n as usize],
                Memory::Table(_) => continue,
            };
            known.written |= decl.written;
            renaming.memories.insert(Memory::Arg(i as u32), mem);
        }
        for (i, decl) in from.locals.iter().enumerate() {
            let decl = self.declare(decl, &mut renaming);
            self.code.locals.push(decl);
            renaming.memories.insert(Memory::Local(i as u32), Memory::Local(self.code.locals.len() as u32 - 1));
        }
        for (i, table) in from.tables.iter().enumerate() {
            let next = self.code.tables.len() as u32;
            let at = *self.tables.entry(table.clone()).or_insert(next);
            if at == next {
                self.code.tables.push(table.clone());
            }
            renaming.memories.insert(Memory::Table(i as u32), Memory::Table(at));
        }
        let body = body.iter().map(|s| self.stmt(s, &mut renaming)).collect();
        (body, renaming.ranges)
    }

    fn declare(&mut self, decl: &MemoryDecl, renaming: &mut Renaming<'_>) -> MemoryDecl {
        let layout = Layout {
            dims: decl.layout.dims.iter().map(|d| LayoutDim { stride: self.int(d.stride, renaming), ..*d }).collect(),
            len: self.int(decl.layout.len, renaming),
        };
        MemoryDecl { shape: self.ints(&decl.shape, renaming), layout, ..decl.clone() }
    }

    fn int(&mut self, e: IntId, renaming: &mut Renaming<'_>) -> IntId {
        let Renaming { from, ranges, threads, ints, .. } = renaming;
        let range = |code: &mut Code, r: RangeId| match threads.get(&r) {
            Some(&e) => e,
            None => code.ints.range(ranges[r.0 as usize]),
        };
        // `import` asks for expressions by a shared reference: make those that it can ask for first.
        let known: FxHashMap<RangeId, IntId> =
            from.ints.free_ranges(e).iter().map(|&r| (r, range(&mut self.code, r))).collect();
        self.code.ints.import(&from.ints, e, &|r| known.get(&r).copied(), ints)
    }

    fn ints<C: FromIterator<IntId>>(&mut self, list: &[IntId], renaming: &mut Renaming<'_>) -> C {
        list.iter().map(|&e| self.int(e, renaming)).collect()
    }

    fn gate(&mut self, gate: &Gate, renaming: &mut Renaming<'_>) -> Gate {
        // Canonical order depends on ids.
        let gate: Vec<IntId> = self.ints(gate, renaming);
        self.code.ints.conjunction(&gate).unwrap_or_else(|| [self.code.ints.constant(-1)].into())
    }

    fn access(&mut self, a: &Access, renaming: &mut Renaming<'_>) -> Access {
        Access {
            mem: renaming.memories.get(&a.mem).copied().unwrap_or(a.mem),
            index: self.ints(&a.index, renaming),
            addr: self.int(a.addr, renaming),
            gate: self.gate(&a.gate, renaming),
            lane: a.lane.map(|l| renaming.ranges[l.0 as usize]),
            dynamic: a.dynamic.map(|d| winograph_ir::linear::Dynamic {
                axis: d.axis,
                index: Reg(d.index.0 + renaming.regs),
                size: self.int(d.size, renaming),
                stride: self.int(d.stride, renaming),
            }),
        }
    }

    fn instr(&mut self, instr: &Instr, renaming: &mut Renaming<'_>) -> Instr {
        let base = renaming.regs;
        let r = |reg: Reg| Reg(reg.0 + base);
        let lane = |l: Option<RangeId>, renaming: &Renaming<'_>| l.map(|l| renaming.ranges[l.0 as usize]);
        match instr {
            Instr::Const(s) => Instr::Const(*s),
            Instr::Index { value, lane: l } => {
                Instr::Index { value: self.int(*value, renaming), lane: lane(*l, renaming) }
            }
            Instr::Load { access, fill } => Instr::Load { access: self.access(access, renaming), fill: *fill },
            Instr::Rows { access, transposed } => {
                Instr::Rows { access: self.access(access, renaming), transposed: *transposed }
            }
            Instr::Unary { op, x } => Instr::Unary { op: *op, x: r(*x) },
            Instr::Binary { op, a, b } => Instr::Binary { op: *op, a: r(*a), b: r(*b) },
            Instr::Fma { a, b, c } => Instr::Fma { a: r(*a), b: r(*b), c: r(*c) },
            Instr::Where { cond, a, b } => Instr::Where { cond: r(*cond), a: r(*a), b: r(*b) },
            Instr::Select { gate, lane: l, a, b } => {
                Instr::Select { gate: self.gate(gate, renaming), lane: lane(*l, renaming), a: r(*a), b: r(*b) }
            }
            Instr::Cast { x } => Instr::Cast { x: r(*x) },
            Instr::Bitcast { x } => Instr::Bitcast { x: r(*x) },
            Instr::Splat { x } => Instr::Splat { x: r(*x) },
            Instr::Pack { lanes } => Instr::Pack { lanes: lanes.iter().map(|&x| r(x)).collect() },
            Instr::Matrix { unit, a, b, c } => {
                Instr::Matrix { unit: unit + renaming.units, a: r(*a), b: r(*b), c: r(*c) }
            }
            Instr::Tiles { unit, tiles, c } => {
                let mut of = |t: &Tile| Tile {
                    access: self.access(&t.access, renaming),
                    row: renaming.ranges[t.row.0 as usize],
                    base: self.int(t.base, renaming),
                };
                let tiles = Box::new([of(&tiles[0]), of(&tiles[1])]);
                Instr::Tiles { unit: unit + renaming.units, tiles, c: r(*c) }
            }
            Instr::Fold { op, x } => Instr::Fold { op: *op, x: r(*x) },
            Instr::Shuffle { a, b, pattern } => Instr::Shuffle { a: r(*a), b: r(*b), pattern: pattern.clone() },
        }
    }

    fn stmt(&mut self, s: &Stmt, renaming: &mut Renaming<'_>) -> Stmt {
        let base = renaming.regs;
        let r = |reg: Reg| Reg(reg.0 + base);
        match s {
            Stmt::Let { reg, instr } => Stmt::Let { reg: r(*reg), instr: self.instr(instr, renaming) },
            Stmt::Var { reg, init } => Stmt::Var { reg: r(*reg), init: r(*init) },
            Stmt::Set { reg, value } => Stmt::Set { reg: r(*reg), value: r(*value) },
            Stmt::Store { access, value } => Stmt::Store { access: self.access(access, renaming), value: r(*value) },
            Stmt::Loop { range, kind, body } => Stmt::Loop {
                range: renaming.ranges[range.0 as usize],
                kind: *kind,
                body: body.iter().map(|s| self.stmt(s, renaming)).collect(),
            },
            Stmt::If { gate, body } => Stmt::If {
                gate: self.gate(gate, renaming),
                body: body.iter().map(|s| self.stmt(s, renaming)).collect(),
            },
            Stmt::Async { body } => Stmt::Async { body: body.iter().map(|s| self.stmt(s, renaming)).collect() },
            Stmt::Prefetch { mem, addr } => {
                let at =
                    Access { mem: *mem, index: [].into(), addr: *addr, gate: [].into(), lane: None, dynamic: None };
                let at = self.access(&at, renaming);
                Stmt::Prefetch { mem: at.mem, addr: at.addr }
            }
            Stmt::Wait(pending) => Stmt::Wait(*pending),
            Stmt::Barrier(scope) => Stmt::Barrier(*scope),
        }
    }
}
