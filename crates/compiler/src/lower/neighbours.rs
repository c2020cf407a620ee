//! Neighbours: single elements that lie next to each other in memory become one access.
//!
//! Takes linear code for a GPU; leaves it with loads and stores of single elements that follow each other, as those of
//! unrolled ranges do, joined into vectors of up to the bytes that a thread accesses at once: the rows of a register tile
//! in shared memory, the pixels of a tile. A vector begins at a multiple of its width, has the elements' common
//! condition and is proved in bounds; what it holds is picked from it and packed into it, so that values are the same.

use crate::kernel::in_bounds;
use rustc_hash::{FxHashMap, FxHashSet};
use winograph_ir::Scalar;
use winograph_ir::indexed::Scope;
use winograph_ir::int::{IntId, RangeId, RangeRole};
use winograph_ir::linear::{Access, Code, Instr, Memory, Reg, Stmt, Type};

/// What accesses have in common that differ in constants alone: memory, condition, fill value of loads, and the terms of
/// their address and of each index.
type Alike = (Memory, Box<[IntId]>, Option<Scalar>, Vec<(IntId, i64)>, Vec<Vec<(IntId, i64)>>);

/// An access among those that are alike: its statement, and the constants of its address and indices.
struct Member {
    at: usize,
    addr: i64,
    index: Vec<i64>,
}

/// Accesses that become one: their statements by lane, and the vector's place.
struct Group {
    members: Vec<usize>,
    access: Access,
}

/// Joins neighbours into vectors of up to `bytes`.
pub fn neighbours(code: &mut Code, bytes: usize) {
    let body = std::mem::take(&mut code.body);
    let mut lanes = FxHashMap::default();
    code.body = joined(code, body, bytes, &mut lanes);
}

/// A body with the accesses of each stretch of plain statements joined.
fn joined(code: &mut Code, stmts: Vec<Stmt>, bytes: usize, lanes: &mut FxHashMap<i64, RangeId>) -> Vec<Stmt> {
    let mut out = Vec::with_capacity(stmts.len());
    let mut plain = Vec::new();
    for s in stmts {
        match s {
            Stmt::Let { .. } | Stmt::Var { .. } | Stmt::Set { .. } | Stmt::Store { .. } => plain.push(s),
            other => {
                out.extend(stretch(code, std::mem::take(&mut plain), bytes, lanes));
                out.push(match other {
                    Stmt::Loop { range, kind, body } => {
                        Stmt::Loop { range, kind, body: joined(code, body, bytes, lanes) }
                    }
                    Stmt::If { gate, body } => Stmt::If { gate, body: joined(code, body, bytes, lanes) },
                    other => other,
                });
            }
        }
    }
    out.extend(stretch(code, plain, bytes, lanes));
    out
}

/// The access of a single element of memory that vectors can be of, with the fill value of a load.
fn single<'a>(code: &Code, s: &'a Stmt) -> Option<(&'a Access, Option<Scalar>)> {
    let (access, fill, reg) = match s {
        Stmt::Let { reg, instr: Instr::Load { access, fill } } => (access, Some(*fill), *reg),
        Stmt::Store { access, value } => (access, None, *value),
        _ => return None,
    };
    let shared = match access.mem {
        Memory::Arg(_) => true,
        Memory::Local(n) => code.locals.get(n as usize).is_some_and(|m| m.scope == Scope::Shared && m.swizzle == 0),
        Memory::Table(_) => false,
    };
    let plain = access.lane.is_none() && access.dynamic.is_none() && code.ty(reg).lanes == 1;
    (shared && plain).then_some((access, fill))
}

/// Statements without loops, barriers and copies between them.
fn stretch(code: &mut Code, stmts: Vec<Stmt>, bytes: usize, lanes: &mut FxHashMap<i64, RangeId>) -> Vec<Stmt> {
    let groups = groups(code, &stmts, bytes, lanes);
    if groups.is_empty() {
        return stmts;
    }
    // By statement: the group, and the lane in it. A load is done where its first element was, a store where its last was.
    let mut of: FxHashMap<usize, (usize, u32)> = FxHashMap::default();
    for (n, g) in groups.iter().enumerate() {
        of.extend(g.members.iter().enumerate().map(|(lane, &at)| (at, (n, lane as u32))));
    }
    let mut done: FxHashMap<usize, Reg> = FxHashMap::default();
    let mut values: FxHashMap<usize, Vec<(u32, Reg)>> = FxHashMap::default();
    let mut out = Vec::with_capacity(stmts.len());
    for (at, s) in stmts.into_iter().enumerate() {
        let Some(&(n, lane)) = of.get(&at) else {
            out.push(s);
            continue;
        };
        let group = &groups[n];
        let width = group.members.len() as u32;
        match s {
            Stmt::Let { reg, instr: Instr::Load { fill, .. } } => {
                let ty = Type { lanes: width, ..code.ty(reg) };
                let vector = *done.entry(n).or_insert_with(|| {
                    let vector = register(code, ty);
                    out.push(Stmt::Let { reg: vector, instr: Instr::Load { access: group.access.clone(), fill } });
                    vector
                });
                out.push(Stmt::Let { reg, instr: Instr::Shuffle { a: vector, b: vector, pattern: [lane].into() } });
            }
            Stmt::Store { value, .. } => {
                let all = values.entry(n).or_default();
                all.push((lane, value));
                if all.len() == width as usize {
                    all.sort_unstable();
                    let parts = all.iter().map(|x| x.1).collect();
                    let vector = register(code, Type { lanes: width, ..code.ty(value) });
                    out.push(Stmt::Let { reg: vector, instr: Instr::Pack { lanes: parts } });
                    out.push(Stmt::Store { access: group.access.clone(), value: vector });
                }
            }
            other => out.push(other),
        }
    }
    out
}

