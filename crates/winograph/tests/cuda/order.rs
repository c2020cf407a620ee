//! The order of copies and launches: what waits for what, and what does not.

use super::{alone, device, gpu, numbered};
use std::sync::Arc;
use std::time::{Duration, Instant};
use winograph::cuda::CudaDevice;
use winograph::device::{Arg, Device, DeviceError, Memory, Module};
use winograph::{ArgSpec, DType, FunctionOptions, Options, Tensor, compile_with, plan};
use winograph_compiler::{Place, Program, Target};

/// A program with memory of its own for each buffer.
struct Loaded {
    program: Program,
    module: Arc<dyn Module>,
    memory: Vec<Box<dyn Memory>>,
}

impl Loaded {
    fn new(gpu: &CudaDevice, n: usize, f: impl FnOnce(&[Tensor]) -> winograph::Result<Vec<Tensor>>) -> Loaded {
        let args = [ArgSpec::new(DType::F32, &[n, n])];
        let (program, _) = plan(&args, gpu.target(), &Options::default(), false, f).unwrap();
        let module = gpu.compile(&program.kernels).unwrap();
        let memory = program.buffers.iter().map(|b| gpu.allocate(b.len * b.dtype.size()).unwrap()).collect();
        Loaded { program, module, memory }
    }

    fn at(&self, place: Place) -> usize {
        self.program.buffers.iter().position(|b| b.place == place).unwrap()
    }

    /// Queues a call, with its result in other memory where some is given.
    fn queue(&self, result: Option<&dyn Memory>) {
        let out = self.at(Place::Output(0));
        for step in self.program.prepare.iter().chain(&self.program.run) {
            let memory = |&at: &usize| match result {
                Some(other) if at == out => other.arg(0, other.bytes()).unwrap(),
                _ => self.memory[at].arg(0, self.memory[at].bytes()).unwrap(),
            };
            let args: Vec<Arg> = step.args.iter().map(memory).collect();
            // SAFETY: each buffer has memory of its own, which is freed in the order of launches; one queue runs them.
            unsafe { self.module.launch(step.kernel, &args, &[]) }.unwrap();
        }
    }
}

/// While the GPU is busy for a long time, bytes go there and back again in a fraction of it; a copy of memory that the
/// launches write comes after them.
#[test]
fn copies_wait_for_their_own_memory_alone() {
    let Some((_alone, gpu)) = alone() else { return };
    let w = Tensor::randn(&[2048, 2048], DType::F32, 1).unwrap();
    let busy = Loaded::new(&gpu, 2048, |x| Ok(vec![x[0].matmul(&w)?]));
    let queue = || (0..200).for_each(|_| busy.queue(None));
    let time = |_| {
        let times = gpu.time_launches(1, &mut || {
            queue();
            Ok(())
        });
        times.unwrap()[0]
    };
    let whole = (0..3).map(time).min().unwrap();
    let data: Vec<u8> = (0..(3 << 20) + 1u32).map(|n| (n % 249) as u8).collect();
    let (mut back, mut own) = (vec![0; data.len()], gpu.allocate(data.len()).unwrap());
    gpu.synchronize().unwrap();
    queue();
    let start = Instant::now();
    gpu.write(&mut *own, 0, &data).unwrap();
    gpu.read(&*own, 0, &mut back).unwrap();
    let to_own = start.elapsed();
    assert!(back == data);
    back.fill(0);
    let new = gpu.upload(&data).unwrap();
    gpu.read(&*new, 0, &mut back).unwrap();
    let to_new = start.elapsed();
    assert!(back == data);
    let mut one = [0; 4];
    gpu.read(&*busy.memory[busy.at(Place::Output(0))], 0, &mut one).unwrap();
    let result = start.elapsed();
    eprintln!(
        "launches of {whole:?}: bytes to memory of their own and back after {to_own:?}, to new memory {to_new:?}, the result \
         after {result:?}"
    );
    assert!(to_new < whole / 2 && to_new < result, "{to_new:?} of {whole:?}, {result:?}");
}

/// Memory that is not there is looked for until the GPU is idle; others queue what they have meanwhile.
#[test]
fn nobody_waits_for_an_allocation_of_another_thread() {
    let Some((_alone, gpu)) = alone() else { return };
    let w = Tensor::randn(&[2048, 2048], DType::F32, 1).unwrap();
    let busy = Loaded::new(&gpu, 2048, |x| Ok(vec![x[0].matmul(&w)?]));
    gpu.synchronize().unwrap();
    let start = Instant::now();
    (0..200).for_each(|_| busy.queue(None));
    let (marked, refused) = std::thread::scope(|scope| {
        let refused = scope.spawn(|| {
            let refused = matches!(gpu.allocate(2 * gpu.memory()), Err(DeviceError::OutOfMemory { .. }));
            refused.then(|| start.elapsed())
        });
        std::thread::sleep(Duration::from_millis(5));
        busy.queue(None);
        gpu.mark().unwrap();
        (start.elapsed(), refused.join().expect("no panic").expect("no memory"))
    });
    eprintln!("queued after {marked:?}, while another thread waited for memory until {refused:?}");
    assert!(marked < refused / 2, "{marked:?} of {refused:?}");
}

