//! The layers of layers.json on a GPU, in every precision and by every way of computing them: times and errors.
//!
//! ```text
//! cargo run --release -p winograph --example gpu_layers > ours.csv           # N = 1, 16 and 64; needs a GPU and NVRTC
//! cargo run --release -p winograph --example gpu_layers -- errors > e.csv    # speed against error, N = 16
//! cargo run --release -p winograph --example gpu_layers -- plans             # the plans, without a GPU
//! cargo run --release -p winograph --example gpu_layers -- quick 16 res4+res5 "f32 F4+3xtf32 F4"   # some of them
//! python3 bench/cudnn.py ours.csv                                            # beside cuDNN, on the same machine
//! ```
//!
//! Inputs are what a ReLU leaves of normal numbers, weights are scaled after He; weights are prepared. Times are medians
//! of 20 by device events after 5 warm-ups. Before anything is timed, 4,096 outputs are compared with sums in f64.

#[cfg(feature = "cuda")]
#[path = "common/loaded.rs"]
mod loaded;

#[cfg(feature = "cuda")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let only = args.get(1).cloned().unwrap_or_default();
    match args.first().map(String::as_str) {
        None => measured::table(""),
        Some("errors") => measured::errors(),
        Some("quick") => match &args[1..] {
            [n, layers, ways] => measured::quick(n.parse()?, layers, ways),
            _ => Err("expected `quick N LAYER+LAYER.. WAY+WAY..`".into()),
        },
        Some("plans") => measured::plans(&only),
        Some("only") => measured::table(&only),
        Some(other) => {
            Err(format!("unknown mode `{other}`: expected none, `errors`, `plans`, `quick` or `only LAYER`").into())
        }
    }
}

#[cfg(not(feature = "cuda"))]
fn main() {
    eprintln!("built without the feature `cuda`");
}

#[cfg(feature = "cuda")]
mod measured {
    use crate::loaded::{Fallible, Loaded};
    use half::{bf16, f16};
    use std::time::Duration;
    use winograph::cuda::CudaDevice;
    use winograph::device::Device;
    use winograph::{ArgSpec, ConvOptions, DType, Tensor};
    use winograph_compiler::options::Products;
    use winograph_compiler::{Algorithm, Explanation, Options, Program, Target};

    /// Name, channels in, height, width, channels out: those of bench/layers.json.
    type Layer = (&'static str, usize, usize, usize, usize);

    const LAYERS: [Layer; 11] = [
        ("reference", 16, 64, 64, 16),
        ("vgg1.2", 64, 224, 224, 64),
        ("vgg2.2", 128, 112, 112, 128),
        ("vgg3.2", 256, 56, 56, 256),
        ("vgg4.2", 512, 28, 28, 512),
        ("vgg5.2", 512, 14, 14, 512),
        ("res2", 64, 56, 56, 64),
        ("res3", 128, 28, 28, 128),
        ("res4", 256, 14, 14, 256),
        ("res5", 512, 7, 7, 512),
        ("sr64", 64, 180, 320, 64),
    ];

    /// A way to compute a layer. Half floats and tf32 have channels last, true f32 has them first.
    #[derive(Clone, Copy)]
    struct Way {
        name: &'static str,
        dtype: DType,
        products: Products,
        /// Outputs of a tile; 0 is the direct sum, [`AUTO`] what the compiler chooses.
        tile: usize,
        channels_last: bool,
        /// Largest error over the root of the mean square that is believed to be rounding.
        bound: f64,
    }

    const fn way(name: &'static str, dtype: DType, products: Products, tile: usize, last: bool, bound: f64) -> Way {
        Way { name, dtype, products, tile, channels_last: last, bound }
    }

    const EXACT: Products = Products::Exact;
    const TF32: Products = Products::Tf32;
    const TF32X3: Products = Products::Tf32x3;

    const AUTO: usize = usize::MAX;

    const WAYS: [Way; 16] = [
        way("f32 auto", DType::F32, EXACT, AUTO, false, 1e-4),
        way("f32 F4", DType::F32, EXACT, 4, false, 1e-4),
        way("f32 direct", DType::F32, EXACT, 0, false, 1e-4),
        way("tf32 direct", DType::F32, TF32, 0, true, 1e-2),
        way("f16 direct", DType::F16, EXACT, 0, true, 1e-2),
        way("bf16 direct", DType::BF16, EXACT, 0, true, 8e-2),
        way("3xtf32 F4", DType::F32, TF32X3, 4, false, 1e-4),
        way("3xtf32 direct", DType::F32, TF32X3, 0, true, 1e-4),
        way("f32 F2", DType::F32, EXACT, 2, false, 1e-4),
        way("3xtf32 F2", DType::F32, TF32X3, 2, false, 1e-4),
        way("tf32 F2", DType::F32, TF32, 2, false, 2e-2),
        way("tf32 F4", DType::F32, TF32, 4, false, 5e-2),
        way("f16 F2", DType::F16, EXACT, 2, false, 2e-2),
        way("f16 F4", DType::F16, EXACT, 4, false, 5e-2),
        way("bf16 F2", DType::BF16, EXACT, 2, false, 1e-1),
        way("bf16 F4", DType::BF16, EXACT, 4, false, 3e-1),
    ];

    /// Numbers in f32 that the dtype holds, and their bytes.
    fn rounded(dtype: DType, v: &[f32]) -> (Vec<f32>, Vec<u8>) {
        match dtype {
            DType::F16 => {
                let h: Vec<f16> = v.iter().map(|&x| f16::from_f32(x)).collect();
                (h.iter().map(|x| x.to_f32()).collect(), h.iter().flat_map(|x| x.to_le_bytes()).collect())
            }
            DType::BF16 => {
                let h: Vec<bf16> = v.iter().map(|&x| bf16::from_f32(x)).collect();
                (h.iter().map(|x| x.to_f32()).collect(), h.iter().flat_map(|x| x.to_le_bytes()).collect())
            }
            _ => (v.to_vec(), v.iter().flat_map(|x| x.to_le_bytes()).collect()),
        }
    }

    fn values(dtype: DType, b: &[u8]) -> Vec<f32> {
        match dtype {
            DType::F16 => b.chunks_exact(2).map(|c| f16::from_le_bytes([c[0], c[1]]).to_f32()).collect(),
            DType::BF16 => b.chunks_exact(2).map(|c| bf16::from_le_bytes([c[0], c[1]]).to_f32()).collect(),
            _ => b.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect(),
        }
    }

    /// Normal numbers, nearly: sums of four uniform ones.
    fn noise(len: usize, seed: u64, scale: f32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let parts = (0..4).map(|n| (state >> (16 * n) & 0xffff) as f32 / 65536.0 - 0.5);
            parts.sum::<f32>() * 3f32.sqrt() * scale
        };
        (0..len).map(|_| next()).collect()
    }

