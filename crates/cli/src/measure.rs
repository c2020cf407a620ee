//! Timing of compiled forms.

use crate::error::{Error, Result};
use crate::progress::Progress;
use std::time::{Duration, Instant};
use winograph::{Function, Tensor, TensorBuffer};

/// Timed calls of one form in a row: the forms take turns, so that what else the machine does meets all of them, and the
/// first call of a turn, which finds another form's data in the caches, is not counted.
const TURN: usize = 5;

/// Most calls in which kernels are timed one by one.
const KERNEL_CALLS: usize = 9;

/// A form and what its calls took.
pub(crate) struct Subject<'a> {
    function: &'a Function,
    args: Vec<&'a Tensor>,
    buffers: Vec<TensorBuffer>,
    /// Milliseconds of the first call.
    pub(crate) first_ms: f64,
    /// Milliseconds of the timed calls, ascending.
    pub(crate) runs_ms: Vec<f64>,
    /// Microseconds of each kernel of `run`: the median of some calls.
    pub(crate) kernels_us: Vec<f64>,
    /// The result of the first call.
    pub(crate) result: Vec<f32>,
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The middle of a list in ascending order; of an even number the mean of both middles.
pub(crate) fn median(ascending: &[f64]) -> f64 {
    let n = ascending.len();
    match n {
        0 => f64::NAN,
        _ if n % 2 == 1 => ascending[n / 2],
        _ => (ascending[n / 2 - 1] + ascending[n / 2]) / 2.0,
    }
}

impl<'a> Subject<'a> {
    /// Calls a function for the first time.
    pub(crate) fn new(function: &'a Function, x: &'a Tensor, w: &'a Tensor) -> Result<Subject<'a>> {
        let all = [x, w];
        let args = all[..function.args().len().min(2)].to_vec();
        let run = |e| Error::of("cannot run the convolution", e);
        let buffers = function.buffers().map_err(run)?;
        let mut subject =
            Subject { function, args, buffers, first_ms: 0.0, runs_ms: vec![], kernels_us: vec![], result: vec![] };
        subject.first_ms = subject.call()?;
        if let Some(b) = subject.buffers.first() {
            subject.result = b.to_vec::<f32>().map_err(run)?;
        }
        Ok(subject)
    }

    /// Calls the function and gives the milliseconds that it took.
    pub(crate) fn call(&mut self) -> Result<f64> {
        let mut buffers: Vec<&mut TensorBuffer> = self.buffers.iter_mut().collect();
        let start = Instant::now();
        let done = self.function.call_into(&self.args, &mut buffers);
        let time = start.elapsed();
        done.map_err(|e| Error::of("cannot run the convolution", e))?;
        Ok(ms(time))
    }

    fn call_timed(&mut self) -> Result<Vec<Duration>> {
        let mut buffers: Vec<&mut TensorBuffer> = self.buffers.iter_mut().collect();
        self.function.call_timed(&self.args, &mut buffers).map_err(|e| Error::of("cannot run the convolution", e))
    }
}

/// Number of progress steps of [`measure`].
pub(crate) fn steps(subjects: usize, runs: usize) -> usize {
    subjects * (runs.div_ceil(TURN) + 1)
}

/// Times `runs` calls of each subject and its kernels one by one.
pub(crate) fn measure(subjects: &mut [Subject<'_>], runs: usize, progress: &mut Progress) -> Result<()> {
    let mut left = runs;
    while left > 0 {
        let turn = left.min(TURN);
        left -= turn;
        for s in subjects.iter_mut() {
            progress.step("running");
            s.call()?;
            for _ in 0..turn {
                let time = s.call()?;
                s.runs_ms.push(time);
            }
        }
    }
    for s in subjects.iter_mut() {
        progress.step("timing kernels");
        s.runs_ms.sort_by(f64::total_cmp);
        s.call()?;
        let mut times: Vec<Vec<f64>> = Vec::new();
        for _ in 0..runs.min(KERNEL_CALLS) {
            let call = s.call_timed()?;
            times.resize(call.len(), vec![]);
            for (list, time) in times.iter_mut().zip(call) {
                list.push(ms(time) * 1e3);
            }
        }
        s.kernels_us = times
            .iter_mut()
            .map(|list| {
                list.sort_by(f64::total_cmp);
                median(list)
            })
            .collect();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn medians() {
        assert_eq!(median(&[1.0, 2.0, 9.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0]), 1.5);
        assert!(median(&[]).is_nan());
    }
}
