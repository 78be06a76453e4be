//! Roll-outs over two replicas: stepped by one of them, judged by what both count.

use super::*;

pub(super) fn spec(guards: &[&str]) -> RolloutSpec {
    serde_json::from_value(serde_json::json!({
        "to": remote("two"),
        "steps": [10.0, 50.0, 100.0],
        "every": "10s",
        "guards": guards,
    }))
    .unwrap()
}

pub(super) async fn begin(traffic: &Traffic, guards: &[&str]) {
    traffic.command(set("reviews", &remote("one")), "ann").await.unwrap();
    let start = Command::Start { route: name("reviews"), spec: spec(guards), in_service: None };
    traffic.command(start, "ann").await.unwrap();
}

pub(super) fn phase(traffic: &Traffic) -> Phase {
    traffic.world().rollouts[&name("reviews")].phase
}

/// Requests that one of a replica's variants answers and fails.
pub(super) fn requests(traffic: &Traffic, to: &str, answered: u64, failed: u64) {
    let metrics = traffic.router.monitor().traffic();
    let variant = metrics.variant(&name("reviews"), &remote(to).to_string());
    (0..answered).for_each(|_| variant.record(Ok(()), Duration::from_millis(1)));
    (0..failed).for_each(|_| variant.record(Err(ErrorKind::EngineFailed), Duration::ZERO));
}

pub(super) fn count(shared: &Shared, what: What) -> usize {
    shared.journal().iter().filter(|entry| entry.what == what).count()
}

#[tokio::test(start_paused = true)]
async fn a_roll_out_goes_its_steps_and_is_promoted_on_all_replicas() {
    let shared = Shared::default();
    let (a, b) = (replica(&shared, "a").await, replica(&shared, "b").await);
    begin(&a, &[]).await;
    assert_eq!((phase(&a), shares(&a, "reviews")), (Phase::Preparing, vec![100]));
    pass(SECOND * 4).await;
    for traffic in [&a, &b] {
        assert_eq!((phase(traffic), shares(traffic, "reviews")), (Phase::Stepping, vec![90, 10]));
    }
    pass(SECOND * 11).await;
    assert_eq!((shares(&a, "reviews"), shares(&b, "reviews")), (vec![50, 50], vec![50, 50]));
    pass(SECOND * 24).await;
    for traffic in [&a, &b] {
        assert_eq!((phase(traffic), shares(traffic, "reviews")), (Phase::Promoted, vec![100]));
        assert_eq!(leads_to(traffic, "reviews"), Some(remote("two").to_string()));
    }
    assert_eq!((count(&shared, What::Stepped), count(&shared, What::Promoted)), (3, 1));
    let applied = b.command(Command::Rollback { route: name("reviews") }, "ann").await.unwrap();
    assert!(applied.kept);
    assert_eq!(leads_to(&b, "reviews"), Some(remote("one").to_string()), "also after promotion");
}

