//! The plan: which versions to load and which to let go, as a pure function of what is known.
//!
//! The rules, in full:
//!
//! 1. **Wanted** are the versions that the model's policy chooses among those that are whole, those
//!    that carry a label (where it is moved: the one that it left, until the other answers), and those
//!    that are **held** because a route or a roll-out leads to them. In `explicit` mode a model must have
//!    been asked for, unless the version is held; in any mode a model that was unloaded stays so until it is
//!    asked for. A version that failed does not count towards "the newest N": the next older one is
//!    wanted beside it.
//! 2. A wanted version is **loaded** unless it answers already, is being loaded, or has failed and
//!    its back-off lasts. With a memory budget it is loaded when a request asks for it; pinned models
//!    and held versions at once; and so is a new edition or version of a model that is in memory, which
//!    replaces it.
//! 3. A version that is no longer wanted **goes** once nothing that is wanted of its model is on its
//!    way. The last version of a model that answers goes only when the model is gone or unloaded. A held
//!    version that is in memory stays though its files are gone, or those of the whole model: it goes when it
//!    is no longer held, when the model is unloaded, or when a pipeline takes the model's name. Once out of
//!    memory (after a restart, say) it cannot come back, so the loss is a problem as soon as it is seen.
//! 4. Without a budget every load **starts**. With one, a load starts where a place is free and what
//!    is in memory (what still drains included) is within it and will be, but for this one load. To make room the
//!    version that was used longest ago is **evicted**, except pinned and held ones, those that have not
//!    been in memory for their minimum, and the model's own.
//!
//! Invariant: the same records, policy and instant give the same decision, and a decision that has
//! been carried out gives an empty one until something happens or `wake_at` comes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use outhaul_types::{ModelName, ModelVersion, VersionPolicy};

use crate::record::{Asked, Edition, FoundModel, FoundVersion, ModelRecord, Records};

/// What the reason of a refusal says where a version does not fit into the budget.
pub(crate) const NO_ROOM: &str = "there is no room for it";

/// The rules of the server.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// Whether only what was asked for is loaded.
    pub(crate) explicit: bool,
    /// Bytes that models may take in memory. Set, it makes models load on demand.
    pub(crate) memory_budget: Option<u64>,
    /// How long a version stays in memory at least.
    pub(crate) min_residency: Duration,
    /// Loads that may be under way at a time, where there is a budget.
    pub(crate) parallel_loads: usize,
}

impl Policy {
    /// Returns whether a version waits for a request before it is loaded.
    pub(crate) fn is_on_demand(&self, record: &ModelRecord, version: ModelVersion) -> bool {
        let pinned = record.found.as_ref().is_some_and(|found| found.manifest.loading.pin);
        self.memory_budget.is_some() && !pinned && !record.held.contains(&version)
    }

    fn min_residency(&self, edition: &Edition) -> Duration {
        edition.manifest.loading.min_residency.unwrap_or(self.min_residency)
    }
}

/// A version of a model.
pub(crate) type Id = (ModelName, ModelVersion);

/// What to do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Versions to load, with the bytes that each is expected to take.
    pub(crate) load: Vec<(Id, u64)>,
    /// Versions that are no longer wanted.
    pub(crate) retire: Vec<Id>,
    /// Versions to take out of memory for others.
    pub(crate) evict: Vec<Id>,
    /// Versions that can never be loaded as things are, and why.
    pub(crate) refuse: Vec<(Id, String)>,
    /// When to decide again although nothing happens.
    pub(crate) wake_at: Option<Instant>,
    /// Models to look at again the next time, whatever happens: something of theirs is due.
    pub(crate) unsettled: BTreeSet<ModelName>,
}

