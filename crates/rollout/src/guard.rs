//! What a candidate must keep, as people write it: `error_rate<1%`, `p99<50ms`, `p99<1.2x`, `disagreement<5%`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One condition.
#[derive(Clone, Debug, PartialEq)]
pub enum Guard {
    /// Of the candidate's requests that say something about it, at most this share fails: `error_rate<1%`.
    ErrorRate {
        /// From 0 to 1.
        below: f64,
    },
    /// The candidate fails at most so many times as often as the other variant: `error_rate<1.5x`. Where the
    /// other one fails less often than [`ERROR_FLOOR`], that stands in for its rate.
    ErrorRatio {
        /// At least 1.
        below: f64,
    },
    /// A quantile of the candidate's latency: `p99<50ms`.
    Latency {
        /// As in `0.99`.
        quantile: f64,
        /// The limit.
        below: Duration,
    },
    /// A quantile of the candidate's latency over that of the other variant: `p99<1.2x`.
    LatencyRatio {
        /// As in `0.99`.
        quantile: f64,
        /// At least 1.
        below: f64,
    },
    /// The share of compared answers that disagree: `disagreement<5%`.
    Disagreement {
        /// From 0 to 1.
        below: f64,
    },
}

/// The rate of errors below which nobody minds a ratio: 0.1 %.
pub const ERROR_FLOOR: f64 = 0.001;

impl Guard {
    /// Returns whether it compares the candidate with the other variant, so that it says nothing of a candidate
    /// that gets all requests.
    pub fn is_relative(&self) -> bool {
        match self {
            Guard::ErrorRate { .. } | Guard::Latency { .. } => false,
            Guard::ErrorRatio { .. } | Guard::LatencyRatio { .. } | Guard::Disagreement { .. } => {
                true
            }
        }
    }

    /// Returns its limit: a share from 0 to 1, a latency in seconds, or a ratio.
    pub fn limit(&self) -> f64 {
        match *self {
            Guard::ErrorRate { below }
            | Guard::ErrorRatio { below }
            | Guard::LatencyRatio { below, .. }
            | Guard::Disagreement { below } => below,
            Guard::Latency { below, .. } => below.as_secs_f64(),
        }
    }
}

/// A text that is no guard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no guard: write error_rate<1%, error_rate<1.5x, p99<50ms, p99<1.2x or disagreement<5%"
)]
pub struct InvalidGuard(String);

impl FromStr for Guard {
    type Err = InvalidGuard;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidGuard(text.chars().take(100).collect());
        let (what, limit) = text.split_once('<').ok_or_else(invalid)?;
        let (what, limit) = (what.trim(), limit.trim());
        let share = |limit: &str| {
            let percent: f64 = limit.strip_suffix('%')?.trim().parse().ok()?;
            (percent > 0.0 && percent < 100.0).then_some(percent / 100.0)
        };
        let ratio = |limit: &str| {
            let ratio: f64 = limit.strip_suffix('x')?.trim().parse().ok()?;
            (ratio >= 1.0 && ratio.is_finite()).then_some(ratio)
        };
        let guard = match what {
            "error_rate" => share(limit)
                .map(|below| Guard::ErrorRate { below })
                .or_else(|| ratio(limit).map(|below| Guard::ErrorRatio { below })),
            "disagreement" => share(limit).map(|below| Guard::Disagreement { below }),
            _ => {
                let percent: f64 = what
                    .strip_prefix('p')
                    .and_then(|digits| digits.parse().ok())
                    .ok_or_else(invalid)?;
                let quantile = percent / 100.0;
                let within = quantile > 0.0 && quantile < 1.0;
                let latency =
                    || humantime::parse_duration(limit).ok().filter(|limit| !limit.is_zero());
                ratio(limit)
                    .map(|below| Guard::LatencyRatio { quantile, below })
                    .or_else(|| latency().map(|below| Guard::Latency { quantile, below }))
                    .filter(|_| within)
            }
        };
        guard.ok_or_else(invalid)
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| (share * 1e8).round() / 1e6;
        match *self {
            Guard::ErrorRate { below } => write!(f, "error_rate<{}%", percent(below)),
            Guard::ErrorRatio { below } => write!(f, "error_rate<{below}x"),
            Guard::Latency { quantile, below } => {
                let below = humantime::format_duration(below).to_string().replace(' ', "");
                write!(f, "p{}<{below}", percent(quantile))
            }
            Guard::LatencyRatio { quantile, below } => {
                write!(f, "p{}<{below}x", percent(quantile))
            }
            Guard::Disagreement { below } => write!(f, "disagreement<{}%", percent(below)),
        }
    }
}

impl Serialize for Guard {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Guard {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_are_read_and_written_alike() {
        for text in [
            "error_rate<1%",
            "error_rate<0.5%",
            "error_rate<1.5x",
            "p99<50ms",
            "p99<1.2x",
            "p99.9<2s",
            "p50<1.1x",
            "disagreement<5%",
        ] {
            assert_eq!(text.parse::<Guard>().unwrap().to_string(), text);
        }
        assert_eq!("p99 < 50ms".parse::<Guard>(), "p99<50ms".parse());
        for text in [
            "",
            "p99",
            "p99<",
            "p99<fast",
            "p0<1ms",
            "p100<1ms",
            "p99<0.9x",
            "error_rate<0%",
            "error_rate<100%",
            "error_rate<1",
            "latency<5ms",
            "disagreement<1.2x",
            "p99>1ms",
            "p99<0ms",
        ] {
            assert!(text.parse::<Guard>().is_err(), "{text}");
        }
    }
}
