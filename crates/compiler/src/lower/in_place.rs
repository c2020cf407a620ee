//! In place: a result takes the memory of an operand that is read for the last time, element by element.
//!
//! Takes the linear codes of a program's launches and the program's buffers behind their arguments; where a launch reads
//! another buffer of the compiler's own for the last time, and each element right before the element of the result at the
//! same place is stored, leaves one argument for both, and the operand's buffer in all later launches. A residual that is
//! added to a product is such an operand: its cache lines are then read and written, where those of a result of its own
//! would be fetched too, and there is one buffer less.

use rustc_hash::FxHashMap;
use winograph_ir::indexed::{BufId, Origin, Scope};
use winograph_ir::int::RangeId;
use winograph_ir::linear::{Access, Code, Instr, LoopKind, Memory, Stmt};

/// Makes what results can be take the place of operands. `prepared` says which launches run once, `repeated` which are in
/// loops of the host; gives the buffers that are gone with those that took them in.
pub fn in_place(
    codes: &mut [Code],
    args: &mut [Vec<BufId>],
    prepared: &[bool],
    repeated: &[bool],
) -> Vec<(BufId, BufId)> {
    let mut last: FxHashMap<BufId, usize> = FxHashMap::default();
    let mut writers: FxHashMap<BufId, Vec<usize>> = FxHashMap::default();
    for (n, (code, list)) in codes.iter().zip(args.iter()).enumerate() {
        for (decl, &b) in code.args.iter().zip(list) {
            last.insert(b, n);
            if decl.written {
                writers.entry(b).or_default().push(n);
            }
        }
    }
    let mut out = Vec::new();
    for n in 0..codes.len() {
        // Memory that is prepared is read again in the next run, an operand of a chunk perhaps in that of the next one.
        if prepared[n] || repeated[n] {
            continue;
        }
        let runs =
            |b: BufId| writers.get(&b).is_some_and(|w| !w.is_empty() && w.iter().all(|&w| !prepared[w] && w <= n));
        let dies = |b: BufId| runs(b) && last.get(&b) == Some(&n);
        let Some((result, operand)) = pair(&codes[n], &args[n], &|b| dies(b)) else { continue };
        let (from, to) = (args[n][result], args[n][operand]);
        if writers.get(&from).map(Vec::as_slice) != Some(&[n]) {
            continue;
        }
        merge(&mut codes[n], result, operand);
        args[n][result] = to;
        args[n].remove(operand);
        for list in &mut args[n + 1..] {
            list.iter_mut().filter(|b| **b == from).for_each(|b| *b = to);
        }
        if let Some(end) = last.remove(&from) {
            last.insert(to, end);
        }
        writers.entry(to).or_default().push(n);
        out.push((from, to));
    }
    out
}

/// The places of a result and of an operand whose memory it can take among a code's arguments. `dies` says which buffers
/// nobody reads later.
fn pair(code: &Code, args: &[BufId], dies: &dyn Fn(BufId) -> bool) -> Option<(usize, usize)> {
    let own = |n: usize| code.args[n].origin == Origin::Internal && code.args[n].scope == Scope::Global;
    let once = |n: usize| args.iter().filter(|b| **b == args[n]).count() == 1;
    let places = || (0..code.args.len()).filter(|&n| own(n) && once(n));
    let results: Vec<usize> = places().filter(|&n| code.args[n].written && !code.args[n].streamed).collect();
    results.into_iter().find_map(|result| {
        let operand = places().find(|&operand| {
            let (a, b) = (&code.args[result], &code.args[operand]);
            !b.written
                && (a.dtype, code.ints.as_const(a.layout.len)) == (b.dtype, code.ints.as_const(b.layout.len))
                && dies(args[operand])
                && fits(code, Memory::Arg(result as u32), Memory::Arg(operand as u32))
        })?;
        Some((result, operand))
    })
}

/// Whether each element of the result is stored once, and each load of the operand comes before the store to its place, in the
/// same iteration.
fn fits(code: &Code, result: Memory, operand: Memory) -> bool {
    let mut found = Found { stored: 0, sound: true, loaded: false };
    found.look(code, &code.body, result, operand, 1);
    let Memory::Arg(n) = result else { return false };
    let mut shape = code.args[n as usize].shape.iter().map(|&s| code.ints.as_const(s));
    let elements = shape.try_fold(1i64, |all, s| all.checked_mul(s?));
    // All elements of a result are stored: where there are no more stores than elements, none is stored twice.
    found.sound && found.loaded && elements == Some(found.stored)
}

