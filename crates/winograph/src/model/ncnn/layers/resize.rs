//! Interp.

use super::Node;
use super::movement::MAX_PLACES;
use crate::error::Result;
use crate::model::resample::{self, Places};
use crate::tensor::{Tensor, shape};

#[derive(Clone, Copy)]
enum Kind {
    Nearest,
    Linear,
    Cubic,
}

/// Convolution coefficient of cubic interpolation: Keys, "Cubic convolution interpolation for digital image
/// processing" (1981), with the slope that most frameworks take.
const A: f64 = -0.75;

fn cubic(f: f64) -> [f64; 4] {
    let near = |d: f64| ((A + 2.0) * d - (A + 3.0)) * d * d + 1.0;
    let far = |d: f64| ((A * d - 5.0 * A) * d + 8.0 * A) * d - 4.0 * A;
    let (a, b, c) = (far(1.0 + f), near(f), near(1.0 - f));
    [a, b, c, 1.0 - a - b - c]
}

impl Kind {
    /// What the places of an axis read, which are `step` apart, unless the outermost are those of the input.
    fn taps(self, size: usize, out: usize, step: f64, corners: bool) -> Places {
        let ratio = match corners {
            true if out > 1 => (size as f64 - 1.0) / (out as f64 - 1.0),
            true => 0.0,
            false => step,
        };
        let place = |i: usize| if corners { i as f64 * ratio } else { (i as f64 + 0.5) * ratio - 0.5 };
        let mut places = Places::new(match self {
            Kind::Nearest => 1,
            Kind::Linear => 2,
            Kind::Cubic => 4,
        });
        for i in 0..out {
            let at = place(i);
            let (floor, rest) = (at.floor(), at - at.floor());
            match self {
                Kind::Nearest => places.push(((i as f32 * step as f32) as i64).min(size as i64 - 1), [1.0]),
                Kind::Linear => places.push(floor as i64, [1.0 - rest, rest]),
                Kind::Cubic => places.push(floor as i64 - 1, cubic(rest)),
            }
        }
        places
    }
}

pub(super) fn interp(n: &Node<'_>) -> Result<Tensor> {
    let x = n.x(0)?;
    let kind = match n.layer.int(0, "resize_type", 0)? {
        1 => Kind::Nearest,
        2 => Kind::Linear,
        3 => Kind::Cubic,
        other => return Err(n.layer.unsupported(format!("resize_type (parameter 0) {other}")).into()),
    };
    let corners = n.layer.flag(6, "align_corner")?;
    // Elements of a vector are channels of one pixel.
    let x = if x.rank() == 1 { x.reshape_to("Interp", &[x.numel(), 1, 1])? } else { x.clone() };
    let axes: &[usize] = match x.rank() {
        2 => &[1],
        3 => &[1, 2],
        _ => return Err(n.layer.wrong(format!("an input of shape {:?}, expected 1 to 3 axes", x.shape())).into()),
    };
    let fields = [("output_height", 3, "height_scale", 1), ("output_width", 4, "width_scale", 2)];
    let fields = &fields[fields.len() - axes.len()..];
    let mut y = x.clone();
    for (&axis, &(size_field, size_id, scale_field, scale_id)) in axes.iter().zip(fields) {
        let size = x.shape()[axis];
        let scale = n.layer.float(scale_id, scale_field, 1.0)?;
        let fixed = match n.inputs.get(1) {
            // As large as another blob.
            Some(like) => like.shape()[(like.rank() + axis).saturating_sub(x.rank())],
            None => n.layer.size(size_id, size_field, 0)?,
        };
        let out = if fixed > 0 { fixed as f64 } else { f64::from((size as f32 * scale as f32).floor()) };
        if !(1.0..=MAX_PLACES as f64).contains(&out) || size == 0 {
            let cause = format!("{scale_field} (parameter {scale_id}) {scale} makes {out} elements of {size}");
            return Err(n.layer.wrong(cause).into());
        }
        // By the scale, however the size was rounded. Nearest places are products of f32, as ncnn has them.
        let step = if fixed > 0 { size as f64 / out } else { 1.0 / scale };
        let mut full = y.shape().to_vec();
        full[axis] = out as usize;
        shape::check_size("Interp", y.dtype(), &full)?;
        if out as usize != size || corners {
            // No place reads more than four.
            n.table(4 * out as usize)?;
            y = resample::along(&y, axis, &kind.taps(size, out as usize, step, corners))?;
        }
    }
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cubic_weights_interpolate() {
        assert_eq!(cubic(0.0), [0.0, 1.0, 0.0, 0.0]);
        // Symmetric in the middle, and of sum 1.
        let half = cubic(0.5);
        assert!((half[0] - half[3]).abs() < 1e-12 && (half[1] - half[2]).abs() < 1e-12);
        assert!((half.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }
}
