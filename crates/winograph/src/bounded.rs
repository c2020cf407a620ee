//! Programs whose sizes are bounded parameters: one plan for graphs that differ in such sizes alone.
//!
//! [`Tensor::bounded`](crate::Tensor::bounded) says of an axis that its size is one. The other sizes of a graph follow from
//! these in ways that its operations do not tell (a reshape has only numbers), so they are found from examples: when a
//! form comes with a second choice of sizes, each of its numbers is fitted by a polynomial of the parameters, and the graph
//! with the polynomials in the place of numbers is compiled. That proves its accesses for all values within the
//! bounds. Whether a later graph is the one that was compiled is checked number by number before every use, so that a
//! polynomial that was fitted by chance leads to another compile, never to a wrong result.

use crate::error::Result;
use crate::execute::Compiled;
use crate::settings::settings;
use crate::tensor::structure::{Bounded, Step, Structure};
use crate::tensor::{Leaves, graph_of_sizes};
use rustc_hash::FxHashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use winograph_ir::IntId;
use winograph_ir::int::Ints;

/// Forms that are kept; when there are more, all are forgotten.
const KEPT: usize = 128;

/// Choices of sizes that polynomials are fitted to, at most; and compiles of one form.
const EXAMPLES: usize = 4;

/// Distinct sizes of a form whose products are tried, at most.
const FACTORS: usize = 24;

/// A structure with the places of its sizes in a list in the place of sizes, and what is bounded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Form {
    structure: Structure,
    /// Places of bounded sizes in the list, and their bounds.
    bounded: Vec<(usize, usize, usize)>,
}

/// A size as a sum of multiples of products of parameters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Size(Vec<(Vec<usize>, i64)>);

impl Size {
    fn constant(c: i64) -> Size {
        Size(vec![(vec![], c)])
    }

    fn param(p: usize) -> Size {
        Size(vec![(vec![p], 1)])
    }

    /// `self * other * k`.
    fn times(&self, other: &Size, k: i64) -> Option<Size> {
        let mut out: Vec<(Vec<usize>, i64)> = Vec::new();
        for (a, c) in &self.0 {
            for (b, d) in &other.0 {
                let mut factors = [&a[..], b].concat();
                factors.sort_unstable();
                let c = c.checked_mul(*d)?.checked_mul(k)?;
                match out.iter_mut().find(|t| t.0 == factors) {
                    Some(term) => term.1 = term.1.checked_add(c)?,
                    None => out.push((factors, c)),
                }
            }
        }
        Some(Size(out))
    }

    fn plus(mut self, c: i64) -> Size {
        self.0.push((vec![], c));
        self
    }

    fn value(&self, params: &[i64]) -> Option<i64> {
        self.0.iter().try_fold(0i64, |sum, (factors, c)| {
            let term = factors.iter().try_fold(*c, |x, &p| x.checked_mul(*params.get(p)?))?;
            sum.checked_add(term)
        })
    }

    /// The size as an expression over a graph's parameters.
    pub(crate) fn expression(&self, ints: &mut Ints, params: &[IntId]) -> IntId {
        let mut sum = ints.constant(0);
        for (factors, c) in &self.0 {
            let mut term = ints.constant(*c);
            for &p in factors {
                let Some(&p) = params.get(p) else { continue };
                term = ints.mul(term, p);
            }
            sum = ints.add(sum, term);
        }
        sum
    }
}

/// A parameter of a compiled form: where its value stands among the sizes, and its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    place: usize,
    pub(crate) lo: i64,
    pub(crate) hi: i64,
}

/// A form compiled for all sizes within its bounds.
struct General {
    params: Vec<Parameter>,
    sizes: Vec<Size>,
    compiled: Arc<Compiled>,
}

impl General {
    /// The parameters' values, if these sizes are what the program was compiled for.
    fn fits(&self, sizes: &[i64]) -> Option<Vec<i64>> {
        let values = values(&self.params, sizes)?;
        let equal = |(size, &n): (&Size, &i64)| size.value(&values) == Some(n);
        (self.sizes.len() == sizes.len() && self.sizes.iter().zip(sizes).all(equal)).then_some(values)
    }
}

fn values(params: &[Parameter], sizes: &[i64]) -> Option<Vec<i64>> {
    let value = |p: &Parameter| sizes.get(p.place).copied().filter(|n| (p.lo..=p.hi).contains(n));
    params.iter().map(value).collect()
}

