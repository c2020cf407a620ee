//! Faults put into what passes leave: each of them is refused by the verifier, or the interpreter gives another result.
//!
//! A *fault* changes one place of a graph or of a kernel. It is tried at every place where it applies, and at each it
//! has to be caught; the few places where a change is none (a product with itself, a table's entry that is its own
//! negative) are not places of that fault.

mod common;

use common::{Conv, bytes, noise, value};
use std::collections::BTreeMap;
use winograph_compiler::schedule::{fuse, rangeify};
use winograph_compiler::{Algorithm, Options, Target, compile, winograd};
use winograph_ir::indexed::{Def, Graph, Source, Val, ValId};
use winograph_ir::interp::{self, Value};
use winograph_ir::linear::{Code, Instr, Stmt};
use winograph_ir::{BinaryOp, DType, ReduceOp, Scalar, verify};

/// Most places at which one fault is tried in one graph.
const PLACES: usize = 60;

fn conv() -> Conv {
    Conv::conv2d(1, 4, 9, 9, 4)
}

fn options() -> Options {
    Options { algorithm: Algorithm::Winograd, tile: Some(vec![4.into(), 2.into()]), ..Options::default() }
}

fn inputs() -> Vec<Value> {
    let (x, w) = conv().inputs();
    vec![value(&[1, 4, 9, 9], &x), value(&[4, 4, 3, 3], &w)]
}

/// The reference case, small and ragged, after each pass on indexed graphs.
fn graphs() -> Vec<(&'static str, Graph)> {
    let mut g = rangeify::rangeify(&conv().graph());
    let first = g.clone();
    winograd::run(&mut g, &options()).unwrap();
    let second = g.clone();
    fuse::fuse(&mut g);
    vec![("rangeify", first), ("winograd", second), ("fuse", g)]
}

/// The kernels of the same case, and of the direct sum.
fn kernels() -> Vec<Code> {
    let direct = Options { algorithm: Algorithm::Direct, ..Options::default() };
    let all = [options(), direct].map(|o| compile(&conv().graph(), &Target::cpu(32), &o).unwrap().0.kernels);
    all.into_iter().flatten().collect()
}

/// What a fault is caught by; `None` if by nothing.
fn caught_in_graph(bad: &Graph, want: &[Value]) -> Option<String> {
    if let Err(e) = verify::indexed::verify(bad) {
        return Some(format!("verifier ({})", e.invariant));
    }
    match interp::indexed::run(bad, &inputs(), &[]) {
        Err(_) => Some("interpreter (error)".to_string()),
        Ok(got) => (got != want).then(|| "interpreter (result)".to_string()),
    }
}

/// Random numbers for every argument.
fn arguments(code: &Code) -> Vec<Vec<u8>> {
    let len = |n: usize| code.ints.as_const(code.args[n].layout.len).unwrap() as usize;
    (0..code.args.len()).map(|n| bytes(&noise(len(n), n as u64 + 5))).collect()
}

fn caught_in_kernel(bad: &Code, good: &Code) -> Option<String> {
    if let Err(e) = verify::linear::verify(bad) {
        return Some(format!("verifier ({})", e.invariant));
    }
    let (mut got, mut want) = (arguments(bad), arguments(good));
    interp::linear::run(good, &mut want, &[]).unwrap();
    match interp::linear::run(bad, &mut got, &[]) {
        Err(_) => Some("interpreter (error)".to_string()),
        Ok(()) => (got != want).then(|| "interpreter (result)".to_string()),
    }
}

/// Tries a fault at each place of each graph: `fault` changes place number `n` and says whether there is one.
fn in_graphs(caught: &mut BTreeMap<String, Vec<String>>, name: &str, fault: &dyn Fn(&mut Graph, usize) -> bool) {
    for (pass, good) in graphs() {
        let want = interp::indexed::run(&good, &inputs(), &[]).unwrap();
        for n in 0..PLACES {
            let mut bad = good.clone();
            if !fault(&mut bad, n) {
                break;
            }
            let by = caught_in_graph(&bad, &want);
            let by = by.unwrap_or_else(|| panic!("{name}, place {n} after {pass}: nothing catches it\n{}", text(&bad)));
            caught.entry(name.to_string()).or_default().push(by);
        }
    }
}

fn text(g: &Graph) -> String {
    winograph_ir::text::print_indexed(g)
}

/// Changes value number `n` of those that `change` applies to, in all definitions.
fn change_value(g: &mut Graph, n: usize, change: &dyn Fn(&mut Graph, &Val) -> Option<Val>) -> bool {
    let mut left = n as i64;
    for d in 0..g.defs.len() {
        let mut memo = Default::default();
        let mut hit = false;
        let value = g.defs[d].value;
        let value = g.rebuild(value, &mut memo, &mut |g, val| {
            let Some(other) = change(g, &val) else { return g.add(val) };
            left -= 1;
            if left == -1 {
                hit = true;
                return g.add(other);
            }
            g.add(val)
        });
        if hit {
            g.defs[d].value = value;
            return true;
        }
    }
    false
}

