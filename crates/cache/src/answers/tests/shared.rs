//! With a real Redis at 127.0.0.1:6379.

use std::net::SocketAddr;
use std::time::Instant;

use redis::aio::MultiplexedConnection;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::*;

const REDIS: &str = "127.0.0.1:6379";

/// A connection of the test's own, or `None` where there is no Redis.
async fn connect() -> Option<MultiplexedConnection> {
    let client = redis::Client::open(format!("redis://{REDIS}")).unwrap();
    match client.get_multiplexed_async_connection().await {
        Ok(connection) => Some(connection),
        Err(error) if std::env::var_os("OUTHAUL_REQUIRE_CLIENTS").is_none() => {
            println!("skipped: no Redis at {REDIS}: {error}");
            None
        }
        Err(error) => panic!("no Redis at {REDIS}: {error}"),
    }
}

/// A key that no other run has.
fn unique() -> Ask {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let count = COUNT.fetch_add(1, Ordering::Relaxed) as u64;
    let key = KeyBuilder::new().number(now).number(count).number(std::process::id().into());
    Ask { key: key.finish(), bypass: false, deadline: None, lane: 0 }
}

async fn store(place: &str) -> SharedStore {
    let store = SharedStore::new(&format!("redis://{place}")).unwrap();
    assert!(store.connect().await);
    store
}

fn name(ask: &Ask) -> String {
    format!("outhaul:cache:1:{}", ask.key)
}

/// Waits until Redis holds an answer, and returns the milliseconds that it is good for.
async fn stored(redis: &mut MultiplexedConnection, ask: &Ask) -> i64 {
    let begun = Instant::now();
    loop {
        let left: i64 = redis::cmd("PTTL").arg(name(ask)).query_async(redis).await.unwrap();
        if left != -2 {
            return left;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "it was never stored");
    }
}

async fn delete(redis: &mut MultiplexedConnection, ask: &Ask) {
    redis::cmd("DEL").arg(name(ask)).query_async::<()>(redis).await.unwrap();
}

#[tokio::test]
async fn replicas_share_answers() {
    let Some(mut redis) = connect().await else { return };
    let ttl = Some(Duration::from_secs(60));
    for (kind, local) in [(CacheStore::Redis, false), (CacheStore::Both, true)] {
        let (model, ask) = (Model::default(), unique());
        let spec = CacheSpec { ttl, ..spec(kind) };
        let (one, _) = cache_with(&spec, Some(store(REDIS).await));
        let (other, metrics) = cache_with(&spec, Some(store(REDIS).await));
        let computed = one.get_or_compute(ask, model.gives(1.0)).await;
        assert_eq!(told(computed), (CacheStatus::Miss, kept(1.0)));
        let left = stored(&mut redis, &ask).await;
        assert!((1..=60_000).contains(&left), "it is good for {left} ms");
        for again in [false, true] {
            let found = other.get_or_compute(ask, model.gives(2.0)).await.unwrap();
            assert_eq!((found.status, &*found.kept), (CacheStatus::Hit, &kept(1.0)));
            assert_eq!(
                found.is_shared,
                !(again && local),
                "{kind:?}: from memory once it is there"
            );
        }
        assert_eq!(other.peek(&ask.key).is_some(), local, "{kind:?}");
        assert_eq!(model.runs(), 1);
        assert_eq!(metrics.store_failures.get(), 0);
        delete(&mut redis, &ask).await;
    }
}

#[tokio::test]
async fn what_is_good_for_ever_leaves_redis_all_the_same() {
    let Some(mut redis) = connect().await else { return };
    let (model, ask) = (Model::default(), unique());
    let (cache, _) = cache_with(&spec(CacheStore::Redis), Some(store(REDIS).await));
    told(cache.get_or_compute(ask, model.gives(1.0)).await);
    let left = stored(&mut redis, &ask).await;
    assert!((1..=24 * 60 * 60 * 1000).contains(&left), "it is good for {left} ms");
    delete(&mut redis, &ask).await;
}

#[tokio::test]
async fn an_answer_has_no_more_time_in_memory_than_it_had_left_in_redis() {
    let Some(mut redis) = connect().await else { return };
    let (model, ask) = (Model::default(), unique());
    let spec = CacheSpec { ttl: Some(Duration::from_secs(3600)), ..spec(CacheStore::Both) };
    let (one, _) = cache_with(&spec, Some(store(REDIS).await));
    told(one.get_or_compute(ask, model.gives(1.0)).await);
    stored(&mut redis, &ask).await;
    // As if most of its hour had passed.
    let mut expire = redis::cmd("PEXPIRE");
    expire.arg(name(&ask)).arg(500).query_async::<()>(&mut redis).await.unwrap();
    let (other, _) = cache_with(&spec, Some(store(REDIS).await));
    let found = other.get_or_compute(ask, model.gives(2.0)).await.unwrap();
    assert_eq!((found.status, found.is_shared), (CacheStatus::Hit, true));
    let begun = Instant::now();
    while other.peek(&ask.key).is_some() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it stays for ever");
        tokio::task::yield_now().await;
    }
    delete(&mut redis, &ask).await;
    let next = other.get_or_compute(ask, model.gives(2.0)).await;
    assert_eq!(told(next), (CacheStatus::Miss, kept(2.0)));
    stored(&mut redis, &ask).await;
    delete(&mut redis, &ask).await;
}

