//! Neighbours of the heuristics' plans for a GPU, without one: each is another program that is proved, that the virtual GPU
//! computes rightly and that NVRTC compiles, where it is installed.
#![cfg(feature = "cuda")]

use std::path::PathBuf;
use std::sync::Arc;
use winograph::cuda::{Architecture, Nvrtc};
use winograph::device::Device;
use winograph::virtual_gpu::VirtualGpu;
use winograph::{ArgSpec, ConvOptions, DType, Function, FunctionOptions, Options, Tensor, compile_with};
use winograph_compiler::Algorithm;
use winograph_compiler::explain::NestReport;
use winograph_compiler::options::Products;
use winograph_compiler::render::render_cuda;
use winograph_compiler::tune::{Staging, SumReport, Tuning, TuningRule, neighbours};
use winograph_ir::indexed::Role;

fn nvrtc() -> Option<Nvrtc> {
    let fetched = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().map(|p| p.join("nvrtc"));
    let asked = std::env::var_os("WINOGRAPH_NVRTC").map(PathBuf::from);
    let found = Nvrtc::load(asked.or(fetched.filter(|f| f.is_dir())).as_deref());
    found.map_err(|e| eprintln!("not compiled by NVRTC: {e}")).ok()
}

/// A convolution with 3x3 windows and what it is computed with.
struct Conv {
    device: Arc<dyn Device>,
    input: Vec<usize>,
    w: Tensor,
    options: Options,
}

impl Conv {
    fn new(input: &[usize], out: usize, options: Options) -> Conv {
        let w = Tensor::randn(&[out, input[1], 3, 3], DType::F32, 2).unwrap();
        w.realize().unwrap();
        let device = Arc::new(VirtualGpu::new("cuda:sm_90").unwrap());
        Conv { device, input: input.to_vec(), w, options }
    }

    fn build(&self, given: Vec<(String, Tuning)>) -> Function {
        let compiler = Options { tuning: TuningRule::Given(given), verify_each_pass: true, ..self.options.clone() };
        let how = FunctionOptions { device: Some(self.device.clone()), compiler: Some(compiler), dumps: false };
        let args = [ArgSpec::new(DType::F32, &self.input)];
        compile_with(&args, &how, |a| Ok(vec![a[0].conv2d(&self.w, None, &ConvOptions::padding(1))?])).unwrap()
    }

    fn run(&self, f: &Function) -> Vec<f32> {
        let x = Tensor::randn(&self.input, DType::F32, 1).unwrap();
        f.call(&[&x]).unwrap()[0].to_vec::<f32>().unwrap()
    }

    fn neighbours(&self, f: &Function) -> Vec<Tuning> {
        let nests: Vec<&NestReport> =
            f.explanation().kernels.iter().filter(|k| !k.prepare && k.is_first()).flat_map(|k| &k.nests).collect();
        neighbours(sum(f), 0, &nests, self.device.target())
    }
}

fn sum(f: &Function) -> &SumReport {
    let [sum] = &f.explanation().sums[..] else { panic!("{:?}", f.explanation().sums) };
    sum
}

/// Compiles all neighbours, compiles every fifth with NVRTC, runs some; says how many other programs there are.
fn try_neighbours(conv: &Conv, runs: usize, bound: f64) -> (usize, Vec<Tuning>) {
    let base = conv.build(vec![]);
    let key = sum(&base).problem.key();
    let want = conv.run(&base);
    let norm = (want.iter().map(|&v| (v as f64).powi(2)).sum::<f64>() / want.len() as f64).sqrt();
    let all = conv.neighbours(&base);
    let nvrtc = nvrtc();
    let (mut others, mut refused) = (0, Vec::new());
    let step = all.len().div_ceil(runs).max(1);
    for (n, tuning) in all.iter().enumerate() {
        let f = conv.build(vec![(key.clone(), tuning.clone())]);
        if !sum(&f).refused.is_empty() {
            refused.push(format!("{tuning}{:?}", sum(&f).refused));
            continue;
        }
        others += usize::from(f.source() != base.source());
        // What runs is proved in any case: nothing else is given out.
        if n % step != 0 {
            continue;
        }
        for (a, b) in conv.run(&f).iter().zip(&want) {
            assert!((*a as f64 - *b as f64).abs() <= bound * norm, "{tuning}: {a} for {b}");
        }
        if let Some(nvrtc) = &nvrtc {
            let kernels = &f.program().kernels;
            let source = render_cuda(kernels, conv.device.target()).unwrap();
            let done = nvrtc.compile(&source.text, Architecture::Machine(90));
            done.unwrap_or_else(|e| panic!("{tuning}: {e}"));
        }
    }
    assert!(refused.len() <= all.len() / 2, "{} of {} do not fit: {refused:#?}", refused.len(), all.len());
    (others, all)
}

