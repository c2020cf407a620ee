//! Operations that depend on the order of an axis, on axes that are too long to compare each element with all others.

use winograph::{DType, Tensor};
use winograph_ir::ReduceOp;

/// Numbers with many equal ones among them, in an order that looks random.
fn numbers(count: usize, distinct: u64, seed: u64) -> Vec<i64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) % distinct
    };
    (0..count).map(|_| next() as i64 - distinct as i64 / 2).collect()
}

#[test]
fn running_sums_of_integers_are_exact_at_any_length_and_on_any_axis() {
    for (shape, axis) in [
        (vec![256], 0),
        (vec![257], 0),
        (vec![8_193], 0),
        (vec![70_001], 0),
        (vec![3, 5_000], 1),
        (vec![2, 1_025, 3], 1),
        (vec![700, 4], 0),
    ] {
        let count: usize = shape.iter().product();
        let x = numbers(count, 1 << 40, 7);
        let inner: usize = shape[axis + 1..].iter().product();
        let mut want = x.clone();
        for i in 0..count {
            if !(i / inner).is_multiple_of(shape[axis]) {
                want[i] = want[i].wrapping_add(want[i - inner]);
            }
        }
        let tensor = Tensor::from_slice(&x, &shape).unwrap();
        assert_eq!(tensor.cumsum(axis as isize).unwrap().to_vec::<i64>().unwrap(), want, "{shape:?}");
        // In narrow integers, which wrap.
        let narrow: Vec<u8> = want.iter().map(|&w| w as u8).collect();
        let bytes = tensor.cast(DType::U8).unwrap();
        assert_eq!(bytes.cumsum(axis as isize).unwrap().to_vec::<u8>().unwrap(), narrow, "{shape:?}");
    }
}

#[test]
fn running_sums_of_floats_are_near_those_in_f64_and_half_floats_are_rounded_once() {
    let x: Vec<f32> = numbers(50_000, 1000, 3).iter().map(|&i| i as f32 / 512.0).collect();
    let tensor = Tensor::from_slice(&x, &[50_000]).unwrap();
    let mut sum = 0f64;
    let mut most = 0f64;
    let got = tensor.cumsum(0).unwrap().to_vec::<f32>().unwrap();
    for (x, got) in x.iter().zip(&got) {
        sum += f64::from(*x);
        most = most.max(sum.abs());
        assert!((f64::from(*got) - sum).abs() <= 1e-5 * most.max(1.0), "{got} {sum}");
    }
    // What comes after a NaN or an infinity is none of what comes before.
    let mut x = vec![1f32; 1000];
    (x[300], x[700]) = (f32::INFINITY, f32::NEG_INFINITY);
    let got = Tensor::from_slice(&x, &[1000]).unwrap().cumsum(0).unwrap().to_vec::<f32>().unwrap();
    assert_eq!((got[299], got[300], got[699]), (300.0, f32::INFINITY, f32::INFINITY));
    assert!(got[700..].iter().all(|x| x.is_nan()));
    // 1 + 1/256 is a half float, a sum of them in half floats would stay behind.
    let half = Tensor::full(&[2000], 1.0f32 + 1.0 / 256.0).unwrap().cast(DType::F16).unwrap();
    let got = half.cumsum(0).unwrap().cast(DType::F32).unwrap().to_vec::<f32>().unwrap();
    for (i, got) in got.iter().enumerate() {
        let want = (i + 1) as f32 * (1.0 + 1.0 / 256.0);
        assert!((got - want).abs() <= want / 2048.0, "{i}: {got} {want}");
    }
}

#[test]
fn the_first_of_long_axes_are_those_of_a_stable_sort() {
    for (shape, axis, distinct, k) in [
        (vec![512, 40], 0, 50, 512),
        (vec![513, 40], 0, 50, 513),
        (vec![513, 40], 0, 1 << 30, 1),
        (vec![2_048], 0, 300, 2_048),
        (vec![2_049], 0, 300, 2_049),
        (vec![4_000], 0, 1, 100),
        (vec![20_000], 0, 3_000, 100),
        (vec![20_000], 0, 3_000, 1_000),
        (vec![3_333], 0, 3, 3_333),
        (vec![3, 700, 5], 1, 90, 650),
        (vec![2, 1_700], 1, 1 << 30, 129),
    ] {
        let count: usize = shape.iter().product();
        let (size, inner): (usize, usize) = (shape[axis], shape[axis + 1..].iter().product());
        let x = numbers(count, distinct, 11);
        let tensor = Tensor::from_slice(&x, &shape).unwrap();
        for largest in [true, false] {
            let mut want_values = vec![0; count / size * k];
            let mut want_places = want_values.clone();
            for line in 0..count / size {
                let (o, i) = (line / inner, line % inner);
                let at = |p: usize| x[(o * size + p) * inner + i];
                let mut order: Vec<usize> = (0..size).collect();
                order.sort_by(|&a, &b| if largest { at(b).cmp(&at(a)) } else { at(a).cmp(&at(b)) });
                for (n, &p) in order[..k].iter().enumerate() {
                    want_values[(o * k + n) * inner + i] = at(p);
                    want_places[(o * k + n) * inner + i] = p as i64;
                }
            }
            let (values, places) = tensor.topk(k, axis as isize, largest).unwrap();
            assert_eq!(places.to_vec::<i64>().unwrap(), want_places, "{shape:?} {k} {largest}");
            assert_eq!(values.to_vec::<i64>().unwrap(), want_values, "{shape:?} {k} {largest}");
        }
    }
}

