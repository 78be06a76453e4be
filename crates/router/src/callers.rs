//! Who asks: shares, priorities and rates of callers.
//!
//! A caller is a name that the server learnt of the request; requests without one are `anonymous`'s. What a
//! caller may do is declared under its name, or for all that are not named under `*`. Each caller, named or
//! not, has a share of its own in every queue ([`CallerKey`]), also where nothing is declared.
//!
//! Rates go by GCRA, the generic cell rate algorithm (ITU-T I.371), as the crate `governor` has it: a caller
//! may be ahead of its even pace by its burst. Each caller has a rate of its own; under `*` too.
//!
//! Invariants: memory is bounded whatever names callers give ([`MOST_UNNAMED`]), and so are the labels of
//! metrics: those not named count under `*`. Where nothing is declared, nothing is looked up.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::HashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use outhaul_monitor::Monitor;
use outhaul_monitor::traffic::Counter;
use outhaul_scheduler::{CallerKey, Level, Levels};
use outhaul_types::{CallerSpec, Name, Parameter, Parameters, Priority, RequestContext};

use crate::RouterError;

/// The name of callers that give none.
pub const ANONYMOUS: &str = "anonymous";

/// The name under which what holds for callers that are not named is declared.
const OTHERS: &str = "*";

/// Callers without a declared name whose rates are kept apart. Where more are active at once, they share
/// rates by groups until some have been quiet.
pub const MOST_UNNAMED: usize = 100_000;

/// Parts of the table of unnamed callers, each with a lock of its own.
const PARTS: usize = 16;

/// What each part may hold: half of it is what a sweep may leave, half what comes until the next.
const MOST_OF_PART: usize = MOST_UNNAMED / PARTS;

/// Groups of a part while its callers share rates.
const GROUPS: usize = 64;

/// Under what terms a caller's requests are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Whose they are, for queues.
    pub key: CallerKey,
    /// The caller's part, in proportion to the others'.
    pub weight: u32,
    /// The priority of requests that name none; they may not be more urgent either.
    pub priority: Option<Priority>,
}

/// What callers may do. The default is: all the same, in equal shares.
pub struct Callers {
    hashes: RandomState,
    /// Set where anything is declared at all.
    declared: Option<Box<Declared>>,
    anonymous: Terms,
}

impl Default for Callers {
    fn default() -> Self {
        let hashes = RandomState::new();
        let anonymous = Terms { key: key(&hashes, ANONYMOUS), weight: 1, priority: None };
        Callers { hashes, declared: None, anonymous }
    }
}

struct Declared {
    clock: Newest,
    named: HashMap<Name, Named>,
    others: Others,
}

/// A caller with a name of its own in the configuration.
struct Named {
    terms: Terms,
    rate: Option<Single>,
    limited: Arc<Counter>,
}

/// All other callers.
struct Others {
    weight: u32,
    priority: Option<Priority>,
    rate: Option<Box<[Part]>>,
    limited: Arc<Counter>,
}

type Plain = NoOpMiddleware<Moment>;
type Single = RateLimiter<NotKeyed, InMemoryState, Newest, Plain>;
type Keyed = RateLimiter<u64, HashMapStateStore<u64>, Newest, Plain>;

impl Callers {
    /// Takes what is declared, `*` for callers that are not named. Requests above a rate are counted with
    /// `monitor`.
    pub fn new(specs: BTreeMap<Name, CallerSpec>, monitor: &Monitor) -> Self {
        let open = Callers::default();
        if specs.is_empty() {
            return open;
        }
        let clock = Newest::default();
        let counter = |name: &str| monitor.traffic().limited(name);
        let mut named = HashMap::new();
        let mut others = CallerSpec::default();
        for (name, spec) in specs {
            if name == OTHERS {
                others = spec;
                continue;
            }
            let terms = terms(key(&open.hashes, &name), &spec);
            let rate = quota(&spec).map(|quota| Single::direct_with_clock(quota, clock.clone()));
            let limited = counter(&name);
            named.insert(name, Named { terms, rate, limited });
        }
        let anonymous = match named.get(ANONYMOUS) {
            Some(named) => named.terms,
            None => terms(open.anonymous.key, &others),
        };
        let part = |quota| Part::new(quota, clock.clone());
        let rate = quota(&others).map(|quota| (0..PARTS).map(|_| part(quota)).collect());
        let CallerSpec { weight, priority, .. } = others;
        let others = Others { weight, priority, rate, limited: counter(OTHERS) };
        let declared = Some(Box::new(Declared { clock, named, others }));
        Callers { declared, anonymous, ..open }
    }

