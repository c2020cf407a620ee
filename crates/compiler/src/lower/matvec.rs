//! Products of a constant matrix and a vector of values, unrolled.
//!
//! Each element of the product becomes a chain of fused multiply-adds with constants folded in. Rows that differ in
//! signs alone share the sums of their equal and of their opposite terms (`E + O` and `E − O`), and so do columns
//! (`v_k + v_l` and `v_k − v_l`); interning makes the sharing real. Matrices made from points ± p are of that form.
//!
//! What a row's element is, to the last bit, depends on the matrix and the row's number alone: two expressions of the
//! same product agree bit for bit.

use winograph_ir::indexed::{Graph, Val, ValId};
use winograph_ir::{BinaryOp, DType, Scalar, UnaryOp};

/// An operand of a row's sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// Element k of the vector.
    One(usize),
    /// `v[k] + v[l]`.
    Sum(usize, usize),
    /// `v[k] − v[l]`.
    Difference(usize, usize),
}

/// A coefficient and what it multiplies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Term {
    /// The coefficient: `matrix[row][column]`, not zero. Read it there to have it in the matrix's dtype.
    pub coefficient: (usize, usize),
    /// Operand.
    pub operand: Operand,
}

/// How one element of a product is evaluated. Terms are in the order in which they are summed.
#[derive(Clone, Debug, PartialEq)]
pub enum RowPlan {
    /// The sum of the terms.
    Plain(Vec<Term>),
    /// `even + odd`, or `even − odd` where `negate` is set. Both sums are shared with another row.
    EvenOdd {
        /// Terms that the two rows have in common.
        even: Vec<Term>,
        /// Terms that are opposite in the two rows, with the signs of the lower-numbered one.
        odd: Vec<Term>,
        /// Whether this is the higher-numbered row.
        negate: bool,
    },
}

fn at(rows: &[Vec<f64>], i: usize, k: usize) -> f64 {
    rows.get(i).and_then(|row| row.get(k)).copied().unwrap_or(0.0)
}

/// Whether two lists of numbers differ in signs alone, some equal and some opposite.
fn pairs_up(pairs: impl Iterator<Item = (f64, f64)>) -> bool {
    let (mut equal, mut opposite) = (false, false);
    for (x, y) in pairs {
        if x.abs() != y.abs() {
            return false;
        }
        if x != 0.0 {
            equal |= x == y;
            opposite |= x != y;
        }
    }
    equal && opposite
}

/// How element `i` of `rows · v` is evaluated. Missing elements of ragged rows count as zero; a row without non-zero
/// elements, or one that does not exist, is an empty sum.
pub fn row_plan(rows: &[Vec<f64>], i: usize) -> RowPlan {
    let width = rows.iter().map(Vec::len).max().unwrap_or(0);
    let nonzero = |k: &usize| at(rows, i, *k) != 0.0;
    let partner = (0..rows.len())
        .find(|&j| i < rows.len() && j != i && pairs_up((0..width).map(|k| (at(rows, i, k), at(rows, j, k)))));
    if let Some(j) = partner {
        let low = i.min(j);
        let is_even = |k: &usize| at(rows, i, *k) == at(rows, j, *k);
        let term = |k: usize| Term { coefficient: (low, k), operand: Operand::One(k) };
        let (even, odd): (Vec<usize>, Vec<usize>) = (0..width).filter(nonzero).partition(is_even);
        return RowPlan::EvenOdd {
            even: ordered(rows, even.into_iter().map(term)),
            odd: ordered(rows, odd.into_iter().map(term)),
            negate: i > j,
        };
    }
    let mut terms = Vec::new();
    let mut taken = vec![false; width];
    for k in 0..width {
        if taken[k] {
            continue;
        }
        // Columns are paired by the whole matrix, so that every row pairs them alike.
        let pair =
            (k + 1..width).find(|&l| !taken[l] && pairs_up((0..rows.len()).map(|j| (at(rows, j, k), at(rows, j, l)))));
        let operand = match pair {
            Some(l) => {
                taken[l] = true;
                if at(rows, i, k) == at(rows, i, l) { Operand::Sum(k, l) } else { Operand::Difference(k, l) }
            }
            None => Operand::One(k),
        };
        if nonzero(&k) {
            terms.push(Term { coefficient: (i, k), operand });
        }
    }
    RowPlan::Plain(ordered(rows, terms.into_iter()))
}

/// Terms by ascending column, but one with coefficient 1 first: a chain of multiply-adds that starts there saves a
/// multiplication.
fn ordered(rows: &[Vec<f64>], terms: impl Iterator<Item = Term>) -> Vec<Term> {
    let mut terms: Vec<Term> = terms.collect();
    if let Some(first) = terms.iter().position(|t| at(rows, t.coefficient.0, t.coefficient.1) == 1.0) {
        terms[..=first].rotate_right(1);
    }
    terms
}

