//! Waiting requests in groups of equal shape, and the pure rule that forms batches from them.
//!
//! Within a group the more urgent come first, and among equally urgent ones those whose callers' turn it
//! is (`fair`): for one caller, those that came first. A batch is always the beginning of a group, so
//! whatever is urgent goes first and whatever fits fills the room it left.
//!
//! No clock, no lock and no thread in here: `now` and what the instances are doing are passed in.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::Level;
use crate::fair::{CallerKey, Claim, Shares};

/// What the rule needs to know of a waiting request.
pub(crate) trait Queued {
    /// Returns how urgent it is, whose it is, and the rows it adds to a batch.
    fn claim(&self) -> Claim;

    /// Returns when it was submitted.
    fn enqueued(&self) -> Instant;

    /// Returns whether it may share a batch with `other`: all inputs agree in every dimension but
    /// the rows. One that shares with nobody does not fit itself either.
    fn fits(&self, other: &Self) -> bool;
}

/// The limits of one model's batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The most rows of one batch. A single request with more runs alone. 1 turns batching off.
    pub max_rows: usize,
    /// The longest that a batch is held open for requests that are on their way.
    pub max_delay: Duration,
}

/// What the instances and listeners are doing at the time of a decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed {
    /// Instances that run nothing, the deciding one included.
    pub(crate) idle: usize,
    /// When the newest of the requests that are still being read was announced, if there is one.
    pub(crate) announced: Option<Instant>,
}

/// What an idle instance is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Run the first `requests` requests of group `group`.
    Run {
        /// Position of the group.
        group: usize,
        /// How many of its requests, at least one.
        requests: usize,
    },
    /// Look again at this instant, or when something arrives.
    WaitUntil(Instant),
    /// Nothing waits.
    Sleep,
}

/// A request with its place in the order.
#[derive(Debug)]
struct Waiting<W> {
    work: W,
    start: u64,
    /// Whether it begins the next batch, whatever else waits.
    promoted: bool,
}

impl<W: Queued> Waiting<W> {
    /// Its place: what has a lower one goes first.
    fn place(&self) -> (Level, u64) {
        match self.promoted {
            true => (Level::MOST_URGENT, 0),
            false => (self.work.claim().level, self.start),
        }
    }
}

/// The requests that wait for an instance, grouped by shape, each group in order of its places.
#[derive(Debug)]
pub(crate) struct Pending<W> {
    groups: Vec<VecDeque<Waiting<W>>>,
    shares: Shares,
    /// Whether levels are strict without end.
    strict: bool,
    /// What each caller holds, for as long as somebody is looked for who gives way.
    held: HashMap<CallerKey, Held>,
}

/// The places that a caller holds, and its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    places: u64,
    weight: u64,
}

impl Held {
    /// Whether the caller holds more than another, for its weight.
    fn exceeds(self, other: Held) -> bool {
        let each = |left: Held, right: Held| u128::from(left.places) * u128::from(right.weight);
        each(self, other) > each(other, self)
    }
}

impl<W: Queued> Pending<W> {
    /// Makes an empty one. Where levels are not `strict`, none waits without end.
    pub(crate) fn new(strict: bool) -> Self {
        let (groups, shares, held) = (Vec::new(), Shares::default(), HashMap::new());
        Pending { groups, shares, strict, held }
    }

    /// Adds a request to the group it fits into, at its place. With `max_rows` 1 nothing is ever batched,
    /// so all requests share one group and no shapes are compared.
    pub(crate) fn push(&mut self, work: W, rule: &Rule) {
        let claim = work.claim();
        let first = || first_start(&self.groups, claim.level);
        let start = self.shares.enter(&claim, first);
        let place = (claim.level, start);
        let fits = |group: &VecDeque<Waiting<W>>| {
            rule.max_rows <= 1 || group.front().is_some_and(|head| head.work.fits(&work))
        };
        let group = self.groups.iter_mut().find(|group| fits(group));
        let waiting = Waiting { work, start, promoted: false };
        match group {
            Some(group) if group.back().is_none_or(|last| last.place() <= place) => {
                group.push_back(waiting);
            }
            Some(group) => {
                let index = group.partition_point(|other| other.place() <= place);
                group.insert(index, waiting);
            }
            None => self.groups.push(VecDeque::from([waiting])),
        }
    }

