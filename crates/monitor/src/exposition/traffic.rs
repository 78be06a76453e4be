//! Routes, shadows, caches, fallbacks, servers elsewhere and limited callers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use outhaul_types::FallbackCause;

use super::{Text, escaped};
use crate::latency::LatencyCounts;
use crate::traffic::{CacheMetrics, Counter, RemoteMetrics, ShadowMetrics, TrafficMetrics};

/// The quantiles of fine histograms that are told.
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// A series of a handle: its label's value, and where its count is.
type Series<H> = (&'static str, fn(&H) -> &Counter);

impl Text {
    pub(super) fn traffic(&mut self, traffic: &TrafficMetrics) {
        self.variants(traffic);
        self.shadows(traffic);
        self.caches(traffic);
        self.fallbacks(traffic);
        self.remotes(traffic);
        let callers =
            labelled(traffic.limits(), |caller| format!("caller=\"{}\"", escaped(caller)));
        if !callers.is_empty() {
            let name = "outhaul_caller_limited_total";
            let help = "Requests refused because their caller's rate was used up.";
            self.family(name, "counter", help);
            for (labels, count) in &callers {
                self.sample(name, labels, count.get());
            }
        }
    }

    fn variants(&mut self, traffic: &TrafficMetrics) {
        let variants = labelled(traffic.variants(), |(route, variant)| {
            format!("route=\"{route}\",variant=\"{}\"", escaped(variant))
        });
        if variants.is_empty() {
            return;
        }
        let counts: Vec<_> =
            variants.iter().map(|(labels, metrics)| (labels, metrics.counts())).collect();
        let name = "outhaul_route_requests_total";
        self.family(name, "counter", "Requests by route and variant.");
        for (labels, counts) in &counts {
            self.sample(name, &format!("{labels},outcome=\"ok\""), counts.answered());
            self.sample(name, &format!("{labels},outcome=\"failed\""), counts.failed);
            self.sample(name, &format!("{labels},outcome=\"caller_error\""), counts.refused);
        }
        let name = "outhaul_route_latency_seconds";
        self.family(name, "gauge", "Latency of answers by route and variant since the start.");
        for (labels, counts) in &counts {
            self.quantiles(name, labels, &counts.latency);
        }
    }

    fn shadows(&mut self, traffic: &TrafficMetrics) {
        let shadows = labelled(traffic.shadows(), |(route, to)| {
            format!("route=\"{route}\",shadow=\"{}\"", escaped(to))
        });
        let outcomes: [Series<ShadowMetrics>; 4] = [
            ("compared", |m| &m.compared),
            ("disagreed", |m| &m.disagreed),
            ("failed", |m| &m.failed),
            ("shed", |m| &m.shed),
        ];
        let help = "Copies of requests by what became of them; disagreed ones were compared, too.";
        self.counters("outhaul_shadow_requests_total", help, &shadows, ("outcome", &outcomes));
    }

    fn caches(&mut self, traffic: &TrafficMetrics) {
        let caches = labelled(traffic.caches(), |model| format!("model=\"{model}\""));
        if caches.is_empty() {
            return;
        }
        let outcomes: [Series<CacheMetrics>; 5] = [
            ("hit", |m| &m.hits),
            ("joined", |m| &m.joined),
            ("miss", |m| &m.misses),
            ("bypassed", |m| &m.bypassed),
            ("shared_hit", |m| &m.shared_hits),
        ];
        let help = "Look-ups of answers; shared hits are those of the hits that came from Redis.";
        self.counters("outhaul_cache_requests_total", help, &caches, ("outcome", &outcomes));
        let failures: [Series<CacheMetrics>; 1] = [("redis", |m| &m.store_failures)];
        let help = "Calls to the shared store that failed; each cost a miss.";
        self.counters("outhaul_cache_store_failures_total", help, &caches, ("store", &failures));
        let name = "outhaul_cache_saved_seconds_total";
        self.family(name, "counter", "Time in the engine that cached answers saved.");
        for (labels, cache) in &caches {
            self.sample(name, labels, cache.saved_ns.get() as f64 / 1e9);
        }
        let name = "outhaul_cache_bytes";
        self.family(name, "gauge", "Bytes of answers kept in memory.");
        for (labels, cache) in &caches {
            self.sample(name, labels, cache.bytes.load(Ordering::Relaxed));
        }
        let name = "outhaul_cache_entries";
        self.family(name, "gauge", "Answers kept in memory.");
        for (labels, cache) in &caches {
            self.sample(name, labels, cache.entries.load(Ordering::Relaxed));
        }
    }

    fn fallbacks(&mut self, traffic: &TrafficMetrics) {
        let fallbacks = labelled(traffic.fallbacks(), |from| format!("from=\"{}\"", escaped(from)));
        if fallbacks.is_empty() {
            return;
        }
        let name = "outhaul_fallbacks_total";
        self.family(name, "counter", "Requests that were led on to a fallback, by cause.");
        for (labels, metrics) in &fallbacks {
            for cause in FallbackCause::ALL {
                let labels = format!("{labels},cause=\"{}\"", cause.as_str());
                self.sample(name, &labels, metrics.count(cause));
            }
        }
    }

    fn remotes(&mut self, traffic: &TrafficMetrics) {
        let remotes = labelled(traffic.remotes(), |url| format!("remote=\"{}\"", escaped(url)));
        let outcomes: [Series<RemoteMetrics>; 4] = [
            ("sent", |m| &m.sent),
            ("failed", |m| &m.failed),
            ("hedged", |m| &m.hedged),
            ("hedge_won", |m| &m.hedges_won),
        ];
        let help = "Requests to models of other servers, by what happened to them.";
        self.counters("outhaul_remote_requests_total", help, &remotes, ("event", &outcomes));
        let name = "outhaul_remote_latency_seconds";
        if !remotes.is_empty() {
            self.family(name, "gauge", "Latency of models of other servers since the start.");
        }
        for (labels, remote) in &remotes {
            self.quantiles(name, labels, &remote.latency.counts());
        }
    }

    fn quantiles(&mut self, name: &str, labels: &str, counts: &LatencyCounts) {
        for quantile in QUANTILES {
            if let Some(latency) = counts.quantile(quantile) {
                let labels = format!("{labels},quantile=\"{quantile}\"");
                self.sample(name, &labels, latency.as_secs_f64());
            }
        }
    }

    /// Writes one family of counters: a series for each handle and each of its counters. A family without
    /// handles is left out.
    fn counters<H>(
        &mut self,
        name: &str,
        help: &str,
        handles: &[(String, Arc<H>)],
        (label, series): (&str, &[Series<H>]),
    ) {
        if handles.is_empty() {
            return;
        }
        self.family(name, "counter", help);
        for (labels, handle) in handles {
            for (word, counter) in series {
                self.sample(name, &format!("{labels},{label}=\"{word}\""), counter(handle).get());
            }
        }
    }
}

fn labelled<K, H>(
    handles: Vec<(K, Arc<H>)>,
    labels: impl Fn(&K) -> String,
) -> Vec<(String, Arc<H>)> {
    handles.into_iter().map(|(key, handle)| (labels(&key), handle)).collect()
}