/// Builds element `i` of `rows · v`, where `v` gives the vector's elements in the dtype of the matrix.
///
/// Terms are summed as [`row_plan`] orders them: the first is a product, or its operand where the coefficient is ±1;
/// each further one is a fused multiply-add (without `fma` a product and a sum), or a sum or difference. An empty sum is a
/// constant zero.
pub fn emit_row(
    g: &mut Graph,
    rows: &[Vec<Scalar>],
    i: usize,
    fma: bool,
    v: &mut dyn FnMut(&mut Graph, usize) -> ValId,
) -> ValId {
    let numbers: Vec<Vec<f64>> = rows.iter().map(|row| row.iter().map(|s| s.to_f64()).collect()).collect();
    let sum = match row_plan(&numbers, i) {
        RowPlan::Plain(terms) => emit_sum(g, rows, &terms, fma, v),
        RowPlan::EvenOdd { even, odd, negate } => {
            let even = emit_sum(g, rows, &even, fma, v);
            let odd = emit_sum(g, rows, &odd, fma, v);
            let op = if negate { BinaryOp::Sub } else { BinaryOp::Add };
            even.zip(odd).map(|(even, odd)| g.binary(op, even, odd))
        }
    };
    let dtype = rows.iter().flatten().next().map_or(DType::F32, |s| s.dtype());
    sum.unwrap_or_else(|| g.constant(Scalar::zero(dtype)))
}

