//! Copies of requests to a destination whose answers are compared and thrown away.
//!
//! # The way of a copy
//!
//! 1. The request comes to a route with a shadow. A Weyl sequence deals the declared share. Where as many copies are
//!    under way as may be, it is shed here, before anything is copied.
//! 2. The primary answers. Where it does not, there is nothing to compare and the copy is dropped uncounted; so it
//!    is where a fallback answered. Else the copy takes a place among those under way, or is shed.
//! 3. The caller gets the answer. Only then does a task on the caller's event loop hand the copy to the thread for
//!    copies: waking a thread costs microseconds, which nobody waits for now.
//! 4. On that thread the copy waits until a core is free ([`cores`]), half a second at most, and is shed if none is.
//! 5. It runs there under [`outhaul_types::Priority::Background`]: cheap models at once on that thread, others on their instances.
//! 6. The answers are compared ([`mod@compare`]) and counted; the worst disagreements are kept ([`examples`]).
//!
//! Invariant: a request waits for nothing that a copy does, and what becomes of a copy - an error, a panic, a model that
//! hangs - is a count and no more. A copy never leads to another copy: [`RequestContext::shadow`] goes with it.
//!
//! # Decisions
//!
//! - A copy may take as long as four times the primary's answer took, but at least a second.
//! - It neither reads nor fills a cache: the entries of answers that people want would make room for it.
//! - It carries no caller, so that nobody's part of a busy model is used up by it, and none of the request's own
//!   `priority` and `timeout`.
//! - A request that goes to the shadow's destination anyway is not copied: its answer would agree with itself.

mod compare;
mod cores;
mod examples;
mod runner;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use outhaul_monitor::traffic::{ShadowCounts, ShadowMetrics};
use outhaul_types::{Destination, InferRequest, InferResponse, RequestContext, ShadowSpec};
use serde::Serialize;
use tokio::sync::Notify;

pub use compare::{Compared, compare};
pub use cores::Machine;
pub use examples::ShadowExample;
pub(crate) use runner::Shadows;

use crate::Router;
use crate::routes::{Pace, Route, Variant};
use examples::Examples;
use runner::Job;

/// What a route shadows.
pub struct Shadowing {
    spec: ShadowSpec,
    metrics: Arc<ShadowMetrics>,
    /// Points of the sequence below this are copied.
    threshold: u64,
    dealt: AtomicU64,
    pace: Pace,
    in_flight: AtomicUsize,
    /// Told when the last copy under way has ended.
    settled: Notify,
    examples: Examples,
    last_failure: Mutex<Option<String>>,
}

/// What became of a route's copies.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShadowReport {
    /// Where the copies go.
    pub to: Destination,
    /// The share of requests that is copied.
    pub share: f64,
    /// What became of them since the process was started.
    pub counts: ShadowCounts,
    /// The share of compared answers that disagree; `None` while nothing was compared.
    pub disagreement: Option<f64>,
    /// Copies that wait or run now.
    pub in_flight: usize,
    /// The worst disagreements since the shadow was declared in this form, worst first.
    pub examples: Vec<ShadowExample>,
    /// Why the shadow last gave no answer.
    pub last_failure: Option<String>,
}

impl Shadowing {
    pub(crate) fn new(spec: &ShadowSpec, metrics: Arc<ShadowMetrics>) -> Self {
        Shadowing {
            metrics,
            // Saturates at a share of 1, which is not asked.
            threshold: (spec.share * 2f64.powi(64)) as u64,
            dealt: AtomicU64::new(0),
            pace: Pace::of_shadow(&spec.to.to_string()),
            in_flight: AtomicUsize::new(0),
            settled: Notify::new(),
            examples: Examples::new(spec.examples),
            last_failure: Mutex::default(),
            spec: spec.clone(),
        }
    }

    /// Returns what was declared.
    pub fn spec(&self) -> &ShadowSpec {
        &self.spec
    }

    /// Returns what became of the copies.
    pub fn metrics(&self) -> &Arc<ShadowMetrics> {
        &self.metrics
    }

    /// Returns what became of the copies, with the worst disagreements.
    pub fn report(&self) -> ShadowReport {
        let counts = self.metrics.counts();
        let disagreement =
            (counts.compared > 0).then(|| counts.disagreed as f64 / counts.compared as f64);
        ShadowReport {
            to: self.spec.to.clone(),
            share: self.spec.share,
            counts,
            disagreement,
            in_flight: self.in_flight.load(Ordering::Relaxed),
            examples: self.examples.all(),
            last_failure: self.last_failure().clone(),
        }
    }

    /// Waits until no copy is under way.
    pub async fn settled(&self) {
        loop {
            let mut settled = std::pin::pin!(self.settled.notified());
            // From here on the end of the last copy is not missed.
            settled.as_mut().enable();
            if self.in_flight.load(Ordering::Acquire) == 0 {
                return;
            }
            settled.await;
        }
    }

