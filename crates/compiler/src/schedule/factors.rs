//! How factors of products lie for the matrix units that read them from shared memory: rows along the terms.
//!
//! Such a unit takes both factors with the axis that is summed contiguous. `layout` looks at sectors, which are as few along
//! another axis: a prepared factor may as well lie so, and one that a kernel writes if that moves no more.

use super::layout::{self, Choice};
use crate::kernel::Kernel;
use crate::optimize::matrix_unit::{factor, from_shared, matrix_unit, product};
use crate::optimize::{grid, units};
use crate::options::Products;
use crate::target::Gpu;
use winograph_ir::indexed::{Buffer, Layout, Origin, Source, Val};
use winograph_ir::int::IntNode;

/// Makes the summed axis contiguous in factors of products for which a unit then reads both from shared memory and is
/// estimated to be the fastest. Tells of it in the choices, which are [`layout`](layout::layout)'s; `constant` are the kernels
/// that depend on constants alone.
pub fn turn_factors(
    kernels: &mut [Kernel],
    buffers: &[Buffer],
    gpu: &Gpu,
    products: &[Products],
    constant: &[bool],
    choices: &mut [Choice],
) {
    let shared = |name: &str| matrix_unit(name).is_some_and(|u| from_shared(&u));
    for n in 0..kernels.len() {
        let inside = !kernels[n].outer.is_empty();
        if inside || !units::units(&kernels[n], gpu, products[n]).iter().any(from_shared) {
            continue;
        }
        let planned = |k: &Kernel| units::plan(k, gpu, products[n]).and_then(|p| p.1.unit);
        if planned(&kernels[n]).is_some_and(|unit| shared(&unit)) {
            continue;
        }
        // The program's buffers, each with the axis that is to be contiguous.
        let Some(turned) = turned(&kernels[n], buffers, choices) else { continue };
        let before: Vec<Vec<Option<Layout>>> =
            kernels.iter().map(|k| k.graph.buffers.iter().map(|b| b.layout.clone()).collect()).collect();
        let users = |kernels: &[Kernel]| -> Vec<usize> {
            let touches = |m: &usize| turned.iter().any(|t| kernels[*m].args.iter().any(|a| a.0 as usize == t.0));
            (0..kernels.len()).filter(|&m| m != n && !constant[m]).filter(touches).collect()
        };
        let users = users(kernels);
        let cost = |kernels: &[Kernel]| -> f64 { users.iter().map(|&m| grid::best(&kernels[m], gpu).sectors).sum() };
        let moved = cost(kernels);
        let mut orders = Vec::new();
        for &(b, axis) in &turned {
            let Some(choice) = choices.iter().position(|c| c.buffer == buffers[b].name) else { continue };
            let mut order = choices[choice].order.clone();
            order.retain(|&a| a != axis);
            order.push(axis);
            let planes = vec![false; order.len()];
            for k in kernels.iter_mut() {
                layout::set_layout(k, b, &order, None, &planes, Some(gpu.sector), 1);
            }
            orders.push((choice, order));
        }
        if cost(kernels) <= moved * 1.001 && planned(&kernels[n]).is_some_and(|unit| shared(&unit)) {
            for (choice, order) in orders {
                choices[choice].reason += &format!(
                    "; axis {} is contiguous instead: a matrix unit reads rows along the terms that it sums",
                    order.last().copied().unwrap_or_default()
                );
                choices[choice].order = order;
            }
            continue;
        }
        for (k, layouts) in kernels.iter_mut().zip(before) {
            k.graph.buffers.iter_mut().zip(layouts).for_each(|(b, layout)| b.layout = layout);
        }
    }
}

/// The factors of a product whose summed axis is not contiguous, by the program's buffers, with that axis; `None` where there
/// are none, or one of them lies as it was given.
fn turned(k: &Kernel, buffers: &[Buffer], choices: &[Choice]) -> Option<Vec<(usize, usize)>> {
    let g = &k.graph;
    let sums = k.reduce_ranges();
    let mut out = Vec::new();
    for f in product(k)?.factors {
        let f = match g.val(f) {
            Val::Cast { x, .. } => factor(k, f, g.dtype(*x))?,
            _ => f,
        };
        let Val::Load { src: Source::Buffer(b), index, .. } = g.val(f) else { return None };
        let summed = |i: &winograph_ir::int::IntId| matches!(g.ints.node(*i), IntNode::Range(r) if sums.contains(r));
        let axis =
            (0..index.len()).filter(|&a| summed(&index[a])).max_by_key(|&a| g.ints.bounds(g.buffer(*b).shape[a]).1)?;
        let of = k.args[b.0 as usize].0 as usize;
        let own = buffers[of].layout.is_none() && matches!(buffers[of].origin, Origin::Internal);
        let choice = choices.iter().find(|c| own && c.buffer == buffers[of].name)?;
        if choice.block.is_some() {
            return None;
        }
        if choice.order.last() != Some(&axis) {
            out.push((of, axis));
        }
    }
    (!out.is_empty()).then_some(out)
}
