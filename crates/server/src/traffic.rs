//! What a request's headers say of its way, and what its answer's headers tell of it: the same names over HTTP
//! and as metadata of gRPC.
//!
//! | request | means |
//! |---|---|
//! | `x-outhaul-caller` (or the configured name) | who asks, for fairness, limits, pins and sticky routes |
//! | `x-outhaul-priority` | `interactive`, `normal` or `background` |
//! | `x-outhaul-target` | the destination, in place of the route's choice |
//! | `cache-control: no-cache` or `no-store` | no answer that was computed before |
//! | `x-outhaul-depth` | how many servers and pipelines it came through; another Outhaul sends it |
//! | `x-outhaul-shadow` | that it is a copy, which counts for nothing here; likewise |
//!
//! | answer | means |
//! |---|---|
//! | `x-outhaul-route`, `x-outhaul-variant` | the route, and which of its variants answered |
//! | `x-outhaul-fallback` | what answered in place of what was asked, and why |
//! | `cache-status` (RFC 9211) | what the model's cache did |

use compact_str::format_compact;
use http::header::{CACHE_CONTROL, COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};
use outhaul_router::Router;
use outhaul_types::{
    Attribute, CacheStatus, Destination, InferResponse, Name, Priority, RequestContext, StickyKey,
    Via,
};

/// Who asks, unless the configuration says another name.
pub(crate) const CALLER: HeaderName = HeaderName::from_static("x-outhaul-caller");
const PRIORITY: HeaderName = HeaderName::from_static("x-outhaul-priority");
const TARGET: HeaderName = HeaderName::from_static("x-outhaul-target");
/// How many servers and pipelines a request has come through.
const DEPTH: HeaderName = HeaderName::from_static("x-outhaul-depth");
/// Marks a copy that another server compares: it counts for nothing here.
const SHADOW: HeaderName = HeaderName::from_static("x-outhaul-shadow");
const ROUTE: HeaderName = HeaderName::from_static("x-outhaul-route");
const VARIANT: HeaderName = HeaderName::from_static("x-outhaul-variant");
const FALLBACK: HeaderName = HeaderName::from_static("x-outhaul-fallback");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The longest name of a caller, and the longest value that a route goes by.
const LONGEST: usize = 256;

/// A header that cannot be understood: to ignore it would be to answer what was not asked.
#[derive(Debug)]
pub(crate) struct Malformed(pub(crate) String);

/// Reads the headers of a request into its context.
pub(crate) fn read(
    headers: &HeaderMap,
    caller: &HeaderName,
    router: &Router,
    context: &mut RequestContext,
) -> Result<(), Malformed> {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    context.caller = text(caller)
        .map(|name| match name.len() <= LONGEST && !name.is_empty() {
            true => Ok(Name::from(name)),
            false => Err(Malformed(format!("header {caller} must have 1 to {LONGEST} characters"))),
        })
        .transpose()?;
    if let Some(word) = text(&PRIORITY) {
        context.priority = Some(Priority::parse(word).ok_or_else(|| {
            let shown: String = word.chars().take(64).collect();
            let known = "expected interactive, normal or background";
            Malformed(format!("header {PRIORITY} is '{shown}', {known}"))
        })?);
    }
    if let Some(target) = text(&TARGET) {
        let target: Destination =
            target.parse().map_err(|error| Malformed(format!("header {TARGET}: {error}")))?;
        context.target = Some(Box::new(target));
    }
    if let Some(depth) = text(&DEPTH) {
        context.depth = depth.parse().map_err(|_| {
            Malformed(format!("header {DEPTH} must be a whole number from 0 to 255"))
        })?;
    }
    context.shadow = headers.contains_key(&SHADOW);
    let fresh = |value: &HeaderValue| {
        let directives = value.to_str().unwrap_or("").split(',').map(str::trim);
        let mut directives = directives.map(|one| one.split('=').next().unwrap_or(one));
        directives.any(|one| ["no-cache", "no-store"].iter().any(|no| one.eq_ignore_ascii_case(no)))
    };
    context.no_cache = headers.get_all(CACHE_CONTROL).iter().any(fresh);
    router.with_routes(|routes| {
        for key in routes.wanted() {
            let value = match key {
                StickyKey::Header(name) => headers.get(name.as_str()).and_then(|v| v.to_str().ok()),
                StickyKey::Cookie(name) => cookie(headers, name),
                StickyKey::Caller | StickyKey::Field(_) => None,
            };
            if let Some(value) = value.filter(|value| !value.is_empty() && value.len() <= LONGEST) {
                context.attributes.push(Attribute { key: key.clone(), value: value.into() });
            }
        }
    });
    Ok(())
}

