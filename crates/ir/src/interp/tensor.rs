//! Interprets a tensor graph on concrete inputs: the reference for everything that compiles it.
//!
//! Movement operations are views; a product that a fused sum reads is never materialised.

use super::machine::tree;
use super::{InterpError, MAX_BYTES, Value, check_params, element_count, malformed};
use crate::int::IntId;
use crate::op::apply_fma;
use crate::tensor::{NodeId, TensorGraph, TensorOp};
use crate::{BinaryOp, DType, ReduceOp, Scalar, SumOrder};
use std::rc::Rc;

/// Computes the graph's outputs, in order, from its inputs by slot.
///
/// Sums run sequentially over the flattened reduced axes, row-major and from the identity, but for those that ask for
/// a tree; where one may fuse and sums a product, each step is a fused multiply-add. Half floats accumulate in `f32`
/// and round at the end.
///
/// # Errors
/// A malformed graph, inputs or parameters that do not fit it.
pub fn run(graph: &TensorGraph, inputs: &[Value], params: &[i64]) -> Result<Vec<Value>, InterpError> {
    check_params(&graph.ints, params)?;
    for (slot, v) in inputs.iter().enumerate() {
        v.check(&format!("input {slot}"))?;
    }
    let mut run = Run { g: graph, inputs, params, done: vec![None; graph.nodes().len()] };
    for n in run.needed()? {
        let view = run.node(n)?;
        run.done[n.0 as usize] = Some(view);
    }
    graph.outputs.iter().map(|&o| Ok(run.get(o)?.to_value())).collect()
}

/// Elements of a tensor by strides into shared data.
#[derive(Clone)]
struct View {
    data: Rc<Vec<Scalar>>,
    dtype: DType,
    shape: Vec<usize>,
    strides: Vec<isize>,
    offset: isize,
}

impl View {
    fn new(dtype: DType, shape: &[usize], data: Vec<Scalar>) -> View {
        View { data: Rc::new(data), dtype, shape: shape.to_vec(), strides: row_major(shape), offset: 0 }
    }

    fn to_value(&self) -> Value {
        Value { dtype: self.dtype, shape: self.shape.clone(), data: self.collect() }
    }

    fn collect(&self) -> Vec<Scalar> {
        let mut out = Vec::with_capacity(count(&self.shape));
        self.for_each(|s| out.push(s));
        out
    }

    fn at(&self, place: isize) -> Scalar {
        // Views never leave their data: every constructor checks its bounds.
        usize::try_from(place).ok().and_then(|p| self.data.get(p)).copied().unwrap_or(Scalar::zero(self.dtype))
    }

    fn for_each(&self, mut f: impl FnMut(Scalar)) {
        walk(&self.shape, [&self.strides], [self.offset], |[p]| f(self.at(p)));
    }

    fn is_row_major(&self) -> bool {
        self.offset == 0 && self.strides == row_major(&self.shape) && self.data.len() == count(&self.shape)
    }
}

/// The number of elements of a shape that is known to be small enough.
fn count(shape: &[usize]) -> usize {
    element_count(shape).unwrap_or(0)
}

fn row_major(shape: &[usize]) -> Vec<isize> {
    let mut out = vec![0; shape.len()];
    let mut stride = 1isize;
    for (s, &n) in out.iter_mut().zip(shape).rev() {
        *s = stride;
        stride = stride.saturating_mul(n as isize);
    }
    out
}

/// Calls `f` with the places of each element in row-major order, in several arrays of one shape at once.
fn walk<const N: usize>(shape: &[usize], strides: [&[isize]; N], mut at: [isize; N], mut f: impl FnMut([isize; N])) {
    if shape.contains(&0) {
        return;
    }
    let mut index = vec![0usize; shape.len()];
    loop {
        f(at);
        let mut axis = shape.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            index[axis] += 1;
            if index[axis] < shape[axis] {
                at.iter_mut().zip(strides).for_each(|(p, s)| *p += s[axis]);
                break;
            }
            let back = index[axis] as isize - 1;
            at.iter_mut().zip(strides).for_each(|(p, s)| *p -= s[axis] * back);
            index[axis] = 0;
        }
    }
}

