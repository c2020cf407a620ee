//! Random kernels: the counts without a run are those of the virtual GPU, and its results those of the plain
//! interpreter.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::fmt::Write;
use winograph_ir::interp::gpu::{GpuModel, run};
use winograph_ir::interp::{InterpError, linear, sectors};
use winograph_ir::linear::Code;
use winograph_ir::text::parse_linear;

/// Choices drawn from a list of random numbers, then zeros.
struct Choices(std::vec::IntoIter<u64>);

impl Choices {
    fn below(&mut self, n: u64) -> u64 {
        self.0.next().unwrap_or(0) % n
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    /// A sum of multiples of ranges, quotients and remainders.
    fn expression(&mut self, ranges: &[String]) -> String {
        let mut out = format!("{}", self.below(9));
        for _ in 0..1 + self.below(4) {
            let (r, q) = (self.below(ranges.len() as u64) as usize, self.below(ranges.len() as u64) as usize);
            let (r, q) = (&ranges[r], &ranges[q]);
            let c = self.of(&[1, 1, 2, 3, 4, 8, 16, 32, 33]);
            let d = self.of(&[2, 3, 4, 8]);
            let _ = match self.below(8) {
                0 => write!(out, " + {c}*(({r} + {q})/{d})"),
                1 => write!(out, " + {c}*(({r} + 3*{q})%{d})"),
                2 => write!(out, " + {c}*n*{r}"),
                _ => write!(out, " + {c}*{r}"),
            };
        }
        out
    }

    fn gate(&mut self, ranges: &[String]) -> String {
        let at = self.below(40);
        let of = self.expression(ranges);
        let mut out = format!("{of} {} {at}", self.of(&["<", ">=", ">"]));
        if self.below(3) == 0 {
            let r = &ranges[self.below(ranges.len() as u64) as usize];
            let _ = write!(out, " and {r} >= 1");
        }
        out
    }
}

/// Elements of each memory, more than any expression reaches.
const LEN: usize = 16384;

struct Kernel {
    text: String,
    registers: usize,
}

impl Kernel {
    fn accesses(&mut self, c: &mut Choices, ranges: &[String]) {
        for _ in 0..1 + c.below(2) {
            let memory = c.of(&["x", "x", "h", "b", "w", "s", "p"]);
            let dtype = match memory {
                "h" => "f16",
                "b" => "u8",
                "w" => "f64",
                _ => "f32",
            };
            let n = self.registers;
            let base = c.expression(ranges);
            let gated = c.below(3) > 0;
            let t = &mut self.text;
            let lanes = c.of(&[1, 1, 2, 4, 8]);
            let _ = if lanes > 1 {
                let lane = format!("l{lanes}");
                let at = format!("{base} + {}*{lane}", c.of(&[1, 1, 1, 2, 5]));
                // A gate is linear in the lane.
                let own = if c.below(3) == 0 { format!("{lane} + ") } else { String::new() };
                let gate = if gated { format!(" if {own}{} else 1.0{dtype}", c.gate(ranges)) } else { String::new() };
                let gate = if dtype == "u8" { gate.replace("1.0u8", "1u8") } else { gate };
                writeln!(t, "%{n}: {dtype}x{lanes} = load lane {lane}:{lanes} {memory}[{at}] @ {at}{gate}")
                    .and_then(|()| writeln!(t, "%{}: {dtype} = fold add %{n}", n + 1))
            } else {
                let gate = if gated { format!(" if {} else 1.0{dtype}", c.gate(ranges)) } else { String::new() };
                let gate = if dtype == "u8" { gate.replace("1.0u8", "1u8") } else { gate };
                writeln!(t, "%{}: {dtype} = load {memory}[{base}] @ {base}{gate}", n + 1)
            };
            // Memory of the kernel's own holds NaN, which would hide what else is summed.
            if !matches!(memory, "s" | "p") {
                let (value, cast, sum) = (n + 1, n + 2, n + 3);
                let _ = writeln!(t, "%{cast}: f32 = cast %{value}\n%{sum}: f32 = add %0, %{cast}\nset %0 = %{sum}");
            }
            self.registers += 4;
        }
    }

