//! Emits machine code in nested frames: each integer expression is computed in the innermost loop whose range it
//! depends on, once per iteration.

use super::InterpError;
use super::machine::{BAD, IntOp, Lin, Machine, Op};
use crate::int::{IntId, IntNode, Ints, RangeId};
use rustc_hash::FxHashMap;

/// One level of nesting: the instructions of a loop's body, of a conditional's, or of the whole.
#[derive(Debug, Default)]
struct Frame {
    range: Option<(RangeId, u32)>,
    ints: FxHashMap<IntId, u32>,
    ops: Vec<Op>,
}

/// The instructions under construction with the state that they will run on.
#[derive(Debug)]
pub(super) struct Emitter {
    pub(super) ints: Ints,
    params: Vec<i64>,
    frames: Vec<Frame>,
    pub(super) machine: Machine,
    constants: FxHashMap<i64, u32>,
}

impl Emitter {
    pub(super) fn new(name: &str, ints: &Ints, params: &[i64]) -> Emitter {
        // Slot 0 holds the constant 0: the step of everything that no lane moves.
        let machine = Machine { name: name.to_string(), ints: vec![0], ..Machine::default() };
        let constants = FxHashMap::from_iter([(0, 0)]);
        Emitter { ints: ints.clone(), params: params.to_vec(), frames: vec![Frame::default()], machine, constants }
    }

    pub(super) fn name(&self) -> &str {
        &self.machine.name
    }

    /// Adds an instruction to the innermost frame.
    pub(super) fn push(&mut self, op: Op) {
        if let Some(f) = self.frames.last_mut() {
            f.ops.push(op);
        }
    }

    /// Adds an instruction to a frame further out, after all that it holds so far.
    pub(super) fn push_at(&mut self, depth: usize, op: Op) {
        if let Some(f) = self.frames.get_mut(depth) {
            f.ops.push(op);
        }
    }

    /// Opens a frame for a loop's body; gives the slot of its variable.
    pub(super) fn open_loop(&mut self, range: RangeId) -> u32 {
        let var = self.int_slot(BAD);
        self.frames.push(Frame { range: Some((range, var)), ..Frame::default() });
        var
    }

    /// Opens a frame for a conditional's body.
    pub(super) fn open(&mut self) {
        self.frames.push(Frame::default());
    }

    /// Closes the innermost frame and gives its instructions.
    pub(super) fn close(&mut self) -> Box<[Op]> {
        self.frames.pop().map(|f| f.ops.into()).unwrap_or_default()
    }

    /// Whether an enclosing loop binds the range.
    pub(super) fn binds(&self, range: RangeId) -> bool {
        self.frame_of(range).is_some()
    }

    fn frame_of(&self, range: RangeId) -> Option<usize> {
        self.frames.iter().rposition(|f| f.range.is_some_and(|(r, _)| r == range))
    }

    /// The innermost frame whose range is among the given ones, or the outermost one.
    pub(super) fn depth_of(&self, ranges: &[RangeId]) -> Result<usize, InterpError> {
        let mut depth = 0;
        for &r in ranges {
            match self.frame_of(r) {
                Some(d) => depth = depth.max(d),
                None => return Err(InterpError::UnboundRange { place: self.name().to_string(), range: r.0 }),
            }
        }
        Ok(depth)
    }

    fn int_slot(&mut self, value: i64) -> u32 {
        self.machine.ints.push(value);
        self.machine.ints.len() as u32 - 1
    }

    pub(super) fn constant(&mut self, c: i64) -> u32 {
        if let Some(&slot) = self.constants.get(&c) {
            return slot;
        }
        let slot = self.int_slot(c);
        self.constants.insert(c, slot);
        slot
    }

