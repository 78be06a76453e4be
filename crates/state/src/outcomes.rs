//! Predictions that routes remember, the outcomes that were joined to them, and the tally of each variant.
//!
//! Invariant: a tally is the sum over what was ever counted, whoever wrote it and however often it was tried. Rows
//! and tallies change in one transaction; a prediction that is already there is not counted again; outcomes are
//! joined under a lock that other processes wait for. Rows are trimmed by age, tallies stay.
//!
//! Many rows go in one statement, as one JSON text that both databases take apart: the statements never change, so
//! they are prepared once. Text is bounded by the caller; a NUL character, which Postgres cannot keep, becomes
//! U+FFFD. What outcomes mean is decided by the caller, between reading and writing
//! ([`Store::change_outcomes`]).

use std::borrow::Cow;
use std::collections::BTreeMap;

use outhaul_types::{ModelName, Name};
use serde::Serialize;

use crate::{Database, StateError, Store, on_either};

/// A prediction that outcomes can be joined to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PredictionRow {
    /// The request's id.
    pub id: Name,
    /// The route that dealt the request.
    pub route: ModelName,
    /// The variant that answered.
    pub variant: Name,
    /// What was predicted, where that can be said in a word.
    pub predicted: Option<Name>,
    /// When, in milliseconds since 1970.
    pub at: i64,
}

/// An outcome that was joined to a prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct OutcomeRow {
    /// The request's id.
    pub id: String,
    /// The route.
    pub route: String,
    /// The variant that answered.
    pub variant: String,
    /// The label that was told, where one was.
    pub label: Option<String>,
    /// The reward, told or found by the label.
    pub reward: f64,
    /// When, in milliseconds since 1970.
    pub at: i64,
}

/// An outcome that came before its prediction was written.
#[derive(Clone, Debug, PartialEq)]
pub struct EarlyRow {
    /// The request's id.
    pub id: String,
    /// The route, or empty for any.
    pub route: String,
    /// The label that was told, where one was.
    pub label: Option<String>,
    /// The reward that was told, where one was.
    pub reward: Option<f64>,
    /// When, in milliseconds since 1970.
    pub at: i64,
}

/// What is counted of one variant of one route. As a change it is what is added.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TallyRow {
    /// The route.
    pub route: String,
    /// The variant.
    pub variant: String,
    /// Predictions.
    pub predictions: i64,
    /// Predictions with an outcome.
    pub outcomes: i64,
    /// The sum of their rewards.
    pub reward_sum: f64,
    /// The sum of their rewards' squares.
    pub square_sum: f64,
}

/// What is known of some ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KnownOutcomes {
    /// The predictions; `at` is 0.
    pub predictions: Vec<KnownPrediction>,
    /// The outcomes that they have; `at` is 0.
    pub outcomes: Vec<OutcomeRow>,
}

/// A prediction, as far as joining needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct KnownPrediction {
    pub id: String,
    pub route: String,
    pub variant: String,
    pub predicted: Option<String>,
}

/// What shall be different.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutcomeChanges {
    /// Outcomes, in place of those that were there. No two of one id and route.
    pub outcomes: Vec<OutcomeRow>,
    /// What is added to tallies. No two of one variant.
    pub tallies: Vec<TallyRow>,
    /// Outcomes to keep until their predictions come. No two of one id and route.
    pub early: Vec<EarlyRow>,
    /// Early outcomes that are settled: id, and route or empty.
    pub settled: Vec<(String, String)>,
}

/// One statement as each database understands it.
struct Sql {
    sqlite: &'static str,
    postgres: &'static str,
}

/// Makes a statement over the rows of `$1`, a JSON list of lists. Its rows are called `given`.
macro_rules! over_rows {
    ($before:literal, $after:literal) => {
        Sql {
            sqlite: concat!($before, " json_each($1) AS given ", $after),
            postgres: concat!($before, " jsonb_array_elements($1::jsonb) AS given(value) ", $after),
        }
    };
}