struct Found {
    /// Elements that are stored in all.
    stored: i64,
    sound: bool,
    loaded: bool,
}

impl Found {
    fn look(&mut self, code: &Code, body: &[Stmt], result: Memory, operand: Memory, times: i64) {
        let size = |r: RangeId| code.ints.const_size(r);
        let mut loads: Vec<&Access> = Vec::new();
        for s in body {
            match s {
                Stmt::Let { instr: Instr::Load { access, .. }, .. } if access.mem == operand => {
                    self.loaded = true;
                    self.sound &= access.dynamic.is_none();
                    loads.push(access);
                }
                Stmt::Let { instr, .. } => {
                    self.sound &= instr.access().is_none_or(|a| a.mem != operand && a.mem != result);
                    self.sound &= instr.tiles().is_empty();
                }
                Stmt::Store { access, .. } if access.mem == result => {
                    loads.retain(|l| (l.addr, l.lane, &l.gate) != (access.addr, access.lane, &access.gate));
                    let lanes = access.lane.map_or(Some(1), size);
                    let plain = access.gate.is_empty() && access.dynamic.is_none();
                    match lanes.and_then(|l| times.checked_mul(l)?.checked_add(self.stored)).filter(|_| plain) {
                        Some(stored) => self.stored = stored,
                        None => self.sound = false,
                    }
                }
                Stmt::Store { access, .. } => self.sound &= access.mem != operand,
                Stmt::Loop { range, kind, body } => {
                    // What is summed or stored in every step of a reduction is stored more than once.
                    match size(*range).and_then(|s| times.checked_mul(s)) {
                        Some(times) => self.look(code, body, result, operand, times),
                        None => self.sound = false,
                    }
                    self.sound &= !matches!(kind, LoopKind::Thread);
                }
                Stmt::Prefetch { .. } | Stmt::Var { .. } | Stmt::Set { .. } => {}
                Stmt::If { .. } | Stmt::Async { .. } | Stmt::Wait(_) | Stmt::Barrier(_) => self.sound = false,
            }
        }
        self.sound &= loads.is_empty();
    }
}

/// Makes both arguments one, the result's, which is removed from the operand's place. What is loaded is indexed as what is
/// stored to its place.
fn merge(code: &mut Code, result: usize, operand: usize) {
    let (from, to) = (Memory::Arg(operand as u32), Memory::Arg(result as u32));
    let number = |mem: &mut Memory| match mem {
        Memory::Arg(n) if *n as usize > operand => *n -= 1,
        _ => {}
    };
    fn all(body: &mut [Stmt], from: Memory, to: Memory, number: &dyn Fn(&mut Memory)) {
        let mut stored = FxHashMap::default();
        for s in body.iter() {
            if let Stmt::Store { access, .. } = s
                && access.mem == to
            {
                stored.insert(access.addr, access.index.clone());
            }
        }
        let change = |access: &mut Access| {
            if access.mem == from {
                access.mem = to;
                if let Some(index) = stored.get(&access.addr) {
                    access.index = index.clone();
                }
            }
            number(&mut access.mem);
        };
        for s in body {
            match s {
                Stmt::Let { instr, .. } => instr.accesses_mut().into_iter().for_each(change),
                Stmt::Store { access, .. } => change(access),
                Stmt::Prefetch { mem, .. } => {
                    *mem = if *mem == from { to } else { *mem };
                    number(mem);
                }
                Stmt::Loop { body, .. } | Stmt::If { body, .. } | Stmt::Async { body } => all(body, from, to, number),
                Stmt::Var { .. } | Stmt::Set { .. } | Stmt::Wait(_) | Stmt::Barrier(_) => {}
            }
        }
    }
    all(&mut code.body, from, to, &number);
    code.args.remove(operand);
}

#[cfg(test)]
mod tests {
    use super::*;
    use winograph_ir::text::{parse_linear, print_linear};

    /// Adds `b` to what is read of `a`, in rows of 32, from a row that `read` says on, `times` times.
    fn add(read: &str, times: i64, b: &str) -> Code {
        parse_linear(&format!(
            "kernel add other\narg a: f32[4, 32] internal global layout [0:32, 1:1] len 128\n\
             arg b: f32[4, 32] {b} global layout [0:32, 1:1] len 128\n\
             arg c: f32[4, 32] internal global layout [0:32, 1:1] len 128 written\nbody {{\nloop t:{times} grid {{\n\
             loop i:4 grid {{\nloop j:2 serial {{\n\
             %0: f32x16 = load lane k:16 a[i, 16*j + k] @ 32*i + 16*j + k\n\
             %1: f32x16 = load lane k:16 b[{read}, 16*j + k] @ 32*({read}) + 16*j + k\n\
             %2: f32x16 = add %0, %1\nstore %2, lane k:16 c[i, 16*j + k] @ 32*i + 16*j + k\n}}\n}}\n}}\n}}\n"
        ))
        .unwrap()
    }

