//! The demonstration: four commands that end differently.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use errgroup::Context;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::time::timeout;

use crate::process::{Ended, run};

const GRACE: Duration = Duration::from_secs(1);

/// Leaves when asked to, and tidies up before.
const POLITE: &str = r#"
    trap 'echo "tidied up"; exit 0' TERM
    echo "group $$"
    while :; do sleep 0.02; done"#;

/// Its grandchild does not listen.
const DEAF: &str = r#"
    sh -c 'trap "" TERM; echo "group $PPID"; sleep 600; :' & wait"#;

/// Ends by itself, and leaves somebody behind.
const CARELESS: &str = r#"
    sleep 600 &
    echo "group $$"
    exit 3"#;

pub(crate) async fn play() -> anyhow::Result<()> {
    let out = &mut io::stdout();

    let (ctx, guard) = Context::background().with_cancel();
    let (ended, wall) = watch(out, "polite", POLITE, &ctx, || drop(guard)).await?;
    ensure!(ended.status.code() == Some(0), "it could not tidy up");
    ensure!(
        !ended.killed && wall < GRACE,
        "it would have left by itself"
    );

    let (ctx, guard) = Context::background().with_cancel();
    let (ended, wall) = watch(out, "deaf", DEAF, &ctx, || drop(guard)).await?;
    ensure!(ended.killed, "its grandchild listened");
    ensure!(wall >= GRACE, "the grace was cut short");

    let ctx = Context::background();
    let (ended, _) = watch(out, "careless", CARELESS, &ctx, || ()).await?;
    ensure!(ended.status.code() == Some(3), "its status is another's");
    ensure!(!ended.killed, "whom it left behind was not asked");

    dropped(out).await
}

/// Runs a command under `ctx`, and calls `then` when it has said which group it is; gives how long it took from there.
async fn watch(
    out: &mut impl Write,
    name: &str,
    script: &str,
    ctx: &Context,
    then: impl FnOnce(),
) -> anyhow::Result<(Ended, Duration)> {
    let (command, mut pipe) = shell(script)?;
    let started = async {
        let group = pipe.line().await?;
        then();
        Ok((group, Instant::now()))
    };
    let (ended, (group, start)) = tokio::try_join!(run(ctx, command, GRACE), started)?;
    let wall = start.elapsed();

    let said = pipe.rest().await.context(name.to_owned())?;
    let how = if ended.killed { "killed" } else { "not killed" };
    let status = ended.status;
    writeln!(
        out,
        "{name:<9} {group}: all gone after {wall:.1?}, {how}; {status}; {said:?}"
    )?;
    Ok((ended, wall))
}

/// Nobody asks the deaf one, and its context does not end: the future goes.
async fn dropped(out: &mut impl Write) -> anyhow::Result<()> {
    let ctx = Context::background();
    let (command, mut pipe) = shell(DEAF)?;
    let group = tokio::select! {
        ended = run(&ctx, command, GRACE) => bail!("ended by itself: {}", ended?.status),
        group = pipe.line() => group?,
    };
    let start = Instant::now();
    pipe.rest().await.context("dropped")?;
    let wall = start.elapsed();
    writeln!(out, "dropped   {group}: all gone after {wall:.1?}")?;
    ensure!(wall < GRACE, "nobody was to wait for it");
    Ok(())
}

/// A shell that runs the script, and what its processes print.
fn shell(script: &str) -> anyhow::Result<(Command, Pipe)> {
    let (ours, theirs) = UnixStream::pair()?;
    let theirs = theirs.into_std()?;
    theirs.set_nonblocking(false)?;
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .stdin(Stdio::null())
        .stderr(Stdio::null()) // a shell says there who was terminated
        .stdout(OwnedFd::from(theirs));
    Ok((command, Pipe(ours)))
}

/// What processes print; it ends when the last of them has.
struct Pipe(UnixStream);

impl Pipe {
    async fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        loop {
            match self.0.read_u8().await? {
                b'\n' => return Ok(String::from_utf8_lossy(&line).into_owned()),
                byte => line.push(byte),
            }
        }
    }

    async fn rest(mut self) -> anyhow::Result<String> {
        let mut rest = String::new();
        timeout(Duration::from_secs(5), self.0.read_to_string(&mut rest))
            .await
            .context("somebody is left who could print")??;
        Ok(rest)
    }
}