// `WHERE true`: without it SQLite reads ON as the condition of a join.
const ADD_PREDICTIONS: Sql = over_rows!(
    "INSERT INTO outhaul_prediction (id, route, variant, predicted, at) SELECT value ->> 0, value ->> 1, \
     value ->> 2, value ->> 3, CAST(value ->> 4 AS BIGINT) FROM",
    "WHERE true ON CONFLICT (id, route) DO NOTHING RETURNING route, variant"
);
const FIND_PREDICTIONS: Sql = over_rows!(
    "SELECT p.id, p.route, p.variant, p.predicted FROM",
    "JOIN outhaul_prediction p ON p.id = (given.value ->> 0)"
);
const FIND_OUTCOMES: Sql = over_rows!(
    "SELECT o.id, o.route, o.variant, o.label, o.reward FROM",
    "JOIN outhaul_outcome o ON o.id = (given.value ->> 0)"
);
const PUT_OUTCOMES: Sql = over_rows!(
    "INSERT INTO outhaul_outcome (id, route, variant, label, reward, at) SELECT value ->> 0, value ->> 1, \
     value ->> 2, value ->> 3, CAST(value ->> 4 AS DOUBLE PRECISION), CAST(value ->> 5 AS BIGINT) FROM",
    "WHERE true ON CONFLICT (id, route) DO UPDATE SET variant = excluded.variant, label = excluded.label, \
     reward = excluded.reward, at = excluded.at"
);
const ADD_TALLIES: Sql = over_rows!(
    "INSERT INTO outhaul_tally (route, variant, predictions, outcomes, reward_sum, square_sum) \
     SELECT value ->> 0, value ->> 1, CAST(value ->> 2 AS BIGINT), CAST(value ->> 3 AS BIGINT), \
     CAST(value ->> 4 AS DOUBLE PRECISION), CAST(value ->> 5 AS DOUBLE PRECISION) FROM",
    "WHERE true ON CONFLICT (route, variant) DO UPDATE SET \
     predictions = outhaul_tally.predictions + excluded.predictions, \
     outcomes = outhaul_tally.outcomes + excluded.outcomes, \
     reward_sum = outhaul_tally.reward_sum + excluded.reward_sum, \
     square_sum = outhaul_tally.square_sum + excluded.square_sum"
);
const KEEP_EARLY: Sql = over_rows!(
    "INSERT INTO outhaul_early (id, route, label, reward, at) SELECT value ->> 0, value ->> 1, value ->> 2, \
     CAST(value ->> 3 AS DOUBLE PRECISION), CAST(value ->> 4 AS BIGINT) FROM",
    "WHERE true ON CONFLICT (id, route) DO UPDATE SET label = excluded.label, reward = excluded.reward, \
     at = excluded.at"
);
const DROP_EARLY: Sql = over_rows!(
    "DELETE FROM outhaul_early WHERE (id, route) IN (SELECT given.value ->> 0, given.value ->> 1 FROM",
    ")"
);
const EARLY_FOUND: &str = "SELECT e.id, e.route, e.label, e.reward, e.at FROM outhaul_early e \
     WHERE EXISTS (SELECT 1 FROM outhaul_prediction p WHERE p.id = e.id AND (e.route = '' OR e.route = p.route)) \
     ORDER BY e.at LIMIT $1";
const TALLIES: &str = "SELECT route, variant, predictions, outcomes, reward_sum, square_sum FROM outhaul_tally \
     ORDER BY route, variant";
const TRIM_PREDICTIONS: &str = "DELETE FROM outhaul_prediction WHERE (id, route) IN \
     (SELECT id, route FROM outhaul_prediction WHERE at < $1 ORDER BY at LIMIT $2)";
const TRIM_OUTCOMES: &str = "DELETE FROM outhaul_outcome WHERE (id, route) IN \
     (SELECT id, route FROM outhaul_outcome WHERE at < $1 ORDER BY at LIMIT $2)";
