//! One kernel as a C function.

use super::held::Held;
use super::memory::streamed_end;
use super::prelude::Prelude;
use super::types::{CType, Elem, identifier};
use crate::render::RenderError;
use crate::render::clike::{IntWriter, Linear, Unbound, Unlowered, comment, condition, literal};
use crate::render::frame::{Frame, Nest, Place, place_locals, used_locals};
use rustc_hash::FxHashMap;
use std::fmt::Write;
use winograph_ir::linear::{Code, Reg, Stmt, Type};
use winograph_ir::{DType, IntId, RangeId, Scalar};

type Result<T> = std::result::Result<T, RenderError>;

/// Lanes beyond this many are refused.
const MAX_LANES: u32 = 1024;

/// A register's value as C sees it.
#[derive(Clone)]
pub(super) struct Value {
    /// Its name, or an expression in parentheses.
    pub(super) text: String,
    pub(super) ty: Type,
    /// Width of the mask, where it is a vector of truth values.
    pub(super) mask: Elem,
    /// Its value in every lane, where that is a constant.
    pub(super) konst: Option<Scalar>,
}

impl Value {
    /// A value that is no vector of truth values.
    pub(super) fn plain(text: String, ty: Type) -> Value {
        Value { text, ty, mask: Elem::I8, konst: None }
    }
}

/// Writes one kernel.
pub(super) struct Kernel<'a> {
    pub(super) code: &'a Code,
    pub(super) prelude: &'a mut Prelude,
    ints: IntWriter<'a>,
    held: Held,
    /// The innermost loop around, if it adds to registers in every iteration.
    pub(super) summing: Option<RangeId>,
    values: Vec<Option<Value>>,
    /// Numbers of the intervals of lanes that the bodies around have, by their ends.
    pub(super) intervals: Vec<FxHashMap<(String, String), usize>>,
    locals: Vec<(Place, usize)>,
    out: String,
    indent: usize,
    counter: usize,
}

impl<'a> Kernel<'a> {
    /// The text of the function `symbol`.
    pub(super) fn render(code: &'a Code, symbol: &str, prelude: &'a mut Prelude) -> Result<String> {
        let (locals, _) = place_locals(code)?;
        let mut k = Kernel {
            code,
            prelude,
            ints: IntWriter { ints: &code.ints, scope: Default::default(), narrow: false },
            held: Held::of(code),
            summing: None,
            values: vec![None; code.regs.len()],
            intervals: vec![FxHashMap::default()],
            locals,
            out: String::new(),
            indent: 1,
            counter: 0,
        };
        let frame = Frame::of(code)?;
        let _ = write!(
            k.out,
            "\nvoid {symbol}(void *const *args, const i64 *params, void *scratch, i64 begin, i64 end) {{\n"
        );
        for (i, p) in code.ints.params().iter().enumerate() {
            k.line(&format!("const i64 p{i} = params[{i}]; /* {} */", comment(&p.name)));
        }
        for (i, m) in code.args.iter().enumerate() {
            let (e, name) = (Elem::of(m.dtype).name(), k.arg_name(i as u32));
            let qualifier = if m.written { "" } else { "const " };
            k.line(&format!("{qualifier}{e} *const {name} = ({qualifier}{e} *)args[{i}];"));
            if m.streamed {
                k.line(&format!("const int past_{name} = ((uptr){name} & 63) == 0;"));
            }
        }
        for (i, t) in code.tables.iter().enumerate() {
            let (e, name) = (Elem::of(t.dtype).name(), k.table_name(i as u32));
            let values: Vec<String> = t.values.iter().map(|&v| literal(k.prelude, v)).collect();
            let values = if values.is_empty() { "0".to_string() } else { values.join(", ") };
            k.line(&format!("static const {e} {name}[] __attribute__((aligned(64))) = {{{values}}};"));
        }
        for s in frame.prefix {
            k.stmt(s)?;
        }
        match &frame.nests[..] {
            [nest] => k.nest(nest, "begin", "end")?,
            nests => {
                k.line("i64 first = 0;");
                for nest in nests {
                    let mut sizes = Vec::new();
                    for &r in &nest.ranges {
                        sizes.push(k.expr(code.ints.size(r))?);
                    }
                    k.line("{");
                    k.indent += 1;
                    k.line(&format!("const i64 count = {};", sizes.join(" * ")));
                    k.line("const i64 from = begin > first ? begin - first : 0;");
                    k.line("const i64 to = end - first < count ? end - first : count;");
                    k.nest(nest, "from", "to")?;
                    k.line("first += count;");
                    k.indent -= 1;
                    k.line("}");
                }
            }
        }
        if code.args.iter().any(|m| m.streamed) {
            let f = streamed_end(k.prelude);
            k.line(&format!("{f}();"));
        }
        k.out.push_str("}\n");
        Ok(k.out)
    }

