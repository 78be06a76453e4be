//! What each field of `config.pbtxt` leads to. `docs/guide/import.md` tells the same in prose.

use super::super::textproto::Decision::{Refuse, Taken, Warn};
use super::super::textproto::Row;

const NOTHING: &str = "nothing needs doing";
const REMOVE: &str = "remove it once the model no longer needs it";

/// Every field, by its path.
pub(super) const DECISIONS: &[Row] = &[
    ("name", Taken),
    ("platform", Taken),
    ("backend", Taken),
    ("runtime", Warn("the engine is Outhaul's own choice", NOTHING)),
    ("default_model_filename", Taken),
    (
        "cc_model_filenames",
        Warn("models run on the CPU, so default_model_filename is served", NOTHING),
    ),
    ("version_policy.latest.num_versions", Taken),
    ("version_policy.all", Taken),
    ("version_policy.specific.versions", Taken),
    ("max_batch_size", Taken),
    ("input.name", Taken),
    ("input.data_type", Taken),
    ("input.dims", Taken),
    ("input.reshape.shape", Taken),
    ("input.format", Warn("images are not turned from one layout into another", NOTHING)),
    (
        "input.optional",
        Warn(
            "an input may be left out only where the model's file holds a default for it",
            "check that it does if callers leave it out",
        ),
    ),
    (
        "input.allow_ragged_batch",
        Refuse(
            "requests of different shapes do not share a batch",
            "remove it, and batch_input and batch_output with it, if the model does without",
        ),
    ),
    (
        "input.is_shape_tensor",
        Refuse("only TensorRT has shape tensors", "remove it: an ONNX model has plain inputs"),
    ),
    (
        "input.is_non_linear_format_io",
        Refuse("only TensorRT has such layouts", "remove it: an ONNX model has plain inputs"),
    ),
    ("output.name", Taken),
    ("output.data_type", Taken),
    ("output.dims", Taken),
    ("output.reshape.shape", Taken),
    (
        "output.label_filename",
        Warn("classifications are answered without labels", "let callers look labels up"),
    ),
    (
        "output.is_shape_tensor",
        Refuse("only TensorRT has shape tensors", "remove it: an ONNX model has plain outputs"),
    ),
    (
        "output.is_non_linear_format_io",
        Refuse("only TensorRT has such layouts", "remove it: an ONNX model has plain outputs"),
    ),
    ("batch_input", Refuse("inputs made up from a whole batch are not supported", REMOVE)),
    ("batch_output", Refuse("outputs parted by an input's shape are not supported", REMOVE)),
    ("instance_group.name", Warn("groups of instances have no names", NOTHING)),
    ("instance_group.kind", Taken),
    ("instance_group.count", Taken),
    ("instance_group.gpus", Warn("models run on the CPU", NOTHING)),
    ("instance_group.secondary_devices", Warn("models run on the CPU", NOTHING)),
    ("instance_group.profile", Warn("only TensorRT has profiles", NOTHING)),
    (
        "instance_group.passive",
        Refuse("every instance takes requests", "remove the group that takes none"),
    ),
    ("instance_group.host_policy", Warn("instances are not bound to cores", NOTHING)),
    (
        "instance_group.rate_limiter",
        Warn("instances run whenever they have work", "lower the count of the group instead"),
    ),
    (
        "optimization.graph",
        Warn("the engine optimises every graph as far as it can without other answers", NOTHING),
    ),
    ("optimization.priority", Warn("only TensorRT has priorities of models", NOTHING)),
    ("optimization.cuda", Warn("models run on the CPU", NOTHING)),
    (
        "optimization.execution_accelerators",
        Warn("models run on the engine's own CPU kernels, in the precision of their file", NOTHING),
    ),
    ("optimization.input_pinned_memory", Warn("models run on the CPU", NOTHING)),
    ("optimization.output_pinned_memory", Warn("models run on the CPU", NOTHING)),
    ("optimization.gather_kernel_buffer_threshold", Warn("models run on the CPU", NOTHING)),
    ("optimization.eager_batching", Warn("only TensorRT has eager batching", NOTHING)),
    (
        "dynamic_batching.preferred_batch_size",
        Warn("a batch takes whatever is waiting, so no size is preferred", NOTHING),
    ),
    ("dynamic_batching.max_queue_delay_microseconds", Taken),
    (
        "dynamic_batching.preserve_ordering",
        Warn(
            "every caller gets its own answer as soon as it is there",
            "let a caller whose requests have an order wait for each answer",
        ),
    ),
    ("dynamic_batching.priority_levels", Taken),
    ("dynamic_batching.default_priority_level", Taken),
    ("dynamic_batching.default_queue_policy.timeout_action", DELAY),
    ("dynamic_batching.default_queue_policy.default_timeout_microseconds", Taken),
    ("dynamic_batching.default_queue_policy.allow_timeout_override", Taken),
    ("dynamic_batching.default_queue_policy.max_queue_size", Taken),
    ("dynamic_batching.priority_queue_policy.timeout_action", DELAY),
    ("dynamic_batching.priority_queue_policy.default_timeout_microseconds", Taken),
    ("dynamic_batching.priority_queue_policy.allow_timeout_override", Taken),
    ("dynamic_batching.priority_queue_policy.max_queue_size", Taken),
    (
        "sequence_batching",
        Refuse(
            "sequences of requests that share a state are not supported",
            "give the state to the model as an input and get it back as an output",
        ),
    ),
    ("ensemble_scheduling.step.model_name", Taken),
    ("ensemble_scheduling.step.model_version", Taken),
    ("ensemble_scheduling.step.input_map", Taken),
    ("ensemble_scheduling.step.output_map", Taken),
    (
        "ensemble_scheduling.step.model_namespace",
        Refuse("models have no namespaces", "give the models names that differ, and remove it"),
    ),
    (
        "ensemble_scheduling.max_inflight_responses",
        Warn("every step has one answer, so that none pile up", NOTHING),
    ),
    ("parameters.string_value", Taken),
    ("metric_tags", Warn("metrics carry the model's name and version alone", NOTHING)),
    ("model_warmup.name", Taken),
    ("model_warmup.batch_size", Taken),
    ("model_warmup.count", Taken),
    ("model_warmup.inputs.data_type", Taken),
    ("model_warmup.inputs.dims", Taken),
    ("model_warmup.inputs.zero_data", Taken),
    ("model_warmup.inputs.random_data", Taken),
    ("model_warmup.inputs.input_data_file", Taken),
    (
        "model_operations.op_library_filename",
        Refuse(
            "libraries of custom operators are not loaded",
            "export the model with standard operators",
        ),
    ),
    (
        "model_transaction_policy.decoupled",
        Refuse("every request has exactly one answer", "serve a model that answers once"),
    ),
    (
        "model_repository_agents.agents",
        Refuse(
            "repository agents are not run",
            "do their work before the folder is served, then remove them",
        ),
    ),
    ("response_cache.enable", Taken),
    ("model_metrics.metric_control", Warn("histograms have fixed buckets", NOTHING)),
];

const DELAY: super::super::textproto::Decision =
    Warn("a request that waits too long is refused, not put behind the others", NOTHING);
