//! Runs linear code on byte buffers, bit for bit as the instructions are documented.
//!
//! A register can be read after its assignment and inside the body that holds it, as in the source text that
//! renderers write; elsewhere it is not set.

use super::emit::Emitter;
use super::machine::{AxisIndex, DynamicIndex, Machine, Mem, Op, Place, TileOps};
use super::{InterpError, MAX_BYTES, check_params, malformed};
use crate::indexed::Scope;
use crate::int::IntId;
use crate::linear::{Access, Code, Instr, LoopKind, Memory, MemoryDecl, Reg, Stmt};
use crate::verify::linear_types::{check_access, check_instr, decl_of, operands, type_of};

/// Runs `code`. Each argument holds its elements in memory order, little-endian, exactly as many as its layout's
/// length; written ones are changed in place. Grid loops run in order.
///
/// Locals are fresh in every iteration of a grid loop and hold NaN (0xCD bytes in integers) until they are written.
///
/// # Errors
/// Malformed code, arguments of another length, an access out of bounds, an integer overflow in an index. Arguments
/// are then left as far as the run got.
pub fn run(code: &Code, args: &mut [Vec<u8>], params: &[i64]) -> Result<(), InterpError> {
    Prepared::new(code, params)?.run(args)
}

/// Code translated once, to be run many times with the same parameters.
#[derive(Debug)]
pub struct Prepared {
    machine: Machine,
    ops: Box<[Op]>,
    locals: Vec<u32>,
    lengths: Vec<usize>,
}

impl Prepared {
    /// Translates code.
    ///
    /// # Errors
    /// Malformed code, or parameters that do not fit it.
    pub fn new(code: &Code, params: &[i64]) -> Result<Prepared, InterpError> {
        let mut c = Compiler::new(code, params, false)?;
        let mut lengths = std::mem::take(&mut c.lengths);
        for (mem, &len) in c.e.machine.mems.iter_mut().zip(&lengths).skip(code.args.len()) {
            mem.bytes = vec![0; len];
        }
        lengths.truncate(code.args.len());
        c.body(&code.body)?;
        let locals = (code.args.len()..code.args.len() + code.locals.len()).map(|m| m as u32).collect();
        let ops = c.e.close();
        Ok(Prepared { machine: c.e.machine, ops, locals, lengths })
    }

    /// Runs the code; see [`run`].
    ///
    /// # Errors
    /// As for [`run`].
    pub fn run(&mut self, args: &mut [Vec<u8>]) -> Result<(), InterpError> {
        check_lengths(&self.machine, &self.lengths, args)?;
        for &m in &self.locals {
            self.machine.mems[m as usize].poison();
        }
        for (arg, mem) in args.iter_mut().zip(&mut self.machine.mems) {
            std::mem::swap(arg, &mut mem.bytes);
        }
        let result = self.machine.run(&self.ops);
        for (arg, mem) in args.iter_mut().zip(&mut self.machine.mems) {
            std::mem::swap(arg, &mut mem.bytes);
        }
        result
    }
}

/// Checks the number of arguments and their lengths.
pub(super) fn check_lengths(machine: &Machine, lengths: &[usize], args: &[Vec<u8>]) -> Result<(), InterpError> {
    if args.len() != lengths.len() {
        let what = format!("arguments of `{}`", machine.name);
        return Err(InterpError::Length { what, wanted: lengths.len(), found: args.len() });
    }
    for ((arg, &wanted), mem) in args.iter().zip(lengths).zip(&machine.mems) {
        if arg.len() != wanted {
            let what = format!("bytes of argument `{}`", mem.name);
            return Err(InterpError::Length { what, wanted, found: arg.len() });
        }
    }
    Ok(())
}

fn byte_length(e: &Emitter, decl: &MemoryDecl) -> Result<usize, InterpError> {
    let len = e.known(decl.layout.len)?;
    usize::try_from(len)
        .ok()
        .and_then(|n| n.checked_mul(decl.dtype.size()))
        .filter(|&n| n <= MAX_BYTES)
        .ok_or_else(|| malformed(e.name(), format!("`{}` has {len} elements", decl.name)))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Assigned {
    No,
    Let,
    Var,
}

/// Translates statements.
pub(super) struct Compiler<'a> {
    code: &'a Code,
    pub(super) e: Emitter,
    /// Bytes of each argument and local.
    pub(super) lengths: Vec<usize>,
    regs: Vec<u32>,
    set: Vec<Assigned>,
    kinds: Vec<LoopKind>,
    sites: u32,
    /// Whether the code is one thread's among many: it has barriers and matrix units and no grid or thread loops, and
    /// each axis of an access is checked.
    thread: bool,
}