    /// Deals whether the next request is copied.
    fn wants(&self) -> bool {
        if self.spec.share >= 1.0 {
            return true;
        }
        self.pace.point(self.dealt.fetch_add(1, Ordering::Relaxed)) < self.threshold
    }

    /// Takes a place among the copies under way, unless all are taken.
    fn place(self: &Arc<Self>) -> Option<Place> {
        let most = self.spec.max_in_flight;
        let take = |taken: usize| (taken < most).then_some(taken + 1);
        self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(Place { shadowing: Arc::clone(self), end: End::Shed })
    }

    fn has_room(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) < self.spec.max_in_flight
    }

    fn last_failure(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a copy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It never ran.
    Shed,
    /// It gave no answer; so it stays where the copy panics.
    Failed,
    /// Both answers were there.
    Compared { agrees: bool },
}

/// A place among the copies under way. It is given back, and the copy's end counted, when it is dropped.
struct Place {
    shadowing: Arc<Shadowing>,
    end: End,
}

impl Drop for Place {
    fn drop(&mut self) {
        let metrics = &self.shadowing.metrics;
        match self.end {
            End::Shed => metrics.shed.increment(),
            End::Failed => metrics.failed.increment(),
            End::Compared { agrees } => {
                metrics.compared.increment();
                if !agrees {
                    metrics.disagreed.increment();
                }
            }
        }
        // Whoever sees that nothing is under way sees the counts too.
        if self.shadowing.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shadowing.settled.notify_waiters();
        }
    }
}

/// A request that is to be copied once it has been answered.
pub(crate) struct Draft {
    shadowing: Arc<Shadowing>,
    request: InferRequest,
}

impl Router {
    /// Copies a request on its way to a variant, if it is to be shadowed. A clone shares the tensors.
    pub(crate) fn draft(
        &self,
        route: &Route,
        variant: &Variant,
        request: &InferRequest,
        context: &RequestContext,
    ) -> Option<Draft> {
        let shadowing = route.shadow()?;
        if context.shadow || variant.to == shadowing.spec.to || !shadowing.wants() {
            return None;
        }
        if !shadowing.has_room() {
            shadowing.metrics.shed.increment();
            return None;
        }
        Some(Draft { shadowing: Arc::clone(shadowing), request: request.clone() })
    }

    /// Sends a copy on its way, now that its request has been answered. `took` is how long that took.
    pub(crate) fn shadow(
        &self,
        draft: Draft,
        primary: &InferResponse,
        context: &RequestContext,
        took: Duration,
    ) {
        if primary.via.as_ref().is_some_and(|via| via.fallback.is_some()) {
            return;
        }
        let Draft { shadowing, request } = draft;
        // In this order: a place that is taken counts by itself when it is given back.
        let router = self.me.upgrade();
        let Some((router, place)) = router.and_then(|me| Some((me, shadowing.place()?))) else {
            shadowing.metrics.shed.increment();
            return;
        };
        let job = Job {
            router,
            place,
            request,
            primary: primary.clone(),
            id: context.id.clone(),
            trace: context.trace,
            depth: context.depth,
            took,
            answered: Instant::now(),
        };
        job.spawn();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_dealt_evenly() {
        for share in [0.001, 0.1, 1.0 / 3.0, 0.5, 0.999, 1.0] {
            let spec = ShadowSpec { share, ..ShadowSpec::to("a@2".parse().unwrap()) };
            let shadowing = Shadowing::new(&spec, Arc::default());
            for stretch in 0..10 {
                let copied = (0..10_000).filter(|_| shadowing.wants()).count() as f64;
                let off = (copied - 10_000.0 * share).abs();
                assert!(off < 15.0, "{copied} copies of a share of {share}, stretch {stretch}");
            }
        }
    }

    #[test]
    fn each_end_is_counted_once_and_frees_its_place() {
        let spec = ShadowSpec { max_in_flight: 1, ..ShadowSpec::to("a@2".parse().unwrap()) };
        let shadowing = Arc::new(Shadowing::new(&spec, Arc::default()));
        assert_eq!(shadowing.report().disagreement, None);
        let ends = [
            End::Shed,
            End::Failed,
            End::Compared { agrees: true },
            End::Compared { agrees: false },
        ];
        for end in ends {
            assert!(shadowing.has_room());
            let mut place = shadowing.place().unwrap();
            assert!(!shadowing.has_room() && shadowing.place().is_none(), "one place is all");
            place.end = end;
        }
        let expected = ShadowCounts { compared: 2, disagreed: 1, failed: 1, shed: 1 };
        let report = shadowing.report();
        assert_eq!((report.counts, report.disagreement), (expected, Some(0.5)));
        assert_eq!(report.in_flight, 0);
    }
}
