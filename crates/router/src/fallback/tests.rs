use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use outhaul_monitor::TrafficMetrics;
use outhaul_types::{DefaultValue, Parameter, RouteSpec, TargetSpec};

use super::*;
use crate::circuit::Circuits;
use crate::routes::RouteTable;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn to(text: &str) -> Destination {
    text.parse().unwrap()
}

fn spec(to: &[&str], default: bool) -> FallbackSpec {
    let neutral = DefaultValue::One(Parameter::String("neutral".to_owned()));
    FallbackSpec {
        to: to.iter().map(|text| self::to(text)).collect(),
        default: default.then(|| ("label".into(), neutral)).into_iter().collect(),
        ..FallbackSpec::default()
    }
}

#[test]
fn what_comes_next_follows_from_cause_place_and_time() {
    use FallbackCause::{Deadline, Error, OpenCircuit, Overloaded};
    use Place::{Default, First, Other, To};
    let both = spec(&["b", "c"], true);
    let no_default = spec(&["b", "c"], false);
    let only_default = spec(&[], true);
    let some = FallbackSpec { on: vec![Overloaded, OpenCircuit], ..both.clone() };
    let failed = |cause| Failed { cause, is_absent: false };
    let absent = Failed { cause: Error, is_absent: true };
    let (time, none) = (Some(ms(5)), Some(Duration::ZERO));
    struct Case<'a>(
        Option<&'a FallbackSpec>,
        usize,
        Place,
        Failed,
        Option<Duration>,
        Option<Place>,
    );
    for (index, case) in [
        Case(None, 0, First, failed(Error), time, None),
        Case(None, 2, First, failed(Error), time, None),
        Case(None, 2, First, absent, time, Some(Other(0))),
        Case(None, 2, Other(0), absent, None, Some(Other(1))),
        Case(None, 2, Other(1), absent, time, None),
        Case(None, 2, First, absent, none, None),
        Case(None, 2, Other(0), failed(Error), time, None),
        Case(Some(&both), 1, First, absent, time, Some(Other(0))),
        Case(Some(&both), 1, Other(0), absent, time, Some(To(0))),
        Case(Some(&both), 1, First, absent, none, Some(Default)),
        Case(Some(&both), 1, First, failed(Error), time, Some(To(0))),
        Case(Some(&both), 0, First, failed(Overloaded), None, Some(To(0))),
        Case(Some(&both), 0, To(0), absent, time, Some(To(1))),
        Case(Some(&both), 0, To(1), failed(Deadline), time, Some(Default)),
        Case(Some(&both), 0, Default, failed(Error), time, None),
        Case(Some(&both), 0, First, failed(Deadline), none, Some(Default)),
        Case(Some(&both), 0, To(0), failed(Deadline), none, Some(Default)),
        Case(Some(&no_default), 0, To(1), failed(Error), time, None),
        Case(Some(&no_default), 0, First, failed(Deadline), none, None),
        Case(Some(&only_default), 0, First, failed(OpenCircuit), time, Some(Default)),
        Case(Some(&some), 0, First, failed(Error), time, None),
        Case(Some(&some), 0, First, failed(Deadline), none, None),
        Case(Some(&some), 0, First, failed(Overloaded), time, Some(To(0))),
        Case(Some(&some), 0, To(0), failed(Error), time, None),
        Case(Some(&some), 1, First, absent, time, Some(Other(0))),
        Case(Some(&some), 0, First, failed(OpenCircuit), time, Some(To(0))),
    ]
    .into_iter()
    .enumerate()
    {
        let Case(spec, others, place, failed, left, expected) = case;
        let next = Way { others, spec }.next(place, failed, left);
        assert_eq!(next, expected, "case {index}: {place:?} {failed:?} {left:?}");
    }
}

