//! Products on matrix units with factors staged in shared memory: chosen where the dtype allows it, within their a-priori bound
//! and free of races on the virtual GPU, compiled by NVRTC, and on a GPU where there is one.

mod kernels;

use kernels::device;
use std::sync::Arc;
use winograph::device::Device;
use winograph::virtual_gpu::VirtualGpu;
use winograph::{ArgSpec, AxisTile, ConvOptions, DType, FunctionOptions, Options, Tensor, compile_with};
use winograph_compiler::optimize::stored::StoredPlans;
use winograph_compiler::options::Products;
use winograph_compiler::options::Tolerance;
use winograph_compiler::winograd::accuracy::{expected_error, expected_error_direct};
use winograph_compiler::winograd::bound::{Arithmetic, Bound, Sizes};
use winograph_compiler::winograd::cook_toom::Transforms;
use winograph_compiler::winograd::points::default_transforms;
use winograph_compiler::winograd::split::{
    expected_error_half, expected_error_split, half_error_ratio, split_error_ratio,
};
use winograph_compiler::{Algorithm, Program, Target};
use winograph_ir::indexed::Scope;
use winograph_ir::interp::gpu::{GpuModel, sites};
use winograph_ir::interp::sectors;
use winograph_ir::linear::{Instr, Stmt};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How the factors of a product lie: images and weights with channels last or first, or matrices, of which the second may be
/// transposed.
#[derive(Clone, Copy, PartialEq)]
enum Lie {
    Last { stride: usize },
    First,
    Matrices { transposed: bool },
}

/// A product; `tile` is that of a rewrite, if it is one.
#[derive(Clone)]
struct Case {
    what: &'static str,
    args: Vec<Tensor>,
    products: Products,
    tile: Option<usize>,
    lie: Lie,
    f: fn(&[Tensor]) -> winograph::Result<Tensor>,
}

/// A convolution of channels-last images and weights, as an implicit matrix product.
fn channels_last(a: &[Tensor]) -> winograph::Result<Tensor> {
    let (x, w) = (a[0].permute(&[0, 3, 1, 2])?, a[1].permute(&[0, 3, 1, 2])?);
    x.conv2d(&w, None, &ConvOptions::padding(1))?.relu()?.permute(&[0, 2, 3, 1])?.contiguous()
}

fn channels_last_alone(a: &[Tensor]) -> winograph::Result<Tensor> {
    let (x, w) = (a[0].permute(&[0, 3, 1, 2])?, a[1].permute(&[0, 3, 1, 2])?);
    x.conv2d(&w, None, &ConvOptions::padding(1))?.permute(&[0, 2, 3, 1])?.contiguous()
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

fn transposed(a: &[Tensor]) -> winograph::Result<Tensor> {
    a[0].matmul(&a[1].transpose(0, 1)?)
}

/// Data of factors: independent normal values, and some that are unkind.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Normal,
    /// A mean a thousand times the spread.
    Offset,
    Alternating,
    /// Images below the normal numbers.
    Denormal,
    /// Products around the least positive number of f32.
    Underflow,
}

const KINDS: [Kind; 5] = [Kind::Normal, Kind::Offset, Kind::Alternating, Kind::Denormal, Kind::Underflow];

/// An image or a weight, by its number.
fn values(kind: Kind, n: usize, dtype: DType, shape: &[usize]) -> winograph::Result<Tensor> {
    let normal = Tensor::randn(shape, DType::F64, n as u64 + 1)?;
    let least_normal: i32 = if dtype == DType::F16 { -14 } else { -126 };
    // Half floats multiply to no less than 2^-48.
    let least: i32 = if dtype == DType::F16 { -24 } else { -75 };
    let made = match (kind, n) {
        (Kind::Offset, 0) => normal.mul(0.1)?.add(100.0)?,
        (Kind::Alternating, _) => {
            let sign = |i: usize| if (i + i / shape[shape.len() - 1]).is_multiple_of(2) { 1f64 } else { -1.0 };
            let signs: Vec<f64> = (0..shape.iter().product()).map(sign).collect();
            normal.mul(1.0 / 64.0)?.add(1.0)?.mul(&Tensor::from_slice(&signs, shape)?)?
        }
        (Kind::Denormal, 0) => normal.mul(2f64.powi(least_normal - 2))?,
        (Kind::Underflow, _) => normal.mul(2f64.powi(least + 3))?,
        _ => normal,
    };
    made.cast(dtype)
}

