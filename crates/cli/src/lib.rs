//! The `winograph` command, as a library for its program and for tests of its arguments.

mod args;
mod bench;
mod certificate;
mod compile_time;
mod conformance;
mod devices;
mod error;
mod explain;
mod explain_model;
mod export;
mod forms;
mod graphs;
mod html;
mod inspect;
mod json;
mod kernels;
mod machine;
mod matmul;
mod measure;
mod model;
mod output;
mod overhead;
mod planned;
mod plans;
mod profile;
mod progress;
mod quiet;
mod reference;
mod report;
mod run;
mod search;
mod seed;
mod serve;
mod shapes;
mod signals;
mod table;
mod warp;

use args::{BenchCommand, CheckCommand, Cli, Command, ExplainCommand};
use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the command with the arguments of this process and gives its exit code; it handles this process's signals.
pub fn run() -> ExitCode {
    signals::watch();
    let done = match Cli::parse().command {
        Command::Bench { what: BenchCommand::Conv(args) } => bench::conv(&args),
        Command::Bench { what: BenchCommand::Matmul(args) } => matmul::run(&args),
        Command::Bench { what: BenchCommand::Serve(args) } => serve::run(&args),
        Command::Bench { what: BenchCommand::Model(args) } => model::run(&args),
        Command::Bench { what: BenchCommand::Compile(args) } => compile_time::run(&args),
        Command::Bench { what: BenchCommand::Overhead(args) } => overhead::run(&args),
        Command::Explain { what: ExplainCommand::Conv(args) } => explain::conv(&args),
        Command::Explain { what: ExplainCommand::Model(args) } => explain_model::run(&args),
        Command::Explain { what: ExplainCommand::Table(args) } => table::run(&args),
        Command::Check { what: Some(CheckCommand::Graphs(args)), .. } => graphs::run(&args),
        Command::Check { what: Some(CheckCommand::Onnx(args)), .. } => conformance::run(&args),
        Command::Check { what: None, cases } => conformance::run(&cases),
        Command::Run(args) => run::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Devices(args) => devices::devices(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => e.report(),
    }
}

/// Reads arguments, the program's name first, as far as that goes without running anything.
///
/// # Errors
/// What the command would print about arguments that it refuses; help and version are printed in the same way.
pub fn check(args: impl Iterator<Item = OsString>) -> std::result::Result<(), String> {
    let of = |e: error::Error| e.to_string();
    match Cli::try_parse_from(args).map_err(|e| e.to_string())?.command {
        Command::Bench { what: BenchCommand::Conv(args) } => {
            machine::Name::parse(&args.conv.device).map_err(of)?;
            shapes::Case::new(&args.conv).map(drop).map_err(of)
        }
        Command::Explain { what: ExplainCommand::Conv(args) } => shapes::Case::new(&args.conv).map(drop).map_err(of),
        Command::Run(args) => run::check(&args).map_err(of),
        _ => Ok(()),
    }
}
