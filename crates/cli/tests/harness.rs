//! `bench serve`, `bench matmul`, and the harnesses in `bench/` with Winograph alone.

use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const BINARY: &str = env!("CARGO_BIN_EXE_winograph");

/// An environment of its own; compiled kernels are kept from one run of the tests to the next.
fn alone(command: &mut Command) -> &mut Command {
    command.env("WINOGRAPH_CACHE_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/kernels"));
    for variable in ["WINO", "WINO_OLD", "DEBUG", "WINOGRAPH_THREADS", "WINOGRAPH_CACHE", "WINOGRAPH_VECTOR_BYTES"] {
        command.env_remove(variable);
    }
    command
}

struct Serve {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Serve {
    fn start(variables: &[(&str, &str)]) -> Serve {
        let mut command = Command::new(BINARY);
        alone(&mut command).args(["bench", "serve", "--threads", "1"]).envs(variables.iter().copied());
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the command starts");
        let output = BufReader::new(process.stdout.take().expect("stdout"));
        Serve { input: process.stdin.take(), process, output }
    }

    fn ask(&mut self, question: &str) -> Value {
        let input = self.input.as_mut().expect("stdin");
        writeln!(input, "{question}").expect("the process reads");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the process answers");
        serde_json::from_str(&line).expect("JSON")
    }

