//! A real GPU: every kernel of the tests and whole programs, bit for bit against definitions and the CPU. Skipped with a
//! message where there is no driver, no GPU or no NVRTC.
#![cfg(feature = "cuda")]

mod kernels;

#[path = "cuda/fault.rs"]
mod fault;
#[path = "cuda/order.rs"]
mod order;

use kernels::*;
use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use winograph::cpu::CpuDevice;
use winograph::cuda::{CudaDevice, CudaOptions};
use winograph::device::{Device, DeviceError, Memory, Module};
use winograph::search::{Outcome, SearchOptions, Unwatched, search};
use winograph::{ArgSpec, ConvOptions, DType, Function, FunctionOptions, Options, Tensor, compile_with};
use winograph_compiler::options::StageRule;
use winograph_compiler::tune::{Origin, TuningRule};
use winograph_compiler::{Algorithm, Target};
use winograph_ir::Scalar;
use winograph_ir::linear::Code;

/// The first GPU with a target of the tests' choice, or a message why there is none.
fn gpu(target: Option<Target>) -> Option<CudaDevice> {
    beside();
    opened(0, target)
}

/// Held by tests that use a GPU; alone by those that compare times or take all of its memory.
static BESIDE: RwLock<()> = RwLock::new(());

thread_local! {
    /// Each test has a thread of its own.
    static HELD: RefCell<Option<RwLockReadGuard<'static, ()>>> = const { RefCell::new(None) };
}

/// Waits until no test is alone.
fn beside() {
    HELD.with_borrow_mut(|held| {
        held.get_or_insert_with(|| BESIDE.read().unwrap_or_else(PoisonError::into_inner));
    });
}

fn opened(ordinal: usize, target: Option<Target>) -> Option<CudaDevice> {
    let fetched = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().map(|p| p.join("nvrtc"));
    let asked = std::env::var_os("WINOGRAPH_NVRTC").map(PathBuf::from);
    let nvrtc = asked.or(fetched.filter(|f| f.is_dir()));
    let found = CudaDevice::with_options(ordinal, CudaOptions { nvrtc, target, ..CudaOptions::default() })
        .and_then(|d| d.nvrtc().map(|_| ()).map(|()| d));
    found.map_err(|e| eprintln!("skipped: {e}")).ok()
}

fn bytes(v: &[Scalar]) -> Vec<u8> {
    v.iter().flat_map(|s| s.bits().to_le_bytes().into_iter().take(s.dtype().size())).collect()
}

fn scalars(bytes: &[u8], dtype: DType) -> Vec<Scalar> {
    let read = |c: &[u8]| {
        let mut all = [0u8; 8];
        all[..c.len()].copy_from_slice(c);
        Scalar::from_bits(dtype, u64::from_le_bytes(all))
    };
    bytes.chunks_exact(dtype.size()).map(read).collect()
}

fn upload(gpu: &CudaDevice, v: &[Scalar]) -> Box<dyn Memory> {
    let data = bytes(v);
    let mut memory = gpu.allocate(data.len()).unwrap();
    gpu.write(&mut *memory, 0, &data).unwrap();
    memory
}

/// Runs cases and compares what they leave.
fn check(cases: Vec<Case>) {
    let Some(gpu) = gpu(None) else { return };
    let codes: Vec<_> = cases.iter().map(|c| c.code.clone()).collect();
    let module = gpu.load(&codes).unwrap();
    let mut wrong = 0;
    for (i, case) in cases.iter().enumerate() {
        let mut memory: Vec<_> = case.inputs.iter().map(|v| upload(&gpu, v)).collect();
        memory.push(upload(&gpu, &case.before));
        let args: Vec<_> = memory.iter().map(|m| m.arg(0, m.bytes()).unwrap()).collect();
        // SAFETY: the memory lives until it is read, which waits for the launch, and each case has its own.
        unsafe { module.launch(i, &args, &case.params) }.unwrap();
        let out = memory.last().unwrap();
        let mut data = vec![0; out.bytes()];
        gpu.read(&**out, 0, &mut data).unwrap();
        wrong += case.differences("cuda", &scalars(&data, case.expected[0].dtype()));
    }
    assert_eq!(wrong, 0, "{wrong} wrong values");
}