struct Run<'a> {
    g: &'a TensorGraph,
    inputs: &'a [Value],
    params: &'a [i64],
    done: Vec<Option<View>>,
}

impl Run<'_> {
    fn op(&self, n: NodeId) -> Result<&TensorOp<NodeId>, InterpError> {
        match self.g.nodes().get(n.0 as usize) {
            Some(node) => Ok(&node.op),
            None => Err(malformed("graph", format!("{n:?} does not exist"))),
        }
    }

    /// The operands of a product that the reduction `op` fuses into its sum.
    fn fused(&self, op: &TensorOp<NodeId>) -> Option<(NodeId, NodeId)> {
        let TensorOp::Reduce { op: ReduceOp::Add, x, fused: true, order, .. } = op else { return None };
        match self.g.nodes().get(x.0 as usize)?.op {
            TensorOp::Binary { op: BinaryOp::Mul, a, b } if *order != SumOrder::Tree => Some((a, b)),
            _ => None,
        }
    }

    fn operands(&self, op: &TensorOp<NodeId>) -> Vec<NodeId> {
        if let Some((a, b)) = self.fused(op) {
            return vec![a, b];
        }
        let mut out = Vec::new();
        op.for_each_child(|c| out.push(*c));
        out
    }

    /// The nodes that the outputs are made of, operands first.
    fn needed(&self) -> Result<Vec<NodeId>, InterpError> {
        let mut needed = vec![false; self.g.nodes().len()];
        let mut stack = self.g.outputs.clone();
        while let Some(n) = stack.pop() {
            let operands = self.operands(self.op(n)?);
            if !std::mem::replace(&mut needed[n.0 as usize], true) {
                if operands.iter().any(|c| c.0 >= n.0) {
                    return Err(malformed("graph", format!("{n:?} comes before an operand")));
                }
                stack.extend(operands);
            }
        }
        Ok(needed.iter().enumerate().filter(|(_, used)| **used).map(|(i, _)| NodeId(i as u32)).collect())
    }

    fn get(&self, n: NodeId) -> Result<View, InterpError> {
        match self.done.get(n.0 as usize) {
            Some(Some(v)) => Ok(v.clone()),
            _ => Err(malformed("graph", format!("{n:?} is not computed"))),
        }
    }

    fn size(&self, e: IntId) -> Result<usize, InterpError> {
        let ints = &self.g.ints;
        let no = || InterpError::NoInteger { place: "a size".to_string() };
        if !ints.contains(e) || !ints.free_ranges(e).is_empty() {
            return Err(no());
        }
        let size = ints.eval(e, &|_| 0, &|p| self.params.get(p.0 as usize).copied().unwrap_or(0)).ok_or_else(no)?;
        usize::try_from(size).map_err(|_| malformed("graph", format!("a size is {size}")))
    }

    fn sizes(&self, sizes: &[IntId]) -> Result<Vec<usize>, InterpError> {
        let shape: Vec<usize> = sizes.iter().map(|&s| self.size(s)).collect::<Result<_, _>>()?;
        match element_count(&shape).and_then(|n| n.checked_mul(size_of::<Scalar>())) {
            Some(bytes) if bytes <= MAX_BYTES => Ok(shape),
            _ => Err(malformed("graph", format!("shape {shape:?} is too large"))),
        }
    }

    fn node(&self, n: NodeId) -> Result<View, InterpError> {
        let bad = |why: String| malformed(&format!("node {}", n.0), why);
        let op = self.op(n)?;
        let mut x = Vec::new();
        for c in self.operands(op) {
            x.push(self.get(c)?);
        }
        let wrong = || bad("operands do not fit".to_string());
        match op {
            TensorOp::Input { slot, dtype, shape } => {
                let shape = self.sizes(shape)?;
                match self.inputs.get(*slot) {
                    Some(v) if v.dtype == *dtype && v.shape == shape => Ok(View::new(*dtype, &shape, v.data.clone())),
                    Some(v) => Err(bad(format!("input {slot} is {}{:?}, not {dtype}{shape:?}", v.dtype, v.shape))),
                    None => Err(bad(format!("input {slot} is missing"))),
                }
            }
            TensorOp::Full { value, shape } => {
                let shape = self.sizes(shape)?;
                let strides = vec![0; shape.len()];
                Ok(View { data: Rc::new(vec![*value]), dtype: value.dtype(), shape, strides, offset: 0 })
            }
            TensorOp::Table { values, dtype, shape } => {
                let v = Value { dtype: *dtype, shape: shape.clone(), data: values.clone() };
                v.check("table")?;
                Ok(View::new(*dtype, shape, v.data))
            }
            TensorOp::Iota { dtype, shape, axis } => {
                let shape = self.sizes(shape)?;
                let &size = shape.get(*axis).ok_or_else(wrong)?;
                let data = (0..size).map(|i| Scalar::from_i64(*dtype, i as i64)).collect();
                let strides = (0..shape.len()).map(|a| (a == *axis) as isize).collect();
                Ok(View { data: Rc::new(data), dtype: *dtype, shape, strides, offset: 0 })
            }
            TensorOp::Unary { op, .. } => Ok(map(x.first().ok_or_else(wrong)?, None, |s| op.apply(s))),
            TensorOp::Cast { dtype, .. } => Ok(map(x.first().ok_or_else(wrong)?, Some(*dtype), |s| s.cast(*dtype))),
            TensorOp::Contiguous { .. } => x.pop().ok_or_else(wrong),
            TensorOp::Binary { op, .. } => match &x[..] {
                [a, b] if a.shape == b.shape && a.dtype == b.dtype => {
                    let mut data = Vec::with_capacity(count(&a.shape));
                    walk(&a.shape, [&a.strides, &b.strides], [a.offset, b.offset], |[p, q]| {
                        data.push(op.apply(a.at(p), b.at(q)));
                    });
                    Ok(View::new(op.result(a.dtype), &a.shape, data))
                }
                _ => Err(wrong()),
            },
            TensorOp::Where { .. } => match &x[..] {
                [c, a, b] if a.shape == b.shape && a.shape == c.shape && a.dtype == b.dtype => {
                    let mut data = Vec::with_capacity(count(&a.shape));
                    walk(
                        &a.shape,
                        [&c.strides, &a.strides, &b.strides],
                        [c.offset, a.offset, b.offset],
                        |[r, p, q]| {
                            data.push(if c.at(r).to_bool() { a.at(p) } else { b.at(q) });
                        },
                    );
                    Ok(View::new(a.dtype, &a.shape, data))
                }
                _ => Err(wrong()),
            },
            TensorOp::Reduce { op: how, axes, order, .. } => match &x[..] {
                [a] => reduce(*how, *order, a, None, axes).ok_or_else(wrong),
                [a, b] if a.shape == b.shape && a.dtype == b.dtype => {
                    reduce(*how, *order, a, Some(b), axes).ok_or_else(wrong)
                }
                _ => Err(wrong()),
            },
            TensorOp::Cat { axis, .. } => cat(&x, *axis).ok_or_else(wrong),
            TensorOp::Gather { axis, .. } => match &x[..] {
                [x, index] => gather(x, *axis, index).ok_or_else(wrong),
                _ => Err(wrong()),
            },
            _ => self.movement(op, x.pop().ok_or_else(wrong)?)?.ok_or_else(wrong),
        }
    }

    /// Movement operations; `None` where the operand does not fit.
    fn movement(&self, op: &TensorOp<NodeId>, mut x: View) -> Result<Option<View>, InterpError> {
        let rank = x.shape.len();
        match op {
            TensorOp::Reshape { shape, .. } => {
                let shape = self.sizes(shape)?;
                if element_count(&shape) != element_count(&x.shape) {
                    return Ok(None);
                }
                if x.is_row_major() {
                    return Ok(Some(View { strides: row_major(&shape), shape, ..x }));
                }
                Ok(Some(View::new(x.dtype, &shape, x.collect())))
            }
            TensorOp::Permute { order, .. } => {
                let mut seen = vec![false; rank];
                order.iter().for_each(|&o| seen.get_mut(o).into_iter().for_each(|s| *s = true));
                if order.len() != rank || seen.contains(&false) {
                    return Ok(None);
                }
                let shape = order.iter().map(|&o| x.shape[o]).collect();
                let strides = order.iter().map(|&o| x.strides[o]).collect();
                Ok(Some(View { shape, strides, ..x }))
            }
            TensorOp::Expand { shape, .. } => {
                let shape = self.sizes(shape)?;
                if shape.len() != rank {
                    return Ok(None);
                }
                for (axis, &n) in shape.iter().enumerate() {
                    match x.shape[axis] {
                        m if m == n => {}
                        1 => x.strides[axis] = 0,
                        _ => return Ok(None),
                    }
                }
                Ok(Some(View { shape, ..x }))
            }
            TensorOp::Pad { before, after, value, .. } => {
                let (before, after) = (self.sizes(before)?, self.sizes(after)?);
                if before.len() != rank || after.len() != rank || value.dtype() != x.dtype {
                    return Ok(None);
                }
                let shape: Vec<usize> = (0..rank).map(|a| before[a] + x.shape[a] + after[a]).collect();
                let Some(n) = element_count(&shape).filter(|&n| n <= MAX_BYTES / size_of::<Scalar>()) else {
                    return Ok(None);
                };
                let mut data = vec![*value; n];
                let strides = row_major(&shape);
                let first = before.iter().zip(&strides).map(|(&b, &s)| b as isize * s).sum();
                walk(&x.shape, [&x.strides, &strides], [x.offset, first], |[p, q]| data[q as usize] = x.at(p));
                Ok(Some(View::new(x.dtype, &shape, data)))
            }
            TensorOp::Slice { start, step, size, .. } => {
                let (start, size) = (self.sizes(start)?, self.sizes(size)?);
                if start.len() != rank || step.len() != rank || size.len() != rank {
                    return Ok(None);
                }
                for axis in 0..rank {
                    if size[axis] > 0 {
                        let last = step[axis]
                            .checked_mul(size[axis] as i64 - 1)
                            .and_then(|d| d.checked_add(start[axis] as i64));
                        if start[axis] >= x.shape[axis] || last.is_none_or(|l| l < 0 || l >= x.shape[axis] as i64) {
                            return Ok(None);
                        }
                        x.offset += start[axis] as isize * x.strides[axis];
                        // One element takes no step, however far.
                        x.strides[axis] *= if size[axis] > 1 { step[axis] as isize } else { 1 };
                    }
                }
                Ok(Some(View { shape: size, ..x }))
            }
            TensorOp::Unfold { axis, size, stride, dilation, .. } => {
                let span = size.checked_sub(1).and_then(|n| n.checked_mul(*dilation)).and_then(|n| n.checked_add(1));
                let (Some(&n), Some(span)) = (x.shape.get(*axis), span) else { return Ok(None) };
                if *stride == 0 || *dilation == 0 || span > n {
                    // No window fits: at a distance of one stride before the first, the result is empty.
                    if *stride > 0 && *dilation > 0 && n + *stride >= span {
                        x.shape[*axis] = 0;
                        x.shape.push(*size);
                        x.strides.push(0);
                        return Ok(Some(x));
                    }
                    return Ok(None);
                }
                let tap = x.strides[*axis].saturating_mul(*dilation as isize);
                x.shape[*axis] = (n - span) / stride + 1;
                x.strides[*axis] = x.strides[*axis].saturating_mul(*stride as isize);
                x.shape.push(*size);
                x.strides.push(tap);
                Ok(Some(x))
            }
            _ => Ok(None),
        }
    }
}

