//! Texts for GPUs: what is one access and what is several, what is refused, and that ids mean nothing.

mod kernels;

use kernels::*;
use winograph_compiler::Target;
use winograph_compiler::render::cuda::matrix_unit;
use winograph_compiler::render::{RenderError, render_cuda, render_metal};
use winograph_ir::indexed::Scope;
use winograph_ir::linear::{Code, Instr, LoopKind, Stmt, Type};
use winograph_ir::{DType, RangeId, RangeRole, Scalar, UnaryOp};

fn sm_90() -> Target {
    Target::by_name("cuda:sm_90").unwrap()
}

fn text(code: Code) -> String {
    render_cuda(&[code], &sm_90()).unwrap().text
}

/// A copy of 4 lanes at `stride * thread + rest` of a block of 32 threads.
fn copy(
    d: DType,
    stride: i64,
    rest: i64,
    gate: impl Fn(&mut Builder, RangeId, RangeId) -> Vec<winograph_ir::IntId>,
) -> Code {
    let mut b = Builder::new("E_32_4");
    let (thread, lane) = (b.range(32), b.range(4));
    let at = b.int(&[(thread, stride), (lane, 1)], rest);
    let gate = gate(&mut b, thread, lane);
    let (input, out) = (b.arg(d, 1000, false), b.arg(d, 1000, true));
    let mut body = Vec::new();
    let (read, write) = (b.gated(input, at, Some(lane), &gate), b.gated(out, at, Some(lane), &gate));
    let value = b.load(d, 4, read, &mut body);
    body.push(Stmt::Store { access: write, value });
    b.code.body.push(Stmt::Loop { range: thread, kind: LoopKind::Thread, body });
    b.code
}

#[test]
fn alignment_decides_the_width_of_accesses() {
    let none = |_: &mut Builder, _, _| vec![];
    for (d, stride, rest, wide) in [
        (DType::F32, 4, 0, Some("float4")),
        (DType::F32, 12, 8, Some("float4")),
        (DType::F32, 6, 4, Some("float2")),
        (DType::F32, 4, 2, Some("float2")),
        (DType::F32, 5, 0, None),
        (DType::F32, 4, 1, None),
        (DType::I64, 4, 0, Some("longlong2")),
        (DType::F64, 4, 0, Some("double2")),
        (DType::I32, 4, 0, Some("int4")),
        (DType::F16, 4, 0, Some("uint2")),
        (DType::U8, 4, 0, Some("u32")),
        (DType::U8, 6, 0, Some("u16")),
    ] {
        let t = text(copy(d, stride, rest, none));
        let (load, store) = match wide {
            Some(ty) => (format!("*(const {ty} *)"), format!("*({ty} *)")),
            None => ("= a0_in[o0]".to_string(), "a1_out[o1] = ".to_string()),
        };
        assert!(t.contains(&load), "{d} {stride} {rest}: {t}");
        assert!(wide.is_none() || t.contains(&store), "{d} {stride} {rest}: {t}");
        assert!(wide.is_some() || !t.contains(" *)("), "{d} {stride} {rest}: {t}");
    }
}

#[test]
fn gates_keep_whole_vectors_apart_from_parts() {
    // Uniform: one condition, one access.
    let t = text(copy(DType::F32, 4, 0, |b, t, _| vec![b.int(&[(t, -1)], 20)]));
    assert!(t.contains("float4") && !t.contains("else"), "{t}");
    // By lane: whole vectors where the first and the last lane are in, else one by one.
    let t = text(copy(DType::F32, 4, 0, |b, t, l| vec![b.int(&[(t, -4), (l, -1)], 70)]));
    assert!(t.contains("_0 && ") && t.contains("else {"), "{t}");
}

#[test]
fn indices_have_32_bits_where_these_suffice() {
    let t = text(copy(DType::F32, 4, 0, |_, _, _| vec![]));
    assert!(t.contains("const i32 i0") && t.contains("const i32 o"), "{t}");
    let mut b = Builder::new("E_n");
    let n = b.code.ints.new_param("n", 1, 1 << 40);
    let n = b.code.ints.param(n);
    let g = b.code.ints.new_range(n, RangeRole::Map);
    let at = b.code.ints.range(g);
    let out = b.arg_of(DType::I64, n, true);
    let mut body = Vec::new();
    let value = b.emit(DType::I64, 1, Instr::Index { value: at, lane: None }, &mut body);
    let access = b.access(out, at, None);
    body.push(Stmt::Store { access, value });
    b.code.body.push(Stmt::Loop { range: g, kind: LoopKind::Grid, body });
    let t = text(b.code);
    assert!(t.contains("const i64 i0 = (i64)blockIdx.x;") && t.contains("const i64 p0"), "{t}");
}

fn refused(code: Code) -> RenderError {
    render_cuda(&[code], &sm_90()).expect_err("an error")
}

/// A block of some threads around one statement or two.
fn block(threads: i64, make: impl FnOnce(&mut Builder, RangeId, &mut Vec<Stmt>)) -> Code {
    let mut b = Builder::new("r");
    let t = b.range(threads);
    let mut body = Vec::new();
    make(&mut b, t, &mut body);
    b.code.body.push(Stmt::Loop { range: t, kind: LoopKind::Thread, body });
    b.code
}

