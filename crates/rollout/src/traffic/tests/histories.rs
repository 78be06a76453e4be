//! Random histories: commands at two replicas whose store comes and goes for each of them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::rollouts::spec;
use super::*;

/// One thing that may happen.
#[derive(Clone, Debug)]
enum Happening {
    /// A replica is asked for something, and the answer is waited for.
    Asked(usize, Ask),
    /// The store looks otherwise to a replica.
    Becomes(usize, Mood),
    Passes(u64),
}

#[derive(Clone, Copy, Debug)]
enum Ask {
    Set(u8),
    Start,
    Promote,
    Abort,
    Rollback,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let ask = prop_oneof![
        3 => (0..3_u8).prop_map(Ask::Set),
        3 => Just(Ask::Start),
        1 => Just(Ask::Promote),
        1 => Just(Ask::Abort),
        3 => Just(Ask::Rollback),
    ];
    let mood = prop_oneof![
        3 => Just(Mood::There),
        1 => Just(Mood::Away),
        1 => Just(Mood::Hangs),
        1 => (1..3_usize).prop_map(Mood::LosesAnswers),
        1 => Just(Mood::LosesAnswerAndGoes),
    ];
    let one = prop_oneof![
        4 => (0..2_usize, ask).prop_map(|(replica, ask)| Happening::Asked(replica, ask)),
        2 => (0..2_usize, mood).prop_map(|(replica, mood)| Happening::Becomes(replica, mood)),
        2 => (1..8_000_u64).prop_map(Happening::Passes),
    ];
    prop::collection::vec(one, 1..40)
}

fn command(ask: Ask) -> Command {
    let route = name("reviews");
    match ask {
        Ask::Set(number) => set("reviews", &remote(&format!("set{number}"))),
        Ask::Start => Command::Start { route, spec: spec(&[]), in_service: Some(remote("zero")) },
        Ask::Promote => Command::Promote { route },
        Ask::Abort => Command::Abort { route },
        Ask::Rollback => Command::Rollback { route },
    }
}

/// Lives through a history, and returns how often each command was told of, by who asked: at least and at most.
async fn live(history: &[Happening], books: &[Shared; 2]) -> BTreeMap<String, (usize, usize)> {
    let replicas = [replica(&books[0], "a").await, replica(&books[1], "b").await];
    let mut told = BTreeMap::new();
    for (number, happening) in history.iter().enumerate() {
        match happening {
            Happening::Asked(at, ask) => {
                let by = format!("by {number}");
                let entries = match replicas[*at].command(command(*ask), &by).await {
                    Ok(applied) => (applied.entries.len(), applied.entries.len()),
                    // It may have been done, and the answer was lost.
                    Err(TrafficError::Unavailable { .. }) => (0, 1),
                    Err(_) => (0, 0),
                };
                told.insert(by, entries);
            }
            Happening::Becomes(at, mood) => books[*at].becomes(*mood),
            Happening::Passes(millis) => pass(Duration::from_millis(*millis)).await,
        }
    }
    books.iter().for_each(|books| books.becomes(Mood::There));
    // Long enough for a roll-out under way to end.
    pass(SECOND * 60).await;
    assert_eq!(replicas[0].world(), replicas[1].world(), "they agree");
    for traffic in &replicas {
        assert!(traffic.state().pending.is_empty(), "everything is written");
        let world = traffic.world();
        let table = traffic.router.routes();
        let routes = table.routes().into_iter().map(|route| (*route.spec()).clone());
        let known = world.routes.values().map(|record| record.spec.clone());
        assert!(routes.map(|spec| (*spec).clone()).eq(known), "and go by it");
    }
    told
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Whatever becomes of the store, what was confirmed is journalled once, and replicas agree in the end.
    #[test]
    fn nothing_that_was_confirmed_is_lost_or_told_twice(history in happenings()) {
        let memory = Arc::new(Memory::default());
        let books = || Shared { memory: Arc::clone(&memory), ..Shared::default() };
        let books = [books(), books()];
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        let told = runtime.block_on(live(&history, &books));
        let journal = books[0].journal();
        for (by, (least, most)) in told {
            let times = journal.iter().filter(|entry| entry.by == by).count();
            prop_assert!((least..=most).contains(&times), "{by}: {times}, not {least} to {most}");
        }
    }
}
