//! Loads and stores.
//!
//! An address is `stride * lane + rest`. Gates are half-spaces in the lane, so the lanes that are touched are an
//! interval, computed once for all accesses of a body that have the same one. Memory is not touched in the others:
//! AVX-512 and AVX2 mask them, elsewhere a loop runs over the interval unless it is full. Conditions that do not depend
//! on the lane need no mask: where they do not hold, contiguous loads read the fill value from an array of it.

use super::kernel::{Kernel, Value};
use super::memory::{
    between, gather, masked_gather, masked_load, masked_scatter, masked_store, scatter, streamed_store,
};
use super::types::{CType, Elem, int_literal};
use crate::lower::stream::is_aligned;
use crate::render::RenderError;
use crate::render::clike::{clamp, condition, floor_div, literal};
use winograph_ir::linear::{Access, Memory, Reg, Type};
use winograph_ir::{DType, IntId, RangeId, Scalar};

type Result<T> = std::result::Result<T, RenderError>;

/// Where a gate holds.
pub(super) enum Interval {
    /// In all lanes or in none, by this condition; `None`: always.
    Uniform(Option<String>),
    /// In the lanes from `lo` below `hi`, which may lie beyond the vector's ends, if the condition holds.
    Lanes { cond: Option<String>, lo: String, hi: String },
}

impl Interval {
    /// The end of an interval of lanes under a condition.
    pub(super) fn end(cond: Option<String>, hi: &str) -> String {
        cond.map_or_else(|| hi.to_string(), |c| format!("({c} ? {hi} : 0)"))
    }
}

/// The place of an access: the pointer's name, the offset of lane 0 and the distance of lanes, in elements.
struct Address {
    pointer: String,
    offset: String,
    stride: i64,
}

