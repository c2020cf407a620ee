//! Gradients: reverse mode over the operations that a tensor is made of.
//!
//! Results are lazy tensors like any other, and are compiled with what they are gradients of.

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::tensor::node::{Node, Op, State};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;
use winograph_ir::op::{BinaryOp, ReduceOp, UnaryOp};

const NAME: &str = "gradient";

/// Tells nodes from each other.
type Key = *const Node;

fn key(t: &Tensor) -> Key {
    Arc::as_ptr(&t.0)
}

/// The gradients of the sum of `y`'s elements with respect to each of `of`, from which `y` was computed; zero where it does not
/// depend on one. Where `Max`, `Min` and reductions by them have equal candidates each gets an equal share; what is rounded,
/// compared or an integer has no gradient. Known elements are no variables: what is made of them may have forgotten it.
///
/// `step` is asked before each tensor that is looked at: gradients of gradients grow with each.
///
/// # Errors
/// Operations whose gradient is not known: looking up by index, and products whose factors may be zero. What `step` says.
pub(crate) fn gradients(y: &Tensor, of: &[&Tensor], step: &dyn Fn() -> Result<()>) -> Result<Vec<Tensor>> {
    let leaves: FxHashSet<Key> = of.iter().map(|x| key(x)).collect();
    let order = dependent(y, &leaves, step)?;
    let mut known: FxHashMap<Key, Tensor> = FxHashMap::default();
    if order.iter().any(|t| key(t) == key(y)) {
        known.insert(key(y), y.full_like(1.0)?);
    }
    let reached: FxHashSet<Key> = order.iter().map(key).collect();
    for t in order.iter().rev().filter(|t| !leaves.contains(&key(t))) {
        let (Some(g), State::Lazy(op)) = (known.get(&key(t)).cloned(), t.0.state()) else { continue };
        for (x, part) in children(&op, t, &g, &|x| reached.contains(&key(x)))? {
            let sum = match known.remove(&key(&x)) {
                Some(before) => before.add(&part)?,
                None => part,
            };
            known.insert(key(&x), sum);
        }
    }
    of.iter()
        .map(|x| match known.get(&key(x)) {
            Some(g) => Ok(g.clone()),
            None => x.full_like(0.0),
        })
        .collect()
}

/// The floating tensors between `leaves` and `y`, both included; operands come before their users.
fn dependent(y: &Tensor, leaves: &FxHashSet<Key>, step: &dyn Fn() -> Result<()>) -> Result<Vec<Tensor>> {
    let mut depends: FxHashMap<Key, bool> = FxHashMap::default();
    let mut out = Vec::new();
    // A tensor is visited before its operands and again after them.
    let mut pending = vec![(y.clone(), false)];
    while let Some((t, after)) = pending.pop() {
        let at = key(&t);
        if !after && depends.contains_key(&at) {
            continue;
        }
        let mut operands: Vec<Tensor> = Vec::new();
        if !leaves.contains(&at)
            && let State::Lazy(op) = t.0.state()
        {
            op.for_each_child(|c| operands.push(c.clone()));
        }
        if !after {
            step()?;
            depends.insert(at, false);
            pending.push((t, true));
            pending.extend(operands.into_iter().map(|c| (c, false)));
            continue;
        }
        let reaches = |c: &Tensor| depends.get(&key(c)).copied().unwrap_or(false);
        if t.dtype().is_float() && (leaves.contains(&at) || operands.iter().any(reaches)) {
            depends.insert(at, true);
            out.push(t);
        }
    }
    Ok(out)
}

