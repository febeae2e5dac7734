//! Builds the examples once, and runs them as processes that do not outlive their test.

use std::env;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// How long a test waits before it fails.
const PATIENCE: Duration = Duration::from_secs(300);

/// The path of an example. The first call builds all of them.
///
/// Those of the library are built last and without features, as a user builds them: with `tracing`,
/// tasks would inherit the span of their parent, and `values` would show nothing. The members are
/// built with the features that `.ci/features.sh` uses, so that nothing is compiled twice.
pub(crate) fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let others = ["--exclude", "distributed", "--exclude", "jobs"];
        let all = [&["--workspace", "--all-features"], &others[..]].concat();
        cargo(&[&["build", "--quiet", "--examples"], &all[..]].concat());
        cargo(&["build", "--quiet", "--examples"]);
        for with_signal in ["child_process", "shutdown"] {
            cargo(&[
                "build",
                "--quiet",
                "--example",
                with_signal,
                "--features",
                "signal",
            ]);
        }
        // target/debug/deps/examples-1234
        let test = env::current_exe().unwrap();
        test.parent().unwrap().parent().unwrap().join("examples")
    });
    folder.join(name)
}

fn cargo(arguments: &[&str]) {
    let status = Command::new(env!("CARGO"))
        .args(arguments)
        .status()
        .unwrap();
    assert!(status.success(), "cargo {arguments:?}: {status}");
}

/// What a process printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs an example to its end.
pub(crate) fn run(name: &str, arguments: &[&str]) -> Output {
    Running::start(name, arguments).ends()
}

/// Runs an example that must succeed, and returns what it printed.
pub(crate) fn prints(name: &str, arguments: &[&str]) -> String {
    let output = run(name, arguments);
    assert!(output.status.success(), "{name} {arguments:?}: {output:#?}");
    output.out
}

/// Runs an example that must fail: not by a panic or a signal, and with a message.
pub(crate) fn fails(name: &str, arguments: &[&str]) -> Output {
    let output = run(name, arguments);
    let code = output.status.code();
    assert!(
        code.is_some_and(|code| (1..101).contains(&code)),
        "{name} {arguments:?}: {output:#?}"
    );
    assert!(
        !output.err.is_empty(),
        "{name} {arguments:?} failed without a message"
    );
    output
}

/// Fails unless a line of the text contains these parts, in this order.
#[track_caller]
pub(crate) fn has(text: &str, parts: &[&str]) {
    assert!(count(text, parts) > 0, "no line has {parts:?}:\n{text}");
}

/// The number of lines that contain these parts, in this order.
pub(crate) fn count(text: &str, parts: &[&str]) -> usize {
    let matches = |line: &&str| {
        let mut rest = *line;
        parts.iter().all(|part| match rest.find(part) {
            Some(at) => {
                rest = &rest[at + part.len()..];
                true
            }
            None => false,
        })
    };
    text.lines().filter(matches).count()
}

/// The number after a text.
#[track_caller]
pub(crate) fn number(text: &str, before: &str) -> u64 {
    let at = text
        .find(before)
        .unwrap_or_else(|| panic!("no {before:?} in:\n{text}"));
    let rest = text[at + before.len()..].trim_start();
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..end]
        .parse()
        .unwrap_or_else(|_| panic!("no number after {before:?} in:\n{text}"))
}

/// The duration after a text, as `Debug` prints it, in milliseconds.
#[track_caller]
pub(crate) fn millis(text: &str, before: &str) -> f64 {
    let at = text
        .find(before)
        .unwrap_or_else(|| panic!("no {before:?} in:\n{text}"));
    let rest = text[at + before.len()..].trim_start();
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(rest.len());
    let number: f64 = rest[..end].parse().unwrap();
    let units = [("ns", 1e-6), ("µs", 1e-3), ("ms", 1.0), ("s", 1e3)];
    let unit = units.iter().find(|(unit, _)| rest[end..].starts_with(unit));
    number
        * unit
            .unwrap_or_else(|| panic!("no unit after {before:?} in:\n{text}"))
            .1
}

/// Waits until the condition holds.
#[track_caller]
pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(20));
    }
}

/// A folder for the files of one test, which is removed with it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Scratch {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("errgroup-test-{}-{number}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        Scratch(folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process, whose output goes to files. It is killed if it is dropped before its end.
pub(crate) struct Running {
    name: String,
    child: Child,
    scratch: Scratch,
}

impl Running {
    pub(crate) fn start(name: &str, arguments: &[&str]) -> Running {
        let scratch = Scratch::new();
        let child = Command::new(program(name))
            .args(arguments)
            // All connections use loopback.
            .env("NO_PROXY", "127.0.0.1,localhost")
            .stdin(Stdio::null())
            .stdout(File::create(scratch.path("out")).unwrap())
            .stderr(File::create(scratch.path("err")).unwrap())
            .spawn()
            .unwrap();
        Running {
            name: format!("{name} {arguments:?}"),
            child,
            scratch,
        }
    }

    pub(crate) fn out(&self) -> String {
        read(&self.scratch.path("out"))
    }

    pub(crate) fn err(&self) -> String {
        read(&self.scratch.path("err"))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .unwrap()
    }

    /// Waits until it has printed a line with these parts.
    #[track_caller]
    pub(crate) fn has_printed(&self, parts: &[&str]) {
        until(
            &format!("{} does not print {parts:?}:\n{}", self.name, self.out()),
            || count(&self.out(), parts) > 0,
        );
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn ends(mut self) -> Output {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let (out, err) = (self.out(), read(&self.scratch.path("err")));
                return Output { status, out, err };
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{} does not end:\n{}",
                self.name,
                self.out()
            );
            sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()
}

/// An example that is a server.
pub(crate) struct Server {
    pub(crate) process: Running,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start(name: &str, arguments: &[&str]) -> Server {
        let process = Running::start(name, arguments);
        process.has_printed(&["listening on "]);
        let out = process.out();
        let (_, address) = out.split_once("listening on ").unwrap();
        let address = address.split([',', ' ', '\n']).next().unwrap();
        Server {
            address: address.to_owned(),
            process,
        }
    }

    /// Sends a GET request. The response is not read yet.
    pub(crate) fn ask(&self, path: &str) -> TcpStream {
        self.send("GET", path)
    }

    fn send(&self, method: &str, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let host = &self.address;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        stream
    }

    /// The body of the response to a request without a body.
    pub(crate) fn body(&self, method: &str, path: &str) -> String {
        let mut response = String::new();
        let mut stream = self.send(method, path);
        stream.read_to_string(&mut response).unwrap();
        response.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// The last line of the response to a GET request.
    pub(crate) fn get(&self, path: &str) -> String {
        let mut response = String::new();
        self.ask(path).read_to_string(&mut response).unwrap();
        response.lines().last().unwrap_or_default().to_owned()
    }
}

/// Whether a process of this group is running; a zombie is not.
pub(crate) fn lives(group: &str) -> bool {
    let ps = Command::new("ps")
        .args(["-A", "-o", "pgid=", "-o", "stat="])
        .output()
        .unwrap();
    String::from_utf8_lossy(&ps.stdout).lines().any(|line| {
        let mut fields = line.split_whitespace();
        fields.next() == Some(group) && !fields.next().is_some_and(|stat| stat.starts_with('Z'))
    })
}

/// Kills the processes of a group when it is dropped.
pub(crate) struct Group(pub(crate) String);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0.parse().ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
