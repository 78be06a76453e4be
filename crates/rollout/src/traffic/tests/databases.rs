//! Two replicas on one real database.

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, ConnectOptions, Executor};

use super::rollouts::{phase, spec};
use super::*;

/// How long a test waits for what is to happen before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

fn quick(replica: &str) -> TrafficConfig {
    let ms = Duration::from_millis;
    TrafficConfig {
        interval: ms(5),
        observe: ms(20),
        patience: PATIENCE,
        ..TrafficConfig::new(replica)
    }
}

async fn open(url: &str, replica: &str) -> Arc<Traffic> {
    let store = Store::open(url).await.unwrap();
    Traffic::start(quick(replica), router(), Some(store)).await.unwrap()
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

const ROUNDS: usize = 12;

async fn change(traffic: Arc<Traffic>, number: usize) {
    for round in 0..ROUNDS {
        let (to, by) = (remote(&format!("{number}-{round}")), format!("{number}-{round}"));
        traffic.command(set("shared", &to), &by).await.unwrap();
    }
}

/// Changes of two replicas at once, and a roll-out that both see through.
async fn agree(url: String) {
    let (a, b) = (open(&url, "a").await, open(&url, "b").await);
    let changes =
        [tokio::spawn(change(Arc::clone(&a), 0)), tokio::spawn(change(Arc::clone(&b), 1))];
    for change in changes {
        change.await.unwrap();
    }
    let entries = b.journal(Some("shared"), 1_000).await.unwrap();
    let by: BTreeSet<&str> = entries.iter().map(|entry| entry.by.as_str()).collect();
    assert_eq!((entries.len(), by.len()), (2 * ROUNDS, 2 * ROUNDS), "each once");
    eventually("they agree", || a.world() == b.world()).await;

    a.command(set("reviews", &remote("one")), "ann").await.unwrap();
    let spec = RolloutSpec { every: Duration::from_millis(50), ..spec(&[]) };
    let start = Command::Start { route: name("reviews"), spec, in_service: None };
    a.command(start, "ann").await.unwrap();
    let is = |traffic: &Traffic, phase: Phase| {
        let world = traffic.world();
        world.rollouts.get(&name("reviews")).is_some_and(|rollout| rollout.phase == phase)
    };
    eventually("both see it promoted", || is(&a, Phase::Promoted) && is(&b, Phase::Promoted)).await;
    b.command(Command::Rollback { route: name("reviews") }, "bob").await.unwrap();
    assert_eq!(phase(&b), Phase::RolledBack);
    eventually("the other rolls back too", || is(&a, Phase::RolledBack)).await;
    assert_eq!(leads_to(&a, "reviews"), Some(remote("one").to_string()));
    a.stop().await;
    b.stop().await;
    let again = open(&url, "c").await;
    assert_eq!(again.world(), a.world(), "a restart finds it so");
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_on_one_file_agree() {
    let folder = tempfile::tempdir().unwrap();
    agree(folder.path().join("state.db").display().to_string()).await;
}

const POSTGRES: &str = "postgres://postgres@127.0.0.1:5432/test";

async fn say_to_postgres(statement: String) -> Result<(), sqlx::Error> {
    let options: sqlx::postgres::PgConnectOptions = POSTGRES.parse()?;
    options.connect().await?.execute(AssertSqlSafe(statement)).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_on_one_postgres_agree() {
    let schema = format!("outhaul_traffic_{}", std::process::id());
    if let Err(error) = say_to_postgres(format!("CREATE SCHEMA {schema}")).await {
        let required = std::env::var("OUTHAUL_REQUIRE_CLIENTS").is_ok_and(|value| value == "1");
        assert!(!required, "Postgres is required: {error}");
        println!("skipped: no Postgres on 127.0.0.1:5432 ({error})");
        return;
    }
    let url = format!("{POSTGRES}?options=-csearch_path%3D{schema}");
    let outcome = tokio::spawn(agree(url)).await;
    say_to_postgres(format!("DROP SCHEMA {schema} CASCADE")).await.unwrap();
    if let Err(error) = outcome {
        std::panic::resume_unwind(error.into_panic());
    }
}