#[test]
fn each_but_the_last_leaves_time_for_the_next() {
    use Place::{First, Other, To};
    let both = spec(&["b", "c"], true);
    let no_default = spec(&["b", "c"], false);
    let after = FallbackSpec { after: Some(ms(30)), ..both.clone() };
    let patient = FallbackSpec { on: vec![FallbackCause::Error], ..after.clone() };
    struct Case<'a>(Option<&'a FallbackSpec>, Place, Option<Duration>, Option<Duration>);
    for (index, Case(spec, place, left, expected)) in [
        Case(None, First, Some(ms(100)), None),
        Case(Some(&both), First, Some(ms(100)), Some(ms(80))),
        Case(Some(&both), Other(3), Some(ms(100)), Some(ms(80))),
        Case(Some(&both), First, None, None),
        Case(Some(&both), To(1), Some(ms(10)), Some(ms(8))),
        Case(Some(&no_default), To(0), Some(ms(10)), Some(ms(8))),
        Case(Some(&no_default), To(1), Some(ms(10)), None),
        Case(Some(&after), First, None, Some(ms(30))),
        Case(Some(&after), First, Some(ms(100)), Some(ms(30))),
        Case(Some(&after), First, Some(ms(10)), Some(ms(10))),
        Case(Some(&patient), First, Some(ms(100)), None),
    ]
    .into_iter()
    .enumerate()
    {
        let limit = Way { others: 0, spec }.limit(place, left);
        assert_eq!(limit, expected, "case {index}: {place:?} with {left:?} left");
    }
}

fn error(kind: ErrorKind) -> RouterError {
    RouterError::Remote { url: "u".into(), kind, message: kind.to_string() }
}

#[test]
fn every_kind_of_error_has_its_cause_or_is_the_callers() {
    for kind in ErrorKind::ALL {
        let expected = match kind {
            ErrorKind::InvalidInput
            | ErrorKind::Unauthenticated
            | ErrorKind::Forbidden
            | ErrorKind::Conflict
            | ErrorKind::Unsupported => None,
            ErrorKind::Overloaded => Some(FallbackCause::Overloaded),
            ErrorKind::DeadlineExceeded => Some(FallbackCause::Deadline),
            ErrorKind::NotFound
            | ErrorKind::NotReady
            | ErrorKind::EngineFailed
            | ErrorKind::Unavailable
            | ErrorKind::Internal => Some(FallbackCause::Error),
        };
        assert_eq!(Failed::of(&error(kind)).map(|failed| failed.cause), expected, "{kind}");
    }
    let open = RouterError::OpenCircuit { destination: "a".to_owned() };
    assert_eq!(Failed::of(&open).map(|failed| failed.cause), Some(FallbackCause::OpenCircuit));
}

/// What one destination does when it is asked.
#[derive(Clone, Copy, Debug)]
enum Does {
    Answers,
    AnswersAfter(u64),
    Fails(ErrorKind),
}

/// Destinations that do as they are told, and who was asked in what context.
#[derive(Default)]
struct Script {
    does: Mutex<HashMap<String, Does>>,
    asked: Mutex<Vec<(String, RequestContext, usize)>>,
    circuits: Circuits,
    monitor: Monitor,
}

impl Script {
    fn new(does: &[(&str, Does)]) -> Self {
        let script = Script::default();
        does.iter().for_each(|(name, does)| script.tell(name, *does));
        script
    }

    fn tell(&self, name: &str, does: Does) {
        self.does.lock().unwrap().insert(name.to_owned(), does);
    }

    /// Who was asked since the last look.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap()).into_iter().map(|asked| asked.0).collect()
    }
}

impl Destinations for Script {
    fn ask<'a>(
        &'a self,
        to: &'a Destination,
        request: InferRequest,
        context: &'a RequestContext,
        _: Instant,
    ) -> Answering<'a> {
        let name = to.to_string();
        let does = self.does.lock().unwrap()[&name];
        let parameters = request.parameters.len();
        self.asked.lock().unwrap().push((name.clone(), context.clone(), parameters));
        Box::pin(async move {
            match does {
                Does::Fails(kind) => return Err(error(kind)),
                Does::AnswersAfter(after) => tokio::time::sleep(ms(after)).await,
                Does::Answers => {}
            }
            Ok(InferResponse {
                id: None,
                model: ModelName::new(to.model().unwrap().as_str()).unwrap(),
                version: ModelVersion(1),
                outputs: Default::default(),
                timings: Timings::default(),
                tokens: None,
                cache: CacheStatus::Off,
                via: None,
            })
        })
    }

    fn description(&self, _: &Destination) -> Option<Arc<ModelDescription>> {
        None
    }

    fn check(
        &self,
        _: &Destination,
        _: &InferRequest,
        _: &RequestContext,
    ) -> Result<(), RouterError> {
        Ok(())
    }

    fn breaker(&self, of: &Destination) -> Arc<Breaker> {
        self.circuits.of(of)
    }

    fn monitor(&self) -> &Monitor {
        &self.monitor
    }
}

