//! Pooling against loops that follow PyTorch's definition.

mod common;
use common::{Array, Choice, assert_close, assert_error};
use winograph::{DType, PoolOptions, Tensor};

/// Output size as PyTorch's `pooling_output_shape`.
fn out_size(size: usize, window: usize, stride: usize, dilation: usize, pad: (usize, usize), ceil: bool) -> usize {
    let room = size + pad.0 + pad.1 - dilation * (window - 1) - 1;
    let mut out = if ceil { room.div_ceil(stride) } else { room / stride } + 1;
    if ceil && (out - 1) * stride >= size + pad.0 {
        out -= 1;
    }
    out
}

#[test]
fn max_and_mean_over_random_windows() {
    let mut c = Choice(3);
    for case in 0..300 {
        let rank = c.pick(1, 3);
        let mut shape = vec![c.pick(1, 2), c.pick(1, 2)];
        let (mut kernel, mut stride, mut padding, mut dilation) = (vec![], vec![], vec![], vec![]);
        let max = case % 2 == 0;
        for _ in 0..rank {
            kernel.push(c.pick(1, 3));
            let k = kernel[kernel.len() - 1];
            stride.push(c.pick(1, 3));
            dilation.push(if max { c.pick(1, 2) } else { 1 });
            padding.push((c.pick(0, k / 2), c.pick(0, k / 2)));
            shape.push(dilation[dilation.len() - 1] * (k - 1) + 1 + c.pick(0, 4));
        }
        let (ceil_mode, count_include_pad) = (c.pick(0, 1) == 1, c.pick(0, 1) == 1);
        let x = Array::sample(&shape);
        let mut out = shape[..2].to_vec();
        for i in 0..rank {
            out.push(out_size(shape[2 + i], kernel[i], stride[i], dilation[i], padding[i], ceil_mode));
        }
        let expected = Array::new(&out, |o| {
            let (mut sum, mut largest, mut count) = (0.0, f64::NEG_INFINITY, 0.0);
            let _ = Array::new(&kernel, |t| {
                let (mut at, mut inside, mut counted) = (o[..2].to_vec(), true, true);
                for i in 0..rank {
                    let p = (o[2 + i] * stride[i] + t[i] * dilation[i]) as isize - padding[i].0 as isize;
                    inside &= p >= 0 && p < shape[2 + i] as isize;
                    counted &= p < (shape[2 + i] + padding[i].1) as isize;
                    at.push(p.max(0) as usize);
                }
                if inside {
                    sum += x.at(&at);
                    largest = f64::max(largest, x.at(&at));
                }
                count += (if count_include_pad { counted } else { inside }) as u8 as f64;
                0.0
            });
            if max { largest } else { sum / count }
        });
        let options = PoolOptions { stride, padding, dilation, ceil_mode, count_include_pad };
        println!("{case}: {shape:?} {kernel:?} {options:?}");
        let t = x.to(DType::F32);
        let y = if max { t.max_pool(&kernel, &options) } else { t.avg_pool(&kernel, &options) };
        assert_close(&y.unwrap(), &expected, 1e-6);
    }
}

#[test]
fn dtypes_and_defaults() {
    let x = Tensor::from_slice(&[-3i8, -1, -2, -4, 5, 6], &[1, 6]).unwrap();
    let o = PoolOptions { padding: vec![(1, 1)], ..PoolOptions::default() };
    assert_eq!(x.max_pool(&[2], &o).unwrap().to_vec::<i8>().unwrap(), [-3, -1, 5, 6]);
    assert_error(x.avg_pool(&[2], &o), &["avg_pool", "i8", "floating"]);
    let h = Tensor::ones(&[1, 1, 64, 64], DType::F16).unwrap();
    let y = h.avg_pool(&[64, 64], &PoolOptions::default()).unwrap();
    assert_eq!((y.shape(), Array::of(&y).data), (&[1, 1, 1, 1][..], vec![1.0]));
    let none = Tensor::zeros(&[0, 2, 6], DType::F32).unwrap();
    assert_eq!(none.max_pool(&[2], &o).unwrap().shape(), [0, 2, 4]);
}

#[test]
fn wrong_arguments() {
    let x = Tensor::ones(&[1, 2, 4, 4], DType::F32).unwrap();
    let d = PoolOptions::default();
    assert_error(x.max_pool(&[5, 2], &d), &["max_pool", "[5, 2]", "[1, 2, 4, 4]", "no larger"]);
    assert_error(x.max_pool(&[0, 2], &d), &["max_pool", "[0, 2]", "positive"]);
    assert_error(x.max_pool(&[], &d), &["max_pool", "1 to 3 spatial"]);
    assert_error(x.max_pool(&[1, 1, 1, 1], &d), &["max_pool", "1 to 3 spatial"]);
    let o = PoolOptions { padding: vec![(2, 0)], ..PoolOptions::default() };
    assert_error(x.max_pool(&[2, 2], &o), &["max_pool", "(2, 0)", "half"]);
    let o = PoolOptions { stride: vec![0], ..PoolOptions::default() };
    assert_error(x.avg_pool(&[2, 2], &o), &["avg_pool", "stride [0, 0]"]);
    let o = PoolOptions { dilation: vec![2], ..PoolOptions::default() };
    assert_error(x.avg_pool(&[2, 2], &o), &["avg_pool", "dilation [2]"]);
}
