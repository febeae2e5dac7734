//! Go's `errgroup` and `context`: a Go program is built and stays running, and receives for each
//! round what to measure.

use std::cell::RefCell;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, bail, ensure};

use crate::bytes::Figures;
use crate::chain::chain;
use crate::context::{check, err, with_cancel, with_timeout};
use crate::spawn::{limited, limited_awaited, unlimited};
use crate::table::{Row, Table};
use crate::workload::{Workers, at_once, yields_once};

/// Where Debian's package `golang-golang-x-sync-dev` puts the sources.
const SYSTEM_GOPATH: &str = "/usr/share/gocode";

/// Rows that depend on the number of workers, which is Go's `GOMAXPROCS` too.
pub(crate) fn rows(table: &mut Table, workers: &Workers) -> anyhow::Result<()> {
    let go = Row::new("go, ends at once", "Go: Go").at_most(1.0);
    let go_yields = Row::new("go, yields once", "Go: Go, Gosched");
    let awaited = Row::new("limited go(..).await, ends at once", "Go: SetLimit, Go").at_most(0.9);
    let awaited_yields = Row::new(
        "limited go(..).await, yields once",
        "Go: SetLimit, Go, Gosched",
    );
    let not_awaited = Row::new("limited go, ends at once", "Go: SetLimit, Go").at_most(0.9);
    let rows = [&go, &go_yields, &awaited, &awaited_yields, &not_awaited];
    let Some(theirs) = Go::wanted(table, &rows)? else {
        return Ok(());
    };

    let ask = |name: &'static str| || theirs.ask(name);
    table.pair(go, || workers.run(unlimited(at_once)), ask("go"))?;
    table.pair(
        awaited,
        || workers.run(limited_awaited(at_once)),
        ask("limited_go"),
    )?;
    table.pair(
        not_awaited,
        || workers.run(limited(at_once)),
        ask("limited_go"),
    )?;
    table.pair(
        go_yields,
        || workers.run(unlimited(yields_once)),
        ask("go_yields"),
    )?;
    table.pair(
        awaited_yields,
        || workers.run(limited_awaited(yields_once)),
        ask("limited_go_yields"),
    )?;
    theirs.finish()
}

/// Rows that do not depend on it.
pub(crate) fn context_rows(table: &mut Table) -> anyhow::Result<()> {
    let cancel = Row::new("with_cancel + drop", "Go: WithCancel, cancel").at_most(0.3);
    let timeout = Row::new("with_timeout + drop", "Go: WithTimeout, cancel").at_most(0.12);
    let asking_check = Row::new("check, depth 1", "Go: ctx.Err()").at_most(0.3);
    let asking_err = Row::new("err, depth 1", "Go: ctx.Err()").at_most(0.3);
    let blocked = Row::new("a task that waits in a group", "Go: a blocked goroutine").at_most(0.3);
    let rows = [&cancel, &timeout, &asking_check, &asking_err, &blocked];
    let Some(theirs) = Go::wanted(table, &rows)? else {
        return Ok(());
    };

    let (ctx, _guards) = chain(1);
    let ask = |name: &'static str| || theirs.ask(name);
    table.pair(cancel, || with_cancel(&ctx), ask("with_cancel"))?;
    table.pair(timeout, || with_timeout(&ctx), ask("with_timeout"))?;
    table.pair(asking_check, || check(&ctx), ask("err"))?;
    table.pair(asking_err, || err(&ctx), ask("err"))?;
    if table.wants(&blocked) {
        let bytes = Figures::counted()?.get("waiting in a group")?;
        table.bytes_ratio(blocked, bytes, theirs.ask("blocked_bytes"))?;
    }
    theirs.finish()
}

/// The running Go program. For each name that it receives, it measures once and prints a number.
pub(crate) struct Go {
    child: Child,
    pipes: RefCell<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Go {
    /// The program, if one of these rows is requested and Go is available. If it is not, the rows
    /// are reported as left out.
    pub(crate) fn wanted(table: &mut Table, rows: &[&Row]) -> anyhow::Result<Option<Go>> {
        if !rows.iter().any(|row| table.wants(row)) {
            return Ok(None);
        }
        let program = match build() {
            Ok(program) => program,
            Err(error) => {
                for row in rows {
                    table.leave_out(row, &format!("{error:#}"))?;
                }
                return Ok(None);
            }
        };
        let mut child = Command::new(program)
            .arg("-serve")
            .env("GOMAXPROCS", table.workers().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run the Go program")?;
        let stdin = child.stdin.take().context("no pipe")?;
        let stdout = child.stdout.take().context("no pipe")?;
        Ok(Some(Go {
            child,
            pipes: RefCell::new((stdin, BufReader::new(stdout))),
        }))
    }

    pub(crate) fn ask(&self, name: &str) -> f64 {
        match self.answer(name) {
            Ok(number) => number,
            Err(error) => panic!("the Go program, asked for {name}: {error:#}"),
        }
    }

    fn answer(&self, name: &str) -> anyhow::Result<f64> {
        let (stdin, stdout) = &mut *self.pipes.borrow_mut();
        writeln!(stdin, "{name}")?;
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        Ok(line.trim().parse()?)
    }

    /// The program exits when its standard input is closed.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        drop(self.pipes);
        let status = self.child.wait()?;
        ensure!(status.success(), "the Go program: {status}");
        Ok(())
    }
}

/// Builds `benches/go`, with modules if they are available, and otherwise with the sources of a
/// GOPATH.
fn build() -> anyhow::Result<PathBuf> {
    const HOW: &str = "install Go and golang.org/x/sync: see benches/README.md";

    let compiler = env::var_os("GO").unwrap_or_else(|| "go".into());
    let version = Command::new(&compiler).arg("version").output();
    ensure!(
        version.is_ok_and(|version| version.status.success()),
        "there is no `{}`; {HOW}",
        Path::new(&compiler).display()
    );

    // A copy, because go records there which version it used.
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go");
    fs::create_dir_all(&scratch)?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../go");
    for file in ["main.go", "go.mod"] {
        fs::copy(source.join(file), scratch.join(file))?;
    }
    let program = scratch.join(format!("peers{}", env::consts::EXE_SUFFIX));

    let go = |arguments: &[&str], settings: &[(&str, String)]| {
        Command::new(&compiler)
            .args(arguments)
            .current_dir(&scratch)
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .output()
            .is_ok_and(|output| output.status.success())
    };
    let out = program.to_string_lossy();
    if go(&["build", "-mod=mod", "-o", &out, "."], &[]) {
        return Ok(program);
    }
    let gopath = match env::var("GOPATH") {
        Ok(gopath) => gopath,
        Err(_) => SYSTEM_GOPATH.to_owned(),
    };
    let settings = [("GO111MODULE", "off".to_owned()), ("GOPATH", gopath)];
    if go(&["build", "-o", &out, "main.go"], &settings) {
        return Ok(program);
    }
    bail!("golang.org/x/sync is neither a module that go can get nor in a GOPATH; {HOW}")
}