fn random(dtype: DType, shapes: [&[usize]; 2]) -> winograph::Result<Vec<Tensor>> {
    shapes.iter().enumerate().map(|(n, s)| values(Kind::Normal, n, dtype, s)).collect()
}

fn cases() -> Result<Vec<Case>> {
    type Function = fn(&[Tensor]) -> winograph::Result<Tensor>;
    let case = |what, dtype, products, shapes: [&[usize]; 2], lie, f: Function| -> Result<Case> {
        Ok(Case { what, args: random(dtype, shapes)?, products, tile: None, lie, f })
    };
    let (half, exact) = (DType::F16, Products::Exact);
    let (last, matrices) = (Lie::Last { stride: 1 }, Lie::Matrices { transposed: false });
    let strides = Lie::Last { stride: 2 };
    Ok(vec![
        case("f16", half, exact, [&[1, 14, 13, 32], &[40, 3, 3, 32]], last, channels_last)?,
        case("batch", half, exact, [&[3, 7, 7, 64], &[24, 3, 3, 64]], last, channels_last)?,
        case("16 channels", half, exact, [&[2, 14, 14, 16], &[32, 3, 3, 16]], last, channels_last)?,
        case("bf16", DType::BF16, exact, [&[1, 12, 16, 32], &[32, 3, 3, 32]], last, channels_last)?,
        case("stride", half, exact, [&[2, 17, 15, 64], &[32, 3, 3, 64]], strides, strided)?,
        case("channels first", half, exact, [&[1, 32, 12, 16], &[32, 32, 3, 3]], Lie::First, channels_first)?,
        case("matmul", half, exact, [&[70, 128], &[128, 136]], matrices, matmul)?,
        case("64 channels", half, exact, [&[1, 16, 14, 64], &[64, 3, 3, 64]], last, channels_last)?,
        case("tf32", DType::F32, Products::Tf32, [&[1, 14, 12, 32], &[32, 3, 3, 32]], last, channels_last)?,
        case("3xtf32", DType::F32, Products::Tf32x3, [&[1, 14, 12, 32], &[32, 3, 3, 32]], last, channels_last)?,
        case("3xtf32 matmul", DType::F32, Products::Tf32x3, [&[128, 64], &[64, 160]], matrices, matmul)?,
        case("tf32 matmul", DType::F32, Products::Tf32, [&[128, 64], &[64, 160]], matrices, matmul)?,
    ])
}

/// Rewrites in every arithmetic.
fn rewrites() -> Result<Vec<Case>> {
    let mut out = Vec::new();
    for (what, dtype, products) in [
        ("f32", DType::F32, Products::Exact),
        ("3xtf32", DType::F32, Products::Tf32x3),
        ("tf32", DType::F32, Products::Tf32),
        ("f16", DType::F16, Products::Exact),
        ("bf16", DType::BF16, Products::Exact),
        ("f16 on units", DType::F16, Products::Half),
        ("bf16 on units", DType::BF16, Products::Half),
    ] {
        let args = random(dtype, [&[2, 64, 18, 18], &[64, 64, 3, 3]])?;
        for tile in [2, 4] {
            let args = args.clone();
            out.push(Case { what, args, products, tile: Some(tile), lie: Lie::First, f: channels_first });
        }
    }
    for (dtype, products) in [(DType::F16, Products::Half), (DType::F32, Products::Tf32)] {
        let args = random(dtype, [&[2, 18, 18, 64], &[64, 3, 3, 64]])?;
        let lie = Lie::Last { stride: 1 };
        out.push(Case { what: "channels last", args, products, tile: Some(4), lie, f: channels_last_alone });
    }
    Ok(out)
}

/// Runs a case on a device; its program and its result.
fn run(case: &Case, device: Arc<dyn Device>) -> Result<(Program, Vec<f64>)> {
    let specs: Vec<ArgSpec> = case.args.iter().map(|t| ArgSpec::new(t.dtype(), t.shape())).collect();
    let options =
        FunctionOptions { device: Some(device), compiler: Some(case.options()), ..FunctionOptions::default() };
    let function = compile_with(&specs, &options, |a| Ok(vec![(case.f)(a)?]))?;
    assert_eq!(function.explanation().windows[0].applied, case.tile.is_some(), "{}", case.what);
    let y = function.call(&case.args.iter().collect::<Vec<_>>())?;
    Ok((function.program().clone(), y[0].cast(DType::F64)?.to_vec::<f64>()?))
}

