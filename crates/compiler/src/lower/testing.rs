//! Evaluating expressions in tests.

use std::collections::HashMap;
use winograph_ir::indexed::{BufId, Buffer, Graph, Origin, Scope, Source, Val, ValId};
use winograph_ir::op::apply_fma;
use winograph_ir::{DType, Scalar};

/// An expression of one or two arguments, ready to be evaluated many times.
pub(super) struct Function {
    g: Graph,
    steps: Vec<ValId>,
    operands: Vec<[usize; 3]>,
    results: Vec<Scalar>,
}

/// Argument 0 or 1, all of one dtype.
pub(super) fn argument(g: &mut Graph, dtype: DType, k: i64) -> ValId {
    if g.buffers.is_empty() {
        let size = g.ints.constant(2);
        g.buffers.push(Buffer {
            name: "x".to_string(),
            dtype,
            shape: vec![size],
            origin: Origin::Argument(0),
            scope: Scope::Global,
            layout: None,
        });
    }
    let k = g.ints.constant(k);
    g.load(Source::Buffer(BufId(0)), &[k], &[], Scalar::zero(dtype))
}

impl Function {
    pub(super) fn new(g: Graph, root: ValId) -> Function {
        let steps = g.topological(&[root]);
        let places: HashMap<ValId, usize> = steps.iter().enumerate().map(|(place, &v)| (v, place)).collect();
        let operands = steps
            .iter()
            .map(|&v| {
                let mut found = [0; 3];
                for (place, c) in found.iter_mut().zip(g.children(v)) {
                    *place = places[&c];
                }
                found
            })
            .collect();
        let results = vec![Scalar::from_bool(false); steps.len()];
        Function { g, steps, operands, results }
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Val> {
        self.steps.iter().map(|&v| self.g.val(v))
    }

    pub(super) fn graph(&self) -> &Graph {
        &self.g
    }

    /// Operations other than constants, loads and reinterpretations.
    pub(super) fn ops(&self) -> usize {
        self.values().filter(|v| !matches!(v, Val::Const(_) | Val::Load { .. } | Val::Bitcast { .. })).count()
    }

    pub(super) fn eval(&mut self, x: Scalar, y: Scalar) -> Scalar {
        for place in 0..self.steps.len() {
            let [a, b, c] = self.operands[place].map(|p| self.results[p]);
            self.results[place] = match self.g.val(self.steps[place]) {
                Val::Const(s) => *s,
                Val::Load { index, .. } => match self.g.ints.as_const(index[0]) {
                    Some(0) => x,
                    _ => y,
                },
                Val::Unary { op, .. } => op.apply(a),
                Val::Binary { op, .. } => op.apply(a, b),
                Val::Fma { .. } => apply_fma(a, b, c),
                Val::Where { .. } => {
                    if a.to_bool() {
                        b
                    } else {
                        c
                    }
                }
                Val::Cast { dtype, .. } => a.cast(*dtype),
                Val::Bitcast { dtype, .. } => Scalar::from_bits(*dtype, a.bits()),
                other => panic!("{other:?}"),
            };
        }
        self.results[self.results.len() - 1]
    }

    pub(super) fn f32(&mut self, x: f32, y: f32) -> f32 {
        let bits = |x: f32| Scalar::from_bits(DType::F32, x.to_bits() as u64);
        f32::from_bits(self.eval(bits(x), bits(y)).bits() as u32)
    }

    pub(super) fn f64(&mut self, x: f64, y: f64) -> f64 {
        f64::from_bits(self.eval(Scalar::from_f64(DType::F64, x), Scalar::from_f64(DType::F64, y)).bits())
    }
}
