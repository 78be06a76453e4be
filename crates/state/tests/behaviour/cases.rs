//! The cases. Each is given an empty place.

use std::error::Error;

use outhaul_state::{MAX_KEY_BYTES, MAX_SPACE_BYTES, MAX_VALUE_BYTES, Record, StateError, Store};
use outhaul_types::{Classify, ErrorKind};

pub(crate) use crate::outcomes::*;
use crate::places::Opener;

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

pub(crate) async fn a_value_is_what_was_last_put(opener: Opener) {
    let store = opener.open().await;
    assert_eq!(store.get("models", "iris").await.unwrap(), None);
    store.put("models", "iris", "first").await.unwrap();
    store.put("models", "iris", "second").await.unwrap();
    store.put("other", "iris", "elsewhere").await.unwrap();
    store.put("models", "empty", "").await.unwrap();
    assert_eq!(store.get("models", "iris").await.unwrap().as_deref(), Some("second"));
    assert_eq!(store.get("models", "empty").await.unwrap().as_deref(), Some(""));
    assert_eq!(store.clone().get("other", "iris").await.unwrap().as_deref(), Some("elsewhere"));
}

pub(crate) async fn a_deleted_key_is_gone_once(opener: Opener) {
    let store = opener.open().await;
    store.put("models", "iris", "x").await.unwrap();
    store.put("other", "iris", "x").await.unwrap();
    assert!(store.delete("models", "iris").await.unwrap());
    assert!(!store.delete("models", "iris").await.unwrap());
    assert_eq!(store.get("models", "iris").await.unwrap(), None);
    assert_eq!(store.list("models").await.unwrap(), []);
    assert_eq!(store.list("other").await.unwrap(), [pair("iris", "x")]);
}

pub(crate) async fn lists_are_ordered_by_bytes(opener: Opener) {
    let store = opener.open().await;
    for key in ["b", "B", "é", "a-b", "ab", "a", "10", "9", "Z", "_"] {
        store.put("s", key, key).await.unwrap();
    }
    let keys: Vec<_> = store.list("s").await.unwrap().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["10", "9", "B", "Z", "_", "a", "a-b", "ab", "b", "é"]);
}

pub(crate) async fn texts_of_any_language_are_kept(opener: Opener) {
    let store = opener.open().await;
    for text in ["naïve", "模型", "🛶 trim", "a'b\"c;--", "\u{1}\t\n\r ", "%_\\", "\u{feff}x"]
    {
        store.put(text, text, text).await.unwrap();
        assert_eq!(store.get(text, text).await.unwrap().as_deref(), Some(text), "{text:?}");
        assert_eq!(store.list(text).await.unwrap(), [pair(text, text)]);
    }
    // Composed and decomposed are two keys: nothing is normalised.
    store.put("é", "é", "composed").await.unwrap();
    assert_eq!(store.get("é", "e\u{301}").await.unwrap(), None);
}

pub(crate) async fn spaces_are_found_by_prefix(opener: Opener) {
    let store = opener.open().await;
    for space in ["model/b", "model/a", "model/é", "models", "label/a", "Model/x", "model%"] {
        store.put(space, "1", "x").await.unwrap();
        store.put(space, "2", "x").await.unwrap();
    }
    store.put("model/gone", "1", "x").await.unwrap();
    store.delete("model/gone", "1").await.unwrap();
    assert_eq!(store.spaces_starting("model/").await.unwrap(), ["model/a", "model/b", "model/é"]);
    assert_eq!(store.spaces_starting("model/é").await.unwrap(), ["model/é"]);
    assert_eq!(store.spaces_starting("model%").await.unwrap(), ["model%"]);
    assert_eq!(store.spaces_starting("nobody").await.unwrap(), [""; 0]);
    assert_eq!(store.spaces_starting("").await.unwrap().len(), 7);
}

pub(crate) async fn limits_are_told(opener: Opener) {
    let store = opener.open().await;
    // Text that no database can make smaller: an index entry holds space and key whole.
    let mut state = 1_u32;
    let mut letter = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'0' + (state >> 24) as u8 % 75)
    };
    let space: String = (0..MAX_SPACE_BYTES).map(&mut letter).collect();
    let key: String = (0..MAX_KEY_BYTES).map(&mut letter).collect();
    let longest = "é".repeat(MAX_VALUE_BYTES / 2);
    store.put(&space, &key, &longest).await.unwrap();
    assert_eq!(store.get(&space, &key).await.unwrap(), Some(longest));
    assert_eq!(store.spaces_starting(&space).await.unwrap(), [space.as_str()]);
    let space_too_long = format!("{space}x");
    let long = "x".repeat(MAX_VALUE_BYTES + 1);
    let key_too_long = format!("{key}k");
    struct Case<'a> {
        record: [&'a str; 3],
        expected: &'a str,
    }
    for Case { record: [space, key, value], expected } in [
        Case {
            record: ["s", "k", &long],
            expected: "the value of a state record has 1048577 bytes",
        },
        Case {
            record: ["s", &key_too_long, ""],
            expected: "the key of a state record has 513 bytes",
        },
        Case {
            record: [&space_too_long, "k", ""],
            expected: "the space of a state record has 2049",
        },
        Case { record: ["", "k", ""], expected: "the space of a state record is empty" },
        Case { record: ["s", "", ""], expected: "the key of a state record is empty" },
        Case { record: ["s", "k", "a\0b"], expected: "the value of a state record holds a NUL" },
    ] {
        let error = store.put(space, key, value).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!error.is_passing());
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(store.list("s").await.unwrap(), [], "nothing refused was kept");
    assert!(store.get("s", "").await.is_err());
    assert!(store.delete("s\0", "k").await.is_err());
}

