//! Wrong indices planted in compiled kernels: the verifier has to refuse every one of them.

mod common;

use common::Conv;
use winograph_compiler::{Algorithm, Options, Target, compile};
use winograph_ir::interp::{self, InterpError};
use winograph_ir::linear::{Access, Code, Instr, Memory, MemoryDecl, Stmt};
use winograph_ir::text::print_linear;
use winograph_ir::verify;

fn kernels() -> Vec<Code> {
    let base = Conv::conv2d(1, 4, 7, 9, 4);
    let line = Conv {
        groups: 2,
        size: vec![13],
        window: vec![5],
        padding: vec![(2, 0)],
        stride: vec![1],
        dilation: vec![1],
        ..base.clone()
    };
    let winograd = |tile: &[usize]| Options {
        algorithm: Algorithm::Winograd,
        tile: Some(tile.iter().map(|&m| m.into()).collect()),
        ..Options::default()
    };
    let direct = Options { algorithm: Algorithm::Direct, ..Options::default() };
    let cases = [(base.clone(), winograd(&[4, 2])), (base, direct), (line, winograd(&[4]))];
    let compiled = cases.iter().map(|(c, options)| compile(&c.graph(), &Target::cpu(32), options).unwrap().0);
    compiled.flat_map(|p| p.kernels).collect()
}

/// Every access, in order of statements.
fn accesses(code: &mut Code) -> Vec<&mut Access> {
    fn walk<'a>(body: &'a mut [Stmt], out: &mut Vec<&'a mut Access>) {
        for s in body {
            match s {
                Stmt::Let { instr: Instr::Load { access, .. }, .. } | Stmt::Store { access, .. } => out.push(access),
                Stmt::Loop { body, .. } | Stmt::If { body, .. } => walk(body, out),
                _ => {}
            }
        }
    }
    let mut out = Vec::new();
    walk(&mut code.body, &mut out);
    out
}

/// The code with another access in the place of number `n`.
fn planted(code: &Code, n: usize, access: Access) -> Code {
    let mut bad = code.clone();
    *accesses(&mut bad)[n] = access;
    bad
}

/// The invariant for which the verifier refuses the code.
#[track_caller]
fn refused(code: &Code) -> &'static str {
    match verify::linear::verify(code) {
        Ok(()) => panic!("not refused:\n{}", print_linear(code)),
        Err(e) => e.invariant,
    }
}

/// Calls `f` with each kernel, the number of an access and the access.
fn each_access(mut f: impl FnMut(&mut Code, usize, Access)) {
    for code in &mut kernels() {
        verify::linear::verify(code).unwrap();
        let all: Vec<Access> = accesses(code).into_iter().map(|a| a.clone()).collect();
        for (n, access) in all.into_iter().enumerate() {
            f(code, n, access);
        }
    }
}

#[test]
fn an_index_beyond_its_axis_is_refused() {
    let mut count = 0;
    each_access(|code, n, access| {
        let Memory::Arg(i) = access.mem else { return };
        let decl = code.args[i as usize].clone();
        for (axis, &size) in decl.shape.iter().enumerate() {
            for sign in [-1, 1] {
                let mut moved = access.clone();
                moved.index[axis] = code.ints.sum(&[(moved.index[axis], 1), (size, sign)], 0);
                moved.addr = decl.layout.flatten(&mut code.ints, &moved.index);
                assert_eq!(refused(&planted(code, n, moved)), "bounds");
                count += 1;
            }
        }
    });
    assert!(count > 500, "{count}");
}

#[test]
fn an_address_that_is_not_the_index_s_is_refused() {
    each_access(|code, n, access| {
        let addr = code.ints.add_const(access.addr, 1);
        assert_eq!(refused(&planted(code, n, Access { addr, ..access })), "address");
    });
}

/// Each condition of these kernels' gates is there because the access is out of bounds without it. Where it then leaves
/// its memory, and not only its row, the interpreter finds that too.
#[test]
fn a_condition_dropped_from_a_gate_is_refused() {
    let (mut count, mut caught) = (0, 0);
    each_access(|code, n, access| {
        for without in 0..access.gate.len() {
            let mut gate = access.gate.to_vec();
            gate.remove(without);
            let bad = planted(code, n, Access { gate: gate.into(), ..access.clone() });
            assert_eq!(refused(&bad), "bounds", "{}", print_linear(&bad));
            count += 1;
            let bytes = |d: &MemoryDecl| bad.ints.as_const(d.layout.len).unwrap() as usize * 4;
            let mut args: Vec<Vec<u8>> = bad.args.iter().map(|d| vec![0; bytes(d)]).collect();
            match interp::linear::run(&bad, &mut args, &[]) {
                Ok(()) => {}
                Err(InterpError::AxisOutOfBounds { .. } | InterpError::OutOfBounds { .. }) => caught += 1,
                Err(e) => panic!("{e}\n{}", print_linear(&bad)),
            }
        }
    });
    assert!(count > 50 && caught > 5, "{count} conditions dropped, {caught} of them caught by the interpreter");
}

#[test]
fn a_store_into_memory_that_is_only_read_is_refused() {
    for mut code in kernels() {
        for arg in &mut code.args {
            arg.written = false;
        }
        assert_eq!(refused(&code), "written");
    }
}
