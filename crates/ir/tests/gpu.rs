//! The virtual GPU on kernels written by hand: counts worked out on paper, and planted errors.

use winograph_ir::DType;
use winograph_ir::interp::gpu::{AccessKind, Counts, GpuModel, SiteCounts, Space, run, sites};
use winograph_ir::interp::{InterpError, Value, linear, sectors};
use winograph_ir::linear::{Code, Fragment};
use winograph_ir::text::parse_linear;
use winograph_ir::verify::linear::verify;

fn f32s(data: &[f64]) -> Vec<u8> {
    Value::from_f64s(DType::F32, &[data.len()], data).to_bytes()
}

fn to_f64s(bytes: &[u8]) -> Vec<f64> {
    Value::from_bytes(DType::F32, &[bytes.len() / 4], bytes).to_f64s()
}

fn numbers(n: usize) -> Vec<u8> {
    f32s(&(0..n).map(|i| i as f64).collect::<Vec<_>>())
}

#[track_caller]
fn parse(text: &str) -> Code {
    parse_linear(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// A kernel that the verifier accepts, run; the counts without a run have to be the same.
#[track_caller]
fn launch(text: &str, args: &mut [Vec<u8>]) -> Counts {
    let code = parse(text);
    verify(&code).unwrap_or_else(|e| panic!("{e}"));
    let model = GpuModel::default();
    let counts = run(&code, args, &[], &model).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(sectors::count(&code, &[], &model).as_ref(), Some(&counts.sites));
    counts
}

#[track_caller]
fn refused(text: &str) -> &'static str {
    verify(&parse(text)).expect_err("the verifier accepts it").invariant
}

#[track_caller]
fn fails(text: &str, args: &mut [Vec<u8>]) -> InterpError {
    run(&parse(text), args, &[], &GpuModel::default()).expect_err("it runs")
}

fn counts(requests: u64, bytes: u64, sectors: u64, least_sectors: u64, bank_conflicts: u64) -> SiteCounts {
    SiteCounts { requests, bytes, sectors, least_sectors, bank_conflicts }
}

fn vectors(n: usize, body: &str) -> String {
    format!(
        "kernel E\narg x: f32[{n}] argument 0 global layout [0:1] len {n}\n\
         arg y: f32[{n}] output 0 global layout [0:1] len {n} written\nbody {{\n{body}\n}}\n"
    )
}

#[test]
fn a_coalesced_copy_moves_four_sectors_a_request() {
    let text = vectors(
        256,
        "loop b:4 grid {\n loop t:64 thread {\n %0: f32 = load x[64*b + t] @ 64*b + t
        store %0, y[64*b + t] @ 64*b + t\n }\n}",
    );
    let mut args = [numbers(256), vec![0; 1024]];
    let got = launch(&text, &mut args);
    assert_eq!(args[0], args[1]);
    assert_eq!((got.blocks, got.threads), (4, 64));
    assert_eq!(got.sites, [counts(8, 1024, 32, 32, 0); 2]);
    let all = sites(&parse(&text));
    assert_eq!((all[0].kind, all[1].kind), (AccessKind::Load, AccessKind::Store));
    assert_eq!((all[0].space, all[0].dtype, all[0].lanes, all[0].width), (Space::Global, DType::F32, 1, 1));
}

#[test]
fn strides_move_more() {
    // Every eighth element is a sector of its own; 32 of them fit into 4.
    let text = vectors(
        256,
        "loop t:32 thread {\n %0: f32 = load x[8*t] @ 8*t\n store %0, y[t] @ t if t < 20\n
         %1: f32 = load x[t + 1] @ t + 1\n store %1, y[t + 64] @ t + 64\n }",
    );
    let mut args = [numbers(256), vec![0; 1024]];
    let got = launch(&text, &mut args);
    // 20 floats are 80 bytes, which are three sectors; an offset by one element touches a fifth.
    let wanted = [counts(1, 128, 32, 4, 0), counts(1, 80, 3, 3, 0), counts(1, 128, 5, 4, 0), counts(1, 128, 4, 4, 0)];
    assert_eq!(got.sites, wanted);
    let y = to_f64s(&args[1]);
    assert_eq!((y[19], y[20], y[64]), (152.0, 0.0, 1.0));
}

