//! `explain --html`: one page that shows what was decided and what it costs, with everything in it: no script, no font,
//! nothing from elsewhere. The same program gives the same page, byte for byte: times are not in it.

mod graph;
mod lanes;
pub(crate) mod mark;
mod nest;

use crate::kernels::{self, Touch};
use crate::warp::{self, Picture};
use mark::{count, esc, sizes};
use std::fmt::Write as _;
use winograph_compiler::explain::{KernelReport, NestReport};
use winograph_compiler::schedule::layout::Choice;
use winograph_compiler::sketch::Sketch;
use winograph_compiler::{Explanation, Program, Step, Target};

/// A program and how it came about, under one pair of rules.
pub(crate) struct Side {
    /// Names of the rules for layouts and for grids.
    pub(crate) rules: (&'static str, &'static str),
    pub(crate) program: Program,
    pub(crate) explanation: Explanation,
}

/// What a page is about.
pub(crate) struct Page {
    /// What is explained.
    pub(crate) title: String,
    /// The command's arguments, in words.
    pub(crate) about: String,
    /// The verdict on the algorithm.
    pub(crate) verdict: String,
    pub(crate) target: Target,
    /// Layouts in creation order and grids by the numbers of ranges.
    pub(crate) old: Side,
    /// What was asked for.
    pub(crate) new: Side,
    /// Both rules for layouts with both for grids, and the sectors of a run.
    pub(crate) square: Vec<(&'static str, &'static str, Option<u64>)>,
}

/// One step of a side with what is known of it.
struct Shown<'a> {
    report: &'a KernelReport,
    touches: Vec<Touch>,
    pictures: Vec<Picture>,
    grid: Vec<i64>,
    block: Vec<i64>,
}

impl Shown<'_> {
    fn outputs(&self) -> Vec<&str> {
        self.report.nests.iter().map(|n| n.output.as_str()).collect()
    }

    /// Sectors moved and the least, of global memory; `None` where they were not counted.
    fn moved(&self) -> Option<(u64, u64)> {
        self.touches.iter().filter(|t| t.space == "global").try_fold((0, 0), |sum: (u64, u64), t| {
            let m = t.moved?;
            Some((sum.0.saturating_add(m.sectors), sum.1.saturating_add(m.least_sectors)))
        })
    }

    /// What the accesses of one kind to one buffer move.
    fn access(&self, kind: &str, buffer: &str) -> Option<(u64, u64, u32)> {
        let mine = self.touches.iter().filter(|t| t.kind == kind && t.buffer == buffer && t.space == "global");
        mine.map(|t| Some((t.moved?.sectors, t.moved?.least_sectors, t.vector)))
            .try_fold((0u64, 0u64, 1u32), |a, b| b.map(|b| (a.0 + b.0, a.1 + b.1, a.2.max(b.2))))
            .filter(|s| s.0 > 0)
    }
}

fn shown<'a>(side: &'a Side, target: &Target) -> Vec<Shown<'a>> {
    let steps = side.program.prepare.iter().chain(&side.program.run);
    side.explanation
        .kernels
        .iter()
        .zip(steps)
        .filter(|(report, _)| report.is_first())
        .filter_map(|(report, step): (&KernelReport, &Step)| {
            let code = side.program.kernels.get(step.kernel)?;
            let counts = target.gpu.as_ref().and_then(|gpu| kernels::counts(code, gpu));
            Some(Shown {
                report,
                touches: kernels::touches(&side.program, step, counts.as_deref()),
                pictures: target.gpu.as_ref().map_or_else(Vec::new, |gpu| warp::pictures(&side.program, step, gpu)),
                grid: kernels::grid(code),
                block: kernels::block(code),
            })
        })
        .collect()
}

/// Sectors of global memory that one run moves, without what is prepared; `None` where they are not counted.
pub(crate) fn sectors(program: &Program, target: &Target) -> Option<u64> {
    let gpu = target.gpu.as_ref()?;
    program.run.iter().try_fold(0u64, |sum, step| {
        let counts = kernels::counts(program.kernels.get(step.kernel)?, gpu)?;
        let touches = kernels::touches(program, step, Some(&counts));
        Some(
            sum + touches
                .iter()
                .filter(|t| t.space == "global")
                .filter_map(|t| t.moved)
                .map(|m| m.sectors)
                .sum::<u64>(),
        )
    })
}

/// The page.
pub(crate) fn page(page: &Page) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut out, page);
    out
}

