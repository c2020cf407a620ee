//! Memory on a device that the calls of a program use.

use crate::device::{Arg, Device, DeviceError, Memory, Recording};
use crate::tensor::storage::Storage;
use std::sync::{Arc, Mutex, PoisonError};
use winograph_compiler::{Place, Program};

/// What one call works on. On a device whose memory is not the host's, arguments and results have copies there.
pub(crate) struct Workspace {
    /// A call's launches on this memory, where the device records them; gone before the memory is.
    pub(crate) recording: Option<Box<dyn Recording>>,
    /// Calls that have run on this memory.
    pub(crate) calls: u32,
    arena: Box<dyn Memory>,
    args: Vec<Option<Box<dyn Memory>>>,
    outputs: Vec<Option<Box<dyn Memory>>>,
}

impl Workspace {
    /// Memory of `bytes` bytes for intermediates, and none for arguments and results.
    pub(crate) fn arena(device: &dyn Device, bytes: usize) -> Result<Workspace, DeviceError> {
        let arena = device.allocate(bytes)?;
        Ok(Workspace { recording: None, calls: 0, arena, args: Vec::new(), outputs: Vec::new() })
    }

    /// Copies arguments to the device, where its memory is not the host's: from the host, or from their copies there. Else
    /// sees to it that they are on the host.
    pub(crate) fn upload(&mut self, device: &dyn Device, args: &[Arc<Storage>]) -> Result<(), DeviceError> {
        if device.is_host() {
            return args.iter().try_for_each(|a| a.fetched().map(|_| ()));
        }
        for (to, from) in self.args.iter_mut().zip(args) {
            if let Some(to) = to {
                from.copy_to(device, &mut **to)?;
            }
        }
        Ok(())
    }

    /// Copies results to the host, where its memory is not the device's.
    pub(crate) fn download(&self, device: &dyn Device, outputs: &mut [&mut Storage]) -> Result<(), DeviceError> {
        for (from, to) in self.outputs.iter().zip(outputs) {
            if let Some(from) = from {
                device.read(&**from, 0, to.bytes_mut())?;
            }
        }
        Ok(())
    }

    /// The first `len` bytes of a result, in memory of its own on the device; on the host where the device has no memory
    /// for it, or nothing to compute.
    pub(crate) fn result(&self, device: &Arc<dyn Device>, slot: usize, len: usize) -> Result<Storage, DeviceError> {
        let host = || Storage::zeroed(len).map_err(|_| DeviceError::OutOfMemory { bytes: len });
        let Some(Some(from)) = self.outputs.get(slot) else { return host() };
        match device.duplicate(&**from, len) {
            Ok(memory) => Ok(Storage::on_device(device, memory, len)),
            Err(DeviceError::OutOfMemory { .. }) => {
                let mut out = host()?;
                device.read(&**from, 0, out.bytes_mut())?;
                Ok(out)
            }
            Err(e) => Err(e),
        }
    }

    /// A part of the memory for intermediates.
    pub(crate) fn intermediate(&self, offset: usize, bytes: usize) -> Option<Arg> {
        self.arena.arg(offset, bytes)
    }

    /// An argument as the device sees it.
    pub(crate) fn argument(&self, slot: usize, args: &[Arc<Storage>]) -> Option<Arg> {
        match self.args.get(slot) {
            Some(Some(copy)) => copy.arg(0, copy.bytes()),
            _ => args.get(slot).and_then(|s| s.arg()),
        }
    }

    /// A result as the device sees it.
    pub(crate) fn output(&self, slot: usize, outputs: &mut [&mut Storage]) -> Option<Arg> {
        match self.outputs.get(slot) {
            Some(Some(copy)) => copy.arg(0, copy.bytes()),
            _ => outputs.get_mut(slot).map(|s| s.arg_mut()),
        }
    }
}

/// A constant of a program where its kernels read it.
pub(crate) enum Constant {
    /// On the host, whose memory is the device's.
    Host(Arc<Storage>),
    /// A copy on the device.
    Copy(Box<dyn Memory>),
}

impl Constant {
    /// Puts a constant where the device reads it.
    pub(crate) fn new(device: &dyn Device, storage: Arc<Storage>) -> Result<Constant, DeviceError> {
        if device.is_host() {
            storage.fetched()?;
            return Ok(Constant::Host(storage));
        }
        Ok(Constant::Copy(storage.copy_on_new(device)?))
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Constant::Host(storage) => storage.len(),
            Constant::Copy(memory) => memory.bytes(),
        }
    }

    /// The constant as the device sees it.
    pub(crate) fn arg(&self) -> Option<Arg> {
        match self {
            Constant::Host(storage) => storage.arg(),
            Constant::Copy(memory) => memory.arg(0, memory.bytes()),
        }
    }
}

/// One workspace for each call that is under way, kept for the next.
pub(crate) struct Workspaces {
    arena: usize,
    args: Vec<Option<usize>>,
    outputs: Vec<Option<usize>>,
    free: Mutex<Vec<Workspace>>,
}

impl Workspaces {
    /// Workspaces for calls of a program. None is allocated yet.
    pub(crate) fn new(program: &Program, device: &dyn Device) -> Workspaces {
        let (mut args, mut outputs) = (Vec::new(), Vec::new());
        if !device.is_host() {
            for &at in program.run.iter().flat_map(|s| &s.args) {
                let Some(buffer) = program.buffers.get(at) else { continue };
                let (list, slot) = match buffer.place {
                    Place::Argument(slot) => (&mut args, slot),
                    Place::Output(slot) => (&mut outputs, slot),
                    Place::Constant(_) | Place::Prepared(_) | Place::Arena(_) => continue,
                };
                if list.len() <= slot {
                    list.resize(slot + 1, None);
                }
                let bytes = buffer.len.saturating_mul(buffer.dtype.size());
                list[slot] = Some(list[slot].map_or(bytes, |b: usize| b.max(bytes)));
            }
        }
        Workspaces { arena: program.arena_bytes, args, outputs, free: Mutex::new(Vec::new()) }
    }

    /// Memory that nobody else uses until it is given back.
    pub(crate) fn take(&self, device: &dyn Device) -> Result<Workspace, DeviceError> {
        let kept = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(workspace) = kept {
            return Ok(workspace);
        }
        let all = |sizes: &[Option<usize>]| {
            let one = |size: &Option<usize>| size.map(|bytes| device.allocate(bytes)).transpose();
            sizes.iter().map(one).collect::<Result<Vec<_>, _>>()
        };
        let (arena, args, outputs) = (device.allocate(self.arena)?, all(&self.args)?, all(&self.outputs)?);
        Ok(Workspace { recording: None, calls: 0, arena, args, outputs })
    }

    /// Bytes for intermediates that the next call would have to allocate.
    pub(crate) fn missing(&self) -> usize {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.is_empty() { self.arena } else { 0 }
    }

    /// Bytes for intermediates that are kept for calls to come.
    pub(crate) fn kept(&self) -> usize {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.iter().map(|w| w.arena.bytes()).sum()
    }

    /// Keeps memory for another call.
    pub(crate) fn give_back(&self, workspace: Workspace) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
    }
}

impl Storage {
    fn arg(&self) -> Option<Arg> {
        let bytes = self.fetched().ok()?;
        Some(Arg { address: bytes.as_ptr().cast_mut(), bytes: bytes.len() })
    }

    fn arg_mut(&mut self) -> Arg {
        let bytes = self.bytes_mut();
        Arg { address: bytes.as_mut_ptr(), bytes: bytes.len() }
    }
}