impl Decision {
    fn wake(&mut self, name: &ModelName, at: Instant) {
        self.unsettled.insert(name.clone());
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// Decides what to do now. `attention` names the models that something has happened to, or that the
/// last decision left unsettled: with hundreds of models nearly all are left alone nearly always.
pub(crate) fn decide(
    policy: &Policy,
    records: &Records,
    attention: &BTreeSet<ModelName>,
    now: Instant,
) -> Decision {
    let mut decision = Decision::default();
    let mut candidates = Vec::new();
    for name in attention {
        if let Some(record) = records.models.get(name) {
            decide_model(policy, (name, record), now, (&mut decision, &mut candidates));
        }
    }
    decision.unsettled.extend(candidates.iter().map(|candidate| candidate.id.0.clone()));
    // Whoever waits longest comes first; what nobody waits for comes in order of names.
    candidates.sort_by_key(|candidate: &Candidate| {
        (candidate.demanded.is_none(), candidate.demanded, !candidate.replaces)
    });
    Room::new(policy, records, &decision.retire, now).admit(candidates, &mut decision);
    decision
}

/// Returns the versions of a model that ought to be loadable now, were they asked for: those that the
/// policy chooses, those that carry a label and those that are held.
pub(crate) fn chosen(record: &ModelRecord, now: Instant) -> BTreeSet<ModelVersion> {
    // What answers already is no less wanted while its files are being written anew.
    choose(record, |version, found| found.whole_at <= now || record.is_serving(version))
}

/// The choice among the versions that `may` be chosen.
fn choose(
    record: &ModelRecord,
    may: impl Fn(ModelVersion, &FoundVersion) -> bool,
) -> BTreeSet<ModelVersion> {
    let Some(found) = &record.found else { return BTreeSet::new() };
    let whole = |version: &ModelVersion| {
        found.versions.get(version).is_some_and(|found| may(*version, found))
    };
    let held = record.held.iter().copied().filter(whole);
    if let Some(Asked::Load { version: Some(number) }) = record.asked {
        return [ModelVersion(number)].into_iter().filter(whole).chain(held).collect();
    }
    let newest_first = || found.versions.keys().rev().copied().filter(whole);
    let mut chosen: BTreeSet<ModelVersion> = match &found.manifest.versions {
        VersionPolicy::All => newest_first().collect(),
        VersionPolicy::Specific(versions) => versions.iter().copied().filter(whole).collect(),
        VersionPolicy::Latest(count) => {
            let mut sound = 0;
            newest_first()
                .take_while(|version| {
                    let before = sound;
                    sound += usize::from(!has_failed(record, found, *version));
                    before < count.get()
                })
                .collect()
        }
    };
    chosen.extend(found.manifest.labels.values().copied().filter(whole));
    chosen.extend(record.lead().into_values().filter(whole));
    chosen.extend(held);
    chosen
}

/// Returns the versions that ought to be loadable now, and those that are held and outlive their files.
fn wanted(policy: &Policy, record: &ModelRecord, now: Instant) -> BTreeSet<ModelVersion> {
    let mut versions = chosen(record, now);
    versions.extend(record.orphans());
    versions.retain(|version| is_asked_for(policy, record, *version));
    versions
}

fn has_failed(record: &ModelRecord, found: &FoundModel, version: ModelVersion) -> bool {
    let edition = found.edition(version);
    let failure = record.version(version).and_then(|known| known.failure_of(edition.as_ref()?));
    failure.is_some()
}

/// Returns whether a version is to be served, should it be chosen.
fn is_asked_for(policy: &Policy, record: &ModelRecord, version: ModelVersion) -> bool {
    match record.asked {
        Some(Asked::Load { .. }) => true,
        Some(Asked::Unload) => false,
        None => !policy.explicit || record.held.contains(&version),
    }
}

/// Returns whether anything of the model is to be served.
fn is_any_asked_for(policy: &Policy, record: &ModelRecord) -> bool {
    match record.asked {
        Some(Asked::Load { .. }) => true,
        Some(Asked::Unload) => false,
        None => !policy.explicit || !record.held.is_empty(),
    }
}

/// A version that could be loaded now.
struct Candidate {
    id: Id,
    /// Bytes that it will probably take.
    need: u64,
    /// Whether it takes the place of a version or edition of its model that is in memory.
    replaces: bool,
    demanded: Option<Instant>,
}

fn decide_model(
    policy: &Policy,
    (name, record): (&ModelName, &ModelRecord),
    now: Instant,
    (decision, candidates): (&mut Decision, &mut Vec<Candidate>),
) {
    let found = record.found.as_ref();
    if let Some(settling) = found.and_then(|found| next_whole(found, now)) {
        decision.wake(name, settling);
    }
    let asked_for = is_any_asked_for(policy, record);
    if found.is_some_and(|found| found.blocked.is_some()) {
        if !asked_for {
            retire(record, name, (&BTreeSet::new(), false), false, decision);
        }
        return;
    }
    let wanted = wanted(policy, record, now);
    let is_in_memory = record.serving().next().is_some();
    let mut on_its_way = false;
    for &version in &wanted {
        let Some(edition) = found.and_then(|found| found.edition(version)) else { continue };
        let known = record.version(version);
        if known.is_some_and(|known| known.serves(&edition)) {
            continue;
        }
        let is_whole = found.is_some_and(|found| found.versions[&version].whole_at <= now);
        if !is_whole || known.is_some_and(|known| known.loading.is_some()) {
            // Another edition than the wanted one is let finish first: it cannot be interrupted.
            on_its_way = true;
            continue;
        }
        let demanded = known.and_then(|known| known.demanded);
        match known.and_then(|known| known.failure_of(&edition)).map(|failure| failure.retry_at) {
            Some(None) => continue,
            Some(Some(retry_at)) if retry_at > now => {
                decision.wake(name, retry_at);
                continue;
            }
            _ => {}
        }
        let sleeps = policy.is_on_demand(record, version);
        let replaces = is_in_memory && replaces_something(record, &wanted, version);
        if sleeps && demanded.is_none() && !replaces {
            continue;
        }
        on_its_way |= !has_failed_before(record, version, &edition);
        let need = expected_memory(record, version);
        candidates.push(Candidate { id: (name.clone(), version), need, replaces, demanded });
    }
    retire(record, name, (&wanted, asked_for), on_its_way, decision);
}

fn has_failed_before(record: &ModelRecord, version: ModelVersion, edition: &Edition) -> bool {
    record.version(version).is_some_and(|known| known.failure_of(edition).is_some())
}

/// Whether loading `version` lets something else of the model go: an older edition of itself, or a
/// version that is no longer wanted.
fn replaces_something(
    record: &ModelRecord,
    wanted: &BTreeSet<ModelVersion>,
    version: ModelVersion,
) -> bool {
    let found = record.found.as_ref();
    // One that failed is stood in for by an older one.
    let failed = found.is_some_and(|found| has_failed(record, found, version));
    let takes_over = |serving: ModelVersion| {
        serving == version || !wanted.contains(&serving) || failed && serving < version
    };
    let lead = record.lead();
    let labels = found.into_iter().flat_map(|found| &found.manifest.labels);
    let mut moved = labels
        .filter(|(label, declared)| **declared == version && lead.get(*label) != Some(*declared));
    record.serving().any(|(serving, _)| takes_over(serving)) || moved.next().is_some()
}

/// Rule 3: what is no longer wanted goes, unless something is on its way or nothing else answers.
fn retire(
    record: &ModelRecord,
    name: &ModelName,
    (wanted, asked_for): (&BTreeSet<ModelVersion>, bool),
    on_its_way: bool,
    decision: &mut Decision,
) {
    let is_gone = record.found.is_none() || !asked_for;
    if on_its_way && !is_gone {
        return;
    }
    let others_answer = record.serving().any(|(version, _)| wanted.contains(&version));
    let holds_nothing = record.found.as_ref().is_some_and(|found| found.versions.is_empty());
    if !is_gone && !others_answer && !holds_nothing {
        return;
    }
    let unwanted = record.serving().filter(|(version, _)| !wanted.contains(version));
    decision.retire.extend(unwanted.map(|(version, _)| (name.clone(), version)));
}

/// When the next of a model's versions will count as whole.
fn next_whole(found: &FoundModel, now: Instant) -> Option<Instant> {
    found.versions.values().map(|version| version.whole_at).filter(|at| *at > now).min()
}

/// What a version took when it was last in memory, or a guess by the size of its files: it is
/// replaced by a measurement as soon as the version is loaded.
fn expected_memory(record: &ModelRecord, version: ModelVersion) -> u64 {
    let found = record.found.as_ref().and_then(|found| found.versions.get(&version));
    let Some(found) = found else { return 0 };
    let measured = record.version(version).and_then(|known| known.measured.as_ref());
    match measured {
        Some((identity, bytes)) if *identity == found.artefact.identity => *bytes,
        _ => found.artefact.bytes + found.artefact.bytes / 4 + (256 << 10),
    }
}

/// The memory, and what could be taken out of it.
struct Room<'r> {
    policy: &'r Policy,
    records: &'r Records,
    now: Instant,
    /// Bytes of what answers and will go on answering after this decision.
    serving: u64,
    /// Bytes of what drains, what this decision evicts included.
    leaving: u64,
    /// Bytes that are expected of loads under way.
    arriving: u64,
    loads: usize,
    /// What may be evicted, the one used longest ago first. Found when it is first needed.
    evictable: Option<Vec<(Instant, Id, u64)>>,
}

impl<'r> Room<'r> {
    fn new(policy: &'r Policy, records: &'r Records, retire: &[Id], now: Instant) -> Self {
        let versions = || records.models.values().flat_map(|record| record.versions.values());
        let loading = versions().filter_map(|known| known.loading.as_ref());
        let serving: u64 =
            versions().filter_map(|known| Some(known.serving.as_ref()?.memory)).sum();
        let memory = |(name, version): &Id| {
            Some(records.models.get(name)?.version(*version)?.serving.as_ref()?.memory)
        };
        let retired: u64 = retire.iter().filter_map(memory).sum();
        Room {
            policy,
            records,
            now,
            serving: serving - retired,
            leaving: records.leaving + retired,
            arriving: loading.clone().map(|(_, bytes)| bytes).sum(),
            loads: loading.count(),
            evictable: None,
        }
    }