    /// Returns the number of waiting requests.
    pub(crate) fn len(&self) -> usize {
        self.groups.iter().map(VecDeque::len).sum()
    }

    /// Returns whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Decides what the asking idle instance is to do. The rule is stated at the crate's front.
    pub(crate) fn decide(&mut self, rule: &Rule, observed: &Observed, now: Instant) -> Decision {
        if !self.strict
            && let Some(level) = self.shares.due()
        {
            self.promote(level);
        }
        let waiting = self.len();
        // The most urgent group that could be held open, and until when the first of them may be.
        let mut held: Option<(Level, Decision)> = None;
        let mut wake: Option<Instant> = None;
        for (index, group) in self.by_urgency() {
            let others_idle = observed.idle.saturating_sub(1);
            let elsewhere = waiting - group.len();
            // Idle instances that could only be fed from this group share it evenly with us.
            let sharers = 1 + others_idle.saturating_sub(elsewhere);
            let share = group.len().div_ceil(sharers);
            let (requests, rows) = prefix(group, share, rule.max_rows);
            let has_room = requests == group.len() && rows < rule.max_rows;
            let open_until = match has_room {
                true => hold_open(group, rule, observed).filter(|until| now < *until),
                false => None,
            };
            let level = group.front().map(|head| head.place().0).unwrap_or_default();
            let run = Decision::Run { group: index, requests };
            match (open_until, held) {
                (None, None) => return run,
                // Something could run, so nothing more urgent waits for what is on its way.
                (None, Some((urgent, more_urgent))) => {
                    return if urgent < level { more_urgent } else { run };
                }
                (Some(until), _) => {
                    held = held.or(Some((level, run)));
                    wake = Some(wake.map_or(until, |earlier| earlier.min(until)));
                }
            }
        }
        wake.map_or(Decision::Sleep, Decision::WaitUntil)
    }

    /// Takes the requests that [`Pending::decide`] chose.
    pub(crate) fn take(&mut self, group: usize, requests: usize) -> Vec<W> {
        let shares = &mut self.shares;
        let mut served = |Waiting { work, start, .. }: Waiting<W>| {
            shares.serve(&work.claim(), start);
            work
        };
        let taken: Vec<W> = self.groups[group].drain(..requests).map(&mut served).collect();
        if let Some(head) = taken.first() {
            self.shares.begin(head.claim().level);
        }
        if self.groups[group].is_empty() {
            self.groups.swap_remove(group);
        }
        taken
    }

    /// Removes the requests for which `dead` says so and hands each to `bury`.
    pub(crate) fn remove(&mut self, mut dead: impl FnMut(&W) -> bool, mut bury: impl FnMut(W)) {
        for group in &mut self.groups {
            if group.iter().any(|waiting| dead(&waiting.work)) {
                for waiting in std::mem::take(group) {
                    if dead(&waiting.work) {
                        self.shares.withdraw(&waiting.work.claim(), waiting.start);
                        bury(waiting.work);
                    } else {
                        group.push_back(waiting);
                    }
                }
            }
        }
        self.groups.retain(|group| !group.is_empty());
    }

    /// Takes out the request that is to give its place to a newcomer, if there is one: where another
    /// caller holds more for its weight than the newcomer's would then, that caller's newest of its least
    /// urgent ones; where none does, a less urgent one of the newcomer's own caller. Only what `may` give
    /// way counts.
    pub(crate) fn displace(&mut self, newcomer: Claim, may: impl Fn(&W) -> bool) -> Option<W> {
        let caller = self.holds_most(newcomer, &may);
        let gives_way = |waiting: &Waiting<W>| {
            let claim = waiting.work.claim();
            let lower = claim.level > newcomer.level;
            claim.caller == caller && (lower || caller != newcomer.caller) && may(&waiting.work)
        };
        let all = self.groups.iter().enumerate().flat_map(|(group, waiting)| {
            waiting.iter().enumerate().map(move |(index, waiting)| (group, index, waiting))
        });
        let (group, index, _) = all
            .filter(|(.., waiting)| gives_way(waiting))
            .max_by_key(|(.., waiting)| (waiting.work.claim().level, waiting.start))?;
        let Waiting { work, start, .. } = self.groups[group].remove(index)?;
        if self.groups[group].is_empty() {
            self.groups.swap_remove(group);
        }
        self.shares.withdraw(&work.claim(), start);
        Some(work)
    }

