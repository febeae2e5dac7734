//! `graceful_shutdown`: no request is lost under load, the late ones are named, and a second signal
//! exits at once.

use std::io::{BufRead, BufReader};

use rustix::process::Signal;

use crate::support::{Output, Running, Server, count, has, number, prints, until};

/// Starts a server and sends it the request that is never answered.
fn asked_forever() -> (Server, BufReader<std::net::TcpStream>) {
    let server = Server::start("graceful_shutdown", &[]);
    let client = BufReader::new(server.ask("/forever"));
    until("the server accepts", || {
        server.get("/accepted") == "1 accepted"
    });
    (server, client)
}

/// Sends SIGTERM to a server while 64 clients make one request after another. Returns what the
/// server and the clients printed.
fn stopped_under_load(options: &[&str]) -> (Output, Output) {
    let server = Server::start("graceful_shutdown", options);
    let clients = Running::start("graceful_shutdown", &["--load", &server.address]);
    clients.has_printed(&["under load"]);
    server.process.signal(Signal::TERM);
    let server = server.process.ends();
    assert!(server.status.success(), "{server:#?}");
    has(&server.out, &["stopping: "]);
    (server, clients.ends())
}

#[test]
fn the_demonstration() {
    let out = prints("graceful_shutdown", &["--demo"]);
    has(&out, &["received SIGTERM"]);
    for line in ["is refused", "still gets a response", "to the last byte"] {
        has(&out, &[line]);
    }
    has(&out, &["request GET /forever, after "]);
    has(
        &out,
        &[
            "task \"connection ",
            "(started at ",
            "server.rs:",
            "; it ran ",
        ],
    );
    assert_eq!(count(&out, &["  request "]), 1, "{out}");
    assert_eq!(count(&out, &["  task "]), 1, "{out}");
}

#[test]
fn a_request_that_does_not_end_is_aborted_and_named() {
    let (server, mut client) = asked_forever();
    server.process.signal(Signal::TERM);
    let output = server.process.ends();
    assert!(output.status.success(), "{output:#?}");
    has(&output.out, &["stopping: ", "received SIGTERM"]);
    has(&output.out, &["request GET /forever, after "]);
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 503 "), "{line}");
}

#[test]
fn no_request_is_lost_under_load() {
    let (server, clients) = stopped_under_load(&[]);
    assert!(clients.status.success(), "{clients:#?}");
    has(&server.out, &["received SIGTERM"]);
    has(&server.out, &["stopped: all have finished"]);
    let answered = clients
        .out
        .lines()
        .find(|line| line.contains(" answered, "))
        .unwrap();
    let accepted = server
        .out
        .lines()
        .find(|line| line.ends_with(" requests accepted"))
        .unwrap();
    let (answered, accepted) = (number(answered, ""), number(accepted, ""));
    assert!(answered >= 64, "{clients:#?}");
    assert_eq!(answered, accepted, "{server:#?} {clients:#?}");
}

/// So the test above can fail.
#[test]
fn a_naive_server_loses_requests_under_load() {
    let (_, clients) = stopped_under_load(&["--naive"]);
    assert!(!clients.status.success(), "{clients:#?}");
}

#[test]
fn a_second_signal_exits_at_once() {
    for (signal, name) in [(Signal::INT, "SIGINT"), (Signal::TERM, "SIGTERM")] {
        let (server, _client) = asked_forever();
        server.process.signal(signal);
        server
            .process
            .has_printed(&["stopping: ", &format!("received {name}")]);
        server.process.signal(signal);
        let output = server.process.ends();
        assert_eq!(output.status.code(), Some(130), "{output:#?}");
        assert_eq!(count(&output.out, &["stopped"]), 0, "{output:#?}");
    }
}
