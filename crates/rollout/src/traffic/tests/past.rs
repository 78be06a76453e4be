//! A journal that has become long.

use outhaul_types::TargetSpec;

use super::*;

/// Writes entries of a route as if each were of a generation of its own.
async fn write(shared: &Shared, route: &str, generations: std::ops::Range<u64>) {
    for generation in generations {
        let entry = Entry {
            at: Timestamp(1),
            route: name(route),
            rollout: None,
            what: What::RouteSet,
            text: String::new(),
            by: generation.to_string(),
        };
        for record in journal::records(generation, &[entry], "a").unwrap() {
            shared.memory.put(&record).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_call_reads_a_part_of_a_long_journal() {
    let shared = Shared::default();
    let a = replica(&shared, "a").await;
    write(&shared, "old", 0..1_000).await;
    write(&shared, "busy", 1_000..4_900).await;
    let old = a.journal(Some("old"), 1_000).await.unwrap();
    assert_eq!(old.len(), 100, "4,000 entries are looked at");
    assert_eq!(old[0].by, "999", "the newest first");
    assert_eq!(a.journal(Some("busy"), 5_000).await.unwrap().len(), 3_900);
    assert!(a.journal(Some("nobody"), 10).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_long_journal_is_trimmed_step_by_step_by_whoever_has_the_lease() {
    let shared = Shared::default();
    let short = |replica: &str| TrafficConfig { journal: 300, ..config(replica) };
    let a = start(&shared, short("a")).await.unwrap();
    let _b = start(&shared, short("b")).await.unwrap();
    write(&shared, "old", 1_000..1_550).await;
    let left = || shared.journal().len();
    pass(SECOND * 150).await;
    assert_eq!(left(), 550, "nobody needs the lease yet");
    let target = |to: &str| TargetSpec { to: remote(to), weight: 1.0 };
    let spec = RouteSpec {
        targets: vec![target("one"), target("two")],
        policy: SplitPolicy::Thompson,
        feedback: true,
        ..RouteSpec::to(remote("one"))
    };
    a.command(Command::SetRoute { route: name("x"), spec }, "ann").await.unwrap();
    // The command's entry is one more. Steps are a minute apart, and one of two replicas takes them.
    for expected in [451, 351, 300, 300] {
        pass(SECOND * 30).await;
        assert_eq!(left(), expected);
        pass(SECOND * 30 + SECOND / 2).await;
    }
    let newest = a.journal(Some("old"), 1).await.unwrap();
    assert_eq!(newest[0].by, "1549", "the newest stay");
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_grew_long_without_roll_outs_is_trimmed_too() {
    let shared = Shared::default();
    let a = start(&shared, TrafficConfig { journal: 20, ..config("a") }).await.unwrap();
    for number in 0..40 {
        a.command(set("x", &remote(&number.to_string())), "ann").await.unwrap();
    }
    assert_eq!(shared.journal().len(), 40);
    pass(SECOND * 2).await;
    assert_eq!(shared.journal().len(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_route_that_the_store_has_no_room_for_is_refused_and_others_are_not() {
    let shared = Shared::default();
    let a = replica(&shared, "a").await;
    let wide = |callers: usize| {
        let caller = |number: usize| (format!("{number:01000}").into(), remote("one"));
        RouteSpec { pinned: (0..callers).map(caller).collect(), ..RouteSpec::to(remote("one")) }
    };
    let set = |route: &str, spec| Command::SetRoute { route: name(route), spec };
    a.command(set("x", wide(400)), "ann").await.unwrap();
    let refused = a.command(set("y", wide(500)), "ann").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(refused.client_message().contains("768 KiB"), "{refused}");
    a.command(set("y", wide(1)), "ann").await.unwrap();
    assert_eq!(a.world().routes.len(), 2);
}
