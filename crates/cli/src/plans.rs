//! `--plan`: stored plans by name or from a file.

use crate::error::{Error, Result};
use winograph_compiler::Explanation;
use winograph_compiler::explain::NestReport;
use winograph_compiler::optimize::stored::StoredPlans;
use winograph_compiler::tune::{Origin, SumReport};

/// The plans that an option names: none without it or without a value.
pub(crate) fn read(option: Option<&str>) -> Result<StoredPlans> {
    let name = match option {
        None | Some("") => return Ok(StoredPlans::default()),
        Some(name) => name,
    };
    if let Some(plans) = StoredPlans::known(name) {
        return Ok(plans);
    }
    let text = winograph::files::read(name).and_then(|b| String::from_utf8(b).map_err(std::io::Error::other));
    let text = text.map_err(|e| {
        let known = StoredPlans::names().collect::<Vec<_>>().join(", ");
        Error::usage(format!("--plan {name}: cannot read that file ({e}), and it is none of {known}"))
    })?;
    StoredPlans::parse(&text).map_err(|e| Error::usage(format!("--plan {name}: {e}")))
}

fn named(explanation: &Explanation) -> impl Iterator<Item = &NestReport> {
    explanation.kernels.iter().flat_map(|k| &k.nests).filter(|n| n.stored.is_some())
}

/// Refuses plans that name no kernel at all.
pub(crate) fn check_used<'a>(option: Option<&str>, all: impl IntoIterator<Item = &'a Explanation>) -> Result<()> {
    let Some(name) = option.filter(|n| !n.is_empty()) else { return Ok(()) };
    let (mut outputs, mut used) = (Vec::new(), false);
    for e in all {
        used |= named(e).next().is_some();
        outputs.extend(e.kernels.iter().flat_map(|k| &k.nests).map(|n| format!("{} ({})", n.output, n.role.name())));
    }
    if used {
        return Ok(());
    }
    outputs.dedup();
    Err(Error::usage(format!(
        "--plan {name} names no kernel: expected `contraction`, or the buffer or role of one of {}",
        outputs.join(", ")
    )))
}

/// What became of the plans for a form's kernels, a line each.
pub(crate) fn fates(explanation: &Explanation) -> Vec<String> {
    let kernels = named(explanation).map(|n| match n.stored.as_ref() {
        Some(Err(why)) => format!("the stored plan for {} does not fit and was replaced: {why}", n.output),
        _ => format!("the stored plan for {} was replayed: {}", n.output, n.name),
    });
    kernels.chain(explanation.sums.iter().flat_map(searched)).collect()
}

/// What became of the plan that a search has found for a sum, if it has; a line each.
pub(crate) fn searched(sum: &SumReport) -> Vec<String> {
    let mut out = Vec::new();
    if sum.origin != Origin::Heuristics {
        let asked = sum.asked.to_string().trim_end().replace('\n', "; ");
        out.push(format!("the plan for {} came from search: {asked}", sum.buffer));
    }
    out.extend(sum.refused.iter().map(|why| format!("a plan from search for {} was left out: {why}", sum.buffer)));
    out
}