    /// Runs items `from..to` of a nest. The innermost loop stays a loop; the others are taken apart once for each of
    /// its runs.
    fn nest(&mut self, nest: &Nest<'_>, from: &str, to: &str) -> Result<()> {
        let Some((&last, outer)) = nest.ranges.split_last() else {
            self.line(&format!("if ({from} < {to}) {{"));
            return self.item(nest.body);
        };
        if outer.is_empty() {
            let i = self.ints.scope.enter(last);
            self.line(&format!("for (i64 {i} = {from}; {i} < {to}; {i}++) {{"));
            self.item(nest.body)?;
            self.ints.scope.leave(last);
            return Ok(());
        }
        let size = self.expr(self.code.ints.size(last))?;
        self.line(&format!("for (i64 at = {from}, next; at < {to}; at = next) {{"));
        self.indent += 1;
        // Numbers of items are not negative.
        self.line(&format!("u64 row = (u64)at / (u64){size};"));
        self.line(&format!("const i64 start = at - (i64)row * {size};"));
        self.line(&format!("const i64 stop = {to} - at < {size} - start ? start + ({to} - at) : {size};"));
        self.line("next = at + (stop - start);");
        let names: Vec<String> = outer.iter().map(|&r| self.ints.scope.enter(r)).collect();
        for (n, &r) in outer.iter().enumerate().rev() {
            if n == 0 {
                self.line(&format!("const i64 {} = (i64)row;", names[n]));
            } else {
                let size = self.expr(self.code.ints.size(r))?;
                self.line(&format!("const i64 {} = (i64)(row % (u64){size});", names[n]));
                self.line(&format!("row /= (u64){size};"));
            }
        }
        let i = self.ints.scope.enter(last);
        self.line(&format!("for (i64 {i} = start; {i} < stop; {i}++) {{"));
        self.item(nest.body)?;
        for &r in nest.ranges.iter().rev() {
            self.ints.scope.leave(r);
        }
        self.indent -= 1;
        self.line("}");
        Ok(())
    }

    /// The body of an item, after its opening brace.
    fn item(&mut self, body: &[Stmt]) -> Result<()> {
        self.indent += 1;
        let used = used_locals(self.code, body);
        for (i, m) in self.code.locals.iter().enumerate() {
            if !used[i] {
                continue;
            }
            let (e, name) = (Elem::of(m.dtype).name(), self.local_name(i as u32));
            match self.locals[i] {
                (Place::Stack, len) => self.line(&format!("{e} {name}[{len}] __attribute__((aligned(64)));")),
                (Place::Scratch(at), _) => self.line(&format!("{e} *const {name} = ({e} *)((char *)scratch + {at});")),
            }
        }
        self.body(body)?;
        self.indent -= 1;
        self.line("}");
        Ok(())
    }

    fn body(&mut self, body: &[Stmt]) -> Result<()> {
        self.intervals.push(FxHashMap::default());
        body.iter().try_for_each(|s| self.stmt(s))?;
        self.intervals.pop();
        Ok(())
    }

    fn stmt(&mut self, stmt: &Stmt) -> Result<()> {
        match stmt {
            Stmt::Let { reg, instr } => self.instr(*reg, instr)?,
            Stmt::Var { reg, init } => {
                let ty = self.reg_type(*reg)?;
                let init = self.operand(*init, ty)?;
                let name = self.declare(*reg, ty, init.mask, None);
                let t = self.value_type(ty, init.mask);
                let t = self.prelude.ty(t);
                self.line(&format!("{t} {name} = {};", init.text));
            }
            Stmt::Set { reg, value } => {
                let ty = self.reg_type(*reg)?;
                let (target, value) = (self.operand(*reg, ty)?, self.operand(*value, ty)?);
                let text = self.mask_text(&value, target.mask);
                self.line(&format!("{} = {text};", target.text));
            }
            Stmt::Store { access, value } => self.store(access, *value)?,
            // Iterations of grid and thread loops are independent, so that running them in order is right.
            Stmt::Loop { range, kind: _, body } => {
                let size = self.expr(self.code.ints.size(*range))?;
                let i = self.ints.scope.enter(*range);
                self.line(&format!("for (i64 {i} = 0; {i} < {size}; {i}++) {{"));
                self.indent += 1;
                let sums = body.iter().any(|s| matches!(s, Stmt::Set { .. }));
                let around = std::mem::replace(&mut self.summing, sums.then_some(*range));
                self.body(body)?;
                self.summing = around;
                self.indent -= 1;
                self.ints.scope.leave(*range);
                self.line("}");
            }
            Stmt::If { gate, body } => {
                let mut parts = Vec::with_capacity(gate.len());
                for &e in gate.iter() {
                    parts.push(self.expr(e)?);
                }
                let cond = condition(parts).unwrap_or_else(|| "1".into());
                self.line(&format!("if ({cond}) {{"));
                self.indent += 1;
                self.body(body)?;
                self.indent -= 1;
                self.line("}");
            }
            // Copies may be done at once; what waits for them has then nothing to wait for.
            Stmt::Async { body } => {
                self.line("{");
                self.indent += 1;
                self.body(body)?;
                self.indent -= 1;
                self.line("}");
            }
            Stmt::Prefetch { mem, addr } => self.prefetch(*mem, *addr)?,
            Stmt::Wait(_) => {}
            Stmt::Barrier(_) => {
                return Err(RenderError::Unsupported {
                    kernel: self.code.name.clone(),
                    what: "a barrier between threads of a workgroup".into(),
                });
            }
        }
        Ok(())
    }