pub(crate) async fn concurrent_puts_all_count(opener: Opener) {
    let store = opener.open().await;
    let writers = (0..8).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0..10 {
                let key = format!("{writer}-{number}");
                store.put("own", &key, &key).await.unwrap();
                store.put("shared", "key", &key).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(store.list("own").await.unwrap().len(), 80);
    let last = store.get("shared", "key").await.unwrap().unwrap();
    assert!(last.ends_with("-9"), "the last of one writer's puts stays: {last}");
}

pub(crate) async fn a_closed_store_says_so(opener: Opener) {
    let store = opener.open().await;
    store.put("s", "k", "v").await.unwrap();
    store.close().await;
    let error = store.get("s", "k").await.unwrap_err();
    assert!(error.to_string().starts_with("could not read 'k' of 's' in the state store '"));
    assert!(error.source().unwrap().to_string().contains("closed"), "{error:?}");
    assert!(!error.is_passing());
}

pub(crate) async fn records_survive_reopening(opener: Opener) {
    let store = opener.open().await;
    store.put("s", "kept", "v").await.unwrap();
    store.put("s", "changed", "old").await.unwrap();
    store.put("s", "changed", "new").await.unwrap();
    store.put("s", "deleted", "v").await.unwrap();
    store.delete("s", "deleted").await.unwrap();
    store.close().await;
    let expected = [pair("changed", "new"), pair("kept", "v")];
    assert_eq!(opener.open().await.list("s").await.unwrap(), expected);
    // Opened once more beside a handle that was dropped and not closed.
    assert_eq!(opener.open().await.list("s").await.unwrap(), expected);
}

pub(crate) async fn two_handles_see_each_other(opener: Opener) {
    let (first, second) = (opener.open().await, opener.open().await);
    first.put("s", "k", "from the first").await.unwrap();
    assert_eq!(second.get("s", "k").await.unwrap().as_deref(), Some("from the first"));
    let write = |store: Store, name: &'static str| async move {
        for number in 0..25 {
            store.put("s", &format!("{name}-{number}"), name).await.unwrap();
        }
    };
    let writers =
        [tokio::spawn(write(first.clone(), "a")), tokio::spawn(write(second.clone(), "b"))];
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(first.list("s").await.unwrap().len(), 51);
    assert!(second.delete("s", "k").await.unwrap());
    assert_eq!(first.get("s", "k").await.unwrap(), None);
}

pub(crate) async fn many_may_open_a_new_store_at_once(opener: Opener) {
    let openers = (0..12).map(|number| {
        let opener = opener.clone();
        tokio::spawn(async move {
            let store = opener.open().await;
            store.put("s", &number.to_string(), "v").await.unwrap();
        })
    });
    for task in openers.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(opener.open().await.list("s").await.unwrap().len(), 12);
}

pub(crate) async fn a_newer_schema_is_refused(opener: Opener) {
    opener.open().await.put("s", "k", "v").await.unwrap();
    opener.say("UPDATE outhaul_schema SET version = 7 WHERE part = 'state'").await;
    let error = opener.try_open().await.unwrap_err();
    assert!(matches!(error, StateError::NewerSchema { found: 7, known: 2, .. }), "{error:?}");
    assert!(error.to_string().contains("has schema 7"), "{error}");
    assert_eq!((error.kind(), error.is_passing()), (ErrorKind::Conflict, false));
    opener.say("UPDATE outhaul_schema SET version = 2 WHERE part = 'state'").await;
    let kept = opener.open().await.get("s", "k").await.unwrap();
    assert_eq!(kept.as_deref(), Some("v"), "the refusal touched nothing");
}

