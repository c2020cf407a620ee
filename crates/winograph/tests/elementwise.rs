//! Creation and elementwise operations against `f64`.

mod common;
use common::{Array, assert_close, assert_error};
use winograph::{DType, Result, Tensor};

const FLOATS: [(DType, f64); 4] = [(DType::F64, 1e-14), (DType::F32, 2e-6), (DType::F16, 4e-3), (DType::BF16, 3e-2)];

type Unary = (&'static str, fn(&Tensor) -> Result<Tensor>, fn(f64) -> f64, bool);

/// PyTorch's definition of each function; the flag says that the argument must be positive.
const UNARY: [Unary; 25] = [
    ("neg", Tensor::neg, |x| -x, false),
    ("abs", Tensor::abs, f64::abs, false),
    ("exp", Tensor::exp, f64::exp, false),
    ("log", Tensor::log, f64::ln, true),
    ("sqrt", Tensor::sqrt, f64::sqrt, true),
    ("rsqrt", Tensor::rsqrt, |x| 1.0 / x.sqrt(), true),
    ("sin", Tensor::sin, f64::sin, false),
    ("cos", Tensor::cos, f64::cos, false),
    ("tanh", Tensor::tanh, f64::tanh, false),
    ("erf", Tensor::erf, libm::erf, false),
    ("floor", Tensor::floor, f64::floor, false),
    ("ceil", Tensor::ceil, f64::ceil, false),
    ("trunc", Tensor::trunc, f64::trunc, false),
    ("round", Tensor::round, f64::round_ties_even, false),
    ("reciprocal", Tensor::reciprocal, |x| 1.0 / x, true),
    ("square", Tensor::square, |x| x * x, false),
    ("sign", Tensor::sign, |x| if x == 0.0 { 0.0 } else { x.signum() }, false),
    ("relu", Tensor::relu, |x| x.max(0.0), false),
    ("leaky_relu", |x| x.leaky_relu(0.125), |x| if x > 0.0 { x } else { 0.125 * x }, false),
    ("sigmoid", Tensor::sigmoid, |x| 1.0 / (1.0 + (-x).exp()), false),
    ("silu", Tensor::silu, |x| x / (1.0 + (-x).exp()), false),
    ("gelu", Tensor::gelu, |x| 0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt())), false),
    (
        "gelu_tanh",
        Tensor::gelu_tanh,
        |x| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh()),
        false,
    ),
    ("clamp", |x| x.clamp(Some(-1.5), Some(2.0)), |x| x.clamp(-1.5, 2.0), false),
    ("pow", |x| x.pow(1.5), |x| x.powf(1.5), true),
];

#[test]
fn functions_in_every_float() {
    for (name, f, reference, positive) in UNARY {
        for (dtype, tolerance) in FLOATS {
            let x = Array::sample(&[5, 7]).map(|v| if positive { v.abs() + 0.125 } else { v });
            let t = x.to(dtype);
            let y = f(&t).unwrap();
            assert_eq!(y.dtype(), dtype, "{name}");
            println!("{name} {dtype}");
            assert_close(&y, &Array::of(&t).map(reference), tolerance);
        }
    }
}

