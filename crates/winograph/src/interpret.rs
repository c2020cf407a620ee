//! A stand-in for the interpreter of tensor graphs that the IR crate will have: every node's elements, one after the
//! other.

use crate::error::{Error, Result};
use crate::tensor::storage::Storage;
use std::sync::Arc;
use winograph_ir::tensor::{NodeId, TensorGraph, TensorOp};
use winograph_ir::{BinaryOp, DType, Scalar};

fn strides(shape: &[usize]) -> Vec<usize> {
    let mut s = vec![1; shape.len()];
    for i in (0..shape.len().saturating_sub(1)).rev() {
        s[i] = s[i + 1] * shape[i + 1];
    }
    s
}

fn unravel(mut i: usize, shape: &[usize]) -> Vec<usize> {
    let mut out = vec![0; shape.len()];
    for a in (0..shape.len()).rev() {
        out[a] = i % shape[a];
        i /= shape[a];
    }
    out
}

pub(crate) fn interpret(
    op: &'static str,
    graph: &TensorGraph,
    inputs: &[Arc<Storage>],
    outputs: &mut [&mut Storage],
) -> Result<()> {
    let dim = |d: &winograph_ir::IntId| graph.ints.as_const(*d).unwrap_or(0) as usize;
    let mut values: Vec<Vec<Scalar>> = Vec::new();
    for node in graph.nodes() {
        let shape: Vec<usize> = node.shape.iter().map(dim).collect();
        let count: usize = shape.iter().product();
        let operand = |id: &NodeId| {
            let n = graph.node(*id);
            let s: Vec<usize> = n.shape.iter().map(dim).collect();
            (&values[id.0 as usize], strides(&s), s)
        };
        let at = |id: &NodeId, index: &[usize]| {
            let (v, st, _) = operand(id);
            v[index.iter().zip(&st).map(|(i, s)| i * s).sum::<usize>()]
        };
        let each = |f: &dyn Fn(usize, &[usize]) -> Scalar| -> Vec<Scalar> {
            (0..count).map(|i| f(i, &unravel(i, &shape))).collect()
        };
        let out = match &node.op {
            TensorOp::Input { slot, dtype, .. } => {
                let data = inputs.get(*slot).ok_or(Error::Execution { op, cause: format!("no input {slot}") })?;
                data.bytes()
                    .chunks_exact(dtype.size())
                    .map(|c| {
                        let mut b = [0u8; 8];
                        b[..c.len()].copy_from_slice(c);
                        Scalar::from_bits(*dtype, u64::from_le_bytes(b))
                    })
                    .collect()
            }
            TensorOp::Full { value, .. } => vec![*value; count],
            TensorOp::Table { values, .. } => values.clone(),
            TensorOp::Iota { dtype, axis, .. } => each(&|_, ix| Scalar::from_i64(*dtype, ix[*axis] as i64)),
            TensorOp::Unary { op, x } => each(&|i, _| op.apply(values[x.0 as usize][i])),
            TensorOp::Binary { op, a, b } => each(&|i, _| op.apply(values[a.0 as usize][i], values[b.0 as usize][i])),
            TensorOp::Where { cond, a, b } => each(&|i, _| {
                if values[cond.0 as usize][i].to_bool() { values[a.0 as usize][i] } else { values[b.0 as usize][i] }
            }),
            TensorOp::Cast { x, dtype } => each(&|i, _| values[x.0 as usize][i].cast(*dtype)),
            TensorOp::Reshape { x, .. } | TensorOp::Contiguous { x } => values[x.0 as usize].clone(),
            TensorOp::Permute { x, order } => each(&|_, ix| {
                let mut src = vec![0; ix.len()];
                for (i, &o) in order.iter().enumerate() {
                    src[o] = ix[i];
                }
                at(x, &src)
            }),
            TensorOp::Expand { x, .. } => {
                let s = operand(x).2;
                each(&|_, ix| at(x, &ix.iter().zip(&s).map(|(&i, &d)| if d == 1 { 0 } else { i }).collect::<Vec<_>>()))
            }
            TensorOp::Pad { x, before, value, .. } => {
                let s = operand(x).2;
                each(&|_, ix| {
                    let mut src = vec![0; ix.len()];
                    for a in 0..ix.len() {
                        match ix[a].checked_sub(dim(&before[a])) {
                            Some(i) if i < s[a] => src[a] = i,
                            _ => return *value,
                        }
                    }
                    at(x, &src)
                })
            }
            TensorOp::Slice { x, start, step, .. } => each(&|_, ix| {
                let src: Vec<usize> =
                    (0..ix.len()).map(|a| (dim(&start[a]) as i64 + step[a] * ix[a] as i64) as usize).collect();
                at(x, &src)
            }),
            TensorOp::Unfold { x, axis, stride, dilation, .. } => each(&|_, ix| {
                let mut src = ix[..ix.len() - 1].to_vec();
                src[*axis] = ix[*axis] * stride + ix[ix.len() - 1] * dilation;
                at(x, &src)
            }),
            TensorOp::Cat { parts, axis } => each(&|_, ix| {
                let mut src = ix.to_vec();
                for p in parts {
                    let n = operand(p).2[*axis];
                    if src[*axis] < n {
                        return at(p, &src);
                    }
                    src[*axis] -= n;
                }
                Scalar::zero(DType::Bool)
            }),
            TensorOp::Gather { x, axis, index } => {
                let s = operand(x).2;
                each(&|i, ix| {
                    let mut src = ix.to_vec();
                    src[*axis] = values[index.0 as usize][i].to_i64().clamp(0, s[*axis] as i64 - 1) as usize;
                    at(x, &src)
                })
            }
            TensorOp::Reduce { op, x, axes, fused, .. } => {
                let (v, _, s) = operand(x);
                let mut acc = vec![op.identity(node.dtype); count];
                let st = strides(&shape);
                let product = match (&graph.node(*x).op, fused) {
                    (TensorOp::Binary { op: BinaryOp::Mul, a, b }, true) if op.combine() == BinaryOp::Add => {
                        Some((&values[a.0 as usize], &values[b.0 as usize]))
                    }
                    _ => None,
                };
                for i in 0..v.len() {
                    let ix = unravel(i, &s);
                    let kept = ix.iter().enumerate().filter(|(a, _)| !axes.contains(a)).map(|(_, i)| *i);
                    let o: usize = kept.zip(&st).map(|(i, s)| i * s).sum();
                    acc[o] = match product {
                        Some((a, b)) => winograph_ir::op::apply_fma(a[i], b[i], acc[o]),
                        None => op.combine().apply(acc[o], v[i]),
                    };
                }
                acc
            }
        };
        if out.len() != count || out.iter().any(|s| s.dtype() != node.dtype) {
            let cause = format!("{:?} gives {} elements for shape {shape:?} {}", node.op, out.len(), node.dtype);
            return Err(Error::Execution { op, cause });
        }
        values.push(out);
    }
    for (id, out) in graph.outputs.iter().zip(outputs) {
        let size = graph.node(*id).dtype.size();
        for (bytes, s) in out.bytes_mut().chunks_exact_mut(size).zip(&values[id.0 as usize]) {
            bytes.copy_from_slice(&s.bits().to_le_bytes()[..size]);
        }
    }
    Ok(())
}
