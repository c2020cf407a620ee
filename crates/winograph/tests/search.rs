//! Searched plans: data that changes a program and no bit, stored, found by later compiles, and never trusted.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use winograph::cpu::{CpuDevice, CpuOptions};
use winograph::device::Device;
use winograph::env::Env;
use winograph::search::{Outcome, PlanStore, SearchOptions, Unwatched, Watch, search};
use winograph::{
    ArgSpec, AxisTile, ConvOptions, DType, Function, FunctionOptions, Options, Tensor, TensorBuffer, compile_with,
};
use winograph_compiler::explain::NestReport;
use winograph_compiler::tune::{Origin, Staging, Stores, SumReport, Tuning, TuningRule, neighbours};

fn device(plans: Option<PathBuf>) -> Arc<dyn Device> {
    let options = CpuOptions { plan_dir: plans, threads: Some(2), ..CpuOptions::from_env(&Env::read().unwrap()) };
    Arc::new(CpuDevice::new(options).unwrap())
}

const INPUT: [usize; 4] = [1, 16, 20, 20];

fn input() -> Tensor {
    Tensor::randn(&INPUT, DType::F32, 1).unwrap()
}

fn weight() -> Tensor {
    let w = Tensor::randn(&[32, 16, 3, 3], DType::F32, 2).unwrap();
    w.realize().unwrap();
    w
}

/// The convolution, and what a network has after it.
fn conv(x: &Tensor, w: &Tensor, more: bool) -> winograph::Result<Vec<Tensor>> {
    let y = x.conv2d(w, None, &ConvOptions::padding(1))?;
    Ok(vec![if more { y.add(&Tensor::full(&[1, 32, 1, 1], 0.5f32)?)?.relu()? } else { y }])
}

fn build(device: &Arc<dyn Device>, tuning: TuningRule, w: &Tensor, more: bool) -> winograph::Result<Function> {
    build_of(&INPUT, device, tuning, w, more)
}

fn build_of(
    input: &[usize],
    device: &Arc<dyn Device>,
    tuning: TuningRule,
    w: &Tensor,
    more: bool,
) -> winograph::Result<Function> {
    let options = Options { tuning, ..Options::default() };
    let how = FunctionOptions { device: Some(device.clone()), compiler: Some(options), dumps: false };
    compile_with(&[ArgSpec::new(DType::F32, input)], &how, |a| conv(&a[0], w, more))
}

