//! What could be tried next: tunings and plans that differ from given ones in one decision.
//!
//! Nothing here knows a time. Whoever measures walks from neighbour to neighbour as long as that makes a program faster.
//! Not every neighbour fits; what does not is said by the compilation that tries it.

use super::SumReport;
use super::tuning::{Blocks, Ends, Registers, Staging, Stores, Tuning};
use crate::explain::NestReport;
use crate::optimize::plan::{Factor, Kind, Plan};
use crate::schedule::block_cost::Extents;
use crate::target::Target;
use winograph_ir::indexed::Role;

/// Most vectors of a register block.
const MOST_VECTORS: i64 = 8;
/// Largest factor that is unrolled.
const MOST_UNROLL: i64 = 32;
/// Most stages of a reduction's chunks.
const MOST_STAGES: u32 = 4;

/// Tunings that differ in one decision from what was decided about a sum; `nests` are all loop nests of the program's
/// `run`. Those that change more come first.
pub fn neighbours(sum: &SumReport, number: usize, nests: &[&NestReport], target: &Target) -> Vec<Tuning> {
    let used = &sum.used;
    let mut out: Vec<Tuning> = Vec::new();
    // Another tile is another program: nothing else of the tuning is about it.
    for tile in sum.tiles.iter().filter(|t| Some(*t) != used.tile.as_ref()) {
        out.push(Tuning { tile: Some(tile.clone()), ..Tuning::default() });
    }
    let other = match used.stores {
        Some(Stores::Cached) => Some(Stores::Streamed),
        Some(Stores::Streamed) => Some(Stores::Cached),
        None => None,
    };
    out.extend(other.map(|stores| Tuning { stores: Some(stores), ..used.clone() }));
    // Plans are about kernels of one size.
    let staged = |stages: Staging| Tuning { stages: Some(stages), plans: vec![], ..used.clone() };
    if let Some(blocks) = sum.fused.filter(|_| !matches!(used.stages, Some(Staging::Fused(_)))) {
        out.push(staged(Staging::Fused(blocks)));
    }
    if let Some(Staging::Fused(of)) = used.stages {
        let all = [
            Blocks { width: 2 * of.width, ..of },
            Blocks { width: of.width / 2, ..of },
            Blocks { height: 2 * of.height, ..of },
            Blocks { height: of.height / 2, ..of },
            Blocks { parts: 2 * of.parts, columns: of.columns / 2, ..of },
            Blocks { parts: of.parts / 2, columns: 2 * of.columns, ..of },
        ];
        let sound = |b: &Blocks| b.width > 0 && b.height > 0 && b.parts > 0 && b.columns > 0;
        out.extend(all.into_iter().filter(sound).map(|b| staged(Staging::Fused(b))));
        out.push(staged(Staging::Global));
    }
    if sum.chunks > 1 {
        let some = |n: &i64| (2..=sum.chunks).contains(n);
        match used.stages {
            Some(Staging::Chunks(n)) => {
                out.extend([2 * n, n / 2].into_iter().filter(some).map(|n| staged(Staging::Chunks(n))));
                out.push(staged(Staging::Global));
            }
            _ => out.extend([4, 2, 8, 16].into_iter().filter(some).map(|n| staged(Staging::Chunks(n)))),
        }
    }
    if let (Some(registers), Some(_)) = (used.registers, &sum.extents) {
        let of = |registers: Registers| Tuning { registers: Some(registers), plans: vec![], ..used.clone() };
        out.extend(register_blocks(registers, target.vector_registers as i64).into_iter().map(of));
    }
    if let Some(extents) = &sum.extents {
        match used.stages {
            Some(of @ (Staging::Scratch(blocks) | Staging::Shared(blocks))) => {
                let other =
                    if of == Staging::Shared(blocks) { Staging::Scratch(blocks) } else { Staging::Shared(blocks) };
                out.extend(extents.shares.then(|| staged(other)));
                out.extend(near(blocks, extents, target).into_iter().map(|b| staged(of.with(b))));
                out.push(staged(Staging::Global));
            }
            _ => out.extend(extents.best.map(staged)),
        }
        let other = match used.ends {
            Some(Ends::Masked) => Some(Ends::Turned),
            Some(Ends::Turned) => Some(Ends::Masked),
            None => None,
        };
        out.extend(other.map(|ends| Tuning { ends: Some(ends), plans: vec![], ..used.clone() }));
    }
    let own: Vec<&&NestReport> = nests.iter().filter(|n| n.sum == Some(number)).collect();
    let mut small = Vec::new();
    for nest in &own {
        let alone = own.iter().filter(|n| n.role == nest.role).count() == 1;
        let blocked = used.registers.is_some() && matches!(nest.role, Role::Multiply | Role::Direct);
        // Copies of operands have the role of nobody in particular.
        if alone && !blocked && nest.role != Role::Other {
            let with = |plan: Plan| used.with_plan(nest.role, plan);
            // What the heuristics ranked behind the plan is another one altogether.
            out.extend(nest.others.iter().filter(|p| **p != nest.plan).cloned().map(with));
            small.extend(plans(&nest.plan, &nest.loops, target).into_iter().map(with));
        }
    }
    out.extend(small);
    let mut seen: Vec<Tuning> = vec![used.clone()];
    out.retain(|t| {
        let new = !seen.contains(t);
        if new {
            seen.push(t.clone());
        }
        new
    });
    out
}