#[test]
fn vectors_are_one_request_up_to_16_bytes_and_strided_lanes_are_not() {
    let text = vectors(
        512,
        "loop t:32 thread {\n %0: f32x4 = load lane l:4 x[4*t + l] @ 4*t + l
         store %0, lane l:4 y[t + 32*l] @ t + 32*l
         %1: f32x8 = load lane m:8 x[8*t + m] @ 8*t + m
         store %1, lane m:8 y[8*t + m + 256] @ 8*t + m + 256 if t + m < 100
         store %0, lane l:4 y[4*t + l + 128] @ 4*t + l + 128 if t + l >= 2\n}",
    );
    let got = launch(&text, &mut [numbers(512), vec![0; 2048]]);
    let wanted = [
        counts(1, 512, 16, 16, 0),
        counts(4, 512, 16, 16, 0),
        // Two requests of 16 bytes a thread: each half of every sector.
        counts(2, 1024, 64, 32, 0),
        // That gate always holds and goes.
        counts(2, 1024, 64, 32, 0),
        // A gate on the lane: threads that it lets have all of their elements move them at once, the others one by one.
        // Thread 0 loses two lanes and thread 1 one.
        counts(4, 500, 15 + 3, 15 + 3, 0),
    ];
    assert_eq!(got.sites, wanted);
    let widths: Vec<u32> = sites(&parse(&text)).iter().map(|s| s.width).collect();
    assert_eq!(widths, [4, 1, 8, 8, 4]);
}

#[test]
fn vectors_that_are_not_aligned_move_in_aligned_parts() {
    let text = vectors(
        512,
        "loop t:32 thread {\n %0: f32x4 = load lane l:4 x[4*t + l + 2] @ 4*t + l + 2
         store %0, lane l:4 y[4*t + l + 1] @ 4*t + l + 1\n}",
    );
    let got = launch(&text, &mut [numbers(512), vec![0; 2048]]);
    let wanted = [
        // Two requests of 8 bytes a thread: every half sector from the second one of the first on.
        counts(2, 512, 16 + 17, 16, 0),
        // Four of 4 bytes: the last one begins with the next half sector.
        counts(4, 512, 3 * 16 + 17, 16, 0),
    ];
    assert_eq!(got.sites, wanted);
    assert_eq!(sites(&parse(&text)).iter().map(|s| s.width).collect::<Vec<_>>(), [2, 1]);
}

/// 32 threads copy 128 elements to shared memory, where each thread's four lie `step` apart, and take them to `y`.
fn copied(begin: &str, end: &str, place: &str) -> String {
    let local = "local s: f32[128] internal shared layout [0:1] len 128 written\n";
    let text = vectors(
        128,
        &format!(
            "loop t:32 thread {{\n {begin}\n %0: f32x4 = load lane l:4 x[4*t + l] @ 4*t + l
             store %0, lane l:4 s[{place}] @ {place}\n {end}\n barrier shared
             %1: f32x4 = load lane m:4 s[4*t + m] @ 4*t + m\n store %1, lane m:4 y[4*t + m] @ 4*t + m\n}}"
        ),
    );
    text.replace("body {", &format!("{local}body {{"))
}

#[test]
fn an_asynchronous_copy_moves_what_is_contiguous_on_both_sides() {
    let first = |begin: &str, end: &str, place: &str| {
        let got = launch(&copied(begin, end, place), &mut [numbers(128), vec![0; 512]]);
        (got.sites[0], got.sites[1])
    };
    let whole = counts(1, 512, 16, 16, 0);
    let in_place = |c: (SiteCounts, SiteCounts)| (c.0, c.1.requests);
    assert_eq!(in_place(first("", "", "4*t + l")), (whole, 1));
    assert_eq!(in_place(first("async {", "}\n wait 0", "4*t + l")), (whole, 1));
    // A load and four stores, but four copies of 4 bytes, each of which touches all sectors.
    assert_eq!(in_place(first("", "", "t + 32*l")), (whole, 4));
    assert_eq!(in_place(first("async {", "}\n wait 0", "t + 32*l")), (counts(4, 512, 64, 16, 0), 4));
}

#[test]
fn what_a_condition_keeps_threads_from_moves_nothing() {
    let begin = "async {\n if t < 8 {";
    let got = launch(&copied(begin, "}\n}\n wait 0", "4*t + l"), &mut [numbers(128), vec![0; 512]]);
    assert_eq!(got.sites[0], counts(1, 128, 4, 4, 0));
}

