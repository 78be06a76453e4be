//! What happened, counted and told: metrics, statistics, logs and traces.
//!
//! Invariant: telling never slows the telling down. A [`ModelMetrics`] or [`ServerMetrics`] handle is
//! looked up once and then only adds to atomics: no lock, no allocation, no label formatting. All
//! labels come from bounded sets (models that were loaded, [`ErrorKind`](outhaul_types::ErrorKind),
//! contracts), never from request data. There is no global registry: a [`Monitor`] is a value, and a
//! test has its own.
//!
//! The names, labels and buckets are a contract, kept in `docs/spec/telemetry.md`.
//!
//! This crate decides nothing from what it counts, and knows no socket: `server` answers `/metrics`
//! with [`Monitor::render`].

mod exposition;
mod histogram;
pub mod logging;
mod metrics;
mod process;
mod statistics;
pub mod trace;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

pub use metrics::{ModelMetrics, ServerMetrics};
use outhaul_types::{ModelName, ModelVersion};
pub use statistics::{DurationCount, ModelStatistics};
pub use trace::Tracer;

use crate::process::Process;

/// The metrics of every registered model version, in the order of their labels.
type Models = BTreeMap<(ModelName, ModelVersion), Arc<ModelMetrics>>;

/// All metrics of one process, and its tracer where one is configured.
#[derive(Default)]
pub struct Monitor {
    /// Locked when a version comes or goes and when somebody reads the metrics, never by a request.
    models: RwLock<Models>,
    server: Arc<ServerMetrics>,
    tracer: OnceLock<Arc<Tracer>>,
    process: Process,
}

impl Monitor {
    /// Makes an empty monitor.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a model version and returns its handles (the same ones when asked again).
    pub fn model(&self, name: &ModelName, version: ModelVersion) -> Arc<ModelMetrics> {
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(models.entry((name.clone(), version)).or_default())
    }

    /// Forgets a model version's series. Handles that are still held go on counting, unseen.
    pub fn forget(&self, name: &ModelName, version: ModelVersion) {
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        models.remove(&(name.clone(), version));
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
        exposition::render(&models, &self.server, &self.process)
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
    fn every_line_of_the_text_is_well_formed() {
        let monitor = Monitor::new();
        let model = monitor.model(&iris(), ModelVersion(1));
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