#[test]
fn elementwise_operations() {
    check(
        [ops::unary(), ops::binary(), ops::max_and_min_with_a_constant(), ops::fma()].into_iter().flatten().collect(),
    );
}

#[test]
fn conversions() {
    check([ops::casts(), ops::bitcasts()].into_iter().flatten().collect());
}

#[test]
fn other_instructions() {
    let all = [
        ops::where_of_all_widths(),
        ops::folds(),
        ops::index_and_select(),
        ops::pack_constants_and_tables(),
        ops::shuffles(),
    ];
    check(all.into_iter().flatten().collect());
}

#[test]
fn accesses() {
    check(accesses::lanes_strides_and_gates(16));
}

#[test]
fn nests_and_parameters() {
    check(nested::nested());
}

#[test]
fn threads_shared_memory_and_barriers() {
    check(threads::threads());
}

#[test]
fn matrix_units() {
    check(matrix::products());
}

/// A CPU that compiles for another target, so that both devices run the same linear code.
struct As {
    cpu: CpuDevice,
    target: Target,
}

impl Device for As {
    fn name(&self) -> &str {
        self.cpu.name()
    }

    fn target(&self) -> &Target {
        &self.target
    }

    fn compile(&self, codes: &[Code]) -> Result<Arc<dyn Module>, DeviceError> {
        self.cpu.compile(codes)
    }

    fn allocate(&self, bytes: usize) -> Result<Box<dyn Memory>, DeviceError> {
        self.cpu.allocate(bytes)
    }

    fn write(&self, to: &mut dyn Memory, offset: usize, from: &[u8]) -> Result<(), DeviceError> {
        self.cpu.write(to, offset, from)
    }

    fn read(&self, from: &dyn Memory, offset: usize, to: &mut [u8]) -> Result<(), DeviceError> {
        self.cpu.read(from, offset, to)
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        self.cpu.synchronize()
    }

    fn is_host(&self) -> bool {
        true
    }
}

/// Runs a function of one f32 argument on both and compares the bits of its result, twice: memory is used again.
fn same_as_cpu(
    what: &str,
    algorithm: Algorithm,
    shape: &[usize],
    f: impl Fn(&Tensor) -> winograph::Result<Tensor>,
) -> winograph::Result<()> {
    let target = Target::cpu(16);
    let Some(gpu) = gpu(Some(target.clone())) else { return Ok(()) };
    let devices: [Arc<dyn Device>; 2] = [Arc::new(gpu), Arc::new(As { cpu: device(None, 2), target })];
    let mut results = Vec::new();
    for device in devices {
        let options = FunctionOptions {
            device: Some(device),
            compiler: Some(Options { algorithm, ..Options::default() }),
            ..FunctionOptions::default()
        };
        let function = compile_with(&[ArgSpec::new(DType::F32, shape)], &options, |args| Ok(vec![f(&args[0])?]))?;
        let mut bits = Vec::new();
        for seed in [3, 4] {
            let x = Tensor::randn(shape, DType::F32, seed)?;
            let y = function.call(&[&x])?[0].to_vec::<f32>()?;
            bits.push(y.into_iter().map(f32::to_bits).collect::<Vec<_>>());
        }
        let mut outputs = function.buffers()?;
        let x = Tensor::randn(shape, DType::F32, 3)?;
        let times = function.call_timed(&[&x], &mut outputs.iter_mut().collect::<Vec<_>>())?;
        assert_eq!(times.len(), function.program().run.len());
        results.push(bits);
    }
    assert_eq!(results[0], results[1], "{what}");
    Ok(())
}