    /// The slot that holds an expression's value.
    pub(super) fn int(&mut self, e: IntId) -> Result<u32, InterpError> {
        self.check(e)?;
        let depth = self.depth_of(self.ints.free_ranges(e))?;
        match self.ints.node(e) {
            IntNode::Const(c) => {
                let c = *c;
                return Ok(self.constant(c));
            }
            IntNode::Param(p) => {
                let value = self.params.get(p.0 as usize).copied().unwrap_or(BAD);
                return Ok(self.constant(value));
            }
            IntNode::Range(_) => {
                return Ok(self.frames[depth].range.map_or(0, |(_, var)| var));
            }
            _ => {}
        }
        if let Some(&slot) = self.frames[depth].ints.get(&e) {
            return Ok(slot);
        }
        let op = match self.ints.node(e).clone() {
            IntNode::Sum { terms, constant } => {
                let terms: Result<Box<[_]>, InterpError> = terms.iter().map(|&(t, c)| Ok((self.int(t)?, c))).collect();
                IntOp::Sum(terms?, constant)
            }
            IntNode::Product(factors) => {
                let factors: Result<Box<[_]>, InterpError> = factors.iter().map(|&f| self.int(f)).collect();
                IntOp::Product(factors?)
            }
            IntNode::Div { num, den } => IntOp::Div(self.int(num)?, self.int(den)?),
            IntNode::Mod { num, den } => IntOp::Mod(self.int(num)?, self.int(den)?),
            IntNode::Const(_) | IntNode::Range(_) | IntNode::Param(_) => return Ok(0),
        };
        let dst = self.int_slot(BAD);
        self.push_at(depth, Op::Int { dst, op });
        self.frames[depth].ints.insert(e, dst);
        Ok(dst)
    }

    fn check(&self, e: IntId) -> Result<(), InterpError> {
        if self.ints.contains(e) {
            return Ok(());
        }
        Err(super::malformed(self.name(), format!("{e:?} is not in the arena")))
    }

    /// The value of an expression that depends on parameters alone.
    pub(super) fn known(&self, e: IntId) -> Result<i64, InterpError> {
        self.check(e)?;
        if let Some(r) = self.ints.free_ranges(e).first() {
            return Err(InterpError::UnboundRange { place: self.name().to_string(), range: r.0 });
        }
        self.ints
            .eval(e, &|_| 0, &|p| self.params.get(p.0 as usize).copied().unwrap_or(0))
            .ok_or_else(|| InterpError::NoInteger { place: self.name().to_string() })
    }

    /// An expression as a function of a lane, in which it must be linear.
    pub(super) fn lin(&mut self, e: IntId, lane: Option<RangeId>) -> Result<Lin, InterpError> {
        self.check(e)?;
        let Some(lane) = lane.filter(|&l| self.ints.depends_on(e, l)) else {
            return Ok(Lin { base: self.int(e)?, step: 0 });
        };
        let Some((step, base)) = linear_in(&mut self.ints, e, lane) else {
            return Err(super::malformed(self.name(), format!("an expression is not linear in its lane {}", lane.0)));
        };
        Ok(Lin { base: self.int(base)?, step: self.int(step)? })
    }

    /// Space for `lanes` registers.
    pub(super) fn regs(&mut self, lanes: u32) -> u32 {
        let at = self.machine.regs.len() as u32;
        self.machine.regs.resize(self.machine.regs.len() + lanes as usize, 0);
        at
    }
}

/// Writes an expression as `step * lane + base`, neither of which depends on the lane: gives `(step, base)`.
pub(crate) fn linear_in(ints: &mut Ints, e: IntId, lane: RangeId) -> Option<(IntId, IntId)> {
    if let Some((step, base)) = ints.split_linear(e, lane) {
        return Some((ints.constant(step), base));
    }
    // A step may be a parameter, which makes the term a product.
    let [zero, one] = [0, 1].map(|c| ints.constant(c));
    let base = ints.substitute(e, &|r| (r == lane).then_some(zero));
    let next = ints.substitute(e, &|r| (r == lane).then_some(one));
    let step = ints.sub(next, base);
    let l = ints.range(lane);
    let scaled = ints.mul(l, step);
    let rebuilt = ints.add(base, scaled);
    (rebuilt == e).then_some((step, base))
}
