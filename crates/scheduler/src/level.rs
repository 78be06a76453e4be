//! Levels of priority: which requests go first, how many of each may wait, and how long.
//!
//! A model that declares no levels has three: interactive (1), normal (2, the default) and background (3).
//! They share the queue's places, and none waits without end: while it does, one batch of 16 begins with it
//! (`fair`, `pending`).
//!
//! Declared levels are strict, as Triton's are. While requests of a more urgent level keep all instances
//! busy, requests of the levels below wait, without end if it goes on without end: that is what was asked
//! for. What bounds it are the limits of the level that waits: its capacity and its time limit, each refused
//! with an error that names the level. Each declared level has places of its own in the queue, so that
//! requests that can wait never take the places of those that cannot.

use std::cmp::Ordering;
use std::fmt;
use std::time::{Duration, Instant};

use outhaul_types::{Classify, ErrorKind, LimitsSpec, Priority};

/// A level of priority of one queue, from [`Levels::level`] or [`Levels::of`]. The higher is the less
/// urgent; the default is the most urgent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(usize);

impl Level {
    pub(crate) const MOST_URGENT: Level = Level(0);

    pub(crate) fn index(self) -> usize {
        self.0
    }

    /// Returns its place among the levels of its queue, from 0.
    pub fn place(self) -> u64 {
        self.0 as u64
    }

    pub(crate) fn of_index(index: usize) -> Self {
        Level(index)
    }
}

impl fmt::Display for Level {
    /// Writes the number that users give: 1 is the most urgent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0 + 1)
    }
}

/// The levels that a model has where it declares none.
const USUAL: usize = 3;

/// The levels of one queue. The default are those of a model that declares none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    limits: Box<[LevelLimits]>,
    default: Level,
}

/// What holds for the requests of one level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LevelLimits {
    /// Requests that may wait.
    pub(crate) capacity: usize,
    /// The longest that one may wait.
    pub(crate) timeout: Option<Duration>,
    allows_override: bool,
}

/// A priority that the model does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("parameter 'priority' must be 0 to {levels}, where 1 is the most urgent and 0 the default")]
pub struct BadPriority {
    /// The number of levels.
    pub levels: usize,
}

impl Classify for BadPriority {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}

impl Default for Levels {
    fn default() -> Self {
        Levels { limits: Box::default(), default: Level(1) }
    }
}

impl Levels {
    /// Takes what a manifest declares. A level without a capacity of its own has as many places as
    /// the queue would have without levels.
    pub fn declared(spec: &LimitsSpec) -> Self {
        let limits = spec.levels.iter().map(|level| LevelLimits {
            capacity: level.capacity.unwrap_or(spec.capacity).get(),
            timeout: level.timeout,
            allows_override: level.allow_override.unwrap_or(true),
        });
        let limits: Box<[LevelLimits]> = limits.collect();
        if limits.is_empty() {
            return Levels::default();
        }
        let default = (spec.default_level.get() - 1).min(limits.len().saturating_sub(1));
        Levels { limits, default: Level(default) }
    }

    /// Returns whether the model declares its levels. They are strict then.
    pub fn are_declared(&self) -> bool {
        !self.limits.is_empty()
    }

    /// Returns the level that a request asks for by its parameter `priority`, where 0 stands for the
    /// default. Where none are declared every number is good, and those beyond the last level mean it.
    ///
    /// # Errors
    ///
    /// Fails where levels are declared and not so many.
    pub fn level(&self, asked: Option<u64>) -> Result<Level, BadPriority> {
        let Some(asked) = asked.filter(|asked| *asked > 0) else {
            return Ok(self.default);
        };
        let index = usize::try_from(asked - 1).unwrap_or(usize::MAX);
        match self.limits.len() {
            0 => Ok(Level(index.min(USUAL - 1))),
            levels if index < levels => Ok(Level(index)),
            levels => Err(BadPriority { levels }),
        }
    }

    /// Returns the level that a word means: the most urgent one, the default, or the last.
    pub fn of(&self, priority: Priority) -> Level {
        match (priority, self.limits.len()) {
            (Priority::Interactive, _) => Level::MOST_URGENT,
            (Priority::Normal, _) => self.default,
            (Priority::Background, 0) => Level(USUAL - 1),
            (Priority::Background, levels) => Level(levels - 1),
        }
    }

