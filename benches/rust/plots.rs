//! Draws the results of `growth`: an SVG for each group, with a line for each operation or number
//! of workers.
//!
//! ```sh
//! cargo bench -p benches --bench growth
//! cargo bench -p benches --bench plots                    # into target/cost
//! cargo bench -p benches --bench plots -- docs/cost       # into the documentation
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, ensure};
use clap::Parser;
use plotters::prelude::*;
use serde_json::Value;

/// Draws the results of the bench `growth`.
#[derive(Parser)]
#[command(name = "plots", bin_name = "cargo bench -p benches --bench plots --")]
struct Cli {
    /// The folder for the SVGs, seen from the root of the repository; by default target/cost
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,

    /// The folder of criterion's estimates; by default target/criterion
    #[arg(long, value_name = "FOLDER")]
    criterion: Option<PathBuf>,

    /// Passed by cargo to every benchmark; has no effect
    #[arg(long, hide = true)]
    bench: bool,
}

/// The printed name of a group of criterion.
struct Plot {
    group: &'static str,
    title: &'static str,
    along: &'static str,
}

const PLOTS: [Plot; 6] = [
    Plot {
        group: "depth",
        title: "A chain of contexts",
        along: "depth",
    },
    Plot {
        group: "fan",
        title: "cancel() of a context with children",
        along: "children",
    },
    Plot {
        group: "waiting",
        title: "From cancel() until all who await done() have ended",
        along: "tasks",
    },
    Plot {
        group: "tasks",
        title: "An unlimited group, tasks that yield once",
        along: "tasks",
    },
    Plot {
        group: "limits",
        title: "10,000 tasks that yield once, through a limited group",
        along: "limit",
    },
    Plot {
        group: "items",
        title: "10,000 items that yield once, through fetch_all",
        along: "limit",
    },
];

/// For each operation: how many, and the median in nanoseconds.
type Lines = BTreeMap<String, Vec<(f64, f64)>>;

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .context("no target folder")?;
    let criterion = cli.criterion.unwrap_or_else(|| target.join("criterion"));
    // Cargo runs a benchmark in the folder of its package.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = cli
        .folder
        .map_or_else(|| target.join("cost"), |folder| root.join(folder));
    fs::create_dir_all(&folder)?;
    for plot in PLOTS {
        let lines = read(&criterion.join(plot.group))
            .with_context(|| format!("{}: run the bench `growth` first", plot.group))?;
        let path = folder.join(plot.group).with_extension("svg");
        draw(&path, &plot, &lines).map_err(|error| anyhow!("{}: {error}", path.display()))?;
        writeln!(io::stdout(), "{}", path.display())?;
    }
    Ok(())
}

/// A folder for each line, and in it one for each point.
fn read(group: &Path) -> anyhow::Result<Lines> {
    let mut lines = Lines::new();
    for line in folders(group)? {
        for point in folders(&line)? {
            let point = point.join("new");
            if !point.is_dir() {
                continue;
            }
            let what = parse(&point.join("benchmark.json"))?;
            let estimates = parse(&point.join("estimates.json"))?;
            let name = what["function_id"].as_str().context("no function_id")?;
            let count = what["value_str"].as_str().context("no value_str")?;
            let median = estimates["median"]["point_estimate"].as_f64();
            let median = median.context("no median")?;
            let points = lines.entry(name.to_owned()).or_default();
            points.push((count.parse()?, median));
        }
    }
    ensure!(!lines.is_empty(), "there is nothing in {}", group.display());
    for points in lines.values_mut() {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    Ok(lines)
}

fn folders(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(path).with_context(|| path.display().to_string())?;
    let mut folders = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    Ok(folders)
}

fn parse(path: &Path) -> anyhow::Result<Value> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(serde_json::from_str(&text)?)
}

fn draw(path: &Path, plot: &Plot, lines: &Lines) -> Result<(), Box<dyn std::error::Error>> {
    const COLOURS: [RGBColor; 4] = [
        RGBColor(0x1f, 0x77, 0xb4),
        RGBColor(0xd6, 0x5f, 0x0e),
        RGBColor(0x2c, 0x8c, 0x3c),
        RGBColor(0x80, 0x50, 0xa8),
    ];

    let root = SVGBackend::new(path, (720, 440)).into_drawing_area();
    root.fill(&WHITE)?;
    let points = || lines.values().flatten();
    let x = around(points().map(|point| point.0));
    let y = decades(around(points().map(|point| point.1)));
    let mut chart = ChartBuilder::on(&root)
        .caption(plot.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d(x.log_scale(), y.log_scale())?;
    chart
        .configure_mesh()
        .x_desc(plot.along)
        .y_desc("time")
        .x_label_formatter(&|count| format!("{count:.0}"))
        .y_label_formatter(&|time| nanoseconds(*time))
        .light_line_style(WHITE)
        .draw()?;
    for ((name, points), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(2);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style).point_size(3))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.2))
        .draw()?;
    root.present()?;
    Ok(())
}

/// From a little below the minimum to a little above the maximum.
fn around(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    low / 1.3..high * 1.3
}

/// Whole powers of ten, so that a nearly flat curve looks flat.
fn decades(range: Range<f64>) -> Range<f64> {
    let power = |exponent: f64| 10_f64.powf(exponent);
    power(range.start.log10().floor())..power(range.end.log10().ceil())
}

fn nanoseconds(time: f64) -> String {
    // A computed power of ten may be a little too small.
    match time * 1.001 {
        ..1e3 => format!("{time:.0} ns"),
        ..1e6 => format!("{:.0} us", time / 1e3),
        ..1e9 => format!("{:.0} ms", time / 1e6),
        _ => format!("{:.0} s", time / 1e9),
    }
}
