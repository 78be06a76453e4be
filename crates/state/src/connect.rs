//! From a location to a pool of connections with the tables in place.
//!
//! A pool opens its connections when they are needed. The first is made here and by hand, since a
//! pool that cannot connect says only that it waited.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::time::Instant;

use crate::error::within;
use crate::location::Location;
use crate::schema::{self, Found};
use crate::{CALL_LIMIT, Database, StateError};

/// Connections to one database. A SQLite file has one writer at a time and a reader seldom waits.
const CONNECTIONS: u32 = 4;

/// How long SQLite waits for a lock that another process holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an unused connection to a server is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Connects, and makes the tables where there are none.
pub(crate) async fn connect(location: Location, url: &str) -> Result<Database, StateError> {
    match location {
        Location::SqliteFile(path) => sqlite_file(path, url).await,
        Location::SqliteMemory => sqlite_memory(url).await,
        Location::Postgres(options) => postgres(*options, url).await,
    }
}

async fn sqlite_file(path: PathBuf, url: &str) -> Result<Database, StateError> {
    make_folder(&path, url)?;
    let options = sqlite_options().filename(&path).create_if_missing(true);
    let attempt = || "open the file".to_owned();
    let mut first = within(CALL_LIMIT, url, attempt, options.connect()).await?;
    let attempt = || "switch on the write-ahead log".to_owned();
    within(CALL_LIMIT, url, attempt, switch_on_log(&mut first)).await?;
    let migration = schema::migrate_sqlite(&mut first);
    refuse_newer(within(CALL_LIMIT, url, prepare, migration).await?, url)?;
    let pool = SqlitePoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(CALL_LIMIT)
        .connect_lazy_with(options);
    // The pool opens a connection of its own before this one goes: the last to close a database folds its
    // log away, for nothing.
    let attempt = || "open the file".to_owned();
    drop(within(CALL_LIMIT, url, attempt, pool.acquire()).await?);
    within(CALL_LIMIT, url, attempt, first.close()).await?;
    Ok(Database::Sqlite(pool))
}

async fn sqlite_memory(url: &str) -> Result<Database, StateError> {
    // The records live as long as this one connection, so nothing may end it.
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .min_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .acquire_timeout(CALL_LIMIT)
        .connect_lazy_with(sqlite_options().in_memory(true));
    let mut connection = within(CALL_LIMIT, url, prepare, pool.acquire()).await?;
    let migration = schema::migrate_sqlite(&mut connection);
    refuse_newer(within(CALL_LIMIT, url, prepare, migration).await?, url)?;
    drop(connection);
    Ok(Database::Sqlite(pool))
}

async fn postgres(options: PgConnectOptions, url: &str) -> Result<Database, StateError> {
    let options = options.disable_statement_logging();
    let attempt = || "connect".to_owned();
    let mut first = within(CALL_LIMIT, url, attempt, options.connect()).await?;
    let migration = schema::migrate_postgres(&mut first);
    refuse_newer(within(CALL_LIMIT, url, prepare, migration).await?, url)?;
    // The server notices a closed socket too: not worth failing for.
    let _ = first.close().await;
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .idle_timeout(IDLE_TIMEOUT)
        .acquire_timeout(CALL_LIMIT)
        .connect_lazy_with(options);
    Ok(Database::Postgres(pool))
}

fn sqlite_options() -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .busy_timeout(BUSY_TIMEOUT)
        .synchronous(SqliteSynchronous::Full)
        .thread_name(|number| format!("state-{number}"))
        .disable_statement_logging()
}

/// Makes the write-ahead log this file's way of writing, which the file then remembers.
///
/// SQLite needs the file for itself to switch and does not wait for it, so that has to be done here.
async fn switch_on_log(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        let answer: Result<String, _> =
            sqlx::query_scalar("PRAGMA journal_mode = WAL").fetch_one(&mut *connection).await;
        match answer {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                let text = format!("SQLite keeps the journal mode '{mode}' for this file");
                return Err(sqlx::Error::Configuration(text.into()));
            }
            Err(error) if is_busy(&error) && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| code & 0xff == 5)
}

fn make_folder(path: &Path, url: &str) -> Result<(), StateError> {
    let Some(folder) = path.parent() else { return Ok(()) };
    fs::create_dir_all(folder).map_err(|source| StateError::Folder {
        folder: folder.to_owned(),
        url: url.to_owned(),
        source,
    })
}

fn prepare() -> String {
    "prepare the tables".to_owned()
}

fn refuse_newer(found: Found, url: &str) -> Result<(), StateError> {
    match found {
        Found::Current => Ok(()),
        Found::Newer(found) => {
            Err(StateError::NewerSchema { url: url.to_owned(), found, known: schema::NEWEST })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_written_as_the_invariant_needs() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::SqliteFile(folder.path().join("state.db"));
        let Database::Sqlite(pool) = connect(location, "here").await.unwrap() else {
            panic!("SQLite was asked for");
        };
        let mut connection = pool.acquire().await.unwrap();
        let mode: String =
            sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *connection).await.unwrap();
        let synchronous: i64 =
            sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut *connection).await.unwrap();
        let full = 2;
        assert_eq!((mode.as_str(), synchronous), ("wal", full));
    }
}
