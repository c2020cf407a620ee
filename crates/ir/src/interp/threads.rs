//! The integers of a block's threads: one value for all where they agree by construction, else one for each.

use super::InterpError;
use super::machine::{BAD, IntOp, Lin, Op, Place};

/// Values of the integer slots.
#[derive(Debug)]
pub(super) struct Threads {
    name: String,
    pub(super) count: usize,
    /// First value of each slot, and the distance from one thread's to the next one's: 0 or 1.
    at: Vec<(u32, u32)>,
    values: Vec<i64>,
}

impl Threads {
    /// Slots of `count` threads with the given first values. Those of `vars` differ from thread to thread, and so does
    /// what `ops` compute from them.
    pub(super) fn new(name: &str, first: &[i64], count: usize, vars: &[u32], ops: &[&[Op]]) -> Option<Threads> {
        let mut own = vec![false; first.len()];
        for &v in vars {
            own[v as usize] = true;
        }
        for ops in ops {
            mark(ops, &mut own);
        }
        let mut at = Vec::with_capacity(first.len());
        let mut values = Vec::new();
        for (&own, &value) in own.iter().zip(first) {
            at.push((u32::try_from(values.len()).ok()?, own as u32));
            values.resize(values.len() + if own { count } else { 1 }, value);
        }
        Some(Threads { name: name.to_string(), count, at, values })
    }

    /// A slot's value in a thread.
    pub(super) fn get(&self, slot: u32, thread: u32) -> i64 {
        let (at, step) = self.at[slot as usize];
        self.values[(at + step * thread) as usize]
    }

    /// Whether all threads have the same value in a slot.
    pub(super) fn is_uniform(&self, slot: u32) -> bool {
        self.at[slot as usize].1 == 0
    }

    /// Gives all threads a value.
    pub(super) fn set(&mut self, slot: u32, value: i64) {
        let (at, step) = self.at[slot as usize];
        let len = if step == 0 { 1 } else { self.count };
        self.values[at as usize..][..len].fill(value);
    }

    /// Gives each thread a value.
    pub(super) fn set_each(&mut self, slot: u32, value: impl Fn(usize) -> i64) {
        let (at, step) = self.at[slot as usize];
        let len = if step == 0 { 1 } else { self.count };
        for (t, v) in self.values[at as usize..][..len].iter_mut().enumerate() {
            *v = value(t);
        }
    }

    /// Numbers the threads: the variables of the thread loops, outermost first, with their sizes.
    pub(super) fn number(&mut self, vars: &[u32], sizes: &[i64]) {
        let mut inner = 1;
        for (&v, &size) in vars.iter().zip(sizes).rev() {
            self.set_each(v, |t| t as i64 / inner % size.max(1));
            inner *= size.max(1);
        }
    }

    /// Computes a slot in all threads.
    pub(super) fn compute(&mut self, dst: u32, op: &IntOp) {
        let (at, step) = self.at[dst as usize];
        let len = if step == 0 { 1 } else { self.count };
        for t in 0..len as u32 {
            let value = op.eval(|slot| self.get(slot, t));
            self.values[(at + t) as usize] = value;
        }
    }

    pub(super) fn no_integer(&self) -> InterpError {
        InterpError::NoInteger { place: self.name.clone() }
    }

    /// A slot's value in a thread, which has to have one.
    pub(super) fn int(&self, slot: u32, thread: u32) -> Result<i64, InterpError> {
        match self.get(slot, thread) {
            BAD => Err(self.no_integer()),
            x => Ok(x),
        }
    }

    pub(super) fn lin(&self, value: Lin, thread: u32, lane: u32) -> Result<i64, InterpError> {
        let base = self.int(value.base, thread)?;
        if lane == 0 || value.step == 0 {
            return Ok(base);
        }
        let step = self.int(value.step, thread)?;
        step.checked_mul(lane as i64).and_then(|x| x.checked_add(base)).ok_or_else(|| self.no_integer())
    }

    pub(super) fn holds(&self, gate: &[Lin], thread: u32, lane: u32) -> Result<bool, InterpError> {
        for &g in gate {
            if self.lin(g, thread, lane)? < 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The threads among `active` that touch a place in a lane, with their addresses but for a dynamic index.
    pub(super) fn gather(
        &self,
        place: &Place,
        active: &[u32],
        lane: u32,
        out: &mut Vec<(u32, i64)>,
    ) -> Result<(), InterpError> {
        out.clear();
        for &t in active {
            if self.holds(&place.gate, t, lane)? {
                out.push((t, self.lin(place.addr, t, lane)?));
            }
        }
        Ok(())
    }
}

/// Marks the slots that differ from thread to thread, given those that do already.
fn mark(ops: &[Op], own: &mut [bool]) {
    for op in ops {
        match op {
            Op::Int { dst, op } => {
                let mut any = false;
                op.reads(|slot| any |= own[slot as usize]);
                own[*dst as usize] |= any;
            }
            Op::Loop { body, .. } | Op::If { body, .. } | Op::Async { body } => mark(body, own),
            Op::Tiles { tiles, .. } => tiles.iter().for_each(|t| mark(&t.ops, own)),
            _ => {}
        }
    }
}

/// Parts of `active`, which is sorted, that belong to the same `lanes` neighbouring threads.
pub(super) fn warps(active: &[u32], lanes: u32) -> impl Iterator<Item = &[u32]> {
    active.chunk_by(move |a, b| a / lanes == b / lanes)
}
