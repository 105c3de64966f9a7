//! From changes to runs: a run begins when it has been quiet for a while, or when the first change has waited for long
//! enough though it is never quiet.

use std::time::Duration;

use super::plan::Watch;

/// Changes that no run has taken up yet: two moments, however many they are. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debounce {
    quiet_ms: i64,
    most_ms: i64,
    pending: Option<(i64, i64)>,
}

impl Debounce {
    /// Nothing has changed yet.
    pub fn new(watch: &Watch) -> Self {
        Self { quiet_ms: ms(watch.debounce), most_ms: ms(watch.delay_max), pending: None }
    }

    /// Something changed. Moments may arrive in any order.
    pub fn changed(&mut self, at_ms: i64) {
        let (first, last) = self.pending.unwrap_or((at_ms, at_ms));
        self.pending = Some((first.min(at_ms), last.max(at_ms)));
    }

    /// When a run is to begin.
    pub fn due_ms(&self) -> Option<i64> {
        self.pending.map(|(first, last)| last.saturating_add(self.quiet_ms).min(first.saturating_add(self.most_ms)))
    }

    /// The first change that no run has taken up.
    pub fn first_ms(&self) -> Option<i64> {
        self.pending.map(|(first, _)| first)
    }

    /// A run takes up what has changed until now. What changes from now on is for another one.
    pub fn take(&mut self) -> Option<i64> {
        self.pending.take().map(|(first, _)| first)
    }

    /// A run that began then took up what had changed. What changed after it, or since it began, is for another one.
    pub fn take_before(&mut self, began_ms: i64) {
        self.pending =
            self.pending.filter(|(_, last)| *last >= began_ms).map(|(first, last)| (first.max(began_ms), last));
    }

    /// The same changes, by a clock that was put back to `now_ms`.
    pub fn clamp(&mut self, now_ms: i64) {
        self.pending = self.pending.map(|(first, last)| (first.min(now_ms), last.min(now_ms)));
    }

    /// The same changes under other waits.
    #[must_use]
    pub fn with(self, watch: &Watch) -> Self {
        Self { pending: self.pending, ..Self::new(watch) }
    }
}

/// In milliseconds, however long.
pub(super) fn ms(duration: Duration) -> i64 {
    duration.as_millis().try_into().unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debounce(quiet_ms: u64, most_ms: u64) -> Debounce {
        Debounce::new(&Watch {
            paths: Vec::new(),
            include: Vec::new(),
            exclude: Vec::new(),
            debounce: Duration::from_millis(quiet_ms),
            delay_max: Duration::from_millis(most_ms),
        })
    }

    #[test]
    fn a_run_begins_when_it_has_been_quiet() {
        let mut state = debounce(1000, 10_000);
        assert_eq!(state.due_ms(), None);
        state.changed(500);
        assert_eq!(state.due_ms(), Some(1500));
        state.changed(1400);
        state.changed(900);
        assert_eq!((state.due_ms(), state.first_ms()), (Some(2400), Some(500)));
        assert_eq!(state.take(), Some(500));
        assert_eq!((state.due_ms(), state.take()), (None, None));
    }

    #[test]
    fn a_file_that_changes_every_ten_milliseconds_is_captured_after_the_longest_delay() {
        let mut state = debounce(1000, 5000);
        let mut runs = Vec::new();
        for now in (0..60_000).step_by(10) {
            if state.due_ms().is_some_and(|due| due <= now) {
                assert_eq!(state.take(), Some(runs.last().copied().unwrap_or(0)));
                runs.push(now);
            }
            state.changed(now);
        }
        assert_eq!(runs, (1..12).map(|run| run * 5000).collect::<Vec<_>>());
    }

    #[test]
    fn a_run_of_somebody_else_takes_up_what_changed_before_it() {
        let mut state = debounce(1000, 5000);
        state.changed(500);
        state.take_before(600);
        assert_eq!(state.due_ms(), None);
        state.changed(500);
        state.changed(700);
        state.take_before(600);
        assert_eq!((state.first_ms(), state.due_ms()), (Some(600), Some(1700)));
    }

    #[test]
    fn a_clock_put_back_does_not_hold_a_run_back() {
        let mut state = debounce(1000, 5000);
        state.changed(1_000_000);
        state.clamp(2000);
        assert_eq!(state.due_ms(), Some(3000));
        let mut state = debounce(u64::MAX, u64::MAX);
        state.changed(i64::MAX - 1);
        assert!(state.due_ms().is_some());
    }
}
