//! Progress of a session: a bar where somebody watches, nothing anywhere else.

use indicatif::{ProgressBar, ProgressStyle};

use super::numbers::{bytes, count};

/// What a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Batches go to the hub.
    Upload,
    /// The hub applies them.
    ApplyThere,
    /// Batches come from the hub.
    Download,
    /// They are applied here.
    ApplyHere,
}

impl Step {
    const fn text(self) -> &'static str {
        match self {
            Self::Upload => "uploading",
            Self::ApplyThere => "applying at the hub",
            Self::Download => "downloading",
            Self::ApplyHere => "applying",
        }
    }
}

/// A bar, or nothing.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar if somebody watches.
    pub(crate) fn new(is_watched: bool) -> Self {
        let bar = if is_watched { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}  {elapsed}") {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// Where the session stands.
    pub(crate) fn show(&self, step: Step, rows: u64, moved: u64, batches: u64) {
        self.bar.set_message(message(step, rows, moved, batches));
        self.bar.tick();
    }

    /// The bar goes away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn message(step: Step, rows: u64, moved: u64, batches: u64) -> String {
    let mut parts = Vec::new();
    if rows > 0 {
        parts.push(format!("{} rows", count(rows)));
    }
    if moved > 0 {
        parts.push(bytes(moved));
    }
    if batches > 0 {
        parts.push(format!("{} batches", count(batches)));
    }
    if parts.is_empty() { step.text().to_owned() } else { format!("{}: {}", step.text(), parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_what_is_known() {
        assert_eq!(message(Step::Download, 0, 0, 0), "downloading");
        assert_eq!(message(Step::Upload, 1_234, 2_048, 3), "uploading: 1,234 rows, 2.0 KiB, 3 batches");
    }

    #[test]
    fn nobody_watches_a_hidden_bar() {
        let progress = Progress::new(false);
        progress.show(Step::ApplyHere, 1, 1, 1);
        assert!(progress.bar.is_hidden());
        progress.show(Step::ApplyThere, 1, 0, 0);
    }
}