fn register(code: &mut Code, ty: Type) -> Reg {
    code.regs.push(ty);
    Reg(code.regs.len() as u32 - 1)
}

fn groups(code: &mut Code, stmts: &[Stmt], bytes: usize, lanes: &mut FxHashMap<i64, RangeId>) -> Vec<Group> {
    // Memory that is both read and written here keeps its accesses in order, and variables that change keep their stores.
    let of = |s: &Stmt| s.access().map(|a| a.mem);
    let is_store = |s: &&Stmt| matches!(s, Stmt::Store { .. });
    let written: FxHashSet<Memory> = stmts.iter().filter(is_store).filter_map(of).collect();
    let read: FxHashSet<Memory> = stmts.iter().filter(|s| !is_store(s)).filter_map(of).collect();
    let set: FxHashSet<Reg> =
        stmts.iter().filter_map(|s| if let Stmt::Set { reg, .. } = s { Some(*reg) } else { None }).collect();
    let mut alike: FxHashMap<Alike, usize> = FxHashMap::default();
    let mut sorted: Vec<(Alike, Vec<Member>)> = Vec::new();
    for (at, s) in stmts.iter().enumerate() {
        let Some((access, fill)) = single(code, s) else { continue };
        let both = written.contains(&access.mem) && read.contains(&access.mem);
        if both || matches!(s, Stmt::Store { value, .. } if set.contains(value)) {
            continue;
        }
        let (terms, addr) = code.ints.as_sum(access.addr);
        let (indices, index): (Vec<_>, Vec<i64>) = access.index.iter().map(|&i| code.ints.as_sum(i)).unzip();
        let key = (access.mem, access.gate.clone(), fill, terms, indices);
        let place = *alike.entry(key.clone()).or_insert_with(|| {
            sorted.push((key, Vec::new()));
            sorted.len() - 1
        });
        sorted[place].1.push(Member { at, addr, index });
    }
    let mut out = Vec::new();
    for ((mem, gate, _, terms, indices), mut members) in sorted {
        members.sort_by_key(|m| (m.addr, m.at));
        members.dedup_by_key(|m| m.addr);
        let (shape, size) = match mem {
            Memory::Arg(n) => (&code.args[n as usize].shape, code.args[n as usize].dtype.size()),
            Memory::Local(n) => (&code.locals[n as usize].shape, code.locals[n as usize].dtype.size()),
            Memory::Table(_) => continue,
        };
        let (shape, most) = (shape.clone(), (bytes / size.max(1)).max(1));
        let mut rest = &members[..];
        while let Some(first) = rest.first() {
            let widths = std::iter::successors(Some(1 << most.ilog2()), |w| Some(w / 2)).take_while(|w| *w >= 2);
            let fits = |width: &usize| {
                let divisor = code.ints.divisor_of_sum(&terms, first.addr);
                let run = rest.get(..*width)?;
                if !divisor.is_multiple_of(*width as u64) {
                    return None;
                }
                // One axis counts the elements.
                let axis = (0..indices.len()).find(|&a| run[1].index[a] != first.index[a])?;
                let follows = run.iter().enumerate().all(|(lane, m)| {
                    let step = |a: usize| if a == axis { lane as i64 } else { 0 };
                    m.addr == first.addr + lane as i64
                        && (0..indices.len()).all(|a| m.index[a] == first.index[a] + step(a))
                });
                follows.then_some((run, axis))
            };
            let found = widths.into_iter().find_map(|w| fits(&w));
            let taken = found.and_then(|(run, axis)| {
                let ints = &mut code.ints;
                let lane = *lanes.entry(run.len() as i64).or_insert_with(|| {
                    let size = ints.constant(run.len() as i64);
                    ints.new_range(size, RangeRole::Map)
                });
                let l = ints.range(lane);
                let index: Vec<IntId> = (0..indices.len())
                    .map(|a| {
                        let mut terms = indices[a].clone();
                        terms.extend((a == axis).then_some((l, 1)));
                        ints.sum(&terms, first.index[a])
                    })
                    .collect();
                let addr = ints.sum(&[&terms[..], &[(l, 1)]].concat(), first.addr);
                let access =
                    Access { mem, index: index.into(), addr, gate: gate.clone(), lane: Some(lane), dynamic: None };
                let proved = in_bounds(ints, &shape, &access.index, &access.gate);
                proved.then(|| Group { members: run.iter().map(|m| m.at).collect(), access })
            });
            rest = &rest[taken.as_ref().map_or(1, |g| g.members.len())..];
            out.extend(taken);
        }
    }
    out
}