fn plans(all: &[Tuning], role: Role) -> Vec<String> {
    all.iter().filter_map(|t| Some(t.plan(role)?.to_string())).collect()
}

#[test]
fn products_in_blocks_have_other_tiles_chunks_and_stages() {
    let options = Options { algorithm: Algorithm::Direct, ..Options::default() };
    let conv = Conv::new(&[1, 64, 16, 16], 64, options);
    let (others, all) = try_neighbours(&conv, 4, 1e-5);
    assert!(others >= 20, "{others} other programs");
    let plans = plans(&all, Role::Direct);
    for want in ["stages=2", "stages=4", "shared:16", "shared:4", "vector:4"] {
        assert!(plans.iter().any(|p| p.contains(want)), "{want}: {plans:#?}");
    }
    let threads = |p: &String| -> Vec<String> {
        p.split([' ', ',']).filter(|w| w.contains("thread:")).map(str::to_string).collect()
    };
    let mut shapes: Vec<_> = plans.iter().map(threads).collect();
    shapes.sort();
    shapes.dedup();
    assert!(shapes.len() >= 6, "shapes of workgroups: {shapes:?}");
}

#[test]
fn tiles_and_each_kernel_of_winograd_have_neighbours() {
    let conv = Conv::new(&[1, 16, 16, 16], 32, Options { algorithm: Algorithm::Winograd, ..Options::default() });
    let (others, all) = try_neighbours(&conv, 8, 1e-4);
    assert!(others >= 10, "{others} other programs");
    assert!(all.iter().any(|t| t.tile.is_some() && t.plans.is_empty()), "other tiles");
    for role in [Role::InputTransform, Role::Multiply, Role::OutputTransform] {
        assert!(!plans(&all, role).is_empty(), "{role:?}");
    }
}

#[test]
fn products_on_matrix_units_have_other_tiles_and_units() {
    let options = Options { algorithm: Algorithm::Direct, products: Products::Tf32x3, ..Options::default() };
    let conv = Conv::new(&[1, 32, 12, 12], 32, options);
    let (others, all) = try_neighbours(&conv, 6, 1e-4);
    assert!(others >= 6, "{others} other programs");
    let plans = plans(&all, Role::Direct);
    assert!(plans.iter().all(|p| p.contains("unit=m16n8k8.3xtf32")), "{plans:#?}");
    // A unit that rounds more than is asked for is refused.
    let base = conv.build(vec![]);
    let plan = all.iter().find_map(|t| t.plan(Role::Direct)).unwrap().to_string();
    let tuning = Tuning::parse(&format!("plan direct: {}", plan.replace("3xtf32", "tf32"))).unwrap();
    let f = conv.build(vec![(sum(&base).problem.key(), tuning)]);
    assert!(sum(&f).refused[0].contains("none that the options admit"), "{:?}", sum(&f).refused);
    assert_eq!(f.source(), base.source());
}