fn transpose(direct: bool, barrier: &str, padded: usize) -> String {
    let len = 32 * padded;
    let body = if direct {
        "%0: f32 = load x[i, j] @ 32*i + j\n store %0, y[j, i] @ 32*j + i".to_string()
    } else {
        format!(
            "%0: f32 = load x[i, j] @ 32*i + j\n store %0, s[i, j] @ {padded}*i + j\n {barrier}\n
            %1: f32 = load s[j, i] @ {padded}*j + i\n store %1, y[i, j] @ 32*i + j"
        )
    };
    let local = format!("local s: f32[32, 32] internal shared layout [0:{padded}, 1:1] len {len} written\n");
    format!(
        "kernel E\narg x: f32[32, 32] argument 0 global layout [0:32, 1:1] len 1024\n\
         arg y: f32[32, 32] output 0 global layout [0:32, 1:1] len 1024 written\n{}\
         body {{\n loop i:32 thread {{\n loop j:32 thread {{\n{body}\n}}\n}}\n}}\n",
        if direct { "" } else { &local }
    )
}

#[test]
fn transposes() {
    let x = numbers(1024);
    let wanted: Vec<f64> = (0..1024).map(|n| (n % 32 * 32 + n / 32) as f64).collect();
    let mut results = Vec::new();
    for text in
        [transpose(true, "", 32), transpose(false, "barrier shared", 32), transpose(false, "barrier shared", 33)]
    {
        let mut args = [x.clone(), vec![0; 4096]];
        results.push(launch(&text, &mut args).sites);
        assert_eq!(to_f64s(&args[1]), wanted);
    }
    let coalesced = counts(32, 4096, 128, 128, 0);
    assert_eq!(results[0], [coalesced, counts(32, 4096, 1024, 128, 0)]);
    let shared = |conflicts| counts(32, 4096, 0, 0, conflicts);
    assert_eq!(results[1], [coalesced, shared(0), shared(31 * 32), coalesced]);
    assert_eq!(results[2], [coalesced, shared(0), shared(0), coalesced]);
}

#[test]
fn wide_accesses_to_shared_memory_go_by_parts_of_a_warp() {
    // 16 bytes a thread, contiguous: four passes of eight threads without conflicts. 32 bytes apart: two ways.
    for (apart, conflicts) in [(4, 0), (8, 4), (32, 7 * 4)] {
        let len = apart * 32;
        let text = format!(
            "kernel E\narg y: f32[128] output 0 global layout [0:1] len 128 written\n\
             local s: f32[{len}] internal shared layout [0:1] len {len} written\nbody {{\n loop t:32 thread {{\n
             %0: f32x4 = load lane l:4 s[{apart}*t + l] @ {apart}*t + l\n
             store %0, lane l:4 y[4*t + l] @ 4*t + l\n}}\n}}\n"
        );
        let got = launch(&text, &mut [vec![0; 512]]);
        assert_eq!(got.sites[0], counts(1, 512, 0, 0, conflicts));
    }
}

#[test]
fn a_missing_barrier_is_found() {
    let error = fails(&transpose(false, "", 32), &mut [numbers(1024), vec![0; 4096]]);
    assert!(matches!(&error, InterpError::Race { memory, .. } if memory == "s"), "{error}");
    // Across the iterations of a loop: what is read must not be overwritten before all have read it.
    let text = |last: &str| {
        format!(
            "kernel r\narg x: f32[256] argument 0 global layout [0:1] len 256\n\
             arg y: f32[256] output 0 global layout [0:1] len 256 written\n\
             local s: f32[64] internal shared layout [0:1] len 64 written\nbody {{\nloop t:64 thread {{\n
             loop k:4 serial {{\n %0: f32 = load x[64*k + t] @ 64*k + t\n store %0, s[t] @ t\n barrier shared\n
             %1: f32 = load s[63 - t] @ 63 - t\n store %1, y[64*k + t] @ 64*k + t\n {last}\n}}\n}}\n}}\n"
        )
    };
    launch(&text("barrier shared"), &mut [numbers(256), vec![0; 1024]]);
    let error = fails(&text(""), &mut [numbers(256), vec![0; 1024]]);
    assert!(matches!(&error, InterpError::Race { memory, .. } if memory == "s"), "{error}");
    assert!(error.to_string().contains("without a barrier"), "{error}");
}

