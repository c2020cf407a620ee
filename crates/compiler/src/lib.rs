//! The passes of the Winograph tensor compiler.
//!
//! [`compile()`] is a pure function of graph, target and options: it does no I/O, opens no device, reads no environment
//! variable and no clock.

pub mod compile;
pub mod explain;
pub mod kernel;
pub mod lower;
pub mod optimize;
pub mod options;
mod parallel;
pub mod program;
mod provenance;
pub mod render;
pub mod schedule;
pub mod sketch;
pub mod target;
pub mod tune;
pub mod winograd;

pub use compile::{CompileError, compile, compile_observed};
pub use explain::{Explanation, Observer};
pub use options::{Algorithm, Options};
pub use program::{Footprint, Place, Program, ProgramBuffer, Step};
pub use target::Target;
