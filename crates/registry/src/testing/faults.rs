//! What goes wrong.

use std::time::Duration;

/// A failure that awaits requests.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Which requests: those whose `METHOD path` contains this.
    pub on: String,
    /// How many of them.
    pub times: u32,
    /// What happens.
    pub trouble: Trouble,
}

impl Fault {
    /// `trouble` on the next `times` requests whose `METHOD path` contains `on`.
    pub fn new(on: impl Into<String>, times: u32, trouble: Trouble) -> Self {
        Self {
            on: on.into(),
            times,
            trouble,
        }
    }
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// This status, without doing anything.
    Status(u16),
    /// This status, with `Retry-After: 0`.
    Busy(u16),
    /// The body breaks off after so many bytes.
    Cut(usize),
    /// Silence before the answer.
    Stall(Duration),
    /// A redirect to the same place.
    Loop,
    /// Ranges are ignored: the whole blob, 200.
    NoRange,
    /// The registry names no digest.
    NoDigest,
}
