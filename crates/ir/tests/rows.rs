//! Operands of matrix units from shared memory: rows of small matrices, swizzled memory, and factors that a unit reads
//! itself. Values and counts are worked out on paper; what the verifier has to refuse is refused.

use winograph_ir::DType;
use winograph_ir::interp::gpu::{Counts, GpuModel, SiteCounts, run};
use winograph_ir::interp::{InterpError, Value, sectors};
use winograph_ir::linear::{Code, swizzled};
use winograph_ir::text::{parse_linear, print_linear};
use winograph_ir::verify::linear::verify;

fn parse(text: &str) -> Code {
    parse_linear(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// A kernel that the verifier accepts, run; its text is read again, and the counts without a run are the same.
fn launch(text: &str, args: &mut [Vec<u8>]) -> Counts {
    let code = parse(text);
    verify(&code).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(print_linear(&parse(&print_linear(&code))), print_linear(&code));
    let model = GpuModel::default();
    let counts = run(&code, args, &[], &model).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(sectors::count(&code, &[], &model).as_ref(), Some(&counts.sites));
    counts
}

fn refused(text: &str) -> &'static str {
    verify(&parse(text)).expect_err("the verifier accepts it").invariant
}

fn numbers(dtype: DType, n: usize) -> Vec<u8> {
    Value::from_f64s(dtype, &[n], &(0..n).map(|i| i as f64).collect::<Vec<_>>()).to_bytes()
}

/// A warp that copies 32 rows of some elements to shared memory and loads four matrices of 8 rows, the second half of the
/// row for the last two, of which each thread stores what it got.
fn rows(dtype: &str, swizzle: &str, pitch: usize, part: usize, transposed: &str) -> String {
    let row = 16 * part / 4 * 2;
    let (piece, len, got) = (row / 2, 32 * pitch, 4 * part);
    let row_of = format!("t%8 + 8*(t/8%2), {piece}*(t/16) + l");
    let at = format!("{pitch}*(t%8) + {}*(t/8%2) + {piece}*(t/16) + l", 8 * pitch);
    format!(
        "kernel r_32\narg x: {dtype}[32, {row}] argument 0 global layout [0:{row}, 1:1] len {}\n\
         arg y: {dtype}[32, {got}] output 0 global layout [0:{got}, 1:1] len {} written\n\
         local s: {dtype}[32, {row}] internal shared layout [0:{pitch}, 1:1] len {len}{swizzle} written\nbody {{\n\
         loop t:32 thread {{\n\
         loop i:32 serial {{\n %0: {dtype} = load x[i, t] @ {row}*i + t if t < {row} else 0.0{dtype}\n\
         store %0, s[i, t] @ {pitch}*i + t if t < {row}\n}}\nbarrier shared\n\
         %1: {dtype}x{got} = rows {transposed}lane l:{piece} s[{row_of}] @ {at}\n\
         store %1, lane g:{got} y[t, g] @ {got}*t + g\n}}\n}}\n",
        32 * row,
        32 * got,
    )
}

/// What a thread's lane holds: row and element of the copied rows.
fn place(thread: usize, lane: usize, part: usize, transposed: bool) -> (usize, usize) {
    let (matrix, e) = (lane / part, lane % part);
    let along = part * (thread % 4) + e;
    let (row, element) = if transposed { (along, thread / 4) } else { (thread / 4, along) };
    (row + 8 * (matrix % 2), element + 4 * part * (matrix / 2))
}

#[test]
fn threads_get_their_parts_of_matrices_whose_rows_they_name() {
    for (dtype, name, part, transposed) in [
        (DType::F16, "f16", 2, false),
        (DType::F16, "f16", 2, true),
        (DType::BF16, "bf16", 2, false),
        (DType::F32, "f32", 1, false),
    ] {
        let row = 8 * part;
        let text = rows(name, "", row, part, if transposed { "transposed " } else { "" });
        let mut args = [numbers(dtype, 32 * row), vec![0; 32 * 4 * part * dtype.size()]];
        launch(&text, &mut args);
        let got = Value::from_bytes(dtype, &[32 * 4 * part], &args[1]).to_f64s();
        let given = Value::from_bytes(dtype, &[32 * row], &args[0]).to_f64s();
        for t in 0..32 {
            for lane in 0..4 * part {
                let (r, e) = place(t, lane, part, transposed);
                assert_eq!(got[t * 4 * part + lane], given[r * row + e], "{name} {transposed} thread {t} lane {lane}");
            }
        }
    }
}

#[test]
fn rows_in_one_bank_wait_and_swizzled_ones_do_not() {
    // Rows 128 bytes apart are in the same banks: seven of eight wait, for each of four matrices.
    let conflicts = |swizzle: &str, pitch: usize| {
        let mut args = [numbers(DType::F16, 32 * 16), vec![0; 32 * 8 * 2]];
        let got = launch(&rows("f16", swizzle, pitch, 2, ""), &mut args);
        let SiteCounts { requests, bytes, bank_conflicts, .. } = got.sites[2];
        assert_eq!((requests, bytes), (1, 512));
        (args[1].clone(), bank_conflicts)
    };
    let (plain, swizzled) = (conflicts("", 64), conflicts(" swizzle 128", 64));
    assert_eq!((plain.1, swizzled.1), (28, 0));
    // What is where is nobody's business.
    assert_eq!(plain.0, swizzled.0);
    // Two rows in 128 bytes, and padded rows.
    assert_eq!(conflicts(" swizzle 64", 32).1, 0);
    assert_eq!(conflicts("", 72).1, 0);
}

#[test]
fn swizzles_permute_pieces_within_1024_bytes() {
    for swizzle in [32, 64, 128] {
        let mut all: Vec<i64> = (0..2048).map(|b| swizzled(b, swizzle)).collect();
        assert!((0..2048).all(|b| all[b as usize] / 128 == b / 128 && all[b as usize] % 16 == b % 16));
        all.sort_unstable();
        assert_eq!(all, (0..2048).collect::<Vec<_>>());
    }
    assert_eq!((swizzled(128, 128), swizzled(7 * 128 + 16, 128)), (144, 7 * 128 + 96));
    assert_eq!((swizzled(128, 64), swizzled(4 * 128, 64)), (144, 4 * 128));
}

#[test]
fn rows_that_are_none_are_refused() {
    let good = rows("f16", "", 16, 2, "");
    verify(&parse(&good)).unwrap();
    for (from, to, invariant) in [
        ("internal shared", "internal scratch", "rows"),
        // Not at 16 bytes; and beyond the memory.
        ("8*(t/16) + l] @", "7*(t/16) + l] @", "address"),
        (
            "s[t%8 + 8*(t/8%2), 8*(t/16) + l] @ 16*(t%8) + 128*(t/8%2) + 8*(t/16) + l",
            "s[t%8, l + t%8] @ 17*(t%8) + l",
            "rows",
        ),
        ("s[t%8 + 8*(t/8%2), 8*(t/16) + l] @ 16*(t%8) + 128*(t/8%2)", "s[t + 8, 8*(t/16) + l] @ 16*t + 128", "bounds"),
        ("len 512 written", "len 512 swizzle 128 written", ""),
        ("len 512 written", "len 512 swizzle 48 written", "memory"),
    ] {
        assert_ne!(good, good.replacen(from, to, 1), "{from}");
        let text = good.replacen(from, to, 1);
        match invariant {
            "" => verify(&parse(&text)).unwrap(),
            _ => assert_eq!(refused(&text), invariant, "{to}"),
        }
    }
    let transposed = rows("f32", "", 8, 1, "transposed ");
    assert_eq!(refused(&transposed), "types");
    // A part of a warp.
    let text = good.replacen("%1: f16x8", "if t < 16 {\n%1: f16x8", 1).replacen("8*t + g\n}", "8*t + g\n}\n}", 1);
    assert_eq!(refused(&text), "rows");
    let mut args = [numbers(DType::F16, 512), vec![0; 512]];
    let e = run(&parse(&text), &mut args, &[], &GpuModel::default());
    assert!(matches!(e, Err(InterpError::Malformed { .. })), "{e:?}");
}

/// A group of 128 threads that multiplies 64 × 64 by 64 × 64 (the second factor by columns) from shared memory.
fn tiles(change: &[(&str, &str)]) -> String {
    let unit = "unit big 64 64 64 24 \
        a: f16 thread_row [0, 0, 1, 2, 4, 16, 32] thread_col [2, 4, 0, 0, 0, 0, 0] element_row [0, 8, 0, 0, 0] element_col [1, 0, 8, 16, 32] \
        b: f16 thread_row [2, 4, 0, 0, 0, 16, 32] thread_col [0, 0, 1, 2, 4, 0, 0] element_row [1, 8, 0, 0, 0] element_col [0, 0, 8, 16, 32] \
        c: f32 thread_row [0, 0, 1, 2, 4, 16, 32] thread_col [2, 4, 0, 0, 0, 0, 0] element_row [0, 8, 0, 0, 0] element_col [1, 0, 8, 16, 32]";
    let text = format!(
        "kernel r_128\narg x: f16[64, 64] argument 0 global layout [0:64, 1:1] len 4096\n\
         arg w: f16[64, 64] argument 1 global layout [0:64, 1:1] len 4096\n\
         arg y: f32[128, 32] output 0 global layout [0:32, 1:1] len 4096 written\n\
         local p: f16[64, 64] internal shared layout [0:64, 1:1] len 4096 swizzle 128 written\n\
         local q: f16[64, 64] internal shared layout [0:64, 1:1] len 4096 swizzle 128 written\n{unit}\nbody {{\n\
         loop t:128 thread {{\n\
         loop i:4 serial {{\n\
         %0: f16x8 = load lane l:8 x[16*i + t/8, 8*(t%8) + l] @ 1024*i + 64*(t/8) + 8*(t%8) + l\n\
         store %0, lane l:8 p[16*i + t/8, 8*(t%8) + l] @ 1024*i + 64*(t/8) + 8*(t%8) + l\n\
         %1: f16x8 = load lane l:8 w[16*i + t/8, 8*(t%8) + l] @ 1024*i + 64*(t/8) + 8*(t%8) + l\n\
         store %1, lane l:8 q[16*i + t/8, 8*(t%8) + l] @ 1024*i + 64*(t/8) + 8*(t%8) + l\n}}\n\
         barrier shared\n\
         %2: f32 = const 1.0f32\n %3: f32x32 = splat %2\n\
         %4: f32x32 = tiles big %3, row r:64 lane k:64 p[r, k] @ 64*r + k from 0, row c:64 lane k:64 q[c, k] @ 64*c + k from 0\n\
         store %4, lane g:32 y[t, g] @ 32*t + g\n}}\n}}\n"
    );
    change.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    })
}