#[derive(Default)]
struct Known {
    examples: Vec<Vec<i64>>,
    general: Option<Arc<General>>,
    /// How often it was compiled, or could not be.
    attempts: usize,
}

/// Takes the sizes out of a structure. They are listed in the order in which its steps name them.
pub(crate) fn form(structure: &Structure, bounded: &[Bounded]) -> (Form, Vec<i64>) {
    let mut sizes = Vec::new();
    let mut first = Vec::with_capacity(structure.steps.len());
    let mut place = |&n: &usize| {
        sizes.push(i64::try_from(n).unwrap_or(i64::MAX));
        sizes.len() - 1
    };
    let mut steps = Vec::with_capacity(structure.steps.len());
    for step in &structure.steps {
        let step = match step {
            Step::Argument { slot, dtype, shape } => {
                Step::Argument { slot: *slot, dtype: *dtype, shape: shape.iter().map(&mut place).collect() }
            }
            Step::Leaf { dtype, shape } => Step::Leaf { dtype: *dtype, shape: shape.iter().map(&mut place).collect() },
            Step::Constant { dtype, shape } => {
                Step::Constant { dtype: *dtype, shape: shape.iter().map(&mut place).collect() }
            }
            Step::Op(op) => Step::Op(op.map(|&t| t, &mut place)),
        };
        first.push(match &step {
            Step::Leaf { shape, .. } => shape.first().copied().unwrap_or(0),
            _ => 0,
        });
        steps.push(step);
    }
    let of = |b: &Bounded| first.get(b.step).map(|f| (f + b.axis, b.lo, b.hi));
    let bounded = bounded.iter().filter_map(of).collect();
    (Form { structure: Structure { steps, outputs: structure.outputs.clone() }, bounded }, sizes)
}

/// The parameters of a form: bounded sizes, of which those that are equal in all examples and have the same bounds are
/// one.
fn parameters(form: &Form, examples: &[Vec<i64>]) -> Vec<Parameter> {
    let mut out: Vec<Parameter> = Vec::new();
    for &(place, lo, hi) in &form.bounded {
        let p = Parameter { place, lo: lo as i64, hi: hi as i64 };
        let same =
            |q: &Parameter| (q.lo, q.hi) == (p.lo, p.hi) && examples.iter().all(|e| e.get(q.place) == e.get(place));
        if !out.iter().any(same) {
            out.push(p);
        }
    }
    out
}

/// A polynomial that gives `wanted`, one number for each choice of the parameters: a constant, a parameter, a size that
/// another place has, a multiple or a product of these, or a multiple of a parameter with something added.
fn fit(wanted: &[i64], choices: &[Vec<i64>], known: &[Size]) -> Option<Size> {
    let right = |s: &Size| choices.iter().zip(wanted).all(|(p, &n)| s.value(p) == Some(n));
    let first = *wanted.first()?;
    let constant = Size::constant(first);
    if right(&constant) {
        return Some(constant);
    }
    let multiple = |s: &Size| {
        let n = s.value(choices.first()?)?;
        (n > 0 && first % n == 0).then(|| s.times(&Size::constant(1), first / n))?.filter(&right)
    };
    if let Some(found) = known.iter().find_map(multiple) {
        return Some(found);
    }
    for (i, a) in known.iter().enumerate() {
        for b in &known[i..] {
            if let Some(found) = a.times(b, 1).as_ref().and_then(multiple) {
                return Some(found);
            }
        }
    }
    let count = choices.first()?.len();
    (0..count).find_map(|p| {
        let of = |at: usize| Some((*choices.get(at)?.get(p)?, *wanted.get(at)?));
        let (x0, y0) = of(0)?;
        let (x1, y1) = (1..choices.len()).filter_map(of).find(|c| c.0 != x0)?;
        let slope = (y1 - y0) / (x1 - x0);
        let size = Size::param(p).times(&Size::constant(1), slope)?.plus(y0 - slope.checked_mul(x0)?);
        Some(size).filter(&right)
    })
}

