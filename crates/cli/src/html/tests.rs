//! The page as a document: well-formed, self-contained, complete, the same each time.

use super::*;
use winograph::{ArgSpec, DType, TensorBuffer};
use winograph_compiler::options::{GridRule, LayoutRule};
use winograph_compiler::{Algorithm, Options};

fn side(target: &Target, layout: LayoutRule, grid: GridRule) -> Side {
    let w = TensorBuffer::new(DType::F32, &[8, 4, 3, 3]).unwrap().into_tensor();
    let options = Options { algorithm: Algorithm::Winograd, layout, grid, ..Options::default() };
    let (program, explanation) =
        winograph::plan(&[ArgSpec::new(DType::F32, &[1, 4, 16, 16])], target, &options, true, |args| {
            Ok(vec![args[0].conv_direct(&w, None, &winograph::ConvOptions::padding(1))?])
        })
        .unwrap();
    Side { rules: (layout.name(), grid.name()), program, explanation }
}

fn example(target: &str) -> Page {
    let target = Target::by_name(target).unwrap();
    let new = side(&target, LayoutRule::Auto, GridRule::Auto);
    let old = side(&target, LayoutRule::Creation, GridRule::RangeId);
    let square = vec![
        ("creation", "range-id", sectors(&old.program, &target)),
        ("auto", "auto", sectors(&new.program, &target)),
    ];
    let text = |t: &str| t.to_string();
    Page { title: text("A page"), about: text("about"), verdict: text("verdict"), target, old, new, square }
}

/// Reads a document and gives its elements' names in order; every element is closed in its turn, every attribute is in
/// quotes, and there is no stray `<` or `&`.
fn elements(text: &str) -> Vec<String> {
    let body = text.strip_prefix("<!DOCTYPE html>").expect("a document type");
    let (mut open, mut all): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let mut rest = body;
    while let Some(at) = rest.find('<') {
        let between = &rest[..at];
        for part in between.split('&').skip(1) {
            let entity = part.split(';').next().unwrap();
            assert!(["amp", "lt", "gt", "quot", "#39"].contains(&entity), "a bare & before {part:?}");
        }
        let end = at + rest[at..].find('>').expect("a tag ends");
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "closed in turn");
            continue;
        }
        let name: String = tag.chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
        assert!(!name.is_empty(), "<{tag}>");
        let mut attributes = tag[name.len()..].trim_end_matches('/').trim();
        while !attributes.is_empty() {
            let (key, value) = attributes.split_once("=\"").unwrap_or_else(|| panic!("<{tag}>"));
            assert!(key.trim().chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "<{tag}>");
            let (value, after) = value.split_once('"').unwrap_or_else(|| panic!("<{tag}>"));
            assert!(!value.contains('<'), "<{tag}>");
            attributes = after.trim();
        }
        all.push(name.clone());
        if name == "style" {
            rest = &rest[rest.find("</style>").expect("styles end")..];
        }
        if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?} are not closed");
    all
}

#[test]
fn a_page_is_well_formed_and_needs_nothing_from_elsewhere() {
    for target in ["cuda:sm_90", "metal"] {
        let text = page(&example(target));
        let elements = elements(&text);
        for name in ["svg", "table", "figure", "details"] {
            assert!(elements.iter().any(|e| e == name), "{target}: no {name}");
        }
        for name in ["script", "link", "img", "iframe", "object", "embed"] {
            assert!(!elements.iter().any(|e| e == name), "{target}: a {name}");
        }
        for word in ["http", "//", "@import", "url(", "src="] {
            assert!(!text.contains(word), "{target}: {word}");
        }
    }
}

#[test]
fn all_kernels_accesses_and_passes_are_on_the_page() {
    let p = example("cuda:sm_90");
    let text = page(&p);
    for k in p.new.explanation.kernels.iter() {
        assert!(text.contains(&format!("data-kernel=\"{}\"", k.name)), "{}", k.name);
        for n in &k.nests {
            // The winner of each choice and the runner-up.
            for c in n.grid.candidates.iter().take(2) {
                assert!(text.contains(&format!("<code>{}</code>", c.threads)), "{}", c.threads);
            }
        }
    }
    for k in &p.old.explanation.kernels {
        assert!(text.contains(&k.name), "{}", k.name);
    }
    let mut drawings = 0;
    for step in p.new.program.prepare.iter().chain(&p.new.program.run) {
        for t in kernels::touches(&p.new.program, step, None).iter().filter(|t| t.space == "global") {
            assert!(text.contains(&format!("data-access=\"{} {}\"", t.kind, t.buffer)), "{} {}", t.kind, t.buffer);
            drawings += 1;
        }
    }
    assert!(drawings >= 9);
    assert_eq!(text.matches("<svg class=\"lanes\"").count(), 2 * text.matches("data-access=").count());
    for pass in &p.new.explanation.passes {
        assert!(text.contains(&format!("data-pass=\"{}\"", pass.name)), "{}", pass.name);
    }
    assert!(text.matches("<svg class=\"graph\"").count() >= 6);
}

#[test]
fn the_same_program_gives_the_same_page() {
    assert_eq!(page(&example("metal")), page(&example("metal")));
}

#[test]
fn names_are_text_whatever_is_in_them() {
    let mut p = example("cuda:sm_90");
    let evil = "</title><b a=\"1\">&'\u{7}";
    p.title = evil.to_string();
    p.verdict = evil.to_string();
    for side in [&mut p.old, &mut p.new] {
        side.program.buffers.iter_mut().for_each(|b| b.name.push_str(evil));
        side.program.kernels.iter_mut().for_each(|k| k.name.push_str(evil));
        for k in &mut side.explanation.kernels {
            k.name.push_str(evil);
            k.nests.iter_mut().for_each(|n| n.output.push_str(evil));
        }
        side.explanation.layouts.iter_mut().for_each(|l| l.buffer.push_str(evil));
        for s in side.explanation.passes.iter_mut().filter_map(|p| p.sketch.as_mut()) {
            for n in &mut s.nodes {
                n.key.push_str(evil);
                n.title.push_str(evil);
                n.lines.push(evil.to_string());
            }
        }
    }
    let text = page(&p);
    elements(&text);
    assert!(!text.contains(evil) && !text.contains('\u{7}'));
    assert!(text.contains("&lt;/title&gt;&lt;b a=&quot;1&quot;&gt;&amp;&#39;\u{fffd}"));
}

#[test]
fn a_cpu_has_a_page_without_warps() {
    let target = winograph::cpu::capped_target(None);
    let new = side(&target, LayoutRule::Auto, GridRule::Auto);
    let old = side(&target, LayoutRule::Creation, GridRule::RangeId);
    let text = |t: &str| t.to_string();
    let p = Page { title: text("t"), about: text("a"), verdict: text("v"), target, old, new, square: vec![] };
    let text = page(&p);
    elements(&text);
    assert!(!text.contains("data-access") && text.contains("data-kernel"));
}
