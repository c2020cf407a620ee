//! Where the time of a run goes.

use crate::error::Result;
use crate::function::Function;
use crate::tensor::{Tensor, TensorBuffer};
use crate::work::Access;
use std::time::Duration;

/// One launch of a run and what it took.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// The kernel's name.
    pub kernel: String,
    /// What it computes, as the compiler knows it.
    pub role: &'static str,
    /// The median over some runs, by the device's own clock where it has one.
    pub time: Duration,
    /// Multiplications and additions of its sums; other operations are not counted.
    pub flops: u64,
    /// Bytes of the buffers that it reads or writes, each once; twice those that it reads and writes.
    pub bytes: u64,
    /// Loops and sums of its nests: `[64 x 56 x 56] sum [64 x 3 x 3]`.
    pub work: String,
    /// `direct`, or `winograd` with its tile; `None` where no product is summed.
    pub algorithm: Option<String>,
    /// Worst-case amplification of rounding errors relative to the direct sum, where it became Winograd.
    pub amplification: Option<f64>,
    /// The buffers that it writes; `(in place)` behind those whose elements it reads before, and replaces by its results.
    pub writes: String,
    /// The model's nodes that it computes, or parts of which, in the model's order. Nodes that are equal to another one are
    /// computed with it.
    pub nodes: Vec<String>,
}

/// Times each launch of a function, in `runs` runs.
pub(super) fn profile(function: &Function, args: &[&Tensor], runs: usize) -> Result<Vec<Launch>> {
    let works = function.compiled.works("profile")?;
    let mut buffers = function.buffers()?;
    let mut times: Vec<Vec<Duration>> = Vec::new();
    for _ in 0..runs.max(1) {
        let call = function.call_timed(args, &mut buffers.iter_mut().collect::<Vec<&mut TensorBuffer>>())?;
        times.resize(call.len(), vec![]);
        times.iter_mut().zip(call).for_each(|(list, time)| list.push(time));
    }
    let program = function.outline();
    let mut launches = Vec::with_capacity(times.len());
    for ((step, work), mut times) in program.run.iter().zip(&*works).zip(times) {
        let Some(code) = program.kernels.get(step.kernel) else { continue };
        times.sort_unstable();
        let mut moved: Vec<(bool, usize)> = Vec::new();
        for (&at, &access) in step.args.iter().zip(&work.access) {
            moved.extend((access != Access::Written).then_some((false, at)));
            moved.extend((access != Access::Read).then_some((true, at)));
        }
        moved.sort_unstable();
        moved.dedup();
        let buffers = moved.iter().filter_map(|&(_, at)| program.buffers.get(at));
        let bytes = buffers.map(|b| b.len.saturating_mul(b.dtype.size()) as u64);
        let written = work.buffers(step, &program.buffers).filter(|(access, _)| *access != Access::Read);
        let writes: Vec<String> = written
            .map(|(access, buffer)| match access {
                Access::Both => format!("{} (in place)", buffer.name),
                _ => buffer.name.clone(),
            })
            .collect();
        launches.push(Launch {
            kernel: code.name.clone(),
            role: code.role.name(),
            time: times.get(times.len() / 2).copied().unwrap_or_default(),
            flops: work.flops,
            bytes: bytes.fold(0, u64::saturating_add),
            work: work.nests.clone(),
            algorithm: work.algorithm.clone(),
            amplification: work.amplification,
            writes: writes.join(", "),
            nodes: work.nodes.clone(),
        });
    }
    Ok(launches)
}

#[cfg(test)]
mod tests {
    use crate::model::Model;
    use crate::settings::settings;
    use crate::tensor::Tensor;
    use winograph_ir::DType;

    /// Two blocks of two convolutions and a residual, with channels and sizes of which results take the place of residuals.
    #[test]
    fn results_in_the_place_of_operands_are_told_as_read_and_written() {
        let mut text = String::from("7767517\n11 13\nInput i 0 1 x0 0=16 1=16 2=64\nSplit s0 1 2 x0 a0 b0\n");
        for n in 0..2 {
            let line = |name: &str, from: &str, to: &str| {
                format!("Convolution {name}{n} 1 1 {from} {to} 0=64 1=1 6=4096 9=1\n")
            };
            text += &line("c", &format!("a{n}"), &format!("y{n}"));
            text += &line("d", &format!("y{n}"), &format!("z{n}"));
            text += &format!("BinaryOp e{n} 2 1 z{n} b{n} x{} 0=0\n", n + 1);
            if n == 0 {
                text += "Split s1 1 2 x1 a1 b1\n";
            }
        }
        text += "Convolution last 1 1 x2 y 0=64 1=1 6=4096\nReLU r 1 1 y out\n";
        let bin: Vec<u8> =
            (0..5).flat_map(|_| [0; 4].into_iter().chain([0.01f32.to_le_bytes(); 4096].concat())).collect();
        let model = Model::from_ncnn(text.as_bytes(), &bin).unwrap();
        let session = model.compile(&settings().unwrap().device).unwrap();
        let x = Tensor::ones(&[64, 16, 16], DType::F32).unwrap();
        let launches = session.profile(&[("x0", &x)], 1).unwrap();
        let writes: Vec<&str> = launches.iter().map(|l| l.writes.as_str()).collect();
        assert!(writes.iter().any(|w| w.ends_with(" (in place)")), "{writes:?}");
        // Whoever writes a buffer that was written before does so in place.
        for (n, name) in writes.iter().enumerate() {
            let before = writes[..n].iter().any(|w| w.split(" (").next() == name.split(" (").next());
            assert_eq!(before, name.ends_with(" (in place)"), "{writes:?}");
        }
    }
}
