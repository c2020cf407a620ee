//! The `winograph` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    winograph_cli::run()
}