/// Early outcomes are few: what is too old goes, and what is too many from the oldest on.
const TRIM_EARLY: &str = "DELETE FROM outhaul_early WHERE at < $1 OR (id, route) IN \
     (SELECT id, route FROM outhaul_early ORDER BY at DESC LIMIT 1000000 OFFSET $2)";
const FORGET: [&str; 4] = [
    "DELETE FROM outhaul_prediction WHERE (id, route) IN \
     (SELECT id, route FROM outhaul_prediction WHERE route = $1 LIMIT $2)",
    "DELETE FROM outhaul_outcome WHERE (id, route) IN \
     (SELECT id, route FROM outhaul_outcome WHERE route = $1 LIMIT $2)",
    "DELETE FROM outhaul_early WHERE (id, route) IN \
     (SELECT id, route FROM outhaul_early WHERE route = $1 LIMIT $2)",
    "DELETE FROM outhaul_tally WHERE (route, variant) IN \
     (SELECT route, variant FROM outhaul_tally WHERE route = $1 LIMIT $2)",
];

/// Who joins outcomes holds it, so that two processes do not both find an outcome missing. Any number that other
/// programs are unlikely to lock.
const LOCK: &str = "SELECT pg_advisory_xact_lock(31372865242756461)";

/// Rows that one statement deletes, so that nobody waits for it long.
const FORGET_AT_ONCE: i64 = 10_000;

type FoundPrediction = (String, String, String, Option<String>);
type FoundOutcome = (String, String, String, Option<String>, f64);

/// Reads what is known of `$ids`, lets `$decide` say what changes, and writes that.
macro_rules! change {
    ($transaction:ident, $database:ident, $ids:expr, $decide:expr) => {{
        let find = sqlx::query_as(FIND_PREDICTIONS.$database).bind($ids);
        let predictions: Vec<FoundPrediction> = find.fetch_all(&mut *$transaction).await?;
        let find = sqlx::query_as(FIND_OUTCOMES.$database).bind($ids);
        let outcomes: Vec<FoundOutcome> = find.fetch_all(&mut *$transaction).await?;
        let (changes, answer) = $decide(known(predictions, outcomes));
        for (statement, rows) in statements(changes) {
            sqlx::query(statement.$database).bind(rows).execute(&mut *$transaction).await?;
        }
        answer
    }};
}

/// Adds predictions and counts those that were not there.
macro_rules! add {
    ($transaction:ident, $database:ident, $rows:expr) => {{
        let add = sqlx::query_as(ADD_PREDICTIONS.$database).bind($rows);
        let added: Vec<(String, String)> = add.fetch_all(&mut *$transaction).await?;
        if let Some(rows) = tally_rows(counted(added)) {
            sqlx::query(ADD_TALLIES.$database).bind(rows).execute(&mut *$transaction).await?;
        }
    }};
}

impl Store {
    /// Remembers predictions. One whose id its route knows already is left as it was, so that the same rows may be
    /// written again after a failure.
    ///
    /// # Errors
    ///
    /// Fails where the database does.
    pub async fn add_predictions(&self, rows: &[PredictionRow]) -> Result<(), StateError> {
        // In one order everywhere, so that two processes that add the same ids do not wait for each other.
        let mut sorted: Vec<&PredictionRow> = rows.iter().collect();
        sorted.sort_by(|left, right| (&left.id, &left.route).cmp(&(&right.id, &right.route)));
        let rows = sorted.iter().map(|row| {
            let predicted = row.predicted.as_deref().map(clean);
            (clean(&row.id), row.route.as_str(), clean(&row.variant), predicted, row.at)
        });
        let Some(rows) = json(rows) else { return Ok(()) };
        let add = async {
            match &self.database {
                Database::Sqlite(pool) => {
                    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
                    add!(transaction, sqlite, &rows);
                    transaction.commit().await
                }
                Database::Postgres(pool) => {
                    let mut transaction = pool.begin().await?;
                    add!(transaction, postgres, &rows);
                    transaction.commit().await
                }
            }
        };
        self.call(|| "remember predictions".to_owned(), add).await
    }