    /// Returns what a level means without the model's own levels: more urgent than its default, as urgent,
    /// or less. For what models with different levels share.
    pub fn in_general(&self, level: Level) -> Level {
        Level(match level.cmp(&self.default) {
            Ordering::Less => 0,
            Ordering::Equal => 1,
            Ordering::Greater => 2,
        })
    }

    /// Returns whether a request's own `timeout` holds where it is shorter than the server's.
    pub fn allows_override(&self, level: Level) -> bool {
        self.limits(level).is_none_or(|limits| limits.allows_override)
    }

    /// Returns every declared level, the most urgent first; nothing where none are.
    pub fn iter(&self) -> impl Iterator<Item = Level> + use<> {
        (0..self.limits.len()).map(Level)
    }

    pub(crate) fn limits(&self, level: Level) -> Option<&LevelLimits> {
        self.limits.get(level.0)
    }

    /// Until when a request of this level that is submitted `now` may wait.
    pub(crate) fn wait_until(&self, level: Level, now: Instant) -> Option<Instant> {
        let timeout = self.limits(level)?.timeout?;
        now.checked_add(timeout)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use outhaul_types::LevelSpec;

    use super::*;

    fn levels(count: usize, default: usize) -> Levels {
        let fixed = LevelSpec { allow_override: Some(false), ..LevelSpec::default() };
        let specs = [fixed, LevelSpec::default(), LevelSpec::default()];
        Levels::declared(&LimitsSpec {
            levels: specs[..count].to_vec(),
            default_level: NonZeroUsize::new(default).unwrap(),
            ..LimitsSpec::default()
        })
    }

    #[test]
    fn a_priority_is_a_level_or_an_error() {
        struct Case {
            levels: usize,
            default: usize,
            asked: Option<u64>,
            level: Result<usize, usize>,
        }
        let case = |levels, default, asked, level| Case { levels, default, asked, level };
        let cases = [
            case(0, 1, None, Ok(1)),
            case(0, 1, Some(0), Ok(1)),
            case(0, 1, Some(1), Ok(0)),
            case(0, 1, Some(7), Ok(2)),
            case(3, 2, None, Ok(1)),
            case(3, 2, Some(0), Ok(1)),
            case(3, 2, Some(1), Ok(0)),
            case(3, 2, Some(3), Ok(2)),
            case(3, 2, Some(4), Err(3)),
            case(3, 2, Some(u64::MAX), Err(3)),
            case(2, 9, None, Ok(1)),
        ];
        for Case { levels: count, default, asked, level } in cases {
            let level = level.map(Level).map_err(|levels| BadPriority { levels });
            assert_eq!(levels(count, default).level(asked), level, "{asked:?} of {count}");
        }
        assert_eq!(
            levels(3, 2).level(Some(4)).unwrap_err().to_string(),
            "parameter 'priority' must be 0 to 3, where 1 is the most urgent and 0 the default"
        );
    }

    #[test]
    fn words_mean_levels() {
        for (count, default, expected) in
            [(0, 1, [0, 1, 2]), (1, 1, [0, 0, 0]), (2, 1, [0, 0, 1]), (3, 2, [0, 1, 2])]
        {
            let levels = levels(count, default);
            let words = [Priority::Interactive, Priority::Normal, Priority::Background];
            let found = words.map(|word| levels.of(word).index());
            assert_eq!(found, expected, "{count} levels, default {default}");
        }
        let two = levels(2, 1);
        assert_eq!([0, 1].map(|level| two.in_general(Level(level))), [Level(1), Level(2)]);
    }

    #[test]
    fn a_level_that_declares_nothing_is_as_the_queue() {
        let levels = levels(2, 1);
        let [first, second] = [Level(0), Level(1)];
        assert!(!levels.allows_override(first) && levels.allows_override(second));
        assert!(Levels::default().allows_override(Level::default()));
        assert_eq!(levels.limits(second).unwrap().capacity, 1024);
        assert_eq!(levels.wait_until(second, Instant::now()), None);
        assert_eq!(levels.iter().map(|level| level.to_string()).collect::<Vec<_>>(), ["1", "2"]);
    }
}
