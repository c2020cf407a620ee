//! Writing to stdout.

use crate::error::{Error, Result};
use std::io::{ErrorKind, Write as _};

/// Writes all of a text to stdout. A reader that has gone is [`Error::Closed`].
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| match e.kind() {
        ErrorKind::BrokenPipe => Error::Closed,
        _ => Error::failure("cannot write to the standard output", e),
    })
}
