//! The loop: read the store's world, exchange counts, judge, step roll-outs, ask advisors.
//!
//! One replica at a time steps roll-outs: the one that holds the lease. Were there two for a moment, the store
//! would refuse the second one's change. A replica that cannot reach the store judges by its own counts and
//! what it last knew of the others', and takes nothing from that but a rollback.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::{Duration, Instant};

use outhaul_state::Record;
use outhaul_types::{Destination, ModelName, error_chain};
use tokio::sync::watch as signal;
use tokio::time::MissedTickBehavior;

use super::agree::SPACE;
use super::{Talk, Traffic, TrafficError, command_of, instant};
use crate::plan::{Input, Observed, Readiness, RolloutObserved, decide};
use crate::sync::{self, Lease, Row, Target};
use crate::world::{Rollout, RolloutSpec};

const LEASE: &str = "lease";

/// How often something is removed from a journal that is too long.
const TRIM: Duration = Duration::from_secs(60);

/// Runs until it is told to stop or nobody holds `traffic` any more.
pub(super) async fn run(traffic: Weak<Traffic>, mut stopped: signal::Receiver<bool>) {
    let Some(interval) = traffic.upgrade().map(|traffic| traffic.config.interval) else { return };
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
        let Some(traffic) = traffic.upgrade() else { return };
        traffic.round().await;
    }
}

/// A roll-out under way, and what this replica has counted of it.
struct Open {
    target: Target,
    rollout: Rollout,
    own: Row,
}

impl Traffic {
    async fn round(&self) {
        self.let_go();
        self.catch_up();
        let Ok(mut talk) = self.turn().await else { return };
        let talk = &mut *talk;
        let mut is_there = self.read(talk).await.is_ok();
        if is_there && let Err(error) = self.flush(talk).await {
            tracing::warn!(error = error_chain(&error), "what is pending is not written yet");
            is_there = false;
        }
        let now = instant();
        let is_due = |last: Option<Instant>, every| last.is_none_or(|last| now - last >= every);
        if is_due(talk.observed_at, self.config.observe) {
            talk.observed_at = Some(now);
            is_there &= self.observe(is_there, now).await;
            let is_holder = is_there && self.holds_lease(talk, now).await;
            self.step(talk, is_there, is_holder).await;
            if is_holder && is_due(talk.advised_at, self.config.advise) {
                talk.advised_at = Some(now);
                self.ask_advisors(talk).await;
            }
            if is_holder && is_due(talk.trimmed_at, TRIM) {
                talk.trimmed_at = Some(now);
                if let Err(error) = self.trim_journal(talk).await {
                    tracing::warn!(error = error_chain(&error), "the journal is not trimmed yet");
                }
            }
            if is_there {
                self.clear_ended().await;
            }
        }
    }

    /// Counts what this replica has seen of each roll-out, tells the others, and judges everything together.
    /// Returns whether the store was there.
    async fn observe(&self, mut is_there: bool, now: Instant) -> bool {
        for open in self.count(now) {
            let Open { target, rollout, own } = open;
            let mut others = None;
            if is_there {
                match self.exchange_rows(&target, &own).await {
                    Ok(rows) => others = Some(rows),
                    Err(_) => is_there = false,
                }
            }
            let at = self.now();
            let mut state = self.state();
            let watch = state.watches.get_mut(&target.route);
            if let Some(watch) = watch.filter(|watch| watch.target == target) {
                if let Some(others) = others {
                    watch.note_others(others);
                }
                watch.judge((&own, &rollout), (now, at), self.config.silence());
            }
        }
        is_there
    }

    fn count(&self, now: Instant) -> Vec<Open> {
        let world = self.world();
        let looked_at = self.looked_at(now);
        let mut open = Vec::new();
        for (route, rollout) in world.rollouts.iter().filter(|(_, rollout)| rollout.is_open()) {
            let mut state = self.state();
            let Some(watch) = state.watches.get_mut(route) else { continue };
            let since = looked_at.map(|looked_at| watch.age(looked_at, now));
            let ready = self.readiness(rollout, since);
            let (target, own) = (watch.target.clone(), watch.look(ready));
            open.push(Open { target, rollout: rollout.clone(), own });
        }
        open
    }

