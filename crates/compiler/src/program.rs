//! What compiling leaves: kernels, the memory they work on and the order in which they run.

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

/// One launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Place in [`Program::kernels`].
    pub kernel: usize,
    /// A place in [`Program::buffers`] for each of the kernel's `args`.
    pub args: Vec<usize>,
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