type Load<'a> = (&'a Source, &'a Box<[winograph_ir::IntId]>, &'a [winograph_ir::IntId], Scalar);

/// Changes load number `n` of those that `change` applies to.
fn change_load(g: &mut Graph, n: usize, change: &dyn Fn(&mut Graph, Load<'_>) -> Option<Val>) -> bool {
    change_value(g, n, &|g, val| match val {
        Val::Load { src, index, gate, fill, dynamic: None } => change(g, (src, index, gate, *fill)),
        _ => None,
    })
}

fn load(src: Source, index: Vec<winograph_ir::IntId>, gate: Vec<winograph_ir::IntId>, fill: Scalar) -> Val {
    Val::Load { src, index: index.into(), gate: gate.into(), fill, dynamic: None }
}

fn faults_of_graphs(caught: &mut BTreeMap<String, Vec<String>>) {
    for (name, by) in [("an index one too high", 1), ("an index one too low", -1)] {
        in_graphs(caught, name, &|g, n| {
            change_load(g, n, &|g, (src, index, gate, fill)| {
                let mut index = index.to_vec();
                let last = index.last_mut()?;
                *last = g.ints.add_const(*last, by);
                Some(load(*src, index, gate.to_vec(), fill))
            })
        });
    }
    in_graphs(caught, "two axes of an index swapped", &|g, n| {
        change_load(g, n, &|_, (src, index, gate, fill)| {
            let mut index = index.to_vec();
            let at = index.len().checked_sub(2)?;
            index.swap(at, at + 1);
            (index[at] != index[at + 1]).then(|| load(*src, index, gate.to_vec(), fill))
        })
    });
    in_graphs(caught, "a gate dropped", &|g, n| {
        change_load(g, n, &|_, (src, index, gate, fill)| {
            (!gate.is_empty()).then(|| load(*src, index.to_vec(), vec![], fill))
        })
    });
    in_graphs(caught, "a condition dropped from a gate", &|g, n| {
        change_load(g, n, &|_, (src, index, gate, fill)| {
            (gate.len() > 1).then(|| load(*src, index.to_vec(), gate[1..].to_vec(), fill))
        })
    });
    for (name, by) in [("a gate one too wide", 1), ("a gate one too narrow", -1)] {
        in_graphs(caught, name, &|g, n| {
            change_load(g, n, &|g, (src, index, gate, fill)| {
                let mut gate = gate.to_vec();
                let first = gate.first_mut()?;
                *first = g.ints.add_const(*first, by);
                Some(load(*src, index.to_vec(), gate, fill))
            })
        });
    }
    in_graphs(caught, "another value outside of a gate", &|g, n| {
        change_load(g, n, &|_, (src, index, gate, fill)| {
            (!gate.is_empty()).then(|| load(*src, index.to_vec(), gate.to_vec(), Scalar::from_f64(fill.dtype(), 1.0)))
        })
    });
    in_graphs(caught, "a load from another buffer", &|g, n| {
        change_load(g, n, &|g, (src, index, gate, fill)| {
            let Source::Buffer(b) = src else { return None };
            let rank = g.buffer(*b).shape.len();
            let other = (0..g.buffers.len() as u32)
                .map(winograph_ir::indexed::BufId)
                .find(|o| o != b && g.buffer(*o).shape.len() == rank)?;
            Some(load(Source::Buffer(other), index.to_vec(), gate.to_vec(), fill))
        })
    });
    in_graphs(caught, "a product turned into a sum", &|g, n| {
        change_value(g, n, &|_, val| match *val {
            Val::Binary { op: BinaryOp::Mul, a, b } => Some(Val::Binary { op: BinaryOp::Add, a, b }),
            _ => None,
        })
    });
    in_graphs(caught, "a factor lost", &|g, n| {
        change_value(g, n, &|g, val| match *val {
            Val::Binary { op: BinaryOp::Mul, a, .. } => Some(g.val(a).clone()),
            _ => None,
        })
    });
    in_graphs(caught, "another reduction", &|g, n| {
        change_value(g, n, &|_, val| match val.clone() {
            Val::Reduce { op: ReduceOp::Add, x, ranges, order, fused } => {
                Some(Val::Reduce { op: ReduceOp::Max, x, ranges, order, fused })
            }
            _ => None,
        })
    });
    in_graphs(caught, "a range missing from a reduction", &|g, n| {
        change_value(g, n, &|_, val| match val.clone() {
            Val::Reduce { op, x, ranges, order, fused } if ranges.len() > 1 => {
                Some(Val::Reduce { op, x, ranges: ranges[1..].to_vec().into(), order, fused })
            }
            _ => None,
        })
    });
    in_graphs(caught, "an entry of a table changed", &|g, n| {
        let mut at = 0;
        for table in &mut g.tables {
            for v in &mut table.values {
                if at == n {
                    *v = Scalar::from_f64(v.dtype(), v.to_f64() + 0.5);
                    return true;
                }
                at += 1;
            }
        }
        false
    });
    in_graphs(caught, "a stage missing", &|g, n| {
        n < g.defs.len() && {
            g.defs.remove(n);
            true
        }
    });
    in_graphs(caught, "a stage after its reader", &|g, n| {
        let reads = |g: &Graph, d: &Def, b| {
            g.topological(&[d.value])
                .iter()
                .any(|&v| matches!(g.val(v), Val::Load { src: Source::Buffer(s), .. } if *s == b))
        };
        let pairs: Vec<(usize, usize)> = (0..g.defs.len())
            .flat_map(|i| (i + 1..g.defs.len()).map(move |j| (i, j)))
            .filter(|&(i, j)| reads(g, &g.defs[j], g.defs[i].buffer))
            .collect();
        pairs.get(n).map(|&(i, j)| g.defs.swap(i, j)).is_some()
    });
    in_graphs(caught, "two axes of a definition swapped", &|g, n| {
        let many: Vec<usize> = (0..g.defs.len())
            .filter(|&i| g.defs[i].axes.iter().filter(|r| g.ints.const_size(**r) != Some(1)).count() > 1)
            .collect();
        let Some(&d) = many.get(n) else { return false };
        let axes = &mut g.defs[d].axes;
        let last = axes.len() - 1;
        axes.swap(last - 1, last);
        true
    });
    in_graphs(caught, "a definition's value replaced by zero", &|g, n| {
        let zero: ValId = g.add(Val::Const(Scalar::zero(DType::F32)));
        g.defs.get_mut(n).map(|d| d.value = zero).is_some()
    });
}

/// Every statement's place, by the numbers of statements from the outside in.
fn places(body: &[Stmt], at: &mut Vec<usize>, out: &mut Vec<Vec<usize>>) {
    for (i, s) in body.iter().enumerate() {
        at.push(i);
        out.push(at.clone());
        if let Stmt::Loop { body, .. } | Stmt::If { body, .. } = s {
            places(body, at, out);
        }
        at.pop();
    }
}

/// The list of statements that a place is in, and its number there.
fn list<'a>(code: &'a mut Code, place: &[usize]) -> (&'a mut Vec<Stmt>, usize) {
    let mut body = &mut code.body;
    for &i in &place[..place.len() - 1] {
        body = match &mut body[i] {
            Stmt::Loop { body, .. } | Stmt::If { body, .. } => body,
            s => panic!("{s:?}"),
        };
    }
    (body, place[place.len() - 1])
}