    /// Writes this replica's row, and returns the others'.
    async fn exchange_rows(
        &self,
        target: &Target,
        own: &Row,
    ) -> Result<BTreeMap<String, Row>, TrafficError> {
        let value = serde_json::to_string(own)
            .map_err(|error| TrafficError::NotUnderstood { reason: error.to_string() })?;
        let space = rows_of(&target.id, &target.stage);
        let record = Record { space: space.clone(), key: self.config.replica.clone(), value };
        self.ask("write counts", self.books.put(&record)).await?;
        let rows = self.ask("read counts", self.books.list(&space)).await?;
        let others = rows.into_iter().filter(|(replica, _)| *replica != self.config.replica);
        // What a newer release counts otherwise is left out rather than guessed.
        let read =
            |(replica, row): (String, String)| Some((replica, serde_json::from_str(&row).ok()?));
        Ok(others.filter_map(read).collect())
    }

    /// Since when it is known what there is to load; `None` while it is not.
    fn looked_at(&self, now: Instant) -> Option<Instant> {
        let repository = self.router.repository();
        let has_looked = repository.is_none_or(|repository| repository.has_looked());
        has_looked.then(|| *self.state().looked_at.get_or_insert(now))
    }

    /// Whether the candidate may be sent requests: it is there, and takes and gives what callers are used to.
    fn readiness(&self, rollout: &Rollout, asked_for: Option<Duration>) -> Readiness {
        let RolloutSpec { to, from, .. } = &rollout.spec;
        match self.presence(to, asked_for) {
            Readiness::Ready => match from.as_ref().and_then(|from| self.router.breaks(from, to)) {
                Some(reason) => Readiness::Failed(reason),
                None => Readiness::Ready,
            },
            other => other,
        }
    }

    fn presence(&self, to: &Destination, asked_for: Option<Duration>) -> Readiness {
        let Destination::Model { name, version } = to else { return Readiness::Ready };
        let Some(asked_for) = asked_for else { return Readiness::Loading };
        if let Some((standing, reason)) = self.stands(to) {
            return sync::readiness(to, Some((standing, &reason)), asked_for);
        }
        match self.router.readiness(name.as_str(), version) {
            Ok(_) => Readiness::Ready,
            Err(_) => sync::readiness(to, None, asked_for),
        }
    }

    /// Takes or renews the lease, and returns whether this replica has it.
    async fn holds_lease(&self, talk: &mut Talk, now: Instant) -> bool {
        let had = talk.is_holder;
        let world = self.world();
        // Each generation has an entry at least.
        let is_long = world.generation >= self.config.journal as u64;
        talk.is_holder = (is_long || sync::needs_lease(&world))
            && self.take_lease(talk, now).await.unwrap_or(false);
        if talk.is_holder && !had {
            tracing::info!(
                replica = self.config.replica,
                "this replica steps roll-outs from now on"
            );
        }
        talk.is_holder
    }

    async fn take_lease(&self, talk: &mut Talk, now: Instant) -> Result<bool, TrafficError> {
        let text = self.ask("read the lease", self.books.get(SPACE, LEASE)).await?;
        let found: Option<Lease> = text.as_ref().and_then(|text| serde_json::from_str(text).ok());
        let still = found.as_ref().map(|lease| talk.lease.note(&lease.replica, lease.beat, now));
        let (still, silence) = (still.unwrap_or_default(), self.config.silence());
        match sync::lease(found.as_ref(), still, silence, &self.config.replica) {
            Some(lease) => self.write_lease(&lease, text.as_deref()).await,
            None => Ok(false),
        }
    }

    async fn write_lease(
        &self,
        lease: &Lease,
        expected: Option<&str>,
    ) -> Result<bool, TrafficError> {
        let value = serde_json::to_string(lease)
            .map_err(|error| TrafficError::NotUnderstood { reason: error.to_string() })?;
        let record = Record { space: SPACE.to_owned(), key: LEASE.to_owned(), value };
        self.ask("write the lease", self.books.exchange(&record, expected, &[])).await
    }

