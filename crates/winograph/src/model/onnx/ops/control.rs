//! Operators with graphs inside, sequences and optional values.
//!
//! Branches are chosen and loops unrolled while importing: conditions and trip counts have to be known then, or
//! computed where the model runs operator by operator. There what an iteration gives is computed before the next one if its course
//! depends on data, so that all of them run one program.

use super::super::node::{Lowering, Node, one};
use super::movement::split_sizes;
use crate::error::Result;
use crate::model::{Value, host};
use crate::tensor::Tensor;
use winograph_ir::DType;

pub(super) fn find(op: &str) -> Option<Lowering> {
    Some(match op {
        "If" => branch,
        "Loop" => repeat,
        "Scan" => scan,
        "SequenceConstruct" => |n| Ok(vec![Value::Sequence(n.all()?.into_iter().cloned().collect())]),
        "SequenceEmpty" => |_| Ok(vec![Value::Sequence(vec![])]),
        "SequenceInsert" => insert,
        "SequenceErase" => erase,
        "SequenceAt" => at,
        "SequenceLength" => |n| one(Tensor::scalar(sequence(n, 0)?.len() as i64)),
        "SequenceMap" => map,
        "ConcatFromSequence" => concat,
        "SplitToSequence" => split,
        "Optional" => |n| Ok(vec![n.inputs.first().cloned().unwrap_or_default()]),
        "OptionalGetElement" => get,
        "OptionalHasElement" => has,
        _ => return None,
    })
}

fn sequence<'a>(n: &'a Node<'_>, i: usize) -> Result<&'a [Tensor]> {
    match n.inputs.get(i) {
        Some(Value::Sequence(list)) => Ok(list),
        _ => Err(n.wrong(format!("input {i} is not a sequence"))),
    }
}

/// The truth value of an operand, while importing.
fn known(n: &Node<'_>, t: &Tensor, from_data: bool) -> Result<bool> {
    n.host_from(t, from_data)?.data.first().map(|s| s.to_bool()).ok_or_else(|| n.wrong("a condition without elements"))
}

fn branch(n: &Node<'_>) -> Result<Vec<Value>> {
    let chosen = if known(n, n.x(0)?, n.depends_on_data(0))? { "then_branch" } else { "else_branch" };
    let results = n.importer.graph(n.graph(chosen)?, vec![], n)?;
    Ok(results.into_iter().map(|(value, _)| value).collect())
}

/// Computes all that an iteration gave if its course depended on data, or if `condition` is its first result and does. So what the
/// next iteration looks at is a program from there, which is the same as this one's, and not a longer one from the start.
fn settle(n: &Node<'_>, looked: usize, outputs: &[(Value, bool)], condition: bool) -> Result<()> {
    if let Some((Value::Tensor(t), true)) = outputs.first()
        && condition
        && n.is_eager()
        && !t.is_realized()
    {
        n.importer.look();
    }
    if n.importer.looked() == looked {
        return Ok(());
    }
    Tensor::realize_all(&outputs.iter().flat_map(|(value, _)| value.tensors()).collect::<Vec<_>>())
}

/// The values that a loop carries and whose elements its condition depends on, where these are known while importing.
#[derive(Default)]
struct Counters(Vec<bool>);

impl Counters {
    /// Evaluates what these values are after an iteration, so that those of the next one follow from them and not from the first.
    /// `before` are the values that the iteration was given, `outputs` the condition and their next ones.
    fn advance(&mut self, n: &Node<'_>, before: &[Value], outputs: &[(Value, bool)]) {
        let Some(((Value::Tensor(condition), false), after)) = outputs.split_first() else { return };
        if condition.is_realized() || condition.full_value().is_some() {
            return;
        }
        self.0.resize(before.len(), false);
        let none = Tensor::scalar(false);
        let given: Vec<&Tensor> = before.iter().map(|v| v.tensor().unwrap_or(&none)).collect();
        let after = || after.iter().map(|(value, from_data)| value.tensor().filter(|_| !from_data));
        let mut found = host::depends_on(condition, &given);
        for (t, _) in after().zip(&self.0).filter(|(_, counts)| **counts) {
            let of_it = t.map_or(vec![], |t| host::depends_on(t, &given));
            found.iter_mut().zip(of_it).for_each(|(flag, more)| *flag |= more);
        }
        for ((t, counts), found) in after().zip(&mut self.0).zip(found) {
            *counts |= found;
            if let Some(t) = t.filter(|t| *counts && !t.is_realized()) {
                // What cannot be evaluated stays as it is: the condition says why, if it cannot be either.
                let _ = n.fold(t);
            }
        }
    }
}