    /// Ends the input: the process has to end well.
    fn end(mut self) {
        self.input = None;
        assert!(self.process.wait().expect("the process ends").success());
    }
}

fn number(v: &Value) -> f64 {
    v.as_f64().unwrap_or_else(|| panic!("{v} is no number"))
}

#[test]
fn serve_builds_checks_and_times_in_turns() {
    let mut serve = Serve::start(&[]);
    let conv = ["conv", "--input", "2,6,9,10", "--weight", "4,3,3,3", "--padding", "1", "--groups", "2"];
    let strided = ["conv", "--input", "1,3,9,9", "--weight", "4,3,5,5", "--stride", "2", "--padding", "2"];
    let forms: [Vec<&str>; 5] = [
        [&conv[..], &["--algo", "direct"]].concat(),
        [&conv[..], &["--algo", "graph", "--tile", "2"]].concat(),
        strided.to_vec(),
        vec!["matmul", "--size", "7,9,33"],
        // Winograd does not apply.
        [&strided[..], &["--algo", "graph"]].concat(),
    ];
    let jobs = json!({ "prepare": forms });
    let said = serve.ask(&jobs.to_string());
    let prepared = said["prepared"].as_array().expect("a list");
    assert_eq!(prepared.iter().map(|p| &p["applied"]).collect::<Vec<_>>(), [true, true, true, true, false]);
    for p in &prepared[..4] {
        let error = number(&p["max_error"]);
        assert!(error > 0.0 && error < 1e-5, "{p}");
        assert!(number(&p["compile_ms"]) > 0.0 && number(&p["kernels"]) >= 1.0, "{p}");
    }
    assert_eq!(prepared[1]["tile"], json!([2, 2]));
    assert_eq!(prepared[3]["flops"], json!(2 * 7 * 9 * 33));
    for i in [0, 3, 1, 2] {
        let turn = serve.ask(&json!({ "time": i, "seconds": 0.002 }).to_string());
        let calls: f64 = turn["calls"].as_array().expect("a list").iter().map(number).sum();
        assert!(
            calls >= 3.0 && 0.0 < number(&turn["min"]) && number(&turn["min"]) <= number(&turn["median"]),
            "{turn}"
        );
    }
    serve.end();
}

#[test]
fn serve_answers_what_it_cannot_do_and_goes_on() {
    let mut serve = Serve::start(&[]);
    for (question, expected) in [
        ("nonsense", "cannot read the request"),
        (r#"{"tell": 1}"#, "unknown field"),
        (r#"{"time": 0, "seconds": 0.1}"#, "nothing is prepared"),
        (r#"{"prepare": [["conv", "--input", "1,2"]]}"#, "--input has 2 numbers"),
        (r#"{"prepare": [["matmul", "--size", "3,0,3"]]}"#, "expected sizes above 0"),
        (r#"{"prepare": [["matmul", "--size", "3,3"]]}"#, "expected M,N,K"),
        (r#"{"prepare": [["conv", "--device", "virtual:metal"]]}"#, "leave --device out"),
        (r#"{"prepare": [["divide"]]}"#, "unrecognized subcommand"),
    ] {
        let error = serve.ask(question)["error"].as_str().unwrap_or_default().to_string();
        assert!(error.contains(expected), "{question}: {error}");
    }
    serve.ask(r#"{"prepare": [["matmul", "--size", "3,3,3"]]}"#);
    for (question, expected) in [
        (r#"{"time": 1, "seconds": 0.1}"#, "number of a form"),
        (r#"{"time": 0, "seconds": -1}"#, "from 0 to 60"),
        (r#"{"time": 0}"#, "from 0 to 60"),
    ] {
        let error = serve.ask(question)["error"].as_str().unwrap_or_default().to_string();
        assert!(error.contains(expected), "{question}: {error}");
    }
    assert!(number(&serve.ask(r#"{"time": 0, "seconds": 0}"#)["min"]) > 0.0);
    serve.end();
}

#[test]
fn vectors_can_be_capped() {
    let devices = |bytes: &str| {
        let mut command = Command::new(BINARY);
        alone(&mut command).args(["devices", "--json"]).env("WINOGRAPH_VECTOR_BYTES", bytes);
        let out = command.output().expect("the command starts");
        serde_json::from_slice::<Value>(&out.stdout).expect("JSON")["devices"][0]["vector_bytes"].clone()
    };
    assert_eq!(devices("16"), json!(16));
    assert!(number(&devices("32")) <= 32.0);
    // More than there is gives what there is.
    let all = number(&devices("64"));
    for bytes in ["16", "32"] {
        let mut serve = Serve::start(&[("WINOGRAPH_VECTOR_BYTES", bytes)]);
        let said =
            serve.ask(r#"{"prepare": [["conv", "--input", "1,8,12,12", "--weight", "8,8,3,3", "--algo", "graph"]]}"#);
        assert!(number(&said["prepared"][0]["max_error"]) < 1e-4, "{bytes} of {all}: {said}");
        serve.end();
    }
}

#[test]
fn matmul_is_checked_and_told() {
    let mut command = Command::new(BINARY);
    let out = alone(&mut command)
        .args(["bench", "matmul", "--size", "12,20,40", "--threads", "1", "--runs", "2", "--json"])
        .output()
        .expect("the command starts");
    let report: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!((&report["size"], &report["flops"]), (&json!([12, 20, 40]), &json!(2 * 12 * 20 * 40)));
    let row = &report["results"][0];
    assert!(number(&row["rel_l2_err"]) < 1e-6 && number(&row["median_ms"]) > 0.0, "{row}");
}

/// The harnesses are Python; where there is none, there is nothing to test.
fn python(script: &str, args: &[&str]) -> Option<(bool, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench").join(script);
    let mut command = Command::new("python3");
    let out = alone(&mut command).arg("-B").arg(path).args(["--binary", BINARY]).args(args).output();
    let Ok(out) = out else {
        println!("skipped: there is no python3");
        return None;
    };
    Some((out.status.success(), [out.stdout, out.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat()))
}

#[test]
fn the_harness_runs_winograph_alone() {
    let folder = concat!(env!("CARGO_TARGET_TMPDIR"), "/peers");
    std::fs::create_dir_all(folder).expect("a folder");
    let [data, chart, table] = ["out.json", "out.svg", "out.md"].map(|f| format!("{folder}/{f}"));
    let args = ["--peers", "none", "--layers", "reference,depthwise 576", "--threads", "1", "--rounds", "2"];
    let files = ["--seconds", "0.01", "--json", &data, "--svg", &chart, "--markdown", &table];
    let Some((done, said)) = python("peers.py", &[&args[..], &files[..]].concat()) else { return };
    assert!(done && said.contains("reference") && said.contains("depthwise 576"), "{said}");
    let read = |path: &str| std::fs::read_to_string(path).expect("the harness writes its files");
    let all: Value = serde_json::from_str(&read(&data)).expect("JSON");
    assert_eq!(all["results"].as_array().map(Vec::len), Some(2));
    assert_eq!(all["results"][0]["times"]["winograph"].as_array().map(Vec::len), Some(2));
    assert!(read(&chart).contains("Winograph") && read(&table).contains("| depthwise 576 |"));
}

#[test]
fn the_harness_of_choices_runs() {
    let args = ["--shapes", "1", "--rounds", "1", "--seconds", "0.001", "--threads", "1", "--share", "0"];
    let Some((done, said)) = python("auto_choice.py", &args) else { return };
    assert!(done && said.contains("of 1 shapes within 1.15"), "{said}");
}
