//! The virtual GPU as a device: the tests' kernels bit for bit, whole programs against the CPU, on every target that is a
//! GPU; what is planted is found.

mod kernels;

use kernels::*;
use std::sync::Arc;
use winograph::device::{Device, DeviceError};
use winograph::virtual_gpu::VirtualGpu;
use winograph::{ArgSpec, ConvOptions, DType, FunctionOptions, Options, PoolOptions, Result, Tensor, compile_with};
use winograph_compiler::options::{GridRule, LayoutRule, StageRule};
use winograph_compiler::{Algorithm, Target};
use winograph_ir::interp::InterpError;
use winograph_ir::interp::gpu::GpuModel;
use winograph_ir::interp::sectors;
use winograph_ir::text::parse_linear;

const TARGETS: [&str; 3] = ["cuda:sm_80", "cuda:sm_90", "metal"];

fn gpu(target: &str) -> VirtualGpu {
    VirtualGpu::new(target).unwrap()
}

/// Runs kernels written by hand and compares what they leave.
fn check(cases: Vec<Case>) {
    let gpu = gpu("cuda:sm_90");
    let codes: Vec<_> = cases.iter().map(|c| c.code.clone()).collect();
    let module = gpu.compile(&codes).unwrap();
    let mut wrong = 0;
    for (i, case) in cases.iter().enumerate() {
        let inputs: Vec<_> = case.inputs.iter().map(|v| buffer(v)).collect();
        let out = buffer(&case.before);
        let mut args: Vec<_> = inputs.iter().collect();
        args.push(&out);
        launch(&*module, i, &args, &case.params);
        wrong += case.differences("virtual", &values(&out, case.expected[0].dtype()));
    }
    assert_eq!(wrong, 0, "{wrong} wrong values");
}

#[test]
fn instructions() {
    check(
        [
            ops::unary(),
            ops::binary(),
            ops::fma(),
            ops::casts(),
            ops::bitcasts(),
            ops::where_of_all_widths(),
            ops::folds(),
            ops::index_and_select(),
            ops::pack_constants_and_tables(),
        ]
        .into_iter()
        .flatten()
        .collect(),
    );
}

#[test]
fn accesses_and_threads() {
    check(
        [accesses::lanes_strides_and_gates(16), threads::threads(), matrix::products()].into_iter().flatten().collect(),
    );
}

/// Runs a function on the virtual GPU of every target, under the new and the old rules, and on the CPU. Whatever a plan
/// does to the order of sums, results differ by roundings alone; what is exact agrees bit for bit with `tolerance` 0.
/// Every launch moves what was predicted of it.
fn agrees(what: &str, args: &[Tensor], tolerance: f64, f: impl Fn(&[Tensor]) -> Result<Vec<Tensor>>) -> Result<()> {
    agrees_by(what, Algorithm::Auto, args, tolerance, f)
}

fn agrees_by(
    what: &str,
    algorithm: Algorithm,
    args: &[Tensor],
    tolerance: f64,
    f: impl Fn(&[Tensor]) -> Result<Vec<Tensor>>,
) -> Result<()> {
    let specs: Vec<ArgSpec> = args.iter().map(|t| ArgSpec::new(t.dtype(), t.shape())).collect();
    let run = |device: Arc<dyn Device>, layout: LayoutRule, grid: GridRule| -> Result<Vec<Vec<f64>>> {
        let options = FunctionOptions {
            device: Some(device),
            compiler: Some(Options { algorithm, layout, grid, ..Options::default() }),
            ..FunctionOptions::default()
        };
        let function = compile_with(&specs, &options, &f)?;
        let results = function.call(&args.iter().collect::<Vec<_>>())?;
        results.iter().map(|r| r.cast(DType::F64)?.to_vec::<f64>()).collect()
    };
    let cpu = run(Arc::new(device(None, 1)), LayoutRule::Auto, GridRule::Auto)?;
    for target in TARGETS {
        for (layout, grid) in [(LayoutRule::Auto, GridRule::Auto), (LayoutRule::Creation, GridRule::RangeId)] {
            let device = Arc::new(gpu(target));
            let found = run(device.clone(), layout, grid)?;
            assert!(!device.take_launches().is_empty(), "{what}: nothing was launched");
            for (found, cpu) in found.iter().zip(&cpu) {
                assert_eq!(found.len(), cpu.len(), "{what}");
                for (i, (a, b)) in found.iter().zip(cpu).enumerate() {
                    let near = a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * b.abs().max(1.0);
                    assert!(near, "{what} on {target}, {layout:?} {grid:?}: element {i} is {a}, on the CPU {b}");
                }
            }
        }
    }
    Ok(())
}

