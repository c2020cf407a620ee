//! Programs that a device keeps from one process to the next: found again, checked, and never wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use winograph::cpu::{CpuDevice, CpuOptions};
use winograph::device::Device;
use winograph::env::Env;
use winograph::{
    Algorithm, ArgSpec, ConvOptions, DType, Function, FunctionOptions, Options, Tensor, compile_with, settings,
};
use winograph_ir::text::print_linear;

/// A device as a new process would have it.
fn device(dir: &Path, change: impl FnOnce(&mut CpuOptions)) -> Arc<dyn Device> {
    let mut options = CpuOptions {
        cache_dir: Some(dir.to_path_buf()),
        plan_dir: Some(dir.join("plans")),
        threads: Some(2),
        ..CpuOptions::from_env(&Env::read().unwrap())
    };
    change(&mut options);
    Arc::new(CpuDevice::new(options).unwrap())
}

/// Two convolutions, whose weights are prepared, and a sum with a constant that is read as it is.
fn network(device: &Arc<dyn Device>, seed: u64, options: &Options) -> Function {
    let (first, second) =
        (Tensor::randn(&[16, 8, 3, 3], DType::F32, seed), Tensor::randn(&[8, 16, 1, 1], DType::F32, 7));
    let (first, second) = (first.unwrap(), second.unwrap());
    let shift = Tensor::randn(&[1, 8, 14, 14], DType::F32, seed + 1).unwrap();
    Tensor::realize_all(&[&first, &second, &shift]).unwrap();
    let with =
        FunctionOptions { device: Some(device.clone()), compiler: Some(options.clone()), ..FunctionOptions::default() };
    compile_with(&[ArgSpec::new(DType::F32, &[1, 8, 14, 14])], &with, |args| {
        let y = args[0].conv2d(&first, None, &ConvOptions::padding(1))?.relu()?;
        Ok(vec![y.conv2d(&second, None, &ConvOptions::default())?.add(&shift)?, y.mean(&[2, 3], false)?])
    })
    .unwrap()
}

fn defaults() -> Options {
    settings::settings().unwrap().options.clone()
}

fn results(f: &Function) -> Vec<Vec<f32>> {
    let x = Tensor::randn(&[1, 8, 14, 14], DType::F32, 3).unwrap();
    f.call(&[&x]).unwrap().iter().map(|t| t.to_vec::<f32>().unwrap()).collect()
}

fn entries(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    all.filter(|p| p.extension().is_some_and(|e| e == ending)).collect()
}

#[test]
fn a_program_that_was_kept_is_the_one_that_was_compiled() {
    let dir = tempfile::tempdir().unwrap();
    let first = network(&device(dir.path(), |_| {}), 1, &defaults());
    assert!(!first.times().kept);
    assert_eq!(entries(dir.path(), "program").len(), 1);
    let again = network(&device(dir.path(), |_| {}), 1, &defaults());
    assert!(again.times().kept, "it is found");
    assert_eq!(results(&again), results(&first));
    assert!(again.outline().kernels.iter().all(|k| k.body.is_empty()), "nothing was lowered");
    assert_eq!(again.outline().run, first.program().run);
    assert_eq!(again.outline().buffers, first.program().buffers);
    // What was decided and what the kernels are is told where somebody asks.
    let codes = |f: &Function| f.program().kernels.iter().map(print_linear).collect::<Vec<_>>();
    assert_eq!(codes(&again), codes(&first));
    let told = |f: &Function| f.explanation().kernels.iter().map(|k| format!("{k:?}")).collect::<Vec<_>>();
    assert_eq!(told(&again), told(&first));
    assert!(!told(&again).is_empty());
    assert_eq!(again.source(), first.source());
    let (a, b) = (dir.path().join("a.wg"), dir.path().join("b.wg"));
    first.export(&a).unwrap();
    again.export(&b).unwrap();
    assert_eq!(fs::read(a).unwrap(), fs::read(b).unwrap());
}

#[test]
fn weights_are_not_a_part_of_it() {
    let dir = tempfile::tempdir().unwrap();
    network(&device(dir.path(), |_| {}), 1, &defaults());
    let other = network(&device(dir.path(), |_| {}), 5, &defaults());
    assert!(other.times().kept);
    let apart = tempfile::tempdir().unwrap();
    assert_eq!(results(&other), results(&network(&device(apart.path(), |_| {}), 5, &defaults())));
}

