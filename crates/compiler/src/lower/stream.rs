//! Streaming: what is not read soon is stored past the caches.
//!
//! Takes linear code for a processor; marks memory of the caller's as [streamed](winograph_ir::linear::MemoryDecl::streamed)
//! that is larger than the last-level cache, which has lost its beginning when somebody reads it, or where a tuning asks
//! for it. A store into a cache reads the line first; one of whole lines past it does not.

use crate::target::Target;
use crate::tune::Stores;
use winograph_ir::indexed::Scope;
use winograph_ir::int::{IntId, IntNode, Ints};
use winograph_ir::linear::{Access, Code, Instr, Memory, Stmt};

/// Smaller results stay in caches, whatever these are: nothing else is worth a try.
const LEAST: i64 = 1 << 20;
/// Most bytes of a last-level cache that count for a thread: many cores share one that is larger. A core of a Xeon with 480 MiB
/// writes 64 MiB again and again at 23 GB/s, 128 MiB at 10, and past the caches at 25, two of them twice that
/// (`bench/bandwidth.c`).
const MOST_CACHE: i64 = 32 << 20;

/// How the memory of argument `n` is stored, where that is a question; streamed if it is asked for or, by the size, nothing is.
pub fn stream(code: &mut Code, n: usize, target: &Target, asked: Option<Stores>) -> Option<Stores> {
    let decl = code.args.get(n).filter(|d| d.written && d.scope == Scope::Global)?;
    let bytes = code.ints.bounds(decl.layout.len).1.saturating_mul(decl.dtype.size() as i64);
    let lanes = target.lanes(decl.dtype.size());
    let mut uses = Uses::default();
    uses.look(code, &code.body, Memory::Arg(n as u32), lanes);
    if bytes < LEAST || !uses.whole || uses.read {
        return None;
    }
    let cache = (target.l3 as i64).min(MOST_CACHE.saturating_mul(target.threads.max(1) as i64));
    let stores = asked.unwrap_or(if bytes > cache { Stores::Streamed } else { Stores::Cached });
    code.args[n].streamed = stores == Stores::Streamed;
    Some(stores)
}

/// What is done to one memory.
#[derive(Default)]
struct Uses {
    read: bool,
    /// Whether whole vectors are stored at multiples of their size.
    whole: bool,
}

impl Uses {
    fn look(&mut self, code: &Code, body: &[Stmt], mem: Memory, lanes: i64) {
        for s in body {
            match s {
                Stmt::Let { instr: Instr::Load { access, .. }, .. } if access.mem == mem => self.read = true,
                Stmt::Store { access, value } if access.mem == mem => {
                    let stored = code.regs.get(value.0 as usize).map_or(1, |t| t.lanes as i64);
                    self.whole |= stored == lanes && is_aligned(&code.ints, access, stored);
                }
                Stmt::Loop { body, .. } | Stmt::If { body, .. } => self.look(code, body, mem, lanes),
                _ => {}
            }
        }
    }
}

/// Whether an access is to so many neighbours, from a multiple of their number on, and to all of them or none.
pub(crate) fn is_aligned(ints: &Ints, access: &Access, lanes: i64) -> bool {
    let Some(lane) = access.lane.filter(|_| access.dynamic.is_none() && lanes > 1) else { return false };
    let (mut terms, constant) = ints.as_sum(access.addr);
    let place = terms.iter().position(|&(e, step)| step == 1 && *ints.node(e) == IntNode::Range(lane));
    let Some(place) = place else { return false };
    terms.swap_remove(place);
    let depends = |e: IntId| ints.depends_on(e, lane);
    let uniform = !access.gate.iter().chain(terms.iter().map(|(e, _)| e)).any(|&e| depends(e));
    uniform && ints.divisor_of_sum(&terms, constant).is_multiple_of(lanes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use winograph_ir::text::parse_linear;

    /// Code that copies rows of `rows` vectors of sixteen, to rows of `pitch` from `from` on.
    fn copy(rows: i64, pitch: i64, from: i64, gate: &str) -> Code {
        let len = rows * pitch + from;
        parse_linear(&format!(
            "kernel copy other\narg x: f32[{len}] argument 0 global layout [0:1] len {len}\n\
             arg y: f32[{len}] output 0 global layout [0:1] len {len} written\nbody {{\nloop i:{rows} grid {{\n\
             %0: f32x16 = load lane k:16 x[{pitch}*i + k] @ {pitch}*i + k\n\
             store %0, lane k:16 y[{pitch}*i + k + {from}] @ {pitch}*i + k + {from}{gate}\n}}\n}}\n"
        ))
        .unwrap()
    }

    #[test]
    fn what_a_cache_does_not_hold_is_streamed_and_what_a_tuning_asks_for() {
        let target = Target { l3: 4 << 20, ..Target::cpu(64) };
        let stored = |rows: i64, asked| {
            let mut code = copy(rows, 16, 0, "");
            let stores = stream(&mut code, 1, &target, asked);
            assert_eq!(stores == Some(Stores::Streamed), code.args[1].streamed);
            assert!(!code.args[0].streamed && stream(&mut code, 0, &target, asked).is_none());
            stores
        };
        let (small, large, larger) = (1 << 13, 1 << 15, (1 << 16) + 1);
        assert_eq!(stored(small, Some(Stores::Streamed)), None);
        assert_eq!(
            [None, Some(Stores::Streamed)].map(|asked| stored(large, asked)),
            [Stores::Cached, Stores::Streamed].map(Some)
        );
        assert_eq!(
            [None, Some(Stores::Cached)].map(|asked| stored(larger, asked)),
            [Stores::Streamed, Stores::Cached].map(Some)
        );
        // Of a cache that many cores share a thread's part counts.
        let shared = Target { l3: 480 << 20, threads: 1, ..target };
        let mut code = copy((1 << 19) + 1, 16, 0, "");
        assert_eq!(stream(&mut code, 1, &shared, None), Some(Stores::Streamed));
    }

    #[test]
    fn vectors_between_multiples_of_their_size_and_parts_of_vectors_are_not() {
        let target = Target { l3: 1 << 10, ..Target::cpu(64) };
        for (pitch, from, gate, streamed) in [
            (16, 0, "", true),
            (32, 16, "", true),
            (20, 0, "", false),
            (16, 4, "", false),
            (16, 0, " if k < 7", false),
            (16, 0, " if i < 9", true),
        ] {
            let mut code = copy(1 << 15, pitch, from, gate);
            let stores = stream(&mut code, 1, &target, None);
            assert_eq!(stores, streamed.then_some(Stores::Streamed), "{pitch} {from}{gate}");
        }
    }
}
