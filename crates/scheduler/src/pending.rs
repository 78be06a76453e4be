//! Waiting requests in groups of equal shape, and the pure rule that forms batches from them.
//!
//! Within a group the more urgent come first, then those that came first. A batch is always the
//! beginning of a group, so whatever is urgent goes first and whatever fits fills the room it left.
//!
//! No clock, no lock and no thread in here: `now` and what the instances are doing are passed in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::Level;

/// What the rule needs to know of a waiting request.
pub(crate) trait Queued {
    /// Returns the rows it adds to a batch.
    fn rows(&self) -> usize;

    /// Returns when it was submitted.
    fn enqueued(&self) -> Instant;

    /// Returns how urgent it is.
    fn level(&self) -> Level;

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

/// The requests that wait for an instance, grouped by shape, each group in order of level and arrival.
#[derive(Debug)]
pub(crate) struct Pending<W> {
    groups: Vec<VecDeque<W>>,
}

impl<W> Default for Pending<W> {
    fn default() -> Self {
        Pending { groups: Vec::new() }
    }
}

impl<W: Queued> Pending<W> {
    /// Adds a request to the group it fits into, behind all that are as urgent or more. With
    /// `max_rows` 1 nothing is ever batched, so all requests share one group and no shapes are
    /// compared.
    pub(crate) fn push(&mut self, work: W, rule: &Rule) {
        let fits = |group: &VecDeque<W>| {
            rule.max_rows <= 1 || group.front().is_some_and(|head| head.fits(&work))
        };
        match self.groups.iter_mut().find(|group| fits(group)) {
            Some(group) if group.back().is_none_or(|last| last.level() <= work.level()) => {
                group.push_back(work);
            }
            Some(group) => {
                let place = group.partition_point(|earlier| earlier.level() <= work.level());
                group.insert(place, work);
            }
            None => self.groups.push(VecDeque::from([work])),
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
    pub(crate) fn decide(&self, rule: &Rule, observed: &Observed, now: Instant) -> Decision {
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
            let level = group.front().map(Queued::level).unwrap_or_default();
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
        let taken = self.groups[group].drain(..requests).collect();
        if self.groups[group].is_empty() {
            self.groups.swap_remove(group);
        }
        taken
    }

    /// Removes the requests for which `dead` says so and hands each to `bury`.
    pub(crate) fn remove(&mut self, mut dead: impl FnMut(&W) -> bool, mut bury: impl FnMut(W)) {
        for group in &mut self.groups {
            if group.iter().any(&mut dead) {
                for work in std::mem::take(group) {
                    if dead(&work) {
                        bury(work);
                    } else {
                        group.push_back(work);
                    }
                }
            }
        }
        self.groups.retain(|group| !group.is_empty());
    }

    /// Groups by the urgency of their heads, then by their age, so that no shape starves another of
    /// its level.
    fn by_urgency(&self) -> impl Iterator<Item = (usize, &VecDeque<W>)> {
        let mut order: Vec<(usize, &VecDeque<W>)> = self.groups.iter().enumerate().collect();
        order.sort_by_key(|(_, group)| group.front().map(|head| (head.level(), head.enqueued())));
        order.into_iter()
    }
}

/// The most requests from the head of a group that keep to `share` requests and `max_rows` rows,
/// at least one, with their rows. A request without rows still takes a place.
fn prefix<W: Queued>(group: &VecDeque<W>, share: usize, max_rows: usize) -> (usize, usize) {
    let mut requests = 0;
    let mut rows = 0_usize;
    for work in group.iter().take(share) {
        let with_this = work.rows().max(1).saturating_add(rows);
        if requests > 0 && with_this > max_rows {
            break;
        }
        requests += 1;
        rows = with_this;
    }
    (requests, rows)
}

/// Until when a batch of this whole group may be held open, if a request is on its way.
fn hold_open<W: Queued>(group: &VecDeque<W>, rule: &Rule, observed: &Observed) -> Option<Instant> {
    let announced = observed.announced?;
    group.front().filter(|head| head.fits(head))?;
    // The head is not the oldest where something more urgent came later.
    let oldest = group.iter().map(Queued::enqueued).min()?;
    // An announcement that leads to nothing (a client that stalls) holds batches open only once.
    Some(oldest.min(announced) + rule.max_delay)
}

#[cfg(test)]
mod tests;
