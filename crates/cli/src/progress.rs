//! A progress bar for what takes longer than a second, on a terminal only.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long nothing is shown.
const SILENCE: Duration = Duration::from_secs(1);
/// Time from one drawing to the next.
const TICK: Duration = Duration::from_millis(100);

/// Counts steps; shows them on stderr once a second has passed, and that time goes on while a step takes long.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// Dropped when there is nothing to show any more.
    done: Option<Sender<()>>,
    watch: Option<JoinHandle<()>>,
}

impl Progress {
    /// Progress over so many steps.
    pub(crate) fn new(steps: u64) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {bar:30} {pos}/{len} {elapsed} {msg}") {
            bar.set_style(style);
        }
        let (done, watched) = channel();
        let shown = bar.clone();
        let watch = std::thread::Builder::new().name("progress".into()).spawn(move || {
            if watched.recv_timeout(SILENCE) == Err(RecvTimeoutError::Timeout) {
                // Draws nothing where stderr is no terminal.
                shown.set_draw_target(ProgressDrawTarget::stderr());
                shown.enable_steady_tick(TICK);
            }
        });
        // Without a thread there is no bar.
        Progress { bar, done: Some(done), watch: watch.ok() }
    }

    /// What the present step does now.
    pub(crate) fn now(&mut self, what: &str) {
        self.bar.set_message(what.to_string());
    }

    /// The next step begins.
    pub(crate) fn step(&mut self, what: &str) {
        self.bar.inc(1);
        self.bar.set_message(what.to_string());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.done = None;
        if let Some(watch) = self.watch.take() {
            // It does nothing that could panic.
            let _ = watch.join();
        }
        self.bar.disable_steady_tick();
        self.bar.finish_and_clear();
    }
}