fn randn(shape: &[usize], seed: u64) -> Result<Tensor> {
    Tensor::randn(shape, DType::F32, seed)
}

#[test]
fn elementwise_broadcasts_and_movement() -> Result<()> {
    let (x, y) = (randn(&[3, 50], 1)?, randn(&[50], 2)?);
    agrees("arithmetic", &[x.clone(), y], 0.0, |a| Ok(vec![a[0].exp()?.add(&a[1])?.mul(&a[0].tanh()?)?]))?;
    agrees("transposed", &[randn(&[33, 40], 3)?], 0.0, |a| Ok(vec![a[0].transpose(0, 1)?.contiguous()?]))?;
    agrees("slices and cat", &[randn(&[12, 9], 4)?], 0.0, |a| {
        let parts = [a[0].narrow(0, 1, 5)?, a[0].slice_axis(0, 2..11)?, a[0].flip(&[1])?];
        Ok(vec![Tensor::cat(&parts.iter().collect::<Vec<_>>(), 0)?.pad(&[(1, 0), (0, 3)], 7.0)?])
    })?;
    agrees("gathered", &[x.clone(), Tensor::randint(0, 3, &[2, 50], DType::I32, 5)?], 0.0, |a| {
        Ok(vec![a[0].gather(0, &a[1])?])
    })?;
    agrees("comparisons", &[x], 0.0, |a| Ok(vec![a[0].gt(0.5)?.where_(&a[0], &a[0].neg()?)?, a[0].isnan()?]))
}

#[test]
fn dtypes() -> Result<()> {
    let x = randn(&[5, 37], 1)?.mul(20.0)?;
    for dtype in [DType::F16, DType::BF16, DType::F64, DType::I8, DType::I32, DType::I64, DType::U8, DType::Bool] {
        agrees(&format!("{dtype}"), std::slice::from_ref(&x), 0.0, |a| {
            let y = a[0].cast(dtype)?;
            Ok(vec![y.eq(&y.flip(&[1])?)?, y.max(&[0], false)?, y])
        })?;
    }
    Ok(())
}

#[test]
fn reductions_and_softmax() -> Result<()> {
    let x = randn(&[7, 9, 33], 1)?;
    for axis in 0..3 {
        agrees(&format!("sum over {axis}"), std::slice::from_ref(&x), 1e-5, |a| Ok(vec![a[0].sum(&[axis], false)?]))?;
        agrees(&format!("max over {axis}"), std::slice::from_ref(&x), 0.0, |a| Ok(vec![a[0].max(&[axis], false)?]))?;
        agrees(&format!("softmax over {axis}"), std::slice::from_ref(&x), 1e-5, |a| Ok(vec![a[0].softmax(axis)?]))?;
    }
    agrees("everything", std::slice::from_ref(&x), 1e-5, |a| {
        Ok(vec![a[0].mean(&[], false)?, a[0].argmax(None, false)?])
    })?;
    agrees("layer norm", &[x], 1e-5, |a| {
        let centred = a[0].sub(&a[0].mean(&[-1], true)?)?;
        Ok(vec![centred.mul(&a[0].var(&[-1], false, true)?.add(1e-5)?.rsqrt()?)?])
    })
}