fn write(out: &mut String, page: &Page) -> std::fmt::Result {
    let (old, new) = (shown(&page.old, &page.target), shown(&page.new, &page.target));
    writeln!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>{}</title>\n<style>\n{}</style>\n\
         </head>\n<body>",
        esc(&page.title),
        include_str!("page.css")
    )?;
    writeln!(
        out,
        "<header>\n<h1>{}</h1>\n<p class=\"soft\">{}</p>\n<p>{}</p>\n<nav><a href=\"#moves\">What moves</a>\
         <a href=\"#kernels\">Kernels</a><a href=\"#layouts\">Layouts</a><a href=\"#passes\">Passes</a></nav>\n</header>\n<main>",
        esc(&page.title),
        esc(&page.about),
        esc(&page.verdict)
    )?;
    summary(out, page, &old, &new)?;
    writeln!(out, "<h2 id=\"kernels\">Kernels</h2>")?;
    legend(out, page)?;
    for (n, k) in new.iter().enumerate() {
        let before = old.iter().find(|o| o.outputs() == k.outputs());
        kernel(out, page, n, before, k)?;
    }
    layouts(out, page)?;
    passes(out, page)?;
    writeln!(
        out,
        "</main>\n<footer>Counts are exact: every class of warps with the same pattern of addresses is gone through. \
         Drawings show one warp in the middle of the launch. Estimates beside candidates come from the first, a middle and \
         the last block.</footer>\n</body>\n</html>"
    )
}

fn rules(side: &Side) -> String {
    format!("layout {}, grid {}", side.rules.0, side.rules.1)
}

fn summary(out: &mut String, page: &Page, old: &[Shown<'_>], new: &[Shown<'_>]) -> std::fmt::Result {
    writeln!(out, "<h2 id=\"moves\">What moves</h2>")?;
    if page.target.gpu.is_none() {
        return writeln!(
            out,
            "<p>{} has no warps whose sectors could be counted: below are the kernels, their loops and what each pass did. \
             A GPU as <code>--target</code> adds addresses.</p>",
            esc(&page.target.name)
        );
    }
    let total = |side: &[Shown<'_>]| -> Option<(u64, u64)> {
        side.iter().filter(|k| !k.report.prepare).try_fold((0, 0), |sum: (u64, u64), k| {
            let m = k.moved()?;
            Some((sum.0 + m.0, sum.1 + m.1))
        })
    };
    let (before, after) = (total(old), total(new));
    writeln!(
        out,
        "<p>Memory moves in sectors of 32 aligned bytes. A warp whose lanes touch neighbours moves few of them, one whose \
         lanes are far apart moves one for each lane. These are the sectors of one run, without what is prepared once.</p>"
    )?;
    if let (Some(b), Some(a)) = (before, after) {
        let times = b.0 as f64 / a.0.max(1) as f64;
        writeln!(
            out,
            "<div class=\"cards\">\n<div class=\"card old\"><b>{}</b><span>old rules: {}</span></div>\n\
             <div class=\"card new\"><b>{}</b><span>these rules: {}</span></div>\n\
             <div class=\"card least\"><b>{}</b><span>the least that could hold the bytes of each request</span></div>\n\
             <div class=\"card\"><b>{times:.2}×</b><span>fewer sectors than under the old rules</span></div>\n</div>",
            count(b.0),
            esc(rules(&page.old)),
            count(a.0),
            esc(rules(&page.new)),
            count(a.1),
        )?;
    }
    let most = old.iter().chain(new).filter_map(|k| k.moved()).map(|m| m.0).max().unwrap_or(1).max(1);
    writeln!(
        out,
        "<div class=\"scroll\"><table class=\"bars\">\n<tr><th>writes</th><th>sectors a launch: <span style=\"color:var(--old)\">\
         old</span>, <span style=\"color:var(--new)\">new</span>, <span style=\"color:var(--least)\">least</span></th>\
         <th class=\"n\">old</th><th class=\"n\">new</th><th class=\"n\">new / least</th></tr>"
    )?;
    for k in new {
        let before = old.iter().find(|o| o.outputs() == k.outputs()).and_then(Shown::moved);
        let Some(after) = k.moved() else {
            writeln!(
                out,
                "<tr><td>{}</td><td>addresses depend on data: not counted</td><td></td><td></td><td></td></tr>",
                esc(k.outputs().join(", "))
            )?;
            continue;
        };
        let part = |n: u64| n as f64 / most as f64 * 100.0;
        writeln!(
            out,
            "<tr><td>{}<br/><span class=\"soft\">{}{}</span></td><td class=\"wide\"><div class=\"bar old\" style=\"width:{:.2}%\">\
             </div><div class=\"bar new\" style=\"width:{:.2}%\"></div><div class=\"bar least\" style=\"width:{:.2}%\"></div></td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{:.2}</td></tr>",
            esc(k.outputs().join(", ")),
            esc(k.report.role.name().replace('_', " ")),
            if k.report.prepare { ", once" } else { "" },
            part(before.map_or(0, |b| b.0)),
            part(after.0),
            part(after.1),
            before.map_or_else(|| "-".to_string(), |b| count(b.0)),
            count(after.0),
            after.0 as f64 / after.1.max(1) as f64
        )?;
    }
    writeln!(out, "</table></div>")?;
    writeln!(
        out,
        "<h4>Both rules with both rules</h4>\n<p>Which of the two did it? A layout says where elements lie, a grid which \
         of them a warp touches together.</p>\n<div class=\"scroll\"><table id=\"square\"><tr><th>layout</th><th>grid</th>\
         <th class=\"n\">sectors of a run</th><th class=\"n\">of the old rules&#39;</th></tr>"
    )?;
    let base = page.square.iter().find(|s| (s.0, s.1) == ("creation", "range-id")).and_then(|s| s.2);
    let best = page.square.iter().filter_map(|s| s.2).min();
    for (layout, grid, n) in &page.square {
        let won = if n.is_some() && *n == best { " class=\"won\"" } else { "" };
        let share =
            n.zip(base).map_or_else(|| "-".to_string(), |(n, b)| format!("{:.0} %", 100.0 * n as f64 / b as f64));
        writeln!(
            out,
            "<tr{won}><td>{layout}</td><td>{grid}</td><td class=\"n\">{}</td><td class=\"n\">{share}</td></tr>",
            n.map_or_else(|| "not counted".to_string(), count)
        )?;
    }
    writeln!(out, "</table></div>")
}

