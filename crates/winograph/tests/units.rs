//! Products on matrix units with factors staged in shared memory: chosen where the dtype allows it, right and free of
//! races on the virtual GPU, compiled by NVRTC, and on a GPU where there is one.

mod kernels;

use kernels::device;
use std::sync::Arc;
use winograph::device::Device;
use winograph::virtual_gpu::VirtualGpu;
use winograph::{ArgSpec, ConvOptions, DType, FunctionOptions, Options, Tensor, compile_with};
use winograph_compiler::optimize::stored::StoredPlans;
use winograph_compiler::options::Products;
use winograph_compiler::options::Tolerance;
use winograph_compiler::winograd::{points::default_transforms, split::split_error_ratio};
use winograph_compiler::{Algorithm, Program, Target};
use winograph_ir::indexed::Scope;
use winograph_ir::interp::gpu::{GpuModel, sites};
use winograph_ir::interp::sectors;
use winograph_ir::linear::{Instr, Stmt};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A product and how far its result may be from the same on a CPU, relative to 1 and the result.
struct Case {
    what: &'static str,
    args: Vec<Tensor>,
    products: Products,
    tolerance: f64,
    f: fn(&[Tensor]) -> winograph::Result<Tensor>,
}

/// A convolution of channels-last images and weights, as an implicit matrix product.
fn channels_last(a: &[Tensor]) -> winograph::Result<Tensor> {
    let (x, w) = (a[0].permute(&[0, 3, 1, 2])?, a[1].permute(&[0, 3, 1, 2])?);
    x.conv2d(&w, None, &ConvOptions::padding(1))?.relu()?.permute(&[0, 2, 3, 1])?.contiguous()
}

fn strided(a: &[Tensor]) -> winograph::Result<Tensor> {
    let (x, w) = (a[0].permute(&[0, 3, 1, 2])?, a[1].permute(&[0, 3, 1, 2])?);
    let options = ConvOptions { stride: vec![2, 2], ..ConvOptions::padding(1) };
    x.conv2d(&w, None, &options)?.permute(&[0, 2, 3, 1])?.contiguous()
}

fn channels_first(a: &[Tensor]) -> winograph::Result<Tensor> {
    a[0].conv2d(&a[1], None, &ConvOptions::padding(1))
}

fn matmul(a: &[Tensor]) -> winograph::Result<Tensor> {
    a[0].matmul(&a[1])
}

fn random(dtype: DType, shapes: [&[usize]; 2]) -> winograph::Result<Vec<Tensor>> {
    let scaled = |(n, s): (usize, &&[usize])| Tensor::randn(s, DType::F32, n as u64 + 1)?.cast(dtype);
    shapes.iter().enumerate().map(scaled).collect()
}

fn cases() -> Result<Vec<Case>> {
    type Function = fn(&[Tensor]) -> winograph::Result<Tensor>;
    let case = |what, dtype, products, tolerance, shapes: [&[usize]; 2], f: Function| -> Result<Case> {
        Ok(Case { what, args: random(dtype, shapes)?, products, tolerance, f })
    };
    let (half, exact) = (DType::F16, Products::Exact);
    Ok(vec![
        case("f16", half, exact, 2e-3, [&[1, 14, 13, 32], &[40, 3, 3, 32]], channels_last)?,
        case("batch", half, exact, 2e-3, [&[3, 7, 7, 64], &[24, 3, 3, 64]], channels_last)?,
        case("16 channels", half, exact, 2e-3, [&[2, 14, 14, 16], &[32, 3, 3, 16]], channels_last)?,
        case("bf16", DType::BF16, exact, 2e-2, [&[1, 12, 16, 32], &[32, 3, 3, 32]], channels_last)?,
        case("stride", half, exact, 2e-3, [&[2, 17, 15, 64], &[32, 3, 3, 64]], strided)?,
        case("channels first", half, exact, 2e-3, [&[1, 32, 12, 16], &[32, 32, 3, 3]], channels_first)?,
        case("matmul", half, exact, 2e-3, [&[70, 128], &[128, 136]], matmul)?,
        case("64 channels", half, exact, 2e-3, [&[1, 16, 14, 64], &[64, 3, 3, 64]], channels_last)?,
        case("tf32", DType::F32, Products::Tf32, 2e-2, [&[1, 14, 12, 32], &[32, 3, 3, 32]], channels_last)?,
        case("3xtf32", DType::F32, Products::Tf32x3, 1e-5, [&[1, 14, 12, 32], &[32, 3, 3, 32]], channels_last)?,
        case("3xtf32 matmul", DType::F32, Products::Tf32x3, 1e-5, [&[128, 64], &[64, 160]], matmul)?,
        case("tf32 matmul", DType::F32, Products::Tf32, 2e-2, [&[128, 64], &[64, 160]], matmul)?,
    ])
}

