//! Symbolic integers against brute force: every expression is built twice, once in the arena and once as a plain tree,
//! and compared for all values of its ranges and parameters.

use proptest::prelude::*;
use winograph_ir::int::{IntId, Ints, ParamId, RangeId, RangeRole};

/// A plain expression. Leaves count ranges and parameters.
#[derive(Clone, Debug)]
enum Expr {
    Const(i64),
    Range(usize),
    Param(usize),
    Add(Box<Expr>, Box<Expr>),
    Sub(Box<Expr>, Box<Expr>),
    Mul(Box<Expr>, Box<Expr>),
    Scale(Box<Expr>, i64),
    Div(Box<Expr>, i64),
    Mod(Box<Expr>, i64),
    /// Division by a parameter.
    DivParam(Box<Expr>, usize),
    ModParam(Box<Expr>, usize),
}

/// Two constant sizes, and a third that is parameter 1, which may be 0.
const SIZES: [i64; 2] = [4, 3];
const PARAMS: [(i64, i64); 2] = [(1, 3), (0, 4)];

struct World {
    ints: Ints,
    ranges: Vec<RangeId>,
    params: Vec<ParamId>,
}

fn world() -> World {
    let mut ints = Ints::new();
    let params: Vec<ParamId> =
        PARAMS.iter().enumerate().map(|(i, &(lo, hi))| ints.new_param(&format!("n{i}"), lo, hi)).collect();
    let mut sizes: Vec<IntId> = SIZES.iter().map(|&s| ints.constant(s)).collect();
    sizes.push(ints.param(params[1]));
    let ranges = sizes.into_iter().map(|s| ints.new_range(s, RangeRole::Map)).collect();
    World { ints, ranges, params }
}

#[derive(Clone, Copy)]
struct At {
    ranges: [i64; 3],
    params: [i64; 2],
}

/// Whether an expression has a value where range 2 is empty.
fn without_range_2(e: &Expr) -> bool {
    match e {
        Expr::Const(_) | Expr::Param(_) => true,
        Expr::Range(r) => *r != 2,
        Expr::Add(a, b) | Expr::Sub(a, b) | Expr::Mul(a, b) => without_range_2(a) && without_range_2(b),
        Expr::Scale(a, _) | Expr::Div(a, _) | Expr::Mod(a, _) => without_range_2(a),
        Expr::DivParam(a, p) | Expr::ModParam(a, p) => *p != 1 && without_range_2(a),
    }
}

/// All values of ranges and parameters for which the expressions have a value.
fn all<'a>(exprs: impl IntoIterator<Item = &'a Expr>) -> Vec<At> {
    let empty = exprs.into_iter().all(without_range_2);
    let mut out = Vec::new();
    for p0 in PARAMS[0].0..=PARAMS[0].1 {
        for p1 in PARAMS[1].0..=PARAMS[1].1 {
            for r0 in 0..SIZES[0] {
                for r1 in 0..SIZES[1] {
                    for r2 in 0..if empty { p1.max(1) } else { p1 } {
                        out.push(At { ranges: [r0, r1, r2], params: [p0, p1] });
                    }
                }
            }
        }
    }
    out
}

fn naive(e: &Expr, at: &At) -> i64 {
    match e {
        Expr::Const(c) => *c,
        Expr::Range(r) => at.ranges[*r],
        Expr::Param(p) => at.params[*p],
        Expr::Add(a, b) => naive(a, at) + naive(b, at),
        Expr::Sub(a, b) => naive(a, at) - naive(b, at),
        Expr::Mul(a, b) => naive(a, at) * naive(b, at),
        Expr::Scale(a, c) => naive(a, at) * c,
        Expr::Div(a, d) => naive(a, at).div_euclid(*d),
        Expr::Mod(a, d) => naive(a, at).rem_euclid(*d),
        Expr::DivParam(a, p) => naive(a, at).div_euclid(at.params[*p]),
        Expr::ModParam(a, p) => naive(a, at).rem_euclid(at.params[*p]),
    }
}

