//! Images read back by a reader that shares nothing with the writer (the crate `erofs-rs`), and compared with the merged trees of
//! the layers that they were written from.

mod golden;
mod properties;
mod read;
mod shapes;
