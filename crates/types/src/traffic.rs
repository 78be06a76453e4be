//! What a user declares of traffic: where a route leads, what is shadowed, cached, and done when an answer
//! fails to come.
//!
//! The serde form of these types is the one form of routes everywhere: in `outhaul.toml`, in the admin
//! API and in the state store. Durations are written with a unit (`"250ms"`), shares as numbers from 0 to 1.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Destination, Name, Parameter};

/// Where the requests for one name go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// The variants that share the traffic, at least one.
    pub targets: Vec<TargetSpec>,
    /// How the shares are found. Default: they are the targets' weights.
    #[serde(default, skip_serializing_if = "SplitPolicy::is_weights")]
    pub policy: SplitPolicy,
    /// What ties a caller to one variant. Default: nothing, each request is dealt anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<StickyKey>,
    /// Callers that always get one destination.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pinned: BTreeMap<Name, Destination>,
    /// Whether a request may name its destination itself (`x-outhaul-target`), among the versions of the
    /// route's models. Default: yes.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub overrides: bool,
    /// A destination that gets copies of requests, whose answers are compared and thrown away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowSpec>,
    /// What to do when the chosen variant gives no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<FallbackSpec>,
    /// Whether predictions are remembered, so that outcomes can be joined to them. Default: no. Needed by
    /// the policies other than weights.
    #[serde(default, skip_serializing_if = "is_no")]
    pub feedback: bool,
}

impl RouteSpec {
    /// Makes a route that leads to one destination.
    pub fn to(destination: Destination) -> Self {
        RouteSpec {
            targets: vec![TargetSpec { to: destination, weight: 1.0 }],
            policy: SplitPolicy::default(),
            sticky: None,
            pinned: BTreeMap::new(),
            overrides: true,
            shadow: None,
            fallback: None,
            feedback: false,
        }
    }

    /// Returns the share of each target: its weight over the sum of all.
    pub fn shares(&self) -> Vec<f64> {
        let sum: f64 = self.targets.iter().map(|target| target.weight).sum();
        self.targets.iter().map(|target| target.weight / sum).collect()
    }

    /// Returns every destination that the route may send a request to.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        let targets = self.targets.iter().map(|target| &target.to);
        let shadow = self.shadow.iter().map(|shadow| &shadow.to);
        let fallback = self.fallback.iter().flat_map(|fallback| &fallback.to);
        targets.chain(self.pinned.values()).chain(shadow).chain(fallback)
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    ///
    /// Fails with the first rule that is broken.
    pub fn check(&self) -> Result<(), RouteSpecError> {
        let error = |rule: String| Err(RouteSpecError(rule));
        if self.targets.is_empty() {
            return error("a route needs at least one target".to_owned());
        }
        for (index, target) in self.targets.iter().enumerate() {
            if !(target.weight.is_finite() && target.weight >= 0.0) {
                return error(format!("the weight of '{}' must be 0 or more", target.to));
            }
            if self.targets[..index].iter().any(|earlier| earlier.to == target.to) {
                return error(format!("'{}' is a target twice: add the weights", target.to));
            }
        }
        let sum: f64 = self.targets.iter().map(|target| target.weight).sum();
        if !sum.is_finite() {
            return error("the weights of a route are too large to be added".to_owned());
        }
        if sum == 0.0 {
            return error("the weights of a route must not all be 0".to_owned());
        }
        if let SplitPolicy::EpsilonGreedy { epsilon } = self.policy
            && !(0.0..=1.0).contains(&epsilon)
        {
            return error("epsilon must be from 0 to 1".to_owned());
        }
        if self.policy != SplitPolicy::Weights && !self.feedback {
            return error("a policy that learns needs feedback = true".to_owned());
        }
        self.shadow.as_ref().map_or(Ok(()), ShadowSpec::check)?;
        self.fallback.as_ref().map_or(Ok(()), FallbackSpec::check)
    }
}

/// What is wrong with a route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RouteSpecError(pub String);

/// One variant of a route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSpec {
    /// Where it leads.
    pub to: Destination,
    /// Its part of the traffic, in proportion to the other targets' weights. Default: 1.
    #[serde(default = "one")]
    pub weight: f64,
}

/// How the shares of a route's targets are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SplitPolicy {
    /// They are the weights.
    #[default]
    Weights,
    /// The variant with the best mean reward gets all but a share of `epsilon`, which is spread evenly.
    EpsilonGreedy {
        /// The share that explores, 0 to 1.
        epsilon: f64,
    },
    /// Each variant gets the probability that it is the best (Thompson sampling, Beta posteriors of
    /// rewards from 0 to 1).
    Thompson,
}

impl SplitPolicy {
    fn is_weights(&self) -> bool {
        *self == SplitPolicy::Weights
    }
}

