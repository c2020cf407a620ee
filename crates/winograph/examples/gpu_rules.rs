//! The question that the project began with, measured: what layouts and grids by creation order cost on a GPU.
//!
//! Runs the tensor-level and the graph-level Winograd convolution under each rule for layouts and grids with one and the
//! same plan of the multiplication, 5 warm-ups and the best of 20 as the write-up's script had it, by the host's clock and
//! by the device's, and prints a table with the sectors that each moves. Results are checked against sums in f64 first.
//!
//! ```text
//! cargo run --release -p winograph --example gpu_rules            # the table; needs an NVIDIA GPU and NVRTC
//! cargo run --release -p winograph --example gpu_rules -- once    # one launch of each of 24 kernels, for ncu
//! ```
//!
//! `bench/grid_h100.py` runs both where there is a GPU, and puts what they print into docs/grid.md and docs/grid-h100.md.

#[cfg(feature = "cuda")]
#[path = "common/loaded.rs"]
mod loaded;

#[cfg(feature = "cuda")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        None => measured::table(),
        Some("once") => measured::once(),
        Some("predict") => measured::predict(),
        Some(other) => Err(format!("unknown mode `{other}`: expected none, `once` or `predict`").into()),
    }
}

#[cfg(not(feature = "cuda"))]
fn main() {
    eprintln!("built without the feature `cuda`");
}