    fn admit(&mut self, candidates: Vec<Candidate>, decision: &mut Decision) {
        let Some(budget) = self.policy.memory_budget else {
            // Nothing is to be held back: the loading threads take one after the other. Deciding anew
            // about a thousand models after each of a thousand loads would take longer than they do.
            decision.load.extend(candidates.into_iter().map(|each| (each.id, each.need)));
            return;
        };
        for candidate in candidates {
            if self.loads >= self.policy.parallel_loads {
                break;
            }
            self.admit_within(budget, candidate, decision);
        }
        // What was measured may be more than what was expected. The last one stays: it was asked for.
        while self.serving > budget && self.on_demand().count() > decision.evict.len() + 1 {
            if !self.evict_one(None, decision) {
                if let Some((name, at)) = self.next_evictable(None) {
                    decision.wake(&name, at);
                }
                break;
            }
        }
    }

    fn admit_within(&mut self, budget: u64, candidate: Candidate, decision: &mut Decision) {
        let Candidate { id, need, replaces, .. } = candidate;
        // What it replaces goes as soon as it answers.
        let replaced = if replaces { self.memory_of(&id.0) } else { 0 };
        let after = |room: &Self| (room.serving + room.arriving + need).saturating_sub(replaced);
        let sparing = replaces.then_some(&id.0);
        // Nothing is let go in vain.
        if after(self).saturating_sub(self.evictable_memory(sparing, decision)) > budget {
            self.cannot_make_room(budget, &id, (sparing, after(self)), decision);
            return;
        }
        while after(self) > budget && self.evict_one(sparing, decision) {}
        // Enough is on its way out. Only one load may go ahead of it; the others have their room kept.
        let nothing_moves = self.arriving == 0 && self.leaving == 0;
        if nothing_moves || self.serving + self.arriving + self.leaving <= budget {
            decision.load.push((id, need));
        }
        self.arriving += need;
        self.loads += 1;
    }

