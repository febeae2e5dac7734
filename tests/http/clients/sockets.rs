//! Clients that no library is: half-closed, pipelining, and with an upload that breaks off.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::site::Site;

const PATIENCE: Duration = Duration::from_secs(60);

async fn connect(site: &Site) -> TcpStream {
    TcpStream::connect(site.addr).await.unwrap()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")
}

/// Reads until `text` has come `times` times.
async fn read_until(socket: &mut TcpStream, text: &str, times: usize) {
    let mut read = String::new();
    let all = async {
        while read.matches(text).count() < times {
            let mut chunk = [0; 1024];
            let length = socket.read(&mut chunk).await.unwrap();
            assert_ne!(length, 0, "closed after {read}");
            read.push_str(std::str::from_utf8(&chunk[..length]).unwrap());
        }
    };
    timeout(PATIENCE, all).await.expect("the responses arrive");
}

/// hyper takes the end of the client's writes for its disconnect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_closed_client_is_gone() {
    let site = Site::start().await;
    let mut socket = connect(&site).await;
    socket.write_all(get("/work").as_bytes()).await.unwrap();
    site.log.until("started", 1).await;
    socket.shutdown().await.unwrap();
    site.log.until("handler: client gone", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipelining_client_gets_its_responses_and_is_seen_to_leave() {
    let site = Site::start().await;
    let mut socket = connect(&site).await;
    let requests = get("/quick") + &get("/quick") + &get("/work");
    socket.write_all(requests.as_bytes()).await.unwrap();
    read_until(&mut socket, "\r\n\r\nquick", 2).await;
    site.log.until("started", 1).await;
    drop(socket);
    site.log.until("handler: client gone", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_breaks_off_is_rejected() {
    let site = Site::start().await;
    for body in [
        "content-length: 1000\r\n\r\nhalf",
        "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let started = site.log.count("started");
        let mut socket = connect(&site).await;
        let request = format!("POST /upload HTTP/1.1\r\nhost: localhost\r\n{body}");
        socket.write_all(request.as_bytes()).await.unwrap();
        site.log
            .until_true(|log| log.count("started") > started)
            .await;
        drop(socket);
    }
    site.log
        .until_true(|log| {
            let rejected = log.events("upload: rejected");
            rejected.iter().map(|event| log.count(event)).sum::<usize>() == 2
        })
        .await;
    assert_eq!(site.log.count("upload: whole"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_upload_arrives_whole() {
    let site = Site::start().await;
    let mut socket = connect(&site).await;
    let head = "POST /upload HTTP/1.1\r\nhost: localhost\r\ncontent-length: 16\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..16 {
        socket.write_all(b"x").await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    read_until(&mut socket, "\r\n\r\n16", 1).await;
    site.log.until("upload: whole", 1).await;
}