#[test]
fn convolutions() -> winograph::Result<()> {
    let w = Tensor::randn(&[8, 6, 3, 3], DType::F32, 1)?;
    let b = Tensor::randn(&[8], DType::F32, 2)?;
    for algorithm in [Algorithm::Direct, Algorithm::Winograd] {
        same_as_cpu(&format!("{algorithm:?}"), algorithm, &[2, 6, 17, 13], |x| {
            x.conv2d(&w, Some(&b), &ConvOptions::padding(1))?.relu()
        })?;
    }
    let w = Tensor::randn(&[6, 1, 5, 5], DType::F32, 1)?;
    let options = ConvOptions { groups: 6, ..ConvOptions::padding(2) };
    same_as_cpu("depthwise", Algorithm::Direct, &[1, 6, 20, 20], |x| x.conv2d(&w, None, &options))
}

#[test]
fn elementwise_and_reductions() -> winograph::Result<()> {
    let auto = Algorithm::Auto;
    same_as_cpu("elementwise", auto, &[3, 50], |x| x.exp()?.add(&x.sin()?)?.div(&x.tanh()?))?;
    same_as_cpu("sum", auto, &[37, 65], |x| x.sum(&[1], false))?;
    same_as_cpu("max", auto, &[37, 65], |x| x.max(&[0], false))?;
    same_as_cpu("softmax", auto, &[9, 33], |x| x.softmax(1))?;
    same_as_cpu("transposed", auto, &[33, 40], |x| x.transpose(0, 1)?.contiguous())?;
    same_as_cpu("constants alone", auto, &[4], |_| Tensor::from_slice(&[1f32, 2.0], &[2])?.exp())
}

#[test]
fn what_cannot_be_is_an_error() {
    let e = CudaDevice::new(4096).expect_err("a device");
    assert!(matches!(e, DeviceError::NoDevice { .. } | DeviceError::NoLibrary { .. }), "{e}");
    let Some(gpu) = gpu(None) else { return };
    let e = gpu.allocate(1 << 50).err().unwrap();
    assert!(matches!(e, DeviceError::OutOfMemory { .. }), "{e}");
    let mut memory = gpu.allocate(16).unwrap();
    let e = gpu.write(&mut *memory, 8, &[0; 9]).unwrap_err();
    assert!(matches!(e, DeviceError::OutOfBounds { .. }), "{e}");
    let host = device(None, 1).allocate(16).unwrap();
    let e = gpu.read(&*host, 0, &mut [0; 4]).unwrap_err();
    assert!(matches!(e, DeviceError::Foreign { .. }), "{e}");
    let e = device(None, 1).write(&mut *memory, 0, &[0; 4]).unwrap_err();
    assert!(matches!(e, DeviceError::Foreign { .. }), "{e}");
    let case = &threads::threads()[0];
    let module = gpu.load(std::slice::from_ref(&case.code)).unwrap();
    let args = [memory.arg(0, 16).unwrap(), memory.arg(0, 16).unwrap()];
    // SAFETY: refused before anything is touched.
    let e = unsafe { module.launch(0, &args, &[]) }.unwrap_err();
    assert!(matches!(e, DeviceError::Launch { .. }), "{e}");
    // SAFETY: likewise.
    let e = unsafe { module.launch(1, &args, &[]) }.unwrap_err();
    assert!(matches!(e, DeviceError::Launch { .. }), "{e}");
}

/// What only compute capability 9.0 has is used where the compiler makes code for that alone; without a compiler the target is
/// the card's.
#[test]
fn plans_use_what_card_and_compiler_have() {
    let Some(gpu) = gpu(None) else { return };
    let nvrtc = gpu.nvrtc().unwrap();
    let name = nvrtc.architecture_name(nvrtc.architecture_for(gpu.capability()).unwrap());
    let units = |gpu: &CudaDevice| gpu.target().gpu.as_ref().unwrap().units;
    let of_four_warps = |gpu: &CudaDevice| units(gpu).iter().any(|u| u.starts_with("m64"));
    eprintln!("compute capability {}: {name}, {}", gpu.capability(), units(&gpu).join(", "));
    assert_eq!(of_four_warps(&gpu), name == "sm_90a");
    assert_eq!(gpu.target().gpu.as_ref().unwrap().copies, !units(&gpu).is_empty());
    let none = CudaOptions { nvrtc: Some("/no/such/nvrtc".into()), ..CudaOptions::default() };
    let bare = CudaDevice::with_options(0, none).unwrap();
    assert_eq!(of_four_warps(&bare), gpu.capability() == 90);
}

