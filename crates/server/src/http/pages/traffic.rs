//! Where requests go: routes and their splits, roll-outs with their guards over time, shadows, caches.
//!
//! The page is rendered here as a whole; its script asks for it anew every two seconds and puts the new
//! middle in place of the old.

use maud::{Markup, html};
use outhaul_monitor::traffic::ShadowCounts;
use outhaul_rollout::judge::{Judgement, Verdict};
use outhaul_rollout::traffic::RolloutStatus;
use outhaul_rollout::world::Phase;
use outhaul_router::{Route, Variant};

use super::layout::page;
use crate::App;
use crate::http::traffic::share;

mod chart;

/// Returns the page.
pub(in crate::http) fn traffic(app: &App) -> Markup {
    page("Traffic", Some("/assets/traffic.js"), &middle(app))
}

/// Returns what changes of it.
fn middle(app: &App) -> Markup {
    let table = app.router().routes();
    let rollouts = app.traffic().map(|traffic| traffic.status()).unwrap_or_default();
    let caches = app.monitor().traffic().caches();
    html! {
        h1 { "Traffic" }
        @if table.routes().is_empty() {
            p {
                "There are no routes: requests for a name go to the newest version of the model of that name. "
                code { "outhaul route set NAME NAME@VERSION" } " makes one, "
                code { "outhaul rollout start NAME --to VERSION" } " brings in a new version step by step."
            }
        }
        @for route in table.routes() { (section(route, rollouts.iter().find(|s| s.route == *route.name()))) }
        @if !caches.is_empty() {
            h2 { "Caches" }
            div class="scroll" {
                table {
                    thead { tr {
                        th scope="col" { "Model" }
                        th scope="col" class="number" { "Answered from the cache" }
                        th scope="col" class="number" { "Joined" }
                        th scope="col" class="number" { "Computed" }
                        th scope="col" class="number" { "Engine time saved" }
                        th scope="col" class="number" { "Kept" }
                    } }
                    tbody { @for (model, cache) in &caches {
                        @let asked = cache.hits.get() + cache.joined.get() + cache.misses.get();
                        tr {
                            td { (model) }
                            td class="number" { (cache.hits.get()) " (" (percent(cache.hits.get(), asked)) ")" }
                            td class="number" { (cache.joined.get()) }
                            td class="number" { (cache.misses.get()) }
                            td class="number" { (format!("{:.1} s", cache.saved_ns.get() as f64 / 1e9)) }
                            td class="number" {
                                (cache.entries.load(std::sync::atomic::Ordering::Relaxed))
                            }
                        }
                    } }
                }
            }
        }
        p class="faint" {
            "Counts of variants, shadows and caches are this server's since its start; those of a roll-out are all replicas' since its step began."
        }
    }
}

fn section(route: &Route, rollout: Option<&RolloutStatus>) -> Markup {
    html! {
        section {
            h2 { (route.name()) }
            (split(route))
            div class="scroll" {
                table {
                    thead { tr {
                        th scope="col" { "Variant" }
                        th scope="col" class="number" { "Share" }
                        th scope="col" class="number" { "Answered" }
                        th scope="col" class="number" { "Failed" }
                        th scope="col" class="number" { "p50" }
                        th scope="col" class="number" { "p99" }
                    } }
                    tbody { @for variant in route.variants() { (row(variant)) } }
                }
            }
            @if let Some(sticky) = &route.spec().sticky {
                p class="faint" { "Callers keep their variant by " code { (sticky) } "." }
            }
            @if let Some(shadow) = route.shadow() { (shadowed(&shadow.spec().to.to_string(), &shadow.metrics().counts())) }
            @if let Some(rollout) = rollout { (rolled(rollout)) }
        }
    }
}

/// The shares as one bar.
fn split(route: &Route) -> Markup {
    let mut left = 0.0;
    let pieces: Vec<(usize, f64, f64, &Variant)> = route
        .variants()
        .iter()
        .enumerate()
        .map(|(index, variant)| {
            let start = left;
            left += variant.share * 100.0;
            (index, start, variant.share * 100.0, variant)
        })
        .collect();
    let label: Vec<String> = route
        .variants()
        .iter()
        .map(|variant| format!("{} {:.1}%", variant.name, variant.share * 100.0))
        .collect();
    html! {
        svg class="split" viewBox="0 0 100 4" preserveAspectRatio="none" role="img" aria-label=(label.join(", ")) {
            @for (index, start, width, variant) in pieces {
                rect class={ "share-" (index % 5) } x=(start) y="0" width=(width) height="4" {
                    title { (variant.name) " " (format!("{width:.1}%")) }
                }
            }
        }
    }
}

fn row(variant: &Variant) -> Markup {
    let counts = variant.metrics.counts();
    let latency = |quantile| {
        counts
            .latency
            .quantile(quantile)
            .map(|latency| format!("{:.2} ms", latency.as_secs_f64() * 1e3))
    };
    html! {
        tr {
            td { (variant.name) }
            td class="number" { (format!("{:.1}%", variant.share * 100.0)) }
            td class="number" { (counts.answered()) }
            td class={ "number" @if counts.failed > 0 { " bad" } } { (counts.failed) }
            td class="number" { (latency(0.5).unwrap_or_default()) }
            td class="number" { (latency(0.99).unwrap_or_default()) }
        }
    }
}

fn shadowed(to: &str, counts: &ShadowCounts) -> Markup {
    html! {
        p {
            "Shadow " code { (to) } ": " (counts.compared) " answers compared, "
            span class=(if counts.disagreed > 0 { "bad" } else { "good" }) {
                (counts.disagreed) " disagreed (" (percent(counts.disagreed, counts.compared)) ")"
            }
            ", " (counts.failed) " failed, " (counts.shed) " shed."
        }
    }
}

fn rolled(status: &RolloutStatus) -> Markup {
    let rollout = &status.rollout;
    let (class, word) = match rollout.phase {
        Phase::Preparing => ("faint", "preparing"),
        Phase::Stepping => ("faint", "under way"),
        Phase::Paused => ("faint", "paused"),
        Phase::Promoted => ("good", "promoted"),
        Phase::RolledBack => ("bad", "rolled back"),
        Phase::Aborted => ("bad", "aborted"),
    };
    html! {
        h3 { "Roll-out of " (rollout.spec.to) ": " span class=(class) { (word) } }
        p {
            (format!("{:.1}%", share(status) * 100.0)) " of requests, steps "
            @for (index, step) in rollout.spec.steps.iter().enumerate() {
                @if index > 0 { ", " }
                @if index == rollout.step && rollout.is_open() { strong { (step) "%" } } @else { (step) "%" }
            }
            ". " (rollout.reason)
        }
        div class="charts" {
            @for (index, judgement) in status.judgements.iter().enumerate() {
                figure {
                    figcaption {
                        code { (judgement.guard) } " "
                        span class=(verdict_class(judgement.verdict)) { (judgement.verdict.as_str()) }
                    }
                    (chart::chart(judgement, index, &status.history))
                    small class="faint" { (samples(judgement)) }
                }
            }
        }
    }
}

fn samples(judgement: &Judgement) -> String {
    format!("{} samples. {}", judgement.samples, judgement.text)
}

fn verdict_class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Keeps => "good",
        Verdict::Breached => "bad",
        Verdict::Undecided => "faint",
    }
}

fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "-".to_owned(),
        whole => format!("{:.1}%", part as f64 * 100.0 / whole as f64),
    }
}
