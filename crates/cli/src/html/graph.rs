//! A sketch of the compiler's as a drawing: layers from left to right, few crossings, what a pass changed in colour.

use super::mark::esc;
use std::fmt::Write as _;
use winograph_compiler::sketch::{Node, Sketch};

/// Width of a character, height of a line, in the drawing's units.
const CHARACTER: f64 = 6.65;
const LINE: f64 = 14.0;
const PAD: f64 = 9.0;
/// Between layers, and between the boxes of one.
const GAP_X: f64 = 34.0;
const GAP_Y: f64 = 14.0;

/// A box, or a place where a long edge passes a layer.
struct Box {
    node: Option<usize>,
    layer: usize,
    width: f64,
    height: f64,
    x: f64,
    y: f64,
    reads: Vec<usize>,
}

/// What a pass did to a node.
fn change(node: &Node, before: Option<&Sketch>) -> (&'static str, Vec<bool>) {
    let Some(before) = before else { return ("", vec![false; node.lines.len()]) };
    match before.nodes.iter().find(|n| n.key == node.key) {
        None => ("new", vec![true; node.lines.len()]),
        Some(old) => {
            let lines: Vec<bool> = node.lines.iter().map(|l| !old.lines.contains(l)).collect();
            let moved = old.title != node.title || old.kind != node.kind;
            (if moved || lines.contains(&true) { "changed" } else { "" }, lines)
        }
    }
}

/// Names of what was there before and is no more.
pub(super) fn gone(sketch: &Sketch, before: Option<&Sketch>) -> Vec<String> {
    let is_there = |key: &str| sketch.nodes.iter().any(|n| n.key == key);
    before.map_or_else(Vec::new, |b| {
        b.nodes.iter().filter(|n| !is_there(&n.key)).map(|n| n.title.clone()).collect::<Vec<_>>()
    })
}

/// Whether a pass left the picture as it was.
pub(super) fn same(sketch: &Sketch, before: Option<&Sketch>) -> bool {
    before.is_some_and(|b| b == sketch)
}

/// The longest path from a source to each node; sources stand right before what reads them first.
fn layers(sketch: &Sketch) -> Vec<usize> {
    let mut out = vec![0usize; sketch.nodes.len()];
    for (i, n) in sketch.nodes.iter().enumerate() {
        out[i] = n.reads.iter().map(|&r| out[r] + 1).max().unwrap_or(0);
    }
    for (i, n) in sketch.nodes.iter().enumerate() {
        let first = sketch.nodes.iter().enumerate().filter(|(_, m)| m.reads.contains(&i)).map(|(j, _)| out[j]).min();
        if let (true, Some(first)) = (n.reads.is_empty(), first) {
            out[i] = first.saturating_sub(1);
        }
    }
    out
}

fn boxes(sketch: &Sketch) -> Vec<Box> {
    let layers = layers(sketch);
    let mut out: Vec<Box> = sketch
        .nodes
        .iter()
        .zip(&layers)
        .enumerate()
        .map(|(i, (n, &layer))| {
            let longest = n.lines.iter().chain([&n.title]).map(|l| l.chars().count()).max().unwrap_or(0);
            Box {
                node: Some(i),
                layer,
                width: (longest as f64 * CHARACTER + 2.0 * PAD).max(56.0).ceil(),
                height: (n.lines.len() + 1) as f64 * LINE + 2.0 * PAD - 4.0,
                x: 0.0,
                y: 0.0,
                reads: vec![],
            }
        })
        .collect();
    for (i, n) in sketch.nodes.iter().enumerate() {
        for &r in &n.reads {
            let mut from = r;
            for layer in layers[r] + 1..layers[i] {
                out.push(Box { node: None, layer, width: 0.0, height: 4.0, x: 0.0, y: 0.0, reads: vec![from] });
                from = out.len() - 1;
            }
            out[i].reads.push(from);
        }
    }
    out
}

