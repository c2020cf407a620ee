//! What compiling leaves: kernels, the memory they work on and the order in which they run.

use crate::render::{RenderError, local_bytes};
use winograph_ir::DType;
use winograph_ir::linear::Code;

/// A compiled program.
///
/// `prepare` runs once; it fills buffers that depend on constants alone. `run` runs for every input. Within each list
/// steps run in order.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// Distinct kernels.
    pub kernels: Vec<Code>,
    /// Every buffer that a step touches.
    pub buffers: Vec<ProgramBuffer>,
    /// Steps that depend on constants alone.
    pub prepare: Vec<Step>,
    /// Steps of every run.
    pub run: Vec<Step>,
    /// Bytes of the arena that `run` needs for its intermediates.
    pub arena_bytes: usize,
    /// Bytes of the memory that `prepare` fills and `run` reads.
    pub prepared_bytes: usize,
    /// Bytes of the arena that `prepare` needs for its intermediates.
    pub prepare_arena_bytes: usize,
}

impl Program {
    /// The memory that calls take on a CPU, one at a time.
    ///
    /// # Errors
    /// A kernel's own memory has no bound.
    pub fn footprint(&self) -> Result<Footprint, RenderError> {
        let mut constants: Vec<(usize, usize)> = Vec::new();
        let mut scratch = 0;
        for step in &self.run {
            scratch = scratch.max(self.kernels.get(step.kernel).map_or(Ok(0), local_bytes)?);
            for buffer in step.args.iter().filter_map(|&a| self.buffers.get(a)) {
                let Place::Constant(slot) = buffer.place else { continue };
                let bytes = buffer.len.saturating_mul(buffer.dtype.size());
                match constants.iter_mut().find(|c| c.0 == slot) {
                    Some(known) => known.1 = known.1.max(bytes),
                    None => constants.push((slot, bytes)),
                }
            }
        }
        let constants = constants.iter().fold(0, |n: usize, c| n.saturating_add(c.1));
        Ok(Footprint { prepared: self.prepared_bytes, constants, arena: self.arena_bytes, scratch })
    }
}

/// Memory of a compiled program beside its arguments and results, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// What `prepare` fills.
    pub prepared: usize,
    /// Constants that `run` reads as they are.
    pub constants: usize,
    /// Intermediates between the launches of a call.
    pub arena: usize,
    /// What each thread has to itself within a launch.
    pub scratch: usize,
}

impl Footprint {
    /// All of it with so many threads.
    pub fn total(&self, threads: usize) -> usize {
        let scratch = self.scratch.saturating_mul(threads);
        [self.prepared, self.constants, self.arena, scratch].into_iter().fold(0, usize::saturating_add)
    }
}

/// One launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Place in [`Program::kernels`].
    pub kernel: usize,
    /// A place in [`Program::buffers`] for each of the kernel's `args`.
    pub args: Vec<usize>,
    /// Values of the kernel's last parameters, after those of the program: where it reads and writes, if others read and
    /// write elsewhere, or the numbers of loops of the host, in which launches are repeated.
    pub host: Vec<i64>,
}

impl Step {
    /// Values of all the kernel's parameters, of which the program's are given.
    pub fn params(&self, program: &[i64]) -> Vec<i64> {
        [program, &self.host].concat()
    }

    /// On a GPU, whether it is the first of those that loops of the host repeat, or none of them.
    pub fn is_first(&self) -> bool {
        self.host.iter().all(|&n| n == 0)
    }
}

/// A piece of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramBuffer {
    /// Name, for explanations.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Number of elements, padding included (with parameters: at their greatest values).
    pub len: usize,
    /// Where it is.
    pub place: Place,
}

/// Where a buffer of a program lives. Offsets are in bytes and multiples of [`ALIGNMENT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The caller's input number.
    Argument(usize),
    /// A constant of the program: an input number too.
    Constant(usize),
    /// The caller's output number.
    Output(usize),
    /// At an offset in the memory filled by `prepare`.
    Prepared(usize),
    /// At an offset in the arena of the list of steps that uses it.
    Arena(usize),
}

/// Alignment of arenas and of offsets in them, in bytes: a cache line and the widest vector.
pub const ALIGNMENT: usize = 64;