fn build(w: &mut World, e: &Expr) -> IntId {
    match e {
        Expr::Const(c) => w.ints.constant(*c),
        Expr::Range(r) => w.ints.range(w.ranges[*r]),
        Expr::Param(p) => w.ints.param(w.params[*p]),
        Expr::Add(a, b) => {
            let (a, b) = (build(w, a), build(w, b));
            w.ints.add(a, b)
        }
        Expr::Sub(a, b) => {
            let (a, b) = (build(w, a), build(w, b));
            w.ints.sub(a, b)
        }
        Expr::Mul(a, b) => {
            let (a, b) = (build(w, a), build(w, b));
            w.ints.mul(a, b)
        }
        Expr::Scale(a, c) => {
            let a = build(w, a);
            w.ints.scale(a, *c)
        }
        Expr::Div(a, d) => {
            let a = build(w, a);
            w.ints.div_const(a, *d)
        }
        Expr::Mod(a, d) => {
            let a = build(w, a);
            w.ints.rem_const(a, *d)
        }
        Expr::DivParam(a, p) => {
            let (a, p) = (build(w, a), w.ints.param(w.params[*p]));
            w.ints.div(a, p)
        }
        Expr::ModParam(a, p) => {
            let (a, p) = (build(w, a), w.ints.param(w.params[*p]));
            w.ints.rem(a, p)
        }
    }
}

fn eval(w: &World, e: IntId, at: &At) -> i64 {
    w.ints
        .eval(e, &|r| at.ranges[w.ranges.iter().position(|x| *x == r).unwrap()], &|p| at.params[p.0 as usize])
        .unwrap()
}

fn expr() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        (-6i64..=6).prop_map(Expr::Const),
        (0usize..3).prop_map(Expr::Range),
        (0usize..3).prop_map(Expr::Range),
        (0usize..2).prop_map(Expr::Param),
    ];
    leaf.prop_recursive(5, 24, 2, |inner| {
        let one = || inner.clone().prop_map(Box::new);
        prop_oneof![
            3 => (one(), one()).prop_map(|(a, b)| Expr::Add(a, b)),
            2 => (one(), one()).prop_map(|(a, b)| Expr::Sub(a, b)),
            1 => (one(), one()).prop_map(|(a, b)| Expr::Mul(a, b)),
            3 => (one(), -6i64..=6).prop_map(|(a, c)| Expr::Scale(a, c)),
            3 => (one(), 1i64..=6).prop_map(|(a, d)| Expr::Div(a, d)),
            3 => (one(), 1i64..=6).prop_map(|(a, d)| Expr::Mod(a, d)),
            1 => (one(), 0usize..1).prop_map(|(a, p)| Expr::DivParam(a, p)),
            1 => (one(), 0usize..1).prop_map(|(a, p)| Expr::ModParam(a, p)),
        ]
    })
}

/// Affine in ranges and parameters, with an occasional quotient: what gates and indices look like.
fn affine() -> impl Strategy<Value = Expr> {
    let sum = || {
        (prop::collection::vec(-3i64..=3, 5), -8i64..=8).prop_map(|(c, k)| {
            let mut e = Expr::Const(k);
            for (i, c) in c.into_iter().enumerate() {
                let x = if i < 3 { Expr::Range(i) } else { Expr::Param(i - 3) };
                e = Expr::Add(Box::new(e), Box::new(Expr::Scale(Box::new(x), c)));
            }
            e
        })
    };
    prop_oneof![
        4 => sum(),
        1 => (sum(), 2i64..=4, -2i64..=2, -3i64..=3).prop_map(|(e, d, c, k)| {
            let q = Expr::Scale(Box::new(Expr::Div(Box::new(e), d)), c);
            Expr::Add(Box::new(q), Box::new(Expr::Const(k)))
        }),
        1 => (sum(), sum(), 2i64..=4, -3i64..=3).prop_map(|(a, e, d, c)| {
            let q = Expr::Scale(Box::new(Expr::Div(Box::new(e), d)), c);
            Expr::Add(Box::new(q), Box::new(a))
        }),
        1 => (sum(), sum(), -2i64..=2).prop_map(|(a, e, c)| {
            let q = Expr::Scale(Box::new(Expr::DivParam(Box::new(e), 0)), c);
            Expr::Add(Box::new(q), Box::new(a))
        }),
        1 => (sum(), sum(), -2i64..=2).prop_map(|(a, e, c)| {
            let q = Expr::Scale(Box::new(Expr::ModParam(Box::new(e), 0)), c);
            Expr::Add(Box::new(q), Box::new(a))
        }),
    ]
}

