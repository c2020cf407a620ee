//! What parts of a result depend on: boxes of indices, followed through the operations of a graph backwards.
//!
//! Boxes are not cut at the borders of tensors: a convolution with padding asks for rows before the first. How far they
//! stick out is how far a part cut out of a picture is spoiled by its edges.

use crate::error::{Error, Result};
use crate::tensor::{State, Tensor};
use rustc_hash::FxHashMap;
use winograph_ir::tensor::TensorOp;

/// For each axis the first index and the one after the last; nothing where it is empty.
pub(crate) type Span = (i64, i64);

fn hull(a: Span, b: Span) -> Span {
    (a.0.min(b.0), a.1.max(b.1))
}

fn whole(size: usize) -> Span {
    (0, size as i64)
}

/// What a box of a result depends on.
#[derive(Debug, PartialEq)]
pub(crate) struct Needs {
    /// The box of the input; `None` if it does not depend on it.
    pub(crate) input: Option<Vec<Span>>,
    /// Boxes of what differs from place to place and is no input: weights, ramps, tables.
    pub(crate) constants: Vec<(usize, Vec<Span>)>,
    /// Which borders it reaches: for each operation that adds elements on an axis, by the operation's place, the axis and the
    /// part that is reached.
    pub(crate) borders: Vec<(usize, usize, usize)>,
}

/// Boxes of one constant in two graphs, by its place, and whether they have the same elements.
pub(crate) type Known = FxHashMap<(usize, Vec<Span>, Vec<Span>), bool>;

/// A graph in the order in which boxes go through it.
pub(crate) struct Field {
    /// Results before operands.
    order: Vec<Tensor>,
    place: FxHashMap<usize, usize>,
}

impl Field {
    /// The graph that computes `output`.
    pub(crate) fn new(output: &Tensor) -> Field {
        // Post-order, without recursion.
        let mut order: Vec<Tensor> = Vec::new();
        let mut place = FxHashMap::default();
        let mut stack = vec![(output.clone(), false)];
        while let Some((t, done)) = stack.pop() {
            if place.contains_key(&t.key()) {
                continue;
            }
            let State::Lazy(op) = t.0.state() else {
                place.insert(t.key(), order.len());
                order.push(t);
                continue;
            };
            if done {
                place.insert(t.key(), order.len());
                order.push(t);
            } else {
                stack.push((t.clone(), true));
                op.for_each_child(|c| stack.push((c.clone(), false)));
            }
        }
        order.reverse();
        let last = order.len().saturating_sub(1);
        place.values_mut().for_each(|p| *p = last - *p);
        Field { order, place }
    }

    /// Whether another graph has the same operations, sizes aside.
    pub(crate) fn same_operations(&self, other: &Field) -> bool {
        let op = |field: &Field, t: &Tensor| match t.0.state() {
            State::Lazy(op) => Some(op.map(|c| field.place.get(&c.key()).copied(), |_| ())),
            _ => None,
        };
        let same = |(t, u): (&Tensor, &Tensor)| t.dtype() == u.dtype() && op(self, t) == op(other, u);
        self.order.len() == other.order.len() && self.order.iter().zip(&other.order).all(same)
    }

    /// What a box of the result depends on.
    ///
    /// # Errors
    /// An operation whose dependences are not known.
    pub(crate) fn needs(&self, wanted: &[Span], input: &Tensor) -> Result<Needs> {
        let mut boxes: Vec<Option<Vec<Span>>> = vec![None; self.order.len()];
        if let Some(first) = boxes.first_mut() {
            *first = Some(wanted.to_vec());
        }
        let mut needs = Needs { input: None, constants: vec![], borders: vec![] };
        for (i, t) in self.order.iter().enumerate() {
            let Some(of) = boxes[i].take() else { continue };
            if t.key() == input.key() {
                needs.input = Some(of);
                continue;
            }
            let State::Lazy(op) = t.0.state() else {
                needs.constants.push((i, of));
                continue;
            };
            match &*op {
                TensorOp::Iota { .. } | TensorOp::Table { .. } | TensorOp::Input { .. } => {
                    needs.constants.push((i, of));
                    continue;
                }
                // One number everywhere, and others around it: how far it reaches beyond.
                TensorOp::Full { .. } => {
                    let beyond = |(&s, &size): (&Span, &usize)| (s.0.min(0), (s.1 - size as i64).max(0));
                    needs.constants.push((i, of.iter().zip(t.shape()).map(beyond).collect()));
                    continue;
                }
                TensorOp::Pad { x, before, .. } => {
                    for (axis, ((s, &before), &size)) in of.iter().zip(before).zip(x.shape()).enumerate() {
                        let (before, size) = (before as i64, size as i64);
                        let beyond = [s.0 < before, s.1 > before + size];
                        let reached = (0..2).filter(|&side| beyond[side]).map(|side| (i, axis, side));
                        needs.borders.extend(reached);
                    }
                }
                TensorOp::Cat { parts, axis } => {
                    let (mut at, last) = (0, parts.len() - 1);
                    for (part, x) in parts.iter().enumerate() {
                        let end = at + x.shape()[*axis] as i64;
                        if (part == 0 || of[*axis].1 > at) && (part == last || of[*axis].0 < end) {
                            needs.borders.push((i, *axis, part));
                        }
                        at = end;
                    }
                }
                _ => {}
            }
            operands(&op, t, &of, &mut |child, part| {
                if part.iter().any(|s| s.0 >= s.1) {
                    return;
                }
                let Some(slot) = self.place.get(&child.key()).and_then(|&p| boxes.get_mut(p)) else { return };
                *slot = Some(match slot.take() {
                    Some(other) => other.iter().zip(&part).map(|(&a, &b)| hull(a, b)).collect(),
                    None => part,
                });
            })?;
        }
        Ok(needs)
    }

