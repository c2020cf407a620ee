//! CUDA C through NVRTC, which needs no GPU: every kernel of the tests compiles for compute capabilities 8.0 and 9.0
//! without a warning, and what it takes of a GPU is known. Skipped where NVRTC is not installed; `bench/fetch_nvrtc.sh`
//! fetches it.
#![cfg(feature = "cuda")]

mod kernels;

use kernels::*;
use std::path::PathBuf;
use winograph::cuda::{Architecture, Binary, KernelResources, Nvrtc};
use winograph::{ArgSpec, ConvOptions, Options, PoolOptions, Tensor, plan};
use winograph_compiler::optimize::matrix_unit::CUDA_UNITS;
use winograph_compiler::options::{Products, StageRule};
use winograph_compiler::render::{CudaSource, render_cuda};
use winograph_compiler::{Algorithm, Target};
use winograph_ir::indexed::Scope;
use winograph_ir::interp::gpu::GpuModel;
use winograph_ir::linear::Code;
use winograph_ir::{DType, Scalar};

/// NVRTC, or a message that it is not there.
fn nvrtc() -> Option<Nvrtc> {
    let fetched = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().map(|p| p.join("nvrtc"));
    let asked = std::env::var_os("WINOGRAPH_NVRTC").map(PathBuf::from);
    match Nvrtc::load(asked.or(fetched.filter(|f| f.is_dir())).as_deref()) {
        Ok(n) => Some(n),
        Err(e) => {
            eprintln!("skipped: {e}");
            None
        }
    }
}

/// Compiles kernels for both machines, those on units that the older one lacks for the newer one, and checks that nothing is
/// said but what they take.
fn compile(nvrtc: &Nvrtc, codes: &[Code]) -> (CudaSource, Vec<Binary>) {
    let source = render_cuda(codes, &Target::cpu(16)).unwrap();
    let newer = codes.iter().flat_map(|k| &k.units).any(|u| !CUDA_UNITS.contains(&u.name.as_str()));
    let machines = if newer { &[90][..] } else { &[80, 90] };
    let binaries = machines.iter().map(|&a| {
        let binary = nvrtc.compile(&source.text, Architecture::Machine(a));
        let binary = binary.unwrap_or_else(|e| panic!("sm_{a}: {e}\n{}", source.text));
        let warnings: Vec<_> = binary.log.lines().filter(|l| !l.starts_with("ptxas") && !l.is_empty()).collect();
        assert_eq!(warnings, [""; 0], "sm_{a}");
        let mut names: Vec<_> = binary.resources.iter().map(|r| r.0.clone()).collect();
        let mut symbols: Vec<_> = source.kernels.iter().map(|k| k.symbol.clone()).collect();
        names.sort();
        symbols.sort();
        assert_eq!(names, symbols, "sm_{a}");
        binary
    });
    let binaries = binaries.collect();
    (source, binaries)
}

fn resources(binary: &Binary, symbol: &str) -> KernelResources {
    binary.resources.iter().find(|r| r.0 == symbol).unwrap().1
}

/// Compiles all cases, which are right; registers suffice for all of them.
fn check(cases: Vec<Case>) {
    for case in &cases {
        winograph_ir::verify::linear::verify(&case.code).unwrap_or_else(|e| panic!("{}: {e}", case.what));
    }
    let Some(nvrtc) = nvrtc() else { return };
    let codes: Vec<_> = cases.iter().map(|c| c.code.clone()).collect();
    let (source, binaries) = compile(&nvrtc, &codes);
    for (case, k) in cases.iter().zip(&source.kernels) {
        for b in &binaries {
            let r = resources(b, &k.symbol);
            assert!((1..=255).contains(&r.registers) && r.spill_bytes == 0, "{}: {r:?}", case.what);
        }
    }
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
    let kinds = [(DType::F32, 1), (DType::F32, 4), (DType::I64, 2), (DType::F16, 8), (DType::U8, 16), (DType::Bool, 4)];
    check(kinds.into_iter().flat_map(|(d, lanes)| accesses::access_cases(d, lanes)).collect());
}

#[test]
fn nests_and_parameters() {
    check(nested::nested().into_iter().take(1).collect());
}

