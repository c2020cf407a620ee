//! Runs graphs. For now through the interpreter of tensor graphs; the compiler's driver and the device take its place
//! behind [`Compiled`].

use crate::error::{Error, Result};
use crate::tensor::storage::Storage;
use std::sync::{Arc, Mutex, PoisonError};
use winograph_compiler::Options;
use winograph_ir::interp::{self, Value};
use winograph_ir::tensor::{TensorGraph, TensorOp};
use winograph_ir::verify;

/// A graph that is ready to run: planned, with its constants prepared.
pub(crate) struct Compiled {
    graph: TensorGraph,
    constants: Vec<Arc<Storage>>,
    arenas: Arenas,
}

impl Compiled {
    /// Plans a graph whose last inputs are `constants`.
    pub(crate) fn new(
        op: &'static str,
        graph: TensorGraph,
        constants: Vec<Arc<Storage>>,
        _options: &Options,
    ) -> Result<Compiled> {
        verify::tensor::verify(&graph).map_err(|e| Error::Execution { op, cause: e.to_string() })?;
        Ok(Compiled { graph, constants, arenas: Arenas::new(0) })
    }

    /// Computes the outputs from arguments that have the sizes the graph states. May be called from several threads at
    /// once.
    pub(crate) fn run(&self, op: &'static str, args: &[Arc<Storage>], outputs: &mut [&mut Storage]) -> Result<()> {
        self.arenas.with(|_arena| self.interpret(op, args, outputs))
    }

    fn interpret(&self, op: &'static str, args: &[Arc<Storage>], outputs: &mut [&mut Storage]) -> Result<()> {
        let failed = |cause: String| Error::Execution { op, cause };
        let data: Vec<&Arc<Storage>> = args.iter().chain(&self.constants).collect();
        // A slot that no result depends on does not occur in the graph.
        let mut inputs = vec![Value { dtype: winograph_ir::DType::Bool, shape: vec![0], data: vec![] }; data.len()];
        for node in self.graph.nodes() {
            if let TensorOp::Input { slot, dtype, shape } = &node.op {
                let sizes = shape.iter().map(|&s| self.graph.ints.as_const(s).and_then(|s| usize::try_from(s).ok()));
                let shape = sizes.collect::<Option<Vec<_>>>().ok_or_else(|| failed("a size is not constant".into()))?;
                let (Some(input), Some(data)) = (inputs.get_mut(*slot), data.get(*slot)) else {
                    return Err(failed(format!("input {slot} is missing")));
                };
                *input = Value::from_bytes(*dtype, &shape, data.bytes());
            }
        }
        let results = interp::tensor::run(&self.graph, &inputs, &[]).map_err(|e| failed(e.to_string()))?;
        for (out, value) in outputs.iter_mut().zip(results) {
            let bytes = value.to_bytes();
            if bytes.len() != out.bytes().len() {
                return Err(failed(format!("a result has {} bytes, not {}", bytes.len(), out.bytes().len())));
            }
            out.bytes_mut().copy_from_slice(&bytes);
        }
        Ok(())
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