    /// Emits a line of the function.
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

    /// Declares a register and gives its name.
    fn declare(&mut self, reg: Reg, ty: Type, mask: Elem, konst: Option<Scalar>) -> String {
        let name = format!("r{}", self.fresh());
        if let Some(slot) = self.values.get_mut(reg.0 as usize) {
            *slot = Some(Value { text: name.clone(), ty, mask, konst });
        }
        name
    }

    /// Emits the definition of a register that does not change.
    pub(super) fn define(&mut self, reg: Reg, ty: Type, mask: Elem, konst: Option<Scalar>, text: &str) {
        let t = self.value_type(ty, mask);
        let hold = if self.held.contains(reg) { self.prelude.hold(t) } else { None };
        let t = self.prelude.ty(t);
        let name = self.declare(reg, ty, mask, konst);
        match hold {
            Some(hold) => self.line(&format!("{t} {name} = {text}; {hold}({name});")),
            None => self.line(&format!("const {t} {name} = {text};")),
        }
    }

    /// The type of a register, if C has one for it.
    pub(super) fn reg_type(&self, reg: Reg) -> Result<Type> {
        let Some(&ty) = self.code.regs.get(reg.0 as usize) else {
            return Err(self.malformed(&format!("register {} is not declared", reg.0)));
        };
        if !ty.lanes.is_power_of_two() || ty.lanes > MAX_LANES {
            return Err(RenderError::Unsupported {
                kernel: self.code.name.clone(),
                what: format!("a vector of {} lanes", ty.lanes),
            });
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

    /// The type of values as they lie in memory.
    pub(super) fn ctype(&self, ty: Type) -> CType {
        CType::new(Elem::of(ty.dtype), ty.lanes)
    }

    /// The type of values in registers: vectors of truth values are masks.
    pub(super) fn value_type(&self, ty: Type, mask: Elem) -> CType {
        if ty.dtype == DType::Bool && ty.lanes > 1 { CType::new(mask, ty.lanes) } else { self.ctype(ty) }
    }

    /// A value with its mask in another width; other values as they are.
    pub(super) fn mask_text(&mut self, v: &Value, width: Elem) -> String {
        if v.ty.dtype != DType::Bool || v.ty.lanes == 1 || v.mask == width {
            return v.text.clone();
        }
        format!("__builtin_convertvector({}, {})", v.text, self.prelude.ty(CType::new(width, v.ty.lanes)))
    }

    /// An expression as text.
    pub(super) fn expr(&mut self, e: IntId) -> Result<String> {
        self.ints.expr(e, self.prelude).map_err(|u| self.unbound(u))
    }

    /// An expression's dependence on the lane.
    pub(super) fn linear(&self, e: IntId, lane: Option<RangeId>) -> Result<Linear> {
        self.ints.linear(e, lane).ok_or_else(|| self.malformed("an expression that is not linear in the lane"))
    }

    /// The text of the part that does not depend on the lane.
    pub(super) fn rest(&mut self, l: &Linear) -> Result<String> {
        self.ints.rest(l, self.prelude).map_err(|u| self.unbound(u))
    }

    /// The same in two parts; see [`IntWriter::parts`].
    pub(super) fn parts(&mut self, l: &Linear, inner: RangeId) -> Result<Option<(String, String)>> {
        self.ints.parts(l, inner, self.prelude).map_err(|u| self.unbound(u))
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
        format!("t{i}")
    }

    pub(super) fn malformed(&self, what: &str) -> RenderError {
        RenderError::Malformed { kernel: self.code.name.clone(), what: what.to_string() }
    }

    pub(super) fn not_lowered(&self, what: Unlowered) -> RenderError {
        RenderError::NotLowered { kernel: self.code.name.clone(), what: what.0 }
    }

    pub(super) fn expect(&self, holds: bool, what: &str) -> Result<()> {
        if holds { Ok(()) } else { Err(self.malformed(&format!("expected {what}"))) }
    }
}
