//! Replicas over books that fail when the test says so, in a time that passes only when nothing else happens.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use outhaul_monitor::Monitor;
use outhaul_repository::Catalog;
use outhaul_types::{SplitPolicy, TargetSpec};

use super::*;
use crate::journal;
use crate::plan::What;
use crate::traffic::books::Answer;
use crate::world::{Phase, RolloutSpec};
use outhaul_state::{Record, StateError};

mod databases;
mod histories;
mod outages;
mod past;
mod rollouts;

/// How the books answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    There,
    /// Every call fails.
    Away,
    /// No call ends.
    Hangs,
    /// What is to be exchanged is, and then the answer is lost, this many times.
    LosesAnswers(usize),
    /// What is to be exchanged next is, and then nothing answers any more.
    LosesAnswerAndGoes,
}

/// Books that several replicas share.
#[derive(Clone)]
struct Shared {
    memory: Arc<Memory>,
    mood: Arc<Mutex<Mood>>,
}

impl Default for Shared {
    fn default() -> Self {
        Shared { memory: Arc::default(), mood: Arc::new(Mutex::new(Mood::There)) }
    }
}

fn away<T>() -> Result<T, StateError> {
    Err(StateError::TimedOut {
        attempt: "ask".to_owned(),
        url: "test".to_owned(),
        limit: Duration::ZERO,
    })
}

impl Shared {
    fn becomes(&self, mood: Mood) {
        *lock(&self.mood) = mood;
    }

    fn ask<'a, T: Send + 'a>(&'a self, call: Answer<'a, T>) -> Answer<'a, T> {
        let mood = *lock(&self.mood);
        Box::pin(async move {
            // Others have their turn while one waits for an answer.
            tokio::task::yield_now().await;
            match mood {
                Mood::There | Mood::LosesAnswers(_) | Mood::LosesAnswerAndGoes => call.await,
                Mood::Away => away(),
                Mood::Hangs => std::future::pending().await,
            }
        })
    }

    /// What is written down, oldest first.
    fn journal(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self.of(journal::SPACE);
        entries.reverse();
        entries
    }

    fn of(&self, space: &str) -> Vec<Entry> {
        let listed = futures_now(self.memory.list_last(space, None, u32::MAX));
        listed.iter().filter_map(|(_, value)| journal::read(value)).collect()
    }

    fn keys(&self, space: &str) -> Vec<String> {
        let listed = futures_now(self.memory.list(space));
        listed.into_iter().map(|(key, _)| key).collect()
    }
}

/// The answer of memory, which never waits.
fn futures_now<T>(answer: Answer<'_, T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(answer).poll(&mut context) {
        std::task::Poll::Ready(Ok(value)) => value,
        _ => panic!("memory answers at once"),
    }
}

impl Books for Shared {
    fn get<'a>(&'a self, space: &'a str, key: &'a str) -> Answer<'a, Option<String>> {
        self.ask(self.memory.get(space, key))
    }

    fn put<'a>(&'a self, record: &'a Record) -> Answer<'a, ()> {
        self.ask(self.memory.put(record))
    }

    fn exchange<'a>(
        &'a self,
        record: &'a Record,
        expected: Option<&'a str>,
        others: &'a [Record],
    ) -> Answer<'a, bool> {
        let mood = *lock(&self.mood);
        match mood {
            Mood::There => self.memory.exchange(record, expected, others),
            Mood::Away => Box::pin(std::future::ready(away())),
            Mood::Hangs => Box::pin(std::future::pending()),
            Mood::LosesAnswers(left) => {
                self.becomes(if left > 1 { Mood::LosesAnswers(left - 1) } else { Mood::There });
                let _done = self.memory.exchange(record, expected, others);
                Box::pin(std::future::ready(away()))
            }
            Mood::LosesAnswerAndGoes => {
                self.becomes(Mood::Away);
                let _done = self.memory.exchange(record, expected, others);
                Box::pin(std::future::ready(away()))
            }
        }
    }

    fn list<'a>(&'a self, space: &'a str) -> Answer<'a, Vec<(String, String)>> {
        self.ask(self.memory.list(space))
    }

    fn list_last<'a>(
        &'a self,
        space: &'a str,
        before: Option<&'a str>,
        limit: u32,
    ) -> Answer<'a, Vec<(String, String)>> {
        self.ask(self.memory.list_last(space, before, limit))
    }

    fn delete<'a>(&'a self, space: &'a str, key: &'a str) -> Answer<'a, bool> {
        self.ask(self.memory.delete(space, key))
    }
}

fn name(text: &str) -> ModelName {
    ModelName::new(text).unwrap()
}

/// What answers without being loaded: nothing here is asked.
fn remote(model: &str) -> Destination {
    format!("http://127.0.0.1:1/v2/models/{model}").parse().unwrap()
}

fn router() -> Arc<Router> {
    Router::new(Arc::new(Catalog::new()), Arc::new(Monitor::new())).shared()
}

