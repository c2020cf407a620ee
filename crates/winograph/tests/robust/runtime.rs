//! Every public function that is no operation on tensors: functions, devices, settings, models, with random arguments.
//! `coverage.rs` compares the list with the source.

use super::operations::Pool;
use super::source::{FEW, Source};
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use winograph::cpu::{
    Buffer, Cache, CheckedKernels, Compiler, CpuDevice, CpuOptions, Loaded, Machine, Pool as Threads, Share,
    capped_target, host_target,
};
use winograph::device::{Device, Memory, Module, ProgramStore};
use winograph::env::Env;
use winograph::export::{CodeForm, Exported, GpuCode, Platform, seal};
use winograph::files::write_atomically;
use winograph::model::{PictureAxes, Session, Value, conformance};
use winograph::nn::{self, Layer as _, Parameters};
use winograph::safetensors::SafeTensors;
use winograph::search::{Outcome, PlanStore, SearchOptions, Unwatched, Watch as _, search};
use winograph::settings::{self, Settings};
use winograph::temporary::Cleanup;
use winograph::virtual_gpu::VirtualGpu;
use winograph::{
    ArgSpec, ConvOptions, DType, Function, FunctionOptions, Model, Options, Tensor, TensorBuffer, compile,
    compile_with, function, plan, plan_stored,
};
use winograph_compiler::Target;
use winograph_compiler::tune::{Problem, Tuning};

/// Code for a GPU, of any kind.
fn code(s: &mut Source) -> GpuCode {
    let form = [CodeForm::Exact, CodeForm::Machine, CodeForm::Ptx][s.below(3)];
    GpuCode { capability: s.size() as u32, form }
}

/// What is made once for all calls.
pub struct Context {
    f: Function,
    device: CpuDevice,
    gpu: VirtualGpu,
    kernels: CheckedKernels,
    compiler: Compiler,
    onnx: Vec<u8>,
    cpu: Arc<dyn Device>,
    exported: Vec<u8>,
    session: Session,
    dir: tempfile::TempDir,
}

/// Calls a function; its error as text.
pub type Call = fn(&mut Source, &Context) -> Result<(), String>;

fn told<T, E: Display>(r: Result<T, E>) -> Result<(), String> {
    r.map(|_| ()).map_err(|e| e.to_string())
}

/// Something about the device's programs, which may be kept nowhere.
fn with_programs(c: &Context, holds: impl FnOnce(&dyn ProgramStore) -> bool) -> Result<(), String> {
    let programs = c.device.programs().ok_or("it keeps none")?;
    if holds(programs) { Ok(()) } else { Err("what it keeps is not what was kept".into()) }
}

/// The kernels of a function, compiled.
fn module(c: &Context) -> Result<Arc<dyn Module>, String> {
    c.device.compile(&c.f.program().kernels).map_err(|e| e.to_string())
}

/// A field of a protobuf message.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

/// `y = Relu(x)` of f32[3].
fn onnx() -> Vec<u8> {
    let shape = field(1, &[1 << 3, 3]);
    let tensor = field(1, &[vec![1 << 3, 1], field(2, &shape)].concat());
    let port = |name: &[u8]| [field(1, name), field(2, &tensor)].concat();
    let node = [field(1, b"x"), field(2, b"y"), field(4, b"Relu")].concat();
    let graph = [field(1, &node), field(2, b"g"), field(11, &port(b"x")), field(12, &port(b"y"))].concat();
    [vec![1 << 3, 8], field(7, &graph), field(8, &[2 << 3, 13])].concat()
}

impl Context {
    pub fn new() -> Context {
        let dir = tempfile::tempdir().unwrap();
        let specs = [ArgSpec::new(DType::F32, &[2, 3]), ArgSpec::new(DType::I32, &[2])];
        let f = compile(&specs, |a| Ok(vec![a[0].sum(&[1], false)?, a[1].add(1)?])).unwrap();
        let env = Env::read().unwrap();
        let options =
            CpuOptions { threads: Some(2), cache_dir: Some(dir.path().join("kernels")), ..CpuOptions::from_env(&env) };
        let device = CpuDevice::new(options).unwrap();
        let kernels = CheckedKernels::new(&device, &f.program().kernels).unwrap().0;
        let compiler = device.compiler().unwrap().clone();
        let onnx = onnx();
        let model = Model::from_onnx(&onnx).unwrap();
        let session = model.compile_with(FunctionOptions::default()).unwrap();
        let gpu = VirtualGpu::new("cuda:sm_80").unwrap();
        let path = dir.path().join("exported.wg");
        f.export(&path).unwrap();
        let (cpu, exported) = (settings::settings().unwrap().device.clone(), std::fs::read(path).unwrap());
        Context { f, device, gpu, kernels, compiler, onnx, cpu, exported, session, dir }
    }

    fn file(&self, s: &mut Source) -> PathBuf {
        self.dir.path().join(s.text().replace('\0', "%"))
    }
}

