//! Every variant of every level's enums goes through the text form and back.

use winograph_ir::indexed::{Buffer, Def, Graph, Layout, LayoutDim, Origin, Role, Scope, Source, Table, Val};
use winograph_ir::linear::{
    Access, Code, Dynamic, Fragment, Instr, LoopKind, MatrixUnit, Memory, MemoryDecl, Reg, Stmt, Tile, Type,
};
use winograph_ir::rule::{Algorithm, AxisTile, Tolerance, WindowRule};
use winograph_ir::tensor::{InputKind, NodeId, TensorGraph, TensorOp};
use winograph_ir::text::{
    parse_indexed, parse_linear, parse_scalar, parse_tensor, print_indexed, print_linear, print_tensor,
};
use winograph_ir::{BinaryOp, DType, Ints, RangeRole, ReduceOp, Scalar, SumOrder, UnaryOp};

#[track_caller]
fn round_trip_tensor(g: &TensorGraph) -> TensorGraph {
    let text = print_tensor(g);
    let back = parse_tensor(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(print_tensor(&back), text);
    back
}

#[track_caller]
fn round_trip_indexed(g: &Graph) -> Graph {
    let text = print_indexed(g);
    let back = parse_indexed(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(print_indexed(&back), text);
    back
}

#[track_caller]
fn round_trip_linear(code: &Code) -> Code {
    let text = print_linear(code);
    let back = parse_linear(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(print_linear(&back), text);
    back
}

#[test]
fn special_scalars() {
    for d in DType::ALL.into_iter().filter(|d| d.is_float()) {
        for x in [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, 0.1, -1e-7, 6e4] {
            let s = Scalar::from_f64(d, x);
            assert_eq!(parse_scalar(&s.to_string()), Ok(s), "{s}");
        }
        let nan = Scalar::from_f64(d, f64::NAN);
        for bits in [nan.bits(), nan.bits() | 1, nan.bits() | 0xb, nan.bits() | 1 << (8 * d.size() - 1)] {
            let s = Scalar::from_bits(d, bits);
            assert_eq!(parse_scalar(&s.to_string()), Ok(s), "{s}");
        }
    }
    for text in
        ["i64", "300u8", "-1u8", "1.5i32", "1e999f32", "7e4f16", "nan:0f32", "nanf32", "1", "-true", "--1i8", ""]
    {
        assert!(parse_scalar(text).is_err(), "{text}");
    }
    assert_eq!(parse_scalar("-9223372036854775808i64"), Ok(Scalar::from_i64(DType::I64, i64::MIN)));
}

/// A place for each variant, so that a new one does not compile until it is covered here.
fn tensor_variant(op: &TensorOp<NodeId>) -> usize {
    match op {
        TensorOp::Input { .. } => 0,
        TensorOp::Full { .. } => 1,
        TensorOp::Table { .. } => 2,
        TensorOp::Iota { .. } => 3,
        TensorOp::Unary { .. } => 4,
        TensorOp::Binary { .. } => 5,
        TensorOp::Where { .. } => 6,
        TensorOp::Cast { .. } => 7,
        TensorOp::Reshape { .. } => 8,
        TensorOp::Permute { .. } => 9,
        TensorOp::Expand { .. } => 10,
        TensorOp::Pad { .. } => 11,
        TensorOp::Slice { .. } => 12,
        TensorOp::Unfold { .. } => 13,
        TensorOp::Cat { .. } => 14,
        TensorOp::Gather { .. } => 15,
        TensorOp::Reduce { .. } => 16,
        TensorOp::Contiguous { .. } => 17,
    }
}

#[test]
fn every_tensor_op() {
    let mut g = TensorGraph::new();
    let n = g.ints.new_param("n", 1, 9);
    let (n, k, zero) = (g.ints.param(n), g.ints.constant(6), g.ints.constant(0));
    g.inputs = vec![InputKind::Argument, InputKind::Constant];
    let x = g.add(TensorOp::Input { slot: 1, dtype: DType::F32, shape: vec![n, k] });
    let mut all = vec![x];
    for op in UnaryOp::ALL {
        all.push(g.add(TensorOp::Unary { op, x }));
    }
    for op in BinaryOp::ALL {
        all.push(g.add(TensorOp::Binary { op, a: x, b: all[1] }));
    }
    for dtype in DType::ALL {
        all.push(g.add(TensorOp::Cast { x, dtype }));
        all.push(g.add(TensorOp::Full { value: Scalar::one(dtype), shape: vec![n, k] }));
        all.push(g.add(TensorOp::Iota { dtype, shape: vec![n, k], axis: 1 }));
        all.push(g.add(TensorOp::Table { values: vec![Scalar::one(dtype); 6], dtype, shape: vec![2, 3] }));
    }
    for op in ReduceOp::ALL {
        for order in SumOrder::ALL {
            for fused in [false, true] {
                all.push(g.add(TensorOp::Reduce { op, x, axes: vec![1], order, fused, rule: None }));
            }
        }
    }
    for algorithm in [None].into_iter().chain(Algorithm::ALL.map(Some)) {
        let mixed = AxisTile::of(&[4, 3, 2]).unwrap();
        for (tile, times, exact_nonfinite) in [
            (vec![], None, false),
            (vec![4.into()], Some(2.5), true),
            (vec![2.into(), 6.into()], Some(f64::INFINITY), false),
            (vec![mixed, 6.into()], None, false),
        ] {
            let tolerance = times.map(|t| Tolerance::new(t).unwrap());
            let rule = Some(Box::new(WindowRule { algorithm, tile, tolerance, exact_nonfinite }));
            let order = SumOrder::Any;
            all.push(g.add(TensorOp::Reduce { op: ReduceOp::Add, x, axes: vec![1], order, fused: true, rule }));
        }
    }
    let cond = g.add(TensorOp::Full { value: Scalar::from_bool(true), shape: vec![n, k] });
    let nk = g.ints.mul(n, k);
    let value = Scalar::from_f64(DType::F32, -0.0);
    all.push(g.add(TensorOp::Where { cond, a: x, b: x }));
    all.push(g.add(TensorOp::Reshape { x, shape: vec![nk] }));
    all.push(g.add(TensorOp::Expand { x, shape: vec![nk, k] }));
    all.push(g.add(TensorOp::Permute { x, order: vec![1, 0] }));
    all.push(g.add(TensorOp::Pad { x, before: vec![n, zero], after: vec![k, nk], value }));
    all.push(g.add(TensorOp::Slice { x, start: vec![zero, k], step: vec![2, -1], size: vec![n, k] }));
    all.push(g.add(TensorOp::Unfold { x, axis: 1, size: 2, stride: 3, dilation: 2 }));
    all.push(g.add(TensorOp::Unfold { x, axis: 0, size: 2, stride: 3, dilation: 1 }));
    all.push(g.add(TensorOp::Cat { parts: vec![x, x, all[3]], axis: 0 }));
    all.push(g.add(TensorOp::Gather { x, axis: 0, index: x }));
    all.push(g.add(TensorOp::Contiguous { x }));
    let mut seen: Vec<usize> = g.nodes().iter().map(|n| tensor_variant(&n.op)).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, (0..18).collect::<Vec<_>>());
    g.outputs = all;
    let back = round_trip_tensor(&g);
    assert_eq!(back.inputs, g.inputs);
    assert_eq!(back.nodes().len(), g.nodes().len());
    assert_eq!(back.outputs.len(), g.outputs.len());
}

fn val_variant(val: &Val) -> usize {
    match val {
        Val::Const(_) => 0,
        Val::Index { .. } => 1,
        Val::Load { .. } => 2,
        Val::Unary { .. } => 3,
        Val::Binary { .. } => 4,
        Val::Fma { .. } => 5,
        Val::Where { .. } => 6,
        Val::Cast { .. } => 7,
        Val::Bitcast { .. } => 8,
        Val::Select { .. } => 9,
        Val::Reduce { .. } => 10,
    }
}

#[test]
fn every_value() {
    let mut g = Graph::new();
    let n = g.ints.new_param("n", 1, 9);
    let (n, k) = (g.ints.param(n), g.ints.constant(6));
    let layout = Layout {
        dims: vec![
            LayoutDim { axis: 1, div: 4, modulus: Some(2), stride: n },
            LayoutDim { axis: 0, div: 1, modulus: None, stride: k },
        ],
        len: n,
    };
    let mut buffers = Vec::new();
    for origin in [Origin::Argument(0), Origin::Constant(1), Origin::Output(0), Origin::Internal] {
        for scope in [Scope::Register, Scope::Scratch, Scope::Shared, Scope::Global] {
            for layout in [None, Some(layout.clone())] {
                let name = format!("b {}", buffers.len());
                let buffer = Buffer { name, dtype: DType::F32, shape: vec![n, k], origin, scope, layout };
                buffers.push(g.add_buffer(buffer));
            }
        }
    }
    let table = g.add_table(Table {
        shape: vec![2],
        dtype: DType::F32,
        values: vec![Scalar::from_f64(DType::F32, 0.1), Scalar::from_bits(DType::F32, 0x7fc0_0001)],
    });
    let (i, j) = (g.ints.new_range(n, RangeRole::Map), g.ints.new_range(k, RangeRole::Map));
    let (ri, rj) = (g.ints.range(i), g.ints.range(j));
    let fill = Scalar::one(DType::F32);
    let gap = g.ints.sum(&[(ri, 1), (rj, 1)], -3);
    let x = g.load(Source::Buffer(buffers[0]), &[ri, rj], &[gap], fill);
    let half = g.ints.div_const(rj, 3);
    let y = g.load(Source::Table(table), &[half], &[], Scalar::zero(DType::F32));
    let dynamic = Some((0, x));
    let zero = g.ints.constant(0);
    let z =
        g.add(Val::Load { src: Source::Buffer(buffers[8]), index: [zero, rj].into(), gate: [].into(), fill, dynamic });
    let mut all = vec![x, y, z, g.constant(fill)];
    for op in UnaryOp::ALL {
        all.push(g.unary(op, x));
    }
    for op in BinaryOp::ALL {
        all.push(g.binary(op, x, y));
    }
    for dtype in DType::ALL {
        all.push(g.add(Val::Index { value: ri, dtype }));
        all.push(g.add(Val::Cast { x, dtype }));
        all.push(g.add(Val::Bitcast { x, dtype }));
    }
    for op in ReduceOp::ALL {
        for order in SumOrder::ALL {
            for fused in [false, true] {
                let r = g.ints.new_range(k, RangeRole::Reduce);
                let index = g.ints.range(r);
                let x = g.load(Source::Buffer(buffers[0]), &[ri, index], &[], fill);
                all.push(g.add(Val::Reduce { op, ranges: [r].into(), order, fused, x }));
            }
        }
    }
    all.push(g.add(Val::Fma { a: x, b: y, c: z }));
    all.push(g.add(Val::Where { cond: x, a: y, b: z }));
    all.push(g.select(&[gap], x, y));
    let mut seen: Vec<usize> = all.iter().map(|&v| val_variant(g.val(v))).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, (0..11).collect::<Vec<_>>());
    for (n, &value) in all.iter().enumerate() {
        let role = Role::ALL[n % Role::ALL.len()];
        let buffer = buffers[n % buffers.len()];
        g.defs.push(Def { buffer, axes: vec![i, j], value, keep: n % 2 == 0, repeat: n % 3 == 0, role });
    }
    let back = round_trip_indexed(&g);
    for (a, b) in g.defs.iter().zip(&back.defs) {
        assert_eq!((a.keep, a.repeat, a.role), (b.keep, b.repeat, b.role));
        assert_eq!(val_variant(g.val(a.value)), val_variant(back.val(b.value)));
        assert_eq!(g.dtype(a.value), back.dtype(b.value));
        let (a, b) = (g.buffer(a.buffer), back.buffer(b.buffer));
        assert_eq!((&a.name, a.dtype, a.origin, a.scope), (&b.name, b.dtype, b.origin, b.scope));
        assert_eq!(a.layout.is_some(), b.layout.is_some());
    }
}

/// The same graph with its ranges, buffers, tables and values made in another order prints the same.
#[test]
fn creation_order_does_not_show() {
    let build = |flip: bool| {
        let mut g = Graph::new();
        let sizes = [5, 7, 3, 4];
        let roles = [RangeRole::Map, RangeRole::Map, RangeRole::Reduce, RangeRole::Reduce];
        let order: Vec<usize> = if flip { vec![3, 1, 2, 0] } else { vec![0, 1, 2, 3] };
        let mut r = [None; 4];
        for &n in &order {
            let size = g.ints.constant(sizes[n]);
            r[n] = Some(g.ints.new_range(size, roles[n]));
        }
        let r = r.map(|x| x.expect("made"));
        let mut e = [None; 4];
        for &n in &order {
            e[n] = Some(g.ints.range(r[n]));
        }
        let [i, j, p, q] = e.map(|x| x.expect("made"));
        let shape: Vec<_> = [8, 11].map(|s| g.ints.constant(s)).into();
        let out: Vec<_> = [5, 7].map(|s| g.ints.constant(s)).into();
        let buffer = |name: &str, shape: &[_], origin| Buffer {
            name: name.to_string(),
            dtype: DType::F32,
            shape: shape.to_vec(),
            origin,
            scope: Scope::Global,
            layout: None,
        };
        let mut all = [
            buffer("a", &shape, Origin::Argument(0)),
            buffer("b", &shape, Origin::Argument(1)),
            buffer("o", &out, Origin::Output(0)),
        ];
        if flip {
            all.reverse();
        }
        let mut ids = all.map(|b| g.add_buffer(b));
        if flip {
            ids.reverse();
        }
        let [a, b, o] = ids;
        let (ip, jq) = (g.ints.add(i, p), g.ints.add(j, q));
        let gates = [g.ints.add_const(ip, -1), g.ints.sum(&[(jq, -1)], 8), g.ints.add_const(jq, -2)];
        let zero = Scalar::zero(DType::F32);
        let load = |g: &mut Graph, b| g.load(Source::Buffer(b), &[ip, jq], &gates, zero);
        let (x, y) = if flip {
            let y = load(&mut g, b);
            (load(&mut g, a), y)
        } else {
            let x = load(&mut g, a);
            (x, load(&mut g, b))
        };
        let product = if flip { g.binary(BinaryOp::Mul, y, x) } else { g.binary(BinaryOp::Mul, x, y) };
        let root = g.unary(UnaryOp::Sqrt, x);
        let sum = if flip { g.binary(BinaryOp::Add, product, root) } else { g.binary(BinaryOp::Add, root, product) };
        let x = g.add(Val::Fma { a: if flip { y } else { sum }, b: if flip { sum } else { y }, c: x });
        let (op, order) = (ReduceOp::Add, SumOrder::Tree);
        let value = g.add(Val::Reduce { op, ranges: [r[2], r[3]].into(), order, fused: true, x });
        g.defs.push(Def { buffer: o, axes: vec![r[0], r[1]], value, keep: true, repeat: false, role: Role::Direct });
        g
    };
    let (a, b) = (print_indexed(&build(false)), print_indexed(&build(true)));
    assert_eq!(a, b);
    round_trip_indexed(&build(true));
}

fn instr_variant(instr: &Instr) -> usize {
    match instr {
        Instr::Const(_) => 0,
        Instr::Index { .. } => 1,
        Instr::Load { .. } => 2,
        Instr::Unary { .. } => 3,
        Instr::Binary { .. } => 4,
        Instr::Fma { .. } => 5,
        Instr::Where { .. } => 6,
        Instr::Select { .. } => 7,
        Instr::Cast { .. } => 8,
        Instr::Bitcast { .. } => 9,
        Instr::Splat { .. } => 10,
        Instr::Pack { .. } => 11,
        Instr::Fold { .. } => 12,
        Instr::Matrix { .. } => 13,
        Instr::Shuffle { .. } => 14,
        Instr::Rows { .. } => 15,
        Instr::Tiles { .. } => 16,
    }
}

fn stmt_variant(stmt: &Stmt) -> usize {
    match stmt {
        Stmt::Let { .. } => 0,
        Stmt::Var { .. } => 1,
        Stmt::Set { .. } => 2,
        Stmt::Store { .. } => 3,
        Stmt::Loop { .. } => 4,
        Stmt::If { .. } => 5,
        Stmt::Barrier(_) => 6,
        Stmt::Async { .. } => 7,
        Stmt::Wait(_) => 8,
        Stmt::Prefetch { .. } => 9,
    }
}

/// A matrix unit that need not exist, with another number in each of its fields.
fn unit(n: u32, dtype: DType) -> MatrixUnit {
    let names = ["8x8x8", "m16n8k8.tf32", "plain", "unit", "r1"];
    let fragment = |k: u32| Fragment {
        dtype: if k == n % 3 { dtype } else { DType::F32 },
        thread_row: (0..k + n % 2).collect(),
        thread_col: vec![k, n],
        element_row: vec![],
        element_col: vec![100 * k + n; k as usize],
    };
    MatrixUnit {
        name: format!("{}{}", names[n as usize % names.len()], if n < 5 { "" } else { " two" }),
        m: 8 + n,
        n: 16 + n,
        k: 32 + n,
        a: fragment(0),
        b: fragment(1),
        c: fragment(2),
        factor_bits: 11 + n,
    }
}

#[test]
fn every_instruction_and_statement() {
    let mut ints = Ints::new();
    let n = ints.new_param("n", 1, 9);
    let (n, k) = (ints.param(n), ints.constant(8));
    let (b, l) = (ints.new_range(n, RangeRole::Map), ints.new_range(k, RangeRole::Reduce));
    let (rb, rl) = (ints.range(b), ints.range(l));
    let layout = Layout { dims: vec![LayoutDim { axis: 0, div: 1, modulus: None, stride: k }], len: n };
    let decl = |name: &str, origin, scope, written| MemoryDecl {
        name: name.to_string(),
        dtype: DType::F32,
        shape: vec![n],
        layout: layout.clone(),
        scope,
        origin,
        written,
        swizzle: 0,
        streamed: false,
    };
    let args = vec![
        decl("x", Origin::Argument(0), Scope::Global, false),
        decl("lane", Origin::Constant(1), Scope::Global, true),
        MemoryDecl { streamed: true, ..decl("r0", Origin::Output(2), Scope::Global, true) },
    ];
    let locals =
        vec![decl("s", Origin::Internal, Scope::Shared, true), decl("t0", Origin::Internal, Scope::Scratch, false)];
    let one = Scalar::one(DType::F32);
    let tables = vec![Table { shape: vec![1], dtype: DType::F32, values: vec![one] }];
    let gap = ints.sum(&[(rb, 1), (rl, 1)], -3);
    let gate: Box<[_]> = [gap].into();
    let mut regs = Vec::new();
    let mut lets = Vec::new();
    let mut bind = |instr: Instr, dtype, lanes| {
        let reg = Reg(regs.len() as u32);
        regs.push(Type { dtype, lanes });
        lets.push(Stmt::Let { reg, instr });
        reg
    };
    for dtype in DType::ALL {
        bind(Instr::Const(Scalar::one(dtype)), dtype, 1);
    }
    let x = bind(Instr::Const(one), DType::F32, 1);
    let at = |mem, lane, gate: Box<[_]>, dynamic| Access { mem, index: [rb].into(), addr: rb, gate, lane, dynamic };
    let dynamic = Some(Dynamic { axis: 0, index: x, size: n, stride: k });
    let mut accesses = Vec::new();
    for mem in [Memory::Arg(0), Memory::Arg(1), Memory::Arg(2), Memory::Local(0), Memory::Local(1), Memory::Table(0)] {
        for lane in [None, Some(l)] {
            for gate in [[].into(), gate.clone()] {
                for dynamic in [None, dynamic] {
                    accesses.push(at(mem, lane, gate.clone(), dynamic));
                }
            }
        }
    }
    for access in &accesses {
        for fill in [one, Scalar::zero(DType::F32)] {
            bind(Instr::Load { access: access.clone(), fill }, DType::F32, 8);
        }
    }
    for access in accesses.iter().filter(|a| a.gate.is_empty()) {
        // Without a lane the word `transposed` is not told from a memory's name.
        for transposed in [false, true].into_iter().take(1 + access.lane.is_some() as usize) {
            bind(Instr::Rows { access: access.clone(), transposed }, DType::F32, 8);
        }
    }
    for op in UnaryOp::ALL {
        bind(Instr::Unary { op, x }, DType::F32, 1);
    }
    for op in BinaryOp::ALL {
        bind(Instr::Binary { op, a: x, b: x }, DType::F32, 1);
    }
    for op in ReduceOp::ALL {
        bind(Instr::Fold { op, x }, DType::F32, 1);
    }
    for lane in [None, Some(l)] {
        bind(Instr::Index { value: gap, lane }, DType::I64, 8);
        bind(Instr::Select { gate: gate.clone(), lane, a: x, b: x }, DType::F32, 8);
        bind(Instr::Select { gate: [].into(), lane, a: x, b: x }, DType::F32, 8);
    }
    bind(Instr::Fma { a: x, b: x, c: x }, DType::F32, 1);
    bind(Instr::Where { cond: x, a: x, b: x }, DType::F32, 1);
    bind(Instr::Cast { x }, DType::BF16, 1);
    bind(Instr::Bitcast { x }, DType::I32, 1);
    bind(Instr::Splat { x }, DType::F32, 16);
    bind(Instr::Pack { lanes: [x, x].into() }, DType::F32, 2);
    bind(Instr::Shuffle { a: x, b: x, pattern: [1, 0].into() }, DType::F32, 2);
    let units: Vec<MatrixUnit> = DType::ALL.into_iter().enumerate().map(|(n, d)| unit(n as u32, d)).collect();
    for unit in 0..units.len() as u32 {
        bind(Instr::Matrix { unit, a: x, b: x, c: x }, DType::F32, 1);
        let tile = |lane| Tile { access: at(Memory::Local(0), lane, [].into(), None), row: l, base: rb };
        bind(Instr::Tiles { unit, tiles: Box::new([tile(Some(l)), tile(None)]), c: x }, DType::F32, 1);
    }
    let reg = Reg(regs.len() as u32);
    regs.push(Type { dtype: DType::F32, lanes: 1 });
    let mut body = lets;
    body.push(Stmt::Var { reg, init: x });
    body.push(Stmt::Set { reg, value: x });
    body.extend(accesses.into_iter().map(|access| Stmt::Store { access, value: x }));
    body.extend([Scope::Register, Scope::Scratch, Scope::Shared, Scope::Global].map(Stmt::Barrier));
    body.push(Stmt::Async { body: vec![Stmt::If { gate: gate.clone(), body: vec![] }] });
    body.extend([0, 63].map(Stmt::Wait));
    body.extend([Memory::Arg(0), Memory::Local(0)].map(|mem| Stmt::Prefetch { mem, addr: rb }));
    body.push(Stmt::If { gate: gate.clone(), body: vec![] });
    body.push(Stmt::If { gate: [].into(), body: vec![Stmt::Barrier(Scope::Shared)] });
    for kind in [LoopKind::Serial, LoopKind::Thread, LoopKind::Grid] {
        body = vec![Stmt::Loop { range: b, kind, body }];
    }
    body = vec![Stmt::Loop { range: l, kind: LoopKind::Serial, body }];
    for role in Role::ALL {
        let code = Code {
            name: "r_8 \"quoted\" \\ \n \u{1f600}".to_string(),
            role,
            ints: ints.clone(),
            args: args.clone(),
            locals: locals.clone(),
            tables: tables.clone(),
            units: units.clone(),
            regs: regs.clone(),
            body: body.clone(),
        };
        let back = round_trip_linear(&code);
        assert_eq!((back.name, back.role, &back.regs, &back.tables), (code.name.clone(), role, &regs, &tables));
        assert_eq!(back.units, units);
        let flags = |code: &[MemoryDecl]| -> Vec<_> {
            code.iter().map(|m| (m.name.clone(), m.origin, m.scope, m.written)).collect()
        };
        assert_eq!(flags(&back.args), flags(&args));
        assert_eq!(flags(&back.locals), flags(&locals));
        let (mut instrs, mut stmts) = (Vec::new(), Vec::new());
        code.for_each_stmt(&mut |s| {
            stmts.push(stmt_variant(s));
            if let Stmt::Let { instr, .. } = s {
                instrs.push(instr_variant(instr));
            }
        });
        for (seen, count) in [(&mut instrs, 17), (&mut stmts, 10)] {
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(*seen, (0..count).collect::<Vec<_>>());
        }
    }
}
