//! Parser of the linear level.

use super::cursor::{Cursor, MAX_RANK};
use super::ints::Scope;
use super::lexer::{ParseError, Tok};
use super::linear_print::loop_kind_name;
use super::tensor_parse::reduce_op;
use super::value::{parse_origin, parse_table, role_from, scope_from};
use crate::dtype::{DType, Scalar};
use crate::indexed::{Gate, Role};
use crate::int::{Ints, RangeId};
use crate::linear::{
    Access, Code, Dynamic, Fragment, Instr, LoopKind, MatrixUnit, Memory, MemoryDecl, Reg, SWIZZLE_BYTES, Stmt, Tile,
    Type,
};
use crate::op::{BinaryOp, UnaryOp};
use rustc_hash::{FxHashMap, FxHashSet};

/// Most loops and conditions around a statement.
const MAX_DEPTH: usize = 64;

/// Most lanes of a register.
const MAX_LANES: usize = 4096;

/// Greatest number in a matrix unit's declaration.
const MAX_UNIT: usize = 4096;

/// Most bits of a thread's or element's number in a fragment.
const MAX_FRAGMENT_BITS: usize = 12;

/// Parses linear code.
///
/// Registers and names have to be declared before they are used. Types, bounds and the scopes of registers are the
/// verifier's.
pub fn parse_linear(text: &str) -> Result<Code, ParseError> {
    let mut c = Cursor::new(text)?;
    while *c.peek() == Tok::Newline {
        c.advance();
    }
    c.expect_word("kernel")?;
    let (name, _) = c.name("the name of the kernel")?;
    let role = c.accept_known(role_from).unwrap_or(Role::Other);
    c.end_line()?;
    let code = Code::new(name, role, Ints::new());
    let mut p = Parser {
        c,
        scope: Scope::default(),
        code,
        memory: FxHashMap::default(),
        tables: FxHashMap::default(),
        units: FxHashMap::default(),
        plain: FxHashSet::default(),
        regs: FxHashMap::default(),
    };
    while !p.c.is_word("body") {
        p.declaration()?;
        p.c.end_line()?;
    }
    p.c.advance();
    p.code.body = p.block(0)?;
    p.c.end_line()?;
    p.c.expect_end()?;
    Ok(p.code)
}

struct Parser<'a> {
    c: Cursor<'a>,
    scope: Scope,
    code: Code,
    memory: FxHashMap<String, Memory>,
    tables: FxHashMap<String, u32>,
    units: FxHashMap<String, u32>,
    regs: FxHashMap<usize, Reg>,
    /// Names declared without quotes, which tables cannot have.
    plain: FxHashSet<String>,
}