    /// Gives `decide` the predictions and outcomes of some ids and carries out what it decides, all in one
    /// transaction that no other process's comes between.
    ///
    /// # Errors
    ///
    /// Fails where the database does; then nothing is changed, or after [`StateError::TimedOut`] perhaps
    /// everything.
    pub async fn change_outcomes<T>(
        &self,
        ids: &[&str],
        decide: impl FnOnce(KnownOutcomes) -> (OutcomeChanges, T),
    ) -> Result<T, StateError> {
        let ids = json(ids.iter().map(|id| [clean(id)])).unwrap_or_else(|| "[]".to_owned());
        let change = async {
            match &self.database {
                Database::Sqlite(pool) => {
                    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
                    let answer = change!(transaction, sqlite, &ids, decide);
                    transaction.commit().await?;
                    Ok(answer)
                }
                Database::Postgres(pool) => {
                    let mut transaction = pool.begin().await?;
                    sqlx::query(LOCK).execute(&mut *transaction).await?;
                    let answer = change!(transaction, postgres, &ids, decide);
                    transaction.commit().await?;
                    Ok(answer)
                }
            }
        };
        self.call(|| "join outcomes".to_owned(), change).await
    }

    /// Returns early outcomes whose predictions have come, the oldest first.
    ///
    /// # Errors
    ///
    /// Fails where the database does.
    pub async fn early_found(&self, limit: i64) -> Result<Vec<EarlyRow>, StateError> {
        type Row = (String, String, Option<String>, Option<f64>, i64);
        let rows: Vec<Row> = on_either!(self, pool => {
            let query = sqlx::query_as(EARLY_FOUND).bind(limit);
            self.call(|| "look for early outcomes".to_owned(), query.fetch_all(pool)).await?
        });
        let row = |(id, route, label, reward, at)| EarlyRow { id, route, label, reward, at };
        Ok(rows.into_iter().map(row).collect())
    }

