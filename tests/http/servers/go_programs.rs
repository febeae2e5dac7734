//! The first program of `docs/GO.md` is an example, so that it can be run as it stands.

const EXAMPLE: &str = include_str!("../../../examples/servers/request_cancelled.rs");
const GO: &str = include_str!("../../../docs/GO.md");

#[test]
fn the_document_shows_the_example() {
    let program: String = EXAMPLE
        .lines()
        .skip_while(|line| line.starts_with("//!") || line.is_empty())
        .flat_map(|line| [line, "\n"])
        .collect();
    assert!(program.contains("ctx.done()"));
    assert!(GO.contains(&format!("```rust,no_run\n{program}```\n")));
}