fn legend(out: &mut String, page: &Page) -> std::fmt::Result {
    writeln!(out, "<div class=\"legend\">")?;
    for (kind, what) in nest::KINDS {
        writeln!(out, "<span class=\"k-{kind}\"><b>{kind}</b><i>{}</i></span>", esc(what))?;
    }
    writeln!(out, "</div>")?;
    if let Some(gpu) = &page.target.gpu {
        writeln!(
            out,
            "<div class=\"legend\"><span>lane 0 <em class=\"ramp\"></em> lane {}</span><span><i>each row of a drawing is a \
             sector: on the left the lanes that touch it, on the right its bytes, coloured by the lane that asks for them; \
             pale bytes are moved and not used</i></span></div>",
            gpu.lanes - 1
        )?;
    }
    Ok(())
}

fn kernel(out: &mut String, page: &Page, n: usize, old: Option<&Shown<'_>>, new: &Shown<'_>) -> std::fmt::Result {
    let role = new.report.role.name().replace('_', " ");
    writeln!(
        out,
        "<section class=\"kernel\" id=\"k{n}\" data-kernel=\"{}\">\n<header><h3>{} <span class=\"soft\">writes {}{}</span></h3></header>",
        esc(&new.report.name),
        esc(&role),
        esc(new.outputs().join(", ")),
        if new.report.prepare { ", once: it depends on constants alone" } else { "" }
    )?;
    writeln!(out, "<div class=\"two\">")?;
    for (class, which, side, k) in [("old", "old rules", &page.old, old), ("new", "these rules", &page.new, Some(new))]
    {
        writeln!(
            out,
            "<div class=\"side\"><span class=\"tag {class}\">{which}</span> <span class=\"soft\">{}</span>",
            esc(rules(side))
        )?;
        match k {
            None => writeln!(out, "<p>There is no kernel that writes the same under these rules.</p>")?,
            Some(k) => {
                writeln!(
                    out,
                    "<p class=\"kname\">{}<br/><span class=\"soft\">{}</span></p>",
                    esc(&k.report.name),
                    esc(match &k.block[..] {
                        [] => format!("grid {}", sizes(&k.grid)),
                        block => format!("grid {}, block {}", sizes(&k.grid), sizes(block)),
                    })
                )?;
                for report in &k.report.nests {
                    let touches: Vec<String> = k
                        .touches
                        .iter()
                        .filter(|t| k.report.nests.len() == 1 || t.buffer == report.output)
                        .map(|t| format!("{} {}", t.kind, t.buffer))
                        .collect();
                    out.push_str(&nest::html(report, &touches));
                }
            }
        }
        writeln!(out, "</div>")?;
    }
    writeln!(out, "</div>")?;
    accesses(out, page, old, new)?;
    for report in &new.report.nests {
        costs(out, report, true)?;
    }
    for report in old.iter().flat_map(|o| &o.report.nests) {
        costs(out, report, false)?;
    }
    writeln!(out, "</section>")
}

