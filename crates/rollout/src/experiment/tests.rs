//! The whole of it over real stores: SQLite in a file, Postgres where one listens, and none.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicI64, Ordering};

use outhaul_router::Predicted;
use outhaul_types::{InferResponse, Outcome, TargetSpec, Tensor, Via};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::label::tests::{answer, strings};
use super::*;
use crate::world::RouteRecord;

/// Somewhere to remember, and what goes when the test ends.
struct Place {
    url: Option<String>,
    route: ModelName,
    _folder: Option<TempDir>,
}

const POSTGRES: &str = "postgres://postgres@127.0.0.1:5432/test";

/// A route's name that no other test and no other run has.
fn route_of(test: &str) -> ModelName {
    ModelName::new(&format!("experiment-{test}-{}", std::process::id())).unwrap()
}

fn postgres_listens() -> bool {
    let listens =
        TcpStream::connect_timeout(&([127, 0, 0, 1], 5432).into(), Duration::from_secs(1)).is_ok();
    let required = std::env::var("OUTHAUL_REQUIRE_CLIENTS").is_ok_and(|value| value == "1");
    assert!(listens || !required, "no Postgres listens on 127.0.0.1:5432");
    if !listens {
        println!("skipped: no Postgres listens on 127.0.0.1:5432");
    }
    listens
}

fn places(test: &str) -> Vec<Place> {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}/state.db", folder.path().display());
    let route = route_of(test);
    let mut places = vec![
        Place { url: None, route: route.clone(), _folder: None },
        Place { url: Some(sqlite), route: route.clone(), _folder: Some(folder) },
    ];
    if postgres_listens() {
        places.push(Place { url: Some(POSTGRES.to_owned()), route, _folder: None });
    }
    places
}

/// A clock that stands still until somebody sets it.
fn clock(now: &Arc<AtomicI64>) -> Clock {
    let now = Arc::clone(now);
    Arc::new(move || Timestamp(now.load(Ordering::Relaxed)))
}

/// A configuration whose task does nothing by itself: what a test sees comes from its own calls.
fn quiet() -> ExperimentConfig {
    let never = Duration::from_secs(3600);
    let patience = Duration::from_secs(10);
    ExperimentConfig { flush: never, refresh: never, patience, ..ExperimentConfig::default() }
}

async fn start(place: &Place, config: ExperimentConfig) -> Arc<Experiments> {
    let store = match &place.url {
        Some(url) => Some(Store::open(url).await.unwrap()),
        None => None,
    };
    Experiments::start(config, store)
}

fn told(route: &ModelName, id: &str, variant: &str, answer: &InferResponse) -> Predicted {
    Predicted {
        request_id: id.into(),
        route: route.clone(),
        variant: variant.into(),
        answer: answer.clone(),
    }
}

fn positive() -> InferResponse {
    answer([("label", strings(&["positive"]))])
}

fn item(id: &str, outcome: Outcome) -> Feedback {
    Feedback { id: id.into(), route: None, outcome }
}

/// With a route, so that what is kept for later goes with the route.
fn on(route: &ModelName, item: Feedback) -> Feedback {
    Feedback { route: Some(route.clone()), ..item }
}

fn spec(policy: SplitPolicy) -> RouteSpec {
    let target = |to: &str| TargetSpec { to: to.parse().unwrap(), weight: 1.0 };
    RouteSpec {
        targets: vec![target("m@1"), target("m@2")],
        policy,
        feedback: true,
        ..RouteSpec::to("m".parse().unwrap())
    }
}

