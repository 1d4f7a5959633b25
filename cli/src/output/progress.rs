//! Progress of a session: a bar where somebody watches, nothing anywhere else.

use indicatif::{ProgressBar, ProgressStyle};
use syncline_client::{Phase, ProgressState};
use tokio::sync::watch;

use super::numbers::{bytes, count};

/// Shows the states until the run is over; answers how many batches an earlier run had moved.
pub(crate) async fn watch(mut states: watch::Receiver<ProgressState>, is_watched: bool) -> u64 {
    let bar = if is_watched { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}  {elapsed}") {
        bar.set_style(style);
    }
    let mut batches_kept = 0;
    loop {
        let state = states.borrow_and_update().clone();
        batches_kept = state.batches_kept.max(batches_kept);
        bar.set_message(message(&state));
        bar.tick();
        if state.phase == Phase::Done || states.changed().await.is_err() {
            break;
        }
    }
    bar.finish_and_clear();
    batches_kept
}

fn message(state: &ProgressState) -> String {
    if let Some(cause) = &state.waiting_for {
        return format!("waiting, then trying again: {cause}");
    }
    let text = match state.phase {
        Phase::Connecting => "connecting",
        Phase::Collecting => "collecting changes",
        Phase::Uploading => "uploading",
        Phase::ApplyingAtHub => "applying at the hub",
        Phase::Downloading => "downloading",
        Phase::Applying => "applying",
        Phase::Ending => "acknowledging",
        Phase::Done => "done",
    };
    let mut parts = Vec::new();
    match (state.rows, state.rows_total) {
        (0, _) => {}
        (rows, Some(total)) => parts.push(format!("{} of {} rows", count(rows), count(total))),
        (rows, None) => parts.push(format!("{} rows", count(rows))),
    }
    if state.bytes > 0 {
        parts.push(bytes(state.bytes));
    }
    if state.batches > 0 {
        parts.push(format!("{} batches", count(state.batches)));
    }
    if let Some(percent) = state.resumed_percent {
        parts.push(format!("resumed at {percent} %"));
    }
    if parts.is_empty() { text.to_owned() } else { format!("{text}: {}", parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use syncline_client::Progress;

    use super::*;

    #[test]
    fn a_message_says_what_is_known() {
        assert_eq!(message(&ProgressState::default()), "connecting");
        let state = ProgressState {
            phase: Phase::Applying,
            rows: 1_234,
            rows_total: Some(2_000),
            bytes: 2_048,
            batches: 3,
            resumed_percent: Some(61),
            ..ProgressState::default()
        };
        assert_eq!(message(&state), "applying: 1,234 of 2,000 rows, 2.0 KiB, 3 batches, resumed at 61 %");
        let waiting = ProgressState { waiting_for: Some("x".into()), ..state };
        assert_eq!(message(&waiting), "waiting, then trying again: x");
    }

    #[tokio::test]
    async fn watching_ends_with_the_run() {
        let (progress, states) = Progress::channel();
        drop(progress);
        assert_eq!(watch(states, false).await, 0);
    }
}
