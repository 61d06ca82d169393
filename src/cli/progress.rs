//! A progress bar on stderr, for people who wait longer than a second.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const PATIENCE: Duration = Duration::from_secs(1);

/// Takes `(done, total)` in bytes and shows a bar where stderr is a terminal and it takes long.
pub(super) fn bar(what: &'static str) -> impl FnMut(u64, u64) {
    let started = Instant::now();
    let is_seen = stderr().is_terminal();
    let mut bar: Option<ProgressBar> = None;
    move |done, total| {
        if !is_seen || (bar.is_none() && started.elapsed() < PATIENCE) {
            return;
        }
        let bar = bar.get_or_insert_with(|| {
            let template = "{msg} {wide_bar} {bytes} / {total_bytes}, {eta} left";
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total).with_style(style).with_message(what)
        });
        bar.set_position(done);
        if done >= total {
            bar.finish_and_clear();
        }
    }
}
