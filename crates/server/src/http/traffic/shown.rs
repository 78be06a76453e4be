//! Routes, roll-outs and caches as the admin API writes them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use outhaul_monitor::traffic::VariantCounts;
use outhaul_rollout::traffic::RolloutStatus;
use outhaul_rollout::world::{Phase, Timestamp};
use outhaul_router::{Route, Variant};
use serde_json::{Value as Json, json};

use crate::App;

/// Writes a route: what is declared, and how its variants and its shadow do on this server.
pub(in crate::http) fn route(route: &Route) -> Json {
    let shadow = route.shadow().map(|shadow| {
        let counts = shadow.metrics().counts();
        json!({
            "to": shadow.spec().to,
            "share": shadow.spec().share,
            "compared": counts.compared,
            "disagreed": counts.disagreed,
            "failed": counts.failed,
            "shed": counts.shed,
            "report": shadow.report(),
        })
    });
    let variants: Vec<Json> = route.variants().iter().map(variant).collect();
    json!({
        "name": route.name(),
        "variants": variants,
        "shadow": shadow,
        "spec": route.spec().as_ref(),
    })
}

fn variant(variant: &Variant) -> Json {
    let counts = variant.metrics.counts();
    let quantile = |quantile| counts.latency.quantile(quantile).map(milliseconds);
    json!({
        "name": variant.name,
        "share": variant.share,
        "answered": counts.answered(),
        "cached": counts.cached,
        "failed": counts.failed,
        "caller_errors": counts.refused,
        "p50_ms": quantile(0.5),
        "p99_ms": quantile(0.99),
    })
}

fn milliseconds(latency: Duration) -> f64 {
    latency.as_secs_f64() * 1e3
}

/// Writes a roll-out: where it stands, and each guard with its history.
pub(in crate::http) fn rollout(status: &RolloutStatus) -> Json {
    let rollout = &status.rollout;
    let now = rollout.ended_at.unwrap_or_else(Timestamp::now);
    let guards: Vec<Json> = status.judgements.iter().map(|judgement| json!(judgement)).collect();
    json!({
        "route": status.route,
        "id": rollout.id,
        "from": rollout.spec.from,
        "to": rollout.spec.to,
        "phase": rollout.phase,
        "share": share(status),
        "step": rollout.step,
        "steps": rollout.spec.steps,
        "step_seconds": now.since(rollout.step_since).as_secs_f64(),
        "every_seconds": rollout.spec.every.as_secs_f64(),
        "started_at": rollout.started_at,
        "ended_at": rollout.ended_at,
        "reason": rollout.reason,
        "spec": rollout.spec,
        "observed": {
            "ready": status.observed.ready,
            "candidate": counted(&status.observed.candidate),
            "other": counted(&status.observed.other),
            "shadow": status.observed.shadow,
        },
        "guards": guards,
        "history": status.history,
    })
}

/// The candidate's share of the requests now, 0 to 1.
pub(in crate::http) fn share(status: &RolloutStatus) -> f64 {
    let rollout = &status.rollout;
    let at_step = |step: Option<&f64>| step.map_or(0.0, |percent| percent / 100.0);
    match rollout.phase {
        Phase::Preparing | Phase::RolledBack | Phase::Aborted => 0.0,
        Phase::Stepping | Phase::Paused => at_step(rollout.spec.steps.get(rollout.step)),
        Phase::Promoted => at_step(rollout.spec.steps.last()),
    }
}

fn counted(counts: &VariantCounts) -> Json {
    let quantile = |quantile| counts.latency.quantile(quantile).map(milliseconds);
    json!({
        "answered": counts.answered(),
        "cached": counts.cached,
        "failed": counts.failed,
        "caller_errors": counts.refused,
        "p50_ms": quantile(0.5),
        "p99_ms": quantile(0.99),
    })
}

/// Writes what the models' caches did.
pub(in crate::http) fn caches(app: &App) -> Vec<Json> {
    let cache = |(model, cache): &(_, std::sync::Arc<outhaul_monitor::traffic::CacheMetrics>)| {
        json!({
            "model": model,
            "hits": cache.hits.get(),
            "shared_hits": cache.shared_hits.get(),
            "joined": cache.joined.get(),
            "misses": cache.misses.get(),
            "bypassed": cache.bypassed.get(),
            "store_failures": cache.store_failures.get(),
            "saved_seconds": cache.saved_ns.get() as f64 / 1e9,
            "bytes": cache.bytes.load(Ordering::Relaxed),
            "entries": cache.entries.load(Ordering::Relaxed),
        })
    };
    app.monitor().traffic().caches().iter().map(cache).collect()
}
