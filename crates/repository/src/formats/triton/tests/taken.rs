//! Every field that is taken means something.

use super::*;
use crate::formats::textproto::Decision;

/// An ensemble of one step.
const ENSEMBLE: &str = "input { name: 'X' } output { name: 'Y' } ensemble_scheduling { step { \
     model_name: 'm' input_map { key: 'x' value: 'X' } output_map { key: 'y' value: 'Y' } } }";

/// Texts without and with a field that is taken. What comes out must differ.
pub(super) const TAKEN: &[(&str, &str, &str)] = &[
    ("name", "", "name: 'other'"),
    ("platform", "", "platform: 'tensorrt_plan'"),
    ("backend", "", "backend: 'python'"),
    ("default_model_filename", "", "default_model_filename: 'net.onnx'"),
    (
        "version_policy.latest.num_versions",
        "version_policy { latest { } }",
        "version_policy { latest { num_versions: 2 } }",
    ),
    ("version_policy.all", "version_policy { }", "version_policy { all { } }"),
    (
        "version_policy.specific.versions",
        "version_policy { specific { versions: 1 } }",
        "version_policy { specific { versions: 2 } }",
    ),
    ("max_batch_size", "", "max_batch_size: 4"),
    ("input.name", "input { name: 'x' }", "input { name: 'y' }"),
    ("input.data_type", "input { name: 'x' }", "input { name: 'x' data_type: TYPE_BF16 }"),
    ("input.dims", "input { name: 'x' }", "input { name: 'x' dims: 2 }"),
    (
        "input.reshape.shape",
        "input { name: 'x' dims: 1 reshape { } }",
        "input { name: 'x' dims: 1 reshape { shape: 1 } }",
    ),
    ("output.name", "output { name: 'x' }", "output { name: 'y' }"),
    ("output.data_type", "output { name: 'x' }", "output { name: 'x' data_type: TYPE_BOOL }"),
    ("output.dims", "output { name: 'x' }", "output { name: 'x' dims: -1 }"),
    (
        "output.reshape.shape",
        "output { name: 'x' dims: 1 reshape { } }",
        "output { name: 'x' dims: 1 reshape { shape: [1, 1] } }",
    ),
    ("instance_group.count", "instance_group { }", "instance_group { count: 3 }"),
    ("instance_group.kind", "instance_group { }", "instance_group { kind: KIND_GPU }"),
    (
        "dynamic_batching.max_queue_delay_microseconds",
        "dynamic_batching { }",
        "dynamic_batching { max_queue_delay_microseconds: 7 }",
    ),
    (
        "dynamic_batching.priority_levels",
        "dynamic_batching { default_priority_level: 1 }",
        "dynamic_batching { default_priority_level: 1 priority_levels: 2 }",
    ),
    (
        "dynamic_batching.default_priority_level",
        "dynamic_batching { priority_levels: 2 default_priority_level: 1 }",
        "dynamic_batching { priority_levels: 2 default_priority_level: 2 }",
    ),
    (
        "dynamic_batching.default_queue_policy.default_timeout_microseconds",
        "dynamic_batching { default_queue_policy { } }",
        "dynamic_batching { default_queue_policy { default_timeout_microseconds: 9 } }",
    ),
    (
        "dynamic_batching.default_queue_policy.allow_timeout_override",
        "dynamic_batching { default_queue_policy { } }",
        "dynamic_batching { default_queue_policy { allow_timeout_override: true } }",
    ),
    (
        "dynamic_batching.default_queue_policy.max_queue_size",
        "dynamic_batching { default_queue_policy { } }",
        "dynamic_batching { default_queue_policy { max_queue_size: 9 } }",
    ),
    (
        "dynamic_batching.priority_queue_policy.default_timeout_microseconds",
        "dynamic_batching { priority_levels: 1 default_priority_level: 1 \
         priority_queue_policy { key: 1 value { } } }",
        "dynamic_batching { priority_levels: 1 default_priority_level: 1 \
         priority_queue_policy { key: 1 value { default_timeout_microseconds: 9 } } }",
    ),
    (
        "dynamic_batching.priority_queue_policy.allow_timeout_override",
        "dynamic_batching { priority_levels: 1 default_priority_level: 1 \
         priority_queue_policy { key: 1 value { } } }",
        "dynamic_batching { priority_levels: 1 default_priority_level: 1 \
         priority_queue_policy { key: 1 value { allow_timeout_override: true } } }",
    ),
    (
        "dynamic_batching.priority_queue_policy.max_queue_size",
        "dynamic_batching { priority_levels: 1 default_priority_level: 1 \
         priority_queue_policy { key: 1 value { } } }",
        "dynamic_batching { priority_levels: 1 default_priority_level: 1 \
         priority_queue_policy { key: 1 value { max_queue_size: 9 } } }",
    ),
    (
        "parameters.string_value",
        "parameters { key: 'intra_op_thread_count' value { string_value: '1' } }",
        "parameters { key: 'intra_op_thread_count' value { string_value: '2' } }",
    ),
    (
        "ensemble_scheduling.step.model_name",
        ENSEMBLE,
        "input { name: 'X' } output { name: 'Y' } ensemble_scheduling { step { model_name: 'n' \
         input_map { key: 'x' value: 'X' } output_map { key: 'y' value: 'Y' } } }",
    ),
    (
        "ensemble_scheduling.step.model_version",
        ENSEMBLE,
        "input { name: 'X' } output { name: 'Y' } ensemble_scheduling { step { model_name: 'm' \
         model_version: 2 \
         input_map { key: 'x' value: 'X' } output_map { key: 'y' value: 'Y' } } }",
    ),
    (
        "ensemble_scheduling.step.input_map",
        ENSEMBLE,
        "input { name: 'X' } output { name: 'Y' } ensemble_scheduling { step { model_name: 'm' \
         input_map { key: 'z' value: 'X' } output_map { key: 'y' value: 'Y' } } }",
    ),
    (
        "ensemble_scheduling.step.output_map",
        ENSEMBLE,
        "input { name: 'X' } output { name: 'Y' } ensemble_scheduling { step { model_name: 'm' \
         input_map { key: 'x' value: 'X' } output_map { key: 'z' value: 'Y' } } }",
    ),
    ("response_cache.enable", "response_cache { }", "response_cache { enable: true }"),
    ("model_warmup.name", "model_warmup { }", "model_warmup { name: 'w' }"),
    (
        "model_warmup.batch_size",
        "max_batch_size: 4 model_warmup { }",
        "max_batch_size: 4 model_warmup { batch_size: 2 }",
    ),
    ("model_warmup.count", "model_warmup { }", "model_warmup { count: 2 }"),
    (
        "model_warmup.inputs.data_type",
        "model_warmup { inputs { key: 'x' value { zero_data: true } } }",
        "model_warmup { inputs { key: 'x' value { zero_data: true data_type: TYPE_INT8 } } }",
    ),
    (
        "model_warmup.inputs.dims",
        "model_warmup { inputs { key: 'x' value { zero_data: true } } }",
        "model_warmup { inputs { key: 'x' value { zero_data: true dims: 3 } } }",
    ),
    (
        "model_warmup.inputs.zero_data",
        "model_warmup { inputs { key: 'x' value { } } }",
        "model_warmup { inputs { key: 'x' value { zero_data: false } } }",
    ),
    (
        "model_warmup.inputs.random_data",
        "model_warmup { inputs { key: 'x' value { zero_data: true } } }",
        "model_warmup { inputs { key: 'x' value { random_data: true } } }",
    ),
    (
        "model_warmup.inputs.input_data_file",
        "model_warmup { inputs { key: 'x' value { } } }",
        "model_warmup { inputs { key: 'x' value { input_data_file: 'x.bin' } } }",
    ),
];

#[test]
fn what_is_taken_means_something() {
    let samples: BTreeMap<&str, (&str, &str)> =
        TAKEN.iter().map(|(field, without, with)| (*field, (*without, *with))).collect();
    let taken =
        decisions::DECISIONS.iter().filter(|(_, decision)| matches!(decision, Decision::Taken));
    for (field, _) in taken {
        let (without, with) = samples.get(field).unwrap_or_else(|| panic!("no sample of {field}"));
        let rules = |foreign: Foreign| {
            let rules: Vec<_> = foreign.problems.iter().map(|p| p.rule.clone()).collect();
            let pipeline = foreign.pipeline.map(|outline| outline.spec().clone());
            (foreign.name, foreign.manifest, foreign.model_file, pipeline, rules)
        };
        assert_ne!(rules(read_text(without)), rules(read_text(with)), "{field} has no effect");
    }
}
