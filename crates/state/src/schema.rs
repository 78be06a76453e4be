//! The tables and how older ones become them.
//!
//! Invariant: a store is at one whole schema. All steps that are missing run in one transaction under a
//! lock that other processes wait for, so two that start at once do not both migrate. A step, once
//! released, never changes; a new one is added behind it. There is no way back: a release that
//! meets a newer schema refuses it.

use sqlx::{PgConnection, SqliteConnection};

/// What one step says to each database: statements, with `;` between them. The step at index `n` leads to schema `n + 1`.
struct Step {
    sqlite: &'static str,
    postgres: &'static str,
}

const STEPS: &[Step] = &[RECORDS, OUTCOMES];

/// Small records.
const RECORDS: Step = Step {
    sqlite: "CREATE TABLE outhaul_state (\
             space TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, changed_at INTEGER NOT NULL, \
             PRIMARY KEY (space, key)) STRICT",
    // Keys are ordered by their bytes, as SQLite does, and not by the server's language.
    postgres: "CREATE TABLE outhaul_state (\
               space TEXT COLLATE \"C\" NOT NULL, key TEXT COLLATE \"C\" NOT NULL, value TEXT NOT NULL, \
               changed_at BIGINT NOT NULL, PRIMARY KEY (space, key))",
};

/// Predictions, outcomes joined to them, outcomes that came first, and what is counted of both. An id comes first
/// in the keys: feedback need not name the route.
const OUTCOMES: Step = Step {
    sqlite: "CREATE TABLE outhaul_prediction (\
             id TEXT NOT NULL, route TEXT NOT NULL, variant TEXT NOT NULL, predicted TEXT, at INTEGER NOT NULL, \
             PRIMARY KEY (id, route)) STRICT; \
             CREATE INDEX outhaul_prediction_at ON outhaul_prediction (at); \
             CREATE TABLE outhaul_outcome (\
             id TEXT NOT NULL, route TEXT NOT NULL, variant TEXT NOT NULL, label TEXT, reward REAL NOT NULL, \
             at INTEGER NOT NULL, PRIMARY KEY (id, route)) STRICT; \
             CREATE INDEX outhaul_outcome_at ON outhaul_outcome (at); \
             CREATE TABLE outhaul_early (\
             id TEXT NOT NULL, route TEXT NOT NULL, label TEXT, reward REAL, at INTEGER NOT NULL, \
             PRIMARY KEY (id, route)) STRICT; \
             CREATE TABLE outhaul_tally (\
             route TEXT NOT NULL, variant TEXT NOT NULL, predictions INTEGER NOT NULL, \
             outcomes INTEGER NOT NULL, reward_sum REAL NOT NULL, square_sum REAL NOT NULL, \
             PRIMARY KEY (route, variant)) STRICT",
    postgres: "CREATE TABLE outhaul_prediction (\
               id TEXT COLLATE \"C\" NOT NULL, route TEXT COLLATE \"C\" NOT NULL, variant TEXT NOT NULL, \
               predicted TEXT, at BIGINT NOT NULL, PRIMARY KEY (id, route)); \
               CREATE INDEX outhaul_prediction_at ON outhaul_prediction (at); \
               CREATE TABLE outhaul_outcome (\
               id TEXT COLLATE \"C\" NOT NULL, route TEXT COLLATE \"C\" NOT NULL, variant TEXT NOT NULL, \
               label TEXT, reward DOUBLE PRECISION NOT NULL, at BIGINT NOT NULL, PRIMARY KEY (id, route)); \
               CREATE INDEX outhaul_outcome_at ON outhaul_outcome (at); \
               CREATE TABLE outhaul_early (\
               id TEXT COLLATE \"C\" NOT NULL, route TEXT COLLATE \"C\" NOT NULL, label TEXT, \
               reward DOUBLE PRECISION, at BIGINT NOT NULL, PRIMARY KEY (id, route)); \
               CREATE TABLE outhaul_tally (\
               route TEXT COLLATE \"C\" NOT NULL, variant TEXT COLLATE \"C\" NOT NULL, \
               predictions BIGINT NOT NULL, outcomes BIGINT NOT NULL, reward_sum DOUBLE PRECISION NOT NULL, \
               square_sum DOUBLE PRECISION NOT NULL, PRIMARY KEY (route, variant))",
};

