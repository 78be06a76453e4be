//! What a server tells of itself and its models, as messages.

use std::collections::BTreeMap;

use outhaul_types::{DataType, TensorSpec};

use super::pb;
use crate::describe::{
    DurationStatistic, ModelConfig, ModelMetadata, ModelStatistics, RepositoryEntry, ServerMetadata,
};

/// Makes the message that names the server.
pub fn server_metadata(metadata: &ServerMetadata<'_>) -> pb::ServerMetadataResponse {
    pb::ServerMetadataResponse {
        name: metadata.name.to_owned(),
        version: metadata.version.to_owned(),
        extensions: metadata.extensions.iter().map(|&extension| extension.to_owned()).collect(),
    }
}

/// Makes the message that describes a model. The message has no place for properties; they travel in
/// [`model_config`].
pub fn model_metadata(metadata: &ModelMetadata<'_>) -> pb::ModelMetadataResponse {
    let tensors = |specs: &[TensorSpec]| {
        let tensor = |spec: &TensorSpec| pb::model_metadata_response::TensorMetadata {
            name: spec.name.to_string(),
            datatype: spec.data_type.name().to_owned(),
            shape: spec.shape.protocol_dimensions(),
        };
        specs.iter().map(tensor).collect()
    };
    pb::ModelMetadataResponse {
        name: metadata.name.to_owned(),
        versions: metadata.versions.iter().map(ToString::to_string).collect(),
        platform: metadata.platform.to_owned(),
        inputs: tensors(&metadata.signature.inputs),
        outputs: tensors(&metadata.signature.outputs),
    }
}

/// Makes the message that tells how a model is run, with the `properties` that are not empty
/// as its parameters.
pub fn model_config(
    config: &ModelConfig<'_>,
    properties: &[(&str, &str)],
) -> pb::ModelConfigResponse {
    let dims = |spec: &TensorSpec| {
        let mut dimensions = spec.shape.protocol_dimensions();
        if config.max_rows.is_some() && !dimensions.is_empty() {
            dimensions.remove(0);
        }
        dimensions
    };
    let input = |spec: &TensorSpec| pb::ModelInput {
        name: spec.name.to_string(),
        data_type: data_type(spec.data_type) as i32,
        dims: dims(spec),
        optional: spec.optional,
    };
    let output = |spec: &TensorSpec| pb::ModelOutput {
        name: spec.name.to_string(),
        data_type: data_type(spec.data_type) as i32,
        dims: dims(spec),
    };
    let batching = config.max_rows.map(|_| {
        let delay = u64::try_from(config.max_delay.as_micros()).unwrap_or(u64::MAX);
        pb::model_config::SchedulingChoice::DynamicBatching(pb::ModelDynamicBatching {
            preferred_batch_size: Vec::new(),
            max_queue_delay_microseconds: delay,
        })
    });
    let instances = pb::ModelInstanceGroup {
        name: config.name.to_owned(),
        count: int32(config.instances),
        kind: pb::model_instance_group::Kind::Cpu as i32,
    };
    let parameter = |&(name, value): &(&str, &str)| {
        (name.to_owned(), pb::ModelParameter { string_value: value.to_owned() })
    };
    let config = pb::ModelConfig {
        name: config.name.to_owned(),
        platform: config.platform.to_owned(),
        max_batch_size: config.max_rows.map_or(0, int32),
        input: config.signature.inputs.iter().map(input).collect(),
        output: config.signature.outputs.iter().map(output).collect(),
        instance_group: vec![instances],
        default_model_filename: "model.onnx".to_owned(),
        parameters: properties
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(parameter)
            .collect(),
        backend: config.backend.to_owned(),
        scheduling_choice: batching,
    };
    pb::ModelConfigResponse { config: Some(config) }
}

/// Makes the message of the statistics extension.
pub fn model_statistics(
    statistics: impl IntoIterator<Item = ModelStatistics>,
) -> pb::ModelStatisticsResponse {
    pb::ModelStatisticsResponse { model_stats: statistics.into_iter().map(model).collect() }
}

fn model(statistics: ModelStatistics) -> pb::ModelStatistics {
    let batch = |batch: &crate::describe::BatchStatistics| pb::InferBatchStatistics {
        batch_size: batch.rows,
        compute_input: duration(batch.compute_input),
        compute_infer: duration(batch.compute_infer),
        compute_output: duration(batch.compute_output),
    };
    pb::ModelStatistics {
        last_inference: statistics.last_inference,
        inference_count: statistics.inference_count,
        execution_count: statistics.execution_count,
        inference_stats: Some(pb::InferStatistics {
            success: duration(statistics.success),
            fail: duration(statistics.fail),
            queue: duration(statistics.queue),
            compute_input: duration(statistics.compute_input),
            compute_infer: duration(statistics.compute_infer),
            compute_output: duration(statistics.compute_output),
            cache_hit: duration(statistics.cache_hit),
            cache_miss: duration(statistics.cache_miss),
        }),
        batch_stats: statistics.batches.iter().map(batch).collect(),
        memory_usage: Vec::new(),
        response_stats: BTreeMap::new(),
        name: statistics.name,
        version: statistics.version,
    }
}

/// Makes the message of the repository's index, which has no place for the details.
pub fn repository_index<'a>(
    entries: impl IntoIterator<Item = RepositoryEntry<'a>>,
) -> pb::RepositoryIndexResponse {
    let index = |entry: RepositoryEntry<'_>| pb::repository_index_response::ModelIndex {
        name: entry.name.to_owned(),
        version: entry.version.to_owned(),
        state: entry.state.as_str().to_owned(),
        reason: entry.reason.to_owned(),
    };
    pb::RepositoryIndexResponse { models: entries.into_iter().map(index).collect() }
}

fn duration(statistic: DurationStatistic) -> Option<pb::StatisticDuration> {
    Some(pb::StatisticDuration { count: statistic.count, ns: statistic.ns })
}

fn int32(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

const fn data_type(data_type: DataType) -> pb::DataType {
    match data_type {
        DataType::Bool => pb::DataType::TypeBool,
        DataType::Uint8 => pb::DataType::TypeUint8,
        DataType::Uint16 => pb::DataType::TypeUint16,
        DataType::Uint32 => pb::DataType::TypeUint32,
        DataType::Uint64 => pb::DataType::TypeUint64,
        DataType::Int8 => pb::DataType::TypeInt8,
        DataType::Int16 => pb::DataType::TypeInt16,
        DataType::Int32 => pb::DataType::TypeInt32,
        DataType::Int64 => pb::DataType::TypeInt64,
        DataType::Fp16 => pb::DataType::TypeFp16,
        DataType::Bf16 => pb::DataType::TypeBf16,
        DataType::Fp32 => pb::DataType::TypeFp32,
        DataType::Fp64 => pb::DataType::TypeFp64,
        DataType::Bytes => pb::DataType::TypeString,
    }
}