#[test]
fn what_blocks_cannot_be_is_refused() {
    let unsupported = |e: RenderError| assert!(matches!(e, RenderError::Unsupported { .. }), "{e}");
    let malformed = |e: RenderError| assert!(matches!(e, RenderError::Malformed { .. }), "{e}");
    unsupported(refused(block(1025, |_, _, _| ())));
    unsupported(refused(block(32, |_, _, body| body.push(Stmt::Barrier(Scope::Global)))));
    unsupported(refused(block(32, |b, _, _| {
        b.local_in(Scope::Shared, DType::F32, 1 << 20);
    })));
    unsupported(refused(block(32, |b, _, _| {
        b.local_in(Scope::Scratch, DType::F32, 1 << 20);
    })));
    // A thread loop that is not around everything.
    malformed(refused(block(32, |b, _, body| {
        let inner = b.range(2);
        body.push(Stmt::Loop { range: inner, kind: LoopKind::Serial, body: vec![] });
        body.push(Stmt::Loop { range: b.range(3), kind: LoopKind::Thread, body: vec![] });
    })));
    let e = refused(block(32, |b, _, body| {
        let x = b.emit(DType::F32, 1, Instr::Const(Scalar::zero(DType::F32)), body);
        b.emit(DType::F32, 1, Instr::Unary { op: UnaryOp::Exp, x }, body);
    }));
    assert!(matches!(e, RenderError::NotLowered { .. }), "{e}");
}

fn with_unit(threads: i64, change: impl FnOnce(&mut winograph_ir::linear::MatrixUnit)) -> Code {
    block(threads, |b, _, body| {
        let mut unit = matrix_unit("m16n8k8.tf32").unwrap();
        change(&mut unit);
        let zero = b.emit(DType::F32, 1, Instr::Const(Scalar::zero(DType::F32)), body);
        let [x, y, z] =
            [&unit.a, &unit.b, &unit.c].map(|f| b.emit(DType::F32, f.elements(), Instr::Splat { x: zero }, body));
        let ty = Type { dtype: DType::F32, lanes: unit.c.elements() };
        b.code.units.push(unit);
        b.emit(ty.dtype, ty.lanes, Instr::Matrix { unit: 0, a: x, b: y, c: z }, body);
    })
}

#[test]
fn matrix_units_must_be_the_machines() {
    assert!(text(with_unit(64, |_| ())).contains("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"));
    let e = refused(with_unit(48, |_| ()));
    assert!(matches!(e, RenderError::Malformed { .. }), "{e}");
    for change in [
        (|u| u.name = "8x8x8".into()) as fn(&mut winograph_ir::linear::MatrixUnit),
        |u| u.a.thread_row.reverse(),
        |u| u.c.dtype = DType::F16,
    ] {
        let e = refused(with_unit(32, change));
        assert!(matches!(e, RenderError::Unsupported { .. } | RenderError::Malformed { .. }), "{e}");
    }
}

#[test]
fn text_does_not_depend_on_ids() {
    let make = |padding: i64| {
        let mut b = Builder::new("E");
        for i in 0..padding {
            let r = b.range(10 + i);
            b.int(&[(r, 3)], 1);
            b.reg(DType::U8, 1);
        }
        let (x, y) = if padding % 2 == 0 {
            let x = b.range(6);
            (x, b.range(8))
        } else {
            let y = b.range(8);
            (b.range(6), y)
        };
        let lane = b.range(4);
        let (input, out) = (b.arg(DType::F32, 1000, false), b.arg(DType::F32, 1000, true));
        let from = b.int(&[(y, 4), (x, 4), (lane, 1)], 5);
        let to = b.int(&[(lane, 1), (x, 32), (y, 4)], 0);
        let gate = [b.int(&[(x, 1), (lane, -1)], 2), b.int(&[(y, 1)], -1), b.int(&[(x, -1)], 3)];
        let mut body = Vec::new();
        let read = b.gated(input, from, Some(lane), &gate);
        let value = b.load(DType::F32, 4, read, &mut body);
        let access = b.access(out, to, Some(lane));
        body.push(Stmt::Store { access, value });
        let inner = Stmt::Loop { range: y, kind: LoopKind::Thread, body };
        b.code.body.push(Stmt::Loop { range: x, kind: LoopKind::Grid, body: vec![inner] });
        text(b.code)
    };
    for padding in 1..6 {
        assert_eq!(make(padding), make(0));
    }
}

#[test]
fn metal_is_the_same_kernel_in_other_words() {
    let metal = Target::by_name("metal").unwrap();
    let codes: Vec<_> = threads::threads().into_iter().map(|c| c.code).filter(|c| c.name != "E_3_4_16_2").collect();
    let t = render_metal(&codes, &metal).unwrap();
    for words in [
        "kernel void wg_0_r_3_3_8_4_2_18(device const f32 *a0_in [[buffer(0)]]",
        "threadgroup alignas(16) f32 l0_tmp[32];",
        "threadgroup_barrier(",
        "precise::fma(",
        "as_type<half>",
    ] {
        assert!(t.contains(words), "{words} is not in\n{t}");
    }
    for words in ["__", "blockIdx"] {
        assert!(!t.contains(words), "{words} is in\n{t}");
    }
    let unit = winograph_ir::linear::Fragment {
        dtype: DType::F32,
        thread_row: vec![0, 1, 2, 0, 4],
        thread_col: vec![2, 0, 0, 4, 0],
        element_row: vec![0],
        element_col: vec![1],
    };
    let code = with_unit(32, |u| {
        (u.name, u.m, u.n, u.k) = ("8x8x8".into(), 8, 8, 8);
        (u.a, u.b, u.c) = (unit.clone(), unit.clone(), unit.clone());
    });
    assert!(render_metal(&[code], &metal).unwrap().contains("simdgroup_multiply_accumulate"));
}
