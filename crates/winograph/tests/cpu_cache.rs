//! The kernel cache and the search for a compiler.

mod kernels;

use kernels::*;
use std::fs;
use std::path::{Path, PathBuf};
use winograph::cpu::{Buffer, CpuDevice, CpuOptions, Fetched};
use winograph::device::DeviceError;
use winograph::env::Env;
use winograph_ir::linear::{Code, Instr, Stmt};
use winograph_ir::{DType, Scalar};

fn options(cache_dir: Option<PathBuf>) -> CpuOptions {
    CpuOptions { cache_dir, threads: Some(1), ..CpuOptions::from_env(&Env::read().unwrap()) }
}

/// Writes a number.
fn kernel(x: f64) -> Code {
    let mut b = Builder::new("number");
    let out = b.arg(DType::F64, 1, true);
    let zero = b.int(&[], 0);
    let mut body = Vec::new();
    let value = b.emit(DType::F64, 1, Instr::Const(Scalar::from_f64(DType::F64, x)), &mut body);
    let access = b.access(out, zero, None);
    body.push(Stmt::Store { access, value });
    b.code.body = body;
    b.code
}

fn run(device: &CpuDevice, x: f64) -> Fetched {
    let (module, fetched) = device.load(&[kernel(x)]).unwrap();
    let out = Buffer::zeroed(8).unwrap();
    launch(&module, 0, &[&out], &[]);
    assert_eq!(values(&out, DType::F64)[0].to_f64(), x);
    fetched
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    all.filter(|p| p.extension().is_some_and(|e| e == extension)).collect()
}

#[test]
fn kernels_are_kept_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("made").join("here");
    let device = CpuDevice::new(options(Some(cache.clone()))).unwrap();
    assert_eq!(run(&device, 1.0), Fetched::Stored);
    assert_eq!(run(&device, 1.0), Fetched::Cached);
    assert_eq!(run(&device, 2.0), Fetched::Stored);
    let other = CpuDevice::new(options(Some(cache.clone()))).unwrap();
    assert_eq!(run(&other, 2.0), Fetched::Cached);
    assert_eq!(files(&cache, "entry").len(), 2);
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 4, "temporary files are left over");
}

#[test]
fn other_flags_are_other_kernels() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Some(dir.path().to_path_buf());
    let device = CpuDevice::new(options(cache.clone())).unwrap();
    assert_eq!(run(&device, 1.0), Fetched::Stored);
    let cc = device.compiler().unwrap().program().display().to_string() + " -O1";
    let other = CpuDevice::new(CpuOptions { cc: Some(cc.into()), ..options(cache) }).unwrap();
    assert_eq!(run(&other, 1.0), Fetched::Stored);
}

#[test]
fn damaged_entries_are_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let device = CpuDevice::new(options(Some(dir.path().to_path_buf()))).unwrap();
    assert_eq!(run(&device, 1.0), Fetched::Stored);
    // Another file, so that what is loaded already stays whole.
    let replace = |path: &Path, bytes: &[u8]| {
        fs::remove_file(path).unwrap();
        fs::write(path, bytes).unwrap();
    };
    let so = files(dir.path(), "so").remove(0);
    let whole = fs::read(&so).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for bytes in [&whole[..whole.len() / 2], &[], &flipped] {
        replace(&so, bytes);
        assert_eq!(run(&device, 1.0), Fetched::Stored);
        assert_eq!(run(&device, 1.0), Fetched::Cached);
    }
    let entry = files(dir.path(), "entry").remove(0);
    for text in ["", "winograph kernels 1\n", "winograph kernels 1\n../../../etc/passwd\n", "\u{0}"] {
        replace(&entry, text.as_bytes());
        assert_eq!(run(&device, 1.0), Fetched::Stored);
        assert_eq!(run(&device, 1.0), Fetched::Cached);
    }
    fs::remove_file(files(dir.path(), "so").remove(0)).unwrap();
    assert_eq!(run(&device, 1.0), Fetched::Stored);
}

#[test]
fn threads_and_devices_share_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                let device = CpuDevice::new(options(Some(dir.path().to_path_buf()))).unwrap();
                for i in 0..4 {
                    run(&device, i as f64);
                }
            });
        }
    });
    let device = CpuDevice::new(options(Some(dir.path().to_path_buf()))).unwrap();
    for i in 0..4 {
        assert_eq!(run(&device, i as f64), Fetched::Cached);
    }
}