impl Case {
    fn options(&self) -> Options {
        let algorithm = if self.tile.is_some() { Algorithm::Winograd } else { Algorithm::Direct };
        let tile = self.tile.map(|m| vec![m.into(); 2]);
        Options { algorithm, tile, products: self.products, ..Options::default() }
    }

    /// As images `[n, c, spatial..]` and weights `[k, c, window..]`.
    fn sizes(&self) -> Result<(Sizes, [Tensor; 2])> {
        let (x, w) = (&self.args[0], &self.args[1]);
        let (stride, x, w) = match self.lie {
            Lie::First => (vec![1; 2], x.clone(), w.clone()),
            Lie::Last { stride } => (vec![stride; 2], x.permute(&[0, 3, 1, 2])?, w.permute(&[0, 3, 1, 2])?),
            Lie::Matrices { transposed } => {
                let w = if transposed { w.clone() } else { w.transpose(0, 1)? };
                (vec![1], x.transpose(0, 1)?.unsqueeze(0)?, w.unsqueeze(2)?)
            }
        };
        let rank = stride.len();
        let padding = vec![if rank == 2 { (1, 1) } else { (0, 0) }; rank];
        Ok((Sizes::new(x.shape(), w.shape(), &padding, &stride, &vec![1; rank], 1)?, [x, w]))
    }

    /// The matrices of the rewrite along one axis.
    fn transforms(&self) -> Result<Option<Transforms>> {
        self.tile.map(|m| default_transforms(m, 3).ok_or_else(|| "no matrices".into())).transpose()
    }

    /// The result in f64, and for each element what it may be off by on a target.
    fn certified(&self, target: &Target) -> Result<(Vec<f64>, Vec<f64>)> {
        let wide = |t: &Tensor| t.cast(DType::F64)?.contiguous()?.to_vec::<f64>();
        let args = self.args.iter().map(|t| t.cast(DType::F64)).collect::<winograph::Result<Vec<_>>>()?;
        let specs: Vec<ArgSpec> = args.iter().map(|t| ArgSpec::new(t.dtype(), t.shape())).collect();
        let options = FunctionOptions {
            device: Some(Arc::new(device(None, 1))),
            compiler: Some(Options { algorithm: Algorithm::Direct, ..Options::default() }),
            ..FunctionOptions::default()
        };
        let function = compile_with(&specs, &options, |a| Ok(vec![(self.f)(a)?]))?;
        let exact = function.call(&args.iter().collect::<Vec<_>>())?.swap_remove(0);
        let (sizes, [x, w]) = self.sizes()?;
        let arithmetic = Arithmetic::of(target, self.args[0].dtype(), self.products);
        let t = self.transforms()?;
        let rank = x.rank() - 2;
        let bound = Bound::winograd(&sizes, &wide(&x)?, &wide(&w)?, &vec![t.as_ref(); rank], arithmetic)?;
        // Elements in the order of the bound, as the result has them.
        let [n, k] = [x.shape()[0], w.shape()[0]];
        let ordered = Tensor::from_slice(&bound.all(), &[n, k, exact.numel() / (n * k)])?;
        let ordered = match self.lie {
            Lie::First => ordered,
            _ => ordered.transpose(1, 2)?,
        };
        let exact = exact.to_vec::<f64>()?;
        let bounds = wide(&ordered)?.into_iter().zip(&exact).map(|(b, &y)| bound.stored(b, y)).collect();
        Ok((exact, bounds))
    }

    /// What a model has for the relative L2 error of sums of independent values, in f32.
    fn expected(&self) -> Result<Option<f64>> {
        let (dtype, channels) = (self.args[0].dtype(), self.sizes()?.1[1].shape()[1]);
        let taps = if matches!(self.lie, Lie::Matrices { .. }) { 1 } else { 9 };
        let t = self.transforms()?;
        let axes: Vec<&Transforms> = t.iter().chain(&t).collect();
        let terms = if t.is_some() { channels } else { channels * taps };
        let error = match (dtype, self.products) {
            (DType::F32, Products::Exact) if axes.is_empty() => expected_error_direct(terms),
            (DType::F32, Products::Exact) => expected_error(&axes, terms),
            (DType::F32, Products::Tf32x3) => expected_error_split(&axes, terms),
            (half, Products::Half) => expected_error_half(&axes, terms, half),
            _ => return Ok(None),
        };
        Ok(Some(error * 2f64.powi(-24)))
    }
}

