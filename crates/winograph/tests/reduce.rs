//! Reductions and products of matrices against `f64`.

mod common;
use common::{Array, assert_close, assert_error};
use winograph::{DType, Tensor};

/// `f` of the elements along the axes, per place of the other axes, with keepdim.
fn fold(a: &Array, axes: &[usize], f: impl Fn(&[f64]) -> f64) -> Array {
    let shape: Vec<usize> = a.shape.iter().enumerate().map(|(i, &s)| if axes.contains(&i) { 1 } else { s }).collect();
    Array::new(&shape, |o| {
        let mut terms = vec![];
        let _ = Array::new(&a.shape, |i| {
            if (0..i.len()).all(|x| axes.contains(&x) || i[x] == o[x]) {
                terms.push(a.at(i));
            }
            0.0
        });
        f(&terms)
    })
}

fn variance(x: &[f64], correction: f64) -> f64 {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (x.len() as f64 - correction)
}

#[test]
fn every_reduction_over_every_axis() {
    let a = Array::sample(&[3, 4, 2]);
    for (dtype, tolerance) in [(DType::F64, 1e-14), (DType::F32, 1e-5), (DType::F16, 3e-3), (DType::BF16, 2e-2)] {
        let t = a.to(dtype);
        let a = Array::of(&t);
        for axes in [vec![0], vec![1], vec![2], vec![0, 2], vec![0, 1, 2]] {
            let list: Vec<isize> = axes.iter().map(|&i| i as isize - 3).rev().collect();
            let check = |y: winograph::Result<Tensor>, f: &dyn Fn(&[f64]) -> f64| {
                let y = y.unwrap();
                assert_eq!(y.dtype(), dtype);
                assert_close(&y, &fold(&a, &axes, f), tolerance);
            };
            check(t.sum(&list, true), &|x| x.iter().sum());
            check(t.mean(&list, true), &|x| x.iter().sum::<f64>() / x.len() as f64);
            check(t.max(&list, true), &|x| x.iter().fold(f64::NEG_INFINITY, |m, &v| m.max(v)));
            check(t.min(&list, true), &|x| x.iter().fold(f64::INFINITY, |m, &v| m.min(v)));
            check(t.var(&list, true, true), &|x| variance(x, 1.0));
            check(t.var(&list, false, true), &|x| variance(x, 0.0));
            let kept: Vec<usize> = (0..3).filter(|i| !axes.contains(i)).map(|i| a.shape[i]).collect();
            assert_eq!(t.sum(&list, false).unwrap().shape(), kept);
            assert_eq!(t.var(&list, true, false).unwrap().shape(), kept);
        }
        assert_eq!(t.sum(&[], false).unwrap().shape(), [0usize; 0]);
        let p = t.div(8).unwrap();
        assert_close(&p.prod(&[1], true).unwrap(), &fold(&Array::of(&p), &[1], |x| x.iter().product()), tolerance);
    }
}

#[test]
fn integers_accumulate_in_i64() {
    let t = Tensor::full(&[100], 100i8).unwrap();
    assert_eq!(t.sum(&[0], false).unwrap().to_vec::<i64>().unwrap(), [10_000]);
    assert_eq!(t.narrow(0, 0, 3).unwrap().prod(&[], false).unwrap().item::<i64>().unwrap(), 1_000_000);
    let b = Tensor::from_slice(&[true, true, false], &[3]).unwrap();
    assert_eq!(b.sum(&[], false).unwrap().item::<i64>().unwrap(), 2);
    assert_eq!(t.max(&[], false).unwrap().dtype(), DType::I8);
    assert_error(t.mean(&[], false), &["mean", "i8", "floating"]);
    assert_error(t.var(&[], true, false), &["var", "i8"]);
    assert_error(t.softmax(0), &["softmax", "i8"]);
}

/// 4096 ones and then 1000 halves: a sum in f16 would stop at 2048.
#[test]
fn half_floats_accumulate_in_f32() {
    let t = Tensor::ones(&[4096], DType::F16).unwrap();
    assert_eq!(Array::of(&t.sum(&[], false).unwrap()).data, [4096.0]);
    assert_eq!(Array::of(&t.mean(&[], false).unwrap()).data, [1.0]);
    let b = Tensor::ones(&[1, 1024], DType::BF16).unwrap();
    assert_eq!(Array::of(&b.matmul(&b.transpose(0, 1).unwrap()).unwrap()).data, [1024.0]);
}