#[tokio::test]
async fn what_somebody_else_wrote_is_a_miss() {
    let Some(mut redis) = connect().await else { return };
    type Spoil = fn(&mut Vec<u8>);
    let cases: [(&str, Spoil); 5] = [
        ("nothing", Vec::clear),
        ("text", |whole| *whole = b"hello".to_vec()),
        ("cut off", |whole| whole.truncate(whole.len() - 1)),
        ("another form", |whole| whole[0] += 1),
        ("one bit", |whole| *whole.last_mut().unwrap() ^= 1),
    ];
    for (what, spoil) in cases {
        let (model, ask) = (Model::default(), unique());
        let mut value = codec::encode(&ask.key, &ModelName::new("iris").unwrap(), &kept(9.0));
        spoil(&mut value);
        let mut set = redis::cmd("SET");
        set.arg(name(&ask)).arg(value).arg("PX").arg(60_000);
        set.query_async::<()>(&mut redis).await.unwrap();
        let (cache, metrics) = cache_with(&spec(CacheStore::Both), Some(store(REDIS).await));
        let answer = cache.get_or_compute(ask, model.gives(1.0)).await;
        assert_eq!(told(answer), (CacheStatus::Miss, kept(1.0)), "{what}");
        assert_eq!(metrics.store_failures.get(), 0, "{what}");
        delete(&mut redis, &ask).await;
    }
    let (model, list) = (Model::default(), unique());
    redis::cmd("RPUSH").arg(name(&list)).arg(1).query_async::<()>(&mut redis).await.unwrap();
    let (cache, metrics) = cache_with(&spec(CacheStore::Redis), Some(store(REDIS).await));
    let answer = cache.get_or_compute(list, model.gives(1.0)).await;
    assert_eq!(told(answer), (CacheStatus::Miss, kept(1.0)));
    assert_eq!(metrics.store_failures.get(), 1, "Redis refuses to read a list as a string");
    delete(&mut redis, &list).await;
}

/// Stands before Redis and can be taken away.
struct Proxy {
    place: SocketAddr,
    serving: Option<JoinHandle<()>>,
}

impl Proxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut proxy = Proxy { place: listener.local_addr().unwrap(), serving: None };
        proxy.serve(listener);
        proxy
    }

    fn serve(&mut self, listener: TcpListener) {
        self.serving = Some(tokio::spawn(async move {
            // Dropped with this task, and every connection with it.
            let mut connections = JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                connections.spawn(async move {
                    let mut server = TcpStream::connect(REDIS).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        }));
    }

    async fn stop(&mut self) {
        let serving = self.serving.take().unwrap();
        serving.abort();
        let _ = serving.await;
    }

    async fn restart(&mut self) {
        self.serve(TcpListener::bind(self.place).await.unwrap());
    }
}

#[tokio::test]
async fn redis_going_away_costs_misses_only() {
    let Some(mut redis) = connect().await else { return };
    let mut proxy = Proxy::start().await;
    let place = proxy.place.to_string();
    let (cache, metrics) = cache_with(&spec(CacheStore::Redis), Some(store(&place).await));
    let (model, ask) = (Model::default(), unique());
    told(cache.get_or_compute(ask, model.gives(1.0)).await);
    stored(&mut redis, &ask).await;
    let found = cache.get_or_compute(ask, model.gives(2.0)).await;
    assert_eq!(told(found), (CacheStatus::Hit, kept(1.0)));

    proxy.stop().await;
    let begun = Instant::now();
    for run in 0..200_u8 {
        let answer = cache.get_or_compute(ask, model.gives(run.into())).await;
        assert_eq!(told(answer), (CacheStatus::Miss, kept(run.into())));
        // Time for the connection to be looked for.
        tokio::task::yield_now().await;
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "200 requests do not wait 20 ms each: {took:?}");
    assert!(metrics.store_failures.get() >= 200, "an outage is seen in the metrics");

    proxy.restart().await;
    let begun = Instant::now();
    loop {
        let answer = cache.get_or_compute(ask, model.gives(5.0)).await.unwrap();
        if answer.status == CacheStatus::Hit {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "it does not reconnect");
        tokio::task::yield_now().await;
    }
    proxy.stop().await;
    delete(&mut redis, &ask).await;
}

#[tokio::test]
async fn a_redis_that_hangs_costs_little_time() {
    // It takes connections and never says a word.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let store = SharedStore::new(&format!("redis://{}", listener.local_addr().unwrap())).unwrap();
    let (cache, metrics) = cache_with(&spec(CacheStore::Redis), Some(store));
    let model = Model::default();
    let begun = Instant::now();
    for number in 0..100 {
        let answer = cache.get_or_compute(ask(number), model.gives(1.0)).await;
        assert_eq!(told(answer), (CacheStatus::Miss, kept(1.0)));
        tokio::task::yield_now().await;
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(metrics.store_failures.get() >= 100);
    drop(listener);
}