#[test]
fn products_convolutions_and_pooling() -> Result<()> {
    agrees("matmul", &[randn(&[20, 24], 1)?, randn(&[24, 36], 2)?], 1e-5, |a| Ok(vec![a[0].matmul(&a[1])?]))?;
    agrees("batched", &[randn(&[3, 5, 7], 1)?, randn(&[3, 7, 9], 2)?], 1e-5, |a| Ok(vec![a[0].matmul(&a[1])?]))?;
    let x = randn(&[2, 6, 17, 13], 3)?;
    let (w, b) = (randn(&[8, 6, 3, 3], 4)?.mul(0.2)?, randn(&[8], 5)?);
    for algorithm in [Algorithm::Direct, Algorithm::Winograd] {
        agrees_by(&format!("{algorithm:?}"), algorithm, std::slice::from_ref(&x), 2e-4, |a| {
            Ok(vec![a[0].conv2d(&w, Some(&b), &ConvOptions::padding(1))?.relu()?])
        })?;
    }
    agrees_by("tensor level", Algorithm::Direct, std::slice::from_ref(&x), 2e-4, |a| {
        Ok(vec![a[0].conv_tensor_level(&w, None, &ConvOptions::padding(1), Some(&[2]), None)?.tensor])
    })?;
    let depthwise = randn(&[6, 1, 3, 3], 6)?;
    let options = ConvOptions { groups: 6, stride: vec![2, 2], ..ConvOptions::padding(1) };
    agrees("depthwise", std::slice::from_ref(&x), 1e-5, |a| Ok(vec![a[0].conv2d(&depthwise, None, &options)?]))?;
    let pool = PoolOptions { stride: vec![2, 2], ..PoolOptions::default() };
    agrees("pooling", &[x], 1e-5, |a| Ok(vec![a[0].max_pool(&[3, 3], &pool)?, a[0].avg_pool(&[2, 2], &pool)?]))
}

#[test]
fn sums_in_parts() -> Result<()> {
    let rows = randn(&[40, 2048], 1)?;
    agrees("row times vector", &[randn(&[2048], 2)?], 1e-4, |a| Ok(vec![rows.matmul(&a[0])?.relu()?]))?;
    let columns = randn(&[1024, 24], 3)?.mul(0.1)?;
    agrees("few results", &[randn(&[8, 1024], 4)?], 1e-4, |a| Ok(vec![a[0].matmul(&columns)?]))?;
    let w = randn(&[8, 96, 3, 3], 5)?.mul(0.1)?;
    let options = ConvOptions { stride: vec![2, 2], ..ConvOptions::padding(1) };
    agrees("strided", &[randn(&[1, 96, 9, 7], 6)?], 1e-4, |a| Ok(vec![a[0].conv2d(&w, None, &options)?.relu()?]))?;
    let long = randn(&[100_000], 7)?;
    agrees("everything", &[long], 1e-4, |a| Ok(vec![a[0].mean(&[], false)?, a[0].max(&[], false)?]))?;
    for dtype in [DType::F16, DType::BF16] {
        let (a, b) = (randn(&[4, 3072], 8)?.cast(dtype)?, randn(&[3072, 6], 9)?.mul(0.05)?.cast(dtype)?);
        agrees(dtype.name(), &[a, b], 2e-2, |a| Ok(vec![a[0].matmul(&a[1])?]))?;
    }
    // Each of these is cut: there is a launch more than there are results.
    let how = FunctionOptions { device: Some(Arc::new(gpu("cuda:sm_90"))), ..FunctionOptions::default() };
    let f = compile_with(&[ArgSpec::new(DType::F32, &[2048])], &how, |a| Ok(vec![rows.matmul(&a[0])?.relu()?]))?;
    assert_eq!(f.program().run.len(), 2);
    Ok(())
}

/// A block of 64 threads that turns 64 numbers around by way of shared memory.
fn reverse(barrier: &str, index: &str) -> winograph_ir::linear::Code {
    parse_linear(&format!(
        "kernel E_64
        arg x: f32[64] argument 0 global layout [0:1] len 64
        arg y: f32[64] output 0 global layout [0:1] len 64 written
        local s: f32[64] internal shared layout [0:1] len 64
        body {{
          loop t:64 thread {{
            %0: f32 = load x[t] @ t
            store %0, s[t] @ t
            {barrier}
            %1: f32 = load s[63 - t] @ 63 - t
            store %1, y[{index}] @ {index}
          }}
        }}"
    ))
    .unwrap()
}