/// The third call and those after it replay the launches of the second; other arguments give other results.
#[test]
fn calls_are_recorded_and_compiled_kernels_kept() -> winograph::Result<()> {
    let Some(first) = gpu(None) else { return Ok(()) };
    let dir = tempfile::tempdir().unwrap();
    let nvrtc = std::env::var_os("WINOGRAPH_NVRTC").map(PathBuf::from);
    let fetched = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().map(|p| p.join("nvrtc"));
    let options = CudaOptions {
        nvrtc: nvrtc.or(fetched.filter(|f| f.is_dir())),
        cache_dir: Some(dir.path().join("kernels")),
        ..CudaOptions::default()
    };
    let w = Tensor::randn(&[64, 64, 3, 3], DType::F32, 1)?;
    let x: Vec<Tensor> =
        (0..5).map(|n| Tensor::randn(&[2, 64, 28, 28], DType::F32, 7 + n)).collect::<Result<_, _>>()?;
    let (mut sources, mut results, mut times) = (Vec::new(), Vec::new(), Vec::new());
    let cached = || Arc::new(CudaDevice::with_options(0, options.clone()).unwrap());
    for device in [Arc::new(first), cached(), cached()] {
        let options = FunctionOptions {
            device: Some(device as Arc<dyn Device>),
            compiler: Some(Options { algorithm: Algorithm::Winograd, ..Options::default() }),
            ..FunctionOptions::default()
        };
        let start = std::time::Instant::now();
        let function = compile_with(&[ArgSpec::new(DType::F32, x[0].shape())], &options, |a| {
            Ok(vec![a[0].conv2d(&w, None, &ConvOptions::padding(1))?])
        })?;
        times.push(start.elapsed());
        assert!(function.program().run.len() > 1);
        let calls = x.iter().map(|x| function.call(&[x])?[0].to_vec::<f32>());
        results.push(calls.collect::<winograph::Result<Vec<_>>>()?);
        sources.push(function.source().to_string());
    }
    eprintln!("compiled, compiled and stored, from the cache: {times:?}");
    let files = std::fs::read_dir(dir.path().join("kernels")).unwrap().count();
    assert!(files >= 2 && sources[0] == sources[2], "{files} files");
    assert!(results[0] == results[1] && results[1] == results[2]);
    for (i, a) in results[0].iter().enumerate() {
        assert!(results[0][..i].iter().all(|b| a != b), "call {i} gave an earlier one's result");
    }
    Ok(())
}

#[test]
fn memory_that_ran_out_leaves_the_device_usable() {
    let Some((_alone, gpu)) = alone() else { return };
    let part = gpu.memory() / 4;
    let mut kept: Vec<Box<dyn Memory>> = Vec::new();
    let error = loop {
        match gpu.allocate(part) {
            Ok(memory) => kept.push(memory),
            Err(e) => break e,
        }
    };
    assert!(matches!(error, DeviceError::OutOfMemory { .. }) && kept.len() < 5, "{error}");
    kept.clear();
    let memory: Vec<_> = (0..2).map(|_| gpu.allocate(part).unwrap()).collect();
    let mut data = [1u8; 64];
    gpu.read(&*memory[1], part - 64, &mut data).unwrap();
    assert_eq!(data, [0; 64]);
}

