//! Elements that an importer needs: sizes, axes and indices that shapes follow from.
//!
//! What follows from constants alone is evaluated by the interpreter of tensor graphs, so that shape arithmetic needs
//! no C compiler.

use crate::error::{Error, Result};
use crate::tensor::storage::Storage;
use crate::tensor::{Leaves, State, Tensor, build_graph};
use rustc_hash::FxHashSet;
use std::cell::Cell;
use std::sync::Arc;
use winograph_ir::interp::Value as HostValue;
use winograph_ir::tensor::{Node, TensorOp};

/// Most elements that are computed while importing for one operand, those of all operations together: shapes follow from few.
/// Tables that are made while importing have at most so many entries, too.
pub(crate) const MAX_ELEMENTS: usize = 1 << 24;

/// Most elements that are looked at while importing one model, or computed for that: some seconds.
const MAX_FOLDED: usize = 1 << 26;

/// Elements as integers; floats are truncated.
pub(crate) fn ints(value: &HostValue) -> Vec<i64> {
    value.data.iter().map(|s| s.to_i64()).collect()
}

/// The elements of a tensor that depends on no argument, without compiling anything.
///
/// # Errors
/// [`Error::Unbound`] if it depends on an argument; more than [`MAX_ELEMENTS`] to compute, or more than [`MAX_FOLDED`] with those
/// that were `folded` before; what the interpreter refuses.
pub(crate) fn constant_value(op: &'static str, t: &Tensor, folded: &Cell<usize>) -> Result<HostValue> {
    if let State::Ready(data) = t.0.state() {
        count(op, t.numel(), folded)?;
        return Ok(HostValue::from_bytes(t.dtype(), t.shape(), data.bytes(op)?));
    }
    let (graph, constants) = build_graph(op, std::slice::from_ref(t), &[], Leaves::Constants)?;
    let sizes =
        |n: &Node| n.shape.iter().fold(1usize, |p, &s| p.saturating_mul(graph.ints.bounds(s).1.max(0) as usize));
    let work = graph.nodes().iter().map(sizes).fold(0usize, usize::saturating_add);
    if work > MAX_ELEMENTS {
        let cause = format!("{work} elements would have to be computed while importing, at most {MAX_ELEMENTS} are");
        return Err(Error::Execution { op, cause: cause.into() });
    }
    count(op, work, folded)?;
    let mut inputs = Vec::with_capacity(constants.len());
    for (slot, data) in constants.iter().enumerate() {
        let of_slot = |n: &&Node| matches!(n.op, TensorOp::Input { slot: s, .. } if s == slot);
        let Some(node) = graph.nodes().iter().find(of_slot) else { continue };
        let shape: Vec<usize> = node.shape.iter().map(|&s| graph.ints.bounds(s).1.max(0) as usize).collect();
        inputs.push(HostValue::from_bytes(node.dtype, &shape, data.bytes(op)?));
    }
    let failed = |cause: String| Error::Execution { op, cause: cause.into() };
    let mut values = winograph_ir::interp::tensor::run(&graph, &inputs, &[]).map_err(|e| failed(e.to_string()))?;
    let value = values.pop().ok_or_else(|| failed("the interpreter gave no value".into()))?;
    if let State::Ready(data) = to_tensor(&value)?.0.state() {
        t.0.set_ready(data);
    }
    Ok(value)
}

/// Counts elements that are looked at, or computed for that.
fn count(op: &'static str, elements: usize, folded: &Cell<usize>) -> Result<()> {
    folded.set(folded.get().saturating_add(elements));
    if folded.get() <= MAX_FOLDED {
        return Ok(());
    }
    let cause = format!(
        "with those before it {} elements are looked at while importing, at most {MAX_FOLDED} are",
        folded.get()
    );
    Err(Error::Execution { op, cause: cause.into() })
}

/// A tensor of elements on the host.
pub(crate) fn to_tensor(value: &HostValue) -> Result<Tensor> {
    let size = value.dtype.size();
    let mut data = Storage::zeroed(value.data.len() * size)?;
    for (out, s) in data.bytes_mut().chunks_exact_mut(size).zip(&value.data) {
        out.copy_from_slice(&s.bits().to_le_bytes()[..size]);
    }
    Ok(Tensor::ready(Arc::new(data), value.dtype, value.shape.clone()))
}

/// Which of `args` a tensor depends on, as a flag for each.
pub(crate) fn depends_on(t: &Tensor, args: &[&Tensor]) -> Vec<bool> {
    let mut found = vec![false; args.len()];
    let mut seen = FxHashSet::default();
    let mut stack = vec![t.clone()];
    // What was looked at stays alive, so that keys stay unique while another thread realizes a node.
    let mut held = Vec::new();
    while let Some(t) = stack.pop() {
        if !seen.insert(t.key()) {
            continue;
        }
        for (i, _) in args.iter().enumerate().filter(|(_, a)| a.key() == t.key()) {
            found[i] = true;
        }
        if let State::Lazy(op) = t.0.state() {
            op.for_each_child(|c| stack.push(c.clone()));
        }
        held.push(t);
    }
    found
}