/// What ties a caller to one variant. Written as `"caller"`, `"header:NAME"`, `"cookie:NAME"` or
/// `"field:NAME"`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StickyKey {
    /// Who calls.
    Caller,
    /// A header of HTTP, or metadata of gRPC; its name is lower-case.
    Header(Name),
    /// A cookie.
    Cookie(Name),
    /// A parameter of the request, else the first element of the input of this name.
    Field(Name),
}

impl fmt::Display for StickyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StickyKey::Caller => f.write_str("caller"),
            StickyKey::Header(name) => write!(f, "header:{name}"),
            StickyKey::Cookie(name) => write!(f, "cookie:{name}"),
            StickyKey::Field(name) => write!(f, "field:{name}"),
        }
    }
}

impl FromStr for StickyKey {
    type Err = RouteSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "caller" => Ok(StickyKey::Caller),
            Some(("header", name)) if !name.is_empty() => {
                Ok(StickyKey::Header(name.to_ascii_lowercase().into()))
            }
            Some(("cookie", name)) if !name.is_empty() => Ok(StickyKey::Cookie(name.into())),
            Some(("field", name)) if !name.is_empty() => Ok(StickyKey::Field(name.into())),
            _ => Err(RouteSpecError(format!(
                "sticky is '{text}', expected \"caller\", \"header:NAME\", \"cookie:NAME\" or \"field:NAME\""
            ))),
        }
    }
}

impl Serialize for StickyKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StickyKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A destination that gets copies of requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShadowSpec {
    /// Where the copies go.
    pub to: Destination,
    /// The share of requests that is copied, above 0 and at most 1. Default: 1.
    #[serde(default = "one")]
    pub share: f64,
    /// Copies that may wait or run at once; more are shed. Each holds its request and the primary's answer in
    /// memory. Default: 2.
    #[serde(default = "two")]
    pub max_in_flight: usize,
    /// When two answers agree. Default, output by output: strings, integers and booleans must be equal; of floats that
    /// are scores of classes (the model says so, or each row is a distribution of probabilities over two classes or
    /// more) the same class must come first; other floats may differ by `1e-5 + 1e-3 * |primary's|`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare: Option<Comparison>,
    /// How many of the worst disagreements are kept in memory, with the beginnings of inputs and of both answers.
    /// 0 keeps none. Default: 10; at most 100.
    #[serde(default = "ten", skip_serializing_if = "is_ten")]
    pub examples: usize,
}

impl ShadowSpec {
    /// The most examples that can be asked for.
    pub const MOST_EXAMPLES: usize = 100;

    /// Makes a shadow of all requests, with everything else at its default.
    pub fn to(destination: Destination) -> Self {
        ShadowSpec {
            to: destination,
            share: one(),
            max_in_flight: two(),
            compare: None,
            examples: ten(),
        }
    }

