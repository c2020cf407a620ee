//! Small kernels for tests: a builder of linear code and what is needed to run it.
#![allow(dead_code)]

pub(crate) mod accesses;
pub(crate) mod matrix;
pub(crate) mod nested;
pub(crate) mod ops;
pub(crate) mod threads;

use std::ffi::OsString;
use winograph::cpu::{Buffer, CpuDevice, CpuOptions};
use winograph::device::{Memory, Module};
use winograph::env::Env;
use winograph_ir::indexed::{Layout, LayoutDim, Origin, Role, Scope, Table};
use winograph_ir::linear::{Access, Code, Dynamic, Instr, Memory as Mem, MemoryDecl, Reg, Stmt, Type};
use winograph_ir::{DType, IntId, Ints, RangeId, RangeRole, Scalar};

/// Builds one kernel.
pub(crate) struct Builder {
    pub(crate) code: Code,
}

impl Builder {
    pub(crate) fn new(name: &str) -> Builder {
        Builder {
            code: Code {
                name: name.into(),
                role: Role::Other,
                ints: Ints::new(),
                args: vec![],
                locals: vec![],
                tables: vec![],
                units: vec![],
                regs: vec![],
                body: vec![],
            },
        }
    }

    fn decl(&mut self, name: &str, dtype: DType, len: IntId, scope: Scope, written: bool) -> MemoryDecl {
        let stride = self.code.ints.constant(1);
        let layout = Layout { dims: vec![LayoutDim { axis: 0, div: 1, modulus: None, stride }], len };
        MemoryDecl {
            name: name.into(),
            dtype,
            shape: vec![len],
            layout,
            scope,
            origin: Origin::Internal,
            written,
            swizzle: 0,
            streamed: false,
        }
    }

    pub(crate) fn arg(&mut self, dtype: DType, len: i64, written: bool) -> Mem {
        let len = self.code.ints.constant(len);
        self.arg_of(dtype, len, written)
    }

    pub(crate) fn arg_of(&mut self, dtype: DType, len: IntId, written: bool) -> Mem {
        let n = self.code.args.len();
        let d = self.decl(if written { "out" } else { "in" }, dtype, len, Scope::Global, written);
        self.code.args.push(d);
        Mem::Arg(n as u32)
    }

    pub(crate) fn local(&mut self, dtype: DType, len: i64) -> Mem {
        self.local_in(Scope::Scratch, dtype, len)
    }

    pub(crate) fn local_in(&mut self, scope: Scope, dtype: DType, len: i64) -> Mem {
        let len = self.code.ints.constant(len);
        let n = self.code.locals.len();
        let d = self.decl("tmp", dtype, len, scope, true);
        self.code.locals.push(d);
        Mem::Local(n as u32)
    }

    pub(crate) fn table(&mut self, values: &[Scalar]) -> Mem {
        self.code.tables.push(Table { shape: vec![values.len()], dtype: values[0].dtype(), values: values.to_vec() });
        Mem::Table(self.code.tables.len() as u32 - 1)
    }

    pub(crate) fn range(&mut self, size: i64) -> RangeId {
        let size = self.code.ints.constant(size);
        self.code.ints.new_range(size, RangeRole::Map)
    }

    pub(crate) fn int(&mut self, terms: &[(RangeId, i64)], c: i64) -> IntId {
        let terms: Vec<_> = terms.iter().map(|&(r, k)| (self.code.ints.range(r), k)).collect();
        self.code.ints.sum(&terms, c)
    }

    pub(crate) fn reg(&mut self, dtype: DType, lanes: u32) -> Reg {
        self.code.regs.push(Type { dtype, lanes });
        Reg(self.code.regs.len() as u32 - 1)
    }

    pub(crate) fn access(&self, mem: Mem, addr: IntId, lane: Option<RangeId>) -> Access {
        Access { mem, index: [addr].into(), addr, gate: [].into(), lane, dynamic: None }
    }

    pub(crate) fn gated(&mut self, mem: Mem, addr: IntId, lane: Option<RangeId>, gate: &[IntId]) -> Access {
        Access { gate: gate.into(), ..self.access(mem, addr, lane) }
    }

