//! A model's plan for given inputs, without compiling or running anything.

use crate::error::{Error, Result};
use crate::run::inputs;
use std::path::Path;
use winograph::ArgSpec;
use winograph::model::{Model, Port, Value};
use winograph::search::PlanStore;
use winograph_compiler::{Explanation, Options, Program, Target};

/// A model and what is known of its inputs.
pub(crate) struct Planned {
    pub(crate) model: Model,
    pub(crate) ports: Vec<Port>,
    /// Its inputs' dtypes and sizes; `None` where some are open.
    pub(crate) specs: Option<Vec<ArgSpec>>,
}

impl Planned {
    /// A model in a file, with sizes that it leaves open as `--shape` gives them.
    pub(crate) fn load(file: &Path, shapes: &[String]) -> Result<Planned> {
        let model = Model::load(file).map_err(|e| Error::of("cannot load the model", e))?;
        let (mut ports, defaults) = (model.inputs(), model.defaults());
        let all = [&ports[..], &defaults].concat();
        let given = inputs::shapes(shapes, &all)?;
        // Others have their defaults.
        ports.extend(defaults.into_iter().filter(|p| given.iter().any(|(name, _)| *name == p.name)));
        let spec = |p: &Port| {
            let (dtype, shape) = inputs::shape_of(p, &given)?;
            Some(ArgSpec::new(dtype, &shape?.into_iter().collect::<Option<Vec<usize>>>()?))
        };
        let specs = ports.iter().map(spec).collect();
        Ok(Planned { model, ports, specs })
    }

    /// Plans it for a target, with the plans that searches have stored.
    pub(crate) fn plan(
        &self,
        specs: &[ArgSpec],
        target: &Target,
        plans: &PlanStore,
        options: &Options,
    ) -> Result<(Program, Explanation)> {
        let traced = winograph::plan_stored(specs, target, plans, options, false, |args| {
            let named: Vec<(String, Value)> =
                self.ports.iter().zip(args).map(|(p, t)| (p.name.clone(), Value::Tensor(t.clone()))).collect();
            let values = self.model.trace(&named)?;
            Ok(values.iter().flat_map(|v| v.tensors().iter().cloned()).collect())
        });
        traced.map_err(|e| Error::of("cannot compile the model", e))
    }
}
