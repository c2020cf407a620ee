//! The `winograph` command as a user runs it.

use serde_json::Value;
use std::io::Read as _;
use std::process::{Command, Output, Stdio};

/// A small convolution on which Winograd applies.
const SMALL: [&str; 4] = ["--input", "1,4,8,8", "--weight", "4,4,3,3"];

/// The command in an environment of its own; compiled kernels are kept from one run of the tests to the next.
fn winograph(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_winograph"));
    command.args(args).env("WINOGRAPH_CACHE_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/kernels"));
    for variable in ["WINO", "WINO_OLD", "DEBUG", "WINOGRAPH_THREADS", "WINOGRAPH_CACHE", "WINOGRAPH_PLANS"] {
        command.env_remove(variable);
    }
    command
}

fn run(command: &mut Command) -> Output {
    command.output().expect("the command starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

/// Standard output of a run that succeeds.
fn succeeds(args: &[&str]) -> String {
    let out = run(&mut winograph(args));
    assert_eq!(out.status.code(), Some(0), "{args:?}: {}", text(&out.stderr));
    text(&out.stdout)
}

/// Standard error of a run that ends with `code` and prints nothing else.
fn fails(code: i32, command: &mut Command) -> String {
    let out = run(command);
    assert_eq!(out.status.code(), Some(code), "{command:?}: {}", text(&out.stderr));
    assert_eq!(text(&out.stdout), "", "{command:?}");
    text(&out.stderr)
}

fn json(args: &[&str]) -> Value {
    let out = succeeds(args);
    assert_eq!(out.lines().count(), 1, "one object and nothing else");
    serde_json::from_str(&out).expect("JSON")
}

fn keys(v: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = v.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn bench<'a>(args: &[&'a str]) -> Vec<&'a str> {
    ["bench", "conv", "--runs", "2", "--threads", "1", "--json"].into_iter().chain(args.iter().copied()).collect()
}

#[test]
fn json_has_every_field() {
    let v =
        json(&bench(&[&SMALL[..], &["--algo", "direct,tensor,graph,auto", "--tile", "2", "--padding", "1"]].concat()));
    assert_eq!(keys(&v), ["device", "flops", "results", "shape", "threads"]);
    assert_eq!(v["device"], "cpu");
    assert_eq!(v["threads"], 1);
    assert_eq!(v["flops"], 2 * 4 * 64 * 4 * 9);
    let shape = serde_json::json!({
        "input": [1, 4, 8, 8], "weight": [4, 4, 3, 3], "stride": [1, 1], "padding": [1, 1], "dilation": [1, 1],
        "groups": 1
    });
    assert_eq!(v["shape"], shape);
    let rows = v["results"].as_array().unwrap();
    assert_eq!(
        rows.iter().map(|r| r["algo"].as_str().unwrap()).collect::<Vec<_>>(),
        ["direct", "tensor", "graph", "auto"]
    );
    for row in rows {
        let expected = [
            "algo",
            "amplification",
            "applied",
            "bitwise_equal_to_tensor",
            "compile_ms",
            "error_bound",
            "expected_err_over_direct",
            "first_ms",
            "gflops",
            "intermediate_bytes",
            "kernels",
            "max_abs_err",
            "max_err_over_bound",
            "median_ms",
            "min_ms",
            "peak_bytes",
            "prepare_ms",
            "reason",
            "rel_l2_err",
            "scratch_bytes",
            "tile",
        ];
        assert_eq!(keys(row), expected);
        for number in
            ["compile_ms", "prepare_ms", "first_ms", "min_ms", "median_ms", "gflops", "max_abs_err", "rel_l2_err"]
        {
            assert!(row[number].as_f64().is_some_and(|x| x >= 0.0), "{number} of {row}");
        }
        assert!(row["rel_l2_err"].as_f64().unwrap() < 1e-5, "{row}");
        let number = |key: &str| row[key].as_f64().unwrap();
        assert!(number("error_bound") >= number("max_abs_err") && number("error_bound") < 1e-3, "{row}");
        assert!(number("max_err_over_bound") > 1e-4 && number("max_err_over_bound") <= 1.0, "{row}");
        assert!(number("expected_err_over_direct") > 0.2 && number("expected_err_over_direct") < 1.1, "{row}");
        // Input and output, weights, and what a thread has to itself.
        let (peak, scratch) = (row["peak_bytes"].as_u64().unwrap(), row["scratch_bytes"].as_u64().unwrap());
        assert!(peak >= 4 * (256 + 256 + 144) + scratch && peak < 1 << 20, "{row}");
        assert_eq!(row["applied"], true);
        assert!(!row["reason"].as_str().unwrap().is_empty());
        let kernels = row["kernels"].as_array().unwrap();
        assert!(!kernels.is_empty());
        for k in kernels {
            assert_eq!(keys(k), ["accesses", "block", "grid", "name", "role", "time_us"]);
            assert!(k["name"].as_str().unwrap().starts_with(['r', 'E']));
            assert!(k["time_us"].is_f64() && k["grid"].is_array());
            assert_eq!(k["block"], serde_json::json!([]));
            let accesses = k["accesses"].as_array().unwrap();
            assert!(accesses.iter().any(|a| a["kind"] == "load") && accesses.iter().any(|a| a["kind"] == "store"));
            for a in accesses {
                assert_eq!(keys(a), ["buffer", "kind", "space", "vector"]);
                assert!(
                    a["vector"].as_u64().is_some_and(|n| n >= 1) && a["space"].is_string() && a["buffer"].is_string()
                );
            }
        }
    }
    let (direct, tensor, graph) = (&rows[0], &rows[1], &rows[2]);
    assert_eq!((&direct["tile"], &direct["amplification"]), (&serde_json::json!([]), &Value::Null));
    assert_eq!(direct["kernels"][0]["role"], "direct");
    for row in [tensor, graph] {
        assert_eq!(row["tile"], serde_json::json!([2, 2]));
        assert!(row["amplification"].as_f64().unwrap() > 1.0);
    }
    assert_eq!((&tensor["bitwise_equal_to_tensor"], &graph["bitwise_equal_to_tensor"]), (&Value::Null, &true.into()));
    let roles: Vec<_> = graph["kernels"].as_array().unwrap().iter().map(|k| k["role"].as_str().unwrap()).collect();
    assert!(!roles.contains(&"direct"), "{roles:?}");
}

