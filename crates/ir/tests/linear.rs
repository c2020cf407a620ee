//! Linear code: the interpreter against results worked out by hand, and the verifier against planted errors.

use winograph_ir::indexed::{Layout, LayoutDim, Origin, Role, Scope, Table};
use winograph_ir::int::{IntId, Ints, RangeId, RangeRole};
use winograph_ir::interp::{InterpError, Value, linear::run};
use winograph_ir::linear::{Access, Code, Dynamic, Instr, LoopKind, Memory, MemoryDecl, Reg, Stmt, Type};
use winograph_ir::verify::linear::verify;
use winograph_ir::{BinaryOp, DType, ReduceOp, Scalar};

fn f32s(data: &[f64]) -> Vec<u8> {
    Value::from_f64s(DType::F32, &[data.len()], data).to_bytes()
}

fn to_f64s(bytes: &[u8]) -> Vec<f64> {
    Value::from_bytes(DType::F32, &[bytes.len() / 4], bytes).to_f64s()
}

fn memory(ints: &mut Ints, name: &str, shape: &[IntId], written: bool) -> MemoryDecl {
    MemoryDecl {
        name: name.to_string(),
        dtype: DType::F32,
        shape: shape.to_vec(),
        layout: Layout::row_major(ints, shape),
        scope: Scope::Global,
        origin: Origin::Internal,
        written,
        swizzle: 0,
        streamed: false,
    }
}

fn code(ints: Ints, args: Vec<MemoryDecl>, regs: &[(DType, u32)], body: Vec<Stmt>) -> Code {
    Code {
        name: "k".to_string(),
        role: Role::Other,
        ints,
        args,
        locals: vec![],
        tables: vec![],
        units: vec![],
        regs: regs.iter().map(|&(dtype, lanes)| Type { dtype, lanes }).collect(),
        body,
    }
}

fn flat(mem: Memory, addr: IntId, gate: &[IntId], lane: Option<RangeId>) -> Access {
    Access { mem, index: [addr].into(), addr, gate: gate.into(), lane, dynamic: None }
}

fn load(reg: u32, access: Access) -> Stmt {
    Stmt::Let { reg: Reg(reg), instr: Instr::Load { access, fill: Scalar::zero(DType::F32) } }
}

fn store(access: Access, value: u32) -> Stmt {
    Stmt::Store { access, value: Reg(value) }
}

fn grid(range: RangeId, body: Vec<Stmt>) -> Stmt {
    Stmt::Loop { range, kind: LoopKind::Grid, body }
}

fn serial(range: RangeId, body: Vec<Stmt>) -> Stmt {
    Stmt::Loop { range, kind: LoopKind::Serial, body }
}

/// `y = x + x` over `n` elements in vectors of 4, with the ragged end gated or not.
fn double(n: impl Fn(&mut Ints) -> IntId, gated: bool) -> Code {
    let mut ints = Ints::new();
    let n = n(&mut ints);
    let up = ints.add_const(n, 3);
    let blocks = ints.div_const(up, 4);
    let (i, l) = (ints.new_range(blocks, RangeRole::Map), ints.constant(4));
    let l = ints.new_range(l, RangeRole::Map);
    let (iv, lv) = (ints.range(i), ints.range(l));
    let at = ints.sum(&[(iv, 4), (lv, 1)], 0);
    let gate = ints.sum(&[(n, 1), (at, -1)], -1);
    let gate = if gated { vec![gate] } else { vec![] };
    let args = vec![memory(&mut ints, "x", &[n], false), memory(&mut ints, "y", &[n], true)];
    let body = vec![grid(
        i,
        vec![
            load(0, flat(Memory::Arg(0), at, &gate, Some(l))),
            Stmt::Let { reg: Reg(1), instr: Instr::Binary { op: BinaryOp::Add, a: Reg(0), b: Reg(0) } },
            store(flat(Memory::Arg(1), at, &gate, Some(l)), 1),
        ],
    )];
    code(ints, args, &[(DType::F32, 4), (DType::F32, 4)], body)
}

#[test]
fn gated_vectors_with_a_ragged_end() {
    let c = double(|i| i.constant(10), true);
    verify(&c).unwrap();
    let x: Vec<f64> = (0..10).map(|i| i as f64).collect();
    let mut args = [f32s(&x), f32s(&[0.0; 10])];
    run(&c, &mut args, &[]).unwrap();
    assert_eq!(to_f64s(&args[1]), x.iter().map(|v| 2.0 * v).collect::<Vec<_>>());
    // A multiple of the lanes needs no gate.
    verify(&double(|i| i.constant(12), false)).unwrap();
}

