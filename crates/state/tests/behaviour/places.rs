//! Where the cases run: a fresh place for each, gone afterwards.

use std::net::TcpStream;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use outhaul_state::{StateError, Store};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};
use tempfile::TempDir;

/// Opens stores at one place, each a handle of its own.
#[derive(Clone)]
pub(crate) struct Opener {
    pub(crate) url: String,
}

impl Opener {
    pub(crate) async fn open(&self) -> Store {
        self.try_open().await.expect("the store opens")
    }

    pub(crate) async fn try_open(&self) -> Result<Store, StateError> {
        Store::open(&self.url).await
    }

    /// Says something to the database behind the store's back.
    pub(crate) async fn say(&self, statement: &str) {
        let statement = AssertSqlSafe(statement.to_owned());
        if self.url.starts_with("postgres") {
            let options: sqlx::postgres::PgConnectOptions = self.url.parse().unwrap();
            options.connect().await.unwrap().execute(statement).await.unwrap();
        } else {
            let options: sqlx::sqlite::SqliteConnectOptions = self.url.parse().unwrap();
            options.connect().await.unwrap().execute(statement).await.unwrap();
        }
    }
}

/// A fresh place and what has to go when the test ends.
pub(crate) struct Place {
    opener: Opener,
    folder: Option<TempDir>,
    schema: Option<String>,
}

type Case = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Place {
    /// Runs one case, and cleans up whatever became of it.
    pub(crate) async fn run(self, case: impl FnOnce(Opener) -> Case) {
        let outcome = tokio::spawn(case(self.opener.clone())).await;
        if let Some(schema) = &self.schema {
            say_to_postgres(&format!("DROP SCHEMA {schema} CASCADE")).await;
        }
        drop(self.folder);
        if let Err(error) = outcome {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

pub(crate) async fn sqlite_memory() -> Option<Place> {
    let opener = Opener { url: "sqlite::memory:".to_owned() };
    Some(Place { opener, folder: None, schema: None })
}

pub(crate) async fn sqlite_file() -> Option<Place> {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/not made yet/state.db", folder.path().display());
    let opener = Opener { url: url.replace(' ', "%20") };
    Some(Place { opener, folder: Some(folder), schema: None })
}

/// A schema of its own on the server that listens here. `None` only where nothing listens.
pub(crate) async fn postgres() -> Option<Place> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    if !postgres_listens() {
        println!("skipped: no Postgres listens on 127.0.0.1:5432");
        return None;
    }
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let schema = format!("outhaul_test_{}_{number}", std::process::id());
    say_to_postgres(&format!("CREATE SCHEMA {schema}")).await;
    let opener = Opener { url: format!("{POSTGRES}?options=-csearch_path%3D{schema}") };
    Some(Place { opener, folder: None, schema: Some(schema) })
}

pub(crate) fn postgres_listens() -> bool {
    let address = ([127, 0, 0, 1], 5432).into();
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

pub(crate) const POSTGRES: &str = "postgres://postgres@127.0.0.1:5432/test";

async fn say_to_postgres(statement: &str) {
    Opener { url: POSTGRES.to_owned() }.say(statement).await;
}
