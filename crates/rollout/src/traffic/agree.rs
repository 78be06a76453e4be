//! The way a change takes: read, decide, write if nobody was first, put in place.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use outhaul_router::{RouterError, Standing, VersionStatus};
use outhaul_state::Record;
use outhaul_types::{Destination, ModelName, ModelVersion, RouteSpec, error_chain};
use tokio::time::Instant;

use super::books::Answer;
use super::{Applied, Talk, Traffic, TrafficError};
use crate::journal;
use crate::plan::{Command, Decision, Entry, Input, Refusal, decide};
use crate::sync::{self, Pending, Target};
use crate::world::World;

/// Where the world is.
pub(super) const SPACE: &str = "outhaul/traffic";
const WORLD: &str = "world";

/// How often a change is decided anew because others were first.
const ATTEMPTS: usize = 50;

/// How long a change waits for its turn to speak with the store.
const TURN: Duration = Duration::from_secs(5);

/// How often a version that a route waits for is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The world as the store was last seen to hold it.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// What it holds, letter by letter.
    pub(super) text: Option<String>,
    pub(super) world: Arc<World>,
}

/// How a try to write a decision ended.
enum Written {
    /// It is there.
    Done,
    /// Somebody else was first.
    Late,
}

impl Traffic {
    /// Decides and writes. With `target`, only as long as the roll-out stands there.
    pub(super) async fn change(
        &self,
        input: &Input,
        target: Option<&Target>,
    ) -> Result<Applied, TrafficError> {
        let mut talk = self.turn().await?;
        self.change_in(&mut talk, input, target).await
    }

    /// As [`change`](Self::change), in a conversation that is under way.
    pub(super) async fn change_in(
        &self,
        talk: &mut Talk,
        input: &Input,
        target: Option<&Target>,
    ) -> Result<Applied, TrafficError> {
        for _ in 0..ATTEMPTS {
            self.read(talk).await?;
            self.flush(talk).await?;
            let known = self.state().known.clone();
            if target.is_some_and(|target| !sync::fits(&known.world, target)) {
                return Ok(self.applied(Vec::new()));
            }
            let Some(decision) = decide(&known.world, input, self.now())? else {
                return Ok(self.applied(Vec::new()));
            };
            if let Input::Command { command, .. } = input {
                sync::check_size(command, &known.world, &decision.world)?;
            }
            let records = self.records(&decision)?;
            match self.write(talk, &known, &decision, &records).await? {
                Written::Done => return Ok(self.applied(decision.entries)),
                Written::Late => {}
            }
        }
        Err(TrafficError::Contended)
    }

    /// Puts a change in place that cannot wait, and then writes it if the store can be had soon.
    pub(super) async fn change_at_once(
        &self,
        input: Input,
        route: &ModelName,
    ) -> Result<Applied, TrafficError> {
        let mut entries = self.put_off(&input, route);
        let writing = async {
            let mut talk = self.turn().await?;
            self.read(&mut talk).await?;
            if !matches!(entries, Ok(Some(_))) {
                // Others may have known more of it.
                entries = self.put_off(&input, route);
            }
            self.flush(&mut talk).await
        };
        // What is not written by then is written by the loop; what is, is pending no more.
        let _ = tokio::time::timeout(self.config.patience, writing).await;
        Ok(self.applied(entries?.unwrap_or_default()))
    }

    /// Decides on the world in effect here and puts that in place, to be written later. `None`: nothing would
    /// change.
    pub(super) fn put_off(
        &self,
        input: &Input,
        route: &ModelName,
    ) -> Result<Option<Vec<Entry>>, Refusal> {
        let at = self.now();
        let mut state = self.state();
        let Some(decision) = decide(&state.world, input, at)? else { return Ok(None) };
        let entries = decision.entries;
        let of = Target::in_world(&state.world, route);
        state.pending.push(Pending {
            input: input.clone(),
            at,
            of,
            entries: entries.clone(),
            tried: None,
        });
        self.put_in_place(&mut state);
        Ok(Some(entries))
    }

