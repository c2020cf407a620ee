//! Fragments of a matrix unit by rows: where an operand lies in shared memory so that the warp's threads can load it as
//! small matrices together ([`Instr::Rows`]), a quarter of the instructions or fewer.
//!
//! A fragment fits where the places of its elements among the threads are those that such a load leaves, along the axis
//! that is contiguous in shared memory or, transposed, along the other one. Both are asked of the unit's data and of the
//! buffer's layout; which unit, kernel or shape it is plays no part.

use super::emit::Emit;
use winograph_ir::indexed::{BufId, Scope, Source, Val, ValId};
use winograph_ir::int::{IntId, RangeId, RangeRole};
use winograph_ir::linear::{Access, Fragment, Instr, ROW_BYTES, ROW_COUNT, ROW_PART, Reg};

/// A fragment of a shared buffer, as rows that the threads name.
pub(super) struct Rows {
    buffer: BufId,
    /// The place of the thread's row, its elements along `lane`.
    index: Vec<IntId>,
    lane: RangeId,
    matrices: u32,
    transposed: bool,
    /// Elements of each thread.
    elements: u32,
}

/// How a fragment lies among the threads, if rows can be loaded as it: whether transposed, and the steps from one matrix
/// to the next by bits of its number, across and along the rows.
fn arranged(f: &Fragment, contiguous_cols: bool) -> Option<(bool, Vec<(u32, u32)>)> {
    let size = f.dtype.size();
    if !matches!(size, 2 | 4) || f.thread_row.len() != 5 {
        return None;
    }
    let bits = (ROW_PART / size).trailing_zeros() as usize;
    let pairs = |rows: &[u32], cols: &[u32]| -> Vec<(u32, u32)> {
        let both = rows.iter().copied().zip(cols.iter().copied());
        both.map(|(r, c)| if contiguous_cols { (r, c) } else { (c, r) }).collect()
    };
    // Each as a step across the rows of shared memory and along them.
    let (threads, elements) = (pairs(&f.thread_row, &f.thread_col), pairs(&f.element_row, &f.element_col));
    let matrices = elements.get(bits..)?.to_vec();
    if matrices.len() > 2 {
        return None;
    }
    let mut inner: Vec<(u32, u32)> = elements[..bits].iter().chain(&threads[..2]).copied().collect();
    let mut outer = threads[2..].to_vec();
    let counts = |list: &[(u32, u32)]| list.iter().enumerate().all(|(i, &p)| p == (0, 1 << i));
    let turn = |list: &mut Vec<(u32, u32)>| list.iter_mut().for_each(|p| *p = (p.1, p.0));
    turn(&mut outer);
    if counts(&inner) && counts(&outer) {
        return Some((false, matrices));
    }
    turn(&mut inner);
    turn(&mut outer);
    (size == 2 && counts(&inner) && counts(&outer)).then_some((true, matrices))
}

/// Whether rows of a buffer can be loaded as a fragment as they are, its columns contiguous or else its rows.
pub(super) fn fits(f: &Fragment, contiguous_cols: bool) -> bool {
    arranged(f, contiguous_cols).is_some_and(|(transposed, _)| !transposed)
}

impl Rows {
    /// The rows of a factor that lies in shared memory, with `row` and `col` the ranges along the unit's operand and
    /// `bits` those of the thread's number in its warp, the lowest first.
    pub(super) fn of(e: &mut Emit, f: &Fragment, v: ValId, [row, col]: [RangeId; 2], bits: &[RangeId]) -> Option<Rows> {
        let Val::Load { src: Source::Buffer(buffer), index, gate, .. } = e.g.val(v).clone() else { return None };
        let declared = e.g.buffer(buffer);
        if declared.scope != Scope::Shared || declared.dtype != f.dtype || !gate.is_empty() {
            return None;
        }
        let layout = declared.layout.clone()?;
        let addr = e.g.flatten(&layout, &index);
        let mut step = |r: RangeId| e.g.ints.split_linear(addr, r).map(|s| s.0);
        let contiguous_cols = match (step(row)?, step(col)?) {
            (_, 1) => true,
            (1, _) => false,
            _ => return None,
        };
        let (transposed, matrices) = arranged(f, contiguous_cols)?;
        let ints = &mut e.g.ints;
        let size = ints.constant((ROW_BYTES / f.dtype.size()) as i64);
        let lane = ints.new_range(size, RangeRole::Map);
        let low = ROW_COUNT.trailing_zeros() as usize;
        let mut across: Vec<(IntId, i64)> =
            bits[..low].iter().enumerate().map(|(i, &r)| (ints.range(r), 1 << i)).collect();
        let mut along = vec![(ints.range(lane), 1)];
        for (&r, &(a, b)) in bits[low..].iter().zip(&matrices) {
            across.push((ints.range(r), a as i64));
            along.push((ints.range(r), b as i64));
        }
        let (across, along) = (ints.sum(&across, 0), ints.sum(&along, 0));
        let (on_row, on_col) = if contiguous_cols { (across, along) } else { (along, across) };
        let place = |r: RangeId| if r == row { Some(on_row) } else { (r == col).then_some(on_col) };
        let index = index.iter().map(|&i| ints.substitute(i, &place)).collect();
        let rows = Rows { buffer, index, lane, matrices: 1 << matrices.len(), transposed, elements: f.elements() };
        rows.access(e, &rows.index.clone()).map(|_| rows)
    }