    struct Data {
        layer: Layer,
        x: Vec<f32>,
        w: Vec<f32>,
    }

    impl Data {
        fn new(n: usize, layer: Layer) -> Data {
            let (_, c, h, w, k) = layer;
            let x = noise(n * c * h * w, 1, 1.0).into_iter().map(|v| v.max(0.0)).collect();
            Data { layer, x, w: noise(k * c * 9, 2, (2.0 / (9 * c) as f32).sqrt()) }
        }
    }

    fn planned(data: &Data, n: usize, way: Way, target: &Target) -> Fallible<(Program, Explanation)> {
        let (_, c, h, w, k) = data.layer;
        let options = Options {
            algorithm: match way.tile {
                0 => Algorithm::Direct,
                AUTO => Algorithm::Auto,
                _ => Algorithm::Winograd,
            },
            tile: (!matches!(way.tile, 0 | AUTO)).then(|| vec![way.tile]),
            products: way.products,
            ..Options::default()
        };
        let pad = ConvOptions::padding(1);
        let plan = if way.channels_last {
            let weight = Tensor::from_slice(&data.w, &[k, 3, 3, c])?.cast(way.dtype)?;
            weight.realize()?;
            let weight = weight.permute(&[0, 3, 1, 2])?;
            winograph::plan(&[ArgSpec::new(way.dtype, &[n, h, w, c])], target, &options, false, |a| {
                Ok(vec![
                    a[0].permute(&[0, 3, 1, 2])?.conv2d(&weight, None, &pad)?.permute(&[0, 2, 3, 1])?.contiguous()?,
                ])
            })?
        } else {
            let weight = Tensor::from_slice(&data.w, &[k, c, 3, 3])?.cast(way.dtype)?;
            weight.realize()?;
            winograph::plan(&[ArgSpec::new(way.dtype, &[n, c, h, w])], target, &options, false, |a| {
                Ok(vec![a[0].conv2d(&weight, None, &pad)?])
            })?
        };
        Ok(plan)
    }