    /// Whether a box of this result and one of that of another graph, which the same model has made for another size, read the
    /// same numbers that are no input.
    /// What was found is kept in `known`, for these two graphs: rows read the same weights.
    pub(crate) fn same_constants_in(&self, a: &Needs, other: &Field, b: &Needs, known: &mut Known) -> Result<bool> {
        if a.constants.len() != b.constants.len() || self.order.len() != other.order.len() {
            return Ok(false);
        }
        for ((of, at), (to, there)) in a.constants.iter().zip(&b.constants) {
            let (Some(t), Some(u)) = (self.order.get(*of), other.order.get(*to)) else { return Ok(false) };
            if let Some(&same) = known.get(&(*of, at.clone(), there.clone())) {
                if same { continue } else { return Ok(false) }
            }
            let same = of == to
                && match (t.0.state(), u.0.state()) {
                    _ if t.key() == u.key() && at == there => true,
                    (State::Lazy(p), State::Lazy(q)) => at == there && number(&p, &q),
                    _ => elements(t, at)?.is_some_and(|e| elements(u, there).is_ok_and(|other| other == Some(e))),
                };
            known.insert((*of, at.clone(), there.clone()), same);
            if !same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether two boxes of the result read the same numbers that are no input: the same places, or others with equal
    /// elements.
    pub(crate) fn same_constants(&self, a: &Needs, b: &Needs) -> Result<bool> {
        if a.constants.len() != b.constants.len() {
            return Ok(false);
        }
        for ((of, at), (other, to)) in a.constants.iter().zip(&b.constants) {
            let same = of == other
                && match self.order.get(*of) {
                    _ if at == to => true,
                    Some(t) => elements(t, at)?.is_some_and(|e| elements(t, to).is_ok_and(|other| other == Some(e))),
                    None => false,
                };
            if !same {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The bytes of the elements in a box of a tensor that is in memory; what sticks out has none.
fn elements(t: &Tensor, of: &[Span]) -> Result<Option<Vec<u8>>> {
    if matches!(t.0.state(), State::Lazy(_)) {
        return Ok(None);
    }
    let data = t.data("tiles")?;
    let (bytes, size) = (data.bytes("tiles")?, t.dtype().size());
    let mut places = vec![0];
    for (&(from, to), &size) in of.iter().zip(t.shape()) {
        let inside = from.max(0)..to.min(size as i64);
        places = places.iter().flat_map(|p| inside.clone().map(move |i| p * size + i as usize)).collect();
    }
    Ok(Some(places.iter().flat_map(|p| bytes.get(p * size..(p + 1) * size).unwrap_or_default()).copied().collect()))
}

/// Whether two operations are one number everywhere, or count the places along one axis, in the same way.
fn number(a: &TensorOp<Tensor, usize>, b: &TensorOp<Tensor, usize>) -> bool {
    match (a, b) {
        (TensorOp::Full { value: a, .. }, TensorOp::Full { value: b, .. }) => {
            a.dtype() == b.dtype() && a.bits() == b.bits()
        }
        (TensorOp::Iota { axis: a, dtype: s, .. }, TensorOp::Iota { axis: b, dtype: t, .. }) => (a, s) == (b, t),
        _ => false,
    }
}

/// The boxes of an operation's operands.
fn operands(
    op: &TensorOp<Tensor, usize>,
    result: &Tensor,
    of: &[Span],
    give: &mut impl FnMut(&Tensor, Vec<Span>),
) -> Result<()> {
    match op {
        TensorOp::Input { .. } | TensorOp::Full { .. } | TensorOp::Table { .. } | TensorOp::Iota { .. } => {}
        TensorOp::Unary { x, .. } | TensorOp::Cast { x, .. } | TensorOp::Contiguous { x } => give(x, of.to_vec()),
        TensorOp::Binary { a, b, .. } => {
            give(a, of.to_vec());
            give(b, of.to_vec());
        }
        TensorOp::Where { cond, a, b } => [cond, a, b].into_iter().for_each(|t| give(t, of.to_vec())),
        TensorOp::Reshape { x, .. } => give(x, reshaped(of, result.shape(), x.shape())),
        TensorOp::Permute { x, order } => {
            let mut part = vec![(0, 0); order.len()];
            order.iter().zip(of).for_each(|(&o, &s)| part[o] = s);
            give(x, part);
        }
        TensorOp::Expand { x, .. } => {
            let one = |((&s, &from), &to): ((&Span, &usize), &usize)| if from == 1 && to != 1 { (0, 1) } else { s };
            give(x, of.iter().zip(x.shape()).zip(result.shape()).map(one).collect());
        }
        TensorOp::Pad { x, before, .. } => {
            give(x, of.iter().zip(before).map(|(s, &b)| (s.0 - b as i64, s.1 - b as i64)).collect());
        }
        TensorOp::Slice { x, start, step, .. } => {
            let one = |((s, &start), &step): ((&Span, &usize), &i64)| {
                let (a, b) = (start as i64 + step * s.0, start as i64 + step * (s.1 - 1));
                (a.min(b), a.max(b) + 1)
            };
            give(x, of.iter().zip(start).zip(step).map(one).collect());
        }
        TensorOp::Unfold { x, axis, stride, dilation, .. } => {
            let mut part = of.to_vec();
            if let Some(taps) = part.pop() {
                let s = part[*axis];
                let (stride, dilation) = (*stride as i64, *dilation as i64);
                part[*axis] = (s.0 * stride + taps.0 * dilation, (s.1 - 1) * stride + (taps.1 - 1) * dilation + 1);
            }
            give(x, part);
        }
        TensorOp::Cat { parts, axis } => {
            let (mut at, count) = (0, parts.len());
            for (i, part) in parts.iter().enumerate() {
                let size = part.shape()[*axis] as i64;
                let mut own = of.to_vec();
                // What lies beyond the ends is the first's and the last's.
                let (low, high) =
                    (if i == 0 { i64::MIN } else { at }, if i + 1 == count { i64::MAX } else { at + size });
                own[*axis] = (of[*axis].0.max(low) - at, of[*axis].1.min(high) - at);
                give(part, own);
                at += size;
            }
        }
        TensorOp::Gather { x, axis, index } => {
            let mut part = of.to_vec();
            part[*axis] = whole(x.shape()[*axis]);
            give(x, part);
            give(index, of.to_vec());
        }
        TensorOp::Reduce { x, axes, .. } => {
            let mut rest = of.iter().copied();
            let one = |(a, &size): (usize, &usize)| {
                if axes.contains(&a) { Some(whole(size)) } else { rest.next() }
            };
            let part: Option<Vec<Span>> = x.shape().iter().enumerate().map(one).collect();
            let wrong = || Error::Execution { op: "tiles", cause: "a reduction of another rank".into() };
            give(x, part.ok_or_else(wrong)?);
        }
    }
    Ok(())
}

/// The box of a tensor of shape `to` with the elements of a box of one of shape `from`: groups of axes with as many
/// elements on both sides are looked at one by one. Only the outermost axis of a group may stick out.
fn reshaped(of: &[Span], from: &[usize], to: &[usize]) -> Vec<Span> {
    let mut out = Vec::with_capacity(to.len());
    let (mut i, mut j) = (0, 0);
    while i < from.len() || j < to.len() {
        let (i0, j0) = (i, j);
        let (mut a, mut b) = (1i64, 1i64);
        // At least one axis of each side, where there is one, until both have as many elements.
        if i < from.len() {
            a *= from[i] as i64;
            i += 1;
        }
        if j < to.len() {
            b *= to[j] as i64;
            j += 1;
        }
        while a != b {
            if a < b && i < from.len() {
                a *= from[i] as i64;
                i += 1;
            } else if b < a && j < to.len() {
                b *= to[j] as i64;
                j += 1;
            } else {
                break;
            }
        }
        let place = |spans: &[Span], sizes: &[usize], last: bool| {
            let end = |s: &Span| if last { s.1 - 1 } else { s.0 };
            spans.iter().zip(sizes).fold(0i64, |at, (s, &size)| at.saturating_mul(size as i64).saturating_add(end(s)))
        };
        let (mut low, mut high) = (place(&of[i0..i], &from[i0..i], false), place(&of[i0..i], &from[i0..i], true));
        for k in j0..j {
            // An axis of one element does not stick out where another can.
            if to[k] == 1 && j - j0 > 1 {
                out.push((0, 1));
                continue;
            }
            let inner: i64 = to[k + 1..j].iter().map(|&s| s as i64).product::<i64>().max(1);
            let (first, last) = (low.div_euclid(inner), high.div_euclid(inner));
            out.push((first, last + 1));
            if first == last {
                (low, high) = (low.rem_euclid(inner), high.rem_euclid(inner));
            } else {
                (low, high) = (0, inner - 1);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::ConvOptions;
    use winograph_ir::DType;

    #[test]
    fn reshapes_keep_what_groups_of_axes_have() {
        // Rows 4 to 9 of 3 x 20 as 3 x 5 x 4, and back.
        assert_eq!(reshaped(&[(0, 3), (4, 9)], &[3, 20], &[3, 5, 4]), [(0, 3), (1, 3), (0, 4)]);
        assert_eq!(reshaped(&[(0, 3), (4, 6)], &[3, 20], &[3, 5, 4]), [(0, 3), (1, 2), (0, 2)]);
        assert_eq!(reshaped(&[(0, 3), (1, 2), (0, 2)], &[3, 5, 4], &[3, 20]), [(0, 3), (4, 6)]);
        // Beyond the ends.
        assert_eq!(reshaped(&[(-3, 22)], &[20], &[5, 4]), [(-1, 6), (0, 4)]);
        assert_eq!(reshaped(&[(-1, 6), (1, 2)], &[5, 4], &[20]), [(-3, 22)]);
        assert_eq!(reshaped(&[(0, 1), (2, 3), (0, 1)], &[1, 7, 1], &[7]), [(2, 3)]);
        assert_eq!(reshaped(&[(-2, 3)], &[7], &[1, 7, 1]), [(0, 1), (-2, 3), (0, 1)]);
    }

    #[test]
    fn two_convolutions_and_pixels_that_are_shuffled_have_the_field_that_they_should() {
        let x = Tensor::argument(DType::F32, vec![1, 4, 30, 30]).unwrap();
        let w = Tensor::ones(&[4, 4, 3, 5], DType::F32).unwrap();
        let options = ConvOptions { padding: vec![(1, 1), (2, 2)], ..ConvOptions::default() };
        let y = x.conv(&w, None, &options).unwrap().relu().unwrap().conv(&w, None, &options).unwrap();
        let y = y.reshape(&[1, 1, 2, 2, 30, 30]).unwrap().permute(&[0, 1, 4, 2, 5, 3]).unwrap();
        let y = y.reshape(&[1, 1, 60, 60]).unwrap();
        let field = Field::new(&y);
        let needs = |rows: Span, columns: Span| {
            field.needs(&[(0, 1), (0, 1), rows, columns], &x).unwrap().input.unwrap()[2..].to_vec()
        };
        assert_eq!(needs((20, 21), (40, 42)), [(8, 13), (16, 25)]);
        assert_eq!(needs((0, 1), (59, 60)), [(-2, 3), (25, 34)]);
        let other = Tensor::argument(DType::F32, vec![1]).unwrap();
        assert!(field.needs(&[(0, 1); 4], &other).unwrap().input.is_none());
        // The same weights wherever the place is.
        let at = |row: i64| field.needs(&[(0, 1), (0, 1), (row, row + 1), (0, 1)], &x).unwrap();
        assert!(at(20) != at(22) && field.same_constants(&at(20), &at(22)).unwrap());
        // A ramp beside it.
        let ramp = Tensor::iota("ramp", DType::F32, &[1, 1, 60, 1], 2).unwrap();
        let field = Field::new(&y.add(&ramp).unwrap());
        let at = |row: i64| field.needs(&[(0, 1), (0, 1), (row, row + 1), (0, 1)], &x).unwrap();
        assert!(!field.same_constants(&at(20), &at(22)).unwrap());
    }
}