fn map(x: &View, dtype: Option<DType>, f: impl Fn(Scalar) -> Scalar) -> View {
    let mut data = Vec::with_capacity(count(&x.shape));
    x.for_each(|s| data.push(f(s)));
    View::new(dtype.unwrap_or(x.dtype), &x.shape, data)
}

fn reduce(how: ReduceOp, order: SumOrder, a: &View, b: Option<&View>, axes: &[usize]) -> Option<View> {
    let rank = a.shape.len();
    if axes.iter().any(|&x| x >= rank) || axes.windows(2).any(|w| w[0] >= w[1]) {
        return None;
    }
    let b_or_a = b.unwrap_or(a);
    let part = |v: &[isize], reduced: bool| -> Vec<isize> {
        (0..rank).filter(|x| axes.contains(x) == reduced).map(|x| v[x]).collect()
    };
    let sizes = |reduced: bool| -> Vec<usize> {
        (0..rank).filter(|x| axes.contains(x) == reduced).map(|x| a.shape[x]).collect()
    };
    let (kept, summed) = (sizes(false), sizes(true));
    let [ka, kb, sa, sb] =
        [part(&a.strides, false), part(&b_or_a.strides, false), part(&a.strides, true), part(&b_or_a.strides, true)];
    let dtype = a.dtype.compute();
    let mut data = Vec::new();
    walk(&kept, [&ka, &kb], [a.offset, b_or_a.offset], |[p, q]| {
        let mut acc = how.identity(dtype);
        if order == SumOrder::Tree {
            let mut terms = Vec::new();
            walk(&summed, [&sa], [p], |[p]| terms.push(a.at(p).cast(dtype)));
            acc = tree(how, dtype, terms);
        } else if let Some(b) = b {
            walk(&summed, [&sa, &sb], [p, q], |[p, q]| {
                acc = apply_fma(a.at(p).cast(dtype), b.at(q).cast(dtype), acc);
            });
        } else {
            walk(&summed, [&sa], [p], |[p]| acc = how.combine().apply(acc, a.at(p).cast(dtype)));
        }
        data.push(acc.cast(a.dtype));
    });
    Some(View::new(a.dtype, &kept, data))
}

