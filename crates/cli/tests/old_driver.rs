//! Drivers that are too old or not whole: the command says so, and what is needed. The driver is a small library of the test's own.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder with a `libcuda.so.1` of these functions.
fn driver(name: &str, source: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("driver.c");
    std::fs::write(&file, source).unwrap();
    let mut compiler = Command::new("cc");
    let built = compiler.args(["-shared", "-fPIC", "-o"]).arg(folder.join("libcuda.so.1")).arg(&file).status();
    assert!(built.unwrap().success());
    folder
}

/// What the command prints where that is the driver.
fn failure(folder: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_winograph"));
    let out = command.args(["bench", "conv", "--device", "cuda:0"]).env("LD_LIBRARY_PATH", folder).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    String::from_utf8(out.stderr).unwrap()
}

#[test]
fn a_driver_that_is_too_old_is_told_with_what_is_needed() {
    let old = driver("old_driver", "int cuDriverGetVersion(int *v) { *v = 10020; return 0; }\n");
    let stderr = failure(&old);
    assert!(stderr.contains("it is too old: it knows CUDA 10.2"), "{stderr}");
    assert!(stderr.contains("version 470 (CUDA 11.4) or later is needed"), "{stderr}");
}

#[test]
fn a_driver_without_a_function_is_told_with_its_name() {
    let part = driver("part_of_a_driver", "int cuDriverGetVersion(int *v) { *v = 12040; return 0; }\n");
    let stderr = failure(&part);
    assert!(stderr.contains("cuInit") && stderr.contains("the CUDA driver"), "{stderr}");
    let other = driver("no_driver", "int other(void) { return 0; }\n");
    let stderr = failure(&other);
    assert!(stderr.contains("cuDriverGetVersion"), "{stderr}");
}
