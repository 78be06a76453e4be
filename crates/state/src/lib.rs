//! What must survive a restart: small records in SQLite or Postgres, chosen by a URL.
//!
//! A record is a text under a key in a space. [`Store::open`] finds out from the URL where they are;
//! nothing else in Outhaul knows which database it is.
//!
//! Invariant: what a call says was written is on disk when the call returns, and is there whole or not
//! at all after a `kill -9`. Every call that writes is one transaction: SQLite keeps it in
//! a write-ahead log that is flushed before the call returns (`synchronous = FULL`), and drops
//! an unfinished end of that log when the file is next opened; Postgres does the same on its
//! server. Several processes may share one store.
//!
//! Records are for what people asked for and for small notes of what was done (hundreds of records, a MiB
//! each at most), not for artefacts. Predictions that routes remember, millions of them, have tables of their
//! own (`outcomes`). It interprets nothing: what the texts mean is the caller's business. A SQLite file belongs on a local disk: the log relies on memory shared between
//! processes, which network file systems do not offer.
//!
//! # From code that is not async
//!
//! `runtime.block_on(store.get(..))` on a thread that runs no tasks of its own. Connections to
//! Postgres belong to the runtime that [`Store::open`] was called in, so open and use a store in the
//! same one, and let it be a runtime with worker threads.

mod connect;
mod error;
mod exchange;
mod location;
mod outcomes;
mod schema;

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use error::StateError;
pub use exchange::Record;
use location::Location;
pub use outcomes::{
    EarlyRow, KnownOutcomes, KnownPrediction, OutcomeChanges, OutcomeRow, PredictionRow, TallyRow,
};
use sqlx::{PgPool, SqlitePool};

/// The most bytes that a value may have.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// The most bytes that a space may have: enough for a path or a URL. Postgres keeps space and key in one entry
/// of an index, which may have 2,704 bytes.
pub const MAX_SPACE_BYTES: usize = 2048;

/// The most bytes that a key may have.
pub const MAX_KEY_BYTES: usize = 512;

/// How long one call may take. It exceeds the time that SQLite waits for another process's lock.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// Small records that survive a restart. A clone is another handle on the same connections.
#[derive(Clone)]
pub struct Store {
    database: Database,
    shown: Arc<str>,
}

/// The databases there are. Both understand the statements below as they stand.
#[derive(Clone)]
enum Database {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// Evaluates one expression for whichever database a store has.
macro_rules! on_either {
    ($store:expr, $pool:ident => $body:expr) => {
        match &$store.database {
            Database::Sqlite($pool) => $body,
            Database::Postgres($pool) => $body,
        }
    };
}
use on_either;

const GET: &str = "SELECT value FROM outhaul_state WHERE space = $1 AND key = $2";
const PUT: &str = "INSERT INTO outhaul_state (space, key, value, changed_at) VALUES ($1, $2, $3, $4) \
     ON CONFLICT (space, key) DO UPDATE SET value = excluded.value, changed_at = excluded.changed_at";
const DELETE: &str = "DELETE FROM outhaul_state WHERE space = $1 AND key = $2";
const LIST: &str = "SELECT key, value FROM outhaul_state WHERE space = $1 ORDER BY key";
/// `$2` is the prefix's length in characters, as both databases count in `substr`.
const SPACES: &str = "SELECT DISTINCT space FROM outhaul_state \
     WHERE space >= $1 AND substr(space, 1, $2) = $1 ORDER BY space";

impl Store {
    /// Opens the store that a URL names, and makes its tables where there are none.
    ///
    /// The URL is one of `sqlite:///absolute/path.db`, `sqlite:relative.db`, a plain path that ends in
    /// `.db`, `sqlite::memory:` (gone with the last handle) and `postgres://user@host/database`. In a
    /// URL `%20` stands for a space and so on, in a plain path nothing does. The folder of a SQLite file is
    /// made where it is missing. For Postgres the usual environment (`PGPASSWORD`, `PGSSLMODE`, ...) and
    /// `.pgpass` fill in what the URL leaves out.
    ///
    /// # Errors
    ///
    /// Fails where the URL is none of these, where the database cannot be reached within ten seconds or
    /// refuses, and where a newer release of Outhaul has written its tables.
    pub async fn open(url: &str) -> Result<Store, StateError> {
        let (location, shown) = location::parse(url)?;
        Store::connect(location, shown).await
    }

    /// Opens the SQLite file at a path, whatever characters the path has, and makes it and its folder where
    /// they are missing.
    ///
    /// # Errors
    ///
    /// As [`open`](Store::open).
    pub async fn open_file(path: &Path) -> Result<Store, StateError> {
        let shown = path.display().to_string();
        let location = location::file(path, &shown)?;
        Store::connect(location, shown).await
    }

    async fn connect(location: Location, shown: String) -> Result<Store, StateError> {
        let database = connect::connect(location, &shown).await?;
        tracing::debug!(store = %shown, "state store is open");
        Ok(Store { database, shown: shown.into() })
    }

