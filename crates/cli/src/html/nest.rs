//! A kernel's loops, outermost first, coloured by what they become.

use super::mark::esc;
use std::fmt::Write as _;
use winograph_compiler::explain::NestReport;
use winograph_compiler::optimize::plan::{Factor, Kind, Plan};

/// Kinds in the order in which they nest, with what each means.
pub(super) const KINDS: [(&str, &str); 8] = [
    ("grid", "blocks of a launch, or work items of a CPU's pool"),
    ("thread", "threads of a block: the innermost ones are the lanes of a warp"),
    ("matrix", "one side of a matrix unit's operands"),
    ("loop", "one iteration after another"),
    ("shared", "a chunk that a block stages in shared memory"),
    ("unroll", "expanded: register tiles, transforms"),
    ("vector", "elements that one thread moves together"),
    ("reduce", "terms of a sum, when they stay a loop"),
];

struct Loop {
    kind: &'static str,
    axis: String,
    size: i64,
    whole: i64,
    reduce: bool,
}

/// The size of each factor; one that has none takes what the others leave.
fn factor_sizes(factors: &[Factor], size: i64) -> Vec<i64> {
    let known: i64 = factors.iter().filter_map(|f| f.size).product::<i64>().max(1);
    factors.iter().map(|f| f.size.unwrap_or((size + known - 1) / known)).collect()
}

fn loops(nest: &NestReport) -> Vec<Loop> {
    let plan: &Plan = &nest.plan;
    let mut out = Vec::new();
    let of = |letter: char, axes: &[Vec<Factor>], sizes: &[i64], a: usize, kind: Kind, out: &mut Vec<Loop>| {
        let (Some(factors), Some(&whole)) = (axes.get(a), sizes.get(a)) else { return };
        for (f, size) in factors.iter().zip(factor_sizes(factors, whole)).filter(|(f, _)| f.kind == kind) {
            out.push(Loop { kind: f.kind.name(), axis: format!("{letter}{a}"), size, whole, reduce: letter == 'r' });
        }
    };
    let maps = plan.loops.len();
    let mut order: Vec<usize> = plan.order.clone();
    order.extend((0..maps).filter(|a| !plan.order.contains(a)));
    let mut threads: Vec<usize> = plan.threads.clone();
    threads.extend((0..maps).filter(|a| !plan.threads.contains(a)));
    for kind in [Kind::Grid, Kind::Thread, Kind::Matrix, Kind::Loop] {
        let axes = if kind == Kind::Thread { &threads } else { &order };
        axes.iter().for_each(|&a| of('a', &plan.loops, &nest.loops, a, kind, &mut out));
    }
    for kind in [Kind::Loop, Kind::Shared, Kind::Matrix] {
        (0..plan.reduces.len()).for_each(|a| of('r', &plan.reduces, &nest.reduces, a, kind, &mut out));
    }
    for kind in [Kind::Unroll, Kind::Vector] {
        order.iter().for_each(|&a| of('a', &plan.loops, &nest.loops, a, kind, &mut out));
        (0..plan.reduces.len()).for_each(|a| of('r', &plan.reduces, &nest.reduces, a, kind, &mut out));
    }
    out.retain(|l| l.size > 1 || l.whole == 1);
    out
}

/// The nest as nested bars with, inside of all, what it touches.
pub(super) fn html(nest: &NestReport, touches: &[String]) -> String {
    let mut out = String::from("<div class=\"nest\">\n");
    let loops = loops(nest);
    if !nest.under.is_empty() {
        let under: Vec<String> = nest.under.iter().map(i64::to_string).collect();
        let _ = writeln!(out, "<div class=\"under\">under the launch&#39;s loops of {}</div>", esc(under.join(" × ")));
    }
    for (depth, l) in loops.iter().enumerate() {
        let class = if l.reduce && l.kind == "loop" { "reduce" } else { l.kind };
        let part = if l.size == l.whole { String::new() } else { format!(" <i>of {}</i>", l.whole) };
        let of = if l.reduce { " sum" } else { "" };
        let _ = writeln!(
            out,
            "<div class=\"loop k-{class}\" style=\"margin-left:{}px\"><b>{}{of}</b><code>{}</code><span>{}{part}</span></div>",
            (depth * 9).min(120),
            esc(l.kind),
            esc(&l.axis),
            l.size,
        );
    }
    let _ = writeln!(out, "<div class=\"body\" style=\"margin-left:{}px\">", (loops.len() * 9).min(120));
    for t in touches {
        let _ = writeln!(out, "<div>{}</div>", esc(t));
    }
    out.push_str("</div>\n</div>\n");
    out
}
