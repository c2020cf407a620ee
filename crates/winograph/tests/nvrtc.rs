//! CUDA C through NVRTC, which needs no GPU: every kernel of the tests compiles for compute capabilities 8.0 and 9.0
//! without a warning, and what it takes of a GPU is known. Skipped where NVRTC is not installed; `bench/fetch_nvrtc.sh`
//! fetches it.
#![cfg(feature = "cuda")]

mod kernels;

use kernels::*;
use std::path::PathBuf;
use winograph::cuda::{Architecture, Binary, KernelResources, Nvrtc};
use winograph_compiler::Target;
use winograph_compiler::render::{CudaSource, render_cuda};
use winograph_ir::linear::Code;

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

/// Compiles kernels for both machines and checks that nothing is said but what they take.
fn compile(nvrtc: &Nvrtc, codes: &[Code]) -> (CudaSource, Vec<Binary>) {
    let source = render_cuda(codes, &Target::cpu(16)).unwrap();
    let binaries = [80, 90].map(|a| {
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
    (source, binaries.into())
}

fn resources(binary: &Binary, symbol: &str) -> KernelResources {
    binary.resources.iter().find(|r| r.0 == symbol).unwrap().1
}

/// Compiles all cases; registers suffice for all of them.
fn check(cases: Vec<Case>) {
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
    let all = [ops::where_of_all_widths(), ops::folds(), ops::index_and_select(), ops::pack_constants_and_tables()];
    check(all.into_iter().flatten().collect());
}

#[test]
fn accesses() {
    check(accesses::lanes_strides_and_gates(16));
}

#[test]
fn nests_and_parameters() {
    check(nested::nested().into_iter().take(1).collect());
}

#[test]
fn threads_shared_memory_and_barriers() {
    check(threads::threads());
}

#[test]
fn matrix_units() {
    check(matrix::products());
}
