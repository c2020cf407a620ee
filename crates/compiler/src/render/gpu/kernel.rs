//! One kernel as a function.

use super::shape::{Home, Shape};
use super::{Arg, Language, Space};
use crate::optimize::matrix_unit::from_shared;
use crate::render::RenderError;
use crate::render::clike::{
    Elem, IntWriter, Linear, Operand, Unbound, Unlowered, comment, condition, identifier, literal,
};
use crate::render::frame::{Nest, used_locals};
use std::collections::BTreeSet;
use winograph_ir::indexed::{Scope, Table};
use winograph_ir::linear::{Access, Code, Instr, LoopKind, Memory, Reg, Stmt, Type};
use winograph_ir::{DType, IntId, RangeId, Scalar};

type Result<T> = std::result::Result<T, RenderError>;

/// Lanes beyond this many are refused.
const MAX_LANES: u32 = 256;

/// Loops up to so many iterations are unrolled where arrays that are to be registers are indexed by them.
const MAX_UNROLL: i64 = 64;

/// The same for loops over the terms of a chunk.
const MAX_TERMS: i64 = 16;

/// Bytes of all tables that may lie in constant memory.
const CONSTANT_BYTES: usize = 32 << 10;

/// A register's value.
#[derive(Clone)]
pub(super) struct Value {
    /// One for each lane: a name, a constant or an expression in parentheses.
    pub(super) lanes: Vec<String>,
    pub(super) ty: Type,
    /// Whether it may be set again.
    pub(super) mutable: bool,
    /// Its value in every lane, where that is a constant.
    pub(super) konst: Option<Scalar>,
}

impl Value {
    /// A lane as an operand.
    pub(super) fn lane(&self, l: usize) -> Operand<'_> {
        let text = self.lanes.get(l).map_or("", |s| s.as_str());
        Operand { text, not_nan: self.konst.is_some_and(|s| !s.is_nan()) }
    }
}

/// Writes one kernel.
pub(super) struct Kernel<'a> {
    pub(super) code: &'a Code,
    pub(super) lang: &'a mut dyn Language,
    pub(super) threads: u32,
    symbol: &'a str,
    ints: IntWriter<'a>,
    values: Vec<Option<Value>>,
    locals: Vec<(Home, usize)>,
    tables: Vec<Space>,
    /// Ranges that index arrays that are to be registers.
    unrolled: BTreeSet<RangeId>,
    out: String,
    indent: usize,
    counter: usize,
}

/// The text of the function `symbol` and, before it, of its tables.
pub(in crate::render) fn render(
    code: &Code,
    symbol: &str,
    shape: &Shape<'_>,
    lang: &mut dyn Language,
) -> Result<String> {
    let mut k = Kernel {
        code,
        lang,
        threads: shape.count,
        symbol,
        ints: IntWriter { ints: &code.ints, scope: Default::default(), narrow: true },
        values: vec![None; code.regs.len()],
        locals: shape.locals.clone(),
        tables: table_spaces(code, shape),
        unrolled: register_ranges(code, &shape.locals),
        out: String::from("\n"),
        indent: 0,
        counter: 0,
    };
    for (i, t) in code.tables.iter().enumerate() {
        k.table(i, t);
    }
    let names: Vec<String> = (0..code.args.len()).map(|i| k.arg_name(i as u32)).collect();
    let args: Vec<Arg<'_>> = code
        .args
        .iter()
        .zip(&names)
        .map(|(m, name)| Arg { elem: Elem::of(m.dtype), name, written: m.written })
        .collect();
    let head = k.lang.function(symbol, &args, code.ints.params().len(), shape);
    k.line(&head);
    k.indent = 1;
    for (i, p) in code.ints.params().iter().enumerate() {
        k.line(&format!("/* p{i}: {} */", comment(&p.name)));
    }
    for s in shape.prefix {
        k.stmt(s)?;
    }
    let number = k.lang.block();
    match &shape.nests[..] {
        [nest] => k.nest(nest, number, &shape.threads)?,
        nests => {
            k.line(&format!("u32 first = {number};"));
            for nest in nests {
                let mut sizes = vec!["1u".to_string()];
                for &r in &nest.ranges {
                    sizes.push(k.size(r)?);
                }
                k.open(&format!("if (first < {}) {{", sizes.join(" * ")));
                k.nest(nest, "first", &shape.threads)?;
                k.line("return;");
                k.close();
                k.line(&format!("first -= {};", sizes.join(" * ")));
            }
        }
    }
    k.indent = 0;
    k.line("}");
    Ok(k.out)
}

