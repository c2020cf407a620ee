//! Devices whose memory is not the host's: arguments, constants and prepared memory have copies there, and results stay there
//! until they are read.

mod kernels;

use kernels::device;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use winograph::cpu::CpuDevice;
use winograph::device::{Arg, Device, DeviceError, Memory, Module};
use winograph::safetensors::SafeTensors;
use winograph::{ArgSpec, ConvOptions, DType, Function, FunctionOptions, Tensor, compile_with};
use winograph_compiler::Target;
use winograph_ir::linear::Code;

/// Bytes of one piece of memory, at most.
const MEMORY: usize = 1 << 20;

/// A CPU that says that its memory is its own, and refuses launches on any other.
struct Far {
    cpu: CpuDevice,
    /// Copies between it and the host.
    copies: AtomicUsize,
    /// Copies within its memory.
    within: AtomicUsize,
    allocations: AtomicUsize,
    /// Bytes that are allocated and not freed; at most so many may be.
    held: Arc<AtomicUsize>,
    most: AtomicUsize,
    /// Whether nothing can be read from it any more.
    broken: AtomicBool,
}

impl Far {
    fn new(threads: usize) -> Arc<Far> {
        Arc::new(Far {
            cpu: device(None, threads),
            copies: AtomicUsize::new(0),
            within: AtomicUsize::new(0),
            allocations: AtomicUsize::new(0),
            held: Arc::default(),
            most: AtomicUsize::new(usize::MAX),
            broken: AtomicBool::new(false),
        })
    }

    /// Copies so far: with the host, and within.
    fn counts(&self) -> (usize, usize) {
        (self.copies.load(Ordering::Relaxed), self.within.load(Ordering::Relaxed))
    }

    fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

struct FarMemory(Box<dyn Memory>, Arc<AtomicUsize>);

impl Drop for FarMemory {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0.bytes(), Ordering::Relaxed);
    }
}

// SAFETY: the memory within keeps the promise.
unsafe impl Memory for FarMemory {
    fn bytes(&self) -> usize {
        self.0.bytes()
    }

    fn address(&self) -> *mut u8 {
        self.0.address()
    }

    fn is_host(&self) -> bool {
        false
    }
}

impl Far {
    fn part(memory: &dyn Memory, offset: usize, bytes: usize) -> Result<Arg, DeviceError> {
        assert!(!memory.is_host());
        memory.arg(offset, bytes).ok_or(DeviceError::OutOfBounds { offset, bytes, len: memory.bytes() })
    }
}

impl Device for Far {
    fn name(&self) -> &str {
        "far"
    }

    fn target(&self) -> &Target {
        self.cpu.target()
    }

    fn compile(&self, codes: &[Code]) -> Result<Arc<dyn Module>, DeviceError> {
        self.cpu.compile(codes)
    }

    fn allocate(&self, bytes: usize) -> Result<Box<dyn Memory>, DeviceError> {
        self.allocations.fetch_add(1, Ordering::Relaxed);
        if bytes > MEMORY || self.held() + bytes > self.most.load(Ordering::Relaxed) {
            return Err(DeviceError::OutOfMemory { bytes });
        }
        self.held.fetch_add(bytes, Ordering::Relaxed);
        Ok(Box::new(FarMemory(self.cpu.allocate(bytes)?, self.held.clone())))
    }

    fn copy(&self, to: &mut dyn Memory, from: &dyn Memory) -> Result<(), DeviceError> {
        self.within.fetch_add(1, Ordering::Relaxed);
        let bytes = from.bytes().min(to.bytes());
        let (from, to) = (Far::part(from, 0, bytes)?, Far::part(to, 0, bytes)?);
        // SAFETY: as many bytes are at both, which are two pieces of memory, one of them borrowed for writing.
        unsafe { std::ptr::copy_nonoverlapping(from.address, to.address, bytes) };
        Ok(())
    }

    fn write(&self, to: &mut dyn Memory, offset: usize, from: &[u8]) -> Result<(), DeviceError> {
        self.copies.fetch_add(1, Ordering::Relaxed);
        let arg = Far::part(to, offset, from.len())?;
        // SAFETY: as many bytes are there, borrowed for writing.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), arg.address, from.len()) };
        Ok(())
    }

