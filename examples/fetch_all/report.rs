//! What is shown: the progress while it runs, and the sums when it is over.

use std::io::{self, Write};
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar};
use tokio::sync::watch;

use crate::client::Page;
use crate::ledger::Counts;

/// A bar if stderr is a terminal; elsewhere a plain line on stdout for each tenth of the pages.
pub(crate) struct Progress {
    bar: ProgressBar,
    total: usize,
    tenths: usize,
}

impl Progress {
    pub(crate) fn new(total: usize) -> Progress {
        Progress {
            bar: ProgressBar::new(total as u64),
            total,
            tenths: 0,
        }
    }

    /// Shows the pages finished, as long as anybody counts and it can be shown.
    pub(crate) async fn follow(&mut self, mut counts: watch::Receiver<Counts>) -> io::Result<()> {
        while counts.changed().await.is_ok() {
            let finished = counts.borrow_and_update().finished;
            self.show(finished)?;
        }
        Ok(())
    }

    pub(crate) fn finish(mut self, finished: usize) -> io::Result<()> {
        self.show(finished)?;
        self.bar.finish_and_clear();
        Ok(())
    }

    fn show(&mut self, finished: usize) -> io::Result<()> {
        self.bar.set_position(finished as u64);
        let tenths = finished * 10 / self.total;
        if self.bar.is_hidden() && tenths > self.tenths {
            self.tenths = tenths;
            writeln!(io::stdout(), "  {finished}/{} pages", self.total)?;
        }
        Ok(())
    }
}

/// Every page, in the order of the URLs.
pub(crate) fn listing(out: &mut impl Write, pages: &[Page]) -> io::Result<()> {
    for Page { url, bytes, took } in pages {
        writeln!(
            out,
            "{:>12} {:>9}  {url}",
            HumanBytes(*bytes).to_string(),
            format!("{took:.1?}")
        )?;
    }
    Ok(())
}

pub(crate) fn summary(out: &mut impl Write, pages: &[Page], wall: Duration) -> io::Result<()> {
    let bytes = pages.iter().map(|page| page.bytes).sum();
    let one_by_one: Duration = pages.iter().map(|page| page.took).sum();
    let ratio = one_by_one.div_duration_f64(wall);
    writeln!(out, "  pages        {}", pages.len())?;
    writeln!(out, "  bytes        {}", HumanBytes(bytes))?;
    writeln!(out, "  wall time    {wall:.1?}")?;
    writeln!(
        out,
        "  one by one   {one_by_one:.1?} (the pages' times added up), {ratio:.1} times as long"
    )?;
    if let Some(Page { url, took, .. }) = pages.iter().max_by_key(|page| page.took) {
        writeln!(out, "  slowest      {took:.1?}, {url}")?;
    }
    Ok(())
}

pub(crate) fn ends(out: &mut impl Write, total: usize, counts: Counts) -> io::Result<()> {
    let Counts {
        begun,
        finished,
        failed,
        cut_off,
    } = counts;
    let never = total - begun;
    write!(out, "  pages        {finished} finished, {failed} failed, ")?;
    writeln!(out, "{cut_off} cut off in flight, {never} never started")
}

/// What the client counted beside what the server counted.
pub(crate) fn both_sides(
    out: &mut impl Write,
    total: usize,
    client: Counts,
    server: Counts,
) -> io::Result<()> {
    writeln!(out, "  {:<18} {:>7} {:>7}", "", "client", "server")?;
    let mut row = |what, client: usize, server: usize, seen| {
        writeln!(out, "  {what:<18} {client:>7} {server:>7}  {seen}")
    };
    row("begun", client.begun, server.begun, "requests")?;
    row("finished", client.finished, server.finished, "answered 200")?;
    row("failed", client.failed, server.failed, "answered 500")?;
    row(
        "cut off in flight",
        client.cut_off,
        server.cut_off,
        "connection gone before the answer",
    )?;
    row(
        "never started",
        total - client.begun,
        total.saturating_sub(server.begun),
        "not heard of",
    )
}
