//! What can go wrong with the metadata.

use std::path::PathBuf;

use buildyard_model::BuildId;

/// Why an operation of the store did not happen. Nothing of it was kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database was last used by a newer program.
    #[error(
        "cannot open the database {path}: a newer buildyard has used it (schema {found}, this program knows {known}); \
         start that version, or restore a backup from before the upgrade"
    )]
    Newer {
        /// The database's file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The last version that this program knows.
        known: i64,
    },
    /// The database's file cannot be used at all.
    #[error("cannot open the database {path}; is it a SQLite file that this user may write?")]
    Open {
        /// The database's file.
        path: PathBuf,
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No room for what should have been written.
    #[error("{doing}: no space is left where the database lies; free some and try again")]
    Full {
        /// What was tried.
        doing: &'static str,
    },
    /// A stored value is not what this program writes there.
    #[error("{doing}: the database holds {what}, which no version of this program has written")]
    Corrupt {
        /// What was tried.
        doing: &'static str,
        /// The value, and where.
        what: String,
    },
    /// A client chose the id of a build that is already in the history.
    #[error("build {0} exists already; a build's id can be used once")]
    BuildExists(BuildId),
    /// Everything else the database refused.
    #[error("{doing} failed in the database")]
    Database {
        /// What was tried.
        doing: &'static str,
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
