//! Printer of the tensor level.

use super::names::{Names, join, print_params};
use super::value::print_table;
use crate::dtype::{DType, Scalar};
use crate::int::IntId;
use crate::rule::WindowRule;
use crate::tensor::{InputKind, NodeId, TensorGraph, TensorOp};
use rustc_hash::FxHashMap;
use std::fmt::Write;

/// Prints a tensor graph: parameters, what the input slots hold, one line a node that an output needs, the outputs.
/// Every line ends in the node's dtype and shape.
pub fn print_tensor(graph: &TensorGraph) -> String {
    let mut out = String::new();
    print_params(&mut out, &graph.ints);
    if !graph.inputs.is_empty() {
        let _ = writeln!(out, "inputs {}", join(&graph.inputs, |k| input_kind_name(*k).to_string()));
    }
    let order = postorder(graph);
    let numbers: FxHashMap<NodeId, usize> = order.iter().enumerate().map(|(n, &id)| (id, n)).collect();
    let names = Names::new(&graph.ints);
    for (n, &id) in order.iter().enumerate() {
        let node = graph.node(id);
        let op = print_op(&names, &node.op, &|x| format!("%{}", numbers[&x]));
        let _ = write!(out, "%{n} = {op}");
        if !matches!(node.op, TensorOp::Table { .. }) {
            let _ = write!(out, " : {}{}", node.dtype, names.list(&node.shape));
        }
        out.push('\n');
    }
    if !graph.outputs.is_empty() {
        let _ = writeln!(out, "output {}", join(&graph.outputs, |o| format!("%{}", numbers[o])));
    }
    out
}

/// Word of the text form.
pub(super) fn input_kind_name(kind: InputKind) -> &'static str {
    match kind {
        InputKind::Argument => "argument",
        InputKind::Constant => "constant",
    }
}

/// The nodes that the outputs need, operands first.
fn postorder(graph: &TensorGraph) -> Vec<NodeId> {
    let mut out = Vec::new();
    let mut seen = rustc_hash::FxHashSet::default();
    let mut stack: Vec<(NodeId, bool)> = graph.outputs.iter().rev().map(|&o| (o, false)).collect();
    while let Some((id, done)) = stack.pop() {
        if done {
            out.push(id);
        } else if seen.insert(id) {
            stack.push((id, true));
            let mut children = Vec::new();
            graph.node(id).op.for_each_child(|&c| children.push(c));
            stack.extend(children.into_iter().rev().map(|c| (c, false)));
        }
    }
    out
}

fn print_op(names: &Names, op: &TensorOp<NodeId>, v: &dyn Fn(NodeId) -> String) -> String {
    let plain = |axes: &[usize]| format!("[{}]", join(axes, |a| a.to_string()));
    let ints = |ids: &[IntId]| names.list(ids);
    match op {
        TensorOp::Input { slot, .. } => format!("input {slot}"),
        TensorOp::Full { value, .. } => format!("full {value}"),
        TensorOp::Table { values, dtype, shape } => {
            format!("table {dtype}{} {}", plain(shape), print_table(*dtype, &[], values, ""))
        }
        TensorOp::Iota { axis, .. } => format!("iota axis {axis}"),
        TensorOp::Unary { op, x } => format!("{} {}", op.name(), v(*x)),
        TensorOp::Binary { op, a, b } => format!("{} {}, {}", op.name(), v(*a), v(*b)),
        TensorOp::Where { cond, a, b } => format!("where {}, {}, {}", v(*cond), v(*a), v(*b)),
        TensorOp::Cast { x, .. } => format!("cast {}", v(*x)),
        TensorOp::Reshape { x, .. } => format!("reshape {}", v(*x)),
        TensorOp::Permute { x, order } => format!("permute {} {}", v(*x), plain(order)),
        TensorOp::Expand { x, .. } => format!("expand {}", v(*x)),
        TensorOp::Pad { x, before, after, value } => {
            format!("pad {} before {} after {} value {value}", v(*x), ints(before), ints(after))
        }
        TensorOp::Slice { x, start, step, size } => {
            let step = join(step, |s| s.to_string());
            format!("slice {} start {} step [{step}] size {}", v(*x), ints(start), ints(size))
        }
        TensorOp::Unfold { x, axis, size, stride, dilation } => {
            format!("unfold {} axis {axis} size {size} stride {stride} dilation {dilation}", v(*x))
        }
        TensorOp::Cat { parts, axis } => format!("cat axis {axis} {}", join(parts, |&p| v(p))),
        TensorOp::Gather { x, axis, index } => format!("gather {}, {} axis {axis}", v(*x), v(*index)),
        TensorOp::Reduce { op, x, axes, order, fused, rule } => {
            let fused = if *fused { "fused " } else { "" };
            let rule = rule.as_deref().map_or_else(String::new, window_rule);
            format!("reduce {} {} {fused}{} {}{rule}", op.name(), order.name(), plain(axes), v(*x))
        }
        TensorOp::Contiguous { x } => format!("contiguous {}", v(*x)),
    }
}

/// What is asked of a window, as ` rule ..` behind its reduction.
fn window_rule(rule: &WindowRule) -> String {
    let mut out = " rule".to_string();
    if let Some(algorithm) = rule.algorithm {
        out += &format!(" algorithm {}", algorithm.name());
    }
    if !rule.tile.is_empty() {
        out += &format!(" tile [{}]", join(&rule.tile, |m| m.to_string()));
    }
    if let Some(tolerance) = rule.tolerance {
        out += &format!(" tolerance {}", Scalar::from_f64(DType::F64, tolerance.get()));
    }
    if rule.exact_nonfinite {
        out += " exact_nonfinite";
    }
    out
}