/// No element is further from the sum in f64 than its bound. Gives the largest share of a bound that was used, and the
/// relative L2 error.
fn check(case: &Case, target: &Target, found: &[f64]) -> Result<(f64, f64)> {
    let (exact, bounds) = case.certified(target)?;
    assert_eq!((found.len(), found.len()), (exact.len(), bounds.len()), "{}", case.what);
    let (mut used, mut wrong, mut square) = (0f64, 0f64, 0f64);
    for (i, ((&y, &e), &b)) in found.iter().zip(&exact).zip(&bounds).enumerate() {
        let off = (y - e).abs();
        assert!(off <= b, "{} {:?}: element {i} is {y} for {e}, {off:e} off and {b:e} at most", case.what, case.tile);
        if off > 0.0 {
            used = used.max(off / b);
        }
        (wrong, square) = (wrong + off * off, square + e * e);
    }
    Ok((used, (wrong / square).sqrt()))
}

/// [`check`] of independent values: a bound that nothing comes near would hold for a wrong reason. What units cut off is the
/// hardware's: only there, and where there are none, errors are no larger than expected, and not much less.
fn check_normal(case: &Case, target: &Target, found: &[f64], hardware: bool) -> Result<()> {
    let (used, error) = check(case, target, found)?;
    // What half floats lose by rounding is the same there.
    let rounded = matches!(case.products, Products::Exact | Products::Half);
    let expected = case.expected()?.filter(|_| hardware || rounded);
    let model = expected.map_or("unknown".to_string(), |e| format!("{e:.2e}"));
    println!(
        "{} {:?} on {}: |error|/bound {used:.4}, relative L2 {error:.2e}, expected {model}",
        case.what, case.tile, target.name
    );
    assert!(used > 1e-4, "{}: {used}", case.what);
    if let Some(expected) = expected {
        assert!((0.2..1.25).contains(&(error / expected)), "{} {:?}: {error:e} for {expected:e}", case.what, case.tile);
    }
    Ok(())
}

/// Unkind data stay within their bounds, too.
fn check_kinds(device: &Arc<dyn Device>) -> Result<()> {
    let rewritten = rewrites()?.into_iter().filter(|c| c.products == Products::Half);
    let direct = cases()?.into_iter().filter(|c| ["f16", "bf16", "tf32", "3xtf32"].contains(&c.what));
    for case in direct.chain(rewritten) {
        for kind in KINDS {
            let make = |(n, t): (usize, &Tensor)| values(kind, n, t.dtype(), t.shape());
            let args = case.args.iter().enumerate().map(make).collect::<winograph::Result<_>>()?;
            let case = Case { args, ..case.clone() };
            let (program, found) = run(&case, device.clone())?;
            assert!(staged(&program), "{}", case.what);
            let (used, _) = check(&case, device.target(), &found)?;
            println!("{} {kind:?} on {}: |error|/bound {used:.4}", case.what, device.target().name);
        }
    }
    Ok(())
}

fn staged(program: &Program) -> bool {
    program.kernels.iter().any(|k| !k.units.is_empty() && k.locals.iter().any(|l| l.scope == Scope::Shared))
}

#[test]
fn products_of_what_a_unit_multiplies_are_staged_for_it_and_right() -> Result<()> {
    for case in cases()? {
        for target in ["cuda:sm_80", "cuda:sm_90"] {
            let gpu = Arc::new(VirtualGpu::new(target)?);
            let (program, found) = run(&case, gpu.clone())?;
            assert!(staged(&program), "{} on {target}", case.what);
            check_normal(&case, gpu.target(), &found, false)?;
        }
    }
    Ok(())
}

#[test]
fn rewrites_are_within_their_bounds_in_every_arithmetic() -> Result<()> {
    let gpu = Arc::new(VirtualGpu::new("cuda:sm_90")?);
    for case in rewrites()? {
        let (program, found) = run(&case, gpu.clone())?;
        let rounds = case.products != Products::Exact;
        assert_eq!(program.kernels.iter().any(|k| !k.units.is_empty()), rounds, "{}", case.what);
        check_normal(&case, gpu.target(), &found, false)?;
    }
    Ok(())
}