    /// Nothing more can be evicted now: wait, or say that waiting will not help.
    fn cannot_make_room(
        &self,
        budget: u64,
        id: &Id,
        (sparing, after): (Option<&ModelName>, u64),
        decision: &mut Decision,
    ) {
        if let Some((_, at)) = self.next_evictable(sparing) {
            decision.wake(&id.0, at);
            return;
        }
        // What is being loaded or drains will tell when it is done.
        if self.arriving == 0 && self.leaving == 0 {
            let reason = format!(
                "it needs about {} and {NO_ROOM}: the memory budget is {}, of which {} cannot be \
                 let go",
                mebibytes(after.saturating_sub(self.serving)),
                mebibytes(budget),
                mebibytes(self.serving),
            );
            decision.refuse.push((id.clone(), reason));
        }
    }

    fn evictable_memory(&mut self, sparing: Option<&ModelName>, decision: &Decision) -> u64 {
        let evictable = self.evictable(decision);
        let others = evictable.iter().filter(|(_, id, _)| sparing.is_none_or(|name| *name != id.0));
        others.map(|(.., memory)| memory).sum()
    }

    fn evictable(&mut self, decision: &Decision) -> &mut Vec<(Instant, Id, u64)> {
        if self.evictable.is_none() {
            let mut evictable: Vec<_> = self.on_demand().collect();
            evictable.retain(|(may_go, ..)| *may_go <= self.now);
            let mut evictable: Vec<_> = evictable
                .into_iter()
                .map(|(_, last_used, id, memory)| (last_used, id, memory))
                .filter(|(_, id, _)| !decision.retire.contains(id))
                .collect();
            evictable.sort_by(|left, right| right.cmp(left));
            self.evictable = Some(evictable);
        }
        self.evictable.get_or_insert_default()
    }

