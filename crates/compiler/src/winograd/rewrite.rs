//! The rewrite: a sliding-window sum of products becomes X̂, Ĝ, M̂ and an output transform.
//!
//! Takes an indexed graph and a [`Window`] in one of its definitions; leaves three more definitions (stages) and, in
//! place of the reduction, the output transform as an expression of the output ranges:
//! `y[o] = sum over u of Aᵀ[o mod m, u] * M̂[o div m, u]`. Nothing after this pass knows about Winograd.
//!
//! Where axes are covered in several parts, each region of the result has stages of its own, over its own tiles, and the
//! result is a choice between the output transforms by index.
//!
//! Transforms are nested per axis: the last window axis is innermost. Weights are transformed in f64, half floats in
//! f32. X̂ and Ĝ are kept in a dtype of the caller's choice, which rounds them once; sums are in f32 or wider.

use super::cook_toom::Transforms;
use super::cover::{self, Part};
use super::detect::{Window, footprint};
use rustc_hash::FxHashMap;
use winograph_ir::indexed::{BufId, Buffer, Def, Graph, Origin, Role, Scope, Source, Table, TableId, Val, ValId};
use winograph_ir::int::{IntId, RangeId, RangeRole};
use winograph_ir::op::{BinaryOp, ReduceOp, SumOrder};
use winograph_ir::{DType, Scalar};

/// The stages of one region.
pub struct Stages {
    /// X̂, Ĝ and M̂. Regions of the same tiles share Ĝ.
    pub buffers: [BufId; 3],
    /// The region's matrices.
    pub transforms: Vec<Transforms>,
}

/// Rewrites the window in definition number `def` with the parts of each window axis, its factors kept in `factors`; the new
/// definitions are put in front of it. Gives the stages of each region, and how many definitions there are more.
pub fn rewrite(g: &mut Graph, def: usize, window: &Window, axes: &[Vec<Part>], factors: DType) -> (Vec<Stages>, usize) {
    let before = g.defs.len();
    let work = Work::new(g, window, g.buffer(g.defs[def].buffer).name.clone(), factors);
    let mut known = FxHashMap::default();
    let mut stages = Vec::new();
    let values = cover::regions(axes)
        .into_iter()
        .enumerate()
        .map(|(n, region)| {
            let (value, buffers) = work.region(g, n, &region, &mut known);
            stages.push(Stages { buffers, transforms: region.iter().map(|p| p.transforms.clone()).collect() });
            value
        })
        .collect();
    let value = chosen(g, window, axes, values);
    let added = g.defs.split_off(before);
    let more = added.len();
    let old = g.defs.remove(def);
    let mut memo = FxHashMap::default();
    memo.insert(window.reduce, value);
    let replaced = g.rebuild(old.value, &mut memo, &mut |g, v| g.add(v));
    // The stages belong in front of their reader.
    let tail = g.defs.split_off(def);
    g.defs.extend(added);
    g.defs.push(Def { value: replaced, role: Role::OutputTransform, ..old });
    g.defs.extend(tail);
    (stages, more)
}

/// The value of the region in which an output is; `values` in the order of [`cover::regions`].
fn chosen(g: &mut Graph, window: &Window, axes: &[Vec<Part>], mut values: Vec<ValId>) -> ValId {
    for (axis, parts) in window.axes.iter().zip(axes).rev() {
        let o = g.ints.range(axis.output);
        values = values
            .chunks(parts.len().max(1))
            .map(|of| {
                let mut of = of.iter().zip(parts).rev();
                let last = of.next().map(|(&v, p)| (v, p.from));
                let first = of.fold(last, |rest, (&v, p)| {
                    rest.map(|(rest, from)| {
                        let inside = g.ints.sum(&[(o, -1)], from as i64 - 1);
                        (g.select(&[inside], v, rest), p.from)
                    })
                });
                first.map_or_else(|| g.constant(Scalar::zero(g.dtype(window.reduce))), |v| v.0)
            })
            .collect();
    }
    values[0]
}

/// What the regions of one rewrite have in common.
struct Work<'a> {
    window: &'a Window,
    name: String,
    factors: DType,
    data_axes: Vec<RangeId>,
    weight_axes: Vec<RangeId>,
    /// Axes of the data alone, and the others of the product.
    arrays: Vec<RangeId>,
    others: Vec<RangeId>,
    data_channels: Vec<RangeId>,
    weight_channels: Vec<RangeId>,
}