#[test]
fn unkind_data_are_within_their_bounds_on_units() -> Result<()> {
    let gpu: Arc<dyn Device> = Arc::new(VirtualGpu::new("cuda:sm_80")?);
    check_kinds(&gpu)
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
    let mut out = Vec::new();
    for (unit, dtype, k) in [
        ("m64n64k64.f16", DType::F16, 192),
        ("m64n128k64.bf16", DType::BF16, 192),
        ("m64n256k64.f16", DType::F16, 128),
        ("m64n64k32.tf32", DType::F32, 96),
    ] {
        for threads in ["", ",thread:2"] {
            let products = if dtype == DType::F32 { Products::Tf32 } else { Products::Exact };
            let args = random(dtype, [&[150, k], &[300, k]])?;
            let plan = format!(
                "contraction: a0=grid{threads},matrix a1=grid,matrix r0=loop,shared:1,matrix unit={unit} stages=3"
            );
            let lie = Lie::Matrices { transposed: true };
            out.push((Case { what: unit, args, products, tile: None, lie, f: transposed }, plan));
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
        let gpu = Arc::new(VirtualGpu::new("cuda:sm_90")?);
        let (program, found) = run_planned(&case, &plan, gpu.clone())?;
        assert_eq!(ways(&program), (false, true), "{plan}");
        check_normal(&case, gpu.target(), &found, false)?;
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

/// Where a target has units that sums of half floats may be on, `explain` counts what they cut off; also where a program
/// widens its factors itself.
#[test]
fn explained_bounds_count_what_units_cut_off() -> Result<()> {
    let widened = |a: &[Tensor]| channels_last(&[a[0].cast(DType::F32)?, a[1].cast(DType::F32)?]);
    let factor = |target: &Target, dtype: DType, f: &dyn Fn(&[Tensor]) -> winograph::Result<Tensor>| -> Result<f64> {
        let specs = [ArgSpec::new(dtype, &[1, 14, 12, 32]), ArgSpec::new(dtype, &[32, 3, 3, 32])];
        let options = Options { algorithm: Algorithm::Direct, ..Options::default() };
        let (_, explanation) = winograph::plan(&specs, target, &options, false, |a| Ok(vec![f(a)?]))?;
        Ok(explanation.windows[0].bound.ok_or("no bound")?.factor)
    };
    let with_units = Target::by_name("cuda:sm_90").ok_or("no target")?;
    for (dtype, on_units) in [(DType::F16, 3.0), (DType::BF16, 3.0), (DType::F32, 1.0)] {
        for (target, times) in [(&Target::cpu(32), 1.0), (&with_units, on_units)] {
            let n = 288.0 * times;
            let wanted = n / (1.0 - n * 2f64.powi(-24));
            for found in [factor(target, dtype, &channels_last)?, factor(target, dtype, &widened)?] {
                assert!((found - wanted).abs() < 1e-9, "{dtype} on {}: {found} for {wanted}", target.name);
            }
        }
    }
    Ok(())
}

#[test]
fn products_of_f32_stay_exact_unless_asked_for() -> Result<()> {
    for case in cases()?.into_iter().filter(|c| c.products == Products::Tf32) {
        let case = Case { products: Products::Exact, ..case };
        let gpu = Arc::new(VirtualGpu::new("cuda:sm_90")?);
        let (program, found) = run(&case, gpu.clone())?;
        assert!(program.kernels.iter().all(|k| k.units.is_empty()), "{}", case.what);
        check_normal(&case, gpu.target(), &found, false)?;
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
fn half_floats_are_on_units_of_their_own_where_f32_may_be_split() -> Result<()> {
    let target = Target::by_name("cuda:sm_90").ok_or("no target")?;
    // Small enough that a step waits for its copies on any unit.
    for (dtype, name) in [(DType::F16, "m16n8k16.f16"), (DType::BF16, "m16n8k16.bf16")] {
        let specs = [ArgSpec::new(dtype, &[1, 64, 64, 16]), ArgSpec::new(dtype, &[16, 3, 3, 16])];
        for products in [Products::Auto, Products::Exact, Products::Tf32x3] {
            let options = Options { algorithm: Algorithm::Direct, products, ..Options::default() };
            let (program, _) = winograph::plan(&specs, &target, &options, false, |a| Ok(vec![channels_last(a)?]))?;
            let units: Vec<&str> = program.kernels.iter().flat_map(|k| &k.units).map(|u| u.name.as_str()).collect();
            assert_eq!(units, [name], "{products:?}");
        }
    }
    Ok(())
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
            tile: Some(vec![4.into()]),
            tolerance: Some(Tolerance::new(tolerance)?),
            ..Options::default()
        };
        let on_units = split([&[2, 64, 32, 32], &[64, 64, 3, 3]], options, channels_first)?;
        assert_eq!(on_units, tolerance > ratio, "{ratio}");
    }
    Ok(())
}

/// The matrices' outputs of a half-float convolution under `auto`, and whether its products are on units.
fn half_auto(shapes: [&[usize]; 2], dtype: DType, options: Options) -> Result<(Vec<AxisTile>, bool, String)> {
    let specs = shapes.map(|s| ArgSpec::new(dtype, s));
    let target = Target::by_name("cuda:sm_90").ok_or("no target")?;
    let options = Options { products: Products::Auto, ..options };
    let (program, explanation) =
        winograph::plan(&specs, &target, &options, false, |a| Ok(vec![channels_last_alone(a)?]))?;
    let on_units = program.kernels.iter().any(|k| !k.units.is_empty());
    Ok((explanation.windows[0].tile.clone(), on_units, explanation.windows[0].reason.clone()))
}

/// Rounding what a rewrite multiplies to half floats is `auto`'s choice where the tolerance admits it and it is faster: not for
/// F(4, 3) by default, nor where there are few channels, nor where no unit takes them.
#[test]
fn rewrites_of_half_floats_are_rounded_where_that_is_admitted_and_faster() -> Result<()> {
    let many: [&[usize]; 2] = [&[16, 28, 28, 1024], &[1024, 3, 3, 1024]];
    let f4 = default_transforms(4, 3).ok_or("no matrices")?;
    let ratio = half_error_ratio(&[&f4, &f4], 1024, DType::F16);
    assert!(ratio > 3.0, "{ratio}");
    let tolerance =
        |t: f64| -> Result<Options> { Ok(Options { tolerance: Some(Tolerance::new(t)?), ..Options::default() }) };
    let (tile, on_units, why) = half_auto(many, DType::F16, Options::default())?;
    let smaller = !tile.is_empty() && tile.iter().any(|t| t.single().is_some_and(|m| m < 4));
    assert!(smaller && on_units && why.contains("rounded to half floats"), "{tile:?}: {why}");
    let (tile, on_units, _) = half_auto(many, DType::F16, tolerance(1.01 * ratio)?)?;
    assert!(tile == [4, 4] && on_units, "{tile:?}");
    let (tile, on_units, why) = half_auto(many, DType::F16, tolerance(1.0)?)?;
    assert!(tile.is_empty() && on_units, "{tile:?}: {why}");
    // Direct sums on units are as fast there.
    let (tile, on_units, why) = half_auto([&[16, 56, 56, 64], &[64, 3, 3, 64]], DType::BF16, tolerance(100.0)?)?;
    assert!(tile.is_empty() && on_units, "{tile:?}: {why}");
    // No unit takes 40 channels, and nothing is gained by rounding.
    let options = Options { algorithm: Algorithm::Winograd, tile: Some(vec![4.into()]), ..Options::default() };
    let (tile, _, why) = half_auto([&[16, 28, 28, 40], &[64, 3, 3, 40]], DType::F16, options)?;
    assert!(tile == [4, 4] && !why.contains("rounded"), "{why}");
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
                let options = case.options();
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
            check_normal(&case, gpu.target(), &found, true)?;
        }
        for case in rewrites()? {
            check_normal(&case, gpu.target(), &run(&case, gpu.clone())?.1, true)?;
        }
        check_kinds(&gpu)?;
        // What compute capability 9.0 alone has, where the compiler knows it.
        let four_warps = |g: &winograph_compiler::target::Gpu| g.units.contains(&"m64n64k64.f16");
        let has = gpu.target().gpu.as_ref().is_some_and(four_warps);
        for (case, plan) in of_four_warps()?.into_iter().filter(|_| has) {
            let (program, found) = run_planned(&case, &plan, gpu.clone())?;
            assert_eq!(ways(&program), (false, true), "{plan}");
            check_normal(&case, gpu.target(), &found, true)?;
        }
        Ok(())
    }
}