/// Tensors for a function, now and then those that it takes.
fn arguments(s: &mut Source) -> Vec<Tensor> {
    let right = [Tensor::ones(&[2, 3], DType::F32).unwrap(), Tensor::ones(&[2], DType::I32).unwrap()];
    let mut list: Vec<Tensor> = right.iter().take(s.nearly(2).min(9)).cloned().collect();
    list.extend(s.list(1, Source::tensor));
    for t in &mut list {
        if s.below(4) == 0 {
            *t = s.tensor();
        }
    }
    list
}

fn buffers(s: &mut Source, f: &Function) -> winograph::Result<Vec<TensorBuffer>> {
    let mut list = f.buffers()?;
    if s.below(3) == 0 {
        list.truncate(s.below(2));
    }
    if s.below(3) == 0 {
        list.push(TensorBuffer::new(s.dtype(), &s.list(2, |s| s.below(4)))?);
    }
    Ok(list)
}

fn specs(s: &mut Source) -> Vec<ArgSpec> {
    s.list(3, |s| ArgSpec::new(s.dtype(), &s.list(3, Source::size)))
}

/// What a closure to be compiled does: one operation on what it is given, or on nothing.
fn closure(s: &mut Source, args: &[Tensor]) -> winograph::Result<Vec<Tensor>> {
    let (all, at) = (super::operations::all(), s.next());
    let mut any = args.to_vec();
    any.push(s.tensor());
    let pool = Pool { few: any.clone(), any };
    let (_, call) = *all[at % all.len()];
    let mut results = call(s, &pool)?;
    // Not what would take long.
    results.retain(|t| t.numel() <= FEW);
    if results.is_empty() && s.flag() {
        results.push(s.pick(&pool.any));
    }
    if any_large(&results) { Ok(vec![]) } else { Ok(results) }
}

fn any_large(list: &[Tensor]) -> bool {
    list.iter().any(|t| t.numel() > FEW)
}

fn options(s: &mut Source) -> FunctionOptions {
    let compiler = Options { sum_block: s.flag().then(|| s.size()), ..Options::default() };
    FunctionOptions { compiler: s.flag().then_some(compiler), dumps: s.flag(), ..FunctionOptions::default() }
}

fn env(s: &mut Source) -> Result<Env, String> {
    let (name, value) = (s.next(), s.text());
    let names = [
        "WINOGRAPH_THREADS",
        "WINOGRAPH_CACHE",
        "WINOGRAPH_CACHE_MB",
        "WINOGRAPH_MEMORY_MB",
        "WINOGRAPH_VECTOR_BYTES",
        "WINO",
        "DEBUG",
        "TMPDIR",
    ];
    Env::from_lookup(&|n| (n == names[name % names.len()]).then(|| OsString::from(&value))).map_err(|e| e.to_string())
}

fn named(s: &mut Source) -> Vec<(String, Value)> {
    s.list(2, |s| {
        (["x", "y", ""][s.below(3)].to_string(), if s.below(9) == 0 { Value::None } else { Value::Tensor(s.tensor()) })
    })
}

fn tensors(list: &[(String, Value)]) -> Vec<(&str, &Tensor)> {
    list.iter().filter_map(|(n, v)| Some((n.as_str(), v.tensor()?))).collect()
}

fn model(s: &mut Source, c: &Context) -> winograph::Result<Model> {
    let mut bytes = c.onnx.clone();
    for _ in 0..s.below(4) {
        let at = s.below(bytes.len());
        bytes[at] = s.next() as u8;
    }
    bytes.truncate(s.nearly(bytes.len()).min(bytes.len()));
    Model::from_onnx(&bytes)
}

/// Tensors with names, small enough to be computed.
fn safetensors(s: &mut Source) -> winograph::Result<SafeTensors> {
    let names = ["weight", "bias", "running_mean", "running_var", "__metadata__", "x"];
    SafeTensors::new(s.list(5, |s| {
        let t = Tensor::ones(&[s.below(3), 2], s.dtype()).unwrap();
        (names[s.below(names.len())].to_string(), t)
    }))
}

