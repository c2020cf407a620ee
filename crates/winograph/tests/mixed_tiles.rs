//! Convolutions with tiles of several sizes on an axis, on the processor: the same bits for any number of threads, the
//! memory that they say they take, networks of them.

use std::sync::Arc;
use winograph::cpu::{CpuDevice, CpuOptions};
use winograph::device::Device;
use winograph::env::Env;
use winograph::virtual_gpu::VirtualGpu;
use winograph::{
    Algorithm, ArgSpec, AxisTile, ConvOptions, DType, Function, FunctionOptions, Options, Result, Tensor, WindowRule,
    compile_with, plan,
};

fn device(threads: usize) -> Arc<dyn Device> {
    let options = CpuOptions { threads: Some(threads), ..CpuOptions::from_env(&Env::read().unwrap()) };
    Arc::new(CpuDevice::new(options).unwrap())
}

fn mixed(tile: &str, groups: usize) -> ConvOptions {
    let tile: Vec<AxisTile> = tile.split(',').map(|t| t.parse().unwrap()).collect();
    let rule = WindowRule { algorithm: Some(Algorithm::Winograd), tile, ..WindowRule::default() };
    ConvOptions { rule, groups, ..ConvOptions::padding(1) }
}

fn function(specs: &[ArgSpec], threads: usize, f: impl FnOnce(&[Tensor]) -> Result<Tensor>) -> Function {
    let how = FunctionOptions { device: Some(device(threads)), ..FunctionOptions::default() };
    compile_with(specs, &how, |args| Ok(vec![f(args)?])).unwrap()
}

fn values(t: &Tensor) -> Vec<f64> {
    t.cast(DType::F64).unwrap().to_vec::<f64>().unwrap()
}

/// Relative L2 difference.
fn difference(a: &[f64], b: &[f64]) -> f64 {
    let sum = |f: &dyn Fn((&f64, &f64)) -> f64| a.iter().zip(b).map(f).sum::<f64>();
    (sum(&|(x, y)| (x - y) * (x - y)) / sum(&|(_, y)| y * y)).sqrt()
}

#[test]
fn bits_are_the_same_for_any_number_of_threads() {
    for (dtype, n, channels, side, tile, groups, limit) in [
        (DType::F32, 3, 32, 14, "4+2", 1, 1e-5),
        (DType::F32, 5, 16, 7, "4+3,4", 2, 1e-5),
        (DType::F64, 2, 8, 11, "4+2,3+2", 1, 1e-13),
        (DType::F16, 2, 16, 7, "4+3", 1, 2e-3),
    ] {
        let x = Tensor::randn(&[n, channels, side, side], dtype, 1).unwrap();
        let w = Tensor::randn(&[24, channels / groups, 3, 3], dtype, 2).unwrap();
        let specs = [ArgSpec::new(dtype, x.shape()), ArgSpec::new(dtype, w.shape())];
        let results: Vec<Vec<f64>> = [1, 2, 3]
            .into_iter()
            .map(|threads| {
                let f = function(&specs, threads, |a| a[0].conv(&a[1], None, &mixed(tile, groups)));
                assert!(f.explanation().windows[0].applied, "{}", f.explanation().windows[0].reason);
                values(&f.call(&[&x, &w]).unwrap()[0])
            })
            .collect();
        let bits = |r: &[f64]| r.iter().map(|v| v.to_bits()).collect::<Vec<u64>>();
        assert!(results.iter().all(|r| bits(r) == bits(&results[0])), "{dtype} {tile}");
        let direct = ConvOptions { groups, ..ConvOptions::padding(1) };
        let wide = [&x, &w].map(|t| t.cast(DType::F64).unwrap());
        let e = difference(&results[0], &values(&wide[0].conv_direct(&wide[1], None, &direct).unwrap()));
        assert!(e < limit, "{dtype} {tile}: {e:e}");
    }
}