/// Tries a fault at places of each kernel: `fault` changes the statement at a place, if it applies there.
fn in_kernels(
    caught: &mut BTreeMap<String, Vec<String>>,
    name: &str,
    fault: &dyn Fn(&mut Code, &[usize]) -> Option<()>,
) {
    for good in kernels() {
        let mut all = Vec::new();
        places(&good.body, &mut Vec::new(), &mut all);
        let mut tried = 0;
        // Spread over the kernel.
        for place in all.iter().step_by((all.len() / 200).max(1)) {
            let mut bad = good.clone();
            if tried == PLACES || fault(&mut bad, place).is_none() {
                continue;
            }
            tried += 1;
            let by = caught_in_kernel(&bad, &good).unwrap_or_else(|| {
                panic!("{name} at {place:?}: nothing catches it\n{}", winograph_ir::text::print_linear(&bad))
            });
            caught.entry(name.to_string()).or_default().push(by);
        }
    }
}

fn faults_of_kernels(caught: &mut BTreeMap<String, Vec<String>>) {
    in_kernels(caught, "a store missing", &|code, at| {
        let (body, i) = list(code, at);
        matches!(body[i], Stmt::Store { .. }).then(|| drop(body.remove(i)))
    });
    in_kernels(caught, "an accumulation missing", &|code, at| {
        let (body, i) = list(code, at);
        matches!(body[i], Stmt::Set { .. }).then(|| drop(body.remove(i)))
    });
    in_kernels(caught, "a value computed after its use", &|code, at| {
        let (body, i) = list(code, at);
        let Some(Stmt::Let { reg, instr: Instr::Load { .. } }) = body.get(i) else { return None };
        let reg = *reg;
        let user = body.iter().position(|s| match s {
            Stmt::Let { instr: Instr::Fma { a, b, c }, .. } => [a, b, c].into_iter().any(|r| *r == reg),
            Stmt::Let { instr: Instr::Binary { a, b, .. }, .. } => *a == reg || *b == reg,
            _ => false,
        })?;
        let moved = body.remove(i);
        body.insert(user, moved);
        Some(())
    });
    in_kernels(caught, "the addend of a multiply-add exchanged with a factor", &|code, at| {
        let (body, i) = list(code, at);
        let Stmt::Let { instr: Instr::Fma { a, c, .. }, .. } = &mut body[i] else { return None };
        std::mem::swap(a, c);
        Some(())
    });
    in_kernels(caught, "a sum turned into a difference", &|code, at| {
        let (body, i) = list(code, at);
        let Stmt::Let { instr: Instr::Binary { op, .. }, .. } = &mut body[i] else { return None };
        *op = match op {
            BinaryOp::Add => BinaryOp::Sub,
            BinaryOp::Sub => BinaryOp::Add,
            _ => return None,
        };
        Some(())
    });
    in_kernels(caught, "another constant", &|code, at| {
        let (body, i) = list(code, at);
        let Stmt::Let { instr: Instr::Const(c), .. } = &mut body[i] else { return None };
        *c = Scalar::from_f64(c.dtype(), c.to_f64() + 1.0);
        Some(())
    });
    in_kernels(caught, "an address and an index that do not agree", &|code, at| {
        let mut ints = code.ints.clone();
        let (body, i) = list(code, at);
        let (Stmt::Let { instr: Instr::Load { access, .. }, .. } | Stmt::Store { access, .. }) = &mut body[i] else {
            return None;
        };
        access.addr = ints.add_const(access.addr, 1);
        code.ints = ints;
        Some(())
    });
    in_kernels(caught, "lanes forgotten by an access", &|code, at| {
        let (body, i) = list(code, at);
        let (Stmt::Let { instr: Instr::Load { access, .. }, .. } | Stmt::Store { access, .. }) = &mut body[i] else {
            return None;
        };
        access.lane.take().map(drop)
    });
    in_kernels(caught, "another register stored", &|code, at| {
        let zero = {
            let (body, _) = list(code, at);
            body.iter().find_map(|s| match s {
                Stmt::Let { reg, instr: Instr::Load { .. } } => Some(*reg),
                _ => None,
            })
        };
        let (body, i) = list(code, at);
        let Stmt::Store { value, .. } = &mut body[i] else { return None };
        *value = zero.filter(|z| z != value)?;
        Some(())
    });
    in_kernels(caught, "a loop that begins at its second round", &|code, at| {
        let mut ints = code.ints.clone();
        let (body, i) = list(code, at);
        let Stmt::Loop { range, .. } = &body[i] else { return None };
        let shorter = ints.const_size(*range).filter(|&s| s > 1)? - 1;
        let size = ints.constant(shorter);
        let fresh = ints.new_range(size, winograph_ir::int::RangeRole::Map);
        let (range, moved) = (*range, ints.range(fresh));
        let moved = ints.add_const(moved, 1);
        shift(&mut body[i], range, fresh, &mut |e| ints.substitute(e, &|r| (r == range).then_some(moved)));
        code.ints = ints;
        Some(())
    });
}

