//! `http_server`: work stops when its client disconnects, at a deadline, and at a shutdown.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Running, Server, count, until};

const HTTP1: &[&str] = &[];
const HTTP2: &[&str] = &["--http2"];

/// The example as a client: it prints the status of the response.
fn request(server: &Server, version: &[&str], path: &str, header: Option<&str>) -> Running {
    let url = format!("http://{}{path}", server.address);
    let mut arguments = version.to_vec();
    if let Some(header) = header {
        arguments.extend(["--header", header]);
    }
    arguments.extend(["--get", &url]);
    Running::start("http_server", &arguments)
}

fn status(server: &Server, version: &[&str], path: &str, header: Option<&str>) -> String {
    request(server, version, path, header)
        .ends()
        .out
        .trim()
        .to_owned()
}

/// Waits until this many pieces of work are alive.
fn alive(server: &Server, pieces: &str) {
    until("the pieces of work", || server.get("/alive") == pieces);
}

/// Waits until the server has printed this many lines that contain the parts.
fn printed(server: &Server, times: usize, parts: &[&str]) {
    until("the lines of the server", || {
        count(&server.process.out(), parts) == times
    });
}

#[test]
fn requests_are_processed() {
    let server = Server::start("http_server", &[]);
    for path in ["/", "/rows"] {
        assert_eq!(status(&server, HTTP1, path, None), "200");
        assert_eq!(status(&server, HTTP2, path, None), "200");
    }
    printed(&server, 4, &["request processed"]);
    server.process.signal(Signal::TERM);
    assert!(server.process.ends().status.success());
}

#[test]
fn work_stops_long_before_it_is_done() {
    let server = Server::start("http_server", &["--seconds", "600"]);
    let start = Instant::now();
    let gone = ["request cancelled: client disconnected"];
    let mut left = 0;
    for version in [HTTP1, HTTP2] {
        for (path, pieces) in [("/", "3"), ("/rows", "1")] {
            let client = request(&server, version, path, None);
            alive(&server, pieces);
            drop(client); // killed, and its connection with it
            left += 1;
            printed(&server, left, &gone);
            alive(&server, "0");
        }
    }
    // A client that is stopped closes nothing, and does not answer pings.
    let client = request(&server, HTTP2, "/", None);
    alive(&server, "3");
    client.signal(Signal::STOP);
    printed(&server, left + 1, &gone);
    drop(client);

    let mut late = 0;
    for version in [HTTP1, HTTP2] {
        for header in ["grpc-timeout: 300m", "x-request-timeout: 300ms"] {
            assert_eq!(status(&server, version, "/", Some(header)), "504");
            late += 1;
            printed(
                &server,
                late,
                &["request out of time: the time that the client allows"],
            );
            alive(&server, "0");
        }
    }

    let client = request(&server, HTTP1, "/", None);
    alive(&server, "3");
    server.process.signal(Signal::TERM);
    assert_eq!(client.ends().out.trim(), "503");
    let output = server.process.ends();
    assert!(output.status.success(), "{output:#?}");
    assert_eq!(
        count(&output.out, &["request cancelled: received SIGTERM"]),
        1
    );
    assert!(
        start.elapsed() < Duration::from_secs(300),
        "the server waited for the work"
    );
}

/// Without the layer nothing stops, so the test above can fail.
#[test]
fn a_naive_server_does_not_stop_its_work() {
    let server = Server::start("http_server", &["--naive", "--seconds", "600"]);
    let client = request(&server, HTTP2, "/", None);
    alive(&server, "3");
    drop(client);
    sleep(Duration::from_secs(1)); // by then hyper has dropped the handler
    assert_eq!(server.get("/alive"), "3");

    let server = Server::start("http_server", &["--naive"]);
    let header = Some("x-request-timeout: 300ms");
    assert_eq!(status(&server, HTTP1, "/", header), "200");
    printed(&server, 1, &["request processed"]);
    server.process.signal(Signal::TERM);
    assert!(server.process.ends().status.success());
}