    /// Waits for the turn to speak with the store.
    pub(super) async fn turn(&self) -> Result<tokio::sync::MutexGuard<'_, Talk>, TrafficError> {
        let turn = tokio::time::timeout(TURN, self.talk.lock()).await;
        turn.map_err(|_| TrafficError::Unavailable {
            reason: "earlier calls to the store have not ended".to_owned(),
        })
    }

    /// Reads the store's world and puts it in place if it is another.
    pub(super) async fn read(&self, talk: &mut Talk) -> Result<(), TrafficError> {
        let read = self.read_once().await;
        self.note_presence(talk, read.as_ref().err());
        read
    }

    async fn read_once(&self) -> Result<(), TrafficError> {
        let text = self.ask("read the routes", self.books.get(SPACE, WORLD)).await?;
        let known = self.state().known.clone();
        match text {
            text if text == known.text => Ok(()),
            // Somebody emptied the store. What is in effect is not lost for it.
            None => {
                let world = known.text.clone().unwrap_or_default();
                let world = record(WORLD, world);
                let lost = self.books.exchange(&world, None, &[]);
                self.ask("write the routes anew", lost).await.map(drop)
            }
            Some(text) => {
                let world: World = serde_json::from_str(&text)
                    .map_err(|error| TrafficError::NotUnderstood { reason: error.to_string() })?;
                self.take_over(text, world);
                Ok(())
            }
        }
    }

    fn take_over(&self, text: String, world: World) {
        let mut state = self.state();
        state.known = Known { text: Some(text), world: Arc::new(world) };
        self.put_in_place(&mut state);
    }

    /// Writes what is pending, oldest first. The store's world has just been read.
    pub(super) async fn flush(&self, talk: &mut Talk) -> Result<(), TrafficError> {
        for _ in 0..ATTEMPTS {
            let (known, first) = {
                let state = self.state();
                (state.known.clone(), state.pending.first().cloned())
            };
            let Some(pending) = first else { return Ok(()) };
            if let Some((key, value)) = &pending.tried {
                let found = self.books.get(journal::SPACE, key);
                if self.ask("read the journal", found).await?.as_ref() == Some(value) {
                    self.forget_first();
                    continue;
                }
            }
            let decision = sync::decide_again(&known.world, &pending);
            let records = self.records(&decision)?;
            if let Some(first) = self.state().pending.first_mut() {
                first.tried =
                    records.first().map(|record| (record.key.clone(), record.value.clone()));
            }
            // In one step: the store's world has it now, and it is pending no more.
            match self.write_flushed(talk, &known, &decision, &records).await? {
                Written::Done => {}
                Written::Late => self.read(talk).await?,
            }
        }
        Err(TrafficError::Contended)
    }

    /// The store's world, as read after the last try, has the oldest pending change.
    fn forget_first(&self) {
        let mut state = self.state();
        if !state.pending.is_empty() {
            state.pending.remove(0);
        }
        self.put_in_place(&mut state);
    }

    fn records(&self, decision: &Decision) -> Result<Vec<Record>, TrafficError> {
        let generation = decision.world.generation;
        let records = journal::records(generation, &decision.entries, &self.config.replica);
        records.map_err(not_understood)
    }

    async fn write_flushed(
        &self,
        talk: &mut Talk,
        known: &Known,
        decision: &Decision,
        records: &[Record],
    ) -> Result<Written, TrafficError> {
        let (written, text) = self.exchange(talk, known, decision, records).await?;
        if matches!(written, Written::Done) {
            let mut state = self.state();
            state.pending.remove(0);
            state.known = Known { text: Some(text), world: Arc::new(decision.world.clone()) };
            self.put_in_place(&mut state);
        }
        Ok(written)
    }

    async fn write(
        &self,
        talk: &mut Talk,
        known: &Known,
        decision: &Decision,
        records: &[Record],
    ) -> Result<Written, TrafficError> {
        let (written, text) = self.exchange(talk, known, decision, records).await?;
        if matches!(written, Written::Done) {
            self.take_over(text, decision.world.clone());
        }
        Ok(written)
    }

    /// Writes a decision and its entries if the store still holds `known`.
    async fn exchange(
        &self,
        talk: &mut Talk,
        known: &Known,
        decision: &Decision,
        records: &[Record],
    ) -> Result<(Written, String), TrafficError> {
        let text = serde_json::to_string(&decision.world).map_err(not_understood)?;
        let world = record(WORLD, text.clone());
        let exchange = self.books.exchange(&world, known.text.as_deref(), records);
        let outcome = match self.ask("write the routes", exchange).await {
            Ok(done) => Ok(done),
            // It may have been written all the same: the journal tells.
            Err(error) => match records.first() {
                Some(first) => {
                    let found = self.books.get(journal::SPACE, &first.key);
                    match self.ask("read the journal", found).await {
                        Ok(found) if found.as_ref() == Some(&first.value) => Ok(true),
                        _ => Err(error),
                    }
                }
                None => Err(error),
            },
        };
        self.note_presence(talk, outcome.as_ref().err());
        Ok((if outcome? { Written::Done } else { Written::Late }, text))
    }

    /// Awaits one call to the store, for as long as patience lasts.
    pub(super) async fn ask<T>(
        &self,
        attempt: &str,
        call: Answer<'_, T>,
    ) -> Result<T, TrafficError> {
        let reason = match tokio::time::timeout(self.config.patience, call).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error_chain(&error),
            Err(_) => format!("could not {attempt} within {:?}", self.config.patience),
        };
        Err(TrafficError::Unavailable { reason })
    }

    /// Tells once when the store goes away and once when it is back.
    fn note_presence(&self, talk: &mut Talk, error: Option<&TrafficError>) {
        let was_away = std::mem::replace(&mut talk.is_away, error.is_some());
        match (was_away, error) {
            (false, Some(error)) => {
                let reason = match error {
                    TrafficError::Unavailable { reason } => reason,
                    TrafficError::NotUnderstood { reason } => reason,
                    _ => "",
                };
                tracing::error!(reason, "{error}");
            }
            (true, None) => tracing::info!("the state store is back"),
            _ => {}
        }
    }

    pub(super) fn applied(&self, entries: Vec<Entry>) -> Applied {
        let state = self.state();
        Applied { world: Arc::clone(&state.world), entries, kept: state.pending.is_empty() }
    }

    /// Loads what a route is about to lead to and waits until that answers, so that no request meets it
    /// before. What is returned keeps it in memory.
    pub(super) async fn warm(
        &self,
        command: &Command,
    ) -> Result<Option<Warming<'_>>, TrafficError> {
        if self.router.repository().is_none() {
            return Ok(None);
        }
        let (route, spec) = match command {
            Command::SetRoute { route, spec } => (route, spec),
            Command::Start { route, spec, in_service } => {
                self.leads_somewhere(route, spec.from.as_ref().or(in_service.as_ref()))?;
                return Ok(None);
            }
            _ => return Ok(None),
        };
        let led_to: BTreeSet<(ModelName, ModelVersion)> = {
            let state = self.state();
            let route = state.world.routes.get(route).map(|record| &record.spec);
            let exact = route.into_iter().flat_map(|spec| spec.destinations());
            exact.filter_map(Destination::exact).map(|(n, v)| (n.clone(), v)).collect()
        };
        let targets = spec.targets.iter().map(|target| &target.to).chain(spec.pinned.values());
        let new: Vec<Destination> = targets
            .filter(|to| to.exact().is_some_and(|(n, v)| !led_to.contains(&(n.clone(), v))))
            .cloned()
            .collect();
        let warming = Warming::begin(self, &new);
        let began = Instant::now();
        for to in new {
            loop {
                match self.stands(&to) {
                    Some((Standing::Ready, _)) => break,
                    Some((Standing::Failed, reason)) => {
                        return Err(TrafficError::NotReady { to, reason });
                    }
                    _ if began.elapsed() >= self.config.warm => {
                        let reason = "no such version has been loaded in time".to_owned();
                        return Err(TrafficError::NotReady { to, reason });
                    }
                    _ => tokio::time::sleep(LOOK_AGAIN).await,
                }
            }
        }
        self.fits_together(spec)?;
        Ok(Some(warming))
    }

    /// Refuses a roll-out that would lead a route to what does not answer before it has begun.
    fn leads_somewhere(
        &self,
        route: &ModelName,
        from: Option<&Destination>,
    ) -> Result<(), TrafficError> {
        let is_routed = self.state().world.routes.contains_key(route);
        match from {
            Some(from) if !is_routed => self.answers(from),
            _ => Ok(()),
        }
    }

    fn answers(&self, to: &Destination) -> Result<(), TrafficError> {
        let not_ready = |error: RouterError| TrafficError::NotReady {
            to: to.clone(),
            reason: error.to_string(),
        };
        self.router.destination_readiness(to).map_err(not_ready)
    }

    /// Refuses a route of which no target answers, or whose targets cannot answer each other's callers.
    fn fits_together(&self, spec: &RouteSpec) -> Result<(), TrafficError> {
        let targets: Vec<&Destination> = spec.targets.iter().map(|target| &target.to).collect();
        let mut answers = targets.iter().map(|to| self.answers(to));
        let first = answers.next().unwrap_or(Ok(()));
        if first.is_err() && !answers.any(|answer| answer.is_ok()) {
            return first;
        }
        for to in targets.iter().skip(1) {
            if let Some(reason) = self.router.breaks(targets[0], to) {
                return Err(TrafficError::Misfit { reason });
            }
        }
        Ok(())
    }

    /// Returns how an exact version stands in the repository; `None` where it is not listed.
    pub(super) fn stands(&self, to: &Destination) -> Option<(Standing, String)> {
        let (name, version) = to.exact()?;
        let is_it = |status: &VersionStatus| status.name == *name && status.version == version;
        let found = self.router.models().into_iter().find(is_it)?;
        Some((found.standing, found.reason))
    }
}

/// Versions that are held for a route that is about to be set. Dropping it lets them go, unless a route leads to
/// them by then.
pub(super) struct Warming<'a> {
    traffic: &'a Traffic,
    versions: Vec<(ModelName, ModelVersion)>,
}

impl<'a> Warming<'a> {
    fn begin(traffic: &'a Traffic, to: &[Destination]) -> Self {
        let exact = to.iter().filter_map(Destination::exact);
        let versions: Vec<_> = exact.map(|(name, version)| (name.clone(), version)).collect();
        let mut state = traffic.state();
        state.warming.extend(versions.iter().cloned());
        traffic.hold(&state);
        Warming { traffic, versions }
    }
}

impl Drop for Warming<'_> {
    fn drop(&mut self) {
        let mut state = self.traffic.state();
        for version in &self.versions {
            // Another may wait for the same one.
            if let Some(index) = state.warming.iter().position(|held| held == version) {
                state.warming.swap_remove(index);
            }
        }
        self.traffic.hold(&state);
    }
}

fn record(key: &str, value: String) -> Record {
    Record { space: SPACE.to_owned(), key: key.to_owned(), value }
}

fn not_understood(error: serde_json::Error) -> TrafficError {
    TrafficError::NotUnderstood { reason: error.to_string() }
}