    /// Lets another replica have the lease without waiting for this one to be silent.
    pub(super) async fn give_back_lease(&self) {
        let Ok(mut talk) = self.turn().await else { return };
        if !std::mem::take(&mut talk.is_holder) {
            return;
        }
        let Ok(Some(text)) = self.ask("read the lease", self.books.get(SPACE, LEASE)).await else {
            return;
        };
        let found: Option<Lease> = serde_json::from_str(&text).ok();
        if let Some(lease) = found.filter(|lease| lease.replica == self.config.replica) {
            let free = Lease { replica: String::new(), beat: lease.beat + 1 };
            // Where this fails, the others wait until this replica has been silent for long enough.
            let _ = self.write_lease(&free, Some(&text)).await;
        }
    }

    /// Lets the plan decide about each roll-out.
    async fn step(&self, talk: &mut Talk, is_there: bool, is_holder: bool) {
        if is_there && !is_holder {
            return;
        }
        let world = self.world();
        for (route, rollout) in world.rollouts.iter().filter(|(_, rollout)| rollout.is_open()) {
            let Some(target) = Target::in_world(&world, route) else { continue };
            let Some(observed) = self.observed(route, &target) else { continue };
            let input = Input::Tick(Observed { rollouts: [(route.clone(), observed)].into() });
            let decision = match decide(&world, &input, self.now()) {
                Ok(Some(decision)) => decision,
                Ok(None) => continue,
                Err(refusal) => {
                    tracing::warn!(%route, %refusal, "a roll-out cannot be stepped");
                    continue;
                }
            };
            if sync::rolls_back(&world, &decision.world, route) {
                tracing::warn!(%route, rollout = rollout.id, "rolled back");
                // Refused here means that it has been taken back meanwhile.
                let _ = self.put_off(&input, route);
            }
            if is_there {
                let stepped = self.change_in(talk, &input, Some(&target)).await;
                if let Err(error) = stepped {
                    tracing::warn!(%route, error = error_chain(&error), "a step is not taken yet");
                }
            }
        }
    }

    fn observed(&self, route: &ModelName, target: &Target) -> Option<RolloutObserved> {
        let state = self.state();
        let watch = state.watches.get(route).filter(|watch| watch.target == *target)?;
        Some(watch.observed.clone())
    }

    async fn ask_advisors(&self, talk: &mut Talk) {
        for advisor in &self.config.advisors {
            let world = self.world();
            for command in advisor.advise(&world, self.now()) {
                let input = command_of(command, advisor.name());
                if let Err(error) = self.change_in(talk, &input, None).await {
                    let advisor = advisor.name();
                    tracing::warn!(advisor, error = error_chain(&error), "advice is not taken");
                }
            }
        }
    }

    /// Removes what replicas have written of roll-outs that have ended.
    async fn clear_ended(&self) {
        let ended: Vec<(ModelName, Rollout)> = {
            let state = self.state();
            let is_left =
                |route: &ModelName| state.watches.get(route).is_some_and(|watch| !watch.is_cleared);
            let ended = state.world.rollouts.iter().filter(|(_, rollout)| !rollout.is_open());
            let left = ended.filter(|(route, _)| is_left(route));
            left.map(|(route, rollout)| (route.clone(), rollout.clone())).collect()
        };
        for (route, rollout) in ended {
            for stage in sync::stages(&rollout) {
                let space = rows_of(&rollout.id, &stage);
                let Ok(rows) = self.ask("read counts", self.books.list(&space)).await else {
                    return;
                };
                for (replica, _) in rows {
                    let gone = self.ask("remove counts", self.books.delete(&space, &replica)).await;
                    if gone.is_err() {
                        return;
                    }
                }
            }
            let mut state = self.state();
            let watch = state.watches.get_mut(&route);
            if let Some(watch) = watch.filter(|watch| watch.target.id == rollout.id) {
                watch.is_cleared = true;
            }
        }
    }
}

fn rows_of(id: &str, stage: &str) -> String {
    format!("outhaul/traffic/observed/{id}/{stage}")
}