fn bits(f: &Function, x: &Tensor) -> Vec<u32> {
    f.call(&[x]).unwrap()[0].to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

fn sum(f: &Function) -> &SumReport {
    let [sum] = &f.explanation().sums[..] else { panic!("{:?}", f.explanation().sums) };
    sum
}

fn nests(f: &Function) -> Vec<&NestReport> {
    f.explanation().kernels.iter().filter(|k| !k.prepare).flat_map(|k| &k.nests).collect()
}

#[test]
fn neighbours_are_other_programs_with_the_same_bits() {
    let (device, x, w) = (device(None), input(), weight());
    let base = build(&device, TuningRule::Given(vec![]), &w, false).unwrap();
    let (first, report) = (bits(&base, &x), sum(&base));
    let key = report.problem.key();
    assert!(matches!(report.used.stages, Some(Staging::Scratch(_))), "{}", report.used);
    // What was decided, given back, is the same program.
    let again = build(&device, TuningRule::Given(vec![(key.clone(), report.used.clone())]), &w, false).unwrap();
    assert_eq!(again.source(), base.source());
    assert_eq!((sum(&again).origin, &sum(&again).refused[..]), (Origin::Given, &[][..]));
    let all = neighbours(report, 0, &nests(&base), device.target());
    assert!(all.len() > 20, "{}", all.len());
    let tiles = all.iter().filter(|t| t.tile != report.used.tile).count();
    assert!(tiles >= 1, "other tiles are tried: {:?}", report.tiles);
    let (mut others, mut refused) = (0, 0);
    // Those of each kind; a program takes half a second of the C compiler.
    for tuning in all.iter().filter(|t| t.tile == report.used.tile).step_by(2) {
        let f = build(&device, TuningRule::Given(vec![(key.clone(), tuning.clone())]), &w, false);
        let f = f.unwrap_or_else(|e| panic!("{tuning}: {e:?}"));
        assert_eq!(bits(&f, &x), first, "{tuning}");
        refused += usize::from(!sum(&f).refused.is_empty());
        others += usize::from(f.source() != base.source());
    }
    assert!(others >= 4 && refused < others, "{others} other programs, {refused} refused");
}

#[test]
fn an_operand_that_threads_share_is_computed_in_a_launch_before() {
    let (device, x, w) = (device(None), input(), weight());
    let base = build(&device, TuningRule::Given(vec![]), &w, false).unwrap();
    let report = sum(&base);
    let &[.., height, width] = &report.extents.as_ref().unwrap().rows[..] else { panic!("{:?}", report.extents) };
    for text in [
        format!("stages=shared block=1,{height},{width} columns=16 parts=1\n"),
        format!("stages=shared block=1,{height},{width} columns=8 parts=2\n"),
        format!("stages=shared block=1,2,{width} columns=16 parts=2\n"),
    ] {
        let tuning = Tuning::parse(&text).unwrap();
        let rule = TuningRule::Given(vec![(report.problem.key(), tuning.clone())]);
        let f = build(&device, rule, &w, false).unwrap();
        assert_eq!((sum(&f).used.stages, &sum(&f).refused[..]), (tuning.stages, &[][..]), "{text}");
        assert_eq!(f.program().run.len(), 2, "{text}");
        let footprint = f.program().footprint().unwrap();
        assert!(footprint.arena > 0 && footprint.scratch > 0, "{text}: {footprint:?}");
        assert_eq!(bits(&f, &x), bits(&base, &x), "{text}");
    }
}

#[test]
fn large_results_are_stored_past_the_caches_where_that_is_asked_for() {
    let (input, w) = ([1, 16, 128, 128], weight());
    let x = Tensor::randn(&input, DType::F32, 1).unwrap();
    let of = |device: &Arc<dyn Device>, tuning: &[(String, Tuning)]| {
        build_of(&input, device, TuningRule::Given(tuning.to_vec()), &w, false).unwrap()
    };
    // Builtins of their own store so with each compiler and each width.
    let with = |cc: &str, bytes: usize| -> Option<Arc<dyn Device>> {
        let env = CpuOptions::from_env(&Env::read().unwrap());
        let options = CpuOptions { cc: Some(cc.into()), plan_dir: None, vector_bytes: Some(bytes), ..env };
        Some(Arc::new(CpuDevice::new(options).ok()?))
    };
    let compilers = ["gcc", "clang"].into_iter().flat_map(|cc| [16, 32, 64].map(|bytes| (cc, bytes)));
    let devices = compilers.filter_map(|(cc, bytes)| with(cc, bytes)).chain([device(None)]);
    for device in devices {
        let base = of(&device, &[]);
        let report = sum(&base);
        assert_eq!((report.used.stores, base.source().contains("wg_stream")), (Some(Stores::Cached), false));
        let toggled = |t: &Tuning| t.stores == Some(Stores::Streamed);
        let near = neighbours(report, 0, &nests(&base), device.target());
        let tuning = near.into_iter().find(toggled).expect("a neighbour that stores so");
        let f = of(&device, &[(report.problem.key(), tuning)]);
        assert_eq!((sum(&f).used.stores, &sum(&f).refused[..]), (Some(Stores::Streamed), &[][..]));
        assert!(f.source().contains("wg_stream_") && f.source().contains("wg_streamed()"));
        assert_eq!(bits(&f, &x), bits(&base, &x));
    }
    let device = device(None);
    let report = build(&device, TuningRule::Given(vec![]), &w, false).unwrap();
    assert_eq!(sum(&report).used.stores, None, "a small result is no question");
}

/// Stores a tuning for the convolution; gives the files.
fn stored(dir: &Path, device: &Arc<dyn Device>, w: &Tensor, tuning: &str) -> (Vec<PathBuf>, Tuning) {
    let base = build(device, TuningRule::Given(vec![]), w, false).unwrap();
    let tuning = Tuning::parse(tuning).unwrap();
    let store = PlanStore::new(Some(dir.to_path_buf()));
    (store.store(&sum(&base).problem, device.target(), &tuning).unwrap(), tuning)
}

#[test]
fn a_stored_plan_is_found_by_later_compiles_unless_switched_off() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("plans");
    let (device, plain, x, w) = (device(Some(folder.clone())), device(None), input(), weight());
    let (_, tuning) = stored(&folder, &device, &w, "stages=global\n");
    for more in [false, true] {
        let f = build(&device, TuningRule::Stored, &w, more).unwrap();
        assert_eq!((sum(&f).origin, &sum(&f).asked), (Origin::Stored, &tuning), "whatever reads the result");
        assert_eq!(sum(&f).used.stages, Some(Staging::Global));
        assert_eq!(f.program().run.len(), 3, "separate launches");
        let without = build(&plain, TuningRule::Stored, &w, more).unwrap();
        assert!(without.explanation().sums.is_empty(), "without stored plans no compile asks what its sums are");
        assert_eq!(without.program().run.len(), 1);
        assert_eq!(bits(&f, &x), bits(&without, &x));
        let off = build(&device, TuningRule::Off, &w, more).unwrap();
        assert_eq!(off.source(), without.source());
    }
    // Another convolution has none.
    let other = Tensor::randn(&[24, 16, 3, 3], DType::F32, 2).unwrap();
    let f = build(&device, TuningRule::Stored, &other, false).unwrap();
    assert_eq!(sum(&f).origin, Origin::Heuristics);
}

