//! Lanes that are no neighbours in memory: whatever the strides, rows, offsets, gates and fill values, vector code leaves
//! the same bytes as scalar code, and every access of it is proved in bounds.

mod common;

use common::{bytes, noise};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use winograph_compiler::kernel::{Kernel, Store, with_bounds};
use winograph_compiler::lower::emit::lower;
use winograph_compiler::optimize::plan::Plan;
use winograph_ir::indexed::{BufId, Buffer, Graph, Origin, Role, Scope, Source, Val, ValId};
use winograph_ir::int::{IntId, RangeRole};
use winograph_ir::interp::linear::run;
use winograph_ir::linear::{Code, Instr, Stmt};
use winograph_ir::op::BinaryOp;
use winograph_ir::verify::linear::verify;
use winograph_ir::{DType, Scalar};

/// One load or store: its offset, and conditions on the counter `t` and the row.
#[derive(Clone, Debug)]
struct Touch {
    offset: i64,
    least: Option<i64>,
    most: Option<i64>,
    row: Option<i64>,
}

#[derive(Clone, Debug)]
struct Case {
    lanes: i64,
    count: i64,
    /// Where `t` falls into rows of so many, and the distance along one of them.
    fold: Option<i64>,
    stride: i64,
    width: i64,
    loads: Vec<Touch>,
    fill: f64,
    store_fold: Option<i64>,
    store_stride: i64,
    store_width: i64,
    stores: Vec<Touch>,
    /// The last line that is there, counted through all rows, as in a block of which a part is beyond the array.
    last_line: Option<i64>,
}

const ROWS: i64 = 3;

fn touch(offsets: i64) -> impl Strategy<Value = Touch> {
    let maybe = |r: std::ops::Range<i64>| prop_oneof![3 => Just(None), 1 => r.prop_map(Some)];
    (-3..offsets, maybe(0..9), maybe(3..40), maybe(0..3)).prop_map(|(offset, least, most, row)| Touch {
        offset,
        least,
        most,
        row,
    })
}

fn cases() -> impl Strategy<Value = Case> {
    let fold = || prop_oneof![2 => Just(None), 1 => (2i64..9).prop_map(Some)];
    let lanes = prop_oneof![Just(4i64), Just(8), Just(16)];
    let loads = proptest::collection::vec(touch(12), 1..8);
    let complete = (1i64..6, touch(4), any::<bool>()).prop_map(|(s, t, plain)| {
        let one = |q| Touch {
            offset: q,
            ..if plain { Touch { least: None, most: None, row: None, ..t } } else { t.clone() }
        };
        (s, (0..s).map(one).collect::<Vec<_>>())
    });
    let stores = prop_oneof![3 => complete, 1 => (1i64..9, proptest::collection::vec(touch(1), 1..2))];
    let shape = (lanes, 3i64..40, fold(), -2i64..9, 5i64..90, loads);
    let last_line = prop_oneof![2 => Just(None), 1 => (0i64..12).prop_map(Some)];
    let stores = (fold(), stores, 0i64..7, last_line);
    (shape, -2i64..3, stores).prop_map(|(shape, fill, (store_fold, (store_stride, stores), short, last_line))| {
        let (lanes, count, fold, stride, width, loads) = shape;
        let per_row = store_fold.unwrap_or(count);
        let store_width = (store_stride * per_row - short).max(1);
        Case {
            lanes,
            count,
            fold,
            stride,
            width,
            loads,
            fill: fill as f64,
            store_fold,
            store_stride,
            store_width,
            stores,
            last_line,
        }
    })
}