#[test]
fn races_on_global_memory_are_found() {
    let race = |body: &str| {
        let mut args = [numbers(256), vec![0; 1024]];
        match run(&parse(&vectors(256, body)), &mut args, &[], &GpuModel::default()) {
            Err(InterpError::Race { memory, between, .. }) => {
                assert_eq!(memory, "y");
                Some(["block 0 ", "several blocks read "].iter().any(|s| between.starts_with(s)))
            }
            Err(e) => panic!("{e}"),
            Ok(_) => None,
        }
    };
    let load = "%0: f32 = load x[t] @ t\n %1: f32 = load x[0] @ 0\n";
    // Threads of two warps, of one warp, and of one warp with the same value.
    assert!(race(&format!("loop t:64 thread {{\n{load} store %0, y[t%32] @ t%32\n}}")).is_some());
    assert!(race(&format!("loop t:32 thread {{\n{load} store %0, y[t/2] @ t/2\n}}")).is_some());
    assert!(race(&format!("loop t:32 thread {{\n{load} store %1, y[t/2] @ t/2\n}}")).is_none());
    assert!(race(&format!("loop t:64 thread {{\n{load} store %1, y[t%32] @ t%32\n}}")).is_some());
    // One warp, one statement after the other.
    let next = "store %0, y[t] @ t\n store %0, y[31 - t] @ 31 - t\n %2: f32 = load y[0] @ 0";
    assert!(race(&format!("loop t:32 thread {{\n{load} {next}\n}}")).is_none());
    // Blocks.
    let writes = format!("loop b:2 grid {{\nloop t:32 thread {{\n{load} store %0, y[t] @ t\n}}\n}}");
    assert_eq!(race(&writes), Some(true));
    let reads = format!(
        "loop b:2 grid {{\nloop t:32 thread {{\n{load} store %0, y[t + 32*b] @ t + 32*b\n
         %2: f32 = load y[t] @ t\n}}\n}}"
    );
    assert_eq!(race(&reads), Some(true));
    let before = format!(
        "loop b:2 grid {{\nloop t:32 thread {{\n{load} %2: f32 = load y[t + 32 - 32*b] @ t + 32 - 32*b\n
         store %2, y[t + 64 - 32*b] @ t + 64 - 32*b\n}}\n}}"
    );
    assert_eq!(race(&before), Some(true));
    let own = format!(
        "loop b:2 grid {{\nloop t:32 thread {{\n{load} %2: f32 = load y[t + 32*b] @ t + 32*b\n
         store %2, y[t + 32*b] @ t + 32*b\n}}\n}}"
    );
    assert_eq!(race(&own), None);
    // Everybody has read what the first thread, or the last block, then writes.
    let all = |between: &str| {
        let body = "%2: f32 = load y[0] @ 0";
        format!("loop t:64 thread {{\n{load} {body}\n {between}\n if t < 1 {{\n store %0, y[0] @ 0\n}}\n}}")
    };
    assert!(race(&all("")).is_some());
    assert!(race(&all("barrier shared")).is_none());
    let last = format!(
        "loop b:3 grid {{\nloop t:32 thread {{\n{load} %2: f32 = load y[0] @ 0\n barrier shared\n
         %3: f32 = load y[0] @ 0\n if b + t > 32 {{\n store %0, y[0] @ 0\n}}\n}}\n}}"
    );
    assert_eq!(race(&last), Some(true));
}

#[test]
fn wrong_indices_are_found() {
    let beyond = vectors(40, "loop t:64 thread {\n %0: f32 = load x[t] @ t\n}");
    assert_eq!(refused(&beyond), "bounds");
    let error = fails(&beyond, &mut [numbers(40), vec![0; 160]]);
    assert!(matches!(error, InterpError::AxisOutOfBounds { axis: 0, index: 40, size: 40, .. }), "{error}");
    // An index beyond its axis, at an address that exists.
    let text = "kernel E\narg x: f32[4, 8] argument 0 global layout [0:8, 1:1] len 32\n\
                body {\n loop t:9 thread {\n %0: f32 = load x[0, t] @ t\n}\n}\n";
    assert_eq!(refused(text), "bounds");
    let error = fails(text, &mut [numbers(32)]);
    assert!(matches!(error, InterpError::AxisOutOfBounds { axis: 1, index: 8, .. }), "{error}");
    // An address that is not the index's.
    let text = vectors(40, "loop t:32 thread {\n %0: f32 = load x[t] @ 2*t\n}");
    assert_eq!(refused(&text), "address");
    let error = fails(&text, &mut [numbers(40), vec![0; 160]]);
    assert!(matches!(error, InterpError::OutOfBounds { address: 40, len: 40, .. }), "{error}");
    let thread = "kernel E\nlocal s: f32[4] internal scratch layout [0:1] len 4\n\
                  body {\n loop t:9 thread {\n %0: f32 = load s[3] @ 4\n}\n}\n";
    assert!(matches!(fails(thread, &mut []), InterpError::OutOfBounds { address: 4, len: 4, .. }));
}