#[test]
fn a_damaged_or_hostile_plan_is_noticed_and_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("plans");
    let (device, plain, x, w) = (device(Some(folder.clone())), device(None), input(), weight());
    let want = build(&plain, TuningRule::Off, &w, false).unwrap();
    let bits_of_it = bits(&want, &x);
    let (files, _) = stored(&folder, &device, &w, "registers=2x8\n");
    let whole = fs::read(&files[0]).unwrap();
    fs::write(&files[0], &whole[..whole.len() - 2]).unwrap();
    let f = build(&device, TuningRule::Stored, &w, false).unwrap();
    assert_eq!((f.source(), sum(&f).origin), (want.source(), Origin::Heuristics));
    assert!(sum(&f).refused[0].contains("is damaged"), "{:?}", sum(&f).refused);
    // Whole, and wrong: the hash is right, since it was stored so.
    for hostile in [
        "registers=31x31\n",
        "registers=1x1048576\n",
        "stages=scratch block=1,1000,7 columns=8 parts=1\n",
        "stages=scratch block=1,1,1 columns=7 parts=3\n",
        "stages=scratch block=1048576,1048576,1048576 columns=1048576 parts=1048576\n",
        // Less accurate than the tolerance admits, and no tile at all.
        "tile=6,6\n",
        "tile=1,1\n",
        "tile=1000000,2\n",
        "tile=4\ntile=4\n",
        "plan output_transform: a0=grid:2\n",
        "plan output_transform: a0=grid,unroll:4096,unroll:4096 a1=loop a2=loop order=a0,a1,a2\n",
        "plan input_transform: a0=grid,thread:64 threads=a0\n",
        "plan multiply: a0=vector:3 a1=vector:5 r0=vector:7\n",
    ] {
        let Ok(tuning) = Tuning::parse(hostile) else {
            assert_eq!(hostile, "tile=4\ntile=4\n");
            continue;
        };
        let store = PlanStore::new(Some(folder.clone()));
        store.store(&sum(&want_report(&device, &w)).problem, device.target(), &tuning).unwrap();
        let f = build(&device, TuningRule::Stored, &w, false).unwrap();
        assert!(!sum(&f).refused.is_empty(), "{hostile} was taken: {}", sum(&f).used);
        assert_eq!(bits(&f, &x), bits_of_it, "{hostile}");
    }
}

fn want_report(device: &Arc<dyn Device>, w: &Tensor) -> Function {
    build(device, TuningRule::Given(vec![]), w, false).unwrap()
}

