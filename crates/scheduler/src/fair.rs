//! Shares of callers: who is next among equally urgent requests.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, "Start-time Fair Queuing: A Scheduling Algorithm for
//! Integrated Services Packet Switching Networks", SIGCOMM 1996), kept for each level of priority apart. A
//! request gets a start tag when it is sorted in: where its caller's last request ends on the level's
//! virtual clock, or, where the caller has nothing waiting, no earlier than that clock shows. It ends its
//! rows divided by its caller's weight later. Requests run in the order of their start tags, and the clock
//! shows the newest tag that ran.
//!
//! Invariants: the tags of one caller never fall, so that its requests stay in order, and one caller alone
//! is served exactly in order of arrival. While two callers both have requests waiting, the rows that each
//! was served, divided by its weight, differ by no more than one request of each
//! (`|Sa/wa - Sb/wb| <= max_a/wa + max_b/wb`, Theorem 1 of the paper).
//!
//! Differences to the paper: a caller with requests waiting keeps its place whatever the clock shows, and a
//! newcomer starts no later than the first request that waits: rows that fill up others' batches run out of
//! order, and nobody is to lose by that. What was never served is not charged.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::Level;

/// Who asks, as far as shares go: equal for requests of one caller. The default is nobody in particular.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallerKey(pub u64);

/// What one row takes of the virtual clock at weight 1: divisible by every number up to 16, so that the usual
/// weights divide it without a rest.
const ROW: u64 = 720_720;

/// The first tag. The one before it is for whoever goes first in any case.
const FIRST: u64 = 1;

/// Batches that may begin with other levels, one after the other, while one waits.
const PATIENCE: u32 = 15;

/// Callers that are remembered at least before those with nothing waiting are forgotten.
const REMEMBERED: usize = 1024;

/// What a request claims: a place in the order, and among the places of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) level: Level,
    pub(crate) caller: CallerKey,
    /// The caller's part, in proportion to the others'; 0 counts as 1.
    pub(crate) weight: u32,
    pub(crate) rows: usize,
}

impl Claim {
    /// What it takes of the virtual clock, never nothing.
    fn cost(&self) -> u64 {
        let rows = u64::try_from(self.rows).unwrap_or(u64::MAX).clamp(1, u64::from(u32::MAX));
        (rows * ROW / u64::from(self.weight.max(1))).max(1)
    }
}

/// Requests of one caller at one level.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    waiting: usize,
    /// Where the newest one ends.
    finish: u64,
    /// Where the newest one that ran ends.
    served: u64,
}

/// One level's virtual clock.
#[derive(Clone, Copy, Debug)]
struct Clock {
    time: u64,
    waiting: usize,
    /// Batches that began with another level since one began with this one, while it waited.
    passed_over: u32,
}

/// The shares of all callers at all levels.
#[derive(Debug)]
pub(crate) struct Shares {
    flows: HashMap<(usize, CallerKey), Flow, BuildHasherDefault<Fold>>,
    clocks: Vec<Clock>,
    /// How many flows are looked through for ones to forget.
    crowd: usize,
}

impl Default for Shares {
    fn default() -> Self {
        Shares { flows: HashMap::default(), clocks: Vec::new(), crowd: REMEMBERED }
    }
}

impl Shares {
    /// Gives a request its start tag. `first` is asked for the lowest tag that waits at the level.
    pub(crate) fn enter(&mut self, claim: &Claim, first: impl FnOnce() -> Option<u64>) -> u64 {
        self.forget_some();
        let index = claim.level.index();
        let fresh = Clock { time: FIRST, waiting: 0, passed_over: 0 };
        if self.clocks.len() <= index {
            self.clocks.resize(index + 1, fresh);
        }
        let clock = &mut self.clocks[index];
        let flow = self.flows.entry((index, claim.caller)).or_default();
        let start = match (flow.waiting, clock.waiting) {
            (0, 0) => flow.finish.max(clock.time),
            (0, _) => flow.finish.max(first().map_or(clock.time, |first| first.min(clock.time))),
            _ => flow.finish,
        };
        flow.finish = start.saturating_add(claim.cost());
        flow.waiting += 1;
        clock.waiting += 1;
        start
    }

    /// Notes that a request is run.
    pub(crate) fn serve(&mut self, claim: &Claim, start: u64) {
        let Some((flow, clock)) = self.leave(claim) else { return };
        flow.served = flow.served.max(start.saturating_add(claim.cost()));
        clock.time = clock.time.max(start);
    }