#[tokio::test(start_paused = true)]
async fn a_breach_that_both_have_seen_a_part_of_is_rolled_back_everywhere() {
    let shared = Shared::default();
    let (a, b) = (replica(&shared, "a").await, replica(&shared, "b").await);
    begin(&a, &["error_rate<20%"]).await;
    pass(SECOND * 4).await;
    requests(&a, "two", 500, 0);
    requests(&b, "two", 0, 1_500);
    requests(&b, "one", 70, 0);
    pass(SECOND * 3).await;
    for traffic in [&a, &b] {
        assert_eq!((phase(traffic), shares(traffic, "reviews")), (Phase::RolledBack, vec![100]));
    }
    assert_eq!(count(&shared, What::RolledBack), 1);
    let told = shared.journal().pop().unwrap().text;
    assert!(told.contains("breached"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn the_status_shows_what_all_replicas_count_and_how_it_came_about() {
    let shared = Shared::default();
    let (a, b) = (replica(&shared, "a").await, replica(&shared, "b").await);
    begin(&a, &["error_rate<20%"]).await;
    pass(SECOND * 4).await;
    for _ in 0..3 {
        requests(&a, "two", 20, 1);
        requests(&b, "one", 70, 0);
        pass(SECOND * 2).await;
    }
    for traffic in [&a, &b] {
        let status = &traffic.status()[0];
        assert_eq!(status.route, name("reviews"));
        assert_eq!(status.rollout.phase, Phase::Stepping);
        assert_eq!(status.observed.candidate.judged(), 63);
        assert_eq!(status.observed.other.judged(), 210);
        let judgement = &status.judgements[0];
        assert!(judgement.estimate.is_some_and(|rate| (rate - 3.0 / 63.0).abs() < 1e-9));
        let points: Vec<_> = status.history.iter().map(|point| point.at).collect();
        assert!(points.len() > 6 && points.is_sorted(), "{points:?}");
        assert_eq!(status.history.last().unwrap().estimates, [judgement.estimate]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_every_replica_resumes_the_roll_out_and_forgets_no_count() {
    let shared = Shared::default();
    let first = replica(&shared, "a").await;
    begin(&first, &["error_rate<20%"]).await;
    pass(SECOND * 4).await;
    requests(&first, "two", 700, 0);
    pass(SECOND * 2).await;
    first.stop().await;
    drop(first);
    let second = replica(&shared, "b").await;
    assert_eq!((phase(&second), shares(&second, "reviews")), (Phase::Stepping, vec![90, 10]));
    requests(&second, "two", 300, 0);
    pass(SECOND * 2).await;
    assert_eq!(second.status()[0].observed.candidate.judged(), 1_000);
    pass(SECOND * 9).await;
    assert_eq!(shares(&second, "reviews"), [50, 50], "the next step is taken");
    assert_eq!(second.status()[0].observed.candidate.judged(), 0, "which is judged by itself");
}

#[tokio::test(start_paused = true)]
async fn another_replica_steps_on_where_one_stops_or_dies() {
    for stops in [true, false] {
        let shared = Shared::default();
        let first = replica(&shared, "a").await;
        begin(&first, &[]).await;
        pass(SECOND * 3).await;
        let second = replica(&shared, "b").await;
        pass(SECOND).await;
        if stops {
            first.stop().await;
        }
        drop(first);
        pass(SECOND * 17).await;
        assert_eq!(shares(&second, "reviews"), [50, 50], "stopped: {stops}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_counted_is_removed_when_the_roll_out_has_ended() {
    let shared = Shared::default();
    let (a, _b) = (replica(&shared, "a").await, replica(&shared, "b").await);
    begin(&a, &[]).await;
    pass(SECOND * 4).await;
    let id = a.world().rollouts[&name("reviews")].id.clone();
    let rows = |stage: &str| shared.keys(&format!("outhaul/traffic/observed/{id}/{stage}"));
    assert_eq!(rows("0"), ["a", "b"]);
    a.command(Command::Abort { route: name("reviews") }, "ann").await.unwrap();
    assert_eq!((phase(&a), shares(&a, "reviews")), (Phase::Aborted, vec![100]));
    pass(SECOND * 3).await;
    for stage in ["preparing", "0", "1", "2"] {
        assert_eq!(rows(stage), [""; 0], "{stage}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_candidate_that_is_not_there_is_told_and_gets_no_request() {
    let shared = Shared::default();
    let a = replica(&shared, "a").await;
    a.command(set("reviews", &remote("one")), "ann").await.unwrap();
    let to: Destination = "reviews@7".parse().unwrap();
    let spec = RolloutSpec { to, ..spec(&[]) };
    let start = Command::Start { route: name("reviews"), spec, in_service: None };
    a.command(start, "ann").await.unwrap();
    pass(SECOND * 8).await;
    assert_eq!((phase(&a), shares(&a, "reviews")), (Phase::Preparing, vec![100]));
    pass(SECOND * 6).await;
    assert_eq!((phase(&a), shares(&a, "reviews")), (Phase::RolledBack, vec![100]));
    let told = shared.journal().pop().unwrap().text;
    assert!(told.contains("there is no 'reviews@7' here"), "{told}");
}