/// A time that passes with tokio's, the same for all replicas.
fn clock() -> Clock {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let began = *BEGAN;
    Arc::new(move || {
        let passed = instant().saturating_duration_since(began).as_millis();
        Timestamp(1_000_000 + i64::try_from(passed).unwrap())
    })
}

fn config(replica: &str) -> TrafficConfig {
    TrafficConfig { clock: clock(), ..TrafficConfig::new(replica) }
}

async fn replica(shared: &Shared, name: &str) -> Arc<Traffic> {
    start(shared, config(name)).await.unwrap()
}

async fn start(shared: &Shared, config: TrafficConfig) -> Result<Arc<Traffic>, TrafficError> {
    Traffic::start_over(config, router(), Box::new(shared.clone())).await
}

/// Lets time pass, which is held otherwise.
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

const SECOND: Duration = Duration::from_secs(1);

fn set(route: &str, to: &Destination) -> Command {
    Command::SetRoute { route: name(route), spec: RouteSpec::to(to.clone()) }
}

/// Where the first target of a route leads, as requests are dealt here.
fn leads_to(traffic: &Traffic, route: &str) -> Option<String> {
    let table = traffic.router.routes();
    table.route(route).map(|route| route.variants()[0].to.to_string())
}

/// The shares of a route, in percent.
fn shares(traffic: &Traffic, route: &str) -> Vec<i64> {
    let table = traffic.router.routes();
    let route = table.route(route).expect("there is a route");
    route.variants().iter().map(|variant| (variant.share * 100.0).round() as i64).collect()
}