    pub(crate) fn dynamic(&mut self, mem: Mem, addr: IntId, index: Reg, size: i64, stride: i64) -> Access {
        let (size, stride) = (self.code.ints.constant(size), self.code.ints.constant(stride));
        Access { dynamic: Some(Dynamic { axis: 0, index, size, stride }), ..self.access(mem, addr, None) }
    }

    pub(crate) fn emit(&mut self, dtype: DType, lanes: u32, instr: Instr, body: &mut Vec<Stmt>) -> Reg {
        let reg = self.reg(dtype, lanes);
        body.push(Stmt::Let { reg, instr });
        reg
    }

    pub(crate) fn load(&mut self, dtype: DType, lanes: u32, access: Access, body: &mut Vec<Stmt>) -> Reg {
        self.emit(dtype, lanes, Instr::Load { access, fill: Scalar::zero(dtype) }, body)
    }
}

/// A device that keeps nothing, with a given compiler.
pub(crate) fn device(cc: Option<&str>, threads: usize) -> CpuDevice {
    let env = Env::read().unwrap();
    let options = CpuOptions {
        cc: cc.map(OsString::from),
        cache_dir: None,
        threads: Some(threads),
        ..CpuOptions::from_env(&env)
    };
    CpuDevice::new(options).unwrap()
}

/// The compilers of this machine that tests run with; says so where one is missing. With `WINOGRAPH_TEST_CC` set, those
/// in this list, separated by semicolons, such as `gcc -march=haswell;clang -march=x86-64`.
pub(crate) fn compilers() -> Vec<String> {
    std::env::var("WINOGRAPH_TEST_CC")
        .unwrap_or_else(|_| "gcc;clang".into())
        .split(';')
        .map(String::from)
        .filter(|cc| {
            let found = device(Some(cc.as_str()), 1).compiler().is_ok();
            if !found {
                eprintln!("skipped: {cc} is not installed");
            }
            found
        })
        .collect()
}

/// A buffer with values in it.
pub(crate) fn buffer(values: &[Scalar]) -> Buffer {
    let size = values.first().map_or(1, |v| v.dtype().size());
    let mut b = Buffer::zeroed(values.len() * size).unwrap();
    for (i, v) in values.iter().enumerate() {
        b.as_mut_slice()[i * size..][..size].copy_from_slice(&v.bits().to_le_bytes()[..size]);
    }
    b
}

/// The values in a buffer.
pub(crate) fn values(b: &Buffer, dtype: DType) -> Vec<Scalar> {
    let read = |c: &[u8]| {
        let mut bits = [0u8; 8];
        bits[..c.len()].copy_from_slice(c);
        assert!(dtype != DType::Bool || c[0] <= 1, "a truth value is stored as {}", c[0]);
        Scalar::from_bits(dtype, u64::from_le_bytes(bits))
    };
    b.as_slice().chunks_exact(dtype.size()).map(read).collect()
}

/// Runs a kernel on whole buffers.
pub(crate) fn launch(module: &dyn Module, kernel: usize, buffers: &[&Buffer], params: &[i64]) {
    let args: Vec<_> = buffers.iter().map(|b| b.arg(0, b.len()).unwrap()).collect();
    // SAFETY: the buffers live in this call, each test has its own, and the kernels of tests stay within them.
    unsafe { module.launch(kernel, &args, params) }.unwrap();
}

/// A kernel with what it reads, what its last argument holds before and what it should hold then.
pub(crate) struct Case {
    pub(crate) what: String,
    pub(crate) code: Code,
    pub(crate) inputs: Vec<Vec<Scalar>>,
    pub(crate) params: Vec<i64>,
    pub(crate) before: Vec<Scalar>,
    pub(crate) expected: Vec<Scalar>,
}

impl Case {
    /// Prints values that are not as expected and counts them.
    pub(crate) fn differences(&self, device: &str, found: &[Scalar]) -> usize {
        assert_eq!(found.len(), self.expected.len(), "{device}: {}", self.what);
        let mut wrong = 0;
        for (at, (got, want)) in found.iter().zip(&self.expected).enumerate() {
            if !same(*got, *want) {
                let given: Vec<_> = self.inputs.iter().map(|v| v[at.min(v.len() - 1)]).collect();
                let what = &self.what;
                eprintln!(
                    "{device}: {what}: element {at} ({given:?}) is {got:?} ({:x}), expected {want:?}",
                    got.bits()
                );
                wrong += 1;
            }
        }
        wrong
    }
}