    /// Notes that a request leaves without having run.
    pub(crate) fn withdraw(&mut self, claim: &Claim, start: u64) {
        let Some((flow, _)) = self.leave(claim) else { return };
        if flow.waiting == 0 {
            flow.finish = flow.served;
        } else if flow.finish == start.saturating_add(claim.cost()) {
            flow.finish = start;
        }
    }

    fn leave(&mut self, claim: &Claim) -> Option<(&mut Flow, &mut Clock)> {
        let index = claim.level.index();
        let flow = self.flows.get_mut(&(index, claim.caller))?;
        let clock = self.clocks.get_mut(index)?;
        flow.waiting = flow.waiting.saturating_sub(1);
        clock.waiting = clock.waiting.saturating_sub(1);
        Some((flow, clock))
    }

    /// Notes that a batch begins with a request of this level.
    pub(crate) fn begin(&mut self, level: Level) {
        for (index, clock) in self.clocks.iter_mut().enumerate() {
            clock.passed_over = match index == level.index() || clock.waiting == 0 {
                true => 0,
                false => clock.passed_over.saturating_add(1),
            };
        }
    }

    /// Returns the level whose turn it is, because so many batches began with others while it waited.
    pub(crate) fn due(&self) -> Option<Level> {
        let due = |clock: &Clock| clock.waiting > 0 && clock.passed_over >= PATIENCE;
        let clocks = self.clocks.iter().enumerate().filter(|(_, clock)| due(clock));
        let longest = clocks.max_by_key(|(index, clock)| (clock.passed_over, usize::MAX - index));
        longest.map(|(index, _)| Level::of_index(index))
    }

    /// Forgets everything, at a time when nothing waits and nothing runs.
    pub(crate) fn rest(&mut self) {
        self.flows.clear();
        self.clocks.clear();
    }

    /// Forgets callers with nothing waiting, where there are many. It costs others at most what those were
    /// ahead: a request of each.
    fn forget_some(&mut self) {
        if self.flows.len() >= self.crowd {
            self.flows.retain(|_, flow| flow.waiting > 0);
            self.crowd = REMEMBERED.max(2 * self.flows.len());
        }
    }
}

/// A hash for keys that are hashes already.
#[derive(Default)]
pub(crate) struct Fold(u64);

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }

    fn write_u64(&mut self, value: u64) {
        // The constant is that of Fibonacci hashing: two to the 64th by the golden ratio.
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(caller: u64, rows: usize) -> Claim {
        Claim { level: Level::of_index(1), caller: CallerKey(caller), weight: 1, rows }
    }

    #[test]
    fn a_weight_divides_and_nothing_is_free() {
        let of = |rows, weight| Claim { weight, ..claim(0, rows) }.cost();
        assert_eq!(of(6, 3), of(2, 1));
        assert_eq!(of(1, 0), of(1, 1), "a weight of 0 counts as 1");
        assert_eq!(of(0, 1), of(1, 1), "a request without rows still takes a place");
        assert_eq!(of(1, u32::MAX), 1);
        assert!(of(usize::MAX, 1) > of(1 << 20, 1), "and rows beyond counting are many");
    }

    #[test]
    fn what_was_not_served_is_not_charged() {
        let mut shares = Shares::default();
        let none = || None;
        let [first, second] = [(); 2].map(|()| shares.enter(&claim(7, 3), none));
        assert!(first < second);
        shares.withdraw(&claim(7, 3), second);
        assert_eq!(shares.enter(&claim(7, 1), none), second, "the newest leaves its place");
        shares.withdraw(&claim(7, 1), second);
        shares.withdraw(&claim(7, 3), first);
        assert_eq!(shares.enter(&claim(7, 1), none), first, "all have left theirs");
    }

    #[test]
    fn callers_with_nothing_waiting_are_forgotten() {
        let mut shares = Shares::default();
        let stays = shares.enter(&claim(u64::MAX, 1), || None);
        for caller in 0..10 * REMEMBERED as u64 {
            let start = shares.enter(&claim(caller, 1), || Some(stays));
            shares.serve(&claim(caller, 1), start);
        }
        assert!(shares.flows.len() <= REMEMBERED);
        assert_eq!(shares.flows[&(1, CallerKey(u64::MAX))].waiting, 1);
        shares.rest();
        assert!(shares.flows.is_empty());
    }

    #[test]
    fn a_level_is_due_after_so_many_batches_of_others() {
        let mut shares = Shares::default();
        let urgent = Level::of_index(0);
        shares.enter(&claim(0, 1), || None);
        for _ in 0..PATIENCE {
            assert_eq!(shares.due(), None);
            shares.begin(urgent);
        }
        assert_eq!(shares.due(), Some(Level::of_index(1)));
        shares.begin(Level::of_index(1));
        assert_eq!(shares.due(), None);
    }
}