fn cat(parts: &[View], axis: usize) -> Option<View> {
    let first = parts.first()?;
    let mut shape = first.shape.clone();
    let total = parts.iter().try_fold(0usize, |n, p| n.checked_add(*p.shape.get(axis)?))?;
    *shape.get_mut(axis)? = total;
    let mut data = vec![Scalar::zero(first.dtype); element_count(&shape).filter(|&n| n <= MAX_BYTES)?];
    let strides = row_major(&shape);
    let mut start = 0;
    for p in parts {
        let others = |s: &[usize]| s.iter().enumerate().filter(|x| x.0 != axis).map(|x| *x.1).collect::<Vec<_>>();
        if p.dtype != first.dtype || p.shape.len() != shape.len() || others(&p.shape) != others(&shape) {
            return None;
        }
        let to = start as isize * strides[axis];
        walk(&p.shape, [&p.strides, &strides], [p.offset, to], |[from, to]| data[to as usize] = p.at(from));
        start += p.shape[axis];
    }
    Some(View::new(first.dtype, &shape, data))
}

fn gather(x: &View, axis: usize, index: &View) -> Option<View> {
    let fits =
        index.shape.contains(&0) || index.shape.iter().zip(&x.shape).enumerate().all(|(a, (i, n))| a == axis || i <= n);
    if axis >= x.shape.len() || index.shape.len() != x.shape.len() || !fits || !index.dtype.is_int() {
        return None;
    }
    let last = x.shape[axis] as i64 - 1;
    if last < 0 && !index.shape.contains(&0) {
        return None;
    }
    let mut strides = x.strides.clone();
    let step = std::mem::take(&mut strides[axis]);
    let mut data = Vec::with_capacity(count(&index.shape));
    walk(&index.shape, [&strides, &index.strides], [x.offset, index.offset], |[p, i]| {
        data.push(x.at(p + index.at(i).to_i64().min(last).max(0) as isize * step));
    });
    Some(View::new(x.dtype, &index.shape, data))
}