/// The virtual GPU gives what the cases expect.
#[test]
fn expected_results() {
    for case in threads::threads().into_iter().chain(matrix::products()).chain(nested::nested()) {
        let bytes = |v: &[Scalar]| -> Vec<u8> {
            v.iter().flat_map(|s| s.bits().to_le_bytes().into_iter().take(s.dtype().size())).collect()
        };
        let mut args: Vec<_> = case.inputs.iter().map(|v| bytes(v)).collect();
        args.push(bytes(&case.before));
        let run = if case.code.nest().is_some() {
            winograph_ir::interp::gpu::run(&case.code, &mut args, &case.params, &GpuModel::default()).map(|_| ())
        } else {
            winograph_ir::interp::linear::run(&case.code, &mut args, &case.params)
        };
        run.unwrap_or_else(|e| panic!("{}: {e}", case.what));
        let dtype = case.expected[0].dtype();
        let found = args.pop().unwrap();
        let read = |c: &[u8]| {
            let mut all = [0u8; 8];
            all[..c.len()].copy_from_slice(c);
            Scalar::from_bits(dtype, u64::from_le_bytes(all))
        };
        let found: Vec<_> = found.chunks_exact(dtype.size()).map(read).collect();
        assert_eq!(case.differences("virtual", &found), 0);
    }
}

#[test]
fn threads_shared_memory_and_barriers() {
    let Some(nvrtc) = nvrtc() else { return };
    let cases = threads::threads();
    let (source, binaries) = compile(&nvrtc, &cases.iter().map(|c| c.code.clone()).collect::<Vec<_>>());
    for (case, k) in cases.iter().zip(&source.kernels) {
        for b in &binaries {
            let r = resources(b, &k.symbol);
            // Arrays of scope `register` are registers.
            assert!(r.stack_bytes == 0 && r.spill_bytes == 0, "{}: {r:?}", case.what);
            let shared: usize = case.code.locals.iter().filter(|l| l.scope == Scope::Shared).count();
            let given = r.shared_bytes + k.shared_bytes;
            assert_eq!(given > 0, shared > 0, "{}: {r:?}", case.what);
            assert_eq!(k.shared_bytes > 0, given > 48 << 10, "{}: {given} bytes", case.what);
        }
    }
}

#[test]
fn matrix_units() {
    check(matrix::products());
}

/// Whole programs for a target without threads: each grid loop becomes blocks of one thread.
#[test]
fn programs() -> winograph::Result<()> {
    let Some(nvrtc) = nvrtc() else { return Ok(()) };
    let w = Tensor::randn(&[8, 6, 3, 3], DType::F32, 1)?;
    let image = [ArgSpec::new(DType::F32, &[2, 6, 17, 13])];
    let square = [ArgSpec::new(DType::F32, &[24, 24])];
    let half = [ArgSpec::new(DType::F16, &[3, 40])];
    let index = [ArgSpec::new(DType::F32, &[9, 4]), ArgSpec::new(DType::I64, &[5])];
    let planned = |args: &[ArgSpec], algorithm, f: &dyn Fn(&[Tensor]) -> winograph::Result<Tensor>| {
        let options = Options { algorithm, ..Options::default() };
        plan(args, &Target::cpu(16), &options, false, |x| Ok(vec![f(x)?]))
    };
    let conv = |x: &[Tensor]| x[0].conv2d(&w, None, &ConvOptions::padding(1))?.relu();
    let programs = [
        planned(&image, Algorithm::Direct, &conv)?,
        planned(&image, Algorithm::Winograd, &conv)?,
        planned(&square, Algorithm::Auto, &|x| x[0].matmul(&x[0])?.softmax(1))?,
        planned(&square, Algorithm::Auto, &|x| x[0].transpose(0, 1)?.exp()?.sin()?.add(&x[0].sum(&[0], true)?))?,
        planned(&half, Algorithm::Auto, &|x| x[0].mul(&x[0])?.max(&[1], false)?.log())?,
        planned(&index, Algorithm::Auto, &|x| x[0].index_select(0, &x[1]))?,
    ];
    for (program, _) in programs {
        let (source, _) = compile(&nvrtc, &program.kernels);
        assert!(source.kernels.iter().all(|k| k.threads == 1));
    }
    Ok(())
}