#[test]
fn barriers_that_some_threads_miss() {
    let text = |gate: &str| {
        vectors(64, &format!("loop b:2 grid {{\nloop t:64 thread {{\n if {gate} {{\n barrier shared\n}}\n}}\n}}"))
    };
    assert_eq!(refused(&text("t < 32")), "barriers");
    let mut args = [numbers(64), vec![0; 256]];
    let error = fails(&text("t + b < 32"), &mut args);
    assert!(matches!(error, InterpError::BarrierDivergence { waiting: 32, threads: 64, .. }), "{error}");
    launch(&text("b < 1"), &mut args);
    let scope = vectors(64, "loop t:64 thread {\n barrier global\n}");
    assert_eq!(refused(&scope), "barriers");
    assert!(matches!(fails(&scope, &mut args), InterpError::Malformed { .. }));
}

#[test]
fn shapes_of_kernels() {
    let mut args = [numbers(64), vec![0; 256]];
    let refused_shapes = [
        "loop t:64 thread {\n loop b:2 grid {\n}\n}",
        "loop s:2 serial {\n loop t:64 thread {\n}\n}",
        "loop t:64 thread {\n}\nloop u:64 thread {\n}",
        "loop b:2 grid {\n loop t:64 thread {\n}\n barrier shared\n}",
        "loop t:64 thread {\n loop s:2 serial {\n loop u:2 thread {\n}\n}\n}",
    ];
    for body in refused_shapes {
        let text = vectors(64, body);
        assert!(matches!(refused(&text), "threads" | "loops"), "{body}");
        assert!(matches!(fails(&text, &mut args), InterpError::Malformed { .. }), "{body}");
        assert_eq!(sectors::count(&parse(&text), &[], &GpuModel::default()), None);
    }
    let many = vectors(64, "loop t:64 thread {\n loop u:17 thread {\n}\n}");
    assert_eq!(refused(&many), "threads");
    assert!(matches!(fails(&many, &mut args), InterpError::Malformed { .. }));
    let symbolic = format!("kernel E\nparam n 1..8{}", &vectors(64, "loop t:n thread {\n}")["kernel E".len()..]);
    assert_eq!(refused(&symbolic), "threads");
    let shared = "kernel E\nlocal s: f32[4] internal shared layout [0:1] len 4\nbody {\n}\n";
    assert_eq!(refused(shared), "threads");
    let none = GpuModel { lanes: 0, ..GpuModel::default() };
    let text = vectors(64, "");
    assert!(matches!(run(&parse(&text), &mut args, &[], &none), Err(InterpError::Malformed { .. })));
    assert_eq!(sectors::count(&parse(&text), &[], &none), None);
    assert!(matches!(fails(&text, &mut args[..1]), InterpError::Length { .. }));
}

#[test]
fn locals_belong_to_threads_and_blocks() {
    // Each thread's scratch is its own; a block's shared memory holds nothing of the block before.
    let text = "kernel E\narg y: f32[2, 64] output 0 global layout [0:64, 1:1] len 128 written\n\
        arg z: f32[2] output 1 global layout [0:1] len 2 written\n\
        local own: f32[2] internal scratch layout [0:1] len 2 written\n\
        local s: f32[1] internal shared layout [0:1] len 1 written\nbody {\n\
        loop b:2 grid {\n loop t:64 thread {\n %0: f32 = index 64*b + t\n store %0, own[1] @ 1\n\
        if b < 1 and t < 1 {\n store %0, s[0] @ 0\n}\n barrier shared\n\
        %1: f32 = load own[1] @ 1\n store %1, y[b, t] @ 64*b + t\n\
        if t < 1 {\n %2: f32 = load s[0] @ 0\n store %2, z[b] @ b\n}\n}\n}\n}\n";
    let mut args = [vec![0; 512], vec![0; 8]];
    let got = launch(text, &mut args);
    assert_eq!(args[0], numbers(128));
    let z = to_f64s(&args[1]);
    assert_eq!(z[0], 0.0);
    assert!(z[1].is_nan());
    assert_eq!(sites(&parse(text)).iter().map(|s| s.space).collect::<Vec<_>>()[..2], [Space::Private, Space::Shared]);
    assert_eq!(got.sites[0], counts(4, 512, 0, 0, 0));
    assert_eq!(got.sites[1], counts(1, 4, 0, 0, 0));
}

const UNIT: &str = "f32 thread_row [0, 1, 2, 0, 4] thread_col [2, 0, 0, 4, 0] element_row [0] element_col [1]";

fn unit(bits: u32, f: &str) -> String {
    format!("unit \"8x8x8\" 8 8 8 {bits} a: {f} b: {f} c: {f}\n")
}

