//! Loops of ONNX whose course depends on data: they do what loops in Rust do, compile each iteration's program once, and end.

#[allow(dead_code)]
#[path = "onnx/proto.rs"]
mod proto;

use proto::*;
use std::sync::{Mutex, PoisonError};
use winograph::{DType, Tensor, programs_planned};

/// Programs are counted for the process.
static ALONE: Mutex<()> = Mutex::new(());

/// A loop that takes roots of `v` as long as their sum is more than `least`, at most `times` times, and gives the sums, too.
/// With `inside`, the condition decides in the body whether a root is taken, and the loop goes on.
fn roots(times: i64, least: f32, inside: bool) -> Vec<u8> {
    let of_graph = |name: &str, op: &str| {
        let parts = [bytes(1, &node(op, &["v"], &[name], &[])), bytes(2, name.as_bytes())].concat();
        [parts, bytes(12, &info(name, 1, &[3]))].concat()
    };
    let attribute = |name: &str, graph: &[u8]| [bytes(1, name.as_bytes()), bytes(6, graph), int(20, 5)].concat();
    let branches =
        [attribute("then_branch", &of_graph("root", "Sqrt")), attribute("else_branch", &of_graph("same", "Identity"))];
    let step = match inside {
        true => [node("If", &["more"], &["v2"], &branches), node("Identity", &["c"], &["c2"], &[])],
        false => [node("Sqrt", &["v"], &["v2"], &[]), node("Identity", &["more"], &["c2"], &[])],
    };
    let body: Vec<u8> = [
        bytes(1, &node("ReduceSum", &["v"], &["sum"], &[int_attribute("keepdims", 0)])),
        bytes(1, &node("Greater", &["sum", "least"], &["more"], &[])),
        step.map(|n| bytes(1, &n)).concat(),
        bytes(2, b"body"),
        [info("i", 7, &[]), info("c", 9, &[]), info("v", 1, &[3])].map(|i| bytes(11, &i)).concat(),
        [info("c2", 9, &[]), info("v2", 1, &[3]), info("sum", 1, &[])].map(|i| bytes(12, &i)).concat(),
    ]
    .concat();
    model(
        &[named("roots", "Loop", &["times", "", "x"], &["y", "sums"], &[attribute("body", &body)])],
        &[longs("times", &[], &[times]), weights("least", &[], &[least])],
        &[info("x", 1, &[3])],
        &[info("y", 1, &[3]), info("sums", 1, &[0])],
    )
}

#[test]
fn a_loop_whose_course_depends_on_data_does_what_one_in_rust_does_and_is_compiled_once() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for inside in [false, true] {
        let results = |times: i64, least: f32| {
            let x = Tensor::from_slice(&[100f32, 50.0, 7.0], &[3]).unwrap();
            let before = programs_planned();
            let got = run(&roots(times, least, inside), &[("x", &x)]).unwrap();
            (got[0].1.to_vec::<f32>().unwrap(), got[1].1.to_vec::<f32>().unwrap(), programs_planned() - before)
        };
        let mut planned = vec![];
        for (times, least) in [(5, 4.0f32), (60, 4.0), (60, 3.0), (120, 3.0)] {
            let (mut v, mut sums, mut more, mut i) = ([100f32, 50.0, 7.0], vec![], true, 0);
            while i < times && (more || inside) {
                let sum: f32 = v.iter().sum();
                more = sum > least;
                if more || !inside {
                    v = v.map(f32::sqrt);
                }
                sums.push(sum);
                i += 1;
            }
            let (y, got, programs) = results(times, least);
            let near = |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
            assert!(near(&y, &v) && near(&got, &sums), "{y:?} and {got:?}, expected {v:?} and {sums:?}");
            planned.push(programs);
        }
        assert!(planned.iter().all(|&p| p <= 8), "{planned:?} programs were planned");
    }
}

#[test]
fn loops_that_data_never_ends_are_refused_by_the_node() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let x = Tensor::ones(&[3], DType::F32).unwrap();
    for inside in [false, true] {
        let told = run(&roots(i64::MAX, -1.0, inside), &[("x", &x)]).unwrap_err().to_string();
        let parts = ["\"roots\" (Loop)", "repeat more than 65536 nodes", "stays true"];
        assert!(parts.iter().all(|part| told.contains(part)), "{told}");
    }
}

/// A loop that counts `n` down by `step` to less than 0 and doubles `x` each time.
fn counted(step: i64) -> Vec<u8> {
    let body: Vec<u8> = [
        bytes(1, &node("Sub", &["k", "step"], &["k2"], &[])),
        bytes(1, &node("Identity", &["k2"], &["l2"], &[])),
        // Looks at what another value was before.
        bytes(1, &node("GreaterOrEqual", &["l", "zero"], &["c2"], &[])),
        bytes(1, &node("Add", &["v", "v"], &["v2"], &[])),
        bytes(2, b"body"),
        [info("i", 7, &[]), info("c", 9, &[])].map(|i| bytes(11, &i)).concat(),
        [info("k", 7, &[]), info("l", 7, &[]), info("v", 1, &[2])].map(|i| bytes(11, &i)).concat(),
        [info("c2", 9, &[]), info("k2", 7, &[]), info("l2", 7, &[])].map(|i| bytes(12, &i)).concat(),
        bytes(12, &info("v2", 1, &[2])),
    ]
    .concat();
    let body = [bytes(1, b"body"), bytes(6, &body), int(20, 5)].concat();
    model(
        &[named("down", "Loop", &["", "", "n", "n", "x"], &["k", "l", "y"], &[body])],
        &[longs("step", &[], &[step]), longs("zero", &[], &[0])],
        &[info("n", 7, &[]), info("x", 1, &[2])],
        &[info("y", 1, &[2]), info("k", 7, &[])],
    )
}

#[test]
fn a_loop_that_counts_an_input_of_integers_ends_where_it_says_or_is_refused_by_the_node() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let x = Tensor::from_slice(&[1f32, -0.5], &[2]).unwrap();
    for n in [0i64, 1, 9] {
        let got = run(&counted(1), &[("n", &Tensor::scalar(n)), ("x", &x)]).unwrap();
        let (mut k, mut l, mut v, mut more) = (n, n, [1f32, -0.5], true);
        while more {
            more = l >= 0;
            k -= 1;
            l = k;
            v = v.map(|x| x + x);
        }
        assert_eq!(got[0].1.to_vec::<f32>().unwrap(), v);
        assert_eq!(got[1].1.to_vec::<i64>().unwrap(), [k]);
    }
    let start = std::time::Instant::now();
    let told = run(&counted(0), &[("n", &Tensor::scalar(1i64)), ("x", &x)]).unwrap_err().to_string();
    assert!(told.contains("\"down\" (Loop)") && told.contains("repeat more than 65536 nodes"), "{told}");
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}
