//! Runs graphs. For now through an interpreter of the tensor graph; the compiler's driver and the device take its
//! place behind [`Compiled`].

use crate::error::Result;
use crate::interpret::interpret;
use crate::tensor::storage::Storage;
use std::sync::{Arc, Mutex, PoisonError};
use winograph_compiler::Options;
use winograph_ir::tensor::TensorGraph;

/// A graph that is ready to run: planned, with its constants prepared.
pub(crate) struct Compiled {
    graph: TensorGraph,
    constants: Vec<Arc<Storage>>,
    arenas: Arenas,
}

impl Compiled {
    /// Plans a graph whose last inputs are `constants`.
    pub(crate) fn new(
        _op: &'static str,
        graph: TensorGraph,
        constants: Vec<Arc<Storage>>,
        _options: &Options,
    ) -> Result<Compiled> {
        Ok(Compiled { graph, constants, arenas: Arenas::new(0) })
    }

    /// Computes the outputs from arguments that have the sizes the graph states. May be called from several threads at
    /// once.
    pub(crate) fn run(&self, op: &'static str, args: &[Arc<Storage>], outputs: &mut [&mut Storage]) -> Result<()> {
        self.arenas.with(|_arena| interpret(op, &self.graph, &[args, &self.constants].concat(), outputs))
    }
}

/// Memory for intermediates: one piece for each call that is under way, kept for the next.
struct Arenas {
    bytes: usize,
    free: Mutex<Vec<Storage>>,
}

impl Arenas {
    fn new(bytes: usize) -> Arenas {
        Arenas { bytes, free: Mutex::new(Vec::new()) }
    }

    /// Calls `f` with memory that nobody else uses meanwhile.
    fn with<R>(&self, f: impl FnOnce(&mut Storage) -> Result<R>) -> Result<R> {
        let kept = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut arena = match kept {
            Some(arena) => arena,
            None => Storage::zeroed(self.bytes)?,
        };
        let result = f(&mut arena);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(arena);
        result
    }
}