/// d = c + a·b by one warp, or by `warps` of them, the result at an address of its own.
fn matrix(bits: u32, threads: u32, layout: &str, at: &str, body: &str) -> String {
    let row = "4*(t%32/16) + t/2%4";
    let col = "2*(t%2) + 4*(t/8%2) + e";
    let place = format!("lane e:2 M[{row}, {col}] @ 8*({row}) + {col}");
    let load = |n: u32, name: &str| format!("%{n}: f32x2 = load {}\n", place.replace('M', name));
    let mem =
        |name: &str, slot: u32| format!("arg {name}: f32[8, 8] argument {slot} global layout [0:8, 1:1] len 64\n");
    format!(
        "kernel r\n{}{}{}arg d: f32[8, 8] output 0 global {layout} written\n{}body {{\nloop t:{threads} thread {{\n\
         {}{}{}{}\nstore %3, lane e:2 d[{row}, {col}] @ {at}\n}}\n}}\n",
        mem("a", 0),
        mem("b", 1),
        mem("c", 2),
        unit(bits, UNIT),
        load(0, "a"),
        load(1, "b"),
        load(2, "c"),
        if body.is_empty() { "%3: f32x2 = matrix \"8x8x8\" %0, %1, %2" } else { body },
    )
}

const DENSE: (&str, &str) = ("layout [0:8, 1:1] len 64", "8*(4*(t%32/16) + t/2%4) + 2*(t%2) + 4*(t/8%2) + e");
const SCATTERED: (&str, &str) =
    ("layout [0:288, 1:36] len 2304", "288*(4*(t%32/16) + t/2%4) + 72*(t%2) + 144*(t/8%2) + 36*e");

fn plain() -> Code {
    parse(
        "kernel r\narg a: f32[8, 8] argument 0 global layout [0:8, 1:1] len 64\n\
         arg b: f32[8, 8] argument 1 global layout [0:8, 1:1] len 64\n\
         arg c: f32[8, 8] argument 2 global layout [0:8, 1:1] len 64\n\
         arg d: f32[8, 8] output 0 global layout [0:8, 1:1] len 64 written\nbody {\n\
         loop i:8 grid {\nloop j:8 grid {\n %0: f32 = load c[i, j] @ 8*i + j\n var %1: f32 = %0\n\
         loop k:8 serial reduce {\n %2: f32 = load a[i, k] @ 8*i + k\n %3: f32 = load b[k, j] @ 8*k + j\n\
         %4: f32 = fma %2, %3, %1\n set %1 = %4\n}\n store %1, d[i, j] @ 8*i + j\n}\n}\n}\n",
    )
}

/// Values that are no dyadic fractions.
fn noise(seed: u32) -> Vec<u8> {
    let mut x = seed;
    let mut next = || {
        x = x.wrapping_mul(1664525).wrapping_add(1013904223);
        x as f64 / 4294967296.0 - 0.5
    };
    f32s(&(0..64).map(|_| next()).collect::<Vec<_>>())
}

#[test]
fn the_unit_of_metal_holds_each_element_once() {
    let f = Fragment {
        dtype: DType::F32,
        thread_row: vec![0, 1, 2, 0, 4],
        thread_col: vec![2, 0, 0, 4, 0],
        element_row: vec![0],
        element_col: vec![1],
    };
    let mut seen = [false; 64];
    for t in 0..32 {
        for e in 0..2 {
            let (row, col) = f.place(t, e);
            assert_eq!((row, col), (t / 16 * 4 + t / 2 % 4, t % 2 * 2 + t / 8 % 2 * 4 + e));
            seen[(row * 8 + col) as usize] = true;
        }
    }
    assert_eq!(seen, [true; 64]);
    assert_eq!((f.threads(), f.elements()), (32, 2));
}

#[test]
fn a_matrix_unit_multiplies_as_plain_code_does() {
    let zeros = vec![0u8; 256];
    let mut wanted = [noise(1), noise(2), noise(3), zeros.clone()];
    linear::run(&plain(), &mut wanted, &[]).unwrap();
    let mut args = [noise(1), noise(2), noise(3), zeros.clone()];
    let got = launch(&matrix(24, 32, DENSE.0, DENSE.1, ""), &mut args);
    assert_eq!(args, wanted);
    // Two floats that lie next to each other: 8 sectors a fragment. 36 floats apart: 64.
    assert_eq!(got.sites[3], counts(1, 256, 8, 8, 0));
    let mut args = [noise(1), noise(2), noise(3), vec![0; 4 * 2304]];
    let got = launch(&matrix(24, 32, SCATTERED.0, SCATTERED.1, ""), &mut args);
    assert_eq!(got.sites[3], counts(2, 256, 64, 8, 0));
    let d: Vec<f64> = to_f64s(&args[3]).into_iter().step_by(36).collect();
    assert_eq!(d, to_f64s(&wanted[3]));
}

