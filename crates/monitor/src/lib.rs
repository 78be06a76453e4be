//! What happened, counted and told: metrics, statistics, logs and traces.
//!
//! Invariant: telling never slows the telling down. A [`ModelMetrics`] or [`ServerMetrics`] handle is
//! looked up once and then only adds to atomics: no lock, no allocation, no label formatting. What happens
//! seldom ([`LoadMetrics`]) takes a lock that no request takes. All labels come from bounded sets (models
//! that exist, configured sources, [`ErrorKind`](outhaul_types::ErrorKind),
//! contracts), never from request data. There is no global registry: a [`Monitor`] is a value, and a
//! test has its own.
//!
//! The names, labels and buckets are a contract, kept in `docs/spec/telemetry.md`.
//!
//! This crate decides nothing from what it counts, and knows no socket: `server` answers `/metrics`
//! with [`Monitor::render`].

mod exposition;
mod histogram;
mod latency;
mod loading;
pub mod logging;
mod metrics;
mod process;
mod statistics;
pub mod trace;
pub mod traffic;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

pub use latency::{LatencyCounts, LatencyHistogram};
pub use loading::{LoadMetrics, VersionStateLabel};
pub use metrics::{ModelMetrics, ServerMetrics};
use outhaul_types::{ModelName, ModelVersion};
pub use statistics::{DurationCount, ModelStatistics};
pub use trace::Tracer;
pub use traffic::TrafficMetrics;

use crate::process::Process;

/// The metrics of every registered model version, in the order of their labels.
type Models = BTreeMap<(ModelName, ModelVersion), Arc<ModelMetrics>>;

/// All metrics of one process, and its tracer where one is configured.
#[derive(Default)]
pub struct Monitor {
    /// Locked when a version comes or goes and when somebody reads the metrics, never by a request.
    models: RwLock<Models>,
    server: Arc<ServerMetrics>,
    loading: Arc<LoadMetrics>,
    traffic: Arc<TrafficMetrics>,
    tracer: OnceLock<Arc<Tracer>>,
    process: Process,
}

impl Monitor {
    /// Makes an empty monitor.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a model version and returns its handles: the same ones until it is forgotten, so a version
    /// that is evicted and loaded again goes on counting.
    pub fn model(&self, name: &ModelName, version: ModelVersion) -> Arc<ModelMetrics> {
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(models.entry((name.clone(), version)).or_default())
    }

    /// Forgets a version that exists no more: its series here and in [`LoadMetrics`]. Handles that
    /// are still held, while it drains, go on counting, unseen.
    pub fn forget(&self, name: &ModelName, version: ModelVersion) {
        self.loading.forget_version(name, version);
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        models.remove(&(name.clone(), version));
    }

    /// Forgets a model that exists no more, with all its versions: here and in [`LoadMetrics`].
    pub fn forget_model(&self, name: &ModelName) {
        self.loading.forget_model(name);
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        loading::remove_model(&mut models, name);
    }

    /// Returns the counters of loads, evictions, memory and sources.
    pub fn loading(&self) -> Arc<LoadMetrics> {
        Arc::clone(&self.loading)
    }

    /// Returns the handles of routes, caches and fallbacks.
    pub fn traffic(&self) -> &Arc<TrafficMetrics> {
        &self.traffic
    }

    /// Returns the handles of the listeners.
    pub fn server(&self) -> Arc<ServerMetrics> {
        Arc::clone(&self.server)
    }

    /// Gives the monitor its tracer. Only the first call counts; returns whether it was this one.
    pub fn set_tracer(&self, tracer: Arc<Tracer>) -> bool {
        self.tracer.set(tracer).is_ok()
    }

    /// Returns the tracer, or `None` where traces are off: then the whole cost is this read.
    pub fn tracer(&self) -> Option<&Arc<Tracer>> {
        self.tracer.get()
    }

