//! Waiting for a state with a deadline.

use std::time::{Duration, Instant};

/// Looks at a state until it is there, and returns what `look` found.
///
/// # Panics
/// The deadline is over; the message says what was waited for.
pub fn wait_for<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            start.elapsed() < deadline,
            "waited {deadline:?} for {what} in vain"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
