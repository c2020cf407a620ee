//! Products of matrices and sums of products of tensors.

use super::super::node::{Lowering, Node, one};
use crate::error::Result;
use crate::model::Value;
use crate::tensor::{Tensor, shape};
use winograph_ir::{DType, ReduceOp, SumOrder};

pub(super) fn find(op: &str) -> Option<Lowering> {
    Some(match op {
        "MatMul" => |n| one(n.x(0)?.matmul(n.x(1)?)?),
        "Gemm" => gemm,
        "Einsum" => einsum,
        "Det" => det,
        _ => return None,
    })
}

fn gemm(n: &Node<'_>) -> Result<Vec<Value>> {
    let (mut a, mut b) = (n.x(0)?.clone(), n.x(1)?.clone());
    if n.flag("transA") {
        a = a.transpose(0, 1)?;
    }
    if n.flag("transB") {
        b = b.transpose(0, 1)?;
    }
    let (alpha, beta) = (n.float("alpha", 1.0), n.float("beta", 1.0));
    let scaled = |t: Tensor, by: f64| match (by == 1.0, t.dtype().is_float()) {
        (true, _) => Ok(t),
        (false, true) => t.mul(by),
        (false, false) => t.cast(DType::F64)?.mul(by)?.cast(t.dtype()),
    };
    let y = scaled(a.matmul(&b)?, alpha)?;
    let Some(c) = n.opt(2) else { return one(y) };
    one(y.add(scaled(c.clone(), beta)?)?)
}

/// The operands and the result of an einsum as lists of letters; axes under an ellipsis get numbers.
struct Terms {
    operands: Vec<Vec<u32>>,
    result: Vec<u32>,
}

fn terms(n: &Node<'_>, equation: &str, ranks: &[usize]) -> Result<Terms> {
    let wrong = |cause: &str| n.wrong(format!("equation {equation:?}: {cause}"));
    let text: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match text.split_once("->") {
        Some((l, r)) => (l, Some(r)),
        None => (text.as_str(), None),
    };
    let parts: Vec<&str> = left.split(',').collect();
    if parts.len() != ranks.len() {
        return Err(wrong(&format!("{} terms for {} inputs", parts.len(), ranks.len())));
    }
    // Axes under the ellipsis, counted from its end so that they broadcast.
    const DOTS: u32 = 1 << 24;
    let mut widest = 0;
    let letters = |part: &str, dots: usize| -> Result<Vec<u32>> {
        let mut out = Vec::new();
        let (front, back) = part.split_once("...").map_or((part, None), |(f, b)| (f, Some(b)));
        let ordinary = |s: &str, out: &mut Vec<u32>| {
            let good = s.chars().all(|c| c.is_ascii_alphabetic());
            out.extend(s.chars().map(|c| c as u32));
            if good { Ok(()) } else { Err(wrong("letters are expected")) }
        };
        ordinary(front, &mut out)?;
        if let Some(back) = back {
            out.extend((0..dots).map(|i| DOTS + (dots - i) as u32));
            ordinary(back, &mut out)?;
        }
        Ok(out)
    };
    let mut operands = Vec::with_capacity(parts.len());
    for (part, &rank) in parts.iter().zip(ranks) {
        let named = part.chars().filter(|c| *c != '.').count();
        let dots = if part.contains("...") { rank.checked_sub(named) } else { Some(0) };
        let dots = dots.ok_or_else(|| wrong("a term has more letters than its input has axes"))?;
        widest = widest.max(dots);
        let list = letters(part, dots)?;
        if list.len() != rank {
            return Err(wrong(&format!("the term {part:?} for an input of {rank} axes")));
        }
        operands.push(list);
    }
    let result = match right {
        Some(r) => letters(r, widest)?,
        None => {
            // Letters that occur once, in their order, behind the ellipsis.
            let all: Vec<u32> = operands.iter().flatten().copied().collect();
            let mut single: Vec<u32> =
                all.iter().copied().filter(|l| *l < DOTS && all.iter().filter(|m| *m == l).count() == 1).collect();
            single.sort_unstable();
            (0..widest).map(|i| DOTS + (widest - i) as u32).chain(single).collect()
        }
    };
    Ok(Terms { operands, result })
}