/// The newest schema that this release knows.
pub(crate) const NEWEST: i64 = STEPS.len() as i64;

/// One row for each part of Outhaul that keeps tables here; this crate's is `state`.
const VERSIONS: &str = "CREATE TABLE IF NOT EXISTS outhaul_schema (\
                        part TEXT PRIMARY KEY, version BIGINT NOT NULL)";
const READ_VERSION: &str = "SELECT version FROM outhaul_schema WHERE part = 'state'";
const WRITE_VERSION: &str = "INSERT INTO outhaul_schema (part, version) VALUES ('state', $1) \
                             ON CONFLICT (part) DO UPDATE SET version = excluded.version";

/// Any number that other programs are unlikely to lock: "outhaul" in ASCII.
const LOCK: &str = "SELECT pg_advisory_xact_lock(31372865242756460)";

/// What a look at the schema found.
pub(crate) enum Found {
    /// It is the one that this release writes, by now if not before.
    Current,
    /// It is newer than this release knows.
    Newer(i64),
}

/// Brings the tables of a SQLite database up to date.
pub(crate) async fn migrate_sqlite(
    connection: &mut SqliteConnection,
) -> Result<Found, sqlx::Error> {
    if let Some(found) = look_sqlite(connection).await?.and_then(settled) {
        return Ok(found);
    }
    // IMMEDIATE waits for the lock before it reads; a lock taken later would fail at once.
    let mut transaction = sqlx::Connection::begin_with(connection, "BEGIN IMMEDIATE").await?;
    let version = look_sqlite(&mut transaction).await?.unwrap_or(0);
    if let Some(found) = settled(version) {
        return Ok(found);
    }
    sqlx::query(VERSIONS).execute(&mut *transaction).await?;
    for step in missing(version) {
        sqlx::raw_sql(step.sqlite).execute(&mut *transaction).await?;
    }
    sqlx::query(WRITE_VERSION).bind(NEWEST).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(Found::Current)
}

/// Brings the tables of a Postgres database up to date. A user who may only read and write them does for a
/// database that is.
pub(crate) async fn migrate_postgres(connection: &mut PgConnection) -> Result<Found, sqlx::Error> {
    if let Some(found) = look_postgres(connection).await?.and_then(settled) {
        return Ok(found);
    }
    let mut transaction = sqlx::Connection::begin(connection).await?;
    sqlx::query(LOCK).execute(&mut *transaction).await?;
    let version = look_postgres(&mut transaction).await?.unwrap_or(0);
    if let Some(found) = settled(version) {
        return Ok(found);
    }
    sqlx::query(VERSIONS).execute(&mut *transaction).await?;
    for step in missing(version) {
        sqlx::raw_sql(step.postgres).execute(&mut *transaction).await?;
    }
    sqlx::query(WRITE_VERSION).bind(NEWEST).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(Found::Current)
}

/// Returns the schema that is there, `None` where there is none.
async fn look_sqlite(connection: &mut SqliteConnection) -> Result<Option<i64>, sqlx::Error> {
    let table = "SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'outhaul_schema'";
    if sqlx::query(table).fetch_optional(&mut *connection).await?.is_none() {
        return Ok(None);
    }
    sqlx::query_scalar(READ_VERSION).fetch_optional(connection).await
}

/// Returns the schema that is there, `None` where there is none.
async fn look_postgres(connection: &mut PgConnection) -> Result<Option<i64>, sqlx::Error> {
    // Not `to_regclass`: it answers from what this connection remembers, and what another process has made
    // while this one waited for the lock is not in it.
    let table = "SELECT EXISTS (SELECT FROM pg_catalog.pg_tables \
                 WHERE schemaname = ANY (current_schemas(false)) AND tablename = 'outhaul_schema')";
    if !sqlx::query_scalar::<_, bool>(table).fetch_one(&mut *connection).await? {
        return Ok(None);
    }
    sqlx::query_scalar(READ_VERSION).fetch_optional(connection).await
}

/// Returns what a schema is, or `None` where steps are missing.
fn settled(version: i64) -> Option<Found> {
    match version {
        NEWEST => Some(Found::Current),
        newer if newer > NEWEST => Some(Found::Newer(newer)),
        _ => None,
    }
}

fn missing(version: i64) -> &'static [Step] {
    let done = usize::try_from(version).unwrap_or(0).min(STEPS.len());
    &STEPS[done..]
}