/// Chunks of the batch are tunings as others are: tried, told, and the same program when they are given back.
#[test]
fn a_batch_has_neighbours_in_chunks() {
    let conv = Conv::new(&[4, 16, 16, 16], 16, Options { algorithm: Algorithm::Winograd, ..Options::default() });
    let base = conv.build(vec![]);
    assert_eq!(sum(&base).used.stages, None, "chunks are not taken unasked");
    let key = sum(&base).problem.key();
    let stages = |f: &Function| {
        let all = conv.neighbours(f).into_iter().filter_map(|t| t.stages);
        all.map(|s| s.to_string()).collect::<Vec<_>>()
    };
    let told = stages(&base);
    assert!(told[0].starts_with("stages=fused block="), "{told:?}");
    assert_eq!(told[1..3], ["stages=chunks:4", "stages=chunks:2"]);
    let tuning = conv.neighbours(&base).into_iter().find(|t| t.stages == Some(Staging::Chunks(4))).unwrap();
    let chunked = conv.build(vec![(key.clone(), tuning)]);
    assert!(sum(&chunked).refused.is_empty(), "{:?}", sum(&chunked).refused);
    assert_eq!(conv.run(&chunked), conv.run(&base));
    assert_eq!(chunked.explanation().scopes[0].chunks, Some(4));
    // Kernels of single images have plans of their own to try, and other numbers of chunks.
    let all = stages(&chunked);
    for want in ["stages=chunks:8", "stages=chunks:2", "stages=global"] {
        assert!(all.iter().any(|s| s == want), "{want} is not among {all:?}");
    }
    assert!(!plans(&conv.neighbours(&chunked), Role::Multiply).is_empty());
    let used = sum(&chunked).used.to_string();
    assert!(used.contains("stages=chunks:4\n"), "{used}");
    let again = conv.build(vec![(key.clone(), Tuning::parse(&used).unwrap())]);
    assert!(again.source() == chunked.source() && again.program().run == chunked.program().run);
    let f = conv.build(vec![(key, Tuning::parse("stages=global").unwrap())]);
    assert!(f.source() == base.source() && sum(&f).used.stages == Some(Staging::Global));
}

/// A workgroup that runs all kernels of a sum is a tuning too; its blocks have neighbours.
#[test]
fn one_launch_of_workgroups_is_tried() {
    let conv = Conv::new(&[1, 16, 24, 24], 16, Options { algorithm: Algorithm::Winograd, ..Options::default() });
    let base = conv.build(vec![]);
    let key = sum(&base).problem.key();
    let is_fused = |t: &Tuning| matches!(t.stages, Some(Staging::Fused(_)));
    let tuning = conv.neighbours(&base).into_iter().find(is_fused).unwrap();
    let fused = conv.build(vec![(key.clone(), tuning)]);
    assert!(sum(&fused).refused.is_empty(), "{:?}", sum(&fused).refused);
    assert_eq!((conv.run(&fused), fused.program().run.len()), (conv.run(&base), 1));
    let used = sum(&fused).used.clone();
    let again = conv.build(vec![(key.clone(), Tuning::parse(&used.to_string()).unwrap())]);
    assert!(again.source() == fused.source());
    let (mut ran, nvrtc) = (0, nvrtc());
    for tuning in conv.neighbours(&fused).into_iter().filter(|t| is_fused(t) || t.plans.len() == 1) {
        let f = conv.build(vec![(key.clone(), tuning.clone())]);
        if !sum(&f).refused.is_empty() {
            continue;
        }
        assert_eq!(conv.run(&f), conv.run(&base), "{tuning}");
        if let Some(nvrtc) = nvrtc.as_ref().filter(|_| ran % 4 == 0) {
            let source = render_cuda(&f.program().kernels, conv.device.target()).unwrap();
            nvrtc.compile(&source.text, Architecture::Machine(90)).unwrap_or_else(|e| panic!("{tuning}: {e}"));
        }
        ran += 1;
    }
    assert!(ran >= 6, "{ran} neighbours fit");
    for bad in ["block=1,1,100 columns=16 parts=1", "block=1,1,1 columns=4 parts=2"] {
        let f = conv.build(vec![(key.clone(), Tuning::parse(&format!("stages=fused {bad}")).unwrap())]);
        assert!(f.source() == base.source(), "{bad}");
        assert!(sum(&f).refused[0].starts_with("stages: "), "{:?}", sum(&f).refused);
    }
}