impl Parser<'_> {
    fn declaration(&mut self) -> Result<(), ParseError> {
        if self.c.accept_word("param") {
            self.scope.param(&mut self.c, &mut self.code.ints)
        } else if self.c.accept_word("arg") {
            let memory = Memory::Arg(self.code.args.len() as u32);
            let decl = self.memory(memory)?;
            self.code.args.push(decl);
            Ok(())
        } else if self.c.accept_word("local") {
            let memory = Memory::Local(self.code.locals.len() as u32);
            let decl = self.memory(memory)?;
            self.code.locals.push(decl);
            Ok(())
        } else if self.c.accept_word("table") {
            let place = self.c.place();
            let name = self.c.word("the name of a table")?.to_string();
            if self.tables.contains_key(&name) || self.plain.contains(&name) {
                return Err(self.c.error_at(place, format!("`{name}` again"), "another name"));
            }
            let table = parse_table(&mut self.c)?;
            self.tables.insert(name, self.code.tables.len() as u32);
            self.code.tables.push(table);
            Ok(())
        } else if self.c.accept_word("unit") {
            self.unit()
        } else {
            Err(self.c.error("`param`, `arg`, `local`, `table`, `unit` or `body`"))
        }
    }

    /// What follows `unit`: name, m, n, k, bits of the factors, and the three fragments.
    fn unit(&mut self) -> Result<(), ParseError> {
        let place = self.c.place();
        let (name, _) = self.c.name("the name of a matrix unit")?;
        if self.units.contains_key(&name) {
            return Err(self.c.error_at(place, format!("`{name}` again"), "another name"));
        }
        let mut size = |what: &str| self.c.natural(MAX_UNIT, what).map(|n| n as u32);
        let (m, n, k) = (size("the rows m")?, size("the columns n")?, size("the depth k")?);
        let factor_bits = size("the significand bits of a factor")?;
        let (a, b, c) = (self.fragment("a")?, self.fragment("b")?, self.fragment("c")?);
        self.units.insert(name.clone(), self.code.units.len() as u32);
        self.code.units.push(MatrixUnit { name, m, n, k, a, b, c, factor_bits });
        Ok(())
    }

    fn fragment(&mut self, name: &str) -> Result<Fragment, ParseError> {
        self.c.expect_word(name)?;
        self.c.expect(":")?;
        let dtype = self.c.dtype()?;
        let mut weights = |word: &str| {
            self.c.expect_word(word)?;
            let place = self.c.place();
            let list = self.c.list(|c| Ok(c.natural(MAX_UNIT, "a distance")? as u32))?;
            if list.len() > MAX_FRAGMENT_BITS {
                let found = format!("{} bits", list.len());
                return Err(self.c.error_at(place, found, format!("at most {MAX_FRAGMENT_BITS}")));
            }
            Ok(list)
        };
        Ok(Fragment {
            dtype,
            thread_row: weights("thread_row")?,
            thread_col: weights("thread_col")?,
            element_row: weights("element_row")?,
            element_col: weights("element_col")?,
        })
    }

    fn memory(&mut self, memory: Memory) -> Result<MemoryDecl, ParseError> {
        let place = self.c.place();
        let (name, quoted) = self.c.name("a name")?;
        if self.memory.contains_key(&name) || !quoted && self.tables.contains_key(&name) {
            return Err(self.c.error_at(place, format!("`{name}` again"), "another name"));
        }
        self.c.expect(":")?;
        let (dtype, shape) = self.scope.tensor_type(&mut self.c, &mut self.code.ints)?;
        let origin = parse_origin(&mut self.c)?;
        let scope = self.c.known("a scope", scope_from)?;
        self.c.expect_word("layout")?;
        let layout = self.scope.layout(&mut self.c, &mut self.code.ints, shape.len())?;
        let swizzle = match self.c.accept_word("swizzle") {
            true => self.c.natural(SWIZZLE_BYTES as usize, "the bytes of a row")? as u32,
            false => 0,
        };
        let written = self.c.accept_word("written");
        let streamed = self.c.accept_word("streamed");
        if !quoted {
            self.plain.insert(name.clone());
        }
        self.memory.insert(name.clone(), memory);
        Ok(MemoryDecl { name, dtype, shape, layout, scope, origin, written, swizzle, streamed })
    }

    /// `{`, statements, `}`.
    fn block(&mut self, depth: usize) -> Result<Vec<Stmt>, ParseError> {
        if depth > MAX_DEPTH {
            return Err(self.c.error_here("a deeply nested statement", format!("at most {MAX_DEPTH} levels")));
        }
        self.c.expect("{")?;
        self.c.end_line()?;
        let mut out = Vec::new();
        while !self.c.accept("}") {
            out.push(self.stmt(depth)?);
            self.c.end_line()?;
        }
        Ok(out)
    }

    fn stmt(&mut self, depth: usize) -> Result<Stmt, ParseError> {
        if self.c.is_sign("%") {
            let (number, ty) = self.typed()?;
            self.c.expect("=")?;
            let instr = self.instr(ty.dtype)?;
            return Ok(Stmt::Let { reg: self.declare(number, ty), instr });
        }
        let word = self.c.known("a statement or `}`", |w| {
            ["var", "set", "store", "loop", "if", "async", "prefetch", "wait", "barrier"].into_iter().find(|k| *k == w)
        })?;
        Ok(match word {
            "var" => {
                let (number, ty) = self.typed()?;
                self.c.expect("=")?;
                let init = self.reg()?;
                Stmt::Var { reg: self.declare(number, ty), init }
            }
            "set" => {
                let reg = self.reg()?;
                self.c.expect("=")?;
                Stmt::Set { reg, value: self.reg()? }
            }
            "store" => {
                let value = self.reg()?;
                self.c.expect(",")?;
                let mut access = self.access()?;
                if self.c.accept_word("if") {
                    access.gate = self.gate()?;
                }
                Stmt::Store { access, value }
            }
            "loop" => {
                let (range, kind) = self.scope.same_range(&mut self.c, &mut self.code.ints, |c| {
                    c.known("`grid`, `thread` or `serial`", |w| {
                        let all = [LoopKind::Grid, LoopKind::Thread, LoopKind::Serial];
                        all.into_iter().find(|k| loop_kind_name(*k) == w)
                    })
                })?;
                Stmt::Loop { range, kind, body: self.block(depth + 1)? }
            }
            "if" => {
                let gate = self.gate()?;
                Stmt::If { gate, body: self.block(depth + 1)? }
            }
            "async" => Stmt::Async { body: self.block(depth + 1)? },
            "prefetch" => {
                let (mem, _) = self.memory_name()?;
                self.c.expect("@")?;
                Stmt::Prefetch { mem, addr: self.scope.int(&mut self.c, &mut self.code.ints)? }
            }
            "wait" => Stmt::Wait(self.c.natural(64, "how many copies may be under way")? as u32),
            _ => Stmt::Barrier(self.c.known("a scope", scope_from)?),
        })
    }

    /// `%3: f32x8`, a register that is new.
    fn typed(&mut self) -> Result<(usize, Type), ParseError> {
        let place = self.c.place();
        let number = self.c.value_number()?;
        if self.regs.contains_key(&number) {
            return Err(self.c.error_at(place, format!("`%{number}` again"), "another number"));
        }
        self.c.expect(":")?;
        let ty = self.c.known("the type of a register, as `f32` or `f32x8`", |w| {
            let (name, lanes) = w.split_once('x').unwrap_or((w, "1"));
            let lanes = lanes.parse::<usize>().ok().filter(|n| (1..=MAX_LANES).contains(n))?;
            Some(Type { dtype: DType::from_name(name)?, lanes: lanes as u32 })
        })?;
        Ok((number, ty))
    }

    fn declare(&mut self, number: usize, ty: Type) -> Reg {
        let reg = Reg(self.code.regs.len() as u32);
        self.code.regs.push(ty);
        self.regs.insert(number, reg);
        reg
    }

    fn reg(&mut self) -> Result<Reg, ParseError> {
        let place = self.c.place();
        let number = self.c.value_number()?;
        let known = self.regs.get(&number).copied();
        known.ok_or_else(|| self.c.error_at(place, format!("`%{number}`"), "a register declared before"))
    }

    fn next_reg(&mut self) -> Result<Reg, ParseError> {
        self.c.expect(",")?;
        self.reg()
    }

    /// A gate in canonical form; one that never holds stays as it is written.
    fn gate(&mut self) -> Result<Gate, ParseError> {
        let gate = self.scope.gate(&mut self.c, &mut self.code.ints)?;
        let canonical = self.code.ints.conjunction(&gate);
        self.scope.check(&self.c, &self.code.ints)?;
        Ok(canonical.unwrap_or_else(|| {
            let mut raw = gate;
            raw.sort_unstable();
            raw.dedup();
            raw.into()
        }))
    }

    /// `lane r3:8`, where a lane is given. A memory may have that name too.
    fn lane(&mut self) -> Result<Option<RangeId>, ParseError> {
        if !self.c.is_word("lane") || !matches!(self.c.peek_at(1), Tok::Word(_)) {
            return Ok(None);
        }
        self.c.advance();
        let (range, ()) = self.scope.same_range(&mut self.c, &mut self.code.ints, |_| Ok(()))?;
        Ok(Some(range))
    }

    /// What a name stands for, and the name.
    fn memory_name(&mut self) -> Result<(Memory, String), ParseError> {
        let place = self.c.place();
        let (name, quoted) = self.c.name("the name of an argument, local or table")?;
        let table = self.tables.get(&name).filter(|_| !quoted).map(|&t| Memory::Table(t));
        match table.or_else(|| self.memory.get(&name).copied()) {
            Some(mem) => Ok((mem, name)),
            None => Err(self.c.error_at(place, format!("`{name}`"), "an argument, local or table declared before")),
        }
    }

    /// Everything of an access but its gate.
    fn access(&mut self) -> Result<Access, ParseError> {
        let lane = self.lane()?;
        let (mem, name) = self.memory_name()?;
        let place = self.c.place();
        let index: Box<[_]> = self.scope.list(&mut self.c, &mut self.code.ints)?.into();
        let rank = match mem {
            Memory::Arg(n) => self.code.args.get(n as usize).map(|m| m.shape.len()),
            Memory::Local(n) => self.code.locals.get(n as usize).map(|m| m.shape.len()),
            Memory::Table(n) => self.code.tables.get(n as usize).map(|t| t.shape.len()),
        };
        if rank.is_some_and(|r| r != index.len()) {
            let expected = format!("one for each axis of `{name}`");
            return Err(self.c.error_at(place, format!("{} indices", index.len()), expected));
        }
        self.c.expect("@")?;
        let addr = self.scope.int(&mut self.c, &mut self.code.ints)?;
        let mut dynamic = None;
        if self.c.accept_word("dynamic") {
            let axis = self.c.natural(MAX_RANK, "an axis")? as u32;
            self.c.expect("=")?;
            let index = self.reg()?;
            self.c.expect_word("size")?;
            let size = self.scope.int(&mut self.c, &mut self.code.ints)?;
            self.c.expect_word("stride")?;
            let stride = self.scope.int(&mut self.c, &mut self.code.ints)?;
            dynamic = Some(Dynamic { axis, index, size, stride });
        }
        Ok(Access { mem, index, addr, gate: Box::new([]), lane, dynamic })
    }

    fn unit_name(&mut self) -> Result<u32, ParseError> {
        let place = self.c.place();
        let (name, _) = self.c.name("the name of a matrix unit")?;
        let known = self.units.get(&name).copied();
        known.ok_or_else(|| self.c.error_at(place, format!("`{name}`"), "a matrix unit declared before"))
    }

    /// `, row r3:64 lane r4:64 stage0[...] @ ... from ...`.
    fn tile(&mut self) -> Result<Tile, ParseError> {
        self.c.expect(",")?;
        self.c.expect_word("row")?;
        let (row, ()) = self.scope.same_range(&mut self.c, &mut self.code.ints, |_| Ok(()))?;
        let access = self.access()?;
        self.c.expect_word("from")?;
        let base = self.scope.int(&mut self.c, &mut self.code.ints)?;
        Ok(Tile { access, row, base })
    }

    fn instr(&mut self, dtype: DType) -> Result<Instr, ParseError> {
        if let Some(op) = self.c.accept_known(|w| UnaryOp::ALL.into_iter().find(|o| o.name() == w)) {
            return Ok(Instr::Unary { op, x: self.reg()? });
        }
        if let Some(op) = self.c.accept_known(|w| BinaryOp::ALL.into_iter().find(|o| o.name() == w)) {
            return Ok(Instr::Binary { op, a: self.reg()?, b: self.next_reg()? });
        }
        const WORDS: [&str; 15] = [
            "const", "index", "load", "rows", "fma", "where", "select", "cast", "bitcast", "splat", "pack", "shuffle",
            "matrix", "tiles", "fold",
        ];
        let word = self.c.known("an instruction", |w| WORDS.into_iter().find(|k| *k == w))?;
        Ok(match word {
            "const" => Instr::Const(self.c.scalar()?),
            "index" => {
                let lane = self.lane()?;
                Instr::Index { value: self.scope.int(&mut self.c, &mut self.code.ints)?, lane }
            }
            "load" => {
                let mut access = self.access()?;
                let mut fill = Scalar::zero(dtype);
                if self.c.accept_word("if") {
                    access.gate = self.gate()?;
                    self.c.expect_word("else")?;
                    fill = self.c.scalar()?;
                }
                Instr::Load { access, fill }
            }
            "rows" => {
                // A memory may have that name.
                let transposed = self.c.is_word("transposed") && matches!(self.c.peek_at(1), Tok::Word(_));
                if transposed {
                    self.c.advance();
                }
                Instr::Rows { access: self.access()?, transposed }
            }
            "fma" => Instr::Fma { a: self.reg()?, b: self.next_reg()?, c: self.next_reg()? },
            "where" => Instr::Where { cond: self.reg()?, a: self.next_reg()?, b: self.next_reg()? },
            "select" => {
                let lane = self.lane()?;
                let gate = self.gate()?;
                self.c.expect("?")?;
                let a = self.reg()?;
                self.c.expect(":")?;
                Instr::Select { gate, lane, a, b: self.reg()? }
            }
            "cast" => Instr::Cast { x: self.reg()? },
            "bitcast" => Instr::Bitcast { x: self.reg()? },
            "splat" => Instr::Splat { x: self.reg()? },
            "pack" => {
                let mut lanes = vec![self.reg()?];
                while self.c.accept(",") {
                    lanes.push(self.reg()?);
                }
                Instr::Pack { lanes: lanes.into() }
            }
            "shuffle" => {
                let (a, b) = (self.reg()?, self.next_reg()?);
                let pattern = self.c.list(|c| c.natural(2 * MAX_LANES, "the number of a lane"))?;
                Instr::Shuffle { a, b, pattern: pattern.into_iter().map(|p| p as u32).collect() }
            }
            "tiles" => {
                let (unit, c) = (self.unit_name()?, self.reg()?);
                Instr::Tiles { unit, tiles: Box::new([self.tile()?, self.tile()?]), c }
            }
            "matrix" => {
                let unit = self.unit_name()?;
                Instr::Matrix { unit, a: self.reg()?, b: self.next_reg()?, c: self.next_reg()? }
            }
            _ => Instr::Fold { op: self.c.known("the operation of a fold", reduce_op)?, x: self.reg()? },
        })
    }
}
