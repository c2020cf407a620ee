//! Realization and compiled functions.

mod common;
use common::assert_error;
use winograph::{ArgSpec, ConvOptions, DType, Function, Tensor, TensorBuffer, compile};

fn is_send_sync<T: Send + Sync>() {}

#[test]
fn types_cross_threads() {
    is_send_sync::<Tensor>();
    is_send_sync::<Function>();
    is_send_sync::<TensorBuffer>();
}

fn spec(shape: &[usize]) -> ArgSpec {
    ArgSpec::new(DType::F32, shape)
}

#[test]
fn chains_deeper_than_the_stack() {
    // A small stack, so that recursion anywhere would overflow it.
    let run = || {
        let x = Tensor::from_slice(&[0f32], &[1]).unwrap();
        let mut y = x.clone();
        for _ in 0..10_000 {
            y = y.add(1).unwrap();
        }
        let unrealized = y.mul(2).unwrap();
        drop(unrealized);
        assert_eq!(y.to_vec::<f32>().unwrap(), [10_000.0]);
        let mut z = x;
        for _ in 0..200_000 {
            z = z.neg().unwrap();
        }
        drop(z);
    };
    std::thread::Builder::new().stack_size(256 << 10).spawn(run).unwrap().join().unwrap();
}

#[test]
fn diamonds_are_visited_once() {
    // 2^100 paths.
    let mut x = Tensor::from_slice(&[1f64], &[1]).unwrap();
    for _ in 0..100 {
        x = x.add(&x).unwrap();
    }
    assert_eq!(x.item::<f64>().unwrap(), 2f64.powi(100));
}

#[test]
fn realized_tensors_keep_their_elements() {
    let x = Tensor::arange(0f32, 3.0, 1.0).unwrap();
    let y = x.exp().unwrap();
    assert!(!y.is_realized());
    y.realize().unwrap();
    assert!(y.is_realized());
    let (a, b) = (y.add(1).unwrap(), y.sub(1).unwrap());
    Tensor::realize_all(&[&a, &b, &y]).unwrap();
    assert!(a.is_realized() && b.is_realized());
    assert!(Tensor::zeros(&[2], DType::F32).unwrap().to_vec::<f32>().is_ok());
    assert_error(y.to_vec::<f64>(), &["to_vec", "f32", "f64"]);
    assert_error(y.item::<f32>(), &["item", "[3]", "exactly one"]);
}

#[test]
fn functions_capture_constants() {
    let w = Tensor::randn(&[4, 2, 3, 3], DType::F32, 1).unwrap();
    let b = Tensor::randn(&[4], DType::F32, 2).unwrap();
    let conv = |x: &Tensor| x.conv2d(&w, Some(&b), &ConvOptions::padding(1))?.relu();
    let f = compile(&[spec(&[1, 2, 6, 6])], |args| Ok(vec![conv(&args[0])?, args[0].clone(), w.clone()])).unwrap();
    assert_eq!(f.args(), [spec(&[1, 2, 6, 6])]);
    assert_eq!(f.outputs()[0], spec(&[1, 4, 6, 6]));
    for seed in 3..6 {
        let x = Tensor::randn(&[1, 2, 6, 6], DType::F32, seed).unwrap();
        let out = f.call(&[&x]).unwrap();
        assert_eq!(out[0].to_vec::<f32>().unwrap(), conv(&x).unwrap().to_vec::<f32>().unwrap());
        assert_eq!(out[1].to_vec::<f32>().unwrap(), x.to_vec::<f32>().unwrap());
        assert_eq!(out[2].to_vec::<f32>().unwrap(), w.to_vec::<f32>().unwrap());
    }
}

