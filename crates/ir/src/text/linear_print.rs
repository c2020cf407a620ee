//! Printer of the linear level.

use super::indexed_print::print_gated;
use super::names::{Names, join, print_params, quote_name};
use super::value::{print_layout, print_origin, print_table, scope_name};
use crate::indexed::Role;
use crate::int::RangeId;
use crate::linear::{Access, Code, Fragment, Instr, LoopKind, MatrixUnit, Memory, MemoryDecl, Reg, Stmt, Type};
use rustc_hash::FxHashMap;
use std::fmt::Write;

/// Prints linear code: name and role, parameters, arguments, locals, tables, matrix units, statements. Registers and ranges are
/// numbered in the order of the statements.
pub fn print_linear(code: &Code) -> String {
    let mut out = format!("kernel {}", quote_name(&code.name));
    if code.role != Role::Other {
        let _ = write!(out, " {}", code.role.name());
    }
    out.push('\n');
    print_params(&mut out, &code.ints);
    let mut printer =
        Printer { code, names: Names::new(&code.ints), regs: FxHashMap::default(), out, indent: String::new() };
    for arg in &code.args {
        printer.memory("arg", arg);
    }
    for local in &code.locals {
        printer.memory("local", local);
    }
    for (n, table) in code.tables.iter().enumerate() {
        let shape = join(&table.shape, |s| s.to_string());
        let values = print_table(table.dtype, &table.shape, &table.values, "");
        let _ = writeln!(printer.out, "table t{n}: {}[{shape}] = {values}", table.dtype);
    }
    for unit in &code.units {
        printer.unit(unit);
    }
    printer.out.push_str("body {\n");
    printer.indent.push_str("  ");
    printer.body(&code.body);
    printer.out.push_str("}\n");
    printer.out
}

/// Word of the text form.
pub(super) fn loop_kind_name(kind: LoopKind) -> &'static str {
    match kind {
        LoopKind::Grid => "grid",
        LoopKind::Thread => "thread",
        LoopKind::Serial => "serial",
    }
}

fn print_type(ty: Type) -> String {
    if ty.lanes == 1 { ty.dtype.to_string() } else { format!("{}x{}", ty.dtype, ty.lanes) }
}

struct Printer<'a> {
    code: &'a Code,
    names: Names<'a>,
    regs: FxHashMap<Reg, usize>,
    out: String,
    indent: String,
}

