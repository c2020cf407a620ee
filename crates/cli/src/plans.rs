//! `--plan`: stored plans by name or from a file.

use crate::error::{Error, Result};
use winograph_compiler::optimize::stored::StoredPlans;

/// The plans that an option names: none without it or without a value.
pub(crate) fn read(option: Option<&str>) -> Result<StoredPlans> {
    let name = match option {
        None | Some("") => return Ok(StoredPlans::default()),
        Some(name) => name,
    };
    if let Some(plans) = StoredPlans::known(name) {
        return Ok(plans);
    }
    let text = std::fs::read_to_string(name).map_err(|e| {
        let known = StoredPlans::names().collect::<Vec<_>>().join(", ");
        Error::usage(format!("--plan {name}: cannot read that file ({e}), and it is none of {known}"))
    })?;
    StoredPlans::parse(&text).map_err(|e| Error::usage(format!("--plan {name}: {e}")))
}
