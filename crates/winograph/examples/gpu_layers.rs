//! The layers of layers.json on a GPU, in every precision and by every way of computing them: times and errors.
//!
//! ```text
//! cargo run --release -p winograph --example gpu_layers > ours.csv           # N = 1, 16 and 64; needs a GPU and NVRTC
//! cargo run --release -p winograph --example gpu_layers -- errors > e.csv    # speed against error, N = 16
//! cargo run --release -p winograph --example gpu_layers -- plans             # the plans, without a GPU
//! cargo run --release -p winograph --example gpu_layers -- quick 16 res4+res5 "f32 F4+3xtf32 F4"   # some of them
//! cargo run --release -p winograph --example gpu_layers -- quick 64 res2 "f32 F4+f32 F4 chunks:4"  # launches for 4 chunks
//! cargo run --release -p winograph --example gpu_layers -- ways 1+16 all                           # direct, tiles, one launch, mixes
//! cargo run --release -p winograph --example gpu_layers -- ways 16 vgg4.2 "f32 F4" "f32 4+2,4" "f32 F4 {plan multiply: a0=..}"
//! cargo run --release -p winograph --example gpu_layers -- planned 16 vgg4.2 "f32 F4"               # the plans of ways, without a GPU
//! cargo run --release -p winograph --example gpu_layers -- once 16 vgg3.2 "f16 direct" "f16 F4"     # each launch once, for a profiler
//! python3 bench/cudnn.py ours.csv                                            # beside cuDNN, on the same machine
//! ```
//!
//! Inputs are what a ReLU leaves of normal numbers, weights are scaled after He; weights are prepared. Times are medians
//! of 20 by device events after 5 warm-ups: of a call, where ten are replayed as one graph of launches, as functions replay theirs from their
//! third call on and as `bench/cudnn.py` times cuDNN; of each kernel, launched by itself. Before anything is timed, 4,096 outputs are compared with sums in f64: none is
//! further from them than its a-priori bound. Columns after the times: the kernel that takes longest and what it takes; over the
//! root of the mean square of the sums the relative L2 error, the largest error and the largest bound; the largest share
//! of a bound that was used. `quick` prints another line for each way: the time of a call whose launches are queued one by
//! one, the bytes of memory between the kernels, and a hash of the results' bits. Where launches are repeated for chunks, the times by kernel are those of the first chunk.
//!
//! `ways` is short: 4,096 outputs are compared with sums in f64 but no bounds are computed, and a line has what the device took, launched one by one and
//! replayed, the times by kernel, those of copies on the device that move as many bytes as each kernel's buffers have, the relative L2 error and
//! the tiles. A way is a name as above, or a dtype's and the outputs of
//! tiles (`f32 4+2,4`), then a rule for stages if one is wanted, then a tuning in braces whose lines `;` separates. Without
//! ways those of true f32 are taken: `auto`, direct, F(2,3) and F(4,3) in three launches and in one, and mixes of one axis where F(4,3)
//! reaches beyond the result. `once` launches what `ways` would time and says which kernel is whose (`bench/units_profile.py`).

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
        Some(mode @ ("ways" | "planned")) => match &args[1..] {
            [n, layers, ways @ ..] => measured::ways(n, layers, ways, mode == "planned"),
            _ => Err(format!("expected `{mode} N+N.. LAYER+LAYER..|all WAY..`").into()),
        },
        Some("once") => match &args[1..] {
            [n, layers, ways @ ..] => measured::once(n.parse()?, layers, ways),
            _ => Err("expected `once N LAYER+LAYER.. WAY..`".into()),
        },
        Some("plans") => measured::plans(&only),
        Some("only") => measured::table(&only),
        Some(other) => Err(format!(
            "unknown mode `{other}`: expected none, `errors`, `plans`, `quick`, `ways`, `planned`, `once` or `only LAYER`"
        )
        .into()),
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
    use winograph_compiler::options::{Products, StageRule};
    use winograph_compiler::tune::{Tuning, TuningRule};
    use winograph_compiler::winograd::bound::{Arithmetic, Bound, Sizes};
    use winograph_compiler::winograd::cook_toom::Transforms;
    use winograph_compiler::winograd::points::default_transforms;
    use winograph_compiler::{Algorithm, Explanation, Options, Program, Target};
    use winograph_ir::rule::AxisTile;

    /// Name, channels in, height, width, channels out.
    type Layer = (&'static str, usize, usize, usize, usize);

    /// The layers of bench/layers.json.
    fn layers() -> Fallible<Vec<Layer>> {
        let list: serde_json::Value = serde_json::from_str(include_str!("../../../bench/layers.json"))?;
        let layer = |l: &serde_json::Value| {
            let number = |key: &str| l[key].as_u64().map(|n| n as usize);
            let name: &'static str = l["name"].as_str()?.to_string().leak();
            Some((name, number("c")?, number("h")?, number("w")?, number("k")?))
        };
        let all: Option<Vec<Layer>> = list["layers"].as_array().and_then(|list| list.iter().map(layer).collect());
        Ok(all.ok_or("bench/layers.json has other fields")?)
    }

    /// A way to compute a layer. Half floats and tf32 have channels last, true f32 has them first. What a rewrite of half floats
    /// multiplies is rounded to them, but for those `in f32`.
    #[derive(Clone, Copy)]
    struct Way {
        name: &'static str,
        dtype: DType,
        products: Products,
        /// Outputs of a tile; 0 is the direct sum, [`AUTO`] what the compiler chooses.
        tile: usize,
        channels_last: bool,
        /// Where stages live: `auto` unless the way's name is followed by `chunks:N`.
        stages: StageRule,
    }

    const fn way(name: &'static str, dtype: DType, products: Products, tile: usize, last: bool) -> Way {
        Way { name, dtype, products, tile, channels_last: last, stages: StageRule::Auto }
    }

    impl Way {
        /// The way of this name, which a rule for stages may follow.
        fn named(text: &str) -> Option<Way> {
            let plain = |name: &str| WAYS.into_iter().find(|w| w.name == name);
            let ruled = || {
                let (name, rule) = text.rsplit_once(' ')?;
                Some(Way { stages: StageRule::parse(rule)?, ..plain(name)? })
            };
            plain(text).or_else(ruled)
        }

        fn options(&self) -> Options {
            Options {
                algorithm: match self.tile {
                    0 => Algorithm::Direct,
                    AUTO => Algorithm::Auto,
                    _ => Algorithm::Winograd,
                },
                tile: (!matches!(self.tile, 0 | AUTO)).then(|| vec![self.tile.into()]),
                products: self.products,
                stages: self.stages,
                ..Options::default()
            }
        }

        fn label(&self) -> String {
            match self.stages {
                StageRule::Auto => self.name.to_string(),
                stages => format!("{} {}", self.name, stages.name()),
            }
        }
    }

    const EXACT: Products = Products::Exact;
    const TF32: Products = Products::Tf32;
    const TF32X3: Products = Products::Tf32x3;
    const HALF: Products = Products::Half;

    const AUTO: usize = usize::MAX;

    const WAYS: [Way; 21] = [
        way("f32 auto", DType::F32, EXACT, AUTO, false),
        way("f32 F4", DType::F32, EXACT, 4, false),
        way("f32 direct", DType::F32, EXACT, 0, false),
        way("tf32 direct", DType::F32, TF32, 0, true),
        way("f16 direct", DType::F16, EXACT, 0, true),
        way("bf16 direct", DType::BF16, EXACT, 0, true),
        way("3xtf32 F4", DType::F32, TF32X3, 4, false),
        way("3xtf32 direct", DType::F32, TF32X3, 0, true),
        way("f32 F2", DType::F32, EXACT, 2, false),
        way("3xtf32 F2", DType::F32, TF32X3, 2, false),
        way("tf32 F2", DType::F32, TF32, 2, true),
        way("tf32 F4", DType::F32, TF32, 4, true),
        way("f16 F2", DType::F16, HALF, 2, true),
        way("f16 F4", DType::F16, HALF, 4, true),
        way("bf16 F2", DType::BF16, HALF, 2, true),
        way("bf16 F4", DType::BF16, HALF, 4, true),
        way("f16 F4 in f32", DType::F16, EXACT, 4, true),
        way("bf16 F4 in f32", DType::BF16, EXACT, 4, true),
        way("f16 auto", DType::F16, Products::Auto, AUTO, true),
        way("tf32 auto", DType::F32, TF32, AUTO, true),
        way("bf16 auto", DType::BF16, Products::Auto, AUTO, true),
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
        planned_with(data, n, way, &way.options(), target)
    }

    fn planned_with(
        data: &Data,
        n: usize,
        way: Way,
        options: &Options,
        target: &Target,
    ) -> Fallible<(Program, Explanation)> {
        let (_, c, h, w, k) = data.layer;
        let pad = ConvOptions::padding(1);
        let plan = if way.channels_last {
            let weight = Tensor::from_slice(&data.w, &[k, 3, 3, c])?.cast(way.dtype)?;
            weight.realize()?;
            let weight = weight.permute(&[0, 3, 1, 2])?;
            winograph::plan(&[ArgSpec::new(way.dtype, &[n, h, w, c])], target, options, false, |a| {
                Ok(vec![
                    a[0].permute(&[0, 3, 1, 2])?.conv2d(&weight, None, &pad)?.permute(&[0, 2, 3, 1])?.contiguous()?,
                ])
            })?
        } else {
            let weight = Tensor::from_slice(&data.w, &[k, c, 3, 3])?.cast(way.dtype)?;
            weight.realize()?;
            winograph::plan(&[ArgSpec::new(way.dtype, &[n, c, h, w])], target, options, false, |a| {
                Ok(vec![a[0].conv2d(&weight, None, &pad)?])
            })?
        };
        Ok(plan)
    }

    /// The errors of some outputs and their bounds, over the root of the mean square of the sums but for the last.
    struct Errors {
        /// Root of the mean square.
        l2: f64,
        largest: f64,
        bound: f64,
        /// Largest |error|/bound.
        used: f64,
    }

    /// Neighbouring output channels whose outputs are compared together.
    const BLOCK: usize = 8;
    /// Places, of an image and such channels, where outputs are compared, and how many of each.
    const PLACES: usize = 4;
    const EACH: usize = 1024;

    /// Some outputs at a place: where each is in the result and in the place's block of one image and [`BLOCK`] channels, and
    /// the exact sum; with the image's and the channels' values, channels first.
    struct Samples {
        outputs: Vec<(usize, usize, f64)>,
        images: Vec<f64>,
        weights: Vec<f64>,
    }

    fn samples((layer, n, way): (Layer, usize, Way), [x, w]: [&[f32]; 2], place: usize) -> Samples {
        let (_, c, height, width, k) = layer;
        let plane = height * width;
        let (b, first) = (place * (n - 1) / (PLACES - 1), place * (k - BLOCK) / (PLACES - 1));
        let last = way.channels_last;
        let image = |ch: usize, at: usize| {
            f64::from(x[if last { (b * plane + at) * c + ch } else { (b * c + ch) * plane + at }])
        };
        let weight = |o: usize, ch: usize, t: usize| {
            f64::from(w[if last { (o * 9 + t) * c + ch } else { (o * c + ch) * 9 + t }])
        };
        let images: Vec<f64> = (0..c * plane).map(|i| image(i / plane, i % plane)).collect();
        let weights: Vec<f64> = (0..BLOCK * c * 9).map(|i| weight(first + i / (c * 9), i / 9 % c, i % 9)).collect();
        let one = |i: usize| {
            let at = i.wrapping_mul(2_654_435_761) % (BLOCK * plane);
            let (o, r, s) = (at / plane, at % plane / width, at % width);
            let mut sum = 0f64;
            for ch in 0..c {
                for t in 0..9 {
                    let (u, v) = (r + t / 3, s + t % 3);
                    if (1..=height).contains(&u) && (1..=width).contains(&v) {
                        sum += weights[(o * c + ch) * 9 + t] * images[ch * plane + (u - 1) * width + v - 1];
                    }
                }
            }
            let out = match last {
                true => (b * plane + at % plane) * k + first + o,
                false => (b * k + first + o) * plane + at % plane,
            };
            (out, at, sum)
        };
        Samples { outputs: (0..EACH).map(one).collect(), images, weights }
    }

    /// For some outputs at a place: the exact sum, the error and its bound.
    fn compared(
        what: (Layer, usize, Way),
        transforms: &[Option<&Transforms>],
        target: &Target,
        [x, w, y]: [&[f32]; 3],
        place: usize,
    ) -> Fallible<Vec<[f64; 3]>> {
        let ((_, c, height, width, _), _, way) = what;
        let Samples { outputs, images, weights } = samples(what, [x, w], place);
        let sizes = Sizes::new(&[1, c, height, width], &[BLOCK, c, 3, 3], &[(1, 1); 2], &[1; 2], &[1; 2], 1)?;
        let arithmetic = Arithmetic::of(target, way.dtype, way.products);
        let bound = Bound::winograd(&sizes, &images, &weights, transforms, arithmetic)?;
        let bounds = bound.all();
        // A value that was not written is not a number, and stays one here.
        let one =
            |(out, at, sum): (usize, usize, f64)| [sum, (f64::from(y[out]) - sum).abs(), bound.stored(bounds[at], sum)];
        Ok(outputs.into_iter().map(one).collect())
    }

    fn errors_of(
        what: (Layer, usize, Way),
        transforms: &[Option<&Transforms>],
        target: &Target,
        data: [&[f32]; 3],
    ) -> Fallible<Errors> {
        let all = std::thread::scope(|scope| -> Fallible<Vec<[f64; 3]>> {
            let of = |place| move || compared(what, transforms, target, data, place).map_err(|e| e.to_string());
            let threads: Vec<_> = (0..PLACES).map(|place| scope.spawn(of(place))).collect();
            let mut all = Vec::new();
            for thread in threads {
                all.extend(thread.join().map_err(|_| "a thread panicked")??);
            }
            Ok(all)
        })?;
        // The larger of two, and infinite where one is not a number.
        let most = |of: fn(&[f64; 3]) -> f64| {
            all.iter().map(of).fold(0f64, |a, b| if b.is_nan() { f64::INFINITY } else { a.max(b) })
        };
        let square =
            |of: fn(&[f64; 3]) -> f64| (all.iter().map(|e| of(e) * of(e)).sum::<f64>() / all.len() as f64).sqrt();
        let scale = square(|e| e[0]);
        Ok(Errors {
            l2: square(|e| e[1]) / scale,
            largest: most(|e| e[1]) / scale,
            bound: most(|e| e[2]) / scale,
            used: most(|e| e[1] / e[2]),
        })
    }

    fn median(mut t: Vec<Duration>) -> f64 {
        t.sort();
        t.get(t.len() / 2).copied().unwrap_or_default().as_secs_f64() * 1e6
    }

    /// Checks and times one way, and prints a line.
    fn measure(gpu: &CudaDevice, data: &Data, n: usize, way: Way, more: bool) -> Fallible<()> {
        let (name, c, h, w, _) = data.layer;
        let (program, explanation) = planned(data, n, way, gpu.target())?;
        let tile = explanation.windows.first().map_or(&[][..], |w| &w.tile);
        let matrices = tile.iter().map(|t| default_transforms(t.single()?, 3)).collect::<Vec<_>>();
        let transforms = match &matrices[..] {
            [] => vec![None; 2],
            all => all.iter().map(Option::as_ref).collect(),
        };
        let (x, x_bytes) = rounded(way.dtype, &data.x[..n * c * h * w]);
        let (weight, w_bytes) = rounded(way.dtype, &data.w);
        let loaded = Loaded::new(gpu, &program, &[&x_bytes, &w_bytes])?;
        loaded.prepare()?;
        loaded.run()?;
        gpu.synchronize()?;
        let result = loaded.result()?;
        let y = values(way.dtype, &result);
        let e = errors_of((data.layer, n, way), &transforms, gpu.target(), [&x, &weight, &y])?;
        let errors = format!("{:.1e},{:.1e},{:.1e},{:.1e}", e.l2, e.largest, e.bound, e.used);
        if e.used > 1.0 {
            println!("wrong,{name},{n},{},{errors}", way.label());
            return Ok(());
        }
        for _ in 0..5 {
            loaded.run()?;
        }
        let queued = median(loaded.times()?);
        let whole = loaded.replayed()?.map_or(queued, median);
        let mut steps = Vec::new();
        let (mut most, mut slowest) = (0.0, 0);
        for s in (0..program.run.len()).filter(|&s| program.run[s].is_first()) {
            let us = median(loaded.step_times(s)?);
            if us > most {
                (most, slowest) = (us, s);
            }
            steps.push(format!("{us:.1}"));
        }
        let kernel = &program.kernels[program.run[slowest].kernel].name;
        let takes = loaded.takes(slowest);
        println!("ours,{name},{n},{},{whole:.1},{},{kernel},{takes},{errors}", way.label(), steps.join("+"));
        if more {
            let bits = blake3::hash(&result).to_hex();
            println!("more,{name},{n},{},{queued:.1},{},{:.8}", way.label(), program.arena_bytes, bits.as_str());
        }
        Ok(())
    }

    pub(super) fn table(only: &str) -> Fallible<()> {
        let gpu = CudaDevice::new(0)?;
        println!("{}", gpu.description());
        for layer in layers()?.into_iter().filter(|l| only.is_empty() || l.0 == only) {
            let data = Data::new(64, layer);
            for n in [1, 16, 64] {
                // A direct sum in f32 is for comparison.
                for way in WAYS.into_iter().take(7).filter(|w| n < 64 || w.name != "f32 direct") {
                    measure(&gpu, &data, n, way, false)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn quick(n: usize, names: &str, ways: &str) -> Fallible<()> {
        let gpu = CudaDevice::new(0)?;
        for layer in layers()?.into_iter().filter(|l| names.split('+').any(|a| a == l.0)) {
            let data = Data::new(n, layer);
            for way in ways.split('+') {
                let way = Way::named(way).ok_or_else(|| format!("there is no way `{way}`"))?;
                measure(&gpu, &data, n, way, true)?;
            }
        }
        Ok(())
    }

    /// A way with what else is asked for.
    struct Asked {
        way: Way,
        label: String,
        tile: Option<Vec<AxisTile>>,
        tuning: Option<Tuning>,
    }

    impl Asked {
        fn parse(text: &str) -> Fallible<Asked> {
            let (name, tuning) = match text.split_once('{') {
                Some((name, rest)) => {
                    let lines = rest.strip_suffix('}').ok_or("a tuning ends with `}`")?.replace(';', "\n");
                    (name.trim(), Some(Tuning::parse(&lines)?))
                }
                None => (text, None),
            };
            let asked = |way, tile| Asked { way, label: text.to_string(), tile, tuning };
            if let Some(way) = Way::named(name) {
                return Ok(asked(way, None));
            }
            let unknown = || format!("there is no way `{name}`");
            let mut words = name.split_whitespace();
            let (kind, tile) = words.next().zip(words.next()).ok_or_else(unknown)?;
            let like = Way::named(&format!("{kind} F4")).ok_or_else(unknown)?;
            let stages = words.next().map_or(Some(StageRule::Auto), StageRule::parse).ok_or_else(unknown)?;
            let axis = |t: &str| {
                let sizes: Option<Vec<usize>> = t.split('+').map(|n| n.parse().ok()).collect();
                AxisTile::of(&sizes?)
            };
            let tile: Option<Vec<AxisTile>> = tile.split(',').map(axis).collect();
            Ok(asked(Way { stages, ..like }, Some(tile.ok_or_else(unknown)?)))
        }

        /// What is planned, and of the tuning what was left out.
        fn planned(&self, data: &Data, n: usize, target: &Target) -> Fallible<(Program, Explanation, Vec<String>)> {
            let plain = Options { tile: self.tile.clone().or(self.way.options().tile), ..self.way.options() };
            let of = |options: &Options| planned_with(data, n, self.way, options, target);
            let Some(tuning) = &self.tuning else {
                let (program, explanation) = of(&plain)?;
                return Ok((program, explanation, Vec::new()));
            };
            let given = |list| Options { tuning: TuningRule::Given(list), ..plain.clone() };
            let (_, first) = of(&given(Vec::new()))?;
            let key = first.sums.first().ok_or("no sum that a tuning could be for")?.problem.key();
            let (program, explanation) = of(&given(vec![(key, tuning.clone())]))?;
            let refused = explanation.sums.iter().flat_map(|s| s.refused.iter().cloned()).collect();
            Ok((program, explanation, refused))
        }
    }

    /// The ways of true f32 that are of interest for a layer.
    fn usual((_, _, height, width, _): Layer) -> Vec<String> {
        let mut out: Vec<String> =
            ["auto", "direct", "F2", "F4", "F2 fused", "F4 fused"].map(|w| format!("f32 {w}")).into();
        // What is left of an axis after tiles of four outputs, as a tile or several, or with one of those four.
        let rests = |size: usize| {
            let rest = size % 4;
            [2, 3, 6].into_iter().filter(move |m| rest > 0 && (rest.is_multiple_of(*m) || rest + 4 == *m))
        };
        out.extend(rests(height).map(|m| format!("f32 4+{m},4")));
        out.extend(rests(width).map(|m| format!("f32 4,4+{m}")));
        out
    }

    /// Largest relative L2 error that a way may have: of the ways there are in f32, and in factors with fewer bits.
    const MOST_ERROR: [f64; 2] = [1e-5, 2e-2];

    pub(super) fn ways(ns: &str, names: &str, ways: &[String], plans_only: bool) -> Fallible<()> {
        let gpu = if plans_only { None } else { Some(CudaDevice::new(0)?) };
        let target = Target::by_name("cuda:sm_90").ok_or("no target")?;
        if let Some(gpu) = &gpu {
            println!(
                "{}\nway\tlayer\tN\tway\tus\treplayed us\tsteps us\tcopies us\trelative L2\ttiles",
                gpu.description()
            );
        }
        let ns: Vec<usize> = ns.split('+').map(str::parse).collect::<Result<_, _>>()?;
        for layer in layers()?.into_iter().filter(|l| names == "all" || names.split('+').any(|a| a == l.0)) {
            let data = Data::new(ns.iter().copied().max().unwrap_or(1), layer);
            for &n in &ns {
                let mut known: Vec<(DType, bool, Vec<Samples>)> = Vec::new();
                for text in if ways.is_empty() { usual(layer) } else { ways.to_vec() } {
                    let asked = Asked::parse(&text)?;
                    match &gpu {
                        Some(gpu) => brief(gpu, &data, n, &asked, &mut known)?,
                        None => {
                            let (_, explanation, refused) = asked.planned(&data, n, &target)?;
                            let of = format!("{}\t{n}\t{text}", layer.0);
                            refused.iter().for_each(|why| println!("refused\t{of}\t{why}"));
                            for k in explanation.kernels.iter().filter(|k| !k.prepare).flat_map(|k| &k.nests) {
                                println!("{of}\t{}: {}", k.role.name(), k.plan);
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Launches each way's kernels once and prints a line for each that a call has.
    pub(super) fn once(n: usize, names: &str, ways: &[String]) -> Fallible<()> {
        let gpu = CudaDevice::new(0)?;
        for layer in layers()?.into_iter().filter(|l| names.split('+').any(|a| a == l.0)) {
            let data = Data::new(n, layer);
            for text in ways {
                let asked = Asked::parse(text)?;
                let (program, ..) = asked.planned(&data, n, gpu.target())?;
                let (x, w) = (rounded(asked.way.dtype, &data.x).1, rounded(asked.way.dtype, &data.w).1);
                let loaded = Loaded::new(&gpu, &program, &[&x, &w])?;
                loaded.prepare()?;
                loaded.run()?;
                gpu.synchronize()?;
                for step in &program.run {
                    println!("launched,{},{n},{text},{}", layer.0, program.kernels[step.kernel].name);
                }
            }
        }
        Ok(())
    }

    /// Checks and times one way in short.
    fn brief(
        gpu: &CudaDevice,
        data: &Data,
        n: usize,
        asked: &Asked,
        known: &mut Vec<(DType, bool, Vec<Samples>)>,
    ) -> Fallible<()> {
        let (name, c, h, w, _) = data.layer;
        let (way, label) = (asked.way, &asked.label);
        let (program, explanation, refused) = asked.planned(data, n, gpu.target())?;
        if !refused.is_empty() {
            println!("refused\t{name}\t{n}\t{label}\t{}", refused.join("; "));
            return Ok(());
        }
        let (x, x_bytes) = rounded(way.dtype, &data.x[..n * c * h * w]);
        let (weight, w_bytes) = rounded(way.dtype, &data.w);
        let same = |k: &(DType, bool, Vec<Samples>)| (k.0, k.1) == (way.dtype, way.channels_last);
        let at = match known.iter().position(same) {
            Some(at) => at,
            None => {
                let of = |place| samples((data.layer, n, way), [&x, &weight], place);
                known.push((way.dtype, way.channels_last, (0..PLACES).map(of).collect()));
                known.len() - 1
            }
        };
        let loaded = Loaded::new(gpu, &program, &[&x_bytes, &w_bytes])?;
        loaded.prepare()?;
        loaded.run()?;
        gpu.synchronize()?;
        let y = values(way.dtype, &loaded.result()?);
        let outputs = || known[at].2.iter().flat_map(|s| &s.outputs);
        let error: f64 = outputs().map(|&(out, _, sum)| (f64::from(y[out]) - sum).powi(2)).sum();
        let l2 = (error / outputs().map(|o| o.2 * o.2).sum::<f64>()).sqrt();
        let exact = way.dtype == DType::F32 && way.products != TF32;
        // Not a number is no small error.
        let right = l2 <= MOST_ERROR[usize::from(!exact)];
        if !right {
            println!("wrong\t{name}\t{n}\t{label}\trelative L2 {l2:.1e}");
            return Ok(());
        }
        (0..5).try_for_each(|_| loaded.run())?;
        let whole = median(loaded.times()?);
        let replayed = loaded.replayed()?.map_or_else(|| "-".to_string(), |t| format!("{:.1}", median(t)));
        let (mut steps, mut copies) = (Vec::new(), Vec::new());
        for s in (0..program.run.len()).filter(|&s| program.run[s].is_first()) {
            steps.push(format!("{:.1}", median(loaded.step_times(s)?)));
            copies.push(format!("{:.1}", median(loaded.copy_times(s)?)));
        }
        let tiles: Vec<String> =
            explanation.windows.iter().flat_map(|w| w.tile.iter().map(ToString::to_string)).collect();
        let tiles = if tiles.is_empty() { "direct".to_string() } else { tiles.join("x") };
        let (steps, copies) = (steps.join("+"), copies.join("+"));
        println!("way\t{name}\t{n}\t{label}\t{whole:.1}\t{replayed}\t{steps}\t{copies}\t{l2:.1e}\t{tiles}");
        Ok(())
    }

    pub(super) fn errors() -> Fallible<()> {
        let gpu = CudaDevice::new(0)?;
        for layer in layers()?.into_iter().filter(|l| ["vgg3.2", "res4"].contains(&l.0)) {
            let data = Data::new(16, layer);
            for way in WAYS {
                measure(&gpu, &data, 16, way, false)?;
            }
        }
        Ok(())
    }

    pub(super) fn plans(only: &str) -> Fallible<()> {
        let target = Target::by_name("cuda:sm_90").ok_or("no target")?;
        for layer in layers()?.into_iter().filter(|l| only.is_empty() || l.0 == only) {
            let data = Data::new(1, layer);
            for n in [1, 16] {
                for way in WAYS {
                    let (_, explanation) = planned(&data, n, way, &target)?;
                    for l in &explanation.layouts {
                        println!("{},{n},{},{} {:?} {:?}", data.layer.0, way.name, l.buffer, l.shape, l.order);
                    }
                    for k in explanation.kernels.iter().filter(|k| !k.prepare).flat_map(|k| &k.nests) {
                        println!("{},{n},{},{}: {}", data.layer.0, way.name, k.name, k.plan);
                    }
                }
            }
        }
        Ok(())
    }
}
