//! Distinct sectors that one block of a launch touches.

use winograph_compiler::target::Gpu;
use winograph_ir::int::{IntId, RangeId};
use winograph_ir::interp::gpu::{Space, sites};
use winograph_ir::linear::{Access, Code, Instr, Memory, Stmt};

/// Most elements that are looked at for one access.
const MOST: usize = 1 << 24;

/// Distinct sectors of global memory that the block in the middle of the launch touches. `None` where an address
/// depends on data, where threads and loops do not add up in an address or condition, and where it would take long.
pub(super) fn distinct(code: &Code, gpu: &Gpu) -> Option<u64> {
    let nest = code.nest()?;
    let all = sites(code);
    let mut seen: Vec<Vec<bool>> = code
        .args
        .iter()
        .map(|a| {
            let bytes = code.ints.bounds(a.layout.len).1.max(0) as usize * a.dtype.size();
            vec![false; bytes / gpu.sector.max(1) + 1]
        })
        .collect();
    let mut site = 0;
    let walk = Walk { code, gpu, grid: &nest.grid, threads: &nest.threads };
    walk.body(nest.body, &[], &[], &mut |access, loops, gates| {
        let at = all.get(site)?;
        site += 1;
        if at.space != Space::Global {
            return Some(());
        }
        let Memory::Arg(arg) = access.mem else { return Some(()) };
        walk.access(access, at.lanes, at.dtype.size() as i64, loops, gates, seen.get_mut(arg as usize)?)
    })?;
    Some(seen.iter().flatten().filter(|s| **s).count() as u64)
}

struct Walk<'a> {
    code: &'a Code,
    gpu: &'a Gpu,
    grid: &'a [RangeId],
    threads: &'a [RangeId],
}

type OnAccess<'f> = dyn FnMut(&Access, &[RangeId], &[IntId]) -> Option<()> + 'f;

impl Walk<'_> {
    /// Calls `f` for every access with the loops and conditions around it.
    fn body(&self, body: &[Stmt], loops: &[RangeId], gates: &[IntId], f: &mut OnAccess<'_>) -> Option<()> {
        for s in body {
            match s {
                Stmt::Let { instr: Instr::Load { access, .. } | Instr::Rows { access, .. }, .. }
                | Stmt::Store { access, .. } => f(access, loops, gates)?,
                Stmt::Loop { range, body, .. } => self.body(body, &[loops, &[*range]].concat(), gates, f)?,
                Stmt::Async { body } => self.body(body, loops, gates, f)?,
                Stmt::If { gate, body } => self.body(body, loops, &[gates, gate].concat(), f)?,
                _ => {}
            }
        }
        Some(())
    }

    /// The value of an expression in the middle block, with some ranges given.
    fn eval(&self, e: IntId, given: &[(RangeId, i64)]) -> Option<i64> {
        let ints = &self.code.ints;
        let range = |r: RangeId| match given.iter().find(|g| g.0 == r) {
            Some(g) => g.1,
            None if self.grid.contains(&r) => (ints.max_size(r) - 1) / 2,
            None => 0,
        };
        ints.eval(e, &range, &|p| ints.param_info(p).typical())
    }

    /// All values of some ranges for some expressions: one row each.
    fn values(&self, exprs: &[IntId], ranges: &[(RangeId, i64)]) -> Option<Vec<Vec<i64>>> {
        let total = ranges.iter().try_fold(1usize, |n, r| n.checked_mul(r.1.max(0) as usize))?;
        if total > MOST / 16 {
            return None;
        }
        (0..total)
            .map(|n| {
                let mut rest = n as i64;
                let given: Vec<(RangeId, i64)> = ranges
                    .iter()
                    .map(|&(r, size)| {
                        let v = rest % size;
                        rest /= size;
                        (r, v)
                    })
                    .collect();
                exprs.iter().map(|&e| self.eval(e, &given)).collect()
            })
            .collect()
    }

    fn access(
        &self,
        access: &Access,
        lanes: u32,
        size: i64,
        loops: &[RangeId],
        gates: &[IntId],
        seen: &mut [bool],
    ) -> Option<()> {
        if access.dynamic.is_some() {
            return None;
        }
        let ints = &self.code.ints;
        let mut inner: Vec<(RangeId, i64)> = self.threads.iter().map(|&r| (r, ints.max_size(r))).collect();
        inner.extend(access.lane.map(|l| (l, lanes as i64)));
        let exprs: Vec<IntId> = [access.addr].into_iter().chain(access.gate.iter().chain(gates).copied()).collect();
        // Loops that nothing here depends on repeat what is known.
        let around: Vec<(RangeId, i64)> = loops
            .iter()
            .filter(|&&r| exprs.iter().any(|&e| ints.depends_on(e, r)))
            .map(|&r| (r, ints.max_size(r)))
            .collect();
        // What threads and loops add up separately is looked at separately.
        for &e in &exprs {
            for (term, _) in ints.as_sum(e).0 {
                let has = |list: &[(RangeId, i64)]| list.iter().any(|r| ints.depends_on(term, r.0));
                if has(&inner) && has(&around) {
                    return None;
                }
            }
        }
        let base: Vec<i64> = exprs.iter().map(|&e| self.eval(e, &[])).collect::<Option<_>>()?;
        let mine = self.values(&exprs, &inner)?;
        let theirs = self.values(&exprs, &around)?;
        if mine.len().saturating_mul(theirs.len()) > MOST {
            return None;
        }
        for t in &theirs {
            for m in &mine {
                let at = |n: usize| m[n] + t[n] - base[n];
                if (1..exprs.len()).all(|n| at(n) >= 0)
                    && let Ok(sector) = usize::try_from(at(0) * size / self.gpu.sector as i64)
                    && let Some(s) = seen.get_mut(sector)
                {
                    *s = true;
                }
            }
        }
        Some(())
    }
}
