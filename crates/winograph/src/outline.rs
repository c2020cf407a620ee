//! Programs without the code of their kernels, as files hold them.

use crate::image::{KernelData, Platform};
use serde::{Deserialize, Serialize};
use winograph_compiler::program::{ALIGNMENT, Place, Program, ProgramBuffer, Step};
use winograph_ir::DType;
use winograph_ir::indexed::Role;
use winograph_ir::int::Ints;
use winograph_ir::linear::Code;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kernel {
    pub(crate) role: String,
    pub(crate) launch: KernelData,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Buffer {
    pub(crate) name: String,
    pub(crate) dtype: String,
    pub(crate) len: usize,
    pub(crate) place: At,
}

/// [`Place`] in a file.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum At {
    Argument(usize),
    Constant(usize),
    Output(usize),
    Prepared(usize),
    Arena(usize),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Launch {
    pub(crate) kernel: usize,
    pub(crate) args: Vec<usize>,
    /// Numbers of the loops of the host that repeat it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) host: Vec<i64>,
}

impl Launch {
    /// A step whose buffers may have other numbers in a file.
    pub(crate) fn new(step: &Step, args: Vec<usize>) -> Launch {
        Launch { kernel: step.kernel, args, host: step.host.clone() }
    }
}

impl From<Place> for At {
    fn from(place: Place) -> At {
        match place {
            Place::Argument(n) => At::Argument(n),
            Place::Constant(n) => At::Constant(n),
            Place::Output(n) => At::Output(n),
            Place::Prepared(n) => At::Prepared(n),
            Place::Arena(n) => At::Arena(n),
        }
    }
}

impl From<At> for Place {
    fn from(at: At) -> Place {
        match at {
            At::Argument(n) => Place::Argument(n),
            At::Constant(n) => Place::Constant(n),
            At::Output(n) => Place::Output(n),
            At::Prepared(n) => Place::Prepared(n),
            At::Arena(n) => Place::Arena(n),
        }
    }
}

/// What cannot be: the part of the file, and why.
pub(crate) type Wrong = (String, String);

/// A program as a file has it.
pub(crate) struct Outline<'a> {
    pub(crate) kernels: Vec<&'a Kernel>,
    pub(crate) buffers: &'a [Buffer],
    pub(crate) prepare: &'a [Launch],
    pub(crate) run: &'a [Launch],
}

/// Bytes that there are.
pub(crate) struct Room<'a> {
    pub(crate) inputs: &'a [usize],
    pub(crate) outputs: &'a [usize],
    /// Of the constant of a number.
    pub(crate) constant: &'a dyn Fn(usize) -> Option<usize>,
    pub(crate) prepared: usize,
    /// What `prepare` and `run` have for their intermediates.
    pub(crate) arenas: [usize; 2],
}