#[test]
fn sizes_that_are_parameters() {
    let param = |i: &mut Ints| {
        let p = i.new_param("n", 0, 9);
        i.param(p)
    };
    let c = double(param, true);
    verify(&c).unwrap();
    for n in 0..=9usize {
        let x: Vec<f64> = (0..n).map(|i| 1.0 + i as f64).collect();
        let mut args = [f32s(&x), f32s(&vec![0.0; n])];
        run(&c, &mut args, &[n as i64]).unwrap();
        assert_eq!(to_f64s(&args[1]), x.iter().map(|v| 2.0 * v).collect::<Vec<_>>());
    }
    assert_eq!(verify(&double(param, false)).unwrap_err().invariant, "bounds");
    assert!(matches!(run(&c, &mut [vec![], vec![]], &[10]), Err(InterpError::ParamRange { .. })));
    assert!(matches!(run(&c, &mut [vec![], vec![]], &[]), Err(InterpError::ParamCount { .. })));
    assert!(matches!(run(&c, &mut [vec![], vec![]], &[1]), Err(InterpError::Length { .. })));
}

#[test]
fn a_missing_gate_is_refused_and_found_at_run_time() {
    let c = double(|i| i.constant(10), false);
    assert_eq!(verify(&c).unwrap_err().invariant, "bounds");
    let error = run(&c, &mut [f32s(&[0.0; 10]), f32s(&[0.0; 10])], &[]).unwrap_err();
    assert_eq!(
        error,
        InterpError::OutOfBounds { kernel: "k".to_string(), memory: "x".to_string(), address: 10, len: 10 }
    );
}

fn change_access(c: &mut Code, f: impl Fn(&mut Ints, &mut Access)) {
    let Stmt::Loop { body, .. } = &mut c.body[0] else { panic!() };
    let Stmt::Let { instr: Instr::Load { access, .. }, .. } = &mut body[0] else { panic!() };
    f(&mut c.ints, access);
}

#[test]
fn wrong_addresses_are_refused() {
    let mut c = double(|i| i.constant(12), false);
    change_access(&mut c, |ints, a| a.addr = ints.add_const(a.addr, 1));
    assert_eq!(verify(&c).unwrap_err().invariant, "address");
    let mut c = double(|i| i.constant(12), false);
    change_access(&mut c, |ints, a| {
        a.addr = ints.add_const(a.addr, 1);
        a.index = [a.addr].into();
    });
    assert_eq!(verify(&c).unwrap_err().invariant, "bounds");
    let mut c = double(|i| i.constant(12), false);
    change_access(&mut c, |ints, a| {
        let r = ints.new_range(a.addr, RangeRole::Map);
        a.index = [ints.range(r)].into();
    });
    assert_eq!(verify(&c).unwrap_err().invariant, "bound");
    let mut c = double(|i| i.constant(12), false);
    change_access(&mut c, |ints, a| {
        let half = ints.div_const(a.addr, 2);
        (a.addr, a.index) = (half, [half].into());
    });
    assert_eq!(verify(&c).unwrap_err().invariant, "lanes");
}

#[test]
fn wrong_types_and_memories_are_refused() {
    let mut c = double(|i| i.constant(12), false);
    c.args[1].written = false;
    assert_eq!(verify(&c).unwrap_err().invariant, "written");
    let mut c = double(|i| i.constant(12), false);
    c.args[0].dtype = DType::F16;
    assert_eq!(verify(&c).unwrap_err().invariant, "types");
    assert!(matches!(run(&c, &mut [vec![0; 24], vec![0; 48]], &[]), Err(InterpError::Malformed { .. })));
    let mut c = double(|i| i.constant(12), false);
    c.regs[1] = Type { dtype: DType::I32, lanes: 4 };
    assert_eq!(verify(&c).unwrap_err().invariant, "types");
    let mut c = double(|i| i.constant(12), false);
    c.args[0].layout.len = c.ints.constant(11);
    assert_eq!(verify(&c).unwrap_err().invariant, "memory");
    let mut c = double(|i| i.constant(12), false);
    c.regs.pop();
    assert_eq!(verify(&c).unwrap_err().invariant, "registers");
    assert!(run(&c, &mut [vec![0; 48], vec![0; 48]], &[]).is_err());
}

