//! `winograph export`, and models that run without a compiler.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use winograph::{DType, Tensor};

fn winograph(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_winograph"));
    command.args(args).env("WINOGRAPH_CACHE_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/kernels"));
    for variable in ["WINO", "WINO_OLD", "DEBUG", "WINOGRAPH_THREADS", "WINOGRAPH_CACHE", "WINOGRAPH_VECTOR_BYTES"] {
        command.env_remove(variable);
    }
    command
}

/// A machine with no compiler and no kernels of earlier runs.
fn bare(args: &[&str]) -> Command {
    let mut command = winograph(args);
    command.env("PATH", "/nonexistent").env("WINOGRAPH_CC", "no-such-compiler").env("WINOGRAPH_CACHE", "0");
    command
}

fn done(command: &mut Command, code: i32) -> String {
    let Output { status, stdout, stderr } = command.output().expect("the command starts");
    let (out, err) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert_eq!(status.code(), Some(code), "{command:?}\n{out}\n{err}");
    if code == 0 { out } else { err }
}

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 128);
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

/// `y = Relu(x) * w` of f32[n, 2] in ONNX's protobuf, w = [10, 20].
fn onnx() -> Vec<u8> {
    onnx_of(1, &[10f32.to_le_bytes(), 20f32.to_le_bytes()].concat())
}

/// The same of one of ONNX's dtypes, with the bytes of `w`.
fn onnx_of(dtype: u8, raw: &[u8]) -> Vec<u8> {
    let axes = [field(1, &field(2, b"n")), field(1, &[1 << 3, 2])].concat();
    let tensor = field(1, &[vec![1 << 3, dtype], field(2, &axes)].concat());
    let port = |name: &[u8]| [field(1, name), field(2, &tensor)].concat();
    let node = |inputs: &[&[u8]], output: &[u8], op: &[u8]| {
        let inputs: Vec<u8> = inputs.iter().flat_map(|i| field(1, i)).collect();
        field(1, &[inputs, field(2, output), field(4, op)].concat())
    };
    let weight = [vec![1 << 3, 2, 2 << 3, dtype], field(8, b"w"), field(9, raw)].concat();
    let nodes = [node(&[b"x"], b"t", b"Relu"), node(&[b"t", b"w"], b"y", b"Mul")].concat();
    let graph = [nodes, field(2, b"g"), field(5, &weight), field(11, &port(b"x")), field(12, &port(b"y"))].concat();
    assert!(graph.len() < 256);
    let length = [(graph.len() & 127) as u8 | 128, (graph.len() >> 7) as u8];
    let graph = [&[7 << 3 | 2][..], &length, &graph].concat();
    [vec![1 << 3, 8], graph, field(8, &[2 << 3, 13])].concat()
}

fn folder(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("m.onnx"), onnx()).unwrap();
    dir
}

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

#[test]
fn an_exported_model_runs_without_a_compiler() {
    let dir = folder("export-runs");
    let (model, file) = (path(&dir, "m.onnx"), path(&dir, "m.wg"));
    let out = done(&mut winograph(&["export", &model, "--shape", "x=3,2", "-o", &file]), 0);
    assert!(out.contains("input x f32[3,2]\noutput y f32[3,2]\n"), "{out}");
    assert!(out.contains(&format!("runs on {} {}", std::env::consts::ARCH, std::env::consts::OS)), "{out}");
    let json = done(&mut winograph(&["export", &model, "--shape", "x=3,2", "--vector-bytes", "16", "--json"]), 0);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (json["machine"]["cpu"]["vector_bytes"].as_u64(), json["file"].as_str()),
        (Some(16), Some(file.as_str()))
    );
    let x = Tensor::from_slice(&[1f32, -2.0, 3.0, 4.0, -5.0, 6.0], &[3, 2]).unwrap();
    x.save_npy(dir.join("x.npy")).unwrap();
    let (input, output) = (format!("x={}", path(&dir, "x.npy")), format!("y={}", path(&dir, "y.npy")));
    done(&mut bare(&["bench", "model", &file, "--input", &input, "--runs", "1"]), 0);
    done(&mut bare(&["run", &file, "--input", &input, "--output", &output]), 0);
    // A profile has a row for each launch, as the model's has.
    let rows = |command: &mut Command| -> Vec<(String, String, String)> {
        let report: serde_json::Value = serde_json::from_str(&done(command, 0)).unwrap();
        let rows = report["kernels"].as_array().unwrap().iter();
        let text = |row: &serde_json::Value, key: &str| row[key].to_string();
        rows.map(|row| (text(row, "name"), text(row, "nodes"), text(row, "bytes"))).collect()
    };
    let flags = ["--input", &input, "--runs", "1", "--profile", "--json"];
    let exported = rows(&mut bare(&[&["run", &file][..], &flags].concat()));
    assert!(!exported.is_empty(), "a profile without rows");
    assert_eq!(exported, rows(&mut winograph(&[&["run", &model][..], &flags].concat())));
    // What it is without running it.
    let told = done(&mut bare(&["inspect", &file]), 0);
    for part in ["input x: f32[3,2]", "operators: Mul 1, Relu 1", "parameters: 2", "runs on ", "1 launch\n"] {
        assert!(told.contains(part), "{told}");
    }
    let told: serde_json::Value = serde_json::from_str(&done(&mut bare(&["inspect", &file, "--json"]), 0)).unwrap();
    assert_eq!(told["compiled"]["machine"], json["machine"]);
    let e = done(&mut bare(&["explain", "model", &file]), 1);
    assert!(e.contains("winograph inspect"), "{e}");
    let y = Tensor::load_npy(dir.join("y.npy")).unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap(), [10.0, 0.0, 30.0, 80.0, 0.0, 120.0]);
    assert_eq!((y.dtype(), y.shape()), (DType::F32, &[3, 2][..]));
    // The model itself needs one.
    let e = done(&mut bare(&["bench", "model", &model, "--input", &input]), 1);
    assert!(e.contains("no C compiler found (tried no-such-compiler)"), "{e}");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 4, "the model, the exported one, x and y, and nothing else");
}