impl Outline<'_> {
    /// Compares its numbers with each other and with what there is: afterwards each launch has what its kernel takes, within
    /// the memory that there is. Kernels have names and roles alone.
    pub(crate) fn check(&self, platform: &Platform, room: &Room<'_>) -> Result<Program, Wrong> {
        let mut buffers = Vec::with_capacity(self.buffers.len());
        for (i, buffer) in self.buffers.iter().enumerate() {
            let wrong = |cause: String| (format!("buffer {i} ({})", buffer.name), cause);
            let dtype = DType::from_name(&buffer.dtype)
                .ok_or_else(|| wrong(format!("there is no dtype {:?}", buffer.dtype)))?;
            let bytes = buffer.len.checked_mul(dtype.size()).ok_or_else(|| wrong("its size overflows".into()))?;
            let there = match buffer.place {
                At::Argument(n) => room.inputs.get(n).copied().ok_or_else(|| format!("there is no input {n}")),
                At::Output(n) => room.outputs.get(n).copied().ok_or_else(|| format!("there is no output {n}")),
                At::Constant(n) => (room.constant)(n).ok_or_else(|| format!("there is no constant {n}")),
                At::Prepared(offset) => within(offset, room.prepared),
                At::Arena(offset) => within(offset, room.arenas[0].max(room.arenas[1])),
            };
            let there = there.map_err(wrong)?;
            // Arguments and results are used as a whole: one that was made larger would have elements that nothing computes.
            let whole = matches!(buffer.place, At::Argument(_) | At::Output(_));
            if bytes > there || (whole && bytes < there) {
                return Err(wrong(format!("it takes {bytes} bytes where there are {there}")));
            }
            buffers.push(ProgramBuffer {
                name: buffer.name.clone(),
                dtype,
                len: buffer.len,
                place: buffer.place.into(),
            });
        }
        for (i, kernel) in self.kernels.iter().enumerate() {
            kernel.launch.check(platform).map_err(|cause| (format!("kernel {i}"), cause))?;
        }
        let steps = |list: &[Launch], arena: usize| {
            let step = |(i, launch): (usize, &Launch)| self.step(i, launch, &buffers, arena);
            list.iter().enumerate().map(step).collect::<Result<Vec<_>, _>>()
        };
        let (prepare, run) = (steps(self.prepare, room.arenas[0])?, steps(self.run, room.arenas[1])?);
        Ok(Program {
            kernels: self.kernels.iter().map(|k| k.outline()).collect::<Result<_, _>>()?,
            buffers,
            prepare,
            run,
            arena_bytes: room.arenas[1],
            prepared_bytes: room.prepared,
            prepare_arena_bytes: room.arenas[0],
        })
    }

    /// A launch that has what its kernel takes.
    fn step(&self, i: usize, launch: &Launch, buffers: &[ProgramBuffer], arena: usize) -> Result<Step, Wrong> {
        let wrong = |cause: String| (format!("launch {i}"), cause);
        let kernel = self.kernels.get(launch.kernel);
        let kernel = kernel.ok_or_else(|| wrong(format!("there is no kernel {}", launch.kernel)))?;
        let needed = kernel.launch.signature().bytes().unwrap_or_default();
        if needed.len() != launch.args.len() {
            return Err(wrong(format!("{} arguments where {} are needed", launch.args.len(), needed.len())));
        }
        for (&at, &needed) in launch.args.iter().zip(needed) {
            let buffer = buffers.get(at).ok_or_else(|| wrong(format!("there is no buffer {at}")))?;
            let bytes = buffer.len * buffer.dtype.size();
            if bytes < needed {
                return Err(wrong(format!("buffer {at} has {bytes} bytes where {needed} are needed")));
            }
            if let Place::Arena(offset) = buffer.place
                && offset.checked_add(bytes).is_none_or(|end| end > arena)
            {
                return Err(wrong(format!("buffer {at} is beyond the {arena} bytes for intermediates")));
            }
        }
        kernel.launch.signature().check_params(&launch.host).map_err(wrong)?;
        Ok(Step { kernel: launch.kernel, args: launch.args.clone(), host: launch.host.clone() })
    }
}

/// What is left of `whole` bytes from an offset on.
fn within(offset: usize, whole: usize) -> Result<usize, String> {
    if !offset.is_multiple_of(ALIGNMENT) {
        return Err(format!("its offset {offset} is not a multiple of {ALIGNMENT}"));
    }
    whole.checked_sub(offset).ok_or_else(|| format!("its offset {offset} is out of bounds"))
}

impl Buffer {
    /// A buffer of a program, in a place that may be another one in a file.
    pub(crate) fn new(buffer: &ProgramBuffer, place: At) -> Buffer {
        Buffer { name: buffer.name.clone(), dtype: buffer.dtype.name().to_string(), len: buffer.len, place }
    }
}

impl Kernel {
    /// Name and role of its code.
    fn outline(&self) -> Result<Code, Wrong> {
        let name = self.launch.signature().name().to_string();
        let role = Role::ALL.into_iter().find(|r| r.name() == self.role);
        let role = role.ok_or_else(|| (format!("kernel {name}"), format!("there is no role {:?}", self.role)))?;
        Ok(Code::new(name, role, Ints::default()))
    }
}
