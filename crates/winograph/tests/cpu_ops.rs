//! Every instruction on every dtype and several vector widths, bit for bit against the definitions in
//! `winograph_ir::op`, with each C compiler of this machine.

mod kernels;

use kernels::*;

/// Compiles all cases as one module, runs and compares them.
fn check(cases: Vec<Case>) {
    for cc in compilers() {
        let device = device(Some(&cc), 2);
        let codes: Vec<_> = cases.iter().map(|c| c.code.clone()).collect();
        let (module, _) = device.load(&codes).unwrap_or_else(|e| panic!("{cc}: {e}"));
        let mut wrong = 0;
        for (i, case) in cases.iter().enumerate() {
            let inputs: Vec<_> = case.inputs.iter().map(|v| buffer(v)).collect();
            let out = buffer(&case.before);
            let mut args: Vec<_> = inputs.iter().collect();
            args.push(&out);
            launch(&module, i, &args, &[]);
            wrong += case.differences(&cc, &values(&out, case.expected[0].dtype()));
        }
        assert_eq!(wrong, 0, "{cc}: {wrong} wrong values");
    }
}

#[test]
fn unary() {
    check(ops::unary());
}

#[test]
fn binary() {
    check(ops::binary());
}

#[test]
fn max_and_min_with_a_constant() {
    check(ops::max_and_min_with_a_constant());
}

#[test]
fn fma() {
    check(ops::fma());
}

#[test]
fn casts() {
    check(ops::casts());
}

#[test]
fn bitcasts() {
    check(ops::bitcasts());
}

#[test]
fn where_of_all_widths() {
    check(ops::where_of_all_widths());
}

#[test]
fn folds() {
    check(ops::folds());
}

#[test]
fn index_and_select() {
    check(ops::index_and_select());
}

#[test]
fn pack_constants_and_tables() {
    check(ops::pack_constants_and_tables());
}

#[test]
fn shuffles() {
    check(ops::shuffles());
}
