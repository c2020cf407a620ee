//! The machine that indexed graphs and linear code are interpreted on: loops, integers, lanes of raw bits and
//! memories of bytes. It knows no ranges and no expressions: `emit` has put every operation where its operands are
//! known.

use super::InterpError;
use crate::dtype::{DType, Scalar};
use crate::op::{BinaryOp, ReduceOp, UnaryOp, apply_fma};

/// An integer that has no value; an error where it is used.
pub(super) const BAD: i64 = i64::MIN;

/// `ints[base] + lane * ints[step]`; slot 0 holds 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lin {
    pub(super) base: u32,
    pub(super) step: u32,
}

/// Integer arithmetic.
#[derive(Clone, Debug)]
pub(super) enum IntOp {
    Sum(Box<[(u32, i64)]>, i64),
    Product(Box<[u32]>),
    Div(u32, u32),
    Mod(u32, u32),
}

impl IntOp {
    /// The value, with those of the slots that `of` gives; [`BAD`] where there is none.
    pub(super) fn eval(&self, of: impl Fn(u32) -> i64) -> i64 {
        let value = |slot: u32| Some(of(slot)).filter(|&x| x != BAD);
        let out = match self {
            IntOp::Sum(terms, constant) => terms
                .iter()
                .try_fold(*constant, |acc, &(slot, c)| value(slot)?.checked_mul(c).and_then(|x| acc.checked_add(x))),
            IntOp::Product(factors) => factors.iter().try_fold(1i64, |acc, &f| acc.checked_mul(value(f)?)),
            IntOp::Div(num, den) => {
                value(*num).zip(value(*den).filter(|&d| d > 0)).map(|(num, den)| num.div_euclid(den))
            }
            IntOp::Mod(num, den) => {
                value(*num).zip(value(*den).filter(|&d| d > 0)).map(|(num, den)| num.rem_euclid(den))
            }
        };
        out.unwrap_or(BAD)
    }

    /// The slots that it reads.
    pub(super) fn reads(&self, mut f: impl FnMut(u32)) {
        match self {
            IntOp::Sum(terms, _) => terms.iter().for_each(|t| f(t.0)),
            IntOp::Product(factors) => factors.iter().for_each(|&x| f(x)),
            IntOp::Div(num, den) | IntOp::Mod(num, den) => [*num, *den].into_iter().for_each(f),
        }
    }
}

/// An index of one axis: checked against the size, then multiplied by the stride.
#[derive(Clone, Copy, Debug)]
pub(super) struct AxisIndex {
    pub(super) index: Lin,
    pub(super) size: i64,
    pub(super) stride: i64,
}

/// `clamp(reg, 0, size - 1) * stride`.
#[derive(Clone, Copy, Debug)]
pub(super) struct DynamicIndex {
    pub(super) reg: u32,
    pub(super) dtype: DType,
    pub(super) size: u32,
    pub(super) stride: u32,
}

/// A place in memory per lane.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) mem: u32,
    pub(super) addr: Lin,
    /// Checked axes, added to the address.
    pub(super) axes: Box<[AxisIndex]>,
    pub(super) gate: Box<[Lin]>,
    pub(super) dynamic: Option<DynamicIndex>,
    /// Number of the access in linear code, in the order of its statements.
    pub(super) site: u32,
}

/// A factor in shared memory: the variable that counts its rows, what depends on it, and the place of a row.
#[derive(Clone, Debug)]
pub(super) struct TileOps {
    pub(super) var: u32,
    pub(super) rows: i64,
    pub(super) ops: Box<[Op]>,
    pub(super) place: Place,
}

