//! The order in which a rewrite makes and lists its ranges means nothing under `auto`: programs stay the same,
//! byte for byte. Each of the write-up's four attempts to get another grid by another order is a test of its own, and so
//! is any order at all.

mod common;

use common::Conv;
use proptest::prelude::*;
use winograph_compiler::compile::compile_indexed;
use winograph_compiler::optimize::stored::StoredPlans;
use winograph_compiler::options::{GridRule, LayoutRule};
use winograph_compiler::schedule::rangeify;
use winograph_compiler::{Options, Program, Target, winograd};
use winograph_ir::indexed::{Graph, Origin, Role, Source, Val};
use winograph_ir::int::{IntId, RangeId};
use winograph_ir::text::print_linear;

/// A convolution after the rewrite: definitions of X̂, Ĝ, M̂ and the output.
fn rewritten(conv: &Conv) -> Graph {
    let mut g = rangeify::rangeify(&conv.graph());
    let options = Options {
        algorithm: winograph_compiler::Algorithm::Winograd,
        tile: Some(vec![4.into(); conv.size.len()]),
        ..Options::default()
    };
    let reports = winograd::run(&mut g, &options).unwrap();
    assert!(reports.iter().any(|r| r.applied), "{reports:?}");
    g
}

fn program(g: Graph, target: &str, layout: LayoutRule, grid: GridRule) -> Program {
    let plans = StoredPlans::known("seed").unwrap();
    let options = Options { layout, grid, plans, verify_each_pass: true, ..Options::default() };
    compile_indexed(g, &Target::by_name(target).unwrap(), &options).unwrap().0
}

/// All of a program that somebody could tell from another one: its kernels, their order, arguments and memory.
fn text(p: &Program) -> String {
    let kernels: String = p.kernels.iter().map(print_linear).collect();
    format!("{kernels}{:?}{:?}{:?}{}", p.buffers, p.prepare, p.run, p.arena_bytes)
}

/// Makes all ranges of a definition anew, in the order in which `order` sorts them.
fn remake<K: Ord>(g: &mut Graph, def: usize, order: impl Fn(&Graph, usize, RangeId) -> K) {
    let value = g.defs[def].value;
    let mut ranges = g.defs[def].axes.clone();
    for v in g.topological(&[value]) {
        if let Val::Reduce { ranges: bound, .. } = g.val(v) {
            ranges.extend(bound.iter().filter(|r| !ranges.contains(r)).copied().collect::<Vec<_>>());
        }
    }
    let mut by: Vec<(usize, RangeId)> = ranges.into_iter().enumerate().collect();
    by.sort_by_key(|&(n, r)| order(g, n, r));
    let mut map: Vec<(RangeId, RangeId)> = Vec::new();
    for (_, r) in by {
        let info = g.ints.range_info(r).clone();
        map.push((r, g.ints.new_range(info.size, info.role)));
    }
    let new = |r: RangeId| map.iter().find(|m| m.0 == r).map(|m| m.1);
    let exprs: Vec<(RangeId, IntId)> = map.iter().map(|&(old, new)| (old, g.ints.range(new))).collect();
    let expr = |r: RangeId| exprs.iter().find(|m| m.0 == r).map(|m| m.1);
    let mut memo = Default::default();
    let value = g.rebuild(value, &mut memo, &mut |g, val| match val {
        Val::Load { src, index, gate, fill, dynamic } => {
            let index = index.iter().map(|&i| g.ints.substitute(i, &expr)).collect();
            let gate = gate.iter().map(|&i| g.ints.substitute(i, &expr)).collect();
            g.add(Val::Load { src, index, gate, fill, dynamic })
        }
        Val::Index { value, dtype } => {
            let value = g.ints.substitute(value, &expr);
            g.add(Val::Index { value, dtype })
        }
        Val::Select { gate, a, b } => {
            let gate: Vec<IntId> = gate.iter().map(|&i| g.ints.substitute(i, &expr)).collect();
            g.select(&gate, a, b)
        }
        Val::Reduce { op, ranges, order, fused, x } => {
            let ranges = ranges.iter().map(|&r| new(r).unwrap_or(r)).collect();
            g.add(Val::Reduce { op, ranges, order, fused, x })
        }
        other => g.add(other),
    });
    g.defs[def].value = value;
    g.defs[def].axes = g.defs[def].axes.iter().map(|&r| new(r).unwrap_or(r)).collect();
}

