//! What of the copies to and from a GPU runs while kernels do.
//!
//! ```text
//! cargo run --release -p winograph --example gpu_overlap             # needs a GPU and NVRTC; says so where there is none
//! cargo run --release -p winograph --example gpu_overlap -- 3 40     # layers of the function, calls in a row
//! ```
//!
//! A function of some convolutions is called again and again with arguments that lie on the host, and its results are read.
//! Copies and launches are first timed alone, then calls one after the other, then calls by threads, of which one copies while
//! the kernels of another run, then calls by one thread that reads each result when the next call is queued. Times are medians of five rounds; results are compared with those of calls one by one.

#[cfg(not(feature = "cuda"))]
fn main() {
    eprintln!("built without the feature `cuda`");
}

#[cfg(feature = "cuda")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    overlap::main()
}

#[cfg(feature = "cuda")]
mod overlap {
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::time::{Duration, Instant};
    use winograph::cuda::{CudaDevice, CudaOptions};
    use winograph::device::Device;
    use winograph::{ArgSpec, ConvOptions, DType, Function, FunctionOptions, Tensor, compile_with};

    type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

    const SHAPE: [usize; 4] = [8, 64, 112, 112];
    const ROUNDS: usize = 5;

    pub(super) fn main() -> Fallible<()> {
        let numbers = std::env::args().skip(1).map(|a| a.parse()).collect::<Result<Vec<usize>, _>>()?;
        let layers = numbers.first().copied().unwrap_or(4);
        let calls = numbers.get(1).copied().unwrap_or(24).max(1);
        let nvrtc = std::env::var_os("WINOGRAPH_NVRTC").map(PathBuf::from);
        let found = CudaDevice::with_options(0, CudaOptions { nvrtc, ..CudaOptions::default() });
        let gpu = match found.and_then(|gpu| gpu.nvrtc().map(|_| ()).map(|()| gpu)) {
            Ok(gpu) => Arc::new(gpu),
            Err(e) => {
                eprintln!("nothing is measured: {e}");
                return Ok(());
            }
        };
        println!("{}; {layers} convolutions 3x3 of {SHAPE:?} f32, {calls} calls", gpu.description());
        let f = function(&gpu, layers)?;
        let inputs = (0..3).map(|seed| Tensor::randn(&SHAPE, DType::F32, seed)).collect::<Result<Vec<_>, _>>()?;
        Tensor::realize_all(&inputs.iter().collect::<Vec<_>>())?;
        let expected = inputs.iter().map(|x| f.call(&[x])?[0].to_vec::<f32>()).collect::<Result<Vec<_>, _>>()?;

        let launches = launches(&f, &inputs[0])?;
        let (up, down) = copies(&gpu, calls)?;
        let sum = up + launches + down;
        let most = up.max(launches).max(down);
        println!("alone, a call: upload {up:.2?}, launches {launches:.2?}, download {down:.2?}: sum {sum:.2?}");
        let show = |how: &str, time: Duration| {
            println!(
                "{how}: {time:.2?} a call, {:.2} of the sum, {:.2} of the longest part",
                time.as_secs_f64() / sum.as_secs_f64(),
                time.as_secs_f64() / most.as_secs_f64()
            );
        };
        for threads in 1..=3 {
            let time = median((0..ROUNDS).map(|_| by_threads(&f, &inputs, &expected, calls, threads)))?;
            show(&format!("{threads} thread(s), each waits for its call"), time);
        }
        show(
            "1 thread, which reads one call later",
            median((0..ROUNDS).map(|_| one_ahead(&f, &inputs, &expected, calls)))?,
        );
        let kept = inputs.iter().map(|x| x.to(&*gpu)).collect::<Result<Vec<_>, _>>()?;
        show(
            "the same, arguments kept on the device",
            median((0..ROUNDS).map(|_| one_ahead(&f, &kept, &expected, calls)))?,
        );
        Ok(())
    }