/// Each access with its drawing under both rules.
fn accesses(out: &mut String, page: &Page, old: Option<&Shown<'_>>, new: &Shown<'_>) -> std::fmt::Result {
    let Some(gpu) = &page.target.gpu else { return Ok(()) };
    for p in &new.pictures {
        let was = old.and_then(|o| o.pictures.iter().find(|q| q.buffer == p.buffer && q.kind == p.kind));
        writeln!(
            out,
            "<article class=\"access\" data-access=\"{} {}\">\n<div class=\"head2\"><h3>{} <code>{}</code></h3>\
             <span class=\"soft\">{}</span></div>\n<div class=\"two\">",
            p.kind,
            esc(&p.buffer),
            p.kind,
            esc(&p.buffer),
            match p.alike {
                1 => "once in the code".to_string(),
                n => format!("one of {n} in the code"),
            }
        )?;
        let sides = [("old", "old rules", was, old), ("new", "these rules", Some(p), Some(new))];
        for (class, which, picture, k) in sides {
            writeln!(out, "<figure class=\"figure\"><figcaption><span class=\"tag {class}\">{which}</span> ")?;
            if let Some((moved, least, vector)) = k.and_then(|k| k.access(p.kind, &p.buffer)) {
                writeln!(
                    out,
                    "a launch moves <b>{}</b> sectors, {:.2} × the least of {}{}",
                    count(moved),
                    moved as f64 / least.max(1) as f64,
                    count(least),
                    if vector > 1 { format!("; vectors of {vector}") } else { String::new() }
                )?;
            }
            match picture {
                Some(p) => {
                    let (svg, words) = p.svg(gpu);
                    writeln!(out, "<br/>{}</figcaption>\n{svg}</figure>", esc(words))?;
                }
                None => writeln!(out, "no such access</figcaption></figure>")?,
            }
        }
        writeln!(out, "</div>\n</article>")?;
    }
    Ok(())
}

/// The assignments of threads that were evaluated.
fn costs(out: &mut String, nest: &NestReport, open: bool) -> std::fmt::Result {
    let grid = &nest.grid;
    if let Some(stored) = &nest.stored {
        let what = match stored {
            Ok(()) => "a stored plan was replayed".to_string(),
            Err(why) => format!("a stored plan does not fit: {why}"),
        };
        writeln!(out, "<p class=\"soft\">{}</p>", esc(what))?;
    }
    if let Some(line) = kernels::block_order(grid).filter(|_| open) {
        writeln!(out, "<p class=\"soft\">{}</p>", esc(line))?;
    }
    if grid.candidates.is_empty() {
        return Ok(());
    }
    let rules = if open { "these rules" } else { "the old rules" };
    writeln!(
        out,
        "<details{}><summary>Threads under {rules}: {} assignments were evaluated, the best {} are shown</summary>\n\
         <p>{}. Estimates at one element a thread, weighted by how often each access runs.</p>\n<div class=\"scroll\"><table \
         class=\"costs\"><tr><th>threads, the fastest first</th>",
        if open { " open=\"open\"" } else { "" },
        grid.evaluated,
        grid.candidates.len(),
        esc(&grid.reason)
    )?;
    for a in &grid.accesses {
        writeln!(out, "<th class=\"n\">{}</th>", esc(a))?;
    }
    writeln!(out, "<th class=\"n\">sectors</th></tr>")?;
    for (n, c) in grid.candidates.iter().enumerate() {
        writeln!(
            out,
            "<tr{}><td><code>{}</code></td>",
            if Some(n) == grid.chosen { " class=\"won\"" } else { "" },
            esc(&c.threads)
        )?;
        for a in &c.accesses {
            writeln!(out, "<td class=\"n\">{}</td>", count(a.round().max(0.0) as u64))?;
        }
        writeln!(out, "<td class=\"n\">{}</td></tr>", count(c.sectors.round().max(0.0) as u64))?;
    }
    writeln!(out, "</table></div></details>")
}

