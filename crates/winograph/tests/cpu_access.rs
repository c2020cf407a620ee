//! Loads and stores with lanes, strides, gates and dynamic indices; loops, grids, locals and parameters. What a gate
//! excludes is not touched: some tests put inaccessible memory there.

mod kernels;

use kernels::*;
use winograph::cpu::Buffer;
use winograph::device::{Arg, DeviceError, Module};
use winograph_compiler::render::{RenderError, grid_items, render_c, scratch_bytes};
use winograph_compiler::{Target, program::ALIGNMENT};
use winograph_ir::linear::{Access, Instr, LoopKind, Memory, Reg, Stmt};
use winograph_ir::{BinaryOp, DType, Scalar, UnaryOp};

#[test]
fn lanes_strides_and_gates() {
    let cases = accesses::lanes_strides_and_gates(64);
    for cc in compilers() {
        let device = device(Some(&cc), 2);
        let codes: Vec<_> = cases.iter().map(|c| c.code.clone()).collect();
        let (module, _) = device.load(&codes).unwrap_or_else(|e| panic!("{cc}: {e}"));
        let mut wrong = 0;
        for (i, c) in cases.iter().enumerate() {
            let (input, output) = (buffer(&c.inputs[0]), buffer(&c.before));
            launch(&module, i, &[&input, &output], &[]);
            wrong += c.differences(&cc, &values(&output, c.expected[0].dtype()));
        }
        assert_eq!(wrong, 0, "{cc}: {wrong} wrong values");
    }
}

/// Pages of memory between two that cannot be touched.
struct Fenced {
    base: *mut libc::c_void,
    page: usize,
}