/// Lists the axes of a definition's buffer in another order, for its writer and all readers.
fn list(g: &mut Graph, def: usize, order: &[usize]) {
    let buffer = g.defs[def].buffer;
    let shape = g.buffer(buffer).shape.clone();
    g.buffers[buffer.0 as usize].shape = order.iter().map(|&a| shape[a]).collect();
    g.defs[def].axes = order.iter().map(|&a| g.defs[def].axes[a]).collect();
    for d in 0..g.defs.len() {
        let mut memo = Default::default();
        let value = g.defs[d].value;
        g.defs[d].value = g.rebuild(value, &mut memo, &mut |g, val| match val {
            Val::Load { src: Source::Buffer(b), index, gate, fill, dynamic } if b == buffer => {
                let index = order.iter().map(|&a| index[a]).collect();
                g.add(Val::Load { src: Source::Buffer(b), index, gate, fill, dynamic })
            }
            other => g.add(other),
        });
    }
}

fn stage(g: &Graph, role: Role) -> usize {
    g.defs.iter().position(|d| d.role == role).unwrap()
}

/// The reference case, as it is and after a change: the same under `auto`; whether it is another program by the old
/// rules.
fn compare(change: impl Fn(&mut Graph)) -> bool {
    let conv = Conv::conv2d(1, 16, 64, 64, 16);
    let mut other_by_old_rules = false;
    for target in ["metal", "cuda:sm_90", "cpu"] {
        let make = |changed: bool, layout, grid| {
            let mut g = rewritten(&conv);
            if changed {
                change(&mut g);
            }
            text(&program(g, target, layout, grid))
        };
        assert_eq!(make(false, LayoutRule::Auto, GridRule::Auto), make(true, LayoutRule::Auto, GridRule::Auto));
        let old = (LayoutRule::Creation, GridRule::RangeId);
        other_by_old_rules |= make(false, old.0, old.1) != make(true, old.0, old.1);
    }
    other_by_old_rules
}

#[test]
fn the_order_of_axes_in_the_last_bufferize_means_nothing() {
    for order in [[3, 4, 2, 0, 1], [2, 0, 1, 4, 3], [4, 3, 2, 1, 0]] {
        let differs = compare(|g| {
            let m = stage(g, Role::Multiply);
            list(g, m, &order);
        });
        assert!(differs, "{order:?} by the old rules");
    }
}

#[test]
fn the_order_of_the_transforms_arguments_means_nothing() {
    let differs = compare(|g| {
        // The axes over which the input transform is done, then those of its positions.
        let x = stage(g, Role::InputTransform);
        list(g, x, &[2, 1, 0, 4, 3]);
        let w = stage(g, Role::WeightTransform);
        list(g, w, &[1, 0, 3, 2]);
    });
    assert!(differs, "by the old rules");
}

#[test]
fn the_order_in_which_a_transform_makes_its_axes_means_nothing() {
    let differs = compare(|g| {
        for def in 0..g.defs.len() {
            remake(g, def, |_, n, _| std::cmp::Reverse(n));
        }
    });
    assert!(differs, "by the old rules");
}

#[test]
fn channels_made_last_mean_nothing() {
    let differs = compare(|g| {
        let m = stage(g, Role::Multiply);
        // [tile row][tile column][channel][positions], then the reduction over the others.
        remake(g, m, |_, n, _| (n == 2 || n == 5, n));
    });
    assert!(differs, "by the old rules");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn no_order_means_anything(seed in any::<u64>(), shape in 0usize..4, ragged in any::<bool>()) {
        let mut conv = match shape {
            0 => Conv::conv2d(1, 16, 32, 32, 16),
            1 => Conv::conv2d(2, 3, 16, 24, 8),
            2 => Conv::conv2d(1, 8, 8, 64, 24),
            _ => Conv { groups: 2, ..Conv::conv2d(1, 8, 16, 16, 12) },
        };
        if ragged {
            conv.size[0] -= 1;
        }
        let shuffled = |n: u64, salt: u64| {
            (n ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23).wrapping_mul(0xbf58_476d_1ce4_e5b9)
        };
        let original = rewritten(&conv);
        let mut g = original.clone();
        for def in 0..g.defs.len() {
            remake(&mut g, def, |_, n, _| shuffled(n as u64 + 17 * def as u64, seed));
            if matches!(g.buffer(g.defs[def].buffer).origin, Origin::Internal) {
                let mut order: Vec<usize> = (0..g.defs[def].axes.len()).collect();
                order.sort_by_key(|&a| shuffled(a as u64 + 101 * def as u64, seed));
                list(&mut g, def, &order);
            }
        }
        for target in ["metal", "cuda:sm_80", "cuda:sm_90", "cpu"] {
            let [a, b] = [original.clone(), g.clone()]
                .map(|g| text(&program(g, target, LayoutRule::Auto, GridRule::Auto)));
            prop_assert_eq!(a, b);
        }
    }
}
