//! `winograph explain conv`: what the compiler decides and why.
use crate::args::ExplainConv;
use crate::error::Result;
pub(crate) fn conv(_: &ExplainConv) -> Result<()> {
    Ok(())
}
