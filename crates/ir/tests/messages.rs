//! The messages of all errors as a set: `docs/errors.md` lists them, and says what each is about. A new one, or one that
//! changes, changes the list; `WINOGRAPH_BLESS=1` writes it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// The string literal that `text` begins with, blanks aside, with its escapes resolved, and what follows it.
fn literal(text: &str) -> Option<(String, &str)> {
    let mut rest = text.trim_start().strip_prefix('"')?;
    let mut out = String::new();
    loop {
        let at = rest.find(['"', '\\'])?;
        out.push_str(&rest[..at]);
        if rest[at..].starts_with('"') {
            return Some((out, &rest[at + 1..]));
        }
        match rest[at + 1..].chars().next()? {
            '\n' => rest = rest[at + 2..].trim_start(),
            'n' => {
                out.push(' ');
                rest = &rest[at + 2..];
            }
            c => {
                out.push(c);
                rest = &rest[at + 1 + c.len_utf8()..];
            }
        }
    }
}

fn identifier(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("")
}

/// The type that the attribute at `at` belongs to, and its variant.
fn owner(text: &str, at: usize) -> String {
    let word = |line: &str| {
        line.trim_start().split("enum ").nth(1).filter(|_| line.starts_with("pub")).map(|t| identifier(t).to_string())
    };
    let after: &str = text[at..].split_once(")]\n").map_or("", |t| t.1);
    // Attributes of the type itself stand in front of it.
    for line in after.lines() {
        if let Some(rest) = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub(crate) struct ")) {
            return identifier(rest).to_string();
        }
        let own = line.trim_start();
        if !own.starts_with("#[") && !own.starts_with("//") {
            let name = text[..at].lines().rev().find_map(word).unwrap_or_default();
            return format!("{name}::{}", identifier(own));
        }
    }
    String::new()
}

/// Calls `f` with a crate's name and the text of each of its files, tests aside.
fn each_file(mut f: impl FnMut(&str, &str)) {
    for of in ["ir", "compiler", "winograph", "cli"] {
        let mut files = Vec::new();
        sources(&root().join("crates").join(of).join("src"), &mut files);
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            f(of, text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(""));
        }
    }
}

/// Crate, type and message of every error of the workspace that is a type.
fn typed() -> Vec<(String, String, String)> {
    let mut out = Vec::new();
    each_file(|of, text| {
        for (at, found) in text.match_indices("#[error(") {
            if let Some((message, _)) = literal(&text[at + found.len()..]) {
                out.push((of.to_string(), owner(text, at), message));
            }
        }
    });
    out.sort();
    out.dedup();
    out
}

/// What the command says by itself.
fn said() -> Vec<(String, String, String)> {
    let mut out = Vec::new();
    each_file(|of, text| {
        for call in ["Error::usage(", "Error::failure(", "Error::of("] {
            for (at, found) in text.match_indices(call) {
                let rest = text[at + found.len()..].trim_start();
                if let Some((message, _)) = literal(rest.strip_prefix("format!(").unwrap_or(rest)) {
                    out.push((of.to_string(), call.to_string(), message));
                }
            }
        }
    });
    out
}

#[test]
fn messages_are_those_that_were_reviewed() {
    let mut text = String::from(
        "# Messages of errors\n\nEvery message names what is wrong, where, and what was expected or can be done. The list is made from the source \
         by `crates/ir/tests/messages.rs`; where a message changes, `WINOGRAPH_BLESS=1 cargo test -p winograph-ir --test messages` writes it, and \
         the difference is to be read by that rule. `{}` stands for what is known at run time.\n\n`Argument`, `DType` and `Shape` of the library end with \
         what was expected, and a way out where there is one. What a fault of the compiler would cause (`InterpError`, `VerifyError`, \
         `RenderError`) names the kernel or node and the invariant.\n",
    );
    let mut last = String::new();
    for (of, error, message) in typed() {
        if of != last {
            let _ = write!(text, "\n## {of}\n\n| error | message |\n|---|---|\n");
            last = of;
        }
        let _ = writeln!(text, "| `{error}` | {} |", message.replace('|', "\\|"));
    }
    let path = root().join("docs/errors.md");
    if std::env::var_os("WINOGRAPH_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert_eq!(kept, text, "run with WINOGRAPH_BLESS=1, and read what changes");
}

#[test]
fn messages_have_one_style() {
    let (typed, said) = (typed(), said());
    assert!(typed.len() > 60 && said.len() > 40, "{} {}", typed.len(), said.len());
    for (of, error, message) in typed.into_iter().chain(said) {
        let at = format!("{of}: {error}: {message:?}");
        assert!(message.len() >= 3, "{at}");
        assert!(!message.ends_with(['.', '!', ' ']), "{at}: no stop at the end");
        assert!(!message.contains("  ") && !message.contains('\t'), "{at}: single blanks");
        let first = message.chars().next().unwrap();
        assert!(!first.is_uppercase() || message.starts_with("F(") || message.starts_with("NVRTC"), "{at}: no capital");
        for vague in ["invalid", "illegal", "bad ", "something", "oops", "unexpected error", "failed to"] {
            assert!(!message.contains(vague), "{at}: `{vague}` does not say what was expected");
        }
    }
}

#[test]
fn literals_and_owners_are_found() {
    assert_eq!(literal(" \"a \\\n     b \\\"c\\\"\", x"), Some(("a b \"c\"".to_string(), ", x")));
    let text = "pub enum E {\n    /// Doc.\n    #[error(\"no {x}\")]\n    Variant {\n        x: u8,\n    },\n}\n";
    assert_eq!(owner(text, text.find("#[error").unwrap()), "E::Variant");
    let text = "#[error(\"no\")]\n#[derive(Debug)]\npub struct S(u8);\n";
    assert_eq!(owner(text, 0), "S");
}