/// A layer of parameters, on a tensor.
fn parameters<L: nn::Layer>(
    s: &mut Source,
    load: fn(&Parameters<'_>, &mut Source) -> winograph::Result<L>,
) -> Result<(), String> {
    let file = safetensors(s).map_err(|e| e.to_string())?;
    told(load(&Parameters::new(&file), s).and_then(|l| l.forward(&s.tensor())).map(|_| ()))
}

/// An exported function, now and then damaged.
fn exported(s: &mut Source, c: &Context) -> winograph::Result<Exported> {
    let mut bytes = c.exported.clone();
    for _ in 0..s.below(2) {
        let at = s.below(bytes.len());
        bytes[at] = s.next() as u8;
    }
    Exported::from_bytes(bytes)
}

/// A sum that no program has.
fn problem(s: &mut Source) -> Problem {
    Problem { sum: s.text(), options: s.text() }
}

/// All functions.
pub const FUNCTIONS: &[(&str, Call)] = &[
    ("ArgSpec::new", |s, _| {
        let shape = s.list(4, Source::size);
        (ArgSpec::new(s.dtype(), &shape).shape == shape).then_some(()).ok_or_else(String::new)
    }),
    ("compile", |s, _| told(compile(&specs(s), |a| closure(s, a)))),
    ("compile_with", |s, _| told(compile_with(&specs(s), &options(s), |a| closure(s, a)))),
    ("trace", |s, _| told(function::trace(&specs(s), |a| closure(s, a)))),
    ("plan", |s, _| {
        let target = Target::by_name(["cuda:sm_90", "metal", "cpu"][s.below(3)]).unwrap_or(Target::cpu(32));
        let compiler = options(s).compiler.unwrap_or_default();
        told(plan(&specs(s), &target, &compiler, s.flag(), |a| closure(s, a)))
    }),
    ("plan_stored", |s, c| {
        let (target, plans) = (Target::cpu(32), PlanStore::new(Some(c.file(s))));
        told(plan_stored(&specs(s), &target, &plans, &Options::default(), s.flag(), |a| closure(s, a)))
    }),
    ("search", |s, _| {
        let specs = specs(s);
        let count = |a: &ArgSpec| a.shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s));
        let small = |a: &&ArgSpec| count(a).is_some_and(|n| n <= FEW);
        let inputs: Vec<_> = specs.iter().filter(small).filter_map(|a| Tensor::zeros(&a.shape, a.dtype).ok()).collect();
        let inputs: Vec<_> = inputs.iter().collect();
        let seconds = [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-9][s.below(5)];
        let options = SearchOptions { seconds, ..SearchOptions::default() };
        let numbers = [s.next() as u32, s.next() as u32, s.next() as u32];
        told(search(&specs, &inputs, &options, &mut Unwatched, &|a: &[Tensor]| closure(&mut Source::new(&numbers), a)))
    }),
    ("Outcome::name", |_, _| (!Outcome::Same.name().is_empty()).then_some(()).ok_or_else(String::new)),
    ("Watch::trying", |s, _| {
        Unwatched.trying(s.size(), f64::NAN, &s.text());
        Ok(())
    }),
    ("Watch::check", |s, _| told(Unwatched.check(&[s.axis_tile()], &[]))),
    ("PlanStore::new", |s, c| {
        let plans = PlanStore::new(s.flag().then(|| c.file(s)));
        told(plans.find(&problem(s), &Target::cpu(32)).transpose())
    }),
    ("PlanStore::folder", |s, c| {
        PlanStore::new(Some(c.file(s))).folder().is_some().then_some(()).ok_or_else(String::new)
    }),
    ("PlanStore::find", |s, c| told(PlanStore::new(Some(c.file(s))).find(&problem(s), c.cpu.target()).transpose())),
    ("PlanStore::store", |s, c| {
        let tuning = Tuning::parse(&s.text()).unwrap_or_default();
        told(PlanStore::new(s.flag().then(|| c.file(s))).store(&problem(s), c.cpu.target(), &tuning))
    }),
    ("Device::plans", |_, c| c.cpu.plans().is_some().then_some(()).ok_or_else(String::new)),
    ("Function::call", |s, c| told(c.f.call(&arguments(s).iter().collect::<Vec<_>>()))),
    ("Function::call_into", |s, c| {
        let mut out = buffers(s, &c.f).map_err(|e| e.to_string())?;
        told(c.f.call_into(&arguments(s).iter().collect::<Vec<_>>(), &mut out.iter_mut().collect::<Vec<_>>()))
    }),
    ("Function::call_timed", |s, c| {
        let mut out = buffers(s, &c.f).map_err(|e| e.to_string())?;
        told(c.f.call_timed(&arguments(s).iter().collect::<Vec<_>>(), &mut out.iter_mut().collect::<Vec<_>>()))
    }),
    ("Function::buffers", |_, c| told(c.f.buffers())),
    ("Function::export", |s, c| told(c.f.export(c.file(s)))),
    ("Function::load", |s, c| told(Function::load(c.file(s), &c.cpu).map(|f| f.args().len()))),
    ("Exported::open", |s, c| told(Exported::open(c.file(s)).map(|e| e.inputs().len()))),
    ("Exported::open_mapping", |s, c| {
        told(Exported::open_mapping(c.file(s), s.size() as u64).and_then(|e| e.check(&c.cpu)))
    }),
    ("Exported::from_bytes", |s, c| told(exported(s, c).map(|_| ()))),
    ("Exported::launches", |s, c| told(exported(s, c).map(|e| e.launches().len()))),
    ("Exported::machine", |s, c| told(exported(s, c).map(|e| e.machine().to_string()))),
    ("Exported::version", |s, c| told(exported(s, c).map(|e| e.version().len()))),
    ("Exported::inputs", |s, c| told(exported(s, c).map(|e| assert_eq!(e.inputs().len(), 2)))),
    ("Exported::outputs", |s, c| told(exported(s, c).map(|e| assert_eq!(e.outputs().len(), 2)))),
    ("Exported::metadata", |s, c| told(exported(s, c).map(|e| e.metadata().len()))),
    ("Exported::operators", |s, c| told(exported(s, c).map(|e| e.operators().len()))),
    ("Exported::parameters", |s, c| told(exported(s, c).map(|e| e.parameters()))),
    ("Exported::check", |s, c| told(exported(s, c).and_then(|e| e.check(&c.cpu)))),
    ("Exported::load", |s, c| told(exported(s, c).and_then(|e| e.load(&c.cpu)).map(|f| f.args().len()))),
    ("seal", |s, _| told(Exported::from_bytes(seal(&s.bytes(9), &s.bytes(9))).map(|_| ()))),
    ("Machine::of", |s, _| {
        let machine = Machine::of(s.size());
        told(machine.check())
    }),
    ("Machine::check", |s, _| {
        let mut machine = Machine::of(16);
        machine.features.push(s.text());
        told(machine.check())
    }),
    ("Device::accepts", |s, c| {
        let platform = match s.size() % 2 {
            0 => Platform::Cuda(code(s)),
            _ => Platform::Cpu(Machine { arch: s.text(), ..Machine::of(s.size()) }),
        };
        told(c.cpu.accepts(&platform))
    }),
    ("GpuCode::check", |s, _| told(code(s).check(s.size() as u32))),
    ("Cleanup::new", |_, _| told(Ok::<_, String>(Cleanup::new()))),
    ("write_atomically", |s, c| told(write_atomically(&c.file(s), b"x"))),
    ("read", |s, c| told(winograph::files::read(c.file(s)).map(|bytes| bytes.len()))),
    ("SafeTensors::new", |s, _| told(safetensors(s).map(|_| ()))),
    ("SafeTensors::with_metadata", |s, _| {
        let notes = std::iter::once((s.text(), s.text())).collect();
        told(safetensors(s).and_then(|f| f.with_metadata(notes).to_bytes()).map(|b| b.len()))
    }),
    ("SafeTensors::get", |s, _| {
        let name = s.text();
        told(safetensors(s).map(|f| f.get(&name).is_some()))
    }),
    ("SafeTensors::tensors", |s, _| told(safetensors(s).map(|f| f.tensors().count()))),
    ("SafeTensors::metadata", |s, _| told(safetensors(s).map(|f| f.metadata().len()))),
    ("SafeTensors::load", |s, c| told(SafeTensors::load(c.file(s)).map(|_| ()))),
    ("SafeTensors::from_bytes", |s, _| told(SafeTensors::from_bytes(&s.bytes(40)).map(|_| ()))),
    ("SafeTensors::save", |s, c| {
        let path = c.file(s);
        told(safetensors(s).and_then(|f| f.save(path)))
    }),
    ("SafeTensors::to_bytes", |s, _| told(safetensors(s).and_then(|f| f.to_bytes()).map(|b| b.len()))),
    ("Parameters::new", |s, _| told(safetensors(s).map(|f| drop(Parameters::new(&f))))),
    ("Parameters::sub", |s, _| {
        let name = s.text();
        told(safetensors(s).and_then(|f| Parameters::new(&f).sub(&name).get("x").map(|_| ())))
    }),
    ("Parameters::find", |s, _| {
        let name = s.text();
        told(safetensors(s).map(|f| Parameters::new(&f).find(&name).is_some()))
    }),
    ("Parameters::get", |s, _| {
        let name = s.text();
        told(safetensors(s).and_then(|f| Parameters::new(&f).get(&name).map(|_| ())))
    }),
    ("Sequential::new", |s, _| told(nn::Sequential::new().forward(&s.tensor()).map(|_| ()))),
    ("Sequential::with", |s, _| {
        let net = nn::Sequential::new().with(nn::Activation::Softmax(s.place()));
        told(net.with(nn::Activation::LeakyRelu(s.number())).forward(&s.tensor()).map(|_| ()))
    }),
    ("Layer::forward", |s, _| told((|x: &Tensor| x.relu()).forward(&s.tensor()).map(|_| ()))),
    ("Conv::new", |s, _| {
        let layer = nn::Conv::new(s.tensor(), s.flag().then(|| s.tensor()), ConvOptions::padding(s.size()));
        told(layer.forward(&s.tensor()).map(|_| ()))
    }),
    ("Conv::load", |s, _| parameters(s, |p, _| nn::Conv::load(p, ConvOptions::default()))),
    ("Linear::new", |s, _| {
        told(nn::Linear::new(s.tensor(), s.flag().then(|| s.tensor())).forward(&s.tensor()).map(|_| ()))
    }),
    ("Linear::load", |s, _| parameters(s, |p, _| nn::Linear::load(p))),
    ("BatchNorm::new", |s, _| {
        let layer = nn::BatchNorm::new(s.tensor(), s.tensor(), None, s.flag().then(|| s.tensor()), s.number());
        told(layer.forward(&s.tensor()).map(|_| ()))
    }),
    ("BatchNorm::load", |s, _| parameters(s, |p, _| nn::BatchNorm::load(p, 1e-5))),
    ("LayerNorm::new", |s, _| told(nn::LayerNorm::new(s.tensor(), None, s.number()).forward(&s.tensor()).map(|_| ()))),
    ("LayerNorm::load", |s, _| parameters(s, |p, _| nn::LayerNorm::load(p, 1e-5))),
    ("GroupNorm::new", |s, _| {
        told(
            nn::GroupNorm::new(s.size(), s.flag().then(|| s.tensor()), None, s.number())
                .forward(&s.tensor())
                .map(|_| ()),
        )
    }),
    ("GroupNorm::load", |s, _| parameters(s, |p, s| nn::GroupNorm::load(p, s.below(3), 1e-5))),
    ("Function::args", |_, c| (c.f.args().len() == 2).then_some(()).ok_or_else(String::new)),
    ("Function::outputs", |_, c| (c.f.outputs().len() == 2).then_some(()).ok_or_else(String::new)),
    ("Function::explanation", |_, c| (!c.f.explanation().kernels.is_empty()).then_some(()).ok_or_else(String::new)),
    ("Function::program", |_, c| (!c.f.program().run.is_empty()).then_some(()).ok_or_else(String::new)),
    ("Function::outline", |_, c| (!c.f.outline().run.is_empty()).then_some(()).ok_or_else(String::new)),
    ("Function::held", |_, c| (c.f.held().total(1) < 1 << 40).then_some(()).ok_or_else(String::new)),
    ("Function::source", |_, c| (!c.f.source().is_empty()).then_some(()).ok_or_else(String::new)),
    ("Function::times", |_, c| (c.f.times().plan.as_secs() < 600).then_some(()).ok_or_else(String::new)),
    ("programs_planned", |_, _| (winograph::programs_planned() > 0).then_some(()).ok_or_else(String::new)),
    ("settings", |_, _| told(settings::settings())),
    ("env", |_, _| told(settings::env())),
    ("Settings::from_env", |s, _| {
        let env = env(s)?;
        // A thousand threads are no wrong argument.
        if env.threads.is_some_and(|n| n > 8) { Ok(()) } else { told(Settings::from_env(&env)) }
    }),
    ("Env::read", |_, _| told(Env::read())),
    ("Env::from_lookup", |s, _| told(env(s))),
    ("Env::plans", |s, _| {
        let _ = env(s)?.plans();
        Ok(())
    }),
    ("Env::kernel_cache", |s, _| {
        let _ = env(s)?.kernel_cache();
        Ok(())
    }),
    ("CpuOptions::from_env", |s, _| {
        let _ = CpuOptions::from_env(&env(s)?);
        Ok(())
    }),
    ("CpuDevice::new", |s, c| {
        let threads = [0, 1, 3, usize::MAX][s.below(4)];
        let options = CpuOptions {
            cc: s.flag().then(|| s.text().into()),
            threads: Some(threads),
            cache_dir: s.flag().then(|| c.file(s)),
            vector_bytes: s.flag().then(|| s.size()),
            ..CpuOptions::default()
        };
        told(CpuDevice::new(options).map(|d| told(d.compiler())))
    }),
    ("CpuDevice::threads", |_, c| (c.device.threads() == 2).then_some(()).ok_or_else(String::new)),
    ("CpuDevice::cache", |_, c| told(c.device.cache().folder())),
    ("CpuDevice::compiler", |_, c| told(c.device.compiler())),
    ("CpuDevice::load", |s, c| {
        let codes = &c.f.program().kernels;
        told(c.device.load(&codes[..s.below(codes.len() + 1)]))
    }),
    ("Cache::new", |s, c| told(Cache::new(s.flag().then(|| c.file(s)), c.file(s), s.next() as u64).folder())),
    ("Cache::folder", |s, c| told(Cache::new(Some(c.file(s)), PathBuf::new(), 0).folder())),
    ("Cache::load", |s, c| {
        // Once in a while, since it runs the compiler.
        let text = ["int x;", "no C", "", "#error no"][s.below(4)];
        if s.below(9) > 0 { Ok(()) } else { told(c.device.cache().load(text, &c.compiler, &s.text())) }
    }),
    ("Compiler::find", |s, _| {
        let text: OsString = s.text().into();
        told(Compiler::find(s.flag().then_some(&text), s.flag().then_some(OsStr::new("/nowhere")), s.size()))
    }),
    ("Compiler::program", |_, c| (c.compiler.program() != Path::new("")).then_some(()).ok_or_else(String::new)),
    ("Compiler::identity", |_, c| (!c.compiler.identity().is_empty()).then_some(()).ok_or_else(String::new)),
    ("Compiler::version", |_, c| told(c.compiler.version())),
    ("Compiler::compile", |s, c| match s.below(9) {
        0 => told(c.compiler.compile("no C", &c.file(s))),
        _ => Ok(()),
    }),
    ("Loaded::open", |s, c| told(Loaded::open(&c.file(s)))),
    ("host_target", |_, _| told(Ok::<_, String>(host_target()))),
    ("capped_target", |s, _| told(Ok::<_, String>(capped_target(s.flag().then(|| s.size()))))),
    ("CheckedKernels::new", |s, c| {
        let codes = &c.f.program().kernels;
        told(CheckedKernels::new(&c.device, &codes[..s.below(codes.len() + 1)]))
    }),
    ("CheckedKernels::run", |s, c| {
        let args = s.list(4, |s| vec![0; [0, 3, 8, 24, 64][s.below(5)]]);
        let params = s.list(1, |s| s.place() as i64);
        told(c.kernels.run(s.below(4), &args, &params))
    }),
    ("Module::launch", |s, c| {
        // Through what keeps its promises: wrong numbers of arguments, sizes and parameters.
        let args = s.list(3, |s| vec![1; [8, 24][s.below(2)]]);
        told(c.kernels.run(s.below(3), &args, &[]))
    }),
    ("Module::len", |_, c| told(module(c).map(|m| m.len()))),
    ("Module::is_empty", |_, c| told(c.device.compile(&[]).map(|m| m.is_empty()))),
    ("Module::source", |_, c| told(module(c).map(|m| m.source().len()))),
    ("Module::scratch", |_, c| told(c.device.compile(&c.f.program().kernels).map(|m| assert_eq!(m.scratch(), 0)))),
    ("Module::source", |_, c| told(c.device.compile(&c.f.program().kernels).map(|m| m.source().len()))),
    ("Buffer::zeroed", |s, _| told(Buffer::zeroed(s.size()))),
    ("Buffer::len", |_, _| told(Buffer::zeroed(3).map(|b| b.len()))),
    ("Buffer::is_empty", |_, _| told(Buffer::zeroed(0).map(|b| b.is_empty()))),
    ("Buffer::as_slice", |_, _| told(Buffer::zeroed(0).map(|b| b.as_slice().len()))),
    ("Buffer::as_mut_slice", |_, _| told(Buffer::zeroed(1).map(|mut b| b.as_mut_slice().len()))),
    ("Buffer::as_ptr", |_, _| told(Buffer::zeroed(0).map(|b| b.as_ptr().is_null()))),
    ("Device::name", |_, c| (c.gpu.name() != c.device.name()).then_some(()).ok_or_else(String::new)),
    ("Device::target", |_, c| (c.gpu.target() != c.device.target()).then_some(()).ok_or_else(String::new)),
    ("Device::compile", |s, c| {
        let codes = &c.f.program().kernels;
        // Code for a CPU has no thread loops; a GPU takes or refuses it.
        told(c.gpu.compile(&codes[..s.below(codes.len() + 1)]))
    }),
    ("Device::allocate", |s, c| told(if s.flag() { c.device.allocate(s.size()) } else { c.gpu.allocate(s.size()) })),
    ("Device::allocate_prepared", |s, c| {
        told(if s.flag() { c.device.allocate_prepared(s.size()) } else { c.gpu.allocate_prepared(s.size()) })
    }),
    ("Device::export", |s, c| {
        let codes = &c.f.program().kernels[..s.below(2)];
        told(if s.flag() { c.device.export(codes) } else { c.gpu.export(codes) })
    }),
    ("Device::import", |s, c| {
        let image = c.device.export(&c.f.program().kernels).map_err(|e| e.to_string())?;
        told(if s.flag() { c.device.import(image) } else { c.gpu.import(image) }.map(|m| m.len()))
    }),
    ("Device::programs", |_, c| c.gpu.programs().is_none().then_some(()).ok_or_else(String::new)),
    ("ProgramStore::key", |s, c| with_programs(c, |p| p.key(&[&s.text(), &s.text()]).is_none_or(|k| k.len() == 64))),
    ("ProgramStore::platform", |_, c| with_programs(c, |p| c.device.accepts(&p.platform()).is_ok())),
    ("ProgramStore::read", |s, c| with_programs(c, |p| p.read(&s.text()).is_none())),
    ("ProgramStore::write", |s, c| {
        let (bytes, n) = (s.bytes(9), s.below(3));
        with_programs(c, |p| {
            let Some(key) = p.key(&["robust", &n.to_string()]) else { return true };
            p.write(&key, &bytes);
            p.read(&key).is_none_or(|found| found.len() <= 9)
        })
    }),
    ("ProgramStore::module", |s, c| {
        let units = module(c)?.kept().unwrap_or_default();
        let some = units.into_iter().take(s.below(3)).collect();
        with_programs(c, |p| p.module(some).is_none_or(|m| m.len() <= c.f.program().kernels.len()))
    }),
    ("Module::kept", |_, c| told(module(c).map(|m| m.kept().is_some()))),
    ("Device::write", |s, c| {
        let (mut memory, bytes) = (c.device.allocate(s.below(9)).map_err(|e| e.to_string())?, s.bytes(9));
        let device: &dyn Device = if s.flag() { &c.device } else { &c.gpu };
        told(device.write(&mut *memory, s.size(), &bytes))
    }),
    ("Device::upload", |s, c| {
        let device: &dyn Device = if s.flag() { &c.device } else { &c.gpu };
        let memory = device.upload(&s.bytes(9)).map_err(|e| e.to_string())?;
        let mut back = vec![0; memory.bytes()];
        told(device.read(&*memory, 0, &mut back))
    }),
    ("Device::mark", |_, c| told(c.device.mark().and(c.gpu.mark()))),
    ("Device::read", |s, c| {
        let (memory, mut bytes) = (c.gpu.allocate(s.below(9)).map_err(|e| e.to_string())?, s.bytes(9));
        let device: &dyn Device = if s.flag() { &c.device } else { &c.gpu };
        told(device.read(&*memory, s.size(), &mut bytes))
    }),
    ("Device::read_new", |s, c| {
        let (memory, mut bytes) = (c.gpu.allocate(s.below(9)).map_err(|e| e.to_string())?, s.bytes(9));
        let device: &dyn Device = if s.flag() { &c.device } else { &c.gpu };
        told(device.read_new(&*memory, s.size(), &mut bytes))
    }),
    ("Device::copy", |s, c| {
        let (mut to, from) = (c.gpu.allocate(s.below(9)), c.gpu.allocate(s.below(9)));
        let device: &dyn Device = if s.flag() { &c.device } else { &c.gpu };
        match (&mut to, &from) {
            (Ok(to), Ok(from)) => told(device.copy(&mut **to, &**from)),
            _ => Err("no memory".to_string()),
        }
    }),
    ("Device::duplicate", |s, c| {
        let from = c.gpu.allocate(s.below(9)).map_err(|e| e.to_string())?;
        let device: &dyn Device = if s.flag() { &c.device } else { &c.gpu };
        told(device.duplicate(&*from, s.size()).map(|m| m.bytes()))
    }),
    ("Device::reaches", |s, c| {
        let other = c.gpu.allocate(s.below(99)).map_err(|e| e.to_string())?;
        if c.device.reaches(&*other) { Err("memory that it did not allocate".into()) } else { Ok(()) }
    }),
    ("Device::synchronize", |_, c| told(c.device.synchronize().and(c.gpu.synchronize()))),
    ("Device::is_host", |_, c| c.device.is_host().then_some(()).ok_or_else(String::new)),
    ("Device::record", |_, c| told(c.device.record(&mut || Ok(())).map(|r| r.is_none()))),
    ("Device::timed", |_, c| told(c.device.timed(&mut || Ok(())))),
    ("Memory::bytes", |s, _| told(Buffer::zeroed(s.below(99)).map(|b| b.bytes()))),
    ("Memory::address", |s, _| told(Buffer::zeroed(s.below(99)).map(|b| b.address().is_null()))),
    ("Memory::is_host", |s, c| told(c.gpu.allocate(s.below(99)).map(|b| b.is_host()))),
    ("Memory::any", |s, _| told(Buffer::zeroed(s.below(99)).map(|b| b.any().is_none()))),
    ("Memory::arg", |s, _| {
        let buffer = Buffer::zeroed(s.below(9)).map_err(|e| e.to_string())?;
        let (offset, bytes) = (s.size(), s.size());
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= buffer.len());
        assert_eq!(buffer.arg(offset, bytes).is_some(), inside);
        Ok(())
    }),
    ("Pool::new", |s, _| told(Threads::new([0, 1, 2, usize::MAX][s.below(4)]))),
    ("Pool::threads", |_, _| told(Threads::new(1).map(|p| p.threads()))),
    ("Pool::run", |s, _| {
        let pool = Threads::new(2).map_err(|e| e.to_string())?;
        let (items, seen) = (s.below(99) as i64 - 9, AtomicI64::new(0));
        let share = Share { grain: s.place() as i64, wake: s.place() as i64 };
        pool.run(items, share, &|_, begin, end| {
            seen.fetch_add(end - begin, Ordering::Relaxed);
        });
        assert_eq!(seen.into_inner(), items.max(0));
        Ok(())
    }),
    ("Share::grain", |s, _| {
        let pool = Threads::new(2).map_err(|e| e.to_string())?;
        pool.run(5, Share::grain(s.place() as i64), &|_, _, _| {});
        Ok(())
    }),
    ("VirtualGpu::new", |s, _| told(VirtualGpu::new(&s.text()))),
    ("VirtualGpu::of", |s, _| {
        let target = if s.flag() { Target::cpu(32) } else { host_target() };
        VirtualGpu::of(target).is_none().then_some(()).ok_or_else(String::new)
    }),
    ("VirtualGpu::with_limit", |s, _| {
        told(VirtualGpu::new("metal").map(|g| g.with_limit(s.next() as u64).name().len()))
    }),
    ("VirtualGpu::take_launches", |_, c| c.gpu.take_launches().is_empty().then_some(()).ok_or_else(String::new)),
    ("Model::load", |s, c| told(Model::load(c.file(s)).map(|_| ()))),
    ("Model::from_onnx", |s, c| told(model(s, c).map(|_| ()))),
    ("Model::from_ncnn", |s, _| {
        let mut text = b"7767517\n2 2\nInput i 0 1 x\nConvolution c 1 1 x y 0=2 1=1 6=6\n".to_vec();
        for _ in 0..s.below(4) {
            let at = s.below(text.len());
            text[at] = s.next() as u8;
        }
        let model = Model::from_ncnn(&text, &vec![s.below(2) as u8; s.nearly(28).min(4096)]);
        told(model.and_then(|m| m.trace(&named(s)).map(|_| ())))
    }),
    ("Model::exported", |s, c| told(model(s, c).map(|m| m.exported().is_some()))),
    ("Model::defaults", |s, c| told(model(s, c).map(|m| m.defaults().len()))),
    ("Model::inputs", |s, c| told(model(s, c).map(|m| m.inputs().len()))),
    ("Model::outputs", |s, c| told(model(s, c).map(|m| m.outputs().len()))),
    ("Model::metadata", |s, c| told(model(s, c).map(|m| m.metadata().len()))),
    ("Model::operators", |s, c| told(model(s, c).map(|m| m.operators().len()))),
    ("Model::parameters", |s, c| told(model(s, c).map(|m| m.parameters()))),
    ("Model::trace", |s, c| told(model(s, c).and_then(|m| m.trace(&named(s)).map(|_| ())))),
    ("Model::compile", |s, c| {
        let device: Arc<dyn Device> = settings::settings().map_err(|e| e.to_string())?.device.clone();
        told(model(s, c).and_then(|m| m.compile(&device).map(|_| ())))
    }),
    ("Model::compile_with", |s, c| told(model(s, c).and_then(|m| m.compile_with(options(s)).map(|_| ())))),
    ("Model::session", |s, c| {
        told(model(s, c).and_then(|m| m.session(options(s)).run(&tensors(&named(s))).map(|_| ())))
    }),
    ("Session::run_tiled", |s, c| {
        let axes = |s: &mut Source| PictureAxes { height: s.below(4), width: s.below(4) };
        let (x, input, output, tile) = (s.tensor(), axes(s), axes(s), s.size());
        told(c.session.run_tiled((["x", "y"][s.below(2)], &x, input), output, tile, &mut |_, _| {}).map(|_| ()))
    }),
    ("Session::model", |_, c| (c.session.model().inputs().len() == 1).then_some(()).ok_or_else(String::new)),
    ("Session::run", |s, c| told(c.session.run(&tensors(&named(s))).map(|_| ()))),
    ("Session::run_values", |s, c| told(c.session.run_values(&named(s)).map(|_| ()))),
    ("Session::compile_for", |s, c| told(c.session.compile_for(&tensors(&named(s))))),
    ("Session::profile", |s, c| told(c.session.profile(&tensors(&named(s)), s.below(3)).map(|l| l.len()))),
    ("Session::export", |s, c| told(c.session.export(c.file(s)))),
    ("Session::with_function", |s, c| told(c.session.with_function(&tensors(&named(s)), |f| f.args().len()))),
    ("Value::tensor", |s, _| {
        let _ = named(s).iter().filter(|(_, v)| v.tensor().is_some()).count();
        Ok(())
    }),
    ("Value::tensors", |s, _| {
        let _ = named(s).iter().map(|(_, v)| v.tensors().len()).sum::<usize>();
        Ok(())
    }),
    ("find", |s, c| told(conformance::find(&c.file(s)))),
    ("run", |s, c| {
        conformance::run(&[c.file(s)], &FunctionOptions::default(), conformance::Tolerance::default(), &|_, _| {});
        Ok(())
    }),
    ("difference", |s, _| told(conformance::difference(&s.tensor(), &s.tensor(), conformance::Tolerance::default()))),
];

/// What would take the compilers of other tests from them: `tests/temporary.rs` calls it.
pub fn is_for_the_whole_process(name: &str) -> bool {
    name == "Cleanup::run"
}

/// What needs a GPU or its compiler; `cuda.rs` and `nvrtc.rs` call it where there is one.
pub fn needs_a_gpu(name: &str) -> bool {
    ["Recording::", "CudaDevice::", "CudaModule::", "CudaOptions::", "Nvrtc::", "parse_resources"]
        .iter()
        .any(|t| name.starts_with(t))
}