/// What each operand that `wanted` holds for gets of the gradient `g` of `t`, which is `op`.
fn children(op: &Op, t: &Tensor, g: &Tensor, wanted: &dyn Fn(&Tensor) -> bool) -> Result<Vec<(Tensor, Tensor)>> {
    let mut out = Vec::new();
    let mut give = |x: &Tensor, part: &dyn Fn() -> Result<Tensor>| -> Result<()> {
        if wanted(x) {
            out.push((x.clone(), part()?));
        }
        Ok(())
    };
    match op {
        Op::Input { .. } | Op::Full { .. } | Op::Table { .. } | Op::Iota { .. } => {}
        Op::Unary { op, x } => give(x, &|| unary(*op, x, t, g))?,
        Op::Binary { op, a, b } => {
            give(a, &|| binary(*op, [a, b], t, g, true))?;
            give(b, &|| binary(*op, [a, b], t, g, false))?;
        }
        Op::Where { cond, a, b } => {
            let none = g.full_like(0.0)?;
            give(a, &|| cond.where_(g, &none))?;
            give(b, &|| cond.where_(&none, g))?;
        }
        Op::Cast { x, .. } => give(x, &|| g.cast(x.dtype()))?,
        Op::Contiguous { x } => give(x, &|| Ok(g.clone()))?,
        Op::Reshape { x, .. } => give(x, &|| g.reshape_to(NAME, x.shape()))?,
        Op::Permute { x, order } => give(x, &|| {
            let mut inverse = vec![0; order.len()];
            order.iter().enumerate().for_each(|(to, &from)| inverse[from] = to);
            g.permute_to(NAME, &inverse)
        })?,
        Op::Expand { x, shape } => give(x, &|| {
            let repeated = (0..shape.len()).filter(|&a| x.shape()[a] != shape[a]).map(|a| a as isize);
            g.sum(&repeated.collect::<Vec<_>>(), true)
        })?,
        Op::Pad { x, before, .. } => {
            give(x, &|| g.slice_to(NAME, before.clone(), vec![1; before.len()], x.shape().to_vec()))?
        }
        Op::Slice { x, start, step, size } => give(x, &|| unsliced(g, x.shape(), start, step, size))?,
        Op::Unfold { x, axis, size, stride, dilation } => give(x, &|| {
            let mut all: Option<Tensor> = None;
            for tap in 0..*size {
                let part = g.select(-1, tap as isize)?;
                let (mut start, mut step) = (vec![0; x.rank()], vec![1; x.rank()]);
                (start[*axis], step[*axis]) = (tap * dilation, *stride as i64);
                let part = unsliced(&part, x.shape(), &start, &step, part.shape())?;
                all = Some(match all {
                    Some(sum) => sum.add(&part)?,
                    None => part,
                });
            }
            all.map_or_else(|| x.full_like(0.0), Ok)
        })?,
        Op::Cat { parts, axis } => {
            let mut from = 0;
            for x in parts {
                let size = x.shape()[*axis];
                give(x, &|| g.narrow(*axis as isize, from, size))?;
                from += size;
            }
        }
        Op::Reduce { op, x, axes, .. } => give(x, &|| {
            let kept = |t: &Tensor| -> Result<Tensor> {
                let mut shape = x.shape().to_vec();
                axes.iter().for_each(|&a| shape[a] = 1);
                t.reshape_to(NAME, &shape)?.expand_as(NAME, x.shape())
            };
            match op {
                ReduceOp::Add => kept(g),
                ReduceOp::Max | ReduceOp::Min => {
                    let best = x.eq(&kept(t)?)?.cast(x.dtype())?;
                    let axes: Vec<isize> = axes.iter().map(|&a| a as isize).collect();
                    let count = best.sum(&axes, false)?;
                    kept(&g.div(&count)?)?.mul(&best)
                }
                ReduceOp::Mul => Err(unknown("a product of all elements")),
            }
        })?,
        Op::Gather { x, .. } => give(x, &|| Err(unknown("looking elements up by their index")))?,
    }
    Ok(out)
}

fn unknown(what: &str) -> Error {
    Error::argument(NAME, what, &[], "operations that have a gradient here")
}

fn unary(op: UnaryOp, x: &Tensor, y: &Tensor, g: &Tensor) -> Result<Tensor> {
    match op {
        UnaryOp::Neg => g.neg(),
        UnaryOp::Abs => g.mul(&x.sign()?),
        UnaryOp::Sqrt => g.div(&y.mul(2.0)?),
        UnaryOp::Exp => g.mul(y),
        UnaryOp::Log => g.div(x),
        UnaryOp::Sin => g.mul(&x.cos()?),
        UnaryOp::Cos => g.mul(&x.sin()?.neg()?),
        UnaryOp::Tanh => g.mul(&y.mul(y)?.neg()?.add(1.0)?),
        UnaryOp::Erf => g.mul(&x.mul(x)?.neg()?.exp()?.mul(std::f64::consts::FRAC_2_SQRT_PI)?),
        UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Trunc | UnaryOp::Round | UnaryOp::Not => g.full_like(0.0),
    }
}