#[test]
fn launches_are_timed_by_the_device() {
    let Some(gpu) = gpu(None) else { return };
    eprintln!("{}: compute capability {}, {} bytes", gpu.description(), gpu.capability(), gpu.memory());
    let case = &threads::threads()[0];
    let module = gpu.load(std::slice::from_ref(&case.code)).unwrap();
    assert!(module.resources(0).unwrap().registers > 0);
    assert_eq!(module.launch_shape(0).unwrap().0, 64);
    let memory = [upload(&gpu, &case.inputs[0]), upload(&gpu, &case.before)];
    let args: Vec<_> = memory.iter().map(|m| m.arg(0, m.bytes()).unwrap()).collect();
    // SAFETY: the memory lives until the times are there, which waits for the launches.
    let mut launch = || unsafe { module.launch(0, &args, &[]) };
    let times = gpu.time_launches(5, &mut launch).unwrap();
    assert_eq!(times.len(), 5);
    assert!(times.iter().all(|&t| t < Duration::from_secs(1)), "{times:?}");
}

/// A file that was exported on a GPU runs without NVRTC, with the same bits, and not on a processor; nor does one of a
/// processor run on a GPU.
#[test]
fn exported_functions_run_without_a_compiler() {
    let Some(gpu) = gpu(None) else { return };
    let gpu: Arc<dyn Device> = Arc::new(gpu);
    let cpu: Arc<dyn Device> = Arc::new(device(None, 1));
    let none = CudaOptions { nvrtc: Some("/no/such/nvrtc".into()), ..CudaOptions::default() };
    let bare: Arc<dyn Device> = Arc::new(CudaDevice::with_options(0, none).unwrap());
    let w = Tensor::randn(&[8, 4, 3, 3], DType::F32, 1).unwrap();
    let table = Tensor::randn(&[1, 8, 16, 16], DType::F32, 3).unwrap();
    let x = Tensor::rand(&[1, 4, 16, 16], DType::F32, 4).unwrap();
    Tensor::realize_all(&[&w, &table, &x]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.wg");
    for algorithm in [Algorithm::Direct, Algorithm::Winograd] {
        let made = |device: &Arc<dyn Device>| {
            let compiler = Options { algorithm, ..Options::default() };
            let options = FunctionOptions {
                compiler: Some(compiler),
                device: Some(device.clone()),
                ..FunctionOptions::default()
            };
            let args = [ArgSpec::new(DType::F32, &[1, 4, 16, 16])];
            let f = compile_with(&args, &options, |a| {
                let y = a[0].conv2d(&w.mul(2)?, None, &ConvOptions::padding(1))?;
                Ok(vec![y.add(&table)?, y.sum(&[1, 2, 3], false)?])
            });
            f.unwrap()
        };
        let f = made(&gpu);
        f.export(&path).unwrap();
        let bits = |f: &Function| -> Vec<Vec<u32>> {
            let all = f.call(&[&x]).unwrap();
            all.iter().map(|t| t.to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect()).collect()
        };
        let g = Function::load(&path, &bare).unwrap();
        for _ in 0..3 {
            assert_eq!(bits(&g), bits(&f));
        }
        let e = Function::load(&path, &cpu).unwrap_err().to_string();
        assert!(e.contains("NVIDIA GPU") && e.contains("cuda:0"), "{e}");
        made(&cpu).export(&path).unwrap();
        let e = Function::load(&path, &bare).unwrap_err().to_string();
        assert!(e.contains("runs on a processor"), "{e}");
    }
}

/// Arguments that are kept on the device give what those copied in each call give, in recorded calls too, and copies follow
/// the tensor that they are of.
#[test]
fn tensors_are_kept_on_the_device() -> winograph::Result<()> {
    let Some(gpu) = gpu(None) else { return Ok(()) };
    let gpu: Arc<dyn Device> = Arc::new(gpu);
    let options = FunctionOptions { device: Some(gpu.clone()), ..FunctionOptions::default() };
    let function = compile_with(&[ArgSpec::new(DType::F32, &[64, 1000])], &options, |a| {
        Ok(vec![a[0].mul(&a[0])?.sum(&[1], false)?])
    })?;
    for n in 0..4 {
        let x = Tensor::randn(&[64, 1000], DType::F32, n)?;
        let expected = function.call(&[&x])?[0].to_vec::<f32>()?;
        let kept = x.to(&*gpu)?;
        assert_eq!(kept.to_vec::<f32>()?, x.to_vec::<f32>()?);
        assert_eq!(function.call(&[&kept.to(&*gpu)?])?[0].to_vec::<f32>()?, expected);
    }
    Ok(())
}

/// One GPU by its number, or a message why there is none.
fn numbered(ordinal: usize) -> Option<CudaDevice> {
    beside();
    opened(ordinal, None)
}

/// One GPU that no other test uses meanwhile.
fn alone() -> Option<(RwLockWriteGuard<'static, ()>, CudaDevice)> {
    let held = BESIDE.write().unwrap_or_else(PoisonError::into_inner);
    opened(0, None).map(|gpu| (held, gpu))
}

/// Copies longer than a piece of staging memory, at odd places, from several threads at once, give back what was written.
#[test]
fn copies_of_all_lengths_come_back() {
    let Some(gpu) = numbered(0) else { return };
    let lengths = [1, 3, 4096, (2 << 20) - 1, 2 << 20, (2 << 20) + 1, (37 << 20) + 5];
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let gpu = &gpu;
            scope.spawn(move || {
                for (i, length) in lengths.into_iter().enumerate() {
                    let data: Vec<u8> =
                        (0..length).map(|n| (n % 251) as u8 ^ thread.wrapping_mul(31) ^ i as u8).collect();
                    let mut memory = gpu.allocate(length + 7).unwrap();
                    gpu.write(&mut *memory, 7, &data).unwrap();
                    let mut other = gpu.allocate(length + 7).unwrap();
                    gpu.copy(&mut *other, &*memory).unwrap();
                    let mut back = vec![0; length + 7];
                    gpu.read(&*other, 0, &mut back).unwrap();
                    assert!(back[..7] == [0; 7] && back[7..] == data, "{thread} {length}");
                }
            });
        }
    });
    let counts = gpu.copies();
    assert_eq!((counts.to_device, counts.within, counts.to_host, counts.from_peers), (28, 28, 28, 0));
}

