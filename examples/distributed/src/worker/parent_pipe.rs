//! The pipe from the process that started a worker. When that process exits, in any way, the system
//! closes the pipe.

use std::io;
use std::os::fd::AsFd;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;

/// Reads standard input until its end. Not through `tokio::io::stdin`, whose blocking read would
/// keep the process from ending.
pub(super) async fn held(mut on_fail: impl FnMut()) -> io::Result<()> {
    let pipe = io::stdin().as_fd().try_clone_to_owned()?;
    let mut lines = BufReader::new(pipe::Receiver::from_owned_fd(pipe)?).lines();
    while let Some(line) = lines.next_line().await? {
        match line.as_str() {
            "fail" => on_fail(),
            other => eprintln!("worker: {other:?} means nothing to me"),
        }
    }
    Ok(())
}
