//! `winograph run` as a user runs it, on models of ncnn that are written here.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder of its own for each test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("run-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_string()
    }

    /// A model of layers and the bytes of their weights.
    fn model(&self, lines: &[&str], weights: &[f32]) -> String {
        let blobs: usize = lines.iter().map(|l| l.split_whitespace().nth(3).unwrap().parse::<usize>().unwrap()).sum();
        let text = format!("7767517\n{} {blobs}\n{}\n", lines.len(), lines.join("\n"));
        std::fs::write(self.file("m.param"), text).unwrap();
        let bytes: Vec<u8> = weights.iter().flat_map(|v| v.to_le_bytes()).collect();
        std::fs::write(self.file("m.bin"), bytes).unwrap();
        self.file("m.param")
    }

    fn png(&self, name: &str, width: u32, height: u32, pixel: impl Fn(u32, u32) -> [u8; 3]) -> String {
        let at = |i: u32| pixel(i % width, i / width);
        let data: Vec<u8> = (0..width * height).flat_map(at).collect();
        let mut encoder = png::Encoder::new(std::fs::File::create(self.file(name)).unwrap(), width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header().unwrap().write_image_data(&data).unwrap();
        self.file(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn pixels(path: &str) -> (u32, u32, Vec<u8>) {
    let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut out = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut out).unwrap();
    out.truncate(info.buffer_size());
    (info.width, info.height, out)
}

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_winograph"));
    command.arg("run").args(args).env("WINOGRAPH_CACHE_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/kernels"));
    for variable in ["WINO", "WINO_OLD", "DEBUG", "WINOGRAPH_THREADS", "WINOGRAPH_CACHE"] {
        command.env_remove(variable);
    }
    command.output().expect("the command starts")
}

