//! Linear code as C with vector extensions, for gcc and clang.
//!
//! Each kernel is a function
//!
//! ```c
//! void symbol(void *const *args, const int64_t *params, void *scratch, int64_t begin, int64_t end);
//! ```
//!
//! that runs work items `begin..end` (see [`frame`](super::frame)). `args` are the buffers of `Code::args`, `params`
//! the parameters in order, `scratch` is memory of the calling thread of at least
//! [`scratch_bytes`](super::scratch_bytes) bytes. The text includes no header and is the same for the same code,
//! whatever the numbers of its ids are. It must be compiled without contraction of floating-point expressions and
//! without fast-math; integer arithmetic wraps by way of unsigned types.

mod access;
mod convert;
mod held;
mod instr;
mod kernel;
mod memory;
mod prelude;
mod types;

use super::RenderError;
use super::clike::identifier;
use crate::Target;
use winograph_ir::linear::Code;

/// A C translation unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CSource {
    /// The text.
    pub text: String,
    /// The symbol of each kernel, in order.
    pub symbols: Vec<String>,
}

/// Renders kernels as one translation unit.
///
/// The target names the machine in a comment at the top, so that the text of a kernel says what it was planned for;
/// which instructions are used is the C compiler's choice.
pub fn render_c(codes: &[Code], target: &Target) -> Result<CSource, RenderError> {
    let mut prelude = prelude::Prelude::default();
    let mut bodies = String::new();
    let mut symbols = Vec::with_capacity(codes.len());
    for (i, code) in codes.iter().enumerate() {
        let symbol = format!("wg_{i}_{}", identifier(&code.name));
        bodies.push_str(&kernel::Kernel::render(code, &symbol, &mut prelude)?);
        symbols.push(symbol);
    }
    let head = format!("/* {}, {} bytes a vector */\n", identifier(&target.name), target.vector_bytes);
    Ok(CSource { text: head + &prelude.text() + &bodies, symbols })
}
