use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::{join_all, pending};
use futures_util::{FutureExt, poll};
use tokio::sync::Notify;

use super::*;
use crate::KeyBuilder;
use crate::testing::kept;

mod shared;

type Cache = AnswerCache<Arc<str>>;

fn spec(store: CacheStore) -> CacheSpec {
    CacheSpec { capacity: 1 << 20, ttl: None, store }
}

fn cache_with(spec: &CacheSpec, store: Option<SharedStore>) -> (Cache, Arc<CacheMetrics>) {
    let metrics = Arc::new(CacheMetrics::default());
    let model = ModelName::new("iris").unwrap();
    (AnswerCache::new(model, spec, store, Arc::clone(&metrics)), metrics)
}

fn in_memory() -> Cache {
    cache_with(&spec(CacheStore::Memory), None).0
}

fn ask(number: u64) -> Ask {
    Ask { key: KeyBuilder::new().number(number).finish(), bypass: false, deadline: None, lane: 0 }
}

fn within(number: u64, millis: u64) -> Ask {
    let now = tokio::time::Instant::now().into_std();
    Ask { deadline: Deadline::after(now, Duration::from_millis(millis)), ..ask(number) }
}

/// A model that counts how often it is asked.
#[derive(Clone, Default)]
struct Model(Arc<AtomicUsize>);

impl Model {
    fn runs(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Answers with a value at once.
    fn gives(&self, value: f32) -> impl FnOnce() -> BoxFuture<'static, Result<Kept, Arc<str>>> {
        self.after(async {}, Ok(kept(value)))
    }

    fn after(
        &self,
        first: impl Future<Output = ()> + Send + 'static,
        answer: Result<Kept, Arc<str>>,
    ) -> impl FnOnce() -> BoxFuture<'static, Result<Kept, Arc<str>>> {
        let runs = Arc::clone(&self.0);
        move || {
            async move {
                runs.fetch_add(1, Ordering::SeqCst);
                first.await;
                answer
            }
            .boxed()
        }
    }
}

fn told(found: Result<Found, Missed<Arc<str>>>) -> (CacheStatus, Kept) {
    let found = found.unwrap();
    (found.status, (*found.kept).clone())
}

