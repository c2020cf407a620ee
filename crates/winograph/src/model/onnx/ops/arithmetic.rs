//! Elementwise operators of one to many tensors, comparisons, logic and conversions.

use super::super::node::{Lowering, Node, one};
use crate::error::Result;
use crate::model::Value;
use crate::tensor::Tensor;
use winograph_ir::{BinaryOp, DType, Scalar};

pub(super) fn find(op: &str) -> Option<Lowering> {
    Some(match op {
        "Abs" | "Neg" | "Sqrt" | "Exp" | "Log" | "Sin" | "Cos" | "Tan" | "Asin" | "Acos" | "Atan" | "Sinh" | "Cosh"
        | "Tanh" | "Asinh" | "Acosh" | "Atanh" | "Erf" | "Floor" | "Ceil" | "Round" | "Reciprocal" | "Sign" | "Not"
        | "BitwiseNot" | "IsNaN" => unary,
        "IsInf" => is_inf,
        "Add" | "Sub" | "Mul" | "Div" | "And" | "Or" | "Xor" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" | "Equal"
        | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" => binary,
        "Mod" => modulo,
        "Pow" => pow,
        "BitShift" => shift,
        "Sum" | "Mean" | "Max" | "Min" => variadic,
        "Where" => |n| one(n.x(0)?.where_(n.x(1)?, n.x(2)?)?),
        "Clip" => clip,
        "Cast" | "CastLike" => cast,
        _ => return None,
    })
}

fn unary(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    one(match n.op() {
        "Abs" if matches!(x.dtype(), DType::U8 | DType::Bool) => x.clone(),
        "Abs" => x.abs()?,
        "Neg" => x.neg()?,
        "Sqrt" => x.sqrt()?,
        "Exp" => x.exp()?,
        "Log" => x.log()?,
        "Sin" => x.sin()?,
        "Cos" => x.cos()?,
        "Tan" => x.tan()?,
        "Asin" => x.asin()?,
        "Acos" => x.acos()?,
        "Atan" => x.atan()?,
        "Sinh" => x.sinh()?,
        "Cosh" => x.cosh()?,
        "Tanh" => x.tanh()?,
        "Asinh" => x.asinh()?,
        "Acosh" => x.acosh()?,
        "Atanh" => x.atanh()?,
        "Erf" => x.erf()?,
        "Floor" => x.floor()?,
        "Ceil" => x.ceil()?,
        "Round" => x.round()?,
        "Reciprocal" => x.reciprocal()?,
        "Sign" => x.sign()?,
        "IsNaN" => x.isnan()?,
        "BitwiseNot" => x.bitwise_not()?,
        _ => x.logical_not()?,
    })
}

fn is_inf(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let above = n.int("detect_positive", 1) != 0;
    let below = n.int("detect_negative", 1) != 0;
    one(match (above, below) {
        (true, true) => x.abs()?.eq(f64::INFINITY)?,
        (true, false) => x.eq(f64::INFINITY)?,
        (false, true) => x.eq(f64::NEG_INFINITY)?,
        (false, false) => Tensor::zeros(x.shape(), DType::Bool)?,
    })
}

/// Operands as opsets before 7 broadcast them: the second one's axes begin at `axis` of the first.
pub(super) fn aligned(n: &Node<'_>) -> Result<Tensor> {
    let (a, b) = (n.x(0)?, n.x(1)?);
    let (true, Some(axis)) = (n.flag("broadcast"), n.attr("axis")) else { return Ok(b.clone()) };
    let axis = n.axis(axis.i, a.rank())?;
    let mut shape = b.shape().to_vec();
    let behind =
        (a.rank() - axis).checked_sub(b.rank()).ok_or_else(|| n.wrong("the second input has too many axes"))?;
    shape.extend(std::iter::repeat_n(1, behind));
    b.reshape_to("broadcast", &shape)
}