fn succeeds(args: &[&str]) -> String {
    let out = run(args);
    assert_eq!(out.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn fails(code: i32, args: &[&str]) -> String {
    let out = run(args);
    assert_eq!(out.status.code(), Some(code), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    assert!(out.stdout.is_empty(), "{args:?}");
    String::from_utf8(out.stderr).unwrap()
}

/// Red and blue change places, and the picture gets twice as large.
const SWAP: [&str; 3] =
    ["Input i 0 1 data", "Convolution c 1 1 data y 0=3 1=1 6=9", "Interp r 1 1 y output 0=1 1=2.0 2=2.0"];
const SWAP_WEIGHTS: [f32; 10] = [0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0];

#[cfg(unix)]
#[test]
fn inputs_that_are_pipes_or_devices_are_refused_by_name() {
    let f = Folder::new("pipes");
    let model = f.model(&SWAP, &SWAP_WEIGHTS);
    let pipe = f.file("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (target, name) in [(&pipe[..], "a.png"), (&pipe, "a.npy"), ("/dev/zero", "b.jpg"), ("/dev/zero", "b.npy")] {
        let link = f.file(name);
        std::os::unix::fs::symlink(target, &link).unwrap();
        let told = fails(1, &[&model, "--input", &format!("data={link}")]);
        assert!(told.contains(&link) && told.contains("no regular file"), "{told}");
    }
}

#[test]
fn a_picture_becomes_a_picture() {
    let f = Folder::new("picture");
    let model = f.model(&SWAP, &SWAP_WEIGHTS);
    let pixel = |x: u32, y: u32| [10 * x as u8, 20 * y as u8, 255 - x as u8];
    let photo = f.png("photo.png", 5, 4, pixel);
    let out = f.file("big.png");
    let text =
        succeeds(&[&model, "--input", &format!("data={photo}"), "--output", &format!("output={out}"), "--runs", "2"]);
    assert!(text.contains("output output: f32[3,8,10]") && text.contains("2 more"), "{text}");
    let (w, h, got) = pixels(&out);
    assert_eq!((w, h), (10, 8));
    for (i, p) in got.chunks_exact(3).enumerate() {
        let [r, g, b] = pixel(i as u32 % 10 / 2, i as u32 / 10 / 2);
        assert_eq!(p, [b, g, r], "pixel {i}");
    }
    let names: Vec<_> = std::fs::read_dir(&f.0).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 4, "no temporary file is left: {names:?}");
    // The same through other ranges of numbers, and scaled to a shape that is asked for.
    let again = f.file("again.png");
    let (input, output) = (format!("data={photo}"), format!("output={again}"));
    succeeds(&[
        &model,
        "--input",
        &input,
        "--output",
        &output,
        "--mean",
        "128",
        "--scale",
        "0.0078125",
        "--channels",
        "bgr",
    ]);
    let (_, _, shifted) = pixels(&again);
    assert!(got.iter().zip(&shifted).all(|(a, b)| a.abs_diff(*b) <= 1));
    let small = succeeds(&[&model, "--input", &input, "--shape", "data=3,2,6"]);
    assert!(small.contains("output output: f32[3,4,12]"), "{small}");
}

#[test]
fn json_has_shapes_times_and_kernels() {
    let f = Folder::new("json");
    let model = f.model(&SWAP, &SWAP_WEIGHTS);
    let npy = f.file("y.npy");
    let text = succeeds(&[
        &model,
        "--input",
        "data=random",
        "--shape",
        "data=3,6,7",
        "--output",
        &format!("output={npy}"),
        "--profile",
        "--json",
        "--threads",
        "1",
    ]);
    let v: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(v["inputs"][0]["shape"], serde_json::json!([3, 6, 7]));
    assert_eq!(
        (&v["outputs"][0]["name"], &v["outputs"][0]["file"]),
        (&Value::from("output"), &Value::from(npy.as_str()))
    );
    let kernels = v["kernels"].as_array().unwrap();
    let shares: f64 = kernels.iter().map(|k| k["share"].as_f64().unwrap()).sum();
    assert!(!kernels.is_empty() && (shares - 1.0).abs() < 1e-9);
    // Every layer that computes is told by the kernel that computes it.
    let layers: Vec<&str> = SWAP.iter().map(|l| l.split_whitespace().nth(1).unwrap()).collect();
    let names = kernels.iter().flat_map(|k| k["nodes"].as_array().unwrap()).map(|n| n.as_str().unwrap());
    let names: std::collections::BTreeSet<&str> = names.collect();
    assert!(!names.is_empty() && names.iter().all(|n| layers.contains(n)), "{names:?} of {layers:?}");
    let y = winograph::Tensor::load_npy(&npy).unwrap();
    assert_eq!(y.shape(), [3, 12, 14]);
}

#[test]
fn wrong_calls_say_what_is_wrong() {
    let f = Folder::new("wrong");
    let model = f.model(&SWAP, &SWAP_WEIGHTS);
    let photo = f.png("p.png", 4, 4, |_, _| [0; 3]);
    let given = format!("data={photo}");
    let npy = f.file("x.npy");
    winograph::Tensor::zeros(&[2, 4, 4], winograph::DType::F32).unwrap().save_npy(&npy).unwrap();
    let wrong_shape = format!("data={npy}");
    let within_a_file = format!("output={npy}/y.npy");
    for (args, code, parts) in [
        (vec![model.as_str()], 1, vec!["\"data\"", "got nothing", "f32[3,?,?]"]),
        (vec![&model, "--input", &wrong_shape], 1, vec!["\"data\"", "f32[2,4,4]", "f32[3,?,?]"]),
        (vec![&model, "--input", "data=random"], 2, vec!["[3,?,?]", "--shape data="]),
        (vec![&model, "--input", "dat=random"], 2, vec!["no such name, but data"]),
        (vec![&model, "--input", "data"], 2, vec!["NAME=VALUE"]),
        (vec![&model, "--input", "data=x.gif"], 2, vec![".npy, .png, .jpg"]),
        (vec![&model, "--input", "data=none.png"], 1, vec!["none.png", "No such file"]),
        (vec![&model, "--input", &given, "--output", "z=a.png"], 2, vec!["no such name, but output"]),
        (vec![&model, "--input", &given, "--output", "output=a.txt"], 2, vec![".npy or .png"]),
        // Before it runs: nothing is compiled for a device.
        (
            vec![&model, "--input", &given, "--output", "output=/none/a.png"],
            1,
            vec!["cannot write /none/a.png", "folder"],
        ),
        (vec![&model, "--input", &given, "--output", &within_a_file], 1, vec!["cannot write", "folder"]),
        (vec![&model, "--input", &given, "--mean", "1,2"], 2, vec!["--mean '1,2'"]),
        (vec![&model, "--input", &given, "--shape", "data=5,4,4"], 2, vec!["1 or 3 channels"]),
        (vec![&model, "--input", &given, "--tolerance", "-1"], 2, vec!["--tolerance"]),
        (vec!["none.param", "--input", &given], 1, vec!["none.param"]),
        (vec![&photo, "--input", &given], 1, vec!["not an ONNX file"]),
    ] {
        let e = fails(code, &args);
        assert!(parts.iter().all(|p| e.contains(p)), "{args:?}: {e}");
    }
}

#[test]
fn tiles_give_what_the_whole_picture_gives() {
    let f = Folder::new("tiles");
    // Two convolutions with padding, pixels shuffled, a picture made larger and smaller again.
    let lines = [
        "Input i 0 1 data",
        "Split s 1 2 data a b",
        "Convolution c 1 1 a x 0=8 1=3 4=1 6=216 9=2 -23310=1,0.2",
        "Convolution d 1 1 x y 0=12 1=3 4=1 6=864",
        "PixelShuffle p 1 1 y z 0=2",
        "Interp r 1 1 b t 0=2 1=2.0 2=2.0",
        "BinaryOp e 2 1 z t u 0=0",
        "Interp q 1 1 u v 0=3 1=0.5 2=0.5",
        "Deconvolution g 1 1 v output 0=3 1=4 3=2 4=1 6=144",
    ];
    let mut weights = vec![];
    for count in [216, 864, 144] {
        weights.push(0.0);
        weights.extend((0..count).map(|i| ((i * 37 % 61) as f32 - 30.0) / 300.0));
    }
    let model = f.model(&lines, &weights);
    let photo = f.png("p.png", 75, 58, |x, y| [(x * y % 256) as u8, (7 * x + y) as u8, (x ^ y) as u8]);
    let (input, whole) = (format!("data={photo}"), f.file("whole.npy"));
    succeeds(&[&model, "--input", &input, "--output", &format!("output={whole}")]);
    let whole = winograph::Tensor::load_npy(whole).unwrap();
    assert_eq!(whole.shape(), [3, 116, 150]);
    let want = whole.to_vec::<f32>().unwrap();
    for tile in ["32", "33", "70", "200"] {
        let out = f.file("tiles.npy");
        let text = succeeds(&[&model, "--input", &input, "--output", &format!("output={out}"), "--tile-size", tile]);
        assert!(text.contains(" tile"), "{text}");
        let got = winograph::Tensor::load_npy(out).unwrap();
        assert_eq!(got.shape(), whole.shape());
        for (i, (g, w)) in got.to_vec::<f32>().unwrap().iter().zip(&want).enumerate() {
            assert!((g - w).abs() <= 2e-5, "tiles of {tile}, element {i}: {g} for {w}");
        }
    }
    let e = fails(1, &[&model, "--input", &input, "--tile-size", "6"]);
    let least = e.split("take tiles of at least ").nth(1).and_then(|n| n.split(',').next()?.parse::<usize>().ok());
    let least = least.unwrap_or_else(|| panic!("{e}"));
    let (enough, less) = (least.to_string(), (least - 1).to_string());
    let e = fails(1, &[&model, "--input", &input, "--tile-size", &less]);
    assert!(e.contains(&format!("take tiles of at least {least}")), "{e}");
    let out = f.file("least.npy");
    succeeds(&[&model, "--input", &input, "--output", &format!("output={out}"), "--tile-size", &enough]);
    let got = winograph::Tensor::load_npy(out).unwrap().to_vec::<f32>().unwrap();
    assert!(got.iter().zip(&want).all(|(g, w)| (g - w).abs() <= 2e-5), "tiles of {least}");
    // What looks at the whole picture has no tiles.
    let model = f.model(
        &["Input i 0 1 data", "Split s 1 2 data a b", "Pooling p 1 1 a m 0=1 4=1", "BinaryOp e 2 1 b m output 0=0"],
        &[],
    );
    let e = fails(1, &[&model, "--input", &input, "--tile-size", "32"]);
    assert!(e.contains("as a whole"), "{e}");
}

#[test]
fn models_of_fixed_size_run_large_pictures_in_tiles_of_that_size() {
    let f = Folder::new("fixed-tiles");
    let lines = |size: &str| {
        [
            format!("Input i 0 1 data{size}"),
            "Convolution c 1 1 data x 0=8 1=3 4=1 6=216 9=2 -23310=1,0.2".to_string(),
            "Convolution d 1 1 x y 0=12 1=3 4=1 6=864".to_string(),
            "PixelShuffle p 1 1 y output 0=2".to_string(),
        ]
    };
    let weights: Vec<f32> = [216, 864]
        .into_iter()
        .flat_map(|count| [0.0].into_iter().chain((0..count).map(|i| ((i * 37 % 61) as f32 - 30.0) / 300.0)))
        .collect();
    let photo = f.png("p.png", 75, 58, |x, y| [(x * y % 256) as u8, (7 * x + y) as u8, (x ^ y) as u8]);
    let input = format!("data={photo}");
    let run = |model: &str, name: &str, more: &[&str]| {
        let out = f.file(name);
        let text = succeeds(&[&[model, "--input", &input, "--output", &format!("output={out}")][..], more].concat());
        (text, winograph::Tensor::load_npy(out).unwrap())
    };
    let all: Vec<String> = lines("").into();
    let model = f.model(&all.iter().map(String::as_str).collect::<Vec<_>>(), &weights);
    let (text, whole) = run(&model, "whole.npy", &[]);
    assert!(whole.shape() == [3, 116, 150] && !text.contains("scaled from"), "{text}");
    let want = whole.to_vec::<f32>().unwrap();
    let equal = |t: &winograph::Tensor| {
        assert_eq!(t.shape(), whole.shape());
        let got = t.to_vec::<f32>().unwrap();
        assert!(got.iter().zip(&want).all(|(g, w)| (g - w).abs() <= 2e-5));
    };
    // Of 24 rows and 32 columns.
    let fixed: Vec<String> = lines(" 0=32 1=24 2=3").into();
    let model = f.model(&fixed.iter().map(String::as_str).collect::<Vec<_>>(), &weights);
    let (text, small) = run(&model, "small.npy", &[]);
    assert!(small.shape() == [3, 48, 64] && text.contains(", scaled from 75 x 58 pixels"), "{text}");
    let (text, tiled) = run(&model, "tiled.npy", &["--tile-size", "32"]);
    assert!(text.contains(" tiles") && !text.contains("scaled from"), "{text}");
    equal(&tiled);
    let e = fails(1, &[&model, "--input", &input, "--tile-size", "31"]);
    assert!(e.contains("the model takes pictures of one size alone: ask for 32"), "{e}");
    let tiny = format!("data={}", f.png("tiny.png", 40, 20, |x, y| [x as u8, y as u8, 0]));
    let e = fails(1, &[&model, "--input", &tiny, "--tile-size", "32"]);
    assert!(e.contains("a picture of 20 rows and 40 columns, where the model takes 24 and 32"), "{e}");
    // Exported.
    let exported = f.file("m.wg");
    let export = |model: &str, to: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_winograph"));
        command.args(["export", model, "--output", to]);
        command.env("WINOGRAPH_CACHE_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/kernels")).env_remove("WINO");
        assert!(command.output().unwrap().status.success(), "{model}");
    };
    export(&model, &exported);
    // Where there is no compiler, and nothing is kept of what was compiled before.
    let out = f.file("exported.npy");
    let mut bare = Command::new(env!("CARGO_BIN_EXE_winograph"));
    bare.args(["run", &exported, "--input", &input, "--output", &format!("output={out}"), "--tile-size", "40"]);
    bare.env("PATH", "/nonexistent").env("WINOGRAPH_CC", "no-such-compiler").env("WINOGRAPH_CACHE", "0");
    let done = bare.env_remove("WINO").output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    equal(&winograph::Tensor::load_npy(out).unwrap());
    // What looks at the whole picture cannot be told of tiles.
    let model = f.model(
        &[
            "Input i 0 1 data 0=32 1=24 2=3",
            "Split s 1 2 data a b",
            "Pooling p 1 1 a m 0=1 4=1",
            "BinaryOp e 2 1 b m output 0=0",
        ],
        &[],
    );
    export(&model, &exported);
    let e = fails(1, &[&exported, "--input", &input, "--tile-size", "32"]);
    assert!(e.contains("does not say how its results depend on a picture"), "{e}");
}