fn factors() -> [Vec<u8>; 3] {
    let of = |seed: usize| (0..4096).map(|i| ((i * seed) % 7) as f64 - 3.0).collect::<Vec<_>>();
    let half = |v: Vec<f64>| Value::from_f64s(DType::F16, &[4096], &v).to_bytes();
    [half(of(5)), half(of(11)), vec![0; 4096 * 4]]
}

#[test]
fn units_read_factors_from_shared_memory() {
    let mut args = factors();
    launch(&tiles(&[]), &mut args);
    let [x, w] = [0, 1].map(|n| Value::from_bytes(DType::F16, &[4096], &args[n]).to_f64s());
    let y = Value::from_bytes(DType::F32, &[4096], &args[2]).to_f64s();
    let unit = parse(&tiles(&[])).units[0].clone();
    for t in 0..128 {
        for e in 0..32 {
            let (row, col) = unit.c.place(t, e);
            let at = |m: &[f64], i: u32, k: usize| m[i as usize * 64 + k];
            let wanted: f64 = 1.0 + (0..64).map(|k| at(&x, row, k) * at(&w, col, k)).sum::<f64>();
            assert_eq!(y[(t * 32 + e) as usize], wanted, "thread {t} element {e}");
        }
    }
}

#[test]
fn factors_that_are_no_tiles_are_refused() {
    for (from, to, invariant) in [
        ("len 4096 swizzle 128 written", "len 4096 swizzle 64 written", "tiles"),
        ("len 4096 swizzle 128 written", "len 4096 written", "tiles"),
        ("from 0, row c", "from 64, row c", "tiles"),
        ("64*r + k from 0", "64*r + k from 512*(t/64)", "tiles"),
        (
            "row r:64 lane k:64 p[r, k] @ 64*r + k from 0",
            "row r:64 lane k:64 p[r + 8, k] @ 64*r + k + 512 from 512",
            "bounds",
        ),
        ("row r:64 lane", "row r:32 lane", "types"),
    ] {
        assert_eq!(refused(&tiles(&[(from, to)])), invariant, "{to}");
    }
    // Threads that run on before others have written.
    let text = tiles(&[("barrier shared\n", "")]);
    let e = run(&parse(&text), &mut factors(), &[], &GpuModel::default());
    assert!(matches!(e, Err(InterpError::Race { .. })), "{e:?}");
    let part = tiles(&[("%4: f32x32", "if t < 64 {\n%4: f32x32"), ("32*t + g\n}", "32*t + g\n}\n}")]);
    assert_eq!(refused(&part), "units");
}