fn binary(n: &Node<'_>) -> Result<Vec<Value>> {
    let (a, b) = (n.x(0)?, &aligned(n)?);
    one(match n.op() {
        "Add" => a.add(b)?,
        "Sub" => a.sub(b)?,
        "Mul" => a.mul(b)?,
        // Integers are divided towards zero.
        "Div" => a.binary("div", BinaryOp::Div, b)?,
        "And" => a.logical_and(b)?,
        "Or" => a.logical_or(b)?,
        "Xor" => a.logical_xor(b)?,
        "BitwiseAnd" => a.bitwise_and(b)?,
        "BitwiseOr" => a.bitwise_or(b)?,
        "BitwiseXor" => a.bitwise_xor(b)?,
        "Equal" => a.eq(b)?,
        "Less" => a.lt(b)?,
        "LessOrEqual" => a.le(b)?,
        "Greater" => a.gt(b)?,
        _ => a.ge(b)?,
    })
}

fn modulo(n: &Node<'_>) -> Result<Vec<Value>> {
    let (a, b) = (n.x(0)?, n.x(1)?);
    one(if n.flag("fmod") { a.fmod(b)? } else { a.remainder(b)? })
}

/// The base's dtype is the result's; integers are computed in `f64`.
fn pow(n: &Node<'_>) -> Result<Vec<Value>> {
    let (a, b) = (n.x(0)?, &aligned(n)?);
    if a.dtype().is_float() {
        // A square is a product, which is exact to the last bit.
        if b.full_value().is_some_and(|v| v.to_f64() == 2.0) && b.numel() == 1 && b.rank() <= a.rank() {
            return one(a.square()?);
        }
        return one(a.pow(b.cast(a.dtype())?)?);
    }
    one(a.cast(DType::F64)?.pow(b.cast(DType::F64)?)?.round()?.cast(a.dtype())?)
}

fn shift(n: &Node<'_>) -> Result<Vec<Value>> {
    let (x, by) = (n.x(0)?, n.x(1)?);
    let bits = x.dtype().size() as i64 * 8;
    if n.text("direction", "") != "LEFT" && Scalar::from_i64(x.dtype(), -1).to_i64() < 0 {
        // Of numbers with a sign the sign is left.
        return one(x.binary("shift", BinaryOp::Shr, &by.minimum(bits - 1)?)?);
    }
    // Operations of tensors shift by the remainder of the division by the number of bits.
    let op = if n.text("direction", "") == "LEFT" { BinaryOp::Shl } else { BinaryOp::Shr };
    let shifted = x.binary("shift", op, by)?;
    let within = by.lt(bits)?.broadcast_to(shifted.shape())?;
    one(within.where_(&shifted, &shifted.full_like(0)?)?)
}

fn variadic(n: &Node<'_>) -> Result<Vec<Value>> {
    let all = n.all()?;
    let Some((first, rest)) = all.split_first() else { return Err(n.wrong("it has no inputs")) };
    let mut out = (*first).clone();
    for x in rest {
        out = match n.op() {
            "Max" => out.maximum(*x)?,
            "Min" => out.minimum(*x)?,
            _ => out.add(*x)?,
        };
    }
    one(if n.op() == "Mean" { out.div(all.len() as f64)? } else { out })
}

fn clip(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let bound = |i: usize, name: &str| -> Result<Option<Tensor>> {
        Ok(match n.attr(name) {
            Some(a) => Some(Tensor::constant(Scalar::from_f64(x.dtype(), a.f as f64))),
            None => match n.opt(i) {
                // As a number in the code where it is one.
                Some(t) if t.numel() == 1 => Some(match n.host_of(t) {
                    Ok(v) => v.data.first().map_or_else(|| t.clone(), |s| Tensor::constant(*s)),
                    Err(_) => t.reshape_to("clip", &[])?,
                }),
                other => other.cloned(),
            },
        })
    };
    let mut out = x.clone();
    if let Some(low) = bound(1, "min")? {
        out = out.maximum(&low)?;
    }
    if let Some(high) = bound(2, "max")? {
        out = out.minimum(&high)?;
    }
    one(out)
}

fn cast(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    // Until opset 6.
    if n.attr("to").is_some_and(|a| !a.s.is_empty()) {
        return Err(n.unsupported(format!("the name {:?} for the dtype `to`", n.text("to", ""))));
    }
    let to = match n.dtype_attr("to")? {
        Some(to) => to,
        None => n.x(1)?.dtype(),
    };
    one(x.cast(to)?)
}
