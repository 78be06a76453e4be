use outhaul_types::{NamedTensor, TargetSpec};

use super::*;

fn spec(targets: &[(&str, f64)]) -> RouteSpec {
    let target = |&(to, weight): &(&str, f64)| TargetSpec { to: to.parse().unwrap(), weight };
    RouteSpec {
        targets: targets.iter().map(target).collect(),
        ..RouteSpec::to("reviews".parse().unwrap())
    }
}

fn route(spec: RouteSpec) -> Arc<Route> {
    let name = ModelName::new("reviews").unwrap();
    let routes = BTreeMap::from([(name, spec)]);
    let table = RouteTable::build(1, &routes, &RouteTable::default(), &TrafficMetrics::default());
    Arc::clone(table.route("reviews").unwrap())
}

fn request() -> InferRequest {
    InferRequest::new("reviews", [])
}

fn by(caller: &str) -> RequestContext {
    RequestContext { caller: Some(caller.into()), ..RequestContext::default() }
}

fn dealt(route: &Route, request: &InferRequest, context: &RequestContext) -> usize {
    match route.choose(request, context).unwrap() {
        Choice::Dealt(index) => index,
        Choice::Fixed(to) => panic!("{to}"),
    }
}

const REQUESTS: usize = 100_000;

#[test]
fn shares_are_kept_over_100_000_requests() {
    for weights in
        [&[50.0, 50.0][..], &[99.0, 1.0], &[90.0, 10.0], &[1.0, 2.0, 4.0, 8.0], &[1.0, 0.0]]
    {
        let names: Vec<String> =
            (1..=weights.len()).map(|index| format!("reviews@{index}")).collect();
        let targets: Vec<_> =
            names.iter().map(String::as_str).zip(weights.iter().copied()).collect();
        let loose = route(spec(&targets));
        let sticky = route(RouteSpec { sticky: Some(StickyKey::Caller), ..spec(&targets) });
        let (mut by_turn, mut by_key) = (vec![0; targets.len()], vec![0; targets.len()]);
        for number in 0..REQUESTS {
            by_turn[dealt(&loose, &request(), &RequestContext::default())] += 1;
            by_key[dealt(&sticky, &request(), &by(&format!("caller-{number}")))] += 1;
        }
        for (index, share) in loose.spec().shares().into_iter().enumerate() {
            for (how, counts, most) in [("turn", &by_turn, 0.001), ("key", &by_key, 0.005)] {
                let error = (counts[index] as f64 / REQUESTS as f64 - share).abs();
                assert!(error < most, "{weights:?} by {how}: variant {index} is off by {error}");
            }
        }
    }
}

#[test]
fn what_one_route_deals_says_nothing_of_another() {
    let name = |text| ModelName::new(text).unwrap();
    let half = spec(&[("a@1", 1.0), ("a@2", 1.0)]);
    for (left, right) in [("reviews", "iris"), ("a", "b"), ("search", "rank")] {
        let routes = BTreeMap::from([(name(left), half.clone()), (name(right), half.clone())]);
        let table =
            RouteTable::build(1, &routes, &RouteTable::default(), &TrafficMetrics::default());
        let (left, right) = (table.route(left).unwrap(), table.route(right).unwrap());
        let shadow = Pace::of_shadow("a@2");
        let (mut together, mut shadowed) = (0, 0);
        let nobody = RequestContext::default();
        for number in 0..10_000_u64 {
            let dealt_left = dealt(left, &request(), &nobody);
            together += usize::from(dealt_left == dealt(right, &request(), &nobody));
            shadowed += usize::from(dealt_left == 0 && shadow.point(number) < 1 << 63);
        }
        assert!((4_800..5_200).contains(&together), "{}: {together}", left.name());
        assert!((2_300..2_700).contains(&shadowed), "{}: {shadowed}", left.name());
    }
}

#[test]
fn a_caller_stays_and_only_the_raised_share_moves() {
    let at = |targets: &[(&str, f64)]| {
        route(RouteSpec { sticky: Some(StickyKey::Caller), ..spec(targets) })
    };
    let steps = [
        at(&[("reviews@2", 90.0), ("reviews@3", 10.0)]),
        at(&[("reviews@2", 50.0), ("reviews@3", 50.0)]),
        // The order of declaration does not count.
        at(&[("reviews@3", 90.0), ("reviews@2", 10.0)]),
    ];
    let variant = |route: &Route, caller: &str| {
        route.variants()[dealt(route, &request(), &by(caller))].name.clone()
    };
    let mut moved = 0;
    for number in 0..REQUESTS {
        let caller = format!("caller-{number}");
        let ways: Vec<_> = steps.iter().map(|route| variant(route, &caller)).collect();
        assert_eq!(ways[0], variant(&steps[0], &caller), "a caller stays");
        for pair in ways.windows(2) {
            assert!(pair[0] != "reviews@3" || pair[1] == "reviews@3", "{caller} moved back");
        }
        moved += usize::from(ways[0] != ways[1]);
    }
    let share = moved as f64 / REQUESTS as f64;
    assert!((share - 0.4).abs() < 0.005, "{share} moved where 0.4 were raised");
}