/// Programs planned for GPUs, with threads, vectors, shared memory, asynchronous copies and matrix units: no kernel spills,
/// and the registers of a workgroup are there.
#[test]
fn programs_of_gpus() -> winograph::Result<()> {
    let Some(nvrtc) = nvrtc() else { return Ok(()) };
    let conv = |dtype, c: usize, size: usize, per_group: usize| {
        [ArgSpec::new(dtype, &[1, c, size, size]), ArgSpec::new(dtype, &[c, per_group, 3, 3])]
    };
    let pad = ConvOptions::padding(1);
    let exact = Options::default();
    let graph = Options { algorithm: Algorithm::Winograd, ..Options::default() };
    let chunks = Options { stages: StageRule::Chunks(3), ..graph.clone() };
    let fused = Options { stages: StageRule::Fused, ..graph.clone() };
    let w = Tensor::randn(&[16, 16, 3, 3], DType::F32, 1)?;
    let tf32 = Options { products: Products::Tf32, ..Options::default() };
    let square = [(); 2].map(|()| ArgSpec::new(DType::F16, &[512, 512]));
    let rows = [ArgSpec::new(DType::F32, &[64, 300])];
    let groups = ConvOptions { groups: 16, ..ConvOptions::padding(1) };
    let pool = PoolOptions { stride: vec![2], ..PoolOptions::default() };
    for target in ["cuda:sm_80", "cuda:sm_90"] {
        let target = Target::by_name(target).unwrap();
        let planned = |args: &[ArgSpec], options: &Options, f: &dyn Fn(&[Tensor]) -> winograph::Result<Tensor>| {
            plan(args, &target, options, false, |x| Ok(vec![f(x)?]))
        };
        let programs = [
            planned(&conv(DType::F32, 16, 24, 16), &graph, &|x| x[0].conv2d(&x[1], None, &pad)?.relu())?,
            planned(&conv(DType::F32, 128, 56, 128), &graph, &|x| x[0].conv2d(&x[1], None, &pad))?,
            planned(&[ArgSpec::new(DType::F32, &[5, 16, 28, 28])], &chunks, &|x| x[0].conv2d(&w, None, &pad))?,
            planned(&[ArgSpec::new(DType::F32, &[1, 16, 64, 64])], &fused, &|x| x[0].conv2d(&w, None, &pad))?,
            planned(&conv(DType::F32, 128, 56, 128), &exact, &|x| x[0].conv_direct(&x[1], None, &pad))?,
            planned(&conv(DType::F32, 128, 56, 128), &tf32, &|x| x[0].conv_direct(&x[1], None, &pad))?,
            planned(&square, &exact, &|x| x[0].matmul(&x[1]))?,
            planned(&conv(DType::F32, 16, 24, 1), &exact, &|x| x[0].conv2d(&x[1], None, &groups))?,
            planned(&conv(DType::F32, 16, 25, 1)[..1], &exact, &|x| x[0].avg_pool(&[3, 3], &pool))?,
            planned(&rows, &exact, &|x| x[0].softmax(1)?.add(&x[0].softmax(0)?))?,
            planned(&rows, &exact, &|x| Tensor::cat(&[&x[0], &x[0].exp()?], 1)?.matmul(&x[0].reshape(&[600, 32])?))?,
        ];
        let (mut shared, mut units) = (0, 0);
        for (program, _) in programs {
            let (source, binaries) = compile(&nvrtc, &program.kernels);
            shared += program.kernels.iter().filter(|k| k.locals.iter().any(|l| l.scope == Scope::Shared)).count();
            units += program.kernels.iter().filter(|k| !k.units.is_empty()).count();
            for (k, b) in source.kernels.iter().flat_map(|k| binaries.iter().map(move |b| (k, b))) {
                let r = resources(b, &k.symbol);
                assert!(r.spill_bytes == 0, "{}: {r:?}", k.symbol);
                assert!(r.registers as usize * k.threads as usize <= 65536, "{}: {r:?}", k.symbol);
            }
        }
        assert!(shared >= 3 && units >= 2, "{shared} with shared memory, {units} on matrix units");
    }
    Ok(())
}