#[tokio::test]
async fn an_answer_is_computed_once_and_then_found() {
    let (cache, metrics) = cache_with(&spec(CacheStore::Memory), None);
    let model = Model::default();
    let first = cache.get_or_compute(ask(1), model.gives(1.0)).await;
    assert_eq!(told(first), (CacheStatus::Miss, kept(1.0)));
    assert_eq!(metrics.entries.load(Ordering::Relaxed), 1);
    for _ in 0..3 {
        let again = cache.get_or_compute(ask(1), model.gives(2.0)).await;
        assert_eq!(told(again), (CacheStatus::Hit, kept(1.0)));
    }
    let other = cache.get_or_compute(ask(2), model.gives(3.0)).await;
    assert_eq!(told(other), (CacheStatus::Miss, kept(3.0)));
    assert_eq!(model.runs(), 2);
    let kept = metrics.bytes.load(Ordering::Relaxed);
    assert!((32..2000).contains(&kept), "{kept} bytes");
    drop(cache);
    assert_eq!(metrics.entries.load(Ordering::Relaxed), 0, "they go with their version");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_equal_requests_compute_once() {
    for round in 0..20 {
        let (cache, model, gate) = (in_memory(), Model::default(), Arc::new(Notify::new()));
        let asked = Arc::new(AtomicUsize::new(0));
        let one = || {
            let (cache, model, gate) = (cache.clone(), model.clone(), Arc::clone(&gate));
            let asked = Arc::clone(&asked);
            tokio::spawn(async move {
                asked.fetch_add(1, Ordering::SeqCst);
                let opened = async move { gate.notified().await };
                cache.get_or_compute(ask(7), model.after(opened, Ok(kept(1.0)))).await
            })
        };
        let all: Vec<_> = (0..1000).map(|_| one()).collect();
        // Half the rounds answer while requests are still coming.
        while asked.load(Ordering::SeqCst) < if round % 2 == 0 { 1000 } else { 300 } {
            tokio::task::yield_now().await;
        }
        gate.notify_one();
        let mut statuses = Vec::new();
        for answer in join_all(all).await {
            let (status, answer) = told(answer.unwrap());
            assert_eq!(answer, kept(1.0));
            statuses.push(status);
        }
        let count = |of| statuses.iter().filter(|status| **status == of).count();
        assert_eq!(model.runs(), 1, "round {round}");
        assert_eq!(count(CacheStatus::Miss), 1);
        assert_eq!(count(CacheStatus::Joined) + count(CacheStatus::Hit), 999);
        assert_eq!(cache.0.in_flight.len(), 0);
    }
}

#[tokio::test]
async fn one_who_leaves_fails_nobody_else() {
    let (cache, model, gate) = (in_memory(), Model::default(), Arc::new(Notify::new()));
    let opened = {
        let gate = Arc::clone(&gate);
        async move { gate.notified().await }
    };
    let mut leader = Box::pin(cache.get_or_compute(ask(1), model.after(opened, Ok(kept(1.0)))));
    let mut joiner = Box::pin(cache.get_or_compute(ask(1), model.gives(2.0)));
    assert!(poll!(&mut leader).is_pending());
    assert!(poll!(&mut joiner).is_pending());
    drop(leader);
    gate.notify_one();
    assert_eq!(told(joiner.await), (CacheStatus::Joined, kept(1.0)));
    assert_eq!(model.runs(), 1);
}

#[tokio::test]
async fn what_nobody_waits_for_is_given_up() {
    let (cache, model) = (in_memory(), Model::default());
    let dropped = Arc::new(());
    let held = Arc::clone(&dropped);
    let forever = async move {
        let _held = held;
        pending::<()>().await;
    };
    let mut only = Box::pin(cache.get_or_compute(ask(1), model.after(forever, Ok(kept(1.0)))));
    assert!(poll!(&mut only).is_pending());
    assert_eq!((Arc::strong_count(&dropped), cache.0.in_flight.len()), (2, 1));
    drop(only);
    assert_eq!((Arc::strong_count(&dropped), cache.0.in_flight.len()), (1, 0));
    let next = cache.get_or_compute(ask(1), model.gives(2.0)).await;
    assert_eq!(told(next), (CacheStatus::Miss, kept(2.0)));
}

#[tokio::test]
async fn an_error_is_told_to_all_and_not_kept() {
    let (cache, model, gate) = (in_memory(), Model::default(), Arc::new(Notify::new()));
    let opened = {
        let gate = Arc::clone(&gate);
        async move { gate.notified().await }
    };
    let mut leader =
        Box::pin(cache.get_or_compute(ask(1), model.after(opened, Err("broken".into()))));
    let mut joiner = Box::pin(cache.get_or_compute(ask(1), model.gives(2.0)));
    assert!(poll!(&mut leader).is_pending());
    assert!(poll!(&mut joiner).is_pending());
    gate.notify_one();
    for answer in [leader.await, joiner.await] {
        assert_eq!(answer.unwrap_err(), Missed::Failed("broken".into()));
    }
    let next = cache.get_or_compute(ask(1), model.gives(2.0)).await;
    assert_eq!(told(next), (CacheStatus::Miss, kept(2.0)));
    assert_eq!(model.runs(), 2);
}

#[tokio::test(start_paused = true)]
async fn each_who_waits_keeps_its_own_deadline() {
    let (cache, model) = (in_memory(), Model::default());
    let slow = || tokio::time::sleep(Duration::from_millis(50));
    let begun = tokio::time::Instant::now();
    let answers = tokio::join!(
        async {
            let late = cache.get_or_compute(within(1, 20), model.after(slow(), Ok(kept(1.0))));
            (late.await.map(drop), begun.elapsed().as_millis())
        },
        async {
            let later = cache.get_or_compute(within(1, 10), model.gives(2.0)).await;
            (later.map(drop), begun.elapsed().as_millis())
        },
        async {
            let answer = cache.get_or_compute(within(1, 60), model.gives(3.0)).await;
            assert_eq!(told(answer), (CacheStatus::Joined, kept(1.0)));
            begun.elapsed().as_millis()
        },
    );
    let (leader, joiner, patient) = &answers;
    assert_eq!(leader.0, Err(Missed::Late), "the first to come has a deadline too");
    assert_eq!(joiner.0, Err(Missed::Late));
    // Tokio's timers are whole milliseconds.
    assert!((20..=21).contains(&leader.1) && (10..=11).contains(&joiner.1), "{answers:?}");
    assert!((50..=51).contains(patient), "{answers:?}");
    assert_eq!(model.runs(), 1);
    let over = cache.get_or_compute(within(2, 0), model.gives(4.0)).await;
    assert_eq!(over.map(drop), Err(Missed::Late));
    assert_eq!(model.runs(), 1, "nothing is begun for one who is late already");
}

#[tokio::test]
async fn a_fresh_answer_replaces_the_old_one() {
    let (cache, model) = (in_memory(), Model::default());
    let fresh = |number| Ask { bypass: true, ..ask(number) };
    told(cache.get_or_compute(ask(1), model.gives(1.0)).await);
    let bypassed = cache.get_or_compute(fresh(1), model.gives(2.0)).await;
    assert_eq!(told(bypassed), (CacheStatus::Bypassed, kept(2.0)));
    let next = cache.get_or_compute(ask(1), model.gives(3.0)).await;
    assert_eq!(told(next), (CacheStatus::Hit, kept(2.0)));
    // It does not join an older computation either.
    let mut old = Box::pin(cache.get_or_compute(ask(2), model.after(pending(), Ok(kept(4.0)))));
    assert!(poll!(&mut old).is_pending());
    let bypassed = cache.get_or_compute(fresh(2), model.gives(5.0)).await;
    assert_eq!(told(bypassed), (CacheStatus::Bypassed, kept(5.0)));
    let failed = cache.get_or_compute(fresh(1), model.after(async {}, Err("broken".into()))).await;
    assert_eq!(failed.map(drop), Err(Missed::Failed("broken".into())));
    assert_eq!(cache.peek(&ask(1).key).as_deref(), Some(&kept(2.0)), "the old one is still good");
}