#[test]
fn memory_of_every_region_is_counted() {
    let w = Tensor::randn(&[64, 64, 3, 3], DType::F32, 2).unwrap();
    let x = Tensor::randn(&[4, 64, 14, 14], DType::F32, 1).unwrap();
    for threads in [1, 2] {
        let device = device(threads);
        let build = |a: &[Tensor]| a[0].conv(&w, None, &mixed("4+2", 1));
        let f = function(&[ArgSpec::new(DType::F32, x.shape())], threads, build);
        f.call(&[&x]).unwrap();
        let held = f.held();
        let specs = [ArgSpec::new(DType::F32, x.shape())];
        let (program, _) = plan(&specs, device.target(), &Options::default(), false, |a| Ok(vec![build(a)?])).unwrap();
        let said = program.footprint().unwrap();
        assert_eq!((held.prepared, held.constants, held.arena), (said.prepared, said.constants, said.arena));
        // 36, 24, 24 and 16 positions.
        let weights = 100 * 64 * 64 * 4;
        assert!((weights..weights + weights / 8).contains(&said.prepared), "{said:?}");
        assert!(said.scratch > 0 && said.scratch + said.arena / threads <= 4 << 20, "{said:?}");
        assert!(held.scratch <= said.scratch.next_multiple_of(4096), "{held:?} {said:?}");
    }
}

/// What reads the regions of one convolution is another one, with a bias and a relu between them, and a sum at the end.
#[test]
fn convolutions_in_a_row_read_all_regions() -> Result<()> {
    let x = Tensor::randn(&[2, 8, 14, 14], DType::F32, 1)?;
    let w: Vec<Tensor> = (0..3).map(|i| Tensor::randn(&[8, 8, 3, 3], DType::F32, 2 + i)).collect::<Result<_>>()?;
    let bias = Tensor::randn(&[8], DType::F32, 9)?;
    let network = |x: &Tensor, tile: Option<&str>| -> Result<Tensor> {
        let options = |n: usize| match tile {
            Some(t) => mixed(["4+2", t, "2+4,4"][n], 1),
            None => ConvOptions {
                rule: WindowRule { algorithm: Some(Algorithm::Direct), ..WindowRule::default() },
                ..ConvOptions::padding(1)
            },
        };
        let mut y = x.clone();
        for (n, w) in w.iter().enumerate() {
            y = y.conv(w, Some(&bias), &options(n))?.relu()?;
        }
        y.add(x)?.reshape(&[2, 8 * 14 * 14])?.sum(&[1], false)
    };
    let specs = [ArgSpec::new(DType::F32, x.shape())];
    let plain = function(&specs, 2, |a| network(&a[0], None)).call(&[&x])?;
    let f = function(&specs, 2, |a| network(&a[0], Some("3+2")));
    assert_eq!(f.explanation().windows.iter().filter(|w| w.applied).count(), 3);
    let e = difference(&values(&f.call(&[&x])?[0]), &values(&plain[0]));
    assert!(e < 1e-5, "{e:e}");
    Ok(())
}

/// On a GPU each stage of each region is a launch of its own; the virtual one looks for races and wrong indices.
#[test]
fn gpus_compute_every_region() -> Result<()> {
    let x = Tensor::randn(&[2, 8, 7, 14], DType::F32, 1)?;
    let w = Tensor::randn(&[16, 8, 3, 3], DType::F32, 2)?;
    let specs = [ArgSpec::new(DType::F32, x.shape())];
    let of = |a: &[Tensor]| a[0].conv(&w, None, &mixed("4+3,4+2", 1))?.relu();
    let want = values(&function(&specs, 2, of).call(&[&x])?[0]);
    for target in ["cuda:sm_90", "metal"] {
        let device: Arc<dyn Device> = Arc::new(VirtualGpu::new(target).unwrap());
        let how = FunctionOptions { device: Some(device), ..FunctionOptions::default() };
        let f = compile_with(&specs, &how, |a| Ok(vec![of(a)?]))?;
        assert!(f.explanation().windows[0].applied, "{}", f.explanation().windows[0].reason);
        let e = difference(&values(&f.call(&[&x])?[0]), &want);
        assert!(e < 1e-6, "{target}: {e:e}");
    }
    Ok(())
}
