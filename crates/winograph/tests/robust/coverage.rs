//! The public functions of the library, found in its source.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

fn identifier(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("")
}

/// The type of `impl<T> Trait for Type {` or `impl Type {`; a trait has its own name.
fn owner(line: &str) -> Option<&str> {
    if let Some(rest) = line.strip_prefix("pub trait ").or_else(|| line.strip_prefix("pub unsafe trait ")) {
        return Some(identifier(rest));
    }
    let rest = line
        .strip_prefix("impl ")
        .or_else(|| line.strip_prefix("impl<").and_then(|l| l.split_once("> ")).map(|l| l.1))?;
    (!rest.contains(" for ")).then(|| identifier(rest))
}

/// `Type::name` of each public method and `name` of each public function in a file.
fn of_file(text: &str, out: &mut BTreeSet<String>) {
    let (mut own, mut in_trait, mut macros, mut open) = ("", false, Vec::new(), None);
    for line in text.lines() {
        if line == "#[cfg(test)]" {
            // Tests stand at the end.
            break;
        }
        if line.starts_with(['i', 'p', 'm']) && line.ends_with('{') || line == "}" {
            own = owner(line).unwrap_or("");
            in_trait = line.starts_with("pub trait ") || line.starts_with("pub unsafe trait ");
            open = None;
            if let Some(rest) = line.strip_prefix("macro_rules! ") {
                macros.push(identifier(rest));
            }
        }
        let code = line.trim_start();
        let name = code.strip_prefix("pub fn ").or_else(|| code.strip_prefix("pub const fn "));
        let name = name.or_else(|| code.strip_prefix("fn ").filter(|_| in_trait && line.starts_with("    fn ")));
        let name = name.or_else(|| code.strip_prefix("unsafe fn ").filter(|_| in_trait));
        match name.map(identifier) {
            Some("") | None => {}
            Some(name) if own.is_empty() => drop(out.insert(name.to_string())),
            Some(name) => drop(out.insert(format!("{own}::{name}"))),
        }
        // A macro that makes a method has its name as the first word that is no documentation.
        if code.strip_suffix("! {").is_some_and(|m| macros.contains(&m)) {
            open = Some(());
        } else if open.is_some() && !code.starts_with("///") && !own.is_empty() {
            out.insert(format!("{own}::{}", identifier(code)));
            open = None;
        }
    }
}

/// All public functions and methods, those of traits included.
pub fn public_functions() -> BTreeSet<String> {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let mut out = BTreeSet::new();
    for file in files {
        of_file(&std::fs::read_to_string(file).unwrap(), &mut out);
    }
    out
}

#[test]
fn methods_of_all_kinds_are_found() {
    let text = "macro_rules! made {\n}\npub fn free() {\nimpl Tensor {\n    pub fn one(&self) {}\n    pub(crate) fn no() {}\n    fn no() {}\n    \
                made! {\n        /// Doc.\n        two, Op\n    }\n}\npub trait Device: Send {\n    fn three();\n}\nimpl Device for X {\n    fn no();\n}\n\
                impl<T> Other<T> {\n    pub const fn four() {}\n}\n#[cfg(test)]\nimpl Tensor {\n    pub fn no() {}\n";
    let mut found = BTreeSet::new();
    of_file(text, &mut found);
    let want = ["free", "Tensor::one", "Tensor::two", "Device::three", "Other::four"];
    assert_eq!(found, want.into_iter().map(String::from).collect());
}
