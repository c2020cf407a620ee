//! A program on a GPU with memory of its own for each buffer, for programs that time it.

use std::time::Duration;
use winograph::cuda::{CudaDevice, CudaModule};
use winograph::device::{Device, DeviceError, Memory, Module};
use winograph_compiler::{Place, Program, Step};

pub(crate) type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// A program on the device with memory of its own for each buffer.
pub(crate) struct Loaded<'a> {
    pub(crate) gpu: &'a CudaDevice,
    pub(crate) program: &'a Program,
    module: CudaModule,
    memory: Vec<Box<dyn Memory>>,
}

impl<'a> Loaded<'a> {
    /// Loads a program; arguments and constants get the bytes of their slots, results what is not a number.
    pub(crate) fn new(gpu: &'a CudaDevice, program: &'a Program, inputs: &[&[u8]]) -> Fallible<Loaded<'a>> {
        let module = gpu.load(&program.kernels)?;
        let mut memory = Vec::new();
        for b in &program.buffers {
            let mut m = gpu.allocate(b.len * b.dtype.size())?;
            match b.place {
                Place::Argument(slot) | Place::Constant(slot) => {
                    gpu.write(&mut *m, 0, &inputs[slot][..b.len * b.dtype.size()])?
                }
                Place::Output(_) => gpu.write(&mut *m, 0, &vec![0xff; b.len * b.dtype.size()])?,
                Place::Prepared(_) | Place::Arena(_) => {}
            }
            memory.push(m);
        }
        Ok(Loaded { gpu, program, module, memory })
    }

    /// Queues what constants alone decide.
    #[allow(dead_code)]
    pub(crate) fn prepare(&self) -> Result<(), DeviceError> {
        self.program.prepare.iter().try_for_each(|s| self.launch(s))
    }

    /// Queues one step of a call.
    pub(crate) fn step(&self, n: usize) -> Result<(), DeviceError> {
        self.launch(&self.program.run[n])
    }

    fn launch(&self, step: &Step) -> Result<(), DeviceError> {
        let args: Vec<_> = step.args.iter().filter_map(|&a| self.memory[a].arg(0, self.memory[a].bytes())).collect();
        // SAFETY: each buffer has memory of its own that lives as long as `self`, which is dropped after a
        // synchronisation; one queue runs the launches in order; the kernels have passed the verifier.
        unsafe { self.module.launch(step.kernel, &args, &step.host) }
    }

    /// Queues a call.
    pub(crate) fn run(&self) -> Result<(), DeviceError> {
        (0..self.program.run.len()).try_for_each(|n| self.step(n))
    }

    /// The bytes of the result.
    pub(crate) fn result(&self) -> Fallible<Vec<u8>> {
        let at = self.program.buffers.iter().position(|b| b.place == Place::Output(0)).ok_or("no output")?;
        let mut data = vec![0; self.memory[at].bytes()];
        self.gpu.read(&*self.memory[at], 0, &mut data)?;
        Ok(data)
    }

    /// Times of 20 calls by the device.
    pub(crate) fn times(&self) -> Result<Vec<Duration>, DeviceError> {
        self.gpu.time_launches(20, &mut || self.run())
    }

    /// Times of a call by the device where ten of them are replayed as one graph of launches, 20 times; `None` where there
    /// are no graphs.
    #[allow(dead_code)]
    pub(crate) fn replayed(&self) -> Result<Option<Vec<Duration>>, DeviceError> {
        const CALLS: u32 = 10;
        let Some(recording) = self.gpu.record(&mut || (0..CALLS).try_for_each(|_| self.run()))? else {
            return Ok(None);
        };
        // SAFETY: that of `launch`; the recording is dropped before the memory and the module are, and waits.
        let mut replay = || unsafe { recording.replay() };
        (0..3).try_for_each(|_| replay())?;
        let times = self.gpu.time_launches(20, &mut replay)?;
        Ok(Some(times.into_iter().map(|t| t / CALLS).collect()))
    }

    /// Times of 20 launches of a step by the device.
    pub(crate) fn step_times(&self, n: usize) -> Result<Vec<Duration>, DeviceError> {
        self.gpu.time_launches(20, &mut || self.step(n))
    }

    /// Times of 20 copies on the device that read and write together as many bytes as there are in a step's buffers.
    #[allow(dead_code)]
    pub(crate) fn copy_times(&self, n: usize) -> Result<Vec<Duration>, DeviceError> {
        let bytes: usize = self.program.run[n].args.iter().map(|&a| self.memory[a].bytes()).sum();
        let from = self.gpu.allocate(bytes / 2)?;
        let mut to = self.gpu.allocate(bytes / 2)?;
        (0..3).try_for_each(|_| self.gpu.copy(&mut *to, &*from))?;
        self.gpu.time_launches(20, &mut || self.gpu.copy(&mut *to, &*from))
    }

    /// Registers, spilled bytes and bytes of shared memory of a step's kernel.
    #[allow(dead_code)]
    pub(crate) fn takes(&self, n: usize) -> String {
        let kernel = self.program.run[n].kernel;
        let (r, shape) = (self.module.resources(kernel), self.module.launch_shape(kernel));
        let (r, shape) = (r.unwrap_or_default(), shape.unwrap_or((0, 0)));
        format!("{}r/{}s/{}b/{}t", r.registers, r.spill_bytes, r.shared_bytes + shape.1, shape.0)
    }
}