/// Two values of one GPU share its memory; memory of the host or of another GPU is refused where it must be one's own.
#[test]
fn two_values_of_one_gpu_share_its_memory() {
    let (Some(a), Some(b)) = (numbered(0), numbered(0)) else { return };
    let mut memory = a.allocate(64).unwrap();
    b.write(&mut *memory, 0, &[7; 64]).unwrap();
    let mut other = b.allocate(64).unwrap();
    b.copy(&mut *other, &*memory).unwrap();
    let mut back = [0; 64];
    a.read(&*other, 0, &mut back).unwrap();
    assert_eq!(back, [7; 64]);
    assert_eq!((b.copies().within, b.copies().from_peers), (1, 0));
    let host = device(None, 1).allocate(64).unwrap();
    assert!(matches!(a.copy(&mut *other, &*host), Err(DeviceError::Foreign { .. })));
    assert!(a.reaches(&*memory) && !a.reaches(&*host));
}

/// Two GPUs at once: memory goes from one to the other directly, and functions on both, called from threads in turns, give
/// the same bits.
#[test]
fn two_gpus_in_one_process() -> winograph::Result<()> {
    let count = CudaDevice::count().unwrap_or(0);
    let missing = CudaDevice::new(count).expect_err("a number beyond the last");
    if count > 0 {
        assert!(missing.to_string().contains(&format!("no device cuda:{count}")), "{missing}");
    }
    if count < 2 {
        eprintln!("skipped: {count} GPUs where two are needed");
        return Ok(());
    }
    let (Some(a), Some(b)) = (numbered(0), numbered(1)) else { return Ok(()) };
    let data: Vec<u8> = (0..(9 << 20) + 3u32).map(|n| (n % 253) as u8).collect();
    let mut first = a.allocate(data.len()).unwrap();
    a.write(&mut *first, 0, &data).unwrap();
    assert!(matches!(b.write(&mut *first, 0, &data), Err(DeviceError::Foreign { .. })));
    assert!(matches!(b.read(&*first, 0, &mut [0; 4]), Err(DeviceError::Foreign { .. })));
    let mut second = b.allocate(data.len()).unwrap();
    b.copy(&mut *second, &*first).unwrap();
    // Freed after the copy has read it.
    drop(first);
    let mut back = vec![0; data.len()];
    b.read(&*second, 0, &mut back).unwrap();
    assert!(back == data);
    let counts = [a.copies(), b.copies()];
    assert_eq!((counts[0].to_device, counts[0].to_host, counts[0].from_peers), (1, 0, 0));
    assert_eq!((counts[1].to_device, counts[1].to_host, counts[1].from_peers), (0, 1, 1));

    let (a, b) = (Arc::new(a), Arc::new(b));
    let x = Tensor::randn(&[64, 1000], DType::F32, 1)?;
    let before = b.copies();
    let y = x.to(&*a)?.to(&*b)?;
    let after = b.copies();
    assert_eq!((after.from_peers - before.from_peers, after.to_device - before.to_device), (1, 0));
    let devices: [Arc<dyn Device>; 2] = [a, b];
    let w = Tensor::randn(&[8, 4, 3, 3], DType::F32, 2)?;
    let functions: Vec<Function> = devices
        .iter()
        .map(|device| {
            let options = FunctionOptions { device: Some(device.clone()), ..FunctionOptions::default() };
            compile_with(&[ArgSpec::new(DType::F32, &[64, 1000])], &options, |x| {
                let image = x[0].reshape(&[1, 4, 160, 100])?;
                Ok(vec![image.conv2d(&w, None, &ConvOptions::padding(1))?.softmax(1)?])
            })
        })
        .collect::<Result<_, _>>()?;
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (functions, y) = (&functions, &y);
                scope.spawn(move || -> winograph::Result<Vec<Vec<f32>>> {
                    (0..10).map(|n| functions[(n + thread) % 2].call(&[y])?[0].to_vec::<f32>()).collect()
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().expect("no panic")).collect::<winograph::Result<Vec<_>>>()
    })?;
    let expected = &results[0][0];
    assert!(results.iter().flatten().all(|r| r == expected));
    Ok(())
}

