//! What the tests share: plain arrays of `f64` and references written as loops.
#![allow(dead_code, unreachable_pub)]

use winograph::{DType, Error, Tensor};

/// A row-major array.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

impl Array {
    /// `f` of every index.
    pub fn new(shape: &[usize], mut f: impl FnMut(&[usize]) -> f64) -> Array {
        let count: usize = shape.iter().product();
        let mut data = Vec::with_capacity(count);
        let mut index = vec![0; shape.len()];
        for _ in 0..count {
            data.push(f(&index));
            for a in (0..shape.len()).rev() {
                index[a] += 1;
                if index[a] < shape[a] {
                    break;
                }
                index[a] = 0;
            }
        }
        Array { shape: shape.to_vec(), data }
    }

    /// Distinct numbers that f32 and f16 hold exactly: multiples of 1/8 between -8 and 8 in no order.
    pub fn sample(shape: &[usize]) -> Array {
        let mut n = 0u64;
        Array::new(shape, |_| {
            n += 1;
            ((n * 37) % 129) as f64 / 8.0 - 8.0
        })
    }

    /// The elements of a tensor, converted.
    pub fn of(t: &Tensor) -> Array {
        let data = t.cast(DType::F64).unwrap().to_vec::<f64>().unwrap();
        assert_eq!(data.len(), t.numel());
        Array { shape: t.shape().to_vec(), data }
    }

    /// As a tensor of a dtype.
    pub fn to(&self, dtype: DType) -> Tensor {
        Tensor::from_slice(&self.data, &self.shape).unwrap().cast(dtype).unwrap()
    }

    pub fn at(&self, index: &[usize]) -> f64 {
        assert_eq!(index.len(), self.shape.len());
        let place = index.iter().zip(&self.shape).fold(0, |p, (&i, &s)| {
            assert!(i < s, "{index:?} in {:?}", self.shape);
            p * s + i
        });
        self.data[place]
    }

    pub fn map(&self, f: impl Fn(f64) -> f64) -> Array {
        Array { shape: self.shape.clone(), data: self.data.iter().map(|&x| f(x)).collect() }
    }
}

/// Compares within `tolerance`, relative to 1 or the expected value's size; NaN equals NaN, infinities themselves.
#[track_caller]
pub fn assert_close(actual: &Tensor, expected: &Array, tolerance: f64) {
    assert_eq!(actual.shape(), expected.shape, "shapes");
    for (i, (a, e)) in Array::of(actual).data.iter().zip(&expected.data).enumerate() {
        let near = a == e || (a.is_nan() && e.is_nan()) || (a - e).abs() <= tolerance * e.abs().max(1.0);
        assert!(near, "element {i}: {a} for {e}, tolerance {tolerance}");
    }
}

/// Checks that an operation fails and that the message holds every one of `parts`.
#[track_caller]
pub fn assert_error<T: std::fmt::Debug>(result: Result<T, Error>, parts: &[&str]) {
    let message = result.expect_err("an error").to_string();
    for p in parts {
        assert!(message.contains(p), "`{p}` is not in: {message}");
    }
}

/// A convolution as loops in f64: `x` [n, c, spatial..], `w` [k, c/g, window..].
pub fn conv_reference(
    x: &Array,
    w: &Array,
    bias: Option<&Array>,
    stride: &[usize],
    padding: &[(usize, usize)],
    dilation: &[usize],
    groups: usize,
) -> Array {
    let rank = x.shape.len() - 2;
    let (kg, cg) = (w.shape[0] / groups, w.shape[1]);
    let mut shape = vec![x.shape[0], w.shape[0]];
    for i in 0..rank {
        let span = dilation[i] * (w.shape[2 + i] - 1) + 1;
        shape.push((x.shape[2 + i] + padding[i].0 + padding[i].1 - span) / stride[i] + 1);
    }
    Array::new(&shape, |o| {
        let mut sum = bias.map_or(0.0, |b| b.data[o[1]]);
        let taps = Array::new(&w.shape[1..], |_| 0.0);
        let _ = Array::new(&taps.shape, |t| {
            let mut at = vec![o[0], o[1] / kg * cg + t[0]];
            for i in 0..rank {
                let p = (o[2 + i] * stride[i] + t[1 + i] * dilation[i]).wrapping_sub(padding[i].0);
                if p >= x.shape[2 + i] {
                    return 0.0;
                }
                at.push(p);
            }
            let mut wi = vec![o[1]];
            wi.extend(t);
            sum += x.at(&at) * w.at(&wi);
            0.0
        });
        sum
    })
}

/// A small generator for the tests' own choices.
pub struct Choice(pub u64);

impl Choice {
    /// A number in `lo..=hi`.
    pub fn pick(&mut self, lo: usize, hi: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        lo + ((self.0 >> 33) as usize) % (hi - lo + 1)
    }
}
