//! Programs of realized graphs, kept for the next graph of the same structure.
//!
//! Elements of leaves are arguments of a program, and so it runs with any. Numbers that are part of a graph are first
//! compiled into the code, which is shorter for it: most graphs come back with the same numbers. A structure that
//! comes back with others gets one more program that takes them as arguments, too, and serves all that follow. The same
//! for sizes that are said to be bounded parameters: see [`bounded`].

use crate::bounded;
use crate::error::Result;
use crate::execute::Compiled;
use crate::settings::settings;
use crate::tensor::storage::Storage;
use crate::tensor::structure::{Structure, Values};
use crate::tensor::{Leaves, graph_of};
use rustc_hash::FxHashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use winograph_ir::Scalar;

/// Structures that are kept; when there are more, all are forgotten.
const KEPT: usize = 256;

/// The programs of one structure.
struct Programs {
    /// The numbers it first came with, and the program that they are part of.
    first: (Vec<Scalar>, Arc<Compiled>),
    /// The program that takes numbers as arguments.
    general: Option<Arc<Compiled>>,
}

impl Programs {
    fn find(&self, values: &Values) -> Option<(Arc<Compiled>, bool)> {
        if self.first.0 == values.constants {
            return Some((self.first.1.clone(), false));
        }
        Some((self.general.clone()?, true))
    }
}

fn kept() -> &'static Mutex<FxHashMap<Structure, Programs>> {
    static KEPT: OnceLock<Mutex<FxHashMap<Structure, Programs>>> = OnceLock::new();
    KEPT.get_or_init(Mutex::default)
}

/// A program, and what it is to be run with.
pub(crate) struct Ready {
    pub(crate) compiled: Arc<Compiled>,
    pub(crate) args: Vec<Arc<Storage>>,
    /// Values of the parameters that its sizes depend on.
    pub(crate) params: Vec<i64>,
}

/// The program of a structure, for the process's defaults, and its arguments.
///
/// # Errors
/// Those of compiling, and no memory.
pub(crate) fn program(op: &'static str, structure: Structure, values: Values) -> Result<Ready> {
    let lock = || kept().lock().unwrap_or_else(PoisonError::into_inner);
    let (found, known) = {
        let kept = lock();
        let programs = kept.get(&structure);
        (programs.and_then(|p| p.find(&values)), programs.is_some())
    };
    if let Some((compiled, general)) = found {
        return Ok(Ready { compiled, args: arguments(values, general)?, params: vec![] });
    }
    if !values.bounded.is_empty() {
        let (form, sizes) = bounded::form(&structure, &values.bounded);
        if let Some((compiled, params)) = bounded::program(op, form, sizes)? {
            return Ok(Ready { compiled, args: arguments(values, true)?, params });
        }
    }
    let graph = graph_of(&structure, Leaves::Arguments, (!known).then_some(&values.constants));
    let defaults = settings()?;
    // Not under the lock: others may go on. Two threads may compile the same; either program is right.
    let compiled = Arc::new(Compiled::new(op, &graph, vec![], &defaults.device, &defaults.options, false)?);
    let mut kept = lock();
    if known {
        if let Some(p) = kept.get_mut(&structure) {
            p.general = Some(compiled.clone());
        }
    } else {
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(structure, Programs { first: (values.constants.clone(), compiled.clone()), general: None });
    }
    drop(kept);
    Ok(Ready { compiled, args: arguments(values, known)?, params: vec![] })
}

/// The arguments of a program: leaves, and numbers where it takes them.
fn arguments(values: Values, general: bool) -> Result<Vec<Arc<Storage>>> {
    let mut args = values.leaves;
    if general {
        for value in values.constants {
            let bytes = value.bits().to_le_bytes();
            let bytes = bytes.get(..value.dtype().size()).unwrap_or(&bytes);
            args.push(Arc::new(Storage::from_bytes(bytes)?));
        }
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::structure::structure;
    use crate::{DType, Tensor};

    fn compiled(t: &Tensor) -> Arc<Compiled> {
        let (structure, values) = structure("test", std::slice::from_ref(t), &[]).unwrap();
        program("test", structure, values).unwrap().compiled
    }

    #[test]
    fn graphs_that_differ_in_numbers_and_elements_share_a_program() {
        let x = Tensor::randn(&[5, 7], DType::F32, 1).unwrap();
        x.realize().unwrap();
        let graph = |x: &Tensor, a: f32, b: f32| {
            let filled = Tensor::full(&[5, 7], a).unwrap();
            x.mul(a).unwrap().add(b).unwrap().div(&filled).unwrap().maximum(b).unwrap().exp().unwrap()
        };
        let first = compiled(&graph(&x, 2.0, 3.0));
        assert!(Arc::ptr_eq(&first, &compiled(&graph(&x, 2.0, 3.0))), "the same numbers");
        let other = Tensor::randn(&[5, 7], DType::F32, 2).unwrap();
        other.realize().unwrap();
        assert!(Arc::ptr_eq(&first, &compiled(&graph(&other, 2.0, 3.0))), "other elements");
        let general = compiled(&graph(&x, 1.5, -1.0));
        assert!(!Arc::ptr_eq(&first, &general));
        for (a, b) in [(0.1, 7.0), (-0.3, 0.0), (f32::NAN, 1.0), (1.0, f32::INFINITY)] {
            let t = graph(&x, a, b);
            assert!(Arc::ptr_eq(&general, &compiled(&t)), "other numbers");
            // As a function, numbers are part of the code.
            let f = crate::compile(&[], |_| Ok(vec![graph(&x, a, b)])).unwrap();
            let bits = |t: &Tensor| t.to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let (got, want) = (bits(&t), bits(&f.call(&[]).unwrap()[0]));
            let same = |(g, w): (&u32, &u32)| g == w || (f32::from_bits(*g).is_nan() && f32::from_bits(*w).is_nan());
            assert!(got.iter().zip(&want).all(same), "{a} {b}");
        }
        assert!(!Arc::ptr_eq(
            &general,
            &compiled(&graph(
                &x.slice(&[(1..).into()]).unwrap().reshape(&[4, 7]).unwrap().pad(&[(0, 1), (0, 0)], 0).unwrap(),
                1.0,
                1.0
            ))
        ));
    }

    #[test]
    fn numbers_of_every_dtype_are_arguments_too() {
        for dtype in DType::ALL {
            let x = Tensor::randint(0, 2, &[6], DType::I32, 3).unwrap().cast(dtype).unwrap();
            x.realize().unwrap();
            for n in 0..4 {
                let k = Tensor::full(&[6], n as f64).unwrap().cast(DType::F64).unwrap();
                let number = Tensor::from_slice(&[n as f64], &[1]).unwrap().cast(dtype).unwrap();
                let filled = Tensor::full(&[], n).unwrap().cast(dtype).unwrap();
                let got = x.maximum(&filled).unwrap().cast(DType::F64).unwrap().add(&k).unwrap();
                let want = x.maximum(&number).unwrap().cast(DType::F64).unwrap();
                let want: Vec<f64> = want.to_vec::<f64>().unwrap().iter().map(|v| v + n as f64).collect();
                assert_eq!(got.to_vec::<f64>().unwrap(), want, "{dtype} {n}");
            }
        }
    }
}