/// Runs when another test starts this program again as a process of its own.
#[test]
fn child_process() {
    let number = |name| std::env::var(name).ok().and_then(|v| v.parse::<usize>().ok());
    let (Some(dir), Some(first)) = (std::env::var_os("WINOGRAPH_TEST_CACHE"), number("WINOGRAPH_TEST_FIRST")) else {
        return;
    };
    let device = CpuDevice::new(options(Some(dir.into()))).unwrap();
    for i in first..first + 3 {
        run(&device, i as f64);
    }
}

/// Starts this program again: it computes with kernels `first..first + 3`.
fn child(dir: &Path, first: usize) -> std::process::Child {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_process", "--quiet"])
        .env("WINOGRAPH_TEST_CACHE", dir)
        .env("WINOGRAPH_TEST_FIRST", first.to_string())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

/// Each kill meets another moment of starting, looking up, compiling, storing and loading.
#[test]
fn a_killed_process_leaves_nothing_that_harms_the_next() {
    // One process that may finish says how long that takes on this machine now; kills fall anywhere within a quarter more.
    let apart = tempfile::tempdir().unwrap();
    let start = std::time::Instant::now();
    assert!(child(apart.path(), 0).wait().unwrap().success());
    let window = start.elapsed().mul_f64(1.25).min(std::time::Duration::from_millis(600));
    let dir = tempfile::tempdir().unwrap();
    for kill in 0..200usize {
        let mut process = child(dir.path(), kill / 8);
        // Instants in no order.
        std::thread::sleep(window.mul_f64(((kill as u64 * 7919) % 200) as f64 / 200.0));
        process.kill().unwrap();
        process.wait().unwrap();
    }
    let device = CpuDevice::new(options(Some(dir.path().to_path_buf()))).unwrap();
    let found: Vec<Fetched> = (0..28).map(|i| run(&device, i as f64)).collect();
    assert!(found.contains(&Fetched::Cached), "no process got as far as storing a kernel: {found:?}");
    assert!((0..28).all(|i| run(&device, i as f64) == Fetched::Cached));
}

#[test]
fn processes_share_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let children: Vec<_> = (0..4).map(|_| child(dir.path(), 0)).collect();
    for mut c in children {
        assert!(c.wait().unwrap().success());
    }
    let device = CpuDevice::new(options(Some(dir.path().to_path_buf()))).unwrap();
    assert_eq!(run(&device, 0.0), Fetched::Cached);
}

#[test]
fn without_a_folder_that_can_be_written_nothing_is_kept() {
    let device = CpuDevice::new(options(None)).unwrap();
    assert_eq!(run(&device, 1.0), Fetched::Compiled);
    assert_eq!(run(&device, 1.0), Fetched::Compiled);
    // Below a file there can be no folder, whoever asks.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let device = CpuDevice::new(options(Some(file.join("cache")))).unwrap();
    assert_eq!(run(&device, 1.0), Fetched::Compiled);
    // A folder without permission to write, unless we are root, to whom that is nothing.
    let locked = dir.path().join("locked");
    fs::create_dir(&locked).unwrap();
    let mut permissions = fs::metadata(&locked).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&locked, permissions).unwrap();
    let device = CpuDevice::new(options(Some(locked.clone()))).unwrap();
    let can_write = fs::write(locked.join("probe"), "").is_ok();
    assert_eq!(run(&device, 1.0), if can_write { Fetched::Stored } else { Fetched::Compiled });
}

#[cfg(unix)]
#[test]
fn a_folder_that_others_can_write_to_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let shared = dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    let device = CpuDevice::new(options(Some(shared.clone()))).unwrap();
    assert_eq!(run(&device, 1.0), Fetched::Compiled);
    assert_eq!(fs::read_dir(&shared).unwrap().count(), 0);
    let why = device.cache().folder().unwrap_err();
    assert!(why.contains("can be written to by other users") && why.contains("chmod"), "{why}");
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(run(&device, 1.0), Fetched::Stored);
}