/// Five seconds of search on the device: what it tries runs and is timed, and what is stored is what later compiles take.
#[test]
fn a_search_is_found_again_in_the_store() -> winograph::Result<()> {
    let Some(first) = gpu(None) else { return Ok(()) };
    drop(first);
    let dir = tempfile::tempdir().unwrap();
    let nvrtc = std::env::var_os("WINOGRAPH_NVRTC").map(PathBuf::from);
    let fetched = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().map(|p| p.join("nvrtc"));
    let with = CudaOptions {
        nvrtc: nvrtc.or(fetched.filter(|f| f.is_dir())),
        plan_dir: Some(dir.path().join("plans")),
        ..CudaOptions::default()
    };
    let device: Arc<dyn Device> = Arc::new(CudaDevice::with_options(0, with).unwrap());
    let shape = [1, 256, 14, 14];
    let w = Tensor::randn(&[256, 256, 3, 3], DType::F32, 1)?;
    let x = Tensor::randn(&shape, DType::F32, 2)?;
    Tensor::realize_all(&[&w, &x])?;
    let args = [ArgSpec::new(DType::F32, &shape)];
    let conv = |a: &[Tensor]| Ok(vec![a[0].conv2d(&w, None, &ConvOptions::padding(1))?]);
    let options = SearchOptions { seconds: 5.0, device: Some(device.clone()), compiler: Some(Options::default()) };
    let found = search(&args, &[&x], &options, &mut Unwatched, &conv)?;
    let ran = found.tried.iter().filter(|t| t.ratio.is_finite()).count();
    eprintln!(
        "{} tried, {ran} timed, {:.3} of the heuristics\' time:\n{}",
        found.tried.len(),
        found.ratio,
        found.tuning
    );
    assert!(ran > 0 && found.ratio <= 1.0);
    assert!(found.tried.iter().all(|t| t.outcome != Outcome::OtherBits));
    // What the heuristics decided is a tuning as well.
    device.plans().unwrap().store(&found.problem, device.target(), &found.tuning).unwrap();
    let build = |tuning| {
        let compiler = Options { tuning, ..Options::default() };
        let how = FunctionOptions { device: Some(device.clone()), compiler: Some(compiler), dumps: false };
        compile_with(&args, &how, conv)
    };
    let again = build(TuningRule::Stored)?;
    assert_eq!(again.explanation().sums[0].origin, Origin::Stored);
    assert_eq!(again.source(), found.function.source());
    let values = |f: &Function| f.call(&[&x])?[0].to_vec::<f32>();
    let (new, old) = (values(&again)?, values(&build(TuningRule::Off)?)?);
    let norm = (old.iter().map(|v| v * v).sum::<f32>() / old.len() as f32).sqrt();
    assert!(new.iter().zip(&old).all(|(a, b)| (a - b).abs() <= 1e-4 * norm));
    Ok(())
}

