//! `winograph devices`: what this machine has.
use crate::args::DevicesArgs;
use crate::error::Result;
pub(crate) fn devices(_: &DevicesArgs) -> Result<()> {
    Ok(())
}
