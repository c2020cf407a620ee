//! Memory that holds the elements of a tensor.

use crate::cpu::Buffer;
use crate::device::{Device, DeviceError, Memory};
use crate::error::{Error, Result};
use crate::execute::on_device;
#[cfg(unix)]
use crate::files::{PART, in_parts};
use crate::memory::may_fit;
use crate::tensor::Element;
use crate::tensor::resident::Resident;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
#[cfg(not(unix))]
use std::io::{Seek as _, SeekFrom};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Alignment of a storage in bytes.
pub(crate) const ALIGNMENT: usize = winograph_compiler::program::ALIGNMENT;

/// Bytes on the host, aligned to a cache line, in the machine's byte order.
enum Bytes {
    /// From `start` on. There is room for `ALIGNMENT` bytes more than are used, so that an aligned part of them can be.
    Heap { bytes: Vec<u8>, start: usize },
    /// Pages of the threads that fill them.
    Pages(Buffer),
}

impl Bytes {
    /// `len` zero bytes, or [`Error::OutOfMemory`].
    fn zeroed(len: usize) -> Result<Bytes> {
        let (mut bytes, start) = Bytes::reserved(len)?;
        bytes.resize(start + len, 0);
        Ok(Bytes::Heap { bytes, start })
    }

    /// No bytes yet, and room for `len` from the second of these on, where the first is aligned.
    fn reserved(len: usize) -> Result<(Vec<u8>, usize)> {
        let whole = len.checked_add(ALIGNMENT).filter(|&n| may_fit(n)).ok_or(Error::OutOfMemory { bytes: len })?;
        let mut bytes: Vec<u8> = Vec::new();
        bytes.try_reserve_exact(whole).map_err(|_| Error::OutOfMemory { bytes: len })?;
        // `align_offset` may refuse only where pointers have no address, which is not at run time.
        let start = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        bytes.resize(start, 0);
        Ok((bytes, start))
    }

    fn get(&self) -> &[u8] {
        match self {
            Bytes::Heap { bytes, start } => &bytes[*start..],
            Bytes::Pages(buffer) => buffer.as_slice(),
        }
    }

    fn get_mut(&mut self) -> &mut [u8] {
        match self {
            Bytes::Heap { bytes, start } => &mut bytes[*start..],
            Bytes::Pages(buffer) => buffer.as_mut_slice(),
        }
    }
}

/// The elements of a tensor: bytes on the host, on devices, or both.
pub(crate) struct Storage {
    len: usize,
    /// Not there where nobody has read yet what a device has computed.
    host: OnceLock<Bytes>,
    /// Where the bytes are read from when the host needs them.
    origin: Option<(Arc<dyn Device>, Arc<dyn Memory>)>,
    /// One thread reads them.
    reading: Mutex<()>,
    /// Copies on devices.
    copies: Mutex<Vec<Resident>>,
}

impl Storage {
    fn on_host(bytes: Bytes) -> Storage {
        let (len, host) = (bytes.get().len(), OnceLock::from(bytes));
        Storage { len, host, origin: None, reading: Mutex::default(), copies: Mutex::default() }
    }

    /// The first `len` bytes of memory of a device, which are there once its launches so far have run.
    pub(crate) fn on_device(device: &Arc<dyn Device>, memory: Box<dyn Memory>, len: usize) -> Storage {
        let memory: Arc<dyn Memory> = Arc::from(memory);
        let copy = Resident { device: device.name().to_string(), memory: memory.clone() };
        Storage {
            len,
            host: OnceLock::new(),
            origin: Some((device.clone(), memory)),
            reading: Mutex::default(),
            copies: Mutex::new(vec![copy]),
        }
    }

    /// `len` zero bytes, or [`Error::OutOfMemory`].
    pub(crate) fn zeroed(len: usize) -> Result<Storage> {
        Bytes::zeroed(len).map(Storage::on_host)
    }

