//! Barriers by dependence.
//!
//! Takes linear code in which threads of a workgroup share memory; leaves it with a barrier wherever one thread may read
//! what another one wrote since the last barrier, or write what another one read: also from one iteration of a loop to
//! the next. Two writes with nothing read in between need none: those who share memory write elements of their own. A
//! loop that needs a barrier before its first access gets it in front of it, not in each iteration.

use rustc_hash::FxHashSet;
use winograph_ir::indexed::Scope;
use winograph_ir::linear::{Code, LoopKind, Memory, Stmt};

/// Shared memory touched since the last barrier.
#[derive(Clone, Default)]
struct Pending {
    written: FxHashSet<Memory>,
    read: FxHashSet<Memory>,
    /// Written by copies that have begun and that nobody has waited for. Who reads it reads other elements, until the
    /// wait.
    copied: FxHashSet<Memory>,
}

impl Pending {
    fn join(&mut self, other: &Pending) {
        self.written.extend(&other.written);
        self.read.extend(&other.read);
        self.copied.extend(&other.copied);
    }

    /// Whether what comes next has to wait.
    fn before(&self, next: &Pending) -> bool {
        !self.written.is_disjoint(&next.read) || !self.read.is_disjoint(&next.written)
    }
}

/// Places the barriers that code needs.
pub fn place(code: &mut Code) {
    let local = |n: usize| Memory::Local(n as u32);
    let locals = code.locals.iter().enumerate().filter(|(_, l)| l.scope == Scope::Shared);
    let shared: FxHashSet<Memory> = locals.map(|(n, _)| local(n)).collect();
    if !shared.is_empty() {
        code.body = body(std::mem::take(&mut code.body), &shared, &mut Pending::default());
    }
}

/// What statements touch, those of bodies inside included.
fn touched(stmts: &[Stmt], shared: &FxHashSet<Memory>, out: &mut Pending) {
    for s in stmts {
        match s {
            Stmt::Let { instr, .. } => {
                let all = instr.access().into_iter().chain(instr.tiles().iter().map(|t| &t.access));
                out.read.extend(all.map(|a| a.mem).filter(|m| shared.contains(m)));
            }
            Stmt::Store { access, .. } if shared.contains(&access.mem) => {
                out.written.insert(access.mem);
            }
            Stmt::Loop { body, .. } | Stmt::If { body, .. } | Stmt::Async { body } => touched(body, shared, out),
            _ => {}
        }
    }
}

fn body(stmts: Vec<Stmt>, shared: &FxHashSet<Memory>, pending: &mut Pending) -> Vec<Stmt> {
    let mut out = Vec::with_capacity(stmts.len());
    for s in stmts {
        if matches!(s, Stmt::Barrier(_)) {
            *pending = Pending { copied: std::mem::take(&mut pending.copied), ..Pending::default() };
            out.push(s);
            continue;
        }
        if matches!(s, Stmt::Wait(_)) {
            pending.written.extend(&pending.copied);
            out.push(s);
            continue;
        }
        let mut next = Pending::default();
        touched(std::slice::from_ref(&s), shared, &mut next);
        let parallel = matches!(s, Stmt::Loop { kind: LoopKind::Grid | LoopKind::Thread, .. });
        if !parallel && pending.before(&next) {
            out.push(Stmt::Barrier(Scope::Shared));
            *pending = Pending { copied: std::mem::take(&mut pending.copied), ..Pending::default() };
        }
        match s {
            Stmt::Loop { range, kind, body: inner } => {
                if kind == LoopKind::Serial {
                    // What the last iteration leaves is what the next one finds.
                    let mut end = pending.clone();
                    body(inner.clone(), shared, &mut end);
                    pending.join(&end);
                }
                let inner = body(inner, shared, pending);
                out.push(Stmt::Loop { range, kind, body: inner });
            }
            Stmt::Async { .. } => {
                pending.copied.extend(&next.written);
                out.push(s);
            }
            s => {
                // Under a condition there may be no barrier; all that is touched there was waited for in front of it.
                pending.join(&next);
                out.push(s);
            }
        }
    }
    out
}