    /// Counts one request of a caller against its rate.
    ///
    /// # Errors
    ///
    /// Fails where the caller is above its rate.
    pub fn admit(&self, caller: Option<&Name>, now: Instant) -> Result<(), RouterError> {
        match &self.declared {
            None => Ok(()),
            Some(declared) => self.limit(declared, caller, now),
        }
    }

    fn limit(
        &self,
        declared: &Declared,
        caller: Option<&Name>,
        now: Instant,
    ) -> Result<(), RouterError> {
        let name = caller.map_or(ANONYMOUS, Name::as_str);
        let (waited, counter) = match declared.named.get(name) {
            Some(Named { rate: None, .. }) => return Ok(()),
            Some(Named { rate: Some(rate), limited, .. }) => {
                let now = declared.clock.reach(now);
                (rate.check().map_err(|until| until.wait_time_from(now)), limited)
            }
            None => {
                let Others { rate: Some(parts), limited, .. } = &declared.others else {
                    return Ok(());
                };
                let now = declared.clock.reach(now);
                let key = caller.map_or(self.anonymous.key, |name| key(&self.hashes, name)).0;
                (parts[(key % PARTS as u64) as usize].check(key, now), limited)
            }
        };
        waited.map_err(|retry_after| {
            counter.increment();
            RouterError::RateLimited { caller: name.into(), retry_after }
        })
    }

    /// Returns the terms of a caller's requests.
    pub fn terms(&self, caller: Option<&Name>) -> Terms {
        let Some(name) = caller else { return self.anonymous };
        let (weight, priority) = match &self.declared {
            None => (1, None),
            Some(declared) => match declared.named.get(name) {
                Some(named) => return named.terms,
                None => (declared.others.weight, declared.others.priority),
            },
        };
        Terms { key: key(&self.hashes, name), weight, priority }
    }
}

fn key(hashes: &RandomState, name: &str) -> CallerKey {
    CallerKey(hashes.hash_one(name))
}

fn terms(key: CallerKey, spec: &CallerSpec) -> Terms {
    Terms { key, weight: spec.weight.max(1), priority: spec.priority }
}

/// The rate as a period and a burst; `None` where nothing is limited. A rate below one request in a
/// century counts as that.
fn quota(spec: &CallerSpec) -> Option<Quota> {
    const CENTURY: f64 = 3.2e9;
    let rate = spec.rate.filter(|rate| !rate.is_nan())?.max(0.0);
    let period = Duration::from_secs_f64((1.0 / rate).clamp(0.0, CENTURY));
    // A cast saturates.
    let burst = spec.burst.unwrap_or(rate.ceil() as u32);
    // All of a burst has to be within what a clock of nanoseconds counts.
    let most = u128::from(u64::MAX / 4) / period.as_nanos().max(1);
    let burst = burst.min(u32::try_from(most).unwrap_or(u32::MAX));
    // A period of less than a nanosecond is no limit.
    Some(Quota::with_period(period)?.allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN)))
}

/// The level of a request: by its `priority` parameter (a number, as Triton's clients send it, where 1 is the
/// most urgent and 0 says nothing, or a word), else by its context, else its caller's. It is not more urgent
/// than `least`, its caller's, where one is declared: then it is lowered.
pub(crate) fn asked_level(
    levels: &Levels,
    parameters: &Parameters,
    context: &RequestContext,
    least: Option<Priority>,
) -> Result<Level, RouterError> {
    let otherwise = context.priority.or(least);
    let level = match parameters.get("priority") {
        Some(Parameter::Int(number)) if *number > 0 => levels.level(Some(number.unsigned_abs()))?,
        Some(Parameter::String(word)) => {
            levels.of(Priority::parse(word).ok_or(RouterError::NoPriority)?)
        }
        None | Some(Parameter::Int(0)) => match otherwise {
            Some(priority) => levels.of(priority),
            None => levels.level(None)?,
        },
        Some(_) => return Err(RouterError::NoPriority),
    };
    Ok(least.map_or(level, |least| level.max(levels.of(least))))
}

/// Some of the callers that are not named.
struct Part {
    limiter: Keyed,
    checks: AtomicUsize,
    /// Set where a sweep left too many.
    crowded: AtomicBool,
}

impl Part {
    fn new(quota: Quota, clock: Newest) -> Self {
        let limiter = Keyed::hashmap_with_clock(quota, clock);
        Part { limiter, checks: AtomicUsize::new(0), crowded: AtomicBool::new(false) }
    }

