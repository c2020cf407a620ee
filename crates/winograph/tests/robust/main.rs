//! Every public function called with arguments that are often wrong: it ends in a result that can be used, or in an error
//! that says what was wrong; never in a panic, nor without end, nor with memory that nobody asked for.

#![allow(unreachable_pub)]

mod coverage;
mod operations;
mod runtime;
mod source;

use operations::{Call, Pool};
use proptest::prelude::*;
use source::{FEW, Source};
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};
use winograph::{DType, Tensor};

/// A call that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(60);

/// Bytes that this process may have had at once: all tensors of the tests are small, or cannot be had at all.
const MOST_MEMORY: u64 = 3 << 30;

/// Calls under way, by their threads.
static NOW: Mutex<Vec<(std::thread::ThreadId, String, Instant)>> = Mutex::new(Vec::new());

/// Runs a call under the eyes of a thread that ends the process, with the call's name, where it does not return.
fn watched<R>(name: &str, f: impl FnOnce() -> R) -> R {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        std::thread::spawn(|| {
            loop {
                std::thread::sleep(Duration::from_secs(1));
                let now = NOW.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((_, name, _)) = now.iter().find(|c| c.2.elapsed() > LONGEST) {
                    // Not by a macro, whose output is kept until the test ends.
                    let _ = writeln!(std::io::stderr(), "{name} has not returned after {LONGEST:?}");
                    std::process::exit(101);
                }
            }
        });
    });
    let own = std::thread::current().id();
    let lock = || NOW.lock().unwrap_or_else(PoisonError::into_inner);
    lock().push((own, name.to_string(), Instant::now()));
    let result = f();
    let mut now = lock();
    // A call may call others.
    if let Some(at) = now.iter().rposition(|c| c.0 == own) {
        now.remove(at);
    }
    result
}

/// Bytes of memory that this process has had at most, where the system tells.
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// An error's text has to name where it is from and what it is about.
fn clear(name: &str, text: &str) -> Result<(), TestCaseError> {
    let told = text.len() > 12 && !text.contains("panicked") && !text.contains("unwrap");
    prop_assert!(told, "{}: {:?}", name, text);
    Ok(())
}

fn pool(s: &mut Source) -> Pool {
    let few: Vec<Tensor> = (0..4).map(|_| s.tensor()).collect();
    Pool { any: few.clone(), few }
}

fn take(pool: &mut Pool, results: Vec<Tensor>) {
    for t in results {
        if t.numel() <= FEW {
            pool.few.push(t.clone());
        }
        pool.any.push(t);
    }
}

fn call(named: &(&str, Call), s: &mut Source, pool: &Pool) -> Result<Vec<Tensor>, TestCaseError> {
    match watched(named.0, || (named.1)(s, pool)) {
        Ok(results) => Ok(results),
        Err(e) => {
            let text = e.to_string();
            clear(named.0, &text)?;
            prop_assert!(text.contains(": "), "{}: {}", named.0, text);
            Ok(vec![])
        }
    }
}