/// Register blocks of one vector or some columns more or less.
fn register_blocks(of: Registers, registers: i64) -> Vec<Registers> {
    let fits = |r: &Registers| {
        r.vectors >= 1 && r.vectors <= MOST_VECTORS && r.copies >= 1 && r.vectors * r.copies + r.vectors < registers
    };
    let most = |vectors: i64| ((registers - 1 - vectors) / vectors.max(1)).min(16);
    let mut out = Vec::new();
    for vectors in [of.vectors + 1, of.vectors - 1] {
        // As many columns as registers allow, and the even numbers below.
        let copies = most(vectors);
        out.extend([copies, copies / 2 * 2, copies / 4 * 4].map(|copies| Registers { vectors, copies }));
    }
    for copies in [of.copies + 1, of.copies - 1, of.copies + 2, of.copies - 2, of.copies / 2] {
        out.push(Registers { copies, ..of });
    }
    out.retain(fits);
    out.dedup();
    out
}

/// Sizes below and above one, the nearest first: divisors and whole vectors.
fn beside(of: i64, size: i64, lanes: i64) -> Vec<i64> {
    let (mut below, mut above) = (Vec::new(), Vec::new());
    for n in 1..=size {
        if n != of && (size % n == 0 || (lanes > 1 && n % lanes == 0)) {
            if n < of { below.push(n) } else { above.push(n) }
        }
    }
    let mut out = Vec::new();
    for n in 0..2 {
        out.extend(below.iter().rev().nth(n));
        out.extend(above.get(n));
    }
    out
}

/// Blocks that differ from `of` along one axis, or that are as large and have another shape.
fn near(of: Blocks, extents: &Extents, target: &Target) -> Vec<Blocks> {
    let mut axes = extents.rows.iter().rev().copied();
    let (width, height, depth) = (axes.next().unwrap_or(1), axes.next().unwrap_or(1), axes.next().unwrap_or(1));
    let mut out = Vec::new();
    let steps = |n: i64| [2 * n, n / 2, n + 1, n - 1];
    for height in steps(of.height) {
        out.push(Blocks { height, ..of });
    }
    for columns in beside(of.columns, extents.columns / of.parts.max(1), 1) {
        out.push(Blocks { columns, ..of });
    }
    for width in beside(of.width, width, target.lanes(4)) {
        out.push(Blocks { width, ..of });
        // Rows of their own where they are not whole.
        out.push(Blocks { width, height: 1, depth: 1, ..of });
    }
    out.push(Blocks { height: 2 * of.height, columns: of.columns / 2, ..of });
    out.push(Blocks { height: of.height / 2, columns: 2 * of.columns, ..of });
    for parts in [2 * of.parts, of.parts / 2] {
        out.push(Blocks { parts, columns: of.columns.min(extents.columns / parts.max(1)), ..of });
    }
    for d in steps(of.depth) {
        out.push(Blocks { depth: d, width, height, ..of });
    }
    let whole = |b: &Blocks| b.width == width && b.height == height;
    out.retain(|b| {
        *b != of
            && (1..=width).contains(&b.width)
            && (1..=height).contains(&b.height)
            && (1..=depth).contains(&b.depth)
            && b.columns >= 1
            && b.parts >= 1
            && extents.columns % b.parts == 0
            && (extents.columns / b.parts) % b.columns == 0
            && (b.depth == 1 || whole(b))
    });
    out
}