#[test]
fn factors_are_rounded() {
    // With factors rounded first, plain code gives the same.
    for bits in [8, 11] {
        let round = |x: f64| {
            let raw = (x as f32).to_bits() as u64;
            let drop = 24 - bits;
            let (low, keep) = (raw & ((1 << drop) - 1), raw >> drop);
            let up = low > 1 << (drop - 1) || low == 1 << (drop - 1) && keep & 1 == 1;
            f32::from_bits(((keep + up as u64) << drop) as u32) as f64
        };
        let rounded = |seed| f32s(&to_f64s(&noise(seed)).into_iter().map(round).collect::<Vec<_>>());
        let zeros = vec![0u8; 256];
        let mut wanted = [rounded(5), rounded(6), noise(7), zeros.clone()];
        linear::run(&plain(), &mut wanted, &[]).unwrap();
        let mut args = [noise(5), noise(6), noise(7), zeros];
        launch(&matrix(bits, 32, DENSE.0, DENSE.1, ""), &mut args);
        assert_eq!(args[3], wanted[3]);
        assert_ne!(args[0], wanted[0]);
    }
    let mut special = noise(1);
    special[..8].copy_from_slice(&f32s(&[f64::NAN, f64::INFINITY]));
    let mut args = [special, noise(2), noise(3), vec![0; 256]];
    launch(&matrix(11, 32, DENSE.0, DENSE.1, ""), &mut args);
    let d = to_f64s(&args[3]);
    assert!(d[..8].iter().all(|x| x.is_nan()) && d[8..].iter().all(|x| x.is_finite()));
}

#[test]
fn matrix_units_need_whole_warps() {
    let args = || [noise(1), noise(2), noise(3), vec![0; 256]];
    let gated = "var %3: f32x2 = %2\nif t < 16 {\n%9: f32x2 = matrix \"8x8x8\" %0, %1, %2\nset %3 = %9\n}";
    let text = matrix(24, 32, DENSE.0, DENSE.1, gated);
    assert_eq!(refused(&text), "units");
    assert!(matches!(fails(&text, &mut args()), InterpError::Malformed { .. }));
    let text = matrix(24, 48, DENSE.0, DENSE.1, "");
    assert_eq!(refused(&text), "units");
    assert!(fails(&text, &mut args()).to_string().contains("16 of 32 threads"));
    let code = parse(&matrix(24, 32, DENSE.0, DENSE.1, ""));
    let wide = GpuModel { lanes: 64, ..GpuModel::default() };
    assert!(matches!(run(&code, &mut args(), &[], &wide), Err(InterpError::Malformed { .. })));
    assert!(matches!(linear::run(&code, &mut args(), &[]), Err(InterpError::Malformed { .. })));
    // Units that nothing can run.
    let good = matrix(24, 32, DENSE.0, DENSE.1, "");
    for (from, to) in [
        ("8 8 8 24", "8 8 8 25"),
        ("8 8 8 24", "8 8 8 1"),
        ("8 8 8 24", "8 16 8 24"),
        ("24 a: f32", "24 a: f64"),
        ("thread_row [0, 1, 2, 0, 4]", "thread_row [0, 1, 2, 0, 8]"),
        ("thread_row [0, 1, 2, 0, 4]", "thread_row [0, 1, 2, 0, 2]"),
        ("thread_row [0, 1, 2, 0, 4]", "thread_row [0, 1, 2, 0]"),
        ("element_row [0]", "element_row [0, 0]"),
    ] {
        assert_ne!(good, good.replacen(from, to, 1));
        assert_eq!(refused(&good.replacen(from, to, 1)), "units", "{to}");
        assert!(run(&parse(&good.replacen(from, to, 1)), &mut args(), &[], &GpuModel::default()).is_err(), "{to}");
    }
    let halves = good.replacen("c: f32 thread", "c: f16 thread", 1);
    assert_eq!(refused(&halves), "types");
}