/// Runs a case on a device; its program and its result.
fn run(case: &Case, device: Arc<dyn Device>) -> Result<(Program, Vec<f64>)> {
    let specs: Vec<ArgSpec> = case.args.iter().map(|t| ArgSpec::new(t.dtype(), t.shape())).collect();
    let options = FunctionOptions {
        device: Some(device),
        compiler: Some(Options { algorithm: Algorithm::Direct, products: case.products, ..Options::default() }),
        ..FunctionOptions::default()
    };
    let function = compile_with(&specs, &options, |a| Ok(vec![(case.f)(a)?]))?;
    let y = function.call(&case.args.iter().collect::<Vec<_>>())?;
    Ok((function.program().clone(), y[0].cast(DType::F64)?.to_vec::<f64>()?))
}

fn check(case: &Case, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{}", case.what);
    // Sums of this many products of normal numbers are of this size.
    let scale = (expected.iter().map(|y| y * y).sum::<f64>() / expected.len() as f64).sqrt();
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        let near = (a - b).abs() <= case.tolerance * b.abs().max(scale);
        assert!(near, "{}: element {i} is {a}, on the CPU {b}", case.what);
    }
}

fn staged(program: &Program) -> bool {
    program.kernels.iter().any(|k| !k.units.is_empty() && k.locals.iter().any(|l| l.scope == Scope::Shared))
}

#[test]
fn products_of_what_a_unit_multiplies_are_staged_for_it_and_right() -> Result<()> {
    for case in cases()? {
        let (_, expected) = run(&case, Arc::new(device(None, 1)))?;
        for target in ["cuda:sm_80", "cuda:sm_90"] {
            let (program, found) = run(&case, Arc::new(VirtualGpu::new(target)?))?;
            assert!(staged(&program), "{} on {target}", case.what);
            check(&case, &found, &expected);
        }
    }
    Ok(())
}

/// Loads by rows, and products of factors in shared memory as a whole.
fn ways(program: &Program) -> (bool, bool) {
    let (mut rows, mut tiles) = (false, false);
    for code in &program.kernels {
        code.for_each_stmt(&mut |s| match s {
            Stmt::Let { instr: Instr::Rows { .. }, .. } => rows = true,
            Stmt::Let { instr: Instr::Tiles { .. }, .. } => tiles = true,
            _ => {}
        });
    }
    (rows, tiles)
}

/// Compute capability 9.0 has units that read their factors from shared memory, taken where the layer is large enough;
/// before, fragments are loaded by rows.
#[test]
fn factors_are_read_as_the_machine_can() -> Result<()> {
    for (dtype, products, channels) in
        [(DType::F16, Products::Exact, 128), (DType::BF16, Products::Exact, 64), (DType::F32, Products::Tf32, 64)]
    {
        for (target, wanted) in [("cuda:sm_80", (true, false)), ("cuda:sm_90", (false, true))] {
            let args = [ArgSpec::new(dtype, &[16, 28, 28, channels]), ArgSpec::new(dtype, &[channels, 3, 3, channels])];
            let options = Options { algorithm: Algorithm::Direct, products, ..Options::default() };
            let target = Target::by_name(target).ok_or("no target")?;
            let (program, _) = winograph::plan(&args, &target, &options, false, |a| Ok(vec![channels_last(a)?]))?;
            assert_eq!(ways(&program), wanted, "{dtype} on {}", target.name);
        }
    }
    Ok(())
}

/// Units of four warps in plans of the test's choice: ragged rows and columns, one group of warps and several.
fn of_four_warps() -> Result<Vec<(Case, String)>> {
    let transposed = |a: &[Tensor]| a[0].matmul(&a[1].transpose(0, 1)?);
    let mut out = Vec::new();
    for (unit, dtype, k, tolerance) in [
        ("m64n64k64.f16", DType::F16, 192, 2e-3),
        ("m64n128k64.bf16", DType::BF16, 192, 2e-2),
        ("m64n256k64.f16", DType::F16, 128, 2e-3),
        ("m64n64k32.tf32", DType::F32, 96, 2e-2),
    ] {
        for threads in ["", ",thread:2"] {
            let products = if dtype == DType::F32 { Products::Tf32 } else { Products::Exact };
            let args = random(dtype, [&[150, k], &[300, k]])?;
            let plan = format!(
                "contraction: a0=grid{threads},matrix a1=grid,matrix r0=loop,shared:1,matrix unit={unit} stages=3"
            );
            out.push((Case { what: unit, args, products, tolerance, f: transposed }, plan));
        }
    }
    Ok(out)
}