/// The kernel, with the sizes of its buffers.
fn kernel(c: &Case) -> (Kernel, usize, usize) {
    let mut g = Graph::new();
    let [rows, count] = [ROWS, c.count].map(|n| g.ints.constant(n));
    let (row, t) = (g.ints.new_range(rows, RangeRole::Map), g.ints.new_range(count, RangeRole::Map));
    let (row_at, t_at) = (g.ints.range(row), g.ints.range(t));
    let lines = |fold: Option<i64>| fold.map_or(1, |f| (c.count + f - 1) / f);
    let mut sizes = Vec::new();
    for (name, width, fold, origin) in
        [("x", c.width, c.fold, Origin::Argument(0)), ("y", c.store_width, c.store_fold, Origin::Output(0))]
    {
        let shape: Vec<IntId> = [ROWS, lines(fold), width].map(|n| g.ints.constant(n)).to_vec();
        sizes.push((ROWS * lines(fold) * width) as usize);
        let layout = Some(g.row_major(&shape));
        g.add_buffer(Buffer { name: name.into(), dtype: DType::F32, shape, origin, scope: Scope::Global, layout });
    }
    let access = |g: &mut Graph, buffer: u32, fold: Option<i64>, stride: i64, touch: &Touch| {
        let (line, along) = match fold {
            Some(f) => (g.ints.div_const(t_at, f), g.ints.rem_const(t_at, f)),
            None => (g.ints.constant(0), t_at),
        };
        let place = g.ints.sum(&[(along, stride)], touch.offset);
        let mut gate = Vec::new();
        gate.extend(touch.least.map(|n| g.ints.add_const(t_at, -n)));
        gate.extend(touch.most.map(|n| g.ints.sum(&[(t_at, -1)], n)));
        gate.extend(touch.row.map(|n| g.ints.add_const(row_at, -n)));
        gate.extend(c.last_line.map(|n| g.ints.sum(&[(row_at, -lines(fold)), (line, -1)], n)));
        let index = vec![row_at, line, place];
        let shape = g.buffer(BufId(buffer)).shape.clone();
        (with_bounds(&mut g.ints, &shape, &index, gate), index)
    };
    let fill = Scalar::from_f64(DType::F32, c.fill);
    let loaded: Vec<ValId> = (c.loads.iter())
        .map(|l| {
            let (gate, index) = access(&mut g, 0, c.fold, c.stride, l);
            match g.ints.conjunction(&gate) {
                Some(gate) => g.load(Source::Buffer(BufId(0)), &index, &gate, fill),
                None => g.constant(fill),
            }
        })
        .collect();
    let mut stores = Vec::new();
    for (n, s) in c.stores.iter().enumerate() {
        let mut value = g.constant(Scalar::from_f64(DType::F32, n as f64));
        for (k, &x) in loaded.iter().enumerate() {
            let factor = g.constant(Scalar::from_f64(DType::F32, (1 + (n + k) % 5) as f64));
            let product = g.binary(BinaryOp::Mul, factor, x);
            value = g.add(Val::Binary { op: BinaryOp::Add, a: value, b: product });
        }
        let (gate, index) = access(&mut g, 1, c.store_fold, c.store_stride, s);
        if let Some(gate) = g.ints.conjunction(&gate) {
            stores.push(Store { buffer: BufId(1), index, gate, value });
        }
    }
    let args = vec![BufId(0), BufId(1)];
    (Kernel { graph: g, args, loops: vec![row, t], outer: vec![], stores, role: Role::Other }, sizes[0], sizes[1])
}

fn lowered(k: &Kernel, plan: &str) -> Code {
    let scheduled = Plan::parse(plan).unwrap().apply(k).unwrap();
    let code = lower(&scheduled, "k".into());
    verify(&code).unwrap_or_else(|e| panic!("{e}"));
    code
}

fn result(code: &Code, x: &[f32], outputs: usize) -> Vec<u8> {
    let mut args = [bytes(x), vec![0xaa; 4 * outputs]];
    run(code, &mut args, &[]).unwrap();
    let [_, y] = args;
    y
}

