//! The store in one SQLite file: write-ahead log, one writing connection, a few reading ones.
//!
//! One file per trait. In each: the trait's methods, a struct per row, one function per query. A function takes the
//! connection of the transaction that its caller began ([`db::Db`] is the only way to begin one).

mod builds;
mod chains;
mod claims;
mod columns;
mod db;
mod decoded;
mod encodings;
mod history;
mod layers;
mod results;
mod settings;
mod steps;
#[cfg(test)]
mod tests;
mod usage;
mod uses;
mod workers;

use std::path::Path;

use crate::StoreError;

/// The metadata store in SQLite. Cheap to share behind an `Arc`; not `Clone`, so that noted uses have one home.
#[derive(Debug)]
pub struct SqliteStore {
    db: db::Db,
    uses: uses::Uses,
    decoded: decoded::Decoded,
}

impl SqliteStore {
    /// Opens the database at `path`, makes it if it is missing, and brings its schema up to date. A database of a
    /// newer program is left alone and refused.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let db = db::Db::open(path).await?;
        chains::convert_results(&db).await?;
        Ok(Self {
            db,
            uses: uses::Uses::default(),
            decoded: decoded::Decoded::default(),
        })
    }

    /// A database that lives as long as this value, for tests.
    pub async fn in_memory() -> Result<Self, StoreError> {
        Ok(Self {
            db: db::Db::in_memory().await?,
            uses: uses::Uses::default(),
            decoded: decoded::Decoded::default(),
        })
    }

    /// How many transactions were begun so far.
    pub fn transactions(&self) -> u64 {
        self.db.transactions()
    }

    /// Waits for what runs, checkpoints the log and closes the file.
    pub async fn close(&self) {
        self.db.close().await;
    }
}
