//! Filetests: textual IR in, textual IR out.
//!
//! A file is
//!
//! ```text
//! ; pass: NAME key=value key=value
//! input, as the pass reads it
//! ; expect
//! output, line by line
//! ```
//!
//! with `; expect error` in the place of `; expect` where the pass has to refuse the input; what follows is then the
//! message. [`run_dir`] compares, or with `WINOGRAPH_BLESS=1` in the environment writes what came out.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The first line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The pass.
    pub pass: String,
    /// Its options.
    pub options: BTreeMap<String, String>,
}

impl Header {
    /// Reads a line `; pass: NAME key=value…`.
    pub fn parse(line: &str) -> Result<Header, String> {
        let rest = line.strip_prefix("; pass:").ok_or("the first line is not `; pass: NAME key=value`")?;
        let mut words = rest.split_whitespace();
        let pass = words.next().ok_or("the first line names no pass")?.to_string();
        let mut options = BTreeMap::new();
        for word in words {
            let (key, value) = word.split_once('=').ok_or_else(|| format!("`{word}` is not key=value"))?;
            options.insert(key.to_string(), value.to_string());
        }
        Ok(Header { pass, options })
    }

    /// An option's value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.options.get(key).map(String::as_str)
    }
}

/// A file whose output is not the expected one, or which cannot be run.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The file, or the folder.
    pub path: PathBuf,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.message)
    }
}

/// Runs every `.ir` file of a folder through `f`, in order of their names, and gives those that fail. A folder without
/// any file fails.
///
/// With `WINOGRAPH_BLESS=1` in the environment, output that differs is written into the file instead. Whether an error
/// is expected is not blessed: that has to be written by hand.
pub fn run_dir(dir: &Path, f: &dyn Fn(&Header, &str) -> Result<String, String>) -> Vec<Failure> {
    run_all(dir, std::env::var_os("WINOGRAPH_BLESS").is_some_and(|v| v == "1"), f)
}

fn run_all(dir: &Path, bless: bool, f: &dyn Fn(&Header, &str) -> Result<String, String>) -> Vec<Failure> {
    let fail = |path: &Path, message: String| Failure { path: path.to_path_buf(), message };
    let mut paths: Vec<PathBuf> = match std::fs::read_dir(dir) {
        Ok(entries) => entries.flatten().map(|e| e.path()).collect(),
        Err(e) => return vec![fail(dir, e.to_string())],
    };
    paths.retain(|p| p.extension().is_some_and(|e| e == "ir"));
    paths.sort();
    if paths.is_empty() {
        return vec![fail(dir, "no .ir files".to_string())];
    }
    let run = |path: &PathBuf| run_file(path, bless, f).err().map(|message| fail(path, message));
    paths.iter().filter_map(run).collect()
}

fn run_file(path: &Path, bless: bool, f: &dyn Fn(&Header, &str) -> Result<String, String>) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let header = Header::parse(text.lines().next().unwrap_or(""))?;
    let parts = split(&text);
    let (output, failed) = match f(&header, parts.input) {
        Ok(output) => (output, false),
        Err(message) => (message, true),
    };
    match (failed, parts.error) {
        (true, false) => return Err(format!("failed: {output}")),
        (false, true) => return Err("succeeded, but the file expects an error".to_string()),
        _ => {}
    }
    let output = format!("{}\n", output.trim_end());
    if output.trim_end() == parts.expected.trim_end() {
        return Ok(());
    }
    if bless {
        let word = if failed { "; expect error" } else { "; expect" };
        let blessed = format!("{}\n{word}\n{output}", parts.input.trim_end());
        return std::fs::write(path, blessed).map_err(|e| e.to_string());
    }
    Err(difference(parts.expected, &output))
}

struct Parts<'a> {
    input: &'a str,
    expected: &'a str,
    error: bool,
}

/// Splits a file at its `; expect` line; a file without one expects nothing.
fn split(text: &str) -> Parts<'_> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let word = line.trim_end();
        if word == "; expect" || word == "; expect error" {
            let expected = &text[at + line.len()..];
            return Parts { input: &text[..at], expected, error: word.ends_with("error") };
        }
        at += line.len();
    }
    Parts { input: text, expected: "", error: false }
}

fn difference(expected: &str, output: &str) -> String {
    let (mut e, mut o) = (expected.lines(), output.lines());
    let mut line = 1;
    loop {
        let (a, b) = (e.next(), o.next());
        if a != b || a.is_none() {
            let show = |x: Option<&str>| x.map_or("nothing".to_string(), |x| format!("`{x}`"));
            return format!(
                "line {line} of the output is {}, expected {}; WINOGRAPH_BLESS=1 accepts this output:\n{output}",
                show(b),
                show(a)
            );
        }
        line += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_and_blesses() {
        let dir = std::env::temp_dir().join(format!("winograph-filetest-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a temporary folder");
        assert_eq!(run_all(&dir, false, &|_, _| Ok(String::new())).len(), 1, "an empty folder fails");
        let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).expect("a temporary file");
        write("a.ir", "; pass: upper width=4\nabc\n; expect\n; PASS: UPPER WIDTH=4\nABC\n");
        write("b.ir", "; pass: upper\nabc\n; expect\nold\n");
        write("c.ir", "; pass: fail\n; expect error\nno\n");
        write("d.ir", "no header\n");
        write("e.ir", "; pass: fail\n; expect\n");
        let f = |h: &Header, input: &str| match h.pass.as_str() {
            "upper" => Ok(input.to_uppercase()),
            _ => Err("no".to_string()),
        };
        let names = |failures: Vec<Failure>| -> Vec<String> {
            let name = |f: &Failure| f.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            failures.iter().map(name).collect()
        };
        assert_eq!(names(run_all(&dir, false, &f)), ["b.ir", "d.ir", "e.ir"]);
        assert_eq!(names(run_all(&dir, true, &f)), ["d.ir", "e.ir"]);
        assert_eq!(names(run_all(&dir, false, &f)), ["d.ir", "e.ir"]);
        let blessed = std::fs::read_to_string(dir.join("b.ir")).expect("a temporary file");
        assert_eq!(blessed, "; pass: upper\nabc\n; expect\n; PASS: UPPER\nABC\n");
        std::fs::remove_dir_all(&dir).expect("a temporary folder");
    }

    #[test]
    fn headers() {
        let header = Header::parse("; pass: text level=tensor x=1").expect("a header");
        assert_eq!((header.pass.as_str(), header.get("level"), header.get("y")), ("text", Some("tensor"), None));
        for bad in ["", "; text", "; pass:", "; pass: text level"] {
            assert!(Header::parse(bad).is_err(), "{bad}");
        }
    }
}