#[test]
fn the_first_of_long_axes_have_nan_as_the_largest_and_the_bits_of_every_dtype() {
    let x = numbers(2_500, 100, 5);
    let float = |&i: &i64| match i {
        -50 | 49 => f32::NAN,
        -49 => f32::INFINITY,
        48 => f32::NEG_INFINITY,
        i => i as f32 / 4.0,
    };
    let floats: Vec<f32> = x.iter().map(float).collect();
    for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
        let tensor = Tensor::from_slice(&floats, &[2_500]).unwrap().cast(dtype).unwrap();
        for largest in [true, false] {
            let mut want: Vec<usize> = (0..2_500).collect();
            // Of floats that are no numbers each is as large.
            let key = |i: usize| if floats[i].is_nan() { f32::MAX } else { floats[i].clamp(-1e9, 1e9) };
            want.sort_by(|&a, &b| if largest { key(b).total_cmp(&key(a)) } else { key(a).total_cmp(&key(b)) });
            let (values, places) = tensor.topk(2_500, 0, largest).unwrap();
            let places = places.to_vec::<i64>().unwrap();
            assert!(places.iter().zip(&want).all(|(&p, &w)| p as usize == w), "{dtype} {largest}");
            let values = values.cast(DType::F32).unwrap().to_vec::<f32>().unwrap();
            for (v, &p) in values.iter().zip(&want) {
                assert!(*v == floats[p] || v.is_nan() && floats[p].is_nan(), "{dtype} {largest}: {v} {}", floats[p]);
            }
        }
    }
    for dtype in [DType::U8, DType::I8, DType::I32, DType::Bool] {
        let tensor = Tensor::from_slice(&x, &[2_500]).unwrap().cast(dtype).unwrap();
        let plain = tensor.cast(DType::I64).unwrap().to_vec::<i64>().unwrap();
        for largest in [true, false] {
            let mut want: Vec<usize> = (0..2_500).collect();
            want.sort_by(|&a, &b| if largest { plain[b].cmp(&plain[a]) } else { plain[a].cmp(&plain[b]) });
            let places = tensor.topk(600, 0, largest).unwrap().1.to_vec::<i64>().unwrap();
            assert!(places.iter().zip(&want).all(|(&p, &w)| p as usize == w), "{dtype} {largest}");
        }
    }
}

#[test]
fn many_updates_scattered_over_a_long_axis_are_those_of_a_loop() {
    for (shape, updates, axis) in
        [(vec![9_000], vec![8_000], 0), (vec![6_000, 4], vec![4_000, 3], 0), (vec![3, 7_000], vec![2, 9_001], 1)]
    {
        let total = |s: &[usize]| s.iter().product::<usize>();
        let inner = total(&shape[axis + 1..]);
        let (x, values) = (numbers(total(&shape), 1000, 1), numbers(total(&updates), 1000, 2));
        let index = numbers(total(&updates), 2 * shape[axis] as u64 + 100, 3);
        // Many for a few places, most of them for none or one, and some beyond the axis.
        let index: Vec<i64> = index.iter().map(|i| if i % 3 == 0 { i % 7 } else { i + 50 }).collect();
        for reduce in [None, Some(ReduceOp::Add), Some(ReduceOp::Max), Some(ReduceOp::Mul)] {
            let mut want = x.clone();
            let update_inner = total(&updates[axis + 1..]);
            for (u, (&to, &value)) in index.iter().zip(&values).enumerate() {
                if to < 0 || to as usize >= shape[axis] {
                    continue;
                }
                let (o, i) = (u / (updates[axis] * update_inner), u % update_inner);
                let at = &mut want[(o * shape[axis] + to as usize) * inner + i];
                *at = match reduce {
                    None => value,
                    Some(ReduceOp::Add) => *at + value,
                    Some(ReduceOp::Max) => (*at).max(value),
                    _ => at.wrapping_mul(value),
                };
            }
            let index = Tensor::from_slice(&index, &updates).unwrap();
            let (x, values) = (Tensor::from_slice(&x, &shape).unwrap(), Tensor::from_slice(&values, &updates).unwrap());
            let got = x.scatter(axis as isize, &index, &values, reduce).unwrap();
            assert_eq!(got.to_vec::<i64>().unwrap(), want, "{shape:?} {reduce:?}");
        }
    }
    // An index that is repeated, and half floats that are rounded once.
    let index: Vec<i64> = numbers(20_000, 5_000, 9).iter().map(|i| i + 2_500).collect();
    let repeated = Tensor::from_slice(&index, &[20_000, 1]).unwrap().expand(&[-1, 3]).unwrap();
    let ones = Tensor::full(&[20_000, 3], 1.0f32).unwrap().cast(DType::F16).unwrap();
    let x = Tensor::zeros(&[5_000, 3], DType::F16).unwrap();
    let got = x.scatter(0, &repeated, &ones, Some(ReduceOp::Add)).unwrap().cast(DType::F32).unwrap();
    let mut want = vec![0f32; 15_000];
    index.iter().for_each(|&i| (0..3).for_each(|c| want[i as usize * 3 + c] += 1.0));
    assert_eq!(got.to_vec::<f32>().unwrap(), want);
}