/// What is computed from constants, elementwise too, is not in the calls.
#[test]
fn work_on_constants_is_prepared() {
    let weight = Tensor::randn(&[4, 3, 3, 3], DType::F32, 1).unwrap();
    let scale = Tensor::rand(&[4, 1, 1, 1], DType::F32, 2).unwrap();
    let image = Tensor::randn(&[1, 3, 8, 8], DType::F32, 3).unwrap();
    let apply = |x: &Tensor| {
        let folded = weight.mul(scale.add(1)?.rsqrt()?)?;
        x.conv_direct(&folded, None, &ConvOptions::padding(1))
    };
    let f = compile(&[spec(&[1, 3, 8, 8])], |args| Ok(vec![apply(&args[0])?])).unwrap();
    assert!(!f.program().prepare.is_empty());
    let reads: Vec<usize> = f.program().run.iter().flat_map(|s| &s.args).copied().collect();
    let raw = |&at: &usize| matches!(f.program().buffers[at].place, winograph_compiler::Place::Constant(_));
    assert!(!reads.iter().any(raw), "the raw weights are read by prepare alone");
    let got = f.call(&[&image]).unwrap()[0].to_vec::<f32>().unwrap();
    for (a, b) in got.iter().zip(apply(&image).unwrap().to_vec::<f32>().unwrap()) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
}

#[test]
fn several_threads_and_buffers_of_the_caller() {
    let f = compile(&[spec(&[8]), spec(&[8])], |a| Ok(vec![a[0].mul(&a[1])?.add(1)?])).unwrap();
    std::thread::scope(|s| {
        for t in 0..4 {
            let f = &f;
            s.spawn(move || {
                let mut buffers = f.buffers().unwrap();
                for i in 0..50 {
                    let x = Tensor::full(&[8], (t * 100 + i) as f32).unwrap();
                    f.call_into(&[&x, &x], &mut buffers.iter_mut().collect::<Vec<_>>()).unwrap();
                    let v = (t * 100 + i) as f32;
                    assert_eq!(buffers[0].to_vec::<f32>().unwrap(), [v * v + 1.0; 8]);
                }
            });
        }
        // One lazy tensor realized by many.
        let x = Tensor::arange(0i64, 100, 1).unwrap().sum(&[], false).unwrap();
        for _ in 0..4 {
            let x = x.clone();
            s.spawn(move || assert_eq!(x.item::<i64>().unwrap(), 4950));
        }
    });
}

#[test]
fn wrong_calls() {
    let f = compile(&[spec(&[2, 3])], |a| Ok(vec![a[0].sum(&[1], false)?])).unwrap();
    let x = Tensor::ones(&[2, 3], DType::F32).unwrap();
    assert_error(f.call(&[]), &["call", "0 argument", "1, as compiled"]);
    assert_error(f.call(&[&x, &x]), &["call", "2 argument"]);
    assert_error(f.call(&[&x.cast(DType::F64).unwrap()]), &["call", "f64", "f32 for argument 0"]);
    assert_error(f.call(&[&x.transpose(0, 1).unwrap()]), &["call", "[3, 2]", "[2, 3] for argument 0"]);
    let mut buffer = TensorBuffer::new(DType::F32, &[3]).unwrap();
    assert_error(f.call_into(&[&x], &mut [&mut buffer]), &["call_into", "[3]", "[2] for output 0"]);
    assert_error(f.call_into(&[&x], &mut []), &["call_into", "0 output"]);
    assert_error(compile(&[spec(&[2])], |a| Ok(vec![a[1 - 1].matmul(&x)?, x.matmul(&x)?])), &["matmul", "[2, 3]"]);
}

#[test]
fn placeholders_have_no_value() {
    let mut kept = None;
    let inner = compile(&[spec(&[2])], |a| {
        assert_error(a[0].to_vec::<f32>(), &["realize", "argument", "[2]"]);
        kept = Some(a[0].clone());
        Ok(vec![a[0].neg()?])
    });
    let f = inner.unwrap();
    let kept = kept.unwrap();
    assert_error(kept.add(1).unwrap().realize(), &["realize", "no value"]);
    assert_error(f.call(&[&kept]), &["realize", "no value"]);
    assert_error(compile(&[], |_| Ok(vec![kept.clone()])), &["compile", "no value"]);
}

#[test]
fn zero_sizes_in_functions() {
    let f = compile(&[spec(&[0, 3])], |a| Ok(vec![a[0].exp()?, a[0].sum(&[0], false)?])).unwrap();
    let out = f.call(&[&Tensor::zeros(&[0, 3], DType::F32).unwrap()]).unwrap();
    assert_eq!(out[0].shape(), [0, 3]);
    assert_eq!(out[1].to_vec::<f32>().unwrap(), [0.0; 3]);
    assert!(compile(&[], |_| Ok(vec![])).unwrap().call(&[]).unwrap().is_empty());
}