fn repeat(n: &Node<'_>) -> Result<Vec<Value>> {
    let body = n.graph("body")?;
    let most = n.host_ints(0)?.and_then(|m| m.first().copied()).unwrap_or(i64::MAX);
    let mut condition = match n.opt(1) {
        Some(t) => known(n, t, n.depends_on_data(1))?,
        None => true,
    };
    let mut state: Vec<(Value, bool)> = n.inputs.iter().cloned().zip(n.data.iter().copied()).skip(2).collect();
    let count = state.len();
    let kept = body.output.len().checked_sub(1 + count);
    let kept = kept.ok_or_else(|| n.wrong("its body has fewer outputs than the loop carries values"))?;
    let mut scanned: Vec<Vec<Tensor>> = vec![vec![]; kept];
    let mut counters = Counters::default();
    let mut i = 0;
    while condition && i < most {
        n.step()?;
        let first = [Tensor::scalar(i), Tensor::scalar(true)];
        let mut inputs: Vec<(Value, bool)> = first.map(|t| (t.into(), false)).into();
        let before: Vec<Value> = state.iter().map(|(value, _)| value.clone()).collect();
        inputs.append(&mut state);
        let looked = n.importer.looked();
        let outputs = n.importer.graph(body, inputs, n)?;
        settle(n, looked, &outputs, true)?;
        counters.advance(n, &before, &outputs);
        if let Some((Value::Tensor(t), from_data)) = outputs.first() {
            condition = known(n, t, *from_data)?;
        }
        let mut outputs = outputs.into_iter().skip(1);
        state = outputs.by_ref().take(count).collect();
        for (list, (value, _)) in scanned.iter_mut().zip(outputs) {
            let Value::Tensor(t) = value else { return Err(n.wrong("a scanned value that is not a tensor")) };
            list.push(t);
        }
        i += 1;
    }
    let mut results: Vec<Value> = state.into_iter().map(|(value, _)| value).collect();
    for (list, output) in scanned.into_iter().zip(&body.output[1 + count..]) {
        if list.is_empty() {
            // Nothing was scanned: the dtype and shape are those that the body declares.
            let declared = output.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
            let dtype = declared.map_or(Ok(DType::F32), |t| n.dtype_of(t.elem_type as i64))?;
            let mut shape = vec![0];
            let dims = declared.and_then(|t| t.shape.as_ref()).map_or(&[][..], |s| &s.dim);
            shape.extend(dims.iter().map(|d| d.dim_value.and_then(|v| usize::try_from(v).ok()).unwrap_or(0)));
            results.push(Tensor::zeros(&shape, dtype)?.into());
        } else {
            results.push(Tensor::stack(&list.iter().collect::<Vec<_>>(), 0)?.into());
        }
    }
    Ok(results)
}

fn scan(n: &Node<'_>) -> Result<Vec<Value>> {
    let body = n.graph("body")?;
    let scans = usize::try_from(n.int("num_scan_inputs", 0)).unwrap_or(0);
    // Opset 8 has a batch axis in front of everything and sequence lengths as first input.
    let batched = n.opset < 9;
    if !batched {
        return scan_one(n, n.all()?.into_iter().cloned().zip(n.data.iter().copied()).collect(), scans);
    }
    if n.opt(0).is_some() {
        return Err(n.unsupported("sequence lengths"));
    }
    let inputs: Vec<(&Tensor, bool)> =
        (1..n.inputs.len()).map(|i| Ok((n.x(i)?, n.depends_on_data(i)))).collect::<Result<_>>()?;
    let batch = inputs.first().and_then(|(t, _)| t.shape().first().copied()).unwrap_or(0);
    let mut results: Vec<Vec<Tensor>> = vec![vec![]; body.output.len()];
    for b in 0..batch {
        let one = inputs.iter().map(|(t, data)| Ok((t.select(0, b as isize)?, *data))).collect::<Result<Vec<_>>>()?;
        for (list, value) in results.iter_mut().zip(scan_one(n, one, scans)?) {
            list.extend(value.tensors().first().cloned());
        }
    }
    results.iter().map(|list| Ok(Tensor::stack(&list.iter().collect::<Vec<_>>(), 0)?.into())).collect()
}

