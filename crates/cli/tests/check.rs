//! `winograph check` on conformance cases that are written here: one that passes, one that fails, one with an operator that
//! is not known.

use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A field of protobuf that holds fewer than 128 bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 128);
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

/// The model `y = op(x)` of f32[2].
fn model(op: &str) -> Vec<u8> {
    let tensor = field(1, &[vec![1 << 3, 1], field(2, &field(1, &[1 << 3, 2]))].concat());
    let port = |name: &[u8]| [field(1, name), field(2, &tensor)].concat();
    let node = field(1, &[field(1, b"x"), field(2, b"y"), field(4, op.as_bytes())].concat());
    let graph = [node, field(2, b"g"), field(11, &port(b"x")), field(12, &port(b"y"))].concat();
    [vec![1 << 3, 8], field(7, &graph), field(8, &[2 << 3, 17])].concat()
}

fn tensor(values: [f32; 2]) -> Vec<u8> {
    let raw = values.map(f32::to_le_bytes).concat();
    [vec![1 << 3, 2, 2 << 3, 1], field(9, &raw)].concat()
}

/// A folder of cases that is new.
fn cases() -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("check-cases");
    let _ = std::fs::remove_dir_all(&root);
    for (name, op, y) in [("good", "Neg", [-1.0, 2.0]), ("bad", "Abs", [1.0, -2.0]), ("odd", "Frobnicate", [0.0; 2])] {
        let data = root.join(name).join("test_data_set_0");
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(root.join(name).join("model.onnx"), model(op)).unwrap();
        std::fs::write(data.join("input_0.pb"), tensor([1.0, -2.0])).unwrap();
        std::fs::write(data.join("output_0.pb"), tensor(y)).unwrap();
    }
    root
}

fn check(args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_winograph"));
    command.arg("check").args(args).env("WINOGRAPH_CACHE_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/kernels"));
    let Output { status, stdout, .. } = command.output().expect("the command starts");
    (status.code(), String::from_utf8(stdout).unwrap())
}

#[test]
fn cases_are_counted_and_listed_with_and_without_the_commands_name() {
    let root = cases();
    let (all, good) = (root.to_str().unwrap(), root.join("good"));
    let mut reports = vec![];
    for args in [vec![all, "--json"], vec!["onnx", all, "--json"]] {
        let (code, out) = check(&args);
        assert_eq!(code, Some(1), "a case fails: {out}");
        let mut report: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert!(report["seconds"].take().as_f64().is_some_and(|s| s > 0.0), "{out}");
        reports.push(report);
    }
    assert_eq!(reports[0], reports[1]);
    let report = &reports[0];
    assert_eq!((&report["passed"], &report["unsupported"]), (&json!(1), &json!({"Frobnicate": 1})));
    let failed = report["failed"].as_array().unwrap();
    assert_eq!((failed.len(), &failed[0]["case"]), (1, &json!("bad")));
    assert!(failed[0]["cause"].as_str().unwrap().contains("element 1"), "{report}");
    let (code, out) = check(&[good.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("passed 1, failed 0, unsupported 0"), "{out}");
    assert_eq!(check(&[]).0, Some(2), "neither folders nor a command");
}
