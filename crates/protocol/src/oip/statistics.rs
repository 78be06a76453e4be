//! The statistics extension, in the form that Triton's clients read.

use bytes::Bytes;
use serde::Serialize;

use super::metadata::to_bytes;
use crate::describe::{DurationStatistic, ModelStatistics};

#[derive(Serialize)]
struct Report<'a> {
    model_stats: Vec<Model<'a>>,
}

#[derive(Serialize)]
struct Model<'a> {
    name: &'a str,
    version: &'a str,
    last_inference: u64,
    inference_count: u64,
    execution_count: u64,
    inference_stats: Inference,
    batch_stats: Vec<Batch>,
}

#[derive(Serialize)]
struct Inference {
    success: Durations,
    fail: Durations,
    queue: Durations,
    compute_input: Durations,
    compute_infer: Durations,
    compute_output: Durations,
    cache_hit: Durations,
    cache_miss: Durations,
}

#[derive(Serialize)]
struct Batch {
    batch_size: u64,
    compute_input: Durations,
    compute_infer: Durations,
    compute_output: Durations,
}

#[derive(Serialize)]
struct Durations {
    count: u64,
    ns: u64,
}

impl From<DurationStatistic> for Durations {
    fn from(DurationStatistic { count, ns }: DurationStatistic) -> Self {
        Durations { count, ns }
    }
}

/// Returns the statistics of models.
pub fn statistics(models: &[ModelStatistics]) -> Bytes {
    to_bytes(&Report { model_stats: models.iter().map(model).collect() })
}

fn model(model: &ModelStatistics) -> Model<'_> {
    Model {
        name: &model.name,
        version: &model.version,
        last_inference: model.last_inference,
        inference_count: model.inference_count,
        execution_count: model.execution_count,
        inference_stats: Inference {
            success: model.success.into(),
            fail: model.fail.into(),
            queue: model.queue.into(),
            compute_input: model.compute_input.into(),
            compute_infer: model.compute_infer.into(),
            compute_output: model.compute_output.into(),
            cache_hit: model.cache_hit.into(),
            cache_miss: model.cache_miss.into(),
        },
        batch_stats: model
            .batches
            .iter()
            .map(|batch| Batch {
                batch_size: batch.rows,
                compute_input: batch.compute_input.into(),
                compute_infer: batch.compute_infer.into(),
                compute_output: batch.compute_output.into(),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::describe::BatchStatistics;

    #[test]
    fn statistics_have_the_form_that_clients_read() {
        let of = |count, ns| DurationStatistic { count, ns };
        let model = ModelStatistics {
            name: "m".to_owned(),
            version: "1".to_owned(),
            last_inference: 1_700_000_000_000,
            inference_count: 5,
            execution_count: 2,
            success: of(3, 900),
            queue: of(3, 100),
            compute_infer: of(2, 700),
            batches: vec![BatchStatistics {
                rows: 4,
                compute_infer: of(1, 400),
                ..BatchStatistics::default()
            }],
            ..ModelStatistics::default()
        };
        let none = json!({ "count": 0, "ns": 0 });
        let expected = json!({ "model_stats": [{
            "name": "m", "version": "1", "last_inference": 1_700_000_000_000_u64,
            "inference_count": 5, "execution_count": 2,
            "inference_stats": {
                "success": { "count": 3, "ns": 900 }, "fail": none,
                "queue": { "count": 3, "ns": 100 }, "compute_input": none,
                "compute_infer": { "count": 2, "ns": 700 }, "compute_output": none,
                "cache_hit": none, "cache_miss": none,
            },
            "batch_stats": [{
                "batch_size": 4, "compute_input": none,
                "compute_infer": { "count": 1, "ns": 400 }, "compute_output": none,
            }],
        }] });
        assert_eq!(serde_json::from_slice::<Value>(&statistics(&[model])).unwrap(), expected);
    }
}