    /// Returns the tallies of all variants, by route and variant.
    ///
    /// # Errors
    ///
    /// Fails where the database does.
    pub async fn tallies(&self) -> Result<Vec<TallyRow>, StateError> {
        type Row = (String, String, i64, i64, f64, f64);
        let rows: Vec<Row> = on_either!(self, pool => {
            let query = sqlx::query_as(TALLIES);
            self.call(|| "read the tallies".to_owned(), query.fetch_all(pool)).await?
        });
        let row = |(route, variant, predictions, outcomes, reward_sum, square_sum)| TallyRow {
            route,
            variant,
            predictions,
            outcomes,
            reward_sum,
            square_sum,
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// Removes predictions and outcomes from before a moment, the oldest first and at most `limit` of each.
    /// Returns how many went; tallies stay.
    ///
    /// # Errors
    ///
    /// Fails where the database does.
    pub async fn trim_predictions(&self, before: i64, limit: i64) -> Result<u64, StateError> {
        let mut gone = 0;
        for statement in [TRIM_PREDICTIONS, TRIM_OUTCOMES] {
            gone += self.delete_rows(statement, before, limit).await?;
        }
        Ok(gone)
    }

    /// Removes early outcomes from before a moment, and the oldest where there are more than `most`.
    ///
    /// # Errors
    ///
    /// Fails where the database does.
    pub async fn trim_early(&self, before: i64, most: i64) -> Result<u64, StateError> {
        self.delete_rows(TRIM_EARLY, before, most).await
    }

    /// Removes all that is remembered and counted of a route.
    ///
    /// # Errors
    ///
    /// Fails where the database does; what is left goes the next time.
    pub async fn forget_route(&self, route: &ModelName) -> Result<(), StateError> {
        for statement in FORGET {
            loop {
                let gone = on_either!(self, pool => {
                    let query = sqlx::query(statement).bind(route.as_str()).bind(FORGET_AT_ONCE);
                    let attempt = || format!("forget predictions of '{route}'");
                    self.call(attempt, query.execute(pool)).await?.rows_affected()
                });
                if gone < FORGET_AT_ONCE.unsigned_abs() {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn delete_rows(
        &self,
        statement: &'static str,
        first: i64,
        second: i64,
    ) -> Result<u64, StateError> {
        on_either!(self, pool => {
            let query = sqlx::query(statement).bind(first).bind(second);
            let attempt = || "trim predictions and outcomes".to_owned();
            Ok(self.call(attempt, query.execute(pool)).await?.rows_affected())
        })
    }
}

fn known(predictions: Vec<FoundPrediction>, outcomes: Vec<FoundOutcome>) -> KnownOutcomes {
    let prediction =
        |(id, route, variant, predicted)| KnownPrediction { id, route, variant, predicted };
    let outcome = |(id, route, variant, label, reward)| OutcomeRow {
        id,
        route,
        variant,
        label,
        reward,
        at: 0,
    };
    KnownOutcomes {
        predictions: predictions.into_iter().map(prediction).collect(),
        outcomes: outcomes.into_iter().map(outcome).collect(),
    }
}

/// The statements that carry changes out, each with its rows.
fn statements(changes: OutcomeChanges) -> impl Iterator<Item = (Sql, String)> {
    let outcomes = json(changes.outcomes.iter().map(|row| {
        let label = row.label.as_deref().map(clean);
        (clean(&row.id), &row.route, &row.variant, label, row.reward, row.at)
    }));
    let early = json(changes.early.iter().map(|row| {
        let label = row.label.as_deref().map(clean);
        (clean(&row.id), clean(&row.route), label, row.reward, row.at)
    }));
    let settled = json(changes.settled.iter().map(|(id, route)| [clean(id), clean(route)]));
    let tallies = tally_rows(changes.tallies);
    let all = [
        (PUT_OUTCOMES, outcomes),
        (KEEP_EARLY, early),
        (DROP_EARLY, settled),
        // Last: all processes write the same few rows, so they are locked for the shortest time.
        (ADD_TALLIES, tallies),
    ];
    all.into_iter().filter_map(|(statement, rows)| Some((statement, rows?)))
}

/// How many rows each variant of each route has.
fn counted(rows: Vec<(String, String)>) -> Vec<TallyRow> {
    let mut counts = BTreeMap::new();
    for row in rows {
        *counts.entry(row).or_insert(0) += 1;
    }
    let tally = |((route, variant), predictions)| TallyRow {
        route,
        variant,
        predictions,
        ..TallyRow::default()
    };
    counts.into_iter().map(tally).collect()
}

fn tally_rows(mut tallies: Vec<TallyRow>) -> Option<String> {
    // In one order everywhere, so that no two transactions wait for each other.
    tallies
        .sort_by(|left, right| (&left.route, &left.variant).cmp(&(&right.route, &right.variant)));
    json(tallies.iter().map(|row| {
        let (sum, squares) = (row.reward_sum, row.square_sum);
        (clean(&row.route), clean(&row.variant), row.predictions, row.outcomes, sum, squares)
    }))
}

/// Writes rows as a JSON list, or gives none where there are none.
fn json<R: Serialize>(rows: impl Iterator<Item = R>) -> Option<String> {
    let rows: Vec<R> = rows.collect();
    let text = || serde_json::to_string(&rows).expect("texts and finite numbers are JSON");
    (!rows.is_empty()).then(text)
}

fn clean(text: &str) -> Cow<'_, str> {
    match text.contains('\0') {
        true => Cow::Owned(text.replace('\0', "\u{fffd}")),
        false => Cow::Borrowed(text),
    }
}