/// Every shape is checked against the f64 convolution.
fn accurate(args: &[&str]) -> Value {
    let v = json(&bench(args));
    for row in v["results"].as_array().unwrap() {
        assert!(row["rel_l2_err"].as_f64().is_some_and(|e| e < 1e-5), "{args:?}: {row}");
    }
    v
}

#[test]
fn one_and_three_axes_and_groups() {
    let v = accurate(&["--input", "2,3,17", "--weight", "4,3,5", "--padding", "2", "--tile", "2", "--algo", "graph"]);
    assert_eq!(v["results"][0]["tile"], serde_json::json!([2]));
    accurate(&["--input", "1,2,4,5,6", "--weight", "2,2,2,2,2", "--tile", "2,2,3", "--algo", "graph"]);
    let grouped = ["--input", "1,4,8,8", "--weight", "6,2,3,3", "--groups", "2", "--weights", "each-call"];
    let v = accurate(&[&grouped[..], &["--tile", "2", "--points", "0,1,-1", "--algo", "tensor"]].concat());
    let kernels = v["results"][0]["kernels"].as_array().unwrap();
    let roles: Vec<_> = kernels.iter().map(|k| k["role"].as_str().unwrap()).collect();
    for role in ["weight_transform", "input_transform", "multiply", "output_transform"] {
        assert!(roles.contains(&role), "{roles:?}");
    }
}

#[test]
fn forms_that_do_not_apply_say_why() {
    for algo in ["tensor,graph", "direct,graph,tensor"] {
        let v = accurate(&[&SMALL[..], &["--stride", "2", "--padding", "1,0", "--algo", algo]].concat());
        for row in v["results"].as_array().unwrap().iter().filter(|r| r["algo"] != "direct") {
            assert_eq!(row["applied"], false);
            assert!(row["reason"].as_str().unwrap().contains("stride 2"), "{row}");
            assert_eq!(row["kernels"][0]["role"], "direct", "the row holds the direct form's figures");
            assert_eq!((&row["tile"], &row["bitwise_equal_to_tensor"]), (&serde_json::json!([]), &Value::Null));
        }
    }
}

#[test]
fn sizes_of_zero() {
    let v = json(&bench(&["--input", "0,4,8,8", "--weight", "4,4,3,3"]));
    assert_eq!(v["flops"], 0);
}

#[test]
fn table() {
    let out = succeeds(&[&["bench", "conv", "--runs", "2", "--tile", "2"], &SMALL[..]].concat());
    for title in ["algorithm", "kernels", "compile ms", "prepare ms", "first ms", "min ms", "median ms", "GFLOP/s"] {
        assert!(out.contains(title), "{title}: {out}");
    }
    for word in
        ["max abs err", "rel L2 err", "main kernel", "\ndirect ", "\ntensor ", "\ngraph ", "graph: bit for bit equal"]
    {
        assert!(out.contains(word), "{word}: {out}");
    }
}

