//! Changes that several processes make of one record, without any of them being lost.
//!
//! Invariant: of two processes that exchange the same value, one finds it changed and writes nothing. What is
//! written beside the exchanged record is there exactly when that is: both databases do all of it in one
//! transaction. SQLite takes its one writer's lock before it looks; Postgres locks the row that it changes,
//! and looks at it again when it has waited for the lock.

use std::time::SystemTime;

use crate::{
    Database, MAX_VALUE_BYTES, PUT, StateError, Store, check, check_names, milliseconds_since_epoch,
};

const REPLACE: &str = "UPDATE outhaul_state SET value = $3, changed_at = $4 \
     WHERE space = $1 AND key = $2 AND value = $5";
const MAKE: &str = "INSERT INTO outhaul_state (space, key, value, changed_at) VALUES ($1, $2, $3, $4) \
     ON CONFLICT (space, key) DO NOTHING";
const LIST_LAST: &str = "SELECT key, value FROM outhaul_state WHERE space = $1 \
     ORDER BY key DESC LIMIT $2";
const LIST_BEFORE: &str = "SELECT key, value FROM outhaul_state WHERE space = $1 AND key < $3 \
     ORDER BY key DESC LIMIT $2";

/// A value to keep under a key in a space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The space.
    pub space: String,
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
}

/// Evaluates one expression over a transaction that has taken what it needs to write, in either database.
macro_rules! in_transaction {
    ($store:expr, $transaction:ident => $body:expr) => {
        match &$store.database {
            Database::Sqlite(pool) => {
                let mut $transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
                match $body {
                    true => $transaction.commit().await.map(|()| true),
                    false => $transaction.rollback().await.map(|()| false),
                }
            }
            Database::Postgres(pool) => {
                let mut $transaction = pool.begin().await?;
                match $body {
                    true => $transaction.commit().await.map(|()| true),
                    false => $transaction.rollback().await.map(|()| false),
                }
            }
        }
    };
}

impl Store {
    /// Writes `record` if what it replaces is still `expected` (`None`: nothing is there), and `others` with
    /// it; returns whether that was so. If not, nothing is written.
    ///
    /// # Errors
    ///
    /// As [`put`](Store::put). After [`StateError::TimedOut`], and after an error that
    /// [passes](StateError::is_passing), either all of it is there or nothing: read the record to find out.
    pub async fn exchange(
        &self,
        record: &Record,
        expected: Option<&str>,
        others: &[Record],
    ) -> Result<bool, StateError> {
        for Record { space, key, value } in std::iter::once(record).chain(others) {
            check_names(space, key)?;
            check("value", value, MAX_VALUE_BYTES)?;
        }
        let attempt = || format!("exchange '{}' of '{}'", record.key, record.space);
        self.call(attempt, self.exchange_at_once(record, expected, others)).await
    }

    async fn exchange_at_once(
        &self,
        record: &Record,
        expected: Option<&str>,
        others: &[Record],
    ) -> Result<bool, sqlx::Error> {
        let changed_at = milliseconds_since_epoch(SystemTime::now());
        in_transaction!(self, transaction => {
            let query = sqlx::query(if expected.is_some() { REPLACE } else { MAKE });
            let query = query.bind(&record.space).bind(&record.key).bind(&record.value);
            let query = query.bind(changed_at);
            let done = match expected {
                Some(expected) => query.bind(expected).execute(&mut *transaction).await?,
                None => query.execute(&mut *transaction).await?,
            };
            let is_ours = done.rows_affected() == 1;
            for Record { space, key, value } in others.iter().filter(|_| is_ours) {
                let query = sqlx::query(PUT).bind(space).bind(key).bind(value).bind(changed_at);
                query.execute(&mut *transaction).await?;
            }
            is_ours
        })
    }

    /// Returns the last keys of a space with their values, the last one first: at most `limit`, of those before
    /// `before` where that is given.
    ///
    /// # Errors
    ///
    /// As [`list`](Store::list).
    pub async fn list_last(
        &self,
        space: &str,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(String, String)>, StateError> {
        check_names(space, before.unwrap_or("any"))?;
        let attempt = || format!("list the end of '{space}'");
        macro_rules! rows {
            ($pool:expr) => {{
                let query = sqlx::query_as(if before.is_some() { LIST_BEFORE } else { LIST_LAST });
                let query = query.bind(space).bind(i64::from(limit));
                match before {
                    Some(before) => self.call(attempt, query.bind(before).fetch_all($pool)).await,
                    None => self.call(attempt, query.fetch_all($pool)).await,
                }
            }};
        }
        match &self.database {
            Database::Sqlite(pool) => rows!(pool),
            Database::Postgres(pool) => rows!(pool),
        }
    }
}
