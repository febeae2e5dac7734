//! A process of the program, which does not outlive its test.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use distributed::fleet::Fleet;
use distributed::proto::Tally;
use errgroup::Context;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// How long a test waits for what must come. It is only ever waited out by a test that fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running process; dropping it kills it, and in a test that fails also the workers that it has
/// started.
pub(crate) struct Process {
    child: Child,
    workers: Vec<Pid>,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: String,
    stderr: Receiver<String>,
}

/// How a process ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// All of it.
    pub(crate) stdout: String,
    /// That of the processes which it started, too.
    pub(crate) stderr: String,
}

impl Process {
    pub(crate) fn start<S: AsRef<str>>(args: impl IntoIterator<Item = S>) -> Process {
        let args: Vec<String> = args
            .into_iter()
            .map(|arg| arg.as_ref().to_owned())
            .collect();
        let mut child = Command::new(env!("CARGO_BIN_EXE_distributed"))
            .args(&args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    break;
                }
            }
        });
        let mut pipe = child.stderr.take().unwrap();
        let (tell, stderr) = channel();
        thread::spawn(move || {
            let mut text = String::new();
            drop(pipe.read_to_string(&mut text));
            drop(tell.send(text));
        });
        Process {
            stdin: child.stdin.take(),
            child,
            workers: Vec::new(),
            lines,
            seen: format!("{args:?}\n"),
            stderr,
        }
    }

    /// The next line of its standard output with this in it.
    pub(crate) fn line(&mut self, part: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.note(&line);
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("no {part:?} comes from {}", self.seen)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("no {part:?} has come from {}", self.seen)
                }
            }
        }
    }

    fn note(&mut self, line: &str) {
        writeln!(self.seen, "{line}").unwrap();
        if let Some((_, rest)) = line.split_once(": process ") {
            let id = rest.split(',').next().unwrap();
            self.workers.push(Pid::from_raw(id.parse().unwrap()));
        }
    }

    /// The process of a worker that this one has started, and said so.
    pub(crate) fn worker(&self, index: usize) -> Pid {
        self.workers[index]
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.child.id().try_into().unwrap();
        signal::kill(Pid::from_raw(id), signal).unwrap();
    }

    /// Has one of a worker's items fail.
    pub(crate) fn let_one_fail(&mut self) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(b"fail\n").unwrap();
    }

    /// Waits until it has ended, and all that it started.
    pub(crate) fn ended(mut self) -> Ended {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.note(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("no end comes of {}", self.seen),
            }
        }
        let left = until.saturating_duration_since(Instant::now());
        let Ok(stderr) = self.stderr.recv_timeout(left) else {
            panic!("a process is left of {}", self.seen)
        };
        Ended {
            status: self.child.wait().unwrap(),
            stdout: self.seen.clone(),
            stderr,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking() {
            for &worker in &self.workers {
                let _ = signal::kill(worker, Signal::SIGKILL);
            }
        }
    }
}

/// A worker that the test has started itself.
pub(crate) struct Worker {
    pub(crate) process: Process,
    pub(crate) addr: SocketAddr,
}

impl Worker {
    pub(crate) fn start(args: &[&str]) -> Worker {
        let patient = patient(args).map(str::to_owned);
        let args = args.iter().map(|arg| (*arg).to_owned());
        let parent_pipe = ["worker", "--parent-pipe"].map(str::to_owned);
        let mut process = Process::start(parent_pipe.into_iter().chain(patient).chain(args));
        let line = process.line("listening on ");
        let addr = line["listening on ".len()..].parse().unwrap();
        Worker { process, addr }
    }

    /// What has become of its items, once none of them runs.
    pub(crate) fn settled(&self) -> Tally {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let ctx = Context::background().with_timeout(PATIENCE);
            let fleet = Fleet::connect(&ctx, vec![self.addr], PATIENCE)
                .await
                .unwrap();
            let accounts = fleet.settle(&ctx).await.unwrap();
            accounts[0].tally
        })
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(self) -> Ended {
        self.process.signal(Signal::SIGTERM);
        let ended = self.process.ended();
        assert!(ended.status.success(), "{}", ended.stderr);
        ended
    }
}

/// A coordinator of these workers.
pub(crate) fn coordinator(workers: &[Worker], args: &[&str]) -> Process {
    let addrs = workers.iter().map(|w| format!("--worker={}", w.addr));
    let patient = patient(args).map(str::to_owned);
    let args = args.iter().map(|arg| (*arg).to_owned());
    let run = ["run".to_owned()].into_iter();
    Process::start(run.chain(addrs).chain(patient).chain(args))
}

/// Where pings are not tested, no worker is to be lost because the machine is busy.
fn patient(args: &[&str]) -> Option<&'static str> {
    let is_said = args.iter().any(|arg| arg.starts_with("--keep-alive="));
    (!is_said).then_some("--keep-alive=20s")
}

/// The answers that it has listed, which must be those of the first `items` items, in order.
pub(crate) fn assert_right(stdout: &str, items: u64) {
    let listed: Vec<_> = stdout
        .lines()
        .filter(|line| line.starts_with("item "))
        .collect();
    let right: Vec<_> = (0..)
        .zip(primes_by_hundred(items))
        .take(items as usize)
        .collect();
    assert_eq!(listed.len(), right.len());
    for (line, (item, primes)) in listed.into_iter().zip(right) {
        assert_eq!(line, format!("item {item}: {primes}"));
    }
}

/// By a sieve, and so in another way than the workers do it.
fn primes_by_hundred(items: u64) -> VecDeque<u64> {
    let end = items as usize * 100;
    let mut composite = vec![false; end];
    let mut counts = VecDeque::from(vec![0; items as usize]);
    for number in 2..end {
        if !composite[number] {
            counts[number / 100] += 1;
            (number * number..end)
                .step_by(number)
                .for_each(|multiple| composite[multiple] = true);
        }
    }
    counts
}

/// The times that a test has seen, for the reader of its output.
pub(crate) fn show(stdout: &str) {
    let times = stdout.lines().filter(|line| line.contains(" ms ± "));
    let text: String = times.fold(String::new(), |text, line| text + line + "\n");
    drop(io::stderr().write_all(text.as_bytes()));
}