/// A recurrent network: each step reads its own row of the input.
fn steps(x: &Tensor, w: &Tensor, n: usize) -> winograph::Result<Tensor> {
    let (mut h, mut all) = (Tensor::zeros(&[8], DType::F32)?, Vec::new());
    for t in 0..n {
        let row = x.slice(&[(t as isize..t as isize + 1).into()])?.reshape(&[8])?;
        h = h.reshape(&[1, 8])?.matmul(w)?.reshape(&[8])?.add(&row)?.tanh()?.contiguous()?;
        all.push(h.clone());
    }
    Tensor::stack(&all.iter().collect::<Vec<_>>(), 0)
}

#[test]
fn steps_that_differ_in_the_row_that_they_read_are_one_kernel() {
    let w = Tensor::randn(&[8, 8], DType::F32, 1).unwrap();
    w.realize().unwrap();
    let of = |n: usize| {
        let f = compile(&[spec(&[n, 8])], |a| Ok(vec![steps(&a[0], &w, n)?])).unwrap();
        let x = Tensor::randn(&[n, 8], DType::F32, 2).unwrap();
        let (x_of, w_of) = (x.to_vec::<f32>().unwrap(), w.to_vec::<f32>().unwrap());
        let mut h = vec![0f64; 8];
        let found = f.call(&[&x]).unwrap().remove(0).to_vec::<f32>().unwrap();
        for t in 0..n {
            let sum = |j: usize| (0..8).map(|i| h[i] * f64::from(w_of[i * 8 + j])).sum::<f64>();
            h = (0..8).map(|j| (sum(j) + f64::from(x_of[t * 8 + j])).tanh()).collect();
            for (j, h) in h.iter().enumerate() {
                assert!((f64::from(found[t * 8 + j]) - h).abs() < 1e-4, "step {t} of {n}, element {j}");
            }
        }
        (f.program().kernels.len(), f.program().run.len())
    };
    // More tensors than are put together at once.
    let ((few, short), (many, long)) = (of(40), of(120));
    assert!(long >= short + 80 && few < 20 && many <= few + 3, "{few} kernels in {short} launches, {many} in {long}");
}

#[test]
fn kernels_that_are_one_work_on_the_memory_of_each_launch() {
    let w: Vec<Tensor> = (0..3).map(|n| Tensor::randn(&[8, 8], DType::F32, n).unwrap()).collect();
    w.iter().for_each(|w| w.realize().unwrap());
    // Rows of two arguments, by weights of their own, as results of their own.
    let of = |a: &[Tensor]| -> winograph::Result<Vec<Tensor>> {
        (0..6)
            .map(|n| {
                let row = a[n % 2].slice(&[(n as isize..n as isize + 1).into()])?;
                row.matmul(&w[n % 3])?.softmax(-1)
            })
            .collect()
    };
    let f = compile(&[spec(&[6, 8]), spec(&[6, 8])], of).unwrap();
    let given = [Tensor::randn(&[6, 8], DType::F32, 7).unwrap(), Tensor::randn(&[6, 8], DType::F32, 8).unwrap()];
    let found = f.call(&[&given[0], &given[1]]).unwrap();
    for (n, found) in found.iter().enumerate() {
        let x = given[n % 2].to_vec::<f32>().unwrap();
        let w = w[n % 3].to_vec::<f32>().unwrap();
        let sums: Vec<f64> =
            (0..8).map(|j| (0..8).map(|i| f64::from(x[n * 8 + i]) * f64::from(w[i * 8 + j])).sum::<f64>()).collect();
        let all: f64 = sums.iter().map(|s| s.exp()).sum();
        for (a, s) in found.to_vec::<f32>().unwrap().iter().zip(&sums) {
            assert!((f64::from(*a) - s.exp() / all).abs() < 1e-5, "result {n}");
        }
    }
    let kernels = f.program().kernels.len();
    assert!(kernels < f.program().run.len(), "{kernels} kernels");
}