/// Puts boxes into columns; their order within one follows that of their neighbours.
fn place(boxes: &mut [Box]) -> (f64, f64) {
    let depth = boxes.iter().map(|b| b.layer + 1).max().unwrap_or(0);
    let mut columns: Vec<Vec<usize>> = vec![vec![]; depth];
    (0..boxes.len()).for_each(|i| columns[boxes[i].layer].push(i));
    let mut readers: Vec<Vec<usize>> = vec![vec![]; boxes.len()];
    for (i, b) in boxes.iter().enumerate() {
        b.reads.iter().for_each(|&r| readers[r].push(i));
    }
    let mut rank = vec![0.0; boxes.len()];
    let number = |columns: &[Vec<usize>], rank: &mut [f64]| {
        for column in columns {
            column.iter().enumerate().for_each(|(n, &i)| rank[i] = n as f64 - column.len() as f64 / 2.0);
        }
    };
    number(&columns, &mut rank);
    for round in 0..6 {
        for n in 0..depth {
            let at = if round % 2 == 0 { n } else { depth - 1 - n };
            let mut keyed: Vec<(f64, usize)> = columns[at]
                .iter()
                .map(|&i| {
                    let near = if round % 2 == 0 { &boxes[i].reads } else { &readers[i] };
                    let mean = near.iter().map(|&j| rank[j]).sum::<f64>() / near.len().max(1) as f64;
                    (if near.is_empty() { rank[i] } else { mean }, i)
                })
                .collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            columns[at] = keyed.into_iter().map(|k| k.1).collect();
            number(&columns, &mut rank);
        }
    }
    let tall: Vec<f64> = columns
        .iter()
        .map(|c| c.iter().map(|&i| boxes[i].height).sum::<f64>() + GAP_Y * c.len().saturating_sub(1) as f64)
        .collect();
    let height = tall.iter().copied().fold(0.0, f64::max);
    let mut x = 1.0;
    for (column, tall) in columns.iter().zip(tall) {
        let width = column.iter().map(|&i| boxes[i].width).fold(0.0, f64::max);
        let mut y = 1.0 + (height - tall) / 2.0;
        for &i in column {
            boxes[i].x = x + (width - boxes[i].width) / 2.0;
            boxes[i].y = y;
            y += boxes[i].height + GAP_Y;
        }
        x += width + GAP_X;
    }
    (x - GAP_X + 1.0, height + 2.0)
}

/// The drawing, of its natural size.
pub(super) fn svg(sketch: &Sketch, before: Option<&Sketch>, what: &str) -> String {
    let mut boxes = boxes(sketch);
    let (width, height) = place(&mut boxes);
    let mut out = format!(
        "<svg class=\"graph\" role=\"img\" aria-label=\"{}\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\">\n",
        esc(what)
    );
    for b in &boxes {
        for &r in &b.reads {
            let from = &boxes[r];
            let (x0, y0) = (from.x + from.width, from.y + from.height / 2.0);
            let (x1, y1) = (b.x, b.y + b.height / 2.0);
            let bend = (x1 - x0).abs() / 2.0;
            let _ = writeln!(
                out,
                "<path class=\"edge\" d=\"M{x0:.1} {y0:.1} C{:.1} {y0:.1} {:.1} {y1:.1} {x1:.1} {y1:.1}\"/>",
                x0 + bend,
                x1 - bend
            );
            if b.node.is_some() {
                let _ = writeln!(
                    out,
                    "<path class=\"head\" d=\"M{:.1} {:.1} L{x1:.1} {y1:.1} L{:.1} {:.1}\"/>",
                    x1 - 6.0,
                    y1 - 3.5,
                    x1 - 6.0,
                    y1 + 3.5
                );
            }
        }
    }
    for b in &boxes {
        let Some(node) = b.node.and_then(|n| sketch.nodes.get(n)) else { continue };
        let (change, marked) = change(node, before);
        let round = if node.kind == winograph_compiler::sketch::NodeKind::Kernel { 3.0 } else { 11.0 };
        let _ = writeln!(
            out,
            "<g class=\"node {} {change}\"><title>{} {}</title><rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" \
             height=\"{:.1}\" rx=\"{round}\"/>",
            node.kind.name(),
            esc(node.kind.name()),
            esc(&node.key),
            b.x,
            b.y,
            b.width,
            b.height
        );
        let x = b.x + PAD;
        let mut y = b.y + PAD + 8.0;
        let _ = writeln!(out, "<text class=\"name\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", esc(&node.title));
        for (line, marked) in node.lines.iter().zip(marked) {
            y += LINE;
            let class = if marked { "line fresh" } else { "line" };
            let _ = writeln!(out, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", esc(line));
        }
        out.push_str("</g>\n");
    }
    out.push_str("</svg>");
    out
}
