//! Instructions on registers, lane by lane.

use super::kernel::{Kernel, Value};
use crate::render::RenderError;
use crate::render::clike::{self, Operand, literal};
use winograph_ir::linear::{Instr, Reg, Tile, Type};
use winograph_ir::{BinaryOp, DType, IntId, RangeId, ReduceOp};

type Result<T> = std::result::Result<T, RenderError>;

impl Kernel<'_> {
    /// Emits the computation of a register.
    pub(super) fn instr(&mut self, reg: Reg, instr: &Instr) -> Result<()> {
        let ty = self.reg_type(reg)?;
        let (d, lanes) = (ty.dtype, ty.lanes as usize);
        let values: Vec<String> = match instr {
            Instr::Const(s) => {
                self.expect(s.dtype() == d, "a constant of the register's dtype")?;
                let text = literal(&*self.lang, *s);
                // A constant that stands for itself must have the type that arithmetic on it is done in.
                let text = if d == DType::I64 { format!("((i64){text})") } else { text };
                self.alias(reg, ty, vec![text; lanes], Some(*s));
                return Ok(());
            }
            Instr::Index { value, lane } => self.index(ty, *value, *lane)?,
            Instr::Load { access, fill } => return self.load(reg, ty, access, *fill),
            Instr::Rows { access, transposed } => return self.rows(reg, ty, access, *transposed),
            Instr::Tiles { unit, tiles, c } => return self.tiles(reg, ty, *unit, tiles, *c),
            Instr::Matrix { unit, a, b, c } => return self.matrix(reg, ty, *unit, [*a, *b, *c]),
            Instr::Unary { op, x } => {
                let x = self.operand(*x, ty)?;
                self.expect(op.is_transcendental() || op.accepts(d), "an operand that the operation takes")?;
                let apply = |k: &mut Self, l| clike::unary(k.lang, *op, d, x.lane(l).text);
                (0..lanes).map(|l| apply(self, l).map_err(|e| self.not_lowered(e))).collect::<Result<_>>()?
            }
            Instr::Binary { op, a, b } => {
                let from = Type { dtype: self.reg_type(*a)?.dtype, lanes: ty.lanes };
                let (a, b) = (self.operand(*a, from)?, self.operand(*b, from)?);
                self.expect(op.result(from.dtype) == d && op.accepts(from.dtype), "operands that the operation takes")?;
                self.binary(*op, from.dtype, lanes, &a, &b)?
            }
            Instr::Fma { a, b, c } => {
                let (a, b, c) = (self.operand(*a, ty)?, self.operand(*b, ty)?, self.operand(*c, ty)?);
                if matches!(d, DType::F32 | DType::F64) {
                    let f = self.lang.math("fma", clike::Elem::of(d));
                    (0..lanes).map(|l| format!("{f}({}, {}, {})", a.lanes[l], b.lanes[l], c.lanes[l])).collect()
                } else {
                    let product = self.binary(BinaryOp::Mul, d, lanes, &a, &b)?;
                    let product = Value { lanes: product.into_iter().map(|p| format!("({p})")).collect(), ..a };
                    self.binary(BinaryOp::Add, d, lanes, &product, &c)?
                }
            }
            Instr::Where { cond, a, b } => {
                let c = self.operand(*cond, Type { dtype: DType::Bool, lanes: ty.lanes })?;
                let (a, b) = (self.operand(*a, ty)?, self.operand(*b, ty)?);
                (0..lanes).map(|l| format!("{} ? {} : {}", c.lanes[l], a.lanes[l], b.lanes[l])).collect()
            }
            Instr::Select { gate, lane, a, b } => {
                let (a, b) = (self.operand(*a, ty)?, self.operand(*b, ty)?);
                let gate = self.gate(gate, *lane, ty.lanes)?;
                let choose = |l: usize| match gate.lane(l) {
                    Some(c) => format!("{c} ? {} : {}", a.lanes[l], b.lanes[l]),
                    None => a.lanes[l].clone(),
                };
                (0..lanes).map(choose).collect()
            }
            Instr::Cast { x } => {
                let from = self.reg_type(*x)?.dtype;
                let x = self.operand(*x, Type { dtype: from, lanes: ty.lanes })?;
                (0..lanes).map(|l| clike::cast(self.lang, from, d, &x.lanes[l])).collect()
            }
            Instr::Bitcast { x } => {
                let from = self.reg_type(*x)?.dtype;
                let x = self.operand(*x, Type { dtype: from, lanes: ty.lanes })?;
                self.expect(from.size() == d.size(), "dtypes of one size")?;
                (0..lanes).map(|l| clike::bitcast(self.lang, from, d, &x.lanes[l])).collect()
            }
            Instr::Splat { x } => {
                let one = self.operand(*x, Type { dtype: d, lanes: 1 })?;
                let all = vec![one.lanes.concat(); lanes];
                if !self.is_variable(*x) {
                    self.alias(reg, ty, all, one.konst);
                    return Ok(());
                }
                all
            }
            Instr::Pack { lanes: parts } => {
                self.expect(parts.len() == lanes, "as many scalars as lanes")?;
                let mut all = Vec::with_capacity(lanes);
                for &r in parts.iter() {
                    all.push(self.operand(r, Type { dtype: d, lanes: 1 })?.lanes.concat());
                }
                if !parts.iter().any(|&r| self.is_variable(r)) {
                    self.alias(reg, ty, all, None);
                    return Ok(());
                }
                all
            }
            Instr::Shuffle { a, b, pattern } => {
                let from = self.reg_type(*a)?;
                self.expect(from.dtype == d && pattern.len() == lanes, "a shuffle's lanes of the register's dtype")?;
                let (x, y) = (self.operand(*a, from)?, self.operand(*b, from)?);
                let mut all = Vec::with_capacity(lanes);
                for &p in pattern.iter() {
                    let lane = x.lanes.iter().chain(&y.lanes).nth(p as usize).cloned();
                    all.push(lane.ok_or_else(|| self.malformed("a shuffle of lanes that are not there"))?);
                }
                if !self.is_variable(*a) && !self.is_variable(*b) {
                    self.alias(reg, ty, all, None);
                    return Ok(());
                }
                all
            }
            Instr::Fold { op, x } => {
                let from = self.reg_type(*x)?;
                self.expect(ty.lanes == 1 && from.dtype == d, "a scalar of the vector's dtype")?;
                let x = self.operand(*x, from)?;
                vec![self.fold(*op, d, x.lanes)?]
            }
        };
        self.define(reg, ty, &values);
        Ok(())
    }

    fn binary(&mut self, op: BinaryOp, dtype: DType, lanes: usize, a: &Value, b: &Value) -> Result<Vec<String>> {
        let apply = |k: &mut Self, l| clike::binary(k.lang, op, dtype, a.lane(l), b.lane(l));
        (0..lanes).map(|l| apply(self, l).map_err(|e| self.not_lowered(e))).collect()
    }

    fn index(&mut self, ty: Type, value: IntId, lane: Option<RangeId>) -> Result<Vec<String>> {
        let linear = self.linear(value, lane)?;
        let mut out = Vec::with_capacity(ty.lanes as usize);
        for l in 0..ty.lanes {
            let text = format!("({})", self.at_lane(&linear, l)?);
            // Of 32 bits or 64, the value is the same.
            out.push(match ty.dtype {
                DType::I64 => format!("(i64){text}"),
                to => clike::cast(self.lang, DType::I64, to, &text),
            });
        }
        Ok(out)
    }

    /// Lanes combined, the upper half onto the lower half until one is left.
    fn fold(&mut self, op: ReduceOp, dtype: DType, mut x: Vec<String>) -> Result<String> {
        while x.len() > 1 {
            let upper = x.split_off(x.len() / 2);
            let mut values = Vec::with_capacity(upper.len());
            for (a, b) in x.iter().zip(&upper) {
                let (a, b) = (Operand { text: a, not_nan: false }, Operand { text: b, not_nan: false });
                let text = clike::binary(self.lang, op.combine(), dtype, a, b);
                values.push(text.map_err(|e| self.not_lowered(e))?);
            }
            let n = self.fresh();
            x = (0..values.len()).map(|l| format!("f{n}_{l}")).collect();
            self.declaration("const ", Type { dtype, lanes: 1 }, &x, &values);
        }
        Ok(x.concat())
    }

    /// A matrix unit's multiply-accumulate of factors in shared memory.
    fn tiles(&mut self, reg: Reg, ty: Type, unit: u32, tiles: &[Tile; 2], c: Reg) -> Result<()> {
        let Some(u) = self.code.units.get(unit as usize) else {
            return Err(self.malformed(&format!("there is no matrix unit {unit}")));
        };
        self.expect(self.threads.is_multiple_of(u.c.threads().max(1)), "whole groups of threads around a matrix unit")?;
        self.expect(ty == Type { dtype: u.c.dtype, lanes: u.c.elements() }, "a result of the unit's type")?;
        let addend = self.operand(c, ty)?.lanes;
        let mut factors = Vec::with_capacity(2);
        for (t, f) in tiles.iter().zip([&u.a, &u.b]) {
            factors.push(self.tile(t, f.dtype)?);
        }
        let Some(f) = self.lang.tiles(u) else {
            return Err(self.unsupported(&format!("the matrix unit {} with these fragments", u.name)));
        };
        let names = self.declare(reg, ty, false, None);
        self.declaration("", ty, &names, &addend);
        self.line(&format!("{f}({}, {});", names.join(", "), factors.join(", ")));
        Ok(())
    }

    /// A matrix unit's multiply-accumulate.
    fn matrix(&mut self, reg: Reg, ty: Type, unit: u32, operands: [Reg; 3]) -> Result<()> {
        let Some(u) = self.code.units.get(unit as usize) else {
            return Err(self.malformed(&format!("there is no matrix unit {unit}")));
        };
        self.expect(self.threads.is_multiple_of(32), "whole warps around a matrix unit")?;
        let mut all = Vec::new();
        for (r, f) in operands.into_iter().zip([&u.a, &u.b, &u.c]) {
            all.push(self.operand(r, Type { dtype: f.dtype, lanes: f.elements() })?.lanes.join(", "));
        }
        self.expect(ty == Type { dtype: u.c.dtype, lanes: u.c.elements() }, "a result of the unit's type")?;
        let Some(f) = self.lang.matrix(u) else {
            return Err(self.unsupported(&format!("the matrix unit {} with these fragments", u.name)));
        };
        let names = self.declare(reg, ty, false, None);
        let t = self.type_name(ty.dtype);
        self.line(&format!("{t} {};", names.join(", ")));
        self.line(&format!("{f}({}, {});", names.join(", "), all.join(", ")));
        Ok(())
    }
}