/// Nothing is compiled to make numbers either.
#[test]
fn an_exported_model_takes_random_integers_without_a_compiler() {
    let dir = folder("export-integers");
    let (model, file) = (path(&dir, "i.onnx"), path(&dir, "i.wg"));
    std::fs::write(&model, onnx_of(7, &[10i64.to_le_bytes(), 20i64.to_le_bytes()].concat())).unwrap();
    done(&mut winograph(&["export", &model, "--shape", "x=3,2", "-o", &file]), 0);
    let out = done(&mut bare(&["run", &file, "--input", "x=random"]), 0);
    assert!(out.contains("input x: i64[3,2], from 0.0") && out.contains("output y: i64[3,2]"), "{out}");
}

#[test]
fn what_cannot_be_exported_or_run_is_told() {
    let dir = folder("export-refuses");
    let (model, file) = (path(&dir, "m.onnx"), path(&dir, "m.wg"));
    let e = done(&mut winograph(&["export", &model]), 2);
    assert!(e.contains("give --shape x=SIZES"), "{e}");
    let e = done(&mut winograph(&["export", &model, "--shape", "z=1"]), 2);
    assert!(e.contains("no such input, but x"), "{e}");
    let e = done(&mut winograph(&["export", &model, "--shape", "x=1,two"]), 2);
    assert!(e.contains("x=1,3,224,224"), "{e}");
    let e = done(&mut winograph(&["export", &model, "--shape", "x=1,3"]), 1);
    assert!(e.contains("f32[1,3]") && e.contains("f32[?,2]"), "{e}");
    let e = done(&mut winograph(&["export", &model, "--shape", "x=1,2", "-o", "m.onnx"]), 2);
    assert!(e.contains("ends in .wg"), "{e}");
    let e = done(&mut bare(&["export", &model, "--shape", "x=1,2", "-o", &file]), 1);
    assert!(e.contains("no C compiler found"), "{e}");
    assert!(!Path::new(&file).exists(), "nothing is written before all is compiled");
    done(&mut winograph(&["export", &model, "--shape", "x=1,2", "-o", &file]), 0);
    let e = done(&mut winograph(&["export", &file, "-o", &path(&dir, "n.wg")]), 1);
    assert!(e.contains("copy that file"), "{e}");
    Tensor::zeros(&[3, 2], DType::F32).unwrap().save_npy(dir.join("x.npy")).unwrap();
    let input = format!("x={}", path(&dir, "x.npy"));
    let e = done(&mut bare(&["bench", "model", &file, "--input", &input]), 1);
    assert!(e.contains("f32[3,2]") && e.contains("f32[1,2]"), "{e}");
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let e = done(&mut bare(&["bench", "model", &file, "--input", &input]), 1);
    assert!(e.contains("m.wg: it is damaged"), "{e}");
    std::fs::write(&file, &bytes[..last]).unwrap();
    let e = done(&mut bare(&["bench", "model", &file, "--input", &input]), 1);
    assert!(e.contains("m.wg: it is truncated"), "{e}");
}