/// Loads and stores of single elements, and shuffles.
fn counts(code: &Code) -> (usize, usize) {
    let (mut single, mut shuffles) = (0, 0);
    code.for_each_stmt(&mut |s| match s {
        Stmt::Let { instr: Instr::Load { access, .. }, .. } | Stmt::Store { access, .. } => {
            single += access.lane.is_none() as usize;
        }
        Stmt::Let { instr: Instr::Shuffle { .. }, .. } => shuffles += 1,
        _ => {}
    });
    (single, shuffles)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn vectors_leave_what_scalars_leave(c in cases()) {
        let (k, inputs, outputs) = kernel(&c);
        let x: Vec<f32> = noise(inputs, 7);
        let scalar = result(&lowered(&k, "a0=grid a1=loop order=a0,a1"), &x, outputs);
        let vector = lowered(&k, &format!("a0=grid a1=grid,vector:{} order=a0,a1", c.lanes));
        prop_assert_eq!(result(&vector, &x, outputs), scalar);
    }
}

/// Rows of tiles, as a few rows of a small picture are: four rows of four and two rows of seven in sixteen lanes.
#[test]
fn rows_of_tiles_are_windows_and_shuffles() {
    for (fold, count, loads, stores) in [(4, 16, 6, 4), (7, 14, 6, 4), (4, 32, 6, 4), (8, 16, 3, 1)] {
        let plain = |offset| Touch { offset, least: None, most: None, row: None };
        let c = Case {
            lanes: 16,
            count,
            fold: Some(fold),
            stride: stores.max(2),
            width: stores.max(2) * fold,
            loads: (0..loads).map(|p| plain(p - 1)).collect(),
            fill: 0.0,
            store_fold: Some(fold),
            store_stride: stores,
            store_width: stores * fold - 1,
            stores: (0..stores).map(plain).collect(),
            last_line: None,
        };
        let (k, inputs, outputs) = kernel(&c);
        let x = noise(inputs, 3);
        let scalar = result(&lowered(&k, "a0=grid a1=loop order=a0,a1"), &x, outputs);
        let code = lowered(&k, "a0=grid a1=grid,vector:16 order=a0,a1");
        assert_eq!(result(&code, &x, outputs), scalar);
        let (single, shuffles) = counts(&code);
        assert_eq!(single, 0, "{c:?}");
        assert!((4..=32).contains(&shuffles), "{shuffles} shuffles: {c:?}");
    }
}

/// A block of rows of tiles of which some are beyond the picture: what is stored lies together, and the condition is on rows.
#[test]
fn rows_of_a_ragged_block_are_one_vector() {
    let lanes = 16;
    let mut g = Graph::new();
    let [blocks, tiles, all] = [2, lanes, 2 * lanes].map(|n| g.ints.constant(n));
    let (block, t) = (g.ints.new_range(blocks, RangeRole::Map), g.ints.new_range(tiles, RangeRole::Map));
    let (block_at, t_at) = (g.ints.range(block), g.ints.range(t));
    let row = g.ints.div_const(t_at, 4);
    let there = g.ints.sum(&[(block_at, -4), (row, -1)], 5);
    let at = g.ints.sum(&[(block_at, lanes), (t_at, 1)], 0);
    for (name, origin) in [("x", Origin::Argument(0)), ("y", Origin::Output(0))] {
        let layout = Some(g.row_major(&[all]));
        let shape = vec![all];
        g.add_buffer(Buffer { name: name.into(), dtype: DType::F32, shape, origin, scope: Scope::Global, layout });
    }
    let fill = Scalar::from_f64(DType::F32, 3.0);
    let value = g.load(Source::Buffer(BufId(0)), &[at], &[there], fill);
    let stores = vec![Store { buffer: BufId(1), index: vec![at], gate: [there].into(), value }];
    let args = vec![BufId(0), BufId(1)];
    let k = Kernel { graph: g, args, loops: vec![block, t], outer: vec![], stores, role: Role::Other };
    let x = noise(2 * lanes as usize, 5);
    let code = lowered(&k, "a0=grid a1=grid,vector:16 order=a0,a1");
    assert_eq!(counts(&code).0, 0);
    let scalar = result(&lowered(&k, "a0=grid a1=loop order=a0,a1"), &x, x.len());
    assert_eq!(result(&code, &x, x.len()), scalar);
}
