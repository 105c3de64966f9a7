//! What happens while a command runs: problems as lines on stderr, progress as a bar there.
//!
//! Work counts into its monitor and a thread looks at the counters now and then, so that showing
//! progress costs the work nothing.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::out::{Out, escaped};
use super::text;
use crate::monitor::{Monitor, Problem, Severity, Sink};

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Not at all.
    Off,
    /// As a line that changes, on a terminal.
    Bar,
    /// As lines, one every few seconds, for logs.
    Lines,
    /// As JSON on stdout.
    Json,
}

/// What becomes of problems and progress.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) progress: Progress,
    pub(super) json: bool,
    pub(super) quiet: bool,
    pub(super) verbose: bool,
}

/// Notes of one sort: how many, and the first.
#[derive(Debug, Clone)]
pub(super) struct Notes {
    pub(super) message: String,
    pub(super) first: String,
    pub(super) count: u64,
}

/// Stderr.
pub(super) struct Console {
    style: Style,
    state: Mutex<State>,
}

struct State {
    writer: Box<dyn Write + Send>,
    bar: Option<ProgressBar>,
    notes: Vec<Notes>,
}

impl Console {
    pub(super) fn new(writer: Box<dyn Write + Send>, style: Style) -> Arc<Self> {
        Arc::new(Self { style, state: Mutex::new(State { writer, bar: None, notes: Vec::new() }) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes lines above the bar. That stderr is closed is no reason to fail.
    pub(super) fn print(&self, text: &str) {
        let State { writer, bar, .. } = &mut *self.lock();
        let mut write = || {
            let _ = writeln!(writer, "{text}").and_then(|()| writer.flush());
        };
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Prints an object as a line of JSON.
    pub(super) fn print_json(&self, line: &Value) {
        self.print(&escaped(line.to_string()));
    }

    /// Something to know or to heed, unless `-q` was given.
    pub(super) fn remark(&self, severity: Severity, message: &str) {
        if self.style.json {
            self.print_json(&json!({ "message_type": word(severity), "message": message }));
        } else if !self.style.quiet || severity == Severity::Error {
            self.print(&format!("{}: {}", word(severity), text::plain(message)));
        }
    }

    /// The notes that were not printed, and forgets them.
    pub(super) fn take_notes(&self) -> Vec<Notes> {
        std::mem::take(&mut self.lock().notes)
    }

    fn set_bar(&self, bar: Option<ProgressBar>) {
        if let Some(old) = std::mem::replace(&mut self.lock().bar, bar) {
            old.finish_and_clear();
        }
    }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

impl Sink for Console {
    fn problem(&self, problem: &Problem) {
        if problem.severity == Severity::Note && !self.style.verbose {
            let notes = &mut self.lock().notes;
            match notes.iter_mut().find(|notes| notes.message == problem.message) {
                Some(notes) => notes.count += 1,
                None => {
                    notes.push(Notes { message: problem.message.clone(), first: problem.item.clone(), count: 1 });
                }
            }
            return;
        }
        let severity = word(problem.severity);
        if self.style.json {
            let line: Value =
                json!({ "message_type": severity, "item": problem.item, "error": { "message": problem.message } });
            self.print_json(&line);
        } else if problem.severity == Severity::Error || !self.style.quiet {
            self.print(&format!("{severity}: {}: {}", text::plain(&problem.item), text::plain(&problem.message)));
        }
    }
}

/// Long work that is being shown. Dropped, it is shown no more.
pub(super) struct Work {
    monitor: Monitor,
    console: Arc<Console>,
    ticker: Option<(Sender<()>, JoinHandle<()>)>,
    began: Instant,
}

impl Work {
    /// Begins to show work, `what` it is in a word or two.
    pub(super) fn begin(console: &Arc<Console>, out: &Out, what: &'static str) -> Self {
        let monitor = Monitor::new(console.clone());
        let began = Instant::now();
        let every = match console.style.progress {
            Progress::Off => None,
            Progress::Bar => Some(Duration::from_millis(100)),
            Progress::Lines => Some(Duration::from_secs(5)),
            Progress::Json => Some(Duration::from_millis(200)),
        };
        if console.style.progress == Progress::Bar {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar()));
            console.set_bar(Some(bar));
        }
        let ticker = every.map(|every| {
            let (end, ended) = bounded::<()>(0);
            let (monitor, console, out) = (monitor.clone(), console.clone(), out.clone());
            let thread = std::thread::spawn(move || {
                let mut pace = Pace::default();
                while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                    pace.tick(&monitor, began, what, &console, &out);
                }
            });
            (end, thread)
        });
        Self { monitor, console: console.clone(), ticker, began }
    }

    pub(super) fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// How long the work has gone on.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whether somebody sees how far it is.
    pub(super) fn is_shown(&self) -> bool {
        self.ticker.is_some()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.ticker.take() {
            drop(end);
            let _ = thread.join();
        }
        self.console.set_bar(None);
    }
}

/// How far work was at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct Look {
    files: u64,
    files_total: u64,
    bytes: u64,
    bytes_total: u64,
}

/// Looks of the last seconds, for the rate.
#[derive(Default)]
struct Pace {
    looks: VecDeque<(Instant, u64)>,
}

/// The rate is that of so long.
const RATE_OVER: Duration = Duration::from_secs(10);

impl Pace {
    fn tick(&mut self, monitor: &Monitor, began: Instant, what: &str, console: &Console, out: &Out) {
        let counters = monitor.counters();
        let look = Look {
            files: counters.files_done.load(Ordering::Relaxed),
            files_total: counters.files_total.load(Ordering::Relaxed),
            bytes: counters.bytes_done.load(Ordering::Relaxed),
            bytes_total: counters.bytes_total.load(Ordering::Relaxed),
        };
        let now = Instant::now();
        self.looks.push_back((now, look.bytes));
        while self.looks.front().is_some_and(|(at, _)| now.duration_since(*at) > RATE_OVER) {
            self.looks.pop_front();
        }
        let rate = match self.looks.front() {
            Some((at, bytes)) if now > *at => {
                look.bytes.saturating_sub(*bytes) as f64 / now.duration_since(*at).as_secs_f64()
            }
            _ => 0.0,
        };
        let elapsed = began.elapsed();
        match console.style.progress {
            Progress::Off => {}
            Progress::Bar => {
                if let Some(bar) = &console.lock().bar {
                    bar.set_message(sentence(what, &look, rate, elapsed));
                }
            }
            Progress::Lines => console.print(&sentence(what, &look, rate, elapsed)),
            Progress::Json => {
                // A pipe nobody reads is found out by whoever writes the result.
                let _ = out.json(&status(&look, elapsed)).and_then(|()| out.flush());
            }
        }
    }
}

/// Time left at this rate, when it can be told.
fn time_left(look: &Look, rate: f64) -> Option<Duration> {
    let left = look.bytes_total.checked_sub(look.bytes)?;
    let secs = left as f64 / rate;
    (look.bytes_total > 0 && secs.is_finite()).then(|| Duration::try_from_secs_f64(secs).ok()).flatten()
}

fn sentence(what: &str, look: &Look, rate: f64, elapsed: Duration) -> String {
    let mut parts = vec![what.to_owned()];
    if look.bytes_total > 0 {
        let percent = (look.bytes.min(look.bytes_total) as f64 * 100.0 / look.bytes_total as f64).floor();
        parts.push(format!("{percent:.0} %"));
        parts.push(format!("{} of {}", text::bytes(look.bytes), text::bytes(look.bytes_total)));
    } else {
        parts.push(text::bytes(look.bytes));
    }
    parts.push(match look.files_total {
        0 => text::count(look.files, "entry", "entries"),
        total => format!("{} of {}", text::number(look.files), text::count(total, "entry", "entries")),
    });
    parts.push(format!("{}/s", text::bytes(rate as u64)));
    parts.push(match time_left(look, rate) {
        Some(left) => format!("{} left", text::duration(left)),
        None => text::duration(elapsed),
    });
    parts.join("  ")
}

fn status(look: &Look, elapsed: Duration) -> Value {
    let mut status = json!({
        "message_type": "status",
        "seconds_elapsed": elapsed.as_secs(),
        "files_done": look.files,
        "bytes_done": look.bytes,
    });
    if look.bytes_total > 0 {
        status["percent_done"] = json!((look.bytes as f64 / look.bytes_total as f64).min(1.0));
        status["total_files"] = json!(look.files_total);
        status["total_bytes"] = json!(look.bytes_total);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_rate_and_time_left_once_totals_are_known() {
        let unknown = Look { files: 1, bytes: 3 << 20, ..Look::default() };
        let text = sentence("backup", &unknown, f64::from(1 << 20), Duration::from_secs(3));
        assert_eq!(text, "backup  3.0 MiB  1 entry  1.0 MiB/s  3.0 s");
        let known = Look { files_total: 2000, bytes_total: 63 << 20, ..unknown };
        let text = sentence("backup", &known, f64::from(1 << 20), Duration::from_secs(3));
        assert_eq!(text, "backup  4 %  3.0 MiB of 63.0 MiB  1 of 2,000 entries  1.0 MiB/s  1 min 00 s left");
        let stalled = sentence("backup", &known, 0.0, Duration::from_secs(3));
        assert!(stalled.ends_with("0 B/s  3.0 s"), "{stalled}");
        assert_eq!(status(&known, Duration::from_secs(3))["total_files"], 2000);
    }
}
