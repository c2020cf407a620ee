//! Places: kernels that differ only in where they read and write become one.
//!
//! Takes the linear codes of launches on a CPU; leaves one code for those that are the same but for constants in the indices of
//! their arguments, with these constants as parameters, and the values that each launch has for them. The steps of a
//! recurrent network are such kernels, each of which reads another row of one buffer: a thousand of them are compiled once.

use crate::parallel;
use rustc_hash::FxHashMap;
use winograph_ir::int::{IntId, Ints, gcd};
use winograph_ir::linear::{Access, Code, Memory, MemoryDecl, Stmt};
use winograph_ir::verify;

/// The axes of arguments along which codes may be moved: the argument, the axis, and the distance of neighbours in memory.
type Axes = Vec<(u32, usize, i64)>;

/// A code that begins at 0 along all axes, and where it began.
struct Moved {
    code: Code,
    axes: Axes,
    at: Vec<i64>,
    /// What decides whether codes are one.
    text: String,
}

/// Makes codes that differ in places one; `repeated` says which are in loops of the host, whose parameters they have. Gives the values of
/// the new parameters for each code. `text` is what decides whether two codes are one.
pub fn places(
    codes: &mut [Code],
    repeated: &[bool],
    workers: usize,
    text: &(dyn Fn(&Code) -> String + Sync),
) -> Vec<Vec<i64>> {
    let mut names: FxHashMap<&str, usize> = FxHashMap::default();
    codes.iter().for_each(|c| *names.entry(&c.name).or_default() += 1);
    let moved = parallel::map(workers, codes, |n, code| {
        let several = names.get(&*code.name).is_some_and(|&n| n > 1);
        (several && !repeated[n]).then(|| to_origin(code, text)).flatten()
    });
    let mut groups: FxHashMap<&str, Vec<usize>> = FxHashMap::default();
    for (n, m) in moved.iter().enumerate() {
        if let Some(m) = m {
            groups.entry(&m.text).or_default().push(n);
        }
    }
    let mut values = vec![Vec::new(); codes.len()];
    for group in groups.into_values() {
        let of: Vec<&Moved> = group.iter().filter_map(|&n| moved[n].as_ref()).collect();
        let Some((code, at)) = merged(&of) else { continue };
        for (&n, at) in group.iter().zip(at) {
            // Each keeps the memory that it works on.
            let own = std::mem::take(&mut codes[n].args);
            codes[n].clone_from(&code);
            for (decl, own) in codes[n].args.iter_mut().zip(own) {
                (decl.name, decl.origin) = (own.name, own.origin);
            }
            values[n] = at;
        }
    }
    values
}

/// One code for all of a group, and the values of its parameters for each; `None` where all begin at the same places, or
/// where it cannot be proved.
fn merged(of: &[&Moved]) -> Option<(Code, Vec<Vec<i64>>)> {
    let first = of.first()?;
    let mut code = first.code.clone();
    let mut values = vec![Vec::new(); of.len()];
    let mut by = Vec::with_capacity(first.axes.len());
    for a in 0..first.axes.len() {
        let least = of.iter().map(|m| m.at[a]).min()?;
        let step = of.iter().fold(0, |g, m| gcd(g, m.at[a] - least));
        by.push(if step == 0 {
            code.ints.constant(least)
        } else {
            let most = of.iter().map(|m| (m.at[a] - least) / step).max()?;
            let param = code.ints.new_host_param(most + 1);
            let place = code.ints.param(param);
            values.iter_mut().zip(of).for_each(|(v, m)| v.push((m.at[a] - least) / step));
            code.ints.sum(&[(place, step)], least)
        });
    }
    if values.first()?.is_empty() {
        return None;
    }
    let Code { ints, body, .. } = &mut code;
    shift(ints, body, &first.axes, &by);
    verify::linear::verify(&code).ok()?;
    Some((code, values))
}

/// The code with the least constant of each index taken away; `None` where it has accesses of another kind.
fn to_origin(code: &Code, text: &(dyn Fn(&Code) -> String + Sync)) -> Option<Moved> {
    let mut axes = Axes::new();
    for (n, decl) in code.args.iter().enumerate() {
        // What is stored past the caches is at multiples of lines.
        if decl.streamed {
            return None;
        }
        let plain = (0..decl.shape.len()).filter_map(|axis| Some((n as u32, axis, stride(&code.ints, decl, axis)?)));
        axes.extend(plain);
    }
    let mut least: Vec<Option<i64>> = vec![None; axes.len()];
    let mut known = true;
    code.for_each_stmt(&mut |s| {
        known &= match s {
            Stmt::Let { instr, .. } => instr.tiles().is_empty(),
            Stmt::Async { .. } | Stmt::Wait(_) | Stmt::Barrier(_) => false,
            _ => true,
        };
        let Some(access) = s.access() else { return };
        let Memory::Arg(arg) = access.mem else { return };
        known &= access.dynamic.is_none();
        for ((of, axis, _), least) in axes.iter().zip(&mut least) {
            if let Some(&index) = access.index.get(*axis).filter(|_| *of == arg) {
                let at = code.ints.as_sum(index).1;
                *least = Some(least.map_or(at, |l| l.min(at)));
            }
        }
    });
    let at: Vec<i64> = least.into_iter().map(Option::unwrap_or_default).collect();
    if !known {
        return None;
    }
    let mut code = code.clone();
    let Code { ints, body, .. } = &mut code;
    let by: Vec<IntId> = at.iter().map(|&a| ints.constant(-a)).collect();
    shift(ints, body, &axes, &by);
    Some(Moved { text: text(&code), code, axes, at })
}

/// The distance of neighbours along an axis that is one factor of the layout.
fn stride(ints: &Ints, decl: &MemoryDecl, axis: usize) -> Option<i64> {
    let mut of = decl.layout.dims.iter().filter(|d| d.axis == axis);
    match (of.next(), of.next()) {
        (Some(d), None) if d.div == 1 && d.modulus.is_none() => ints.as_const(d.stride),
        _ => None,
    }
}

/// Adds to the indices along axes.
fn shift(ints: &mut Ints, body: &mut [Stmt], axes: &Axes, by: &[IntId]) {
    let change = |ints: &mut Ints, access: &mut Access| {
        for (&(arg, axis, stride), &by) in axes.iter().zip(by) {
            if access.mem == Memory::Arg(arg)
                && let Some(index) = access.index.get_mut(axis)
            {
                *index = ints.add(*index, by);
                access.addr = ints.sum(&[(access.addr, 1), (by, stride)], 0);
            }
        }
    };
    for s in body {
        match s {
            Stmt::Let { instr, .. } => instr.accesses_mut().into_iter().for_each(|a| change(ints, a)),
            Stmt::Store { access, .. } => change(ints, access),
            Stmt::Prefetch { mem, addr } => {
                for (&(arg, _, stride), &by) in axes.iter().zip(by) {
                    if *mem == Memory::Arg(arg) {
                        *addr = ints.sum(&[(*addr, 1), (by, stride)], 0);
                    }
                }
            }
            Stmt::Loop { body, .. } | Stmt::If { body, .. } | Stmt::Async { body } => shift(ints, body, axes, by),
            Stmt::Var { .. } | Stmt::Set { .. } | Stmt::Wait(_) | Stmt::Barrier(_) => {}
        }
    }
}
