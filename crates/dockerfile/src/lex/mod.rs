//! From bytes to instructions in text form: directives, continuation lines, comments, heredocs, words and flags.
//!
//! Knows which instructions exist only where the text form depends on it (heredocs). What the words mean is
//! [`parse`](crate::parse)'s.

pub(crate) mod directive;
pub(crate) mod heredoc;
pub(crate) mod lines;
pub(crate) mod words;