    fn evict_one(&mut self, sparing: Option<&ModelName>, decision: &mut Decision) -> bool {
        let evictable = self.evictable(decision);
        let Some(position) =
            evictable.iter().rposition(|(_, id, _)| sparing.is_none_or(|name| *name != id.0))
        else {
            return false;
        };
        let (_, id, memory) = evictable.remove(position);
        self.serving -= memory;
        self.leaving += memory;
        decision.evict.push(id);
        true
    }

    /// Everything in memory that is neither pinned nor held: when it may go, when it was used, what it takes.
    fn on_demand(&self) -> impl Iterator<Item = (Instant, Instant, Id, u64)> {
        self.records.models.iter().flat_map(|(name, record)| {
            record.serving().filter_map(|(version, serving)| {
                let stays = serving.edition.manifest.loading.pin || record.held.contains(&version);
                let may_go = serving.since + self.policy.min_residency(&serving.edition);
                let id = (name.clone(), version);
                (!stays).then_some((may_go, serving.last_used, id, serving.memory))
            })
        })
    }

    fn next_evictable(&self, sparing: Option<&ModelName>) -> Option<(ModelName, Instant)> {
        let others =
            self.on_demand().filter(|(_, _, id, _)| sparing.is_none_or(|name| *name != id.0));
        let later = others.filter(|(may_go, ..)| *may_go > self.now);
        later.map(|(may_go, _, id, _)| (id.0, may_go)).min_by_key(|(_, may_go)| *may_go)
    }

    fn memory_of(&self, name: &ModelName) -> u64 {
        let record = self.records.models.get(name);
        record.map_or(0, |record| record.serving().map(|(_, serving)| serving.memory).sum())
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// What callers and operators are told of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Dormant,
    Waking,
    Loading,
    Ready,
    Failed(Arc<str>),
    Unloaded,
}

/// Returns what is to be published of a model: every version that answers, ought to, or would if it
/// were asked for.
pub(crate) fn standings(
    policy: &Policy,
    record: &ModelRecord,
    now: Instant,
) -> BTreeMap<ModelVersion, Standing> {
    let mut versions = chosen(record, now);
    versions.extend(record.serving().map(|(version, _)| version));
    if versions.is_empty() {
        // What is still being written is on its way, where nothing else answers.
        versions = choose(record, |_, _| true);
    }
    if let Some(found) = record.found.as_ref().filter(|found| found.blocked.is_some()) {
        versions.extend(found.versions.keys().copied());
    }
    let standing = |version| (version, standing(policy, record, version, now));
    versions.into_iter().map(standing).collect()
}

fn standing(
    policy: &Policy,
    record: &ModelRecord,
    version: ModelVersion,
    now: Instant,
) -> Standing {
    let known = record.version(version);
    if known.is_some_and(|known| known.serving.is_some()) {
        return Standing::Ready;
    }
    if record.found.as_ref().is_some_and(|found| found.blocked.is_some()) {
        // Callers need not know the server's files; operators find the problem itself beside it.
        return Standing::Failed(
            "what is declared of it has problems; see the server's log".into(),
        );
    }
    if !is_asked_for(policy, record, version) {
        return Standing::Unloaded;
    }
    let on_demand = policy.is_on_demand(record, version);
    let is_demanded = known.is_some_and(|known| known.demanded.is_some());
    let edition = record.found.as_ref().and_then(|found| found.edition(version));
    let failure = known.and_then(|known| known.failure_of(edition.as_ref()?));
    // Until it takes over, what it replaces answers.
    let replaces = on_demand
        && record.serving().next().is_some()
        && replaces_something(record, &wanted(policy, record, now), version);
    if let Some(failure) = failure {
        // While it is tried again it has still failed, as far as anybody can tell. On demand it is
        // tried again only when a request asks.
        let may_be_tried = failure.retry_at.is_some_and(|at| at <= now);
        return match (on_demand && may_be_tried && !replaces, is_demanded) {
            (true, true) => Standing::Waking,
            (true, false) => Standing::Dormant,
            (false, _) => Standing::Failed(Arc::clone(&failure.reason)),
        };
    }
    match (on_demand && !replaces, is_demanded) {
        (true, true) => Standing::Waking,
        (true, false) => Standing::Dormant,
        (false, _) => Standing::Loading,
    }
}

#[cfg(test)]
mod tests;