/// Launches that are repeated for chunks of the batch leave the bits of those for the whole batch, in recorded calls too. The
/// last chunk has fewer images where their number is odd. So does one launch of workgroups.
#[test]
fn chunks_of_the_batch_are_the_same_bits() -> winograph::Result<()> {
    let Some(gpu) = gpu(None) else { return Ok(()) };
    let gpu: Arc<dyn Device> = Arc::new(gpu);
    for (images, chunks, count) in [(8, 4, 4), (7, 3, 3), (2, 8, 8)] {
        let w = Tensor::randn(&[48, 32, 3, 3], DType::F32, 1)?;
        let x: Vec<Tensor> =
            (0..4).map(|n| Tensor::randn(&[images, 32, 30, 30], DType::F32, 7 + n)).collect::<Result<_, _>>()?;
        let build = |stages| {
            let compiler = Options { algorithm: Algorithm::Winograd, stages, ..Options::default() };
            let how = FunctionOptions { device: Some(gpu.clone()), compiler: Some(compiler), dumps: false };
            compile_with(&[ArgSpec::new(DType::F32, x[0].shape())], &how, |a| {
                Ok(vec![a[0].conv2d(&w, None, &ConvOptions::padding(1))?.relu()?])
            })
        };
        let (whole, chunked) = (build(StageRule::Global)?, build(StageRule::Chunks(chunks))?);
        assert_eq!(chunked.explanation().scopes[0].chunks, Some(count));
        assert_eq!(chunked.program().run.len(), 3 * count as usize);
        assert!(chunked.program().arena_bytes < whole.program().arena_bytes);
        let fused = build(StageRule::Fused)?;
        assert_eq!((fused.program().run.len(), fused.program().arena_bytes), (1, 0));
        // The third call and those after it are replayed.
        for x in &x {
            let bits = |f: &Function| -> winograph::Result<Vec<u32>> {
                Ok(f.call(&[x])?[0].to_vec::<f32>()?.into_iter().map(f32::to_bits).collect())
            };
            let want = bits(&whole)?;
            assert!(bits(&chunked)? == want, "{images} images in {chunks} chunks");
            assert!(bits(&fused)? == want, "{images} images in one launch");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.wg");
        chunked.export(&path)?;
        let loaded = Function::load(&path, &gpu)?;
        assert!(loaded.call(&[&x[0]])?[0].to_vec::<f32>()? == whole.call(&[&x[0]])?[0].to_vec::<f32>()?);
    }
    Ok(())
}