#[test]
fn a_size_that_a_model_cannot_take_is_told_with_one_that_it_can() {
    let f = Folder::new("sizes");
    // Halved and doubled again: sizes that are not even come back larger.
    let lines = [
        "Input i 0 1 data",
        "Split s 1 2 data a b",
        "Convolution c 1 1 a x 0=3 1=3 3=2 4=1 6=81",
        "Interp r 1 1 x y 0=1 1=2.0 2=2.0",
        "BinaryOp e 2 1 b y output 0=0",
    ];
    let model = f.model(&lines, &[0.0; 82]);
    let input = format!("data={}", f.png("p.png", 21, 16, |x, y| [x as u8, y as u8, 0]));
    let e = fails(1, &[&model, "--input", &input]);
    let hint = "--shape data=3,16,22";
    assert!(e.contains(&format!("scale it by {hint}")), "{e}");
    let text = succeeds(&[&model, "--input", &input, "--shape", "data=3,16,22"]);
    assert!(text.contains("f32[3,16,22]") && text.contains("scaled from 21 x 16 pixels"), "{text}");
}

#[test]
fn inspect_counts_what_is_summed() {
    let f = Folder::new("inspect");
    // A maximum over windows sums no products.
    let lines = [
        "Input i 0 1 data",
        "Convolution c 1 1 data x 0=16 1=3 4=1 6=432",
        "Convolution d 1 1 x y 0=4 1=1 6=64",
        "Pooling p 1 1 y z 0=0 1=3 2=1 3=1",
    ];
    let model = f.model(&lines, &[0.0; 498]);
    let inspect = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_winograph"));
        let out = command.arg("inspect").arg(&model).args(args).env_remove("WINO").output().unwrap();
        assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let text = inspect(&[]);
    for part in
        ["input data: f32[3,?,?]", "operators: Convolution 2, Pooling 1", "parameters: 496", "--shape data=SIZES"]
    {
        assert!(text.contains(part), "{text}");
    }
    let v: Value = serde_json::from_str(&inspect(&["--shape", "data=3,32,24", "--json"])).unwrap();
    let (first, second) = (2.0 * 16.0 * 32.0 * 24.0 * 27.0, 2.0 * 4.0 * 32.0 * 24.0 * 16.0);
    assert_eq!(v["sums"]["flops"].as_f64(), Some(first + second));
    assert_eq!(v["sums"]["eligible"].as_u64(), Some(1));
    let list = v["sums"]["list"].as_array().unwrap();
    let flops: Vec<f64> = list.iter().map(|s| s["flops"].as_f64().unwrap()).collect();
    assert_eq!(flops, [first, second]);
}