impl<'a> Compiler<'a> {
    /// Declares memories, of which the tables have their bytes, and registers.
    pub(super) fn new(code: &'a Code, params: &[i64], thread: bool) -> Result<Compiler<'a>, InterpError> {
        check_params(&code.ints, params)?;
        let mut e = Emitter::new(&code.name, &code.ints, params);
        let mut lengths = Vec::new();
        for decl in code.args.iter().chain(&code.locals) {
            lengths.push(byte_length(&e, decl)?);
            e.machine.mems.push(Mem { name: decl.name.clone(), dtype: decl.dtype, bytes: Vec::new() });
        }
        for (i, t) in code.tables.iter().enumerate() {
            let value = super::Value { dtype: t.dtype, shape: t.shape.clone(), data: t.values.clone() };
            value.check(&format!("table {i}"))?;
            e.machine.mems.push(Mem { name: format!("table {i}"), dtype: t.dtype, bytes: value.to_bytes() });
        }
        let mut regs = Vec::with_capacity(code.regs.len());
        for i in 0..code.regs.len() {
            let t = type_of(code, Reg(i as u32)).map_err(|why| malformed(&code.name, why))?;
            regs.push(e.regs(t.lanes));
        }
        let set = vec![Assigned::No; code.regs.len()];
        Ok(Compiler { code, e, lengths, regs, set, kinds: Vec::new(), sites: 0, thread })
    }

    fn bad(&self, why: impl Into<String>) -> InterpError {
        malformed(&self.code.name, why)
    }

    /// Statements, into the innermost frame.
    pub(super) fn body(&mut self, body: &[Stmt]) -> Result<(), InterpError> {
        let mut here = Vec::new();
        for s in body {
            match s {
                Stmt::Let { reg, instr } => {
                    self.instr(*reg, instr)?;
                    self.assign(*reg, Assigned::Let)?;
                    here.push(*reg);
                }
                Stmt::Var { reg, init } => {
                    self.copy(*reg, *init)?;
                    self.assign(*reg, Assigned::Var)?;
                    here.push(*reg);
                }
                Stmt::Set { reg, value } => {
                    self.read(*reg)?;
                    if self.set[reg.0 as usize] != Assigned::Var {
                        return Err(self.bad(format!("r{} is set but not declared as a variable", reg.0)));
                    }
                    self.copy(*reg, *value)?;
                }
                Stmt::Store { access, value } => {
                    let ty = type_of(self.code, *value).map_err(|why| self.bad(why))?;
                    check_access(self.code, access, ty).map_err(|why| self.bad(why))?;
                    if matches!(access.mem, Memory::Table(_)) {
                        return Err(self.bad("a store into a table"));
                    }
                    let src = self.read(*value)?;
                    let place = Box::new(self.place(access)?);
                    self.e.push(Op::Store { src, lanes: ty.lanes, place });
                }
                Stmt::Loop { range, kind, body } => self.nest(*range, *kind, body)?,
                Stmt::If { gate, body } => {
                    let gate: Result<Box<[u32]>, InterpError> = gate.iter().map(|&g| self.e.int(g)).collect();
                    let gate = gate?;
                    self.e.open();
                    self.body(body)?;
                    let body = self.e.close();
                    self.e.push(Op::If { gate, body });
                }
                Stmt::Async { body } => {
                    self.e.open();
                    self.body(body)?;
                    let body = self.e.close();
                    self.e.push(Op::Async { body });
                }
                Stmt::Prefetch { .. } => {}
                Stmt::Wait(pending) => self.e.push(Op::Wait { pending: *pending }),
                Stmt::Barrier(Scope::Shared) if self.thread => self.e.push(Op::Barrier),
                Stmt::Barrier(scope) if self.thread => {
                    return Err(self.bad(format!("a barrier of scope {scope:?} between threads")));
                }
                Stmt::Barrier(_) if self.kinds.contains(&LoopKind::Thread) => {
                    return Err(self.bad("barriers between threads are for `interp::gpu`"));
                }
                Stmt::Barrier(_) => {}
            }
        }
        for r in here {
            self.set[r.0 as usize] = Assigned::No;
        }
        Ok(())
    }

    /// Checks that a loop can bind a range.
    pub(super) fn bindable(&self, range: crate::RangeId) -> Result<(), InterpError> {
        if range.0 as usize >= self.e.ints.range_count() || self.e.binds(range) {
            return Err(self.bad(format!("a loop over range {}, which is unknown or bound already", range.0)));
        }
        Ok(())
    }

    fn nest(&mut self, range: crate::RangeId, kind: LoopKind, body: &[Stmt]) -> Result<(), InterpError> {
        self.bindable(range)?;
        let size = self.e.ints.size(range);
        let size = self.e.int(size)?;
        let first = self.code.args.len();
        let fresh = |scope: Scope| match kind {
            LoopKind::Grid => true,
            LoopKind::Thread => matches!(scope, Scope::Register | Scope::Scratch),
            LoopKind::Serial => false,
        };
        let locals = self.code.locals.iter().enumerate();
        let poison = locals.filter(|(_, l)| fresh(l.scope)).map(|(i, _)| (first + i) as u32).collect();
        let var = self.e.open_loop(range);
        self.kinds.push(kind);
        self.body(body)?;
        self.kinds.pop();
        let body = self.e.close();
        self.e.push(Op::Loop { var, size, poison, body });
        Ok(())
    }

    fn assign(&mut self, reg: Reg, how: Assigned) -> Result<(), InterpError> {
        if self.set[reg.0 as usize] != Assigned::No {
            return Err(self.bad(format!("r{} is assigned twice", reg.0)));
        }
        self.set[reg.0 as usize] = how;
        Ok(())
    }

    fn read(&self, reg: Reg) -> Result<u32, InterpError> {
        match self.set.get(reg.0 as usize) {
            Some(Assigned::Let | Assigned::Var) => Ok(self.regs[reg.0 as usize]),
            _ => Err(InterpError::RegisterUnset { kernel: self.code.name.clone(), reg: reg.0 }),
        }
    }

    fn copy(&mut self, to: Reg, from: Reg) -> Result<(), InterpError> {
        let ty = type_of(self.code, to).map_err(|why| self.bad(why))?;
        if type_of(self.code, from) != Ok(ty) {
            return Err(self.bad(format!("r{} and r{} have different types", to.0, from.0)));
        }
        let x = self.read(from)?;
        self.e.push(Op::Copy { dst: self.regs[to.0 as usize], x, lanes: ty.lanes });
        Ok(())
    }

    fn lins(
        &mut self,
        gate: &[IntId],
        lane: Option<crate::RangeId>,
    ) -> Result<Box<[super::machine::Lin]>, InterpError> {
        gate.iter().map(|&g| self.e.lin(g, lane)).collect()
    }

    fn place(&mut self, access: &Access) -> Result<Place, InterpError> {
        let mem = match access.mem {
            Memory::Arg(i) => i,
            Memory::Local(i) => self.code.args.len() as u32 + i,
            Memory::Table(i) => (self.code.args.len() + self.code.locals.len()) as u32 + i,
        };
        let gate = self.lins(&access.gate, access.lane)?;
        let addr = self.e.lin(access.addr, access.lane)?;
        let dynamic = match access.dynamic {
            None => None,
            Some(d) => {
                let reg = self.read(d.index)?;
                let dtype = self.code.ty(d.index).dtype;
                Some(DynamicIndex { reg, dtype, size: self.e.int(d.size)?, stride: self.e.int(d.stride)? })
            }
        };
        let mut axes = Vec::new();
        if self.thread {
            for (index, size) in access.index.iter().zip(self.shape(access.mem)?) {
                axes.push(AxisIndex { index: self.e.lin(*index, access.lane)?, size, stride: 0 });
            }
        }
        let site = self.sites;
        self.sites += 1;
        Ok(Place { mem, addr, axes: axes.into(), gate, dynamic, site })
    }

    fn shape(&self, mem: Memory) -> Result<Vec<i64>, InterpError> {
        match (decl_of(self.code, mem), mem) {
            (Ok(Some(decl)), _) => decl.shape.iter().map(|&s| self.e.known(s)).collect(),
            (Ok(None), Memory::Table(t)) => Ok(self.code.tables[t as usize].shape.iter().map(|&s| s as i64).collect()),
            (Ok(None), _) => Ok(Vec::new()),
            (Err(why), _) => Err(self.bad(why)),
        }
    }

    fn instr(&mut self, reg: Reg, instr: &Instr) -> Result<(), InterpError> {
        let ty = type_of(self.code, reg).map_err(|why| self.bad(why))?;
        check_instr(self.code, ty, instr).map_err(|why| self.bad(format!("r{}: {why}", reg.0)))?;
        let mut read = Vec::with_capacity(3);
        for r in operands(instr) {
            read.push(self.read(r)?);
        }
        let r = |i: usize| read.get(i).copied().unwrap_or(0);
        let (dst, lanes, dtype) = (self.regs[reg.0 as usize], ty.lanes, ty.dtype);
        let op = match instr {
            Instr::Const(s) => Op::Const { dst, bits: s.bits() },
            Instr::Index { value, lane } => Op::Index { dst, lanes, value: self.e.lin(*value, *lane)?, dtype },
            Instr::Load { access, fill } => {
                Op::Load { dst, lanes, place: Box::new(self.place(access)?), fill: fill.bits() }
            }
            Instr::Rows { access, transposed } if self.thread => {
                let place = Box::new(self.place(access)?);
                Op::Rows { dst, lanes, place, size: dtype.size() as u32, transposed: *transposed }
            }
            Instr::Rows { .. } => return Err(self.bad("rows of matrices need the threads of a warp".to_string())),
            Instr::Unary { op, .. } => Op::Unary { op: *op, dtype, dst, x: r(0), lanes },
            Instr::Binary { op, a, .. } => {
                Op::Binary { op: *op, dtype: self.code.ty(*a).dtype, dst, a: r(0), b: r(1), lanes }
            }
            Instr::Fma { .. } => Op::Fma { dtype, dst, a: r(0), b: r(1), c: r(2), lanes },
            Instr::Where { .. } => Op::Where { dst, cond: r(0), a: r(1), b: r(2), lanes },
            Instr::Select { gate, lane, .. } => {
                Op::Select { dst, gate: self.lins(gate, *lane)?, a: r(0), b: r(1), lanes }
            }
            Instr::Cast { x } => Op::Cast { from: self.code.ty(*x).dtype, to: dtype, dst, x: r(0), lanes },
            Instr::Bitcast { .. } => Op::Bitcast { to: dtype, dst, x: r(0), lanes },
            Instr::Splat { .. } => Op::Splat { dst, x: r(0), lanes },
            Instr::Matrix { unit, .. } if self.thread => Op::Matrix { unit: *unit, dst, a: r(0), b: r(1), c: r(2) },
            Instr::Tiles { unit, tiles, .. } if self.thread => {
                let mut of = |t: &crate::linear::Tile| -> Result<TileOps, InterpError> {
                    self.bindable(t.row)?;
                    let rows = self.e.known(self.e.ints.size(t.row))?;
                    let var = self.e.open_loop(t.row);
                    // It is no request of a thread's.
                    let place = self.place(&t.access);
                    self.sites -= place.is_ok() as u32;
                    let ops = self.e.close();
                    Ok(TileOps { var, rows, ops, place: place? })
                };
                let tiles = Box::new([of(&tiles[0])?, of(&tiles[1])?]);
                let c = read.last().copied().unwrap_or(0);
                Op::Tiles { unit: *unit, dst, c, tiles }
            }
            Instr::Tiles { .. } => return Err(self.bad("a matrix unit needs the threads of a warp".to_string())),
            Instr::Matrix { .. } => return Err(self.bad("a matrix unit needs the threads of a warp".to_string())),
            Instr::Pack { .. } => Op::Pack { dst, lanes: read.into() },
            Instr::Shuffle { a, pattern, .. } => {
                let of = self.code.ty(*a).lanes;
                let from = |&p: &u32| if p < of { r(0) + p } else { r(1) + (p - of) };
                Op::Pack { dst, lanes: pattern.iter().map(from).collect() }
            }
            Instr::Fold { op, x } => {
                let t = self.code.ty(*x);
                Op::Fold { op: *op, dtype: t.dtype, dst, x: r(0), lanes: t.lanes }
            }
        };
        self.e.push(op);
        Ok(())
    }
}