#[tokio::test(start_paused = true)]
async fn a_change_is_in_effect_when_the_command_returns_and_soon_everywhere() {
    let shared = Shared::default();
    let (a, b) = (replica(&shared, "a").await, replica(&shared, "b").await);
    let applied = a.command(set("reviews", &remote("one")), "ann").await.unwrap();
    assert!(applied.kept);
    assert_eq!(applied.entries.len(), 1);
    assert_eq!(leads_to(&a, "reviews"), Some(remote("one").to_string()));
    assert_eq!(a.router.routes().generation(), a.world().generation);
    pass(SECOND / 2).await;
    assert_eq!(leads_to(&b, "reviews"), Some(remote("one").to_string()));
    assert_eq!(a.world(), b.world());
    let same = a.command(set("reviews", &remote("one")), "ann").await.unwrap();
    assert!(same.entries.is_empty(), "nothing changed, nothing is told");
    let entries = b.journal(None, 10).await.unwrap();
    assert_eq!((entries.len(), entries[0].by.as_str()), (1, "ann"));
    let refused = b.command(Command::RemoveRoute { route: name("other") }, "ann").await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
    b.command(Command::RemoveRoute { route: name("reviews") }, "bob").await.unwrap();
    pass(SECOND / 2).await;
    assert_eq!((leads_to(&a, "reviews"), leads_to(&b, "reviews")), (None, None));
    let by: Vec<String> =
        a.journal(Some("reviews"), 10).await.unwrap().into_iter().map(|entry| entry.by).collect();
    assert_eq!(by, ["bob", "ann"], "the newest first");
    assert_eq!(a.journal(Some("reviews"), 1).await.unwrap().len(), 1);
    assert!(a.journal(Some("nobody"), 10).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_a_store_all_is_as_with_one_until_the_process_ends() {
    let traffic = Traffic::start(config("a"), router(), None).await.unwrap();
    traffic.command(set("reviews", &remote("one")), "ann").await.unwrap();
    assert_eq!(leads_to(&traffic, "reviews"), Some(remote("one").to_string()));
    assert_eq!(traffic.journal(None, 10).await.unwrap().len(), 1);
    traffic.stop().await;
    let again = Traffic::start(config("b"), router(), None).await.unwrap();
    assert_eq!(leads_to(&again, "reviews"), None);
}

#[tokio::test(start_paused = true)]
async fn what_is_declared_is_taken_over_once_and_changes_since_survive_a_restart() {
    let shared = Shared::default();
    let declared = |to: &str| BTreeMap::from([(name("reviews"), RouteSpec::to(remote(to)))]);
    let begin =
        |replica: &str, to: &str| TrafficConfig { declared: declared(to), ..config(replica) };
    let first = start(&shared, begin("a", "one")).await.unwrap();
    assert_eq!(leads_to(&first, "reviews"), Some(remote("one").to_string()));
    first.command(set("reviews", &remote("two")), "ann").await.unwrap();
    first.stop().await;
    let second = start(&shared, begin("b", "one")).await.unwrap();
    assert_eq!(leads_to(&second, "reviews"), Some(remote("two").to_string()));
    second.stop().await;
    let third = start(&shared, begin("c", "three")).await.unwrap();
    assert_eq!(leads_to(&third, "reviews"), Some(remote("three").to_string()), "the file changed");
    let what: Vec<What> = shared.journal().into_iter().map(|entry| entry.what).collect();
    assert_eq!(what, [What::RouteDeclared, What::RouteSet, What::RouteDeclared]);
    let wrong = RouteSpec { targets: Vec::new(), ..RouteSpec::to(remote("one")) };
    let wrong = TrafficConfig { declared: [(name("x"), wrong)].into(), ..config("d") };
    assert_eq!(start(&shared, wrong).await.err().unwrap().kind(), ErrorKind::InvalidInput);
}

#[tokio::test(start_paused = true)]
async fn replicas_that_change_things_at_once_are_all_journalled_once() {
    let shared = Shared::default();
    let replicas = [replica(&shared, "a").await, replica(&shared, "b").await];
    let changes = replicas.iter().enumerate().map(|(number, traffic)| {
        let traffic = Arc::clone(traffic);
        tokio::spawn(async move {
            for round in 0..30 {
                let to = remote(&format!("{number}-{round}"));
                let route =
                    if round % 3 == 0 { "shared".to_owned() } else { format!("own{number}") };
                let by = format!("{number}-{round}");
                traffic.command(set(&route, &to), &by).await.unwrap();
            }
        })
    });
    for change in changes.collect::<Vec<_>>() {
        change.await.unwrap();
    }
    let entries = shared.journal();
    let by: std::collections::BTreeSet<&str> = entries.iter().map(|e| e.by.as_str()).collect();
    assert_eq!((entries.len(), by.len()), (60, 60));
    pass(SECOND / 2).await;
    assert_eq!(replicas[0].world(), replicas[1].world());
    assert_eq!(replicas[0].world().generation, 60);
}

/// Asks for the other of two weightings each time.
struct Swings(Arc<AtomicUsize>);

impl Advisor for Swings {
    fn advise(&self, world: &World, _: Timestamp) -> Vec<Command> {
        let asked = self.0.fetch_add(1, Ordering::SeqCst);
        let weights = if asked.is_multiple_of(2) { vec![1.0, 3.0] } else { vec![1.0, 1.0] };
        let reason = "it swings".to_owned();
        let reweigh = |route: &ModelName| Command::Reweigh {
            route: route.clone(),
            weights: weights.clone(),
            reason: reason.clone(),
        };
        world.routes.keys().map(reweigh).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn one_replica_asks_its_advisors() {
    let shared = Shared::default();
    let asked = Arc::new(AtomicUsize::new(0));
    let advised = |replica: &str| TrafficConfig {
        advisors: vec![Box::new(Swings(Arc::clone(&asked)))],
        ..config(replica)
    };
    let a = start(&shared, advised("a")).await.unwrap();
    let _b = start(&shared, advised("b")).await.unwrap();
    pass(SECOND * 15).await;
    assert_eq!(asked.load(Ordering::SeqCst), 0, "there is nothing to weigh");
    let target = |to: &str| TargetSpec { to: remote(to), weight: 1.0 };
    let spec = RouteSpec {
        targets: vec![target("one"), target("two")],
        policy: SplitPolicy::Thompson,
        feedback: true,
        ..RouteSpec::to(remote("one"))
    };
    a.command(Command::SetRoute { route: name("reviews"), spec }, "ann").await.unwrap();
    pass(SECOND * 35).await;
    let times = asked.load(Ordering::SeqCst);
    assert!((3..=4).contains(&times), "every ten seconds, by one of two: {times}");
    let reweighed = shared.journal().iter().filter(|entry| entry.what == What::Reweighed).count();
    assert_eq!(reweighed, times);
    assert_eq!(shared.journal().last().unwrap().by, "advisor");
}

#[tokio::test(start_paused = true)]
async fn what_a_newer_release_wrote_is_left_alone() {
    let shared = Shared::default();
    let a = replica(&shared, "a").await;
    a.command(set("reviews", &remote("one")), "ann").await.unwrap();
    let newer = r#"{"generation":9,"routes":{},"rollouts":{},"weather":"fine"}"#;
    let record =
        Record { space: agree::SPACE.to_owned(), key: "world".to_owned(), value: newer.to_owned() };
    shared.memory.put(&record).await.unwrap();
    pass(SECOND).await;
    assert_eq!(leads_to(&a, "reviews"), Some(remote("one").to_string()), "it stays as it was");
    let error = a.command(set("reviews", &remote("two")), "ann").await.unwrap_err();
    assert!(matches!(error, TrafficError::NotUnderstood { .. }), "{error:?}");
    assert_eq!(shared.memory.get(agree::SPACE, "world").await.unwrap().as_deref(), Some(newer));
    let error = start(&shared, config("b")).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_emptied_is_filled_again() {
    let shared = Shared::default();
    let a = replica(&shared, "a").await;
    a.command(set("reviews", &remote("one")), "ann").await.unwrap();
    shared.memory.delete(agree::SPACE, "world").await.unwrap();
    pass(SECOND).await;
    assert_eq!(leads_to(&a, "reviews"), Some(remote("one").to_string()));
    let b = replica(&shared, "b").await;
    assert_eq!(leads_to(&b, "reviews"), Some(remote("one").to_string()));
}
