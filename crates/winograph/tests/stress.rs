//! Many threads at once, and more memory than there is.

mod common;

use common::assert_error;
use std::sync::Barrier;
use winograph::{ArgSpec, ConvOptions, DType, Error, Tensor, TensorBuffer, compile};

const THREADS: usize = 8;

fn bits(t: &Tensor) -> Vec<u32> {
    t.to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

#[test]
fn one_function_called_by_many_threads() {
    let w = Tensor::randn(&[16, 8, 3, 3], DType::F32, 1).unwrap();
    let f = compile(&[ArgSpec::new(DType::F32, &[1, 8, 20, 20])], |a| {
        Ok(vec![a[0].conv2d(&w, None, &ConvOptions::padding(1))?.relu()?.sum(&[1], true)?.softmax(-1)?])
    })
    .unwrap();
    let inputs: Vec<Tensor> =
        (0..THREADS).map(|i| Tensor::randn(&[1, 8, 20, 20], DType::F32, i as u64 + 2).unwrap()).collect();
    let expected: Vec<Vec<u32>> = inputs.iter().map(|x| bits(&f.call(&[x]).unwrap()[0])).collect();
    let start = Barrier::new(THREADS);
    std::thread::scope(|s| {
        for t in 0..THREADS {
            let (f, inputs, expected, start) = (&f, &inputs, &expected, &start);
            s.spawn(move || {
                start.wait();
                let mut buffers = f.buffers().unwrap();
                for i in 0..200 {
                    let n = (t + i) % THREADS;
                    if i % 2 == 0 {
                        assert_eq!(bits(&f.call(&[&inputs[n]]).unwrap()[0]), expected[n]);
                    } else {
                        f.call_into(&[&inputs[n]], &mut buffers.iter_mut().collect::<Vec<_>>()).unwrap();
                        let got: Vec<u32> = buffers[0].to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect();
                        assert_eq!(got, expected[n]);
                    }
                }
            });
        }
    });
}

#[test]
fn many_threads_that_compile_different_functions() {
    let start = Barrier::new(THREADS);
    std::thread::scope(|s| {
        for t in 0..THREADS {
            let start = &start;
            s.spawn(move || {
                start.wait();
                for i in 0..4 {
                    let n = 5 + t * 4 + i;
                    let f = compile(&[ArgSpec::new(DType::F32, &[n, 7])], |a| {
                        Ok(vec![a[0].mul(n as f32)?.sum(&[1], false)?.add(1.0)?])
                    })
                    .unwrap();
                    let x = Tensor::ones(&[n, 7], DType::F32).unwrap();
                    assert_eq!(f.call(&[&x]).unwrap()[0].to_vec::<f32>().unwrap(), vec![7.0 * n as f32 + 1.0; n]);
                }
            });
        }
    });
}

/// Threads that realize the same lazy tensors, and others that share parts with them.
#[test]
fn many_threads_that_realize_the_same() {
    for round in 0..10 {
        let x = Tensor::arange(0f32, 500.0, 1.0).unwrap();
        let shared = x.mul(2.0 + round as f32).unwrap().add(1.0).unwrap();
        let start = Barrier::new(THREADS);
        std::thread::scope(|s| {
            for t in 0..THREADS {
                let (shared, start) = (&shared, &start);
                s.spawn(move || {
                    start.wait();
                    let own = shared.sub(t as f32).unwrap();
                    let at = 1 + t % 3;
                    let want = at as f32 * (2.0 + round as f32) + 1.0;
                    assert_eq!(own.to_vec::<f32>().unwrap()[at], want - t as f32);
                    assert_eq!(shared.to_vec::<f32>().unwrap()[at], want);
                });
            }
        });
    }
}

/// Bytes of memory that this machine has.
fn memory() -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<usize>().ok()
    };
    (field("MemTotal:").unwrap_or(1 << 30) + field("SwapTotal:").unwrap_or(0)) << 10
}

#[test]
fn tensors_larger_than_memory_are_errors() {
    let too_many = memory() + (1 << 30);
    for n in [too_many, 1 << 45, 1 << 59] {
        let big = Tensor::zeros(&[n], DType::U8).unwrap();
        assert!(matches!(big.realize(), Err(Error::OutOfMemory { .. })), "{n}");
        assert_error(big.to_vec::<u8>(), &["memory", &n.to_string()]);
        assert_error(TensorBuffer::new(DType::U8, &[n]), &["memory"]);
        assert_error(Tensor::rand(&[n], DType::F32, 1).and_then(|t| t.to_vec::<f32>()), &["memory"]);
        assert_error(Tensor::arange(0i64, n as i64, 1).and_then(|t| t.to_vec::<i64>()), &["memory"]);
        assert_error(Tensor::full(&[n], 1.5f64).and_then(|t| t.to_vec::<f64>()), &["memory"]);
        // An intermediate that is: stored since it is read in many ways.
        let x = Tensor::zeros(&[1], DType::F32).unwrap();
        let wide = x.broadcast_to(&[n]).unwrap().exp().unwrap().contiguous().unwrap();
        assert_error(wide.sum(&[], false).and_then(|t| t.to_vec::<f32>()), &["memory"]);
    }
    assert_eq!(Tensor::zeros(&[3], DType::U8).unwrap().to_vec::<u8>().unwrap(), [0; 3], "and the next works");
}