/// Polynomials for all sizes of a form.
fn fit_all(params: &[Parameter], examples: &[Vec<i64>]) -> Option<Vec<Size>> {
    let choices = examples.iter().map(|e| values(params, e)).collect::<Option<Vec<_>>>()?;
    let mut known: Vec<Size> = (0..params.len()).map(Size::param).collect();
    let mut seen: FxHashMap<Vec<i64>, Size> = FxHashMap::default();
    let count = examples.first()?.len();
    let mut out = Vec::with_capacity(count);
    for at in 0..count {
        let wanted = examples.iter().map(|e| e.get(at).copied()).collect::<Option<Vec<i64>>>()?;
        let size = match params.iter().position(|p| p.place == at) {
            Some(p) => Size::param(p),
            None => match seen.get(&wanted) {
                Some(size) => size.clone(),
                None => fit(&wanted, &choices, &known)?,
            },
        };
        if seen.insert(wanted, size.clone()).is_none()
            && size.0.iter().any(|t| !t.0.is_empty())
            && known.len() < FACTORS
        {
            known.push(size.clone());
        }
        out.push(size);
    }
    Some(out)
}

/// The program of a form for all sizes, and the parameters' values for these; `None` where there is none (yet).
///
/// # Errors
/// Settings that cannot be had.
pub(crate) fn program(op: &'static str, form: Form, sizes: Vec<i64>) -> Result<Option<(Arc<Compiled>, Vec<i64>)>> {
    static KNOWN: OnceLock<Mutex<FxHashMap<Form, Known>>> = OnceLock::new();
    let lock = || KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let examples = {
        let mut all = lock();
        if all.len() >= KEPT && !all.contains_key(&form) {
            all.clear();
        }
        let known = all.entry(form.clone()).or_default();
        if let Some(general) = &known.general
            && let Some(values) = general.fits(&sizes)
        {
            return Ok(Some((general.compiled.clone(), values)));
        }
        if !known.examples.contains(&sizes) {
            known.examples.push(sizes.clone());
        }
        if known.examples.len() < 2 || known.attempts >= EXAMPLES || known.examples.len() > EXAMPLES {
            return Ok(None);
        }
        known.attempts += 1;
        known.examples.clone()
    };
    // Not under the lock: others may go on. Two threads may compile the same; either program is right.
    let params = parameters(&form, &examples);
    let Some(fitted) = fit_all(&params, &examples) else { return Ok(None) };
    let graph = graph_of_sizes(&form.structure, Leaves::Arguments, None, &params, &fitted, &[]);
    let defaults = settings()?;
    // A form that cannot be proved for all sizes is compiled for each: that is no error.
    let Ok(compiled) = Compiled::new(op, &graph, vec![], &defaults.device, &defaults.options, false) else {
        return Ok(None);
    };
    let general = Arc::new(General { params, sizes: fitted, compiled: Arc::new(compiled) });
    let found = general.fits(&sizes).map(|values| (general.compiled.clone(), values));
    if let Some(known) = lock().get_mut(&form) {
        known.general = Some(general);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples(list: &[&[i64]]) -> Vec<Vec<i64>> {
        list.iter().map(|e| e.to_vec()).collect()
    }

    #[test]
    fn sizes_are_fitted_by_polynomials() {
        let param = |place| Parameter { place, lo: 1, hi: 100 };
        // n, m, 3, 5n, n - 1, n*m, (n - 1)*m*2
        let all = examples(&[&[4, 7, 3, 20, 3, 28, 42], &[6, 9, 3, 30, 5, 54, 90]]);
        let params = [param(0), param(1)];
        let sizes = fit_all(&params, &all).unwrap();
        let at = |n: i64, m: i64| sizes.iter().map(|s| s.value(&[n, m]).unwrap()).collect::<Vec<_>>();
        assert_eq!(at(10, 2), [10, 2, 3, 50, 9, 20, 36]);
        assert_eq!(at(4, 7), all[0]);
        assert!(fit_all(&params, &examples(&[&[4, 7, 1], &[6, 7, 2]])).is_none(), "half of n less 1");
        assert!(fit_all(&params, &examples(&[&[4, 101], &[6, 7]])).is_none(), "not within the bounds");
    }

    #[test]
    fn equal_sizes_are_one_parameter() {
        let structure = Structure::default();
        let form = Form { structure, bounded: vec![(0, 1, 9), (1, 1, 9), (2, 1, 9), (3, 1, 8)] };
        let params = parameters(&form, &examples(&[&[2, 2, 2, 2], &[3, 3, 4, 3]]));
        assert_eq!(params.iter().map(|p| p.place).collect::<Vec<_>>(), [0, 2, 3]);
    }
}
