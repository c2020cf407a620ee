//! No element of a convolution is further from the exact sum than its a-priori bound says: every F(m, r) and the direct
//! sum, every float dtype, on data chosen to be unkind. The largest share of a bound that was used is printed. On a GPU, too,
//! where there is one; what matrix units sum is held to its bound in `units.rs`.

use std::ffi::OsString;
use std::sync::Arc;
use winograph::cpu::{CpuDevice, CpuOptions};
use winograph::device::Device;
use winograph::{
    Algorithm, ArgSpec, ConvOptions, DType, FunctionOptions, Options, Scalar, Tensor, WindowRule, compile_with,
    settings,
};
use winograph_compiler::winograd::bound::{Arithmetic, Bound, Sizes};
use winograph_compiler::winograd::cook_toom::Transforms;
use winograph_compiler::winograd::points::default_transforms;

/// Every (m, r) that the rewrite knows: at most 8 positions.
fn algorithms() -> Vec<(usize, usize)> {
    let all = [2, 3, 4, 5, 7].into_iter().flat_map(|r| [2, 3, 4, 6].map(|m| (m, r)));
    all.filter(|(m, r)| m + r <= 9).collect()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Random,
    /// A mean a thousand times the spread.
    Offset,
    /// The signs that meet worst in one position of the matrices.
    Adversarial,
    /// Inputs below the normal numbers.
    Denormal,
    /// Products around the least positive number.
    Underflow,
    Alternating,
}

const KINDS: [Kind; 6] =
    [Kind::Random, Kind::Offset, Kind::Adversarial, Kind::Denormal, Kind::Underflow, Kind::Alternating];

struct Random(u64);