#[test]
fn a_cache_stays_within_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let small = CpuOptions { cache_bytes: Some(30_000), ..options(Some(dir.path().to_path_buf())) };
    for i in 0..6 {
        // The first store of a device looks at the folder.
        assert_eq!(run(&CpuDevice::new(small.clone()).unwrap(), i as f64), Fetched::Stored);
    }
    let bytes: u64 = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    assert!((1..=30_000).contains(&bytes), "{bytes} bytes");
    let device = CpuDevice::new(options(Some(dir.path().to_path_buf()))).unwrap();
    for i in 0..6 {
        run(&device, i as f64);
    }
}

/// A compiler that fails in one folder, as it does where that is full.
#[cfg(unix)]
#[test]
fn where_the_folder_is_full_kernels_are_made_elsewhere() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (cache, cc) = (dir.path().join("full"), dir.path().join("cc"));
    let real = CpuDevice::new(options(None)).unwrap().compiler().unwrap().program().display().to_string();
    let full = "echo 'No space left on device' >&2; exit 1";
    fs::write(&cc, format!("#!/bin/sh\ncase \"$*\" in *{}*) {full};; esac\nexec {real} \"$@\"\n", cache.display()))
        .unwrap();
    fs::set_permissions(&cc, fs::Permissions::from_mode(0o755)).unwrap();
    let with = |o| CpuOptions { cc: Some(cc.clone().into()), ..o };
    let device = CpuDevice::new(with(options(Some(cache.clone())))).unwrap();
    assert_eq!(run(&device, 1.0), Fetched::Compiled);
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 0, "temporary files are left over");
    // All folders are full.
    let none = CpuDevice::new(CpuOptions { temp_dir: cache.clone(), ..with(options(None)) }).unwrap();
    let e = none.load(&[kernel(1.0)]).err().unwrap().to_string();
    assert!(e.contains("No space left on device") && e.contains("the C compiler failed"), "{e}");
    // The compiler vanishes after it was found.
    fs::remove_file(&cc).unwrap();
    let e = device.load(&[kernel(2.0)]).err().unwrap().to_string();
    assert!(e.contains("cannot run the C compiler") && e.contains(cc.to_str().unwrap()), "{e}");
}

#[test]
fn a_missing_compiler_is_an_error() {
    let find = |o: CpuOptions| CpuDevice::new(o).unwrap().load(&[kernel(1.0)]).err().unwrap();
    let e = find(CpuOptions { cc: Some("no-such-compiler".into()), ..options(None) });
    assert!(matches!(&e, DeviceError::NoCompiler { tried } if tried == "no-such-compiler"), "{e}");
    let e = find(CpuOptions { path: Some("/nonexistent".into()), cc: None, ..options(None) });
    assert!(matches!(&e, DeviceError::NoCompiler { tried } if tried.contains("clang")), "{e}");
    let e = find(CpuOptions { path: None, cc: None, ..options(None) });
    assert!(matches!(e, DeviceError::NoCompiler { .. }), "{e}");
}

#[cfg(unix)]
#[test]
fn a_failing_compiler_is_an_error_with_its_output() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let cc = dir.path().join("my cc");
    fs::write(&cc, "#!/bin/sh\n[ \"$1\" = --version ] && exit 0\necho 'line 7: no such thing' >&2\nexit 3\n").unwrap();
    fs::set_permissions(&cc, fs::Permissions::from_mode(0o755)).unwrap();
    let device = CpuDevice::new(CpuOptions { cc: Some(cc.clone().into()), ..options(None) }).unwrap();
    match device.load(&[kernel(1.0)]).err().unwrap() {
        DeviceError::CompilerFailed { command, status, output } => {
            assert!(command.starts_with(cc.to_str().unwrap()), "{command}");
            assert!(status.contains('3'), "{status}");
            assert_eq!(output, "line 7: no such thing");
        }
        e => panic!("{e}"),
    }
}

#[test]
fn too_much_memory_is_an_error() {
    assert!(matches!(Buffer::zeroed(usize::MAX), Err(DeviceError::OutOfMemory { .. })));
    assert!(matches!(Buffer::zeroed(1 << 62), Err(DeviceError::OutOfMemory { .. })));
    assert!(Buffer::zeroed(0).unwrap().is_empty());
}