#[test]
fn seed_protocol() {
    let args = [&["bench", "conv", "--protocol", "seed", "--tile", "2", "--threads", "1"], &SMALL[..]].concat();
    let milliseconds = |line: &str, name: &str| -> f64 {
        let rest = line.strip_prefix(name).and_then(|l| l.strip_suffix("ms (min of 20 runs)"));
        rest.and_then(|n| n.trim().parse().ok()).unwrap_or_else(|| panic!("{line}"))
    };
    let out = succeeds(&args);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 3, "{out}");
    milliseconds(lines[0], "OLD: ");
    milliseconds(lines[1], "HYBRID: ");
    assert!(lines[2].contains("within 20 %"), "{out}");

    let out = run(winograph(&args).env("WINO", "0").env("DEBUG", "2"));
    assert!(text(&out.stdout).lines().last().unwrap().starts_with("WINO=0 (direct): "), "{out:?}");
    assert!(text(&out.stderr).contains("us  fused"), "DEBUG=2 shows kernels with times");
    let out = run(winograph(&args).env("DEBUG", "4"));
    assert!(text(&out.stderr).contains("typedef"), "DEBUG=4 shows their source");

    let seed = ["bench", "conv", "--protocol", "seed", "--stride", "2"];
    assert!(fails(1, &mut winograph(&seed)).contains("stride 2"));
}

#[test]
fn overhead_is_printed_for_functions_and_for_realize() {
    let args = ["bench", "overhead", "--calls", "3", "--python", "no-such-python"];
    let table = succeeds(&args);
    for part in [
        "compiled function",
        "after pause",
        "realize, structure seen before",
        "0 programs planned meanwhile",
        "no figures of tinygrad: cannot run no-such-python",
    ] {
        assert!(table.contains(part), "{part} in\n{table}");
    }
    let v = json(&[&args[..], &["--json"]].concat());
    for (list, time) in [("functions", "call_us"), ("realize", "realize_us")] {
        let rows = v[list].as_array().unwrap();
        assert!(!rows.is_empty() && rows.iter().all(|r| r[time].as_f64().unwrap() > 0.0), "{v}");
    }
    assert!(v["functions"].as_array().unwrap().iter().all(|f| f["kernels"] == 3), "{v}");
    assert!(v["bounded"]["realize_us"].as_f64().unwrap() > 0.0 && v["bounded"]["planned"] == 0, "{v}");
    assert!(v["tinygrad"].as_array().unwrap().is_empty());
}

#[test]
fn compile_times_are_printed_for_each_kind_of_graph() {
    let table = succeeds(&["bench", "compile", "--nodes", "2,5"]);
    assert_eq!(table.lines().count(), 7, "{table}");
    let v = json(&["bench", "compile", "--nodes", "4", "--json"]);
    let rows = v.as_array().unwrap();
    assert!(rows.iter().all(|r| r["nodes"] == 4 && r["ms"].as_f64().unwrap() > 0.0), "{v}");
    assert!(rows.iter().any(|r| r["graph"] == "convolutions" && r["kernels"].as_u64().unwrap() >= 4), "{v}");
}

/// What has to hold for every graph, `winograph check graphs --help` says how to try others.
#[test]
fn random_graphs_agree() {
    let text = succeeds(&["check", "graphs", "--count", "5000", "--optimize", "0"]);
    assert!(text.starts_with("5000 random graphs agree (500 with sizes that are parameters"), "{text}");
    assert!(text.contains("of which 0 have an access that cannot be proved"), "{text}");
}

#[test]
fn optimised_kernels_agree_too() {
    let text = succeeds(&["check", "graphs", "--count", "150", "--seed", "1000000", "--jobs", "1"]);
    assert!(text.starts_with("150 random graphs agree"), "{text}");
}

