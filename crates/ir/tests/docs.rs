//! The examples in the book parse, and print as they stand there.

use winograph_ir::text::{parse_indexed, parse_linear, parse_tensor, print_indexed, print_linear, print_tensor};

#[test]
fn examples_in_ir_md_print_as_they_stand() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/ir.md");
    let book = std::fs::read_to_string(path).expect("docs/ir.md");
    let block = |first: &str| {
        let start = book.find(&format!("```text\n{first}")).expect(first) + "```text\n".len();
        &book[start..start + book[start..].find("```").expect("the end of the block")]
    };
    let text = block("param n 1..8");
    assert_eq!(print_tensor(&parse_tensor(text).expect("a tensor graph")), text);
    let text = block("buffer x");
    assert_eq!(print_indexed(&parse_indexed(text).expect("an indexed graph")), text);
    let text = block("kernel E_4_8");
    assert_eq!(print_linear(&parse_linear(text).expect("linear code")), text);
}
