//! Runs the filetests that belong to this crate.

use std::path::Path;
use winograph_ir::text::filetest::{Header, run_dir};
use winograph_ir::text::{
    ParseError, parse_indexed, parse_linear, parse_tensor, print_indexed, print_linear, print_tensor,
};

fn reprint(level: &str, text: &str) -> Result<String, String> {
    let out = match level {
        "tensor" => parse_tensor(text).map(|g| print_tensor(&g)),
        "indexed" => parse_indexed(text).map(|g| print_indexed(&g)),
        "linear" => parse_linear(text).map(|g| print_linear(&g)),
        other => return Err(format!("no level `{other}`")),
    };
    out.map_err(|e: ParseError| e.to_string())
}

/// Parses, prints, and checks that what is printed prints the same.
fn text(header: &Header, input: &str) -> Result<String, String> {
    let level = header.get("level").ok_or("no level=")?;
    let once = reprint(level, input)?;
    let twice = reprint(level, &once).map_err(|e| format!("the printed text does not parse: {e}\n{once}"))?;
    if once == twice { Ok(once) } else { Err(format!("{once}\nprints again as\n{twice}")) }
}

#[test]
fn text_form() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../filetests/text");
    let failures = run_dir(&dir, &text);
    let messages: Vec<String> = failures.iter().map(|f| f.to_string()).collect();
    assert!(messages.is_empty(), "{}", messages.join("\n"));
}