#[test]
fn argmax() {
    let x = [1f32, 5.0, 5.0, -2.0, f32::NAN, 7.0, f32::NAN, 0.0];
    let t = Tensor::from_slice(&x, &[2, 4]).unwrap();
    assert_eq!(t.argmax(Some(1), false).unwrap().to_vec::<i64>().unwrap(), [1, 0]);
    assert_eq!(t.argmin(Some(-1), false).unwrap().to_vec::<i64>().unwrap(), [3, 0]);
    let all = t.argmax(None, true).unwrap();
    assert_eq!((all.shape(), all.to_vec::<i64>().unwrap()), (&[1, 1][..], vec![4]));
    let kept = t.argmax(Some(0), true).unwrap();
    assert_eq!((kept.shape(), kept.to_vec::<i64>().unwrap()), (&[1, 4][..], vec![1, 1, 1, 1]));
    let i = Tensor::from_slice(&[u8::MAX, 3, u8::MAX], &[3]).unwrap();
    assert_eq!(i.argmax(None, false).unwrap().item::<i64>().unwrap(), 0);
    let inf = Tensor::full(&[3], f64::NEG_INFINITY).unwrap();
    assert_eq!(inf.argmax(Some(0), false).unwrap().item::<i64>().unwrap(), 0);
    assert_eq!(Tensor::scalar(3f32).argmax(Some(0), true).unwrap().shape(), [0usize; 0]);
    assert_error(t.argmax(Some(2), false), &["argmax", "axis 2", "[2, 4]"]);
}

#[test]
fn softmax_is_stable() {
    let a = Array::sample(&[3, 5]).map(|x| 100.0 * x);
    for (dtype, tolerance) in [(DType::F64, 1e-13), (DType::F32, 1e-6), (DType::F16, 2e-3)] {
        let t = a.to(dtype);
        let a = Array::of(&t);
        for axis in 0..2usize {
            let largest = fold(&a, &[axis], |x| x.iter().fold(f64::NEG_INFINITY, |m, &v| m.max(v)));
            let at = |i: &[usize]| if axis == 0 { [0, i[1]] } else { [i[0], 0] };
            let shifted = Array::new(&a.shape, |i| a.at(i) - largest.at(&at(i)));
            let sums = fold(&shifted, &[axis], |x| x.iter().map(|v| v.exp()).sum());
            let expected = Array::new(&a.shape, |i| shifted.at(i).exp() / sums.at(&at(i)));
            assert_close(&t.softmax(axis as isize).unwrap(), &expected, tolerance);
            let expected = Array::new(&a.shape, |i| shifted.at(i) - sums.at(&at(i)).ln());
            assert_close(&t.log_softmax(axis as isize).unwrap(), &expected, tolerance);
        }
    }
    assert_eq!(Tensor::scalar(3f32).softmax(-1).unwrap().item::<f32>().unwrap(), 1.0);
}

#[test]
fn empty_tensors_as_in_pytorch() {
    let t = Tensor::zeros(&[0, 3], DType::F32).unwrap();
    assert_eq!(t.sum(&[0], false).unwrap().to_vec::<f32>().unwrap(), [0.0; 3]);
    assert_eq!(t.prod(&[0], false).unwrap().to_vec::<f32>().unwrap(), [1.0; 3]);
    assert!(t.mean(&[0], false).unwrap().to_vec::<f32>().unwrap()[0].is_nan());
    assert!(t.var(&[0], false, false).unwrap().to_vec::<f32>().unwrap()[0].is_nan());
    assert_eq!(t.max(&[1], false).unwrap().shape(), [0]);
    assert_error(t.max(&[0], false), &["max", "[0, 3]", "at least one element"]);
    assert_error(t.argmax(None, false), &["argmax", "at least one element"]);
    assert_eq!(t.softmax(0).unwrap().shape(), [0, 3]);
    assert_eq!(t.add(1.0).unwrap().exp().unwrap().to_vec::<f32>().unwrap(), [0f32; 0]);
    let u = Tensor::zeros(&[3, 0], DType::F32).unwrap();
    assert_eq!(u.matmul(&t).unwrap().to_vec::<f32>().unwrap(), [0.0; 9]);
    assert_eq!(t.matmul(&u).unwrap().shape(), [0, 0]);
    assert_eq!(t.pad(&[(1, 1), (0, 0)], 2).unwrap().to_vec::<f32>().unwrap(), [2.0; 6]);
    assert_eq!(Tensor::cat(&[&t, &Tensor::ones(&[1, 3], DType::F32).unwrap()], 0).unwrap().shape(), [1, 3]);
    assert_eq!(t.reshape(&[3, 0, 5]).unwrap().shape(), [3, 0, 5]);
    assert_eq!(t.sum(&[], false).unwrap().item::<f32>().unwrap(), 0.0);
    let one = Tensor::from_slice(&[4f32], &[1]).unwrap();
    assert!(one.var(&[], true, false).unwrap().item::<f32>().unwrap().is_nan());
}

