//! A/B experiments: outcomes joined to predictions, what can be concluded of them at any time, and shares that
//! learn from them.
//!
//! A route with `feedback = true` tells what it predicts to the sink ([`Experiments::sink`]), which only puts it
//! into a bounded queue. A writer task takes the queue to the state store in batches. [`Experiments::feedback`] joins
//! outcomes to predictions by request id, whichever replica made them. What is counted of each variant is read back
//! at short intervals, for the page and for the policies that learn ([`bandit`]).
//!
//! Invariants: a request never waits for any of this; what the queue or the backlog cannot hold is counted
//! ([`Experiments::dropped`]), the oldest first. An outcome that was answered with `joined` or `replaced` is
//! in the store. Each prediction counts once, with its last outcome, however often a replica tried.
//!
//! The parts: [`sequence`] (statistics), [`report`], [`bandit`], all pure; `join` (what feedback changes,
//! pure); `ledger` (where rows are); `writer` (the task).

pub mod bandit;
mod join;
mod label;
mod ledger;
mod memory;
pub mod report;
pub mod sequence;
mod writer;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outhaul_router::OnPredicted;
use outhaul_state::{StateError, Store};
use outhaul_types::{
    Classify, ErrorKind, Feedback, FeedbackAnswer, ModelName, RouteSpec, SplitPolicy,
};
pub use report::{ExperimentReport, VariantReport, Verdict};
pub use sequence::VariantStats;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::plan::Command;
use crate::traffic::Advisor;
use crate::world::{Timestamp, World};
use writer::Writer;

/// Tells the time.
type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How predictions and outcomes are kept.
#[derive(Clone)]
pub struct ExperimentConfig {
    /// How long predictions are remembered: the longest that an outcome may come after them. Longer needs room
    /// in the store. Default: 7 days.
    pub keep_predictions: Duration,
    /// How often predictions are written, unless a thousand come sooner. Longer means fewer and larger writes.
    /// Default: 200 ms.
    pub flush: Duration,
    /// How often counts are read back, early outcomes joined and old rows trimmed. Default: 2 s.
    pub refresh: Duration,
    /// How long a call of feedback may take before the store counts as away. Default: 2 s.
    pub patience: Duration,
    /// Tells the time.
    pub clock: Clock,
}

impl Default for ExperimentConfig {
    fn default() -> Self {
        ExperimentConfig {
            keep_predictions: Duration::from_secs(7 * 24 * 3600),
            flush: Duration::from_millis(200),
            refresh: Duration::from_secs(2),
            patience: Duration::from_secs(2),
            clock: Arc::new(Timestamp::now),
        }
    }
}

/// Why feedback or a report was not possible. Trying again later is right for each.
#[derive(Debug, thiserror::Error)]
pub enum ExperimentError {
    /// The store failed.
    #[error("could not {attempt} experiments")]
    Store {
        /// `join outcomes of` or `read`.
        attempt: &'static str,
        /// What the store says.
        source: StateError,
    },
    /// The store did not answer in time. Feedback may have been taken; to send it again is harmless.
    #[error("the state store did not answer within {} ms", limit.as_millis())]
    TimedOut {
        /// How long was waited.
        limit: Duration,
    },
    /// The server is going down.
    #[error("experiments have been stopped")]
    Stopped,
}

impl Classify for ExperimentError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Unavailable
    }

    fn client_message(&self) -> String {
        "experiments are not available now, since the state store is away: try again".to_owned()
    }
}

