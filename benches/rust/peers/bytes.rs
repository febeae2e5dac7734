//! Rows in bytes, which the bench `bytes` counts in a process of its own.

use std::collections::HashMap;
use std::env;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::table::{Row, Table};

const FINISHED: &str = "100,000 finished tasks";

pub(crate) fn rows(table: &mut Table) -> anyhow::Result<()> {
    let waiting = Row::new("a task that waits in a group", "tokio::spawn").at_most(256.0);
    let limited = Row::new(format!("{FINISHED}, limited group"), "nothing").at_most(0.0);
    let unlimited = Row::new(format!("{FINISHED}, unlimited"), "nothing").at_most(0.0);
    let children = Row::new("300,000 dropped child contexts", "nothing").at_most(0.0);
    if ![&waiting, &limited, &unlimited, &children]
        .iter()
        .any(|row| table.wants(row))
    {
        return Ok(());
    }

    let figures = Figures::counted()?;
    let bare = figures.get("waiting in a bare spawn")?;
    table.bytes_over(waiting, figures.get("waiting in a group")?, bare)?;
    table.bytes_over(limited, figures.get("finished in a limited group")?, 0.0)?;
    table.bytes_over(
        unlimited,
        figures.get("finished in an unlimited group")?,
        0.0,
    )?;
    table.bytes_over(children, figures.get("dropped children")?, 0.0)?;
    Ok(())
}

/// The output of the bench `bytes`: a name and a number on each line.
pub(crate) struct Figures(HashMap<String, f64>);

impl Figures {
    /// Lets cargo build and run it, with the features of this program.
    pub(crate) fn counted() -> anyhow::Result<Figures> {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        cargo.args(["bench", "--quiet", "--bench", "bytes"]);
        if cfg!(feature = "signal") {
            cargo.args(["--features", "signal"]);
        }
        if cfg!(feature = "tokio-util") {
            cargo.args(["--features", "tokio-util"]);
        }
        let output = cargo
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run cargo, for the bench `bytes`")?;
        ensure!(output.status.success(), "bench `bytes`: {}", output.status);
        String::from_utf8(output.stdout)?
            .lines()
            .map(|line| {
                let (name, bytes) = line.split_once(": ").context("not a name and a number")?;
                Ok((name.to_owned(), bytes.parse()?))
            })
            .collect::<anyhow::Result<_>>()
            .map(Figures)
            .context("bench `bytes`")
    }

    pub(crate) fn get(&self, name: &str) -> anyhow::Result<f64> {
        let figure = self.0.get(name).copied();
        figure.with_context(|| format!("bench `bytes` printed no line for: {name}"))
    }
}