    /// Writes everything in the Prometheus text format, version 0.0.4.
    pub fn render(&self) -> String {
        let models: Vec<_> = {
            let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
            models.iter().map(|(key, metrics)| (key.clone(), Arc::clone(metrics))).collect()
        };
        exposition::render(&models, &self.server, &self.loading, &self.traffic, &self.process)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use outhaul_types::{ErrorKind, Timings};

    use super::*;

    fn iris() -> ModelName {
        ModelName::new("iris").unwrap()
    }

    #[test]
    fn a_version_has_one_set_of_handles_until_it_is_forgotten() {
        let monitor = Monitor::new();
        let first = monitor.model(&iris(), ModelVersion(1));
        assert!(Arc::ptr_eq(&first, &monitor.model(&iris(), ModelVersion(1))));
        assert!(!Arc::ptr_eq(&first, &monitor.model(&iris(), ModelVersion(2))));
        assert!(monitor.render().contains("model=\"iris\",version=\"1\""));
        monitor.forget(&iris(), ModelVersion(1));
        let text = monitor.render();
        assert!(!text.contains("model=\"iris\",version=\"1\""));
        assert!(text.contains("model=\"iris\",version=\"2\""));
    }

    #[test]
    fn the_text_says_what_was_counted() {
        let monitor = Monitor::new();
        let model = monitor.model(&iris(), ModelVersion(1));
        let timings = Timings {
            transform: Duration::ZERO,
            load: Duration::ZERO,
            queue: Duration::from_micros(30),
            assemble: Duration::from_micros(2),
            compute: Duration::from_micros(6),
            split: Duration::from_micros(1),
            batch_rows: 4,
        };
        model.record_request(Ok(()), Duration::from_micros(60), &timings, 3);
        let failed = Err(ErrorKind::InvalidInput);
        model.record_request(failed, Duration::from_micros(5), &Timings::default(), 0);
        model.record_batch(4, 2, Duration::from_micros(6));
        model.queue_entered();
        model.queue_entered();
        model.queue_left();
        let server = monitor.server();
        server.connection_opened();
        server.record_call("oip_rest", 200, Duration::from_millis(1), 300, 200);
        server.record_call("oip_grpc", 3, Duration::from_millis(1), 300, 200);
        let text = monitor.render();
        let ok = "model=\"iris\",version=\"1\",outcome=\"ok\"";
        let bad = "model=\"iris\",version=\"1\",outcome=\"invalid_input\"";
        let labels = "model=\"iris\",version=\"1\"";
        for line in [
            "# TYPE outhaul_request_duration_seconds histogram".to_owned(),
            format!("outhaul_request_duration_seconds_bucket{{{ok},le=\"0.00005\"}} 0"),
            format!("outhaul_request_duration_seconds_bucket{{{ok},le=\"0.0001\"}} 1"),
            format!("outhaul_request_duration_seconds_bucket{{{ok},le=\"+Inf\"}} 1"),
            format!("outhaul_request_duration_seconds_sum{{{ok}}} 0.00006"),
            format!("outhaul_request_duration_seconds_count{{{ok}}} 1"),
            format!("outhaul_request_duration_seconds_count{{{bad}}} 1"),
            format!("outhaul_queue_duration_seconds_sum{{{labels}}} 0.00003"),
            format!("outhaul_queue_duration_seconds_count{{{labels}}} 1"),
            format!("outhaul_batch_rows_bucket{{{labels},le=\"2\"}} 0"),
            format!("outhaul_batch_rows_bucket{{{labels},le=\"4\"}} 1"),
            format!("outhaul_batch_requests_sum{{{labels}}} 2"),
            format!("outhaul_answered_rows_total{{{labels}}} 3"),
            format!("outhaul_queue_depth{{{labels}}} 1"),
            "outhaul_connections_open 1".to_owned(),
            "outhaul_call_duration_seconds_count{contract=\"oip_rest\",outcome=\"ok\"} 1"
                .to_owned(),
            "outhaul_call_duration_seconds_count{contract=\"oip_grpc\",outcome=\"caller_error\"} 1"
                .to_owned(),
            "outhaul_call_request_bytes_sum{contract=\"oip_rest\"} 300".to_owned(),
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is missing from\n{text}");
        }
        assert!(!text.contains("outcome=\"internal\""), "a kind that never occurred has no series");
        if cfg!(target_os = "linux") {
            assert!(text.contains("process_resident_memory_bytes "), "{text}");
        }
    }

    #[test]
    fn the_text_says_what_became_of_models() {
        let monitor = Monitor::new();
        let loading = monitor.loading();
        loading.refused(&iris(), Duration::ZERO);
        loading.failed(&iris(), Duration::from_millis(700));
        loading.loaded(&iris(), Duration::from_millis(20));
        loading.loaded(&iris(), Duration::from_millis(30));
        loading.evicted(&iris());
        loading.unloaded(&iris());
        loading.unloaded(&iris());
        for (version, state) in (1..).zip(VersionStateLabel::ALL) {
            let memory = (state == VersionStateLabel::Ready).then_some(4096);
            loading.set_version(&iris(), ModelVersion(version), state, memory);
        }
        loading.set_memory_total(5000);
        loading.looked("s3://models", true);
        loading.looked("s3://models", false);
        loading.looked("C:\\my \"models\"\n", false);
        loading.fetched_bytes(70);
        loading.fetched_bytes(7);
        let text = monitor.render();
        let loads = "outhaul_model_loads_total{model=\"iris\",outcome";
        let seconds = "outhaul_model_load_seconds";
        for line in [
            "outhaul_model_state{model=\"iris\",version=\"1\",state=\"loading\"} 1".to_owned(),
            "outhaul_model_state{model=\"iris\",version=\"2\",state=\"ready\"} 1".to_owned(),
            "outhaul_model_state{model=\"iris\",version=\"3\",state=\"dormant\"} 1".to_owned(),
            "outhaul_model_state{model=\"iris\",version=\"4\",state=\"failed\"} 1".to_owned(),
            "outhaul_model_state{model=\"iris\",version=\"5\",state=\"unloaded\"} 1".to_owned(),
            "outhaul_model_memory_bytes{model=\"iris\",version=\"2\"} 4096".to_owned(),
            format!("{loads}=\"loaded\"}} 2"),
            format!("{loads}=\"failed\"}} 1"),
            format!("{loads}=\"refused\"}} 1"),
            format!("{seconds}_bucket{{outcome=\"loaded\",le=\"0.01\"}} 0"),
            format!("{seconds}_bucket{{outcome=\"loaded\",le=\"0.025\"}} 1"),
            format!("{seconds}_bucket{{outcome=\"loaded\",le=\"600\"}} 2"),
            format!("{seconds}_sum{{outcome=\"loaded\"}} 0.05"),
            format!("{seconds}_count{{outcome=\"failed\"}} 1"),
            "outhaul_model_evictions_total{model=\"iris\"} 1".to_owned(),
            "outhaul_model_unloads_total{model=\"iris\"} 2".to_owned(),
            "outhaul_models_memory_bytes 5000".to_owned(),
            "outhaul_source_looks_total{source=\"s3://models\",outcome=\"ok\"} 1".to_owned(),
            "outhaul_source_looks_total{source=\"s3://models\",outcome=\"failed\"} 1".to_owned(),
            "outhaul_source_looks_total{source=\"C:\\\\my \\\"models\\\"\\n\",outcome=\"failed\"} 1"
                .to_owned(),
            "outhaul_source_fetch_bytes_total 77".to_owned(),
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is missing from\n{text}");
        }
        let last = "outhaul_source_last_success_timestamp_seconds{";
        let successes: Vec<_> = text.lines().filter(|line| line.starts_with(last)).collect();
        assert_eq!(successes.len(), 1, "one of two sources was ever looked at: {successes:?}");
        let (series, value) = successes[0].rsplit_once(' ').unwrap();
        assert!(series.ends_with("{source=\"s3://models\"}"), "{series}");
        assert!(value.parse::<f64>().unwrap() > 1.6e9, "{value}");
        assert!(!text.contains("outhaul_memory_budget_bytes"), "there is no budget");
        loading.set_budget(Some(6000));
        assert!(monitor.render().contains("\nouthaul_memory_budget_bytes 6000\n"));
    }

    #[test]
    fn the_text_says_what_became_of_traffic() {
        let monitor = Monitor::new();
        assert!(!monitor.render().contains("outhaul_route"), "without routes there are no series");
        let traffic = monitor.traffic();
        let variant = traffic.variant(&iris(), "iris@2");
        variant.record(Ok(()), Duration::from_millis(1));
        variant.record(Err(ErrorKind::Internal), Duration::ZERO);
        traffic.shadow(&iris(), "iris@3").compared.add(5);
        let cache = traffic.cache(&iris());
        cache.hits.add(2);
        cache.saved_ns.add(1_500_000_000);
        traffic.fallback("iris").record(outhaul_types::FallbackCause::Deadline);
        traffic.remote("http://other/v2/models/iris").hedged.increment();
        traffic.limited("billing").increment();
        let text = monitor.render();
        let route = "outhaul_route_requests_total{route=\"iris\",variant=\"iris@2\",outcome";
        for line in [
            format!("{route}=\"ok\"}} 1"),
            format!("{route}=\"failed\"}} 1"),
            "outhaul_shadow_requests_total{route=\"iris\",shadow=\"iris@3\",outcome=\"compared\"} 5"
                .to_owned(),
            "outhaul_cache_requests_total{model=\"iris\",outcome=\"hit\"} 2".to_owned(),
            "outhaul_cache_saved_seconds_total{model=\"iris\"} 1.5".to_owned(),
            "outhaul_fallbacks_total{from=\"iris\",cause=\"deadline\"} 1".to_owned(),
            "outhaul_remote_requests_total{remote=\"http://other/v2/models/iris\",event=\"hedged\"} 1"
                .to_owned(),
            "outhaul_caller_limited_total{caller=\"billing\"} 1".to_owned(),
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is missing from\n{text}");
        }
        assert!(text.contains("variant=\"iris@2\",quantile=\"0.99\"} 0.00"), "{text}");
    }

    #[test]
    fn what_exists_no_more_has_no_series() {
        let monitor = Monitor::new();
        let other = ModelName::new("other").unwrap();
        for (name, version) in [(&iris(), 1), (&iris(), 2), (&other, 1)] {
            let version = ModelVersion(version);
            monitor.model(name, version).queue_entered();
            monitor.loading().set_version(name, version, VersionStateLabel::Ready, Some(1));
            monitor.loading().loaded(name, Duration::ZERO);
        }
        monitor.forget(&iris(), ModelVersion(1));
        let text = monitor.render();
        assert!(!text.contains("model=\"iris\",version=\"1\""), "{text}");
        assert!(text.contains("outhaul_model_memory_bytes{model=\"iris\",version=\"2\"} 1"));
        assert!(text.contains("outhaul_model_loads_total{model=\"iris\",outcome=\"loaded\"} 2"));
        monitor.forget_model(&iris());
        let text = monitor.render();
        assert!(!text.contains("iris"), "{text}");
        assert!(text.contains("outhaul_queue_depth{model=\"other\",version=\"1\"} 1"));
        assert!(text.contains("outhaul_model_loads_total{model=\"other\",outcome=\"loaded\"} 1"));
    }

    #[test]
    fn a_version_that_is_evicted_and_loaded_again_goes_on_counting() {
        let monitor = Monitor::new();
        for expected in 1..=3 {
            let model = monitor.model(&iris(), ModelVersion(1));
            model.record_request(Ok(()), Duration::ZERO, &Timings::default(), 1);
            drop(model);
            monitor.loading().evicted(&iris());
            let line = "outhaul_answered_rows_total{model=\"iris\",version=\"1\"}";
            assert!(monitor.render().contains(&format!("{line} {expected}\n")));
        }
    }

    #[test]
    fn every_line_of_the_text_is_well_formed() {
        let monitor = Monitor::new();
        let model = monitor.model(&iris(), ModelVersion(1));
        let loading = monitor.loading();
        loading.loaded(&iris(), Duration::MAX);
        loading.set_version(&iris(), ModelVersion(1), VersionStateLabel::Ready, Some(u64::MAX));
        loading.set_budget(Some(0));
        loading.looked("a \"place\" with\na line feed", true);
        for kind in ErrorKind::ALL {
            model.record_request(Err(kind), Duration::MAX, &Timings::default(), 0);
        }
        let text = monitor.render();
        assert!(text.ends_with('\n'));
        let mut described = std::collections::BTreeSet::new();
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("# TYPE ") {
                let name = comment.split(' ').next().unwrap().to_owned();
                assert!(described.insert(name), "a family appears twice: {line}");
                continue;
            }
            if line.starts_with("# HELP ") {
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect(line);
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = series.split('{').next().unwrap();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end))
                .filter(|family| described.contains(*family))
                .unwrap_or(name);
            assert!(described.contains(family), "{line} has no TYPE");
        }
    }
}
