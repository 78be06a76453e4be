//! Stores that cannot be opened or break off, and what is said of them.

use std::error::Error;
use std::net::TcpListener;

use outhaul_state::{StateError, Store};
use outhaul_types::error_chain;

use crate::places::{self, POSTGRES, postgres_listens};

#[tokio::test]
async fn a_path_may_have_any_characters() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["file:a?mode=memory", "50%20 #1.db", "模型", "plain.db"] {
        let path = folder.path().join(name);
        let store = Store::open_file(&path).await.unwrap();
        store.put("s", "k", name).await.unwrap();
        assert!(path.is_file(), "{name}");
        store.close().await;
        let again = Store::open_file(&path).await.unwrap();
        assert_eq!(again.get("s", "k").await.unwrap().as_deref(), Some(name));
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let path = folder.path().join("file/state.db");
    let error = Store::open(path.to_str().unwrap()).await.unwrap_err();
    assert!(matches!(error, StateError::Folder { .. }), "{error:?}");
    assert!(error.to_string().contains("file of the state store"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_something_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.db");
    let notes = "not a database, and longer than the header of one. ".repeat(40);
    std::fs::write(&path, &notes).unwrap();
    let error = Store::open(path.to_str().unwrap()).await.unwrap_err();
    assert!(error_chain(&error).contains("file is not a database"), "{error:?}");
    assert!(!error.is_passing());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), notes);
}

#[tokio::test]
async fn a_folder_in_place_of_the_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    std::fs::create_dir(&path).unwrap();
    let error = Store::open(path.to_str().unwrap()).await.unwrap_err();
    assert!(error.to_string().starts_with("could not open the file in the state store"), "{error}");
    assert!(!error.is_passing());
}

#[tokio::test]
async fn a_server_that_is_away_may_come_back() {
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let url = format!("postgres://ann:secret@127.0.0.1:{port}/test");
    let error = Store::open(&url).await.unwrap_err();
    assert!(error.is_passing(), "{error:?}");
    let shown = format!("'postgres://ann:***@127.0.0.1:{port}/test'");
    assert_eq!(error.to_string(), format!("could not connect in the state store {shown}"));
    let cause = error.source().unwrap().to_string();
    assert!(cause.contains("refused"), "{cause}");
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
}

#[tokio::test]
async fn a_database_that_does_not_exist_stays_away() {
    if !postgres_listens() {
        println!("skipped: no Postgres listens on 127.0.0.1:5432");
        return;
    }
    let url = POSTGRES.replace("/test", "/outhaul_nobody_made_this");
    let error = Store::open(&url).await.unwrap_err();
    assert!(error_chain(&error).contains("does not exist"), "{error:?}");
    assert!(!error.is_passing());
}

#[tokio::test]
async fn connections_that_a_server_ends_are_made_anew() {
    let Some(place) = places::postgres().await else { return };
    let case = |opener: places::Opener| async move {
        let program = format!("outhaul_test_{}", std::process::id());
        let url = format!("{}&application_name={program}", opener.url);
        let store = Store::open(&url).await.unwrap();
        store.put("s", "k", "v").await.unwrap();
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name";
        opener.say(&format!("{end} = '{program}'")).await;
        assert_eq!(store.get("s", "k").await.unwrap().as_deref(), Some("v"));
    };
    place.run(|opener| Box::pin(case(opener))).await;
}
