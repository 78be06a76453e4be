//! The cases of predictions, outcomes and tallies. Each is given an empty place.

use outhaul_state::{
    EarlyRow, KnownPrediction, OutcomeChanges, OutcomeRow, PredictionRow, Store, TallyRow,
};
use outhaul_types::ModelName;

use crate::places::Opener;

fn prediction(id: &str, route: &str, at: i64) -> PredictionRow {
    PredictionRow {
        id: id.into(),
        route: ModelName::new(route).unwrap(),
        variant: format!("{route}@2").into(),
        predicted: Some("positive".into()),
        at,
    }
}

fn outcome(id: &str, route: &str, reward: f64) -> OutcomeRow {
    OutcomeRow {
        id: id.to_owned(),
        route: route.to_owned(),
        variant: format!("{route}@2"),
        label: None,
        reward,
        at: 0,
    }
}

fn tally(route: &str, predictions: i64, rewards: &[f64]) -> TallyRow {
    TallyRow {
        route: route.to_owned(),
        variant: format!("{route}@2"),
        predictions,
        outcomes: rewards.len() as i64,
        reward_sum: rewards.iter().sum(),
        square_sum: rewards.iter().map(|reward| reward * reward).sum(),
    }
}

/// Joins a reward to `a` of route `r` if nobody has, as callers of the store do.
async fn join_once(store: Store) -> bool {
    let joined = store.change_outcomes(&["a"], |known| match known.outcomes.is_empty() {
        true => {
            let outcomes = vec![outcome("a", "r", 0.25)];
            let tallies = vec![tally("r", 0, &[0.25])];
            (OutcomeChanges { outcomes, tallies, ..OutcomeChanges::default() }, true)
        }
        false => (OutcomeChanges::default(), false),
    });
    joined.await.unwrap()
}

pub(crate) async fn predictions_count_once(opener: Opener) {
    let store = opener.open().await;
    store.add_predictions(&[]).await.unwrap();
    let rows = [prediction("b", "r", 1), prediction("a", "r", 1), prediction("a", "q", 1)];
    store.add_predictions(&rows).await.unwrap();
    store.add_predictions(&rows).await.unwrap();
    let later = PredictionRow { variant: "r@3".into(), ..prediction("a", "r", 2) };
    store.add_predictions(&[later, prediction("c", "r", 2)]).await.unwrap();
    let expected = [tally("q", 1, &[]), tally("r", 3, &[])];
    assert_eq!(store.tallies().await.unwrap(), expected, "the first prediction of an id stays");
}

pub(crate) async fn texts_of_predictions_are_kept(opener: Opener) {
    let store = opener.open().await;
    for text in ["naïve 模型 🛶", "a'b\"c\\;--", "\u{1}\t\n", "12", "null", "[1]"] {
        let row = PredictionRow { predicted: Some(text.into()), ..prediction(text, "r", 1) };
        store.add_predictions(&[row]).await.unwrap();
        let known = store
            .change_outcomes(&[text], |known| (OutcomeChanges::default(), known.predictions))
            .await
            .unwrap();
        let expected = KnownPrediction {
            id: text.to_owned(),
            route: "r".to_owned(),
            variant: "r@2".to_owned(),
            predicted: Some(text.to_owned()),
        };
        assert_eq!(known, [expected], "{text:?}");
    }
    let row = PredictionRow { predicted: None, ..prediction("a\0b", "r", 1) };
    store.add_predictions(&[row]).await.unwrap();
    let known = store.change_outcomes(&["a\0b"], |known| (OutcomeChanges::default(), known));
    assert_eq!(known.await.unwrap().predictions[0].predicted, None);
}

pub(crate) async fn outcomes_are_joined_by_one_at_a_time(opener: Opener) {
    let store = opener.open().await;
    store.add_predictions(&[prediction("a", "r", 1)]).await.unwrap();
    let writers: Vec<_> = (0..12).map(|_| tokio::spawn(join_once(store.clone()))).collect();
    let mut joined = 0;
    for writer in writers {
        joined += u32::from(writer.await.unwrap());
    }
    assert_eq!(joined, 1, "all but one found the outcome");
    assert_eq!(store.tallies().await.unwrap(), [tally("r", 1, &[0.25])]);
    let known = store.change_outcomes(&["a", "b"], |known| (OutcomeChanges::default(), known));
    assert_eq!(known.await.unwrap().outcomes, [outcome("a", "r", 0.25)]);
    let replace = |_| {
        let outcomes = vec![OutcomeRow { label: Some("x".into()), ..outcome("a", "r", 1.0) }];
        let tallies = vec![TallyRow {
            outcomes: 0,
            reward_sum: 0.75,
            square_sum: 0.9375,
            ..tally("r", 0, &[])
        }];
        (OutcomeChanges { outcomes, tallies, ..OutcomeChanges::default() }, ())
    };
    store.change_outcomes(&["a"], replace).await.unwrap();
    assert_eq!(store.tallies().await.unwrap(), [tally("r", 1, &[1.0])]);
}

