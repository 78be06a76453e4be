//! From the request's path to the ledger: a queue, a backlog, and the task that empties both.
//!
//! Invariant: [`Writer::take`] does not wait, lock or grow anything. Rows leave the backlog when the ledger has them
//! and not before; writing one twice counts it once, so whoever is interrupted leaves nothing wrong behind.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use outhaul_router::Predicted;
use outhaul_state::{PredictionRow, StateError, Store, TallyRow};
use outhaul_types::error_chain;
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

use super::label::predicted;
use super::ledger::Ledger;
use super::{Counted, ExperimentConfig, VariantStats};

/// Predictions on the way to the backlog, and predictions in it.
const ROOM: usize = 65_536;

/// Rows of one write.
const BATCH: usize = 1_000;

/// The most bytes of an id. Feedback for longer ones is refused.
const LONGEST_ID: usize = 256;

/// The longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct Writer {
    pub(super) config: ExperimentConfig,
    pub(super) ledger: Ledger,
    queue: ArrayQueue<PredictionRow>,
    /// Held while rows are written: whoever gets it knows that nothing is half on its way.
    backlog: Mutex<VecDeque<PredictionRow>>,
    counted: RwLock<Arc<Counted>>,
    dropped: AtomicU64,
    wake: Notify,
    stopping: Notify,
}

impl Writer {
    pub(super) fn new(config: ExperimentConfig, store: Option<Store>) -> Self {
        Writer {
            config,
            ledger: Ledger::new(store),
            queue: ArrayQueue::new(ROOM),
            backlog: Mutex::default(),
            counted: RwLock::default(),
            dropped: AtomicU64::new(0),
            wake: Notify::new(),
            stopping: Notify::new(),
        }
    }

    /// Takes note of a prediction, on the request's path.
    pub(super) fn take(&self, told: &Predicted) {
        // An answer that a fallback gave says nothing of the variant that was chosen.
        let fallback = told.answer.via.as_ref().is_some_and(|via| via.fallback.is_some());
        if fallback || told.request_id.is_empty() {
            return;
        }
        if told.request_id.len() > LONGEST_ID {
            self.drop_some(1);
            return;
        }
        let row = PredictionRow {
            id: told.request_id.clone(),
            route: told.route.clone(),
            variant: told.variant.clone(),
            predicted: predicted(&told.answer),
            at: self.now(),
        };
        if self.queue.force_push(row).is_some() {
            self.drop_some(1);
        }
        if self.queue.len() >= BATCH {
            self.wake.notify_one();
        }
    }

    pub(super) fn now(&self) -> i64 {
        (self.config.clock)().0
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn counted(&self) -> Arc<Counted> {
        Arc::clone(&self.counted.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn stop(&self) {
        self.stopping.notify_one();
    }

    /// Writes all that waits.
    pub(super) async fn flush(&self) -> Result<(), StateError> {
        let mut backlog = self.backlog.lock().await;
        self.collect(&mut backlog);
        self.write(&mut backlog).await
    }

    /// Writes all that waits, if some of these ids are among it.
    pub(super) async fn flush_those(
        &self,
        is_one: impl Fn(&str) -> bool,
    ) -> Result<(), StateError> {
        let mut backlog = self.backlog.lock().await;
        self.collect(&mut backlog);
        match backlog.iter().any(|row| is_one(&row.id)) {
            true => self.write(&mut backlog).await,
            false => Ok(()),
        }
    }

    /// Joins early outcomes, reads the counts and trims what is old.
    pub(super) async fn refresh(&self) -> Result<(), StateError> {
        self.ledger.sweep().await?;
        let mut counted = Counted::new();
        for row in self.ledger.tallies().await? {
            let stats = stats_of(&row);
            counted.entry(row.route).or_default().insert(row.variant, stats);
        }
        *self.counted.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(counted);
        let now = self.now();
        let keep = i64::try_from(self.config.keep_predictions.as_millis()).unwrap_or(i64::MAX);
        self.ledger.trim(now.saturating_sub(keep), now).await
    }

    /// Writes and refreshes at intervals until it is stopped.
    pub(super) async fn run(self: Arc<Self>) {
        let mut refreshed = Instant::now();
        let mut failures = 0_u32;
        loop {
            let pause = match failures {
                0 => self.config.flush,
                // Failing, a new batch is no reason to try again.
                count => (self.config.flush * 2_u32.pow(count.min(6))).min(LONGEST_PAUSE),
            };
            let stopped = tokio::select! {
                () = self.stopping.notified() => true,
                () = self.wake.notified(), if failures == 0 => false,
                () = tokio::time::sleep(pause) => false,
            };
            let mut outcome = self.flush().await;
            if outcome.is_ok() && !stopped && refreshed.elapsed() >= self.config.refresh {
                outcome = self.refresh().await;
                refreshed = Instant::now();
            }
            failures = match outcome {
                Ok(()) => self.recovered(failures),
                Err(error) => self.failed(&error, failures),
            };
            if stopped {
                return;
            }
        }
    }

    fn recovered(&self, failures: u32) -> u32 {
        if failures > 0 {
            let dropped = self.dropped();
            tracing::info!(dropped, "predictions for feedback are written again");
        }
        0
    }

    fn failed(&self, error: &StateError, failures: u32) -> u32 {
        if failures == 0 {
            let error = error_chain(error);
            tracing::warn!(error, "predictions for feedback wait for the state store");
        }
        failures.saturating_add(1)
    }

    /// Takes the queue into the backlog, which keeps the newest.
    fn collect(&self, backlog: &mut VecDeque<PredictionRow>) {
        // No more than was there: requests go on adding.
        for _ in 0..self.queue.len() {
            backlog.extend(self.queue.pop());
        }
        let excess = backlog.len().saturating_sub(ROOM);
        backlog.drain(..excess);
        self.drop_some(excess as u64);
    }

    async fn write(&self, backlog: &mut VecDeque<PredictionRow>) -> Result<(), StateError> {
        while !backlog.is_empty() {
            let count = backlog.len().min(BATCH);
            self.ledger.add(&backlog.make_contiguous()[..count]).await?;
            backlog.drain(..count);
        }
        Ok(())
    }

    fn drop_some(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }
}

fn stats_of(row: &TallyRow) -> VariantStats {
    VariantStats {
        predictions: row.predictions.max(0).unsigned_abs(),
        outcomes: row.outcomes.max(0).unsigned_abs(),
        sum: row.reward_sum.max(0.0),
        sum_squares: row.square_sum.max(0.0),
    }
}
