//! An error and its causes in one line, for logs and for clients that see no chain.

/// The error's text with those of its sources behind it: `doing this: because of that: …`.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