fn scan_one(n: &Node<'_>, inputs: Vec<(Tensor, bool)>, scans: usize) -> Result<Vec<Value>> {
    let body = n.graph("body")?;
    let states = inputs.len().checked_sub(scans).ok_or_else(|| n.wrong("fewer inputs than it scans"))?;
    let list = |name: &str, i: usize| n.ints(name).and_then(|l| l.get(i).copied()).unwrap_or(0);
    let mut state: Vec<(Value, bool)> = inputs[..states].iter().map(|(t, data)| (t.clone().into(), *data)).collect();
    let mut scanned = Vec::with_capacity(scans);
    for (i, (t, data)) in inputs[states..].iter().enumerate() {
        let axis = n.axis(list("scan_input_axes", i), t.rank())?;
        scanned.push((t, *data, axis, list("scan_input_directions", i) != 0));
    }
    let steps = scanned.first().map_or(0, |(t, _, axis, _)| t.shape()[*axis]);
    if scanned.iter().any(|(t, _, axis, _)| t.shape()[*axis] != steps) || body.output.len() < states {
        return Err(n.wrong("scanned inputs of different lengths, or too few outputs of its body"));
    }
    let mut collected: Vec<Vec<Tensor>> = vec![vec![]; body.output.len() - states];
    for s in 0..steps {
        n.step()?;
        let mut inputs = std::mem::take(&mut state);
        for (t, data, axis, backwards) in &scanned {
            let at = if *backwards { steps - 1 - s } else { s };
            inputs.push((t.select(*axis as isize, at as isize)?.into(), *data));
        }
        let looked = n.importer.looked();
        let outputs = n.importer.graph(body, inputs, n)?;
        settle(n, looked, &outputs, false)?;
        let mut outputs = outputs.into_iter();
        state = outputs.by_ref().take(states).collect();
        for (list, (value, _)) in collected.iter_mut().zip(outputs) {
            list.extend(value.tensors().first().cloned());
        }
    }
    let mut results: Vec<Value> = state.into_iter().map(|(value, _)| value).collect();
    for (i, mut list_of) in collected.into_iter().enumerate() {
        if list("scan_output_directions", i) != 0 {
            list_of.reverse();
        }
        let Some(first) = list_of.first() else { return Err(n.unsupported("a scan of nothing")) };
        let axis = n.axis(list("scan_output_axes", i), first.rank() + 1)?;
        results.push(Tensor::stack(&list_of.iter().collect::<Vec<_>>(), axis as isize)?.into());
    }
    Ok(results)
}

/// A place in a list of `len`, of which there may be one more than elements.
fn place(n: &Node<'_>, i: usize, len: usize, default: usize, last: usize) -> Result<usize> {
    let Some(list) = n.host_ints(i)? else { return Ok(default) };
    let at = list.first().copied().unwrap_or(0);
    let from_front = if at < 0 { at + len as i64 } else { at };
    let found = usize::try_from(from_front).ok().filter(|&p| p <= last);
    found.ok_or_else(|| n.wrong(format!("place {at} in a sequence of {len}")))
}

/// What a tensor more in a copy of a sequence counts as: the copies live as long as the import.
const COPY_WORK: u64 = 512;

/// A copy of the sequence that a node changes.
fn copied(n: &Node<'_>) -> Result<Vec<Tensor>> {
    let list = sequence(n, 0)?;
    n.host_work(list.len(), COPY_WORK)?;
    Ok(list.to_vec())
}