/// Plans that differ from one in one factor, in the axis of the lanes, or in the order of two loops.
pub fn plans(plan: &Plan, loops: &[i64], target: &Target) -> Vec<Plan> {
    let gpu = target.gpu.is_some();
    let lanes = target.gpu.as_ref().map_or_else(|| target.lanes(4), |g| (g.access / 4).max(1) as i64);
    let mut out = Vec::new();
    let change = |axis: usize, factors: Vec<Factor>| {
        let mut of = plan.clone();
        of.loops[axis] = factors;
        of
    };
    // Short rows that share a vector have a factor each: one alone would be no vector.
    let shared = plan.loops.iter().flatten().filter(|f| f.kind == Kind::Vector).count() > 1;
    for (axis, factors) in plan.loops.iter().enumerate() {
        for (n, factor) in factors.iter().enumerate() {
            let Some(size) = factor.size.filter(|_| n > 0) else { continue };
            let most = match factor.kind {
                Kind::Unroll => MOST_UNROLL,
                Kind::Vector if shared => continue,
                Kind::Vector => lanes,
                Kind::Thread => 1024,
                _ => continue,
            };
            let mut sizes = vec![2 * size, size / 2];
            if factor.kind == Kind::Unroll {
                let of = loops.get(axis).copied().unwrap_or(0);
                sizes.extend((size + 1..=most).find(|n| of % n == 0));
                sizes.extend((1..size).rev().find(|n| of % n == 0));
            }
            sizes.dedup();
            for size in sizes.into_iter().filter(|s| (1..=most).contains(s)) {
                let mut new = factors.clone();
                match size {
                    1 => {
                        new.remove(n);
                    }
                    _ => new[n].size = Some(size),
                }
                out.push(change(axis, new));
            }
        }
        // An axis that has work items alone.
        if let [first] = factors[..]
            && first.size.is_none()
            && first.kind != Kind::Unroll
        {
            for size in [2, 4].into_iter().filter(|s| loops.get(axis).is_some_and(|l| l % s == 0)) {
                out.push(change(axis, vec![first, Factor { kind: Kind::Unroll, size: Some(size) }]));
            }
        }
        if let (false, Some(first)) = (gpu, factors.first().filter(|f| f.size.is_none())) {
            let other = match first.kind {
                Kind::Grid => Kind::Loop,
                Kind::Loop => Kind::Grid,
                _ => continue,
            };
            let mut new = factors.clone();
            new[0].kind = other;
            out.push(change(axis, new));
        }
    }
    if gpu {
        out.extend(reshaped(plan));
    } else {
        out.extend(turned(plan, loops, lanes));
    }
    let rolled =
        |axis: &usize| plan.loops.get(*axis).is_some_and(|f| f.first().is_some_and(|f| f.kind != Kind::Unroll));
    for list in [0, 1] {
        let of = if list == 0 { &plan.order } else { &plan.threads };
        for n in 1..of.len() {
            if of[n - 1..=n].iter().all(rolled) {
                let mut new = plan.clone();
                let of = if list == 0 { &mut new.order } else { &mut new.threads };
                of.swap(n - 1, n);
                out.push(new);
            }
        }
    }
    for (axis, factors) in plan.reduces.iter().enumerate() {
        for (n, factor) in factors.iter().enumerate().filter(|f| f.1.kind == Kind::Shared) {
            let size = factor.size.unwrap_or(1);
            for size in [2 * size, size / 2].into_iter().filter(|s| (1..=64).contains(s)) {
                let mut new = plan.clone();
                new.reduces[axis][n].size = Some(size);
                out.push(new);
            }
        }
    }
    // An axis that has lost its threads is none of theirs.
    for of in &mut out {
        let Plan { loops, threads, .. } = of;
        threads.retain(|&a| loops.get(a).is_some_and(|f| f.iter().any(|f| f.kind == Kind::Thread)));
    }
    if plan.reduces.iter().flatten().any(|f| f.kind == Kind::Shared) {
        for stages in [plan.stages.max(1) + 1, plan.stages.max(1) - 1] {
            if (1..=MOST_STAGES).contains(&stages) {
                out.push(Plan { stages, ..plan.clone() });
            }
        }
    }
    out
}

/// Plans whose workgroups are as large and of another shape, or whose blocks are as large with other numbers of threads: one
/// factor doubled, and another one halved.
fn reshaped(plan: &Plan) -> Vec<Plan> {
    let movable = |k: Kind| matches!(k, Kind::Thread | Kind::Unroll);
    let places: Vec<(usize, usize, i64, Kind)> = plan
        .loops
        .iter()
        .enumerate()
        .flat_map(|(a, factors)| factors.iter().enumerate().map(move |(n, f)| (a, n, f)))
        .filter_map(|(a, n, f)| Some((a, n, f.size.filter(|_| movable(f.kind))?, f.kind)))
        .collect();
    let mut out = Vec::new();
    for &(a, n, more, kind) in &places {
        for &(b, m, less, other) in places.iter().filter(|p| (p.0, p.1) != (a, n)) {
            let most = if kind == Kind::Thread { 1024 } else { MOST_UNROLL };
            if less % 2 != 0 || 2 * more > most || (kind != other && a != b) {
                continue;
            }
            let mut new = plan.clone();
            new.loops[a][n].size = Some(2 * more);
            new.loops[b][m].size = Some(less / 2);
            new.loops.iter_mut().for_each(|factors| factors.retain(|f| f.size != Some(1)));
            out.push(new);
        }
    }
    out
}