/// Puts another range in a loop's place, and `f` of them in place of the expressions inside.
fn shift(
    s: &mut Stmt,
    from: winograph_ir::RangeId,
    to: winograph_ir::RangeId,
    f: &mut dyn FnMut(winograph_ir::IntId) -> winograph_ir::IntId,
) {
    match s {
        Stmt::Loop { range, body, .. } => {
            if *range == from {
                *range = to;
            }
            body.iter_mut().for_each(|s| shift(s, from, to, f));
        }
        Stmt::If { body, .. } => body.iter_mut().for_each(|s| shift(s, from, to, f)),
        Stmt::Let { instr: Instr::Load { access, .. }, .. } | Stmt::Store { access, .. } => {
            access.addr = f(access.addr);
            access.index.iter_mut().for_each(|i| *i = f(*i));
            access.gate.iter_mut().for_each(|i| *i = f(*i));
        }
        _ => {}
    }
}

#[test]
fn every_fault_in_what_a_pass_leaves_is_caught() {
    let mut caught = BTreeMap::new();
    faults_of_graphs(&mut caught);
    faults_of_kernels(&mut caught);
    for (name, by) in &caught {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        by.iter().for_each(|b| *counts.entry(b).or_default() += 1);
        println!("{name}: {counts:?}");
    }
    assert!(caught.len() >= 28, "{} faults: {:?}", caught.len(), caught.keys());
}