fn run_planned(case: &Case, plan: &str, device: Arc<dyn Device>) -> Result<(Program, Vec<f64>)> {
    let specs: Vec<ArgSpec> = case.args.iter().map(|t| ArgSpec::new(t.dtype(), t.shape())).collect();
    let plans = StoredPlans::parse(plan)?;
    let options = FunctionOptions {
        device: Some(device),
        compiler: Some(Options { plans, products: case.products, ..Options::default() }),
        ..FunctionOptions::default()
    };
    let function = compile_with(&specs, &options, |a| Ok(vec![(case.f)(a)?]))?;
    let y = function.call(&case.args.iter().collect::<Vec<_>>())?;
    Ok((function.program().clone(), y[0].cast(DType::F64)?.to_vec::<f64>()?))
}

#[test]
fn units_of_four_warps_are_right() -> Result<()> {
    for (case, plan) in of_four_warps()? {
        let (program, found) = run_planned(&case, &plan, Arc::new(VirtualGpu::new("cuda:sm_90")?))?;
        assert_eq!(ways(&program), (false, true), "{plan}");
        check(&case, &found, &run(&case, Arc::new(device(None, 1)))?.1);
    }
    Ok(())
}

/// Rows in shared memory are in different banks.
#[test]
fn fragments_are_loaded_without_bank_conflicts() -> Result<()> {
    for case in cases()?.into_iter().filter(|c| ["f16", "bf16", "64 channels", "tf32"].contains(&c.what)) {
        let (program, _) = run(&case, Arc::new(VirtualGpu::new("cuda:sm_80")?))?;
        let mut loads = 0;
        for code in program.kernels.iter().filter(|k| !k.units.is_empty()) {
            let counts = sectors::count(code, &[], &GpuModel::default()).ok_or("no counts")?;
            for (site, n) in sites(code).iter().zip(counts).filter(|(s, _)| s.threads <= 32) {
                assert_eq!(n.bank_conflicts, 0, "{}: {site:?}", case.what);
                loads += 1;
            }
        }
        assert!(loads > 0, "{}", case.what);
    }
    Ok(())
}

#[test]
fn products_of_f32_stay_exact_unless_asked_for() -> Result<()> {
    for case in cases()?.into_iter().filter(|c| c.products == Products::Tf32) {
        let case = Case { products: Products::Exact, tolerance: 1e-5, ..case };
        let (program, found) = run(&case, Arc::new(VirtualGpu::new("cuda:sm_90")?))?;
        assert!(program.kernels.iter().all(|k| k.units.is_empty()), "{}", case.what);
        check(&case, &found, &run(&case, Arc::new(device(None, 1)))?.1);
    }
    Ok(())
}

/// Whether a product of f32 is on a unit of three tf32 terms under `auto`.
fn split(shapes: [&[usize]; 2], options: Options, f: fn(&[Tensor]) -> winograph::Result<Tensor>) -> Result<bool> {
    let specs = shapes.map(|s| ArgSpec::new(DType::F32, s));
    let target = Target::by_name("cuda:sm_90").ok_or("no target")?;
    let options = Options { products: Products::Auto, ..options };
    let (program, _) = winograph::plan(&specs, &target, &options, false, |a| Ok(vec![f(a)?]))?;
    let units: Vec<&str> = program.kernels.iter().flat_map(|k| &k.units).map(|u| u.name.as_str()).collect();
    assert!(units.iter().all(|u| *u == "m16n8k8.3xtf32"), "{units:?}");
    Ok(!units.is_empty())
}