impl Kernel<'_> {
    /// The lanes in which a gate holds; emits the bounds of the interval where there is one.
    pub(super) fn interval(&mut self, gate: &[IntId], lane: Option<RangeId>, lanes: u32) -> Result<Interval> {
        let (mut uniform, mut lo, mut hi) = (Vec::new(), Vec::new(), Vec::new());
        for &e in gate {
            let l = self.linear(e, lane)?;
            let rest = self.rest(&l)?;
            if l.coef == 0 || lanes == 1 {
                uniform.push(format!("({rest})"));
            } else if l.coef > 0 {
                // lane >= ceil(-rest / coef) = -floor(rest / coef)
                lo.push(format!("-{}", self.floor_div(&rest, l.coef)));
            } else {
                // lane <= floor(rest / -coef)
                hi.push(format!("{} + 1", self.floor_div(&rest, -l.coef)));
            }
        }
        let cond = condition(uniform);
        if lo.is_empty() && hi.is_empty() {
            return Ok(Interval::Uniform(cond));
        }
        lo.sort();
        hi.sort();
        let clamped = |bounds: Vec<String>, start: String, sign: &str| {
            bounds.into_iter().fold(start, |acc, b| if acc.is_empty() { b } else { format!("wg_{sign}({b}, {acc})") })
        };
        for (name, sign) in [("max", ">"), ("min", "<")] {
            self.prelude.helper(format!("wg_{name}"), |_, f| {
                format!("WG_INLINE i64 {f}(i64 a, i64 b) {{ return a {sign} b ? a : b; }}\n")
            });
        }
        let lo = clamped(lo, "0".into(), "max");
        let hi = clamped(hi, lanes.to_string(), "min");
        let known = self.intervals.iter().rev().find_map(|m| m.get(&(lo.clone(), hi.clone()))).copied();
        let n = known.unwrap_or_else(|| {
            let n = self.fresh();
            self.line(&format!("const i64 lo{n} = {lo};"));
            self.line(&format!("const i64 hi{n} = {hi};"));
            if let Some(m) = self.intervals.last_mut() {
                m.insert((lo, hi), n);
            }
            n
        });
        Ok(Interval::Lanes { cond, lo: format!("lo{n}"), hi: format!("hi{n}") })
    }

    fn floor_div(&mut self, e: &str, d: i64) -> String {
        match d {
            1 => format!("({e})"),
            d if d & (d - 1) == 0 => format!("(({e}) >> {})", d.trailing_zeros()),
            d => format!("{}({e}, {})", floor_div(self.prelude, "i64"), int_literal(d)),
        }
    }

    /// A mask, as wide as the elements of `t`, that is set in an interval of lanes.
    pub(super) fn interval_mask(&mut self, t: CType, lo: &str, hi: &str) -> String {
        // Lane numbers must fit in the integers that are compared.
        let e = if t.lanes > 127 && t.elem.bytes() < 4 { Elem::I32 } else { t.elem.signed() };
        let f = between(self.prelude, t.with(e));
        let call = format!("{f}({lo}, {hi})");
        if e == t.elem.signed() {
            call
        } else {
            let m = self.prelude.ty(t.mask());
            format!("__builtin_convertvector({call}, {m})")
        }
    }

    fn address(&mut self, access: &Access, ty: Type, writes: bool) -> Result<Address> {
        let (decl, pointer) = match access.mem {
            Memory::Arg(i) => (self.code.args.get(i as usize).map(|m| (m.dtype, m.written)), self.arg_name(i)),
            Memory::Local(i) => (self.code.locals.get(i as usize).map(|m| (m.dtype, true)), self.local_name(i)),
            Memory::Table(i) => (self.code.tables.get(i as usize).map(|t| (t.dtype, false)), self.table_name(i)),
        };
        let Some((dtype, writable)) = decl else { return Err(self.malformed("an access to memory that is not there")) };
        self.expect(dtype == ty.dtype, "an access of the memory's dtype")?;
        self.expect(!writes || writable, "a store to memory that the kernel writes")?;
        let l = self.linear(access.addr, access.lane)?;
        let mut offset = self.rest(&l)?;
        if let Some(dynamic) = &access.dynamic {
            let t = self.reg_type(dynamic.index)?;
            self.expect(t.lanes == 1 && !t.dtype.is_float(), "a scalar integer as dynamic index")?;
            let index = self.operand(dynamic.index, t)?;
            let (size, stride) = (self.expr(dynamic.size)?, self.expr(dynamic.stride)?);
            let clamp = clamp(self.prelude);
            offset = format!("{clamp}({}, {size}) * {stride} + {offset}", index.text);
        } else if let Some(inner) = self.summing.filter(|_| !writes && access.gate.is_empty())
            && let Some((before, within)) = self.parts(&l, inner)?
        {
            // What does not change in the loop is added to the pointer. In one sum clang makes additions of such parts
            // conjunctions where their bits are apart, and no addressing mode has those.
            return Ok(Address {
                pointer: format!("({pointer} + ({before}))"),
                offset: within,
                stride: if ty.lanes == 1 { 0 } else { l.coef },
            });
        }
        Ok(Address { pointer, offset, stride: if ty.lanes == 1 { 0 } else { l.coef } })
    }

    /// Emits a prefetch, of an address that may lie behind the memory: C has no pointers there, but numbers. A minimum that
    /// kept it inside took a fifth of a loop of 24 multiply-adds, since clang computes several of them as a vector.
    pub(super) fn prefetch(&mut self, mem: Memory, addr: IntId) -> Result<()> {
        let (decl, pointer) = match mem {
            Memory::Arg(i) => (self.code.args.get(i as usize), self.arg_name(i)),
            Memory::Local(i) => (self.code.locals.get(i as usize), self.local_name(i)),
            Memory::Table(_) => (None, String::new()),
        };
        let Some(decl) = decl else { return Err(self.malformed("a prefetch of memory that is not there")) };
        let at = self.expr(addr)?;
        self.prelude.helper("wg_prefetch".into(), |_, f| {
            format!(
                "WG_INLINE void {f}(const void *p, i64 at) {{ __builtin_prefetch((const void *)((__UINTPTR_TYPE__)p + (__UINTPTR_TYPE__)at)); }}\n"
            )
        });
        let size = decl.dtype.size();
        self.line(&format!("wg_prefetch({pointer}, ({at}) * {size});"));
        Ok(())
    }

    /// Emits a load into a register.
    pub(super) fn load(&mut self, reg: Reg, ty: Type, access: &Access, fill: Scalar) -> Result<()> {
        self.expect(fill.dtype() == ty.dtype, "a fill value of the register's dtype")?;
        let at = self.address(access, ty, false)?;
        let interval = self.interval(&access.gate, access.lane, ty.lanes)?;
        let (p, off) = (&at.pointer, &at.offset);
        let raw = self.ctype(ty);
        let one = Type { lanes: 1, ..ty };
        let fill_text = literal(self.prelude, fill);
        let text = match interval {
            Interval::Uniform(cond) if at.stride == 0 => {
                let element = self.truth(one, format!("{p}[{off}]"));
                let scalar = match cond {
                    Some(c) => format!("{c} ? {element} : {fill_text}"),
                    None => element,
                };
                if ty.lanes == 1 {
                    scalar
                } else if ty.dtype == DType::Bool {
                    format!("{}(-({scalar}))", self.prelude.splat(raw.mask()))
                } else {
                    format!("{}({scalar})", self.prelude.splat(raw))
                }
            }
            Interval::Uniform(cond) => {
                let whole = if let (1, Some(c)) = (at.stride, &cond) {
                    // Address arithmetic on integers: the place may not be there.
                    let (t, m) = (self.prelude.ty(raw), self.prelude.memory_ty(raw));
                    let place = self.where_holds(&at, raw, c, &fill_text);
                    let whole = self.truth(ty, format!("({t})*(const {m} *)({place})"));
                    self.define(reg, ty, Elem::I8, None, &whole);
                    return Ok(());
                } else if at.stride == 1 {
                    let (t, m) = (self.prelude.ty(raw), self.prelude.memory_ty(raw));
                    format!("({t})*(const {m} *)({p} + ({off}))")
                } else {
                    let f = gather(self.prelude, raw);
                    format!("{f}({p} + ({off}), {})", int_literal(at.stride))
                };
                let whole = self.truth(ty, whole);
                match cond {
                    Some(c) => {
                        let t = self.value_type(ty, Elem::I8);
                        let sign = if ty.dtype == DType::Bool { "-" } else { "" };
                        format!("{c} ? {whole} : {}({sign}{fill_text})", self.prelude.splat(t))
                    }
                    None => whole,
                }
            }
            Interval::Lanes { cond, lo, hi } => {
                let call = if at.stride == 1 {
                    let f = masked_load(self.prelude, raw);
                    match cond {
                        Some(c) => {
                            let place = self.where_holds(&at, raw, &c, &fill_text);
                            format!("{f}({place}, 0, {lo}, {hi}, {fill_text})")
                        }
                        None => format!("{f}({p}, {off}, {lo}, {hi}, {fill_text})"),
                    }
                } else {
                    let f = masked_gather(self.prelude, raw);
                    let hi = Interval::end(cond, &hi);
                    format!("{f}({p}, {off}, {}, {lo}, {hi}, {fill_text})", int_literal(at.stride))
                };
                self.truth(ty, call)
            }
        };
        self.define(reg, ty, Elem::I8, None, &text);
        Ok(())
    }

    /// The place of a contiguous load where a condition holds; elsewhere that of as many fill values.
    fn where_holds(&mut self, at: &Address, raw: CType, cond: &str, fill: &str) -> String {
        let (e, size) = (raw.elem.name(), raw.elem.bytes());
        let fills = self.prelude.fill(raw, fill);
        let (p, off) = (&at.pointer, &at.offset);
        format!("(const {e} *)({cond} ? (uptr){p} + (uptr)({off}) * {size} : (uptr){fills})")
    }

    /// Bytes from memory as truth values: any byte but 0 is true.
    fn truth(&mut self, ty: Type, text: String) -> String {
        if ty.dtype != DType::Bool {
            text
        } else if ty.lanes == 1 {
            format!("({text} != 0)")
        } else {
            let bytes = self.ctype(ty);
            let (b, m) = (self.prelude.ty(bytes), self.prelude.ty(bytes.mask()));
            format!("({m})({text} != ({b}){{}})")
        }
    }

    /// Emits a store.
    pub(super) fn store(&mut self, access: &Access, value: Reg) -> Result<()> {
        let ty = self.reg_type(value)?;
        let value = self.operand(value, ty)?;
        let at = self.address(access, ty, true)?;
        let interval = self.interval(&access.gate, access.lane, ty.lanes)?;
        let (p, off) = (&at.pointer, &at.offset);
        let raw = self.ctype(ty);
        self.expect(ty.lanes == 1 || at.stride != 0, "lanes stored to places of their own")?;
        let v = self.bytes(ty, &value);
        let (cond, call) = match interval {
            Interval::Uniform(cond) if ty.lanes == 1 => (cond, format!("{p}[{off}] = {v};")),
            Interval::Uniform(cond) if at.stride == 1 => match self.streams(access, raw) {
                Some(past) => (cond, format!("{}({p} + ({off}), {v}, {past});", streamed_store(self.prelude, raw))),
                None => {
                    let m = self.prelude.memory_ty(raw);
                    (cond, format!("*({m} *)({p} + ({off})) = {v};"))
                }
            },
            Interval::Uniform(cond) => {
                let f = scatter(self.prelude, raw);
                (cond, format!("{f}({p} + ({off}), {}, {v});", int_literal(at.stride)))
            }
            Interval::Lanes { cond, lo, hi } if at.stride == 1 => {
                (cond, format!("{}({p}, {off}, {lo}, {hi}, {v});", masked_store(self.prelude, raw)))
            }
            Interval::Lanes { cond, lo, hi } => {
                let f = masked_scatter(self.prelude, raw);
                (cond, format!("{f}({p}, {off}, {}, {lo}, {hi}, {v});", int_literal(at.stride)))
            }
        };
        match cond {
            Some(c) => self.line(&format!("if ({c}) {call}")),
            None => self.line(&call),
        }
        Ok(())
    }

    /// The variable that says whether vectors of a type are stored past the caches, where they may be.
    fn streams(&self, access: &Access, raw: CType) -> Option<String> {
        let Memory::Arg(n) = access.mem else { return None };
        let streamed = self.code.args.get(n as usize).is_some_and(|m| m.streamed);
        let fits = matches!(raw.bytes(), 16 | 32 | 64);
        (streamed && fits && is_aligned(&self.code.ints, access, raw.lanes as i64))
            .then(|| format!("past_{}", self.arg_name(n)))
    }

    /// A value as it lies in memory.
    fn bytes(&mut self, ty: Type, value: &Value) -> String {
        if ty.dtype == DType::Bool && ty.lanes > 1 {
            let bytes = Type { dtype: DType::U8, lanes: ty.lanes };
            self.cast_text(DType::Bool, bytes, value)
        } else {
            value.text.clone()
        }
    }
}