#[test]
fn explain_model_tells_of_each_launch_what_it_serves_and_why() {
    let f = Folder::new("explain_model");
    let lines = [
        "Input i 0 1 data",
        "Convolution wide 1 1 data x 0=16 1=3 4=1 6=432 9=1",
        "Convolution narrow 1 1 x y 0=4 1=1 6=64",
        "Permute turned 1 1 y z 0=5",
    ];
    let model = f.model(&lines, &[0.0; 498]);
    let explain = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_winograph"));
        command.args(["explain", "model", &model]).args(args).env("WINOGRAPH_CACHE", "0").env_remove("WINO");
        command.output().unwrap()
    };
    let done = |args: &[&str]| {
        let out = explain(args);
        assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let open = explain(&[]);
    assert_ne!(open.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&open.stderr).contains("--shape data=SIZES"));
    let sized = ["--shape", "data=3,32,24"];
    let v: Value = serde_json::from_str(&done(&[&sized[..], &["--json"]].concat())).unwrap();
    let steps = v["steps"].as_array().unwrap();
    let count = |field: &str| v[field].as_u64().unwrap() as usize;
    assert_eq!(steps.len(), count("launches") + count("prepare_launches"));
    let serves = |s: &Value, node: &str| s["nodes"].as_array().unwrap().iter().any(|n| n == node);
    let run: Vec<&Value> = steps.iter().filter(|s| s["prepare"] == false).collect();
    let of = |node: &str| run.iter().copied().filter(|s| serves(s, node)).collect::<Vec<_>>();
    for node in ["wide", "narrow"] {
        let sums: Vec<&Value> = of(node).into_iter().filter(|s| !s["algorithm"].is_null()).collect();
        assert!(!sums.is_empty(), "{v}");
        for s in sums {
            assert!(s["sums"].as_array().unwrap().iter().all(|w| !w["reason"].as_str().unwrap().is_empty()), "{s}");
            assert!(
                s["nests"].as_array().unwrap().iter().all(|n| n["plan"].as_str().unwrap().contains("order=")),
                "{s}"
            );
        }
    }
    let buffers = run.iter().flat_map(|s| s["buffers"].as_array().unwrap());
    assert!(buffers.filter(|b| b["origin"] == "internal").all(|b| b["layout"].as_str().unwrap().contains("i0")));
    let copies: Vec<&&Value> = run.iter().filter(|s| s["copy"] == true).collect();
    assert_eq!(copies.len(), count("copies"));
    let bytes: u64 = copies.iter().map(|s| s["bytes_written"].as_u64().unwrap()).sum();
    assert_eq!(bytes as usize, count("copied_bytes"));
    assert!(copies.iter().all(|s| s["algorithm"].is_null()), "what sums products is no copy");
    // Turning axes is a copy of its own where nothing else can read or write them turned; here the sum before it does, or it is.
    assert!(!of("turned").is_empty(), "{v}");
    let text = done(&[&sized[..], &["--only", "narrow"]].concat());
    assert!(text.contains("narrow") && text.contains("copies that are left") && text.contains("plan "), "{text}");
    let other: Value = serde_json::from_str(&done(&[&sized[..], &["--only", "nothing", "--json"]].concat())).unwrap();
    assert_eq!(other["steps"].as_array().unwrap().len(), 0);
    assert_eq!(other["copies"], v["copies"], "the whole model's");
    let gpu: Value =
        serde_json::from_str(&done(&[&sized[..], &["--target", "cuda:sm_90", "--json"]].concat())).unwrap();
    assert!(gpu["steps"][0]["block"].as_array().is_some_and(|b| !b.is_empty()), "threads of a GPU");
}