impl Random {
    /// Uniform in [0, 1).
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// One convolution of the input, by F(m, r) on every axis or directly.
struct Case {
    tile: Option<usize>,
    taps: usize,
}

const CHANNELS: usize = 3;
const FILTERS: usize = 2;

/// Input sizes per rank: more than one tile, and a ragged last one.
fn size(rank: usize) -> usize {
    [23, 9, 4][rank - 1]
}

/// The least positive number of a dtype and its least normal one, as exponents of 2.
fn exponents(dtype: DType) -> (i32, i32) {
    match dtype {
        DType::F16 => (-24, -14),
        DType::BF16 => (-133, -126),
        DType::F32 => (-149, -126),
        _ => (-1074, -1022),
    }
}

fn value(kind: Kind, of_input: bool, place: usize, dtype: DType, r: &mut Random) -> f64 {
    let spread = 2.0 * r.next() - 1.0;
    let (least, normal) = exponents(dtype);
    match (kind, of_input) {
        (Kind::Offset, true) => 1000.0 + spread,
        (Kind::Denormal, true) => spread * 2f64.powi(normal),
        // Two halves of the exponent, so that products, not operands, are small.
        (Kind::Underflow, true) => spread * 2f64.powi(least / 2 + 2),
        (Kind::Underflow, false) => spread * 2f64.powi(least - least / 2 + 2),
        (Kind::Alternating, _) => (1.0 + spread / 64.0) * if place.is_multiple_of(2) { 1.0 } else { -1.0 },
        _ => spread,
    }
}

fn rounded(dtype: DType, v: f64) -> f64 {
    Scalar::from_f64(dtype, v).to_f64()
}

/// Data for a case in the dtype, last axis fastest.
fn data(kind: Kind, case: &Case, rank: usize, dtype: DType, r: &mut Random) -> (Vec<f64>, Vec<f64>) {
    let (n, taps) = (size(rank), case.taps);
    let coordinates = |mut at: usize, size: usize| -> Vec<usize> {
        (0..rank)
            .map(|_| {
                let i = at % size;
                at /= size;
                i
            })
            .collect()
    };
    let mut x: Vec<f64> = (0..CHANNELS * n.pow(rank as u32))
        .map(|at| value(kind, true, coordinates(at, n).iter().sum(), dtype, r))
        .collect();
    let mut w: Vec<f64> = (0..FILTERS * CHANNELS * taps.pow(rank as u32))
        .map(|at| value(kind, false, coordinates(at, taps).iter().sum(), dtype, r))
        .collect();
    if let (Kind::Adversarial, Some(m)) = (kind, case.tile) {
        let t = default_transforms(m, taps).unwrap();
        let (g, bt) = (t.g.to_f64(), t.bt.to_f64());
        let sum = |row: &Vec<f64>| row.iter().map(|v| v.abs()).sum::<f64>();
        let meet =
            |i: &usize| sum(&g[*i]) * sum(&bt[*i]) * t.at.to_f64().iter().map(|a| a[*i].abs()).fold(0.0, f64::max);
        let worst = (0..g.len()).max_by(|a, b| meet(a).total_cmp(&meet(b))).unwrap();
        let sign = |v: f64| if v < 0.0 { -1.0 } else { 1.0 };
        for (at, v) in x.iter_mut().enumerate() {
            // Every other tile is of that kind; the padding of one shifts tiles against inputs.
            let signs =
                coordinates(at, n).into_iter().map(|i| bt[worst].get((i + 1) % (2 * m)).map_or(1.0, |&b| sign(b)));
            *v = v.abs().max(0.5) * signs.product::<f64>();
        }
        for (at, v) in w.iter_mut().enumerate() {
            *v = v.abs().max(0.5) * coordinates(at, taps).into_iter().map(|j| sign(g[worst][j])).product::<f64>();
        }
    }
    (x.iter().map(|&v| rounded(dtype, v)).collect(), w.iter().map(|&v| rounded(dtype, v)).collect())
}

/// The exact sums up to some 2⁻¹⁰⁰, as pairs of f64 whose sum they are.
fn exact(case: &Case, rank: usize, x: &[f64], w: &[f64]) -> Vec<(f64, f64)> {
    let (n, taps) = (size(rank), case.taps);
    let out = n + 3 - taps;
    let mut y = Vec::new();
    for k in 0..FILTERS {
        for o in 0..out.pow(rank as u32) {
            let (mut high, mut low) = (0f64, 0f64);
            for c in 0..CHANNELS {
                for tap in 0..taps.pow(rank as u32) {
                    let (mut at, mut stride, mut inside) = (0, 1, true);
                    for axis in 0..rank as u32 {
                        let i = o / out.pow(axis) % out + tap / taps.pow(axis) % taps;
                        inside &= (1..=n).contains(&i);
                        at += i.saturating_sub(1) * stride;
                        stride *= n;
                    }
                    if !inside {
                        continue;
                    }
                    let (a, b) = (x[c * stride + at], w[(k * CHANNELS + c) * taps.pow(rank as u32) + tap]);
                    let (p, sum) = (a * b, high + a * b);
                    let lost = (high - (sum - (sum - high))) + (p - (sum - high));
                    low += a.mul_add(b, -p) + lost;
                    high = sum;
                }
            }
            y.push((high, low));
        }
    }
    y
}

/// The error of each element and its bound.
fn check(case: &Case, rank: usize, dtype: DType, kind: Kind, x: &[f64], w: &[f64], y: &[f64]) -> f64 {
    let shape = |lead: [usize; 2], n: usize| [&lead[..], &vec![n; rank]].concat();
    let sizes = Sizes::new(
        &shape([1, CHANNELS], size(rank)),
        &shape([FILTERS, CHANNELS], case.taps),
        &vec![(1, 1); rank],
        &vec![1; rank],
        &vec![1; rank],
        1,
    )
    .unwrap();
    let t: Option<Transforms> = case.tile.map(|m| default_transforms(m, case.taps).unwrap());
    let bound = Bound::winograd(&sizes, x, w, &vec![t.as_ref(); rank], Arithmetic::gradual(dtype)).unwrap();
    // Exact sums of numbers below the normal ones of f64 are computed of larger ones; powers of two are exact.
    let up = if dtype == DType::F64 && kind == Kind::Denormal { 2f64.powi(500) } else { 1.0 };
    let half = if dtype == DType::F64 && kind == Kind::Underflow { 2f64.powi(250) } else { 1.0 };
    let scaled = |v: &[f64], by: f64| v.iter().map(|v| v * by).collect::<Vec<f64>>();
    let want = exact(case, rank, &scaled(x, up * half), &scaled(w, half));
    let bounds = bound.all();
    assert_eq!((bounds.len(), want.len()), (y.len(), y.len()));
    let mut used = 0f64;
    for ((&b, &(high, low)), &y) in bounds.iter().zip(&want).zip(y) {
        let up = up * half * half;
        let b = bound.stored(b, high / up) * up;
        let e = ((y * up - high) - low).abs();
        assert!(e <= b, "{dtype} {kind:?} F({:?}, {}), {rank} axes: error {e:e} past {b:e}", case.tile, case.taps);
        if b > 0.0 {
            used = used.max(e / b);
        }
    }
    used
}

/// The process's device, but with C that is compiled for less long: floats are exact at every level of optimisation, so
/// the bits are the same.
fn device() -> Arc<dyn Device> {
    device_of(CpuOptions::from_env(settings::env().unwrap()))
}

fn device_of(options: CpuOptions) -> Arc<dyn Device> {
    let usual = CpuDevice::new(options.clone()).unwrap();
    let mut cc: OsString = options.cc.clone().unwrap_or_else(|| usual.compiler().unwrap().program().into());
    cc.push(" -O1");
    Arc::new(CpuDevice::new(CpuOptions { cc: Some(cc), ..options }).unwrap())
}

fn holds(device: &Arc<dyn Device>, dtype: DType, rank: usize, cases: &[Case], seeds: u64) {
    let shape = |lead: [usize; 2], n: usize| [&lead[..], &vec![n; rank]].concat();
    let mut specs = Vec::new();
    for case in cases {
        specs.push(ArgSpec::new(dtype, &shape([1, CHANNELS], size(rank))));
        specs.push(ArgSpec::new(dtype, &shape([FILTERS, CHANNELS], case.taps)));
    }
    let how = FunctionOptions { compiler: Some(Options::default()), device: Some(device.clone()), dumps: false };
    let f = compile_with(&specs, &how, |args| {
        let of = |(case, args): (&Case, &[Tensor])| {
            let rule = match case.tile {
                None => WindowRule { algorithm: Some(Algorithm::Direct), ..WindowRule::default() },
                Some(m) => {
                    WindowRule { algorithm: Some(Algorithm::Winograd), tile: vec![m.into()], ..WindowRule::default() }
                }
            };
            args[0].conv(&args[1], None, &ConvOptions { rule, ..ConvOptions::padding(1) })
        };
        cases.iter().zip(args.chunks(2)).map(of).collect()
    })
    .unwrap();
    let rewritten = f.explanation().windows.iter().filter(|w| w.applied).count();
    assert_eq!(rewritten, cases.iter().filter(|c| c.tile.is_some()).count());
    for kind in KINDS {
        let mut used: Vec<(f64, f64)> = vec![(0.0, 0.0)];
        for seed in 0..seeds {
            let mut r = Random(seed * 1009 + 17);
            let all: Vec<(Vec<f64>, Vec<f64>)> = cases.iter().map(|c| data(kind, c, rank, dtype, &mut r)).collect();
            let mut args = Vec::new();
            for ((x, w), spec) in all.iter().zip(specs.chunks(2)) {
                for (values, spec) in [x, w].into_iter().zip(spec) {
                    let wide = Tensor::from_slice(values, &spec.shape).unwrap();
                    args.push(wide.cast(dtype).unwrap());
                }
            }
            let out = f.call(&args.iter().collect::<Vec<_>>()).unwrap();
            for ((case, (x, w)), y) in cases.iter().zip(&all).zip(out) {
                let y = y.cast(DType::F64).unwrap().to_vec::<f64>().unwrap();
                let share = check(case, rank, dtype, kind, x, w, &y);
                let last = &mut used[0];
                match case.tile {
                    None => last.0 = last.0.max(share),
                    Some(_) => last.1 = last.1.max(share),
                }
            }
        }
        println!("{dtype}, {rank} axes, {kind:?}: |error|/bound direct {:.3}, rewritten {:.3}", used[0].0, used[0].1);
        // A bound that nothing comes near would hold for a wrong reason.
        if kind == Kind::Random {
            assert!(used[0].0 > 1e-3 && used[0].1 > 1e-4, "{used:?}");
        }
    }
}

fn cases(taps: &[usize], algorithms: &[(usize, usize)]) -> Vec<Case> {
    let direct = taps.iter().map(|&taps| Case { tile: None, taps });
    direct.chain(algorithms.iter().map(|&(m, taps)| Case { tile: Some(m), taps })).collect()
}

fn every(device: &Arc<dyn Device>, dtype: DType) {
    holds(device, dtype, 1, &cases(&[2, 3, 4, 5, 7], &algorithms()), 6);
    holds(device, dtype, 2, &cases(&[3], &algorithms()), 2);
    holds(device, dtype, 3, &cases(&[2], &[(2, 2), (2, 3), (3, 2)]), 1);
}

#[test]
fn no_f32_element_passes_its_bound() {
    every(&device(), DType::F32);
}

/// On x86, vectors of 16 bytes stand for machines that round products before they are added.
#[test]
fn no_element_passes_its_bound_where_products_are_not_fused_into_sums() {
    let options = CpuOptions::from_env(settings::env().unwrap());
    let device = device_of(CpuOptions { vector_bytes: Some(16), ..options });
    assert_eq!(device.target().fma, !cfg!(target_arch = "x86_64"));
    every(&device, DType::F32);
    holds(&device, DType::F64, 1, &cases(&[2, 3, 4, 5, 7], &algorithms()), 2);
}

#[test]
fn no_f64_element_passes_its_bound() {
    every(&device(), DType::F64);
}

#[test]
fn no_f16_element_passes_its_bound() {
    every(&device(), DType::F16);
}

#[test]
fn no_bf16_element_passes_its_bound() {
    every(&device(), DType::BF16);
}

#[cfg(feature = "cuda")]
mod cuda {
    use super::*;
    use std::path::PathBuf;
    use winograph::cuda::{CudaDevice, CudaOptions};

    fn every_on_a_gpu(dtype: DType) {
        let fetched = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().map(|p| p.join("nvrtc"));
        let asked = std::env::var_os("WINOGRAPH_NVRTC").map(PathBuf::from);
        let nvrtc = asked.or(fetched.filter(|f| f.is_dir()));
        let found = CudaDevice::with_options(0, CudaOptions { nvrtc, ..CudaOptions::default() })
            .and_then(|d| d.nvrtc().map(|_| ()).map(|()| d));
        match found {
            Ok(gpu) => every(&(Arc::new(gpu) as Arc<dyn Device>), dtype),
            Err(e) => eprintln!("skipped: {e}"),
        }
    }

    #[test]
    fn no_f32_element_passes_its_bound() {
        every_on_a_gpu(DType::F32);
    }

    #[test]
    fn no_f64_element_passes_its_bound() {
        every_on_a_gpu(DType::F64);
    }

    #[test]
    fn no_f16_element_passes_its_bound() {
        every_on_a_gpu(DType::F16);
    }

    #[test]
    fn no_bf16_element_passes_its_bound() {
        every_on_a_gpu(DType::BF16);
    }
}
