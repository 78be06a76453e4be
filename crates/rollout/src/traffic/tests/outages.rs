//! A store that goes away and comes back: requests are led as before, what takes back works, and nothing is
//! lost.

use super::rollouts::{begin, count, phase, requests};
use super::*;

async fn stepping(shared: &Shared) -> [Arc<Traffic>; 2] {
    let replicas = [replica(shared, "a").await, replica(shared, "b").await];
    begin(&replicas[0], &["error_rate<20%"]).await;
    pass(SECOND * 4).await;
    for traffic in &replicas {
        assert_eq!((phase(traffic), shares(traffic, "reviews")), (Phase::Stepping, vec![90, 10]));
    }
    replicas
}

fn rollback() -> Command {
    Command::Rollback { route: name("reviews") }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_needs_no_store_and_is_written_when_it_is_back() {
    for mood in [Mood::Away, Mood::Hangs] {
        let shared = Shared::default();
        let [a, b] = stepping(&shared).await;
        shared.becomes(mood);
        let refused = a.command(set("other", &remote("one")), "ann").await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{mood:?}");
        assert!(refused.client_message().contains("`rollback` work without it"), "{refused}");
        let asking = Arc::clone(&a);
        let asked = tokio::spawn(async move { asking.command(rollback(), "ann").await });
        tokio::task::yield_now().await;
        assert_eq!(shares(&a, "reviews"), [100], "{mood:?}: before the store has answered");
        let began = tokio::time::Instant::now();
        let applied = asked.await.unwrap().unwrap();
        assert!(began.elapsed() <= SECOND * 3, "{mood:?}: {:?}", began.elapsed());
        assert!(!applied.kept, "{mood:?}");
        assert_eq!((phase(&a), applied.entries.len()), (Phase::RolledBack, 1));
        assert_eq!(count(&shared, What::RolledBack), 0);
        let again = a.command(rollback(), "ann").await.unwrap();
        assert!(again.entries.is_empty(), "{mood:?}: it is back already");
        assert_eq!(phase(&b), Phase::Stepping, "{mood:?}: nobody could tell it");
        shared.becomes(Mood::There);
        pass(SECOND * 6).await;
        assert_eq!(count(&shared, What::RolledBack), 1, "{mood:?}");
        assert_eq!((phase(&b), shares(&b, "reviews")), (Phase::RolledBack, vec![100]));
        assert_eq!(a.world(), b.world(), "{mood:?}");
        let entry = shared.journal().pop().unwrap();
        assert_eq!((entry.by.as_str(), entry.at), ("ann", applied.entries[0].at), "{mood:?}");
        assert!(a.command(rollback(), "ann").await.unwrap().kept, "nothing is pending");
    }
}

#[tokio::test(start_paused = true)]
async fn a_breach_takes_effect_without_the_store_and_nothing_else_does() {
    let shared = Shared::default();
    let [a, b] = stepping(&shared).await;
    shared.becomes(Mood::Away);
    pass(SECOND * 30).await;
    assert_eq!(shares(&a, "reviews"), [90, 10], "no step is taken alone");
    requests(&a, "two", 0, 1_000);
    pass(SECOND * 2).await;
    assert_eq!((phase(&a), shares(&a, "reviews")), (Phase::RolledBack, vec![100]));
    assert_eq!(phase(&b), Phase::Stepping, "it has seen nothing of it");
    shared.becomes(Mood::There);
    pass(SECOND * 2).await;
    assert_eq!((phase(&b), count(&shared, What::RolledBack)), (Phase::RolledBack, 1));
    assert_eq!(a.world(), b.world());
    let told = shared.journal().pop().unwrap().text;
    assert!(told.contains("breached"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn both_take_it_back_while_they_cannot_talk_and_each_is_told_of() {
    let shared = Shared::default();
    let [a, b] = stepping(&shared).await;
    shared.becomes(Mood::Away);
    for (traffic, by) in [(&a, "ann"), (&b, "bob")] {
        assert!(!traffic.command(rollback(), by).await.unwrap().kept);
        let unread = traffic.journal(None, 10).await.unwrap_err();
        assert_eq!(unread.kind(), ErrorKind::Unavailable);
        let newest = traffic.journal(None, 1).await.unwrap();
        assert_eq!(newest[0].by, by, "what is in effect here is known here");
    }
    shared.becomes(Mood::There);
    pass(SECOND * 2).await;
    assert_eq!(a.world(), b.world());
    let is_back = |entry: &Entry| entry.what == What::RolledBack;
    let rolled_back: Vec<Entry> = shared.journal().into_iter().filter(is_back).collect();
    let mut by: Vec<&str> = rolled_back.iter().map(|entry| entry.by.as_str()).collect();
    by.sort_unstable();
    assert_eq!(by, ["ann", "bob"]);
    assert!(rolled_back[1].text.contains("while the state store was away"), "{rolled_back:?}");
}

#[tokio::test(start_paused = true)]
async fn an_abort_holds_though_it_was_promoted_where_nobody_knew_of_it() {
    let near = Shared::default();
    let far = Shared { memory: Arc::clone(&near.memory), ..Shared::default() };
    let (a, b) = (replica(&near, "a").await, replica(&far, "b").await);
    begin(&a, &["error_rate<20%"]).await;
    pass(SECOND * 4).await;
    near.becomes(Mood::Away);
    let abort = Command::Abort { route: name("reviews") };
    let applied = a.command(abort, "ann").await.unwrap();
    assert_eq!(
        (phase(&a), shares(&a, "reviews"), applied.kept),
        (Phase::Aborted, vec![100], false)
    );
    b.command(Command::Promote { route: name("reviews") }, "bob").await.unwrap();
    near.becomes(Mood::There);
    pass(SECOND * 2).await;
    for traffic in [&a, &b] {
        assert_eq!(leads_to(traffic, "reviews"), Some(remote("one").to_string()));
    }
    assert_eq!((a.world(), phase(&b)), (b.world(), Phase::RolledBack));
    let told = end_of_journal(&near, 2);
    assert_eq!(told, [(What::Promoted, "bob".to_owned()), (What::RolledBack, "ann".to_owned())]);
}

/// What the last entries of the journal tell, oldest first.
fn end_of_journal(shared: &Shared, count: usize) -> Vec<(What, String)> {
    let entries = shared.journal();
    let last = &entries[entries.len() - count..];
    last.iter().map(|entry| (entry.what, entry.by.clone())).collect()
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_makes_no_second_entry() {
    let shared = Shared::default();
    let [a, b] = stepping(&shared).await;
    shared.becomes(Mood::LosesAnswers(1));
    let applied = a.command(set("other", &remote("one")), "ann").await.unwrap();
    assert!(applied.kept, "the journal tells that it was written");
    shared.becomes(Mood::LosesAnswers(1));
    a.command(rollback(), "ann").await.unwrap();
    pass(SECOND * 2).await;
    assert_eq!(a.world(), b.world());
    assert_eq!((count(&shared, What::RouteSet), count(&shared, What::RolledBack)), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_try_whose_end_is_unknown_is_not_repeated_if_it_was_done() {
    let shared = Shared::default();
    let [a, b] = stepping(&shared).await;
    shared.becomes(Mood::LosesAnswerAndGoes);
    let applied = a.command(rollback(), "ann").await.unwrap();
    assert!(!applied.kept, "as far as it knows");
    assert_eq!(count(&shared, What::RolledBack), 1);
    pass(SECOND * 5).await;
    shared.becomes(Mood::There);
    pass(SECOND * 2).await;
    assert_eq!(count(&shared, What::RolledBack), 1);
    assert_eq!(a.world(), b.world());
    assert!(a.state().pending.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_replica_does_not_start_without_knowing_the_routes() {
    let shared = Shared::default();
    shared.becomes(Mood::Away);
    let error = start(&shared, config("a")).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}
