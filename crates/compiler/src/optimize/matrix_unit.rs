//! Matrix units: a table of shapes and of where the elements of their operands lie among the lanes of a warp, and the
//! question whether a kernel's product fits one.

use crate::kernel::Kernel;
use winograph_ir::DType;
use winograph_ir::indexed::{Val, ValId};
use winograph_ir::int::RangeId;
use winograph_ir::linear::{Fragment, MatrixUnit};
use winograph_ir::op::{BinaryOp, ReduceOp};

/// Names of the units of CUDA devices from compute capability 8.0 on.
pub const CUDA_UNITS: [&str; 4] = ["m16n8k8.tf32", "m16n8k8.3xtf32", "m16n8k16.f16", "m16n8k16.bf16"];
/// Names of the units of CUDA devices of compute capability 9.0: those before, and those that read both factors from
/// shared memory.
pub const HOPPER_UNITS: [&str; 13] = [
    "m16n8k8.tf32",
    "m16n8k8.3xtf32",
    "m16n8k16.f16",
    "m16n8k16.bf16",
    "m64n64k64.f16",
    "m64n128k64.f16",
    "m64n256k64.f16",
    "m64n64k64.bf16",
    "m64n128k64.bf16",
    "m64n256k64.bf16",
    "m64n64k32.tf32",
    "m64n128k32.tf32",
    "m64n256k32.tf32",
];
/// Names of the units of Apple's GPUs.
pub const METAL_UNITS: [&str; 1] = ["8x8x8"];

/// A unit by its name.
///
/// CUDA's places are those of the PTX ISA, "Matrix Fragments for mma.m16n8k8" and "mma.m16n8k16" with `.tf32`, `.f16`
/// and `.bf16` factors: of a thread's number in its warp, the two lowest bits count within a group of 4 and the others
/// the groups. Metal's `8x8x8` multiplies `f32` without rounding it and holds two neighbours of a row in each lane; Apple
/// does not document which lanes hold which rows, and the places here are those that programs find. `m16n8k8.3xtf32` is the
/// tf32 unit three times: each factor is the sum of its tf32 rounding and that of what is left, and the product of what is
/// left of both is left out, which leaves 22 significand bits, about.
///
/// Units named `m64` are those of PTX's `wgmma.mma_async`, several of its steps of 32 bytes along k: 128 threads share a
/// product whose factors they read from shared memory, rows of 128 bytes ([`from_shared`]). The places of results are those
/// of "Register Fragments for wgmma.mma_async.m64n8k16"; those of factors are for who wants to hold them.
pub fn matrix_unit(name: &str) -> Option<MatrixUnit> {
    let fragment = |dtype, thread_row: [u32; 5], thread_col: [u32; 5], elements: &[(u32, u32)]| Fragment {
        dtype,
        thread_row: thread_row.to_vec(),
        thread_col: thread_col.to_vec(),
        element_row: elements.iter().map(|e| e.0).collect(),
        element_col: elements.iter().map(|e| e.1).collect(),
    };
    let groups = [0, 0, 1, 2, 4];
    let c = fragment(DType::F32, groups, [2, 4, 0, 0, 0], &[(0, 1), (8, 0)]);
    if let Some(unit) = name.strip_prefix("m64").and_then(|rest| of_four_warps(name, rest)) {
        return Some(unit);
    }
    let (k, a, b, factor_bits) = match name {
        "8x8x8" => {
            let f = fragment(DType::F32, [0, 1, 2, 0, 4], [2, 0, 0, 4, 0], &[(0, 1)]);
            let (m, n, k, factor_bits) = (8, 8, 8, 24);
            return Some(MatrixUnit { name: name.to_string(), m, n, k, a: f.clone(), b: f.clone(), c: f, factor_bits });
        }
        "m16n8k8.tf32" | "m16n8k8.3xtf32" => (
            8,
            fragment(DType::F32, groups, [1, 2, 0, 0, 0], &[(8, 0), (0, 4)]),
            fragment(DType::F32, [1, 2, 0, 0, 0], groups, &[(4, 0)]),
            if name == "m16n8k8.tf32" { 11 } else { 22 },
        ),
        "m16n8k16.f16" | "m16n8k16.bf16" => {
            let d = if name.ends_with("bf16") { DType::BF16 } else { DType::F16 };
            (
                16,
                fragment(d, groups, [2, 4, 0, 0, 0], &[(0, 1), (8, 0), (0, 8)]),
                fragment(d, [2, 4, 0, 0, 0], groups, &[(1, 0), (8, 0)]),
                24,
            )
        }
        _ => return None,
    };
    Some(MatrixUnit { name: name.to_string(), m: 16, n: 8, k, a, b, c, factor_bits })
}