#[test]
fn matmul_of_every_rank() {
    let cases: [(&[usize], &[usize], &[usize]); 8] = [
        (&[3], &[3], &[]),
        (&[2, 3], &[3], &[2]),
        (&[3], &[3, 4], &[4]),
        (&[2, 3], &[3, 4], &[2, 4]),
        (&[5, 2, 3], &[3, 4], &[5, 2, 4]),
        (&[5, 1, 2, 3], &[6, 3, 4], &[5, 6, 2, 4]),
        (&[3], &[5, 3, 4], &[5, 4]),
        (&[5, 2, 3], &[3], &[5, 2]),
    ];
    for (sa, sb, shape) in cases {
        let (a, b) = (Array::sample(sa), Array::sample(sb));
        let expected = Array::new(shape, |o| {
            // Indices of the result, completed to [front.., m, n].
            let mut full = o.to_vec();
            if sb.len() == 1 {
                full.push(0);
            }
            if sa.len() == 1 {
                full.insert(full.len() - 1, 0);
            }
            let (m, n) = (full[full.len() - 2], full[full.len() - 1]);
            let front = |s: &[usize]| -> Vec<usize> {
                let r = s.len().saturating_sub(2);
                let f = &full[full.len() - 2 - r..full.len() - 2];
                f.iter().zip(s).map(|(&i, &d)| if d == 1 { 0 } else { i }).collect()
            };
            (0..3)
                .map(|k| {
                    let mut ia = front(sa);
                    ia.extend(if sa.len() == 1 { vec![k] } else { vec![m, k] });
                    let mut ib = front(sb);
                    ib.extend(if sb.len() == 1 { vec![k] } else { vec![k, n] });
                    a.at(&ia) * b.at(&ib)
                })
                .sum()
        });
        for dtype in [DType::F32, DType::F64] {
            assert_close(&a.to(dtype).matmul(&b.to(dtype)).unwrap(), &expected, 1e-6);
        }
    }
    let i = Tensor::from_slice(&[1i32, 2, 3, 4], &[2, 2]).unwrap();
    assert_eq!(i.matmul(&i).unwrap().to_vec::<i32>().unwrap(), [7, 10, 15, 22]);
    let ones = |s: &[usize]| Tensor::ones(s, DType::F32).unwrap();
    assert_error(ones(&[2, 3]).matmul(&ones(&[4, 2])), &["matmul", "[2, 3]", "[4, 2]", "3 and 4"]);
    assert_error(ones(&[2, 2, 3]).matmul(&ones(&[3, 3, 2])), &["matmul", "[2, 2, 3]", "[3, 3, 2]", "broadcast"]);
    assert_error(ones(&[]).matmul(&ones(&[1])), &["matmul", "at least one axis"]);
    assert_error(ones(&[2, 3]).matmul(&i), &["matmul", "f32 and i32"]);
}

#[test]
fn linear() {
    let (x, w, b) = (Array::sample(&[2, 5, 3]), Array::sample(&[4, 3]), Array::sample(&[4]));
    let y = x.to(DType::F32).linear(&w.to(DType::F32), Some(&b.to(DType::F32))).unwrap();
    let expected = Array::new(&[2, 5, 4], |o| {
        b.data[o[2]] + (0..3).map(|k| x.at(&[o[0], o[1], k]) * w.at(&[o[2], k])).sum::<f64>()
    });
    assert_close(&y, &expected, 1e-6);
    let bad = Tensor::ones(&[4, 4], DType::F32).unwrap();
    assert_error(x.to(DType::F32).linear(&bad, None), &["linear", "[2, 5, 3]", "[4, 4]", "[out, in]"]);
    assert_error(x.to(DType::F32).linear(&w.to(DType::F32), Some(&bad)), &["linear", "[4, 4]", "bias [out]"]);
}
