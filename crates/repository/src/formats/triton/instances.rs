//! `instance_group` and the backend's `parameters`: how many threads run the model.

use std::num::NonZeroUsize;

use outhaul_types::InstanceCount;

use super::super::textproto::Section;
use super::Target;

/// More threads than any machine has cores are a slip of the keyboard.
const MOST_THREADS: usize = 1024;

/// The value of `KIND_GPU`.
const ON_GPU: i128 = 1;

/// Parameters that Triton's ONNX Runtime backend knows and that change no answer.
const OF_THE_BACKEND: [&str; 12] = [
    "arena_extend_strategy",
    "cudnn_conv_algo_search",
    "cudnn_conv_use_max_workspace",
    "do_copy_in_default_stream",
    "enable_mem_arena",
    "enable_mem_pattern",
    "execution_mode",
    "gpu_mem_limit",
    "inter_op_thread_count",
    "memory.enable_memory_arena_shrinkage",
    "optimization.graph_level",
    "session.use_device_allocator_for_initializers",
];

pub(super) fn map(config: &Section<'_>, target: &mut Target) {
    groups(config, target);
    for (key, parameter) in config.sections_by_key("parameters") {
        match key.as_str() {
            "intra_op_thread_count" => threads(&parameter, target),
            key => {
                let (rule, remedy) = if OF_THE_BACKEND.contains(&key) {
                    ("the engine chooses this by itself", "nothing needs doing")
                } else {
                    let remedy = "nothing needs doing if the model answers as it should";
                    ("this parameter has no effect", remedy)
                };
                target.problems.push(parameter.problem("string_value", rule, remedy).warning());
            }
        }
    }
}

/// Adds the groups up. Those on GPUs say how often a GPU is shared, which tells nothing of cores.
fn groups(config: &Section<'_>, target: &mut Target) {
    let mut sum = 0_usize;
    for group in config.sections("instance_group") {
        let count = group.number("count");
        let range = format!("must be a whole number from 1 to {MOST_THREADS}");
        match usize::try_from(count) {
            Ok(count) if count <= MOST_THREADS => {
                if group.number("kind") == ON_GPU {
                    let rule = "models run on the CPU, in as many instances as it has cores";
                    let remedy = "write kind: KIND_CPU with a count to choose the number";
                    target.problems.push(group.problem("kind", rule, remedy).warning());
                } else {
                    sum = sum.saturating_add(count.max(1));
                }
            }
            _ => target.problems.push(group.problem("count", &range, "leave it out for 1")),
        }
    }
    if sum > MOST_THREADS {
        let rule = format!("the counts add up to {sum}, and {MOST_THREADS} is the most");
        target.problems.push(config.problem("instance_group", &rule, "lower them"));
    } else if let Some(count) = NonZeroUsize::new(sum) {
        target.manifest.instances.count = InstanceCount::Fixed(count);
    }
}

fn threads(parameter: &Section<'_>, target: &mut Target) {
    match parameter.text("string_value").trim().parse::<usize>() {
        Ok(0) => {
            let rule = "an instance has one thread unless a number says otherwise";
            let remedy = "write the number of cores if single requests have to be fast";
            target.problems.push(parameter.problem("string_value", rule, remedy).warning());
        }
        Ok(number) if number <= MOST_THREADS => {
            target.manifest.instances.threads =
                NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN);
        }
        _ => {
            let rule = format!("must be a whole number from 1 to {MOST_THREADS}");
            target.problems.push(parameter.problem("string_value", &rule, "leave it out for 1"));
        }
    }
}