/// An instruction; registers are places in the machine's register file, one per lane.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Int {
        dst: u32,
        op: IntOp,
    },
    Loop {
        var: u32,
        size: u32,
        poison: Box<[u32]>,
        body: Box<[Op]>,
    },
    If {
        gate: Box<[u32]>,
        body: Box<[Op]>,
    },
    Const {
        dst: u32,
        bits: u64,
    },
    Index {
        dst: u32,
        lanes: u32,
        value: Lin,
        dtype: DType,
    },
    Load {
        dst: u32,
        lanes: u32,
        place: Box<Place>,
        fill: u64,
    },
    /// A matrix unit's product of factors in shared memory.
    Tiles {
        unit: u32,
        dst: u32,
        c: u32,
        tiles: Box<[TileOps; 2]>,
    },
    /// Rows of small matrices, by a warp.
    Rows {
        dst: u32,
        /// Of the result.
        lanes: u32,
        place: Box<Place>,
        /// Bytes of an element.
        size: u32,
        transposed: bool,
    },
    Store {
        src: u32,
        lanes: u32,
        place: Box<Place>,
    },
    Unary {
        op: UnaryOp,
        dtype: DType,
        dst: u32,
        x: u32,
        lanes: u32,
    },
    Binary {
        op: BinaryOp,
        dtype: DType,
        dst: u32,
        a: u32,
        b: u32,
        lanes: u32,
    },
    Fma {
        dtype: DType,
        dst: u32,
        a: u32,
        b: u32,
        c: u32,
        lanes: u32,
    },
    Where {
        dst: u32,
        cond: u32,
        a: u32,
        b: u32,
        lanes: u32,
    },
    Select {
        dst: u32,
        gate: Box<[Lin]>,
        a: u32,
        b: u32,
        lanes: u32,
    },
    Cast {
        from: DType,
        to: DType,
        dst: u32,
        x: u32,
        lanes: u32,
    },
    Bitcast {
        to: DType,
        dst: u32,
        x: u32,
        lanes: u32,
    },
    Copy {
        dst: u32,
        x: u32,
        lanes: u32,
    },
    Splat {
        dst: u32,
        x: u32,
        lanes: u32,
    },
    Pack {
        dst: u32,
        lanes: Box<[u32]>,
    },
    Fold {
        op: ReduceOp,
        dtype: DType,
        dst: u32,
        x: u32,
        lanes: u32,
    },
    /// Begins copies; one thread alone has them done at once.
    Async {
        body: Box<[Op]>,
    },
    /// Waits until so many of the copies begun are under way.
    Wait {
        pending: u32,
    },
    /// The threads of a block wait for each other; one thread alone does not.
    Barrier,
    /// A matrix unit's multiply-accumulate, which threads of a warp alone can do.
    Matrix {
        unit: u32,
        dst: u32,
        a: u32,
        b: u32,
        c: u32,
    },
    ListClear {
        list: u32,
    },
    ListPush {
        list: u32,
        x: u32,
    },
    ListTree {
        list: u32,
        dst: u32,
        op: ReduceOp,
        dtype: DType,
    },
}

/// Memory of one buffer or table.
#[derive(Clone, Debug)]
pub(super) struct Mem {
    pub(super) name: String,
    pub(super) dtype: DType,
    pub(super) bytes: Vec<u8>,
}

impl Mem {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    /// Fills memory that nobody has written: NaN in floats, 0xCD bytes in others.
    pub(super) fn poison(&mut self) {
        self.bytes.fill(if self.dtype.is_float() { 0xff } else { 0xcd });
    }

    pub(super) fn get(&self, at: i64) -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let size = self.dtype.size();
        let from = at.checked_mul(size)?;
        let bytes = self.bytes.get(from..from.checked_add(size)?)?;
        Some(match *bytes {
            [a] if self.dtype == DType::Bool => (a != 0) as u64,
            [a] => a as u64,
            [a, b] => u16::from_le_bytes([a, b]) as u64,
            [a, b, c, d] => u32::from_le_bytes([a, b, c, d]) as u64,
            [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            _ => 0,
        })
    }

    pub(super) fn set(&mut self, at: i64, bits: u64) -> Option<()> {
        let at = usize::try_from(at).ok()?;
        let size = self.dtype.size();
        let from = at.checked_mul(size)?;
        let to = self.bytes.get_mut(from..from.checked_add(size)?)?;
        to.copy_from_slice(&bits.to_le_bytes()[..size]);
        Some(())
    }
}

/// The state of a run.
#[derive(Debug, Default)]
pub(super) struct Machine {
    pub(super) name: String,
    pub(super) ints: Vec<i64>,
    pub(super) regs: Vec<u64>,
    pub(super) mems: Vec<Mem>,
    pub(super) lists: Vec<Vec<u64>>,
}