/// What the first operand gets, or the second one.
fn binary(op: BinaryOp, [a, b]: [&Tensor; 2], y: &Tensor, g: &Tensor, first: bool) -> Result<Tensor> {
    match (op, first) {
        (BinaryOp::Add, _) | (BinaryOp::Sub, true) => Ok(g.clone()),
        (BinaryOp::Sub, false) => g.neg(),
        (BinaryOp::Mul, true) => g.mul(b),
        (BinaryOp::Mul, false) => g.mul(a),
        (BinaryOp::Div, true) => g.div(b),
        (BinaryOp::Div, false) => g.mul(y)?.div(b)?.neg(),
        (BinaryOp::Rem, true) => Ok(g.clone()),
        (BinaryOp::Rem, false) => g.mul(&a.div(b)?.trunc()?)?.neg(),
        (BinaryOp::Max | BinaryOp::Min, _) => {
            let [mine, other] = if first { [a, b] } else { [b, a] };
            let taken = if op == BinaryOp::Max { mine.gt(other)? } else { other.gt(mine)? };
            let half = mine.eq(other)?.where_(&g.mul(0.5)?, &g.full_like(0.0)?)?;
            taken.where_(g, &half)
        }
        (BinaryOp::Pow, true) => g.mul(b)?.mul(&a.pow(&b.sub(1.0)?)?),
        (BinaryOp::Pow, false) => g.mul(y)?.mul(&a.log()?),
        _ => g.full_like(0.0),
    }
}