/// A unit that 128 threads share, by its name after `m64`.
fn of_four_warps(name: &str, rest: &str) -> Option<MatrixUnit> {
    let (sizes, kind) = rest.split_once('.')?;
    let n: u32 = match sizes.strip_prefix('n')?.split_once('k')?.0 {
        "64" => 64,
        "128" => 128,
        "256" => 256,
        _ => return None,
    };
    let (dtype, k, factor_bits) = match (kind, sizes.rsplit('k').next()?) {
        ("f16", "64") => (DType::F16, 64, 24),
        ("bf16", "64") => (DType::BF16, 64, 24),
        ("tf32", "32") => (DType::F32, 32, 11),
        _ => return None,
    };
    // Four bytes of a row beside each other, in four threads.
    let part = 4 / dtype.size() as u32;
    let powers = |from: u32, to: u32| (0..32).map(|i| 1u32 << i).filter(move |w| (from..to).contains(w));
    let rows = vec![0, 0, 1, 2, 4, 16, 32];
    let pairs = |dtype, thread_row, thread_col, elements: Vec<(u32, u32)>| {
        let (element_row, element_col) = elements.into_iter().unzip();
        Fragment { dtype, thread_row, thread_col, element_row, element_col }
    };
    let along: Vec<(u32, u32)> = powers(1, part).map(|c| (0, c)).collect();
    let beyond = |from: u32, to: u32| powers(from, to).map(|c| (0, c));
    let a: Vec<(u32, u32)> = along.iter().copied().chain([(8, 0)]).chain(beyond(4 * part, k)).collect();
    let b: Vec<(u32, u32)> =
        along.iter().map(|p| (p.1, 0)).chain(powers(4 * part, k / 4).map(|r| (r, 0))).chain(beyond(8, n)).collect();
    let c: Vec<(u32, u32)> = [(0, 1), (8, 0)].into_iter().chain(beyond(8, n)).collect();
    Some(MatrixUnit {
        name: name.to_string(),
        m: 64,
        n,
        k,
        a: pairs(dtype, rows.clone(), vec![part, 2 * part, 0, 0, 0, 0, 0], a),
        b: pairs(dtype, vec![part, 2 * part, 0, 0, 0, k / 4, k / 2], vec![0, 0, 1, 2, 4, 0, 0], b),
        c: pairs(DType::F32, rows, vec![2, 4, 0, 0, 0, 0, 0], c),
        factor_bits,
    })
}

/// Whether a unit reads its factors from shared memory itself ([`Instr::Tiles`](winograph_ir::linear::Instr::Tiles)): one
/// that more than a warp share.
pub fn from_shared(unit: &MatrixUnit) -> bool {
    unit.c.threads() > 32
}

/// A kernel that sums products: `sum over reduce ranges of a * b`, once per stored element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// The reduction.
    pub reduce: ValId,
    /// The factors.
    pub factors: [ValId; 2],
}

/// The sum of products that a kernel stores, if it has one reduction alone and that is a sum of products.
pub fn product(kernel: &Kernel) -> Option<Product> {
    let g = &kernel.graph;
    let ([reduce], [_]) = (&kernel.reduces()[..], &kernel.stores[..]) else { return None };
    let Val::Reduce { op: ReduceOp::Add, x, .. } = *g.val(*reduce) else { return None };
    match *g.val(x) {
        Val::Binary { op: BinaryOp::Mul, a, b } if g.dtype(x) == DType::F32 => {
            Some(Product { reduce: *reduce, factors: [a, b] })
        }
        _ => None,
    }
}

/// A factor as a unit with this dtype takes it: without its conversion to `f32`, if that leaves the unit's dtype.
pub fn factor(kernel: &Kernel, v: ValId, dtype: DType) -> Option<ValId> {
    let g = &kernel.graph;
    match *g.val(v) {
        _ if g.dtype(v) == dtype => Some(v),
        Val::Cast { x, .. } if g.dtype(x) == dtype => Some(x),
        _ => None,
    }
}

/// The factors of a product in the unit's order: the one that moves along `row` first. Which axes move which factors
/// decides; an axis that moves both, or neither, does not fit.
///
/// # Errors
/// Why the product does not fit.
pub fn factors(kernel: &Kernel, unit: &MatrixUnit, row: RangeId, col: RangeId) -> Result<[ValId; 2], String> {
    let Some(p) = product(kernel) else {
        return Err("a matrix unit sums products of f32, and the kernel is not one such sum".to_string());
    };
    let g = &kernel.graph;
    let [a, b] = p.factors;
    let moves = |v: ValId, r: RangeId| g.depends_on(v, r);
    let (first, second) = match (moves(a, row), moves(a, col), moves(b, row), moves(b, col)) {
        (true, false, false, true) => (a, b),
        (false, true, true, false) => (b, a),
        _ => return Err("one axis of the unit has to move one factor alone, and the other axis the other".to_string()),
    };
    match (factor(kernel, first, unit.a.dtype), factor(kernel, second, unit.b.dtype)) {
        (Some(a), Some(b)) => Ok([a, b]),
        _ => Err(format!("unit {} multiplies {}, the kernel {}", unit.name, unit.a.dtype, g.dtype(first))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_cover_their_matrices() {
        for name in CUDA_UNITS.into_iter().chain(HOPPER_UNITS).chain(METAL_UNITS) {
            let u = matrix_unit(name).unwrap();
            assert_eq!(u.name, name);
            for (f, rows, cols) in [(&u.a, u.m, u.k), (&u.b, u.k, u.n), (&u.c, u.m, u.n)] {
                let mut places: Vec<_> =
                    (0..f.threads()).flat_map(|t| (0..f.elements()).map(move |e| f.place(t, e))).collect();
                places.sort_unstable();
                let all: Vec<_> = (0..rows).flat_map(|r| (0..cols).map(move |c| (r, c))).collect();
                assert_eq!(places, all, "{name}");
            }
        }
    }
}