    /// The next `len` bytes of a file or of anything else that is read.
    pub(crate) fn read(from: &mut impl Read, len: usize) -> io::Result<Storage> {
        let (mut bytes, start) = Bytes::reserved(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let read = from.take(len as u64).read_to_end(&mut bytes)?;
        match read == len {
            true => Ok(Storage::on_host(Bytes::Heap { bytes, start })),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// `len` bytes of a file from `at` on, by several threads where there are many. The file is known to have them: it
    /// is asked for what it has before there is memory for it. Where the file is read next is not said.
    pub(crate) fn read_at(file: &File, at: u64, len: usize) -> io::Result<Storage> {
        let mut buffer = Buffer::ordinary(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        #[cfg(unix)]
        {
            let places = (0..).map(|i| at.saturating_add(i * PART as u64));
            let parts = places.zip(buffer.as_mut_slice().chunks_mut(PART)).collect();
            in_parts(parts, |(at, part)| std::os::unix::fs::FileExt::read_exact_at(file, part, at))?;
        }
        #[cfg(not(unix))]
        {
            let mut file = file;
            file.seek(SeekFrom::Start(at))?;
            file.read_exact(buffer.as_mut_slice())?;
        }
        Ok(Storage::on_host(Bytes::Pages(buffer)))
    }

    /// A copy of elements.
    pub(crate) fn from_slice<T: Element>(values: &[T]) -> Result<Storage> {
        let size = T::DTYPE.size();
        let mut out = Bytes::zeroed(values.len() * size)?;
        for (bytes, v) in out.get_mut().chunks_exact_mut(size).zip(values) {
            v.write(bytes);
        }
        Ok(Storage::on_host(out))
    }

    /// A copy of bytes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Storage> {
        let (mut out, start) = Bytes::reserved(bytes.len())?;
        out.extend_from_slice(bytes);
        Ok(Storage::on_host(Bytes::Heap { bytes: out, start }))
    }

    /// Number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The bytes, copied to the host if they are not there yet.
    pub(crate) fn bytes(&self, op: &'static str) -> Result<&[u8]> {
        self.fetched().map_err(on_device(op))
    }

    /// As [`bytes`](Storage::bytes), with the device's error.
    pub(crate) fn fetched(&self) -> Result<&[u8], DeviceError> {
        if let Some(host) = self.host.get() {
            return Ok(host.get());
        }
        let _one = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = self.host.get() {
            return Ok(host.get());
        }
        let reserved = Bytes::reserved(self.len).map_err(|_| DeviceError::OutOfMemory { bytes: self.len });
        let (mut bytes, start) = reserved?;
        if let Some((device, memory)) = &self.origin {
            device.read_new(&**memory, self.len, &mut bytes)?;
        }
        Ok(self.host.get_or_init(|| Bytes::Heap { bytes, start }).get())
    }

    /// The bytes of a storage that was made on the host, to be changed: copies on devices are no longer what they were.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.copies.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
        self.host.get_mut().map_or(&mut [], |host| host.get_mut())
    }

    /// The copy on a device, if there is one.
    pub(crate) fn copy_on(&self, device: &str) -> Option<Arc<dyn Memory>> {
        let copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        copies.iter().find(|c| c.device == device).map(|c| c.memory.clone())
    }

    /// The copy that a device copies from without the host: its own, or one that it reaches.
    pub(crate) fn copy_for(&self, device: &dyn Device) -> Option<Arc<dyn Memory>> {
        let copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        let own = copies.iter().find(|c| c.device == device.name());
        own.or_else(|| copies.iter().find(|c| device.reaches(&*c.memory))).map(|c| c.memory.clone())
    }

    /// Keeps a copy on a device, unless there is one.
    pub(crate) fn keep_copy(&self, copy: Resident) {
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        if copies.iter().all(|c| c.device != copy.device) {
            copies.push(copy);
        }
    }

    /// A copy of the elements; the caller knows that they are of type `T`.
    pub(crate) fn to_vec<T: Element>(&self, op: &'static str) -> Result<Vec<T>> {
        let bytes = (self.len / T::DTYPE.size()).saturating_mul(size_of::<T>());
        let mut out = Vec::new();
        if !may_fit(bytes) || out.try_reserve_exact(self.len / T::DTYPE.size()).is_err() {
            return Err(Error::OutOfMemory { bytes });
        }
        out.extend(self.bytes(op)?.chunks_exact(T::DTYPE.size()).map(T::read));
        Ok(out)
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Storage({} bytes)", self.len)
    }
}