/// Where tables lie: in constant memory those that the threads of a block read at one place.
fn table_spaces(code: &Code, shape: &Shape<'_>) -> Vec<Space> {
    let threads: Vec<RangeId> = shape.threads.iter().map(|t| t.0).collect();
    let mut scattered = vec![false; code.tables.len()];
    for_each_access(code, &mut |a| {
        if let Memory::Table(i) = a.mem
            && let Some(s) = scattered.get_mut(i as usize)
        {
            *s |= a.dynamic.is_some() || threads.iter().any(|&r| code.ints.depends_on(a.addr, r));
        }
    });
    let bytes: usize = code.tables.iter().map(|t| t.values.len() * t.dtype.size()).sum();
    let choose = |&s: &bool| if s || bytes > CONSTANT_BYTES { Space::Table } else { Space::Constant };
    scattered.iter().map(choose).collect()
}

/// The ranges in addresses of arrays that are to be registers.
fn register_ranges(code: &Code, locals: &[(Home, usize)]) -> BTreeSet<RangeId> {
    let mut out = BTreeSet::new();
    for_each_access(code, &mut |a| {
        if let Memory::Local(i) = a.mem
            && code.locals.get(i as usize).is_some_and(|m| m.scope == Scope::Register)
            && locals.get(i as usize).is_some_and(|l| l.0 == Home::Thread)
        {
            out.extend(code.ints.free_ranges(a.addr));
        }
    });
    out
}

fn for_each_access(code: &Code, f: &mut dyn FnMut(&Access)) {
    code.for_each_stmt(&mut |s| s.access().into_iter().for_each(&mut *f));
}

impl<'a> Kernel<'a> {
    /// Declares a table. One that holds floats that are not finite holds their bits.
    fn table(&mut self, i: usize, t: &Table) {
        let elem = self.table_elem(t);
        let bits = elem != Elem::of(t.dtype);
        let value = |&v: &Scalar| match elem {
            Elem::U32 if bits => format!("{:#x}u", v.bits()),
            Elem::U64 if bits => format!("{:#x}ull", v.bits()),
            _ => literal(&*self.lang, v),
        };
        let values: Vec<String> = t.values.iter().map(value).collect();
        let values = if values.is_empty() { "0".to_string() } else { values.join(", ") };
        let name = self.table_name(i as u32);
        let text = self.lang.array(self.table_space(i as u32), elem, &name, t.values.len().max(1), Some(&values));
        self.line(&text);
    }

    /// What the elements of a table are written as.
    pub(super) fn table_elem(&self, t: &Table) -> Elem {
        let e = Elem::of(t.dtype);
        if e.is_float() && t.values.iter().any(|v| !v.to_f64().is_finite()) { e.unsigned() } else { e }
    }

    pub(super) fn table_space(&self, i: u32) -> Space {
        self.tables.get(i as usize).copied().unwrap_or(Space::Table)
    }

    /// What the block of this number among those of a nest does.
    fn nest(&mut self, nest: &Nest<'_>, number: &str, threads: &[(RangeId, u32)]) -> Result<()> {
        let mut sizes = Vec::with_capacity(nest.ranges.len());
        for &r in &nest.ranges {
            sizes.push((r, self.size(r)?));
        }
        self.take_apart("block", number, &sizes);
        let thread = self.lang.thread();
        let sizes: Vec<_> = threads.iter().map(|&(r, s)| (r, format!("{s}u"))).collect();
        self.take_apart("thread", thread, &sizes);
        let used = used_locals(self.code, nest.body);
        for (i, m) in self.code.locals.iter().enumerate() {
            let (true, Some(&(home, len))) = (used[i], self.locals.get(i)) else { continue };
            let (e, name) = (Elem::of(m.dtype), self.local_name(i as u32));
            let text = match home {
                Home::Thread => self.lang.array(Space::Thread, e, &name, len, None),
                Home::Shared => self.lang.array(Space::Shared, e, &name, len, None),
                Home::Dynamic(at) => {
                    let p = self.lang.pointer(Space::Shared, e.name(), false);
                    format!("{p}const {name} = ({p})(wg_shared + {at});")
                }
            };
            self.line(&text);
        }
        self.body(nest.body)?;
        for &r in nest.ranges.iter().chain(threads.iter().map(|t| &t.0)) {
            self.ints.scope.leave(r);
        }
        Ok(())
    }