fn insert(n: &Node<'_>) -> Result<Vec<Value>> {
    let mut list = copied(n)?;
    let at = place(n, 2, list.len(), list.len(), list.len())?;
    list.insert(at, n.x(1)?.clone());
    Ok(vec![Value::Sequence(list)])
}

fn erase(n: &Node<'_>) -> Result<Vec<Value>> {
    let mut list = copied(n)?;
    let last = list.len().checked_sub(1).ok_or_else(|| n.wrong("the sequence is empty"))?;
    let at = place(n, 1, list.len(), last, last)?;
    list.remove(at);
    Ok(vec![Value::Sequence(list)])
}

fn at(n: &Node<'_>) -> Result<Vec<Value>> {
    let list = sequence(n, 0)?;
    let last = list.len().checked_sub(1).ok_or_else(|| n.wrong("the sequence is empty"))?;
    let at = place(n, 1, list.len(), last, last)?;
    one(list[at].clone())
}

fn map(n: &Node<'_>) -> Result<Vec<Value>> {
    let body = n.graph("body")?;
    let first = sequence(n, 0)?.to_vec();
    let mut results: Vec<Vec<Tensor>> = vec![vec![]; body.output.len()];
    for (i, t) in first.iter().enumerate() {
        n.step()?;
        let mut inputs = vec![(Value::Tensor(t.clone()), n.depends_on_data(0))];
        for (other, data) in n.inputs.iter().zip(&n.data).skip(1) {
            let value = match other {
                Value::Sequence(list) => {
                    list.get(i).cloned().ok_or_else(|| n.wrong("sequences of different lengths"))?.into()
                }
                value => value.clone(),
            };
            inputs.push((value, *data));
        }
        for (list, (value, _)) in results.iter_mut().zip(n.importer.graph(body, inputs, n)?) {
            list.extend(value.tensors().first().cloned());
        }
    }
    Ok(results.into_iter().map(Value::Sequence).collect())
}

fn concat(n: &Node<'_>) -> Result<Vec<Value>> {
    let list: Vec<&Tensor> = sequence(n, 0)?.iter().collect();
    let axis = n.int("axis", 0) as isize;
    one(if n.flag("new_axis") { Tensor::stack(&list, axis)? } else { Tensor::cat(&list, axis)? })
}

fn split(n: &Node<'_>) -> Result<Vec<Value>> {
    let x = n.x(0)?;
    let axis = n.axis(n.int("axis", 0), x.rank())?;
    let size = x.shape()[axis];
    let given = n.host_ints(1)?;
    let whole = n.opt(1).is_some_and(|t| t.rank() == 0);
    let sizes = match given {
        // One number: parts of that size, the last one smaller.
        Some(list) if whole => {
            let each = list.first().and_then(|&s| usize::try_from(s).ok()).filter(|&s| s > 0);
            let each = each.ok_or_else(|| n.wrong("parts have to be of positive size"))?;
            n.table(size.div_ceil(each))?;
            (0..size.div_ceil(each)).map(|i| each.min(size - i * each)).collect()
        }
        given => {
            n.table(size)?;
            split_sizes(n, given, size, size)?
        }
    };
    let single = n.opt(1).is_none();
    let mut start = 0;
    let mut parts = Vec::with_capacity(sizes.len());
    for part in sizes {
        n.step()?;
        let t = x.narrow(axis as isize, start, part)?;
        start += part;
        parts.push(if single && n.int("keepdims", 1) == 0 { t.squeeze(&[axis as isize])? } else { t });
    }
    Ok(vec![Value::Sequence(parts)])
}

fn get(n: &Node<'_>) -> Result<Vec<Value>> {
    match n.inputs.first() {
        None | Some(Value::None) => Err(n.wrong("the value is missing")),
        Some(value) => Ok(vec![value.clone()]),
    }
}

fn has(n: &Node<'_>) -> Result<Vec<Value>> {
    one(Tensor::scalar(!matches!(n.inputs.first(), None | Some(Value::None))))
}