/// A window of 3 x 3 over a padded picture, 64 pixels wide.
fn window(rows: usize, channels: usize) -> String {
    let (x, y) = (channels * rows * 64, rows * 64);
    format!(
        "kernel r\narg x: f32[{channels}, {rows}, 64] argument 0 global layout [0:{y}, 1:64, 2:1] len {x}\n\
         arg y: f32[{rows}, 64] output 0 global layout [0:64, 1:1] len {y} written\nbody {{\n\
         loop b:{rows} grid {{\nloop t:64 thread {{\n %0: f32 = const 0.0f32\n var %1: f32 = %0\n\
         loop c:{channels} serial reduce {{\nloop i:3 serial reduce {{\nloop j:3 serial reduce {{\n\
         %2: f32 = load x[c, b + i - 1, t + j - 1] @ {y}*c + 64*(b + i - 1) + t + j - 1\n\
         if 1 <= b + i and b + i <= {rows} and 1 <= t + j and t + j <= 64 else 0.0f32\n\
         %3: f32 = add %1, %2\n set %1 = %3\n}}\n}}\n}}\n store %1, y[b, t] @ 64*b + t\n}}\n}}\n}}\n"
    )
    .replace("- 1\nif", "- 1 if")
}

#[test]
fn pictures_of_any_size_are_counted() {
    let wanted = |rows: u64, channels: u64| {
        let at = |requests, bytes, sectors, least| {
            let times = channels * (3 * rows - 2);
            counts(times * requests, times * bytes, times * sectors, times * least, 0)
        };
        // Of two warps in three columns, one has 31 threads in the picture, and two begin off a sector.
        [at(6, 4 * 190, 4 + 5 + 4 + 4 + 5 + 4, 24), counts(2 * rows, 256 * rows, 8 * rows, 8 * rows, 0)]
    };
    let got = launch(&window(5, 3), &mut [numbers(5 * 3 * 64), vec![0; 5 * 256]]);
    assert_eq!(got.sites, wanted(5, 3));
    let large = sectors::count(&parse(&window(4096, 512)), &[], &GpuModel::default());
    assert_eq!(large, Some(wanted(4096, 512).to_vec()));
}

#[test]
fn what_cannot_be_counted_is_not() {
    let text = "kernel E\narg i: i32[32] argument 0 global layout [0:1] len 32\n\
        arg x: f32[32] argument 1 global layout [0:1] len 32\nbody {\nloop t:32 thread {\n\
        %0: i32 = load i[t] @ t\n %1: f32 = load x[0] @ 0 dynamic 0 = %0 size 32 stride 1\n}\n}\n";
    let code = parse(text);
    verify(&code).unwrap();
    let at: Vec<f64> = (0..32).map(|t| (t * 8) as f64).collect();
    let mut args = [Value::from_f64s(DType::I32, &[32], &at).to_bytes(), numbers(32)];
    let got = run(&code, &mut args, &[], &GpuModel::default()).unwrap();
    // 0, 8, 16, 24 and then 31, where the index is clamped.
    assert_eq!(got.sites[1], counts(1, 128, 4, 1, 0));
    assert_eq!(sectors::count(&code, &[], &GpuModel::default()), None);
    let n = 1 << 21;
    let many = format!(
        "kernel E\narg x: f32[{n}] argument 0 global layout [0:1] len {n}\nbody {{\n\
         loop b:{n} grid {{\nloop t:32 thread {{\n %0: f32 = load x[(b + t)/33] @ (b + t)/33\n}}\n}}\n}}\n"
    );
    assert_eq!(sectors::count(&parse(&many), &[], &GpuModel::default()), None);
}

#[test]
fn a_matrix_product_is_counted_as_it_runs() {
    let text = "kernel r\narg x: f32[64, 256] argument 0 global layout [0:256, 1:1] len 16384\n\
        arg y: f32[64, 64] output 0 global layout [0:64, 1:1] len 4096 written\nbody {\n\
        loop b:16 grid {\nloop t:256 thread {\n %0: f32 = const 0.0f32\n var %1: f32 = %0\n\
        loop k:256 serial reduce {\n %2: f32 = load x[4*b + t/64, k] @ 1024*b + 256*(t/64) + k\n\
        %3: f32 = load x[t%64, k] @ 256*(t%64) + k\n %4: f32 = fma %2, %3, %1\n set %1 = %4\n}\n\
        store %1, y[4*b + t/64, t%64] @ 256*b + t\n}\n}\n}\n";
    let code = parse(text);
    let mut args = [vec![0; 65536], vec![0; 16384]];
    let model = GpuModel::default();
    let counts = run(&code, &mut args, &[], &model).unwrap();
    assert_eq!(sectors::count(&code, &[], &model).unwrap(), counts.sites);
}