/// What was uploaded is there for who reads it on another queue after a launch has read it.
#[test]
fn a_copy_of_an_upload_is_no_end_of_it() {
    let Some(gpu) = numbered(0) else { return };
    let data: Vec<u8> = (0..64 << 20).map(|n: u32| (n % 251) as u8).collect();
    let mut back = vec![0; data.len()];
    for _ in 0..10 {
        let new = gpu.upload(&data).unwrap();
        let other = gpu.duplicate(&*new, data.len()).unwrap();
        for from in [&new, &other] {
            back.fill(0);
            gpu.read(&**from, 0, &mut back).unwrap();
            assert!(back == data);
        }
    }
}

/// Memory that queued launches use is written again and again without waiting: each launch sees what was written before it
/// and not what came after.
#[test]
fn launches_see_what_was_written_before_them() {
    let Some(gpu) = gpu(Some(Target::cpu(16))) else { return };
    const N: usize = 300;
    let mut double = Loaded::new(&gpu, N, |x| Ok(vec![x[0].add(&x[0])?]));
    let x = double.at(Place::Argument(0));
    let values = |round: usize| (0..N * N).map(|i| (i % 1000 + round) as f32).collect::<Vec<_>>();
    let bytes = |v: &[f32]| v.iter().flat_map(|x| x.to_ne_bytes()).collect::<Vec<_>>();
    for _ in 0..3 {
        let mut results = Vec::new();
        for round in 0..20 {
            // Two writes: the second is to memory that only a copy uses. Each third time a part is written at a time.
            gpu.write(&mut *double.memory[x], 0, &vec![0xff; N * N * 4]).unwrap();
            let data = bytes(&values(round));
            let part = if round % 3 == 0 { 12_344 } else { data.len() };
            for (i, chunk) in data.chunks(part).enumerate() {
                gpu.write(&mut *double.memory[x], i * part, chunk).unwrap();
            }
            // Nothing uses these bytes before their memory is used again.
            drop(gpu.upload(&vec![0x7f; N * N * 4]).unwrap());
            let result = gpu.allocate(N * N * 4).unwrap();
            double.queue(Some(&*result));
            if round % 4 == 0 {
                gpu.mark().unwrap();
            }
            results.push(result);
        }
        for (round, result) in results.iter().enumerate() {
            let mut back = vec![0; N * N * 4];
            gpu.read(&**result, 0, &mut back).unwrap();
            let expected: Vec<f32> = values(round).iter().map(|x| x + x).collect();
            assert!(back == bytes(&expected), "{round}");
        }
    }
}

/// Threads that call functions with arguments from the host and from the device, and drop what they have made at once, get
/// the results of their own arguments.
#[test]
fn memory_that_is_used_again_is_ordered() -> winograph::Result<()> {
    let Some(gpu) = gpu(Some(Target::cpu(16))) else { return Ok(()) };
    let gpu: Arc<dyn Device> = Arc::new(gpu);
    let cpu: Arc<dyn Device> = Arc::new(device(None, 1));
    let shape = [37, 61];
    let w = Tensor::randn(&[61, 61], DType::F32, 1)?;
    let build = |device: &Arc<dyn Device>| {
        let options = FunctionOptions { device: Some(device.clone()), ..FunctionOptions::default() };
        compile_with(&[ArgSpec::new(DType::F32, &shape)], &options, |x| {
            let y = x[0].matmul(&w)?.relu()?;
            Ok(vec![y.sub(&y.max(&[1], true)?)?])
        })
    };
    let (f, expected) = (build(&gpu)?, build(&cpu)?);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (f, expected, gpu) = (&f, &expected, &gpu);
                scope.spawn(move || -> winograph::Result<()> {
                    for n in 0..25 {
                        let x = Tensor::randn(&shape, DType::F32, 100 * thread + n)?;
                        x.realize()?;
                        let got = match n % 3 {
                            0 => f.call(&[&x])?,
                            1 => f.call(&[&x.to(&**gpu)?])?,
                            _ => {
                                let mut buffers = f.buffers()?;
                                f.call_into(&[&x], &mut buffers.iter_mut().collect::<Vec<_>>())?;
                                buffers.into_iter().map(|b| b.into_tensor()).collect()
                            }
                        };
                        let (got, want) = (got[0].to_vec::<f32>()?, expected.call(&[&x])?[0].to_vec::<f32>()?);
                        let off = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
                        assert!(off < 1e-4, "{thread} {n}: {off}");
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|t| t.join().expect("no panic"))
    })
}

