//! Losses of classification.

use super::super::node::{Lowering, Node};
use crate::error::Result;
use crate::tensor::Tensor;
use winograph_ir::DType;

pub(super) fn find(op: &str) -> Option<Lowering> {
    Some(match op {
        "NegativeLogLikelihoodLoss" => |n| Ok(vec![loss(n, n.x(0)?)?.into()]),
        "SoftmaxCrossEntropyLoss" => |n| {
            let log = n.x(0)?.log_softmax(1)?;
            Ok(vec![loss(n, &log)?.into(), log.into()])
        },
        _ => return None,
    })
}

/// The loss of `[n, classes, ..]` logarithms of probabilities for the classes that the second operand lists.
fn loss(n: &Node<'_>, log: &Tensor) -> Result<Tensor> {
    let name = "loss";
    let target = n.x(1)?.cast(DType::I64)?;
    if log.rank() < 2 || target.rank() + 1 != log.rank() {
        return Err(n.wrong(format!("scores {:?} and targets {:?}", log.shape(), target.shape())));
    }
    let classes = log.shape()[1];
    let ignored = n.attr("ignore_index").map(|a| a.i);
    let counted = ignored.map(|i| target.ne(i)).transpose()?;
    let safe = match &counted {
        Some(c) => c.where_(&target, &target.full_like(0)?)?,
        None => target,
    };
    let picked = log.gather(1, &safe.unsqueeze(1)?)?.squeeze(&[1])?.neg()?;
    let mut weight = match n.opt(2) {
        Some(w) => {
            let flat = safe.reshape_to(name, &[safe.numel()])?;
            if w.shape() != [classes] {
                return Err(n.wrong(format!("weights {:?} for {classes} classes", w.shape())));
            }
            w.index_select(0, &flat)?.reshape_to(name, safe.shape())?
        }
        None => picked.full_like(1)?,
    };
    if let Some(c) = &counted {
        weight = c.where_(&weight, &weight.full_like(0)?)?;
    }
    let each = picked.mul(&weight)?;
    match n.text("reduction", "mean").as_str() {
        "none" => Ok(each),
        "sum" => each.sum(&[], false),
        // The mean by weight.
        "mean" => each.sum(&[], false)?.div(weight.sum(&[], false)?),
        other => Err(n.wrong(format!("reduction {other:?}"))),
    }
}