#[test]
fn what_a_program_depends_on_is() {
    let dir = tempfile::tempdir().unwrap();
    let kept = |device: &Arc<dyn Device>, options: &Options| network(device, 1, options).times().kept;
    let plain = || device(dir.path(), |_| {});
    assert!(!kept(&plain(), &defaults()));
    assert!(!kept(&plain(), &Options { algorithm: Algorithm::Direct, ..defaults() }), "options");
    assert!(!kept(&device(dir.path(), |o| o.threads = Some(3)), &defaults()), "threads");
    assert!(!kept(&device(dir.path(), |o| o.vector_bytes = Some(16)), &defaults()), "vectors");
    let cc = CpuDevice::new(CpuOptions::from_env(&Env::read().unwrap())).unwrap();
    let cc = cc.compiler().unwrap().program().display().to_string() + " -O1";
    assert!(!kept(&device(dir.path(), |o| o.cc = Some(cc.into())), &defaults()), "the C compiler");
    fs::create_dir(dir.path().join("plans")).unwrap();
    fs::write(dir.path().join("plans").join("any.plan"), "anything").unwrap();
    assert!(!kept(&plain(), &defaults()), "stored plans");
    assert!(kept(&plain(), &defaults()));
    let dumps = FunctionOptions { device: Some(plain()), dumps: true, ..FunctionOptions::default() };
    let seen = |options: &FunctionOptions| {
        compile_with(&[ArgSpec::new(DType::F32, &[3])], options, |a| Ok(vec![a[0].exp()?])).unwrap()
    };
    for _ in 0..2 {
        let f = seen(&dumps);
        assert!(
            !f.times().kept && f.explanation().passes.iter().all(|p| p.dump.is_some()),
            "who wants to see passes does"
        );
    }
    let none = device(dir.path(), |o| o.cache_dir = None);
    assert!(!kept(&none, &defaults()) && !kept(&none, &defaults()), "no folder");
}

#[test]
fn damaged_entries_are_compiled_again() {
    let dir = tempfile::tempdir().unwrap();
    let right = results(&network(&device(dir.path(), |_| {}), 1, &defaults()));
    let path = entries(dir.path(), "program").remove(0);
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    let middle = whole.len() / 2;
    flipped[middle] ^= 1;
    for bad in [&whole[..whole.len() - 1], &whole[..middle], b"", b"\n", &flipped] {
        fs::write(&path, bad).unwrap();
        let f = network(&device(dir.path(), |_| {}), 1, &defaults());
        assert!(!f.times().kept);
        assert_eq!(results(&f), right);
        assert_eq!(fs::read(&path).unwrap(), whole, "it is whole again");
    }
    // A library that is gone.
    fs::remove_file(entries(dir.path(), "so").remove(0)).unwrap();
    let f = network(&device(dir.path(), |_| {}), 1, &defaults());
    assert!(!f.times().kept);
    assert_eq!(results(&f), right);
    assert!(network(&device(dir.path(), |_| {}), 1, &defaults()).times().kept);
}

/// Numbers that cannot be are refused even where the hash is right: what runs is what the graph and its memory admit.
#[test]
fn entries_that_do_not_fit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let right = results(&network(&device(dir.path(), |_| {}), 1, &defaults()));
    let path = entries(dir.path(), "program").remove(0);
    let whole = fs::read(&path).unwrap();
    let at = whole.iter().position(|&b| b == b'\n').unwrap();
    let entry: serde_json::Value = serde_json::from_slice(&whole[at + 1..]).unwrap();
    let refused = |what: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let mut changed = entry.clone();
        change(&mut changed);
        assert_ne!(changed, entry, "{what}");
        let text = serde_json::to_vec(&changed).unwrap();
        fs::write(&path, [blake3::hash(&text).to_hex().as_bytes(), b"\n", &text].concat()).unwrap();
        let f = network(&device(dir.path(), |_| {}), 1, &defaults());
        assert!(!f.times().kept, "{what}");
        assert_eq!(results(&f), right, "{what}");
    };
    refused("a kernel that there is not", &|e| e["run"][0]["kernel"] = 999.into());
    refused("a buffer that there is not", &|e| e["run"][0]["args"][0] = 999.into());
    refused("an argument less", &|e| drop(e["run"][0]["args"].as_array_mut().unwrap().pop()));
    refused("a smaller arena", &|e| e["arena_bytes"] = 64.into());
    refused("less prepared memory", &|e| e["prepared_bytes"] = 64.into());
    refused("a longer buffer", &|e| e["buffers"][0]["len"] = (1u64 << 40).into());
    refused("another input", &|e| e["buffers"][0]["place"] = serde_json::json!({"argument": 4}));
    refused("a constant that there is not", &|e| e["buffers"][0]["place"] = serde_json::json!({"constant": 77}));
    refused("a kernel without a name", &|e| e["units"][0]["name"] = "../../x".into());
    refused("a field of its own", &|e| e["more"] = 1.into());
}

#[test]
fn launches_of_chunks_are_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let stages = winograph_compiler::options::StageRule::Chunks(2);
    let options = Options { algorithm: Algorithm::Winograd, stages, ..defaults() };
    let first = network(&device(dir.path(), |_| {}), 1, &options);
    assert!(first.program().run.iter().any(|s| s.host.contains(&1)), "{:?}", first.program().run);
    let again = network(&device(dir.path(), |_| {}), 1, &options);
    assert!(again.times().kept, "it is found");
    assert_eq!(again.outline().run, first.program().run);
    assert_eq!(results(&again), results(&first));
}
