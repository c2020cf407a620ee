//! Instructions on registers.
//!
//! Vectors of truth values are held as comparison masks, 0 or -1 in the width of whatever they were compared in, and
//! change width only where something of another width needs them; scalar ones are bytes 0 or 1.

use super::access::Interval;
use super::kernel::{Kernel, Value};
use super::types::{CType, Elem, identifier, int_literal};
use crate::render::RenderError;
use crate::render::clike::{self, Operand, literal};
use winograph_ir::linear::{Instr, Reg, Type};
use winograph_ir::{BinaryOp, DType, IntId, RangeId, ReduceOp, Scalar, UnaryOp};

type Result<T> = std::result::Result<T, RenderError>;

impl Kernel<'_> {
    /// Emits the computation of a register.
    pub(super) fn instr(&mut self, reg: Reg, instr: &Instr) -> Result<()> {
        let ty = self.reg_type(reg)?;
        let d = ty.dtype;
        let mut mask = Elem::I8;
        let mut konst = None;
        let text = match instr {
            Instr::Const(s) => {
                self.expect(s.dtype() == d, "a constant of the register's dtype")?;
                konst = Some(*s);
                let text = if matches!(d, DType::F32 | DType::F64) && *s == Scalar::from_f64(d, -0.0) {
                    format!("{}()", self.prelude.minus_zero(Elem::of(d)))
                } else {
                    literal(self.prelude, *s)
                };
                self.splat_text(ty, &text)
            }
            Instr::Index { value, lane } => self.index(ty, *value, *lane)?,
            Instr::Load { access, fill } => return self.load(reg, ty, access, *fill),
            Instr::Matrix { .. } | Instr::Rows { .. } | Instr::Tiles { .. } => {
                let what = "a matrix unit".to_string();
                return Err(RenderError::Unsupported { kernel: self.code.name.clone(), what });
            }
            Instr::Unary { op, x } => {
                let x = self.operand(*x, ty)?;
                mask = x.mask;
                self.unary(*op, ty, &x)?
            }
            Instr::Binary { op, a, b } => {
                let from = Type { dtype: self.reg_type(*a)?.dtype, lanes: ty.lanes };
                let (a, mut b) = (self.operand(*a, from)?, self.operand(*b, from)?);
                self.expect(op.result(from.dtype) == d && op.accepts(from.dtype), "operands that the operation takes")?;
                mask = if from.dtype == DType::Bool { a.mask } else { Elem::of(from.dtype).signed() };
                b.text = self.mask_text(&b, mask);
                self.binary(*op, from, &a, &b)?
            }
            Instr::Fma { a, b, c } => {
                let (a, b, mut c) = (self.operand(*a, ty)?, self.operand(*b, ty)?, self.operand(*c, ty)?);
                if matches!(d, DType::F32 | DType::F64) {
                    let f = self.prelude.fma(self.ctype(ty));
                    format!("{f}({}, {}, {})", a.text, b.text, c.text)
                } else {
                    let mut b = b;
                    mask = a.mask;
                    b.text = self.mask_text(&b, mask);
                    c.text = self.mask_text(&c, mask);
                    let text = self.binary(BinaryOp::Mul, ty, &a, &b)?;
                    let product = Value { text: format!("({text})"), ..a };
                    self.binary(BinaryOp::Add, ty, &product, &c)?
                }
            }
            Instr::Where { cond, a, b } => {
                let c = self.operand(*cond, Type { dtype: DType::Bool, lanes: ty.lanes })?;
                let (a, mut b) = (self.operand(*a, ty)?, self.operand(*b, ty)?);
                if ty.lanes == 1 {
                    format!("{} ? {} : {}", c.text, a.text, b.text)
                } else {
                    mask = a.mask;
                    b.text = self.mask_text(&b, mask);
                    let t = self.value_type(ty, mask);
                    let m = self.mask_text(&c, t.elem.signed());
                    format!("{}({m}, {}, {})", self.prelude.select(t), a.text, b.text)
                }
            }
            Instr::Select { gate, lane, a, b } => {
                let (a, mut b) = (self.operand(*a, ty)?, self.operand(*b, ty)?);
                mask = a.mask;
                b.text = self.mask_text(&b, mask);
                let interval = self.interval(gate, *lane, ty.lanes)?;
                match interval {
                    Interval::Uniform(None) => a.text,
                    Interval::Uniform(Some(c)) => format!("{c} ? {} : {}", a.text, b.text),
                    Interval::Lanes { cond, lo, hi } => {
                        let t = self.value_type(ty, mask);
                        let m = self.interval_mask(t, &lo, &Interval::end(cond, &hi));
                        format!("{}({m}, {}, {})", self.prelude.select(t), a.text, b.text)
                    }
                }
            }
            Instr::Cast { x } => {
                let from = self.reg_type(*x)?;
                let x = self.operand(*x, Type { dtype: from.dtype, lanes: ty.lanes })?;
                if d == DType::Bool && ty.lanes > 1 {
                    mask = if from.dtype == DType::Bool { x.mask } else { Elem::of(from.dtype).signed() };
                }
                self.cast_text(from.dtype, ty, &x)
            }
            Instr::Bitcast { x } => {
                let from = self.reg_type(*x)?;
                let x = self.operand(*x, Type { dtype: from.dtype, lanes: ty.lanes })?;
                self.expect(from.dtype.size() == d.size(), "dtypes of one size")?;
                mask = if from.dtype == DType::Bool { x.mask } else { Elem::I8 };
                self.bitcast(from.dtype, ty, &x)
            }
            Instr::Splat { x } => {
                let x = self.operand(*x, Type { dtype: d, lanes: 1 })?;
                konst = x.konst;
                self.splat_text(ty, &x.text)
            }
            Instr::Pack { lanes } => {
                self.expect(lanes.len() == ty.lanes as usize, "as many scalars as lanes")?;
                let mut parts = Vec::with_capacity(lanes.len());
                for &r in lanes.iter() {
                    let x = self.operand(r, Type { dtype: d, lanes: 1 })?.text;
                    parts.push(if d == DType::Bool && ty.lanes > 1 { format!("-{x}") } else { x });
                }
                if ty.lanes == 1 {
                    parts.concat()
                } else {
                    let t = self.value_type(ty, mask);
                    format!("({}){{{}}}", self.prelude.ty(t), parts.join(", "))
                }
            }
            Instr::Shuffle { a, b, pattern } => {
                let from = self.reg_type(*a)?;
                self.expect(
                    from.dtype == d && pattern.len() == ty.lanes as usize,
                    "a shuffle of the register's dtype",
                )?;
                self.expect(pattern.iter().all(|&p| p < 2 * from.lanes), "a shuffle of lanes that are there")?;
                let (x, mut y) = (self.operand(*a, from)?, self.operand(*b, from)?);
                mask = x.mask;
                y.text = self.mask_text(&y, mask);
                self.shuffle(ty, from, &x, &y, pattern)
            }
            Instr::Fold { op, x } => {
                let from = self.reg_type(*x)?;
                self.expect(ty.lanes == 1 && from.dtype == d, "a scalar of the vector's dtype")?;
                let x = self.operand(*x, from)?;
                self.fold(*op, from, &x)?
            }
        };
        self.define(reg, ty, mask, konst, &text);
        Ok(())
    }

    fn splat_text(&mut self, ty: Type, scalar: &str) -> String {
        if ty.lanes == 1 {
            return scalar.to_string();
        }
        let t = self.value_type(ty, Elem::I8);
        let sign = if ty.dtype == DType::Bool { "-" } else { "" };
        format!("{}({sign}{scalar})", self.prelude.splat(t))
    }

    fn index(&mut self, ty: Type, value: IntId, lane: Option<RangeId>) -> Result<String> {
        let l = self.linear(value, lane)?;
        let rest = self.rest(&l)?;
        let scalar = Type { dtype: DType::I64, lanes: 1 };
        if ty.lanes == 1 || l.coef == 0 {
            let text = self.cast_text(DType::I64, Type { lanes: 1, ..ty }, &Value::plain(format!("({rest})"), scalar));
            return Ok(self.splat_text(ty, &text));
        }
        // Every lane's value lies within the bounds of the expression.
        let (lo, hi) = self.code.ints.bounds(value);
        let small = lo >= i32::MIN as i64 && hi <= i32::MAX as i64;
        let wide = Type { dtype: if small { DType::I32 } else { DType::I64 }, lanes: ty.lanes };
        let (t, u) = (self.ctype(wide), self.ctype(wide).with(self.ctype(wide).elem.unsigned()));
        let (splat, iota) = (self.prelude.splat(u), self.prelude.iota(u));
        let name = self.prelude.ty(t);
        let coef = int_literal(l.coef);
        let text = format!("(({name})({splat}({rest}) + {iota} * {splat}({coef})))");
        let text = self.cast_text(wide.dtype, ty, &Value::plain(text, wide));
        if ty.dtype == DType::Bool {
            let bytes = self.prelude.ty(CType::new(Elem::I8, ty.lanes));
            return Ok(format!("__builtin_convertvector({text}, {bytes})"));
        }
        Ok(text)
    }

    fn unary(&mut self, op: UnaryOp, ty: Type, x: &Value) -> Result<String> {
        self.expect(op.is_transcendental() || op.accepts(ty.dtype), "an operand that the operation takes")?;
        let t = self.value_type(ty, x.mask);
        let vector = match op {
            UnaryOp::Sqrt | UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Trunc | UnaryOp::Round => t.elem.is_float(),
            UnaryOp::Not | UnaryOp::Neg | UnaryOp::Abs => !matches!(ty.dtype, DType::F16 | DType::BF16),
            _ => false,
        };
        if ty.lanes == 1 || !vector {
            return clike::unary(self.prelude, op, ty.dtype, &x.text).map_err(|e| self.not_lowered(e));
        }
        let (e, name) = (t.elem, self.prelude.ty(t));
        let x = &x.text;
        Ok(match op {
            UnaryOp::Not => format!("({name})~{x}"),
            UnaryOp::Neg if e.is_float() => format!("-{x}"),
            UnaryOp::Neg => {
                let w = self.wrapping(t);
                format!("({name})-({w}){x}")
            }
            UnaryOp::Abs if e.is_float() => {
                let u = t.with(e.unsigned());
                let (un, splat) = (self.prelude.ty(u), self.prelude.splat(u));
                let all = if e == Elem::F32 { "0x7fffffffu" } else { "0x7fffffffffffffffu" };
                format!("({name})(({un}){x} & {splat}({all}))")
            }
            UnaryOp::Abs if e == Elem::U8 => x.clone(),
            UnaryOp::Abs => {
                let w = self.wrapping(t);
                let sel = self.prelude.select(t);
                format!("{sel}({x} < ({name}){{}}, ({name})-({w}){x}, {x})")
            }
            UnaryOp::Sqrt => format!("{}({x})", self.prelude.sqrt(t)),
            UnaryOp::Floor => format!("{}({x})", self.prelude.rounding("floor", t)),
            UnaryOp::Ceil => format!("{}({x})", self.prelude.rounding("ceil", t)),
            UnaryOp::Trunc => format!("{}({x})", self.prelude.rounding("trunc", t)),
            _ => format!("{}({x})", self.prelude.rounding("rint", t)),
        })
    }

    /// `op` on values of one type; masks have the width of `a`'s.
    pub(super) fn binary(&mut self, op: BinaryOp, ty: Type, a: &Value, b: &Value) -> Result<String> {
        let (x, y) = (&a.text, &b.text);
        let not_nan = |k: Option<Scalar>| k.is_some_and(|s| !s.is_nan());
        let half = matches!(ty.dtype, DType::F16 | DType::BF16);
        if ty.lanes == 1 || half || op == BinaryOp::Pow {
            let x = Operand { text: x, not_nan: not_nan(a.konst) };
            let y = Operand { text: y, not_nan: not_nan(b.konst) };
            return clike::binary(self.prelude, op, ty.dtype, x, y).map_err(|e| self.not_lowered(e));
        }
        if ty.dtype == DType::Bool {
            return Ok(self.binary_mask(op, ty, x, y, a.mask));
        }
        let t = self.ctype(ty);
        let (e, name) = (t.elem, self.prelude.ty(t));
        if op.is_comparison() {
            let sign = match op {
                BinaryOp::Lt => "<",
                BinaryOp::Le => "<=",
                BinaryOp::Eq => "==",
                _ => "!=",
            };
            return Ok(format!("({})({x} {sign} {y})", self.prelude.ty(t.mask())));
        }
        Ok(match op {
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div if e.is_float() => {
                let sign = match op {
                    BinaryOp::Add => "+",
                    BinaryOp::Sub => "-",
                    BinaryOp::Mul => "*",
                    _ => "/",
                };
                format!("{x} {sign} {y}")
            }
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul => {
                let w = self.wrapping(t);
                let sign = match op {
                    BinaryOp::Add => "+",
                    BinaryOp::Sub => "-",
                    _ => "*",
                };
                format!("({name})(({w}){x} {sign} ({w}){y})")
            }
            BinaryOp::Div | BinaryOp::Rem => {
                let scalar = clike::divide(self.prelude, op, e);
                let stem = if op == BinaryOp::Div { "div" } else { "rem" };
                let f = self.prelude.per_lane_slow(stem, t, &format!("{scalar}(a[l], b[l])"));
                format!("{f}({x}, {y})")
            }
            BinaryOp::Max | BinaryOp::Min => {
                let (sign, opposite) = if op == BinaryOp::Max { (">", "<=") } else { ("<", ">=") };
                // The first operand where it wins or is NaN. With a second operand that is no NaN, that is where it
                // does not lose.
                let cond = match (e.is_float(), not_nan(a.konst), not_nan(b.konst)) {
                    (true, false, true) => format!("~({x} {opposite} {y})"),
                    (true, false, false) => format!("({x} {sign} {y}) | ({x} != {x})"),
                    _ => format!("{x} {sign} {y}"),
                };
                format!("{}({cond}, {x}, {y})", self.prelude.select(t))
            }
            BinaryOp::And => format!("({name})({x} & {y})"),
            BinaryOp::Or => format!("({name})({x} | {y})"),
            BinaryOp::Xor => format!("({name})({x} ^ {y})"),
            _ => {
                let amount = format!("({y} & {}({}))", self.prelude.splat(t), 8 * e.bytes() - 1);
                if op == BinaryOp::Shr {
                    format!("({name})({x} >> {amount})")
                } else {
                    let w = self.wrapping(t);
                    format!("({name})(({w}){x} << ({w}){amount})")
                }
            }
        })
    }

    fn binary_mask(&mut self, op: BinaryOp, ty: Type, x: &str, y: &str, mask: Elem) -> String {
        let t = self.value_type(ty, mask);
        let name = self.prelude.ty(t);
        let text = match op {
            BinaryOp::Add | BinaryOp::Or | BinaryOp::Max => format!("{x} | {y}"),
            BinaryOp::Lt => format!("~{x} & {y}"),
            BinaryOp::Le => format!("~{x} | {y}"),
            BinaryOp::Xor | BinaryOp::Ne => format!("{x} ^ {y}"),
            BinaryOp::Eq => format!("~({x} ^ {y})"),
            _ => format!("{x} & {y}"),
        };
        format!("({name})({text})")
    }

    /// `x` of dtype `from` converted to `ty`.
    pub(super) fn cast_text(&mut self, from: DType, ty: Type, x: &Value) -> String {
        let (d, lanes) = (ty.dtype, ty.lanes);
        if lanes == 1 {
            return clike::cast(self.prelude, from, d, &x.text);
        }
        if from == d {
            return x.text.clone();
        }
        let source = Type { dtype: from, lanes };
        let is_half = |d: DType| matches!(d, DType::F16 | DType::BF16);
        if is_half(from) && d != DType::Bool {
            let f = self.prelude.half_to_f32(from, lanes);
            let single = Type { dtype: DType::F32, lanes };
            return self.cast_text(DType::F32, ty, &Value::plain(format!("{f}({})", x.text), single));
        }
        if is_half(d) {
            let single = Type { dtype: DType::F32, lanes };
            let text = self.cast_text(from, single, x);
            return format!("{}({text})", self.prelude.f32_to_half(d, lanes));
        }
        let (s, t) = (self.ctype(source), self.ctype(ty));
        let name = self.prelude.ty(t);
        if d == DType::Bool {
            let (sn, m) = (self.prelude.ty(s), self.prelude.ty(s.mask()));
            return if is_half(from) {
                let splat = self.prelude.splat(s);
                format!("({m})(({} & {splat}(0x7fff)) != ({sn}){{}})", x.text)
            } else {
                format!("({m})({} != ({sn}){{}})", x.text)
            };
        }
        if from.is_float() && d.is_int() {
            return format!("{}({})", self.prelude.float_to_int(s, t.elem), x.text);
        }
        if from == DType::Bool {
            let m = self.mask_text(x, t.elem.signed());
            return if d.is_int() { format!("({name})-{m}") } else { format!("__builtin_convertvector(-{m}, {name})") };
        }
        format!("__builtin_convertvector({}, {name})", x.text)
    }

    fn bitcast(&mut self, from: DType, ty: Type, x: &Value) -> String {
        if ty.lanes == 1 {
            return clike::bitcast(self.prelude, from, ty.dtype, &x.text);
        }
        if from == ty.dtype {
            return x.text.clone();
        }
        // Truth values are bytes 0 and 1 to all others, and any other byte than 0 is true.
        if from == DType::Bool || ty.dtype == DType::Bool {
            return self.cast_text(from, ty, x);
        }
        let t = self.ctype(ty);
        format!("({}){}", self.prelude.ty(t), x.text)
    }

    /// Lanes of two vectors; scalars are vectors of one lane, and scalar truth values are no masks.
    fn shuffle(&mut self, ty: Type, from: Type, a: &Value, b: &Value, pattern: &[u32]) -> String {
        let bools = ty.dtype == DType::Bool;
        if from.lanes > 1 && ty.lanes > 1 {
            let f = self.prelude.shuffle(self.value_type(from, a.mask), pattern);
            return format!("{f}({}, {})", a.text, b.text);
        }
        let lane = |p: u32| {
            let (x, at) = if p < from.lanes { (&a.text, p) } else { (&b.text, p - from.lanes) };
            match (from.lanes == 1, ty.lanes == 1) {
                (true, false) if bools => format!("-{x}"),
                (true, _) => x.clone(),
                (false, true) if bools => format!("({x}[{at}] != 0)"),
                (false, _) => format!("{x}[{at}]"),
            }
        };
        let lanes: Vec<String> = pattern.iter().map(|&p| lane(p)).collect();
        if ty.lanes == 1 {
            return lanes.concat();
        }
        let t = self.value_type(ty, a.mask);
        format!("({}){{{}}}", self.prelude.ty(t), lanes.join(", "))
    }

    fn fold(&mut self, op: ReduceOp, from: Type, x: &Value) -> Result<String> {
        if from.dtype == DType::Bool && from.lanes > 1 {
            // Bytes 0 and 1: sum and maximum are `or`, product and minimum are `and`.
            let bytes = Type { dtype: DType::U8, lanes: from.lanes };
            let op = if matches!(op, ReduceOp::Add | ReduceOp::Max) { ReduceOp::Max } else { ReduceOp::Min };
            let text = self.cast_text(DType::Bool, bytes, x);
            return self.fold(op, bytes, &Value::plain(text, bytes));
        }
        if from.lanes == 1 {
            return Ok(x.text.clone());
        }
        let t = self.ctype(from);
        let name = format!("wg_fold_{}_{}", op.name(), identifier(&t.name()));
        let half = Type { lanes: from.lanes / 2, ..from };
        let side = |i: usize| Value::plain(format!("s.h[{i}]"), half);
        let combined = self.binary(op.combine(), half, &side(0), &side(1))?;
        let inner = self.fold(op, half, &Value::plain("y".into(), half))?;
        let (tn, hn, split) = (self.prelude.ty(t), self.prelude.ty(t.half()), self.prelude.split(t));
        let f = self.prelude.helper(name, |_, n| {
            format!(
                "WG_INLINE {} {n}({tn} x) {{\n  {split} s = {{x}};\n  {hn} y = {combined};\n  return {inner};\n}}\n",
                t.elem.name()
            )
        });
        Ok(format!("{f}({})", x.text))
    }

    /// The unsigned type in which arithmetic on vectors of an integer type wraps.
    fn wrapping(&mut self, t: CType) -> String {
        self.prelude.ty(t.with(t.elem.unsigned()))
    }
}
