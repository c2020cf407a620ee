//! Whole vectors: conditions that all lanes of a vector meet, or none.
//!
//! Takes linear code; leaves accesses whose condition counts in whole vectors without the lane in it, as rows of 56
//! elements in vectors of 4 have it: they are one access or none, and copies that go on by themselves. What stands in for
//! the condition is that of the lane which is the last to meet it.

use winograph_ir::int::{IntId, Ints};
use winograph_ir::linear::{Access, Code, Stmt};

/// Makes conditions of whole vectors free of the lane.
pub fn whole(code: &mut Code) {
    let Code { ints, body, .. } = code;
    stmts(ints, body);
}

fn stmts(ints: &mut Ints, body: &mut [Stmt]) {
    for s in body {
        match s {
            Stmt::Let { instr, .. } => instr.accesses_mut().into_iter().for_each(|a| access(ints, a)),
            Stmt::Store { access: a, .. } => access(ints, a),
            Stmt::Loop { body, .. } | Stmt::If { body, .. } | Stmt::Async { body } => stmts(ints, body),
            _ => {}
        }
    }
}

fn access(ints: &mut Ints, a: &mut Access) {
    let Some((lane, lanes)) = a.lane.and_then(|l| Some((l, ints.const_size(l)?))) else { return };
    let mut changed = false;
    let gate: Vec<IntId> = a
        .gate
        .iter()
        .map(|&e| {
            // `rest + lane >= 0` or `rest - lane >= 0`: whether the first lane's value and the last one's have the same sign.
            let (step, rest) = match ints.split_linear(e, lane) {
                Some((step @ (1 | -1), rest)) => (step, rest),
                _ => return e,
            };
            let (terms, c) = ints.as_sum(rest);
            let multiple = ints.divisor_of_sum(&terms, if step < 0 { c + 1 } else { c });
            if !multiple.is_multiple_of(lanes as u64) {
                return e;
            }
            changed = true;
            if step < 0 { ints.add_const(rest, 1 - lanes) } else { rest }
        })
        .collect();
    // A condition that never holds stays as it is.
    if changed && let Some(gate) = ints.conjunction(&gate) {
        a.gate = gate;
    }
}