fn cases(n: u32) -> ProptestConfig {
    ProptestConfig { cases: n, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn simplification_keeps_every_value(e in expr()) {
        let mut w = world();
        let id = build(&mut w, &e);
        prop_assume!(!w.ints.overflowed());
        let (lo, hi) = w.ints.bounds(id);
        for at in all([&e]) {
            let wanted = naive(&e, &at);
            prop_assert_eq!(eval(&w, id, &at), wanted);
            prop_assert!(lo <= wanted && wanted <= hi, "{} not in {}..={}", wanted, lo, hi);
        }
    }

    #[test]
    fn proofs_hold(e in affine(), given in prop::collection::vec(affine(), 0..4)) {
        let mut w = world();
        let id = build(&mut w, &e);
        let conditions: Vec<IntId> = given.iter().map(|g| build(&mut w, g)).collect();
        if w.ints.prove_nonneg(id, &conditions) {
            for at in all(given.iter().chain([&e])) {
                if given.iter().all(|g| naive(g, &at) >= 0) {
                    prop_assert!(naive(&e, &at) >= 0);
                }
            }
        }
    }

    #[test]
    fn proofs_of_any_expression_hold(e in expr()) {
        let mut w = world();
        let id = build(&mut w, &e);
        prop_assume!(!w.ints.overflowed());
        if w.ints.prove_nonneg(id, &[]) {
            for at in all([&e]) {
                prop_assert!(naive(&e, &at) >= 0);
            }
        }
    }

    #[test]
    fn splits_are_linear(e in expr(), r in 0usize..3) {
        let mut w = world();
        let id = build(&mut w, &e);
        let range = w.ranges[r];
        if let Some((step, rest)) = w.ints.split_linear(id, range) {
            prop_assert!(!w.ints.depends_on(rest, range));
            for at in all([&e]) {
                prop_assert_eq!(step * at.ranges[r] + eval(&w, rest, &at), naive(&e, &at));
            }
        }
    }

    #[test]
    fn linear_conditions_hold_where_their_conditions_do(e in expr(), r in 0usize..3) {
        let mut w = world();
        let id = build(&mut w, &e);
        let range = w.ranges[r];
        if let Some(linear) = w.ints.linear_condition(id, range) {
            prop_assert!(w.ints.split_linear(linear, range).is_some());
            for at in all([&e]) {
                prop_assert_eq!(eval(&w, linear, &at) >= 0, naive(&e, &at) >= 0);
            }
        }
    }

    #[test]
    fn conjunctions_hold_where_their_conditions_do(given in prop::collection::vec(affine(), 0..4)) {
        let mut w = world();
        let conditions: Vec<IntId> = given.iter().map(|g| build(&mut w, g)).collect();
        let canonical = w.ints.conjunction(&conditions);
        for at in all(&given) {
            let wanted = given.iter().all(|g| naive(g, &at) >= 0);
            let found = canonical.as_ref().is_some_and(|c| c.iter().all(|&x| eval(&w, x, &at) >= 0));
            prop_assert_eq!(found, wanted);
        }
        if let Some(c) = canonical {
            prop_assert_eq!(w.ints.conjunction(&c), Some(c));
        }
    }

    #[test]
    fn substitution_is_evaluation_at_the_replacement(e in expr(), by in expr(), r in 0usize..3) {
        // Simplification has relied on the range's interval, so the replacement stays inside.
        let by = Box::new(by);
        let by = if r < 2 { Expr::Mod(by, SIZES[r]) } else { Expr::ModParam(by, 1) };
        let mut w = world();
        let (id, with) = (build(&mut w, &e), build(&mut w, &by));
        let range = w.ranges[r];
        let out = w.ints.substitute(id, &|x| (x == range).then_some(with));
        prop_assume!(!w.ints.overflowed());
        for at in all([&e, &by]) {
            let mut moved = at;
            moved.ranges[r] = naive(&by, &at);
            prop_assert_eq!(eval(&w, out, &at), naive(&e, &moved));
        }
    }
}

/// Products of sizes that are parameters: with bounds 2..=5 and 1..=4.
#[test]
fn products_of_parameters_are_compared() {
    let mut ints = Ints::new();
    let (n, m) = (ints.new_param("n", 2, 5), ints.new_param("m", 1, 4));
    let (n, m) = (ints.param(n), ints.param(m));
    let (nn, nm) = (ints.mul(n, n), ints.mul(n, m));
    let mut holds = |terms: &[(IntId, i64)], c| {
        let e = ints.sum(terms, c);
        ints.prove_nonneg(e, &[])
    };
    assert!(holds(&[(nn, 1), (n, -1)], -2), "n*n - n >= 2");
    assert!(!holds(&[(nn, 1), (n, -1)], -3), "not 3, where n is 2");
    assert!(holds(&[(nn, 1), (n, -2)], 0));
    assert!(!holds(&[(nn, 1), (n, -3)], 0));
    assert!(holds(&[(nm, -1), (m, 5)], 0), "n <= 5");
    assert!(!holds(&[(nm, -1), (m, 4)], 0));
    assert!(holds(&[(nm, -1)], 20));
    assert!(!holds(&[(nm, -1)], 19));
    assert!(holds(&[(nm, 1), (n, -1), (m, -2)], 2), "(n - 2) * (m - 1) >= 0");
}

/// `r mod n < n`, also where it is a part of a sum.
#[test]
fn remainders_are_below_their_divisors() {
    let mut ints = Ints::new();
    let n = ints.new_param("n", 2, 5);
    let n = ints.param(n);
    let size = ints.scale(n, 8);
    let r = ints.new_range(size, RangeRole::Map);
    let r = ints.range(r);
    let rem = ints.rem(r, n);
    let mut holds = |terms: &[(IntId, i64)], c| {
        let e = ints.sum(terms, c);
        ints.prove_nonneg(e, &[])
    };
    assert!(holds(&[(n, 1), (rem, -1)], -1));
    assert!(!holds(&[(n, 1), (rem, -1)], -2));
    assert!(holds(&[(n, 3), (rem, -2)], -4), "3n - 2(n - 1) - 4 = n - 2");
    assert!(!holds(&[(n, 3), (rem, -2)], -5));
    // The middle axis of [4, m, n] under the index of [4, n*m], both flat: (r mod n*m) div n < m.
    let m = ints.new_param("m", 3, 4);
    let m = ints.param(m);
    let both = ints.mul(n, m);
    let size = ints.scale(both, 4);
    let r = ints.new_range(size, RangeRole::Map);
    let r = ints.range(r);
    let inner = ints.rem(r, both);
    let middle = ints.div(inner, n);
    let (gap, less) = (ints.sum(&[(m, 1), (middle, -1)], -1), ints.sum(&[(m, 1), (middle, -1)], -2));
    assert!(ints.prove_nonneg(gap, &[]) && !ints.prove_nonneg(less, &[]));
}
