//! Pictures of how cost grows: with rows, with changes, with replicas, and with the size of batches.

mod axis;
mod growth;
mod svg;

use std::path::Path;

use anyhow::Result;

use crate::bench::{Bench, say};

/// A picture.
#[derive(Debug)]
pub(crate) struct Plot {
    /// The file's name, without its end.
    name: &'static str,
    title: String,
    across: Axis,
    up: Axis,
    lines: Vec<Line>,
}

/// What an axis shows.
#[derive(Debug, Clone, Copy)]
struct Axis {
    label: &'static str,
    scale: Scale,
    format: fn(f64) -> String,
}

/// How an axis is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    /// From zero on.
    Linear,
    /// Equal distances are equal ratios.
    Logarithmic,
}

/// What was measured of one thing.
#[derive(Debug)]
struct Line {
    name: &'static str,
    points: Vec<(f64, f64)>,
}

/// Measures, and writes a picture of each into the directory, which is made if it is not there.
pub(crate) async fn write(bench: &Bench, directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let mut plots = vec![growth::rows(bench).await?, growth::changes(bench).await?];
    plots.push(growth::replicas(bench).await?);
    plots.extend(growth::batch_size(bench).await?);
    for plot in plots {
        let file = directory.join(plot.name).with_extension("svg");
        std::fs::write(&file, svg::draw(&plot))?;
        say(&format!("{}", file.display()));
    }
    Ok(())
}