#[test]
fn wrong_usage() {
    let cases: [(&str, &str); 31] = [
        ("--tile 0", "tile of 0"),
        ("--tile 5", "tile of 5"),
        ("--tile 4,4,4", "3 numbers for 2 spatial axes"),
        ("--threads 0", "0 is not in 1..=4096"),
        ("--threads x", "'x'"),
        ("--runs 0", "0 is not in"),
        ("--points 0,1,1,2,-2", "the point 1 is there twice"),
        ("--points 1/2,0.5,0", "the point 1/2 is there twice"),
        ("--points x", "is not a number"),
        ("--points 1/0", "denominator of zero"),
        ("--points 0,1", "--points has 2 points"),
        ("--points 0,1 --tile 4", "F(4,3) takes 5"),
        ("--nope", "unexpected argument '--nope'"),
        (
            "--device cuda",
            "unknown device 'cuda': expected cpu, cuda:N with the number of a GPU, or virtual:TARGET with one of",
        ),
        ("--device virtual:cpu", "virtual:TARGET with one of cuda:sm_80, cuda:sm_90, metal"),
        ("--device virtual:metal --threads 2", "--threads is about the CPU"),
        ("--device virtual:metal --protocol seed", "a virtual device has none"),
        ("--algo fast", "possible values: direct, tensor, graph, auto"),
        ("--algo graph,graph", "graph is there twice"),
        ("--input 1,2", "expected 3 to 5"),
        ("--input 1,16,64", "expected as many"),
        ("--input 1,-16,64,64", "'-16' is not a whole number"),
        ("--input 1,,64,64", "'' is not a whole number"),
        ("--input 1,8,64,64", "16 input channels in 1 group(s)|a weight with 8 channels"),
        ("--input 1,16,2,2", "a window no larger than the padded input"),
        ("--input 99999999999,99999999999,9,9", "would overflow"),
        ("--groups 3", "groups that divide the 16 input"),
        ("--groups 0", "at least one group"),
        ("--stride 0", "stride [0, 0]"),
        ("--dilation 1,1,1", "3 numbers for 2 spatial axes"),
        ("--protocol seed --json", "cannot be used with"),
    ];
    for (args, message) in cases {
        let args: Vec<&str> = ["bench", "conv"].into_iter().chain(args.split(' ')).collect();
        let stderr = fails(2, &mut winograph(&args));
        assert!(message.split('|').any(|m| stderr.contains(m)), "{args:?}: {stderr}");
        assert!(stderr.starts_with("error: "), "{stderr}");
    }
    assert!(fails(2, &mut winograph(&[])).contains("Usage"));
    assert!(fails(2, &mut winograph(&["bench"])).contains("Usage"));
    assert!(fails(2, winograph(&["devices"]).env("WINO", "yes")).contains("WINO is \"yes\", expected 0 or 1"));
}

#[test]
fn failures() {
    let mut command = winograph(&["bench", "conv", "--json"]);
    let stderr = fails(1, command.env("WINOGRAPH_CC", "no-such-compiler"));
    assert!(stderr.contains("cause: no C compiler found (tried no-such-compiler)"), "{stderr}");
    // The thousandth GPU is nowhere, with and without a driver.
    let stderr = fails(1, &mut winograph(&["bench", "conv", "--device", "cuda:1000"]));
    assert!(stderr.starts_with("error: cannot open the device\ncause: "), "{stderr}");
}