#[test]
fn every_public_function_is_called() {
    let mut called: BTreeSet<String> = operations::all().iter().map(|o| o.0.to_string()).collect();
    called.extend(operations::COMPILING.iter().map(|o| o.0.to_string()));
    called.extend(runtime::FUNCTIONS.iter().map(|o| o.0.to_string()));
    let here = |n: &String| !runtime::needs_a_gpu(n) && !runtime::is_for_the_whole_process(n);
    let public: BTreeSet<String> = coverage::public_functions().into_iter().filter(here).collect();
    let missing: Vec<_> = public.difference(&called).collect();
    assert!(missing.is_empty(), "public, and in none of the lists of operations.rs and runtime.rs: {missing:?}");
    let gone: Vec<_> = called.difference(&public).collect();
    assert!(gone.is_empty(), "in the lists, and not in the source: {gone:?}");
    assert!(public.len() > 150, "{}", public.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// One after the other, each on what those before it gave.
    #[test]
    fn never_a_panic(numbers in proptest::collection::vec(any::<u32>(), 1..300)) {
        let mut s = Source::new(&numbers);
        let (all, mut pool) = (operations::all(), pool(&mut s));
        for _ in 0..12 {
            let results = {
                let named = all[s.below(all.len())];
                call(named, &mut s, &pool)?
            };
            take(&mut pool, results);
        }
        prop_assert!(memory() < MOST_MEMORY, "{} bytes", memory());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each one in turn, so that none is left to chance.
    #[test]
    fn each_operation_never_panics(numbers in proptest::collection::vec(any::<u32>(), 1..60)) {
        for named in operations::all() {
            let mut s = Source::new(&numbers);
            let pool = pool(&mut s);
            call(named, &mut s, &pool)?;
        }
    }

    /// What computes at once, with few graphs, so that their programs are soon known.
    #[test]
    fn computing_never_panics(numbers in proptest::collection::vec(any::<u32>(), 1..40)) {
        let few: Vec<Tensor> = vec![
            Tensor::ones(&[2, 3], DType::F32).unwrap().mul(2.0).unwrap(),
            Tensor::zeros(&[0], DType::I8).unwrap(),
            Tensor::ones(&[], DType::I64).unwrap(),
            Tensor::ones(&[1], DType::Bool).unwrap(),
            Tensor::arange(0i32, 5, 1).unwrap(),
        ];
        let pool = Pool { any: few.clone(), few };
        for named in operations::COMPILING {
            call(named, &mut Source::new(&numbers), &pool)?;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Only from small tensors, so that all can be computed; many in one program, since each takes the C compiler.
    #[test]
    fn what_is_accepted_can_be_computed(seeds in proptest::collection::vec(any::<u32>(), 32)) {
        let (all, mut made) = (operations::all(), Vec::new());
        for seed in seeds {
            let numbers = [seed];
            let mut s = Source::new(&numbers);
            let mut pool = pool(&mut s);
            pool.any = pool.few.clone();
            for _ in 0..3 {
                let named = all[s.below(all.len())];
                for t in call(named, &mut s, &pool)?.into_iter().filter(|t| t.numel() <= FEW) {
                    made.push((named.0, t.clone()));
                    pool.any.push(t);
                }
            }
        }
        let wide = made.iter().map(|(_, t)| t.cast(DType::F64)).collect::<winograph::Result<Vec<_>>>();
        let wide = wide.map_err(|e| TestCaseError::fail(e.to_string()))?;
        if watched("realize_all", || Tensor::realize_all(&wide.iter().collect::<Vec<_>>())).is_err() {
            for ((name, t), w) in made.iter().zip(&wide) {
                let alone = watched(name, || w.realize());
                prop_assert!(alone.is_ok(), "{}: {:?}: {:?}", name, t, alone);
            }
        }
        for ((name, t), w) in made.iter().zip(&wide) {
            let values = w.to_vec::<f64>();
            prop_assert_eq!(values.map(|v| v.len()).unwrap_or(0), t.numel(), "{}", name);
        }
        prop_assert!(memory() < MOST_MEMORY, "{} bytes", memory());
    }
}

#[test]
fn functions_devices_and_models_never_panic() {
    let context = runtime::Context::new();
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u32
    };
    for (name, call) in runtime::FUNCTIONS {
        // Those that may start the C compiler each time are called less often.
        let times =
            if ["compile", "compile_with", "Model::compile", "Model::compile_with"].contains(name) { 25 } else { 60 };
        for _ in 0..times {
            let numbers: Vec<u32> = (0..40).map(|_| next()).collect();
            if let Err(text) = watched(name, || call(&mut Source::new(&numbers), &context)) {
                clear(name, &text).unwrap();
            }
        }
    }
    assert!(memory() < MOST_MEMORY, "{} bytes", memory());
}