/// `predictions/outcomes/sum` of both variants.
fn counts(experiments: &Experiments, route: &ModelName) -> String {
    let stats = experiments.stats(route, &spec(SplitPolicy::Weights));
    let text =
        |stats: &VariantStats| format!("{}/{}/{}", stats.predictions, stats.outcomes, stats.sum);
    stats.iter().map(text).collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_find_their_predictions() {
    for place in places("find") {
        let where_ = place.url.clone().unwrap_or_default();
        let route = &place.route;
        let experiments = start(&place, quiet()).await;
        let tell = experiments.sink();
        let id = |name: &str| format!("{route}-{name}");
        tell(told(route, &id("a"), "m@1", &positive()));
        tell(told(route, &id("b"), "m@2", &positive()));
        tell(told(route, &id("c"), "m@2", &positive()));
        let via = Via { fallback: Some("default".into()), ..Via::default() };
        let fallback = InferResponse { via: Some(Box::new(via)), ..positive() };
        tell(told(route, &id("d"), "m@2", &fallback));
        let items = vec![
            item(&id("a"), Outcome::Reward(0.5)),
            item(&id("b"), Outcome::Label("positive".into())),
            item(&id("c"), Outcome::Label("negative".into())),
            on(route, item(&id("d"), Outcome::Reward(1.0))),
        ];
        // At once: what still waits to be written is found all the same.
        let answer = experiments.feedback(items).await.unwrap();
        assert_eq!(answer.joined, 3, "{where_}");
        assert_eq!(answer.unknown, [id("d").as_str()], "{where_}: a fallback's answer is nobody's");
        let items =
            vec![item(&id("a"), Outcome::Reward(1.0)), item(&id("b"), Outcome::Reward(1.0))];
        let answer = experiments.feedback(items.clone()).await.unwrap();
        assert_eq!((answer.joined, answer.replaced), (0, 2), "{where_}");
        let answer = experiments.feedback(items).await.unwrap();
        assert_eq!(answer.duplicate, [id("a").as_str(), &id("b")], "{where_}");

        let report = experiments.report(route, &spec(SplitPolicy::Weights)).await.unwrap();
        assert_eq!(counts(&experiments, route), "1/1/1 2/2/1", "{where_}");
        assert_eq!(report.variants[1].mean, Some(0.5), "{where_}");
        assert_eq!(report.verdict, Verdict::Undecided, "{where_}");
        assert_eq!(experiments.dropped(), 0, "{where_}");
        experiments.forget(route).await.unwrap();
        assert_eq!(counts(&experiments, route), "0/0/0 0/0/0", "{where_}");
        let answer = experiments
            .feedback(vec![on(route, item(&id("a"), Outcome::Reward(1.0)))])
            .await
            .unwrap();
        assert_eq!(answer.unknown.len(), 1, "{where_}");
        experiments.forget(route).await.unwrap();
        experiments.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_joins_what_another_predicted() {
    for place in places("replicas").into_iter().filter(|place| place.url.is_some()) {
        let where_ = place.url.clone().unwrap_or_default();
        let route = &place.route;
        let (first, second) = (start(&place, quiet()).await, start(&place, quiet()).await);
        let id = |number: usize| format!("{route}-{number}");
        let tell = first.sink();
        for number in 0..30 {
            tell(told(route, &id(number), if number < 10 { "m@1" } else { "m@2" }, &positive()));
        }
        first.flush().await.unwrap();
        let items = (0..20).map(|number| item(&id(number), Outcome::Reward(1.0))).collect();
        assert_eq!(second.feedback(items).await.unwrap().joined, 20, "{where_}");
        // The same outcomes at the same time at both.
        let both = [&first, &second].map(|experiments| {
            let items = (15..25).map(|number| item(&id(number), Outcome::Reward(1.0))).collect();
            let experiments = Arc::clone(experiments);
            tokio::spawn(async move { experiments.feedback(items).await.unwrap() })
        });
        let mut joined = 0;
        for answer in both {
            joined += answer.await.unwrap().joined;
        }
        assert_eq!(joined, 5, "{where_}: each was joined by one of them");

        // An outcome that is told there before its prediction is written here.
        tell(told(route, &id(99), "m@1", &positive()));
        let early = vec![item(&id(99), Outcome::Label("positive".into()))];
        let answer = second.feedback(early).await.unwrap();
        assert_eq!(answer.unknown.len(), 1, "{where_}");
        first.flush().await.unwrap();
        second.flush().await.unwrap();
        for experiments in [&first, &second] {
            experiments.flush().await.unwrap();
            assert_eq!(counts(experiments, route), "11/11/11 20/15/15", "{where_}");
        }
        first.forget(route).await.unwrap();
        first.stop().await;
        second.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_task_writes_by_itself_and_a_stop_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/state.db", folder.path().display());
    let place = Place { url: Some(url), route: route_of("task"), _folder: Some(folder) };
    let route = &place.route;
    let brisk = Duration::from_millis(10);
    let config = ExperimentConfig { flush: brisk, refresh: brisk, ..quiet() };
    let experiments = start(&place, config).await;
    let tell = experiments.sink();
    for number in 0..2_500 {
        tell(told(route, &format!("a{number}"), "m@1", &positive()));
    }
    let seen = tokio::time::timeout(Duration::from_secs(20), async {
        while counts(&experiments, route) != "2500/0/0 0/0/0" {
            tokio::task::yield_now().await;
        }
    });
    assert!(seen.await.is_ok(), "{}", counts(&experiments, route));
    tell(told(route, "last", "m@2", &positive()));
    experiments.stop().await;
    let again = start(&place, quiet()).await;
    again.flush().await.unwrap();
    assert_eq!(counts(&again, route), "2500/0/0 1/0/0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_old_is_unknown_and_stays_counted() {
    // Not in the Postgres that all tests share: they trim what is this old.
    let own = |place: &Place| place.url.as_deref() != Some(POSTGRES);
    for place in places("old").into_iter().filter(own) {
        let where_ = place.url.clone().unwrap_or_default();
        let route = &place.route;
        let now = Arc::new(AtomicI64::new(1_800_000_000_000));
        let keep_predictions = Duration::from_secs(7 * 24 * 3600);
        let config = ExperimentConfig { clock: clock(&now), keep_predictions, ..quiet() };
        let experiments = start(&place, config).await;
        // Eight days ago.
        now.fetch_sub(8 * 24 * 3_600_000, Ordering::Relaxed);
        experiments.sink()(told(route, &format!("{route}-a"), "m@1", &positive()));
        let outcome = || vec![item(&format!("{route}-a"), Outcome::Reward(1.0))];
        assert_eq!(experiments.feedback(outcome()).await.unwrap().joined, 1, "{where_}");
        now.fetch_add(8 * 24 * 3_600_000, Ordering::Relaxed);
        experiments.flush().await.unwrap();
        assert_eq!(experiments.feedback(outcome()).await.unwrap().unknown.len(), 1, "{where_}");
        assert_eq!(counts(&experiments, route), "1/1/1 0/0/0", "{where_}");
        experiments.forget(route).await.unwrap();
    }
}

#[tokio::test]
async fn the_queue_keeps_the_newest_and_counts_the_rest() {
    let experiments = Experiments::start(quiet(), None);
    let route = route_of("full");
    let tell = experiments.sink();
    // On one thread, nobody empties the queue meanwhile.
    for number in 0..65_636_u32 {
        tell(told(&route, &number.to_string(), "m@1", &positive()));
    }
    assert_eq!(experiments.dropped(), 100);
    tell(told(&route, &"x".repeat(257), "m@1", &positive()));
    assert_eq!(experiments.dropped(), 101, "its id is too long");
}

/// Passes connections on to Postgres for as long as it is there.
struct Proxy {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Proxy {
    async fn listen(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                open.spawn(async move {
                    let mut server = tokio::net::TcpStream::connect("127.0.0.1:5432").await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        Proxy { address, task }
    }

    /// Ends it with all its connections.
    async fn end(self) -> SocketAddr {
        self.task.abort();
        let _ = self.task.await;
        self.address
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_goes_and_comes_back_costs_nobody_an_outcome() {
    if !postgres_listens() {
        return;
    }
    let proxy = Proxy::listen(([127, 0, 0, 1], 0).into()).await;
    let url = format!("postgres://postgres@{}/test?sslmode=disable", proxy.address);
    let place = Place { url: Some(url), route: route_of("away"), _folder: None };
    let route = &place.route;
    let patience = Duration::from_millis(500);
    let experiments = start(&place, ExperimentConfig { patience, ..quiet() }).await;
    let tell = experiments.sink();
    let id = |number: usize| format!("{route}-{number}");
    tell(told(route, &id(0), "m@1", &positive()));
    experiments.flush().await.unwrap();

    let address = proxy.end().await;
    for number in 1..=100 {
        tell(told(route, &id(number), "m@2", &positive()));
    }
    let items: Vec<_> = (0..=100).map(|number| item(&id(number), Outcome::Reward(1.0))).collect();
    let error = experiments.feedback(items.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(!error.client_message().contains("postgres"), "{error:?}");

    let proxy = Proxy::listen(address).await;
    let back = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            match experiments.feedback(items.clone()).await {
                Ok(answer) => return answer,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
            }
        }
    });
    let answer = back.await.unwrap();
    assert_eq!(answer.joined + answer.duplicate.len() as u64, 101, "{answer:?}");
    experiments.flush().await.unwrap();
    assert_eq!(counts(&experiments, route), "1/1/1 100/100/100");
    assert_eq!(experiments.dropped(), 0);
    experiments.forget(route).await.unwrap();
    experiments.stop().await;
    proxy.end().await;
}

#[tokio::test]
async fn policies_ask_for_shares_where_that_is_worth_it() {
    let experiments = Experiments::start(quiet(), None);
    let tell = experiments.sink();
    let learning = route_of("learning");
    let fixed = route_of("fixed");
    let mut items = Vec::new();
    for number in 0..2_000_usize {
        // The first is right in a quarter of cases, the second in three quarters.
        let (variant, right) = match number % 2 {
            0 => ("m@1", number % 8 == 0),
            _ => ("m@2", number % 8 != 1),
        };
        for route in [&learning, &fixed] {
            tell(told(route, &number.to_string(), variant, &positive()));
        }
        items.push(item(&number.to_string(), Outcome::Reward(f64::from(u8::from(right)))));
    }
    assert_eq!(experiments.feedback(items).await.unwrap().joined, 2_000);
    experiments.flush().await.unwrap();
    let record = |policy| RouteRecord {
        spec: spec(policy),
        declared: None,
        changed_at: Timestamp::default(),
    };
    let mut world = World::default();
    world.routes.insert(learning.clone(), record(SplitPolicy::Thompson));
    world.routes.insert(fixed.clone(), record(SplitPolicy::Weights));
    let advice = experiments.advise(&world, Timestamp::default());
    let [Command::Reweigh { route, weights, reason }] = &advice[..] else { panic!("{advice:?}") };
    assert_eq!((route, &weights[..]), (&learning, &[0.01, 0.99][..]));
    let expected = "m@1: mean reward 0.2500 of 1000, m@2: mean reward 0.7500 of 1000";
    assert_eq!(reason, expected);
    let route = &mut world.routes.get_mut(&learning).unwrap().spec;
    for (target, weight) in route.targets.iter_mut().zip(weights) {
        target.weight = *weight;
    }
    assert_eq!(experiments.advise(&world, Timestamp::default()).len(), 0, "nothing new");
}

#[tokio::test]
async fn taking_note_costs_a_request_next_to_nothing() {
    let experiments = Experiments::start(quiet(), None);
    let route = route_of("cost");
    let scores = Tensor::from_vec([8, 1_000], vec![0.5_f32; 8_000]).unwrap();
    let answer = answer([("scores", scores)]);
    let tell = experiments.sink();
    let started = std::time::Instant::now();
    for number in 0..10_000_u32 {
        tell(told(&route, &number.to_string(), "m@1", &answer));
    }
    let each = started.elapsed() / 10_000;
    println!("taking note of a row of 1,000 scores takes {each:?}, not optimised");
    // A thread that is woken costs as much. This build is some 20 times slower than a release.
    assert!(each < Duration::from_micros(200), "{each:?}");
}
