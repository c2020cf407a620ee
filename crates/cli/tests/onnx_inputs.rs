//! What `winograph run` and `inspect` say of the inputs of ONNX models, and `check` of folders: models are written here.

use std::path::{Path, PathBuf};
use std::process::Command;
use winograph::Tensor;

/// A folder of its own for each test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("inputs-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_string()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.0.join(name), bytes).unwrap();
        self.file(name)
    }

    fn array(&self, name: &str, values: &[f32]) -> String {
        let path = self.file(name);
        Tensor::from_slice(values, &[values.len()]).unwrap().save_npy(&path).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A field of protobuf that holds bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 1 << 14);
    let (low, high) = (bytes.len() as u8 & 0x7f, (bytes.len() >> 7) as u8);
    let size = if high == 0 { vec![low] } else { vec![low | 0x80, high] };
    [vec![number << 3 | 2], size, bytes.to_vec()].concat()
}

/// A value of two elements.
fn port(name: &str, dtype: u8) -> Vec<u8> {
    let tensor = field(1, &[vec![1 << 3, dtype], field(2, &field(1, &[1 << 3, 2]))].concat());
    [field(1, name.as_bytes()), field(2, &tensor)].concat()
}

fn constant(name: &str, values: [f32; 2]) -> Vec<u8> {
    let raw = values.map(f32::to_le_bytes).concat();
    [vec![1 << 3, 2, 2 << 3, 1], field(8, name.as_bytes()), field(9, &raw)].concat()
}

/// One node of inputs and constants that are listed as inputs.
fn model(op: &str, inputs: &[(&str, u8)], constants: &[(&str, [f32; 2])], output: &str) -> Vec<u8> {
    let names = inputs.iter().map(|i| i.0).chain(constants.iter().map(|c| c.0));
    let node: Vec<u8> = names.flat_map(|n| field(1, n.as_bytes())).collect();
    let node = [node, field(2, output.as_bytes()), field(4, op.as_bytes())].concat();
    let mut graph = [field(1, &node), field(2, b"g")].concat();
    constants.iter().for_each(|(n, v)| graph.extend([field(5, &constant(n, *v)), field(11, &port(n, 1))].concat()));
    inputs.iter().for_each(|(n, dtype)| graph.extend(field(11, &port(n, *dtype))));
    graph.extend(field(12, &port(output, 1)));
    [vec![1 << 3, 8], field(7, &graph), field(8, &[2 << 3, 17])].concat()
}

/// Exit status, and what is said.
fn winograph(args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_winograph"));
    command.args(args).env("WINOGRAPH_CACHE_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/kernels"));
    let out = command.output().expect("the command starts");
    (out.status.code(), format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
}

fn values(path: &str) -> Vec<f32> {
    Tensor::load_npy(path).unwrap().to_vec::<f32>().unwrap()
}

#[test]
fn inputs_with_a_default_are_listed_and_may_be_given() {
    let f = Folder::new("defaults");
    let file = f.write("m.onnx", &model("Mul", &[("x", 1)], &[("w", [3.0, 4.0])], "y"));
    let (code, text) = winograph(&["inspect", &file]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("input x: f32[2]\ninput w: f32[2], which need not be given\noutput y"), "{text}");
    let (_, json) = winograph(&["inspect", &file, "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["inputs"].as_array().unwrap().len(), &json["defaults"][0]["name"]), (1, &"w".into()));
    let (x, w) = (f.array("x.npy", &[1.0, 2.0]), f.array("w.npy", &[5.0, 6.0]));
    let out = f.file("y.npy");
    let (x, w, y) = (format!("x={x}"), format!("w={w}"), format!("y={out}"));
    for (args, want) in [(vec![], [3.0, 8.0]), (vec!["--input", &w], [5.0, 12.0])] {
        let (code, text) = winograph(&[&["run", &file, "--input", &x, "--output", &y][..], &args].concat());
        assert_eq!((code, values(&out)), (Some(0), want.to_vec()), "{text}");
    }
    // A file of code takes it where its shape was asked for.
    for (shapes, taken) in [(vec![], false), (vec!["--shape", "w=2"], true)] {
        let code = f.file("m.wg");
        let exported = winograph(&[&["export", &file, "--output", &code][..], &shapes].concat());
        assert_eq!((exported.0, exported.1.contains("input w")), (Some(0), taken), "{}", exported.1);
        let (ran, text) = winograph(&["run", &code, "--input", &x, "--input", &w, "--output", &y]);
        assert_eq!(ran, Some(if taken { 0 } else { 2 }), "{text}");
        assert!(!taken || values(&out) == [5.0, 12.0]);
    }
}

#[test]
fn names_with_equals_signs_are_taken() {
    let f = Folder::new("names");
    let file = f.write("m.onnx", &model("Sub", &[("a", 1), ("a=b", 1)], &[], "y=z"));
    let (a, b, out) = (f.array("a.npy", &[1.0, 2.0]), f.array("b=c.npy", &[5.0, 7.0]), f.file("y.npy"));
    let (a, b, y) = (format!("a={a}"), format!("a=b={b}"), format!("y=z={out}"));
    let (code, text) = winograph(&["run", &file, "--input", &a, "--input", &b, "--output", &y]);
    assert_eq!((code, values(&out)), (Some(0), vec![-4.0, -5.0]), "{text}");
    let (code, text) = winograph(&["run", &file, "--input", &b, "--input", &b]);
    assert_eq!((code, text.contains("a=b is there twice")), (Some(2), true), "{text}");
}

#[test]
fn inputs_that_there_is_no_dtype_for_are_told_by_theirs() {
    let f = Folder::new("dtypes");
    for (dtype, name) in [(5, "int16"), (8, "string")] {
        let file = f.write("m.onnx", &model("Identity", &[("x", dtype)], &[], "y"));
        let what = format!("a tensor of {name}, which is not supported");
        let (code, text) = winograph(&["inspect", &file]);
        assert_eq!((code, text.contains(&format!("input x: {what}"))), (Some(0), true), "{text}");
        let (code, text) = winograph(&["run", &file, "--input", "x=random"]);
        assert_eq!((code, text.contains(&what)), (Some(2), true), "{text}");
    }
}

#[test]
fn a_folder_without_test_data_is_told_with_what_is_missing() {
    let f = Folder::new("check");
    std::fs::create_dir_all(f.0.join("case")).unwrap();
    for dtype in [1, 8] {
        f.write("case/model.onnx", &model("Identity", &[("x", dtype)], &[], "y"));
        let (code, text) = winograph(&["check", &f.file("case")]);
        assert_eq!(code, Some(1), "{text}");
        assert!(
            text.contains("failed case") && text.contains("test_data_set_0 with its inputs as input_0.pb"),
            "{text}"
        );
        assert!(text.contains("failed 1, unsupported 0"), "{text}");
    }
}