/// The plan with its lanes along another axis.
fn turned(plan: &Plan, loops: &[i64], lanes: i64) -> Vec<Plan> {
    let is_vector = |f: &Factor| f.kind == Kind::Vector;
    let with: Vec<usize> = (0..plan.loops.len()).filter(|&a| plan.loops[a].iter().any(is_vector)).collect();
    let [from] = with[..] else { return Vec::new() };
    let mut out = Vec::new();
    for to in (0..plan.loops.len()).filter(|&a| a != from) {
        let size = loops.get(to).copied().unwrap_or(1);
        let unrolled = plan.loops[to].iter().any(|f| f.kind == Kind::Unroll && f.size.is_none());
        if unrolled || size < 4 {
            continue;
        }
        let mut new = plan.clone();
        new.loops[from].retain(|f| !is_vector(f) && (f.kind != Kind::Unroll || f.size.is_none()));
        if new.loops[from].is_empty() {
            new.loops[from].push(Factor { kind: Kind::Loop, size: None });
        }
        let mut width = lanes;
        while width >= 2 * size {
            width /= 2;
        }
        new.loops[to].push(Factor { kind: Kind::Vector, size: Some(width) });
        out.push(new);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn register_blocks_fit_the_registers() {
        for of in register_blocks(Registers { vectors: 3, copies: 8 }, 32) {
            assert!(of.vectors * of.copies + of.vectors < 32, "{of:?}");
            assert_ne!(of, Registers { vectors: 3, copies: 8 });
        }
        assert!(
            register_blocks(Registers { vectors: 3, copies: 8 }, 32).contains(&Registers { vectors: 2, copies: 14 })
        );
    }

    #[test]
    fn blocks_stay_within_their_axes() {
        let extents = Extents { rows: vec![14, 14], columns: 64, shares: false, best: None };
        let of = Blocks { depth: 1, height: 2, width: 14, columns: 32, parts: 1 };
        let all = near(of, &extents, &Target::cpu(64));
        assert!(all.contains(&Blocks { height: 4, ..of }) && all.contains(&Blocks { columns: 64, ..of }));
        assert!(all.contains(&Blocks { width: 7, ..of }) && all.contains(&Blocks { parts: 2, ..of }));
        for b in all {
            assert!(b.height <= 14 && b.width <= 14 && b.depth == 1 && 64 % (b.columns * b.parts) == 0, "{b:?}");
        }
    }

    #[test]
    fn plans_differ_in_one_decision() {
        let plan = Plan::parse("a0=grid a1=grid,unroll:2,vector:16 r0=loop order=a0,a1").unwrap();
        let all: Vec<String> = plans(&plan, &[14, 64], &Target::cpu(64)).iter().map(Plan::to_string).collect();
        for want in [
            "a0=grid a1=grid,unroll:4,vector:16 r0=loop order=a0,a1",
            "a0=grid a1=grid,vector:16 r0=loop order=a0,a1",
            "a0=grid a1=grid,unroll:2,vector:8 r0=loop order=a0,a1",
            "a0=grid,unroll:2 a1=grid,unroll:2,vector:16 r0=loop order=a0,a1",
            "a0=loop a1=grid,unroll:2,vector:16 r0=loop order=a0,a1",
            "a0=grid,vector:16 a1=grid r0=loop order=a0,a1",
            "a0=grid a1=grid,unroll:2,vector:16 r0=loop order=a1,a0",
        ] {
            assert!(all.iter().any(|p| p == want), "{want} is not among {all:#?}");
        }
        let plan = Plan::parse("a0=grid,thread:8 r0=loop,shared:8 order=a0 threads=a0 stages=3").unwrap();
        let gpu = Target::by_name("cuda:sm_90").unwrap();
        let all: Vec<String> = plans(&plan, &[64], &gpu).iter().map(Plan::to_string).collect();
        for want in ["thread:16", "thread:4", "shared:16", "shared:4", "stages=2", "stages=4"] {
            assert!(all.iter().any(|p| p.contains(want)), "{want} is not among {all:#?}");
        }
    }
}
