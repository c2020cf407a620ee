//! A convolution written and compiled in each of the ways that can be asked for.

use crate::args::{Algo, Weights};
use crate::error::{Error, Result};
use crate::shapes::Case;
use std::sync::Arc;
use winograph::device::Device;
use winograph::{ArgSpec, AxisTile, DType, Function, FunctionOptions, Tensor, compile_with};
use winograph_compiler::winograd::cook_toom::Transforms;
use winograph_compiler::winograd::cost;
use winograph_compiler::{Algorithm, Explanation, Options};

/// What became of the wish for an algorithm.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    /// Whether the algorithm is used.
    pub(crate) applied: bool,
    /// Why.
    pub(crate) reason: String,
    /// Outputs per tile; empty for the direct sum.
    pub(crate) tile: Vec<AxisTile>,
    /// Worst-case amplification of the tile's matrices.
    pub(crate) amplification: Option<f64>,
}

impl Verdict {
    fn no(reason: String) -> Verdict {
        Verdict { reason, ..Verdict::default() }
    }

    /// The verdict on the tensor-level form.
    fn tensor(transforms: &[Transforms], reason: String) -> Verdict {
        Verdict {
            applied: true,
            reason,
            tile: transforms.iter().map(|t| t.m.into()).collect(),
            amplification: Some(cost::amplification(transforms)),
        }
    }

    /// What the compiler says about a sum of products that it was given.
    fn of(algo: Algo, explanation: &Explanation) -> Verdict {
        let windows = &explanation.windows;
        let rewritten = windows.iter().find(|w| w.applied);
        // A sum that is not rewritten has one window, or none if nothing slides.
        if algo == Algo::Direct {
            return Verdict { applied: true, ..Verdict::no("the direct form was asked for".to_string()) };
        }
        let reason = match rewritten.or(windows.iter().max_by_key(|w| w.taps.len())) {
            Some(w) => w.reason.clone(),
            None => "there is no sum of products".to_string(),
        };
        match rewritten {
            Some(w) => Verdict { applied: true, reason, tile: w.tile.clone(), amplification: w.amplification },
            // The direct sum is what `auto` may decide on.
            None => Verdict { applied: algo != Algo::Graph, ..Verdict::no(reason) },
        }
    }
}

/// Numbers to compute with: standard normal inputs, and weights that keep the variance of outputs near 1.
pub(crate) struct Data {
    pub(crate) x: Tensor,
    pub(crate) w: Tensor,
    pub(crate) x_values: Vec<f32>,
    pub(crate) w_values: Vec<f32>,
}

impl Data {
    pub(crate) fn new(case: &Case) -> Result<Data> {
        let make = |shape: &[usize], seed: u64, scale: f32| -> winograph::Result<(Tensor, Vec<f32>)> {
            let values: Vec<f32> =
                Tensor::randn(shape, DType::F32, seed)?.to_vec::<f32>()?.iter().map(|v| v * scale).collect();
            Ok((Tensor::from_slice(&values, shape)?, values))
        };
        let scale = 1.0 / (case.terms().max(1) as f64).sqrt();
        let made = make(&case.input, 1, 1.0).and_then(|x| Ok((x, make(&case.weight, 2, scale as f32)?)));
        let ((x, x_values), (w, w_values)) = made.map_err(|e| Error::of("cannot make the tensors", e))?;
        Ok(Data { x, w, x_values, w_values })
    }
}

/// The compiler's options for an algorithm.
pub(crate) fn options(algo: Algo, case: &Case) -> Options {
    let algorithm = match algo {
        Algo::Direct | Algo::Tensor => return Options { algorithm: Algorithm::Direct, ..case.rules.clone() },
        Algo::Graph => Algorithm::Winograd,
        Algo::Auto => Algorithm::Auto,
    };
    Options { algorithm, points: case.points.clone(), ..case.rules.clone() }
}

/// Dtypes and shapes of the function's arguments.
pub(crate) fn arguments(case: &Case) -> Vec<ArgSpec> {
    let mut out = vec![ArgSpec::new(DType::F32, &case.input)];
    if case.weights == Weights::EachCall {
        out.push(ArgSpec::new(DType::F32, &case.weight));
    }
    out
}

/// Writes the convolution in a form. `args` are the function's, `w` is the weight if it is none of them; what the
/// tensor-level form chose goes to `chosen`.
pub(crate) fn write(
    algo: Algo,
    case: &Case,
    args: &[Tensor],
    w: &Tensor,
    chosen: &mut Option<Verdict>,
) -> winograph::Result<Vec<Tensor>> {
    let (x, w) = (&args[0], args.get(1).unwrap_or(w));
    let options = case.options();
    if algo != Algo::Tensor {
        return Ok(vec![x.conv_direct(w, None, &options)?]);
    }
    let mut options = options;
    options.rule.tolerance = case.rules.tolerance;
    // The rule of the options has the tile.
    let form = x.conv_tensor_level(w, None, &options, None, case.points.as_deref())?;
    *chosen = Some(Verdict::tensor(&form.transforms, form.reason));
    Ok(vec![form.tensor])
}

/// Completes what [`write`] left in `chosen`.
pub(crate) fn verdict(algo: Algo, chosen: Option<Verdict>, explanation: &Explanation) -> Verdict {
    chosen.unwrap_or_else(|| Verdict::of(algo, explanation))
}

/// A compiled form.
pub(crate) struct Form {
    pub(crate) algo: Algo,
    pub(crate) verdict: Verdict,
    /// `None` where the form does not apply and nothing was compiled.
    pub(crate) function: Option<Function>,
}

/// Compiles a form for a device.
pub(crate) fn build(algo: Algo, case: &Case, w: &Tensor, device: &Arc<dyn Device>) -> Result<Form> {
    let how =
        FunctionOptions { device: Some(device.clone()), compiler: Some(options(algo, case)), ..Default::default() };
    let mut chosen = None;
    match compile_with(&arguments(case), &how, |args| write(algo, case, args, w, &mut chosen)) {
        Ok(function) => {
            let verdict = verdict(algo, chosen, function.explanation());
            Ok(Form { algo, verdict, function: Some(function) })
        }
        Err(winograph::Error::Inapplicable { reason, .. }) => {
            Ok(Form { algo, verdict: Verdict::no(reason), function: None })
        }
        Err(e) => Err(Error::of(&format!("cannot compile the {} form", algo.name()), e)),
    }
}
