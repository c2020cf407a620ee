//! The table that `bench conv` prints.

use crate::json::{Report, Row, Search};
use std::fmt::Write as _;

const TITLES: [&str; 11] = [
    "algorithm",
    "kernels",
    "compile ms",
    "prepare ms",
    "first ms",
    "min ms",
    "median ms",
    "GFLOP/s",
    "max abs err",
    "rel L2 err",
    "main kernel",
];

/// Columns of text; the first and the last lean left.
pub(crate) fn table(rows: &[Row]) -> String {
    let rows: Vec<[String; 11]> = rows.iter().map(cells).collect();
    let width = |i: usize| rows.iter().map(|r| r[i].chars().count()).chain([TITLES[i].len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..TITLES.len()).map(width).collect();
    let mut out = String::new();
    for row in std::iter::once(&TITLES.map(String::from)).chain(&rows) {
        let mut line = String::new();
        for (i, (cell, &w)) in row.iter().zip(&widths).enumerate() {
            let _ =
                if i == 0 || i + 1 == row.len() { write!(line, "{cell:<w$}  ") } else { write!(line, "{cell:>w$}  ") };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn cells(row: &Row) -> [String; 11] {
    let main = row.kernels.iter().max_by(|a, b| a.time_us.total_cmp(&b.time_us));
    let number = |v: f64, places: usize| if v.is_finite() { format!("{v:.places$}") } else { "-".to_string() };
    let error = |v: f64| if v.is_finite() { format!("{v:.2e}") } else { v.to_string() };
    [
        format!("{}{}", row.algo, if row.applied { "" } else { " *" }),
        row.kernels.len().to_string(),
        number(row.compile_ms, 1),
        number(row.prepare_ms, 4),
        number(row.first_ms, 4),
        number(row.min_ms, 4),
        number(row.median_ms, 4),
        number(row.gflops, 1),
        error(row.max_abs_err),
        error(row.rel_l2_err),
        main.map_or_else(|| "-".to_string(), |k| k.name.clone()),
    ]
}

/// What a search tried and found.
fn write_search(out: &mut String, algo: &str, search: &Search) {
    let timed = search.tried.iter().filter(|t| t.rounds > 0).count();
    let (all, seconds) = (search.tried.len(), search.seconds);
    let _ = write!(out, "{algo}: search of {seconds} s tried {all} plans and timed {timed}: ");
    let _ = match search.found {
        false => writeln!(out, "none is faster than the heuristics' beyond the noise"),
        true => writeln!(out, "the best takes {:.3} of the time of the heuristics'", search.time_over_heuristics),
    };
    for t in search.tried.iter().filter(|t| t.outcome == "faster") {
        let _ = writeln!(out, "  {:.3} of the time before it: {}", t.ratio, t.change);
    }
    for line in search.plan.lines().filter(|_| search.found) {
        let _ = writeln!(out, "  plan: {line}");
    }
    for file in &search.stored {
        let _ = writeln!(out, "  stored in {file}");
    }
    if let (Some(why), true) = (&search.not_stored, search.found) {
        let _ = writeln!(out, "  not stored: {why}");
    }
}

/// A list as it is given on the command line.
pub(crate) fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

/// The report for people.
pub(crate) fn text(report: &Report) -> String {
    let s = &report.shape;
    let mut out = format!(
        "{} with {} thread{}: input {}, weight {}, stride {}, padding {}, dilation {}, groups {}; {:.3} GFLOP as a direct sum\n\n",
        report.device,
        report.threads,
        if report.threads == 1 { "" } else { "s" },
        list(&s.input),
        list(&s.weight),
        list(&s.stride),
        list(&s.padding),
        list(&s.dilation),
        s.groups,
        report.flops as f64 / 1e9,
    );
    out.push_str(&table(&report.results));
    out.push('\n');
    for row in report.results.iter().filter(|r| r.kernels.iter().any(|k| k.accesses.iter().any(|a| a.moved.is_some())))
    {
        let _ = writeln!(out, "{}: what each launch moves", row.algo);
        for k in &row.kernels {
            let sizes = |list: &[i64]| list.iter().map(i64::to_string).collect::<Vec<_>>().join(" x ");
            let _ = writeln!(out, "  {} ({}), grid {}, block {}", k.name, k.role, sizes(&k.grid), sizes(&k.block));
            for a in &k.accesses {
                let _ = writeln!(out, "    {a}");
            }
        }
        out.push('\n');
    }
    for row in &report.results {
        let _ = match row.applied {
            true => writeln!(out, "{}: {}", row.algo, row.reason),
            false => writeln!(out, "{} *: not applied, figures are the direct form's: {}", row.algo, row.reason),
        };
        if let Some(memory) = &row.memory {
            let _ = writeln!(out, "{}: {memory}", row.algo);
        }
        for fate in &row.plans {
            let _ = writeln!(out, "{}: {fate}", row.algo);
        }
        if let Some(search) = &row.search {
            write_search(&mut out, row.algo, search);
        }
        if let Some(equal) = row.bitwise_equal_to_tensor {
            let _ = writeln!(
                out,
                "{}: bit for bit {} tensor's result",
                row.algo,
                if equal { "equal to" } else { "NOT equal to" }
            );
        }
    }
    out
}