    fn check(&self) -> Result<(), RouteSpecError> {
        let error = |rule: String| Err(RouteSpecError(rule));
        if !(self.share > 0.0 && self.share <= 1.0) {
            return error("shadow.share must be above 0 and at most 1".to_owned());
        }
        if self.max_in_flight == 0 {
            return error("shadow.max_in_flight must be at least 1".to_owned());
        }
        if self.examples > ShadowSpec::MOST_EXAMPLES {
            return error(format!("shadow.examples must be at most {}", ShadowSpec::MOST_EXAMPLES));
        }
        match self.compare {
            Some(Comparison::Tolerance { absolute, relative })
                if !(absolute >= 0.0 && relative >= 0.0) =>
            {
                error("shadow.compare: tolerances must be 0 or more".to_owned())
            }
            Some(Comparison::Rank { at_least }) if !(-1.0..=1.0).contains(&at_least) => {
                error("shadow.compare.at_least must be from -1 to 1".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// When two answers agree. Outputs are compared by name; one that a single side gives disagrees, and so does one of
/// another type or shape. Where a rule needs numbers and an output has none, its strings must be equal, but for
/// [`Comparison::Top1`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Comparison {
    /// All elements are equal, bit by bit; a NaN equals a NaN.
    Exact,
    /// Each pair of numbers differs by at most `absolute + relative * |primary's|`.
    Tolerance {
        /// Absolute part.
        #[serde(default)]
        absolute: f64,
        /// Part relative to the primary's number.
        #[serde(default)]
        relative: f64,
    },
    /// The largest element of each row is at the same place; of labels, the first one is equal.
    Top1,
    /// Spearman's rank correlation of each row is at least this.
    Rank {
        /// From -1 to 1.
        at_least: f64,
    },
}

/// What to do when a destination gives no answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FallbackSpec {
    /// Destinations to ask next, in this order.
    #[serde(default)]
    pub to: Vec<Destination>,
    /// What is answered when none of them does: values by output name, for each row of the request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub default: BTreeMap<Name, DefaultValue>,
    /// What leads to the next destination. Default: all causes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<FallbackCause>,
    /// The longest that each destination but the last may take. Default: four fifths of the time that the
    /// request has left.
    #[serde(default, with = "optional_duration", skip_serializing_if = "Option::is_none")]
    pub after: Option<Duration>,
}

impl FallbackSpec {
    /// Returns whether a cause leads to the next destination.
    pub fn covers(&self, cause: FallbackCause) -> bool {
        self.on.is_empty() || self.on.contains(&cause)
    }

    fn check(&self) -> Result<(), RouteSpecError> {
        match self.to.is_empty() && self.default.is_empty() {
            true => Err(RouteSpecError("a fallback needs 'to' or 'default'".to_owned())),
            false => Ok(()),
        }
    }
}

/// Why a destination gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FallbackCause {
    /// It failed, or is not there.
    Error,
    /// Its queue is full.
    Overloaded,
    /// It took too long.
    Deadline,
    /// It failed so often that it was not asked.
    OpenCircuit,
}

impl FallbackCause {
    /// Every cause, for metrics.
    pub const ALL: [FallbackCause; 4] = [
        FallbackCause::Error,
        FallbackCause::Overloaded,
        FallbackCause::Deadline,
        FallbackCause::OpenCircuit,
    ];

    /// Returns a stable lower-case word.
    pub const fn as_str(self) -> &'static str {
        match self {
            FallbackCause::Error => "error",
            FallbackCause::Overloaded => "overloaded",
            FallbackCause::Deadline => "deadline",
            FallbackCause::OpenCircuit => "open_circuit",
        }
    }
}

/// A value of a default answer: the value of one row, or a list that is one row's elements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DefaultValue {
    /// One element.
    One(Parameter),
    /// Elements.
    Many(Vec<DefaultValue>),
}

/// How the answers of a model are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSpec {
    /// Bytes of answers that are kept in this process's memory.
    pub capacity: u64,
    /// How long an answer is good for. Default (`None`): as long as its version is in service.
    pub ttl: Option<Duration>,
    /// Where answers are kept.
    pub store: CacheStore,
}

impl CacheSpec {
    /// The capacity where none is declared: 64 MiB.
    pub const DEFAULT_CAPACITY: u64 = 64 << 20;
}

impl Default for CacheSpec {
    fn default() -> Self {
        CacheSpec { capacity: Self::DEFAULT_CAPACITY, ttl: None, store: CacheStore::default() }
    }
}

/// Where answers are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheStore {
    /// In this process.
    #[default]
    Memory,
    /// In Redis, for all replicas.
    Redis,
    /// In this process, and behind it in Redis.
    Both,
}

/// How urgent a request is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Somebody waits for the answer.
    Interactive,
    /// The usual.
    #[default]
    Normal,
    /// Whenever there is time: shadows, batch jobs.
    Background,
}

impl Priority {
    /// Returns the priority as its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Priority::Interactive => "interactive",
            Priority::Normal => "normal",
            Priority::Background => "background",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Priority::Interactive, Priority::Normal, Priority::Background];
        all.into_iter().find(|priority| priority.as_str() == text)
    }
}

/// What one caller may do, or with the name `*` each caller that is not named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallerSpec {
    /// Its part of a busy model, in proportion to the other callers'. Default: 1.
    #[serde(default = "one_caller")]
    pub weight: u32,
    /// Requests a second. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Requests that may come at once before `rate` counts. Default: one second's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// The priority of requests that name none. A caller cannot ask for a more urgent one. Default: normal,
    /// and any may be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
}

impl Default for CallerSpec {
    fn default() -> Self {
        CallerSpec { weight: 1, rate: None, burst: None, priority: None }
    }
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

fn is_no(value: &bool) -> bool {
    !*value
}

fn one() -> f64 {
    1.0
}

fn two() -> usize {
    2
}

fn ten() -> usize {
    10
}

fn is_ten(value: &usize) -> bool {
    *value == ten()
}

fn one_caller() -> u32 {
    1
}

/// Durations as texts with a unit.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    /// Writes a duration.
    ///
    /// # Errors
    ///
    /// Fails where the format does.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*value))
    }

    /// Reads a duration.
    ///
    /// # Errors
    ///
    /// Fails where it is no number with a unit.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|_| {
            let expected = "expected a number with a unit, as in \"10m\"";
            de::Error::custom(format!("'{text}' is no duration: {expected}"))
        })
    }
}

mod optional_duration {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::duration::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        super::duration::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests;