fn emit_sum(
    g: &mut Graph,
    rows: &[Vec<Scalar>],
    terms: &[Term],
    fma: bool,
    v: &mut dyn FnMut(&mut Graph, usize) -> ValId,
) -> Option<ValId> {
    let mut sum: Option<ValId> = None;
    for term in terms {
        let x = match term.operand {
            Operand::One(k) => v(g, k),
            Operand::Sum(k, l) => {
                let (a, b) = (v(g, k), v(g, l));
                g.binary(BinaryOp::Add, a, b)
            }
            Operand::Difference(k, l) => {
                let (a, b) = (v(g, k), v(g, l));
                g.binary(BinaryOp::Sub, a, b)
            }
        };
        let (row, column) = term.coefficient;
        let c = rows.get(row).and_then(|r| r.get(column)).copied()?;
        let coefficient = g.constant(c);
        sum = Some(match sum {
            // `add` turns a factor of ±1 into a sum or difference.
            Some(acc) if fma || c.to_f64().abs() == 1.0 => g.add(Val::Fma { a: coefficient, b: x, c: acc }),
            Some(acc) => {
                let product = g.binary(BinaryOp::Mul, coefficient, x);
                g.binary(BinaryOp::Add, acc, product)
            }
            None if c == UnaryOp::Neg.apply(Scalar::one(c.dtype())) => g.unary(UnaryOp::Neg, x),
            None => g.binary(BinaryOp::Mul, coefficient, x),
        });
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use winograph_ir::indexed::{Buffer, Origin, Scope, Source};

    const BT4: [[f64; 6]; 6] = [
        [4.0, 0.0, -5.0, 0.0, 1.0, 0.0],
        [0.0, -4.0, -4.0, 1.0, 1.0, 0.0],
        [0.0, 4.0, -4.0, -1.0, 1.0, 0.0],
        [0.0, -2.0, -1.0, 2.0, 1.0, 0.0],
        [0.0, 2.0, -1.0, -2.0, 1.0, 0.0],
        [0.0, 4.0, 0.0, -5.0, 0.0, 1.0],
    ];
    const AT4: [[f64; 6]; 4] = [
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
        [0.0, 1.0, -1.0, 2.0, -2.0, 0.0],
        [0.0, 1.0, 1.0, 4.0, 4.0, 0.0],
        [0.0, 1.0, -1.0, 8.0, -8.0, 1.0],
    ];

    fn numbers<const N: usize>(m: &[[f64; N]]) -> Vec<Vec<f64>> {
        m.iter().map(|r| r.to_vec()).collect()
    }

    fn scalars(m: &[Vec<f64>]) -> Vec<Vec<Scalar>> {
        m.iter().map(|r| r.iter().map(|&x| Scalar::from_f64(DType::F32, x)).collect()).collect()
    }

    /// A graph with one buffer to load elements from.
    fn with_input(n: i64) -> (Graph, Source) {
        let mut g = Graph::new();
        let size = g.ints.constant(n);
        g.buffers.push(Buffer {
            name: "x".to_string(),
            dtype: DType::F32,
            shape: vec![size],
            origin: Origin::Argument(0),
            scope: Scope::Global,
            layout: None,
        });
        (g, Source::Buffer(winograph_ir::indexed::BufId(0)))
    }

    fn element(g: &mut Graph, src: Source, k: usize) -> ValId {
        let k = g.ints.constant(k as i64);
        g.load(src, &[k], &[], Scalar::zero(DType::F32))
    }

    /// Number of arithmetic nodes under some values.
    fn ops(g: &Graph, roots: &[ValId]) -> usize {
        let is_op = |v: &ValId| matches!(g.val(*v), Val::Unary { .. } | Val::Binary { .. } | Val::Fma { .. });
        g.topological(roots).iter().filter(|v| is_op(v)).count()
    }

    fn eval(g: &Graph, roots: &[ValId], input: &[f32]) -> Vec<f32> {
        let mut values = std::collections::HashMap::new();
        for v in g.topological(roots) {
            let f = |x: &ValId| -> Scalar { values[x] };
            let s = match g.val(v) {
                Val::Const(s) => *s,
                Val::Load { index, .. } => {
                    Scalar::from_f64(DType::F32, input[g.ints.as_const(index[0]).unwrap() as usize] as f64)
                }
                Val::Unary { op, x } => op.apply(f(x)),
                Val::Binary { op, a, b } => op.apply(f(a), f(b)),
                Val::Fma { a, b, c } => winograph_ir::op::apply_fma(f(a), f(b), f(c)),
                other => panic!("{other:?}"),
            };
            values.insert(v, s);
        }
        roots.iter().map(|r| values[r].to_f64() as f32).collect()
    }

    /// Rows of `T · X · Tᵀ` for an n × n input, and the number of operations.
    fn two_d(t: &[Vec<f64>]) -> (Graph, Vec<ValId>) {
        let n = t[0].len();
        let rows = scalars(t);
        let (mut g, src) = with_input((n * n) as i64);
        let mut out = Vec::new();
        for i in 0..rows.len() {
            for j in 0..rows.len() {
                out.push(emit_row(&mut g, &rows, i, true, &mut |g, k| {
                    emit_row(g, &rows, j, true, &mut |g, l| element(g, src, k * n + l))
                }));
            }
        }
        (g, out)
    }

    #[test]
    fn plans_pair_rows() {
        let rows = numbers(&BT4);
        let one = |i, k| Term { coefficient: (i, k), operand: Operand::One(k) };
        assert_eq!(row_plan(&rows, 0), RowPlan::Plain(vec![one(0, 4), one(0, 0), one(0, 2)]));
        for i in [3, 4] {
            let (even, odd) = (vec![one(3, 4), one(3, 2)], vec![one(3, 1), one(3, 3)]);
            assert_eq!(row_plan(&rows, i), RowPlan::EvenOdd { even, odd, negate: i == 4 });
        }
    }

    #[test]
    fn plans_pair_columns() {
        let rows = numbers(&AT4);
        let plan = |i| match row_plan(&rows, i) {
            RowPlan::Plain(terms) => terms.into_iter().map(|t| t.operand).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(plan(0), [Operand::One(0), Operand::Sum(1, 2), Operand::Sum(3, 4)]);
        assert_eq!(plan(3), [Operand::Difference(1, 2), Operand::Difference(3, 4), Operand::One(5)]);
    }

    #[test]
    fn transforms_are_cheap() {
        let (g, out) = two_d(&numbers(&BT4));
        assert_eq!(ops(&g, &out), 156);
        let (g, out) = two_d(&numbers(&AT4));
        assert_eq!(ops(&g, &out), 100);
        let bt2 = [[-1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, -1.0, 1.0, 0.0], [0.0, -1.0, 0.0, 1.0]];
        let (g, out) = two_d(&numbers(&bt2));
        assert_eq!(ops(&g, &out), 32);
    }

    #[test]
    fn products_are_right() {
        // Small integers: every sum is exact, so the order does not matter.
        let odd = [[2.0, 0.0, -3.0], [0.0, 0.0, 0.0], [-1.0, -1.0, 5.0], [1.0, 1.0, -5.0], [-2.0, 0.0, -3.0]];
        for t in [numbers(&BT4), numbers(&AT4), numbers(&odd)] {
            let n = t[0].len();
            let input: Vec<f32> = (0..n).map(|k| ((k * 7 + 3) % 11) as f32 - 5.0).collect();
            let rows = scalars(&t);
            let (mut g, src) = with_input(n as i64);
            let out: Vec<ValId> =
                (0..t.len()).map(|i| emit_row(&mut g, &rows, i, true, &mut |g, k| element(g, src, k))).collect();
            let want: Vec<f32> =
                t.iter().map(|r| r.iter().zip(&input).map(|(c, x)| *c as f32 * x).sum::<f32>()).collect();
            assert_eq!(eval(&g, &out, &input), want);
        }
    }

    #[test]
    fn odd_input_is_an_empty_sum() {
        assert_eq!(row_plan(&[], 0), RowPlan::Plain(vec![]));
        assert_eq!(row_plan(&[vec![1.0]], 7), RowPlan::Plain(vec![]));
        let (mut g, src) = with_input(4);
        let zero = emit_row(&mut g, &[vec![]], 3, true, &mut |g, k| element(g, src, k));
        assert_eq!(g.as_const(zero), Some(Scalar::zero(DType::F32)));
        // A ragged matrix: missing elements are zero.
        let ragged = scalars(&[vec![1.0], vec![1.0, 2.0]]);
        let out = emit_row(&mut g, &ragged, 1, true, &mut |g, k| element(g, src, k));
        assert_eq!(eval(&g, &[out], &[1.0, 10.0, 0.0, 0.0]), [21.0]);
    }
}
