//! What the constants of a model may take: memory and work that its file asks for all by itself.
//!
//! A file of a kilobyte can ask for terabytes, as by a tensor that is concatenated with itself again and again, and what follows
//! from constants is computed while compiling, before anybody has given an input. So it is refused, by the name of the node, where
//! it is out of proportion to the file; so are tables that are made while importing, whose sizes a file can ask for, too. What follows from inputs may be as large as the machine's memory.

use crate::memory::may_fit;
use crate::tensor::{Op, State, Tensor};
use rustc_hash::FxHashSet;
use std::cell::Cell;
use winograph_ir::DType;

/// Bytes that the constants of any model may take: tables of positions and masks are made from a few numbers.
const BYTES: u64 = 512 << 20;

/// How many times the bytes of the file there may be beside these: weights of few bits are unpacked, and then arranged.
const TIMES: u64 = 16;

/// Operations that may compute the constants of any model: seconds.
const WORK: u64 = 1 << 34;

/// And so many for each byte of the file: products of weights.
const WORK_PER_BYTE: u64 = 1 << 12;

/// Operations that take as long as the host takes for an entry of a table that it computes.
pub(crate) const PER_ENTRY: u64 = 512;

/// The same for comparing two elements, or two boxes.
pub(crate) const PER_COMPARISON: u64 = 16;

/// What is left of what a model's constants may take.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Bytes of the model's file, and of those beside it.
    file: u64,
    /// Bytes of constants that have to be there when the model runs.
    kept: Cell<u64>,
    /// Operations that compute constants and tables.
    work: Cell<u64>,
}

/// Bytes of a tensor's elements.
pub(crate) fn bytes(t: &Tensor) -> u64 {
    // Sizes of tensors are checked when they are made.
    (t.numel() as u64).saturating_mul(t.dtype().size() as u64)
}

impl Budget {
    /// For a model whose files have so many bytes.
    pub(crate) fn new(file: u64) -> Budget {
        Budget { file, kept: Cell::new(0), work: Cell::new(0) }
    }

    /// Most bytes that constants may take.
    fn most(&self) -> u64 {
        BYTES.saturating_add(self.file.saturating_mul(TIMES))
    }

    fn refused(&self, what: String) -> String {
        format!(
            "{what}, and follows from constants alone, which may take {} bytes in a file of {}: make it an input of the \
             model, or compute it from one",
            self.most(),
            self.file
        )
    }

    /// That so many bytes of constants may be made at once; else why not.
    pub(crate) fn admit(&self, bytes: u64) -> Result<(), String> {
        match bytes > self.most() {
            true => Err(self.refused(format!("it takes {bytes} bytes"))),
            false => Ok(()),
        }
    }

    /// That a tensor which was made of `operands`, all of them constants, may be computed; else why not.
    pub(crate) fn constant(&self, operands: &[&Tensor], result: &Tensor) -> Result<(), String> {
        self.admit(bytes(result))?;
        self.count(work(operands, result)).map_err(|(all, most)| {
            format!(
                "with it constants take {all} operations to compute, and may take {most} in a file of {} bytes: make what it \
                 reads an input of the model",
                self.file
            )
        })
    }

    /// That the host may do so much while importing, in operations of compiled code that take as long; else why not. To be asked
    /// before it is done.
    pub(crate) fn host(&self, operations: u64) -> Result<(), String> {
        self.count(operations).map_err(|(all, most)| {
            format!(
                "it takes {operations} operations while importing, with all before it {all}, and these may be {most} in a file \
                 of {} bytes: ask for less, or make what it reads an input of the model",
                self.file
            )
        })
    }

    /// Counts operations; where there are too many, all of them and how many there may be.
    fn count(&self, operations: u64) -> Result<(), (u64, u64)> {
        self.work.set(self.work.get().saturating_add(operations));
        let most = WORK.saturating_add(self.file.saturating_mul(WORK_PER_BYTE));
        match self.work.get() > most {
            true => Err((self.work.get(), most)),
            false => Ok(()),
        }
    }

    /// That a constant which has to be there when the model runs, together with those before it, has room; else why not.
    /// As a result of the model all of it is there, as an operand what its elements are taken from.
    pub(crate) fn keep(&self, constant: &Tensor, is_result: bool) -> Result<(), String> {
        let held = if is_result { bytes(constant) } else { source(constant) };
        self.kept.set(self.kept.get().saturating_add(held));
        match self.kept.get() > self.most() {
            true => Err(self.refused(format!("it takes {held} bytes, with others {}", self.kept.get()))),
            false => Ok(()),
        }
    }
}

/// That the machine has memory for a tensor; else why not.
pub(crate) fn fits(t: &Tensor) -> Result<(), String> {
    fits_as(t.dtype(), t.shape())
}

/// The same of one of this dtype and shape.
pub(crate) fn fits_as(dtype: DType, shape: &[usize]) -> Result<(), String> {
    let bytes = shape.iter().fold(dtype.size() as u64, |n, &s| n.saturating_mul(s as u64));
    match usize::try_from(bytes).is_ok_and(may_fit) {
        true => Ok(()),
        false => Err(format!(
            "{dtype}{shape:?} takes {bytes} bytes, which is more than the memory of this machine, or than \
             WINOGRAPH_MEMORY_MB allows: take smaller inputs, or work on them in parts"
        )),
    }
}

/// Bytes of the tensor whose elements are at other places, or repeated, in this one; 0 for known elements and numbers.
fn source(t: &Tensor) -> u64 {
    let mut t = t.clone();
    loop {
        let State::Lazy(op) = t.0.state() else { return 0 };
        t = match &*op {
            Op::Full { .. } | Op::Iota { .. } => return 0,
            Op::Reshape { x, .. } | Op::Permute { x, .. } | Op::Expand { x, .. } | Op::Slice { x, .. } => x.clone(),
            _ => return bytes(&t),
        };
    }
}

/// Operations that compute a tensor from these operands.
fn work(operands: &[&Tensor], result: &Tensor) -> u64 {
    let mut seen: FxHashSet<usize> = operands.iter().map(|t| t.key()).collect();
    let mut pending = vec![result.clone()];
    let mut work = 0u64;
    // What was looked at stays alive, so that keys stay unique.
    let mut held = Vec::new();
    while let Some(t) = pending.pop() {
        if !seen.insert(t.key()) {
            continue;
        }
        if let State::Lazy(op) = t.0.state() {
            work = work.saturating_add(match &*op {
                Op::Full { .. } | Op::Iota { .. } | Op::Reshape { .. } | Op::Permute { .. } | Op::Expand { .. } => 0,
                Op::Slice { .. } | Op::Unfold { .. } => 0,
                Op::Reduce { x, .. } => x.numel() as u64,
                _ => t.numel() as u64,
            });
            op.for_each_child(|c| pending.push(c.clone()));
        }
        held.push(t);
    }
    work
}