impl Printer<'_> {
    fn memory(&mut self, word: &str, m: &MemoryDecl) {
        let shape = self.names.list(&m.shape);
        let _ = write!(self.out, "{word} {}: {}{shape} {}", quote_name(&m.name), m.dtype, print_origin(m.origin));
        let _ = write!(self.out, " {} {}", scope_name(m.scope), print_layout(&self.names, &m.layout));
        if m.swizzle > 0 {
            let _ = write!(self.out, " swizzle {}", m.swizzle);
        }
        self.out.push_str(if m.written { " written" } else { "" });
        self.out.push_str(if m.streamed { " streamed\n" } else { "\n" });
    }

    fn unit(&mut self, u: &MatrixUnit) {
        let fragment = |f: &Fragment| {
            let list = |weights: &[u32]| format!("[{}]", join(weights, |w| w.to_string()));
            let (tr, tc) = (list(&f.thread_row), list(&f.thread_col));
            let (er, ec) = (list(&f.element_row), list(&f.element_col));
            format!("{} thread_row {tr} thread_col {tc} element_row {er} element_col {ec}", f.dtype)
        };
        let [a, b, c] = [&u.a, &u.b, &u.c].map(fragment);
        let name = quote_name(&u.name);
        let _ = writeln!(self.out, "unit {name} {} {} {} {} a: {a} b: {b} c: {c}", u.m, u.n, u.k, u.factor_bits);
    }

    fn line(&mut self, text: &str) {
        let _ = writeln!(self.out, "{}{text}", self.indent);
    }

    fn block(&mut self, head: &str, body: &[Stmt]) {
        self.line(&format!("{head} {{"));
        self.indent.push_str("  ");
        self.body(body);
        self.indent.truncate(self.indent.len() - 2);
        self.line("}");
    }

    fn body(&mut self, body: &[Stmt]) {
        for stmt in body {
            match stmt {
                Stmt::Let { reg, instr } => {
                    let instr = self.instr(*reg, instr);
                    let left = self.typed(*reg);
                    self.line(&format!("{left} = {instr}"));
                }
                Stmt::Var { reg, init } => {
                    let init = self.reg(*init);
                    let left = self.typed(*reg);
                    self.line(&format!("var {left} = {init}"));
                }
                Stmt::Set { reg, value } => {
                    let (reg, value) = (self.reg(*reg), self.reg(*value));
                    self.line(&format!("set {reg} = {value}"));
                }
                Stmt::Store { access, value } => {
                    let value = self.reg(*value);
                    let access_text = self.access(access);
                    let gate = match access.gate.is_empty() {
                        true => String::new(),
                        false => format!(" if {}", self.names.gate(&access.gate)),
                    };
                    self.line(&format!("store {value}, {access_text}{gate}"));
                }
                Stmt::Loop { range, kind, body } => {
                    self.names.introduce(*range);
                    let role = self.names.role_suffix(*range);
                    let range = self.names.declaration(*range);
                    self.block(&format!("loop {range} {}{role}", loop_kind_name(*kind)), body);
                }
                Stmt::If { gate, body } => {
                    let head = format!("if {}", self.names.gate(gate));
                    self.block(&head, body);
                }
                Stmt::Async { body } => self.block("async", body),
                Stmt::Prefetch { mem, addr } => {
                    let line = format!("prefetch {} @ {}", self.memory_name(*mem), self.names.int(*addr));
                    self.line(&line);
                }
                Stmt::Wait(pending) => self.line(&format!("wait {pending}")),
                Stmt::Barrier(scope) => self.line(&format!("barrier {}", scope_name(*scope))),
            }
        }
    }

    fn reg(&mut self, reg: Reg) -> String {
        let next = self.regs.len();
        format!("%{}", *self.regs.entry(reg).or_insert(next))
    }

    fn typed(&mut self, reg: Reg) -> String {
        let ty = self.code.regs.get(reg.0 as usize).map(|t| print_type(*t)).unwrap_or_else(|| "?".to_string());
        format!("{}: {ty}", self.reg(reg))
    }

    fn regs(&mut self, regs: &[Reg]) -> String {
        let all: Vec<String> = regs.iter().map(|&r| self.reg(r)).collect();
        all.join(", ")
    }

    /// `lane r3:8 `, or nothing.
    fn lane(&mut self, lane: Option<RangeId>) -> String {
        let Some(range) = lane else { return String::new() };
        self.names.introduce(range);
        format!("lane {}{} ", self.names.declaration(range), self.names.role_suffix(range))
    }

    fn memory_name(&self, mem: Memory) -> String {
        let name = match mem {
            Memory::Arg(n) => self.code.args.get(n as usize).map(|m| quote_name(&m.name)),
            Memory::Local(n) => self.code.locals.get(n as usize).map(|m| quote_name(&m.name)),
            Memory::Table(n) => Some(format!("t{n}")),
        };
        name.unwrap_or_else(|| "?".to_string())
    }

    /// Everything of an access but its gate.
    fn access(&mut self, access: &Access) -> String {
        let lane = self.lane(access.lane);
        let name = self.memory_name(access.mem);
        let mut out = format!("{lane}{name}{} @ {}", self.names.list(&access.index), self.names.int(access.addr));
        if let Some(d) = access.dynamic {
            let reg = self.reg(d.index);
            let (size, stride) = (self.names.int(d.size), self.names.int(d.stride));
            let _ = write!(out, " dynamic {} = {reg} size {size} stride {stride}", d.axis);
        }
        out
    }

    fn instr(&mut self, reg: Reg, instr: &Instr) -> String {
        match instr {
            Instr::Const(s) => format!("const {s}"),
            Instr::Index { value, lane } => {
                let lane = self.lane(*lane);
                format!("index {lane}{}", self.names.int(*value))
            }
            Instr::Load { access, fill } => {
                let text = self.access(access);
                let dtype = self.code.regs.get(reg.0 as usize).map_or(fill.dtype(), |t| t.dtype);
                format!("load {text}{}", print_gated(&self.names, &access.gate, *fill, dtype))
            }
            Instr::Rows { access, transposed } => {
                format!("rows {}{}", if *transposed { "transposed " } else { "" }, self.access(access))
            }
            Instr::Unary { op, x } => format!("{} {}", op.name(), self.reg(*x)),
            Instr::Binary { op, a, b } => format!("{} {}", op.name(), self.regs(&[*a, *b])),
            Instr::Fma { a, b, c } => format!("fma {}", self.regs(&[*a, *b, *c])),
            Instr::Where { cond, a, b } => format!("where {}", self.regs(&[*cond, *a, *b])),
            Instr::Select { gate, lane, a, b } => {
                let lane = self.lane(*lane);
                let gate = self.names.gate(gate);
                let (a, b) = (self.reg(*a), self.reg(*b));
                format!("select {lane}{gate} ? {a} : {b}")
            }
            Instr::Cast { x } => format!("cast {}", self.reg(*x)),
            Instr::Bitcast { x } => format!("bitcast {}", self.reg(*x)),
            Instr::Splat { x } => format!("splat {}", self.reg(*x)),
            Instr::Pack { lanes } => format!("pack {}", self.regs(lanes)),
            Instr::Shuffle { a, b, pattern } => {
                format!("shuffle {} [{}]", self.regs(&[*a, *b]), join(pattern, |p| p.to_string()))
            }
            Instr::Matrix { unit, a, b, c } => {
                let name = self.code.units.get(*unit as usize).map(|u| quote_name(&u.name));
                format!("matrix {} {}", name.unwrap_or_else(|| "?".to_string()), self.regs(&[*a, *b, *c]))
            }
            Instr::Tiles { unit, tiles, c } => {
                let name = self.code.units.get(*unit as usize).map(|u| quote_name(&u.name));
                let mut out = format!("tiles {} {}", name.unwrap_or_else(|| "?".to_string()), self.reg(*c));
                for t in tiles.iter() {
                    self.names.introduce(t.row);
                    let row = format!("{}{}", self.names.declaration(t.row), self.names.role_suffix(t.row));
                    let access = self.access(&t.access);
                    let _ = write!(out, ", row {row} {access} from {}", self.names.int(t.base));
                }
                out
            }
            Instr::Fold { op, x } => format!("fold {} {}", op.name(), self.reg(*x)),
        }
    }
}
