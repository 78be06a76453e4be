//! What this replica counts of a roll-out, and what the replicas have counted together.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use outhaul_monitor::TrafficMetrics;
use outhaul_monitor::traffic::{ShadowCounts, ShadowMetrics, VariantCounts, VariantMetrics};
use outhaul_types::ModelName;
use serde::{Deserialize, Serialize};

use crate::plan::{Judgement, Readiness, RolloutObserved, judge};
use crate::sync::{Pulse, Row, Target, sum};
use crate::world::{Rollout, Timestamp, World};

/// A roll-out as people may look at it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RolloutStatus {
    /// The route.
    pub route: ModelName,
    /// The roll-out.
    pub rollout: Rollout,
    /// What all replicas have counted since its step began, as far as this one knows.
    pub observed: RolloutObserved,
    /// What that says of each guard, in their order.
    pub judgements: Vec<Judgement>,
    /// What was said of the guards since the roll-out began, oldest first.
    pub history: Vec<Point>,
}

/// The guards at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// When.
    pub at: Timestamp,
    /// The step.
    pub step: usize,
    /// The likeliest value of each guard, in the judgements' unit.
    pub estimates: Vec<Option<f64>>,
}

/// The most points of a history. Beyond it every second one goes, and half as many come.
const POINTS: usize = 300;

/// Points of a chart, evenly spread over however long it lasts.
#[derive(Debug, Default)]
pub(super) struct History {
    points: VecDeque<Point>,
    /// One of so many is kept.
    every: usize,
    seen: usize,
}

impl History {
    fn note(&mut self, point: Point) {
        self.every = self.every.max(1);
        if self.seen.is_multiple_of(self.every) {
            self.points.push_back(point);
        }
        self.seen += 1;
        if self.points.len() > POINTS {
            let mut keep = false;
            self.points.retain(|_| {
                keep = !keep;
                keep
            });
            self.every *= 2;
        }
    }
}

/// A handle's counts since a moment.
struct Since<M, C> {
    metrics: Arc<M>,
    before: C,
}

/// What a roll-out's stage has brought on this replica.
struct Gauge {
    candidate: Since<VariantMetrics, VariantCounts>,
    others: Vec<Since<VariantMetrics, VariantCounts>>,
    shadow: Since<ShadowMetrics, ShadowCounts>,
}

impl Gauge {
    fn new(world: &World, target: &Target, rollout: &Rollout, metrics: &TrafficMetrics) -> Self {
        let candidate = rollout.spec.to.to_string();
        let variant = |name: &str| {
            let metrics = metrics.variant(&target.route, name);
            Since { before: metrics.counts(), metrics }
        };
        let now = world.routes.get(&target.route).into_iter();
        let targets = now.flat_map(|record| &record.spec.targets).chain(&rollout.before.targets);
        let mut others: Vec<String> = targets.map(|target| target.to.to_string()).collect();
        others.extend(rollout.spec.from.iter().map(ToString::to_string));
        others.sort();
        others.dedup();
        let shadow = metrics.shadow(&target.route, &candidate);
        Gauge {
            others: others.iter().filter(|name| **name != candidate).map(|n| variant(n)).collect(),
            candidate: variant(&candidate),
            shadow: Since { before: shadow.counts(), metrics: shadow },
        }
    }

    fn counts(&self, ready: Readiness) -> RolloutObserved {
        let variant = |since: &Since<VariantMetrics, VariantCounts>| {
            since.metrics.counts().since(&since.before)
        };
        let mut other = VariantCounts::default();
        self.others.iter().for_each(|since| other.merge(&variant(since)));
        RolloutObserved {
            ready,
            candidate: variant(&self.candidate),
            other,
            shadow: self.shadow.metrics.counts().since(&self.shadow.before),
        }
    }
}

/// One roll-out under this replica's eyes. It stays when the roll-out has ended, until the next begins.
pub(super) struct Watch {
    pub(super) target: Target,
    /// Since when this replica knows of it.
    since: Instant,
    gauge: Gauge,
    /// Raised each time this replica's row is written.
    beat: u64,
    /// What other replicas have written, by who they are.
    others: BTreeMap<String, Row>,
    pulse: Pulse,
    /// Everything together.
    pub(super) observed: RolloutObserved,
    judgements: Vec<Judgement>,
    history: History,
    /// Whether what it left in the store has been removed.
    pub(super) is_cleared: bool,
}

impl Watch {
    /// Begins to count a roll-out's stage. `earlier` is what is known of its earlier stages.
    pub(super) fn begin(
        (world, target, rollout): (&World, Target, &Rollout),
        earlier: Option<Watch>,
        metrics: &TrafficMetrics,
        now: Instant,
    ) -> Self {
        let gauge = Gauge::new(world, &target, rollout, metrics);
        let earlier = earlier.filter(|earlier| earlier.target.id == target.id);
        let (since, history) = earlier
            .map_or_else(|| (now, History::default()), |earlier| (earlier.since, earlier.history));
        Watch {
            target,
            since,
            gauge,
            beat: 0,
            others: BTreeMap::new(),
            pulse: Pulse::default(),
            observed: RolloutObserved::default(),
            judgements: Vec::new(),
            history,
            is_cleared: false,
        }
    }

    /// Returns for how long this replica has known of the roll-out, and what there is to load.
    pub(super) fn age(&self, looked_at: Instant, now: Instant) -> Duration {
        now.saturating_duration_since(self.since.max(looked_at))
    }

    /// Counts what this replica has seen, and returns what to write of it.
    pub(super) fn look(&mut self, ready: Readiness) -> Row {
        self.beat += 1;
        Row { beat: self.beat, observed: self.gauge.counts(ready) }
    }

    /// Notes what the store holds of the other replicas.
    pub(super) fn note_others(&mut self, rows: BTreeMap<String, Row>) {
        self.others = rows;
    }

    /// Adds up and judges. A replica whose row has not changed for `limit` is gone.
    pub(super) fn judge(
        &mut self,
        (own, rollout): (&Row, &Rollout),
        (now, at): (Instant, Timestamp),
        limit: Duration,
    ) {
        let mut rows = vec![(&own.observed, true)];
        for (replica, row) in &self.others {
            let lives = self.pulse.note(replica, row.beat, now) < limit;
            rows.push((&row.observed, lives));
        }
        self.observed = sum(rows);
        self.judgements = judge(rollout, &self.observed);
        let estimates = self.judgements.iter().map(|judgement| judgement.estimate).collect();
        self.history.note(Point { at, step: rollout.step, estimates });
    }

    /// Returns it for people.
    pub(super) fn status(&self, rollout: &Rollout) -> RolloutStatus {
        RolloutStatus {
            route: self.target.route.clone(),
            rollout: rollout.clone(),
            observed: self.observed.clone(),
            judgements: self.judgements.clone(),
            history: self.history.points.iter().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_bounded_and_reaches_from_the_first_point_to_the_last() {
        let mut history = History::default();
        for at in 0..10_000 {
            history.note(Point { at: Timestamp(at), step: 0, estimates: Vec::new() });
            assert!(history.points.len() <= POINTS, "{at}");
        }
        let at: Vec<i64> = history.points.iter().map(|point| point.at.0).collect();
        assert_eq!(at[0], 0);
        let gaps: Vec<i64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| *gap == gaps[0]), "they are evenly spread");
        assert!(
            at.len() > POINTS / 2 - 2 && at.last().is_some_and(|last| 10_000 - last <= gaps[0])
        );
    }
}