    /// The access to a thread's row, if it is one: its elements next to each other from a multiple of 16 bytes on.
    fn access(&self, e: &mut Emit, index: &[IntId]) -> Option<Access> {
        let access = e.access(Source::Buffer(self.buffer), index, &[], Some(self.lane))?;
        let elements = e.g.ints.const_size(self.lane)? as u64;
        match e.g.ints.split_linear(access.addr, self.lane)? {
            (1, first) if e.g.ints.divisor(first).is_multiple_of(elements) => Some(access),
            _ => None,
        }
    }

    /// Loads fragments, as many at a time as one load takes.
    pub(super) fn load(e: &mut Emit, all: &[Rows], bits: &[RangeId]) -> Option<Vec<Reg>> {
        let mut out = Vec::with_capacity(all.len());
        let mut rest = all;
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            if let Some((second, after)) = rest.split_first()
                && let Some(both) = first.beside(e, second, bits)
            {
                rest = after;
                let wide = e.let_(first.dtype(e), 2 * first.elements, both);
                for half in 0..2 {
                    let pattern = (half * first.elements..(half + 1) * first.elements).collect();
                    out.push(e.let_(first.dtype(e), first.elements, Instr::Shuffle { a: wide, b: wide, pattern }));
                }
                continue;
            }
            let access = first.access(e, &first.index)?;
            let instr = Instr::Rows { access, transposed: first.transposed };
            out.push(e.let_(first.dtype(e), first.elements, instr));
        }
        Some(out)
    }

    fn dtype(&self, e: &Emit) -> winograph_ir::DType {
        e.g.buffer(self.buffer).dtype
    }

    /// One load of two fragments of two matrices each, where the second lies at constant distances from the first.
    fn beside(&self, e: &mut Emit, other: &Rows, bits: &[RangeId]) -> Option<Instr> {
        let alike = (self.buffer, self.transposed, self.matrices) == (other.buffer, other.transposed, 2);
        let &which = bits.get(4).filter(|_| alike && self.matrices == 2)?;
        let lane = e.g.ints.range(self.lane);
        let mut index = Vec::with_capacity(self.index.len());
        for (&a, &b) in self.index.iter().zip(&other.index) {
            let b = e.g.ints.substitute(b, &|r| (r == other.lane).then_some(lane));
            let apart = e.g.ints.sum(&[(b, 1), (a, -1)], 0);
            let apart = e.g.ints.as_const(apart)?;
            let which = e.g.ints.range(which);
            index.push(e.g.ints.sum(&[(a, 1), (which, apart)], 0));
        }
        Some(Instr::Rows { access: self.access(e, &index)?, transposed: self.transposed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimize::matrix_unit::matrix_unit;

    #[test]
    fn operands_of_cudas_units_are_rows_and_those_of_metal_are_not() {
        let unit = |name| matrix_unit(name).unwrap();
        for (name, transposed) in [("m16n8k16.f16", true), ("m16n8k16.bf16", true), ("m16n8k8.tf32", false)] {
            let u = unit(name);
            assert_eq!(arranged(&u.a, true).map(|x| (x.0, x.1.len())), Some((false, 2)), "{name}");
            assert_eq!(arranged(&u.b, false).map(|x| (x.0, x.1.len())), Some((false, 1)), "{name}");
            // The other axis contiguous: elements of 2 bytes alone are turned.
            assert_eq!(arranged(&u.a, false).is_some_and(|x| x.0), transposed, "{name}");
            assert_eq!(arranged(&u.b, true).is_some_and(|x| x.0), transposed, "{name}");
        }
        let u = unit("8x8x8");
        assert!([true, false].iter().all(|&c| arranged(&u.a, c).is_none() && arranged(&u.b, c).is_none()));
        // Sums are stored as they are.
        assert_eq!(arranged(&unit("m16n8k8.tf32").c, true), None);
    }
}
