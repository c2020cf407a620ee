//! Recurrent networks, unrolled over the steps of the sequence.

use super::super::node::{Lowering, Node};
use super::activation::by_name;
use crate::error::Result;
use crate::model::Value;
use crate::tensor::Tensor;
use winograph_ir::DType;

pub(super) fn find(op: &str) -> Option<Lowering> {
    Some(match op {
        "RNN" | "GRU" | "LSTM" => recurrent,
        _ => return None,
    })
}

/// Nodes that a step of a sequence is as much as: products, gates and activations.
const STEP: usize = 16;

/// An activation with its parameters.
struct Function {
    name: String,
    alpha: Option<f64>,
    beta: Option<f64>,
    clip: Option<f64>,
}

impl Function {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let x = match self.clip {
            Some(c) => x.maximum(-c)?.minimum(c)?,
            None => x.clone(),
        };
        by_name(&self.name, &x, self.alpha, self.beta, &|_, default| default as f64)
    }
}

/// The weights of one direction.
struct Direction {
    /// `[input, gates * hidden]`
    w: Tensor,
    /// `[hidden, gates * hidden]`
    r: Tensor,
    w_bias: Tensor,
    r_bias: Tensor,
    peephole: Option<Tensor>,
    functions: Vec<Function>,
    reverse: bool,
}

fn recurrent(n: &Node<'_>) -> Result<Vec<Value>> {
    let name = "recurrent";
    let (gates, per_direction) = match n.op() {
        "RNN" => (1, &["Tanh"][..]),
        "GRU" => (3, &["Sigmoid", "Tanh"][..]),
        _ => (4, &["Sigmoid", "Tanh", "Tanh"][..]),
    };
    let batch_first = n.flag("layout");
    let x = if batch_first { n.x(0)?.transpose(0, 1)? } else { n.x(0)?.clone() };
    let [steps, batch, _] = *x.shape() else { return Err(n.wrong("expected an input of three axes")) };
    let (w, r) = (n.x(1)?, n.x(2)?);
    let [directions, _, hidden] = *r.shape() else { return Err(n.wrong("expected weights of three axes")) };
    if r.shape()[1] != gates * hidden || w.rank() != 3 || w.shape()[..2] != r.shape()[..2] {
        return Err(n.wrong(format!("weights {:?} and {:?} for {gates} gates", w.shape(), r.shape())));
    }
    let mode = n.text("direction", "forward");
    let expected = if mode == "bidirectional" { 2 } else { 1 };
    if directions != expected {
        return Err(n.wrong(format!("{directions} directions of weights for direction {mode:?}")));
    }
    let names = n.texts("activations").unwrap_or_default();
    let (alphas, betas) =
        (n.floats("activation_alpha").unwrap_or_default(), n.floats("activation_beta").unwrap_or_default());
    let clip = n.attr("clip").map(|c| c.f as f64);
    let zeros = |shape: &[usize]| Tensor::zeros(shape, x.dtype());
    let initial = |i: usize| match n.opt(i) {
        Some(t) if batch_first => t.transpose(0, 1),
        Some(t) => Ok(t.clone()),
        None => zeros(&[directions, batch, hidden]),
    };
    let (h0, c0) = (initial(5)?, if n.op() == "LSTM" { initial(6)? } else { zeros(&[directions, batch, hidden])? });
    let lengths = match n.opt(4) {
        Some(t) => Some(t.cast(DType::I64)?.reshape_to(name, &[batch, 1])?),
        None => None,
    };
    let (mut sequences, mut last_h, mut last_c) = (Vec::new(), Vec::new(), Vec::new());
    for d in 0..directions {
        let at = d as isize;
        let bias = match n.opt(3) {
            Some(b) => b.select(0, at)?,
            None => zeros(&[2 * gates * hidden])?,
        };
        let functions = (0..per_direction.len())
            .map(|i| {
                let place = d * per_direction.len() + i;
                Function {
                    name: names.get(place).cloned().unwrap_or_else(|| per_direction[i].to_string()),
                    alpha: alphas.get(place).copied(),
                    beta: betas.get(place).copied(),
                    clip,
                }
            })
            .collect();
        let direction = Direction {
            w: w.select(0, at)?.transpose(0, 1)?,
            r: r.select(0, at)?.transpose(0, 1)?,
            w_bias: bias.narrow(0, 0, gates * hidden)?,
            r_bias: bias.narrow(0, gates * hidden, gates * hidden)?,
            peephole: match n.opt(7) {
                Some(p) if n.op() == "LSTM" => Some(p.select(0, at)?),
                _ => None,
            },
            functions,
            reverse: mode == "reverse" || d == 1,
        };
        let (mut h, mut c) = (h0.select(0, at)?, c0.select(0, at)?);
        // The part that does not depend on the steps before, for all steps at once.
        let input = x.matmul(&direction.w)?;
        let mut outputs = Vec::with_capacity(steps);
        for s in 0..steps {
            n.steps(STEP)?;
            let t = if direction.reverse { steps - 1 - s } else { s };
            let (next_h, next_c) = step(n, &direction, &input.select(0, t as isize)?, &h, &c, hidden)?;
            let shown = match &lengths {
                // Beyond its length a sequence keeps its state and gives zeros.
                Some(lengths) => {
                    let live = lengths.gt(t as i64)?;
                    h = live.where_(&next_h, &h)?;
                    c = live.where_(&next_c, &c)?;
                    live.where_(&next_h, &next_h.full_like(0)?)?
                }
                None => {
                    (h, c) = (next_h, next_c);
                    h.clone()
                }
            };
            // Each step is computed once, however often what follows reads it.
            h = h.contiguous()?;
            c = c.contiguous()?;
            outputs.push(shown);
        }
        if direction.reverse {
            outputs.reverse();
        }
        sequences.push(match outputs.is_empty() {
            true => zeros(&[0, batch, hidden])?,
            false => Tensor::stack(&outputs.iter().collect::<Vec<_>>(), 0)?,
        });
        last_h.push(h);
        last_c.push(c);
    }
    // [steps, directions, batch, hidden]
    let y = Tensor::stack(&sequences.iter().collect::<Vec<_>>(), 1)?;
    let h = Tensor::stack(&last_h.iter().collect::<Vec<_>>(), 0)?;
    let c = Tensor::stack(&last_c.iter().collect::<Vec<_>>(), 0)?;
    Ok(if batch_first {
        vec![y.permute(&[2, 0, 1, 3])?.into(), h.transpose(0, 1)?.into(), c.transpose(0, 1)?.into()]
    } else {
        vec![y.into(), h.into(), c.into()]
    })
}