    /// Returns the URL as it may be shown: without password.
    pub fn url(&self) -> &str {
        &self.shown
    }

    /// Returns the value under a key, or `None` where there is none.
    ///
    /// # Errors
    ///
    /// Fails where space or key break the rules of [`put`](Store::put), and where the database does.
    pub async fn get(&self, space: &str, key: &str) -> Result<Option<String>, StateError> {
        check_names(space, key)?;
        let row: Option<(String,)> = on_either!(self, pool => {
            let query = sqlx::query_as(GET).bind(space).bind(key);
            self.call(|| format!("read '{key}' of '{space}'"), query.fetch_optional(pool)).await?
        });
        Ok(row.map(|(value,)| value))
    }

    /// Keeps a value under a key, in place of what was there.
    ///
    /// # Errors
    ///
    /// Fails where space or key are empty, where one of the three is longer than [`MAX_SPACE_BYTES`],
    /// [`MAX_KEY_BYTES`] or [`MAX_VALUE_BYTES`] or holds a NUL character (which Postgres cannot keep), and
    /// where the database fails. After [`StateError::TimedOut`] the value may be
    /// there or not; putting it again is harmless.
    pub async fn put(&self, space: &str, key: &str, value: &str) -> Result<(), StateError> {
        check_names(space, key)?;
        check("value", value, MAX_VALUE_BYTES)?;
        let changed_at = milliseconds_since_epoch(SystemTime::now());
        on_either!(self, pool => {
            let query = sqlx::query(PUT).bind(space).bind(key).bind(value).bind(changed_at);
            self.call(|| format!("write '{key}' of '{space}'"), query.execute(pool)).await?;
        });
        Ok(())
    }

    /// Removes a key, and returns whether it was there.
    ///
    /// # Errors
    ///
    /// As [`get`](Store::get).
    pub async fn delete(&self, space: &str, key: &str) -> Result<bool, StateError> {
        check_names(space, key)?;
        let rows = on_either!(self, pool => {
            let query = sqlx::query(DELETE).bind(space).bind(key);
            self.call(|| format!("remove '{key}' of '{space}'"), query.execute(pool))
                .await?
                .rows_affected()
        });
        Ok(rows > 0)
    }

    /// Returns all keys of a space with their values, in the order of the keys' bytes.
    ///
    /// # Errors
    ///
    /// As [`get`](Store::get).
    pub async fn list(&self, space: &str) -> Result<Vec<(String, String)>, StateError> {
        check_name("space", space, MAX_SPACE_BYTES)?;
        on_either!(self, pool => {
            let query = sqlx::query_as(LIST).bind(space);
            self.call(|| format!("list '{space}'"), query.fetch_all(pool)).await
        })
    }

    /// Returns the spaces that begin with `prefix` and hold something, in the order of their bytes. An
    /// empty prefix means all of them.
    ///
    /// # Errors
    ///
    /// Fails where the prefix could begin no space, and where the database fails.
    pub async fn spaces_starting(&self, prefix: &str) -> Result<Vec<String>, StateError> {
        check("prefix", prefix, MAX_SPACE_BYTES)?;
        let length = i32::try_from(prefix.chars().count()).expect("its length was checked");
        let rows: Vec<(String,)> = on_either!(self, pool => {
            let query = sqlx::query_as(SPACES).bind(prefix).bind(length);
            self.call(|| format!("list spaces that begin with '{prefix}'"), query.fetch_all(pool))
                .await?
        });
        Ok(rows.into_iter().map(|(space,)| space).collect())
    }

    /// Closes the connections of all handles; later calls fail. Dropping the last handle does the same
    /// without waiting for it. Nothing is lost either way.
    pub async fn close(&self) {
        on_either!(self, pool => pool.close().await);
    }

    /// Awaits one call to the database, within the limit.
    async fn call<T>(
        &self,
        attempt: impl Fn() -> String,
        call: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, StateError> {
        error::within(CALL_LIMIT, &self.shown, attempt, call).await
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.shown).finish()
    }
}

fn check_names(space: &str, key: &str) -> Result<(), StateError> {
    check_name("space", space, MAX_SPACE_BYTES)?;
    check_name("key", key, MAX_KEY_BYTES)
}

fn check_name(what: &'static str, text: &str, limit: usize) -> Result<(), StateError> {
    if text.is_empty() {
        return Err(StateError::Refused { what, rule: "is empty".to_owned() });
    }
    check(what, text, limit)
}

fn check(what: &'static str, text: &str, limit: usize) -> Result<(), StateError> {
    if text.len() > limit {
        let rule = format!("has {} bytes, the limit is {limit}", text.len());
        return Err(StateError::Refused { what, rule });
    }
    if text.contains('\0') {
        return Err(StateError::Refused { what, rule: "holds a NUL character".to_owned() });
    }
    Ok(())
}

fn milliseconds_since_epoch(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
