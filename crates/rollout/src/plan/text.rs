//! What a change is, for people.

use outhaul_types::{Destination, RouteSpec};

use crate::judge::digits;

/// How a route changes: the shares before and after, and what else is different.
pub(super) fn change(from: Option<&RouteSpec>, to: &RouteSpec) -> String {
    let Some(from) = from else { return format!("leads to {}", shares(to)) };
    let mut parts: Vec<String> = moved(from, to);
    let other = [
        ("policy", from.policy != to.policy),
        ("sticky", from.sticky != to.sticky),
        ("pinned", from.pinned != to.pinned),
        ("overrides", from.overrides != to.overrides),
        ("shadow", from.shadow != to.shadow),
        ("fallback", from.fallback != to.fallback),
        ("feedback", from.feedback != to.feedback),
    ];
    let other: Vec<&str> =
        other.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect();
    if !other.is_empty() {
        parts.push(format!("changed: {}", other.join(", ")));
    }
    match parts.is_empty() {
        true => format!("leads to {}, as before", shares(to)),
        false => parts.join(", "),
    }
}

/// Where a route leads.
pub(super) fn shares(spec: &RouteSpec) -> String {
    let parts = spec.targets.iter().zip(spec.shares());
    let parts: Vec<String> =
        parts.map(|(target, share)| format!("{} {}", target.to, percent(share))).collect();
    parts.join(", ")
}

/// The targets whose share is another one now.
fn moved(from: &RouteSpec, to: &RouteSpec) -> Vec<String> {
    let added = to.targets.iter().filter(|target| share_of(from, &target.to).is_none());
    let targets = from.targets.iter().chain(added);
    let moved = targets.filter_map(|target| {
        let share = |spec| percent(share_of(spec, &target.to).unwrap_or(0.0));
        let (before, after) = (share(from), share(to));
        (before != after).then(|| format!("{} {before} -> {after}", target.to))
    });
    moved.collect()
}

fn share_of(spec: &RouteSpec, to: &Destination) -> Option<f64> {
    let mut shares = spec.targets.iter().zip(spec.shares());
    shares.find(|(target, _)| target.to == *to).map(|(_, share)| share)
}

pub(super) fn percent(share: f64) -> String {
    format!("{} %", digits(share * 100.0))
}