#[cfg(feature = "cuda")]
mod measured {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};
    use winograph::cuda::CudaDevice;
    use winograph::device::{Device, DeviceError};
    use winograph::{ArgSpec, ConvOptions, DType, Tensor};
    use winograph_compiler::optimize::stored::StoredPlans;
    use winograph_compiler::options::{GridRule, LayoutRule, Products};
    use winograph_compiler::{Algorithm, Options, Program, Target};
    use winograph_ir::interp::gpu::{AccessKind, GpuModel, Space, sites};
    use winograph_ir::interp::sectors;

    use crate::loaded::{Fallible, Loaded};

    /// A name, channels in, size, channels out.
    type Layer = (&'static str, usize, usize, usize);

    const LAYERS: [Layer; 8] = [
        ("24 px", 16, 24, 16),
        ("32 px", 16, 32, 16),
        ("48 px", 16, 48, 16),
        ("64 px", 16, 64, 16),
        ("96 px", 16, 96, 16),
        ("res4", 256, 14, 256),
        ("vgg2.2", 128, 112, 128),
        ("vgg3.2", 256, 56, 256),
    ];

    /// One way to write and schedule the convolution.
    #[derive(Clone, Copy)]
    struct Way {
        tensor: bool,
        layout: LayoutRule,
        grid: GridRule,
    }

    /// The write-up's rivals first, then the mixed cases.
    const WAYS: [Way; 6] = [
        Way { tensor: true, layout: LayoutRule::Creation, grid: GridRule::RangeId },
        Way { tensor: false, layout: LayoutRule::Creation, grid: GridRule::RangeId },
        Way { tensor: false, layout: LayoutRule::Creation, grid: GridRule::Auto },
        Way { tensor: false, layout: LayoutRule::Auto, grid: GridRule::RangeId },
        Way { tensor: false, layout: LayoutRule::Auto, grid: GridRule::Auto },
        Way { tensor: true, layout: LayoutRule::Auto, grid: GridRule::Auto },
    ];

    impl Way {
        fn name(&self) -> String {
            let layout = if self.layout == LayoutRule::Auto { "auto" } else { "creation" };
            let grid = if self.grid == GridRule::Auto { "auto" } else { "range-id" };
            format!("{} {layout}/{grid}", if self.tensor { "tensor" } else { "graph" })
        }
    }

    const PLANS: [&str; 3] = ["seed-cores", "seed-tf32", "blocks-tf32"];

    struct Planned {
        program: Program,
        /// The multiplication's name and what became of its stored plan.
        multiply: String,
        replaced: Option<String>,
    }

    fn planned(layer: Layer, way: Way, plans: &str, target: &Target) -> Fallible<Planned> {
        let (_, c, size, k) = layer;
        // `tf32` is no stored plan: the compiler's own, on matrix units.
        let own = plans.is_empty() || plans == "tf32";
        let products = if plans == "tf32" { Products::Tf32 } else { Products::Exact };
        let plans = if own { StoredPlans::default() } else { StoredPlans::known(plans).ok_or("no plan")? };
        let options = Options {
            algorithm: if way.tensor { Algorithm::Direct } else { Algorithm::Winograd },
            tile: Some(vec![4.into()]),
            layout: way.layout,
            grid: way.grid,
            products,
            plans,
            ..Options::default()
        };
        let args = [ArgSpec::new(DType::F32, &[1, c, size, size]), ArgSpec::new(DType::F32, &[k, c, 3, 3])];
        let pad = ConvOptions::padding(1);
        let (program, explanation) = winograph::plan(&args, target, &options, false, |a| {
            Ok(vec![match way.tensor {
                true => a[0].conv_tensor_level(&a[1], None, &pad, Some(&[4]), None)?.tensor,
                false => a[0].conv2d(&a[1], None, &pad)?,
            }])
        })?;
        let mut nests = explanation.kernels.iter().flat_map(|k| &k.nests);
        let stored = nests.rfind(|n| n.stored.is_some());
        let multiply = stored.map_or_else(String::new, |n| n.name.clone());
        let replaced = stored.and_then(|n| n.stored.clone()).and_then(Result::err);
        Ok(Planned { program, multiply, replaced })
    }

    /// Sectors of global memory per step of `run`: loads and stores.
    fn moved(program: &Program) -> Fallible<Vec<(u64, u64)>> {
        let mut out = Vec::new();
        for step in &program.run {
            let code = &program.kernels[step.kernel];
            let counts = sectors::count(code, &[], &GpuModel::default()).ok_or("no counts")?;
            let (mut loads, mut stores) = (0, 0);
            for (site, c) in sites(code).iter().zip(&counts).filter(|(s, _)| s.space == Space::Global) {
                match site.kind {
                    AccessKind::Store => stores += c.sectors,
                    AccessKind::Load => loads += c.sectors,
                }
            }
            out.push((loads, stores));
        }
        Ok(out)
    }

    fn floats(v: &[u8]) -> Vec<f32> {
        v.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect()
    }

    fn bytes(v: &[f32]) -> Vec<u8> {
        v.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    /// The best of 20 after 5 warm-ups: by the host, by the device for the whole, and by the device per step.
    fn times(loaded: &Loaded<'_>) -> Fallible<(Duration, Duration, Vec<Duration>)> {
        let mut host = Duration::MAX;
        for n in 0..25 {
            let start = Instant::now();
            loaded.run()?;
            loaded.gpu.synchronize()?;
            if n >= 5 {
                host = host.min(start.elapsed());
            }
        }
        let best = |t: Vec<Duration>| t.into_iter().min().unwrap_or_default();
        let whole = best(loaded.times()?);
        let steps = (0..loaded.program.run.len()).map(|n| Ok(best(loaded.step_times(n)?)));
        Ok((host, whole, steps.collect::<Fallible<Vec<_>>>()?))
    }

    /// The largest error of some outputs, relative to the root of the mean square of the sums.
    fn error(layer: Layer, x: &[f32], w: &[f32], y: &[f32]) -> f64 {
        let (_, c, size, k) = layer;
        let (mut worst, mut square, mut count) = (0f64, 0f64, 0usize);
        for n in 0..4096usize {
            let at = n.wrapping_mul(2_654_435_761) % (k * size * size);
            let (o, i, j) = (at / (size * size), at / size % size, at % size);
            let mut sum = 0f64;
            for ch in 0..c {
                for (di, dj) in (0..9).map(|t| (t / 3, t % 3)) {
                    let (r, s) = (i + di, j + dj);
                    if (1..=size).contains(&r) && (1..=size).contains(&s) {
                        let tap = w[(o * c + ch) * 9 + di * 3 + dj] as f64;
                        sum += tap * x[(ch * size + r - 1) * size + s - 1] as f64;
                    }
                }
            }
            // A value that was not written is not a number, and stays one here.
            let e = (y[at] as f64 - sum).abs();
            worst = if e.is_nan() { f64::INFINITY } else { worst.max(e) };
            square += sum * sum;
            count += 1;
        }
        worst / (square / count as f64).sqrt()
    }

    fn inputs(layer: Layer) -> Fallible<(Vec<f32>, Vec<f32>)> {
        let (_, c, size, k) = layer;
        let x = Tensor::randn(&[1, c, size, size], DType::F32, 1)?.to_vec::<f32>()?;
        let w = Tensor::randn(&[k, c, 3, 3], DType::F32, 2)?.to_vec::<f32>()?;
        Ok((x, w))
    }

    /// Compiles the kernels of all programs on all processors, so that the device's cache has them.
    fn compile(gpu: &CudaDevice) -> Fallible<()> {
        let mut programs = Vec::new();
        for plans in PLANS.into_iter().chain([""]) {
            for layer in LAYERS {
                for way in WAYS {
                    let p = planned(layer, way, plans, gpu.target())?;
                    if p.replaced.is_some() {
                        break;
                    }
                    programs.push(p.program);
                }
            }
        }
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(p) = programs.get(next.fetch_add(1, Ordering::Relaxed)) {
                gpu.load(&p.kernels)?;
            }
            Ok::<(), DeviceError>(())
        };
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        let results: Vec<_> = std::thread::scope(|s| {
            let all: Vec<_> = (0..threads).map(|_| s.spawn(work)).collect();
            all.into_iter().map(|t| t.join()).collect()
        });
        for r in results {
            r.map_err(|_| "a thread that compiles panicked")??;
        }
        Ok(())
    }

    pub(super) fn table() -> Fallible<()> {
        let gpu = CudaDevice::new(0)?;
        compile(&gpu)?;
        println!("{}; times in us, best of 20 after 5 warm-ups; sectors of 32 bytes\n", gpu.description());
        for plans in PLANS.into_iter().chain([""]) {
            let title = if plans.is_empty() { "each with the compiler's own plans" } else { plans };
            println!("### {title}\n");
            println!(
                "| layer | way | kernel | host | ratio | device | ratio | multiply | ratio | sectors | of it multiply | error |"
            );
            println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
            for layer in LAYERS {
                let (x, w) = inputs(layer)?;
                let mut first: Option<(f64, f64, f64)> = None;
                for way in WAYS {
                    let p = planned(layer, way, plans, gpu.target())?;
                    if let Some(why) = &p.replaced {
                        println!("| {} | {} | replaced: {why} |", layer.0, way.name());
                        break;
                    }
                    let loaded = Loaded::new(&gpu, &p.program, &[&bytes(&x), &bytes(&w)])?;
                    loaded.run()?;
                    gpu.synchronize()?;
                    let e = error(layer, &x, &w, &floats(&loaded.result()?));
                    let bound = if plans.ends_with("tf32") { 2e-2 } else { 1e-4 };
                    if e.is_nan() || e > bound {
                        return Err(format!("{} {} {plans}: error {e:e}", layer.0, way.name()).into());
                    }
                    let moved = moved(&p.program)?;
                    let multiply = (p.program.run.len() - 2).max(1);
                    let (host, device, steps) = times(&loaded)?;
                    let us = |d: Duration| d.as_secs_f64() * 1e6;
                    let now = (us(host), us(device), us(steps[multiply]));
                    let base = *first.get_or_insert(now);
                    let code = &p.program.kernels[p.program.run[multiply].kernel];
                    println!(
                        "| {} | {} | {} | {:.1} | {:.2} | {:.1} | {:.2} | {:.1} | {:.2} | {} | {} | {e:.1e} |",
                        layer.0,
                        way.name(),
                        code.name,
                        now.0,
                        now.0 / base.0,
                        now.1,
                        now.1 / base.1,
                        now.2,
                        now.2 / base.2,
                        moved.iter().map(|m| m.0 + m.1).sum::<u64>(),
                        moved[multiply].0 + moved[multiply].1,
                    );
                }
            }
            println!();
        }
        Ok(())
    }

    /// Kernels whose counters are compared: layer, way, plan and step.
    fn selection() -> Vec<(Layer, Way, &'static str)> {
        vec![
            (LAYERS[3], WAYS[1], "seed-tf32"),
            (LAYERS[3], WAYS[4], "seed-cores"),
            (LAYERS[6], WAYS[4], ""),
            (LAYERS[7], WAYS[1], "blocks-tf32"),
            (LAYERS[5], WAYS[4], "tf32"),
            (LAYERS[7], WAYS[4], ""),
        ]
    }

    fn lines(programs: &[Planned]) -> Fallible<()> {
        let mut n = 0;
        for (p, (layer, way, plans)) in programs.iter().zip(selection()) {
            for (step, (loads, stores)) in p.program.run.iter().zip(moved(&p.program)?) {
                let name = &p.program.kernels[step.kernel].name;
                println!("predicted,{n},{},{},{plans},{name},{loads},{stores}", layer.0, way.name());
                n += 1;
            }
        }
        Ok(())
    }

    /// What the launches of [`once`] should move, one line each, without a GPU.
    pub(super) fn predict() -> Fallible<()> {
        let target = Target::by_name("cuda:sm_90").ok_or("no target")?;
        let all = selection();
        let programs = all.iter().map(|s| planned(s.0, s.1, s.2, &target)).collect::<Fallible<Vec<_>>>()?;
        programs.iter().for_each(|p| eprintln!("{} {:?}", p.multiply, p.replaced));
        lines(&programs)
    }

    /// One launch of each kernel of a few programs, with what each should move.
    pub(super) fn once() -> Fallible<()> {
        let gpu = CudaDevice::new(0)?;
        let mut programs = Vec::new();
        for (layer, way, plans) in selection() {
            let p = planned(layer, way, plans, gpu.target())?;
            let (x, w) = inputs(layer)?;
            let loaded = Loaded::new(&gpu, &p.program, &[&bytes(&x), &bytes(&w)])?;
            loaded.run()?;
            gpu.synchronize()?;
            drop(loaded);
            programs.push(p);
        }
        lines(&programs)
    }
}
