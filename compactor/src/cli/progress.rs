//! What is being done, on a terminal only: one line on standard error that goes away.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// The line.
#[derive(Debug)]
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// A line, if `wanted` and standard error is a terminal.
    pub fn new(wanted: bool) -> Self {
        let bar = (wanted && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new_spinner();
            let plain = std::env::var_os("NO_COLOR").is_some();
            let template = if plain { "{spinner} {msg}" } else { "{spinner:.cyan} {msg}" };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self(bar)
    }

    /// Says what is being done.
    pub fn step(&self, step: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(recount_schemas::terminal::shown(step));
        }
    }

    /// Takes the line away.
    pub fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