impl Fenced {
    fn new() -> Fenced {
        // SAFETY: a fresh anonymous mapping of three pages, of which the outer ones lose all access.
        unsafe {
            let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let base = libc::mmap(std::ptr::null_mut(), 3 * page, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            assert_ne!(base, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(base, page, libc::PROT_NONE), 0);
            assert_eq!(libc::mprotect(base.byte_add(2 * page), page, libc::PROT_NONE), 0);
            Fenced { base, page }
        }
    }

    fn start(&self) -> *mut u8 {
        self.base.cast::<u8>().wrapping_add(self.page)
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and nothing refers to it any more.
        unsafe { libc::munmap(self.base, 3 * self.page) };
    }
}

/// Copies 3 elements with vectors that reach beyond both ends of memory that can be touched.
#[test]
fn gated_lanes_do_not_touch_memory() {
    let mut codes = Vec::new();
    let mut kinds = Vec::new();
    for d in [DType::F32, DType::F64, DType::U8, DType::F16] {
        for lanes in [4u32, 8, 16, 64] {
            for at_start in [true, false] {
                for stride in [1i64, 2] {
                    let n = lanes as i64;
                    let mut b = Builder::new("fenced");
                    let lane = b.range(n);
                    // The last or first 3 lanes.
                    let (gate, first) =
                        if at_start { (b.int(&[(lane, 1)], 3 - n), n - 3) } else { (b.int(&[(lane, -1)], 2), 0) };
                    let addr = b.int(&[(lane, stride)], -first * stride);
                    let (input, output) = (b.arg(d, 5, false), b.arg(d, 5, true));
                    let read = b.gated(input, addr, Some(lane), &[gate]);
                    let write = b.gated(output, addr, Some(lane), &[gate]);
                    let mut body = Vec::new();
                    let value = b.load(d, lanes, read, &mut body);
                    body.push(Stmt::Store { access: write, value });
                    b.code.body = body;
                    codes.push(b.code);
                    kinds.push((d, at_start, stride));
                }
            }
        }
    }
    for cc in compilers() {
        let (module, _) = device(Some(&cc), 1).load(&codes).unwrap();
        let (input, output) = (Fenced::new(), Fenced::new());
        for (i, &(d, at_start, stride)) in kinds.iter().enumerate() {
            let bytes = 5 * d.size();
            let place = |f: &Fenced| f.start().wrapping_add(if at_start { 0 } else { f.page - bytes });
            let (from, to) = (place(&input), place(&output));
            // SAFETY: both lie in pages that are there, and nothing else uses them.
            let written = unsafe {
                for k in 0..bytes {
                    *from.add(k) = 1 + k as u8;
                    *to.add(k) = 0;
                }
                let args = [Arg { address: from, bytes }, Arg { address: to, bytes }];
                module.launch(i, &args, &[]).unwrap();
                std::slice::from_raw_parts(to, bytes).to_vec()
            };
            for (k, got) in written.into_iter().enumerate() {
                let element = (k / d.size()) as i64;
                let want = if element % stride == 0 && element / stride < 3 { 1 + k as u8 } else { 0 };
                assert_eq!(got, want, "{cc}: {:?} byte {k}", kinds[i]);
            }
        }
    }
}

#[test]
fn dynamic_indices_are_clamped() {
    let mut b = Builder::new("gather");
    let grid = b.range(8);
    let i = b.int(&[(grid, 1)], 0);
    let base = b.int(&[], 1);
    let (table, index) = (b.arg(DType::F32, 13, false), b.arg(DType::I64, 8, false));
    let out = b.arg(DType::F32, 8, true);
    let mut body = Vec::new();
    let at = b.access(index, i, None);
    let at = b.load(DType::I64, 1, at, &mut body);
    let read = b.dynamic(table, base, at, 4, 3);
    let value = b.load(DType::F32, 1, read, &mut body);
    let write = b.access(out, i, None);
    body.push(Stmt::Store { access: write, value });
    b.code.body.push(Stmt::Loop { range: grid, kind: LoopKind::Grid, body });
    let (module, _) = device(None, 2).load(&[b.code]).unwrap();
    let table = buffer(&(0..13).map(|x| Scalar::from_i64(DType::F32, x)).collect::<Vec<_>>());
    let index: Vec<_> = [0, 1, 3, 4, -1, i64::MIN, i64::MAX, 2].map(|x| Scalar::from_i64(DType::I64, x)).into();
    let out = Buffer::zeroed(32).unwrap();
    launch(&module, 0, &[&table, &buffer(&index), &out], &[]);
    let got: Vec<_> = values(&out, DType::F32).iter().map(|v| v.to_f64()).collect();
    assert_eq!(got, [1.0, 4.0, 10.0, 10.0, 1.0, 1.0, 10.0, 7.0]);
}

#[test]
fn nests_loops_locals_and_parameters() {
    let cases = nested::nested();
    let code = &cases[0].code;
    assert_eq!(scratch_bytes(code).unwrap(), 80_000usize.next_multiple_of(ALIGNMENT));
    assert_eq!(grid_items(code, &[5]), Some(2 * 5 * 3 + 7));
    assert_eq!(grid_items(code, &[]), None);
    for cc in compilers() {
        for threads in [1, 2, 5] {
            let (module, _) = device(Some(&cc), threads).load(std::slice::from_ref(code)).unwrap();
            for case in &cases {
                let (x, out) = (buffer(&case.inputs[0]), buffer(&case.before));
                launch(&module, 0, &[&x, &out], &case.params);
                assert_eq!(case.differences(&cc, &values(&out, DType::F32)), 0);
            }
        }
    }
}

#[test]
fn launches_that_cannot_be_are_errors() {
    let (module, _) = device(None, 2).load(&[nested::nested_kernel()]).unwrap();
    let x = Buffer::zeroed(4).unwrap();
    let out = Buffer::zeroed(1000).unwrap();
    let arg = |b: &Buffer, bytes: usize| Arg { address: b.as_ptr(), bytes };
    let try_launch = |kernel: usize, args: &[Arg], params: &[i64]| {
        // SAFETY: the buffers are live and not used otherwise; what does not fit is refused, which is tested.
        match unsafe { module.launch(kernel, args, params) } {
            Err(DeviceError::Launch { reason, .. }) => reason,
            other => panic!("expected a refusal, got {other:?}"),
        }
    };
    let good = [arg(&x, 4), arg(&out, 1000)];
    assert!(try_launch(1, &good, &[1]).contains("1 kernels"));
    assert!(try_launch(0, &good[..1], &[1]).contains("arguments"));
    assert!(try_launch(0, &good, &[]).contains("parameters"));
    assert!(try_launch(0, &good, &[10]).contains("not within 0..=9"));
    assert!(try_launch(0, &[arg(&x, 4), arg(&out, 27)], &[0]).contains("28 are needed"));
    let odd = Arg { address: x.as_ptr().wrapping_add(1), bytes: 4 };
    assert!(try_launch(0, &[odd, good[1]], &[0]).contains("aligned"));
}

fn render_error(make: impl FnOnce(&mut Builder, Reg, &mut Vec<Stmt>)) -> RenderError {
    let mut b = Builder::new("bad");
    let mut body = Vec::new();
    let x = b.emit(DType::F32, 1, Instr::Const(Scalar::one(DType::F32)), &mut body);
    make(&mut b, x, &mut body);
    b.code.body = body;
    render_c(&[b.code], &Target::cpu(32)).unwrap_err()
}

#[test]
fn code_that_cannot_be_rendered_is_an_error() {
    let e = render_error(|b, x, body| {
        b.emit(DType::F32, 1, Instr::Unary { op: UnaryOp::Exp, x }, body);
    });
    assert!(matches!(e, RenderError::NotLowered { .. }), "{e}");
    let e = render_error(|b, _, body| {
        let h = b.emit(DType::F16, 1, Instr::Const(Scalar::one(DType::F16)), body);
        b.emit(DType::F16, 1, Instr::Binary { op: BinaryOp::Add, a: h, b: h }, body);
    });
    assert!(matches!(e, RenderError::NotLowered { .. }), "{e}");
    let e = render_error(|b, x, body| {
        b.emit(DType::F32, 3, Instr::Splat { x }, body);
    });
    assert!(matches!(e, RenderError::Unsupported { .. }), "{e}");
    let e = render_error(|b, x, body| {
        b.emit(DType::F64, 1, Instr::Unary { op: UnaryOp::Neg, x }, body);
    });
    assert!(matches!(e, RenderError::Malformed { .. }), "{e}");
    let e = render_error(|b, _, body| {
        b.emit(DType::F64, 1, Instr::Unary { op: UnaryOp::Neg, x: Reg(99) }, body);
    });
    assert!(matches!(e, RenderError::Malformed { .. }), "{e}");
    // A load from an argument that is not there, and an address that uses a range outside of its loop.
    let e = render_error(|b, _, body| {
        let zero = b.int(&[], 0);
        let access = b.access(Memory::Arg(3), zero, None);
        b.load(DType::F32, 1, access, body);
    });
    assert!(matches!(e, RenderError::Malformed { .. }), "{e}");
    let e = render_error(|b, _, body| {
        let r = b.range(4);
        let addr = b.int(&[(r, 1)], 0);
        let mem = b.arg(DType::F32, 4, false);
        let access = b.access(mem, addr, None);
        b.load(DType::F32, 1, access, body);
    });
    assert!(matches!(e, RenderError::Malformed { .. }), "{e}");
    // A store to an argument that is not written.
    let e = render_error(|b, x, body| {
        let zero = b.int(&[], 0);
        let mem = b.arg(DType::F32, 4, false);
        let access: Access = b.access(mem, zero, None);
        body.push(Stmt::Store { access, value: x });
    });
    assert!(matches!(e, RenderError::Malformed { .. }), "{e}");
}

/// The text does not depend on the numbers of ranges, registers or expressions.
#[test]
fn text_does_not_depend_on_ids() {
    let make = |padding: usize| {
        let mut b = Builder::new("E");
        for i in 0..padding {
            let r = b.range(10 + i as i64);
            b.int(&[(r, 3)], 1);
            b.reg(DType::U8, 1);
        }
        let (x, y) = if padding.is_multiple_of(2) {
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
        let mut body = Vec::new();
        let gate = [b.int(&[(x, 1), (lane, -1)], 2), b.int(&[(y, 1)], -1), b.int(&[(x, -1)], 3)];
        let read = b.gated(input, from, Some(lane), &gate);
        let value = b.load(DType::F32, 4, read, &mut body);
        let write = b.access(out, to, Some(lane));
        body.push(Stmt::Store { access: write, value });
        let inner = Stmt::Loop { range: y, kind: LoopKind::Grid, body };
        b.code.body.push(Stmt::Loop { range: x, kind: LoopKind::Grid, body: vec![inner] });
        render_c(&[b.code], &Target::cpu(32)).unwrap().text
    };
    let text = make(0);
    for padding in 1..6 {
        assert_eq!(make(padding), text);
    }
}