    fn check(&self, key: u64, now: Moment) -> Result<(), Duration> {
        // Each check adds one caller at most, so that as many can have come since the last sweep.
        if self.checks.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_OF_PART / 2 - GROUPS {
            self.checks.store(0, Ordering::Relaxed);
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
            let crowded = self.limiter.len() > MOST_OF_PART / 2;
            self.crowded.store(crowded, Ordering::Relaxed);
        }
        let crowded = self.crowded.load(Ordering::Relaxed);
        // The lowest digits say which part it is.
        let key = if crowded { key / PARTS as u64 % GROUPS as u64 } else { key };
        self.limiter.check_key(&key).map_err(|until| until.wait_time_from(now))
    }
}

/// A clock that shows the newest instant that a request came with: time is passed in, here as elsewhere.
#[derive(Clone, Debug)]
struct Newest {
    epoch: Instant,
    nanoseconds: Arc<AtomicU64>,
}

impl Default for Newest {
    fn default() -> Self {
        Newest { epoch: Instant::now(), nanoseconds: Arc::default() }
    }
}

impl Newest {
    fn reach(&self, now: Instant) -> Moment {
        let since = now.saturating_duration_since(self.epoch).as_nanos();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        Moment(self.nanoseconds.fetch_max(since, Ordering::Relaxed).max(since))
    }
}

impl Clock for Newest {
    type Instant = Moment;

    fn now(&self) -> Moment {
        Moment(self.nanoseconds.load(Ordering::Relaxed))
    }
}

/// Nanoseconds since the clock was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Moment(u64);

impl Add<Nanos> for Moment {
    type Output = Moment;

    fn add(self, later: Nanos) -> Moment {
        Moment(self.0.saturating_add(later.as_u64()))
    }
}

impl Reference for Moment {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.saturating_sub(earlier.0).into()
    }

    fn saturating_sub(&self, duration: Nanos) -> Self {
        Moment(self.0.saturating_sub(duration.into()))
    }
}

#[cfg(test)]
mod tests {
    use outhaul_types::{Classify, ErrorKind};

    use super::*;

    fn limited(rate: f64, burst: Option<u32>) -> CallerSpec {
        CallerSpec { rate: Some(rate), burst, ..CallerSpec::default() }
    }

    fn callers<const N: usize>(specs: [(&str, CallerSpec); N]) -> (Callers, Monitor) {
        let monitor = Monitor::new();
        let specs = specs.into_iter().map(|(name, spec)| (name.into(), spec)).collect();
        (Callers::new(specs, &monitor), monitor)
    }

    /// How many of 1,000 requests, `every` apart, are admitted.
    fn admitted(callers: &Callers, name: Option<&str>, every: Duration) -> usize {
        let name = name.map(Name::from);
        let start = Instant::now();
        let times = (0..1000).map(|number| start + every * number);
        times.filter(|now| callers.admit(name.as_ref(), *now).is_ok()).count()
    }

    #[test]
    fn a_rate_is_kept_and_a_burst_is_let_through() {
        let millisecond = Duration::from_millis(1);
        struct Case {
            name: &'static str,
            spec: CallerSpec,
            every: Duration,
            admitted: usize,
        }
        let case = |name, spec, every, admitted| Case { name, spec, every, admitted };
        let cases = [
            case("no rate", CallerSpec::default(), Duration::ZERO, 1000),
            case("one second's at once", limited(50.0, None), Duration::ZERO, 50),
            case("a burst of its own", limited(50.0, Some(7)), Duration::ZERO, 7),
            case("half of a second and the burst", limited(100.0, Some(1)), millisecond / 2, 50),
            case("an even pace", limited(1000.0, Some(1)), millisecond, 1000),
            case("less than one a second", limited(0.5, None), millisecond, 1),
            case("hardly any", limited(f64::MIN_POSITIVE, None), millisecond, 1),
            case("beyond counting", limited(1e12, Some(1)), Duration::ZERO, 1000),
            case("a burst beyond counting", limited(1e-9, Some(u32::MAX)), Duration::ZERO, 4),
        ];
        for Case { name, spec, every, admitted: expected } in cases {
            let (named, _) = callers([("a", spec.clone())]);
            assert_eq!(admitted(&named, Some("a"), every), expected, "{name}");
            for caller in [Some("a"), None] {
                let (others, _) = callers([("*", spec.clone())]);
                assert_eq!(admitted(&others, caller, every), expected, "{name}, {caller:?} of *");
            }
        }
    }