/// `y[i] = sum_k x[i, k] * x[i, k]` with fused multiply-adds.
fn squares() -> Code {
    let mut ints = Ints::new();
    let [two, five] = [2, 5].map(|c| ints.constant(c));
    let (i, k) = (ints.new_range(two, RangeRole::Map), ints.new_range(five, RangeRole::Reduce));
    let (iv, kv) = (ints.range(i), ints.range(k));
    let at = ints.sum(&[(iv, 5), (kv, 1)], 0);
    let args = vec![memory(&mut ints, "x", &[two, five], false), memory(&mut ints, "y", &[two], true)];
    let x =
        Access { mem: Memory::Arg(0), index: [iv, kv].into(), addr: at, gate: [].into(), lane: None, dynamic: None };
    let fma = Instr::Fma { a: Reg(2), b: Reg(2), c: Reg(1) };
    let body = vec![grid(
        i,
        vec![
            Stmt::Let { reg: Reg(0), instr: Instr::Const(Scalar::zero(DType::F32)) },
            Stmt::Var { reg: Reg(1), init: Reg(0) },
            serial(
                k,
                vec![load(2, x), Stmt::Let { reg: Reg(3), instr: fma }, Stmt::Set { reg: Reg(1), value: Reg(3) }],
            ),
            store(flat(Memory::Arg(1), iv, &[], None), 1),
        ],
    )];
    code(ints, args, &[(DType::F32, 1); 4], body)
}

#[test]
fn an_accumulator_in_a_loop() {
    let c = squares();
    verify(&c).unwrap();
    let mut args = [f32s(&[0., 1., 2., 3., 4., 1., 1., 1., 1., 1.]), f32s(&[0.0; 2])];
    run(&c, &mut args, &[]).unwrap();
    assert_eq!(to_f64s(&args[1]), [30.0, 5.0]);
}

#[test]
fn registers_are_seen_in_their_own_body_alone() {
    let mut c = squares();
    let Stmt::Loop { body, .. } = &mut c.body[0] else { panic!() };
    let Stmt::Store { value, .. } = &mut body[3] else { panic!() };
    *value = Reg(3);
    assert_eq!(verify(&c).unwrap_err().invariant, "registers");
    let error = run(&c, &mut [vec![0; 40], vec![0; 8]], &[]).unwrap_err();
    assert_eq!(error, InterpError::RegisterUnset { kernel: "k".to_string(), reg: 3 });
    let mut c = squares();
    let Stmt::Loop { body, .. } = &mut c.body[0] else { panic!() };
    body.insert(1, body[0].clone());
    assert_eq!(verify(&c).unwrap_err().invariant, "registers");
}

#[test]
fn grid_loops_are_outermost() {
    let mut c = squares();
    let Stmt::Loop { kind, body, .. } = &mut c.body[0] else { panic!() };
    *kind = LoopKind::Serial;
    let Stmt::Loop { kind, .. } = &mut body[2] else { panic!() };
    *kind = LoopKind::Grid;
    assert_eq!(verify(&c).unwrap_err().invariant, "loops");
}

#[test]
fn conditions_of_enclosing_ifs_count_and_locals_are_fresh() {
    // local[0] is written in iteration 0 alone; iteration 1 must not see it.
    let mut ints = Ints::new();
    let [one, two, zero] = [1, 2, 0].map(|c| ints.constant(c));
    let i = ints.new_range(two, RangeRole::Map);
    let iv = ints.range(i);
    let first = ints.sum(&[(iv, -1)], 0);
    let args = vec![memory(&mut ints, "x", &[one], false), memory(&mut ints, "y", &[two], true)];
    let local = MemoryDecl { scope: Scope::Scratch, ..memory(&mut ints, "t", &[one], true) };
    let when_first = Stmt::If {
        gate: [first].into(),
        body: vec![load(0, flat(Memory::Arg(0), iv, &[], None)), store(flat(Memory::Local(0), iv, &[], None), 0)],
    };
    let body = vec![grid(
        i,
        vec![
            when_first,
            load(1, flat(Memory::Local(0), zero, &[], None)),
            store(flat(Memory::Arg(1), iv, &[], None), 1),
        ],
    )];
    let mut c = code(ints, args, &[(DType::F32, 1); 2], body);
    c.locals.push(local);
    verify(&c).unwrap();
    let mut args = [f32s(&[7.0]), f32s(&[0.0; 2])];
    run(&c, &mut args, &[]).unwrap();
    let y = to_f64s(&args[1]);
    assert_eq!(y[0], 7.0);
    assert!(y[1].is_nan());
    let Stmt::Loop { body, .. } = &mut c.body[0] else { panic!() };
    let Stmt::If { gate, .. } = &mut body[0] else { panic!() };
    *gate = [].into();
    assert_eq!(verify(&c).unwrap_err().invariant, "bounds");
}