#[test]
fn products_in_three_terms_are_taken_where_the_tolerance_admits_their_error() -> Result<()> {
    let direct = |t: f64| -> Result<Options> {
        Ok(Options { algorithm: Algorithm::Direct, tolerance: Some(Tolerance::new(t)?), ..Options::default() })
    };
    // 288 products, read by a ReLU in the same kernel: 0.68 times the error in f32.
    let shapes: [&[usize]; 2] = [&[1, 14, 12, 32], &[32, 3, 3, 32]];
    let ratio = split_error_ratio(&[], 288);
    assert!(split(shapes, Options { algorithm: Algorithm::Direct, ..Options::default() }, channels_last)?);
    assert!(split(shapes, direct(1.01 * ratio)?, channels_last)?);
    assert!(!split(shapes, direct(0.99 * ratio)?, channels_last)?);
    // 16 products.
    assert!(!split([&[256, 16], &[16, 512]], direct(2.0)?, matmul)?);
    assert!(split([&[256, 16], &[16, 512]], direct(3.0)?, matmul)?);
    // In a rewrite it is the error of all of it that counts.
    let f4 = default_transforms(4, 3).ok_or("no matrices")?;
    let ratio = split_error_ratio(&[&f4, &f4], 64);
    for tolerance in [1.01 * ratio, 0.99 * ratio] {
        let options = Options {
            algorithm: Algorithm::Winograd,
            tile: Some(vec![4]),
            tolerance: Some(Tolerance::new(tolerance)?),
            ..Options::default()
        };
        let on_units = split([&[2, 64, 32, 32], &[64, 64, 3, 3]], options, channels_first)?;
        assert_eq!(on_units, tolerance > ratio, "{ratio}");
    }
    Ok(())
}

#[cfg(feature = "cuda")]
mod cuda {
    use super::*;
    use std::path::PathBuf;
    use winograph::cuda::{Architecture, CudaDevice, CudaOptions, Nvrtc};
    use winograph_compiler::render::render_cuda;

    fn folder() -> Option<PathBuf> {
        let fetched = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().map(|p| p.join("nvrtc"));
        let asked = std::env::var_os("WINOGRAPH_NVRTC").map(PathBuf::from);
        asked.or(fetched.filter(|f| f.is_dir()))
    }

    #[test]
    fn nvrtc_compiles_them_without_spills() -> Result<()> {
        let Ok(nvrtc) = Nvrtc::load(folder().as_deref()).map_err(|e| eprintln!("skipped: {e}")) else { return Ok(()) };
        for case in cases()? {
            for capability in [80, 90] {
                let target = format!("cuda:sm_{capability}");
                let options = Options { algorithm: Algorithm::Direct, products: case.products, ..Options::default() };
                let specs: Vec<ArgSpec> = case.args.iter().map(|t| ArgSpec::new(t.dtype(), t.shape())).collect();
                let target = Target::by_name(&target).unwrap_or_else(|| Target::cpu(16));
                let (program, _) = winograph::plan(&specs, &target, &options, false, |a| Ok(vec![(case.f)(a)?]))?;
                let source = render_cuda(&program.kernels, &target)?;
                let binary = nvrtc.compile(&source.text, Architecture::Machine(capability))?;
                for (symbol, r) in &binary.resources {
                    assert_eq!((r.spill_bytes, r.stack_bytes), (0, 0), "{}: {symbol}: {r:?}", case.what);
                }
            }
        }
        Ok(())
    }

    #[test]
    fn a_gpu_agrees() -> Result<()> {
        let gpu = CudaDevice::with_options(0, CudaOptions { nvrtc: folder(), ..CudaOptions::default() });
        let gpu = gpu.and_then(|d| d.nvrtc().map(|_| ()).map(|()| d));
        let Ok(gpu) = gpu.map_err(|e| eprintln!("skipped: {e}")) else { return Ok(()) };
        let gpu: Arc<dyn Device> = Arc::new(gpu);
        for case in cases()? {
            let (program, found) = run(&case, gpu.clone())?;
            assert!(staged(&program), "{}", case.what);
            check(&case, &found, &run(&case, Arc::new(device(None, 1)))?.1);
        }
        // What compute capability 9.0 alone has, where the compiler knows it.
        let four_warps = |g: &winograph_compiler::target::Gpu| g.units.contains(&"m64n64k64.f16");
        let has = gpu.target().gpu.as_ref().is_some_and(four_warps);
        for (case, plan) in of_four_warps()?.into_iter().filter(|_| has) {
            let (program, found) = run_planned(&case, &plan, gpu.clone())?;
            assert_eq!(ways(&program), (false, true), "{plan}");
            check(&case, &found, &run(&case, Arc::new(device(None, 1)))?.1);
        }
        Ok(())
    }
}
