use super::*;
use crate::Destination;

#[test]
fn destinations_are_read_and_written_alike() {
    let url = "https://host:1/v2/models/reviews";
    for text in ["reviews", "reviews@3", "reviews@stable", url] {
        assert_eq!(text.parse::<Destination>().unwrap().to_string(), text);
    }
    for text in ["", "@3", "reviews@", "reviews@0", "a b", "http://host", "http:///v2/models/x"] {
        assert!(text.parse::<Destination>().is_err(), "{text}");
    }
}

#[test]
fn sticky_keys_are_read_and_written_alike() {
    for text in ["caller", "header:x-user", "cookie:uid", "field:user_id"] {
        assert_eq!(text.parse::<StickyKey>().unwrap().to_string(), text);
    }
    assert_eq!("header:X-User".parse(), Ok(StickyKey::Header("x-user".into())));
    for text in ["", "header:", "user", "body:x"] {
        assert!(text.parse::<StickyKey>().is_err(), "{text}");
    }
}

#[test]
fn a_shadow_that_cannot_be_is_refused() {
    let shadow = || ShadowSpec::to("a@2".parse().unwrap());
    let check = |shadow| {
        let route = RouteSpec::to("a@1".parse().unwrap());
        RouteSpec { shadow: Some(shadow), ..route }.check()
    };
    let compare = |rule| ShadowSpec { compare: Some(rule), ..shadow() };
    assert_eq!(check(shadow()), Ok(()));
    assert_eq!(check(compare(Comparison::Rank { at_least: 0.9 })), Ok(()));
    for wrong in [
        ShadowSpec { share: 0.0, ..shadow() },
        ShadowSpec { share: 1.1, ..shadow() },
        ShadowSpec { share: f64::NAN, ..shadow() },
        ShadowSpec { max_in_flight: 0, ..shadow() },
        ShadowSpec { examples: 101, ..shadow() },
        compare(Comparison::Tolerance { absolute: -1.0, relative: 0.0 }),
        compare(Comparison::Tolerance { absolute: 0.0, relative: f64::NAN }),
        compare(Comparison::Rank { at_least: 1.5 }),
    ] {
        assert!(check(wrong.clone()).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_route_that_cannot_be_is_refused() {
    let to = |text: &str, weight| TargetSpec { to: text.parse().unwrap(), weight };
    let route = |targets| RouteSpec { targets, ..RouteSpec::to("a".parse().unwrap()) };
    assert!(route(vec![to("a@1", 90.0), to("a@2", 10.0)]).check().is_ok());
    for targets in [
        vec![],
        vec![to("a", 0.0)],
        vec![to("a", -1.0)],
        vec![to("a", f64::NAN)],
        vec![to("a", f64::MAX), to("b", f64::MAX)],
        vec![to("a", 1.0), to("a", 2.0)],
    ] {
        assert!(route(targets.clone()).check().is_err(), "{targets:?}");
    }
    let learns = RouteSpec { policy: SplitPolicy::Thompson, ..route(vec![to("a", 1.0)]) };
    assert!(learns.check().is_err());
    assert!(RouteSpec { feedback: true, ..learns }.check().is_ok());
}