#[test]
fn lanes_fold_pack_splat_and_select() {
    let mut ints = Ints::new();
    let [zero, one, four] = [0, 1, 4].map(|c| ints.constant(c));
    let l = ints.new_range(four, RangeRole::Map);
    let lv = ints.range(l);
    let early = ints.sum(&[(lv, -1)], 1);
    let args = vec![memory(&mut ints, "y", &[four], true), memory(&mut ints, "s", &[one], true)];
    let lets = [
        Instr::Index { value: lv, lane: Some(l) },
        Instr::Const(Scalar::from_f64(DType::F32, 10.0)),
        Instr::Splat { x: Reg(1) },
        Instr::Select { gate: [early].into(), lane: Some(l), a: Reg(0), b: Reg(2) },
        Instr::Fold { op: ReduceOp::Add, x: Reg(3) },
        Instr::Pack { lanes: [Reg(4), Reg(1), Reg(1), Reg(4)].into() },
        Instr::Binary { op: BinaryOp::Lt, a: Reg(0), b: Reg(5) },
        Instr::Where { cond: Reg(6), a: Reg(5), b: Reg(0) },
    ];
    let mut body: Vec<Stmt> =
        lets.into_iter().enumerate().map(|(n, instr)| Stmt::Let { reg: Reg(n as u32), instr }).collect();
    body.push(store(flat(Memory::Arg(0), lv, &[], Some(l)), 7));
    body.push(store(flat(Memory::Arg(1), zero, &[], None), 4));
    let v = (DType::F32, 4);
    let s = (DType::F32, 1);
    let c = code(ints, args, &[v, s, v, v, s, v, (DType::Bool, 4), v], body);
    verify(&c).unwrap();
    let mut args = [f32s(&[0.0; 4]), f32s(&[0.0])];
    run(&c, &mut args, &[]).unwrap();
    assert_eq!(to_f64s(&args[1]), [21.0]);
    assert_eq!(to_f64s(&args[0]), [21.0, 10.0, 10.0, 21.0]);
}

#[test]
fn dynamic_indices_are_clamped() {
    let mut ints = Ints::new();
    let [zero, three, two, one] = [0, 3, 2, 1].map(|c| ints.constant(c));
    let i = ints.new_range(three, RangeRole::Map);
    let j = ints.new_range(two, RangeRole::Map);
    let (iv, jv) = (ints.range(i), ints.range(j));
    let out = ints.sum(&[(iv, 2), (jv, 1)], 0);
    let args = vec![
        memory(&mut ints, "x", &[three, two], false),
        MemoryDecl { dtype: DType::I32, ..memory(&mut ints, "i", &[three], false) },
        memory(&mut ints, "y", &[three, two], true),
    ];
    let index = Instr::Load { access: flat(Memory::Arg(1), iv, &[], None), fill: Scalar::zero(DType::I32) };
    let access = Access {
        mem: Memory::Arg(0),
        index: [zero, jv].into(),
        addr: jv,
        gate: [].into(),
        lane: None,
        dynamic: Some(Dynamic { axis: 0, index: Reg(0), size: three, stride: two }),
    };
    let to =
        Access { mem: Memory::Arg(2), index: [iv, jv].into(), addr: out, gate: [].into(), lane: None, dynamic: None };
    let body =
        vec![grid(i, vec![grid(j, vec![Stmt::Let { reg: Reg(0), instr: index }, load(1, access), store(to, 1)])])];
    let mut c = code(ints, args, &[(DType::I32, 1), (DType::F32, 1)], body);
    verify(&c).unwrap();
    let at = Value::from_f64s(DType::I32, &[3], &[-5.0, 9.0, 1.0]).to_bytes();
    let mut args = [f32s(&[0., 1., 2., 3., 4., 5.]), at, f32s(&[0.0; 6])];
    run(&c, &mut args, &[]).unwrap();
    assert_eq!(to_f64s(&args[2]), [0., 1., 4., 5., 2., 3.]);
    let Stmt::Loop { body, .. } = &mut c.body[0] else { panic!() };
    let Stmt::Loop { body, .. } = &mut body[0] else { panic!() };
    let Stmt::Let { instr: Instr::Load { access, .. }, .. } = &mut body[1] else { panic!() };
    access.dynamic = access.dynamic.map(|d| Dynamic { stride: one, ..d });
    assert_eq!(verify(&c).unwrap_err().invariant, "address");
}