/// Starts the command, interrupts it after a while as Ctrl-C does, and tells whether that ended it. Where this process was
/// started in the background its children may ignore Ctrl-C; they are then told to end.
fn interrupted(args: &[&str], after: std::time::Duration) -> bool {
    let mut command = Command::new(env!("CARGO_BIN_EXE_winograph"));
    command.args(args).env("WINOGRAPH_CACHE_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/kernels"));
    command.env_remove("WINO").stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = command.spawn().expect("the command starts");
    std::thread::sleep(after);
    let signals = format!("kill -INT {0} 2> /dev/null; kill -TERM {0} 2> /dev/null", child.id());
    let kill = Command::new("sh").args(["-c", &signals]).status();
    assert!(kill.is_ok());
    child.wait().unwrap().code().is_none()
}

#[test]
fn an_interrupted_command_leaves_the_file_that_was_there_or_a_whole_one() {
    let f = Folder::new("interrupted");
    let model = f.model(&SWAP, &SWAP_WEIGHTS);
    // 12 MB of results, so that writing them takes a while.
    let (shape, file, exported) = ("data=3,512,512", f.file("big.npy"), f.file("m.wg"));
    let output = format!("output={file}");
    let run = ["run", &model, "--input", "data=random", "--shape", shape, "--output", &output];
    let export = ["export", &model, "--shape", shape, "--output", &exported];
    let whole_npy = |path: &str| winograph::Tensor::load_npy(path).is_ok_and(|t| t.shape() == [3, 1024, 1024]);
    let whole_wg = |path: &str| winograph::model::Model::load(path).is_ok();
    let check = |args: &[&str], path: &str, whole: &dyn Fn(&str) -> bool| {
        let start = std::time::Instant::now();
        // With its kernels compiled, and as long as it takes.
        for _ in 0..2 {
            let mut command = Command::new(env!("CARGO_BIN_EXE_winograph"));
            command.args(args).env("WINOGRAPH_CACHE_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/kernels"));
            assert!(command.env_remove("WINO").output().unwrap().status.success(), "{args:?}");
        }
        let time = start.elapsed() / 2;
        assert!(whole(path));
        let mut ended = 0;
        for step in 0..8 {
            std::fs::write(path, "before").unwrap();
            ended += interrupted(args, time * step / 8) as usize;
            assert!(std::fs::read(path).unwrap() == b"before" || whole(path), "{args:?}, {step}");
            let mut names: Vec<_> = std::fs::read_dir(&f.0).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.retain(|n| ["m.param", "m.bin", "big.npy", "m.wg"].iter().all(|known| n != known));
            assert!(names.is_empty(), "{args:?}, {step}: {names:?}");
        }
        assert!(ended > 0, "{args:?} was never interrupted");
    };
    check(&run, &file, &whole_npy);
    check(&export, &exported, &whole_wg);
}