#[test]
fn a_home_that_cannot_be_written_is_no_error() {
    let nowhere = device(Some(PathBuf::from("/proc/none/plans")));
    let (x, w) = (input(), weight());
    let f = build(&nowhere, TuningRule::Stored, &w, false).unwrap();
    let g = build(&device(None), TuningRule::Stored, &w, false).unwrap();
    assert_eq!(f.source(), g.source());
    assert_eq!(bits(&f, &x), bits(&g, &x));
    let store = nowhere.plans().unwrap();
    assert!(store.store(&sum(&want_report(&nowhere, &w)).problem, nowhere.target(), &Tuning::default()).is_err());
}

/// Counts what it is asked.
#[derive(Default)]
struct Counter {
    tried: usize,
    tiles: Vec<Vec<AxisTile>>,
}

impl Watch for Counter {
    fn trying(&mut self, tried: usize, part: f64, change: &str) {
        assert!(!change.is_empty() && part >= 0.0);
        assert_eq!(tried, self.tried);
        self.tried += 1;
    }

    fn check(&mut self, tile: &[AxisTile], results: &[TensorBuffer]) -> Result<(), String> {
        assert_eq!(results.len(), 1);
        self.tiles.push(tile.to_vec());
        // As if direct sums were wrong.
        if tile.is_empty() { Err("not this one".to_string()) } else { Ok(()) }
    }
}

#[test]
fn a_search_tries_checks_and_gives_a_program() {
    let (device, x, w) = (device(None), input(), weight());
    let base = build(&device, TuningRule::Off, &w, false).unwrap();
    let options = SearchOptions { seconds: 2.0, device: Some(device.clone()), compiler: Some(Options::default()) };
    let args = [ArgSpec::new(DType::F32, &INPUT)];
    let mut counter = Counter::default();
    let found = search(&args, &[&x], &options, &mut counter, &|a| conv(&a[0], &w, false)).unwrap();
    assert_eq!(found.tried.len(), counter.tried);
    assert!(!found.tried.is_empty());
    for t in &found.tried {
        match &t.outcome {
            Outcome::Faster => assert!(t.ratio < 1.0 && t.rounds > 0, "{t:?}"),
            Outcome::NotFaster => assert!(t.ratio.is_finite() && t.rounds > 0, "{t:?}"),
            Outcome::Wrong(why) => {
                assert_eq!((why.as_str(), t.tuning.tile.as_deref()), ("not this one", Some(&[][..])))
            }
            Outcome::OtherBits => panic!("a schedule changed bits: {t:?}"),
            Outcome::Same | Outcome::Unfit(_) => assert!(t.ratio.is_nan(), "{t:?}"),
        }
    }
    // Each tile is checked once.
    let mut tiles = counter.tiles.clone();
    tiles.sort();
    tiles.dedup();
    assert_eq!(tiles.len(), counter.tiles.len());
    // The result is what its tuning makes, and stored it is what a later compile makes.
    let given = TuningRule::Given(vec![(found.problem.key(), found.tuning.clone())]);
    assert_eq!(build(&device, given, &w, false).unwrap().source(), found.function.source());
    if found.gain.is_empty() {
        assert_eq!((found.function.source(), found.ratio), (base.source(), 1.0));
    }
    if sum(&found.function).used.tile == sum(&want_report(&device, &w)).used.tile {
        assert_eq!(bits(&found.function, &x), bits(&base, &x));
    }
}

#[test]
fn a_search_for_nothing_is_refused() {
    let x = Tensor::randn(&[8, 8], DType::F32, 1).unwrap();
    let args = [ArgSpec::new(DType::F32, &[8, 8])];
    let run = |seconds: f64| {
        let options = SearchOptions { seconds, device: Some(device(None)), compiler: Some(Options::default()) };
        search(&args, &[&x], &options, &mut Unwatched, &|a| Ok(vec![a[0].relu()?])).map(|_| ()).unwrap_err().to_string()
    };
    assert!(run(1.0).contains("no sum of products"), "{}", run(1.0));
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(run(bad).contains("a number of seconds above 0"), "{}", run(bad));
    }
}
