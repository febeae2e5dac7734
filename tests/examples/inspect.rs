//! `inspect`: the pages and the signal name the task that does not stop.

use rustix::process::Signal;

use crate::support::{Running, Server, until};

#[test]
fn the_pages_name_the_task_that_does_not_stop() {
    let server = Server::start("inspect", &["--port", "0", "--debug-pages"]);
    let work = Running::start(
        "http_server",
        &["--get", &format!("http://{}/work", server.address)],
    );
    until("the items of the request", || {
        let tree = server.body("GET", "/debug/tasks");
        tree.contains("handler \"GET /work\"") && tree.contains("waits for \"prices\"")
    });
    let tree = server.body("GET", "/debug/tasks");
    let deaf = tree.lines().find(|line| line.contains("\"deaf\"")).unwrap();
    assert!(
        deaf.contains("running for") && deaf.contains("waits for \"a printer\""),
        "{tree}"
    );
    assert!(tree.contains("2 running of 2, 2 queued"), "{tree}");
    assert_eq!(work.ends().out.trim(), "200");

    server.body("POST", "/stop");
    until("the end of the jobs that listen", || {
        server
            .body("GET", "/debug/tasks")
            .contains("(POST /stop): 1 running of 2")
    });
    let tree = server.body("GET", "/debug/tasks");
    assert!(tree.contains("STILL RUNNING"), "{tree}");
    let json = server.body("GET", "/debug/tasks.json");
    assert!(json.contains("\"state\":\"cancelled\""), "{json}");
    let page = server.body("GET", "/debug/tasks.html");
    assert!(page.starts_with("<!doctype html>") && page.contains("\"name\":\"deaf\""));

    server.process.signal(Signal::USR1);
    until("the tree that the signal prints", || {
        server.process.err().contains("task \"deaf\"")
    });
    server.process.signal(Signal::TERM);
    let output = server.process.ends();
    assert!(
        output.status.success() && output.out.contains("deaf"),
        "{output:?}"
    );
}

#[test]
fn without_the_option_there_are_no_pages() {
    let server = Server::start("inspect", &["--port", "0"]);
    assert_eq!(server.body("GET", "/debug/tasks"), "");
    server.process.signal(Signal::TERM);
    assert!(server.process.ends().status.success());
}