pub(crate) async fn early_outcomes_wait_for_their_predictions(opener: Opener) {
    let store = opener.open().await;
    let early = |id: &str, route: &str, at| EarlyRow {
        id: id.to_owned(),
        route: route.to_owned(),
        label: Some("positive".to_owned()),
        reward: None,
        at,
    };
    let keep = |rows: Vec<EarlyRow>| {
        move |_| (OutcomeChanges { early: rows, ..OutcomeChanges::default() }, ())
    };
    let rows = vec![early("a", "", 3), early("b", "r", 2), early("c", "q", 1), early("d", "", 0)];
    store.change_outcomes(&[], keep(rows)).await.unwrap();
    store.change_outcomes(&[], keep(vec![early("a", "", 4)])).await.unwrap();
    assert_eq!(store.early_found(10).await.unwrap(), []);
    let rows = [prediction("a", "r", 5), prediction("b", "r", 5), prediction("c", "r", 5)];
    store.add_predictions(&rows).await.unwrap();
    let found = store.early_found(10).await.unwrap();
    assert_eq!(found, [early("b", "r", 2), early("a", "", 4)], "'c' is told of another route");
    assert_eq!(store.early_found(1).await.unwrap(), [early("b", "r", 2)]);
    let settle = |_| {
        let settled = vec![("a".to_owned(), String::new())];
        (OutcomeChanges { settled, ..OutcomeChanges::default() }, ())
    };
    store.change_outcomes(&[], settle).await.unwrap();
    assert_eq!(store.early_found(10).await.unwrap(), [early("b", "r", 2)]);
    assert_eq!(store.trim_early(1, 10).await.unwrap(), 1, "'d' is too old");
    assert_eq!(store.trim_early(1, 1).await.unwrap(), 1, "'c' is one too many");
    assert_eq!(store.early_found(10).await.unwrap(), [early("b", "r", 2)]);
}

pub(crate) async fn what_is_old_goes_and_what_was_counted_stays(opener: Opener) {
    let store = opener.open().await;
    let rows: Vec<_> = (0..10).map(|at| prediction(&at.to_string(), "r", at)).collect();
    store.add_predictions(&rows).await.unwrap();
    store.add_predictions(&[prediction("x", "q", 9)]).await.unwrap();
    assert!(join_once(store.clone()).await, "its outcome is from moment 0");
    assert_eq!(store.trim_predictions(5, 3).await.unwrap(), 4, "three and the outcome");
    assert_eq!(store.trim_predictions(5, 3).await.unwrap(), 2);
    assert_eq!(store.trim_predictions(5, 3).await.unwrap(), 0);
    let counted = [tally("q", 1, &[]), tally("r", 10, &[0.25])];
    assert_eq!(store.tallies().await.unwrap(), counted);
    store.forget_route(&ModelName::new("r").unwrap()).await.unwrap();
    assert_eq!(store.tallies().await.unwrap(), [tally("q", 1, &[])]);
    let known = store.change_outcomes(&["7", "a", "x"], |known| (OutcomeChanges::default(), known));
    let known = known.await.unwrap();
    assert_eq!((known.predictions.len(), known.outcomes.len()), (1, 0), "only 'x' is left");
}

pub(crate) async fn a_store_without_these_tables_gets_them(opener: Opener) {
    let store = opener.open().await;
    store.put("s", "k", "kept").await.unwrap();
    store.close().await;
    for table in ["prediction", "outcome", "early", "tally"] {
        opener.say(&format!("DROP TABLE outhaul_{table}")).await;
    }
    opener.say("UPDATE outhaul_schema SET version = 1 WHERE part = 'state'").await;
    let store = opener.open().await;
    store.add_predictions(&[prediction("a", "r", 1)]).await.unwrap();
    assert_eq!(store.get("s", "k").await.unwrap().as_deref(), Some("kept"));
}
