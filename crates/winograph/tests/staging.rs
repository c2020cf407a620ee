//! Devices whose memory is not the host's: arguments, constants, prepared memory and results have copies there.

mod kernels;

use kernels::device;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use winograph::cpu::CpuDevice;
use winograph::device::{Arg, Device, DeviceError, Memory, Module};
use winograph::{ArgSpec, ConvOptions, DType, FunctionOptions, Tensor, compile_with};
use winograph_compiler::Target;
use winograph_ir::linear::Code;

/// Bytes of one piece of memory, at most.
const MEMORY: usize = 1 << 20;

/// A CPU that says that its memory is its own, and refuses launches on any other.
struct Far {
    cpu: CpuDevice,
    copies: AtomicUsize,
    allocations: AtomicUsize,
}

struct FarMemory(Box<dyn Memory>);

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
        if bytes > MEMORY {
            return Err(DeviceError::OutOfMemory { bytes });
        }
        Ok(Box::new(FarMemory(self.cpu.allocate(bytes)?)))
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
        let arg = Far::part(from, offset, to.len())?;
        // SAFETY: as many bytes are there.
        unsafe { std::ptr::copy_nonoverlapping(arg.address, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

#[test]
fn results_are_the_same_and_memory_is_used_again() -> winograph::Result<()> {
    let far = Arc::new(Far { cpu: device(None, 2), copies: AtomicUsize::new(0), allocations: AtomicUsize::new(0) });
    let near: Arc<dyn Device> = Arc::new(device(None, 2));
    let (w, b) = (Tensor::randn(&[8, 4, 3, 3], DType::F32, 1)?, Tensor::randn(&[8], DType::F32, 2)?);
    let args = [ArgSpec::new(DType::F32, &[1, 4, 20, 20]), ArgSpec::new(DType::F32, &[1, 8, 20, 20])];
    let build = |device: Arc<dyn Device>| {
        let options = FunctionOptions { device: Some(device), ..FunctionOptions::default() };
        compile_with(&args, &options, |x| {
            let y = x[0].conv2d(&w, Some(&b), &ConvOptions::padding(1))?.add(&x[1])?;
            Ok(vec![y.sum(&[2, 3], false)?, y])
        })
    };
    let (on_far, on_near) = (build(far.clone())?, build(near)?);
    let allocated = far.allocations.load(Ordering::Relaxed);
    for seed in 0..3 {
        let x = Tensor::randn(&[1, 4, 20, 20], DType::F32, seed)?;
        let y = Tensor::randn(&[1, 8, 20, 20], DType::F32, seed + 10)?;
        far.copies.store(0, Ordering::Relaxed);
        let (a, b) = (on_far.call(&[&x, &y])?, on_near.call(&[&x, &y])?);
        assert_eq!(far.copies.load(Ordering::Relaxed), 4, "two arguments and two results");
        for (a, b) in a.iter().zip(&b) {
            assert_eq!(a.to_vec::<f32>()?, b.to_vec::<f32>()?);
        }
    }
    // Intermediates, two arguments and two results.
    assert_eq!(far.allocations.load(Ordering::Relaxed) - allocated, 5);
    Ok(())
}

#[test]
fn a_device_without_memory_is_an_error() -> winograph::Result<()> {
    let far = Arc::new(Far { cpu: device(None, 1), copies: AtomicUsize::new(0), allocations: AtomicUsize::new(0) });
    let options = FunctionOptions { device: Some(far), ..FunctionOptions::default() };
    let shape = [MEMORY / 2];
    let f = compile_with(&[ArgSpec::new(DType::F32, &shape)], &options, |x| Ok(vec![x[0].sum(&[], false)?]))?;
    let x = Tensor::zeros(&shape, DType::F32)?;
    let e = f.call(&[&x]).unwrap_err();
    assert!(matches!(e, winograph::Error::OutOfMemory { .. }), "{e}");
    Ok(())
}
