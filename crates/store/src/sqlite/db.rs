//! Connections and transactions.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection, Sqlite, Transaction};

use super::columns::During;
use crate::StoreError;

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/sqlite");

/// How long a connection waits for another process's lock (a backup, `sqlite3` in a shell).
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an operation waits for its turn on a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(60);
const READERS: u32 = 4;

pub(super) type Tx = Transaction<'static, Sqlite>;

/// The two pools. Writers queue for one connection, so they never see each other's locks.
#[derive(Debug)]
pub(super) struct Db {
    writer: SqlitePool,
    readers: SqlitePool,
    begun: AtomicU64,
}

impl Db {
    pub(super) async fn open(path: &Path) -> Result<Self, StoreError> {
        let refuse = |source: sqlx::Error| StoreError::Open {
            path: path.to_owned(),
            source: Box::new(source),
        };
        let options = options().filename(path).create_if_missing(true);
        let writer = pool(1)
            .connect_with(options.clone())
            .await
            .map_err(refuse)?;
        MIGRATIONS
            .run(&writer)
            .await
            .map_err(|error| migration_error(path, error))?;
        let readers = pool(READERS)
            .connect_with(options.read_only(true))
            .await
            .map_err(refuse)?;
        Ok(Self {
            writer,
            readers,
            begun: AtomicU64::new(0),
        })
    }

    /// A database in memory belongs to its connection, so there is just one, for readers too.
    pub(super) async fn in_memory() -> Result<Self, StoreError> {
        let path = PathBuf::from(":memory:");
        let refuse = |source: sqlx::Error| StoreError::Open {
            path: path.clone(),
            source: Box::new(source),
        };
        let only = pool(1)
            .connect_with(options().in_memory(true))
            .await
            .map_err(refuse)?;
        MIGRATIONS
            .run(&only)
            .await
            .map_err(|error| migration_error(&path, error))?;
        Ok(Self {
            writer: only.clone(),
            readers: only,
            begun: AtomicU64::new(0),
        })
    }

    /// Begins a transaction that only reads.
    pub(super) async fn read(&self) -> Result<Tx, StoreError> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.readers.begin().await.during("beginning to read")
    }

    /// Begins a transaction that may write. `IMMEDIATE`, so that it cannot fail half-way for want of the lock.
    pub(super) async fn write(&self) -> Result<Tx, StoreError> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.writer
            .begin_with("BEGIN IMMEDIATE")
            .await
            .during("beginning to write")
    }

    pub(super) fn transactions(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Makes a transaction's changes last.
pub(super) async fn commit(tx: Tx) -> Result<(), StoreError> {
    tx.commit().await.during("committing")
}

fn options() -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .journal_mode(SqliteJournalMode::Wal)
        // Sound after a crash of the machine; only the last moments may be missing, and they are a cache.
        .synchronous(SqliteSynchronous::Normal)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
}

/// Connections stay: a reopened one is slow, and the one in memory would lose its data.
fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .min_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        // When SQLite gives a transaction up by itself (the disk is full), its connection believes to be in it for ever: that
        // one is not used again.
        .before_acquire(|connection, _| Box::pin(async { Ok(!connection.is_in_transaction()) }))
}

fn migration_error(path: &Path, error: MigrateError) -> StoreError {
    let path = path.to_owned();
    match error {
        MigrateError::VersionMissing(found) => {
            let known = MIGRATIONS
                .iter()
                .map(|migration| migration.version)
                .max()
                .unwrap_or(0);
            StoreError::Newer { path, found, known }
        }
        other => StoreError::Open {
            path,
            source: Box::new(other),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_database_of_a_newer_version_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("farm.db");
        let db = Db::open(&path).await.expect("a new database opens");
        sqlx::query(
            "INSERT INTO _sqlx_migrations VALUES (9000, 'later', '2030-01-01', TRUE, x'00', 1)",
        )
        .execute(&db.writer)
        .await
        .expect("the later migration is noted");
        db.close().await;
        let error = Db::open(&path).await.expect_err("it is newer");
        assert!(
            matches!(
                error,
                StoreError::Newer {
                    found: 9000,
                    known: 2,
                    ..
                }
            ),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .contains("a newer buildyard has used it (schema 9000"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_transaction_that_sqlite_gave_up_is_in_nobodys_way() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let db = Db::open(&dir.path().join("farm.db"))
            .await
            .expect("a new database opens");
        let mut tx = db.write().await.expect("begun");
        // As SQLite does by itself when the disk is full.
        sqlx::raw_sql("ROLLBACK")
            .execute(&mut *tx)
            .await
            .expect("rolled back");
        commit(tx).await.expect_err("there is no transaction");
        let tx = db.write().await.expect("begun again");
        commit(tx).await.expect("nothing was wrong with it");
    }

    #[tokio::test]
    async fn what_is_no_database_is_refused_with_its_path() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("farm.db");
        std::fs::write(
            &path,
            "something else entirely, and long enough to be looked at".repeat(20),
        )
        .expect("written");
        let error = Db::open(&path).await.expect_err("it is no database");
        assert!(error.to_string().contains("farm.db"), "{error}");
    }
}