/// The compiler's own buffers: which axis is contiguous, and what the others would have cost.
fn layouts(out: &mut String, page: &Page) -> std::fmt::Result {
    let unit = if page.target.gpu.is_some() { "sectors" } else { "vector instructions" };
    writeln!(
        out,
        "<h2 id=\"layouts\">Layouts</h2>\n<p>A buffer that the compiler owns has no natural order of axes. For each axis that \
         could be contiguous: the {unit} of all kernels that touch the buffer, each with its best lanes and the other buffers as \
         they are.</p>"
    )?;
    if page.new.explanation.layouts.is_empty() {
        writeln!(out, "<p>This program has no buffers of its own.</p>")?;
    }
    for l in &page.new.explanation.layouts {
        let old = page.old.explanation.layouts.iter().find(|o| o.buffer == l.buffer);
        // Axes by their sizes: under the two rules the same number may be another axis.
        let order = |c: &Choice| {
            let name = |&a: &usize| format!("{a}:{}", c.shape.get(a).copied().unwrap_or(1));
            c.order.iter().map(name).collect::<Vec<_>>().join(" ")
        };
        writeln!(
            out,
            "<h4>{}</h4>\n<p>Axes as number:size, slowest first: <code>{}</code>{}. {}.</p>\n<div class=\"scroll\"><table \
             class=\"costs\"><tr><th>contiguous axis</th><th class=\"n\">of size</th><th class=\"n\">{unit}</th></tr>",
            esc(&l.buffer),
            order(l),
            old.map_or_else(String::new, |o| format!("; under {} <code>{}</code>", esc(rules(&page.old)), order(o))),
            esc(&l.reason)
        )?;
        let chosen = l.order.last().copied();
        for &(axis, cost) in &l.candidates {
            writeln!(
                out,
                "<tr{}><td>{axis}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
                if Some(axis) == chosen { " class=\"won\"" } else { "" },
                l.shape.get(axis).copied().unwrap_or(1),
                count(cost.round().max(0.0) as u64)
            )?;
        }
        writeln!(out, "</table></div>")?;
    }
    Ok(())
}

/// What each pass is for.
fn purpose(pass: &str) -> &'static str {
    match pass {
        "rangeify" => "movement, padding and broadcasting become index arithmetic; what is named is a stage",
        "winograd" => "sums of products over a sliding window become transforms and a product",
        "block sums" => "long sums become sums of sums of blocks",
        "fuse" => "each stage is kept, or computed where it is read",
        "split" => "a kernel for each stage that is kept",
        "legalize" => "half floats compute in f32, exp and its kin are polynomials",
        "scope" => "chains of kernels become one launch where that is faster",
        "flatten" => "axes that are only walked along together become one",
        "canonical" => "axes are numbered by what they mean, whatever order a rewrite made them in",
        "layout" => "the compiler's own buffers get an order of axes",
        "plan" => "every axis gets its kinds: grid, thread, loop, unroll, vector",
        "schedule" => "the plan is applied; the kernel's name lists its axes",
        "lower" => "ordered code with vectors and gates",
        "link" => "the codes of a launch become one",
        "memory" => "buffers get places; what depends on constants alone is prepared",
        _ => "",
    }
}

fn passes(out: &mut String, page: &Page) -> std::fmt::Result {
    writeln!(
        out,
        "<h2 id=\"passes\">Passes</h2>\n<p>What each pass left, under {}. Boxes with square corners are kernels, dashed ones \
         memory of the caller&#39;s, round ones values and buffers. What a pass made is filled, what it changed has a thick \
         border, and lines that are new are underlined.</p>",
        esc(rules(&page.new))
    )?;
    let mut before: Option<&Sketch> = None;
    for p in &page.new.explanation.passes {
        writeln!(
            out,
            "<section class=\"pass\" data-pass=\"{}\"><h3>{} <span>{}</span></h3>",
            esc(p.name),
            esc(p.name),
            esc(purpose(p.name))
        )?;
        match &p.sketch {
            Some(s) if !graph::same(s, before) => {
                let gone = graph::gone(s, before);
                let kernels =
                    |s: &Sketch| s.nodes.iter().any(|n| n.kind == winograph_compiler::sketch::NodeKind::Kernel);
                // Stages become kernels and buffers with new names: that all of them are new says nothing.
                let comparable = before.filter(|b| kernels(b) == kernels(s));
                writeln!(
                    out,
                    "<div class=\"scroll\">{}</div>",
                    graph::svg(s, comparable, &format!("the program after {}", p.name))
                )?;
                if comparable.is_some() && !gone.is_empty() {
                    writeln!(out, "<p class=\"soft\">gone: {}</p>", esc(gone.join(", ")))?;
                }
                before = Some(s);
            }
            _ => writeln!(out, "<p class=\"soft\">Nothing that shows here.</p>")?,
        }
        writeln!(out, "</section>")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