    /// The error of some outputs over the root of the mean square of the sums: root of its mean square, and the largest.
    fn error(layer: Layer, n: usize, last: bool, x: &[f32], w: &[f32], y: &[f32]) -> (f64, f64) {
        let (_, c, height, width, k) = layer;
        let image = |b: usize, ch: usize, r: usize, s: usize| match last {
            true => ((b * height + r) * width + s) * c + ch,
            false => ((b * c + ch) * height + r) * width + s,
        };
        let tap = |o: usize, ch: usize, t: usize| if last { (o * 9 + t) * c + ch } else { (o * c + ch) * 9 + t };
        let (mut worst, mut wrong, mut square) = (0f64, 0f64, 0f64);
        for i in 0..4096usize {
            let at = i.wrapping_mul(2_654_435_761) % (n * k * height * width);
            let (b, rest) = (at / (k * height * width), at % (k * height * width));
            let (o, r, s) = (rest / (height * width), rest / width % height, rest % width);
            let mut sum = 0f64;
            for ch in 0..c {
                for t in 0..9 {
                    let (u, v) = (r + t / 3, s + t % 3);
                    if (1..=height).contains(&u) && (1..=width).contains(&v) {
                        sum += w[tap(o, ch, t)] as f64 * x[image(b, ch, u - 1, v - 1)] as f64;
                    }
                }
            }
            let out = match last {
                true => ((b * height + r) * width + s) * k + o,
                false => ((b * k + o) * height + r) * width + s,
            };
            // A value that was not written is not a number, and stays one here.
            let e = (y[out] as f64 - sum).abs();
            worst = if e.is_nan() { f64::INFINITY } else { worst.max(e) };
            wrong += e * e;
            square += sum * sum;
        }
        ((wrong / square).sqrt(), worst / (square / 4096.0).sqrt())
    }

    fn median(mut t: Vec<Duration>) -> f64 {
        t.sort();
        t.get(t.len() / 2).copied().unwrap_or_default().as_secs_f64() * 1e6
    }

    /// Checks and times one way, and prints a line.
    fn measure(gpu: &CudaDevice, data: &Data, n: usize, way: Way) -> Fallible<()> {
        let (name, c, h, w, _) = data.layer;
        let (program, _) = planned(data, n, way, gpu.target())?;
        let (x, x_bytes) = rounded(way.dtype, &data.x[..n * c * h * w]);
        let (weight, w_bytes) = rounded(way.dtype, &data.w);
        let loaded = Loaded::new(gpu, &program, &[&x_bytes, &w_bytes])?;
        loaded.prepare()?;
        loaded.run()?;
        gpu.synchronize()?;
        let y = values(way.dtype, &loaded.result()?);
        let (mean, worst) = error(data.layer, n, way.channels_last, &x, &weight, &y);
        if worst.is_nan() || worst > way.bound {
            println!("wrong,{name},{n},{},{mean:.1e},{worst:.1e}", way.name);
            return Ok(());
        }
        for _ in 0..5 {
            loaded.run()?;
        }
        let whole = median(loaded.times()?);
        let mut steps = Vec::new();
        let (mut most, mut slowest) = (0.0, 0);
        for s in 0..program.run.len() {
            let us = median(loaded.step_times(s)?);
            if us > most {
                (most, slowest) = (us, s);
            }
            steps.push(format!("{us:.1}"));
        }
        let kernel = &program.kernels[program.run[slowest].kernel].name;
        let takes = loaded.takes(slowest);
        println!("ours,{name},{n},{},{whole:.1},{},{kernel},{takes},{mean:.1e},{worst:.1e}", way.name, steps.join("+"));
        Ok(())
    }

    pub(super) fn table(only: &str) -> Fallible<()> {
        let gpu = CudaDevice::new(0)?;
        println!("{}", gpu.description());
        for layer in LAYERS.into_iter().filter(|l| only.is_empty() || l.0 == only) {
            let data = Data::new(64, layer);
            for n in [1, 16, 64] {
                // A direct sum in f32 is for comparison.
                for way in WAYS.into_iter().take(7).filter(|w| n < 64 || w.name != "f32 direct") {
                    measure(&gpu, &data, n, way)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn quick(n: usize, layers: &str, ways: &str) -> Fallible<()> {
        let gpu = CudaDevice::new(0)?;
        for layer in LAYERS.into_iter().filter(|l| layers.split('+').any(|a| a == l.0)) {
            let data = Data::new(n, layer);
            for way in WAYS.into_iter().filter(|w| ways.split('+').any(|a| a == w.name)) {
                measure(&gpu, &data, n, way)?;
            }
        }
        Ok(())
    }

    pub(super) fn errors() -> Fallible<()> {
        let gpu = CudaDevice::new(0)?;
        for layer in LAYERS.into_iter().filter(|l| ["vgg3.2", "res4"].contains(&l.0)) {
            let data = Data::new(16, layer);
            for way in WAYS {
                measure(&gpu, &data, 16, way)?;
            }
        }
        Ok(())
    }

    pub(super) fn plans(only: &str) -> Fallible<()> {
        let target = Target::by_name("cuda:sm_90").ok_or("no target")?;
        for layer in LAYERS.into_iter().filter(|l| only.is_empty() || l.0 == only) {
            let data = Data::new(1, layer);
            for n in [1, 16] {
                for way in WAYS {
                    let (_, explanation) = planned(&data, n, way, &target)?;
                    for k in explanation.kernels.iter().filter(|k| !k.prepare).flat_map(|k| &k.nests) {
                        println!("{},{n},{},{}: {}", data.layer.0, way.name, k.name, k.plan);
                    }
                }
            }
        }
        Ok(())
    }
}