    fn function(gpu: &Arc<CudaDevice>, layers: usize) -> Fallible<Function> {
        let channels = SHAPE[1];
        let weights = (0..layers as u64).map(|n| {
            let scale = (2.0 / (9 * channels) as f64).sqrt();
            Tensor::randn(&[channels, channels, 3, 3], DType::F32, 100 + n)?.mul(scale)
        });
        let weights = weights.collect::<Result<Vec<_>, _>>()?;
        let options = FunctionOptions { device: Some(gpu.clone()), ..FunctionOptions::default() };
        Ok(compile_with(&[ArgSpec::new(DType::F32, &SHAPE)], &options, |x| {
            let step = |x: Tensor, w| x.conv2d(w, None, &ConvOptions::padding(1))?.relu();
            Ok(vec![weights.iter().try_fold(x[0].clone(), step)?])
        })?)
    }

    fn median(times: impl Iterator<Item = Fallible<Duration>>) -> Fallible<Duration> {
        let mut times = times.collect::<Fallible<Vec<_>>>()?;
        times.sort_unstable();
        times.get(times.len() / 2).copied().ok_or_else(|| "nothing was timed".into())
    }

    /// The time of the launches of a call, by the device.
    fn launches(f: &Function, x: &Tensor) -> Fallible<Duration> {
        let mut buffers = f.buffers()?;
        median((0..ROUNDS).map(|_| {
            let times = f.call_timed(&[x], &mut buffers.iter_mut().collect::<Vec<_>>())?;
            Ok(times.into_iter().sum())
        }))
    }

    /// The times of the copies of a call alone, there and back.
    fn copies(gpu: &CudaDevice, calls: usize) -> Fallible<(Duration, Duration)> {
        let mut host = vec![1u8; SHAPE.iter().product::<usize>() * 4];
        let mut memory = gpu.allocate(host.len())?;
        let mut one = |up: bool| -> Fallible<Duration> {
            gpu.synchronize()?;
            let start = Instant::now();
            for _ in 0..calls {
                match up {
                    true => gpu.write(&mut *memory, 0, &host)?,
                    false => gpu.read(&*memory, 0, &mut host)?,
                }
            }
            gpu.synchronize()?;
            Ok(start.elapsed() / calls as u32)
        };
        let up = median((0..ROUNDS).map(|_| one(true)))?;
        Ok((up, median((0..ROUNDS).map(|_| one(false)))?))
    }

    /// The time of a call where each result is read when the next call is queued.
    fn one_ahead(f: &Function, inputs: &[Tensor], expected: &[Vec<f32>], calls: usize) -> Fallible<Duration> {
        let start = Instant::now();
        let mut pending: Option<(usize, Vec<Tensor>)> = None;
        for call in 0..=calls {
            let n = call % inputs.len();
            let next = if call < calls { Some((n, f.call(&[&inputs[n]])?)) } else { None };
            if let Some((n, results)) = std::mem::replace(&mut pending, next) {
                let result = results[0].to_host()?;
                if call == calls {
                    let time = start.elapsed() / calls as u32;
                    let right = result.to_vec::<f32>()? == expected[n];
                    return if right { Ok(time) } else { Err("results differ from those of calls one by one".into()) };
                }
            }
        }
        Err("nothing was called".into())
    }

    /// The time of a call where threads share the calls, each with an argument from the host and a result to the host.
    fn by_threads(
        f: &Function,
        inputs: &[Tensor],
        expected: &[Vec<f32>],
        calls: usize,
        threads: usize,
    ) -> Fallible<Duration> {
        let start = Instant::now();
        let last = std::thread::scope(|scope| {
            let all: Vec<_> = (0..threads)
                .map(|thread| {
                    scope.spawn(move || -> winograph::Result<_> {
                        let mut buffers = f.buffers()?;
                        let mut last = 0;
                        for call in (thread..calls).step_by(threads) {
                            last = call % inputs.len();
                            f.call_into(&[&inputs[last]], &mut buffers.iter_mut().collect::<Vec<_>>())?;
                        }
                        Ok((last, buffers))
                    })
                })
                .collect();
            all.into_iter().map(|t| t.join().expect("no panic")).collect::<winograph::Result<Vec<_>>>()
        })?;
        let time = start.elapsed() / calls as u32;
        for (input, buffers) in last.into_iter().filter(|_| calls >= threads) {
            if buffers[0].to_vec::<f32>()? != expected[input] {
                return Err("results differ from those of calls one by one".into());
            }
        }
        Ok(time)
    }
}