    fn read(&self, from: &dyn Memory, offset: usize, to: &mut [u8]) -> Result<(), DeviceError> {
        self.copies.fetch_add(1, Ordering::Relaxed);
        if self.broken.load(Ordering::Relaxed) {
            return Err(DeviceError::Driver { action: "run kernels".into(), reason: "it fell off the bus".into() });
        }
        let arg = Far::part(from, offset, to.len())?;
        // SAFETY: as many bytes are there.
        unsafe { std::ptr::copy_nonoverlapping(arg.address, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

/// A function of a device: of two pictures, with the picture's sums and a picture.
fn build(device: Arc<dyn Device>) -> winograph::Result<Function> {
    let (w, b) = (Tensor::randn(&[8, 4, 3, 3], DType::F32, 1)?, Tensor::randn(&[8], DType::F32, 2)?);
    let args = [ArgSpec::new(DType::F32, &[1, 4, 20, 20]), ArgSpec::new(DType::F32, &[1, 8, 20, 20])];
    let options = FunctionOptions { device: Some(device), ..FunctionOptions::default() };
    compile_with(&args, &options, |x| {
        let y = x[0].conv2d(&w, Some(&b), &ConvOptions::padding(1))?.add(&x[1])?;
        Ok(vec![y.sum(&[2, 3], false)?, y])
    })
}

#[test]
fn results_are_the_same_and_memory_is_used_again() -> winograph::Result<()> {
    let far = Far::new(2);
    let (on_far, on_near) = (build(far.clone())?, build(Arc::new(device(None, 2)))?);
    let allocated = far.allocations.load(Ordering::Relaxed);
    let mut buffers = on_far.buffers()?;
    for seed in 0..3 {
        let x = Tensor::randn(&[1, 4, 20, 20], DType::F32, seed)?;
        let y = Tensor::randn(&[1, 8, 20, 20], DType::F32, seed + 10)?;
        let before = far.counts();
        on_far.call_into(&[&x, &y], &mut buffers.iter_mut().collect::<Vec<_>>())?;
        assert_eq!(far.counts(), (before.0 + 4, before.1), "two arguments and two results");
        for (a, b) in buffers.iter().zip(&on_near.call(&[&x, &y])?) {
            assert_eq!(a.to_vec::<f32>()?, b.to_vec::<f32>()?);
        }
    }
    // Intermediates, two arguments and two results.
    assert_eq!(far.allocations.load(Ordering::Relaxed) - allocated, 5);
    Ok(())
}

/// Calls in a chain move nothing through the host; what is read is copied once, and memory is freed with its tensor.
#[test]
fn results_stay_on_the_device() -> winograph::Result<()> {
    let far = Far::new(2);
    let near: Arc<dyn Device> = Arc::new(device(None, 2));
    let (on_far, on_near) = (build(far.clone())?, build(near.clone())?);
    let x = Tensor::randn(&[1, 4, 20, 20], DType::F32, 5)?;
    let mut y = Tensor::randn(&[1, 8, 20, 20], DType::F32, 6)?;
    let mut expected = y.clone();
    on_far.call(&[&x, &y])?;
    let (held, before) = (far.held(), far.counts());
    let kept = x.to(&*far)?;
    for _ in 0..5 {
        y = on_far.call(&[&kept, &y])?.swap_remove(1);
        expected = on_near.call(&[&x, &expected])?.swap_remove(1);
    }
    assert!(y.is_realized());
    assert_eq!(far.counts().0, before.0 + 2, "the picture, and what the chain starts with");
    assert_eq!(far.held(), held + 4 * (4 + 8) * 400, "the picture and the last result");
    assert_eq!(y.to_vec::<f32>()?, expected.to_vec::<f32>()?);
    assert_eq!(y.to_host()?.to_npy()?, expected.to_npy()?);
    assert_eq!(y.to(&*near)?.to_vec::<f32>()?, expected.to_vec::<f32>()?);
    assert_eq!(far.counts().0, before.0 + 3, "read once");
    // As a constant of a function, on the device and on the host; as an argument on the host; by name in a file.
    let double = |device: Arc<dyn Device>, t: &Tensor| -> winograph::Result<Vec<f32>> {
        let options = FunctionOptions { device: Some(device), ..FunctionOptions::default() };
        compile_with(&[], &options, |_| Ok(vec![t.add(t)?]))?.call(&[])?[0].to_vec()
    };
    let fresh = || -> winograph::Result<Tensor> { Ok(on_far.call(&[&kept, &y])?.swap_remove(1)) };
    let last = on_near.call(&[&x, &expected])?.swap_remove(1);
    assert_eq!(double(far.clone(), &fresh()?)?, double(near.clone(), &last)?);
    assert_eq!(double(near.clone(), &fresh()?)?, double(near.clone(), &last)?);
    let sums = |t: &Tensor| on_near.call(&[&x, t])?[0].to_vec::<f32>();
    assert_eq!(sums(&fresh()?)?, sums(&last)?);
    assert_eq!(fresh()?.mul(2)?.to_vec::<f32>()?, last.mul(2)?.to_vec::<f32>()?);
    let bytes = |t: Tensor| SafeTensors::new(vec![("y".into(), t)])?.to_bytes();
    assert_eq!(bytes(fresh()?)?, bytes(last)?);
    drop((x, y, kept));
    assert_eq!(far.held(), held);
    Ok(())
}

/// A device that fails when results are read is an error of the reader; one without memory for results gives them to the host.
#[test]
fn what_a_device_runs_into_is_told() -> winograph::Result<()> {
    let far = Far::new(1);
    let f = build(far.clone())?;
    let (x, y) = (Tensor::ones(&[1, 4, 20, 20], DType::F32)?, Tensor::ones(&[1, 8, 20, 20], DType::F32)?);
    let [expected, _] = &f.call(&[&x, &y])?[..] else { panic!("two results") };
    let expected = expected.to_vec::<f32>()?;
    far.most.store(far.held(), Ordering::Relaxed);
    let full = f.call(&[&x, &y])?;
    far.broken.store(true, Ordering::Relaxed);
    assert_eq!(full[0].to_vec::<f32>()?, expected);
    far.most.store(usize::MAX, Ordering::Relaxed);
    let lost = f.call(&[&x, &y])?;
    for e in [lost[0].to_vec::<f32>().unwrap_err(), lost[0].to_host().unwrap_err(), lost[0].to_npy().unwrap_err()] {
        assert!(matches!(e, winograph::Error::Execution { .. }), "{e}");
    }
    far.broken.store(false, Ordering::Relaxed);
    assert_eq!(lost[0].to_vec::<f32>()?, expected);
    Ok(())
}

#[test]
fn a_device_without_memory_is_an_error() -> winograph::Result<()> {
    let far = Far::new(1);
    let options = FunctionOptions { device: Some(far), ..FunctionOptions::default() };
    let shape = [MEMORY / 2];
    let f = compile_with(&[ArgSpec::new(DType::F32, &shape)], &options, |x| Ok(vec![x[0].sum(&[], false)?]))?;
    let x = Tensor::zeros(&shape, DType::F32)?;
    let e = f.call(&[&x]).unwrap_err();
    assert!(matches!(e, winograph::Error::OutOfMemory { .. }), "{e}");
    Ok(())
}