/// The gradient of a slice's operand: what the slice took is where it was, and zero between.
fn unsliced(g: &Tensor, shape: &[usize], start: &[usize], step: &[i64], size: &[usize]) -> Result<Tensor> {
    let mut out = g.clone();
    for axis in 0..shape.len() {
        let (count, by) = (size[axis], step[axis].unsigned_abs() as usize);
        if count == 0 {
            return Tensor::full_scalar(NAME, winograph_ir::Scalar::zero(g.dtype()), shape);
        }
        if step[axis] < 0 {
            out = out.flip(&[axis as isize])?;
        }
        let zeros = |amounts: (usize, usize), t: &Tensor, axis: usize| -> Result<Tensor> {
            let mut all = vec![(0, 0); t.rank()];
            all[axis] = amounts;
            t.pad_to(NAME, &all, winograph_ir::Scalar::zero(t.dtype()))
        };
        if by > 1 && count > 1 {
            let (mut apart, mut together) = (out.shape().to_vec(), out.shape().to_vec());
            apart.insert(axis + 1, 1);
            together[axis] = count * by;
            out = zeros((0, by - 1), &out.reshape_to(NAME, &apart)?, axis + 1)?.reshape_to(NAME, &together)?;
            out = out.narrow(axis as isize, 0, (count - 1) * by + 1)?;
        }
        let first = if step[axis] < 0 { start[axis] - (count - 1) * by } else { start[axis] };
        let after = shape[axis] - first - out.shape()[axis];
        out = zeros((first, after), &out, axis)?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConvOptions, DType, PoolOptions};

    /// Compares gradients with differences of sums in f64.
    fn check(shapes: &[&[usize]], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
        let known: Vec<Tensor> = (shapes.iter().zip(3..))
            .map(|(s, seed)| {
                let t = Tensor::randn(s, DType::F64, seed).unwrap();
                t.realize().unwrap();
                t
            })
            .collect();
        let variable = |t: &Tensor| t.neg().unwrap().neg().unwrap();
        let xs: Vec<Tensor> = known.iter().map(variable).collect();
        let y = f(&xs).unwrap();
        let got = gradients(&y, &xs.iter().collect::<Vec<_>>(), &|| Ok(())).unwrap();
        const H: f64 = 1e-6;
        for (n, g) in got.iter().enumerate() {
            assert_eq!((g.shape(), g.dtype()), (xs[n].shape(), DType::F64));
            let (g, x) = (g.to_vec::<f64>().unwrap(), known[n].to_vec::<f64>().unwrap());
            for i in (0..x.len()).step_by(x.len().div_ceil(7)) {
                let at = |h: f64| {
                    let mut moved = x.clone();
                    moved[i] += h;
                    let mut xs = known.clone();
                    xs[n] = Tensor::from_slice(&moved, shapes[n]).unwrap();
                    let y = f(&xs).unwrap().to_vec::<f64>().unwrap();
                    y.iter().sum::<f64>()
                };
                let want = (at(H) - at(-H)) / (2.0 * H);
                assert!((g[i] - want).abs() <= 1e-6 * want.abs().max(1.0), "input {n} at {i}: {} for {want}", g[i]);
            }
        }
    }

    #[test]
    fn gradients_are_those_of_differences() {
        let s: &[usize] = &[3, 4];
        check(&[s, s], |x| x[0].mul(&x[1])?.sub(&x[0].div(&x[1])?)?.add(&x[1]));
        check(&[s], |x| x[0].abs()?.sqrt()?.add(&x[0].exp()?)?.mul(&x[0].sin()?.add(&x[0].cos()?)?));
        check(&[s], |x| x[0].mul(&x[0])?.add(1.0)?.log()?.add(&x[0].tanh()?.mul(&x[0].erf()?)?));
        check(&[s, s], |x| {
            x[0].maximum(&x[1])?.mul(&x[0].minimum(&x[1])?)?.add(&x[0].gt(&x[1])?.where_(&x[0], &x[1])?)
        });
        check(&[s, &[4]], |x| x[0].mul(&x[0])?.add(0.5)?.pow(&x[1]));
        check(&[s, &[4, 5]], |x| x[0].matmul(&x[1])?.tanh());
        check(&[s], |x| x[0].softmax(-1)?.mul(&x[0].max(&[0], true)?));
        check(&[&[2, 3, 4]], |x| {
            let y = x[0].permute(&[2, 0, 1])?.flip(&[0])?.slice_axis(0, 1..4)?.pad(&[(0, 1), (2, 0), (0, 0)], 1.5)?;
            Tensor::cat(&[&y, &y.exp()?], 1)?.mul(&y.narrow(1, 0, 1)?)
        });
    }

    #[test]
    fn convolutions_and_pooling_have_gradients() {
        for (stride, dilation) in [(1, 1), (2, 1), (1, 2)] {
            let options = ConvOptions { stride: vec![stride], dilation: vec![dilation], ..ConvOptions::padding(1) };
            check(&[&[1, 2, 7, 6], &[3, 2, 3, 3], &[3]], |x| x[0].conv2d(&x[1], Some(&x[2]), &options)?.tanh());
        }
        let pool = PoolOptions { stride: vec![2], ..PoolOptions::default() };
        check(&[&[1, 2, 6, 6]], |x| x[0].avg_pool(&[2, 2], &pool)?.mul(&x[0].max_pool(&[2, 2], &pool)?));
    }

    #[test]
    fn what_is_not_reached_has_none_and_what_has_no_rule_says_so() {
        let [a, b] = [1, 2].map(|seed| Tensor::randn(&[3], DType::F32, seed).unwrap().neg().unwrap());
        let got = gradients(&a.mul(2.0).unwrap(), &[&a, &b], &|| Ok(())).unwrap();
        let values: Vec<Vec<f32>> = got.iter().map(|g| g.to_vec().unwrap()).collect();
        assert_eq!(values, [vec![2.0; 3], vec![0.0; 3]]);
        let of_itself = gradients(&a, &[&a], &|| Ok(())).unwrap()[0].to_vec::<f32>().unwrap();
        assert_eq!(of_itself, [1.0; 3]);
        let product = a.prod(&[0], false).unwrap();
        let stop = || Err(unknown("as many tensors"));
        assert!(gradients(&a.mul(2.0).unwrap(), &[&a], &stop).unwrap_err().to_string().contains("as many tensors"));
        assert!(gradients(&product, &[&a], &|| Ok(())).unwrap_err().to_string().contains("a product of all elements"));
    }
}
