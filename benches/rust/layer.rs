//! What `ContextLayer` costs: instructions per request of an axum server over HTTP/1.1 and HTTP/2,
//! whose handler returns at once.
//!
//! ```sh
//! cargo bench -p benches --features axum --bench layer                # every mode; needs valgrind
//! cargo bench -p benches --features axum --bench layer -- max_timeout # modes that contain this
//! ```
//!
//! Each mode is a server under callgrind, which serves one connection of a client in another
//! process. It runs twice, with two numbers of requests. The difference, by the difference of the
//! numbers, is the cost of a request, without that of starting up.

#![allow(clippy::print_stdout, reason = "the result")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use errgroup::Context;
use errgroup::tower::ContextLayer;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// The numbers of requests of the two runs.
const REQUESTS: [u64; 2] = [1_000, 3_000];

const PROTOCOLS: [&str; 2] = ["HTTP/1.1", "HTTP/2"];

const MODES: [&str; 5] = [
    "without the layer",
    "default",
    "default, max_timeout",
    "drop_on_disconnect",
    "drop_on_disconnect, max_timeout",
];

/// What a browser or a small client sends.
const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nhost: localhost:8080\r\nuser-agent: bench\r\naccept: */*\r\n\r\n";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", protocol, mode, requests] => serve(protocol, mode, requests),
        ["ask", "HTTP/1.1", addr, requests] => ask_http1(addr, requests.parse().unwrap()),
        ["ask", _, addr, requests] => ask_http2(addr, requests.parse().unwrap()),
        _ => measure(args.iter().find(|arg| !arg.starts_with("--"))),
    }
}

fn measure(only: Option<&String>) {
    for protocol in PROTOCOLS {
        let mut base = None;
        println!("{protocol:<34}{:>14}{:>10}", "instructions", "ratio");
        for mode in MODES {
            let is_base = mode == MODES[0];
            if !is_base && only.is_some_and(|only| !mode.contains(only.as_str())) {
                continue;
            }
            let [few, many] = REQUESTS.map(|requests| instructions(protocol, mode, requests));
            let cost = (many - few) as f64 / (REQUESTS[1] - REQUESTS[0]) as f64;
            let base = *base.get_or_insert(cost);
            println!("{mode:<34}{cost:>14.0}{:>10.3}", cost / base);
        }
    }
}

/// Runs a server under callgrind, and returns how many instructions it took.
fn instructions(protocol: &str, mode: &str, requests: u64) -> u64 {
    let out = std::env::var("CALLGRIND_OUT").unwrap_or_else(|_| "/dev/null".to_owned());
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", &format!("--callgrind-out-file={out}")])
        .arg(std::env::current_exe().unwrap())
        .args(["serve", protocol, mode, &requests.to_string()])
        .stdout(Stdio::null())
        .output()
        .expect("valgrind is installed");
    let text = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{text}");
    let refs = text.lines().find_map(|line| line.split_once("I   refs:"));
    let (_, count) = refs.expect("callgrind reports its count");
    count.trim().replace(',', "").parse().unwrap()
}

/// Serves until the client, which is a child process, has its responses.
#[tokio::main(flavor = "current_thread")]
async fn serve(protocol: &str, mode: &str, requests: &str) {
    let server = Context::background();
    let layer = ContextLayer::new(&server);
    let timely = layer.clone().max_timeout(Duration::from_secs(30));
    let app = Router::new().route("/", get(async || "Hello, World!"));
    let app: Router = match MODES.iter().position(|known| *known == mode) {
        Some(0) => app,
        Some(1) => app.layer(layer),
        Some(2) => app.layer(timely),
        Some(3) => app.layer(layer.drop_on_disconnect()),
        Some(4) => app.layer(timely.drop_on_disconnect()),
        _ => panic!("no mode {mode}"),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let mut client = Command::new(std::env::current_exe().unwrap())
        .args(["ask", protocol, &addr, requests])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = client.stdout.take().unwrap();
    let done = tokio::task::spawn_blocking(move || said.read_to_string(&mut String::new()));
    tokio::select! {
        served = async { axum::serve(listener, app).await } => panic!("{served:?}"),
        done = done => assert!(done.unwrap().is_ok()),
    }
    assert!(client.wait().unwrap().success());
}

/// Sends requests on one connection, one after another.
fn ask_http1(addr: &str, requests: u64) {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for _ in 0..requests {
        (&stream).write_all(REQUEST).unwrap();
        let mut length = 0;
        let mut line = String::new();
        loop {
            line.clear();
            reader.read_line(&mut line).unwrap();
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        assert_eq!(body, b"Hello, World!");
    }
}

/// The same over HTTP/2.
#[tokio::main(flavor = "current_thread")]
async fn ask_http2(addr: &str, requests: u64) {
    let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let connected = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = connected.unwrap();
    tokio::spawn(connection);
    for _ in 0..requests {
        let request = Request::get(format!("http://{addr}/"))
            .header("user-agent", "bench")
            .header("accept", "*/*")
            .body(Empty::<Bytes>::new())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "Hello, World!");
    }
}