#[test]
fn what_is_planted_is_found() {
    let gpu = gpu("cuda:sm_90");
    let outcome = |barrier: &str, index: &str| {
        let module = gpu.compile(&[reverse(barrier, index)]).unwrap();
        let values: Vec<_> = (0..64).map(|i| winograph_ir::Scalar::from_f64(DType::F32, i as f64)).collect();
        let (x, y) = (buffer(&values), buffer(&zeros(&values)));
        let args = [&x, &y].map(|b| winograph::device::Arg { address: b.as_ptr(), bytes: b.len() });
        // SAFETY: both live until the launch returns, and nothing else holds `y`.
        let result = unsafe { module.launch(0, &args, &[]) };
        (result, winograph_ir::interp::Value::from_bytes(DType::F32, &[64], y.as_slice()).to_f64s())
    };
    let (right, y) = outcome("barrier shared", "t");
    assert!(right.is_ok());
    assert_eq!(y, (0..64).rev().map(f64::from).collect::<Vec<_>>());
    let (missing, y) = outcome("", "t");
    assert!(
        matches!(&missing, Err(DeviceError::Stopped(InterpError::Race { memory, .. })) if memory == "s"),
        "{missing:?}"
    );
    assert_eq!(y, [0.0; 64], "a kernel that is stopped leaves nothing");
    let (raced, _) = outcome("barrier shared", "t/40");
    assert!(
        matches!(&raced, Err(DeviceError::Stopped(InterpError::Race { memory, .. })) if memory == "y"),
        "{raced:?}"
    );
    let (wrong, _) = outcome("barrier shared", "t + 1");
    assert!(
        matches!(
            &wrong,
            Err(DeviceError::Stopped(InterpError::OutOfBounds { .. } | InterpError::AxisOutOfBounds { index: 64, .. }))
        ),
        "{wrong:?}"
    );
}

#[test]
fn launches_are_counted_as_predicted() -> Result<()> {
    let device = Arc::new(gpu("metal"));
    let options = FunctionOptions { device: Some(device.clone()), ..FunctionOptions::default() };
    let w = randn(&[8, 8, 3, 3], 1)?;
    let f = compile_with(&[ArgSpec::new(DType::F32, &[1, 8, 12, 12])], &options, |a| {
        Ok(vec![a[0].conv2d(&w, None, &ConvOptions::padding(1))?])
    })?;
    device.take_launches();
    f.call(&[&randn(&[1, 8, 12, 12], 2)?])?;
    let launches = device.take_launches();
    assert_eq!(launches.len(), f.program().run.len());
    for (launch, step) in launches.iter().zip(&f.program().run) {
        let code = &f.program().kernels[step.kernel];
        assert_eq!(launch.kernel, code.name);
        assert_eq!(Some(&launch.counts.sites), sectors::count(code, &[], &GpuModel::default()).as_ref());
    }
    assert!(device.take_launches().is_empty(), "asked for once");
    Ok(())
}

#[test]
fn what_cannot_be_is_an_error() -> Result<()> {
    let text = |target: &str| VirtualGpu::new(target).err().map(|e| e.to_string()).unwrap_or_default();
    for target in ["cpu", "cuda", "cuda:sm_10", ""] {
        let found = text(target);
        assert!(
            found.contains("cuda:sm_80, cuda:sm_90, metal") && found.contains(&format!("virtual:{target}")),
            "{found}"
        );
    }
    assert!(VirtualGpu::of(Target::cpu(32)).is_none());
    let device = Arc::new(gpu("cuda:sm_90").with_limit(1000));
    let options = FunctionOptions { device: Some(device), ..FunctionOptions::default() };
    let f = |n: usize| compile_with(&[ArgSpec::new(DType::F32, &[n])], &options, |a| Ok(vec![a[0].neg()?]));
    assert_eq!(f(8)?.call(&[&Tensor::ones(&[8], DType::F32)?])?[0].to_vec::<f32>()?, [-1.0; 8]);
    let e = f(4096).expect_err("too much work").to_string();
    assert!(e.contains("at most 1000 of one launch: take a smaller size"), "{e}");
    Ok(())
}