#[test]
fn of_three_variants_only_the_raised_one_gains() {
    let at = |first: f64| {
        let targets = [("a@1", first), ("a@2", 1.0), ("a@3", 1.0)];
        route(RouteSpec { sticky: Some(StickyKey::Caller), ..spec(&targets) })
    };
    let (before, after) = (at(1.0), at(2.0));
    for number in 0..10_000 {
        let caller = by(&format!("caller-{number}"));
        let (old, new) = (dealt(&before, &request(), &caller), dealt(&after, &request(), &caller));
        assert!(old == new || new == 0, "moved from {old} to {new}");
    }
}

#[test]
fn a_key_may_come_from_anywhere_in_the_request() {
    let with = |sticky: &str| {
        let sticky = Some(sticky.parse().unwrap());
        route(RouteSpec { sticky, ..spec(&[("a@1", 1.0), ("a@2", 1.0)]) })
    };
    let variants = |route: &Route, make: &dyn Fn(usize) -> (InferRequest, RequestContext)| {
        let each = (0..64).map(|number| {
            let (request, context) = make(number);
            let first = dealt(route, &request, &context);
            assert_eq!(first, dealt(route, &request, &context), "a caller stays");
            first
        });
        let ones: usize = each.sum();
        assert!((8..=56).contains(&ones), "both variants are used: {ones}");
    };
    let attribute = |key: &str, value: usize| outhaul_types::Attribute {
        key: key.parse().unwrap(),
        value: value.to_string().into(),
    };
    for key in ["header:x-user", "cookie:uid"] {
        variants(&with(key), &|number| {
            let attributes = [attribute(key, number)].into_iter().collect();
            (request(), RequestContext { attributes, ..RequestContext::default() })
        });
    }
    variants(&with("field:user"), &|number| {
        let parameters = [("user".to_owned(), Parameter::Int(number as i64))];
        let parameters = parameters.into_iter().collect();
        (InferRequest { parameters, ..request() }, RequestContext::default())
    });
    variants(&with("field:user"), &|number| {
        let tensor = Tensor::from_vec([1], vec![number as i64]).unwrap();
        let input = NamedTensor { name: "user".into(), tensor };
        (InferRequest::new("a", [input]), RequestContext::default())
    });
}

#[test]
fn pins_and_overrides_come_before_shares() {
    let pinned = [("tester".into(), "reviews@9".parse().unwrap())].into_iter().collect();
    let spec = RouteSpec { pinned, ..spec(&[("reviews@1", 1.0), ("reviews@2", 1.0)]) };
    let open = route(spec.clone());
    let fixed = |context: &RequestContext| match open.choose(&request(), context) {
        Ok(Choice::Fixed(to)) => Some(to.to_string()),
        Ok(Choice::Dealt(_)) => None,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(fixed(&by("tester")).as_deref(), Some("reviews@9"));
    assert_eq!(fixed(&by("somebody")), None);
    let naming = |target: &str| RequestContext {
        target: Some(Box::new(target.parse().unwrap())),
        ..by("tester")
    };
    assert_eq!(fixed(&naming("reviews@7")).as_deref(), Some("reviews@7"));
    for target in ["other", "http://elsewhere/v2/models/reviews"] {
        assert!(open.choose(&request(), &naming(target)).is_err(), "{target}");
    }
    let closed = route(RouteSpec { overrides: false, ..spec });
    assert!(closed.choose(&request(), &naming("reviews@1")).is_err());
}

#[test]
fn an_unchanged_route_outlives_its_table() {
    let name = |text| ModelName::new(text).unwrap();
    let metrics = TrafficMetrics::default();
    let mut routes =
        BTreeMap::from([(name("a"), spec(&[("a@1", 1.0)])), (name("b"), spec(&[("b", 1.0)]))]);
    let first = RouteTable::build(1, &routes, &RouteTable::default(), &metrics);
    routes.insert(name("b"), spec(&[("b@2", 1.0)]));
    let second = RouteTable::build(2, &routes, &first, &metrics);
    assert!(Arc::ptr_eq(first.route("a").unwrap(), second.route("a").unwrap()));
    assert!(!Arc::ptr_eq(first.route("b").unwrap(), second.route("b").unwrap()));
    assert_eq!((second.generation(), second.routes().len()), (2, 2));
}