#[test]
fn blocked_layouts_and_tables() {
    // y[c] for c < 6, stored as [2][4] with padding: c / 4 * 4 + c % 4, rows swapped in the layout's order.
    let mut ints = Ints::new();
    let [one, two, six, eight] = [1, 2, 6, 8].map(|c| ints.constant(c));
    let i = ints.new_range(six, RangeRole::Map);
    let iv = ints.range(i);
    let layout = Layout {
        dims: vec![
            LayoutDim { axis: 0, div: 1, modulus: Some(4), stride: two },
            LayoutDim { axis: 0, div: 4, modulus: None, stride: one },
        ],
        len: eight,
    };
    let addr = layout.flatten(&mut ints, &[iv]);
    let y = MemoryDecl { layout, ..memory(&mut ints, "y", &[six], true) };
    let to = Access { mem: Memory::Arg(0), index: [iv].into(), addr, gate: [].into(), lane: None, dynamic: None };
    let body = vec![grid(i, vec![load(0, flat(Memory::Table(0), iv, &[], None)), store(to, 0)])];
    let mut c = code(ints, vec![y], &[(DType::F32, 1)], body);
    let values = (0..6).map(|x| Scalar::from_i64(DType::F32, x)).collect();
    c.tables.push(Table { shape: vec![6], dtype: DType::F32, values });
    verify(&c).unwrap();
    let mut args = [f32s(&[-1.0; 8])];
    run(&c, &mut args, &[]).unwrap();
    assert_eq!(to_f64s(&args[0]), [0., 4., 1., 5., 2., -1., 3., -1.]);
    c.tables[0].values.pop();
    assert_eq!(verify(&c).unwrap_err().invariant, "memory");
    assert!(run(&c, &mut args, &[]).is_err());
}

#[test]
fn streamed_memory_is_global() {
    let mut c = double(|i| i.constant(16), true);
    c.args[1].streamed = true;
    verify(&c).unwrap();
    let mut args = [f32s(&[1.5; 16]), f32s(&[0.0; 16])];
    run(&c, &mut args, &[]).unwrap();
    assert_eq!(to_f64s(&args[1]), [3.0; 16]);
    c.args[0].streamed = true;
    verify(&c).unwrap();
    c.args[0].scope = Scope::Shared;
    let error = verify(&c).unwrap_err();
    assert_eq!((error.invariant, error.found.as_str()), ("memory", "is streamed, Shared"));
}

#[test]
fn empty_sizes_are_legal() {
    let c = double(|i| i.constant(0), true);
    verify(&c).unwrap();
    run(&c, &mut [vec![], vec![]], &[]).unwrap();
}

#[test]
fn blocked_layouts_of_parameter_sizes() {
    // y[n] in blocks of 4, transposed as [4][blocks]; the lane's step is then a parameter.
    let mut ints = Ints::new();
    let p = ints.new_param("n", 0, 9);
    let n = ints.param(p);
    let up = ints.add_const(n, 3);
    let blocks = ints.div_const(up, 4);
    let (four, one) = (ints.constant(4), ints.constant(1));
    let len = ints.scale(blocks, 4);
    let (i, l) = (ints.new_range(blocks, RangeRole::Map), ints.new_range(four, RangeRole::Map));
    let (iv, lv) = (ints.range(i), ints.range(l));
    let at = ints.sum(&[(iv, 4), (lv, 1)], 0);
    let gate = ints.sum(&[(n, 1), (at, -1)], -1);
    let layouts = [(one, blocks, "transposed"), (four, one, "blocked")].map(|(outer, inner, name)| {
        let dims = vec![
            LayoutDim { axis: 0, div: 4, modulus: None, stride: outer },
            LayoutDim { axis: 0, div: 1, modulus: Some(4), stride: inner },
        ];
        (Layout { dims, len }, name)
    });
    for (layout, name) in layouts {
        let addr = layout.flatten(&mut ints, &[at]);
        let y = MemoryDecl { layout, ..memory(&mut ints, name, &[n], true) };
        let access =
            Access { mem: Memory::Arg(0), index: [at].into(), addr, gate: [gate].into(), lane: Some(l), dynamic: None };
        let value = Stmt::Let { reg: Reg(0), instr: Instr::Index { value: at, lane: Some(l) } };
        let mut c =
            code(ints.clone(), vec![y], &[(DType::F32, 4)], vec![grid(i, vec![value.clone(), store(access, 0)])]);
        verify(&c).unwrap();
        let mut args = [f32s(&[-1.0; 8])];
        run(&c, &mut args, &[6]).unwrap();
        let wanted =
            if name == "blocked" { [0., 1., 2., 3., 4., 5., -1., -1.] } else { [0., 4., 1., 5., 2., -1., 3., -1.] };
        assert_eq!(to_f64s(&args[0]), wanted);
        c.args[0].layout.len = n;
        // The blocked one keeps the order and so fits without padding.
        let refused = verify(&c).err().map(|e| e.invariant);
        assert_eq!(refused, (name == "transposed").then_some("memory"));
    }
}