/// Launches that are repeated for chunks of the batch leave the bits of those for the whole batch, in less memory; what each
/// moves was predicted. Five images in two chunks: the last one has fewer. One launch of workgroups leaves the same bits.
#[test]
fn chunks_of_the_batch_are_the_same_bits_in_less_memory() -> Result<()> {
    let (x, w, b) = (randn(&[5, 8, 14, 14], 1)?, randn(&[8, 8, 3, 3], 2)?, randn(&[8], 3)?);
    Tensor::realize_all(&[&x, &w, &b])?;
    for target in TARGETS {
        let device = Arc::new(gpu(target));
        let build = |stages| {
            let compiler = Options { algorithm: Algorithm::Winograd, stages, ..Options::default() };
            let how = FunctionOptions { device: Some(device.clone()), compiler: Some(compiler), dumps: false };
            compile_with(&[ArgSpec::new(DType::F32, x.shape())], &how, |a| {
                Ok(vec![a[0].conv2d(&w, Some(&b), &ConvOptions::padding(1))?.relu()?])
            })
        };
        let bits = |f: &winograph::Function| -> Result<Vec<u32>> {
            Ok(f.call(&[&x])?[0].to_vec::<f32>()?.into_iter().map(f32::to_bits).collect())
        };
        let (whole, chunked) = (build(StageRule::Global)?, build(StageRule::Chunks(2))?);
        assert_eq!(bits(&chunked)?, bits(&whole)?, "{target}");
        let arena = |f: &winograph::Function| f.program().arena_bytes;
        assert!(arena(&chunked) * 5 <= arena(&whole) * 3, "{} and {} bytes", arena(&chunked), arena(&whole));
        let fused = build(StageRule::Fused)?;
        assert_eq!((bits(&fused)?, arena(&fused)), (bits(&whole)?, 0), "{target}");
        device.take_launches();
        chunked.call(&[&x])?;
        let (program, launches) = (chunked.program(), device.take_launches());
        assert_eq!((program.run.len(), launches.len()), (6, 6));
        for (step, launch) in program.run.iter().zip(launches) {
            let code = &program.kernels[step.kernel];
            let counted = sectors::count(code, &step.params(&[]), &GpuModel::default());
            assert_eq!(Some(&launch.counts.sites), counted.as_ref());
        }
    }
    Ok(())
}

/// Each convolution of a network has its own chunks, one after the other, and its own workgroups.
#[test]
fn convolutions_of_a_network_are_in_chunks_one_by_one() -> Result<()> {
    let (x, w) = (randn(&[3, 8, 12, 12], 1)?, randn(&[8, 8, 3, 3], 2)?.mul(0.2)?);
    Tensor::realize_all(&[&x, &w])?;
    let device = Arc::new(gpu("cuda:sm_90"));
    let build = |stages| {
        let compiler = Options { algorithm: Algorithm::Winograd, stages, ..Options::default() };
        let how = FunctionOptions { device: Some(device.clone()), compiler: Some(compiler), dumps: false };
        compile_with(&[ArgSpec::new(DType::F32, x.shape())], &how, |a| {
            let y = a[0].conv2d(&w, None, &ConvOptions::padding(1))?.relu()?;
            Ok(vec![y.conv2d(&w.transpose(0, 1)?, None, &ConvOptions::padding(1))?.add(&a[0])?])
        })
    };
    let bits = |f: &winograph::Function| -> Result<Vec<u32>> {
        Ok(f.call(&[&x])?[0].to_vec::<f32>()?.into_iter().map(f32::to_bits).collect())
    };
    let want = bits(&build(StageRule::Global)?)?;
    for (stages, launches) in [(StageRule::Chunks(2), 12), (StageRule::Chunks(3), 18), (StageRule::Fused, 2)] {
        let f = build(stages)?;
        assert_eq!(f.program().run.len(), launches, "{stages:?}: {:?}", f.explanation().scopes);
        assert_eq!(bits(&f)?, want, "{stages:?}");
    }
    Ok(())
}
