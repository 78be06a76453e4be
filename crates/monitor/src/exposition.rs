//! The Prometheus text format, version 0.0.4.
//!
//! Label values need no escaping: they are model names, versions and words from closed sets, none of
//! which can hold a quote, a backslash or a line feed. Sources are the exception.

use std::fmt::{Display, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use outhaul_types::{ErrorKind, ModelName, ModelVersion};

use crate::histogram::Histogram;
use crate::loading::{LoadMetrics, LoadOutcome, ModelRow, Rows};
use crate::metrics::{CONTRACTS, ContractMetrics, ModelMetrics, OUTCOMES, ServerMetrics};
use crate::process::Process;
use crate::traffic::TrafficMetrics;

mod traffic;

type Model = ((ModelName, ModelVersion), Arc<ModelMetrics>);

/// Writes all series of a process.
pub(crate) fn render(
    models: &[Model],
    server: &ServerMetrics,
    loading: &LoadMetrics,
    traffic: &TrafficMetrics,
    process: &Process,
) -> String {
    let mut text = Text(String::with_capacity(4_096 + models.len() * 8_192));
    let labelled: Vec<_> = models
        .iter()
        .map(|((name, version), metrics)| {
            (format!("model=\"{name}\",version=\"{version}\""), metrics.as_ref())
        })
        .collect();
    text.requests(&labelled);
    text.stages(&labelled);
    text.batches(&labelled);
    text.calls(server);
    let rows = loading.copy();
    text.versions(&rows);
    text.loads(&rows, loading);
    text.sources(&rows);
    text.traffic(traffic);
    text.process(process);
    text.0
}

/// The text so far.
struct Text(String);

/// What a histogram's whole numbers are, as Prometheus wants to read them.
#[derive(Clone, Copy)]
enum Unit {
    /// Nanoseconds, written in seconds.
    Seconds,
    /// Written as they are.
    Plain,
}

impl Unit {
    fn write(self, value: u64) -> f64 {
        match self {
            Unit::Seconds => value as f64 / 1e9,
            Unit::Plain => value as f64,
        }
    }
}

impl Text {
    fn requests(&mut self, models: &[(String, &ModelMetrics)]) {
        let name = "outhaul_request_duration_seconds";
        self.family(name, "histogram", "From a request's arrival at the router to its answer.");
        for (labels, metrics) in models {
            let labels = |outcome| format!("{labels},outcome=\"{outcome}\"");
            self.histogram(name, &labels("ok"), &metrics.answered, Unit::Seconds);
            for (kind, histogram) in ErrorKind::ALL.iter().zip(&metrics.failed) {
                if histogram.count() > 0 {
                    self.histogram(name, &labels(kind.as_str()), histogram, Unit::Seconds);
                }
            }
        }
        let name = "outhaul_answered_rows_total";
        self.family(name, "counter", "Rows of the requests that were answered.");
        for (labels, metrics) in models {
            self.sample(name, labels, metrics.rows.sum());
        }
        let name = "outhaul_queue_depth";
        self.family(name, "gauge", "Requests that wait for an instance now.");
        for (labels, metrics) in models {
            self.sample(name, labels, read(&metrics.queue_depth));
        }
    }

    fn stages(&mut self, models: &[(String, &ModelMetrics)]) {
        type Stage = fn(&ModelMetrics) -> &Histogram;
        let stages: [(&str, &str, Stage); 4] = [
            ("queue", "Waiting for an instance.", |metrics| &metrics.queue),
            ("assemble", "Joining the requests of a batch.", |metrics| &metrics.assemble),
            ("compute", "In the engine, for the whole batch.", |metrics| &metrics.compute),
            ("split", "Parting the outputs of a batch.", |metrics| &metrics.split),
        ];
        let transform = ("transform", "Texts, pictures and rows to tensors, and back.");
        if models.iter().any(|(_, metrics)| metrics.transform.count() > 0) {
            let name = format!("outhaul_{}_duration_seconds", transform.0);
            self.family(&name, "histogram", transform.1);
            for (labels, metrics) in models.iter().filter(|(_, m)| m.transform.count() > 0) {
                self.histogram(&name, labels, &metrics.transform, Unit::Seconds);
            }
        }
        for (stage, help, histogram) in stages {
            let name = format!("outhaul_{stage}_duration_seconds");
            self.family(&name, "histogram", help);
            for (labels, metrics) in models {
                self.histogram(&name, labels, histogram(metrics), Unit::Seconds);
            }
        }
    }

    fn batches(&mut self, models: &[(String, &ModelMetrics)]) {
        let name = "outhaul_batch_rows";
        self.family(name, "histogram", "Rows of one run of the engine.");
        for (labels, metrics) in models {
            self.histogram(name, labels, &metrics.batch_rows, Unit::Plain);
        }
        let name = "outhaul_batch_requests";
        self.family(name, "histogram", "Requests that shared one run of the engine.");
        for (labels, metrics) in models {
            self.histogram(name, labels, &metrics.batch_requests, Unit::Plain);
        }
    }

    fn calls(&mut self, server: &ServerMetrics) {
        let name = "outhaul_call_duration_seconds";
        self.family(name, "histogram", "From a call's head being read to its answer being ready.");
        for (contract, metrics) in CONTRACTS.iter().zip(&server.contracts) {
            for (outcome, histogram) in OUTCOMES.iter().zip(&metrics.durations) {
                if histogram.count() > 0 {
                    let labels = format!("contract=\"{contract}\",outcome=\"{outcome}\"");
                    self.histogram(name, &labels, histogram, Unit::Seconds);
                }
            }
        }
        type Size = fn(&ContractMetrics) -> &Histogram;
        let sizes: [(&str, &str, Size); 2] = [
            ("outhaul_call_request_bytes", "Bodies received.", |metrics| &metrics.request_bytes),
            ("outhaul_call_response_bytes", "Bodies sent.", |metrics| &metrics.response_bytes),
        ];
        for (name, help, histogram) in sizes {
            self.family(name, "histogram", help);
            for (contract, metrics) in CONTRACTS.iter().zip(&server.contracts) {
                if histogram(metrics).count() > 0 {
                    let labels = format!("contract=\"{contract}\"");
                    self.histogram(name, &labels, histogram(metrics), Unit::Plain);
                }
            }
        }
        self.family("outhaul_connections_open", "gauge", "Connections that are open now.");
        self.sample("outhaul_connections_open", "", read(&server.connections_open));
        self.family("outhaul_connections_total", "counter", "Connections accepted so far.");
        self.sample("outhaul_connections_total", "", read(&server.connections_total));
    }

    fn versions(&mut self, rows: &Rows) {
        let name = "outhaul_model_state";
        self.family(name, "gauge", "Where a version stands; 1 for its present state.");
        for ((model, version), row) in &rows.versions {
            let state = row.state.as_str();
            self.line(format_args!(
                "{name}{{model=\"{model}\",version=\"{version}\",state=\"{state}\"}} 1"
            ));
        }
        let name = "outhaul_model_memory_bytes";
        self.family(name, "gauge", "Measured memory of a version that is loaded.");
        for ((model, version), row) in &rows.versions {
            if let Some(bytes) = row.memory {
                let labels = format!("model=\"{model}\",version=\"{version}\"");
                self.sample(name, &labels, bytes);
            }
        }
        if let Some(bytes) = rows.budget {
            let name = "outhaul_memory_budget_bytes";
            self.family(name, "gauge", "Memory that models may take together.");
            self.sample(name, "", bytes);
        }
        let name = "outhaul_models_memory_bytes";
        self.family(name, "gauge", "Memory that models take together, draining ones included.");
        self.sample(name, "", rows.memory);
    }

    fn loads(&mut self, rows: &Rows, loading: &LoadMetrics) {
        let name = "outhaul_model_loads_total";
        self.family(name, "counter", "Loads of a model's versions.");
        for (model, row) in &rows.models {
            for (outcome, &count) in LoadOutcome::ALL.iter().zip(&row.loads) {
                if count > 0 {
                    let outcome = outcome.as_str();
                    self.sample(name, &format!("model=\"{model}\",outcome=\"{outcome}\""), count);
                }
            }
        }
        let name = "outhaul_model_load_seconds";
        self.family(name, "histogram", "What loads took, all models together.");
        for outcome in LoadOutcome::ALL {
            let histogram = loading.seconds(outcome);
            if histogram.count() > 0 {
                let labels = format!("outcome=\"{}\"", outcome.as_str());
                self.histogram(name, &labels, histogram, Unit::Seconds);
            }
        }
        type Count = fn(&ModelRow) -> u64;
        let counters: [(&str, &str, Count); 2] = [
            ("outhaul_model_evictions_total", "Versions that made room.", |row| row.evicted),
            ("outhaul_model_unloads_total", "Versions let go otherwise.", |row| row.unloaded),
        ];
        for (name, help, count) in counters {
            self.family(name, "counter", help);
            for (model, row) in &rows.models {
                self.sample(name, &format!("model=\"{model}\""), count(row));
            }
        }
    }

    fn sources(&mut self, rows: &Rows) {
        let sources: Vec<_> =
            rows.sources.iter().map(|(place, row)| (escaped(place), row)).collect();
        let name = "outhaul_source_looks_total";
        self.family(name, "counter", "Looks at a source for models.");
        for (place, row) in &sources {
            for (outcome, count) in [("ok", row.ok), ("failed", row.failed)] {
                if count > 0 {
                    let labels = format!("source=\"{place}\",outcome=\"{outcome}\"");
                    self.sample(name, &labels, count);
                }
            }
        }
        let name = "outhaul_source_last_success_timestamp_seconds";
        self.family(name, "gauge", "When a source was last looked at with success.");
        for (place, row) in &sources {
            if let Some(time) = row.last_success {
                let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
                self.sample(name, &format!("source=\"{place}\""), since_epoch.as_secs_f64());
            }
        }
        let name = "outhaul_source_fetch_bytes_total";
        self.family(name, "counter", "Bytes of models fetched from other machines.");
        self.sample(name, "", rows.fetched);
    }

    fn process(&mut self, process: &Process) {
        let name = "outhaul_build_info";
        self.family(name, "gauge", "The build that runs; always 1.");
        let labels = format!(
            "version=\"{}\",os=\"{}\",arch=\"{}\"",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::OS,
            std::env::consts::ARCH
        );
        self.sample(name, &labels, 1);
        let name = "process_start_time_seconds";
        self.family(name, "gauge", "When the process started, in seconds since the epoch.");
        self.sample(name, "", process.start_seconds());
        if let Some(bytes) = process.resident_bytes() {
            self.family("process_resident_memory_bytes", "gauge", "Memory in RAM.");
            self.sample("process_resident_memory_bytes", "", bytes);
        }
        if let Some(seconds) = process.cpu_seconds() {
            self.family("process_cpu_seconds_total", "counter", "Processor time taken so far.");
            self.sample("process_cpu_seconds_total", "", seconds);
        }
        if let Some(files) = process.open_files() {
            self.family("process_open_fds", "gauge", "Open files and sockets.");
            self.sample("process_open_fds", "", files);
        }
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        if labels.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!("{name}{{{labels}}} {value}"));
        }
    }

    fn histogram(&mut self, name: &str, labels: &str, histogram: &Histogram, unit: Unit) {
        let mut count = 0;
        for (bound, up_to) in histogram.cumulative() {
            match bound.map(|bound| unit.write(bound)) {
                Some(bound) => {
                    self.line(format_args!("{name}_bucket{{{labels},le=\"{bound}\"}} {up_to}"));
                }
                None => self.line(format_args!("{name}_bucket{{{labels},le=\"+Inf\"}} {up_to}")),
            }
            count = up_to;
        }
        let sum = unit.write(histogram.sum());
        self.line(format_args!("{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("writing to a string does not fail");
    }
}

fn read(value: &AtomicU64) -> u64 {
    value.load(Ordering::Relaxed)
}

/// Returns a text as the value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