fn einsum(n: &Node<'_>) -> Result<Vec<Value>> {
    let name = "einsum";
    let inputs = n.all()?;
    let equation = n.text("equation", "");
    let ranks: Vec<usize> = inputs.iter().map(|t| t.rank()).collect();
    let Terms { operands, result } = terms(n, &equation, &ranks)?;
    // All letters: those of the result, then those that are summed.
    let mut order = result.clone();
    order.extend(operands.iter().flatten().copied());
    let mut axes: Vec<u32> = Vec::new();
    order.into_iter().for_each(|l| {
        if !axes.contains(&l) {
            axes.push(l);
        }
    });
    if axes.len() < result.len() {
        return Err(n.wrong(format!("equation {equation:?}: a letter occurs twice in the result")));
    }
    let mut aligned = Vec::with_capacity(inputs.len());
    for (t, list) in inputs.iter().zip(&operands) {
        let (mut t, mut list) = ((*t).clone(), list.clone());
        // A letter that occurs twice takes the diagonal: one axis is looked up by the other's index.
        while let Some((i, j)) = repeated(&list) {
            let size = t.shape()[i];
            if t.shape()[j] != size {
                return Err(n.wrong(format!("equation {equation:?}: axes of one letter with different sizes")));
            }
            let mut shape = t.shape().to_vec();
            shape[j] = 1;
            let index = Tensor::iota(name, DType::I64, &shape, i)?;
            t = t.gather(j as isize, &index)?.squeeze(&[j as isize])?;
            list.remove(j);
        }
        let mut by_place: Vec<usize> = (0..list.len()).collect();
        by_place.sort_by_key(|&i| axes.iter().position(|&a| a == list[i]));
        let t = t.permute_to(name, &by_place)?;
        let mut sizes = t.shape().iter();
        let shape: Vec<usize> =
            axes.iter().map(|a| if list.contains(a) { sizes.next().copied().unwrap_or(1) } else { 1 }).collect();
        aligned.push(t.reshape_to(name, &shape)?);
    }
    let full = shape::broadcast(name, &aligned.iter().map(Tensor::shape).collect::<Vec<_>>())?;
    let summed: Vec<usize> = (result.len()..axes.len()).collect();
    let Some((first, rest)) = aligned.split_first() else { return Err(n.wrong("it has no inputs")) };
    let dtype = first.dtype();
    let mut product = first.cast(dtype.compute())?;
    for t in rest {
        product = product.mul(t.cast(dtype.compute())?)?;
    }
    let sum = product.expand_as(name, &full)?.reduce(name, ReduceOp::Add, &summed, SumOrder::Any)?;
    one(sum.cast(dtype)?)
}

/// Two places of one letter.
fn repeated(list: &[u32]) -> Option<(usize, usize)> {
    (0..list.len()).find_map(|i| (i + 1..list.len()).find(|&j| list[i] == list[j]).map(|j| (i, j)))
}

/// The determinant by elimination, rows exchanged for the largest pivot.
fn det(n: &Node<'_>) -> Result<Vec<Value>> {
    let name = "det";
    let x = n.x(0)?;
    let [front @ .., rows, columns] = x.shape() else { return Err(n.wrong("expected matrices")) };
    if rows != columns || *rows > 64 {
        return Err(n.unsupported(format!("matrices of {rows} x {columns}")));
    }
    let (size, batch) = (*rows, shape::count(front));
    let mut m = x.cast(x.dtype().compute())?.reshape_to(name, &[batch, size, size])?;
    let mut result = Tensor::ones(&[batch], m.dtype())?;
    for k in 0..size {
        let left = size - k;
        let column = m.select(2, 0)?;
        let at = column.abs()?.argmax(Some(1), true)?;
        // The row of the pivot, and the others with the first row in its place.
        let row_index = at.reshape_to(name, &[batch, 1, 1])?.expand_as(name, &[batch, 1, left])?;
        let pivot_row = m.gather(1, &row_index)?;
        let pivot = pivot_row.narrow(2, 0, 1)?;
        let exchanged = at.reshape_to(name, &[batch])?.ne(0)?;
        let value = pivot.reshape_to(name, &[batch])?;
        result = result.mul(exchanged.where_(&value.neg()?, &value)?)?;
        if left == 1 {
            break;
        }
        let places = Tensor::iota(name, DType::I64, &[batch, left, left], 1)?;
        let is_pivot = places.eq(at.reshape_to(name, &[batch, 1, 1])?.expand_as(name, &[batch, left, left])?)?;
        let first = m.narrow(1, 0, 1)?.expand_as(name, &[batch, left, left])?;
        let others = is_pivot.where_(&first, &m)?.narrow(1, 1, left - 1)?;
        let safe = pivot.eq(0)?.where_(&pivot.full_like(1)?, &pivot)?;
        let factor = others.narrow(2, 0, 1)?.div(&safe)?;
        m = others.sub(factor.mul(&pivot_row)?)?.narrow(2, 1, left - 1)?;
    }
    one(result.cast(x.dtype())?.reshape_to(name, front)?)
}
