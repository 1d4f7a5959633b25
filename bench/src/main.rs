//! What the documents say of speed, reproducible: each figure beside its limit, measured in the same run.
//!
//! ```text
//!  main -> cases (one file each) -> interleaved: ours, limit, limit, ours, ...
//!                                      |            |
//!                                 processes: service and client, or a limit, as children of this program
//!                                      |
//!          report: medians, ratios, peak memory; a table, or one JSON document
//! ```
//!
//! In reading order: [`cases`] what is measured; [`limit`] what it is compared with; [`processes`] and [`children`] how
//! both run; [`rows`] the one sequence of rows; [`database`], [`leaf`], [`store`] and [`scope`] the databases, as an
//! application and as the engine sees them; [`report`] the answer; [`plots`] pictures.

mod application;
mod bench;
mod cases;
mod children;
mod copy;
mod database;
mod follow;
mod leaf;
mod limit;
mod many;
mod plots;
mod polls;
mod processes;
mod report;
mod rows;
mod scope;
mod store;
mod wire;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use bench::{Bench, Counts};
use cases::Case;
use report::{Machine, Report};

/// Measures Syncline beside what the databases themselves need.
#[derive(Debug, Parser)]
#[command(
    name = "syncline-bench",
    after_help = "Example: cargo run --release -p syncline-bench -- download_pg_sqlite"
)]
struct Arguments {
    /// What to measure; everything if nothing is said, or what `--plots` draws and nothing else
    #[arg(value_enum)]
    names: Vec<Case>,
    /// Rows of the large tables. With 1,000,000 uploads move 200,000 rows, `memory` compares 5,000,000 with 100,000,
    /// and `delta_scale` 10,000,000 with 10,000; with fewer, all of it shrinks alike
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    rows: u64,
    /// Repetitions, ours and limit in turn; medians are reported
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    repeat: u32,
    #[command(flatten)]
    counts: Counts,
    /// Answer with one JSON document
    #[arg(long)]
    json: bool,
    /// Where SQLite files and the spool are made, and removed again; default: beside this program
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Measures how cost grows with rows, changes, replicas and the size of batches, and draws it into this directory
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// The file that says what a child process of this program is to do
    #[arg(long, hide = true)]
    child: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.child {
        Some(job) => children::run(job),
        None => tokio::runtime::Runtime::new()?.block_on(measure(arguments)),
    }
}

async fn measure(arguments: Arguments) -> Result<()> {
    let Arguments { names, rows, repeat, counts, json, directory, plots, child: _ } = arguments;
    let bench = Bench::new(rows, counts, repeat, directory)?;
    let mut cases = Vec::new();
    for case in if names.is_empty() && plots.is_none() { Case::all() } else { names } {
        cases.extend(case.run(&bench).await?);
    }
    if let Some(directory) = plots {
        plots::write(&bench, &directory).await?;
    }
    let report = Report { machine: Machine::here(rows, repeat), cases };
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else if !report.cases.is_empty() {
        print!("{}", report.table());
    }
    Ok(())
}
