//! Memory that holds the elements of a tensor.

use crate::device::{Device, DeviceError, Memory};
use crate::error::{Error, Result};
use crate::execute::on_device;
use crate::memory::may_fit;
use crate::tensor::Element;
use crate::tensor::resident::Resident;
use std::fmt;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Alignment of a storage in bytes.
pub(crate) const ALIGNMENT: usize = winograph_compiler::program::ALIGNMENT;

/// Bytes on the host, aligned to a cache line, in the machine's byte order.
struct Bytes {
    /// Room for `ALIGNMENT` bytes more than are used, so that an aligned part of them can be.
    bytes: Vec<u8>,
    start: usize,
}

impl Bytes {
    /// `len` zero bytes, or [`Error::OutOfMemory`].
    fn zeroed(len: usize) -> Result<Bytes> {
        let mut out = Bytes::reserved(len)?;
        out.bytes.resize(out.start + len, 0);
        Ok(out)
    }

    /// No bytes yet, and room for `len`, of which the first is aligned.
    fn reserved(len: usize) -> Result<Bytes> {
        let whole = len.checked_add(ALIGNMENT).filter(|&n| may_fit(n)).ok_or(Error::OutOfMemory { bytes: len })?;
        let mut bytes: Vec<u8> = Vec::new();
        bytes.try_reserve_exact(whole).map_err(|_| Error::OutOfMemory { bytes: len })?;
        // `align_offset` may refuse only where pointers have no address, which is not at run time.
        let start = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        bytes.resize(start, 0);
        Ok(Bytes { bytes, start })
    }

    fn get(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    fn get_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
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
        let mut out = Bytes::reserved(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let read = from.take(len as u64).read_to_end(&mut out.bytes)?;
        match read == len {
            true => Ok(Storage::on_host(out)),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
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
        let mut out = Bytes::reserved(bytes.len())?;
        out.bytes.extend_from_slice(bytes);
        Ok(Storage::on_host(out))
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
        let mut bytes = Bytes::reserved(self.len).map_err(|_| DeviceError::OutOfMemory { bytes: self.len })?;
        if let Some((device, memory)) = &self.origin {
            device.read_new(&**memory, self.len, &mut bytes.bytes)?;
        }
        Ok(self.host.get_or_init(|| bytes).get())
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