#[test]
fn explain_tells_reasons() {
    let args = [&["explain", "conv", "--algo", "graph", "--tile", "2"], &SMALL[..]].concat();
    // It needs no compiler.
    let out = run(winograph(&args).env("PATH", "/nonexistent").env("WINOGRAPH_CC", "no-such-compiler"));
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let out = text(&out.stdout);
    for word in [
        "rewritten: F(2,3)xF(2,3)",
        "tile 2,2, taps 3,3, worst-case amplification",
        "|error| <= c·u·Σ_c [|Aᵀ|((|G||g||Gᵀ|) ⊙ (|Bᵀ||x||B|))|A|] + underflow, with c = ",
        "kept: ",
        "contiguous",
        "(input_transform)",
        "(weight_transform, once, in prepare)",
        "(multiply)",
        "(output_transform)",
        "range a0 map of ",
        "range r0 reduce of ",
        "stages: ",
        "buffer ",
        "vectors of ",
    ] {
        assert!(out.contains(word), "{word}: {out}");
    }
    assert!(!out.contains("    plan ") && !out.contains("def ") && !out.contains("typedef"));
    let more = succeeds(&[&args[..], &["--plan", "--passes", "--source"]].concat());
    assert!(more.contains("    plan out0.X: a0=") && more.contains("yield %") && more.contains("typedef"), "{more}");

    // A target's own language.
    for (target, word) in [("cuda:sm_90", "__global__ void"), ("metal", "#include <metal_stdlib>")] {
        let out = succeeds(&[&["explain", "conv", "--target", target, "--source"], &SMALL[..]].concat());
        assert!(out.contains(word), "{target}: {out}");
    }

    let direct = succeeds(&[&["explain", "conv", "--stride", "2"], &SMALL[..]].concat());
    assert!(direct.contains("kept: its window moves with stride 2, not 1"), "{direct}");
    assert!(direct.contains("|error| <= c·u·Σ |x||w| + underflow, with c = "), "{direct}");
    // Nine taps and a path's roundings by channel: c = n / (1 - n u).
    let v = json(&[&["explain", "conv", "--algo", "direct", "--json"], &SMALL[..]].concat());
    let (bound, channels) = (&v["windows"][0]["bound"], v["shape"]["weight"][1].as_f64().unwrap());
    let (n, u) = (9.0 * channels, bound["unit_roundoff"].as_f64().unwrap());
    assert!((u * 2f64.powi(24) - 1.0).abs() < 1e-12, "{bound}");
    assert!((bound["factor"].as_f64().unwrap() - n / (1.0 - n * u)).abs() < 1e-9, "{bound}");
    let tensor = succeeds(&[&["explain", "conv", "--stride", "2", "--algo", "tensor"], &SMALL[..]].concat());
    assert!(tensor.contains("tensor does not apply, the direct form is explained: its window moves"), "{tensor}");

    let v = json(&[&args[..], &["--json", "--source", "--passes"]].concat());
    assert_eq!((&v["applied"], &v["tile"]), (&true.into(), &serde_json::json!([2, 2])));
    assert!(v["windows"][0]["reason"].is_string() && v["source"].is_string() && v["passes"][0]["dump"].is_string());
    let k = &v["kernels"][0];
    assert_eq!((&k["role"], &k["prepare"]), (&"weight_transform".into(), &true.into()));
    let nest = &k["nests"][0];
    assert!(nest["ranges"][0]["kinds"].is_array() && nest["plan"].is_string() && k["buffers"][0]["layout"].is_string());
    assert_eq!(fails(2, &mut winograph(&["explain", "conv", "--tile", "0"])).lines().count(), 3);
    for (args, message) in [
        ("--target cuda:sm_70", "unknown target `cuda:sm_70`: expected one of cpu, cuda:sm_80, cuda:sm_90, metal"),
        ("--device cuda:0", "name a machine with --target instead of --device"),
    ] {
        let args: Vec<&str> = ["explain", "conv"].into_iter().chain(args.split(' ')).collect();
        let stderr = fails(2, &mut winograph(&args));
        assert!(stderr.contains(message), "{args:?}: {stderr}");
    }
}

#[test]
fn devices() {
    let out = succeeds(&["devices"]);
    for word in ["cpu", "vectors", "threads", "caches", "C compiler", "kernel cache"] {
        assert!(out.contains(word), "{word}: {out}");
    }
    let out = run(winograph(&["devices"]).env("WINOGRAPH_CC", "no-such-compiler"));
    assert!(text(&out.stdout).contains("none found"), "a machine without a compiler has a device all the same");
    let v = json(&["devices", "--json"]);
    assert!(v["devices"][0]["vector_bytes"].as_u64().is_some_and(|n| n >= 16));
}