/// The experiments of a server.
pub struct Experiments {
    writer: Arc<Writer>,
    /// Where the store's connections belong: callers may be on other runtimes.
    runtime: Handle,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Experiments {
    /// Starts to remember, in `store` or, without one, in memory (the newest 200,000 predictions, of this
    /// process alone). Call it in the runtime that the store was opened in.
    pub fn start(config: ExperimentConfig, store: Option<Store>) -> Arc<Self> {
        let writer = Arc::new(Writer::new(config, store));
        let task = tokio::spawn(Arc::clone(&writer).run());
        Arc::new(Experiments { writer, runtime: Handle::current(), task: Mutex::new(Some(task)) })
    }

    /// Returns what [`Router::on_predicted`](outhaul_router::Router::on_predicted) is to be given.
    pub fn sink(&self) -> OnPredicted {
        let writer = Arc::clone(&self.writer);
        Box::new(move |predicted| writer.take(&predicted))
    }

    /// Joins outcomes to predictions.
    ///
    /// # Errors
    ///
    /// Fails where the store is away. Then nothing was taken, or after a time limit perhaps everything; to send the
    /// same again counts nothing twice.
    pub async fn feedback(&self, items: Vec<Feedback>) -> Result<FeedbackAnswer, ExperimentError> {
        let writer = Arc::clone(&self.writer);
        self.on_store("join outcomes of", async move {
            let asked: HashSet<&str> = items.iter().map(|item| &*item.id).collect();
            writer.flush_those(|id| asked.contains(id)).await?;
            writer.ledger.join(&items, writer.now()).await
        })
        .await
    }

    /// Reports on a route from what the store holds now.
    ///
    /// # Errors
    ///
    /// Fails where the store is away.
    pub async fn report(
        &self,
        route: &ModelName,
        spec: &RouteSpec,
    ) -> Result<ExperimentReport, ExperimentError> {
        self.flush().await?;
        Ok(self.snapshot(route, spec))
    }

    /// Reports on a route from what was last read, at once.
    pub fn snapshot(&self, route: &ModelName, spec: &RouteSpec) -> ExperimentReport {
        report::report(route.as_str(), spec, &self.stats(route, spec))
    }

    /// Writes what waits, joins outcomes that came early and reads the counts anew, now and not at the next
    /// interval.
    ///
    /// # Errors
    ///
    /// Fails where the store is away.
    pub async fn flush(&self) -> Result<(), ExperimentError> {
        let writer = Arc::clone(&self.writer);
        self.on_store("read", async move {
            writer.flush().await?;
            writer.refresh().await
        })
        .await
    }

    /// Forgets a route's predictions, outcomes and counts, for an experiment that begins anew.
    ///
    /// # Errors
    ///
    /// Fails where the store is away; what is left is forgotten by the next call.
    pub async fn forget(&self, route: &ModelName) -> Result<(), ExperimentError> {
        self.flush().await?;
        let (writer, name) = (Arc::clone(&self.writer), route.clone());
        self.on_store("forget", async move {
            writer.ledger.forget(&name).await?;
            writer.refresh().await
        })
        .await
    }

    /// Returns how many predictions could not be remembered, since the store was away for too long or could not keep
    /// up. An outcome for one of them is unknown.
    pub fn dropped(&self) -> u64 {
        self.writer.dropped()
    }

    /// Writes what waits, within the time limit of one call, and ends the task.
    pub async fn stop(&self) {
        self.writer.stop();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            let limit = self.writer.config.patience;
            let abort = task.abort_handle();
            if tokio::time::timeout(limit, task).await.is_err() {
                abort.abort();
            }
        }
    }

    /// What is counted of a route's targets, in their order.
    fn stats(&self, route: &ModelName, spec: &RouteSpec) -> Vec<VariantStats> {
        let counted = self.writer.counted();
        let of_route = counted.get(route.as_str());
        let stats = |variant: &str| of_route.and_then(|variants| variants.get(variant).copied());
        spec.targets
            .iter()
            .map(|target| stats(&target.to.to_string()).unwrap_or_default())
            .collect()
    }

    /// Runs a call to the store where its connections belong, within the time limit.
    async fn on_store<T: Send + 'static>(
        &self,
        attempt: &'static str,
        call: impl Future<Output = Result<T, StateError>> + Send + 'static,
    ) -> Result<T, ExperimentError> {
        let limit = self.writer.config.patience;
        let task = self.runtime.spawn(async move { tokio::time::timeout(limit, call).await });
        match task.await {
            Ok(Ok(answer)) => answer.map_err(|source| ExperimentError::Store { attempt, source }),
            Ok(Err(_)) => Err(ExperimentError::TimedOut { limit }),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(ExperimentError::Stopped),
        }
    }
}

/// What is counted: by route, then by variant.
type Counted = HashMap<String, HashMap<String, VariantStats>>;

/// The smallest change of a share that is worth an entry in the journal.
const WORTH_IT: f64 = 0.01;

impl Advisor for Arc<Experiments> {
    fn advise(&self, world: &World, _now: Timestamp) -> Vec<Command> {
        let learning = world.routes.iter().filter(|(route, record)| {
            let rolls_out = world.rollouts.get(*route).is_some_and(|rollout| rollout.is_open());
            record.spec.policy != SplitPolicy::Weights && record.spec.feedback && !rolls_out
        });
        let advice = learning.filter_map(|(route, record)| {
            advise(route, &record.spec, &self.stats(route, &record.spec))
        });
        advice.collect()
    }

    fn name(&self) -> &str {
        "experiment"
    }
}

/// Returns the change that a route's policy asks for, if it is worth one.
fn advise(route: &ModelName, spec: &RouteSpec, stats: &[VariantStats]) -> Option<Command> {
    let shares = bandit::shares(spec.policy, stats)?;
    let now = spec.shares();
    let largest = shares.iter().zip(&now).map(|(to, from)| (to - from).abs()).fold(0.0, f64::max);
    if largest < WORTH_IT {
        return None;
    }
    let learnt = spec.targets.iter().zip(stats).map(|(target, stats)| match stats.mean() {
        Some(mean) => format!("{}: mean reward {mean:.4} of {}", target.to, stats.outcomes),
        None => format!("{}: no outcome yet", target.to),
    });
    Some(Command::Reweigh {
        route: route.clone(),
        // Four digits are more than counts can tell, and are read more easily.
        weights: shares.iter().map(|share| (share * 1e4).round() / 1e4).collect(),
        reason: learnt.collect::<Vec<_>>().join(", "),
    })
}

#[cfg(test)]
mod tests;