pub(crate) async fn an_older_schema_is_brought_forward(opener: Opener) {
    // Another part's tables were there first: this part has no schema yet.
    let statement = "CREATE TABLE outhaul_schema (part TEXT PRIMARY KEY, version BIGINT NOT NULL)";
    if let Some(path) = opener.url.strip_prefix("sqlite://") {
        let path = std::path::PathBuf::from(path.replace("%20", " "));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::File::create(path).unwrap();
    }
    opener.say(statement).await;
    opener.say("INSERT INTO outhaul_schema VALUES ('predictions', 9)").await;
    let store = opener.open().await;
    store.put("s", "k", "v").await.unwrap();
    store.close().await;
    assert_eq!(opener.open().await.get("s", "k").await.unwrap().as_deref(), Some("v"));
}

fn record(space: &str, key: &str, value: &str) -> Record {
    Record { space: space.to_owned(), key: key.to_owned(), value: value.to_owned() }
}

pub(crate) async fn an_exchange_is_done_only_if_nothing_has_changed(opener: Opener) {
    let store = opener.open().await;
    struct Case {
        expected: Option<&'static str>,
        value: &'static str,
        done: bool,
        what: &'static str,
    }
    let cases = [
        Case { expected: Some("1"), value: "2", done: false, what: "nothing is there yet" },
        Case { expected: None, value: "1", done: true, what: "made" },
        Case { expected: None, value: "other", done: false, what: "it is there" },
        Case { expected: Some("1"), value: "2", done: true, what: "replaced" },
        Case { expected: Some("1"), value: "3", done: false, what: "replaced already" },
        Case { expected: Some("2"), value: "2", done: true, what: "by the same value" },
        Case { expected: Some("2"), value: "", done: true, what: "by an empty one" },
        Case { expected: Some(""), value: "4", done: true, what: "an empty value is a value" },
    ];
    for (number, Case { expected, value, done, what }) in cases.iter().enumerate() {
        let before = store.get("s", "world").await.unwrap();
        let beside = [record("log", &number.to_string(), value), record("last", "value", value)];
        let exchanged = store.exchange(&record("s", "world", value), *expected, &beside).await;
        assert_eq!(exchanged.unwrap(), *done, "{what}");
        let after = if *done { Some((*value).to_owned()) } else { before };
        assert_eq!(store.get("s", "world").await.unwrap(), after, "{what}");
        let logged = store.get("log", &number.to_string()).await.unwrap();
        assert_eq!(logged.is_some(), *done, "{what}");
    }
    assert_eq!(store.get("last", "value").await.unwrap().as_deref(), Some("4"));
    let refused = [record("s", "", "no key")];
    let error = store.exchange(&record("s", "world", "5"), Some("4"), &refused).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(store.get("s", "world").await.unwrap().as_deref(), Some("4"), "all or nothing");
}

/// Adds one to a number `rounds` times, and notes each; returns how often somebody else was first.
async fn count(store: Store, name: &'static str, rounds: u32) -> u32 {
    let mut lost = 0;
    let mut round = 0;
    while round < rounds {
        let now = store.get("s", "number").await.unwrap();
        let next = now.as_deref().map_or(0, |now| now.parse::<u32>().unwrap()) + 1;
        let beside = [record("log", &format!("{next:06}"), name)];
        let number = record("s", "number", &next.to_string());
        match store.exchange(&number, now.as_deref(), &beside).await.unwrap() {
            true => round += 1,
            false => lost += 1,
        }
    }
    lost
}

async fn race(stores: [Store; 2]) {
    const ROUNDS: u32 = 40;
    let [first, second] = stores;
    let writers =
        [tokio::spawn(count(first.clone(), "a", ROUNDS)), tokio::spawn(count(second, "b", ROUNDS))];
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(first.get("s", "number").await.unwrap().as_deref(), Some("80"));
    let log = first.list("log").await.unwrap();
    let by = |name: &str| log.iter().filter(|(_, by)| by == name).count();
    assert_eq!((log.len(), by("a"), by("b")), (80, 40, 40), "each is noted once");
}

pub(crate) async fn of_racing_exchanges_one_wins_each_round(opener: Opener) {
    let store = opener.open().await;
    race([store.clone(), store]).await;
}

pub(crate) async fn two_handles_exchange_without_losing_any(opener: Opener) {
    let stores = [opener.open().await, opener.open().await];
    race(stores).await;
}

pub(crate) async fn the_last_keys_come_first(opener: Opener) {
    let store = opener.open().await;
    for number in 0..7 {
        store.put("log", &format!("{number:03}"), &number.to_string()).await.unwrap();
    }
    store.put("other", "999", "x").await.unwrap();
    let values = async |before, limit| {
        let listed = store.list_last("log", before, limit).await.unwrap();
        listed.into_iter().map(|(_, value)| value).collect::<String>()
    };
    assert_eq!(values(None, 3).await, "654");
    assert_eq!(values(Some("004"), 3).await, "321");
    assert_eq!(values(Some("001"), 3).await, "0");
    assert_eq!(values(Some("000"), 3).await, "");
    assert_eq!(values(None, 100).await, "6543210");
}