impl<'a> Work<'a> {
    fn new(g: &Graph, window: &'a Window, name: String, factors: DType) -> Work<'a> {
        let bound: Vec<RangeId> = window.axes.iter().map(|a| a.output).collect();
        let batch_of = |g: &Graph, v: ValId| -> Vec<RangeId> {
            g.free_ranges(v)
                .iter()
                .copied()
                .filter(|r| {
                    !bound.contains(r)
                        && !window.channels.contains(r)
                        && window.axes.iter().all(|a| a.tap != *r)
                        && g.ints.const_size(*r) != Some(1)
                })
                .collect()
        };
        // Axes of the data alone lie beside the tiles, in the stages that the product reads and writes alike: arrays that
        // share weights are rows of the same product.
        let (mut data_axes, weight_axes) = (batch_of(g, window.data), batch_of(g, window.weights));
        data_axes.sort_by_key(|r| !weight_axes.contains(r));
        let (shared, arrays): (Vec<RangeId>, Vec<RangeId>) = data_axes.iter().partition(|r| weight_axes.contains(r));
        let mut others = shared;
        others.extend(weight_axes.iter().filter(|r| !data_axes.contains(r)));
        others.sort_unstable();
        let data_channels: Vec<RangeId> =
            window.channels.iter().copied().filter(|&c| g.depends_on(window.data, c)).collect();
        let weight_channels: Vec<RangeId> =
            window.channels.iter().copied().filter(|&c| g.depends_on(window.weights, c)).collect();

        Work { window, name, factors, data_axes, weight_axes, arrays, others, data_channels, weight_channels }
    }

    /// The stages of region number `n`, and what its outputs are, where they are in it. `known` are the transformed weights
    /// that there are, by the tiles' sizes.
    fn region(
        &self,
        g: &mut Graph,
        n: usize,
        region: &[&Part],
        known: &mut FxHashMap<Vec<usize>, BufId>,
    ) -> (ValId, [BufId; 3]) {
        let Work { window, name, factors, data_axes, weight_axes, arrays, others, data_channels, weight_channels } =
            self;
        let factors = *factors;
        let out_dtype = g.dtype(window.reduce);
        let work = out_dtype.compute();
        let transforms: Vec<&Transforms> = region.iter().map(|p| &p.transforms).collect();
        let m: Vec<i64> = transforms.iter().map(|t| t.m as i64).collect();
        let from: Vec<i64> = region.iter().map(|p| p.from as i64).collect();
        let alpha: Vec<i64> = transforms.iter().map(|t| (t.m + t.r - 1) as i64).collect();
        let stage = |letter: char| if n == 0 { format!("{name}.{letter}") } else { format!("{name}.{letter}{n}") };
        let input = {
            let mut scope = Fresh::default();
            let batch = scope.copies(g, data_axes, RangeRole::Map);
            let tiles = tile_ranges(g, window, region);
            let channels = scope.copies(g, data_channels, RangeRole::Map);
            let positions = const_ranges(g, &alpha, RangeRole::Map);
            let taps = const_ranges(g, &alpha, RangeRole::Reduce);
            let mut inside = Vec::with_capacity(m.len());
            for (i, axis) in window.axes.iter().enumerate() {
                let (t, p, k) = (g.ints.range(tiles[i]), g.ints.range(taps[i]), g.ints.range(axis.tap));
                let sum = g.ints.sum(&[(t, m[i]), (p, 1)], from[i]);
                inside.push(footprint(g, axis, sum));
                let e = g.ints.sub(sum, k);
                scope.map.insert(axis.output, e);
            }
            let d = substitute_gated(g, window.data, &scope.map, &inside);
            let d = g.add(Val::Cast { x: d, dtype: work });
            let bt: Vec<TableId> = transforms.iter().map(|t| add_table(g, &t.bt.to_f64(), work)).collect();
            let value = nested(g, d, &bt, &positions, &taps);
            let value = g.add(Val::Cast { x: value, dtype: factors });
            let axes: Vec<RangeId> = [batch, tiles, channels, positions].concat();
            define(g, stage('X'), axes, value, Role::InputTransform)
        };

        let sizes: Vec<usize> = transforms.iter().map(|t| t.m).collect();
        let weights = if let Some(&same) = known.get(&sizes) {
            same
        } else {
            let mut scope = Fresh::default();
            let batch = scope.copies(g, weight_axes, RangeRole::Map);
            let channels = scope.copies(g, weight_channels, RangeRole::Map);
            let positions = const_ranges(g, &alpha, RangeRole::Map);
            let old_taps: Vec<RangeId> = window.axes.iter().map(|a| a.tap).collect();
            let taps = scope.copies(g, &old_taps, RangeRole::Reduce);
            let w = g.substitute(window.weights, &|r| scope.map.get(&r).copied());
            let w = g.add(Val::Cast { x: w, dtype: DType::F64 });
            let gm: Vec<TableId> = transforms.iter().map(|t| add_table(g, &t.g.to_f64(), DType::F64)).collect();
            let value = nested(g, w, &gm, &positions, &taps);
            let value = g.add(Val::Cast { x: value, dtype: factors });
            let axes: Vec<RangeId> = [batch, channels, positions].concat();
            let buffer = define(g, stage('W'), axes, value, Role::WeightTransform);
            known.insert(sizes, buffer);
            buffer
        };

        let product = {
            let mut scope = Fresh::default();
            let arrays = scope.copies(g, arrays, RangeRole::Map);
            let tiles = tile_ranges(g, window, region);
            let batch = scope.copies(g, others, RangeRole::Map);
            let positions = const_ranges(g, &alpha, RangeRole::Map);
            let channels = scope.copies(g, &window.channels, RangeRole::Reduce);
            let place = |g: &mut Graph, ranges: &[RangeId]| -> Vec<IntId> {
                ranges
                    .iter()
                    .map(|r| scope.map.get(r).copied().unwrap_or_else(|| g.ints.range(*r)))
                    .collect::<Vec<IntId>>()
            };
            let at_data: Vec<IntId> = [data_axes.clone(), tiles.clone(), data_channels.clone(), positions.clone()]
                .iter()
                .flat_map(|r| place(g, r))
                .collect();
            let at_weights: Vec<IntId> = [weight_axes.clone(), weight_channels.clone(), positions.clone()]
                .iter()
                .flat_map(|r| place(g, r))
                .collect();
            let x = g.load(Source::Buffer(input), &at_data, &[], Scalar::zero(factors));
            let w = g.load(Source::Buffer(weights), &at_weights, &[], Scalar::zero(factors));
            let [x, w] = [x, w].map(|x| g.add(Val::Cast { x, dtype: work }));
            let mut value = g.binary(BinaryOp::Mul, x, w);
            let summed: Vec<RangeId> = channels.into_iter().filter(|&c| g.ints.const_size(c) != Some(1)).collect();
            if !summed.is_empty() {
                value = g.add(Val::Reduce {
                    op: ReduceOp::Add,
                    ranges: summed.into(),
                    order: SumOrder::Any,
                    fused: window.fused,
                    x: value,
                });
            }
            // As the write-up's rewrite lists them for one array: [tile row][tile column][channel][position].
            let axes: Vec<RangeId> = [arrays, tiles, batch, positions].concat();
            define(g, stage('M'), axes, value, Role::Multiply)
        };

        let value = {
            let positions = const_ranges(g, &alpha, RangeRole::Reduce);
            let mut at: Vec<IntId> = arrays.iter().map(|&r| g.ints.range(r)).collect();
            let mut gate = Vec::new();
            let mut places = Vec::new();
            for (i, (axis, part)) in window.axes.iter().zip(region).enumerate() {
                let o = g.ints.range(axis.output);
                let place = g.ints.add_const(o, -from[i]);
                at.push(g.ints.div_const(place, m[i]));
                places.push(place);
                // Other regions do not read this one's products.
                if let Some(outputs) = part.outputs {
                    gate.push(place);
                    gate.push(g.ints.sum(&[(place, -1)], outputs as i64 - 1));
                }
            }
            for &r in others.iter().chain(&positions) {
                at.push(g.ints.range(r));
            }
            let mut value = g.load(Source::Buffer(product), &at, &gate, Scalar::zero(work));
            for i in (0..m.len()).rev() {
                let table = add_table(g, &transforms[i].at.to_f64(), work);
                let row = g.ints.rem_const(places[i], m[i]);
                let column = g.ints.range(positions[i]);
                let coefficient = g.load(Source::Table(table), &[row, column], &[], Scalar::zero(work));
                value = sum_of(g, coefficient, value, positions[i]);
            }
            g.add(Val::Cast { x: value, dtype: out_dtype })
        };
        (value, [input, weights, product])
    }
}

#[derive(Default)]
struct Fresh {
    map: FxHashMap<RangeId, IntId>,
}

impl Fresh {
    /// New ranges of the same sizes, to stand for the given ones.
    fn copies(&mut self, g: &mut Graph, ranges: &[RangeId], role: RangeRole) -> Vec<RangeId> {
        ranges
            .iter()
            .map(|&r| {
                let size = g.ints.size(r);
                let new = g.ints.new_range(size, role);
                let e = g.ints.range(new);
                self.map.insert(r, e);
                new
            })
            .collect()
    }
}

fn const_ranges(g: &mut Graph, sizes: &[i64], role: RangeRole) -> Vec<RangeId> {
    sizes
        .iter()
        .map(|&s| {
            let size = g.ints.constant(s);
            g.ints.new_range(size, role)
        })
        .collect()
}

fn tile_ranges(g: &mut Graph, window: &Window, region: &[&Part]) -> Vec<RangeId> {
    window
        .axes
        .iter()
        .zip(region)
        .map(|(axis, part)| {
            let m = part.transforms.m as i64;
            let outputs = match part.outputs {
                Some(outputs) => g.ints.constant(outputs as i64),
                None => g.ints.size(axis.output),
            };
            let up = g.ints.add_const(outputs, m - 1);
            let tiles = g.ints.div_const(up, m);
            g.ints.new_range(tiles, RangeRole::Map)
        })
        .collect()
}

fn add_table(g: &mut Graph, rows: &[Vec<f64>], dtype: DType) -> TableId {
    g.add_table(Table {
        shape: vec![rows.len(), rows.first().map_or(0, Vec::len)],
        dtype,
        values: rows.iter().flatten().map(|&x| Scalar::from_f64(dtype, x)).collect(),
    })
}

fn sum_of(g: &mut Graph, coefficient: ValId, value: ValId, over: RangeId) -> ValId {
    let x = g.binary(BinaryOp::Mul, coefficient, value);
    g.add(Val::Reduce { op: ReduceOp::Add, ranges: [over].into(), order: SumOrder::Any, fused: true, x })
}

/// `sum over p0 of T0[u0, p0] * (... sum over pn of Tn[un, pn] * value)`.
fn nested(g: &mut Graph, value: ValId, tables: &[TableId], positions: &[RangeId], taps: &[RangeId]) -> ValId {
    let mut value = value;
    for i in (0..tables.len()).rev() {
        let (u, p) = (g.ints.range(positions[i]), g.ints.range(taps[i]));
        let fill = Scalar::zero(g.table(tables[i]).dtype);
        let coefficient = g.load(Source::Table(tables[i]), &[u, p], &[], fill);
        value = sum_of(g, coefficient, value, taps[i]);
    }
    value
}

/// The value with ranges replaced; 0, and nothing read, where a condition does not hold.
pub(crate) fn substitute_gated(g: &mut Graph, v: ValId, map: &FxHashMap<RangeId, IntId>, inside: &[IntId]) -> ValId {
    let v = g.substitute(v, &|r| map.get(&r).copied());
    let mut memo = FxHashMap::default();
    let gated = g.rebuild(v, &mut memo, &mut |g, val| match val {
        Val::Load { src: src @ Source::Buffer(_), index, gate, fill, dynamic } => {
            let all: Vec<IntId> = gate.iter().chain(inside).copied().collect();
            match g.ints.conjunction(&all) {
                None => g.constant(fill),
                Some(gate) => g.add(Val::Load { src, index, gate, fill, dynamic }),
            }
        }
        other => g.add(other),
    });
    if let Val::Load { fill, .. } = g.val(gated)
        && *fill == Scalar::zero(fill.dtype())
    {
        return gated;
    }
    let zero = Scalar::zero(g.dtype(gated));
    let zero = g.constant(zero);
    g.select(inside, gated, zero)
}

fn define(g: &mut Graph, name: String, axes: Vec<RangeId>, value: ValId, role: Role) -> BufId {
    let shape: Vec<IntId> = axes.iter().map(|&r| g.ints.size(r)).collect();
    let dtype = g.dtype(value);
    let buffer =
        g.add_buffer(Buffer { name, dtype, shape, origin: Origin::Internal, scope: Scope::Global, layout: None });
    g.defs.push(Def { buffer, axes, value, keep: true, repeat: false, role });
    buffer
}
