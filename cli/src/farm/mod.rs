//! The farm's HTTP API (`/api/v1/…`), from the asking side.

mod client;
mod tables;

pub use client::{ApiError, get_json, get_text};
pub use tables::{build_table, builds_table, steps_table, workers_table};
