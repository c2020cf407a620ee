//! `WINOGRAPH_MEMORY_MB`: how much memory a run may take, however much there is.

use std::process::Command;

/// A field of protobuf that holds bytes.
fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    let mut length = value.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend(value);
    out
}

/// A model of ONNX that concatenates 3 floats with themselves again and again, and gives some of the results; `more` of its graph.
fn doubled(times: usize, outputs: &[usize], more: &[u8]) -> Vec<u8> {
    let name = |i: usize| format!("c{i}");
    let info = |name: &str, dims: &[u8]| {
        let tensor = [vec![1 << 3, 1], bytes(2, dims)].concat();
        [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &tensor))].concat()
    };
    let mut graph = vec![];
    for i in 0..times {
        let axis = [bytes(1, b"axis"), vec![3 << 3, 0, 20 << 3 & 0x7f | 0x80, 1, 2]].concat();
        let inputs = [bytes(1, name(i).as_bytes()), bytes(1, name(i).as_bytes())].concat();
        graph.extend(bytes(
            1,
            &[inputs, bytes(2, name(i + 1).as_bytes()), bytes(4, b"Concat"), bytes(5, &axis)].concat(),
        ));
    }
    graph.extend(bytes(11, &info("c0", &bytes(1, &[1 << 3, 3]))));
    outputs.iter().for_each(|&i| graph.extend(bytes(12, &info(&name(i), &bytes(1, &[])))));
    graph.extend(more);
    [vec![1 << 3, 8], bytes(7, &graph), bytes(8, &[2 << 3, 17])].concat()
}

#[test]
fn a_run_takes_no_more_than_the_environment_allows_and_is_refused_before_it_does() {
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/doubled.onnx");
    let run = |times: usize, outputs: &[usize], limit: &str| {
        std::fs::write(path, doubled(times, outputs, &[])).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_winograph"));
        command.arg("run").arg(path).args(["--input", "c0=random"]).env("WINOGRAPH_MEMORY_MB", limit);
        let done = command.output().unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    // A value of 96 MiB, and 24 and 48 MiB that are there together.
    let (done, told) = run(23, &[23], "64");
    assert!(!done && told.contains("\"c23\" (Concat)") && told.contains("WINOGRAPH_MEMORY_MB"), "{told}");
    let (done, told) = run(22, &[21, 22], "64");
    assert!(!done && told.contains("outputs c21, c22") && told.contains("out of memory"), "{told}");
    let (done, told) = run(22, &[21, 22], "4096");
    assert!(done, "{told}");
    let (done, told) = run(1, &[1], "1");
    assert!(!done && told.contains("WINOGRAPH_MEMORY_MB"), "{told}");
}

#[test]
fn elements_that_the_host_looks_at_are_counted_before_they_are_made() {
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/places.onnx");
    // The places of what is not 0 among 6 * 2^20 numbers, of which there are 24 MiB; as a list on the host they are 96.
    let node = |node: &[u8]| bytes(1, node);
    let places = [bytes(1, b"c21"), bytes(2, b"places"), bytes(4, b"NonZero")].concat();
    let integers = [bytes(1, b"places"), bytes(2, &bytes(1, &[1 << 3, 7]))].concat();
    let more = [node(&places), bytes(12, &integers)].concat();
    std::fs::write(path, doubled(21, &[0], &more)).unwrap();
    let run = |limit: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_winograph"));
        command.arg("run").arg(path).args(["--input", "c0=random"]).env("WINOGRAPH_MEMORY_MB", limit);
        let done = command.output().unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (done, told) = run("80");
    assert!(!done && told.contains("elements on the host") && told.contains("\"places\" (NonZero)"), "{told}");
    let (done, told) = run("4096");
    assert!(done, "{told}");
}