/// The value of a cookie (RFC 6265, section 5.4): the first of its name.
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().trim_matches('"'))
}

/// What an answer's headers tell of its way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Way {
    via: Option<Box<Via>>,
    cache: CacheStatus,
}

impl Way {
    /// Keeps what the answer's headers will tell.
    pub(crate) fn of(response: &InferResponse) -> Self {
        Way { via: response.via.clone(), cache: response.cache }
    }

    /// Writes the headers. The plain way, the common case, writes none.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        // All values are names, destinations and words of ours.
        let mut put = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        match self.cache {
            CacheStatus::Off => {}
            CacheStatus::Hit => put(CACHE_STATUS, "outhaul; hit"),
            CacheStatus::Miss => put(CACHE_STATUS, "outhaul; fwd=miss"),
            CacheStatus::Joined => put(CACHE_STATUS, "outhaul; fwd=miss; collapsed"),
            CacheStatus::Bypassed => put(CACHE_STATUS, "outhaul; fwd=request"),
        }
        let Some(via) = &self.via else { return };
        if let Some(route) = &via.route {
            put(ROUTE, route);
        }
        if let Some(variant) = &via.variant {
            put(VARIANT, variant);
        }
        if let Some(fallback) = &via.fallback {
            match via.cause {
                Some(cause) => {
                    put(FALLBACK, &format_compact!("{fallback}; cause={}", cause.as_str()));
                }
                None => put(FALLBACK, fallback),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use outhaul_monitor::Monitor;
    use outhaul_repository::Catalog;
    use outhaul_router::RouteTable;
    use outhaul_types::{FallbackCause, ModelName, RouteSpec};

    use super::*;

    fn router(sticky: Option<&str>) -> Router {
        let router = Router::new(Arc::new(Catalog::new()), Arc::new(Monitor::new()));
        let sticky = sticky.map(|key| key.parse().unwrap());
        let route = RouteSpec { sticky, ..RouteSpec::to("a".parse().unwrap()) };
        let routes = BTreeMap::from([(ModelName::new("a").unwrap(), route)]);
        let metrics = Monitor::new();
        let table = RouteTable::build(1, &routes, &RouteTable::default(), metrics.traffic());
        router.set_routes(Arc::new(table));
        router
    }

    fn read_pairs(
        pairs: &[(&'static str, &str)],
        router: &Router,
    ) -> Result<RequestContext, Malformed> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let mut context = RequestContext::default();
        read(&headers, &CALLER, router, &mut context).map(|()| context)
    }

    #[test]
    fn headers_say_who_asks_for_what() {
        let router = router(Some("cookie:uid"));
        let context = read_pairs(
            &[
                ("x-outhaul-caller", "billing"),
                ("x-outhaul-priority", "background"),
                ("x-outhaul-target", "a@3"),
                ("cache-control", "max-age=0, No-Cache"),
                ("cookie", "theme=dark; uid=\"7\""),
                ("cookie", "uid=8"),
                ("x-outhaul-depth", "2"),
            ],
            &router,
        );
        let context = context.unwrap();
        assert_eq!(context.caller.as_deref(), Some("billing"));
        assert_eq!(context.priority, Some(Priority::Background));
        assert_eq!(context.target.unwrap().to_string(), "a@3");
        assert!(context.no_cache);
        assert_eq!(context.depth, 2);
        assert_eq!(context.attributes.len(), 1);
        assert_eq!(context.attributes[0].value, "7");
        let plain = read_pairs(&[("cache-control", "max-age=3")], &router).unwrap();
        assert!(!plain.no_cache && plain.caller.is_none() && plain.attributes.is_empty());
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        let router = router(None);
        for (name, value) in [
            ("x-outhaul-priority", "urgent"),
            ("x-outhaul-target", "a@"),
            ("x-outhaul-caller", ""),
            ("x-outhaul-depth", "-1"),
        ] {
            let refused = read_pairs(&[(name, value)], &router).unwrap_err();
            assert!(refused.0.contains(name), "{}", refused.0);
        }
    }

    #[test]
    fn an_answer_tells_its_way() {
        let mut headers = HeaderMap::new();
        Way::default().write(&mut headers);
        assert!(headers.is_empty());
        let via = Via {
            route: Some("reviews".into()),
            variant: Some("reviews@3".into()),
            fallback: Some("default".into()),
            cause: Some(FallbackCause::Overloaded),
        };
        Way { via: Some(Box::new(via)), cache: CacheStatus::Hit }.write(&mut headers);
        assert_eq!(headers["cache-status"], "outhaul; hit");
        assert_eq!(headers["x-outhaul-variant"], "reviews@3");
        assert_eq!(headers["x-outhaul-fallback"], "default; cause=overloaded");
    }
}
