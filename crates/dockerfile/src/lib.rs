//! The Dockerfile language: from a file to a graph.
//!
//! ```text
//! bytes ── parse ──► Dockerfile ── convert ──► NeedsImages ─┐     Options: what the client asks
//!                                   ▲    │                  │     Images: configurations of base images
//!                                   └────┼── the caller resolves them
//!                                        └──► Build: a definition and an image configuration per platform
//! ```
//!
//! Everything is a function of its arguments: nothing here reads a file or asks a registry. Facts about the language are
//! BuildKit's (`frontend/dockerfile`); the text is our own. Checks (lint rules) are not evaluated here yet, except for
//! empty continuation lines.

mod convert;
mod csv;
mod duration;
mod error;
mod expand;
mod ignore;
pub mod instruction;
mod lex;
pub mod limits;
mod options;
mod parse;
mod position;
mod reference;
mod suggest;
mod warning;

pub use convert::{Build, Conversion, ImageRequest, Images, ResolvedImage, Target, convert};
pub use error::{ConvertError, Problem, SyntaxError};
pub use ignore::Dockerignore;
pub use instruction::Dockerfile;
pub use lex::directive::syntax_directive;
pub use lex::heredoc::Heredoc;
pub use options::{NoCache, Options, OptionsError, ResolveMode};
pub use parse::{Source, parse};
pub use position::Lines;
pub use warning::Warning;