fn f32_of(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

/// Combines values as a balanced binary tree: neighbours pair up, level by level, and an odd last one moves up.
pub(super) fn tree(op: ReduceOp, dtype: DType, mut values: Vec<Scalar>) -> Scalar {
    while values.len() > 1 {
        values = values
            .chunks(2)
            .map(|pair| match *pair {
                [a, b] => op.combine().apply(a, b),
                [a, ..] => a,
                [] => op.identity(dtype),
            })
            .collect();
    }
    values.first().copied().unwrap_or_else(|| op.identity(dtype))
}

impl Machine {
    fn no_integer(&self) -> InterpError {
        InterpError::NoInteger { place: self.name.clone() }
    }

    fn int(&self, slot: u32) -> Result<i64, InterpError> {
        match self.ints[slot as usize] {
            BAD => Err(self.no_integer()),
            x => Ok(x),
        }
    }

    fn lin(&self, value: Lin, lane: u32) -> Result<i64, InterpError> {
        let base = self.int(value.base)?;
        if lane == 0 || value.step == 0 {
            return Ok(base);
        }
        let step = self.int(value.step)?;
        step.checked_mul(lane as i64).and_then(|x| x.checked_add(base)).ok_or_else(|| self.no_integer())
    }

    fn holds(&self, gate: &[Lin], lane: u32) -> Result<bool, InterpError> {
        for &g in gate {
            if self.lin(g, lane)? < 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The place's address in a lane, checked per axis where it has axes.
    fn address(&self, place: &Place, lane: u32) -> Result<i64, InterpError> {
        let mut at = self.lin(place.addr, lane)?;
        for (axis, a) in place.axes.iter().enumerate() {
            let index = self.lin(a.index, lane)?;
            if index < 0 || index >= a.size {
                return Err(InterpError::AxisOutOfBounds {
                    kernel: self.name.clone(),
                    memory: self.mems[place.mem as usize].name.clone(),
                    axis,
                    index,
                    size: a.size,
                });
            }
            at += index * a.stride;
        }
        if let Some(d) = place.dynamic {
            let index = Scalar::from_bits(d.dtype, self.regs[d.reg as usize]).to_i64();
            let (size, stride) = (self.int(d.size)?, self.int(d.stride)?);
            let index = index.min(size.saturating_sub(1)).max(0);
            at = index.checked_mul(stride).and_then(|x| x.checked_add(at)).ok_or_else(|| self.no_integer())?;
        }
        Ok(at)
    }

    fn out_of_bounds(&self, mem: u32, address: i64) -> InterpError {
        let m = &self.mems[mem as usize];
        InterpError::OutOfBounds { kernel: self.name.clone(), memory: m.name.clone(), address, len: m.len() }
    }

    /// Runs instructions in order.
    pub(super) fn run(&mut self, ops: &[Op]) -> Result<(), InterpError> {
        for op in ops {
            match op {
                Op::Int { dst, op } => self.ints[*dst as usize] = op.eval(|slot| self.ints[slot as usize]),
                Op::Loop { var, size, poison, body } => {
                    for i in 0..self.int(*size)? {
                        self.ints[*var as usize] = i;
                        for &m in poison {
                            self.mems[m as usize].poison();
                        }
                        self.run(body)?;
                    }
                }
                Op::Async { body } => self.run(body)?,
                Op::If { gate, body } => {
                    let mut holds = true;
                    for &g in gate {
                        holds = holds && self.int(g)? >= 0;
                    }
                    if holds {
                        self.run(body)?;
                    }
                }
                Op::Load { dst, lanes, place, fill } => self.load(*dst, *lanes, place, *fill)?,
                Op::Store { src, lanes, place } => self.store(*src, *lanes, place)?,
                Op::Index { dst, lanes, value, dtype } => {
                    for l in 0..*lanes {
                        self.regs[(dst + l) as usize] = Scalar::from_i64(*dtype, self.lin(*value, l)?).bits();
                    }
                }
                Op::Select { dst, gate, a, b, lanes } => {
                    for l in 0..*lanes {
                        let from = if self.holds(gate, l)? { a } else { b };
                        self.regs[(dst + l) as usize] = self.regs[(from + l) as usize];
                    }
                }
                other => self.lanewise(other),
            }
        }
        Ok(())
    }

    fn load(&mut self, dst: u32, lanes: u32, place: &Place, fill: u64) -> Result<(), InterpError> {
        for l in 0..lanes {
            let value = if self.holds(&place.gate, l)? {
                let at = self.address(place, l)?;
                self.mems[place.mem as usize].get(at).ok_or_else(|| self.out_of_bounds(place.mem, at))?
            } else {
                fill
            };
            self.regs[(dst + l) as usize] = value;
        }
        Ok(())
    }

    fn store(&mut self, src: u32, lanes: u32, place: &Place) -> Result<(), InterpError> {
        for l in 0..lanes {
            if self.holds(&place.gate, l)? {
                let at = self.address(place, l)?;
                let bits = self.regs[(src + l) as usize];
                if self.mems[place.mem as usize].set(at, bits).is_none() {
                    return Err(self.out_of_bounds(place.mem, at));
                }
            }
        }
        Ok(())
    }

    fn map1(&mut self, dst: u32, x: u32, lanes: u32, f: impl Fn(u64) -> u64) {
        for l in 0..lanes {
            self.regs[(dst + l) as usize] = f(self.regs[(x + l) as usize]);
        }
    }

    fn map2(&mut self, dst: u32, a: u32, b: u32, lanes: u32, f: impl Fn(u64, u64) -> u64) {
        for l in 0..lanes {
            self.regs[(dst + l) as usize] = f(self.regs[(a + l) as usize], self.regs[(b + l) as usize]);
        }
    }

    fn map2_f32(&mut self, dst: u32, a: u32, b: u32, lanes: u32, f: impl Fn(f32, f32) -> f32) {
        self.map2(dst, a, b, lanes, |x, y| f(f32_of(x), f32_of(y)).to_bits() as u64);
    }

    /// Instructions that cannot fail.
    pub(super) fn lanewise(&mut self, op: &Op) {
        match *op {
            Op::Const { dst, bits } => self.regs[dst as usize] = bits,
            Op::Binary { op, dtype: DType::F32, dst, a, b, lanes } if !op.is_comparison() => match op {
                BinaryOp::Add => self.map2_f32(dst, a, b, lanes, |x, y| x + y),
                BinaryOp::Sub => self.map2_f32(dst, a, b, lanes, |x, y| x - y),
                BinaryOp::Mul => self.map2_f32(dst, a, b, lanes, |x, y| x * y),
                BinaryOp::Div => self.map2_f32(dst, a, b, lanes, |x, y| x / y),
                _ => self.binary(op, DType::F32, dst, a, b, lanes),
            },
            Op::Binary { op, dtype, dst, a, b, lanes } => self.binary(op, dtype, dst, a, b, lanes),
            Op::Fma { dtype: DType::F32, dst, a, b, c, lanes } => {
                for l in 0..lanes {
                    let [x, y, z] = [a, b, c].map(|r| f32_of(self.regs[(r + l) as usize]));
                    self.regs[(dst + l) as usize] = x.mul_add(y, z).to_bits() as u64;
                }
            }
            Op::Fma { dtype, dst, a, b, c, lanes } => {
                for l in 0..lanes {
                    let [x, y, z] = [a, b, c].map(|r| Scalar::from_bits(dtype, self.regs[(r + l) as usize]));
                    self.regs[(dst + l) as usize] = apply_fma(x, y, z).bits();
                }
            }
            Op::Unary { op, dtype, dst, x, lanes } => {
                self.map1(dst, x, lanes, |v| op.apply(Scalar::from_bits(dtype, v)).bits());
            }
            Op::Where { dst, cond, a, b, lanes } => {
                for l in 0..lanes {
                    let from = if self.regs[(cond + l) as usize] != 0 { a } else { b };
                    self.regs[(dst + l) as usize] = self.regs[(from + l) as usize];
                }
            }
            Op::Cast { from, to, dst, x, lanes } => {
                self.map1(dst, x, lanes, |v| Scalar::from_bits(from, v).cast(to).bits());
            }
            Op::Bitcast { to, dst, x, lanes } => {
                self.map1(dst, x, lanes, |v| Scalar::from_bits(to, v).bits());
            }
            Op::Copy { dst, x, lanes } => self.map1(dst, x, lanes, |v| v),
            Op::Splat { dst, x, lanes } => {
                let v = self.regs[x as usize];
                self.regs[dst as usize..(dst + lanes) as usize].fill(v);
            }
            Op::Pack { dst, ref lanes } => {
                for (l, &x) in lanes.iter().enumerate() {
                    self.regs[dst as usize + l] = self.regs[x as usize];
                }
            }
            Op::Fold { op, dtype, dst, x, lanes } => {
                let mut v: Vec<Scalar> =
                    (0..lanes).map(|l| Scalar::from_bits(dtype, self.regs[(x + l) as usize])).collect();
                while v.len() > 1 {
                    let half = v.len() / 2;
                    let upper = v.split_off(half);
                    for (a, b) in v.iter_mut().zip(upper) {
                        *a = op.combine().apply(*a, b);
                    }
                }
                self.regs[dst as usize] = v.first().map_or(0, |s| s.bits());
            }
            Op::ListClear { list } => self.lists[list as usize].clear(),
            Op::ListPush { list, x } => self.lists[list as usize].push(self.regs[x as usize]),
            Op::ListTree { list, dst, op, dtype } => {
                let values = self.lists[list as usize].iter().map(|&v| Scalar::from_bits(dtype, v)).collect();
                self.regs[dst as usize] = tree(op, dtype, values).bits();
            }
            // Those that can fail are run by `run`; a single thread has nobody to wait for, and `linear` refuses
            // matrix units.
            Op::Barrier
            | Op::Wait { .. }
            | Op::Async { .. }
            | Op::Matrix { .. }
            | Op::Rows { .. }
            | Op::Tiles { .. }
            | Op::Int { .. }
            | Op::Loop { .. }
            | Op::If { .. }
            | Op::Index { .. }
            | Op::Load { .. }
            | Op::Store { .. }
            | Op::Select { .. } => {}
        }
    }

    fn binary(&mut self, op: BinaryOp, dtype: DType, dst: u32, a: u32, b: u32, lanes: u32) {
        self.map2(dst, a, b, lanes, |x, y| op.apply(Scalar::from_bits(dtype, x), Scalar::from_bits(dtype, y)).bits());
    }
}