/// A chain of calls moves nothing through the host; what is read is copied once, while later calls run on; memory that was
/// freed with its tensors is used again.
#[test]
fn results_stay_on_the_device() -> winograph::Result<()> {
    let Some(gpu) = gpu(Some(Target::cpu(16))) else { return Ok(()) };
    let gpu = Arc::new(gpu);
    let cpu: Arc<dyn Device> = Arc::new(device(None, 1));
    let shape = [64, 48];
    let w = Tensor::randn(&[48, 48], DType::F32, 1)?.mul(0.2)?;
    let build = |device: Arc<dyn Device>| {
        let options = FunctionOptions { device: Some(device), ..FunctionOptions::default() };
        let args = [ArgSpec::new(DType::F32, &shape), ArgSpec::new(DType::F32, &shape)];
        compile_with(&args, &options, |x| {
            let y = x[0].matmul(&w)?.add(&x[1])?;
            Ok(vec![y.max(&[1], false)?, y.relu()?])
        })
    };
    let (on_gpu, on_cpu) = (build(gpu.clone())?, build(cpu)?);
    let x = Tensor::randn(&shape, DType::F32, 2)?;
    x.realize()?;
    let kept = x.to(&*gpu)?;
    let (mut y, mut expected) = (kept.clone(), x.clone());
    let before = gpu.copies();
    let mut all = Vec::new();
    for _ in 0..30 {
        let mut results = on_gpu.call(&[&y, &kept])?;
        y = results.swap_remove(1);
        all.extend(results);
        expected = on_cpu.call(&[&expected, &x])?.swap_remove(1);
    }
    let after = gpu.copies();
    assert_eq!((after.to_device - before.to_device, after.to_host - before.to_host), (0, 0));
    assert!(after.within - before.within >= 60, "arguments and results, on the device: {after:?}");
    let off = |a: &Tensor, b: &Tensor| -> winograph::Result<f32> {
        let (a, b) = (a.to_vec::<f32>()?, b.to_vec::<f32>()?);
        let scale = b.iter().fold(1f32, |m, x| m.max(x.abs()));
        Ok(a.iter().zip(&b).map(|(a, b)| (a - b).abs() / scale).fold(0f32, f32::max))
    };
    assert!(off(&y, &expected)? < 1e-3, "{}", off(&y, &expected)?);
    assert_eq!(y.to_host()?.to_npy()?, y.to_npy()?);
    assert_eq!(gpu.copies().to_host - after.to_host, 1, "read once");
    // Results of all calls are what they were, whatever was computed later.
    let (mut again, mut read) = (x.clone(), Vec::new());
    for result in &all {
        let mut results = on_cpu.call(&[&again, &x])?;
        again = results.swap_remove(1);
        assert!(off(result, &results[0])? < 1e-3);
        read.push(result.to_vec::<f32>()?);
    }
    assert_eq!(gpu.copies().to_host - after.to_host, 31);
    drop(all);
    // Results that nobody reads are dropped, and their memory is used by later ones.
    for _ in 0..200 {
        on_gpu.call(&[&y, &kept])?;
    }
    let mut y = kept.clone();
    for expected in &read {
        let mut results = on_gpu.call(&[&y, &kept])?;
        y = results.swap_remove(1);
        assert!(&results[0].to_vec::<f32>()? == expected);
    }
    // A function of the processor takes them, too.
    assert!(off(&on_cpu.call(&[&y, &kept])?[0], &on_gpu.call(&[&y, &kept])?[0])? < 1e-3);
    Ok(())
}

/// Calls return before they have run: while one runs, the next one's argument is copied and the last one's result read.
#[test]
fn calls_return_before_they_have_run() -> winograph::Result<()> {
    let Some((_alone, gpu)) = alone() else { return Ok(()) };
    let gpu = Arc::new(gpu);
    let options = FunctionOptions { device: Some(gpu.clone()), ..FunctionOptions::default() };
    let w = Tensor::randn(&[2048, 2048], DType::F32, 1)?.mul(0.02)?;
    let f = compile_with(&[ArgSpec::new(DType::F32, &[2048, 2048])], &options, |x| {
        Ok(vec![(0..40).try_fold(x[0].clone(), |x, _| x.matmul(&w))?.sum(&[], false)?])
    })?;
    let x = Tensor::randn(&[2048, 2048], DType::F32, 2)?.to(&*gpu)?;
    let mut whole = Vec::new();
    for _ in 0..4 {
        let start = Instant::now();
        f.call(&[&x])?[0].item::<f32>()?;
        whole.push(start.elapsed());
    }
    let whole = whole[1..].iter().min().copied().unwrap_or_default();
    let first = f.call(&[&x])?;
    gpu.synchronize().unwrap();
    let start = Instant::now();
    let second = f.call(&[&x])?;
    let returned = start.elapsed();
    let one = first[0].item::<f32>()?;
    let read = start.elapsed();
    let other = second[0].item::<f32>()?;
    let over = start.elapsed();
    eprintln!(
        "a call of {whole:?} returned after {returned:?}; the one before was read after {read:?}, it after {over:?}"
    );
    assert_eq!(one.to_bits(), other.to_bits());
    assert!(read < whole / 2 && read < over, "{read:?} of {whole:?}");
    Ok(())
}