    type Merged = (Vec<Code>, Vec<Vec<BufId>>, Vec<(BufId, BufId)>);

    /// A first launch writes buffer 0 and 1; the others are `codes`, with these buffers.
    fn run(codes: Vec<Code>, args: &[[u32; 3]], prepared: bool) -> Merged {
        let first = parse_linear(
            "kernel first other\narg a: f32[4, 32] internal global layout [0:32, 1:1] len 128 written\n\
             arg b: f32[4, 32] internal global layout [0:32, 1:1] len 128 written\nbody {\n}\n",
        );
        let mut codes = [vec![first.unwrap()], codes].concat();
        let ids = |list: &[u32]| list.iter().map(|&b| BufId(b)).collect::<Vec<BufId>>();
        let mut args: Vec<Vec<BufId>> = std::iter::once(ids(&[0, 1])).chain(args.iter().map(|a| ids(a))).collect();
        let once: Vec<bool> = (0..codes.len()).map(|n| n == 0 && prepared).collect();
        let merged = in_place(&mut codes, &mut args, &once, &vec![false; once.len()]);
        (codes, args, merged)
    }

    const OWN: &str = "internal";

    #[test]
    fn a_result_takes_the_place_of_an_operand_that_is_read_for_the_last_time() {
        let (codes, args, merged) = run(vec![add("i", 1, OWN), add("i", 1, OWN)], &[[0, 1, 2], [0, 2, 3]], false);
        // The first sum is in buffer 1, which the second one reads; buffer 0 lives until then and takes its result.
        assert_eq!(merged, [(BufId(2), BufId(1)), (BufId(3), BufId(0))]);
        assert_eq!(args[1..], [vec![BufId(0), BufId(1)], vec![BufId(1), BufId(0)]]);
        let text = print_linear(&codes[1]);
        assert!(!text.contains("arg b:") && text.contains("c[r1, 16*r2 + r3]"), "{text}");
        winograph_ir::verify::linear::verify(&codes[1]).unwrap();
    }

    #[test]
    fn launches_that_are_repeated_keep_their_operands() {
        let mut codes = vec![add("i", 1, OWN), add("i", 1, OWN)];
        let ids = |list: [u32; 3]| list.map(BufId).to_vec();
        let mut args = vec![ids([0, 1, 2]), ids([0, 1, 3])];
        // Nobody has written the operands before.
        let first = in_place(&mut codes.clone(), &mut args.clone(), &[false; 2], &[false; 2]);
        assert_eq!(first, []);
        codes[0].args[0].written = true;
        codes[0].args[1].written = true;
        let merged = in_place(&mut codes.clone(), &mut args.clone(), &[false; 2], &[false; 2]);
        assert_eq!(merged, [(BufId(3), BufId(0))]);
        assert_eq!(in_place(&mut codes, &mut args, &[false; 2], &[false, true]), []);
    }

    #[test]
    fn what_is_read_later_elsewhere_or_again_keeps_its_place() {
        let kept = |codes: Vec<Code>, args: &[[u32; 3]], prepared| run(codes, args, prepared).2.len();
        assert_eq!(kept(vec![add("i", 1, OWN)], &[[0, 1, 2]], false), 1);
        // Prepared memory is read in the next run.
        assert_eq!(kept(vec![add("i", 1, OWN)], &[[0, 1, 2]], true), 0);
        // Both operands are one buffer.
        assert_eq!(kept(vec![add("i", 1, OWN)], &[[0, 0, 2]], false), 0);
        // Other rows of it are read, which may have been stored to; the other operand does.
        assert_eq!(run(vec![add("3 - i", 1, OWN)], &[[0, 1, 2]], false).2, [(BufId(2), BufId(0))]);
        // Each element is stored twice.
        assert_eq!(kept(vec![add("i", 2, OWN)], &[[0, 1, 2]], false), 0);
        // The caller's memory.
        assert_eq!(run(vec![add("i", 1, "argument 0")], &[[0, 1, 2]], false).2, [(BufId(2), BufId(0))]);
        // Both are read later.
        let later = vec![add("i", 1, OWN), add("i", 1, OWN)];
        assert_eq!(run(later, &[[0, 1, 2], [0, 1, 3]], false).2, [(BufId(3), BufId(0))]);
    }
}