    /// Declares loop variables from the number of an iteration, the last one fastest.
    fn take_apart(&mut self, what: &str, number: &str, sizes: &[(RangeId, String)]) {
        let names: Vec<String> = sizes.iter().map(|&(r, _)| self.ints.scope.enter(r)).collect();
        let mut rest = number.to_string();
        if sizes.len() > 1 {
            rest = format!("{what}{}", self.fresh());
            self.line(&format!("u32 {rest} = {number};"));
        }
        for (n, ((r, size), name)) in sizes.iter().zip(&names).enumerate().rev() {
            // The variable of a loop that runs once is the constant 0.
            if self.code.ints.const_size(*r) == Some(1) {
                continue;
            }
            let ty = self.ints.variable(*r).name();
            if n == 0 {
                self.line(&format!("const {ty} {name} = ({ty}){rest};"));
            } else {
                self.line(&format!("const {ty} {name} = ({ty})({rest} % {size});"));
                self.line(&format!("{rest} /= {size};"));
            }
        }
    }

    /// The size of a grid loop as `u32`: a launch has fewer blocks than that.
    fn size(&mut self, r: RangeId) -> Result<String> {
        let size = self.code.ints.size(r);
        match self.code.ints.as_const(size).map(u32::try_from) {
            Some(Ok(c)) => Ok(format!("{c}u")),
            Some(Err(_)) => Err(self.unsupported("a grid of more than 2^32 blocks")),
            None => Ok(format!("(u32){}", self.expr(size)?)),
        }
    }

    fn body(&mut self, body: &[Stmt]) -> Result<()> {
        body.iter().try_for_each(|s| self.stmt(s))
    }

