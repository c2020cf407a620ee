//! Inverse trigonometric and hyperbolic functions, from the functions that the compiler has.

use crate::error::Result;
use crate::tensor::Tensor;
use std::f64::consts::{FRAC_PI_2, PI};
use winograph_ir::DType;

/// `x * p(x²)` with the coefficients of `p`, the constant one first.
fn odd(x: &Tensor, coefficients: &[f64]) -> Result<Tensor> {
    let square = x.square()?;
    let mut list = coefficients.iter().rev();
    let mut p = x.full_like(list.next().copied().unwrap_or(0.0))?;
    for &c in list {
        p = p.mul(&square)?.add(c)?;
    }
    p.mul(x)
}

macro_rules! derived {
    ($(#[$doc:meta])* $name:ident, |$x:ident| $body:expr) => {
        $(#[$doc])*
        ///
        /// Integers and `bool` become `f32` first; half floats are rounded once.
        ///
        /// # Errors
        /// None beyond those of making a tensor.
        pub fn $name(&self) -> Result<Tensor> {
            let x = if self.dtype().is_float() { self.clone() } else { self.cast(DType::F32)? };
            x.computed(|$x| $body)
        }
    };
}

impl Tensor {
    derived! {
        /// Tangent of radians, as sine over cosine.
        tan, |x| x.sin()?.div(x.cos()?)
    }
    derived! {
        /// Inverse tangent. Angles are halved three times, so that eight terms of the series are exact to an `f64`.
        atan, |x| {
            let (size, beyond) = (x.abs()?, x.abs()?.gt(1.0)?);
            let mut t = beyond.where_(&size.reciprocal()?, &size)?;
            for _ in 0..3 {
                // tan(a/2) = tan a / (1 + sqrt(1 + tan² a))
                t = t.div(t.square()?.add(1.0)?.sqrt()?.add(1.0)?)?;
            }
            let series: Vec<f64> = (0..8).map(|i| (if i % 2 == 0 { 8.0 } else { -8.0 }) / (2 * i + 1) as f64).collect();
            let angle = odd(&t, &series)?;
            let angle = beyond.where_(&angle.neg()?.add(FRAC_PI_2)?, &angle)?;
            x.lt(0.0)?.where_(&angle.neg()?, &angle)
        }
    }
    derived! {
        /// Inverse sine; NaN beyond -1 and 1.
        asin, |x| {
            let cosine = x.neg()?.add(1.0)?.mul(x.add(1.0)?)?.sqrt()?;
            x.div(cosine.add(1.0)?)?.atan()?.mul(2.0)
        }
    }
    derived! {
        /// Inverse cosine; NaN beyond -1 and 1.
        acos, |x| {
            let angle = x.neg()?.add(1.0)?.div(x.add(1.0)?)?.sqrt()?.atan()?.mul(2.0)?;
            x.eq(-1.0)?.where_(&x.full_like(PI)?, &angle)
        }
    }
    derived! {
        /// Hyperbolic sine; by its series near zero, where the exponentials cancel.
        sinh, |x| {
            let far = x.exp()?.sub(x.neg()?.exp()?)?.mul(0.5)?;
            let near = odd(x, &[1.0, 1.0 / 6.0, 1.0 / 120.0, 1.0 / 5040.0, 1.0 / 362_880.0, 1.0 / 39_916_800.0])?;
            x.abs()?.lt(0.5)?.where_(&near, &far)
        }
    }
    derived! {
        /// Hyperbolic cosine.
        cosh, |x| x.exp()?.add(x.neg()?.exp()?)?.mul(0.5)
    }
    derived! {
        /// Inverse hyperbolic sine: `log(x + sqrt(x² + 1))` of the magnitude, with its sign.
        asinh, |x| {
            let size = x.abs()?;
            let far = size.add(size.square()?.add(1.0)?.sqrt()?)?.log()?;
            // 2 atanh(tanh(a/2)), where the logarithm would cancel.
            let half = size.div(size.square()?.add(1.0)?.sqrt()?.add(1.0)?)?;
            let near = half_log(&half)?.mul(2.0)?;
            let y = size.lt(0.25)?.where_(&near, &far)?;
            x.lt(0.0)?.where_(&y.neg()?, &y)
        }
    }
    derived! {
        /// Inverse hyperbolic cosine; NaN below 1.
        acosh, |x| x.add(x.sub(1.0)?.mul(x.add(1.0)?)?.sqrt()?)?.log()
    }
    derived! {
        /// Inverse hyperbolic tangent; NaN beyond -1 and 1.
        atanh, |x| {
            let far = x.add(1.0)?.div(x.neg()?.add(1.0)?)?.log()?.mul(0.5)?;
            x.abs()?.lt(0.25)?.where_(&half_log(x)?, &far)
        }
    }
}

/// The series of the inverse hyperbolic tangent, for magnitudes up to 1/4.
fn half_log(x: &Tensor) -> Result<Tensor> {
    odd(x, &(0..12).map(|i| 1.0 / (2 * i + 1) as f64).collect::<Vec<_>>())
}