/// One step from `[batch, gates * hidden]` of the input's part and the state before.
fn step(
    n: &Node<'_>,
    d: &Direction,
    input: &Tensor,
    h: &Tensor,
    c: &Tensor,
    hidden: usize,
) -> Result<(Tensor, Tensor)> {
    let gate = |t: &Tensor, i: usize| t.narrow(t.rank() as isize - 1, i * hidden, hidden);
    let f = |i: usize, x: &Tensor| d.functions[i].apply(x);
    match n.op() {
        "RNN" => {
            let sum = input.add(h.matmul(&d.r)?)?.add(&d.w_bias)?.add(&d.r_bias)?;
            Ok((f(0, &sum)?, c.clone()))
        }
        "GRU" => {
            let x = input.add(&d.w_bias)?;
            let state = h.matmul(&d.r)?.add(&d.r_bias)?;
            let update = f(0, &gate(&x, 0)?.add(gate(&state, 0)?)?)?;
            let reset = f(0, &gate(&x, 1)?.add(gate(&state, 1)?)?)?;
            let inner = if n.flag("linear_before_reset") {
                reset.mul(gate(&state, 2)?)?
            } else {
                reset.mul(h)?.matmul(&gate(&d.r, 2)?)?.add(gate(&d.r_bias, 2)?)?
            };
            let fresh = f(1, &gate(&x, 2)?.add(&inner)?)?;
            // (1 - z) * fresh + z * h
            Ok((fresh.add(update.mul(h.sub(&fresh)?)?)?, c.clone()))
        }
        _ => {
            let sum = input.add(h.matmul(&d.r)?)?.add(&d.w_bias)?.add(&d.r_bias)?.contiguous()?;
            let peep = |i: usize, gate: Tensor, c: &Tensor| match &d.peephole {
                Some(p) => gate.add(p.narrow(0, i * hidden, hidden)?.mul(c)?),
                None => Ok(gate),
            };
            let input_gate = f(0, &peep(0, gate(&sum, 0)?, c)?)?;
            let forget = match n.flag("input_forget") {
                true => input_gate.neg()?.add(1.0)?,
                false => f(0, &peep(2, gate(&sum, 2)?, c)?)?,
            };
            let fresh = f(1, &gate(&sum, 3)?)?;
            let next = forget.mul(c)?.add(input_gate.mul(&fresh)?)?.contiguous()?;
            let output = f(0, &peep(1, gate(&sum, 1)?, &next)?)?;
            Ok((output.mul(f(2, &next)?)?, next))
        }
    }
}
