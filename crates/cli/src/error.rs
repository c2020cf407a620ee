//! What goes wrong in the command: wrong usage or failure, told on stderr in one sentence and a cause.

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;
use winograph_compiler::compile::CompileError;

/// Result of a command.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The caller asked for something that cannot be: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// It could not be done: exit code 1.
    #[error("{what}")]
    Failure {
        /// What was tried.
        what: String,
        /// Why it failed.
        cause: String,
    },
    /// Nobody reads the output any more: no message.
    #[error("nobody reads the output")]
    Closed,
}

impl Error {
    pub(crate) fn usage(text: impl Into<String>) -> Error {
        Error::Usage(text.into())
    }

    pub(crate) fn failure(what: impl Into<String>, cause: impl Display) -> Error {
        Error::Failure { what: what.into(), cause: cause.to_string() }
    }

    /// Sorts an error of the library: what the caller gave wrong is wrong usage.
    pub(crate) fn of(what: &str, e: winograph::Error) -> Error {
        use winograph::Error as E;
        match e {
            E::Shape { .. }
            | E::DType { .. }
            | E::Argument { .. }
            | E::TooLarge { .. }
            | E::Rank { .. }
            | E::Inapplicable { .. } => Error::Usage(e.to_string()),
            E::Execution { op: "environment", cause } => Error::Usage(cause.to_string()),
            E::Execution { cause, .. } => {
                if let Some(CompileError::Options(text)) = cause.downcast_ref::<CompileError>() {
                    return Error::Usage(text.clone());
                }
                let mut text = cause.to_string();
                let mut next = cause.source();
                while let Some(e) = next {
                    text.push_str(&format!(": {e}"));
                    next = e.source();
                }
                Error::failure(what, text)
            }
            other => Error::failure(what, other),
        }
    }

    /// Tells it on stderr and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let mut stderr = std::io::stderr();
        // Where stderr is closed too, the exit code says enough.
        match self {
            Error::Usage(text) => {
                let _ = writeln!(stderr, "error: {text}\n\nFor more information, try '--help'.");
                ExitCode::from(2)
            }
            Error::Failure { what, cause } => {
                let _ = writeln!(stderr, "error: {what}\ncause: {cause}");
                ExitCode::from(1)
            }
            Error::Closed => ExitCode::SUCCESS,
        }
    }
}
