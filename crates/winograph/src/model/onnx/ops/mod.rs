//! Operators by name, in families of one file each. Operators with the same mathematics share a lowering.

mod activation;
mod arithmetic;
mod attention;
mod control;
mod conv;
mod create;
mod index;
mod loss;
mod matmul;
mod movement;
mod norm;
mod pool;
mod quant;
mod recurrent;
mod reduce;
mod resize;
mod sample;
mod select;
mod training;
mod window;

use super::node::Lowering;

/// The lowering of an operator; the domain is empty for ONNX's own.
pub(super) fn find(domain: &str, op: &str) -> Option<Lowering> {
    match domain {
        "" => {}
        "ai.onnx.preview.training" => return training::find(op),
        _ => return None,
    }
    const FAMILIES: [fn(&str) -> Option<Lowering>; 18] = [
        arithmetic::find,
        activation::find,
        movement::find,
        create::find,
        reduce::find,
        conv::find,
        pool::find,
        norm::find,
        matmul::find,
        index::find,
        quant::find,
        control::find,
        recurrent::find,
        loss::find,
        resize::find,
        attention::find,
        sample::find,
        select::find,
    ];
    FAMILIES.iter().find_map(|family| family(op))
}
