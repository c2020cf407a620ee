//! Stored plans: text that says for some kernels of a program how they are scheduled.
//!
//! One line a kernel, `NAME: PLAN`, where the name is that of the buffer that the kernel writes, the kernel's role, or
//! `contraction` for every kernel that sums products along a loop; `#` starts a comment. Axes are the canonical ones, so
//! one line fits a kernel at any size and in whatever order a rewrite listed its ranges.

use super::access;
use super::grid;
use super::matrix_unit::{from_shared, product};
use super::plan::{Plan, PlanError};
use crate::kernel::Kernel;
use crate::lower::shared;
use crate::options::GridRule;
use crate::target::Target;

/// Plans for the kernels of a program. The first that names a kernel is its plan.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct StoredPlans {
    /// Names and plans.
    pub plans: Vec<(String, Plan)>,
}

/// Names and texts of the plans that come with the compiler.
const KNOWN: [(&str, &str); 5] = [
    ("blocks", include_str!("plans/blocks.plan")),
    ("seed", include_str!("plans/seed.plan")),
    ("seed-tf32", include_str!("plans/seed_tf32.plan")),
    ("seed-cores", include_str!("plans/seed_cores.plan")),
    ("blocks-tf32", include_str!("plans/blocks_tf32.plan")),
];

impl StoredPlans {
    /// Reads the text form.
    ///
    /// # Errors
    /// A line that is not a name and a plan.
    pub fn parse(text: &str) -> Result<StoredPlans, PlanError> {
        let mut plans = Vec::new();
        for (n, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let at = |what: &str| PlanError::Syntax(format!("line {}: {what}", n + 1));
            let (name, plan) = line.split_once(": ").ok_or_else(|| at("expected `NAME: PLAN`"))?;
            let plan = Plan::parse(plan).map_err(|e| match e {
                PlanError::Syntax(what) => at(&what),
                e => e,
            })?;
            plans.push((name.trim().to_string(), plan));
        }
        Ok(StoredPlans { plans })
    }

    /// Plans that come with the compiler, by name.
    pub fn known(name: &str) -> Option<StoredPlans> {
        let text = KNOWN.iter().find(|k| k.0 == name)?.1;
        StoredPlans::parse(text).ok()
    }

    /// The names that [`known`](StoredPlans::known) knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        KNOWN.iter().map(|k| k.0)
    }

    /// The plan for a kernel, fit for a target; `None` where none names it.
    pub fn plan(&self, kernel: &Kernel, target: &Target, rule: GridRule) -> Option<Result<Plan, PlanError>> {
        let output = kernel.stores.first().map(|s| kernel.graph.buffer(s.buffer).name.as_str());
        let named = |name: &str| {
            Some(name) == output || name == kernel.role.name() || (name == "contraction" && is_contraction(kernel))
        };
        let plan = &self.plans.iter().find(|p| named(&p.0))?.1;
        Some(fit(kernel, plan, target, rule))
    }
}

/// A plan from outside, completed for a kernel and a target.
///
/// # Errors
/// A plan that is for another kernel, another kind of target or a larger one.
pub fn fit(kernel: &Kernel, plan: &Plan, target: &Target, rule: GridRule) -> Result<Plan, PlanError> {
    let plan = match &target.gpu {
        Some(gpu) => grid::complete(kernel, plan, gpu, rule),
        None => on_cpu(plan),
    }?;
    let scheduled = plan.apply(kernel)?;
    let reads_shared = scheduled.matrix.as_ref().filter(|m| from_shared(&m.unit));
    if let Some(m) = reads_shared.filter(|_| !shared::is_tiled(&scheduled)) {
        return Err(PlanError::Mismatch(format!(
            "unit {} reads both factors from shared memory, rows of {} bytes along a `shared` factor that is contiguous in \
             both; they do not lie so",
            m.unit.name,
            winograph_ir::linear::TILE_ROW
        )));
    }
    let bytes = shared::bytes(&scheduled);
    match target.gpu.as_ref().map_or(0, |gpu| gpu.shared) {
        most if bytes > most => Err(PlanError::Mismatch(format!(
            "{bytes} bytes of shared memory, the target has at most {most} for a workgroup"
        ))),
        _ => Ok(plan),
    }
}

fn on_cpu(plan: &Plan) -> Result<Plan, PlanError> {
    let mut plan = plan.clone();
    let none_of = |kind| plan.loops.iter().flatten().all(|f| f.kind != kind);
    let shared = plan.reduces.iter().flatten().any(|f| f.kind == super::plan::Kind::Shared);
    if shared || !(none_of(super::plan::Kind::Thread) && none_of(super::plan::Kind::Matrix)) {
        return Err(PlanError::Mismatch("thread, matrix and shared factors are for GPUs".to_string()));
    }
    if plan.order.is_empty() {
        plan.order = (0..plan.loops.len()).collect();
    }
    Ok(plan)
}

/// Whether a kernel sums products along ranges that stay loops.
fn is_contraction(kernel: &Kernel) -> bool {
    let tables = access::table_ranges(kernel);
    product(kernel).is_some() && kernel.reduce_ranges().iter().all(|r| !tables.contains(r))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_plans_are_plans() {
        for name in StoredPlans::names() {
            assert!(!StoredPlans::known(name).unwrap().plans.is_empty(), "{name}");
        }
        assert_eq!(StoredPlans::known("other"), None);
    }

    #[test]
    fn lines_that_are_no_plans_are_named() {
        let e = StoredPlans::parse("# fine\nmultiply: a0=grid\nmultiply a0=grid").unwrap_err();
        assert!(e.to_string().contains("line 3"), "{e}");
        let e = StoredPlans::parse("multiply: a0=block").unwrap_err();
        assert!(e.to_string().contains("line 1") && e.to_string().contains("`block`"), "{e}");
    }
}
