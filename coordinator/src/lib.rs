//! The coordinator: the endpoint of clients and workers.

pub mod export;