    /// The statements of copies: loads and stores of the same elements as what copies them, where the language has that.
    fn copies(&mut self, body: &[Stmt]) -> Result<()> {
        let mut rest = body;
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            if let Stmt::If { gate, body } = first {
                let parts: Vec<String> = gate.iter().map(|&e| self.expr(e)).collect::<Result<_>>()?;
                self.open(&condition(parts).map_or("{".to_string(), |c| format!("if ({c}) {{")));
                self.copies(body)?;
                self.close();
                continue;
            }
            if let Stmt::Let { reg, instr: Instr::Load { access: from, fill } } = first
                && let Some((Stmt::Store { access: to, value }, after)) = after.split_first()
                && value == reg
                && self.copy(from, to, *reg, *fill)?
            {
                rest = after;
                continue;
            }
            self.stmt(first)?;
        }
        Ok(())
    }

    fn stmt(&mut self, stmt: &Stmt) -> Result<()> {
        match stmt {
            Stmt::Let { reg, instr } => self.instr(*reg, instr)?,
            Stmt::Var { reg, init } => {
                let ty = self.reg_type(*reg)?;
                let init = self.operand(*init, ty)?;
                let names = self.declare(*reg, ty, true, None);
                self.declaration("", ty, &names, &init.lanes);
            }
            Stmt::Set { reg, value } => {
                let ty = self.reg_type(*reg)?;
                let (target, value) = (self.operand(*reg, ty)?, self.operand(*value, ty)?);
                self.expect(target.mutable, "a variable to be set")?;
                let sets: Vec<String> =
                    target.lanes.iter().zip(&value.lanes).map(|(t, v)| format!("{t} = {v};")).collect();
                self.line(&sets.join(" "));
            }
            Stmt::Store { access, value } => self.store(access, *value)?,
            Stmt::Loop { kind: LoopKind::Thread, .. } => {
                return Err(self.malformed("a thread loop that is not directly inside of the grid loops"));
            }
            // Iterations of a grid loop are independent, so that running them in order is right.
            Stmt::Loop { range, kind: _, body } => {
                let size = self.expr(self.code.ints.size(*range))?;
                let few = |most: i64| self.code.ints.const_size(*range).is_some_and(|s| s <= most);
                if (few(MAX_UNROLL) && self.unrolled.contains(range)) || (few(MAX_TERMS) && self.is_of_terms(body)) {
                    self.line("#pragma unroll");
                }
                let ty = self.ints.variable(*range).name();
                let i = self.ints.scope.enter(*range);
                self.open(&format!("for ({ty} {i} = 0; {i} < {size}; {i}++) {{"));
                self.body(body)?;
                self.close();
                self.ints.scope.leave(*range);
            }
            Stmt::If { gate, body } => {
                let mut parts = Vec::with_capacity(gate.len());
                for &e in gate.iter() {
                    parts.push(self.expr(e)?);
                }
                match condition(parts) {
                    Some(c) => self.open(&format!("if ({c}) {{")),
                    None => self.open("{"),
                }
                self.body(body)?;
                self.close();
            }
            Stmt::Async { body } => {
                self.open("{");
                self.copies(body)?;
                self.close();
                if let Some(text) = self.lang.copied() {
                    self.line(text);
                }
            }
            // Threads wait for memory while others run.
            Stmt::Prefetch { .. } => {}
            Stmt::Wait(pending) => {
                if let Some(text) = self.lang.wait(*pending) {
                    self.line(&text);
                }
            }
            Stmt::Barrier(Scope::Register | Scope::Scratch) => {}
            Stmt::Barrier(Scope::Shared) => {
                let tiles = self.code.units.iter().any(from_shared);
                let text = self.lang.barrier(tiles);
                self.line(text);
            }
            Stmt::Barrier(Scope::Global) => return Err(self.unsupported("a barrier between blocks")),
        }
        Ok(())
    }

    /// Whether a loop's body multiplies what it loads of shared memory: unrolled, loads of later terms are under way while
    /// earlier ones are multiplied.
    fn is_of_terms(&self, body: &[Stmt]) -> bool {
        let plain = |s: &Stmt| matches!(s, Stmt::Let { .. } | Stmt::Set { .. });
        let shared = |s: &Stmt| match s.access().map(|a| a.mem) {
            Some(Memory::Local(i)) => self.home(i) != Home::Thread,
            _ => false,
        };
        body.iter().all(plain)
            && body.iter().any(shared)
            && body.iter().any(|s| matches!(s, Stmt::Let { instr: Instr::Fma { .. }, .. }))
    }

    /// Emits a line and indents what follows.
    pub(super) fn open(&mut self, text: &str) {
        self.line(text);
        self.indent += 1;
    }

    /// Emits a closing brace.
    pub(super) fn close(&mut self) {
        self.indent -= 1;
        self.line("}");
    }

    /// Emits a line.
    pub(super) fn line(&mut self, text: &str) {
        for _ in 0..self.indent {
            self.out.push_str("  ");
        }
        self.out.push_str(text);
        self.out.push('\n');
    }

    /// A number not given out before.
    pub(super) fn fresh(&mut self) -> usize {
        self.counter += 1;
        self.counter - 1
    }

    /// The type of values in registers.
    pub(super) fn type_name(&self, dtype: DType) -> &'static str {
        if dtype == DType::Bool { self.lang.truth() } else { Elem::of(dtype).name() }
    }

    /// Emits `qualifier type name = value, ...;`.
    pub(super) fn declaration(&mut self, qualifier: &str, ty: Type, names: &[String], values: &[String]) {
        let parts: Vec<String> = names.iter().zip(values).map(|(n, v)| format!("{n} = {v}")).collect();
        let t = self.type_name(ty.dtype);
        self.line(&format!("{qualifier}{t} {};", parts.join(", ")));
    }

    /// Gives a register names, one for each lane.
    pub(super) fn declare(&mut self, reg: Reg, ty: Type, mutable: bool, konst: Option<Scalar>) -> Vec<String> {
        let n = self.fresh();
        let names: Vec<String> = match ty.lanes {
            1 => vec![format!("r{n}")],
            lanes => (0..lanes).map(|l| format!("r{n}_{l}")).collect(),
        };
        self.bind(reg, Value { lanes: names.clone(), ty, mutable, konst });
        names
    }

    fn bind(&mut self, reg: Reg, value: Value) {
        if let Some(slot) = self.values.get_mut(reg.0 as usize) {
            *slot = Some(value);
        }
    }

    /// Lets a register stand for names and constants that do not change.
    pub(super) fn alias(&mut self, reg: Reg, ty: Type, lanes: Vec<String>, konst: Option<Scalar>) {
        self.bind(reg, Value { lanes, ty, mutable: false, konst });
    }

    /// Emits the definition of a register that does not change.
    pub(super) fn define(&mut self, reg: Reg, ty: Type, values: &[String]) {
        let names = self.declare(reg, ty, false, None);
        self.declaration("const ", ty, &names, values);
    }

    /// The type of a register, if it can be written.
    pub(super) fn reg_type(&self, reg: Reg) -> Result<Type> {
        let Some(&ty) = self.code.regs.get(reg.0 as usize) else {
            return Err(self.malformed(&format!("register {} is not declared", reg.0)));
        };
        if !ty.lanes.is_power_of_two() || ty.lanes > MAX_LANES {
            return Err(self.unsupported(&format!("a vector of {} lanes", ty.lanes)));
        }
        Ok(ty)
    }

    /// A register's value, which must be of type `ty`.
    pub(super) fn operand(&self, reg: Reg, ty: Type) -> Result<Value> {
        match self.values.get(reg.0 as usize) {
            Some(Some(v)) if v.ty == ty => Ok(v.clone()),
            Some(Some(v)) => Err(self.malformed(&format!(
                "register {} has {} lanes of {} where {} of {} are needed",
                reg.0, v.ty.lanes, v.ty.dtype, ty.lanes, ty.dtype
            ))),
            _ => Err(self.malformed(&format!("register {} is used before it is computed", reg.0))),
        }
    }

    /// Whether the register may be set again.
    pub(super) fn is_variable(&self, reg: Reg) -> bool {
        matches!(self.values.get(reg.0 as usize), Some(Some(Value { mutable: true, .. })))
    }

    /// An expression as text.
    pub(super) fn expr(&mut self, e: IntId) -> Result<String> {
        self.ints.expr(e, self.lang).map_err(|u| self.unbound(u))
    }

    /// An expression's dependence on the lane.
    pub(super) fn linear(&self, e: IntId, lane: Option<RangeId>) -> Result<Linear> {
        self.ints.linear(e, lane).ok_or_else(|| self.malformed("an expression that is not linear in the lane"))
    }

    /// The text of an expression at a lane.
    pub(super) fn at_lane(&mut self, l: &Linear, lane: u32) -> Result<String> {
        self.ints.at(l, lane, self.lang).map_err(|u| self.unbound(u))
    }

    /// The type of integers that hold an expression at all lanes.
    pub(super) fn lanes_type(&self, l: &Linear, lanes: u32) -> &'static str {
        self.ints.width_of_lanes(l, lanes).name()
    }

    /// A number that an expression is a multiple of.
    pub(super) fn divisor(&self, e: IntId) -> u64 {
        self.code.ints.divisor(e)
    }

    pub(super) fn home(&self, i: u32) -> Home {
        self.locals.get(i as usize).map_or(Home::Thread, |l| l.0)
    }

    fn unbound(&self, u: Unbound) -> RenderError {
        self.malformed(&format!("range {} is used outside of its loop", u.0.0))
    }

    pub(super) fn arg_name(&self, i: u32) -> String {
        let name = self.code.args.get(i as usize).map_or("", |m| &m.name);
        format!("a{i}_{}", identifier(name))
    }

    pub(super) fn local_name(&self, i: u32) -> String {
        let name = self.code.locals.get(i as usize).map_or("", |m| &m.name);
        format!("l{i}_{}", identifier(name))
    }

    pub(super) fn table_name(&self, i: u32) -> String {
        format!("{}_t{i}", self.symbol)
    }

    pub(super) fn malformed(&self, what: &str) -> RenderError {
        RenderError::Malformed { kernel: self.code.name.clone(), what: what.to_string() }
    }

    pub(super) fn unsupported(&self, what: &str) -> RenderError {
        RenderError::Unsupported { kernel: self.code.name.clone(), what: what.to_string() }
    }

    pub(super) fn not_lowered(&self, what: Unlowered) -> RenderError {
        RenderError::NotLowered { kernel: self.code.name.clone(), what: what.0 }
    }

    pub(super) fn expect(&self, holds: bool, what: &str) -> Result<()> {
        if holds { Ok(()) } else { Err(self.malformed(&format!("expected {what}"))) }
    }
}