/// Asks `a`, with so much time.
async fn ask(
    script: &Script,
    spec: &FallbackSpec,
    time: Option<u64>,
) -> Result<InferResponse, RouterError> {
    let deadline = time.and_then(|time| Deadline::after(now(), ms(time)));
    let context = RequestContext { deadline, ..RequestContext::default() };
    let first = to("a");
    let falling = Falling { first: &first, chosen: None, spec: Some(spec), started: now() };
    fall(script, falling, InferRequest::new("a", []), &context).await
}

/// Who answered, and why not the first.
fn told(answer: &InferResponse) -> (String, Option<FallbackCause>) {
    match &answer.via {
        None => (answer.model.to_string(), None),
        Some(via) => (via.fallback.as_ref().unwrap().to_string(), via.cause),
    }
}

#[tokio::test(start_paused = true)]
async fn each_cause_leads_on_and_is_told() {
    use Does::{Answers, AnswersAfter, Fails};
    use ErrorKind::{EngineFailed, NotReady, Overloaded};
    struct Case {
        a: Does,
        b: Does,
        /// Who answers, the cause, who was asked, and when the answer came.
        expected: (&'static str, Option<FallbackCause>, &'static [&'static str], u64),
    }
    let late = Some(FallbackCause::Deadline);
    let failed = Some(FallbackCause::Error);
    let full = Some(FallbackCause::Overloaded);
    let cases = [
        Case { a: Answers, b: Answers, expected: ("a", None, &["a"], 0) },
        Case { a: AnswersAfter(79), b: Answers, expected: ("a", None, &["a"], 79) },
        Case { a: AnswersAfter(81), b: Answers, expected: ("b", late, &["a", "b"], 80) },
        Case { a: Fails(EngineFailed), b: Answers, expected: ("b", failed, &["a", "b"], 0) },
        Case { a: Fails(NotReady), b: Answers, expected: ("b", failed, &["a", "b"], 0) },
        Case { a: Fails(Overloaded), b: Answers, expected: ("b", full, &["a", "b"], 0) },
        Case {
            a: Fails(Overloaded),
            b: Fails(EngineFailed),
            expected: ("default", full, &["a", "b"], 0),
        },
        Case {
            a: AnswersAfter(1_000),
            b: AnswersAfter(1_000),
            // Four fifths of 100 ms, then four fifths of the rest.
            expected: ("default", late, &["a", "b"], 96),
        },
    ];
    for Case { a, b, expected: (who, cause, asked, at) } in cases {
        let script = Script::new(&[("a", a), ("b", b)]);
        let start = tokio::time::Instant::now();
        let answer = ask(&script, &spec(&["b"], true), Some(100)).await.unwrap();
        let case = format!("{a:?}, {b:?}");
        assert_eq!(told(&answer), (who.to_owned(), cause), "{case}");
        assert_eq!(script.asked(), asked, "{case}");
        assert_eq!(start.elapsed().as_millis(), u128::from(at), "{case}");
        let counted = script.monitor.traffic().fallbacks();
        let count = |cause| counted.iter().map(|(_, metrics)| metrics.count(cause)).sum::<u64>();
        for other in FallbackCause::ALL {
            assert_eq!(count(other), u64::from(Some(other) == cause), "{case}: {other:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_default_answer_says_that_nobody_gave_it() {
    let script = Script::new(&[("a", Does::Fails(ErrorKind::EngineFailed))]);
    let answer = ask(&script, &spec(&[], true), None).await.unwrap();
    assert_eq!((answer.model.as_str(), answer.version), ("a", ModelVersion(0)));
    let label = answer.output("label").unwrap().as_strings().unwrap();
    assert_eq!(label.iter().collect::<Vec<_>>(), [b"neutral"]);
}

#[tokio::test(start_paused = true)]
async fn without_a_deadline_only_after_gives_up() {
    let script = Script::new(&[("a", Does::AnswersAfter(9_000)), ("b", Does::Answers)]);
    let patient = ask(&script, &spec(&["b"], false), None).await.unwrap();
    assert_eq!(told(&patient).0, "a");
    let hasty = FallbackSpec { after: Some(ms(50)), ..spec(&["b"], false) };
    let start = tokio::time::Instant::now();
    let answer = ask(&script, &hasty, None).await.unwrap();
    assert_eq!(told(&answer), ("b".to_owned(), Some(FallbackCause::Deadline)));
    assert_eq!(start.elapsed(), ms(50));
}

#[tokio::test(start_paused = true)]
async fn where_nobody_answers_the_first_error_is_told() {
    let script = Script::new(&[
        ("a", Does::Fails(ErrorKind::EngineFailed)),
        ("b", Does::Fails(ErrorKind::Overloaded)),
    ]);
    let error = ask(&script, &spec(&["b"], false), None).await.unwrap_err();
    assert_eq!(
        (error.kind(), script.asked()),
        (ErrorKind::EngineFailed, vec!["a".into(), "b".into()])
    );
    // A default that cannot be given is none.
    let mixed = vec![
        DefaultValue::One(Parameter::Int(1)),
        DefaultValue::One(Parameter::String(String::new())),
    ];
    let wrong = FallbackSpec {
        default: BTreeMap::from([("y".into(), DefaultValue::Many(mixed))]),
        ..FallbackSpec::default()
    };
    let error = ask(&script, &wrong, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::EngineFailed);
}

#[tokio::test(start_paused = true)]
async fn what_the_caller_did_wrong_ends_it() {
    let script = Script::new(&[("a", Does::Fails(ErrorKind::InvalidInput)), ("b", Does::Answers)]);
    let error = ask(&script, &spec(&["b"], true), None).await.unwrap_err();
    assert_eq!((error.kind(), script.asked()), (ErrorKind::InvalidInput, vec!["a".into()]));
    script.tell("a", Does::Fails(ErrorKind::EngineFailed));
    script.tell("b", Does::Fails(ErrorKind::InvalidInput));
    let error = ask(&script, &spec(&["b"], true), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "as it is, from whomever it comes");
}

#[tokio::test(start_paused = true)]
async fn what_fails_often_is_left_in_peace_and_comes_back() {
    let spec = spec(&["b"], false);
    let script = Script::new(&[("a", Does::Fails(ErrorKind::EngineFailed)), ("b", Does::Answers)]);
    for _ in 0..20 {
        let answer = ask(&script, &spec, None).await.unwrap();
        assert_eq!(told(&answer), ("b".to_owned(), Some(FallbackCause::Error)));
    }
    script.asked();
    let answer = ask(&script, &spec, None).await.unwrap();
    assert_eq!(told(&answer), ("b".to_owned(), Some(FallbackCause::OpenCircuit)));
    assert_eq!(script.asked(), ["b"], "it is not asked");
    tokio::time::advance(ms(5_000)).await;
    let answer = ask(&script, &spec, None).await.unwrap();
    assert_eq!(told(&answer).1, Some(FallbackCause::Error), "one tries, and fails");
    script.tell("a", Does::Answers);
    let answer = ask(&script, &spec, None).await.unwrap();
    assert_eq!(told(&answer).1, Some(FallbackCause::OpenCircuit));
    tokio::time::advance(ms(10_000)).await;
    for _ in 0..3 {
        assert_eq!(told(&ask(&script, &spec, None).await.unwrap()), ("a".to_owned(), None));
    }
}

#[tokio::test(start_paused = true)]
async fn late_answers_open_the_circuit_and_full_queues_do_not() {
    let spec = spec(&["b"], false);
    let script = Script::new(&[("a", Does::AnswersAfter(1_000)), ("b", Does::Answers)]);
    for _ in 0..20 {
        ask(&script, &spec, Some(10)).await.unwrap();
    }
    let answer = ask(&script, &spec, Some(10)).await.unwrap();
    assert_eq!(told(&answer).1, Some(FallbackCause::OpenCircuit));
    let script = Script::new(&[("a", Does::Fails(ErrorKind::Overloaded)), ("b", Does::Answers)]);
    for _ in 0..100 {
        let answer = ask(&script, &spec, Some(10)).await.unwrap();
        assert_eq!(told(&answer).1, Some(FallbackCause::Overloaded));
    }
}

#[tokio::test(start_paused = true)]
async fn a_fallback_gets_the_rest_of_the_time_and_one_more_of_depth() {
    let script = Script::new(&[("a", Does::AnswersAfter(900)), ("b", Does::Answers)]);
    let started = now();
    let mut request = InferRequest::new("a", []);
    // 100 ms from when the request came.
    request.parameters.insert("timeout".to_owned(), Parameter::Int(100_000));
    let context = RequestContext { depth: 2, ..RequestContext::default() };
    let (first, spec) = (to("a"), spec(&["b"], false));
    let falling = || Falling { first: &first, chosen: None, spec: Some(&spec), started };
    let answer = fall(&script, falling(), request.clone(), &context).await.unwrap();
    assert_eq!(told(&answer).0, "b");
    let asked = std::mem::take(&mut *script.asked.lock().unwrap());
    let seen = |index: usize| {
        let (_, context, parameters) = &asked[index];
        (context.deadline.map(|Deadline(at)| at - started), context.depth, *parameters)
    };
    assert_eq!(seen(0), (Some(ms(80)), 2, 1), "the first leaves time");
    assert_eq!(seen(1), (Some(ms(100)), 3, 0), "the last has the rest");
    let deep = RequestContext { depth: MOST_DEPTH + 1, ..context };
    let error = fall(&script, falling(), request, &deep).await.unwrap_err();
    assert!(matches!(error, RouterError::TooDeep { depth: 9 }), "{error}");
}

/// A route of three variants, of which the second has no share.
fn route(fallback: Option<FallbackSpec>) -> Arc<Route> {
    let target = |(to, weight): (&str, f64)| TargetSpec { to: self::to(to), weight };
    let spec = RouteSpec {
        targets: [("a@3", 10.0), ("a@2", 0.0), ("a@1", 30.0), ("c", 60.0)].map(target).into(),
        fallback,
        ..RouteSpec::to(to("a@1"))
    };
    let routes = BTreeMap::from([(ModelName::new("a").unwrap(), spec)]);
    let table = RouteTable::build(1, &routes, &RouteTable::default(), &TrafficMetrics::default());
    Arc::clone(table.route("a").unwrap())
}

async fn ask_route(script: &Script, route: &Route) -> Result<InferResponse, RouterError> {
    let chosen = Chosen { route, variant: 0 };
    let (first, spec) = (&route.variants()[0].to, route.spec().fallback.as_ref());
    let falling = Falling { first, chosen: Some(chosen), spec, started: now() };
    fall(script, falling, InferRequest::new("a", []), &RequestContext::default()).await
}

/// What was judged of each variant, and how much of it failed.
fn judged(route: &Route) -> Vec<(u64, u64)> {
    let counts = route.variants().iter().map(|variant| variant.metrics.counts());
    counts.map(|counts| (counts.judged(), counts.failed)).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_yet_is_answered_by_the_largest_other_variant() {
    let absent = Does::Fails(ErrorKind::NotReady);
    let script = Script::new(&[("a@3", absent), ("c", absent), ("a@1", Does::Answers)]);
    let plain = route(None);
    let answer = ask_route(&script, &plain).await.unwrap();
    assert_eq!(told(&answer), ("a@1".to_owned(), Some(FallbackCause::Error)));
    assert_eq!(script.asked(), ["a@3", "c", "a@1"], "by falling share, none without a share");
    let nothing_failed = [(0, 0), (0, 0), (1, 0), (0, 0)];
    assert_eq!(judged(&plain), nothing_failed, "that it is not there says nothing of it");

    script.tell("a@3", Does::Fails(ErrorKind::EngineFailed));
    let error = ask_route(&script, &plain).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::EngineFailed, "one that failed is not replaced");
    assert_eq!(script.asked(), ["a@3"]);

    script.tell("b", Does::Answers);
    let falls = route(Some(spec(&["b"], false)));
    assert_eq!(told(&ask_route(&script, &falls).await.unwrap()).0, "b");
    assert_eq!(judged(&falls)[0], (1, 1), "its own outcome counts");
    for name in ["a@3", "a@1"] {
        script.tell(name, absent);
    }
    script.asked();
    assert_eq!(told(&ask_route(&script, &falls).await.unwrap()).0, "b");
    assert_eq!(script.asked(), ["a@3", "c", "a@1", "b"]);
}