    #[test]
    fn a_refusal_says_when_to_come_back_and_is_counted() {
        let (callers, monitor) =
            callers([("a", limited(2.0, Some(1))), ("*", limited(4.0, Some(1)))]);
        let mut now = Instant::now();
        let name = Name::from("a");
        for (caller, wait) in [(Some(&name), 500), (None, 250), (Some(&"b".into()), 250)] {
            now += Duration::from_secs(1);
            assert!(callers.admit(caller, now).is_ok());
            let refused = callers.admit(caller, now).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Overloaded);
            let RouterError::RateLimited { retry_after, .. } = refused else {
                panic!("{refused}");
            };
            let wait = Duration::from_millis(wait);
            assert_eq!(retry_after, wait);
            assert!(callers.admit(caller, now + wait).is_ok());
        }
        let counts = monitor.traffic().limits();
        let counts: Vec<_> = counts.iter().map(|(name, count)| (&**name, count.get())).collect();
        assert_eq!(counts, [("*", 2), ("a", 1)]);
    }

    #[test]
    fn terms_are_the_callers_own_or_those_of_all_others() {
        let spec = |weight, priority| CallerSpec { weight, priority, ..CallerSpec::default() };
        let background = Some(Priority::Background);
        let (callers, _) = callers([("a", spec(3, None)), ("*", spec(2, background))]);
        let of = |name: &str| callers.terms(Some(&name.into()));
        assert_eq!((of("a").weight, of("a").priority), (3, None));
        assert_eq!((of("b").weight, of("b").priority), (2, background));
        assert_eq!(callers.terms(None), of(ANONYMOUS));
        assert_ne!(of("b").key, of("c").key, "each has a share of its own");
        let open = Callers::default();
        assert_eq!(open.terms(None), open.terms(Some(&ANONYMOUS.into())));
        assert_ne!(open.terms(None).key, open.terms(Some(&"a".into())).key);
        assert!(open.admit(None, Instant::now()).is_ok());
    }

    #[test]
    fn a_level_is_asked_for_and_bounded_by_the_caller() {
        use Priority::{Background, Interactive, Normal};
        struct Case {
            parameter: Option<Parameter>,
            context: Option<Priority>,
            least: Option<Priority>,
            /// The level as users count it.
            level: Result<&'static str, ()>,
        }
        let case = |parameter, context, least, level| Case { parameter, context, least, level };
        let number = |number| Some(Parameter::Int(number));
        let word = |word: &str| Some(Parameter::String(word.to_owned()));
        let cases = [
            case(None, None, None, Ok("2")),
            case(None, Some(Interactive), None, Ok("1")),
            case(None, None, Some(Background), Ok("3")),
            case(None, None, Some(Interactive), Ok("1")),
            case(number(1), Some(Background), None, Ok("1")),
            case(number(0), Some(Background), None, Ok("3")),
            case(word("background"), Some(Interactive), None, Ok("3")),
            case(None, Some(Interactive), Some(Normal), Ok("2")),
            case(number(1), None, Some(Background), Ok("3")),
            case(number(3), None, Some(Interactive), Ok("3")),
            case(number(-1), None, None, Err(())),
            case(word("urgent"), None, None, Err(())),
            case(Some(Parameter::Bool(true)), None, None, Err(())),
        ];
        for Case { parameter, context: priority, least, level: expected } in cases {
            let told = format!("{parameter:?}, {priority:?}, at most {least:?}");
            let given = parameter.map(|value| ("priority".to_owned(), value));
            let parameters: Parameters = given.into_iter().collect();
            let context = RequestContext { priority, ..RequestContext::default() };
            let level = asked_level(&Levels::default(), &parameters, &context, least);
            let level = level.map(|level| level.to_string()).map_err(drop);
            assert_eq!(level.as_deref(), expected.as_ref().map(|level| *level), "{told}");
        }
    }

    #[test]
    fn a_flood_of_names_takes_no_more_memory_than_is_allowed() {
        let (callers, _) = callers([("*", limited(0.001, Some(1)))]);
        let now = Instant::now();
        let held = || {
            let parts = callers.declared.as_ref().and_then(|all| all.others.rate.as_ref());
            parts.into_iter().flatten().map(|part| part.limiter.len()).sum::<usize>()
        };
        for number in 0..2 * MOST_UNNAMED {
            let _ = callers.admit(Some(&number.to_string().into()), now);
        }
        assert!(held() > MOST_UNNAMED / 4 && held() <= MOST_UNNAMED, "{}", held());
        let later = now + Duration::from_secs(2000);
        for number in 0..MOST_UNNAMED / 2 {
            let _ = callers.admit(Some(&number.to_string().into()), later);
        }
        let again =
            (0..1000).filter(|n| callers.admit(Some(&format!("new {n}").into()), later).is_ok());
        assert_eq!(again.count(), 1000, "once they were quiet there is room again");
    }
}