#[test]
fn readers_may_leave() {
    let mut child = winograph(&["explain", "conv", "--passes", "--source"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(child.wait().unwrap().code().is_some(), "it ends by itself");
    assert_eq!(stderr, "");
}

#[test]
fn virtual_gpus_run_what_explain_predicts() {
    for target in ["cuda:sm_80", "cuda:sm_90", "metal"] {
        let device = format!("virtual:{target}");
        let conv =
            [&SMALL[..], &["--padding", "1", "--tile", "2", "--layout", "creation", "--grid", "range-id"]].concat();
        let run =
            json(&[&["bench", "conv", "--json", "--device", &device, "--algo", "graph,tensor"], &conv[..]].concat());
        assert_eq!(run["device"], device.as_str());
        for row in run["results"].as_array().unwrap() {
            assert!(row["rel_l2_err"].as_f64().unwrap() < 1e-5, "{row}");
            let number = |key: &str| row[key].as_f64().unwrap();
            assert!(number("error_bound") >= number("max_abs_err") && number("error_bound") < 1e-3, "{row}");
            assert!(number("max_err_over_bound") > 1e-4 && number("max_err_over_bound") <= 1.0, "{row}");
            assert!(number("expected_err_over_direct") > 0.2 && number("expected_err_over_direct") < 1.1, "{row}");
            assert!(row["min_ms"].is_null() && row["first_ms"].is_null(), "the interpreter's times say nothing");
        }
        let explained =
            json(&[&["explain", "conv", "--json", "--target", target, "--algo", "graph"], &conv[..]].concat());
        assert_eq!(
            (&explained["target"], &explained["layout"], &explained["grid"]),
            (&target.into(), &"creation".into(), &"range-id".into())
        );
        let predicted: Vec<&Value> =
            explained["kernels"].as_array().unwrap().iter().filter(|k| k["prepare"] == false).collect();
        let ran = run["results"][0]["kernels"].as_array().unwrap();
        assert_eq!(predicted.len(), ran.len());
        for (p, r) in predicted.iter().zip(ran) {
            for key in ["name", "role", "grid", "block", "accesses"] {
                assert_eq!(p[key], r[key], "{key}");
            }
            assert!(r["time_us"].is_null() && p["time_us"].is_null());
            assert!(!r["block"].as_array().unwrap().is_empty());
            for a in r["accesses"].as_array().unwrap() {
                assert_eq!(
                    keys(a),
                    ["bank_conflicts", "buffer", "kind", "least_sectors", "requests", "sectors", "space", "vector"]
                );
                assert!(
                    a["sectors"].as_u64() >= a["least_sectors"].as_u64() && a["requests"].as_u64() > Some(0),
                    "{a}"
                );
            }
        }
    }
    let out = succeeds(&[&["bench", "conv", "--device", "virtual:metal", "--algo", "direct"], &SMALL[..]].concat());
    assert!(out.contains("direct: what each launch moves") && out.contains(" requests move "), "{out}");
    let large = ["bench", "conv", "--device", "virtual:metal", "--input", "1,256,56,56", "--weight", "256,256,3,3"];
    let stderr = fails(1, &mut winograph(&large));
    assert!(stderr.contains("take a smaller size"), "{stderr}");
}

#[test]
fn global_stages_are_three_kernels() {
    let v = json(&["explain", "conv", "--algo", "graph", "--stages", "global", "--json"]);
    let kernels = v["kernels"].as_array().unwrap().iter().filter(|k| k["prepare"] == false);
    let roles: Vec<_> = kernels.map(|k| k["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["input_transform", "multiply", "output_transform"]);
}

#[test]
fn stages_in_chunks_are_launched_for_each() {
    let case = ["--input", "5,8,12,12", "--weight", "8,8,3,3", "--padding", "1", "--algo", "graph"];
    let of = |stages| [&["explain", "conv", "--target", "cuda:sm_90", "--stages", stages][..], &case].concat();
    let said = succeeds(&of("chunks:2"));
    assert!(said.contains("separate launches for each of 2 chunks: as asked"), "{said}");
    assert_eq!(said.matches(", for each of 2 chunks) writes").count(), 3, "{said}");
    let whole = json(&[&of("auto")[..], &["--json"]].concat());
    let chunked = json(&[&of("chunks:2")[..], &["--json"]].concat());
    assert_eq!((&chunked["stage_rule"], &chunked["scopes"][0]["chunks"]), (&"chunks:2".into(), &2.into()));
    let bytes = |v: &Value| v["arena_bytes"].as_u64().unwrap();
    assert!(bytes(&chunked) * 5 <= bytes(&whole) * 3, "{} of {}", bytes(&chunked), bytes(&whole));
    let why = whole["scopes"][0]["reason"].as_str().unwrap();
    assert!(why.contains("one launch is estimated at") && why.contains("us beside its launch, 3 launches at"), "{why}");
    let fused = json(&[&of("fused")[..], &["--json"]].concat());
    assert_eq!((&fused["scopes"][0]["fused"], bytes(&fused)), (&true.into(), 0));
    let bench = ["bench", "conv", "--device", "virtual:cuda:sm_90", "--runs", "1", "--stages", "chunks:2"];
    succeeds(&[&bench[..], &case].concat());
    for bad in ["chunks", "chunks:", "chunks:0", "chunks:1025", "chunks:x", "some"] {
        let said = fails(2, &mut winograph(&of(bad)));
        assert!(said.contains("chunks:N"), "{said}");
    }
}

#[test]
fn tolerance_limits_the_rewrite() {
    let of = |more: &[&str]| json(&bench(&[&SMALL[..], &["--algo", "tensor,graph", "--padding", "1"], more].concat()));
    let tiles = |v: &Value| -> Vec<(bool, String)> {
        let rows = v["results"].as_array().unwrap().iter();
        rows.map(|r| (r["applied"].as_bool().unwrap(), r["tile"].to_string())).collect()
    };
    assert_eq!(tiles(&of(&["--tile", "6"])), [(true, "[6,6]".to_string()), (true, "[6,6]".to_string())]);
    let refused = of(&["--tile", "6", "--tolerance", "3"]);
    assert_eq!(tiles(&refused), [(false, "[]".to_string()), (false, "[]".to_string())]);
    assert!(refused["results"][1]["reason"].as_str().unwrap().contains("more than 3, the tolerance"));
    assert_eq!(tiles(&of(&["--tile", "2", "--tolerance", "1.1"]))[1], (true, "[2,2]".to_string()));
    for bad in ["nan", "-1", "-inf", "x", ""] {
        let said = fails(2, &mut winograph(&["bench", "conv", "--tolerance", bad]));
        assert!(said.contains("--tolerance") && !said.contains("panicked"), "{said}");
        let said = fails(2, &mut winograph(&["explain", "conv", "--tolerance", bad]));
        assert!(said.contains("--tolerance"), "{said}");
    }
    let explained = succeeds(&["explain", "conv", "--algo", "graph", "--tile", "6", "--tolerance", "2"]);
    assert!(explained.contains("more than 2, the tolerance"), "{explained}");
}

#[test]
fn explain_writes_a_page() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("explained.html");
    let path = file.to_str().unwrap();
    let args = [&["explain", "conv", "--target", "cuda:sm_90", "--algo", "graph", "--html", path], &SMALL[..]].concat();
    let said = succeeds(&args);
    let page = std::fs::read_to_string(&file).unwrap();
    assert_eq!(said, format!("{path}: {} bytes\n", page.len()));
    assert!(page.starts_with("<!DOCTYPE html>") && page.trim_end().ends_with("</html>"));
    assert!(page.contains("data-access=\"store out0.M\"") && page.contains("id=\"square\""));
    let nowhere = ["explain", "conv", "--html", "/nowhere/at/all.html"];
    let said = fails(1, &mut winograph(&[&nowhere[..], &SMALL[..]].concat()));
    assert!(said.contains("/nowhere/at/all.html"), "{said}");
    let said = fails(2, &mut winograph(&["explain", "conv", "--html", path, "--json"]));
    assert!(said.contains("--json"), "{said}");
}

#[test]
fn bench_replays_stored_plans_or_says_why_not() {
    let small = ["--input", "1,8,8,64", "--weight", "8,8,3,3", "--padding", "1", "--tile", "4"];
    let bench = ["bench", "conv", "--algo", "graph", "--runs", "1", "--plan", "seed", "--device"];
    let said = succeeds(&[&bench[..], &["virtual:metal"], &small[..]].concat());
    assert!(said.contains("graph: the stored plan for out0.M was replayed: r_"), "{said}");
    let said = succeeds(&[&bench[..], &["cpu"], &small[..]].concat());
    assert!(
        said.contains("out0.M does not fit and was replaced: plan does not fit the kernel: thread, matrix"),
        "{said}"
    );

    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("nothing.plan");
    std::fs::write(&file, "nobody: a0=grid\n").unwrap();
    let path = file.to_str().unwrap();
    for command in [&["bench", "conv", "--algo", "graph", "--runs", "1"][..], &["explain", "conv"]] {
        let with = |plan: &str| fails(2, &mut winograph(&[command, &["--plan", plan], &small[..]].concat()));
        let said = with(path);
        assert!(said.contains("names no kernel: expected `contraction`") && said.contains("out0"), "{said}");
        let said = with("/nowhere/at.plan");
        assert!(said.contains("cannot read that file") && said.contains("seed-tf32"), "{said}");
        std::fs::write(&file, "nobody: a0=grid\nout0.M a0=grid\n").unwrap();
        assert!(with(path).contains("line 2: expected `NAME: PLAN`"));
        std::fs::write(&file, "nobody: a0=grid\n").unwrap();
    }
}

#[test]
fn a_search_tries_plans_and_later_commands_find_what_it_stored() {
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("search");
    // What an earlier run of the tests has found.
    let _ = std::fs::remove_dir_all(&dir);
    let conv = ["conv", "--input", "1,8,24,24", "--weight", "16,8,3,3", "--padding", "1"];
    let run_in = |args: &[&str], home: &std::path::Path| {
        let out = run(winograph(&[args, &conv[1..]].concat()).env("WINOGRAPH_CACHE_DIR", home));
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        text(&out.stdout)
    };
    let args = ["bench", "conv", "--search", "2", "--runs", "1", "--threads", "1", "--json"];
    let said = run_in(&args, &dir);
    let v: Value = serde_json::from_str(&said).unwrap();
    let rows = v["results"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]["algo"]), (1, &"auto".into()), "a search is of auto");
    assert!(rows[0]["max_err_over_bound"].as_f64().unwrap() <= 1.0);
    let search = &rows[0]["search"];
    let wanted = ["found", "plan", "seconds", "stored", "time_over_heuristics", "tried"];
    assert_eq!(keys(search), wanted, "nothing kept it from being stored");
    assert!(search["plan"].as_str().unwrap().contains("tile="), "{search}");
    for t in search["tried"].as_array().unwrap() {
        let timed = ["faster", "not faster"].contains(&t["outcome"].as_str().unwrap());
        assert_eq!(t["ratio"].is_f64(), timed, "{t}");
        assert!(!t["change"].as_str().unwrap().is_empty(), "{t}");
    }
    let found = search["found"] == true;
    assert_eq!(found, !search["stored"].as_array().unwrap().is_empty());
    // What is stored for this number of threads is used and told.
    let said = run_in(&["bench", "conv", "--algo", "auto", "--runs", "1", "--threads", "1"], &dir);
    assert_eq!(said.contains("came from search"), found, "{said}");
    let said = run_in(&["explain", "conv", "--json"], &dir);
    let v: Value = serde_json::from_str(&said).unwrap();
    assert!(v["sums"][0]["plan"].is_array(), "{said}");
    // A folder that cannot be is no error.
    let said = run_in(&args, std::path::Path::new("/proc/none"));
    let v: Value = serde_json::from_str(&said).unwrap();
    assert!(v["results"][0]["search"]["not_stored"].as_str().unwrap().contains("/proc/none"), "{said}");

    let of = |more: &[&str]| fails(2, &mut winograph(&[&["bench", "conv"], more].concat()));
    for bad in ["0", "x", "nan", "100000"] {
        assert!(of(&["--search", bad]).contains("--search"), "{bad}");
    }
    assert!(of(&["--search", "1", "--plan", "seed"]).contains("--plan"));
    assert!(of(&["--search", "1", "--device", "virtual:metal"]).contains("a virtual device has none"));
}

#[test]
fn explain_has_the_objects_of_bench_with_what_is_moved() {
    let target = ["--target", "cuda:sm_90", "--algo", "graph", "--stages", "global"];
    let v = json(&[&["explain", "conv", "--json"][..], &target[..], &SMALL[..]].concat());
    assert_eq!((&v["target"], &v["layout"], &v["grid"]), (&"cuda:sm_90".into(), &"auto".into(), &"auto".into()));
    let kernels = v["kernels"].as_array().unwrap();
    assert_eq!(kernels.len(), 4, "the three-kernel form and the weights' transform");
    for k in kernels {
        for key in ["name", "role", "grid", "block", "time_us", "accesses"] {
            assert!(k.get(key).is_some(), "{key} of {k}");
        }
        for n in k["nests"].as_array().unwrap() {
            let others = n["assignments"].as_array().unwrap();
            assert!(others.len() > 1 && others.iter().all(|o| o["sectors"].as_f64() > Some(0.0)), "{n}");
        }
        for a in k["accesses"].as_array().unwrap() {
            let of = ["buffer", "kind", "space", "vector", "requests", "sectors", "least_sectors", "bank_conflicts"];
            let mut of = of.to_vec();
            of.sort_unstable();
            assert_eq!(keys(a), of, "{a}");
        }
    }
    for l in v["layouts"].as_array().unwrap() {
        assert!(l["candidates"].as_array().unwrap().len() > 1, "{l}");
    }
    // Every key of a kernel of `bench`, with the same value.
    let tensor = ["--algo", "tensor", "--stages", "global", "--json"];
    let ran = json(&[&["bench", "conv", "--device", "virtual:metal", "--runs", "1"][..], &tensor, &SMALL].concat());
    let told = json(&[&["explain", "conv", "--target", "metal"][..], &tensor, &SMALL].concat());
    let told: Vec<&Value> = told["kernels"].as_array().unwrap().iter().filter(|k| k["prepare"] == false).collect();
    let ran = ran["results"][0]["kernels"].as_array().unwrap();
    assert!(ran.len() > 2 && ran.len() == told.len(), "{ran:?}");
    for (bench, explain) in ran.iter().zip(told) {
        for key in keys(bench) {
            assert_eq!(explain[&key], bench[&key], "{key}");
        }
    }
}

#[test]
fn explain_table_refuses_what_it_does_not_know() {
    let said = fails(2, &mut winograph(&["explain", "table", "--target", "cpu"]));
    assert!(said.contains("expected a GPU") && said.contains("metal"), "{said}");
    let said = fails(2, &mut winograph(&["explain", "table", "--only", "nothing of the kind"]));
    assert!(said.contains("no case"), "{said}");
}
