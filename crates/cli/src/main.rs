//! The `winograph` command.

mod args;
mod bench;
mod compile_time;
mod devices;
mod error;
mod explain;
mod forms;
mod graphs;
mod json;
mod kernels;
mod machine;
mod measure;
mod output;
mod overhead;
mod plans;
mod progress;
mod reference;
mod report;
mod seed;
mod shapes;

use args::{BenchCommand, CheckCommand, Cli, Command, ExplainCommand};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Bench { what: BenchCommand::Conv(args) } => bench::conv(&args),
        Command::Bench { what: BenchCommand::Compile(args) } => compile_time::run(&args),
        Command::Bench { what: BenchCommand::Overhead(args) } => overhead::run(&args),
        Command::Explain { what: ExplainCommand::Conv(args) } => explain::conv(&args),
        Command::Check { what: CheckCommand::Graphs(args) } => graphs::run(&args),
        Command::Devices(args) => devices::devices(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => e.report(),
    }
}
