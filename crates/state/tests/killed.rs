//! A process that is killed while it writes leaves every record that it was told is kept, and no half of
//! the one it was writing. The writer is this test binary, started again.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use outhaul_state::{Record, Store};

const URL: &str = "OUTHAUL_STATE_TEST_URL";
/// Big enough for a record to take many pages of the file.
const COPIES: usize = 20_000;

#[test]
fn what_was_told_kept_survives_kill() {
    kill("writes_until_killed", |first, second| first == second || first == second + 1);
}

#[test]
fn what_is_exchanged_together_is_there_together_after_a_kill() {
    kill("exchanges_until_killed", |first, second| first == second);
}

/// Kills the writer of this name again and again, and looks what it has left: the numbers of two records.
fn kill(writer: &str, holds: impl Fn(u64, u64) -> bool) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut told = None;
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", writer, "--ignored", "--nocapture"])
            .env(URL, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let numbers = lines.filter_map(|line| line.unwrap().parse::<u64>().ok());
        told = numbers.take(10 + round).last();
        child.kill().unwrap();
        child.wait().unwrap();

        let told = told.expect("the writer wrote");
        let found = runtime.block_on(async {
            let store = Store::open(path.to_str().unwrap()).await.unwrap();
            let first = store.get("s", "first").await.unwrap().unwrap();
            let second = store.get("s", "second").await.unwrap().unwrap();
            (first, second)
        });
        let (first, second) = (number(&found.0), number(&found.1));
        assert!(second >= told, "{second} is kept though {told} was told");
        assert!(holds(first, second), "{first} was put before {second}");
    }
    assert!(told.is_some_and(|number| number > 50), "each writer goes on where the last one ended");
}

/// Returns the number that a whole record repeats.
fn number(record: &str) -> u64 {
    let words: Vec<_> = record.split(' ').collect();
    assert_eq!(words.len(), COPIES);
    assert!(words.iter().all(|word| *word == words[0]), "a record of two halves");
    words[0].parse().unwrap()
}

#[test]
#[ignore = "the other test starts and kills it"]
fn writes_until_killed() {
    write_for_ever(async |store, next| {
        for key in ["first", "second"] {
            store.put("s", key, next).await.unwrap();
        }
    });
}

#[test]
#[ignore = "the other test starts and kills it"]
fn exchanges_until_killed() {
    write_for_ever(async |store, next| {
        let record = |key: &str| Record {
            space: "s".to_owned(),
            key: key.to_owned(),
            value: next.to_owned(),
        };
        let before = store.get("s", "first").await.unwrap();
        let beside = [record("second")];
        assert!(store.exchange(&record("first"), before.as_deref(), &beside).await.unwrap());
    });
}

fn write_for_ever(write: impl AsyncFn(&Store, &str)) {
    let Ok(url) = std::env::var(URL) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(Store::open(&url)).unwrap();
    let last = runtime.block_on(store.get("s", "second")).unwrap();
    let mut out = std::io::stdout();
    for next in last.as_deref().map_or(0, number) + 1.. {
        let record = vec![next.to_string(); COPIES].join(" ");
        runtime.block_on(write(&store, &record));
        // The reader may be gone an instant before this process is.
        if writeln!(out, "{next}").is_err() {
            return;
        }
    }
}
