//! Starts other programs, and sends signals to them.

use std::process::{Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// A command that reads nothing and is killed when its handle is dropped.
fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    // A proxy that the environment names has no part in loopback.
    for variable in [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ] {
        command.env_remove(variable);
    }
    command
}

#[track_caller]
pub(crate) fn start(program: &str, arguments: &[&str]) -> Child {
    match command(program, arguments).spawn() {
        Ok(child) => child,
        Err(error) => panic!("cannot start {program}: {error}; .ci/clients.sh installs it"),
    }
}

/// Runs a program to its end.
pub(crate) async fn run(program: &str, arguments: &[&str]) -> Output {
    start(program, arguments).wait_with_output().await.unwrap()
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    let id = child.id().expect("the child is not reaped yet");
    let pid = Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}