type Binary = (&'static str, fn(&Tensor, &Tensor) -> Result<Tensor>, fn(f64, f64) -> f64);

fn python_remainder(a: f64, b: f64) -> f64 {
    a - b * (a / b).floor()
}

const BINARY: [Binary; 11] = [
    ("add", |a, b| a.add(b), |a, b| a + b),
    ("sub", |a, b| a.sub(b), |a, b| a - b),
    ("mul", |a, b| a.mul(b), |a, b| a * b),
    ("div", |a, b| a.div(b), |a, b| a / b),
    ("div_trunc", |a, b| a.div_trunc(b), |a, b| (a / b).trunc()),
    ("div_floor", |a, b| a.div_floor(b), |a, b| (a / b).floor()),
    ("fmod", |a, b| a.fmod(b), |a, b| a % b),
    ("remainder", |a, b| a.remainder(b), python_remainder),
    ("maximum", |a, b| a.maximum(b), f64::max),
    ("minimum", |a, b| a.minimum(b), f64::min),
    ("copy", |a, b| a.gt(b)?.where_(a, b), f64::max),
];

#[test]
fn two_operands_broadcast() {
    // Values and divisors with which every dtype's result is exact or rounded once.
    let a = Array::new(&[4, 1, 3], |i| [-7.0, -2.0, 3.0, 8.0][i[0]] + i[2] as f64);
    let b = Array::new(&[5, 1], |i| [-4.0, -1.0, 2.0, 4.0, 0.5][i[0]]);
    for (name, f, reference) in BINARY {
        let mut dtypes = vec![(DType::F64, 1e-15), (DType::F32, 1e-7), (DType::F16, 1e-3), (DType::BF16, 8e-3)];
        dtypes.extend([(DType::I8, 0.0), (DType::I32, 0.0), (DType::I64, 0.0)]);
        for (dtype, tolerance) in dtypes {
            let (x, y) = (a.to(dtype), b.map(|v| if dtype.is_int() && v == 0.5 { 3.0 } else { v }).to(dtype));
            let z = f(&x, &y).unwrap();
            let (xa, ya) = (Array::of(&x), Array::of(&y));
            let expected = Array::new(&[4, 5, 3], |i| reference(xa.at(&[i[0], 0, i[2]]), ya.at(&[i[1], 0])));
            println!("{name} {dtype}");
            assert_close(&z, &expected, if dtype.is_int() && name == "div" { 1e-7 } else { tolerance });
            assert_eq!(z.dtype(), if name == "div" && dtype.is_int() { DType::F32 } else { dtype });
        }
    }
}

#[test]
fn comparisons_and_logic() {
    let a = Tensor::from_slice(&[1f32, 2.0, f32::NAN, -0.0], &[4]).unwrap();
    let b = Tensor::from_slice(&[2f32, 2.0, f32::NAN, 0.0], &[4]).unwrap();
    let v = |t: Result<Tensor>| t.unwrap().to_vec::<bool>().unwrap();
    assert_eq!(v(a.lt(&b)), [true, false, false, false]);
    assert_eq!(v(a.le(&b)), [true, true, false, true]);
    assert_eq!(v(a.gt(&b)), [false, false, false, false]);
    assert_eq!(v(a.ge(&b)), [false, true, false, true]);
    assert_eq!(v(a.eq(&b)), [false, true, false, true]);
    assert_eq!(v(a.ne(&b)), [true, false, true, false]);
    assert_eq!(v(a.isnan()), [false, false, true, false]);
    let (p, q) = (a.ne(0).unwrap(), b.eq(2.0).unwrap());
    assert_eq!(v(p.logical_and(&q)), [true, true, false, false]);
    assert_eq!(v(p.logical_or(&q)), [true, true, true, false]);
    assert_eq!(v(p.logical_xor(&q)), [false, false, true, false]);
    assert_eq!(v(p.logical_not()), [false, false, false, true]);
    let i = Tensor::from_slice(&[6i32, 5], &[2]).unwrap();
    assert_eq!(i.bitwise_and(3).unwrap().to_vec::<i32>().unwrap(), [2, 1]);
    assert_eq!(i.bitwise_or(3).unwrap().to_vec::<i32>().unwrap(), [7, 7]);
    assert_eq!(i.bitwise_xor(3).unwrap().to_vec::<i32>().unwrap(), [5, 6]);
    assert_eq!(i.bitwise_not().unwrap().to_vec::<i32>().unwrap(), [-7, -6]);
}

#[test]
fn nan_stays_where_pytorch_keeps_it() {
    let nan = Tensor::from_slice(&[f32::NAN], &[1]).unwrap();
    for y in [
        nan.relu(),
        nan.maximum(0.0),
        nan.full_like(0).unwrap().minimum(&nan),
        nan.clamp(Some(0.0), Some(1.0)),
        nan.max(&[], false),
        nan.leaky_relu(0.1),
    ] {
        assert!(y.unwrap().to_vec::<f32>().unwrap()[0].is_nan());
    }
}

#[test]
fn numbers_as_operands() {
    let x = Tensor::from_slice(&[1i8, 2], &[2]).unwrap();
    assert_eq!(x.mul(3).unwrap().to_vec::<i8>().unwrap(), [3, 6]);
    assert_error(x.mul(1.5), &["mul", "i8", "1.5", "floating"]);
    assert_error(x.mul(300), &["mul", "300", "i8"]);
    let h = Tensor::from_slice(&[half::f16::ONE], &[1]).unwrap();
    assert_eq!(h.add(1).unwrap().add(0.5).unwrap().to_vec::<half::f16>().unwrap()[0].to_f32(), 2.5);
    let y = (&(&x + &x).unwrap() * &x).unwrap();
    assert_eq!(y.to_vec::<i8>().unwrap(), [2, 8]);
    assert_eq!((-&x).unwrap().to_vec::<i8>().unwrap(), [-1, -2]);
}

#[test]
fn powers() {
    let x = Tensor::from_slice(&[-2f64, 0.5, 3.0], &[3]).unwrap();
    for e in [-2.0, -1.0, 1.0, 2.0, 3.0, 4.0, 0.0] {
        let reference = Array::of(&x).map(|v| v.powf(e));
        assert_close(&x.pow(e).unwrap(), &reference, 1e-15);
    }
    let i = Tensor::from_slice(&[-2i32, 3], &[2]).unwrap();
    assert_eq!(i.pow(5).unwrap().to_vec::<i32>().unwrap(), [-32, 243]);
    assert_eq!(i.pow(0).unwrap().to_vec::<i32>().unwrap(), [1, 1]);
    assert_error(i.pow(-1), &["pow", "i32", "at least 0"]);
}

#[test]
fn integers_to_powers_of_their_own() {
    let bases = [-128i64, -7, -3, -2, -1, 0, 1, 2, 3, 10, 127];
    let exponents = [-128i64, -3, -2, -1, 0, 1, 2, 3, 5, 7, 8, 31, 64, 100, 127];
    // PyTorch's: wrapping products, and for negative exponents the reciprocal rounded toward 0, where 1/0 is 0.
    let power = |b: i64, e: i64| match (b, e) {
        (_, 0..) => (0..e).fold(1i64, |p, _| p.wrapping_mul(b)),
        (1, _) => 1,
        (-1, _) => {
            if e % 2 == 0 {
                1
            } else {
                -1
            }
        }
        _ => 0,
    };
    let pairs: Vec<(i64, i64)> = bases.iter().flat_map(|&b| exponents.map(|e| (b, e))).collect();
    let (b, e): (Vec<i64>, Vec<i64>) = pairs.iter().copied().unzip();
    let expected: Vec<i64> = pairs.iter().map(|&(b, e)| power(b, e)).collect();
    let t = |v: &[i64]| Tensor::from_slice(v, &[v.len()]).unwrap();
    assert_eq!(t(&b).pow(t(&e)).unwrap().to_vec::<i64>().unwrap(), expected);
    for dtype in [DType::I8, DType::I32] {
        let y = t(&b).cast(dtype).unwrap().pow(t(&e).cast(dtype).unwrap()).unwrap();
        let wrapped = t(&expected).cast(dtype).unwrap();
        assert_eq!(Array::of(&y).data, Array::of(&wrapped).data, "{dtype}");
    }
    let u = Tensor::from_slice(&[2u8, 3, 255, 0], &[4, 1]).unwrap();
    let y = u.pow(Tensor::from_slice(&[0u8, 3, 255], &[3]).unwrap()).unwrap();
    assert_eq!(y.to_vec::<u8>().unwrap(), [1, 8, 0, 1, 27, 171, 1, 255, 255, 1, 0, 0]);
    assert_error(t(&b).pow(t(&e).cast(DType::I32).unwrap()), &["pow", "i64 and i32"]);
}

/// PyTorch 2's results; those of `floor(a / b)` differ in the first row and in the infinities.
#[test]
fn floor_division_of_floats_goes_with_the_remainder() {
    let inf = f64::INFINITY;
    let cases = [
        (1.0, 0.1, 9.0),
        (-1.0, 0.1, -10.0),
        (7.0, inf, 0.0),
        (-7.0, inf, -1.0),
        (7.0, -inf, -1.0),
        (inf, 2.0, f64::NAN),
        (-1.0, 0.0, -inf),
        (1.0, -0.0, -inf),
        (0.0, 0.0, f64::NAN),
        (0.0, -3.0, -0.0),
        (-0.0, 3.0, -0.0),
        (1.0, 3.0, 0.0),
        (-1.0, -3.0, 0.0),
        (1e300, 1e-10, inf),
        (f64::NAN, 1.0, f64::NAN),
        (6.5, -2.0, -4.0),
    ];
    let t = |f: fn(&(f64, f64, f64)) -> f64| {
        Tensor::from_slice(&cases.iter().map(f).collect::<Vec<f64>>(), &[cases.len()]).unwrap()
    };
    let y = t(|c| c.0).div_floor(t(|c| c.1)).unwrap().to_vec::<f64>().unwrap();
    for (y, (a, b, z)) in y.into_iter().zip(cases) {
        assert!(y.to_bits() == z.to_bits() || (y.is_nan() && z.is_nan()), "{a} // {b} is {y}, not {z}");
    }
    // In half floats computed in f32 and rounded once.
    let h = |v: f32| Tensor::from_slice(&[half::f16::from_f32(v)], &[1]).unwrap();
    assert_eq!(h(1.0).div_floor(h(0.1)).unwrap().to_vec::<half::f16>().unwrap()[0].to_f32(), 10.0);
}

#[test]
fn integers_as_pytorch_has_them() {
    let a = Tensor::from_slice(&[7i64, -7, 1], &[3]).unwrap();
    assert_eq!(a.div(2).unwrap().to_vec::<f32>().unwrap(), [3.5, -3.5, 0.5]);
    assert_eq!(a.sqrt().unwrap().dtype(), DType::F32);
    let zero = a.div_trunc(0).unwrap().to_vec::<i64>().unwrap();
    assert_eq!(zero, [0, 0, 0]);
    let b = Tensor::from_slice(&[true, false], &[2]).unwrap();
    assert_eq!(b.add(true).unwrap().to_vec::<bool>().unwrap(), [true, true]);
    assert_eq!(b.sigmoid().unwrap().dtype(), DType::F32);
    assert_error(b.sub(&b), &["sub", "bool"]);
    assert_error(b.neg(), &["neg", "bool"]);
}

#[test]
fn prelu_takes_a_slope_per_channel() {
    let x = Array::sample(&[2, 3, 4]);
    let w = Array::new(&[3], |i| [0.5, 0.25, -1.0][i[0]]);
    let y = x.to(DType::F32).prelu(&w.to(DType::F32)).unwrap();
    let expected = Array::new(&x.shape, |i| {
        let v = x.at(i);
        if v > 0.0 { v } else { v * w.data[i[1]] }
    });
    assert_close(&y, &expected, 0.0);
    assert_error(
        x.to(DType::F32).prelu(&Tensor::ones(&[2], DType::F32).unwrap()),
        &["prelu", "[2, 3, 4]", "[2]", "[3]"],
    );
}

#[test]
fn casts() {
    let x = Tensor::from_slice(&[-1.7f32, 2.9, f32::NAN, 1e10, 0.0], &[5]).unwrap();
    assert_eq!(x.cast(DType::I32).unwrap().to_vec::<i32>().unwrap(), [-1, 2, 0, i32::MAX, 0]);
    assert_eq!(x.cast(DType::Bool).unwrap().to_vec::<bool>().unwrap(), [true, true, true, true, false]);
    let i = Tensor::from_slice(&[300i64, -1], &[2]).unwrap();
    assert_eq!(i.cast(DType::U8).unwrap().to_vec::<u8>().unwrap(), [44, 255]);
}

#[test]
fn creation() {
    assert_eq!(Tensor::arange(5i32, 0, -2).unwrap().to_vec::<i32>().unwrap(), [5, 3, 1]);
    assert_eq!(Tensor::arange(0f64, 1.0, 0.25).unwrap().to_vec::<f64>().unwrap(), [0.0, 0.25, 0.5, 0.75]);
    assert_eq!(Tensor::arange(3i64, 3, 1).unwrap().shape(), [0]);
    assert_error(Tensor::arange(0i32, 5, 0), &["arange", "step"]);
    assert_error(Tensor::arange(0i32, 5, -1), &["arange", "from start to end"]);
    assert_error(Tensor::arange(0f32, f32::INFINITY, 1.0), &["arange", "finite"]);
    assert_error(Tensor::arange(0f64, 1e300, 1e-300), &["arange"]);
    assert_error(Tensor::arange(i64::MIN, i64::MAX, 1), &["arange", "overflow"]);
    assert_eq!(Tensor::eye(2, 3, DType::I32).unwrap().to_vec::<i32>().unwrap(), [1, 0, 0, 0, 1, 0]);
    let x = Tensor::arange(1i32, 7, 1).unwrap().reshape(&[2, 3]).unwrap();
    assert_eq!(x.tril(0).unwrap().to_vec::<i32>().unwrap(), [1, 0, 0, 4, 5, 0]);
    assert_eq!(x.triu(1).unwrap().to_vec::<i32>().unwrap(), [0, 2, 3, 0, 0, 6]);
    assert_eq!(x.tril(i64::MAX).unwrap().to_vec::<i32>().unwrap(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(x.triu(i64::MAX).unwrap().to_vec::<i32>().unwrap(), [0; 6]);
    assert_eq!(Tensor::full(&[2], 2.5f32).unwrap().to_vec::<f32>().unwrap(), [2.5, 2.5]);
    assert_eq!(Tensor::scalar(7i32).item::<i32>().unwrap(), 7);
}

/// The numbers are part of the interface: a seed gives the same tensor on every machine and in every release.
#[test]
fn random_numbers_are_fixed() {
    let z = Tensor::randn(&[3], DType::F64, 42).unwrap().to_vec::<f64>().unwrap();
    let again = Tensor::randn(&[2, 2], DType::F64, 42).unwrap().to_vec::<f64>().unwrap();
    assert_eq!(z, again[..3]);
    assert_ne!(z, Tensor::randn(&[3], DType::F64, 43).unwrap().to_vec::<f64>().unwrap());
    let bits = |t: Tensor| t.to_vec::<f32>().unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let z = Tensor::randn(&[4], DType::F32, 42).unwrap();
    assert_eq!(bits(z), [0xbef8ceed, 0xbffcdf1f, 0x3ca2fd7d, 0x3e0456ce]);
    let u = Tensor::rand(&[4], DType::F32, 42).unwrap();
    assert_eq!(bits(u), [0x3eefea92, 0x3eae8566, 0x3ea774d8, 0x3ee89c0c]);
    let n = Tensor::randint(-100, 100, &[4], DType::I64, 42).unwrap();
    assert_eq!(n.to_vec::<i64>().unwrap(), [4, 38, 76, 32]);
    for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
        let u = Array::of(&Tensor::rand(&[1000], dtype, 1).unwrap());
        assert!(u.data.iter().all(|x| (0.0..1.0).contains(x)), "{dtype}");
    }
    assert_error(Tensor::randn(&[3], DType::I32, 0), &["randn", "i32", "floating"]);
    assert_error(Tensor::randint(3, 3, &[3], DType::I32, 0), &["randint", "3..3"]);
    assert_error(Tensor::randint(0, 300, &[3], DType::U8, 0), &["randint", "u8"]);
}

/// As PyTorch has them: the square of a truth value is a number, its sign itself; slopes are not rounded to half floats.
#[test]
fn functions_of_bool_and_half_floats() {
    let b = Tensor::from_slice(&[true, false], &[2]).unwrap();
    assert_eq!(b.square().unwrap().to_vec::<i64>().unwrap(), [1, 0]);
    assert_eq!(b.sign().unwrap().to_vec::<bool>().unwrap(), [true, false]);
    let x = Tensor::full(&[1], -10f32).unwrap().cast(DType::F16).unwrap();
    let y = x.leaky_relu(0.01).unwrap().cast(DType::F32).unwrap().to_vec::<f32>().unwrap();
    // 0.01 as f16 is 0.01000214, ten times it the next f16.
    assert_eq!(y, [-0.099975586]);
}