    /// The caller that holds most for its weight, the newcomer counted in; among equals the newcomer's.
    fn holds_most(&mut self, newcomer: Claim, may: impl Fn(&W) -> bool) -> CallerKey {
        self.held.clear();
        let waiting = self.groups.iter().flatten().map(|waiting| &waiting.work);
        let claims = waiting.filter(|work| may(work)).map(Queued::claim);
        for claim in claims.chain([newcomer]) {
            let weight = u64::from(claim.weight.max(1));
            let held = self.held.entry(claim.caller).or_insert(Held { places: 0, weight });
            held.places += 1;
        }
        let own = (newcomer.caller, self.held[&newcomer.caller]);
        let more = |most: (CallerKey, Held), (caller, held): (&CallerKey, &Held)| {
            if held.exceeds(most.1) { (*caller, *held) } else { most }
        };
        self.held.iter().fold(own, more).0
    }

    /// Lets the next batch begin with the first request of a level, unless one is promoted already.
    fn promote(&mut self, level: Level) {
        let heads = || self.groups.iter().filter_map(VecDeque::front);
        if heads().any(|head| head.promoted) {
            return;
        }
        let of_level = |waiting: &Waiting<W>| waiting.work.claim().level == level;
        let found = self.groups.iter().enumerate().filter_map(|(group, waiting)| {
            let index = waiting.iter().position(of_level)?;
            Some((waiting[index].start, group, index))
        });
        if let Some((_, group, index)) = found.min()
            && let Some(waiting) = self.groups[group].remove(index)
        {
            self.groups[group].push_front(Waiting { promoted: true, ..waiting });
        }
    }

    /// Forgets what callers were served, at a time when nothing waits and nothing runs.
    pub(crate) fn rest(&mut self) {
        self.shares.rest();
    }

    /// Groups by the places of their heads, so that no shape starves another of its level.
    fn by_urgency(&self) -> impl Iterator<Item = (usize, &VecDeque<Waiting<W>>)> {
        let mut order: Vec<(usize, &VecDeque<Waiting<W>>)> =
            self.groups.iter().enumerate().collect();
        order.sort_by_key(|(_, group)| {
            group.front().map(|head| (head.place(), head.work.enqueued()))
        });
        order.into_iter()
    }
}

/// The lowest start tag that waits at a level.
fn first_start<W: Queued>(groups: &[VecDeque<Waiting<W>>], level: Level) -> Option<u64> {
    let first = |group: &VecDeque<Waiting<W>>| {
        let index = group.partition_point(|waiting| waiting.place().0 < level);
        // A promoted one may stand before those of the most urgent level.
        let mut from = group.iter().skip(index).take(2);
        from.find(|waiting| waiting.work.claim().level == level).map(|waiting| waiting.start)
    };
    groups.iter().filter_map(first).min()
}

/// The most requests from the head of a group that keep to `share` requests and `max_rows` rows,
/// at least one, with their rows. A request without rows still takes a place.
fn prefix<W: Queued>(
    group: &VecDeque<Waiting<W>>,
    share: usize,
    max_rows: usize,
) -> (usize, usize) {
    let mut requests = 0;
    let mut rows = 0_usize;
    for waiting in group.iter().take(share) {
        let with_this = waiting.work.claim().rows.max(1).saturating_add(rows);
        if requests > 0 && with_this > max_rows {
            break;
        }
        requests += 1;
        rows = with_this;
    }
    (requests, rows)
}

/// Until when a batch of this whole group may be held open, if a request is on its way.
fn hold_open<W: Queued>(
    group: &VecDeque<Waiting<W>>,
    rule: &Rule,
    observed: &Observed,
) -> Option<Instant> {
    let announced = observed.announced?;
    group.front().filter(|head| head.work.fits(&head.work))?;
    // The head is not the oldest where something more urgent came later.
    let oldest = group.iter().map(|waiting| waiting.work.enqueued()).min()?;
    // An announcement that leads to nothing (a client that stalls) holds batches open only once.
    Some(oldest.min(announced) + rule.max_delay)
}

#[cfg(test)]
mod tests;
