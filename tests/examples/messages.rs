//! What the compiler says about a program that does not compile.

use std::io::Write;
use std::process::{Command, Stdio};

use super::support::has;

/// The library's file, which `cargo build` names.
fn library() -> String {
    let build = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--lib", "--message-format=json"])
        .output()
        .unwrap();
    assert!(build.status.success(), "{build:?}");
    let messages = String::from_utf8(build.stdout).unwrap();
    let names = messages.split('"');
    let mut libraries =
        names.filter(|name| name.contains("liberrgroup") && name.ends_with(".rlib"));
    libraries
        .next()
        .expect("cargo names the library")
        .to_owned()
}

/// The compiler's messages about a program with the library.
fn compile(program: &str) -> String {
    let library = library();
    let folder = library.rsplit_once('/').unwrap().0;
    let dependencies = format!("dependency={folder}/deps");
    let mut rustc = Command::new("rustc")
        .args(["--edition=2024", "--crate-type=lib", "--emit=metadata"])
        .args(["-o", "/dev/null", "-L", &dependencies, "--extern"])
        .args([&format!("errgroup={library}"), "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = rustc.stdin.take().unwrap();
    stdin.write_all(program.as_bytes()).unwrap();
    drop(stdin);
    let output = rustc.wait_with_output().unwrap();
    assert!(!output.status.success(), "it compiles");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn an_error_type_that_does_not_fit_is_explained() {
    for program in [
        "pub fn f() { let _ = errgroup::Group::<std::num::ParseIntError>::new(); }",
        "pub async fn f(ctx: errgroup::Context) {
            let all = errgroup::fetch_all(&ctx, 2, [\"1\"], |_, it| async { it.parse::<u32>() });
            let _ = all.await;
        }",
    ] {
        let message = compile(program);
        has(
            &message,
            &["`ParseIntError` cannot be the error type of a group or a fan-out"],
        );
        // What to do about it.
        has(
            &message,
            &["use `anyhow::Error`, `Box<dyn Error + Send + Sync>`"],
        );
        has(&message, &["Stopped(#[from] errgroup::ContextError)"]);
    }
}