/// As many zeros of the same dtype.
pub(crate) fn zeros(like: &[Scalar]) -> Vec<Scalar> {
    like.iter().map(|v| Scalar::zero(v.dtype())).collect()
}

/// Whether two values are the same bits, or both NaN.
pub(crate) fn same(a: Scalar, b: Scalar) -> bool {
    a == b || (a.is_nan() && b.is_nan() && a.dtype() == b.dtype())
}

/// Values at which operations are apt to go wrong.
pub(crate) fn interesting(dtype: DType) -> Vec<Scalar> {
    let f = |xs: &[f64]| xs.iter().map(|&x| Scalar::from_f64(dtype, x)).collect::<Vec<_>>();
    let i = |xs: &[i64]| xs.iter().map(|&x| Scalar::from_i64(dtype, x)).collect::<Vec<_>>();
    let b = |xs: &[u64]| xs.iter().map(|&x| Scalar::from_bits(dtype, x)).collect::<Vec<_>>();
    let mut out = match dtype {
        DType::Bool => return i(&[0, 1]),
        DType::U8 => return i(&[0, 1, 2, 3, 7, 8, 9, 127, 128, 129, 200, 254, 255, 64]),
        DType::I8 => return i(&[0, 1, -1, 2, -2, 7, 8, 9, 100, 127, -127, -128, 64, -64]),
        DType::I32 => {
            let m = i32::MAX as i64;
            return i(&[0, 1, -1, 2, -2, 3, 31, 32, 33, 1000, -1000, m, -m, -m - 1, 0x1234567, 65504, 65520, 16777217]);
        }
        DType::I64 => {
            let m = i64::MAX;
            return i(&[
                0,
                1,
                -1,
                2,
                -3,
                63,
                64,
                65,
                1 << 32,
                -(1 << 33),
                m,
                -m,
                m - 511,
                i64::MIN,
                16777217,
                9007199254740993,
                (1 << 62) + 1,
                (1 << 40) + (1 << 16) + 1,
            ]);
        }
        DType::F16 => b(&[1, 0x8001, 0x3ff, 0x400, 0x7bff, 0xfbff, 0x3c01, 0x1234]),
        DType::BF16 => b(&[1, 0x8001, 0x7f, 0x80, 0x7f7f, 0xff7f, 0x3f81, 0x1234]),
        DType::F32 => b(&[
            1,
            0x8000_0001,
            0x7f_ffff,
            0x80_0000,
            0x7f7f_ffff,
            0xff7f_ffff,
            0x3f80_0001,
            0x3f80_8001,
            0x3f81_8000,
            0x3f80_1001,
            0x3f80_3000,
            0x477f_efff,
            0x477f_f000,
            0x3300_0000,
            0x3300_0001,
            0x3380_0000,
            0x387f_ffff,
            0x4b7f_ffff,
            0x3eff_ffff,
            0x4f00_0000,
            0xcf00_0000,
            0x4eff_ffff,
            0x5eff_ffff,
            0x7f80_0001,
        ]),
        DType::F64 => {
            let mut v = b(&[1, 0x8000_0000_0000_0001, 0xf_ffff_ffff_ffff, 0x10_0000_0000_0000, 0x3ff0_0000_0000_0001]);
            v.extend(f(&[f64::MAX, f64::MIN, 1e300, -1e-300, 2147483646.99, 0.49999999999999994, 4503599627370495.5]));
            v
        }
    };
    out.extend(f(&[
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.5,
        1.5,
        -1.5,
        2.5,
        -2.5,
        0.1,
        3.0,
        -7.0,
        100.0,
        127.5,
        128.0,
        -128.5,
        -129.0,
        255.5,
        256.0,
        -0.99,
        1e5,
        65504.0,
        65520.0,
        2147483647.0,
        2147483648.0,
        -2147483648.0,
        -2147483649.0,
        9.3e18,
        9223372036854775808.0,
        -9223372036854775808.0,
        -9.3e18,
        1e30,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
    ]));
    out
}
