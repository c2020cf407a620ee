//! Vectors that are loaded once and multiplied several times.
//!
//! gcc reads such an operand again from memory in every multiply-add, which makes a loop of register blocks wait for
//! loads. An empty statement that could change the vector leaves it no choice but to keep the register; it computes
//! nothing, so that no bit depends on it. clang keeps it anyway, and gets none.

use super::prelude::Prelude;
use super::types::CType;
use winograph_ir::DType;
use winograph_ir::linear::{Code, Instr, Reg, Stmt};

/// The vector sizes in bytes that have a register of their own, with what says so to the preprocessor and the
/// constraint that names it.
const REGISTERS: [(u32, &str, &str); 4] = [
    (16, "defined(__SSE2__)", "+v"),
    (32, "defined(__AVX__)", "+v"),
    (64, "defined(__AVX512F__)", "+v"),
    (16, "defined(__aarch64__)", "+w"),
];

/// Which registers of a kernel are to stay where they are loaded to.
pub(super) struct Held(Vec<bool>);

impl Held {
    /// Vectors of floats that are loaded and are factors of two fused multiply-adds or more.
    pub(super) fn of(code: &Code) -> Held {
        let mut factors = vec![0u32; code.regs.len()];
        let mut loaded = vec![false; code.regs.len()];
        code.for_each_stmt(&mut |s| {
            let Stmt::Let { reg, instr } = s else { return };
            match instr {
                Instr::Fma { a, b, .. } => {
                    for r in [a, b] {
                        if let Some(n) = factors.get_mut(r.0 as usize) {
                            *n += 1;
                        }
                    }
                }
                Instr::Load { .. } => {
                    let ty = code.regs.get(reg.0 as usize);
                    if let (Some(l), Some(ty)) = (loaded.get_mut(reg.0 as usize), ty) {
                        *l = ty.lanes > 1 && matches!(ty.dtype, DType::F32 | DType::F64);
                    }
                }
                _ => {}
            }
        });
        Held(loaded.into_iter().zip(factors).map(|(loaded, n)| loaded && n > 1).collect())
    }

    pub(super) fn contains(&self, reg: Reg) -> bool {
        self.0.get(reg.0 as usize).is_some_and(|&held| held)
    }
}

impl Prelude {
    /// The macro that holds a vector of type `t`; `None` where it fits no register of any machine.
    pub(super) fn hold(&mut self, t: CType) -> Option<String> {
        let bytes = t.bytes() as u32;
        let fits: Vec<_> = REGISTERS.iter().filter(|r| r.0 == bytes).collect();
        if fits.is_empty() {
            return None;
        }
        Some(self.helper(format!("WG_HOLD{bytes}"), |_, name| {
            let mut out = String::new();
            for (n, (_, condition, constraint)) in fits.iter().enumerate() {
                let directive = if n == 0 { "if" } else { "elif" };
                out.push_str(&format!("#{directive} defined(__GNUC__) && !defined(__clang__) && {condition}\n"));
                out.push_str(&format!("#define {name}(x) __asm__(\"\" : \"{constraint}\"(x))\n"));
            }
            out + &format!("#else\n#define {name}(x)\n#endif\n")
        }))
    }
}