    fn body(&mut self, c: &mut Choices, ranges: &[String], depth: u64) {
        self.accesses(c, ranges);
        for _ in 0..c.below(2 + (depth == 0) as u64) {
            let mut ranges = ranges.to_vec();
            if depth < 3 && c.below(2) == 0 {
                let name = format!("k{depth}");
                let size = c.of(&["2", "3", "5", "12", "n", "1"]);
                // The same name is the same size.
                let name = format!("{name}_{size}");
                let _ = writeln!(self.text, "loop {name}:{size} serial {{");
                ranges.push(name);
            } else {
                let _ = writeln!(self.text, "if {} {{", c.gate(&ranges));
            }
            self.body(c, &ranges, depth + 1);
            self.text.push_str("}\n");
        }
    }
}

fn random(entropy: Vec<u64>) -> (Code, i64, GpuModel, String) {
    let mut c = Choices(entropy.into_iter());
    let mut text = String::from("kernel r\nparam n 1..4\n");
    for (name, dtype, slot) in [("x", "f32", 0), ("h", "f16", 1), ("b", "u8", 2), ("w", "f64", 3)] {
        let _ = writeln!(text, "arg {name}: {dtype}[{LEN}] argument {slot} global layout [0:1] len {LEN}");
    }
    let _ = writeln!(text, "arg y: f32[{LEN}] output 0 global layout [0:1] len {LEN} written");
    let _ = writeln!(text, "local s: f32[{LEN}] internal shared layout [0:1] len {LEN}");
    let _ = writeln!(text, "local p: f32[{LEN}] internal scratch layout [0:1] len {LEN}\nbody {{");
    let mut ranges = Vec::new();
    let mut number = "0".to_string();
    for (letter, kind, sizes) in [("g", "grid", [1, 2, 3, 7]), ("t", "thread", [4, 8, 16, 3])] {
        for i in 0..1 + c.below(2) {
            let wide = kind == "thread" && i == 0 && c.below(2) == 0;
            let size = if wide { 32 } else { c.of(&sizes) };
            let _ = writeln!(text, "loop {letter}{i}:{size} {kind} {{");
            ranges.push(format!("{letter}{i}"));
            number = format!("{size}*({number}) + {letter}{i}");
        }
    }
    text.push_str("%1: f32 = const 0.0f32\nvar %0: f32 = %1\n");
    let mut k = Kernel { text, registers: 2 };
    k.body(&mut c, &ranges, 0);
    let _ = writeln!(k.text, "store %0, y[{number}] @ {number}");
    k.text.push_str(&"}\n".repeat(ranges.len() + 1));
    let code = parse_linear(&k.text).unwrap_or_else(|e| panic!("{e}\n{}", k.text));
    let model = match c.below(4) {
        0 => GpuModel { lanes: 8, sector_bytes: 64, banks: 16, bank_bytes: 8 },
        _ => GpuModel::default(),
    };
    (code, 1 + c.below(4) as i64, model, k.text)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, rng_seed: RngSeed::Fixed(3), ..ProptestConfig::default() })]

    #[test]
    fn counts_and_results_agree(entropy in proptest::collection::vec(any::<u64>(), 20..300)) {
        let (code, n, model, text) = random(entropy);
        let fill = |size: usize| (0..LEN * size).map(|i| (i * 7 % 61) as u8).collect::<Vec<u8>>();
        let mut args = [fill(4), fill(2), fill(1), fill(8), vec![0; 4 * LEN]];
        let mut plain = args.clone();
        let counts = run(&code, &mut args, &[n], &model);
        prop_assert!(counts.is_ok(), "{}\n{text}", counts.unwrap_err());
        let counts = counts.unwrap();
        let counted = sectors::count(&code, &[n], &model);
        prop_assert_eq!(counted.as_ref(), Some(&counts.sites), "n = {}, {:?}\n{}", n, model, text);
        linear::run(&code, &mut plain, &[n]).unwrap();
        prop_assert!(args == plain, "results differ\n{text}");
    }

    /// Damaged kernels are refused or run, without a panic.
    #[test]
    fn damaged_kernels(entropy in proptest::collection::vec(any::<u64>(), 20..60), hits in proptest::collection::vec(any::<u64>(), 12)) {
        let (_, _, model, text) = random(entropy);
        let mut c = Choices(hits.into_iter());
        let ends = [' ', '\n', '[', ']', '*', '+', ':', '%', '/', ')'];
        let mut words: Vec<String> = text.split_inclusive(&ends[..]).map(str::to_string).collect();
        let from = words.iter().position(|w| w == "body ").unwrap_or(0);
        for _ in 0..1 + c.below(3) {
            // A number, a range or a kind for another one, or a barrier somewhere.
            let groups: [&[&str]; 4] = [
                &["0", "1", "2", "3", "4", "7", "16", "33", "65536", "2305843009213693951"],
                &["g0", "t0", "n"],
                &["grid", "thread", "serial"],
                &["\n", "}\n", "{\nbarrier shared\n"],
            ];
            let group = groups[c.below(4) as usize];
            let start = from + c.below((words.len() - from) as u64) as usize;
            let head = |w: &str| w.trim_end_matches(&ends[..]).to_string();
            let is = |w: &str| group.contains(&w) || group.contains(&head(w).as_str());
            let Some(at) = (start..words.len()).find(|&at| is(&words[at])) else { continue };
            let tail = words[at][head(&words[at]).len()..].to_string();
            let new = c.of(group);
            words[at] = if new.ends_with('\n') { format!("{tail}{}", new.trim_start_matches('\n')) } else { format!("{new}{tail}") };
        }
        let text = words.concat();
        if let Ok(code) = parse_linear(&text)
            && (0..code.ints.range_count()).all(|r| code.ints.max_size(winograph_ir::RangeId(r as u32)) <= 64)
        {
            let args = || [4, 2, 1, 8, 4].map(|size| vec![0; size * LEN]);
            let refused = winograph_ir::verify::linear::verify(&code).is_err();
            let counts = run(&code, &mut args(), &[2], &model);
            if !refused {
                let plain = linear::run(&code, &mut args(), &[2]);
                prop_assert!(plain.is_ok() || text.contains("barrier"), "{:?}\n{text}", plain);
                // What no verifier looks for are races.
                prop_assert!(matches!(counts, Ok(_) | Err(InterpError::Race { .. })), "{:?}\n{text}", counts);
            }
            let counted = sectors::count(&code, &[2], &model);
            if let (Ok(counts), Some(counted)) = (&counts, &counted) {
                prop_assert_eq!(&counts.sites, counted, "{}", text);
            }
        }
    }
}
