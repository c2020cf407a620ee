//! tract and candle behind C functions, which `peer_worker.py` calls with the layer's data and times.
//!
//! A job is one layer with its input and weight. Functions that fail give null or a negative number, and `peer_error`
//! the message.

use candle_core::{Device, Tensor};
use std::cell::RefCell;
use std::sync::Arc;
use tract_linalg::multithread::{Executor, set_default_executor};
use tract_onnx::prelude::{Framework, InferenceModelExt, IntoRunnable, TValue, TVec, TypedRunnableModel, onnx, tvec};

thread_local! {
    static ERROR: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A layer that is ready to be computed.
pub enum Job {
    Tract {
        model: Arc<TypedRunnableModel>,
        input: TValue,
    },
    /// `[stride, padding, groups]` of a convolution; a product of matrices has none.
    Candle {
        input: Tensor,
        weight: Tensor,
        conv: Option<[usize; 3]>,
    },
}

/// A result as the library has it.
enum Output {
    Tract(TVec<TValue>),
    Candle(Tensor),
}

impl Job {
    fn compute(&self) -> Result<Output, String> {
        match self {
            Job::Tract { model, input } => {
                model.run(tvec!(input.clone())).map(Output::Tract).map_err(|e| format!("{e:#}"))
            }
            Job::Candle { input, weight, conv } => {
                let y = match conv {
                    Some([stride, padding, groups]) => input.conv2d(weight, *padding, *stride, 1, *groups),
                    None => input.matmul(weight),
                };
                y.map(Output::Candle).map_err(|e| e.to_string())
            }
        }
    }
}

impl Output {
    fn values(&self) -> Result<Vec<f32>, String> {
        match self {
            Output::Tract(y) => {
                let view = y[0].to_plain_array_view::<f32>().map_err(|e| format!("{e:#}"))?;
                Ok(view.iter().copied().collect())
            }
            Output::Candle(y) => y.flatten_all().and_then(|y| y.to_vec1::<f32>()).map_err(|e| e.to_string()),
        }
    }
}

fn note(error: String) {
    ERROR.with(|e| *e.borrow_mut() = error);
}

/// A job on the heap, or null with a note.
fn boxed(job: Result<Job, String>) -> *mut Job {
    match job {
        Ok(job) => Box::into_raw(Box::new(job)),
        Err(e) => {
            note(e);
            std::ptr::null_mut()
        }
    }
}

/// An ONNX model in tract, with one input.
///
/// # Safety
/// `model` has `len` bytes, `dims` has `rank` numbers and `x` as many elements as their product.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_tract(
    model: *const u8,
    len: usize,
    x: *const f32,
    dims: *const usize,
    rank: usize,
    threads: usize,
) -> *mut Job {
    // SAFETY: as the caller promises.
    let (mut model, dims) = unsafe { (std::slice::from_raw_parts(model, len), std::slice::from_raw_parts(dims, rank)) };
    // SAFETY: as the caller promises.
    let x = unsafe { std::slice::from_raw_parts(x, dims.iter().product()) };
    set_default_executor(if threads > 1 { Executor::multithread(threads) } else { Executor::SingleThread });
    let mut ready = || -> tract_onnx::prelude::TractResult<Job> {
        let model = onnx().model_for_read(&mut model)?.into_optimized()?.into_runnable()?;
        let input = tract_onnx::prelude::Tensor::from_shape(dims, x)?;
        Ok(Job::Tract { model, input: input.into() })
    };
    boxed(ready().map_err(|e| format!("{e:#}")))
}

/// A convolution of `x` with `w` in candle, or with `conv` null their product.
///
/// # Safety
/// `x_dims` and `w_dims` have `rank` numbers, `x` and `w` as many elements as these multiply to, `conv` three numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_candle(
    x: *const f32,
    x_dims: *const usize,
    w: *const f32,
    w_dims: *const usize,
    rank: usize,
    conv: *const usize,
) -> *mut Job {
    let tensor = |at: *const f32, dims: *const usize| {
        // SAFETY: as the caller promises.
        let dims = unsafe { std::slice::from_raw_parts(dims, rank) };
        // SAFETY: as the caller promises.
        let values = unsafe { std::slice::from_raw_parts(at, dims.iter().product()) };
        Tensor::from_slice(values, dims, &Device::Cpu)
    };
    let conv = (!conv.is_null()).then(|| {
        // SAFETY: as the caller promises.
        unsafe { [*conv, *conv.add(1), *conv.add(2)] }
    });
    let job = tensor(x, x_dims)
        .and_then(|input| Ok(Job::Candle { input, weight: tensor(w, w_dims)?, conv }))
        .map_err(|e| e.to_string());
    boxed(job)
}

/// Computes a layer once: 0, or -1 with a note.
///
/// # Safety
/// `job` is from this library and was not given back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_call(job: *const Job) -> i32 {
    // SAFETY: as the caller promises.
    match unsafe { &*job }.compute() {
        Ok(_) => 0,
        Err(e) => {
            note(e);
            -1
        }
    }
}

/// Computes a layer once and copies up to `len` elements of the result: their number, or -1 with a note.
///
/// # Safety
/// `job` as for [`peer_call`]; `out` has place for `len` elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_output(job: *const Job, out: *mut f32, len: usize) -> isize {
    // SAFETY: as the caller promises.
    let (job, out) = unsafe { (&*job, std::slice::from_raw_parts_mut(out, len)) };
    match job.compute().and_then(|y| y.values()) {
        Ok(values) => {
            out.iter_mut().zip(&values).for_each(|(to, from)| *to = *from);
            values.len() as isize
        }
        Err(e) => {
            note(e);
            -1
        }
    }
}

/// Copies the last message of this thread, up to `len` bytes: their number.
///
/// # Safety
/// `out` has place for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_error(out: *mut u8, len: usize) -> usize {
    // SAFETY: as the caller promises.
    let out = unsafe { std::slice::from_raw_parts_mut(out, len) };
    ERROR.with(|e| {
        let e = e.borrow();
        out.iter_mut().zip(e.as_bytes()).for_each(|(to, from)| *to = *from);
        e.len().min(len)
    })
}

/// Gives a job back.
///
/// # Safety
/// `job` is from this library and was not given back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_end(job: *mut Job) {
    // SAFETY: as the caller promises.
    drop(unsafe { Box::from_raw(job) });
}
