//! Where predictions and outcomes are: in the state store, or in this process where there is none.

use std::sync::{Mutex, MutexGuard, PoisonError};

use outhaul_state::{OutcomeChanges, PredictionRow, StateError, Store, TallyRow};
use outhaul_types::{Feedback, FeedbackAnswer, ModelName};

use super::join::{feedback_of, join};
use super::memory::Memory;

/// Rows that one statement trims.
const TRIMMED_AT_ONCE: i64 = 10_000;

/// Early outcomes that one round joins.
const SWEPT_AT_ONCE: i64 = 1_000;

/// Early outcomes that are kept, of all replicas together.
const MOST_EARLY: i64 = 20_000;

/// Milliseconds for which an early outcome waits for its prediction.
const EARLY_FOR: i64 = 600_000;

pub(super) enum Ledger {
    Store(Store),
    Memory(Mutex<Memory>),
}

impl Ledger {
    pub(super) fn new(store: Option<Store>) -> Self {
        store.map_or_else(|| Ledger::Memory(Mutex::default()), Ledger::Store)
    }

    pub(super) async fn add(&self, rows: &[PredictionRow]) -> Result<(), StateError> {
        match self {
            Ledger::Store(store) => store.add_predictions(rows).await,
            Ledger::Memory(memory) => {
                lock(memory).add(rows);
                Ok(())
            }
        }
    }

    pub(super) async fn join(
        &self,
        items: &[Feedback],
        now: i64,
    ) -> Result<FeedbackAnswer, StateError> {
        let ids: Vec<&str> = items.iter().map(|item| &*item.id).collect();
        match self {
            Ledger::Store(store) => {
                store.change_outcomes(&ids, |known| join(items, &known, now)).await
            }
            Ledger::Memory(memory) => {
                Ok(lock(memory).change(&ids, |known| join(items, &known, now)))
            }
        }
    }

    /// Joins outcomes that came before their predictions, from this replica or another.
    pub(super) async fn sweep(&self) -> Result<(), StateError> {
        let Ledger::Store(store) = self else { return Ok(()) };
        for _ in 0..MOST_EARLY / SWEPT_AT_ONCE {
            let early = store.early_found(SWEPT_AT_ONCE).await?;
            // By their own times: the oldest first, so that the last one counts.
            for at in early.chunk_by(|left, right| left.at == right.at) {
                let items: Vec<Feedback> = at.iter().filter_map(feedback_of).collect();
                let ids: Vec<&str> = items.iter().map(|item| &*item.id).collect();
                let decide = |known| {
                    let (changes, answer) = join(&items, &known, at[0].at);
                    (OutcomeChanges { early: Vec::new(), ..changes }, answer)
                };
                store.change_outcomes(&ids, decide).await?;
            }
            if early.len() < SWEPT_AT_ONCE.unsigned_abs() as usize {
                break;
            }
        }
        Ok(())
    }

    /// Lets go of what is older than `before`, a part of it at a time.
    pub(super) async fn trim(&self, before: i64, now: i64) -> Result<(), StateError> {
        match self {
            Ledger::Store(store) => {
                store.trim_early(now - EARLY_FOR, MOST_EARLY).await?;
                store.trim_predictions(before, TRIMMED_AT_ONCE).await?;
            }
            Ledger::Memory(memory) => lock(memory).trim(before),
        }
        Ok(())
    }

    pub(super) async fn tallies(&self) -> Result<Vec<TallyRow>, StateError> {
        match self {
            Ledger::Store(store) => store.tallies().await,
            Ledger::Memory(memory) => Ok(lock(memory).tallies()),
        }
    }

    pub(super) async fn forget(&self, route: &ModelName) -> Result<(), StateError> {
        match self {
            Ledger::Store(store) => store.forget_route(route).await,
            Ledger::Memory(memory) => {
                lock(memory).forget(route.as_str());
                Ok(())
            }
        }
    }
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}
